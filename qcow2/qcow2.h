/* SPDX-License-Identifier: MIT */
/*
 * qcow2: open, create, read, write and check qcow2 images, plain or with the zoned extension.
 *
 * A library of its own: it knows nothing of NVMe, events or logs. Errors are -errno; opening
 * functions also give a sentence for the user. Offsets and lengths are bytes of the virtual disk
 * unless their name says host.
 *
 * Threads: qcow2_read() and qcow2_write() may run in any number of threads. Two writes must not
 * overlap, and while a zone is reset or finished the caller keeps reads and writes out of it
 * (the zone state machine does). Everything else serialises itself.
 *
 * A zone's *write pointer* is an absolute byte offset, as in the image. The library has no zone
 * states and no limits on open zones: they belong to zns/. It does not refuse a read at or above
 * the write pointer either, it returns what the mapping says.
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

/* What the image's header says; constant while the image is open, but for file_size. */
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
	bool unclosed; /* opened with a shadow and not closed: it may wait to be adopted */
	bool lazy_refcounts;
	bool extended_l2;
	bool has_uuid; /* recorded in the image; else derived from what the file is */
	uint8_t uuid[QCOW2_UUID];
	char backing_file[1024]; /* named, never opened */
	char backing_format[64];
	char data_file[1024]; /* named, never opened */
	struct qcow2_zoned zoned;
};

#define QCOW2_RDONLY  0x01 /* writes nothing at all to the file */
#define QCOW2_NO_LOCK 0x02 /* -U: also when another program has the image open; with RDONLY */
#define QCOW2_INSPECT 0x04 /* for info and check: open what could not be served; with RDONLY */
#define QCOW2_DIRECT  0x08 /* data bypasses the page cache */
#define QCOW2_UNSAFE  0x10 /* never sync */
#define QCOW2_REPAIR                                                                               \
	0x20 /* for qcow2_repair(): as INSPECT, but with the writer's lock; with both */
#define QCOW2_RESIZE 0x40 /* for qcow2_resize() alone: to be written, but nothing is as yet */

struct qcow2_open_opts {
	unsigned int flags;
	size_t cache_bytes; /* for L2 tables and refcount blocks; 0: a default */
	struct file *file;  /* use this file instead of opening the path (tests); taken over */
	/*
	 * Writable zoned images: a directory on a tmpfs for the shadow, in which the state since
	 * the last flush outlives a kill (docs/image.md, "The shadow"). NULL: none is kept or
	 * adopted.
	 */
	const char *shadow_dir;
	/* QCOW2_ERRLEN bytes, or NULL: gets what is worth telling of the shadow, "" if nothing. */
	char *notice;
};

/*
 * Opens the image at PATH. On success *OUT is the caller's until qcow2_close(). On failure
 * nothing was changed and ERR says in a sentence what is wrong, where, and how to mend it.
 * Writable opens take QEMU's locks, so that two writers exclude each other.
 */
int qcow2_open(const char *path, const struct qcow2_open_opts *opts, struct qcow2 **out,
	       char err[QCOW2_ERRLEN]);

/* Flushes (unless read-only) and frees. The image is freed whatever is returned. */
int qcow2_close(struct qcow2 *q);

const struct qcow2_info *qcow2_info(const struct qcow2 *q);

#define QCOW2_NOWAIT 0x1 /* answer -EAGAIN rather than wait: for a lock, a table, the disk */

int qcow2_read(struct qcow2 *q, void *buf, uint64_t off, uint64_t len, unsigned int flags);

/*
 * The LEN bytes at OFF where they lie in the page cache, for a system call to read; or NULL:
 * read them. They stay good until their zone is reset or finished, or the image closed. Nobody
 * but the kernel may touch them, for which a byte that cannot be read is an EFAULT and no
 * signal. Any thread.
 */
const void *qcow2_peek(const struct qcow2 *q, uint64_t off, uint64_t len);

/*
 * Writes data. In a zoned image the range lies in one zone, and clusters are allocated for the
 * rest of the zone at the first write into it, so that what follows needs no metadata.
 * -ENOSPC: the disk is full. -EROFS: opened read-only, or a failed sync has poisoned the image.
 */
int qcow2_write(struct qcow2 *q, const void *buf, uint64_t off, uint64_t len, unsigned int flags);

/*
 * The same in N pieces, of LEN bytes together: one system call, if they lie together in the file.
 * On a tmpfs that has free clusters, only those are allocated that the pieces lie in.
 */
int qcow2_writev(struct qcow2 *q, const struct iovec *iov, int n, uint64_t off, uint64_t len,
		 unsigned int flags);

/*
 * Reserves free clusters of an image on a tmpfs for a write of LEN bytes to ZONE and returns where
 * the page cache maps them, for a system call to receive the data into. NULL: there are none, or
 * LEN is not a number of whole clusters up to 2 MiB; the caller uses a buffer of its own. Only the
 * kernel may access the memory, as with qcow2_peek(). The reservation is ended by qcow2_commit() or
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
 * Returns to the file system the space of free clusters that an image on a tmpfs keeps;
 * qcow2_close() does so, too. Takes 100 us for each MiB. Any thread.
 */
void qcow2_trim(struct qcow2 *q);

