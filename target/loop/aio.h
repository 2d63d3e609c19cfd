/* SPDX-License-Identifier: MIT */
/*
 * Transfers between memory and a file that the kernel does while the loop goes on: for files that go
 * around the page cache, where a transfer always waits for the disk and a worker would do nothing
 * but wait with it.
 */
#ifndef TARGET_AIO_H
#define TARGET_AIO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

struct loop;
struct aio_ring;

/* One transfer, embedded in what it is for. */
struct aio {
	int fd; /* open until done() */
	bool write;
	int n;			 /* pieces, AIO_PIECES at most */
	const struct iovec *iov; /* copied; what the pieces point to is the kernel's until done() */
	uint64_t off;
	uint64_t len; /* of all pieces */
	void (*done)(struct aio *a);
	int64_t res; /* bytes moved, or -errno */
	STAILQ_ENTRY(aio) link;
};

#define AIO_PIECES 64

/*
 * From LOOP's thread: has the transfer done and then a->done(a) called on LOOP, never from here.
 * False, and nothing happens: there is no ring to be had on this machine, or it is full. Whoever asks
 * has another way, and takes it also when the transfer came to less than len: nothing is tried again.
 */
bool aio_submit(struct loop *loop, struct aio *a);

void aio_ring_free(struct aio_ring *ring); /* loop_free(); all transfers have ended */

#endif
