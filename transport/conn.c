// SPDX-License-Identifier: MIT
/*
 * The command slots of a connection, and its end.
 *
 *	FREE -> CAPSULE -> WAIT -> R2T -> DATA -> EXEC -> RESP -> FREE
 *
 * A slot goes through these in this order, and skips what its command does not need.
 *
 * 1. A slot that is not FREE has a request that was given to tgt_req_init(), and slot_finish() is
 *    the only place that puts it, frees its buffer, and makes the slot FREE.
 * 2. A slot waits for a buffer only in WAIT, or in CAPSULE (then rx.block is RX_NO_BUFFER).
 * 3. The target has a request from tgt_req_execute() or tgt_req_complete() until it calls
 *    conn_respond(), and then no more.
 * 4. A connection that died executes nothing. It drops the slots which the target does not have;
 *    the target brings the others home, in its own time.
 * 5. The index of a slot and the generation of its R2T are its TTAG: a host that names a TTAG we
 *    did not issue, or issued for an earlier command, is found out.
 *
 * Slots: a host may reuse an entry of its queue as soon as it has our response, and it cannot have
 * it before sendmsg() took the last byte, after which the slot is freed before anything more is
 * received. So the depth would be enough. Before Connect told it there are a few.
 *
 * Threads: the queue's loop only.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include "conn.h"

static struct slot *req_slot(struct tgt_req *req)
{
	return (struct slot *)((char *)req - offsetof(struct slot, req));
}

static void slots_add(struct conn *c, struct slot *slots, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		slots[i].conn = c;
		slots[i].index = c->nslots++;
		slots[i].next_free = c->free;
		c->free = &slots[i];
	}
}

void conn_init(struct conn *c, struct tgt *tgt, const struct tgt_transport_ops *ops,
	       struct loop *loop, struct tgt_port *port, struct pool *pool, const bool *no_loans)
{
	memset(c, 0, sizeof(*c));
	tgt_queue_init(&c->queue, tgt, ops, loop, port);
	c->ctx.max_capsule = TGT_INCAPSULE;
	c->ctx.max_h2cdata = PDU_MAX_H2CDATA;
	c->pool = pool;
	c->no_loans = no_loans;
	pool_user_init(&c->user);
	rx_init(&c->rx);
	STAILQ_INIT(&c->tx.queue);
	slots_add(c, c->boot, CONN_BOOT_SLOTS);
}

void conn_fini(struct conn *c)
{
	assert(c->dead && !c->queue.inflight && STAILQ_EMPTY(&c->tx.queue));
	rx_fini(&c->rx);
	free(c->more);
	c->more = NULL;
}

struct slot *slot_at(struct conn *c, unsigned int index)
{
	if (index < CONN_BOOT_SLOTS)
		return &c->boot[index];
	return index < c->nslots ? &c->more[index - CONN_BOOT_SLOTS] : NULL;
}

struct slot *slot_take(struct conn *c)
{
	struct slot *slot = c->free;

	if (!slot)
		return NULL;
	c->free = slot->next_free;
	slot->state = SLOT_CAPSULE;
	slot->status = 0;
	slot->got = 0;
	slot->in_capsule = false;
	return slot;
}

static uint8_t *cid_bucket(struct conn *c, uint16_t cid)
{
	return &c->cids[(cid ^ cid >> 8) % CONN_CID_BUCKETS];
}

bool slot_claim_cid(struct slot *slot)
{
	struct conn *c = slot->conn;
	uint8_t *bucket = cid_bucket(c, slot->req.cmd.cid);

	for (uint8_t i = *bucket; i; i = slot_at(c, i - 1)->cid_next)
		if (slot_at(c, i - 1)->req.cmd.cid == slot->req.cmd.cid)
			return false;
	slot->cid_next = *bucket;
	*bucket = slot->index + 1;
	slot->cid_known = true;
	return true;
}

static void drop_cid(struct slot *slot)
{
	struct conn *c = slot->conn;
	uint8_t *p = cid_bucket(c, slot->req.cmd.cid);

	if (!slot->cid_known)
		return;
	while (*p != slot->index + 1)
		p = &slot_at(c, *p - 1)->cid_next;
	*p = slot->cid_next;
	slot->cid_known = false;
}

int slot_buffer(struct slot *slot)
{
	struct conn *c = slot->conn;
	int err;

	err = pool_get(c->pool, &c->user, &slot->waiter, slot->req.len, slot->in_capsule,
		       &slot->req.buf);
	if (!err)
		slot->buf_len = slot->req.len;
	return err;
}

void slot_finish(struct slot *slot)
{
	struct conn *c = slot->conn;
	void *buf = slot->req.buf;
	uint32_t len = slot->buf_len;

	assert(slot->state != SLOT_FREE);
	drop_cid(slot);
	tgt_req_put(&slot->req);
	slot->req.buf = NULL;
	slot->buf_len = 0;
	slot->state = SLOT_FREE;
	slot->next_free = c->free;
	c->free = slot;
	if (c->rx.block == RX_NO_SLOT) {
		c->rx.block = RX_RUNS;
		c->wake(c);
	}
	if (len) /* last: it may start commands that waited */
		pool_put(c->pool, &c->user, buf, len, slot->in_capsule);
}

