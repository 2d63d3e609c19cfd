/* SPDX-License-Identifier: MIT */
/*
 * A ring (io_uring) a loop, made when the loop first has use for one.
 *
 *	aio_submit()	an entry of the ring, and the transfer to the tail of QUEUED
 *	ring_enter()	at the end of the wake-up: one system call hands over what is queued
 *	ring_reap()	the ring has become readable: done() for each transfer that has ended
 *
 * The loop waits for the ring as for a socket: it is a descriptor that is readable while it holds
 * completions. So no eventfd stands between them, nothing is read to be woken, and nothing ticks.
 *
 * Invariants:
 *  1. Only the loop's thread touches the ring; the kernel's half is liburing's affair.
 *  2. QUEUED holds, in the order of their entries, the transfers the kernel has not been given.
 *  3. done() is called from the loop alone, once for each transfer that was taken, and the transfer
 *     is not touched after it.
 *  4. No more is in flight than the ring has room for completions: none waits for another's place.
 *  5. A ring that could not be made, or to which the kernel says no, takes nothing more, for ever:
 *     what the kernel has not been given ends with -EAGAIN, and what it has, as ever. An error of
 *     one transfer (a bad descriptor, a full disk) is no such thing.
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

#define BATCH  128u  /* entries handed over at once */
#define DEPTH  1024u /* transfers in flight */
#define PIECES 1024u /* of all transfers of a batch that have more than one */

STAILQ_HEAD(aios, aio);

struct aio_ring {
	bool made;    /* uring and the events exist */
	bool refuses; /* see 5 */
	struct loop *loop;
	struct io_uring uring;
	struct event *readable, *enter;
	struct aios queued;
	unsigned int inflight; /* incl. those queued */
	unsigned int pieces;   /* used */
	struct iovec piece[PIECES];
};

/* Gives the kernel what is queued. False: it would not take it all. */
static bool hand_over(struct aio_ring *ring)
{
	while (!ring->refuses && !STAILQ_EMPTY(&ring->queued)) {
		int n = io_uring_submit(&ring->uring);

		if (n == -EINTR)
			continue;
		if (n <= 0) {
			log_warn("io_uring: %s; threads do its work", strerror(n ? -n : EIO));
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
	if (hand_over(ring))
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
	loop_stirred(ring->loop);
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
		log_info("no io_uring here (%s): threads do its work", strerror(-err));
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

/* Room for A in the batch, which may have to leave early for that. */
static struct io_uring_sqe *room_for(struct aio_ring *ring, const struct aio *a)
{
	if (!io_uring_sq_space_left(&ring->uring) || ring->pieces + a->n > PIECES)
		hand_over(ring);
	return ring->refuses ? NULL : io_uring_get_sqe(&ring->uring);
}

static void prepare(struct aio_ring *ring, struct io_uring_sqe *sqe, struct aio *a)
{
	struct iovec *iov = &ring->piece[ring->pieces];

	/* The kernel reads the pieces when it is given the batch, not later. */
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
	sqe = room_for(ring, a);
	if (!sqe)
		return false;
	prepare(ring, sqe, a);
	if (STAILQ_EMPTY(&ring->queued))
		event_active(ring->enter, EV_TIMEOUT, 0);
	STAILQ_INSERT_TAIL(&ring->queued, a, link);
	ring->inflight++;
	return true;
}
