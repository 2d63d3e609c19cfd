/* SPDX-License-Identifier: MIT */
/*
 * Controllers, from the admin Connect until the last queue is detached (NVMe Base 2.0, 3.5 to 3.7
 * and 3.9).
 *
 *	Connect			ctrl_new_locked()	puts it into subsys->ctrls
 *	CC.EN 0 -> 1		ctrl_enable_locked()	sets CSTS.RDY
 *	CC.EN 1 -> 0		ctrl_reset_locked()	disconnects the I/O queues; clears RDY when
 *							all are detached
 *	CC.SHN			ctrl_shutdown_locked()	disconnects the I/O queues; when all are
 *							detached, flushes all namespaces, then sets
 *							SHST to complete
 *	admin queue closed,
 *	keep alive expired	ctrl_end()		marks it dead, so that nothing executes;
 *							disconnects all queues
 *	last queue detached	ctrl_put()		frees it
 *
 * Invariants:
 *  1. A queue holds a reference while it is in a slot. queue->ctrl is set during that time, and
 *     only then.
 *  2. A queue leaves its slot when it is closed and has no request in flight. So the controller of
 *     a request exists as long as the request.
 *  3. A controller is in subsys->ctrls if and only if it is not dead.
 *  4. ctrl->nr_dying is the number of slots that are marked dying: all slots of a dead controller,
 *     and those of closed queues. A controller is in subsys->dying if and only if nr_dying > 0.
 *  5. CSTS.RDY and CSTS.SHST change only in this file, under ctrl->lock. ctrl->ready is a copy for
 *     readers that take no lock.
 *
 * Threads: the timer and the properties run on the admin queue's loop; ctrl_detach() runs on its
 * queue's loop; ctrl_end() on any thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include "clock.h"
#include "core.h"
#include "loop.h"

#define FIELD(name, value) ((uint64_t)(value) << NVME_##name##_SHIFT)
#define MASKED(name)	   ((uint32_t)NVME_##name##_MASK << NVME_##name##_SHIFT)

#define CSTS_RDY       FIELD(CSTS_RDY, 1)
#define CSTS_CFS       FIELD(CSTS_CFS, 1)
#define CSTS_SHST_MASK MASKED(CSTS_SHST)

static void shutdown_flush(struct tgt_ctrl *ctrl, struct loop *loop);

static void ctrl_disconnect_locked(struct tgt_ctrl *ctrl, unsigned int first)
{
	for (unsigned int qid = first; qid < TGT_MAX_QUEUES; qid++) {
		struct ctrl_slot *slot = &ctrl->queues[qid];

		if (slot->queue && !slot->dying)
			slot->queue->ops->disconnect(slot->queue);
	}
}

/* Marks SLOT as dying. subsys->lock and ctrl->lock held. */
static void slot_dies_locked(struct tgt_ctrl *ctrl, struct ctrl_slot *slot)
{
	if (!slot->queue || slot->dying)
		return;
	slot->dying = true;
	if (!ctrl->nr_dying++)
		LIST_INSERT_HEAD(&ctrl->subsys->dying, ctrl, dying_link);
}

/* Frees a slot whose queue is drained. True: it was CTRL's last dying one. Both locks held. */
static bool slot_free_locked(struct tgt_ctrl *ctrl, struct ctrl_slot *slot)
{
	bool last = slot->dying && !--ctrl->nr_dying;

	if (last)
		LIST_REMOVE(ctrl, dying_link);
	*slot = (struct ctrl_slot){ 0 };
	return last;
}

bool ctrl_host_is_dying_locked(struct tgt_subsys *subsys, const char *hostnqn)
{
	const struct tgt_ctrl *ctrl;

	LIST_FOREACH (ctrl, &subsys->dying, dying_link)
		if (!strcmp(ctrl->hostnqn, hostnqn))
			return true;
	return false;
}

void tgt_ns_copy_out(struct tgt_ns *ns)
{
	struct tgt_subsys *subsys = ns->subsys;
	struct tgt_ctrl *ctrl;

	if (!subsys) /* it was not added, so no queue uses it */
		return;
	pthread_mutex_lock(&subsys->lock);
	LIST_FOREACH (ctrl, &subsys->ctrls, link) {
		pthread_mutex_lock(&ctrl->lock);
		for (unsigned int qid = 1; qid < TGT_MAX_QUEUES; qid++) {
			struct ctrl_slot *slot = &ctrl->queues[qid];

			if (slot->queue && !slot->dying)
				slot->queue->ops->copy_out(slot->queue);
		}
		pthread_mutex_unlock(&ctrl->lock);
	}
	pthread_mutex_unlock(&subsys->lock);
}

