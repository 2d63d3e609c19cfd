/* SPDX-License-Identifier: MIT */
/*
 * Makes the golden images. A row of the table tells how one is created and edited:
 *
 * 1. qcow2_create() and a workload that leaves a zone of each state: empty, partly written, full,
 *    reset, finished. An image that is not zoned gets data with holes.
 * 2. A function that edits the bytes, for what the library does not write. It keeps the refcounts
 *    right.
 * 3. A walk over the result finds the metadata. Tables of 512 bytes are taken as a whole; of longer
 *    ones the part in use and a little of what follows, because damage to the unused rest of a
 *    table of 64 KiB is the same everywhere.
 *
 * If qcow2_check() has a finding in a golden image, that is a bug of this file, and the process
 * ends.
 */
#undef NDEBUG /* a wrong golden image is noticed in every build */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "../unit/ramfile.h"
#include "golden.h"
#include "image.h"

#define KIB	   1024ull
#define BUILD_CAP  (64u << 20)
#define MAX_GROWTH (4u << 20) /* by edits */
#define AT(field)  offsetof(struct disk_header, field)
#define WHOLE_STEP 512u

uint64_t get_be(const uint8_t *at, unsigned int width)
{
	uint64_t v = 0;

	for (unsigned int i = 0; i < width; i++)
		v = v << 8 | at[i];
	return v;
}

void put_be(uint8_t *at, unsigned int width, uint64_t value)
{
	while (width--) {
		at[width] = value;
		value >>= 8;
	}
}

static uint64_t header(const struct golden *g, size_t field, unsigned int width)
{
	return get_be(g->bytes + field, width);
}

static uint64_t header_length(const struct golden *g)
{
	return header(g, AT(version), 4) == 2 ? HEADER_V2_LENGTH : header(g, AT(header_length), 4);
}

static uint64_t word(const struct golden *g, uint64_t off)
{
	return get_be(g->bytes + off, 8);
}

static void set_word(struct golden *g, uint64_t off, uint64_t value)
{
	put_be(g->bytes + off, 8, value);
}

/* Where the end marker of the extensions stands; with MAGIC, the first extension of that name. */
static uint64_t ext_find(const struct golden *g, uint32_t magic)
{
	uint64_t at = header_length(g);

	while (at + 8 <= g->cluster_size) {
		uint32_t found = get_be(g->bytes + at, 4), len = get_be(g->bytes + at + 4, 4);

		if (found == magic)
			return at;
		if (found == EXT_END)
			return 0;
		at += 8 + align_up(len, 8);
	}
	return 0;
}

static void ext_add(struct golden *g, uint32_t magic, const void *data, uint32_t len)
{
	uint64_t at = ext_find(g, EXT_END);

	assert(at && at + 24 + align_up(len, 8) <= g->cluster_size);
	put_be(g->bytes + at, 4, magic);
	put_be(g->bytes + at + 4, 4, len);
	memset(g->bytes + at + 8, 0, align_up(len, 8) + 8);
	memcpy(g->bytes + at + 8, data, len);
}

static void ext_remove(struct golden *g, uint32_t magic)
{
	uint64_t at = ext_find(g, magic), len = 8 + align_up(get_be(g->bytes + at + 4, 4), 8);

	assert(at);
	memmove(g->bytes + at, g->bytes + at + len, g->cluster_size - at - len);
	memset(g->bytes + g->cluster_size - len, 0, len);
}

/* Sets the refcount of a cluster that has a refcount block. */
static void set_ref(struct golden *g, uint64_t cluster, uint64_t count)
{
	unsigned int order = header(g, AT(version), 4) == 2 ? 4 : header(g, AT(refcount_order), 4);
	unsigned int bits = 1u << order;
	uint64_t per = g->cluster_size * 8 / bits;
	uint64_t table = header(g, AT(refcount_table_offset), 8);
	uint64_t block = word(g, table + 8 * (cluster / per)), i = cluster % per;

	assert(block);
	if (bits >= 8) {
		put_be(g->bytes + block + i * bits / 8, bits / 8, count);
	} else {
		uint8_t mask = ((1u << bits) - 1) << (i * bits % 8);
		uint8_t *at = g->bytes + block + i * bits / 8;

		*at = (*at & ~mask) | (uint8_t)(count << (i * bits % 8));
	}
}

