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
 * Nobody waits for these writes and syncs but those who want what they make durable. A flush
 * copies, under q->lock, all that is dirty. It writes the copies without the lock, while others
 * map, unmap and allocate. Then it takes the lock again and frees clusters. What others do
 * meanwhile is for the next flush: one runs at a time, and each writes the image as it was when it
 * began. In particular, it does not free what was unmapped after that; and its pointer of a zone
 * that was reset after that is the one before the reset, whose data is still there.
 *
 * Without memory for the copies the lock is kept, and the rest is written from the tables.
 *
 * After a failed write all that was collected is dirty again, and the next flush begins from the
 * start. A failed sync poisons the image: nobody knows what reached the disk, and another sync
 * would not report it.
 */
#include <errno.h>
#include <time.h>

#include "image.h"
#include "plant.h"

/* Syncs between two steps, if something was written that must be durable before the next. */
static int barrier(struct qcow2 *q)
{
	return q->flush.barrier_due ? meta_sync(q) : 0;
}

/* Writes the header's two fields for the refcount table; 12 bytes in one sector, never torn. */
static int write_reftable_place(struct qcow2 *q)
{
	struct {
		uint64_t off;
		uint32_t clusters;
	} __attribute__((packed)) be = {
		htobe64(q->flush.reftable_offset),
		htobe32(q->flush.reftable_clusters),
	};

	return meta_write(q, &be, sizeof(be), offsetof(struct disk_header, refcount_table_offset));
}

/* The tables of KIND that were dirty when the flush began. */
static int write_tables(struct qcow2 *q, const struct image_writes *copies, enum table_kind kind)
{
	int err = meta_write_all(q, copies);

	return !err && q->flush.locked ? cache_write(q, kind) : err;
}

/* What was dirty of T when the flush began. */
static int write_top(struct qcow2 *q, const struct image_writes *copies, struct toptable *t)
{
	int err = meta_write_all(q, copies);

	return !err && q->flush.locked ? toptable_write(q, t) : err;
}

static bool top_changed(const struct qcow2 *q, const struct image_writes *copies,
			const struct toptable *t)
{
	return !STAILQ_EMPTY(copies) || (q->flush.locked && toptable_dirty(t));
}

static int write_refcounts(struct qcow2 *q)
{
	struct flush *f = &q->flush;
	int err = write_tables(q, &f->refblocks, TABLE_REFBLOCK);

	if (err)
		return err;
	if (f->refs_grew)
		f->barrier_due = true;
	f->refs_grew = false;
	if (!top_changed(q, &f->reftable, &q->reftable) && !f->reftable_moved)
		return 0;
	/* the blocks must be durable before the table refers to them */
	err = plant(reftable_before_blocks) ? 0 : barrier(q);
	if (err)
		return err;
	err = write_top(q, &f->reftable, &q->reftable);
	if (err)
		return err;
	f->barrier_due = true;
	if (!f->reftable_moved)
		return 0;
	/* the new table must be durable before the header refers to it */
	err = plant(header_before_reftable) ? 0 : barrier(q);
	if (err)
		return err;
	err = write_reftable_place(q);
	if (err)
		return err;
	f->barrier_due = true;
	f->reftable_moved = false;
	return 0;
}

static int write_map(struct qcow2 *q)
{
	struct flush *f = &q->flush;
	int err = write_tables(q, &f->l2, TABLE_L2);

	if (err || !top_changed(q, &f->l1, &q->l1))
		return err;
	if (f->meta_unsynced && !plant(l1_before_l2)) { /* L2 tables before L1 refers to them */
		err = meta_sync(q);
		if (err)
			return err;
	}
	return write_top(q, &f->l1, &q->l1);
}

/* Syncs everything written so far, mapping and data. */
static int sync_all(struct qcow2 *q)
{
	return q->flush.meta_unsynced || atomic_load(&q->data_unsynced) ? meta_sync(q) : 0;
}

/* Drops the references in LIST. Needs no write order: if that is lost, clusters leak. */
static int release(struct qcow2 *q, struct runs *list)
{
	struct flush *f = &q->flush;
	bool synced = !f->meta_unsynced;
	int err = runs_drop(q, list);

	if (!err)
		err = cache_write(q, TABLE_REFBLOCK);
	if (synced && f->meta_unsynced) {
		f->meta_unsynced = false;
		f->leaks_unsynced = true;
	}
	return err;
}

void flush_init(struct qcow2 *q)
{
	struct flush *f = &q->flush;

	pthread_cond_init(&f->ended, NULL);
	STAILQ_INIT(&f->refblocks);
	STAILQ_INIT(&f->reftable);
	STAILQ_INIT(&f->l2);
	STAILQ_INIT(&f->l1);
}

/* Passes what one flag notes on to another. */
static void take_flag(bool *to, bool *from)
{
	*to |= *from;
	*from = false;
}

