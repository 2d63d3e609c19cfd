/* SPDX-License-Identifier: MIT */
/* Opening: all layouts, both markers, both byte orders; and what must be refused, with its words.
 */
#include "common.h"

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

/* Where the extension MAGIC begins. */
static uint64_t find_ext(struct ramdisk *d, uint32_t magic)
{
	uint64_t pos = be_get(d, offsetof(struct disk_header, header_length), 4);

	while (be_get(d, pos, 4) != magic) {
		assert_int_not_equal(be_get(d, pos, 4), EXT_END);
		pos += 8 + align_up(be_get(d, pos + 4, 4), 8);
	}
	return pos;
}

/* Puts the zoned extension of D into another layout, behind all others. */
static void set_layout(struct ramdisk *d, const struct qcow2_zoned *z)
{
	uint64_t at = find_ext(d, EXT_ZONED), end;
	uint8_t ext[ZONED_EXT_MAX];
	size_t len = layout_encode(z, ext);

	be_put(d, at, 4, 0x12345678); /* the old one becomes one that nobody knows */
	end = find_ext(d, EXT_END);
	be_put(d, end, 4, EXT_ZONED);
	be_put(d, end + 4, 4, len);
	memcpy(d->bytes + end + 8, ext, len);
	be_put(d, end + 8 + align_up(len, 8), 8, 0);
}

static struct ramdisk *zoned_image(struct qcow2_zoned *z, uint32_t conventional)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d;
	struct qcow2 *q;

	o.zone.conventional_zones = conventional;
	o.zone.max_open_zones = 3;
	o.zone.max_active_zones = 5;
	o.zone.max_append_bytes = 4096;
	d = make_image(&o);
	q = open_image(d, 0);
	put(q, 3 * 64 * KIB, 4096, 1);
	qcow2_wp_advance(q, 3, 3 * 64 * KIB + 4096);
	*z = qcow2_info(q)->zoned;
	assert_int_equal(qcow2_close(q), 0);
	return d;
}

static void every_layout_marker_and_byte_order_opens(void **state)
{
	static const enum qcow2_zone_layout layouts[] = {
		QCOW2_LAYOUT_L56,
		QCOW2_LAYOUT_V11,
		QCOW2_LAYOUT_L48B,
		QCOW2_LAYOUT_LATEST,
	};

	(void)state;
	for (unsigned int i = 0; i < 4 * 2 * 2 * 2; i++) {
		enum qcow2_zone_layout layout = layouts[i % 4];
		unsigned int marker = i / 4 % 2 ? 63 : 59, le = i / 8 % 2, conv = i / 16 % 2 * 2;
		const struct qcow2_zoned *got;
		struct ramdisk *d;
		struct qcow2_zoned z;
		struct qcow2 *q;
		char err[QCOW2_ERRLEN];

		d = zoned_image(&z, conv);
		z.layout = layout;
		set_layout(d, &z);
		for (uint32_t n = 0; n < z.nr_zones; n++) {
			uint64_t at = z.zonedmeta_offset + 8 * n;
			uint64_t wp =
				(be_get(d, at, 8) & WP_MASK) | (n < conv ? 1ull << marker : 0);

			be_put(d, at, 8, le ? __builtin_bswap64(wp) : wp);
		}
		q = open_image(d, QCOW2_RDONLY);
		got = &qcow2_info(q)->zoned;
		assert_int_equal(got->layout, layout);
		assert_int_equal(got->zone_size, 64 * KIB);
		assert_int_equal(got->zone_capacity, 48 * KIB);
		assert_int_equal(got->nr_zones, 16);
		assert_int_equal(got->conventional_zones, conv);
		assert_int_equal(got->max_open_zones, 3);
		assert_int_equal(got->max_active_zones, 5);
		assert_int_equal(got->max_append_bytes, layout == QCOW2_LAYOUT_LATEST ? 0 : 4096);
		assert_int_equal(got->little_endian, le);
		if (conv)
			assert_int_equal(got->marker_bit, marker);
		assert_int_equal(qcow2_wp(q, 3), 3 * 64 * KIB + 4096);
		assert_int_equal(qcow2_wp(q, 15), 15 * 64 * KIB);
		expect(q, 3 * 64 * KIB, 4096, 1);
		assert_int_equal(qcow2_close(q), 0);
		if (le) {
			assert_int_equal(open_refused(d, 0, err), -EROFS);
			assert_non_null(strstr(err, "little-endian"));
			ram_free(d);
			continue;
		}
		/* Written, it keeps its layout, its marker and the extension nobody knows. */
		q = open_image(d, 0);
		put(q, 5 * 64 * KIB, 4096, 2);
		qcow2_wp_advance(q, 5, 5 * 64 * KIB + 4096);
		assert_int_equal(qcow2_close(q), 0);
		find_ext(d, 0x12345678);
		if (conv)
			assert_true(be_get(d, z.zonedmeta_offset, 8) == 1ull << marker);
		expect_sound(d, 0);
		ram_free(d);
	}
}

