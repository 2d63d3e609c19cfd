/* SPDX-License-Identifier: MIT */
/* The ring of znsd-cut. The essay is in ring.c. */
#ifndef CUT_RING_H
#define CUT_RING_H

#include <stdbool.h>

/*
 * Switches on a mistake that the ring, or the drive that uses it, could make; the laboratory must notice
 * each. False: there is none of this name. Before there are loops.
 *
 *	ring_early	a write completes before its bytes are down
 *	ring_unsynced	a flush does not sync what the ring has written
 *	ring_short	a short completion counts as whole
 */
bool cut_set_ring_plant(const char *name);
/* Numbers for what the ring does at random. Before there are loops. */
void cut_set_ring_seed(unsigned long long seed);

#endif
