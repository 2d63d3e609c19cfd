/* SPDX-License-Identifier: MIT */
/*
 * qcow2_create() on a file in memory: its rules, and every state a power cut can leave.
 * The bytes of the images and stock QEMU's verdict on them are tests/integration/znsimg_create.sh.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "qcow2.h"
#include "recfile.h"

#define MIB (1ull << 20)

static struct qcow2_create_opts zoned_opts(void)
{
	return (struct qcow2_create_opts){
		.size = 64 * MIB,
		.cluster_size = 4096,
		.zoned = true,
		.zone = { .zone_size = MIB },
	};
}

static int create(struct rec_disk *disk, struct qcow2_create_opts *opts)
{
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];

	return qcow2_create("ram", opts, rec_open(disk), warn, err);
}

/* What the image in DISK is: its UUID's first byte, or 0 when it does not open. */
static uint8_t opens_as(struct rec_disk *disk)
{
	struct qcow2_open_opts opts = { .flags = QCOW2_RDONLY | QCOW2_NO_LOCK };
	struct qcow2_check_result res = { 0 };
	char err[QCOW2_ERRLEN];
	struct qcow2 *q;
	uint8_t id;

	opts.file = rec_open(disk);
	if (qcow2_open("ram", &opts, &q, err))
		return 0;
	id = qcow2_info(q)->uuid[0];
	assert_int_equal(qcow2_check(q, &res, NULL, NULL), 0);
	assert_int_equal(res.corruptions + res.leaks + res.check_errors, 0);
	qcow2_close(q);
	return id;
}

static void defaults_are_written_back(void **state)
{
	struct qcow2_create_opts o = { .size = 1000 * MIB + 1, .zoned = true };
	static const uint8_t none[QCOW2_UUID];
	struct rec_disk disk = { 0 };

	(void)state;
	assert_int_equal(create(&disk, &o), 0);
	assert_int_equal(o.size, 1000 * MIB + 512);
	assert_int_equal(o.cluster_size, 65536);
	assert_int_equal(o.refcount_bits, 16);
	assert_int_equal(o.zone.layout, QCOW2_LAYOUT_V11);
	assert_int_equal(o.zone.zone_size, 256 * MIB);
	assert_int_equal(o.zone.zone_capacity, 256 * MIB);
	assert_int_equal(o.zone.nr_zones, 4);
	assert_int_equal(o.zone.max_append_bytes, 65536);
	assert_int_equal(o.zone.zonedmeta_offset, 0x30000);
	assert_int_equal(o.zone.marker_bit, 59);
	assert_memory_not_equal(o.uuid, none, QCOW2_UUID);
	assert_int_equal(o.uuid[6] >> 4, 4);
	assert_int_equal(o.uuid[8] >> 6, 2);
	rec_free(&disk);
}

static void opens_with_what_was_asked_for(void **state)
{
	struct qcow2_open_opts opts = { .flags = QCOW2_RDONLY | QCOW2_NO_LOCK };
	struct qcow2_create_opts o = zoned_opts();
	struct rec_disk disk = { 0 };
	const struct qcow2_info *info;
	char err[QCOW2_ERRLEN];
	struct qcow2 *q;

	(void)state;
	o.uuid[0] = 0x42;
	o.refcount_bits = 64;
	o.lazy_refcounts = true;
	o.compression = QCOW2_ZSTD;
	o.zone.zone_capacity = MIB - 4096;
	o.zone.conventional_zones = 3;
	o.zone.max_active_zones = 9;
	o.zone.max_open_zones = 5;
	o.zone.max_append_bytes = 8192;
	assert_int_equal(create(&disk, &o), 0);
	opts.file = rec_open(&disk);
	assert_int_equal(qcow2_open("ram", &opts, &q, err), 0);
	info = qcow2_info(q);
	assert_int_equal(info->size, 64 * MIB);
	assert_int_equal(info->refcount_bits, 64);
	assert_true(info->lazy_refcounts);
	assert_int_equal(info->compression, QCOW2_ZSTD);
	assert_true(info->has_uuid);
	assert_memory_equal(info->uuid, o.uuid, QCOW2_UUID);
	assert_memory_equal(&info->zoned, &o.zone, sizeof(o.zone));
	for (uint32_t i = 0; i < 64; i++)
		assert_int_equal(qcow2_wp(q, i), i * MIB);
	qcow2_close(q);
	rec_free(&disk);
}

