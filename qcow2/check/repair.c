/* SPDX-License-Identifier: MIT */
/*
 * qcow2_repair(): makes an image agree with itself again.
 *
 * The repair is done in memory, on an overlay (overlay.c), in passes that each leave the image
 * better than they found it: the map, then the refcounts, the COPIED flags, the write pointers.
 * Then the check itself judges the result, and only what it finds no worse is carried out.
 *
 * 1. The check decides what is wrong; the passes mend. What a pass mends and the check does not
 *    find, or the other way round, is a defect.
 * 2. Leaks are given back only when every reference was followed: what a damaged table named looks
 *    leaked, and is not to be overwritten. With QCOW2_FIX_ALL the map was mended before.
 * 3. Refcounts are corrected in place where the blocks stand on clusters of their own. Else, or
 *    where a block is missing, all of them are made anew at the end of the file.
 * 4. Snapshot tables are never written. The write-pointer table is counted like any table, so its
 *    clusters are never given back.
 * 5. Memory: as for the check, and the metadata that changes. Copies of data take none.
 *
 * One thread; the image was opened for this and nothing else.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "repair.h"

static uint64_t per_block(const struct repair *r)
{
	return r->q->cluster_size * 8 >> r->q->refcount_order;
}

static bool avoided(const struct repair *r, uint64_t cluster)
{
	uint64_t i = cluster - r->nr_old;

	return i < r->nr_avoid && r->avoid[i / 8] & 1u << (i % 8);
}

/* Where the next NR new clusters in a row would be. */
static uint64_t find_new(const struct repair *r, uint64_t nr)
{
	uint64_t first = r->next;

	for (uint64_t i = 0; i < nr; i++)
		if (avoided(r, first + i)) {
			first += i + 1;
			i = -1ull;
		}
	return first;
}

uint64_t repair_alloc(struct repair *r, uint64_t nr)
{
	uint64_t first = find_new(r, nr);

	r->next = first + nr;
	return first;
}

/* Refcounts */

/* The refcount table as the header has it. */
struct refs {
	uint64_t *table; /* host order, masked */
	uint64_t entries;
	bool broken; /* must be made anew */
};

static uint64_t table_clusters(const struct repair *r)
{
	return r->q->hdr.reftable_clusters;
}

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
	s->entries = table_clusters(r) * c->cluster_size / 8;
	s->broken = !s->entries || !claim(c, r->q->hdr.reftable_offset, table_clusters(r));
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
		p->first = find_new(r, before);
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

static int repair_refcounts(struct repair *r, bool all)
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

/* The passes */

/* Counts what nothing may share; whether two such things meet, or some could not be followed. */
static int count_tables(struct repair *r, bool *clash)
{
	struct qcow2_check_result res;
	struct check c;
	int err = check_begin(&c, r->q, &res);

	c.tables_only = true;
	if (!err)
		err = check_count(&c);
	*clash = c.lost;
	for (uint64_t i = 0; i < r->nr_old && !err; i++) {
		*clash |= (c.ref[i] & REF_COUNT) > 1;
		r->own[i] = c.ref[i] & REF_COUNT ? OWN_TABLE : 0;
	}
	check_end(&c);
	return err;
}

/* Finds the owners; gives up persistent bitmaps that are in the way. */
static int find_owners(struct repair *r)
{
	uint64_t autoclear = r->q->hdr.autoclear;
	int err = count_tables(r, &r->stuck);

	if (err || !r->stuck || !(autoclear & AUTOCLEAR_BITMAPS))
		return err;
	r->q->hdr.autoclear &= ~AUTOCLEAR_BITMAPS;
	err = count_tables(r, &r->stuck);
	if (err)
		return err;
	if (!r->stuck) {
		r->o.clear_autoclear |= AUTOCLEAR_BITMAPS;
		check_say(&r->first, "Repairing persistent bitmaps: they are damaged and given up");
		return 0;
	}
	r->q->hdr.autoclear = autoclear;
	return count_tables(r, &r->stuck);
}

/* New clusters keep away from what entries of the old refcount table name beyond the end. */
static int find_avoided(struct repair *r)
{
	uint64_t entries = table_clusters(r) * r->q->cluster_size / 8;
	uint64_t *table = malloc(entries * 8 + 1);
	int err = 0;

	r->nr_avoid = 4 * r->nr_old + 65536;
	r->avoid = calloc(r->nr_avoid / 8 + 1, 1);
	if (!r->avoid || !table)
		err = -ENOMEM;
	else if (file_read(r->q->file, table, entries * 8, r->q->hdr.reftable_offset, 0))
		entries = 0;
	for (uint64_t i = 0; i < entries && !err; i++) {
		uint64_t n = cluster_of(r->q, be64toh(table[i]) & REFTABLE_OFFSET_MASK) - r->nr_old;

		if (n < r->nr_avoid)
			r->avoid[n / 8] |= (uint8_t)(1u << (n % 8));
	}
	free(table);
	return err;
}

