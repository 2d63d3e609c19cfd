/* SPDX-License-Identifier: MIT */
/*
 * THE zone state machine: states, write pointers, limits, and who may be in a zone at a time.
 * No I/O, no SQE, no threads of its own; zone.c opens with the rules, docs/zones.md draws them.
 *
 * All addresses and lengths are LBAs. Functions returning uint16_t return 0, an NVMe status (with
 * DNR where a retry is useless), or ZONE_WAIT. Any thread may call anything: zones->lock is taken
 * inside, for tens of nanoseconds, and never held across I/O.
 */
#ifndef ZNS_ZONE_H
#define ZNS_ZONE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "nvme.h"

#define ZONE_NONE   UINT32_MAX
#define ZONE_ALL    UINT32_MAX /* Select All, where a zone number is asked */
#define ZONES_MAX   (1u << 20)
#define ZONE_STATES 16 /* enum nvme_zns_zs, 1 to Fh */

/* Not a status of the spec: the command will come back in some list of items. */
#define ZONE_WAIT 0xffff

/* A status of the media and data integrity type: libnvme gives the code alone. */
#define ZONE_MEDIA_STATUS(sc) (NVME_SCT_MEDIA << NVME_SCT_SHIFT | (sc))

/*
 * What a command leaves with the zones while it is with them: the head of zone_io and of
 * zone_claim. It comes back through a list, once, and EVENT says what to do with its command.
 */
enum zone_event {
	ZONE_COMPLETE, /* a write: complete it with STATUS */
	ZONE_START,    /* a claim: its zones are quiet now, do the work */
	ZONE_RETRY,    /* begin again from the start: what it waited for is over */
};

struct zone_item {
	struct zone_item *next;
	uint16_t status;
	uint8_t event;
};

struct zone_items {
	struct zone_item *first;
	struct zone_item **last;
};

static inline void zone_items_init(struct zone_items *list)
{
	list->first = NULL;
	list->last = &list->first;
}

static inline void zone_items_add(struct zone_items *list, struct zone_item *item)
{
	item->next = NULL;
	*list->last = item;
	list->last = &item->next;
}

/* NULL when empty. */
static inline struct zone_item *zone_items_take(struct zone_items *list)
{
	struct zone_item *item = list->first;

	if (!item)
		return NULL;
	list->first = item->next;
	if (!list->first)
		list->last = &list->first;
	return item;
}

/* A read or a write in flight. The caller's memory, from begin until it came back. */
struct zone_io {
	struct zone_item item; /* first: a write on its zone's queue, in LBA order */
	uint64_t lba;	       /* where it goes: known after zone_write_begin() */
	uint32_t nlb;
	bool ended;
};

/* A reset or finish: it has its zones to itself, others wait for it. The caller's memory. */
struct zone_claim {
	struct zone_item item; /* first */
	struct zone_item *waiting, **waiting_last;
	struct zone_claim *next; /* zones->claims */
	uint32_t zone;		 /* or ZONE_ALL */
	uint32_t nr;		 /* zones claimed; 0 after zone_manage(): nothing to do */
	uint32_t busy;		 /* of these, not quiet yet */
	uint8_t action;		 /* enum nvme_zns_send_action */
};

struct zone {
	uint64_t wp;	  /* next LBA to hand out: what Report Zones shows */
	uint64_t wp_done; /* all below has been written: what may be read and recorded */
	struct zone_io *first, *last; /* writes that have not come back, in LBA order */
	uint32_t prev, next;	      /* zones in the same state (but Empty); implicit: LRU first */
	uint32_t readers;
	uint8_t state; /* enum nvme_zns_zs; written by zone_set_state() alone */
	uint8_t flags;
};

static_assert(sizeof(struct zone) <= 80, "2^20 of them");

struct zone_list {
	uint32_t head, tail;
};

struct zones {
	/* Constant after zones_init(). */
	uint64_t zsze, zcap; /* LBAs */
	uint32_t zshift;     /* zsze is 1 << zshift */
	uint32_t nr_zones;
	uint32_t max_open, max_active;				     /* 0: no limit */
	void (*advance)(void *arg, uint32_t zone, uint64_t wp_done); /* zones_tell() */
	void *advance_arg;

	pthread_mutex_t lock; /* all that follows; a leaf, never held across I/O */
	struct zone *zone;
	struct zone_list in[ZONE_STATES];
	uint32_t nr[ZONE_STATES]; /* zones in each state */
	struct zone_claim *claims;
};

