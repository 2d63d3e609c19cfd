/* SPDX-License-Identifier: MIT */
/*
 * A connection without its socket: command slots, the receive state machine (rx.c) and the send
 * state machine (tx.c). These files do no I/O: transport/tcp/peer.c moves the bytes, and unit tests
 * move them by hand.
 */
#ifndef TRANSPORT_CONN_H
#define TRANSPORT_CONN_H

#include <sys/queue.h>
#include <sys/uio.h>
#include "target.h"
#include "crc.h"
#include "loop.h"
#include "pdu.h"
#include "pool.h"

struct conn;

#define CONN_BOOT_SLOTS 4 /* before Connect, which says how deep the queue is */
#define CONN_MORE_SLOTS 4 /* beyond the depth, for hosts that count differently */
#define CONN_MAX_SLOTS	(CONN_BOOT_SLOTS + TGT_QUEUE_DEPTH + CONN_MORE_SLOTS)
static_assert(CONN_MAX_SLOTS < 255, "a slot's index is the low byte of its TTAG");

/* Bytes of zero-copy reads at a time: a reset may have to copy all of them. */
#define CONN_ZERO_COPY_MAX     (8u << 20)
#define CONN_ZERO_COPY_QUANTUM (256u << 10)
#define CONN_CID_BUCKETS       256
#define RX_STAGE	       4096  /* bytes of the staging buffer for small PDUs */
#define RX_STAGE_MAX	       65536 /* for hosts that fill the small one */
#define RX_BULK		       32768 /* a PDU with at least so many bytes of data is not staged */
#define RX_BULK_HEADERS	       512   /* bytes staged at a time between such PDUs */

enum slot_state {
	SLOT_FREE,
	SLOT_CAPSULE, /* its capsule is still arriving */
	SLOT_WAIT,    /* for a buffer */
	SLOT_R2T,     /* its R2T is being sent */
	SLOT_DATA,    /* H2CData may come for it */
	SLOT_EXEC,    /* the target has it */
	SLOT_RESP,    /* its response is being sent */
};

enum tx_kind { TX_CONTROL, TX_R2T, TX_RESP };

/* A PDU that is queued to be sent; a slot has at most one at a time. */
struct tx_item {
	STAILQ_ENTRY(tx_item) link;
	enum tx_kind kind;
};

/* ICResp or C2HTermReq: a connection sends each at most once. */
struct tx_control {
	struct tx_item item;
	uint8_t len;
	uint8_t bytes[PDU_TERM_MAX];
};

/* A command, from its capsule to the last byte of its response. */
struct slot {
	struct tgt_req req;
	struct conn *conn;
	struct slot *next_free;
	struct pool_waiter waiter;
	struct tx_item item;
	uint8_t state; /* enum slot_state */
	uint8_t index;
	uint8_t gen;	  /* of the last R2T; high byte of the TTAG */
	uint8_t cid_next; /* in its bucket: index + 1 */
	bool cid_known;	  /* it is in its bucket */
	bool in_capsule;  /* its buffer comes from the reserve */
	bool digest_due;  /* its response has data whose digest is not made yet */
	uint16_t status;  /* for its completion once its data has arrived; 0: execute it */
	uint8_t tick;	  /* conn->tick when it began to wait for its host */
	uint32_t buf_len; /* of MEM; of a zero-copy read what it is charged for */
	void *mem;	  /* from the pool; NULL: it has none */
	uint32_t got;	  /* bytes of H2CData so far */
	uint8_t head_len, pad_len, tail_at, tail_len;
	uint32_t data_len;					/* bytes of req.buf to send */
	uint8_t head[sizeof(struct pdu_data) + PDU_DIGEST_LEN]; /* R2T or C2HData */
	uint8_t tail[PDU_DIGEST_LEN + sizeof(struct pdu_resp) + PDU_DIGEST_LEN];
};

enum rx_state { RX_HEADER, RX_DATA, RX_DIGEST, RX_STOPPED };
enum rx_block { RX_RUNS, RX_NO_SLOT, RX_NO_BUFFER };

struct rx {
	enum rx_state state;
	enum rx_block block;
	struct slot *slot; /* whose data is arriving, if state is RX_DATA or RX_DIGEST */
	uint8_t *to;	   /* where its next byte goes; NULL: it is discarded */
	uint32_t left;	   /* bytes of data to come in this PDU */
	uint32_t crc;
	uint8_t *stage;	     /* small, or RX_STAGE_MAX bytes */
	uint32_t cap;	     /* of stage */
	uint32_t head, tail; /* of what is staged */
	bool bulk;	     /* the last data PDU was large */
	struct pdu_hdr good; /* of the last valid capsule; zeroes: none yet */
	union {
		struct pdu_hdr h;
		struct pdu_icreq icreq;
		struct pdu_term term;
		struct pdu_cmd cmd;
		struct pdu_data data;
	} hdr; /* aligned copy of the header at head */
	uint8_t small[RX_STAGE];
};

struct tx {
	STAILQ_HEAD(, tx_item) queue;
	uint32_t sent; /* bytes of the first item that were sent */
	struct tx_control icresp;
	struct tx_control term;
	bool zero_copy;	 /* zero-copy data was queued; the sender clears it */
	bool terminated; /* a C2HTermReq is the last thing queued, ever */
};

