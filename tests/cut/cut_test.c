/* SPDX-License-Identifier: MIT */
/*
 * Power cuts at the level of NVMe: a host with several queues appends, writes, flushes, resets and
 * finishes, the drive (znsd-cut) loses its power in the middle, and comes back. After each cut
 * znsimg check must find no corruption, and the model (model.h) says of each zone whether it may
 * be as it is.
 *
 *	drive		a new image, of another geometry, every ROUNDS_A_DRIVE rounds
 *	round		start, attach, judge all zones, work, cut, znsimg check
 *	cut		by a count of the drive's own writes and syncs (then often within a flush), or
 *			by SIGUSR1 behind an operation of the host
 *
 * Every second drive of three has cache=none, and its data goes by io_uring (ring.c); every third has
 * cache=auto, and its large writes do.
 *
 * CUT_SEED (1) and CUT_ROUNDS (120, fewer under a sanitizer) in the environment. The seed gives
 * geometry, operations and the manner of each cut; where a cut by count meets them depends on the
 * threads of the drive. A failure names the seed and the round. PLANT is a mistake of
 * the ring (ring.h), which this test must notice.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "../tally.h"
#include "daemon.h"
#include "model.h"

#define ROUNDS_A_DRIVE 10
#define QUEUES	       3
#define DEPTH	       12 /* of all queues */
#define STATUS_CUT     99

enum kind { APPEND, WRITE, READ, FLUSH, RESET, FINISH, OPEN, CLOSE, KINDS };

struct op {
	bool busy;
	enum kind kind;
	uint32_t zone, id, nr, at;
	struct host_io io;
	struct model_mark *mark; /* FLUSH, and with FUA */
	uint8_t *data;
};

static struct {
	uint64_t rnd;
	struct rig rig;
	struct host_ctrl ctrl;
	struct rig_ns ns;
	struct model model;
	struct op op[DEPTH];
	uint32_t *in_flight; /* by zone */
	bool *exclusive;     /* by zone: something in flight bears no company */
	uint32_t next_id;
	uint32_t reset; /* the zone that the last step has reset + 1; else 0 */
	unsigned int round, cuts, in_start, commands, flushes;
	bool calm;	   /* few flushes in this round */
	const char *cache; /* the drive's mode */
	bool ring;	   /* which uses the ring */
	bool gone;	   /* the drive */
} t;

