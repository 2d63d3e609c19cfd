/* SPDX-License-Identifier: MIT */
/*
 * The walk of qcow2_check() over the write-pointer table. An entry is judged by the geometry of the
 * zones alone. A write pointer above unallocated clusters is no finding: a zone that was written
 * with zeroes, or finished, has unallocated clusters below its write pointer.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "check.h"

bool check_write_pointer(struct check *c, const struct qcow2_zoned *z, uint32_t zone,
			 uint64_t entry)
{
	uint64_t start = zone * z->zone_size;
	bool marked = entry & ~WP_MASK;
	uint64_t before = c->res->corruptions;

	if (marked != (zone < z->conventional_zones)) {
		check_corrupt(c,
			      "ERROR zone %" PRIu32 "'s write pointer 0x%" PRIx64 " contradicts "
			      "the header, which declares the first %" PRIu32 " zones conventional",
			      zone, entry, z->conventional_zones);
	} else if (marked) {
		if (entry != (start | 1ull << WP_MARKER_V11) &&
		    entry != (start | 1ull << WP_MARKER_LATEST))
			check_corrupt(c,
				      "ERROR conventional zone %" PRIu32
				      " is recorded as 0x%" PRIx64 ", 0x%" PRIx64
				      " and a marker bit were expected",
				      zone, entry, start);
	} else if (entry < start || entry > start + z->zone_size) {
		check_corrupt(c,
			      "ERROR zone %" PRIu32 " has write pointer 0x%" PRIx64
			      " outside its range 0x%" PRIx64 "..0x%" PRIx64,
			      zone, entry, start, start + z->zone_size);
	} else if (entry % 512) {
		check_corrupt(c,
			      "ERROR zone %" PRIu32 " has write pointer 0x%" PRIx64
			      ", which is not sector aligned",
			      zone, entry);
	}
	return c->res->corruptions == before;
}

int check_write_pointers(struct check *c)
{
	const struct qcow2_zoned *z = &c->q->info.zoned;
	size_t len = (size_t)z->nr_zones * 8;
	uint64_t *table;
	int err;

	if (z->layout == QCOW2_LAYOUT_NONE)
		return 0;
	if (!check_ref_table(c, z->zonedmeta_offset, len, "write-pointer table"))
		return 0;
	table = malloc(len + 1);
	if (!table)
		return -ENOMEM;
	err = file_read(c->q->file, table, len, z->zonedmeta_offset, 0);
	if (err) {
		check_unread(c, "write-pointer table", z->zonedmeta_offset, err);
		free(table);
		return 0;
	}
	for (uint32_t i = 0; i < z->nr_zones; i++)
		check_write_pointer(c, z, i,
				    z->little_endian ? le64toh(table[i]) : be64toh(table[i]));
	free(table);
	return 0;
}
