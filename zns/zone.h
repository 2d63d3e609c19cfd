/* SPDX-License-Identifier: MIT */
/*
 * The zone state machine: states, write pointers, limits, and which commands may use a zone at the
 * same time. It does no I/O, sees no commands and has no threads; zone.c begins with the rules, and
 * docs/zones.md has the diagrams.
 *
 * All addresses and lengths are LBAs. Functions that return uint16_t return 0, an NVMe status (with
 * DNR where a retry is useless), or ZONE_WAIT. Any thread may call any function: zones->lock is
 * taken inside, for tens of nanoseconds, and is never held across I/O. Reads within a zone do not
 * take it, unless a reset or finish waits for them.
 */
#ifndef ZNS_ZONE_H
#define ZNS_ZONE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "nvme.h"
#include "readers.h"

#define ZONE_NONE   UINT32_MAX
#define ZONE_ALL    UINT32_MAX /* Select All, where a zone number is asked */
#define ZONES_MAX   (1u << 20)
#define ZONE_STATES 16 /* enum nvme_zns_zs, 1 to Fh */

/* Not an NVMe status: the command has to wait, and comes back in a list of items. */
#define ZONE_WAIT 0xffff

/* A status of type Media and Data Integrity Errors: libnvme only has the code. */
#define ZONE_MEDIA_STATUS(sc) (NVME_SCT_MEDIA << NVME_SCT_SHIFT | (sc))

/*
 * The part of a command that the zones keep while it waits or runs: the first member of zone_io and
 * of zone_claim. It comes back in a list exactly once, and EVENT says what to do with the command.
 */
enum zone_event {
	ZONE_COMPLETE, /* a write has ended: complete it with STATUS */
	ZONE_START,    /* the zones of a claim are quiet: do the work */
	ZONE_RETRY,    /* what it waited for has ended: execute the command again */
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

/* A read or write in flight. The caller keeps it in memory from begin until it has come back. */
struct zone_io {
	struct zone_item item; /* first: a write on its zone's queue, in LBA order */
	uint64_t lba;	       /* where it is written: set by zone_write_begin() */
	uint32_t nlb;
	bool ended;
	bool counted; /* a read: in zones->readers */
	uint8_t loop; /* a read: the index of the loop that begins and ends it */
};

/* A reset or finish, which has exclusive use of its zones; other commands wait for it. */
struct zone_claim {
	struct zone_item item; /* first */
	struct zone_item *waiting, **waiting_last;
	struct zone_claim *next; /* zones->claims */
	uint32_t zone;		 /* or ZONE_ALL */
	uint32_t nr;		 /* zones claimed; 0 after zone_manage(): nothing to do */
	uint32_t busy;	   /* claimed zones that are not quiet yet, and buckets that are draining */
	uint32_t closed;   /* buckets of zones->readers, a bit each: closed by this claim */
	uint32_t draining; /* those of them that had reads in flight when last checked */
	uint8_t action;	   /* enum nvme_zns_send_action */
};

struct zone {
	uint64_t wp;		      /* the next LBA to assign: what Report Zones shows */
	_Atomic uint64_t wp_done;     /* all LBAs below are written, and may be read and recorded */
	struct zone_io *first, *last; /* writes in flight, in LBA order */
	uint32_t prev,
		next;	  /* zones in the same state, except Empty; Implicitly Open: in LRU order */
	uint32_t readers; /* in flight, of those that zones->readers does not count */
	_Atomic uint8_t state; /* enum nvme_zns_zs; written by zone_set_state() alone */
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

