/* SPDX-License-Identifier: MIT */
/*
 * qcow2_resize(): changes the number of zones, or of bytes of a plain disk.
 *
 * The disk's size, its L1 table, the number of zones and the offset of the write-pointer table must
 * change together: an open refuses a mix of old and new. All of these fields are in the first
 * sector of the file, and a sector is never torn. So a resize has these steps:
 *
 *	prepare		writes new tables into newly allocated clusters: a larger L1 table, and a
 *			write-pointer table with the old pointers and the start of each new zone
 *	sync
 *	publish		one write of the first sector: size, L1, zones
 *	sync
 *	clean up	frees the tables, and the mapping, that only the old size used
 *
 * 1. Before publish the image has its old size and after it the new one, whenever the power is cut.
 *    No step writes what the other size uses, so a power cut at worst leaks clusters.
 * 2. The zoned extension must lie in the first sector. In images with clusters larger than
 *    4096 bytes the feature name table stands before it and pushes it out; then publish also
 *    swaps the two:
 *
 *	0       112                     512
 *	| header | ... names ............|.... | ... zoned | identity ...	before
 *	| header | ... zoned | names ....|................ | identity ...	after
 *
 *    Until the second sector is written as well, a reader skips it as part of the feature names,
 *    the last of which are garbage then. The names are only used in messages. All else keeps its
 *    order and its bytes.
 * 3. New zones are empty and new space reads as zeroes. Mappings beyond the old end (left by
 *    another program, or by a shrink that was cut) are removed before that space becomes part of
 *    the disk, and the rest of the old last cluster is zeroed. A short last zone is extended; if it
 *    was full, it stays full.
 * 4. Shrinking a zoned disk loses no data: only empty zones are removed.
 * 5. When publish fails, nobody knows which size the file has. Then nothing is freed, and the image
 *    is poisoned: it can be closed, and opened again to see.
 * 6. Everything is validated before anything is written.
 *
 * One thread; no other thread uses the image.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "plant.h"

#define SECTOR	 512u
#define MAX_SIZE ((uint64_t)INT64_MAX & ~(uint64_t)(SECTOR - 1))

struct resize {
	struct qcow2 *q;
	uint64_t size, old_size;
	uint32_t zones, old_zones; /* 0: not zoned */
	/* New tables; nr 0: the old one is kept. */
	struct run new_l1, new_wps;
	struct toptable l1;
	/* The new contents of the first cluster. */
	uint8_t *head;
	uint32_t ext_zoned, ext_znsd; /* their offsets in it */
	uint32_t moved_end;	      /* it changes up to here; 0: only in the first sector */
};

