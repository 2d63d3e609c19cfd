/* SPDX-License-Identifier: MIT */
/*
 * The extent map of a zone: which parts of the zone can be read and written in place, and at which
 * host offsets. With it the hot path needs no q->lock: a lookup is a load and usually one
 * comparison.
 *
 * 1. Whoever changes a map holds q->lock; lookups hold no lock. So a published map changes only
 *    by appending an extent (the count is stored last) or by growing the length of one. Any other
 *    change builds a new map, and the old one stays readable on the RETIRED list until the zone
 *    is quiet.
 * 2. Extents are sorted and do not overlap. In a writable image they contain only clusters that may
 *    be written in place: those with refcount one that are no metadata.
 * 3. A map is a cache. It may decline an extent; a lookup through L2 then still answers. So an
 *    image that is fragmented on purpose costs speed, not memory.
 */
#include <stdlib.h>

#include "image.h"
#include "plant.h"

#define MAX_EXTENTS   1024u /* per zone */
#define SCATTERED     768u
#define MAX_MAP_BYTES (64u << 20) /* all zones of an image together */

static uint64_t length(const struct extent *e)
{
	return atomic_load_explicit(&e->len, memory_order_relaxed);
}

/* The number of the first NR extents that begin at or below OFF. */
static uint32_t position(const struct zone_map *m, uint32_t nr, uint64_t off)
{
	uint32_t lo = 0;

	while (lo < nr) {
		uint32_t mid = lo + (nr - lo) / 2;

		if (m->ext[mid].off <= off)
			lo = mid + 1;
		else
			nr = mid;
	}
	return lo;
}

bool zmap_find(const struct zone_rec *z, uint64_t off, uint64_t *host, uint64_t *run)
{
	const struct zone_map *m = atomic_load_explicit(&z->map, memory_order_acquire);
	const struct extent *e;
	uint32_t i;

	if (!m)
		return false;
	i = position(m, atomic_load_explicit(&m->nr, memory_order_acquire), off);
	if (!i)
		return false;
	e = &m->ext[i - 1];
	if (off - e->off >= length(e))
		return false;
	*host = e->host + (off - e->off);
	*run = length(e) - (off - e->off);
	return true;
}

static void extent_set(struct extent *e, uint64_t off, uint64_t len, uint64_t host)
{
	e->off = off;
	e->host = host;
	atomic_store_explicit(&e->len, len, memory_order_relaxed);
}

/* Publishes a copy of OLD that has a new extent at index I and room for more. False: no memory. */
static bool replace(struct qcow2 *q, struct zone_rec *z, struct zone_map *old, uint32_t nr,
		    uint32_t i, struct extent *new)
{
	uint32_t cap = nr < 2 ? 2 * nr + 1 : 2 * nr;
	size_t bytes = sizeof(struct zone_map) + cap * sizeof(struct extent);
	struct zone_map *m;

	if (nr >= MAX_EXTENTS || q->map_bytes + bytes > MAX_MAP_BYTES)
		return false;
	m = malloc(bytes);
	if (!m)
		return false;
	q->map_bytes += bytes;
	m->retired = old;
	m->cap = cap;
	for (uint32_t k = 0; k < nr; k++)
		extent_set(&m->ext[k + (k >= i)], old->ext[k].off, length(&old->ext[k]),
			   old->ext[k].host);
	extent_set(&m->ext[i], new->off, length(new), new->host);
	atomic_init(&m->nr, nr + 1);
	atomic_store_explicit(&z->map, m, memory_order_release);
	return true;
}

bool zmap_add(struct qcow2 *q, uint32_t zone, uint64_t off, uint64_t len, uint64_t host, bool warm)
{
	struct zone_rec *z = &q->zones[zone];
	struct zone_map *m = atomic_load_explicit(&z->map, memory_order_relaxed);
	uint32_t nr = m ? atomic_load_explicit(&m->nr, memory_order_relaxed) : 0;
	uint32_t i = position(m, nr, off);
	struct extent new;

	if (!warm)
		atomic_store_explicit(&z->cold, true, memory_order_relaxed);
	if (i) {
		struct extent *prev = &m->ext[i - 1];
		uint64_t end = prev->off + length(prev);

		if (off < end) { /* it is in the map already, at least in part */
			uint64_t known = end - off;

			if (known >= len)
				return true;
			off += known;
			host += known;
			len -= known;
		}
		if (i < nr && len > m->ext[i].off - off)
			len = m->ext[i].off - off;
		if (!len)
			return true;
		if (off == end &&
		    (host == prev->host + length(prev) || plant(zone_map_joins_strangers))) {
			atomic_store_explicit(&prev->len, length(prev) + len, memory_order_relaxed);
			return true;
		}
	} else if (nr && len > m->ext[0].off - off) {
		len = m->ext[0].off - off;
	}
	if (m && i == nr && nr < m->cap) {
		extent_set(&m->ext[nr], off, len, host);
		atomic_store_explicit(&m->nr, nr + 1, memory_order_release);
		return true;
	}
	extent_set(&new, off, len, host);
	return replace(q, z, m, nr, i, &new);
}

bool zmap_scattered(const struct zone_rec *z)
{
	const struct zone_map *m = atomic_load_explicit(&z->map, memory_order_relaxed);

	return m && atomic_load_explicit(&m->nr, memory_order_relaxed) >= SCATTERED;
}

void zmap_drop(struct qcow2 *q, uint32_t zone)
{
	struct zone_map *m = atomic_exchange(&q->zones[zone].map, NULL);

	atomic_store(&q->zones[zone].cold, false);
	while (m) {
		struct zone_map *next = m->retired;

		q->map_bytes -= sizeof(*m) + m->cap * sizeof(struct extent);
		free(m);
		m = next;
	}
}
