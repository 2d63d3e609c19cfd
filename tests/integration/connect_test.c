// SPDX-License-Identifier: MIT
/*
 * From Connect to the end of an association: what Connect checks and how it answers (NVMe-oF 1.1,
 * 3.3; spec/nvme-rules.md B.5), properties, keep alive, many queues, several subsystems and hosts,
 * and the discovery log of the same port.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon.h"

#define NQN_A	  "nqn.2026-01.org.example:a"
#define NQN_B	  "nqn.2026-01.org.example:b"
#define HOST_2	  "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000002"
#define INVALID	  (NVME_SCT_SPECIFIC | NVME_SC_CONNECT_INVALID_PARAM)
#define LOCAL	  "127.0.0.1"
#define IN_SQE	  0
#define IN_DATA	  (1u << 16) /* IATTR: the offset is one into the data */
#define AT(f)	  (IN_DATA | (uint32_t)offsetof(struct nvmf_connect_data, f))
#define SQE_AT(f) ((uint32_t)offsetof(struct nvmf_connect_sqe, f))

static struct rig rig;

static int serve_one(void **state)
{
	(void)state;
	rig_init(&rig);
	assert_int_equal(rig_create(&rig, rig.img, RIG_SEED), 0);
	return rig_serve(&rig, rig.img);
}

static int unserve(void **state)
{
	int status;

	(void)state;
	status = rig_stop(&rig, SIGTERM, 10000 * rig_slowness(), NULL);
	rig_end(&rig);
	return status ? -1 : 0;
}

/* --- Connect, admin queue --- */

static void fill_nqn(char *nqn)
{
	memset(nqn, 'x', NVME_NQN_LENGTH);
}

static void good(struct host_connect *c)
{
	(void)c;
}

static void bad_recfmt(struct host_connect *c)
{
	c->recfmt = 1;
}

static void zero_sqsize(struct host_connect *c)
{
	c->sqsize = 0;
}

static void huge_sqsize(struct host_connect *c)
{
	c->sqsize = 0xffff;
}

static void unknown_nqn(struct host_connect *c)
{
	snprintf(c->data.subsysnqn, sizeof(c->data.subsysnqn), "%s", NQN_B);
}

static void empty_nqn(struct host_connect *c)
{
	memset(c->data.subsysnqn, 0, sizeof(c->data.subsysnqn));
}

static void endless_nqn(struct host_connect *c)
{
	fill_nqn(c->data.subsysnqn);
}

static void endless_nqn_after_a_good_one(struct host_connect *c)
{
	size_t len = strlen(c->data.subsysnqn);

	memset(c->data.subsysnqn + len, 'x', NVME_NQN_LENGTH - len);
}

static void endless_hostnqn(struct host_connect *c)
{
	fill_nqn(c->data.hostnqn);
}

static void empty_hostnqn(struct host_connect *c)
{
	memset(c->data.hostnqn, 0, sizeof(c->data.hostnqn));
}

static void static_cntlid(struct host_connect *c)
{
	c->data.cntlid = htole16(1);
}

static void any_static_cntlid(struct host_connect *c)
{
	c->data.cntlid = htole16(0xfffe);
}

static void io_queue_of_nothing(struct host_connect *c)
{
	c->qid = 1;
	c->data.cntlid = htole16(0x7ffe);
}

static void other_hostnqn(struct host_connect *c)
{
	snprintf(c->data.hostnqn, sizeof(c->data.hostnqn), "%s", HOST_2);
}

static void other_hostid(struct host_connect *c)
{
	c->data.hostid[3] ^= 1;
}

static void qid_129(struct host_connect *c)
{
	c->qid = 129;
}

static void qid_65535(struct host_connect *c)
{
	c->qid = 0xffff;
}

static void sqsize_128(struct host_connect *c)
{
	c->sqsize = 128;
}

struct row {
	const char *name;
	void (*change)(struct host_connect *c);
	int status;
	uint32_t result; /* of INVALID */
};

