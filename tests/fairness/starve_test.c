/* SPDX-License-Identifier: MIT */
/*
 * Hosts that would starve others: one that asks for buffers and never sends the data, connections that
 * are silent or slow, one that floods. The good host's p99 stays within twice what it is alone, and
 * what a bad host holds it does not hold for ever.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include "peers.h"

#define SILENT 24 /* fewer than tcp_config.max_pending */

static struct rig rig;
static struct good good;
static struct latency alone;

static int setup(void **state)
{
	(void)state;
	return peers_start(&rig, RIG_SEED, &good, &alone);
}

static int teardown(void **state)
{
	(void)state;
	peers_stop(&rig, &good);
	return 0;
}

static void data_that_never_comes_holds_up_nobody(void **state)
{
	static struct bad bad;

	(void)state;
	bad_attach(&bad, &rig);
	bad_submit(&bad, &good.ns, nvme_zns_cmd_append, 5 * good.ns.zsze);
	usleep(200000);
	good_expect(&good, &alone, "beside a starving one");
	bad_detach(&bad);
}

static int dial(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(atoi(rig.port)) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static void silent_connections_hold_up_nobody(void **state)
{
	int fd[SILENT];

	(void)state;
	for (int i = 0; i < SILENT; i++)
		fd[i] = dial();
	good_expect(&good, &alone, "beside silent ones");
	for (int i = 0; i < SILENT; i++)
		close(fd[i]);
}

static atomic_bool stop;

/* Sends an ICReq a byte at a time on many connections. */
static void *trickle(void *arg)
{
	static const uint8_t icreq[128] = { 0, 0, 128, 0, 128 };
	int *fd = arg;

	for (unsigned int at = 0; at < 100 && !atomic_load(&stop); at++) {
		for (int i = 0; i < SILENT; i++)
			if (send(fd[i], &icreq[at], 1, MSG_NOSIGNAL) != 1)
				break;
		usleep(100000);
	}
	return NULL;
}

static void slow_connections_hold_up_nobody(void **state)
{
	pthread_t thread;
	int fd[SILENT];

	(void)state;
	for (int i = 0; i < SILENT; i++)
		fd[i] = dial();
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&thread, NULL, trickle, fd), 0);
	good_expect(&good, &alone, "beside slow ones");
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	for (int i = 0; i < SILENT; i++)
		close(fd[i]);
}

/* Sends the data of an append, a byte at a time. */
static void *trickle_data(void *arg)
{
	struct bad *b = arg;

	while (!atomic_load(&stop) && !host_send_raw(&b->c.io[0], "", 1))
		usleep(100000);
	return NULL;
}

static void slow_data_holds_up_nobody(void **state)
{
	static struct bad bad;
	struct host_data_pdu r2t, h2c = {
		.ch = { .type = HOST_H2C_DATA,
			.flags = HOST_F_LAST,
			.hlen = 24,
			.pdo = 24,
			.plen = htole32(24 + MIB) },
		.len = htole32(MIB),
	};
	pthread_t thread;

	(void)state;
	bad_attach(&bad, &rig);
	bad_submit(&bad, &good.ns, nvme_zns_cmd_append, 5 * good.ns.zsze);
	assert_int_equal(host_recv_pdu(&bad.c.io[0]), 0);
	memcpy(&r2t, bad.c.io[0].head, sizeof(r2t));
	assert_int_equal(r2t.ch.type, HOST_R2T);
	h2c.cid = r2t.cid;
	h2c.ttag = r2t.ttag;
	assert_int_equal(host_send_raw(&bad.c.io[0], &h2c, sizeof(h2c)), 0);
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&thread, NULL, trickle_data, &bad), 0);
	good_expect(&good, &alone, "beside slow data");
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	bad_detach(&bad);
}

struct flood {
	pthread_t thread;
	struct host_queue *queue;
	struct host_io *io;
	uint64_t reads;
	uint8_t data[4096];
};

/* Reads 4 KiB at depth 32 and as fast as it can. */
static void *flood(void *arg)
{
	struct flood *f = arg;

	peers_rank(RANK_BAD);
	for (int i = 0; i < 32; i++) {
		host_set_rw(&f->io[i], nvme_cmd_read, 1, good.ns.zsze, 4096 / good.ns.lba, f->data,
			    4096);
		if (host_submit(f->queue, &f->io[i]))
			return NULL;
	}
	while (!atomic_load(&stop)) {
		struct host_io *io;

		if (host_reap(f->queue, &io) || host_submit(f->queue, io))
			return NULL;
		f->reads++;
	}
	return NULL;
}

static void a_flood_of_reads_holds_up_nobody_for_long(void **state)
{
	static struct flood f[BAD_QUEUES];
	static struct bad bad;
	uint64_t reads = 0, began;

	(void)state;
	bad_attach(&bad, &rig);
	atomic_store(&stop, false);
	began = peers_us();
	for (int q = 0; q < BAD_QUEUES; q++) {
		f[q].queue = &bad.c.io[q];
		f[q].io = bad.io[q];
		assert_int_equal(pthread_create(&f[q].thread, NULL, flood, &f[q]), 0);
	}
	good_expect(&good, &alone, "beside a flooding one");
	atomic_store(&stop, true);
	for (int q = 0; q < BAD_QUEUES; q++) {
		pthread_join(f[q].thread, NULL);
		reads += f[q].reads;
	}
	printf("the flood was of %llu reads a second\n",
	       (unsigned long long)(reads * 1000000 / (peers_us() - began)));
	assert_true(reads > 1000);
	bad_detach(&bad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(data_that_never_comes_holds_up_nobody),
		cmocka_unit_test(silent_connections_hold_up_nobody),
		cmocka_unit_test(slow_connections_hold_up_nobody),
		cmocka_unit_test(slow_data_holds_up_nobody),
		cmocka_unit_test(a_flood_of_reads_holds_up_nobody_for_long),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