/* Appends NR zeroed clusters with refcount 1; returns their offset. */
static uint64_t grow(struct golden *g, uint64_t nr)
{
	uint64_t off = align_up(g->size, g->cluster_size);

	g->size = off + nr * g->cluster_size;
	assert(g->size <= g->cap);
	for (uint64_t i = 0; i < nr; i++)
		set_ref(g, off / g->cluster_size + i, 1);
	return off;
}

/* Returns the offset of the L2 entry of a cluster of the disk, whose L2 table must exist. */
static uint64_t l2_place(const struct golden *g, uint64_t cluster)
{
	uint64_t per = g->cluster_size / 8;
	uint64_t l1 = word(g, header(g, AT(l1_table_offset), 8) + 8 * (cluster / per));

	assert(l1 & L1E_OFFSET_MASK);
	return (l1 & L1E_OFFSET_MASK) + 8 * (cluster % per);
}

static void add_region(struct golden *g, uint64_t off, uint64_t len, uint32_t step, uint32_t widths)
{
	if (off >= g->size || !len)
		return;
	if (len > g->size - off)
		len = g->size - off;
	assert(g->nr_regions < MAX_REGIONS);
	g->region[g->nr_regions++] = (struct region){ off, len, step, widths };
}

/* Adds a table of LEN bytes, of which the first USED are in use. */
static void add_table(struct golden *g, uint64_t off, uint64_t len, uint64_t used, uint32_t width)
{
	uint64_t n = len <= WHOLE_STEP ? len : used + 16 < len ? used + 16 : len;

	add_region(g, off, n, width, width);
}

/* Returns the number of bytes up to the last one that is not zero. */
static uint64_t in_use(const struct golden *g, uint64_t off, uint64_t len)
{
	while (len && !g->bytes[off + len - 1])
		len--;
	return align_up(len, 8);
}

static void add_l1(struct golden *g, uint64_t l1, uint64_t entries)
{
	add_table(g, l1, align_up(entries * 8, 8), entries * 8, 8);
	for (uint64_t i = 0; i < entries; i++) {
		uint64_t l2 = word(g, l1 + 8 * i) & L1E_OFFSET_MASK;

		if (l2)
			add_table(g, l2, g->cluster_size, in_use(g, l2, g->cluster_size), 8);
	}
}

static void find_regions(struct golden *g, uint64_t wp_off, uint64_t zones)
{
	unsigned int order = header(g, AT(version), 4) == 2 ? 4 : header(g, AT(refcount_order), 4);
	uint64_t table = header(g, AT(refcount_table_offset), 8), end = ext_find(g, EXT_END) + 16;
	uint64_t len = header(g, AT(refcount_table_clusters), 4) * g->cluster_size;
	uint64_t blocks = in_use(g, table, len) / 8;
	uint32_t width = order < 4 ? 2 : (1u << order) / 8;

	/* The header's fields and those of the extensions stand at multiples of 4. */
	add_region(g, 0, end, 4, 2 | 4 | 8);
	add_table(g, table, len, 8 * blocks, 8);
	for (uint64_t i = 0; i < blocks; i++) {
		uint64_t off = word(g, table + 8 * i) & REFTABLE_OFFSET_MASK;

		/* Of many blocks, the first and the last two are enough. */
		if (off && (i < 1 || i + 2 >= blocks))
			add_table(g, off, g->cluster_size, in_use(g, off, g->cluster_size), width);
	}
	add_l1(g, header(g, AT(l1_table_offset), 8), header(g, AT(l1_size), 4));
	if (zones)
		add_table(g, wp_off, 8 * zones, 8 * zones, 8);
}