static void try_row(const struct row *row, struct host_connect *c)
{
	struct host_queue q;
	uint32_t result = 0;
	int status;

	row->change(c);
	assert_int_equal(host_open(&q, LOCAL, rig.port, NULL), 0);
	status = host_connect(&q, c, &result);
	if (status != row->status)
		fail_msg("%s: status %#x, not %#x", row->name, status, row->status);
	if (status == INVALID && result != row->result)
		fail_msg("%s: result %#x, not %#x", row->name, result, row->result);
	host_close(&q);
}

static void an_admin_connect_is_checked(void **state)
{
	static const struct row rows[] = {
		{ "good", good, 0, 0 },
		{ "recfmt", bad_recfmt, NVME_SCT_SPECIFIC | NVME_SC_CONNECT_FORMAT, 0 },
		{ "sqsize 0", zero_sqsize, INVALID, SQE_AT(sqsize) },
		{ "sqsize ffff", huge_sqsize, INVALID, SQE_AT(sqsize) },
		{ "unknown nqn", unknown_nqn, INVALID, AT(subsysnqn) },
		{ "empty nqn", empty_nqn, INVALID, AT(subsysnqn) },
		{ "endless nqn", endless_nqn, INVALID, AT(subsysnqn) },
		{ "endless nqn 2", endless_nqn_after_a_good_one, INVALID, AT(subsysnqn) },
		{ "endless hostnqn", endless_hostnqn, INVALID, AT(hostnqn) },
		{ "empty hostnqn", empty_hostnqn, INVALID, AT(hostnqn) },
		{ "static cntlid", static_cntlid, INVALID, AT(cntlid) },
		{ "any static cntlid", any_static_cntlid, INVALID, AT(cntlid) },
		{ "no such controller", io_queue_of_nothing, INVALID, AT(cntlid) },
	};
	struct host_connect c;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		host_connect_init(&c, 0, 31, RIG_NQN, HOST_NQN, 0xffff);
		try_row(&rows[i], &c);
	}
}

static void an_io_connect_is_checked(void **state)
{
	static const struct row rows[] = {
		{ "other hostnqn", other_hostnqn, INVALID, AT(hostnqn) },
		{ "other hostid", other_hostid, INVALID, AT(hostid) },
		{ "unknown nqn", unknown_nqn, INVALID, AT(subsysnqn) },
		{ "cntlid", static_cntlid, INVALID, AT(cntlid) },
		{ "qid 129", qid_129, INVALID, SQE_AT(qid) },
		{ "qid 65535", qid_65535, INVALID, SQE_AT(qid) },
		{ "sqsize 0", zero_sqsize, INVALID, SQE_AT(sqsize) },
		{ "sqsize 128", sqsize_128, INVALID, SQE_AT(sqsize) },
		{ "recfmt", bad_recfmt, NVME_SCT_SPECIFIC | NVME_SC_CONNECT_FORMAT, 0 },
		{ "good after all that", good, 0, 0 },
	};
	struct host_connect c;
	struct host_ctrl ctrl;
	size_t i;

	(void)state;
	do { /* "static cntlid" is to be a wrong one */
		rig_attach(&rig, &ctrl, 1);
		if (ctrl.cntlid == 1)
			host_detach(&ctrl);
	} while (!ctrl.nr_io);
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		host_connect_init(&c, 2, 127, RIG_NQN, HOST_NQN, ctrl.cntlid);
		try_row(&rows[i], &c);
	}
	host_detach(&ctrl);
}

static void a_queue_in_use_is_not_given_twice(void **state)
{
	struct host_ctrl ctrl;
	struct host_queue q;

	(void)state;
	rig_attach(&rig, &ctrl, 2);
	assert_int_equal(host_attach_io(&ctrl, &q, 2), NVME_SC_CMD_SEQ_ERROR);
	host_close(&ctrl.io[1]);
	usleep(100000);
	assert_int_equal(host_attach_io(&ctrl, &ctrl.io[1], 2), 0);
	assert_int_equal(host_flush(&ctrl.io[1], 1), 0);
	host_detach(&ctrl);
}

