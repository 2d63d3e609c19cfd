/* SPDX-License-Identifier: MIT */
/*
 * A transport without sockets and a command set without zones: commands go in as structs,
 * completions are remembered. The test's thread is the loop's; pump() lets posted messages run.
 */
#ifndef TESTS_UNIT_TARGET_FAKE_H
#define TESTS_UNIT_TARGET_FAKE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "core.h"
#include "loop.h"

#define FAKE_NQN     "nqn.2014-08.org.example:subsystem"
#define FAKE_HOSTNQN "nqn.2014-08.org.example:host"
#define DNR	     NVME_SC_DNR
#define SPECIFIC     NVME_SCT_SPECIFIC
#define INVALID	     (NVME_SC_INVALID_FIELD | DNR)
#define UNANSWERED   0xffff
#define FAKE_HELD    16

struct fake_queue {
	struct tgt_queue q;
	bool disconnected, closed;
};

struct fake_cmd {
	struct tgt_req req;
	uint8_t *buf;
	uint16_t status; /* UNANSWERED: none yet */
	uint64_t result;
	unsigned int answers;
};

static struct {
	struct workers *pool;
	struct loop *loop;
	struct tgt *tgt;
	struct tgt_subsys *subsys;
	struct tgt_port port;
	bool hold; /* the command set keeps what it is asked to do */
	struct tgt_req *held[FAKE_HELD];
	unsigned int nr_held;
	unsigned int flushes, closes;
	uint16_t flush_status;
	uint16_t flush_refusal; /* what the parser says of a Flush */
	int close_err[8];	/* by nsid */
} fake;

static inline void pump(void)
{
	loop_stop(fake.loop);
	loop_run(fake.loop);
}

static void fake_respond(struct tgt_req *req)
{
	struct fake_cmd *cmd = (struct fake_cmd *)req;

	cmd->status = le16toh(req->cqe.status) >> 1;
	cmd->result = le64toh(req->cqe.result);
	cmd->answers++;
	assert_int_equal(req->cqe.cid, req->cmd.cid);
	tgt_req_put(req);
}

static void fake_disconnect(struct tgt_queue *queue)
{
	struct fake_queue *fq = (struct fake_queue *)queue;

	assert_false(fq->closed);
	fq->disconnected = true;
}

static void fake_copy_out(struct tgt_queue *queue)
{
	(void)queue; /* no data is zero-copy here */
}

static const struct tgt_transport_ops fake_ops = { "fake", fake_respond, fake_disconnect,
						   fake_copy_out };

static void set_execute(struct tgt_req *req)
{
	if (req->cmd.opcode == NVME_CMD_FLUSH)
		fake.flushes++;
	if (fake.hold) {
		assert_true(fake.nr_held < FAKE_HELD);
		fake.held[fake.nr_held++] = req;
	} else {
		tgt_req_complete(req, req->cmd.opcode == NVME_CMD_FLUSH ? fake.flush_status : 0);
	}
}

/* Flush, Write, Read, Append; CDW12 is the number of bytes. */
static uint16_t set_parse(struct tgt_req *req)
{
	req->execute = set_execute;
	req->len = le32toh(req->cmd.cdw12);
	switch (req->cmd.opcode) {
	case NVME_CMD_FLUSH:
		req->len = 0;
		return fake.flush_refusal;
	case NVME_CMD_WRITE:
	case NVME_CMD_APPEND:
		req->dir = TGT_H2C;
		return 0;
	case NVME_CMD_READ:
		req->dir = TGT_C2H;
		return 0;
	}
	return NVME_SC_INVALID_OPCODE | DNR;
}

static void set_identify_ns(struct tgt_ns *ns, struct nvme_id_ns *id)
{
	id->nsze = htole64(1000 + ns->nsid);
}

static void set_identify_ns_csi(struct tgt_ns *ns, void *id)
{
	memset(id, 0x50 + ns->set->csi, 16);
}

static void set_identify_zns_ctrl(void *id)
{
	*(uint8_t *)id = 0x62;
}

static void set_identify_nvm_ctrl(void *id)
{
	*(uint8_t *)id = 0x60;
}

static void set_effects(struct nvme_cmd_effects_log *log)
{
	log->iocs[NVME_CMD_FLUSH] = htole32(1);
}

static bool set_zero_copy(struct tgt_req *req)
{
	(void)req;
	return false;
}

static void set_release(struct tgt_req *req)
{
	(void)req;
}

static int set_copy(struct tgt_req *req, void *buf)
{
	(void)req;
	(void)buf;
	return -EIO;
}

static void set_run(struct tgt_reqs *reqs)
{
	(void)reqs;
}

static int set_close(struct tgt_ns *ns)
{
	fake.closes++;
	return fake.close_err[ns->nsid];
}

