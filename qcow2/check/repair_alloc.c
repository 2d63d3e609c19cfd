/* SPDX-License-Identifier: MIT */
/*
 * Allocates the new clusters of a repair. They always lie beyond the end of the file as it was, so
 * they overwrite nothing. A damaged refcount table may point to such a place; its clusters are left
 * out, for until the header points to a repaired table they would be taken for refcount blocks.
 */
#include <errno.h>
#include <stdlib.h>

#include "repair.h"

int repair_find_avoided(struct repair *r)
{
	uint64_t entries = (uint64_t)r->q->hdr.reftable_clusters * r->q->cluster_size / 8;
	uint64_t *table = malloc(entries * 8 + 1);
	int err = 0;

	r->nr_avoid = 4 * r->nr_old + 65536;
	r->avoid = calloc(r->nr_avoid / 8 + 1, 1);
	if (!r->avoid || !table)
		err = -ENOMEM;
	else if (file_read(r->q->file, table, entries * 8, r->q->hdr.reftable_offset, 0))
		entries = 0;
	for (uint64_t i = 0; i < entries && !err; i++) {
		uint64_t n = cluster_of(r->q, be64toh(table[i]) & REFTABLE_OFFSET_MASK) - r->nr_old;

		if (n < r->nr_avoid)
			r->avoid[n / 8] |= (uint8_t)(1u << (n % 8));
	}
	free(table);
	return err;
}

static bool avoided(const struct repair *r, uint64_t cluster)
{
	uint64_t i = cluster - r->nr_old;

	return i < r->nr_avoid && r->avoid[i / 8] & 1u << (i % 8);
}

uint64_t repair_find_new(const struct repair *r, uint64_t nr)
{
	uint64_t first = r->next;

	for (uint64_t i = 0; i < nr; i++)
		if (avoided(r, first + i)) {
			first += i + 1;
			i = -1ull;
		}
	return first;
}

uint64_t repair_alloc(struct repair *r, uint64_t nr)
{
	uint64_t first = repair_find_new(r, nr);

	r->next = first + nr;
	return first;
}