static void an_io_queue_waits_for_enable(void **state)
{
	struct host_ctrl ctrl = { .nqn = RIG_NQN, .hostnqn = HOST_NQN, .addr = LOCAL };
	struct host_connect c;
	struct host_queue q;
	uint32_t cntlid;

	(void)state;
	snprintf(ctrl.port, sizeof(ctrl.port), "%s", rig.port);
	assert_int_equal(host_open(&ctrl.admin, LOCAL, rig.port, NULL), 0);
	host_connect_init(&c, 0, 31, RIG_NQN, HOST_NQN, 0xffff);
	assert_int_equal(host_connect(&ctrl.admin, &c, &cntlid), 0);
	ctrl.cntlid = cntlid;
	ctrl.io_icd = 4096;
	assert_int_equal(host_attach_io(&ctrl, &q, 1), NVME_SC_CMD_SEQ_ERROR);
	assert_int_equal(host_enable(&ctrl.admin), 0);
	assert_int_equal(host_attach_io(&ctrl, &q, 1), 0);
	host_close(&q);
	host_close(&ctrl.admin);
}

static void nothing_goes_before_connect(void **state)
{
	struct host_queue q;
	uint64_t v;
	uint8_t buf[4096];

	(void)state;
	assert_int_equal(host_open(&q, LOCAL, rig.port, NULL), 0);
	assert_int_equal(host_identify(&q, NVME_IDENTIFY_CNS_CTRL, 0, 0, buf),
			 NVME_SC_CMD_SEQ_ERROR);
	assert_int_equal(host_prop_get(&q, NVME_REG_CAP, true, &v), NVME_SC_CMD_SEQ_ERROR);
	assert_int_equal(host_keep_alive(&q), NVME_SC_CMD_SEQ_ERROR);
	host_close(&q);
}

static void a_second_connect_is_a_sequence_error(void **state)
{
	struct host_ctrl ctrl;
	struct host_connect c;

	(void)state;
	rig_attach(&rig, &ctrl, 1);
	host_connect_init(&c, 0, 31, RIG_NQN, HOST_NQN, 0xffff);
	assert_int_equal(host_connect(&ctrl.admin, &c, NULL), NVME_SC_CMD_SEQ_ERROR);
	host_connect_init(&c, 1, 31, RIG_NQN, HOST_NQN, ctrl.cntlid);
	assert_int_equal(host_connect(&ctrl.io[0], &c, NULL), NVME_SC_CMD_SEQ_ERROR);
	assert_int_equal(host_flush(&ctrl.io[0], 1), 0);
	host_detach(&ctrl);
}

/* --- properties --- */

static void properties_have_their_widths_and_values(void **state)
{
	struct host_ctrl ctrl;
	struct host_queue *q = &ctrl.admin;
	uint64_t v = 0;

	(void)state;
	rig_attach(&rig, &ctrl, 0);
	assert_int_equal(host_prop_get(q, NVME_REG_CAP, true, &v), 0);
	assert_int_equal(v & 0xffff, 127);   /* MQES */
	assert_true(v >> 16 & 1);	     /* CQR */
	assert_true((v >> 24 & 0xff) >= 15); /* TO */
	assert_true(v >> 43 & 1);	     /* CSS: command sets of namespaces */
	assert_int_equal(v >> 48 & 0xf, 0);  /* MPSMIN */
	assert_int_equal(host_prop_get(q, NVME_REG_VS, false, &v), 0);
	assert_true(v >= 0x010400 && v <= 0x020100);
	assert_int_equal(host_prop_get(q, NVME_REG_CSTS, false, &v), 0);
	assert_int_equal(v & 1, 1);
	assert_int_equal(host_prop_get(q, NVME_REG_CAP, false, &v), NVME_SC_INVALID_FIELD);
	assert_int_equal(host_prop_get(q, NVME_REG_VS, true, &v), NVME_SC_INVALID_FIELD);
	assert_int_equal(host_prop_get(q, 0x1000, false, &v), NVME_SC_INVALID_FIELD);
	assert_int_equal(host_prop_set(q, NVME_REG_CAP, true, 1), NVME_SC_INVALID_FIELD);
	assert_int_equal(host_prop_set(q, NVME_REG_CSTS, false, 1), NVME_SC_INVALID_FIELD);
	assert_int_equal(host_prop_get(q, NVME_REG_CC, false, &v), 0);
	assert_int_equal(v & 0xff, 6 << 4 | 1);
	host_detach(&ctrl);
}

