/* SPDX-License-Identifier: MIT */
/* Discovery: what is listed, to whom, and that a change is told. */
#include "target/fake.h"

struct page {
	struct {
		__le64 genctr, numrec;
		__le16 recfmt;
		uint8_t rsvd[1006];
	} head;
	struct nvmf_disc_log_entry entries[3];
};

static uint16_t read_log(struct fake_queue *fq, uint32_t len, uint64_t offset, void *out)
{
	const struct nvme_sqe sqe = { .opcode = nvme_admin_get_log_page,
				      .cdw10 = htole32(0x70 | (len / 4 - 1) << 16),
				      .cdw12 = htole32((uint32_t)offset),
				      .cdw13 = htole32((uint32_t)(offset >> 32)) };

	return fake_do(fq, &sqe, out, len, NULL);
}

static void a_subsystem_is_listed_at_each_port(void **state)
{
	static struct tgt_port second = { 9, NVMF_ADDR_FAMILY_IP6, "2001:db8::1", "8009", NULL };
	struct fake_queue *fq;
	struct page page;

	(void)state;
	tgt_port_add(fake.tgt, &second);
	fq = fake_admin(NVME_DISC_SUBSYS_NAME);
	assert_int_equal(read_log(fq, sizeof(page), 0, &page), 0);
	assert_int_equal(le64toh(page.head.numrec), 2);
	assert_int_equal(page.head.recfmt, 0);
	assert_string_equal(page.entries[0].subnqn, FAKE_NQN);
	assert_int_equal(page.entries[0].trtype, NVMF_TRTYPE_TCP);
	assert_int_equal(page.entries[0].adrfam, NVMF_ADDR_FAMILY_IP4);
	assert_int_equal(page.entries[0].subtype, 2);
	assert_int_equal(le16toh(page.entries[0].portid), 7);
	assert_int_equal(le16toh(page.entries[0].cntlid), 0xffff);
	assert_int_equal(le16toh(page.entries[0].asqsz), 32);
	assert_memory_equal(page.entries[0].traddr, "192.0.2.1 ", 10);
	assert_memory_equal(page.entries[0].trsvcid, "4420 ", 5);
	assert_int_equal(page.entries[1].adrfam, NVMF_ADDR_FAMILY_IP6);
	assert_memory_equal(page.entries[1].traddr, "2001:db8::1 ", 12);
	assert_int_equal(page.entries[2].subnqn[0], 0);
	fake_close(fq);
}

static void pieces_are_those_of_the_whole(void **state)
{
	struct fake_queue *fq = fake_admin(NVME_DISC_SUBSYS_NAME);
	uint8_t whole[2048], piece[1024];

	(void)state;
	assert_int_equal(read_log(fq, sizeof(whole), 0, whole), 0);
	for (uint32_t off = 0; off <= 1024; off += 4) {
		assert_int_equal(read_log(fq, sizeof(piece), off, piece), 0);
		assert_memory_equal(piece, whole + off, sizeof(piece));
	}
	assert_int_equal(read_log(fq, 4, 2048, piece), 0);
	assert_int_equal(read_log(fq, 4, 2052, piece), INVALID);
	assert_int_equal(read_log(fq, 4, UINT64_MAX - 3, piece), INVALID);
	assert_int_equal(read_log(fq, 4, 2, piece), INVALID);
	fake_close(fq);
}

static void a_host_sees_what_it_may_use(void **state)
{
	struct fake_queue *fq = fake_admin(NVME_DISC_SUBSYS_NAME);
	struct nvmf_discovery_log before, after;

	(void)state;
	assert_int_equal(read_log(fq, sizeof(before), 0, &before), 0);
	assert_int_equal(le64toh(before.numrec), 1);
	assert_int_equal(tgt_subsys_allow_host(fake.subsys, FAKE_HOSTNQN "2"), 0);
	assert_int_equal(read_log(fq, sizeof(after), 0, &after), 0);
	assert_int_equal(le64toh(after.numrec), 0);
	assert_true(le64toh(after.genctr) > le64toh(before.genctr));
	fake_close(fq);
}

