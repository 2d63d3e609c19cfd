// SPDX-License-Identifier: MIT
/* The initiator against a target of forty lines: what it sends, and that it is a strict judge. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "host.h"

/* A queue whose other end is a thread running PLAY. */
struct stage {
	struct host_queue q;
	int fd;
	pthread_t thread;
};

static void stage_open(struct stage *s, void *(*play)(void *))
{
	int fds[2];

	memset(s, 0, sizeof(*s));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	s->q.fd = fds[0];
	s->q.icd = 8192;
	s->q.maxh2cdata = 4096;
	s->q.maxr2t = 1;
	s->fd = fds[1];
	assert_int_equal(host_set_timeout(&s->q, 5000), 0);
	assert_int_equal(pthread_create(&s->thread, NULL, play, s), 0);
}

static void stage_close(struct stage *s)
{
	pthread_join(s->thread, NULL);
	close(s->fd);
	host_close(&s->q);
}

static void get(int fd, void *buf, size_t len)
{
	if (recv(fd, buf, len, MSG_WAITALL) != (ssize_t)len)
		abort();
}

static void respond(int fd, uint16_t cid, uint16_t status)
{
	struct host_resp_pdu resp = {
		.ch = { .type = HOST_CAPSULE_RESP, .hlen = 24, .plen = htole32(24) },
		.cqe = { .cid = cid, .status = htole16(status << 1) },
	};

	if (send(fd, &resp, sizeof(resp), 0) != sizeof(resp))
		abort();
}

static void crc_of_the_check_string_is_right(void **state)
{
	(void)state;
	assert_int_equal(host_crc32c("123456789", 9), 0xe3069283);
	assert_int_equal(host_crc32c("", 0), 0);
}

static void *play_r2t(void *arg)
{
	struct stage *s = arg;
	struct host_cmd_pdu cmd;
	struct host_data_pdu r2t = {
		.ch = { .type = HOST_R2T, .hlen = 24, .plen = htole32(24) },
		.ttag = 77,
		.len = htole32(10000),
	};
	struct host_data_pdu data;
	uint8_t buf[4096];
	uint32_t at = 0;

	get(s->fd, &cmd, sizeof(cmd));
	r2t.cid = cmd.sqe.cid;
	if (send(s->fd, &r2t, sizeof(r2t), 0) != sizeof(r2t))
		abort();
	while (at < 10000) {
		get(s->fd, &data, sizeof(data));
		if (data.ttag != 77 || le32toh(data.off) != at ||
		    le32toh(data.ch.plen) != 24 + le32toh(data.len) ||
		    !!(data.ch.flags & HOST_F_LAST) != (at + le32toh(data.len) == 10000))
			break;
		get(s->fd, buf, le32toh(data.len));
		at += le32toh(data.len);
	}
	respond(s->fd, cmd.sqe.cid, at == 10000 ? 0 : NVME_SC_INTERNAL);
	return NULL;
}

static void an_r2t_is_answered_in_pieces_the_target_takes(void **state)
{
	struct stage s;
	uint8_t buf[10000] = { 1 };
	struct host_io io = { .dir = HOST_WRITE, .buf = buf, .len = sizeof(buf) };

	(void)state;
	stage_open(&s, play_r2t);
	assert_int_equal(host_cmd(&s.q, &io), 0);
	assert_int_equal(io.r2ts, 1);
	stage_close(&s);
}

static void *play_digests(void *arg)
{
	struct stage *s = arg;
	struct host_cmd_pdu cmd;
	uint8_t rest[4 + 4 + 512 + 4]; /* digest, padding to 80, data, digest */
	uint32_t hd, dd;
	bool ok;

	get(s->fd, &cmd, sizeof(cmd));
	get(s->fd, rest, sizeof(rest));
	memcpy(&hd, rest, 4);
	memcpy(&dd, rest + sizeof(rest) - 4, 4);
	ok = cmd.ch.pdo == 80 && cmd.ch.flags == (HOST_F_HDGST | HOST_F_DDGST) &&
	     le32toh(cmd.ch.plen) == sizeof(cmd) + sizeof(rest) &&
	     hd == host_crc32c(&cmd, sizeof(cmd)) && dd == host_crc32c(rest + 8, 512);
	s->q.hdgst = false; /* the answer comes plain */
	respond(s->fd, cmd.sqe.cid, ok ? 0 : NVME_SC_INTERNAL);
	return NULL;
}

static void a_capsule_has_its_digests_and_padding(void **state)
{
	struct stage s;
	uint8_t buf[512] = { 3 };
	struct host_io *done, io = { .dir = HOST_WRITE, .buf = buf, .len = sizeof(buf) };

	(void)state;
	stage_open(&s, play_digests);
	s.q.hdgst = s.q.ddgst = true;
	s.q.cpda = 1;
	assert_int_equal(host_submit(&s.q, &io), 0);
	pthread_join(s.thread, NULL);
	assert_int_equal(host_reap(&s.q, &done), 0);
	assert_ptr_equal(done, &io);
	assert_int_equal(io.status, 0);
	close(s.fd);
	host_close(&s.q);
}

static void *play_short_read(void *arg)
{
	struct stage *s = arg;
	struct host_cmd_pdu cmd;

	get(s->fd, &cmd, sizeof(cmd));
	respond(s->fd, cmd.sqe.cid, 0);
	return NULL;
}

static void a_read_without_its_data_breaks_the_protocol(void **state)
{
	struct stage s;
	uint8_t buf[512];
	struct host_io io = { .dir = HOST_READ, .buf = buf, .len = sizeof(buf) };

	(void)state;
	stage_open(&s, play_short_read);
	assert_int_equal(host_cmd(&s.q, &io), -EPROTO);
	stage_close(&s);
}

static void *play_r2t_for_read(void *arg)
{
	struct stage *s = arg;
	struct host_cmd_pdu cmd;
	struct host_data_pdu r2t = {
		.ch = { .type = HOST_R2T, .hlen = 24, .plen = htole32(24) },
		.len = htole32(512),
	};

	get(s->fd, &cmd, sizeof(cmd));
	r2t.cid = cmd.sqe.cid;
	if (send(s->fd, &r2t, sizeof(r2t), 0) != sizeof(r2t))
		abort();
	return NULL;
}

static void an_r2t_for_a_read_breaks_the_protocol(void **state)
{
	struct stage s;
	uint8_t buf[512];
	struct host_io io = { .dir = HOST_READ, .buf = buf, .len = sizeof(buf) };

	(void)state;
	stage_open(&s, play_r2t_for_read);
	assert_int_equal(host_cmd(&s.q, &io), -EPROTO);
	stage_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc_of_the_check_string_is_right),
		cmocka_unit_test(an_r2t_is_answered_in_pieces_the_target_takes),
		cmocka_unit_test(a_capsule_has_its_digests_and_padding),
		cmocka_unit_test(a_read_without_its_data_breaks_the_protocol),
		cmocka_unit_test(an_r2t_for_a_read_breaks_the_protocol),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
