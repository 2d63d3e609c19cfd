/* SPDX-License-Identifier: MIT */
/*
 * Completes commands whose work is done, or lets them wait for a flush first; and resumes commands
 * that waited for their zones.
 *
 * A request is completed, started or retried on its own loop; other threads post req->msg for that.
 */
#include "ns.h"

static void retry_here(struct loop_msg *msg)
{
	struct tgt_req *req = msg_req(msg);

	if (tgt_req_may_begin(req))
		tgt_req_execute(req);
	else
		tgt_req_complete(req, NVME_SC_ABORT_QUEUE);
}

void zns_finish(struct tgt_req *req, uint16_t status)
{
	const struct zns *zns = req_zns(req);
	const bool data =
		req->cmd.opcode == nvme_cmd_write || req->cmd.opcode == nvme_zns_cmd_append;

	if (!status && (zns->writethrough || (data && req_fua(req))))
		zns_complete_flushed(req);
	else if (loop_current() == req->queue->loop)
		tgt_req_complete(req, status);
	else
		tgt_req_complete_remote(req, status);
}

/* The result of an append is the 64-bit LBA that it was written to (ZNS 1.1, 3.4.1). */
static void finish_write(struct tgt_req *req, uint16_t status)
{
	if (req->cmd.opcode == nvme_zns_cmd_append && !status)
		req->cqe.result = htole64(req_cmd(req)->io.lba);
	zns_finish(req, status);
}

void zns_dispatch_items(struct zone_items *items)
{
	struct zone_item *item;

	while ((item = zone_items_take(items))) {
		struct tgt_req *req = item_req(item);

		switch (item->event) {
		case ZONE_COMPLETE:
			finish_write(req, item->status);
			break;
		case ZONE_RETRY:
			req->msg.fn = retry_here;
			loop_post(req->queue->loop, &req->msg);
			break;
		case ZONE_START: /* msg.fn was set when the claim was made */
			loop_post(req->queue->loop, &req->msg);
			break;
		}
	}
}
