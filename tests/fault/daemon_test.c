// SPDX-License-Identifier: MIT
/*
 * znsd itself, with a preloaded library (libshim.c) that fails the n-th of its calls on one of its
 * two images. It never dies or hangs; statuses fit; the other namespace works on; TERM ends it, and
 * exit 0 means that all is in the image. Then: no file descriptors left.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "../tally.h"
#include "daemon.h"

#define OPTIONS "size=16M,zone.size=1M,zone.capacity=1M,zone.mode=host-managed,cluster_size=4k"
#define PIECE	8 /* blocks */
#define ZONES	6

static struct rig rig;
static char other[96], hit[96], base[96], where[120];
static unsigned int stride = 1;
static unsigned long runs, hits;

/* Blocks acknowledged in each zone of the failing image. */
static uint64_t acked[ZONES];
static bool unsure[ZONES];
static struct rig_ns ns;  /* the failing one */
static struct rig_ns ns2; /* the other, which never fails */

static void copy(const char *from, const char *to)
{
	const char *argv[] = { "cp", "--sparse=always", from, to, NULL };

	assert_int_equal(rig_run(&rig, argv), 0);
}

static void shim(const char *call, int error, long n, bool always)
{
	char number[24];

	setenv("LD_PRELOAD", getenv("SHIM"), 1);
	setenv("SHIM_CALL", call, 1);
	setenv("SHIM_FILE", rig.img, 1);
	setenv("SHIM_HIT", hit, 1);
	snprintf(number, sizeof(number), "%ld", n);
	setenv("SHIM_N", number, 1);
	snprintf(number, sizeof(number), "%d", error);
	setenv("SHIM_ERRNO", number, 1);
	if (always)
		setenv("SHIM_ALWAYS", "1", 1);
	else
		unsetenv("SHIM_ALWAYS");
	unlink(hit);
}

static void unshim(void)
{
	unsetenv("LD_PRELOAD");
	unsetenv("SHIM_CALL");
}

/* Its end, without the noise of rig_stop(): that it says something went wrong is expected here. */
static int end_daemon(void)
{
	uint64_t start = now_ms();
	int status;
	pid_t pid;

	kill(rig.pid, SIGTERM);
	while (!(pid = waitpid(rig.pid, &status, WNOHANG))) {
		if (now_ms() - start > 15000u * (unsigned int)rig_slowness())
			fail_msg("%s: does not end", where);
		usleep(1000);
	}
	rig.pid = 0;
	if (pid < 0 || !WIFEXITED(status))
		fail_msg("%s: ended by signal %d", where, WTERMSIG(status));
	return WEXITSTATUS(status);
}

static bool was_hit(void)
{
	return !access(hit, F_OK);
}

/* Whether a command went well; else its status must fit ERROR. */
static bool fits(const char *what, int status, int error, bool reads)
{
	int want = reads ? NVME_SCT_MEDIA << NVME_SCT_SHIFT | NVME_SC_READ_ERROR
			 : NVME_SCT_MEDIA << NVME_SCT_SHIFT | NVME_SC_WRITE_FAULT;

	if (!status)
		return true;
	if (error == ENOSPC && !reads)
		want = NVME_SC_CAP_EXCEEDED;
	if (error == ENOMEM)
		want = NVME_SC_INTERNAL;
	if (error == ENOMEM && was_hit() && status < 0 && status != -ETIMEDOUT)
		return false; /* no connection without memory */
	if (!was_hit() || (status != want && status != NVME_SC_NS_WRITE_PROTECTED &&
			   (status < 0x1b8 || status > 0x1bf)))
		fail_msg("%s: %s: %#x (%d)", where, what, status, status);
	return false;
}

static void put(struct host_ctrl *c, uint32_t zone, int error)
{
	uint64_t lba = zone * ns.zsze + acked[zone], alba = lba;
	uint32_t len = PIECE * ns.lba;
	uint8_t buf[PIECE * 4096];
	int status;

	if (unsure[zone])
		return;
	host_pattern(buf, len, lba * ns.lba, 1);
	status = zone % 2 ? host_append(&c->io[0], 1, zone * ns.zsze, PIECE, buf, len, &alba)
			  : host_write(&c->io[0], 1, lba, PIECE, buf, len);
	unsure[zone] = status < 0;
	if (!fits("write", status, error, false))
		return;
	assert_int_equal(alba, lba);
	acked[zone] += PIECE;
}

static void get(struct host_ctrl *c, uint32_t zone, int error)
{
	uint64_t lba = zone * ns.zsze;
	uint8_t buf[PIECE * 4096], want[PIECE * 4096];

	if (unsure[zone] || acked[zone] < PIECE)
		return;
	host_pattern(want, sizeof(want), lba * ns.lba, 1);
	if (!fits("read", host_read(&c->io[0], 1, lba, PIECE, buf, PIECE * ns.lba), error, true))
		return;
	if (memcmp(buf, want, PIECE * ns.lba))
		fail_msg("%s: zone %u reads wrong", where, zone);
}

