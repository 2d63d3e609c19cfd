/* SPDX-License-Identifier: MIT */
/*
 * Types and functions that the files of target/ share; other rooms include target.h. The sections
 * are in the order in which a command reaches the files.
 *
 * Lock order: tgt->lock, subsys->lock, ctrl->lock. Each is held briefly, never across I/O, and
 * never while a request executes. docs/threads.md lists all locks.
 *
 * A function whose name ends in _locked requires the lock that its comment names. The others take
 * the locks that they need.
 */
#ifndef TARGET_CORE_H
#define TARGET_CORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include "target.h"

#define TGT_CSI_MAX   8	       /* command sets a target can have */
#define TGT_MAX_CTRLS 1024     /* controllers of one subsystem at a time */
#define TGT_KAS_MS    1000     /* granularity of keep alive times: KAS 10 */
#define TGT_DISC_IDLE 120000   /* ms without a command, after which a discovery controller ends */
#define TGT_CAP_TO    30       /* 500 ms units: 15 s */
#define TGT_VS	      0x020000 /* NVMe 2.0 */

#define NVME_CMD_FLUSH	0x00 /* the same opcode in every I/O command set */
#define NVME_CMD_WRITE	0x01
#define NVME_CMD_READ	0x02
#define NVME_CMD_APPEND 0x7d

/* target.c */
struct tgt {
	uint64_t started_ms;
	const struct tgt_command_set *sets[TGT_CSI_MAX]; /* by CSI; fixed before serving */
	pthread_mutex_t lock; /* protects what follows; taken before any subsys->lock */
	struct tgt_port *ports;
	LIST_HEAD(, tgt_subsys) subsystems;
	struct tgt_subsys *discovery; /* not in the list */
	uint64_t genctr;	      /* of the discovery log */
};

/* The command set with this CSI, or NULL. */
static inline const struct tgt_command_set *tgt_command_set(struct tgt *tgt, uint32_t csi)
{
	return csi < TGT_CSI_MAX ? tgt->sets[csi] : NULL;
}

/* subsystem.c */
struct tgt_host {
	SLIST_ENTRY(tgt_host) link;
	char nqn[TGT_NQN_LEN + 1];
};

struct tgt_subsys {
	struct tgt *tgt;
	LIST_ENTRY(tgt_subsys) link;
	char nqn[TGT_NQN_LEN + 1];
	char serial[21]; /* from the NQN: the same after a restart */
	bool discovery;
	_Atomic(struct tgt_ns *)
		ns[TGT_NSID_MAX + 1]; /* by nsid; added, never removed, while serving */
	atomic_bool write_cache;      /* a namespace has a volatile one */
	pthread_mutex_t lock;	      /* protects what follows */
	SLIST_HEAD(, tgt_host) hosts;
	LIST_HEAD(, tgt_ctrl) ctrls; /* that have not ended */
	unsigned int nr_ctrls;
	uint16_t last_cntlid;
	/*
	 * Controllers that have dying queues: queues that are closed, or whose controller has
	 * ended, and that still have requests in flight. An admin Connect waits while one of these
	 * controllers belongs to its own host, so that a late write of the old association cannot
	 * overwrite one of the new.
	 */
	LIST_HEAD(, tgt_ctrl) dying;
	TAILQ_HEAD(, connect_wait) waiting;
	struct tgt_counters retired; /* sums of detached queues; under the lock */
};

/* Creates a subsystem, which the caller adds to TGT. NULL: out of memory. */
struct tgt_subsys *tgt_subsys_new(struct tgt *tgt, const char *nqn, bool discovery);
/* Frees SUBSYS, which has no controller and no namespace any more. */
void tgt_subsys_free(struct tgt_subsys *subsys);
/* Looks up a subsystem by NQN; NULL: there is none. It exists as long as the target. Any thread. */
struct tgt_subsys *tgt_subsys_find(struct tgt *tgt, const char *nqn);
/* Whether the host may connect: it is in subsys->hosts, or that list is empty. */
bool tgt_host_allowed(struct tgt_subsys *subsys, const char *hostnqn);
bool tgt_host_allowed_locked(struct tgt_subsys *subsys, const char *hostnqn);

/*
 * Looks up a namespace; NULL: there is none. The caller ends its use by tgt_ns_put(). Nothing is
 * counted, since no namespace is removed while the target serves.
 */
static inline struct tgt_ns *tgt_ns_get(struct tgt_subsys *subsys, uint32_t nsid)
{
	if (nsid > TGT_NSID_MAX)
		return NULL;
	return atomic_load_explicit(&subsys->ns[nsid], memory_order_acquire);
}

static inline void tgt_ns_put(struct tgt_ns *ns)
{
	(void)ns;
}

