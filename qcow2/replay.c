/* SPDX-License-Identifier: MIT */
/*
 * Replays a shadow: starting from the image as a killed process left it and from the log that the
 * process kept in shared memory (shadow.c), it restores the state that the process's last
 * completions promised to the host.
 *
 *	digest()	turns the log into one plan per zone and a list of extents that are mapped
 *			at the end of the log
 *	verify()	checks the plan against itself and against the image; changes nothing
 *	apply()		changes refcounts, mapping and write pointers, in memory
 *	flush_locked()	makes that durable
 *
 * 1. The image may contain any prefix of what a flush writes; the result does not depend on which.
 *    The log says where each cluster of a logged zone has to be, and the image's entry either says
 *    so already or is changed. Refcounts are set to one, not raised. So a second replay, or one
 *    that follows a kill during the first, gives the same result.
 * 2. The killed process may have written metadata that it did not sync. The caller has synced the
 *    file, so what we read is what a power cut would leave, and the flush may start from it.
 * 3. New tables are allocated at the end of the file. All clusters in the log lie below it, because
 *    the file was extended before anything in it was mapped.
 * 4. If a zone's pointer is below the image's and no RESET follows, the process was killed in the
 *    middle of a reset, which had not completed. It is completed here: the zone is empty.
 * 5. A shadow is applied as a whole or not at all. It may contain anything: it can never make us
 *    share a cluster, overwrite a table, or leave the file or the zone.
 *
 * At open, in one thread; so q->lock is not taken for the functions that require it.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "plant.h"
#include "shadow.h"

struct piece { /* an extent of the mapping, in clusters */
	uint64_t at, host, nr;
	uint32_t zone;
};

struct plan {	       /* of one zone */
	uint32_t from; /* log entries before this index no longer count */
	bool logged, reset, finished;
	uint64_t finish; /* the write pointer at the finish */
};

/* Logged clusters with a refcount that are not mapped as logged: it is checked who uses them. */
struct suspect {
	uint64_t first, nr;
	bool spare; /* nobody may use them */
	bool used;
};

struct replay {
	struct qcow2 *q;
	_Atomic uint64_t *wp;
	struct shadow_entry *log; /* in a row */
	uint32_t nr_log;
	struct plan *plan;
	struct piece *piece, *by_host; /* the final mapping, sorted by AT and by HOST */
	size_t nr_pieces;
	struct piece *gone; /* clusters that the log leaves unmapped; sorted by HOST */
	size_t nr_gone;
	struct suspect *suspect;
	size_t nr_suspects, cap_suspects;
	char *why;
};

