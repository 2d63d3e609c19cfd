/* SPDX-License-Identifier: MIT */
/*
 * A repaired image in memory, over the damaged one in its file: what repair.c and repair_map.c
 * write, and overlay_commit() carries out.
 */
#ifndef QCOW2_OVERLAY_H
#define QCOW2_OVERLAY_H

#include "image.h"

/* What a cluster that was changed holds; it decides when the change may reach the file. */
enum patch_kind { PATCH_COPY, PATCH_L1, PATCH_L2, PATCH_REFBLOCK, PATCH_REFTABLE, PATCH_POINTERS };

struct patch {
	uint64_t cluster;
	enum patch_kind kind;
	uint64_t from;	/* PATCH_COPY: host offset of what it is a copy of, in the file */
	uint8_t *bytes; /* else: all of the cluster */
	struct patch *next;
};

struct overlay {
	struct file file; /* reads see the patches */
	struct file *base;
	struct qcow2 *q;
	uint64_t old_clusters; /* patches from here on are new clusters, that nothing names yet */
	uint64_t size;
	struct patch **hash;
	size_t nr, mask;
	const uint32_t *floor; /* references in the file as it was, check.ref of the first check */
	/* what changes in the header, beside the refcount table that Q's header in memory names */
	bool reftable_moved;
	uint64_t set_incompatible; /* first of all; CORRUPT while the work is half done */
	uint64_t clear_incompatible, clear_autoclear;
};

/* Puts an overlay in the place of Q's file. overlay_end() takes it out again. 0 or -ENOMEM. */
int overlay_begin(struct overlay *o, struct qcow2 *q);
void overlay_end(struct overlay *o);
/* Changes LEN bytes at OFF, which lie in clusters that hold KIND. */
int overlay_write(struct overlay *o, const void *buf, size_t len, uint64_t off,
		  enum patch_kind kind);
/* Changes the 8-byte entry at OFF to VALUE, given in host order. */
int overlay_put64(struct overlay *o, uint64_t off, uint64_t value, enum patch_kind kind);
/* Makes CLUSTER read as what the file has at FROM. */
int overlay_copy(struct overlay *o, uint64_t cluster, uint64_t from);
/* Makes it all true in the file, in an order that may be cut anywhere. 0 or -errno. */
int overlay_commit(struct overlay *o);

#endif
