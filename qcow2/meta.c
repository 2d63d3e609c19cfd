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
 * Only the flush that runs, and a resize, which is alone, call these functions: the flags are
 * theirs.
 */
#include "image.h"
#include "plant.h"

int meta_write(struct qcow2 *q, const void *buf, size_t len, uint64_t off)
{
	q->flush.meta_unsynced = true;
	return file_write(q->file, buf, len, off, 0);
}

int meta_write_all(struct qcow2 *q, const struct image_writes *writes)
{
	const struct image_write *w;
	int err = 0;

	STAILQ_FOREACH (w, writes, link)
		if (!err)
			err = meta_write(
				q, plant(written_as_it_is) && w->table ? w->table->data : w->bytes,
				w->len, w->off);
	return err;
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
	q->flush.meta_unsynced = false;
	q->flush.leaks_unsynced = false;
	q->flush.barrier_due = false;
	return 0;
}
