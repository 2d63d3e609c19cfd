/* SPDX-License-Identifier: MIT */
/*
 * Flushes the store: for the host's Flush, for commands that must be durable before they complete,
 * and when the host is idle.
 *
 * One flush of the store runs at a time. Requests that need one wait in a list. A flush takes
 * the whole list when it begins, so that one fdatasync serves all requests that came before it
 * (group commit); later ones wait for the next flush. This occupies one worker, however many
 * requests wait.
 *
 *	zns_complete_flushed()	loop	appends to the list; begins a flush if none runs
 *	zns_flush_work()	worker	takes the list, then calls zns_flush_store()
 *	zns_flush_done()	loop	completes the batch; begins the next flush if requests wait
 *
 * Invariants:
 *
 *  1. A request is in the list before the flush that completes it begins. Every write that
 *     completed before the request arrived has passed its write pointer to the store by then
 *     (zones_tell()). So the flush covers it (D1).
 *  2. To the store, a reset or finish happens before or after a flush, never during one (store.h),
 *     and it begins only after the last write of its zone has ended. So a flush never records a
 *     pointer that a reset has set back.
 *  3. running is true from work_submit() until zns_flush_done() has found the list empty.
 *
 * Idle write-back. The host need not flush, but a power cut should not lose what was written long
 * ago. The first change after a flush arms a timer for one second. When it fires and there was
 * another change within the last second, it is armed again, for at most five seconds in all;
 * otherwise a flush begins. So there is no timer while nothing is written, an idle drive is flushed
 * after a second, and a busy one every five seconds.
 *
 * When nothing was written for half a minute, the same work item also calls store->ops->trim(),
 * which returns cached free space to the file system.
 *
 * What a failed flush should have recorded stays dirty for the next one. So the timer is armed
 * again, for a second, and for twice as long after each further failure, up to 30 seconds; but not
 * when the store is poisoned (EROFS), because then no flush can succeed any more.
 */
#include <errno.h>
#include <stddef.h>
#include "ns.h"

#define IDLE_MS	     1000
#define TRIM_MS	     30000
#define IDLE_MAX_MS  5000
#define RETRY_MAX_MS 30000

static void idle_retry(struct zns *zns, int err);

int zns_flush_store(struct zns *zns)
{
	/* Before the store begins: later changes set it again, for the next flush. */
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

	f->err = zns_flush_store(zns);
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
	idle_retry(zns, f->err); /* while running is set, so that no other flush can begin */
	pthread_mutex_lock(&f->lock);
	again = f->running = f->waiting.first != NULL;
	pthread_mutex_unlock(&f->lock);
	if (again)
		work_submit(loop_current(), &f->work, zns_flush_work, zns_flush_done);
	/* Completing the last request may free the namespace: do not touch it after that. */
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

/* Appends ITEM to the list (NULL: no request waits) and begins a flush if none runs. */
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

/* --- in the background --- */

static struct zns *housekeeper_zns(struct work *w)
{
	return (struct zns *)((char *)w - offsetof(struct zns, housekeeper.work));
}

static void housekeep_work(struct work *w)
{
	struct zns *zns = housekeeper_zns(w);

	zns->housekeeper.due = zns->store->ops->housekeep(zns->store);
}

static void housekeep_done(struct work *w)
{
	struct zns *zns = housekeeper_zns(w);
	bool due = zns->housekeeper.due;

	atomic_store(&zns->housekeeper.running, false);
	if (due)
		flusher_begin(zns, NULL);
	if (atomic_load(&zns->housekeeper.again))
		zns_housekeep(zns);
}

void zns_housekeep(struct zns *zns)
{
	struct zns_housekeeper *t = &zns->housekeeper;

	atomic_store(&t->again, true);
	if (atomic_exchange(&t->running, true))
		return;
	atomic_store(&t->again, false);
	work_submit(loop_current(), &t->work, housekeep_work, housekeep_done);
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
	uint64_t now = clock_boot_ms();
	uint64_t quiet = now - atomic_load(&idle->touched);

	if (atomic_load(&idle->dirty) && quiet < IDLE_MS && now - idle->since < IDLE_MAX_MS) {
		if (!loop_timer_arm(t, IDLE_MS - quiet))
			return;
	}
	/* A change after this finds armed false and arms the timer again. */
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

	idle->since = clock_boot_ms();
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

/* A flush has ended with ERR; only one runs at a time. Arms the timer for another try. */
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

void zns_mark_dirty(struct zns *zns, uint64_t now)
{
	struct zns_idle *idle = &zns->idle;

	/* They usually are set already; a store would take the cache line from the other loops. */
	if (atomic_load_explicit(&idle->touched, memory_order_relaxed) != now)
		atomic_store_explicit(&idle->touched, now, memory_order_relaxed);
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
	return 0;
}

void zns_flusher_free(struct zns *zns)
{
	loop_timer_free(&zns->idle.timer);
	pthread_mutex_destroy(&zns->flusher.lock);
}
