/* SPDX-License-Identifier: MIT */
/* Asynchronous events: limit, masking, what is pending, the end. */
#include "target/fake.h"

#define NS_CHANGED                                                                                 \
	(NVME_AER_NOTICE | NVME_AER_NOTICE_NS_CHANGED << 8 | NVME_LOG_LID_CHANGED_NS << 16)

static const struct nvme_sqe aer = { .opcode = nvme_admin_async_event };

static void want_events(struct fake_queue *fq, uint32_t which)
{
	const struct nvme_sqe sqe = { .opcode = nvme_admin_set_features,
				      .cdw10 = htole32(0x0b),
				      .cdw11 = htole32(which) };

	assert_int_equal(fake_do(fq, &sqe, NULL, 0, NULL), 0);
}

static void read_changed(struct fake_queue *fq, bool rae, __le32 *list)
{
	const struct nvme_sqe sqe = { .opcode = nvme_admin_get_log_page,
				      .cdw10 = htole32(4 | (rae ? 1u << 15 : 0) | 1023u << 16) };

	assert_int_equal(fake_do(fq, &sqe, list, 4096, NULL), 0);
}

static void the_fifth_is_one_too_many(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	struct fake_cmd *cmds[TGT_AERS];
	const struct nvme_sqe abort = { .opcode = nvme_admin_abort_cmd };
	uint64_t result;

	(void)state;
	for (int i = 0; i < TGT_AERS; i++) {
		cmds[i] = fake_submit(fq, &aer, 0);
		assert_int_equal(cmds[i]->status, UNANSWERED);
	}
	assert_int_equal(fake_do(fq, &aer, NULL, 0, NULL), SPECIFIC | NVME_SC_ASYNC_LIMIT | DNR);
	assert_int_equal(fake_do(fq, &abort, NULL, 0, &result), 0);
	assert_int_equal(result, 1); /* nothing was aborted */
	fake_close(fq);
	for (int i = 0; i < TGT_AERS; i++) {
		assert_int_equal(cmds[i]->answers, 1);
		assert_int_equal(cmds[i]->status, NVME_SC_ABORT_QUEUE);
		fake_cmd_free(cmds[i]);
	}
}

static void only_a_reset_takes_them_away(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	struct fake_cmd *cmd = fake_submit(fq, &aer, 0);

	(void)state;
	assert_int_equal(fake_property_set(fq, NVME_REG_CC, 0, CC_ENABLE), 0);
	pump();
	assert_int_equal(cmd->status, UNANSWERED);
	assert_int_equal(fake_property_set(fq, NVME_REG_CC, 0, CC_DISABLE), 0);
	pump();
	assert_int_equal(cmd->status, NVME_SC_ABORT_QUEUE);
	fake_cmd_free(cmd);
	fake_close(fq);
}

static void an_event_is_told_once_until_its_log_is_read(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	struct fake_cmd *first, *second;
	__le32 list[1024];

	(void)state;
	want_events(fq, AEC_NS);
	first = fake_submit(fq, &aer, 0);
	second = fake_submit(fq, &aer, 0);
	fake_add_ns(5, &fake_zns);
	pump();
	assert_int_equal(first->status, 0);
	assert_int_equal(first->result, NS_CHANGED);
	fake_add_ns(6, &fake_zns);
	pump();
	assert_int_equal(second->status, UNANSWERED); /* masked */
	read_changed(fq, true, list);
	assert_int_equal(list[0], htole32(5));
	assert_int_equal(list[1], htole32(6));
	assert_int_equal(list[2], 0);
	fake_add_ns(7, &fake_zns);
	pump();
	assert_int_equal(second->status, UNANSWERED); /* RAE: still masked */
	read_changed(fq, false, list);
	assert_int_equal(list[2], htole32(7));
	read_changed(fq, true, list);
	assert_int_equal(list[0], 0); /* emptied */
	fake_add_ns(4, &fake_zns);
	pump();
	assert_int_equal(second->result, NS_CHANGED);
	fake_cmd_free(first);
	fake_cmd_free(second);
	fake_close(fq);
}

static void an_event_without_request_is_pending(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	uint64_t result;

	(void)state;
	want_events(fq, AEC_NS);
	fake_add_ns(5, &fake_zns);
	assert_int_equal(fake_do(fq, &aer, NULL, 0, &result), 0);
	assert_int_equal(result, NS_CHANGED);
	fake_close(fq);
}

static void an_event_not_wanted_is_not_told(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	struct fake_cmd *cmd = fake_submit(fq, &aer, 0);

	(void)state;
	fake_add_ns(5, &fake_zns);
	pump();
	assert_int_equal(cmd->status, UNANSWERED);
	fake_close(fq);
	fake_cmd_free(cmd);
}

static void a_reset_fails_what_is_outstanding(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	struct fake_cmd *cmd = fake_submit(fq, &aer, 0);

	(void)state;
	assert_int_equal(fake_property_set(fq, NVME_REG_CC, 0, CC_DISABLE), 0);
	pump();
	assert_int_equal(cmd->status, NVME_SC_ABORT_QUEUE);
	fake_cmd_free(cmd);
	fake_close(fq);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fake_test(the_fifth_is_one_too_many),
		fake_test(only_a_reset_takes_them_away),
		fake_test(an_event_is_told_once_until_its_log_is_read),
		fake_test(an_event_without_request_is_pending),
		fake_test(an_event_not_wanted_is_not_told),
		fake_test(a_reset_fails_what_is_outstanding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
