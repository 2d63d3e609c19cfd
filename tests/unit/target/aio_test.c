/* SPDX-License-Identifier: MIT */
/* Transfers by the ring: each ends once, on its loop, with what the kernel says of it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>
#include <event2/event.h>
#include "aio.h"
#include "loop.h"
#include "target.h"

#define MANY  1500 /* more than a batch, and than may be in flight */
#define PIECE 512

struct transfer {
	struct aio aio;
	struct iovec iov[2];
	char buf[PIECE];
	bool refused, done;
};

static struct loop *loop;
static struct transfer transfers[MANY];
static int pending;
static bool submitting;

static void transfer_done(struct aio *a)
{
	struct transfer *t = (struct transfer *)a;

	assert_ptr_equal(loop_current(), loop);
	assert_false(submitting);
	assert_false(t->done);
	t->done = true;
	if (!--pending)
		loop_stop(loop);
}

static void submit(struct transfer *t, int fd, bool write, uint64_t off)
{
	t->iov[0] = (struct iovec){ t->buf, PIECE / 4 };
	t->iov[1] = (struct iovec){ t->buf + PIECE / 4, PIECE - PIECE / 4 };
	t->aio = (struct aio){ .fd = fd,
			       .write = write,
			       .iov = t->iov,
			       .n = 2,
			       .off = off,
			       .len = PIECE,
			       .done = transfer_done };
	t->done = false;
	submitting = true;
	t->refused = !aio_submit(loop, &t->aio);
	submitting = false;
	memset(t->iov, 0xff, sizeof(t->iov)); /* they were copied */
	pending += !t->refused;
}

/* Runs FN on the loop, and the loop until all that it submitted has ended. */
static void on_loop(void (*fn)(struct loop_msg *))
{
	struct loop_msg msg = { .fn = fn };

	loop_post(loop, &msg);
	loop_run(loop);
	assert_int_equal(pending, 0);
}

static int fd;

static int new_loop(void **state)
{
	(void)state;
	loop = loop_new(NULL);
	fd = memfd_create("aio", MFD_CLOEXEC);
	return loop && fd >= 0 ? 0 : -1;
}

static int end_loop(void **state)
{
	(void)state;
	loop_free(loop);
	close(fd);
	return 0;
}

static void write_many(struct loop_msg *msg)
{
	(void)msg;
	for (int i = 0; i < MANY; i++) {
		memset(transfers[i].buf, i % 251, PIECE);
		submit(&transfers[i], fd, true, (uint64_t)i * PIECE);
	}
}

static void read_many(struct loop_msg *msg)
{
	(void)msg;
	for (int i = 0; i < MANY; i++) {
		memset(transfers[i].buf, 0xff, PIECE);
		submit(&transfers[i], fd, false, (uint64_t)i * PIECE);
	}
}

static void each_of_many_is_done_once(void **state)
{
	int taken = 0;

	(void)state;
	on_loop(write_many);
	for (int i = 0; i < MANY; i++) {
		struct transfer *t = &transfers[i];

		taken += !t->refused;
		if (t->refused) /* the ring was full: somebody else's */
			assert_int_equal(pwrite(fd, t->buf, PIECE, i * PIECE), PIECE);
		else
			assert_int_equal(t->aio.res, PIECE);
	}
	if (!taken)
		skip(); /* no io_uring here */
	assert_int_equal(taken, 1024);
	on_loop(read_many);
	for (int i = 0; i < MANY; i++) {
		struct transfer *t = &transfers[i];

		if (t->refused)
			continue;
		assert_int_equal(t->aio.res, PIECE);
		for (int k = 0; k < PIECE; k++)
			assert_int_equal((unsigned char)t->buf[k], i % 251);
	}
}

static int pipes[2];

static void read_pipe(struct loop_msg *msg)
{
	(void)msg;
	submit(&transfers[0], pipes[0], false, 0);
	submit(&transfers[1], fd, true, 0);
}

/* Of two in flight, the later ends the earlier: so the kernel had both, and neither held the loop. */
static void end_first(struct aio *a)
{
	char buf[PIECE] = "";

	transfer_done(a);
	assert_false(transfers[0].done);
	assert_int_equal(write(pipes[1], buf, PIECE), PIECE);
}

static void read_pipe_then_end_it(struct loop_msg *msg)
{
	read_pipe(msg);
	transfers[1].aio.done = end_first;
}

static void the_loop_goes_on_meanwhile(void **state)
{
	(void)state;
	assert_int_equal(pipe(pipes), 0);
	on_loop(read_pipe_then_end_it);
	if (transfers[0].refused)
		skip();
	assert_int_equal(transfers[0].aio.res, PIECE);
	close(pipes[0]);
	close(pipes[1]);
}

static int full, wrong;