/* Fills BUF with bytes that compress well and depend on their offset. */
static void fill(uint8_t *buf, uint64_t off, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (off + i) / 512 * 7 + (i % 16 == 3) + 1;
}

static void put(struct qcow2 *q, uint64_t off, uint64_t len)
{
	uint8_t *buf = malloc(len);
	int err;

	assert(buf);
	fill(buf, off, len);
	err = qcow2_write(q, buf, off, len, 0);
	assert(!err);
	(void)err;
	free(buf);
}

static void use_zone(struct qcow2 *q, uint32_t zone, uint64_t len)
{
	const struct qcow2_zoned *z = &qcow2_info(q)->zoned;

	put(q, zone * z->zone_size, len);
	if (zone >= z->conventional_zones)
		qcow2_wp_advance(q, zone, zone * z->zone_size + len);
}

/* Zone 0 may be conventional, 1 is full, 2 partly written, 3 reset, 4 finished, 5 empty. */
static void use_zones(struct qcow2 *q)
{
	const struct qcow2_zoned *z = &qcow2_info(q)->zoned;
	int err = 0;

	use_zone(q, 0, 1536);
	use_zone(q, 1, z->zone_capacity);
	use_zone(q, 2, 1024);
	use_zone(q, 3, 2048);
	err |= qcow2_flush(q);
	err |= qcow2_zone_reset(q, 3);
	use_zone(q, 4, 512);
	err |= qcow2_flush(q);
	err |= qcow2_zone_finish(q, 4, 4 * z->zone_size + 512);
	assert(!err);
}

static void use_disk(struct qcow2 *q)
{
	uint64_t cs = 1ull << qcow2_info(q)->cluster_bits;

	put(q, 0, 3 * cs);
	put(q, 5 * cs + 512 % cs, cs);
	put(q, qcow2_info(q)->size - 2 * cs, 2 * cs);
}

/* Edits */

static void edit_layout(struct golden *g, struct qcow2_zoned z, enum qcow2_zone_layout layout,
			int marker, bool little_endian)
{
	uint8_t ext[ZONED_EXT_MAX];

	ext_remove(g, EXT_ZONED);
	z.layout = layout;
	ext_add(g, EXT_ZONED, ext, layout_encode(&z, ext));
	for (uint32_t i = 0; i < z.nr_zones; i++) {
		uint64_t at = z.zonedmeta_offset + 8ull * i, wp = word(g, at) & WP_MASK;

		if (i < z.conventional_zones)
			wp |= 1ull << marker;
		set_word(g, at, little_endian ? __builtin_bswap64(wp) : wp);
	}
}

static void edit_l56_le(struct golden *g, const struct qcow2_zoned *z)
{
	edit_layout(g, *z, QCOW2_LAYOUT_L56, 59, true);
}

static void edit_l56_be(struct golden *g, const struct qcow2_zoned *z)
{
	edit_layout(g, *z, QCOW2_LAYOUT_L56, 59, false);
}

static void edit_l48b(struct golden *g, const struct qcow2_zoned *z)
{
	edit_layout(g, *z, QCOW2_LAYOUT_L48B, 63, false);
}

static void edit_v13(struct golden *g, const struct qcow2_zoned *z)
{
	edit_layout(g, *z, QCOW2_LAYOUT_V11, 63, false);
}

static size_t pack(bool zstd, uint8_t *out, size_t cap, const uint8_t *in, size_t len)
{
	z_stream s = { .next_in = (Bytef *)in, .avail_in = len, .next_out = out, .avail_out = cap };
	size_t n;

	if (zstd) {
		n = ZSTD_compress(out, cap, in, len, 1);
		assert(!ZSTD_isError(n));
		return n;
	}
	deflateInit2(&s, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY);
	deflate(&s, Z_FINISH);
	n = s.total_out;
	deflateEnd(&s);
	return n;
}

