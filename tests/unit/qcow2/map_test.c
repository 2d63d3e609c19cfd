/* SPDX-License-Identifier: MIT */
/* The map of a zone by itself, and mappings no tool of ours makes: shared, uncounted, odd. */
#include "alloc.h"
#include "common.h"

/* Adds [off, off + len) at host 1 MiB + off, or elsewhere, and looks every KiB up. */
static void zone_maps_hold_sorted_disjoint_extents(void **state)
{
	static const struct {
		uint64_t off, len, host; /* KiB */
	} adds[] = {
		{ 40, 4, 140 },			 /* from behind */
		{ 8, 4, 108 },	 { 12, 4, 112 }, /* grows its neighbour */
		{ 0, 4, 700 },	 { 4, 44, 104 }, /* fills, is cut by what is known */
		{ 16, 32, 116 }, { 44, 4, 144 }, { 0, 48, 700 },
	};
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);
	uint64_t want[48] = { 0 };

	(void)state;
	pthread_mutex_lock(&q->lock);
	for (size_t i = 0; i < sizeof(adds) / sizeof(adds[0]); i++) {
		uint64_t end = adds[i].off + adds[i].len, k = adds[i].off;

		assert_true(zmap_add(q, 0, adds[i].off * KIB, adds[i].len * KIB, adds[i].host * KIB,
				     true));
		/* What is known stays; the new holds up to the next known. */
		while (k < end && want[k] && k < 48)
			k++;
		for (; k < end && !want[k]; k++)
			want[k] = adds[i].host + (k - adds[i].off);
		for (k = 0; k < 48; k++) {
			uint64_t host, run;
			bool found = zmap_find(&q->zones[0], k * KIB + 512, &host, &run);

			assert_int_equal(found, want[k] != 0);
			if (!found)
				continue;
			assert_int_equal(host, want[k] * KIB + 512);
			assert_true(run >= 512 && run % 512 == 0);
			for (uint64_t n = 1; n < (run + 512) / KIB; n++)
				assert_int_equal(want[k + n], want[k] + n);
		}
	}
	zmap_drop(q, 0);
	assert_int_equal(q->map_bytes, 0);
	pthread_mutex_unlock(&q->lock);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