struct conn {
	struct tgt_queue queue;
	struct pdu_ctx ctx;
	uint8_t hpda;
	bool connected; /* Connect succeeded */
	bool dead;	/* nothing executes any more; responses are dropped */
	bool waits;	/* a command waits for its host; whoever calls conn_tick() clears it */
	uint8_t tick;	/* counts conn_tick() */
	struct pool *pool;
	struct pool_user user;
	const bool *no_zero_copy;   /* zero-copy is off for now */
	uint32_t zero_copy;	    /* bytes of buffers that copies of zero-copy reads need */
	uint32_t zero_copy_charged; /* bytes charged to the host's share for these */
	/* Schedules sending, and rx_resume(), for the end of this wake-up. */
	void (*wake)(struct conn *);
	bool (*on_connect)(struct conn *); /* Connect succeeded; false: refuse it all the same */
	char name[64];			   /* the peer, for the log */
	struct slot *free;
	struct slot *more;
	uint8_t nslots;
	uint8_t cids[CONN_CID_BUCKETS]; /* slots in flight by CID: index + 1 */
	struct rx rx;
	struct tx tx;
	struct slot boot[CONN_BOOT_SLOTS];
};

/* Every function here runs on the queue's loop. conn.c: */
void conn_init(struct conn *c, struct tgt *tgt, const struct tgt_transport_ops *ops,
	       struct loop *loop, struct tgt_port *port, struct pool *pool,
	       const bool *no_zero_copy);
/*
 * Ends C as a queue: no further command is executed, responses are dropped, and the target is told
 * (tgt_queue_close()). A PDU that was sent in part, and a TermReq, are still sent. Idempotent.
 */
void conn_kill(struct conn *c);
void conn_fini(
	struct conn *c); /* after conn_kill(), when queue.inflight is 0 and nothing is queued */
/* Implements ops->respond(): queues the response. */
void conn_respond(struct tgt_req *req);
/*
 * To be called periodically from when a command waits for its host (c->waits) until it returns
 * CONN_IDLE. CONN_LATE: for more than CONN_TICKS calls the host did not send the data of a command,
 * or did not take a response. The command holds a buffer, so the connection must end. (The command
 * alone cannot end: its data may still arrive, under a TTAG that another command would have.) While
 * nothing is received because in-capsule data has no buffer yet, only the time of responses counts.
 */
#define CONN_TICKS 2
enum conn_wait { CONN_IDLE, CONN_WAITS, CONN_LATE };
enum conn_wait conn_tick(struct conn *c);
/* Frees memory that an idle connection does not need. */
void conn_trim(struct conn *c);
/* Copies the zero-copy data that is not sent yet to buffers. False: the connection must end. */
bool conn_copy_out(struct conn *c);
/* Whether no command executes (AERs excepted) and no response waits to be sent. */
bool conn_quiet(const struct conn *c);

/* slot.c */
void slots_add(struct conn *c, struct slot *slots, unsigned int n); /* N more, all free */
struct slot *slot_at(struct conn *c, unsigned int index);
struct slot *slot_take(struct conn *c); /* NULL: none is free */
bool slot_claim_cid(struct slot *slot); /* false: the CID is in flight already */
int slot_buffer(struct slot *slot);	/* gets its buffer; returns as pool_get() */
/* Returns its buffer, if it has one, to the pool; commands that waited for it may start in here. */
void slot_drop_buffer(struct slot *slot);
/* Copies the data of a response to a buffer if it is zero-copy. False: the connection must end. */
bool slot_copy_out(struct slot *slot);
/* Executes the command, whose data has arrived, or completes it with slot->status. */
void slot_run(struct slot *slot);
/* Frees the buffer, the request and the slot after the response was sent, or dropped. */
void slot_finish(struct slot *slot);

/* command.c */
/* Starts a command whose capsule had no data: gets memory, then sends an R2T or executes it. */
void command_start(struct slot *slot);
/* Implements pool->granted(). */
void command_granted(struct pool_waiter *w, void *buf);

/* rx.c: the receive state machine. */
void rx_init(struct rx *rx);
void rx_fini(struct rx *rx);
void rx_trim(struct rx *rx); /* frees the large staging buffer if it is not needed */

/* Says where to receive next: fills up to 2 of IOV and returns how many; 0: receive nothing now. */
int rx_want(struct conn *c, struct iovec iov[2]);
/*
 * Handles N bytes that were received there. 0; -EPROTO: a TermReq is queued; -ECONNRESET: close the
 * connection. After an error rx_want() returns 0 for ever.
 */
int rx_got(struct conn *c, size_t n);
bool rx_has_staged(const struct conn *c); /* whether rx_resume() may have something to do */
/* Handles staged bytes after a slot or buffer became free. Returns as rx_got(). */
int rx_resume(struct conn *c);
/* readv() got EFAULT: marks the request whose data is arriving TGT_FAULTED if it is zero-copy. */
void rx_unwritable(struct conn *c);
void rx_stop(struct conn *c);

/* tx.c: the send state machine. */
void tx_icresp(struct conn *c, uint8_t dgst, uint8_t cpda);
void tx_r2t(struct slot *slot);
void tx_response(struct slot *slot);
void tx_term(struct conn *c, enum pdu_fes fes, uint32_t fei, const void *hdr, uint32_t n);
/* Says what to send next: fills up to MAX (at least 4) of IOV and returns how many; 0: nothing. */
int tx_iov(struct conn *c, struct iovec *iov, int max);
/* Removes N bytes that were sent from the queue. */
void tx_sent(struct conn *c, size_t n);
/* sendmsg() got EFAULT: marks all queued requests with zero-copy data TGT_FAULTED. */
void tx_unreadable(struct conn *c);
/* Drops queued responses and R2Ts. ALL: also a PDU that was sent in part, and control PDUs. */
void tx_drop(struct conn *c, bool all);
bool tx_pending(const struct conn *c);

#endif
