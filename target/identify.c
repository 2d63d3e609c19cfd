/* SPDX-License-Identifier: MIT */
/*
 * Identify (NVMe Base 2.0, 5.17): a table of CNS values with one function each. Every data
 * structure has 4096 bytes, which are zeroed first.
 *
 * Which NSIDs are valid depends on the CNS (nvme-rules.md B.6.3). 0, the broadcast value and values
 * above NN get Invalid Namespace. For an inactive NSID the namespace structures are all zeroes, but
 * the descriptor list is refused with Invalid Field. Lists begin above the given NSID; it
 * may be 0.
 */
#include <stdio.h>
#include <string.h>
#include "core.h"

#define IDENTIFY_LEN 4096

static uint32_t req_nsid(const struct tgt_req *req)
{
	return le32toh(req->cmd.nsid);
}

static uint8_t req_csi(const struct tgt_req *req)
{
	return (uint8_t)(req_cdw11(req) >> 24);
}

static uint16_t req_cntid(const struct tgt_req *req)
{
	return (uint16_t)(req_cdw10(req) >> 16);
}

static struct tgt_subsys *req_subsys(const struct tgt_req *req)
{
	return req->queue->ctrl->subsys;
}

/* Finds the namespace of REQ; *NS is NULL if it is inactive. A status if the NSID is invalid. */
static uint16_t named_ns(const struct tgt_req *req, struct tgt_ns **ns)
{
	uint32_t nsid = req_nsid(req);

	if (!nsid || nsid > TGT_NSID_MAX)
		return NVME_SC_INVALID_NS | NVME_SC_DNR;
	*ns = tgt_ns_get(req_subsys(req), nsid);
	return 0;
}

/* CNS 00h and 11h */
static uint16_t identify_ns(struct tgt_req *req)
{
	struct nvme_id_ns *id = req->buf;
	struct tgt_ns *ns = NULL;
	uint16_t status = named_ns(req, &ns);

	if (status || !ns)
		return status;
	ns->set->identify_ns(ns, id);
	id->nmic |= NVME_NS_NMIC_SHARED;
	memcpy(id->nguid, ns->nguid, sizeof(id->nguid));
	if (ns->read_only)
		id->nsattr |= 1; /* write protected */
	return 0;
}

/* Copies TEXT into an ASCII field of Identify Controller and pads it with spaces. */
static void put_ascii(char *field, size_t size, const char *text)
{
	size_t len = strnlen(text, size);

	memcpy(field, text, len);
	memset(field + len, ' ', size - len);
}

static void identify_fabrics(struct nvme_id_ctrl *id)
{
	id->ioccsz = htole32((sizeof(struct nvme_sqe) + TGT_INCAPSULE) / 16);
	id->iorcsz = htole32(sizeof(struct nvme_cqe) / 16);
	id->icdoff = 0;
	/* FCATT 0: dynamic controllers */
	id->msdbd = 1;
	id->ofcs = htole16(NVME_CTRL_OFCS_DISCONNECT);
}

/* Fills the fields that only an I/O controller has. */
static void identify_io_ctrl(struct nvme_id_ctrl *id, const struct tgt_subsys *subsys)
{
	id->cmic = NVME_CTRL_CMIC_MULTI_PORT | NVME_CTRL_CMIC_MULTI_CTRL;
	id->oaes = htole32(NVME_CTRL_OAES_NA);
	id->lpa = NVME_CTRL_LPA_CMD_EFFECTS | NVME_CTRL_LPA_EXTENDED |
		  NVME_CTRL_LPA_LI0_LI5_LI12_LI13;
	id->frmw = 0x3; /* one slot, read only */
	id->wctemp = htole16(343);
	id->cctemp = htole16(353);
	id->sqes = 0x66;
	id->cqes = 0x44;
	id->nn = htole32(TGT_NSID_MAX);
	id->mnan = htole32(TGT_NSID_MAX);
	id->oncs = htole16(NVME_CTRL_ONCS_SAVE_FEATURES);
	/* 11b: Flush with the broadcast NSID is supported. */
	id->vwc = NVME_CTRL_VWC_FLUSH;
	if (atomic_load(&subsys->write_cache))
		id->vwc |= NVME_CTRL_VWC_PRESENT;
}