/* Compresses clusters 1 and 2 of the disk into the host cluster of 1. */
static void edit_compress(struct golden *g, const struct qcow2_zoned *z)
{
	bool zstd = header(g, AT(compression_type), 1) == QCOW2_ZSTD;
	unsigned int shift = 62 - (__builtin_ctzll(g->cluster_size) - 8);
	uint64_t host = word(g, l2_place(g, 1)) & L2E_OFFSET_MASK, at = host;
	uint64_t second = word(g, l2_place(g, 2)) & L2E_OFFSET_MASK;
	uint8_t out[4096];

	(void)z;
	for (uint64_t c = 1; c <= 2; c++) {
		uint64_t from = word(g, l2_place(g, c)) & L2E_OFFSET_MASK;
		size_t n = pack(zstd, out, sizeof(out), g->bytes + from, g->cluster_size);
		uint64_t sectors = (at % 512 + n + 511) / 512;

		assert(at + n <= host + g->cluster_size);
		memcpy(g->bytes + at, out, n);
		set_word(g, l2_place(g, c), L2E_COMPRESSED | (sectors - 1) << shift | at);
		add_region(g, at, n < 64 ? n : 64, 4, 4);
		at += n;
	}
	memset(g->bytes + at, 0, host + g->cluster_size - at);
	memset(g->bytes + second, 0, g->cluster_size);
	set_ref(g, host / g->cluster_size, 2);
	set_ref(g, second / g->cluster_size, 0);
}

/* Makes cluster 0 of the disk a zero cluster with an allocation, and 1 one without. */
static void edit_zeroes(struct golden *g, const struct qcow2_zoned *z)
{
	uint64_t gone = word(g, l2_place(g, 1)) & L2E_OFFSET_MASK;

	(void)z;
	set_word(g, l2_place(g, 0), word(g, l2_place(g, 0)) | L2E_ZERO);
	set_word(g, l2_place(g, 1), L2E_ZERO);
	set_ref(g, gone / g->cluster_size, 0);
}

/* Adds two snapshots: one of the present disk, which shares its L2 tables, one of an empty disk. */
static void edit_snapshots(struct golden *g, const struct qcow2_zoned *z)
{
	uint64_t l1 = header(g, AT(l1_table_offset), 8), n = header(g, AT(l1_size), 4);
	uint64_t copy = grow(g, 1), empty = grow(g, 1), table = grow(g, 1);
	uint8_t *s = g->bytes + table;

	(void)z;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t l2 = word(g, l1 + 8 * i) & L1E_OFFSET_MASK;

		set_word(g, l1 + 8 * i, l2);
		set_word(g, copy + 8 * i, l2);
		if (l2)
			set_ref(g, l2 / g->cluster_size, 2);
		for (uint64_t k = 0; l2 && k < g->cluster_size / 8; k++) {
			uint64_t data = word(g, l2 + 8 * k) & L2E_OFFSET_MASK;

			set_word(g, l2 + 8 * k, data);
			if (data)
				set_ref(g, data / g->cluster_size, 2);
		}
	}
	for (int i = 0; i < 2; i++) {
		put_be(s, 8, i ? empty : copy);
		put_be(s + 8, 4, n);
		put_be(s + 12, 2, 1); /* id */
		put_be(s + 14, 2, 5); /* name */
		put_be(s + 36, 4, 16);
		put_be(s + 48, 8, header(g, AT(size), 8));
		memcpy(s + 56, i ? "2empty" : "1first", 6);
		s += 64;
	}
	put_be(g->bytes + AT(nb_snapshots), 4, 2);
	put_be(g->bytes + AT(snapshots_offset), 8, table);
	add_region(g, table, 128, 2, 2 | 4 | 8);
	add_table(g, copy, 8 * n, 8 * n, 8);
	add_table(g, empty, 8 * n, 8 * n, 8);
}