static int copy_tables(struct qcow2 *q)
{
	struct flush *f = &q->flush;
	int err = cache_collect(q, TABLE_REFBLOCK, &f->refblocks);

	if (!err)
		err = toptable_collect(&q->reftable, &f->reftable);
	if (!err)
		err = cache_collect(q, TABLE_L2, &f->l2);
	if (!err)
		err = toptable_collect(&q->l1, &f->l1);
	return err;
}

/* Collects what is dirty, as of this moment. Under q->lock. */
static int collect(struct qcow2 *q)
{
	struct flush *f = &q->flush;
	int err = wp_collect(q);

	if (!err && plant(reuse_before_reset_is_durable))
		err = release(q, &q->quarantine);
	atomic_store_explicit(&q->meta_dirty, false, memory_order_relaxed);
	take_flag(&f->refs_grew, &q->refs_grew);
	take_flag(&f->reftable_moved, &q->reftable_moved);
	take_flag(&f->barrier_due, &q->barrier_due);
	take_flag(&f->meta_unsynced, &q->meta_unsynced);
	f->reftable_offset = q->hdr.reftable_offset;
	f->reftable_clusters = q->hdr.reftable_clusters;
	q->unrecorded.nr = 0;
	runs_move(&f->freed, &q->quarantine);
	runs_move(&f->freed, &f->dead);
	runs_move(&f->freed, &q->dead);
	f->log_next = shadow_next(q);
	if (!err)
		f->locked = copy_tables(q) != 0;
	return err;
}

/* Writes what was collected, in the order of the law. No lock, unless f->locked. */
static int write_collected(struct qcow2 *q)
{
	int err = 0;

	if (!plant(reset_with_the_advances))
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
	return err;
}

/* Frees what is not in use any more, and puts back what was not written. Under q->lock. */
static int settle(struct qcow2 *q, int err)
{
	struct flush *f = &q->flush;

	cache_collected(q, &f->refblocks, !err);
	toptable_collected(&q->reftable, &f->reftable, !err);
	cache_collected(q, &f->l2, !err);
	toptable_collected(&q->l1, &f->l1, !err);
	if (plant(freed_while_flushed))
		runs_move(&f->freed, &q->quarantine);
	if (!err && f->freed.nr)
		err = release(q, &f->freed);
	wp_requeue(q); /* those not recorded stay dirty */
	if (err)
		atomic_store_explicit(&q->meta_dirty, true, memory_order_relaxed);
	else
		shadow_flushed(q, plant(log_emptied_late) ? shadow_next(q) : f->log_next);
	return err;
}

/* Frees what no flush has recorded. So its data is not written by the syncs that follow. */
static int drop_dead(struct qcow2 *q)
{
	runs_move(&q->flush.dead, &q->dead);
	return runs_drop(q, &q->flush.dead);
}

int flush_locked(struct qcow2 *q)
{
	struct flush *f = &q->flush;
	int err;

	while (f->running)
		pthread_cond_wait(&f->ended, &q->lock);
	if (atomic_load(&q->poisoned))
		return -EROFS;
	if (plant(log_emptied_early))
		shadow_flushed(q, shadow_next(q));
	f->running = true;
	err = drop_dead(q);
	if (!err)
		err = collect(q);
	if (!f->locked)
		pthread_mutex_unlock(&q->lock);
	if (!err)
		err = write_collected(q);
	if (!f->locked)
		pthread_mutex_lock(&q->lock);
	f->locked = false;
	err = settle(q, err);
	f->running = false;
	pthread_cond_broadcast(&f->ended);
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

int flush_waited(struct qcow2 *q, uint32_t zone)
{
	struct timespec begun, now;
	int err;

	clock_gettime(CLOCK_MONOTONIC, &begun);
	err = flush_locked(q);
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (q->waited && !q->file->in_memory)
		q->waited(q->path, zone,
			  (now.tv_sec - begun.tv_sec) * 1000ull +
				  (now.tv_nsec - begun.tv_nsec) / 1000000);
	return err;
}

bool qcow2_housekeep(struct qcow2 *q)
{
	struct flush *f = &q->flush;
	bool due;

	if (!writable(q))
		return false;
	pthread_mutex_lock(&q->lock);
	if (!f->running && q->dead.nr) {
		f->running = true;
		drop_dead(q); /* a flush tries again what is left after an error, and tells it */
		f->running = false;
		pthread_cond_broadcast(&f->ended);
	}
	due = quarantine_due(q) || shadow_half_full(q) || cache_nearly_full(q);
	pthread_mutex_unlock(&q->lock);
	return due;
}

bool qcow2_dirty(const struct qcow2 *q)
{
	return atomic_load_explicit(&q->meta_dirty, memory_order_relaxed) ||
	       atomic_load_explicit(&q->dirty_zones, memory_order_relaxed);
}