static const struct tgt_command_set fake_zns = { NVME_CSI_ZNS,
						 set_parse,
						 set_identify_ns,
						 set_identify_ns_csi,
						 set_identify_zns_ctrl,
						 set_effects,
						 set_zero_copy,
						 set_release,
						 set_copy,
						 set_run,
						 set_close };
static const struct tgt_command_set fake_nvm = { NVME_CSI_NVM,
						 set_parse,
						 set_identify_ns,
						 set_identify_ns_csi,
						 set_identify_nvm_ctrl,
						 set_effects,
						 set_zero_copy,
						 set_release,
						 set_copy,
						 set_run,
						 set_close };

static struct tgt_ns fake_ns[8];

/* Adds namespace NSID of SET to the subsystem; its identifiers are made of it. */
static inline struct tgt_ns *fake_add_ns(uint32_t nsid, const struct tgt_command_set *set)
{
	struct tgt_ns *ns = &fake_ns[nsid];
	char err[256];

	*ns = (struct tgt_ns){ .set = set, .nsid = nsid, .write_cache = true };
	memset(ns->uuid, (int)(0x10 + nsid), sizeof(ns->uuid));
	memset(ns->nguid, (int)(0x20 + nsid), sizeof(ns->nguid));
	assert_int_equal(tgt_ns_add(fake.subsys, ns, err, sizeof(err)), 0);
	return ns;
}

/* A target with one subsystem: namespace 1 (ZNS), 3 (NVM); one port. */
static inline int fake_start(void **state)
{
	char err[256];

	(void)state;
	memset(&fake, 0, sizeof(fake));
	log_level(LOG_ERR_);
	fake.pool = workers_new(2);
	fake.loop = loop_new(fake.pool);
	fake.tgt = tgt_new();
	tgt_add_command_set(fake.tgt, &fake_zns);
	tgt_add_command_set(fake.tgt, &fake_nvm);
	fake.port = (struct tgt_port){ 7, NVMF_ADDR_FAMILY_IP4, "192.0.2.1", "4420", NULL };
	tgt_port_add(fake.tgt, &fake.port);
	fake.subsys = tgt_subsys_get(fake.tgt, FAKE_NQN, err, sizeof(err));
	fake_add_ns(1, &fake_zns);
	fake_add_ns(3, &fake_nvm);
	return 0;
}

static inline int fake_stop(void **state)
{
	(void)state;
	pump();
	assert_int_equal(tgt_free(fake.tgt), 0);
	workers_free(fake.pool);
	loop_free(fake.loop);
	return 0;
}

static inline struct fake_queue *fake_queue_new(void)
{
	struct fake_queue *fq = calloc(1, sizeof(*fq));

	tgt_queue_init(&fq->q, fake.tgt, &fake_ops, fake.loop, &fake.port);
	return fq;
}

/* The connection ends; the queue must be drained by then. */
static inline void fake_close(struct fake_queue *fq)
{
	tgt_queue_close(&fq->q);
	fq->closed = true;
	pump();
	assert_int_equal(fq->q.inflight, 0);
	assert_null(fq->q.ctrl);
	free(fq);
}

static inline void fake_cmd_free(struct fake_cmd *cmd)
{
	free(cmd->buf);
	free(cmd);
}

/* Submits SQE; DATA of DATALEN bytes comes in the capsule. The answer may be outstanding. */
static inline struct fake_cmd *fake_submit_data(struct fake_queue *fq, const void *sqe,
						const void *data, uint32_t datalen)
{
	struct fake_cmd *cmd = calloc(1, sizeof(*cmd));
	uint16_t status;

	cmd->status = UNANSWERED;
	memset(&cmd->req, 0xa5, sizeof(cmd->req)); /* a slot that was used before */
	memcpy(&cmd->req.cmd, sqe, sizeof(cmd->req.cmd));
	cmd->req.cmd.cid = 0x1234;
	tgt_queue_batch_begin(&fq->q); /* a wake-up of its own */
	status = tgt_req_init(&cmd->req, &fq->q, datalen);
	if (status) {
		assert_int_equal(cmd->req.len, 0);
		tgt_req_complete(&cmd->req, status);
		tgt_queue_batch_end(&fq->q);
		return cmd;
	}
	cmd->buf = malloc(cmd->req.len + 1);
	memset(cmd->buf, 0xa5, cmd->req.len + 1); /* what is not zeroed shows */
	if (datalen)
		memcpy(cmd->buf, data, datalen);
	cmd->req.buf = cmd->buf;
	tgt_req_execute(&cmd->req);
	tgt_queue_batch_end(&fq->q);
	return cmd;
}

/* A read, or a command without data; its SGL says LEN. */
static inline struct fake_cmd *fake_submit(struct fake_queue *fq, const struct nvme_sqe *sqe,
					   uint32_t len)
{
	struct nvme_sqe copy = *sqe;

	copy.flags |= NVME_SQE_PSDT_SGL;
	copy.dptr.type = NVME_SGL_TRANSPORT;
	copy.dptr.length = htole32(len);
	return fake_submit_data(fq, &copy, NULL, 0);
}

