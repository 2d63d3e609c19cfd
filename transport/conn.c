// SPDX-License-Identifier: MIT
/*
 * Creates and ends a connection, and queues the responses of the target.
 *
 * A dead connection executes no further command. It finishes the slots of commands that the target
 * does not have; the others are finished when the target completes them.
 *
 * Threads: the queue's loop only.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include "conn.h"

static struct slot *req_slot(struct tgt_req *req)
{
	return (struct slot *)((char *)req - offsetof(struct slot, req));
}

void conn_init(struct conn *c, struct tgt *tgt, const struct tgt_transport_ops *ops,
	       struct loop *loop, struct tgt_port *port, struct pool *pool,
	       const bool *no_zero_copy)
{
	memset(c, 0, sizeof(*c));
	tgt_queue_init(&c->queue, tgt, ops, loop, port);
	c->ctx.max_capsule = TGT_INCAPSULE;
	c->ctx.max_h2cdata = PDU_MAX_H2CDATA;
	c->pool = pool;
	c->no_zero_copy = no_zero_copy;
	pool_user_init(&c->user);
	rx_init(&c->rx);
	STAILQ_INIT(&c->tx.queue);
	slots_add(c, c->boot, CONN_BOOT_SLOTS);
}

void conn_fini(struct conn *c)
{
	assert(c->dead && !c->queue.inflight && STAILQ_EMPTY(&c->tx.queue));
	rx_fini(&c->rx);
	conn_trim(c);
	pool_user_fini(&c->user);
	free(c->more);
	c->more = NULL;
}

/*
 * Sets up the connection after Connect, the first command after whose success the queue has a
 * controller. False: there is no room for the connection.
 */
static bool conn_connected(struct conn *c)
{
	unsigned int n = c->queue.sqsize + CONN_MORE_SLOTS;

	c->connected = true;
	if (!c->on_connect(c))
		return false;
	assert(n + CONN_BOOT_SLOTS <= CONN_MAX_SLOTS);
	c->more = calloc(n, sizeof(*c->more));
	if (!c->more) {
		log_err("%s: no memory for the slots of a queue: refusing", c->name);
		return false;
	}
	slots_add(c, c->more, n);
	if (pool_user_join(c->pool, &c->user, tgt_queue_hostnqn(&c->queue)))
		log_warn("%s: no memory to share buffers by host", c->name);
	return true;
}

/* Makes Connect fail after all; the host may try again later. */
static void conn_refuse(struct conn *c, struct nvme_cqe *cqe)
{
	cqe->result = 0;
	cqe->status = htole16((NVME_SCT_SPECIFIC | NVME_SC_CONNECT_CTRL_BUSY) << 1);
	c->queue.ops->disconnect(&c->queue);
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
	if (!c->connected && c->queue.ctrl && !conn_connected(c))
		conn_refuse(c, &req->cqe);
	tx_response(slot);
}

/* Returns what is charged to the host's share beyond what its zero-copy reads in flight need. */
static void conn_uncharge(struct conn *c)
{
	uint32_t need = (c->zero_copy + CONN_ZERO_COPY_QUANTUM - 1) / CONN_ZERO_COPY_QUANTUM *
			CONN_ZERO_COPY_QUANTUM;
	uint32_t spare = c->zero_copy_charged - need;

	c->zero_copy_charged = need;
	if (spare)
		pool_uncharge(c->pool, &c->user, spare);
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
	if (!conn_copy_out(c)) /* of a response that was sent in part */
		tx_drop(c, true);
	conn_uncharge(c);
	for (unsigned int i = 0; i < c->nslots; i++) {
		struct slot *slot = slot_at(c, i);

		if (slot->state == SLOT_CAPSULE || slot->state == SLOT_WAIT ||
		    slot->state == SLOT_DATA)
			slot_finish(slot);
	}
	tgt_queue_close(&c->queue);
}

void conn_trim(struct conn *c)
{
	rx_trim(&c->rx);
	conn_uncharge(c);
}

bool conn_copy_out(struct conn *c)
{
	bool ok = true;

	for (unsigned int i = 0; i < c->nslots && ok; i++)
		ok = slot_copy_out(slot_at(c, i));
	conn_uncharge(c);
	return ok;
}

/* Whether SLOT waits for its host: to send data, or to take a response. */
static bool waits_for_host(const struct slot *slot)
{
	return slot->state == SLOT_CAPSULE || slot->state == SLOT_R2T || slot->state == SLOT_DATA ||
	       slot->state == SLOT_RESP;
}

enum conn_wait conn_tick(struct conn *c)
{
	enum conn_wait wait = CONN_IDLE;

	c->tick++;
	for (unsigned int i = 0; i < c->nslots; i++) {
		struct slot *slot = slot_at(c, i);

		if (!waits_for_host(slot))
			continue;
		/* Nothing is received, so the host cannot send; but it can take responses. */
		if (c->rx.block == RX_NO_BUFFER &&
		    (slot->state == SLOT_CAPSULE || slot->state == SLOT_DATA))
			slot->tick++;
		if ((uint8_t)(c->tick - slot->tick) > CONN_TICKS)
			return CONN_LATE;
		wait = CONN_WAITS;
	}
	return wait;
}

bool conn_quiet(const struct conn *c)
{
	for (unsigned int i = 0; i < c->nslots; i++) {
		const struct slot *slot = slot_at((struct conn *)(uintptr_t)c, i);

		if (slot->state == SLOT_EXEC &&
		    (c->queue.qid || slot->req.cmd.opcode != nvme_admin_async_event))
			return false;
	}
	return STAILQ_EMPTY(&c->tx.queue);
}