struct damage {
	uint64_t off;
	unsigned int bytes;
	uint64_t value;
	const char *says;
};

#define FIELD(f) offsetof(struct disk_header, f), sizeof(((struct disk_header *)0)->f)

static void damaged_headers_are_refused_in_words(void **state)
{
	static const struct damage table[] = {
		{ FIELD(magic), 0x7f454c46, "not a qcow2 image" },
		{ FIELD(version), 1, "version" },
		{ FIELD(version), 4, "version" },
		{ FIELD(cluster_bits), 8, "cluster_bits" },
		{ FIELD(cluster_bits), 22, "cluster_bits" },
		{ FIELD(cluster_bits), 0xffffffff, "cluster_bits" },
		{ FIELD(size), 0xffffffffffffffff, "size" },
		{ FIELD(size), 1ull << 60, "size" },
		{ FIELD(size), 2 * MIB, "nr_zones" },
		{ FIELD(size), 1 * MIB - 1, "multiple of 512" },
		{ FIELD(crypt_method), 1, "encrypted" },
		{ FIELD(l1_size), 0, "l1_size" },
		{ FIELD(l1_size), 0xffffffff, "l1_size" },
		{ FIELD(l1_size), 4194304, "l1_table_offset" },
		{ FIELD(l1_table_offset), 0, "l1_table_offset" },
		{ FIELD(l1_table_offset), 4097, "l1_table_offset" },
		{ FIELD(l1_table_offset), 0xfffffffffffff000, "l1_table_offset" },
		{ FIELD(refcount_table_offset), 0, "refcount_table_offset" },
		{ FIELD(refcount_table_offset), 1ull << 40, "refcount_table_offset" },
		{ FIELD(refcount_table_clusters), 0, "refcount_table_clusters" },
		{ FIELD(refcount_table_clusters), 2049, "refcount_table_clusters" },
		{ FIELD(refcount_table_clusters), 2048, "refcount_table_offset" },
		{ FIELD(nb_snapshots), 65537, "nb_snapshots" },
		{ FIELD(nb_snapshots), 65536, "snapshots_offset" },
		{ FIELD(backing_file_offset), 5000, "backing_file_offset" },
		{ FIELD(backing_file_offset), 8, "backing_file_offset" },
		{ FIELD(backing_file_offset), 4000, "backing file" },
		{ FIELD(incompatible_features), 1ull << 40 | 1ull << 5, "feature bit 40" },
		{ FIELD(incompatible_features), 1 | 1ull << 5, "not closed cleanly" },
		{ FIELD(incompatible_features), 2 | 1ull << 5, "marked corrupt" },
		{ FIELD(incompatible_features), 4 | 1ull << 5, "external file" },
		{ FIELD(incompatible_features), 8 | 1ull << 5, "compression_type" },
		{ FIELD(incompatible_features), 16 | 1ull << 5, "extended L2" },
		{ FIELD(incompatible_features), 0, "bit 5 (zoned format) is not set" },
		{ FIELD(refcount_order), 7, "refcount_order" },
		{ FIELD(header_length), 96, "header_length" },
		{ FIELD(header_length), 4104, "header_length" },
		{ FIELD(compression_type), 7, "compression_type" },
	};
	struct qcow2_zoned z;
	struct ramdisk *good;

	(void)state;
	good = zoned_image(&z, 0);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct ramdisk *d = ram_copy(good);
		char err[QCOW2_ERRLEN] = "";

		be_put(d, table[i].off, table[i].bytes, table[i].value);
		if (!open_refused(d, 0, err))
			fail_msg("%s = 0x%llx was accepted", table[i].says,
				 (unsigned long long)table[i].value);
		if (!strstr(err, table[i].says))
			fail_msg("'%s' was expected in: %s", table[i].says, err);
		assert_int_equal(d->nr_ops, 0); /* and nothing was changed */
		ram_free(d);
	}
	ram_free(good);
}

