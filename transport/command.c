// SPDX-License-Identifier: MIT
/*
 * What happens to a command between its capsule and its execution: it gets its buffer, or may do
 * without one, and its data is asked for with an R2T.
 *
 * Threads: the queue's loop only.
 */
#include <errno.h>
#include "conn.h"

/* It has its buffer, or needs none, or there will be none. */
static void command_ready(struct slot *slot)
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
static bool command_borrow(struct slot *slot)
{
	const struct conn *c = slot->conn;

	return !slot->status && slot->req.len && !c->ctx.ddgst && !*c->no_loans &&
	       tgt_req_lend(&slot->req);
}

void command_start(struct slot *slot)
{
	bool lent = command_borrow(slot);

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
	command_ready(slot);
}

void command_granted(struct pool_waiter *w, void *buf)
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
	command_ready(slot);
}
