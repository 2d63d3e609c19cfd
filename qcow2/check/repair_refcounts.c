/* SPDX-License-Identifier: MIT */
/*
 * The repair of the refcounts, by what the walks of the check find used. All in the overlay.
 *
 * Counts are corrected in place where the refcount table and its blocks stand on clusters of their
 * own. Else, or where a block is missing, all of them are made anew at the end of the file.
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

/* The refcount table as the header has it. */
struct refs {
	uint64_t *table; /* host order, masked */
	uint64_t entries;
	bool broken; /* must be made anew */
};

/* Whether [OFF, OFF + NR clusters) is a place for refcounts, used by nothing else. Uses it. */
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
	s->broken = !s->entries ||
		    !claim(c, r->q->hdr.reftable_offset, (uint64_t)r->q->hdr.reftable_clusters);
	s->table = calloc(s->entries + 1, 8);
	if (!s->table)
		return -ENOMEM;
	if (s->broken)
		return 0;
	err = file_read(r->q->file, s->table, s->entries * 8, r->q->hdr.reftable_offset, 0);
	s->broken = err;
	for (uint64_t i = 0; i < s->entries && !s->broken; i++) {
		uint64_t entry = be64toh(s->table[i]);

		s->table[i] = entry & REFTABLE_OFFSET_MASK;
		if (entry & ~REFTABLE_OFFSET_MASK)
			s->broken = true;
		else if (entry && !claim(c, entry, 1))
			s->broken = true;
		else if (entry && file_read(r->q->file, r->table, c->cluster_size, entry, 0))
			s->broken = true;
	}
	return 0;
}

static uint64_t wanted(const struct check *c, uint64_t cluster)
{
	return cluster < c->nr_clusters ? c->ref[cluster] & REF_COUNT : 0;
}

/* Whether every cluster in use has a block that counts it. */
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

/* Corrects the counts of one block. RAISE and LOWER say in which directions. */
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

/* The plan of new refcount structures: one run of new clusters, the table, then its blocks. */
struct plan {
	uint64_t first, table, blocks;
	uint64_t ranges; /* entries of the table that can be in use */
};

static uint64_t planned(const struct check *c, const struct plan *p, uint64_t cluster)
{
	if (cluster >= p->first && cluster < p->first + p->table + p->blocks)
		return 1;
	return wanted(c, cluster);
}

/* Whether a cluster of RANGE is in use. */
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

/* They count themselves: they grow until they reach. */
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

static int make_anew(struct repair *r, const struct check *c)
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
		  "Repairing refcount structures: %" PRIu64 " blocks made anew at 0x%" PRIx64,
		  p.blocks, p.first << r->q->cluster_bits);
	return err;
}

int repair_refcounts(struct repair *r, bool all)
{
	struct qcow2_check_result res;
	struct refs refs = { 0 };
	struct check c;
	int err = check_begin(&c, r->q, &res);
	bool sure;

	if (!err)
		err = check_count(&c);
	sure = !c.lost && !r->stuck;
	if (!err)
		err = refs_load(r, &c, &refs);
	if (err)
		goto out;
	if (!refs.broken && !blocks_suffice(r, &c, &refs))
		refs.broken = true;
	if (!sure)
		check_say(&r->first, "not every reference could be followed: what looks leaked may "
				     "be in use and stays as it is");
	if (refs.broken && !(all && sure))
		goto out;  /* the counts that are there may be all that protects what was not found
			    */
	if (refs.broken) { /* those that were counted count no longer */
		check_end(&c);
		err = check_begin(&c, r->q, &res);
		if (!err)
			err = check_count(&c);
		if (err)
			goto out;
	}
	if (!refs.broken)
		err = correct_in_place(r, &c, &refs, all, sure);
	else
		err = make_anew(r, &c);
	if (err == -EFBIG) {
		check_say(&r->first, "the file is too long for new refcount structures");
		err = 0;
	}
out:
	free(refs.table);
	check_end(&c);
	return err;
}
