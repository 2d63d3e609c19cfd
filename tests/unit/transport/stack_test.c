// SPDX-License-Identifier: MIT
/* The transport under the real target: a discovery controller over a socket, and its ends. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <cmocka.h>
#include "target.h"
#include "loop.h"
#include "pdu.h"
#include "tcp.h"

static struct {
	struct workers *pool;
	struct loop *loop;
	pthread_t thread;
	struct tgt *tgt;
	struct tcp_server *tcp;
	struct tcp_listener *listener;
} up;

static void *run(void *arg)
{
	loop_run(arg);
	return NULL;
}

static void stopped(void *arg)
{
	loop_stop(arg);
}

static void bring_up(void)
{
	char err[256] = "";

	log_level(LOG_ERR_);
	up.pool = workers_new(1);
	up.loop = loop_new(up.pool);
	up.tgt = tgt_new();
	up.tcp = tcp_new(up.tgt, &up.loop, 1, NULL);
	assert_non_null(up.tcp);
	if (tcp_listen(up.tcp, "127.0.0.1", 0, &up.listener, err, sizeof(err)))
		fail_msg("%s", err);
	pthread_create(&up.thread, NULL, run, up.loop);
}

static void bring_down(void)
{
	uint64_t start = clock_ms();

	tcp_shutdown(up.tcp, stopped, up.loop);
	pthread_join(up.thread, NULL);
	assert_true(clock_ms() - start < 1800);
	assert_int_equal(tgt_free(up.tgt), 0);
	tcp_free(up.tcp);
	workers_free(up.pool);
	loop_free(up.loop);
}

static int dial(void)
{
	struct sockaddr_in in = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)atoi(tcp_listener_port(up.listener)->trsvcid)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct timeval tv = { .tv_sec = 10 };
	struct pdu_icreq ic = { .h = { .hlen = 128, .plen = htole32(128) } };
	struct pdu_icresp resp;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	assert_int_equal(send(fd, &ic, sizeof(ic), MSG_NOSIGNAL), sizeof(ic));
	assert_int_equal(recv(fd, &resp, sizeof(resp), MSG_WAITALL), sizeof(resp));
	return fd;
}

static void put_cmd(int fd, const void *sqe, const void *data, uint32_t len)
{
	struct pdu_cmd p = { .h = { .type = PDU_CMD, .hlen = 72, .plen = htole32(72 + len) } };
	uint8_t buf[72 + 1024];

	if (len)
		p.h.pdo = 72;
	memcpy(&p.sqe, sqe, sizeof(p.sqe));
	memcpy(buf, &p, 72);
	if (len)
		memcpy(buf + 72, data, len);
	assert_int_equal(send(fd, buf, 72 + len, MSG_NOSIGNAL), 72 + len);
}

/* The status in the response; its result in *RESULT. */
static uint16_t get_resp(int fd, uint64_t *result)
{
	struct pdu_resp r;

	assert_int_equal(recv(fd, &r, sizeof(r), MSG_WAITALL), sizeof(r));
	assert_int_equal(r.h.type, PDU_RESP);
	*result = le64toh(r.cqe.result);
	return le16toh(r.cqe.status) >> 1;
}

static uint16_t property(int fd, bool set, uint32_t offset, uint64_t *value)
{
	struct nvmf_property_sqe sqe = {
		.opcode = nvme_admin_fabrics,
		.flags = NVME_SQE_PSDT_SGL,
		.cid = 2,
		.fctype = set ? nvme_fabrics_type_property_set : nvme_fabrics_type_property_get,
		.attrib = offset == NVME_REG_CAP,
		.offset = htole32(offset),
		.value = htole64(set ? *value : 0),
	};
	struct nvme_sgl_desc none = { .type = NVME_SGL_TRANSPORT };

	memcpy((uint8_t *)&sqe + offsetof(struct nvme_sqe, dptr), &none, sizeof(none));
	put_cmd(fd, &sqe, NULL, 0);
	return get_resp(fd, value);
}

