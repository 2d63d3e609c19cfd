/* SPDX-License-Identifier: MIT */
/*
 * The mapping by L1 and L2 tables: lookup, allocation and unmapping. Entries may be of any kind
 * that QEMU writes: data, zero (with or without a cluster), compressed, shared. All kinds can
 * be read. Data is written only into data clusters with refcount one; other clusters are
 * replaced first:
 *
 * 1. Clusters that read as zeroes are replaced by allocated clusters that read as zeroes, a whole
 *    run at once up to the limit.
 * 2. Compressed and shared clusters are copied one by one.
 * 3. Tables are changed in the cache. Everything that a change needs (tables, room on the list of
 *    deferred frees) is acquired before the first entry changes, so a failure changes nothing.
 *
 * All under q->lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "plant.h"

#define CHUNK_CLUSTERS 65536u /* allocated at once: 512 KiB of L2 entries */

/* The number of bits of a compressed entry's offset; the bits above hold the number of sectors. */
static unsigned int compressed_offset_bits(const struct qcow2 *q)
{
	return 62 - (q->cluster_bits - 8);
}

struct mapping map_decode(const struct qcow2 *q, uint64_t l2e)
{
	struct mapping m = { .copied = l2e & ENTRY_COPIED };

	if (l2e & L2E_COMPRESSED) {
		unsigned int bits = compressed_offset_bits(q);
		uint64_t sectors = (l2e & (L2E_COMPRESSED - 1)) >> bits;

		m.kind = CLUSTER_COMPRESSED;
		m.host = l2e & ((1ull << bits) - 1);
		m.length = (sectors + 1) * 512 - m.host % 512;
		return m;
	}
	m.host = l2e & L2E_OFFSET_MASK;
	if (l2e & L2E_ZERO && q->info.version >= 3)
		m.kind = CLUSTER_ZERO;
	else
		m.kind = m.host ? CLUSTER_DATA : CLUSTER_UNALLOCATED;
	return m;
}

static uint64_t l2_entries(const struct qcow2 *q)
{
	return 1ull << q->l2_bits;
}

/* The host clusters that mapping M holds a reference to. */
static void held_clusters(const struct qcow2 *q, const struct mapping *m, uint64_t *first,
			  uint64_t *nr)
{
	*first = cluster_of(q, m->host);
	*nr = m->host ? 1 : 0;
	if (m->kind == CLUSTER_COMPRESSED)
		*nr = cluster_of(q, m->host + m->length - 1) - *first + 1;
}

/* Checks that the cluster of M is aligned and inside the file. 0 or -EIO. */
static int check_place(const struct qcow2 *q, const struct mapping *m)
{
	uint64_t first, nr;

	if (m->kind != CLUSTER_COMPRESSED && in_cluster(q, m->host))
		return -EIO;
	held_clusters(q, m, &first, &nr);
	if (m->kind == CLUSTER_COMPRESSED) /* its last sectors may lie beyond the end of the file */
		return first < q->end_cluster ? 0 : -EIO;
	return first + nr <= q->end_cluster ? 0 : -EIO;
}

/* Gets the L2 table of L1 entry I, pinned; NULL: there is none. */
static int l2_get(struct qcow2 *q, uint64_t i, struct table **out)
{
	uint64_t off;

	*out = NULL;
	if (i >= q->l1.nr)
		return -EIO;
	off = q->l1.entry[i] & L1E_OFFSET_MASK;
	return off ? cache_get(q, off, TABLE_L2, out) : 0;
}

/* Replaces an L2 table that snapshots may share by a copy. */
static int l2_unshare(struct qcow2 *q, uint64_t i, struct table **out)
{
	uint64_t old = q->l1.entry[i] & L1E_OFFSET_MASK, new;
	struct table *from, *to;
	int err;

	err = quarantine_reserve(q, 1);
	if (err)
		return err;
	err = cache_get(q, old, TABLE_L2, &from);
	if (err)
		return err;
	err = alloc_table(q, &new);
	if (!err)
		err = cache_new(q, new, TABLE_L2, &to);
	if (!err)
		memcpy(to->data, from->data, q->cluster_size);
	cache_put(q, from);
	if (err)
		return err;
	toptable_set(&q->l1, i, new | ENTRY_COPIED);
	quarantine_add(q, cluster_of(q, old), 1);
	*out = to;
	return 0;
}

