/* SPDX-License-Identifier: MIT */
/* What is asked of the drive, command after command: see plan.c. No I/O here. */
#ifndef BENCH_PLAN_H
#define BENCH_PLAN_H

#include <stdbool.h>
#include <stdint.h>

enum plan_rw { PLAN_RANDREAD, PLAN_READ, PLAN_WRITE, PLAN_APPEND, PLAN_MIXED, PLAN_FS };

struct plan_drive {
	uint32_t nsid, lba_size;
	uint32_t zones;
	uint64_t zsze, zcap; /* blocks */
};

struct plan_op {
	uint8_t opcode;
	uint64_t slba; /* of a Zone Append: its zone's */
};

/* A zone that is being filled. */
struct plan_stream {
	uint32_t zone;
	uint32_t next; /* commands of that zone so far */
};

struct plan {
	enum plan_rw rw;
	struct plan_drive drive;
	uint32_t bs, blocks; /* of a command: bytes, blocks */
	uint32_t per_zone;   /* commands that fill one */
	uint32_t readers;    /* zones [0, readers) are read */
	uint32_t writers;    /* zones from readers on are written, so many at once */
	uint64_t cursor;     /* of sequential reads: commands */
	uint64_t random;
	uint64_t flush_bytes; /* a Flush after so many written; 0: none. The caller's to set */
	uint64_t unflushed;   /* bytes written since the last Flush */
	struct plan_stream *streams;
};

/*
 * A plan with ZONES zones in use at once (0: as many as suit it) for SLOTS commands in flight, or
 * -EINVAL with a sentence on stderr, or -ENOMEM.
 */
int plan_init(struct plan *p, enum plan_rw rw, const struct plan_drive *drive, uint32_t bs,
	      uint32_t zones, uint32_t slots);
void plan_fini(struct plan *p);

/* What slot SLOT does next. False: nothing, until the zones are reset and plan_rewind() called. */
bool plan_next(struct plan *p, uint32_t slot, struct plan_op *op);
void plan_rewind(struct plan *p);

#endif
