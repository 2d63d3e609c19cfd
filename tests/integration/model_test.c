// SPDX-License-Identifier: MIT
/*
 * The drive against a model of itself: thousands of random commands on images of many shapes, one
 * at a time; each status must be the one the model gives, all data is checked, and so are all zones
 * after every restart. The model is the specification in a hundred lines:
 *
 *	restart		open zones are Closed, or Empty when nothing is in them
 *	flush, kill -9	the same: a flush has recorded everything
 *	kill -9		where a zone was only written since the last flush, its write pointer is
 *			between the two, and the data below it is right; a reset or finish that
 *			no flush has followed may be lost (then the zone is reset here)
 *
 * A failure prints its seed; MODEL_SEED=n and MODEL_OPS=n in the environment choose another walk.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "daemon.h"

#define MAX_ZONES 64
#define MAX_WRITE (256u << 10)
#define EMPTY	  NVME_ZNS_ZS_EMPTY
#define IOPEN	  NVME_ZNS_ZS_IMPL_OPEN
#define EOPEN	  NVME_ZNS_ZS_EXPL_OPEN
#define CLOSED	  NVME_ZNS_ZS_CLOSED
#define FULL	  NVME_ZNS_ZS_FULL

struct shape {
	const char *name;
	const char *create;
	const char *serve;
};

static const struct shape shapes[] = {
	{ "plain", "size=64M,zone.size=4M,zone.max_open_zones=3,zone.max_active_zones=5",
	  "lba=512" },
	{ "capacity", "size=60M,zone.size=4M,zone.capacity=3000K,zone.max_open_zones=2",
	  "lba=4096" },
	{ "small clusters", "size=8M,zone.size=256K,cluster_size=512,zone.max_active_zones=6",
	  "lba=512" },
	{ "one-bit refcounts", "size=32M,zone.size=1M,cluster_size=4K,refcount_bits=1",
	  "lba=4096" },
	{ "wide refcounts", "size=32M,zone.size=2M,cluster_size=1K,refcount_bits=64", "lba=512" },
	{ "large clusters", "size=64M,zone.size=4M,cluster_size=2M,zone.max_open_zones=4",
	  "lba=4096" },
	{ "latest layout", "size=16M,zone.size=512K,zone.layout=latest,zone.max_active_zones=7",
	  "lba=512,cache=writethrough" },
	{ "direct", "size=64M,zone.size=4M,zone.max_open_zones=3", "lba=4096,cache=none" },
	{ "large direct", "size=64M,zone.size=4M,zone.max_open_zones=3", "lba=4096,cache=auto" },
};

struct model_zone {
	uint8_t state;
	uint64_t wp;	  /* blocks from its start */
	uint64_t flushed; /* at the last flush */
	uint64_t data;	  /* blocks that hold data; the rest below a Full zone's end is zeroes */
	uint64_t seed;	  /* of the data; new with each reset */
	uint64_t used;	  /* when it was last written: order of implicit closing */
	bool managed;	  /* reset or finished since the last flush */
};

static struct rig rig;
static struct host_ctrl ctrl;
static struct host_queue *q;
static struct rig_ns ns;
static struct model_zone model[MAX_ZONES];
static uint64_t zcap, tick;
static bool leaky; /* after a kill clusters may be leaked */
static char image[128];
static uint8_t buf[MAX_WRITE], want[MAX_WRITE];
static uint64_t rnd_state;

static uint64_t rnd(uint64_t below)
{
	rnd_state = rnd_state * 6364136223846793005u + 1442695040888963407u;
	return (rnd_state >> 33) % below;
}

static unsigned int count(uint8_t a, uint8_t b, uint8_t c)
{
	unsigned int i, n = 0;

	for (i = 0; i < ns.zones; i++)
		n += model[i].state == a || model[i].state == b || model[i].state == c;
	return n;
}

static void model_close(struct model_zone *z)
{
	z->state = z->wp ? CLOSED : EMPTY;
}

