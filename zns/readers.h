/* SPDX-License-Identifier: MIT */
/*
 * The reads in flight of one namespace, counted by loop, so that reads of several loops write no
 * memory in common. Zones share buckets. A reset or finish closes the bucket of its zone and waits
 * until the bucket has no read in flight; meanwhile, reads of the bucket's zones are to be counted
 * by other means. readers.c has the protocol.
 */
#ifndef ZNS_READERS_H
#define ZNS_READERS_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define READERS_LOOPS	64
#define READERS_BUCKETS 32

/* Only its loop writes it. */
struct reader_counts {
	alignas(128) _Atomic uint32_t in[READERS_BUCKETS];
};

struct readers {
	alignas(128) _Atomic uint32_t closed[READERS_BUCKETS]; /* by how many claims */
	struct reader_counts loop[READERS_LOOPS];
};

/* NULL: no memory. The caller owns it and frees it by free(). */
struct readers *readers_new(void);

static inline uint32_t readers_bucket(uint32_t zone)
{
	return zone % READERS_BUCKETS;
}

enum readers_entry {
	READERS_IN,	/* counted, until readers_leave() */
	READERS_CLOSED, /* not counted */
	READERS_RACED,	/* not counted, but a claim may have seen it: proceed as if it had left */
};
/* Counts a read of ZONE. LOOP is the index of the calling thread's loop. */
enum readers_entry readers_enter(struct readers *r, uint8_t loop, uint32_t zone);
/* True: the bucket is closed, so a claim may be waiting for this read. The thread that entered. */
bool readers_leave(struct readers *r, uint8_t loop, uint32_t zone);

/* Closes a bucket. True: reads are in flight in it. Any thread; as often as readers_open(). */
bool readers_close(struct readers *r, uint32_t bucket);
void readers_open(struct readers *r, uint32_t bucket);
/* Whether reads are in flight in a bucket. If it is closed, that ends. */
bool readers_in(const struct readers *r, uint32_t bucket);

#endif
