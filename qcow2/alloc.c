/* SPDX-License-Identifier: MIT */
/*
 * Allocates and frees clusters.
 *
 * 1. The refcounts decide which clusters are free. q->free is a bounded set of free clusters
 *    (freeset.c), a cache: a run taken from it is checked against the refcounts and the places of
 *    the metadata first, so a wrong entry, in an image that lies, costs time, never data.
 * 2. Data clusters read as zeroes when they are allocated: they are new space at the end of the
 *    file (which is extended at once, so that no mapping points beyond its end), or were zeroed
 *    before reuse. Whoever fills whole clusters before they are mapped may have recycled ones
 *    (reserve.c).
 * 3. Clusters that are unmapped go to quarantine, the list of deferred frees: a flush that begins
 *    then frees them when it has made the unmapping durable. Those that were allocated since the
 *    last flush began are not named in the file, and free at once: they go to q->dead. Only
 *    runs_drop() frees: it discards, which takes time, without the lock, and then lowers refcounts
 *    and adds to q->free. On a tmpfs and with O_DIRECT the space is kept, as recycled, until
 *    alloc_trim(). When much is deferred a flush is due, but new clusters come from elsewhere; only
 *    when it is more than MOST_BYTES does an allocation wait for a flush.
 * 4. A zone should be one contiguous run, so a run that is much smaller than wanted is passed over
 *    in favour of the end of the file, and tables are not taken from large runs.
 * 5. Every loop over q->free removes clusters from it, or makes recycled ones zeroed, in each turn.
 *    No cluster is in the set twice, so no turn undoes another, and the loop ends.
 *
 * Free clusters of earlier sessions are found by a scan, a few refcount blocks per allocation, once
 * through the file; so opening an image costs nothing, however large it is.
 *
 * All under q->lock, which runs_drop() releases meanwhile.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "plant.h"

#define SCAN_BYTES     (256u << 10) /* of refcount blocks looked at per allocation */
#define TABLE_RUN      64u	    /* tables come out of runs up to this long */
#define FEWEST	       8u	    /* 1/8 of what was wanted is still a good piece */
#define PIECE_BYTES    (4u << 20)   /* on a tmpfs: allocated in one go, or this part of a zone: */
#define PIECES	       64u
#define DIRECT_BYTES   (64u << 20)  /* the same with O_DIRECT */
#define DISCARD_BYTES  (16u << 20)  /* in one go: writes to the file wait some milliseconds */
#define TRIM_BYTES     (64u << 20)  /* given back in one go, under the lock: some milliseconds */
#define END_SKIP_LIMIT (1u << 22)   /* clusters counted beyond the end of the file: corrupt */
#define DUE_BYTES      (256u << 20) /* in quarantine: a flush should free them */
#define MOST_BYTES     (4ull << 30) /* and here whoever allocates waits for one */

void alloc_init(struct qcow2 *q)
{
	q->end_cluster = cluster_of(q, align_up(q->file_len, q->cluster_size));
	q->scan_end = q->end_cluster;
	q->free.nr = 0;
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

/* Returns the space of free clusters to the file system. 0 or -errno. */
static int discard(struct qcow2 *q, uint64_t first, uint64_t nr)
{
	resident_forget(q, first, nr);
	return file_discard(q->file, first << q->cluster_bits, nr << q->cluster_bits);
}

enum choice {
	ANY,
	CHOOSY,	  /* returns no small part of what is wanted, and cuts no large run for a table */
	RECYCLED, /* only clusters that may hold old data */
};

static int best_run(const struct qcow2 *q, uint64_t min, uint64_t max, enum choice choice)
{
	bool choosy = choice == CHOOSY;

	return freeset_best(&q->free, choosy && max / FEWEST > min ? max / FEWEST : min, max,
			    choosy && max == 1 ? TABLE_RUN : UINT64_MAX, choice == RECYCLED);
}

/*
 * Takes a run out of q->free, verified by the refcounts. *OUT nr 0: there is none that suits. Each
 * turn removes at least one cluster from the set for good.
 */
static int take_known(struct qcow2 *q, uint64_t min, uint64_t max, enum choice choice,
		      struct run *out)
{
	int i;

	out->nr = 0;
	while ((i = best_run(q, min, max, choice)) >= 0) {
		struct run r = q->free.run[i];
		uint64_t len;
		bool is_free;
		int err;

		if (r.nr > max)
			r.nr = max;
		err = ref_run(q, r.first, r.nr, &is_free, &len);
		if (err)
			return err;
		if (is_free && len == r.nr &&
		    !alloc_overlaps_meta(q, r.first << q->cluster_bits, len << q->cluster_bits)) {
			freeset_remove(&q->free, r);
			*out = r;
			return 0;
		}
		/* Remove what is unusable: the part in use, or the cluster behind the free part. */
		if (is_free && len < r.nr) {
			r.first += len;
			r.nr = 1;
		} else {
			r.nr = len;
		}
		freeset_remove(&q->free, r);
	}
	return 0;
}

/* Scans a few more refcount blocks for clusters that were free when the image was opened. */
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
				freeset_add_new(&q->free, (struct run){ q->scan_pos, len, false });
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
	int err = take_known(q, min, max, CHOOSY, out);

	if (err || out->nr)
		return err;
	if (q->scan_pos < q->scan_end) {
		err = scan_some(q);
		if (!err)
			err = take_known(q, min, max, CHOOSY, out);
		if (err || out->nr)
			return err;
	}
	err = take_at_end(q, min, max, out);
	if (err != -ENOSPC)
		return err;
	err = take_known(q, min, max, ANY, out);
	if (err)
		return err;
	return out->nr ? 0 : -ENOSPC;
}

