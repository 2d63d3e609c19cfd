/* SPDX-License-Identifier: MIT */
/*
 * A file in memory that tells what was done to it.
 *
 * What a disk promises, and so what a power cut may do:
 *
 * 1. An fdatasync divides time into epochs. What was done in an epoch before the last completed
 *    sync is on the disk. Of the operations since (they are *pending*), any subset may be.
 * 2. A pending write may be there in part: torn at a sector boundary, or, guest data, at any byte.
 * Most tables also tear at multiples of 8 bytes, harder than any disk does.
 * 3. The size of the file is an operation of its own: a write may reach the disk and the size it
 *    implied may not, and the other way round.
 *
 * The log keeps each operation with its bytes, so that any such state can be built from the state
 * of the last sync. Pages of 512 bytes that changed are remembered, hence going back to the state
 * before costs what was changed, and so does hashing a state: the hash of the file is the sum of
 * the hashes of its pages.
 *
 * One thread: the laboratory calls the engine from nowhere else.
 */
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "simdisk.h"

struct chunk {
	struct chunk *next;
	size_t used, size;
	uint8_t bytes[];
};

static void *need(void *p)
{
	if (!p) {
		fprintf(stderr, "crash: out of memory\n");
		abort();
	}
	return p;
}

/* The log. */

static void *oplog_bytes(struct oplog *log, size_t len)
{
	struct chunk *c = log->arena;
	void *p;

	if (!c || c->size - c->used < len) {
		size_t size = len > 65536 ? len : 65536;

		c = need(malloc(sizeof(*c) + size));
		c->next = log->arena;
		c->used = 0;
		c->size = size;
		log->arena = c;
	}
	p = c->bytes + c->used;
	c->used += (len + 15) & ~(size_t)15;
	if (c->used > c->size)
		c->used = c->size;
	return p;
}

void oplog_clear(struct oplog *log)
{
	struct chunk *c = log->arena;

	log->nr = 0;
	if (!c)
		return;
	while (c->next) {
		struct chunk *next = c->next;

		free(c);
		c = next;
	}
	c->used = 0;
	log->arena = c;
}

void oplog_free(struct oplog *log)
{
	oplog_clear(log);
	free(log->arena);
	free(log->op);
	free(log->site);
	memset(log, 0, sizeof(*log));
}

static struct op *oplog_add(struct oplog *log, enum op_kind kind, uint64_t off, uint64_t len)
{
	struct op *op;

	if (log->nr == log->cap) {
		log->cap = log->cap ? 2 * log->cap : 256;
		log->op = need(realloc(log->op, log->cap * sizeof(*log->op)));
	}
	op = &log->op[log->nr++];
	memset(op, 0, sizeof(*op));
	op->kind = kind;
	op->off = off;
	op->len = len;
	return op;
}

void oplog_add_cut(struct oplog *log, const struct fate *fate, size_t nr, uint64_t size)
{
	struct op *op = oplog_add(log, OP_CUT, 0, nr);

	op->fate = oplog_bytes(log, nr * sizeof(*fate) + 1);
	memcpy(op->fate, fate, nr * sizeof(*fate));
	op->size = size;
}

size_t oplog_epoch(const struct oplog *log, size_t end)
{
	while (end && log->op[end - 1].kind != OP_SYNC && log->op[end - 1].kind != OP_CUT)
		end--;
	return end;
}

/* Finds or adds the place the engine called us from. */
static uint32_t site_here(struct oplog *log, bool data, bool sync)
{
	void *frame[SIM_FRAMES];
	int nr = backtrace(frame, SIM_FRAMES);
	uint32_t hash = 0x811c9dc5u;
	struct site *s;

	for (int i = 0; i < nr; i++)
		hash = (hash ^ (uint32_t)(uintptr_t)frame[i]) * 0x01000193u;
	for (uint32_t i = 0; i < log->nr_sites; i++)
		if (log->site[i].hash == hash)
			return i;
	if (log->nr_sites == log->cap_sites) {
		log->cap_sites = log->cap_sites ? 2 * log->cap_sites : 64;
		log->site = need(realloc(log->site, log->cap_sites * sizeof(*log->site)));
	}
	s = &log->site[log->nr_sites];
	memset(s, 0, sizeof(*s));
	s->hash = hash;
	s->data = data;
	s->sync = sync;
	s->nr_frames = nr;
	memcpy(s->frame, frame, nr * sizeof(*frame));
	return log->nr_sites++;
}

