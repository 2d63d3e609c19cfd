/* SPDX-License-Identifier: MIT */
/*
 * Encodes and decodes the zoned header extension in its four historic layouts (spec/qcow2-zoned.md
 * 1.2, 1.4).
 *
 * L44 and L56 are recognised by their length. Two layouts have 48 bytes; of these, one is accepted
 * only if every field agrees with the image, above all nr_zones with the size of the disk. No valid
 * extension of one layout is valid as the other.
 *
 * Pure functions. Any thread.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "image.h"

const char *qcow2_layout_name(enum qcow2_zone_layout layout)
{
	switch (layout) {
	case QCOW2_LAYOUT_NONE:
		return "none";
	case QCOW2_LAYOUT_L56:
		return "v8";
	case QCOW2_LAYOUT_V11:
		return "v11";
	case QCOW2_LAYOUT_L48B:
		return "v11b";
	case QCOW2_LAYOUT_LATEST:
		return "latest";
	}
	return "unknown";
}

/* Copy the fields that every layout has between Z and the struct on disk, D. */
#define ENCODE_COMMON(d, z)                                                                        \
	do {                                                                                       \
		(d)->zoned = ZONED_HOST_MANAGED;                                                   \
		(d)->nr_zones = htobe32((z)->nr_zones);                                            \
		(d)->zone_size = htobe64((z)->zone_size);                                          \
		(d)->zone_capacity = htobe64((z)->zone_capacity);                                  \
		(d)->conventional_zones = htobe32((z)->conventional_zones);                        \
		(d)->max_active_zones = htobe32((z)->max_active_zones);                            \
		(d)->max_open_zones = htobe32((z)->max_open_zones);                                \
		(d)->zonedmeta_offset = htobe64((z)->zonedmeta_offset);                            \
	} while (0)

#define DECODE_COMMON(d, z)                                                                        \
	do {                                                                                       \
		(z)->nr_zones = be32toh((d)->nr_zones);                                            \
		(z)->zone_size = be64toh((d)->zone_size);                                          \
		(z)->zone_capacity = be64toh((d)->zone_capacity);                                  \
		(z)->conventional_zones = be32toh((d)->conventional_zones);                        \
		(z)->max_active_zones = be32toh((d)->max_active_zones);                            \
		(z)->max_open_zones = be32toh((d)->max_open_zones);                                \
		(z)->zonedmeta_offset = be64toh((d)->zonedmeta_offset);                            \
	} while (0)

size_t layout_encode(const struct qcow2_zoned *z, void *buf)
{
	union {
		struct disk_zoned_l56 l56;
		struct disk_zoned_l48a v11;
		struct disk_zoned_l48b l48b;
		struct disk_zoned_l44 latest;
	} d;
	size_t len;

	memset(&d, 0, sizeof(d));
	switch (z->layout) {
	case QCOW2_LAYOUT_L56:
		ENCODE_COMMON(&d.l56, z);
		d.l56.max_append_bytes = htobe32(z->max_append_bytes);
		d.l56.zonedmeta_size = htobe64(8 * (uint64_t)z->nr_zones);
		len = sizeof(d.l56);
		break;
	case QCOW2_LAYOUT_L48B:
		ENCODE_COMMON(&d.l48b, z);
		d.l48b.max_append_bytes = htobe32(z->max_append_bytes);
		len = sizeof(d.l48b);
		break;
	case QCOW2_LAYOUT_LATEST:
		ENCODE_COMMON(&d.latest, z);
		len = sizeof(d.latest);
		break;
	case QCOW2_LAYOUT_V11:
	default:
		ENCODE_COMMON(&d.v11, z);
		d.v11.max_append_bytes = htobe32(z->max_append_bytes);
		len = sizeof(d.v11);
		break;
	}
	memcpy(buf, &d, len);
	return len;
}

static void decode(const void *buf, enum qcow2_zone_layout layout, struct qcow2_zoned *z,
		   uint64_t *meta_size)
{
	memset(z, 0, sizeof(*z));
	z->layout = layout;
	*meta_size = 0;
	if (layout == QCOW2_LAYOUT_L56) {
		const struct disk_zoned_l56 *d = buf;

		DECODE_COMMON(d, z);
		z->max_append_bytes = be32toh(d->max_append_bytes);
		*meta_size = be64toh(d->zonedmeta_size);
	} else if (layout == QCOW2_LAYOUT_LATEST) {
		const struct disk_zoned_l44 *d = buf;

		DECODE_COMMON(d, z);
	} else if (layout == QCOW2_LAYOUT_L48B) {
		const struct disk_zoned_l48b *d = buf;

		DECODE_COMMON(d, z);
		z->max_append_bytes = be32toh(d->max_append_bytes);
	} else {
		const struct disk_zoned_l48a *d = buf;

		DECODE_COMMON(d, z);
		z->max_append_bytes = be32toh(d->max_append_bytes);
	}
	if (layout != QCOW2_LAYOUT_L56)
		*meta_size = 8 * (uint64_t)z->nr_zones;
}

