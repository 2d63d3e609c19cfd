// SPDX-License-Identifier: MIT
/*
 * Starts commands: a command whose capsule has arrived gets a buffer, or needs none (zero-copy); then its
 * data is requested by an R2T, or it is executed.
 *
 * Threads: the queue's loop only.
 */
#include <errno.h>
#include "conn.h"

/* The command has its memory, or fails for lack of it: sends an R2T, or runs it. */
static void command_ready(struct slot *slot)
{
	if (!slot->status && slot->req.dir == TGT_H2C && slot->req.len)
		tx_r2t(slot);
	else
		slot_run(slot);
}

/*
 * Whether LEN more bytes of reads may be lent. They are charged to the host's share, in quanta, so that
 * there is memory if they have to be copied out.
 */
static bool may_lend_read(struct conn *c, uint32_t len)
{
	if (c->lent + len <= c->lent_charged)
		return true;
	if (c->lent + len > CONN_LENT_MAX || !pool_charge(c->pool, &c->user, CONN_LENT_QUANTUM))
		return false;
	c->lent_charged += CONN_LENT_QUANTUM;
	return may_lend_read(c, len);
}

/*
 * Zero-copy: the data of a read is sent from where it lies in the page cache, that of a write received
 * where it will stay. Not with a data digest, for which we would have to read it ourselves.
 */
static bool command_lends(struct slot *slot)
{
	struct conn *c = slot->conn;
	bool read = slot->req.dir == TGT_C2H;

	if (c->ctx.ddgst || *c->no_loans || (read && !may_lend_read(c, slot->req.len)) ||
	    !tgt_req_lend(&slot->req))
		return false;
	c->lent += read ? slot->req.len : 0;
	return true;
}

void command_start(struct slot *slot)
{
	bool data = !slot->status && slot->req.len;
	int err = data && !command_lends(slot) ? slot_buffer(slot) : 0;

	if (err == -EAGAIN) {
		slot->state = SLOT_WAIT;
		return;
	}
	if (err)
		slot->status = NVME_SC_INTERNAL;
	if (slot->req.lent && slot->req.dir == TGT_C2H) {
		slot->state = SLOT_EXEC;
		tgt_req_complete(&slot->req, 0);
		return;
	}
	command_ready(slot);
}

void command_granted(struct pool_waiter *w, void *buf)
{
	struct slot *slot = (struct slot *)((char *)w - offsetof(struct slot, waiter));
	struct conn *c = slot->conn;

	slot->req.buf = slot->mem = buf;
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
	command_ready(slot);
}
