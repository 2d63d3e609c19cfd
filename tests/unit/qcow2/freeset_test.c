/* SPDX-License-Identifier: MIT */
/* The set of free clusters against a table of one byte per cluster. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "freeset.h"

enum { OUT, ZEROED, RECYCLED };

static uint64_t seed = 1;

static uint64_t below(uint64_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (seed >> 33) % n;
}

static void set_to_table(const struct freeset *s, uint8_t *table, uint64_t nr)
{
	memset(table, OUT, nr);
	for (uint32_t i = 0; i < s->nr; i++) {
		assert_true(s->run[i].first + s->run[i].nr <= nr);
		memset(table + s->run[i].first, s->run[i].zeroed ? ZEROED : RECYCLED, s->run[i].nr);
	}
}

/* Takes the best run for random limits; it must be as long as any that suits them. */
static void take_best(struct freeset *s, uint8_t *want)
{
	uint64_t min = 1 + below(4), max = min + below(40), longest = 0;
	bool recycled = below(2);
	int i = freeset_best(s, min, max, UINT64_MAX, recycled);
	struct run r;

	for (uint32_t j = 0; j < s->nr; j++)
		if (s->run[j].nr > longest && !(recycled && s->run[j].zeroed))
			longest = s->run[j].nr;
	if (i < 0) {
		assert_true(longest < min);
		return;
	}
	r = s->run[i];
	assert_true(r.nr >= min && !(recycled && r.zeroed));
	assert_true(r.nr == longest || r.nr >= max);
	if (r.nr > max)
		r.nr = max;
	freeset_remove(s, r);
	memset(want + r.first, OUT, r.nr);
}

static void one_step(struct freeset *s, uint8_t *want, uint64_t nr, uint64_t longest)
{
	struct run r = { below(nr), 0, below(2) };

	r.nr = below((nr - r.first < longest ? nr - r.first : longest) + 1);
	switch (below(4)) {
	case 0:
		freeset_add(s, r);
		memset(want + r.first, r.zeroed ? ZEROED : RECYCLED, r.nr);
		break;
	case 1:
		freeset_add_new(s, r);
		for (uint64_t c = r.first; c < r.first + r.nr; c++)
			if (want[c] == OUT)
				want[c] = r.zeroed ? ZEROED : RECYCLED;
		break;
	case 2:
		freeset_remove(s, r);
		memset(want + r.first, OUT, r.nr);
		break;
	default:
		take_best(s, want);
	}
}

/* NR clusters, which fit into the set whatever their states are, or do not. */
static void walk(uint64_t nr, bool fits)
{
	struct freeset *s = calloc(1, sizeof(*s));
	uint8_t *want = calloc(1, nr), *have = malloc(nr);
	unsigned int dropped = 0;

	for (int step = 0; step < 20000; step++) {
		uint64_t recycled = 0;

		one_step(s, want, nr, fits ? 60 : 6);
		assert_true(freeset_is_sound(s));
		set_to_table(s, have, nr);
		for (uint64_t c = 0; c < nr; c++) {
			if (have[c] !=
			    want[c]) { /* it may only have been dropped from a full set */
				assert_false(fits);
				assert_int_equal(have[c], OUT);
				dropped++;
			}
			recycled += have[c] == RECYCLED;
		}
		assert_int_equal(freeset_recycled(s), recycled);
		memcpy(want, have, nr);
	}
	assert_true(fits || dropped);
	free(s);
	free(want);
	free(have);
}

static void it_is_a_set(void **state)
{
	(void)state;
	walk(FREESET_RUNS, true);
}

static void a_full_set_drops_whole_runs_and_lies_about_none(void **state)
{
	(void)state;
	walk(20 * FREESET_RUNS, false);
}

static void the_smallest_run_is_dropped(void **state)
{
	struct freeset *s = calloc(1, sizeof(*s));

	(void)state;
	for (uint64_t i = 0; i < FREESET_RUNS; i++)
		freeset_add(s, (struct run){ 10 * i, i == 7 ? 2 : 3, false });
	assert_true(freeset_full(s));
	freeset_add(s, (struct run){ 10 * FREESET_RUNS, 5, true });
	assert_int_equal(s->nr, FREESET_RUNS);
	for (uint32_t i = 0; i < s->nr; i++)
		assert_int_not_equal(s->run[i].first, 70);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_a_set),
		cmocka_unit_test(a_full_set_drops_whole_runs_and_lies_about_none),
		cmocka_unit_test(the_smallest_run_is_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
