/* SPDX-License-Identifier: MIT */
/*
 * The types and functions of the NVMe controller: subsystem, controller, queue, namespace, request,
 * and two tables of callbacks, one that a transport implements and one that a command set
 * implements. target/ contains no code for sockets, zones or files.
 *
 * The steps of a request:
 *
 *	transport: receives a capsule, takes a free slot, copies the SQE to req->cmd
 *	tgt_req_init()		parses the SQE: sets execute, dir and len, or returns a status
 *	tgt_req_zero_copy()	may make the data zero-copy: a write then needs no buffer, and a
 *				read needs neither of the next two steps
 *	transport: provides req->buf; receives the data if dir is TGT_H2C
 *	tgt_req_execute()	on the queue's loop
 *	tgt_req_complete()	fills req->cqe and calls ops->respond: the transport sends data
 *				and CQE, then calls tgt_req_put(), and the slot is free
 *
 * Threads: a queue and its requests belong to one loop. Controllers and subsystems are shared and
 * have locks (docs/threads.md).
 */
#ifndef TARGET_TARGET_H
#define TARGET_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "aio.h"
#include "log.h"
#include "nvme.h"
#include "work.h"

struct tgt;
struct tgt_subsys;
struct tgt_ctrl;
struct tgt_queue;
struct tgt_ns;
struct tgt_req;
struct connect_wait;

#define TGT_NQN_LEN	 223 /* NVMe Base 2.0, 4.5: longest NQN */
#define TGT_MAX_QUEUES	 129 /* admin and 128 I/O */
#define TGT_QUEUE_DEPTH	 128 /* entries of an I/O queue; CAP.MQES + 1 */
#define TGT_ADMIN_DEPTH	 32
#define TGT_AERS	 4
#define TGT_MDTS	 8 /* 2^8 pages of 4 KiB: 1 MiB */
#define TGT_MAX_TRANSFER (4096u << TGT_MDTS)
#define TGT_INCAPSULE	 8192 /* bytes of in-capsule data, every queue */
/* ms a Connect waits for the queues of ended associations; a transport must give Connect longer */
#define TGT_CONNECT_WAIT 8000
#define TGT_NSID_MAX	 1024 /* NN */

enum tgt_dir { TGT_NONE, TGT_H2C, TGT_C2H };
/* Where req->buf is. */
enum tgt_data_path {
	TGT_BUFFERED,  /* a buffer of the transport */
	TGT_ZERO_COPY, /* the command set's mapping of the image, which may fault (SIGBUS) */
	TGT_FAULTED    /* as TGT_ZERO_COPY, and it did, or a system call failed on it with EFAULT */
};

/* One NVMe command, embedded in the transport's command slot. */
struct tgt_req {
	struct nvme_sqe cmd;
	struct nvme_cqe cqe;
	struct tgt_queue *queue;
	struct tgt_ns *ns; /* NULL for admin and fabrics; held until the request is put */
	void *buf;	   /* len bytes; the transport's is 4096-aligned when len >= 4096 */
	enum tgt_data_path zero_copy;
	/* Set by the parser: execute() accepts data in place, and may defer to run_batch(). */
	bool may_batch;
	/*
	 * Where the data lies in the transport's receive buffer; NULL: it is in BUF. Valid until
	 * tgt_queue_batch_end() returns or tgt_req_copy_in() is called.
	 */
	const void *in_place;
	uint32_t len; /* bytes of data the command moves, known after tgt_req_init() */
	enum tgt_dir dir;
	void (*execute)(struct tgt_req *); /* set by tgt_req_init() */
	STAILQ_ENTRY(tgt_req) link;	   /* the command set's, while it is in queue->batch */
	struct work work;
	struct aio aio;
	struct loop_msg msg;  /* tgt_req_complete_remote() */
	uint16_t status;      /* carried from work() to done() */
	uint64_t set_data[8]; /* the command set's own */
};

STAILQ_HEAD(tgt_reqs, tgt_req);

/*
 * What a queue has moved, in the units of the SMART log. Only the queue's loop writes, so that no
 * two loops write the same memory; other threads may read.
 */
struct tgt_counters {
	_Atomic uint64_t blocks_read, blocks_written; /* 512 bytes each */
	_Atomic uint64_t reads, writes;		      /* commands */
};

