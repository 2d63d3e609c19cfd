// SPDX-License-Identifier: MIT
/*
 * The pool limits the memory that peers can make us allocate: a command that moves data gets its
 * buffer here before its R2T is sent or it is executed.
 *
 * 1. used + cached <= limit, except between pool_force() and the pool_uncharge() that follows it.
 *    Free buffers are cached by size, so there is no malloc in steady state; they are freed when
 *    another size needs the memory, or by pool_trim() when the loop is idle.
 * 2. A connection whose in-capsule data waits for a buffer receives nothing else. If that wait was
 *    for buffers of commands whose data is still to come on the same connection, both would wait
 *    for ever. So a part of the limit, the reserve, is for in-capsule data only. Such a buffer is
 *    held while one PDU arrives and while its command executes, so it is always returned.
 * 3. A host may hold as much as it leaves free: with one host that is half of the pool, with two a
 *    third each, and with N hosts 1/(N+1) each (a dynamic threshold, as in a switch's buffer). So
 *    however many hosts hold their share, there is memory left for the next one. The number of
 *    connections and controllers of a host does not matter. A host that holds nothing may always
 *    take one buffer.
 * 4. Hosts that wait are served in turn, one buffer each, and the commands of one host in the order
 *    of their arrival. A host that holds its share waits on `over` and delays no other; it returns
 *    to the ring when memory is freed.
 * 5. No host overtakes the first host in the ring because it needs less, so small buffers do not
 *    starve large ones.
 *
 * The connection limits how long a buffer may wait for its data (tcp_config.host_ms).
 */
#include <errno.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <malloc.h>
#include "pool.h"

void pool_init(struct pool *p, uint64_t limit, void (*granted)(struct pool_waiter *, void *))
{
	if (limit < 4 * POOL_MAX)
		limit = 4 * POOL_MAX;
	*p = (struct pool){
		.limit = limit,
		.reserve = limit / 16,
		.granted = granted,
	};
	LIST_INIT(&p->hosts);
	TAILQ_INIT(&p->ring);
	TAILQ_INIT(&p->over);
	STAILQ_INIT(&p->capsules);
}

void pool_user_init(struct pool_user *u)
{
	*u = (struct pool_user){ .host = &u->alone, .alone = { .users = 1 } };
	STAILQ_INIT(&u->alone.waiters);
}

static struct pool_host *host_find(struct pool *p, const char *name)
{
	struct pool_host *h;

	LIST_FOREACH (h, &p->hosts, all)
		if (!strcmp(h->name, name))
			return h;
	h = calloc(1, sizeof(*h));
	if (!h)
		return NULL;
	h->name = strdup(name);
	if (!h->name) {
		free(h);
		return NULL;
	}
	STAILQ_INIT(&h->waiters);
	LIST_INSERT_HEAD(&p->hosts, h, all);
	return h;
}

