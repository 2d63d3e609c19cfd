/* SPDX-License-Identifier: MIT */
/*
 * A disk with a volatile cache. Changes of the file since its last successful fdatasync are kept
 * here, as a list in the order they were made; the file below has only what a sync has made
 * durable. That file is thus, at any moment, what a power cut leaves when it keeps nothing.
 *
 * 1. The unit is the sector of 512 bytes. A change holds whole sectors, each as it was after it:
 *    one that covers a sector in part takes the rest from the sector as it was read before. So a
 *    later change of a sector contains the earlier ones, as in a page cache, and a sector that is
 *    kept shows one of the versions it had since the last sync. Never a mixture.
 * 2. A power cut keeps any subset of the changes, and of a torn change any subset of its sectors.
 * 3. The size is independent: it is that after any of the changes, or that at the last sync. What
 *    lies beyond it is lost; what lies below it and was lost reads as before, or as zeroes.
 * 4. A sync covers the changes that were made before it began. Those made while it runs stay.
 * 5. Once the power is cut nothing changes the file below.
 * 6. With FILE_DIRECT, aligned data that may not wait is refused, as file_posix() does. What the
 *    ring then moves, it moves between the buffers of its requests and the scratch memory of the file;
 *    ring.c moves it on.
 *
 * A hole is a change without bytes. The index finds a sector's last change: open addressing, made
 * anew after a sync, when few changes are left.
 *
 * Any thread; one lock a file, held across the I/O below, which is the page cache's.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cutfile.h"

struct change {
	uint64_t first, nr; /* sectors */
	uint8_t *bytes;	    /* of all of them; NULL: zeroes */
	uint64_t size;	    /* of the file, after it */
};

struct slot {
	uint64_t sector;
	size_t change; /* its number + 1; 0: the slot is free */
};

struct cut {
	struct file file;
	struct file *under;
	bool unsafe;
	bool only_large;      /* FILE_DIRECT_WRITES */
	int scratch;	      /* -1: no FILE_DIRECT */
	struct cut *next;     /* of those with scratch memory */
	pthread_mutex_t lock; /* protects what follows, and the order of changes below */
	struct change *change;
	size_t nr, cap;
	uint64_t synced;   /* changes that syncs have taken from the front of the list, ever */
	struct slot *slot; /* 1 << SLOT_BITS of them; at most half are used */
	unsigned int slot_bits;
	size_t used;
	uint64_t size;	    /* as the program sees it */
	uint64_t base_size; /* of the file below */
	bool off;	    /* the power */
};

static pthread_mutex_t direct_lock = PTHREAD_MUTEX_INITIALIZER;
static struct cut *direct_files; /* under direct_lock */
static void (*hook)(bool sync);
static unsigned int sync_us;

void cut_set_hook(void (*fn)(bool sync))
{
	hook = fn;
}

void cut_set_sync_time(unsigned int us)
{
	sync_us = us;
}

static struct cut *cut_of(struct file *f)
{
	return (struct cut *)f; /* file is the first member */
}

/* --- the index --- */

static struct slot *slot_of(const struct cut *c, uint64_t sector)
{
	size_t mask = ((size_t)1 << c->slot_bits) - 1;
	size_t i = sector * 0x9e3779b97f4a7c15u >> (64 - c->slot_bits);

	while (c->slot[i].change && c->slot[i].sector != sector)
		i = (i + 1) & mask;
	return &c->slot[i];
}

static const struct change *last_change(const struct cut *c, uint64_t sector)
{
	const struct slot *s = slot_of(c, sector);

	return s->change ? &c->change[s->change - 1] : NULL;
}

static int index_make(struct cut *c, unsigned int bits)
{
	struct slot *slot = calloc((size_t)1 << bits, sizeof(*slot));

	if (!slot)
		return -ENOMEM;
	free(c->slot);
	c->slot = slot;
	c->slot_bits = bits;
	c->used = 0;
	return 0;
}

static void index_add(struct cut *c, size_t number)
{
	const struct change *ch = &c->change[number];

	for (uint64_t i = 0; i < ch->nr; i++) {
		struct slot *s = slot_of(c, ch->first + i);

		c->used += !s->change;
		*s = (struct slot){ ch->first + i, number + 1 };
	}
}

