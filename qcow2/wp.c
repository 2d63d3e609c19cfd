/* SPDX-License-Identifier: MIT */
/*
 * The write-pointer table: loads it, keeps it in memory, and writes to it what a flush records.
 *
 * 1. q->wp[zone] is the current pointer, zones[zone].recorded the one in the table on disk. They
 *    differ only for dirty zones, which are on a stack that a flush takes as a whole: a flush costs
 *    what changed.
 * 2. The stack is lock-free. A zone is pushed when its flag goes from 0 to 1; a flush clears the
 *    flag before it reads the pointer, so a later advance pushes the zone again.
 * 3. The pointers that a flush collects never have more active zones than there were at the moment
 *    it began. They move while it reads one after the other: it might read zone A before A is full,
 *    and then zone B after B was opened in A's place. So a zone that leaves its start takes an
 *    activation sequence number before its pointer moves. A zone whose number is newer than the
 *    flush is collected as if it were still at its start, and stays dirty for the next flush.
 * 4. q->active counts the zones that are partly written according to the table. If a flush could
 *    raise it above the limit before lowering it, the pointers of zones that free a resource are
 *    written first and synced: resets always are (flush.c), full zones in this case.
 * 5. When a write of entries fails, part of it may be in the file. recorded is then UNKNOWN, so
 *    that the next flush writes the entries whatever they are.
 * 6. The table's entries of conventional zones are never written.
 *
 * qcow2_wp() and qcow2_wp_advance(): any thread, no lock. wp_write_...(): the flush that runs,
 * which owns what is recorded and what it collected. The rest under q->lock.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "image.h"
#include "plant.h"

#define BATCH	512u /* entries per write */
#define UNKNOWN UINT64_MAX

enum { ORDER_BE, ORDER_LE };

static uint64_t entry_of(uint64_t raw, int order)
{
	return order == ORDER_BE ? be64toh(raw) : le64toh(raw);
}

/* Whether VALUE can be ZONE's entry: a pointer within the zone, and the marker iff conventional. */
static bool plausible(const struct qcow2 *q, uint32_t zone, uint64_t value, int marker)
{
	uint64_t start = zone_start(q, zone), wp = value & WP_MASK, mark = value & ~WP_MASK;

	if (wp < start || wp > start + q->info.zoned.zone_size || wp % 512)
		return false;
	return mark == (zone_is_sequential(q, zone) ? 0 : 1ull << marker);
}

static bool all_plausible(const struct qcow2 *q, const uint64_t *raw, int order, int marker)
{
	for (uint32_t i = 0; i < q->info.zoned.nr_zones; i++)
		if (!plausible(q, i, entry_of(raw[i], order), marker))
			return false;
	return true;
}

/* Says what is wrong with the first implausible entry, read as big-endian. -EINVAL. */
static int table_error(const struct qcow2 *q, const uint64_t *raw, char err[QCOW2_ERRLEN])
{
	const struct qcow2_zoned *z = &q->info.zoned;
	uint32_t i = 0;
	uint64_t value, wp;

	while (plausible(q, i, be64toh(raw[i]), z->marker_bit))
		i++;
	value = be64toh(raw[i]);
	wp = value & WP_MASK;
	if (!(value & ~WP_MASK) == !zone_is_sequential(q, i))
		snprintf(err, QCOW2_ERRLEN,
			 "%s: Zone %u contradicts the header, which declares the first %u zones "
			 "conventional (entry 0x%llx at file offset 0x%llx); run 'znsimg check'",
			 q->path, i, z->conventional_zones, (unsigned long long)value,
			 (unsigned long long)(z->zonedmeta_offset + 8ull * i));
	else if (wp % 512 && wp >= zone_start(q, i) && wp <= zone_start(q, i) + z->zone_size)
		snprintf(err, QCOW2_ERRLEN,
			 "%s: Zone %u has write pointer 0x%llx, which is not sector aligned (file "
			 "offset 0x%llx); run 'znsimg check'",
			 q->path, i, (unsigned long long)wp,
			 (unsigned long long)(z->zonedmeta_offset + 8ull * i));
	else
		snprintf(err, QCOW2_ERRLEN,
			 "%s: Zone %u has write pointer 0x%llx outside its writable range "
			 "0x%llx..0x%llx (file offset 0x%llx); run 'znsimg check'",
			 q->path, i, (unsigned long long)wp, (unsigned long long)zone_start(q, i),
			 (unsigned long long)zone_writable_end(q, i),
			 (unsigned long long)(z->zonedmeta_offset + 8ull * i));
	return -EINVAL;
}

