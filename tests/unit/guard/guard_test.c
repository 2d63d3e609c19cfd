/* SPDX-License-Identifier: MIT */
/* Access to mappings that fault: guard_run() returns, and a fault elsewhere still ends the program. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "guard.h"

#define PAGE 4096

static char *map; /* two pages of a file that has one */

static int make_map(void **state)
{
	char name[] = "/tmp/guard_test.XXXXXX";
	int fd = mkstemp(name);

	(void)state;
	if (fd < 0 || unlink(name) || ftruncate(fd, PAGE))
		return -1;
	map = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return map == MAP_FAILED ? -1 : 0;
}

static int end_map(void **state)
{
	(void)state;
	return munmap(map, 2 * PAGE);
}

struct fill {
	size_t len;
	bool ended;
};

static void fill(void *arg)
{
	struct fill *f = arg;

	memset(map, 'x', f->len);
	f->ended = true;
}

static void a_fault_ends_the_call(void)
{
	struct fill good = { .len = PAGE }, bad = { .len = 2 * PAGE };

	for (int i = 0; i < 3; i++) {
		good.ended = false;
		assert_true(guard_run(fill, &good));
		assert_true(good.ended);
		assert_false(guard_run(fill, &bad));
		assert_false(bad.ended);
		assert_int_equal(map[PAGE - 1], 'x');
	}
}

/* Reads the page that is there, and one more. */
static void look(void *arg)
{
	int *sum = arg;

	for (size_t i = 0; i < 2 * PAGE; i += 512)
		*sum += ((volatile char *)map)[i];
}

static void *fault_often(void *arg)
{
	bool *wrong = arg;
	int sum = 0;

	for (int i = 0; i < 1000; i++)
		*wrong |= guard_run(look, &sum);
	return NULL;
}

static void every_thread_has_its_own(void)
{
	pthread_t thread[4];
	bool wrong[4] = { false };

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, fault_often, &wrong[i]), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(thread[i], NULL);
		assert_false(wrong[i]);
	}
}

/* How a child ends that calls ACT after it has used a guard. */
static int end_of(void (*act)(void))
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		guard_run(fill, &(struct fill){ .len = 1 });
		act();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void access_alone(void)
{
	map[PAGE] = 1;
}

static void send_signal(void)
{
	kill(getpid(), SIGBUS);
}

static void a_fault_elsewhere_ends_the_program(void)
{
	int status = end_of(access_alone);

	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	status = end_of(send_signal);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

/* One test, since cmocka takes SIGBUS for itself at the beginning of each. */
static void mappings_that_fault(void **state)
{
	signal(SIGBUS, SIG_DFL);
	guard_install();
	guard_install(); /* the second time changes nothing */
	a_fault_ends_the_call();
	every_thread_has_its_own();
	a_fault_elsewhere_ends_the_program();
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(mappings_that_fault, make_map, end_map),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
