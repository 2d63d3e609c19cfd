/* SPDX-License-Identifier: MIT */
/*
 * Resizing: every layout, cluster size and width; what is kept, what is new, what is refused; and
 * a cut after any change of the file. The states that lose and tear writes are the crash
 * laboratory's (tests/crash, the workloads resize).
 */
#include "common.h"

#define UNKNOWN 0x12345678u

static void be_put(struct ramdisk *d, uint64_t off, unsigned int bytes, uint64_t value)
{
	for (unsigned int i = 0; i < bytes; i++)
		d->bytes[off + i] = value >> (8 * (bytes - 1 - i));
}

static uint64_t be_get(struct ramdisk *d, uint64_t off, unsigned int bytes)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < bytes; i++)
		value = value << 8 | d->bytes[off + i];
	return value;
}

/* Where the extension MAGIC begins; 0: there is none. */
static uint64_t find_ext(struct ramdisk *d, uint32_t magic)
{
	uint64_t pos = be_get(d, offsetof(struct disk_header, header_length), 4);

	while (be_get(d, pos, 4) != magic) {
		if (be_get(d, pos, 4) == EXT_END)
			return 0;
		pos += 8 + align_up(be_get(d, pos + 4, 4), 8);
	}
	return pos;
}

/* Puts the zoned extension behind all others, in LAYOUT; what it was becomes one nobody knows. */
static void set_layout(struct ramdisk *d, struct qcow2_zoned z, enum qcow2_zone_layout layout)
{
	uint64_t at = find_ext(d, EXT_ZONED), end = find_ext(d, EXT_END);
	uint8_t ext[ZONED_EXT_MAX];
	size_t len;

	z.layout = layout;
	len = layout_encode(&z, ext);
	be_put(d, at, 4, UNKNOWN);
	end = find_ext(d, EXT_END);
	be_put(d, end, 4, EXT_ZONED);
	be_put(d, end + 4, 4, len);
	memcpy(d->bytes + end + 8, ext, len);
	be_put(d, end + 8 + align_up(len, 8), 8, 0);
}

static int resize(struct ramdisk *d, uint64_t size, bool shrink, char err[QCOW2_ERRLEN])
{
	struct qcow2 *q = open_image(d, QCOW2_RESIZE);
	int ret = qcow2_resize(q, size, shrink, err);

	assert_int_equal(ret != 0, err[0] != 0);
	if (!ret)
		assert_int_equal(qcow2_info(q)->size, size);
	assert_int_equal(qcow2_close(q), 0);
	return ret;
}

static void must_resize(struct ramdisk *d, uint64_t size)
{
	char err[QCOW2_ERRLEN];

	if (resize(d, size, true, err))
		fail_msg("resize: %s", err);
	expect_sound(d, 0);
}

struct shape {
	uint32_t cluster, bits, conventional;
	enum qcow2_zone_layout layout;
	uint64_t zone;
};

static const enum qcow2_zone_layout layouts[] = {
	QCOW2_LAYOUT_V11,
	QCOW2_LAYOUT_LATEST,
	QCOW2_LAYOUT_L56,
	QCOW2_LAYOUT_L48B,
};

/* Each cluster size with each width; layouts and conventional zones in turn. */
static struct shape shape(unsigned int cluster_bits, unsigned int order)
{
	struct shape s = {
		.cluster = 1u << cluster_bits,
		.bits = 1u << order,
		.conventional = order % 3,
		.layout = layouts[(cluster_bits + order) % 4],
		.zone = cluster_bits < 16 ? 64 * KIB : 1u << cluster_bits,
	};

	return s;
}

/* Six zones: 3 is partly written, 4 full, the others empty or conventional. */
static struct ramdisk *shaped_image(const struct shape *s)
{
	struct qcow2_create_opts o = {
		.size = 6 * s->zone,
		.cluster_size = s->cluster,
		.refcount_bits = s->bits,
		.zoned = true,
		.zone = { .zone_size = s->zone,
			  .conventional_zones = s->conventional,
			  .max_open_zones = 3,
			  .max_active_zones = 5 },
	};
	struct qcow2_zoned z;
	struct ramdisk *d;
	struct qcow2 *q;

