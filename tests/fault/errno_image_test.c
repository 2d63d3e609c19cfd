// SPDX-License-Identifier: MIT
/*
 * The errno matrix of what the image library does besides serving a drive: creating an image,
 * checking one, resizing one, reading and replacing compressed and shared clusters of a plain one. As in
 * errno_zns_test.c, each call of the seam fails in each way, once and from then on.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <cmocka.h>
#include "../tally.h"
#include "fault.h"
#include "format.h"
#include "image.h"

#define CLUSTER	 4096u
#define CLUSTERS 64u

static char where[120];
static unsigned int stride = 1;
static unsigned long runs, hits, total_calls;

static void say(void *arg, const char *line)
{
	(void)arg, (void)line;
}

static bool visible(const struct fault *f)
{
	return f->hits && (f->kind <= FAULT_EDQUOT || f->kind == FAULT_NOTHING);
}

static int open_on(struct file *file, unsigned int flags, struct qcow2 **q)
{
	const struct qcow2_open_opts o = { .flags = flags, .file = file };
	char err[QCOW2_ERRLEN] = "";
	int ret = qcow2_open("ram", &o, q, err);

	assert_true(!ret || err[0]);
	return ret;
}

/* Sound, as the file has it now. */
static void verify_sound(struct ramdisk *d)
{
	struct qcow2_check_result res = { 0 };
	struct qcow2 *q;

	if (open_on(ram_open(d), QCOW2_RDONLY, &q))
		fail_msg("%s: does not open", where);
	if (qcow2_check(q, &res, say, NULL) || res.corruptions || res.check_errors)
		fail_msg("%s: %llu corruptions", where, (unsigned long long)res.corruptions);
	qcow2_close(q);
}

static void pattern(uint8_t *buf, unsigned int cluster, unsigned int version)
{
	for (unsigned int i = 0; i < CLUSTER; i++)
		buf[i] = (uint8_t)(cluster * 7 + version * 31 + (i >> 4));
}

/* --- create --- */

static void create_once(struct ramdisk *base, struct fault *f)
{
	struct qcow2_create_opts o = {
		.size = 1 << 20, .cluster_size = 512, .zoned = true, .zone = { .zone_size = 65536 }
	};
	struct ramdisk *d = ram_copy(base);
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];
	int ret = qcow2_create("ram", &o, fault_open(d, f), warn, err);
	struct qcow2 *q;

	if (ret && (!visible(f) || !err[0]))
		fail_msg("%s: create: %d", where, ret);
	/* A failed one leaves the old image, or none, or the whole new one. */
	if (!open_on(ram_open(d), QCOW2_RDONLY, &q)) {
		qcow2_close(q);
		verify_sound(d);
	} else if (!ret) {
		fail_msg("%s: created, does not open", where);
	}
	ram_free(d);
}

/* --- check --- */

static void check_once(struct ramdisk *base, struct fault *f)
{
	struct qcow2_check_result res = { 0 };
	struct ramdisk *d = ram_copy(base);
	struct qcow2 *q;
	int ret = open_on(fault_open(d, f), QCOW2_RDONLY | QCOW2_INSPECT, &q);

	if (ret && !visible(f))
		fail_msg("%s: open: %d", where, ret);
	if (!ret) {
		ret = qcow2_check(q, &res, say, NULL);
		if ((ret || res.check_errors) && !visible(f))
			fail_msg("%s: check: %d", where, ret);
		/* Tables that cannot be read are errors of the check, not findings about refcounts. */
		if (!ret && !res.check_errors && (res.corruptions || res.leaks))
			fail_msg("%s: a sound image is called corrupt", where);
		qcow2_close(q);
	}
	if (d->nr_ops)
		fail_msg("%s: a check writes", where);
	ram_free(d);
}

/* --- resize --- */

/* What the image has now: one size or the other, and its data. Returns whether it is SIZE. */
static bool verify_resized(struct ramdisk *d, uint64_t old, uint64_t size)
{
	uint8_t buf[CLUSTER], want[CLUSTER];
	struct qcow2 *q;
	uint64_t got;

	verify_sound(d);
	assert_int_equal(open_on(ram_open(d), QCOW2_RDONLY, &q), 0);
	got = qcow2_info(q)->size;
	if (got != size && got != old)
		fail_msg("%s: the size is %llu", where, (unsigned long long)got);
	for (unsigned int c = 0; c < 8; c++) {
		pattern(want, c, 1);
		if (qcow2_read(q, buf, c * CLUSTER, CLUSTER, 0) || memcmp(buf, want, CLUSTER))
			fail_msg("%s: cluster %u reads wrong", where, c);
	}
	if (qcow2_info(q)->zoned.nr_zones)
		assert_int_equal(qcow2_wp(q, 0), 8 * CLUSTER);
	qcow2_close(q);
	return got == size;
}

