/* SPDX-License-Identifier: MIT */
/*
 * Workers run what may block. A ticket crosses the thread border once each way: work() on a worker,
 * straight-line code that may block; then done() on the loop it came from.
 */
#ifndef TARGET_WORK_H
#define TARGET_WORK_H

#include "loop.h"

struct work {
	struct loop_msg home;
	struct loop *loop;
	STAILQ_ENTRY(work) link;
	void (*work)(struct work *);
	void (*done)(struct work *);
};

struct workers *workers_new(unsigned int threads); /* NULL: out of memory or threads */
void workers_free(struct workers *pool);	   /* after the last ticket is home */

/* From the thread of LOOP: tickets start in the order they were submitted. */
void work_submit(struct loop *loop, struct work *w, void (*work)(struct work *),
		 void (*done)(struct work *));

#endif