	if (s->layout == QCOW2_LAYOUT_LATEST)
		o.zone.layout = QCOW2_LAYOUT_LATEST;
	d = make_image(&o);
	q = open_image(d, 0);
	put(q, 3 * s->zone, 5 * 512, 1);
	qcow2_wp_advance(q, 3, 3 * s->zone + 5 * 512);
	put(q, 4 * s->zone, 9 * 512, 2);
	assert_int_equal(qcow2_zone_finish(q, 4, 4 * s->zone + 9 * 512), 0);
	if (s->conventional)
		put(q, 512, 1024, 3);
	z = qcow2_info(q)->zoned;
	assert_int_equal(qcow2_close(q), 0);
	if (s->layout == QCOW2_LAYOUT_L56 || s->layout == QCOW2_LAYOUT_L48B)
		set_layout(d, z, s->layout);
	ram_forget(d);
	return d;
}

/* What every size has in common. */
static void expect_kept(struct qcow2 *q, const struct shape *s)
{
	const struct qcow2_zoned *z = &qcow2_info(q)->zoned;

	assert_int_equal(z->layout, s->layout);
	assert_int_equal(z->zone_size, s->zone);
	assert_int_equal(z->zone_capacity, s->zone);
	assert_int_equal(z->conventional_zones, s->conventional);
	assert_int_equal(z->max_open_zones, 3);
	assert_int_equal(z->max_active_zones, 5);
	assert_int_equal(qcow2_info(q)->size, z->nr_zones * s->zone);
	assert_int_equal(qcow2_wp(q, 3), 3 * s->zone + 5 * 512);
	assert_int_equal(qcow2_wp(q, 4), 5 * s->zone);
	for (uint32_t i = 0; i < z->nr_zones; i++)
		if (i != 3 && i != 4)
			assert_int_equal(qcow2_wp(q, i), i * s->zone);
	expect(q, 3 * s->zone, 5 * 512, 1);
	expect(q, 4 * s->zone, 9 * 512, 2);
	expect_zeroes(q, 4 * s->zone + 9 * 512, s->zone - 9 * 512);
	if (s->conventional)
		expect(q, 512, 1024, 3);
}

static void grow_and_shrink(const struct shape *s)
{
	struct ramdisk *d = shaped_image(s);
	uint64_t names = find_ext(d, EXT_FEATURE_NAMES), znsd = find_ext(d, EXT_ZNSD);
	uint8_t was_names[440], was_znsd[32];
	static const uint32_t sizes[] = { 7, 40, 5, 90, 6 };
	struct qcow2 *q;

	memcpy(was_names, d->bytes + names, sizeof(was_names));
	memcpy(was_znsd, d->bytes + znsd, sizeof(was_znsd));
	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		must_resize(d, sizes[i] * s->zone);
		q = open_image(d, 0);
		assert_int_equal(qcow2_info(q)->zoned.nr_zones, sizes[i]);
		expect_kept(q, s);
		if (sizes[i] > 6) { /* it is used: at its end */
			uint32_t last = sizes[i] - 1;

			expect_zeroes(q, last * s->zone, s->zone);
			put(q, last * s->zone, 1024, 7);
			qcow2_wp_advance(q, last, last * s->zone + 1024);
			assert_int_equal(qcow2_flush(q), 0);
			expect(q, last * s->zone, 1024, 7);
			assert_int_equal(qcow2_zone_reset(q, last), 0);
		}
		assert_int_equal(qcow2_close(q), 0);
	}
	expect_sound(d, 0);
	if (names)
		assert_memory_equal(d->bytes + find_ext(d, EXT_FEATURE_NAMES), was_names, 440);
	assert_memory_equal(d->bytes + find_ext(d, EXT_ZNSD), was_znsd, 32);
	assert_int_equal(find_ext(d, UNKNOWN) != 0,
			 s->layout == QCOW2_LAYOUT_L56 || s->layout == QCOW2_LAYOUT_L48B);
	ram_free(d);
}

static void every_layout_cluster_size_and_width_grows_and_shrinks(void **state)
{
	(void)state;
	for (unsigned int cluster = 9; cluster <= 21; cluster++)
		/* Large clusters take their time, and their widths make no difference. */
		for (unsigned int order = cluster > 14 ? cluster % 4 : 0; order <= 6;
		     order += cluster > 14 ? 4 : 1) {
			struct shape s = shape(cluster, order);

			grow_and_shrink(&s);
		}
}