/* The index of all changes, with room for MORE sectors. */
static int index_fit(struct cut *c, uint64_t more, bool anew)
{
	unsigned int bits = anew ? 10 : c->slot_bits;
	uint64_t sectors = more + (anew ? 0 : c->used);
	int err;

	for (size_t i = 0; anew && i < c->nr; i++)
		sectors += c->change[i].nr;
	while (sectors > (uint64_t)1 << (bits - 1))
		bits++;
	if (!anew && bits == c->slot_bits)
		return 0;
	err = index_make(c, bits);
	for (size_t i = 0; !err && i < c->nr; i++)
		index_add(c, i);
	return err;
}

/* --- changes --- */

/* Adds a change; BYTES is taken over. */
static int add(struct cut *c, uint64_t first, uint64_t nr, uint8_t *bytes, uint64_t size)
{
	int err = index_fit(c, nr, false);

	if (!err && c->nr == c->cap) {
		size_t cap = c->cap ? 2 * c->cap : 64;
		struct change *change = realloc(c->change, cap * sizeof(*change));

		if (change) {
			c->change = change;
			c->cap = cap;
		} else {
			err = -ENOMEM;
		}
	}
	if (err) {
		free(bytes);
		return err;
	}
	c->change[c->nr] = (struct change){ first, nr, bytes, size };
	index_add(c, c->nr++);
	c->size = size;
	return 0;
}

/* Whole sectors, as the program sees them. */
static int read_sectors(struct cut *c, uint8_t *buf, uint64_t first, uint64_t nr,
			unsigned int flags)
{
	uint64_t i = 0, below;

	while (i < nr) {
		const struct change *ch = last_change(c, first + i);

		if (ch && ch->bytes)
			memcpy(buf + i * CUT_SECTOR,
			       ch->bytes + (first + i - ch->first) * CUT_SECTOR, CUT_SECTOR);
		else if (ch)
			memset(buf + i * CUT_SECTOR, 0, CUT_SECTOR);
		if (ch) {
			i++;
			continue;
		}
		for (below = 1; i + below < nr && !last_change(c, first + i + below); below++)
			;
		int err = file_read(c->under, buf + i * CUT_SECTOR, below * CUT_SECTOR,
				    (first + i) * CUT_SECTOR, flags);
		if (err)
			return err;
		i += below;
	}
	return 0;
}

static int write_locked(struct cut *c, const void *buf, uint64_t len, uint64_t off)
{
	uint64_t first = off / CUT_SECTOR, end = off + len;
	uint64_t nr = (end + CUT_SECTOR - 1) / CUT_SECTOR - first;
	uint8_t *bytes = malloc(nr * CUT_SECTOR);
	int err = bytes ? 0 : -ENOMEM;

	if (!err && off % CUT_SECTOR)
		err = read_sectors(c, bytes, first, 1, 0);
	if (!err && end % CUT_SECTOR)
		err = read_sectors(c, bytes + (nr - 1) * CUT_SECTOR, first + nr - 1, 1, 0);
	if (err) {
		free(bytes);
		return err;
	}
	memcpy(bytes + off % CUT_SECTOR, buf, len);
	return add(c, first, nr, bytes, end > c->size ? end : c->size);
}

/* Zeroes; the sectors that are covered whole become a hole. Does not change the size. */
static int zero_locked(struct cut *c, uint64_t off, uint64_t len)
{
	static const uint8_t zeroes[CUT_SECTOR];
	uint64_t head = -off % CUT_SECTOR, whole;
	int err = 0;

	if (off >= c->size)
		return 0;
	if (len > c->size - off)
		len = c->size - off;
	if (head > len)
		head = len;
	if (head)
		err = write_locked(c, zeroes, head, off);
	off += head;
	len -= head;
	whole = len / CUT_SECTOR;
	if (!err && whole)
		err = add(c, off / CUT_SECTOR, whole, NULL, c->size);
	if (!err && len % CUT_SECTOR)
		err = write_locked(c, zeroes, len % CUT_SECTOR, off + whole * CUT_SECTOR);
	return err;
}

static int resize_locked(struct cut *c, uint64_t size)
{
	int err = 0;

	if (size < c->size) /* what is cut off is zeroes, should the file grow again */
		err = zero_locked(c, size, c->size - size);
	return err ? err : add(c, 0, 0, NULL, size);
}

