/* SPDX-License-Identifier: MIT */
/*
 * Zone states, write pointers and limits (NVMe ZNS 1.1, 2.1.1 and 3.4).
 *
 * Invariants, under zs->lock except for (9):
 *
 *  (1) A zone's state changes only in zone_set_state(), which keeps the number of zones in each
 *      state and the list of each state. Open and active zones are sums of these numbers, so no
 *      caller can forget to count.
 *  (2) start <= wp_done <= wp <= start + zcap. LBAs below wp_done have been written, those from
 *      wp_done to wp belong to the writes on the zone's queue, in order and without a gap.
 *  (3) A write comes back with success only when all LBAs below it have been written: wp_done is
 *      beyond it, and the store has been notified (zones_tell()). So there is never a hole below an
 *      acknowledged write, and what the store records covers everything that was acknowledged.
 *  (4) A failed write leaves a hole. From then on the zone accepts no new writes. When the last
 *      write in flight has ended, wp goes back to the hole, and every write from the hole on comes
 *      back with the status of the failed one. Writes below the hole have succeeded.
 *  (5) A zone becomes Full when its last LBA has been *written*; then its resources are freed. If
 *      they were freed when the LBA is assigned, a failed write could need them back.
 *  (6) At most one claim holds a zone. It starts when the zone has no write in flight and no
 *      reader. Commands that arrive meanwhile wait for the end of the claim, in order, and then
 *      start from the beginning. NVMe does not order commands that are in flight at the same time,
 *      so a host cannot see the difference, and no command is refused that is valid in every order.
 *  (7) A ZONE_ALL claim is alone: it waits for all other claims, and they wait for it.
 *  (8) Lists of items are filled under the lock; the caller handles them without it.
 *  (9) A read within a zone takes no lock: readers.c counts it, by bucket of zones. A claim closes
 *      the buckets of its zones until it has ended, and does not start while a bucket drains. What
 *      such a read looks at without the lock, wp_done and the state, is atomic; wp_done only grows
 *      until the read ends, since it is set back under a claim alone.
 *
 * A claimed zone, or one with writes in flight, may still be closed to free an open resource for
 * another zone, if it is implicitly open: that changes only its state, not its data or pointers.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "zone.h"

#define REFUSED(sc) (NVME_ZNS_STATUS(sc) | NVME_SC_DNR)

enum zone_flags {
	ZF_HOLE = 1 << 0,    /* a write on the queue has failed: (4) */
	ZF_CLAIMED = 1 << 1, /* (6) */
};

enum {
	EMPTY = NVME_ZNS_ZS_EMPTY,
	IMPLICIT = NVME_ZNS_ZS_IMPL_OPEN,
	EXPLICIT = NVME_ZNS_ZS_EXPL_OPEN,
	CLOSED = NVME_ZNS_ZS_CLOSED,
	READ_ONLY = NVME_ZNS_ZS_READ_ONLY,
	FULL = NVME_ZNS_ZS_FULL,
	OFFLINE = NVME_ZNS_ZS_OFFLINE
};

#define BIT(state) (1u << (state))
#define HAS_ROOM   (BIT(IMPLICIT) | BIT(EXPLICIT) | BIT(CLOSED))

/* --- state, lists, counts --- */

/* The state, with the lock or without it. */
static uint8_t state_of(const struct zone *z)
{
	return atomic_load_explicit(&z->state, memory_order_relaxed);
}

/* Whoever reads it without the lock sees the data below it, too. */
static void set_wp_done(struct zone *z, uint64_t wp)
{
	atomic_store_explicit(&z->wp_done, wp, memory_order_release);
}

static uint32_t zone_index(const struct zones *zs, const struct zone *z)
{
	return (uint32_t)(z - zs->zone);
}

static uint64_t start_of(const struct zones *zs, const struct zone *z)
{
	return zone_start(zs, zone_index(zs, z));
}

