/* SPDX-License-Identifier: MIT */
/* Features: what can be had, set, and not saved. */
#include "target/fake.h"

static uint16_t set(struct fake_queue *fq, uint32_t fid, uint32_t value, uint32_t nsid,
		    uint64_t *result)
{
	const struct nvme_sqe sqe = { .opcode = nvme_admin_set_features,
				      .nsid = htole32(nsid),
				      .cdw10 = htole32(fid),
				      .cdw11 = htole32(value) };

	return fake_do(fq, &sqe, NULL, 0, result);
}

static uint16_t get(struct fake_queue *fq, uint32_t fid, uint32_t select, uint64_t *result)
{
	const struct nvme_sqe sqe = { .opcode = nvme_admin_get_features,
				      .cdw10 = htole32(fid | select << 8) };

	return fake_do(fq, &sqe, NULL, 0, result);
}

static void values_are_remembered_and_defaults_kept(void **state)
{
	static const struct {
		uint8_t fid;
		uint32_t initial, value;
	} rows[] = { { 0x01, 0, 0x01020307 }, { 0x02, 0, 0x20 }, { 0x04, 343, 340 },
		     { 0x05, 0, 77 },	      { 0x0a, 0, 1 },	 { 0x0b, 0, 0x100 } };
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	uint64_t result;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(get(fq, rows[i].fid, 0, &result), 0);
		assert_int_equal(result, rows[i].initial);
		assert_int_equal(set(fq, rows[i].fid, rows[i].value, 0, NULL), 0);
		assert_int_equal(get(fq, rows[i].fid, 0, &result), 0);
		assert_int_equal(result, rows[i].value);
		for (uint32_t select = 1; select <= 2; select++) {
			assert_int_equal(get(fq, rows[i].fid, select, &result), 0);
			assert_int_equal(result, rows[i].initial);
		}
		assert_int_equal(get(fq, rows[i].fid, 3, &result), 0);
		assert_int_equal(result, 4); /* changeable; not saveable, not per namespace */
		assert_int_equal(get(fq, rows[i].fid, 4, &result), INVALID);
	}
	assert_int_equal(fake_property_set(fq, NVME_REG_CC, 0, CC_DISABLE), 0);
	assert_int_equal(fake_property_set(fq, NVME_REG_CC, 0, CC_ENABLE), 0);
	assert_int_equal(get(fq, 0x0b, 0, &result), 0);
	assert_int_equal(result, 0); /* a reset forgets */
	fake_close(fq);
}

static void each_feature_tells_whether_it_can_be_set(void **state)
{
	static const uint8_t fixed[] = { 0x06, 0x81 };
	static const uint8_t changeable[] = {
		0x01, 0x02, 0x04, 0x05, 0x07, 0x0a, 0x0b, 0x0f, 0x19
	};
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	uint64_t result;

	(void)state;
	for (size_t i = 0; i < sizeof(fixed); i++) {
		assert_int_equal(get(fq, fixed[i], 3, &result), 0);
		assert_int_equal(result, 0);
	}
	for (size_t i = 0; i < sizeof(changeable); i++) {
		assert_int_equal(get(fq, changeable[i], 3, &result), 0);
		assert_int_equal(result, 4);
	}
	fake_close(fq);
}

static void what_cannot_be_set_is_refused_by_its_reason(void **state)
{
	static const struct {
		uint32_t fid, value, nsid;
		uint16_t status;
	} rows[] = {
		{ 0x80000001, 0, 0, SPECIFIC | NVME_SC_FEATURE_NOT_SAVEABLE | DNR },
		{ 0x01, 0, 1, SPECIFIC | NVME_SC_FEATURE_NOT_PER_NS | DNR },
		{ 0x01, 0, 0xffffffff, 0 },
		{ 0x02, 1, 0, INVALID }, /* power state 1 */
		{ 0x03, 0, 0, INVALID }, /* unknown */
		{ 0x06, 1, 0, 0 },	 /* the write cache is on, and stays */
		{ 0x06, 0, 0, SPECIFIC | NVME_SC_FEATURE_NOT_CHANGEABLE | DNR },
		{ 0x07, 0xffff, 0, INVALID },
		{ 0x07, 0xffff0000, 0, INVALID },
		{ 0x0b, 1u << 9, 0, INVALID },
		{ 0x0b, 1u << 31, 0, INVALID },
		{ 0x19, 1, 0, SPECIFIC | NVME_SC_IOCS_COMBINATION_REJECTED | DNR },
		{ 0x19, 0, 0, 0 },
		{ 0x81, 1, 0, NVME_SC_CMD_SEQ_ERROR | DNR },
		{ 0xff, 0, 0, INVALID },
	};
	struct fake_queue *fq = fake_admin(FAKE_NQN);

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (set(fq, rows[i].fid, rows[i].value, rows[i].nsid, NULL) != rows[i].status)
			fail_msg("feature %#x value %#x", rows[i].fid, rows[i].value);
	fake_close(fq);
}