static struct op *note(struct simdisk *d, enum op_kind kind, uint64_t off, uint64_t len, bool data)
{
	struct op *op;

	if (!d->log)
		return NULL;
	op = oplog_add(d->log, kind, off, len);
	op->data = data;
	op->site = UINT32_MAX;
	if (d->trace)
		op->site = site_here(d->log, data, kind == OP_SYNC);
	return op;
}

/* The bytes. */

static void touch(struct simdisk *d, uint64_t off, uint64_t len)
{
	if (!len)
		return;
	for (uint64_t p = off / SIM_PAGE; p <= (off + len - 1) / SIM_PAGE; p++) {
		if (d->touched[p])
			continue;
		d->touched[p] = 1;
		d->pages[d->nr_pages++] = p;
	}
}

static void put(struct simdisk *d, uint64_t off, const uint8_t *bytes, uint64_t len)
{
	touch(d, off, len);
	memcpy(d->data + off, bytes, len);
}

static void zero(struct simdisk *d, uint64_t off, uint64_t len)
{
	touch(d, off, len);
	memset(d->data + off, 0, len);
}

static void set_size(struct simdisk *d, uint64_t size)
{
	if (size < d->size)
		zero(d, size, d->size - size);
	d->size = size;
}

uint64_t op_size_after(const struct op *op, uint64_t size)
{
	if (op->kind == OP_TRUNCATE)
		return op->off;
	if (op->kind == OP_WRITE && op->off + op->len > size)
		return op->off + op->len;
	return size;
}

/* The part of OP that FATE left: [*FROM, *TO) of it. */
static void fate_range(const struct op *op, const struct fate *fate, uint64_t *from, uint64_t *to)
{
	*from = 0;
	*to = op->len;
	if (!fate || fate->kind == FATE_DONE)
		return;
	if (fate->kind == FATE_HEAD && fate->cut < op->len)
		*to = fate->cut;
	if (fate->kind == FATE_TAIL)
		*from = fate->cut < op->len ? fate->cut : op->len;
}

static void apply_one(struct simdisk *d, const struct op *op, const struct fate *fate,
		      uint64_t *natural)
{
	uint64_t from, to;

	if (fate && fate->kind == FATE_LOST)
		return;
	fate_range(op, fate, &from, &to);
	switch (op->kind) {
	case OP_WRITE:
		if (from < to) {
			put(d, op->off + from, op->bytes + from, to - from);
			if (op->off + to > *natural)
				*natural = op->off + to;
		}
		break;
	case OP_PUNCH:
		if (from < to)
			zero(d, op->off + from, to - from);
		break;
	case OP_TRUNCATE:
		if (op->off < *natural)
			zero(d, op->off, *natural - op->off);
		*natural = op->off;
		break;
	case OP_SYNC:
	case OP_CUT:
		break;
	}
}

void simdisk_apply(struct simdisk *d, const struct op *op, size_t nr, const struct fate *fate,
		   uint64_t size)
{
	uint64_t natural = d->size, top = d->size;

	for (size_t i = 0; i < nr; i++) {
		apply_one(d, &op[i], fate ? &fate[i] : NULL, &natural);
		if (natural > top)
			top = natural;
	}
	d->size = top; /* all that may be not zero lies below it */
	set_size(d, size == SIM_NATURAL ? natural : size);
}

