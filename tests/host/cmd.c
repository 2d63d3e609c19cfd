// SPDX-License-Identifier: MIT
/*
 * The initiator's commands: Fabrics, admin, ZNS, and the set-up of a whole association in the
 * order Linux does it (spec/nvme-rules.md A.1).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "host.h"

void host_connect_init(struct host_connect *c, uint16_t qid, uint16_t sqsize, const char *nqn,
		       const char *hostnqn, uint16_t cntlid)
{
	memset(c, 0, sizeof(*c));
	c->qid = qid;
	c->sqsize = sqsize;
	memset(c->data.hostid, 0x5a, sizeof(c->data.hostid));
	c->data.cntlid = htole16(cntlid);
	snprintf(c->data.subsysnqn, sizeof(c->data.subsysnqn), "%s", nqn);
	snprintf(c->data.hostnqn, sizeof(c->data.hostnqn), "%s", hostnqn);
}

int host_connect(struct host_queue *q, const struct host_connect *c, uint32_t *result)
{
	struct nvmf_connect_data data = c->data;
	struct nvmf_connect_sqe sqe = {
		.opcode = nvme_admin_fabrics,
		.fctype = nvme_fabrics_type_connect,
		.recfmt = htole16(c->recfmt),
		.qid = htole16(c->qid),
		.sqsize = htole16(c->sqsize),
		.cattr = c->cattr,
		.kato = htole32(c->kato),
	};
	struct host_io io = { .dir = HOST_WRITE, .buf = &data, .len = sizeof(data) };
	int err;

	memcpy(&io.sqe, &sqe, sizeof(sqe));
	err = host_cmd(q, &io);
	if (err >= 0 && result)
		*result = le64toh(io.cqe.result);
	if (!err) {
		q->qid = c->qid;
		q->sqflow_off = c->cattr & 4;
	}
	return err;
}

int host_prop_get(struct host_queue *q, uint32_t off, bool eight, uint64_t *value)
{
	struct nvmf_property_sqe sqe = {
		.opcode = nvme_admin_fabrics,
		.fctype = nvme_fabrics_type_property_get,
		.attrib = eight,
		.offset = htole32(off),
	};
	struct host_io io = { .dir = HOST_NONE };
	int err;

	memcpy(&io.sqe, &sqe, sizeof(sqe));
	err = host_cmd(q, &io);
	if (!err)
		*value = le64toh(io.cqe.result);
	return err;
}

int host_prop_set(struct host_queue *q, uint32_t off, bool eight, uint64_t value)
{
	struct nvmf_property_sqe sqe = {
		.opcode = nvme_admin_fabrics,
		.fctype = nvme_fabrics_type_property_set,
		.attrib = eight,
		.offset = htole32(off),
		.value = htole64(value),
	};
	struct host_io io = { .dir = HOST_NONE };

	memcpy(&io.sqe, &sqe, sizeof(sqe));
	return host_cmd(q, &io);
}

int host_enable(struct host_queue *q)
{
	const uint32_t cc = 6 << 4 | 6 << 16 | 4 << 20; /* CSS: all; IOSQES, IOCQES */
	uint64_t csts = 0;
	int i, err;

	err = host_prop_set(q, NVME_REG_CC, false, cc | 1);
	for (i = 0; i < 1000 && !err; i++) {
		err = host_prop_get(q, NVME_REG_CSTS, false, &csts);
		if (!err && (csts & 1))
			return 0;
		usleep(1000);
	}
	return err ? err : -ETIMEDOUT;
}

int host_identify(struct host_queue *q, uint8_t cns, uint32_t nsid, uint8_t csi, void *buf)
{
	struct host_io io = {
		.sqe = {
			.opcode = nvme_admin_identify,
			.nsid = htole32(nsid),
			.cdw10 = htole32(cns),
			.cdw11 = htole32((uint32_t)csi << 24),
		},
		.dir = HOST_READ,
		.buf = buf,
		.len = 4096,
	};

	return host_cmd(q, &io);
}

int host_get_log(struct host_queue *q, uint8_t lid, uint32_t nsid, uint8_t csi, uint64_t off,
		 void *buf, uint32_t len)
{
	uint32_t numd = len / 4 - 1;
	struct host_io io = {
		.sqe = {
			.opcode = nvme_admin_get_log_page,
			.nsid = htole32(nsid),
			.cdw10 = htole32(lid | (numd & 0xffff) << 16),
			.cdw11 = htole32(numd >> 16),
			.cdw12 = htole32((uint32_t)off),
			.cdw13 = htole32(off >> 32),
			.cdw14 = htole32((uint32_t)csi << 24),
		},
		.dir = HOST_READ,
		.buf = buf,
		.len = len,
	};

	return host_cmd(q, &io);
}

