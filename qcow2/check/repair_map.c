/* SPDX-License-Identifier: MIT */
/*
 * Repairs the entries of L1 and L2 tables, and COPIED flags, in the overlay.
 *
 * Each cluster gets one owner: first the tables that share no cluster, then the L2 tables in the
 * order of the L1 entries that point to them, then data in the order of the disk. An entry that
 * points to a cluster with an owner already
 *	- gets a copy of the cluster, if that holds data or an L2 table: the disk reads as before;
 *	- is dropped, if the owner is a table of another kind, or if the copies would more than
 *	  double the file.
 * An entry that points beyond the end of the file, or between two clusters, is dropped. What a
 * dropped entry mapped reads as zeroes; a message tells which part of the disk is lost.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "repair.h"

/* The L2 entry that is being repaired. */
struct spot {
	uint64_t at;	/* its host offset */
	uint64_t guest; /* the offset of the virtual disk that it maps */
	bool active;	/* the active L1 table points to its L2 table */
};

/* Returns whether NR more clusters may be copied. */
static bool may_copy(const struct repair *r, uint64_t nr)
{
	return r->copies + nr <= r->nr_old;
}

static int drop(struct repair *r, const struct spot *s, uint64_t entry)
{
	const struct qcow2_info *i = &r->q->info;
	bool zero = !(entry & L2E_COMPRESSED) && entry & L2E_ZERO && i->version >= 3;
	int err;

	if (!zero && s->active) {
		check_say(&r->first,
			  "Repairing L2 entry 0x%" PRIx64 ": dropped, %" PRIu64
			  " bytes of the disk at 0x%" PRIx64 " are lost",
			  entry, r->q->cluster_size, s->guest);
		r->lost_bytes += r->q->cluster_size;
	} else {
		check_say(&r->first, "Repairing L2 entry 0x%" PRIx64 ": dropped", entry);
	}
	if (i->extended_l2) {
		/* The bitmap: nothing is allocated; with a backing file, all reads as zeroes. */
		err = overlay_put64(&r->o, s->at + 8,
				    r->q->hdr.backing_offset ? 0xffffffffull << 32 : 0, PATCH_L2);
		return err ? err : overlay_put64(&r->o, s->at, 0, PATCH_L2);
	}
	zero |= i->version >= 3 && r->q->hdr.backing_offset;
	return overlay_put64(&r->o, s->at, zero ? L2E_ZERO : 0, PATCH_L2);
}

static int fix_compressed(struct repair *r, const struct spot *s, uint64_t entry)
{
	uint64_t len, host = compressed_place(r->q, entry, &len);
	uint64_t start = host - host % 512, last = cluster_of(r->q, host + len - 1);
	uint64_t nr = align_up(host + len - start, r->q->cluster_size) / r->q->cluster_size;
	uint8_t others = OWN_TABLE | OWN_L2 | (r->q->info.nb_snapshots ? 0 : OWN_DATA);
	uint64_t fixed = entry & ~ENTRY_COPIED, to;
	bool taken = false;

	if (has_data_file(r->q) || last >= r->nr_old)
		return drop(r, s, entry);
	for (uint64_t c = cluster_of(r->q, start); c <= last; c++)
		taken |= r->own[c] & others;
	if (taken && !may_copy(r, nr))
		return drop(r, s, entry);
	if (taken) {
		to = repair_alloc(r, nr);
		r->copies += nr;
		for (uint64_t i = 0; i < nr; i++) {
			int err = overlay_copy(&r->o, to + i, start + i * r->q->cluster_size);

			if (err)
				return err;
		}
		check_say(&r->first, "Repairing compressed cluster at 0x%" PRIx64 ": copied", host);
		fixed = (fixed & ~compressed_mask(r->q)) |
			((to << r->q->cluster_bits) + host % 512);
	} else {
		for (uint64_t c = cluster_of(r->q, start); c <= last; c++)
			r->own[c] |= OWN_COMPRESSED;
	}
	return fixed == entry ? 0 : overlay_put64(&r->o, s->at, fixed, PATCH_L2);
}

static int fix_data(struct repair *r, const struct spot *s, uint64_t entry)
{
	bool zero_flag = r->q->info.version >= 3 && !r->q->info.extended_l2;
	uint64_t fixed = entry & ~(L2E_RESERVED | (zero_flag ? 0 : L2E_ZERO));
	uint64_t host = fixed & L2E_OFFSET_MASK, cluster = cluster_of(r->q, host), to;
	uint8_t others =
		OWN_TABLE | OWN_L2 | (r->q->info.nb_snapshots ? 0 : OWN_DATA | OWN_COMPRESSED);
	int err;

	if (host && !has_data_file(r->q)) {
		if (in_cluster(r->q, host) || cluster >= r->nr_old)
			return drop(r, s, entry);
		if (!(r->own[cluster] & others)) {
			r->own[cluster] |= OWN_DATA;
		} else if (fixed & L2E_ZERO || !may_copy(r, 1)) {
			return drop(r, s, fixed);
		} else {
			to = repair_alloc(r, 1);
			r->copies++;
			err = overlay_copy(&r->o, to, host);
			if (err)
				return err;
			check_say(&r->first, "Repairing data cluster at 0x%" PRIx64 ": copied",
				  host);
			fixed = to << r->q->cluster_bits;
		}
	}
	return fixed == entry ? 0 : overlay_put64(&r->o, s->at, fixed, PATCH_L2);
}