void ctrl_end(struct tgt_ctrl *ctrl, const char *why)
{
	struct tgt_subsys *subsys = ctrl->subsys;

	pthread_mutex_lock(&subsys->lock);
	if (atomic_load(&ctrl->dead)) {
		pthread_mutex_unlock(&subsys->lock);
		return;
	}
	atomic_store(&ctrl->dead, true);
	atomic_store(&ctrl->ready, false);
	LIST_REMOVE(ctrl, link);
	subsys->nr_ctrls--;
	pthread_mutex_lock(&ctrl->lock);
	ctrl->csts |= CSTS_CFS;
	ctrl_disconnect_locked(ctrl, 0);
	for (unsigned int qid = 0; qid < TGT_MAX_QUEUES; qid++)
		slot_dies_locked(ctrl, &ctrl->queues[qid]);
	pthread_mutex_unlock(&ctrl->lock);
	pthread_mutex_unlock(&subsys->lock);
	log_info("controller %u ended: %s host=%s subsystem=%s", ctrl->cntlid, why, ctrl->hostnqn,
		 subsys->nqn);
}

static void counters_add(struct tgt_counters *sum, const struct tgt_counters *c)
{
	sum->blocks_read += c->blocks_read;
	sum->blocks_written += c->blocks_written;
	sum->reads += c->reads;
	sum->writes += c->writes;
}

void subsys_count_locked(struct tgt_subsys *subsys, struct tgt_counters *sum)
{
	struct tgt_ctrl *ctrl;

	counters_add(sum, &subsys->retired);
	LIST_FOREACH (ctrl, &subsys->ctrls, link) {
		pthread_mutex_lock(&ctrl->lock);
		for (unsigned int qid = 0; qid < TGT_MAX_QUEUES; qid++)
			if (ctrl->queues[qid].queue)
				counters_add(sum, &ctrl->queues[qid].queue->counters);
		pthread_mutex_unlock(&ctrl->lock);
	}
}

void ctrl_put(struct tgt_ctrl *ctrl)
{
	if (atomic_fetch_sub(&ctrl->refs, 1) != 1)
		return;
	pthread_mutex_destroy(&ctrl->lock);
	free(ctrl);
}

/*
 * Keep alive, traffic based (CTRATT TBKAS; NVMe Base 2.0, 3.9): time is divided into intervals of
 * KATO. If no command arrives in an interval, the controller ends at its end, with all its queues.
 * The deadline is the end of the current interval until a command arrives in it, and the end of the
 * next interval afterwards. So the first command of an interval moves the deadline by KATO; later
 * ones find it more than KATO away and do not move it.
 *
 * After a loop has received data it reads the clock, and it checks the deadline before it handles
 * the data: the program may have been stopped, or the machine suspended, so that neither the timer
 * nor the admin queue's loop ran. Only data received before the deadline moves it, so no queue can
 * extend the life of a controller that another queue has found overdue.
 *
 * The timer ends controllers that receive nothing. It may fire early or late, since it stands still
 * while the machine is suspended; only the deadline decides.
 */
static const char expired[] = "keep alive timer expired";

void ctrl_extend(struct tgt_ctrl *ctrl, uint64_t deadline, uint32_t kato_ms)
{
	/* If this fails, another loop has moved the deadline, or a Set Features has replaced it. */
	atomic_compare_exchange_strong(&ctrl->deadline, &deadline, deadline + kato_ms);
}

void ctrl_look(struct tgt_queue *queue, uint64_t now)
{
	struct tgt_ctrl *ctrl = queue->ctrl;

	if (ctrl && ctrl_is_overdue(ctrl, now))
		ctrl_end(ctrl, expired);
}

/*
 * Ends the controller if it is overdue, or if there is no memory to arm the timer again: otherwise
 * a host that is gone would keep its queues for ever, while a host that is present connects again.
 */
static void kato_fired(struct loop_timer *t)
{
	struct tgt_ctrl *ctrl = (struct tgt_ctrl *)((char *)t - offsetof(struct tgt_ctrl, timer));
	uint64_t now = clock_boot_ms();

	if (ctrl_is_overdue(ctrl, now))
		ctrl_end(ctrl, expired);
	else if (loop_timer_arm(&ctrl->timer, atomic_load(&ctrl->deadline) - now + 1))
		ctrl_end(ctrl, "no memory for the keep alive timer");
}

