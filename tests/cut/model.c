/* SPDX-License-Identifier: MIT */
/*
 * The durability contract as a judge (design, 5: D1 to D5). A zone lives in epochs, from reset to
 * reset. After a power cut a zone must be as it was at some moment of some epoch that may come
 * back:
 *
 * 1. No epoch older than the one of the last reset that a flush covered (D1, D3).
 * 2. Its write pointer is not below what a flush covered in that epoch (D1, D2).
 * 3. Each block below the pointer is exactly what was written there: where a completion named the
 *    address, that write's block (D4); elsewhere a block of a write that was in flight, all of
 *    whose blocks lie in a row. So nothing stale, no holes, nothing from another epoch.
 * 4. What is at and above the pointer reads as zeroes.
 * 5. A zone is Full by its last block, or by a finish that was sent; then all that had completed
 *    is there. A finish that a flush covered stays (D5).
 *
 * The host sends writes at given addresses, resets and finishes only to zones with nothing in
 * flight; appends and flushes at any time, on any queue. So what the model does not know is what
 * was in flight at the cut, and nothing else.
 */
#undef NDEBUG /* its asserts judge the drive */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "model.h"

#define UNIT 512u

static void epoch_add(struct model *m, uint32_t zone)
{
	struct model_zone *z = &m->zone[zone];

	z->epoch = realloc(z->epoch, (z->nr_epochs + 1) * sizeof(*z->epoch));
	assert(z->epoch);
	z->epoch[z->nr_epochs++] = (struct epoch){ .block = calloc(m->cap, sizeof(struct origin)) };
	assert(z->epoch[z->nr_epochs - 1].block);
}

void model_init(struct model *m, uint32_t nr_zones, uint32_t cap, uint32_t lba)
{
	*m = (struct model){ .nr_zones = nr_zones, .cap = cap, .lba = lba };
	m->zone = calloc(nr_zones, sizeof(*m->zone));
	assert(m->zone);
	for (uint32_t i = 0; i < nr_zones; i++)
		epoch_add(m, i);
}

void model_free(struct model *m)
{
	for (uint32_t i = 0; i < m->nr_zones; i++) {
		for (uint32_t e = 0; e < m->zone[i].nr_epochs; e++)
			free(m->zone[i].epoch[e].block);
		free(m->zone[i].epoch);
	}
	free(m->zone);
	m->zone = NULL;
}

static uint32_t now_nr(const struct model_zone *z)
{
	return z->nr_epochs - 1 - z->reset_sent;
}

struct epoch *model_now(struct model *m, uint32_t zone)
{
	return &m->zone[zone].epoch[now_nr(&m->zone[zone])];
}

void model_reset_sent(struct model *m, uint32_t zone)
{
	assert(!m->zone[zone].reset_sent);
	epoch_add(m, zone);
	m->zone[zone].reset_sent = true;
}

void model_reset_done(struct model *m, uint32_t zone)
{
	m->zone[zone].reset_sent = false;
}

void model_reset_refused(struct model *m, uint32_t zone)
{
	struct model_zone *z = &m->zone[zone];

	free(z->epoch[--z->nr_epochs].block);
	z->reset_sent = false;
}

void model_written(struct model *m, uint32_t zone, uint32_t block, uint32_t nr, uint32_t id)
{
	struct epoch *e = model_now(m, zone);

	assert(block + nr <= m->cap);
	for (uint32_t i = 0; i < nr; i++) {
		assert(!e->block[block + i].id); /* two writes at one address */
		e->block[block + i] = (struct origin){ id, i };
	}
	if (e->acked < block + nr)
		e->acked = block + nr;
}

struct model_mark *model_mark(struct model *m)
{
	struct model_mark *mark = calloc(m->nr_zones, sizeof(*mark));

	assert(mark);
	for (uint32_t i = 0; i < m->nr_zones; i++) {
		const struct epoch *e = model_now(m, i);

		mark[i] = (struct model_mark){ now_nr(&m->zone[i]), e->acked, e->finish_acked };
	}
	return mark;
}

void model_flushed(struct model *m, const struct model_mark *mark)
{
	for (uint32_t i = 0; i < m->nr_zones; i++) {
		struct model_zone *z = &m->zone[i];
		struct epoch *e = &z->epoch[mark[i].epoch];

		if (z->durable < mark[i].epoch)
			z->durable = mark[i].epoch;
		if (e->durable < mark[i].wp)
			e->durable = mark[i].wp;
		e->finish_durable |= mark[i].finished;
	}
}

/* --- contents --- */

static void fill_unit(uint8_t *unit, uint32_t id, uint32_t index)
{
	struct origin o = { id, index };

	host_pattern(unit, UNIT, (uint64_t)index * UNIT, id);
	memcpy(unit, &o, sizeof(o));
}

void model_fill(const struct model *m, void *buf, uint32_t blocks, uint32_t id)
{
	uint32_t units = blocks * (m->lba / UNIT);

	for (uint32_t i = 0; i < units; i++)
		fill_unit((uint8_t *)buf + i * UNIT, id, i);
}

