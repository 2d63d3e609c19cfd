/* SPDX-License-Identifier: MIT */
/*
 * qcow2_writev(): pieces are written as one range is, in one call where the file can, and where it
 * does only a part of it, in several.
 */
#include "common.h"

#define PIECE 512u

static unsigned int calls;
static ssize_t most; /* bytes that a call takes; -1: it fails */

static ssize_t short_pwritev(struct file *f, const struct iovec *iov, int n, uint64_t off,
			     unsigned int flags)
{
	ssize_t left = most, done = 0;

	calls++;
	if (most < 0)
		return -EIO;
	for (int i = 0; i < n && left > 0; i++) {
		size_t len = iov[i].iov_len < (size_t)left ? iov[i].iov_len : (size_t)left;

		assert_int_equal(f->ops->pwrite(f, iov[i].iov_base, len, off + done, flags), len);
		done += len;
		left -= len;
	}
	return done;
}

/* The RAM file, with a pwritev() of its own. */
static struct file *with_pwritev(struct ramdisk *d, struct file_ops *ops)
{
	struct file *f = ram_open(d);

	*ops = *f->ops;
	ops->pwritev = short_pwritev;
	f->ops = ops;
	return f;
}

static int put_pieces(struct qcow2 *q, uint64_t off, int n, unsigned int version)
{
	uint8_t *p = pattern(off, n * PIECE, version);
	struct iovec iov[64];
	int err;

	for (int i = 0; i < n; i++)
		iov[i] = (struct iovec){ p + i * PIECE, PIECE };
	err = qcow2_writev(q, iov, n, off, n * PIECE, 0);
	free(p);
	return err;
}

static void pieces_are_one_call(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct file_ops ops;
	struct qcow2_open_opts how = { .file = with_pwritev(d, &ops) };
	char err[QCOW2_ERRLEN];
	struct qcow2 *q;

	(void)state;
	assert_int_equal(qcow2_open("ram", &how, &q, err), 0);
	most = 1 << 20;
	calls = 0;
	assert_int_equal(put_pieces(q, 0, 8, 1), 0); /* the first allocates for the others, too */
	assert_int_equal(calls, 1);
	assert_int_equal(put_pieces(q, 8 * PIECE, 40, 1), 0);
	assert_int_equal(calls, 2);
	expect(q, 0, 48 * PIECE, 1);
	for (most = -1; most < 6 * (int)PIECE; most += 100) { /* it fails, or is short: no matter */
		assert_int_equal(put_pieces(q, 8 * PIECE, 6, 2 + (most & 1)), 0);
		expect(q, 8 * PIECE, 6 * PIECE, 2 + (most & 1));
		expect(q, 14 * PIECE, 20 * PIECE, 1);
	}
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

static void pieces_are_refused_as_a_range_is(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);

	(void)state;
	assert_int_equal(put_pieces(q, 48 * KIB - 2 * PIECE, 2, 1), 0);
	assert_int_equal(put_pieces(q, 48 * KIB - 2 * PIECE, 3, 1), -EINVAL); /* the capacity */
	assert_int_equal(put_pieces(q, 1 * MIB - PIECE, 2, 1), -EINVAL);
	assert_int_equal(put_pieces(q, qcow2_info(q)->size, 0, 1), 0); /* there is no such zone */
	assert_int_equal(qcow2_close(q), 0);
	q = open_image(d, QCOW2_RDONLY);
	assert_int_equal(put_pieces(q, 0, 2, 1), -EROFS);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_are_one_call),
		cmocka_unit_test(pieces_are_refused_as_a_range_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