static void a_shutdown_completes(void **state)
{
	struct host_ctrl ctrl;
	uint64_t cc, csts = 0;
	int i;

	(void)state;
	rig_attach(&rig, &ctrl, 1);
	assert_int_equal(host_prop_get(&ctrl.admin, NVME_REG_CC, false, &cc), 0);
	assert_int_equal(host_prop_set(&ctrl.admin, NVME_REG_CC, false, cc | 1 << 14), 0);
	for (i = 0; i < 500 && (csts >> 2 & 3) != 2; i++) {
		assert_int_equal(host_prop_get(&ctrl.admin, NVME_REG_CSTS, false, &csts), 0);
		usleep(10000);
	}
	assert_int_equal(csts >> 2 & 3, 2); /* SHST: complete */
	host_detach(&ctrl);
}

static void a_disabled_controller_has_no_io_queues(void **state)
{
	struct host_ctrl ctrl;
	uint64_t csts = 1;
	int i;

	(void)state;
	rig_attach(&rig, &ctrl, 1);
	assert_int_equal(host_prop_set(&ctrl.admin, NVME_REG_CC, false, 0), 0);
	for (i = 0; i < 500 && (csts & 1); i++) {
		assert_int_equal(host_prop_get(&ctrl.admin, NVME_REG_CSTS, false, &csts), 0);
		usleep(10000);
	}
	assert_int_equal(csts & 1, 0);
	assert_int_not_equal(host_flush(&ctrl.io[0], 1), 0);
	assert_int_equal(host_enable(&ctrl.admin), 0);
	host_close(&ctrl.io[0]);
	assert_int_equal(host_attach_io(&ctrl, &ctrl.io[0], 1), 0);
	assert_int_equal(host_flush(&ctrl.io[0], 1), 0);
	host_detach(&ctrl);
}

/* --- many queues --- */

static void all_128_queues_work_at_full_depth(void **state)
{
	static uint8_t data[HOST_DEPTH][4096];
	static struct host_io io[HOST_DEPTH];
	struct host_io *done;
	struct host_ctrl ctrl;
	unsigned int i, n;

	(void)state;
	rig_attach(&rig, &ctrl, 128);
	for (n = 0; n < 128; n++) {
		for (i = 0; i < HOST_DEPTH - 1; i++) {
			host_set_rw(&io[i], nvme_cmd_read, 1, i * 8, 8, data[i], 4096);
			assert_int_equal(host_submit(&ctrl.io[n], &io[i]), 0);
		}
		for (i = 0; i < HOST_DEPTH - 1; i++) {
			assert_int_equal(host_reap(&ctrl.io[n], &done), 0);
			assert_int_equal(done->status, 0);
		}
	}
	host_detach(&ctrl);
}

static void associations_come_and_go(void **state)
{
	struct host_ctrl ctrl;
	int i;

	(void)state;
	for (i = 0; i < 50; i++) {
		rig_attach(&rig, &ctrl, 3);
		assert_int_equal(host_flush(&ctrl.io[i % 3], 1), 0);
		if (i % 2)
			host_close(&ctrl.admin); /* before the others */
		host_detach(&ctrl);
	}
}

