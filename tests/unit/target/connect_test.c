/* SPDX-License-Identifier: MIT */
/* Connect and Disconnect: every wrong field has its status and its place. */
#include "target/fake.h"

#define BAD_PARAM   (SPECIFIC | NVME_SC_CONNECT_INVALID_PARAM | DNR)
#define SQE(field)  offsetof(struct nvmf_connect_sqe, field)
#define DATA(field) (1u << 16 | offsetof(struct nvmf_connect_data, field))

struct wrong {
	const char *what;
	void (*spoil)(struct fake_connect *c);
	uint16_t status;
	uint64_t result;
};

static void recfmt(struct fake_connect *c)
{
	c->sqe.recfmt = 1;
}

static void qid_high(struct fake_connect *c)
{
	c->sqe.qid = htole16(129);
}

static void sqsize_zero(struct fake_connect *c)
{
	c->sqe.sqsize = 0;
}

static void sqsize_high(struct fake_connect *c)
{
	c->sqe.sqsize = htole16(32);
}

static void hostid_zero(struct fake_connect *c)
{
	memset(c->data.hostid, 0, sizeof(c->data.hostid));
}

static void cntlid_static(struct fake_connect *c)
{
	c->data.cntlid = htole16(0xfffe);
}

static void cntlid_named(struct fake_connect *c)
{
	c->data.cntlid = htole16(1);
}

static void subnqn_unknown(struct fake_connect *c)
{
	strcpy(c->data.subsysnqn, "nqn.2014-08.org.example:none");
}

static void subnqn_unended(struct fake_connect *c)
{
	memset(c->data.subsysnqn, 'n', sizeof(c->data.subsysnqn));
}

static void hostnqn_unended(struct fake_connect *c)
{
	memset(c->data.hostnqn, 'n', sizeof(c->data.hostnqn));
}

static void hostnqn_empty(struct fake_connect *c)
{
	c->data.hostnqn[0] = '\0';
}

static void hostnqn_too_long(struct fake_connect *c)
{
	memset(c->data.hostnqn, 'n', 224);
}

static const struct wrong admin_wrongs[] = {
	{ "RECFMT", recfmt, SPECIFIC | NVME_SC_CONNECT_FORMAT | DNR, 0 },
	{ "QID 129", qid_high, BAD_PARAM, SQE(qid) },
	{ "SQSIZE 0", sqsize_zero, BAD_PARAM, SQE(sqsize) },
	{ "SQSIZE 32", sqsize_high, BAD_PARAM, SQE(sqsize) },
	{ "HOSTID 0", hostid_zero, BAD_PARAM, DATA(hostid) },
	{ "CNTLID FFFEh", cntlid_static, BAD_PARAM, DATA(cntlid) },
	{ "CNTLID 1", cntlid_named, BAD_PARAM, DATA(cntlid) },
	{ "unknown SUBNQN", subnqn_unknown, BAD_PARAM, DATA(subsysnqn) },
	{ "SUBNQN without end", subnqn_unended, BAD_PARAM, DATA(subsysnqn) },
	{ "HOSTNQN without end", hostnqn_unended, BAD_PARAM, DATA(hostnqn) },
	{ "empty HOSTNQN", hostnqn_empty, BAD_PARAM, DATA(hostnqn) },
	{ "HOSTNQN of 224", hostnqn_too_long, BAD_PARAM, DATA(hostnqn) },
};

static void every_wrong_field_of_an_admin_connect_is_named(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(admin_wrongs) / sizeof(admin_wrongs[0]); i++) {
		struct fake_connect c = fake_connect_args(FAKE_NQN, 0, 0xffff);
		struct fake_queue *fq = fake_queue_new();
		uint64_t result;

		admin_wrongs[i].spoil(&c);
		print_message("%s\n", admin_wrongs[i].what);
		assert_int_equal(fake_connect(fq, &c, &result), admin_wrongs[i].status);
		assert_int_equal(result, admin_wrongs[i].result);
		assert_null(fq->q.ctrl);
		fake_close(fq);
	}
}

static void cntlid_unknown(struct fake_connect *c)
{
	c->data.cntlid = htole16(999);
}

static void hostnqn_other(struct fake_connect *c)
{
	strcpy(c->data.hostnqn, FAKE_HOSTNQN "2");
}

static void hostid_other(struct fake_connect *c)
{
	c->data.hostid[15] = 9;
}

static void sqsize_over_mqes(struct fake_connect *c)
{
	c->sqe.sqsize = htole16(128);
}

static const struct wrong io_wrongs[] = {
	{ "CNTLID unknown", cntlid_unknown, BAD_PARAM, DATA(cntlid) },
	{ "other HOSTNQN", hostnqn_other, BAD_PARAM, DATA(hostnqn) },
	{ "other HOSTID", hostid_other, BAD_PARAM, DATA(hostid) },
	{ "SQSIZE over MQES", sqsize_over_mqes, BAD_PARAM, SQE(sqsize) },
};

