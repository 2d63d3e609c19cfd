/* SPDX-License-Identifier: MIT */
/*
 * Repairs the refcounts in the overlay, by the references that a check has counted.
 *
 * If the refcount table and its blocks have clusters of their own, and no block is missing, the
 * refcounts are corrected in place. Otherwise the table and all blocks are rebuilt at the end of
 * the file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "repair.h"

static uint64_t per_block(const struct repair *r)
{
	return r->q->cluster_size * 8 >> r->q->refcount_order;
}

/* The refcount table to which the header points. */
struct refs {
	uint64_t *table; /* host offsets of the blocks; 0: none */
	uint64_t entries;
	bool rebuild; /* it cannot be corrected in place */
};

/*
 * Counts a reference to each of the NR clusters at host offset OFF, for the refcount table or a
 * block. Returns false, and counts nothing, if OFF is no possible place or a cluster is referenced
 * already.
 */
static bool claim(struct check *c, uint64_t off, uint64_t nr)
{
	uint64_t first = off / c->cluster_size;

	if (off % c->cluster_size || !off || first + nr > c->nr_clusters)
		return false;
	for (uint64_t i = 0; i < nr; i++)
		if (c->ref[first + i] & REF_COUNT)
			return false;
	for (uint64_t i = 0; i < nr; i++)
		c->ref[first + i]++;
	return true;
}

static int refs_load(struct repair *r, struct check *c, struct refs *s)
{
	int err;

	memset(s, 0, sizeof(*s));
	s->entries = (uint64_t)r->q->hdr.reftable_clusters * c->cluster_size / 8;
	s->rebuild = !s->entries ||
		     !claim(c, r->q->hdr.reftable_offset, (uint64_t)r->q->hdr.reftable_clusters);
	s->table = calloc(s->entries + 1, 8);
	if (!s->table)
		return -ENOMEM;
	if (s->rebuild)
		return 0;
	err = file_read(r->q->file, s->table, s->entries * 8, r->q->hdr.reftable_offset, 0);
	s->rebuild = err;
	for (uint64_t i = 0; i < s->entries && !s->rebuild; i++) {
		uint64_t entry = be64toh(s->table[i]);

		s->table[i] = entry & REFTABLE_OFFSET_MASK;
		if (entry & ~REFTABLE_OFFSET_MASK)
			s->rebuild = true;
		else if (entry && !claim(c, entry, 1))
			s->rebuild = true;
		else if (entry && file_read(r->q->file, r->table, c->cluster_size, entry, 0))
			s->rebuild = true;
	}
	return 0;
}

static uint64_t wanted(const struct check *c, uint64_t cluster)
{
	return cluster < c->nr_clusters ? c->ref[cluster] & REF_COUNT : 0;
}

/* Returns whether each cluster in use has a refcount block. */
static bool blocks_suffice(const struct repair *r, const struct check *c, const struct refs *s)
{
	for (uint64_t i = 0; i < c->nr_clusters; i++) {
		uint64_t b = i / per_block(r);

		if (b < s->entries && s->table[b])
			i = (b + 1) * per_block(r) - 1;
		else if (wanted(c, i))
			return false;
	}
	return true;
}

/*
 * Corrects the refcounts of the block at host offset OFF, whose first one is that of cluster FIRST.
 * RAISE: those that are too low; LOWER: those that are too high.
 */
static int correct_block(struct repair *r, const struct check *c, uint64_t first, uint64_t off,
			 bool raise, bool lower)
{
	uint32_t order = r->q->refcount_order;
	bool changed = false;
	int err = file_read(r->q->file, r->table, c->cluster_size, off, 0);

	if (err)
		return err;
	for (uint64_t i = 0; i < per_block(r); i++) {
		uint64_t has = refcount_get(r->table, i, order), want = wanted(c, first + i);

		if (want > refcount_max(order))
			want = refcount_max(order);
		if ((want > has && raise) || (want < has && lower)) {
			refcount_set(r->table, i, order, want);
			changed = true;
		}
	}
	return changed ? overlay_write(&r->o, r->table, c->cluster_size, off, PATCH_REFBLOCK) : 0;
}

static int correct_in_place(struct repair *r, const struct check *c, const struct refs *s,
			    bool raise, bool lower)
{
	int err = 0;

	for (uint64_t i = 0; i < s->entries && !err; i++)
		if (s->table[i])
			err = correct_block(r, c, i * per_block(r), s->table[i], raise, lower);
	return err;
}

/* Where the refcounts are rebuilt: contiguous new clusters, first those of the table. */
struct plan {
	uint64_t first, table, blocks; /* clusters */
	uint64_t ranges;	       /* entries of the table that may need a block */
};

/* Returns the references of CLUSTER, once the rebuilt table and blocks are in use. */
static uint64_t planned(const struct check *c, const struct plan *p, uint64_t cluster)
{
	if (cluster >= p->first && cluster < p->first + p->table + p->blocks)
		return 1;
	return wanted(c, cluster);
}

