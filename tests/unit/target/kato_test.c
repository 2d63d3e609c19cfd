/* SPDX-License-Identifier: MIT */
/* Keep alive: who is silent ends whole, who speaks lives. Real time, in the finest granularity. */
#include "target/fake.h"

static void stop_pumping(struct loop_timer *t)
{
	(void)t;
	loop_stop(fake.loop);
}

static void pump_for(uint64_t ms)
{
	struct loop_timer t;

	assert_int_equal(loop_timer_init(&t, fake.loop, stop_pumping), 0);
	loop_timer_arm(&t, ms);
	loop_run(fake.loop);
	loop_timer_free(&t);
}

static void a_silent_host_loses_all_its_queues(void **state)
{
	struct fake_queue *admin = fake_admin_kato(FAKE_NQN, 900), *io;

	(void)state;
	assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_ENABLE), 0);
	io = fake_io(admin, 1);
	pump_for(1500); /* there was traffic in the first interval */
	assert_false(admin->disconnected);
	pump_for(700);
	assert_true(admin->disconnected);
	assert_true(io->disconnected);
	fake_close(io);
	fake_close(admin);
}

static void any_command_keeps_it_alive(void **state)
{
	struct fake_queue *admin = fake_admin_kato(FAKE_NQN, 1000), *io;
	const struct nvme_sqe read = { .opcode = NVME_CMD_READ, .nsid = 1, .cdw12 = htole32(512) };

	(void)state;
	assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_ENABLE), 0);
	io = fake_io(admin, 1);
	for (int i = 0; i < 5; i++) {
		pump_for(500);
		assert_int_equal(fake_do(io, &read, NULL, 512, NULL), 0);
	}
	assert_false(admin->disconnected);
	fake_close(io);
	fake_close(admin);
}

static void without_a_timer_nothing_expires(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN);
	const struct nvme_sqe sqe = { .opcode = nvme_admin_keep_alive };

	(void)state;
	assert_int_equal(fake_do(admin, &sqe, NULL, 0, NULL), NVME_SC_KAT_INVALID | DNR);
	pump_for(1100);
	assert_false(admin->disconnected);
	fake_close(admin);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fake_test(a_silent_host_loses_all_its_queues),
		fake_test(any_command_keeps_it_alive),
		fake_test(without_a_timer_nothing_expires),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