static void refuses_and_touches_nothing(void **state)
{
	static const struct {
		const char *sentence;
		uint32_t cluster, bits, conventional, append;
		uint64_t size, zone, capacity;
		enum qcow2_zone_layout layout;
		int compression;
	} rows[] = {
		{ "power of two from 512", .cluster = 5000 },
		{ "power of two from 512", .cluster = 4u << 20 },
		{ "from 1 to 64", .bits = 65 },
		{ "is not known", .compression = 7 },
		{ "too large for any image", .size = UINT64_MAX },
		{ "too large for clusters", .cluster = 512, .size = 1ull << 40 },
		{ "needs a size", .size = 1 }, /* see below: 1 stands for 0 */
		{ "must be a power of two", .zone = 3 * MIB },
		{ "multiple of the cluster size", .zone = 2048 },
		{ "above zone.size", .capacity = MIB + 512 },
		{ "a multiple of 512", .capacity = 1000 },
		{ "at most 1048576", .size = 1ull << 40, .zone = 65536, .cluster = 65536 },
		{ "less than the number", .conventional = 64 },
		{ "a multiple of 512", .append = 513 },
		{ "stay below zone.capacity", .append = MIB },
		{ "stay below zone.capacity", .append = MIB - 512 },
		{ "stay below zone.capacity", .capacity = 1024 },
		{ "has no room", .append = 4096, .layout = QCOW2_LAYOUT_LATEST },
		{ "read but not made", .layout = QCOW2_LAYOUT_L56 },
		{ "read but not made", .layout = QCOW2_LAYOUT_L48B },
		{ "end below 512 PiB", .cluster = 2u << 20, .size = 1ull << 59,
		  .zone = 1ull << 58 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];
		struct qcow2_create_opts o = zoned_opts(), before;
		struct rec_disk disk = { 0 };

		o.cluster_size = rows[i].cluster ? rows[i].cluster : o.cluster_size;
		o.size = rows[i].size ? rows[i].size : o.size;
		o.size = rows[i].size == 1 ? 0 : o.size;
		o.refcount_bits = rows[i].bits;
		o.compression = (enum qcow2_compression)rows[i].compression;
		o.zone.zone_size = rows[i].zone ? rows[i].zone : o.zone.zone_size;
		o.zone.zone_capacity = rows[i].capacity;
		o.zone.conventional_zones = rows[i].conventional;
		o.zone.max_append_bytes = rows[i].append;
		o.zone.layout = rows[i].layout;
		before = o;
		assert_int_equal(qcow2_create("ram", &o, rec_open(&disk), warn, err), -EINVAL);
		if (!strstr(err, rows[i].sentence))
			fail_msg("row %zu: \"%s\" does not say \"%s\"", i, err, rows[i].sentence);
		assert_memory_equal(&o, &before, sizeof(o));
		assert_int_equal(disk.nr_events, 0);
		assert_int_equal(disk.closed, 1);
		rec_free(&disk);
	}
}

static void a_default_append_shrinks_to_small_zones(void **state)
{
	struct qcow2_create_opts o = zoned_opts();
	struct rec_disk disk = { 0 };

	(void)state;
	o.zone.zone_size = 65536;
	assert_int_equal(create(&disk, &o), 0);
	assert_int_equal(o.zone.max_append_bytes, 65536 - 1024);
	rec_free(&disk);
}

static void clamps_are_said_in_a_line_each(void **state)
{
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];
	struct qcow2_create_opts o = zoned_opts();
	struct rec_disk disk = { 0 };
	unsigned int lines = 1;

	(void)state;
	o.size -= 512;
	o.zone.conventional_zones = 60;
	o.zone.max_active_zones = 65;
	o.zone.max_open_zones = 5;
	assert_int_equal(qcow2_create("ram", &o, rec_open(&disk), warn, err), 0);
	assert_int_equal(o.zone.max_active_zones, 64);
	assert_int_equal(o.zone.max_open_zones, 4);
	for (char *p = warn; *p; p++)
		lines += *p == '\n';
	assert_int_equal(lines, 3);
	rec_free(&disk);
}

static void the_largest_tables_are_counted(void **state)
{
	struct qcow2_create_opts o = {
		.size = 1ull << 39,
		.cluster_size = 4096,
		.refcount_bits = 64,
		.zoned = true,
		.zone = { .zone_size = 1u << 19 },
	};
	struct rec_disk disk = { 0 };

	(void)state;
	o.uuid[0] = 1;
	assert_int_equal(create(&disk, &o), 0);
	assert_int_equal(o.zone.nr_zones, 1u << 20);
	assert_int_equal(opens_as(&disk), 1);
	rec_free(&disk);
}

