/* SPDX-License-Identifier: MIT */
/*
 * The table of functions by which the engine accesses an image's file: every read, write, sync and
 * change of size. file_posix() opens a real file; tests use a file in memory, or one that records,
 * fails or writes short. No other code in qcow2/ makes system calls on an image, except lock.c.
 *
 * Members behave as the system call of the same name, but return -errno. They may be called from
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

#define FILE_NOWAIT 0x1 /* return -EAGAIN instead of waiting for the disk */
#define FILE_DATA   0x2 /* guest data (may bypass the page cache), not metadata */
#define FILE_WHOLE  0x4 /* a read that meets the end of the file returns -EIO */

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
	/* See file_direct(); NULL: the file has no direct access. */
	int (*direct)(struct file *f, const struct iovec *iov, int n, uint64_t off, bool write);
	/* See file_map(); NULL: the file cannot be mapped. */
	const void *(*map)(struct file *f, uint64_t len);
	/* See file_cached(); NULL: all of the mapping is. */
	bool (*cached)(struct file *f, uint64_t off, uint64_t len);
	/* See file_populate(); NULL: not supported. */
	bool (*populate)(struct file *f, uint64_t off, uint64_t len);
	/* See file_fill(); NULL: not supported. */
	bool (*fill)(struct file *f, const struct iovec *iov, int n, uint64_t zeroes, uint64_t off);
	void (*close)(struct file *f);
};

/* The first member of every kind of file. */
struct file {
	const struct file_ops *ops;
	int fd;		/* for lock.c; -1: the file has no descriptor */
	bool in_memory; /* on a tmpfs: new space costs more than writing to kept space again */
	bool direct;	/* guest data bypasses the page cache, or large writes of it do */
};

#define FILE_RDONLY 0x1
#define FILE_CREATE 0x2 /* create the file, or truncate it if it exists */
#define FILE_DIRECT 0x4 /* FILE_DATA transfers use O_DIRECT where their alignment allows */
#define FILE_UNSAFE 0x8 /* fdatasync does nothing */
/*
 * FILE_DATA writes of FILE_LARGE bytes or more use O_DIRECT where their alignment allows; all else
 * uses the page cache. Ignored on a tmpfs and where O_DIRECT is refused.
 */
#define FILE_DIRECT_WRITES 0x10
#define FILE_LARGE	   65536u

/* Opens PATH. 0 or -errno. The caller ends *OUT by file_close(). */
int file_posix(const char *path, unsigned int flags, struct file **out)
	__attribute__((warn_unused_result));
void file_close(struct file *f);

/*
 * Read or write LEN bytes at OFF. 0 or -errno; EINTR and short counts are handled inside. Bytes
 * beyond the end of the file read as zeroes, unless FILE_WHOLE is given. With FILE_NOWAIT a transfer that could be done only in
 * part returns -EAGAIN, and may have moved some of the bytes.
 */
int file_read(struct file *f, void *buf, size_t len, uint64_t off, unsigned int flags)
	__attribute__((warn_unused_result));
int file_write(struct file *f, const void *buf, size_t len, uint64_t off, unsigned int flags)
	__attribute__((warn_unused_result));
/* Writes LEN bytes in N pieces, by one system call if the file has pwritev(). */
int file_writev(struct file *f, const struct iovec *iov, int n, size_t len, uint64_t off,
		unsigned int flags) __attribute__((warn_unused_result));
int file_sync(struct file *f) __attribute__((warn_unused_result));
int file_size(struct file *f, uint64_t *size) __attribute__((warn_unused_result));
int file_truncate(struct file *f, uint64_t size) __attribute__((warn_unused_result));
/*
 * Maps the first LEN bytes of the file read-only, as in the page cache, until file_close(). NULL:
 * not possible. LEN may exceed the length of the file, which may grow; bytes beyond its end must
 * not be accessed. To be called once per file.
 */
const void *file_map(struct file *f, uint64_t len);
/*
 * Whether LEN bytes at OFF of the mapping are in memory. Only with FILE_DIRECT_WRITES is this
 * looked up, as what such a write has written is not; in all other cases the answer is yes.
 */
bool file_cached(struct file *f, uint64_t off, uint64_t len);
/*
 * Returns an O_DIRECT file descriptor, open until file_close(), by which the caller may move guest
 * data between the N pieces of IOV and the file at OFF. -1: the file has none, or these are not
 * aligned for it, or this transfer uses the page cache.
 */
int file_direct(struct file *f, const struct iovec *iov, int n, uint64_t off, bool write);
/*
 * Allocates and maps the pages of LEN bytes at OFF of the mapping (file_map()), for a system call
 * to write to. They stay until they are discarded (a tmpfs may swap them). False: the file is not
 * on a tmpfs, or the tmpfs is full.
 */
bool file_populate(struct file *f, uint64_t off, uint64_t len);
/*
 * Copies the N pieces of IOV, and then ZEROES bytes of 0, to OFF of the mapping, without a system
 * call: where the pages are in memory this costs half as much as a write, and takes no lock of the
 * file. False: the file is not on a tmpfs, or a page could not be had; part of the range may be
 * filled, and a write of it says why.
 */
bool file_fill(struct file *f, const struct iovec *iov, int n, uint64_t zeroes, uint64_t off);
/* Makes the range read as zeroes and returns its space if the file system supports that. */
int file_discard(struct file *f, uint64_t off, uint64_t len) __attribute__((warn_unused_result));
/*
 * Makes the range read as zeroes, in the fastest way. On a tmpfs and with FILE_DIRECT the range
 * keeps its space. With FILE_DIRECT it also gets space where it has none, while the disk has room.
 */
int file_zero(struct file *f, uint64_t off, uint64_t len) __attribute__((warn_unused_result));

#endif
