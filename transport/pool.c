// SPDX-License-Identifier: MIT
/*
 * The memory governor. A command that moves data gets its one buffer here before its R2T is sent
 * or it is executed; so what peers can make us allocate is bounded by the pool, not by them.
 *
 * 1. used + cached <= limit. Free buffers are kept by size for reuse (no malloc in steady state)
 *    and given up when another size needs the room, or by pool_trim() when all is idle.
 * 2. Data inside a capsule is already under way: the connection reads nothing else until it has a
 *    buffer. If it had to wait for buffers of commands whose data is still to come on the same
 *    connection, both would wait forever. So a reserve is kept that only capsules may use; such a
 *    buffer is held for one PDU, then by an executing command, and so always comes back.
 * 3. Users that wait stand in a ring and are served one buffer a turn. One that holds its share
 *    leaves the ring until it gives something back: it cannot starve the others.
 * 4. The first in the ring is never overtaken by one who needs less: no starvation by size.
 *
 * One pool belongs to one loop; only its thread comes here. No locks.
 */
#include <errno.h>
#include <assert.h>
#include <stdlib.h>
#include <malloc.h>
#include "pool.h"

static unsigned int size_class(uint32_t len)
{
	unsigned int c = 0;

	assert(len && len <= POOL_MAX);
	while ((POOL_MIN << c) < len)
		c++;
	return c;
}

void pool_init(struct pool *p, uint64_t limit, void (*granted)(struct pool_waiter *, void *))
{
	if (limit < 4 * POOL_MAX)
		limit = 4 * POOL_MAX;
	*p = (struct pool){
		.limit = limit,
		.reserve = limit / 16,
		.share = limit / 4,
		.granted = granted,
	};
	TAILQ_INIT(&p->ring);
	STAILQ_INIT(&p->capsules);
}

void pool_user_init(struct pool_user *u)
{
	*u = (struct pool_user){ 0 };
	STAILQ_INIT(&u->waiters);
}

static void free_cached(struct pool *p)
{
	for (unsigned int c = 0; c < POOL_CLASSES; c++) {
		struct pool_free *f;

		while ((f = p->free[c])) {
			p->free[c] = f->next;
			p->cached -= POOL_MIN << c;
			free(f);
		}
	}
}

void pool_trim(struct pool *p)
{
	free_cached(p);
	malloc_trim(0);
}

void pool_fini(struct pool *p)
{
	assert(!p->used);
	free_cached(p);
}

/* Frees cached buffers, of other sizes than class KEEP, until SIZE more bytes fit. */
static void make_room(struct pool *p, uint32_t size, unsigned int keep)
{
	for (unsigned int c = POOL_CLASSES; c-- > 0;) {
		struct pool_free *f;

		while (c != keep && p->used + p->cached + size > p->limit && (f = p->free[c])) {
			p->free[c] = f->next;
			p->cached -= POOL_MIN << c;
			free(f);
		}
	}
}

/* The budget was asked before; NULL: the system has no memory. */
static void *take(struct pool *p, unsigned int c)
{
	uint32_t size = POOL_MIN << c;
	struct pool_free *f = p->free[c];
	void *buf = f;

	if (f) {
		p->free[c] = f->next;
		p->cached -= size;
	} else {
		make_room(p, size, c);
		if (posix_memalign(&buf, POOL_MIN, size))
			return NULL;
	}
	p->used += size;
	p->gets++;
	return buf;
}

static bool fits(const struct pool *p, uint32_t size, bool capsule)
{
	return p->used + size <= p->limit - (capsule ? 0 : p->reserve);
}

static bool in_share(const struct pool *p, const struct pool_user *u, uint32_t size)
{
	return u->held + size <= p->share;
}

static void enter_ring(struct pool *p, struct pool_user *u)
{
	if (u->in_ring)
		return;
	TAILQ_INSERT_TAIL(&p->ring, u, link);
	u->in_ring = true;
}

static void leave_ring(struct pool *p, struct pool_user *u)
{
	if (!u->in_ring)
		return;
	TAILQ_REMOVE(&p->ring, u, link);
	u->in_ring = false;
}

int pool_get(struct pool *p, struct pool_user *u, struct pool_waiter *w, uint32_t len, bool capsule,
	     void **buf)
{
	unsigned int c = size_class(len);
	uint32_t size = POOL_MIN << c;
	bool now;

	if (capsule)
		now = STAILQ_EMPTY(&p->capsules) && fits(p, size, true);
	else
		now = TAILQ_EMPTY(&p->ring) && STAILQ_EMPTY(&u->waiters) && fits(p, size, false) &&
		      in_share(p, u, size);
	if (now) {
		*buf = take(p, c);
		if (!*buf)
			return -ENOMEM;
		if (!capsule)
			u->held += size;
		return 0;
	}
	w->user = u;
	w->len = len;
	if (capsule) {
		STAILQ_INSERT_TAIL(&p->capsules, w, link);
		return -EAGAIN;
	}
	STAILQ_INSERT_TAIL(&u->waiters, w, link);
	if (in_share(p, u, POOL_MIN << size_class(STAILQ_FIRST(&u->waiters)->len)))
		enter_ring(p, u);
	return -EAGAIN;
}

/* One turn of the ring. False: nobody could be served. */
static bool serve_one(struct pool *p)
{
	struct pool_user *u = TAILQ_FIRST(&p->ring);
	struct pool_waiter *w;
	uint32_t size;
	void *buf;

	if (!u)
		return false;
	w = STAILQ_FIRST(&u->waiters);
	size = POOL_MIN << size_class(w->len);
	if (!in_share(p, u, size)) {
		leave_ring(p, u);
		return true;
	}
	if (!fits(p, size, false))
		return false;
	STAILQ_REMOVE_HEAD(&u->waiters, link);
	leave_ring(p, u);
	if (!STAILQ_EMPTY(&u->waiters))
		enter_ring(p, u);
	buf = take(p, size_class(w->len));
	if (buf)
		u->held += size;
	p->granted(w, buf);
	return true;
}

static void serve(struct pool *p)
{
	struct pool_waiter *w;

	while ((w = STAILQ_FIRST(&p->capsules))) {
		unsigned int c = size_class(w->len);

		if (!fits(p, POOL_MIN << c, true))
			return;
		STAILQ_REMOVE_HEAD(&p->capsules, link);
		p->granted(w, take(p, c));
	}
	while (serve_one(p))
		;
}

void pool_put(struct pool *p, struct pool_user *u, void *buf, uint32_t len, bool capsule)
{
	unsigned int c = size_class(len);
	uint32_t size = POOL_MIN << c;
	struct pool_free *f = buf;

	f->next = p->free[c];
	p->free[c] = f;
	p->cached += size;
	p->used -= size;
	if (!capsule) {
		u->held -= size;
		if (!STAILQ_EMPTY(&u->waiters))
			enter_ring(p, u);
	}
	serve(p);
}

void pool_leave(struct pool *p, struct pool_user *u, struct pool_waiter *capsule)
{
	if (capsule)
		STAILQ_REMOVE(&p->capsules, capsule, pool_waiter, link);
	STAILQ_INIT(&u->waiters);
	leave_ring(p, u);
	serve(p);
}
