/* SPDX-License-Identifier: MIT */
/*
 * Refcounts: blocks of counters, each of 1 to 64 bits, that the refcount table refers to.
 *
 * 1. New blocks and tables have refcounts like all other clusters; a block may contain its own. A
 *    new block is at the end of the file or in a range that already has a block, so adding one
 *    needs at most one more.
 * 2. Raising a refcount sets q->refs_grew: it is on disk before any table that needs it. Lowering
 *    needs no order, because it happens after the mapping is gone from the disk.
 * 3. A refcount never exceeds its maximum or falls below 0; an image in which it would is
 *    corrupt (-EIO).
 *
 * All under q->lock.
 */
#include <errno.h>
#include <string.h>

#include "alloc.h"

#define TABLE_SLACK 16 /* entries to spare when the refcount table grows */

static uint64_t refblock_entries(const struct qcow2 *q)
{
	return 1ull << q->refblock_bits;
}

/* Gets the block that has the refcount of CLUSTER, pinned; NULL: there is none. */
static int refblock_get(struct qcow2 *q, uint64_t cluster, struct table **out)
{
	uint64_t i = cluster >> q->refblock_bits;
	uint64_t off = i < q->reftable.nr ? q->reftable.entry[i] & REFTABLE_OFFSET_MASK : 0;

	*out = NULL;
	return off ? cache_get(q, off, TABLE_REFBLOCK, out) : 0;
}

int ref_get(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
	struct table *t;
	int err = refblock_get(q, cluster, &t);

	if (err)
		return err;
	*count = 0;
	if (t) {
		*count = refcount_get(t->data, cluster & (refblock_entries(q) - 1),
				      q->refcount_order);
		cache_put(q, t);
	}
	return 0;
}

int ref_run(struct qcow2 *q, uint64_t first, uint64_t max, bool *is_free, uint64_t *len)
{
	uint64_t done = 0;

	while (done < max) {
		uint64_t cluster = first + done;
		uint64_t i = cluster & (refblock_entries(q) - 1);
		uint64_t end = i + (max - done);
		struct table *t;
		int err = refblock_get(q, cluster, &t);
		bool differs = false;

		if (err)
			return err;
		if (end > refblock_entries(q))
			end = refblock_entries(q);
		if (!done)
			*is_free = !t || !refcount_get(t->data, i, q->refcount_order);
		if (!t) {
			differs = !*is_free;
			done += differs ? 0 : end - i;
		} else {
			for (; i < end && !differs; i++) {
				differs = !refcount_get(t->data, i, q->refcount_order) != *is_free;
				done += !differs;
			}
			cache_put(q, t);
		}
		if (differs)
			break;
	}
	*len = done;
	return 0;
}

/*
 * Replaces the refcount table by one of at least NEED entries at the end of the file. The old one
 * is freed after the header refers to the new one.
 */
static int grow_reftable(struct qcow2 *q, uint64_t need)
{
	struct toptable *t = &q->reftable;
	uint64_t per_cluster = q->cluster_size / 8, old_first = cluster_of(q, t->off);
	uint32_t old_nr = t->nr;
	uint64_t entries = need + need / 2 + TABLE_SLACK, clusters, first;
	int err;

	entries = align_up(entries, per_cluster);
	if (entries * 8 > MAX_REFTABLE_BYTES)
		entries = MAX_REFTABLE_BYTES / 8;
	/* The new table must also cover itself and the blocks for it. */
	if (entries < need + TABLE_SLACK)
		return -ENOSPC;
	clusters = align_up(entries * 8, q->cluster_size) >> q->cluster_bits;
	if ((q->end_cluster + clusters) >> q->refblock_bits >= entries - 4)
		return -ENOSPC;
	err = quarantine_reserve(q, 1);
	if (err)
		return err;
	err = toptable_grow(t, t->off, entries);
	if (err)
		return err;
	err = alloc_at_end(q, clusters, &first);
	if (!err)
		err = ref_adjust(q, first, clusters, true);
	if (err) {
		t->nr = old_nr;
		return err;
	}
	shadow_spare(q, first << q->cluster_bits, clusters << q->cluster_bits);
	quarantine_add(q, old_first, q->hdr.reftable_clusters);
	t->off = first << q->cluster_bits;
	q->hdr.reftable_offset = t->off;
	q->hdr.reftable_clusters = clusters;
	q->reftable_moved = true;
	return 0;
}

/* Gets the block that has the refcount of CLUSTER, pinned and dirty; creates it if missing. */
static int refblock_for_write(struct qcow2 *q, uint64_t cluster, struct table **out)
{
	uint64_t i = cluster >> q->refblock_bits, off;
	struct table *t;
	int err;

	if (i >= q->reftable.nr) {
		err = grow_reftable(q, i + 1);
		if (err)
			return err;
	}
	err = refblock_get(q, cluster, &t);
	if (err)
		return err;
	if (t) {
		cache_mark(q, t);
		*out = t;
		return 0;
	}
	err = alloc_raw_table(q, &off);
	if (err)
		return err;
	err = cache_new(q, off, TABLE_REFBLOCK, &t);
	if (err)
		return err;
	toptable_set(&q->reftable, i, off);
	err = ref_adjust(q, cluster_of(q, off), 1, true);
	if (err) {
		toptable_set(&q->reftable, i, 0);
		cache_put(q, t);
		cache_forget(q, off);
		return err;
	}
	*out = t;
	return 0;
}

/* Raises or lowers NR refcounts of block T, from index I on, by one; *DONE: of how many. */
static int adjust_block(struct qcow2 *q, struct table *t, uint64_t i, uint64_t nr, bool raise,
			uint64_t *done)
{
	for (*done = 0; *done < nr; ++*done) {
		uint64_t count = refcount_get(t->data, i + *done, q->refcount_order);

		if (raise ? count == refcount_max(q->refcount_order) : !count)
			return -EIO;
		refcount_set(t->data, i + *done, q->refcount_order, raise ? count + 1 : count - 1);
	}
	return 0;
}

int ref_adjust(struct qcow2 *q, uint64_t first, uint64_t nr, bool raise)
{
	uint64_t done = 0;
	int err = 0;

	while (done < nr) {
		uint64_t cluster = first + done, n, did;
		uint64_t i = cluster & (refblock_entries(q) - 1);
		struct table *t;

		err = refblock_for_write(q, cluster, &t);
		if (err)
			break;
		n = refblock_entries(q) - i;
		if (n > nr - done)
			n = nr - done;
		err = adjust_block(q, t, i, n, raise, &did);
		cache_put(q, t);
		done += did;
		if (err)
			break;
	}
	if (raise)
		q->refs_grew = true;
	if (err && done) /* undo: these blocks are dirty, hence cached, so this cannot fail */
		ref_adjust(q, first, done, !raise);
	return err;
}