/*
 * Repairs the entries of the L2 table at host offset OFF, to which entry INDEX of an L1 table
 * points.
 */
static int fix_l2(struct repair *r, uint64_t off, uint64_t index, bool active)
{
	unsigned int words = entry_words(r->q);
	uint64_t entries = r->q->cluster_size / 8 / words;
	int err = file_read(r->q->file, r->table, r->q->cluster_size, off, 0);

	if (err)
		return err == -ENOMEM ? err : 0; /* the check has reported any other */
	for (uint64_t i = 0; i < entries && !err; i++) {
		uint64_t entry = be64toh(r->table[i * words]);
		struct spot s = {
			.at = off + i * words * 8,
			.guest = (index * entries + i) << r->q->cluster_bits,
			.active = active,
		};

		if (!entry)
			continue;
		if (entry & L2E_COMPRESSED)
			err = fix_compressed(r, &s, entry);
		else
			err = fix_data(r, &s, entry);
	}
	return err;
}

static int drop_l1(struct repair *r, uint64_t at, uint32_t i, bool active)
{
	uint64_t covers = r->q->cluster_size << r->q->l2_bits, from = i * covers;

	if (active && from < r->q->info.size) {
		if (covers > r->q->info.size - from)
			covers = r->q->info.size - from;
		check_say(&r->first,
			  "Repairing L1 entry %" PRIu32 ": dropped, all data in %" PRIu64
			  " bytes of the disk at 0x%" PRIx64 " is lost",
			  i, covers, from);
		r->lost_bytes += covers;
	} else {
		check_say(&r->first, "Repairing L1 entry %" PRIu32 ": dropped", i);
	}
	return overlay_put64(&r->o, at, 0, PATCH_L1);
}

/* Gives entry I of an L1 table, at host offset AT, a copy of the L2 table at host offset OFF. */
static int copy_l2(struct repair *r, uint64_t at, uint32_t i, uint64_t off)
{
	uint64_t to = repair_alloc(r, 1) << r->q->cluster_bits;
	int err = file_read(r->q->file, r->table, r->q->cluster_size, off, 0);

	r->copies++;
	check_say(&r->first, "Repairing L1 entry %" PRIu32 ": L2 table at 0x%" PRIx64 " copied", i,
		  off);
	if (!err)
		err = overlay_write(&r->o, r->table, r->q->cluster_size, to, PATCH_L2);
	return err ? err : overlay_put64(&r->o, at, to, PATCH_L1);
}

/*
 * Guesses whether the cluster at host offset OFF, to which L1 and others point, holds an L2 table:
 * all of its entries are possible, and one at least maps something. Refcounts and data are not like
 * that.
 */
static bool looks_like_l2(struct repair *r, uint64_t off)
{
	unsigned int words = entry_words(r->q);
	bool maps = false;

	if (file_read(r->q->file, r->table, r->q->cluster_size, off, 0))
		return false;
	for (uint64_t i = 0; i < r->q->cluster_size / 8; i += words) {
		uint64_t entry = be64toh(r->table[i]), host = entry & L2E_OFFSET_MASK;

		if (entry & L2E_COMPRESSED)
			host = entry & compressed_mask(r->q);
		if (entry & L2E_COMPRESSED ? entry & ENTRY_COPIED
					   : entry & L2E_RESERVED || in_cluster(r->q, host))
			return false;
		if (cluster_of(r->q, host) >= r->nr_old)
			return false;
		maps |= host;
	}
	return maps;
}

/* Returns whether CLUSTER has other references than those of L1 entries. */
static bool has_other_references(const struct repair *r, uint64_t cluster)
{
	return (r->first.ref[cluster] & REF_COUNT) > (r->first.l2_refs[cluster] & L2REF_COUNT);
}

static int fix_l1_entry(struct repair *r, uint64_t at, uint64_t entry, uint32_t i, bool active)
{
	uint64_t fixed = entry & (L1E_OFFSET_MASK | ENTRY_COPIED);
	uint64_t off = fixed & L1E_OFFSET_MASK, cluster = cluster_of(r->q, off);

	if (off) {
		if (in_cluster(r->q, off) || cluster >= r->nr_old || r->own[cluster] & OWN_TABLE)
			return drop_l1(r, at, i, active);
		if (has_other_references(r, cluster) && !looks_like_l2(r, off))
			return drop_l1(r, at, i, active); /* it is probably data */
		if (active && r->own[cluster] & OWN_L2_ACTIVE)
			return may_copy(r, 1) ? copy_l2(r, at, i, off) : drop_l1(r, at, i, active);
		r->own[cluster] |= OWN_L2 | (active ? OWN_L2_ACTIVE : 0);
	}
	return fixed == entry ? 0 : overlay_put64(&r->o, at, fixed, PATCH_L1);
}

