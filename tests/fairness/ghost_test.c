// SPDX-License-Identifier: MIT
/*
 * Ghosts: commands that a host sent while the daemon did not run, and whose keep alive time is over when
 * the daemon runs again. The host was entitled to think them dead, so none of them may take effect.
 * The daemon is stopped by SIGSTOP. Another host, without a keep alive timer, looks at the zones.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon.h"

#define HOST_GHOST  "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-00000000000"
#define KATO_MS	    2000
#define GIVE_UP_MS  7000
#define QUEUES	    4
#define APPENDS	    50
#define APPEND	    4096u
#define BLOCKS	    (APPEND / 512)
#define LARGE	    65536u /* comes after an R2T */
#define FILLED	    64	   /* blocks that the zone of the reset has */
#define ZONE_CLOSES 0	   /* the zone of each ghost */
#define ZONE_STAYS  1
#define ZONE_LATE   2
#define ZONE_RESETS 3
#define ZONE_LIVES  4

static struct rig rig;
static struct host_ctrl good;
static struct rig_ns ns;
static uint8_t data[LARGE];

/* A host with its commands. */
struct ghost {
	struct host_ctrl ctrl;
	struct host_io io[APPENDS];
};

static void start(const char *threads)
{
	const char *const args[] = { "--threads", threads, rig.img, NULL };

	rig_init(&rig);
	assert_int_equal(rig_create(&rig, rig.img, RIG_SEED), 0);
	assert_int_equal(rig_start(&rig, args, NULL), 0);
	rig_attach(&rig, &good, 1);
	rig_identify(&good, 1, &ns);
	host_pattern(data, sizeof(data), 0, 1);
}

static void end(void)
{
	host_detach(&good);
	assert_int_equal(rig_stop(&rig, SIGTERM, 10000 * rig_slowness(), NULL), 0);
	assert_int_equal(rig_check(&rig, rig.img), 0);
	rig_end(&rig);
}

static void attach(struct ghost *g, char number, uint32_t kato)
{
	char hostnqn[224];

	memset(g, 0, sizeof(*g));
	snprintf(hostnqn, sizeof(hostnqn), "%s%c", HOST_GHOST, number);
	assert_int_equal(
		host_attach(&g->ctrl, "127.0.0.1", rig.port, RIG_NQN, hostnqn, NULL, QUEUES, kato),
		0);
}

static struct host_queue *queue_of(struct ghost *g, int i)
{
	return &g->ctrl.io[i % QUEUES];
}

static void submit_append(struct ghost *g, int i, uint64_t zone, uint32_t len)
{
	host_set_rw(&g->io[i], nvme_zns_cmd_append, 1, zone * ns.zsze, len / ns.lba, data, len);
	g->io[i].dir = HOST_WRITE;
	assert_int_equal(host_submit(queue_of(g, i), &g->io[i]), 0);
}

static void submit_appends(struct ghost *g, uint64_t zone)
{
	for (int i = 0; i < APPENDS; i++)
		submit_append(g, i, zone, APPEND);
}

/* The R2T of the one append on each queue is there; the data is not sent yet. */
static void take_r2ts(struct ghost *g, struct host_data_pdu r2t[QUEUES])
{
	for (int i = 0; i < QUEUES; i++) {
		submit_append(g, i, ZONE_LATE, LARGE);
		assert_int_equal(host_recv_pdu(queue_of(g, i)), 0);
		memcpy(&r2t[i], queue_of(g, i)->head, sizeof(r2t[i]));
		assert_int_equal(r2t[i].ch.type, HOST_R2T);
		assert_int_equal(le32toh(r2t[i].len), LARGE);
	}
}

static void send_late_data(struct ghost *g, const struct host_data_pdu r2t[QUEUES])
{
	for (int i = 0; i < QUEUES; i++) {
		struct host_data_pdu h2c = { .ch = { .type = HOST_H2C_DATA, .flags = HOST_F_LAST },
					     .cid = r2t[i].cid,
					     .ttag = r2t[i].ttag,
					     .len = htole32(LARGE) };

		assert_int_equal(
			host_send_pdu(queue_of(g, i), &h2c, sizeof(h2c), data, LARGE, false), 0);
	}
}

static void submit_reset(struct ghost *g)
{
	g->io[0].sqe = (struct nvme_sqe){ .opcode = nvme_zns_cmd_mgmt_send,
					  .nsid = htole32(1),
					  .cdw10 = htole32((uint32_t)(ZONE_RESETS * ns.zsze)),
					  .cdw13 = htole32(NVME_ZNS_ZSA_RESET) };
	assert_int_equal(host_submit(queue_of(g, 0), &g->io[0]), 0);
}

