/* SPDX-License-Identifier: MIT */
/*
 * qcow2: opens, creates, reads, writes and checks qcow2 images, plain or with the zoned extension.
 *
 * This is a library of its own, without NVMe, events or logs. Functions that return int return 0 or
 * -errno unless their comment says otherwise; those that open an image also write a sentence for
 * the user. Offsets and lengths are in bytes of the virtual disk unless the name says host.
 *
 * Threads: qcow2_read() and qcow2_write() may run in any number of threads. Two writes must not
 * overlap, and the caller (the zone state machine) runs no read or write in a zone that is being
 * reset or finished. The library serialises everything else.
 *
 * The *write pointer* of a zone is an absolute byte offset, as in the image. The library knows no
 * zone states and no limit of open zones: they belong to zns/. It does not refuse a read at or
 * above the write pointer either, but returns what is mapped there.
 */
#ifndef QCOW2_QCOW2_H
#define QCOW2_QCOW2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct qcow2;
struct file;

#define QCOW2_ERRLEN 512
#define QCOW2_UUID   16

/* The zoned extension's historic layouts (spec/qcow2-zoned.md 1.2; docs/image.md). */
enum qcow2_zone_layout {
	QCOW2_LAYOUT_NONE,   /* not a zoned image */
	QCOW2_LAYOUT_L56,    /* v8 to v10, 56 bytes */
	QCOW2_LAYOUT_V11,    /* L48A, 48 bytes: what we write */
	QCOW2_LAYOUT_L48B,   /* 48 bytes in the order of L56 */
	QCOW2_LAYOUT_LATEST, /* L44, no max_append_bytes */
};
const char *qcow2_layout_name(enum qcow2_zone_layout layout); /* "v11", "latest", ... */

struct qcow2_zoned {
	enum qcow2_zone_layout layout;
	uint64_t zone_size;
	uint64_t zone_capacity;
	uint32_t nr_zones;
	uint32_t conventional_zones; /* always the first ones */
	uint32_t max_open_zones;     /* 0: no limit */
	uint32_t max_active_zones;   /* 0: no limit */
	uint32_t max_append_bytes;   /* 0: not stored in this layout */
	uint64_t zonedmeta_offset;   /* host offset of the write-pointer table */
	uint8_t marker_bit;	     /* 59 or 63: marks conventional entries */
	bool little_endian;	     /* the table of v8 to v10 made on x86: read-only */
};

enum qcow2_compression { QCOW2_ZLIB = 0, QCOW2_ZSTD = 1 };

/* The contents of the header. Only qcow2_resize() changes them while the image is open. */
struct qcow2_info {
	uint32_t version;
	uint64_t size; /* of the virtual disk */
	uint32_t cluster_bits;
	uint32_t refcount_bits;
	uint32_t nb_snapshots;
	enum qcow2_compression compression;
	bool read_only;
	bool dirty;
	bool corrupt;
	bool unclosed; /* opened with a shadow and not closed: a shadow may have to be replayed */
	bool lazy_refcounts;
	bool extended_l2;
	bool has_uuid; /* recorded in the image; else derived from the file */
	uint8_t uuid[QCOW2_UUID];
	char backing_file[1024]; /* its name; never opened */
	char backing_format[64];
	char data_file[1024]; /* its name; never opened */
	struct qcow2_zoned zoned;
};

#define QCOW2_RDONLY  0x01 /* never write to the file */
#define QCOW2_NO_LOCK 0x02 /* -U: even if another program has the image open; with RDONLY */
#define QCOW2_INSPECT 0x04 /* for info and check: even if it cannot be served; with RDONLY */
#define QCOW2_DIRECT  0x08 /* data bypasses the page cache */
#define QCOW2_UNSAFE  0x10 /* never sync */
#define QCOW2_REPAIR                                                                               \
	0x20 /* for qcow2_repair(): as INSPECT, but with the writer's lock; with both */
#define QCOW2_LARGE_DIRECT                                                                         \
	0x80 /* data of aligned writes of 64 KiB or more bypasses the page cache, if it can */
#define QCOW2_RESIZE 0x40 /* for qcow2_resize() only: writable, but the open writes nothing */

struct qcow2_open_opts {
	unsigned int flags;
	size_t cache_bytes; /* for L2 tables and refcount blocks; 0: a default */
	struct file *file;  /* used instead of opening the path (tests); the image owns it */
	/*
	 * Writable zoned images: a directory on a tmpfs for the shadow, a crash journal that keeps
	 * the state since the last flush when the process is killed (docs/image.md, "The shadow").
	 * NULL: no shadow is written or replayed.
	 */
	const char *shadow_dir;
	/* QCOW2_ERRLEN bytes, or NULL: gets sentences about the shadow for the user, or "". */
	char *notice;
	/*
	 * NULL, or called after a write or reset of ZONE has waited MS milliseconds for a flush,
	 * because more than 4 GiB of clusters, or a full shadow, waited for it. Under a lock: it
	 * calls nothing of the image at PATH.
	 */
	void (*waited)(const char *path, uint32_t zone, uint64_t ms);
};

