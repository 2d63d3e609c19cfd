/* SPDX-License-Identifier: MIT */
/*
 * What a zone may hold after a power cut, told from what the host was told. The essay is in
 * model.c. Blocks are counted from the zone's start.
 */
#ifndef CUT_MODEL_H
#define CUT_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_ERRLEN 400

/* Where a block's content comes from: block INDEX of write ID. ID 0: not known. */
struct origin {
	uint32_t id;
	uint32_t index;
};

/* The life of a zone between two resets. */
struct epoch {
	struct origin *block;
	uint32_t acked;	  /* the end of the furthest write that completed */
	uint32_t durable; /* the end of the furthest one that a flush covered */
	bool finish_sent, finish_acked, finish_durable;
};

struct model_zone {
	struct epoch *epoch; /* the last one is being written, or waits for its reset */
	uint32_t nr_epochs;
	uint32_t durable; /* no older epoch may come back */
	bool reset_sent;  /* the last epoch is only here if that reset is */
};

struct model {
	uint32_t nr_zones, cap, lba; /* blocks a zone; bytes a block */
	struct model_zone *zone;
};

/* What a flush must make durable: how far each zone was when it was sent. */
struct model_mark {
	uint32_t epoch, wp;
	bool finished;
};

void model_init(struct model *m, uint32_t nr_zones, uint32_t cap, uint32_t lba);
void model_free(struct model *m);

/* The epoch that is being written: the last one whose reset has completed. */
struct epoch *model_now(struct model *m, uint32_t zone);

void model_reset_sent(struct model *m, uint32_t zone);
void model_reset_done(struct model *m, uint32_t zone);
void model_reset_refused(struct model *m, uint32_t zone);
/* Write ID of NR blocks has completed at BLOCK. */
void model_written(struct model *m, uint32_t zone, uint32_t block, uint32_t nr, uint32_t id);
/* One mark a zone, to be freed; and the flush that was sent then has completed. */
struct model_mark *model_mark(struct model *m);
void model_flushed(struct model *m, const struct model_mark *mark);

/* The data of write ID; every 512 bytes tell by themselves where they belong. */
void model_fill(const struct model *m, void *buf, uint32_t blocks, uint32_t id);
/* Whether BLOCK is block INDEX of write ID. */
bool model_is(const struct model *m, const void *block, struct origin o);

/* A write that had not completed when the power was cut. */
struct pending {
	uint32_t zone, id, nr;
	int64_t at; /* its block; -1: wherever it went (append) */
};

/* A zone after the cut: its pointer (CAP if full), and its CAP blocks. */
struct found {
	uint32_t wp;
	bool full;
	const uint8_t *data;
};
/*
 * Judges a zone, and takes what was found as the new truth. False: it may not be so, and WHY says
 * for each life of the zone what speaks against it.
 */
bool model_judge(struct model *m, uint32_t zone, const struct found *f,
		 const struct pending *pending, size_t nr_pending, char why[MODEL_ERRLEN]);

#endif