/* Gets the L2 table of L1 entry I to change it: dirty and pinned; created if it is missing. */
static int l2_for_write(struct qcow2 *q, uint64_t i, struct table **out)
{
	uint64_t entry, off;
	int err;

	if (i >= q->l1.nr)
		return -EIO;
	entry = q->l1.entry[i];
	off = entry & L1E_OFFSET_MASK;
	if (off && !(entry & ENTRY_COPIED))
		return l2_unshare(q, i, out);
	if (off) {
		err = cache_get(q, off, TABLE_L2, out);
		if (!err)
			cache_mark(q, *out);
		return err;
	}
	err = alloc_table(q, &off);
	if (err)
		return err;
	err = cache_new(q, off, TABLE_L2, out);
	if (err)
		return err;
	toptable_set(&q->l1, i, off | ENTRY_COPIED);
	return 0;
}

/*
 * Calls EACH on the L2 entry of every cluster in [FIRST, FIRST + NR), until it returns
 * non-zero, and returns that. For a missing L2 table EACH is called once, with NULL and the
 * number of its entries.
 */
typedef int (*each_fn)(struct qcow2 *q, uint64_t *entry, uint64_t nr, void *arg);

static int walk(struct qcow2 *q, uint64_t first, uint64_t nr, bool write, each_fn each, void *arg)
{
	while (nr) {
		uint64_t i = first & (l2_entries(q) - 1), n = l2_entries(q) - i;
		struct table *t;
		int err = write ? l2_for_write(q, first >> q->l2_bits, &t)
				: l2_get(q, first >> q->l2_bits, &t);

		if (err)
			return err;
		if (n > nr)
			n = nr;
		if (!t)
			err = each(q, NULL, n, arg);
		for (uint64_t k = 0; t && k < n && !err; k++)
			err = each(q, &t->data[i + k], 1, arg);
		if (t)
			cache_put(q, t);
		if (err)
			return err;
		first += n;
		nr -= n;
	}
	return 0;
}

#define WALK_STOP 1

struct lookup {
	struct mapping m;
	uint64_t clusters;
};

static int lookup_each(struct qcow2 *q, uint64_t *entry, uint64_t nr, void *arg)
{
	struct lookup *l = arg;
	struct mapping m = map_decode(q, entry ? be64toh(*entry) : 0);
	uint64_t next = l->m.host + (l->clusters << q->cluster_bits);

	if (!l->clusters) {
		int err = check_place(q, &m);

		if (err)
			return err;
		l->m = m;
	} else if (m.kind != l->m.kind || m.kind == CLUSTER_COMPRESSED ||
		   (m.kind == CLUSTER_DATA && ((m.host != next && !plant(lookup_passes_a_jump)) ||
					       m.copied != l->m.copied || check_place(q, &m)))) {
		return WALK_STOP;
	}
	l->clusters += nr;
	return 0;
}

int map_lookup(struct qcow2 *q, uint64_t off, uint64_t len, struct mapping *m, uint64_t *run)
{
	uint64_t head = in_cluster(q, off), first = cluster_of(q, off);
	uint64_t nr = cluster_of(q, off + len - 1) - first + 1;
	struct lookup l = { .clusters = 0 };
	int err;

	if (nr > CHUNK_CLUSTERS)
		nr = CHUNK_CLUSTERS;
	err = walk(q, first, nr, false, lookup_each, &l);
	if (err < 0)
		return err;
	*m = l.m;
	if (m->kind == CLUSTER_DATA)
		m->host += head;
	*run = (l.clusters << q->cluster_bits) - head;
	if (*run > len)
		*run = len;
	return 0;
}

struct allocation {
	uint64_t clusters; /* in a row, that read as zeroes */
	uint64_t zeroes;   /* of them, zero clusters that have a host cluster */
	uint64_t host;	   /* the next host cluster to map */
};

static int count_each(struct qcow2 *q, uint64_t *entry, uint64_t nr, void *arg)
{
	struct mapping m = map_decode(q, entry ? be64toh(*entry) : 0);
	struct allocation *a = arg;

	if (m.kind != CLUSTER_UNALLOCATED && m.kind != CLUSTER_ZERO)
		return WALK_STOP;
	if (check_place(q, &m))
		return -EIO;
	a->zeroes += m.host != 0;
	a->clusters += nr;
	return 0;
}

/* Makes the tables of a range writable; changes no entry. */
static int touch_each(struct qcow2 *q, uint64_t *entry, uint64_t nr, void *arg)
{
	(void)q, (void)entry, (void)nr, (void)arg;
	return 0;
}

static int fill_each(struct qcow2 *q, uint64_t *entry, uint64_t nr, void *arg)
{
	struct mapping m = map_decode(q, be64toh(*entry));
	struct allocation *a = arg;

	(void)nr; /* 1, since the table exists */
	if (m.host)
		quarantine_add(q, cluster_of(q, m.host), 1); /* room was reserved before */
	*entry = htobe64(a->host | ENTRY_COPIED);
	a->host += q->cluster_size;
	return 0;
}

