/* SPDX-License-Identifier: MIT */
/*
 * qcow2_check(): is the image consistent?
 *
 * The check walks everything that the header points to and counts the references to each cluster of
 * the file. Then it compares these counts with the recorded refcounts. A refcount that is too low
 * is a corruption: the engine may allocate a cluster that is in use. A refcount that is too high is
 * a leak: space is lost, data is not.
 *
 * 1. The check writes nothing and does not use the engine's caches: it reads all tables from the
 *    file. The engine must not write meanwhile.
 * 2. The walks decode L1 and L2 entries themselves, not with map.c, to find the mistakes of map.c.
 * 3. Memory: 8 bytes for each cluster of the file. A size that the header merely claims costs none.
 * 4. Time: each L2 table is walked once, however many L1 tables point to it, and each refcount
 *    block is read once. An L1 or bitmap table that shares a cluster with anything is not followed.
 *    So the length of the file bounds the work.
 * 5. An entry that points beyond the end of the file, or between two clusters, is a finding and is
 *    not followed. The check goes on with the rest.
 *
 * One thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define MAX_CLUSTERS (1ull << 34) /* of a file that is checked: 128 GiB of counters */

int check_count(struct check *c)
{
	struct header *h = &c->q->hdr;
	uint32_t l1_size = h->l1_size;
	int err = 0;

	check_ref(c, 0, c->cluster_size, REF_EXCLUSIVE, 1, "header");
	if (!check_ref_top_table(c, h->l1_offset, (uint64_t)l1_size * 8, MAX_L1_BYTES, "L1 table"))
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
	/*
	 * QEMU may leave the last cluster short, or allocate one that the file does not reach yet.
	 */
	c->nr_clusters = length / c->cluster_size + 1;
	if (c->nr_clusters > MAX_CLUSTERS)
		return -EFBIG;
	memset(res, 0, sizeof(*res));
	res->total_clusters =
		q->info.size / c->cluster_size + (q->info.size % c->cluster_size != 0);
	c->ref = calloc(c->nr_clusters, sizeof(*c->ref));
	c->l2_refs = calloc(c->nr_clusters, sizeof(*c->l2_refs));
	c->table = malloc(c->cluster_size);
	return c->ref && c->l2_refs && c->table ? 0 : -ENOMEM;
}

void check_end(struct check *c)
{
	free(c->table);
	free(c->l2_refs);
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
	/* All references are counted before any is compared. */
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
