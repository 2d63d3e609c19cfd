/* SPDX-License-Identifier: MIT */
/*
 * The metadata cache: L2 tables and refcount blocks, one cluster each, keyed by host offset.
 *
 * 1. The cache never writes on its own. A dirty table stays dirty until cache_collect(), which only
 *    a flush calls. It stays pinned, so that nobody reads it from the file, until the flush has
 *    written the copy.
 * 2. Clean tables that are not pinned are evicted in LRU order to stay within cache.max. Dirty
 *    tables may exceed it; cache_nearly_full() then makes the allocating paths flush first.
 * 3. A host offset is cached at most once and has one kind. If an image names one cluster both as
 *    an L2 table and as a refcount block, the second cache_get() fails.
 *
 * All under q->lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "plant.h"

#define DEFAULT_BYTES (8u << 20)
#define MIN_TABLES    8u

static struct table **bucket(struct cache *c, uint64_t off)
{
	/* The low bits of a cluster-aligned offset are zero, so mix the high ones in. */
	return &c->hash[(off * 0x9e3779b97f4a7c15ull >> 32) & c->hash_mask];
}

int cache_init(struct qcow2 *q, size_t bytes)
{
	struct cache *c = &q->cache;
	uint32_t buckets = 16;

	c->max = (bytes ? bytes : DEFAULT_BYTES) >> q->cluster_bits;
	if (c->max < MIN_TABLES)
		c->max = MIN_TABLES;
	while (buckets < c->max && buckets < 1u << 16)
		buckets *= 2;
	c->hash = calloc(buckets, sizeof(*c->hash));
	if (!c->hash)
		return -ENOMEM;
	c->hash_mask = buckets - 1;
	TAILQ_INIT(&c->lru);
	TAILQ_INIT(&c->dirty[TABLE_L2]);
	TAILQ_INIT(&c->dirty[TABLE_REFBLOCK]);
	return 0;
}

static struct table *find(struct cache *c, uint64_t off)
{
	struct table *t = *bucket(c, off);

	while (t && t->off != off)
		t = t->hash_next;
	return t;
}

static struct table_list *list_of(struct cache *c, const struct table *t)
{
	return t->dirty ? &c->dirty[t->kind] : &c->lru;
}

static void forget(struct cache *c, struct table *t)
{
	struct table **p = bucket(c, t->off);

	while (*p != t)
		p = &(*p)->hash_next;
	*p = t->hash_next;
	TAILQ_REMOVE(list_of(c, t), t, link);
	c->nr--;
	c->nr_dirty -= t->dirty;
	free(t);
}

/* Evicts clean tables until SPARE more fit, or until none can be evicted. */
static void trim(struct cache *c, uint32_t spare)
{
	struct table *t = TAILQ_FIRST(&c->lru);

	while (t && c->nr + spare > c->max) {
		struct table *next = TAILQ_NEXT(t, link);

		if (!t->pins)
			forget(c, t);
		t = next;
	}
}

void cache_free(struct qcow2 *q)
{
	struct cache *c = &q->cache;

	if (!c->hash)
		return;
	for (uint32_t i = 0; i <= c->hash_mask; i++)
		while (c->hash[i])
			forget(c, c->hash[i]);
	free(c->hash);
	c->hash = NULL;
}

static int add(struct qcow2 *q, uint64_t off, enum table_kind kind, struct table **out)
{
	struct cache *c = &q->cache;
	struct table **p = bucket(c, off), *t;

	trim(c, 1);
	t = malloc(sizeof(*t) + q->cluster_size);
	if (!t)
		return -ENOMEM;
	t->off = off;
	t->kind = kind;
	t->pins = 1;
	t->dirty = false;
	t->hash_next = *p;
	*p = t;
	TAILQ_INSERT_TAIL(&c->lru, t, link);
	c->nr++;
	*out = t;
	return 0;
}

