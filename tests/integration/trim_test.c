/* SPDX-License-Identifier: MIT */
/*
 * A drive that is reset, rewritten and restarted again and again ends within a second each time, loses
 * nothing and returns what it does not use. On a tmpfs (integration_trim_memory), where freed clusters
 * are kept until then, a trim that undid its own work once never ended.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>
#include "daemon.h"

#define ZONES  16
#define ROUNDS 8
#define MIB    (1u << 20)

static struct rig rig;
static uint64_t written[ZONES]; /* blocks, by zone */
static uint64_t seeds[ZONES];

static int setup(void **state)
{
	(void)state;
	rig_init(&rig);
	return rig_create(&rig, rig.img,
			  "size=512M,zone.size=32M,zone.mode=host-managed,zone.max_open_zones=16");
}

static int teardown(void **state)
{
	(void)state;
	rig_end(&rig);
	return 0;
}

/* Resets some zones and writes some that are empty, in full or in part. */
static void use_drive(struct host_queue *q, const struct rig_ns *ns, unsigned int round)
{
	for (unsigned int z = 0; z < ZONES; z++) {
		if (written[z] && rand() % 2) {
			assert_int_equal(host_zone(q, 1, z * ns->zsze, NVME_ZNS_ZSA_RESET, false),
					 0);
			written[z] = 0;
		}
		if (!written[z] && (!round || rand() % 2)) {
			written[z] = rand() % 3 ? ns->zsze : 1 + rand() % ns->zsze;
			seeds[z] = 1 + round * ZONES + z;
			rig_write(q, ns, z * ns->zsze, written[z], seeds[z]);
		}
	}
}

static void every_end_comes_within_a_second(void **state)
{
	(void)state;
	srand(4);
	for (unsigned int round = 0; round < ROUNDS; round++) {
		uint64_t in_use = 0;
		struct host_ctrl c;
		struct rig_ns ns;
		struct stat st;
		int took;

		assert_int_equal(rig_serve(&rig, rig.img), 0);
		rig_attach(&rig, &c, 1);
		rig_identify(&c, 1, &ns);
		for (unsigned int z = 0; z < ZONES; z++)
			rig_verify(&c.io[0], &ns, z * ns.zsze, written[z], seeds[z]);
		use_drive(&c.io[0], &ns, round);
		assert_int_equal(rig_stop(&rig, SIGTERM, 20000, &took), 0);
		host_detach(&c);
		if (took > 1000 * rig_slowness())
			fail_msg("round %u: it took %d ms to end", round, took);
		assert_int_equal(rig_check(&rig, rig.img), 0);
		for (unsigned int z = 0; z < ZONES; z++)
			in_use += written[z] * ns.lba;
		/* Each zone may have one allocated piece of 4 MiB beyond its data. */
		assert_int_equal(stat(rig.img, &st), 0);
		assert_in_range(st.st_blocks * 512ull, in_use, in_use + ZONES * 4 * MIB + MIB);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_end_comes_within_a_second, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
