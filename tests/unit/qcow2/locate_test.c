/* SPDX-License-Identifier: MIT */
/*
 * qcow2_locate(): what others move there is what the image reads and flushes, and nothing is located
 * that takes more than to move it. On a real file, around the page cache.
 */
#include <sys/stat.h>

#include "common.h"

#define LEN (8 * KIB)

static char dir[] = "/tmp/znsd-locate.XXXXXX";
static char path[sizeof(dir) + 8];
static uint8_t *buf; /* aligned, of LEN bytes and one page */
static struct file_ops ops;
static int (*real_fdatasync)(struct file *f);
static unsigned int syncs;
static int sync_err;

static int counted_fdatasync(struct file *f)
{
	syncs++;
	return sync_err ? sync_err : real_fdatasync(f);
}

static int make_dir(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/z.qcow2", dir);
	buf = aligned_alloc(4096, LEN + 4096);
	return buf ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	free(buf);
	return rmdir(dir);
}

static struct qcow2 *open_path(unsigned int flags)
{
	bool direct = flags & QCOW2_DIRECT;
	struct qcow2_open_opts o = { .flags = flags };
	char err[QCOW2_ERRLEN] = "";
	struct qcow2 *q = NULL;
	int ret = file_posix(path,
			     (flags & QCOW2_RDONLY ? FILE_RDONLY : 0) | (direct ? FILE_DIRECT : 0) |
				     (flags & QCOW2_LARGE_DIRECT ? FILE_DIRECT_WRITES : 0),
			     &o.file);

	if (ret == -EINVAL && direct) {
		print_message("skipped: no O_DIRECT in /tmp\n");
		unlink(path);
		skip();
	}
	assert_int_equal(ret, 0);
	ops = *o.file->ops;
	real_fdatasync = ops.fdatasync;
	ops.fdatasync = counted_fdatasync;
	o.file->ops = &ops;
	if (qcow2_open(path, &o, &q, err))
		fail_msg("%s", err);
	return q;
}

static struct qcow2 *new_image(unsigned int flags)
{
	struct qcow2_create_opts o = small_zoned();
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN] = "";

	if (qcow2_create(path, &o, NULL, warn, err))
		fail_msg("%s", err);
	return open_path(flags);
}

static void end_image(struct qcow2 *q)
{
	assert_int_equal(qcow2_close(q), 0);
	assert_int_equal(unlink(path), 0);
}

static int locate(struct qcow2 *q, void *at, uint64_t off, size_t len, bool write, uint64_t *host)
{
	return qcow2_locate(q, &(struct iovec){ at, len }, 1, off, len, write, host);
}

static bool located(struct qcow2 *q, void *at, uint64_t off, size_t len, bool write)
{
	uint64_t host = 42;
	bool yes = locate(q, at, off, len, write, &host) >= 0;

	assert_true(yes == (host != 42));
	return yes;
}

static void what_is_moved_there_is_the_images(void **state)
{
	struct qcow2 *q = new_image(QCOW2_DIRECT);
	uint8_t *want = pattern(4 * KIB, LEN, 2), got[LEN];
	uint64_t host;
	int fd;

	(void)state;
	put(q, 0, 4 * KIB, 1); /* the zone is mapped */
	fd = locate(q, buf, 4 * KIB, LEN, true, &host);
	assert_true(fd >= 0);
	memcpy(buf, want, LEN);
	assert_int_equal(pwrite(fd, buf, LEN, (off_t)host), LEN);
	qcow2_wrote(q);
	assert_int_equal(qcow2_read(q, got, 4 * KIB, LEN, 0), 0);
	assert_memory_equal(got, want, LEN);
	memset(buf, 0, LEN);
	fd = locate(q, buf, 4 * KIB, LEN, false, &host);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, buf, LEN, (off_t)host), LEN);
	assert_memory_equal(buf, want, LEN);
	free(want);
	end_image(q);
}

/* D1: a flush syncs what others have written, also when nothing else has changed. */
static void a_flush_knows_what_was_written(void **state)
{
	struct qcow2 *q = new_image(QCOW2_DIRECT);

	(void)state;
	put(q, 0, 4 * KIB, 1);
	assert_int_equal(qcow2_flush(q), 0);
	syncs = 0;
	assert_int_equal(qcow2_flush(q), 0);
	assert_int_equal(syncs, 0);
	qcow2_wrote(q);
	assert_int_equal(qcow2_flush(q), 0);
	assert_int_equal(syncs, 1);
	end_image(q);
}

static void it_needs_what_is_aligned_and_in_one_piece(void **state)
{
	struct qcow2 *q = new_image(QCOW2_DIRECT);
	struct iovec iov[2] = { { buf, 4096 }, { buf + 4096, 4096 } };
	uint64_t host;

	(void)state;
	assert_false(located(q, buf, 0, LEN, true)); /* nobody was there yet */
	put(q, 0, 4 * KIB, 1);
	for (int write = 0; write < 2; write++) {
		assert_true(located(q, buf, 0, LEN, write));
		assert_false(located(q, buf + 512, 0, LEN, write));
		assert_false(located(q, buf, 512, LEN, write));
		assert_false(located(q, buf, 0, LEN - 512, write));
		assert_false(located(q, buf, 60 * KIB, LEN, write)); /* two zones */
		assert_false(located(q, buf, 64 * KIB, LEN, write));
		assert_false(located(q, buf, 1 * MIB, LEN, write)); /* beyond the disk */
		assert_false(located(q, buf, UINT64_MAX - 4095, LEN, write));
		assert_true(qcow2_locate(q, iov, 2, 0, LEN, write, &host) >= 0);
		iov[1].iov_base = buf + 4096 + 512;
		assert_int_equal(qcow2_locate(q, iov, 2, 0, LEN, write, &host), -1);
		iov[1].iov_base = buf + 4096;
	}
	assert_int_equal(qcow2_zone_reset(q, 0), 0);
	assert_false(located(q, buf, 0, LEN, true));
	end_image(q);
}

