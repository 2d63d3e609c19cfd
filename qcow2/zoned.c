/* SPDX-License-Identifier: MIT */
/*
 * Reset and finish of a zone: they change the mapping, the write pointer and the shadow.
 *
 * 1. The zone is quiet: the caller lets no read or write of it run meanwhile.
 * 2. Both change memory only. A flush makes the change durable, in the order of flush.c.
 * 3. A reset sets the pointer back, then records RESET in the shadow; a finish records FINISH, then
 *    sets the pointer. Recovery can tell what happened if a kill comes between the two (shadow.c).
 * 4. Unmapped clusters are recorded as spare, since a kill during a flush could leak them.
 */
#include <errno.h>

#include "image.h"
#include "plant.h"

#define SPARE_RUNS 64u /* recorded for one zone, however fragmented it is */

/* Validates, takes q->lock and makes room in the shadow. 0 with q->lock held, or -errno without. */
static int zone_change_begin(struct qcow2 *q, uint32_t zone)
{
	int err;

	if (zone >= q->info.zoned.nr_zones || !zone_is_sequential(q, zone))
		return -EINVAL;
	if (q->flags & QCOW2_RDONLY)
		return -EROFS;
	pthread_mutex_lock(&q->lock);
	err = atomic_load(&q->poisoned) ? -EROFS : 0;
	if (!err && shadow_nearly_full(q))
		err = flush_waited(q, zone);
	if (err)
		pthread_mutex_unlock(&q->lock);
	return err;
}

static uint64_t zone_end(const struct qcow2 *q, uint32_t zone)
{
	uint64_t end = zone_start(q, zone) + q->info.zoned.zone_size;

	return end < q->info.size ? end : q->info.size;
}

/* Records as spare the runs freed since there were BEFORE; the last of those may have grown. */
static void note_unmapped(struct qcow2 *q, size_t before)
{
	const struct runs *list = &q->quarantine;

	for (size_t i = before ? before - 1 : 0; i < list->nr && i < before + SPARE_RUNS; i++)
		shadow_spare(q, list->run[i].first << q->cluster_bits,
			     list->run[i].nr << q->cluster_bits);
}

int qcow2_zone_reset(struct qcow2 *q, uint32_t zone)
{
	size_t before;
	int err = zone_change_begin(q, zone);

	if (err)
		return err;
	before = q->quarantine.nr;
	err = map_unmap(q, zone_start(q, zone), zone_end(q, zone));
	if (!err) {
		if (!plant(reset_keeps_the_zone_map))
			zmap_drop(q, zone);
		if (plant(reset_noted_early))
			shadow_reset(q, zone);
		wp_rewind(q, zone);
		if (!plant(reset_not_noted))
			shadow_reset(q, zone); /* after the pointer */
		note_unmapped(q, before);
		wp_note_reset(q, zone);
	}
	pthread_mutex_unlock(&q->lock);
	return err;
}

/* Zeroes the rest of the cluster that contains WP. */
static int zero_tail(struct qcow2 *q, uint64_t wp, uint64_t end)
{
	uint64_t tail = q->cluster_size - in_cluster(q, wp), host, run;
	struct mapping m;
	int err;

	if (!in_cluster(q, wp) || wp >= end || plant(finish_leaves_the_tail))
		return 0;
	err = map_lookup(q, wp, end - wp < tail ? end - wp : tail, &m, &run);
	if (err || m.kind == CLUSTER_UNALLOCATED || m.kind == CLUSTER_ZERO)
		return err;
	err = map_for_write(q, wp, run, wp + run, &host, &run);
	if (err)
		return err;
	if (!plant(tail_not_synced))
		atomic_store(&q->data_unsynced, true);
	return file_discard(q->file, host, tail);
}

int qcow2_zone_finish(struct qcow2 *q, uint32_t zone, uint64_t wp)
{
	uint64_t end;
	size_t before;
	int err = zone_change_begin(q, zone);

	if (err)
		return err;
	end = zone_writable_end(q, zone);
	if (wp < zone_start(q, zone) || wp > end) {
		pthread_mutex_unlock(&q->lock);
		return -EINVAL;
	}
	before = q->quarantine.nr;
	err = zero_tail(q, wp, zone_end(q, zone));
	if (!err && !plant(finish_leaves_clusters))
		err = map_unmap(q, wp, zone_end(q, zone));
	zmap_drop(q, zone); /* also after an error: the tail's cluster may have moved */
	if (!err) {
		if (plant(finish_noted_late))
			atomic_store(&q->wp[zone], end);
		shadow_finish(q, zone, wp); /* before the pointer */
		note_unmapped(q, before);
		wp_set(q, zone, end);
	}
	pthread_mutex_unlock(&q->lock);
	return err;
}