/* --- the file below --- */

static int apply(struct cut *c, const struct change *ch, uint64_t from, uint64_t nr)
{
	uint64_t off = (ch->first + from) * CUT_SECTOR;

	if (!nr)
		return 0;
	if (ch->bytes)
		return file_write(c->under, ch->bytes + from * CUT_SECTOR, nr * CUT_SECTOR, off, 0);
	return file_discard(c->under, off, nr * CUT_SECTOR);
}

static int apply_size(struct cut *c, uint64_t size)
{
	uint64_t now;
	int err = file_size(c->under, &now);

	if (!err && now != size)
		err = file_truncate(c->under, size);
	c->base_size = size;
	return err;
}

/* The first N changes become durable. */
static int settle(struct cut *c, size_t n)
{
	int err = 0;

	if (!n)
		return 0;
	for (size_t i = 0; !err && i < n; i++)
		err = apply(c, &c->change[i], 0, c->change[i].nr);
	if (!err)
		err = apply_size(c, c->change[n - 1].size);
	if (err)
		return err;
	for (size_t i = 0; i < n; i++)
		free(c->change[i].bytes);
	memmove(c->change, c->change + n, (c->nr - n) * sizeof(*c->change));
	c->nr -= n;
	c->synced += n;
	return index_fit(c, 0, true);
}

/* --- the power cut --- */

