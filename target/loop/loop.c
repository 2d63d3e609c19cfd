/* SPDX-License-Identifier: MIT */
/*
 * An event loop: one thread, one libevent base, one list of messages from other threads.
 *
 * The base is created with EVENT_BASE_FLAG_NOLOCK, so only the loop's own thread may touch it.
 * Other threads append a message to the posted list and, if the list was empty, write the eventfd.
 * The loop then takes the whole list at once: a burst of completions costs one write and one
 * wake-up.
 *
 * With loop_busy_poll() the loop polls for a while after the last activity before it sleeps, except
 * while workers have work items of this loop: they may need the processor that polling would take.
 *
 * Invariants:
 *  1. If the posted list is not empty, the eventfd was written since it was last read, or a thread
 *     that holds post_lock is about to write it. So no message is left without a wake-up.
 *  2. Messages run in the order in which they were posted. A message is on no list when its
 *     function is called, so the function may post it again or free it.
 *  3. post_lock is a leaf and is never held while a message runs.
 *
 * Threads: loop_post() and loop_stop() from any; the rest from the loop's own, or before loop_run()
 * and after it.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <event2/event.h>
#include "aio.h"
#include "loop.h"

STAILQ_HEAD(loop_msgs, loop_msg);

struct loop {
	struct event_base *base;
	struct workers *pool;
	uint8_t index;
	struct aio_ring *ring; /* NULL: not needed yet */
	struct event *wake_ev;
	int wake_fd;
	uint64_t busy_ns;    /* how long it polls after the last activity */
	uint64_t busy_until; /* when it stops polling */
	bool active;	     /* since busy_until was set */
	int with_workers;    /* work items of this loop */
	atomic_bool stopping;
	pthread_mutex_t post_lock; /* protects posted; a leaf */
	struct loop_msgs posted;
};

static _Thread_local struct loop *current;

static _Atomic uint64_t indices; /* a bit for each loop that exists */
static_assert(LOOP_MAX <= 64, "");

/* Takes the lowest free index. False: there is none. */
static bool take_index(uint8_t *index)
{
	uint64_t taken = atomic_load(&indices);

	do {
		if (!~taken)
			return false;
		*index = (uint8_t)__builtin_ctzll(~taken);
	} while (!atomic_compare_exchange_weak(&indices, &taken, taken | 1ull << *index));
	return true;
}

static void give_index(uint8_t index)
{
	atomic_fetch_and(&indices, ~(1ull << index));
}

static void loop_kick(struct loop *loop)
{
	const uint64_t one = 1;
	ssize_t n;

	/* EAGAIN cannot happen before 2^64 writes without a read; EINTR can. */
	do
		n = write(loop->wake_fd, &one, sizeof(one));
	while (n < 0 && errno == EINTR);
	assert(n == sizeof(one));
}

/* Reads the eventfd before it takes the list: a message posted in between writes it again. */
static void loop_woken(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;
	struct loop_msgs batch = STAILQ_HEAD_INITIALIZER(batch);
	struct loop_msg *msg;
	uint64_t count;
	ssize_t n;

	(void)what;
	loop_note_activity(loop);
	n = read(fd, &count, sizeof(count));
	(void)n;
	pthread_mutex_lock(&loop->post_lock);
	STAILQ_CONCAT(&batch, &loop->posted);
	pthread_mutex_unlock(&loop->post_lock);
	while ((msg = STAILQ_FIRST(&batch))) {
		STAILQ_REMOVE_HEAD(&batch, link);
		msg->fn(msg);
	}
	if (atomic_load(&loop->stopping))
		event_base_loopbreak(loop->base);
}

static struct event_base *base_new(void)
{
	struct event_config *cfg = event_config_new();
	struct event_base *base;

	if (!cfg)
		return NULL;
	event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
	base = event_base_new_with_config(cfg);
	event_config_free(cfg);
	return base;
}

