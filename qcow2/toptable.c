/* SPDX-License-Identifier: MIT */
/*
 * The two top-level tables: L1 (at most 32 MiB) and the refcount table (at most 8 MiB). Both are
 * kept whole in memory, in host byte order. A change marks the sector of 64 entries that it lies in
 * as dirty, and a flush writes the dirty sectors only. All under q->lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "plant.h"

#define SECTOR_ENTRIES 64u
#define BATCH	       512u /* entries per write */

static uint32_t sectors(uint32_t nr)
{
	return (nr + SECTOR_ENTRIES - 1) / SECTOR_ENTRIES;
}

int toptable_read(struct qcow2 *q, struct toptable *t, uint64_t off, uint32_t nr)
{
	int err;

	t->entry = malloc(nr ? nr * sizeof(*t->entry) : 1);
	t->dirty = calloc(sectors(nr) + 1, 1);
	if (!t->entry || !t->dirty)
		return -ENOMEM;
	err = file_read(q->file, t->entry, nr * sizeof(*t->entry), off, 0);
	if (err)
		return err;
	for (uint32_t i = 0; i < nr; i++) {
		t->entry[i] = be64toh(t->entry[i]);
		if (t->entry[i])
			t->used = i + 1;
	}
	t->nr = nr;
	t->off = off;
	return 0;
}

int toptable_grow(struct toptable *t, uint64_t off, uint32_t nr)
{
	uint64_t *entry = realloc(t->entry, nr * sizeof(*entry));
	uint8_t *dirty;

	if (!entry)
		return -ENOMEM;
	t->entry = entry;
	dirty = realloc(t->dirty, sectors(nr) + 1);
	if (!dirty)
		return -ENOMEM;
	t->dirty = dirty;
	memset(entry + t->nr, 0, (nr - t->nr) * sizeof(*entry));
	memset(dirty, 1, sectors(nr));
	t->dirty_lo = 0;
	t->dirty_hi = sectors(nr);
	t->nr = nr;
	t->off = off;
	return 0;
}

void toptable_free(struct toptable *t)
{
	free(t->entry);
	free(t->dirty);
	memset(t, 0, sizeof(*t));
}

bool toptable_dirty(const struct toptable *t)
{
	return t->dirty_lo < t->dirty_hi;
}

static void mark(struct toptable *t, uint32_t sector)
{
	t->dirty[sector] = 1;
	if (!toptable_dirty(t)) {
		t->dirty_lo = sector;
		t->dirty_hi = sector + 1;
	}
	if (sector < t->dirty_lo)
		t->dirty_lo = sector;
	if (sector >= t->dirty_hi)
		t->dirty_hi = sector + 1;
}

void toptable_set(struct toptable *t, uint32_t i, uint64_t value)
{
	assert(i < t->nr);
	t->entry[i] = value;
	if (i >= t->used)
		t->used = i + 1;
	mark(t, i / SECTOR_ENTRIES);
}

/* The dirty sectors that one write takes are [t->dirty_lo, the result). */
static uint32_t batch_end(const struct toptable *t)
{
	uint32_t end = t->dirty_lo;

	while (end < t->dirty_hi && t->dirty[end] && (end - t->dirty_lo) * SECTOR_ENTRIES < BATCH)
		end++;
	return end;
}

/* Copies the entries of this batch, as in the file, to BE; returns how many. */
static uint32_t copy_batch(const struct toptable *t, uint32_t end, uint64_t *be)
{
	uint32_t first = t->dirty_lo * SECTOR_ENTRIES, nr = (end - t->dirty_lo) * SECTOR_ENTRIES;

	if (first + nr > t->nr)
		nr = first < t->nr ? t->nr - first : 0;
	for (uint32_t i = 0; i < nr; i++)
		be[i] = htobe64(t->entry[first + i]);
	return nr;
}

static uint64_t batch_off(const struct toptable *t)
{
	return t->off + (uint64_t)t->dirty_lo * SECTOR_ENTRIES * sizeof(*t->entry);
}

static void batch_done(struct toptable *t, uint32_t end)
{
	memset(t->dirty + t->dirty_lo, 0, end - t->dirty_lo);
	while (end < t->dirty_hi && !t->dirty[end])
		end++;
	t->dirty_lo = end;
}

int toptable_write(struct qcow2 *q, struct toptable *t)
{
	uint64_t be[BATCH];

	while (toptable_dirty(t)) {
		uint32_t end = batch_end(t), nr = copy_batch(t, end, be);
		int err = meta_write(q, be, nr * sizeof(*be), batch_off(t));

		if (err)
			return err;
		batch_done(t, end);
	}
	return 0;
}

int toptable_collect(struct toptable *t, struct image_writes *out)
{
	while (toptable_dirty(t)) {
		struct image_write *w = malloc(sizeof(*w) + BATCH * sizeof(*w->bytes));
		uint32_t end = batch_end(t), nr;

		if (!w)
			return -ENOMEM;
		nr = copy_batch(t, end, w->bytes);
		if (plant(top_table_forgets_entries) && nr > SECTOR_ENTRIES)
			nr = SECTOR_ENTRIES;
		w->table = NULL;
		w->off = batch_off(t);
		w->len = nr * sizeof(*w->bytes);
		STAILQ_INSERT_TAIL(out, w, link);
		batch_done(t, end);
	}
	return 0;
}

void toptable_collected(struct toptable *t, struct image_writes *writes, bool written)
{
	struct image_write *w;

	while ((w = STAILQ_FIRST(writes))) {
		uint64_t first = (w->off - t->off) / sizeof(*t->entry),
			 nr = w->len / sizeof(*t->entry);

		STAILQ_REMOVE_HEAD(writes, link);
		/* A table that has moved since is dirty as a whole. */
		for (uint64_t i = first; !written && i < first + nr && i < t->nr;
		     i += SECTOR_ENTRIES)
			mark(t, i / SECTOR_ENTRIES);
		free(w);
	}
}
