/* SPDX-License-Identifier: MIT */
/* file_fill() on a real tmpfs: what it copies is read, and where it cannot copy, it says so. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "common.h"
#include "file.h"

#define PAGE 4096u

static char path[32];

static struct file *open_tmpfs(unsigned int flags)
{
	struct file *f;

	assert_int_equal(file_posix(path, flags, &f), 0);
	if (!f->in_memory) {
		file_close(f);
		skip();
	}
	return f;
}

static int make_file(void **state)
{
	int fd;

	(void)state;
	strcpy(path, "/dev/shm/znsd-fill.XXXXXX");
	fd = mkstemp(path);
	if (fd < 0 || ftruncate(fd, 2 * PAGE))
		return -1;
	return close(fd);
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(path);
}

/* Two pieces of 1000 bytes and 500 zeroes, OFF bytes into the mapping. */
static bool fill(struct file *f, uint64_t off)
{
	char a[1000], b[1000];
	const struct iovec iov[] = { { a, sizeof(a) }, { b, sizeof(b) } };

	memset(a, 'a', sizeof(a));
	memset(b, 'b', sizeof(b));
	return file_fill(f, iov, 2, 500, off);
}

static void what_is_filled_is_read(void **state)
{
	struct file *f = open_tmpfs(0);
	char got[2501];

	(void)state;
	assert_false(fill(f, 0)); /* there is no mapping yet */
	assert_non_null(file_map(f, 8 * PAGE));
	memset(got, 'x', sizeof(got));
	assert_int_equal(file_write(f, got, sizeof(got), 100, 0), 0);
	assert_true(fill(f, 100));
	assert_int_equal(file_read(f, got, sizeof(got), 100, 0), 0);
	for (size_t i = 0; i < sizeof(got); i++)
		assert_int_equal(got[i], i < 1000 ? 'a' : i < 2000 ? 'b' : i < 2500 ? 0 : 'x');
	file_close(f);
}

static void beyond_the_end_nothing_is_filled(void **state)
{
	struct file *f = open_tmpfs(0);
	uint64_t size;

	(void)state;
	signal(SIGBUS, SIG_DFL); /* cmocka takes it for itself */
	assert_non_null(file_map(f, 8 * PAGE));
	assert_false(fill(f, 2 * PAGE));
	assert_false(fill(f, 2 * PAGE - 1000)); /* half way */
	assert_false(fill(f, 8 * PAGE - 1000)); /* nor beyond the mapping */
	assert_int_equal(file_size(f, &size), 0);
	assert_int_equal(size, 2 * PAGE);
	assert_int_equal(truncate(path, 0), 0); /* somebody else */
	assert_false(fill(f, 0));
	assert_int_equal(file_write(f, "x", 1, 2 * PAGE - 1, 0), 0);
	assert_true(fill(f, 0));
	file_close(f);
	f = open_tmpfs(FILE_RDONLY);
	assert_non_null(file_map(f, 8 * PAGE));
	assert_false(fill(f, 0));
	file_close(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(beyond_the_end_nothing_is_filled, make_file,
						remove_file),
		cmocka_unit_test_setup_teardown(what_is_filled_is_read, make_file, remove_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
