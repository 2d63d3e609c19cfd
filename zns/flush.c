/* SPDX-License-Identifier: MIT */
/*
 * Flush: for the host, for what must be durable before it completes, and when the host is idle.
 *
 * One flush of the store runs at a time. Those who want one wait in a list; when a flush begins it
 * takes the whole list, so that one pass of fdatasync serves all who came before it (group commit),
 * and those who come later wait for the next. One worker is occupied, however many wait.
 *
 *	zns_complete_flushed()	loop	into the list; begins a flush if none runs
 *	zns_flush_work()	worker	takes the list, then zns_flush_locked()
 *	zns_flush_done()	loop	completes the batch; begins the next one if some wait
 *
 * Invariants:
 *
 *  1. A request is in the list before the flush that completes it begins; all that was completed
 *     before the request arrived has given its write pointer to the store before (zones_tell). So
 *     the flush covers it (D1).
 *  2. The store copies the pointers it records when its flush begins, under meta_lock, which resets
 *     and finishes hold too, and which begin only when the last write of their zone has ended: a
 *     flush never records a pointer that a reset has taken back.
 *  3. running is true from work_submit() until zns_flush_done() has found the list empty.
 *
 * Idle write-back. The host need not flush, yet a power cut should not cost what was written long
 * ago. The first change after a clean state arms a timer for a second. When it fires and there was
 * a change within the last second, it is armed again, but not for longer than five seconds in all;
 * else a flush begins. So nothing ticks when nothing is written, an idle drive is clean after a
 * second, and a busy one records its write pointers every five.
 *
 * When nothing was written for half a minute, the store gives back what it keeps to be written again
 * (store->ops->trim()), by the same ticket as a flush.
 *
 * A flush that fails, whoever asked for it, leaves what it was for to the next one; so the timer is
 * armed again, for a second, and for twice as long after each failure in a row, up to 30 seconds.
 * But not when the store is poisoned (EROFS): no flush will succeed there any more.
 */
#include <errno.h>
#include <stddef.h>
#include "ns.h"

#define IDLE_MS	     1000
#define TRIM_MS	     30000
#define IDLE_MAX_MS  5000
#define RETRY_MAX_MS 30000

static void idle_retry(struct zns *zns, int err);

int zns_flush_locked(struct zns *zns)
{
	/* Before the store begins: what changes from here on is for the next flush. */
	atomic_store(&zns->idle.dirty, false);
	return zns->store->ops->flush(zns->store);
}

static struct zns *flusher_zns(struct work *w)
{
	return (struct zns *)((char *)w - offsetof(struct zns, flusher.work));
}

static void zns_flush_work(struct work *w)
{
	struct zns *zns = flusher_zns(w);
	struct zns_flusher *f = &zns->flusher;
	struct zone_item *item;

	pthread_mutex_lock(&f->lock);
	while ((item = zone_items_take(&f->waiting)))
		zone_items_add(&f->batch, item);
	pthread_mutex_unlock(&f->lock);

	pthread_mutex_lock(&zns->meta_lock);
	f->err = zns_flush_locked(zns);
	pthread_mutex_unlock(&zns->meta_lock);
	if (atomic_exchange(&f->trim, false) && !f->err)
		zns->store->ops->trim(zns->store);
}

static void zns_flush_done(struct work *w)
{
	struct zns *zns = flusher_zns(w);
	struct zns_flusher *f = &zns->flusher;
	uint16_t status = store_status(zns, f->err, true);
	struct zone_items batch = f->batch;
	struct zone_item *item;
	bool again;

	if (!batch.first)
		zone_items_init(&batch);
	zone_items_init(&f->batch);
	idle_retry(zns, f->err); /* while it counts as running, and no other can begin */
	pthread_mutex_lock(&f->lock);
	again = f->running = f->waiting.first != NULL;
	pthread_mutex_unlock(&f->lock);
	if (again)
		work_submit(loop_current(), &f->work, zns_flush_work, zns_flush_done);
	/* The last of these may be the last that holds the namespace: it is not touched after. */
	while ((item = zone_items_take(&batch))) {
		struct tgt_req *req = item_req(item);

		if (status)
			req->cqe.result = 0;
		if (loop_current() == req->queue->loop)
			tgt_req_complete(req, status);
		else
			tgt_req_complete_remote(req, status);
	}
}

