/* SPDX-License-Identifier: MIT */
/*
 * Bugs that qcow2 programs had, each as a named case, and bombs: small files with huge claims. All
 * must keep the rules of judge.c. What must be refused is refused with a sentence.
 *
 * Of the series CVE-2014-0142 to 0150, 0143 to 0147 are of qcow2. 0142 (a division by zero in the
 * geometry of parallels images) and 0148 (an endless loop in vhdx) have similar cases here; 0150 is
 * of a network card. 0222 and 0223 were found in the first version of qcow.
 */
#include <sys/inotify.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

#include "../tally.h"
#include "../unit/qcow2/common.h"
#include "golden.h"
#include "judge.h"

#define F(field)   offsetof(struct disk_header, field), sizeof(((struct disk_header *)0)->field)
#define BOMB_CAP   (8ull << 30)
#define MAX_EDITS  6
#define EVERYWHERE (JUDGE_READ | JUDGE_WRITE)

struct edit {
	uint64_t off;
	unsigned int width;
	uint64_t value;
};

struct row {
	const char *name, *golden;
	const char *refusal; /* part of the sentence; NULL: it may open, and must keep the rules */
	struct edit edit[MAX_EDITS];
};

/* Places in the golden image "v11", see find() for the others. */

#define IN_ZONED(field)                                                                            \
	(1ull << 60) + offsetof(struct disk_zoned_l48a, field),                                    \
		sizeof(((struct disk_zoned_l48a *)0)->field)
#define IN_L1(i)       (2ull << 60) + 8 * (i), 8
#define IN_REFTABLE(i) (3ull << 60) + 8 * (i), 8
#define IN_L2(i)       (4ull << 60) + 8 * (i), 8
#define IN_WP(i)       (5ull << 60) + 8 * (i), 8
#define IN_SNAPSHOT(f)                                                                             \
	(6ull << 60) + offsetof(struct disk_snapshot, f), sizeof(((struct disk_snapshot *)0)->f)

static uint64_t field(const struct ramdisk *d, size_t off, unsigned int width)
{
	return get_be(d->bytes + off, width);
}

static uint64_t resolve(const struct ramdisk *d, uint64_t off)
{
	uint64_t at = HEADER_LENGTH, rest = off & ((1ull << 60) - 1);

	switch (off >> 60) {
	case 1:
		while (get_be(d->bytes + at, 4) != EXT_ZONED)
			at += 8 + align_up(get_be(d->bytes + at + 4, 4), 8);
		return at + 8 + rest;
	case 2:
		return field(d, F(l1_table_offset)) + rest;
	case 3:
		return field(d, F(refcount_table_offset)) + rest;
	case 4:
		return (get_be(d->bytes + field(d, F(l1_table_offset)), 8) & L1E_OFFSET_MASK) +
		       rest;
	case 5:
		return get_be(d->bytes + resolve(d, (1ull << 60) + 40), 8) + rest;
	case 6:
		return field(d, F(snapshots_offset)) + rest;
	default:
		return off;
	}
}

static struct ramdisk *copy_of(const char *golden)
{
	const struct golden *g = golden_find(golden);
	struct ramdisk *d = ram_new(BOMB_CAP);

	assert_non_null(g);
	memcpy(d->bytes, g->bytes, g->size);
	d->size = g->size;
	return d;
}

static void set(struct ramdisk *d, uint64_t off, unsigned int width, uint64_t value)
{
	put_be(d->bytes + resolve(d, off), width, value);
}

static struct {
	unsigned int images, opens;
	double seconds;
	size_t bytes;
} tried;

static void behaves(struct ramdisk *d, const char *name, unsigned int what)
{
	struct verdict v;

	alarm(60);
	judge(d, what, &v);
	alarm(0);
	if (v.broken)
		fail_msg("%s: %s", name, v.why);
	tried.images++;
	tried.opens += v.opens;
	if (v.seconds > tried.seconds)
		tried.seconds = v.seconds;
	if (v.bytes > tried.bytes)
		tried.bytes = v.bytes;
	if (getenv("VERBOSE"))
		print_message("%s: %u of %u opens, %.3f s, %zu KiB\n", name, v.succeeded, v.opens,
			      v.seconds, v.bytes >> 10);
}

