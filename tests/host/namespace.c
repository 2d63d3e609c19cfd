// SPDX-License-Identifier: MIT
/* What tests do with a namespace all the time; failures are assertions. See daemon.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "daemon.h"

#define PIECE (128u << 10)

void rig_identify(struct host_ctrl *c, uint32_t nsid, struct rig_ns *ns)
{
	struct nvme_id_ctrl ctrl;
	struct nvme_zns_id_ctrl zctrl;
	struct nvme_id_ns id;
	struct nvme_zns_id_ns zid;
	struct host_queue *q = &c->admin;
	uint8_t fmt;

	assert_int_equal(host_identify(q, NVME_IDENTIFY_CNS_CTRL, 0, 0, &ctrl), 0);
	assert_int_equal(host_identify(q, NVME_IDENTIFY_CNS_CSI_CTRL, 0, NVME_CSI_ZNS, &zctrl), 0);
	assert_int_equal(host_identify(q, NVME_IDENTIFY_CNS_NS, nsid, 0, &id), 0);
	assert_int_equal(host_identify(q, NVME_IDENTIFY_CNS_CSI_NS, nsid, NVME_CSI_ZNS, &zid), 0);
	fmt = id.flbas & 0xf;
	*ns = (struct rig_ns){
		.nsid = nsid,
		.lba = 1u << id.lbaf[fmt].ds,
		.nsze = le64toh(id.nsze),
		.zsze = le64toh(zid.lbafe[fmt].zsze),
		.mdts = ctrl.mdts ? 4096u << ctrl.mdts : 1u << 20,
		.open = le32toh(zid.mor) + 1 ? le32toh(zid.mor) + 1 : UINT32_MAX,
		.active = le32toh(zid.mar) + 1 ? le32toh(zid.mar) + 1 : UINT32_MAX,
		.razb = le16toh(zid.ozcs) & 1,
	};
	ns->zasl = zctrl.zasl ? 4096u << zctrl.zasl : ns->mdts;
	assert_true(ns->zsze && ns->nsze % ns->zsze == 0);
	ns->zones = ns->nsze / ns->zsze;
}

struct nvme_zns_desc rig_zone(struct host_queue *q, const struct rig_ns *ns, uint64_t slba)
{
	uint64_t buf[(sizeof(struct nvme_zone_report) + sizeof(struct nvme_zns_desc)) / 8];
	const struct nvme_zone_report *rep = (void *)buf;

	assert_int_equal(host_report(q, ns->nsid, slba, 0, 0, true, buf, sizeof(buf)), 0);
	assert_int_equal(le64toh(rep->nr_zones), 1);
	return rep->entries[0];
}

struct nvme_zone_report *rig_zones(struct host_queue *q, const struct rig_ns *ns)
{
	uint32_t len = sizeof(struct nvme_zone_report) + ns->zones * sizeof(struct nvme_zns_desc);
	struct nvme_zone_report *rep = calloc(1, len);

	assert_non_null(rep);
	assert_true(len <= ns->mdts);
	assert_int_equal(host_report(q, ns->nsid, 0, 0, 0, true, rep, len), 0);
	assert_int_equal(le64toh(rep->nr_zones), ns->zones);
	return rep;
}

void rig_write(struct host_queue *q, const struct rig_ns *ns, uint64_t lba, uint64_t blocks,
	       uint64_t seed)
{
	uint8_t *buf = malloc(PIECE);

	assert_non_null(buf);
	while (blocks) {
		uint32_t n = blocks < PIECE / ns->lba ? blocks : PIECE / ns->lba;

		host_pattern(buf, n * ns->lba, lba * ns->lba, seed);
		assert_int_equal(host_write(q, ns->nsid, lba, n, buf, n * ns->lba), 0);
		lba += n;
		blocks -= n;
	}
	free(buf);
}

static void verify(struct host_queue *q, const struct rig_ns *ns, uint64_t lba, uint64_t blocks,
		   const uint64_t *seed)
{
	uint8_t *buf = malloc(PIECE), *want = calloc(1, PIECE);

	assert_non_null(buf);
	assert_non_null(want);
	while (blocks) {
		uint32_t n = blocks < PIECE / ns->lba ? blocks : PIECE / ns->lba;
		uint32_t len = n * ns->lba;

		if (seed)
			host_pattern(want, len, lba * ns->lba, *seed);
		assert_int_equal(host_read(q, ns->nsid, lba, n, buf, len), 0);
		if (memcmp(buf, want, len))
			fail_msg("wrong data within %u blocks at LBA %llu", n,
				 (unsigned long long)lba);
		lba += n;
		blocks -= n;
	}
	free(buf);
	free(want);
}

void rig_verify(struct host_queue *q, const struct rig_ns *ns, uint64_t lba, uint64_t blocks,
		uint64_t seed)
{
	verify(q, ns, lba, blocks, &seed);
}

void rig_verify_zeroes(struct host_queue *q, const struct rig_ns *ns, uint64_t lba, uint64_t blocks)
{
	verify(q, ns, lba, blocks, NULL);
}

uint32_t rig_crc_file(const char *path)
{
	static uint8_t buf[1 << 16];
	FILE *f = fopen(path, "rb");
	uint32_t crc = 0;
	size_t n;

	assert_non_null(f);
	while ((n = fread(buf, 1, sizeof(buf), f)) > 0)
		crc = crc * 31 + host_crc32c(buf, n);
	fclose(f);
	return crc;
}
