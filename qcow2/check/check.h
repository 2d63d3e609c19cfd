/* SPDX-License-Identifier: MIT */
/*
 * What the files of a check share with each other and with the repair.
 *
 * check.c calls the walks (check_map.c, check_snapshots.c, check_extensions.c, check_pointers.c,
 * check_refcounts.c). The walks call references.c to count the references they find, and findings.c
 * to report what is wrong. A repair uses the parts of a check, and reports through findings.c too.
 *
 * All functions run on the thread of qcow2_check() or qcow2_repair(). Those that return int return
 * 0 or -errno. What is wrong with the image is a finding, not an error: it is counted in check.res.
 */
#ifndef QCOW2_CHECK_H
#define QCOW2_CHECK_H

#include "image.h"

/* An element of check.ref: how often the cluster is referenced, and these flags. */
#define REF_EXCLUSIVE  (1u << 31) /* by a table that never shares a cluster */
#define REF_SHAREABLE  (1u << 30) /* by a data cluster or L2 table, which snapshots share */
#define REF_COMPRESSED 0u /* by compressed data, of which a cluster may hold several pieces */
#define REF_RECORDED1  (1u << 29) /* the refcount that the image records for it is 1 */
#define REF_COUNT      ((1u << 29) - 1)

/* An element of check.l2_refs: how many L1 entries point to the cluster, and these flags. */
#define L2REF_ACTIVE  (1u << 31) /* an entry of the active L1 table does */
#define REFBLOCK_SEEN (1u << 30) /* an entry of the refcount table points to the cluster */
#define L2REF_COUNT   ((1u << 30) - 1)

struct check {
	struct qcow2 *q;
	struct qcow2_check_result *res;
	void (*say)(void *arg, const char *line);
	void *arg;
	unsigned int lines;   /* passed to SAY so far */
	uint64_t nr_clusters; /* of the file */
	uint64_t cluster_size;
	uint32_t *ref;	     /* one for each cluster of the file */
	uint32_t *l2_refs;   /* one for each cluster of the file */
	uint64_t *table;     /* a buffer of one cluster, for an L2 table or refcount block */
	uint64_t unfollowed; /* references not followed: the clusters behind them look leaked */
	bool tables_only;    /* counts tables that never share a cluster; no L2 tables, no data */
};

/* Decoding of entries. The engine has its own in map.c, whose mistakes the check is to find. */

static inline bool has_data_file(const struct qcow2 *q)
{
	return q->hdr.incompatible & INCOMPAT_DATA_FILE;
}

/* Returns the 8-byte words of an L2 entry: an extended entry has a bitmap as its second word. */
static inline unsigned int entry_words(const struct qcow2 *q)
{
	return q->info.extended_l2 ? 2 : 1;
}

/* Returns the bits of a compressed cluster's L2 entry that hold the host offset. */
static inline uint64_t compressed_mask(const struct qcow2 *q)
{
	return (1ull << (62 - (q->cluster_bits - 8))) - 1;
}

/*
 * Returns the host offset of the compressed data that ENTRY points to. Sets *LEN to the bytes from
 * there to the end of its last sector of 512 bytes.
 */
static inline uint64_t compressed_place(const struct qcow2 *q, uint64_t entry, uint64_t *len)
{
	uint64_t mask = compressed_mask(q), host = entry & mask;
	uint64_t sectors = (entry & (L2E_COMPRESSED - 1)) / (mask + 1) + 1;

	*len = sectors * 512 - host % 512;
	return host;
}

/* check.c: the steps of a check */

/*
 * Prepares C for a check of Q and zeroes RES. -ENOMEM, -EFBIG for a file of too many clusters, or
 * the error of asking for the file's size. Whatever it returns, check_end() must follow.
 */
int check_begin(struct check *c, struct qcow2 *q, struct qcow2_check_result *res);
/* Counts all references but those of the refcount table and its blocks. -ENOMEM. */
int check_count(struct check *c);
/* Frees the memory of C. */
void check_end(struct check *c);

/* check_refcounts.c */

/*
 * Counts the references of the refcount table and its blocks, then compares all references with
 * the recorded refcounts. Call it once, after check_count(). -ENOMEM.
 */
int check_refcounts(struct check *c);

/* check_map.c */

/*
 * Counts the L2 tables to which the ENTRIES entries of the L1 table at host offset OFF point. The
 * caller has counted the clusters of the L1 table itself. ACTIVE: it is not a snapshot's. -ENOMEM.
 */
int check_l1(struct check *c, uint64_t off, uint32_t entries, bool active);
/* Reads each L2 table that check_l1() has counted, once, and counts what it maps. */
void check_l2_tables(struct check *c);
/*
 * Compares the COPIED flags of the active L1 table and its L2 tables with the recorded refcounts.
 * Call it after check_refcounts(). -ENOMEM.
 */
int check_copied(struct check *c);

/* check_snapshots.c */

/*
 * Counts the snapshot table, the snapshots' L1 tables, and their L2 tables by check_l1(). -ENOMEM.
 */
int check_snapshots(struct check *c);

/* check_extensions.c */

/* Counts persistent bitmaps and the encryption header. -ENOMEM. */
int check_extensions(struct check *c);

/* check_pointers.c */

/* Counts the write-pointer table and judges each of its entries. -ENOMEM. */
int check_write_pointers(struct check *c);
/*
 * Returns whether ENTRY, in host byte order, is a possible write pointer of ZONE in the geometry Z.
 * If not, that is a finding.
 */
bool check_write_pointer(struct check *c, const struct qcow2_zoned *z, uint32_t zone,
			 uint64_t entry);

/* references.c */

/*
 * Adds TIMES references to each cluster that the LEN bytes at host offset OFF touch, and sets FLAGS
 * (REF_EXCLUSIVE, REF_SHAREABLE or REF_COMPRESSED) for them. Returns false, after a finding, when a
 * part lies beyond the end of the file; the caller then does not read it. WHAT names it in a
 * finding.
 */
bool check_ref(struct check *c, uint64_t off, uint64_t len, uint32_t flags, uint32_t times,
	       const char *what);
/* Adds one reference of a table that must start at a cluster boundary and share no cluster. */
bool check_ref_table(struct check *c, uint64_t off, uint64_t len, const char *what);
/*
 * The same for a table of which an image may have many, such as a snapshot's L1 table. It stops,
 * and returns false, at the first cluster that is referenced already, so that any number of tables
 * on the same clusters cost no more time than one. check_refcounts() reports such a cluster.
 */
bool check_ref_fresh_table(struct check *c, uint64_t off, uint64_t len, const char *what);
/*
 * The same for a table to which the header points. LEN above MAX is a finding, and returns false.
 */
bool check_ref_top_table(struct check *c, uint64_t off, uint64_t len, uint64_t max,
			 const char *what);

/* findings.c */

/* Counts a corruption, or a leaked cluster, and reports it. */
void check_corrupt(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void check_leak(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Counts and reports that WHAT, at host offset OFF, could not be read. ERR is the -errno. */
void check_unread(struct check *c, const char *what, uint64_t off, int err);
/* Reports a line that is no finding. After 1000 lines of any kind nothing more is reported. */
void check_say(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
