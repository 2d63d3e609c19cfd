// SPDX-License-Identifier: MIT
/*
 * The load generator proper. It must cost so little that what is measured is the other side, so:
 *
 * 1. A wake-up is one recv and one sendmsg a connection. What came is parsed where it lies, in one
 *    buffer that all connections share; only the piece of a header at its end is kept apart.
 * 2. The data of reads has been copied once, by recv, and is stepped over: as a host must have it
 *    in memory, it is not thrown away unread (MSG_TRUNC). It is not compared, and digests of what
 *    comes are not checked: that the drive is right is the business of other tests.
 * 3. Each slot has its capsule ready. A command patches opcode, address, length and SGL, and
 *    neighbours leave as one piece (without digests), as capsules stand in memory in the order of
 *    their CIDs.
 * 4. Everything written is the same constant data, whose digest is made once.
 * 5. With one connection there is no epoll: recv waits. Polling, nothing waits: then the other side
 *    has nobody to wake up, which on a virtual machine costs more than a command.
 *
 * A command's time runs from the wake-up that submitted it to the recv that brought its end.
 * A status other than success, or a PDU that is not expected, ends the run.
 *
 * One thread. Any NVMe/TCP target will do that asks an R2T for no more than its MAXH2CDATA; for the
 * floor (floor.c) nothing here is different.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include <isa-l/crc.h>
#include "load.h"

#define RX_SIZE (128u << 10)
#define RX_ROOM 32u /* before it, for the piece of a header */
#define HEADER	24u /* of everything that a target sends now */
#define NONE	UINT32_MAX
#define WAIT_MS 20000
#define EVENTS	64

struct load_conn {
	int fd;
	uint32_t first; /* its slot 0, counted over all connections */
	bool hdgst, ddgst;
	bool blocked; /* waits to send */
	uint32_t icd, maxh2cdata, align;
	/* What comes. */
	uint8_t piece[HEADER];
	uint32_t have; /* bytes in piece */
	uint32_t skip; /* bytes that follow the last header */
	uint32_t ends; /* the CID whose command has ended then, or NONE */
	/* What goes: iov[head] to iov[tail - 1]. */
	struct iovec *iov;
	uint32_t head, tail, room;
	uint8_t *capsules, *h2c; /* of each slot, STRIDE apart */
	uint32_t stride;
	uint64_t since[LOAD_DEPTH]; /* ns; 0: idle */
};

uint64_t load_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

__attribute__((format(printf, 3, 4))) static int stop(struct load *l, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(l->why, sizeof(l->why), fmt, ap);
	va_end(ap);
	return err;
}

/* ---- send ---- */

static void push(struct load_conn *c, const void *base, uint32_t len)
{
	struct iovec *last = c->iov + c->tail - 1;

	if (c->tail > c->head && (uint8_t *)last->iov_base + last->iov_len == base) {
		last->iov_len += len;
		return;
	}
	if (c->tail == c->room) {
		memmove(c->iov, c->iov + c->head, (c->tail - c->head) * sizeof(*c->iov));
		c->tail -= c->head;
		c->head = 0;
	}
	c->iov[c->tail++] = (struct iovec){ (void *)(uintptr_t)base, len };
}

static int watch(struct load *l, struct load_conn *c, int op, bool writing)
{
	struct epoll_event ev = {
		.events = EPOLLIN | (writing ? EPOLLOUT : 0),
		.data.ptr = c,
	};

	c->blocked = writing;
	return epoll_ctl(l->epoll, op, c->fd, &ev) ? -errno : 0;
}

static int flush(struct load *l, struct load_conn *c)
{
	struct msghdr msg = { 0 };
	ssize_t n;

	while (c->head < c->tail) {
		msg.msg_iov = c->iov + c->head;
		msg.msg_iovlen = c->tail - c->head;
		n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		l->sends++;
		if (n < 0 && errno == EAGAIN)
			return c->blocked ? 0 : watch(l, c, EPOLL_CTL_MOD, true);
		if (n < 0 && errno != EINTR)
			return stop(l, -errno, "cannot send: %s", strerror(errno));
		while (n > 0 && (size_t)n >= c->iov[c->head].iov_len)
			n -= (ssize_t)c->iov[c->head++].iov_len;
		if (n > 0) {
			c->iov[c->head].iov_base = (uint8_t *)c->iov[c->head].iov_base + n;
			c->iov[c->head].iov_len -= (size_t)n;
		}
	}
	c->head = c->tail = 0;
	return c->blocked ? watch(l, c, EPOLL_CTL_MOD, false) : 0;
}

