/* SPDX-License-Identifier: MIT */
/*
 * A read counts itself and then looks whether its bucket is closed; a claim closes the bucket and
 * then looks at the counts. All four are sequentially consistent, so at least one of the two sees
 * the other:
 *
 *	read					claim
 *	1. count++				1. closed++
 *	2. closed? then count--, not counted	2. counts 0? then no read is in flight
 *
 *	3. count--				3. wait for a read that leaves
 *	4. closed? then tell the claim
 *
 * 1. If the claim found the counts 0, no read of the bucket is in flight until it opens the bucket.
 * 2. If it did not, the last read that leaves, or that found the bucket closed, finds `closed` set
 *    and tells the claim (zone.c looks at the counts again, under zones->lock). No read enters
 *    meanwhile, so the counts fall to 0.
 *
 * Reads of other zones of the bucket use zones->lock while it is closed, which costs them a few
 * tens of nanoseconds. A read that crosses zones always does.
 */
#include <stdlib.h>
#include <string.h>
#include "readers.h"

struct readers *readers_new(void)
{
	struct readers *r = aligned_alloc(alignof(struct readers), sizeof(*r));

	if (r)
		memset(r, 0, sizeof(*r));
	return r;
}

/* The loop's own counter: nobody else writes it. */
static void count(struct readers *r, uint8_t loop, uint32_t bucket, uint32_t n)
{
	_Atomic uint32_t *in = &r->loop[loop].in[bucket];

	atomic_store(in, atomic_load_explicit(in, memory_order_relaxed) + n);
}

enum readers_entry readers_enter(struct readers *r, uint8_t loop, uint32_t zone)
{
	uint32_t bucket = readers_bucket(zone);

	if (atomic_load_explicit(&r->closed[bucket], memory_order_relaxed))
		return READERS_CLOSED;
	count(r, loop, bucket, 1);
	if (!atomic_load(&r->closed[bucket]))
		return READERS_IN;
	count(r, loop, bucket, -1u);
	return READERS_RACED;
}

bool readers_leave(struct readers *r, uint8_t loop, uint32_t zone)
{
	uint32_t bucket = readers_bucket(zone);

	count(r, loop, bucket, -1u);
	return atomic_load(&r->closed[bucket]);
}

bool readers_close(struct readers *r, uint32_t bucket)
{
	atomic_fetch_add(&r->closed[bucket], 1);
	return readers_in(r, bucket);
}

void readers_open(struct readers *r, uint32_t bucket)
{
	atomic_fetch_sub(&r->closed[bucket], 1);
}

bool readers_in(const struct readers *r, uint32_t bucket)
{
	for (unsigned int i = 0; i < READERS_LOOPS; i++)
		if (atomic_load(&r->loop[i].in[bucket]))
			return true;
	return false;
}
