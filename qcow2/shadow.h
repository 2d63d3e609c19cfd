/* SPDX-License-Identifier: MIT */
/*
 * The format of a shadow, and the functions that its files share: shadow.c writes the shadow,
 * recover.c validates one that a killed process left, replay.c applies it. It is in host byte
 * order, since it never leaves the machine and is gone after a reboot.
 */
#ifndef QCOW2_SHADOW_H
#define QCOW2_SHADOW_H

#include "image.h"

#define SHADOW_MAGIC   0x776f646168736e7aull /* "znshadow" */
#define SHADOW_VERSION 2u
#define SHADOW_ENTRIES 8192u

enum shadow_kind {
	SHADOW_MAP = 1, /* LEN bytes from OFF on are mapped to HOST */
	SHADOW_RESET,	/* of ZONE: all its entries before this one are void */
	SHADOW_FINISH,	/* of ZONE at write pointer OFF: nothing is mapped behind it */
	SHADOW_SPARE, /* LEN bytes at HOST became a table, or were unmapped: maybe of no use now */
};

struct shadow_entry {
	uint32_t kind, zone;
	uint64_t off, host, len;
	uint64_t sum; /* of the above and its serial number: shadow_entry_sum() */
};
static_assert(sizeof(struct shadow_entry) == 40, "");

struct shadow_head {
	_Atomic uint64_t magic; /* stored last: without it the shadow was never used */
	uint32_t version, cluster_bits;
	uint8_t uuid[QCOW2_UUID];
	uint64_t generation; /* of the image's identity */
	uint64_t dev, ino;   /* of the image's file */
	uint64_t size;	     /* of the virtual disk */
	uint64_t zone_size;
	uint32_t nr_zones, max_log;
	uint64_t sum;	      /* of all from version on */
	_Atomic uint64_t log; /* which entries count: first << 32 | end, as serial numbers */
};
static_assert(sizeof(struct shadow_head) == 96, "");

/* The size in bytes: the head, nr_zones write pointers, the ring of max_log entries. */
static inline size_t shadow_bytes(uint32_t nr_zones)
{
	return sizeof(struct shadow_head) + nr_zones * sizeof(uint64_t) +
	       SHADOW_ENTRIES * sizeof(struct shadow_entry);
}

static inline _Atomic uint64_t *shadow_wps(void *shadow)
{
	return (_Atomic uint64_t *)((struct shadow_head *)shadow + 1);
}

static inline struct shadow_entry *shadow_log(void *shadow, uint32_t nr_zones)
{
	return (struct shadow_entry *)(shadow_wps(shadow) + nr_zones);
}

/* Entry N of the log, by its serial number, stands at N % SHADOW_ENTRIES. The numbers wrap. */
static inline struct shadow_entry *shadow_entry(struct shadow_entry *log, uint32_t serial)
{
	return &log[serial % SHADOW_ENTRIES];
}

static inline uint32_t shadow_first(uint64_t log)
{
	return (uint32_t)(log >> 32);
}

static inline uint32_t shadow_count(uint64_t log)
{
	return (uint32_t)log - shadow_first(log);
}

/* Fills in the head of Q's shadow, except magic and log. */
void shadow_head_fill(const struct qcow2 *q, struct shadow_head *h);
uint64_t shadow_head_sum(const struct shadow_head *h);
uint64_t shadow_entry_sum(const struct shadow_entry *e, uint32_t serial);

/* shadow.c, for recover.c */

#define SHADOW_NAME 96 /* bytes of a file name */
/* Writes the file name of Q's shadow to OUT. */
void shadow_file_name(const struct qcow2 *q, char out[SHADOW_NAME]);
/* Adds a sentence to NOTICE. */
void shadow_tell(char notice[QCOW2_ERRLEN], const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * replay.c: brings Q to the state that SHADOW describes, and makes that durable. SHADOW is private
 * memory of shadow_bytes() bytes, and its head agrees with Q. 0: done, and *ZONES zones differed.
 * -EINVAL: the shadow is invalid, WHY says why, and nothing was changed. Other -errno: the image
 * could not be read or written; the shadow can be replayed again.
 */
int replay(struct qcow2 *q, void *shadow, uint32_t *zones, char why[QCOW2_ERRLEN]);

#endif
