/* SPDX-License-Identifier: MIT */
/*
 * qcow2_peek(): what it points to is what a read brings, and it points to nothing where a read has
 * more to do. On a real file, for there is no view of another.
 */
#include <sys/stat.h>

#include "common.h"

static char dir[] = "/tmp/znsd-peek.XXXXXX";
static char path[sizeof(dir) + 8];

static int make_dir(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/z.qcow2", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	return rmdir(dir);
}

static struct qcow2 *open_path(unsigned int flags)
{
	struct qcow2_open_opts o = { .flags = flags };
	char err[QCOW2_ERRLEN] = "";
	struct qcow2 *q = NULL;

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

static void expect_peek(struct qcow2 *q, uint64_t off, size_t len, unsigned int version)
{
	uint8_t *want = pattern(off, len, version);
	const void *got = qcow2_peek(q, off, len);

	assert_non_null(got);
	assert_memory_equal(got, want, len);
	free(want);
}

static void it_shows_what_was_written(void **state)
{
	struct qcow2 *q = new_image(0);

	(void)state;
	for (uint32_t zone = 0; zone < 16; zone += 5) {
		put(q, zone * 64 * KIB, 40 * KIB, zone);
		qcow2_wp_advance(q, zone, zone * 64 * KIB + 40 * KIB);
		expect_peek(q, zone * 64 * KIB + 512, 32 * KIB, zone);
	}
	/* Rewritten, elsewhere in the file or not. */
	assert_int_equal(qcow2_zone_reset(q, 5), 0);
	assert_int_equal(qcow2_flush(q), 0);
	put(q, 5 * 64 * KIB, 4 * KIB, 99);
	expect_peek(q, 5 * 64 * KIB, 4 * KIB, 99);
	end_image(q);
}

static void it_needs_what_is_mapped_in_one_piece(void **state)
{
	struct qcow2 *q = new_image(0);

	(void)state;
	assert_null(qcow2_peek(q, 0, 512)); /* nobody was there yet */
	put(q, 0, 4 * KIB, 1);
	assert_non_null(qcow2_peek(q, 0, 4 * KIB));
	assert_null(qcow2_peek(q, 0, 65 * KIB)); /* beyond the zone's clusters */
	assert_null(qcow2_peek(q, 64 * KIB, 512));
	assert_null(qcow2_peek(q, 1 * MIB, 512)); /* and beyond the disk */
	assert_null(qcow2_peek(q, UINT64_MAX - 511, 512));
	assert_int_equal(qcow2_zone_reset(q, 0), 0);
	assert_null(qcow2_peek(q, 0, 512));
	end_image(q);
}

/* An image of somebody else's may name clusters that the file has not got. */
static void it_never_looks_beyond_the_file(void **state)
{
	struct qcow2 *q = new_image(0);
	uint64_t host, run;
	uint8_t buf[512];

	(void)state;
	put(q, 0, 48 * KIB, 1);
	qcow2_wp_advance(q, 0, 48 * KIB);
	assert_true(zmap_find(&q->zones[0], 44 * KIB, &host, &run));
	assert_int_equal(qcow2_close(q), 0);
	assert_int_equal(truncate(path, (off_t)host + 4096 - 512), 0);
	q = open_path(QCOW2_RDONLY);
	assert_int_equal(qcow2_read(q, buf, 47 * KIB, 512, 0), 0); /* learns where it lies */
	expect_peek(q, 44 * KIB, 3 * KIB, 1);
	assert_null(qcow2_peek(q, 44 * KIB, 4 * KIB));
	end_image(q);
}

static void it_shows_nothing_of_a_file_without_a_view(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);

	(void)state;
	put(q, 0, 4 * KIB, 1);
	assert_null(qcow2_peek(q, 0, 4 * KIB));
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

/* Around the page cache, which may then not have what the disk has. */
static void it_shows_nothing_of_a_direct_one(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN] = "";
	struct qcow2_open_opts how = { .flags = QCOW2_DIRECT };
	struct qcow2 *q;

	(void)state;
	assert_int_equal(qcow2_create(path, &o, NULL, warn, err), 0);
	if (qcow2_open(path, &how, &q, err)) { /* a file system without O_DIRECT */
		print_message("skipped: %s\n", err);
		unlink(path);
		skip();
	}
	put(q, 0, 4 * KIB, 1);
	assert_null(qcow2_peek(q, 0, 4 * KIB));
	end_image(q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_shows_what_was_written),
		cmocka_unit_test(it_needs_what_is_mapped_in_one_piece),
		cmocka_unit_test(it_never_looks_beyond_the_file),
		cmocka_unit_test(it_shows_nothing_of_a_file_without_a_view),
		cmocka_unit_test(it_shows_nothing_of_a_direct_one),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
