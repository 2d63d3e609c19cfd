// SPDX-License-Identifier: MIT
/*
 * D7: kill -9 of znsd under load loses nothing whose completion was sent.
 *
 * Several queues append, write, reset, finish and flush, each in zones of its own, until the daemon
 * is killed at a random moment; some kills come while it starts, that is while it takes over what
 * the one before has left. Then the image is checked, a new daemon started, and every zone compared
 * with what its queue knows:
 *
 *	acknowledged writes	read back, at the address that was told
 *	acknowledged reset	empty; finish: full, data below, zeroes above
 *	unanswered ones		in effect or not: blocks that nobody knows of must be whole blocks
 *				of a write that was not answered; a zone that was being reset is
 *				empty or as before
 *	write pointers		never below what was acknowledged
 *
 * Every block tells the number of its command and its place in it. $KILL_SEED and $KILLS (220)
 * choose what is done; a failure prints the seed and the kill.
 */
#include <fcntl.h>
#include <pthread.h>
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

#define QUEUES	     3u
#define ZONES	     24u
#define BLOCK	     512u
#define ZBLOCKS	     2048u /* 1 MiB */
#define CAP	     1920u
#define BURST	     8u
#define MAX_BLOCKS   128u
#define IMAGE	     "size=24M,zone.size=1M,zone.capacity=960K,zone.mode=host-managed"
#define CHECK_LEAKED 3

struct place {
	uint64_t tag; /* 0: nothing acknowledged */
	uint32_t index;
};

struct zone {
	uint64_t wp;   /* end of what was acknowledged */
	uint64_t data; /* of a finished zone: zeroes from here on */
	bool finished;
	struct place at[ZBLOCKS];
	/* Not answered. */
	bool resetting, finishing;
	struct {
		uint64_t tag;
		uint32_t blocks;
	} pending[BURST];
	unsigned int nr_pending;
	uint64_t room; /* blocks not asked for */
};

struct worker {
	pthread_t thread;
	unsigned int me;
	struct host_queue *q;
	uint64_t rng, tag;
	uint64_t done; /* commands answered */
	const char *bad;
	int status;
	uint8_t buf[BURST][MAX_BLOCKS * BLOCK];
	struct host_io io[BURST];
};

static struct rig rig;
static struct host_ctrl ctrl;
static struct zone zones[ZONES];
static struct worker workers[QUEUES];
static uint64_t seed;
static unsigned int round_nr;

