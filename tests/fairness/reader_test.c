/* SPDX-License-Identifier: MIT */
/*
 * A host that reads a zone and takes nothing of what is sent to it, or a byte now and then, while another
 * host resets the zone: the reset waits for no peer, and what the reader gets in the end is the data
 * of before the reset, or of after it, never another's.
 */
#include <errno.h>
#include "peers.h"

#define QUEUES 2
#define READS  120 /* of 1 MiB, a queue */
#define ZONE   3

static struct rig rig;
static struct good good;

static struct reader {
	struct host_ctrl c;
	struct host_io io[QUEUES][READS];
	uint8_t *data[QUEUES][READS];
} reader;

static int setup(void **state)
{
	const char *const args[] = { "--threads", "2", rig.img, NULL };

	(void)state;
	rig_init(&rig);
	if (rig_create(&rig, rig.img, RIG_SEED) || rig_start(&rig, args, NULL))
		return -1;
	good_attach(&good, &rig);
	rig_write(&good.c.io[0], &good.ns, ZONE * good.ns.zsze, good.ns.zsze, 1);
	memset(&reader, 0, sizeof(reader));
	assert_int_equal(
		host_attach(&reader.c, "127.0.0.1", rig.port, RIG_NQN, BAD_NQN, NULL, QUEUES, 0),
		0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	host_detach(&reader.c);
	for (int q = 0; q < QUEUES; q++)
		for (int i = 0; i < READS; i++)
			free(reader.data[q][i]);
	good_detach(&good);
	rig_end(&rig);
	return 0;
}

/* Reads all MiB of the zone, several times; nothing is taken yet. */
static void ask(void)
{
	const struct rig_ns *ns = &good.ns;
	uint32_t blocks = MIB / ns->lba;

	for (int q = 0; q < QUEUES; q++) {
		for (int i = 0; i < READS; i++) {
			uint64_t lba = ZONE * ns->zsze + (uint64_t)i * blocks % ns->zsze;

			reader.data[q][i] = malloc(MIB);
			assert_non_null(reader.data[q][i]);
			host_set_rw(&reader.io[q][i], nvme_cmd_read, 1, lba, blocks,
				    reader.data[q][i], MIB);
			assert_int_equal(host_submit(&reader.c.io[q], &reader.io[q][i]), 0);
		}
	}
	usleep(300000); /* the sockets are full */
}

/* The zone is reset and written anew; how long the reset took, in ms. */
static uint64_t reset_and_rewrite(void)
{
	struct host_queue *q = &good.c.io[0];
	uint64_t start = peers_us(), took;

	assert_int_equal(host_zone(q, 1, ZONE * good.ns.zsze, NVME_ZNS_ZSA_RESET, false), 0);
	took = (peers_us() - start) / 1000;
	assert_int_equal(host_flush(q, 1), 0);			   /* the clusters are free now, */
	rig_write(q, &good.ns, 4 * good.ns.zsze, good.ns.zsze, 3); /* and another zone has them */
	rig_write(q, &good.ns, ZONE * good.ns.zsze, good.ns.zsze, 2);
	printf("the reset took %llu ms\n", (unsigned long long)took);
	return took;
}

/* Takes all that was asked for: how many reads have the data of before the reset. */
static unsigned int take_all(void)
{
	uint8_t *old = malloc(MIB), *new = malloc(MIB), *zeroes = calloc(1, MIB);
	unsigned int nr_old = 0;

	for (int q = 0; q < QUEUES; q++) {
		for (int i = 0; i < READS; i++) {
			struct host_io *io;
			uint64_t off;

			assert_int_equal(host_reap(&reader.c.io[q], &io), 0);
			assert_int_equal(io->status, 0);
			off = ((uint64_t)le32toh(io->sqe.cdw11) << 32 | le32toh(io->sqe.cdw10)) *
			      good.ns.lba;
			host_pattern(old, MIB, off, 1);
			host_pattern(new, MIB, off, 2);
			if (!memcmp(io->buf, old, MIB)) {
				nr_old++;
				continue;
			}
			for (uint32_t at = 0; at < MIB; at += 4096) {
				const uint8_t *got = (uint8_t *)io->buf + at;

				if (memcmp(got, new + at, 4096) && memcmp(got, zeroes, 4096))
					fail_msg("read at %#llx: neither old nor new at %#x",
						 (unsigned long long)off, at);
			}
		}
	}
	free(old);
	free(new);
	free(zeroes);
	return nr_old;
}

static void a_reset_does_not_wait_for_who_takes_nothing(void **state)
{
	unsigned int nr_old;

	(void)state;
	ask();
	assert_true(reset_and_rewrite() < 1000 * (uint64_t)rig_slowness());
	nr_old = take_all();
	printf("%u reads of %u have what was there before the reset\n", nr_old, QUEUES * READS);
	assert_true(nr_old > 8);
}

static atomic_bool stop;

/* Takes a byte now and then. */
static void *sip(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		uint8_t byte;

		for (int q = 0; q < QUEUES; q++)
			if (host_recv_raw(&reader.c.io[q], &byte, 1))
				return NULL;
		usleep(50000);
	}
	return NULL;
}

static void nor_for_who_takes_a_byte_now_and_then(void **state)
{
	pthread_t thread;
	uint64_t took;

	(void)state;
	ask();
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&thread, NULL, sip, NULL), 0);
	usleep(200000);
	took = reset_and_rewrite();
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	assert_true(took < 1000 * (uint64_t)rig_slowness());
}

/* Half of a zone is read, and nothing taken, while ZSA is done to it, or to all zones. */
static void beside_reads_of_half_a_zone(enum nvme_zns_send_action zsa, bool all)
{
	uint64_t start, took;

	assert_int_equal(
		host_zone(&good.c.io[0], 1, ZONE * good.ns.zsze, NVME_ZNS_ZSA_RESET, false), 0);
	rig_write(&good.c.io[0], &good.ns, ZONE * good.ns.zsze, good.ns.zsze / 2, 1);
	ask();
	start = peers_us();
	assert_int_equal(host_zone(&good.c.io[0], 1, all ? 0 : ZONE * good.ns.zsze, zsa, all), 0);
	took = (peers_us() - start) / 1000;
	printf("it took %llu ms\n", (unsigned long long)took);
	assert_true(took < 1000 * (uint64_t)rig_slowness());
}

static void nor_does_a_finish(void **state)
{
	(void)state;
	beside_reads_of_half_a_zone(NVME_ZNS_ZSA_FINISH, false);
}

static void nor_does_a_reset_of_all(void **state)
{
	(void)state;
	beside_reads_of_half_a_zone(NVME_ZNS_ZSA_RESET, true);
}

static void nor_does_the_end(void **state)
{
	int took;

	(void)state;
	ask();
	assert_int_equal(rig_stop(&rig, SIGTERM, 60000, &took), 0);
	printf("the end took %d ms\n", took);
	assert_true(took < 4000 * rig_slowness());
	assert_int_equal(rig_check(&rig, rig.img), 0);
}

#define t(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		t(a_reset_does_not_wait_for_who_takes_nothing),
		t(nor_for_who_takes_a_byte_now_and_then),
		t(nor_does_a_finish),
		t(nor_does_a_reset_of_all),
		t(nor_does_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
