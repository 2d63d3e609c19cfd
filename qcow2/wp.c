/* SPDX-License-Identifier: MIT */
/*
 * The write-pointer table: what it says, and what a flush records in it.
 *
 * 1. wp is what the caller last said, recorded what the table on disk says. They differ only for
 *    zones on the stack of news, which a flush takes whole: its cost is what changed.
 * 2. The stack takes no lock. A zone is pushed when its flag goes from 0 to 1; the flush clears the
 *    flag before it reads the pointer, so an advance that comes later pushes again.
 * 3. What a flush collects never has more active zones than there were at one moment: when it
 *    began. The pointers move while they are read one after the other, so a zone might be read
 *    before it is full, and another after it took the place of the first. Therefore a zone that
 *    leaves its start draws a number, before its pointer shows it; one whose number was drawn after
 *    the flush began is collected as if it still stood at the start, and is news for the next. All
 *    releases that permitted the others were there when it began, and are seen.
 * 4. q->active counts the zones that the table has partly written. When a flush would raise it
 *    above the limit before it has lowered it, what releases zones is recorded first, durably:
 *    resets always are (flush.c), full zones then.
 * 5. When the write of entries fails, part of it may be in the file: recorded is then UNKNOWN, so
 *    that the next flush writes them whatever they should say.
 * 6. The table's entries of conventional zones are never written.
 *
 * qcow2_wp() and qcow2_wp_advance(): any thread, no lock. The rest under q->lock.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "image.h"
#include "plant.h"

#define BATCH	512u /* entries of the table written in one go */
#define UNKNOWN UINT64_MAX

enum { ORDER_BE, ORDER_LE };

static uint64_t entry_of(uint64_t raw, int order)
{
	return order == ORDER_BE ? be64toh(raw) : le64toh(raw);
}

/* Whether VALUE can be ZONE's entry: its pointer in the zone, and marked iff conventional. */
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

/* The sentence for the first entry that cannot be; big-endian, as the table should be. */
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

/* Finds the byte order and the marker bit with which the whole table makes sense. */
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

/* Whether ZONE with pointer WP needs a resource: it is partly written, or may be. */
static bool is_active(const struct qcow2 *q, uint32_t zone, uint64_t wp)
{
	return wp == UNKNOWN || (zone_is_sequential(q, zone) && wp > zone_start(q, zone) &&
				 wp < zone_writable_end(q, zone));
}

/* The table says WP of ZONE now. */
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
	free(q->todo);
	q->zones = NULL;
}

uint64_t qcow2_wp(const struct qcow2 *q, uint32_t zone)
{
	assert(zone < q->info.zoned.nr_zones);
	return atomic_load(&q->wp[zone]);
}

static void push(struct qcow2 *q, uint32_t zone)
{
	uint32_t head = atomic_load(&q->news);

	do
		atomic_store(&q->zones[zone].next, head);
	while (!atomic_compare_exchange_weak(&q->news, &head, zone + 1));
}

/* ZONE has news for the table: the next flush looks at it. */
static void announce(struct qcow2 *q, uint32_t zone)
{
	if (!atomic_exchange(&q->zones[zone].queued, 1))
		push(q, zone);
}

/* ZONE leaves its start (3). Only the first number counts: it is that of the first to see it. */
static void draw_number(struct qcow2 *q, uint32_t zone)
{
	_Atomic uint64_t *number = &q->zones[zone].number;
	uint64_t none = 0;

	if (!atomic_load(number))
		atomic_compare_exchange_strong(number, &none, atomic_fetch_add(&q->numbers, 1) + 1);
}

