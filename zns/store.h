/* SPDX-License-Identifier: MIT */
/*
 * The interface that zns/ needs of an image; store_qcow2.c implements it. Offsets and lengths are
 * in bytes. Functions return 0 or -errno, and may block unless STORE_NOWAIT is given.
 *
 * Threads: reads and writes of disjoint ranges run in parallel, on loops and workers; the zone
 * state machine never runs them in a zone that is being reset or finished. The others run on
 * workers (or before serving, or after): resets and finishes of different zones may run in
 * parallel with one flush. The store serializes them: each takes effect as a whole, before or
 * after the others.
 */
#ifndef ZNS_STORE_H
#define ZNS_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct store;

struct store_geometry {
	uint64_t zone_size;
	uint64_t zone_capacity;
	uint32_t nr_zones;
	uint32_t max_open;   /* 0: no limit */
	uint32_t max_active; /* 0: no limit */
	uint32_t max_append; /* bytes; 0: no limit of its own */
	bool read_only;
	uint8_t uuid[16];
};

#define STORE_NOWAIT 0x1 /* return -EAGAIN instead of blocking; the caller then uses a worker */

/* All members are required. */
struct store_ops {
	/* Reads LEN bytes at OFF, all below the zone's write pointer, into BUF. */
	int (*read)(struct store *s, void *buf, uint64_t off, uint64_t len, unsigned int flags);
	/*
	 * Returns a mapping of LEN bytes, below the write pointer and within one zone, if they are
	 * in the page cache, else NULL. To read it may fault: a system call then returns EFAULT,
	 * and the program gets SIGBUS. Valid until the zone is reset or finished. Does not block.
	 */
	const void *(*peek)(struct store *s, uint64_t off, uint64_t len);
	/* Writes LEN bytes, in N pieces, at OFF, within one zone. */
	int (*write)(struct store *s, const struct iovec *iov, int n, uint64_t off, uint64_t len,
		     unsigned int flags);
	/*
	 * reserve() returns memory of the store for a system call to receive the LEN bytes of a
	 * write to ZONE into, or NULL: the caller uses a buffer. commit() writes them at OFF
	 * without a copy and ends the reservation; after an error the memory is still reserved.
	 * -EEXIST: use write(), from the same memory. release() ends a reservation that was not
	 * committed. The memory may fault, as with peek(). reserve() and release() do not block.
	 */
	void *(*reserve)(struct store *s, uint32_t zone, uint64_t len);
	int (*commit)(struct store *s, void *mem, uint64_t off, uint64_t len, unsigned int flags);
	void (*release)(struct store *s, uint32_t zone, void *mem, uint64_t len);
	/*
	 * For a file with O_DIRECT: returns the file descriptor, and in *AT the file offset, of LEN
	 * bytes, so that the caller can read or write them itself (N pieces in IOV), with io_uring.
	 * If that moves fewer than LEN bytes, the caller must repeat it by read() or write(), which
	 * handle errors. -1: use read() or write(). The range has the limits of read() or write().
	 * Does not block.
	 */
	int (*locate)(struct store *s, const struct iovec *iov, int n, uint64_t off, uint64_t len,
		      bool write, uint64_t *at);
	/* Reports a write made by way of locate(), before its command completes. Takes no lock. */
	void (*wrote)(struct store *s);
	/* Returns the write pointer of ZONE in the image, as an absolute byte offset. */
	uint64_t (*wp)(struct store *s, uint32_t zone);
	/*
	 * Reports that everything in ZONE below WP (an absolute byte offset) is written; the next
	 * flush records it. Called for every write before it completes, on any loop, also during a
	 * flush, but not while the zone is reset or finished. Takes no lock.
	 */
	void (*wp_advance)(struct store *s, uint32_t zone, uint64_t wp);
	/*
	 * Resets a zone: discards its data. As for finish(), no read or write of the zone is in
	 * flight, the change is durable after the next flush, and an error leaves the data below
	 * the write pointer as it was.
	 */
	int (*reset)(struct store *s, uint32_t zone);
	/* Makes a zone full; it reads as zeroes from WP, an absolute byte offset, to its end. */
	int (*finish)(struct store *s, uint32_t zone, uint64_t wp);
	/*
	 * Does what need not be waited for: frees the space of resets. Whether a flush should run
	 * soon. Call it after resets and finishes. Blocks.
	 */
	bool (*housekeep)(struct store *s);
	/*
	 * Returns the space of free clusters that the image keeps for reuse (tmpfs, O_DIRECT) to
	 * the file system. May block long.
	 */
	void (*trim)(struct store *s);
	/* Makes all earlier changes durable. -EROFS: no later flush will succeed either. */
	int (*flush)(struct store *s);
	/* Flushes and frees S, also if the flush fails. */
	int (*close)(struct store *s);
};

struct store {
	const struct store_ops *ops;
	struct store_geometry geo;
};

/*
 * Opens a zoned qcow2 image (store/store_qcow2.c). On failure ERR (ERRLEN bytes) holds a sentence.
 */
enum store_cache { STORE_WRITEBACK, STORE_WRITETHROUGH, STORE_NONE, STORE_UNSAFE, STORE_AUTO };
struct store_qcow2_opts {
	bool read_only;
	enum store_cache cache;
	const char *shadow_dir; /* see qcow2_open_opts; NULL: no shadow */
};
int store_qcow2_open(const char *path, const struct store_qcow2_opts *opts, struct store **out,
		     char *err, unsigned int errlen);

#endif
