/* SPDX-License-Identifier: MIT */
/* Workers: every ticket is worked once elsewhere and comes home once. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "work.h"

#define TICKETS 2000

struct ticket {
	struct work work;
	int nr;
	int answer;
	bool elsewhere;
};

static struct ticket tickets[TICKETS];
static struct loop *home;
static int done_count;
static atomic_int started;

static void double_it(struct work *w)
{
	struct ticket *t = (struct ticket *)w;

	t->elsewhere = !loop_current();
	t->answer = t->nr * 2;
}

static void came_home(struct work *w)
{
	struct ticket *t = (struct ticket *)w;

	assert_true(t->elsewhere);
	assert_ptr_equal(loop_current(), home);
	assert_int_equal(t->answer, t->nr * 2);
	if (++done_count == TICKETS)
		loop_stop(home);
}

static void submit_all(struct loop_msg *msg)
{
	(void)msg;
	for (int i = 0; i < TICKETS; i++) {
		tickets[i].nr = i;
		work_submit(home, &tickets[i].work, double_it, came_home);
	}
}

static void every_ticket_comes_home_once(void **state)
{
	struct workers *pool = workers_new(3);
	struct loop_msg go = { .fn = submit_all };

	(void)state;
	assert_non_null(pool);
	home = loop_new(pool);
	loop_post(home, &go);
	loop_run(home);
	assert_int_equal(done_count, TICKETS);
	workers_free(pool);
	loop_free(home);
}

static void in_turn(struct work *w)
{
	struct ticket *t = (struct ticket *)w;

	t->answer = atomic_fetch_add(&started, 1);
}

static void in_turn_done(struct work *w)
{
	struct ticket *t = (struct ticket *)w;

	assert_int_equal(t->answer, t->nr);
	if (t->nr == TICKETS - 1)
		loop_stop(home);
}

static void submit_in_turn(struct loop_msg *msg)
{
	(void)msg;
	for (int i = 0; i < TICKETS; i++) {
		tickets[i].nr = i;
		work_submit(home, &tickets[i].work, in_turn, in_turn_done);
	}
}

static void tickets_start_in_order_of_submission(void **state)
{
	struct workers *pool = workers_new(1);
	struct loop_msg go = { .fn = submit_in_turn };

	(void)state;
	home = loop_new(pool);
	loop_post(home, &go);
	loop_run(home);
	workers_free(pool);
	loop_free(home);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_ticket_comes_home_once),
		cmocka_unit_test(tickets_start_in_order_of_submission),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
