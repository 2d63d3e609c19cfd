/* SPDX-License-Identifier: MIT */
/* Associations: they end whole, and the next begins when the last write of the old one has ended.
 */
#include "target/fake.h"

static const struct nvme_sqe read_1 = { .opcode = NVME_CMD_READ, .nsid = 1, .cdw12 = 0x200 };

/* Closed by the peer; requests may be in flight. */
static void drop(struct fake_queue *fq)
{
	tgt_queue_close(&fq->q);
	fq->closed = true;
}

static void an_admin_queue_takes_its_io_queues_along(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN), *one = fake_io(admin, 1),
			  *two = fake_io(admin, 128);
	struct fake_connect c = fake_connect_args(FAKE_NQN, 3, admin->q.ctrl->cntlid);
	struct fake_queue *late = fake_queue_new();

	(void)state;
	drop(admin);
	assert_true(one->disconnected);
	assert_true(two->disconnected);
	assert_int_equal(fake_do(one, &read_1, NULL, 512, NULL), NVME_SC_CMD_SEQ_ERROR | DNR);
	assert_int_equal(fake_connect(late, &c, NULL),
			 SPECIFIC | NVME_SC_CONNECT_INVALID_PARAM | DNR);
	fake_close(one);
	fake_close(two);
	fake_close(late);
	free(admin);
}

/* The target of a test is freed here, and another is there for its end. */
static void the_end_tells_the_first_error(void **state)
{
	static struct tgt_ns other = { .set = &fake_zns, .nsid = 5, .uuid = { 5 } };
	struct tgt_subsys *second;
	char err[256];

	second = tgt_subsys_get(fake.tgt, FAKE_NQN "2", err, sizeof(err));
	assert_non_null(second);
	assert_int_equal(tgt_ns_add(second, &other, err, sizeof(err)), 0);
	fake.close_err[5] = -EIO; /* the newer one is closed first */
	fake.close_err[3] = -ENOSPC;
	assert_int_equal(tgt_free(fake.tgt), -EIO);
	assert_int_equal(fake.closes, 3);
	workers_free(fake.pool);
	loop_free(fake.loop);
	fake_start(state);
}

static void a_connect_waits_for_the_writes_of_the_dead(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN), *io = fake_io(admin, 1);
	struct fake_connect c = fake_connect_args(FAKE_NQN, 0, 0xffff);
	struct fake_queue *next = fake_queue_new(), *disc;
	struct fake_cmd *write, *connect;

	(void)state;
	fake.hold = true;
	write = fake_submit(io, &read_1, 512);
	drop(io);
	drop(admin);
	pump();
	connect = fake_connect_submit(next, &c);
	pump();
	assert_int_equal(connect->status, UNANSWERED);
	disc = fake_admin(NVME_DISC_SUBSYS_NAME); /* is no one's concern */
	fake_close(disc);
	tgt_req_complete(fake.held[0], 0);
	assert_int_equal(write->answers, 1);
	assert_null(io->q.ctrl);
	pump();
	assert_int_equal(connect->status, 0);
	fake_cmd_free(write);
	fake_cmd_free(connect);
	free(io);
	free(admin);
	fake_close(next);
}

#define OTHER_HOSTNQN "nqn.2014-08.org.example:other-host"

static struct fake_connect admin_connect_of(const char *hostnqn)
{
	struct fake_connect c = fake_connect_args(FAKE_NQN, 0, 0xffff);

	snprintf(c.data.hostnqn, sizeof(c.data.hostnqn), "%s", hostnqn);
	return c;
}

/* An association of HOSTNQN that has ended, but for a command that is held. */
struct ending {
	struct fake_queue *admin, *io;
	struct fake_cmd *write;
};

static void end_slowly(struct ending *e, const char *hostnqn)
{
	struct fake_connect c = admin_connect_of(hostnqn);

	e->admin = fake_queue_new();
	assert_int_equal(fake_connect(e->admin, &c, NULL), 0);
	assert_int_equal(fake_property_set(e->admin, NVME_REG_CC, 0, CC_ENABLE), 0);
	c.sqe.qid = htole16(1);
	c.data.cntlid = htole16(e->admin->q.ctrl->cntlid);
	e->io = fake_queue_new();
	assert_int_equal(fake_connect(e->io, &c, NULL), 0);
	fake.hold = true;
	e->write = fake_submit(e->io, &read_1, 512);
	drop(e->io);
	drop(e->admin);
	pump();
}

