/* SPDX-License-Identifier: MIT */
/* Identify: each CNS against each class of NSID, and what the structures say. */
#include "target/fake.h"

#define INVALID_NS (NVME_SC_INVALID_NS | DNR)
#define ZEROES	   1 /* not a status we give: success, and all zero */

static uint16_t identify(struct fake_queue *fq, uint32_t cdw10, uint32_t csi, uint32_t nsid,
			 void *out)
{
	const struct nvme_sqe sqe = { .opcode = nvme_admin_identify,
				      .nsid = htole32(nsid),
				      .cdw10 = htole32(cdw10),
				      .cdw11 = htole32(csi << 24) };

	return fake_do(fq, &sqe, out, 4096, NULL);
}

static bool all_zero(const uint8_t *data)
{
	for (int i = 0; i < 4096; i++)
		if (data[i])
			return false;
	return true;
}

/* The namespaces are 1 (ZNS) and 3 (NVM). */
static const struct {
	uint8_t cns, csi;
	uint16_t zero, active, inactive, last, above, fffffffe, all; /* by NSID */
} rows[] = {
	{ 0x00, 0, INVALID_NS, 0, ZEROES, ZEROES, INVALID_NS, INVALID_NS, INVALID_NS },
	{ 0x01, 0, 0, 0, 0, 0, 0, 0, 0 },
	{ 0x02, 0, 0, 0, 0, ZEROES, ZEROES, INVALID_NS, INVALID_NS },
	{ 0x03, 0, INVALID_NS, 0, INVALID, INVALID, INVALID_NS, INVALID_NS, INVALID_NS },
	{ 0x05, 2, INVALID_NS, 0, ZEROES, ZEROES, INVALID_NS, INVALID_NS, INVALID_NS },
	{ 0x05, 0, INVALID_NS, INVALID, ZEROES, ZEROES, INVALID_NS, INVALID_NS, INVALID_NS },
	{ 0x05, 1, INVALID, INVALID, INVALID, INVALID, INVALID, INVALID, INVALID },
	{ 0x06, 0, 0, 0, 0, 0, 0, 0, 0 },
	{ 0x06, 2, 0, 0, 0, 0, 0, 0, 0 },
	{ 0x06, 1, INVALID, INVALID, INVALID, INVALID, INVALID, INVALID, INVALID },
	{ 0x07, 2, 0, ZEROES, ZEROES, ZEROES, ZEROES, INVALID_NS, INVALID_NS },
	{ 0x07, 0, 0, 0, 0, ZEROES, ZEROES, INVALID_NS, INVALID_NS },
	{ 0x07, 9, INVALID, INVALID, INVALID, INVALID, INVALID, INVALID, INVALID },
	{ 0x08, 0, INVALID_NS, 0, ZEROES, ZEROES, INVALID_NS, INVALID_NS, INVALID_NS },
	{ 0x04, 0, INVALID, INVALID, INVALID, INVALID, INVALID, INVALID, INVALID },
	{ 0x10, 0, 0, 0, 0, ZEROES, ZEROES, INVALID_NS, INVALID_NS },
	{ 0x11, 0, INVALID_NS, 0, ZEROES, ZEROES, INVALID_NS, INVALID_NS, INVALID_NS },
	{ 0x12, 0, INVALID_NS, 0, INVALID, INVALID, INVALID_NS, INVALID_NS, INVALID_NS },
	{ 0x13, 0, 0, 0, 0, 0, 0, 0, 0 },
	{ 0x1d, 0, INVALID, INVALID, INVALID, INVALID, INVALID, INVALID, INVALID },
	{ 0xff, 0, INVALID, INVALID, INVALID, INVALID, INVALID, INVALID, INVALID },
};

static void every_cns_judges_its_nsid(void **state)
{
	static const uint32_t nsids[7] = { 0,	       1,	  2, TGT_NSID_MAX, TGT_NSID_MAX + 1,
					   0xfffffffe, 0xffffffff };
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	uint8_t data[4096];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const uint16_t *want = &rows[i].zero;

		for (int j = 0; j < 7; j++) {
			uint16_t status = identify(fq, rows[i].cns, rows[i].csi, nsids[j], data);

			if (status != (want[j] == ZEROES ? 0 : want[j]) ||
			    (!status && all_zero(data) != (want[j] == ZEROES)))
				fail_msg("CNS %02xh CSI %u NSID %#x: status %#x", rows[i].cns,
					 rows[i].csi, nsids[j], status);
		}
	}
	fake_close(fq);
}

static void the_controller_is_what_linux_insists_on(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	struct nvme_id_ctrl id;

	(void)state;
	assert_int_equal(identify(fq, 1, 0, 0, &id), 0);
	assert_int_equal(le32toh(id.ioccsz), (64 + 8192) / 16);
	assert_int_equal(le32toh(id.iorcsz), 1);
	assert_int_equal(id.icdoff, 0);
	assert_int_equal(id.msdbd, 1);
	assert_int_equal(le16toh(id.maxcmd), 128);
	assert_int_equal(le16toh(id.kas), 10);
	assert_int_equal(le32toh(id.sgls) & 3, 1);
	assert_true(le32toh(id.sgls) & 1u << 20);
	assert_int_equal(id.sqes, 0x66);
	assert_int_equal(id.cqes, 0x44);
	assert_int_equal(id.mdts, 8);
	assert_int_equal(id.cntrltype, NVME_CTRL_CNTRLTYPE_IO);
	assert_int_equal(id.vwc, 7);
	assert_int_equal(id.lpa & 6, 6);
	assert_int_equal(le32toh(id.oaes), 1u << 8);
	assert_int_equal(le32toh(id.nn), 1024);
	assert_int_equal(id.aerl, 3);
	assert_true(id.cmic & 2);
	assert_string_equal(id.subnqn, FAKE_NQN);
	assert_memory_equal(id.mn, "znsd    ", 8);
	assert_memory_equal(id.fr, ZNSD_VERSION "        ", 8);
	assert_int_equal(id.sn[19], ' ');
	fake_close(fq);
}