/* Status of opening Z; 0: there is room, or an implicitly open zone that can make some. */
static int model_may_open(const struct model_zone *z)
{
	if (z->state == IOPEN || z->state == EOPEN)
		return 0;
	if (z->state == EMPTY && count(IOPEN, EOPEN, CLOSED) >= ns.active)
		return ZSTATUS(TOO_MANY_ACTIVE);
	if (count(IOPEN, EOPEN, EOPEN) >= ns.open && !count(IOPEN, IOPEN, IOPEN))
		return ZSTATUS(TOO_MANY_OPENS);
	return 0;
}

static void model_open(struct model_zone *z, uint8_t state)
{
	struct model_zone *oldest = NULL;
	unsigned int i;

	if (z->state != IOPEN && z->state != EOPEN && count(IOPEN, EOPEN, EOPEN) >= ns.open) {
		for (i = 0; i < ns.zones; i++)
			if (model[i].state == IOPEN && (!oldest || model[i].used < oldest->used))
				oldest = &model[i];
		model_close(oldest);
	}
	z->state = state;
}

static int model_write(struct model_zone *z, uint64_t at, uint64_t blocks)
{
	int status;

	if (z->state == FULL)
		return ZSTATUS(FULL);
	if (at != z->wp)
		return ZSTATUS(INVALID_WRITE);
	if (at + blocks > zcap)
		return ZSTATUS(BOUNDARY_ERROR);
	status = model_may_open(z);
	if (status)
		return status;
	model_open(z, z->state == EOPEN ? EOPEN : IOPEN);
	z->used = ++tick;
	z->wp += blocks;
	z->data = z->wp;
	if (z->wp == zcap)
		z->state = FULL;
	return 0;
}

static int model_act(struct model_zone *z, enum nvme_zns_send_action zsa)
{
	int status;

	switch (zsa) {
	case NVME_ZNS_ZSA_OPEN:
		if (z->state == FULL)
			return ZSTATUS(INVAL_TRANSITION);
		status = model_may_open(z);
		if (!status)
			model_open(z, EOPEN);
		return status;
	case NVME_ZNS_ZSA_CLOSE:
		if (z->state == EMPTY || z->state == FULL)
			return ZSTATUS(INVAL_TRANSITION);
		model_close(z);
		return 0;
	case NVME_ZNS_ZSA_FINISH:
		if (z->state == EMPTY && (status = model_may_open(z)))
			return status;
		z->managed = z->managed || z->state != FULL;
		z->state = FULL;
		z->wp = zcap;
		return 0;
	default:
		z->managed = z->managed || z->state != EMPTY;
		z->state = EMPTY;
		z->wp = z->data = 0;
		z->seed = ++tick;
		return 0;
	}
}

/* --- the drive --- */

static void attach(void)
{
	const struct host_ic ic = { .hdgst = rnd(2), .ddgst = rnd(2) };

	assert_int_equal(host_attach(&ctrl, "127.0.0.1", rig.port, RIG_NQN, NULL, &ic, 1, 0), 0);
	q = &ctrl.io[0];
	rig_identify(&ctrl, 1, &ns);
}

static void compare_zones(void)
{
	struct nvme_zone_report *rep = rig_zones(q, &ns);
	unsigned int i;

	for (i = 0; i < ns.zones; i++) {
		const struct nvme_zns_desc *d = &rep->entries[i];

		if (d->zs >> 4 != model[i].state ||
		    (model[i].state != FULL && le64toh(d->wp) - i * ns.zsze != model[i].wp))
			fail_msg("zone %u: state %u wp %llu, expected state %u wp %llu", i,
				 d->zs >> 4, (unsigned long long)(le64toh(d->wp) - i * ns.zsze),
				 model[i].state, (unsigned long long)model[i].wp);
	}
	free(rep);
}

