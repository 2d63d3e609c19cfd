/* SPDX-License-Identifier: MIT */
/*
 * What a peer can hold besides buffers: connections, zones, open resources, flushes, unread responses.
 * None of it keeps another host from its work, or a status tells that host at once what it may do.
 */
#include <sys/resource.h>
#include "peers.h"

#define MAX_CONNS 600 /* more than a host may have */

static struct rig rig;
static struct good good;
static struct latency alone;

static int setup(void **state)
{
	(void)state;
	return peers_start(&rig, RIG_SEED ",zone.max_append_bytes=32M", &good, &alone);
}

static int teardown(void **state)
{
	(void)state;
	peers_stop(&rig, &good);
	return 0;
}

static int connect_admin(struct host_queue *q)
{
	struct host_connect con;
	int err = host_open(q, "127.0.0.1", rig.port, NULL);

	if (err)
		return err;
	host_connect_init(&con, 0, 31, RIG_NQN, BAD_NQN, 0xffff);
	err = host_connect(q, &con, NULL);
	if (err)
		host_close(q);
	return err;
}

static void one_host_does_not_get_all_connections(void **state)
{
	static struct host_queue admin[MAX_CONNS];
	struct host_ctrl another;
	int n, err = 0;

	(void)state;
	for (n = 0; n < MAX_CONNS && !(err = connect_admin(&admin[n])); n++)
		;
	assert_int_equal(err, NVME_SCT_SPECIFIC | NVME_SC_CONNECT_CTRL_BUSY);
	assert_int_equal(n, 512);
	assert_int_equal(
		host_attach(&another, "127.0.0.1", rig.port, RIG_NQN, GOOD_NQN, NULL, 4, 0), 0);
	host_detach(&another);
	good_expect(&good, &alone, "beside 512 controllers");
	while (n)
		host_close(&admin[--n]);
}

static void writes_without_data_hold_no_zone(void **state)
{
	static struct bad bad;
	uint64_t zone = 5 * good.ns.zsze;
	uint64_t start;

	(void)state;
	bad_attach(&bad, &rig);
	rig_write(&bad.c.io[0], &good.ns, zone, 8, 1);
	bad_submit(&bad, &good.ns, nvme_zns_cmd_append, zone);
	usleep(200000);
	start = now_ms();
	assert_int_equal(host_zone(&good.c.io[0], 1, zone, NVME_ZNS_ZSA_RESET, false), 0);
	rig_write(&good.c.io[0], &good.ns, zone, 8, 2);
	assert_int_equal(host_zone(&good.c.io[0], 1, zone, NVME_ZNS_ZSA_RESET, false), 0);
	assert_in_range(now_ms() - start, 0, 1000 * rig_slowness());
	bad_detach(&bad);
}

/* Zones that are open by writes alone give way; for those that were opened there is a status, and a way. */
static void open_zones_are_a_matter_of_moments(void **state)
{
	static struct bad bad;
	uint8_t block[4096] = { 0 };
	uint32_t blocks = sizeof(block) / good.ns.lba;
	uint64_t z = good.ns.zsze;
	struct host_queue *q = &good.c.io[0];

	(void)state;
	assert_int_equal(host_zone(q, 1, 0, NVME_ZNS_ZSA_RESET, true), 0);
	good.used = 0;
	bad_attach(&bad, &rig);
	for (uint64_t i = 2; i < 2 + good.ns.open; i++)
		rig_write(&bad.c.io[0], &good.ns, i * z, blocks, 1);
	assert_int_equal(host_write(q, 1, 9 * z, blocks, block, sizeof(block)), 0);

	assert_int_equal(host_zone(q, 1, 0, NVME_ZNS_ZSA_RESET, true), 0);
	for (uint64_t i = 2; i < 2 + good.ns.open; i++)
		assert_int_equal(host_zone(&bad.c.io[0], 1, i * z, NVME_ZNS_ZSA_OPEN, false), 0);
	assert_int_equal(host_write(q, 1, 9 * z, blocks, block, sizeof(block)),
			 ZSTATUS(TOO_MANY_OPENS));
	assert_int_equal(host_zone(q, 1, 2 * z, NVME_ZNS_ZSA_CLOSE, false), 0);
	assert_int_equal(host_write(q, 1, 9 * z, blocks, block, sizeof(block)), 0);
	bad_detach(&bad);
	assert_int_equal(host_zone(q, 1, 0, NVME_ZNS_ZSA_RESET, true), 0);
	assert_int_equal(host_append(q, 1, z, blocks, good.data, sizeof(block), NULL), 0);
}

static atomic_bool stop;

/* Flushes at full depth, and resets a zone again and again. */
static void *flush_and_reset(void *arg)
{
	struct bad *b = arg;
	struct host_io *io;

	for (int i = 0; i < BAD_DEPTH; i++) {
		b->io[0][i].sqe = (struct nvme_sqe){ .opcode = 0, .nsid = htole32(1) };
		if (host_submit(&b->c.io[0], &b->io[0][i]))
			return NULL;
	}
	while (!atomic_load(&stop)) {
		if (host_write(&b->c.io[1], 1, 7 * good.ns.zsze, 8, b->data, 8 * good.ns.lba) ||
		    host_zone(&b->c.io[1], 1, 7 * good.ns.zsze, NVME_ZNS_ZSA_RESET, false))
			return NULL;
		if (host_reap(&b->c.io[0], &io) || host_submit(&b->c.io[0], io))
			return NULL;
	}
	return NULL;
}

static void flushes_and_resets_end(void **state)
{
	static struct bad bad;
	pthread_t thread;
	uint64_t start;

	(void)state;
	bad_attach(&bad, &rig);
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&thread, NULL, flush_and_reset, &bad), 0);
	for (int i = 0; i < 10; i++) {
		start = now_ms();
		good_append(&good, 4096);
		assert_int_equal(host_flush(&good.c.io[0], 1), 0);
		assert_int_equal(
			host_zone(&good.c.io[0], 1, 8 * good.ns.zsze, NVME_ZNS_ZSA_RESET, false),
			0);
		assert_in_range(now_ms() - start, 0, 2000 * rig_slowness());
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	bad_detach(&bad);
}

/* Reads fill the sockets; the responses of small writes stand behind them, and hold nothing. */
static void responses_that_are_not_taken_hold_up_nobody(void **state)
{
	static struct bad bad;

	(void)state;
	bad_attach(&bad, &rig);
	for (int q = 0; q < BAD_QUEUES; q++) {
		for (int i = 0; i < BAD_DEPTH; i++) {
			struct host_io *io = &bad.io[q][i];

			if (i < 64)
				host_set_rw(io, nvme_cmd_read, 1, good.ns.zsze, MIB / good.ns.lba,
					    bad.data, MIB);
			else
				host_set_rw(io, nvme_zns_cmd_append, 1, 6 * good.ns.zsze,
					    8192 / good.ns.lba, bad.data, 8192);
			io->dir = i < 64 ? HOST_READ : HOST_WRITE;
			assert_int_equal(host_submit(&bad.c.io[q], io), 0);
		}
	}
	usleep(200000);
	good_expect(&good, &alone, "beside one that takes nothing");
	bad_detach(&bad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_host_does_not_get_all_connections),
		cmocka_unit_test(writes_without_data_hold_no_zone),
		cmocka_unit_test(open_zones_are_a_matter_of_moments),
		cmocka_unit_test(flushes_and_resets_end),
		cmocka_unit_test(responses_that_are_not_taken_hold_up_nobody),
	};
	struct rlimit files;

	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