/* ITEM is NULL for the idle flush: then nobody waits for it. */
static void flusher_begin(struct zns *zns, struct zone_item *item)
{
	struct zns_flusher *f = &zns->flusher;
	bool begin;

	pthread_mutex_lock(&f->lock);
	if (item)
		zone_items_add(&f->waiting, item);
	begin = !f->running;
	f->running = true;
	pthread_mutex_unlock(&f->lock);
	if (begin)
		work_submit(loop_current(), &f->work, zns_flush_work, zns_flush_done);
}

void zns_complete_flushed(struct tgt_req *req)
{
	flusher_begin(req_zns(req), &req_cmd(req)->item);
}

void zns_exec_flush(struct tgt_req *req)
{
	if (req->ns->read_only)
		tgt_req_complete(req, 0);
	else
		zns_complete_flushed(req);
}

/* --- idle write-back --- */

static struct zns_idle *timer_idle(struct loop_timer *t)
{
	return (struct zns_idle *)((char *)t - offsetof(struct zns_idle, timer));
}

static struct zns *idle_zns(struct zns_idle *idle)
{
	return (struct zns *)((char *)idle - offsetof(struct zns, idle));
}

static void idle_fired(struct loop_timer *t)
{
	struct zns_idle *idle = timer_idle(t);
	uint64_t now = clock_ms();
	uint64_t quiet = now - atomic_load(&idle->touched);

	if (atomic_load(&idle->dirty) && quiet < IDLE_MS && now - idle->since < IDLE_MAX_MS) {
		if (!loop_timer_arm(t, IDLE_MS - quiet))
			return;
	}
	/* A change from here on finds armed false and arms anew. */
	atomic_store(&idle->armed, false);
	if (idle->trims)
		atomic_store(&idle_zns(idle)->flusher.trim, true);
	if (idle->trims || atomic_load(&idle->dirty))
		flusher_begin(idle_zns(idle), NULL);
	idle->trims = !idle->trims && !loop_timer_arm(t, TRIM_MS);
}

static void idle_arm(struct loop_msg *msg)
{
	struct zns_idle *idle = (struct zns_idle *)((char *)msg - offsetof(struct zns_idle, msg));

	uint32_t retry_ms = atomic_load(&idle->retry_ms);

	idle->since = clock_ms();
	idle->trims = false;
	if (loop_timer_arm(&idle->timer, retry_ms ? retry_ms : IDLE_MS))
		atomic_store(&idle->armed, false); /* the next change tries again */
}

static void idle_post(struct zns_idle *idle)
{
	if (atomic_load(&idle->armed) || atomic_exchange(&idle->armed, true))
		return;
	idle->msg.fn = idle_arm;
	loop_post(idle->loop, &idle->msg);
}

/* A flush has ended with ERR. One at a time does. */
static void idle_retry(struct zns *zns, int err)
{
	struct zns_idle *idle = &zns->idle;
	uint32_t ms = 2 * atomic_load(&idle->retry_ms);

	if (!err || err == -EROFS) {
		atomic_store(&idle->retry_ms, 0);
		return;
	}
	atomic_store(&idle->retry_ms, !ms ? IDLE_MS : ms < RETRY_MAX_MS ? ms : RETRY_MAX_MS);
	atomic_store(&idle->dirty, true);
	idle_post(idle);
}

void zns_touched(struct zns *zns)
{
	struct zns_idle *idle = &zns->idle;

	atomic_store_explicit(&idle->touched, clock_ms(), memory_order_relaxed);
	/* Mostly it is so already; a store would take the cache line from the other loops. */
	if (!atomic_load(&idle->dirty))
		atomic_store(&idle->dirty, true);
	idle_post(idle);
}

/* --- life --- */

int zns_flusher_init(struct zns *zns, struct loop *loop)
{
	zone_items_init(&zns->flusher.waiting);
	zone_items_init(&zns->flusher.batch);
	zns->idle.loop = loop;
	if (loop_timer_init(&zns->idle.timer, loop, idle_fired))
		return -1;
	pthread_mutex_init(&zns->flusher.lock, NULL);
	pthread_mutex_init(&zns->meta_lock, NULL);
	return 0;
}

void zns_flusher_free(struct zns *zns)
{
	loop_timer_free(&zns->idle.timer);
	pthread_mutex_destroy(&zns->flusher.lock);
	pthread_mutex_destroy(&zns->meta_lock);
}
