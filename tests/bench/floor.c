// SPDX-License-Identifier: MIT
/*
 * The floor: what a loop over TCP can do at best with the messages of NVMe/TCP. It stands on the
 * drive's own loop (target/loop/loop.h) and the same socket options as transport/tcp/listen.c, but
 * there is no NVMe behind it: no queue, no zone, no file, no check. znsbench --floor sends it the same bytes as
 * a drive would get, and it answers with as many bytes as a drive would:
 *
 *	capsule of a read			C2HData, with data and SUCCESS
 *	capsule with data in it			CapsuleResp
 *	capsule of a write without data		R2T for all of it
 *	H2CData					CapsuleResp
 *
 * So it must read as much of a header as tells where the message ends, and give back the CID. All
 * that came in a wake-up is answered with one sendmsg; data comes from one constant buffer, and what
 * arrives is dropped in one. Digests are bytes without a meaning here: with a header digest in the
 * capsule, everything in the answer has its digest.
 *
 * It serves whoever connects to 127.0.0.1, on the port that it prints, until it is told to end or
 * its parent does:	znsfloor [LOOPS]
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <event2/event.h>
#include "host.h"
#include "loop.h"

#define RX_SIZE	  (64u << 10)
#define RX_ROOM	  128u	      /* before it: the piece of a header */
#define READ_MAX  (64u << 10) /* bytes a wake-up and connection, as the drive */
#define DATA_MAX  (1u << 20)
#define ANSWERS	  256u /* owed at once: twice the deepest queue */
#define LOOPS_MAX 64

/* One message that is owed. */
struct answer {
	uint8_t head[32];
	uint32_t head_len, data_len; /* data: with its digest */
};

struct floor_conn {
	int fd;
	bool full;
	struct event *rd, *wr;
	struct floor_loop *home;
	struct loop_msg start_msg;
	uint8_t piece[RX_ROOM];
	uint32_t have, skip;
	struct answer answers[ANSWERS]; /* first to last - 1, modulo ANSWERS */
	uint32_t first, last;
	size_t sent; /* bytes of the first */
};

struct floor_loop {
	struct loop *loop;
	uint8_t *rx;
};

static struct floor_loop homes[LOOPS_MAX];
static unsigned int nr_homes = 1, next_home;
static uint8_t data[DATA_MAX + 4];

static void conn_end(struct floor_conn *c)
{
	event_free(c->rd);
	event_free(c->wr);
	close(c->fd);
	free(c);
}

/* ---- send ---- */

static size_t answer_len(const struct answer *a)
{
	return a->head_len + a->data_len;
}

/* What is owed, from the first byte that was not sent: the pieces of it. */
static int owed(const struct floor_conn *c, struct iovec *iov)
{
	size_t skip = c->sent;
	int n = 0;

	for (uint32_t i = c->first; i != c->last; i++) {
		const struct answer *a = &c->answers[i % ANSWERS];
		size_t head = skip < a->head_len ? skip : a->head_len;

		if (head < a->head_len)
			iov[n++] = (struct iovec){ (void *)(uintptr_t)(a->head + head),
						   a->head_len - head };
		skip -= head;
		if (skip < a->data_len)
			iov[n++] = (struct iovec){ data + skip, a->data_len - skip };
		skip = 0;
	}
	return n;
}

/* 0, or -errno: the connection is broken. */
static int conn_send(struct floor_conn *c)
{
	struct iovec iov[2 * ANSWERS];
	struct msghdr msg = { .msg_iov = iov };
	bool full = false;
	ssize_t n;

	while (c->first != c->last && !full) {
		msg.msg_iovlen = (size_t)owed(c, iov);
		n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN)
			return -errno;
		full = n < 0;
		c->sent += full ? 0 : (size_t)n;
		while (c->first != c->last &&
		       c->sent >= answer_len(&c->answers[c->first % ANSWERS]))
			c->sent -= answer_len(&c->answers[c->first++ % ANSWERS]);
	}
	if (full != c->full)
		(full ? event_add(c->wr, NULL) : event_del(c->wr));
	c->full = full;
	return 0;
}

/* ---- receive ---- */

/* Owes a message of TYPE with DIGEST bytes for each digest. 0, or -errno. */
static int answer(struct floor_conn *c, uint8_t type, uint32_t digest, uint16_t cid, uint32_t len)
{
	struct answer *a = &c->answers[c->last % ANSWERS];
	uint8_t flags = digest ? HOST_F_HDGST : 0;

	if (c->last - c->first == ANSWERS || len > DATA_MAX)
		return -ENOBUFS;
	a->head_len = 24 + digest;
	a->data_len = 0;
	if (type == HOST_CAPSULE_RESP) {
		struct host_resp_pdu r = {
			.ch = { type, flags, 24, 0, htole32(24 + digest) },
			.cqe.cid = cid,
		};

		memcpy(a->head, &r, sizeof(r));
	} else {
		struct host_data_pdu d = {
			.ch = { type, flags, 24, 0, htole32(24 + digest) },
			.cid = cid,
			.len = htole32(len),
		};

		if (type == HOST_C2H_DATA) {
			a->data_len = len + digest;
			d.ch.flags |= HOST_F_LAST | HOST_F_SUCCESS | (digest ? HOST_F_DDGST : 0);
			d.ch.pdo = (uint8_t)a->head_len;
			d.ch.plen = htole32(a->head_len + a->data_len);
		}
		memcpy(a->head, &d, sizeof(d));
	}
	c->last++;
	return 0;
}