/* Maps NR clusters to HOST and on. Cannot fail: all these tables are dirty, hence in the cache. */
static void fill(struct qcow2 *q, uint64_t first, uint64_t nr, uint64_t host)
{
	struct allocation a = { .host = host };
	int err = walk(q, first, nr, true, fill_each, &a);

	assert(!err);
	(void)err;
	shadow_map(q, first << q->cluster_bits, host, nr << q->cluster_bits);
}

/* Allocates host clusters for clusters that read as zeroes, from FIRST on, at most NR. */
static int allocate_run(struct qcow2 *q, uint64_t first, uint64_t nr, uint64_t *host, uint64_t *got)
{
	struct allocation a = { .clusters = 0 };
	uint64_t where, n;
	int err;

	if (nr > CHUNK_CLUSTERS)
		nr = CHUNK_CLUSTERS;
	err = walk(q, first, nr, false, count_each, &a);
	if (err < 0)
		return err;
	err = quarantine_reserve(q, a.zeroes);
	if (err)
		return err;
	err = walk(q, first, a.clusters, true, touch_each, NULL);
	if (err)
		return err;
	err = alloc_data(q, 1, a.clusters, &where, &n);
	if (err)
		return err;
	fill(q, first, n, where);
	*host = where;
	*got = n;
	return 0;
}

int map_commit(struct qcow2 *q, uint64_t first, uint64_t nr, uint64_t host)
{
	struct allocation a = { .clusters = 0 };
	int err = walk(q, first, nr, false, count_each, &a);

	if (err < 0)
		return err;
	if (a.clusters < nr || a.zeroes)
		return -EEXIST;
	err = walk(q, first, nr, true, touch_each, NULL);
	if (!err && !plant(committed_not_counted))
		err = ref_adjust(q, cluster_of(q, host), nr, true);
	if (!err)
		fill(q, first, nr, host);
	return err;
}

static int replace_each(struct qcow2 *q, uint64_t *entry, uint64_t nr, void *arg)
{
	(void)q, (void)nr;
	*entry = htobe64(*(uint64_t *)arg | ENTRY_COPIED);
	return 0;
}

/* Copies a compressed or shared cluster into a new host cluster and maps that. */
static int copy_cluster(struct qcow2 *q, uint64_t cluster, const struct mapping *old,
			uint64_t *host)
{
	uint64_t where, n, first, nr;
	void *buf;
	int err;

	err = quarantine_reserve(q, 1);
	if (err)
		return err;
	err = walk(q, cluster, 1, true, touch_each, NULL);
	if (err)
		return err;
	buf = malloc(q->cluster_size);
	if (!buf)
		return -ENOMEM;
	if (old->kind == CLUSTER_COMPRESSED)
		err = compressed_read(q, old, buf);
	else
		err = file_read(q->file, buf, q->cluster_size, old->host, 0);
	if (!err)
		err = alloc_data(q, 1, 1, &where, &n);
	if (!err) {
		err = file_write(q->file, buf, q->cluster_size, where, FILE_DATA);
		q->meta_unsynced = true;
		q->barrier_due =
			true; /* the copied data must be durable before a table refers to it */
		held_clusters(q, old, &first, &nr);
		if (err) { /* it was counted, but is not mapped: free it */
			first = cluster_of(q, where);
			nr = 1;
		}
		quarantine_add(q, first, nr);
	}
	free(buf);
	if (err)
		return err;
	*host = where;
	shadow_map(q, cluster << q->cluster_bits, where, q->cluster_size);
	return walk(q, cluster, 1, true, replace_each, &where);
}

int map_for_write(struct qcow2 *q, uint64_t off, uint64_t len, uint64_t limit, uint64_t *host,
		  uint64_t *run)
{
	uint64_t head = in_cluster(q, off), first = cluster_of(q, off), where, n;
	struct mapping m;
	int err = map_lookup(q, off, len, &m, run);

	if (err)
		return err;
	if (m.kind == CLUSTER_DATA && m.copied) {
		/* Refuse to write through an entry that points into metadata. */
		if (alloc_overlaps_meta(q, m.host - head, align_up(head + *run, q->cluster_size)))
			return -EIO;
		*host = m.host;
		return 0;
	}
	if (m.kind == CLUSTER_DATA || m.kind == CLUSTER_COMPRESSED) {
		if (m.kind == CLUSTER_DATA)
			m.host -= head;
		n = 1;
		err = copy_cluster(q, first, &m, &where);
	} else {
		err = allocate_run(q, first, cluster_of(q, limit - 1) - first + 1, &where, &n);
	}
	if (err)
		return err;
	*host = where + head;
	*run = (n << q->cluster_bits) - head;
	return 0;
}

