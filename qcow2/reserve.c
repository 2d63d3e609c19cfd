/* SPDX-License-Identifier: MIT */
/*
 * Reserves free clusters for the data of a write, so that it is received in place and not copied.
 *
 * A write of whole clusters needs no clusters that read as zeroes, nor mapped ones: any free
 * clusters will do, if they are mapped after they are filled. An image on a tmpfs keeps the
 * clusters of zones that were reset (alloc.c), and their pages are in memory. The transport
 * reserves some of them, receives the data of a large write into them, and only then does the
 * command get its place on the disk: qcow2_commit() maps the clusters there (io.c). write_anew()
 * (io.c) does the same for smaller writes, and zeroes the rest of their last cluster.
 * docs/performance.md tells what this saves.
 *
 * 1. A cluster that is in the stock or reserved is free: its refcount is 0, so a crash leaves
 *    nothing behind. Nobody else takes it: it is not in q->free, and the stock is filled only after
 *    the scan for the free clusters of earlier sessions has ended (alloc_recycled()).
 * 2. Every reservation ends once: by qcow2_commit() or by qcow2_release().
 * 3. The pages of reserved clusters are in memory (resident.c), so that receiving into them meets
 *    neither a page fault nor a full tmpfs.
 * 4. The runs in the stock and those reserved are together at most MAX_RESERVED, so a run that is
 *    released always has an entry.
 *
 * reserve.lock is a leaf below q->lock: a release does not wait for a flush. Any thread.
 */
#include "image.h"

#define STOCK_BYTES (2u << 20) /* taken for one zone at a time, so that its clusters lie together */

void reserve_init(struct qcow2 *q)
{
	pthread_mutex_init(&q->reserve.lock, NULL);
}

void reserve_free(struct qcow2 *q)
{
	pthread_mutex_destroy(&q->reserve.lock);
}

/* Puts the stock back into q->free. Under both locks. */
static void drain_stock(struct qcow2 *q)
{
	struct reserve *r = &q->reserve;

	while (r->nr_stock) {
		const struct stock *s = &r->stock[--r->nr_stock];

		alloc_recycled_back(q, &(struct run){ s->first, s->nr, false });
	}
}

void reserve_drain(struct qcow2 *q)
{
	pthread_mutex_lock(&q->reserve.lock);
	drain_stock(q);
	pthread_mutex_unlock(&q->reserve.lock);
}

void reserve_committed(struct qcow2 *q)
{
	pthread_mutex_lock(&q->reserve.lock);
	q->reserve.nr_reserved--;
	pthread_mutex_unlock(&q->reserve.lock);
}

static bool is_full(const struct reserve *r)
{
	return r->nr_reserved + r->nr_stock >= MAX_RESERVED;
}

/* Takes NR adjacent clusters from the stock of ZONE, or, if ANY, of any zone. False: none there. */
static bool stock_take(struct qcow2 *q, uint32_t zone, bool any, uint64_t nr, uint64_t *first)
{
	struct reserve *r = &q->reserve;
	bool found = false;

	pthread_mutex_lock(&r->lock);
	for (uint32_t i = 0; i < r->nr_stock && !found && !is_full(r); i++) {
		struct stock *s = &r->stock[i];

		if (s->nr < nr || (s->zone != zone && !any))
			continue;
		*first = s->first;
		s->first += nr;
		s->nr -= nr;
		if (!s->nr)
			*s = r->stock[--r->nr_stock];
		r->nr_reserved++;
		found = true;
	}
	pthread_mutex_unlock(&r->lock);
	return found;
}

/* Adds NR clusters from FIRST on to the stock of ZONE. Under r->lock; there is an entry (4). */
static void stock_put(struct reserve *r, uint32_t zone, uint64_t first, uint64_t nr)
{
	for (uint32_t i = 0; i < r->nr_stock; i++) {
		struct stock *s = &r->stock[i];

		if (s->zone != zone || (s->first + s->nr != first && first + nr != s->first))
			continue;
		if (first < s->first)
			s->first = first;
		s->nr += nr;
		return;
	}
	r->stock[r->nr_stock++] = (struct stock){ first, nr, zone };
}

/* Moves clusters from q->free to the stock of ZONE and brings them into memory. Under q->lock. */
static void restock(struct qcow2 *q, uint32_t zone)
{
	struct reserve *r = &q->reserve;
	struct run run;
	bool full, ready;

	pthread_mutex_lock(&r->lock);
	if (r->nr_stock > MAX_RESERVED / 2) /* in pieces, which q->free merges */
		drain_stock(q);
	full = is_full(r);
	pthread_mutex_unlock(&r->lock);
	if (full || alloc_recycled(q, STOCK_BYTES >> q->cluster_bits, &run) || !run.nr)
		return;
	ready = resident_bring_in(q, &run);
	pthread_mutex_lock(&r->lock);
	if (!ready || is_full(r)) /* others have reserved pieces of the stock meanwhile */
		alloc_recycled_back(q, &run);
	else
		stock_put(r, zone, run.first, run.nr);
	pthread_mutex_unlock(&r->lock);
}

void *qcow2_reserve(struct qcow2 *q, uint32_t zone, uint64_t len)
{
	uint64_t nr = len >> q->cluster_bits, first;

	if (!q->view || !q->file->in_memory || !writable(q) || !nr || in_cluster(q, len) ||
	    len > STOCK_BYTES || q->info.zoned.zone_size < q->cluster_size)
		return NULL;
	if (!stock_take(q, zone, false, nr, &first)) {
		if (pthread_mutex_trylock(&q->lock))
			return NULL;
		restock(q, zone);
		pthread_mutex_unlock(&q->lock);
		if (!stock_take(q, zone, true, nr, &first))
			return NULL;
	}
	return (char *)(uintptr_t)q->view + (first << q->cluster_bits);
}

void qcow2_release(struct qcow2 *q, uint32_t zone, void *mem, uint64_t len)
{
	uint64_t host = (uint64_t)((const char *)mem - q->view);

	pthread_mutex_lock(&q->reserve.lock);
	q->reserve.nr_reserved--;
	stock_put(&q->reserve, zone, cluster_of(q, host), len >> q->cluster_bits);
	pthread_mutex_unlock(&q->reserve.lock);
}
