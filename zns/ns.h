/* SPDX-License-Identifier: MIT */
/*
 * The namespace and the functions that the files of zns/ share; other rooms include zns.h.
 */
#ifndef ZNS_NS_H
#define ZNS_NS_H

#include <assert.h>
#include <stdatomic.h>
#include "loop.h"
#include "store.h"
#include "target.h"
#include "zns.h"
#include "zone.h"

/* flush.c: one flush of the store at a time, shared by all who wait for it. */
struct zns_flusher {
	pthread_mutex_t lock;	   /* protects waiting and running; a leaf */
	struct zone_items waiting; /* requests that arrived since the running flush began */
	bool running;
	/* Of the flush that runs: the worker's, then its loop's. */
	struct zone_items batch;
	int err;
	atomic_bool trim; /* it is to trim, too */
	struct work work;
};

/* flush.c: what a worker does for the store in the background, one work item at a time. */
struct zns_housekeeper {
	struct work work;
	atomic_bool running;
	atomic_bool again; /* asked for while it ran */
	bool due;	   /* the worker's, then its loop's: a flush should run */
};

/* flush.c: the timer that writes back when the host does not flush. */
struct zns_idle {
	struct loop *loop;	   /* where the timer runs */
	struct loop_timer timer;   /* loop's */
	struct loop_msg msg;	   /* to arm it from elsewhere */
	uint64_t since;		   /* clock_boot_ms() when it was first armed; loop's */
	bool trims;		   /* when it fires next: there was no change for long; loop's */
	atomic_bool armed;	   /* msg is under way, or the timer set */
	atomic_bool dirty;	   /* the store has something that a flush would make durable */
	_Atomic uint64_t touched;  /* clock_boot_ms() of the last change */
	_Atomic uint32_t retry_ms; /* how long after the last flush, which failed; 0: it did not */
};

struct zns {
	struct tgt_ns ns; /* first */
	struct store *store;
	struct zones zones;
	uint64_t nsze; /* LBAs */
	uint32_t lba_shift;
	bool writethrough;
	struct zns_flusher flusher;
	struct zns_housekeeper housekeeper;
	struct zns_idle idle;
	/* A mapping faulted: from now on data is copied, and the host gets errors. */
	atomic_bool no_zero_copy;
	/* Until this time (clock_ns()) writes go to the workers, because one has blocked. */
	_Atomic uint64_t slow_until;
	_Atomic uint64_t watch_until; /* until this time slow writes are checked for blocking */
};

static_assert(LOOP_MAX <= READERS_LOOPS, "");

/* What a command keeps in req->set_data. */
union zns_cmd {
	struct zone_item item; /* the first member of both */
	struct zone_io io;
	struct zone_claim claim;
};
static_assert(sizeof(union zns_cmd) <= sizeof(((struct tgt_req *)0)->set_data), "");

static inline struct zns *ns_zns(struct tgt_ns *ns)
{
	return (struct zns *)ns;
}

static inline struct zns *req_zns(const struct tgt_req *req)
{
	return ns_zns(req->ns);
}

static inline union zns_cmd *req_cmd(struct tgt_req *req)
{
	return (union zns_cmd *)req->set_data;
}

static inline const union zns_cmd *req_cmd_const(const struct tgt_req *req)
{
	return (const union zns_cmd *)req->set_data;
}

static inline struct tgt_req *item_req(struct zone_item *item)
{
	return (struct tgt_req *)((char *)item - offsetof(struct tgt_req, set_data));
}

static inline struct tgt_req *work_req(struct work *w)
{
	return (struct tgt_req *)((char *)w - offsetof(struct tgt_req, work));
}

static inline struct tgt_req *aio_req(struct aio *a)
{
	return (struct tgt_req *)((char *)a - offsetof(struct tgt_req, aio));
}

static inline struct tgt_req *msg_req(struct loop_msg *msg)
{
	return (struct tgt_req *)((char *)msg - offsetof(struct tgt_req, msg));
}

static inline uint64_t req_slba(const struct tgt_req *req)
{
	return (uint64_t)le32toh(req->cmd.cdw11) << 32 | le32toh(req->cmd.cdw10);
}

/* CDW12 of a read, write or append. */
static inline bool req_fua(const struct tgt_req *req)
{
	return le32toh(req->cmd.cdw12) >> 16 & NVME_IO_FUA;
}

/* cmd.c */
uint16_t zns_parse(struct tgt_req *req);
bool zns_zero_copy(struct tgt_req *req);
void zns_zero_copy_end(struct tgt_req *req);
int zns_copy_out(struct tgt_req *req, void *buf);
void zns_run_writes(struct tgt_reqs *reqs);

/* status.c */
uint16_t zns_check_range(const struct zns *zns, uint64_t slba, uint64_t nlb);
/* Maps a negative errno of the store to an NVMe status, and logs it. */
uint16_t store_status(const struct zns *zns, int err, bool write);

/* finish.c */
/* Completes, starts or retries requests that the zones returned, each on its own loop. Any loop. */
void zns_dispatch_items(struct zone_items *items);
static inline void zns_dispatch(struct zone_items *items)
{
	if (items->first) /* of a read there seldom is one */
		zns_dispatch_items(items);
}
/*
 * Ends a command with STATUS. If it succeeded and must be durable (FUA, writethrough), it completes
 * after the next flush, otherwise at once. Any loop.
 */
void zns_finish(struct tgt_req *req, uint16_t status);

/* mgmt.c: Zone Management Send */
uint16_t zns_parse_mgmt_send(struct tgt_req *req);

/* report.c: Zone Management Receive */
uint16_t zns_parse_mgmt_recv(struct tgt_req *req);

/* flush.c */
int zns_flusher_init(struct zns *zns, struct loop *loop);
void zns_flusher_free(struct zns *zns);
void zns_exec_flush(struct tgt_req *req);
void zns_complete_flushed(struct tgt_req *req); /* completes it after the next flush. Any loop. */
/*
 * Notes a change, made at about NOW (clock_boot_ms()), that needs a flush: starts the timer of the
 * idle write-back. Any loop.
 */
void zns_mark_dirty(struct zns *zns, uint64_t now);
/* Call after a reset or finish: a worker frees what it can, and a flush begins if one is due. */
void zns_housekeep(struct zns *zns);
int zns_flush_store(struct zns *zns); /* the flush itself: 0 or -errno; blocks; one at a time */

/* identify.c */
void zns_identify_ns(struct tgt_ns *ns, struct nvme_id_ns *id);
void zns_identify_ns_csi(struct tgt_ns *ns, void *id);
void zns_identify_ctrl_csi(void *id);
void zns_effects(struct nvme_cmd_effects_log *log);

#endif
