/* SPDX-License-Identifier: MIT */
/* Loops: order of messages, wake-ups across threads, stopping, timers. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "loop.h"

#define POSTS	10000
#define POSTERS 3

struct counted {
	struct loop_msg msg;
	struct loop *loop;
	int from, nr;
};

static int last_nr[POSTERS], seen, last;

static void count(struct loop_msg *msg)
{
	struct counted *c = (struct counted *)msg;

	assert_int_equal(c->nr, last_nr[c->from] + 1);
	last_nr[c->from] = c->nr;
	assert_ptr_equal(loop_current(), c->loop);
	if (++seen == POSTS * POSTERS)
		loop_stop(c->loop);
	free(c);
}

struct poster {
	struct loop *loop;
	int id;
};

static void *post_many(void *arg)
{
	struct poster *p = arg;

	for (int i = 1; i <= POSTS; i++) {
		struct counted *c = calloc(1, sizeof(*c));

		*c = (struct counted){ { .fn = count }, p->loop, p->id, i };
		loop_post(p->loop, &c->msg);
	}
	return NULL;
}

static void messages_of_a_thread_arrive_in_order(void **state)
{
	struct loop *loop = loop_new(NULL);
	struct poster posters[POSTERS];
	pthread_t threads[POSTERS];

	(void)state;
	assert_non_null(loop);
	assert_null(loop_current());
	for (int i = 0; i < POSTERS; i++) {
		posters[i] = (struct poster){ loop, i };
		pthread_create(&threads[i], NULL, post_many, &posters[i]);
	}
	loop_run(loop);
	assert_null(loop_current());
	for (int i = 0; i < POSTERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(seen, POSTS * POSTERS);
	loop_free(loop);
}

static struct loop *again_loop;
static int again_left = 3;

static void again(struct loop_msg *msg)
{
	if (--again_left)
		loop_post(again_loop, msg);
	else
		loop_stop(again_loop);
}

static void a_message_may_post_itself_again(void **state)
{
	struct loop_msg msg = { .fn = again };

	(void)state;
	again_loop = loop_new(NULL);
	loop_post(again_loop, &msg);
	loop_run(again_loop);
	assert_int_equal(again_left, 0);
	loop_free(again_loop);
}

static void a_stop_before_run_is_not_lost(void **state)
{
	struct loop *loop = loop_new(NULL);

	(void)state;
	loop_stop(loop);
	loop_run(loop);
	loop_free(loop);
}

/* Without its eventfd a loop could not be woken: there is none. */
static void without_a_descriptor_there_is_no_loop(void **state)
{
	struct rlimit old, none;
	int next = dup(STDERR_FILENO);

	(void)state;
	assert_true(next >= 0);
	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ (rlim_t)next, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_null(loop_new(NULL));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
}

static struct loop *timer_loop;

static void timer_last(struct loop_timer *t)
{
	(void)t;
	last++;
	loop_stop(timer_loop);
}

static void timer_never(struct loop_timer *t)
{
	(void)t;
	fail_msg("a disarmed timer fired");
}

static void an_armed_timer_fires_once_and_not_early(void **state)
{
	struct loop_timer t, never;
	uint64_t start;

	(void)state;
	timer_loop = loop_new(NULL);
	assert_int_equal(loop_timer_init(&t, timer_loop, timer_last), 0);
	assert_int_equal(loop_timer_init(&never, timer_loop, timer_never), 0);
	start = clock_ms();
	loop_timer_arm(&never, 5);
	loop_timer_disarm(&never);
	loop_timer_arm(&t, 1);
	loop_timer_arm(&t, 30); /* moved, not doubled */
	loop_run(timer_loop);
	assert_int_equal(last, 1);
	assert_true(clock_ms() - start >= 29);
	loop_timer_free(&t);
	loop_timer_free(&never);
	loop_free(timer_loop);
}

static void nothing(struct loop_msg *msg)
{
	(void)msg;
}

/*
 * Milliseconds of this thread on a processor, in 200 of a loop that has one message at their beginning;
 * it sleeps before they are over.
 */
static uint64_t busy_ms(unsigned int us)
{
	struct rusage began, ended;
	struct loop_msg msg = { .fn = nothing };
	struct timespec before, after;
	struct loop_timer end;

	timer_loop = loop_new(NULL);
	loop_busy_poll(timer_loop, us);
	assert_int_equal(loop_timer_init(&end, timer_loop, timer_last), 0);
	loop_timer_arm(&end, 200);
	loop_post(timer_loop, &msg);
	getrusage(RUSAGE_THREAD, &began);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
	loop_run(timer_loop);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
	getrusage(RUSAGE_THREAD, &ended);
	assert_true(ended.ru_nvcsw > began.ru_nvcsw);
	loop_timer_free(&end);
	loop_free(timer_loop);
	return (uint64_t)(after.tv_sec - before.tv_sec) * 1000 +
	       (uint64_t)(after.tv_nsec / 1000000) - (uint64_t)(before.tv_nsec / 1000000);
}

static void a_busy_loop_looks_for_more_and_then_sleeps(void **state)
{
	(void)state;
	assert_in_range(busy_ms(0), 0, 4);
	/* Of 150 ms that it polls; others on the machine may have most of them. */
	assert_in_range(busy_ms(150000), 5, 190);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_of_a_thread_arrive_in_order),
		cmocka_unit_test(a_message_may_post_itself_again),
		cmocka_unit_test(a_stop_before_run_is_not_lost),
		cmocka_unit_test(without_a_descriptor_there_is_no_loop),
		cmocka_unit_test(an_armed_timer_fires_once_and_not_early),
		cmocka_unit_test(a_busy_loop_looks_for_more_and_then_sleeps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
