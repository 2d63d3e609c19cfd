/* SPDX-License-Identifier: MIT */
/*
 * qcow2_check(): does the image agree with itself?
 *
 * Everything that the header leads to is walked, and each cluster of the file counts how often it
 * is used. The counts are then compared with the recorded refcounts: too low is a corruption (the
 * cluster will be given away while in use), too high is a leak (room that is lost, no harm).
 *
 * 1. Nothing is written, and nothing is taken from the engine's caches: tables are read from the
 *    file as they stand there. The engine must not write meanwhile.
 * 2. The walk decodes entries on its own, not with map.c, so that it can find map.c out.
 * 3. Memory: 8 bytes for each cluster of the *file*; claims in the header cost nothing.
 * 4. Time: an L2 table is walked once, for all who name it, no refcount block is read twice, and an
 *    L1 or bitmap table that overlaps anything is not followed: the file's length bounds the work.
 * 5. A table that cannot be trusted (outside the file, misaligned) is a finding and is not
 *    followed; the check goes on with the rest.
 *
 * One thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define MAX_CLUSTERS (1ull << 34) /* of a file we check: 128 GiB of counters */

int check_count(struct check *c)
{
	struct header *h = &c->q->hdr;
	uint32_t l1_size = h->l1_size;
	int err = 0;

	check_use(c, 0, c->cluster_size, USE_EXCLUSIVE, 1, "header");
	if (!check_use_top_table(c, h->l1_offset, (uint64_t)l1_size * 8, MAX_L1_BYTES, "L1 table"))
		l1_size = 0;
	err = check_l1(c, h->l1_offset, l1_size, true);
	if (!err)
		err = check_snapshots(c);
	if (!err)
		check_l2_tables(c);
	if (!err)
		err = check_extensions(c);
	if (!err)
		err = check_write_pointers(c);
	return err;
}

static void say_nothing(void *arg, const char *line)
{
	(void)arg;
	(void)line;
}

int check_begin(struct check *c, struct qcow2 *q, struct qcow2_check_result *res)
{
	uint64_t length;
	int err;

	memset(c, 0, sizeof(*c));
	c->q = q;
	c->res = res;
	c->say = say_nothing;
	c->cluster_size = q->cluster_size;
	err = file_size(q->file, &length);
	if (err)
		return err;
	/* The last cluster may be begun only, or known by its entry alone, as QEMU allows. */
	c->nr_clusters = length / c->cluster_size + 1;
	if (c->nr_clusters > MAX_CLUSTERS)
		return -EFBIG;
	memset(res, 0, sizeof(*res));
	res->total_clusters =
		q->info.size / c->cluster_size + (q->info.size % c->cluster_size != 0);
	c->ref = calloc(c->nr_clusters, sizeof(*c->ref));
	c->named = calloc(c->nr_clusters, sizeof(*c->named));
	c->table = malloc(c->cluster_size);
	return c->ref && c->named && c->table ? 0 : -ENOMEM;
}

void check_end(struct check *c)
{
	free(c->table);
	free(c->named);
	free(c->ref);
}

int qcow2_check(struct qcow2 *q, struct qcow2_check_result *res,
		void (*say)(void *arg, const char *line), void *arg)
{
	struct qcow2_check_result result = { 0 };
	struct check c;
	int err;

	err = check_begin(&c, q, &result);
	if (say)
		c.say = say;
	c.arg = arg;
	/* Counting comes before comparing; the order inside the two halves does not matter. */
	if (!err)
		err = check_count(&c);
	if (!err)
		err = check_refcounts(&c);
	if (!err)
		err = check_copied(&c);
	check_end(&c);
	if (!err)
		*res = result;
	return err;
}