static void list_add(struct zones *zs, struct zone_list *list, uint32_t i)
{
	struct zone *z = &zs->zone[i];

	z->prev = list->tail;
	z->next = ZONE_NONE;
	if (list->tail == ZONE_NONE)
		list->head = i;
	else
		zs->zone[list->tail].next = i;
	list->tail = i;
}

static void list_del(struct zones *zs, struct zone_list *list, uint32_t i)
{
	struct zone *z = &zs->zone[i];

	if (z->prev == ZONE_NONE)
		list->head = z->next;
	else
		zs->zone[z->prev].next = z->next;
	if (z->next == ZONE_NONE)
		list->tail = z->prev;
	else
		zs->zone[z->next].prev = z->prev;
}

/* The only function that changes a state. Implicitly Open moves the zone to the LRU tail. */
static void zone_set_state(struct zones *zs, struct zone *z, uint8_t state)
{
	uint32_t i = zone_index(zs, z);

	if (z->state == state && (state != IMPLICIT || zs->in[state].tail == i))
		return;
	if (z->state != EMPTY)
		list_del(zs, &zs->in[z->state], i);
	zs->nr[z->state]--;
	atomic_store_explicit(&z->state, state, memory_order_relaxed);
	zs->nr[state]++;
	if (state != EMPTY)
		list_add(zs, &zs->in[state], i);
}

static uint32_t nr_open(const struct zones *zs)
{
	return zs->nr[IMPLICIT] + zs->nr[EXPLICIT];
}

static uint32_t nr_active(const struct zones *zs)
{
	return nr_open(zs) + zs->nr[CLOSED];
}

/* Closes Z; a zone without data becomes Empty instead (ZNS 1.1, 3.4.3.1.1). */
static void zone_set_closed(struct zones *zs, struct zone *z)
{
	zone_set_state(zs, z, z->wp == start_of(zs, z) ? EMPTY : CLOSED);
}

static bool open_limit_reached(const struct zones *zs)
{
	return zs->max_open && nr_open(zs) >= zs->max_open;
}

/* Checks whether the limits let Z become open. Changes nothing. */
static uint16_t zone_may_open(const struct zones *zs, const struct zone *z)
{
	if (z->state == IMPLICIT || z->state == EXPLICIT)
		return 0;
	if (z->state == EMPTY && zs->max_active && nr_active(zs) >= zs->max_active)
		return REFUSED(NVME_SC_ZNS_TOO_MANY_ACTIVE);
	if (open_limit_reached(zs) && !zs->nr[IMPLICIT])
		return REFUSED(NVME_SC_ZNS_TOO_MANY_OPENS);
	return 0;
}

/*
 * Opens Z with STATE after zone_may_open() returned 0. At the limit it closes the least recently
 * used implicitly open zone first; explicitly open zones stay open until the host closes them.
 */
static void zone_set_open(struct zones *zs, struct zone *z, uint8_t state)
{
	if (z->state != IMPLICIT && z->state != EXPLICIT)
		while (open_limit_reached(zs) && zs->nr[IMPLICIT])
			zone_set_closed(zs, &zs->zone[zs->in[IMPLICIT].head]);
	zone_set_state(zs, z, state);
}

static void zones_check(struct zones *zs);

static void zones_lock(struct zones *zs)
{
	pthread_mutex_lock(&zs->lock);
}

static void zones_unlock(struct zones *zs)
{
	zones_check(zs);
	pthread_mutex_unlock(&zs->lock);
}

/* --- claims --- */

static bool zone_is_quiet(const struct zone *z)
{
	return !z->first && !z->readers;
}

static struct zone_claim *claim_of(const struct zones *zs, const struct zone *z)
{
	struct zone_claim *c;

	assert(z->flags & ZF_CLAIMED);
	for (c = zs->claims; c; c = c->next)
		if (c->zone == ZONE_ALL || c->zone == zone_index(zs, z))
			break;
	assert(c);
	return c;
}

static uint16_t wait_for(struct zone_claim *claim, struct zone_item *item)
{
	item->next = NULL;
	item->event = ZONE_RETRY;
	*claim->waiting_last = item;
	claim->waiting_last = &item->next;
	return ZONE_WAIT;
}