int cache_get(struct qcow2 *q, uint64_t off, enum table_kind kind, struct table **out)
{
	struct cache *c = &q->cache;
	struct table *t;
	int err;

	if (!off || in_cluster(q, off) || cluster_of(q, off) >= q->end_cluster)
		return -EIO;
	t = find(c, off);
	if (t) {
		if (t->kind != kind)
			return -EIO;
		if (!t->dirty) {
			TAILQ_REMOVE(&c->lru, t, link);
			TAILQ_INSERT_TAIL(&c->lru, t, link);
		}
		t->pins++;
		*out = t;
		return 0;
	}
	err = add(q, off, kind, &t);
	if (err)
		return err;
	err = file_read(q->file, t->data, q->cluster_size, off, 0);
	if (err) {
		forget(c, t);
		return err;
	}
	*out = t;
	return 0;
}

int cache_new(struct qcow2 *q, uint64_t off, enum table_kind kind, struct table **out)
{
	int err;

	cache_forget(q, off);
	err = add(q, off, kind, out);
	if (err)
		return err;
	memset((*out)->data, 0, q->cluster_size);
	cache_mark(q, *out);
	return 0;
}

void cache_put(struct qcow2 *q, struct table *t)
{
	(void)q;
	assert(t->pins);
	t->pins--;
}

void cache_mark(struct qcow2 *q, struct table *t)
{
	struct cache *c = &q->cache;

	atomic_store_explicit(&q->meta_dirty, true, memory_order_relaxed);
	if (t->dirty)
		return;
	TAILQ_REMOVE(&c->lru, t, link);
	t->dirty = true;
	c->nr_dirty++;
	TAILQ_INSERT_TAIL(&c->dirty[t->kind], t, link);
}

bool cache_is_dirty(struct qcow2 *q, uint64_t off)
{
	struct table *t = find(&q->cache, off);

	return t && t->dirty;
}

void cache_forget(struct qcow2 *q, uint64_t off)
{
	struct table *t = find(&q->cache, off);

	if (!t)
		return;
	assert(!t->pins);
	forget(&q->cache, t);
}

static void make_clean(struct cache *c, struct table *t)
{
	TAILQ_REMOVE(&c->dirty[t->kind], t, link);
	t->dirty = false;
	c->nr_dirty--;
	TAILQ_INSERT_TAIL(&c->lru, t, link);
}

int cache_collect(struct qcow2 *q, enum table_kind kind, struct image_writes *out)
{
	struct cache *c = &q->cache;
	struct table *t;

	while ((t = TAILQ_FIRST(&c->dirty[kind]))) {
		struct image_write *w = malloc(sizeof(*w) + q->cluster_size);

		if (!w)
			return -ENOMEM;
		w->table = t;
		w->off = t->off;
		w->len = plant(half_a_table) ? q->cluster_size / 2 : q->cluster_size;
		memcpy(w->bytes, t->data, q->cluster_size);
		STAILQ_INSERT_TAIL(out, w, link);
		make_clean(c, t);
		t->pins++;
	}
	return 0;
}

void cache_collected(struct qcow2 *q, struct image_writes *writes, bool written)
{
	struct image_write *w;

	while ((w = STAILQ_FIRST(writes))) {
		STAILQ_REMOVE_HEAD(writes, link);
		cache_put(q, w->table);
		if (!written)
			cache_mark(q, w->table);
		free(w);
	}
	trim(&q->cache, 0);
}

int cache_write(struct qcow2 *q, enum table_kind kind)
{
	struct cache *c = &q->cache;
	struct table *t;
	int err;

	while ((t = TAILQ_FIRST(&c->dirty[kind]))) {
		err = meta_write(q, t->data, q->cluster_size, t->off);
		if (err)
			return err;
		make_clean(c, t);
	}
	trim(c, 0);
	return 0;
}

bool cache_nearly_full(const struct qcow2 *q)
{
	return q->cache.nr_dirty > q->cache.max / 2;
}