bool alloc_keeps(const struct qcow2 *q)
{
	return q->file->in_memory || q->file->direct;
}

/*
 * Returns the most clusters to allocate at once. On a tmpfs no more is allocated than will soon
 * be written: adjacent clusters gain little there, zeroing takes time, and the next write may be
 * received into reserved clusters (reserve.c). With O_DIRECT it is bounded because it takes
 * space at once.
 */
static uint64_t piece(const struct qcow2 *q)
{
	uint64_t bytes = q->info.zoned.zone_size / PIECES;
	uint64_t least = q->file->in_memory ? PIECE_BYTES : DIRECT_BYTES;

	if (!alloc_keeps(q))
		return UINT64_MAX;
	return (bytes > least ? bytes : least) >> q->cluster_bits;
}

/*
 * Makes the clusters of R read as zeroes. With O_DIRECT, also gives space to those that do already:
 * a direct write to a hole would have to wait until the file system allocates it. 0 or -errno.
 */
static int zero_run(struct qcow2 *q, const struct run *r)
{
	if (r->zeroed ? !q->file->direct : plant(recycled_without_zeroing))
		return 0;
	q->meta_unsynced |= !r->zeroed && !plant(zeroing_not_synced);
	return file_zero(q->file, r->first << q->cluster_bits, r->nr << q->cluster_bits);
}

int alloc_data(struct qcow2 *q, uint64_t min, uint64_t max, uint64_t *host, uint64_t *nr)
{
	struct run r;
	int err;

	if (max > piece(q))
		max = piece(q) > min ? piece(q) : min;
	err = take(q, min, max, &r);
	if (err)
		return err;
	err = zero_run(q, &r);
	if (!err)
		err = ref_adjust(q, r.first, r.nr, true);
	if (err) {
		freeset_add(&q->free, r);
		return err;
	}
	freeset_add(&q->unrecorded, (struct run){ r.first, r.nr, false });
	*host = r.first << q->cluster_bits;
	*nr = r.nr;
	return 0;
}

int alloc_recycled(struct qcow2 *q, uint64_t max, struct run *out)
{
	int err;

	out->nr = 0;
	/* The scan would find the clusters again: they are free by their refcounts. */
	if (q->scan_pos < q->scan_end && !plant(reserved_while_scanned))
		return scan_some(q);
	err = take_known(q, 1, max, RECYCLED, out);
	if (!err && plant(recycled_twice))
		freeset_add(&q->free, *out);
	return err;
}

void alloc_recycled_back(struct qcow2 *q, const struct run *r)
{
	freeset_add(&q->free, (struct run){ r->first, r->nr, false });
}

/* Discards those clusters of R, which is out of q->free, that are free, and adds them; how many. */
static uint64_t trim_run(struct qcow2 *q, struct run r)
{
	uint64_t len, done = 0;
	bool is_free;

	for (; r.nr; r.first += len, r.nr -= len) {
		if (ref_run(q, r.first, r.nr, &is_free, &len))
			break;
		if ((!is_free && !plant(trim_believes_the_set)) ||
		    alloc_overlaps_meta(q, r.first << q->cluster_bits, len << q->cluster_bits) ||
		    discard(q, r.first, len))
			continue;
		freeset_add(&q->free, (struct run){ r.first, len, true });
		done += len;
	}
	return done;
}