static void damaged_extensions_and_tables_are_refused_in_words(void **state)
{
	enum { EXT, TABLE };
	static const struct {
		int where;
		struct damage d;
	} table[] = {
		{ EXT, { 0, 4, 0x11111111, "no zoned extension" } },
		{ EXT, { 4, 4, 47, "length is 47" } },
		{ EXT, { 4, 4, 0x7fffffff, "claims" } },
		{ EXT, { 8, 1, 2, "zoned is 2" } },
		{ EXT, { 9, 1, 2, "reserved" } },
		{ EXT, { 12, 4, 17, "nr_zones is 17" } },
		{ EXT, { 16, 8, 65535, "zone_size is 65535" } },
		{ EXT, { 16, 8, 0, "zone_size is 0" } },
		{ EXT, { 16, 8, 1ull << 63, "nr_zones" } },
		{ EXT, { 24, 8, 0, "zone_capacity is 0" } },
		{ EXT, { 24, 8, 65536 + 512, "zone_capacity" } },
		{ EXT, { 32, 4, 16, "conventional_zones is 16" } },
		{ EXT, { 48, 8, 0, "zonedmeta_offset is 0x0" } },
		{ EXT, { 48, 8, 0x3001, "zonedmeta_offset is 0x3001" } },
		{ EXT, { 48, 8, 1ull << 32, "cut short" } },
		{ TABLE,
		  { 8 * 3, 8, 0,
		    "Zone 3 has write pointer 0x0 outside its writable range "
		    "0x30000..0x3c000" } },
		{ TABLE,
		  { 8 * 1, 8, 65536 + 513,
		    "Zone 1 has write pointer 0x10201, which is not "
		    "sector aligned" } },
		{ TABLE,
		  { 8 * 2, 1, 0x80,
		    "Zone 2 contradicts the header, which declares the "
		    "first 0 zones conventional" } },
		{ TABLE, { 8 * 15, 8, 1 * MIB + 512, "Zone 15" } },
	};
	struct qcow2_zoned z;
	struct ramdisk *good;

	(void)state;
	good = zoned_image(&z, 0);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct ramdisk *d = ram_copy(good);
		char err[QCOW2_ERRLEN] = "";
		uint64_t base = table[i].where == EXT ? find_ext(d, EXT_ZONED) : z.zonedmeta_offset;

		be_put(d, base + table[i].d.off, table[i].d.bytes, table[i].d.value);
		if (!open_refused(d, 0, err))
			fail_msg("%s was accepted", table[i].d.says);
		if (!strstr(err, table[i].d.says))
			fail_msg("'%s' was expected in: %s", table[i].d.says, err);
		assert_int_equal(d->nr_ops, 0);
		/* To be looked at, an image with a bad table opens. */
		if (table[i].where == TABLE)
			assert_int_equal(open_refused(d, QCOW2_RDONLY | QCOW2_INSPECT, err), 0);
		ram_free(d);
	}
	ram_free(good);
}

static void full_may_be_recorded_as_the_next_zones_start(void **state)
{
	struct qcow2_zoned z;
	struct ramdisk *d = zoned_image(&z, 0);
	struct qcow2 *q;

	(void)state;
	be_put(d, z.zonedmeta_offset, 8, 64 * KIB);
	q = open_image(d, 0);
	assert_int_equal(qcow2_wp(q, 0), 64 * KIB);
	assert_int_equal(qcow2_zone_reset(q, 0), 0);
	assert_int_equal(qcow2_close(q), 0);
	assert_int_equal(be_get(d, z.zonedmeta_offset, 8), 0);
	ram_free(d);
}

static void an_image_without_identity_gets_one_when_written(void **state)
{
	struct qcow2_zoned z;
	struct ramdisk *d = zoned_image(&z, 0);
	uint8_t first[QCOW2_UUID], again[QCOW2_UUID];
	struct qcow2 *q;

	(void)state;
	be_put(d, find_ext(d, EXT_ZNSD), 4, 0x12345678);
	q = open_image(d, QCOW2_RDONLY);
	assert_false(qcow2_info(q)->has_uuid);
	assert_int_equal(qcow2_close(q), 0);
	q = open_image(d, 0);
	assert_true(qcow2_info(q)->has_uuid);
	memcpy(first, qcow2_info(q)->uuid, QCOW2_UUID);
	assert_int_equal(qcow2_close(q), 0);
	q = open_image(d, QCOW2_RDONLY);
	assert_true(qcow2_info(q)->has_uuid);
	memcpy(again, qcow2_info(q)->uuid, QCOW2_UUID);
	assert_memory_equal(first, again, QCOW2_UUID);
	assert_int_equal(qcow2_close(q), 0);
	find_ext(d, 0x12345678);
	expect_sound(d, 0);
	ram_free(d);
}