static uint64_t rnd(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static uint64_t below(uint64_t *state, uint64_t n)
{
	return rnd(state) % n;
}

static void fill(uint8_t *block, uint64_t tag, uint64_t index)
{
	host_pattern(block, BLOCK, index * BLOCK, tag);
	memcpy(block, &tag, 8);
	memcpy(block + 8, &index, 8);
}

/* --- load --- */

static void forget_pending(struct zone *z, uint64_t tag)
{
	for (unsigned int i = 0; i < z->nr_pending; i++)
		if (z->pending[i].tag == tag) {
			z->pending[i] = z->pending[--z->nr_pending];
			return;
		}
	abort();
}

static void acknowledged(struct zone *z, uint64_t lba, uint64_t tag, uint32_t blocks)
{
	forget_pending(z, tag);
	for (uint32_t i = 0; i < blocks; i++)
		z->at[lba + i] = (struct place){ tag, i };
	if (lba + blocks > z->wp)
		z->wp = lba + blocks;
}

static struct zone *zone_of_io(const struct host_io *io)
{
	return &zones[le32toh(io->sqe.cdw10) / ZBLOCKS];
}

/* False: the daemon is gone. */
static bool reap(struct worker *w)
{
	struct host_io *io;
	uint64_t lba;

	if (host_reap(w->q, &io))
		return false;
	w->done++;
	if (io->status) {
		w->bad = "a write was refused";
		w->status = io->status;
		return false;
	}
	lba = io->sqe.opcode == nvme_zns_cmd_append ? le64toh(io->cqe.result)
						    : le32toh(io->sqe.cdw10);
	if (&zones[lba / ZBLOCKS] != zone_of_io(io) || lba % ZBLOCKS + io->len / BLOCK > CAP) {
		w->bad = "an append landed outside its zone";
		return false;
	}
	acknowledged(zone_of_io(io), lba % ZBLOCKS, io->tag, io->len / BLOCK);
	return true;
}

static bool submit(struct worker *w, unsigned int slot, uint32_t zone, bool append)
{
	struct zone *z = &zones[zone];
	uint64_t most = below(&w->rng, 4) ? 8 : MAX_BLOCKS;
	uint32_t blocks = 1 + below(&w->rng, most < z->room ? most : z->room);
	struct host_io *io = &w->io[slot];
	uint64_t tag = ++w->tag << 8 | w->me;

	for (uint32_t i = 0; i < blocks; i++)
		fill(w->buf[slot] + i * BLOCK, tag, i);
	memset(io, 0, sizeof(*io));
	host_set_rw(io, append ? nvme_zns_cmd_append : nvme_cmd_write, 1,
		    zone * ZBLOCKS + (append ? 0 : CAP - z->room), blocks, w->buf[slot],
		    blocks * BLOCK);
	if (!below(&w->rng, 16))
		io->sqe.cdw12 |= htole32((uint32_t)NVME_IO_FUA << 16);
	io->tag = tag;
	z->room -= blocks;
	z->pending[z->nr_pending].tag = tag;
	z->pending[z->nr_pending++].blocks = blocks;
	return !host_submit(w->q, io);
}

/* Appends, or writes one behind the other, all in flight together. */
static bool burst(struct worker *w, uint32_t zone)
{
	unsigned int n = 1 + below(&w->rng, BURST), sent = 0;
	bool append = below(&w->rng, 4), well = true;

	/* TCP keeps the order of one queue's writes, but R2T need not: large ones go alone. */
	if (!append)
		n = 1;
	while (well && sent < n && zones[zone].room)
		well = submit(w, sent++, zone, append);
	while (well && sent--)
		well = reap(w);
	return well;
}

/* A command without data: STATUS in 0; false: the daemon is gone. */
static bool manage(struct worker *w, uint32_t zone, enum nvme_zns_send_action action)
{
	int ret = host_zone(w->q, 1, zone * ZBLOCKS, action, false);

	if (ret > 0) {
		w->bad = "a zone action was refused";
		w->status = ret;
	}
	w->done += !ret;
	return !ret;
}

static bool reset(struct worker *w, uint32_t zone)
{
	struct zone *z = &zones[zone];

	z->resetting = true;
	if (!manage(w, zone, NVME_ZNS_ZSA_RESET))
		return false;
	memset(z, 0, sizeof(*z));
	z->room = CAP;
	return true;
}

static bool finish(struct worker *w, uint32_t zone)
{
	struct zone *z = &zones[zone];

	z->finishing = true;
	if (!manage(w, zone, NVME_ZNS_ZSA_FINISH))
		return false;
	z->finishing = false;
	if (z->wp < CAP) { /* else it was full, and nothing had to be done */
		z->finished = true;
		z->data = z->wp;
		z->wp = CAP;
	}
	z->room = 0;
	return true;
}

static bool step(struct worker *w)
{
	uint32_t zone = below(&w->rng, ZONES / QUEUES) * QUEUES + w->me;
	unsigned int dice = below(&w->rng, 100);

	if (dice < 3) {
		int ret = host_flush(w->q, 1);

		w->done += !ret;
		return !ret;
	}
	if (dice < 6)
		return finish(w, zone);
	if (dice < 14 || !zones[zone].room)
		return reset(w, zone);
	return burst(w, zone);
}

static void *work(void *arg)
{
	while (step(arg))
		;
	return NULL;
}

/* --- verdict --- */

__attribute__((format(printf, 2, 3), noreturn)) static void lost(uint32_t zone, const char *fmt,
								 ...)
{
	const struct zone *z = &zones[zone];
	va_list ap;

	fprintf(stderr, "seed %llu, kill %u, zone %u (wp %llu%s%s%s, %u unanswered): ",
		(unsigned long long)seed, round_nr, zone, (unsigned long long)z->wp,
		z->finished ? ", finished" : "", z->resetting ? ", in reset" : "",
		z->finishing ? ", in finish" : "", z->nr_pending);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	rig_end(&rig);
	exit(1);
}

/* A block that was not acknowledged and lies below the write pointer. */
static void adopt_block(uint32_t zone, uint64_t lba, const uint8_t *block)
{
	struct zone *z = &zones[zone];
	uint64_t tag, index;
	uint8_t want[BLOCK];
	unsigned int i;

	memcpy(&tag, block, 8);
	memcpy(&index, block + 8, 8);
	for (i = 0; i < z->nr_pending && z->pending[i].tag != tag; i++)
		;
	if (i == z->nr_pending)
		lost(zone, "block %llu has data of nobody (%016llx)", (unsigned long long)lba,
		     (unsigned long long)tag);
	fill(want, tag, index);
	if (index >= z->pending[i].blocks || memcmp(block, want, BLOCK) ||
	    (index && (z->at[lba - 1].tag != tag || z->at[lba - 1].index + 1 != index)))
		lost(zone, "block %llu is torn", (unsigned long long)lba);
	z->at[lba] = (struct place){ tag, (uint32_t)index };
}

static void compare(uint32_t zone, uint64_t lba, const uint8_t *block)
{
	static const uint8_t zeroes[BLOCK];
	struct zone *z = &zones[zone];
	uint8_t want[BLOCK];

	if (z->finished && lba >= z->data) {
		if (memcmp(block, zeroes, BLOCK))
			lost(zone, "block %llu behind the finish is not zero",
			     (unsigned long long)lba);
		return;
	}
	if (!z->at[lba].tag) {
		adopt_block(zone, lba, block);
		return;
	}
	fill(want, z->at[lba].tag, z->at[lba].index);
	if (memcmp(block, want, BLOCK))
		lost(zone, "block %llu is not what was acknowledged", (unsigned long long)lba);
}

static void read_zone(struct host_queue *q, uint32_t zone, uint64_t wp)
{
	static uint8_t buf[MAX_BLOCKS * BLOCK];

	for (uint64_t lba = 0; lba < wp;) {
		uint32_t n = wp - lba < MAX_BLOCKS ? wp - lba : MAX_BLOCKS;
		int ret = host_read(q, 1, zone * ZBLOCKS + lba, n, buf, n * BLOCK);

		if (ret)
			lost(zone, "block %llu cannot be read: %d", (unsigned long long)lba, ret);
		for (uint32_t i = 0; i < n; i++)
			compare(zone, lba + i, buf + i * BLOCK);
		lba += n;
	}
}

/* Compares a zone, and takes what became of the unanswered for acknowledged from here on. */
static void judge(struct host_queue *q, uint32_t zone, const struct nvme_zns_desc *d)
{
	struct zone *z = &zones[zone];
	bool full = d->zs >> 4 == NVME_ZNS_ZS_FULL;
	uint64_t wp = full ? CAP : le64toh(d->wp) - zone * ZBLOCKS;

	if (z->resetting && wp == 0 && !full) {
		memset(z, 0, sizeof(*z));
	} else if (z->finishing && full && z->wp < CAP) {
		z->finished = true;
		z->data = z->wp;
		z->wp = CAP;
	}
	if (wp < z->wp || wp > CAP)
		lost(zone, "the write pointer is %llu", (unsigned long long)wp);
	if (wp > z->wp && !z->nr_pending)
		lost(zone, "the write pointer has gone to %llu", (unsigned long long)wp);
	read_zone(q, zone, wp);
	z->wp = wp;
	z->room = CAP - wp;
	z->resetting = z->finishing = false;
	z->nr_pending = 0;
}

/* --- kills --- */

/* A daemon that is killed before it says anything. */
static void kill_while_starting(uint64_t *rng)
{
	char img[128];
	const char *argv[] = { getenv("ZNSD"), "--listen", "127.0.0.1:0", "--nqn", RIG_NQN,
			       "--shadow",     rig.shadow, img,		  NULL };
	int status, fd = open(rig.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	pid_t pid;

	snprintf(img, sizeof(img), "%s,lba=512", rig.img);
	pid = fork();
	if (!pid) {
		dup2(fd, 1);
		dup2(fd, 2);
		execv(argv[0], (char *const *)argv);
		_exit(127);
	}
	close(fd);
	usleep(below(rng, 12000 * rig_slowness()));
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
}

static void check_image(void)
{
	int ret = rig_check(&rig, rig.img);

	if (ret && ret != CHECK_LEAKED)
		lost(0, "znsimg check finds %d; the image is %s", ret, rig.img);
}

static void load_and_kill(uint64_t *rng)
{
	/* Half of them early, where a daemon has just begun. */
	unsigned int ms = 1 + below(rng, below(rng, 2) ? 30 : 300);

	for (unsigned int i = 0; i < QUEUES; i++) {
		workers[i].me = i;
		workers[i].q = &ctrl.io[i];
		workers[i].rng = rnd(rng);
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			abort();
	}
	usleep(ms * 1000 * (rig_slowness() > 1 ? 3 : 1));
	rig_stop(&rig, SIGKILL, 10000, NULL);
	for (unsigned int i = 0; i < QUEUES; i++)
		pthread_join(workers[i].thread, NULL);
	host_detach(&ctrl);
	for (unsigned int i = 0; i < QUEUES; i++)
		if (workers[i].bad)
			lost(i, "%s: status %03x", workers[i].bad, workers[i].status);
}

static void start_and_judge(void)
{
	const char *args[] = { "--threads", "2", rig.img, NULL };
	struct nvme_zone_report *report;
	struct rig_ns ns;

	assert_int_equal(rig_start(&rig, args, NULL), 0);
	rig_attach(&rig, &ctrl, QUEUES);
	rig_identify(&ctrl, 1, &ns);
	report = rig_zones(&ctrl.io[0], &ns);
	for (uint32_t i = 0; i < ZONES; i++)
		judge(&ctrl.io[0], i, &report->entries[i]);
	free(report);
}

/* What the tally tells; nothing of it if the test ended early. */
static uint64_t kills_done, starting_done, commands_done;

static void a_kill_loses_nothing_acknowledged(void **state)
{
	const char *kills = getenv("KILLS"), *given = getenv("KILL_SEED");
	unsigned int n = kills ? strtoul(kills, NULL, 0) : 220 / (rig_slowness() > 1 ? 4 : 1);
	uint64_t began = now_ms(), done = 0, early = 0;

	(void)state;
	seed = given ? strtoull(given, NULL, 0) : 1;
	for (uint32_t i = 0; i < ZONES; i++)
		zones[i].room = CAP;
	rig_init(&rig);
	assert_int_equal(rig_create(&rig, rig.img, IMAGE), 0);
	for (round_nr = 0; round_nr < n; round_nr++) {
		uint64_t rng = seed * 1000003 + round_nr;

		start_and_judge();
		load_and_kill(&rng);
		check_image();
		for (; !below(&rng, 5); early++) {
			kill_while_starting(&rng);
			check_image();
		}
	}
	start_and_judge();
	host_detach(&ctrl);
	assert_int_equal(rig_stop(&rig, SIGTERM, 10000 * rig_slowness(), NULL), 0);
	check_image();
	for (unsigned int i = 0; i < QUEUES; i++)
		done += workers[i].done;
	print_message(
		"seed %llu: %u kills under load, %llu while starting, %llu commands, %llu s\n",
		(unsigned long long)seed, n, (unsigned long long)early, (unsigned long long)done,
		(unsigned long long)(now_ms() - began) / 1000);
	kills_done = n;
	starting_done = early;
	commands_done = done;
	assert_true(done > n * 10);
	rig_end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(a_kill_loses_nothing_acknowledged) };

	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	tally("kill seed=%llu kills_under_load=%llu kills_while_starting=%llu commands=%llu "
	      "violations=%d",
	      (unsigned long long)seed, (unsigned long long)kills_done,
	      (unsigned long long)starting_done, (unsigned long long)commands_done, failed);
	return failed;
}