/* Adds a persistent bitmap with a cluster of data. */
static void edit_bitmaps(struct golden *g, const struct qcow2_zoned *z)
{
	uint64_t dir = grow(g, 1), table = grow(g, 1), data = grow(g, 1);
	uint8_t ext[24] = { 0 }, *b = g->bytes + dir;

	(void)z;
	put_be(b, 8, table);
	put_be(b + 8, 4, 1);
	put_be(b + 12, 4, 2); /* auto */
	b[16] = 1;
	b[17] = 16;
	put_be(b + 18, 2, 3);
	memcpy(b + 24, "map", 3);
	set_word(g, table, data);
	put_be(ext, 4, 1);
	put_be(ext + 8, 8, 32);
	put_be(ext + 16, 8, dir);
	ext_add(g, EXT_BITMAPS, ext, sizeof(ext));
	put_be(g->bytes + AT(autoclear_features), 8, AUTOCLEAR_BITMAPS);
	add_region(g, dir, 32, 2, 2 | 4 | 8);
	add_table(g, table, 8, 8, 8);
}

/* Adds unknown extensions before and after the others, one of them empty. */
static void edit_unknown(struct golden *g, const struct qcow2_zoned *z)
{
	(void)z;
	ext_add(g, 0x12345678, "what is this", 12);
	ext_add(g, 0x9abcdef0, "", 0);
	ext_add(g, 0x00000001, "0123456789abcdef", 16);
}

/* Adds names of other files, and the extension of an encryption header. */
static void edit_names(struct golden *g, const struct qcow2_zoned *z)
{
	static const char name[] = "json:{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}";
	uint8_t crypto[16];
	uint64_t at;

	(void)z;
	put_be(crypto, 8, grow(g, 1));
	put_be(crypto + 8, 8, g->cluster_size);
	ext_add(g, EXT_BACKING_FORMAT, "raw", 3);
	ext_add(g, EXT_DATA_FILE, name, sizeof(name) - 1);
	ext_add(g, EXT_CRYPTO, crypto, sizeof(crypto));
	at = ext_find(g, EXT_END) + 8;
	memcpy(g->bytes + at, name, sizeof(name) - 1);
	put_be(g->bytes + AT(backing_file_offset), 8, at);
	put_be(g->bytes + AT(backing_file_size), 4, sizeof(name) - 1);
	put_be(g->bytes + AT(crypt_method), 4, 2);
}

/* Makes it version 2: the header ends before the feature bits, and the extensions move there. */
static void edit_v2(struct golden *g, const struct qcow2_zoned *z)
{
	(void)z;
	memset(g->bytes + HEADER_V2_LENGTH, 0, g->cluster_size - HEADER_V2_LENGTH);
	put_be(g->bytes + AT(version), 4, 2);
	ext_add(g, EXT_BACKING_FORMAT, "qcow2", 5);
}

static void edit_marked(struct golden *g, const struct qcow2_zoned *z)
{
	(void)z;
	put_be(g->bytes + AT(incompatible_features), 8,
	       header(g, AT(incompatible_features), 8) | INCOMPAT_DIRTY | INCOMPAT_CORRUPT);
	put_be(g->bytes + AT(autoclear_features), 8, 1ull << 40);
}

/* Adds free space up to just below the size at which the refcount table must grow. */
static void edit_grow(struct golden *g, const struct qcow2_zoned *z)
{
	uint64_t per_block = g->cluster_size / 8, blocks = g->cluster_size / 8;

	(void)z;
	g->size = (per_block * blocks - 2) * g->cluster_size;
	assert(g->size <= g->cap);
}

