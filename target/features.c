/* SPDX-License-Identifier: MIT */
/*
 * Get Features and Set Features (NVMe Base 2.0, 5.15 and 5.27): a table of the supported features,
 * with a function that validates a new value. The value of a feature is its CDW11. Features that
 * only store it keep it in ctrl->features.
 *
 * No feature is saveable: Set Features with SV is refused as Not Saveable, and the saved values are
 * the defaults.
 */
#include <string.h>
#include "core.h"

struct feature {
	bool changeable;
	bool discovery;	   /* discovery controllers support it as well */
	bool per_ns;	   /* none so far; reported by SEL 3 */
	uint32_t initial;  /* the default value */
	uint32_t settable; /* bits a host may set */
	uint16_t (*set)(struct tgt_req *req, uint32_t value);
	uint32_t (*get)(struct tgt_req *req);
};

enum feature_select { SEL_CURRENT, SEL_DEFAULT, SEL_SAVED, SEL_SUPPORTED };

#define WARN_KELVIN 343 /* WCTEMP: the default of the upper threshold */
#define NUM_QUEUES  ((TGT_MAX_QUEUES - 2) | (TGT_MAX_QUEUES - 2) << 16)

static struct tgt_ctrl *req_ctrl(const struct tgt_req *req)
{
	return req->queue->ctrl;
}

static uint8_t req_fid(const struct tgt_req *req)
{
	return (uint8_t)req_cdw10(req);
}

/* Features that only remember. The initial value is kept as 0, so that a reset is one memset. */
static uint16_t remember(struct tgt_req *req, uint32_t value);
static uint32_t recall(struct tgt_req *req);

static uint16_t set_power(struct tgt_req *req, uint32_t value)
{
	if (value & 0x1f) /* NPSS 0: only power state 0 exists */
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	return remember(req, value);
}

/* Only the composite temperature (TMPSEL 0) exists; THSEL 1 selects the lower threshold. */
static uint16_t set_temperature(struct tgt_req *req, uint32_t value)
{
	uint32_t select = value >> 16 & 0xf, type = value >> 20 & 0x3;

	if ((select && select != 0xf) || type > 1)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (type) {
		pthread_mutex_lock(&req_ctrl(req)->lock);
		req_ctrl(req)->temp_under = value & 0xffff;
		pthread_mutex_unlock(&req_ctrl(req)->lock);
		return 0;
	}
	return remember(req, value & 0xffff);
}

static uint32_t get_temperature(struct tgt_req *req)
{
	bool under = (req_cdw11(req) >> 20 & 0x3) == 1;
	uint32_t value;

	if (!under)
		return recall(req);
	pthread_mutex_lock(&req_ctrl(req)->lock);
	value = req_ctrl(req)->temp_under;
	pthread_mutex_unlock(&req_ctrl(req)->lock);
	return value;
}

static uint32_t get_write_cache(struct tgt_req *req)
{
	return atomic_load(&req_ctrl(req)->subsys->write_cache);
}

/* The operator chooses the cache mode (--cache): a host may set the same value, not change it. */
static uint16_t set_write_cache(struct tgt_req *req, uint32_t value)
{
	if (value != get_write_cache(req))
		return NVME_SCT_SPECIFIC | NVME_SC_FEATURE_NOT_CHANGEABLE | NVME_SC_DNR;
	return 0;
}

static uint16_t set_num_queues(struct tgt_req *req, uint32_t value)
{
	struct tgt_ctrl *ctrl = req_ctrl(req);
	bool late;

	if ((value & 0xffff) == 0xffff || value >> 16 == 0xffff)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	pthread_mutex_lock(&ctrl->lock);
	late = ctrl->nr_io;
	pthread_mutex_unlock(&ctrl->lock);
	if (late)
		return NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR;
	req_set_result(req, NUM_QUEUES);
	return 0;
}

static uint32_t get_num_queues(struct tgt_req *req)
{
	(void)req;
	return NUM_QUEUES;
}

static uint16_t set_async_event(struct tgt_req *req, uint32_t value)
{
	bool discovery = req_ctrl(req)->subsys->discovery;
	/* SMART warnings (bits 7:0) can be enabled, but never occur. */
	uint32_t known = discovery ? AEC_DISCOVERY : AEC_NS | 0xff;

	if (value & ~known)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	return remember(req, value);
}

static uint16_t set_kato(struct tgt_req *req, uint32_t value)
{
	return ctrl_set_kato(req_ctrl(req), value) ? NVME_SC_INTERNAL : 0;
}

static uint32_t get_kato(struct tgt_req *req)
{
	return req_ctrl(req)->kato_ms;
}

/* Only the combination of command sets at index 0 of CNS 1Ch exists. */
static uint16_t set_iocs_profile(struct tgt_req *req, uint32_t value)
{
	if (!atomic_load(&req_ctrl(req)->iocs))
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (value & 0x1ff)
		return NVME_SCT_SPECIFIC | NVME_SC_IOCS_COMBINATION_REJECTED | NVME_SC_DNR;
	return 0;
}

/* On fabrics, Connect has set the host identifier (NVMe Base 2.0, 5.27.1.25). */
static uint16_t set_host_id(struct tgt_req *req, uint32_t value)
{
	(void)req;
	(void)value;
	return NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR;
}

