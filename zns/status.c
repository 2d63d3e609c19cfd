/* SPDX-License-Identifier: MIT */
/* NVMe statuses for a range outside the namespace, and for an errno of the store. */
#include <errno.h>
#include <string.h>
#include "ns.h"

uint16_t zns_check_range(const struct zns *zns, uint64_t slba, uint64_t nlb)
{
	if (slba >= zns->nsze || nlb > zns->nsze - slba)
		return NVME_SC_LBA_RANGE | NVME_SC_DNR;
	return 0;
}

uint16_t store_status(const struct zns *zns, int err, bool write)
{
	uint16_t status;

	if (!err)
		return 0;
	switch (err) {
	case -ENOSPC:
	case -EDQUOT:
		status = NVME_SC_CAP_EXCEEDED | NVME_SC_DNR;
		break;
	case -EROFS:
		status = NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR;
		break;
	case -ENOMEM:
		status = NVME_SC_INTERNAL;
		break;
	default:
		status = ZONE_MEDIA_STATUS(write ? NVME_SC_WRITE_FAULT : NVME_SC_READ_ERROR);
	}
	log_err("namespace %u: the image cannot be %s: %s", zns->ns.nsid,
		write ? "written" : "read", strerror(-err));
	return status;
}