/* Opens what is left of DISK's record after a power cut, on top of OLD. */
static uint8_t cut(const struct rec_disk *disk, const struct rec_disk *old, size_t synced,
		   size_t end, uint32_t mask)
{
	struct rec_disk left = { 0 };
	uint8_t id;

	rec_resize(&left, old->size);
	if (old->size)
		memcpy(left.bytes, old->bytes, old->size);
	for (size_t i = 0; i < synced; i++)
		rec_apply(&left, &disk->events[i]);
	for (size_t i = synced; i < end; i++) {
		if (mask >> (i - synced) & 1)
			rec_apply(&left, &disk->events[i]);
	}
	id = opens_as(&left);
	rec_free(&left);
	return id;
}

/* Every subset of what was written since each sync may be on disk: none is a wrong image. */
static unsigned int cut_everywhere(const struct rec_disk *disk, const struct rec_disk *old,
				   uint8_t old_id, uint8_t new_id)
{
	unsigned int states = 0;
	size_t synced = 0;

	for (size_t end = 0; end < disk->nr_events; end++) {
		uint32_t subsets;

		if (disk->events[end].kind != REC_SYNC)
			continue;
		assert_true(end - synced < 16);
		subsets = 1u << (end - synced);
		for (uint32_t mask = 0; mask < subsets; mask++, states++) {
			uint8_t id = cut(disk, old, synced, end, mask);
			bool last = end + 1 == disk->nr_events;

			if (last && mask == subsets - 1)
				assert_int_equal(id, new_id);
			else if (!synced && !mask)
				assert_int_equal(id, old_id);
			else
				assert_int_equal(id, 0);
		}
		synced = end + 1;
	}
	assert_int_equal(synced, disk->nr_events); /* it ended with a sync */
	return states;
}

static void a_power_cut_leaves_no_wrong_image(void **state)
{
	struct qcow2_create_opts o = zoned_opts();
	struct rec_disk disk = { 0 }, nothing = { 0 };

	(void)state;
	o.uuid[0] = 7;
	assert_int_equal(create(&disk, &o), 0);
	assert_true(cut_everywhere(&disk, &nothing, 0, 7) > 8);
	rec_free(&disk);
	rec_free(&nothing);
}

static void a_power_cut_never_mixes_old_and_new(void **state)
{
	struct qcow2_create_opts o = zoned_opts();
	struct rec_disk disk = { 0 }, old = { 0 };

	(void)state;
	o.uuid[0] = 6;
	o.zone.zone_size = 2 * MIB;
	assert_int_equal(create(&old, &o), 0);
	rec_resize(&disk, old.size);
	memcpy(disk.bytes, old.bytes, old.size);
	o = zoned_opts();
	o.uuid[0] = 7;
	assert_int_equal(create(&disk, &o), 0);
	assert_true(cut_everywhere(&disk, &old, 6, 7) > 8);
	rec_free(&disk);
	rec_free(&old);
}

static void any_failing_call_fails_the_create(void **state)
{
	struct rec_disk whole = { 0 };
	struct qcow2_create_opts o = zoned_opts();
	unsigned int calls;

	(void)state;
	assert_int_equal(create(&whole, &o), 0);
	calls = whole.calls;
	rec_free(&whole);
	assert_true(calls > 6);
	for (unsigned int n = 1; n <= calls; n++) {
		char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];
		struct rec_disk disk = { .fail_call = n };

		o = zoned_opts();
		assert_int_equal(qcow2_create("ram", &o, rec_open(&disk), warn, err), -EIO);
		assert_non_null(strstr(err, "'ram'"));
		assert_int_equal(disk.closed, 1);
		disk.fail_call = 0;
		/* The last sync alone fails after the magic is there. */
		assert_int_equal(opens_as(&disk) != 0, n == calls);
		rec_free(&disk);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_written_back),
		cmocka_unit_test(opens_with_what_was_asked_for),
		cmocka_unit_test(refuses_and_touches_nothing),
		cmocka_unit_test(a_default_append_shrinks_to_small_zones),
		cmocka_unit_test(clamps_are_said_in_a_line_each),
		cmocka_unit_test(the_largest_tables_are_counted),
		cmocka_unit_test(a_power_cut_leaves_no_wrong_image),
		cmocka_unit_test(a_power_cut_never_mixes_old_and_new),
		cmocka_unit_test(any_failing_call_fails_the_create),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