/* CNS 01h */
static uint16_t identify_ctrl(struct tgt_req *req)
{
	const struct tgt_ctrl *ctrl = req->queue->ctrl;
	const struct tgt_subsys *subsys = ctrl->subsys;
	struct nvme_id_ctrl *id = req->buf;

	put_ascii(id->sn, sizeof(id->sn), subsys->serial);
	put_ascii(id->mn, sizeof(id->mn), "znsd");
	put_ascii(id->fr, sizeof(id->fr), ZNSD_VERSION);
	id->mdts = TGT_MDTS;
	id->cntlid = htole16(ctrl->cntlid);
	id->ver = htole32(TGT_VS);
	id->rtd3e = htole32(30 * 1000000); /* us that a shutdown may take, since it flushes */
	id->ctratt = htole32(NVME_CTRL_CTRATT_128_ID | NVME_CTRL_CTRATT_TBKAS);
	id->cntrltype = NVME_CTRL_CNTRLTYPE_IO;
	id->aerl = TGT_AERS - 1;
	id->lpa = NVME_CTRL_LPA_EXTENDED;
	id->kas = htole16(TGT_KAS_MS / 100);
	id->maxcmd = htole16(TGT_QUEUE_DEPTH);
	id->sgls = htole32(1 | NVME_CTRL_SGLS_OFFSET | NVME_CTRL_SGLS_TPORT);
	snprintf(id->subnqn, sizeof(id->subnqn), "%s", subsys->nqn);
	identify_fabrics(id);
	if (subsys->discovery) {
		id->cntrltype = NVME_CTRL_CNTRLTYPE_DISCOVERY;
		id->oaes = htole32(NVME_CTRL_OAES_DL);
	} else {
		identify_io_ctrl(id, subsys);
	}
	return 0;
}

/* CNS 02h, 07h, 10h and 1Ah; CSI < 0: of every command set. */
static uint16_t ns_list(struct tgt_req *req, int csi)
{
	__le32 *list = req->buf;
	uint32_t nsid = req_nsid(req), n = 0;
	struct tgt_ns *ns = NULL;

	if (nsid >= 0xfffffffe)
		return NVME_SC_INVALID_NS | NVME_SC_DNR;
	while (n < IDENTIFY_LEN / sizeof(*list) && (ns = tgt_ns_next(req_subsys(req), nsid))) {
		nsid = ns->nsid;
		if (csi < 0 || ns->set->csi == csi)
			list[n++] = htole32(nsid);
	}
	return 0;
}

static uint16_t identify_ns_list(struct tgt_req *req)
{
	return ns_list(req, -1);
}

static uint16_t identify_csi_ns_list(struct tgt_req *req)
{
	if (!tgt_command_set(req->queue->tgt, req_csi(req)))
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	return ns_list(req, req_csi(req));
}

static uint8_t *put_desc(uint8_t *p, uint8_t type, uint8_t len, const void *id)
{
	struct nvme_ns_id_desc *desc = (struct nvme_ns_id_desc *)p;

	desc->nidt = type;
	desc->nidl = len;
	memcpy(desc->nid, id, len);
	return p + sizeof(*desc) + len;
}

/* CNS 03h. Linux requires the descriptor of the command set. */
static uint16_t identify_ns_desc(struct tgt_req *req)
{
	uint8_t *p = req->buf;
	struct tgt_ns *ns = NULL;
	uint16_t status = named_ns(req, &ns);

	if (status)
		return status;
	if (!ns)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	p = put_desc(p, NVME_NIDT_NGUID, NVME_NIDT_NGUID_LEN, ns->nguid);
	p = put_desc(p, NVME_NIDT_UUID, NVME_NIDT_UUID_LEN, ns->uuid);
	put_desc(p, NVME_NIDT_CSI, NVME_NIDT_CSI_LEN, &ns->set->csi);
	return 0;
}

/* CNS 05h and 1Bh */
static uint16_t identify_ns_csi(struct tgt_req *req)
{
	struct tgt_ns *ns = NULL;
	uint16_t status;

	if (!tgt_command_set(req->queue->tgt, req_csi(req)))
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	status = named_ns(req, &ns);
	if (status || !ns)
		return status;
	if (ns->set->csi != req_csi(req))
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	ns->set->identify_ns_csi(ns, req->buf);
	return 0;
}

/* CNS 06h */
static uint16_t identify_ctrl_csi(struct tgt_req *req)
{
	const struct tgt_command_set *set = tgt_command_set(req->queue->tgt, req_csi(req));

	if (!set)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	set->identify_ctrl_csi(req->buf);
	return 0;
}

/* CNS 08h */
static uint16_t identify_ns_independent(struct tgt_req *req)
{
	struct nvme_id_independent_id_ns *id = req->buf;
	struct tgt_ns *ns = NULL;
	uint16_t status = named_ns(req, &ns);

	if (status || !ns)
		return status;
	id->nmic = NVME_NS_NMIC_SHARED;
	if (ns->read_only)
		id->nsattr = 1;
	id->nstat = 1; /* NRDY: ready */
	return 0;
}

