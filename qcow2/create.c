/* SPDX-License-Identifier: MIT */
/*
 * qcow2_create(): writes a new image with the layout of QEMU's zoned series.
 *
 *	cluster 0    header and its extensions
 *	then         refcount table, refcount blocks
 *	then         write-pointer table (zoned images), 8 bytes a zone
 *	then         L1 table, all holes
 *
 * With 64 KiB clusters and a usual number of zones these are clusters 0, 1, 2, 3 and 4, byte for
 * byte as QEMU writes them. A table that is larger than a cluster takes several. Every cluster up
 * to the end of the L1 table has refcount 1.
 *
 * 1. Options are validated before any file is touched (geometry.c).
 * 2. An existing file is truncated only under QEMU's write locks, and the truncation is made
 *    durable before anything is written, so that an old header never refers to new tables.
 * 3. The magic is written last, in one sector, after all else is durable. If a create is
 *    interrupted at any point, it leaves a file that no program recognises as an image.
 * 4. A file that did not exist before is removed again when the create fails.
 *
 * One thread; no other thread has the file before the function returns.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "create.h"
#include "image.h"
#include "plant.h"

/* The size of each part, in clusters; derived from validated options. */
struct plan {
	uint64_t cluster_size;
	uint64_t table; /* refcount table */
	uint64_t refblocks;
	uint64_t wp; /* write-pointer table */
	uint64_t l1;
	uint64_t l1_entries;
	uint64_t total;
};

static uint64_t div_round_up(uint64_t n, uint64_t by)
{
	return n / by + (n % by != 0);
}

/* The host offset of each part. */
static uint64_t table_offset(const struct plan *p)
{
	return p->cluster_size;
}

static uint64_t refblocks_offset(const struct plan *p)
{
	return table_offset(p) + p->table * p->cluster_size;
}

static uint64_t wp_offset(const struct plan *p)
{
	return refblocks_offset(p) + p->refblocks * p->cluster_size;
}

static uint64_t l1_offset(const struct plan *p)
{
	return wp_offset(p) + p->wp * p->cluster_size;
}

/* The refcount structures count themselves, too, so they grow until they cover the whole image. */
static void plan_make(struct plan *p, const struct qcow2_create_opts *o)
{
	uint64_t cluster = o->cluster_size, per_block = cluster * 8 / o->refcount_bits;
	uint64_t before;

	memset(p, 0, sizeof(*p));
	p->cluster_size = cluster;
	if (o->zoned)
		p->wp = div_round_up((uint64_t)o->zone.nr_zones * 8, cluster);
	p->l1_entries = div_round_up(o->size, cluster * cluster / 8);
	p->l1 = div_round_up(p->l1_entries * 8, cluster);
	do {
		before = p->total;
		p->total = 1 + p->table + p->refblocks + p->wp + p->l1;
		p->refblocks = div_round_up(p->total, per_block);
		p->table = div_round_up(p->refblocks * 8, cluster);
	} while (p->total != before);
}

/* The feature name table: a program that does not know a feature bit shows this name. */
static const struct disk_feature_name feature_names[] = {
	{ 0, 0, "dirty bit" },		 { 0, 1, "corrupt bit" },
	{ 0, 2, "external data file" },	 { 0, 3, "compression type" },
	{ 0, 4, "extended L2 entries" }, { 0, 5, "zoned format" },
	{ 1, 0, "lazy refcounts" },	 { 2, 0, "bitmaps" },
	{ 2, 1, "raw external data" },
};

/* Writes an extension at AT, which is zeroed. Returns where the next one goes. */
static uint8_t *put_extension(uint8_t *at, uint32_t magic, const void *data, size_t len)
{
	struct disk_ext ext = { htobe32(magic), htobe32((uint32_t)len) };

	memcpy(at, &ext, sizeof(ext));
	if (len)
		memcpy(at + sizeof(ext), data, len);
	return at + sizeof(ext) + align_up(len, 8);
}