static int feature(struct host_queue *q, uint8_t opcode, uint8_t fid, uint32_t nsid, uint32_t value,
		   uint32_t *result)
{
	struct host_io io = {
		.sqe = {
			.opcode = opcode,
			.nsid = htole32(nsid),
			.cdw10 = htole32(fid),
			.cdw11 = htole32(value),
		},
	};
	int err = host_cmd(q, &io);

	if (!err && result)
		*result = le64toh(io.cqe.result);
	return err;
}

int host_get_feature(struct host_queue *q, uint8_t fid, uint32_t nsid, uint32_t *result)
{
	return feature(q, nvme_admin_get_features, fid, nsid, 0, result);
}

int host_set_feature(struct host_queue *q, uint8_t fid, uint32_t nsid, uint32_t value,
		     uint32_t *result)
{
	return feature(q, nvme_admin_set_features, fid, nsid, value, result);
}

int host_keep_alive(struct host_queue *q)
{
	struct host_io io = { .sqe = { .opcode = nvme_admin_keep_alive } };

	return host_cmd(q, &io);
}

void host_set_rw(struct host_io *io, uint8_t opcode, uint32_t nsid, uint64_t slba, uint32_t blocks,
		 void *buf, uint32_t len)
{
	memset(io, 0, sizeof(*io));
	io->sqe.opcode = opcode;
	io->sqe.nsid = htole32(nsid);
	io->sqe.cdw10 = htole32((uint32_t)slba);
	io->sqe.cdw11 = htole32(slba >> 32);
	io->sqe.cdw12 = htole32(blocks - 1);
	io->dir = opcode == nvme_cmd_read ? HOST_READ : HOST_WRITE;
	io->buf = buf;
	io->len = len;
}

int host_read(struct host_queue *q, uint32_t nsid, uint64_t slba, uint32_t blocks, void *buf,
	      uint32_t len)
{
	struct host_io io;

	host_set_rw(&io, nvme_cmd_read, nsid, slba, blocks, buf, len);
	return host_cmd(q, &io);
}

int host_write(struct host_queue *q, uint32_t nsid, uint64_t slba, uint32_t blocks, const void *buf,
	       uint32_t len)
{
	struct host_io io;

	host_set_rw(&io, nvme_cmd_write, nsid, slba, blocks, (void *)buf, len);
	return host_cmd(q, &io);
}

int host_append(struct host_queue *q, uint32_t nsid, uint64_t zslba, uint32_t blocks,
		const void *buf, uint32_t len, uint64_t *alba)
{
	struct host_io io;
	int err;

	host_set_rw(&io, nvme_zns_cmd_append, nsid, zslba, blocks, (void *)buf, len);
	err = host_cmd(q, &io);
	if (!err && alba)
		*alba = le64toh(io.cqe.result);
	return err;
}

int host_flush(struct host_queue *q, uint32_t nsid)
{
	struct host_io io = { .sqe = { .opcode = nvme_cmd_flush, .nsid = htole32(nsid) } };

	return host_cmd(q, &io);
}

int host_zone(struct host_queue *q, uint32_t nsid, uint64_t slba, enum nvme_zns_send_action zsa,
	      bool all)
{
	struct host_io io = {
		.sqe = {
			.opcode = nvme_zns_cmd_mgmt_send,
			.nsid = htole32(nsid),
			.cdw10 = htole32((uint32_t)slba),
			.cdw11 = htole32(slba >> 32),
			.cdw13 = htole32(zsa | (all ? 1u << 8 : 0)),
		},
	};

	return host_cmd(q, &io);
}

int host_report(struct host_queue *q, uint32_t nsid, uint64_t slba, uint8_t zra, uint8_t zrasf,
		bool partial, void *buf, uint32_t len)
{
	struct host_io io = {
		.sqe = {
			.opcode = nvme_zns_cmd_mgmt_recv,
			.nsid = htole32(nsid),
			.cdw10 = htole32((uint32_t)slba),
			.cdw11 = htole32(slba >> 32),
			.cdw12 = htole32(len / 4 - 1),
			.cdw13 = htole32(zra | (uint32_t)zrasf << 8 | (partial ? 1u << 16 : 0)),
		},
		.dir = HOST_READ,
		.buf = buf,
		.len = len,
	};

	return host_cmd(q, &io);
}