/* A connection as the target sees it; embedded in the transport's. */
struct tgt_queue {
	const struct tgt_transport_ops *ops;
	struct tgt *tgt;
	struct loop *loop;
	struct tgt_port
		*port; /* where it was accepted; with the address used, if that listens on all */
	struct tgt_ctrl *ctrl; /* NULL before Connect */
	uint16_t qid;
	uint16_t sqsize; /* entries, after Connect */
	uint16_t sqhd;
	bool sqhd_disabled; /* Connect CATTR bit 2: SQ flow control is off */
	bool closing;
	uint32_t inflight; /* requests between tgt_req_init() and tgt_req_put() */
	bool deleted; /* by the Disconnect command: as closing, but the connection is still there */
	bool batching;	   /* between tgt_queue_batch_begin() and tgt_queue_batch_end() */
	uint64_t taken_ms; /* when the last tgt_queue_batch_begin() was, by clock_boot_ms() */
	struct tgt_reqs batch;
	struct tgt_counters counters;
	struct connect_wait *waiting; /* a Connect held back (fabrics.c) */
};

/* All members are required. */
struct tgt_transport_ops {
	const char *name;
	/* Sends the response, after req->buf for a successful TGT_C2H request. The queue's loop. */
	void (*respond)(struct tgt_req *req);
	/*
	 * Closes the connection asynchronously; the transport then calls tgt_queue_close(). The
	 * target calls this from any thread and with locks held, so it may only post a message and
	 * must not call the target. The target does not call it after tgt_queue_close() has
	 * returned.
	 */
	void (*disconnect)(struct tgt_queue *queue);
	/*
	 * Has the transport call tgt_req_copy_out() soon, on the queue's loop, for all responses
	 * whose zero-copy data is not sent yet. Called from any thread, under the same rules as
	 * disconnect().
	 */
	void (*copy_out)(struct tgt_queue *queue);
};

/* Where the target can be reached; for the discovery log. */
struct tgt_port {
	uint16_t id;
	uint8_t adrfam;	  /* NVMF_ADDR_FAMILY_IP4 or _IP6 */
	char traddr[256]; /* as text */
	char trsvcid[32]; /* the port actually bound */
	struct tgt_port *next;
};

/* A command set: one static table each; all members are required. */
struct tgt_command_set {
	uint8_t csi; /* NVME_CSI_NVM, NVME_CSI_ZNS */
	/*
	 * Parses an I/O command, whose req->ns is set: sets req->execute, dir and len and returns
	 * 0, or returns a status.
	 */
	uint16_t (*parse)(struct tgt_req *req);
	void (*identify_ns)(struct tgt_ns *ns, struct nvme_id_ns *id); /* CNS 00h; ID is zeroed */
	void (*identify_ns_csi)(struct tgt_ns *ns, void *id); /* CNS 05h; 4096 zeroed bytes */
	void (*identify_ctrl_csi)(void *id);		      /* CNS 06h; 4096 zeroed bytes */
	void (*effects)(struct nvme_cmd_effects_log *log);    /* log 05h: iocs part */
	/*
	 * Read: points req->buf at its len bytes in the page cache; sendmsg() reads them there, and
	 * execute() is not called. Write: points req->buf at memory of the image that readv() may
	 * fill; then execute() is called. False: nothing was done; the transport provides a buffer
	 * and calls execute(). On true, req->buf is valid until zero_copy_end(), which
	 * tgt_req_put() calls. The queue's loop.
	 */
	bool (*zero_copy)(struct tgt_req *req);
	void (*zero_copy_end)(struct tgt_req *req);
	/* Copies the req->len bytes of a zero-copy read to BUF. 0 or -errno. The queue's loop. */
	int (*copy_out)(struct tgt_req *req, void *buf);
	/*
	 * Executes the requests that execute() put into queue->batch instead of executing them at
	 * once, and removes them from REQS. They are of one namespace, in the order of their
	 * arrival. The queue's loop.
	 */
	void (*run_batch)(struct tgt_reqs *reqs);
	/* Flushes, closes and frees NS, which no request uses. 0 or -errno. A worker or main. */
	int (*close)(struct tgt_ns *ns);
};

/* A namespace; embedded in the command set's. Filled by its owner before tgt_ns_add(). */
struct tgt_ns {
	const struct tgt_command_set *set;
	struct tgt_subsys *subsys; /* set by tgt_ns_add() */
	uint32_t nsid;		   /* 0: tgt_ns_add() gives the lowest free one */
	uint8_t uuid[16];
	uint8_t nguid[16]; /* unique over all subsystems of the target, stable over restarts */
	bool read_only;
	bool write_cache; /* volatile: the host should flush */
};

/* target.c: the whole; made and ended by main. */
struct tgt *tgt_new(void);
/*
 * Closes all namespaces and frees TGT, after all queues were closed. 0, or -errno if a namespace
 * could not be flushed.
 */
int tgt_free(struct tgt *tgt);
/* Registers a command set, whether a namespace of it exists or not. Before serving. */
void tgt_add_command_set(struct tgt *tgt, const struct tgt_command_set *set);
void tgt_port_add(struct tgt *tgt, struct tgt_port *port); /* the caller keeps it alive */

