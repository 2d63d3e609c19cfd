/* SPDX-License-Identifier: MIT */
/*
 * Executes and completes requests of every kind, one by one or as the batch of a wake-up. queue.c
 * calls the parser for a command before.
 *
 * No request executes on a closing queue or for a dead controller.
 *
 * Threads: a queue's loop; only tgt_req_complete_remote() is called from others.
 */
#include <string.h>
#include "core.h"
#include "loop.h"

void tgt_queue_init(struct tgt_queue *queue, struct tgt *tgt, const struct tgt_transport_ops *ops,
		    struct loop *loop, struct tgt_port *port)
{
	*queue = (struct tgt_queue){
		.ops = ops,
		.tgt = tgt,
		.loop = loop,
		.port = port,
	};
	STAILQ_INIT(&queue->batch);
}

bool queue_may_execute(const struct tgt_queue *queue)
{
	return !queue->closing && !queue->deleted &&
	       !(queue->ctrl && atomic_load(&queue->ctrl->dead));
}

void tgt_queue_batch_end(struct tgt_queue *queue)
{
	struct tgt_req *req;

	queue->batching = false;
	while ((req = STAILQ_FIRST(&queue->batch))) {
		const struct tgt_ns *ns = req->ns;
		struct tgt_reqs reqs = STAILQ_HEAD_INITIALIZER(reqs);

		while ((req = STAILQ_FIRST(&queue->batch)) && req->ns == ns) {
			STAILQ_REMOVE_HEAD(&queue->batch, link);
			STAILQ_INSERT_TAIL(&reqs, req, link);
		}
		ns->set->run_batch(&reqs);
	}
}

const char *tgt_queue_hostnqn(const struct tgt_queue *queue)
{
	return queue->ctrl ? queue->ctrl->hostnqn : NULL;
}

bool tgt_req_zero_copy(struct tgt_req *req)
{
	if (!req->ns || !queue_may_execute(req->queue) || !req->ns->set->zero_copy(req))
		return false;
	req->zero_copy = TGT_ZERO_COPY;
	return true;
}

bool tgt_req_copy_out(struct tgt_req *req, void *buf)
{
	const struct tgt_command_set *set = req->ns->set;
	int err = set->copy_out(req, buf);

	if (err)
		return false;
	set->zero_copy_end(req);
	req->zero_copy = TGT_BUFFERED;
	req->buf = buf;
	return true;
}

void tgt_req_copy_in(struct tgt_req *req)
{
	if (req->in_place)
		memcpy(req->buf, req->in_place, req->len);
	req->in_place = NULL;
}

void tgt_req_execute(struct tgt_req *req)
{
	if (!queue_may_execute(req->queue))
		tgt_req_complete(req, NVME_SC_ABORT_QUEUE);
	else
		req->execute(req);
}

/* One thread writes the counter, so this needs no atomic read-modify-write. */
static void add(_Atomic uint64_t *counter, uint64_t n)
{
	uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, value + n, memory_order_relaxed);
}

static void count(struct tgt_counters *c, const struct tgt_req *req)
{
	uint64_t blocks = req->len / 512;

	if (req->cmd.opcode == NVME_CMD_READ) {
		add(&c->blocks_read, blocks);
		add(&c->reads, 1);
	} else if (req->cmd.opcode == NVME_CMD_WRITE || req->cmd.opcode == NVME_CMD_APPEND) {
		add(&c->blocks_written, blocks);
		add(&c->writes, 1);
	}
}

void tgt_req_complete(struct tgt_req *req, uint16_t status)
{
	struct tgt_queue *queue = req->queue;

	if (!status && req->ns && queue->ctrl)
		count(&queue->counters, req);
	/*
	 * SQHD advances when a command completes, not when it arrives: the transport has one slot
	 * per queue entry, and the host must not send more commands than that.
	 */
	if (queue->sqsize && !queue->sqhd_disabled) {
		queue->sqhd = (uint16_t)((queue->sqhd + 1) % queue->sqsize);
		req->cqe.sqhd = htole16(queue->sqhd);
	}
	req->cqe.sqid = htole16(queue->qid);
	req->cqe.cid = req->cmd.cid;
	req->cqe.status = htole16((uint16_t)(status << 1));
	queue->ops->respond(req);
}

static void complete_on_loop(struct loop_msg *msg)
{
	struct tgt_req *req = (struct tgt_req *)((char *)msg - offsetof(struct tgt_req, msg));

	tgt_req_complete(req, req->status);
}

void tgt_req_complete_remote(struct tgt_req *req, uint16_t status)
{
	req->status = status;
	req->msg.fn = complete_on_loop;
	loop_post(req->queue->loop, &req->msg);
}
