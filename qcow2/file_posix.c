/* SPDX-License-Identifier: MIT */
/*
 * A real file: one file descriptor, and with FILE_DIRECT or FILE_DIRECT_WRITES a second one with
 * O_DIRECT.
 *
 * Guest data (with FILE_DIRECT_WRITES only that of large writes) uses the second descriptor if
 * buffer, length and offset are multiples of 4096; everything else, above all metadata, uses the
 * first. The kernel keeps the two coherent. A caller that can wait for a direct transfer without
 * sleeping in it (io_uring) gets the descriptor by file_direct().
 *
 * FILE_NOWAIT on a read is RWF_NOWAIT. On a write through the page cache it is ignored: file
 * systems would return EAGAIN for every block that they have to allocate, while the page cache
 * accepts such a write without waiting for the disk. A direct write always waits, so it
 * returns -EAGAIN.
 *
 * A tmpfs does not support RWF_NOWAIT; a read of it waits only for pages that were swapped out.
 *
 * With FILE_DIRECT there is no file_map(), which maps the page cache. With FILE_DIRECT_WRITES there
 * is: such a write drops the pages of its range from the page cache, and a read brings them back.
 * No page is dirty there: zones are written once, and a direct write covers whole pages.
 *
 * On a tmpfs the pages of free ranges are kept, since allocating a page costs several times as much
 * as filling it. So ranges are zeroed in place, and file_populate() prepares free ranges for data
 * to be received into (reserve.c) or copied into (file_fill()).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "file.h"
#include "guard.h"

#define DIRECT_ALIGN 4096

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14; an older one refuses it: no file_populate() */
#endif

struct file_posix {
	struct file file;
	int direct_fd;	 /* -1: none */
	int wait_fd;	 /* -1: none; see wait_written() */
	bool only_large; /* FILE_DIRECT_WRITES */
	bool writable;
	char *view;
	size_t view_len; /* 0: none */
	bool unsafe;
	bool maps_agree;
};

static struct file_posix *posix_of(struct file *f)
{
	return (struct file_posix *)f; /* file is the first member */
}

/* Whether a transfer of guest data of this length in all uses O_DIRECT, if it is aligned. */
static bool bypasses(const struct file_posix *p, bool write, size_t len)
{
	return p->direct_fd >= 0 && (!p->only_large || (write && len >= FILE_LARGE));
}

static bool is_aligned(const void *buf, size_t len, uint64_t off)
{
	return !(((uintptr_t)buf | len | off) & (DIRECT_ALIGN - 1));
}

static bool may_go_direct(const struct file_posix *p, bool write, const void *buf, size_t len,
			  uint64_t off, unsigned int flags)
{
	return flags & FILE_DATA && bypasses(p, write, len) && is_aligned(buf, len, off);
}

static ssize_t posix_pread(struct file *f, void *buf, size_t len, uint64_t off, unsigned int flags)
{
	struct file_posix *p = posix_of(f);
	bool direct = may_go_direct(p, false, buf, len, off, flags);
	struct iovec iov = { buf, len };
	ssize_t n;

	if (!(flags & FILE_NOWAIT) || p->file.in_memory) {
		n = pread(direct ? p->direct_fd : f->fd, buf, len, off);
		return n < 0 ? -errno : n;
	}
	if (direct)
		return -EAGAIN;
	n = preadv2(f->fd, &iov, 1, off, RWF_NOWAIT);
	if (n >= 0)
		return n;
	return errno == EOPNOTSUPP || errno == ENOSYS ? -EAGAIN : -errno;
}

static ssize_t posix_pwrite(struct file *f, const void *buf, size_t len, uint64_t off,
			    unsigned int flags)
{
	struct file_posix *p = posix_of(f);
	bool direct = may_go_direct(p, true, buf, len, off, flags);
	ssize_t n;

	/* Also if BUF is not aligned: whoever repeats the write without FILE_NOWAIT may move it. */
	if (flags & FILE_NOWAIT && may_go_direct(p, true, NULL, len, off, flags))
		return -EAGAIN;
	n = pwrite(direct ? p->direct_fd : f->fd, buf, len, off);
	return n < 0 ? -errno : n;
}

/* Pieces are seldom aligned, so with FILE_DIRECT they are written one by one. */
static ssize_t posix_pwritev(struct file *f, const struct iovec *iov, int n, uint64_t off,
			     unsigned int flags)
{
	ssize_t done;

	if (flags & FILE_DATA && bypasses(posix_of(f), true, 0))
		return -EAGAIN;
	done = pwritev(f->fd, iov, n, off);
	return done < 0 ? -errno : done;
}