void qcow2_wp_advance(struct qcow2 *q, uint32_t zone, uint64_t wp)
{
	uint64_t old = atomic_load(&q->wp[zone]);

	assert(zone < q->info.zoned.nr_zones && zone_is_sequential(q, zone));
	assert(wp >= zone_start(q, zone) && wp <= zone_writable_end(q, zone));
	if (old == zone_start(q, zone) && wp > old)
		draw_number(q, zone);
	while (wp > old)
		if (atomic_compare_exchange_weak(&q->wp[zone], &old, wp)) {
			announce(q, zone);
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
	announce(q, zone);
}

void wp_rewind(struct qcow2 *q, uint32_t zone)
{
	atomic_store(&q->wp[zone], zone_start(q, zone));
	atomic_store(&q->zones[zone].number, 0);
}

void wp_announce_reset(struct qcow2 *q, uint32_t zone)
{
	q->zones[zone].reset = true;
	announce(q, zone);
}

static int by_zone(const void *a, const void *b)
{
	const struct wp_todo *x = a, *y = b;

	return x->zone < y->zone ? -1 : x->zone > y->zone;
}

static int grow_todo(struct qcow2 *q)
{
	size_t cap = q->cap_todo ? 2 * q->cap_todo : 64;
	struct wp_todo *todo = realloc(q->todo, cap * sizeof(*todo));

	if (!todo)
		return -ENOMEM;
	q->todo = todo;
	q->cap_todo = cap;
	return 0;
}

/* The pointer of ZONE as it was when the number LAST was the last. */
static uint64_t pointer_then(struct qcow2 *q, uint32_t zone, uint64_t last)
{
	uint64_t wp = atomic_load(&q->wp[zone]);

	/* In this order: who sees the pointer sees the number. */
	if (plant(begun_while_copied) || atomic_load(&q->zones[zone].number) <= last)
		return wp;
	announce(q, zone);
	return zone_start(q, zone);
}

int wp_collect(struct qcow2 *q)
{
	const uint64_t last = atomic_load(&q->numbers); /* before the news are taken: (3) */
	uint32_t next = atomic_exchange(&q->news, 0);
	int err = 0;

	q->nr_todo = 0;
	while (next) {
		uint32_t zone = next - 1;
		struct zone_rec *z = &q->zones[zone];

		next = atomic_load(&z->next);
		if (q->nr_todo == q->cap_todo && (err || (err = grow_todo(q)))) {
			push(q, zone); /* its flag is still set */
			continue;
		}
		atomic_store(&z->queued, 0);
		q->todo[q->nr_todo++] = (struct wp_todo){ zone, pointer_then(q, zone, last) };
	}
	if (q->nr_todo)
		qsort(q->todo, q->nr_todo, sizeof(*q->todo), by_zone);
	return err;
}

void wp_requeue(struct qcow2 *q)
{
	for (size_t i = 0; i < q->nr_todo; i++) {
		struct zone_rec *z = &q->zones[q->todo[i].zone];

		if (z->reset || z->recorded != q->todo[i].wp)
			announce(q, q->todo[i].zone);
	}
	q->nr_todo = 0;
}

/* The steps in which a flush writes the table. */
enum step { STEP_RESETS, STEP_FULL, STEP_REST };

/* What ZONE's entry should say after STEP; what it says already, if the step is not for it. */
static uint64_t target(const struct qcow2 *q, const struct wp_todo *t, enum step step)
{
	const struct zone_rec *z = &q->zones[t->zone];

	if (step == STEP_RESETS && plant(reset_skips_the_start))
		return z->reset ? t->wp : z->recorded;
	if (step == STEP_RESETS)
		return z->reset ? zone_start(q, t->zone) : z->recorded;
	if (step == STEP_FULL && t->wp < zone_writable_end(q, t->zone))
		return z->recorded;
	return plant(pointers_copied_late) ? atomic_load(&q->wp[t->zone]) : t->wp;
}

/* Writes the entries that differ from their target, neighbours in one go. */
static int record(struct qcow2 *q, enum step step)
{
	uint64_t be[BATCH];

	for (size_t i = 0; i < q->nr_todo;) {
		const struct wp_todo *t = &q->todo[i];
		size_t n = 0;
		int err;

		while (n < BATCH && i + n < q->nr_todo && t[n].zone == t->zone + n &&
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
		q->barrier_due |= step == STEP_RESETS && !plant(no_sync_after_resets);
		q->barrier_due |= step == STEP_FULL;
		i += n;
	}
	return 0;
}

int wp_write_resets(struct qcow2 *q)
{
	int err = record(q, STEP_RESETS);

	for (size_t i = 0; !err && i < q->nr_todo; i++)
		q->zones[q->todo[i].zone].reset = false;
	return err;
}

/* Whether the limit could be exceeded in the middle of writing what was collected (4). */
static bool limit_at_risk(const struct qcow2 *q)
{
	const uint32_t limit = q->info.zoned.max_active_zones;
	uint64_t most = q->active;

	if (!limit)
		return false;
	for (size_t i = 0; i < q->nr_todo; i++)
		most += is_active(q, q->todo[i].zone, q->todo[i].wp) &&
			!is_active(q, q->todo[i].zone, q->zones[q->todo[i].zone].recorded);
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