static const struct feature table[] = {
	[NVME_FEAT_FID_ARBITRATION] = { true, .settable = ~0u, .set = remember, .get = recall },
	[NVME_FEAT_FID_POWER_MGMT] = { true, .settable = 0xff, .set = set_power, .get = recall },
	[NVME_FEAT_FID_TEMP_THRESH] = { true, .initial = WARN_KELVIN, .settable = 0x3fffff,
					.set = set_temperature, .get = get_temperature },
	[NVME_FEAT_FID_ERR_RECOVERY] = { true, .settable = 0xffff, .set = remember, .get = recall },
	[NVME_FEAT_FID_VOLATILE_WC] = { false, .settable = 1, .set = set_write_cache,
					.get = get_write_cache },
	[NVME_FEAT_FID_NUM_QUEUES] = { true, .initial = NUM_QUEUES, .settable = ~0u,
				       .set = set_num_queues, .get = get_num_queues },
	[NVME_FEAT_FID_WRITE_ATOMIC] = { true, .settable = 1, .set = remember, .get = recall },
	[NVME_FEAT_FID_ASYNC_EVENT] = { true, .discovery = true, .settable = ~0u,
					.set = set_async_event, .get = recall },
	[NVME_FEAT_FID_KATO] = { true, .discovery = true, .settable = ~0u, .set = set_kato,
				 .get = get_kato },
	[NVME_FEAT_FID_IOCS_PROFILE] = { true, .settable = 0x1ff, .set = set_iocs_profile,
					 .get = recall },
	[NVME_FEAT_FID_HOST_ID] = { false, .settable = 1, .set = set_host_id, .get = recall },
};

static const struct feature *feature_find(const struct tgt_ctrl *ctrl, uint8_t fid)
{
	const struct feature *f;

	if (fid >= sizeof(table) / sizeof(table[0]))
		return NULL;
	f = &table[fid];
	if (!f->set)
		return NULL;
	if (ctrl->subsys->discovery && !f->discovery)
		return NULL;
	if (fid == NVME_FEAT_FID_VOLATILE_WC && !atomic_load(&ctrl->subsys->write_cache))
		return NULL; /* VWC reports no volatile write cache */
	return f;
}

bool feature_is_known(struct tgt_ctrl *ctrl, uint8_t fid, bool *changeable)
{
	const struct feature *f = feature_find(ctrl, fid);

	if (f)
		*changeable = f->changeable;
	return f;
}

static uint16_t remember(struct tgt_req *req, uint32_t value)
{
	struct tgt_ctrl *ctrl = req_ctrl(req);
	uint8_t fid = req_fid(req);

	pthread_mutex_lock(&ctrl->lock);
	ctrl->features[fid] = value ^ table[fid].initial;
	pthread_mutex_unlock(&ctrl->lock);
	return 0;
}

static uint32_t recall(struct tgt_req *req)
{
	struct tgt_ctrl *ctrl = req_ctrl(req);
	uint8_t fid = req_fid(req);
	uint32_t value;

	pthread_mutex_lock(&ctrl->lock);
	value = ctrl->features[fid] ^ table[fid].initial;
	pthread_mutex_unlock(&ctrl->lock);
	return value;
}

static void set_execute(struct tgt_req *req)
{
	const struct feature *f = feature_find(req_ctrl(req), req_fid(req));

	tgt_req_complete(req, f->set(req, req_cdw11(req) & f->settable));
}

static uint32_t get_capabilities(const struct feature *f)
{
	return (f->per_ns ? 1u << 1 : 0) | (f->changeable ? 1u << 2 : 0);
}

static void get_execute(struct tgt_req *req)
{
	const struct feature *f = feature_find(req_ctrl(req), req_fid(req));

	switch (req_cdw10(req) >> 8 & 7) {
	case SEL_CURRENT:
		if (req->len)
			memcpy(req->buf, req_ctrl(req)->hostid, req->len);
		else
			req_set_result(req, f->get(req));
		break;
	case SEL_DEFAULT:
	case SEL_SAVED:
		if (req->len)
			memset(req->buf, 0, req->len);
		else if (f->changeable)
			req_set_result(req, f->initial);
		else
			req_set_result(req, f->get(req));
		break;
	default:
		req_set_result(req, get_capabilities(f));
		break;
	}
	tgt_req_complete(req, 0);
}

uint16_t features_parse_get(struct tgt_req *req)
{
	uint32_t select = req_cdw10(req) >> 8 & 7;

	if (!feature_find(req_ctrl(req), req_fid(req)) || select > SEL_SUPPORTED)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (req_fid(req) == NVME_FEAT_FID_HOST_ID && select != SEL_SUPPORTED) {
		if (!(req_cdw11(req) & 1)) /* EXHID: fabrics only has 128-bit host identifiers */
			return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
		req->dir = TGT_C2H;
		req->len = sizeof(req_ctrl(req)->hostid);
	}
	req->execute = get_execute;
	return 0;
}

/* A feature of the whole controller may be set with NSID 0 or FFFFFFFFh. */
uint16_t features_parse_set(struct tgt_req *req)
{
	uint32_t nsid = le32toh(req->cmd.nsid);

	if (!feature_find(req_ctrl(req), req_fid(req)))
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (req_cdw10(req) >> 31)
		return NVME_SCT_SPECIFIC | NVME_SC_FEATURE_NOT_SAVEABLE | NVME_SC_DNR;
	if (nsid && nsid != NVME_NSID_ALL)
		return NVME_SCT_SPECIFIC | NVME_SC_FEATURE_NOT_PER_NS | NVME_SC_DNR;
	req->execute = set_execute;
	return 0;
}
