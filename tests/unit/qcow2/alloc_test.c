/* SPDX-License-Identifier: MIT */
/* Refcounts of every width, growth of blocks and tables, reuse, the metadata cache. */
#include "alloc.h"
#include "common.h"

static struct qcow2_create_opts plain(uint32_t cluster_size, uint32_t refcount_bits, uint64_t size)
{
	return (struct qcow2_create_opts){
		.size = size,
		.cluster_size = cluster_size,
		.refcount_bits = refcount_bits,
	};
}

static void counters_of_every_width_keep_their_neighbours(void **state)
{
	(void)state;
	for (uint32_t order = 0; order <= 6; order++) {
		struct qcow2_create_opts o = plain(512, 1u << order, 1 * MIB);
		struct ramdisk *d = make_image(&o);
		struct qcow2 *q = open_image(d, 0);
		uint64_t max = UINT64_MAX >> (64 - (1u << order)), count;
		uint64_t host, nr;

		pthread_mutex_lock(&q->lock);
		assert_int_equal(alloc_data(q, 20, 20, &host, &nr), 0);
		assert_int_equal(nr, 20);
		for (uint64_t c = 0; c < 20; c++) {
			assert_int_equal(ref_get(q, (host >> 9) + c, &count), 0);
			assert_int_equal(count, 1);
		}
		/* Up to the maximum in the middle, and not beyond. */
		for (uint64_t i = 1; i < max && i < 300; i++)
			assert_int_equal(ref_adjust(q, (host >> 9) + 7, 1, true), 0);
		if (max < 300)
			assert_int_equal(ref_adjust(q, (host >> 9) + 5, 5, true), -EIO);
		for (uint64_t c = 0; c < 20; c++) {
			assert_int_equal(ref_get(q, (host >> 9) + c, &count), 0);
			assert_int_equal(count, c != 7 ? 1 : max < 300 ? max : 300);
		}
		for (;;) {
			assert_int_equal(ref_get(q, (host >> 9) + 7, &count), 0);
			if (!count)
				break;
			assert_int_equal(ref_adjust(q, (host >> 9) + 7, 1, false), 0);
		}
		assert_int_equal(ref_adjust(q, (host >> 9) + 7, 1, false), -EIO);
		pthread_mutex_unlock(&q->lock);
		assert_int_equal(qcow2_close(q), 0);
		expect_sound(d, 19);
		ram_free(d);
	}
}

static void tables_grow_and_count_themselves(void **state)
{
	(void)state;
	for (uint32_t order = 0; order <= 6; order++) {
		struct qcow2_create_opts o = plain(512, 1u << order, 16 * MIB);
		struct ramdisk *d;
		uint32_t clusters;
		struct qcow2 *q;

		o.zoned = true;
		o.zone.zone_size = 4 * MIB;
		d = make_image(&o);
		q = open_image(d, 0);
		clusters = q->hdr.reftable_clusters;
		for (unsigned int z = 0; z < 4; z++) {
			put(q, z * 4 * MIB, 4 * MIB, z);
			qcow2_wp_advance(q, z, (z + 1) * 4 * MIB);
		}
		if (order == 6)
			assert_true(q->hdr.reftable_clusters > clusters);
		assert_int_equal(qcow2_close(q), 0);
		expect_sound(d, 0);
		q = open_image(d, 0);
		for (unsigned int z = 0; z < 4; z++)
			expect(q, z * 4 * MIB, 4 * MIB, z);
		assert_int_equal(qcow2_zone_reset(q, 1), 0);
		assert_int_equal(qcow2_zone_reset(q, 2), 0);
		assert_int_equal(qcow2_close(q), 0);
		expect_sound(d, 0);
		ram_free(d);
	}
}