int ctrl_set_kato(struct tgt_ctrl *ctrl, uint64_t kato_ms)
{
	uint64_t rounded = (kato_ms + TGT_KAS_MS - 1) / TGT_KAS_MS * TGT_KAS_MS;
	uint32_t ms = rounded > UINT32_MAX ? UINT32_MAX : (uint32_t)rounded;

	if (!ms && ctrl->subsys->discovery)
		ms = TGT_DISC_IDLE;
	if (ctrl->timer.ev && ms && loop_timer_arm(&ctrl->timer, ms))
		return -ENOMEM;
	if (ctrl->timer.ev && !ms)
		loop_timer_disarm(&ctrl->timer);
	/* In this order, so that a loop that reads the new deadline then reads the new interval. */
	atomic_store(&ctrl->kato_ms, ms);
	atomic_store(&ctrl->deadline, ms ? clock_boot_ms() + ms : UINT64_MAX);
	return 0;
}

/*
 * Picks an unused controller ID, and not one that was used lately: a late I/O Connect must not find
 * the controller of another host. False: there are TGT_MAX_CTRLS controllers.
 */
static bool cntlid_pick_locked(struct tgt_subsys *subsys, uint16_t *cntlid)
{
	const struct tgt_ctrl *other;
	uint16_t id = subsys->last_cntlid;

	if (subsys->nr_ctrls >= TGT_MAX_CTRLS)
		return false;
	do {
		id = id >= 0xffef ? 1 : (uint16_t)(id + 1);
		LIST_FOREACH (other, &subsys->ctrls, link)
			if (other->cntlid == id)
				break;
	} while (other);
	subsys->last_cntlid = id;
	*cntlid = id;
	return true;
}

struct tgt_ctrl *ctrl_new_locked(struct tgt_subsys *subsys, const struct nvmf_connect_data *data,
				 uint32_t kato, struct tgt_queue *admin, uint16_t *status)
{
	struct tgt_ctrl *ctrl = calloc(1, sizeof(*ctrl));

	*status = NVME_SC_INTERNAL;
	if (!ctrl)
		return NULL;
	if (loop_timer_init(&ctrl->timer, admin->loop, kato_fired))
		goto free_ctrl;
	ctrl->subsys = subsys;
	if (ctrl_set_kato(ctrl, kato))
		goto free_timer;
	*status = NVME_SCT_SPECIFIC | NVME_SC_CONNECT_CTRL_BUSY;
	if (!cntlid_pick_locked(subsys, &ctrl->cntlid))
		goto free_timer;
	ctrl->tgt = subsys->tgt;
	atomic_store(&ctrl->refs, 1);
	memcpy(ctrl->hostid, data->hostid, sizeof(ctrl->hostid));
	snprintf(ctrl->hostnqn, sizeof(ctrl->hostnqn), "%.*s", TGT_NQN_LEN, data->hostnqn);
	pthread_mutex_init(&ctrl->lock, NULL);
	ctrl->queues[0].queue = admin;
	LIST_INSERT_HEAD(&subsys->ctrls, ctrl, link);
	subsys->nr_ctrls++;
	*status = 0;
	return ctrl;

free_timer:
	loop_timer_free(&ctrl->timer);
free_ctrl:
	free(ctrl);
	return NULL;
}

uint16_t ctrl_attach_locked(struct tgt_ctrl *ctrl, struct tgt_queue *queue, uint16_t qid)
{
	uint16_t status = NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR;

	pthread_mutex_lock(&ctrl->lock);
	if (atomic_load(&ctrl->ready) && !ctrl->queues[qid].queue &&
	    !(ctrl->csts & CSTS_SHST_MASK)) {
		ctrl->queues[qid].queue = queue;
		ctrl->nr_io++;
		atomic_fetch_add(&ctrl->refs, 1);
		status = 0;
	}
	pthread_mutex_unlock(&ctrl->lock);
	return status;
}

void ctrl_queue_closed(struct tgt_queue *queue)
{
	struct tgt_ctrl *ctrl = queue->ctrl;

	pthread_mutex_lock(&ctrl->subsys->lock);
	pthread_mutex_lock(&ctrl->lock);
	slot_dies_locked(ctrl, &ctrl->queues[queue->qid]);
	pthread_mutex_unlock(&ctrl->lock);
	pthread_mutex_unlock(&ctrl->subsys->lock);
}