static void the_descriptor_list_has_the_command_set(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	uint8_t data[4096];

	(void)state;
	assert_int_equal(identify(fq, 3, 0, 1, data), 0);
	assert_int_equal(data[0], NVME_NIDT_NGUID);
	assert_int_equal(data[1], 16);
	assert_memory_equal(data + 4, fake_ns[1].nguid, 16);
	assert_int_equal(data[20], NVME_NIDT_UUID);
	assert_memory_equal(data + 24, fake_ns[1].uuid, 16);
	assert_int_equal(data[40], NVME_NIDT_CSI);
	assert_int_equal(data[41], 1);
	assert_int_equal(data[44], NVME_CSI_ZNS);
	assert_int_equal(data[45], 0);
	fake_close(fq);
}

static void a_read_only_namespace_says_so(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	struct nvme_id_ns id;

	(void)state;
	assert_int_equal(identify(fq, 0, 0, 1, &id), 0);
	assert_int_equal(id.nsattr & 1, 0);
	fake_ns[1].read_only = true;
	assert_int_equal(identify(fq, 0, 0, 1, &id), 0);
	assert_int_equal(id.nsattr & 1, 1);
	fake_close(fq);
}

static void lists_begin_above_the_nsid(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	__le32 list[1024];

	(void)state;
	assert_int_equal(identify(fq, 2, 0, 0, list), 0);
	assert_int_equal(list[0], htole32(1));
	assert_int_equal(list[1], htole32(3));
	assert_int_equal(list[2], 0);
	assert_int_equal(identify(fq, 2, 0, 1, list), 0);
	assert_int_equal(list[0], htole32(3));
	assert_int_equal(list[1], 0);
	assert_int_equal(identify(fq, 7, NVME_CSI_NVM, 0, list), 0);
	assert_int_equal(list[0], htole32(3));
	fake_close(fq);
}

static void controllers_are_listed_in_order(void **state)
{
	struct fake_queue *a = fake_admin(FAKE_NQN), *b = fake_admin(FAKE_NQN);
	struct nvme_ctrl_list list;

	(void)state;
	assert_int_equal(identify(a, 0x13, 0, 0, &list), 0);
	assert_int_equal(le16toh(list.num), 2);
	assert_int_equal(le16toh(list.identifier[0]), a->q.ctrl->cntlid);
	assert_int_equal(le16toh(list.identifier[1]), b->q.ctrl->cntlid);
	assert_int_equal(identify(a, 0x13 | (uint32_t)b->q.ctrl->cntlid << 16, 0, 0, &list), 0);
	assert_int_equal(le16toh(list.num), 1);
	fake_close(a);
	fake_close(b);
}

static void the_combination_of_command_sets_is_one(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	struct nvme_id_iocs id;

	(void)state;
	assert_int_equal(identify(fq, 0xffff001c, 0, 0, &id), 0);
	assert_int_equal(le64toh(id.iocsc[0]), 5);
	assert_int_equal(id.iocsc[1], 0);
	assert_int_equal(identify(fq, 0x7777001c, 0, 0, &id), INVALID);
	fake_close(fq);
}

static void a_twin_is_refused_in_every_subsystem(void **state)
{
	static struct tgt_ns twin = { .set = &fake_zns };
	struct tgt_subsys *other;
	char err[256] = "";

	(void)state;
	other = tgt_subsys_get(fake.tgt, FAKE_NQN "2", err, sizeof(err));
	memcpy(twin.nguid, fake_ns[1].nguid, sizeof(twin.nguid));
	assert_int_equal(tgt_ns_add(other, &twin, err, sizeof(err)), -EEXIST);
	assert_non_null(strstr(err, "namespace 1 of " FAKE_NQN));
	memset(&twin.nguid, 0x77, sizeof(twin.nguid));
	memcpy(twin.uuid, fake_ns[3].uuid, sizeof(twin.uuid));
	assert_int_equal(tgt_ns_add(other, &twin, err, sizeof(err)), -EEXIST);
	memset(&twin.uuid, 0x78, sizeof(twin.uuid));
	assert_int_equal(tgt_ns_add(fake.subsys, &twin, err, sizeof(err)), 0);
	assert_int_equal(twin.nsid, 2); /* the lowest free one */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fake_test(every_cns_judges_its_nsid),
		fake_test(the_controller_is_what_linux_insists_on),
		fake_test(the_descriptor_list_has_the_command_set),
		fake_test(a_read_only_namespace_says_so),
		fake_test(lists_begin_above_the_nsid),
		fake_test(controllers_are_listed_in_order),
		fake_test(the_combination_of_command_sets_is_one),
		fake_test(a_twin_is_refused_in_every_subsystem),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
