/* SPDX-License-Identifier: MIT */
/*
 * Queues, and how requests begin and end: tgt_req_init() parses a command, tgt_req_put() ends it.
 * tgt_req_init() and the parsers that it calls validate everything that a host can get wrong in a
 * command; the code that executes a request does not validate it again.
 *
 *	not connected	-> fabrics.c, Connect alone
 *	fabrics opcode	-> fabrics.c
 *	queue 0		-> admin.c or discovery.c
 *	else		-> the namespace's command set
 *
 * Invariants:
 *  1. inflight counts requests between tgt_req_init() and tgt_req_put(). A queue leaves its
 *     controller when it is closed and inflight is 0, so queue->ctrl is valid as long as a request
 *     exists.
 *  2. len is the number of bytes that the command moves, and equals the length of its SGL. For a
 *     refused command dir is TGT_NONE and len 0.
 *  3. Nothing executes on a closing queue, or for a dead controller.
 *
 * request.c executes and completes requests.
 *
 * Threads: a queue's loop.
 */
#include <assert.h>
#include <string.h>
#include "clock.h"
#include "core.h"
#include "loop.h"

static void queue_put(struct tgt_queue *queue)
{
	assert(queue->inflight);
	if (!--queue->inflight && (queue->closing || queue->deleted) && queue->ctrl)
		ctrl_detach(queue);
}

void tgt_queue_close(struct tgt_queue *queue)
{
	struct tgt_ctrl *ctrl = queue->ctrl;
	struct tgt_req *aers[TGT_AERS];
	unsigned int n = 0;

	queue->closing = true;
	queue->inflight++; /* so that it does not end in the middle of this */
	if (queue->waiting)
		fabrics_drop_waiting(queue);
	if (ctrl) {
		ctrl_queue_closed(queue);
		if (!queue->qid) {
			loop_timer_free(&ctrl->timer);
			ctrl_end(ctrl, "admin connection closed");
			n = ctrl_take_aers(ctrl, aers);
		}
		for (unsigned int i = 0; i < n; i++)
			tgt_req_complete(aers[i], NVME_SC_ABORT_QUEUE);
	}
	queue_put(queue);
}

bool tgt_queue_batch_begin(struct tgt_queue *queue)
{
	queue->batching = true;
	queue->taken_ms = clock_boot_ms();
	ctrl_look(queue, queue->taken_ms);
	return !(queue->ctrl && atomic_load(&queue->ctrl->dead));
}

bool tgt_req_may_begin(struct tgt_req *req)
{
	ctrl_look(req->queue, clock_boot_ms());
	return queue_may_execute(req->queue);
}

/* A broadcast Flush: all namespaces, one answer. */
static void flush_broadcast_done(void *arg, uint16_t status)
{
	tgt_req_complete(arg, status);
}

static void io_execute_flush_broadcast(struct tgt_req *req)
{
	if (flush_all(req->queue->ctrl->subsys, req->queue->loop, flush_broadcast_done, req))
		tgt_req_complete(req, NVME_SC_INTERNAL);
}

static uint16_t io_parse(struct tgt_req *req)
{
	struct tgt_ctrl *ctrl = req->queue->ctrl;
	uint32_t nsid = le32toh(req->cmd.nsid);

	if (nsid == NVME_NSID_ALL && req->cmd.opcode == NVME_CMD_FLUSH) {
		req->execute = io_execute_flush_broadcast;
		return 0;
	}
	req->ns = tgt_ns_get(ctrl->subsys, nsid);
	if (!req->ns)
		return NVME_SC_INVALID_NS | NVME_SC_DNR;
	if (req->ns->set->csi != NVME_CSI_NVM && !atomic_load(&ctrl->iocs))
		return NVME_SCT_SPECIFIC | NVME_SC_IOCS_NOT_ENABLED | NVME_SC_DNR;
	return req->ns->set->parse(req);
}

static uint16_t req_parse(struct tgt_req *req)
{
	struct tgt_queue *queue = req->queue;

	if (queue->closing || queue->deleted)
		return NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR;
	if (!queue->ctrl)
		return fabrics_parse_connect(req);
	ctrl_heard(queue->ctrl, queue->taken_ms);
	if (req->cmd.flags & NVME_SQE_FUSE)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (req->cmd.opcode == nvme_admin_fabrics)
		return fabrics_parse(req);
	if (!atomic_load(&queue->ctrl->ready))
		return NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR;
	if (queue->qid)
		return io_parse(req);
	return queue->ctrl->subsys->discovery ? discovery_parse(req) : admin_parse(req);
}

/* NVMe/TCP takes two descriptors: offset (data in this capsule) and transport. */
static uint16_t sgl_check(const struct tgt_req *req, uint32_t in_capsule)
{
	const struct nvme_sgl_desc *sgl = &req->cmd.dptr;
	uint32_t length = le32toh(sgl->length);

	if ((req->cmd.flags & NVME_SQE_PSDT) != NVME_SQE_PSDT_SGL)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (!req->len) /* the descriptor means nothing then, except by its length */
		return length || in_capsule ? NVME_SC_SGL_INVALID_DATA | NVME_SC_DNR : 0;
	switch (sgl->type) {
	case NVME_SGL_TRANSPORT:
		if (in_capsule)
			return NVME_SC_SGL_INVALID_DATA | NVME_SC_DNR;
		break;
	case NVME_SGL_OFFSET:
		if (req->dir == TGT_C2H)
			return NVME_SC_SGL_INVALID_TYPE | NVME_SC_DNR;
		if (sgl->addr)
			return NVME_SC_SGL_INVALID_OFFSET | NVME_SC_DNR;
		if (length != in_capsule || length > TGT_INCAPSULE)
			return NVME_SC_SGL_INVALID_DATA | NVME_SC_DNR;
		break;
	default:
		return NVME_SC_SGL_INVALID_TYPE | NVME_SC_DNR;
	}
	if (length != req->len)
		return NVME_SC_SGL_INVALID_DATA | NVME_SC_DNR;
	return 0;
}

uint16_t tgt_req_init(struct tgt_req *req, struct tgt_queue *queue, uint32_t in_capsule)
{
	uint16_t status;

	queue->inflight++;
	req->queue = queue;
	req->ns = NULL;
	req->execute = NULL;
	req->len = 0;
	req->zero_copy = TGT_BUFFERED;
	req->may_batch = false;
	req->in_place = NULL;
	req->dir = TGT_NONE;
	req->status = 0;
	memset(&req->cqe, 0, sizeof(req->cqe));
	status = req_parse(req);
	if (!status && req->len > TGT_MAX_TRANSFER)
		status = NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (!status)
		status = sgl_check(req, in_capsule);
	if (status) {
		req->len = 0;
		req->dir = TGT_NONE;
	} else {
		assert(req->execute);
		assert(!req->len == (req->dir == TGT_NONE));
	}
	return status;
}

void tgt_req_put(struct tgt_req *req)
{
	struct tgt_queue *queue = req->queue;

	if (req->zero_copy)
		req->ns->set->zero_copy_end(req);
	if (req->ns)
		tgt_ns_put(req->ns);
	req->ns = NULL;
	if (req->execute == fabrics_execute_disconnect && !queue->closing)
		queue->ops->disconnect(queue); /* the answer is out */
	queue_put(queue);
}
