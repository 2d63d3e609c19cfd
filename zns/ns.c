/* SPDX-License-Identifier: MIT */
/*
 * Creates a zoned namespace over a store, and closes both.
 *
 * A geometry that hosts cannot use is refused here: Linux hides a namespace whose zone size is not
 * a power of two or whose last zone is shorter (spec/nvme-rules.md B.7.19). An image that has more
 * partly written zones than its own limit of active zones is accepted; no further zone can become
 * active until there are fewer.
 *
 * zns_ns_new() and zns_close() run in the main thread or on a worker, when no request refers to the
 * namespace and no worker has a work item of it: after workers_free() and before loop_free().
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ns.h"

struct refusal {
	char *err;
	size_t len;
};

__attribute__((format(printf, 2, 3))) static int refuse(const struct refusal *r, const char *fmt,
							...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r->err, r->len, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static bool is_power_of_two(uint64_t n)
{
	return n && !(n & (n - 1));
}

static int check_geometry(const struct store_geometry *geo, uint32_t lba_size,
			  const struct refusal *r)
{
	uint64_t size;

	if (lba_size != 512 && lba_size != 4096)
		return refuse(r, "a logical block has 512 or 4096 bytes, not %u", lba_size);
	if (!is_power_of_two(geo->zone_size))
		return refuse(r,
			      "the zone size is %llu bytes, which is not a power of two: Linux "
			      "hosts would not show the drive",
			      (unsigned long long)geo->zone_size);
	if (geo->zone_size % lba_size)
		return refuse(r, "a zone of %llu bytes is less than one logical block of %u",
			      (unsigned long long)geo->zone_size, lba_size);
	if (!geo->zone_capacity || geo->zone_capacity > geo->zone_size)
		return refuse(r, "the zone capacity of %llu bytes is not within the zone size",
			      (unsigned long long)geo->zone_capacity);
	if (geo->zone_capacity % lba_size)
		return refuse(r,
			      "the zone capacity of %llu bytes is not a whole number of logical "
			      "blocks of %u",
			      (unsigned long long)geo->zone_capacity, lba_size);
	if (!geo->nr_zones || geo->nr_zones > ZONES_MAX)
		return refuse(r, "%u zones: a drive has 1 to %u", geo->nr_zones, ZONES_MAX);
	if (__builtin_mul_overflow(geo->zone_size, geo->nr_zones, &size) || size > INT64_MAX)
		return refuse(r, "%u zones of %llu bytes are more than a drive can have",
			      geo->nr_zones, (unsigned long long)geo->zone_size);
	return 0;
}

/* Depends only on what never changes, so that a drive keeps its block size over restarts. */
static uint32_t default_lba_size(const struct store_geometry *geo)
{
	return geo->zone_size % 4096 || geo->zone_capacity % 4096 ? 512 : 4096;
}

/* Loads the write pointers. They come from a file, so each is validated first. */
static int load_zones(struct zns *zns, const struct refusal *r)
{
	struct store *store = zns->store;
	const uint64_t lba_size = 1ull << zns->lba_shift;
	uint32_t i;

	for (i = 0; i < store->geo.nr_zones; i++) {
		uint64_t start = store->geo.zone_size * i;
		uint64_t wp = store->ops->wp(store, i);

		if (wp < start || wp > start + store->geo.zone_size)
			return refuse(r, "zone %u has a write pointer of %#llx, outside the zone",
				      i, (unsigned long long)wp);
		if (wp > start + store->geo.zone_capacity)
			wp = start + store->geo.zone_capacity;
		if (wp % lba_size)
			return refuse(r,
				      "zone %u is written up to %#llx, which is not a whole number "
				      "of logical blocks of %llu: it was used with smaller ones "
				      "(lba=512)",
				      i, (unsigned long long)wp, (unsigned long long)lba_size);
		zones_load(&zns->zones, i, wp >> zns->lba_shift);
	}
	return 0;
}

/* Passes the write pointer of ZONE (WP_DONE, in LBAs) to the store. Under zones->lock. */
static void tell_store(void *arg, uint32_t zone, uint64_t wp_done)
{
	struct zns *zns = arg;

	zns->store->ops->wp_advance(zns->store, zone, wp_done << zns->lba_shift);
}

