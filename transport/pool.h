/* SPDX-License-Identifier: MIT */
/*
 * The data buffers of one loop: bounded in amount, shared fairly by hosts, 4096-aligned, reused. Only
 * the loop's thread calls these functions.
 */
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

/* A host, to which all its connections on this loop belong; before Connect, a single connection. */
struct pool_host {
	TAILQ_ENTRY(pool_host) link; /* in pool->ring, or in pool->over */
	enum { POOL_IDLE, POOL_RING, POOL_OVER } list;
	LIST_ENTRY(pool_host) all; /* in pool->hosts, if it has a name */
	char *name;		   /* its NQN; NULL: before Connect */
	unsigned int users;
	uint64_t held; /* bytes, in-capsule data excepted */
	struct pool_waiters waiters;
};
TAILQ_HEAD(pool_ring, pool_host);

/* A connection. */
struct pool_user {
	struct pool_host *host;
	struct pool_host alone; /* its host before Connect */
	uint64_t held;		/* of what the host holds */
};

struct pool_free {
	struct pool_free *next;
};

struct pool {
	uint64_t limit;	  /* bytes, including cached buffers */
	uint64_t reserve; /* of the limit, for in-capsule data only */
	uint64_t used;
	uint64_t cached; /* bytes on the free lists */
	uint64_t gets;	 /* since pool_init(): an idle pool's does not change */
	struct pool_free *free[POOL_CLASSES];
	LIST_HEAD(, pool_host) hosts;
	struct pool_ring ring; /* hosts that wait for memory, within their share */
	struct pool_ring over; /* hosts that wait and hold their share already */
	struct pool_waiters capsules;
	/* BUF belongs to W from now on. NULL: the system has no memory. */
	void (*granted)(struct pool_waiter *w, void *buf);
};

/* LIMIT (bytes) is raised to the least with which every command can make progress. */
void pool_init(struct pool *p, uint64_t limit, void (*granted)(struct pool_waiter *, void *));
/* Every buffer was returned and every user has left. */
void pool_fini(struct pool *p);

void pool_user_init(struct pool_user *u);
/*
 * U is a connection of the host HOSTNQN from now on, and shares its share. 0; -ENOMEM: U remains
 * a host of its own.
 */
int pool_user_join(struct pool *p, struct pool_user *u, const char *hostnqn);

/* The bytes that a buffer of LEN (1 to POOL_MAX) bytes takes of the pool: those of its size class. */
uint32_t pool_size(uint32_t len);
/*
 * Gets a buffer of LEN (1 to POOL_MAX) bytes for W: 0 and *BUF; -EAGAIN: W waits, and granted() will be
 * called; -ENOMEM: the system has no memory. CAPSULE: it is for in-capsule data, which cannot wait
 * behind data that follows it in the stream, and alone may use the reserve.
 */
int pool_get(struct pool *p, struct pool_user *u, struct pool_waiter *w, uint32_t len, bool capsule,
	     void **buf);
/*
 * Counts BYTES as held by U, for a buffer that it may need later; false: they cannot be had at once.
 * pool_uncharge() takes that back; it may call granted() for others.
 */
bool pool_charge(struct pool *p, struct pool_user *u, uint32_t bytes);
void pool_uncharge(struct pool *p, struct pool_user *u, uint32_t bytes);
/* A buffer of LEN bytes at once, for whoever gives back a charge right after. NULL: no memory. */
void *pool_force(struct pool *p, struct pool_user *u, uint32_t len);
/* Returns a buffer. May call granted() for others. */
void pool_put(struct pool *p, struct pool_user *u, void *buf, uint32_t len, bool capsule);
/*
 * Ends all waiting of U, and of CAPSULE (NULL: it does not wait). U may still return buffers. May call
 * granted() for others.
 */
void pool_leave(struct pool *p, struct pool_user *u, struct pool_waiter *capsule);
/* The end of U, which has returned all its buffers. */
void pool_user_fini(struct pool_user *u);
/* Frees the cached buffers. */
void pool_trim(struct pool *p);

#endif