static void manage(struct host_ctrl *c, uint32_t zone, enum nvme_zns_send_action zsa, int error)
{
	int status = host_zone(&c->io[0], 1, zone * ns.zsze, zsa, false);

	unsure[zone] = true;
	fits("zone management", status, error, false);
}

static void flush(struct host_ctrl *c, int error)
{
	fits("flush", host_flush(&c->io[0], 1), error, false);
}

static void commands(struct host_ctrl *c, int error)
{
	for (uint32_t i = 0; i < 2; i++) {
		put(c, 0, error);
		put(c, 1, error);
		flush(c, error);
		put(c, 2 + i, error);
		get(c, 0, error);
		put(c, 4 + i, error);
		manage(c, 4 + i, i ? NVME_ZNS_ZSA_FINISH : NVME_ZNS_ZSA_RESET, error);
		flush(c, error);
	}
	put(c, 1, error);
	get(c, 1, error);
	/* The other one has never failed. */
	if (error == ENOMEM)
		return; /* memory it shares */
	assert_int_equal(host_zone(&c->io[0], 2, 0, NVME_ZNS_ZSA_RESET, false), 0);
	rig_write(&c->io[0], &ns2, 0, 16, 7);
	assert_int_equal(host_flush(&c->io[0], 2), 0);
}

/* What a daemon without the shim finds. EXACT: the last one said that all was well. */
static void verify(bool exact)
{
	const char *args[] = { rig.img, other, NULL };
	struct host_ctrl c;

	assert_int_equal(rig_start(&rig, args, NULL), 0);
	rig_attach(&rig, &c, 1);
	for (uint32_t i = 0; i < ZONES; i++) {
		struct nvme_zns_desc d = rig_zone(&c.io[0], &ns, i * ns.zsze);
		uint64_t wp = le64toh(d.wp) - i * ns.zsze;

		if (unsure[i])
			continue;
		if (wp > acked[i] || (exact && wp != acked[i]))
			fail_msg("%s: zone %u is at %u of %u", where, i, (unsigned int)wp,
				 (unsigned int)acked[i]);
		rig_verify(&c.io[0], &ns, i * ns.zsze, wp, 1);
	}
	host_detach(&c);
	if (end_daemon())
		fail_msg("%s: a well daemon ends badly", where);
}

