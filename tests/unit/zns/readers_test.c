/* SPDX-License-Identifier: MIT */
/*
 * Reads are counted by loop, and claims find those of every loop: by hand, and with threads that read
 * while others reset. Meant for TSan too.
 */
#include "cmocka_all.h"
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>
#include "zone_kit.h"

enum { ZSZE = 16, ZCAP = 12 };
/* Two zones of one bucket. */
enum { ZONE = 3, TWIN = ZONE + READERS_BUCKETS };

static void a_bucket_counts_the_reads_of_all_loops(void **state)
{
	struct readers *r = readers_new();

	(void)state;
	assert_non_null(r);
	assert_int_equal(readers_enter(r, 0, ZONE), READERS_IN);
	assert_int_equal(readers_enter(r, READERS_LOOPS - 1, TWIN), READERS_IN);
	assert_false(readers_in(r, ZONE + 1));
	assert_true(readers_close(r, readers_bucket(ZONE)));
	assert_int_equal(readers_enter(r, 5, TWIN), READERS_CLOSED);
	assert_int_equal(readers_enter(r, 5, ZONE + 1), READERS_IN); /* another bucket */
	assert_true(readers_leave(r, 0, ZONE));
	assert_true(readers_in(r, readers_bucket(ZONE)));
	assert_true(readers_leave(r, READERS_LOOPS - 1, TWIN));
	assert_false(readers_in(r, readers_bucket(ZONE)));
	assert_false(readers_close(r, readers_bucket(TWIN))); /* a second claim */
	readers_open(r, readers_bucket(TWIN));
	assert_int_equal(readers_enter(r, 0, ZONE), READERS_CLOSED);
	readers_open(r, readers_bucket(ZONE));
	assert_int_equal(readers_enter(r, 0, ZONE), READERS_IN);
	assert_false(readers_leave(r, 0, ZONE));
	free(r);
}

static void a_claim_waits_for_its_whole_bucket(void **state)
{
	struct zone_io io[3] = { { .lba = ZONE * ZSZE, .nlb = 1, .loop = 1 },
				 { .lba = TWIN * ZSZE, .nlb = 1, .loop = 2 },
				 { .lba = TWIN * ZSZE, .nlb = 1, .loop = 2 } };
	struct zone_claim claim;
	struct zone_items out;
	struct zones zs;

	(void)state;
	zone_items_init(&out);
	zones_init(&zs, ZSZE, ZCAP, TWIN + 1, 0, 0);
	assert_int_equal(append_to(&zs, ZONE, 1), 0);
	assert_int_equal(zone_read_begin(&zs, &io[0], &out), 0);
	assert_int_equal(zone_read_begin(&zs, &io[1], &out), 0);
	assert_int_equal(zone_manage(&zs, &claim, ZONE, RESET), ZONE_WAIT);
	assert_int_equal(zone_read_begin(&zs, &io[2], &out), 0); /* TWIN is not claimed */
	zone_read_end(&zs, &io[0], &out);
	expect_none(&out);
	zone_read_end(&zs, &io[1], &out);
	expect(&out, &claim, ZONE_START, 0); /* the third does not hold it up */
	run_claim(&zs, &claim, ZONE_OK, &out);
	zone_read_end(&zs, &io[2], &out);
	expect_none(&out);
	zones_free(&zs);
}

/* --- threads --- */

enum { THREADS = 4, RESETS = 4000, SHARED = 2 };

static struct {
	struct zones zs;
	/* By zone: written by resets alone, read by reads. Not atomic: TSan sees whether one waits. */
	int resets[SHARED * READERS_BUCKETS];
	atomic_bool end;
	_Atomic uint64_t reads;
} all;

/* What another thread has to be told of: here, that its claim starts. */
struct waiting_claim {
	struct zone_claim claim; /* first */
	atomic_bool started, retry;
};

static void handle(struct zone_items *out)
{
	struct zone_item *item;

	while ((item = zone_items_take(out))) {
		struct waiting_claim *w = (struct waiting_claim *)item;

		atomic_store(item->event == ZONE_START ? &w->started : &w->retry, true);
	}
}

