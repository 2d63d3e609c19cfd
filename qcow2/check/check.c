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
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define MAX_LINES    1000
#define MAX_CLUSTERS (1ull << 34) /* of a file we check: 128 GiB of counters */

static void __attribute__((format(printf, 2, 0)))
say_line(struct check *c, const char *fmt, va_list ap)
{
	char line[256];

	if (c->lines > MAX_LINES)
		return;
	if (c->lines++ == MAX_LINES) {
		c->say(c->arg, "more was found, it is counted but not shown");
		return;
	}
	vsnprintf(line, sizeof(line), fmt, ap);
	c->say(c->arg, line);
}

void check_corrupt(struct check *c, const char *fmt, ...)
{
	va_list ap;

	c->res->corruptions++;
	va_start(ap, fmt);
	say_line(c, fmt, ap);
	va_end(ap);
}

void check_leak(struct check *c, const char *fmt, ...)
{
	va_list ap;

	c->res->leaks++;
	va_start(ap, fmt);
	say_line(c, fmt, ap);
	va_end(ap);
}

void check_say(struct check *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say_line(c, fmt, ap);
	va_end(ap);
}

void check_unread(struct check *c, const char *what, uint64_t off, int err)
{
	c->res->check_errors++;
	c->lost++;
	check_say(c, "ERROR %s at 0x%" PRIx64 " could not be read: %s", what, off, strerror(-err));
}

bool check_use(struct check *c, uint64_t off, uint64_t len, uint32_t use, uint32_t times,
	       const char *what)
{
	uint64_t end, first, last;

	if (__builtin_add_overflow(off, len, &end) || end > c->nr_clusters * c->cluster_size) {
		c->lost++;
		check_corrupt(c,
			      "ERROR %s at 0x%" PRIx64 ", %" PRIu64
			      " bytes, lies beyond the end of the file",
			      what, off, len);
		return false;
	}
	if (!len)
		return true;
	first = off / c->cluster_size;
	last = (end - 1) / c->cluster_size;
	for (uint64_t i = first; i <= last; i++) {
		uint64_t count = (uint64_t)(c->ref[i] & REF_COUNT) + times;

		if (count > REF_COUNT)
			count = REF_COUNT;
		c->ref[i] = (c->ref[i] & ~REF_COUNT) | use | (uint32_t)count;
	}
	return true;
}

bool check_use_table(struct check *c, uint64_t off, uint64_t len, const char *what)
{
	if (off % c->cluster_size || (!off && len)) {
		c->lost++;
		check_corrupt(c, "ERROR %s at 0x%" PRIx64 " does not begin at a cluster", what,
			      off);
		return false;
	}
	return check_use(c, off, len, USE_EXCLUSIVE, 1, what);
}

bool check_use_one_table(struct check *c, uint64_t off, uint64_t len, const char *what)
{
	uint64_t cs = c->cluster_size, end = off + len;

	if (off % cs || !len || __builtin_add_overflow(off, len, &end) || end > c->nr_clusters * cs)
		return check_use_table(c, off, len, what);
	for (uint64_t at = off; at < end; at += cs) {
		bool used = c->ref[at / cs] & REF_COUNT;

		if (!check_use_table(c, at, end - at < cs ? end - at : cs, what))
			return false;
		if (used) {
			c->lost++;
			return false;
		}
	}
	return true;
}

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

/* A table that the header names, LEN bytes and no more than MAX. */
static bool check_use_top(struct check *c, uint64_t off, uint64_t len, uint64_t max,
			  const char *what)
{
	if (len <= max)
		return check_use_table(c, off, len, what);
	c->lost++;
	check_corrupt(c,
		      "ERROR the header claims %" PRIu64 " bytes of %s, at most %" PRIu64
		      " are possible",
		      len, what, max);
	return false;
}

int check_refcounts(struct check *c)
{
	struct header *h = &c->q->hdr;
	uint64_t per_block = c->cluster_size * 8 >> c->q->refcount_order;
	uint64_t bytes = (uint64_t)h->reftable_clusters * c->cluster_size;
	uint64_t entries = bytes / 8, blocks = c->nr_clusters / per_block + 1;
	uint64_t *table;
	int err;

	if (!check_use_top(c, h->reftable_offset, bytes, MAX_REFTABLE_BYTES, "refcount table"))
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

int check_count(struct check *c)
{
	struct header *h = &c->q->hdr;
	uint32_t l1_size = h->l1_size;
	int err = 0;

	check_use(c, 0, c->cluster_size, USE_EXCLUSIVE, 1, "header");
	if (!check_use_top(c, h->l1_offset, (uint64_t)l1_size * 8, MAX_L1_BYTES, "L1 table"))
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
