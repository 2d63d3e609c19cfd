/* SPDX-License-Identifier: MIT */
/*
 * The changes of a repair, kept in memory above the damaged file. repair*.c write them,
 * overlay_commit() (commit.c) carries them out in the file.
 */
#ifndef QCOW2_OVERLAY_H
#define QCOW2_OVERLAY_H

#include "image.h"

/* What a changed cluster holds. It decides in which step of the commit the change is written. */
enum patch_kind { PATCH_COPY, PATCH_L1, PATCH_L2, PATCH_REFBLOCK, PATCH_REFTABLE, PATCH_POINTERS };

/* A changed cluster. */
struct patch {
	uint64_t cluster;
	enum patch_kind kind;
	uint64_t from;	/* PATCH_COPY: the host offset in the file that it is a copy of */
	uint8_t *bytes; /* any other kind: the whole cluster */
	struct patch *next;
};

struct overlay {
	struct file file; /* takes the place of q->file; its reads see the patches */
	struct file *base;
	struct qcow2 *q;
	uint64_t
		old_clusters; /* patches from here on are new: nothing in the file points to them */
	uint64_t size;	      /* of the repaired file, in bytes */
	struct patch **hash;
	size_t nr, mask;
	const uint32_t *old_refs; /* check.ref of the first check, of the file before the repair */
	/* Changes of the header. The refcount table's new place is in q->hdr. */
	bool reftable_moved;
	uint64_t set_incompatible; /* in the first step; the corrupt bit, until the last step */
	uint64_t clear_incompatible, clear_autoclear;
};

/*
 * Puts O in the place of Q's file, which must not be written to until overlay_end() puts it back.
 * -ENOMEM, or the error of asking for the file's size.
 */
int overlay_begin(struct overlay *o, struct qcow2 *q);
/* Forgets all changes and frees their memory. */
void overlay_end(struct overlay *o);
/*
 * Changes LEN bytes at host offset OFF, all in clusters that hold KIND. -EIO: one of them was
 * changed before as another kind; or -ENOMEM, or the error of reading the cluster.
 */
int overlay_write(struct overlay *o, const void *buf, size_t len, uint64_t off,
		  enum patch_kind kind);
/* The same for the 8-byte entry at OFF; VALUE is in host byte order. */
int overlay_put64(struct overlay *o, uint64_t off, uint64_t value, enum patch_kind kind);
/* Makes the new cluster CLUSTER a copy of the bytes at host offset FROM of the file. -ENOMEM. */
int overlay_copy(struct overlay *o, uint64_t cluster, uint64_t from);

/*
 * Writes all changes to the file, in an order in which a power cut at any point does no further
 * harm (commit.c). 0 or -errno; after an error a part is written, and the corrupt bit may be set.
 */
int overlay_commit(struct overlay *o);

#endif
