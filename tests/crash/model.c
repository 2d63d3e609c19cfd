/* SPDX-License-Identifier: MIT */
/*
 * The model drive: what was asked of the drive, when, and therefore what it may show after a cut.
 *
 * The life of a sequential zone is a row of *generations*, one a reset. In a generation each LBA
 * is written once; the LBA, the zone and the number of the write (its *version*) make the bytes, so
 * bytes tell where they come from. A crash begins a new generation, too: a *branch*, which keeps
 * what the crash left below the write pointer, for what comes next is written from there on.
 *
 * A cut state is judged against a *window*:
 *
 *   low    the last flush that was done: per zone, a generation and a write pointer
 *   high   the last operation that is on the disk: what began after it cannot be there
 *
 * 1. (D1, D2) The zone shows a generation between low's and the last that began; in low's, its
 *    write pointer is not below low's; in none is it above what was accepted.
 * 2. (D2, D3, D4) Every LBA below the pointer holds the version of that one generation, all of it.
 *    D4 is named when a flushed LBA holds what was written to another.
 * 3. (D5) Finished is all or nothing: the pointer at the end, zeroes behind what was written. No
 *    more zones are partly written than may be active (drive_judge()).
 * 4. Above the pointer are zeroes or bytes that were once written to that very LBA. The drive
 *    itself answers zeroes there; this clause is for readers that know no write pointers, and it
 *    is how a cluster that still holds another zone's data is caught.
 * 5. An LBA of a conventional zone holds what the last flushed write left, or that of a later one.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

static void *need(void *p)
{
	if (!p) {
		fprintf(stderr, "crash: out of memory\n");
		abort();
	}
	return p;
}

static bool is_conventional(const struct model *m, uint32_t zone)
{
	return zone < m->geo.conventional;
}

uint32_t model_zone_end(const struct model *m, uint32_t zone)
{
	uint64_t left = m->geo.lbas - (uint64_t)zone * m->geo.zone_lbas;

	return left < m->geo.cap_lbas ? left : m->geo.cap_lbas;
}

void model_fill(void *buf, uint32_t zone, uint32_t lba, uint32_t version)
{
	uint64_t seed = ((uint64_t)zone << 52) ^ ((uint64_t)lba << 32) ^ version, w;
	uint8_t *out = buf;

	if (!version) {
		memset(buf, 0, MODEL_LBA);
		return;
	}
	seed = (seed + 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
	seed ^= seed >> 29;
	for (unsigned int i = 0; i < MODEL_LBA / 8; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		w = seed | 0x0101010101010101ull; /* no byte is zero */
		memcpy(out + i * 8, &w, 8);
	}
}

static struct mgen *gen_add(struct model *m, uint32_t zone, size_t pos)
{
	struct mzone *z = &m->zone[zone];
	struct mgen *g;

	if (z->nr_gens == z->cap_gens) {
		z->cap_gens = z->cap_gens ? 2 * z->cap_gens : 4;
		z->gen = need(realloc(z->gen, z->cap_gens * sizeof(*z->gen)));
	}
	g = &z->gen[z->nr_gens++];
	memset(g, 0, sizeof(*g));
	g->begin = pos;
	g->version = need(calloc(m->geo.zone_lbas, sizeof(*g->version)));
	return g;
}

static struct mgen *gen_now(const struct model *m, uint32_t zone)
{
	const struct mzone *z = &m->zone[zone];

	return &z->gen[z->nr_gens - 1];
}

struct model *model_new(const struct model_geo *geo)
{
	struct model *m = need(calloc(1, sizeof(*m)));

	m->geo = *geo;
	m->next_version = 1;
	m->zone = need(calloc(geo->nr_zones, sizeof(*m->zone)));
	m->pending_flush = need(calloc(geo->nr_zones, sizeof(*m->pending_flush)));
	for (uint32_t i = 0; i < geo->nr_zones; i++)
		gen_add(m, i, 0);
	return m;
}

void model_free(struct model *m)
{
	if (!m)
		return;
	for (uint32_t i = 0; i < m->geo.nr_zones; i++) {
		for (uint32_t g = 0; g < m->zone[i].nr_gens; g++) {
			free(m->zone[i].gen[g].version);
			free(m->zone[i].gen[g].write);
		}
		free(m->zone[i].gen);
	}
	for (uint32_t i = 0; i < m->nr_flushes; i++)
		free(m->flush[i].zone);
	free(m->flush);
	free(m->zone);
	free(m->pending_flush);
	free(m->activity);
	free(m->conventional_base);
	free(m);
}