/* One of those that C waits for has ended. The last one starts it. */
static void claim_step(struct zone_claim *c, struct zone_items *out)
{
	assert(c->busy);
	if (--c->busy)
		return;
	c->item.event = ZONE_START;
	zone_items_add(out, &c->item);
}

/* A read or write of Z has ended. If Z is quiet now, the claim that waits for it may start. */
static void zone_left(struct zones *zs, struct zone *z, struct zone_items *out)
{
	if (z->flags & ZF_CLAIMED && zone_is_quiet(z))
		claim_step(claim_of(zs, z), out);
}

/* A read has left a closed bucket. If it was the last one, claims that wait for it may start. */
static void bucket_left(struct zones *zs, uint32_t bucket, struct zone_items *out)
{
	zones_lock(zs);
	for (struct zone_claim *c = zs->claims; c; c = c->next) {
		if (!(c->draining & BIT(bucket)) || readers_in(zs->readers, bucket))
			continue;
		c->draining &= ~BIT(bucket);
		claim_step(c, out);
	}
	zones_unlock(zs);
}

/* --- writes --- */

/* Checks in the order of spec/nvme-rules.md B.7.3: state, position, capacity, then resources. */
static uint16_t write_judge(const struct zones *zs, const struct zone *z, const struct zone_io *io,
			    bool append)
{
	uint64_t end = start_of(zs, z) + zs->zcap;

	switch (state_of(z)) {
	case FULL:
		return REFUSED(NVME_SC_ZNS_FULL);
	case READ_ONLY:
		return REFUSED(NVME_SC_ZNS_READ_ONLY);
	case OFFLINE:
		return REFUSED(NVME_SC_ZNS_OFFLINE);
	}
	if (z->flags & ZF_HOLE)
		return ZONE_MEDIA_STATUS(NVME_SC_WRITE_FAULT);
	if (z->wp == end) /* it will be Full when the writes in flight have ended */
		return REFUSED(NVME_SC_ZNS_FULL);
	if (!append && io->lba != z->wp)
		return REFUSED(NVME_SC_ZNS_INVALID_WRITE);
	if (io->nlb > end - z->wp)
		return REFUSED(NVME_SC_ZNS_BOUNDARY_ERROR);
	return zone_may_open(zs, z);
}

static uint16_t write_begin_locked(struct zones *zs, struct zone_io *io, bool append)
{
	struct zone *z = &zs->zone[zone_of(zs, io->lba)];
	uint16_t status;

	if (z->flags & ZF_CLAIMED)
		return wait_for(claim_of(zs, z), &io->item);
	status = write_judge(zs, z, io, append);
	if (status)
		return status;
	zone_set_open(zs, z, z->state == EXPLICIT ? EXPLICIT : IMPLICIT);
	io->lba = z->wp;
	io->ended = false;
	io->item.next = NULL;
	z->wp += io->nlb;
	if (z->last)
		z->last->item.next = &io->item;
	else
		z->first = io;
	z->last = io;
	return 0;
}

uint16_t zone_write_begin(struct zones *zs, struct zone_io *io, bool append)
{
	uint16_t status;

	assert(zone_of(zs, io->lba) < zs->nr_zones && io->nlb);
	assert(!append || !(io->lba & (zs->zsze - 1)));
	zones_lock(zs);
	status = write_begin_locked(zs, io, append);
	zones_unlock(zs);
	return status;
}

static struct zone_io *io_next(struct zone_io *io)
{
	return (struct zone_io *)io->item.next;
}

/* Moves the first write in flight to OUT. */
static void zone_pop(struct zone *z, struct zone_items *out)
{
	struct zone_io *io = z->first;

	z->first = io_next(io);
	if (!z->first)
		z->last = NULL;
	io->item.event = ZONE_COMPLETE;
	zone_items_add(out, &io->item);
}