static void the_end_of_the_admin_queue_ends_the_association(void **state)
{
	struct host_ctrl ctrl;

	(void)state;
	rig_attach(&rig, &ctrl, 2);
	host_close(&ctrl.admin);
	assert_int_equal(host_wait_close(&ctrl.io[0]), 0);
	assert_int_equal(host_wait_close(&ctrl.io[1]), 0);
	host_detach(&ctrl);
}

/* --- keep alive --- */

static void without_keep_alives_the_association_ends(void **state)
{
	struct host_ctrl ctrl;
	uint64_t start = now_ms();

	(void)state;
	assert_int_equal(host_attach(&ctrl, LOCAL, rig.port, RIG_NQN, NULL, NULL, 1, 1000), 0);
	assert_int_equal(host_wait_close(&ctrl.io[0]), 0);
	assert_int_equal(host_wait_close(&ctrl.admin), 0);
	assert_in_range(now_ms() - start, 900, 5000 * rig_slowness());
	host_detach(&ctrl);
}

static void keep_alives_keep_the_association(void **state)
{
	struct host_ctrl ctrl, no_timer;
	int i;

	(void)state;
	assert_int_equal(host_attach(&ctrl, LOCAL, rig.port, RIG_NQN, NULL, NULL, 1, 1000), 0);
	rig_attach(&rig, &no_timer, 1); /* kato 0 */
	for (i = 0; i < 10; i++) {
		usleep(300000);
		assert_int_equal(host_keep_alive(&ctrl.admin), 0);
	}
	assert_int_equal(host_flush(&ctrl.io[0], 1), 0);
	assert_int_equal(host_flush(&no_timer.io[0], 1), 0);
	host_detach(&ctrl);
	host_detach(&no_timer);
}

/* --- zombie writes --- */

