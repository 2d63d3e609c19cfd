/* SPDX-License-Identifier: MIT */
/*
 * One io_uring per loop, created at the loop's first transfer.
 *
 *	aio_submit()	fills a submission entry and appends the transfer to QUEUED
 *	ring_enter()	at the end of the wake-up: submits all that is queued in one system call
 *	ring_reap()	when the ring is readable: calls done() for each transfer that has ended
 *
 * The loop polls the ring's file descriptor, which is readable while the ring holds completions. So
 * no eventfd is needed and nothing has to be read to be woken.
 *
 * Invariants:
 *  1. Only the loop's thread touches the ring.
 *  2. QUEUED holds the transfers that were not submitted yet, in the order of their entries.
 *  3. done() is called from the loop only, once for each transfer that aio_submit() accepted; the
 *     transfer is not touched after that.
 *  4. The completion queue has room for every transfer in flight.
 *  5. When the ring cannot be created, or the kernel refuses a submission, no transfer is accepted
 *     any more. Transfers that were not submitted end with -EAGAIN; those that were end normally.
 *     An error of one transfer (a bad descriptor, a full disk) is not such a refusal.
 *
 * Whoever has transfers in flight keeps the loop running until they have ended.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <event2/event.h>
#include <liburing.h>
#include "aio.h"
#include "log.h"
#include "loop.h"

#define BATCH  128u  /* entries submitted at once */
#define DEPTH  1024u /* transfers in flight */
#define PIECES 1024u /* of all transfers of a batch that have more than one */

STAILQ_HEAD(aios, aio);

struct aio_ring {
	bool made;    /* uring and the events exist */
	bool refuses; /* invariant 5 */
	struct loop *loop;
	struct io_uring uring;
	struct event *readable, *enter;
	struct aios queued;
	unsigned int inflight; /* incl. those queued */
	unsigned int pieces;   /* used */
	struct iovec piece[PIECES];
};

/* Submits what is queued. False: the kernel refused some of it. */
static bool submit_queued(struct aio_ring *ring)
{
	while (!ring->refuses && !STAILQ_EMPTY(&ring->queued)) {
		int n = io_uring_submit(&ring->uring);

		if (n == -EINTR)
			continue;
		if (n <= 0) {
			log_warn("io_uring: %s; worker threads do its work",
				 strerror(n ? -n : EIO));
			ring->refuses = true;
		}
		for (; n > 0; n--)
			STAILQ_REMOVE_HEAD(&ring->queued, link);
	}
	ring->pieces = 0;
	return !ring->refuses;
}

static void ended(struct aio_ring *ring, struct aio *a, int64_t res)
{
	ring->inflight--;
	a->res = res;
	a->done(a);
}

static void ring_enter(evutil_socket_t fd, short what, void *arg)
{
	struct aio_ring *ring = arg;
	struct aio *a;

	(void)fd;
	(void)what;
	if (submit_queued(ring))
		return;
	while ((a = STAILQ_FIRST(&ring->queued))) {
		STAILQ_REMOVE_HEAD(&ring->queued, link);
		ended(ring, a, -EAGAIN);
	}
}

static void ring_reap(evutil_socket_t fd, short what, void *arg)
{
	struct aio_ring *ring = arg;
	struct io_uring_cqe *cqe;

	(void)fd;
	(void)what;
	loop_note_activity(ring->loop);
	while (!io_uring_peek_cqe(&ring->uring, &cqe)) {
		struct aio *a = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&ring->uring, cqe);
		ended(ring, a, res);
	}
}

/* 0 or -errno. */
static int ring_make(struct aio_ring *ring, struct event_base *base)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_CQSIZE | IORING_SETUP_COOP_TASKRUN |
			 IORING_SETUP_SINGLE_ISSUER,
		.cq_entries = DEPTH,
	};
	int err = io_uring_queue_init_params(BATCH, &ring->uring, &params);

	if (err)
		return err;
	ring->readable =
		event_new(base, ring->uring.ring_fd, EV_READ | EV_PERSIST, ring_reap, ring);
	ring->enter = event_new(base, -1, 0, ring_enter, ring);
	if (ring->readable && ring->enter && !event_add(ring->readable, NULL)) {
		ring->made = true;
		return 0;
	}
	if (ring->readable)
		event_free(ring->readable);
	if (ring->enter)
		event_free(ring->enter);
	io_uring_queue_exit(&ring->uring);
	return -ENOMEM;
}

/* NULL: no memory. */
static struct aio_ring *ring_new(struct loop *loop)
{
	struct aio_ring *ring = calloc(1, sizeof(*ring));
	int err;

	if (!ring)
		return NULL;
	ring->loop = loop;
	STAILQ_INIT(&ring->queued);
	err = ring_make(ring, loop_base(loop));
	ring->refuses = err;
	if (err)
		log_info("no io_uring here (%s): worker threads do its work", strerror(-err));
	return ring;
}

void aio_ring_free(struct aio_ring *ring)
{
	if (!ring)
		return;
	assert(!ring->inflight);
	if (ring->made) {
		event_free(ring->readable);
		event_free(ring->enter);
		io_uring_queue_exit(&ring->uring);
	}
	free(ring);
}

/* A submission entry for A. Submits the batch first if it is full. NULL: none can be had. */
static struct io_uring_sqe *entry_for(struct aio_ring *ring, const struct aio *a)
{
	if (!io_uring_sq_space_left(&ring->uring) || ring->pieces + a->n > PIECES)
		submit_queued(ring);
	return ring->refuses ? NULL : io_uring_get_sqe(&ring->uring);
}

static void prepare(struct aio_ring *ring, struct io_uring_sqe *sqe, struct aio *a)
{
	struct iovec *iov = &ring->piece[ring->pieces];

	/* The kernel reads the pieces when the batch is submitted, not later. */
	memcpy(iov, a->iov, a->n * sizeof(*iov));
	ring->pieces += a->n;
	if (a->write)
		io_uring_prep_writev(sqe, a->fd, iov, a->n, a->off);
	else
		io_uring_prep_readv(sqe, a->fd, iov, a->n, a->off);
	io_uring_sqe_set_data(sqe, a);
}

bool aio_submit(struct loop *loop, struct aio *a)
{
	struct aio_ring **ringp = loop_ring(loop), *ring;
	struct io_uring_sqe *sqe;

	assert(a->n <= AIO_PIECES);
	if (!*ringp)
		*ringp = ring_new(loop);
	ring = *ringp;
	if (!ring || ring->refuses || ring->inflight == DEPTH)
		return false;
	sqe = entry_for(ring, a);
	if (!sqe)
		return false;
	prepare(ring, sqe, a);
	if (STAILQ_EMPTY(&ring->queued))
		event_active(ring->enter, EV_TIMEOUT, 0);
	STAILQ_INSERT_TAIL(&ring->queued, a, link);
	ring->inflight++;
	return true;
}