static void a_zone_is_one_extent(void **state)
{
	struct qcow2_create_opts o = plain(64 * KIB, 16, 256 * MIB);
	struct qcow2_extent e;
	struct ramdisk *d;
	struct qcow2 *q;

	(void)state;
	o.zoned = true;
	o.zone.zone_size = 32 * MIB;
	d = make_image(&o);
	q = open_image(d, 0);
	for (unsigned int z = 0; z < 8; z++) {
		put(q, z * 32 * MIB, 4096, 1);
		qcow2_wp_advance(q, z, z * 32 * MIB + 4096);
		assert_int_equal(qcow2_map(q, z * 32 * MIB, 32 * MIB, &e), 0);
		assert_int_equal(e.len, 32 * MIB);
		assert_int_equal(atomic_load(&q->zones[z].map->nr), 1);
	}
	/* No mapping points past the end of the file. */
	assert_true(e.host_off + e.len <= d->size);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	q = open_image(d, 0);
	expect(q, 32 * MIB, 4096, 1);
	assert_int_equal(atomic_load(&q->zones[1].map->nr), 1);
	assert_int_equal(atomic_load(&q->zones[1].map->ext[0].len), 32 * MIB);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

static void free_space_of_earlier_sessions_is_found_and_zeroed(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);
	struct qcow2_extent before, after;
	uint64_t size;

	(void)state;
	put(q, 0, 48 * KIB, 1);
	assert_int_equal(qcow2_map(q, 0, 48 * KIB, &before), 0);
	assert_int_equal(qcow2_zone_reset(q, 0), 0);
	assert_int_equal(qcow2_close(q), 0);
	memset(d->bytes + before.host_off, 0xee, 48 * KIB); /* free clusters hold anything */
	size = d->size;
	q = open_image(d, 0);
	put(q, 64 * KIB, 4 * KIB, 2);
	assert_int_equal(qcow2_map(q, 64 * KIB, 48 * KIB, &after), 0);
	assert_int_equal(after.host_off, before.host_off);
	assert_int_equal(after.len, 48 * KIB);
	expect(q, 64 * KIB, 4 * KIB, 2);
	expect_zeroes(q, 68 * KIB, 44 * KIB);
	assert_int_equal(d->size, size);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

static void without_punch_hole_zeroes_are_written(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);

	(void)state;
	d->no_punch = true;
	put(q, 0, 48 * KIB, 1);
	assert_int_equal(qcow2_zone_reset(q, 0), 0);
	assert_int_equal(qcow2_flush(q), 0);
	put(q, 64 * KIB, 4 * KIB, 2);
	expect_zeroes(q, 68 * KIB, 44 * KIB);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

/* How many calls of fallocate in MODE have changed D since the operation FROM. */
static unsigned int fallocates(const struct ramdisk *d, size_t from, int mode)
{
	unsigned int n = 0;

	for (size_t i = from; i < d->nr_ops; i++)
		n += d->ops[i].call == RAM_FALLOCATE && d->ops[i].mode == mode;
	return n;
}

static int enospc_on_zero_range(void *arg, const struct ram_op *op)
{
	(void)arg;
	return op->call == RAM_FALLOCATE && op->mode & FALLOC_FL_ZERO_RANGE ? -ENOSPC : 0;
}

/*
 * With O_DIRECT, new clusters get space at once, and those of a reset zone keep theirs: they are zeroed in
 * place when another zone gets them, and discarded by a trim.
 */
static void with_o_direct_space_is_taken_ahead_and_kept(void **state)
{
	const int zero = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	struct qcow2_create_opts o = small_zoned();
	uint64_t zone = o.zone.zone_size, file_len;
	struct ramdisk *d;
	struct qcow2 *q;
	size_t from;

	(void)state;
	o.zone.zone_capacity = zone;
	d = make_image(&o);
	d->direct = true;
	q = open_image(d, 0);
	from = d->nr_ops;
	put(q, 0, zone, 1);
	qcow2_wp_advance(q, 0, zone);
	assert_int_equal(fallocates(d, from, zero), 1);
	assert_int_equal(qcow2_flush(q), 0);
	assert_int_equal(qcow2_zone_reset(q, 0), 0);
	assert_int_equal(qcow2_flush(q), 0);
	assert_int_equal(fallocates(d, from, punch), 0);
	file_len = d->size;
	from = d->nr_ops;
	put(q, 2 * zone, 4 * KIB, 2);
	expect(q, 2 * zone, 4 * KIB, 2);
	expect_zeroes(q, 2 * zone + 4 * KIB, zone - 4 * KIB);
	assert_int_equal(fallocates(d, from, zero), 1);
	assert_int_equal(d->size, file_len);
	qcow2_wp_advance(q, 2, 2 * zone + 4 * KIB);
	assert_int_equal(qcow2_zone_reset(q, 2), 0);
	assert_int_equal(qcow2_flush(q), 0);
	from = d->nr_ops;
	qcow2_trim(q);
	assert_in_range(fallocates(d, from, punch), 1, 100);
	from = d->nr_ops;
	qcow2_trim(q);
	assert_int_equal(d->nr_ops, from);
	/* Where space cannot be had ahead, the clusters are a hole. */
	d->hook = enospc_on_zero_range;
	put(q, zone, 4 * KIB, 3);
	d->hook = NULL;
	assert_int_equal(fallocates(d, from, punch), 1);
	expect(q, zone, 4 * KIB, 3);
	expect_zeroes(q, zone + 4 * KIB, zone - 4 * KIB);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

static void metadata_is_never_handed_out_even_if_it_is_not_counted(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);
	uint64_t block = q->reftable.entry[0], host, nr;

	(void)state;
	put(q, 0, 4096, 1);
	assert_int_equal(qcow2_close(q), 0);
	memset(d->bytes + block, 0, 4096); /* every count is zero now */
	q = open_image(d, 0);
	pthread_mutex_lock(&q->lock);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(alloc_data(q, 1, 1, &host, &nr), 0);
		assert_false(alloc_overlaps_meta(q, host, 4096));
	}
	pthread_mutex_unlock(&q->lock);
	qcow2_close(q);
	ram_free(d);
}