/*
 * All zones Empty. ZSZE is a power of two, 0 < ZCAP <= ZSZE, 0 < NR <= ZONES_MAX. Limits are
 * made consistent: an open zone is active, so max_open is never above max_active. 0 or -ENOMEM.
 */
int zones_init(struct zones *zs, uint64_t zsze, uint64_t zcap, uint32_t nr, uint32_t max_open,
	       uint32_t max_active);
void zones_free(struct zones *zs);

/*
 * From here on ADVANCE is told of every move of a zone's wp_done by a write, before the write comes
 * back and never after a reset has begun. Called under zones->lock: it takes no lock and no time.
 */
void zones_tell(struct zones *zs, void (*advance)(void *arg, uint32_t zone, uint64_t wp_done),
		void *arg);

/* At open, before other threads: ZONE was left with this write pointer. Empty, Closed or Full. */
void zones_load(struct zones *zs, uint32_t zone, uint64_t wp);

static inline uint32_t zone_of(const struct zones *zs, uint64_t lba)
{
	return (uint32_t)(lba >> zs->zshift);
}

static inline uint64_t zone_start(const struct zones *zs, uint32_t zone)
{
	return (uint64_t)zone << zs->zshift;
}

/*
 * A write of io->nlb LBAs at io->lba, or an append to the zone starting there; the caller has
 * checked the range, and that an append's LBA is a zone's start. On success the LBAs are io's
 * alone (io->lba says where they are), to be written and then ended. ZONE_WAIT: will be retried.
 */
uint16_t zone_write_begin(struct zones *zs, struct zone_io *io, bool append);

/*
 * The write has ended, with STATUS. What is to be done now, for this command and others, is
 * added to OUT: writes come back in LBA order.
 */
void zone_write_end(struct zones *zs, struct zone_io *io, uint16_t status, struct zone_items *out);

/* A read of any LBAs of the namespace; keeps resets out of its zones until it has ended. */
uint16_t zone_read_begin(struct zones *zs, struct zone_io *io);
/* The same for what can be read at once: false, and nothing happened, unless all of it lies in one
 * zone, has been written, and nothing is to be waited for. */
bool zone_read_try(struct zones *zs, struct zone_io *io);
void zone_read_end(struct zones *zs, struct zone_io *io, struct zone_items *out);

/*
 * Of the NLB LBAs from LBA on, how many are in its zone; *VALID of these have been written, the
 * rest reads as zeroes. Between read begin and end *VALID can only grow.
 */
uint32_t zone_read_span(struct zones *zs, uint64_t lba, uint32_t nlb, uint32_t *valid);

/*
 * Zone Management Send: ACTION on ZONE or ZONE_ALL. Open, close and offline are done on return.
 * Reset and finish have claimed claim->nr zones: if it is 0 there is nothing to do; else the
 * caller walks them with zone_claim_next(), ends each with zone_claim_done(), and the whole with
 * zone_claim_end(). ZONE_WAIT: the claim will come back, to be started or retried.
 */
uint16_t zone_manage(struct zones *zs, struct zone_claim *claim, uint32_t zone, uint8_t action);

/* The first claimed zone from FROM on, with its write pointer, or ZONE_NONE. */
uint32_t zone_claim_next(struct zones *zs, struct zone_claim *claim, uint32_t from, uint64_t *wp);

enum zone_outcome {
	ZONE_OK,	/* it is done */
	ZONE_UNCHANGED, /* it failed, and the zone is as it was */
	ZONE_BROKEN,	/* it failed half way: the zone becomes Read Only */
};
void zone_claim_done(struct zones *zs, struct zone_claim *claim, uint32_t zone,
		     enum zone_outcome outcome);
void zone_claim_end(struct zones *zs, struct zone_claim *claim, struct zone_items *out);

/* What a report shows of a zone. WP is UINT64_MAX where the spec says it is not valid. */
struct zone_info {
	uint64_t start, wp;
	uint8_t state;
};
/* Copies N zones from FIRST on; the caller keeps N small, the lock is held meanwhile. */
void zones_snapshot(struct zones *zs, uint32_t first, uint32_t n, struct zone_info *out);

uint32_t zones_nr_open(struct zones *zs);
uint32_t zones_nr_active(struct zones *zs);
uint32_t zones_count(struct zones *zs, uint8_t state);

/* Ends a zone's life outside of the host's commands: Read Only, or Offline. For tests, faults. */
void zone_retire(struct zones *zs, uint32_t zone, bool offline);

/* Recounts everything that is derived; aborts if it differs. Debug builds also call it inside. */
void zones_assert(struct zones *zs);

#endif