static int zns_close(struct tgt_ns *ns)
{
	struct zns *zns = ns_zns(ns);
	int err = 0, ret;

	if (!ns->read_only)
		err = zns_flush_store(zns);
	ret = zns->store->ops->close(zns->store);
	zns_flusher_free(zns);
	zones_free(&zns->zones);
	free(zns);
	return ret ? ret : err; /* after a failed sync only close() returns its errno */
}

const struct tgt_command_set zns_command_set = {
	.csi = NVME_CSI_ZNS,
	.parse = zns_parse,
	.identify_ns = zns_identify_ns,
	.identify_ns_csi = zns_identify_ns_csi,
	.identify_ctrl_csi = zns_identify_ctrl_csi,
	.effects = zns_effects,
	.zero_copy = zns_zero_copy,
	.zero_copy_end = zns_zero_copy_end,
	.copy_out = zns_copy_out,
	.run_batch = zns_run_writes,
	.close = zns_close,
};

static void fill_ns(struct zns *zns, const struct zns_opts *opts)
{
	struct tgt_ns *ns = &zns->ns;

	ns->set = &zns_command_set;
	ns->nsid = opts->nsid;
	ns->read_only = opts->read_only || zns->store->geo.read_only;
	ns->write_cache = !opts->writethrough && !ns->read_only;
	/* Both identifiers are the image's UUID: it is stable over restarts and unique. */
	memcpy(ns->uuid, zns->store->geo.uuid, sizeof(ns->uuid));
	memcpy(ns->nguid, zns->store->geo.uuid, sizeof(ns->nguid));
}

static void warn_if_above_limits(struct zns *zns)
{
	uint32_t active = zones_nr_active(&zns->zones);

	if (zns->zones.max_active && active > zns->zones.max_active)
		log_warn("the image has %u active zones, more than its limit of %u: none can be "
			 "added until some are finished or reset",
			 active, zns->zones.max_active);
}

int zns_ns_new(struct store *store, const struct zns_opts *opts, struct loop *loop,
	       struct tgt_ns **out, char *err, size_t errlen)
{
	const struct store_geometry *geo = &store->geo;
	const struct refusal r = { err, errlen };
	const uint32_t lba_size = opts->lba_size ? opts->lba_size : default_lba_size(geo);
	struct zns *zns;
	int ret;

	ret = check_geometry(geo, lba_size, &r);
	if (ret)
		return ret;
	ret = -ENOMEM;
	zns = calloc(1, sizeof(*zns));
	if (!zns)
		goto no_memory;
	zns->store = store;
	zns->lba_shift = (uint32_t)__builtin_ctz(lba_size);
	zns->nsze = geo->zone_size * geo->nr_zones >> zns->lba_shift;
	zns->writethrough = opts->writethrough;
	if (zones_init(&zns->zones, geo->zone_size >> zns->lba_shift,
		       geo->zone_capacity >> zns->lba_shift, geo->nr_zones, geo->max_open,
		       geo->max_active))
		goto free_zns;
	ret = load_zones(zns, &r);
	if (ret)
		goto free_zones;
	ret = -ENOMEM;
	if (zns_flusher_init(zns, loop))
		goto free_zones;
	fill_ns(zns, opts);
	zones_tell(&zns->zones, tell_store, zns);
	warn_if_above_limits(zns);
	*out = &zns->ns;
	return 0;

free_zones:
	zones_free(&zns->zones);
free_zns:
	free(zns);
no_memory:
	if (ret == -ENOMEM)
		snprintf(err, errlen, "there is not enough memory for %u zones", geo->nr_zones);
	return ret;
}

void zns_ns_summary(struct tgt_ns *ns, struct zns_summary *sum)
{
	struct zns *zns = ns_zns(ns);
	struct zones *zs = &zns->zones;

	*sum = (struct zns_summary){
		.zone_size = zs->zsze << zns->lba_shift,
		.zone_capacity = zs->zcap << zns->lba_shift,
		.nr_zones = zs->nr_zones,
		.max_open = zs->max_open,
		.max_active = zs->max_active,
		.empty = zones_count(zs, NVME_ZNS_ZS_EMPTY),
		.closed = zones_count(zs, NVME_ZNS_ZS_CLOSED),
		.full = zones_count(zs, NVME_ZNS_ZS_FULL),
		.lba_size = 1u << zns->lba_shift,
		.max_append = zns->store->geo.max_append,
	};
}