static void *read_zones(void *arg)
{
	uint8_t loop = (uint8_t)(uintptr_t)arg;
	struct zone_items out;
	uint32_t n = loop;
	struct zone_io io;

	zone_items_init(&out);
	while (!atomic_load(&all.end)) {
		uint32_t zone = n++ % SHARED * READERS_BUCKETS;
		int before;

		io = (struct zone_io){ .lba = zone * ZSZE, .nlb = 1, .loop = loop };
		if (zone_read_try(&all.zs, &io, &out)) {
			before = all.resets[zone];
			if (before != all.resets[zone])
				abort();
			zone_read_end(&all.zs, &io, &out);
			atomic_fetch_add_explicit(&all.reads, 1, memory_order_relaxed);
		}
		handle(&out);
	}
	return NULL;
}

static void await(atomic_bool *flag)
{
	while (!atomic_load(flag))
		sched_yield();
	atomic_store(flag, false);
}

static void reset_one(struct waiting_claim *w, uint32_t zone)
{
	struct zone_items out;
	uint16_t status;

	zone_items_init(&out);
	while (append_to(&all.zs, zone, 1))
		sched_yield();
	status = zone_manage(&all.zs, &w->claim, zone, RESET);
	if (status == ZONE_WAIT)
		await(&w->started);
	else
		assert_int_equal(status, 0);
	all.resets[zone]++;
	zone_claim_done(&all.zs, &w->claim, zone, ZONE_OK);
	zone_claim_end(&all.zs, &w->claim, &out);
	handle(&out);
}

static void a_reset_excludes_the_reads_of_every_loop(void **state)
{
	struct waiting_claim w = { 0 };
	pthread_t thread[THREADS];
	uint64_t reads = 0;

	(void)state;
	zones_init(&all.zs, ZSZE, ZCAP, SHARED * READERS_BUCKETS, 0, 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, read_zones, (void *)(i + 1)), 0);
	for (int i = 0; i < RESETS || reads < RESETS; i++) {
		reset_one(&w, i % SHARED * READERS_BUCKETS);
		reads = atomic_load(&all.reads);
	}
	atomic_store(&all.end, true);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	zones_free(&all.zs);
}

/* A read and a claim that begin at the same time: at least one of them sees the other. */
static struct {
	struct readers *r;
	_Atomic int claimed;
	atomic_bool end;
} two;

static void *enter_and_leave(void *arg)
{
	(void)arg;
	while (!atomic_load_explicit(&two.end, memory_order_relaxed)) {
		if (readers_enter(two.r, 1, ZONE) != READERS_IN)
			continue;
		for (int i = 0; i < 8; i++)
			if (atomic_load_explicit(&two.claimed, memory_order_relaxed))
				abort();
		readers_leave(two.r, 1, ZONE);
	}
	return NULL;
}

static void a_read_and_a_claim_see_each_other(void **state)
{
	pthread_t thread;
	int alone = 0;

	(void)state;
	two.r = readers_new();
	assert_int_equal(pthread_create(&thread, NULL, enter_and_leave, NULL), 0);
	for (int i = 0; i < 2000000; i++) {
		if (!readers_close(two.r, ZONE)) {
			atomic_store_explicit(&two.claimed, 1, memory_order_relaxed);
			alone++;
			atomic_store_explicit(&two.claimed, 0, memory_order_relaxed);
		}
		readers_open(two.r, ZONE);
	}
	atomic_store(&two.end, true);
	pthread_join(thread, NULL);
	assert_true(alone);
	free(two.r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bucket_counts_the_reads_of_all_loops),
		cmocka_unit_test(a_claim_waits_for_its_whole_bucket),
		cmocka_unit_test(a_reset_excludes_the_reads_of_every_loop),
		cmocka_unit_test(a_read_and_a_claim_see_each_other),
	};

	alarm(120); /* a claim that is never told hangs */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
