/* SPDX-License-Identifier: MIT */
/*
 * The seam: every byte the engine reads or writes, every sync, every change of size goes through
 * this table. The real one is file_posix(); tests put a RAM file, a recorder, a failing or a
 * short-writing file in its place. Nothing else in qcow2/ calls the kernel on an image
 * (lock.c excepted: locks are no I/O).
 *
 * Members behave as the system call of their name, but return -errno. They may be called from
 * several threads at once.
 */
#ifndef QCOW2_FILE_H
#define QCOW2_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct file;

#define FILE_NOWAIT 0x1 /* answer -EAGAIN rather than wait for the disk */
#define FILE_DATA   0x2 /* guest data (may bypass the page cache), not metadata */

struct file_ops {
	ssize_t (*pread)(struct file *f, void *buf, size_t len, uint64_t off, unsigned int flags);
	ssize_t (*pwrite)(struct file *f, const void *buf, size_t len, uint64_t off,
			  unsigned int flags);
	/* NULL: pieces are written one by one. */
	ssize_t (*pwritev)(struct file *f, const struct iovec *iov, int n, uint64_t off,
			   unsigned int flags);
	int (*fdatasync)(struct file *f);
	int (*fallocate)(struct file *f, int mode, uint64_t off, uint64_t len);
	int (*ftruncate)(struct file *f, uint64_t size);
	int (*size)(struct file *f, uint64_t *size);
	/* See file_direct(); NULL: only the members above move this file's data. */
	int (*direct)(struct file *f, const struct iovec *iov, int n, uint64_t off);
	/* See file_map(); NULL: such a file has no view. */
	const void *(*map)(struct file *f, uint64_t len);
	/* See file_populate(); NULL: this file cannot. */
	bool (*populate)(struct file *f, uint64_t off, uint64_t len);
	void (*close)(struct file *f);
};

/* What every kind of file begins with; the kinds embed it. */
struct file {
	const struct file_ops *ops;
	int fd;		/* for lock.c; -1 when there is no descriptor behind the file */
	bool in_memory; /* a byte that was given back costs more to get again than to write anew */
};

#define FILE_RDONLY 0x1
#define FILE_CREATE 0x2 /* make the file, or empty it if it is there */
#define FILE_DIRECT 0x4 /* FILE_DATA transfers use O_DIRECT where their alignment allows */
#define FILE_UNSAFE 0x8 /* fdatasync does nothing */

/* Opens PATH; 0 or -errno. The caller ends it with file_close(). */
int file_posix(const char *path, unsigned int flags, struct file **out)
	__attribute__((warn_unused_result));
void file_close(struct file *f);

/*
 * Whole transfers: 0 or -errno, EINTR and short counts are dealt with inside. What lies beyond
 * the end of the file reads as zeroes. With FILE_NOWAIT a transfer that could only be done in
 * part answers -EAGAIN, and may have moved some of the bytes.
 */
int file_read(struct file *f, void *buf, size_t len, uint64_t off, unsigned int flags)
	__attribute__((warn_unused_result));
int file_write(struct file *f, const void *buf, size_t len, uint64_t off, unsigned int flags)
	__attribute__((warn_unused_result));
/* LEN bytes in N pieces, as one write where the file can. */
int file_writev(struct file *f, const struct iovec *iov, int n, size_t len, uint64_t off,
		unsigned int flags) __attribute__((warn_unused_result));
int file_sync(struct file *f) __attribute__((warn_unused_result));
int file_size(struct file *f, uint64_t *size) __attribute__((warn_unused_result));
int file_truncate(struct file *f, uint64_t size) __attribute__((warn_unused_result));
/*
 * A read-only view of the first LEN bytes as the page cache has them, good until file_close(); or
 * NULL. LEN may exceed the file, which may grow; what lies beyond its end must not be touched. One
 * view a file.
 */
const void *file_map(struct file *f, uint64_t len);
/*
 * A descriptor by which others may move guest data between the N pieces of IOV and the file at
 * OFF, around the page cache; open until file_close(). -1: the file has none, or they do not lie
 * as it asks.
 */
int file_direct(struct file *f, const struct iovec *iov, int n, uint64_t off);
/*
 * Brings LEN bytes of the view at OFF into memory, for a system call to write to; they stay
 * there until they are discarded (a tmpfs may swap them). False: the file is on no tmpfs, or
 * there is no room.
 */
bool file_populate(struct file *f, uint64_t off, uint64_t len);
/* Makes the range read as zeroes and gives its space back where the file system can. */
int file_discard(struct file *f, uint64_t off, uint64_t len) __attribute__((warn_unused_result));
/* Makes the range read as zeroes, the quickest way. */
int file_zero(struct file *f, uint64_t off, uint64_t len) __attribute__((warn_unused_result));

#endif