/* Makes it an image with extended L2 entries, which need no change while the tables are empty. */
static void edit_extl2(struct golden *g, const struct qcow2_zoned *z)
{
	uint64_t l1 = header(g, AT(l1_table_offset), 8), l2 = grow(g, 1), data = grow(g, 2);

	(void)z;
	put_be(g->bytes + AT(incompatible_features), 8, INCOMPAT_EXTL2);
	put_be(g->bytes + AT(l1_size), 4, 2);
	set_word(g, l1, l2 | ENTRY_COPIED);
	for (int i = 0; i < 2; i++) {
		set_word(g, l2 + 16 * i, (data + i * g->cluster_size) | ENTRY_COPIED);
		set_word(g, l2 + 16 * i + 8, 0xffffffffull << (32 * i));
	}
}

struct recipe {
	const char *name;
	uint32_t cluster_size, refcount_bits;
	uint64_t size;
	enum qcow2_compression compression;
	struct qcow2_zoned zone; /* zone_size 0: not zoned */
	bool unused;		 /* no workload */
	bool no_serve, no_write;
	void (*edit)(struct golden *g, const struct qcow2_zoned *z);
};

#define ZONES(conv)                                                                                \
	{                                                                                          \
		.zone_size = 4 * KIB, .zone_capacity = 3 * KIB, .max_append_bytes = 1024,          \
		.conventional_zones = (conv), .max_open_zones = 3, .max_active_zones = 4           \
	}
#define BIG_ZONES(size)                                                                            \
	{                                                                                          \
		.zone_size = (size), .zone_capacity = (size) / 4 * 3, .max_append_bytes = 4096     \
	}

static const struct recipe recipes[] = {
	{ "v11", 512, 16, 32 * KIB, .zone = ZONES(1) },
	{ "v11-seq", 1024, 16, 32 * KIB, .zone = ZONES(0), .edit = edit_unknown },
	{ "v11-short", 512, 16, 27 * KIB, .zone = ZONES(1) },
	{ "v13", 512, 8, 32 * KIB, .zone = ZONES(2), .edit = edit_v13 },
	{ "latest", 512, 16, 32 * KIB,
	  .zone = { .layout = QCOW2_LAYOUT_LATEST,
		    .zone_size = 4 * KIB,
		    .zone_capacity = 3 * KIB,
		    .conventional_zones = 1 } },
	{ "v8-le", 512, 16, 32 * KIB, .zone = ZONES(1), .no_write = true, .edit = edit_l56_le },
	{ "v8-be", 512, 4, 32 * KIB, .zone = ZONES(1), .edit = edit_l56_be },
	{ "v11b", 512, 16, 32 * KIB, .zone = ZONES(1), .edit = edit_l48b },
	{ "v11-4k", 4096, 16, 128 * KIB, .zone = BIG_ZONES(16 * KIB) },
	{ "v11-64k", 65536, 16, 512 * KIB, .zone = BIG_ZONES(64 * KIB) },
	{ "zlib", 4096, 16, 128 * KIB, .zone = BIG_ZONES(16 * KIB), .edit = edit_compress },
	{ "zstd", 4096, 16, 64 * KIB, .compression = QCOW2_ZSTD, .edit = edit_compress },
	{ "zeroes", 512, 1, 32 * KIB, .zone = ZONES(0), .edit = edit_zeroes },
	{ "grow", 512, 64, 32 * KIB, .zone = ZONES(1), .edit = edit_grow },
	{ "ref2", 512, 2, 32 * KIB, .edit = NULL },
	{ "ref32", 512, 32, 32 * KIB, .edit = edit_zeroes },
	{ "snapshots", 512, 16, 16 * KIB, .no_write = true, .edit = edit_snapshots },
	{ "bitmaps", 512, 16, 16 * KIB, .edit = edit_bitmaps },
	{ "names", 512, 16, 16 * KIB, .no_serve = true, .edit = edit_names },
	{ "v2", 512, 16, 32 * KIB, .edit = edit_v2 },
	{ "marked", 512, 16, 16 * KIB, .no_write = true, .edit = edit_marked },
	{ "extl2", 16384, 16, 64 * KIB, .unused = true, .no_serve = true, .edit = edit_extl2 },
};