/* Applies a change that was recorded with its bytes. */
static void apply(struct ramdisk *d, const struct ram_op *op)
{
	struct file *f = ram_open(d);
	int err = 0;

	if (op->call == RAM_WRITE)
		err = file_write(f, op->data, op->len, op->off, 0);
	else if (op->call == RAM_TRUNCATE)
		err = file_truncate(f, op->len);
	else if (op->call == RAM_FALLOCATE)
		err = file_discard(f, op->off, op->len);
	assert_int_equal(err, 0);
	file_close(f);
}

/* No corruption, one size or the other, and all that was there. Returns the zones. */
static uint32_t expect_either(struct ramdisk *d, const struct shape *s, uint32_t a, uint32_t b)
{
	struct ramdisk *copy = ram_copy(d);
	struct qcow2_check_result res = { 0 };
	struct qcow2 *q = open_image(copy, 0);
	uint32_t nr = qcow2_info(q)->zoned.nr_zones;

	assert_true(nr == a || nr == b);
	expect_kept(q, s);
	assert_int_equal(qcow2_check(q, &res, say, d), 0);
	assert_int_equal(res.corruptions + res.check_errors, 0);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(copy);
	return nr;
}

static void a_cut_after_any_change_leaves_one_size_or_the_other(void **state)
{
	static const uint32_t table[][2] = { { 6, 300 }, { 6, 5 }, { 300, 7 } };

	(void)state;
	for (unsigned int n = 0; n < 3 * 13; n++) {
		struct shape s = shape(9 + n % 13, n % 7);
		const uint32_t *zones = table[n % 3];
		struct ramdisk *d = shaped_image(&s), *base;
		uint32_t nr = zones[0];
		char err[QCOW2_ERRLEN];

		if (nr != 6)
			must_resize(d, nr * s.zone);
		ram_forget(d);
		base = ram_copy(d);
		d->keep_data = true;
		assert_int_equal(resize(d, zones[1] * s.zone, true, err), 0);
		for (size_t i = 0; i < d->nr_ops; i++) {
			if (d->ops[i].call == RAM_SYNC)
				continue;
			apply(base, &d->ops[i]);
			nr = expect_either(base, &s, nr, zones[1]);
		}
		assert_int_equal(nr, zones[1]);
		expect_sound(base, 0);
		ram_free(base);
		ram_free(d);
	}
}

/* One write, and it is the first sector: the heart of it. */
static void what_belongs_together_is_published_by_one_sector(void **state)
{
	(void)state;
	for (unsigned int cluster = 9; cluster <= 21; cluster++) {
		struct shape s = shape(cluster, 4);
		struct ramdisk *d = shaped_image(&s);
		unsigned int times = 0;
		char err[QCOW2_ERRLEN];

		assert_int_equal(resize(d, 9 * s.zone, false, err), 0);
		for (size_t i = 0; i < d->nr_ops; i++)
			if (d->ops[i].call == RAM_WRITE && d->ops[i].off < 512) {
				assert_int_equal(d->ops[i].off, 0);
				assert_int_equal(d->ops[i].len, 512);
				assert_int_equal(d->ops[i - 1].call, RAM_SYNC);
				assert_int_equal(d->ops[i + 1].call, RAM_SYNC);
				times++;
			}
		assert_int_equal(times, 1);
		/* And it fits there, whatever the extension's place was. */
		assert_true(find_ext(d, EXT_ZONED) + 8 + 56 <= 512);
		ram_free(d);
	}
}