static void no_write_of_a_dead_association_runs_in_the_next(void **state)
{
	enum { N = 32, LEN = 1 << 20 };
	static uint8_t data[LEN];
	static struct host_io io[N];
	const struct linger now = { .l_onoff = 1 };
	struct host_ctrl ctrl;
	struct rig_ns ns;
	struct nvme_zns_desc a, b;
	int i, round;

	(void)state;
	for (round = 0; round < 3; round++) {
		rig_attach(&rig, &ctrl, 1);
		rig_identify(&ctrl, 1, &ns);
		assert_int_equal(host_zone(&ctrl.io[0], 1, 0, NVME_ZNS_ZSA_RESET, true), 0);
		for (i = 0; i < N; i++) {
			host_set_rw(&io[i], nvme_zns_cmd_append, 1, 0, 16, data, 16 * ns.lba);
			assert_int_equal(host_submit(&ctrl.io[0], &io[i]), 0);
		}
		setsockopt(ctrl.io[0].fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		setsockopt(ctrl.admin.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		host_detach(&ctrl);
		rig_attach(&rig, &ctrl, 1);
		a = rig_zone(&ctrl.io[0], &ns, 0);
		usleep(50000);
		b = rig_zone(&ctrl.io[0], &ns, 0);
		assert_int_equal(a.wp, b.wp);
		assert_int_equal(host_write(&ctrl.io[0], 1, le64toh(b.wp), 1, data, ns.lba), 0);
		host_detach(&ctrl);
	}
}

/* --- discovery --- */

static void the_discovery_log_names_the_subsystem(void **state)
{
	static uint8_t log[16384], part[16384];
	struct nvmf_discovery_log *head = (void *)log;
	struct nvmf_disc_log_entry *e = NULL;
	struct host_ctrl ctrl;
	struct host_queue *q = &ctrl.admin;
	unsigned int i, found = 0;
	uint32_t size;

	(void)state;
	assert_int_equal(
		host_attach(&ctrl, LOCAL, rig.port, NVME_DISC_SUBSYS_NAME, NULL, NULL, 0, 0), 0);
	assert_int_equal(host_get_log(q, NVME_LOG_LID_DISCOVER, 0, 0, 0, log, 1024), 0);
	assert_int_equal(le16toh(head->recfmt), 0);
	size = 1024 + le64toh(head->numrec) * 1024;
	assert_in_range(size, 2048, sizeof(log));
	assert_int_equal(host_get_log(q, NVME_LOG_LID_DISCOVER, 0, 0, 0, log, size), 0);
	for (i = 0; i < le64toh(head->numrec); i++) {
		if (head->entries[i].subtype == NVME_NQN_NVME) {
			e = &head->entries[i];
			found++;
		}
	}
	assert_int_equal(found, 1);
	assert_string_equal(e->subnqn, RIG_NQN);
	assert_int_equal(e->trtype, NVMF_TRTYPE_TCP);
	assert_int_equal(e->adrfam, NVMF_ADDR_FAMILY_IP4);
	assert_int_equal(le16toh(e->cntlid), 0xffff);
	assert_true(le16toh(e->asqsz) >= 32);
	assert_memory_equal(e->traddr, LOCAL, strlen(LOCAL));
	assert_memory_equal(e->trsvcid, rig.port, strlen(rig.port));
	/* By pieces, at offsets. */
	for (i = 0; i < size; i += 512)
		assert_int_equal(host_get_log(q, NVME_LOG_LID_DISCOVER, 0, 0, i, part + i, 512), 0);
	assert_memory_equal(part, log, size);
	assert_int_equal(host_get_log(q, NVME_LOG_LID_DISCOVER, 0, 0, 2, part, 512),
			 NVME_SC_INVALID_FIELD);
	assert_int_equal(host_get_log(q, NVME_LOG_LID_DISCOVER, 0, 0, size + 4096, part, 512),
			 NVME_SC_INVALID_FIELD);
	host_detach(&ctrl);
}

static void a_discovery_controller_is_no_more_than_that(void **state)
{
	struct host_ctrl ctrl;
	struct host_queue q;
	struct nvme_id_ctrl id;

	(void)state;
	assert_int_equal(
		host_attach(&ctrl, LOCAL, rig.port, NVME_DISC_SUBSYS_NAME, NULL, NULL, 0, 10000),
		0);
	assert_int_equal(host_identify(&ctrl.admin, NVME_IDENTIFY_CNS_CTRL, 0, 0, &id), 0);
	assert_int_equal(id.cntrltype, NVME_CTRL_CNTRLTYPE_DISCOVERY);
	assert_int_equal(host_keep_alive(&ctrl.admin), 0);
	assert_true(host_attach_io(&ctrl, &q, 1) > 0);
	assert_int_equal(host_keep_alive(&ctrl.admin), 0);
	host_detach(&ctrl);
}

static void the_identify_of_the_controller_agrees_with_connect(void **state)
{
	struct host_ctrl ctrl;
	struct nvme_id_ctrl id;

	(void)state;
	rig_attach(&rig, &ctrl, 0);
	assert_int_equal(host_identify(&ctrl.admin, NVME_IDENTIFY_CNS_CTRL, 0, 0, &id), 0);
	assert_string_equal(id.subnqn, RIG_NQN);
	assert_int_equal(id.cntrltype, NVME_CTRL_CNTRLTYPE_IO);
	assert_int_equal(le16toh(id.cntlid), ctrl.cntlid);
	assert_true(le16toh(id.kas) && id.vwc & 1);
	assert_true(le32toh(id.iorcsz) >= 1 && le16toh(id.icdoff) == 0);
	assert_true(le16toh(id.maxcmd) >= 128);
	assert_true(le32toh(id.sgls) & 3 && le32toh(id.sgls) & 1u << 20);
	host_detach(&ctrl);
}

static void admin_commands_are_refused_with_the_right_status(void **state)
{
	struct host_ctrl ctrl;
	struct host_queue *q = &ctrl.admin;
	uint8_t buf[4096];
	uint32_t value;

	(void)state;
	rig_attach(&rig, &ctrl, 1);
	assert_int_equal(host_identify(q, 0xee, 0, 0, buf), NVME_SC_INVALID_FIELD);
	assert_int_equal(host_identify(q, NVME_IDENTIFY_CNS_NS_ACTIVE_LIST, 0xfffffffe, 0, buf),
			 NVME_SC_INVALID_NS);
	assert_int_equal(host_get_log(q, 0xee, 0, 0, 0, buf, 512),
			 NVME_SCT_SPECIFIC | NVME_SC_INVALID_LOG_PAGE);
	assert_int_equal(host_get_feature(q, 0xee, 0, &value), NVME_SC_INVALID_FIELD);
	assert_int_equal(host_set_feature(q, NVME_FEAT_FID_NUM_QUEUES, 0, 0x00070007, &value),
			 NVME_SC_CMD_SEQ_ERROR);
	assert_int_equal(host_get_feature(q, NVME_FEAT_FID_VOLATILE_WC, 0, &value), 0);
	assert_int_equal(value & 1, 1);
	host_detach(&ctrl);
}

static void the_fifth_async_event_request_is_one_too_many(void **state)
{
	struct host_io io[5], *done;
	struct host_ctrl ctrl;
	int i;

	(void)state;
	rig_attach(&rig, &ctrl, 0);
	for (i = 0; i < 5; i++) {
		io[i] = (struct host_io){ .sqe = { .opcode = nvme_admin_async_event } };
		assert_int_equal(host_submit(&ctrl.admin, &io[i]), 0);
	}
	assert_int_equal(host_reap(&ctrl.admin, &done), 0);
	assert_ptr_equal(done, &io[4]);
	assert_int_equal(done->status, NVME_SCT_SPECIFIC | NVME_SC_ASYNC_LIMIT);
	assert_int_equal(host_keep_alive(&ctrl.admin), NVME_SC_KAT_INVALID); /* no timer */
	host_detach(&ctrl);
}

/* --- several of everything --- */

static void several_subsystems_and_hosts_share_a_port(void **state)
{
	char a[160], b[160], second[96];
	const char *args[] = { "--threads", "2", a, b, NULL };
	struct host_ctrl one, two, three;
	uint8_t ids[2][4096];
	struct rig_ns ns;

	(void)state;
	rig_init(&rig);
	snprintf(second, sizeof(second), "%s/second.qcow2", rig.dir);
	snprintf(a, sizeof(a), "%s,nqn=" NQN_A, rig.img);
	snprintf(b, sizeof(b), "%s,nqn=" NQN_B ",lba=4096", second);
	assert_int_equal(rig_create(&rig, rig.img, RIG_SEED), 0);
	assert_int_equal(rig_create(&rig, second, RIG_SEED), 0);
	assert_int_equal(rig_start(&rig, args, NULL), 0);
	assert_int_equal(host_attach(&one, LOCAL, rig.port, NQN_A, NULL, NULL, 2, 0), 0);
	assert_int_equal(host_attach(&two, LOCAL, rig.port, NQN_A, HOST_2, NULL, 2, 0), 0);
	assert_int_equal(host_attach(&three, LOCAL, rig.port, NQN_B, HOST_2, NULL, 2, 0), 0);
	assert_int_not_equal(one.cntlid, two.cntlid);
	rig_identify(&one, 1, &ns);
	rig_write(&one.io[0], &ns, 0, 100, 1);
	rig_verify(&two.io[1], &ns, 0, 100, 1);
	rig_identify(&three, 1, &ns);
	assert_int_equal(ns.lba, 4096);
	rig_verify_zeroes(&three.io[0], &ns, 0, 10);
	assert_int_equal(host_identify(&one.admin, NVME_IDENTIFY_CNS_NS_DESC_LIST, 1, 0, ids[0]),
			 0);
	assert_int_equal(host_identify(&three.admin, NVME_IDENTIFY_CNS_NS_DESC_LIST, 1, 0, ids[1]),
			 0);
	assert_memory_not_equal(ids[0], ids[1], 40);
	host_detach(&one);
	host_detach(&two);
	host_detach(&three);
	unserve(NULL);
}

static void only_allowed_hosts_may_connect(void **state)
{
	const char *args[] = { "--allow-host", HOST_2, rig.img, NULL };
	struct host_ctrl ctrl;

	(void)state;
	rig_init(&rig);
	assert_int_equal(rig_create(&rig, rig.img, RIG_SEED), 0);
	assert_int_equal(rig_start(&rig, args, NULL), 0);
	assert_int_equal(host_attach(&ctrl, LOCAL, rig.port, RIG_NQN, NULL, NULL, 1, 0),
			 NVME_SCT_SPECIFIC | NVME_SC_CONNECT_INVALID_HOST);
	assert_int_equal(host_attach(&ctrl, LOCAL, rig.port, RIG_NQN, HOST_2, NULL, 1, 0), 0);
	host_detach(&ctrl);
	unserve(NULL);
}

static void several_addresses_serve_ipv4_and_ipv6(void **state)
{
	const char *args[] = { "--listen", "[::1]:0", rig.img, NULL };
	char nqn[224] = "";
	struct host_ctrl ctrl;
	int fd = socket(AF_INET6, SOCK_STREAM, 0);

	(void)state;
	if (fd < 0 || access("/proc/net/if_inet6", R_OK)) {
		print_message("no IPv6 here\n");
		skip();
	}
	close(fd);
	rig_init(&rig);
	assert_int_equal(rig_create(&rig, rig.img, RIG_SEED), 0);
	assert_int_equal(rig_start(&rig, args, NULL), 0);
	assert_int_equal(host_discover("::1", rig.port, nqn), 0);
	assert_string_equal(nqn, RIG_NQN);
	assert_int_equal(host_attach(&ctrl, "::1", rig.port, nqn, NULL, NULL, 1, 0), 0);
	assert_int_equal(host_flush(&ctrl.io[0], 1), 0);
	host_detach(&ctrl);
	unserve(NULL);
}

#define t cmocka_unit_test

int main(void)
{
	const struct CMUnitTest one[] = {
		t(an_admin_connect_is_checked),
		t(an_io_connect_is_checked),
		t(a_queue_in_use_is_not_given_twice),
		t(an_io_queue_waits_for_enable),
		t(nothing_goes_before_connect),
		t(a_second_connect_is_a_sequence_error),
		t(properties_have_their_widths_and_values),
		t(a_shutdown_completes),
		t(a_disabled_controller_has_no_io_queues),
		t(all_128_queues_work_at_full_depth),
		t(associations_come_and_go),
		t(the_end_of_the_admin_queue_ends_the_association),
		t(without_keep_alives_the_association_ends),
		t(keep_alives_keep_the_association),
		t(no_write_of_a_dead_association_runs_in_the_next),
		t(the_discovery_log_names_the_subsystem),
		t(a_discovery_controller_is_no_more_than_that),
		t(the_identify_of_the_controller_agrees_with_connect),
		t(admin_commands_are_refused_with_the_right_status),
		t(the_fifth_async_event_request_is_one_too_many),
	};
	const struct CMUnitTest several[] = {
		t(several_subsystems_and_hosts_share_a_port),
		t(only_allowed_hosts_may_connect),
		t(several_addresses_serve_ipv4_and_ipv6),
	};
	int failed = 0;

	failed += cmocka_run_group_tests_name("one", one, serve_one, unserve);
	failed += cmocka_run_group_tests_name("several", several, NULL, NULL);
	return failed;
}