static struct mwrite *write_add(struct mgen *g)
{
	if (g->nr_writes == g->cap_writes) {
		g->cap_writes = g->cap_writes ? 2 * g->cap_writes : 8;
		g->write = need(realloc(g->write, g->cap_writes * sizeof(*g->write)));
	}
	return &g->write[g->nr_writes++];
}

void model_note_activity(struct model *m, size_t pos)
{
	if (m->nr_activity == m->cap_activity) {
		m->cap_activity = m->cap_activity ? 2 * m->cap_activity : 64;
		m->activity = need(realloc(m->activity, m->cap_activity * sizeof(*m->activity)));
	}
	m->activity[m->nr_activity++] = pos;
}

uint32_t model_activity(const struct model *m, size_t settled, size_t pos)
{
	uint32_t since = 0, n = 0;

	for (uint32_t i = 0; i < m->nr_flushes && m->flush[i].done <= pos; i++)
		if (m->flush[i].done <= settled || m->flush[i].closed)
			since = m->flush[i].nr_activity;
	for (uint32_t i = since; i < m->nr_activity; i++)
		n += m->activity[i] < pos;
	return n;
}

uint32_t model_write_begin(struct model *m, uint32_t zone, uint32_t lba, uint32_t nr, size_t pos)
{
	struct mzone *z = &m->zone[zone];
	struct mgen *g = gen_now(m, zone);
	struct mwrite *w = write_add(g);

	*w = (struct mwrite){ pos, SIZE_MAX, lba, nr, m->next_version++ };
	if (!is_conventional(m, zone)) {
		for (uint32_t i = 0; i < nr; i++)
			g->version[lba + i] = w->version;
		if (lba + nr > z->accepted)
			z->accepted = lba + nr;
	}
	return g->nr_writes - 1;
}

void model_write_done(struct model *m, uint32_t zone, uint32_t write, size_t pos)
{
	gen_now(m, zone)->write[write].done = pos;
}

void model_advance(struct model *m, uint32_t zone)
{
	m->zone[zone].wp = m->zone[zone].accepted;
}

void model_reset(struct model *m, uint32_t zone, size_t pos)
{
	gen_add(m, zone, pos);
	m->zone[zone].accepted = 0;
	m->zone[zone].wp = 0;
}

void model_finish(struct model *m, uint32_t zone, size_t pos)
{
	struct mzone *z = &m->zone[zone];
	struct mgen *g = gen_now(m, zone);

	if (!g->finished)
		g->finish_begin = pos;
	g->finished = true;
	z->accepted = model_zone_end(m, zone);
	z->wp = z->accepted;
}

void model_flush_begin(struct model *m)
{
	m->pending_activity = m->nr_activity;
	for (uint32_t i = 0; i < m->geo.nr_zones; i++) {
		const struct mzone *z = &m->zone[i];
		const struct mgen *g = gen_now(m, i);

		m->pending_flush[i] =
			(struct mbound){ z->nr_gens - 1, z->wp, g->finished, g->nr_writes };
	}
}

void model_flush_done(struct model *m, size_t pos)
{
	size_t bytes = m->geo.nr_zones * sizeof(struct mbound);
	struct mflush *f;

	if (m->nr_flushes == m->cap_flushes) {
		m->cap_flushes = m->cap_flushes ? 2 * m->cap_flushes : 32;
		m->flush = need(realloc(m->flush, m->cap_flushes * sizeof(*m->flush)));
	}
	f = &m->flush[m->nr_flushes++];
	f->closed = false;
	f->nr_activity = m->pending_activity;
	f->done = pos;
	f->zone = need(malloc(bytes));
	memcpy(f->zone, m->pending_flush, bytes);
}

void model_closed(struct model *m)
{
	m->flush[m->nr_flushes - 1].closed = true;
}

struct mwindow model_window(const struct model *m, size_t issued, size_t cut)
{
	struct mwindow w = { -1, issued };

	for (uint32_t i = 0; i < m->nr_flushes && m->flush[i].done <= cut; i++)
		w.low = i;
	return w;
}

