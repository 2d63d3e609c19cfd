/* SPDX-License-Identifier: MIT */
/*
 * The refcounts, for qcow2_check(): the refcount table and its blocks are walked, and what is
 * recorded is compared with the uses that all walks have counted.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "check.h"

/* One cluster: what the walk found against what is recorded. */
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
	if (ref & USE_EXCLUSIVE)
		check_corrupt(c, "ERROR cluster %" PRIu64 " holds a table and something else",
			      cluster);
	else if (ref & USE_SHAREABLE && !c->q->info.nb_snapshots)
		check_corrupt(c,
			      "ERROR cluster %" PRIu64 " is used %" PRIu64
			      " times, but there are no snapshots",
			      cluster, found);
}

/* Compares the clusters that entry I of the refcount table speaks for. */
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

/* What of the refcount table can be followed: offsets of blocks, 0 for none. */
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
		if (!off || !check_use_table(c, off, c->cluster_size, "refcount block"))
			continue;
		if (c->named[off / c->cluster_size] & NAMED_REFBLOCK)
			check_corrupt(c,
				      "ERROR refcount table entry %" PRIu64
				      " names the block at 0x%" PRIx64 " a second time",
				      i, off);
		else
			table[i] = off;
		c->named[off / c->cluster_size] |= NAMED_REFBLOCK;
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

	if (!check_use_top_table(c, h->reftable_offset, bytes, MAX_REFTABLE_BYTES,
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