__attribute__((format(printf, 3, 4))) static int
refuse(const struct resize *r, char err[QCOW2_ERRLEN], const char *fmt, ...)
{
	int n = snprintf(err, QCOW2_ERRLEN, "%.200s: ", r->q->path);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err + n, QCOW2_ERRLEN - n, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int failed(const struct resize *r, char err[QCOW2_ERRLEN], int ret, const char *what)
{
	refuse(r, err, "%s: %s", what, strerror(-ret));
	return ret;
}

static struct run clusters(const struct qcow2 *q, uint64_t host, uint64_t len)
{
	uint64_t end = align_up(host + len, q->cluster_size);

	return (struct run){ cluster_of(q, host), cluster_of(q, end) - cluster_of(q, host), false };
}

/* --- validation --- */

/* Checks that only empty zones are removed. */
static int judge_tail(const struct resize *r, char err[QCOW2_ERRLEN])
{
	const struct qcow2 *q = r->q;
	uint32_t first = r->zones, last = r->old_zones;

	while (first < last && qcow2_wp(q, first) == zone_start(q, first))
		first++;
	if (first >= last)
		return 0;
	while (qcow2_wp(q, last - 1) == zone_start(q, last - 1))
		last--;
	return refuse(
		r, err,
		"zone %u is not empty (its write pointer is 0x%llx, it starts at 0x%llx), and "
		"only empty zones can go: reset it, and what else is not empty up to zone %u, "
		"or take a size of at least %llu",
		first, (unsigned long long)qcow2_wp(q, first),
		(unsigned long long)zone_start(q, first), last - 1,
		(unsigned long long)zone_start(q, last));
}

static int judge_zones(struct resize *r, char err[QCOW2_ERRLEN])
{
	const struct qcow2_zoned *z = &r->q->info.zoned;
	uint64_t nr = r->size >> r->q->zone_bits, most = MAX_ZONES;
	uint64_t below = nr << r->q->zone_bits;

	if (most > WP_MASK >> r->q->zone_bits)
		most = WP_MASK >> r->q->zone_bits;
	if (nr > most || (nr == most && r->size != below))
		return refuse(r, err,
			      "a size of %llu is more than %llu zones of %llu, as many as an image "
			      "can have: the largest size is %llu",
			      (unsigned long long)r->size, (unsigned long long)most,
			      (unsigned long long)z->zone_size,
			      (unsigned long long)(most << r->q->zone_bits));
	if (nr < z->conventional_zones || (nr == z->conventional_zones && r->size == below))
		return refuse(r, err,
			      "a size of %llu leaves no sequential zone, the first %u are "
			      "conventional: the smallest size is %llu",
			      (unsigned long long)r->size, z->conventional_zones,
			      (unsigned long long)(z->conventional_zones + 1ull)
				      << r->q->zone_bits);
	if (r->size != below)
		return refuse(r, err,
			      "a size of %llu is not whole zones of %llu: the nearest are %llu "
			      "(%llu zones) and %llu (%llu)",
			      (unsigned long long)r->size, (unsigned long long)z->zone_size,
			      (unsigned long long)below, (unsigned long long)nr,
			      (unsigned long long)(below + z->zone_size),
			      (unsigned long long)(nr + 1));
	r->zones = (uint32_t)nr;
	return judge_tail(r, err);
}

static int judge_size(struct resize *r, bool shrink, char err[QCOW2_ERRLEN])
{
	const struct qcow2 *q = r->q;

	if (!r->size || r->size % SECTOR || r->size > MAX_SIZE)
		return refuse(r, err,
			      "a size of %llu cannot be: it must be a positive multiple of 512 "
			      "below 2^63",
			      (unsigned long long)r->size);
	if (l1_needed(q, r->size) > MAX_L1_BYTES / 8)
		return refuse(r, err,
			      "a size of %llu is too large for clusters of %llu bytes, with which "
			      "at most %llu is possible: make a new image with larger ones",
			      (unsigned long long)r->size, (unsigned long long)q->cluster_size,
			      (unsigned long long)(MAX_L1_BYTES / 8)
				      << (q->cluster_bits + q->l2_bits));
	if (r->size < r->old_size && !shrink)
		return refuse(r, err,
			      "a size of %llu is less than the %llu it has, and shrinking was not "
			      "asked for",
			      (unsigned long long)r->size, (unsigned long long)r->old_size);
	return q->zones ? judge_zones(r, err) : 0;
}

/* Finds the feature name table before the zoned extension in HEAD; *END 0: there is none. */
static void find_names(const struct resize *r, uint32_t *names, uint32_t *end)
{
	uint32_t next;

	*names = *end = 0;
	for (uint32_t at = r->q->hdr.header_length; at < r->ext_zoned; at = next) {
		struct disk_ext ext;

		memcpy(&ext, r->head + at, sizeof(ext));
		if (be32toh(ext.len) > r->ext_zoned - at) /* not the header that was validated */
			return;
		next = at + sizeof(ext) + align_up(be32toh(ext.len), 8);
		if (ext.magic == htobe32(EXT_FEATURE_NAMES)) {
			*names = at;
			*end = next;
		}
	}
}

/* Moves the zoned extension into the first sector of HEAD: see 2 above. */
static int place_extension(struct resize *r, char err[QCOW2_ERRLEN])
{
	const struct header *h = &r->q->hdr;
	uint32_t end = h->ext_zoned + sizeof(struct disk_ext) + align_up(h->ext_zoned_len, 8);
	uint32_t names, names_end, len;
	uint8_t *copy;

	if (h->ext_zoned + sizeof(struct disk_ext) + h->ext_zoned_len <= SECTOR)
		return 0;
	find_names(r, &names, &names_end);
	len = names_end - names;
	/* The sector must hold the head of the names, too: readers skip the second by it. */
	if (!len || end - len + sizeof(struct disk_ext) > SECTOR)
		return refuse(r, err,
			      "the zoned extension at offset %u ends behind the header's first "
			      "sector, and what lies before it leaves no room for it there, so the "
			      "size cannot be changed safely; copy the data into a new image",
			      h->ext_zoned);
	copy = malloc(len);
	if (!copy)
		return failed(r, err, -ENOMEM, "it cannot be resized");
	memcpy(copy, r->head + names, len);
	memmove(r->head + names, r->head + names_end, end - names_end);
	memcpy(r->head + end - len, copy, len);
	free(copy);
	r->ext_zoned -= len;
	if (h->ext_znsd > names && h->ext_znsd < h->ext_zoned)
		r->ext_znsd -= len;
	r->moved_end = end < r->q->cluster_size ? end : r->q->cluster_size;
	return 0;
}

static int read_head(struct resize *r, char err[QCOW2_ERRLEN])
{
	struct qcow2 *q = r->q;
	int ret;

	free(r->head);
	/* 8 more, because the padding of the last extension may lie beyond the cluster. */
	r->head = calloc(1, q->cluster_size + 8);
	ret = r->head ? file_read(q->file, r->head, q->cluster_size, 0, 0) : -ENOMEM;
	if (ret)
		return failed(r, err, ret, "the header cannot be read");
	r->ext_zoned = q->hdr.ext_zoned;
	r->ext_znsd = q->hdr.ext_znsd;
	return q->zones ? place_extension(r, err) : 0;
}

/* --- prepare --- */

/* Unmaps everything from OFF on, also beyond the end of the disk. */
static int unmap_from(struct qcow2 *q, uint64_t off)
{
	uint64_t step = q->cluster_size << q->l2_bits, next;
	int err = 0;

	for (; off < q->l1.nr * step && !err; off = next) {
		next = (off / step + 1) * step;
		err = map_unmap(q, off, next);
		if (!err && cache_nearly_full(q))
			err = flush_locked(q);
	}
	return err;
}

/* Zeroes the part of the last cluster beyond the end of the disk. */
static int zero_behind(struct qcow2 *q, uint64_t end)
{
	struct mapping m;
	uint64_t run;
	int err;

	if (!in_cluster(q, end))
		return 0;
	err = map_lookup(q, end, 1, &m, &run);
	if (err || m.kind != CLUSTER_DATA)
		return err;
	q->meta_unsynced = true;
	return file_discard(q->file, m.host, q->cluster_size - in_cluster(q, end));
}

/* Allocates memory for the new zones: after publish nothing may fail for lack of it. */
static int make_room(struct resize *r)
{
	struct qcow2 *q = r->q;
	size_t nr = r->zones > r->old_zones ? r->zones : r->old_zones;
	_Atomic uint64_t *wp;
	struct zone_rec *zones;

	zones = realloc(q->zones, nr * sizeof(*zones));
	if (!zones)
		return -ENOMEM;
	q->zones = zones;
	memset(zones + r->old_zones, 0, (nr - r->old_zones) * sizeof(*zones));
	wp = realloc(q->wp, nr * sizeof(*wp));
	if (!wp)
		return -ENOMEM;
	q->wp = wp;
	return 0;
}

/* Allocates contiguous clusters for a table of LEN bytes. */
static int make_place(struct qcow2 *q, uint64_t len, struct run *out)
{
	uint64_t nr = cluster_of(q, align_up(len, q->cluster_size)), host, got;
	int err = alloc_data(q, nr, nr, &host, &got);

	if (!err)
		*out = clusters(q, host, len);
	return err;
}

static int make_l1(struct resize *r)
{
	uint64_t nr = l1_needed(r->q, r->size);
	int err;

	if (nr <= r->q->hdr.l1_size)
		return 0;
	err = make_place(r->q, 8 * nr, &r->new_l1);
	if (!err)
		err = toptable_grow(&r->l1, r->new_l1.first << r->q->cluster_bits, nr);
	if (err)
		return err;
	memcpy(r->l1.entry, r->q->l1.entry, r->q->l1.nr * sizeof(*r->l1.entry));
	return toptable_write(r->q, &r->l1);
}

/* The new write pointer of ZONE: a short zone that was full is still full when it is extended. */
static uint64_t pointer(const struct resize *r, uint32_t zone)
{
	const struct qcow2 *q = r->q;
	uint64_t start = zone_start(q, zone);

	if (zone >= r->old_zones || plant(resize_forgets_pointers))
		return start;
	if (qcow2_wp(q, zone) >= zone_writable_end(q, zone) &&
	    zone_writable_end(q, zone) < start + q->info.zoned.zone_capacity)
		return start + q->info.zoned.zone_capacity;
	return qcow2_wp(q, zone);
}

static int make_pointers(struct resize *r)
{
	struct qcow2 *q = r->q;
	const struct qcow2_zoned *z = &q->info.zoned;
	size_t len = 8 * (size_t)r->zones;
	uint64_t *be;
	int err;

	if (r->zones <= r->old_zones && r->size <= r->old_size)
		return 0;
	be = malloc(len);
	if (!be)
		return -ENOMEM;
	for (uint32_t i = 0; i < r->zones; i++)
		be[i] = htobe64(pointer(r, i) |
				(i < z->conventional_zones ? 1ull << z->marker_bit : 0));
	err = make_place(q, len, &r->new_wps);
	if (!err)
		err = meta_write(q, be, len, r->new_wps.first << q->cluster_bits);
	free(be);
	return err;
}

/* Frees the new tables again, by the next flush; if that fails they leak. */
static void unmake(struct resize *r)
{
	if (r->new_l1.nr)
		quarantine_add(r->q, r->new_l1.first, r->new_l1.nr);
	if (r->new_wps.nr)
		quarantine_add(r->q, r->new_wps.first, r->new_wps.nr);
}

static int make_beside(struct resize *r)
{
	struct qcow2 *q = r->q;
	int err = 0;

	if (r->size > r->old_size) {
		err = unmap_from(q, r->old_size);
		if (!err)
			err = zero_behind(q, r->old_size);
	}
	if (!err) /* so that L1 does not change any more */
		err = flush_locked(q);
	if (!err && r->zones)
		err = make_room(r);
	if (!err)
		err = make_l1(r);
	if (!err && r->zones)
		err = make_pointers(r);
	if (!err && !plant(resize_publishes_first))
		err = flush_locked(q);
	return err;
}

/* --- publish --- */

static struct qcow2_zoned new_zoned(const struct resize *r)
{
	struct qcow2_zoned z = r->q->info.zoned;

	z.nr_zones = r->zones;
	if (r->new_wps.nr)
		z.zonedmeta_offset = r->new_wps.first << r->q->cluster_bits;
	return z;
}

static void encode(struct resize *r)
{
	struct disk_header h;
	struct qcow2_zoned z = new_zoned(r);

	memcpy(&h, r->head, HEADER_V2_LENGTH);
	h.size = htobe64(r->size);
	if (r->new_l1.nr) {
		h.l1_size = htobe32(r->l1.nr);
		h.l1_table_offset = htobe64(r->l1.off);
	}
	memcpy(r->head, &h, HEADER_V2_LENGTH);
	if (r->zones)
		layout_encode(&z, r->head + r->ext_zoned + sizeof(struct disk_ext));
}

static int publish(struct resize *r)
{
	struct qcow2 *q = r->q;
	int err = 0;

	encode(r);
	if (plant(resize_in_two_writes))
		err = meta_write(q, r->head, offsetof(struct disk_header, crypt_method), 0);
	if (!err)
		err = meta_write(q, r->head, SECTOR, 0);
	if (!err && !plant(resize_publish_not_synced))
		err = meta_sync(q);
	if (err)
		atomic_store(&q->poisoned, err);
	return err;
}

/* --- clean up --- */

/*
 * Switches the image in memory to the new size. What it no longer uses is freed by a later flush;
 * what cannot be noted for that, for lack of memory, leaks.
 */
static void take_over(struct resize *r)
{
	struct qcow2 *q = r->q;
	struct qcow2_zoned *z = &q->info.zoned;
	struct run l1 = clusters(q, q->hdr.l1_offset, 8ull * q->hdr.l1_size);
	struct run wps = clusters(q, z->zonedmeta_offset, 8ull * r->old_zones);

	for (uint32_t i = r->zones; i < r->old_zones; i++)
		zmap_drop(q, i);
	for (uint32_t i = 0; i < r->zones; i++) {
		q->zones[i].recorded = pointer(r, i);
		atomic_store(&q->wp[i], q->zones[i].recorded);
	}
	*z = new_zoned(r);
	q->info.size = r->size;
	q->hdr.ext_zoned = r->ext_zoned;
	q->hdr.ext_znsd = r->ext_znsd;
	if (r->new_l1.nr) {
		toptable_free(&q->l1);
		q->l1 = r->l1;
		memset(&r->l1, 0, sizeof(r->l1));
		q->hdr.l1_offset = q->l1.off;
		q->hdr.l1_size = q->l1.nr;
		if (l1.nr)
			quarantine_add(q, l1.first, l1.nr);
	}
	if (r->zones && !r->new_wps.nr) { /* fewer zones: the first part of the table stays */
		uint64_t kept = clusters(q, z->zonedmeta_offset, 8ull * r->zones).nr;

		wps.first += kept;
		wps.nr -= kept;
	}
	if (wps.nr)
		quarantine_add(q, wps.first, wps.nr);
}

static int give_back(struct resize *r)
{
	struct qcow2 *q = r->q;
	int err = 0;

	if (r->moved_end)
		err = meta_write(q, r->head + SECTOR, r->moved_end - SECTOR, SECTOR);
	if (!err && r->size < r->old_size)
		err = unmap_from(q, r->size);
	return err ? err : flush_locked(q);
}

static int act(struct resize *r, char err[QCOW2_ERRLEN])
{
	int ret = make_beside(r);

	if (!ret && !plant(resize_keeps_an_old_header))
		ret = read_head(r, err); /* the flush may have moved the refcount table */
	if (ret)
		unmake(r);
	if (ret)
		return failed(r, err, ret,
			      "it has its old size, what the new one needs cannot be "
			      "written");
	ret = publish(r);
	if (ret)
		return failed(r, err, ret,
			      "the header cannot be written, so it may have its old "
			      "size or the new one; see 'znsimg info'");
	take_over(r);
	ret = give_back(r);
	if (ret)
		return failed(r, err, ret,
			      "it has its new size, but what it no longer uses may be "
			      "leaked; see 'znsimg check'");
	return 0;
}

int qcow2_resize(struct qcow2 *q, uint64_t size, bool shrink, char err[QCOW2_ERRLEN])
{
	struct resize r = {
		.q = q,
		.size = size,
		.old_size = q->info.size,
		.old_zones = q->info.zoned.nr_zones,
	};
	int ret;

	assert(q->flags & QCOW2_RESIZE);
	err[0] = 0;
	if (size == r.old_size)
		return 0;
	pthread_mutex_lock(&q->lock);
	ret = judge_size(&r, shrink, err);
	if (!ret)
		ret = read_head(&r, err);
	if (!ret)
		ret = clear_promises(q, 0, err);
	if (!ret)
		ret = act(&r, err);
	pthread_mutex_unlock(&q->lock);
	toptable_free(&r.l1);
	free(r.head);
	return ret;
}
