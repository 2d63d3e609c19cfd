/* SPDX-License-Identifier: MIT */
/*
 * An event loop: one thread with a libevent base of its own. Only that thread touches what belongs
 * to the loop; other threads post messages to it. Work that may block goes to the worker threads,
 * and its completion comes back as a message.
 */
#ifndef TARGET_LOOP_H
#define TARGET_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include "clock.h"

#define LOOP_MAX 64 /* at a time */

struct event_base;
struct event;
struct aio_ring;
struct loop;
struct workers;

/* A message, embedded in the object it is about. It may be posted again once FN has been called. */
struct loop_msg {
	STAILQ_ENTRY(loop_msg) link;
	void (*fn)(struct loop_msg *);
};

/*
 * Creates a loop that submits its blocking work to POOL, which must outlive it; NULL if it has no
 * such work. The caller owns it. NULL: out of memory or file descriptors, or there are LOOP_MAX.
 */
struct loop *loop_new(struct workers *pool);
/* Frees LOOP, which does not run. Messages that have not run are dropped; they are not freed. */
void loop_free(struct loop *loop);
/* Below LOOP_MAX, and not that of any other loop that exists at the same time. */
uint8_t loop_index(const struct loop *loop);
struct event_base *loop_base(struct loop *loop);
struct workers *loop_pool(struct loop *loop);
/* Where aio.c keeps the ring of LOOP; loop_free() frees the ring. */
struct aio_ring **loop_ring(struct loop *loop);

/*
 * Makes LOOP poll for US microseconds after the last activity before it sleeps. 0, the default: it
 * sleeps at once. Call it before loop_run().
 */
void loop_busy_poll(struct loop *loop, unsigned int us);
/*
 * Notes activity: the time of loop_busy_poll() begins again. Whoever adds a file descriptor to the
 * base calls this when it was ready. LOOP's thread.
 */
void loop_note_activity(struct loop *loop);
/*
 * Adds NR (-1: subtracts) to the number of work items that the workers have for LOOP. While it is
 * above 0 the loop sleeps instead of polling, because a worker may need its processor.
 */
void loop_note_work(struct loop *loop, int nr);

/* Runs LOOP in the calling thread, which becomes the loop's thread, until loop_stop(). */
void loop_run(struct loop *loop);
/* Makes loop_run() return after the current events. Any thread. */
void loop_stop(struct loop *loop);

/* The loop that the calling thread runs; NULL: none. */
struct loop *loop_current(void);

/*
 * Calls msg->fn(MSG) on LOOP's thread, in the order of posting. The caller keeps MSG alive until
 * then. Any thread. The loop is woken once for all messages that are posted before it takes them.
 */
void loop_post(struct loop *loop, struct loop_msg *msg);

/*
 * A one-shot timer. All functions run on its loop's thread, or before loop_run(). A loop without an
 * armed timer has no periodic wake-up.
 */
struct loop_timer {
	struct event *ev;
	void (*fn)(struct loop_timer *);
};
/* 0 or -ENOMEM. On success loop_timer_free() must be called before LOOP is freed. */
int loop_timer_init(struct loop_timer *t, struct loop *loop, void (*fn)(struct loop_timer *));
/*
 * Calls t->fn(T) once, after MS milliseconds; a timer that is armed is moved, and that cannot fail.
 * 0, or -ENOMEM: it will not fire.
 */
int loop_timer_arm(struct loop_timer *t, uint64_t ms);
void loop_timer_disarm(struct loop_timer *t);
void loop_timer_free(struct loop_timer *t);

#endif