void simdisk_replay(struct simdisk *d, const struct oplog *log, size_t end)
{
	size_t start = 0;

	for (size_t i = 0; i < end; i++) {
		const struct op *op = &log->op[i];

		if (op->kind == OP_SYNC || op->kind == OP_CUT) {
			bool cut = op->kind == OP_CUT;

			simdisk_apply(d, log->op + start, i - start, cut ? op->fate : NULL,
				      cut ? op->size : SIM_NATURAL);
			start = i + 1;
		}
	}
	simdisk_apply(d, log->op + start, end - start, NULL, SIM_NATURAL);
}

/* The members of file_ops. */

static struct simdisk *sim(struct file *f)
{
	return (struct simdisk *)f; /* it is the first member */
}

/* Whether the process is still there to make one more change. */
static bool alive(struct simdisk *d)
{
	if (d->die_after && !--d->die_after)
		d->dead = true;
	return !d->dead;
}

static ssize_t sim_pread(struct file *f, void *buf, size_t len, uint64_t off, unsigned int flags)
{
	struct simdisk *d = sim(f);

	(void)flags;
	if (d->dead)
		return -EIO;
	if (off >= d->size)
		return 0;
	if (len > d->size - off)
		len = d->size - off;
	memcpy(buf, d->data + off, len);
	return len;
}

static ssize_t sim_pwrite(struct file *f, const void *buf, size_t len, uint64_t off,
			  unsigned int flags)
{
	struct simdisk *d = sim(f);
	struct op *op;

	if (!alive(d))
		return -EIO;
	if (off > d->cap || len > d->cap - off)
		return -ENOSPC;
	if (d->short_every && len > 1 && ++d->nr_writes % d->short_every == 0)
		len = d->nr_writes / d->short_every % 2 ? len / 2 : len - 1;
	op = note(d, OP_WRITE, off, len, flags & FILE_DATA);
	if (op) {
		op->bytes = oplog_bytes(d->log, len);
		memcpy(op->bytes, buf, len);
	}
	put(d, off, buf, len);
	if (off + len > d->size)
		d->size = off + len;
	return len;
}

static int sim_fdatasync(struct file *f)
{
	struct simdisk *d = sim(f);

	if (!alive(d))
		return -EIO;
	if (d->fail_sync) {
		d->fail_sync = false;
		return -EIO;
	}
	note(d, OP_SYNC, 0, 0, false);
	if (d->on_sync)
		d->on_sync(d->on_sync_arg);
	return 0;
}

static int sim_fallocate(struct file *f, int mode, uint64_t off, uint64_t len)
{
	struct simdisk *d = sim(f);

	if (!alive(d))
		return -EIO;
	if (mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) &&
	    mode != (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))
		return -EOPNOTSUPP;
	if (off >= d->size)
		return 0;
	if (len > d->size - off)
		len = d->size - off;
	note(d, OP_PUNCH, off, len, false);
	zero(d, off, len);
	return 0;
}

static int sim_ftruncate(struct file *f, uint64_t size)
{
	struct simdisk *d = sim(f);

	if (!alive(d))
		return -EIO;
	if (size > d->cap)
		return -EFBIG;
	note(d, OP_TRUNCATE, size, 0, false);
	set_size(d, size);
	return 0;
}

static int sim_size(struct file *f, uint64_t *size)
{
	if (sim(f)->dead)
		return -EIO;
	*size = sim(f)->size;
	return 0;
}

static void sim_close(struct file *f)
{
	(void)f; /* the laboratory keeps it */
}

static const void *sim_map(struct file *f, uint64_t len)
{
	(void)len;
	return f->in_memory ? sim(f)->data : NULL;
}

static bool sim_populate(struct file *f, uint64_t off, uint64_t len)
{
	return f->in_memory && off + len <= sim(f)->size;
}

