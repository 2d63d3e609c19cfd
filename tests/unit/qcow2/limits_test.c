/* SPDX-License-Identifier: MIT */
/*
 * The limit of active zones and the table of write pointers: what a flush collects keeps the limit,
 * and costs a sync more only where the limit asks for it. (What a power cut leaves of it is the
 * crash laboratory's.)
 */
#include "common.h"
#ifdef QCOW2_PLANT
#include "plant.h"
#endif

#define ZONE   (64 * KIB)
#define CAP    (48 * KIB)
#define LIMIT  3u
#define ACTIVE 3u /* zones 0 to 2 are partly written and flushed to begin with */

static struct ramdisk *disk;
static struct qcow2 *q;

static void write_to(uint32_t zone, uint64_t from, uint64_t to)
{
	put(q, zone * ZONE + from, to - from, zone);
	qcow2_wp_advance(q, zone, zone * ZONE + to);
}

static void begin(uint32_t limit)
{
	struct qcow2_create_opts o = small_zoned();

	o.zone.max_active_zones = o.zone.max_open_zones = limit;
	disk = make_image(&o);
	q = open_image(disk, 0);
	for (uint32_t i = 0; i < ACTIVE; i++)
		write_to(i, 0, 4 * KIB);
	assert_int_equal(qcow2_flush(q), 0);
	ram_forget(disk);
}

static void end(void)
{
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(disk, 0);
	ram_free(disk);
}

/* The pointer of ZONE in the file, from its start. */
static uint64_t recorded(uint32_t zone)
{
	uint64_t be;

	memcpy(&be, disk->bytes + q->info.zoned.zonedmeta_offset + 8 * zone, sizeof(be));
	return be64toh(be) - zone * ZONE;
}

static unsigned int nr_recorded_active(void)
{
	unsigned int n = 0;

	for (uint32_t i = 0; i < 16; i++)
		n += recorded(i) && recorded(i) < CAP;
	return n;
}

/* The syncs of one flush. */
static size_t syncs(void)
{
	size_t before = ram_count(disk, RAM_SYNC);

	assert_int_equal(qcow2_flush(q), 0);
	return ram_count(disk, RAM_SYNC) - before;
}

/* What a zone that is begun costs in any case: refcounts; map and data; pointers. */
#define USUAL 3

static void a_sync_more_only_where_the_limit_asks_for_it(void **state)
{
	(void)state;
	begin(0); /* no limit */
	write_to(0, 4 * KIB, CAP);
	write_to(3, 0, 4 * KIB);
	assert_int_equal(syncs(), USUAL);
	end();

	begin(LIMIT + 1); /* never reached */
	write_to(0, 4 * KIB, CAP);
	write_to(3, 0, 4 * KIB);
	assert_int_equal(syncs(), USUAL);
	end();

	begin(LIMIT);
	write_to(0, 4 * KIB, 8 * KIB); /* none begun */
	assert_int_equal(syncs(), 2);
	write_to(0, 8 * KIB, CAP); /* full, none begun in its place */
	assert_int_equal(syncs(), 2);
	write_to(3, 0, 4 * KIB); /* begun after the other was recorded */
	assert_int_equal(syncs(), USUAL);
	assert_int_equal(qcow2_zone_reset(q, 1), 0); /* a reset is first in any case */
	write_to(4, 0, 4 * KIB);
	assert_int_equal(syncs(), USUAL);
	write_to(2, 4 * KIB, CAP);
	write_to(5, 0, 4 * KIB);
	assert_int_equal(syncs(), USUAL + 1);
	assert_int_equal(recorded(2), CAP);
	assert_int_equal(recorded(5), 4 * KIB);
	assert_int_equal(nr_recorded_active(), LIMIT);
	end();
}

/* Fails writes to the table of write pointers once ARG of them were made. */
static int fail_table(void *arg, const struct ram_op *op)
{
	int *left = arg;

	if (op->call != RAM_WRITE || op->off < q->info.zoned.zonedmeta_offset ||
	    op->off >= q->info.zoned.zonedmeta_offset + 16 * 8)
		return 0;
	return (*left)-- > 0 ? 0 : -EIO;
}