/* The active namespace with the lowest nsid above NSID, or NULL. */
struct tgt_ns *tgt_ns_next(struct tgt_subsys *subsys, uint32_t nsid);

/* Adds the counters of all queues, attached or not any more, to SUM. subsys->lock held. */
void subsys_count_locked(struct tgt_subsys *subsys, struct tgt_counters *sum);

/* ctrl.c */
enum ctrl_event { CTRL_EVENT_NS, CTRL_EVENT_DISCOVERY, CTRL_EVENTS };

struct ctrl_slot {
	struct tgt_queue *queue; /* NULL: free */
	bool dying;		 /* counted in nr_dying; subsys->lock */
};

struct tgt_ctrl {
	struct tgt_subsys *subsys;
	struct tgt *tgt;
	LIST_ENTRY(tgt_ctrl) link;	 /* subsys->lock */
	LIST_ENTRY(tgt_ctrl) dying_link; /* in subsys->dying if nr_dying is not 0; subsys->lock */
	unsigned int nr_dying;		 /* slots that are dying; subsys->lock */
	atomic_uint refs;		 /* attached queues, and the flush of a shutdown */
	uint16_t cntlid;
	uint8_t hostid[16];
	char hostnqn[TGT_NQN_LEN + 1];

	atomic_bool dead;  /* it has ended: no request of it executes any more */
	atomic_bool ready; /* CSTS.RDY and CC.EN */
	atomic_bool iocs;  /* CC.CSS 6: all command sets, not just NVM */
	/*
	 * Keep alive (ctrl.c): the last moment, by clock_boot_ms(), at which a command of this
	 * controller may take effect, unless a command arrives before it and moves it. UINT64_MAX:
	 * there is no limit. The loop of every queue checks it.
	 */
	_Atomic uint64_t deadline;
	_Atomic uint32_t kato_ms; /* 0: none. Written by the admin queue's loop. */

	/* The admin queue's loop only. */
	struct loop_timer timer;

	pthread_mutex_t lock; /* protects what follows */
	uint32_t cc, csts;
	bool flushing; /* the flush of a shutdown runs */
	struct ctrl_slot queues[TGT_MAX_QUEUES];
	unsigned int nr_io;	/* I/O queues attached */
	uint32_t features[256]; /* CDW11 as set, for features that only store a value */
	uint32_t temp_under;
	struct tgt_req *aers[TGT_AERS];
	unsigned int nr_aers;
	uint32_t pending, masked; /* bits of enum ctrl_event */
	uint8_t changed_ns[TGT_NSID_MAX / 8 + 1];
};

/*
 * Creates a controller for an admin Connect, with a keep alive time of KATO ms and ADMIN as its
 * queue 0, which holds the first reference. NULL: *STATUS has the reason. ADMIN's loop;
 * subsys->lock held.
 */
struct tgt_ctrl *ctrl_new_locked(struct tgt_subsys *subsys, const struct nvmf_connect_data *data,
				 uint32_t kato, struct tgt_queue *admin, uint16_t *status);
/* Drops a reference; the last one frees CTRL. Any thread, without locks. */
void ctrl_put(struct tgt_ctrl *ctrl);
/*
 * Attaches an I/O queue as QID, with a reference. 0, or the status with which Connect fails.
 * subsys->lock held.
 */
uint16_t ctrl_attach_locked(struct tgt_ctrl *ctrl, struct tgt_queue *queue, uint16_t qid);
/*
 * Removes a closed (or deleted) queue that has no request in flight from its controller, and drops
 * its reference. The queue's loop.
 */
void ctrl_detach(struct tgt_queue *queue);
/*
 * Ends the controller: disconnects all its queues; no request of it executes from now on. WHY is
 * logged. Further calls do nothing. Any thread.
 */
void ctrl_end(struct tgt_ctrl *ctrl, const char *why);
/* Marks a closed queue as dying, until ctrl_detach() removes it. The queue's loop. */
void ctrl_queue_closed(struct tgt_queue *queue);
/* Whether this host has dying queues in SUBSYS. subsys->lock held. */
bool ctrl_host_is_dying_locked(struct tgt_subsys *subsys, const char *hostnqn);
/*
 * Property Get and Set (NVMe Base 2.0, 6.5, 6.6 and 3.1.3) of the property at byte OFFSET; WIDE: it
 * is accessed as 8 bytes, not 4. Returns 0 or a status; after an error *VALUE is unchanged. The
 * admin queue's loop.
 */
uint16_t ctrl_property_get(struct tgt_ctrl *ctrl, uint32_t offset, bool wide, uint64_t *value);
uint16_t ctrl_property_set(struct tgt_ctrl *ctrl, uint32_t offset, bool wide, uint64_t value);
/*
 * Sets the keep alive time in ms, rounded up to TGT_KAS_MS, and starts its timer; 0: no keep alive,
 * or TGT_DISC_IDLE for a discovery controller. 0, or -ENOMEM: unchanged. The admin queue's loop.
 */
