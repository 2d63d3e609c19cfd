// SPDX-License-Identifier: MIT
/*
 * Preloaded into znsd: the n-th call of one function fails, once or from then on.
 *
 *	SHIM_CALL	pwrite, pread, fdatasync, fallocate, ftruncate, accept or malloc
 *	SHIM_N		which call, from 1; SHIM_ALWAYS=1: and all after it
 *	SHIM_ERRNO	with what
 *	SHIM_FILE	calls on other files neither fail nor count
 *	SHIM_HIT	a file that is made when the first call fails
 *
 * preadv2() counts as pread, accept4() as accept, all of the malloc family as malloc (not under a
 * sanitizer). Any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* glibc's own, under names that nobody interposes. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t align, size_t size);

static atomic_long seen;
static const char *call, *path, *hit_path;
static long n, error;
static bool always;

__attribute__((constructor)) static void shim_init(void)
{
	const char *count = getenv("SHIM_N"), *number = getenv("SHIM_ERRNO");

	path = getenv("SHIM_FILE");
	hit_path = getenv("SHIM_HIT");
	always = getenv("SHIM_ALWAYS");
	n = count ? atol(count) : 0;
	error = number ? atol(number) : EIO;
	call = getenv("SHIM_CALL"); /* last: it arms */
}

static bool is_the_file(int fd)
{
	struct stat a, b;

	return !path || (!fstat(fd, &a) && !stat(path, &b) && a.st_ino == b.st_ino);
}

static bool fails(const char *name, int fd)
{
	long i;
	int made;

	if (!call || strcmp(call, name) || (fd >= 0 && !is_the_file(fd)))
		return false;
	i = atomic_fetch_add(&seen, 1) + 1;
	if (always ? i < n : i != n)
		return false;
	made = i == n && hit_path ? open(hit_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
	if (made >= 0)
		close(made);
	errno = (int)error;
	return true;
}

EXPORT ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	return fails("pwrite", fd) ? -1 : syscall(SYS_pwrite64, fd, buf, len, off);
}

EXPORT ssize_t pread(int fd, void *buf, size_t len, off_t off)
{
	return fails("pread", fd) ? -1 : syscall(SYS_pread64, fd, buf, len, off);
}

EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int pieces, off_t off, int flags)
{
	return fails("pread", fd) ? -1
				  : syscall(SYS_preadv2, fd, iov, (long)pieces, off, 0l, flags);
}

EXPORT int fdatasync(int fd)
{
	return fails("fdatasync", fd) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

EXPORT int fallocate(int fd, int mode, off_t off, off_t len)
{
	return fails("fallocate", fd) ? -1 : (int)syscall(SYS_fallocate, fd, mode, off, len);
}

EXPORT int ftruncate(int fd, off_t size)
{
	return fails("ftruncate", fd) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

EXPORT int accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
	return fails("accept", -1) ? -1 : (int)syscall(SYS_accept4, fd, sa, len, flags);
}

#ifndef SHIM_NO_MALLOC /* a sanitizer has an allocator of its own */

EXPORT void *malloc(size_t size)
{
	return fails("malloc", -1) ? NULL : __libc_malloc(size);
}

EXPORT void *calloc(size_t nr, size_t size)
{
	return fails("malloc", -1) ? NULL : __libc_calloc(nr, size);
}

EXPORT void *realloc(void *p, size_t size)
{
	return fails("malloc", -1) ? NULL : __libc_realloc(p, size);
}

EXPORT int posix_memalign(void **out, size_t align, size_t size)
{
	void *p = fails("malloc", -1) ? NULL : __libc_memalign(align, size);

	if (!p)
		return ENOMEM;
	*out = p;
	return 0;
}

#endif