static void run_rows(const struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct ramdisk *d = copy_of(rows[i].golden ? rows[i].golden : "v11");
		char err[QCOW2_ERRLEN] = "";

		for (int k = 0; k < MAX_EDITS && rows[i].edit[k].width; k++)
			set(d, rows[i].edit[k].off, rows[i].edit[k].width, rows[i].edit[k].value);
		if (rows[i].refusal) {
			if (!open_refused(d, QCOW2_RDONLY, err))
				fail_msg("%s: it opened", rows[i].name);
			if (!strstr(err, rows[i].refusal))
				fail_msg("%s: \"%s\" should say \"%s\"", rows[i].name, err,
					 rows[i].refusal);
		}
		behaves(d, rows[i].name, EVERYWHERE);
		ram_free(d);
	}
}

#define RUN(rows) run_rows(rows, sizeof(rows) / sizeof((rows)[0]))

static void cve_2014_0142_divisions_by_zero(void **state)
{
	static const struct row rows[] = {
		{ "cluster_bits 0", NULL, "cluster_bits", { { F(cluster_bits), 0 } } },
		{ "cluster_bits 8", NULL, "cluster_bits", { { F(cluster_bits), 8 } } },
		{ "cluster_bits 22", NULL, "cluster_bits", { { F(cluster_bits), 22 } } },
		{ "cluster_bits 64", NULL, "cluster_bits", { { F(cluster_bits), 64 } } },
		{ "zone_size 0", NULL, "zone_size", { { IN_ZONED(zone_size), 0 } } },
		{ "zone_size 1", NULL, "zone_size", { { IN_ZONED(zone_size), 1 } } },
		{ "zone_capacity 0", NULL, "zone_capacity", { { IN_ZONED(zone_capacity), 0 } } },
		{ "nr_zones 0", NULL, "nr_zones", { { IN_ZONED(nr_zones), 0 } } },
		{ "size 0", NULL, "size", { { F(size), 0 } } },
		{ "refcount_order 64", NULL, "refcount_order", { { F(refcount_order), 64 } } },
	};

	(void)state;
	RUN(rows);
}

static void cve_2014_0143_integer_overflows(void **state)
{
	static const struct row rows[] = {
		{ "the largest cluster number (get_refcount)",
		  NULL,
		  NULL,
		  { { IN_L2(0), L2E_OFFSET_MASK | ENTRY_COPIED } } },
		{ "and compressed", NULL, NULL, { { IN_L2(0), ~ENTRY_COPIED } } },
		{ "an L1 entry's", NULL, NULL, { { IN_L1(0), L1E_OFFSET_MASK | ENTRY_COPIED } } },
		{ "l1_size 0x20000000", NULL, "l1_size", { { F(l1_size), 0x20000000 } } },
		{ "l1_size 0xffffffff", NULL, "l1_size", { { F(l1_size), 0xffffffff } } },
		{ "a snapshot's l1_size (snapshot_load_tmp)",
		  "snapshots",
		  NULL,
		  { { IN_SNAPSHOT(l1_size), 0x20000000 } } },
		{ "and all of it", "snapshots", NULL, { { IN_SNAPSHOT(l1_size), 0xffffffff } } },
		{ "size + cluster size", NULL, "size", { { F(size), UINT64_MAX } } },
		{ "size 2^63", NULL, "size", { { F(size), 1ull << 63 } } },
		{ "zonedmeta_offset + its length",
		  NULL,
		  "beyond the end",
		  { { IN_ZONED(zonedmeta_offset), ~511ull } } },
	};

	(void)state;
	RUN(rows);
}

