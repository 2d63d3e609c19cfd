// SPDX-License-Identifier: MIT
/*
 * Stopping under load: TERM ends znsd within two seconds, exit 0, the image is clean, and every
 * write that was acknowledged is there.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon.h"

#define QUEUES 4
#define DEPTH  32
#define BLOCKS 32 /* of 512 bytes: 16 KiB a write, through R2T */
#define LEN    (BLOCKS * 512)

static struct rig rig;

/* Writes zone after zone, DEPTH at a time, until the connection ends. */
struct load {
	pthread_t thread;
	struct host_queue *q;
	uint64_t zsze;
	uint64_t zone;	    /* its own: zone, zone + QUEUES, ... */
	uint64_t acked[12]; /* blocks known to be written, by zone */
	_Atomic uint64_t writes;
	int bad; /* a status other than success */
};

static void *load_run(void *arg)
{
	static uint8_t data[QUEUES][DEPTH][LEN];
	struct load *l = arg;
	struct host_io io[DEPTH], *done;
	unsigned int i, n = DEPTH, ended;
	uint64_t at = 0;

	while (!l->bad && l->zone < 12) {
		if (at + n * BLOCKS > l->zsze) {
			l->zone += QUEUES;
			at = 0;
			continue;
		}
		for (i = 0; i < n; i++) {
			uint64_t lba = l->zone * l->zsze + at + i * BLOCKS;

			host_pattern(data[l->q->qid - 1][i], LEN, lba * 512, 77);
			host_set_rw(&io[i], nvme_cmd_write, 1, lba, BLOCKS, data[l->q->qid - 1][i],
				    LEN);
			io[i].tag = at + i * BLOCKS;
			if (host_submit(l->q, &io[i]))
				return NULL;
		}
		for (ended = 0; ended < n; ended++) {
			if (host_reap(l->q, &done))
				return NULL;
			if (done->status == NVME_SC_ABORT_QUEUE ||
			    done->status == NVME_SC_ABORT_REQ)
				return NULL;
			if (done->status) {
				l->bad = done->status;
				return NULL;
			}
			if (done->tag + BLOCKS > l->acked[l->zone])
				l->acked[l->zone] = done->tag + BLOCKS;
			l->writes++;
		}
		at += n * BLOCKS;
	}
	return NULL;
}

static int setup(void **state)
{
	(void)state;
	rig_init(&rig);
	assert_int_equal(rig_create(&rig, rig.img, RIG_SEED), 0);
	assert_int_equal(rig_serve(&rig, rig.img), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_end(&rig);
	return 0;
}

static void load_start(struct load *load, struct host_ctrl *c)
{
	struct rig_ns ns;
	unsigned int i;
	uint64_t start = now_ms();

	memset(load, 0, QUEUES * sizeof(*load));
	rig_attach(&rig, c, QUEUES);
	rig_identify(c, 1, &ns);
	for (i = 0; i < QUEUES; i++) {
		load[i].q = &c->io[i];
		load[i].zone = i;
		load[i].zsze = ns.zsze;
		assert_int_equal(pthread_create(&load[i].thread, NULL, load_run, &load[i]), 0);
	}
	for (i = 0; i < QUEUES;) { /* all are under way */
		if (load[i].writes > 2 * DEPTH)
			i++;
		else
			usleep(1000);
		assert_true(now_ms() - start < 60000);
	}
}

static void load_join(struct load *load)
{
	unsigned int i;

	for (i = 0; i < QUEUES; i++) {
		pthread_join(load[i].thread, NULL);
		assert_int_equal(load[i].bad, 0);
	}
}

static void term_under_load_loses_nothing(void **state)
{
	static struct load load[QUEUES];
	struct host_ctrl c;
	struct rig_ns ns;
	int took, status, i, z;

	(void)state;
	load_start(load, &c);
	usleep(200000);
	status = rig_stop(&rig, SIGTERM, 20000, &took);
	load_join(load);
	host_detach(&c);
	assert_int_equal(status, 0);
	if (took > 2000 * rig_slowness())
		fail_msg("it took %d ms to stop", took);
	assert_int_equal(rig_check(&rig, rig.img), 0);
	assert_int_equal(rig_serve(&rig, rig.img), 0);
	rig_attach(&rig, &c, 1);
	rig_identify(&c, 1, &ns);
	for (i = 0; i < QUEUES; i++) {
		for (z = 0; z < 12; z++) {
			struct nvme_zns_desc d = rig_zone(&c.io[0], &ns, z * ns.zsze);

			if (!load[i].acked[z])
				continue;
			if (d.zs >> 4 != NVME_ZNS_ZS_FULL)
				assert_true(le64toh(d.wp) - z * ns.zsze >= load[i].acked[z]);
			rig_verify(&c.io[0], &ns, z * ns.zsze, load[i].acked[z], 77);
		}
	}
	host_detach(&c);
}

static void a_second_signal_stops_at_once(void **state)
{
	static struct load load[QUEUES];
	struct host_ctrl c;
	int took, status;

	(void)state;
	load_start(load, &c);
	kill(rig.pid, SIGTERM);
	status = rig_stop(&rig, SIGTERM, 20000, &took);
	load_join(load);
	host_detach(&c);
	assert_int_not_equal(status, -ETIMEDOUT);
	if (took > 1000 * rig_slowness())
		fail_msg("it took %d ms to stop", took);
	status = rig_check(&rig, rig.img);
	assert_true(status == 0 || status == 3);
}

static void term_with_idle_hosts_is_quick(void **state)
{
	struct host_ctrl c;
	struct host_queue half;
	int took;

	(void)state;
	rig_attach(&rig, &c, 4);
	assert_int_equal(host_dial(&half, "127.0.0.1", rig.port), 0);
	assert_int_equal(rig_stop(&rig, SIGTERM, 20000, &took), 0);
	if (took > 1000 * rig_slowness())
		fail_msg("it took %d ms to stop", took);
	assert_int_equal(host_wait_close(&c.io[3]), 0);
	assert_int_equal(host_wait_close(&half), 0);
	host_close(&half);
	host_detach(&c);
	assert_int_equal(rig_check(&rig, rig.img), 0);
}

static void an_interrupt_is_a_term(void **state)
{
	(void)state;
	assert_int_equal(rig_stop(&rig, SIGINT, 20000, NULL), 0);
}

#define t(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		t(term_under_load_loses_nothing),
		t(a_second_signal_stops_at_once),
		t(term_with_idle_hosts_is_quick),
		t(an_interrupt_is_a_term),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
