/* SPDX-License-Identifier: MIT */
/*
 * qcow2_repair(): each kind of damage at each place of each kind of image is found and repaired,
 * and then found no more; what was not damaged reads as before. Crashes during a repair are in
 * repair_crash_test.c.
 */
#include <byteswap.h>

#include "repair_kit.h"

static const char *mend(struct image *i)
{
	static char text[300];
	struct verdict v;
	uint64_t where;

	assert_int_equal(try_repair(i->d, 0, &v), 0);
	if (!(v.res.corruptions + v.res.leaks))
		return "not found";
	assert_int_equal(try_repair(i->d, QCOW2_FIX_ALL, &v), 0);
	if (!(v.res.corruptions_fixed + v.res.leaks_fixed))
		return "nothing was fixed";
	if (v.res.corruptions + v.res.leaks)
		return "not all was fixed";
	assert_int_equal(try_repair(i->d, 0, &v), 0);
	if (v.lines) {
		snprintf(text, sizeof(text), "left is: %s", v.last);
		return text;
	}
	if (!intact(i, i->d, &where)) {
		snprintf(text, sizeof(text), "0x%llx reads otherwise", (unsigned long long)where);
		return text;
	}
	ram_forget(i->d);
	assert_int_equal(try_repair(i->d, QCOW2_FIX_ALL, &v), 0);
	if (i->d->nr_ops || v.lines)
		return "a second repair did something";
	qcow2_close(open_image(i->d, 0)); /* it can be opened for writing again */
	return NULL;
}

static void every_damage_is_found_mended_and_gone(void **state)
{
	(void)state;
	for_each_damage(mend, 1, 2000);
}

/* -r leaks changes refcounts and flags only, and nothing if a cluster may not be leaked. */
static const char *give_back(struct image *i)
{
	struct verdict was, v;
	uint64_t where;

	assert_int_equal(try_repair(i->d, 0, &was), 0);
	ram_forget(i->d);
	assert_int_equal(try_repair(i->d, QCOW2_FIX_LEAKS, &v), 0);
	if (v.res.corruptions > was.res.corruptions || v.res.leaks > was.res.leaks)
		return "worse";
	if (!was.res.corruptions && v.res.leaks)
		return "leaks were left";
	if (was.res.leaks && was.harm && strstr(was.last, "beyond the end") && i->d->nr_ops)
		return "leaks were given back though references were lost";
	assert_int_equal(try_repair(i->d, QCOW2_FIX_ALL, &v), 0);
	if (v.res.corruptions + v.res.leaks)
		return "could not be mended afterwards";
	if (!intact(i, i->d, &where))
		return "the disk reads otherwise";
	return NULL;
}

static void leaks_alone_are_given_back(void **state)
{
	(void)state;
	for_each_damage(give_back, 3, 700);
}

static void leaks_stay_where_references_were_lost(void **state)
{
	struct image i = make_damageable(&kinds[5]);
	struct verdict v;

	(void)state;
	put64(i.d, i.l1, COPIED | BEYOND); /* all data looks leaked */
	assert_int_equal(try_repair(i.d, QCOW2_FIX_LEAKS, &v), 0);
	assert_true(v.res.leaks > 10);
	assert_int_equal(v.res.leaks_fixed, 0);
	assert_int_equal(i.d->nr_ops, 0);
	image_end(&i);
}

static void the_write_pointer_table_is_never_given_back(void **state)
{
	struct image i = make_damageable(&kinds[5]);
	struct verdict v;

	(void)state;
	for (int fix = QCOW2_FIX_LEAKS; fix <= QCOW2_FIX_ALL; fix++) {
		put_count(&i, i.wp, 2);
		assert_int_equal(try_repair(i.d, fix, &v), 0);
		assert_int_equal(v.res.leaks_fixed, 1);
		expect_sound(i.d, 0);
	}
	image_end(&i);
}

static uint64_t pointer_after(unsigned int kind, uint32_t zone, uint64_t value)
{
	struct image i = make_damageable(&kinds[kind]);
	struct verdict v;
	uint64_t wp;

	put64(i.d, i.wp + 8 * zone, value);
	assert_int_equal(try_repair(i.d, QCOW2_FIX_ALL, &v), 0);
	assert_int_equal(v.res.corruptions_fixed, 1);
	wp = get64(i.d, i.wp + 8 * zone);
	image_end(&i);
	return wp;
}

static void a_wrong_write_pointer_becomes_the_nearest_safe_one(void **state)
{
	const uint64_t cap = 48 * KIB;

	(void)state;
	/* behind the zone: full */
	assert_int_equal(pointer_after(5, 4, 6 * ZONE), 4 * ZONE + cap);
	/* between sectors: down */
	assert_int_equal(pointer_after(5, 4, 4 * ZONE + 5000), 4 * ZONE + 4608);
	/* before the zone: the end of its data, 12 KiB, 48 KiB, none */
	assert_int_equal(pointer_after(5, 4, 512), 4 * ZONE + 12 * KIB);
	assert_int_equal(pointer_after(5, 5, 512), 5 * ZONE + cap);
	assert_int_equal(pointer_after(5, 15, 512), 15 * ZONE);
	assert_int_equal(pointer_after(3, 4, 512), 4 * ZONE + 12 * KIB);
	/* a wrong marker bit is cleared, the write pointer kept */
	assert_int_equal(pointer_after(5, 4, 1ull << 59 | (4 * ZONE + 4096)), 4 * ZONE + 4096);
	/* conventional */
	assert_int_equal(pointer_after(3, 1, 7), ZONE | 1ull << 59);
	assert_int_equal(pointer_after(8, 1, 7), ZONE | 1ull << 63);
}

