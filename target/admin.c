/* SPDX-License-Identifier: MIT */
/*
 * Admin commands of an I/O controller: dispatches them by opcode. Identify, features and log pages
 * have files of their own; the other commands are here.
 *
 * Abort never cancels a command: one that has begun runs to its end. Bit 0 of DW0 in the completion
 * says that it was not aborted.
 */
#include "core.h"

void admin_execute_keep_alive(struct tgt_req *req)
{
	/* tgt_req_init() has already counted it as traffic. Without a timer it is refused. */
	tgt_req_complete(req, req->queue->ctrl->kato_ms ? 0 : NVME_SC_KAT_INVALID | NVME_SC_DNR);
}

static void abort_execute(struct tgt_req *req)
{
	req_set_result(req, 1);
	tgt_req_complete(req, 0);
}

uint16_t admin_parse(struct tgt_req *req)
{
	switch (req->cmd.opcode) {
	case nvme_admin_identify:
		return identify_parse(req);
	case nvme_admin_get_log_page:
		return log_page_parse(req);
	case nvme_admin_get_features:
		return features_parse_get(req);
	case nvme_admin_set_features:
		return features_parse_set(req);
	case nvme_admin_async_event:
		req->execute = event_execute_aer;
		return 0;
	case nvme_admin_keep_alive:
		req->execute = admin_execute_keep_alive;
		return 0;
	case nvme_admin_abort_cmd:
		req->execute = abort_execute;
		return 0;
	default:
		return NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
	}
}
