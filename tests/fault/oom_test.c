// SPDX-License-Identifier: MIT
/*
 * Out of memory in the whole of znsd but its main(): image, namespace, target, transport and a
 * socket, with the tests' own host. For every n the n-th allocation fails, once or from then on,
 * in starting, connecting, every kind of command and in ending. In each run:
 *
 * 1. Nobody crashes, hangs or leaks (the asan preset). What cannot start says so.
 * 2. A command that could not be done ends with Internal Error, or its connection ends.
 * 3. With memory back, all works; what was acknowledged is there, also in the image afterwards,
 *    which passes the check.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "host.h"
#include "loop.h"
#include "../tally.h"
#include "oom.h"
#include "qcow2.h"
#include "store.h"
#include "target.h"
#include "tcp.h"
#include "work.h"
#include "zns.h"

#define NQN	  "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-0000000000ee"
#define ZONE_LBAS 128 /* 64 KiB */
#define NR_ZONES  48
#define PIECE	  96 /* LBAs: a write by R2T */

static char dir[] = "/tmp/znsd-oom-XXXXXX";
static char path[64];
static char where[100];
static uint8_t *image; /* as each run finds it */
static size_t image_len;
static unsigned int stride = 1;
static unsigned long runs, hits, allocations;

static struct server {
	struct workers *pool;
	struct loop *loop;
	struct tgt *tgt;
	struct tcp_server *tcp;
	struct tcp_listener *listener;
	pthread_t thread;
	bool running;
	char err[512];
} up;

/* What was acknowledged, by zone: blocks, and of them those flushed; and the seed of the data. */
static struct {
	uint64_t wp[NR_ZONES], floor[NR_ZONES];
	uint64_t seed[NR_ZONES];
	bool unsure[NR_ZONES]; /* a command that changes it ended without an answer */
} acked;

/* --- the server --- */

static void *run_loop(void *arg)
{
	loop_run(arg);
	return NULL;
}

static bool add_namespace(void)
{
	const struct zns_opts opts = { .lba_size = 512 };
	const struct store_qcow2_opts how = { .cache = STORE_WRITEBACK };
	struct tgt_subsys *subsys;
	struct store *store;
	struct tgt_ns *ns;

	if (store_qcow2_open(path, &how, &store, up.err, sizeof(up.err)))
		return false;
	if (zns_ns_new(store, &opts, up.loop, &ns, up.err, sizeof(up.err))) {
		store->ops->close(store);
		return false;
	}
	subsys = tgt_subsys_get(up.tgt, NQN, up.err, sizeof(up.err));
	if (!subsys || tgt_ns_add(subsys, ns, up.err, sizeof(up.err))) {
		ns->set->close(ns);
		return false;
	}
	return true;
}

/* As main.c does it. False: it could not, and UP.err says why where there is a sentence. */
static bool server_start(void)
{
	memset(&up, 0, sizeof(up));
	snprintf(up.err, sizeof(up.err), "out of memory");
	up.tgt = tgt_new();
	if (up.tgt)
		up.pool = workers_new(1);
	if (up.pool)
		up.loop = loop_new(up.pool);
	if (!up.loop)
		return false;
	tgt_add_command_set(up.tgt, &nvm_command_set);
	tgt_add_command_set(up.tgt, &zns_command_set);
	up.err[0] = 0;
	if (!add_namespace())
		return false;
	up.tcp = tcp_new(up.tgt, &up.loop, 1, NULL);
	if (!up.tcp) {
		snprintf(up.err, sizeof(up.err), "out of memory");
		return false;
	}
	if (tcp_listen(up.tcp, "127.0.0.1", 0, &up.listener, up.err, sizeof(up.err)))
		return false;
	assert_int_equal(pthread_create(&up.thread, NULL, run_loop, up.loop), 0);
	up.running = true;
	return true;
}

static void drained(void *arg)
{
	loop_stop(arg);
}

static int server_stop(void)
{
	int err;

	if (up.running) {
		tcp_shutdown(up.tcp, drained, up.loop);
		pthread_join(up.thread, NULL);
	}
	if (up.tcp)
		tcp_free(up.tcp);
	workers_free(up.pool);
	err = tgt_free(up.tgt);
	loop_free(up.loop);
	return err;
}

/* --- the host --- */

static struct host_ctrl ctrl;
static bool attached;

static bool attach(void)
{
	int err = host_attach(&ctrl, "127.0.0.1", tcp_listener_port(up.listener)->trsvcid, NQN,
			      NULL, NULL, 1, 60000);

	if (err && (err == -ETIMEDOUT || err == -EPROTO || err == -ECONNABORTED))
		fail_msg("%s: attach: %d", where, err);
	attached = !err;
	return attached;
}

static void detach(void)
{
	if (attached)
		host_detach(&ctrl);
	attached = false;
}