struct loop *loop_new(struct workers *pool)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return NULL;
	if (!take_index(&loop->index))
		goto no_index;
	loop->pool = pool;
	STAILQ_INIT(&loop->posted);
	pthread_mutex_init(&loop->post_lock, NULL);
	loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (loop->wake_fd < 0)
		goto free_loop;
	loop->base = base_new();
	if (!loop->base)
		goto close_fd;
	loop->wake_ev =
		event_new(loop->base, loop->wake_fd, EV_READ | EV_PERSIST, loop_woken, loop);
	if (!loop->wake_ev)
		goto free_base;
	if (event_add(loop->wake_ev, NULL))
		goto free_event;
	return loop;

free_event:
	event_free(loop->wake_ev);
free_base:
	event_base_free(loop->base);
close_fd:
	close(loop->wake_fd);
free_loop:
	pthread_mutex_destroy(&loop->post_lock);
	give_index(loop->index);
no_index:
	free(loop);
	return NULL;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	aio_ring_free(loop->ring);
	event_free(loop->wake_ev);
	event_base_free(loop->base);
	close(loop->wake_fd);
	pthread_mutex_destroy(&loop->post_lock);
	give_index(loop->index);
	free(loop);
}

uint8_t loop_index(const struct loop *loop)
{
	return loop->index;
}

struct event_base *loop_base(struct loop *loop)
{
	return loop->base;
}

struct workers *loop_pool(struct loop *loop)
{
	return loop->pool;
}

struct aio_ring **loop_ring(struct loop *loop)
{
	return &loop->ring;
}

struct loop *loop_current(void)
{
	return current;
}

void loop_busy_poll(struct loop *loop, unsigned int us)
{
	loop->busy_ns = us * 1000ull;
}

void loop_note_activity(struct loop *loop)
{
	loop->active = true;
}

void loop_note_work(struct loop *loop, int nr)
{
	loop->with_workers += nr;
}

/* Whether to poll once more instead of sleeping. */
static bool keeps_polling(struct loop *loop)
{
	uint64_t now;

	if (!loop->busy_ns)
		return false;
	now = clock_ns();
	if (loop->active)
		loop->busy_until = now + loop->busy_ns;
	loop->active = false;
	return now < loop->busy_until && !loop->with_workers;
}

void loop_run(struct loop *loop)
{
	struct loop *outer = current;

	current = loop;
	do
		event_base_loop(loop->base,
				EVLOOP_NO_EXIT_ON_EMPTY |
					(keeps_polling(loop) ? EVLOOP_NONBLOCK : EVLOOP_ONCE));
	while (!atomic_load(&loop->stopping));
	atomic_store(&loop->stopping, false);
	current = outer;
}

void loop_stop(struct loop *loop)
{
	atomic_store(&loop->stopping, true);
	loop_kick(loop);
}

void loop_post(struct loop *loop, struct loop_msg *msg)
{
	bool was_empty;

	assert(msg->fn);
	pthread_mutex_lock(&loop->post_lock);
	was_empty = STAILQ_EMPTY(&loop->posted);
	STAILQ_INSERT_TAIL(&loop->posted, msg, link);
	/*
	 * Under the lock: once the lock is dropped the message may run, and what it does may end
	 * the loop and free it.
	 */
	if (was_empty)
		loop_kick(loop);
	pthread_mutex_unlock(&loop->post_lock);
}

static void timer_fired(evutil_socket_t fd, short what, void *arg)
{
	struct loop_timer *t = arg;

	(void)fd;
	(void)what;
	t->fn(t);
}

int loop_timer_init(struct loop_timer *t, struct loop *loop, void (*fn)(struct loop_timer *))
{
	struct event *ev = evtimer_new(loop->base, timer_fired, t);

	if (!ev)
		return -ENOMEM;
	t->ev = ev;
	t->fn = fn;
	return 0;
}

int loop_timer_arm(struct loop_timer *t, uint64_t ms)
{
	const struct timeval tv = { .tv_sec = (time_t)(ms / 1000),
				    .tv_usec = (suseconds_t)(ms % 1000 * 1000) };

	return evtimer_add(t->ev, &tv) ? -ENOMEM : 0;
}

void loop_timer_disarm(struct loop_timer *t)
{
	evtimer_del(t->ev);
}

void loop_timer_free(struct loop_timer *t)
{
	if (t->ev)
		event_free(t->ev);
	t->ev = NULL;
}
