/* SPDX-License-Identifier: MIT */
/*
 * Fabrics commands: Connect, Disconnect, Property Get and Property Set (NVMe Base 2.0, 6.3 to 6.6).
 *
 * Connect is validated completely before anything is created. An error status reports the invalid
 * field: IATTR says whether it is in the data or in the SQE, and IPO is its byte offset (figure
 * 359). Fields are checked in this order: format, subsystem, host, controller, queue.
 *
 * An admin Connect may have to wait. A host that lost a connection reconnects and repeats its
 * writes while worker threads may still execute writes of the old association. If the new
 * association began at once, an old write could overwrite a new one (nvme-rules.md B.5.7). So as
 * long as queues of this host are dying (subsys->dying), the Connect is held in subsys->waiting. A
 * host is identified by its NQN, since its host ID may differ after a reboot. Queues of other hosts
 * delay no Connect (docs/threads.md).
 *
 *	connect_hold()			adds it to the list and arms a timer
 *	fabrics_wake_waiting_locked()	no queue of its host is dying any more: posts it to its loop
 *	connect_resume()		tries again; holds it again if another queue is dying by now
 *	connect_expired()		after TGT_CONNECT_WAIT: completes it with Controller Busy
 *	fabrics_drop_waiting()		its own connection was closed: aborts it
 *
 * A struct connect_wait is either on the list (listed; subsys->lock) or posted to its loop. While
 * it is posted only connect_resume() may free it.
 *
 * Property commands are always completed at once, because hosts reserve only one tag for them.
 *
 * Threads: the loop of the command's queue, except fabrics_wake_waiting_locked().
 */
#include <stdlib.h>
#include <stddef.h>
#include <string.h>
#include "core.h"
#include "loop.h"

struct connect_wait {
	TAILQ_ENTRY(connect_wait) link;
	struct tgt_req *req; /* NULL: dropped while posted */
	struct loop_timer timer;
	struct loop_msg msg;
	bool listed; /* subsys->lock */
};

static void connect_admin(struct tgt_req *req, struct tgt_subsys *subsys);

/* Returns Connect Invalid Parameters for OFFSET in the data (IATTR 1) or the SQE (IATTR 0). */
static uint16_t invalid_param(struct tgt_req *req, bool in_data, size_t offset)
{
	req_set_result(req, (uint32_t)offset | (in_data ? 1u << 16 : 0));
	return NVME_SCT_SPECIFIC | NVME_SC_CONNECT_INVALID_PARAM | NVME_SC_DNR;
}

#define BAD_SQE(req, field)  invalid_param(req, false, offsetof(struct nvmf_connect_sqe, field))
#define BAD_DATA(req, field) invalid_param(req, true, offsetof(struct nvmf_connect_data, field))

static const struct nvmf_connect_sqe *connect_sqe(const struct tgt_req *req)
{
	return (const struct nvmf_connect_sqe *)&req->cmd;
}

/* Whether the field holds a terminated name of 1 to TGT_NQN_LEN bytes. */
static bool nqn_field_is_valid(const char *nqn)
{
	size_t len = strnlen(nqn, NVME_NQN_LENGTH);

	return len && len <= TGT_NQN_LEN;
}

static bool hostid_is_zero(const uint8_t *id)
{
	for (int i = 0; i < 16; i++)
		if (id[i])
			return false;
	return true;
}

