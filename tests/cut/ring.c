/* SPDX-License-Identifier: MIT */
/*
 * The ring of a drive with cache=none whose power is cut. The linker gives every call of aio_submit() to
 * __wrap_aio_submit() (ld, --wrap). The real ring moves the bytes, but between the request and the
 * scratch memory of the file (cutfile.c). From there a write goes on into the volatile cache when its
 * completion has come; a read is put there before it is submitted. So until its completion a
 * write is in flight, and none of it need reach the disk.
 *
 * At random: the completion comes up to two milliseconds late, so that requests overtake each other and a
 * cut or a flush finds them in flight; the bytes of a write are in the cache long before its
 * completion; a transfer is short.
 *
 * Each thread that submits has its own dice.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <event2/event.h>

#include "aio.h"
#include "cutfile.h"
#include "loop.h"
#include "qcow2.h"
#include "ring.h"

bool __real_aio_submit(struct loop *loop, struct aio *a);
bool __wrap_aio_submit(struct loop *loop, struct aio *a);
void __real_qcow2_wrote(struct qcow2 *q);
void __wrap_qcow2_wrote(struct qcow2 *q);

struct transfer {
	struct aio ours;
	struct aio *a;
	struct loop *loop;
	struct file *file;
	struct iovec iov[AIO_PIECES];
	uint8_t *bytes; /* of a write that has ended; NULL: none moved */
};

static enum { RING_SOUND, RING_EARLY, RING_UNSYNCED, RING_SHORT } planted;
static uint64_t ring_seed;

bool cut_set_ring_plant(const char *name)
{
	static const char *const names[] = {
		[RING_EARLY] = "ring_early",
		[RING_UNSYNCED] = "ring_unsynced",
		[RING_SHORT] = "ring_short",
	};

	for (unsigned int i = RING_EARLY; i <= RING_SHORT; i++)
		if (!strcmp(name, names[i]))
			planted = i;
	return planted != RING_SOUND;
}

void cut_set_ring_seed(unsigned long long seed)
{
	ring_seed = seed;
}

static uint64_t draw(uint64_t n)
{
	static _Thread_local uint64_t state;
	uint64_t x;

	if (!state)
		state = ring_seed + 1;
	x = state += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return (x ^ x >> 31) % n;
}

static void transfer_free(struct transfer *t)
{
	free(t->bytes);
	free(t);
}

/* Puts the bytes of a write that has ended into the cache. */
static void land(const struct transfer *t)
{
	ssize_t n;

	if (!t->bytes)
		return;
	n = t->file->ops->pwrite(t->file, t->bytes, (size_t)t->ours.res, t->ours.off, FILE_DATA);
	if (n != t->ours.res)
		abort();
}

static void complete(struct transfer *t)
{
	struct aio *a = t->a;

	a->res = t->ours.res;
	if (planted == RING_SHORT && a->res > 0)
		a->res = (int64_t)a->len;
	a->done(a);
}

static void end(evutil_socket_t fd, short what, void *arg)
{
	struct transfer *t = arg;

	(void)fd;
	(void)what;
	land(t);
	if (planted != RING_EARLY || !t->bytes)
		complete(t);
	transfer_free(t);
}

/* Ends T some time later, on its loop. */
static void end_later(struct transfer *t, unsigned int us)
{
	struct timeval after = { 0, us };

	if (event_base_once(loop_base(t->loop), -1, EV_TIMEOUT, end, t, &after))
		abort();
}

static void *scratch_bytes(const struct transfer *t)
{
	void *bytes = malloc((size_t)t->ours.res);

	if (!bytes ||
	    pread(t->ours.fd, bytes, (size_t)t->ours.res, (off_t)t->ours.off) != t->ours.res)
		abort();
	return bytes;
}

/* The real ring has ended OURS. */
static void moved(struct aio *ours)
{
	struct transfer *t = (struct transfer *)ours; /* it is the first member */

	if (ours->write && ours->res > 0)
		t->bytes = scratch_bytes(t);
	if (planted == RING_EARLY && t->bytes) {
		complete(t);
		end_later(t, 5000);
	} else {
		end_later(t, draw(2) ? (unsigned int)draw(2000) : 0);
	}
}

/* Cuts the pieces of T off behind LEN bytes. */
static void shorten(struct transfer *t, uint64_t len)
{
	int n = 0;

	while (len > t->iov[n].iov_len)
		len -= t->iov[n++].iov_len;
	t->iov[n].iov_len = len;
	t->ours.n = n + 1;
}

static void copy_pieces(const struct transfer *t, bool to_scratch)
{
	uint64_t off = t->ours.off;

	for (int i = 0; i < t->ours.n; i++) {
		const struct iovec *v = &t->iov[i];

		if (!to_scratch) {
			if (t->file->ops->pwrite(t->file, v->iov_base, v->iov_len, off,
						 FILE_DATA) != (ssize_t)v->iov_len)
				abort();
		} else if (file_read(t->file, v->iov_base, v->iov_len, off, FILE_DATA) ||
			   pwrite(t->ours.fd, v->iov_base, v->iov_len, (off_t)off) !=
				   (ssize_t)v->iov_len) {
			abort();
		}
		off += v->iov_len;
	}
}

bool __wrap_aio_submit(struct loop *loop, struct aio *a)
{
	struct file *file = cut_file_of(a->fd);
	struct transfer *t = file ? calloc(1, sizeof(*t)) : NULL;

	if (!t)
		return __real_aio_submit(loop, a);
	*t = (struct transfer){ .ours = *a, .a = a, .loop = loop, .file = file };
	memcpy(t->iov, a->iov, (size_t)a->n * sizeof(*a->iov));
	t->ours.iov = t->iov;
	t->ours.done = moved;
	if (!draw(16))
		shorten(t, CUT_SECTOR * (1 + draw(a->len / CUT_SECTOR)));
	if (!a->write || (planted == RING_SOUND && !draw(4)))
		copy_pieces(t, !a->write);
	if (__real_aio_submit(loop, &t->ours))
		return true;
	transfer_free(t);
	return false;
}

void __wrap_qcow2_wrote(struct qcow2 *q)
{
	if (planted != RING_UNSYNCED)
		__real_qcow2_wrote(q);
}