/* Fills BUF, a zeroed cluster, with the header and its extensions. Returns their length. */
static size_t put_header(uint8_t *buf, const struct plan *p, const struct qcow2_create_opts *o)
{
	uint64_t incompatible = (o->zoned ? INCOMPAT_ZONED : 0) |
				(o->compression != QCOW2_ZLIB ? INCOMPAT_COMPRESSION : 0);
	struct disk_header header = {
		.magic = htobe32(QCOW2_MAGIC),
		.version = htobe32(3),
		.cluster_bits = htobe32((uint32_t)__builtin_ctz(o->cluster_size)),
		.size = htobe64(o->size),
		.l1_size = htobe32((uint32_t)p->l1_entries),
		.l1_table_offset = htobe64(p->l1_entries ? l1_offset(p) : 0),
		.refcount_table_offset = htobe64(table_offset(p)),
		.refcount_table_clusters = htobe32((uint32_t)p->table),
		.incompatible_features = htobe64(incompatible),
		.compatible_features = htobe64(o->lazy_refcounts ? COMPAT_LAZY_REFCOUNTS : 0),
		.refcount_order = htobe32((uint32_t)__builtin_ctz(o->refcount_bits)),
		.header_length = htobe32(HEADER_LENGTH),
		.compression_type = (uint8_t)o->compression,
	};
	struct disk_znsd znsd = { .generation = 0 };
	uint8_t zoned[ZONED_EXT_MAX];
	uint8_t *at = buf + HEADER_LENGTH;

	memcpy(buf, &header, sizeof(header));
	/* QEMU omits the names where they would take too much of the header's cluster. */
	if (o->cluster_size > 4096)
		at = put_extension(at, EXT_FEATURE_NAMES, feature_names, sizeof(feature_names));
	if (o->zoned)
		at = put_extension(at, EXT_ZONED, zoned, layout_encode(&o->zone, zoned));
	memcpy(znsd.uuid, o->uuid, QCOW2_UUID);
	at = put_extension(at, EXT_ZNSD, &znsd, sizeof(znsd));
	at = put_extension(at, EXT_END, NULL, 0);
	return (size_t)(at - buf);
}

static int write_table(struct file *f, const struct plan *p)
{
	uint64_t *entries = calloc(p->refblocks, sizeof(*entries));
	int err;

	if (!entries)
		return -ENOMEM;
	for (uint64_t i = 0; i < p->refblocks; i++)
		entries[i] = htobe64(refblocks_offset(p) + i * p->cluster_size);
	err = file_write(f, entries, p->refblocks * sizeof(*entries), table_offset(p), 0);
	free(entries);
	return err;
}

static int write_refblocks(struct file *f, const struct plan *p, uint32_t bits)
{
	uint64_t per_block = p->cluster_size * 8 / bits;
	uint8_t *block = malloc(p->cluster_size);
	int err = 0;

	if (!block)
		return -ENOMEM;
	for (uint64_t b = 0; b < p->refblocks && !err; b++) {
		memset(block, 0, p->cluster_size);
		for (uint64_t i = 0; i < per_block && b * per_block + i < p->total; i++)
			refcount_set(block, i, (uint32_t)__builtin_ctz(bits), 1);
		err = file_write(f, block, p->cluster_size,
				 refblocks_offset(p) + b * p->cluster_size, 0);
	}
	free(block);
	return err;
}

static int write_pointers(struct file *f, const struct qcow2_zoned *z)
{
	uint64_t *entries = calloc(z->nr_zones, sizeof(*entries));
	int err;

	if (!entries)
		return -ENOMEM;
	for (uint32_t i = 0; i < z->nr_zones; i++) {
		entries[i] = i * z->zone_size;
		if (i < z->conventional_zones)
			entries[i] |= 1ull << z->marker_bit;
		entries[i] = htobe64(entries[i]);
	}
	err = file_write(f, entries, z->nr_zones * sizeof(*entries), z->zonedmeta_offset, 0);
	free(entries);
	return err;
}