/* Checks the rules for admin and I/O queues alike. 0 and *SUBSYS, or a status. */
static uint16_t connect_check(struct tgt_req *req, struct tgt_subsys **subsys)
{
	const struct nvmf_connect_sqe *sqe = connect_sqe(req);
	const struct nvmf_connect_data *data = req->buf;
	uint16_t qid = le16toh(sqe->qid), sqsize = le16toh(sqe->sqsize);
	struct tgt_subsys *found;

	if (sqe->recfmt)
		return NVME_SCT_SPECIFIC | NVME_SC_CONNECT_FORMAT | NVME_SC_DNR;
	if (!nqn_field_is_valid(data->subsysnqn))
		return BAD_DATA(req, subsysnqn);
	if (!nqn_field_is_valid(data->hostnqn))
		return BAD_DATA(req, hostnqn);
	found = tgt_subsys_find(req->queue->tgt, data->subsysnqn);
	if (!found)
		return BAD_DATA(req, subsysnqn);
	if (!tgt_host_allowed(found, data->hostnqn))
		return NVME_SCT_SPECIFIC | NVME_SC_CONNECT_INVALID_HOST | NVME_SC_DNR;
	if (!found->discovery && hostid_is_zero(data->hostid))
		return BAD_DATA(req, hostid);
	if (qid >= TGT_MAX_QUEUES || (qid && found->discovery))
		return BAD_SQE(req, qid);
	if (!sqsize || sqsize >= (qid ? TGT_QUEUE_DEPTH : TGT_ADMIN_DEPTH))
		return BAD_SQE(req, sqsize);
	*subsys = found;
	return 0;
}

/* Makes the queue one of CTRL, to which it is attached, and completes the Connect. */
static void connect_done(struct tgt_req *req, struct tgt_ctrl *ctrl)
{
	const struct nvmf_connect_sqe *sqe = connect_sqe(req);
	struct tgt_queue *queue = req->queue;

	queue->ctrl = ctrl;
	queue->qid = le16toh(sqe->qid);
	queue->sqsize = (uint16_t)(le16toh(sqe->sqsize) + 1);
	queue->sqhd = 0;
	queue->sqhd_disabled = sqe->cattr & 0x4;
	if (queue->sqhd_disabled)
		req->cqe.sqhd = htole16(0xffff); /* figure 360: flow control is off */
	req_set_result(req, ctrl->cntlid);
	if (!queue->qid)
		log_info("controller %u connected host=%s subsystem=%s kato=%ums", ctrl->cntlid,
			 ctrl->hostnqn, ctrl->subsys->nqn, ctrl->kato_ms);
	else
		log_debug("controller %u queue %u connected", ctrl->cntlid, queue->qid);
	tgt_req_complete(req, 0);
}

static void wait_free(struct connect_wait *w)
{
	loop_timer_free(&w->timer);
	free(w);
}

/*
 * Completes a held Connect with STATUS. RESUMABLE: not if it is posted to connect_resume() already,
 * which then tries it again.
 */
static void wait_end(struct connect_wait *w, struct tgt_subsys *subsys, uint16_t status,
		     bool resumable)
{
	struct tgt_req *req = w->req;
	bool posted;

	pthread_mutex_lock(&subsys->lock);
	posted = !w->listed;
	if (!posted)
		TAILQ_REMOVE(&subsys->waiting, w, link);
	pthread_mutex_unlock(&subsys->lock);
	if (posted && resumable)
		return;
	req->queue->waiting = NULL;
	w->req = NULL;
	if (!posted)
		wait_free(w);
	tgt_req_complete(req, status);
}

static struct tgt_subsys *wait_subsys(const struct connect_wait *w)
{
	const struct nvmf_connect_data *data = w->req->buf;

	return tgt_subsys_find(w->req->queue->tgt, data->subsysnqn);
}

static void connect_expired(struct loop_timer *t)
{
	struct connect_wait *w =
		(struct connect_wait *)((char *)t - offsetof(struct connect_wait, timer));

	log_warn("connect refused: requests of an ended association are still running");
	wait_end(w, wait_subsys(w), NVME_SCT_SPECIFIC | NVME_SC_CONNECT_CTRL_BUSY, true);
}

void fabrics_drop_waiting(struct tgt_queue *queue)
{
	struct connect_wait *w = queue->waiting;

	wait_end(w, wait_subsys(w), NVME_SC_ABORT_QUEUE, false);
}

static void connect_resume(struct loop_msg *msg)
{
	struct connect_wait *w =
		(struct connect_wait *)((char *)msg - offsetof(struct connect_wait, msg));

	if (w->req)
		connect_admin(w->req, wait_subsys(w));
	else
		wait_free(w);
}

