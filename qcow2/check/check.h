/* SPDX-License-Identifier: MIT */
/*
 * Between the files of a check, and between the check and the repair, which uses it in parts.
 *
 * check.c calls the walks (check_map.c, check_snapshots.c, check_extensions.c, check_pointers.c,
 * check_refcounts.c); these call uses.c to count what they find used, and findings.c to tell it.
 */
#ifndef QCOW2_CHECK_H
#define QCOW2_CHECK_H

#include "image.h"

/* What a cluster was found to be used for. They stand above the count in check.ref. */
#define USE_EXCLUSIVE  (1u << 31) /* by something that nothing ever shares */
#define USE_SHAREABLE  (1u << 30) /* by a data cluster or L2 table: snapshots share it */
#define USE_PACKED     0u	  /* by compressed data: many share a cluster by nature */
#define REF_RECORDED1  (1u << 29) /* its recorded refcount is 1 */
#define REF_COUNT      ((1u << 29) - 1)
#define NAMED_ACTIVE   (1u << 31) /* check.named: the active L1 table names it */
#define NAMED_REFBLOCK (1u << 30) /* the refcount table names it */
#define NAMED_COUNT    ((1u << 30) - 1)

struct check {
	struct qcow2 *q;
	struct qcow2_check_result *res;
	void (*say)(void *arg, const char *line);
	void *arg;
	unsigned int lines;   /* said so far */
	uint64_t nr_clusters; /* of the file */
	uint64_t cluster_size;
	uint32_t *ref;	  /* nr_clusters references found, with USE_* and REF_* */
	uint32_t *named;  /* how often each cluster was named as an L2 table, with NAMED_* */
	uint64_t *table;  /* a cluster, for L2 tables and refcount blocks */
	uint64_t lost;	  /* references that could not be followed: what they name looks leaked */
	bool tables_only; /* count what nothing may share: no L2 tables, no data */
};

/* Decoding; the engine has its own in map.c, which the check is to find out. */

static inline bool has_data_file(const struct qcow2 *q)
{
	return q->hdr.incompatible & INCOMPAT_DATA_FILE;
}

/* Words of an L2 entry: with extended L2 entries a bitmap follows each. */
static inline unsigned int entry_words(const struct qcow2 *q)
{
	return q->info.extended_l2 ? 2 : 1;
}

/* The bits of the L2 entry of a compressed cluster that are its host offset. */
static inline uint64_t compressed_mask(const struct qcow2 *q)
{
	return (1ull << (62 - (q->cluster_bits - 8))) - 1;
}

/* The host offset of the compressed cluster of ENTRY; *LEN: bytes up to the end of its last sector. */
static inline uint64_t compressed_place(const struct qcow2 *q, uint64_t entry, uint64_t *len)
{
	uint64_t mask = compressed_mask(q), host = entry & mask;
	uint64_t sectors = (entry & (L2E_COMPRESSED - 1)) / (mask + 1) + 1;

	*len = sectors * 512 - host % 512;
	return host;
}

/*
 * A check in parts. check_begin() gets its memory (check_end() frees it, whatever was returned);
 * check_count() counts all that is used but the refcount structures; check_refcounts() counts
 * those and compares; check_copied() comes last. 0, -ENOMEM, or -errno of the file's size.
 */
int check_begin(struct check *c, struct qcow2 *q, struct qcow2_check_result *res);
int check_count(struct check *c);
void check_end(struct check *c);

/* check_refcounts.c */
int check_refcounts(struct check *c);

/* findings.c */

/* Findings: count one, and say it unless many were said already. */
void check_corrupt(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void check_leak(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void check_unread(struct check *c, const char *what, uint64_t off, int err);
/* Says a line that is no finding. */
void check_say(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* uses.c */

/*
 * Counts TIMES uses of the clusters that [OFF, OFF + LEN) touches. False, after a finding, when the
 * range lies outside the file: WHAT must not be read then.
 */
bool check_use(struct check *c, uint64_t off, uint64_t len, uint32_t use, uint32_t times,
	       const char *what);
/* The same for a table of LEN bytes that must begin at a cluster and be nobody else's. */
bool check_use_table(struct check *c, uint64_t off, uint64_t len, const char *what);
/*
 * The same for a table of a kind of which an image may have many. It counts no further than to the
 * first cluster that is in use already, so that many tables in one place cost no more than one;
 * false then, too: it overlaps something, which will be said.
 */
bool check_use_one_table(struct check *c, uint64_t off, uint64_t len, const char *what);
/* The same for a table that the header names; a finding, too, when LEN is above MAX. */
bool check_use_top_table(struct check *c, uint64_t off, uint64_t len, uint64_t max,
			 const char *what);

/* check_map.c; -ENOMEM or 0, findings are counted */

/* Counts the L2 tables that an L1 table names, its own clusters being counted. */
int check_l1(struct check *c, uint64_t off, uint32_t entries, bool active);
/* Walks all of them, and counts what they map. */
void check_l2_tables(struct check *c);
/* Judges the COPIED flags of the active L1 table and below, after the refcounts were compared. */
int check_copied(struct check *c);

/* check_snapshots.c, check_extensions.c, check_pointers.c; -ENOMEM or 0, findings are counted */
int check_snapshots(struct check *c);
int check_extensions(struct check *c);
int check_write_pointers(struct check *c);
/* Whether ENTRY, in host order, can be the write pointer of ZONE; a finding if not. */
bool check_write_pointer(struct check *c, const struct qcow2_zoned *z, uint32_t zone,
			 uint64_t entry);

#endif
