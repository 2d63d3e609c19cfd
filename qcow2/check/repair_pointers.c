/* SPDX-License-Identifier: MIT */
/*
 * The repair of the write pointers. All in the overlay.
 *
 * A write pointer that cannot be becomes, if it lies
 *	- behind its zone: the writable end; the zone is Full, all of it can be read,
 *	- inside, between two sectors: the sector's beginning,
 *	- before its zone: the end of what the zone holds, which is the last of its data that is not
 *	  zero, in units of 4096; the zone is Empty if it holds nothing.
 * The clusters of a zone are allocated ahead of its pointer and are zero there, so none of these
 * shows as written what was not.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "repair.h"

#define POINTER_UNIT 4096u

/* The end of what is not zero in the cluster that ENTRY maps; 0: it holds nothing. */
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

/* Where the data of ZONE ends, in units of 4096, or its start. */
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
		if (err || !l2) { /* nothing in all that it covers */
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

static int right_pointer(struct repair *r, uint32_t zone, uint64_t entry, uint64_t *fixed)
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
	judge.lines = UINT32_MAX; /* it was said before */
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
		check_say(&r->first, "the write-pointer table is little-endian, but for some "
				     "entries; it is left as it is");
		wrong = 0;
	}
	for (uint32_t i = 0; i < z->nr_zones && !err && wrong; i++) {
		uint64_t entry = be64toh(table[i]);

		if (check_write_pointer(&judge, z, i, entry))
			continue;
		err = right_pointer(r, i, entry, &fixed);
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
