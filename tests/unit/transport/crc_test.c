// SPDX-License-Identifier: MIT
/* CRC-32C is what its definition says and what is published; a mapping may fault. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include "bitwise.h"
#include "crc.h"
#include "guard.h"

#define LEN_MAX	  300u
#define ALIGN_MAX 64u

/* Numbers that are the same each time. */
static void fill(uint8_t *p, size_t len)
{
	uint32_t x = 1;

	while (len--) {
		x = x * 1664525 + 1013904223;
		*p++ = (uint8_t)(x >> 24);
	}
}

/* RFC 3720, B.4: as bytes on the wire. */
static void published_examples(void **state)
{
	static const uint8_t read_pdu[48] = {
		0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0, 0,
		0x14, 0,    0, 0, 0, 0, 4, 0, 0, 0, 0, 0x14, 0, 0, 0, 0x18,
		0x28, 0,    0, 0, 0, 0, 0, 0, 2, 0, 0, 0,    0, 0, 0, 0,
	};
	uint8_t buf[32];
	__le32 d;

	(void)state;
	memset(buf, 0, sizeof(buf));
	d = crc_end(crc_feed(CRC_START, buf, sizeof(buf)));
	assert_memory_equal(&d, "\xaa\x36\x91\x8a", 4);
	memset(buf, 0xff, sizeof(buf));
	d = crc_end(crc_feed(CRC_START, buf, sizeof(buf)));
	assert_memory_equal(&d, "\x43\xab\xa8\x62", 4);
	for (uint8_t i = 0; i < sizeof(buf); i++)
		buf[i] = i;
	d = crc_end(crc_feed(CRC_START, buf, sizeof(buf)));
	assert_memory_equal(&d, "\x4e\x79\xdd\x46", 4);
	for (uint8_t i = 0; i < sizeof(buf); i++)
		buf[i] = 31 - i;
	d = crc_end(crc_feed(CRC_START, buf, sizeof(buf)));
	assert_memory_equal(&d, "\x5c\xdb\x3f\x11", 4);
	d = crc_end(crc_feed(CRC_START, read_pdu, sizeof(read_pdu)));
	assert_memory_equal(&d, "\x56\x3a\x96\xd9", 4);
	d = crc_end(crc_feed(CRC_START, "123456789", 9));
	assert_int_equal(le32toh(d), 0xe3069283);
}

/* Every length at every alignment, each from another CRC. */
static void all_lengths_and_alignments(void **state)
{
	static uint8_t data[LEN_MAX + ALIGN_MAX];

	(void)state;
	fill(data, sizeof(data));
	for (uint32_t len = 0; len <= LEN_MAX; len++)
		for (uint32_t at = 0; at < ALIGN_MAX; at++) {
			uint32_t seed = len * 0x9e3779b9u + at;

			assert_int_equal(crc_feed(seed, data + at, len),
					 bitwise_feed(seed, data + at, len));
		}
}

/* In two pieces, cut anywhere, it is the same. */
static void all_split_points(void **state)
{
	static uint8_t data[LEN_MAX];

	(void)state;
	fill(data, sizeof(data));
	for (uint32_t len = 0; len <= LEN_MAX; len++) {
		uint32_t whole = bitwise_feed(CRC_START, data, len);

		for (uint32_t cut = 0; cut <= len; cut++) {
			uint32_t crc = crc_feed(CRC_START, data, cut);

			assert_int_equal(crc_feed(crc, data + cut, len - cut), whole);
		}
	}
}

/* The sizes of data that hosts use take other ways through the library than short pieces. */
static void large_data(void **state)
{
	static uint8_t data[(1 << 20) + 64];
	static const uint32_t lens[] = { 511,  512,  513,   1023,   1024,   2048,   4095,   4096,
					 4097, 8192, 65536, 131071, 131072, 131073, 1 << 20 };

	(void)state;
	fill(data, sizeof(data));
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
		for (uint32_t at = 0; at < 64; at += 13)
			assert_int_equal(crc_feed(CRC_START, data + at, lens[i]),
					 bitwise_feed(CRC_START, data + at, lens[i]));
}

enum { PAGE = 4096, PAGES = 4, MAPPED = PAGES * PAGE };

/* A mapping of MAPPED bytes of the file in *FD. */
static uint8_t *map_file(int *fd)
{
	uint8_t *p;

	*fd = memfd_create("crc", MFD_CLOEXEC);
	assert_true(*fd >= 0);
	assert_int_equal(ftruncate(*fd, MAPPED), 0);
	p = mmap(NULL, MAPPED, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	fill(p, MAPPED);
	return p;
}

/* With one page after the other cut off: what can be read gives the CRC, the rest false. */
static void a_fault_is_noticed(void **state)
{
	static const uint32_t lens[] = { 1, 8, 24, 255, 256, PAGE, PAGE + 1, MAPPED };
	int fd;
	uint8_t *p = map_file(&fd);

	(void)state;
	guard_install();
	for (uint32_t there = MAPPED;; there -= PAGE) {
		for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
			for (uint32_t at = 0; at + lens[i] <= MAPPED; at += PAGE / 2 - 1) {
				bool readable = at + lens[i] <= there;
				uint32_t crc = 77;

				assert_int_equal(crc_feed_mapping(&crc, p + at, lens[i]), readable);
				assert_int_equal(crc,
						 readable ? bitwise_feed(77, p + at, lens[i]) : 77);
			}
		if (!there)
			break;
		assert_int_equal(ftruncate(fd, there - PAGE), 0);
	}
	munmap(p, MAPPED);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(published_examples), cmocka_unit_test(all_lengths_and_alignments),
		cmocka_unit_test(all_split_points),   cmocka_unit_test(large_data),
		cmocka_unit_test(a_fault_is_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
