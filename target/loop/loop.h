/* SPDX-License-Identifier: MIT */
/*
 * An event loop is one thread with one libevent base of its own. What belongs to a loop is touched
 * by its thread only; other threads hand it messages. Blocking work goes to the workers, and comes
 * home as a message.
 */
#ifndef TARGET_LOOP_H
#define TARGET_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include "clock.h"

struct event_base;
struct event;
struct aio_ring;
struct loop;
struct workers;

/* A message, embedded in what it is about; free again before fn is called. */
struct loop_msg {
	STAILQ_ENTRY(loop_msg) link;
	void (*fn)(struct loop_msg *);
};

/* A loop whose blocking work goes to POOL (may be NULL when it has none). NULL: out of memory. */
struct loop *loop_new(struct workers *pool);
void loop_free(struct loop *loop); /* after loop_run(); messages not yet run are forgotten */
struct event_base *loop_base(struct loop *loop);
struct workers *loop_pool(struct loop *loop);
struct aio_ring **loop_ring(struct loop *loop); /* aio.c's place; freed with the loop */

/*
 * After something has happened, LOOP looks for more for US microseconds before it sleeps (0, as it is
 * made: sleeps at once). Before loop_run().
 */
void loop_busy_poll(struct loop *loop, unsigned int us);
/* Something has happened; called by those who have descriptors of their own in the base. */
void loop_stirred(struct loop *loop);
/* So many more tickets are with the workers, or fewer: to these it leaves the processor. */
void loop_away(struct loop *loop, int tickets);

/* Runs until loop_stop(), in the calling thread, which becomes the loop's thread. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop); /* any thread */

/* The loop whose thread this is, or NULL. */
struct loop *loop_current(void);

/* Any thread: has msg->fn called on LOOP, in order of posting. Wakes the loop once a batch. */
void loop_post(struct loop *loop, struct loop_msg *msg);

/* One-shot timers; only on their own loop. Arming again moves it. No tick when none is armed. */
struct loop_timer {
	struct event *ev;
	void (*fn)(struct loop_timer *);
};
int loop_timer_init(struct loop_timer *t, struct loop *loop, void (*fn)(struct loop_timer *));
/* 0, or -ENOMEM: it will not fire. Moving one that is armed cannot fail. */
int loop_timer_arm(struct loop_timer *t, uint64_t ms);
void loop_timer_disarm(struct loop_timer *t);
void loop_timer_free(struct loop_timer *t);

#endif