static void submit_bad_ones(struct loop_msg *msg)
{
	(void)msg;
	submit(&transfers[0], fd, true, 0);
	submit(&transfers[1], full, true, 0);
	submit(&transfers[2], wrong, true, 0);
	submit(&transfers[3], fd, false, PIECE / 2); /* half of it is there */
	submit(&transfers[4], fd, false, 10 * PIECE);
	submit(&transfers[5], fd, true, 0);
}

static void what_fails_is_told_and_the_rest_goes_on(void **state)
{
	static const char zeroes[PIECE];

	(void)state;
	full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	wrong = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_true(full >= 0 && wrong >= 0);
	assert_int_equal(pwrite(fd, zeroes, PIECE, 0), PIECE);
	for (int round = 0; round < 2; round++) { /* the ring is as good as before */
		on_loop(submit_bad_ones);
		if (transfers[0].refused)
			skip();
		assert_int_equal(transfers[0].aio.res, PIECE);
		assert_int_equal(transfers[1].aio.res, -ENOSPC);
		assert_int_equal(transfers[2].aio.res, -EBADF);
		assert_int_equal(transfers[3].aio.res, PIECE / 2);
		assert_int_equal(transfers[4].aio.res, 0);
		assert_int_equal(transfers[5].aio.res, PIECE);
	}
	close(full);
	close(wrong);
}

static void submit_and_stop(struct loop_msg *msg)
{
	write_many(msg);
	if (!pending)
		loop_stop(loop);
}

/* No descriptor is left for it: it says no to the first and to all others, also when there is one. */
static void without_a_ring_it_says_no_for_ever(void **state)
{
	struct rlimit old, none;
	int next = dup(fd);

	(void)state;
	assert_true(next >= 0);
	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ (rlim_t)next, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	on_loop(submit_and_stop);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	for (int i = 0; i < MANY; i++)
		assert_true(transfers[i].refused);
	on_loop(submit_and_stop);
	for (int i = 0; i < MANY; i++)
		assert_true(transfers[i].refused);
}

static int fail_at; /* the allocation of libevent that fails, counted from here; 0: none */

static void *event_malloc(size_t n)
{
	return fail_at && !--fail_at ? NULL : malloc(n);
}

/* The ring exists, and there is no memory for one of its two events. */
static void without_its_events_there_is_no_ring(void **state)
{
	(void)state;
	for (int n = 1; n <= 2; n++) {
		loop = loop_new(NULL);
		assert_non_null(loop);
		fail_at = n;
		on_loop(submit_and_stop);
		fail_at = 0;
		for (int i = 0; i < MANY; i++)
			assert_true(transfers[i].refused);
		loop_free(loop);
	}
}

static struct loop_msg other_msg;

static void *other_thread(void *arg)
{
	(void)arg;
	loop_run(loop);
	return NULL;
}

/*
 * A ring has one thread; to another the kernel says no, which stands here for whatever else it may
 * refuse. What was queued comes back undone, and the ring is not tried again.
 */
static void what_the_kernel_does_not_take_comes_back(void **state)
{
	pthread_t thread;

	(void)state;
	on_loop(read_pipe);
	if (transfers[0].refused)
		skip();
	other_msg.fn = submit_and_stop;
	loop_post(loop, &other_msg);
	assert_int_equal(pthread_create(&thread, NULL, other_thread, NULL), 0);
	pthread_join(thread, NULL);
	assert_int_equal(pending, 0);
	for (int i = 0; i < MANY; i++)
		assert_true(transfers[i].refused || transfers[i].aio.res == -EAGAIN);
	assert_false(transfers[0].refused);
	assert_true(transfers[MANY - 1].refused);
}

static int with_pipe(void **state)
{
	char buf[PIECE] = "";

	/* Readable at once. */
	return new_loop(state) || pipe(pipes) || write(pipes[1], buf, PIECE) != PIECE ? -1 : 0;
}

static int end_pipe(void **state)
{
	close(pipes[0]);
	close(pipes[1]);
	return end_loop(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_of_many_is_done_once, new_loop, end_loop),
		cmocka_unit_test_setup_teardown(the_loop_goes_on_meanwhile, new_loop, end_loop),
		cmocka_unit_test_setup_teardown(what_fails_is_told_and_the_rest_goes_on, new_loop,
						end_loop),
		cmocka_unit_test_setup_teardown(without_a_ring_it_says_no_for_ever, new_loop,
						end_loop),
		cmocka_unit_test(without_its_events_there_is_no_ring),
		cmocka_unit_test_setup_teardown(what_the_kernel_does_not_take_comes_back, with_pipe,
						end_pipe),
	};

	event_set_mem_functions(event_malloc, realloc, free);
	log_level(LOG_ERR_);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
