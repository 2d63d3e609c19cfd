/* SPDX-License-Identifier: MIT */
/*
 * Worker threads that share one list of work items.
 *
 *	work_submit()  loop    appends the item to the list and wakes one worker
 *	worker()       worker  takes the first item, calls w->work(w), which may block
 *	               worker  posts the item back to its loop
 *	work_back()    loop    calls w->done(w)
 *
 * Invariants:
 *  1. Items start in the order of submission. They may end in any order.
 *  2. A worker does not touch an item after it has posted it: done() may free it.
 *  3. The pool's lock and a loop's post_lock are never held together; both are leaves.
 *
 * Worker threads block all signals; the main thread takes them.
 */
#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include "work.h"

struct workers {
	pthread_mutex_t lock; /* protects queue and stopping; a leaf */
	pthread_cond_t more;
	STAILQ_HEAD(, work) queue;
	bool stopping;
	unsigned int nr_threads;
	pthread_t threads[];
};

static void work_back(struct loop_msg *msg)
{
	struct work *w = (struct work *)((char *)msg - offsetof(struct work, msg));

	loop_note_work(w->loop, -1);
	w->done(w);
}

static void *worker(void *arg)
{
	struct workers *pool = arg;
	struct work *w;

	pthread_mutex_lock(&pool->lock);
	for (;;) {
		while (!(w = STAILQ_FIRST(&pool->queue)) && !pool->stopping)
			pthread_cond_wait(&pool->more, &pool->lock);
		if (!w)
			break;
		STAILQ_REMOVE_HEAD(&pool->queue, link);
		pthread_mutex_unlock(&pool->lock);
		w->work(w);
		loop_post(w->loop, &w->msg);
		pthread_mutex_lock(&pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

struct workers *workers_new(unsigned int threads)
{
	struct workers *pool = calloc(1, sizeof(*pool) + threads * sizeof(pool->threads[0]));
	sigset_t all, old;

	assert(threads);
	if (!pool)
		return NULL;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->more, NULL);
	STAILQ_INIT(&pool->queue);
	sigfillset(&all);
	sigdelset(&all, SIGBUS); /* a mapping of an image may fault (guard.h) */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (pool->nr_threads < threads) {
		if (pthread_create(&pool->threads[pool->nr_threads], NULL, worker, pool))
			break;
		pool->nr_threads++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (pool->nr_threads < threads) {
		workers_free(pool);
		return NULL;
	}
	return pool;
}

void workers_free(struct workers *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->stopping = true;
	pthread_cond_broadcast(&pool->more);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned int i = 0; i < pool->nr_threads; i++)
		pthread_join(pool->threads[i], NULL);
	pthread_cond_destroy(&pool->more);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

void work_submit(struct loop *loop, struct work *w, void (*work)(struct work *),
		 void (*done)(struct work *))
{
	struct workers *pool = loop_pool(loop);

	assert(pool);
	w->loop = loop;
	w->msg.fn = work_back;
	w->work = work;
	w->done = done;
	loop_note_work(loop, 1);
	pthread_mutex_lock(&pool->lock);
	STAILQ_INSERT_TAIL(&pool->queue, w, link);
	pthread_cond_signal(&pool->more);
	pthread_mutex_unlock(&pool->lock);
}