static uint64_t draw(uint64_t *seed)
{
	uint64_t x = *seed += 0x9e3779b97f4a7c15u;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* How one cut treats its changes; each has its own odds, so that all kinds of subsets come up. */
struct odds {
	enum { SUBSET, PREFIX, ALL_BUT_ONE, ONE, STYLES } style;
	size_t pivot;
	unsigned int keep, tear; /* percent */
};

static struct odds odds_draw(uint64_t *seed, size_t nr)
{
	static const unsigned int keep[] = { 10, 50, 90 }, tear[] = { 0, 10, 50 };

	return (struct odds){
		.style = draw(seed) % STYLES,
		.pivot = draw(seed) % (nr ? nr : 1),
		.keep = keep[draw(seed) % 3],
		.tear = tear[draw(seed) % 3],
	};
}

enum fate { LOST, KEPT, TORN };

static enum fate fate_of(const struct odds *o, size_t i, uint64_t *seed)
{
	bool keep;

	if (o->style == PREFIX && i == o->pivot)
		return TORN;
	if (o->style == PREFIX)
		return i < o->pivot ? KEPT : LOST;
	if (draw(seed) % 100 < o->tear)
		return TORN;
	keep = o->style == SUBSET ? draw(seed) % 100 < o->keep
				  : (i == o->pivot) == (o->style == ONE);
	return keep ? KEPT : LOST;
}

/* Writes what is kept of a change, below SIZE; a torn one in runs of up to eight sectors. */
static int keep_change(struct cut *c, const struct change *ch, enum fate fate, uint64_t size,
		       uint64_t *seed, struct cut_result *res)
{
	uint64_t sectors = (size + CUT_SECTOR - 1) / CUT_SECTOR;
	uint64_t nr = 0;
	int err = 0;

	if (ch->first < sectors)
		nr = ch->nr < sectors - ch->first ? ch->nr : sectors - ch->first;
	if (fate == KEPT) {
		res->kept++;
		res->sectors_kept += nr;
		return apply(c, ch, 0, nr);
	}
	res->torn++;
	for (uint64_t i = 0, run; !err && i < nr; i += run) {
		uint64_t r = draw(seed);

		run = 1 + (r >> 1) % 8;
		if (run > nr - i)
			run = nr - i;
		if (r & 1) {
			err = apply(c, ch, i, run);
			res->sectors_kept += run;
		}
	}
	return err;
}

static int cut_random(struct cut *c, uint64_t seed, struct cut_result *res)
{
	struct odds odds = odds_draw(&seed, c->nr);
	uint64_t size = c->base_size;
	size_t of = draw(&seed) % (c->nr + 1);
	int err = 0;

	/* Often the last size: else too much is lost with the end of the file. */
	if (c->nr && draw(&seed) % 2)
		of = c->nr;
	if (of)
		size = c->change[of - 1].size;
	for (size_t i = 0; !err && i < c->nr; i++) {
		enum fate fate = fate_of(&odds, i, &seed);

		if (fate != LOST)
			err = keep_change(c, &c->change[i], fate, size, &seed, res);
	}
	return err ? err : apply_size(c, size);
}

int cut_power(struct file *f, enum cut_mode mode, uint64_t seed, bool stop, struct cut_result *res)
{
	struct cut *c = cut_of(f);
	int err = 0;

	memset(res, 0, sizeof(*res));
	pthread_mutex_lock(&c->lock);
	c->off = true;
	res->pending = c->nr;
	for (size_t i = 0; i < c->nr; i++)
		res->sectors += c->change[i].nr;
	if (mode == CUT_ALL) {
		res->kept = res->pending;
		res->sectors_kept = res->sectors;
		err = settle(c, c->nr);
	} else if (mode == CUT_RANDOM) {
		err = cut_random(c, seed, res);
	}
	if (!stop)
		pthread_mutex_unlock(&c->lock);
	return err;
}

/* --- the seam --- */

#define DIRECT_ALIGN 4096u

/* Whether a transfer of this length in all is the ring's, if it is aligned; as file_posix() has it. */
static bool for_ring(const struct cut *c, bool write, size_t len)
{
	return c->scratch >= 0 && (!c->only_large || (write && len >= FILE_LARGE));
}

/* Whether this transfer is refused because it may not wait. */
static bool waits(const struct cut *c, bool write, size_t len, uint64_t off, unsigned int flags)
{
	return for_ring(c, write, len) && flags & FILE_DATA && flags & FILE_NOWAIT &&
	       !((len | off) % DIRECT_ALIGN);
}

static int cut_direct(struct file *f, const struct iovec *iov, int n, uint64_t off, bool write)
{
	size_t len = 0;

	for (int i = 0; i < n; i++) {
		if (((uintptr_t)iov[i].iov_base | iov[i].iov_len | off) % DIRECT_ALIGN)
			return -1;
		off += iov[i].iov_len;
		len += iov[i].iov_len;
	}
	return for_ring(cut_of(f), write, len) ? cut_of(f)->scratch : -1;
}

struct file *cut_file_of(int fd)
{
	struct cut *c;

	pthread_mutex_lock(&direct_lock);
	for (c = direct_files; c && c->scratch != fd; c = c->next)
		;
	pthread_mutex_unlock(&direct_lock);
	return c ? &c->file : NULL;
}

static void remember_direct(struct cut *c)
{
	pthread_mutex_lock(&direct_lock);
	c->next = direct_files;
	direct_files = c;
	pthread_mutex_unlock(&direct_lock);
}

static void forget_direct(struct cut *c)
{
	struct cut **p;

	pthread_mutex_lock(&direct_lock);
	for (p = &direct_files; *p != c; p = &(*p)->next)
		;
	*p = c->next;
	pthread_mutex_unlock(&direct_lock);
	close(c->scratch);
}

static ssize_t cut_pread(struct file *f, void *buf, size_t len, uint64_t off, unsigned int flags)
{
	struct cut *c = cut_of(f);
	uint64_t first = off / CUT_SECTOR, nr;
	uint8_t *bytes;
	ssize_t n = 0;
	int err;

	if (waits(c, false, len, off, flags))
		return -EAGAIN;
	pthread_mutex_lock(&c->lock);
	if (c->off || off >= c->size) {
		n = c->off ? -EIO : 0;
		goto unlock;
	}
	if (len > c->size - off)
		len = c->size - off;
	nr = (off + len + CUT_SECTOR - 1) / CUT_SECTOR - first;
	bytes = malloc(nr * CUT_SECTOR + 1);
	err = bytes ? read_sectors(c, bytes, first, nr, flags & FILE_NOWAIT) : -ENOMEM;
	n = err ? err : (ssize_t)len;
	if (!err)
		memcpy(buf, bytes + off % CUT_SECTOR, len);
	free(bytes);
unlock:
	pthread_mutex_unlock(&c->lock);
	return n;
}

static ssize_t cut_pwrite(struct file *f, const void *buf, size_t len, uint64_t off,
			  unsigned int flags)
{
	struct cut *c = cut_of(f);
	int err = 0;

	if (waits(c, true, len, off, flags))
		return -EAGAIN;
	if (hook)
		hook(false);
	pthread_mutex_lock(&c->lock);
	if (c->off)
		err = -EIO;
	else if (len)
		err = write_locked(c, buf, len, off);
	pthread_mutex_unlock(&c->lock);
	return err ? err : (ssize_t)len;
}

static int cut_fdatasync(struct file *f)
{
	struct cut *c = cut_of(f);
	uint64_t until;
	int err = 0;

	if (hook)
		hook(true);
	if (c->unsafe)
		return 0;
	pthread_mutex_lock(&c->lock);
	until = c->synced + c->nr;
	if (sync_us) {
		pthread_mutex_unlock(&c->lock);
		usleep(sync_us);
		pthread_mutex_lock(&c->lock);
	}
	if (c->off)
		err = -EIO;
	else if (until > c->synced) /* else another sync has done it meanwhile */
		err = settle(c, until - c->synced);
	pthread_mutex_unlock(&c->lock);
	return err;
}

static int cut_fallocate(struct file *f, int mode, uint64_t off, uint64_t len)
{
	struct cut *c = cut_of(f);
	int err = 0;

	if (hook)
		hook(false);
	pthread_mutex_lock(&c->lock);
	if (c->off)
		err = -EIO;
	if (!err && mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		err = zero_locked(c, off, len);
	else if (!err && mode & ~FALLOC_FL_KEEP_SIZE)
		err = -EOPNOTSUPP;
	if (!err && !(mode & FALLOC_FL_KEEP_SIZE) && off + len > c->size)
		err = resize_locked(c, off + len);
	pthread_mutex_unlock(&c->lock);
	return err;
}

static int cut_ftruncate(struct file *f, uint64_t size)
{
	struct cut *c = cut_of(f);
	int err;

	if (hook)
		hook(false);
	pthread_mutex_lock(&c->lock);
	err = c->off ? -EIO : resize_locked(c, size);
	pthread_mutex_unlock(&c->lock);
	return err;
}

static int cut_size(struct file *f, uint64_t *size)
{
	struct cut *c = cut_of(f);
	int err = 0;

	pthread_mutex_lock(&c->lock);
	if (c->off)
		err = -EIO;
	else
		*size = c->size;
	pthread_mutex_unlock(&c->lock);
	return err;
}

static void cut_close(struct file *f)
{
	struct cut *c = cut_of(f);

	/* Nobody hears of an error here, as with close(2): the synced part is what counts. */
	if (!c->off && settle(c, c->nr))
		c->off = true;
	for (size_t i = 0; i < c->nr; i++)
		free(c->change[i].bytes);
	file_close(c->under);
	if (c->scratch >= 0)
		forget_direct(c);
	pthread_mutex_destroy(&c->lock);
	free(c->change);
	free(c->slot);
	free(c);
}

static const struct file_ops cut_ops = {
	.pread = cut_pread,
	.pwrite = cut_pwrite,
	.fdatasync = cut_fdatasync,
	.fallocate = cut_fallocate,
	.ftruncate = cut_ftruncate,
	.size = cut_size,
	.direct = cut_direct,
	.close = cut_close,
};

int cut_file(struct file *under, unsigned int flags, struct file **out)
{
	bool direct = flags & (FILE_DIRECT | FILE_DIRECT_WRITES);
	struct cut *c = calloc(1, sizeof(*c));
	int err = c ? file_size(under, &c->size) : -ENOMEM;

	if (!err)
		err = index_make(c, 10);
	if (!err) {
		c->scratch = direct ? memfd_create("znsd-cut", MFD_CLOEXEC) : -1;
		err = direct && c->scratch < 0 ? -errno : 0;
	}
	if (err) {
		free(c ? c->slot : NULL);
		free(c);
		return err;
	}
	c->file.ops = &cut_ops;
	c->file.fd = under->fd;
	c->file.direct = direct;
	c->only_large = flags & FILE_DIRECT_WRITES;
	c->under = under;
	c->unsafe = flags & FILE_UNSAFE;
	c->base_size = c->size;
	pthread_mutex_init(&c->lock, NULL);
	if (c->scratch >= 0)
		remember_direct(c);
	*out = &c->file;
	return 0;
}