static void ended(struct ending *e)
{
	fake_cmd_free(e->write);
	free(e->io);
	free(e->admin);
}

static void a_connect_waits_for_its_own_host_alone(void **state)
{
	struct fake_connect mine = admin_connect_of(FAKE_HOSTNQN);
	struct fake_connect other = admin_connect_of(OTHER_HOSTNQN);
	struct fake_queue *next[2] = { fake_queue_new(), fake_queue_new() };
	struct fake_cmd *connect;
	struct ending e;

	(void)state;
	end_slowly(&e, FAKE_HOSTNQN);
	assert_int_equal(fake_connect(next[0], &other, NULL), 0);
	connect = fake_connect_submit(next[1], &mine);
	pump();
	assert_int_equal(connect->status, UNANSWERED);
	fake_close(next[0]); /* the end of another host's queue is not what it waits for */
	assert_int_equal(connect->status, UNANSWERED);
	tgt_req_complete(fake.held[0], 0);
	pump();
	assert_int_equal(connect->status, 0);
	fake_cmd_free(connect);
	ended(&e);
	fake_close(next[1]);
}

/* Two hosts end slowly, and each comes back: the end of one has its own Connect go on. */
static void each_host_waits_for_itself(void **state)
{
	static const char *const host[] = { FAKE_HOSTNQN, OTHER_HOSTNQN };
	struct fake_queue *next[2];
	struct fake_cmd *connect[2];
	struct ending e[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		end_slowly(&e[i], host[i]);
		fake.hold = false;
	}
	for (int i = 0; i < 2; i++) {
		struct fake_connect c = admin_connect_of(host[i]);

		next[i] = fake_queue_new();
		connect[i] = fake_connect_submit(next[i], &c);
	}
	pump();
	tgt_req_complete(fake.held[1], 0);
	pump();
	assert_int_equal(connect[0]->status, UNANSWERED);
	assert_int_equal(connect[1]->status, 0);
	tgt_req_complete(fake.held[0], 0);
	pump();
	assert_int_equal(connect[0]->status, 0);
	for (int i = 0; i < 2; i++) {
		fake_cmd_free(connect[i]);
		ended(&e[i]);
		fake_close(next[i]);
	}
}

/* A host that has got a new host ID is still the same. */
static void a_host_is_known_by_its_name(void **state)
{
	struct fake_connect c = admin_connect_of(FAKE_HOSTNQN);
	struct fake_queue *next = fake_queue_new();
	struct fake_cmd *connect;
	struct ending e;

	(void)state;
	end_slowly(&e, FAKE_HOSTNQN);
	c.data.hostid[0] ^= 0xff;
	connect = fake_connect_submit(next, &c);
	pump();
	assert_int_equal(connect->status, UNANSWERED);
	tgt_req_complete(fake.held[0], 0);
	pump();
	assert_int_equal(connect->status, 0);
	fake_cmd_free(connect);
	ended(&e);
	fake_close(next);
}

/* Two associations of a host: that one has ended is not enough. */
static void a_connect_waits_for_all_associations_of_its_host(void **state)
{
	struct fake_connect c = admin_connect_of(FAKE_HOSTNQN);
	struct fake_queue *admin = fake_admin(FAKE_NQN), *io = fake_io(admin, 1);
	struct fake_queue *next = fake_queue_new();
	struct fake_cmd *connect, *write;
	struct ending e;

	(void)state;
	end_slowly(&e, FAKE_HOSTNQN);
	write = fake_submit(io, &read_1, 512);
	drop(io);
	drop(admin);
	connect = fake_connect_submit(next, &c);
	pump();
	tgt_req_complete(fake.held[0], 0);
	pump();
	assert_int_equal(connect->status, UNANSWERED);
	tgt_req_complete(fake.held[1], 0);
	pump();
	assert_int_equal(connect->status, 0);
	fake_cmd_free(connect);
	fake_cmd_free(write);
	free(io);
	free(admin);
	ended(&e);
	fake_close(next);
}