int host_attach_io(struct host_ctrl *c, struct host_queue *q, uint16_t qid)
{
	struct host_connect con;
	int err;

	err = host_open(q, c->addr, c->port, &c->ic);
	if (err)
		return err;
	q->icd = c->io_icd;
	host_connect_init(&con, qid, HOST_DEPTH - 1, c->nqn, c->hostnqn, c->cntlid);
	err = host_connect(q, &con, NULL);
	if (err)
		host_close(q);
	return err;
}

/* Identify Controller, for what the I/O queues take in a capsule; then the number of queues. */
static int ctrl_settings(struct host_ctrl *c, uint16_t nr_io)
{
	struct nvme_id_ctrl id;
	uint32_t got;
	int err;

	err = host_identify(&c->admin, NVME_IDENTIFY_CNS_CTRL, 0, 0, &id);
	if (err)
		return err;
	if (le16toh(id.cntlid) != c->cntlid)
		return -EPROTO;
	if (!nr_io)
		return 0;
	if (le32toh(id.ioccsz) < 4)
		return -EPROTO;
	c->io_icd = le32toh(id.ioccsz) * 16 - 64;
	err = host_set_feature(&c->admin, NVME_FEAT_FID_NUM_QUEUES, 0,
			       (nr_io - 1u) << 16 | (nr_io - 1u), &got);
	if (!err && ((got & 0xffff) + 1 < nr_io || (got >> 16) + 1 < nr_io))
		err = -EPROTO;
	return err;
}

int host_attach(struct host_ctrl *c, const char *addr, const char *port, const char *nqn,
		const char *hostnqn, const struct host_ic *ic, uint16_t nr_io, uint32_t kato)
{
	struct host_connect con;
	uint32_t result;
	uint16_t i;
	int err;

	memset(c, 0, sizeof(*c));
	snprintf(c->addr, sizeof(c->addr), "%s", addr);
	snprintf(c->port, sizeof(c->port), "%s", port);
	snprintf(c->nqn, sizeof(c->nqn), "%s", nqn);
	snprintf(c->hostnqn, sizeof(c->hostnqn), "%s", hostnqn ? hostnqn : HOST_NQN);
	if (ic)
		c->ic = *ic;
	c->kato = kato;
	err = host_open(&c->admin, addr, port, &c->ic);
	if (err)
		return err;
	host_connect_init(&con, 0, 31, c->nqn, c->hostnqn, 0xffff);
	con.kato = kato;
	err = host_connect(&c->admin, &con, &result);
	if (err)
		goto detach;
	c->cntlid = result;
	err = host_enable(&c->admin);
	if (!err)
		err = ctrl_settings(c, nr_io);
	if (err)
		goto detach;
	c->io = calloc(nr_io ? nr_io : 1, sizeof(*c->io));
	if (!c->io) {
		err = -ENOMEM;
		goto detach;
	}
	for (i = 0; i < nr_io; i++) {
		err = host_attach_io(c, &c->io[i], i + 1);
		if (err)
			goto detach;
		c->nr_io++;
	}
	return 0;
detach:
	host_detach(c);
	return err;
}

void host_detach(struct host_ctrl *c)
{
	uint16_t i;

	for (i = 0; i < c->nr_io; i++)
		host_close(&c->io[i]);
	free(c->io);
	c->io = NULL;
	c->nr_io = 0;
	host_close(&c->admin);
}

int host_discover(const char *addr, const char *port, char *nqn)
{
	struct nvmf_discovery_log *log;
	struct host_ctrl c;
	const uint32_t most = 16;
	uint32_t len = sizeof(*log) + most * sizeof(log->entries[0]);
	uint64_t i;
	int err;

	err = host_attach(&c, addr, port, NVME_DISC_SUBSYS_NAME, NULL, NULL, 0, 0);
	if (err)
		return err;
	log = calloc(1, len);
	if (!log) {
		host_detach(&c);
		return -ENOMEM;
	}
	err = host_get_log(&c.admin, NVME_LOG_LID_DISCOVER, 0, 0, 0, log, len);
	host_detach(&c);
	if (!err) {
		err = -ENOENT;
		for (i = 0; i < le64toh(log->numrec) && i < most && err; i++) {
			if (log->entries[i].subtype != NVME_NQN_NVME)
				continue;
			snprintf(nqn, 224, "%.223s", log->entries[i].subnqn);
			err = 0;
		}
	}
	free(log);
	return err;
}
