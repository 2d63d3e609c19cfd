/* SPDX-License-Identifier: MIT */
/*
 * Opens and closes an image. The header and its extensions are validated completely before any of
 * it is used; after qcow2_open() the header's fields are not checked again.
 *
 * 1. Every size in the header is checked against the limits of format.h and the length of the file
 *    before memory is allocated for it, so a small file with huge claims fails at once.
 * 2. A refusal is one sentence: the file, the field and its offset, what was found, what was
 *    expected, and what to do.
 * 3. A writable open writes only at the very end, when it can no longer refuse, and makes this
 *    durable before it succeeds: the state from a killed process's shadow, an identity for an image
 *    that has none, the autoclear bits, and the generation.
 * 4. A writable open syncs what it has read: a killed process may have written it without a sync,
 *    and our write order relies on it.
 * 5. Names of other files (backing file, data file) are read and shown, never opened.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "image.h"
#include "plant.h"

#define AT(field) (unsigned int)offsetof(struct disk_header, field)

static bool inspecting(const struct qcow2 *q)
{
	return q->flags & QCOW2_INSPECT;
}

/* Whether the file is opened for writing, be it for qcow2_repair() only. */
static bool file_writable(const struct qcow2 *q)
{
	return writable(q) || q->flags & QCOW2_REPAIR;
}

