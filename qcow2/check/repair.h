/* SPDX-License-Identifier: MIT */
/* Between repair.c, which decides what is repaired, and the passes. */
#ifndef QCOW2_REPAIR_H
#define QCOW2_REPAIR_H

#include "check.h"
#include "overlay.h"

/* Who owns a cluster of the file as it was. */
#define OWN_TABLE     0x01 /* a table that nothing else shares, of the refcounts only the header */
#define OWN_L2	      0x02 /* an L2 table */
#define OWN_L2_ACTIVE 0x04 /* which the active L1 table names */
#define OWN_L2_WALKED 0x08 /* and whose entries were looked at */
#define OWN_DATA      0x10
#define OWN_PACKED    0x20 /* compressed data */

struct repair {
	struct qcow2 *q;
	struct overlay o;
	struct check first; /* of the image as it was; speaks for us */
	uint8_t *own;	    /* of the first nr_old clusters */
	uint64_t nr_old;    /* clusters of the file as it was */
	uint64_t next;	    /* new clusters come from here on */
	uint64_t copies;    /* made so far; no more than nr_old */
	uint8_t *avoid;	    /* bits: clusters from nr_old on that a damaged table names */
	uint64_t nr_avoid;
	uint64_t lost_bytes; /* of the virtual disk */
	bool stuck;	     /* tables overlap, or could not be followed: the map stays */
	bool committed;	     /* the file was written */
	uint64_t sure;	     /* corruptions found before, wrong COPIED flags apart */
	uint64_t flags;	     /* COPIED flags found wrong when the refcounts were right */
	uint64_t *table;     /* a cluster */
};

/* repair_alloc.c */

/* Finds out which clusters beyond the end of the file entries of the refcount table name: -ENOMEM. */
int repair_find_avoided(struct repair *r);
/* Where the next NR new clusters in a row would be. */
uint64_t repair_find_new(const struct repair *r, uint64_t nr);
/* NR new clusters in a row; the first one. */
uint64_t repair_alloc(struct repair *r, uint64_t nr);

/* repair_refcounts.c; 0 or -errno. ALL: not leaks alone. */
int repair_refcounts(struct repair *r, bool all);

/* repair_map.c; 0 or -errno */

/* Entries of L1 and L2 tables that name what they cannot, or what is another's. */
int repair_map(struct repair *r);
/* COPIED flags, by the recorded refcounts that C has compared. */
int repair_copied(struct repair *r, const struct check *c);

/* repair_pointers.c; 0 or -errno */

/* The write pointers that no open accepts. */
int repair_pointers(struct repair *r);

#endif
