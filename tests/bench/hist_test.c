// SPDX-License-Identifier: MIT
/* The histogram tells a value to 1.6 %, and a quantile of values that are known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "hist.h"

static void a_bucket_is_1_6_percent_wide(void **state)
{
	(void)state;
	for (uint64_t ns = 0; ns < 1ull << 36; ns += 1 + ns / 1000) {
		uint64_t top = hist_top(hist_bucket(ns));

		assert_true(top >= ns && top - ns <= ns / 64);
		assert_int_equal(hist_bucket(top), hist_bucket(ns));
		assert_int_equal(hist_bucket(top + 1), hist_bucket(ns) + 1);
	}
}

static void what_is_too_large_goes_to_the_last_bucket(void **state)
{
	struct hist h = { 0 };

	(void)state;
	assert_int_equal(hist_bucket(UINT64_MAX), HIST_BUCKETS - 1);
	hist_add(&h, 1ull << 40);
	assert_true(hist_quantile(&h, 0.5) == 1ull << 40);
}

static void quantiles_are_those_of_the_values(void **state)
{
	static struct hist h;

	(void)state;
	assert_int_equal(hist_quantile(&h, 0.5), 0);
	for (uint64_t i = 1; i <= 100000; i++)
		hist_add(&h, i);
	assert_in_range(hist_quantile(&h, 0), 1, 1);
	assert_in_range(hist_quantile(&h, 0.5), 50000, 50000 + 50000 / 64);
	assert_in_range(hist_quantile(&h, 0.99), 99000, 100000);
	assert_in_range(hist_quantile(&h, 1), 100000, 100000);
	assert_int_equal(h.n, 100000);
	assert_int_equal(h.sum, 100000ull * 100001 / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bucket_is_1_6_percent_wide),
		cmocka_unit_test(what_is_too_large_goes_to_the_last_bucket),
		cmocka_unit_test(quantiles_are_those_of_the_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