/* (4): sets wp back to the hole when no write is in flight above it. */
static void zone_settle_hole(struct zones *zs, struct zone *z, struct zone_items *out)
{
	uint16_t status = z->first->item.status;
	struct zone_io *io;

	for (io = z->first; io; io = io_next(io))
		if (!io->ended)
			return;
	assert(status && z->first->lba == z->wp_done);
	while (z->first) {
		z->first->item.status = status;
		zone_pop(z, out);
	}
	z->wp = z->wp_done;
	z->flags &= ~ZF_HOLE;
	if (z->state == CLOSED)
		zone_set_closed(zs, z);
}

static void write_ended(struct zone *z, struct zone_io *io, uint16_t status)
{
	assert(!io->ended && status != ZONE_WAIT);
	io->ended = true;
	io->item.status = status;
	if (status)
		z->flags |= ZF_HOLE;
}

/* Writes of Z have ended: moves those that may come back to OUT. */
static void zone_advance(struct zones *zs, struct zone *z, struct zone_items *out)
{
	uint64_t before = z->wp_done;

	while (z->first && z->first->ended && !z->first->item.status) {
		set_wp_done(z, z->wp_done + z->first->nlb);
		zone_pop(z, out);
	}
	if (z->wp_done != before && zs->advance)
		zs->advance(zs->advance_arg, zone_index(zs, z), z->wp_done);
	if (z->flags & ZF_HOLE)
		zone_settle_hole(zs, z, out);
	if (z->wp_done == start_of(zs, z) + zs->zcap && BIT(z->state) & HAS_ROOM)
		zone_set_state(zs, z, FULL);
	zone_left(zs, z, out);
}

void zone_writes_end(struct zones *zs, struct zone_io *const *ios, unsigned int nr, uint16_t status,
		     struct zone_items *out)
{
	struct zone *z = &zs->zone[zone_of(zs, ios[0]->lba)];

	zones_lock(zs);
	for (unsigned int i = 0; i < nr; i++)
		write_ended(z, ios[i], status);
	zone_advance(zs, z, out);
	zones_unlock(zs);
}

void zone_write_end(struct zones *zs, struct zone_io *io, uint16_t status, struct zone_items *out)
{
	zone_writes_end(zs, &io, 1, status, out);
}

/* --- reads --- */

static uint16_t read_begin_locked(struct zones *zs, struct zone_io *io)
{
	uint32_t first = zone_of(zs, io->lba), last = zone_of(zs, io->lba + io->nlb - 1);
	uint32_t i;

	for (i = first; i <= last; i++) {
		struct zone *z = &zs->zone[i];

		if (z->flags & ZF_CLAIMED)
			return wait_for(claim_of(zs, z), &io->item);
		if (z->state == OFFLINE)
			return REFUSED(NVME_SC_ZNS_OFFLINE);
	}
	for (i = first; i <= last; i++)
		zs->zone[i].readers++;
	return 0;
}

/* Counts a read within a zone. False: it crosses zones, or a claim is in the way. */
static bool read_enter(struct zones *zs, struct zone_io *io, struct zone_items *out)
{
	uint32_t zone = zone_of(zs, io->lba);
	enum readers_entry entry = READERS_CLOSED;

	if (zone_of(zs, io->lba + io->nlb - 1) == zone)
		entry = readers_enter(zs->readers, io->loop, zone);
	if (entry == READERS_RACED)
		bucket_left(zs, readers_bucket(zone), out);
	io->counted = entry == READERS_IN;
	return io->counted;
}

static bool is_offline(const struct zones *zs, uint64_t lba)
{
	return state_of(&zs->zone[zone_of(zs, lba)]) == OFFLINE;
}

/* The LBAs of its zone below this one are written. */
static uint64_t written_end(const struct zones *zs, uint64_t lba)
{
	return atomic_load_explicit(&zs->zone[zone_of(zs, lba)].wp_done, memory_order_acquire);
}

