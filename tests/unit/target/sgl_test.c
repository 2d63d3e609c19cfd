/* SPDX-License-Identifier: MIT */
/* What a command's header may say: SGL, PSDT, fused bits, namespace, opcode. */
#include "target/fake.h"

#define LENGTH (NVME_SC_SGL_INVALID_DATA | DNR)
#define TYPE   (NVME_SC_SGL_INVALID_TYPE | DNR)

static void a_descriptor_agrees_with_its_command(void **state)
{
	static const struct {
		uint8_t opcode, type;
		uint32_t moves, length, in_capsule;
		uint64_t addr;
		uint16_t status;
	} rows[] = {
		{ NVME_CMD_WRITE, 0x5a, 4096, 4096, 0, 0, 0 },
		{ NVME_CMD_WRITE, 0x5a, 4096, 4096, 0, 99, 0 }, /* the address means nothing */
		{ NVME_CMD_WRITE, 0x5a, 4096, 4095, 0, 0, LENGTH },
		{ NVME_CMD_WRITE, 0x5a, 4096, 8192, 0, 0, LENGTH },
		{ NVME_CMD_WRITE, 0x5a, 4096, 0xffffffff, 0, 0, LENGTH },
		{ NVME_CMD_WRITE, 0x5a, 4096, 4096, 4096, 0, LENGTH },
		{ NVME_CMD_WRITE, 0x01, 4096, 4096, 4096, 0, 0 },
		{ NVME_CMD_WRITE, 0x01, 8192, 8192, 8192, 0, 0 },
		{ NVME_CMD_WRITE, 0x01, 12288, 12288, 12288, 0, LENGTH },
		{ NVME_CMD_WRITE, 0x01, 4096, 4096, 0, 0, LENGTH },
		{ NVME_CMD_WRITE, 0x01, 4096, 4096, 4092, 0, LENGTH },
		{ NVME_CMD_WRITE, 0x01, 4096, 4096, 4096, 4, NVME_SC_SGL_INVALID_OFFSET | DNR },
		{ NVME_CMD_WRITE, 0x00, 4096, 4096, 4096, 0, TYPE },
		{ NVME_CMD_WRITE, 0x20, 4096, 4096, 4096, 0, TYPE },
		{ NVME_CMD_WRITE, 0x31, 4096, 4096, 4096, 0, TYPE },
		{ NVME_CMD_WRITE, 0x40, 4096, 4096, 4096, 0, TYPE },
		{ NVME_CMD_WRITE, 0x51, 4096, 4096, 0, 0, TYPE },
		{ NVME_CMD_WRITE, 0xff, 4096, 4096, 0, 0, TYPE },
		{ NVME_CMD_READ, 0x5a, 4096, 4096, 0, 0, 0 },
		{ NVME_CMD_READ, 0x01, 4096, 4096, 4096, 0, TYPE },
		{ NVME_CMD_READ, 0x5a, 4096, 4096, 512, 0, LENGTH },
		{ NVME_CMD_READ, 0x5a, TGT_MAX_TRANSFER, TGT_MAX_TRANSFER, 0, 0, 0 },
		{ NVME_CMD_READ, 0x5a, TGT_MAX_TRANSFER + 4096, TGT_MAX_TRANSFER + 4096, 0, 0,
		  INVALID },
		{ NVME_CMD_FLUSH, 0x5a, 0, 0, 0, 0, 0 },
		{ NVME_CMD_FLUSH, 0x00, 0, 0, 0, 0, 0 },
		{ NVME_CMD_FLUSH, 0x5a, 0, 512, 0, 0, LENGTH },
		{ NVME_CMD_FLUSH, 0x01, 0, 0, 512, 0, LENGTH },
	};
	struct fake_queue *admin = fake_admin(FAKE_NQN), *io = fake_io(admin, 1);
	uint8_t *data = calloc(1, 12288);

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct nvme_sqe sqe = {
			.opcode = rows[i].opcode,
			.flags = NVME_SQE_PSDT_SGL,
			.nsid = htole32(1),
			.cdw12 = htole32(rows[i].moves),
			.dptr = { .type = rows[i].type,
				  .length = htole32(rows[i].length),
				  .addr = htole64(rows[i].addr) },
		};
		struct fake_cmd *cmd = fake_submit_data(io, &sqe, data, rows[i].in_capsule);

		if (cmd->status != rows[i].status)
			fail_msg("row %zu: status %#x", i, cmd->status);
		fake_cmd_free(cmd);
	}
	free(data);
	fake_close(io);
	fake_close(admin);
}