/* Submits, takes the answer, copies the data to OUT (NULL: drops it). */
static inline uint16_t fake_do(struct fake_queue *fq, const struct nvme_sqe *sqe, void *out,
			       uint32_t len, uint64_t *result)
{
	struct fake_cmd *cmd = fake_submit(fq, sqe, len);
	uint16_t status;

	if (cmd->status == UNANSWERED)
		pump();
	assert_int_equal(cmd->answers, 1);
	status = cmd->status;
	if (result)
		*result = cmd->result;
	if (!status && out)
		memcpy(out, cmd->buf, len);
	if (!status && len)
		assert_int_equal(cmd->buf[cmd->req.len], 0xa5);
	fake_cmd_free(cmd);
	return status;
}

struct fake_connect {
	struct nvmf_connect_sqe sqe;
	struct nvmf_connect_data data;
};

static inline struct fake_connect fake_connect_args(const char *subnqn, uint16_t qid,
						    uint16_t cntlid)
{
	struct fake_connect c = {
		.sqe = { .opcode = nvme_admin_fabrics,
			 .flags = NVME_SQE_PSDT_SGL,
			 .fctype = nvme_fabrics_type_connect,
			 .dptr = { .length = htole32(1024), .type = NVME_SGL_OFFSET },
			 .qid = htole16(qid),
			 .sqsize = htole16(31) },
		.data = { .hostid = { 1, 2, 3 }, .cntlid = htole16(cntlid) },
	};

	snprintf(c.data.subsysnqn, sizeof(c.data.subsysnqn), "%s", subnqn);
	snprintf(c.data.hostnqn, sizeof(c.data.hostnqn), "%s", FAKE_HOSTNQN);
	return c;
}

static inline struct fake_cmd *fake_connect_submit(struct fake_queue *fq,
						   const struct fake_connect *c)
{
	return fake_submit_data(fq, &c->sqe, &c->data, sizeof(c->data));
}

static inline uint16_t fake_connect(struct fake_queue *fq, const struct fake_connect *c,
				    uint64_t *result)
{
	struct fake_cmd *cmd = fake_connect_submit(fq, c);
	uint16_t status = cmd->status;

	assert_int_equal(cmd->answers, 1);
	if (result)
		*result = cmd->result;
	fake_cmd_free(cmd);
	return status;
}

static inline uint16_t fake_property_set(struct fake_queue *fq, uint32_t offset, uint8_t attrib,
					 uint64_t value)
{
	const struct nvmf_property_sqe sqe = { .opcode = nvme_admin_fabrics,
					       .fctype = nvme_fabrics_type_property_set,
					       .attrib = attrib,
					       .offset = htole32(offset),
					       .value = htole64(value) };

	return fake_do(fq, (const struct nvme_sqe *)&sqe, NULL, 0, NULL);
}

static inline uint16_t fake_property_get(struct fake_queue *fq, uint32_t offset, uint8_t attrib,
					 uint64_t *value)
{
	const struct nvmf_property_sqe sqe = { .opcode = nvme_admin_fabrics,
					       .fctype = nvme_fabrics_type_property_get,
					       .attrib = attrib,
					       .offset = htole32(offset) };

	return fake_do(fq, (const struct nvme_sqe *)&sqe, NULL, 0, value);
}

#define CC_ENABLE  0x460061u /* IOCQES 4, IOSQES 6, CSS 6, EN */
#define CC_DISABLE 0x460060u

static inline uint32_t fake_csts(struct fake_queue *fq)
{
	uint64_t csts = 0;

	assert_int_equal(fake_property_get(fq, NVME_REG_CSTS, 0, &csts), 0);
	return (uint32_t)csts;
}

/* An admin queue of SUBNQN, with KATO ms. */
static inline struct fake_queue *fake_admin_kato(const char *subnqn, uint32_t kato)
{
	struct fake_connect c = fake_connect_args(subnqn, 0, 0xffff);
	struct fake_queue *fq = fake_queue_new();

	c.sqe.kato = htole32(kato);
	assert_int_equal(fake_connect(fq, &c, NULL), 0);
	return fq;
}

/* An enabled controller's admin queue. */
static inline struct fake_queue *fake_admin(const char *subnqn)
{
	struct fake_queue *fq = fake_admin_kato(subnqn, 0);

	assert_int_equal(fake_property_set(fq, NVME_REG_CC, 0, CC_ENABLE), 0);
	return fq;
}

static inline struct fake_queue *fake_io(struct fake_queue *admin, uint16_t qid)
{
	struct fake_connect c = fake_connect_args(FAKE_NQN, qid, admin->q.ctrl->cntlid);
	struct fake_queue *fq = fake_queue_new();

	assert_int_equal(fake_connect(fq, &c, NULL), 0);
	return fq;
}

#define fake_test(fn) cmocka_unit_test_setup_teardown(fn, fake_start, fake_stop)

#endif