static void host_put(struct pool_host *h)
{
	if (--h->users || !h->name)
		return;
	LIST_REMOVE(h, all);
	free(h->name);
	free(h);
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

/* Frees cached buffers of other classes than KEEP until SIZE more bytes fit into the limit. */
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

/* Takes a buffer of class C; the caller has checked the limit. NULL: the system has no memory. */
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

/* Whether SIZE bytes more are within the limit, less the reserve unless it is for CAPSULE. */
static bool fits(const struct pool *p, uint32_t size, bool capsule)
{
	return p->used + size <= p->limit - (capsule ? 0 : p->reserve);
}

/* Whether HOST may hold SIZE bytes more (rule 3). */
static bool in_share(const struct pool *p, const struct pool_host *host, uint32_t size)
{
	uint64_t most = p->limit - p->reserve;
	uint64_t left = p->used < most ? most - p->used : 0;

	return !host->held || host->held + size <= left;
}

static uint32_t first_size(const struct pool_host *h)
{
	return pool_size(STAILQ_FIRST(&h->waiters)->len);
}

static void dequeue(struct pool *p, struct pool_host *h)
{
	if (h->list == POOL_RING)
		TAILQ_REMOVE(&p->ring, h, link);
	else if (h->list == POOL_OVER)
		TAILQ_REMOVE(&p->over, h, link);
	h->list = POOL_IDLE;
}

/* Moves H to the end of the list that it belongs to now; to none if it does not wait. */
static void enqueue(struct pool *p, struct pool_host *h)
{
	dequeue(p, h);
	if (STAILQ_EMPTY(&h->waiters))
		return;
	h->list = in_share(p, h, first_size(h)) ? POOL_RING : POOL_OVER;
	TAILQ_INSERT_TAIL(h->list == POOL_RING ? &p->ring : &p->over, h, link);
}

int pool_user_join(struct pool *p, struct pool_user *u, const char *hostnqn)
{
	struct pool_host *h = host_find(p, hostnqn);

	if (!h)
		return -ENOMEM;
	dequeue(p, &u->alone);
	STAILQ_CONCAT(&h->waiters, &u->alone.waiters);
	u->host = h;
	h->users++;
	h->held += u->held;
	if (h->list == POOL_IDLE)
		enqueue(p, h);
	return 0;
}

void pool_user_fini(struct pool_user *u)
{
	assert(!u->held);
	host_put(u->host);
	u->host = NULL;
}

static void hold(struct pool_user *u, uint32_t size)
{
	u->held += size;
	u->host->held += size;
}

/* Whether U may have SIZE bytes now, without overtaking a waiter that could be served. */
static bool at_once(const struct pool *p, const struct pool_user *u, uint32_t size)
{
	return TAILQ_EMPTY(&p->ring) && STAILQ_EMPTY(&u->host->waiters) && fits(p, size, false) &&
	       in_share(p, u->host, size);
}

bool pool_charge(struct pool *p, struct pool_user *u, uint32_t bytes)
{
	if (!at_once(p, u, bytes))
		return false;
	p->used += bytes;
	hold(u, bytes);
	return true;
}

void *pool_force(struct pool *p, struct pool_user *u, uint32_t len)
{
	void *buf = take(p, pool_class(len));

	if (buf)
		hold(u, pool_size(len));
	return buf;
}

int pool_get(struct pool *p, struct pool_user *u, struct pool_waiter *w, uint32_t len, bool capsule,
	     void **buf)
{
	unsigned int c = pool_class(len);
	uint32_t size = POOL_MIN << c;
	bool now;

	if (capsule)
		now = STAILQ_EMPTY(&p->capsules) && fits(p, size, true);
	else
		now = at_once(p, u, size);
	if (now) {
		*buf = take(p, c);
		if (!*buf)
			return -ENOMEM;
		if (!capsule)
			hold(u, size);
		return 0;
	}
	w->user = u;
	w->len = len;
	if (capsule) {
		STAILQ_INSERT_TAIL(&p->capsules, w, link);
		return -EAGAIN;
	}
	STAILQ_INSERT_TAIL(&u->host->waiters, w, link);
	if (u->host->list == POOL_IDLE)
		enqueue(p, u->host);
	return -EAGAIN;
}

/* Serves the first host of the ring. False: it must wait for memory, or the ring is empty. */
static bool serve_one(struct pool *p)
{
	struct pool_host *h = TAILQ_FIRST(&p->ring);
	struct pool_waiter *w;
	uint32_t size;
	void *buf;

	if (!h)
		return false;
	size = first_size(h);
	if (!in_share(p, h, size)) {
		enqueue(p, h);
		return true;
	}
	if (!fits(p, size, false))
		return false;
	w = STAILQ_FIRST(&h->waiters);
	STAILQ_REMOVE_HEAD(&h->waiters, link);
	buf = take(p, pool_class(w->len));
	if (buf)
		hold(w->user, size);
	enqueue(p, h);
	p->granted(w, buf);
	return true;
}

/* After memory was freed: moves hosts that may have more now from `over` to the ring. */
static void reconsider(struct pool *p)
{
	struct pool_host *h, *next;

	for (h = TAILQ_FIRST(&p->over); h; h = next) {
		next = TAILQ_NEXT(h, link);
		if (in_share(p, h, first_size(h)))
			enqueue(p, h);
	}
}

/* Gives free memory to waiters: first to in-capsule data, then to hosts in turn. */
static void serve(struct pool *p)
{
	struct pool_waiter *w;

	while ((w = STAILQ_FIRST(&p->capsules))) {
		if (!fits(p, pool_size(w->len), true))
			return;
		STAILQ_REMOVE_HEAD(&p->capsules, link);
		p->granted(w, take(p, pool_class(w->len)));
	}
	reconsider(p);
	while (serve_one(p))
		;
}

void pool_put(struct pool *p, struct pool_user *u, void *buf, uint32_t len, bool capsule)
{
	unsigned int c = pool_class(len);
	uint32_t size = POOL_MIN << c;
	struct pool_free *f = buf;

	f->next = p->free[c];
	p->free[c] = f;
	p->cached += size;
	p->used -= size;
	if (!capsule) {
		u->held -= size;
		u->host->held -= size;
	}
	serve(p);
}

void pool_uncharge(struct pool *p, struct pool_user *u, uint32_t bytes)
{
	p->used -= bytes;
	u->held -= bytes;
	u->host->held -= bytes;
	serve(p);
}

void pool_leave(struct pool *p, struct pool_user *u, struct pool_waiter *capsule)
{
	struct pool_host *h = u->host;
	struct pool_waiters others;
	struct pool_waiter *w;

	if (capsule)
		STAILQ_REMOVE(&p->capsules, capsule, pool_waiter, link);
	dequeue(p, h);
	STAILQ_INIT(&others);
	while ((w = STAILQ_FIRST(&h->waiters))) {
		STAILQ_REMOVE_HEAD(&h->waiters, link);
		if (w->user != u)
			STAILQ_INSERT_TAIL(&others, w, link);
	}
	STAILQ_CONCAT(&h->waiters, &others);
	enqueue(p, h);
	serve(p);
}
