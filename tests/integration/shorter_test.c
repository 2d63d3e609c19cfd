// SPDX-License-Identifier: MIT
/*
 * The file of an image becomes shorter while it is served. Who reads its mapping gets SIGBUS, and a
 * system call that does EFAULT; a read of the file finds its end. A host gets an error each time, never
 * zeroes, and the drive lives.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon.h"

#define LOST	  (NVME_SCT_MEDIA << NVME_SCT_SHIFT | NVME_SC_READ_ERROR)
#define BLOCKS	  256u /* of 512 bytes: written to each zone */
#define PIECE	  8u
#define LOST_ZONE 5u

static struct rig rig;
static struct rig_ns ns;
static uint8_t buf[BLOCKS * 512];

static off_t file_size(void)
{
	struct stat st;

	assert_int_equal(stat(rig.img, &st), 0);
	return st.st_size;
}

static void attach(struct host_ctrl *c, bool hdgst, bool ddgst)
{
	const struct host_ic ic = { .hdgst = hdgst, .ddgst = ddgst };

	assert_int_equal(host_attach(c, "127.0.0.1", rig.port, RIG_NQN, NULL, &ic, 1, 0), 0);
}

/* Serves a new image whose zone 0 is whole and whose zone LOST_ZONE is gone. */
static void lose(struct host_ctrl *c, bool hdgst, bool ddgst)
{
	off_t end;

	unlink(rig.img);
	assert_int_equal(rig_create(&rig, rig.img, RIG_SEED), 0);
	assert_int_equal(rig_serve(&rig, rig.img), 0);
	attach(c, hdgst, ddgst);
	rig_identify(c, 1, &ns);
	rig_write(&c->io[0], &ns, 0, BLOCKS, 1);
	assert_int_equal(host_flush(&c->io[0], 1), 0);
	end = file_size();
	rig_write(&c->io[0], &ns, LOST_ZONE * ns.zsze, BLOCKS, 2);
	assert_int_equal(host_flush(&c->io[0], 1), 0);
	rig_verify(&c->io[0], &ns, LOST_ZONE * ns.zsze, BLOCKS, 2);
	assert_true(file_size() > end);
	assert_int_equal(truncate(rig.img, end), 0);
}

static int read_lost(struct host_ctrl *c, uint32_t blocks)
{
	return host_read(&c->io[0], 1, LOST_ZONE * ns.zsze, blocks, buf, blocks * 512);
}

static void end(struct host_ctrl *c)
{
	rig_verify(&c->io[0], &ns, 0, BLOCKS, 1);
	host_detach(c);
	assert_true(rig_stop(&rig, SIGTERM, 15000 * rig_slowness(), NULL) >= 0);
}

/* Nothing was sent yet. */
static void under_a_data_digest_only_the_command_fails(void **state)
{
	struct host_ctrl c;

	(void)state;
	for (int i = 0; i < 4; i++) {
		lose(&c, i & 1, true);
		assert_int_equal(read_lost(&c, i & 2 ? PIECE : BLOCKS), LOST);
		assert_int_equal(read_lost(&c, PIECE), LOST); /* not zero-copy any more */
		end(&c);
	}
}

/* Without a digest the header has left when it is noticed. */
static void without_one_the_connection_ends(void **state)
{
	struct host_ctrl c;

	(void)state;
	lose(&c, false, false);
	assert_true(read_lost(&c, PIECE) < 0);
	host_detach(&c);
	attach(&c, false, false);
	assert_int_equal(read_lost(&c, PIECE), LOST);
	end(&c);
}

static int setup(void **state)
{
	(void)state;
	if (access("/dev/shm", W_OK)) {
		fprintf(stderr, "SKIP: needs a tmpfs at /dev/shm\n");
		exit(77);
	}
	setenv("TMPDIR", "/dev/shm", 1); /* where a read never waits, so that it is zero-copy */
	rig_init(&rig);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_end(&rig);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(under_a_data_digest_only_the_command_fails),
		cmocka_unit_test(without_one_the_connection_ends),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
