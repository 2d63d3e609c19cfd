/* SPDX-License-Identifier: MIT */
/*
 * The NVM command set (CSI 0). Hosts query it on every controller that supports several command
 * sets, even if there are no namespaces of it: its limits (all 0: none reported) and its effects,
 * those of its three mandatory commands. There are no NVM namespaces, so the functions that take
 * one are never called, and refuse if they are.
 */
#include <errno.h>
#include "target.h"
#include "zns.h"

static uint16_t nvm_parse(struct tgt_req *req)
{
	(void)req;
	return NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
}

static void nvm_identify_ns(struct tgt_ns *ns, struct nvme_id_ns *id)
{
	(void)ns;
	(void)id;
}

static void nvm_identify_ns_csi(struct tgt_ns *ns, void *id)
{
	(void)ns;
	(void)id;
}

static void nvm_identify_ctrl_csi(void *id)
{
	(void)id;
}

static void nvm_effects(struct nvme_cmd_effects_log *log)
{
	log->iocs[nvme_cmd_flush] = htole32(NVME_CMD_EFFECTS_CSUPP);
	log->iocs[nvme_cmd_read] = htole32(NVME_CMD_EFFECTS_CSUPP);
	log->iocs[nvme_cmd_write] = htole32(NVME_CMD_EFFECTS_CSUPP | NVME_CMD_EFFECTS_LBCC);
}

static bool nvm_zero_copy(struct tgt_req *req)
{
	(void)req;
	return false;
}

static void nvm_zero_copy_end(struct tgt_req *req)
{
	(void)req;
}

static int nvm_copy_out(struct tgt_req *req, void *buf)
{
	(void)req;
	(void)buf;
	return -EINVAL;
}

static void nvm_run(struct tgt_reqs *reqs)
{
	(void)reqs;
}

static int nvm_close(struct tgt_ns *ns)
{
	(void)ns;
	return -EINVAL;
}

const struct tgt_command_set nvm_command_set = {
	.csi = NVME_CSI_NVM,
	.parse = nvm_parse,
	.identify_ns = nvm_identify_ns,
	.identify_ns_csi = nvm_identify_ns_csi,
	.identify_ctrl_csi = nvm_identify_ctrl_csi,
	.effects = nvm_effects,
	.zero_copy = nvm_zero_copy,
	.zero_copy_end = nvm_zero_copy_end,
	.copy_out = nvm_copy_out,
	.run_batch = nvm_run,
	.close = nvm_close,
};
