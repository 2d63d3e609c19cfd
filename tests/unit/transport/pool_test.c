// SPDX-License-Identifier: MIT
/* The memory governor: bounds, order, shares, the reserve. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "pool.h"

#define MIB (1u << 20)

static struct pool pool;
static struct pool_waiter *granted[64];
static void *buffers[64];
static unsigned int ngranted;

static void on_grant(struct pool_waiter *w, void *buf)
{
	granted[ngranted] = w;
	buffers[ngranted++] = buf;
}

static void fresh(uint64_t limit)
{
	ngranted = 0;
	pool_init(&pool, limit, on_grant);
}

static void buffers_are_aligned_and_used_again(void **state)
{
	struct pool_user u;
	struct pool_waiter w;
	void *a, *b;

	(void)state;
	fresh(16 * MIB);
	pool_user_init(&u);
	for (uint32_t len = 1; len <= MIB; len = len * 3 + 1) {
		assert_int_equal(pool_get(&pool, &u, &w, len, false, &a), 0);
		assert_int_equal((uintptr_t)a % 4096, 0);
		memset(a, 1, len);
		pool_put(&pool, &u, a, len, false);
		assert_int_equal(pool_get(&pool, &u, &w, len, false, &b), 0);
		assert_ptr_equal(a, b);
		pool_put(&pool, &u, b, len, false);
	}
	assert_int_equal(pool.used, 0);
	assert_int_equal(u.held, 0);
	assert_true(pool.cached > 0);
	pool_trim(&pool);
	assert_int_equal(pool.cached, 0);
	pool_fini(&pool);
}

static void what_is_cached_counts_and_gives_way(void **state)
{
	struct pool_user u[2];
	struct pool_waiter w;
	void *small[512], *big[4];

	(void)state;
	fresh(4 * MIB); /* reserve 256 KiB, share 1 MiB */
	pool_user_init(&u[0]);
	pool_user_init(&u[1]);
	for (int i = 0; i < 256; i++)
		assert_int_equal(pool_get(&pool, &u[0], &w, 4096, false, &small[i]), 0);
	for (int i = 0; i < 256; i++)
		assert_int_equal(pool_get(&pool, &u[1], &w, 4096, false, &small[256 + i]), 0);
	for (int i = 0; i < 512; i++)
		pool_put(&pool, &u[i / 256], small[i], 4096, false);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pool_get(&pool, &u[i], &w, MIB, false, &big[i]), 0);
		assert_true(pool.used + pool.cached <= pool.limit);
	}
	for (int i = 0; i < 2; i++)
		pool_put(&pool, &u[i], big[i], MIB, false);
	pool_fini(&pool);
}

static void a_host_holds_as_much_as_it_leaves_free(void **state)
{
	struct pool_user greedy, modest;
	struct pool_waiter w[6], wm;
	void *buf[6], *mine;

	(void)state;
	fresh(8 * MIB); /* 7.5 MiB for data */
	pool_user_init(&greedy);
	pool_user_init(&modest);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pool_get(&pool, &greedy, &w[i], MIB, false, &buf[i]), 0);
	assert_int_equal(pool_get(&pool, &greedy, &w[4], MIB, false, &buf[4]), -EAGAIN);
	assert_int_equal(pool_get(&pool, &modest, &wm, MIB, false, &mine), 0);
	pool_put(&pool, &modest, mine, MIB, false);
	assert_int_equal(ngranted, 0); /* there is room, but not for the greedy */
	pool_put(&pool, &greedy, buf[0], MIB, false);
	assert_int_equal(ngranted, 1);
	assert_ptr_equal(granted[0], &w[4]);
	pool_put(&pool, &greedy, buffers[0], MIB, false);
	for (int i = 1; i < 4; i++)
		pool_put(&pool, &greedy, buf[i], MIB, false);
	pool_fini(&pool);
}

