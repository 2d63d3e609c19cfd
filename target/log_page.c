/* SPDX-License-Identifier: MIT */
/*
 * Get Log Page (NVMe Base 2.0, 5.16). Every log page is built as a whole in zeroed memory of its
 * own, and the requested part is copied out of it; bytes beyond the end of the page are zeroes. So
 * the function of a page does not deal with offsets, and an offset cannot reach other memory.
 *
 *  1. NUMD is 0's based and counts dwords: (NUMD + 1) * 4 bytes, computed in 64 bits, at most MDTS.
 *  2. The offset is a multiple of 4 and not beyond the page.
 *  3. Reading an event's page with RAE 0 unmasks the event, and clears the changed namespace list.
 */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include "core.h"
#include "loop.h"

#define KELVIN 300 /* a constant, as there is no sensor: room temperature, below every threshold */

struct log_page {
	uint64_t size;	    /* 0: build() sets it */
	bool discovery, io; /* which controllers support it */
	/* Fills BUF (size bytes, zeroed); *BUF may be replaced when the size was 0. */
	uint16_t (*build)(struct tgt_req *req, void **buf, uint64_t *size);
};

static const struct log_page *log_page_find(const struct tgt_ctrl *ctrl, uint8_t lid);

static struct tgt_ctrl *req_ctrl(const struct tgt_req *req)
{
	return req->queue->ctrl;
}

static bool req_rae(const struct tgt_req *req)
{
	return req_cdw10(req) >> 15 & 1;
}

static uint64_t req_offset(const struct tgt_req *req)
{
	return le32toh(req->cmd.cdw12) | (uint64_t)le32toh(req->cmd.cdw13) << 32;
}

/* 00h: the supported pages; bit 0 is LSUPP. */
static uint16_t build_supported(struct tgt_req *req, void **buf, uint64_t *size)
{
	struct nvme_supported_log_pages *log = *buf;

	(void)size;
	for (unsigned int lid = 0; lid < NVME_LOG_SUPPORTED_LOG_PAGES_MAX; lid++)
		if (log_page_find(req_ctrl(req), (uint8_t)lid))
			log->lid_support[lid] = htole32(1);
	return 0;
}

/* 01h and 13h: no entries. Errors are only reported in completions; there is no NVMe-MI. */
static uint16_t build_empty(struct tgt_req *req, void **buf, uint64_t *size)
{
	(void)req;
	(void)buf;
	(void)size;
	return 0;
}

static void put_u128(uint8_t field[16], uint64_t value)
{
	__le64 le = htole64(value);

	memcpy(field, &le, sizeof(le));
}

/* 02h: for the whole subsystem since the program started; no counter is stored in the image. */
static uint16_t build_smart(struct tgt_req *req, void **buf, uint64_t *size)
{
	struct tgt_subsys *subsys = req_ctrl(req)->subsys;
	uint32_t nsid = le32toh(req->cmd.nsid);
	struct nvme_smart_log *log = *buf;
	struct tgt_counters sum = { 0 };

	(void)size;
	if (nsid && nsid != NVME_NSID_ALL) /* LPA bit 0 is clear: no SMART log per namespace */
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	pthread_mutex_lock(&subsys->lock);
	subsys_count_locked(subsys, &sum);
	pthread_mutex_unlock(&subsys->lock);
	log->temperature[0] = KELVIN & 0xff;
	log->temperature[1] = KELVIN >> 8;
	log->avail_spare = 100;
	log->spare_thresh = 10;
	put_u128(log->data_units_read, (sum.blocks_read + 999) / 1000);
	put_u128(log->data_units_written, (sum.blocks_written + 999) / 1000);
	put_u128(log->host_reads, sum.reads);
	put_u128(log->host_writes, sum.writes);
	put_u128(log->power_cycles, 1);
	put_u128(log->power_on_hours, (clock_ms() - req_ctrl(req)->tgt->started_ms) / 3600000);
	return 0;
}

/* 03h */
static uint16_t build_firmware(struct tgt_req *req, void **buf, uint64_t *size)
{
	struct nvme_firmware_slot *log = *buf;
	char text[sizeof(log->frs[0]) + 1];

	(void)req;
	(void)size;
	log->afi = 1;
	snprintf(text, sizeof(text), "%-8s", ZNSD_VERSION);
	memcpy(log->frs[0], text, sizeof(log->frs[0]));
	return 0;
}

/* 04h: the list has 1024 entries and NN is 1024, so it cannot overflow. */
static uint16_t build_changed_ns(struct tgt_req *req, void **buf, uint64_t *size)
{
	struct tgt_ctrl *ctrl = req_ctrl(req);
	__le32 *list = *buf;
	unsigned int n = 0;

	static_assert(TGT_NSID_MAX <= 1024, "the list would overflow");
	(void)size;
	pthread_mutex_lock(&ctrl->lock);
	for (uint32_t nsid = 1; nsid <= TGT_NSID_MAX; nsid++)
		if (ctrl->changed_ns[nsid / 8] >> nsid % 8 & 1)
			list[n++] = htole32(nsid);
	if (!req_rae(req)) {
		memset(ctrl->changed_ns, 0, sizeof(ctrl->changed_ns));
		ctrl_event_seen_locked(ctrl, CTRL_EVENT_NS);
	}
	pthread_mutex_unlock(&ctrl->lock);
	return 0;
}