/*
 * Does what had to wait until all I/O queues are detached: clears RDY after a reset; after a
 * shutdown returns true, with a reference taken, and the caller then starts the flush unlocked.
 */
static bool ctrl_settle_locked(struct tgt_ctrl *ctrl)
{
	if (ctrl->nr_io)
		return false;
	if (!NVME_CC_EN(ctrl->cc))
		ctrl->csts &= (uint32_t)~CSTS_RDY;
	if (NVME_CSTS_SHST(ctrl->csts) != NVME_CSTS_SHST_OCCUR || ctrl->flushing)
		return false;
	ctrl->flushing = true;
	atomic_fetch_add(&ctrl->refs, 1);
	return true;
}

void ctrl_detach(struct tgt_queue *queue)
{
	struct tgt_ctrl *ctrl = queue->ctrl;
	struct tgt_subsys *subsys = ctrl->subsys;
	bool flush, last;

	pthread_mutex_lock(&subsys->lock);
	pthread_mutex_lock(&ctrl->lock);
	last = slot_free_locked(ctrl, &ctrl->queues[queue->qid]);
	counters_add(&subsys->retired, &queue->counters);
	if (queue->qid)
		ctrl->nr_io--;
	flush = ctrl_settle_locked(ctrl);
	pthread_mutex_unlock(&ctrl->lock);
	if (last && !ctrl_host_is_dying_locked(subsys, ctrl->hostnqn))
		fabrics_wake_waiting_locked(subsys, ctrl->hostnqn);
	pthread_mutex_unlock(&subsys->lock);
	queue->ctrl = NULL;
	if (flush)
		shutdown_flush(ctrl, queue->loop);
	ctrl_put(ctrl);
}

static void shutdown_flushed(void *arg, uint16_t status)
{
	struct tgt_ctrl *ctrl = arg;

	if (status)
		log_err("controller %u: flush at shutdown failed: status %#x", ctrl->cntlid,
			status);
	pthread_mutex_lock(&ctrl->lock);
	ctrl->flushing = false;
	if (NVME_CSTS_SHST(ctrl->csts) == NVME_CSTS_SHST_OCCUR) {
		ctrl->csts &= ~CSTS_SHST_MASK;
		ctrl->csts |= (uint32_t)FIELD(CSTS_SHST, NVME_CSTS_SHST_CMPLT);
		if (status)
			ctrl->csts |= CSTS_CFS;
	}
	pthread_mutex_unlock(&ctrl->lock);
	ctrl_put(ctrl);
}

/* Makes the host's data durable before SHST reports that the shutdown is complete. */
static void shutdown_flush(struct tgt_ctrl *ctrl, struct loop *loop)
{
	if (flush_all(ctrl->subsys, loop, shutdown_flushed, ctrl))
		shutdown_flushed(ctrl, NVME_SC_INTERNAL);
}

/* Aborts the outstanding Asynchronous Event Requests. */
static void ctrl_fail_aers(struct tgt_ctrl *ctrl)
{
	struct tgt_req *aers[TGT_AERS];
	unsigned int n = ctrl_take_aers(ctrl, aers);

	for (unsigned int i = 0; i < n; i++)
		tgt_req_complete_remote(aers[i], NVME_SC_ABORT_QUEUE);
}

#define CC_KNOWN                                                                                   \
	(MASKED(CC_EN) | MASKED(CC_CSS) | MASKED(CC_MPS) | MASKED(CC_AMS) | MASKED(CC_SHN) |       \
	 MASKED(CC_IOSQES) | MASKED(CC_IOCQES) | MASKED(CC_CRIME))

/* Whether CC is a supported configuration. A discovery controller ignores the entry sizes. */
static bool cc_is_valid(const struct tgt_ctrl *ctrl, uint32_t cc)
{
	uint32_t css = NVME_CC_CSS(cc);

	if (css != NVME_CC_CSS_NVM && css != NVME_CC_CSS_CSI)
		return false;
	if (NVME_CC_MPS(cc) || NVME_CC_AMS(cc) || NVME_CC_CRIME(cc))
		return false;
	if (ctrl->subsys->discovery)
		return true;
	return NVME_CC_IOSQES(cc) == 6 && NVME_CC_IOCQES(cc) == 4;
}