/* Up, and down again. */
static void resize_once(struct ramdisk *base, struct fault *f)
{
	static const uint64_t sizes[] = { 8192ull * CLUSTER, 32ull * CLUSTER };
	struct ramdisk *d = ram_copy(base);
	uint64_t old = CLUSTERS * CLUSTER;

	for (unsigned int i = 0; i < 2; i++) {
		char err[QCOW2_ERRLEN];
		struct qcow2 *q;
		int ret, end;

		ret = open_on(fault_open(d, f), QCOW2_RESIZE, &q);
		if (ret && !visible(f))
			fail_msg("%s: open: %d", where, ret);
		if (ret)
			break;
		ret = qcow2_resize(q, sizes[i], true, err);
		end = qcow2_close(q);
		if ((ret || end) && !visible(f))
			fail_msg("%s: resize: %d, close: %d", where, ret, end);
		if (!ret != !err[0])
			fail_msg("%s: resize: %d, '%s'", where, ret, err);
		if (verify_resized(d, old, sizes[i]))
			old = sizes[i];
		else if (!ret)
			fail_msg("%s: resized, and has its old size", where);
	}
	verify_resized(d, old, old);
	ram_free(d);
}

/* --- plain images --- */

static const unsigned int order[] = { 1, 40, 2, 3, 1, 20, 2, 41 };

static void plain_once(struct ramdisk *base, struct fault *f)
{
	struct ramdisk *d = ram_copy(base);
	unsigned int version[CLUSTERS], steps = sizeof(order) / sizeof(order[0]);
	bool unsure[CLUSTERS] = { false };
	uint8_t buf[CLUSTER], want[CLUSTER];
	bool poisoned;
	struct qcow2 *q;
	int ret;

	for (unsigned int i = 0; i < CLUSTERS; i++)
		version[i] = i < 8;
	ret = open_on(fault_open(d, f), 0, &q);
	if (ret && !visible(f))
		fail_msg("%s: open: %d", where, ret);
	for (unsigned int s = 0; !ret && s < steps; s++) {
		unsigned int c = order[s], half = s % 2 ? CLUSTER : CLUSTER / 2;
		int err;

		err = qcow2_read(q, buf, c * CLUSTER, CLUSTER, 0);
		pattern(want, c, version[c]);
		if (!version[c])
			memset(want, 0, CLUSTER);
		if (err && !visible(f))
			fail_msg("%s: read: %d", where, err);
		if (!err && !unsure[c] && memcmp(buf, want, CLUSTER))
			fail_msg("%s: cluster %u reads wrong", where, c);
		version[c] = 2 + s;
		pattern(want, c, version[c]);
		err = qcow2_write(q, want, c * CLUSTER, half, 0);
		if (!err)
			err = qcow2_write(q, want + half, c * CLUSTER + half, CLUSTER - half, 0);
		unsure[c] = err;
		if (err && !visible(f))
			fail_msg("%s: write: %d", where, err);
		if (s % 3 == 2)
			err = qcow2_flush(q);
		if (err && !visible(f))
			fail_msg("%s: flush: %d", where, err);
	}
	poisoned = visible(f) && f->calls & 1u << RAM_SYNC;
	f->n = 0;
	if (ret) {
		ram_free(d);
		return;
	}
	verify_sound(d);
	ret = qcow2_close(q);
	if (!ret != !poisoned)
		fail_msg("%s: close: %d", where, ret);
	verify_sound(d);
	assert_int_equal(open_on(ram_open(d), QCOW2_RDONLY, &q), 0);
	for (unsigned int c = 0; !poisoned && c < CLUSTERS; c++) {
		assert_int_equal(qcow2_read(q, buf, c * CLUSTER, CLUSTER, 0), 0);
		pattern(want, c, version[c]);
		if (!version[c])
			memset(want, 0, CLUSTER);
		if (!unsure[c] && memcmp(buf, want, CLUSTER))
			fail_msg("%s: cluster %u is lost", where, c);
	}
	qcow2_close(q);
	ram_free(d);
}

/* --- images to begin with --- */

static struct ramdisk *new_image(bool zoned)
{
	struct qcow2_create_opts o = { .size = CLUSTERS * CLUSTER,
				       .cluster_size = CLUSTER,
				       .zoned = zoned,
				       .zone = { .zone_size = 65536 } };
	struct ramdisk *d = ram_new(16u << 20);
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];
	uint8_t buf[CLUSTER];
	struct qcow2 *q;

	assert_int_equal(qcow2_create("ram", &o, ram_open(d), warn, err), 0);
	assert_int_equal(open_on(ram_open(d), 0, &q), 0);
	for (unsigned int c = 0; c < 8; c++) {
		pattern(buf, c, 1);
		assert_int_equal(qcow2_write(q, buf, c * CLUSTER, CLUSTER, 0), 0);
		if (zoned)
			qcow2_wp_advance(q, 0, (c + 1) * CLUSTER);
	}
	assert_int_equal(qcow2_close(q), 0);
	ram_forget(d);
	return d;
}