static void cve_2014_0144_header_fields_that_were_believed(void **state)
{
	static const struct row rows[] = {
		{ "header_length 0", NULL, "header_length", { { F(header_length), 0 } } },
		{ "header_length 103", NULL, "header_length", { { F(header_length), 103 } } },
		{ "header_length 513", NULL, "header_length", { { F(header_length), 513 } } },
		{ "header_length 2^32-1",
		  NULL,
		  "header_length",
		  { { F(header_length), 0xffffffff } } },
		{ "backing_file_offset in the header",
		  NULL,
		  "backing_file_offset",
		  { { F(backing_file_offset), 8 }, { F(backing_file_size), 8 } } },
		{ "backing_file_size larger than the cluster",
		  NULL,
		  "backing_file_offset",
		  { { F(backing_file_offset), 200 }, { F(backing_file_size), 559 } } },
		{ "backing_file_offset beyond the cluster",
		  NULL,
		  "backing_file_offset",
		  { { F(backing_file_offset), 512 }, { F(backing_file_size), 8 } } },
		{ "backing_file_offset -1",
		  NULL,
		  "backing_file_offset",
		  { { F(backing_file_offset), UINT64_MAX }, { F(backing_file_size), 1023 } } },
		{ "backing_file_size 2^32-1",
		  NULL,
		  "backing_file_size",
		  { { F(backing_file_offset), 400 }, { F(backing_file_size), 0xffffffff } } },
		{ "l1_table_offset not aligned",
		  NULL,
		  "l1_table_offset",
		  { { F(l1_table_offset), 513 } } },
		{ "l1_table_offset 0", NULL, "l1_table_offset", { { F(l1_table_offset), 0 } } },
		{ "l1_table_offset beyond the end",
		  NULL,
		  "l1_table_offset",
		  { { F(l1_table_offset), 1ull << 40 } } },
		{ "l1_table_offset -512",
		  NULL,
		  "l1_table_offset",
		  { { F(l1_table_offset), ~511ull } } },
		{ "refcount_table_offset not aligned",
		  NULL,
		  "refcount_table_offset",
		  { { F(refcount_table_offset), 0x201 } } },
		{ "refcount_table_offset -512",
		  NULL,
		  "refcount_table_offset",
		  { { F(refcount_table_offset), ~511ull } } },
		{ "refcount_table_clusters 0",
		  NULL,
		  "refcount_table_clusters",
		  { { F(refcount_table_clusters), 0 } } },
		{ "refcount_table_clusters 2^31",
		  NULL,
		  "refcount_table_clusters",
		  { { F(refcount_table_clusters), 1u << 31 } } },
		{ "refcount_table_clusters 2^32-1",
		  NULL,
		  "refcount_table_clusters",
		  { { F(refcount_table_clusters), 0xffffffff } } },
		{ "nb_snapshots 2^32-1",
		  NULL,
		  "nb_snapshots",
		  { { F(nb_snapshots), 0xffffffff } } },
		{ "snapshots_offset not aligned",
		  "snapshots",
		  "snapshots_offset",
		  { { F(snapshots_offset), 0x201 } } },
		{ "snapshots_offset -512",
		  "snapshots",
		  "snapshots_offset",
		  { { F(snapshots_offset), ~511ull } } },
		{ "snapshots_offset beyond the end",
		  "snapshots",
		  "snapshots_offset",
		  { { F(snapshots_offset), 1ull << 32 } } },
		{ "compression_type 255",
		  NULL,
		  "compression_type",
		  { { F(compression_type), 255 } } },
		{ "version 1", NULL, "version", { { F(version), 1 } } },
		{ "version 4", NULL, "version", { { F(version), 4 } } },
	};

	(void)state;
	RUN(rows);
}

/* QEMU loaded a snapshot's L1 table into a buffer of the active one's size. */
static void cve_2014_0145_a_snapshot_with_a_longer_l1_table(void **state)
{
	static const struct row rows[] = {
		{ "65536 entries", "snapshots", NULL, { { IN_SNAPSHOT(l1_size), 65536 } } },
		{ "one cluster more", "snapshots", NULL, { { IN_SNAPSHOT(l1_size), 65 } } },
		{ "at the end", "snapshots", NULL, { { IN_SNAPSHOT(l1_table_offset), 7168 } } },
		{ "at the active one",
		  "snapshots",
		  NULL,
		  { { IN_SNAPSHOT(l1_table_offset), 0x800 } } },
		{ "extra data 2^32-1",
		  "snapshots",
		  NULL,
		  { { IN_SNAPSHOT(extra_data_size), 0xffffffff } } },
		{ "names of 65535",
		  "snapshots",
		  NULL,
		  { { IN_SNAPSHOT(id_str_size), 0xffff }, { IN_SNAPSHOT(name_size), 0xffff } } },
	};

	(void)state;
	RUN(rows);
}