/* By writes, which a crash may cut as it may cut the stores of a copy. */
static bool sim_fill(struct file *f, const struct iovec *iov, int n, uint64_t zeroes, uint64_t off)
{
	static const char zero[65536];
	bool done = f->in_memory;

	for (int i = 0; i < n && done; off += iov[i++].iov_len)
		done = sim_pwrite(f, iov[i].iov_base, iov[i].iov_len, off, FILE_DATA) ==
		       (ssize_t)iov[i].iov_len;
	while (done && zeroes) {
		size_t len = zeroes < sizeof(zero) ? zeroes : sizeof(zero);

		done = sim_pwrite(f, zero, len, off, FILE_DATA) == (ssize_t)len;
		off += len;
		zeroes -= len;
	}
	return done;
}

static const struct file_ops sim_ops = {
	.pread = sim_pread,
	.pwrite = sim_pwrite,
	.fdatasync = sim_fdatasync,
	.fallocate = sim_fallocate,
	.ftruncate = sim_ftruncate,
	.size = sim_size,
	.map = sim_map,
	.populate = sim_populate,
	.fill = sim_fill,
	.close = sim_close,
};

/* Life, copies, hashes. */

struct simdisk *simdisk_new(uint64_t cap)
{
	struct simdisk *d = need(calloc(1, sizeof(*d)));

	d->file.ops = &sim_ops;
	d->file.fd = -1;
	d->cap = cap;
	d->data = need(calloc(1, cap));
	d->touched = need(calloc(1, cap / SIM_PAGE + 1));
	d->pages = need(calloc(cap / SIM_PAGE + 1, sizeof(*d->pages)));
	d->hash = need(calloc(cap / SIM_PAGE + 1, sizeof(*d->hash)));
	return d;
}

void simdisk_free(struct simdisk *d)
{
	free(d->data);
	free(d->touched);
	free(d->pages);
	free(d->hash);
	free(d);
}

static void forget_touched(struct simdisk *d)
{
	for (uint32_t i = 0; i < d->nr_pages; i++)
		d->touched[d->pages[i]] = 0;
	d->nr_pages = 0;
}

void simdisk_copy(struct simdisk *d, const struct simdisk *from)
{
	memcpy(d->data, from->data, from->size);
	if (d->size > from->size)
		memset(d->data + from->size, 0, d->size - from->size);
	d->size = from->size;
	forget_touched(d);
}

void simdisk_restore(struct simdisk *d, const struct simdisk *from)
{
	for (uint32_t i = 0; i < d->nr_pages; i++) {
		uint64_t off = (uint64_t)d->pages[i] * SIM_PAGE;

		memcpy(d->data + off, from->data + off, SIM_PAGE);
	}
	d->size = from->size;
	forget_touched(d);
}

static uint64_t page_hash(const uint8_t *data, uint64_t page)
{
	uint64_t h = page * 0x9e3779b97f4a7c15ull, any = 0;

	for (unsigned int i = 0; i < SIM_PAGE / 8; i++) {
		uint64_t w;

		memcpy(&w, data + page * SIM_PAGE + i * 8, 8);
		any |= w;
		h = (h ^ w) * 0xff51afd7ed558ccdull;
		h ^= h >> 32;
	}
	return any ? h : 0;
}

void simdisk_rehash(struct simdisk *d)
{
	d->hash_sum = 0;
	for (uint64_t p = 0; p < d->cap / SIM_PAGE; p++) {
		d->hash[p] = p * SIM_PAGE < d->size ? page_hash(d->data, p) : 0;
		d->hash_sum += d->hash[p];
	}
}

uint64_t simdisk_hash(const struct simdisk *d, const struct simdisk *base)
{
	uint64_t sum = base->hash_sum;

	for (uint32_t i = 0; i < d->nr_pages; i++) {
		uint32_t p = d->pages[i];

		sum += page_hash(d->data, p) - base->hash[p];
	}
	return sum + (d->size ^ d->size << 21) * 0xc4ceb9fe1a85ec53ull;
}

void simdisk_empty(struct simdisk *d)
{
	memset(d->data, 0, d->size);
	d->size = 0;
	forget_touched(d);
}
