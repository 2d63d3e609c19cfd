/* SPDX-License-Identifier: MIT */
/*
 * Repairs the write pointers in the overlay. A write pointer that is impossible and lies
 *	- behind its zone: is set to the writable end. The zone is Full and can be read as a whole;
 *	- between two sectors: is rounded down to the sector;
 *	- before its zone: is set to the end of the zone's last data that is not zero, rounded up to
 *	  4096 bytes, or to the start of the zone if there is none.
 * The engine allocates clusters ahead of the write pointer, and these read as zeroes. So no zone
 * shows data that was not written to it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "repair.h"

#define POINTER_UNIT 4096u

/*
 * Returns how many bytes the cluster that ENTRY maps has up to its last one that is not zero. BUF:
 * a cluster.
 */
static uint64_t content_of(struct repair *r, uint64_t entry, uint8_t *buf)
{
	uint64_t host = entry & L2E_OFFSET_MASK, n = r->q->cluster_size;

	if (entry & L2E_COMPRESSED)
		return n;
	if (!host || (entry & L2E_ZERO && r->q->info.version >= 3))
		return 0;
	if (r->q->no_data || file_read(r->q->file, buf, n, host, 0))
		return n;
	while (n && !buf[n - 1])
		n--;
	return n;
}

/* Sets *WP to the end of the data in ZONE that is not zero, as the head of this file has it. */
static int content_end(struct repair *r, uint32_t zone, uint64_t *wp)
{
	uint64_t start = zone_start(r->q, zone), end = zone_writable_end(r->q, zone);
	uint64_t c = cluster_of(r->q, align_up(end, r->q->cluster_size));
	uint64_t mask = (1ull << r->q->l2_bits) - 1, n = 0, l2 = 0, at = 0, entry;
	unsigned int words = entry_words(r->q);
	uint8_t *buf = malloc(r->q->cluster_size);
	int err = buf ? 0 : -ENOMEM;

	*wp = start;
	while (!err && !n && c > cluster_of(r->q, start)) {
		uint64_t i = --c >> r->q->l2_bits;

		if (i >= r->q->hdr.l1_size)
			break;
		err = file_read(r->q->file, &entry, 8, r->q->hdr.l1_offset + 8 * i, 0);
		l2 = be64toh(entry) & L1E_OFFSET_MASK;
		if (err || !l2) { /* nothing is mapped in all that it covers */
			c &= ~mask;
			continue;
		}
		if (l2 != at)
			err = file_read(r->q->file, r->table, r->q->cluster_size, l2, 0);
		at = l2;
		if (!err)
			n = content_of(r, be64toh(r->table[(c & mask) * words]), buf);
	}
	if (n)
		*wp = align_up((c << r->q->cluster_bits) + n, POINTER_UNIT);
	if (*wp < start)
		*wp = start;
	if (*wp > end)
		*wp = end;
	free(buf);
	return err;
}

static int mended_pointer(struct repair *r, uint32_t zone, uint64_t entry, uint64_t *fixed)
{
	const struct qcow2_zoned *z = &r->q->info.zoned;
	uint64_t start = zone_start(r->q, zone), wp = entry & WP_MASK;

	if (zone < z->conventional_zones)
		*fixed = start | 1ull << z->marker_bit;
	else if (wp > start + z->zone_size)
		*fixed = zone_writable_end(r->q, zone);
	else if (wp >= start)
		*fixed = wp - wp % 512;
	else
		return content_end(r, zone, fixed);
	return 0;
}

int repair_pointers(struct repair *r)
{
	const struct qcow2_zoned *z = &r->q->info.zoned;
	struct qcow2_check_result res = { 0 };
	struct check judge = r->first;
	uint64_t *table, swapped = 0, wrong = 0, fixed;
	int err;

	judge.res = &res;
	judge.lines = UINT32_MAX; /* the first check has reported them */
	if (z->layout == QCOW2_LAYOUT_NONE || z->little_endian)
		return 0;
	table = malloc((size_t)z->nr_zones * 8);
	if (!table)
		return -ENOMEM;
	err = file_read(r->q->file, table, (size_t)z->nr_zones * 8, z->zonedmeta_offset, 0);
	for (uint32_t i = 0; i < z->nr_zones && !err; i++) {
		wrong += !check_write_pointer(&judge, z, i, be64toh(table[i]));
		swapped += !check_write_pointer(&judge, z, i, le64toh(table[i]));
	}
	if (!err && swapped < wrong) {
		check_say(&r->first, "the write-pointer table is little-endian, except some "
				     "entries; it is not repaired");
		wrong = 0;
	}
	for (uint32_t i = 0; i < z->nr_zones && !err && wrong; i++) {
		uint64_t entry = be64toh(table[i]);

		if (check_write_pointer(&judge, z, i, entry))
			continue;
		err = mended_pointer(r, i, entry, &fixed);
		if (err)
			break;
		check_say(&r->first,
			  "Repairing zone %" PRIu32 ": write pointer 0x%" PRIx64
			  " becomes 0x%" PRIx64 "%s",
			  i, entry, fixed,
			  fixed == zone_start(r->q, i)		? " (empty)"
			  : fixed == zone_writable_end(r->q, i) ? " (full)"
								: "");
		err = overlay_put64(&r->o, z->zonedmeta_offset + 8ull * i, fixed, PATCH_POINTERS);
	}
	free(table);
	return err;
}