/* 05h, for the command set of CSI (CDW14 31:24) */
static uint16_t build_effects(struct tgt_req *req, void **buf, uint64_t *size)
{
	static const uint8_t admin[] = { nvme_admin_get_log_page, nvme_admin_identify,
					 nvme_admin_abort_cmd,	  nvme_admin_set_features,
					 nvme_admin_get_features, nvme_admin_async_event,
					 nvme_admin_keep_alive };
	const struct tgt_command_set *set;
	struct nvme_cmd_effects_log *log = *buf;

	(void)size;
	set = tgt_command_set(req->queue->tgt, le32toh(req->cmd.cdw14) >> 24);
	if (!set)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	for (unsigned int i = 0; i < sizeof(admin); i++)
		log->acs[admin[i]] = htole32(NVME_CMD_EFFECTS_CSUPP);
	set->effects(log);
	return 0;
}

/* 12h */
static uint16_t build_feature_effects(struct tgt_req *req, void **buf, uint64_t *size)
{
	struct nvme_fid_supported_effects_log *log = *buf;

	(void)size;
	for (unsigned int fid = 0; fid < NVME_LOG_FID_SUPPORTED_EFFECTS_MAX; fid++) {
		uint32_t effects = NVME_FID_SUPPORTED_EFFECTS_FSUPP |
				   NVME_FID_SUPPORTED_EFFECTS_SCOPE_CTRL
					   << NVME_FID_SUPPORTED_EFFECTS_SCOPE_SHIFT;
		bool changeable;

		if (!feature_is_known(req_ctrl(req), (uint8_t)fid, &changeable))
			continue;
		if (changeable)
			effects |= NVME_FID_SUPPORTED_EFFECTS_CCC;
		log->fid_support[fid] = htole32(effects);
	}
	return 0;
}

/* 70h */
static uint16_t build_discovery(struct tgt_req *req, void **buf, uint64_t *size)
{
	struct tgt_ctrl *ctrl = req_ctrl(req);

	/* Unmask the event first: a change while the log is built then raises it again. */
	if (!req_rae(req)) {
		pthread_mutex_lock(&ctrl->lock);
		ctrl_event_seen_locked(ctrl, CTRL_EVENT_DISCOVERY);
		pthread_mutex_unlock(&ctrl->lock);
	}
	*buf = discovery_log(ctrl, req->queue, size);
	return *buf ? 0 : NVME_SC_INTERNAL;
}

static const struct log_page pages[] = {
	[NVME_LOG_LID_SUPPORTED_LOG_PAGES] = { 1024, true, true, build_supported },
	[NVME_LOG_LID_ERROR] = { 64, true, true, build_empty },
	[NVME_LOG_LID_SMART] = { 512, false, true, build_smart },
	[NVME_LOG_LID_FW_SLOT] = { 512, false, true, build_firmware },
	[NVME_LOG_LID_CHANGED_NS] = { 4096, false, true, build_changed_ns },
	[NVME_LOG_LID_CMD_EFFECTS] = { 4096, false, true, build_effects },
	[NVME_LOG_LID_FID_SUPPORTED_EFFECTS] = { 1024, false, true, build_feature_effects },
	[NVME_LOG_LID_MI_CMD_SUPPORTED_EFFECTS] = { 4096, false, true, build_empty },
	[NVME_LOG_LID_DISCOVER] = { 0, true, false, build_discovery },
};

static const struct log_page *log_page_find(const struct tgt_ctrl *ctrl, uint8_t lid)
{
	const struct log_page *page;

	if (lid >= sizeof(pages) / sizeof(pages[0]))
		return NULL;
	page = &pages[lid];
	if (!page->build)
		return NULL;
	return (ctrl->subsys->discovery ? page->discovery : page->io) ? page : NULL;
}

static void log_page_execute(struct tgt_req *req)
{
	const struct log_page *page = log_page_find(req_ctrl(req), (uint8_t)req_cdw10(req));
	uint64_t offset = req_offset(req), size = page->size;
	void *buf = size ? calloc(1, size) : NULL;
	uint16_t status = NVME_SC_INTERNAL;

	if (size && !buf)
		goto out;
	status = page->build(req, &buf, &size);
	if (status)
		goto out;
	if (offset > size) {
		status = NVME_SC_INVALID_FIELD | NVME_SC_DNR;
		goto out;
	}
	size -= offset;
	if (size > req->len)
		size = req->len;
	memcpy(req->buf, (uint8_t *)buf + offset, size);
	memset((uint8_t *)req->buf + size, 0, req->len - size);
out:
	free(buf);
	tgt_req_complete(req, status);
}

uint16_t log_page_parse(struct tgt_req *req)
{
	const struct log_page *page = log_page_find(req_ctrl(req), (uint8_t)req_cdw10(req));
	uint64_t numd = (req_cdw10(req) >> 16) | (uint64_t)(req_cdw11(req) & 0xffff) << 16;
	uint64_t len = (numd + 1) * 4, offset = req_offset(req);

	if (!page)
		return NVME_SCT_SPECIFIC | NVME_SC_INVALID_LOG_PAGE | NVME_SC_DNR;
	if (len > TGT_MAX_TRANSFER || offset & 3)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (page->size && offset > page->size)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (le32toh(req->cmd.cdw14) >> 23 & 1) /* OT: an index offset; no page of ours has one */
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	req->dir = TGT_C2H;
	req->len = (uint32_t)len;
	req->execute = log_page_execute;
	return 0;
}