__attribute__((format(printf, 2, 3))) static int wrong(char err[QCOW2_ERRLEN], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, QCOW2_ERRLEN, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* Checks every rule about the extension's fields. */
static int sane(const struct qcow2_zoned *z, uint64_t meta_size, uint64_t size,
		uint64_t cluster_size, uint64_t file_len, char err[QCOW2_ERRLEN])
{
	uint64_t zones;

	if (z->zone_size < 512 || z->zone_size & (z->zone_size - 1))
		return wrong(err, "zone_size is %llu, a power of two of at least 512 was expected",
			     (unsigned long long)z->zone_size);
	if (!z->zone_capacity || z->zone_capacity > z->zone_size || z->zone_capacity % 512)
		return wrong(err,
			     "zone_capacity is %llu, a multiple of 512 up to the zone size of "
			     "%llu was expected",
			     (unsigned long long)z->zone_capacity,
			     (unsigned long long)z->zone_size);
	zones = size / z->zone_size + (size % z->zone_size != 0);
	if (zones > MAX_ZONES)
		return wrong(err, "the disk has %llu zones, at most %u are supported",
			     (unsigned long long)zones, MAX_ZONES);
	if (z->nr_zones != zones || !zones)
		return wrong(err, "nr_zones is %u, but a disk of %llu bytes has %llu zones of %llu",
			     z->nr_zones, (unsigned long long)size, (unsigned long long)zones,
			     (unsigned long long)z->zone_size);
	if (z->conventional_zones >= z->nr_zones)
		return wrong(err, "conventional_zones is %u, less than nr_zones (%u) was expected",
			     z->conventional_zones, z->nr_zones);
	if (!z->zonedmeta_offset || z->zonedmeta_offset % cluster_size)
		return wrong(err,
			     "zonedmeta_offset is 0x%llx, a multiple of the cluster size of %llu "
			     "was expected",
			     (unsigned long long)z->zonedmeta_offset,
			     (unsigned long long)cluster_size);
	if (meta_size != 8 * zones)
		return wrong(err, "zonedmeta_size is %llu, %llu was expected",
			     (unsigned long long)meta_size, (unsigned long long)(8 * zones));
	if (z->zonedmeta_offset > file_len || 8 * zones > file_len - z->zonedmeta_offset)
		return wrong(err,
			     "the write-pointer table at 0x%llx reaches beyond the end of the file "
			     "at 0x%llx; the file was probably cut short",
			     (unsigned long long)z->zonedmeta_offset, (unsigned long long)file_len);
	return 0;
}

int layout_decode(const void *buf, size_t len, uint64_t size, uint64_t cluster_size,
		  uint64_t file_len, struct qcow2_zoned *z, char err[QCOW2_ERRLEN])
{
	static const struct {
		size_t len;
		enum qcow2_zone_layout layout;
	} table[] = {
		{ 44, QCOW2_LAYOUT_LATEST },
		{ 48, QCOW2_LAYOUT_V11 },
		{ 48, QCOW2_LAYOUT_L48B },
		{ 56, QCOW2_LAYOUT_L56 },
	};
	const uint8_t *byte = buf;
	char why[QCOW2_ERRLEN], *first = NULL;
	struct qcow2_zoned got;
	uint64_t meta_size;

	if (len != 44 && len != 48 && len != 56)
		return wrong(err, "its length is %zu, 44, 48 or 56 was expected", len);
	if (byte[0] != ZONED_HOST_MANAGED)
		return wrong(err, "zoned is %u, 1 (host-managed) was expected", byte[0]);
	if (byte[1] || byte[2] || byte[3])
		return wrong(err, "its reserved bytes are not zero");
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (table[i].len != len)
			continue;
		decode(buf, table[i].layout, &got, &meta_size);
		if (!sane(&got, meta_size, size, cluster_size, file_len, first ? why : err)) {
			got.marker_bit = table[i].layout == QCOW2_LAYOUT_LATEST ? WP_MARKER_LATEST
										: WP_MARKER_V11;
			*z = got;
			err[0] = 0;
			return 0;
		}
		first = err;
	}
	return -EINVAL;
}