	struct readers *readers;
	/*
	 * Protects all that follows; a leaf, never held across I/O. A zone's wp_done and state are
	 * also read without it.
	 */
	pthread_mutex_t lock;
	struct zone *zone;
	struct zone_list in[ZONE_STATES];
	uint32_t nr[ZONE_STATES]; /* zones in each state */
	struct zone_claim *claims;
};

/*
 * Initialises NR Empty zones. ZSZE is a power of two, 0 < ZCAP <= ZSZE, 0 < NR <= ZONES_MAX.
 * max_open is lowered to max_active, because an open zone is active. 0 or -ENOMEM.
 */
int zones_init(struct zones *zs, uint64_t zsze, uint64_t zcap, uint32_t nr, uint32_t max_open,
	       uint32_t max_active);
void zones_free(struct zones *zs);

/*
 * Calls ADVANCE from now on whenever a write moves a zone's wp_done: before that write comes
 * back, and never while a reset runs. It is called under zones->lock, so it must be short and
 * take no lock.
 */
void zones_tell(struct zones *zs, void (*advance)(void *arg, uint32_t zone, uint64_t wp_done),
		void *arg);

/* At open, before other threads: sets the write pointer of ZONE, which is Empty, Closed or Full. */
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
 * Begins a write of io->nlb LBAs at io->lba, or an append to the zone that starts there. The caller
 * has checked the range, and that an append's LBA is the start of a zone. On success the LBAs from
 * io->lba on are reserved for IO; the caller writes them and calls zone_write_end(). ZONE_WAIT: the
 * command will be retried.
 */
uint16_t zone_write_begin(struct zones *zs, struct zone_io *io, bool append);

/*
 * Ends a write with STATUS. Appends to OUT all items that have to be handled now, of this command
 * and of others; writes of a zone come back in LBA order.
 */
void zone_write_end(struct zones *zs, struct zone_io *io, uint16_t status, struct zone_items *out);
/* As zone_write_end() for each of the NR writes of one zone, with the lock taken once. */
void zone_writes_end(struct zones *zs, struct zone_io *const *ios, unsigned int nr, uint16_t status,
		     struct zone_items *out);

/*
 * Begins a read of any LBAs of the namespace. Resets of its zones wait until it has ended; the
 * thread that begins it ends it. Appends to OUT the items that have to be handled now: claims,
 * never IO itself.
 */
uint16_t zone_read_begin(struct zones *zs, struct zone_io *io, struct zone_items *out);
/*
 * Begins a read that can be done at once: all of it is in one zone and written, and no claim is in
 * the way. False: it was not begun. As zone_read_begin() otherwise.
 */
bool zone_read_try(struct zones *zs, struct zone_io *io, struct zone_items *out);
void zone_read_end(struct zones *zs, struct zone_io *io, struct zone_items *out);

/*
 * Returns how many of the NLB LBAs from LBA on are in the same zone. *VALID of these have been
 * written, the others read as zeroes. Between the begin and the end of a read *VALID can only grow.
 */
uint32_t zone_read_span(struct zones *zs, uint64_t lba, uint32_t nlb, uint32_t *valid);

/*
 * Zone Management Send: performs ACTION on ZONE or ZONE_ALL. Open, close and offline are done on
 * return. Reset and finish have claimed claim->nr zones. If that is 0 there is nothing to do;
 * otherwise the caller iterates over them with zone_claim_next(), calls zone_claim_done() for each,
 * and at last zone_claim_end(). ZONE_WAIT: the claim comes back later, to be started or retried.
 */
uint16_t zone_manage(struct zones *zs, struct zone_claim *claim, uint32_t zone, uint8_t action);

/* The first claimed zone from FROM on, with its write pointer, or ZONE_NONE. */
uint32_t zone_claim_next(struct zones *zs, struct zone_claim *claim, uint32_t from, uint64_t *wp);

enum zone_outcome {
	ZONE_OK,	/* it is done */
	ZONE_UNCHANGED, /* it failed and changed nothing */
	ZONE_BROKEN,	/* it failed in part: the zone becomes Read Only */
};
void zone_claim_done(struct zones *zs, struct zone_claim *claim, uint32_t zone,
		     enum zone_outcome outcome);
void zone_claim_end(struct zones *zs, struct zone_claim *claim, struct zone_items *out);

/* What a report shows of a zone. WP is UINT64_MAX where the spec says it is not valid. */
struct zone_info {
	uint64_t start, wp;
	uint8_t state;
};
/* Copies N zones from FIRST on. The lock is held meanwhile, so the caller keeps N small. */
void zones_snapshot(struct zones *zs, uint32_t first, uint32_t n, struct zone_info *out);

uint32_t zones_nr_open(struct zones *zs);
uint32_t zones_nr_active(struct zones *zs);
uint32_t zones_count(struct zones *zs, uint8_t state);

/* Makes a zone Read Only or Offline, independent of commands. For tests and faults. */
void zone_retire(struct zones *zs, uint32_t zone, bool offline);

/* Recomputes all derived state and aborts if it differs. Debug builds also call it internally. */
void zones_assert(struct zones *zs);
void zones_assert_locked(struct zones *zs); /* the same, under zones->lock */

#endif