struct failing {
	unsigned int left; /* reads that succeed */
	bool hit;
};

static int fail_read(void *arg, const struct ram_op *op)
{
	struct failing *f = arg;

	if (op->call != RAM_READ || f->left--)
		return 0;
	f->hit = true;
	return -EIO;
}

/* The error path of open in QEMU used tables that were not loaded yet. */
static void cve_2014_0146_every_read_of_an_open_may_fail(void **state)
{
	static const char *const names[] = { "v11", "v8-le", "snapshots", "zstd", "v2", "names" };

	(void)state;
	for (size_t g = 0; g < sizeof(names) / sizeof(names[0]); g++)
		for (unsigned int flags = 0; flags < 3; flags++) {
			unsigned int open_flags = flags == 0   ? 0
						  : flags == 1 ? QCOW2_RDONLY
							       : QCOW2_RDONLY | QCOW2_INSPECT;
			struct ramdisk *d = copy_of(names[g]);
			struct failing f = { .hit = true };

			d->hook = fail_read;
			d->hook_arg = &f;
			for (unsigned int n = 0; f.hit; n++) {
				char err[QCOW2_ERRLEN] = "";

				f = (struct failing){ .left = n };
				assert_true(n < 100);
				if (!open_refused(d, open_flags, err))
					continue;
				assert_true(strlen(err) > 20);
				assert_int_equal(d->open_files, 0);
			}
			ram_free(d);
		}
}

static void cve_2014_0147_refcount_blocks_that_are_not(void **state)
{
	static const struct row rows[] = {
		{ "there is none", NULL, NULL, { { IN_REFTABLE(0), 0 } } },
		{ "it is the header", NULL, NULL, { { IN_REFTABLE(0), 1 } } },
		{ "it is the table", NULL, NULL, { { IN_REFTABLE(0), 0x200 } } },
		{ "it is the next in the file", NULL, NULL, { { IN_REFTABLE(1), 0x4800 } } },
		{ "it is far away", NULL, NULL, { { IN_REFTABLE(0), ~511ull } } },
		{ "it is not aligned", "v11-4k", NULL, { { IN_REFTABLE(0), 0x2200 } } },
		{ "it is there twice", NULL, NULL, { { IN_REFTABLE(1), 0x400 } } },
		{ "it is the write-pointer table", NULL, NULL, { { IN_REFTABLE(0), 0x600 } } },
		{ "it counts nothing",
		  NULL,
		  NULL,
		  { { 0x400, 8, 0 }, { 0x408, 8, 0 }, { 0x410, 8, 0 }, { 0x418, 8, 0 } } },
		{ "it counts as far as it can",
		  NULL,
		  NULL,
		  { { 0x400, 8, ~0ull }, { 0x408, 8, ~0ull }, { 0x410, 8, ~0ull } } },
	};

	(void)state;
	RUN(rows);
}

static void cve_2014_0148_what_leads_back_to_itself(void **state)
{
	static const struct row rows[] = {
		{ "L1 names itself", NULL, NULL, { { IN_L1(0), 0x800 | ENTRY_COPIED } } },
		{ "L1 names the header", NULL, NULL, { { IN_L1(0), ENTRY_COPIED | 0 } } },
		{ "L1 names one table twice", NULL, NULL, { { IN_L1(0), 0xa00 | ENTRY_COPIED } } },
		{ "L2 names the header", NULL, NULL, { { IN_L2(3), ENTRY_COPIED } } },
		{ "L2 names L1", NULL, NULL, { { IN_L2(8), 0x800 | ENTRY_COPIED } } },
		{ "L2 names the refcount block",
		  NULL,
		  NULL,
		  { { IN_L2(8), 0x400 | ENTRY_COPIED } } },
		{ "L2 names the write pointers",
		  NULL,
		  NULL,
		  { { IN_L2(8), 0x600 | ENTRY_COPIED } } },
		{ "the snapshot table is the header",
		  "snapshots",
		  "snapshots_offset",
		  { { F(snapshots_offset), 0 } } },
		{ "a snapshot's L1 is the snapshot table",
		  "snapshots",
		  NULL,
		  { { IN_SNAPSHOT(l1_table_offset), 0x1a00 } } },
		{ "the write pointers are the header",
		  NULL,
		  "zonedmeta_offset",
		  { { IN_ZONED(zonedmeta_offset), 0 } } },
		{ "the write pointers are L1",
		  NULL,
		  NULL,
		  { { IN_ZONED(zonedmeta_offset), 0x800 } } },
	};

	(void)state;
	RUN(rows);
}