static int dial_discovery(void)
{
	struct nvmf_connect_sqe sqe = {
		.opcode = nvme_admin_fabrics,
		.flags = NVME_SQE_PSDT_SGL,
		.cid = 1,
		.fctype = nvme_fabrics_type_connect,
		.dptr = { .length = htole32(1024), .type = NVME_SGL_OFFSET },
		.sqsize = htole16(31),
		.kato = htole32(60000),
	};
	struct nvmf_connect_data data = { .cntlid = htole16(0xffff) };
	uint64_t value = 0;
	int fd = dial();

	memset(data.hostid, 7, sizeof(data.hostid));
	strcpy(data.subsysnqn, "nqn.2014-08.org.nvmexpress.discovery");
	strcpy(data.hostnqn, "nqn.2014-08.org.example:host");
	put_cmd(fd, &sqe, &data, sizeof(data));
	assert_int_equal(get_resp(fd, &value), 0);
	assert_int_not_equal(value & 0xffff, 0);
	assert_int_equal(property(fd, false, NVME_REG_CAP, &value), 0);
	assert_int_not_equal(value, 0);
	value = 0x460001;
	assert_int_equal(property(fd, true, NVME_REG_CC, &value), 0);
	assert_int_equal(property(fd, false, NVME_REG_CSTS, &value), 0);
	assert_int_equal(value & 1, 1);
	return fd;
}

static void put_aer(int fd, uint16_t cid)
{
	struct nvme_sqe sqe = {
		.opcode = nvme_admin_async_event,
		.flags = NVME_SQE_PSDT_SGL,
		.cid = cid,
		.dptr = { .type = NVME_SGL_TRANSPORT },
	};

	put_cmd(fd, &sqe, NULL, 0);
}

static void a_host_identifies_the_discovery_controller(void **state)
{
	struct nvme_sqe sqe = {
		.opcode = nvme_admin_identify,
		.flags = NVME_SQE_PSDT_SGL,
		.cid = 3,
		.dptr = { .length = htole32(4096), .type = NVME_SGL_TRANSPORT },
		.cdw10 = htole32(NVME_IDENTIFY_CNS_CTRL),
	};
	struct nvme_id_ctrl id;
	struct pdu_data d;
	uint64_t value;
	int fd;

	(void)state;
	bring_up();
	fd = dial_discovery();
	put_cmd(fd, &sqe, NULL, 0);
	assert_int_equal(recv(fd, &d, sizeof(d), MSG_WAITALL), sizeof(d));
	assert_int_equal(d.h.type, PDU_C2H_DATA);
	assert_int_equal(le32toh(d.datal), 4096);
	assert_int_equal(recv(fd, &id, sizeof(id), MSG_WAITALL), sizeof(id));
	assert_int_equal(get_resp(fd, &value), 0);
	assert_string_equal(id.subnqn, "nqn.2014-08.org.nvmexpress.discovery");
	close(fd);
	bring_down();
}

static void shutdown_does_not_wait_for_events(void **state)
{
	int fd;

	(void)state;
	bring_up();
	fd = dial_discovery();
	put_aer(fd, 9);
	bring_down();
	close(fd);
}

static void hosts_come_and_vanish_with_events_outstanding(void **state)
{
	(void)state;
	bring_up();
	for (int i = 0; i < 20; i++) {
		int fd = dial_discovery();

		put_aer(fd, 9);
		close(fd);
	}
	bring_down();
}

static void a_disconnect_is_answered_and_then_done(void **state)
{
	struct nvmf_connect_sqe sqe = {
		.opcode = nvme_admin_fabrics,
		.flags = NVME_SQE_PSDT_SGL,
		.cid = 5,
		.fctype = nvme_fabrics_type_disconnect,
		.dptr = { .type = NVME_SGL_TRANSPORT },
	};
	uint64_t value;
	char c;
	int fd;

	(void)state;
	bring_up();
	fd = dial_discovery();
	put_cmd(fd, &sqe, NULL, 0);
	get_resp(fd, &value); /* refused on the admin queue, or done: answered in both cases */
	close(fd);
	fd = dial();
	put_aer(fd, 1); /* before Connect: refused */
	assert_int_equal(get_resp(fd, &value), NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR);
	bring_down();
	assert_true(recv(fd, &c, 1, 0) <= 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_host_identifies_the_discovery_controller),
		cmocka_unit_test(shutdown_does_not_wait_for_events),
		cmocka_unit_test(hosts_come_and_vanish_with_events_outstanding),
		cmocka_unit_test(a_disconnect_is_answered_and_then_done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