/* Finds the byte order and the marker bit with which every entry is plausible. 0 or -errno. */
static int identify(struct qcow2 *q, const uint64_t *raw, char err[QCOW2_ERRLEN])
{
	struct qcow2_zoned *z = &q->info.zoned;
	const int likely = z->marker_bit;
	const int other = likely == WP_MARKER_V11 ? WP_MARKER_LATEST : WP_MARKER_V11;
	const struct {
		int order, marker;
	} table[] = {
		{ ORDER_BE, likely },
		{ ORDER_BE, other },
		{ ORDER_LE, WP_MARKER_V11 },
		{ ORDER_LE, WP_MARKER_LATEST },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (!all_plausible(q, raw, table[i].order, table[i].marker))
			continue;
		z->little_endian = table[i].order == ORDER_LE;
		if (z->conventional_zones)
			z->marker_bit = table[i].marker;
		break;
	}
	if (z->little_endian && !(q->flags & QCOW2_RDONLY)) {
		snprintf(err, QCOW2_ERRLEN,
			 "%s: the write-pointer table at 0x%llx is little-endian, as QEMU's zoned "
			 "patches v8 to v10 wrote it on x86, and can only be read; open it "
			 "read-only "
			 "or copy the data into a new image",
			 q->path, (unsigned long long)z->zonedmeta_offset);
		return -EROFS;
	}
	if (z->little_endian || all_plausible(q, raw, ORDER_BE, z->marker_bit) ||
	    q->flags & QCOW2_INSPECT)
		return 0;
	return table_error(q, raw, err);
}

/* Whether ZONE with pointer WP counts as active: it is, or may be, partly written. */
static bool is_active(const struct qcow2 *q, uint32_t zone, uint64_t wp)
{
	return wp == UNKNOWN || (zone_is_sequential(q, zone) && wp > zone_start(q, zone) &&
				 wp < zone_writable_end(q, zone));
}

/* Notes that the table on disk has WP for ZONE. */
static void set_recorded(struct qcow2 *q, uint32_t zone, uint64_t wp)
{
	q->active -= is_active(q, zone, q->zones[zone].recorded);
	q->zones[zone].recorded = wp;
	q->active += is_active(q, zone, wp);
}

int wp_load(struct qcow2 *q, char err[QCOW2_ERRLEN])
{
	const struct qcow2_zoned *z = &q->info.zoned;
	uint64_t *raw = malloc(z->nr_zones * sizeof(*raw));
	int ret = -ENOMEM;

	q->zones = calloc(z->nr_zones, sizeof(*q->zones));
	q->wp = calloc(z->nr_zones, sizeof(*q->wp));
	if (!raw || !q->zones || !q->wp)
		goto no_memory;
	ret = file_read(q->file, raw, z->nr_zones * sizeof(*raw), z->zonedmeta_offset, 0);
	if (ret) {
		snprintf(err, QCOW2_ERRLEN, "%s: the write-pointer table cannot be read", q->path);
		goto out;
	}
	ret = identify(q, raw, err);
	if (ret)
		goto out;
	for (uint32_t i = 0; i < z->nr_zones; i++) {
		uint64_t wp = entry_of(raw[i], z->little_endian ? ORDER_LE : ORDER_BE) & WP_MASK;

		q->zones[i].recorded = wp;
		q->active += is_active(q, i, wp);
		atomic_init(&q->wp[i], wp);
	}
out:
	free(raw);
	return ret;

no_memory:
	snprintf(err, QCOW2_ERRLEN, "%s: no memory for %u zones", q->path, z->nr_zones);
	goto out;
}

