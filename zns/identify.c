/* SPDX-License-Identifier: MIT */
/*
 * Identify data and the effects log of the zoned command set.
 */
#include <string.h>
#include "ns.h"

#define NMIC_SHARED	 0x01 /* several controllers may have it: multipath */
#define DLFEAT_ZEROES	 0x01 /* deallocated blocks read as zeroes */
#define NSATTR_PROTECTED 0x01
#define OZCS_RAZB	 0x0001 /* reads may cross zones */
#define NO_LIMIT	 0xffffffffu

/*
 * Identify Namespace: one LBA format, without metadata. NCAP and NUSE equal NSZE, because thin
 * provisioning is not reported, and blocks between zone capacity and zone size count as part of the
 * namespace, as in nvmet.
 */
void zns_identify_ns(struct tgt_ns *ns, struct nvme_id_ns *id)
{
	const struct zns *zns = ns_zns(ns);
	const uint64_t bytes = htole64(zns->nsze << zns->lba_shift);

	id->nsze = htole64(zns->nsze);
	id->ncap = id->nsze;
	id->nuse = id->nsze;
	id->nmic = NMIC_SHARED;
	id->dlfeat = DLFEAT_ZEROES;
	id->nsattr = ns->read_only ? NSATTR_PROTECTED : 0;
	memcpy(id->nvmcap, &bytes, sizeof(bytes));
	memcpy(id->nguid, ns->nguid, sizeof(id->nguid));
	id->lbaf[0].ds = (uint8_t)zns->lba_shift;
}

/* MAR and MOR are 0's based (ZNS 1.1, 4.1.5.1). ZOC 0: capacities are fixed, no excursions. */
void zns_identify_ns_csi(struct tgt_ns *ns, void *data)
{
	const struct zns *zns = ns_zns(ns);
	const struct zones *zs = &zns->zones;
	struct nvme_zns_id_ns *id = data;

	id->ozcs = htole16(OZCS_RAZB);
	id->mar = htole32(zs->max_active ? zs->max_active - 1 : NO_LIMIT);
	id->mor = htole32(zs->max_open ? zs->max_open - 1 : NO_LIMIT);
	id->lbafe[0].zsze = htole64(zs->zsze);
}

/*
 * ZASL 0: an append may be as large as MDTS. The image's max_append_bytes is a property of QEMU's
 * virtual disk, whereas ZASL belongs to a controller, which may have namespaces of several images.
 */
void zns_identify_ctrl_csi(void *data)
{
	((struct nvme_zns_id_ctrl *)data)->zasl = 0;
}

void zns_effects(struct nvme_cmd_effects_log *log)
{
	const uint32_t reads = htole32(NVME_CMD_EFFECTS_CSUPP);
	const uint32_t writes = htole32(NVME_CMD_EFFECTS_CSUPP | NVME_CMD_EFFECTS_LBCC);

	log->iocs[nvme_cmd_flush] = reads;
	log->iocs[nvme_cmd_read] = reads;
	log->iocs[nvme_cmd_write] = writes;
	log->iocs[nvme_zns_cmd_append] = writes;
	log->iocs[nvme_zns_cmd_mgmt_send] = writes;
	log->iocs[nvme_zns_cmd_mgmt_recv] = reads;
}
