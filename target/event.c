/* SPDX-License-Identifier: MIT */
/*
 * Asynchronous events (NVMe Base 2.0, 5.2).
 *
 * The host keeps up to TGT_AERS requests outstanding. An event that it has enabled (feature 0Bh)
 * completes one of them; if there is none, the event is recorded as pending. An event that was
 * reported is masked until the host reads the event's log page with RAE 0.
 *
 * Invariants:
 *  1. A request in aers[] belongs to the array: whoever removes it, under ctrl->lock, completes it.
 *  2. An event is never both pending and masked.
 *  3. Events are pending only while aers[] is empty.
 *
 * Threads: any thread may raise an event. Requests arrive on the admin queue's loop, and are
 * completed there by a message.
 */
#include <string.h>
#include "core.h"
#include "loop.h"

static const struct {
	uint32_t aec; /* bit of feature 0Bh */
	uint8_t info, lid;
} events[CTRL_EVENTS] = {
	[CTRL_EVENT_NS] = { AEC_NS, NVME_AER_NOTICE_NS_CHANGED, NVME_LOG_LID_CHANGED_NS },
	[CTRL_EVENT_DISCOVERY] = { AEC_DISCOVERY, NVME_AER_NOTICE_DISC_CHANGED,
				   NVME_LOG_LID_DISCOVER },
};

static void aer_answer(struct tgt_req *req, enum ctrl_event event)
{
	req_set_result(req, NVME_AER_NOTICE | (uint32_t)events[event].info << 8 |
				    (uint32_t)events[event].lid << 16);
	tgt_req_complete_remote(req, 0);
}

void event_execute_aer(struct tgt_req *req)
{
	struct tgt_ctrl *ctrl = req->queue->ctrl;
	enum ctrl_event event = CTRL_EVENTS;
	bool full = false;

	pthread_mutex_lock(&ctrl->lock);
	if (ctrl->pending) {
		event = (enum ctrl_event)__builtin_ctz(ctrl->pending);
		ctrl->pending &= ~(1u << event);
		ctrl->masked |= 1u << event;
	} else if (ctrl->nr_aers < TGT_AERS) {
		ctrl->aers[ctrl->nr_aers++] = req;
	} else {
		full = true;
	}
	pthread_mutex_unlock(&ctrl->lock);
	if (full)
		tgt_req_complete(req, NVME_SCT_SPECIFIC | NVME_SC_ASYNC_LIMIT | NVME_SC_DNR);
	else if (event != CTRL_EVENTS)
		aer_answer(req, event);
}

void ctrl_event_raise(struct tgt_ctrl *ctrl, enum ctrl_event event)
{
	const uint32_t bit = 1u << event;
	struct tgt_req *req = NULL;

	pthread_mutex_lock(&ctrl->lock);
	if (ctrl->features[NVME_FEAT_FID_ASYNC_EVENT] & events[event].aec &&
	    !(ctrl->masked & bit)) {
		if (ctrl->nr_aers) {
			req = ctrl->aers[0];
			ctrl->nr_aers--;
			memmove(&ctrl->aers[0], &ctrl->aers[1],
				ctrl->nr_aers * sizeof(ctrl->aers[0]));
			ctrl->masked |= bit;
		} else {
			ctrl->pending |= bit;
		}
	}
	pthread_mutex_unlock(&ctrl->lock);
	if (req)
		aer_answer(req, event);
}

void tgt_discovery_changed_locked(struct tgt *tgt)
{
	struct tgt_ctrl *ctrl;

	tgt->genctr++;
	pthread_mutex_lock(&tgt->discovery->lock);
	LIST_FOREACH (ctrl, &tgt->discovery->ctrls, link)
		ctrl_event_raise(ctrl, CTRL_EVENT_DISCOVERY);
	pthread_mutex_unlock(&tgt->discovery->lock);
}

void ctrl_event_seen_locked(struct tgt_ctrl *ctrl, enum ctrl_event event)
{
	ctrl->masked &= ~(1u << event);
	ctrl->pending &= ~(1u << event);
}

unsigned int ctrl_take_aers(struct tgt_ctrl *ctrl, struct tgt_req **reqs)
{
	unsigned int n;

	pthread_mutex_lock(&ctrl->lock);
	n = ctrl->nr_aers;
	memcpy(reqs, ctrl->aers, n * sizeof(reqs[0]));
	ctrl->nr_aers = 0;
	pthread_mutex_unlock(&ctrl->lock);
	return n;
}
