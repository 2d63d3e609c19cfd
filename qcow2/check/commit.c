/* SPDX-License-Identifier: MIT */
/*
 * Writes the changes of a repair to the file, in these steps. A sync follows each that wrote
 * something.
 *
 *	0. Set the corrupt bit, if anything was corrupt: no program opens the image for writing.
 *	1. Clear the L1 and L2 entries that are dropped.
 *	2. Write the new clusters: copies, L2 tables, a rebuilt refcount table and its blocks.
 *	3. Raise the refcounts in place, or point the header to the rebuilt table; clear autoclear
 *	   bits.
 *	4. Point the L1 and L2 entries to their new places. No COPIED flag is set newly.
 *	5. Lower the refcounts.
 *	6. Set the COPIED flags.
 *	7. Write the write pointers.
 *	8. Clear the dirty and the corrupt bit, if the image is now sound.
 *
 * 1. The commit never makes the refcount of a cluster in use 0. Until step 4 is durable, a refcount
 *    covers the references before the repair and those after it. A power cut leaves leaks, and no
 *    reference to a free cluster.
 * 2. An entry that points beyond the end of the file is cleared before the file grows there.
 * 3. A COPIED flag is never set for a cluster with two references, because the flag allows to write
 *    in place.
 * 4. What keeps the image from being opened for writing, wrong write pointers and the corrupt bit,
 *    is repaired last: nobody writes by mistake to an image that is half repaired.
 * 5. Only sectors that differ are written. An entry, or a refcount, lies within one sector.
 *
 * One thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "overlay.h"

#define SECTOR 512u

struct commit {
	struct overlay *o;
	struct patch **patch; /* all of them, sorted by cluster */
	size_t nr;
	uint8_t *was, *now; /* a cluster in the file, and what is to be written there */
	bool unsynced;
	uint64_t *block_first; /* for each patch that is a refcount block: its first cluster */
};

static int commit_sync(struct commit *c)
{
	int err = c->unsynced ? file_sync(c->o->base) : 0;

	if (!err)
		c->unsynced = false;
	return err;
}

/* Reads into c->was what the file holds in the cluster of P. */
static int read_was(struct commit *c, const struct patch *p)
{
	const struct overlay *o = c->o;

	return file_read(o->base, c->was, o->q->cluster_size, p->cluster << o->q->cluster_bits, 0);
}

/* Writes the sectors of CLUSTER in which c->now differs from c->was. */
static int write_changes(struct commit *c, uint64_t cluster)
{
	uint64_t size = c->o->q->cluster_size, base = cluster << c->o->q->cluster_bits;

	for (uint64_t at = 0, end; at < size; at = end) {
		int err;

		end = at + SECTOR;
		if (!memcmp(c->was + at, c->now + at, SECTOR))
			continue;
		while (end < size && memcmp(c->was + end, c->now + end, SECTOR))
			end += SECTOR;
		err = file_write(c->o->base, c->now + at, end - at, base + at, 0);
		if (err)
			return err;
		c->unsynced = true;
	}
	return 0;
}

/* Returns whether the entry WORD of an L1 or L2 table points to a cluster. */
static bool points_somewhere(uint64_t word, enum patch_kind kind)
{
	if (kind == PATCH_L2 && word & L2E_COMPRESSED)
		return true;
	return word & L2E_OFFSET_MASK; /* that of L1 entries is the same */
}

enum map_step { MAP_DROP, MAP_MOVE, MAP_FLAGS };

/* Returns what an entry is after STEP that is WAS before the commit and NOW after it. */
static uint64_t map_word(uint64_t was, uint64_t now, enum patch_kind kind, enum map_step step)
{
	if (step == MAP_FLAGS || !points_somewhere(now, kind))
		return now;
	if (step == MAP_DROP)
		return was;
	if ((was ^ now) & L2E_OFFSET_MASK)
		return now; /* a new cluster: step 3 has set its refcount */
	return now & (was | ~ENTRY_COPIED);
}

