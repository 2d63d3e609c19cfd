/* SPDX-License-Identifier: MIT */
/*
 * What a new image may look like: the defaults, the clamped values and the refusals of
 * qcow2_create().
 *
 * The rules are those of QEMU's zoned series (spec/qcow2-zoned.md 2), with these of our own:
 * 1. A zone consists of whole clusters, so that a reset never affects the next zone.
 * 2. Every write pointer stays below bit 59, the lowest bit that any version used as a marker.
 * 3. The default of the largest append shrinks to fit small zones; a given value does not.
 *
 * A limit that is larger than can matter is clamped; everything else that is wrong is refused.
 * These are pure functions of the options and touch no file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "create.h"
#include "format.h"

#define DEFAULT_CLUSTER 65536u
#define DEFAULT_ZONE	(256ull << 20)
#define DEFAULT_APPEND	65536u

#define MAX_ZONED_SIZE (1ull << 59) /* write pointers stay below the marker bits */
#define SECTOR	       512u

static bool is_power_of_two(uint64_t n)
{
	return n && !(n & (n - 1));
}

static uint64_t div_round_up(uint64_t n, uint64_t by)
{
	return n / by + (n % by != 0);
}

static int __attribute__((format(printf, 2, 3))) refuse(char *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, QCOW2_ERRLEN, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* Appends a line to WARN, unless it does not fit. */
static void __attribute__((format(printf, 2, 3))) remark(char *warn, const char *fmt, ...)
{
	size_t len = strlen(warn);
	va_list ap;
	int n;

	if (len && len + 1 < QCOW2_ERRLEN)
		warn[len++] = '\n';
	va_start(ap, fmt);
	n = vsnprintf(warn + len, QCOW2_ERRLEN - len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= QCOW2_ERRLEN - len)
		warn[len ? len - 1 : 0] = '\0';
}

static int validate_plain(struct qcow2_create_opts *opts, char *err)
{
	uint64_t l1_entries;

	if (!opts->cluster_size)
		opts->cluster_size = DEFAULT_CLUSTER;
	if (!is_power_of_two(opts->cluster_size) || opts->cluster_size < 512 ||
	    opts->cluster_size > 2u << 20)
		return refuse(err,
			      "cluster_size is %" PRIu32
			      ", it must be a power of two from 512 to 2M",
			      opts->cluster_size);
	if (!opts->refcount_bits)
		opts->refcount_bits = 16;
	if (!is_power_of_two(opts->refcount_bits) || opts->refcount_bits > 64)
		return refuse(
			err, "refcount_bits is %" PRIu32 ", it must be a power of two from 1 to 64",
			opts->refcount_bits);
	if (opts->compression != QCOW2_ZLIB && opts->compression != QCOW2_ZSTD)
		return refuse(err, "compression type %d is not known", (int)opts->compression);
	if (opts->size > INT64_MAX - SECTOR)
		return refuse(err, "a size of %" PRIu64 " is too large for any image", opts->size);
	opts->size = div_round_up(opts->size, SECTOR) * SECTOR;
	/* An L1 entry covers a cluster full of 8-byte L2 entries. */
	l1_entries =
		div_round_up(opts->size, (uint64_t)opts->cluster_size * opts->cluster_size / 8);
	if (l1_entries > CREATE_MAX_L1 / 8)
		return refuse(err,
			      "a size of %" PRIu64 " is too large for clusters of %" PRIu32
			      " bytes (try a larger cluster_size)",
			      opts->size, opts->cluster_size);
	return 0;
}

static int validate_zone_sizes(struct qcow2_create_opts *opts, char *err)
{
	struct qcow2_zoned *z = &opts->zone;
	uint64_t zones;

	if (!opts->size)
		return refuse(err, "a zoned image needs a size, a disk of 0 bytes has no zone");
	if (!z->zone_size)
		z->zone_size = DEFAULT_ZONE;
	if (!is_power_of_two(z->zone_size))
		return refuse(err, "zone.size is %" PRIu64 ", it must be a power of two",
			      z->zone_size);
	if (z->zone_size < opts->cluster_size)
		return refuse(err,
			      "zone.size is %" PRIu64
			      ", it must be a multiple of the cluster size %" PRIu32,
			      z->zone_size, opts->cluster_size);
	if (!z->zone_capacity)
		z->zone_capacity = z->zone_size;
	if (z->zone_capacity > z->zone_size)
		return refuse(err,
			      "zone.capacity is %" PRIu64
			      ", it must not be above zone.size %" PRIu64,
			      z->zone_capacity, z->zone_size);
	if (z->zone_capacity % SECTOR)
		return refuse(err, "zone.capacity is %" PRIu64 ", it must be a multiple of 512",
			      z->zone_capacity);
	zones = div_round_up(opts->size, z->zone_size);
	if (zones > MAX_ZONES)
		return refuse(err,
			      "zone.size %" PRIu64 " makes %" PRIu64
			      " zones, at most %u are possible (try a larger zone.size)",
			      z->zone_size, zones, MAX_ZONES);
	if (zones * z->zone_size >= MAX_ZONED_SIZE)
		return refuse(err,
			      "a size of %" PRIu64 " is too large for a zoned image, whose "
			      "write pointers end below 512 PiB",
			      opts->size);
	z->nr_zones = (uint32_t)zones;
	return 0;
}

static int validate_append(struct qcow2_zoned *z, char *err)
{
	if (z->layout == QCOW2_LAYOUT_LATEST) {
		if (z->max_append_bytes)
			return refuse(err, "zone.layout=latest has no room for "
					   "zone.max_append_bytes: leave it out, or use "
					   "zone.layout=v11");
		return 0;
	}
	if (!z->max_append_bytes) {
		z->max_append_bytes = DEFAULT_APPEND;
		/* The largest value that the rule below allows. */
		if (z->zone_capacity <= DEFAULT_APPEND + SECTOR)
			z->max_append_bytes = z->zone_capacity > 2 * SECTOR
						      ? (uint32_t)z->zone_capacity - 2 * SECTOR
						      : SECTOR;
	}
	if (z->max_append_bytes % SECTOR)
		return refuse(err,
			      "zone.max_append_bytes is %" PRIu32 ", it must be a multiple of 512",
			      z->max_append_bytes);
	if ((uint64_t)z->max_append_bytes + SECTOR >= z->zone_capacity)
		return refuse(err,
			      "zone.max_append_bytes is %" PRIu32
			      ", with 512 more it must stay below zone.capacity %" PRIu64,
			      z->max_append_bytes, z->zone_capacity);
	return 0;
}

static void clamp_limits(struct qcow2_zoned *z, char *warn)
{
	uint32_t sequential = z->nr_zones - z->conventional_zones;

	if (z->max_active_zones > z->nr_zones) {
		remark(warn,
		       "zone.max_active_zones %" PRIu32 " is above the number of zones, "
		       "%" PRIu32 " is used",
		       z->max_active_zones, z->nr_zones);
		z->max_active_zones = z->nr_zones;
	}
	if (z->max_open_zones > sequential) {
		remark(warn,
		       "zone.max_open_zones %" PRIu32 " is above the number of sequential "
		       "zones, %" PRIu32 " is used",
		       z->max_open_zones, sequential);
		z->max_open_zones = sequential;
	}
	if (z->max_active_zones && z->max_open_zones > z->max_active_zones) {
		remark(warn,
		       "zone.max_open_zones %" PRIu32 " is above zone.max_active_zones, "
		       "%" PRIu32 " is used",
		       z->max_open_zones, z->max_active_zones);
		z->max_open_zones = z->max_active_zones;
	}
}

static int validate_zoned(struct qcow2_create_opts *opts, char *warn, char *err)
{
	struct qcow2_zoned *z = &opts->zone;
	int rc;

	if (z->layout == QCOW2_LAYOUT_NONE)
		z->layout = QCOW2_LAYOUT_V11;
	if (z->layout != QCOW2_LAYOUT_V11 && z->layout != QCOW2_LAYOUT_LATEST)
		return refuse(err, "this zone.layout can be read but not made: use v11 or latest");
	rc = validate_zone_sizes(opts, err);
	if (rc)
		return rc;
	rc = validate_append(z, err);
	if (rc)
		return rc;
	if (z->conventional_zones >= z->nr_zones)
		return refuse(err,
			      "zone.conventional_zones is %" PRIu32
			      ", it must be less than the number of zones %" PRIu32,
			      z->conventional_zones, z->nr_zones);
	clamp_limits(z, warn);
	if (opts->size % z->zone_size)
		remark(warn, "the last zone is shorter, a Linux NVMe host needs whole zones: "
			     "make size a multiple of zone.size");
	z->marker_bit = z->layout == QCOW2_LAYOUT_LATEST ? 63 : 59;
	z->little_endian = false;
	z->zonedmeta_offset = 0;
	return 0;
}

int create_validate(struct qcow2_create_opts *opts, char warn[QCOW2_ERRLEN], char err[QCOW2_ERRLEN])
{
	struct qcow2_create_opts o = *opts;
	char remarks[QCOW2_ERRLEN] = "";
	int rc;

	rc = validate_plain(&o, err);
	if (!rc && o.zoned)
		rc = validate_zoned(&o, remarks, err);
	if (rc)
		return rc;
	if (!o.zoned)
		memset(&o.zone, 0, sizeof(o.zone));
	*opts = o;
	memcpy(warn, remarks, sizeof(remarks));
	return 0;
}
