/* SPDX-License-Identifier: MIT */
/*
 * The walk of qcow2_check() over the refcount table and its blocks. It counts the references to the
 * blocks, then compares the recorded refcount of each cluster with the references that all walks
 * have counted.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "check.h"

/* Compares the refcount RECORDED for CLUSTER with the references that were counted. */
static void compare(struct check *c, uint64_t cluster, uint64_t recorded)
{
	uint32_t ref = cluster < c->nr_clusters ? c->ref[cluster] : 0;
	uint64_t found = ref & REF_COUNT;

	if (recorded == 1 && cluster < c->nr_clusters)
		c->ref[cluster] |= REF_RECORDED1;
	if ((recorded || found) && cluster < c->nr_clusters)
		c->res->image_end_offset = (cluster + 1) * c->cluster_size;
	if (recorded > found)
		check_leak(c, "Leaked cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
			   cluster, recorded, found);
	else if (recorded < found)
		check_corrupt(c,
			      "ERROR cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
			      cluster, recorded, found);
	if (found < 2)
		return;
	if (ref & REF_EXCLUSIVE)
		check_corrupt(c, "ERROR cluster %" PRIu64 " holds a table and something else",
			      cluster);
	else if (ref & REF_SHAREABLE && !c->q->info.nb_snapshots)
		check_corrupt(c,
			      "ERROR cluster %" PRIu64 " is used %" PRIu64
			      " times, but there are no snapshots",
			      cluster, found);
}

/* Compares the clusters of entry I of the refcount table. OFF is its block; 0: it has none. */
static void compare_block(struct check *c, uint64_t i, uint64_t off)
{
	uint64_t per_block = c->cluster_size * 8 >> c->q->refcount_order;
	uint64_t first = i * per_block;
	int err = 0;

	if (off) {
		err = file_read(c->q->file, c->table, c->cluster_size, off, 0);
		if (err)
			check_unread(c, "refcount block", off, err);
	}
	if (err)
		return;
	for (uint64_t j = 0; j < per_block; j++) {
		if (off)
			compare(c, first + j, refcount_get(c->table, j, c->q->refcount_order));
		else if (first + j < c->nr_clusters)
			compare(c, first + j, 0);
		else
			break;
	}
}

/* Replaces each of TABLE by the offset of its block, or by 0 if it has none that can be read. */
static void check_reftable(struct check *c, uint64_t *table, uint64_t entries)
{
	for (uint64_t i = 0; i < entries; i++) {
		uint64_t entry = be64toh(table[i]), off = entry & REFTABLE_OFFSET_MASK;

		table[i] = 0;
		if (entry & ~REFTABLE_OFFSET_MASK)
			check_corrupt(c,
				      "ERROR refcount table entry %" PRIu64 " (0x%" PRIx64
				      ") has reserved bits set",
				      i, entry);
		if (!off || !check_ref_table(c, off, c->cluster_size, "refcount block"))
			continue;
		if (c->l2_refs[off / c->cluster_size] & REFBLOCK_SEEN)
			check_corrupt(c,
				      "ERROR refcount table entry %" PRIu64
				      " points to the block at 0x%" PRIx64
				      ", as an earlier entry does",
				      i, off);
		else
			table[i] = off;
		c->l2_refs[off / c->cluster_size] |= REFBLOCK_SEEN;
	}
}

int check_refcounts(struct check *c)
{
	struct header *h = &c->q->hdr;
	uint64_t per_block = c->cluster_size * 8 >> c->q->refcount_order;
	uint64_t bytes = (uint64_t)h->reftable_clusters * c->cluster_size;
	uint64_t entries = bytes / 8, blocks = c->nr_clusters / per_block + 1;
	uint64_t *table;
	int err;

	if (!check_ref_top_table(c, h->reftable_offset, bytes, MAX_REFTABLE_BYTES,
				 "refcount table"))
		entries = 0;
	table = calloc(entries + 1, 8);
	if (!table)
		return -ENOMEM;
	err = file_read(c->q->file, table, entries * 8, h->reftable_offset, 0);
	if (err) {
		check_unread(c, "refcount table", h->reftable_offset, err);
		entries = 0;
	}
	check_reftable(c, table, entries);
	for (uint64_t i = 0; i < (entries > blocks ? entries : blocks); i++) {
		if (i < entries && (table[i] || i < blocks))
			compare_block(c, i, table[i]);
		else if (i < blocks)
			compare_block(c, i, 0);
	}
	free(table);
	return 0;
}