void slot_run(struct slot *slot)
{
	slot->state = SLOT_EXEC;
	if (slot->status)
		tgt_req_complete(&slot->req, slot->status);
	else
		tgt_req_execute(&slot->req);
}

/* It has its buffer, or needs none, or there will be none. */
static void slot_ready(struct slot *slot)
{
	if (!slot->status && slot->req.dir == TGT_H2C && slot->req.len)
		tx_r2t(slot);
	else
		slot_run(slot);
}

/*
 * What the target lends is sent from where it lies, or received where it stays; a digest would have us
 * read it ourselves.
 */
static bool slot_borrow(struct slot *slot)
{
	const struct conn *c = slot->conn;

	return !slot->status && slot->req.len && !c->ctx.ddgst && !*c->no_loans &&
	       tgt_req_lend(&slot->req);
}

void slot_start(struct slot *slot)
{
	bool lent = slot_borrow(slot);

	if (lent && slot->req.dir == TGT_C2H) {
		slot->state = SLOT_EXEC;
		tgt_req_complete(&slot->req, 0);
		return;
	}
	if (!lent && !slot->status && slot->req.len) {
		int err = slot_buffer(slot);

		if (err == -EAGAIN) {
			slot->state = SLOT_WAIT;
			return;
		}
		if (err)
			slot->status = NVME_SC_INTERNAL;
	}
	slot_ready(slot);
}

void conn_granted(struct pool_waiter *w, void *buf)
{
	struct slot *slot = (struct slot *)((char *)w - offsetof(struct slot, waiter));
	struct conn *c = slot->conn;

	slot->req.buf = buf;
	if (buf)
		slot->buf_len = slot->req.len;
	else
		slot->status = NVME_SC_INTERNAL;
	if (slot->in_capsule) {
		c->rx.to = buf;
		c->rx.block = RX_RUNS;
		c->wake(c);
		return;
	}
	slot_ready(slot);
}

/* The first success that leaves the queue with a controller is that of Connect. */
static void conn_connected(struct conn *c)
{
	unsigned int n = c->queue.sqsize + CONN_MORE_SLOTS;

	c->connected = true;
	assert(n + CONN_BOOT_SLOTS <= CONN_MAX_SLOTS);
	c->more = calloc(n, sizeof(*c->more));
	if (!c->more) {
		log_err("%s: no memory for the slots of a queue: closing", c->name);
		c->queue.ops->disconnect(&c->queue);
		return;
	}
	slots_add(c, c->more, n);
	c->on_connect(c);
}

void conn_respond(struct tgt_req *req)
{
	struct slot *slot = req_slot(req);
	struct conn *c = slot->conn;

	assert(slot->state == SLOT_EXEC);
	if (c->dead) {
		slot_finish(slot);
		return;
	}
	if (!c->connected && c->queue.ctrl)
		conn_connected(c);
	tx_response(slot);
}

int conn_fatal(struct conn *c, enum pdu_fes fes, uint32_t fei, const void *hdr, uint32_t n)
{
	log_warn("%s: %s (FES %u, FEI %u): terminating", c->name, pdu_fes_name(fes), fes, fei);
	tx_term(c, fes, fei, hdr, n);
	rx_stop(c);
	return -EPROTO;
}

void conn_kill(struct conn *c)
{
	struct slot *starved = c->rx.block == RX_NO_BUFFER ? c->rx.slot : NULL;

	if (c->dead)
		return;
	c->dead = true;
	rx_stop(c);
	pool_leave(c->pool, &c->user, starved ? &starved->waiter : NULL);
	tx_drop(c, false);
	for (unsigned int i = 0; i < c->nslots; i++) {
		struct slot *slot = slot_at(c, i);

		if (slot->state == SLOT_CAPSULE || slot->state == SLOT_WAIT ||
		    slot->state == SLOT_DATA)
			slot_finish(slot);
	}
	tgt_queue_close(&c->queue);
}

bool conn_quiet(const struct conn *c)
{
	for (unsigned int i = 0; i < c->nslots; i++) {
		const struct slot *slot = slot_at((struct conn *)(uintptr_t)c, i);

		if (slot->state == SLOT_RESP)
			return false;
		if (slot->state == SLOT_EXEC &&
		    (c->queue.qid || slot->req.cmd.opcode != nvme_admin_async_event))
			return false;
	}
	return STAILQ_EMPTY(&c->tx.queue);
}