static uint64_t draw(uint64_t n)
{
	uint64_t x = t.rnd += 0x9e3779b97f4a7c15u;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return (x ^ x >> 31) % n;
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

/* The mistake that the ring makes; NULL: none. With one this test must fail, so it does what shows it. */
static const char *planted(void)
{
	return getenv("PLANT");
}

/* --- the commands --- */

/* Refused, and nothing has changed: the model need not know. */
static bool refused(int status)
{
	return status == ZSTATUS(TOO_MANY_ACTIVE) || status == ZSTATUS(TOO_MANY_OPENS) ||
	       status == ZSTATUS(BOUNDARY_ERROR) || status == ZSTATUS(FULL) ||
	       status == ZSTATUS(INVAL_TRANSITION);
}

static void read_done(const struct op *op)
{
	const struct epoch *e = model_now(&t.model, op->zone);

	for (uint32_t i = 0; i < op->nr; i++)
		if (!model_is(&t.model, op->data + i * t.ns.lba, e->block[op->at + i]))
			fail_msg("zone %u, block %u: what is read is not what was written",
				 op->zone, op->at + i);
}

static void op_succeeded(struct op *op)
{
	uint64_t start = op->zone * t.ns.zsze;

	switch (op->kind) {
	case APPEND:
		op->at = le64toh(op->io.cqe.result) - start;
		/* fallthrough */
	case WRITE:
		model_written(&t.model, op->zone, op->at, op->nr, op->id);
		break;
	case READ:
		read_done(op);
		break;
	case RESET:
		model_reset_done(&t.model, op->zone);
		break;
	case FINISH:
		model_now(&t.model, op->zone)->finish_acked = true;
		break;
	default:
		break;
	}
	if (!op->mark)
		return;
	if (op->kind != FLUSH) { /* FUA: and the write itself */
		struct model_mark *mark = &op->mark[op->zone];

		if (mark->wp < op->at + op->nr)
			mark->wp = op->at + op->nr;
	}
	model_flushed(&t.model, op->mark);
	t.flushes++;
}

static void op_refused(struct op *op)
{
	if (!refused(op->io.status))
		fail_msg("command %d in zone %u: status %#x", op->kind, op->zone, op->io.status);
	if (op->kind == RESET)
		model_reset_refused(&t.model, op->zone);
	if (op->kind == FINISH)
		model_now(&t.model, op->zone)->finish_sent = false;
}

static void op_end(struct op *op)
{
	free(op->mark);
	free(op->data);
	op->mark = NULL;
	op->data = NULL;
	op->busy = false;
}

static void op_done(struct op *op)
{
	if (op->io.status)
		op_refused(op);
	else
		op_succeeded(op);
	if (op->kind != FLUSH) {
		t.in_flight[op->zone]--;
		t.exclusive[op->zone] = false;
	}
	op_end(op);
	t.commands++;
}

/* Some commands end neither well nor badly: says which, and how far their data got. */
static void hang(void)
{
	for (unsigned int i = 0; i < DEPTH; i++)
		if (t.op[i].busy)
			print_error(
				"in flight: command %d, zone %u, %u blocks at %u, %u bytes moved, "
				"%u R2Ts\n",
				t.op[i].kind, t.op[i].zone, t.op[i].nr, t.op[i].at,
				t.op[i].io.moved, t.op[i].io.r2ts);
	fail_msg("no command ends; %s, the drive %s", getenv("ZNSD_CUT"),
		 kill(t.rig.pid, 0) || waitpid(t.rig.pid, NULL, WNOHANG) ? "has ended" : "runs");
}

/* Waits for a command to end; false: the drive has gone. */
static bool reap(void)
{
	struct pollfd pfd[QUEUES];
	struct host_io *io;
	int err;

	for (unsigned int i = 0; i < QUEUES; i++)
		pfd[i] = (struct pollfd){
			.fd = t.ctrl.io[i].nr_busy ? t.ctrl.io[i].fd : -1,
			.events = POLLIN,
		};
	if (poll(pfd, QUEUES, HOST_TIMEOUT_MS) <= 0)
		hang();
	for (unsigned int i = 0; i < QUEUES; i++) {
		if (!pfd[i].revents)
			continue;
		err = host_reap(&t.ctrl.io[i], &io);
		if (err) {
			if (err != -ENOTCONN)
				fail_msg("queue %u: error %d", i, err);
			t.gone = true;
			return false;
		}
		op_done((struct op *)((char *)io - offsetof(struct op, io)));
		return true;
	}
	return true;
}

/* Waits until an operation may be sent to ZONE: there is room, and nothing that bears no company. */
static struct op *room(uint32_t zone, bool exclusive)
{
	for (;;) {
		bool quiet = !t.exclusive[zone] && (!exclusive || !t.in_flight[zone]);

		for (unsigned int i = 0; quiet && i < DEPTH; i++)
			if (!t.op[i].busy)
				return &t.op[i];
		if (!reap())
			return NULL;
	}
}

/* --- the workload --- */

static enum kind draw_kind(void)
{
	static const uint8_t weight[KINDS] = {
		[APPEND] = 58, [WRITE] = 12, [READ] = 6, [FLUSH] = 10,
		[RESET] = 7,   [FINISH] = 3, [OPEN] = 2, [CLOSE] = 2
	};
	unsigned int x = draw(100);
	enum kind kind = APPEND;

	while (x >= weight[kind])
		x -= weight[kind++];
	return kind == FLUSH && t.calm && draw(20) ? APPEND : kind;
}

static uint32_t draw_blocks(uint32_t most)
{
	uint32_t nr = draw(4) ? 1 + draw(8) : 1 + draw(t.ns.mdts / t.ns.lba / 4);

	return nr < most ? nr : most;
}

/* Fills in a read or a write of the zone; false: there is nothing to read, no room to write. */
static bool make_io(struct op *op)
{
	const struct epoch *e = model_now(&t.model, op->zone);
	uint64_t start = op->zone * t.ns.zsze;
	uint32_t most = t.model.cap;
	uint8_t opcode = nvme_zns_cmd_append;
	bool fua = op->kind != READ && !draw(t.calm ? 200 : 12);

	if (op->kind != APPEND)
		op->at = op->kind == READ && e->acked ? draw(e->acked) : e->acked;
	if (op->kind == READ && op->at < e->acked) {
		opcode = nvme_cmd_read;
		for (most = 0; op->at + most < e->acked && e->block[op->at + most].id; most++)
			;
	} else if (op->kind == READ) {
		return false;
	} else if (op->kind == WRITE) {
		opcode = nvme_cmd_write;
		most -= op->at;
	}
	op->nr = draw_blocks(most);
	if (!op->nr || (op->kind != READ && e->finish_sent))
		return false;
	op->data = malloc(op->nr * t.ns.lba);
	assert_non_null(op->data);
	op->id = t.next_id++;
	if (op->kind != READ)
		model_fill(&t.model, op->data, op->nr, op->id);
	host_set_rw(&op->io, opcode, 1, start + (op->kind == APPEND ? 0 : op->at), op->nr, op->data,
		    op->nr * t.ns.lba);
	if (fua) {
		op->io.sqe.cdw12 |= htole32(1u << 30);
		op->mark = model_mark(&t.model);
	}
	return true;
}

static void make_mgmt(struct op *op)
{
	static const uint8_t action[KINDS] = { [RESET] = NVME_ZNS_ZSA_RESET,
					       [FINISH] = NVME_ZNS_ZSA_FINISH,
					       [OPEN] = NVME_ZNS_ZSA_OPEN,
					       [CLOSE] = NVME_ZNS_ZSA_CLOSE };
	uint64_t slba = op->zone * t.ns.zsze;

	op->io.sqe = (struct nvme_sqe){
		.opcode = nvme_zns_cmd_mgmt_send,
		.nsid = htole32(1),
		.cdw10 = htole32((uint32_t)slba),
		.cdw11 = htole32(slba >> 32),
		.cdw13 = htole32(action[op->kind]),
	};
	if (op->kind == RESET)
		model_reset_sent(&t.model, op->zone);
	if (op->kind == FINISH)
		model_now(&t.model, op->zone)->finish_sent = true;
}

/* The next operation, on its way; false: the drive has gone. */
static bool step(void)
{
	enum kind kind = draw_kind();
	/* A few zones at a time, so that they fill. */
	uint32_t zone = (t.round * 2 + draw(4)) % t.ns.zones;
	unsigned int queue = draw(QUEUES);
	bool exclusive = kind == WRITE || kind == RESET || kind == FINISH;
	struct op *op;
	int err;

	if (t.reset && draw(2)) { /* a flush that has nothing but a reset to record */
		kind = FLUSH;
		zone = t.reset - 1;
		exclusive = true;
	}
	t.reset = kind == RESET ? zone + 1 : 0;
	op = room(zone, exclusive);

	if (!op)
		return false;
	*op = (struct op){ .kind = kind, .zone = zone };
	if (kind == FLUSH) {
		op->io.sqe = (struct nvme_sqe){ .opcode = nvme_cmd_flush, .nsid = htole32(1) };
		op->mark = model_mark(&t.model);
	} else if (kind <= READ) {
		if (!make_io(op))
			return true;
	} else if (kind == FINISH && model_now(&t.model, zone)->finish_sent) {
		return true;
	} else {
		make_mgmt(op);
	}
	op->busy = true;
	if (kind != FLUSH) {
		t.in_flight[zone]++;
		t.exclusive[zone] = exclusive;
	}
	err = host_submit(&t.ctrl.io[queue], &op->io);
	if (err && err != -ENOTCONN)
		fail_msg("queue %u: error %d", queue, err);
	t.gone |= err != 0;
	return !err;
}

/* --- the drive --- */

static void new_drive(void)
{
	static const unsigned int cluster[] = { 512, 4096, 16384, 65536 };
	unsigned int zones = 8 + draw(9), active = 4 + draw(5);
	char options[256];

	unlink(t.rig.img);
	snprintf(options, sizeof(options),
		 "size=%uM,zone.size=1M,zone.capacity=%uK,zone.conventional_zones=0,"
		 "zone.max_open_zones=%u,zone.max_active_zones=%u,zone.mode=host-managed,"
		 "cluster_size=%u,refcount_bits=%u",
		 zones, draw(2) ? 1024 : 768, 1 + (unsigned int)draw(active), active,
		 cluster[t.ring ? 1 + draw(3) : draw(4)], 8u << draw(3));
	assert_int_equal(rig_create(&t.rig, t.rig.img, options), 0);
	printf("round %u: %s, cache=%s\n", t.round, options, t.cache);
}

/* How the power will be cut, for znsd-cut; true: by its own count. */
static bool arm(void)
{
	static const char *const mode[] = { "none", "all", "random", "random", "random" };
	static const char *const by[] = { "after", "syncs" };
	unsigned int trigger = planted() ? 1 : (unsigned int)draw(3);
	char env[128];
	int n;

	n = snprintf(env, sizeof(env), "mode=%s,seed=%llu,sync_us=%u", mode[draw(5)],
		     (unsigned long long)draw(1u << 30), draw(2) ? (unsigned int)draw(3000) : 0);
	if (trigger < 2)
		snprintf(env + n, sizeof(env) - n, ",%s=%u", by[trigger],
			 1 + (unsigned int)draw(trigger ? 60 : 500));
	n = (int)strlen(env);
	if (planted())
		snprintf(env + n, sizeof(env) - n, ",plant=%s", planted());
	setenv("ZNSD_CUT", env, 1);
	return trigger < 2;
}

static void check_image(void)
{
	int status = rig_check(&t.rig, t.rig.img);

	t.cuts++;
	if (status != 0 && status != 3)
		fail_msg("znsimg check: status %d", status);
}

/* A start syncs too, so the power may be cut in it; then it starts again, and by SIGUSR1 alone. */
static void start(uint32_t lba)
{
	char image[128];
	const char *args[] = { image, NULL };
	int status = 0;

	snprintf(image, sizeof(image), "%s,lba=%u,cache=%s", t.rig.img, lba, t.cache);
	/* A shadow on a tmpfs goes with the power, and so does the directory of this one. */
	rig_lose_shadows(&t.rig);
	while (rig_start(&t.rig, args, &status)) {
		if (status != STATUS_CUT)
			fail_msg("the drive does not start, status %d", status);
		t.in_start++;
		check_image();
		unsetenv("ZNSD_CUT");
		rig_lose_shadows(&t.rig);
	}
	rig_attach(&t.rig, &t.ctrl, QUEUES);
	rig_identify(&t.ctrl, 1, &t.ns);
	t.gone = false;
}

static void read_zone(uint32_t zone, uint8_t *data)
{
	uint32_t most = t.ns.mdts / t.ns.lba, nr;

	for (uint32_t at = 0; at < t.model.cap; at += nr) {
		nr = t.model.cap - at < most ? t.model.cap - at : most;
		assert_int_equal(host_read(&t.ctrl.io[0], 1, zone * t.ns.zsze + at, nr,
					   data + (size_t)at * t.ns.lba, nr * t.ns.lba),
				 0);
	}
}

/* All zones after the cut, against the model. */
static void judge(const struct pending *pending, size_t nr_pending)
{
	struct nvme_zone_report *rep = rig_zones(&t.ctrl.io[0], &t.ns);
	uint8_t *data = malloc((size_t)t.model.cap * t.ns.lba);
	char why[MODEL_ERRLEN];
	unsigned int closed = 0;

	assert_non_null(data);
	for (uint32_t i = 0; i < t.ns.zones; i++) {
		const struct nvme_zns_desc *d = &rep->entries[i];
		bool full = d->zs >> 4 == NVME_ZNS_ZS_FULL;
		uint32_t wp = full ? t.model.cap : (uint32_t)(le64toh(d->wp) - i * t.ns.zsze);

		read_zone(i, data);
		if (!model_judge(&t.model, i, &(struct found){ wp, full, data }, pending,
				 nr_pending, why))
			fail_msg("zone %u: %s", i, why);
		/* D5 */
		if (!full)
			assert_int_equal(d->zs >> 4,
					 (int)(wp ? NVME_ZNS_ZS_CLOSED : NVME_ZNS_ZS_EMPTY));
		closed += !full && wp;
	}
	if (closed > t.ns.active)
		fail_msg("D5: %u zones are partly written, and %u may be active", closed,
			 t.ns.active);
	free(data);
	free(rep);
}

/* What was in flight when the drive went; its operations end here. */
static size_t abandon(struct pending *pending)
{
	size_t n = 0;

	for (unsigned int i = 0; i < DEPTH; i++) {
		struct op *op = &t.op[i];

		if (op->busy && (op->kind == APPEND || op->kind == WRITE))
			pending[n++] = (struct pending){ op->zone, op->id, op->nr,
							 op->kind == WRITE ? (int64_t)op->at : -1 };
		if (op->busy)
			op_end(op);
	}
	memset(t.in_flight, 0, t.ns.zones * sizeof(*t.in_flight));
	memset(t.exclusive, 0, t.ns.zones * sizeof(*t.exclusive));
	return n;
}

/* What the drive has answered before it went is heard. */
static void drain(void)
{
	for (unsigned int i = 0; i < QUEUES; i++) {
		struct host_io *io;

		while (t.ctrl.io[i].nr_busy && !host_reap(&t.ctrl.io[i], &io))
			op_done((struct op *)((char *)io - offsetof(struct op, io)));
	}
}

/* Waits for the drive to end, after SIGUSR1 unless it has gone by itself. */
static void power_off(void)
{
	uint64_t began = now_ms();
	int status;

	if (!t.gone)
		kill(t.rig.pid, SIGUSR1);
	while (waitpid(t.rig.pid, &status, WNOHANG) == 0) {
		if (now_ms() - began > 10000u * rig_slowness())
			fail_msg("the drive does not end");
		usleep(1000);
	}
	t.rig.pid = 0;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != STATUS_CUT)
		fail_msg("the drive ended with status %#x", status);
}

