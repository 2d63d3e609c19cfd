/* SPDX-License-Identifier: MIT */
/*
 * A bounded set of free host clusters, kept as disjoint runs.
 *
 * 1. Runs are sorted by their first cluster and do not overlap: a cluster is in the set once or not
 *    at all, and it either reads as zeroes or may hold old data ("recycled").
 * 2. Adjacent runs differ in that, or they would be one run.
 * 3. There are at most FREESET_RUNS runs. When a run does not fit, the smallest one is dropped: the
 *    set is a cache of what the refcounts say, and a dropped run is found again by the next open.
 *
 * Every function costs at most one pass over the runs. No lock of its own: under q->lock.
 */
#ifndef QCOW2_FREESET_H
#define QCOW2_FREESET_H

#include <stdbool.h>
#include <stdint.h>

#define FREESET_RUNS 256u

/* A run of host clusters. */
struct run {
	uint64_t first, nr; /* clusters */
	bool zeroed;	    /* known to read as zeroes */
};

struct freeset {
	uint32_t nr;
	struct run run[FREESET_RUNS + 2]; /* 2 more while a run is inserted into another */
};

/* Adds the clusters of R. Those that are in the set already become zeroed or not, as R is. */
void freeset_add(struct freeset *s, struct run r);
/* Adds those clusters of R that are not in the set yet. */
void freeset_add_new(struct freeset *s, struct run r);
/* Removes the clusters of R that are in the set. */
void freeset_remove(struct freeset *s, struct run r);

/* Whether all clusters of R are in the set, and alike. */
bool freeset_has(const struct freeset *s, struct run r);

/*
 * The index of the best run for MIN to MAX clusters: the smallest run that has MAX, or else
 * the largest one. RECYCLED: only of recycled clusters. At most LONGEST clusters long. -1:
 * there is none.
 */
int freeset_best(const struct freeset *s, uint64_t min, uint64_t max, uint64_t longest,
		 bool recycled);

/* The number of clusters that may hold old data. */
uint64_t freeset_recycled(const struct freeset *s);
bool freeset_full(const struct freeset *s);

/* Checks 1 to 3; for tests. */
bool freeset_is_sound(const struct freeset *s);

#endif