static void a_longer_extension_of_ours_is_kept(void **state)
{
	struct qcow2_zoned z;
	struct ramdisk *d = zoned_image(&z, 0);
	uint64_t end = find_ext(d, EXT_END);
	struct qcow2 *q;

	(void)state;
	be_put(d, find_ext(d, EXT_ZNSD), 4, 0x12345678);
	be_put(d, end, 4, EXT_ZNSD);
	be_put(d, end + 4, 4, 24);
	memset(d->bytes + end + 8, 0x42, 16);
	memset(d->bytes + end + 24, 0x43, 8);
	be_put(d, end + 32, 8, 0);
	q = open_image(d, 0);
	assert_true(qcow2_info(q)->has_uuid);
	assert_int_equal(qcow2_info(q)->uuid[15], 0x42);
	assert_int_equal(qcow2_close(q), 0);
	assert_int_equal(be_get(d, end + 24, 8), 0x4343434343434343);
	ram_free(d);
}

static void a_readonly_open_writes_nothing(void **state)
{
	struct qcow2_zoned z;
	struct ramdisk *d = zoned_image(&z, 0);
	uint8_t byte[512] = { 0 };
	struct qcow2 *q;

	(void)state;
	be_put(d, find_ext(d, EXT_ZNSD), 4, 0x12345678);
	be_put(d, offsetof(struct disk_header, autoclear_features), 8, 0xff);
	ram_forget(d);
	q = open_image(d, QCOW2_RDONLY);
	assert_int_equal(qcow2_write(q, byte, 0, 512, 0), -EROFS);
	assert_int_equal(qcow2_zone_reset(q, 0), -EROFS);
	assert_int_equal(qcow2_zone_finish(q, 0, 0), -EROFS);
	assert_int_equal(qcow2_flush(q), 0);
	assert_int_equal(qcow2_close(q), 0);
	assert_int_equal(d->nr_ops, 0);
	q = open_image(d, 0); /* a writable one clears bits nobody knows */
	assert_int_equal(qcow2_close(q), 0);
	assert_int_equal(be_get(d, offsetof(struct disk_header, autoclear_features), 8), 0);
	ram_free(d);
}

static void huge_claims_in_a_small_file_fail_with_little_memory(void **state)
{
	static const uint64_t lens[] = { 0, 1, 71, 72, 103, 104, 112, 4096, 8192 };
	struct qcow2_zoned z;
	struct ramdisk *good;
	char err[QCOW2_ERRLEN];

	(void)state;
	good = zoned_image(&z, 0);
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		struct ramdisk *d = ram_copy(good);

		d->size = lens[i];
		assert_true(open_refused(d, 0, err) < 0);
		assert_non_null(strchr(err, ' '));
		ram_free(d);
	}
	ram_free(good);
}

static void a_host_offset_in_our_tables_is_not_written_through(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);
	uint64_t victims[3];
	uint8_t byte[4096] = { 0 };
	uint64_t l2;

	(void)state;
	put(q, 0, 4096, 1);
	assert_int_equal(qcow2_close(q), 0);
	q = open_image(d, 0);
	l2 = q->l1.entry[0] & L1E_OFFSET_MASK;
	victims[0] = q->info.zoned.zonedmeta_offset;
	victims[1] = q->reftable.off;
	victims[2] = l2;
	assert_int_equal(qcow2_close(q), 0);
	for (int i = 0; i < 3; i++) {
		be_put(d, l2, 8, victims[i] | ENTRY_COPIED);
		q = open_image(d, 0);
		assert_int_equal(qcow2_read(q, byte, 0, 4096, 0), 0);
		assert_int_equal(qcow2_write(q, byte, 0, 4096, 0), -EIO);
		/* A reset gives up the entry, not the table. */
		assert_int_equal(qcow2_zone_reset(q, 0), 0);
		assert_int_equal(qcow2_close(q), 0);
		q = open_image(d, 0);
		assert_int_equal(qcow2_close(q), 0);
	}
	ram_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_layout_marker_and_byte_order_opens),
		cmocka_unit_test(damaged_headers_are_refused_in_words),
		cmocka_unit_test(damaged_extensions_and_tables_are_refused_in_words),
		cmocka_unit_test(full_may_be_recorded_as_the_next_zones_start),
		cmocka_unit_test(an_image_without_identity_gets_one_when_written),
		cmocka_unit_test(a_longer_extension_of_ours_is_kept),
		cmocka_unit_test(a_readonly_open_writes_nothing),
		cmocka_unit_test(huge_claims_in_a_small_file_fail_with_little_memory),
		cmocka_unit_test(a_host_offset_in_our_tables_is_not_written_through),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