static uint64_t *l2_of(struct ramdisk *d)
{
	const struct disk_header *h = (const void *)d->bytes;
	uint64_t l1 = be64toh(*(uint64_t *)(d->bytes + be64toh(h->l1_table_offset)));

	return (uint64_t *)(d->bytes + (l1 & L1E_OFFSET_MASK));
}

/* Clusters 1 and 2 become compressed, in their own places. */
static struct ramdisk *compressed_image(void)
{
	struct ramdisk *d = new_image(false);
	uint64_t *l2 = l2_of(d);

	for (unsigned int c = 1; c <= 2; c++) {
		uint64_t host = be64toh(l2[c]) & L2E_OFFSET_MASK;
		uint8_t plain[CLUSTER];
		z_stream z = { .next_in = plain, .avail_in = CLUSTER };

		memcpy(plain, d->bytes + host, CLUSTER);
		z.next_out = d->bytes + host;
		z.avail_out = CLUSTER;
		assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -12, 9, 0), Z_OK);
		assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
		deflateEnd(&z);
		/* 62 - (12 - 8) bits of offset, then further sectors */
		l2[c] = htobe64(L2E_COMPRESSED | (z.total_out - 1) / 512 << 58 | host);
	}
	return d;
}

static const struct subject {
	const char *name;
	void (*once)(struct ramdisk *base, struct fault *f);
	bool zoned, compressed;
} subjects[] = {
	{ "create over an image", create_once, .zoned = true },
	{ "check", check_once, .zoned = true },
	{ "resize", resize_once, .zoned = true },
	{ "resize of a plain image", resize_once, .zoned = false },
	{ "a plain image", plain_once, .zoned = false },
	{ "compressed clusters", plain_once, .compressed = true },
};

static void matrix(void **state)
{
	const struct subject *s = *state;
	struct ramdisk *base = s->compressed ? compressed_image() : new_image(s->zoned);
	unsigned long before = runs;
	long calls = 0;

	snprintf(where, sizeof(where), "%s: at first", s->name);
	verify_sound(base);
	for (unsigned int k = 0; k < 2 * FAULT_KINDS; k++) {
		struct fault f;
		long n = 1, seen;

		do {
			fault_init(&f, k / 2, k % 2, n);
			snprintf(where, sizeof(where), "%s: %s at call %ld%s", s->name,
				 fault_name(k / 2), n, k % 2 ? " and all after it" : "");
			alarm(60);
			s->once(base, &f);
			runs++;
			hits += (unsigned long)f.hits;
			seen = f.seen;
			n += stride;
		} while (n - (long)stride <= seen);
		if (!k)
			calls = seen;
	}
	print_message("%s: %ld calls, %lu runs\n", s->name, calls, runs - before);
	total_calls += (unsigned long)calls;
	ram_free(base);
}

static void hung(int sig)
{
	ssize_t n = write(2, where, strlen(where));

	n = write(2, ": hangs\n", 8);
	(void)n;
	signal(sig, SIG_DFL);
	raise(sig);
}

int main(void)
{
	struct CMUnitTest tests[sizeof(subjects) / sizeof(subjects[0])];
	int failed;

	if (getenv("FAULT_STRIDE") && atoi(getenv("FAULT_STRIDE")) > 0)
		stride = (unsigned int)atoi(getenv("FAULT_STRIDE"));
	signal(SIGALRM, hung);
	for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++)
		tests[i] = (struct CMUnitTest){ subjects[i].name, matrix, NULL, NULL,
						(void *)(uintptr_t)&subjects[i] };
	failed = _cmocka_run_group_tests("errno_image", tests,
					 sizeof(subjects) / sizeof(subjects[0]), NULL, NULL);
	print_message("errno matrix of the image: %zu subjects, %d errors, once and always: %lu "
		      "runs, %lu failed calls\n",
		      sizeof(subjects) / sizeof(subjects[0]), FAULT_KINDS, runs, hits);
	tally("fault_image subjects=%zu calls=%lu ways_to_fail=%d runs=%lu failed_calls=%lu "
	      "violations=%d",
	      sizeof(subjects) / sizeof(subjects[0]), total_calls, FAULT_KINDS, runs, hits, failed);
	return failed;
}
