/* SPDX-License-Identifier: MIT */
/*
 * Metadata writes and syncs. They do the I/O and record the state by which flush.c decides whether
 * it needs a sync: what was written since the last one, and whether the next step must wait for one
 * (barrier_due).
 *
 * A failed sync poisons the image, because nobody knows what reached the disk and another sync
 * would not report it. A failed write does not: its caller keeps the data dirty, and the next flush
 * tries again.
 *
 * Only the steps of a flush, and a resize, call these functions. Under q->lock.
 */
#include "image.h"
#include "plant.h"

int meta_write(struct qcow2 *q, const void *buf, size_t len, uint64_t off)
{
	q->meta_unsynced = true;
	return file_write(q->file, buf, len, off, 0);
}

int meta_sync(struct qcow2 *q)
{
	int err;

	atomic_store(&q->data_unsynced, false); /* before the sync: later writes set it again */
	err = file_sync(q->file);
	if (plant(data_flag_cleared_late))
		atomic_store(&q->data_unsynced, false);
	if (err) {
		atomic_store(&q->poisoned, plant(failed_sync_forgotten) ? 0 : err);
		return err;
	}
	q->meta_unsynced = false;
	q->leaks_unsynced = false;
	q->barrier_due = false;
	return 0;
}