static void a_little_endian_table_is_left_alone(void **state)
{
	struct image i = make_damageable(&kinds[11]);
	struct verdict v;

	(void)state;
	for (uint64_t z = 0; z < 16; z++)
		put64(i.d, i.wp + 8 * z, bswap_64(get64(i.d, i.wp + 8 * z)));
	assert_int_equal(try_repair(i.d, QCOW2_FIX_ALL, &v), 0);
	assert_int_equal(v.lines, 0);
	put64(i.d, i.wp + 8 * 9, 3);
	ram_forget(i.d);
	assert_int_equal(try_repair(i.d, QCOW2_FIX_ALL, &v), 0);
	assert_int_equal(i.d->nr_ops, 0);
	assert_non_null(strstr(v.last, "little-endian"));
	image_end(&i);
}

static void dirty_and_corrupt_bits_go_when_nothing_is_left(void **state)
{
	struct image i = make_damageable(&kinds[6]);
	struct verdict v;
	char err[QCOW2_ERRLEN];

	(void)state;
	for (uint8_t bit = 1; bit <= 2; bit++) {
		i.d->bytes[79] |= bit;
		assert_int_equal(open_refused(i.d, 0, err), -ENOTSUP);
		put_count(&i, i.data[0], 0);
		assert_int_equal(try_repair(i.d, QCOW2_FIX_LEAKS, &v), 0);
		assert_true(i.d->bytes[79] & bit); /* a corruption is left */
		assert_int_equal(try_repair(i.d, QCOW2_FIX_ALL, &v), 0);
		assert_false(i.d->bytes[79] & bit);
		i.d->bytes[79] |= bit;
		assert_int_equal(try_repair(i.d, QCOW2_FIX_LEAKS, &v), 0);
		assert_false(i.d->bytes[79] & bit);
		assert_int_equal(v.lines, 0);
	}
	qcow2_close(open_image(i.d, 0));
	image_end(&i);
}

static void a_sound_image_is_not_written(void **state)
{
	(void)state;
	for (size_t k = 0; k < NR_KINDS; k++) {
		struct image i = make_damageable(&kinds[k]);
		struct verdict v;

		assert_int_equal(try_repair(i.d, QCOW2_FIX_ALL, &v), 0);
		assert_int_equal(v.lines, 0);
		assert_int_equal(i.d->nr_ops, 0);
		image_end(&i);
	}
}

/* The second of two L2 entries that point to a cluster gets a copy: a write changes one only. */
static void a_shared_cluster_is_copied(void **state)
{
	struct image i = make_damageable(&kinds[5]);
	struct verdict v;
	uint64_t a, b;

	(void)state;
	put64(i.d, i.slot[0] + 8 * 14, COPIED | i.data[0]); /* 56 KiB, above the capacity */
	assert_int_equal(try_repair(i.d, QCOW2_FIX_ALL, &v), 0);
	a = get64(i.d, i.slot[0]);
	b = get64(i.d, i.slot[0] + 8 * 14);
	assert_int_equal(a, COPIED | i.data[0]);
	assert_true(b & COPIED && b != a);
	assert_memory_equal(i.d->bytes + (a & L2E_OFFSET_MASK), i.d->bytes + (b & L2E_OFFSET_MASK),
			    4096);
	expect_sound(i.d, 0);
	image_end(&i);
}

/* Fails the nth operation that changes the disk. */
static int fail_nth(void *arg, const struct ram_op *op)
{
	int *left = arg;

	if (op->call == RAM_READ)
		return 0;
	return --*left < 0 ? -EIO : 0;
}

static void an_error_in_the_middle_is_returned(void **state)
{
	int calls = 0;

	(void)state;
	for (int n = 0;; n++, calls++) {
		struct image i = make_damageable(&kinds[3]);
		struct verdict v;
		uint64_t where;
		int left = n, err;

		put64(i.d, 48, BEYOND);
		put64(i.d, i.slot[0], COPIED | i.data[1]);
		hurt(&i, 0, i.guest[0], i.cs);
		put64(i.d, i.wp + 8 * 9, 0);
		i.d->hook = fail_nth;
		i.d->hook_arg = &left;
		err = try_repair(i.d, QCOW2_FIX_ALL, &v);
		i.d->hook = NULL;
		if (!err) {
			image_end(&i);
			break;
		}
		assert_int_equal(err, -EIO);
		assert_int_equal(try_repair(i.d, QCOW2_FIX_ALL, &v), 0);
		expect_sound(i.d, 0);
		assert_true(intact(&i, i.d, &where));
		image_end(&i);
	}
	assert_true(calls > 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_damage_is_found_mended_and_gone),
		cmocka_unit_test(leaks_alone_are_given_back),
		cmocka_unit_test(leaks_stay_where_references_were_lost),
		cmocka_unit_test(the_write_pointer_table_is_never_given_back),
		cmocka_unit_test(a_wrong_write_pointer_becomes_the_nearest_safe_one),
		cmocka_unit_test(a_little_endian_table_is_left_alone),
		cmocka_unit_test(dirty_and_corrupt_bits_go_when_nothing_is_left),
		cmocka_unit_test(a_sound_image_is_not_written),
		cmocka_unit_test(a_shared_cluster_is_copied),
		cmocka_unit_test(an_error_in_the_middle_is_returned),
	};

	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	tally("repair damaged_images=%u violations=%u", damaged_images, badly_repaired);
	return failed;
}
