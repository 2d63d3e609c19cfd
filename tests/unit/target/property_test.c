/* SPDX-License-Identifier: MIT */
/* Properties: registers, enable, reset, shutdown. */
#include "target/fake.h"

#define SHST(csts) NVME_CSTS_SHST(csts)

static void registers_answer_in_their_width_alone(void **state)
{
	static const struct {
		uint32_t offset;
		uint8_t attrib;
		uint16_t status;
	} rows[] = {
		{ NVME_REG_CAP, 1, 0 },	       { NVME_REG_CAP, 0, INVALID },
		{ NVME_REG_VS, 0, 0 },	       { NVME_REG_VS, 1, INVALID },
		{ NVME_REG_CC, 0, 0 },	       { NVME_REG_CC, 1, INVALID },
		{ NVME_REG_CSTS, 0, 0 },       { NVME_REG_CSTS, 1, INVALID },
		{ NVME_REG_CRTO, 0, 0 },       { NVME_REG_CRTO, 1, INVALID },
		{ NVME_REG_CAP, 2, INVALID },  { NVME_REG_CAP + 4, 0, INVALID },
		{ NVME_REG_NSSR, 0, INVALID }, { NVME_REG_ASQ, 1, INVALID },
		{ 0x1000, 0, INVALID },	       { UINT32_MAX, 0, INVALID },
	};
	struct fake_queue *fq = fake_admin_kato(FAKE_NQN, 0);

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(fake_property_get(fq, rows[i].offset, rows[i].attrib, NULL),
				 rows[i].status);
	fake_close(fq);
}

static void capabilities_are_what_hosts_insist_on(void **state)
{
	struct fake_queue *fq = fake_admin_kato(FAKE_NQN, 0);
	uint64_t cap, vs, crto;

	(void)state;
	assert_int_equal(fake_property_get(fq, NVME_REG_CAP, 1, &cap), 0);
	assert_int_equal(fake_property_get(fq, NVME_REG_VS, 0, &vs), 0);
	assert_int_equal(fake_property_get(fq, NVME_REG_CRTO, 0, &crto), 0);
	assert_int_equal(NVME_CAP_MQES(cap), 127);
	assert_int_equal(NVME_CAP_CQR(cap), 1);
	assert_true(NVME_CAP_TO(cap) >= 15);
	assert_int_equal(NVME_CAP_CSS(cap), NVME_CAP_CSS_NVM | NVME_CAP_CSS_CSI);
	assert_int_equal(NVME_CAP_MPSMIN(cap), 0);
	assert_int_equal(NVME_CAP_MPSMAX(cap), 0);
	assert_int_equal(NVME_CAP_CRMS(cap), NVME_CAP_CRWMS);
	assert_true(NVME_CRTO_CRWMT(crto) >= NVME_CAP_TO(cap));
	assert_int_equal(vs, 0x20000);
	fake_close(fq);
}

static void configurations_are_judged(void **state)
{
	static const struct {
		uint32_t cc;
		uint16_t status;
	} rows[] = {
		{ 0x460061, 0 },	/* all command sets */
		{ 0x460001, 0 },	/* NVM */
		{ 0xfe460061, 0 },	/* reserved bits: dropped */
		{ 0x460071, INVALID },	/* CSS 7 */
		{ 0x460011, INVALID },	/* CSS 1 */
		{ 0x4600e1, INVALID },	/* MPS 1 */
		{ 0x460861, INVALID },	/* AMS 1 */
		{ 0x450061, INVALID },	/* IOSQES 5 */
		{ 0x360061, INVALID },	/* IOCQES 3 */
		{ 0x1460061, INVALID }, /* CRIME without CRIMS */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fake_queue *fq = fake_admin_kato(FAKE_NQN, 0);

		assert_int_equal(fake_property_set(fq, NVME_REG_CC, 0, rows[i].cc), rows[i].status);
		assert_int_equal(NVME_CSTS_RDY(fake_csts(fq)), !rows[i].status);
		fake_close(fq);
	}
}

static void only_cc_can_be_set(void **state)
{
	struct fake_queue *fq = fake_admin_kato(FAKE_NQN, 0);

	(void)state;
	assert_int_equal(fake_property_set(fq, NVME_REG_CSTS, 0, 0), INVALID);
	assert_int_equal(fake_property_set(fq, NVME_REG_NSSR, 0, 0x4e564d65), INVALID);
	assert_int_equal(fake_property_set(fq, NVME_REG_CC, 1, CC_ENABLE), INVALID);
	assert_int_equal(fake_property_set(fq, NVME_REG_CAP, 1, 0), INVALID);
	fake_close(fq);
}

static void admin_commands_wait_for_enable(void **state)
{
	const struct nvme_sqe sqe = { .opcode = nvme_admin_identify, .cdw10 = htole32(1) };
	struct fake_queue *fq = fake_admin_kato(FAKE_NQN, 0);

	(void)state;
	assert_int_equal(fake_do(fq, &sqe, NULL, 4096, NULL), NVME_SC_CMD_SEQ_ERROR | DNR);
	assert_int_equal(fake_property_set(fq, NVME_REG_CC, 0, CC_ENABLE), 0);
	assert_int_equal(fake_do(fq, &sqe, NULL, 4096, NULL), 0);
	fake_close(fq);
}