/*
 * Opens the image at PATH. The caller ends *OUT by qcow2_close(). On failure nothing was changed,
 * and ERR says in a sentence what is wrong, where, and how to repair it. The open takes QEMU's
 * image locks, so that two writers exclude each other.
 */
int qcow2_open(const char *path, const struct qcow2_open_opts *opts, struct qcow2 **out,
	       char err[QCOW2_ERRLEN]);

/* Flushes Q unless it is read-only, and frees it, also after an error. */
int qcow2_close(struct qcow2 *q);

const struct qcow2_info *qcow2_info(const struct qcow2 *q);

#define QCOW2_NOWAIT 0x1 /* -EAGAIN instead of waiting for a lock, a table or the disk */

/* Reads LEN bytes at OFF into BUF. With QCOW2_NOWAIT -EAGAIN may leave BUF partly filled. */
int qcow2_read(struct qcow2 *q, void *buf, uint64_t off, uint64_t len, unsigned int flags);

/*
 * Returns a mapping of the LEN bytes at OFF in the page cache, for a system call to read. NULL: use
 * qcow2_read(). Valid until the zone is reset or finished, or the image is closed. A byte that
 * cannot be read is EFAULT for a system call, and SIGBUS for the program. Does not block. Any
 * thread.
 */
const void *qcow2_peek(const struct qcow2 *q, uint64_t off, uint64_t len);

/*
 * Writes LEN bytes at OFF. In a zoned image the range lies in one zone, and the first write to a
 * zone allocates clusters for the rest of it, so that later writes change no metadata. -ENOSPC: the
 * disk is full. -EROFS: the image is read-only, or a failed sync has poisoned it.
 */
int qcow2_write(struct qcow2 *q, const void *buf, uint64_t off, uint64_t len, unsigned int flags);

/*
 * The same for N pieces with LEN bytes in total, in one system call if the range is contiguous in
 * the file. In an image on a tmpfs with free clusters, it allocates only the clusters of the range.
 */
int qcow2_writev(struct qcow2 *q, const struct iovec *iov, int n, uint64_t off, uint64_t len,
		 unsigned int flags);

/*
 * Reserves free clusters of an image on a tmpfs for a write of LEN bytes to ZONE and returns where
 * the page cache maps them, for a system call to receive the data into. NULL: there are none, or
 * LEN is not a number of whole clusters up to 2 MiB; the caller uses a buffer of its own. The
 * memory may fault, as with qcow2_peek(). The reservation is ended by qcow2_commit() or
 * qcow2_release() before the image is closed. Does not block. Any thread.
 */
void *qcow2_reserve(struct qcow2 *q, uint32_t zone, uint64_t len);
/*
 * Writes the LEN bytes that were received into MEM, from qcow2_reserve(), at OFF: maps the clusters
 * there and copies nothing. After an error MEM is still reserved. -EEXIST: clusters cannot be
 * mapped at OFF; the caller writes MEM with qcow2_write(). Other errors and QCOW2_NOWAIT as there.
 * Any thread.
 */
int qcow2_commit(struct qcow2 *q, const void *mem, uint64_t off, uint64_t len, unsigned int flags);
/* Ends a reservation that was not committed: its clusters stay free. Does not block. Any thread. */
void qcow2_release(struct qcow2 *q, uint32_t zone, void *mem, uint64_t len);
/*
 * Returns to the file system the space of free clusters that an image on a tmpfs, or with one of
 * the flags DIRECT, keeps; qcow2_close() does so, too. Takes 100 us for each MiB, on some disks
 * more. Any thread.
 */
void qcow2_trim(struct qcow2 *q);

/*
 * For an image with QCOW2_DIRECT or QCOW2_LARGE_DIRECT: returns the file descriptor, and in *HOST
 * the file offset, of the LEN bytes at OFF, so that the caller can read or write them itself (N
 * pieces in IOV) with O_DIRECT. If that moves fewer than LEN bytes, the caller must repeat it by
 * qcow2_read() or qcow2_writev(), which handle errors. -1: use those in the first place. Does not
 * block. Valid until the zone is reset or finished, or the image is closed. Any thread.
 */
int qcow2_locate(struct qcow2 *q, const struct iovec *iov, int n, uint64_t off, uint64_t len,
		 bool write, uint64_t *host);
/* Reports a write by way of qcow2_locate() to later flushes; call it before the write completes. */
void qcow2_wrote(struct qcow2 *q);

/* Returns the write pointer of ZONE as last set, or as read at open, without marker bits. */
uint64_t qcow2_wp(const struct qcow2 *q, uint32_t zone);

/*
 * Notes that everything in ZONE below WP is written; the next flush records it. It never moves the
 * write pointer back; only qcow2_zone_reset() does. Takes no lock, does no I/O and cannot fail.
 */
void qcow2_wp_advance(struct qcow2 *q, uint32_t zone, uint64_t wp);