static void work_and_cut(bool counted)
{
	unsigned int steps = counted ? 2000 : draw(300);

	while (steps-- && step())
		;
	power_off();
	drain();
	host_detach(&t.ctrl);
	check_image();
}

static uint32_t model_anew(void)
{
	uint32_t lba = !t.ring && draw(2) ? 512 : 4096; /* only whole pages go by the ring */
	uint64_t cap;

	start(lba);
	cap = le64toh(rig_zone(&t.ctrl.io[0], &t.ns, 0).zcap);
	model_init(&t.model, t.ns.zones, cap, lba);
	t.in_flight = calloc(t.ns.zones, sizeof(*t.in_flight));
	t.exclusive = calloc(t.ns.zones, sizeof(*t.exclusive));
	assert_non_null(t.in_flight);
	assert_non_null(t.exclusive);
	return lba;
}

static void forget_drive(void)
{
	model_free(&t.model);
	free(t.in_flight);
	free(t.exclusive);
}

static void a_power_cut_loses_nothing_that_was_flushed(void **state)
{
	static const char *const modes[] = { "writeback", "none", "auto" };
	uint64_t seed = number("CUT_SEED", 1), rounds = number("CUT_ROUNDS", 120 / rig_slowness());
	struct pending pending[DEPTH];
	size_t nr_pending = 0;
	uint32_t lba = 0;

	(void)state;
	t.next_id = 1;
	for (t.round = 0; t.round < rounds; t.round++) {
		bool counted;

		t.rnd = seed << 32 | t.round;
		counted = arm();
		t.calm = !draw(3);
		t.reset = 0; /* the drive may be another, with fewer zones */
		if (t.round % ROUNDS_A_DRIVE == 0) {
			if (t.round)
				forget_drive();
			t.cache = modes[planted() ? 1 : t.round / ROUNDS_A_DRIVE % 3];
			t.ring = strcmp(t.cache, modes[0]);
			new_drive();
			lba = model_anew();
		} else {
			start(lba);
			judge(pending, nr_pending);
		}
		work_and_cut(counted);
		nr_pending = abandon(pending);
	}
	unsetenv("ZNSD_CUT");
	start(lba);
	judge(pending, nr_pending);
	host_detach(&t.ctrl);
	assert_int_equal(rig_stop(&t.rig, SIGTERM, 10000 * rig_slowness(), NULL), 0);
	forget_drive();
	printf("%u cuts (%u in a start), %u commands, %u flushes\n", t.cuts, t.in_start, t.commands,
	       t.flushes);
}

static int setup(void **state)
{
	(void)state;
	rig_init(&t.rig);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	printf("CUT_SEED=%llu, round %u\n", (unsigned long long)number("CUT_SEED", 1), t.round);
	rig_end(&t.rig);
	return 0;
}

int main(void)
{
	int failed;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_power_cut_loses_nothing_that_was_flushed, setup,
						teardown),
	};

	setvbuf(stdout, NULL, _IOLBF, 0);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	tally("cut seed=%llu cuts=%u commands=%u flushes=%u violations=%d",
	      (unsigned long long)number("CUT_SEED", 1), t.cuts, t.commands, t.flushes, failed);
	return failed;
}
