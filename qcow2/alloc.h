/* SPDX-License-Identifier: MIT */
/* Functions that refcount.c and alloc.c call of each other. All under q->lock. 0 or -errno. */
#ifndef QCOW2_ALLOC_H
#define QCOW2_ALLOC_H

#include "image.h"

/* Counts in *LEN how many of MAX clusters from FIRST on are all free (*IS_FREE) or all in use. */
int ref_run(struct qcow2 *q, uint64_t first, uint64_t max, bool *is_free, uint64_t *len);

/* Raises or lowers the refcounts of NR clusters by one; after an error none is changed. */
int ref_adjust(struct qcow2 *q, uint64_t first, uint64_t nr, bool raise);

/* Takes NR clusters at the end of the file; their refcounts stay 0. */
int alloc_at_end(struct qcow2 *q, uint64_t nr, uint64_t *first);

/* Finds a cluster for a table; its refcount stays 0. */
int alloc_raw_table(struct qcow2 *q, uint64_t *host);

#endif
