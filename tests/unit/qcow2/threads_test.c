/* SPDX-License-Identifier: MIT */
/*
 * Several threads on one image, as the target uses it: each writes, resets and finishes zones of
 * its own and reads all, while another flushes. Above all for the thread sanitizer.
 */
#include "common.h"

#define THREADS 3
#define ROUNDS	40

struct worker {
	struct qcow2 *q;
	unsigned int id;
	pthread_t thread;
};

static _Atomic bool stop;

static void *work(void *arg)
{
	struct worker *w = arg;
	struct qcow2 *q = w->q;

	for (unsigned int round = 0; round < ROUNDS; round++) {
		uint32_t zone = w->id + THREADS * (round % 4);
		uint64_t start = zone * 64 * KIB;

		for (uint64_t off = 0; off < 48 * KIB; off += 4 * KIB) {
			put(q, start + off, 4 * KIB, round);
			qcow2_wp_advance(q, zone, start + off + 4 * KIB);
			expect(q, start, off + 4 * KIB, round);
		}
		if (round % 5 == 4)
			assert_int_equal(qcow2_flush(q), 0);
		if (round < ROUNDS - 4)
			assert_int_equal(qcow2_zone_reset(q, zone), 0);
	}
	return NULL;
}

static void *flush(void *arg)
{
	struct qcow2 *q = arg;

	while (!stop) {
		assert_int_equal(qcow2_flush(q), 0);
		(void)qcow2_dirty(q);
		for (uint32_t z = 0; z < 12; z++)
			assert_true(qcow2_wp(q, z) <= z * 64 * KIB + 48 * KIB);
	}
	return NULL;
}

static void zones_are_written_reset_and_flushed_side_by_side(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct worker w[THREADS];
	pthread_t flusher;
	struct qcow2 *q = open_image(d, 0);

	(void)state;
	pthread_create(&flusher, NULL, flush, q);
	for (unsigned int i = 0; i < THREADS; i++) {
		w[i] = (struct worker){ .q = q, .id = i };
		pthread_create(&w[i].thread, NULL, work, &w[i]);
	}
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(w[i].thread, NULL);
	stop = true;
	pthread_join(flusher, NULL);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	q = open_image(d, QCOW2_RDONLY);
	for (unsigned int i = 0; i < THREADS; i++)
		for (unsigned int k = 0; k < 4; k++) {
			uint64_t start = (i + THREADS * k) * 64 * KIB;

			assert_int_equal(qcow2_wp(q, i + THREADS * k), start + 48 * KIB);
			expect(q, start, 48 * KIB, ROUNDS - 4 + (k + 4 - ROUNDS % 4) % 4);
		}
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

/* One zone, many writers at disjoint offsets, and a pointer that only goes up. */
static void *append(void *arg)
{
	struct worker *w = arg;

	for (uint64_t off = w->id * 512; off < 48 * KIB; off += THREADS * 512) {
		put(w->q, off, 512, 1);
		qcow2_wp_advance(w->q, 0, 512);
		expect(w->q, off, 512, 1);
	}
	return NULL;
}

static void one_zone_takes_disjoint_writes(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct worker w[THREADS];
	struct ramdisk *d;
	struct qcow2 *q;

	(void)state;
	o.cluster_size = 512;
	d = make_image(&o);
	q = open_image(d, 0);
	for (unsigned int i = 0; i < THREADS; i++) {
		w[i] = (struct worker){ .q = q, .id = i };
		pthread_create(&w[i].thread, NULL, append, &w[i]);
	}
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(w[i].thread, NULL);
	expect(q, 0, 48 * KIB, 1);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zones_are_written_reset_and_flushed_side_by_side),
		cmocka_unit_test(one_zone_takes_disjoint_writes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
