/* SPDX-License-Identifier: MIT */
/*
 * Recomputes the derived state of the zones and aborts where it differs: invariants (1), (2)
 * and (5) of zone.c.
 */
#include <stdlib.h>
#include "zone.h"

#define CHECK(what)                                                                                \
	do {                                                                                       \
		if (!(what))                                                                       \
			abort();                                                                   \
	} while (0)

static void zone_assert(const struct zones *zs, const struct zone *z)
{
	uint64_t start = zone_start(zs, (uint32_t)(z - zs->zone)), next = z->wp_done;
	const struct zone_io *io;

	CHECK(start <= z->wp_done && z->wp_done <= z->wp && z->wp <= start + zs->zcap);
	for (io = z->first; io; io = (const struct zone_io *)io->item.next) {
		CHECK(io->lba == next);
		next += io->nlb;
	}
	CHECK(next == z->wp);
	switch ((uint8_t)z->state) {
	case NVME_ZNS_ZS_EMPTY:
		CHECK(z->wp == start);
		break;
	case NVME_ZNS_ZS_CLOSED:
		CHECK(z->wp > start);
		break;
	case NVME_ZNS_ZS_FULL:
		CHECK(z->wp_done == start + zs->zcap);
		break;
	}
}

void zones_assert_locked(struct zones *zs)
{
	uint32_t nr[ZONE_STATES] = { 0 };
	uint32_t i, n, state, prev;

	for (i = 0; i < zs->nr_zones; i++) {
		zone_assert(zs, &zs->zone[i]);
		nr[zs->zone[i].state]++;
	}
	for (state = 0; state < ZONE_STATES; state++) {
		CHECK(nr[state] == zs->nr[state]);
		if (state == NVME_ZNS_ZS_EMPTY)
			continue;
		prev = ZONE_NONE;
		for (n = 0, i = zs->in[state].head; i != ZONE_NONE; i = zs->zone[i].next, n++) {
			CHECK(zs->zone[i].state == state && zs->zone[i].prev == prev);
			prev = i;
		}
		CHECK(n == nr[state] && zs->in[state].tail == prev);
	}
}

void zones_assert(struct zones *zs)
{
	pthread_mutex_lock(&zs->lock);
	zones_assert_locked(zs);
	pthread_mutex_unlock(&zs->lock);
}