uint16_t zone_read_begin(struct zones *zs, struct zone_io *io, struct zone_items *out)
{
	uint16_t status;

	assert(io->nlb && zone_of(zs, io->lba + io->nlb - 1) < zs->nr_zones);
	if (read_enter(zs, io, out)) {
		if (!is_offline(zs, io->lba))
			return 0;
		zone_read_end(zs, io, out);
		return REFUSED(NVME_SC_ZNS_OFFLINE);
	}
	zones_lock(zs);
	status = read_begin_locked(zs, io);
	zones_unlock(zs);
	return status;
}

bool zone_read_try(struct zones *zs, struct zone_io *io, struct zone_items *out)
{
	if (!read_enter(zs, io, out))
		return false;
	if (io->lba + io->nlb <= written_end(zs, io->lba) && !is_offline(zs, io->lba))
		return true;
	zone_read_end(zs, io, out);
	return false;
}

void zone_read_end(struct zones *zs, struct zone_io *io, struct zone_items *out)
{
	uint32_t first = zone_of(zs, io->lba), last = zone_of(zs, io->lba + io->nlb - 1);

	if (io->counted) {
		if (readers_leave(zs->readers, io->loop, first))
			bucket_left(zs, readers_bucket(first), out);
		return;
	}
	zones_lock(zs);
	for (uint32_t i = first; i <= last; i++) {
		assert(zs->zone[i].readers);
		zs->zone[i].readers--;
		zone_left(zs, &zs->zone[i], out);
	}
	zones_unlock(zs);
}

uint32_t zone_read_span(struct zones *zs, uint64_t lba, uint32_t nlb, uint32_t *valid)
{
	uint64_t in_zone = zs->zsze - (lba & (zs->zsze - 1));
	uint64_t wp_done = written_end(zs, lba);

	if (nlb > in_zone)
		nlb = (uint32_t)in_zone;
	*valid = wp_done <= lba ? 0 : wp_done - lba < nlb ? (uint32_t)(wp_done - lba) : nlb;
	return nlb;
}

/* --- Zone Management Send --- */

/* An action in a state. NO: Invalid Zone State Transition; SO: nothing to do; DO: it is done. */
enum { NO, SO, DO };
static const uint8_t action_in[NVME_ZNS_ZSA_OFFLINE + 1][ZONE_STATES] = {
	[NVME_ZNS_ZSA_OPEN] = { [EMPTY] = DO, [IMPLICIT] = DO, [EXPLICIT] = SO, [CLOSED] = DO },
	[NVME_ZNS_ZSA_CLOSE] = { [IMPLICIT] = DO, [EXPLICIT] = DO, [CLOSED] = SO },
	[NVME_ZNS_ZSA_FINISH] = { [EMPTY] = DO,
				  [IMPLICIT] = DO,
				  [EXPLICIT] = DO,
				  [CLOSED] = DO,
				  [FULL] = SO },
	[NVME_ZNS_ZSA_RESET] = { [EMPTY] = SO,
				 [IMPLICIT] = DO,
				 [EXPLICIT] = DO,
				 [CLOSED] = DO,
				 [FULL] = DO },
	[NVME_ZNS_ZSA_OFFLINE] = { [READ_ONLY] = DO, [OFFLINE] = SO },
};

/* The states that Select All applies to (B.7.8). Zones in other states are skipped. */
static const uint32_t action_all[] = {
	[NVME_ZNS_ZSA_OPEN] = BIT(CLOSED),
	[NVME_ZNS_ZSA_CLOSE] = BIT(IMPLICIT) | BIT(EXPLICIT),
	[NVME_ZNS_ZSA_FINISH] = BIT(IMPLICIT) | BIT(EXPLICIT) | BIT(CLOSED),
	[NVME_ZNS_ZSA_RESET] = BIT(IMPLICIT) | BIT(EXPLICIT) | BIT(CLOSED) | BIT(FULL),
	[NVME_ZNS_ZSA_OFFLINE] = BIT(READ_ONLY),
};