/* The furthest pointer generation G of ZONE may show when all up to HIGH has begun. */
static uint32_t reach(const struct mgen *g, size_t high)
{
	uint32_t top = g->base;

	for (uint32_t i = 0; i < g->nr_writes; i++)
		if (g->write[i].begin < high && g->write[i].lba + g->write[i].nr > top)
			top = g->write[i].lba + g->write[i].nr;
	return top;
}

uint64_t model_window_hash(const struct model *m, struct mwindow w)
{
	uint64_t h = w.low + 1;

	for (uint32_t i = 0; i < m->geo.nr_zones; i++) {
		const struct mzone *z = &m->zone[i];

		for (uint32_t g = 0; g < z->nr_gens && z->gen[g].begin < w.high; g++) {
			h = (h ^ reach(&z->gen[g], w.high)) * 0x9e3779b97f4a7c15ull + g;
			h ^= z->gen[g].finished && z->gen[g].finish_begin < w.high;
			h ^= h >> 31;
		}
	}
	return h;
}

__attribute__((format(printf, 2, 3))) static bool broken(char why[MODEL_WHYLEN], const char *fmt,
							 ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, MODEL_WHYLEN, fmt, ap);
	va_end(ap);
	return false;
}

static bool holds(const uint8_t *buf, uint32_t zone, uint32_t lba, uint32_t version)
{
	uint8_t want[MODEL_LBA];

	model_fill(want, zone, lba, version);
	return !memcmp(buf, want, MODEL_LBA);
}

static bool is_zero(const uint8_t *buf, size_t len)
{
	return !buf[0] && !memcmp(buf, buf + 1, len - 1);
}

/* Whether each byte of the LBA is zero or of some version this LBA ever had. */
static bool is_own(const struct model *m, uint32_t zone, uint32_t lba, const uint8_t *buf)
{
	uint8_t known[MODEL_LBA] = { 0 }, want[MODEL_LBA];

	if (is_zero(buf, MODEL_LBA))
		return true;
	for (; m; m = m->before) {
		const struct mzone *z = &m->zone[zone];

		for (uint32_t g = z->nr_gens; g-- > 0;) {
			if (!z->gen[g].version[lba])
				continue;
			model_fill(want, zone, lba, z->gen[g].version[lba]);
			if (!memcmp(buf, want, MODEL_LBA))
				return true;
			for (unsigned int i = 0; i < MODEL_LBA; i++)
				known[i] |= buf[i] == want[i];
		}
	}
	for (unsigned int i = 0; i < MODEL_LBA; i++)
		if (buf[i] && !known[i])
			return false;
	return true;
}

/* The lowest pointer that generation G may show, given what LOW promised. */
static uint32_t floor_of(const struct mzone *z, const struct mbound *low, uint32_t g)
{
	while (g > low->gen && z->gen[g].branch)
		g = z->gen[g].parent;
	return g == low->gen ? low->wp : 0;
}

/* Whether generation G may be on the disk: it began, and no crash since has gone on without it. */
static bool possible(const struct mzone *z, struct mwindow w, const struct mbound *low, uint32_t g)
{
	if (g != low->gen && z->gen[g].begin >= w.high)
		return false;
	for (uint32_t b = g + 1; b < z->nr_gens; b++)
		if (z->gen[b].branch && z->gen[b].begin < w.high && z->gen[b].parent < g)
			return false;
	return true;
}

/* Whether generation G explains pointer and data. */
static bool explains(const struct model *m, struct mwindow w, uint32_t zone, uint32_t g,
		     const struct mbound *low, uint64_t wp, const uint8_t *buf,
		     char why[MODEL_WHYLEN])
{
	const struct mzone *z = &m->zone[zone];
	const struct mgen *gen = &z->gen[g];
	uint32_t end = model_zone_end(m, zone), floor = floor_of(z, low, g);
	uint32_t top = reach(gen, w.high);
	bool full = gen->finished && gen->finish_begin < w.high && wp == end;

	if (wp < floor)
		return broken(why, "D1: zone %u generation %u: write pointer %llu, flushed at %u",
			      zone, g, (unsigned long long)wp, floor);
	if (wp > top && !full)
		return broken(why,
			      "D2: zone %u generation %u: write pointer %llu, accepted up to %u",
			      zone, g, (unsigned long long)wp, top);
	for (uint32_t i = 0; i < wp; i++)
		if (!holds(buf + (size_t)i * MODEL_LBA, zone, i, gen->version[i]))
			return broken(why,
				      "%s: zone %u generation %u: LBA %u below the write pointer "
				      "%llu is %s",
				      g ? "D3" : "D2", zone, g, i, (unsigned long long)wp,
				      is_zero(buf + (size_t)i * MODEL_LBA, MODEL_LBA)
					      ? "zero"
					      : "not what was written");
	return true;
}