static int posix_direct(struct file *f, const struct iovec *iov, int n, uint64_t off, bool write)
{
	struct file_posix *p = posix_of(f);
	size_t len = 0;

	for (int i = 0; i < n; i++) {
		if (!is_aligned(iov[i].iov_base, iov[i].iov_len, off + len))
			return -1;
		len += iov[i].iov_len;
	}
	return bypasses(p, write, len) ? p->direct_fd : -1;
}

static int posix_fdatasync(struct file *f)
{
	if (posix_of(f)->unsafe)
		return 0;
	return fdatasync(f->fd) ? -errno : 0;
}

/* Holes read as zeroes already: most of them are skipped. */
static int zero_in_place(int fd, uint64_t off, uint64_t end)
{
	static const char zeroes[65536];

	while (off < end) {
		off_t data = lseek(fd, (off_t)off, SEEK_DATA);
		uint64_t left = end - (uint64_t)data;
		ssize_t n;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		if ((uint64_t)data >= end)
			return 0;
		n = pwrite(fd, zeroes, left < sizeof(zeroes) ? left : sizeof(zeroes), data);
		if (n < 0)
			return -errno;
		off = (uint64_t)data + (uint64_t)n;
	}
	return 0;
}

/*
 * Waits for what the kernel is writing of a range that is to be discarded: fallocate() would wait,
 * too, but hold the inode's lock, for which all writes to the file wait. By a descriptor of its
 * own, since the wait takes an error from its descriptor, which is fdatasync()'s to report.
 */
static void wait_written(struct file_posix *p, uint64_t off, uint64_t len)
{
	if (p->wait_fd >= 0)
		sync_file_range(p->wait_fd, (off_t)off, (off_t)len, SYNC_FILE_RANGE_WAIT_BEFORE);
}

static int posix_fallocate_mode(struct file *f, int mode, uint64_t off, uint64_t len)
{
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && !f->in_memory)
		wait_written(posix_of(f), off, len);
	if (mode & FALLOC_FL_ZERO_RANGE && f->in_memory)
		return zero_in_place(f->fd, off, off + len);
	return fallocate(f->fd, mode, off, len) ? -errno : 0;
}

static int posix_ftruncate(struct file *f, uint64_t size)
{
	return ftruncate(f->fd, size) ? -errno : 0;
}

static int posix_size(struct file *f, uint64_t *size)
{
	struct stat st;

	if (fstat(f->fd, &st))
		return -errno;
	*size = st.st_size;
	return 0;
}

/*
 * Detects what the file system supports. On file systems of disks and on tmpfs a mapping and read()
 * use the same page cache; network and pass-through file systems have modes in which a mapping is
 * outdated.
 */
static void know_file_system(struct file_posix *p)
{
	struct statfs fs = { 0 };

	fstatfs(p->file.fd, &fs);
	switch ((unsigned long)fs.f_type) {
	case TMPFS_MAGIC:
		p->file.in_memory = true;
		p->maps_agree = true;
		break;
	case EXT4_SUPER_MAGIC:
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case F2FS_SUPER_MAGIC:
	case OVERLAYFS_SUPER_MAGIC:
		p->maps_agree = true;
	}
}

static const void *posix_map(struct file *f, uint64_t len)
{
	struct file_posix *p = posix_of(f);
	int how = PROT_READ | (f->in_memory && p->writable ? PROT_WRITE : 0);
	void *view;

	if (bypasses(p, false, len) || p->view_len || !p->maps_agree)
		return NULL;
	view = mmap(NULL, len, how, MAP_SHARED | MAP_NORESERVE, f->fd, 0);
	if (view == MAP_FAILED)
		return NULL;
	if (how & PROT_WRITE)
		guard_install(); /* for posix_fill() */
	p->view = view;
	p->view_len = len;
	return view;
}

#define CACHED_PAGES 512u /* looked up at once */

static bool posix_cached(struct file *f, uint64_t off, uint64_t len)
{
	const struct file_posix *p = posix_of(f);
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), end = off + len;
	unsigned char in_memory[CACHED_PAGES];

	if (!p->only_large)
		return true;
	for (off -= off % page; off < end; off += page * CACHED_PAGES) {
		uint64_t n = (end - off + page - 1) / page;

		if (n > CACHED_PAGES)
			n = CACHED_PAGES;
		if (mincore(p->view + off, n * page, in_memory))
			return false;
		for (uint64_t i = 0; i < n; i++)
			if (!(in_memory[i] & 1))
				return false;
	}
	return true;
}

