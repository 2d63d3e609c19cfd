/* SPDX-License-Identifier: MIT */
/*
 * Two hosts read and take nothing; their zone is reset; then each connection sends a write in its
 * capsule. The reads are a little longer than 512 KiB, so each copy takes a buffer of 1 MiB. A third
 * host must still get memory at once.
 */
#include <errno.h>
#include "peers.h"

#define NQN2   "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-00000000bad2"
#define HOSTS  2
#define QUEUES 24
#define READS  20
#define ZONE   3

static struct rig rig;
static struct good good;
static struct host_ctrl bad[HOSTS];
static struct host_io io[HOSTS][QUEUES][READS], wr[HOSTS][QUEUES];
static uint8_t trash[MIB];

static void copies_leave_memory_for_others(void **state)
{
	const char *const args[] = { "--threads", "1", rig.img, NULL };
	const char *const nqn[HOSTS] = { BAD_NQN, NQN2 };
	uint32_t len = MIB / 2 + 4096;
	uint64_t start, took;

	(void)state;
	rig_init(&rig);
	assert_int_equal(rig_create(&rig, rig.img, RIG_SEED), 0);
	assert_int_equal(rig_start(&rig, args, NULL), 0);
	good_attach(&good, &rig);
	rig_write(&good.c.io[0], &good.ns, ZONE * good.ns.zsze, good.ns.zsze, 1);
	for (int h = 0; h < HOSTS; h++)
		assert_int_equal(host_attach(&bad[h], "127.0.0.1", rig.port, RIG_NQN, nqn[h], NULL,
					     QUEUES, 0),
				 0);
	for (int h = 0; h < HOSTS; h++)
		for (int q = 0; q < QUEUES; q++)
			for (int i = 0; i < READS; i++) {
				host_set_rw(&io[h][q][i], nvme_cmd_read, 1,
					    ZONE * good.ns.zsze + i * MIB / good.ns.lba,
					    len / good.ns.lba, trash, len);
				assert_int_equal(host_submit(&bad[h].io[q], &io[h][q][i]), 0);
				usleep(2000);
			}
	start = peers_us();
	assert_int_equal(
		host_zone(&good.c.io[0], 1, ZONE * good.ns.zsze, NVME_ZNS_ZSA_RESET, false), 0);
	printf("the reset took %llu ms\n", (unsigned long long)(peers_us() - start) / 1000);
	for (int h = 0; h < HOSTS; h++)
		for (int q = 0; q < QUEUES; q++) {
			host_set_rw(&wr[h][q], nvme_zns_cmd_append, 1, 5 * good.ns.zsze,
				    4096 / good.ns.lba, trash, 4096);
			assert_int_equal(host_submit(&bad[h].io[q], &wr[h][q]), 0);
		}
	usleep(100000);
	start = peers_us();
	assert_int_equal(
		host_append(&good.c.io[0], 1, 0, 4096 / good.ns.lba, good.data, 4096, NULL), 0);
	assert_int_equal(host_append(&good.c.io[0], 1, 0, MIB / good.ns.lba, good.data, MIB, NULL),
			 0);
	took = (peers_us() - start) / 1000;
	printf("the appends took %llu ms\n", (unsigned long long)took);
	for (int h = 0; h < HOSTS; h++)
		host_detach(&bad[h]);
	good_detach(&good);
	rig_end(&rig);
	assert_true(took < 1000 * (uint64_t)rig_slowness());
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(copies_leave_memory_for_others) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