static void a_header_is_judged(void **state)
{
	static const struct {
		uint8_t opcode, flags;
		uint32_t nsid;
		uint16_t status;
	} rows[] = {
		{ NVME_CMD_FLUSH, 0x40, 1, 0 },
		{ NVME_CMD_FLUSH, 0x00, 1, INVALID }, /* PRP */
		{ NVME_CMD_FLUSH, 0x80, 1, INVALID },
		{ NVME_CMD_FLUSH, 0x41, 1, INVALID }, /* fused, first */
		{ NVME_CMD_FLUSH, 0x42, 1, INVALID }, /* fused, second */
		{ NVME_CMD_FLUSH, 0x40, 0, NVME_SC_INVALID_NS | DNR },
		{ NVME_CMD_FLUSH, 0x40, 2, NVME_SC_INVALID_NS | DNR },
		{ NVME_CMD_FLUSH, 0x40, 1025, NVME_SC_INVALID_NS | DNR },
		{ NVME_CMD_READ, 0x40, 0xffffffff, NVME_SC_INVALID_NS | DNR },
		{ 0x99, 0x40, 1, NVME_SC_INVALID_OPCODE | DNR },
		{ nvme_admin_fabrics, 0x40, 0x99, NVME_SC_INVALID_OPCODE | DNR }, /* FCTYPE */
		{ nvme_admin_fabrics, 0x40, nvme_fabrics_type_property_get,
		  NVME_SC_INVALID_OPCODE | DNR },
	};
	struct fake_queue *admin = fake_admin(FAKE_NQN), *io = fake_io(admin, 1);

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct nvme_sqe sqe = { .opcode = rows[i].opcode,
					      .flags = rows[i].flags,
					      .nsid = htole32(rows[i].nsid),
					      .dptr = { .type = NVME_SGL_TRANSPORT } };
		struct fake_cmd *cmd = fake_submit_data(io, &sqe, NULL, 0);

		if (cmd->status != rows[i].status)
			fail_msg("row %zu: status %#x", i, cmd->status);
		fake_cmd_free(cmd);
	}
	fake_close(io);
	fake_close(admin);
}

static void admin_opcodes_there_are_not_are_invalid(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);

	(void)state;
	for (unsigned int opcode = 0; opcode < 256; opcode++) {
		const struct nvme_sqe sqe = { .opcode = (uint8_t)opcode };
		bool known = opcode == 0x02 || opcode == 0x06 || opcode == 0x08 || opcode == 0x09 ||
			     opcode == 0x0a || opcode == 0x0c || opcode == 0x18 || opcode == 0x7f;

		if (!known)
			assert_int_equal(fake_do(fq, &sqe, NULL, 0, NULL),
					 NVME_SC_INVALID_OPCODE | DNR);
	}
	fake_close(fq);
}

static void zones_need_their_command_set_enabled(void **state)
{
	const struct nvme_sqe zns = { .opcode = NVME_CMD_FLUSH, .nsid = 1 };
	const struct nvme_sqe nvm = { .opcode = NVME_CMD_FLUSH, .nsid = 3 };
	struct fake_queue *admin = fake_admin_kato(FAKE_NQN, 0), *io;

	(void)state;
	assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, 0x460001), 0);
	io = fake_io(admin, 1);
	assert_int_equal(fake_do(io, &zns, NULL, 0, NULL),
			 SPECIFIC | NVME_SC_IOCS_NOT_ENABLED | DNR);
	assert_int_equal(fake_do(io, &nvm, NULL, 0, NULL), 0);
	fake_close(io);
	fake_close(admin);
}

static void identify_of_more_than_there_is_is_refused(void **state)
{
	const struct nvme_sqe sqe = { .opcode = nvme_admin_identify, .cdw10 = htole32(1) };
	struct fake_queue *fq = fake_admin(FAKE_NQN);

	(void)state;
	assert_int_equal(fake_do(fq, &sqe, NULL, 0x2000, NULL), LENGTH);
	assert_int_equal(fake_do(fq, &sqe, NULL, 0, NULL), LENGTH);
	fake_close(fq);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fake_test(a_descriptor_agrees_with_its_command),
		fake_test(a_header_is_judged),
		fake_test(admin_opcodes_there_are_not_are_invalid),
		fake_test(zones_need_their_command_set_enabled),
		fake_test(identify_of_more_than_there_is_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
