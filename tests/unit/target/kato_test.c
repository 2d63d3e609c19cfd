/* SPDX-License-Identifier: MIT */
/*
 * Keep alive: who is silent ends whole, who speaks lives. Timers in real time, in the finest granularity;
 * for what happens when the program has not run for a while, the clock is set forward.
 */
#include <errno.h>
#include "target/fake.h"

/* The linker has the target call this one (tests/CMakeLists.txt). */
int __real_loop_timer_arm(struct loop_timer *t, uint64_t ms);
int __wrap_loop_timer_arm(struct loop_timer *t, uint64_t ms);

/* And these, too. */
uint64_t __real_clock_boot_ms(void);
uint64_t __wrap_clock_boot_ms(void);

static uint64_t slept; /* ms in which nothing ran */

uint64_t __wrap_clock_boot_ms(void)
{
	return __real_clock_boot_ms() + slept;
}

static bool no_memory;

int __wrap_loop_timer_arm(struct loop_timer *t, uint64_t ms)
{
	if (ms == TGT_CONNECT_WAIT)
		ms = 50;
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
	assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_ENABLE), 0);
	no_memory = true; /* there was traffic, the next interval should begin */
	pump_for(1300);
	no_memory = false;
	assert_true(admin->disconnected);
	fake_close(admin);
}

/* The commands of its host's dead association do not end: so it is told to try again, and lives. */
static void a_connect_does_not_wait_for_ever(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN), *io = fake_io(admin, 1);
	const struct nvme_sqe read = { .opcode = NVME_CMD_READ, .nsid = 1, .cdw12 = htole32(512) };
	struct fake_connect c = fake_connect_args(FAKE_NQN, 0, 0xffff);
	struct fake_queue *next = fake_queue_new();
	struct fake_cmd *held, *connect;

	(void)state;
	log_level(-1);
	fake.hold = true;
	held = fake_submit(io, &read, 512);
	tgt_queue_close(&io->q);
	tgt_queue_close(&admin->q);
	pump();
	connect = fake_connect_submit(next, &c);
	pump();
	assert_int_equal(connect->status, UNANSWERED);
	pump_for(200);
	assert_int_equal(connect->status, SPECIFIC | NVME_SC_CONNECT_CTRL_BUSY);
	fake_cmd_free(connect);
	tgt_req_complete(fake.held[0], 0);
	fake_cmd_free(held);
	pump();
	assert_int_equal(fake_connect(next, &c, NULL), 0);
	fake_close(next);
	free(io);
	free(admin);
}

/* --- the program has not run for a while --- */

/* 512 bytes, in the capsule (NVME_SGL_OFFSET) or after it. */
static struct nvme_sqe write_of(uint8_t sgl_type)
{
	return (struct nvme_sqe){ .opcode = NVME_CMD_WRITE,
				  .flags = NVME_SQE_PSDT_SGL,
				  .nsid = htole32(1),
				  .cdw12 = htole32(512),
				  .dptr = { .length = htole32(512), .type = sgl_type } };
}

static uint16_t do_write(struct fake_queue *io)
{
	const struct nvme_sqe sqe = write_of(NVME_SGL_OFFSET);
	uint8_t data[512] = { 0 };
	struct fake_cmd *cmd = fake_submit_data(io, &sqe, data, sizeof(data));
	uint16_t status = cmd->status;

	assert_int_equal(cmd->answers, 1);
	fake_cmd_free(cmd);
	return status;
}

/* Two I/O queues of a controller with a keep alive time of a second. */
static struct fake_queue *two_queues(struct fake_queue *io[2])
{
	struct fake_queue *admin = fake_admin_kato(FAKE_NQN, 1000);

	assert_int_equal(fake_property_set(admin, NVME_REG_CC, 0, CC_ENABLE), 0);
	io[0] = fake_io(admin, 1);
	io[1] = fake_io(admin, 2);
	return admin;
}

static void close_three(struct fake_queue *admin, struct fake_queue *io[2])
{
	fake_close(io[0]);
	fake_close(io[1]);
	fake_close(admin);
}

static void what_came_while_nothing_ran_is_not_executed(void **state)
{
	struct fake_queue *io[2], *admin = two_queues(io);

	(void)state;
	assert_int_equal(do_write(io[0]), 0);
	slept += 2001; /* the interval of the write, and one more */
	assert_int_not_equal(do_write(io[0]), 0);
	assert_int_not_equal(do_write(io[1]), 0);
	assert_true(admin->disconnected && io[0]->disconnected && io[1]->disconnected);
	close_three(admin, io);
}

