/* SPDX-License-Identifier: MIT */
/*
 * qcow2_repair(): makes an image consistent again.
 *
 * The repair changes an overlay in memory (overlay.c), not the file. It runs in passes: the L1 and
 * L2 tables, the refcounts, the COPIED flags, the write pointers. Then a check of the overlay
 * judges the result. Only a result with no more corruptions than before is written to the file
 * (commit.c).
 *
 * 1. The check finds what is wrong, the passes repair it. They must agree: what a pass repairs and
 *    the check does not find, or the other way round, is a bug.
 * 2. Leaked clusters are freed only when every reference was followed. Otherwise a cluster that
 *    looks leaked may be one to which a damaged table points. With QCOW2_FIX_ALL, the tables are
 *    repaired before.
 * 3. Snapshot tables are never written. Clusters of the write-pointer table are never freed,
 *    because the check counts it as it counts any table.
 * 4. Memory: that of a check, and the metadata that changes. Copies of data need none.
 *
 * One thread. The image was opened with QCOW2_REPAIR and is used for nothing else.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "repair.h"

/*
 * Finds the clusters of tables that share no cluster. *CLASH: two such tables overlap, or one could
 * not be followed.
 */
static int count_tables(struct repair *r, bool *clash)
{
	struct qcow2_check_result res;
	struct check c;
	int err = check_begin(&c, r->q, &res);

	c.tables_only = true;
	if (!err)
		err = check_count(&c);
	*clash = c.unfollowed;
	for (uint64_t i = 0; i < r->nr_old && !err; i++) {
		*clash |= (c.ref[i] & REF_COUNT) > 1;
		r->own[i] = c.ref[i] & REF_COUNT ? OWN_TABLE : 0;
	}
	check_end(&c);
	return err;
}

/* Sets r->own and r->keep_map. Drops the persistent bitmaps if without them no tables overlap. */
static int find_owners(struct repair *r)
{
	uint64_t autoclear = r->q->hdr.autoclear;
	int err = count_tables(r, &r->keep_map);

	if (err || !r->keep_map || !(autoclear & AUTOCLEAR_BITMAPS))
		return err;
	r->q->hdr.autoclear &= ~AUTOCLEAR_BITMAPS;
	err = count_tables(r, &r->keep_map);
	if (err)
		return err;
	if (!r->keep_map) {
		r->o.clear_autoclear |= AUTOCLEAR_BITMAPS;
		check_say(&r->first, "Repairing persistent bitmaps: damaged, dropped");
		return 0;
	}
	r->q->hdr.autoclear = autoclear;
	return count_tables(r, &r->keep_map);
}

/*
 * Checks the image in the overlay, but for its COPIED flags. Whatever it returns, check_end(C) must
 * follow.
 */
static int judge(struct repair *r, struct check *c, struct qcow2_check_result *res)
{
	int err = check_begin(c, r->q, res);

	if (!err)
		err = check_count(c);
	return err ? err : check_refcounts(c);
}

/*
 * Corrects the COPIED flags by the repaired refcounts. Without ALL it does so only if nothing else
 * is wrong with the image by now.
 */
static int repair_flags(struct repair *r, bool all)
{
	struct qcow2_check_result res = { 0 };
	struct check c;
	int err = judge(r, &c, &res);
	uint64_t others = res.corruptions;
	bool mend = all || !(res.corruptions || res.leaks || res.check_errors);

	if (!err)
		err = check_copied(&c);
	r->wrong_flags = res.corruptions - others;
	if (!err && mend && !r->keep_map)
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
		if (!err && r->keep_map)
			check_say(&r->first,
				  "tables overlap or lie beyond the end of the file; L1 and "
				  "L2 tables and write pointers are not repaired");
		if (!err && !r->keep_map)
			err = repair_map(r);
	}
	if (!err)
		err = repair_refcounts(r, all);
	if (!err)
		err = repair_flags(r, all);
	if (!err && all && !r->keep_map)
		err = repair_pointers(r);
	return err;
}

/*
 * Checks the overlay and commits it to the file, unless it has more corruptions than the image had.
 * WAS is what the first check found; RES gets what is left.
 */
static int judge_and_commit(struct repair *r, const struct qcow2_check_result *was,
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
	if (r->corruptions + r->wrong_flags > left.corruptions)
		left.corruptions_fixed = r->corruptions + r->wrong_flags - left.corruptions;
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
	r->corruptions = was->corruptions;
	if (!err)
		err = check_copied(&r->first);
	if (err)
		return err;
	err = overlay_begin(&r->o, r->q);
	if (err)
		return err;
	r->nr_old = r->first.nr_clusters;
	r->next = r->nr_old;
	r->o.old_refs = r->first.ref;
	r->own = calloc(r->nr_old, 1);
	r->table = malloc(r->q->cluster_size);
	r->keep_map = !all && r->first.unfollowed;
	err = r->own && r->table ? run_passes(r, all) : -ENOMEM;
	if (!err)
		err = judge_and_commit(r, was, res);
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
			 "DATA LOSS: %" PRIu64 " bytes of the disk, at most, now read as zeroes",
			 r.lost_bytes);
		say(arg, line);
	}
	check_end(&r.first);
	free(r.own);
	free(r.avoid);
	free(r.table);
	return err;
}
