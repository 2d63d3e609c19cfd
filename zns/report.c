/* SPDX-License-Identifier: MIT */
/*
 * Zone Management Receive: Report Zones (NVMe ZNS 1.1, 3.4.2).
 *
 * A buffer of any length is filled to its last byte: the header as far as it fits, whole
 * descriptors, then zeroes. The header's number of zones is the number of returned descriptors with
 * Partial Report, else the number of all matching zones from SLBA on. Zones are read in chunks, so
 * that the lock is never held for long. The cost is linear in what is returned, except that a
 * filtered report which is not partial counts all zones.
 *
 * Other commands may change zones meanwhile: each descriptor was correct at some moment during the
 * command.
 */
#include <string.h>
#include "ns.h"

#define RECV_ZRA     0xffu /* CDW13 */
#define RECV_PARTIAL 0x10000u
#define CHUNK	     64

/* The state of a report that is being written. */
struct report {
	struct nvme_zns_desc *desc; /* next one */
	uint32_t room;		    /* whole descriptors that still fit */
	uint64_t returned, matched;
	uint8_t state; /* 0: all */
	bool partial;
	uint64_t zcap;
};

/* The zone state that ZRASF 1 to 7 selects. */
static const uint8_t filter_state[] = {
	[NVME_ZNS_ZRAS_REPORT_ALL] = 0,
	[NVME_ZNS_ZRAS_REPORT_EMPTY] = NVME_ZNS_ZS_EMPTY,
	[NVME_ZNS_ZRAS_REPORT_IMPL_OPENED] = NVME_ZNS_ZS_IMPL_OPEN,
	[NVME_ZNS_ZRAS_REPORT_EXPL_OPENED] = NVME_ZNS_ZS_EXPL_OPEN,
	[NVME_ZNS_ZRAS_REPORT_CLOSED] = NVME_ZNS_ZS_CLOSED,
	[NVME_ZNS_ZRAS_REPORT_FULL] = NVME_ZNS_ZS_FULL,
	[NVME_ZNS_ZRAS_REPORT_READ_ONLY] = NVME_ZNS_ZS_READ_ONLY,
	[NVME_ZNS_ZRAS_REPORT_OFFLINE] = NVME_ZNS_ZS_OFFLINE,
};

static uint8_t req_zrasf(const struct tgt_req *req)
{
	return le32toh(req->cmd.cdw13) >> 8 & 0xff;
}

/* Appends a descriptor; the buffer need not be aligned. */
static void put_desc(struct report *r, const struct zone_info *zone)
{
	const struct nvme_zns_desc desc = {
		.zt = NVME_ZONE_TYPE_SEQWRITE_REQ,
		.zs = (uint8_t)(zone->state << 4), /* ZS is bits 7:4 */
		.zcap = htole64(r->zcap),
		.zslba = htole64(zone->start),
		.wp = htole64(zone->wp),
	};

	memcpy(r->desc, &desc, sizeof(desc));
	r->desc++;
	r->room--;
	r->returned++;
}

static void put_zones(struct report *r, const struct zone_info *zone, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n; i++) {
		if (r->state && zone[i].state != r->state)
			continue;
		r->matched++;
		if (r->room)
			put_desc(r, &zone[i]);
	}
}

static void report_zones(struct report *r, struct zones *zs, uint32_t first)
{
	struct zone_info zone[CHUNK];
	uint32_t n;

	for (; first < zs->nr_zones && (r->room || !r->partial); first += n) {
		n = zs->nr_zones - first < CHUNK ? zs->nr_zones - first : CHUNK;
		if (!r->room && !r->state) { /* all remaining zones match */
			r->matched += zs->nr_zones - first;
			return;
		}
		zones_snapshot(zs, first, n, zone);
		put_zones(r, zone, n);
	}
}

static void zns_exec_mgmt_recv(struct tgt_req *req)
{
	struct zones *zs = &req_zns(req)->zones;
	struct nvme_zone_report head = { 0 };
	const uint32_t head_len = req->len < sizeof(head) ? req->len : sizeof(head);
	struct report r = {
		.desc = (struct nvme_zns_desc *)((char *)req->buf + sizeof(head)),
		.room = (req->len - head_len) / sizeof(struct nvme_zns_desc),
		.state = filter_state[req_zrasf(req)],
		.partial = le32toh(req->cmd.cdw13) & RECV_PARTIAL,
		.zcap = zs->zcap,
	};

	memset(req->buf, 0, req->len);
	report_zones(&r, zs, zone_of(zs, req_slba(req)));
	head.nr_zones = htole64(r.partial ? r.returned : r.matched);
	memcpy(req->buf, &head, head_len);
	tgt_req_complete(req, 0);
}

uint16_t zns_parse_mgmt_recv(struct tgt_req *req)
{
	uint64_t len = ((uint64_t)le32toh(req->cmd.cdw12) + 1) * 4; /* NUMD, 0's based */
	uint32_t zra = le32toh(req->cmd.cdw13) & RECV_ZRA;
	uint16_t status;

	/* Extended Report Zones needs descriptor extensions; ZDES 0 says that there are none. */
	if (zra != NVME_ZNS_ZRA_REPORT_ZONES || req_zrasf(req) >= sizeof(filter_state) ||
	    len > TGT_MAX_TRANSFER)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	status = zns_check_range(req_zns(req), req_slba(req), 1);
	if (status)
		return status;
	req->execute = zns_exec_mgmt_recv;
	req->dir = TGT_C2H;
	req->len = (uint32_t)len;
	return 0;
}
