/* SPDX-License-Identifier: MIT */
/*
 * simdisk: a RAM file behind struct file_ops that remembers in which order it was changed, and
 * can be put into every state a power cut may leave. The essay is in simdisk.c.
 */
#ifndef CRASH_SIMDISK_H
#define CRASH_SIMDISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "file.h"

#define SIM_PAGE   512u /* the sector: what a disk writes as one */
#define SIM_FRAMES 16	/* return addresses kept of a call site */

enum op_kind { OP_WRITE, OP_SYNC, OP_PUNCH, OP_TRUNCATE, OP_CUT };

/* One change of the file, in the order the engine made them. */
struct op {
	enum op_kind kind;
	bool data;     /* guest data (FILE_DATA), not metadata */
	uint32_t site; /* index into oplog.site */
	uint64_t off;  /* OP_TRUNCATE: the new size */
	uint64_t len;
	uint8_t *bytes;	   /* OP_WRITE: what was written */
	struct fate *fate; /* OP_CUT: what the power cut made of the LEN operations before */
	uint64_t size;	   /* OP_CUT: and of the size */
};

/* Where in the engine an operation was made: the chain of its return addresses. */
struct site {
	uint32_t hash;
	bool data, sync;
	void *frame[SIM_FRAMES];
	uint32_t nr_frames;
	uint64_t cut_before, cut_after; /* crash states right before it, right after it */
};

struct chunk;
struct oplog {
	struct op *op;
	size_t nr, cap;
	struct site *site;
	uint32_t nr_sites, cap_sites;
	struct chunk *arena; /* holds the bytes */
};
void oplog_clear(struct oplog *log); /* the sites stay */
void oplog_free(struct oplog *log);

/* What a power cut made of a pending operation. */
enum fate_kind { FATE_LOST, FATE_DONE, FATE_HEAD, FATE_TAIL };
struct fate {
	enum fate_kind kind;
	uint32_t cut; /* HEAD: the bytes below CUT reached the disk; TAIL: those from CUT on */
};

struct simdisk {
	struct file file;
	uint8_t *data;
	uint64_t size; /* bytes at and above it are zero in DATA */
	uint64_t cap;
	struct oplog *log;	  /* where changes are noted; NULL: nowhere */
	bool trace;		  /* note call sites, too */
	bool dead;		  /* the process was killed: every call fails, nothing changes */
	size_t die_after;	  /* so many changes more, then it is dead; 0: never */
	unsigned int short_every; /* each such write is cut short; 0: none */
	unsigned int nr_writes;
	bool fail_sync;		    /* the next one fails */
	void (*on_sync)(void *arg); /* called while a sync is under way: what others do meanwhile */
	void *on_sync_arg;
	uint8_t *touched; /* by page: changed since simdisk_copy() or _restore() */
	uint32_t *pages;  /* those pages */
	uint32_t nr_pages;
	uint64_t *hash; /* by page; kept by simdisk_rehash() */
	uint64_t hash_sum;
};

/* A file of at most CAP bytes, empty. Aborts without memory, as all of the laboratory does. */
struct simdisk *simdisk_new(uint64_t cap);
void simdisk_free(struct simdisk *d);

/* Makes D like FROM; afterwards no page counts as touched. */
void simdisk_copy(struct simdisk *d, const struct simdisk *from);
/* The same when D was like FROM before its touched pages were: costs what was touched. */
void simdisk_restore(struct simdisk *d, const struct simdisk *from);

/* No bytes, as a new file. Not noted in the log. */
void simdisk_empty(struct simdisk *d);

/* Computes the hash of every page of D: before others ask for their hash relative to it. */
void simdisk_rehash(struct simdisk *d);
/* A hash of the bytes and size of D, which differs from BASE (rehashed) in touched pages alone. */
uint64_t simdisk_hash(const struct simdisk *d, const struct simdisk *base);

/* Applies NR operations as FATE says (NULL: all done). SIZE: of the file, or SIM_NATURAL. */
#define SIM_NATURAL UINT64_MAX
void simdisk_apply(struct simdisk *d, const struct op *op, size_t nr, const struct fate *fate,
		   uint64_t size);
/* The size D would have after the whole operation. */
uint64_t op_size_after(const struct op *op, uint64_t size);

/* Replays LOG up to (not including) operation END, power cuts included. */
void simdisk_replay(struct simdisk *d, const struct oplog *log, size_t end);

/* Notes a power cut: the operations since the last sync had FATE. */
void oplog_add_cut(struct oplog *log, const struct fate *fate, size_t nr, uint64_t size);
/* Where the epoch that holds operation END begins: behind the last sync or cut before it. */
size_t oplog_epoch(const struct oplog *log, size_t end);

#endif