/* CNS 12h and 13h: controller identifiers from CNTID on, in ascending order. */
static void ctrl_list(struct tgt_req *req)
{
	struct tgt_subsys *subsys = req_subsys(req);
	struct nvme_ctrl_list *list = req->buf;
	const struct tgt_ctrl *ctrl;
	uint32_t from = req_cntid(req);
	uint16_t n = 0;

	pthread_mutex_lock(&subsys->lock);
	while (n < NVME_ID_CTRL_LIST_MAX) {
		uint32_t next = UINT32_MAX;

		LIST_FOREACH (ctrl, &subsys->ctrls, link)
			if (ctrl->cntlid >= from && ctrl->cntlid < next)
				next = ctrl->cntlid;
		if (next == UINT32_MAX)
			break;
		list->identifier[n++] = htole16((uint16_t)next);
		from = next + 1;
	}
	pthread_mutex_unlock(&subsys->lock);
	list->num = htole16(n);
}

static uint16_t identify_ns_ctrl_list(struct tgt_req *req)
{
	struct tgt_ns *ns = NULL;
	uint16_t status = named_ns(req, &ns);

	if (status)
		return status;
	if (!ns)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	ctrl_list(req);
	return 0;
}

static uint16_t identify_ctrl_list(struct tgt_req *req)
{
	ctrl_list(req);
	return 0;
}

/* CNS 1Ch: one combination, with all command sets of the target. */
static uint16_t identify_iocs(struct tgt_req *req)
{
	struct tgt_ctrl *ctrl = req->queue->ctrl;
	struct nvme_id_iocs *id = req->buf;
	uint64_t sets = 0;

	if (req_cntid(req) != 0xffff && req_cntid(req) != ctrl->cntlid)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	for (uint32_t csi = 0; csi < TGT_CSI_MAX; csi++)
		if (tgt_command_set(ctrl->tgt, csi))
			sets |= 1ull << csi;
	id->iocsc[0] = htole64(sets);
	return 0;
}

static uint16_t (*const cns_table[])(struct tgt_req *req) = {
	[NVME_IDENTIFY_CNS_NS] = identify_ns,
	[NVME_IDENTIFY_CNS_CTRL] = identify_ctrl,
	[NVME_IDENTIFY_CNS_NS_ACTIVE_LIST] = identify_ns_list,
	[NVME_IDENTIFY_CNS_NS_DESC_LIST] = identify_ns_desc,
	[NVME_IDENTIFY_CNS_CSI_NS] = identify_ns_csi,
	[NVME_IDENTIFY_CNS_CSI_CTRL] = identify_ctrl_csi,
	[NVME_IDENTIFY_CNS_CSI_NS_ACTIVE_LIST] = identify_csi_ns_list,
	[NVME_IDENTIFY_CNS_CSI_INDEPENDENT_ID_NS] = identify_ns_independent,
	[NVME_IDENTIFY_CNS_ALLOCATED_NS_LIST] = identify_ns_list,
	[NVME_IDENTIFY_CNS_ALLOCATED_NS] = identify_ns,
	[NVME_IDENTIFY_CNS_NS_CTRL_LIST] = identify_ns_ctrl_list,
	[NVME_IDENTIFY_CNS_CTRL_LIST] = identify_ctrl_list,
	[NVME_IDENTIFY_CNS_CSI_ALLOCATED_NS_LIST] = identify_csi_ns_list,
	[NVME_IDENTIFY_CNS_CSI_ID_NS_DATA_STRUCTURE] = identify_ns_csi,
	[NVME_IDENTIFY_CNS_COMMAND_SET_STRUCTURE] = identify_iocs,
};

static uint8_t req_cns(const struct tgt_req *req)
{
	return (uint8_t)req_cdw10(req);
}

static void identify_execute(struct tgt_req *req)
{
	memset(req->buf, 0, req->len);
	tgt_req_complete(req, cns_table[req_cns(req)](req));
}

uint16_t identify_parse(struct tgt_req *req)
{
	uint8_t cns = req_cns(req);

	if (cns >= sizeof(cns_table) / sizeof(cns_table[0]) || !cns_table[cns])
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (req->queue->ctrl->subsys->discovery && cns != NVME_IDENTIFY_CNS_CTRL)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	req->dir = TGT_C2H;
	req->len = IDENTIFY_LEN;
	req->execute = identify_execute;
	return 0;
}
