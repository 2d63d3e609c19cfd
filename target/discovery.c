/* SPDX-License-Identifier: MIT */
/* Admin commands of a discovery controller (NVMe Base 2.0, 3.1.2.3): dispatches them by opcode. */
#include "core.h"

uint16_t discovery_parse(struct tgt_req *req)
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
	default:
		return NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
	}
}
