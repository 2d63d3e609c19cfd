/* SPDX-License-Identifier: MIT */
/* What the tests of the image library share. */
#ifndef TESTS_QCOW2_COMMON_H
#define TESTS_QCOW2_COMMON_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../ramfile.h"
#include "image.h"

#define KIB	1024ull
#define MIB	(1024 * KIB)
#define RAM_CAP (4096 * MIB)

/* 16 zones of 64 KiB, of which 48 KiB can be written, in clusters of 4 KiB. */
static inline struct qcow2_create_opts small_zoned(void)
{
	return (struct qcow2_create_opts){
		.size = 1 * MIB,
		.cluster_size = 4096,
		.zoned = true,
		.zone = { .zone_size = 64 * KIB, .zone_capacity = 48 * KIB },
	};
}

static inline struct ramdisk *make_image(struct qcow2_create_opts *o)
{
	struct ramdisk *d = ram_new(RAM_CAP);
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN] = "";

	if (qcow2_create("ram", o, ram_open(d), warn, err))
		fail_msg("create: %s", err);
	ram_forget(d);
	return d;
}

static inline struct qcow2 *open_image(struct ramdisk *d, unsigned int flags)
{
	struct qcow2_open_opts o = { .flags = flags, .file = ram_open(d) };
	char err[QCOW2_ERRLEN] = "";
	struct qcow2 *q = NULL;

	if (qcow2_open("ram", &o, &q, err))
		fail_msg("open: %s", err);
	return q;
}

/* Opens what must not open; ERR gets the sentence. */
static inline int open_refused(struct ramdisk *d, unsigned int flags, char err[QCOW2_ERRLEN])
{
	struct qcow2_open_opts o = { .flags = flags, .file = ram_open(d) };
	struct qcow2 *q = NULL;
	int ret = qcow2_open("ram", &o, &q, err);

	if (!ret)
		qcow2_close(q);
	return ret;
}

/* LEN bytes that tell their offset in the virtual disk and a version. */
static inline uint8_t *pattern(uint64_t off, size_t len, unsigned int version)
{
	uint8_t *p = malloc(len);

	assert_non_null(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (off + i) * 0x9e3779b97f4a7c15ull >> 56 ^ (off + i) >> 9 ^ version * 37 ^ 1;
	return p;
}

static inline void put(struct qcow2 *q, uint64_t off, size_t len, unsigned int version)
{
	uint8_t *p = pattern(off, len, version);

	assert_int_equal(qcow2_write(q, p, off, len, 0), 0);
	free(p);
}

static inline void expect(struct qcow2 *q, uint64_t off, size_t len, unsigned int version)
{
	uint8_t *want = pattern(off, len, version), *got = malloc(len);

	assert_int_equal(qcow2_read(q, got, off, len, 0), 0);
	assert_memory_equal(got, want, len);
	free(want);
	free(got);
}

static inline void expect_zeroes(struct qcow2 *q, uint64_t off, size_t len)
{
	uint8_t *want = calloc(1, len), *got = malloc(len);

	memset(got, 0xaa, len);
	assert_int_equal(qcow2_read(q, got, off, len, 0), 0);
	assert_memory_equal(got, want, len);
	free(want);
	free(got);
}

/* Prints what a check found, unless ARG asks for quiet. */
static inline void say(void *arg, const char *line)
{
	if (!arg)
		print_message("check: %s\n", line);
}

/* The image as it lies on D now must be sound, with LEAKS clusters leaked. */
static inline void expect_sound(struct ramdisk *d, uint64_t leaks)
{
	struct ramdisk *copy = ram_copy(d);
	struct qcow2_check_result res = { 0 };
	struct qcow2 *q = open_image(copy, QCOW2_RDONLY | QCOW2_INSPECT);

	assert_int_equal(qcow2_check(q, &res, say, NULL), 0);
	assert_int_equal(res.corruptions, 0);
	assert_int_equal(res.check_errors, 0);
	assert_int_equal(res.leaks, leaks);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(copy);
}

/* Runs a command; its exit status. Output goes away. */
__attribute__((format(printf, 1, 2))) static inline int run(const char *fmt, ...)
{
	char cmd[2048], all[2100];
	va_list ap;
	int status;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	snprintf(all, sizeof(all), "( %s ) >/dev/null 2>&1", cmd);
	status = system(all);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline bool have_qemu(void)
{
	return !run("qemu-img --version && qemu-io --version");
}

#endif
