// SPDX-License-Identifier: MIT
/*
 * The command slots of a connection.
 *
 *	FREE -> CAPSULE -> WAIT -> R2T -> DATA -> EXEC -> RESP -> FREE
 *
 * A slot goes through these states in this order, and skips those that its command does not need.
 *
 * 1. A slot that is not FREE has a request that was passed to tgt_req_init(). Only slot_finish()
 *    puts the request and makes the slot FREE. It also returns the buffer, unless that was returned
 *    before: a write returns its buffer when it is done.
 * 2. A slot waits for a buffer only in WAIT, or in CAPSULE (then rx.block is RX_NO_BUFFER).
 * 3. The target has a request from tgt_req_execute() or tgt_req_complete() until it calls
 *    conn_respond().
 * 4. The index of a slot and the generation of its R2T form its TTAG, so that a TTAG which we did
 *    not issue, or issued for an earlier command, is detected.
 *
 * Number of slots: a host may reuse a queue entry when it has our response. It cannot have the
 * response before sendmsg() took its last byte, and then the slot is freed before anything more is
 * received. So one slot per queue entry is enough. Before Connect, which says how deep the queue
 * is, there are a few.
 *
 * Threads: the queue's loop only.
 */
#include <assert.h>
#include "conn.h"

void slots_add(struct conn *c, struct slot *slots, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		slots[i].conn = c;
		slots[i].index = c->nslots++;
		slots[i].next_free = c->free;
		c->free = &slots[i];
	}
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
	slot->tick = c->tick;
	slot->req.buf = NULL;
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
		       &slot->mem);
	if (err)
		return err;
	slot->req.buf = slot->mem;
	slot->buf_len = slot->req.len;
	return 0;
}

bool slot_copy_out(struct slot *slot)
{
	struct conn *c = slot->conn;

	if (slot->state != SLOT_RESP || slot->req.zero_copy != TGT_ZERO_COPY ||
	    slot->req.dir != TGT_C2H)
		return true;
	slot->mem = pool_force(c->pool, &c->user, slot->req.len);
	if (!slot->mem || !tgt_req_copy_out(&slot->req, slot->mem))
		return false;
	c->zero_copy -= slot->buf_len;
	return true;
}

void slot_drop_buffer(struct slot *slot)
{
	struct conn *c = slot->conn;
	void *mem = slot->mem;

	if (!mem) /* tgt_req_put() ends the zero-copy */
		return;
	slot->req.buf = slot->mem = NULL;
	pool_put(c->pool, &c->user, mem, slot->buf_len, slot->in_capsule);
}

void slot_finish(struct slot *slot)
{
	struct conn *c = slot->conn;

	assert(slot->state != SLOT_FREE);
	drop_cid(slot);
	if (slot->req.zero_copy && slot->req.dir == TGT_C2H)
		c->zero_copy -= slot->buf_len;
	tgt_req_put(&slot->req);
	slot->state = SLOT_FREE;
	slot->next_free = c->free;
	c->free = slot;
	if (c->rx.block == RX_NO_SLOT) {
		c->rx.block = RX_RUNS;
		c->wake(c);
	}
	slot_drop_buffer(slot); /* last, since it may start commands that wait for memory */
}

void slot_run(struct slot *slot)
{
	slot->state = SLOT_EXEC;
	if (slot->status)
		tgt_req_complete(&slot->req, slot->status);
	else
		tgt_req_execute(&slot->req);
}