/* Completes the header at PDU, of HLEN bytes, for LEN bytes of data to follow, and queues it. */
static void push_pdu(struct load *l, struct load_conn *c, uint8_t *pdu, uint32_t hlen, uint32_t len)
{
	struct host_ch *ch = (struct host_ch *)pdu;
	uint32_t pdo = hlen + (c->hdgst ? 4 : 0);
	__le32 digest;

	if (len)
		pdo = (pdo + c->align - 1) / c->align * c->align;
	ch->hlen = (uint8_t)hlen;
	ch->pdo = len ? (uint8_t)pdo : 0;
	ch->plen = htole32(pdo + len + (len && c->ddgst ? 4 : 0));
	ch->flags |= (c->hdgst ? HOST_F_HDGST : 0) | (len && c->ddgst ? HOST_F_DDGST : 0);
	if (c->hdgst) {
		digest = htole32(~crc32_iscsi(pdu, (int)hlen, ~0u));
		memcpy(pdu + hlen, &digest, sizeof(digest));
	}
	push(c, pdu, pdo);
	if (len)
		push(c, l->data, len + (c->ddgst ? 4 : 0)); /* its digest stands behind it */
}

static void submit(struct load *l, struct load_conn *c, uint32_t cid, uint64_t now)
{
	uint8_t *pdu = c->capsules + cid * c->stride;
	struct host_cmd_pdu *cmd = (struct host_cmd_pdu *)pdu;
	struct nvme_sqe *sqe = &cmd->sqe;
	struct plan_op op;
	bool in_capsule;
	uint32_t len;

	if (!l->budget) {
		l->stopping = true;
		return;
	}
	if (!plan_next(l->plan, c->first + cid, &op)) {
		l->full = l->stopping = true;
		return;
	}
	len = op.opcode == nvme_cmd_flush ? 0 : l->plan->bs;
	l->budget -= len ? 1 : 0;
	in_capsule = op.opcode != nvme_cmd_read && len <= c->icd;
	cmd->ch.flags = 0;
	sqe->opcode = op.opcode;
	sqe->dptr.type = in_capsule ? NVME_SGL_OFFSET : NVME_SGL_TRANSPORT;
	sqe->dptr.length = htole32(len);
	sqe->cdw10 = htole32((uint32_t)op.slba);
	sqe->cdw11 = htole32((uint32_t)(op.slba >> 32));
	sqe->cdw12 = htole32(len ? l->plan->blocks - 1 : 0);
	push_pdu(l, c, pdu, sizeof(*cmd), in_capsule ? len : 0);
	c->since[cid] = now;
	l->inflight++;
}

static int send_data(struct load *l, struct load_conn *c, const struct host_data_pdu *r2t)
{
	uint32_t off = le32toh(r2t->off), len = le32toh(r2t->len);
	uint8_t *pdu = c->h2c + r2t->cid * c->stride;
	struct host_data_pdu *d = (struct host_data_pdu *)pdu;

	if (!len || len > c->maxh2cdata || len > l->plan->bs || off > l->plan->bs - len)
		return stop(l, -EPROTO, "an R2T for %u bytes at %u", len, off);
	if (c->ddgst && len != l->plan->bs)
		return stop(l, -EPROTO, "an R2T for a part of the data, and digests");
	*d = (struct host_data_pdu){
		.ch = { .type = HOST_H2C_DATA, .flags = HOST_F_LAST },
		.cid = r2t->cid,
		.ttag = r2t->ttag,
		.off = r2t->off,
		.len = r2t->len,
	};
	push_pdu(l, c, pdu, sizeof(*d), len);
	return 0;
}

/* ---- receive ---- */

