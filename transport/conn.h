/* SPDX-License-Identifier: MIT */
/*
 * A connection without its socket: the command slots, and between them the receive machine (rx.c)
 * and the send machine (tx.c). No I/O here; peer.c moves the bytes, tests move them by hand.
 */
#ifndef TRANSPORT_CONN_H
#define TRANSPORT_CONN_H

#include <sys/queue.h>
#include <sys/uio.h>
#include "target.h"
#include "loop.h"
#include "pdu.h"
#include "pool.h"

struct conn;

#define CONN_BOOT_SLOTS 4 /* before Connect told the depth */
#define CONN_MORE_SLOTS 4 /* beyond the depth: hosts that count differently */
#define CONN_MAX_SLOTS	(CONN_BOOT_SLOTS + TGT_QUEUE_DEPTH + CONN_MORE_SLOTS)
static_assert(CONN_MAX_SLOTS < 255, "a slot's index is the low byte of its TTAG");

#define CONN_LENT_MAX	  (8u << 20) /* bytes of reads lent at a time: what a reset may have to copy */
#define CONN_LENT_QUANTUM (256u << 10)
#define CONN_CID_BUCKETS  256
#define RX_STAGE	  4096	/* bytes; a recv brings so many small PDUs, or more into a buffer */
#define RX_STAGE_MAX	  65536 /* for hosts that fill it */
#define RX_BULK		  16384 /* bytes of data in a PDU, from which on it is not staged */
#define RX_BULK_HEADERS	  512	/* bytes then staged at a time, where no data is expected */

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

/* What waits to be sent; a slot has at most one such thing at a time. */
struct tx_item {
	STAILQ_ENTRY(tx_item) link;
	enum tx_kind kind;
};

/* ICResp and C2HTermReq: one each a connection, in its life. */
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
	bool cid_known;	  /* it stands in its bucket */
	bool in_capsule;  /* its buffer comes from the reserve */
	uint16_t status;  /* what to complete it with when its data is in; 0: execute it */
	uint8_t tick;	  /* conn->tick when it began to wait for its host */
	uint32_t buf_len; /* of MEM */
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
	uint8_t *to;	   /* where its next byte goes; NULL: nowhere */
	uint32_t left;	   /* bytes of data to come in this PDU */
	uint32_t crc;
	uint8_t *stage;	     /* small, or RX_STAGE_MAX bytes */
	uint32_t cap;	     /* of stage */
	uint32_t head, tail; /* of what is staged */
	bool bulk;	     /* data comes in large pieces, as far as one can tell */
	struct pdu_hdr good; /* of the last capsule that was judged; zeroes: none was */
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
	uint32_t sent; /* bytes of the first item that are gone */
	struct tx_control icresp;
	struct tx_control term;
	bool lent;	 /* lent data was queued; for who sends it to clear */
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
	const bool *no_loans;  /* nothing is to be borrowed now */
	uint32_t lent;	       /* bytes of reads that are lent */
	uint32_t lent_charged; /* to the host's share, for these */
	/* There may be something to send, or staged bytes to go on with: call me back soon. */
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
	       struct loop *loop, struct tgt_port *port, struct pool *pool, const bool *no_loans);
/*
 * The end of C as a queue: what was not executed never will be, responses are dropped, the target
 * is told. A PDU that was sent in part and a TermReq remain to be sent. Idempotent.
 */
void conn_kill(struct conn *c);
void conn_fini(
	struct conn *c); /* after conn_kill(), when queue.inflight is 0 and nothing is queued */
/* ops->respond() of a transport: queues the response. */
void conn_respond(struct tgt_req *req);
/*
 * Called at regular times from when a command waits for its host until CONN_IDLE. CONN_LATE: for more than
 * CONN_TICKS calls the host did not send the data of a command, or did not take a response. It holds a
 * buffer, so the connection must end. (The command alone cannot end: its data may still come, under a
 * TTAG that another command would have.) While nothing is received, since in-capsule data has no buffer
 * yet, the time does not count.
 */
#define CONN_TICKS 2
enum conn_wait { CONN_IDLE, CONN_WAITS, CONN_LATE };
enum conn_wait conn_tick(struct conn *c);
/* Gives back what an idle connection does not need. */
void conn_trim(struct conn *c);
/* Copies all data that responses have lent and that is not sent yet. False: the connection must end. */
bool conn_copy_out(struct conn *c);
/* No command is with the target (AERs excepted) or on its way to the host. */
bool conn_quiet(const struct conn *c);

/* slot.c */
void slots_add(struct conn *c, struct slot *slots, unsigned int n); /* N more, all free */
struct slot *slot_at(struct conn *c, unsigned int index);
struct slot *slot_take(struct conn *c); /* NULL: none is free */
bool slot_claim_cid(struct slot *slot); /* false: the CID is in flight already */
int slot_buffer(struct slot *slot);	/* as pool_get() */
/* Returns its buffer, if it has one, to the pool; commands that waited for it may start in here. */
void slot_drop_buffer(struct slot *slot);
/* Copies the data of a response that is still lent to a buffer. False: the connection must end. */
bool slot_copy_out(struct slot *slot);
void slot_run(struct slot *slot);    /* all its data is in: execute, or complete with its status */
void slot_finish(struct slot *slot); /* it is over: frees buffer, request and slot */

/* command.c */
void command_start(struct slot *slot); /* its capsule is in, and had no data */
/* pool->granted: BUF is the waiter's; NULL: there is no memory. */
void command_granted(struct pool_waiter *w, void *buf);

/* rx.c: the receive machine. */
void rx_init(struct rx *rx);
void rx_fini(struct rx *rx);
void rx_trim(struct rx *rx); /* gives back what an idle connection does not need */

/* Where the next bytes go: fills up to 2 of IOV and returns how many; 0: none are wanted now. */
int rx_want(struct conn *c, struct iovec iov[2]);
/*
 * N bytes were put there. 0; or -EPROTO: a TermReq is queued, -ECONNRESET: hang up. After both,
 * nothing is wanted any more.
 */
int rx_got(struct conn *c, size_t n);
bool rx_has_staged(const struct conn *c); /* there may be something for rx_resume() to do */
/* Goes on with staged bytes after a block was lifted; as rx_got(). */
int rx_resume(struct conn *c);
/* Where data is being received could not be written to: the target shall know if it lent that. */
void rx_unwritable(struct conn *c);
void rx_stop(struct conn *c);

/* tx.c: the send machine. */
void tx_icresp(struct conn *c, uint8_t dgst, uint8_t cpda);
void tx_r2t(struct slot *slot);
void tx_response(struct slot *slot);
void tx_term(struct conn *c, enum pdu_fes fes, uint32_t fei, const void *hdr, uint32_t n);
/* What to send next, in up to MAX pieces (at least 4): how many; 0: nothing is queued. */
int tx_iov(struct conn *c, struct iovec *iov, int max);
/* N bytes of it are gone. */
void tx_sent(struct conn *c, size_t n);
/* Lent data could not be sent: notes that in all requests that have some. */
void tx_unreadable(struct conn *c);
/* Drops the queued responses and R2Ts; ALL: also what was sent in part, and control PDUs. */
void tx_drop(struct conn *c, bool all);
bool tx_pending(const struct conn *c);

#endif