/* Reads BLOCKS from AT in zone Z, all within the zone. */
static void compare_data(unsigned int z, uint64_t at, uint64_t blocks)
{
	const struct model_zone *m = &model[z];
	uint64_t lba = z * ns.zsze + at, i;

	memset(want, 0, blocks * ns.lba);
	for (i = 0; i < blocks && at + i < m->data; i++)
		;
	host_pattern(want, i * ns.lba, lba * ns.lba, m->seed);
	assert_int_equal(host_read(q, 1, lba, blocks, buf, blocks * ns.lba), 0);
	for (i = 0; i < blocks; i++)
		if (memcmp(buf + i * ns.lba, want + i * ns.lba, ns.lba))
			fail_msg("zone %u block %llu of %llu: wrong data", z,
				 (unsigned long long)(at + i), (unsigned long long)m->data);
}

static void compare_all_data(void)
{
	uint64_t most = MAX_WRITE / ns.lba, at, n;
	unsigned int z;

	for (z = 0; z < ns.zones; z++) {
		for (at = 0; at < ns.zsze; at += n) {
			n = ns.zsze - at < most ? ns.zsze - at : most;
			compare_data(z, at, n);
		}
	}
}

static void op_write(struct model_zone *m, unsigned int z)
{
	uint64_t blocks = 1 + rnd(rnd(4) ? 16 : MAX_WRITE / ns.lba);
	uint64_t at = rnd(20) && m->wp < ns.zsze ? m->wp : rnd(ns.zsze - blocks + 1);
	bool append = rnd(2);
	uint64_t lba = z * ns.zsze + at, alba = 0, wp = m->wp;
	int status;

	if (append) {
		at = m->wp;
		if (blocks * ns.lba > ns.zasl)
			blocks = ns.zasl / ns.lba;
		lba = z * ns.zsze + at;
	}
	if (m->state != FULL && !rnd(4) && at == wp && zcap - wp <= blocks)
		blocks = zcap - wp; /* just full */
	if (at + blocks > ns.zsze && z == ns.zones - 1 && !append)
		return; /* another refusal: past the end of the namespace */
	host_pattern(buf, blocks * ns.lba, lba * ns.lba, m->seed);
	status = append ? host_append(q, 1, z * ns.zsze, blocks, buf, blocks * ns.lba, &alba)
			: host_write(q, 1, lba, blocks, buf, blocks * ns.lba);
	assert_int_equal(status, model_write(m, at, blocks));
	if (!status && append)
		assert_int_equal(alba, z * ns.zsze + wp);
}

static void op_flush(void)
{
	unsigned int i;

	assert_int_equal(host_flush(q, 1), 0);
	for (i = 0; i < ns.zones; i++) {
		model[i].flushed = model[i].wp;
		model[i].managed = false;
	}
}

static void op_restart(bool by_kill)
{
	struct nvme_zone_report *rep;
	unsigned int i;
	int status;

	host_detach(&ctrl);
	status = rig_stop(&rig, by_kill ? SIGKILL : SIGTERM, 10000 * rig_slowness(), NULL);
	assert_int_equal(status, by_kill ? -1 : 0);
	leaky = leaky || by_kill;
	status = rig_check(&rig, rig.img);
	if (status && (status != 3 || !leaky))
		fail_msg("znsimg check ends %d", status);
	assert_int_equal(rig_serve(&rig, image), 0);
	attach();
	rep = rig_zones(q, &ns);
	for (i = 0; i < ns.zones; i++) {
		struct model_zone *m = &model[i];
		uint64_t wp = le64toh(rep->entries[i].wp) - i * ns.zsze;

		if (rep->entries[i].zs >> 4 == FULL)
			wp = zcap;
		if (by_kill && m->managed) {
			assert_int_equal(host_zone(q, 1, i * ns.zsze, NVME_ZNS_ZSA_RESET, false),
					 0);
			model_act(m, NVME_ZNS_ZSA_RESET);
			continue;
		}
		if (by_kill && wp >= m->flushed && wp <= m->wp) {
			m->wp = wp; /* FULL, if that is what it stays, is at zcap */
			m->data = m->data < wp ? m->data : wp;
			m->state = wp == zcap ? FULL : m->state == FULL ? CLOSED : m->state;
		}
		if (m->state != FULL)
			model_close(m);
		m->flushed = m->wp;
		m->managed = false;
	}
	free(rep);
	compare_zones();
}