static void an_io_queue_must_be_its_hosts_and_controllers(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN);

	(void)state;
	for (size_t i = 0; i < sizeof(io_wrongs) / sizeof(io_wrongs[0]); i++) {
		struct fake_connect c = fake_connect_args(FAKE_NQN, 1, admin->q.ctrl->cntlid);
		struct fake_queue *fq = fake_queue_new();
		uint64_t result;

		io_wrongs[i].spoil(&c);
		print_message("%s\n", io_wrongs[i].what);
		assert_int_equal(fake_connect(fq, &c, &result), io_wrongs[i].status);
		assert_int_equal(result, io_wrongs[i].result);
		fake_close(fq);
	}
	fake_close(admin);
}

static void an_io_connect_before_enable_is_a_sequence_error(void **state)
{
	struct fake_queue *admin = fake_admin_kato(FAKE_NQN, 0), *fq = fake_queue_new();
	struct fake_connect c = fake_connect_args(FAKE_NQN, 1, admin->q.ctrl->cntlid);

	(void)state;
	assert_int_equal(fake_connect(fq, &c, NULL), NVME_SC_CMD_SEQ_ERROR | DNR);
	fake_close(fq);
	fake_close(admin);
}

static void a_queue_id_in_use_is_a_sequence_error(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN), *io = fake_io(admin, 1);
	struct fake_connect c = fake_connect_args(FAKE_NQN, 1, admin->q.ctrl->cntlid);
	struct fake_queue *fq = fake_queue_new();

	(void)state;
	assert_int_equal(fake_connect(fq, &c, NULL), NVME_SC_CMD_SEQ_ERROR | DNR);
	fake_close(io);
	assert_int_equal(fake_connect(fq, &c, NULL), 0);
	fake_close(fq);
	fake_close(admin);
}

static void a_second_connect_is_a_sequence_error(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN);
	struct fake_connect c = fake_connect_args(FAKE_NQN, 0, 0xffff);

	(void)state;
	assert_int_equal(fake_connect(admin, &c, NULL), NVME_SC_CMD_SEQ_ERROR | DNR);
	fake_close(admin);
}

static void nothing_goes_before_connect(void **state)
{
	static const struct nvme_sqe sqes[] = {
		{ .opcode = nvme_admin_identify, .cdw10 = 1 },
		{ .opcode = nvme_admin_fabrics, .nsid = nvme_fabrics_type_property_get },
		{ .opcode = nvme_admin_keep_alive },
		{ .opcode = 0xff },
	};
	struct fake_queue *fq = fake_queue_new();

	(void)state;
	for (size_t i = 0; i < sizeof(sqes) / sizeof(sqes[0]); i++)
		assert_int_equal(fake_do(fq, &sqes[i], NULL, 0, NULL), NVME_SC_CMD_SEQ_ERROR | DNR);
	fake_close(fq);
}

static void a_host_not_allowed_is_refused(void **state)
{
	struct fake_connect c = fake_connect_args(FAKE_NQN, 0, 0xffff);
	struct fake_queue *fq = fake_queue_new();

	(void)state;
	assert_int_equal(tgt_subsys_allow_host(fake.subsys, FAKE_HOSTNQN "2"), 0);
	assert_int_equal(fake_connect(fq, &c, NULL), SPECIFIC | NVME_SC_CONNECT_INVALID_HOST | DNR);
	assert_int_equal(tgt_subsys_allow_host(fake.subsys, FAKE_HOSTNQN), 0);
	assert_int_equal(fake_connect(fq, &c, NULL), 0);
	fake_close(fq);
}

/* At most 223 bytes: NVMe Base 2.0, 4.5. */
static void names_of_subsystems_and_hosts_are_judged(void **state)
{
	static const char *const bad[] = { "", "nqn.", "nqm.2014-08.org.example", "host" };
	char longest[TGT_NQN_LEN + 1] = "nqn.", too_long[TGT_NQN_LEN + 2] = "nqn.", err[512];
	struct fake_connect c = fake_connect_args(FAKE_NQN, 0, 0xffff);
	struct fake_queue *fq = fake_queue_new();

	(void)state;
	memset(longest + 4, 'x', TGT_NQN_LEN - 4);
	memset(too_long + 4, 'x', TGT_NQN_LEN + 1 - 4);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(tgt_subsys_allow_host(fake.subsys, bad[i]), -EINVAL);
		assert_null(tgt_subsys_get(fake.tgt, bad[i], err, sizeof(err)));
	}
	assert_int_equal(tgt_subsys_allow_host(fake.subsys, too_long), -EINVAL);
	assert_null(tgt_subsys_get(fake.tgt, too_long, err, sizeof(err)));
	assert_non_null(strstr(err, "at most 223 bytes"));
	assert_int_equal(fake_connect(fq, &c, NULL), 0); /* no name was taken: all may connect */
	fake_close(fq);
	assert_non_null(tgt_subsys_get(fake.tgt, longest, err, sizeof(err)));
	assert_int_equal(tgt_subsys_allow_host(fake.subsys, longest), 0);
}

