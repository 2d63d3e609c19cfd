/* SPDX-License-Identifier: MIT */
/*
 * The changes of a repair, in memory.
 *
 * The overlay takes the place of the image's file: reads see the changes, and nothing is written to
 * the file. So the check can judge a repair before it is carried out, and the passes of the repair
 * see what the earlier ones did. Changes are kept by whole clusters, in a hash table.
 *
 * One thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlay.h"

static struct overlay *overlay_of(struct file *f)
{
	return (struct overlay *)f; /* file is the first member */
}

static size_t slot(const struct overlay *o, uint64_t cluster)
{
	return (cluster * 0x9e3779b97f4a7c15ull >> 20) & o->mask;
}

static struct patch *patch_find(const struct overlay *o, uint64_t cluster)
{
	struct patch *p = o->hash[slot(o, cluster)];

	while (p && p->cluster != cluster)
		p = p->next;
	return p;
}

static int hash_grow(struct overlay *o)
{
	size_t old = o->mask + 1;
	struct patch **was = o->hash, **now = calloc(2 * old, sizeof(*now));

	if (!now)
		return -ENOMEM;
	o->hash = now;
	o->mask = 2 * old - 1;
	for (size_t i = 0; i < old; i++) {
		struct patch *p = was[i], *next;

		for (; p; p = next) {
			next = p->next;
			p->next = now[slot(o, p->cluster)];
			now[slot(o, p->cluster)] = p;
		}
	}
	free(was);
	return 0;
}

static int patch_add(struct overlay *o, uint64_t cluster, enum patch_kind kind, struct patch **out)
{
	struct patch *p;

	if (o->nr > o->mask && hash_grow(o))
		return -ENOMEM;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->cluster = cluster;
	p->kind = kind;
	if (kind != PATCH_COPY) {
		p->bytes = malloc(o->q->cluster_size);
		if (!p->bytes) {
			free(p);
			return -ENOMEM;
		}
	}
	p->next = o->hash[slot(o, cluster)];
	o->hash[slot(o, cluster)] = p;
	o->nr++;
	if ((cluster + 1) * o->q->cluster_size > o->size)
		o->size = (cluster + 1) * o->q->cluster_size;
	*out = p;
	return 0;
}

static ssize_t overlay_pread(struct file *f, void *buf, size_t len, uint64_t off,
			     unsigned int flags)
{
	struct overlay *o = overlay_of(f);
	const struct patch *p = patch_find(o, cluster_of(o->q, off));
	uint64_t in = in_cluster(o->q, off);
	int err = 0;

	if (off >= o->size)
		return 0;
	if (len > o->q->cluster_size - in)
		len = o->q->cluster_size - in;
	if (!p)
		err = file_read(o->base, buf, len, off, flags);
	else if (p->kind == PATCH_COPY)
		err = file_read(o->base, buf, len, p->from + in, flags);
	else
		memcpy(buf, p->bytes + in, len);
	return err ? err : (ssize_t)len;
}

static int overlay_size(struct file *f, uint64_t *size)
{
	*size = overlay_of(f)->size;
	return 0;
}

/* The engine writes nothing to an image that was opened for a repair: only overlay_write() does. */
static ssize_t no_pwrite(struct file *f, const void *buf, size_t len, uint64_t off,
			 unsigned int flags)
{
	(void)f, (void)buf, (void)len, (void)off, (void)flags;
	return -EROFS;
}

static int no_sync(struct file *f)
{
	(void)f;
	return -EROFS;
}

static int no_fallocate(struct file *f, int mode, uint64_t off, uint64_t len)
{
	(void)f, (void)mode, (void)off, (void)len;
	return -EROFS;
}

static int no_truncate(struct file *f, uint64_t size)
{
	(void)f, (void)size;
	return -EROFS;
}

static void no_close(struct file *f)
{
	(void)f;
}

int overlay_begin(struct overlay *o, struct qcow2 *q)
{
	static const struct file_ops ops = {
		.pread = overlay_pread,
		.pwrite = no_pwrite,
		.fdatasync = no_sync,
		.fallocate = no_fallocate,
		.ftruncate = no_truncate,
		.size = overlay_size,
		.close = no_close,
	};
	int err;

	memset(o, 0, sizeof(*o));
	err = file_size(q->file, &o->size);
	if (err)
		return err;
	o->mask = 255;
	o->hash = calloc(o->mask + 1, sizeof(*o->hash));
	if (!o->hash)
		return -ENOMEM;
	o->file = (struct file){ .ops = &ops, .fd = q->file->fd };
	o->base = q->file;
	o->q = q;
	o->old_clusters = o->size / q->cluster_size + 1;
	q->file = &o->file;
	return 0;
}

void overlay_end(struct overlay *o)
{
	for (size_t i = 0; o->hash && i <= o->mask; i++) {
		struct patch *p = o->hash[i], *next;

		for (; p; p = next) {
			next = p->next;
			free(p->bytes);
			free(p);
		}
	}
	free(o->hash);
	o->hash = NULL;
	if (o->q)
		o->q->file = o->base;
	o->q = NULL;
}

int overlay_write(struct overlay *o, const void *buf, size_t len, uint64_t off,
		  enum patch_kind kind)
{
	const uint8_t *from = buf;

	while (len) {
		uint64_t cluster = cluster_of(o->q, off), in = in_cluster(o->q, off);
		size_t n = len < o->q->cluster_size - in ? len : o->q->cluster_size - in;
		struct patch *p = patch_find(o, cluster);
		int err = p && p->kind != kind ? -EIO : 0; /* see overlay.h */

		if (!err && !p) {
			err = patch_add(o, cluster, kind, &p);
			if (!err && cluster < o->old_clusters)
				err = file_read(o->base, p->bytes, o->q->cluster_size,
						cluster << o->q->cluster_bits, 0);
			else if (!err)
				memset(p->bytes, 0, o->q->cluster_size);
		}
		if (err)
			return err;
		memcpy(p->bytes + in, from, n);
		from += n;
		off += n;
		len -= n;
	}
	return 0;
}

int overlay_put64(struct overlay *o, uint64_t off, uint64_t value, enum patch_kind kind)
{
	value = htobe64(value);
	return overlay_write(o, &value, sizeof(value), off, kind);
}

int overlay_copy(struct overlay *o, uint64_t cluster, uint64_t from)
{
	struct patch *p;
	int err = patch_add(o, cluster, PATCH_COPY, &p);

	if (!err)
		p->from = from;
	return err;
}
