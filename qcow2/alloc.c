/* SPDX-License-Identifier: MIT */
/*
 * Where clusters come from and where they go.
 *
 * 1. Truth is in the refcounts. The pool of free runs is a memory aid of bounded size: every run
 *    taken from it is checked against the refcounts and against the metadata's own places first,
 *    so a stale or lying entry costs time, never data.
 * 2. Data clusters read as zeroes when handed out: new space at the end of the file (made long at
 *    once, so that no mapping ever points past its end), or zeroed before reuse. But whoever fills
 *    whole clusters before they are mapped can have them as they are (loan.c).
 * 3. Clusters that were unmapped go to quarantine. Only quarantine_release(), after the flush has
 *    made the unmapping durable, lowers their counts and gives them back. When many wait there,
 *    quarantine_crowded() has an allocation flush first, lest the file grow without bound where
 *    zones are reset and written again and nobody flushes. What is free then goes back to the file
 *    system; in memory it is kept until alloc_trim(), to be written into again, and zeroed by pieces.
 * 4. A zone's worth of clusters is wanted in one piece, so a much smaller piece is passed over in
 *    favour of the end of the file, and tables do not nibble at large pieces.
 *
 * Free clusters of earlier sessions are found by a scan, a few refcount blocks an allocation, once
 * through the file; so opening costs nothing however large the image.
 *
 * All under q->lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "plant.h"

#define POOL_RUNS      256u
#define SCAN_BYTES     (256u << 10) /* of refcount blocks looked at per allocation */
#define TABLE_RUN      64u	    /* tables come out of runs up to this long */
#define FEWEST	       8u	    /* 1/8 of what was wanted is still a good piece */
#define PIECE_BYTES    (4u << 20)   /* in memory: allocated in one go, or this part of a zone: */
#define PIECES	       64u
#define TRIM_BYTES     (64u << 20) /* given back in one go, under the lock: some milliseconds */
#define END_SKIP_LIMIT (1u << 22)  /* clusters counted beyond the end of the file: corrupt */
#define MAX_QUARANTINE                                                                             \
	(256ull << 20) /* bytes: a flush for each of these costs little beside them */

int alloc_init(struct qcow2 *q)
{
	q->end_cluster = cluster_of(q, align_up(q->file_len, q->cluster_size));
	q->scan_end = q->end_cluster;
	q->pool = malloc(POOL_RUNS * sizeof(*q->pool));
	return q->pool ? 0 : -ENOMEM;
}