/* The usual case: the LBA is, in one piece, of a write that it may be of. */
static bool is_one_write(const struct mgen *g, struct mwindow w, uint32_t zone, uint32_t lba,
			 uint32_t promised, const uint8_t *b)
{
	for (uint32_t i = g->nr_writes; i-- > 0;) {
		const struct mwrite *wr = &g->write[i];

		if (lba < wr->lba || lba >= wr->lba + wr->nr ||
		    (i >= promised && wr->begin >= w.high))
			continue;
		if (holds(b, zone, lba, wr->version))
			return true;
		if (i < promised)
			return false;
	}
	return false;
}

static bool judge_conventional(const struct model *m, struct mwindow w, uint32_t zone,
			       const uint8_t *buf, char why[MODEL_WHYLEN])
{
	const struct mgen *g = gen_now(m, zone);
	uint32_t promised = w.low < 0 ? 0 : m->flush[w.low].zone[zone].nr_done;

	for (uint32_t lba = 0; lba < model_zone_end(m, zone); lba++) {
		const uint8_t *b = buf + (size_t)lba * MODEL_LBA;
		const uint8_t *base = m->conventional_base;
		uint8_t known[MODEL_LBA], want[MODEL_LBA];

		if (is_one_write(g, w, zone, lba, promised, b))
			continue;
		if (base)
			base += ((size_t)zone * m->geo.zone_lbas + lba) * MODEL_LBA;
		for (unsigned int i = 0; i < MODEL_LBA; i++)
			known[i] = b[i] == (base ? base[i] : 0);
		for (uint32_t i = 0; i < g->nr_writes; i++) {
			const struct mwrite *wr = &g->write[i];

			if (lba < wr->lba || lba >= wr->lba + wr->nr ||
			    (i >= promised && wr->begin >= w.high))
				continue;
			model_fill(want, zone, lba, wr->version);
			for (unsigned int j = 0; j < MODEL_LBA; j++)
				known[j] = (i < promised ? false : known[j]) || b[j] == want[j];
		}
		for (unsigned int j = 0; j < MODEL_LBA; j++)
			if (!known[j])
				return broken(why,
					      "D1: conventional zone %u LBA %u byte %u is of no "
					      "write it may be of",
					      zone, lba, j);
	}
	return true;
}

/* Of which other LBA of the drive the block B is. */
static bool stray_of(const struct model *m, const uint8_t *b, uint32_t *zone, uint32_t *lba)
{
	for (uint32_t z = m->geo.conventional; z < m->geo.nr_zones; z++)
		for (uint32_t g = 0; g < m->zone[z].nr_gens; g++)
			for (uint32_t i = 0; i < m->geo.zone_lbas; i++) {
				uint32_t version = m->zone[z].gen[g].version[i];

				if (!version || !holds(b, z, i, version))
					continue;
				*zone = z;
				*lba = i;
				return true;
			}
	return false;
}

/* Adds to WHY what was flushed to one address and is found at another. */
static void find_strays(const struct model *m, const struct mbound *low, uint32_t zone, uint64_t wp,
			const uint8_t *buf, char why[MODEL_WHYLEN])
{
	size_t len = strlen(why);

	for (uint32_t i = 0; i < low->wp && i < wp; i++) {
		const uint8_t *b = buf + (size_t)i * MODEL_LBA;
		uint32_t z, lba;

		if (is_own(m, zone, i, b) || !stray_of(m, b, &z, &lba))
			continue;
		snprintf(why + len, MODEL_WHYLEN - len,
			 "D4: zone %u LBA %u, which was flushed, holds zone %u LBA %u; ", zone, i,
			 z, lba);
		return;
	}
}

