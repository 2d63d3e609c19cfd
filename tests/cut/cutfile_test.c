/* SPDX-License-Identifier: MIT */
/*
 * The volatile cache: reads see what was written, a sync makes it durable, a power cut leaves a
 * legal part of the rest. The file below is a RAM disk, whose bytes are what the cut left.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>

#include "cutfile.h"
#include "ramfile.h"

#define DISK	(1u << 20)
#define SECTORS 64u

static struct ramdisk *disk;
static struct file *f;

static int setup(void **state)
{
	(void)state;
	disk = ram_new(DISK);
	assert_int_equal(cut_file(ram_open(disk), 0, &f), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (f)
		file_close(f);
	ram_free(disk);
	return 0;
}

static void put(uint64_t off, size_t len, uint8_t byte)
{
	uint8_t *buf = malloc(len);

	memset(buf, byte, len);
	assert_int_equal(file_write(f, buf, len, off, 0), 0);
	free(buf);
}

static void assert_bytes(const uint8_t *p, uint8_t byte, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != byte)
			fail_msg("byte %zu is %u, not %u", i, p[i], byte);
}

static void assert_reads(uint64_t off, size_t len, uint8_t byte)
{
	uint8_t *buf = malloc(len);

	assert_int_equal(file_read(f, buf, len, off, 0), 0);
	assert_bytes(buf, byte, len);
	free(buf);
}

static struct cut_result cut(enum cut_mode mode, uint64_t seed)
{
	struct cut_result res;

	assert_int_equal(cut_power(f, mode, seed, false, &res), 0);
	return res;
}

static void reads_see_what_was_written(void **state)
{
	uint64_t size;

	(void)state;
	put(0, 4096, 1);
	assert_int_equal(file_sync(f), 0);
	put(100, 1000, 2); /* no sector at either end */
	put(5000, 300, 3);
	assert_reads(0, 100, 1);
	assert_reads(100, 1000, 2);
	assert_reads(1100, 2996, 1);
	assert_reads(4096, 904, 0);
	assert_reads(5000, 300, 3);
	assert_int_equal(file_size(f, &size), 0);
	assert_int_equal(size, 5300);
	assert_int_equal(disk->size, 4096);
}

static void reads_end_where_the_file_ends(void **state)
{
	uint8_t buf[1000];

	(void)state;
	put(0, 700, 1);
	assert_int_equal(f->ops->pread(f, buf, 1000, 0, 0), 700);
	assert_int_equal(f->ops->pread(f, buf, 1000, 700, 0), 0);
}

static void holes_read_as_zeroes(void **state)
{
	(void)state;
	put(0, 8192, 1);
	assert_int_equal(file_sync(f), 0);
	assert_int_equal(file_discard(f, 700, 5000), 0);
	assert_reads(0, 700, 1);
	assert_reads(700, 5000, 0);
	assert_reads(5700, 8192 - 5700, 1);
	assert_bytes(disk->bytes, 1, 8192);
	assert_int_equal(file_sync(f), 0);
	assert_bytes(disk->bytes, 1, 700);
	assert_bytes(disk->bytes + 700, 0, 5000);
	assert_bytes(disk->bytes + 5700, 1, 8192 - 5700);
}

static void what_is_cut_off_does_not_come_back(void **state)
{
	(void)state;
	put(0, 8192, 1);
	assert_int_equal(file_sync(f), 0);
	assert_int_equal(file_truncate(f, 1000), 0);
	assert_int_equal(file_truncate(f, 8192), 0);
	assert_reads(0, 1000, 1);
	assert_reads(1000, 7192, 0);
	assert_int_equal(file_sync(f), 0);
	assert_int_equal(disk->size, 8192);
	assert_bytes(disk->bytes + 1000, 0, 7192);
}

static void nothing_reaches_the_disk_before_a_sync(void **state)
{
	(void)state;
	put(0, 4096, 1);
	assert_int_equal(file_truncate(f, 65536), 0);
	assert_int_equal(ram_count(disk, RAM_WRITE) + ram_count(disk, RAM_TRUNCATE), 0);
	assert_int_equal(file_sync(f), 0);
	assert_int_equal(disk->size, 65536);
	assert_bytes(disk->bytes, 1, 4096);
}

static void a_cut_that_keeps_nothing_leaves_what_was_synced(void **state)
{
	struct cut_result res;

	(void)state;
	put(0, 4096, 1);
	assert_int_equal(file_sync(f), 0);
	put(512, 512, 2);
	put(8192, 512, 2);
	res = cut(CUT_NONE, 0);
	assert_int_equal(res.pending, 2);
	assert_int_equal(res.kept + res.torn, 0);
	assert_int_equal(disk->size, 4096);
	assert_bytes(disk->bytes, 1, 4096);
}