static void a_full_disk_is_enospc_and_passes(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q;
	uint8_t *p = pattern(64 * KIB, 48 * KIB, 2);
	uint64_t cap = d->cap;

	(void)state;
	q = open_image(d, 0);
	put(q, 0, 48 * KIB, 1);
	qcow2_wp_advance(q, 0, 48 * KIB);
	assert_int_equal(qcow2_flush(q), 0);
	d->cap = d->size;
	assert_int_equal(qcow2_write(q, p, 64 * KIB, 48 * KIB, 0), -ENOSPC);
	/* A reset gives the space back, through a flush that the write itself asks for. */
	assert_int_equal(qcow2_zone_reset(q, 0), 0);
	assert_int_equal(qcow2_write(q, p, 64 * KIB, 48 * KIB, 0), 0);
	expect(q, 64 * KIB, 48 * KIB, 2);
	qcow2_wp_advance(q, 1, 112 * KIB);
	d->cap = cap;
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	free(p);
	ram_free(d);
}

static int data_finds_no_room(void *arg, const struct ram_op *op)
{
	int *times = arg;

	return op->call == RAM_WRITE && op->flags & FILE_DATA && (*times)-- > 0 ? -ENOSPC : 0;
}

static void a_full_disk_under_a_mapped_zone_empties_the_quarantine(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);
	uint8_t *p = pattern(4 * KIB, 4 * KIB, 1);
	int times;

	(void)state;
	put(q, 0, 4 * KIB, 1);
	put(q, 64 * KIB, 4 * KIB, 1);
	assert_int_equal(qcow2_zone_reset(q, 1), 0);
	d->hook = data_finds_no_room;
	d->hook_arg = &times;
	times = 1;
	assert_int_equal(qcow2_write(q, p, 4 * KIB, 4 * KIB, QCOW2_NOWAIT), -EAGAIN);
	times = 1;
	assert_int_equal(qcow2_write(q, p, 4 * KIB, 4 * KIB, 0), 0);
	assert_int_equal(q->quarantined, 0);
	times = 1;
	assert_int_equal(qcow2_write(q, p, 4 * KIB, 4 * KIB, 0), -ENOSPC);
	d->hook = NULL;
	expect(q, 0, 8 * KIB, 1);
	free(p);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

#define BIG_ZONE (32 * MIB)

static struct ramdisk *eight_big_zones(void)
{
	struct qcow2_create_opts o = {
		.size = 8 * BIG_ZONE,
		.zoned = true,
		.zone = { .zone_size = BIG_ZONE, .zone_capacity = BIG_ZONE },
	};

	return make_image(&o);
}

