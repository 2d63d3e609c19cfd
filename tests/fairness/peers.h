/* SPDX-License-Identifier: MIT */
/*
 * A well-behaved host that measures its own latency, and hosts that behave badly beside it. Failures
 * are assertions. One thread a host.
 */
#ifndef PEERS_H
#define PEERS_H

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon.h"

#define MIB	 (1u << 20)
#define BAD_NQN	 "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-00000000bad1"
#define GOOD_NQN HOST_NQN

/* --- the good host --- */

#define GOOD_LARGE 60  /* appends of 1 MiB in a round */
#define GOOD_SMALL 300 /* appends and reads of 4 KiB each */

struct good {
	struct host_ctrl c;
	struct rig_ns ns;
	uint64_t zone, used; /* blocks of the zone that it appends to */
	uint8_t *data;
};

/* 99th percentiles, in microseconds. */
struct latency {
	uint64_t large, small, read;
};

static inline uint64_t peers_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static inline void good_attach(struct good *g, struct rig *rig)
{
	memset(g, 0, sizeof(*g));
	assert_int_equal(host_attach(&g->c, "127.0.0.1", rig->port, RIG_NQN, GOOD_NQN, NULL, 1, 0),
			 0);
	rig_identify(&g->c, 1, &g->ns);
	g->data = malloc(MIB);
	assert_non_null(g->data);
	host_pattern(g->data, MIB, 0, 1);
	/* 4 KiB to read later. */
	assert_int_equal(host_zone(&g->c.io[0], 1, g->ns.zsze, NVME_ZNS_ZSA_RESET, false), 0);
	assert_int_equal(
		host_append(&g->c.io[0], 1, g->ns.zsze, 4096 / g->ns.lba, g->data, 4096, NULL), 0);
}

static inline void good_detach(struct good *g)
{
	host_detach(&g->c);
	free(g->data);
}

/* One append of LEN bytes to zone 0, which is reset when it is full; how long it took. */
static inline uint64_t good_append(struct good *g, uint32_t len)
{
	uint32_t blocks = len / g->ns.lba;
	uint64_t start;

	if (g->used + blocks > g->ns.zsze) {
		assert_int_equal(host_zone(&g->c.io[0], 1, 0, NVME_ZNS_ZSA_RESET, false), 0);
		g->used = 0;
	}
	g->used += blocks;
	start = peers_us();
	assert_int_equal(host_append(&g->c.io[0], 1, 0, blocks, g->data, len, NULL), 0);
	return peers_us() - start;
}

static inline uint64_t good_read(struct good *g)
{
	uint64_t start = peers_us();

	assert_int_equal(host_read(&g->c.io[0], 1, g->ns.zsze, 4096 / g->ns.lba, g->data, 4096), 0);
	return peers_us() - start;
}