static struct ramdisk *create(const struct recipe *r)
{
	struct qcow2_create_opts o = {
		.size = r->size,
		.cluster_size = r->cluster_size,
		.refcount_bits = r->refcount_bits,
		.compression = r->compression,
		.uuid = "golden image 16",
		.zoned = r->zone.zone_size != 0,
		.zone = r->zone,
	};
	struct ramdisk *d = ram_new(BUILD_CAP);
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];

	if (qcow2_create(r->name, &o, ram_open(d), warn, err)) {
		fprintf(stderr, "golden %s: %s\n", r->name, err);
		abort();
	}
	return d;
}

static struct qcow2 *open_on(const struct recipe *r, struct ramdisk *d, unsigned int flags)
{
	struct qcow2_open_opts o = { .flags = flags, .file = ram_open(d) };
	char err[QCOW2_ERRLEN];
	struct qcow2 *q = NULL;

	if (qcow2_open(r->name, &o, &q, err)) {
		fprintf(stderr, "golden %s: %s\n", r->name, err);
		abort();
	}
	return q;
}

static void say(void *arg, const char *line)
{
	fprintf(stderr, "golden %s: %s\n", (const char *)arg, line);
}

/* Asserts that the golden image is sound. */
static void verify(const struct recipe *r, const struct golden *g)
{
	struct qcow2_check_result res = { 0 };
	struct ramdisk *d = ram_new(BUILD_CAP);
	struct qcow2 *q;

	memcpy(d->bytes, g->bytes, g->size);
	d->size = g->size;
	q = open_on(r, d, QCOW2_RDONLY | QCOW2_INSPECT);
	if (qcow2_check(q, &res, say, (void *)r->name) || res.corruptions || res.leaks ||
	    res.check_errors)
		abort();
	qcow2_close(q);
	if (!r->no_serve)
		qcow2_close(open_on(r, d, QCOW2_RDONLY));
	if (!r->no_write && !r->no_serve)
		qcow2_close(open_on(r, d, 0));
	ram_free(d);
}

static void make(const struct recipe *r, struct golden *g)
{
	struct ramdisk *d = create(r);
	struct qcow2 *q = open_on(r, d, 0);
	struct qcow2_zoned z = qcow2_info(q)->zoned;

	if (!r->unused && z.layout)
		use_zones(q);
	else if (!r->unused)
		use_disk(q);
	if (qcow2_close(q))
		abort();
	*g = (struct golden){
		.name = r->name,
		.size = d->size,
		.cap = align_up(d->size, r->cluster_size) + MAX_GROWTH,
		.cluster_size = r->cluster_size,
		.writable = !r->no_write && !r->no_serve,
		.servable = !r->no_serve,
	};
	g->bytes = calloc(1, g->cap);
	assert(g->bytes);
	memcpy(g->bytes, d->bytes, d->size);
	ram_free(d);
	if (r->edit)
		r->edit(g, &z);
	find_regions(g, z.zonedmeta_offset, z.nr_zones);
	verify(r, g);
}

size_t goldens(const struct golden **out)
{
	static struct golden all[sizeof(recipes) / sizeof(recipes[0])];
	static bool made;

	for (size_t i = 0; !made && i < sizeof(recipes) / sizeof(recipes[0]); i++)
		make(&recipes[i], &all[i]);
	made = true;
	*out = all;
	return sizeof(recipes) / sizeof(recipes[0]);
}

const struct golden *golden_find(const char *name)
{
	const struct golden *all;
	size_t nr = goldens(&all);

	for (size_t i = 0; i < nr; i++)
		if (!strcmp(all[i].name, name))
			return &all[i];
	return NULL;
}