static const char *connect_hostnqn(const struct tgt_req *req)
{
	return ((const struct nvmf_connect_data *)req->buf)->hostnqn;
}

void fabrics_wake_waiting_locked(struct tgt_subsys *subsys, const char *hostnqn)
{
	struct connect_wait *w, *next;

	for (w = TAILQ_FIRST(&subsys->waiting); w; w = next) {
		next = TAILQ_NEXT(w, link);
		if (strcmp(connect_hostnqn(w->req), hostnqn))
			continue;
		TAILQ_REMOVE(&subsys->waiting, w, link);
		w->listed = false;
		loop_post(w->req->queue->loop, &w->msg);
	}
}

/*
 * Adds a Connect to subsys->waiting. One that was held before keeps its timer. False: out of
 * memory. subsys->lock held.
 */
static bool connect_hold(struct tgt_req *req, struct tgt_subsys *subsys)
{
	struct connect_wait *w = req->queue->waiting;

	if (!w) {
		w = calloc(1, sizeof(*w));
		if (!w)
			return false;
		if (loop_timer_init(&w->timer, req->queue->loop, connect_expired) ||
		    loop_timer_arm(&w->timer, TGT_CONNECT_WAIT)) {
			loop_timer_free(&w->timer);
			free(w);
			return false;
		}
		w->req = req;
		w->msg.fn = connect_resume;
		req->queue->waiting = w;
	}
	w->listed = true;
	TAILQ_INSERT_TAIL(&subsys->waiting, w, link);
	return true;
}

static void connect_admin(struct tgt_req *req, struct tgt_subsys *subsys)
{
	struct tgt_queue *queue = req->queue;
	struct tgt_ctrl *ctrl = NULL;
	uint16_t status = NVME_SC_INTERNAL;
	bool dying;

	pthread_mutex_lock(&subsys->lock);
	dying = ctrl_host_is_dying_locked(subsys, connect_hostnqn(req));
	if (dying && connect_hold(req, subsys)) {
		pthread_mutex_unlock(&subsys->lock);
		return;
	}
	if (!dying)
		ctrl = ctrl_new_locked(subsys, req->buf, le32toh(connect_sqe(req)->kato), queue,
				       &status);
	pthread_mutex_unlock(&subsys->lock);
	if (queue->waiting)
		wait_free(queue->waiting);
	queue->waiting = NULL;
	if (ctrl)
		connect_done(req, ctrl);
	else
		tgt_req_complete(req, status);
}

/*
 * Finds the controller that an I/O Connect names and attaches the queue to it. 0 and *OUT, or a
 * status. subsys->lock held.
 */
static uint16_t connect_io_locked(struct tgt_req *req, struct tgt_subsys *subsys,
				  struct tgt_ctrl **out)
{
	const struct nvmf_connect_data *data = req->buf;
	struct tgt_ctrl *ctrl;

	LIST_FOREACH (ctrl, &subsys->ctrls, link)
		if (ctrl->cntlid == le16toh(data->cntlid))
			break;
	if (!ctrl || ctrl_is_overdue(ctrl, req->queue->taken_ms))
		return BAD_DATA(req, cntlid);
	if (strcmp(ctrl->hostnqn, data->hostnqn))
		return BAD_DATA(req, hostnqn);
	if (memcmp(ctrl->hostid, data->hostid, sizeof(ctrl->hostid)))
		return BAD_DATA(req, hostid);
	*out = ctrl;
	return ctrl_attach_locked(ctrl, req->queue, le16toh(connect_sqe(req)->qid));
}

static void connect_io(struct tgt_req *req, struct tgt_subsys *subsys)
{
	struct tgt_ctrl *ctrl = NULL;
	uint16_t status;

	pthread_mutex_lock(&subsys->lock);
	status = connect_io_locked(req, subsys, &ctrl);
	pthread_mutex_unlock(&subsys->lock);
	if (status) {
		log_info("I/O connect refused: status=%#x result=%#llx", status,
			 (unsigned long long)le64toh(req->cqe.result));
		tgt_req_complete(req, status);
	} else {
		connect_done(req, ctrl);
	}
}

