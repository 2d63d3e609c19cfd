/* SPDX-License-Identifier: MIT */
/*
 * The store on a zoned qcow2 image: the only file that uses both zns and the image engine. It maps
 * function names and flags, and refuses images that cannot back a zoned drive.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2.h"
#include "store.h"
#include "target.h"

struct store_qcow2 {
	struct store store; /* first */
	struct qcow2 *q;
};

static struct qcow2 *image(struct store *s)
{
	return ((struct store_qcow2 *)s)->q;
}

/* For qcow2_open_opts.waited: names the zone of a command that had to wait for a flush. */
static void say_waited(const char *path, uint32_t zone, uint64_t ms)
{
	log_warn("%s: a write or reset of zone %u has waited %llu ms for a flush, which too many "
		 "resets waited for",
		 path, zone, (unsigned long long)ms);
}

static unsigned int nowait(unsigned int flags)
{
	return flags & STORE_NOWAIT ? QCOW2_NOWAIT : 0;
}

static int sq_read(struct store *s, void *buf, uint64_t off, uint64_t len, unsigned int flags)
{
	return qcow2_read(image(s), buf, off, len, nowait(flags));
}

static const void *sq_peek(struct store *s, uint64_t off, uint64_t len)
{
	return qcow2_peek(image(s), off, len);
}

static int sq_write(struct store *s, const struct iovec *iov, int n, uint64_t off, uint64_t len,
		    unsigned int flags)
{
	return qcow2_writev(image(s), iov, n, off, len, nowait(flags));
}

static void *sq_reserve(struct store *s, uint32_t zone, uint64_t len)
{
	return qcow2_reserve(image(s), zone, len);
}

static int sq_commit(struct store *s, void *mem, uint64_t off, uint64_t len, unsigned int flags)
{
	return qcow2_commit(image(s), mem, off, len, nowait(flags));
}

static void sq_release(struct store *s, uint32_t zone, void *mem, uint64_t len)
{
	qcow2_release(image(s), zone, mem, len);
}

static int sq_locate(struct store *s, const struct iovec *iov, int n, uint64_t off, uint64_t len,
		     bool write, uint64_t *at)
{
	return qcow2_locate(image(s), iov, n, off, len, write, at);
}

static void sq_wrote(struct store *s)
{
	qcow2_wrote(image(s));
}

static uint64_t sq_wp(struct store *s, uint32_t zone)
{
	return qcow2_wp(image(s), zone);
}

static void sq_wp_advance(struct store *s, uint32_t zone, uint64_t wp)
{
	qcow2_wp_advance(image(s), zone, wp);
}

static int sq_reset(struct store *s, uint32_t zone)
{
	return qcow2_zone_reset(image(s), zone);
}

static int sq_finish(struct store *s, uint32_t zone, uint64_t wp)
{
	return qcow2_zone_finish(image(s), zone, wp);
}

static bool sq_housekeep(struct store *s)
{
	return qcow2_housekeep(image(s));
}

static void sq_trim(struct store *s)
{
	qcow2_trim(image(s));
}

static int sq_flush(struct store *s)
{
	return qcow2_flush(image(s));
}

static int sq_close(struct store *s)
{
	int err = qcow2_close(image(s));

	free(s);
	return err;
}

static const struct store_ops store_qcow2_ops = {
	.read = sq_read,
	.peek = sq_peek,
	.write = sq_write,
	.reserve = sq_reserve,
	.commit = sq_commit,
	.release = sq_release,
	.locate = sq_locate,
	.wrote = sq_wrote,
	.wp = sq_wp,
	.wp_advance = sq_wp_advance,
	.reset = sq_reset,
	.finish = sq_finish,
	.housekeep = sq_housekeep,
	.trim = sq_trim,
	.flush = sq_flush,
	.close = sq_close,
};

/* Why a qcow2 image cannot back a zoned drive; NULL: it can. */
static const char *unfit(const struct qcow2_info *info)
{
	const struct qcow2_zoned *z = &info->zoned;

	if (z->layout == QCOW2_LAYOUT_NONE)
		return "the image is not zoned; znsimg create -o zone.mode=host-managed makes one";
	if (z->conventional_zones)
		return "the image has conventional zones, and a ZNS drive has none; create it with "
		       "-o zone.conventional_zones=0";
	if (info->size % z->zone_size)
		return "the last zone is shorter than the others, which Linux hosts refuse; make "
		       "the size of the image a multiple of the zone size";
	return NULL;
}

static void take_geometry(struct store_geometry *geo, const struct qcow2_info *info)
{
	*geo = (struct store_geometry){
		.zone_size = info->zoned.zone_size,
		.zone_capacity = info->zoned.zone_capacity,
		.nr_zones = info->zoned.nr_zones,
		.max_open = info->zoned.max_open_zones,
		.max_active = info->zoned.max_active_zones,
		.max_append = info->zoned.max_append_bytes,
		.read_only = info->read_only,
	};
	memcpy(geo->uuid, info->uuid, sizeof(geo->uuid));
}

/* Writethrough is implemented in zns, which flushes before it completes; the image is not told. */
static unsigned int open_flags(bool read_only, enum store_cache cache)
{
	unsigned int flags = read_only ? QCOW2_RDONLY : 0;

	if (cache == STORE_NONE)
		flags |= QCOW2_DIRECT;
	if (cache == STORE_AUTO)
		flags |= QCOW2_LARGE_DIRECT;
	if (cache == STORE_UNSAFE)
		flags |= QCOW2_UNSAFE;
	return flags;
}

int store_qcow2_open(const char *path, const struct store_qcow2_opts *opts, struct store **out,
		     char *err, unsigned int errlen)
{
	char why[QCOW2_ERRLEN], notice[QCOW2_ERRLEN];
	const struct qcow2_open_opts how = {
		.flags = open_flags(opts->read_only, opts->cache),
		.shadow_dir = opts->shadow_dir,
		.notice = notice,
		.waited = say_waited,
	};
	struct store_qcow2 *s;
	const char *no;
	int ret;

	s = calloc(1, sizeof(*s));
	if (!s) {
		snprintf(err, errlen, "%s: there is not enough memory", path);
		return -ENOMEM;
	}
	ret = qcow2_open(path, &how, &s->q, why);
	if (ret) {
		snprintf(err, errlen, "%s", why);
		goto free_store;
	}
	no = unfit(qcow2_info(s->q));
	if (no) {
		snprintf(err, errlen, "%s: %s", path, no);
		ret = -EINVAL;
		goto close_image;
	}
	if (notice[0])
		log_warn("%s: %s", path, notice);
	s->store.ops = &store_qcow2_ops;
	take_geometry(&s->store.geo, qcow2_info(s->q));
	*out = &s->store;
	return 0;

close_image:
	qcow2_close(s->q);
free_store:
	free(s);
	return ret;
}
