/* SPDX-License-Identifier: MIT */
/*
 * Asynchronous reads and writes of files opened with O_DIRECT, by io_uring. Such a transfer always
 * waits for the disk; a worker thread would only sit and wait with it.
 */
#ifndef TARGET_AIO_H
#define TARGET_AIO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

struct loop;
struct aio_ring;

/* One transfer, embedded in the object it is for. */
struct aio {
	int fd; /* open until done() */
	bool write;
	int n;			 /* pieces, AIO_PIECES at most */
	const struct iovec *iov; /* copied; what the pieces point to is the kernel's until done() */
	uint64_t off;
	uint64_t len; /* of all pieces */
	void (*done)(struct aio *a);
	int64_t res; /* for done(): bytes moved, or -errno */
	STAILQ_ENTRY(aio) link;
};

#define AIO_PIECES 64

/*
 * Starts transfer A and later calls a->done(A) on LOOP, never from within this call. LOOP's thread.
 * False: nothing was started, because this machine has no io_uring or the ring is full; the caller
 * then uses a worker. A transfer may move fewer than LEN bytes; it is not continued, and the caller
 * does the whole of it again by a worker.
 */
bool aio_submit(struct loop *loop, struct aio *a);

/* For loop_free(): frees RING, of which no transfer is in flight. NULL is allowed. */
void aio_ring_free(struct aio_ring *ring);

#endif