/* Writes everything but the magic, makes that durable, then writes the magic. */
static int write_image(struct file *f, const struct plan *p, const struct qcow2_create_opts *o)
{
	uint8_t *header = calloc(1, p->cluster_size);
	uint32_t magic = htobe32(QCOW2_MAGIC);
	size_t len;
	int err;

	if (!header)
		return -ENOMEM;
	len = put_header(header, p, o);
	memset(header, 0, sizeof(magic));
	err = file_truncate(f, p->total * p->cluster_size);
	if (!err)
		err = write_table(f, p);
	if (!err)
		err = write_refblocks(f, p, o->refcount_bits);
	if (!err && o->zoned)
		err = write_pointers(f, &o->zone);
	if (!err)
		err = file_write(f, header, len, 0, 0);
	if (!err && !plant(magic_before_the_rest))
		err = file_sync(f);
	memcpy(header, &magic, sizeof(magic));
	if (!err)
		err = file_write(f, header, 512, 0, 0); /* one sector: it is never torn */
	if (!err && !plant(create_without_sync))
		err = file_sync(f);
	free(header);
	return err;
}

/* Truncates the file to 0 bytes, durably: an old header must not outlive its tables. */
static int empty_file(struct file *f)
{
	uint64_t size;
	int err;

	err = file_size(f, &size);
	if (err || !size)
		return err;
	err = file_truncate(f, 0);
	return err || plant(old_header_outlives) ? err : file_sync(f);
}

/* Opens PATH without truncating it, or creates the file; *MADE: it was created. */
static int open_target(const char *path, struct file **out, bool *made)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	*made = fd >= 0;
	if (*made)
		close(fd);
	else if (errno != EEXIST)
		return -errno;
	return file_posix(path, 0, out);
}

/* Generates a random UUID, version 4. */
static int make_uuid(uint8_t uuid[QCOW2_UUID])
{
	if (getrandom(uuid, QCOW2_UUID, 0) != QCOW2_UUID)
		return -EIO;
	uuid[6] = (uuid[6] & 0x0f) | 0x40;
	uuid[8] = (uuid[8] & 0x3f) | 0x80;
	return 0;
}

static int create_in(struct file *f, const char *path, struct qcow2_create_opts *opts, char *err)
{
	static const uint8_t no_uuid[QCOW2_UUID];
	struct plan plan;
	int rc = 0;

	if (f->fd >= 0) {
		rc = image_lock(f->fd, path, true, err);
		if (rc)
			return rc;
	}
	plan_make(&plan, opts);
	if (opts->zoned)
		opts->zone.zonedmeta_offset = wp_offset(&plan);
	if (!memcmp(opts->uuid, no_uuid, QCOW2_UUID))
		rc = make_uuid(opts->uuid);
	if (!rc)
		rc = empty_file(f);
	if (!rc)
		rc = write_image(f, &plan, opts);
	if (rc)
		snprintf(err, QCOW2_ERRLEN, "could not create '%s': %s", path, strerror(-rc));
	return rc;
}

int qcow2_create(const char *path, struct qcow2_create_opts *opts, struct file *file,
		 char warn[QCOW2_ERRLEN], char err[QCOW2_ERRLEN])
{
	bool made = false;
	int rc;

	warn[0] = '\0';
	err[0] = '\0';
	rc = create_validate(opts, warn, err);
	if (rc)
		goto close_given;
	if (!file) {
		rc = open_target(path, &file, &made);
		if (rc) {
			snprintf(err, QCOW2_ERRLEN, "could not open '%s': %s", path, strerror(-rc));
			goto unlink_made;
		}
	}
	rc = create_in(file, path, opts, err);
close_given:
	if (file)
		file_close(file);
unlink_made:
	if (rc && rc != -EAGAIN && made)
		unlink(path);
	return rc;
}