__attribute__((format(printf, 3, 4))) static int
refuse(const struct qcow2 *q, char err[QCOW2_ERRLEN], const char *fmt, ...)
{
	int n = snprintf(err, QCOW2_ERRLEN, "%.200s: ", q->path);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err + n, QCOW2_ERRLEN - n, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int refuse_errno(const struct qcow2 *q, char err[QCOW2_ERRLEN], int ret, const char *what)
{
	refuse(q, err, "%s: %s", what, strerror(-ret));
	return ret;
}

#define DAMAGED "; the image is damaged, restore it from a copy"

/* Checks the version, the geometry, and the fields that both versions have. */
static int check_geometry(struct qcow2 *q, const struct disk_header *h, char err[QCOW2_ERRLEN])
{
	struct qcow2_info *i = &q->info;
	uint32_t order;

	i->version = be32toh(h->version);
	if (i->version != 2 && i->version != 3)
		return refuse(q, err, "header field version (offset %u) is %u, 2 or 3 was expected",
			      AT(version), i->version);
	i->cluster_bits = be32toh(h->cluster_bits);
	if (i->cluster_bits < MIN_CLUSTER_BITS || i->cluster_bits > MAX_CLUSTER_BITS)
		return refuse(q, err,
			      "header field cluster_bits (offset %u) is %u, %u to %u was "
			      "expected" DAMAGED,
			      AT(cluster_bits), i->cluster_bits, MIN_CLUSTER_BITS,
			      MAX_CLUSTER_BITS);
	order = i->version == 3 ? be32toh(h->refcount_order) : 4;
	if (order > MAX_REFCOUNT_ORDER)
		return refuse(q, err,
			      "header field refcount_order (offset %u) is %u, at most %u was "
			      "expected" DAMAGED,
			      AT(refcount_order), order, MAX_REFCOUNT_ORDER);
	q->cluster_bits = i->cluster_bits;
	q->cluster_size = 1ull << i->cluster_bits;
	q->refcount_order = order;
	q->refblock_bits = i->cluster_bits + 3 - order;
	i->refcount_bits = 1u << order;
	i->size = be64toh(h->size);
	q->hdr.header_length = i->version == 3 ? be32toh(h->header_length) : HEADER_V2_LENGTH;
	if (i->version == 3 &&
	    (q->hdr.header_length < HEADER_V3_LENGTH || q->hdr.header_length > q->cluster_size))
		return refuse(q, err,
			      "header field header_length (offset %u) is %u, %u to %llu was "
			      "expected" DAMAGED,
			      AT(header_length), q->hdr.header_length, HEADER_V3_LENGTH,
			      (unsigned long long)q->cluster_size);
	return 0;
}

static int check_features(struct qcow2 *q, const struct disk_header *h, char err[QCOW2_ERRLEN])
{
	struct qcow2_info *i = &q->info;
	uint8_t compression = 0;

	q->l2_bits = q->cluster_bits - 3;
	if (i->version < 3)
		return 0;
	q->hdr.incompatible = be64toh(h->incompatible_features);
	q->hdr.compatible = be64toh(h->compatible_features);
	q->hdr.autoclear = be64toh(h->autoclear_features);
	i->dirty = q->hdr.incompatible & INCOMPAT_DIRTY;
	i->corrupt = q->hdr.incompatible & INCOMPAT_CORRUPT;
	i->unclosed = q->hdr.autoclear & AUTOCLEAR_SHADOW;
	i->extended_l2 = q->hdr.incompatible & INCOMPAT_EXTL2;
	i->lazy_refcounts = q->hdr.compatible & COMPAT_LAZY_REFCOUNTS;
	if (i->extended_l2)
		q->l2_bits--;
	if (q->hdr.header_length > HEADER_V3_LENGTH)
		compression = h->compression_type;
	if (compression > QCOW2_ZSTD)
		return refuse(q, err,
			      "header field compression_type (offset %u) is %u, 0 (zlib) or 1 "
			      "(zstd) was expected",
			      AT(compression_type), compression);
	if (!compression != !(q->hdr.incompatible & INCOMPAT_COMPRESSION))
		return refuse(q, err,
			      "header field compression_type (offset %u) is %u, but incompatible "
			      "feature bit 3 says otherwise" DAMAGED,
			      AT(compression_type), compression);
	i->compression = compression;
	return 0;
}

/* Checks that a table is cluster-aligned, lies behind the header, and ends inside the file. */
static int check_table(const struct qcow2 *q, const char *field, unsigned int at, uint64_t off,
		       uint64_t bytes, char err[QCOW2_ERRLEN])
{
	if (off % q->cluster_size || off < q->cluster_size)
		return refuse(q, err,
			      "header field %s (offset %u) is 0x%llx, a positive multiple of the "
			      "cluster size %llu was expected" DAMAGED,
			      field, at, (unsigned long long)off,
			      (unsigned long long)q->cluster_size);
	if (off > q->file_len || bytes > q->file_len - off)
		return refuse(q, err,
			      "header field %s (offset %u) is 0x%llx: %llu bytes from there on "
			      "reach beyond the end of the file at 0x%llx; the file was probably "
			      "cut short, restore it from a copy",
			      field, at, (unsigned long long)off, (unsigned long long)bytes,
			      (unsigned long long)q->file_len);
	return 0;
}

static int check_l1(struct qcow2 *q, const struct disk_header *h, char err[QCOW2_ERRLEN])
{
	uint64_t needed = l1_needed(q, q->info.size);

	q->hdr.l1_size = be32toh(h->l1_size);
	q->hdr.l1_offset = be64toh(h->l1_table_offset);
	if (needed > MAX_L1_BYTES / 8)
		return refuse(q, err,
			      "header field size (offset %u) is %llu; with clusters of %llu bytes "
			      "at most %llu is supported",
			      AT(size), (unsigned long long)q->info.size,
			      (unsigned long long)q->cluster_size,
			      (unsigned long long)(MAX_L1_BYTES / 8)
				      << (q->cluster_bits + q->l2_bits));
	if (q->hdr.l1_size > MAX_L1_BYTES / 8 || q->hdr.l1_size < needed)
		return refuse(q, err,
			      "header field l1_size (offset %u) is %u, %llu to %u was "
			      "expected" DAMAGED,
			      AT(l1_size), q->hdr.l1_size, (unsigned long long)needed,
			      MAX_L1_BYTES / 8);
	if (!q->hdr.l1_size)
		return 0;
	return check_table(q, "l1_table_offset", AT(l1_table_offset), q->hdr.l1_offset,
			   8ull * q->hdr.l1_size, err);
}

#define REBUILD "; 'znsimg check -r all' makes new refcounts"

static int check_reftable(struct qcow2 *q, const struct disk_header *h, char err[QCOW2_ERRLEN])
{
	uint64_t off = be64toh(h->refcount_table_offset), bytes;
	uint32_t clusters = be32toh(h->refcount_table_clusters);
	int ret = 0;

	bytes = (uint64_t)clusters << q->cluster_bits;
	if (!bytes || bytes > MAX_REFTABLE_BYTES)
		ret = refuse(q, err,
			     "header field refcount_table_clusters (offset %u) is %u, 1 to %llu "
			     "was expected" REBUILD,
			     AT(refcount_table_clusters), clusters,
			     (unsigned long long)MAX_REFTABLE_BYTES >> q->cluster_bits);
	if (!ret) {
		ret = check_table(q, "refcount_table_offset", AT(refcount_table_offset), off, bytes,
				  err);
		if (ret) /* replace its advice by better advice */
			snprintf(strrchr(err, ';'), sizeof(REBUILD), REBUILD);
	}
	if (ret && q->flags & QCOW2_REPAIR)
		return 0; /* the repair creates new ones */
	q->hdr.reftable_clusters = clusters;
	q->hdr.reftable_offset = off;
	return ret;
}

static int check_snapshots(struct qcow2 *q, const struct disk_header *h, char err[QCOW2_ERRLEN])
{
	q->info.nb_snapshots = be32toh(h->nb_snapshots);
	q->hdr.snapshots_offset = be64toh(h->snapshots_offset);
	if (q->info.nb_snapshots > MAX_SNAPSHOTS)
		return refuse(q, err,
			      "header field nb_snapshots (offset %u) is %u, at most %u was "
			      "expected" DAMAGED,
			      AT(nb_snapshots), q->info.nb_snapshots, MAX_SNAPSHOTS);
	if (!q->info.nb_snapshots)
		return 0;
	return check_table(q, "snapshots_offset", AT(snapshots_offset), q->hdr.snapshots_offset,
			   (uint64_t)q->info.nb_snapshots * sizeof(struct disk_snapshot), err);
}

static int check_backing(struct qcow2 *q, const struct disk_header *h, const uint8_t *cluster,
			 char err[QCOW2_ERRLEN])
{
	uint32_t len = be32toh(h->backing_file_size);

	q->hdr.backing_offset = be64toh(h->backing_file_offset);
	if (!q->hdr.backing_offset)
		return 0;
	if (len > MAX_BACKING_NAME || len > q->cluster_size ||
	    q->hdr.backing_offset < q->hdr.header_length ||
	    q->hdr.backing_offset > q->cluster_size - len)
		return refuse(q, err,
			      "header fields backing_file_offset (offset %u) and "
			      "backing_file_size (offset %u) are 0x%llx and %u; a name of at most "
			      "%u bytes inside the first cluster was expected" DAMAGED,
			      AT(backing_file_offset), AT(backing_file_size),
			      (unsigned long long)q->hdr.backing_offset, len, MAX_BACKING_NAME);
	memcpy(q->info.backing_file, cluster + q->hdr.backing_offset, len);
	return 0;
}

static void copy_text(char *to, size_t size, const uint8_t *from, uint32_t len)
{
	size_t n = len < size - 1 ? len : size - 1;

	memcpy(to, from, n);
	to[n] = 0;
}

/* The image's name for incompatible feature BIT, for a refusal. */
static void feature_name(const uint8_t *names, uint32_t len, unsigned int bit, char out[64])
{
	snprintf(out, 64, "unknown feature");
	for (uint32_t pos = 0; pos + sizeof(struct disk_feature_name) <= len;
	     pos += sizeof(struct disk_feature_name)) {
		const struct disk_feature_name *f = (const void *)(names + pos);

		if (f->type || f->bit != bit)
			continue;
		snprintf(out, 64, "%.46s", f->name);
		for (char *c = out; *c; c++)
			if (!isprint((unsigned char)*c))
				*c = '?';
	}
}

struct extensions {
	const uint8_t *names, *zoned;
	uint32_t names_len, zoned_len;
};

static uint64_t get_generation(const uint8_t *data)
{
	struct disk_znsd z;

	memcpy(&z, data, sizeof(z));
	return be64toh(z.generation);
}

static int read_extensions(struct qcow2 *q, const uint8_t *cluster, struct extensions *x,
			   char err[QCOW2_ERRLEN])
{
	uint64_t end = q->hdr.backing_offset ? q->hdr.backing_offset : q->cluster_size;
	uint64_t pos = q->hdr.header_length;
	struct qcow2_info *i = &q->info;

	memset(x, 0, sizeof(*x));
	while (pos + sizeof(struct disk_ext) <= end) {
		struct disk_ext ext;
		const uint8_t *data = cluster + pos + sizeof(ext);
		uint32_t magic, len;

		memcpy(&ext, cluster + pos, sizeof(ext));
		magic = be32toh(ext.magic);
		len = be32toh(ext.len);
		if (magic == EXT_END) {
			q->hdr.ext_end = pos;
			break;
		}
		if (len > end - pos - sizeof(ext))
			return refuse(q, err,
				      "header extension 0x%08x at offset %llu claims %u bytes, but "
				      "only %llu are left in the header cluster" DAMAGED,
				      magic, (unsigned long long)pos, len,
				      (unsigned long long)(end - pos - sizeof(ext)));
		if (magic == EXT_ZONED) {
			if (x->zoned)
				return refuse(q, err,
					      "there are two zoned extensions, the second at "
					      "offset %llu" DAMAGED,
					      (unsigned long long)pos);
			x->zoned = data;
			x->zoned_len = len;
			q->hdr.ext_zoned = pos;
			q->hdr.ext_zoned_len = len;
		} else if (magic == EXT_FEATURE_NAMES) {
			x->names = data;
			x->names_len = len;
		} else if (magic == EXT_BACKING_FORMAT) {
			copy_text(i->backing_format, sizeof(i->backing_format), data, len);
		} else if (magic == EXT_DATA_FILE) {
			copy_text(i->data_file, sizeof(i->data_file), data, len);
		} else if (magic == EXT_ZNSD && len >= QCOW2_UUID) {
			q->hdr.ext_znsd = pos;
			q->hdr.ext_znsd_len = len;
			if (len >= sizeof(struct disk_znsd))
				q->hdr.generation = get_generation(data);
			memcpy(i->uuid, data, QCOW2_UUID);
			i->has_uuid = true;
		}
		pos += sizeof(ext) + align_up(len, 8);
	}
	return 0;
}

static int check_unknown_features(const struct qcow2 *q, const struct extensions *x,
				  char err[QCOW2_ERRLEN])
{
	uint64_t unknown = q->hdr.incompatible & ~INCOMPAT_KNOWN;
	char name[64];

	if (!unknown)
		return 0;
	feature_name(x->names, x->names_len, __builtin_ctzll(unknown), name);
	refuse(q, err,
	       "the image uses incompatible feature bit %d (%s), which this version does not know; "
	       "use the program that made it",
	       __builtin_ctzll(unknown), name);
	return -ENOTSUP;
}

static int check_zoned(struct qcow2 *q, const struct extensions *x, char err[QCOW2_ERRLEN])
{
	bool bit = q->hdr.incompatible & INCOMPAT_ZONED;
	struct qcow2_zoned *z = &q->info.zoned;
	char why[QCOW2_ERRLEN];

	if (!bit && !x->zoned)
		return 0;
	if (!bit)
		return refuse(q, err,
			      "the header has a zoned extension (offset %u), but incompatible "
			      "feature bit 5 (zoned format) is not set" DAMAGED,
			      q->hdr.ext_zoned);
	if (!x->zoned)
		return refuse(
			q, err,
			"incompatible feature bit 5 (zoned format) is set, but the header has "
			"no zoned extension" DAMAGED);
	if (!q->info.size || q->info.size % 512 || q->info.size > WP_MASK)
		return refuse(q, err,
			      "header field size (offset %u) is %llu; a zoned image has a positive "
			      "multiple of 512 below 2^59",
			      AT(size), (unsigned long long)q->info.size);
	if (layout_decode(x->zoned, x->zoned_len, q->info.size, q->cluster_size, q->file_len, z,
			  why))
		return refuse(q, err, "the zoned extension at offset %u is wrong: %.350s" DAMAGED,
			      q->hdr.ext_zoned, why);
	if (writable(q) && z->zone_size < q->cluster_size)
		return refuse(q, err,
			      "zones of %llu bytes share clusters of %llu, so they cannot be reset "
			      "one by one; open the image read-only",
			      (unsigned long long)z->zone_size,
			      (unsigned long long)q->cluster_size);
	q->zone_bits = __builtin_ctzll(z->zone_size);
	return 0;
}

/* Refuses valid images that we cannot serve, or cannot write. */
static int check_servable(struct qcow2 *q, char err[QCOW2_ERRLEN])
{
	const struct qcow2_info *i = &q->info;
	const char *why = NULL;

	q->no_data = q->hdr.crypt_method || q->hdr.incompatible & INCOMPAT_DATA_FILE ||
		     i->extended_l2 || q->hdr.backing_offset;
	if (inspecting(q))
		return 0;
	if (q->hdr.crypt_method)
		why = "the image is encrypted, which is not supported; convert it with qemu-img";
	else if (q->hdr.incompatible & INCOMPAT_DATA_FILE)
		why = "the image keeps its data in an external file, which is not supported; "
		      "convert it with qemu-img";
	else if (i->extended_l2)
		why = "the image has extended L2 entries, which are not supported; convert it with "
		      "qemu-img";
	else if (q->hdr.backing_offset)
		why = "the image has a backing file, which is not supported; flatten it with "
		      "qemu-img convert";
	else if (writable(q) && i->corrupt)
		why = "the image is marked corrupt; run 'znsimg check', or open it read-only";
	else if (writable(q) && i->dirty)
		why = "the image was not closed cleanly and its refcounts may be wrong (lazy "
		      "refcounts); run 'qemu-img check -r all' or open it read-only";
	else if (writable(q) && i->nb_snapshots)
		why = "the image has internal snapshots, which cannot be written to; delete them "
		      "or open it read-only";
	else if (q->flags & QCOW2_RESIZE && i->unclosed)
		why = "znsd did not close it, and what a killed znsd had not flushed may wait in "
		      "its shadow, for the size it has: start znsd on it once, then resize it";
	if (!why)
		return 0;
	refuse(q, err, "%s", why);
	return -ENOTSUP;
}

static int parse_header(struct qcow2 *q, char err[QCOW2_ERRLEN])
{
	struct disk_header h;
	struct extensions x;
	uint8_t *cluster;
	int ret;

	if (q->file_len < HEADER_V2_LENGTH)
		return refuse(q, err, "not a qcow2 image: it is only %llu bytes long",
			      (unsigned long long)q->file_len);
	ret = file_read(q->file, &h, sizeof(h), 0, 0);
	if (ret)
		return refuse_errno(q, err, ret, "the header cannot be read");
	if (be32toh(h.magic) != QCOW2_MAGIC)
		return refuse(q, err,
			      "not a qcow2 image: it begins with 0x%08x, 0x%08x was expected",
			      be32toh(h.magic), QCOW2_MAGIC);
	ret = check_geometry(q, &h, err);
	if (ret)
		return ret;
	cluster = malloc(q->cluster_size);
	if (!cluster)
		return refuse_errno(q, err, -ENOMEM, "the header cannot be read");
	ret = file_read(q->file, cluster, q->cluster_size, 0, 0);
	if (ret) {
		refuse_errno(q, err, ret, "the header cannot be read");
		goto out;
	}
	q->hdr.crypt_method = be32toh(h.crypt_method);
	ret = check_features(q, &h, err);
	if (!ret)
		ret = check_backing(q, &h, cluster, err);
	if (!ret)
		ret = read_extensions(q, cluster, &x, err);
	if (!ret)
		ret = check_unknown_features(q, &x, err);
	if (!ret)
		ret = check_l1(q, &h, err);
	if (!ret)
		ret = check_reftable(q, &h, err);
	if (!ret)
		ret = check_snapshots(q, &h, err);
	if (!ret)
		ret = check_zoned(q, &x, err);
	if (!ret)
		ret = check_servable(q, err);
out:
	free(cluster);
	return ret;
}

static int load_tables(struct qcow2 *q, size_t cache_bytes, char err[QCOW2_ERRLEN])
{
	bool whole = q->flags & QCOW2_RESIZE; /* what lies behind the end will be used */
	int ret = cache_init(q, cache_bytes);

	if (!ret)
		ret = toptable_read(q, &q->l1, q->hdr.l1_offset,
				    whole ? q->hdr.l1_size : l1_needed(q, q->info.size));
	if (!ret)
		ret = toptable_read(q, &q->reftable, q->hdr.reftable_offset,
				    ((uint64_t)q->hdr.reftable_clusters << q->cluster_bits) / 8);
	if (!ret)
		alloc_init(q);
	if (ret)
		return refuse_errno(q, err, ret, "the L1 and refcount tables cannot be read");
	return q->info.zoned.layout ? wp_load(q, err) : 0;
}

/* Derives an identity for an image that records none: it is stable while the file is the same. */
static void derive_uuid(struct qcow2 *q)
{
	struct stat st = { .st_ino = 1 };
	uint64_t half[2];

	if (q->file->fd >= 0)
		fstat(q->file->fd, &st);
	half[0] = (st.st_dev + 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
	half[1] = (st.st_ino ^ half[0]) * 0x94d049bb133111ebull;
	half[0] ^= half[1] >> 29;
	memcpy(q->info.uuid, half, QCOW2_UUID);
	q->info.uuid[6] = (q->info.uuid[6] & 0x0f) | 0x80; /* RFC 9562: version 8, our own */
	q->info.uuid[8] = (q->info.uuid[8] & 0x3f) | 0x80;
}

/*
 * Appends our header extension. What follows the end marker is written and synced first; then the 8
 * bytes of the marker are overwritten by the head of our extension, which a power cut cannot tear.
 */
static int record_uuid(struct qcow2 *q)
{
	struct disk_ext head = { htobe32(EXT_ZNSD), htobe32(sizeof(struct disk_znsd)) };
	struct {
		struct disk_znsd znsd;
		struct disk_ext end;
	} tail = { .end = { 0, 0 } };
	uint64_t at = q->hdr.ext_end;
	int err;

	if (!at || q->hdr.backing_offset || at % 8 ||
	    at + sizeof(head) + sizeof(tail) > q->cluster_size)
		return 0;
	if (getrandom(tail.znsd.uuid, QCOW2_UUID, 0) != QCOW2_UUID)
		return 0;
	tail.znsd.uuid[6] = (tail.znsd.uuid[6] & 0x0f) | 0x40; /* RFC 9562: version 4, random */
	tail.znsd.uuid[8] = (tail.znsd.uuid[8] & 0x3f) | 0x80;
	err = file_write(q->file, &tail, sizeof(tail), at + sizeof(head), 0);
	if (!err && !plant(identity_before_its_bytes))
		err = file_sync(q->file);
	if (!err)
		err = file_write(q->file, &head, sizeof(head), at, 0);
	if (!err && !plant(identity_not_durable))
		err = file_sync(q->file);
	if (err)
		return err;
	memcpy(q->info.uuid, tail.znsd.uuid, QCOW2_UUID);
	q->info.has_uuid = true;
	q->hdr.ext_znsd = at;
	q->hdr.ext_znsd_len = sizeof(tail.znsd);
	q->hdr.ext_end = at + sizeof(head) + sizeof(tail.znsd);
	return 0;
}

int clear_promises(struct qcow2 *q, uint64_t keep, char err[QCOW2_ERRLEN])
{
	const uint64_t none = 0;
	int ret = 0;

	if (q->hdr.autoclear & ~keep) {
		ret = file_write(q->file, &none, sizeof(none), AT(autoclear_features), 0);
		if (!ret && !plant(autoclear_not_durable))
			ret = file_sync(q->file);
		q->hdr.autoclear = 0;
	}
	return ret ? refuse_errno(q, err, ret, "the header cannot be written") : 0;
}

/*
 * Does the writes of a writable open: first it recovers a shadow that a killed process left, then
 * it records the identity, and last it starts the new shadow.
 */
static int begin_writing(struct qcow2 *q, const char *dir, char *notice, char err[QCOW2_ERRLEN])
{
	int ret = 0;

	if (!q->zones)
		dir = NULL;
	if (dir)
		ret = shadow_recover(q, dir, notice);
	if (ret)
		return refuse_errno(q, err, ret, "what a killed process left cannot be written");
	ret = clear_promises(q, dir ? AUTOCLEAR_SHADOW : 0, err);
	if (ret)
		return ret;
	if (!q->info.has_uuid) {
		ret = record_uuid(q);
		if (ret)
			return refuse_errno(q, err, ret, "the header cannot be written");
	}
	if (dir)
		shadow_prepare(q, dir, notice);
	ret = clear_promises(q, q->shadow ? AUTOCLEAR_SHADOW : 0, err);
	if (ret)
		return ret;
	ret = shadow_begin(q);
	return ret ? refuse_errno(q, err, ret, "the header cannot be written") : 0;
}

static int open_file(struct qcow2 *q, struct file *given, char err[QCOW2_ERRLEN])
{
	uint64_t len;
	unsigned int flags = (file_writable(q) ? 0 : FILE_RDONLY) |
			     (q->flags & QCOW2_DIRECT ? FILE_DIRECT : 0) |
			     (q->flags & QCOW2_LARGE_DIRECT ? FILE_DIRECT_WRITES : 0) |
			     (q->flags & QCOW2_UNSAFE ? FILE_UNSAFE : 0);
	int ret;

	q->file = given;
	if (!given) {
		ret = file_posix(q->path, flags, &q->file);
		if (ret) {
			snprintf(err, QCOW2_ERRLEN, "Could not open '%.400s': %s", q->path,
				 strerror(-ret));
			return ret;
		}
	}
	if (q->file->fd >= 0 && !(q->flags & QCOW2_NO_LOCK)) {
		ret = image_lock(q->file->fd, q->path, file_writable(q), err);
		if (ret)
			return ret;
	}
	ret = file_size(q->file, &len);
	if (ret)
		return refuse_errno(q, err, ret, "its length cannot be found");
	q->file_len = len;
	return 0;
}

/*
 * Syncs what a killed process may have left in the page cache. We have read it and rely on it from
 * now on, for example on the write pointer of a reset.
 */
static int settle(struct qcow2 *q, char err[QCOW2_ERRLEN])
{
	int ret = plant(open_trusts_the_page_cache) ? 0 : file_sync(q->file);

	return ret ? refuse_errno(q, err, ret, "it cannot be synced") : 0;
}

#define VIEW_MAX   (1ull << 44)
#define VIEW_SPARE (1ull << 30) /* for tables and deferred frees */

/* Maps the address space that the file may grow to. Reads beyond it, or without it, are copied. */
static void make_view(struct qcow2 *q)
{
	uint64_t len = q->info.size < VIEW_MAX / 2 ? 2 * q->info.size + VIEW_SPARE : VIEW_MAX;

	if (!q->zones || q->flags & QCOW2_INSPECT)
		return;
	q->view = file_map(q->file, len);
	q->view_len = q->view ? len : 0;
}

static void image_free(struct qcow2 *q)
{
	shadow_end(q, false);
	wp_free(q);
	toptable_free(&q->l1);
	toptable_free(&q->reftable);
	cache_free(q);
	free(q->quarantine.run);
	free(q->dead.run);
	free(q->flush.dead.run);
	free(q->flush.freed.run);
	reserve_free(q);
	resident_free(q);
	file_close(q->file);
	pthread_cond_destroy(&q->flush.ended);
	pthread_mutex_destroy(&q->lock);
	free(q->path);
	free(q);
}

int qcow2_open(const char *path, const struct qcow2_open_opts *opts, struct qcow2 **out,
	       char err[QCOW2_ERRLEN])
{
	char unread[QCOW2_ERRLEN], *notice = opts->notice ? opts->notice : unread;
	struct qcow2 *q = calloc(1, sizeof(*q));
	int ret;

	err[0] = 0;
	notice[0] = 0;
	if (q)
		q->path = strdup(path);
	if (!q || !q->path) {
		snprintf(err, QCOW2_ERRLEN, "%.400s: no memory", path);
		file_close(opts->file);
		free(q);
		return -ENOMEM;
	}
	q->flags = opts->flags;
	q->waited = opts->waited;
	pthread_mutex_init(&q->lock, NULL);
	flush_init(q);
	reserve_init(q);
	assert(!writable(q) || !(q->flags & (QCOW2_NO_LOCK | QCOW2_INSPECT)));
	q->info.read_only = !writable(q);
	ret = open_file(q, opts->file, err);
	if (!ret)
		ret = parse_header(q, err);
	if (!ret)
		ret = load_tables(q, opts->cache_bytes, err);
	if (!ret && writable(q))
		ret = places_check(q, err);
	if (!ret && writable(q))
		ret = settle(q, err);
	if (!ret && writable(q) && !(q->flags & QCOW2_RESIZE))
		ret = begin_writing(q, opts->shadow_dir, notice, err);
	if (ret) {
		image_free(q);
		return ret;
	}
	if (!q->info.has_uuid)
		derive_uuid(q);
	make_view(q);
	*out = q;
	return 0;
}

int qcow2_close(struct qcow2 *q)
{
	int err = plant(close_does_not_flush) ? 0 : qcow2_flush(q);

	if (!err)
		qcow2_trim(q);
	/* The last flush lowered refcounts without a sync: sync, or their clusters may leak. */
	if (!err && q->flush.leaks_unsynced && !plant(close_without_last_sync))
		err = file_sync(q->file);
	if (atomic_load(&q->poisoned)) /* the first error, not the -EROFS that followed it */
		err = atomic_load(&q->poisoned);
	shadow_end(q, !err);
	image_free(q);
	return err;
}

const struct qcow2_info *qcow2_info(const struct qcow2 *q)
{
	return &q->info;
}

int qcow2_file_sizes(struct qcow2 *q, uint64_t *allocated, uint64_t *length)
{
	struct stat st;
	uint64_t len;
	int err = file_size(q->file, &len);

	if (err)
		return err;
	*length = len;
	*allocated = len;
	if (q->file->fd >= 0) {
		if (fstat(q->file->fd, &st))
			return -errno;
		*allocated = 512 * (uint64_t)st.st_blocks;
	}
	return 0;
}