/* A whole check of the image as it stands in the overlay. C is for check_end() whatever happens. */
static int judge(struct repair *r, struct check *c, struct qcow2_check_result *res)
{
	int err = check_begin(c, r->q, res);

	if (!err)
		err = check_count(c);
	return err ? err : check_refcounts(c);
}

/* COPIED flags: those are wrong that do not agree with the refcounts as they are by now. */
static int repair_flags(struct repair *r, bool all)
{
	struct qcow2_check_result res;
	struct check c;
	int err = judge(r, &c, &res);
	uint64_t others = res.corruptions;
	bool mend = all || !(res.corruptions || res.leaks || res.check_errors);

	if (!err)
		err = check_copied(&c);
	r->flags = res.corruptions - others;
	if (!err && mend && !r->stuck)
		err = repair_copied(r, &c);
	check_end(&c);
	return err;
}

static int run_passes(struct repair *r, bool all)
{
	int err = 0;

	if (all) {
		err = find_owners(r);
		if (!err)
			err = find_avoided(r);
		if (!err && r->stuck)
			check_say(&r->first, "tables overlap each other, or lie outside the file; "
					     "the map and the write pointers stay as they are");
		if (!err && !r->stuck)
			err = repair_map(r);
	}
	if (!err)
		err = repair_refcounts(r, all);
	if (!err)
		err = repair_flags(r, all);
	if (!err && all && !r->stuck)
		err = repair_pointers(r);
	return err;
}

/* Judges the overlay, and carries it out unless it is worse than what was. */
static int conclude(struct repair *r, const struct qcow2_check_result *was,
		    struct qcow2_check_result *res)
{
	const uint64_t bits = INCOMPAT_DIRTY | INCOMPAT_CORRUPT;
	struct qcow2_check_result left;
	struct check c;
	int err = judge(r, &c, &left);

	if (!err)
		err = check_copied(&c);
	check_end(&c);
	if (err)
		return err;
	if (left.corruptions > was->corruptions || left.check_errors > was->check_errors) {
		check_say(&r->first, "the repair would make the image worse; nothing was changed");
		*res = *was;
		return 0;
	}
	if (r->o.nr || r->o.reftable_moved)
		r->o.clear_autoclear |=
			r->q->hdr.autoclear & ~(AUTOCLEAR_BITMAPS | AUTOCLEAR_RAW_DATA);
	if (!left.corruptions && !left.check_errors)
		r->o.clear_incompatible = r->q->hdr.incompatible & bits;
	if (was->corruptions && r->o.nr && r->q->info.version >= 3) {
		r->o.set_incompatible = INCOMPAT_CORRUPT & ~r->q->hdr.incompatible;
		r->o.clear_incompatible |= r->o.set_incompatible;
	}
	r->committed = r->o.nr || r->o.clear_autoclear || r->o.clear_incompatible;
	if (r->committed)
		err = overlay_commit(&r->o);
	if (r->sure + r->flags > left.corruptions)
		left.corruptions_fixed = r->sure + r->flags - left.corruptions;
	if (was->leaks > left.leaks)
		left.leaks_fixed = was->leaks - left.leaks;
	*res = left;
	return err;
}

static int repair(struct repair *r, bool all, struct qcow2_check_result *was,
		  struct qcow2_check_result *res)
{
	struct header hdr = r->q->hdr;
	int err = check_count(&r->first);

	if (!err)
		err = check_refcounts(&r->first);
	r->sure = was->corruptions;
	if (!err)
		err = check_copied(&r->first);
	if (err)
		return err;
	err = overlay_begin(&r->o, r->q);
	if (err)
		return err;
	r->nr_old = r->first.nr_clusters;
	r->next = r->nr_old;
	r->o.floor = r->first.ref;
	r->own = calloc(r->nr_old, 1);
	r->table = malloc(r->q->cluster_size);
	r->stuck = !all && r->first.lost;
	err = r->own && r->table ? run_passes(r, all) : -ENOMEM;
	if (!err)
		err = conclude(r, was, res);
	overlay_end(&r->o);
	if (!r->committed)
		r->q->hdr = hdr;
	return err;
}

int qcow2_repair(struct qcow2 *q, unsigned int fix, struct qcow2_check_result *res,
		 void (*say)(void *arg, const char *line), void *arg)
{
	struct qcow2_check_result was = { 0 };
	struct repair r = { .q = q };
	int err;

	assert(q->flags & QCOW2_REPAIR);
	err = check_begin(&r.first, q, &was);
	if (say)
		r.first.say = say;
	r.first.arg = arg;
	if (!err)
		err = repair(&r, fix == QCOW2_FIX_ALL, &was, res);
	if (r.lost_bytes && say && !err) {
		char line[128];

		snprintf(line, sizeof(line),
			 "DATA LOSS: %" PRIu64 " bytes of the disk, at most, read as zeroes now",
			 r.lost_bytes);
		say(arg, line);
	}
	check_end(&r.first);
	free(r.own);
	free(r.avoid);
	free(r.table);
	return err;
}