static inline int peers_by_value(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static inline uint64_t peers_p99(uint64_t *took, unsigned int n)
{
	qsort(took, n, sizeof(*took), peers_by_value);
	return took[n * 99 / 100];
}

static inline uint64_t peers_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* The best of three rounds, since other programs use this machine, too. */
static inline struct latency good_measure(struct good *g)
{
	struct latency best = { UINT64_MAX, UINT64_MAX, UINT64_MAX };

	for (int round = 0; round < 3; round++) {
		uint64_t took[GOOD_SMALL];

		for (int i = 0; i < GOOD_LARGE; i++)
			took[i] = good_append(g, MIB);
		best.large = peers_min(best.large, peers_p99(took, GOOD_LARGE));
		for (int i = 0; i < GOOD_SMALL; i++)
			took[i] = good_append(g, 4096);
		best.small = peers_min(best.small, peers_p99(took, GOOD_SMALL));
		for (int i = 0; i < GOOD_SMALL; i++)
			took[i] = good_read(g);
		best.read = peers_min(best.read, peers_p99(took, GOOD_SMALL));
	}
	return best;
}

static inline void peers_print(const char *beside, const struct latency *l)
{
	printf("p99 of the good host %-28s append 1 MiB %6llu us, append 4 KiB %5llu us, "
	       "read 4 KiB %5llu us\n",
	       beside, (unsigned long long)l->large, (unsigned long long)l->small,
	       (unsigned long long)l->read);
}

enum { RANK_BAD = 1, RANK_GOOD };

/*
 * Gives the calling thread, and what it starts, the processor before all other programs, so that a
 * latency is the drive's and not the scheduler's. The good host and the drive come before bad hosts, which
 * in life are on other machines. False: it is not permitted.
 */
static inline bool peers_rank(int rank)
{
	const struct sched_param p = { .sched_priority = rank };

	return !sched_setscheduler(0, SCHED_FIFO, &p);
}

/*
 * Whether NOW is within twice ALONE. Without peers_rank(), what is below 5 ms may be the scheduler; under
 * a sanitizer, which is there to find other things, what is below half a second is no matter.
 */
static inline bool peers_within_twice(const struct latency *alone, const struct latency *now)
{
	const bool first = sched_getscheduler(0) == SCHED_FIFO;
	const uint64_t noise = rig_slowness() > 1 ? 500000 : first ? 0 : 5000; /* us */

	return (now->large <= 2 * alone->large || now->large < noise) &&
	       (now->small <= 2 * alone->small || now->small < noise) &&
	       (now->read <= 2 * alone->read || now->read < noise);
}

/*
 * G is as fast as ALONE beside WHO. A busy machine may make it slow at times, so it is measured up to
 * eight times; a host that is held up is slow each time.
 */
static inline void good_expect(struct good *g, const struct latency *alone, const char *who)
{
	for (int i = 0; i < 8; i++) {
		struct latency now = good_measure(g);

		peers_print(who, &now);
		if (peers_within_twice(alone, &now))
			return;
	}
	fail_msg("the good host is slow %s", who);
}

/*
 * Starts a drive of GEOMETRY (options of rig_create()), attaches G, and measures it ALONE. 0, or -1: the
 * drive does not start. peers_stop() ends both.
 */
static inline int peers_start(struct rig *rig, const char *geometry, struct good *g,
			      struct latency *alone)
{
	const char *const args[] = { rig->img, NULL };

	if (!peers_rank(RANK_GOOD))
		printf("no SCHED_FIFO: latencies below 5 ms are not judged\n");
	rig_init(rig);
	if (rig_create(rig, rig->img, geometry) || rig_start(rig, args, NULL))
		return -1;
	good_attach(g, rig);
	good_measure(g); /* the first pass allocates */
	*alone = good_measure(g);
	peers_print("alone", alone);
	return 0;
}

static inline void peers_stop(struct rig *rig, struct good *g)
{
	good_detach(g);
	rig_end(rig);
}

/* --- bad hosts --- */

#define BAD_QUEUES 4
#define BAD_DEPTH  120

struct bad {
	struct host_ctrl c;
	struct host_io io[BAD_QUEUES][BAD_DEPTH];
	uint8_t *data;
};

static inline void bad_attach(struct bad *b, struct rig *rig)
{
	memset(b, 0, sizeof(*b));
	b->data = calloc(1, MIB);
	assert_non_null(b->data);
	assert_int_equal(
		host_attach(&b->c, "127.0.0.1", rig->port, RIG_NQN, BAD_NQN, NULL, BAD_QUEUES, 0),
		0);
}

static inline void bad_detach(struct bad *b)
{
	host_detach(&b->c);
	free(b->data);
}

/* Submits all that its queues take: OPCODE of 1 MiB each at SLBA. Nothing is sent or taken after. */
static inline void bad_submit(struct bad *b, const struct rig_ns *ns, uint8_t opcode, uint64_t slba)
{
	for (int q = 0; q < BAD_QUEUES; q++) {
		for (int i = 0; i < BAD_DEPTH; i++) {
			host_set_rw(&b->io[q][i], opcode, 1, slba, MIB / ns->lba, b->data, MIB);
			assert_int_equal(host_submit(&b->c.io[q], &b->io[q][i]), 0);
		}
	}
}

#endif
