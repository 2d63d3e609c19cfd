/* SPDX-License-Identifier: MIT */
/*
 * A file in memory that remembers each change made to it: what a disk might show after a power
 * cut can be put together from that record. It can also fail at a chosen call, and refuse to be
 * written at all. Header only, one thread.
 */
#ifndef TESTS_RECFILE_H
#define TESTS_RECFILE_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

enum rec_kind { REC_WRITE, REC_TRUNCATE, REC_SYNC };

struct rec_event {
	enum rec_kind kind;
	uint64_t off; /* or the new size */
	size_t len;
	uint8_t *data;
};

/* What outlives the file: the bytes and the record. */
struct rec_disk {
	uint8_t *bytes;
	uint64_t size, room;
	struct rec_event *events;
	size_t nr_events;
	unsigned int calls;	/* so far, of all kinds */
	unsigned int fail_call; /* this one and all later fail with EIO; 0: none */
	uint64_t fail_read;	/* reads that touch this offset fail; 0: none */
	uint64_t reads;		/* bytes */
	bool frozen;		/* a change is a fault */
	unsigned int broken_in; /* changes made while frozen */
	unsigned int closed;
};

struct rec_file {
	struct file file;
	struct rec_disk *disk;
};

static inline struct rec_disk *rec_disk_of(struct file *f)
{
	return ((struct rec_file *)f)->disk;
}

static inline bool rec_fails(struct rec_disk *d)
{
	return ++d->calls >= d->fail_call && d->fail_call;
}

static inline void rec_resize(struct rec_disk *d, uint64_t size)
{
	if (size > d->room) {
		d->room = size + size / 2;
		d->bytes = realloc(d->bytes, d->room);
	}
	if (size > d->size)
		memset(d->bytes + d->size, 0, size - d->size);
	d->size = size;
}

static inline void rec_apply(struct rec_disk *d, const struct rec_event *e)
{
	if (e->kind == REC_TRUNCATE)
		rec_resize(d, e->off);
	if (e->kind != REC_WRITE)
		return;
	if (e->off + e->len > d->size)
		rec_resize(d, e->off + e->len);
	memcpy(d->bytes + e->off, e->data, e->len);
}

static inline void rec_note(struct rec_disk *d, enum rec_kind kind, uint64_t off, size_t len,
			    const void *data)
{
	struct rec_event *e;

	d->broken_in += d->frozen && kind != REC_SYNC;
	d->events = realloc(d->events, (d->nr_events + 1) * sizeof(*d->events));
	e = &d->events[d->nr_events++];
	*e = (struct rec_event){ .kind = kind, .off = off, .len = len };
	if (len) {
		e->data = malloc(len);
		memcpy(e->data, data, len);
	}
	rec_apply(d, e);
}

static inline ssize_t rec_pread(struct file *f, void *buf, size_t len, uint64_t off,
				unsigned int flags)
{
	struct rec_disk *d = rec_disk_of(f);

	(void)flags;
	if (rec_fails(d) || (d->fail_read && off <= d->fail_read && d->fail_read < off + len))
		return -EIO;
	if (off >= d->size)
		return 0;
	if (len > d->size - off)
		len = d->size - off;
	memcpy(buf, d->bytes + off, len);
	d->reads += len;
	return (ssize_t)len;
}

static inline ssize_t rec_pwrite(struct file *f, const void *buf, size_t len, uint64_t off,
				 unsigned int flags)
{
	(void)flags;
	if (rec_fails(rec_disk_of(f)))
		return -EIO;
	rec_note(rec_disk_of(f), REC_WRITE, off, len, buf);
	return (ssize_t)len;
}

static inline int rec_sync(struct file *f)
{
	if (rec_fails(rec_disk_of(f)))
		return -EIO;
	rec_note(rec_disk_of(f), REC_SYNC, 0, 0, NULL);
	return 0;
}

static inline int rec_fallocate(struct file *f, int mode, uint64_t off, uint64_t len)
{
	(void)f, (void)mode, (void)off, (void)len;
	return -EOPNOTSUPP;
}

static inline int rec_truncate(struct file *f, uint64_t size)
{
	if (rec_fails(rec_disk_of(f)))
		return -EIO;
	rec_note(rec_disk_of(f), REC_TRUNCATE, size, 0, NULL);
	return 0;
}

static inline int rec_size(struct file *f, uint64_t *size)
{
	if (rec_fails(rec_disk_of(f)))
		return -EIO;
	*size = rec_disk_of(f)->size;
	return 0;
}

static inline void rec_close(struct file *f)
{
	rec_disk_of(f)->closed++;
	free(f);
}

static inline struct file *rec_open(struct rec_disk *disk)
{
	static const struct file_ops ops = {
		.pread = rec_pread,
		.pwrite = rec_pwrite,
		.fdatasync = rec_sync,
		.fallocate = rec_fallocate,
		.ftruncate = rec_truncate,
		.size = rec_size,
		.close = rec_close,
	};
	struct rec_file *f = calloc(1, sizeof(*f));

	f->file.ops = &ops;
	f->file.fd = -1;
	f->disk = disk;
	return &f->file;
}

static inline void rec_forget(struct rec_disk *d)
{
	for (size_t i = 0; i < d->nr_events; i++)
		free(d->events[i].data);
	free(d->events);
	d->events = NULL;
	d->nr_events = 0;
}

static inline void rec_free(struct rec_disk *d)
{
	rec_forget(d);
	free(d->bytes);
	memset(d, 0, sizeof(*d));
}

#endif
