/* SPDX-License-Identifier: MIT */
/*
 * Remembers which clusters of an image on a tmpfs are in memory, so that they are faulted in once.
 * A page of a tmpfs stays (it may be swapped out) until its space is returned to the file system.
 *
 * Under q->lock.
 */
#include <stdlib.h>
#include <string.h>

#include "image.h"

void resident_free(struct qcow2 *q)
{
	free(q->resident.bits);
}

/* The bits of WORD that stand for clusters FIRST to END - 1. */
static uint64_t mask(uint64_t first, uint64_t end, uint64_t word)
{
	uint64_t lo = first > 64 * word ? first - 64 * word : 0, hi = end - 64 * word;

	return (hi < 64 ? (1ull << hi) - 1 : ~0ull) & ~((1ull << lo) - 1);
}

void resident_forget(struct qcow2 *q, uint64_t first, uint64_t nr)
{
	struct resident *s = &q->resident;
	uint64_t end = first + nr < s->nr ? first + nr : s->nr;

	for (uint64_t w = first / 64; 64 * w < end; w++)
		s->bits[w] &= ~mask(first, end, w);
}

static bool make_room(struct resident *s, uint64_t end)
{
	uint64_t words = (end + 63) / 64 * 2, *p;

	if (end <= s->nr)
		return true;
	p = realloc(s->bits, words * sizeof(*p));
	if (!p)
		return false;
	memset(p + s->nr / 64, 0, (words - s->nr / 64) * sizeof(*p));
	s->bits = p;
	s->nr = 64 * words;
	return true;
}

bool resident_bring_in(struct qcow2 *q, const struct run *r)
{
	struct resident *s = &q->resident;
	uint64_t end = r->first + r->nr, w;

	if (!make_room(s, end))
		return false;
	for (w = r->first / 64; 64 * w < end; w++)
		if (~s->bits[w] & mask(r->first, end, w))
			break;
	if (64 * w >= end)
		return true;
	if (!file_populate(q->file, r->first << q->cluster_bits, r->nr << q->cluster_bits))
		return false;
	for (w = r->first / 64; 64 * w < end; w++)
		s->bits[w] |= mask(r->first, end, w);
	return true;
}