/*
 * MADV_POPULATE_READ costs half as much as MADV_POPULATE_WRITE: on a tmpfs the kernel maps the
 * pages around a page with it, and makes all of them writable.
 */
static bool posix_populate(struct file *f, uint64_t off, uint64_t len)
{
	struct file_posix *p = posix_of(f);

	return f->in_memory && p->writable && off + len <= p->view_len &&
	       !madvise(p->view + off, len, MADV_POPULATE_READ);
}

struct fill {
	const struct iovec *iov;
	int n;
	char *to;
	uint64_t zeroes;
};

/* For guard_run(). */
static void fill(void *arg)
{
	const struct fill *fill = arg;
	char *to = fill->to;

	for (int i = 0; i < fill->n; i++) {
		memcpy(to, fill->iov[i].iov_base, fill->iov[i].iov_len);
		to += fill->iov[i].iov_len;
	}
	memset(to, 0, fill->zeroes);
}

static bool posix_fill(struct file *f, const struct iovec *iov, int n, uint64_t zeroes,
		       uint64_t off)
{
	struct file_posix *p = posix_of(f);
	uint64_t len = zeroes;

	for (int i = 0; i < n; i++)
		len += iov[i].iov_len;
	if (!f->in_memory || !p->writable || off + len > p->view_len)
		return false;
	return guard_run(fill, &(struct fill){ iov, n, p->view + off, zeroes });
}

static void posix_close(struct file *f)
{
	struct file_posix *p = posix_of(f);

	if (p->view_len)
		munmap(p->view, p->view_len);
	if (p->direct_fd >= 0)
		close(p->direct_fd);
	if (p->wait_fd >= 0)
		close(p->wait_fd);
	close(f->fd);
	free(p);
}

static const struct file_ops posix_ops = {
	.pread = posix_pread,
	.pwrite = posix_pwrite,
	.pwritev = posix_pwritev,
	.fdatasync = posix_fdatasync,
	.fallocate = posix_fallocate_mode,
	.ftruncate = posix_ftruncate,
	.size = posix_size,
	.direct = posix_direct,
	.map = posix_map,
	.cached = posix_cached,
	.populate = posix_populate,
	.fill = posix_fill,
	.close = posix_close,
};

/* Refuses everything but regular files, such as a directory, a device or a pipe. 0 or -errno. */
static int only_regular(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	return S_ISREG(st.st_mode) ? 0 : -EINVAL;
}

/* Another descriptor of the file of FD, opened with FLAGS. */
static int open_again(int fd, int flags)
{
	char name[64];
	int again;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	again = open(name, flags | O_CLOEXEC);
	return again < 0 ? -errno : again;
}

int file_posix(const char *path, unsigned int flags, struct file **out)
{
	int access = flags & FILE_RDONLY ? O_RDONLY : O_RDWR;
	struct file_posix *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->file.ops = &posix_ops;
	p->direct_fd = -1;
	p->wait_fd = -1;
	p->unsafe = flags & FILE_UNSAFE;
	p->writable = !(flags & FILE_RDONLY);
	/* O_NONBLOCK: the open of a FIFO must not block before it is refused. */
	p->file.fd = open(
		path, access | O_CLOEXEC | O_NONBLOCK | (flags & FILE_CREATE ? O_CREAT : 0), 0644);
	if (p->file.fd < 0) {
		err = -errno;
		goto free_file;
	}
	err = only_regular(p->file.fd);
	if (err)
		goto close_fd;
	if (flags & FILE_CREATE && ftruncate(p->file.fd, 0)) {
		err = -errno;
		goto close_fd;
	}
	know_file_system(p);
	if (flags & FILE_DIRECT) {
		p->direct_fd = open_again(p->file.fd, access | O_DIRECT);
		if (p->direct_fd < 0) {
			err = p->direct_fd;
			goto close_fd;
		}
	} else if (flags & FILE_DIRECT_WRITES && !p->file.in_memory) {
		p->direct_fd = open_again(p->file.fd, access | O_DIRECT);
		p->only_large = true;
	}
	p->file.direct = p->direct_fd >= 0;
	if (p->writable)
		p->wait_fd = open_again(p->file.fd, O_RDONLY);
	*out = &p->file;
	return 0;

close_fd:
	close(p->file.fd);
free_file:
	free(p);
	return err;
}
