/* SPDX-License-Identifier: MIT */
/* Numbers, sizes, UUIDs and mistyped words, as both programs parse them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "text.h"

static void sizes_have_suffixes_in_powers_of_1024(void **state)
{
	static const struct {
		const char *text;
		int err;
		uint64_t bytes;
	} rows[] = {
		{ "0", 0, 0 },
		{ "512", 0, 512 },
		{ "64M", 0, 64ull << 20 },
		{ "64m", 0, 64ull << 20 },
		{ "1.5G", 0, 3ull << 29 },
		{ "0x200", 0, 512 },
		{ "7b", 0, 7 },
		{ "15E", 0, 15ull << 60 },
		{ "18446744073709551615", 0, UINT64_MAX },
		{ "16E", -ERANGE, 0 },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "0x10000000000000000", -ERANGE, 0 },
		{ "1.5", -EINVAL, 0 },
		{ "1.G", -EINVAL, 0 },
		{ "64MB", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "0x-1", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
		{ "M", -EINVAL, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t bytes = 42;

		if (size_parse(rows[i].text, &bytes) != rows[i].err ||
		    bytes != (rows[i].err ? 42 : rows[i].bytes))
			fail_msg("size \"%s\": %llu", rows[i].text, (unsigned long long)bytes);
	}
}

static void numbers_are_whole_and_bounded(void **state)
{
	uint64_t n = 42;

	(void)state;
	assert_int_equal(number_parse("4097", 4096, &n), -ERANGE);
	assert_int_equal(number_parse("12k", 4096, &n), -EINVAL);
	assert_int_equal(number_parse(" 12", 4096, &n), -EINVAL);
	assert_int_equal(number_parse("-1", UINT64_MAX, &n), -EINVAL);
	assert_int_equal(number_parse("99999999999999999999", UINT64_MAX, &n), -ERANGE);
	assert_int_equal(n, 42);
	assert_int_equal(number_parse("4096", 4096, &n), 0);
	assert_int_equal(n, 4096);
}

static void a_mistyped_word_has_a_nearest_one(void **state)
{
	static const char *const words[] = { "ro", "cache", "zone.capacity", "zone.size", NULL };

	(void)state;
	assert_string_equal(nearest_word("cahce", words), "cache");
	assert_string_equal(nearest_word("capacity", words), "zone.capacity");
	assert_string_equal(nearest_word("zone.siez", words), "zone.size");
	assert_null(nearest_word("frobnicate", words));
	assert_null(nearest_word("xy", words)); /* not "ro": it shares no letter */
	assert_null(nearest_word("", words));
}

static void a_uuid_survives_text(void **state)
{
	static const char text[] = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
	uint8_t uuid[UUID_LEN];
	char out[UUID_TEXT_LEN];

	(void)state;
	assert_int_equal(uuid_parse(text, uuid), 0);
	uuid_text(uuid, out);
	assert_string_equal(out, text);
	assert_int_equal(uuid_parse("6ba7b8109dad-41d1-80b4-00c04fd430c8", uuid), -EINVAL);
	assert_int_equal(uuid_parse("6ba7b810-9dad-41d1-80b4-00c04fd430c80", uuid), -EINVAL);
	assert_int_equal(uuid_parse("00000000-0000-0000-0000-000000000000", uuid), -EINVAL);
}

static void a_word_has_a_position(void **state)
{
	(void)state;
	assert_int_equal(word_index("table|json|csv", "table"), 0);
	assert_int_equal(word_index("table|json|csv", "csv"), 2);
	assert_int_equal(word_index("table|json|csv", "js"), -1);
	assert_int_equal(word_index("table|json|csv", "jsonx"), -1);
	assert_int_equal(word_index("table|json|csv", "table|json"), -1);
	assert_int_equal(word_index("table|json|csv", ""), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_have_suffixes_in_powers_of_1024),
		cmocka_unit_test(numbers_are_whole_and_bounded),
		cmocka_unit_test(a_mistyped_word_has_a_nearest_one),
		cmocka_unit_test(a_uuid_survives_text),
		cmocka_unit_test(a_word_has_a_position),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
