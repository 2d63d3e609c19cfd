/* SPDX-License-Identifier: MIT */
/* Keep alive: who is silent ends whole, who speaks lives. Real time, in the finest granularity. */
#include <errno.h>
#include "target/fake.h"

/* The linker has the target call this one (tests/CMakeLists.txt). */
int __real_loop_timer_arm(struct loop_timer *t, uint64_t ms);
int __wrap_loop_timer_arm(struct loop_timer *t, uint64_t ms);

static bool no_memory;

int __wrap_loop_timer_arm(struct loop_timer *t, uint64_t ms)
{
	return no_memory ? -ENOMEM : __real_loop_timer_arm(t, ms);
}

static void stop_pumping(struct loop_timer *t)
{
	(void)t;
	loop_stop(fake.loop);
}

static void pump_for(uint64_t ms)
{
	struct loop_timer t;

	assert_int_equal(loop_timer_init(&t, fake.loop, stop_pumping), 0);
	__real_loop_timer_arm(&t, ms);
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

static void without_memory_for_the_timer_connect_is_refused(void **state)
{
	struct fake_connect c = fake_connect_args(FAKE_NQN, 0, 0xffff);
	struct fake_queue *admin = fake_queue_new();

	(void)state;
	c.sqe.kato = htole32(1000);
	no_memory = true;
	assert_int_equal(fake_connect(admin, &c, NULL), NVME_SC_INTERNAL);
	no_memory = false;
	assert_int_equal(fake_connect(admin, &c, NULL), 0);
	fake_close(admin);
}

static uint32_t kato_of(struct fake_queue *admin)
{
	const struct nvme_sqe get = { .opcode = nvme_admin_get_features,
				      .cdw10 = htole32(NVME_FEAT_FID_KATO) };
	uint64_t result = 0;

	assert_int_equal(fake_do(admin, &get, NULL, 0, &result), 0);
	return (uint32_t)result;
}

static void nor_can_it_be_set_then(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN);
	const struct nvme_sqe set = { .opcode = nvme_admin_set_features,
				      .cdw10 = htole32(NVME_FEAT_FID_KATO),
				      .cdw11 = htole32(1000) };

	(void)state;
	no_memory = true;
	assert_int_equal(fake_do(admin, &set, NULL, 0, NULL), NVME_SC_INTERNAL);
	no_memory = false;
	assert_int_equal(kato_of(admin), 0);
	assert_int_equal(fake_do(admin, &set, NULL, 0, NULL), 0);
	assert_int_equal(kato_of(admin), 1000);
	fake_close(admin);
}

static void nor_does_an_association_go_on_unwatched(void **state)
{
	struct fake_queue *admin = fake_admin_kato(FAKE_NQN, 900);

	(void)state;
	no_memory = true; /* there was traffic, the next interval should begin */
	pump_for(1300);
	no_memory = false;
	assert_true(admin->disconnected);
	fake_close(admin);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fake_test(a_silent_host_loses_all_its_queues),
		fake_test(any_command_keeps_it_alive),
		fake_test(without_a_timer_nothing_expires),
		fake_test(without_memory_for_the_timer_connect_is_refused),
		fake_test(nor_can_it_be_set_then),
		fake_test(nor_does_an_association_go_on_unwatched),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