static void what_may_not_be_written_is_not_located(void **state)
{
	struct qcow2 *q = new_image(QCOW2_DIRECT);

	(void)state;
	put(q, 0, 16 * KIB, 1);
	qcow2_wp_advance(q, 0, 16 * KIB);
	assert_int_equal(qcow2_close(q), 0);
	q = open_path(QCOW2_DIRECT | QCOW2_RDONLY);
	assert_int_equal(qcow2_read(q, buf, 0, LEN, 0), 0); /* learns where it lies */
	assert_true(located(q, buf, 0, LEN, false));
	assert_false(located(q, buf, 0, LEN, true));
	assert_int_equal(qcow2_close(q), 0);
	q = open_path(QCOW2_DIRECT);
	assert_int_equal(qcow2_read(q, buf, 0, LEN, 0), 0);
	assert_true(located(q, buf, 0, LEN, true));
	sync_err = -EIO;
	qcow2_wrote(q);
	assert_int_equal(qcow2_flush(q), -EIO);
	sync_err = 0;
	assert_false(located(q, buf, 0, LEN, true)); /* poisoned */
	assert_true(located(q, buf, 0, LEN, false));
	qcow2_close(q);
	assert_int_equal(unlink(path), 0);
}

static void only_what_goes_around_the_page_cache_is_located(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);

	(void)state;
	put(q, 0, LEN, 1);
	assert_false(located(q, buf, 0, LEN, false));
	assert_false(located(q, buf, 0, LEN, true));
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
	q = new_image(0);
	put(q, 0, LEN, 1);
	assert_false(located(q, buf, 0, LEN, false));
	assert_false(located(q, buf, 0, LEN, true));
	end_image(q);
}

/* Large aligned writes are located, and what is read of them then comes back into the page cache. */
static void of_large_direct_ones_only_large_writes_are_located(void **state)
{
	const size_t large = FILE_LARGE;
	char *big = aligned_alloc(4096, large), *got = malloc(large);
	struct iovec halves[] = { { big, large / 2 }, { big + large / 2, large / 2 } };
	struct qcow2_create_opts o = small_zoned();
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN] = "";
	struct qcow2 *q;
	uint64_t host;
	int fd;

	(void)state;
	assert_true(big && got);
	o.zone.zone_size = o.zone.zone_capacity = 256 * KIB;
	assert_int_equal(qcow2_create(path, &o, NULL, warn, err), 0);
	q = open_path(QCOW2_LARGE_DIRECT);
	if (!q->file->direct) {
		print_message("skipped: no O_DIRECT in /tmp\n");
		end_image(q);
		skip();
	}
	put(q, 0, 4 * KIB, 1);
	assert_non_null(qcow2_peek(q, 0, 4 * KIB));
	assert_false(located(q, big, 4 * KIB, large, false));
	assert_false(located(q, big, 4 * KIB, large - 4 * KIB, true));
	assert_false(located(q, big + 512, 4 * KIB, large, true));
	assert_false(located(q, big, 4 * KIB + 512, large, true));
	fd = qcow2_locate(q, halves, 2, 4 * KIB, large, true, &host);
	assert_true(fd >= 0);
	memset(big, 0x5a, large);
	assert_int_equal(pwrite(fd, big, large, (off_t)host), large);
	qcow2_wrote(q);
	assert_null(qcow2_peek(q, 4 * KIB, large));
	assert_int_equal(qcow2_read(q, got, 4 * KIB, large, 0), 0);
	assert_memory_equal(got, big, large);
	assert_non_null(qcow2_peek(q, 4 * KIB, large));
	/* Who may not wait is refused a large write, and no other. */
	assert_int_equal(qcow2_write(q, big, 4 * KIB + large, large, QCOW2_NOWAIT), -EAGAIN);
	assert_int_equal(qcow2_write(q, big, 4 * KIB + large, 4 * KIB, QCOW2_NOWAIT), 0);
	assert_int_equal(qcow2_write(q, big, 8 * KIB + large, large, 0), 0);
	assert_null(qcow2_peek(q, 8 * KIB + large, large));
	free(big);
	free(got);
	end_image(q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_moved_there_is_the_images),
		cmocka_unit_test(a_flush_knows_what_was_written),
		cmocka_unit_test(it_needs_what_is_aligned_and_in_one_piece),
		cmocka_unit_test(what_may_not_be_written_is_not_located),
		cmocka_unit_test(only_what_goes_around_the_page_cache_is_located),
		cmocka_unit_test(of_large_direct_ones_only_large_writes_are_located),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