static void close_bucket(struct zones *zs, struct zone_claim *claim, uint32_t bucket)
{
	if (claim->closed & BIT(bucket))
		return;
	claim->closed |= BIT(bucket);
	if (readers_close(zs->readers, bucket)) {
		claim->draining |= BIT(bucket);
		claim->busy++;
	}
}

static void claim_zone(struct zones *zs, struct zone_claim *claim, struct zone *z)
{
	z->flags |= ZF_CLAIMED;
	claim->nr++;
	if (!zone_is_quiet(z))
		claim->busy++;
	close_bucket(zs, claim, readers_bucket(zone_index(zs, z)));
}

static uint16_t claim_begin(struct zones *zs, struct zone_claim *claim)
{
	if (!claim->nr)
		return 0;
	claim->next = zs->claims;
	zs->claims = claim;
	return claim->busy ? ZONE_WAIT : 0;
}

static uint16_t manage_one(struct zones *zs, struct zone_claim *claim, uint32_t i, uint8_t action)
{
	struct zone *z = &zs->zone[i];
	uint16_t status = 0;

	if (z->flags & ZF_CLAIMED)
		return wait_for(claim_of(zs, z), &claim->item);
	if (action_in[action][z->state] == NO)
		return REFUSED(NVME_SC_ZNS_INVAL_TRANSITION);
	if (action_in[action][z->state] == SO)
		return 0;
	/*
	 * Finish of an Empty zone passes through open (B.7.9), so the limits must permit that, or
	 * there must be an implicitly open zone that could be closed. None is closed in fact, since
	 * the zone is open for no time. A Closed zone is active already and goes straight to Full.
	 */
	if (action == NVME_ZNS_ZSA_OPEN || (action == NVME_ZNS_ZSA_FINISH && z->state == EMPTY))
		status = zone_may_open(zs, z);
	if (status)
		return status;

	switch (action) {
	case NVME_ZNS_ZSA_OPEN:
		zone_set_open(zs, z, EXPLICIT);
		break;
	case NVME_ZNS_ZSA_CLOSE:
		zone_set_closed(zs, z);
		break;
	case NVME_ZNS_ZSA_OFFLINE:
		zone_set_state(zs, z, OFFLINE);
		break;
	default:
		if (zs->claims && zs->claims->zone == ZONE_ALL) /* (7) */
			return wait_for(zs->claims, &claim->item);
		claim_zone(zs, claim, z);
	}
	return claim_begin(zs, claim);
}

static void manage_all_in(struct zones *zs, struct zone_claim *claim, uint8_t state, uint8_t action)
{
	uint32_t i, next;

	for (i = zs->in[state].head; i != ZONE_NONE; i = next) {
		struct zone *z = &zs->zone[i];

		next = z->next;
		switch (action) {
		case NVME_ZNS_ZSA_OPEN:
			zone_set_state(zs, z, EXPLICIT);
			break;
		case NVME_ZNS_ZSA_CLOSE:
			zone_set_closed(zs, z);
			break;
		case NVME_ZNS_ZSA_OFFLINE:
			zone_set_state(zs, z, OFFLINE);
			break;
		default:
			claim_zone(zs, claim, z);
		}
	}
}

static uint16_t manage_all(struct zones *zs, struct zone_claim *claim, uint8_t action)
{
	uint8_t state;

	if (zs->claims)
		return wait_for(zs->claims, &claim->item);
	/*
	 * Opens all Closed zones or none. They are active already. No open zone is closed for them,
	 * because it would then be a Closed zone that Select All did not open.
	 */
	if (action == NVME_ZNS_ZSA_OPEN && zs->max_open && zs->nr[CLOSED] &&
	    nr_open(zs) + zs->nr[CLOSED] > zs->max_open)
		return REFUSED(NVME_SC_ZNS_TOO_MANY_OPENS);
	for (state = 0; state < ZONE_STATES; state++)
		if (action_all[action] & BIT(state))
			manage_all_in(zs, claim, state, action);
	return claim_begin(zs, claim);
}

