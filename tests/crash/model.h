/* SPDX-License-Identifier: MIT */
/*
 * model: the drive as the durability contract (design 5, D1 to D5) wants it. The essay is in
 * model.c. Positions are places in the log: a call that began at position P was made before
 * operation P of the log, one that was done at P after operation P - 1.
 */
#ifndef CRASH_MODEL_H
#define CRASH_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_LBA    512u
#define MODEL_WHYLEN 400

struct model_geo {
	uint32_t nr_zones, conventional;
	uint32_t zone_lbas, cap_lbas;
	uint64_t lbas; /* of the disk */
	uint32_t max_active;
};

/* A write that was accepted: it may be on the disk from position BEGIN on. */
struct mwrite {
	size_t begin, done; /* DONE: SIZE_MAX while in flight */
	uint32_t lba, nr;   /* within the zone */
	uint32_t version;
};

/* The life of a zone from one reset to the next, or from a crash on. */
struct mgen {
	size_t begin; /* the reset's position */
	bool branch;  /* goes on with the data of the generation before: no reset, a crash */
	uint32_t parent, base; /* a branch: of which generation, and where it went on */
	bool finished;
	size_t finish_begin;
	uint32_t *version; /* by LBA; 0: zeroes */
	struct mwrite *write;
	uint32_t nr_writes, cap_writes;
};

struct mzone {
	struct mgen *gen;
	uint32_t nr_gens, cap_gens;
	uint32_t accepted; /* next LBA to hand out */
	uint32_t wp;	   /* end of what completed */
};

/* What a flush promised, by zone. */
struct mbound {
	uint32_t gen, wp;
	bool finished;
	uint32_t nr_done; /* conventional: this many writes of the zone */
};
struct mflush {
	size_t done;
	uint32_t nr_activity; /* of the model, when it began */
	bool closed;	      /* and then the image was closed */
	struct mbound *zone;
};

struct model {
	struct model_geo geo;
	struct mzone *zone;
	struct mflush *flush;
	uint32_t nr_flushes, cap_flushes;
	struct mbound *pending_flush; /* between _begin and _done */
	uint32_t pending_activity;
	uint32_t next_version;
	size_t *activity; /* positions at which clusters were taken or given up */
	uint32_t nr_activity, cap_activity;
	const struct model *before; /* whose versions may be found above write pointers, too */
	uint8_t *conventional_base; /* what these zones held to begin with; NULL: zeroes */
};

struct model *model_new(const struct model_geo *geo);
void model_free(struct model *m);

/* What LBA of ZONE holds in VERSION; 0: zeroes. */
void model_fill(void *buf, uint32_t zone, uint32_t lba, uint32_t version);
uint32_t model_zone_end(const struct model *m, uint32_t zone); /* LBAs that can be written */

/* Accepts a write at the zone's next LBA (conventional: at LBA); gives its index in the zone. */
uint32_t model_write_begin(struct model *m, uint32_t zone, uint32_t lba, uint32_t nr, size_t pos);
void model_write_done(struct model *m, uint32_t zone, uint32_t write, size_t pos);
/* The zone's pointer stands at the end of all it accepted. */
void model_advance(struct model *m, uint32_t zone);
void model_reset(struct model *m, uint32_t zone, size_t pos);
void model_finish(struct model *m, uint32_t zone, size_t pos);
void model_flush_begin(struct model *m);
void model_flush_done(struct model *m, size_t pos);
void model_closed(struct model *m); /* the last flush was a clean close */

/*
 * What may be on the disk: LOW, a flush whose promise holds; what began before operation HIGH was
 * made may be there, nothing else.
 */
struct mwindow {
	int low; /* index of a flush; -1: none */
	size_t high;
};
struct mwindow model_window(const struct model *m, size_t issued, size_t cut);
uint64_t model_window_hash(const struct model *m, struct mwindow w);

/*
 * Judges ZONE of an image whose write pointer is WP (LBAs from the zone's start) and whose bytes
 * are BUF (the whole zone). True: it may be so, GEN is the generation it shows. Else WHY says
 * which clause is broken.
 */
bool model_judge(const struct model *m, struct mwindow w, uint32_t zone, uint64_t wp,
		 const uint8_t *buf, uint32_t *gen, char why[MODEL_WHYLEN]);

/*
 * After a crash at POS: ZONE goes on at WP with what GEN held below it. DURABLE: a power cut, what
 * is there now is on the disk; else a killed process.
 */
void model_adopt(struct model *m, uint32_t zone, uint32_t gen, uint32_t wp, const uint8_t *buf,
		 size_t pos);
void model_adopt_durable(struct model *m, size_t pos);

/*
 * A model that begins with what a crash left of M: ZONE by ZONE, GEN and WP as judged, BUF the
 * bytes.
 */
struct model *model_continue(const struct model *m);
void model_continue_zone(struct model *now, uint32_t zone, uint32_t gen, uint32_t wp,
			 const uint8_t *buf);

/*
 * How often clusters were taken or given up that neither a flush done by SETTLED nor a clean close
 * done by POS has settled.
 */
uint32_t model_activity(const struct model *m, size_t settled, size_t pos);
void model_note_activity(struct model *m, size_t pos);

#endif