static void cve_2014_0222_0223_sizes_of_the_disk(void **state)
{
	static const struct row rows[] = {
		{ "size 2^62", "v2", "size", { { F(size), 1ull << 62 } } },
		{ "size beyond its L1 table", "v2", "l1_size", { { F(size), 1ull << 24 } } },
		{ "size of fewer zones", NULL, "nr_zones", { { F(size), 28 * KIB } } },
		{ "size of no whole sector", NULL, "size", { { F(size), 32 * KIB - 1 } } },
	};

	(void)state;
	RUN(rows);
}

/* Files that the image names are made in DIR, which inotify watches. */
static unsigned int events(int watch)
{
	char buf[4096] __attribute__((aligned(8)));
	unsigned int n = 0;
	ssize_t len = read(watch, buf, sizeof(buf));

	for (ssize_t at = 0; at < len; n++)
		at += sizeof(struct inotify_event) + ((struct inotify_event *)(buf + at))->len;
	return n;
}

static void write_file(const char *path, const void *bytes, size_t len)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

/* An image whose data file and backing file are NAME. */
static void write_naming_image(const char *path, const char *name, bool data_bit)
{
	struct ramdisk *d = copy_of("v11-4k");
	uint64_t at = HEADER_LENGTH, len = strlen(name);

	while (get_be(d->bytes + at, 4) != EXT_END)
		at += 8 + align_up(get_be(d->bytes + at + 4, 4), 8);
	put_be(d->bytes + at, 4, EXT_DATA_FILE);
	put_be(d->bytes + at + 4, 4, len);
	memcpy(d->bytes + at + 8, name, len);
	at += 8 + align_up(len, 8);
	memset(d->bytes + at, 0, 8);
	memcpy(d->bytes + at + 8, name, len);
	set(d, F(backing_file_offset), at + 8);
	set(d, F(backing_file_size), len);
	set(d, F(incompatible_features), INCOMPAT_ZONED | (data_bit ? INCOMPAT_DATA_FILE : 0));
	write_file(path, d->bytes, d->size);
	ram_free(d);
}

static void use_naming_image(const char *path)
{
	char err[QCOW2_ERRLEN];

	for (unsigned int i = 0; i < 3; i++) {
		struct qcow2_open_opts o = { .flags = i == 0   ? QCOW2_RDONLY | QCOW2_INSPECT
						      : i == 1 ? QCOW2_RDONLY
							       : 0 };
		struct qcow2_check_result res;
		struct qcow2_extent e;
		struct qcow2 *q;

		if (qcow2_open(path, &o, &q, err))
			continue;
		assert_string_not_equal(qcow2_info(q)->backing_file, "");
		qcow2_check(q, &res, NULL, NULL);
		qcow2_map(q, 0, 4096, &e);
		assert_int_not_equal(qcow2_read(q, err, 0, 512, 0), 0);
		qcow2_close(q);
	}
	assert_int_not_equal(run("%s info %s", ZNSIMG, path), 127);
	run("%s info --output=json %s", ZNSIMG, path);
	run("%s check %s", ZNSIMG, path);
	run("%s zones %s", ZNSIMG, path);
}