/* Each of N hosts takes all that it can, on several connections: the next one still gets some. */
static void many_connections_are_one_host(void **state)
{
	enum { HOSTS = 6, CONNS = 4, TRIES = 16 };
	struct pool_user u[HOSTS][CONNS];
	struct pool_waiter w[HOSTS][CONNS][TRIES];
	void *buf[HOSTS][CONNS][TRIES] = { 0 };
	uint64_t held[HOSTS];

	(void)state;
	fresh(64 * MIB);
	for (int h = 0; h < HOSTS; h++) {
		char name[] = "nqn.2014-08.org.example:0";

		name[sizeof(name) - 2] += (char)h;
		for (int c = 0; c < CONNS; c++) {
			pool_user_init(&u[h][c]);
			assert_int_equal(pool_user_join(&pool, &u[h][c], name), 0);
			for (int i = 0; i < TRIES; i++)
				if (pool_get(&pool, &u[h][c], &w[h][c][i], MIB, false,
					     &buf[h][c][i]))
					buf[h][c][i] = NULL;
		}
		held[h] = u[h][0].host->held;
		assert_ptr_equal(u[h][0].host, u[h][CONNS - 1].host);
		assert_true(held[h] >= MIB);
		assert_true(!h || held[h] <= held[h - 1]);
	}
	assert_in_range(held[0], 30 * MIB, 31 * MIB); /* of 60 */
	assert_int_equal(ngranted, 0);
	for (int h = 0; h < HOSTS; h++)
		for (int c = 0; c < CONNS; c++)
			pool_leave(&pool, &u[h][c], NULL);
	for (int h = 0; h < HOSTS; h++) {
		for (int c = 0; c < CONNS; c++) {
			for (int i = 0; i < TRIES; i++)
				if (buf[h][c][i])
					pool_put(&pool, &u[h][c], buf[h][c][i], MIB, false);
			pool_user_fini(&u[h][c]);
		}
	}
	assert_true(LIST_EMPTY(&pool.hosts));
	pool_fini(&pool);
}

/* What a connection holds and waits for before Connect is its host's after. */
static void a_connection_brings_what_it_has_to_its_host(void **state)
{
	struct pool_user a, b;
	struct pool_waiter w[4], wa;
	void *buf[4], *none;

	(void)state;
	fresh(8 * MIB);
	pool_user_init(&a);
	pool_user_init(&b);
	assert_int_equal(pool_user_join(&pool, &b, "nqn.host"), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pool_get(&pool, &a, &w[i], MIB, false, &buf[i]), 0);
	assert_int_equal(pool_get(&pool, &a, &wa, MIB, false, &none), -EAGAIN);
	assert_int_equal(pool_user_join(&pool, &a, "nqn.host"), 0);
	assert_int_equal(b.host->held, 4 * MIB);
	assert_int_equal(pool_get(&pool, &b, &w[0], 4096, false, &none), -EAGAIN);
	pool_put(&pool, &a, buf[0], MIB, false);
	assert_int_equal(ngranted, 1); /* in the order of their arrival */
	assert_ptr_equal(granted[0], &wa);
	pool_leave(&pool, &b, NULL);
	pool_put(&pool, &a, buffers[0], MIB, false);
	for (int i = 1; i < 4; i++)
		pool_put(&pool, &a, buf[i], MIB, false);
	pool_user_fini(&a);
	pool_user_fini(&b);
	pool_fini(&pool);
}