static void a_port_on_all_addresses_is_told_by_the_one_used(void **state)
{
	static struct tgt_port all, used;
	struct fake_queue *fq;
	struct page page;

	(void)state;
	all = (struct tgt_port){ 8, NVMF_ADDR_FAMILY_IP4, "0.0.0.0", "4420", NULL };
	used = all;
	strcpy(used.traddr, "198.51.100.7");
	tgt_port_add(fake.tgt, &all);
	fq = fake_admin(NVME_DISC_SUBSYS_NAME);
	fq->q.port = &used;
	assert_int_equal(read_log(fq, sizeof(page), 0, &page), 0);
	assert_memory_equal(page.entries[1].traddr, "198.51.100.7 ", 13);
	fake_close(fq);
}

static void a_change_is_told(void **state)
{
	const struct nvme_sqe want = { .opcode = nvme_admin_set_features,
				       .cdw10 = htole32(0x0b),
				       .cdw11 = htole32(AEC_DISCOVERY) };
	const struct nvme_sqe aer = { .opcode = nvme_admin_async_event };
	struct fake_queue *fq = fake_admin(NVME_DISC_SUBSYS_NAME);
	struct fake_cmd *cmd;
	char err[256];

	(void)state;
	assert_int_equal(fake_do(fq, &want, NULL, 0, NULL), 0);
	cmd = fake_submit(fq, &aer, 0);
	assert_non_null(tgt_subsys_get(fake.tgt, FAKE_NQN "2", err, sizeof(err)));
	pump();
	assert_int_equal(cmd->status, 0);
	assert_int_equal(cmd->result, 0x70f002);
	fake_cmd_free(cmd);
	fake_close(fq);
}

static void it_is_a_discovery_controller_and_no_more(void **state)
{
	const struct nvme_sqe identify = { .opcode = nvme_admin_identify, .cdw10 = htole32(1) };
	const struct nvme_sqe list = { .opcode = nvme_admin_identify, .cdw10 = htole32(2) };
	const struct nvme_sqe keep = { .opcode = nvme_admin_keep_alive };
	const struct nvme_sqe abort = { .opcode = nvme_admin_abort_cmd };
	struct fake_queue *fq = fake_admin_kato(NVME_DISC_SUBSYS_NAME, 0), *io = fake_queue_new();
	struct fake_connect c = fake_connect_args(NVME_DISC_SUBSYS_NAME, 1, fq->q.ctrl->cntlid);
	struct nvme_id_ctrl id;

	(void)state;
	/* Entry sizes are not its business. */
	assert_int_equal(fake_property_set(fq, NVME_REG_CC, 0, 1), 0);
	assert_int_equal(fake_do(fq, &identify, &id, 4096, NULL), 0);
	assert_int_equal(id.cntrltype, NVME_CTRL_CNTRLTYPE_DISCOVERY);
	assert_int_equal(le32toh(id.oaes), 1u << 31);
	assert_string_equal(id.subnqn, NVME_DISC_SUBSYS_NAME);
	assert_int_equal(fake_do(fq, &list, NULL, 4096, NULL), INVALID);
	assert_int_equal(fake_do(fq, &keep, NULL, 0, NULL), 0);
	assert_int_equal(fake_do(fq, &abort, NULL, 0, NULL), NVME_SC_INVALID_OPCODE | DNR);
	assert_int_equal(fake_connect(io, &c, NULL),
			 SPECIFIC | NVME_SC_CONNECT_INVALID_PARAM | DNR);
	fake_close(io);
	fake_close(fq);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fake_test(a_subsystem_is_listed_at_each_port),
		fake_test(pieces_are_those_of_the_whole),
		fake_test(a_host_sees_what_it_may_use),
		fake_test(a_port_on_all_addresses_is_told_by_the_one_used),
		fake_test(a_change_is_told),
		fake_test(it_is_a_discovery_controller_and_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