static bool overlaps(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

static bool toptable_points_into(const struct toptable *t, uint64_t mask, uint64_t host,
				 uint64_t len)
{
	for (uint32_t i = 0; i < t->used; i++) {
		uint64_t off = t->entry[i] & mask;

		if (off && off - host < len)
			return true;
	}
	return false;
}

bool alloc_overlaps_meta(const struct qcow2 *q, uint64_t host, uint64_t len)
{
	const struct qcow2_zoned *z = &q->info.zoned;

	return overlaps(host, len, 0, q->cluster_size) ||
	       overlaps(host, len, q->hdr.l1_offset, 8 * (uint64_t)q->hdr.l1_size) ||
	       overlaps(host, len, q->reftable.off,
			(uint64_t)q->hdr.reftable_clusters << q->cluster_bits) ||
	       (z->layout && overlaps(host, len, z->zonedmeta_offset, 8 * (uint64_t)z->nr_zones)) ||
	       toptable_points_into(&q->reftable, REFTABLE_OFFSET_MASK, host, len) ||
	       toptable_points_into(&q->l1, L1E_OFFSET_MASK, host, len);
}

/* Gives the space of free clusters back to the file system. */
static int discard(struct qcow2 *q, uint64_t first, uint64_t nr)
{
	loans_gone(q, first, nr);
	return file_discard(q->file, first << q->cluster_bits, nr << q->cluster_bits);
}

static void pool_remove(struct qcow2 *q, uint32_t i)
{
	q->pool[i] = q->pool[--q->nr_pool];
}

static void pool_add(struct qcow2 *q, uint64_t first, uint64_t nr, bool zeroed)
{
	struct run new = { first, nr, zeroed };
	uint32_t smallest = 0;

	for (uint32_t i = 0; i < q->nr_pool;) {
		struct run *r = &q->pool[i];

		if (!zeroed && overlaps(r->first, r->nr, first, nr))
			r->zeroed = false;
		if (r->zeroed == zeroed && r->first + r->nr == new.first) {
			new.first = r->first;
			new.nr += r->nr;
			pool_remove(q, i);
		} else if (r->zeroed == zeroed && new.first + new.nr == r->first) {
			new.nr += r->nr;
			pool_remove(q, i);
		} else {
			i++;
		}
	}
	if (q->nr_pool < POOL_RUNS) {
		q->pool[q->nr_pool++] = new;
		return;
	}
	for (uint32_t i = 1; i < q->nr_pool; i++)
		if (q->pool[i].nr < q->pool[smallest].nr)
			smallest = i;
	if (q->pool[smallest].nr < new.nr)
		q->pool[smallest] = new;
}

enum choice {
	ANY,
	CHOOSY, /* rather none than too small a part, or a table out of a large one */
	STALE,	/* of what is not known to read as zeroes */
};

/* Other entries may name these clusters, too. */
static void pool_forget(struct qcow2 *q, uint64_t first, uint64_t nr)
{
	for (uint32_t i = 0; i < q->nr_pool;) {
		struct run r = q->pool[i];

		if (!overlaps(r.first, r.nr, first, nr)) {
			i++;
			continue;
		}
		pool_remove(q, i);
		if (r.first < first)
			pool_add(q, r.first, first - r.first, r.zeroed);
		if (r.first + r.nr > first + nr)
			pool_add(q, first + nr, r.first + r.nr - first - nr, r.zeroed);
		i = 0;
	}
}

/* The best run for MIN to MAX clusters: the smallest that holds all, else the largest. */
static int pool_best(const struct qcow2 *q, uint64_t min, uint64_t max, enum choice choice)
{
	bool choosy = choice == CHOOSY;
	uint64_t fewest = choosy && max / FEWEST > min ? max / FEWEST : min;
	int best = -1;

	for (uint32_t i = 0; i < q->nr_pool; i++) {
		const struct run *r = &q->pool[i], *b = best < 0 ? NULL : &q->pool[best];

		if (r->nr < fewest || (choosy && max == 1 && r->nr > TABLE_RUN) ||
		    (choice == STALE && r->zeroed))
			continue;
		if (!b || (b->nr < max && r->nr > b->nr) || (r->nr >= max && r->nr < b->nr))
			best = i;
	}
	return best;
}

/* Takes a run out of the pool, verified free. *NR 0: the pool has none that suits. */
static int pool_take(struct qcow2 *q, uint64_t min, uint64_t max, enum choice choice,
		     struct run *out)
{
	int i;

	out->nr = 0;
	while ((i = pool_best(q, min, max, choice)) >= 0) {
		struct run r = q->pool[i];
		uint64_t want = r.nr < max ? r.nr : max, len;
		bool is_free;
		int err = ref_run(q, r.first, want, &is_free, &len);

		if (err)
			return err;
		pool_remove(q, i);
		if (!is_free || len < want ||
		    alloc_overlaps_meta(q, r.first << q->cluster_bits, want << q->cluster_bits)) {
			/* What follows the bad part may still do; not that part again, or we loop. */
			uint64_t bad = is_free && len < want ? len + 1 : len;

			if (bad < r.nr)
				pool_add(q, r.first + bad, r.nr - bad, r.zeroed);
			if (bad > len && len >= min)
				pool_add(q, r.first, len, r.zeroed);
			continue;
		}
		if (want < r.nr)
			pool_add(q, r.first + want, r.nr - want, r.zeroed);
		*out = r;
		out->nr = want;
		return 0;
	}
	return 0;
}

/* Looks at a few more refcount blocks for clusters that were free when we came. */
static int scan_some(struct qcow2 *q)
{
	uint64_t per_block = 1ull << q->refblock_bits;

	for (unsigned int n = 0; n <= SCAN_BYTES >> q->cluster_bits && q->scan_pos < q->scan_end;
	     n++) {
		uint64_t i = q->scan_pos >> q->refblock_bits, end = (i + 1) * per_block;

		if (end > q->scan_end)
			end = q->scan_end;
		if (i >= q->reftable.nr) {
			q->scan_pos = q->scan_end;
			break;
		}
		/* What no block describes is left alone: it may be anything. */
		if (!(q->reftable.entry[i] & REFTABLE_OFFSET_MASK))
			q->scan_pos = end;
		while (q->scan_pos < end) {
			uint64_t len;
			bool is_free;
			int err = ref_run(q, q->scan_pos, end - q->scan_pos, &is_free, &len);

			if (err)
				return err;
			if (is_free)
				pool_add(q, q->scan_pos, len, false);
			q->scan_pos += len;
		}
	}
	return 0;
}

int alloc_at_end(struct qcow2 *q, uint64_t nr, uint64_t *first)
{
	uint64_t start = q->end_cluster, skipped = 0, len;
	bool is_free;

	/* Clusters that were counted and never written (a crash) may lie past the end: skip. */
	for (;;) {
		int err = ref_run(q, start, nr, &is_free, &len);

		if (err)
			return err;
		if (is_free && len == nr)
			break;
		if (!is_free) /* all of them at once: there may be millions */
			err = ref_run(q, start, END_SKIP_LIMIT, &is_free, &len);
		if (err)
			return err;
		start += len;
		skipped += len;
		if (skipped > END_SKIP_LIMIT)
			return -EIO;
	}
	if (nr > MAX_HOST_OFFSET >> q->cluster_bits ||
	    start > (MAX_HOST_OFFSET >> q->cluster_bits) - nr)
		return -ENOSPC;
	q->end_cluster = start + nr;
	*first = start;
	return 0;
}

/* Makes the file as long as what is in use. */
static int extend_file(struct qcow2 *q)
{
	uint64_t len = q->end_cluster << q->cluster_bits;
	int err;

	if (len <= q->file_len || plant(file_not_extended))
		return 0;
	err = file_truncate(q->file, len);
	if (err)
		return err;
	q->file_len = len;
	q->meta_unsynced = true;
	return 0;
}

/* Takes a run at the end of the file, of MAX clusters or, if they do not fit, of MIN. */
static int take_at_end(struct qcow2 *q, uint64_t min, uint64_t max, struct run *out)
{
	uint64_t before = q->end_cluster;
	int err;

	for (;;) {
		err = alloc_at_end(q, max, &out->first);
		if (!err) {
			out->nr = max;
			out->zeroed = true;
			err = extend_file(q);
		}
		if (!err)
			return 0;
		q->end_cluster = before;
		if (err != -ENOSPC || max == min)
			return err;
		max = min;
	}
}

static int take(struct qcow2 *q, uint64_t min, uint64_t max, struct run *out)
{
	int err = pool_take(q, min, max, CHOOSY, out);

	if (err || out->nr)
		return err;
	if (q->scan_pos < q->scan_end) {
		err = scan_some(q);
		if (!err)
			err = pool_take(q, min, max, CHOOSY, out);
		if (err || out->nr)
			return err;
	}
	err = take_at_end(q, min, max, out);
	if (err != -ENOSPC)
		return err;
	err = pool_take(q, min, max, ANY, out);
	if (err)
		return err;
	return out->nr ? 0 : -ENOSPC;
}

/*
 * In memory no more is allocated than is soon written: what lies together is worth little there, zeroing
 * is work, and what comes next may be adopted (loan.c).
 */
static uint64_t piece(const struct qcow2 *q)
{
	uint64_t bytes = q->info.zoned.zone_size / PIECES;

	return (bytes > PIECE_BYTES ? bytes : PIECE_BYTES) >> q->cluster_bits;
}

int alloc_data(struct qcow2 *q, uint64_t min, uint64_t max, uint64_t *host, uint64_t *nr)
{
	struct run r;
	int err;

	if (q->file->in_memory && max > piece(q))
		max = piece(q) > min ? piece(q) : min;
	err = take(q, min, max, &r);
	if (err)
		return err;
	if (!r.zeroed && !plant(recycled_without_zeroing)) {
		err = file_zero(q->file, r.first << q->cluster_bits, r.nr << q->cluster_bits);
		q->meta_unsynced |= !plant(zeroing_not_synced);
	}
	if (!err)
		err = ref_adjust(q, r.first, r.nr, true);
	if (err) {
		pool_add(q, r.first, r.nr, r.zeroed);
		return err;
	}
	*host = r.first << q->cluster_bits;
	*nr = r.nr;
	return 0;
}

int alloc_stale(struct qcow2 *q, uint64_t max, struct run *out)
{
	int err;

	out->nr = 0;
	if (q->scan_pos < q->scan_end && !plant(lent_while_scanned))
		return scan_some(q);
	err = pool_take(q, 1, max, STALE, out);
	if (!err && out->nr && !plant(stale_twice))
		pool_forget(q, out->first, out->nr);
	return err;
}

void alloc_stale_back(struct qcow2 *q, const struct run *r)
{
	pool_add(q, r->first, r->nr, false);
}

/* Whether R, which the pool names no more, or a part of it was free, and is in it again, discarded. */
static bool trim_run(struct qcow2 *q, struct run r)
{
	bool any = false, is_free;
	uint64_t len;

	for (; r.nr; r.first += len, r.nr -= len) {
		if (ref_run(q, r.first, r.nr, &is_free, &len))
			break;
		if ((!is_free && !plant(trim_believes_the_pool)) ||
		    alloc_overlaps_meta(q, r.first << q->cluster_bits, len << q->cluster_bits) ||
		    discard(q, r.first, len))
			continue;
		pool_add(q, r.first, len, true);
		any = true;
	}
	return any;
}

bool alloc_trim(struct qcow2 *q)
{
	const uint64_t most = TRIM_BYTES >> q->cluster_bits;

	for (uint32_t i = 0; i < q->nr_pool;) {
		struct run r = q->pool[i];

		if (r.zeroed) {
			i++;
			continue;
		}
		pool_remove(q, i);
		if (r.nr > most) {
			pool_add(q, r.first + most, r.nr - most, false);
			r.nr = most;
		}
		if (trim_run(q, r))
			return true;
		i = 0;
	}
	return false;
}

int alloc_raw_table(struct qcow2 *q, uint64_t *host)
{
	struct run r;
	int err = take(q, 1, 1, &r);

	if (!err) {
		*host = r.first << q->cluster_bits;
		shadow_spare(q, *host, q->cluster_size);
	}
	return err;
}

int alloc_table(struct qcow2 *q, uint64_t *host)
{
	uint64_t off;
	int err = alloc_raw_table(q, &off);

	if (!err && !plant(table_not_counted))
		err = ref_adjust(q, cluster_of(q, off), 1, true);
	if (!err)
		*host = off;
	return err;
}

int quarantine_reserve(struct qcow2 *q, size_t n)
{
	size_t cap = q->cap_quarantine ? q->cap_quarantine : 64;
	struct run *p;

	while (cap < q->nr_quarantine + n)
		cap *= 2;
	if (cap == q->cap_quarantine)
		return 0;
	p = realloc(q->quarantine, cap * sizeof(*p));
	if (!p)
		return -ENOMEM;
	q->quarantine = p;
	q->cap_quarantine = cap;
	return 0;
}

int quarantine_add(struct qcow2 *q, uint64_t first, uint64_t nr)
{
	struct run *last = q->nr_quarantine ? &q->quarantine[q->nr_quarantine - 1] : NULL;
	int err;

	if (last && last->first + last->nr == first) {
		last->nr += nr;
		q->quarantined += nr;
		return 0;
	}
	err = quarantine_reserve(q, 1);
	if (err)
		return err;
	q->quarantine[q->nr_quarantine++] = (struct run){ first, nr, false };
	q->quarantined += nr;
	atomic_store_explicit(&q->meta_dirty, true, memory_order_relaxed);
	return plant(no_quarantine) ? quarantine_release(q) : 0;
}

/* Clusters are free now. Whether they read as zeroes: in memory they are kept, if the pool has room. */
static bool give_up(struct qcow2 *q, uint64_t first, uint64_t nr)
{
	if (q->file->in_memory && q->nr_pool < POOL_RUNS)
		return false;
	return !discard(q, first, nr);
}

/* Lowers the counts of a run and gives back what is free then; returns what it did. */
static int release_piece(struct qcow2 *q, uint64_t first, uint64_t nr, uint64_t *done)
{
	bool is_free;
	int err = ref_run(q, first, nr, &is_free, &nr);

	if (err)
		return err;
	*done = nr;
	/* A count of 0 already, or a place of ours: the image lies, and we touch nothing. */
	if (is_free || alloc_overlaps_meta(q, first << q->cluster_bits, nr << q->cluster_bits))
		return 0;
	err = ref_adjust(q, first, plant(release_forgets_one) ? nr - 1 : nr, false);
	if (err)
		return err;
	for (uint64_t i = 0; i < nr;) {
		uint64_t len;

		err = ref_run(q, first + i, nr - i, &is_free, &len);
		if (err)
			return err;
		if (is_free) {
			pool_add(q, first + i, len, give_up(q, first + i, len));
		}
		i += len;
	}
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

int quarantine_release(struct qcow2 *q)
{
	/* What lies side by side comes together again, and the pool has to know fewer pieces. */
	qsort(q->quarantine, q->nr_quarantine, sizeof(*q->quarantine), by_place);
	while (q->nr_quarantine) {
		struct run *r = &q->quarantine[q->nr_quarantine - 1];

		while (r->nr) {
			uint64_t done = 0;
			int err = release_piece(q, r->first, r->nr, &done);

			if (err)
				return err;
			r->first += done;
			r->nr -= done;
			q->quarantined -= done;
		}
		q->nr_quarantine--;
	}
	return 0;
}

bool quarantine_crowded(const struct qcow2 *q)
{
	return q->quarantined << q->cluster_bits > MAX_QUARANTINE;
}