static void users_take_turns(void **state)
{
	struct pool_user hold[4], a, b;
	struct pool_waiter w[4], wa[3], wb[2];
	void *buf[4], *none;

	(void)state;
	fresh(4 * MIB); /* 3.75 MiB for data, 1 MiB each */
	pool_user_init(&a);
	pool_user_init(&b);
	for (int i = 0; i < 3; i++) {
		pool_user_init(&hold[i]);
		assert_int_equal(pool_get(&pool, &hold[i], &w[i], MIB, false, &buf[i]), 0);
	}
	for (int i = 0; i < 3; i++)
		assert_int_equal(pool_get(&pool, &a, &wa[i], i ? MIB / 4 : MIB, false, &none),
				 -EAGAIN);
	/* Smaller ones would fit now, but wait behind the first. */
	for (int i = 0; i < 2; i++)
		assert_int_equal(pool_get(&pool, &b, &wb[i], 4096, false, &none), -EAGAIN);
	assert_int_equal(ngranted, 0);
	pool_put(&pool, &hold[0], buf[0], MIB, false);
	/* a's first; then b's turn, twice, as a holds its share. */
	assert_int_equal(ngranted, 3);
	assert_ptr_equal(granted[0], &wa[0]);
	assert_ptr_equal(granted[1], &wb[0]);
	assert_ptr_equal(granted[2], &wb[1]);
	pool_put(&pool, &a, buffers[0], MIB, false);
	assert_int_equal(ngranted, 5);
	assert_ptr_equal(granted[3], &wa[1]);
	assert_ptr_equal(granted[4], &wa[2]);
	pool_put(&pool, &a, buffers[3], MIB / 4, false);
	pool_put(&pool, &a, buffers[4], MIB / 4, false);
	for (int i = 0; i < 2; i++)
		pool_put(&pool, &b, buffers[1 + i], 4096, false);
	for (int i = 1; i < 3; i++)
		pool_put(&pool, &hold[i], buf[i], MIB, false);
	pool_fini(&pool);
}

static void capsules_have_the_reserve_then_wait(void **state)
{
	struct pool_user u[4], c;
	struct pool_waiter w, wc;
	void *buf[4], *small[64], *none;
	unsigned int n = 0;

	(void)state;
	fresh(4 * MIB);
	pool_user_init(&c);
	for (int i = 0; i < 4; i++)
		pool_user_init(&u[i]);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pool_get(&pool, &u[i], &w, MIB, false, &buf[i]), 0);
	assert_int_equal(pool_get(&pool, &u[3], &w, MIB / 2, false, &buf[3]), 0);
	while (!pool_get(&pool, &c, &wc, 8192, true, &none))
		small[n++] = none;
	assert_int_equal(n, (MIB / 4 + MIB / 4) / 8192); /* what is left, and the reserve */
	assert_int_equal(c.held, 0);
	pool_put(&pool, &c, small[--n], 8192, true);
	assert_int_equal(ngranted, 1);
	assert_ptr_equal(granted[0], &wc);
	small[n++] = buffers[0];
	while (n)
		pool_put(&pool, &c, small[--n], 8192, true);
	for (int i = 0; i < 4; i++)
		pool_put(&pool, &u[i], buf[i], i < 3 ? MIB : MIB / 2, false);
	pool_fini(&pool);
}

static void one_that_leaves_is_not_served(void **state)
{
	struct pool_user a, b;
	struct pool_waiter w[2], wa[2], wb;
	void *buf[2], *none;

	(void)state;
	fresh(4 * MIB);
	pool_user_init(&a);
	pool_user_init(&b);
	assert_int_equal(pool_get(&pool, &a, &w[0], MIB, false, &buf[0]), 0);
	assert_int_equal(pool_get(&pool, &b, &w[1], MIB, false, &buf[1]), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pool_get(&pool, &a, &wa[i], MIB, false, &none), -EAGAIN);
	assert_int_equal(pool_get(&pool, &b, &wb, MIB, false, &none), -EAGAIN);
	pool_leave(&pool, &a, NULL);
	assert_int_equal(ngranted, 0);
	pool_put(&pool, &a, buf[0], MIB, false);
	assert_int_equal(ngranted, 1);
	assert_ptr_equal(granted[0], &wb);
	pool_put(&pool, &b, buf[1], MIB, false);
	pool_put(&pool, &b, buffers[0], MIB, false);
	pool_fini(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buffers_are_aligned_and_used_again),
		cmocka_unit_test(what_is_cached_counts_and_gives_way),
		cmocka_unit_test(a_host_holds_as_much_as_it_leaves_free),
		cmocka_unit_test(many_connections_are_one_host),
		cmocka_unit_test(a_connection_brings_what_it_has_to_its_host),
		cmocka_unit_test(users_take_turns),
		cmocka_unit_test(capsules_have_the_reserve_then_wait),
		cmocka_unit_test(one_that_leaves_is_not_served),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