static void cve_2024_4467_named_files_are_never_opened(void **state)
{
	static const char *const form[] = {
		"%s/victim",
		"file:%s/victim",
		"json:{\"driver\":\"file\",\"filename\":\"%s/victim\"}",
		("json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"%s/"
		 "victim\"}}"),
		"fat:rw:%s",
		"victim",
	};
	char base[] = "/tmp/cve-XXXXXX", dir[64], image[64], victim[80], name[256];
	struct stat st;
	int watch = inotify_init1(IN_NONBLOCK);

	(void)state;
	assert_non_null(mkdtemp(base));
	snprintf(dir, sizeof(dir), "%s/dir", base);
	snprintf(image, sizeof(image), "%s/image", base);
	snprintf(victim, sizeof(victim), "%s/victim", dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	write_file(victim, "secret", 6);
	assert_true(inotify_add_watch(watch, dir, IN_ALL_EVENTS) >= 0);
	/* Proves that the watch notices an open. */
	close(open(victim, O_RDONLY));
	assert_int_not_equal(events(watch), 0);
	assert_int_equal(events(watch), 0);
	for (size_t i = 0; i < sizeof(form) / sizeof(form[0]); i++)
		for (int bit = 0; bit < 2; bit++) {
			snprintf(name, sizeof(name), "victim");
			if (strchr(form[i], '%')) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
				snprintf(name, sizeof(name), form[i], dir);
#pragma GCC diagnostic pop
			}
			write_naming_image(image, name, bit);
			use_naming_image(image);
			if (events(watch))
				fail_msg("something of %s was opened", name);
		}
	assert_int_equal(stat(victim, &st), 0);
	assert_int_equal(st.st_size, 6);
	close(watch);
	assert_int_equal(unlink(victim) | rmdir(dir) | unlink(image) | rmdir(base), 0);
}

/* Bombs */

static struct ramdisk *bomb_base(uint64_t size, uint32_t cluster_size, uint32_t refcount_bits,
				 uint64_t zone_size)
{
	struct qcow2_create_opts o = {
		.size = size,
		.cluster_size = cluster_size,
		.refcount_bits = refcount_bits,
		.zoned = zone_size != 0,
		.zone = { .zone_size = zone_size },
	};
	struct ramdisk *d = ram_new(BOMB_CAP);
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];

	if (qcow2_create("bomb", &o, ram_open(d), warn, err))
		fail_msg("create: %s", err);
	ram_forget(d);
	return d;
}

static void bomb_2_to_the_50_zones(void **state)
{
	static const struct row rows[] = {
		{ "zones of 512 bytes",
		  NULL,
		  "at most",
		  { { F(size), 1ull << 58 },
		    { IN_ZONED(zone_size), 512 },
		    { IN_ZONED(zone_capacity), 512 },
		    { IN_ZONED(nr_zones), 0xffffffff } } },
		{ "with an L1 table for them",
		  "v11-64k",
		  "l1_size",
		  { { F(cluster_bits), 21 },
		    { F(size), 1ull << 58 },
		    { IN_ZONED(zone_size), 512 },
		    { IN_ZONED(zone_capacity), 512 } } },
		{ "nr_zones alone", NULL, "nr_zones", { { IN_ZONED(nr_zones), 0xffffffff } } },
	};

	(void)state;
	RUN(rows);
}

static void bomb_as_many_zones_as_there_may_be(void **state)
{
	struct ramdisk *d = bomb_base(128ull << 30, 65536, 16, 128 * KIB);

	(void)state;
	behaves(d, "2^20 zones", EVERYWHERE);
	ram_free(d);
}

static void bomb_32_mib_of_l1(void **state)
{
	struct ramdisk *d = bomb_base(128ull << 30, 512, 16, 0);
	uint64_t l1 = field(d, F(l1_table_offset));

	(void)state;
	assert_int_equal(8 * field(d, F(l1_size)), MAX_L1_BYTES);
	behaves(d, "an empty L1 table of 32 MiB", EVERYWHERE);
	ram_forget(d);
	for (uint64_t i = 0; i < MAX_L1_BYTES / 8; i++)
		put_be(d->bytes + l1 + 8 * i, 8, ENTRY_COPIED | l1);
	behaves(d, "an L1 table of 32 MiB that names itself", EVERYWHERE);
	ram_forget(d);
	for (uint64_t i = 0; i < MAX_L1_BYTES / 8; i++)
		put_be(d->bytes + l1 + 8 * i, 8, ENTRY_COPIED | (l1 + 512 * (i % 65536)));
	behaves(d, "an L1 table of 32 MiB that names all of itself", EVERYWHERE);
	ram_free(d);
}

