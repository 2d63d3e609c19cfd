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
			err = repair_find_avoided(r);
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
