// SPDX-License-Identifier: MIT
/*
 * What a restart keeps: every write pointer, every state (open ones come back Closed), all data,
 * and the names by which a host knows the namespace. After TERM, and after kill -9 once the drive
 * has been idle for long enough to have written everything back. With an argument: in that --cache mode.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon.h"

static struct rig rig;
static const char *cache = "writeback";
static char served[128]; /* the image and its options */
static struct host_ctrl ctrl;
static struct host_queue *q;
static struct rig_ns ns;

static void attach(void)
{
	rig_attach(&rig, &ctrl, 1);
	q = &ctrl.io[0];
	rig_identify(&ctrl, 1, &ns);
}

static int setup(void **state)
{
	(void)state;
	rig_init(&rig);
	snprintf(served, sizeof(served), "%s,cache=%s", rig.img, cache);
	assert_int_equal(rig_create(&rig, rig.img, RIG_SEED), 0);
	assert_int_equal(rig_serve(&rig, served), 0);
	attach();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	host_detach(&ctrl);
	rig_end(&rig);
	return 0;
}

/* One zone in each state there is, with data. */
static void dirty_all_states(void)
{
	rig_write(q, &ns, 0 * ns.zsze, 1000, 1); /* implicitly open */
	assert_int_equal(host_zone(q, 1, 1 * ns.zsze, NVME_ZNS_ZSA_OPEN, false), 0);
	rig_write(q, &ns, 1 * ns.zsze, 2001, 1); /* explicitly open */
	rig_write(q, &ns, 2 * ns.zsze, 3, 1);
	assert_int_equal(host_zone(q, 1, 2 * ns.zsze, NVME_ZNS_ZSA_CLOSE, false), 0);
	rig_write(q, &ns, 3 * ns.zsze, 500, 1);
	assert_int_equal(host_zone(q, 1, 3 * ns.zsze, NVME_ZNS_ZSA_FINISH, false), 0);
	rig_write(q, &ns, 4 * ns.zsze, ns.zsze, 1); /* full by writing */
	rig_write(q, &ns, 5 * ns.zsze, 700, 9);
	assert_int_equal(host_zone(q, 1, 5 * ns.zsze, NVME_ZNS_ZSA_RESET, false), 0);
	rig_write(q, &ns, 5 * ns.zsze, 70, 1); /* reset and written again */
	rig_write(q, &ns, 6 * ns.zsze, 700, 9);
	assert_int_equal(host_zone(q, 1, 6 * ns.zsze, NVME_ZNS_ZSA_RESET, false), 0);
	assert_int_equal(host_zone(q, 1, 7 * ns.zsze, NVME_ZNS_ZSA_OPEN, false), 0);
	assert_int_equal(host_zone(q, 1, 8 * ns.zsze, NVME_ZNS_ZSA_FINISH, false), 0);
}

static void assert_all_states_kept(void)
{
	assert_zone(q, &ns, 0, NVME_ZNS_ZS_CLOSED, 1000);
	assert_zone(q, &ns, 1, NVME_ZNS_ZS_CLOSED, 2001);
	assert_zone(q, &ns, 2, NVME_ZNS_ZS_CLOSED, 3);
	assert_zone(q, &ns, 3, NVME_ZNS_ZS_FULL, 0);
	assert_zone(q, &ns, 4, NVME_ZNS_ZS_FULL, 0);
	assert_zone(q, &ns, 5, NVME_ZNS_ZS_CLOSED, 70);
	assert_zone(q, &ns, 6, NVME_ZNS_ZS_EMPTY, 0);
	assert_zone(q, &ns, 7, NVME_ZNS_ZS_EMPTY, 0);
	assert_zone(q, &ns, 8, NVME_ZNS_ZS_FULL, 0);
	assert_zone(q, &ns, 9, NVME_ZNS_ZS_EMPTY, 0);
	rig_verify(q, &ns, 0, 1000, 1);
	rig_verify(q, &ns, 1 * ns.zsze, 2001, 1);
	rig_verify(q, &ns, 2 * ns.zsze, 3, 1);
	rig_verify(q, &ns, 3 * ns.zsze, 500, 1);
	rig_verify_zeroes(q, &ns, 3 * ns.zsze + 500, 1000);
	rig_verify(q, &ns, 4 * ns.zsze, ns.zsze, 1);
	rig_verify(q, &ns, 5 * ns.zsze, 70, 1);
	rig_verify_zeroes(q, &ns, 5 * ns.zsze + 70, 1000);
	rig_verify_zeroes(q, &ns, 6 * ns.zsze, 1000);
	rig_verify_zeroes(q, &ns, 8 * ns.zsze, 1000);
}

static void a_restart_keeps_everything(void **state)
{
	(void)state;
	dirty_all_states();
	host_detach(&ctrl);
	assert_int_equal(rig_stop(&rig, SIGTERM, 10000 * rig_slowness(), NULL), 0);
	assert_int_equal(rig_check(&rig, rig.img), 0);
	assert_int_equal(rig_serve(&rig, served), 0);
	attach();
	assert_all_states_kept();
}