/*
 * The way around both for a caller that can wait for the disk by itself (QCOW2_DIRECT): a
 * descriptor, and in *HOST where in it the LEN bytes at OFF lie, in one piece. The caller moves
 * them between there and the N pieces of IOV, by transfers that go around the page cache; whole, or
 * else by the functions above, which also know why it failed. -1: by those in any case. Does not
 * block. Good until the zone is reset or finished, or the image closed. Any thread.
 */
int qcow2_locate(struct qcow2 *q, const struct iovec *iov, int n, uint64_t off, uint64_t len,
		 bool write, uint64_t *host);
/* What qcow2_locate() located is written: for flushes to know, before anybody else is told. */
void qcow2_wrote(struct qcow2 *q);

/* The write pointer of ZONE as last set, or as the image had it when opened. Marker bits masked. */
uint64_t qcow2_wp(const struct qcow2 *q, uint32_t zone);

/*
 * Notes that everything in ZONE below WP has been written; the next flush records it. WP may not
 * fall below the last one: going back is qcow2_zone_reset() alone. Memory only, never fails.
 */
void qcow2_wp_advance(struct qcow2 *q, uint32_t zone, uint64_t wp);

/*
 * Forgets the data of ZONE; its write pointer is the zone's start. The clusters stay in quarantine
 * until a flush has made the reset durable.
 */
int qcow2_zone_reset(struct qcow2 *q, uint32_t zone);

/*
 * Makes everything at and above WP in ZONE read as zeroes and gives back what clusters it can,
 * then sets the write pointer to the zone's writable end.
 */
int qcow2_zone_finish(struct qcow2 *q, uint32_t zone, uint64_t wp);

/*
 * Makes all that was completed before the call durable: data, mapping, write pointers. THE place
 * where metadata is written, in the order of the law (docs/image.md, "The law"). After a failed
 * sync every later flush fails with -EROFS, until the image is opened anew.
 */
int qcow2_flush(struct qcow2 *q);

/* Whether a flush would have metadata to write. Any thread; a hint. */
bool qcow2_dirty(const struct qcow2 *q);

/* Bytes the file occupies on its disk (st_blocks), and its length. */
int qcow2_file_sizes(struct qcow2 *q, uint64_t *allocated, uint64_t *length);

struct qcow2_create_opts {
	uint64_t size;		/* of the virtual disk; rounded up to 512 */
	uint32_t cluster_size;	/* 0: 64 KiB */
	uint32_t refcount_bits; /* 0: 16 */
	enum qcow2_compression compression;
	bool lazy_refcounts;
	uint8_t uuid[QCOW2_UUID]; /* recorded; all zero: a random one is made */
	bool zoned;
	struct qcow2_zoned zone; /* sizes, limits and layout (NONE: v11); the rest is derived */
};

/*
 * Makes a new image at PATH, replacing what was there unless another program has it open. OPTS
 * is validated first and its defaults and clamped limits are written back into it; WARN gets a
 * line for each clamp ("" when there was none). FILE as in qcow2_open_opts.
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
 * Compares every refcount with the references found, tables with their geometry, write pointers
 * with their zones. Reports each finding as a line through SAY. Changes nothing. 0, or -errno when
 * the check itself could not be done.
 */
int qcow2_check(struct qcow2 *q, struct qcow2_check_result *res,
		void (*say)(void *arg, const char *line), void *arg);

/*
 * Makes the disk of an image that was opened with QCOW2_RESIZE SIZE bytes long, a zoned one in
 * whole zones. New zones are empty, new room reads as zeroes. A smaller size must be asked for by
 * SHRINK: a plain disk loses what lies behind it, a zoned one must be empty there. All else stays.
 *
 * A power cut leaves the old size or the new one, and at worst leaks. 0; or -errno, and ERR says
 * what is wrong, and how to mend it: -EINVAL for what cannot be (nothing was written), else the
 * size is what qcow2_info() says, unless the error struck the one write that changes it: ERR then
 * says so. Afterwards Q is good for qcow2_info(), qcow2_check() and qcow2_close().
 */
int qcow2_resize(struct qcow2 *q, uint64_t size, bool shrink, char err[QCOW2_ERRLEN]);

#define QCOW2_FIX_LEAKS 1 /* give back clusters that nothing uses */
#define QCOW2_FIX_ALL	2 /* and mend what is corrupt */

/*
 * Repairs an image that was opened with QCOW2_REPAIR. Reports each finding and each thing done as
 * a line through SAY. RES tells what is left, and how much was fixed. The file is changed only
 * when the result is no worse than what was; a crash in the middle leaves it no worse, either.
 * 0, or -errno when it could not be done; then another try is safe. Afterwards Q is good for
 * qcow2_check() and qcow2_close().
 */
int qcow2_repair(struct qcow2 *q, unsigned int fix, struct qcow2_check_result *res,
		 void (*say)(void *arg, const char *line), void *arg);

/* One piece of the mapping, for map and check: what LEN bytes from the asked offset on are. */
struct qcow2_extent {
	uint64_t len;
	bool allocated, zero, compressed;
	uint64_t host_off; /* when allocated and neither zero nor compressed */
};
int qcow2_map(struct qcow2 *q, uint64_t off, uint64_t len, struct qcow2_extent *out);

#endif
