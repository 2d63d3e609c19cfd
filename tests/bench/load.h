/* SPDX-License-Identifier: MIT */
/* Commands in flight on many connections, as fast as they go: see load.c. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdbool.h>
#include <stdint.h>
#include "hist.h"
#include "host.h"
#include "plan.h"

#define LOAD_DEPTH 128 /* at most */
#define LOAD_FULL  1

struct load_conn;

struct load {
	struct plan *plan;
	uint32_t depth, max_conns, nr_conns;
	struct load_conn *conns;
	uint32_t inflight;
	bool poll; /* never sleep: the caller's to set */
	bool stopping, full;
	uint64_t budget; /* reads and writes that may still be sent: the caller's to set */
	uint64_t until;	 /* ns */
	int epoll;
	uint8_t *rx, *data;
	char why[160]; /* the sentence to an error */
	/* Counted by all runs since load_clear(). */
	struct hist hist;    /* of all commands but Flush */
	struct hist flushes; /* of these */
	uint64_t ns, wakes, sends;
};

int load_init(struct load *l, struct plan *plan, uint32_t conns, uint32_t depth);
/* Takes a connected I/O queue, whose socket stays the caller's to close. 0 or -errno. */
int load_add(struct load *l, const struct host_queue *q);
void load_fini(struct load *l);

void load_clear(struct load *l);
/*
 * Keeps all slots busy for NS nanoseconds, or until the budget is spent, and returns when none is:
 * 0; LOAD_FULL when the plan had nothing more before that; or -errno, with why, and connections that are good for nothing.
 */
int load_run(struct load *l, uint64_t ns);

uint64_t load_clock(void); /* ns, monotonic */

#endif