/* Each loop looks for itself: none has to run before another. */
static void whichever_queue_wakes_first(void **state)
{
	(void)state;
	for (int first = 0; first < 3; first++) {
		struct fake_queue *io[2], *admin = two_queues(io);
		struct fake_queue *queue[] = { io[0], io[1], admin };

		slept += 2001;
		assert_false(tgt_queue_batch_begin(&queue[first]->q));
		tgt_queue_batch_end(&queue[first]->q);
		assert_true(admin->disconnected && io[0]->disconnected && io[1]->disconnected);
		assert_int_not_equal(do_write(io[1]), 0);
		close_three(admin, io);
	}
}

static void who_is_paused_for_less_loses_nothing(void **state)
{
	struct fake_queue *io[2], *admin = two_queues(io);

	(void)state;
	for (int i = 0; i < 20; i++) {
		slept += 990;
		assert_int_equal(do_write(io[i % 2]), 0);
	}
	assert_false(admin->disconnected);
	close_three(admin, io);
}

/* However many commands came in an interval, it is one interval that follows. */
static void many_commands_are_worth_no_more_than_one(void **state)
{
	struct fake_queue *io[2], *admin = two_queues(io);

	(void)state;
	for (int i = 0; i < 50; i++)
		assert_int_equal(do_write(io[i % 2]), 0);
	slept += 2001;
	assert_int_not_equal(do_write(io[0]), 0);
	close_three(admin, io);
}

static void nor_is_data_that_comes_late(void **state)
{
	struct fake_queue *io[2], *admin = two_queues(io);
	struct fake_cmd cmd = { .status = UNANSWERED };

	(void)state;
	cmd.req.cmd = write_of(NVME_SGL_TRANSPORT);
	assert_true(tgt_queue_batch_begin(&io[0]->q));
	assert_int_equal(tgt_req_init(&cmd.req, &io[0]->q, 0), 0);
	tgt_queue_batch_end(&io[0]->q);
	slept += 2001;
	assert_false(tgt_queue_batch_begin(&io[0]->q));
	tgt_req_execute(&cmd.req);
	tgt_queue_batch_end(&io[0]->q);
	assert_int_equal(cmd.status, NVME_SC_ABORT_QUEUE);
	close_three(admin, io);
}

static void nor_what_waited_meanwhile(void **state)
{
	struct fake_queue *io[2], *admin = two_queues(io);
	struct fake_cmd *cmd;

	(void)state;
	fake.hold = true;
	cmd = fake_submit(io[0], &(struct nvme_sqe){ .opcode = NVME_CMD_FLUSH, .nsid = htole32(1) },
			  0);
	assert_true(tgt_req_may_begin(fake.held[0]));
	slept += 2001;
	assert_false(tgt_req_may_begin(fake.held[0]));
	assert_true(admin->disconnected && io[1]->disconnected);
	tgt_req_complete(fake.held[0], NVME_SC_ABORT_QUEUE);
	fake_cmd_free(cmd);
	close_three(admin, io);
}

static void nor_is_a_queue_connected(void **state)
{
	struct fake_queue *io[2], *admin = two_queues(io), *late = fake_queue_new();
	struct fake_connect c = fake_connect_args(FAKE_NQN, 3, admin->q.ctrl->cntlid);

	(void)state;
	slept += 2001;
	assert_int_equal(fake_connect(late, &c, NULL),
			 SPECIFIC | NVME_SC_CONNECT_INVALID_PARAM | DNR);
	fake_close(late);
	close_three(admin, io);
}

static void without_a_time_none_is_over(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN), *io = fake_io(admin, 1);

	(void)state;
	slept += 1000ull * 86400 * 365;
	assert_int_equal(do_write(io), 0);
	assert_false(admin->disconnected);
	fake_close(io);
	fake_close(admin);
}

static int kato_start(void **state)
{
	slept = 0;
	return fake_start(state);
}

#define kato_test(fn) cmocka_unit_test_setup_teardown(fn, kato_start, fake_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		kato_test(a_silent_host_loses_all_its_queues),
		kato_test(any_command_keeps_it_alive),
		kato_test(without_a_timer_nothing_expires),
		kato_test(without_memory_for_the_timer_connect_is_refused),
		kato_test(nor_can_it_be_set_then),
		kato_test(nor_does_an_association_go_on_unwatched),
		kato_test(a_connect_does_not_wait_for_ever),
		kato_test(what_came_while_nothing_ran_is_not_executed),
		kato_test(whichever_queue_wakes_first),
		kato_test(who_is_paused_for_less_loses_nothing),
		kato_test(many_commands_are_worth_no_more_than_one),
		kato_test(nor_is_data_that_comes_late),
		kato_test(nor_what_waited_meanwhile),
		kato_test(nor_is_a_queue_connected),
		kato_test(without_a_time_none_is_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