uint64_t alloc_trim(struct qcow2 *q)
{
	const uint64_t most = TRIM_BYTES >> q->cluster_bits;
	uint64_t done = 0;
	int i;

	/* Each turn takes recycled clusters out of the set, and puts back zeroed ones at most. */
	while (!done && (i = freeset_best(&q->free, 1, UINT64_MAX, UINT64_MAX, true)) >= 0) {
		struct run r = q->free.run[i];

		if (r.nr > most)
			r.nr = most;
		freeset_remove(&q->free, r);
		done = trim_run(q, r);
	}
	return done;
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

/* Makes room for N more runs in LIST. 0 or -ENOMEM. */
static int runs_reserve(struct runs *list, size_t n)
{
	size_t cap = list->cap ? list->cap : 64;
	struct run *p;

	while (cap < list->nr + n)
		cap *= 2;
	if (cap == list->cap)
		return 0;
	p = realloc(list->run, cap * sizeof(*p));
	if (!p)
		return -ENOMEM;
	list->run = p;
	list->cap = cap;
	return 0;
}

/* Appends R to LIST, which has room. */
static void runs_add(struct runs *list, struct run r)
{
	struct run *last = list->nr ? &list->run[list->nr - 1] : NULL;

	if (last && last->first + last->nr == r.first)
		last->nr += r.nr;
	else
		list->run[list->nr++] = r;
}

void runs_move(struct runs *to, struct runs *from)
{
	struct runs empty = *to;

	if (!to->nr) {
		*to = *from;
		*from = empty;
		return;
	}
	if (runs_reserve(to, from->nr))
		return;
	for (size_t i = 0; i < from->nr; i++)
		runs_add(to, from->run[i]);
	from->nr = 0;
}

int quarantine_reserve(struct qcow2 *q, size_t n)
{
	int err = runs_reserve(&q->dead, n);

	return err ? err : runs_reserve(&q->quarantine, n);
}

int quarantine_add(struct qcow2 *q, uint64_t first, uint64_t nr)
{
	struct run r = { first, nr, false };
	int err = quarantine_reserve(q, 1);

	if (err)
		return err;
	if (freeset_has(&q->unrecorded, r) || plant(reset_makes_dead))
		runs_add(&q->dead, r);
	else
		runs_add(&q->quarantine, r);
	q->quarantined += nr;
	atomic_store_explicit(&q->meta_dirty, true, memory_order_relaxed);
	return plant(no_quarantine) ? runs_drop(q, &q->quarantine) : 0;
}

/* How many clusters from FIRST on, at most MAX, have the refcount of the first: *COUNT. */
static int ref_alike(struct qcow2 *q, uint64_t first, uint64_t max, uint64_t *count, uint64_t *len)
{
	uint64_t other;
	int err = ref_get(q, first, count);

	for (*len = 1; !err && *len < max; ++*len) {
		err = ref_get(q, first + *len, &other);
		if (other != *count)
			break;
	}
	return err;
}

/*
 * Discards clusters that nothing refers to any more. That takes time, so q->lock is released.
 * Returns whether they read as zeroes now; the image may keep them as they are.
 */
static bool discard_unlocked(struct qcow2 *q, uint64_t first, uint64_t nr)
{
	uint64_t off = first << q->cluster_bits, len = nr << q->cluster_bits;
	bool keep = alloc_keeps(q) && !freeset_full(&q->free);
	int err;

	if (keep && q->file->in_memory)
		return false;
	resident_forget(q, first, nr);
	pthread_mutex_unlock(&q->lock);
	/*
	 * What is kept is zeroed to drop it from the page cache; alloc_trim() still has to
	 * discard it.
	 */
	err = keep ? file_zero(q->file, off, len) : file_discard(q->file, off, len);
	pthread_mutex_lock(&q->lock);
	return !err && !keep;
}

/*
 * Drops one reference to each cluster from FIRST on, at most NR of them; *DONE gets how many. The last
 * reference to a cluster is dropped after it was discarded, so that nobody allocates it before.
 */
static int drop_piece(struct qcow2 *q, uint64_t first, uint64_t nr, uint64_t *done)
{
	const uint64_t most = DISCARD_BYTES >> q->cluster_bits;
	uint64_t count;
	struct run r;
	int err = ref_alike(q, first, nr < most ? nr : most, &count, done);

	if (err)
		return err;
	/* A count of 0 already, or a place of ours: the image lies, and we touch nothing. */
	if (!count || alloc_overlaps_meta(q, first << q->cluster_bits, *done << q->cluster_bits))
		return 0;
	if (count > 1)
		return ref_adjust(q, first, *done, false);
	r = (struct run){ first, *done, discard_unlocked(q, first, *done) };
	if (plant(release_forgets_one))
		r.nr--;
	err = ref_adjust(q, r.first, r.nr, false);
	if (!err)
		freeset_add(&q->free, r);
	return err;
}

static int by_place(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

int runs_drop(struct qcow2 *q, struct runs *list)
{
	/* Sorted, adjacent runs become one, and the set of free clusters has fewer runs. */
	if (list->nr)
		qsort(list->run, list->nr, sizeof(*list->run), by_place);
	while (list->nr) {
		struct run *r = &list->run[list->nr - 1];
		uint64_t done = 0;
		int err = drop_piece(q, r->first, r->nr, &done);

		if (err)
			return err;
		r->first += done;
		r->nr -= done;
		q->quarantined -= done;
		list->nr -= !r->nr;
	}
	return 0;
}

bool quarantine_crowded(const struct qcow2 *q)
{
	return q->quarantined << q->cluster_bits > (q->file->in_memory ? DUE_BYTES : MOST_BYTES);
}

bool quarantine_due(const struct qcow2 *q)
{
	return q->quarantined << q->cluster_bits > DUE_BYTES;
}