/* Reads an L1 table into new memory, which the caller frees, whatever is returned. */
static int read_l1(struct repair *r, uint64_t l1_off, uint32_t entries, uint64_t **l1)
{
	*l1 = malloc((size_t)entries * 8 + 1);
	return *l1 ? file_read(r->q->file, *l1, (size_t)entries * 8, l1_off, 0) : -ENOMEM;
}

static int fix_l1(struct repair *r, uint64_t l1_off, uint32_t entries, bool active)
{
	uint64_t *l1;
	int err = read_l1(r, l1_off, entries, &l1);

	for (uint32_t i = 0; i < entries && !err; i++)
		if (l1[i])
			err = fix_l1_entry(r, l1_off + 8ull * i, be64toh(l1[i]), i, active);
	free(l1);
	return err;
}

static int fix_l2_tables(struct repair *r, uint64_t l1_off, uint32_t entries, bool active)
{
	uint64_t *l1;
	int err = read_l1(r, l1_off, entries, &l1);

	for (uint32_t i = 0; i < entries && !err; i++) {
		uint64_t off = be64toh(l1[i]) & L1E_OFFSET_MASK, cluster = cluster_of(r->q, off);

		if (!off || (cluster < r->nr_old && r->own[cluster] & OWN_L2_WALKED))
			continue;
		if (cluster < r->nr_old)
			r->own[cluster] |= OWN_L2_WALKED;
		err = fix_l2(r, off, i, active);
	}
	free(l1);
	return err;
}

/* Calls FN for the active L1 table, then for the snapshots'. No two of them overlap. */
static int each_l1(struct repair *r,
		   int (*fn)(struct repair *r, uint64_t off, uint32_t entries, bool active))
{
	uint64_t at = r->q->hdr.snapshots_offset;
	int err = fn(r, r->q->hdr.l1_offset, r->q->hdr.l1_size, true);

	for (uint32_t i = 0; i < r->q->info.nb_snapshots && !err; i++) {
		struct disk_snapshot s;

		err = file_read(r->q->file, &s, sizeof(s), at, 0);
		if (!err)
			err = fn(r, be64toh(s.l1_table_offset), be32toh(s.l1_size), false);
		at += align_up(sizeof(s) + (uint64_t)be32toh(s.extra_data_size) +
				       be16toh(s.id_str_size) + be16toh(s.name_size),
			       8);
	}
	return err;
}

int repair_map(struct repair *r)
{
	int err = each_l1(r, fix_l1);

	return err ? err : each_l1(r, fix_l2_tables);
}

/* Returns ENTRY with the COPIED flag that the recorded refcount of the cluster at HOST requires. */
static uint64_t with_right_flag(const struct check *c, uint64_t entry, uint64_t host)
{
	uint64_t cluster = host / c->cluster_size;

	if (!host || host % c->cluster_size || cluster >= c->nr_clusters)
		return entry;
	return c->ref[cluster] & REF_RECORDED1 ? entry | ENTRY_COPIED : entry & ~ENTRY_COPIED;
}

static int copied_in_l2(struct repair *r, const struct check *c, uint64_t off)
{
	unsigned int words = entry_words(r->q);
	int err = file_read(r->q->file, r->table, r->q->cluster_size, off, 0);

	if (err)
		return err == -ENOMEM ? err : 0;
	for (uint64_t i = 0; i < r->q->cluster_size / 8 && !err; i += words) {
		uint64_t entry = be64toh(r->table[i]), fixed;

		if (entry & L2E_COMPRESSED)
			continue;
		fixed = with_right_flag(c, entry, entry & L2E_OFFSET_MASK);
		if (fixed != entry)
			err = overlay_put64(&r->o, off + i * 8, fixed, PATCH_L2);
	}
	return err;
}

int repair_copied(struct repair *r, const struct check *c)
{
	uint32_t entries = r->q->hdr.l1_size;
	uint64_t l1_off = r->q->hdr.l1_offset;
	uint64_t *l1;
	int err = read_l1(r, l1_off, entries, &l1);

	for (uint32_t i = 0; i < entries && !err; i++) {
		uint64_t entry = be64toh(l1[i]), off = entry & L1E_OFFSET_MASK;
		uint64_t fixed = with_right_flag(c, entry, off);

		if (fixed != entry)
			err = overlay_put64(&r->o, l1_off + 8ull * i, fixed, PATCH_L1);
		if (!err && !has_data_file(r->q) && off && !in_cluster(r->q, off) &&
		    off / c->cluster_size < c->nr_clusters)
			err = copied_in_l2(r, c, off);
	}
	free(l1);
	return err;
}