uint16_t zone_manage(struct zones *zs, struct zone_claim *claim, uint32_t zone, uint8_t action)
{
	uint16_t status;

	assert(action >= NVME_ZNS_ZSA_CLOSE && action <= NVME_ZNS_ZSA_OFFLINE);
	assert(zone == ZONE_ALL || zone < zs->nr_zones);
	*claim = (struct zone_claim){ .zone = zone, .action = action };
	claim->waiting_last = &claim->waiting;
	zones_lock(zs);
	status = zone == ZONE_ALL ? manage_all(zs, claim, action)
				  : manage_one(zs, claim, zone, action);
	zones_unlock(zs);
	return status;
}

static void unclaim(struct zone_claim *claim, struct zone *z)
{
	assert(claim->nr && (z->flags & ZF_CLAIMED));
	z->flags &= ~ZF_CLAIMED;
	claim->nr--;
}

/* Whether CLAIM has work on Z; none if the last write has filled a zone that it should finish. */
static bool claim_wants(struct zone_claim *claim, struct zone *z)
{
	if (!(z->flags & ZF_CLAIMED))
		return false;
	if (claim->action != NVME_ZNS_ZSA_FINISH || z->state != FULL)
		return true;
	unclaim(claim, z);
	return false;
}

uint32_t zone_claim_next(struct zones *zs, struct zone_claim *claim, uint32_t from, uint64_t *wp)
{
	const bool all = claim->zone == ZONE_ALL;
	uint32_t i = all ? from : claim->zone;
	uint32_t found = ZONE_NONE;

	while (found == ZONE_NONE && i < zs->nr_zones && (all || from <= i)) {
		uint32_t stop = !all ? i + 1 : i + 4096 < zs->nr_zones ? i + 4096 : zs->nr_zones;

		zones_lock(zs);
		for (; i < stop && claim->nr; i++) {
			if (!claim_wants(claim, &zs->zone[i]))
				continue;
			*wp = zs->zone[i].wp_done;
			found = i;
			break;
		}
		if (!claim->nr)
			i = zs->nr_zones;
		zones_unlock(zs);
		if (!all)
			break;
	}
	return found;
}

void zone_claim_done(struct zones *zs, struct zone_claim *claim, uint32_t zone,
		     enum zone_outcome outcome)
{
	struct zone *z = &zs->zone[zone];

	zones_lock(zs);
	assert(zone_is_quiet(z) && z->wp == z->wp_done);
	unclaim(claim, z);
	if (outcome == ZONE_BROKEN) {
		zone_set_state(zs, z, READ_ONLY);
	} else if (outcome == ZONE_OK && claim->action == NVME_ZNS_ZSA_RESET) {
		z->wp = start_of(zs, z);
		set_wp_done(z, z->wp);
		zone_set_state(zs, z, EMPTY);
	} else if (outcome == ZONE_OK) {
		z->wp = start_of(zs, z) + zs->zcap;
		set_wp_done(z, z->wp);
		zone_set_state(zs, z, FULL);
	}
	zones_unlock(zs);
}

void zone_claim_end(struct zones *zs, struct zone_claim *claim, struct zone_items *out)
{
	struct zone_claim **p;
	struct zone_item *item, *next;

	zones_lock(zs);
	assert(!claim->nr && !claim->busy);
	for (p = &zs->claims; *p != claim; p = &(*p)->next)
		assert(*p);
	*p = claim->next;
	for (uint32_t bucket = 0; bucket < READERS_BUCKETS; bucket++)
		if (claim->closed & BIT(bucket))
			readers_open(zs->readers, bucket);
	zones_unlock(zs);
	for (item = claim->waiting; item; item = next) {
		next = item->next;
		zone_items_add(out, item);
	}
}

/* --- queries --- */