static void a_short_last_zone_becomes_whole_and_stays_full(void **state)
{
	static const uint64_t cases[][3] = {
		/* pointer in the short zone | capacity | pointer in the whole one */
		{ 0, 48 * KIB, 0 },
		{ 9 * KIB, 48 * KIB, 9 * KIB },
		{ 30 * KIB + 512, 48 * KIB, 48 * KIB }, /* full */
		{ 8 * KIB, 8 * KIB, 8 * KIB },		/* full, and was so before its end */
	};

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		uint64_t start = 3 * 64 * KIB, end = start + 30 * KIB + 512;
		struct qcow2_create_opts o = small_zoned();
		struct qcow2_extent e;
		struct ramdisk *d;
		struct qcow2 *q;

		o.size = end;
		o.zone.zone_capacity = cases[i][1];
		d = make_image(&o);
		q = open_image(d, 0);
		if (cases[i][0]) {
			put(q, start, cases[i][0], 1);
			qcow2_wp_advance(q, 3, start + cases[i][0]);
			assert_int_equal(qcow2_map(q, start, 512, &e), 0);
		}
		assert_int_equal(qcow2_close(q), 0);
		if (cases[i][0] > 30 * KIB) /* somebody's rest behind the end */
			memset(d->bytes + e.host_off + 30 * KIB + 512, 0xee, 1536);
		must_resize(d, 4 * 64 * KIB);
		q = open_image(d, 0);
		assert_int_equal(qcow2_wp(q, 3), start + cases[i][2]);
		if (cases[i][0])
			expect(q, start, cases[i][0], 1);
		expect_zeroes(q, start + cases[i][0], 64 * KIB - cases[i][0]);
		assert_int_equal(qcow2_close(q), 0);
		ram_free(d);
	}
}

static void all_the_zones_there_can_be(void **state)
{
	struct qcow2_create_opts o = {
		.size = 4096,
		.cluster_size = 512,
		.refcount_bits = 64,
		.zoned = true,
		.zone = { .zone_size = 512, .max_append_bytes = 0, .layout = QCOW2_LAYOUT_LATEST },
	};
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);
	uint32_t last = (1u << 20) - 1;
	uint64_t reftable;
	char err[QCOW2_ERRLEN];

	(void)state;
	put(q, 2 * 512, 512, 1);
	qcow2_wp_advance(q, 2, 3 * 512);
	reftable = q->hdr.reftable_offset;
	assert_int_equal(qcow2_close(q), 0);
	assert_int_equal(resize(d, (1ull << 29) + 512, false, err), -EINVAL);
	assert_non_null(strstr(err, "1048576 zones"));
	assert_non_null(strstr(err, "536870912"));
	must_resize(d, 1 << 29);
	q = open_image(d, 0);
	/* The refcount table was outgrown meanwhile, and the header knows. */
	assert_int_not_equal(q->hdr.reftable_offset, reftable);
	assert_int_equal(qcow2_info(q)->zoned.nr_zones, 1 << 20);
	expect(q, 2 * 512, 512, 1);
	put(q, last * 512ull, 512, 2);
	qcow2_wp_advance(q, last, (last + 1) * 512ull);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	assert_int_equal(resize(d, 4096, true, err), -EINVAL);
	assert_non_null(strstr(err, "zone 1048575 is not empty"));
	q = open_image(d, 0);
	assert_int_equal(qcow2_zone_reset(q, last), 0);
	assert_int_equal(qcow2_close(q), 0);
	must_resize(d, 4096);
	ram_free(d);
}

static void plain_disks_grow_and_shrink(void **state)
{
	(void)state;
	for (unsigned int bits = 9; bits <= 21; bits += 3) {
		struct qcow2_create_opts o = { .cluster_size = 1u << bits };
		struct ramdisk *d = make_image(&o);
		struct qcow2 *q;
		char err[QCOW2_ERRLEN];

		must_resize(d, 512);
		must_resize(d, 40 * MIB + 1536);
		q = open_image(d, 0);
		expect_zeroes(q, 30 * MIB, 10 * MIB + 1536);
		put(q, 0, 8192, 1);
		put(q, 39 * MIB, MIB + 1536, 2);
		assert_int_equal(qcow2_close(q), 0);
		assert_int_equal(resize(d, 1 * MIB, false, err), -EINVAL);
		assert_non_null(strstr(err, "shrinking was not asked for"));
		must_resize(d, 39 * MIB + 512);
		must_resize(d, 80 * MIB);
		q = open_image(d, 0);
		expect(q, 0, 8192, 1);
		expect(q, 39 * MIB, 512, 2);
		expect_zeroes(q, 39 * MIB + 512, 41 * MIB - 512);
		put(q, 79 * MIB, MIB, 3);
		assert_int_equal(qcow2_close(q), 0);
		expect_sound(d, 0);
		must_resize(d, 512);
		q = open_image(d, 0);
		expect(q, 0, 512, 1);
		assert_int_equal(qcow2_close(q), 0);
		ram_free(d);
	}
}

