/* SPDX-License-Identifier: MIT */
/*
 * Loops: one thread, one libevent base, one list of messages from elsewhere.
 *
 * The base is made with EVENT_BASE_FLAG_NOLOCK: only the loop's own thread touches it. What other
 * threads may do is append to the posted list and, if it was empty, write the eventfd; the loop
 * then takes the whole list at once. So a burst of completions costs one write and one wake-up.
 *
 * A loop that is told to (loop_busy_poll()) looks on for a while after something has happened,
 * rather than to sleep at once, unless workers have tickets of its own: those may need its processor.
 *
 * Invariants:
 *  1. posted is not empty => the eventfd has been written since it was last read, or its writer is
 *     between the two. No message waits for another to be seen.
 *  2. Messages run in the order of their posting; a message is off every list when its function is
 *     called, so the function may post it again, or free it.
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
	struct aio_ring *ring; /* NULL: nobody asked for it yet */
	struct event *wake_ev;
	int wake_fd;
	uint64_t busy_ns; /* how long it looks for more before it sleeps */
	uint64_t busy_until;
	bool stirred; /* since busy_until was set */
	int away;     /* tickets that workers have */
	atomic_bool stopping;
	pthread_mutex_t post_lock; /* protects posted; a leaf */
	struct loop_msgs posted;
};

static _Thread_local struct loop *current;

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

/* The eventfd is read before the list is taken: a message posted in between writes it again. */
static void loop_woken(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;
	struct loop_msgs batch = STAILQ_HEAD_INITIALIZER(batch);
	struct loop_msg *msg;
	uint64_t count;
	ssize_t n;

	(void)what;
	loop_stirred(loop);
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
	free(loop);
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

void loop_stirred(struct loop *loop)
{
	loop->stirred = true;
}

void loop_away(struct loop *loop, int tickets)
{
	loop->away += tickets;
}

/* False: it may sleep. */
static bool looks_for_more(struct loop *loop)
{
	uint64_t now;

	if (!loop->busy_ns)
		return false;
	now = clock_ns();
	if (loop->stirred)
		loop->busy_until = now + loop->busy_ns;
	loop->stirred = false;
	return now < loop->busy_until && !loop->away;
}

void loop_run(struct loop *loop)
{
	struct loop *outer = current;

	current = loop;
	do
		event_base_loop(loop->base,
				EVLOOP_NO_EXIT_ON_EMPTY |
					(looks_for_more(loop) ? EVLOOP_NONBLOCK : EVLOOP_ONCE));
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
	 * Under the lock: once it is dropped the message may run, and the loop end and be freed
	 * by what it does.
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
