/* SPDX-License-Identifier: MIT */
/*
 * Zone Management Send (NVMe ZNS 1.1, 3.4.3).
 *
 * Open, close and offline only change the state, at once, in zone_manage(). Reset and finish change
 * the image: they claim their zones, and when these are quiet, claim_start() submits one work item
 * that handles all of them, also for Select All. A flush may run at the same time: the store keeps
 * them apart (store.h), and no write to a claimed zone is in flight to advance its write pointer.
 *
 * A reset or finish is durable after the next flush (D1). If the store had no space or memory to
 * begin it, the zone stays as it was. After any other error the image may be changed in part,
 * and the zone becomes Read Only. Select All continues with the other zones and reports the
 * first failure.
 */
#include <errno.h>
#include "ns.h"

#define MGMT_ZSA	0x0ffu /* CDW13 */
#define MGMT_SELECT_ALL 0x100u
#define MGMT_ZRWAA	0x200u

static uint8_t req_zsa(const struct tgt_req *req)
{
	return le32toh(req->cmd.cdw13) & MGMT_ZSA;
}

static bool req_all(const struct tgt_req *req)
{
	return le32toh(req->cmd.cdw13) & MGMT_SELECT_ALL;
}

static int store_act(struct zns *zns, uint8_t action, uint32_t zone, uint64_t wp)
{
	const struct store_ops *ops = zns->store->ops;

	if (action == NVME_ZNS_ZSA_RESET)
		return ops->reset(zns->store, zone);
	return ops->finish(zns->store, zone, wp << zns->lba_shift);
}

static enum zone_outcome outcome_of(int err)
{
	if (!err)
		return ZONE_OK;
	return err == -ENOSPC || err == -EDQUOT || err == -ENOMEM ? ZONE_UNCHANGED : ZONE_BROKEN;
}

static void zns_claim_work(struct work *w)
{
	struct tgt_req *req = work_req(w);
	struct zns *zns = req_zns(req);
	struct zone_claim *claim = &req_cmd(req)->claim;
	enum zone_outcome outcome;
	uint32_t zone = 0;
	int err, first = 0;
	uint64_t wp;

	while ((zone = zone_claim_next(&zns->zones, claim, zone, &wp)) != ZONE_NONE) {
		err = store_act(zns, claim->action, zone, wp);
		outcome = outcome_of(err);
		if (outcome == ZONE_BROKEN)
			log_err("namespace %u: zone %u is Read Only now: its %s failed half way",
				zns->ns.nsid, zone,
				claim->action == NVME_ZNS_ZSA_RESET ? "reset" : "finish");
		zone_claim_done(&zns->zones, claim, zone, outcome);
		if (!first)
			first = err;
		zone++;
	}
	req->status = store_status(zns, first, true);
}

static void zns_claim_done(struct work *w)
{
	struct tgt_req *req = work_req(w);
	struct zns *zns = req_zns(req);
	struct zone_items items;

	zone_items_init(&items);
	zone_claim_end(&zns->zones, &req_cmd(req)->claim, &items);
	zns_mark_dirty(zns, clock_boot_ms());
	zns_housekeep(zns);
	zns_finish(req, req->status);
	zns_dispatch(&items);
}

/* Submits the work of a reset or finish, whose zones are claimed and quiet. */
static void claim_start(struct tgt_req *req)
{
	work_submit(req->queue->loop, &req->work, zns_claim_work, zns_claim_done);
}

/* Aborts a reset or finish before it begins: its zones stay as they are. */
static void claim_drop(struct tgt_req *req)
{
	struct zones *zones = &req_zns(req)->zones;
	struct zone_claim *claim = &req_cmd(req)->claim;
	uint32_t zone = 0;
	uint64_t wp;

	while ((zone = zone_claim_next(zones, claim, zone, &wp)) != ZONE_NONE)
		zone_claim_done(zones, claim, zone++, ZONE_UNCHANGED);
	req->status = NVME_SC_ABORT_QUEUE;
	zns_claim_done(&req->work);
}

/* Begins after a wait, unless the queue was closed or the controller has ended meanwhile. */
static void claim_started(struct loop_msg *msg)
{
	struct tgt_req *req = msg_req(msg);

	if (tgt_req_may_begin(req))
		claim_start(req);
	else
		claim_drop(req);
}

static void zns_exec_mgmt_send(struct tgt_req *req)
{
	struct zns *zns = req_zns(req);
	struct zone_claim *claim = &req_cmd(req)->claim;
	uint32_t zone = req_all(req) ? ZONE_ALL : zone_of(&zns->zones, req_slba(req));
	struct tgt_ns *ns = req->ns;
	uint16_t status;

	/* zns_dispatch() posts it, from any loop, if the claim has to wait. */
	req->msg.fn = claim_started;
	status = zone_manage(&zns->zones, claim, zone, req_zsa(req));
	if (status == ZONE_WAIT) { /* REQ may have gone on, on another loop */
		tgt_ns_copy_out(ns);
		return;
	}
	if (!status && claim->nr)
		claim_start(req);
	else
		tgt_req_complete(req, status);
}

uint16_t zns_parse_mgmt_send(struct tgt_req *req)
{
	const struct zns *zns = req_zns(req);
	uint8_t zsa = req_zsa(req);
	uint16_t status;

	/*
	 * Set Zone Descriptor Extension needs ZDES and Flush Explicit ZRWA needs ZRWA, neither of
	 * which we report; so they are invalid values of the field, like 0 and all others.
	 */
	if (zsa < NVME_ZNS_ZSA_CLOSE || zsa > NVME_ZNS_ZSA_OFFLINE)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (zsa == NVME_ZNS_ZSA_OPEN && le32toh(req->cmd.cdw13) & MGMT_ZRWAA)
		return NVME_ZNS_STATUS(NVME_SC_ZNS_INVALID_OP_REQUEST) | NVME_SC_DNR;
	if (!req_all(req)) {
		status = zns_check_range(zns, req_slba(req), 1);
		if (status)
			return status;
		if (req_slba(req) & (zns->zones.zsze - 1))
			return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	}
	if (req->ns->read_only)
		return NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR;
	req->execute = zns_exec_mgmt_send;
	return 0;
}