/* Carries out STEP for all L1 and L2 tables that are not new. */
static int commit_map(struct commit *c, enum map_step step)
{
	const struct overlay *o = c->o;
	uint64_t *was = (uint64_t *)c->was, *now = (uint64_t *)c->now;

	for (size_t i = 0; i < c->nr; i++) {
		const struct patch *p = c->patch[i];
		const uint64_t *last = (const uint64_t *)p->bytes;
		bool pairs = p->kind == PATCH_L2 && o->q->info.extended_l2;
		int err;

		if ((p->kind != PATCH_L1 && p->kind != PATCH_L2) || p->cluster >= o->old_clusters)
			continue;
		err = read_was(c, p);
		if (err)
			return err;
		for (uint64_t w = 0; w < o->q->cluster_size / 8; w++) {
			if (pairs && w % 2) /* the bitmap changes with its entry */
				now[w] = now[w - 1] == last[w - 1] ? last[w] : was[w];
			else
				now[w] = htobe64(
					map_word(be64toh(was[w]), be64toh(last[w]), p->kind, step));
		}
		err = write_changes(c, p->cluster);
		if (err)
			return err;
	}
	return 0;
}

/*
 * Writes the refcount blocks. LAST: with the final refcounts. Otherwise with none below the one
 * that the file records, or, in a new block, below the references that the first check has counted.
 */
static int commit_refblocks(struct commit *c, bool last)
{
	const struct overlay *o = c->o;
	uint32_t order = o->q->refcount_order;
	uint64_t per_block = o->q->cluster_size * 8 >> order;

	for (size_t i = 0; i < c->nr; i++) {
		const struct patch *p = c->patch[i];
		bool is_new = p->cluster >= o->old_clusters;
		int err;

		if (p->kind != PATCH_REFBLOCK)
			continue;
		err = read_was(c, p);
		if (err)
			return err;
		memcpy(c->now, p->bytes, o->q->cluster_size);
		for (uint64_t j = 0; j < per_block && !last; j++) {
			uint64_t cluster = c->block_first[i] + j;
			uint64_t count = refcount_get(p->bytes, j, order);
			uint64_t least = refcount_get(c->was, j, order);

			if (is_new)
				least = cluster < o->old_clusters ? o->old_refs[cluster] & REF_COUNT
								  : 0;
			if (least > refcount_max(order))
				least = refcount_max(order);
			if (least > count)
				refcount_set(c->now, j, order, least);
		}
		err = write_changes(c, p->cluster);
		if (err)
			return err;
	}
	return 0;
}

/* Writes new clusters as a whole: the file may hold anything there. */
static int commit_new(struct commit *c)
{
	const struct overlay *o = c->o;
	uint64_t size = o->q->cluster_size;

	for (size_t i = 0; i < c->nr; i++) {
		const struct patch *p = c->patch[i];
		int err = 0;

		if (p->cluster < o->old_clusters || p->kind == PATCH_REFBLOCK)
			continue;
		if (p->kind == PATCH_COPY)
			err = file_read(o->base, c->now, size, p->from, 0);
		else
			memcpy(c->now, p->bytes, size);
		if (!err)
			err = file_write(o->base, c->now, size, p->cluster << o->q->cluster_bits,
					 0);
		if (err)
			return err;
		c->unsynced = true;
	}
	/* A refcount block at the end, which is written by sectors, may end in zeroes. */
	return o->size > o->old_clusters * size ? file_truncate(o->base, o->size) : 0;
}

static int commit_pointers(struct commit *c)
{
	for (size_t i = 0; i < c->nr; i++) {
		const struct patch *p = c->patch[i];
		int err;

		if (p->kind != PATCH_POINTERS)
			continue;
		err = read_was(c, p);
		if (err)
			return err;
		memcpy(c->now, p->bytes, c->o->q->cluster_size);
		err = write_changes(c, p->cluster);
		if (err)
			return err;
	}
	return 0;
}

/*
 * What of the header is written: its first sector, of which a power cut leaves the old or the new.
 */
enum header_step { HEADER_MARK, HEADER_TABLE, HEADER_BITS };

