/* SPDX-License-Identifier: MIT */
/*
 * The walk of qcow2_check() over the mapping: L1 tables, L2 tables, and the clusters they map.
 *
 * First, check_l1() goes over each L1 table, the active one and the snapshots', and counts how many
 * entries point to each L2 table. Then check_l2_tables() reads each L2 table once and counts what
 * it maps as often as the table is referenced. So an image with 65536 snapshots takes no more
 * reading than its file is long. check_copied() compares the COPIED flags, after the refcounts are
 * known. See check.c for the rules of all walks.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

/* The L2 table that is being walked. */
struct walk {
	uint32_t times; /* how many L1 entries point to it */
	bool active;	/* the active L1 table does */
	uint64_t next;	/* the host offset behind the previous data cluster; 0: there was none */
};

static void check_compressed(struct check *c, uint64_t entry, const struct walk *w)
{
	uint64_t len, host = compressed_place(c->q, entry, &len);

	if (entry & ENTRY_COPIED)
		check_corrupt(c, "ERROR compressed cluster at 0x%" PRIx64 " has the COPIED flag",
			      host);
	if (has_data_file(c->q)) {
		check_corrupt(c, "ERROR compressed cluster in an image with a data file");
		return;
	}
	check_ref(c, host, len, REF_COMPRESSED, w->times, "compressed cluster");
	if (w->active) {
		c->res->allocated_clusters++;
		c->res->compressed_clusters++;
		c->res->fragmented_clusters++; /* qemu-img counts them so */
	}
}

static void check_data(struct check *c, uint64_t entry, struct walk *w)
{
	uint64_t host = entry & L2E_OFFSET_MASK;
	uint64_t reserved = L2E_RESERVED;

	if (c->q->info.version < 3 || c->q->info.extended_l2)
		reserved |= L2E_ZERO;
	if (entry & reserved)
		check_corrupt(c, "ERROR L2 entry 0x%" PRIx64 " has reserved bits set", entry);
	/* Offset 0 is a place in an external data file; in the image it means unallocated. */
	if (!host && !(has_data_file(c->q) && entry & ENTRY_COPIED))
		return;
	if (w->active) {
		c->res->allocated_clusters++;
		if (w->next && w->next != host)
			c->res->fragmented_clusters++;
		w->next = host + c->cluster_size;
	}
	if (has_data_file(c->q))
		return;
	if (host % c->cluster_size) {
		c->unfollowed++;
		check_corrupt(c,
			      "ERROR data cluster at 0x%" PRIx64
			      " does not begin at a cluster boundary",
			      host);
	} else {
		check_ref(c, host, c->cluster_size, REF_SHAREABLE, w->times, "data cluster");
	}
}

static void check_l2(struct check *c, uint64_t off, struct walk *w)
{
	int err = file_read(c->q->file, c->table, c->cluster_size, off, 0);

	if (err) {
		check_unread(c, "L2 table", off, err);
		return;
	}
	for (uint64_t i = 0; i < c->cluster_size / 8; i += entry_words(c->q)) {
		uint64_t entry = be64toh(c->table[i]);

		if (!entry)
			continue;
		if (entry & L2E_COMPRESSED)
			check_compressed(c, entry, w);
		else
			check_data(c, entry, w);
	}
}

void check_l2_tables(struct check *c)
{
	for (uint64_t i = 0; i < c->nr_clusters; i++) {
		struct walk w = {
			.times = c->l2_refs[i] & L2REF_COUNT,
			.active = c->l2_refs[i] & L2REF_ACTIVE,
		};

		if (w.times)
			check_l2(c, i * c->cluster_size, &w);
	}
}

static void check_l1_entry(struct check *c, uint64_t entry, uint32_t i, bool active)
{
	uint64_t off = entry & L1E_OFFSET_MASK;
	uint64_t cluster = off / c->cluster_size;

	if (entry & ~(L1E_OFFSET_MASK | ENTRY_COPIED))
		check_corrupt(c, "ERROR L1 entry %" PRIu32 " (0x%" PRIx64 ") has reserved bits set",
			      i, entry);
	if (!off)
		return;
	if (off % c->cluster_size) {
		c->unfollowed++;
		check_corrupt(
			c, "ERROR L2 table at 0x%" PRIx64 " does not begin at a cluster boundary",
			off);
		return;
	}
	if (!check_ref(c, off, c->cluster_size, REF_SHAREABLE, 1, "L2 table"))
		return;
	if (active && c->l2_refs[cluster] & L2REF_ACTIVE)
		check_corrupt(c,
			      "ERROR L1 entry %" PRIu32 " points to the L2 table at 0x%" PRIx64
			      ", as an earlier entry does",
			      i, off);
	if ((c->l2_refs[cluster] & L2REF_COUNT) < L2REF_COUNT)
		c->l2_refs[cluster]++;
	if (active)
		c->l2_refs[cluster] |= L2REF_ACTIVE;
}

