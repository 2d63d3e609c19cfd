/* SPDX-License-Identifier: MIT */
/*
 * A store in memory, for tests: checks what zns promises its stores, counts calls, and fails or
 * delays on request. Unwritten memory is poisoned, so that a read above the write pointer shows.
 * The memory is a file's, which a test may have located.
 */
#ifndef TESTS_ZNS_STORE_RAM_H
#define TESTS_ZNS_STORE_RAM_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "cmocka_all.h"
#include "store.h"

struct store_ram {
	struct store store;   /* first */
	uint8_t *data;	      /* NULL: as large as asked, but nothing is kept */
	int fd;		      /* of what data is a mapping */
	_Atomic uint64_t *wp; /* several loops advance it */
	uint64_t *durable_wp;
	/* What the next calls return; 0: they work. */
	atomic_int read_err, write_err, commit_err, reset_err, finish_err, flush_err;
	atomic_llong write_err_at; /* only writes at this offset fail; -1: all */
	atomic_bool nowait_again;  /* NOWAIT calls answer -EAGAIN */
	atomic_bool peeks;	   /* peek() finds what is there */
	atomic_uint reservable;	   /* reserve() finds clusters for this length alone; 0: for none */
	atomic_int locates;	   /* a descriptor to be found by locate(); -1: none */
	atomic_int write_ms;	   /* a write takes so long */
	atomic_int busy_ms;	   /* and uses the processor so long */
	atomic_int flush_ms;
	atomic_int reads, writes, resets, finishes, flushes, inline_writes, located, wrote;
	atomic_int reserved, committed, released, trims;
	pthread_mutex_t gate; /* held by a test: writes off the loop, resets and flushes wait */
};

static inline struct store_ram *store_ram(struct store *s)
{
	return (struct store_ram *)s;
}

static inline void ram_sleep(int ms)
{
	const struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

	if (ms)
		nanosleep(&ts, NULL);
}

static inline void ram_spin(int ms)
{
	struct timespec ts, end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_nsec += ms * 1000000L;
	end.tv_sec += end.tv_nsec / 1000000000L;
	end.tv_nsec %= 1000000000L;
	do
		clock_gettime(CLOCK_MONOTONIC, &ts);
	while (ts.tv_sec < end.tv_sec || (ts.tv_sec == end.tv_sec && ts.tv_nsec < end.tv_nsec));
}

static inline void ram_gate(struct store_ram *r)
{
	pthread_mutex_lock(&r->gate);
	pthread_mutex_unlock(&r->gate);
}

static inline void ram_check(struct store *s, uint64_t off, uint64_t len)
{
	if (!len || off / s->geo.zone_size != (off + len - 1) / s->geo.zone_size ||
	    off / s->geo.zone_size >= s->geo.nr_zones)
		abort();
}

static int ram_read(struct store *s, void *buf, uint64_t off, uint64_t len, unsigned int flags)
{
	struct store_ram *r = store_ram(s);

	ram_check(s, off, len);
	if (flags & STORE_NOWAIT && r->nowait_again)
		return -EAGAIN;
	r->reads++;
	if (!r->read_err && r->data)
		memcpy(buf, r->data + off, len);
	return r->read_err;
}

static const void *ram_peek(struct store *s, uint64_t off, uint64_t len)
{
	struct store_ram *r = store_ram(s);

	ram_check(s, off, len);
	return r->peeks && r->data ? r->data + off : NULL;
}

static int ram_write(struct store *s, const struct iovec *iov, int n, uint64_t off, uint64_t len,
		     unsigned int flags)
{
	struct store_ram *r = store_ram(s);
	long long at = r->write_err_at;

	ram_check(s, off, len);
	if (flags & STORE_NOWAIT && r->nowait_again)
		return -EAGAIN;
	if (flags & STORE_NOWAIT)
		r->inline_writes++;
	else
		ram_gate(r);
	r->writes++;
	ram_sleep(r->write_ms);
	ram_spin(r->busy_ms);
	if (r->write_err && (at < 0 || (uint64_t)at - off < len))
		return r->write_err;
	for (int i = 0; i < n; i++) {
		if (r->data)
			memcpy(r->data + off, iov[i].iov_base, iov[i].iov_len);
		off += iov[i].iov_len;
		len -= iov[i].iov_len;
	}
	if (len)
		abort();
	return 0;
}

static void *ram_reserve(struct store *s, uint32_t zone, uint64_t len)
{
	struct store_ram *r = store_ram(s);

	if (zone >= s->geo.nr_zones)
		abort();
	if (!len || len != r->reservable)
		return NULL;
	r->reserved++;
	return malloc(len);
}

static void ram_release(struct store *s, uint32_t zone, void *mem, uint64_t len)
{
	(void)zone;
	(void)len;
	store_ram(s)->released++;
	free(mem);
}