void wp_free(struct qcow2 *q)
{
	for (uint32_t i = 0; q->zones && i < q->info.zoned.nr_zones; i++)
		zmap_drop(q, i);
	free(q->zones);
	free(q->wp);
	free(q->flush.todo);
	q->zones = NULL;
}

uint64_t qcow2_wp(const struct qcow2 *q, uint32_t zone)
{
	assert(zone < q->info.zoned.nr_zones);
	return atomic_load(&q->wp[zone]);
}

static void push(struct qcow2 *q, uint32_t zone)
{
	uint32_t head = atomic_load(&q->dirty_zones);

	do
		atomic_store(&q->zones[zone].next, head);
	while (!atomic_compare_exchange_weak(&q->dirty_zones, &head, zone + 1));
}

/* Marks ZONE as dirty: the next flush records its pointer. */
static void mark_dirty(struct qcow2 *q, uint32_t zone)
{
	if (!atomic_exchange(&q->zones[zone].queued, 1))
		push(q, zone);
}

/* ZONE leaves its start: gives it an activation number (3), unless another thread just did. */
static void number_activation(struct qcow2 *q, uint32_t zone)
{
	_Atomic uint64_t *number = &q->zones[zone].activation;
	uint64_t none = 0;

	if (!atomic_load(number))
		atomic_compare_exchange_strong(number, &none,
					       atomic_fetch_add(&q->activations, 1) + 1);
}

void qcow2_wp_advance(struct qcow2 *q, uint32_t zone, uint64_t wp)
{
	uint64_t old = atomic_load(&q->wp[zone]);

	assert(zone < q->info.zoned.nr_zones && zone_is_sequential(q, zone));
	assert(wp >= zone_start(q, zone) && wp <= zone_writable_end(q, zone));
	if (old == zone_start(q, zone) && wp > old)
		number_activation(q, zone);
	while (wp > old)
		if (atomic_compare_exchange_weak(&q->wp[zone], &old, wp)) {
			mark_dirty(q, zone);
			return;
		}
}

void wp_adopt(struct qcow2 *q, uint32_t zone, uint64_t wp, bool reset)
{
	q->zones[zone].reset |= reset;
	wp_set(q, zone, wp);
}

void wp_set(struct qcow2 *q, uint32_t zone, uint64_t wp)
{
	atomic_store(&q->wp[zone], wp);
	mark_dirty(q, zone);
}

void wp_rewind(struct qcow2 *q, uint32_t zone)
{
	atomic_store(&q->wp[zone], zone_start(q, zone));
	atomic_store(&q->zones[zone].activation, 0);
}

void wp_note_reset(struct qcow2 *q, uint32_t zone)
{
	q->zones[zone].reset = true;
	mark_dirty(q, zone);
}

static int by_zone(const void *a, const void *b)
{
	const struct wp_todo *x = a, *y = b;

	return x->zone < y->zone ? -1 : x->zone > y->zone;
}

static int grow_todo(struct flush *f)
{
	size_t cap = f->cap_todo ? 2 * f->cap_todo : 64;
	struct wp_todo *todo = realloc(f->todo, cap * sizeof(*todo));

	if (!todo)
		return -ENOMEM;
	f->todo = todo;
	f->cap_todo = cap;
	return 0;
}

/* The pointer of ZONE at the time when LAST was the latest activation number. */
static uint64_t pointer_then(struct qcow2 *q, uint32_t zone, uint64_t last)
{
	uint64_t wp = atomic_load(&q->wp[zone]);

	/* The pointer was loaded first: whoever sees a moved pointer also sees the number. */
	if (plant(begun_while_copied) || atomic_load(&q->zones[zone].activation) <= last)
		return wp;
	mark_dirty(q, zone);
	return zone_start(q, zone);
}

