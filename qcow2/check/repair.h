/* SPDX-License-Identifier: MIT */
/*
 * What the files of a repair share. repair.c runs the passes, which change the image in the
 * overlay: repair_map.c, repair_refcounts.c and repair_pointers.c. New clusters come from
 * repair_alloc.c.
 *
 * All functions run on the thread of qcow2_repair() and return 0 or -errno.
 */
#ifndef QCOW2_REPAIR_H
#define QCOW2_REPAIR_H

#include "check.h"
#include "overlay.h"

/* Flags of repair.own: what a cluster of the file before the repair belongs to. */
#define OWN_TABLE      0x01 /* a table that shares no cluster; of the refcounts, none */
#define OWN_L2	       0x02 /* an L2 table */
#define OWN_L2_ACTIVE  0x04 /* the active L1 table points to it */
#define OWN_L2_WALKED  0x08 /* its entries were repaired */
#define OWN_DATA       0x10
#define OWN_COMPRESSED 0x20

struct repair {
	struct qcow2 *q;
	struct overlay o;
	struct check first; /* of the image before the repair; messages go through it */
	uint8_t *own;	    /* OWN_* flags of the first nr_old clusters */
	uint64_t nr_old;    /* clusters of the file before the repair */
	uint64_t next;	    /* where new clusters are allocated; only grows */
	uint64_t copies;    /* clusters copied so far, at most nr_old */
	uint8_t *avoid; /* a bit for each of NR_AVOID clusters from nr_old on, see repair_alloc.c */
	uint64_t nr_avoid;
	uint64_t lost_bytes;  /* of the virtual disk */
	bool keep_map;	      /* tables overlap or could not be followed: L1, L2 are not repaired */
	bool committed;	      /* the commit to the file was started */
	uint64_t corruptions; /* found before the repair, without wrong COPIED flags */
	uint64_t wrong_flags; /* COPIED flags that disagreed with the repaired refcounts */
	uint64_t *table;      /* a buffer of one cluster */
};

/* repair_alloc.c */

/*
 * Notes the clusters beyond the end of the file to which entries of the refcount table point, so
 * that repair_alloc() does not use them. -ENOMEM.
 */
int repair_find_avoided(struct repair *r);
/* Returns where the next repair_alloc() of NR clusters will be. */
uint64_t repair_find_new(const struct repair *r, uint64_t nr);
/* Allocates NR contiguous new clusters beyond the end of the file; returns the first. */
uint64_t repair_alloc(struct repair *r, uint64_t nr);

/* repair_map.c */

/* Repairs the entries of L1 and L2 tables that point to a wrong place, or to another's cluster. */
int repair_map(struct repair *r);
/* Sets the COPIED flags by the refcounts that the check C has compared. */
int repair_copied(struct repair *r, const struct check *c);

/* repair_refcounts.c */

/* Repairs the refcounts. ALL: those that are too low too; otherwise leaks alone. */
int repair_refcounts(struct repair *r, bool all);

/* repair_pointers.c */

/* Replaces the write pointers with which the image could not be opened. */
int repair_pointers(struct repair *r);

#endif