/* Whether what WHAT ended with may be, as far as memory goes; true if it went well. */
static bool done(const char *what, int status)
{
	if (!status)
		return true;
	if (status == NVME_SC_INTERNAL)
		return false;
	if (status != -ENOTCONN && status != -ECONNRESET && status != -EPIPE)
		fail_msg("%s: %s: %#x (%d)", where, what, status, status);
	detach();
	return false;
}

static void append(uint32_t zone, uint32_t lbas)
{
	uint64_t lba = zone * ZONE_LBAS + acked.wp[zone], alba = 0;
	uint8_t buf[PIECE * 512];
	int status;

	if (!attached || acked.unsure[zone] || acked.wp[zone] + lbas > PIECE)
		return;
	host_pattern(buf, lbas * 512, lba * 512, acked.seed[zone]);
	if (zone % 2)
		status = host_write(&ctrl.io[0], 1, alba = lba, lbas, buf, lbas * 512);
	else
		status =
			host_append(&ctrl.io[0], 1, zone * ZONE_LBAS, lbas, buf, lbas * 512, &alba);
	if (status < 0)
		acked.unsure[zone] = true;
	if (!done("write", status))
		return;
	assert_int_equal(alba, lba);
	acked.wp[zone] += lbas;
}

static void flush(void)
{
	if (!attached || !done("flush", host_flush(&ctrl.io[0], 1)))
		return;
	memcpy(acked.floor, acked.wp, sizeof(acked.floor));
}

static void read_back(uint32_t zone)
{
	uint8_t buf[PIECE * 512], want[PIECE * 512];

	if (!attached || acked.unsure[zone] || !acked.wp[zone])
		return;
	host_pattern(want, sizeof(want), zone * ZONE_LBAS * 512, acked.seed[zone]);
	if (!done("read", host_read(&ctrl.io[0], 1, zone * ZONE_LBAS, PIECE, buf, sizeof(buf))))
		return;
	if (memcmp(buf, want, acked.wp[zone] * 512))
		fail_msg("%s: zone %u reads wrong", where, zone);
}

static void manage(uint32_t zone, enum nvme_zns_send_action zsa)
{
	int status;

	if (!attached || acked.unsure[zone])
		return;
	status = host_zone(&ctrl.io[0], 1, zone * ZONE_LBAS, zsa, false);
	if (status < 0)
		acked.unsure[zone] = true;
	if (!done("zone management", status))
		return;
	if (zsa == NVME_ZNS_ZSA_RESET) {
		acked.wp[zone] = acked.floor[zone] = 0;
		acked.seed[zone] += 1000;
	}
	if (zsa == NVME_ZNS_ZSA_FINISH)
		acked.unsure[zone] = true; /* full, that is; nothing more is done to it */
}

static void ask(void)
{
	uint8_t buf[4096];

	if (attached)
		done("identify", host_identify(&ctrl.admin, NVME_IDENTIFY_CNS_CTRL, 0, 0, buf));
	if (attached)
		done("log page",
		     host_get_log(&ctrl.admin, NVME_LOG_LID_SMART, NVME_NSID_ALL, 0, 0, buf, 512));
	if (attached)
		done("report zones", host_report(&ctrl.io[0], 1, 0, 0, 0, true, buf, 4096));
	if (attached)
		done("flush of all", host_flush(&ctrl.io[0], NVME_NSID_ALL));
	if (attached)
		done("keep alive", host_keep_alive(&ctrl.admin));
}

/* All kinds of commands. A host that lost its connection comes back. */
static void commands(void)
{
	for (int i = 0; i < 2; i++) {
		if (!attached && !attach())
			continue;
		ask();
		append(40 + i, 2); /* through new tables */
		append(42 + i, PIECE);
		flush();
		append(44 + i, 8);
		read_back(3);
		read_back(42 + i);
		manage(1 + i, NVME_ZNS_ZSA_RESET);
		append(1 + i, 4);
		manage(6 + i, NVME_ZNS_ZSA_FINISH);
		flush();
		append(45, 1);
	}
}

/* --- runs --- */

static void put_image(void)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, image, image_len), image_len);
	close(fd);
	memset(&acked, 0, sizeof(acked));
	for (uint32_t i = 0; i < NR_ZONES; i++) {
		acked.seed[i] = i;
		acked.wp[i] = acked.floor[i] = i < 38 ? PIECE : 0;
	}
	acked.wp[6] = acked.wp[7] = acked.floor[6] = acked.floor[7] = 8;
}

static void say(void *arg, const char *line)
{
	(void)arg;
	if (strncmp(line, "Leaked", 6))
		print_message("%s: check: %s\n", where, line);
}