static int commit_header(struct commit *c, enum header_step step)
{
	const struct overlay *o = c->o;
	struct disk_header h;
	uint8_t was[SECTOR], sector[SECTOR];
	int err = file_read(o->base, was, SECTOR, 0, 0);

	if (err)
		return err;
	memcpy(sector, was, SECTOR);
	memcpy(&h, sector, sizeof(h));
	if (step == HEADER_MARK) {
		h.incompatible_features |= htobe64(o->set_incompatible);
	} else if (step == HEADER_BITS) {
		h.incompatible_features &= ~htobe64(o->clear_incompatible);
	} else {
		if (o->reftable_moved) {
			h.refcount_table_offset = htobe64(o->q->hdr.reftable_offset);
			h.refcount_table_clusters = htobe32(o->q->hdr.reftable_clusters);
		}
		h.autoclear_features &= ~htobe64(o->clear_autoclear);
	}
	memcpy(sector, &h, o->q->info.version < 3 ? HEADER_V2_LENGTH : HEADER_V3_LENGTH);
	if (!memcmp(sector, was, SECTOR))
		return 0;
	c->unsynced = true;
	return file_write(o->base, sector, SECTOR, 0, 0);
}

static int by_cluster(const void *a, const void *b)
{
	const struct patch *const *x = a, *const *y = b;

	return (*x)->cluster < (*y)->cluster ? -1 : (*x)->cluster > (*y)->cluster;
}

/* Sets c->block_first. */
static int find_blocks(struct commit *c)
{
	const struct qcow2 *q = c->o->q;
	uint64_t entries = (uint64_t)q->hdr.reftable_clusters * q->cluster_size / 8;
	uint64_t *table = malloc(entries * 8 + 1);
	int err = table ? file_read(&c->o->file, table, entries * 8, q->hdr.reftable_offset, 0)
			: -ENOMEM;

	for (uint64_t e = 0; !err && e < entries; e++) {
		uint64_t cluster = cluster_of(q, be64toh(table[e]) & REFTABLE_OFFSET_MASK);
		struct patch key = { .cluster = cluster }, *k = &key, **found;

		if (!cluster)
			continue;
		found = bsearch(&k, c->patch, c->nr, sizeof(k), by_cluster);
		if (found)
			c->block_first[found - c->patch] =
				e * (q->cluster_size * 8 >> q->refcount_order);
	}
	free(table);
	return err;
}

/* The steps, in the order and with the numbers of the head of this file. */

static int mark_corrupt(struct commit *c)
{
	return commit_header(c, HEADER_MARK);
}

static int drop_entries(struct commit *c)
{
	return commit_map(c, MAP_DROP);
}

static int write_new(struct commit *c)
{
	int err = commit_new(c);

	return !err && c->o->reftable_moved ? commit_refblocks(c, false) : err;
}

static int raise_counts(struct commit *c)
{
	int err = c->o->reftable_moved ? 0 : commit_refblocks(c, false);

	return err ? err : commit_header(c, HEADER_TABLE);
}

static int move_entries(struct commit *c)
{
	return commit_map(c, MAP_MOVE);
}

static int lower_counts(struct commit *c)
{
	return commit_refblocks(c, true);
}

static int set_flags(struct commit *c)
{
	return commit_map(c, MAP_FLAGS);
}

static int clear_bits(struct commit *c)
{
	return commit_header(c, HEADER_BITS);
}

static int (*const steps[])(struct commit *c) = {
	mark_corrupt, drop_entries, write_new,	     raise_counts, move_entries,
	lower_counts, set_flags,    commit_pointers, clear_bits,
};

static int commit_steps(struct commit *c)
{
	int err = 0;

	for (unsigned int i = 0; i < sizeof(steps) / sizeof(steps[0]) && !err; i++) {
		err = steps[i](c);
		if (!err)
			err = commit_sync(c);
	}
	return err;
}

int overlay_commit(struct overlay *o)
{
	struct commit c = { .o = o };
	int err = -ENOMEM;

	c.patch = malloc((o->nr + 1) * sizeof(*c.patch));
	c.block_first = calloc(o->nr + 1, sizeof(*c.block_first));
	c.was = malloc(o->q->cluster_size);
	c.now = malloc(o->q->cluster_size);
	if (c.patch && c.block_first && c.was && c.now) {
		for (size_t i = 0; i <= o->mask; i++)
			for (struct patch *p = o->hash[i]; p; p = p->next)
				c.patch[c.nr++] = p;
		qsort(c.patch, c.nr, sizeof(*c.patch), by_cluster);
		err = find_blocks(&c);
	}
	if (!err)
		err = commit_steps(&c);
	free(c.now);
	free(c.was);
	free(c.block_first);
	free(c.patch);
	return err;
}