/* subsystem.c. Sentences go to ERR (of ERRLEN bytes); 0 or -errno. */
struct tgt_subsys *tgt_subsys_get(struct tgt *tgt, const char *nqn, char *err, size_t errlen);
/* With no host allowed by name, any host may connect. */
int tgt_subsys_allow_host(struct tgt_subsys *subsys, const char *hostnqn);
int tgt_ns_add(struct tgt_subsys *subsys, struct tgt_ns *ns, char *err, size_t errlen);

/* Queue and request: called by the transport, on the queue's loop. */
void tgt_queue_init(struct tgt_queue *queue, struct tgt *tgt, const struct tgt_transport_ops *ops,
		    struct loop *loop, struct tgt_port *port);
/*
 * The NQN of the queue's host; NULL before Connect. Valid until the queue is closed and has no
 * request in flight.
 */
const char *tgt_queue_hostnqn(const struct tgt_queue *queue);
/*
 * Ends the queue of a lost connection: it executes no further request. If it is an admin queue, its
 * controller ends, with all its other queues. Completes the requests that only wait (AERs, a held
 * Connect): respond() is called for each, and the transport drops the response and puts the
 * request. The transport calls this once, on the queue's loop, and frees the queue when inflight
 * is 0.
 */
void tgt_queue_close(struct tgt_queue *queue);

/*
 * Parses and validates req->cmd, including its SGL, which must describe exactly the data that the
 * command moves. IN_CAPSULE is the number of data bytes in the capsule. Returns 0, or the status
 * with which the caller must complete the request, after discarding its in-capsule data. In both
 * cases the request counts as in flight until tgt_req_put(). The queue's loop.
 */
uint16_t tgt_req_init(struct tgt_req *req, struct tgt_queue *queue, uint32_t in_capsule);
/*
 * The transport calls these before and after the commands that one wake-up brought. Between them a
 * command set may add small writes to queue->batch; tgt_queue_batch_end() executes them, and leaves
 * the batch empty.
 *
 * tgt_queue_batch_begin() is called after data was received and before any of it is handled. It
 * reads the clock, and ends the controller if its keep alive time is over. False: the controller
 * has ended; the transport answers nothing of what it received and closes the connection, so that
 * the host repeats its commands on another path or in a new association. The queue's loop. NVMe
 * Base 2.0, 3.9 (Keep Alive).
 */
bool tgt_queue_batch_begin(struct tgt_queue *queue);
void tgt_queue_batch_end(struct tgt_queue *queue);
/*
 * Makes the request's data zero-copy if the command set can: req->buf is then a mapping of the
 * image, which the transport accesses only by system calls, or so that it survives SIGBUS. It sets
 * req->zero_copy to TGT_FAULTED if one fails with EFAULT, or after SIGBUS. A TGT_C2H request is not
 * executed: the transport completes it with status 0. False: the transport must provide a buffer.
 * The queue's loop.
 */
bool tgt_req_zero_copy(struct tgt_req *req);
/*
 * Ends zero-copy for a read: copies its data to BUF, a buffer of the transport of req->len bytes,
 * and releases the mapping. The response is then sent from BUF. False: the data could not be read,
 * and the connection must end. The queue's loop.
 */
bool tgt_req_copy_out(struct tgt_req *req, void *buf);
/*
 * A reset or finish waits for zero-copy reads of NS: has every queue of its subsystem copy the data
 * that it has not sent yet, so that the wait never depends on a peer. Any thread, without locks.
 */
void tgt_ns_copy_out(struct tgt_ns *ns);
/* Executes a request whose data has arrived, or aborts it on an ended queue. The queue's loop. */
void tgt_req_execute(struct tgt_req *req);
/*
 * Checks whether a request that had to wait after tgt_req_execute() may still take effect. False:
 * its queue is closed or its controller has ended; this also ends the controller if its keep alive
 * time is over. The caller then completes the request with NVME_SC_ABORT_QUEUE. The queue's loop.
 */
bool tgt_req_may_begin(struct tgt_req *req);
/* Copies data in place to req->buf, before the receive buffer is reused. The queue's loop. */
void tgt_req_copy_in(struct tgt_req *req);
/* Ends a request whose response was sent or dropped; its slot is free then. The queue's loop. */
void tgt_req_put(struct tgt_req *req);

/*
 * Fills in the CQE and sends the response. Whoever executes the request calls one of these once:
 * tgt_req_complete() on the queue's loop, tgt_req_complete_remote() on any thread.
 */
void tgt_req_complete(struct tgt_req *req, uint16_t status);
void tgt_req_complete_remote(struct tgt_req *req, uint16_t status);

#endif