static void a_cut_that_keeps_all_leaves_all(void **state)
{
	(void)state;
	put(0, 4096, 1);
	put(512, 100, 2);
	assert_int_equal(cut(CUT_ALL, 0).kept, 2);
	assert_int_equal(disk->size, 4096);
	assert_bytes(disk->bytes + 512, 2, 100);
	assert_bytes(disk->bytes + 612, 1, 4096 - 612);
}

static void after_the_cut_nothing_changes_the_disk(void **state)
{
	uint8_t byte = 1;

	(void)state;
	put(0, 4096, 1);
	cut(CUT_NONE, 0);
	assert_int_equal(f->ops->pwrite(f, &byte, 1, 0, 0), -EIO);
	assert_int_equal(f->ops->pread(f, &byte, 1, 0, 0), -EIO);
	assert_int_equal(file_sync(f), -EIO);
	assert_int_equal(file_truncate(f, 10), -EIO);
	assert_int_equal(file_discard(f, 0, 10), -EIO);
	file_close(f);
	f = NULL;
	assert_int_equal(disk->size, 0);
}

static void closing_keeps_all(void **state)
{
	(void)state;
	put(0, 4096, 1);
	file_close(f);
	f = NULL;
	assert_bytes(disk->bytes, 1, 4096);
}

/* All that was written to each sector since the last sync, oldest first; [0] is what the disk had. */
struct history {
	uint8_t version[64][CUT_SECTOR];
	unsigned int nr;
};

static void note(struct history *h)
{
	uint8_t buf[CUT_SECTOR];

	for (unsigned int i = 0; i < SECTORS; i++) {
		assert_int_equal(file_read(f, buf, CUT_SECTOR, i * CUT_SECTOR, 0), 0);
		if (!h[i].nr || memcmp(buf, h[i].version[h[i].nr - 1], CUT_SECTOR))
			memcpy(h[i].version[h[i].nr++], buf, CUT_SECTOR);
	}
}

static unsigned int rnd(unsigned int n)
{
	return (unsigned int)rand() % n;
}

/* Which version of its history a sector of the disk shows; nr: none. */
static unsigned int version_of(const struct history *h, unsigned int sector)
{
	unsigned int v = h->nr;

	while (v-- > 0)
		if (!memcmp(disk->bytes + sector * CUT_SECTOR, h->version[v], CUT_SECTOR))
			return v;
	return h->nr;
}

static void a_random_cut_leaves_versions_of_sectors(void **state)
{
	static struct history h[SECTORS];
	unsigned int seed, i, v, old = 0, newest = 0, between = 0;
	uint64_t size = SECTORS * CUT_SECTOR;

	(void)state;
	for (seed = 1; seed <= 300; seed++) {
		srand(seed);
		memset(h, 0, sizeof(h));
		put(0, size, 200);
		assert_int_equal(file_sync(f), 0);
		note(h);
		for (i = 0; i < 30; i++) {
			uint64_t off = rnd(size - 1), len = 1 + rnd(size - off) % 9000;

			if (rnd(6))
				put(off, len, 1 + i);
			else
				assert_int_equal(file_discard(f, off, len), 0);
			note(h);
		}
		cut(CUT_RANDOM, seed);
		assert_int_equal(disk->size, size);
		for (i = 0; i < SECTORS; i++) {
			v = version_of(&h[i], i);
			if (v == h[i].nr)
				fail_msg("seed %u: sector %u never was like this", seed, i);
			old += !v;
			newest += v == h[i].nr - 1;
			between += v && v < h[i].nr - 1;
		}
		file_close(f);
		assert_int_equal(cut_file(ram_open(disk), 0, &f), 0);
	}
	/* All three kinds come up often. */
	assert_true(old > 1000 && newest > 1000 && between > 1000);
}

static void a_random_cut_leaves_any_of_the_sizes(void **state)
{
	bool seen[5] = { false };

	(void)state;
	for (unsigned int seed = 1; seed <= 100; seed++) {
		assert_int_equal(file_truncate(f, 1024), 0);
		assert_int_equal(file_sync(f), 0);
		for (unsigned int i = 1; i < 5; i++)
			put(1024 * i, 1024, i);
		cut(CUT_RANDOM, seed);
		assert_int_equal(disk->size % 1024, 0);
		assert_in_range(disk->size, 1024, 5 * 1024);
		seen[disk->size / 1024 - 1] = true;
		for (unsigned int i = 1; i < disk->size / 512; i++) {
			uint8_t byte = disk->bytes[512 * i];

			assert_true(byte == 0 || byte == i / 2);
			assert_bytes(disk->bytes + 512 * i, byte, 512);
		}
		file_close(f);
		assert_int_equal(cut_file(ram_open(disk), 0, &f), 0);
	}
	for (unsigned int i = 0; i < 5; i++)
		assert_true(seen[i]);
}

