/* SPDX-License-Identifier: MIT */
/*
 * Loans: the data of a large write is received where it will stay, and is not copied again.
 *
 * A write of whole clusters needs no place that reads as zeroes, nor one that is mapped before: any
 * free clusters do, if they are mapped when they are filled (qcow2_adopt(), io.c). So free clusters
 * that are in memory, as those are of which zones of an image on a tmpfs were reset, are lent out to
 * have data received into them before it is known where on the disk it belongs. write_anew() (io.c)
 * borrows some for smaller writes, and zeroes what these leave of the last one.
 *
 * 1. A cluster in the stock, or lent, is free: it has no reference, and whatever becomes of it, a
 *    crash leaves nothing behind. Nobody else finds it: it is not in q->free, and stock is taken
 *    only when the scan for what earlier sessions left is over (alloc_recycled()).
 * 2. Every loan ends once: by qcow2_adopt() or by qcow2_give_back().
 * 3. What is lent is all there, in memory (file_lend()): no fault, and no full tmpfs, is met while
 *    data is received.
 *
 * loans.lock protects it all, so that a loop need not wait for a flush to give back. Any thread.
 */
#include "image.h"

#define STOCK_BYTES (2u << 20) /* taken at a time, for one zone, so that it is not all scattered */

void loans_init(struct qcow2 *q)
{
	pthread_mutex_init(&q->loans.lock, NULL);
}

void loans_free(struct qcow2 *q)
{
	pthread_mutex_destroy(&q->loans.lock);
}

static void empty_stock(struct qcow2 *q)
{
	struct loans *l = &q->loans;

	while (l->nr_stock) {
		const struct stock *s = &l->stock[--l->nr_stock];

		alloc_recycled_back(q, &(struct run){ s->first, s->nr, false });
	}
}

void loans_return(struct qcow2 *q)
{
	pthread_mutex_lock(&q->loans.lock);
	empty_stock(q);
	pthread_mutex_unlock(&q->loans.lock);
}

void loans_adopted(struct qcow2 *q)
{
	pthread_mutex_lock(&q->loans.lock);
	q->loans.nr_lent--;
	pthread_mutex_unlock(&q->loans.lock);
}

/* A loan that comes back may need an entry of its own. */
static bool crowded(const struct loans *l)
{
	return l->nr_lent + l->nr_stock >= MAX_LOANS;
}

/* NR clusters of the stock that is for ZONE, or of any; false: there are none. */
static bool stock_take(struct loans *l, uint32_t zone, bool any, uint64_t nr, uint64_t *first)
{
	for (uint32_t i = 0; i < l->nr_stock && !crowded(l); i++) {
		struct stock *s = &l->stock[i];

		if (s->nr < nr || (s->zone != zone && !any))
			continue;
		*first = s->first;
		s->first += nr;
		s->nr -= nr;
		if (!s->nr)
			*s = l->stock[--l->nr_stock];
		l->nr_lent++;
		return true;
	}
	return false;
}

static void stock_put(struct loans *l, uint32_t zone, uint64_t first, uint64_t nr)
{
	for (uint32_t i = 0; i < l->nr_stock; i++) {
		struct stock *s = &l->stock[i];

		if (s->zone != zone || (s->first + s->nr != first && first + nr != s->first))
			continue;
		if (first < s->first)
			s->first = first;
		s->nr += nr;
		return;
	}
	l->stock[l->nr_stock++] = (struct stock){ first, nr, zone };
}

/* More stock for ZONE, if there is any. Under q->lock. */
static void restock(struct qcow2 *q, uint32_t zone)
{
	struct loans *l = &q->loans;
	struct run r;

	pthread_mutex_lock(&l->lock);
	if (l->nr_stock > MAX_LOANS / 2) /* it came back in pieces: the set puts them together */
		empty_stock(q);
	if (!crowded(l) && !alloc_recycled(q, STOCK_BYTES >> q->cluster_bits, &r) && r.nr) {
		if (resident_bring_in(q, &r))
			stock_put(l, zone, r.first, r.nr);
		else
			alloc_recycled_back(q, &r);
	}
	pthread_mutex_unlock(&l->lock);
}

static bool borrow(struct qcow2 *q, uint32_t zone, bool any, uint64_t nr, uint64_t *first)
{
	bool got;

	pthread_mutex_lock(&q->loans.lock);
	got = stock_take(&q->loans, zone, any, nr, first);
	pthread_mutex_unlock(&q->loans.lock);
	return got;
}

void *qcow2_borrow(struct qcow2 *q, uint32_t zone, uint64_t len)
{
	uint64_t nr = len >> q->cluster_bits, first;

	if (!q->view || !q->file->in_memory || !writable(q) || !nr || in_cluster(q, len) ||
	    len > STOCK_BYTES || q->info.zoned.zone_size < q->cluster_size)
		return NULL;
	if (!borrow(q, zone, false, nr, &first)) {
		if (pthread_mutex_trylock(&q->lock))
			return NULL;
		restock(q, zone);
		pthread_mutex_unlock(&q->lock);
		if (!borrow(q, zone, true, nr, &first))
			return NULL;
	}
	return (char *)(uintptr_t)q->view + (first << q->cluster_bits);
}

void qcow2_give_back(struct qcow2 *q, uint32_t zone, void *mem, uint64_t len)
{
	uint64_t host = (uint64_t)((const char *)mem - q->view);

	pthread_mutex_lock(&q->loans.lock);
	q->loans.nr_lent--;
	stock_put(&q->loans, zone, cluster_of(q, host), len >> q->cluster_bits);
	pthread_mutex_unlock(&q->loans.lock);
}