/* A shrink that was cut, or another program's, leaves a mapping behind the end. */
static void what_was_mapped_behind_the_end_does_not_come_back(void **state)
{
	struct qcow2_create_opts o = { .size = 8 * MIB, .cluster_size = 4096 };
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);

	(void)state;
	put(q, 0, 8 * MIB, 1);
	assert_int_equal(qcow2_close(q), 0);
	be_put(d, offsetof(struct disk_header, size), 8, 3 * MIB + 512);
	expect_sound(d, 0);
	must_resize(d, 16 * MIB);
	q = open_image(d, 0);
	expect(q, 0, 3 * MIB + 512, 1);
	expect_zeroes(q, 3 * MIB + 512, 13 * MIB - 512);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

static void promises_that_a_writer_breaks_are_cleared(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);

	(void)state;
	be_put(d, offsetof(struct disk_header, autoclear_features), 8, 0x0400000000000001ull);
	must_resize(d, 2 * MIB);
	assert_int_equal(be_get(d, offsetof(struct disk_header, autoclear_features), 8), 0);
	ram_free(d);
}

struct refusal {
	uint64_t size;
	bool shrink;
	const char *says[3];
};

static void a_size_that_cannot_be_is_refused_and_nothing_written(void **state)
{
	/* 16 zones of 64 KiB, 2 of them conventional; zones 5 and 9 are not empty */
	static const struct refusal table[] = {
		{ 0, true, { "a positive multiple of 512" } },
		{ 1000, true, { "a positive multiple of 512" } },
		{ 0xfffffffffffffe00, false, { "below 2^63" } },
		{ 1 * MIB + 512, false, { "1048576 (16 zones)", "1114112 (17)" } },
		{ 2 * MIB - 512, false, { "2031616 (31 zones)", "2097152 (32)" } },
		{ 128 * 1024 * MIB, false, { "1048576 zones of 65536", "largest", "68719476736" } },
		{ 640 * KIB, false, { "shrinking was not asked for" } },
		{ 128 * KIB, true, { "first 2 are conventional", "smallest", "196608" } },
		{ 576 * KIB, true, { "zone 9 is not empty", "up to zone 9", "at least 655360" } },
		{ 192 * KIB, true, { "zone 5 is not empty", "up to zone 9", "at least 655360" } },
	};
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d, *before;
	char err[QCOW2_ERRLEN];
	struct qcow2 *q;

	(void)state;
	o.zone.conventional_zones = 2;
	d = make_image(&o);
	q = open_image(d, 0);
	put(q, 5 * 64 * KIB, 512, 1);
	qcow2_wp_advance(q, 5, 5 * 64 * KIB + 512);
	assert_int_equal(qcow2_zone_finish(q, 9, 9 * 64 * KIB), 0);
	assert_int_equal(qcow2_close(q), 0);
	/* What any other opening for writing would change. */
	be_put(d, offsetof(struct disk_header, autoclear_features), 8, 1);
	be_put(d, find_ext(d, EXT_ZNSD), 8, 0);
	before = ram_copy(d);
	ram_forget(d);
	for (unsigned int i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		assert_int_equal(resize(d, table[i].size, table[i].shrink, err), -EINVAL);
		for (int k = 0; k < 3 && table[i].says[k]; k++)
			if (!strstr(err, table[i].says[k]))
				fail_msg("no '%s' in: %s", table[i].says[k], err);
	}
	assert_int_equal(resize(d, 1 * MIB, false, err), 0); /* what it has */
	assert_int_equal(ram_count(d, RAM_WRITE), 0);
	assert_int_equal(d->size, before->size);
	assert_memory_equal(d->bytes, before->bytes, d->size);
	ram_free(before);
	ram_free(d);
}