static void the_same_seed_leaves_the_same(void **state)
{
	static uint8_t first[SECTORS * CUT_SECTOR];

	(void)state;
	for (unsigned int run = 0; run < 2; run++) {
		srand(5);
		put(0, sizeof(first), 200);
		assert_int_equal(file_sync(f), 0);
		for (unsigned int i = 0; i < 30; i++)
			put(rnd(sizeof(first) - 5000), 1 + rnd(5000), 1 + i);
		cut(CUT_RANDOM, 7);
		if (!run)
			memcpy(first, disk->bytes, sizeof(first));
		file_close(f);
		assert_int_equal(cut_file(ram_open(disk), 0, &f), 0);
	}
	assert_memory_equal(first, disk->bytes, sizeof(first));
}

static void *write_on(void *arg)
{
	(void)arg;
	usleep(20000);
	put(4096, 4096, 2);
	return NULL;
}

static void a_sync_covers_what_was_written_before_it_began(void **state)
{
	pthread_t thread;

	(void)state;
	put(0, 4096, 1);
	cut_set_sync_time(100000);
	assert_int_equal(pthread_create(&thread, NULL, write_on, NULL), 0);
	assert_int_equal(file_sync(f), 0);
	pthread_join(thread, NULL);
	cut_set_sync_time(0);
	assert_int_equal(disk->size, 4096);
	assert_reads(4096, 4096, 2);
	assert_int_equal(cut(CUT_NONE, 0).pending, 1);
}

static unsigned int hooked, hooked_syncs;

static void hook(bool sync)
{
	hooked++;
	hooked_syncs += sync;
}

static void every_change_and_sync_asks_the_hook(void **state)
{
	(void)state;
	hooked = hooked_syncs = 0;
	cut_set_hook(hook);
	put(0, 4096, 1);
	assert_reads(0, 4096, 1);
	assert_int_equal(file_sync(f), 0);
	assert_int_equal(file_discard(f, 0, 512), 0);
	assert_int_equal(file_truncate(f, 0), 0);
	cut_set_hook(NULL);
	assert_int_equal(hooked, 4);
	assert_int_equal(hooked_syncs, 1);
}

static void aligned_data_is_left_to_the_ring(void **state)
{
	static _Alignas(4096) uint8_t buf[8192];
	struct iovec two[] = { { buf, 4096 }, { buf + 4096, 4096 } };
	const unsigned int now = FILE_DATA | FILE_NOWAIT;

	(void)state;
	assert_int_equal(f->ops->direct(f, two, 2, 0, true), -1);
	assert_int_equal(f->ops->pwrite(f, buf, 4096, 0, now), 4096);
	file_close(f);
	assert_int_equal(cut_file(ram_open(disk), FILE_DIRECT, &f), 0);
	assert_int_equal(f->ops->pwrite(f, buf, 4096, 4096, now), -EAGAIN);
	assert_int_equal(f->ops->pread(f, buf, 4096, 0, now), -EAGAIN);
	assert_int_equal(f->ops->pread(f, buf, 4096, 0, FILE_NOWAIT), 4096);
	assert_int_equal(f->ops->pwrite(f, buf, 4096, 512, now), 4096);
	assert_int_equal(f->ops->pwrite(f, buf, 4096, 0, FILE_DATA), 4096);
	assert_int_equal(f->ops->direct(f, two, 2, 512, true), -1);
	two[1].iov_base = buf + 512;
	assert_int_equal(f->ops->direct(f, two, 2, 4096, true), -1);
	two[1].iov_base = buf;
	assert_in_range(f->ops->direct(f, two, 2, 4096, true), 0, 1000);
	assert_ptr_equal(cut_file_of(f->ops->direct(f, two, 2, 4096, true)), f);
	assert_null(cut_file_of(-1));
}

#define t(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		t(reads_see_what_was_written),
		t(reads_end_where_the_file_ends),
		t(holes_read_as_zeroes),
		t(what_is_cut_off_does_not_come_back),
		t(nothing_reaches_the_disk_before_a_sync),
		t(a_cut_that_keeps_nothing_leaves_what_was_synced),
		t(a_cut_that_keeps_all_leaves_all),
		t(after_the_cut_nothing_changes_the_disk),
		t(closing_keeps_all),
		t(a_random_cut_leaves_versions_of_sectors),
		t(a_random_cut_leaves_any_of_the_sizes),
		t(the_same_seed_leaves_the_same),
		t(a_sync_covers_what_was_written_before_it_began),
		t(every_change_and_sync_asks_the_hook),
		t(aligned_data_is_left_to_the_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
