/* SPDX-License-Identifier: MIT */
/*
 * Worker threads run what may block. A work item crosses threads once each way: work() runs on a
 * worker, as straight-line code that may block; then done() runs on the loop that submitted it.
 */
#ifndef TARGET_WORK_H
#define TARGET_WORK_H

#include "loop.h"

struct work {
	struct loop_msg msg; /* brings it back to its loop */
	struct loop *loop;
	STAILQ_ENTRY(work) link;
	void (*work)(struct work *);
	void (*done)(struct work *);
};

/* Starts THREADS workers. NULL: out of memory or threads. */
struct workers *workers_new(unsigned int threads);
/* Ends and frees POOL. Every work item has been done() before. */
void workers_free(struct workers *pool);

/*
 * Runs WORK(W) on a worker, then DONE(W) on LOOP. Work items start in the order of submission and
 * may end in any order. LOOP's thread only. The caller keeps W alive until DONE, which may free it.
 */
void work_submit(struct loop *loop, struct work *w, void (*work)(struct work *),
		 void (*done)(struct work *));

#endif