static void complete(struct load *l, struct load_conn *c, uint32_t cid, uint64_t now)
{
	const uint8_t *pdu = c->capsules + cid * c->stride;
	const struct host_cmd_pdu *cmd = (const struct host_cmd_pdu *)pdu;
	bool is_flush = cmd->sqe.opcode == nvme_cmd_flush;

	hist_add(is_flush ? &l->flushes : &l->hist, now - c->since[cid]);
	c->since[cid] = 0;
	l->inflight--;
	if (!l->stopping)
		submit(l, c, cid, now);
}

static int take_header(struct load *l, struct load_conn *c, const uint8_t *p)
{
	struct host_resp_pdu resp;
	struct host_data_pdu data;
	uint32_t plen, cid;

	memcpy(&data, p, sizeof(data));
	memcpy(&resp, p, sizeof(resp));
	plen = le32toh(data.ch.plen);
	cid = data.ch.type == HOST_CAPSULE_RESP ? resp.cqe.cid : data.cid;
	if (data.ch.hlen != HEADER || plen < HEADER || cid >= l->depth || !c->since[cid])
		return stop(l, -EPROTO, "a PDU of type %u that answers nothing", data.ch.type);
	c->skip = plen - HEADER;
	switch (data.ch.type) {
	case HOST_C2H_DATA:
		if (data.ch.flags & HOST_F_SUCCESS)
			c->ends = cid;
		return 0;
	case HOST_CAPSULE_RESP:
		if (le16toh(resp.cqe.status) >> 1)
			return stop(l, -EIO, "the target answers status 0x%x",
				    le16toh(resp.cqe.status) >> 1 & 0x7ff);
		c->ends = cid;
		return 0;
	case HOST_R2T:
		return send_data(l, c, &data);
	default:
		return stop(l, -EPROTO, "a PDU of type %u", data.ch.type);
	}
}

/* Nothing came, while polling or by a false alarm. */
static int silence(struct load *l)
{
	if (l->poll && load_clock() > l->until + WAIT_MS * 1000000ull)
		return stop(l, -ETIMEDOUT, "the target says nothing more");
	return 0;
}

static int receive(struct load *l, struct load_conn *c, int flags)
{
	uint8_t *p = l->rx + RX_ROOM - c->have, *end;
	uint64_t now;
	ssize_t n;
	int err;

	n = recv(c->fd, l->rx + RX_ROOM, RX_SIZE, flags);
	if (n < 0 && flags && errno == EAGAIN)
		return silence(l);
	if (n < 0 && errno == EINTR)
		return 0;
	if (n <= 0)
		return stop(l, n ? -errno : -ENOTCONN, "cannot receive: %s",
			    n ? strerror(errno) : "the connection was closed");
	now = load_clock();
	l->wakes++;
	if (now >= l->until)
		l->stopping = true;
	end = l->rx + RX_ROOM + n;
	memcpy(p, c->piece, c->have);
	for (;;) {
		uint32_t step = (size_t)(end - p) < c->skip ? (uint32_t)(end - p) : c->skip;

		p += step;
		c->skip -= step;
		if (c->skip)
			break;
		if (c->ends != NONE)
			complete(l, c, c->ends, now);
		c->ends = NONE;
		if (end - p < HEADER)
			break;
		err = take_header(l, c, p);
		if (err)
			return err;
		p += HEADER;
	}
	c->have = (uint32_t)(end - p);
	memcpy(c->piece, p, c->have);
	return flush(l, c);
}

/* ---- the loop ---- */

static int wait_all(struct load *l)
{
	struct epoll_event ev[EVENTS];
	int n, err = 0;

	n = epoll_wait(l->epoll, ev, EVENTS, l->poll ? 0 : WAIT_MS);
	if (!n && l->poll)
		return silence(l);
	if (n < 0 && errno == EINTR)
		return 0;
	if (n <= 0)
		return stop(l, n ? -errno : -ETIMEDOUT, "the target says nothing more");
	for (int i = 0; i < n && !err; i++) {
		struct load_conn *c = ev[i].data.ptr;

		if (ev[i].events & EPOLLOUT)
			err = flush(l, c);
		if (!err && ev[i].events & ~(uint32_t)EPOLLOUT)
			err = receive(l, c, MSG_DONTWAIT);
	}
	return err;
}