/*
 * Discards the data of ZONE and sets its write pointer to its start. Clusters that a flush has
 * recorded are freed only after another has made the reset durable, the others by qcow2_housekeep().
 */
int qcow2_zone_reset(struct qcow2 *q, uint32_t zone);

/*
 * Makes everything in ZONE from WP on read as zeroes, by unmapping whole clusters, and then sets
 * the write pointer to the zone's writable end.
 */
int qcow2_zone_finish(struct qcow2 *q, uint32_t zone, uint64_t wp);

/*
 * Makes all changes that completed before the call durable: data, mapping, write pointers. Except
 * for the header, only a flush and a resize write metadata, in the order of docs/image.md, "The
 * law". After a failed sync every later flush fails with -EROFS until the image is opened again.
 */
int qcow2_flush(struct qcow2 *q);

/*
 * Does in the background what no write should wait for: frees clusters that were unmapped and that
 * no flush has recorded. Whether a flush should run soon. Call it after resets and finishes.
 * Blocks. Any thread.
 */
bool qcow2_housekeep(struct qcow2 *q);

/* Whether a flush would have metadata to write: a hint. Takes no lock. Any thread. */
bool qcow2_dirty(const struct qcow2 *q);

/* Gets the bytes that the file occupies on its disk (st_blocks), and its length. */
int qcow2_file_sizes(struct qcow2 *q, uint64_t *allocated, uint64_t *length);

struct qcow2_create_opts {
	uint64_t size;		/* of the virtual disk; rounded up to 512 */
	uint32_t cluster_size;	/* 0: 64 KiB */
	uint32_t refcount_bits; /* 0: 16 */
	enum qcow2_compression compression;
	bool lazy_refcounts;
	uint8_t uuid[QCOW2_UUID]; /* recorded; all zero: a random one */
	bool zoned;
	struct qcow2_zoned zone; /* sizes, limits and layout (NONE: v11); the rest is derived */
};

/*
 * Creates an image at PATH, and replaces a file there unless another program has it open. OPTS is
 * validated first, and defaults and clamped limits are written back into it; WARN gets a line for
 * each clamped value, or "". FILE as in qcow2_open_opts. 0; or -errno, and ERR has a sentence.
 */
int qcow2_create(const char *path, struct qcow2_create_opts *opts, struct file *file,
		 char warn[QCOW2_ERRLEN], char err[QCOW2_ERRLEN]);

struct qcow2_check_result {
	uint64_t corruptions;
	uint64_t leaks; /* clusters */
	uint64_t check_errors;
	uint64_t image_end_offset;
	uint64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
	uint64_t corruptions_fixed, leaks_fixed; /* by qcow2_repair() */
};

/*
 * Compares every refcount with the references found, tables with their geometry, and write pointers
 * with their zones. Calls SAY with a line for each finding. Changes nothing. 0, whatever it found;
 * -errno if the check could not be done.
 */
int qcow2_check(struct qcow2 *q, struct qcow2_check_result *res,
		void (*say)(void *arg, const char *line), void *arg);

/*
 * Sets the size of the virtual disk to SIZE bytes, for a zoned disk a number of whole zones. Q
 * was opened with QCOW2_RESIZE. New zones are empty and new space reads as zeroes. A smaller
 * size needs SHRINK: a plain disk loses the data behind it, a zoned disk must be empty there.
 * All else remains.
 *
 * A power cut leaves the old size or the new one, and at most leaks. 0; or -errno, and ERR says
 * what is wrong and how to repair it. -EINVAL: the size is impossible, and nothing was written.
 * After another error qcow2_info() has the size, unless the write that changes it failed; ERR then
 * says so. After the call only qcow2_info(), qcow2_check() and qcow2_close() may be used.
 */
int qcow2_resize(struct qcow2 *q, uint64_t size, bool shrink, char err[QCOW2_ERRLEN]);

#define QCOW2_FIX_LEAKS 1 /* free clusters that nothing uses */
#define QCOW2_FIX_ALL	2 /* and repair corruptions */

/*
 * Repairs an image that was opened with QCOW2_REPAIR. Calls SAY with a line for each finding and
 * each change. RES says what is left, and how much was fixed. The file is changed only if the
 * result is no worse than before; a crash during the repair leaves it no worse, either. 0; -errno
 * if it could not be done, and may then be tried again. After the call only qcow2_check() and
 * qcow2_close() may be used.
 */
int qcow2_repair(struct qcow2 *q, unsigned int fix, struct qcow2_check_result *res,
		 void (*say)(void *arg, const char *line), void *arg);

/* A piece of the mapping, for map and check: LEN bytes from the requested offset on. */
struct qcow2_extent {
	uint64_t len;
	bool allocated, zero, compressed;
	uint64_t host_off; /* when allocated and neither zero nor compressed */
};
/* Gets the mapping at OFF: the longest extent that is uniform, at most LEN bytes. */
int qcow2_map(struct qcow2 *q, uint64_t off, uint64_t len, struct qcow2_extent *out);

#endif