static void a_subsystem_has_so_many_controllers(void **state)
{
	static struct fake_queue *admins[TGT_MAX_CTRLS];
	struct fake_connect c = fake_connect_args(FAKE_NQN, 0, 0xffff);
	struct fake_queue *fq = fake_queue_new();

	(void)state;
	for (int i = 0; i < TGT_MAX_CTRLS; i++)
		admins[i] = fake_admin_kato(FAKE_NQN, 0);
	assert_int_equal(fake_connect(fq, &c, NULL), SPECIFIC | NVME_SC_CONNECT_CTRL_BUSY);
	fake_close(admins[0]);
	assert_int_equal(fake_connect(fq, &c, NULL), 0);
	fake_close(fq);
	for (int i = 1; i < TGT_MAX_CTRLS; i++)
		fake_close(admins[i]);
}

static void a_connect_gives_the_id_that_identify_gives(void **state)
{
	struct fake_connect c = fake_connect_args(FAKE_NQN, 0, 0xffff);
	struct fake_queue *fq = fake_queue_new();
	const struct nvme_sqe sqe = { .opcode = nvme_admin_identify, .cdw10 = htole32(1) };
	struct nvme_id_ctrl id;
	uint64_t result;

	(void)state;
	assert_int_equal(fake_connect(fq, &c, &result), 0);
	assert_int_equal(fake_property_set(fq, NVME_REG_CC, 0, CC_ENABLE), 0);
	assert_int_equal(fake_do(fq, &sqe, &id, sizeof(id), NULL), 0);
	assert_int_equal(le16toh(id.cntlid), result);
	fake_close(fq);
}

static void a_head_pointer_of_ones_says_flow_control_is_off(void **state)
{
	struct fake_connect c = fake_connect_args(FAKE_NQN, 0, 0xffff);
	struct fake_queue *fq = fake_queue_new();
	struct fake_cmd *cmd;

	(void)state;
	c.sqe.cattr = 4;
	cmd = fake_connect_submit(fq, &c);
	assert_int_equal(cmd->status, 0);
	assert_int_equal(le16toh(cmd->req.cqe.sqhd), 0xffff);
	assert_true(fq->q.sqhd_disabled);
	fake_cmd_free(cmd);
	fake_close(fq);
}

static void the_head_pointer_wraps_at_the_queue_size(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN);
	unsigned int wraps = 0;

	(void)state;
	for (int i = 0; i < 100; i++) {
		uint16_t before = admin->q.sqhd;

		fake_csts(admin);
		wraps += admin->q.sqhd < before;
		assert_true(admin->q.sqhd < 32);
	}
	assert_int_equal(wraps, 3);
	fake_close(admin);
}

static void disconnect_deletes_an_io_queue_alone(void **state)
{
	const struct nvmf_connect_sqe sqe = { .opcode = nvme_admin_fabrics,
					      .fctype = nvme_fabrics_type_disconnect };
	const struct nvme_sqe read = { .opcode = NVME_CMD_READ, .nsid = 1, .cdw12 = htole32(512) };
	struct fake_queue *admin = fake_admin(FAKE_NQN), *io = fake_io(admin, 1), *again;

	(void)state;
	assert_int_equal(fake_do(admin, (const struct nvme_sqe *)&sqe, NULL, 0, NULL),
			 SPECIFIC | NVME_SC_DISCONNECT_INVALID_QTYPE | DNR);
	assert_int_equal(fake_do(io, (const struct nvme_sqe *)&sqe, NULL, 0, NULL), 0);
	assert_true(io->disconnected);
	assert_int_equal(fake_do(io, &read, NULL, 512, NULL), NVME_SC_CMD_SEQ_ERROR | DNR);
	again = fake_io(admin, 1); /* its id is free */
	fake_close(io);
	assert_int_equal(fake_do(again, &read, NULL, 512, NULL), 0);
	fake_close(again);
	fake_close(admin);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fake_test(every_wrong_field_of_an_admin_connect_is_named),
		fake_test(an_io_queue_must_be_its_hosts_and_controllers),
		fake_test(an_io_connect_before_enable_is_a_sequence_error),
		fake_test(a_queue_id_in_use_is_a_sequence_error),
		fake_test(a_second_connect_is_a_sequence_error),
		fake_test(nothing_goes_before_connect),
		fake_test(a_host_not_allowed_is_refused),
		fake_test(names_of_subsystems_and_hosts_are_judged),
		fake_test(a_subsystem_has_so_many_controllers),
		fake_test(a_connect_gives_the_id_that_identify_gives),
		fake_test(a_head_pointer_of_ones_says_flow_control_is_off),
		fake_test(the_head_pointer_wraps_at_the_queue_size),
		fake_test(disconnect_deletes_an_io_queue_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