/* Returns whether a cluster of entry RANGE of the table is in use, so that it needs a block. */
static bool range_used(const struct repair *r, const struct check *c, const struct plan *p,
		       uint64_t range)
{
	uint64_t from = range * per_block(r), to = from + per_block(r);

	if (from < p->first + p->table + p->blocks && to > p->first)
		return true;
	for (uint64_t i = from; i < to && i < c->nr_clusters; i++)
		if (wanted(c, i))
			return true;
	return false;
}

/*
 * The rebuilt table and blocks need refcounts for themselves, and so perhaps more blocks: both grow
 * until they suffice. -EFBIG: the table would be too long.
 */
static int make_plan(struct repair *r, const struct check *c, struct plan *p)
{
	uint64_t before;

	p->table = 1;
	p->blocks = 1;
	do {
		uint64_t end, used = 0;

		before = p->table + p->blocks;
		p->first = repair_find_new(r, before);
		end = p->first + before;
		if (end < c->nr_clusters)
			end = c->nr_clusters;
		p->ranges = end / per_block(r) + 1;
		for (uint64_t i = 0; i < p->ranges; i++)
			used += range_used(r, c, p, i);
		if (used > p->blocks)
			p->blocks = used;
		end = align_up(p->ranges * 8, c->cluster_size) / c->cluster_size;
		if (end > p->table)
			p->table = end;
		if (p->table * c->cluster_size > MAX_REFTABLE_BYTES)
			return -EFBIG;
	} while (p->table + p->blocks != before);
	return 0;
}

static int write_new_block(struct repair *r, const struct check *c, const struct plan *p,
			   uint64_t range, uint64_t off)
{
	uint32_t order = r->q->refcount_order;

	memset(r->table, 0, c->cluster_size);
	for (uint64_t i = 0; i < per_block(r); i++) {
		uint64_t want = planned(c, p, range * per_block(r) + i);

		if (want > refcount_max(order))
			want = refcount_max(order);
		refcount_set(r->table, i, order, want);
	}
	return overlay_write(&r->o, r->table, c->cluster_size, off, PATCH_REFBLOCK);
}

static int rebuild(struct repair *r, const struct check *c)
{
	struct plan p;
	uint64_t *table, block;
	int err = make_plan(r, c, &p);

	if (err)
		return err;
	table = calloc(p.table, c->cluster_size);
	if (!table)
		return -ENOMEM;
	repair_alloc(r, p.table + p.blocks);
	block = p.first + p.table;
	for (uint64_t i = 0; i < p.ranges && !err; i++) {
		if (!range_used(r, c, &p, i))
			continue;
		table[i] = htobe64(block << r->q->cluster_bits);
		err = write_new_block(r, c, &p, i, block++ << r->q->cluster_bits);
	}
	if (!err)
		err = overlay_write(&r->o, table, p.table * c->cluster_size,
				    p.first << r->q->cluster_bits, PATCH_REFTABLE);
	free(table);
	r->q->hdr.reftable_offset = p.first << r->q->cluster_bits;
	r->q->hdr.reftable_clusters = (uint32_t)p.table;
	r->o.reftable_moved = true;
	check_say(&r->first,
		  "Repairing refcount structures: %" PRIu64 " blocks rebuilt at 0x%" PRIx64,
		  p.blocks, p.first << r->q->cluster_bits);
	return err;
}

int repair_refcounts(struct repair *r, bool all)
{
	struct qcow2_check_result res;
	struct refs refs = { 0 };
	struct check c;
	int err = check_begin(&c, r->q, &res);
	bool complete;

	if (!err)
		err = check_count(&c);
	complete = !c.unfollowed && !r->keep_map;
	if (!err)
		err = refs_load(r, &c, &refs);
	if (err)
		goto out;
	if (!refs.rebuild && !blocks_suffice(r, &c, &refs))
		refs.rebuild = true;
	if (!complete)
		check_say(&r->first, "not every reference could be followed: clusters that look "
				     "leaked may be in use and are kept");
	/* The old refcounts may be all that protects a cluster whose references were not found. */
	if (refs.rebuild && !(all && complete))
		goto out;
	if (refs.rebuild) { /* counts once more, without the old table and its blocks */
		check_end(&c);
		err = check_begin(&c, r->q, &res);
		if (!err)
			err = check_count(&c);
		if (err)
			goto out;
	}
	if (!refs.rebuild)
		err = correct_in_place(r, &c, &refs, all, complete);
	else
		err = rebuild(r, &c);
	if (err == -EFBIG) {
		check_say(&r->first, "the file is too long for new refcount structures");
		err = 0;
	}
out:
	free(refs.table);
	check_end(&c);
	return err;
}
