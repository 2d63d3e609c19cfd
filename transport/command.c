// SPDX-License-Identifier: MIT
/*
 * Starts commands: a command whose capsule has arrived gets a buffer, or needs none (zero-copy);
 * then its data is requested by an R2T, or it is executed.
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
 * Charges LEN more bytes, the size of the buffer that a zero-copy read would need, to the host's
 * share, by the quantum, so that there is memory if the read has to be copied out. False: the
 * connection or the host has too many; the read needs a buffer.
 */
static bool charge_zero_copy(struct conn *c, uint32_t len)
{
	if (c->zero_copy + len <= c->zero_copy_charged)
		return true;
	if (c->zero_copy + len > CONN_ZERO_COPY_MAX ||
	    !pool_charge(c->pool, &c->user, CONN_ZERO_COPY_QUANTUM))
		return false;
	c->zero_copy_charged += CONN_ZERO_COPY_QUANTUM;
	return charge_zero_copy(c, len);
}

/*
 * Tries zero-copy: the data of a read is sent from the page cache, that of a write is received into
 * the image's memory.
 */
static bool command_zero_copy(struct slot *slot)
{
	struct conn *c = slot->conn;
	uint32_t size = 0;

	if (*c->no_zero_copy)
		return false;
	if (slot->req.dir == TGT_C2H) {
		size = pool_size(slot->req.len);
		if (!charge_zero_copy(c, size))
			return false;
	}
	if (!tgt_req_zero_copy(&slot->req))
		return false;
	slot->buf_len = size;
	c->zero_copy += size;
	return true;
}

void command_start(struct slot *slot)
{
	bool data = !slot->status && slot->req.len;
	int err = data && !command_zero_copy(slot) ? slot_buffer(slot) : 0;

	if (err == -EAGAIN) {
		slot->state = SLOT_WAIT;
		return;
	}
	if (err)
		slot->status = NVME_SC_INTERNAL;
	if (slot->req.zero_copy && slot->req.dir == TGT_C2H) {
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