static void connect_execute(struct tgt_req *req)
{
	const struct nvmf_connect_data *data = req->buf;
	struct tgt_subsys *subsys = NULL;
	uint16_t status;

	/* Two Connects may have been parsed before the first was executed. */
	if (req->queue->ctrl || req->queue->waiting)
		status = NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR;
	else
		status = connect_check(req, &subsys);
	if (!status && !connect_sqe(req)->qid && le16toh(data->cntlid) != 0xffff)
		status = BAD_DATA(req, cntlid); /* only the dynamic controller model */
	if (status) {
		log_info("connect refused: status=%#x result=%#llx host=%.*s subsystem=%.*s",
			 status, (unsigned long long)le64toh(req->cqe.result), TGT_NQN_LEN,
			 data->hostnqn, TGT_NQN_LEN, data->subsysnqn);
		tgt_req_complete(req, status);
	} else if (connect_sqe(req)->qid) {
		connect_io(req, subsys);
	} else {
		connect_admin(req, subsys);
	}
}

uint16_t fabrics_parse_connect(struct tgt_req *req)
{
	if (req->cmd.opcode != nvme_admin_fabrics ||
	    connect_sqe(req)->fctype != nvme_fabrics_type_connect)
		return NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR;
	if (req->cmd.flags & NVME_SQE_FUSE)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	req->dir = TGT_H2C;
	req->len = sizeof(struct nvmf_connect_data);
	req->execute = connect_execute;
	return 0;
}

static const struct nvmf_property_sqe *property_sqe(const struct tgt_req *req)
{
	return (const struct nvmf_property_sqe *)&req->cmd;
}

static void property_get_execute(struct tgt_req *req)
{
	const struct nvmf_property_sqe *sqe = property_sqe(req);
	uint64_t value = 0;
	uint16_t status;

	status = ctrl_property_get(req->queue->ctrl, le32toh(sqe->offset), sqe->attrib & 7, &value);
	req_set_result(req, value);
	tgt_req_complete(req, status);
}

static void property_set_execute(struct tgt_req *req)
{
	const struct nvmf_property_sqe *sqe = property_sqe(req);
	uint16_t status;

	status = ctrl_property_set(req->queue->ctrl, le32toh(sqe->offset), sqe->attrib & 7,
				   le64toh(sqe->value));
	tgt_req_complete(req, status);
}

/*
 * Deletes the queue (NVMe Base 2.0, 6.4). The connection remains until the response was sent
 * (tgt_req_put()).
 */
void fabrics_execute_disconnect(struct tgt_req *req)
{
	req->queue->deleted = true;
	tgt_req_complete(req, 0);
}

static uint16_t parse_admin_fabrics(struct tgt_req *req, uint8_t fctype)
{
	switch (fctype) {
	case nvme_fabrics_type_property_get:
		req->execute = property_get_execute;
		break;
	case nvme_fabrics_type_property_set:
		req->execute = property_set_execute;
		break;
	case nvme_fabrics_type_disconnect:
		return NVME_SCT_SPECIFIC | NVME_SC_DISCONNECT_INVALID_QTYPE | NVME_SC_DNR;
	default:
		return NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
	}
	if ((property_sqe(req)->attrib & 7) > 1)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	return 0;
}

uint16_t fabrics_parse(struct tgt_req *req)
{
	uint8_t fctype = connect_sqe(req)->fctype;

	if (fctype == nvme_fabrics_type_connect)
		return NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR;
	if (!req->queue->qid)
		return parse_admin_fabrics(req, fctype);
	if (fctype != nvme_fabrics_type_disconnect)
		return NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
	if (connect_sqe(req)->recfmt)
		return NVME_SCT_SPECIFIC | NVME_SC_CONNECT_FORMAT | NVME_SC_DNR;
	req->execute = fabrics_execute_disconnect;
	return 0;
}