static void bomb_8_mib_of_refcount_table(void **state)
{
	struct ramdisk *d = copy_of("v11");
	uint64_t table = 1 << 20;

	(void)state;
	set(d, F(refcount_table_offset), table);
	set(d, F(refcount_table_clusters), MAX_REFTABLE_BYTES / 512);
	d->size = table + MAX_REFTABLE_BYTES;
	behaves(d, "an empty refcount table of 8 MiB", EVERYWHERE);
	ram_forget(d);
	for (uint64_t i = 0; i < MAX_REFTABLE_BYTES / 8; i++)
		put_be(d->bytes + table + 8 * i, 8, 0x400);
	behaves(d, "8 MiB that name one block", EVERYWHERE);
	ram_forget(d);
	for (uint64_t i = 0; i < MAX_REFTABLE_BYTES / 8; i++)
		put_be(d->bytes + table + 8 * i, 8, table + 512 * (i % 16384));
	behaves(d, "8 MiB that name themselves", EVERYWHERE);
	ram_free(d);
}

/* 65536 snapshots with L1 tables of 32 MiB each, all at one offset or overlapping. */
static void bomb_65536_snapshots(void **state)
{
	static const struct {
		const char *name;
		uint64_t step;
		uint32_t l1_size;
	} rows[] = {
		{ "no L1 tables", 0, 0 },
		{ "one L1 table of 32 MiB", 0, MAX_L1_BYTES / 8 },
		{ "L1 tables of 32 MiB, overlapping", 512, MAX_L1_BYTES / 8 },
		{ "L1 tables of a cluster, one after the other", 512, 64 },
	};

	(void)state;
	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		struct ramdisk *d = copy_of("snapshots");
		uint64_t table = 1 << 20, l1 = 8 << 20;

		set(d, F(nb_snapshots), MAX_SNAPSHOTS);
		set(d, F(snapshots_offset), table);
		for (uint64_t i = 0; i < MAX_SNAPSHOTS; i++) {
			put_be(d->bytes + table + 40 * i, 8, l1 + rows[r].step * i);
			put_be(d->bytes + table + 40 * i + 8, 4, rows[r].l1_size);
		}
		d->size = l1 + 2 * MAX_L1_BYTES;
		behaves(d, rows[r].name, EVERYWHERE);
		ram_free(d);
	}
}

static void bomb_65535_bitmaps(void **state)
{
	struct ramdisk *d = copy_of("bitmaps");
	uint64_t dir = 1 << 20, table = 8 << 20, at = HEADER_LENGTH;

	(void)state;
	while (get_be(d->bytes + at, 4) != EXT_BITMAPS)
		at += 8 + align_up(get_be(d->bytes + at + 4, 4), 8);
	put_be(d->bytes + at + 8, 4, 65535);
	put_be(d->bytes + at + 16, 8, 65535 * 24);
	put_be(d->bytes + at + 24, 8, dir);
	for (uint64_t i = 0; i < 65535; i++) {
		put_be(d->bytes + dir + 24 * i, 8, table);
		put_be(d->bytes + dir + 24 * i + 8, 4, MAX_L1_BYTES / 8);
	}
	d->size = table + MAX_L1_BYTES;
	behaves(d, "65535 bitmaps with one table of 32 MiB", EVERYWHERE);
	ram_free(d);
}

/* Clusters of 2 MiB that are all mapped to the same few compressed bytes. */
static void compressed_bomb(enum qcow2_compression type, const void *packed, size_t len,
			    const char *name)
{
	struct ramdisk *d = bomb_base(256 * MIB, 2 * MIB, 16, 0);
	uint64_t l1 = field(d, F(l1_table_offset)), l2 = align_up(d->size, 2 * MIB);
	uint64_t host = l2 + 2 * MIB;
	unsigned int shift = 62 - (21 - 8);

	set(d, F(compression_type), type);
	set(d, F(incompatible_features), type ? INCOMPAT_COMPRESSION : 0);
	put_be(d->bytes + l1, 8, l2 | ENTRY_COPIED);
	for (uint64_t i = 0; i < 2 * MIB / 8; i++)
		put_be(d->bytes + l2 + 8 * i, 8,
		       L2E_COMPRESSED | ((1ull << 13) - 1) << shift | host);
	memcpy(d->bytes + host, packed, len);
	d->size = host + 4 * MIB;
	behaves(d, name, JUDGE_READ);
	ram_free(d);
}