static void a_flush_that_fails_half_way_keeps_the_limit(void **state)
{
	int left;

	(void)state;
	for (int n = 0; n < 3; n++) {
		begin(LIMIT);
		write_to(0, 4 * KIB, CAP);
		write_to(3, 0, 4 * KIB);
		left = n;
		disk->hook = fail_table;
		disk->hook_arg = &left;
		assert_int_equal(qcow2_flush(q), n < 2 ? -EIO : 0);
		assert_true(nr_recorded_active() <= LIMIT);
		write_to(1, 4 * KIB, CAP); /* and on it goes */
		write_to(4, 0, 4 * KIB);
		left = 1;
		(void)qcow2_flush(q);
		assert_true(nr_recorded_active() <= LIMIT);
		disk->hook = NULL;
		assert_int_equal(qcow2_flush(q), 0);
		assert_int_equal(nr_recorded_active(), LIMIT);
		assert_int_equal(recorded(4), 4 * KIB);
		end();
	}
}

/* A disk that is full takes a write by half, then none. */
static int full_disk(void *arg, const struct ram_op *op)
{
	(void)arg;
	if (op->call != RAM_WRITE || op->off < q->info.zoned.zonedmeta_offset ||
	    op->off >= q->info.zoned.zonedmeta_offset + 16 * 8)
		return 0;
	if (disk->max_transfer)
		return -ENOSPC;
	disk->max_transfer = 8;
	return 0;
}

static void entries_of_a_failed_write_are_written_again(void **state)
{
	(void)state;
	begin(0);
	write_to(5, 0, 4 * KIB);
	write_to(6, 0, 4 * KIB);
	disk->hook = full_disk;
	assert_int_equal(qcow2_flush(q), -ENOSPC);
	disk->hook = NULL;
	disk->max_transfer = 0;
	assert_int_equal(recorded(5), 4 * KIB); /* the write failed, and this is there */
	assert_int_equal(recorded(6), 0);
	assert_int_equal(qcow2_zone_reset(q, 5), 0);
	assert_int_equal(qcow2_flush(q), 0);
	if (recorded(5))
		fail_msg("D1: zone 5 was reset and flushed, and its write pointer is %llu",
			 (unsigned long long)recorded(5));
	assert_int_equal(recorded(6), 4 * KIB);
	end();
}

#ifdef QCOW2_PLANT
static unsigned int passed;

/* Another thread, while a flush copies the pointers one after the other. */
static void fill_and_begin(const char *name)
{
	if (strcmp(name, "begun_while_copied") || passed++)
		return;
	qcow2_wp_advance(q, 0, CAP);
	qcow2_wp_advance(q, 3, 3 * ZONE + 4 * KIB);
}

static void a_zone_begun_while_pointers_are_copied_waits_for_the_next_flush(void **state)
{
	(void)state;
	begin(LIMIT);
	/* Zone 3 is dirty, empty, and has clusters: it was reset, then a write of it failed. */
	put(q, 3 * ZONE, 4 * KIB, 3);
	assert_int_equal(qcow2_zone_reset(q, 3), 0);
	put(q, 3 * ZONE, 4 * KIB, 3);
	put(q, 0, CAP, 0);
	write_to(0, 4 * KIB, 8 * KIB); /* pushed last, hence copied first */
	passed = 0;
	plant_passed = fill_and_begin;
	assert_int_equal(qcow2_flush(q), 0);
	plant_passed = NULL;
	assert_true(passed >= 2);
	assert_int_equal(recorded(0), 8 * KIB);
	if (nr_recorded_active() > LIMIT)
		fail_msg("D5: %u zones are partly written, and %u may be active",
			 nr_recorded_active(), LIMIT);
	assert_true(qcow2_dirty(q));
	assert_int_equal(qcow2_flush(q), 0);
	assert_int_equal(recorded(0), CAP);
	assert_int_equal(recorded(3), 4 * KIB);
	end();
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sync_more_only_where_the_limit_asks_for_it),
		cmocka_unit_test(a_flush_that_fails_half_way_keeps_the_limit),
		cmocka_unit_test(entries_of_a_failed_write_are_written_again),
#ifdef QCOW2_PLANT
		cmocka_unit_test(a_zone_begun_while_pointers_are_copied_waits_for_the_next_flush),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