/* So that what a refused start prints is its own words alone. */
static void truncate_log(void)
{
	int fd = open(rig.log, O_WRONLY | O_TRUNC | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
}

/* One daemon; false: it made no N-th call. */
static bool one(const char *call, int error, long n, bool always)
{
	const char *args[] = { rig.img, other, NULL };
	struct host_ctrl c;
	int status, err = -1;

	snprintf(where, sizeof(where), "%s %ld%s: %s", call, n, always ? " and all after it" : "",
		 strerror(error));
	alarm(120);
	truncate_log();
	copy(base, rig.img);
	memset(acked, 0, sizeof(acked));
	memset(unsure, 0, sizeof(unsure));
	shim(call, error, n, always);
	err = rig_start(&rig, args, &status);
	unshim();
	runs++;
	if (err) {
		hits++;
		/* 2: there was no memory to understand the command line */
		if (!was_hit() || (status != 1 && (error != ENOMEM || status != 2)))
			fail_msg("%s: does not start: %d", where, status);
		return true;
	}
	for (int i = 0; i < 3; i++) {
		err = host_attach(&c, "127.0.0.1", rig.port, RIG_NQN, NULL, NULL, 1, 0);
		if (!err)
			break;
		if (!was_hit() || error != ENOMEM)
			fail_msg("%s: attach: %d", where, err);
	}
	if (!err) {
		commands(&c, error);
		host_detach(&c);
	}
	hits += was_hit();
	status = end_daemon();
	if (status && (status != 1 || !was_hit()))
		fail_msg("%s: ends %d", where, status);
	if (was_hit()) {
		err = rig_check(&rig, rig.img);
		if (err && err != 3)
			fail_msg("%s: check: %d", where, err);
		if (error != ENOMEM || n % 3 == 0)
			verify(!status);
	}
	return was_hit();
}

static const struct row {
	const char *call;
	int error;
	bool always;
	unsigned int step;
} rows[] = {
	{ "pread", EIO, false, 1 },	      { "pread", EIO, true, 3 },
	{ "pwrite", EIO, false, 1 },	      { "pwrite", EIO, true, 3 },
	{ "pwrite", ENOSPC, false, 1 },	      { "pwrite", ENOSPC, true, 3 },
	{ "fdatasync", EIO, false, 1 },	      { "fdatasync", ENOSPC, false, 1 },
	{ "fdatasync", EIO, true, 1 },	      { "ftruncate", ENOSPC, false, 1 },
	{ "ftruncate", ENOSPC, true, 1 },     { "fallocate", EIO, false, 1 },
	{ "fallocate", ENOSPC, true, 1 },     { "accept", EMFILE, false, 1 },
	{ "accept", ECONNABORTED, false, 1 }, { "accept", ENOBUFS, false, 1 },
	{ "malloc", ENOMEM, false, 3 },
};

static void every_call_may_fail(void **state)
{
	const struct row *r = *state;
	long n = 1;

	while (one(r->call, r->error, n, r->always) && n < 400)
		n += r->step * stride;
	print_message("%s fails with %s%s: calls to %ld\n", r->call, strerror(r->error),
		      r->always ? " from then on" : "", n);
}

static int open_files(pid_t pid)
{
	char path[32];
	int n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void no_descriptors_left(void **state)
{
	struct host_queue extra[12];
	struct rlimit limit;
	struct host_ctrl c;

	(void)state;
	snprintf(where, sizeof(where), "descriptors");
	alarm(120);
	copy(base, rig.img);
	assert_int_equal(rig_serve(&rig, rig.img), 0);
	rig_attach(&rig, &c, 1);
	limit.rlim_cur = limit.rlim_max = (rlim_t)open_files(rig.pid) + 2;
	assert_int_equal(prlimit(rig.pid, RLIMIT_NOFILE, &limit, NULL), 0);
	for (int i = 0; i < 12; i++) /* the kernel takes them all, znsd two */
		assert_int_equal(host_dial(&extra[i], "127.0.0.1", rig.port), 0);
	rig_write(&c.io[0], &ns, 0, 64, 5);
	assert_int_equal(host_flush(&c.io[0], 1), 0);
	usleep(300000);
	rig_verify(&c.io[0], &ns, 0, 64, 5);
	for (int i = 0; i < 12; i++)
		host_close(&extra[i]);
	host_detach(&c);
	rig_attach(&rig, &c, 1);
	rig_verify(&c.io[0], &ns, 0, 64, 5);
	host_detach(&c);
	assert_int_equal(end_daemon(), 0);
}

static int setup(void **state)
{
	const char *args[] = { rig.img, other, NULL };
	struct host_ctrl c;

	(void)state;
	rig_init(&rig);
	if (!getenv("SHIM")) {
		fprintf(stderr, "SKIP: needs $SHIM (run through ctest)\n");
		exit(77);
	}
	snprintf(other, sizeof(other), "%s/other.qcow2", rig.dir);
	snprintf(base, sizeof(base), "%s/base.qcow2", rig.dir);
	snprintf(hit, sizeof(hit), "%s/hit", rig.dir);
	assert_int_equal(rig_create(&rig, base, OPTIONS), 0);
	assert_int_equal(rig_create(&rig, other, OPTIONS), 0);
	copy(base, rig.img);
	assert_int_equal(rig_start(&rig, args, NULL), 0);
	rig_attach(&rig, &c, 1);
	rig_identify(&c, 1, &ns);
	rig_identify(&c, 2, &ns2);
	host_detach(&c);
	assert_int_equal(end_daemon(), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_end(&rig);
	return 0;
}

int main(int argc, char **argv)
{
	struct CMUnitTest tests[sizeof(rows) / sizeof(rows[0]) + 1];
	static char names[sizeof(rows) / sizeof(rows[0])][60];
	size_t n = 0;
	int failed;

	if (getenv("FAULT_STRIDE") && atoi(getenv("FAULT_STRIDE")) > 0)
		stride = (unsigned int)atoi(getenv("FAULT_STRIDE"));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		/* A sanitizer has an allocator of its own. */
		if ((rig_slowness() > 1 && rows[i].error == ENOMEM) ||
		    (argc > 1 && strcmp(argv[1], rows[i].call)))
			continue;
		snprintf(names[i], sizeof(names[i]), "%s: %s%s", rows[i].call,
			 strerror(rows[i].error), rows[i].always ? ", from then on" : "");
		tests[n++] = (struct CMUnitTest){ names[i], every_call_may_fail, NULL, NULL,
						  (void *)(uintptr_t)&rows[i] };
	}
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(no_descriptors_left);
	failed = _cmocka_run_group_tests("daemon", tests, n, setup, teardown);
	print_message("znsd: %zu ways to fail, %lu daemons, %lu hit\n", n - 1, runs, hits);
	tally("fault_daemon ways_to_fail=%zu daemons=%lu failed_calls=%lu violations=%d", n - 1,
	      runs, hits, failed);
	return failed;
}
