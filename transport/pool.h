/* SPDX-License-Identifier: MIT */
/*
 * The data buffers of one loop: limited in total, shared fairly by hosts, 4096-aligned, reused. All
 * sizes are in bytes. Only the loop's thread calls these functions.
 */
#ifndef TRANSPORT_POOL_H
#define TRANSPORT_POOL_H

#include <assert.h>
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

/* A host with all its connections on this loop; before Connect, a connection counts as a host. */
struct pool_host {
	TAILQ_ENTRY(pool_host) link; /* in pool->ring, or in pool->over */
	enum { POOL_IDLE, POOL_RING, POOL_OVER } list;
	LIST_ENTRY(pool_host) all; /* in pool->hosts, if it has a name */
	char *name;		   /* its NQN; NULL: before Connect */
	unsigned int users;
	uint64_t held; /* bytes of buffers and charges, except in-capsule data */
	struct pool_waiters waiters;
};
TAILQ_HEAD(pool_ring, pool_host);

/* A connection. */
struct pool_user {
	struct pool_host *host;
	struct pool_host alone; /* its host before Connect */
	uint64_t held;		/* this connection's part of host->held */
};

struct pool_free {
	struct pool_free *next;
};

struct pool {
	uint64_t limit;	  /* bytes, including cached buffers */
	uint64_t reserve; /* of the limit, for in-capsule data only */
	uint64_t used;	  /* bytes of buffers in use, and of charges */
	uint64_t cached;  /* bytes on the free lists */
	uint64_t gets;	  /* buffers taken since pool_init(); unchanged means idle */
	struct pool_free *free[POOL_CLASSES];
	LIST_HEAD(, pool_host) hosts;
	struct pool_ring ring;	      /* hosts that wait and may have more of their share */
	struct pool_ring over;	      /* hosts that wait and hold their share already */
	struct pool_waiters capsules; /* in-capsule data that waits */
	/* Gives W the buffer that it waited for. BUF NULL: the system has no memory. */
	void (*granted)(struct pool_waiter *w, void *buf);
};

/* LIMIT is raised to 4 * POOL_MAX, the least with which every command can make progress. */
void pool_init(struct pool *p, uint64_t limit, void (*granted)(struct pool_waiter *, void *));
/* Frees the cached buffers of P. Every buffer was returned, and every user was ended, before. */
void pool_fini(struct pool *p);

/* Initialises U as a host of its own, which it is until pool_user_join(). */
void pool_user_init(struct pool_user *u);
/*
 * Makes U, with what it holds and waits for, a connection of the host HOSTNQN, with which it shares
 * the memory from now on. 0; -ENOMEM: U remains a host of its own.
 */
int pool_user_join(struct pool *p, struct pool_user *u, const char *hostnqn);

/* Returns the size class of a buffer for LEN (1 to POOL_MAX) bytes. */
static inline unsigned int pool_class(uint32_t len)
{
	uint32_t pages = (len - 1) / POOL_MIN;

	assert(len && len <= POOL_MAX);
	return pages ? 32 - (unsigned int)__builtin_clz(pages) : 0;
}

/* Returns the size of the buffer for LEN bytes: that of its size class. */
static inline uint32_t pool_size(uint32_t len)
{
	return POOL_MIN << pool_class(len);
}

/*
 * Gets a buffer of LEN (1 to POOL_MAX) bytes for U. 0 and *BUF; -EAGAIN: W waits, and granted(W)
 * will be called unless pool_leave() ends the wait; -ENOMEM: the system has no memory. CAPSULE: the
 * buffer is for in-capsule data, which may use the reserve (pool.c, 2). The caller returns the
 * buffer by pool_put().
 */
int pool_get(struct pool *p, struct pool_user *u, struct pool_waiter *w, uint32_t len, bool capsule,
	     void **buf);
/*
 * Counts BYTES as held by U, for a buffer that it may need later, without allocating one. False:
 * they are not available at once. pool_uncharge() ends it, and may call granted() for others.
 */
bool pool_charge(struct pool *p, struct pool_user *u, uint32_t bytes);
void pool_uncharge(struct pool *p, struct pool_user *u, uint32_t bytes);
/*
 * Gets a buffer of LEN bytes for U at once, whatever the limit; the caller then ends the charge
 * that it made for this buffer. NULL: the system has no memory.
 */
void *pool_force(struct pool *p, struct pool_user *u, uint32_t len);
/* Returns a buffer, with LEN and CAPSULE as it was taken. May call granted() for others. */
void pool_put(struct pool *p, struct pool_user *u, void *buf, uint32_t len, bool capsule);
/*
 * Removes the waiters of U, and the waiter CAPSULE of its in-capsule data (NULL: none waits);
 * granted() is not called for them. U may still return buffers. May call granted() for others.
 */
void pool_leave(struct pool *p, struct pool_user *u, struct pool_waiter *capsule);
/* Ends U, which holds and waits for nothing any more. */
void pool_user_fini(struct pool_user *u);
/* Returns the cached buffers, and free memory of the heap, to the system. */
void pool_trim(struct pool *p);

#endif