bool model_judge(const struct model *m, struct mwindow w, uint32_t zone, uint64_t wp,
		 const uint8_t *buf, uint32_t *gen, char why[MODEL_WHYLEN])
{
	const struct mzone *z = &m->zone[zone];
	struct mbound none = { 0 };
	const struct mbound *low = w.low < 0 ? &none : &m->flush[w.low].zone[zone];
	uint32_t end = model_zone_end(m, zone), g = z->nr_gens;
	char each[MODEL_WHYLEN];
	bool ok = false;

	why[0] = 0;
	if (is_conventional(m, zone)) {
		*gen = 0;
		return judge_conventional(m, w, zone, buf, why);
	}
	if (wp > end)
		return broken(why, "D2: zone %u: write pointer %llu beyond the end %u", zone,
			      (unsigned long long)wp, end);
	if (low->finished && wp != end && g == low->gen + 1)
		return broken(why, "D5: zone %u was full and flushed, its write pointer is %llu",
			      zone, (unsigned long long)wp);
	while (g-- > low->gen && !ok) {
		if (!possible(z, w, low, g))
			continue;
		ok = explains(m, w, zone, g, low, wp, buf, each);
		if (!ok) /* tell why for each of them */
			strncat(why, each, MODEL_WHYLEN - strlen(why) - 3);
		if (!ok)
			strcat(why, "; ");
		if (ok)
			*gen = g;
	}
	if (!ok) {
		find_strays(m, low, zone, wp, buf, why);
		return false;
	}
	for (uint32_t i = wp;
	     i < m->geo.zone_lbas && (uint64_t)zone * m->geo.zone_lbas + i < m->geo.lbas; i++)
		if (!is_own(m, zone, i, buf + (size_t)i * MODEL_LBA))
			return broken(why,
				      "foreign data: zone %u LBA %u, at or above the write pointer "
				      "%llu, holds what was never written there",
				      zone, i, (unsigned long long)wp);
	return true;
}

/* A conventional zone goes on with whatever whole version of each LBA the crash left. */
static void adopt_conventional(struct model *m, uint32_t zone, const uint8_t *buf, size_t pos)
{
	struct mgen *g = gen_now(m, zone);
	uint32_t old = g->nr_writes;

	for (uint32_t lba = 0; lba < model_zone_end(m, zone); lba++) {
		const uint8_t *b = buf + (size_t)lba * MODEL_LBA;
		uint32_t version = 0;

		for (uint32_t i = old; i-- > 0 && !version;) {
			const struct mwrite *wr = &g->write[i];

			if (lba >= wr->lba && lba < wr->lba + wr->nr &&
			    holds(b, zone, lba, wr->version))
				version = wr->version;
		}
		*write_add(g) = (struct mwrite){ pos, pos, lba, 1, version };
	}
}

void model_adopt(struct model *m, uint32_t zone, uint32_t gen, uint32_t wp, const uint8_t *buf,
		 size_t pos)
{
	struct mzone *z = &m->zone[zone];
	struct mgen *g, *old;

	if (is_conventional(m, zone)) {
		adopt_conventional(m, zone, buf, pos);
		return;
	}
	g = gen_add(m, zone, pos);
	old = &z->gen[gen]; /* gen_add() may have moved it */
	g->branch = true;
	g->base = wp;
	g->parent = gen;
	memcpy(g->version, old->version, wp * sizeof(*g->version));
	g->finished = old->finished && wp == model_zone_end(m, zone);
	g->finish_begin = pos;
	z->accepted = wp;
	z->wp = wp;
}

void model_adopt_durable(struct model *m, size_t pos)
{
	model_flush_begin(m);
	model_flush_done(m, pos);
}

struct model *model_continue(const struct model *m)
{
	struct model *now = model_new(&m->geo);
	size_t bytes = (size_t)m->geo.conventional * m->geo.zone_lbas * MODEL_LBA;

	now->before = m;
	now->next_version = m->next_version + 1;
	if (bytes)
		now->conventional_base = need(malloc(bytes));
	return now;
}

void model_continue_zone(struct model *now, uint32_t zone, uint32_t gen, uint32_t wp,
			 const uint8_t *buf)
{
	struct mzone *z = &now->zone[zone];
	const struct mgen *old = &now->before->zone[zone].gen[gen];
	size_t bytes = (size_t)now->geo.zone_lbas * MODEL_LBA;

	if (is_conventional(now, zone)) {
		memcpy(now->conventional_base + zone * bytes, buf, bytes);
		return;
	}
	z->gen[0].base = wp;
	z->accepted = wp;
	z->wp = wp;
	memcpy(z->gen[0].version, old->version, wp * sizeof(*old->version));
}