int load_run(struct load *l, uint64_t ns)
{
	uint64_t start = load_clock();
	int err = 0;

	l->until = start + ns;
	l->stopping = l->full = false;
	for (uint32_t i = 0; i < l->nr_conns && !err; i++) {
		for (uint32_t cid = 0; cid < l->depth && !l->stopping; cid++)
			submit(l, &l->conns[i], cid, start);
		err = flush(l, &l->conns[i]);
	}
	while (!err && l->inflight) {
		if (l->nr_conns == 1 && !l->conns[0].blocked)
			err = receive(l, &l->conns[0], l->poll ? MSG_DONTWAIT : 0);
		else
			err = wait_all(l);
	}
	l->ns += load_clock() - start;
	return err ? err : l->full ? LOAD_FULL : 0;
}

void load_clear(struct load *l)
{
	memset(&l->hist, 0, sizeof(l->hist));
	memset(&l->flushes, 0, sizeof(l->flushes));
	l->ns = l->wakes = l->sends = 0;
}

/* ---- the beginning and the end ---- */

int load_init(struct load *l, struct plan *plan, uint32_t conns, uint32_t depth)
{
	__le32 digest;

	memset(l, 0, sizeof(*l));
	l->plan = plan;
	l->depth = depth;
	l->max_conns = conns;
	l->budget = UINT64_MAX;
	l->conns = calloc(conns, sizeof(*l->conns));
	l->rx = malloc(RX_ROOM + RX_SIZE);
	l->data = malloc(plan->bs + sizeof(digest));
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!l->conns || !l->rx || !l->data || l->epoll < 0) {
		load_fini(l);
		return -ENOMEM;
	}
	host_pattern(l->data, plan->bs, 0, 1);
	digest = htole32(~crc32_iscsi(l->data, (int)plan->bs, ~0u));
	memcpy(l->data + plan->bs, &digest, sizeof(digest));
	return 0;
}

void load_fini(struct load *l)
{
	for (uint32_t i = 0; i < l->nr_conns; i++) {
		free(l->conns[i].iov);
		free(l->conns[i].capsules);
		free(l->conns[i].h2c);
	}
	free(l->conns);
	free(l->rx);
	free(l->data);
	if (l->epoll >= 0)
		close(l->epoll);
	l->conns = NULL;
}

/* What of a capsule is the same in all commands. */
static void prepare(const struct load *l, struct load_conn *c, uint32_t cid)
{
	struct host_cmd_pdu cmd = {
		.ch.type = HOST_CAPSULE_CMD,
		.sqe = {
			.flags = NVME_SQE_PSDT_SGL,
			.cid = (uint16_t)cid,
			.nsid = htole32(l->plan->drive.nsid),
		},
	};

	memcpy(c->capsules + cid * c->stride, &cmd, sizeof(cmd));
}

int load_add(struct load *l, const struct host_queue *q)
{
	struct load_conn *c = &l->conns[l->nr_conns];
	uint32_t room = sizeof(struct host_cmd_pdu) + (q->hdgst ? 4 : 0);

	*c = (struct load_conn){
		.fd = q->fd,
		.first = l->nr_conns * l->depth,
		.hdgst = q->hdgst,
		.ddgst = q->ddgst,
		.icd = q->icd,
		.maxh2cdata = q->maxh2cdata,
		.align = (q->cpda + 1u) * 4,
		.ends = NONE,
		.room = 4 * l->depth,
	};
	c->stride = (room + c->align - 1) / c->align * c->align;
	c->stride = (c->stride + 7) / 8 * 8; /* as the structs want it */
	c->iov = calloc(c->room, sizeof(*c->iov));
	c->capsules = calloc(l->depth, c->stride);
	c->h2c = calloc(l->depth, c->stride);
	l->nr_conns++;
	if (!c->iov || !c->capsules || !c->h2c)
		return -ENOMEM;
	for (uint32_t cid = 0; cid < l->depth; cid++)
		prepare(l, c, cid);
	return watch(l, c, EPOLL_CTL_ADD, false);
}