void zones_snapshot(struct zones *zs, uint32_t first, uint32_t n, struct zone_info *out)
{
	const uint32_t no_wp = BIT(FULL) | BIT(READ_ONLY) | BIT(OFFLINE);
	uint32_t i;

	assert(first <= zs->nr_zones && n <= zs->nr_zones - first);
	zones_lock(zs);
	for (i = 0; i < n; i++) {
		const struct zone *z = &zs->zone[first + i];

		out[i].start = zone_start(zs, first + i);
		out[i].state = z->state;
		out[i].wp = BIT(z->state) & no_wp ? UINT64_MAX : z->wp;
	}
	zones_unlock(zs);
}

uint32_t zones_count(struct zones *zs, uint8_t state)
{
	uint32_t n;

	zones_lock(zs);
	n = zs->nr[state];
	zones_unlock(zs);
	return n;
}

uint32_t zones_nr_open(struct zones *zs)
{
	uint32_t n;

	zones_lock(zs);
	n = nr_open(zs);
	zones_unlock(zs);
	return n;
}

uint32_t zones_nr_active(struct zones *zs)
{
	uint32_t n;

	zones_lock(zs);
	n = nr_active(zs);
	zones_unlock(zs);
	return n;
}

void zone_retire(struct zones *zs, uint32_t zone, bool offline)
{
	zones_lock(zs);
	zone_set_state(zs, &zs->zone[zone], offline ? OFFLINE : READ_ONLY);
	zones_unlock(zs);
}

/* --- life --- */

int zones_init(struct zones *zs, uint64_t zsze, uint64_t zcap, uint32_t nr, uint32_t max_open,
	       uint32_t max_active)
{
	uint32_t i;

	assert(zsze && !(zsze & (zsze - 1)) && zcap && zcap <= zsze && nr && nr <= ZONES_MAX);
	if (max_active && (!max_open || max_open > max_active))
		max_open = max_active;
	*zs = (struct zones){ .zsze = zsze,
			      .zcap = zcap,
			      .nr_zones = nr,
			      .max_open = max_open,
			      .max_active = max_active };
	zs->zshift = (uint32_t)__builtin_ctzll(zsze);
	zs->zone = calloc(nr, sizeof(*zs->zone));
	zs->readers = readers_new();
	if (!zs->zone || !zs->readers)
		goto no_memory;
	for (i = 0; i < ZONE_STATES; i++)
		zs->in[i] = (struct zone_list){ ZONE_NONE, ZONE_NONE };
	for (i = 0; i < nr; i++) {
		zs->zone[i].wp = zone_start(zs, i);
		atomic_init(&zs->zone[i].state, EMPTY);
		atomic_init(&zs->zone[i].wp_done, zs->zone[i].wp);
	}
	zs->nr[EMPTY] = nr;
	pthread_mutex_init(&zs->lock, NULL);
	return 0;

no_memory:
	free(zs->readers);
	free(zs->zone);
	return -ENOMEM;
}

void zones_free(struct zones *zs)
{
	pthread_mutex_destroy(&zs->lock);
	free(zs->readers);
	free(zs->zone);
	zs->zone = NULL;
}

void zones_tell(struct zones *zs, void (*advance)(void *arg, uint32_t zone, uint64_t wp_done),
		void *arg)
{
	zs->advance = advance;
	zs->advance_arg = arg;
}

void zones_load(struct zones *zs, uint32_t zone, uint64_t wp)
{
	struct zone *z = &zs->zone[zone];
	uint64_t start = zone_start(zs, zone);

	assert(wp >= start && wp <= start + zs->zsze && z->state == EMPTY);
	if (wp > start + zs->zcap)
		wp = start + zs->zcap;
	z->wp = wp;
	set_wp_done(z, wp);
	if (wp == start + zs->zcap)
		zone_set_state(zs, z, FULL);
	else if (wp > start)
		zone_set_state(zs, z, CLOSED);
}

/* --- debugging --- */

/* Called before unlock in debug builds; skipped for namespaces of many zones, where it is slow. */
static void zones_check(struct zones *zs)
{
#ifndef NDEBUG
	if (zs->nr_zones <= 32)
		zones_assert_locked(zs);
#else
	(void)zs;
#endif
}