static void a_waiting_connect_ends_with_its_connection(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN), *io = fake_io(admin, 1);
	struct fake_connect c = fake_connect_args(FAKE_NQN, 0, 0xffff);
	struct fake_queue *next = fake_queue_new(), *third = fake_queue_new();
	struct fake_cmd *write, *connect, *posted;

	(void)state;
	fake.hold = true;
	write = fake_submit(io, &read_1, 512);
	drop(io);
	drop(admin);
	connect = fake_connect_submit(next, &c);
	posted = fake_connect_submit(third, &c);
	fake_close(next);
	assert_int_equal(connect->status, NVME_SC_ABORT_QUEUE);
	tgt_req_complete(fake.held[0], 0); /* the other is on its way to be resumed ... */
	drop(third);			   /* ... when its connection closes */
	assert_int_equal(posted->status, NVME_SC_ABORT_QUEUE);
	pump();
	assert_int_equal(posted->answers, 1);
	fake_cmd_free(write);
	fake_cmd_free(connect);
	fake_cmd_free(posted);
	free(io);
	free(admin);
	free(third);
}

static void nothing_executes_on_a_closing_queue(void **state)
{
	struct fake_queue *admin = fake_admin(FAKE_NQN), *io = fake_io(admin, 1);
	struct fake_cmd cmd = { .status = UNANSWERED };

	(void)state;
	cmd.req.cmd = read_1;
	cmd.req.cmd.flags = NVME_SQE_PSDT_SGL;
	cmd.req.cmd.dptr.type = NVME_SGL_TRANSPORT;
	cmd.req.cmd.dptr.length = htole32(512);
	fake.hold = true;
	assert_int_equal(tgt_req_init(&cmd.req, &io->q, 0), 0);
	drop(io);
	tgt_req_execute(&cmd.req);
	assert_int_equal(cmd.status, NVME_SC_ABORT_QUEUE);
	assert_int_equal(fake.nr_held, 0);
	free(io);
	fake_close(admin);
}

static void a_broadcast_flush_answers_once_with_the_first_failure(void **state)
{
	const struct nvme_sqe flush = { .opcode = NVME_CMD_FLUSH, .nsid = 0xffffffff };
	struct fake_queue *admin = fake_admin(FAKE_NQN), *io = fake_io(admin, 1);
	struct fake_cmd *cmd;

	(void)state;
	assert_int_equal(fake_do(io, &flush, NULL, 0, NULL), 0);
	assert_int_equal(fake.flushes, 2);
	fake.hold = true;
	cmd = fake_submit(io, &flush, 0);
	tgt_req_complete(fake.held[1], NVME_SC_WRITE_FAULT);
	assert_int_equal(cmd->status, UNANSWERED);
	tgt_req_complete(fake.held[0], 0);
	assert_int_equal(cmd->status, NVME_SC_WRITE_FAULT);
	fake_cmd_free(cmd);
	fake_close(io);
	fake_close(admin);
}

static void namespaces_are_closed_at_the_end(void **state)
{
	(void)state;
	pump();
	assert_int_equal(tgt_free(fake.tgt), 0);
	assert_int_equal(fake.closes, 2);
	fake.tgt = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fake_test(an_admin_queue_takes_its_io_queues_along),
		fake_test(the_end_tells_the_first_error),
		fake_test(a_connect_waits_for_the_writes_of_the_dead),
		fake_test(a_connect_waits_for_its_own_host_alone),
		fake_test(each_host_waits_for_itself),
		fake_test(a_host_is_known_by_its_name),
		fake_test(a_connect_waits_for_all_associations_of_its_host),
		fake_test(a_waiting_connect_ends_with_its_connection),
		fake_test(nothing_executes_on_a_closing_queue),
		fake_test(a_broadcast_flush_answers_once_with_the_first_failure),
		fake_test(namespaces_are_closed_at_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