static void an_image_that_cannot_be_is_refused_and_nothing_written(void **state)
{
	static const struct {
		uint64_t off;
		unsigned int bytes;
		uint64_t value;
		const char *says;
	} table[] = {
		{ 72, 8, 0x21, "not closed cleanly" },
		{ 72, 8, 0x22, "marked corrupt" },
		{ 88, 8, 1ull << 63, "start znsd on it once" },
		{ 32, 4, 2, "encrypted" },
		{ 60, 4, 1, "internal snapshots" },
		{ 8, 8, 1000, "backing file" },
		{ 0x30000 + 8 * 3, 8, 0x0000030000000000, "write pointer" },
		{ 112, 4, UNKNOWN, "first sector" }, /* the names are none: nothing can move */
	};
	struct qcow2_create_opts o = small_zoned();
	char err[QCOW2_ERRLEN];

	(void)state;
	o.cluster_size = 65536;
	for (unsigned int i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct ramdisk *d = make_image(&o), *before;

		be_put(d, 64, 8, 0x10000); /* a place for snapshots */
		be_put(d, table[i].off, table[i].bytes, table[i].value);
		before = ram_copy(d);
		if (!open_refused(d, QCOW2_RESIZE, err))
			assert_int_equal(resize(d, 2 * MIB, false, err), -EINVAL);
		if (!strstr(err, table[i].says))
			fail_msg("no '%s' in: %s", table[i].says, err);
		assert_int_equal(ram_count(d, RAM_WRITE), 0);
		assert_memory_equal(d->bytes, before->bytes, d->size);
		ram_free(before);
		ram_free(d);
	}
}

static void a_little_endian_table_is_refused(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	uint64_t table = o.zone.zonedmeta_offset;
	char err[QCOW2_ERRLEN];

	(void)state;
	for (unsigned int i = 0; i < 16; i++)
		be_put(d, table + 8 * i, 8, __builtin_bswap64(i * 64 * KIB));
	assert_int_equal(open_refused(d, QCOW2_RESIZE, err), -EROFS);
	assert_non_null(strstr(err, "little-endian"));
	assert_int_equal(ram_count(d, RAM_WRITE), 0);
	ram_free(d);
}

static int fail_first_sector(void *arg, const struct ram_op *op)
{
	(void)arg;
	return op->call == RAM_WRITE && !op->off ? -EIO : 0;
}

static int fail_beyond(void *arg, const struct ram_op *op)
{
	return op->call == RAM_TRUNCATE && op->len > *(uint64_t *)arg ? -ENOSPC : 0;
}

static void a_failed_publish_gives_nothing_back(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, QCOW2_RESIZE);
	char err[QCOW2_ERRLEN];

	(void)state;
	d->hook = fail_first_sector;
	assert_int_equal(qcow2_resize(q, 4 * MIB, false, err), -EIO);
	assert_non_null(strstr(err, "its old size or the new one"));
	d->hook = NULL;
	assert_int_equal(qcow2_close(q), -EIO);
	expect_sound(d, 2); /* both tables stay counted, whichever the header names */
	ram_free(d);
}

static void a_full_disk_leaves_the_old_size_and_no_leak(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, QCOW2_RESIZE);
	uint64_t most = d->size + 4096; /* one table fits, the other does not */
	char err[QCOW2_ERRLEN];

	(void)state;
	d->hook = fail_beyond;
	d->hook_arg = &most;
	assert_int_equal(qcow2_resize(q, 2048 * MIB, false, err), -ENOSPC);
	assert_non_null(strstr(err, "it has its old size"));
	assert_int_equal(qcow2_info(q)->size, 1 * MIB);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	q = open_image(d, 0);
	assert_int_equal(qcow2_info(q)->size, 1 * MIB);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_layout_cluster_size_and_width_grows_and_shrinks),
		cmocka_unit_test(a_cut_after_any_change_leaves_one_size_or_the_other),
		cmocka_unit_test(what_belongs_together_is_published_by_one_sector),
		cmocka_unit_test(a_short_last_zone_becomes_whole_and_stays_full),
		cmocka_unit_test(all_the_zones_there_can_be),
		cmocka_unit_test(plain_disks_grow_and_shrink),
		cmocka_unit_test(what_was_mapped_behind_the_end_does_not_come_back),
		cmocka_unit_test(promises_that_a_writer_breaks_are_cleared),
		cmocka_unit_test(a_size_that_cannot_be_is_refused_and_nothing_written),
		cmocka_unit_test(an_image_that_cannot_be_is_refused_and_nothing_written),
		cmocka_unit_test(a_little_endian_table_is_refused),
		cmocka_unit_test(a_failed_publish_gives_nothing_back),
		cmocka_unit_test(a_full_disk_leaves_the_old_size_and_no_leak),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