static void step(void)
{
	static const enum nvme_zns_send_action acts[] = { NVME_ZNS_ZSA_OPEN, NVME_ZNS_ZSA_CLOSE,
							  NVME_ZNS_ZSA_FINISH, NVME_ZNS_ZSA_RESET };
	unsigned int z = rnd(ns.zones), what = rnd(1000);
	struct model_zone *m = &model[z];
	uint64_t at, n;

	if (what < 550) {
		op_write(m, z);
	} else if (what < 750) {
		at = rnd(2) ? rnd(ns.zsze) : rnd(m->wp + 1) % ns.zsze;
		n = 1 + rnd(MAX_WRITE / ns.lba);
		compare_data(z, at, n < ns.zsze - at ? n : ns.zsze - at);
	} else if (what < 940) {
		enum nvme_zns_send_action zsa = acts[rnd(8) ? rnd(2) : 2 + rnd(2)];

		if (m->state == FULL && rnd(2))
			zsa = NVME_ZNS_ZSA_RESET;
		assert_int_equal(host_zone(q, 1, z * ns.zsze, zsa, false), model_act(m, zsa));
	} else if (what < 980) {
		op_flush();
	} else if (what < 990) {
		compare_zones();
	} else if (what < 994) {
		op_restart(false);
	} else if (what < 997) {
		op_flush();
		op_restart(true);
	} else if (what < 999) {
		op_restart(true);
	} else {
		unsigned int i;

		assert_int_equal(host_zone(q, 1, 0, NVME_ZNS_ZSA_RESET, true), 0);
		for (i = 0; i < ns.zones; i++)
			model_act(&model[i], NVME_ZNS_ZSA_RESET);
	}
}

static void a_walk_agrees_with_the_model(void **state)
{
	const struct shape *shape = *state;
	const char *seed = getenv("MODEL_SEED"), *ops = getenv("MODEL_OPS");
	char options[256];
	int i, most = ops ? atoi(ops) : rig_slowness() > 1 ? 300 : 800;

	rig_init(&rig);
	rnd_state = seed ? strtoull(seed, NULL, 0) : 1 + (uint64_t)(shape - shapes);
	print_message("%s: MODEL_SEED=%llu\n", shape->name, (unsigned long long)rnd_state);
	snprintf(options, sizeof(options), "%s,zone.mode=host-managed", shape->create);
	snprintf(image, sizeof(image), "%s,%s", rig.img, shape->serve);
	assert_int_equal(rig_create(&rig, rig.img, options), 0);
	assert_int_equal(rig_serve(&rig, image), 0);
	attach();
	assert_true(ns.zones <= MAX_ZONES);
	zcap = le64toh(rig_zone(q, &ns, 0).zcap);
	memset(model, 0, sizeof(model));
	leaky = false;
	for (i = 0; i < (int)ns.zones; i++)
		model[i] = (struct model_zone){ .state = EMPTY, .seed = ++tick };
	for (i = 0; i < most; i++)
		step();
	compare_zones();
	compare_all_data();
	op_restart(false);
	compare_all_data();
	host_detach(&ctrl);
}

static int teardown(void **state)
{
	(void)state;
	host_detach(&ctrl);
	rig_end(&rig);
	return 0;
}

int main(void)
{
	enum { N = sizeof(shapes) / sizeof(shapes[0]) };
	struct CMUnitTest tests[N];
	unsigned int i;

	for (i = 0; i < N; i++)
		tests[i] = (struct CMUnitTest){
			.name = shapes[i].name,
			.test_func = a_walk_agrees_with_the_model,
			.teardown_func = teardown,
			.initial_state = (void *)&shapes[i],
		};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
