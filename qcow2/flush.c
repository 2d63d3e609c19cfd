/* SPDX-License-Identifier: MIT */
/*
 * The law of write order, executed in one place: flush_locked().
 *
 *   grow:   refcount, map, data, write pointer
 *   shrink: write pointer, map, refcount, and only then reuse
 *
 * Between flushes all dirty metadata is only in memory. So after a crash at any moment, the image
 * contains what complete steps of flushes wrote, and a prefix of one more step:
 *
 * 1. A write pointer on disk is never ahead of its data: pointers are copied before the data is
 *    synced, and written after that.
 * 2. The pointer of a reset is on disk before the zone's clusters are unmapped, and the unmapping
 *    is on disk before the clusters are reused.
 * 3. Before a table refers to a cluster, the cluster's refcount is on disk, and so is its content
 *    if it is a table itself.
 * 4. No more zones are partly written than the limit allows. That a zone was reset is on disk
 *    before any pointer advances. If the limit could be exceeded otherwise, that a zone is full
 *    is on disk before the pointer of another leaves its start. The collected pointers keep the
 *    limit (wp.c).
 *
 * So a crash may leak clusters, but leaves no dangling reference. Every step and every sync that
 * has nothing to do is skipped, and dirty objects are on lists: a flush costs what changed.
 *
 * After a failed write its step stays dirty, and the next flush begins from the start. A failed
 * sync poisons the image: nobody knows what reached the disk, and another sync would not report it.
 */
#include <errno.h>

#include "image.h"
#include "plant.h"

/* Syncs between two steps, if something was written that must be durable before the next. */
static int barrier(struct qcow2 *q)
{
	return q->barrier_due ? meta_sync(q) : 0;
}

/* Writes the header's two fields for the refcount table; 12 bytes in one sector, never torn. */
static int write_reftable_place(struct qcow2 *q)
{
	struct {
		uint64_t off;
		uint32_t clusters;
	} __attribute__((packed)) be = {
		htobe64(q->hdr.reftable_offset),
		htobe32(q->hdr.reftable_clusters),
	};

	return meta_write(q, &be, sizeof(be), offsetof(struct disk_header, refcount_table_offset));
}

static int write_refcounts(struct qcow2 *q)
{
	int err = cache_write(q, TABLE_REFBLOCK);

	if (err)
		return err;
	if (q->refs_grew)
		q->barrier_due = true;
	q->refs_grew = false;
	if (!toptable_dirty(&q->reftable) && !q->reftable_moved)
		return 0;
	/* the blocks must be durable before the table refers to them */
	err = plant(reftable_before_blocks) ? 0 : barrier(q);
	if (err)
		return err;
	err = toptable_write(q, &q->reftable);
	if (err)
		return err;
	q->barrier_due = true;
	if (!q->reftable_moved)
		return 0;
	/* the new table must be durable before the header refers to it */
	err = plant(header_before_reftable) ? 0 : barrier(q);
	if (err)
		return err;
	err = write_reftable_place(q);
	if (err)
		return err;
	q->barrier_due = true;
	q->reftable_moved = false;
	return 0;
}

static int write_map(struct qcow2 *q)
{
	int err = cache_write(q, TABLE_L2);

	if (err || !toptable_dirty(&q->l1))
		return err;
	if (q->meta_unsynced && !plant(l1_before_l2)) { /* L2 tables before L1 refers to them */
		err = meta_sync(q);
		if (err)
			return err;
	}
	return toptable_write(q, &q->l1);
}

/* Syncs everything written so far, mapping and data. */
static int sync_all(struct qcow2 *q)
{
	return q->meta_unsynced || atomic_load(&q->data_unsynced) ? meta_sync(q) : 0;
}

/* Frees what was unmapped. Needs no write order: if these writes are lost, the clusters leak. */
static int release(struct qcow2 *q)
{
	bool synced = !q->meta_unsynced;
	int err = quarantine_release(q);

	if (!err)
		err = cache_write(q, TABLE_REFBLOCK);
	if (synced && q->meta_unsynced) {
		q->meta_unsynced = false;
		q->leaks_unsynced = true;
	}
	return err;
}

int flush_locked(struct qcow2 *q)
{
	int err;

	if (atomic_load(&q->poisoned))
		return -EROFS;
	if (plant(log_emptied_early))
		shadow_flushed(q, shadow_next(q));
	err = wp_collect(q);
	if (!err && plant(reuse_before_reset_is_durable))
		err = release(q);
	if (!err && !plant(reset_with_the_advances))
		err = wp_write_resets(q);
	if (!err && plant(map_before_refcounts))
		err = write_map(q);
	if (!err && plant(pointers_before_map))
		err = wp_write_advances(q);
	if (!err)
		err = write_refcounts(q);
	if (!err && !plant(no_sync_before_map))
		err = barrier(q);
	if (!err)
		err = write_map(q);
	if (!err && !plant(no_sync_before_pointers))
		err = sync_all(q);
	if (!err)
		err = wp_write_full(q);
	if (!err && !plant(no_sync_after_full))
		err = barrier(q);
	if (!err)
		err = wp_write_advances(q);
	if (!err && !plant(no_sync_at_the_end))
		err = sync_all(q);
	if (!err && q->nr_quarantine)
		err = release(q);
	wp_requeue(q); /* those not recorded stay dirty */
	if (!err) {
		atomic_store_explicit(&q->meta_dirty, false, memory_order_relaxed);
		shadow_flushed(q, shadow_next(q));
	}
	return err;
}

int qcow2_flush(struct qcow2 *q)
{
	int err;

	if (plant(flush_believes_the_hint) && !qcow2_dirty(q))
		return 0;
	if (q->flags & QCOW2_RDONLY)
		return 0;
	pthread_mutex_lock(&q->lock);
	err = flush_locked(q);
	pthread_mutex_unlock(&q->lock);
	return err;
}

bool qcow2_dirty(const struct qcow2 *q)
{
	return atomic_load_explicit(&q->meta_dirty, memory_order_relaxed) ||
	       atomic_load_explicit(&q->dirty_zones, memory_order_relaxed);
}
