// SPDX-License-Identifier: MIT
/* CRC-32C is what its definition says and what is published; a mapping may fault. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "bitwise.h"
#include "crc.h"

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
	crc_catch_faults();
	crc_catch_faults(); /* the second time changes nothing */
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

static void *digest_all(void *p)
{
	uintptr_t faults = 0;

	for (int i = 0; i < 2000; i++) {
		uint32_t crc = CRC_START;

		faults += !crc_feed_mapping(&crc, p, MAPPED);
	}
	return (void *)faults;
}

/* A thread's faults are its own. */
static void threads_do_not_mix(void **state)
{
	int fds[2];
	uint8_t *p[2] = { map_file(&fds[0]), map_file(&fds[1]) };
	pthread_t threads[4];

	(void)state;
	crc_catch_faults();
	assert_int_equal(ftruncate(fds[1], PAGE), 0);
	for (uintptr_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, digest_all, p[i % 2]), 0);
	for (uintptr_t i = 0; i < 4; i++) {
		void *faults;

		pthread_join(threads[i], &faults);
		assert_int_equal((uintptr_t)faults, i % 2 ? 2000 : 0);
	}
	for (int i = 0; i < 2; i++) {
		munmap(p[i], MAPPED);
		close(fds[i]);
	}
}

/* Any other SIGBUS ends the process as ever, be it a fault elsewhere or sent. */
static void other_faults_stay_fatal(void **state)
{
	int fd;
	uint8_t *p = map_file(&fd);

	(void)state;
	assert_int_equal(ftruncate(fd, 0), 0);
	for (int sent = 0; sent < 2; sent++) {
		pid_t pid = fork();
		int status;

		if (!pid) {
			uint32_t crc = CRC_START;

			signal(SIGBUS, SIG_DFL); /* not cmocka's, or a sanitizer's */
			crc_catch_faults();
			if (crc_feed_mapping(&crc, p, 8))
				_exit(1);
			if (sent)
				kill(getpid(), SIGBUS);
			else
				*(volatile uint8_t *)p = 1;
			_exit(2);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGBUS);
	}
	munmap(p, MAPPED);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(published_examples),
		cmocka_unit_test(all_lengths_and_alignments),
		cmocka_unit_test(all_split_points),
		cmocka_unit_test(large_data),
		cmocka_unit_test(a_fault_is_noticed),
		cmocka_unit_test(threads_do_not_mix),
		cmocka_unit_test(other_faults_stay_fatal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
