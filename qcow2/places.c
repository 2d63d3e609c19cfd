/* SPDX-License-Identifier: MIT */
/*
 * Checks, before an image is opened for writing, that no two tables overlap. Every table that the
 * header, L1 and the refcount table refer to must be cluster-aligned, inside the file, and disjoint
 * from all others. Otherwise a write to one table would destroy another, and an allocation at the
 * end of the file could return a cluster that is already a table.
 *
 * 1. Only offsets are compared; the tables they refer to are not read. This is one pass over two
 *    tables that are in memory, so opening stays fast.
 * 2. Checking once is enough, because later allocations avoid all tables (alloc.c).
 * 3. Two L1 entries that refer to one L2 table, and wrong refcounts, are left to qcow2_check():
 *    they mix up data, but destroy no table.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "image.h"

#define REMEDY "; run 'znsimg check', or open it read-only"

struct place {
	const char *what;
	uint64_t off, len;
};

/* The offsets of all refcount blocks, sorted, to find an L2 table that is also a refcount block. */
struct blocks {
	uint64_t *off;
	uint32_t nr;
};

static bool meet(const struct place *a, const struct place *b)
{
	return a->len && b->len && a->off < b->off + b->len && b->off < a->off + a->len;
}

static int by_offset(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* The ranges of the tables that the header refers to, in whole clusters. */
static void top_places(const struct qcow2 *q, struct place top[4])
{
	const struct qcow2_zoned *z = &q->info.zoned;
	uint64_t wps = z->layout ? 8 * (uint64_t)z->nr_zones : 0;

	top[0] = (struct place){ "the header", 0, q->cluster_size };
	top[1] = (struct place){ "the L1 table", q->hdr.l1_offset,
				 align_up(8 * (uint64_t)q->hdr.l1_size, q->cluster_size) };
	top[2] = (struct place){ "the refcount table", q->hdr.reftable_offset,
				 (uint64_t)q->hdr.reftable_clusters << q->cluster_bits };
	top[3] = (struct place){ "the write-pointer table", z->zonedmeta_offset,
				 align_up(wps, q->cluster_size) };
}

static int judge_top(const struct qcow2 *q, const struct place top[4], char err[QCOW2_ERRLEN])
{
	for (int i = 0; i < 4; i++)
		for (int k = 0; k < i; k++)
			if (meet(&top[i], &top[k])) {
				snprintf(err, QCOW2_ERRLEN,
					 "%.200s: %s at 0x%llx lies on %s at 0x%llx" REMEDY,
					 q->path, top[i].what, (unsigned long long)top[i].off,
					 top[k].what, (unsigned long long)top[k].off);
				return -EINVAL;
			}
	return 0;
}

/* What is wrong with a one-cluster table at OFF; NULL: nothing. */
static const char *judge_table(const struct qcow2 *q, const struct place top[4], uint64_t off)
{
	const struct place table = { "", off, q->cluster_size };

	if (in_cluster(q, off))
		return "not at a cluster";
	if (cluster_of(q, off) >= q->end_cluster)
		return "beyond the end of the file";
	for (int i = 0; i < 4; i++)
		if (meet(&table, &top[i]))
			return top[i].what;
	return NULL;
}

static int refuse_entry(const struct qcow2 *q, const char *table, uint32_t i, const char *kind,
			uint64_t off, const char *why, char err[QCOW2_ERRLEN])
{
	snprintf(err, QCOW2_ERRLEN,
		 "%.200s: %s entry %u names the %s at 0x%llx, a place of its own was expected, but "
		 "that is %s" REMEDY,
		 q->path, table, i, kind, (unsigned long long)off, why);
	return -EINVAL;
}

static int judge_blocks(const struct qcow2 *q, const struct place top[4], struct blocks *b,
			char err[QCOW2_ERRLEN])
{
	for (uint32_t i = 0; i < q->reftable.nr; i++) {
		uint64_t off = q->reftable.entry[i] & REFTABLE_OFFSET_MASK;
		const char *why = off ? judge_table(q, top, off) : NULL;

		if (why)
			return refuse_entry(q, "refcount table", i, "refcount block", off, why,
					    err);
		if (off)
			b->off[b->nr++] = off;
	}
	qsort(b->off, b->nr, sizeof(*b->off), by_offset);
	for (uint32_t i = 1; i < b->nr; i++)
		if (b->off[i] == b->off[i - 1]) {
			snprintf(err, QCOW2_ERRLEN,
				 "%.200s: two refcount table entries name the refcount block at "
				 "0x%llx" REMEDY,
				 q->path, (unsigned long long)b->off[i]);
			return -EINVAL;
		}
	return 0;
}

static int judge_l2_tables(const struct qcow2 *q, const struct place top[4], const struct blocks *b,
			   char err[QCOW2_ERRLEN])
{
	for (uint32_t i = 0; i < q->l1.nr; i++) {
		uint64_t off = q->l1.entry[i] & L1E_OFFSET_MASK;
		const char *why = off ? judge_table(q, top, off) : NULL;

		if (off && !why && b->nr && bsearch(&off, b->off, b->nr, sizeof(off), by_offset))
			why = "a refcount block";
		if (why)
			return refuse_entry(q, "L1", i, "L2 table", off, why, err);
	}
	return 0;
}

int places_check(const struct qcow2 *q, char err[QCOW2_ERRLEN])
{
	struct blocks b = { .nr = 0 };
	struct place top[4];
	uint32_t used = 0;
	int ret;

	for (uint32_t i = 0; i < q->reftable.nr; i++)
		used += q->reftable.entry[i] != 0;
	b.off = malloc((used + 1) * sizeof(*b.off));
	if (!b.off) {
		snprintf(err, QCOW2_ERRLEN, "%.200s: no memory for %u refcount blocks", q->path,
			 used);
		return -ENOMEM;
	}
	top_places(q, top);
	ret = judge_top(q, top, err);
	if (!ret)
		ret = judge_blocks(q, top, &b, err);
	if (!ret)
		ret = judge_l2_tables(q, top, &b, err);
	free(b.off);
	return ret;
}
