/* SPDX-License-Identifier: MIT */
/*
 * A file that fails: any struct file behind the seam, of whose calls the n-th fails, once or from
 * then on, in one of the ways a disk has. A fault outlives the files opened with it, so that n
 * counts through closing and opening anew.
 *
 * FAULT_EINTR "from then on" is a burst of eight: a call interrupted for ever is no error but a
 * machine that stands still, and the engine rightly repeats it.
 */
#ifndef TESTS_FAULT_H
#define TESTS_FAULT_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "ramfile.h"

enum fault_kind {
	FAULT_EIO,
	FAULT_ENOSPC, /* reads cannot */
	FAULT_EDQUOT, /* nor this */
	FAULT_EINTR,
	FAULT_EAGAIN, /* FILE_NOWAIT alone may have this */
	FAULT_ONE,    /* a transfer of one byte */
	FAULT_BUT_ONE,
	FAULT_NOTHING, /* a transfer of no bytes */
	FAULT_KINDS
};

#define FAULT_BURST 8

struct fault {
	enum fault_kind kind;
	bool always;
	long n;		   /* the call that fails first, from 1; 0: none does */
	_Atomic long seen; /* calls so far that could fail in this way */
	_Atomic long hits; /* of them, that did; a worker may be at it while a test looks */
	atomic_uint calls; /* BIT(ram_call) of those that did */
	pthread_mutex_t lock;
};

struct faultfile {
	struct file file;
	struct file *inner;
	struct fault *fault;
};

static inline const char *fault_name(enum fault_kind kind)
{
	static const char *const names[] = { "EIO",    "ENOSPC", "EDQUOT",	"EINTR",
					     "EAGAIN", "1 byte", "len-1 bytes", "0 bytes" };

	return names[kind];
}

static inline void fault_init(struct fault *f, enum fault_kind kind, bool always, long n)
{
	*f = (struct fault){ .kind = kind, .always = always, .n = n };
	pthread_mutex_init(&f->lock, NULL);
}

static inline bool fault_applies(enum fault_kind kind, enum ram_call call, unsigned int flags)
{
	switch (kind) {
	case FAULT_ENOSPC:
	case FAULT_EDQUOT:
		return call != RAM_READ;
	case FAULT_EAGAIN:
		return flags & FILE_NOWAIT;
	case FAULT_ONE:
	case FAULT_BUT_ONE:
	case FAULT_NOTHING:
		return call == RAM_READ || call == RAM_WRITE;
	default:
		return true;
	}
}

/* Whether this call is to fail. */
static inline bool fault_hits(struct fault *f, enum ram_call call, unsigned int flags)
{
	bool hit = false;

	pthread_mutex_lock(&f->lock);
	if (fault_applies(f->kind, call, flags)) {
		f->seen++;
		hit = f->n && (f->always ? f->seen >= f->n : f->seen == f->n);
		if (f->kind == FAULT_EINTR && f->always && f->seen >= f->n + FAULT_BURST)
			hit = false;
	}
	if (hit) {
		f->hits++;
		f->calls |= 1u << call;
	}
	pthread_mutex_unlock(&f->lock);
	return hit;
}

/* What a hit transfer of *LEN bytes does: -errno, 0 to end as if 0 were moved, 1 to go on. */
static inline int fault_transfer(const struct fault *f, size_t *len)
{
	static const int errnos[] = { -EIO, -ENOSPC, -EDQUOT, -EINTR, -EAGAIN };

	if (f->kind < FAULT_ONE)
		return errnos[f->kind];
	if (f->kind == FAULT_NOTHING)
		return 0;
	if (f->kind == FAULT_ONE)
		*len = 1;
	else if (*len > 1)
		--*len;
	return 1;
}

static inline struct faultfile *fault_of(struct file *f)
{
	return (struct faultfile *)f;
}

static inline ssize_t fault_pread(struct file *file, void *buf, size_t len, uint64_t off,
				  unsigned int flags)
{
	struct faultfile *f = fault_of(file);

	if (len && fault_hits(f->fault, RAM_READ, flags)) {
		int how = fault_transfer(f->fault, &len);

		if (how <= 0)
			return how;
	}
	return f->inner->ops->pread(f->inner, buf, len, off, flags);
}

static inline ssize_t fault_pwrite(struct file *file, const void *buf, size_t len, uint64_t off,
				   unsigned int flags)
{
	struct faultfile *f = fault_of(file);

	if (len && fault_hits(f->fault, RAM_WRITE, flags)) {
		int how = fault_transfer(f->fault, &len);

		if (how <= 0)
			return how;
	}
	return f->inner->ops->pwrite(f->inner, buf, len, off, flags);
}

static inline int fault_other(struct faultfile *f, enum ram_call call)
{
	size_t len = 0;

	return fault_hits(f->fault, call, 0) ? fault_transfer(f->fault, &len) : 1;
}

static inline int fault_fdatasync(struct file *file)
{
	struct faultfile *f = fault_of(file);
	int how = fault_other(f, RAM_SYNC);

	return how <= 0 ? how : f->inner->ops->fdatasync(f->inner);
}

static inline int fault_fallocate(struct file *file, int mode, uint64_t off, uint64_t len)
{
	struct faultfile *f = fault_of(file);
	int how = fault_other(f, RAM_FALLOCATE);

	return how <= 0 ? how : f->inner->ops->fallocate(f->inner, mode, off, len);
}

static inline int fault_ftruncate(struct file *file, uint64_t size)
{
	struct faultfile *f = fault_of(file);
	int how = fault_other(f, RAM_TRUNCATE);

	return how <= 0 ? how : f->inner->ops->ftruncate(f->inner, size);
}

static inline int fault_size(struct file *file, uint64_t *size)
{
	return fault_of(file)->inner->ops->size(fault_of(file)->inner, size);
}

static inline void fault_close(struct file *file)
{
	file_close(fault_of(file)->inner);
	free(file);
}

/* A file on D that fails as FAULT says. */
static inline struct file *fault_open(struct ramdisk *d, struct fault *fault)
{
	static const struct file_ops ops = {
		.pread = fault_pread,
		.pwrite = fault_pwrite,
		.fdatasync = fault_fdatasync,
		.fallocate = fault_fallocate,
		.ftruncate = fault_ftruncate,
		.size = fault_size,
		.close = fault_close,
	};
	struct faultfile *f = malloc(sizeof(*f));

	assert(f);
	f->file = (struct file){ .ops = &ops, .fd = -1 };
	f->inner = ram_open(d);
	f->fault = fault;
	return &f->file;
}

#endif
