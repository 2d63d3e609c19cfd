/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "freeset.h"

static uint64_t run_end(const struct run *r)
{
	return r->first + r->nr;
}

/* The index of the first run that ends above CLUSTER. */
static uint32_t first_above(const struct freeset *s, uint64_t cluster)
{
	uint32_t lo = 0, hi = s->nr;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (run_end(&s->run[mid]) > cluster)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/* Replaces OLD runs at index I by NR runs of NEW; moves the later ones. */
static void splice(struct freeset *s, uint32_t i, uint32_t old, const struct run *new, uint32_t nr)
{
	memmove(&s->run[i + nr], &s->run[i + old], (s->nr - i - old) * sizeof(*s->run));
	if (nr)
		memcpy(&s->run[i], new, nr * sizeof(*new));
	s->nr += nr - old;
}

static void drop_smallest(struct freeset *s)
{
	uint32_t smallest = 0;

	for (uint32_t i = 1; i < s->nr; i++)
		if (s->run[i].nr < s->run[smallest].nr)
			smallest = i;
	splice(s, smallest, 1, NULL, 0);
}

static void shrink_to_fit(struct freeset *s)
{
	while (s->nr > FREESET_RUNS)
		drop_smallest(s);
}

/* Merges run I with the one before it, if they are adjacent and alike. */
static bool merge_with_last(struct freeset *s, uint32_t i)
{
	struct run *r = &s->run[i];

	if (!i || i >= s->nr || run_end(&r[-1]) != r->first || r[-1].zeroed != r->zeroed)
		return false;
	r[-1].nr += r->nr;
	splice(s, i, 1, NULL, 0);
	return true;
}

/* Cuts [FIRST, END) out of the set; returns the index at which a run in its place belongs. */
static uint32_t cut(struct freeset *s, uint64_t first, uint64_t end)
{
	uint32_t i = first_above(s, first), n = 0;
	struct run rest[2];
	uint32_t nr_rest = 0, before = 0;

	while (i + n < s->nr && s->run[i + n].first < end)
		n++;
	if (!n)
		return i;
	if (s->run[i].first < first) {
		rest[nr_rest] = s->run[i];
		rest[nr_rest++].nr = first - s->run[i].first;
		before = 1;
	}
	if (run_end(&s->run[i + n - 1]) > end) {
		rest[nr_rest] = s->run[i + n - 1];
		rest[nr_rest].first = end;
		rest[nr_rest++].nr = run_end(&s->run[i + n - 1]) - end;
	}
	splice(s, i, n, rest, nr_rest);
	return i + before;
}

void freeset_add(struct freeset *s, struct run r)
{
	uint32_t i;

	if (!r.nr)
		return;
	i = cut(s, r.first, run_end(&r));
	splice(s, i, 0, &r, 1);
	merge_with_last(s, i + 1);
	merge_with_last(s, i);
	shrink_to_fit(s);
}

void freeset_add_new(struct freeset *s, struct run r)
{
	uint64_t end = run_end(&r), pos = r.first;

	/* Each turn advances POS over a gap of the set, which it adds, and over the next run. */
	while (pos < end) {
		uint32_t i = first_above(s, pos);
		struct run known = { end, 0, false };
		struct run gap = { pos, 0, r.zeroed };

		if (i < s->nr && s->run[i].first < end)
			known = s->run[i];
		if (known.first > pos) {
			gap.nr = known.first - pos;
			freeset_add(s, gap);
		}
		pos = run_end(&known);
	}
}

void freeset_remove(struct freeset *s, struct run r)
{
	if (r.nr)
		cut(s, r.first, run_end(&r));
	shrink_to_fit(s);
}

bool freeset_has(const struct freeset *s, struct run r)
{
	uint32_t i = first_above(s, r.first);

	return i < s->nr && s->run[i].first <= r.first && run_end(&s->run[i]) >= run_end(&r);
}

int freeset_best(const struct freeset *s, uint64_t min, uint64_t max, uint64_t longest,
		 bool recycled)
{
	int best = -1;

	for (uint32_t i = 0; i < s->nr; i++) {
		const struct run *r = &s->run[i], *b = best < 0 ? NULL : &s->run[best];

		if (r->nr < min || r->nr > longest || (recycled && r->zeroed))
			continue;
		if (!b || (b->nr < max && r->nr > b->nr) || (r->nr >= max && r->nr < b->nr))
			best = (int)i;
	}
	return best;
}

uint64_t freeset_recycled(const struct freeset *s)
{
	uint64_t nr = 0;

	for (uint32_t i = 0; i < s->nr; i++)
		nr += s->run[i].zeroed ? 0 : s->run[i].nr;
	return nr;
}

bool freeset_full(const struct freeset *s)
{
	return s->nr >= FREESET_RUNS;
}

bool freeset_is_sound(const struct freeset *s)
{
	for (uint32_t i = 0; i < s->nr; i++) {
		const struct run *r = &s->run[i];

		if (!r->nr || r->first + r->nr < r->first)
			return false;
		if (i && (run_end(&r[-1]) > r->first ||
			  (run_end(&r[-1]) == r->first && r[-1].zeroed == r->zeroed)))
			return false;
	}
	return s->nr <= FREESET_RUNS;
}
