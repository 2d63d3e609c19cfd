/* SPDX-License-Identifier: MIT */
/*
 * The refcounts of a refcount block against bytes written down from the qcow2 specification: the
 * engine and the check share one reader and one writer, so neither would find a mistake in them.
 */
#include "common.h"

static const struct width {
	uint32_t order;
	uint64_t max;
	uint64_t count[4]; /* refcounts 0 to 3 */
	uint8_t bytes[32];
} widths[] = {
	{ 0, 1, { 1, 0, 1, 1 }, { 0x0d } },
	{ 1, 3, { 1, 2, 3, 0 }, { 0x39 } },
	{ 2, 15, { 1, 2, 0xe, 0xf }, { 0x21, 0xfe } },
	{ 3, 255, { 1, 2, 0xfe, 0xff }, { 0x01, 0x02, 0xfe, 0xff } },
	{ 4,
	  65535,
	  { 1, 0x102, 0xfffe, 0xffff },
	  { 0x00, 0x01, 0x01, 0x02, 0xff, 0xfe, 0xff, 0xff } },
	{ 5,
	  UINT32_MAX,
	  { 1, 0x01020304, 0, UINT32_MAX },
	  { 0, 0, 0, 1, 1, 2, 3, 4, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff } },
	{ 6,
	  UINT64_MAX,
	  { 1, 0x0102030405060708, 0, UINT64_MAX },
	  { 0, 0, 0, 0, 0, 0, 0, 1, 1,	  2,	3,    4,    5,	  6,	7,    8,
	    0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff } },
};

#define NR_WIDTHS (sizeof(widths) / sizeof(widths[0]))

static void refcounts_are_read_as_specified(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < NR_WIDTHS; i++) {
		const struct width *w = &widths[i];
		uint64_t block[4];

		memcpy(block, w->bytes, sizeof(block));
		assert_int_equal(refcount_max(w->order), w->max);
		for (unsigned int k = 0; k < 4; k++)
			assert_int_equal(refcount_get(block, k, w->order), w->count[k]);
	}
}

static void refcounts_are_written_as_specified(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < NR_WIDTHS; i++) {
		const struct width *w = &widths[i];
		uint64_t block[4] = { 0 }, ones[4];

		for (unsigned int k = 0; k < 4; k++)
			refcount_set(block, k, w->order, w->count[k]);
		assert_memory_equal(block, w->bytes, sizeof(block));
		/* Each refcount is replaced, and its neighbours are left alone. */
		memset(ones, 0xff, sizeof(ones));
		refcount_set(ones, 2, w->order, 0);
		for (unsigned int k = 0; k < 4; k++)
			assert_int_equal(refcount_get(ones, k, w->order), k == 2 ? 0 : w->max);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refcounts_are_read_as_specified),
		cmocka_unit_test(refcounts_are_written_as_specified),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