static uint16_t ctrl_enable_locked(struct tgt_ctrl *ctrl, uint32_t cc)
{
	if (!cc_is_valid(ctrl, cc))
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (ctrl->csts & CSTS_RDY) /* a reset still waits for I/O queues to be detached */
		return NVME_SC_CMD_SEQ_ERROR;
	ctrl->csts = CSTS_RDY;
	atomic_store(&ctrl->iocs, NVME_CC_CSS(cc) == NVME_CC_CSS_CSI);
	atomic_store(&ctrl->ready, true);
	return 0;
}

static void ctrl_reset_locked(struct tgt_ctrl *ctrl)
{
	atomic_store(&ctrl->ready, false);
	ctrl->csts &= ~CSTS_SHST_MASK;
	memset(ctrl->features, 0, sizeof(ctrl->features));
	ctrl->temp_under = 0;
	ctrl->pending = 0;
	ctrl->masked = 0;
	ctrl_disconnect_locked(ctrl, 1);
}

static void ctrl_shutdown_locked(struct tgt_ctrl *ctrl)
{
	ctrl->csts &= ~CSTS_SHST_MASK;
	ctrl->csts |= (uint32_t)FIELD(CSTS_SHST, NVME_CSTS_SHST_OCCUR);
	ctrl_disconnect_locked(ctrl, 1);
}

/* Writes CC. Reserved bits are ignored, since some hosts set them (nvme-rules.md B.5.4). */
static uint16_t ctrl_set_cc(struct tgt_ctrl *ctrl, uint32_t cc)
{
	const uint32_t fixed = MASKED(CC_CSS) | MASKED(CC_MPS) | MASKED(CC_AMS) | MASKED(CC_CRIME);
	bool reset = false, flush;
	uint16_t status = 0;
	uint32_t old;

	cc &= CC_KNOWN;
	pthread_mutex_lock(&ctrl->lock);
	old = ctrl->cc;
	if (NVME_CC_EN(cc) && !NVME_CC_EN(old))
		status = ctrl_enable_locked(ctrl, cc);
	else if (NVME_CC_EN(cc) && (cc ^ old) & fixed)
		status = NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR;
	if (status) {
		pthread_mutex_unlock(&ctrl->lock);
		return status;
	}
	ctrl->cc = cc;
	if (!NVME_CC_EN(cc) && NVME_CC_EN(old)) {
		ctrl_reset_locked(ctrl);
		reset = true;
	}
	if (NVME_CC_SHN(cc) && !NVME_CC_SHN(old))
		ctrl_shutdown_locked(ctrl);
	flush = ctrl_settle_locked(ctrl);
	pthread_mutex_unlock(&ctrl->lock);
	if (reset)
		ctrl_fail_aers(ctrl);
	if (flush)
		shutdown_flush(ctrl, ctrl->queues[0].queue->loop);
	return 0;
}

static uint64_t ctrl_cap(void)
{
	return FIELD(CAP_MQES, TGT_QUEUE_DEPTH - 1) | FIELD(CAP_CQR, 1) |
	       FIELD(CAP_TO, TGT_CAP_TO) | FIELD(CAP_CSS, NVME_CAP_CSS_NVM | NVME_CAP_CSS_CSI) |
	       FIELD(CAP_CRMS, NVME_CAP_CRWMS);
}

uint16_t ctrl_property_get(struct tgt_ctrl *ctrl, uint32_t offset, bool wide, uint64_t *value)
{
	uint64_t v;

	if (wide != (offset == NVME_REG_CAP))
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	pthread_mutex_lock(&ctrl->lock);
	switch (offset) {
	case NVME_REG_CAP:
		v = ctrl_cap();
		break;
	case NVME_REG_VS:
		v = TGT_VS;
		break;
	case NVME_REG_CC:
		v = ctrl->cc;
		break;
	case NVME_REG_CSTS:
		v = ctrl->csts;
		break;
	case NVME_REG_CRTO:
		v = TGT_CAP_TO; /* CRWMT: as CAP.TO; no CRIMT, since CAP.CRMS has no CRIMS */
		break;
	default:
		pthread_mutex_unlock(&ctrl->lock);
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	}
	pthread_mutex_unlock(&ctrl->lock);
	*value = v;
	return 0;
}

uint16_t ctrl_property_set(struct tgt_ctrl *ctrl, uint32_t offset, bool wide, uint64_t value)
{
	if (offset != NVME_REG_CC || wide)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	return ctrl_set_cc(ctrl, (uint32_t)value);
}