int map_entry(struct qcow2 *q, uint64_t cluster, struct mapping *m)
{
	struct table *t;
	int err = l2_get(q, cluster >> q->l2_bits, &t);

	if (err)
		return err;
	*m = map_decode(q, t ? be64toh(t->data[cluster & (l2_entries(q) - 1)]) : 0);
	if (t)
		cache_put(q, t);
	return check_place(q, m) ? -EINVAL : 0;
}

int map_set(struct qcow2 *q, uint64_t cluster, uint64_t host, bool *changed, struct run *old)
{
	const uint64_t want = host ? host | ENTRY_COPIED : 0, i = cluster & (l2_entries(q) - 1);
	struct mapping m;
	struct table *t;
	uint64_t have;
	int err = l2_get(q, cluster >> q->l2_bits, &t);

	*old = (struct run){ .nr = 0 };
	if (err)
		return err;
	have = t ? be64toh(t->data[i]) : 0;
	if (t)
		cache_put(q, t);
	if (have == want)
		return 0;
	err = quarantine_reserve(q, 1);
	if (!err)
		err = l2_for_write(q, cluster >> q->l2_bits, &t);
	if (err)
		return err;
	m = map_decode(q, have);
	held_clusters(q, &m, &old->first, &old->nr);
	t->data[i] = htobe64(want);
	cache_put(q, t);
	*changed = true;
	return 0;
}

struct unmapping {
	uint64_t entries; /* that are not zero */
	uint64_t runs;	  /* of them, those that hold host clusters */
};

static int survey_each(struct qcow2 *q, uint64_t *entry, uint64_t nr, void *arg)
{
	struct unmapping *u = arg;
	struct mapping m;

	(void)nr;
	if (!entry || !*entry)
		return 0;
	m = map_decode(q, be64toh(*entry));
	u->entries++;
	u->runs += m.host != 0;
	return check_place(q, &m);
}

static int unmap_each(struct qcow2 *q, uint64_t *entry, uint64_t nr, void *arg)
{
	struct mapping m = map_decode(q, be64toh(*entry));
	uint64_t first, held;

	(void)nr, (void)arg;
	held_clusters(q, &m, &first, &held);
	if (held)
		quarantine_add(q, first, held); /* room was reserved before */
	if (!plant(reset_leaves_the_map))
		*entry = 0;
	return 0;
}

/* Checks that the clusters of one L2 table can be unmapped; makes the table dirty if it has any. */
static int prepare_unmap(struct qcow2 *q, uint64_t first, uint64_t nr, uint64_t *runs)
{
	struct unmapping u = { .entries = 0 };
	int err = walk(q, first, nr, false, survey_each, &u);

	if (err || !u.entries)
		return err;
	*runs += u.runs;
	return walk(q, first, nr, true, touch_each, NULL);
}

/* Cannot fail: tables that are not dirty had nothing to unmap, the others are in the cache. */
static int do_unmap(struct qcow2 *q, uint64_t first, uint64_t nr)
{
	uint64_t l2 = q->l1.entry[first >> q->l2_bits] & L1E_OFFSET_MASK;

	return l2 && cache_is_dirty(q, l2) ? walk(q, first, nr, true, unmap_each, NULL) : 0;
}

int map_unmap(struct qcow2 *q, uint64_t off, uint64_t end)
{
	uint64_t first = cluster_of(q, align_up(off, q->cluster_size));
	uint64_t last = cluster_of(q, align_up(end, q->cluster_size));
	uint64_t runs = 0;
	int err;

	for (int act = 0; act < 2; act++) {
		for (uint64_t c = first, n; c < last; c += n) {
			n = l2_entries(q) - (c & (l2_entries(q) - 1));
			if (n > last - c)
				n = last - c;
			err = act ? do_unmap(q, c, n) : prepare_unmap(q, c, n, &runs);
			if (err)
				return err;
		}
		err = act ? 0 : quarantine_reserve(q, runs);
		if (err)
			return err;
	}
	return 0;
}

int qcow2_map(struct qcow2 *q, uint64_t off, uint64_t len, struct qcow2_extent *out)
{
	struct mapping m;
	uint64_t run;
	int err;

	if (!len || off >= q->info.size || len > q->info.size - off)
		return -EINVAL;
	if (q->info.extended_l2)
		return -ENOTSUP;
	pthread_mutex_lock(&q->lock);
	err = map_lookup(q, off, len, &m, &run);
	pthread_mutex_unlock(&q->lock);
	if (err)
		return err;
	out->len = run;
	out->allocated = m.kind != CLUSTER_UNALLOCATED;
	out->zero = m.kind == CLUSTER_ZERO || m.kind == CLUSTER_UNALLOCATED;
	out->compressed = m.kind == CLUSTER_COMPRESSED;
	out->host_off = m.kind == CLUSTER_DATA ? m.host : 0;
	return 0;
}
