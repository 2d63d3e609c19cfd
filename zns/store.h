/* SPDX-License-Identifier: MIT */
/*
 * What zns asks of an image; store_qcow2.c answers. The interface belongs to its consumer.
 * Offsets and lengths are bytes. Functions return 0 or -errno, and block, unless told NOWAIT.
 *
 * Threads: reads and writes of disjoint ranges run in parallel, on loops and workers; the zone
 * state machine keeps them out of a zone that is reset or finished. The others run on workers (or
 * before serving, or after): resets and finishes of different zones and one flush in parallel, which
 * the store keeps apart. Each of them takes effect as a whole, before or after the others.
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

#define STORE_NOWAIT 0x1 /* answer -EAGAIN rather than wait: the caller will ask a worker */

/* All members are required. */
struct store_ops {
	/* Below the zone's write pointer only. */
	int (*read)(struct store *s, void *buf, uint64_t off, uint64_t len, unsigned int flags);
	/*
	 * LEN bytes below the write pointer and within one zone, where they lie in memory, for a system
	 * call to read (only that survives a byte that cannot be had); or NULL. Good until the zone is
	 * reset or finished. Does not block.
	 */
	const void *(*peek)(struct store *s, uint64_t off, uint64_t len);
	/* LEN bytes in N pieces, within one zone. */
	int (*write)(struct store *s, const struct iovec *iov, int n, uint64_t off, uint64_t len,
		     unsigned int flags);
	/*
	 * reserve() returns memory of the store for a system call to receive the LEN bytes of a write to ZONE
	 * into, or NULL: the caller uses a buffer. commit() writes them at OFF without a copy and ends the
	 * reservation; after an error the memory is still reserved. -EEXIST: use write(), from the same memory.
	 * release() ends a reservation that was not committed. Only the kernel may access the memory.
	 * reserve() and release() do not block.
	 */
	void *(*reserve)(struct store *s, uint32_t zone, uint64_t len);
	int (*commit)(struct store *s, void *mem, uint64_t off, uint64_t len, unsigned int flags);
	void (*release)(struct store *s, uint32_t zone, void *mem, uint64_t len);
	/*
	 * Where LEN bytes lie in a file that goes around the page cache, so that the caller may move
	 * them to or from the N pieces of IOV without a worker: a descriptor, and its offset in *AT;
	 * whole, or else by read() or write(), which know why it failed. -1: by those in any case.
	 * As for those: below the write pointer, or within one zone. Does not block.
	 */
	int (*locate)(struct store *s, const struct iovec *iov, int n, uint64_t off, uint64_t len,
		      bool write, uint64_t *at);
	/* After each write that was made so, before its completion. Takes no lock. */
	void (*wrote)(struct store *s);
	/* The write pointer of ZONE as the image has it: an absolute byte offset. */
	uint64_t (*wp)(struct store *s, uint32_t zone);
	/*
	 * All below WP is written; to be recorded by the next flush. Called for every write before
	 * its completion, on any loop, also during a flush, but never in a zone that is reset or
	 * finished. Takes no lock.
	 */
	void (*wp_advance)(struct store *s, uint32_t zone, uint64_t wp);
	/*
	 * Reset and finish: the zone is quiet, and they are durable after the next flush. One that
	 * fails has left what lies below the write pointer as it was.
	 */
	/* Forgets the zone's data. */
	int (*reset)(struct store *s, uint32_t zone);
	/* Full, and zeroes from WP on. */
	int (*finish)(struct store *s, uint32_t zone, uint64_t wp);
	/* Gives back what is kept for writes to come: there are none. Blocks, as long as it takes. */
	void (*trim)(struct store *s);
	/* Makes all that was done before durable. -EROFS: nor will any other flush. */
	int (*flush)(struct store *s);
	/* Flushes and frees. */
	int (*close)(struct store *s);
};

struct store {
	const struct store_ops *ops;
	struct store_geometry geo;
};

/*
 * Opens a zoned qcow2 image (store_qcow2.c). ERR (of ERRLEN bytes) says what is wrong in a
 * sentence. CACHE is how writes are kept.
 */
enum store_cache { STORE_WRITEBACK, STORE_WRITETHROUGH, STORE_NONE, STORE_UNSAFE };
struct store_qcow2_opts {
	bool read_only;
	enum store_cache cache;
	const char *shadow_dir; /* see qcow2_open_opts; NULL: no shadow */
};
int store_qcow2_open(const char *path, const struct store_qcow2_opts *opts, struct store **out,
		     char *err, unsigned int errlen);

#endif
