/* SPDX-License-Identifier: MIT */
/*
 * Complete transfers by the members of file_ops, which behave as system calls do: they may move
 * less than requested, and be interrupted. The functions here repeat them, so their callers
 * need no loop.
 *
 * They return ENOSPC for every kind of full disk, EDQUOT and EFBIG included, and other errors as
 * they are. They keep no state; flush.c handles a failed sync. Any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "plant.h"

static int full_disk(int err)
{
	return err == -EDQUOT || err == -EFBIG ? -ENOSPC : err;
}

void file_close(struct file *f)
{
	if (f)
		f->ops->close(f);
}

/*
 * After a read at OFF that returned 0 bytes: 0 if the file ends there, else -errno. Bytes that were
 * not read must not be taken for zeroes, because a table of zeroes maps nothing.
 */
static int read_ended(struct file *f, uint64_t off)
{
	uint64_t size;
	int err = f->ops->size(f, &size);

	if (err)
		return err;
	return off < size ? -EIO : 0;
}

int file_read(struct file *f, void *buf, size_t len, uint64_t off, unsigned int flags)
{
	char *to = buf;
	int nothing = 0;

	while (len) {
		ssize_t n = f->ops->pread(f, to, len, off, flags);

		if (n == -EINTR)
			continue;
		if (n < 0)
			return n;
		if (n == 0) {
			int err = read_ended(f, off);

			/* Try once more: the file may have been extended in between. */
			if (err && !nothing++)
				continue;
			if (!err && flags & FILE_WHOLE)
				return -EIO;
			if (!err)
				memset(to, 0, len);
			return err;
		}
		to += n;
		off += n;
		len -= n;
	}
	return 0;
}

int file_write(struct file *f, const void *buf, size_t len, uint64_t off, unsigned int flags)
{
	const char *from = buf;

	while (len) {
		ssize_t n = f->ops->pwrite(f, from, len, off, flags);

		if (n == -EINTR)
			continue;
		if (n < 0)
			return full_disk(n);
		if (n == 0) /* nothing was written, without an error: the disk is full */
			return -ENOSPC;
		if (plant(short_write_ignored))
			return 0;
		from += n;
		off += n;
		len -= n;
	}
	return 0;
}

int file_writev(struct file *f, const struct iovec *iov, int n, size_t len, uint64_t off,
		unsigned int flags)
{
	int err = 0;

	if (n > 1 && f->ops->pwritev && f->ops->pwritev(f, iov, n, off, flags) == (ssize_t)len)
		return 0;
	/* After a short write or an error, write the pieces one by one; that returns the error. */
	for (int i = 0; i < n && !err; i++) {
		err = file_write(f, iov[i].iov_base, iov[i].iov_len, off, flags);
		off += iov[i].iov_len;
	}
	return err;
}

bool file_fill(struct file *f, const struct iovec *iov, int n, uint64_t zeroes, uint64_t off)
{
	return f->ops->fill && f->ops->fill(f, iov, n, zeroes, off);
}

int file_sync(struct file *f)
{
	int err;

	do
		err = f->ops->fdatasync(f);
	while (err == -EINTR);
	return full_disk(err);
}

int file_size(struct file *f, uint64_t *size)
{
	return f->ops->size(f, size);
}

const void *file_map(struct file *f, uint64_t len)
{
	return f->ops->map ? f->ops->map(f, len) : NULL;
}

bool file_cached(struct file *f, uint64_t off, uint64_t len)
{
	return !f->ops->cached || f->ops->cached(f, off, len);
}

bool file_populate(struct file *f, uint64_t off, uint64_t len)
{
	return f->ops->populate && f->ops->populate(f, off, len);
}

int file_direct(struct file *f, const struct iovec *iov, int n, uint64_t off, bool write)
{
	return f->ops->direct ? f->ops->direct(f, iov, n, off, write) : -1;
}

int file_truncate(struct file *f, uint64_t size)
{
	int err;

	do
		err = f->ops->ftruncate(f, size);
	while (err == -EINTR);
	return full_disk(err);
}

static int fallocate_retry(struct file *f, int mode, uint64_t off, uint64_t len)
{
	int err;

	do
		err = f->ops->fallocate(f, mode, off, len);
	while (err == -EINTR);
	return err;
}

static int write_zeroes(struct file *f, uint64_t off, uint64_t len)
{
	size_t unit = len < 65536 ? len : 65536;
	void *zeroes = calloc(1, unit);
	int err = 0;

	if (!zeroes)
		return -ENOMEM;
	while (len && !err) {
		size_t n = len < unit ? len : unit;

		err = file_write(f, zeroes, n, off, 0);
		off += n;
		len -= n;
	}
	free(zeroes);
	return err;
}

int file_zero(struct file *f, uint64_t off, uint64_t len)
{
	int err = -EOPNOTSUPP;

	if (f->in_memory || f->direct)
		err = fallocate_retry(f, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off, len);
	if (err == -EOPNOTSUPP || (f->direct && full_disk(err) == -ENOSPC))
		return file_discard(f, off, len);
	return full_disk(err);
}

int file_discard(struct file *f, uint64_t off, uint64_t len)
{
	int err;

	if (!len)
		return 0;
	err = fallocate_retry(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
	if (err == -EOPNOTSUPP || err == -ENOSYS || err == -ENODEV)
		err = fallocate_retry(f, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off, len);
	if (err == -EOPNOTSUPP || err == -ENOSYS || err == -ENODEV)
		err = write_zeroes(f, off, len);
	return full_disk(err);
}