int wp_collect(struct qcow2 *q)
{
	const uint64_t last =
		atomic_load(&q->activations); /* before the dirty zones are taken: (3) */
	uint32_t next = atomic_exchange(&q->dirty_zones, 0);
	struct flush *f = &q->flush;
	int err = 0;

	f->nr_todo = 0;
	while (next) {
		uint32_t zone = next - 1;
		struct zone_rec *z = &q->zones[zone];

		next = atomic_load(&z->next);
		if (f->nr_todo == f->cap_todo && (err || (err = grow_todo(f)))) {
			push(q, zone); /* its flag is still set */
			continue;
		}
		atomic_store(&z->queued, 0);
		f->todo[f->nr_todo++] =
			(struct wp_todo){ zone, z->reset, pointer_then(q, zone, last) };
		z->reset = false;
	}
	if (f->nr_todo)
		qsort(f->todo, f->nr_todo, sizeof(*f->todo), by_zone);
	return err;
}

void wp_requeue(struct qcow2 *q)
{
	for (size_t i = 0; i < q->flush.nr_todo; i++) {
		const struct wp_todo *t = &q->flush.todo[i];
		struct zone_rec *z = &q->zones[t->zone];

		if (t->reset || plant(reset_meanwhile_forgotten))
			z->reset = t->reset;
		if (t->reset || z->recorded != t->wp)
			mark_dirty(q, t->zone);
	}
	q->flush.nr_todo = 0;
}

/* The steps in which a flush writes the table. */
enum step { STEP_RESETS, STEP_FULL, STEP_REST };

/* What ZONE's entry has to be after STEP; its recorded value if the step does not concern it. */
static uint64_t target(const struct qcow2 *q, const struct wp_todo *t, enum step step)
{
	const struct zone_rec *z = &q->zones[t->zone];

	if (step == STEP_RESETS && plant(reset_skips_the_start))
		return t->reset ? t->wp : z->recorded;
	if (step == STEP_RESETS)
		return t->reset ? zone_start(q, t->zone) : z->recorded;
	if (step == STEP_FULL && t->wp < zone_writable_end(q, t->zone))
		return z->recorded;
	return plant(pointers_copied_late) ? atomic_load(&q->wp[t->zone]) : t->wp;
}

/* Writes the entries that differ from their target, adjacent ones together. */
static int record(struct qcow2 *q, enum step step)
{
	struct flush *f = &q->flush;
	uint64_t be[BATCH];

	for (size_t i = 0; i < f->nr_todo;) {
		const struct wp_todo *t = &f->todo[i];
		size_t n = 0;
		int err;

		while (n < BATCH && i + n < f->nr_todo && t[n].zone == t->zone + n &&
		       target(q, &t[n], step) != q->zones[t[n].zone].recorded) {
			be[n] = htobe64(target(q, &t[n], step));
			n++;
		}
		if (!n) {
			i++;
			continue;
		}
		err = meta_write(q, be, n * sizeof(*be),
				 q->info.zoned.zonedmeta_offset + 8ull * t->zone);
		for (size_t k = 0; k < n && !(err && plant(failed_pointers_believed)); k++)
			set_recorded(q, t[k].zone, err ? UNKNOWN : be64toh(be[k]));
		if (err)
			return err;
		f->barrier_due |= step == STEP_RESETS && !plant(no_sync_after_resets);
		f->barrier_due |= step == STEP_FULL;
		i += n;
	}
	return 0;
}

int wp_write_resets(struct qcow2 *q)
{
	int err = record(q, STEP_RESETS);

	for (size_t i = 0; !err && i < q->flush.nr_todo; i++)
		q->flush.todo[i].reset = false;
	return err;
}

/* Whether the limit could be exceeded while the collected pointers are written (4). */
static bool limit_at_risk(const struct qcow2 *q)
{
	const uint32_t limit = q->info.zoned.max_active_zones;
	uint64_t most = q->active;

	if (!limit)
		return false;
	for (size_t i = 0; i < q->flush.nr_todo; i++) {
		const struct wp_todo *t = &q->flush.todo[i];

		most += is_active(q, t->zone, t->wp) &&
			!is_active(q, t->zone, q->zones[t->zone].recorded);
	}
	return most > limit;
}

int wp_write_full(struct qcow2 *q)
{
	return limit_at_risk(q) && !plant(full_with_the_begun) ? record(q, STEP_FULL) : 0;
}

int wp_write_advances(struct qcow2 *q)
{
	return record(q, STEP_REST);
}