static void verify_image(void)
{
	struct qcow2_open_opts o = { .flags = QCOW2_RDONLY };
	struct qcow2_check_result res = { 0 };
	char err[QCOW2_ERRLEN];
	struct qcow2 *q;

	if (qcow2_open(path, &o, &q, err))
		fail_msg("%s: %s", where, err);
	if (qcow2_check(q, &res, say, NULL) || res.corruptions || res.check_errors)
		fail_msg("%s: the image is corrupt", where);
	for (uint32_t i = 0; i < NR_ZONES; i++) {
		uint64_t wp = (qcow2_wp(q, i) - i * ZONE_LBAS * 512ull) / 512;
		uint8_t buf[PIECE * 512], want[PIECE * 512];

		if (acked.unsure[i])
			continue;
		if (wp < acked.floor[i] || wp > acked.wp[i])
			fail_msg("%s: zone %u is at %u", where, i, (unsigned int)wp);
		host_pattern(want, sizeof(want), i * ZONE_LBAS * 512, acked.seed[i]);
		assert_int_equal(qcow2_read(q, buf, i * ZONE_LBAS * 512ull, sizeof(buf), 0), 0);
		if (memcmp(buf, want, wp * 512))
			fail_msg("%s: zone %u holds something else", where, i);
	}
	qcow2_close(q);
}

/* Memory is back. */
static void verify_well(void)
{
	if (!attached && !attach())
		fail_msg("%s: no connection afterwards", where);
	for (uint32_t i = 0; i < NR_ZONES; i += 3)
		read_back(i);
	append(46, 9);
	read_back(46);
	flush();
	if (!attached || acked.floor[46] != 9)
		fail_msg("%s: it does not work afterwards", where);
}

static long one(long n, bool always)
{
	uint64_t began = clock_ms();
	bool started;
	long seen;
	int err;

	snprintf(where, sizeof(where), "allocation %ld%s", n, always ? " and all after it" : "");
	alarm(120);
	put_image();
	oom_arm(n, always);
	oom_exempt = false;
	started = server_start();
	oom_exempt = true;
	if (!started && (!oom_hits() || !up.err[0]))
		fail_msg("%s: does not start: %s", where, up.err);
	if (started)
		commands();
	seen = oom_seen();
	hits += (unsigned long)oom_hits();
	if (!always) {
		oom_arm(0, false);
		if (started)
			verify_well();
	}
	detach();
	oom_exempt = false;
	err = server_stop();
	oom_exempt = true;
	if (err && !always)
		fail_msg("%s: does not close: %d", where, err);
	if (!err)
		memcpy(acked.floor, acked.wp, sizeof(acked.floor));
	oom_arm(0, false);
	verify_image();
	runs++;
	if (getenv("FAULT_LOG"))
		print_message("%s: %llu ms\n", where, (unsigned long long)(clock_ms() - began));
	return seen;
}

static void every_allocation_fails(void **state)
{
	(void)state;
	for (int always = 0; always < 2; always++) {
		long n = 1, seen, before = 0;

		do {
			seen = one(n, always);
			before = n;
			n += stride;
		} while (before <= seen);
		if (!always)
			allocations = (unsigned long)seen;
		print_message("%s: %ld allocations\n", always ? "from then on" : "once", seen);
	}
	print_message("out of memory: %lu runs, %lu failed allocations\n", runs, hits);
}

/* Almost as much as one refcount table describes: the commands make it grow. */
static void make_image(void)
{
	struct qcow2_create_opts o = {
		.size = (uint64_t)NR_ZONES * ZONE_LBAS * 512,
		.cluster_size = 512,
		.refcount_bits = 64,
		.zoned = true,
		.zone = { .zone_size = ZONE_LBAS * 512, .zone_capacity = PIECE * 512 },
	};
	const struct qcow2_open_opts none = { 0 };
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];
	uint8_t buf[PIECE * 512];
	struct qcow2 *q;
	int fd;

	assert_int_equal(qcow2_create(path, &o, NULL, warn, err), 0);
	assert_int_equal(qcow2_open(path, &none, &q, err), 0);
	for (uint32_t i = 0; i < 38; i++) {
		uint64_t off = i * ZONE_LBAS * 512ull, len = i == 6 || i == 7 ? 4096 : sizeof(buf);

		host_pattern(buf, sizeof(buf), off, i);
		assert_int_equal(qcow2_write(q, buf, off, len, 0), 0);
		qcow2_wp_advance(q, i, off + len);
	}
	assert_int_equal(qcow2_close(q), 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	image_len = (size_t)lseek(fd, 0, SEEK_END);
	image = malloc(image_len);
	assert_int_equal(pread(fd, image, image_len, 0), image_len);
	close(fd);
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
	const struct CMUnitTest tests[] = { cmocka_unit_test(every_allocation_fails) };
	int failed;

	oom_exempt = true;
	if (!getenv("FAULT_NO_LIBEVENT"))
		oom_libevent();
	if (getenv("FAULT_STRIDE") && atoi(getenv("FAULT_STRIDE")) > 0)
		stride = (unsigned int)atoi(getenv("FAULT_STRIDE"));
	log_level(getenv("FAULT_LOG") ? LOG_DEBUG_ : LOG_ERR_ - 1);
	signal(SIGALRM, hung);
	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s/disk.qcow2", dir);
	make_image();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	tally("fault_oom allocations=%lu runs=%lu failed_allocations=%lu violations=%d",
	      allocations, runs, hits, failed);
	free(image);
	unlink(path);
	rmdir(dir);
	return failed;
}