static void a_scattered_zone_is_bounded_in_memory_and_reads_right(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d;
	struct qcow2 *q;
	uint64_t l2[32], l2_off, t;

	(void)state;
	o.size = 16 * MIB;
	o.cluster_size = 512;
	o.zone.zone_size = o.zone.zone_capacity = 4 * MIB;
	d = make_image(&o);
	q = open_image(d, 0);
	put(q, 0, 4 * MIB, 1);
	qcow2_wp_advance(q, 0, 4 * MIB);
	assert_int_equal(qcow2_flush(q), 0);
	/* Swap neighbours: 8192 extents of one cluster, data swapped to match. */
	for (uint32_t i = 0; i < 4 * MIB / 512 / 64; i++) {
		l2_off = q->l1.entry[i] & L1E_OFFSET_MASK;
		memcpy(l2, d->bytes + l2_off, 256);
		for (int k = 0; k < 32; k += 2) {
			uint8_t *a = d->bytes + (be64toh(l2[k]) & L2E_OFFSET_MASK);
			uint8_t *b = d->bytes + (be64toh(l2[k + 1]) & L2E_OFFSET_MASK), c[512];

			memcpy(c, a, 512);
			memcpy(a, b, 512);
			memcpy(b, c, 512);
			t = l2[k];
			l2[k] = l2[k + 1];
			l2[k + 1] = t;
		}
		memcpy(d->bytes + l2_off, l2, 256);
	}
	assert_int_equal(qcow2_close(q), 0);
	q = open_image(d, 0);
	expect(q, 0, 4 * MIB, 1);
	assert_true(q->map_bytes < 512 * KIB);
	put(q, 0, 4 * MIB, 2);
	expect(q, 0, 4 * MIB, 2);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

static void shared_clusters_and_tables_are_copied_before_a_write(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);
	struct qcow2_extent before, after;
	uint64_t l2;

	(void)state;
	put(q, 0, 48 * KIB, 1);
	qcow2_wp_advance(q, 0, 6 * KIB);
	assert_int_equal(qcow2_flush(q), 0);
	/* A second reference to a cluster and to its table, as a snapshot would hold. */
	pthread_mutex_lock(&q->lock);
	l2 = q->l1.entry[0] & L1E_OFFSET_MASK;
	pthread_mutex_unlock(&q->lock);
	assert_int_equal(qcow2_map(q, 4 * KIB, 4 * KIB, &before), 0);
	pthread_mutex_lock(&q->lock);
	assert_int_equal(ref_adjust(q, cluster_of(q, l2), 1, true), 0);
	assert_int_equal(ref_adjust(q, cluster_of(q, before.host_off), 1, true), 0);
	toptable_set(&q->l1, 0, l2); /* not COPIED */
	pthread_mutex_unlock(&q->lock);
	assert_int_equal(qcow2_close(q), 0);
	d->bytes[l2 + 8] &= 0x7f; /* the second entry is not COPIED either */
	q = open_image(d, 0);
	expect(q, 0, 48 * KIB, 1);
	put(q, 6 * KIB, 512, 2);
	assert_int_equal(qcow2_map(q, 4 * KIB, 4 * KIB, &after), 0);
	assert_int_not_equal(after.host_off, before.host_off);
	assert_int_not_equal(q->l1.entry[0] & L1E_OFFSET_MASK, l2);
	assert_true(q->l1.entry[0] & ENTRY_COPIED);
	expect(q, 0, 6 * KIB, 1);
	expect(q, 6 * KIB, 512, 2);
	expect(q, 6 * KIB + 512, 41 * KIB, 1);
	assert_int_equal(qcow2_close(q), 0);
	/* What the other holder sees is untouched, and its references are leaks to us. */
	expect_sound(d, 2);
	q = open_image(d, 0);
	expect(q, 6 * KIB, 512, 2);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

static void one_offset_is_one_kind_of_table(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);
	struct table *t, *u;

	(void)state;
	pthread_mutex_lock(&q->lock);
	assert_int_equal(cache_get(q, q->reftable.entry[0], TABLE_REFBLOCK, &t), 0);
	assert_int_equal(cache_get(q, q->reftable.entry[0], TABLE_L2, &u), -EIO);
	assert_int_equal(cache_get(q, q->reftable.entry[0], TABLE_REFBLOCK, &u), 0);
	assert_ptr_equal(t, u);
	cache_put(q, t);
	cache_put(q, u);
	assert_int_equal(cache_get(q, 0, TABLE_L2, &u), -EIO);
	assert_int_equal(cache_get(q, 512, TABLE_L2, &u), -EIO);
	pthread_mutex_unlock(&q->lock);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

static void ranges_outside_the_disk_are_refused(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);
	struct qcow2_extent e;
	uint8_t byte[1024] = { 0 };

	(void)state;
	assert_int_equal(qcow2_read(q, byte, 1 * MIB, 0, 0), 0);
	assert_int_equal(qcow2_read(q, byte, 1 * MIB, 512, 0), -EINVAL);
	assert_int_equal(qcow2_read(q, byte, 1 * MIB - 512, 1024, 0), -EINVAL);
	assert_int_equal(qcow2_read(q, byte, UINT64_MAX, 512, 0), -EINVAL);
	assert_int_equal(qcow2_read(q, byte, 512, UINT64_MAX, 0), -EINVAL);
	assert_int_equal(qcow2_write(q, byte, 1 * MIB, 512, 0), -EINVAL);
	assert_int_equal(qcow2_write(q, byte, UINT64_MAX - 100, 512, 0), -EINVAL);
	assert_int_equal(qcow2_map(q, 1 * MIB, 512, &e), -EINVAL);
	assert_int_equal(qcow2_zone_reset(q, 16), -EINVAL);
	assert_int_equal(qcow2_zone_finish(q, UINT32_MAX, 0), -EINVAL);
	assert_int_equal(qcow2_zone_finish(q, 1, 0), -EINVAL);
	assert_int_equal(qcow2_zone_finish(q, 1, 120 * KIB), -EINVAL);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zone_maps_hold_sorted_disjoint_extents),
		cmocka_unit_test(a_scattered_zone_is_bounded_in_memory_and_reads_right),
		cmocka_unit_test(shared_clusters_and_tables_are_copied_before_a_write),
		cmocka_unit_test(one_offset_is_one_kind_of_table),
		cmocka_unit_test(ranges_outside_the_disk_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