int ctrl_set_kato(struct tgt_ctrl *ctrl, uint64_t kato_ms);
/* For ctrl_heard(): moves the deadline from DEADLINE by KATO_MS. Any loop. */
void ctrl_extend(struct tgt_ctrl *ctrl, uint64_t deadline, uint32_t kato_ms);
/*
 * Notes the arrival of a command in a wake-up that read the clock (clock_boot_ms()) at NOW: the
 * first one of an interval moves the deadline. Any loop.
 */
static inline void ctrl_heard(struct tgt_ctrl *ctrl, uint64_t now)
{
	uint64_t deadline = atomic_load(&ctrl->deadline);
	uint32_t kato_ms = atomic_load(&ctrl->kato_ms);

	if (deadline - now <= kato_ms)
		ctrl_extend(ctrl, deadline, kato_ms);
}
/* Whether the keep alive time of CTRL was over at NOW (clock_boot_ms()). Any loop. */
static inline bool ctrl_is_overdue(const struct tgt_ctrl *ctrl, uint64_t now)
{
	return now > atomic_load(&ctrl->deadline);
}
/* Ends the controller of QUEUE, if it has one that was overdue at NOW. The queue's loop. */
void ctrl_look(struct tgt_queue *queue, uint64_t now);

/* event.c */
/* Executes an Asynchronous Event Request. The admin queue's loop. */
void event_execute_aer(struct tgt_req *req);
/*
 * Reports an event to the host by an AER, once until the host reads the log page, unless AEC
 * disables it. Any thread.
 */
void ctrl_event_raise(struct tgt_ctrl *ctrl, enum ctrl_event event);
/* Increments GENCTR of the discovery log and raises the event. tgt->lock held. */
void tgt_discovery_changed_locked(struct tgt *tgt);
/* Re-enables an event after the host read its log page with RAE 0. ctrl->lock held. */
void ctrl_event_seen_locked(struct tgt_ctrl *ctrl, enum ctrl_event event);
/*
 * Removes the outstanding AERs, stores them in REQS (TGT_AERS entries) and returns their number.
 * The caller completes them.
 */
unsigned int ctrl_take_aers(struct tgt_ctrl *ctrl, struct tgt_req **reqs);
#define AEC_NS	      (1u << 8)
#define AEC_DISCOVERY (1u << 31)

/* flush.c */
/*
 * Flushes every namespace of SUBSYS, then calls DONE on LOOP with 0 or the first error status.
 * -ENOMEM: nothing was started. LOOP's thread.
 */
int flush_all(struct tgt_subsys *subsys, struct loop *loop,
	      void (*done)(void *arg, uint16_t status), void *arg);

/* request.c: whether QUEUE is open and its controller, if any, has not ended. The queue's loop. */
bool queue_may_execute(const struct tgt_queue *queue);

/* Parsers: each sets req->execute, dir and len and returns 0, or returns an error status. */
uint16_t fabrics_parse_connect(struct tgt_req *req);
uint16_t fabrics_parse(struct tgt_req *req);
uint16_t admin_parse(struct tgt_req *req);
uint16_t discovery_parse(struct tgt_req *req);
uint16_t identify_parse(struct tgt_req *req);
uint16_t features_parse_get(struct tgt_req *req);
uint16_t features_parse_set(struct tgt_req *req);
uint16_t log_page_parse(struct tgt_req *req);
void admin_execute_keep_alive(struct tgt_req *req);

/* fabrics.c */
/* Resumes the held Connects of this host, each on its own loop. subsys->lock held. */
void fabrics_wake_waiting_locked(struct tgt_subsys *subsys, const char *hostnqn);
/* Aborts the held Connect of QUEUE, which is closing. The queue's loop. */
void fabrics_drop_waiting(struct tgt_queue *queue);
void fabrics_execute_disconnect(struct tgt_req *req);

/* features.c, for log page 12h: whether CTRL has feature FID; *CHANGEABLE: it can be set. */
bool feature_is_known(struct tgt_ctrl *ctrl, uint8_t fid, bool *changeable);

/*
 * discovery_log.c: builds the whole discovery log for the host of CTRL, in *SIZE bytes that the
 * caller frees. NULL: out of memory.
 */
void *discovery_log(struct tgt_ctrl *ctrl, struct tgt_queue *queue, uint64_t *size);

static inline uint32_t req_cdw10(const struct tgt_req *req)
{
	return le32toh(req->cmd.cdw10);
}

static inline uint32_t req_cdw11(const struct tgt_req *req)
{
	return le32toh(req->cmd.cdw11);
}

static inline void req_set_result(struct tgt_req *req, uint64_t result)
{
	req->cqe.result = htole64(result);
}

#endif