bool model_is(const struct model *m, const void *block, struct origin o)
{
	uint32_t units = m->lba / UNIT;
	uint8_t want[UNIT];

	for (uint32_t i = 0; i < units; i++) {
		fill_unit(want, o.id, o.index * units + i);
		if (memcmp((const uint8_t *)block + i * UNIT, want, UNIT))
			return false;
	}
	return true;
}

/* What a block says it is. */
static struct origin claim_of(const struct model *m, const uint8_t *block)
{
	struct origin o;

	memcpy(&o, block, sizeof(o));
	o.index /= m->lba / UNIT;
	return o;
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

/* --- judgement --- */

struct judge {
	const struct model *m;
	const struct found *f;
	const struct pending *pending;
	size_t nr_pending;
	uint32_t zone;
	char *why; /* the next sentence; ends before LIMIT */
	char *limit;
};

__attribute__((format(printf, 2, 3))) static bool no(struct judge *j, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(j->why, j->limit - j->why, fmt, ap);
	va_end(ap);
	j->why += n < j->limit - j->why ? n : j->limit - j->why - 1;
	return false;
}

/* A block that no completion told of: it comes from a write in flight, which it puts in place. */
static bool was_in_flight(struct judge *j, uint32_t block, struct origin o)
{
	for (size_t i = 0; i < j->nr_pending; i++) {
		const struct pending *p = &j->pending[i];

		if (p->zone != j->zone || p->id != o.id)
			continue;
		if (o.index >= p->nr || block < o.index)
			return false;
		return p->at < 0 || p->at == block - o.index;
	}
	return false;
}

static bool block_right(struct judge *j, const struct epoch *e, uint32_t block,
			struct origin *previous)
{
	const uint8_t *data = j->f->data + (size_t)block * j->m->lba;
	struct origin o = e->block[block], seen = claim_of(j->m, data);
	struct origin before = *previous;

	*previous = seen;
	if (o.id) {
		if (model_is(j->m, data, o))
			return true;
		return no(j, "block %u is %s%u/%u, not %u/%u; ", block,
			  is_zero(data, j->m->lba) ? "zero " : "", seen.id, seen.index, o.id,
			  o.index);
	}
	/* The first block of its write, or the one behind the one before. */
	if (was_in_flight(j, block, seen) && model_is(j->m, data, seen) &&
	    (!seen.index || (before.id == seen.id && before.index + 1 == seen.index)))
		return true;
	return no(j, "block %u is %s%u/%u, which never was written there; ", block,
		  is_zero(data, j->m->lba) ? "zero " : "", seen.id, seen.index);
}

/* Whether the zone may be in epoch NR; if so, END is where its data ends. */
static bool epoch_fits(struct judge *j, const struct epoch *e, uint32_t *end)
{
	const struct found *f = j->f;
	struct origin previous = { 0 };
	uint32_t data = f->wp;
	bool finished = false;

	if (f->full && e->finish_sent) {
		finished = true;
		data = e->acked;
	} else if (e->finish_durable) {
		return no(j, "it was finished, and flushed; ");
	} else if (data < e->durable) {
		return no(j, "the pointer is at %u, flushed was up to %u; ", data, e->durable);
	}
	for (uint32_t i = 0; i < data; i++)
		if (!block_right(j, e, i, &previous))
			return false;
	if (!is_zero(f->data + (size_t)data * j->m->lba, (size_t)(j->m->cap - data) * j->m->lba))
		return no(j, "there is data above %u%s; ", data, finished ? " (finished)" : "");
	*end = data;
	return true;
}

/* What was found is durable now, and all there is. */
static void take(struct judge *j, struct model_zone *z, uint32_t end)
{
	struct model *m = (struct model *)j->m;
	struct epoch *e;

	for (uint32_t i = 0; i < z->nr_epochs; i++)
		free(z->epoch[i].block);
	z->nr_epochs = z->durable = 0;
	z->reset_sent = false;
	epoch_add(m, j->zone);
	e = &z->epoch[0];
	e->acked = e->durable = end;
	e->finish_sent = e->finish_acked = e->finish_durable = j->f->full;
	for (uint32_t i = 0; i < end; i++)
		e->block[i] = claim_of(m, j->f->data + (size_t)i * m->lba);
}

bool model_judge(struct model *m, uint32_t zone, const struct found *f,
		 const struct pending *pending, size_t nr_pending, char why[MODEL_ERRLEN])
{
	struct model_zone *z = &m->zone[zone];
	struct judge j = { m, f, pending, nr_pending, zone, why, why + MODEL_ERRLEN };
	uint32_t end = 0;

	*why = 0;
	for (uint32_t i = z->durable; i < z->nr_epochs; i++) {
		no(&j, "life %u: ", i);
		if (epoch_fits(&j, &z->epoch[i], &end)) {
			take(&j, z, end);
			return true;
		}
	}
	no(&j, "wp %u%s of %u", f->wp, f->full ? ", full" : "", m->cap);
	return false;
}