/* The message whose header is at P, if all of that came: how long it is, else 0, or -errno. */
static int take(struct floor_conn *c, const uint8_t *p, size_t have)
{
	struct host_cmd_pdu cmd;
	struct host_data_pdu d;
	uint32_t len, digest;
	int err;

	if (have < sizeof(d) || (*p == HOST_CAPSULE_CMD && have < sizeof(cmd)))
		return 0;
	memcpy(&d, p, sizeof(d));
	digest = d.ch.flags & HOST_F_HDGST ? 4 : 0;
	if (d.ch.type == HOST_H2C_DATA) {
		err = answer(c, HOST_CAPSULE_RESP, digest, d.cid, 0);
	} else if (d.ch.type == HOST_CAPSULE_CMD) {
		memcpy(&cmd, p, sizeof(cmd));
		len = le32toh(cmd.sqe.dptr.length);
		if (cmd.sqe.opcode == nvme_cmd_read)
			err = answer(c, HOST_C2H_DATA, digest, cmd.sqe.cid, len);
		else if (cmd.sqe.dptr.type == NVME_SGL_OFFSET)
			err = answer(c, HOST_CAPSULE_RESP, digest, cmd.sqe.cid, 0);
		else
			err = answer(c, HOST_R2T, digest, cmd.sqe.cid, len);
	} else {
		err = -EPROTO;
	}
	return err ? err : (int)le32toh(d.ch.plen);
}

/* All messages in what came: N bytes at the home's buffer. 0, or -errno. */
static int take_all(struct floor_conn *c, size_t n)
{
	uint8_t *p = c->home->rx + RX_ROOM - c->have, *end = c->home->rx + RX_ROOM + n;

	memcpy(p, c->piece, c->have);
	for (;;) {
		uint32_t step = (size_t)(end - p) < c->skip ? (uint32_t)(end - p) : c->skip;
		int len;

		p += step;
		c->skip -= step;
		if (c->skip)
			break;
		len = take(c, p, (size_t)(end - p));
		if (len < 0)
			return len;
		if (!len)
			break;
		c->skip = (uint32_t)len;
	}
	c->have = (uint32_t)(end - p);
	memcpy(c->piece, p, c->have);
	return 0;
}

static void readable(evutil_socket_t fd, short what, void *arg)
{
	struct floor_conn *c = arg;
	size_t total = 0;
	ssize_t n;
	int err;

	(void)what;
	loop_note_activity(c->home->loop);
	do {
		n = recv(fd, c->home->rx + RX_ROOM, RX_SIZE, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		err = n > 0 ? take_all(c, (size_t)n) : -ENOTCONN;
		if (err) {
			if (err != -ENOTCONN)
				fprintf(stderr, "znsfloor: %s\n", strerror(-err));
			conn_end(c);
			return;
		}
		total += (size_t)n;
	} while (n == RX_SIZE && total < READ_MAX);
	if (!c->full && conn_send(c))
		conn_end(c);
}

static void writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	if (conn_send(arg))
		conn_end(arg);
}

/* ---- connections ---- */

static void conn_start(struct loop_msg *msg)
{
	struct floor_conn *c =
		(struct floor_conn *)((char *)msg - offsetof(struct floor_conn, start_msg));
	struct event_base *base = loop_base(c->home->loop);

	c->rd = event_new(base, c->fd, EV_READ | EV_PERSIST, readable, c);
	c->wr = event_new(base, c->fd, EV_WRITE | EV_PERSIST, writable, c);
	if (!c->rd || !c->wr || event_add(c->rd, NULL))
		abort();
}

static void acceptable(evutil_socket_t fd, short what, void *arg)
{
	const int one = 1;
	struct floor_conn *c;

	(void)what;
	(void)arg;
	c = calloc(1, sizeof(*c));
	if (!c)
		abort();
	c->fd = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (c->fd < 0) {
		free(c);
		return;
	}
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	c->home = &homes[next_home++ % nr_homes];
	c->start_msg.fn = conn_start;
	loop_post(c->home->loop, &c->start_msg);
}

/* A socket that listens on 127.0.0.1, its port in *PORT; or -1. */
static int listen_on(uint16_t *port)
{
	struct sockaddr_in sa = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) || listen(fd, 128) ||
	    getsockname(fd, (struct sockaddr *)&sa, &len))
		return -1;
	*port = ntohs(sa.sin_port);
	return fd;
}

static void *run(void *home)
{
	loop_run(((struct floor_loop *)home)->loop);
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned int busy_poll = 0;
	struct event *ev;
	uint16_t port;
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (argc > 1)
		nr_homes = (unsigned int)strtoul(argv[1], NULL, 10);
	if (argc > 2)
		busy_poll = (unsigned int)strtoul(argv[2], NULL, 10);
	if (argc > 3 || !nr_homes || nr_homes > LOOPS_MAX) {
		fprintf(stderr, "usage: znsfloor [LOOPS [BUSY-POLL-US]]\n");
		return 2;
	}
	host_pattern(data, DATA_MAX, 0, 1);
	for (unsigned int i = 0; i < nr_homes; i++) {
		homes[i].loop = loop_new(NULL);
		homes[i].rx = malloc(RX_ROOM + RX_SIZE);
		if (!homes[i].loop || !homes[i].rx)
			abort();
		loop_busy_poll(homes[i].loop, busy_poll);
	}
	fd = listen_on(&port);
	if (fd < 0) {
		perror("znsfloor");
		return 1;
	}
	ev = event_new(loop_base(homes[0].loop), fd, EV_READ | EV_PERSIST, acceptable, NULL);
	if (!ev || event_add(ev, NULL))
		abort();
	for (unsigned int i = 1; i < nr_homes; i++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, run, &homes[i]))
			abort();
	}
	printf("%u\n", port);
	fflush(stdout);
	run(&homes[0]);
	return 0;
}
