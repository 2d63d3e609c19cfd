/* SPDX-License-Identifier: MIT */
/* What refcount.c and alloc.c ask of each other. All under q->lock. */
#ifndef QCOW2_ALLOC_H
#define QCOW2_ALLOC_H

#include "image.h"

/* How many of MAX clusters from FIRST on are alike, all free or all in use. */
int ref_run(struct qcow2 *q, uint64_t first, uint64_t max, bool *is_free, uint64_t *len);

/* Raises or lowers the counts of NR clusters by one; all or, on an error, none. */
int ref_adjust(struct qcow2 *q, uint64_t first, uint64_t nr, bool raise);

/* Takes NR clusters at the end of the file, without counting them. */
int alloc_at_end(struct qcow2 *q, uint64_t nr, uint64_t *first);

/* Finds a cluster for a table, without counting it. */
int alloc_raw_table(struct qcow2 *q, uint64_t *host);

#endif
