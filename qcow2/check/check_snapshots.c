/* SPDX-License-Identifier: MIT */
/*
 * The walk of qcow2_check() over the snapshot table, the snapshots' L1 tables and their L2 tables.
 */
#include <errno.h>
#include <inttypes.h>

#include "check.h"

/* Counts the L1 table of the snapshot S, and what it points to. */
static int check_snapshot_l1(struct check *c, const struct disk_snapshot *s)
{
	uint64_t off = be64toh(s->l1_table_offset);
	uint32_t entries = be32toh(s->l1_size);

	if ((uint64_t)entries * 8 > MAX_L1_BYTES) {
		c->unfollowed++;
		check_corrupt(c, "ERROR a snapshot's L1 table has %" PRIu32 " entries", entries);
		return 0;
	}
	if (!check_ref_fresh_table(c, off, (uint64_t)entries * 8, "a snapshot's L1 table"))
		return 0;
	return check_l1(c, off, entries, false);
}

int check_snapshots(struct check *c)
{
	uint64_t start = c->q->hdr.snapshots_offset, at = start;
	uint32_t nr = c->q->info.nb_snapshots;
	struct disk_snapshot s;
	int err = 0;

	if (!nr)
		return 0;
	if (nr > MAX_SNAPSHOTS) {
		c->unfollowed++;
		check_corrupt(c, "ERROR the header claims %" PRIu32 " snapshots", nr);
		return 0;
	}
	for (uint32_t i = 0; i < nr && !err; i++) {
		uint64_t rest;

		if (at > c->nr_clusters * c->cluster_size) {
			c->unfollowed++;
			check_corrupt(c,
				      "ERROR snapshot %" PRIu32 " of %" PRIu32
				      " lies beyond the end of the file",
				      i, nr);
			return 0;
		}
		err = file_read(c->q->file, &s, sizeof(s), at, 0);
		if (err) {
			check_unread(c, "snapshot table", at, err);
			return 0;
		}
		rest = (uint64_t)be32toh(s.extra_data_size) + be16toh(s.id_str_size) +
		       be16toh(s.name_size);
		at += align_up(sizeof(s) + rest, 8);
		err = check_snapshot_l1(c, &s);
	}
	if (!err)
		check_ref_table(c, start, at - start, "snapshot table");
	return err;
}