static int ram_commit(struct store *s, void *mem, uint64_t off, uint64_t len, unsigned int flags)
{
	struct store_ram *r = store_ram(s);
	struct iovec iov = { mem, len };
	int err = r->commit_err;

	if (!err)
		err = ram_write(s, &iov, 1, off, len, flags);
	if (err)
		return err;
	r->committed++;
	free(mem);
	return 0;
}

static int ram_locate(struct store *s, const struct iovec *iov, int n, uint64_t off, uint64_t len,
		      bool write, uint64_t *at)
{
	struct store_ram *r = store_ram(s);

	(void)write;
	ram_check(s, off, len);
	if (r->locates < 0)
		return -1;
	for (int i = 0; i < n; i++)
		len -= iov[i].iov_len;
	if (len)
		abort();
	r->located++;
	*at = off;
	return r->locates;
}

static void ram_wrote(struct store *s)
{
	store_ram(s)->wrote++;
}

static uint64_t ram_wp(struct store *s, uint32_t zone)
{
	return store_ram(s)->wp[zone];
}

static void ram_wp_advance(struct store *s, uint32_t zone, uint64_t wp)
{
	struct store_ram *r = store_ram(s);

	if (wp < r->wp[zone])
		abort();
	r->wp[zone] = wp;
}

static int ram_reset(struct store *s, uint32_t zone)
{
	struct store_ram *r = store_ram(s);

	ram_gate(r);
	r->resets++;
	if (r->reset_err)
		return r->reset_err;
	r->wp[zone] = s->geo.zone_size * zone;
	if (r->data)
		memset(r->data + r->wp[zone], 0xee, s->geo.zone_size);
	return 0;
}

static int ram_finish(struct store *s, uint32_t zone, uint64_t wp)
{
	struct store_ram *r = store_ram(s);
	uint64_t end = s->geo.zone_size * zone + s->geo.zone_capacity;

	ram_gate(r);
	r->finishes++;
	if (r->finish_err)
		return r->finish_err;
	r->wp[zone] = end;
	if (r->data)
		memset(r->data + wp, 0, end - wp);
	return 0;
}

static bool ram_housekeep(struct store *s)
{
	(void)s;
	return false;
}

static void ram_trim(struct store *s)
{
	store_ram(s)->trims++;
}

static int ram_flush(struct store *s)
{
	struct store_ram *r = store_ram(s);

	ram_gate(r);
	ram_sleep(r->flush_ms);
	r->flushes++;
	if (r->flush_err)
		return r->flush_err;
	for (uint32_t i = 0; i < s->geo.nr_zones; i++)
		r->durable_wp[i] = r->wp[i];
	return 0;
}

/* The memory stays: a test opens it again with ram_reopen(), or ends with ram_free(). */
static int ram_close(struct store *s)
{
	(void)s;
	return 0;
}

static const struct store_ops store_ram_ops = {
	.read = ram_read,
	.peek = ram_peek,
	.write = ram_write,
	.reserve = ram_reserve,
	.commit = ram_commit,
	.release = ram_release,
	.locate = ram_locate,
	.wrote = ram_wrote,
	.wp = ram_wp,
	.wp_advance = ram_wp_advance,
	.reset = ram_reset,
	.finish = ram_finish,
	.housekeep = ram_housekeep,
	.trim = ram_trim,
	.flush = ram_flush,
	.close = ram_close,
};

/* KEEP false: a store of any size that has no memory for data. */
static inline struct store_ram *ram_new(const struct store_geometry *geo, bool keep)
{
	struct store_ram *r = calloc(1, sizeof(*r));
	uint32_t i;

	r->store.ops = &store_ram_ops;
	r->store.geo = *geo;
	r->write_err_at = -1;
	r->fd = -1;
	r->locates = -1;
	pthread_mutex_init(&r->gate, NULL);
	r->wp = calloc(geo->nr_zones, sizeof(*r->wp));
	r->durable_wp = calloc(geo->nr_zones, sizeof(*r->wp));
	for (i = 0; i < geo->nr_zones; i++)
		r->wp[i] = r->durable_wp[i] = geo->zone_size * i;
	if (keep) {
		r->fd = memfd_create("store", MFD_CLOEXEC);
		if (r->fd < 0 || ftruncate(r->fd, (off_t)(geo->zone_size * geo->nr_zones)))
			abort();
		r->data = mmap(NULL, geo->zone_size * geo->nr_zones, PROT_READ | PROT_WRITE,
			       MAP_SHARED, r->fd, 0);
		memset(r->data, 0xee, geo->zone_size * geo->nr_zones);
	}
	return r;
}

static inline void ram_free(struct store_ram *r)
{
	pthread_mutex_destroy(&r->gate);
	if (r->data) {
		munmap(r->data, r->store.geo.zone_size * r->store.geo.nr_zones);
		close(r->fd);
	}
	free(r->wp);
	free(r->durable_wp);
	free(r);
}

#endif