static void bomb_deflate(void **state)
{
	static uint8_t zeroes[64 << 20], out[1 << 20];
	z_stream s = {
		.next_in = zeroes,
		.avail_in = sizeof(zeroes),
		.next_out = out,
		.avail_out = sizeof(out),
	};

	(void)state;
	deflateInit2(&s, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY);
	assert_int_equal(deflate(&s, Z_FINISH), Z_STREAM_END);
	compressed_bomb(QCOW2_ZLIB, out, s.total_out, "64 MiB in a cluster of 2 MiB");
	deflateEnd(&s);
}

static void bomb_zstd(void **state)
{
	/* A frame that requires a window of more than 2^31 bytes, then a block of zeroes. */
	static const uint8_t window[] = {
		0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x03, 0x00, 0x10, 0x00
	};
	static uint8_t zeroes[64 << 20], out[1 << 20], frames[1 << 20];
	size_t n = ZSTD_compress(out, sizeof(out), zeroes, sizeof(zeroes), 19);

	(void)state;
	assert_false(ZSTD_isError(n));
	compressed_bomb(QCOW2_ZSTD, out, n, "64 MiB in a cluster of 2 MiB");
	compressed_bomb(QCOW2_ZSTD, window, sizeof(window), "a window of 2 GiB");
	/* As many empty frames as fit. */
	n = ZSTD_compress(out, sizeof(out), zeroes, 0, 1);
	for (size_t at = 0; at + n <= sizeof(frames); at += n)
		memcpy(frames + at, out, n);
	compressed_bomb(QCOW2_ZSTD, frames, sizeof(frames), "100,000 empty frames");
}

/* Refcounts above 0 beyond the end of the file: each allocation must skip those clusters. */
static void bomb_refcounts_beyond_the_end(void **state)
{
	struct ramdisk *d = bomb_base(1 * MIB, 65536, 1, 64 * KIB);
	uint64_t table = field(d, F(refcount_table_offset)), end = align_up(d->size, 65536);

	(void)state;
	/* 12 more blocks, 524288 clusters each, all in use. */
	for (uint64_t i = 0; i < 12; i++) {
		put_be(d->bytes + table + 8 * (i + 1), 8, end + 65536 * i);
		memset(d->bytes + end + 65536 * i, 0xff, 65536);
	}
	memset(d->bytes + get_be(d->bytes + table, 8), 0xff, 65536);
	d->size = end + 12 * 65536;
	behaves(d, "6 million clusters in use beyond the end", EVERYWHERE);
	ram_free(d);
}

#define T(name) cmocka_unit_test(name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(cve_2014_0142_divisions_by_zero),
		T(cve_2014_0143_integer_overflows),
		T(cve_2014_0144_header_fields_that_were_believed),
		T(cve_2014_0145_a_snapshot_with_a_longer_l1_table),
		T(cve_2014_0146_every_read_of_an_open_may_fail),
		T(cve_2014_0147_refcount_blocks_that_are_not),
		T(cve_2014_0148_what_leads_back_to_itself),
		T(cve_2014_0222_0223_sizes_of_the_disk),
		T(cve_2024_4467_named_files_are_never_opened),
		T(bomb_2_to_the_50_zones),
		T(bomb_as_many_zones_as_there_may_be),
		T(bomb_32_mib_of_l1),
		T(bomb_8_mib_of_refcount_table),
		T(bomb_65536_snapshots),
		T(bomb_65535_bitmaps),
		T(bomb_deflate),
		T(bomb_zstd),
		T(bomb_refcounts_beyond_the_end),
	};

	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	tally("corrupt kind=cve images=%u opens=%u findings=%d worst_ms=%.0f worst_kib=%zu",
	      tried.images, tried.opens, failed, tried.seconds * 1e3, tried.bytes >> 10);
	return failed;
}