/* Until all of its threads have stopped. */
static void stop_daemon(void)
{
	int status;

	assert_int_equal(kill(rig.pid, SIGSTOP), 0);
	assert_int_equal(waitpid(rig.pid, &status, WUNTRACED), rig.pid);
	assert_true(WIFSTOPPED(status));
}

/* No command of G succeeds, and the daemon closes all its connections. */
static void expect_dead(struct ghost *g)
{
	struct host_io *done;
	int err;

	for (int i = 0; i < QUEUES; i++) {
		while (!(err = host_reap(&g->ctrl.io[i], &done)))
			assert_int_not_equal(done->status, 0);
		assert_int_equal(err, -ENOTCONN);
	}
	assert_int_equal(host_wait_close(&g->ctrl.admin), 0);
}

static void no_command_of_a_dead_host_takes_effect(const char *threads)
{
	static struct ghost closes, stays, late, resets;
	struct host_data_pdu r2t[QUEUES];

	start(threads);
	rig_write(&good.io[0], &ns, ZONE_RESETS * ns.zsze, FILLED, 7);
	attach(&closes, '1', KATO_MS);
	attach(&stays, '2', KATO_MS);
	attach(&late, '3', KATO_MS);
	attach(&resets, '4', KATO_MS);
	take_r2ts(&late, r2t);

	stop_daemon();
	submit_appends(&closes, ZONE_CLOSES);
	submit_appends(&stays, ZONE_STAYS);
	send_late_data(&late, r2t);
	submit_reset(&resets);
	usleep(GIVE_UP_MS * 1000);
	host_detach(&closes.ctrl);
	assert_int_equal(kill(rig.pid, SIGCONT), 0);

	expect_dead(&stays);
	expect_dead(&late);
	expect_dead(&resets);
	attach(&closes, '1', 0); /* goes on when nothing of its old queues is in flight */
	assert_zone(&good.io[0], &ns, ZONE_CLOSES, NVME_ZNS_ZS_EMPTY, 0);
	assert_zone(&good.io[0], &ns, ZONE_STAYS, NVME_ZNS_ZS_EMPTY, 0);
	assert_zone(&good.io[0], &ns, ZONE_LATE, NVME_ZNS_ZS_EMPTY, 0);
	rig_verify(&good.io[0], &ns, ZONE_RESETS * ns.zsze, FILLED, 7);
	assert_zone(&good.io[0], &ns, ZONE_RESETS, NVME_ZNS_ZS_IMPL_OPEN, FILLED);
	host_detach(&closes.ctrl);
	host_detach(&stays.ctrl);
	host_detach(&late.ctrl);
	host_detach(&resets.ctrl);
	end();
}

/* Paused for less than the keep alive time: the host is alive, and loses nothing. */
static void a_live_host_loses_nothing(const char *threads)
{
	static struct ghost live;
	struct host_io *done;

	start(threads);
	attach(&live, '5', 2 * KATO_MS);
	stop_daemon();
	submit_appends(&live, ZONE_LIVES);
	usleep(KATO_MS * 1000);
	assert_int_equal(kill(rig.pid, SIGCONT), 0);
	for (int i = 0; i < APPENDS; i++) {
		assert_int_equal(host_reap(queue_of(&live, i), &done), 0);
		assert_int_equal(done->status, 0);
	}
	assert_zone(&good.io[0], &ns, ZONE_LIVES, NVME_ZNS_ZS_IMPL_OPEN, APPENDS * BLOCKS);
	host_detach(&live.ctrl);
	end();
}

static void dead_with_one_loop(void **state)
{
	(void)state;
	no_command_of_a_dead_host_takes_effect("1");
}

static void dead_with_four_loops(void **state)
{
	(void)state;
	no_command_of_a_dead_host_takes_effect("4");
}

static void alive_with_one_loop(void **state)
{
	(void)state;
	a_live_host_loses_nothing("1");
}

static void alive_with_four_loops(void **state)
{
	(void)state;
	a_live_host_loses_nothing("4");
}

static int kill_daemon(void **state)
{
	(void)state;
	if (rig.pid)
		kill(rig.pid, SIGCONT);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(dead_with_one_loop, kill_daemon),
		cmocka_unit_test_teardown(dead_with_four_loops, kill_daemon),
		cmocka_unit_test_teardown(alive_with_one_loop, kill_daemon),
		cmocka_unit_test_teardown(alive_with_four_loops, kill_daemon),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
