/* SPDX-License-Identifier: MIT */
/*
 * Random damage to metadata, of 2,000 images by default; SEED and COUNT in the environment choose
 * others. Whatever the damage is, the repair does not crash, makes nothing worse, and reports what
 * -r all cannot repair.
 */
#include "repair_kit.h"

static uint64_t rng;

static uint64_t random_below(uint64_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng * 0x2545f4914f6cdd1dull >> 16) % n;
}

/* Damages some bytes, words or whole sectors of the tables, sometimes of the header. */
static void damage_at_random(struct image *i)
{
	unsigned int hits = 1 + (unsigned int)random_below(4);
	uint64_t places[NR_PLACES];

	for (unsigned int p = 0; p < NR_PLACES; p++)
		places[p] = place_of(i, p == 8 && !i->wp ? 1 : p);

	while (hits--) {
		unsigned int place = (unsigned int)random_below(NR_PLACES);
		uint64_t base = places[place == 3 || place == 4 ? 1 : place];
		uint64_t at = base + random_below(i->cs < 1024 ? i->cs : 1024) / 8 * 8;
		uint64_t old = get64(i->d, at);

		if (base == 0)
			at = 8 * (1 + random_below(30));
		switch (random_below(5)) {
		case 0:
			put64(i->d, at, old ^ 1ull << random_below(64));
			break;
		case 1:
			put64(i->d, at, random_below(i->end * 2) / 512 * 512 | COPIED);
			break;
		case 2:
			put64(i->d, at, random_below(UINT64_MAX));
			break;
		case 3:
			put64(i->d, at, COPIED | places[random_below(NR_PLACES)]);
			break;
		default:
			memset(i->d->bytes + at / 512 * 512 + (at < 512 ? 256 : 0), 0,
			       at < 512 ? 64 : 512);
		}
	}
}

static void random_damage_is_mended_or_named(void **state)
{
	const char *seed = getenv("SEED"), *count = getenv("COUNT");
	uint64_t first = seed ? strtoull(seed, NULL, 0) : 1;
	unsigned int n = count ? (unsigned int)atoi(count) : 2000;
	unsigned int refused = 0, mended = 0, left = 0, bad = 0;
	struct image base[NR_KINDS];

	(void)state;
	for (size_t k = 0; k < NR_KINDS; k++)
		base[k] = make_damageable(&kinds[k]);
	for (unsigned int s = 0; s < n; s++) {
		struct image i = image_copy(&base[s % NR_KINDS]);
		struct verdict was, did, after, again;
		const char *wrong = NULL;

		rng = (first + s) * 0x9e3779b97f4a7c15ull | 1;
		random_below(2);
		damage_at_random(&i);
		if (try_repair(i.d, 0, &was)) {
			refused++;
			image_end(&i);
			continue;
		}
		if (try_repair(i.d, QCOW2_FIX_ALL, &did))
			wrong = "the repair failed";
		else if (try_repair(i.d, 0, &after))
			wrong = "it does not open any more";
		else if (after.res.corruptions > was.res.corruptions)
			wrong = "worse";
		else if (after.res.corruptions != did.res.corruptions)
			wrong = "not what the repair said";
		else if (after.lines && !did.lines)
			wrong = "nothing was said";
		else if (try_repair(i.d, QCOW2_FIX_ALL, &again))
			wrong = "the second repair failed";
		else if (!after.lines && again.lines)
			wrong = "the second repair found something";
		if (wrong) {
			print_message("seed %llu, %s: %s (%s)\n", (unsigned long long)(first + s),
				      i.kind->name, wrong, did.last);
			bad++;
		}
		mended += !after.lines;
		left += !!after.lines;
		image_end(&i);
	}
	for (size_t k = 0; k < NR_KINDS; k++)
		image_end(&base[k]);
	print_message("%u refused, %u mended, %u with something left\n", refused, mended, left);
	tally("repair_random damaged_images=%u refused=%u mended=%u something_left=%u "
	      "violations=%u",
	      n, refused, mended, left, bad);
	assert_int_equal(bad, 0);
	assert_true(mended > n / 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_damage_is_mended_or_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