static void the_temperature_has_two_thresholds(void **state)
{
	const uint32_t under = 1u << 20;
	struct nvme_sqe sqe = { .opcode = nvme_admin_get_features, .cdw10 = htole32(4) };
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	uint64_t result;

	(void)state;
	assert_int_equal(set(fq, 4, under | 280, 0, NULL), 0);
	assert_int_equal(set(fq, 4, 0xfu << 16 | 340, 0, NULL), 0); /* all sensors: there is one */
	assert_int_equal(get(fq, 4, 0, &result), 0);
	assert_int_equal(result, 340);
	sqe.cdw11 = htole32(under);
	assert_int_equal(fake_do(fq, &sqe, NULL, 0, &result), 0);
	assert_int_equal(result, 280);
	assert_int_equal(set(fq, 4, 2u << 20 | 280, 0, NULL), INVALID); /* no such threshold */
	assert_int_equal(set(fq, 4, 1u << 16 | 280, 0, NULL), INVALID); /* no such sensor */
	fake_close(fq);
}

static void the_number_of_queues_is_settled_before_there_are_any(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN), *io;
	uint64_t result;

	(void)state;
	assert_int_equal(set(fq, 7, 3 << 16 | 3, 0, &result), 0);
	assert_int_equal(result, 127 << 16 | 127);
	io = fake_io(fq, 1);
	assert_int_equal(set(fq, 7, 3 << 16 | 3, 0, NULL), NVME_SC_CMD_SEQ_ERROR | DNR);
	fake_close(io);
	fake_close(fq);
}

static void the_host_identifier_has_128_bits(void **state)
{
	struct nvme_sqe sqe = { .opcode = nvme_admin_get_features, .cdw10 = htole32(0x81) };
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	uint8_t id[16];

	(void)state;
	assert_int_equal(fake_do(fq, &sqe, NULL, 8, NULL), INVALID);
	sqe.cdw11 = htole32(1);
	assert_int_equal(fake_do(fq, &sqe, id, 16, NULL), 0);
	assert_memory_equal(id, ((const uint8_t[16]){ 1, 2, 3 }), 16);
	fake_close(fq);
}

static void keep_alive_is_rounded_up_to_its_granularity(void **state)
{
	struct fake_queue *fq = fake_admin_kato(FAKE_NQN, 4001);
	uint64_t result;

	(void)state;
	assert_int_equal(fake_property_set(fq, NVME_REG_CC, 0, CC_ENABLE), 0);
	assert_int_equal(get(fq, 0x0f, 0, &result), 0);
	assert_int_equal(result, 5000);
	assert_int_equal(set(fq, 0x0f, 0xffffffff, 0, NULL), 0);
	assert_int_equal(get(fq, 0x0f, 0, &result), 0);
	assert_int_equal(result, 0xffffffff);
	fake_close(fq);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fake_test(values_are_remembered_and_defaults_kept),
		fake_test(each_feature_tells_whether_it_can_be_set),
		fake_test(what_cannot_be_set_is_refused_by_its_reason),
		fake_test(the_temperature_has_two_thresholds),
		fake_test(the_number_of_queues_is_settled_before_there_are_any),
		fake_test(the_host_identifier_has_128_bits),
		fake_test(keep_alive_is_rounded_up_to_its_granularity),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
