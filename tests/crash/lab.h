/* SPDX-License-Identifier: MIT */
/*
 * What the files of the crash laboratory share. The essay is in lab.c.
 */
#ifndef CRASH_LAB_H
#define CRASH_LAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model.h"
#include "qcow2.h"
#include "simdisk.h"

/* Dice: a row of numbers that a seed determines (splitmix64). */
struct dice {
	uint64_t state;
};
uint64_t dice_next(struct dice *d);
uint32_t dice_below(struct dice *d, uint32_t n); /* 0 .. n - 1; N 0: 0 */

#define MAX_LAB_ZONES 128
#define MAX_CRASHES   64
#define MAX_SIZES     32

/* The shape of an image. */
struct geometry {
	const char *name;
	uint32_t cluster;
	uint32_t zone, capacity; /* bytes */
	uint32_t nr_zones, conventional;
	uint32_t most_zones; /* that it is resized to; 0: it is not */
	uint32_t refcount_bits;
	uint32_t max_active;
	uint32_t short_by; /* bytes the last zone lacks */
	bool in_memory; /* as a file on a tmpfs; though what it keeps is lost with the power here, too */
	bool direct;  /* as a file with O_DIRECT: freed clusters are kept, and zeroed in place */
	uint64_t cap; /* the file never grows beyond */
};

/* A row of the table of workloads; the language of SCRIPT is explained in workload.c. */
struct workload {
	const char *name;
	const struct geometry *geo;
	const char *script;
	unsigned int seeds; /* how many seeds make sense; 1: the script throws no dice */
	unsigned int share; /* of the pairs of lost writes and the random states, in percent */
};
extern const struct workload workloads[];
extern const unsigned int nr_workloads;

/*
 * A drive under test: the engine on a simulated disk and the model beside it, driven alike. The
 * functions return false when the engine did what it must not; WHY says what.
 */
struct drive {
	const struct geometry *geo;
	struct model_geo geo_model;
	struct simdisk *disk;
	struct oplog *log;
	struct qcow2 *q;
	uint32_t nr_zones; /* of the image, when last opened */
	uint64_t size;
	struct {
		size_t begin, done; /* when it was made so */
		uint64_t size;
	} sizes[MAX_SIZES];
	uint32_t nr_sizes;
	struct model *m;
	struct dice dice;
	uint8_t *buf;	       /* a zone */
	uint32_t nr_in_flight; /* of these zones: written, not yet completed */
	uint32_t in_flight[8];
	struct {
		size_t pos;
		uint64_t leaks; /* at most so many clusters */
	} crash[MAX_CRASHES];	/* of the workload: what each may have left */
	uint32_t nr_crashes;
	uint8_t uuid[QCOW2_UUID]; /* its identity, when last created or opened */
	const char *shadow_dir;	  /* for the next open */
	size_t adopted; /* where the open of a foreign image was done; SIZE_MAX: it is not one */
	size_t create_done; /* before this position the image may be none */
	size_t record_from; /* operations before are no crash's business */
	bool loud;	    /* says what it does */
	bool calm;	    /* the script throws no crashes */
	char why[1024];
};

/* SALT: makes its identity differ from that of other images. */
bool drive_create(struct drive *d, unsigned int salt);
bool drive_open(struct drive *d);
/* The process dies: the engine's memory is gone, the file stays as it is. */
void drive_kill(struct drive *d);
bool drive_run(struct drive *d, const char *script); /* workload.c */

bool drive_write(struct drive *d, uint32_t zone, uint32_t lba, uint32_t nr, bool reversed);
bool drive_begin(struct drive *d, uint32_t zone, uint32_t nr);
void drive_complete(struct drive *d);
bool drive_reset(struct drive *d, uint32_t zone);
bool drive_finish(struct drive *d, uint32_t zone);
bool drive_flush(struct drive *d);
/* What a worker does after resets: always true. */
bool drive_housekeep(struct drive *d);
/* A flush in which the process dies, after N changes of the file; or, when it has fewer, after it.
 */