/* Nobody flushes, and what no flush has recorded needs none: the file stays within what is in use. */
static void resets_and_rewrites_without_a_flush_do_not_grow_the_file(void **state)
{
	struct ramdisk *d = eight_big_zones();
	struct qcow2 *q = open_image(d, 0);

	(void)state;
	ram_forget(d);
	for (unsigned int i = 0; i < 48; i++) { /* 1536 MiB are given up */
		uint64_t at = i % 8 * BIG_ZONE;

		assert_int_equal(qcow2_zone_reset(q, i % 8), 0);
		assert_false(qcow2_housekeep(q));
		put(q, at, 4096, i); /* its zone gets all its clusters */
		qcow2_wp_advance(q, i % 8, at + 4096);
	}
	assert_int_equal(ram_count(d, RAM_SYNC), 0);
	assert_int_equal(q->quarantined, 0);
	assert_true(d->size <= 10 * BIG_ZONE);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

/* What a flush has recorded waits for the next one, which is due when it is much. */
static void resets_of_what_was_flushed_make_a_flush_due(void **state)
{
	struct ramdisk *d = eight_big_zones();
	struct qcow2 *q = open_image(d, 0);
	unsigned int due = 0;

	(void)state;
	for (unsigned int i = 0; i < 64; i++) {
		uint64_t at = i % 8 * BIG_ZONE;

		assert_int_equal(qcow2_zone_reset(q, i % 8), 0);
		if (qcow2_housekeep(q)) {
			assert_true(q->quarantined << q->cluster_bits > 256 * MIB);
			due++;
			assert_int_equal(qcow2_flush(q), 0);
		}
		put(q, at, 4096, i);
		qcow2_wp_advance(q, i % 8, at + 4096);
		if (i % 8 == 7) /* record them */
			q->unrecorded.nr = 0;
	}
	assert_true(due >= 3);
	assert_true(d->size <= 8 * BIG_ZONE + 256 * MIB + 3 * BIG_ZONE);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

static void short_transfers_are_finished(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q;

	(void)state;
	d->max_transfer = 777;
	q = open_image(d, 0);
	put(q, 0, 48 * KIB, 1);
	qcow2_wp_advance(q, 0, 48 * KIB);
	assert_int_equal(qcow2_flush(q), 0);
	expect(q, 0, 48 * KIB, 1);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

static void the_cache_evicts_the_clean_and_keeps_the_dirty(void **state)
{
	struct qcow2_create_opts o = plain(512, 16, 64 * MIB);
	struct qcow2_open_opts oo = { .cache_bytes = 8 * 512 };
	char err[QCOW2_ERRLEN];
	struct ramdisk *d;
	struct qcow2 *q;

	(void)state;
	o.zoned = true;
	o.zone.zone_size = 1 * MIB;
	d = make_image(&o);
	oo.file = ram_open(d);
	assert_int_equal(qcow2_open("ram", &oo, &q, err), 0);
	put(q, 0, 1 * MIB, 1);
	assert_true(q->cache.nr_dirty > 8);
	expect(q, 0, 1 * MIB, 1);
	qcow2_wp_advance(q, 0, 1 * MIB);
	assert_int_equal(qcow2_flush(q), 0);
	assert_int_equal(q->cache.nr_dirty, 0);
	assert_true(q->cache.nr <= 8);
	expect_zeroes(q, 2 * MIB, 8 * MIB);
	assert_true(q->cache.nr <= 8);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

static void a_table_with_two_kinds_is_refused(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);
	uint64_t block = q->reftable.entry[0];
	uint8_t byte[512];
	struct table *t;

	(void)state;
	pthread_mutex_lock(&q->lock);
	assert_int_equal(cache_get(q, block, TABLE_REFBLOCK, &t), 0);
	cache_put(q, t);
	pthread_mutex_unlock(&q->lock);
	q->l1.entry[0] = block | ENTRY_COPIED;
	assert_int_equal(qcow2_read(q, byte, 0, 512, 0), -EIO);
	assert_int_equal(qcow2_write(q, byte, 0, 512, 0), -EIO);
	q->l1.entry[0] = 0x123400; /* not on a cluster */
	assert_int_equal(qcow2_read(q, byte, 0, 512, 0), -EIO);
	q->l1.entry[0] = 0x7777777000; /* past the end */
	assert_int_equal(qcow2_read(q, byte, 0, 512, 0), -EIO);
	qcow2_close(q);
	ram_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counters_of_every_width_keep_their_neighbours),
		cmocka_unit_test(tables_grow_and_count_themselves),
		cmocka_unit_test(a_zone_is_one_extent),
		cmocka_unit_test(free_space_of_earlier_sessions_is_found_and_zeroed),
		cmocka_unit_test(without_punch_hole_zeroes_are_written),
		cmocka_unit_test(with_o_direct_space_is_taken_ahead_and_kept),
		cmocka_unit_test(metadata_is_never_handed_out_even_if_it_is_not_counted),
		cmocka_unit_test(a_full_disk_is_enospc_and_passes),
		cmocka_unit_test(a_full_disk_under_a_mapped_zone_empties_the_quarantine),
		cmocka_unit_test(resets_and_rewrites_without_a_flush_do_not_grow_the_file),
		cmocka_unit_test(resets_of_what_was_flushed_make_a_flush_due),
		cmocka_unit_test(short_transfers_are_finished),
		cmocka_unit_test(the_cache_evicts_the_clean_and_keeps_the_dirty),
		cmocka_unit_test(a_table_with_two_kinds_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