#define BATCH 8192u /* entries of an L1 table read at a time: the table may be 32 MiB long */

/* Calls VISIT for each entry, in host byte order, of an L1 table. -ENOMEM, or the read error. */
static int walk_l1(struct check *c, uint64_t l1_off, uint32_t entries, bool active,
		   void (*visit)(struct check *c, uint64_t entry, uint32_t i, bool active))
{
	uint64_t *l1;
	int err = 0;

	if (!entries)
		return 0;
	l1 = malloc(BATCH * 8);
	if (!l1)
		return -ENOMEM;
	for (uint32_t i = 0, n; i < entries && !err; i += n) {
		n = entries - i < BATCH ? entries - i : BATCH;
		err = file_read(c->q->file, l1, (size_t)n * 8, l1_off + 8ull * i, 0);
		for (uint32_t k = 0; k < n && !err; k++)
			visit(c, be64toh(l1[k]), i + k, active);
	}
	free(l1);
	return err;
}

int check_l1(struct check *c, uint64_t l1_off, uint32_t entries, bool active)
{
	int err;

	if (c->tables_only)
		return 0;
	err = walk_l1(c, l1_off, entries, active, check_l1_entry);
	if (!err || err == -ENOMEM)
		return err;
	check_unread(c, "L1 table", l1_off, err);
	return 0;
}

/* Returns whether the COPIED flag of ENTRY agrees with the recorded refcount of CLUSTER. */
static bool flag_is_right(const struct check *c, uint64_t entry, uint64_t cluster)
{
	return !(entry & ENTRY_COPIED) == !(c->ref[cluster] & REF_RECORDED1);
}

static void check_l2_copied(struct check *c, uint64_t off)
{
	if (file_read(c->q->file, c->table, c->cluster_size, off, 0))
		return; /* check_l2() has reported it */
	for (uint64_t i = 0; i < c->cluster_size / 8; i += entry_words(c->q)) {
		uint64_t entry = be64toh(c->table[i]), host = entry & L2E_OFFSET_MASK;
		uint64_t cluster = host / c->cluster_size;

		if (entry & L2E_COMPRESSED || !host || cluster >= c->nr_clusters)
			continue;
		if (!flag_is_right(c, entry, cluster))
			check_corrupt(c,
				      "ERROR OFLAG_COPIED data cluster at 0x%" PRIx64
				      ": the flag is %s, the refcount is %s1",
				      host, entry & ENTRY_COPIED ? "set" : "clear",
				      c->ref[cluster] & REF_RECORDED1 ? "" : "not ");
	}
}

static void check_l1_copied(struct check *c, uint64_t entry, uint32_t i, bool active)
{
	uint64_t off = entry & L1E_OFFSET_MASK, cluster = off / c->cluster_size;

	(void)active;
	if (!off || off % c->cluster_size || cluster >= c->nr_clusters)
		return;
	if (!flag_is_right(c, entry, cluster))
		check_corrupt(c,
			      "ERROR OFLAG_COPIED L2 table of L1 entry %" PRIu32
			      ": the flag is %s, the refcount is %s1",
			      i, entry & ENTRY_COPIED ? "set" : "clear",
			      c->ref[cluster] & REF_RECORDED1 ? "" : "not ");
	if (c->l2_refs[cluster] & L2REF_ACTIVE && !has_data_file(c->q))
		check_l2_copied(c, off);
	c->l2_refs[cluster] &= ~L2REF_ACTIVE; /* a table that two entries point to is walked once */
}

int check_copied(struct check *c)
{
	uint64_t l1_off = c->q->hdr.l1_offset;
	uint32_t entries = c->q->hdr.l1_size;
	int err;

	if (l1_off % c->cluster_size || (uint64_t)entries * 8 > MAX_L1_BYTES ||
	    l1_off > c->nr_clusters * c->cluster_size)
		return 0;
	err = walk_l1(c, l1_off, entries, true, check_l1_copied);
	return err == -ENOMEM ? err : 0; /* check_l1() has reported any other */
}