static void a_restart_with_the_host_still_there_keeps_everything(void **state)
{
	(void)state;
	dirty_all_states();
	assert_int_equal(rig_stop(&rig, SIGTERM, 10000 * rig_slowness(), NULL), 0);
	host_detach(&ctrl);
	assert_int_equal(rig_check(&rig, rig.img), 0);
	assert_int_equal(rig_serve(&rig, served), 0);
	attach();
	assert_all_states_kept();
}

static void a_kill_while_idle_keeps_everything(void **state)
{
	int round;

	(void)state;
	dirty_all_states();
	for (round = 0; round < 2; round++) {
		usleep(2500000u * (rig_slowness() > 1 ? 2 : 1));
		assert_int_equal(rig_stop(&rig, SIGKILL, 10000, NULL), -1);
		host_detach(&ctrl);
		assert_int_equal(rig_check(&rig, rig.img), 0);
		assert_int_equal(rig_serve(&rig, served), 0);
		attach();
		assert_all_states_kept();
	}
}

static void writing_goes_on_after_a_restart(void **state)
{
	uint64_t lba = 0;
	int i;

	(void)state;
	for (i = 0; i < 4; i++) {
		rig_write(q, &ns, lba, 333, 4);
		lba += 333;
		host_detach(&ctrl);
		rig_restart(&rig, served);
		attach();
		assert_zone(q, &ns, 0, NVME_ZNS_ZS_CLOSED, lba);
		rig_verify(q, &ns, 0, lba, 4);
	}
}

static void limits_hold_at_once_after_a_restart(void **state)
{
	uint8_t block[512] = { 0 };
	uint64_t z;

	(void)state;
	for (z = 0; z < ns.active; z++)
		assert_int_equal(host_write(q, 1, z * ns.zsze, 1, block, 512), 0);
	host_detach(&ctrl);
	rig_restart(&rig, served);
	attach();
	assert_int_equal(host_write(q, 1, z * ns.zsze, 1, block, 512), ZSTATUS(TOO_MANY_ACTIVE));
	assert_int_equal(host_write(q, 1, 1, 1, block, 512), 0);
}

static void the_namespace_keeps_its_names(void **state)
{
	uint8_t before[4096], after[4096];

	(void)state;
	assert_int_equal(host_identify(&ctrl.admin, NVME_IDENTIFY_CNS_NS_DESC_LIST, 1, 0, before),
			 0);
	host_detach(&ctrl);
	rig_restart(&rig, served);
	attach();
	assert_int_equal(host_identify(&ctrl.admin, NVME_IDENTIFY_CNS_NS_DESC_LIST, 1, 0, after),
			 0);
	assert_memory_equal(before, after, sizeof(before));
}

static void a_read_only_namespace_takes_no_writes(void **state)
{
	char image[140];
	uint8_t block[512] = { 0 };
	uint32_t crc;

	(void)state;
	rig_write(q, &ns, 0, 100, 8);
	host_detach(&ctrl);
	assert_int_equal(rig_stop(&rig, SIGTERM, 10000 * rig_slowness(), NULL), 0);
	crc = rig_crc_file(rig.img);
	snprintf(image, sizeof(image), "%s,ro", served);
	assert_int_equal(rig_serve(&rig, image), 0);
	attach();
	assert_int_equal(host_write(q, 1, 100, 1, block, 512), NVME_SC_NS_WRITE_PROTECTED);
	assert_int_equal(host_append(q, 1, 0, 1, block, 512, NULL), NVME_SC_NS_WRITE_PROTECTED);
	assert_true(host_zone(q, 1, 0, NVME_ZNS_ZSA_RESET, false) > 0);
	rig_verify(q, &ns, 0, 100, 8);
	host_detach(&ctrl);
	assert_int_equal(rig_stop(&rig, SIGTERM, 10000 * rig_slowness(), NULL), 0);
	assert_int_equal(rig_crc_file(rig.img), crc);
}

#define t(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* Whether files where the tests have theirs may be read around the page cache. */
static bool has_direct(void)
{
	const char *tmp = getenv("TMPDIR");
	int fd = open(tmp ? tmp : "/tmp", O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		t(a_restart_keeps_everything),
		t(a_restart_with_the_host_still_there_keeps_everything),
		t(a_kill_while_idle_keeps_everything),
		t(writing_goes_on_after_a_restart),
		t(limits_hold_at_once_after_a_restart),
		t(the_namespace_keeps_its_names),
		t(a_read_only_namespace_takes_no_writes),
	};

	if (argc > 1)
		cache = argv[1];
	if (!strcmp(cache, "none") && !has_direct()) {
		fprintf(stderr, "SKIP: no O_DIRECT in the temporary directory\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