__attribute__((format(printf, 2, 3))) static int wrong(struct replay *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r->why, QCOW2_ERRLEN, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static uint64_t shadow_wp(const struct replay *r, uint32_t zone)
{
	return atomic_load_explicit(&r->wp[zone], memory_order_relaxed);
}

/* --- digest: one entry at a time --- */

/* Whether LEN bytes at HOST are whole clusters of the file. */
static bool in_file(const struct qcow2 *q, uint64_t host, uint64_t len)
{
	return host && len && !in_cluster(q, host) && !in_cluster(q, len) &&
	       cluster_of(q, host) < q->end_cluster &&
	       cluster_of(q, len) <= q->end_cluster - cluster_of(q, host);
}

static bool map_possible(const struct replay *r, const struct shadow_entry *e)
{
	const struct qcow2 *q = r->q;
	uint64_t start = zone_start(q, e->zone), end = start + q->info.zoned.zone_size;

	if (end > align_up(q->info.size, q->cluster_size))
		end = align_up(q->info.size, q->cluster_size);
	if (in_cluster(q, e->off) || e->off < start || e->off >= end || e->len > end - e->off)
		return false;
	return in_file(q, e->host, e->len);
}

static int check_entry(struct replay *r, uint32_t i, uint32_t serial)
{
	const struct shadow_entry *e = &r->log[i];
	const struct qcow2 *q = r->q;
	bool ok = e->sum == shadow_entry_sum(e, serial) && e->zone < q->info.zoned.nr_zones;

	if (ok && e->kind == SHADOW_MAP)
		ok = map_possible(r, e);
	else if (ok && e->kind == SHADOW_SPARE)
		ok = true; /* a hint only: sort_out() checks it */
	else if (ok && e->kind == SHADOW_FINISH)
		ok = zone_is_sequential(r->q, e->zone) && e->off >= zone_start(q, e->zone) &&
		     e->off <= zone_writable_end(q, e->zone);
	else if (ok)
		ok = e->kind == SHADOW_RESET && zone_is_sequential(r->q, e->zone);
	return ok ? 0 : wrong(r, "entry %u of its log is damaged", i);
}

static int plan_entry(struct replay *r, uint32_t i)
{
	const struct shadow_entry *e = &r->log[i];
	struct plan *p = &r->plan[e->zone];

	if (e->kind == SHADOW_SPARE)
		return 0;
	p->logged = true;
	if (e->kind == SHADOW_RESET) {
		*p = (struct plan){ .from = plant(reset_voids_nothing) ? 0 : i + 1,
				    .logged = true,
				    .reset = true };
	} else if (p->finished) {
		return wrong(r, "entry %u of its log follows the zone's finish", i);
	} else if (e->kind == SHADOW_FINISH) {
		p->finished = true;
		p->finish = e->off;
	}
	return 0;
}

/* Checks a zone's pointer in the shadow against the image's and against the log. */
static int plan_pointer(struct replay *r, uint32_t zone)
{
	const struct qcow2 *q = r->q;
	struct plan *p = &r->plan[zone];
	uint64_t wp = shadow_wp(r, zone), disk = q->zones[zone].recorded;
	uint64_t start = zone_start(q, zone), end = zone_writable_end(q, zone);

	if (wp == disk && !p->logged)
		return 0;
	if (!zone_is_sequential(r->q, zone))
		return wp == disk ? 0 : wrong(r, "zone %u is conventional and has moved", zone);
	if (wp < start || (wp > end && wp != disk) || wp % 512)
		return wrong(r, "the write pointer of zone %u is outside of it", zone);
	if (wp == start && (p->finished || (!p->reset && disk > start)) &&
	    !plant(half_a_reset_forgotten)) /* (4) */
		*p = (struct plan){ .from = r->nr_log, .logged = true, .reset = true };
	if (!p->reset && wp < disk)
		return wrong(r, "zone %u has gone back without a reset", zone);
	if (p->finished && wp != end && wp != p->finish)
		return wrong(r, "zone %u was finished elsewhere", zone);
	return 0;
}

static int by_at(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

static int by_host(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	return x->host < y->host ? -1 : x->host > y->host;
}

/*
 * Adds what remains of a MAP at the end of the log to the pieces, and the rest to GONE, together
 * with spare clusters. Some of GONE may be in use; suspects_used() finds out.
 */
static void sort_out(struct replay *r, uint32_t i)
{
	const struct qcow2 *q = r->q;
	const struct shadow_entry *e = &r->log[i];
	const struct plan *p = &r->plan[e->zone];
	struct piece m = { cluster_of(q, e->off), cluster_of(q, e->host), cluster_of(q, e->len),
			   e->zone };
	uint64_t keep = m.nr, cut;

	if (!in_file(q, e->host, e->len))
		return;
	if (e->kind == SHADOW_SPARE || i < p->from) {
		keep = 0;
	} else if (p->finished && !plant(finish_keeps_clusters)) {
		cut = cluster_of(q, align_up(p->finish, q->cluster_size));
		keep = cut <= m.at ? 0 : cut - m.at < m.nr ? cut - m.at : m.nr;
	}
	if (keep)
		r->piece[r->nr_pieces++] =
			(struct piece){ m.at, m.host, plant(replay_maps_one_less) ? keep - 1 : keep,
					m.zone };
	if (keep < m.nr)
		r->gone[r->nr_gone++] =
			(struct piece){ m.at + keep, m.host + keep, m.nr - keep, m.zone };
}

/* Merges overlaps in GONE: they are legal, but checking them twice would take time. */
static void merge_gone(struct replay *r)
{
	size_t n = 0;

	qsort(r->gone, r->nr_gone, sizeof(*r->gone), by_host);
	for (size_t i = 0; i < r->nr_gone; i++) {
		struct piece *last = n ? &r->gone[n - 1] : NULL;
		const struct piece *p = &r->gone[i];

		if (!last || p->host > last->host + last->nr)
			r->gone[n++] = *p;
		else if (p->host + p->nr > last->host + last->nr)
			last->nr = p->host + p->nr - last->host;
	}
	r->nr_gone = n;
}

static int digest(struct replay *r, uint32_t first)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < r->nr_log; i++) {
		err = check_entry(r, i, first + i);
		if (!err)
			err = plan_entry(r, i);
	}
	for (uint32_t z = 0; !err && z < r->q->info.zoned.nr_zones; z++)
		err = plan_pointer(r, z);
	for (uint32_t i = 0; !err && i < r->nr_log; i++)
		if (r->log[i].kind == SHADOW_MAP || r->log[i].kind == SHADOW_SPARE)
			sort_out(r, i);
	if (err)
		return err;
	memcpy(r->by_host, r->piece, r->nr_pieces * sizeof(*r->piece));
	qsort(r->piece, r->nr_pieces, sizeof(*r->piece), by_at);
	qsort(r->by_host, r->nr_pieces, sizeof(*r->by_host), by_host);
	merge_gone(r);
	return 0;
}