bool drive_flush_and_die(struct drive *d, uint32_t n);
/* A flush that calls OTHERS, who do what other threads do, during each of its syncs. */
bool drive_flush_beside(struct drive *d, void (*others)(void *), void *arg);
/* A flush whose sync fails: it must say so, and so must the next. */
bool drive_flush_failing(struct drive *d);
bool drive_close(struct drive *d);
/* Closes the image, resizes it to ZONES whole zones, opens it; none that goes is not empty. */
bool drive_resize(struct drive *d, uint32_t zones);
/* Opens what a kill or a cut left, judges it, and lets the model go on from there. */
bool drive_recover(struct drive *d, bool durable, uint64_t max_leaks);
bool drive_power_cut(struct drive *d);
/* Closes the image, makes it one as QEMU leaves them, opens it; explored from there on. foreign.c */
bool drive_make_foreign(struct drive *d);
/* The bytes of ZONE, less than others' if it is a short last one. */
uint64_t drive_zone_len(const struct drive *d, uint32_t zone);
/*
 * The sizes that the disk may have in a state of which operations up to ISSUED may be there and all
 * up to CUT were made: of d->sizes those from the index returned to *LAST.
 */
uint32_t drive_sizes(const struct drive *d, size_t issued, size_t cut, uint32_t *last);
/* Whether NOW, an image that was opened in such a state of D, has one of them. */
bool drive_judge_size(const struct drive *d, struct drive *now, size_t issued, size_t cut);
/* Judges the opened image. ZONE_GEN and ZONE_WP, if given, get what each zone shows. */
bool drive_judge(struct drive *d, struct mwindow w, uint32_t *zone_gen, uint32_t *zone_wp);
bool drive_check(struct drive *d, uint64_t max_leaks, uint64_t *leaks);
uint64_t drive_old_leaks(const struct drive *d, size_t pos);
uint64_t drive_leak_bound(const struct drive *d, size_t pos);
__attribute__((format(printf, 2, 3))) bool drive_broken(struct drive *d, const char *fmt, ...);

/* A set of hashes. */
struct hashset {
	uint64_t *slot;
	size_t nr, cap;
};
bool hashset_add(struct hashset *s, uint64_t h); /* false: it was there */

/* What the whole laboratory was told and has found. */
struct lab {
	uint64_t depth;		     /* random states of an epoch too large for all subsets */
	unsigned int continue_every; /* each n-th state goes on, and is cut again */
	unsigned int qemu_every;     /* each n-th is given to qemu-img check; 0: none is */
	uint64_t every;		     /* each n-th state is judged */
	uint64_t only_state;	     /* 0: all */
	const char *keep;	     /* where to write the image of a violation */
	const char *plant;
	bool stop_at_first;
	double deadline;

	const struct workload *w;
	uint64_t seed, ordinal;
	struct hashset images, judged;
	uint64_t states, continued, qemu, violations;
	unsigned int clauses; /* bit n: Dn was violated */
	struct site *site;    /* of all workloads */
	uint32_t nr_sites, cap_sites;
};

/* explore.c: every crash state of what D did. */
void explore(struct lab *lab, struct drive *d);
bool lab_should_stop(const struct lab *lab);
void lab_violation(struct lab *lab, const struct simdisk *state, const char *how, const char *why);

/* getrandom.c: what chance gives, so that it can be told when it was asked */
extern uint8_t chance;

/* sites.c */
void sites_merge(struct lab *lab, const struct oplog *log);
/* Prints the call sites; false: one was not cut on both sides, or (VERBOSE) not reached. */
bool sites_report(const struct lab *lab, bool verbose);

/* qemu.c: what stock qemu-img says of the state, bit 5 cleared. True: fine, or no qemu-img. */
bool qemu_check(const struct simdisk *state, char why[MODEL_WHYLEN]);
bool qemu_is_there(void);

#endif
