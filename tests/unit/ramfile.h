/* SPDX-License-Identifier: MIT */
/*
 * A file in memory behind the seam of qcow2/file.h, for tests: what a disk would hold, a record of
 * every call that changes it, and a hook that may fail any call. The crash laboratory builds on the
 * record: replaying a prefix of it gives the disk as a power cut would have left it.
 *
 * A struct ramdisk outlives the files opened on it: ram_open() gives a struct file that the engine
 * closes, the bytes and the record stay until ram_free().
 */
#ifndef TESTS_RAMFILE_H
#define TESTS_RAMFILE_H

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "file.h"

enum ram_call { RAM_READ, RAM_WRITE, RAM_SYNC, RAM_FALLOCATE, RAM_TRUNCATE };

struct ram_op {
	enum ram_call call;
	int mode;	   /* of fallocate */
	uint64_t off, len; /* len: the new size of a truncate */
	unsigned int flags;
	void *data; /* what was written; NULL unless ramdisk.keep_data */
};

struct ramdisk {
	pthread_mutex_t lock;
	uint8_t *bytes;
	uint64_t size, cap;
	struct ram_op *ops; /* what changed the disk, in order; reads are not kept */
	size_t nr_ops, cap_ops;
	bool keep_data;
	size_t max_transfer; /* a read or write moves no more than this at a time; 0: all */
	bool no_punch;	     /* fallocate answers EOPNOTSUPP */
	bool in_memory; /* as on a tmpfs: what is opened from now on has a view, which can be populated */
	bool direct; /* as with O_DIRECT: the same */
	/* Called before every call, reads too; not 0: the call fails with it and does nothing. */
	int (*hook)(void *arg, const struct ram_op *op);
	void *hook_arg;
	int open_files;
};

struct ramfile {
	struct file file;
	struct ramdisk *disk;
};