/* --- look-ups in the plan --- */

/* The piece that contains cluster AT of the disk; NULL: none. */
static const struct piece *piece_at(const struct replay *r, uint64_t at)
{
	size_t lo = 0, hi = r->nr_pieces;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (r->piece[mid].at <= at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && at - r->piece[lo - 1].at < r->piece[lo - 1].nr ? &r->piece[lo - 1] : NULL;
}

static bool host_in_pieces(const struct replay *r, uint64_t host)
{
	size_t lo = 0, hi = r->nr_pieces;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (r->by_host[mid].host <= host)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && host - r->by_host[lo - 1].host < r->by_host[lo - 1].nr;
}

/* Whether the plan maps cluster AT, to *HOST (0: unmapped). False: the image's entry holds. */
static bool planned(const struct replay *r, uint64_t at, uint64_t *host)
{
	const struct plan *p = &r->plan[at << r->q->cluster_bits >> r->q->zone_bits];
	const struct piece *m = piece_at(r, at);

	*host = m ? m->host + (at - m->at) : 0;
	return m || p->reset || (p->finished && at << r->q->cluster_bits >= p->finish);
}

/* The range of clusters of ZONE that the plan covers; pieces may lie outside of it. */
static void planned_range(const struct replay *r, uint32_t zone, uint64_t *first, uint64_t *end)
{
	const struct qcow2 *q = r->q;
	const struct plan *p = &r->plan[zone];
	uint64_t to = zone_start(q, zone) + q->info.zoned.zone_size;

	if (to > q->info.size)
		to = q->info.size;
	*end = cluster_of(q, align_up(to, q->cluster_size));
	*first = *end;
	if (p->reset)
		*first = cluster_of(q, zone_start(q, zone));
	else if (p->finished)
		*first = cluster_of(q, align_up(p->finish, q->cluster_size));
}

/* --- verify --- */

static int check_overlaps(struct replay *r)
{
	const struct qcow2 *q = r->q;

	for (size_t i = 0; i < r->nr_pieces; i++) {
		const struct piece *p = &r->piece[i], *h = &r->by_host[i];

		if (i && p[-1].at + p[-1].nr > p->at)
			return wrong(r, "its log maps parts of zone %u twice", p->zone);
		if (i && h[-1].host + h[-1].nr > h->host)
			return wrong(r, "its log gives a cluster to two zones");
		if (alloc_overlaps_meta(q, p->host << q->cluster_bits, p->nr << q->cluster_bits))
			return wrong(r, "its log puts data of zone %u over a table", p->zone);
	}
	return 0;
}

/* Checks that everything between the recorded pointer and the new one is mapped: it was written. */
static int check_written(struct replay *r, uint32_t zone)
{
	struct qcow2 *q = r->q;
	const struct plan *p = &r->plan[zone];
	uint64_t from = p->reset ? zone_start(q, zone) : q->zones[zone].recorded;
	uint64_t to = p->finished ? p->finish : shadow_wp(r, zone), host;

	if (!zone_is_sequential(r->q, zone) || from >= to)
		return 0;
	for (uint64_t c = cluster_of(q, from); c <= cluster_of(q, to - 1); c++) {
		struct mapping m = { .kind = CLUSTER_DATA };
		int err = 0;

		if (planned(r, c, &host))
			m.host = host;
		else
			err = map_entry(q, c, &m);
		if (err == -EINVAL || (!err && (m.kind != CLUSTER_DATA || !m.host)))
			return wrong(r, "zone %u has nothing where it was written", zone);
		if (err)
			return err;
	}
	return 0;
}

static int suspect(struct replay *r, uint64_t cluster, bool spare)
{
	struct suspect *last = r->nr_suspects ? &r->suspect[r->nr_suspects - 1] : NULL;

	if (last && last->first + last->nr == cluster && last->spare == spare) {
		last->nr++;
		return 0;
	}
	if (r->nr_suspects == r->cap_suspects) {
		size_t cap = r->cap_suspects ? 2 * r->cap_suspects : 64;
		struct suspect *p = realloc(r->suspect, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		r->suspect = p;
		r->cap_suspects = cap;
	}
	r->suspect[r->nr_suspects++] = (struct suspect){ cluster, 1, spare, false };
	return 0;
}

/*
 * Checks the clusters of M that have a refcount already. They may, if a flush had begun: then the
 * image maps them where the log does, or nowhere, which suspects_used() verifies. Clusters in GONE
 * are freed only if their refcount is one.
 */
static int check_counts(struct replay *r, const struct piece *m, bool kept)
{
	struct qcow2 *q = r->q;

	for (uint64_t i = 0; i < m->nr; i++) {
		struct mapping have;
		uint64_t n;
		int err;

		if (!kept && host_in_pieces(r, m->host + i))
			continue;
		err = ref_get(q, m->host + i, &n);

		if (!err && (!n || (!kept && n != 1)))
			continue;
		if (!err && kept && n != 1)
			return wrong(r, "its log gives away a cluster that is shared");
		if (!err && kept) {
			err = map_entry(q, m->at + i, &have);
			if (!err && have.kind == CLUSTER_DATA && have.copied &&
			    have.host == (m->host + i) << q->cluster_bits)
				continue;
			if (err == -EINVAL)
				err = 0;
		}
		if (!err)
			err = suspect(r, m->host + i, !kept);
		if (err)
			return err;
	}
	return 0;
}

static int suspect_order(const void *a, const void *b)
{
	const struct suspect *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* Marks clusters [FIRST, FIRST + NR) as in use. False: the log maps them elsewhere. */
static bool use(struct replay *r, uint64_t first, uint64_t nr)
{
	size_t lo = 0, hi = r->nr_suspects;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (r->suspect[mid].first < first + nr)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo && r->suspect[lo - 1].first + r->suspect[lo - 1].nr > first; lo--) {
		if (!r->suspect[lo - 1].spare)
			return false;
		r->suspect[lo - 1].used = true;
	}
	return true;
}

/* Searches all L2 entries that the plan does not change for uses of the suspects. */
static int suspects_used(struct replay *r)
{
	struct qcow2 *q = r->q;
	uint64_t clusters = cluster_of(q, align_up(q->info.size, q->cluster_size)), host;

	if (!r->nr_suspects)
		return 0;
	qsort(r->suspect, r->nr_suspects, sizeof(*r->suspect), suspect_order);
	for (uint64_t c = 0; c < clusters; c++) {
		struct mapping m;
		int err;

		if (!(c & ((1ull << q->l2_bits) - 1)) &&
		    !(q->l1.entry[c >> q->l2_bits] & L1E_OFFSET_MASK)) {
			c += (1ull << q->l2_bits) - 1;
			continue;
		}
		err = map_entry(q, c, &m);
		if (err == -EINVAL || (!err && !m.host))
			continue;
		if (err)
			return err;
		if (!planned(r, c, &host) &&
		    !use(r, cluster_of(q, m.host), m.kind == CLUSTER_COMPRESSED ? 2 : 1))
			return wrong(r, "its log gives away a cluster that is in use");
	}
	return 0;
}

/* Checks that the entries that will be replaced hold nothing that must not be freed. */
static int check_replaced(struct replay *r, uint64_t first, uint64_t nr)
{
	for (uint64_t c = first; c < first + nr; c++) {
		struct mapping m;
		int err = map_entry(r->q, c, &m);

		if (err == -EINVAL)
			return wrong(r, "the image's mapping is damaged there");
		if (err)
			return err;
	}
	return 0;
}

static int verify(struct replay *r)
{
	int err = check_overlaps(r);

	for (size_t i = 0; !err && i < r->nr_pieces; i++) {
		err = check_replaced(r, r->piece[i].at, r->piece[i].nr);
		if (!err)
			err = check_counts(r, &r->piece[i], true);
	}
	for (size_t i = 0; !err && i < r->nr_gone; i++)
		err = check_counts(r, &r->gone[i], false);
	for (uint32_t z = 0; !err && z < r->q->info.zoned.nr_zones; z++) {
		uint64_t first, end;

		planned_range(r, z, &first, &end);
		err = check_replaced(r, first, end - first);
		if (!err)
			err = check_written(r, z);
	}
	return err ? err : suspects_used(r);
}

/* --- apply --- */

static int count_piece(struct replay *r, const struct piece *m)
{
	for (uint64_t i = 0; i < m->nr;) {
		uint64_t len;
		bool is_free;
		int err = ref_run(r->q, m->host + i, m->nr - i, &is_free, &len);

		if (!err && is_free && !plant(replay_counts_nothing))
			err = ref_adjust(r->q, m->host + i, len, true);
		if (err)
			return err;
		i += len;
	}
	return 0;
}

/* Frees clusters that are counted and that nobody uses. */
static int give_up(struct replay *r, const struct suspect *s)
{
	struct qcow2 *q = r->q;
	int err = 0;

	for (uint64_t c = s->first; !err && c < s->first + s->nr; c++)
		if (!alloc_overlaps_meta(q, c << q->cluster_bits, q->cluster_size))
			err = quarantine_add(q, c, 1);
	return err;
}

static int place(struct replay *r, uint64_t at, uint64_t host, bool *changed)
{
	struct run old;
	int err = map_set(r->q, at, host << r->q->cluster_bits, changed, &old);

	if (!err && old.nr && !host_in_pieces(r, old.first))
		err = quarantine_add(r->q, old.first, old.nr);
	return err;
}

static int apply_zone(struct replay *r, uint32_t zone, size_t *next, uint32_t *zones)
{
	struct qcow2 *q = r->q;
	const struct plan *p = &r->plan[zone];
	uint64_t first, end, host, wp = shadow_wp(r, zone);
	bool changed = false;
	int err = 0;

	for (; !err && *next < r->nr_pieces && r->piece[*next].zone == zone; ++*next)
		for (uint64_t i = 0; !err && i < r->piece[*next].nr; i++)
			err = place(r, r->piece[*next].at + i, r->piece[*next].host + i, &changed);
	planned_range(r, zone, &first, &end);
	for (; !err && first < end; first++) {
		planned(r, first, &host);
		err = place(r, first, host, &changed);
	}
	if (err || (!changed && wp == q->zones[zone].recorded))
		return err;
	++*zones;
	if (zone_is_sequential(r->q, zone))
		wp_adopt(q, zone, wp, p->reset && !plant(replay_forgets_resets));
	return 0;
}

static int apply(struct replay *r, uint32_t *zones)
{
	struct qcow2 *q = r->q;
	size_t next = 0;
	int err = 0;

	if (!plant(replay_takes_tables_anywhere))
		q->scan_pos = q->scan_end; /* (3) */
	for (size_t i = 0; !err && i < r->nr_suspects; i++)
		if (r->suspect[i].spare && !r->suspect[i].used && !plant(replay_leaks))
			err = give_up(r, &r->suspect[i]);
	for (size_t i = 0; !err && i < r->nr_pieces; i++)
		err = count_piece(r, &r->piece[i]);
	for (uint32_t z = 0; !err && z < q->info.zoned.nr_zones; z++)
		err = apply_zone(r, z, &next, zones);
	if (!err && !plant(replay_not_flushed)) {
		pthread_mutex_lock(&q->lock);
		err = flush_locked(q);
		pthread_mutex_unlock(&q->lock);
	}
	q->scan_pos = 0;
	return err;
}

int replay(struct qcow2 *q, void *shadow, uint32_t *zones, char why[QCOW2_ERRLEN])
{
	const uint32_t nr_zones = q->info.zoned.nr_zones;
	uint64_t log = atomic_load(&((struct shadow_head *)shadow)->log);
	struct replay r = {
		.q = q,
		.wp = shadow_wps(shadow),
		.nr_log = shadow_count(log),
		.why = why,
	};
	int err = -ENOMEM;

	*zones = 0;
	if (r.nr_log > SHADOW_ENTRIES)
		return wrong(&r, "its log is longer than it can be");
	r.log = calloc(r.nr_log + 1, sizeof(*r.log));
	for (uint32_t i = 0; r.log && i < r.nr_log; i++)
		r.log[i] = *shadow_entry(shadow_log(shadow, nr_zones), shadow_first(log) + i);
	r.plan = calloc(nr_zones, sizeof(*r.plan));
	r.piece = calloc(r.nr_log + 1, sizeof(*r.piece));
	r.by_host = calloc(r.nr_log + 1, sizeof(*r.by_host));
	r.gone = calloc(r.nr_log + 1, sizeof(*r.gone));
	if (r.log && r.plan && r.piece && r.by_host && r.gone)
		err = digest(&r, shadow_first(log));
	if (!err)
		err = verify(&r);
	if (!err) {
		err = apply(&r, zones);
		if (err == -EINVAL) /* the shadow was accepted already */
			err = -EIO;
	}
	free(r.log);
	free(r.plan);
	free(r.piece);
	free(r.by_host);
	free(r.gone);
	free(r.suspect);
	return err;
}
