/* SPDX-License-Identifier: MIT */
/* Data buffers of one loop: bounded, 4096-aligned, reused; and who waits for them. */
#ifndef TRANSPORT_POOL_H
#define TRANSPORT_POOL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#define POOL_MIN     4096u
#define POOL_CLASSES 9 /* 4 KiB, 8 KiB, ... 1 MiB */
#define POOL_MAX     (POOL_MIN << (POOL_CLASSES - 1))

struct pool_waiter {
	STAILQ_ENTRY(pool_waiter) link;
	struct pool_user *user;
	uint32_t len;
};
STAILQ_HEAD(pool_waiters, pool_waiter);

/* A connection, as the pool sees it. */
struct pool_user {
	TAILQ_ENTRY(pool_user) link; /* in pool->ring while it waits and may be served */
	bool in_ring;
	uint64_t held; /* bytes, capsules excepted */
	struct pool_waiters waiters;
};

struct pool_free {
	struct pool_free *next;
};

struct pool {
	uint64_t limit;	  /* bytes, for all; what is cached counts */
	uint64_t reserve; /* of the limit: for data inside capsules only */
	uint64_t share;	  /* most that one user holds, capsules excepted */
	uint64_t used;
	uint64_t cached; /* bytes on the free lists */
	uint64_t gets;	 /* ever: tells an idle pool from a busy one */
	struct pool_free *free[POOL_CLASSES];
	TAILQ_HEAD(, pool_user) ring;
	struct pool_waiters capsules;
	/* W has its turn: BUF is its own now, or NULL if memory is out for good. */
	void (*granted)(struct pool_waiter *w, void *buf);
};

/* LIMIT is raised to what is needed for progress. */
void pool_init(struct pool *p, uint64_t limit, void (*granted)(struct pool_waiter *, void *));
void pool_fini(struct pool *p); /* everything was put back */
void pool_user_init(struct pool_user *u);

/*
 * A buffer of LEN (1 to POOL_MAX) bytes for W, at once if there is one: returns 0 and it in *BUF.
 * -EAGAIN: W waits, and granted() will be called. -ENOMEM: there is none and nobody to wait for.
 * Data inside a capsule (CAPSULE) cannot wait behind data which comes after it in the stream; it
 * alone may use the reserve.
 */
int pool_get(struct pool *p, struct pool_user *u, struct pool_waiter *w, uint32_t len, bool capsule,
	     void **buf);
/* Gives back; may call granted() for others. */
void pool_put(struct pool *p, struct pool_user *u, void *buf, uint32_t len, bool capsule);
/* U waits no longer; nor does CAPSULE (NULL: it has none waiting). May call granted() for others.
 */
void pool_leave(struct pool *p, struct pool_user *u, struct pool_waiter *capsule);
/* Returns the free buffers to the system. */
void pool_trim(struct pool *p);

#endif