static inline struct ramdisk *ram_new(uint64_t cap)
{
	struct ramdisk *d = calloc(1, sizeof(*d));

	assert(d);
	pthread_mutex_init(&d->lock, NULL);
	d->cap = cap;
	d->bytes = mmap(NULL, cap, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert(d->bytes != MAP_FAILED);
	return d;
}

/* Forgets what was recorded so far. */
static inline void ram_forget(struct ramdisk *d)
{
	for (size_t i = 0; i < d->nr_ops; i++)
		free(d->ops[i].data);
	d->nr_ops = 0;
}

static inline void ram_free(struct ramdisk *d)
{
	assert(!d->open_files);
	ram_forget(d);
	free(d->ops);
	munmap(d->bytes, d->cap);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

/* A disk of its own with the same bytes: as if power had been cut and nothing lost. */
static inline struct ramdisk *ram_copy(const struct ramdisk *from)
{
	struct ramdisk *d = ram_new(from->cap);

	d->size = from->size;
	for (uint64_t off = 0; off < from->size; off += 4096) { /* keep holes holes */
		static const uint8_t zeroes[4096];
		uint64_t n = from->size - off < 4096 ? from->size - off : 4096;

		if (memcmp(from->bytes + off, zeroes, n))
			memcpy(d->bytes + off, from->bytes + off, n);
	}
	return d;
}

static inline size_t ram_count(const struct ramdisk *d, enum ram_call call)
{
	size_t n = 0;

	for (size_t i = 0; i < d->nr_ops; i++)
		n += d->ops[i].call == call;
	return n;
}

static inline int ram_begin(struct ramdisk *d, const struct ram_op *op)
{
	pthread_mutex_lock(&d->lock);
	return d->hook ? d->hook(d->hook_arg, op) : 0;
}

static inline void ram_record(struct ramdisk *d, struct ram_op op, const void *data)
{
	if (d->nr_ops == d->cap_ops) {
		d->cap_ops = d->cap_ops ? 2 * d->cap_ops : 64;
		d->ops = realloc(d->ops, d->cap_ops * sizeof(*d->ops));
		assert(d->ops);
	}
	if (d->keep_data && data) {
		op.data = malloc(op.len ? op.len : 1);
		assert(op.data);
		memcpy(op.data, data, op.len);
	}
	d->ops[d->nr_ops++] = op;
}

static inline struct ramdisk *ram_of(struct file *f)
{
	return ((struct ramfile *)f)->disk;
}

static inline ssize_t ram_pread(struct file *f, void *buf, size_t len, uint64_t off,
				unsigned int flags)
{
	struct ramdisk *d = ram_of(f);
	ssize_t ret = ram_begin(d, &(struct ram_op){ RAM_READ, 0, off, len, flags, NULL });

	if (!ret) {
		if (d->max_transfer && len > d->max_transfer)
			len = d->max_transfer;
		ret = off >= d->size ? 0 : len < d->size - off ? len : d->size - off;
		memcpy(buf, d->bytes + off, ret);
	}
	pthread_mutex_unlock(&d->lock);
	return ret;
}

static inline ssize_t ram_pwrite(struct file *f, const void *buf, size_t len, uint64_t off,
				 unsigned int flags)
{
	struct ramdisk *d = ram_of(f);
	struct ram_op op = { RAM_WRITE, 0, off, len, flags, NULL };
	ssize_t ret = ram_begin(d, &op);

	if (!ret && (off > d->cap || len > d->cap - off))
		ret = -ENOSPC;
	if (!ret) {
		if (d->max_transfer && len > d->max_transfer)
			op.len = d->max_transfer;
		ram_record(d, op, buf);
		memcpy(d->bytes + off, buf, op.len);
		if (off + op.len > d->size)
			d->size = off + op.len;
		ret = op.len;
	}
	pthread_mutex_unlock(&d->lock);
	return ret;
}

static inline int ram_fdatasync(struct file *f)
{
	struct ramdisk *d = ram_of(f);
	struct ram_op op = { RAM_SYNC, 0, 0, 0, 0, NULL };
	int ret = ram_begin(d, &op);

	if (!ret)
		ram_record(d, op, NULL);
	pthread_mutex_unlock(&d->lock);
	return ret;
}

static inline int ram_fallocate(struct file *f, int mode, uint64_t off, uint64_t len)
{
	struct ramdisk *d = ram_of(f);
	struct ram_op op = { RAM_FALLOCATE, mode, off, len, 0, NULL };
	int ret = ram_begin(d, &op);

	if (!ret && (d->no_punch || !(mode & FALLOC_FL_KEEP_SIZE)))
		ret = -EOPNOTSUPP;
	if (!ret) {
		ram_record(d, op, NULL);
		if (off < d->size)
			memset(d->bytes + off, 0, len < d->size - off ? len : d->size - off);
	}
	pthread_mutex_unlock(&d->lock);
	return ret;
}

static inline int ram_ftruncate(struct file *f, uint64_t size)
{
	struct ramdisk *d = ram_of(f);
	struct ram_op op = { RAM_TRUNCATE, 0, 0, size, 0, NULL };
	int ret = ram_begin(d, &op);

	if (!ret && size > d->cap)
		ret = -EFBIG;
	if (!ret) {
		ram_record(d, op, NULL);
		if (size < d->size)
			memset(d->bytes + size, 0, d->size - size);
		d->size = size;
	}
	pthread_mutex_unlock(&d->lock);
	return ret;
}

static inline int ram_size(struct file *f, uint64_t *size)
{
	*size = ram_of(f)->size;
	return 0;
}

static inline const void *ram_map(struct file *f, uint64_t len)
{
	(void)len;
	return f->in_memory ? ram_of(f)->bytes : NULL;
}

static inline bool ram_populate(struct file *f, uint64_t off, uint64_t len)
{
	return off + len <= ram_of(f)->size;
}

/* By writes, so that they are recorded, and fail where the hook says so. */
static inline bool ram_fill(struct file *f, const struct iovec *iov, int n, uint64_t zeroes,
			    uint64_t off)
{
	void *zero = calloc(1, zeroes + 1);
	bool done = f->in_memory;

	for (int i = 0; i < n && done; off += iov[i++].iov_len)
		done = f->ops->pwrite(f, iov[i].iov_base, iov[i].iov_len, off, FILE_DATA) ==
		       (ssize_t)iov[i].iov_len;
	if (done && zeroes)
		done = f->ops->pwrite(f, zero, zeroes, off, FILE_DATA) == (ssize_t)zeroes;
	free(zero);
	return done;
}

static inline void ram_close(struct file *f)
{
	ram_of(f)->open_files--;
	free(f);
}

static inline struct file *ram_open(struct ramdisk *d)
{
	static const struct file_ops ops = {
		.pread = ram_pread,
		.pwrite = ram_pwrite,
		.fdatasync = ram_fdatasync,
		.fallocate = ram_fallocate,
		.ftruncate = ram_ftruncate,
		.size = ram_size,
		.map = ram_map,
		.populate = ram_populate,
		.fill = ram_fill,
		.close = ram_close,
	};
	struct ramfile *f = malloc(sizeof(*f));

	assert(f);
	f->file = (struct file){ .ops = &ops, .fd = -1, .in_memory = d->in_memory };
	f->file.direct = d->direct;
	f->disk = d;
	d->open_files++;
	return &f->file;
}

#endif