static void a_reset_controller_executes_nothing(void **state)
{
	const struct nvme_sqe sqe = { .opcode = nvme_admin_identify, .cdw10 = htole32(1) };
	struct fake_queue *admin = fake_admin(FAKE_NQN), *late = fake_queue_new();
	struct fake_connect c = fake_connect_args(FAKE_NQN, 1, admin->q.ctrl->cntlid);

	(void)state;
	assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_DISABLE), 0);
	assert_int_equal(fake_do(admin, &sqe, NULL, 4096, NULL), NVME_SC_CMD_SEQ_ERROR | DNR);
	assert_int_equal(fake_connect(late, &c, NULL), NVME_SC_CMD_SEQ_ERROR | DNR);
	assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_ENABLE), 0);
	assert_int_equal(fake_do(admin, &sqe, NULL, 4096, NULL), 0);
	fake_close(late);
	fake_close(admin);
}

static void reset_is_over_when_the_io_queues_are_gone(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN), *io = fake_io(admin, 1);

	(void)state;
	assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_DISABLE), 0);
	assert_true(io->disconnected);
	assert_false(admin->disconnected);
	assert_int_equal(NVME_CSTS_RDY(fake_csts(admin)), 1);
	assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_ENABLE),
			 NVME_SC_CMD_SEQ_ERROR);
	fake_close(io);
	assert_int_equal(NVME_CSTS_RDY(fake_csts(admin)), 0);
	assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_ENABLE), 0);
	io = fake_io(admin, 1);
	fake_close(io);
	fake_close(admin);
}

static void shutdown_is_complete_when_all_is_flushed(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN), *io = fake_io(admin, 1);

	(void)state;
	fake.hold = true;
	assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_ENABLE | 1u << 14), 0);
	assert_true(io->disconnected);
	assert_int_equal(SHST(fake_csts(admin)), NVME_CSTS_SHST_OCCUR);
	assert_int_equal(fake.flushes, 0);
	fake_close(io);
	assert_int_equal(fake.flushes, 2);
	assert_int_equal(SHST(fake_csts(admin)), NVME_CSTS_SHST_OCCUR);
	tgt_req_complete(fake.held[0], 0);
	assert_int_equal(SHST(fake_csts(admin)), NVME_CSTS_SHST_OCCUR);
	tgt_req_complete(fake.held[1], 0);
	assert_int_equal(SHST(fake_csts(admin)), NVME_CSTS_SHST_CMPLT);
	assert_int_equal(NVME_CSTS_RDY(fake_csts(admin)), 1);
	fake_close(admin);
}

static void each_shutdown_flushes(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN);

	(void)state;
	for (unsigned int i = 1; i <= 2; i++) {
		assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_ENABLE | 1u << 14), 0);
		assert_int_equal(SHST(fake_csts(admin)), NVME_CSTS_SHST_CMPLT);
		assert_int_equal(fake.flushes, 2 * i);
		assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_DISABLE), 0);
		assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_ENABLE), 0);
	}
	fake_close(admin);
}

/* The host closes its admin queue first: the flush waits for the I/O queue all the same. */
static void a_shutdown_outlives_its_admin_queue(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN), *io = fake_io(admin, 1);

	(void)state;
	assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_ENABLE | 1u << 14), 0);
	fake_close(admin);
	assert_int_equal(fake.flushes, 0);
	fake_close(io);
	assert_int_equal(fake.flushes, 2);
}

static void a_shutdown_that_may_not_flush_ends_too(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN);

	(void)state;
	log_level(-1);
	fake.flush_refusal = NVME_SC_INTERNAL;
	assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_ENABLE | 1u << 14), 0);
	assert_int_equal(SHST(fake_csts(admin)), NVME_CSTS_SHST_CMPLT);
	assert_int_equal(NVME_CSTS_CFS(fake_csts(admin)), 1);
	fake_close(admin);
}

static void a_shutdown_that_could_not_flush_is_a_fatal_status(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN);

	(void)state;
	log_level(-1);
	fake.flush_status = NVME_SC_INTERNAL;
	assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_ENABLE | 1u << 14), 0);
	assert_int_equal(SHST(fake_csts(admin)), NVME_CSTS_SHST_CMPLT);
	assert_int_equal(NVME_CSTS_CFS(fake_csts(admin)), 1);
	fake_close(admin);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fake_test(registers_answer_in_their_width_alone),
		fake_test(capabilities_are_what_hosts_insist_on),
		fake_test(configurations_are_judged),
		fake_test(only_cc_can_be_set),
		fake_test(admin_commands_wait_for_enable),
		fake_test(a_reset_controller_executes_nothing),
		fake_test(reset_is_over_when_the_io_queues_are_gone),
		fake_test(shutdown_is_complete_when_all_is_flushed),
		fake_test(each_shutdown_flushes),
		fake_test(a_shutdown_outlives_its_admin_queue),
		fake_test(a_shutdown_that_may_not_flush_ends_too),
		fake_test(a_shutdown_that_could_not_flush_is_a_fatal_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
