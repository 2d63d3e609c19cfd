// SPDX-License-Identifier: MIT
/*
 * The initiator's transport half: connect, PDUs in and out with their digests, and the exchange
 * that carries one command: capsule, R2T and H2CData, C2HData, response.
 *
 * It is a judge as well as a peer. What the target may not do is -EPROTO and a sentence:
 *
 *	1. Headers: a known type, the hlen of that type, plen within bounds, digest flags exactly
 *	   as agreed, PDO a multiple of the alignment asked for.
 *	2. R2T: for a write in flight, of length > 0, starting where the last one ended.
 *	3. C2HData: for a read in flight, in order, never past its length; LAST on the last one.
 *	4. SUCCESS: with LAST only, and only when SQ flow control is off.
 *	5. A read that succeeds has moved all its bytes; a response names a command in flight.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include "host.h"

#define MAX_PDU (16u << 20)

static uint32_t crc_table[256];

__attribute__((constructor)) static void crc_init(void)
{
	uint32_t i, bit, c;

	for (i = 0; i < 256; i++) {
		for (c = i, bit = 0; bit < 8; bit++)
			c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);
		crc_table[i] = c;
	}
}

uint32_t host_crc32c(const void *buf, size_t len)
{
	const uint8_t *p = buf;
	uint32_t crc = ~0u;

	while (len--)
		crc = crc_table[(crc ^ *p++) & 0xff] ^ crc >> 8;
	return ~crc;
}

void host_pattern(void *buf, size_t len, uint64_t off, uint64_t seed)
{
	uint8_t *out = buf;
	size_t i;

	for (i = 0; i < len; i += 8) {
		uint64_t x = (off + i) * 0x9e3779b97f4a7c15u ^ (seed + 1) * 0xd1b54a32d192ed03u;

		x ^= x >> 29;
		x *= 0xbf58476d1ce4e5b9u;
		x ^= x >> 32;
		memcpy(out + i, &x, len - i < 8 ? len - i : 8);
	}
}

__attribute__((format(printf, 2, 3))) static int broke(struct host_queue *q, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(q->err, sizeof(q->err), fmt, ap);
	va_end(ap);
	fprintf(stderr, "host: queue %u: target broke the protocol: %s\n", q->qid, q->err);
	return -EPROTO;
}

static int sock_error(void)
{
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return -ETIMEDOUT;
	if (errno == EPIPE || errno == ECONNRESET)
		return -ENOTCONN;
	return -errno;
}

int host_send_raw(struct host_queue *q, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len) {
		ssize_t n = send(q->fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return sock_error();
		p += n;
		len -= n;
	}
	return 0;
}

int host_recv_raw(struct host_queue *q, void *buf, size_t len)
{
	uint8_t *p = buf;

	while (len) {
		ssize_t n = recv(q->fd, p, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return sock_error();
		if (!n)
			return -ENOTCONN;
		p += n;
		len -= n;
	}
	return 0;
}

int host_wait_close(struct host_queue *q)
{
	uint8_t buf[4096];
	int err;

	do
		err = host_recv_raw(q, buf, 1);
	while (!err);
	return err == -ENOTCONN ? 0 : err;
}

int host_set_timeout(struct host_queue *q, int ms)
{
	struct timeval tv = { ms / 1000, ms % 1000 * 1000 };

	if (setsockopt(q->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) ||
	    setsockopt(q->fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)))
		return -errno;
	return 0;
}

int host_dial(struct host_queue *q, const char *addr, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST };
	struct addrinfo *ai;
	int one = 1;
	int err = 0;

	memset(q, 0, sizeof(*q));
	q->icd = 8192; /* fabrics and admin; host_attach() learns the I/O queues' */
	q->fd = -1;
	if (getaddrinfo(addr, port, &hints, &ai))
		return -EINVAL;
	q->fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (q->fd < 0 || host_set_timeout(q, HOST_TIMEOUT_MS) ||
	    setsockopt(q->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ||
	    connect(q->fd, ai->ai_addr, ai->ai_addrlen))
		err = -errno;
	freeaddrinfo(ai);
	if (err)
		host_close(q);
	return err;
}

void host_close(struct host_queue *q)
{
	if (q->fd >= 0)
		close(q->fd);
	q->fd = -1;
	free(q->data);
	q->data = NULL;
	q->data_size = 0;
}

int host_icreq(struct host_queue *q, const struct host_ic *ic)
{
	struct host_ic_pdu pdu = {
		.ch = { .type = HOST_ICREQ, .hlen = sizeof(pdu), .plen = htole32(sizeof(pdu)) },
		.pda = ic->hpda,
		.dgst = (ic->hdgst ? 1 : 0) | (ic->ddgst ? 2 : 0),
		.max = htole32(ic->maxr2t),
	};
	struct host_ic_pdu resp;
	uint8_t dgst = pdu.dgst;
	int err;

	err = host_send_raw(q, &pdu, sizeof(pdu));
	if (!err)
		err = host_recv_pdu(q);
	if (err)
		return err;
	if (q->ch.type == HOST_C2H_TERM)
		return -ECONNABORTED;
	if (q->ch.type != HOST_ICRESP)
		return broke(q, "PDU type %u answers an ICReq", q->ch.type);
	memcpy(&resp, q->head, sizeof(resp));
	if (le16toh(resp.pfv))
		return broke(q, "ICResp has PFV %u", le16toh(resp.pfv));
	if (resp.dgst != dgst)
		return broke(q, "ICResp has DGST %u, asked was %u", resp.dgst, dgst);
	if (resp.pda > 31 || (resp.pda && !ic->hpda))
		return broke(q, "ICResp has CPDA %u", resp.pda);
	q->maxh2cdata = le32toh(resp.max);
	if (q->maxh2cdata < 4096 || q->maxh2cdata % 4)
		return broke(q, "ICResp has MAXH2CDATA %u", q->maxh2cdata);
	q->hdgst = ic->hdgst;
	q->ddgst = ic->ddgst;
	q->hpda = ic->hpda;
	q->cpda = resp.pda;
	q->maxr2t = ic->maxr2t + 1;
	return 0;
}

int host_open(struct host_queue *q, const char *addr, const char *port, const struct host_ic *ic)
{
	static const struct host_ic plain;
	int err;

	err = host_dial(q, addr, port);
	if (err)
		return err;
	err = host_icreq(q, ic ? ic : &plain);
	if (err)
		host_close(q);
	return err;
}

/* The header length of what a target may send; 0: it may not. */
static uint32_t c2h_hlen(uint8_t type)
{
	switch (type) {
	case HOST_ICRESP:
		return 128;
	case HOST_C2H_TERM:
	case HOST_CAPSULE_RESP:
	case HOST_C2H_DATA:
	case HOST_R2T:
		return 24;
	default:
		return 0;
	}
}

static int recv_term(struct host_queue *q, uint32_t plen)
{
	struct host_term_pdu pdu;
	int err;

	if (plen < 24 || plen > 152)
		return broke(q, "C2HTermReq of %u bytes", plen);
	memcpy(&pdu, q->head, sizeof(pdu));
	memset(&q->term, 0, sizeof(q->term));
	err = host_recv_raw(q, q->term.header, plen - 24);
	if (err)
		return err;
	q->term.fes = le16toh(pdu.fes);
	q->term.fei = pdu.fei[0] | pdu.fei[1] << 8 | pdu.fei[2] << 16 | (uint32_t)pdu.fei[3] << 24;
	q->term.plen = plen;
	return 0;
}

static int recv_digest(struct host_queue *q, const void *buf, size_t len, const char *what)
{
	__le32 digest;
	int err;

	err = host_recv_raw(q, &digest, sizeof(digest));
	if (!err && le32toh(digest) != host_crc32c(buf, len))
		err = broke(q, "wrong %s digest in PDU type %u", what, q->ch.type);
	return err;
}

/* What follows the header of a C2HData: padding, data, digest. */
static int recv_data(struct host_queue *q, uint32_t plen, uint32_t at)
{
	uint32_t tail = q->ddgst ? 4 : 0;
	uint32_t align = (q->hpda + 1) * 4;
	uint32_t pdo = q->ch.pdo;
	uint8_t pad[128];
	int err;

	if (pdo < at || pdo % align || pdo - at >= sizeof(pad) || plen <= pdo + tail)
		return broke(q, "C2HData of %u bytes with PDO %u, alignment %u", plen, pdo, align);
	err = host_recv_raw(q, pad, pdo - at);
	if (err)
		return err;
	q->data_len = plen - pdo - tail;
	if (q->data_len > q->data_size) {
		uint8_t *data = realloc(q->data, q->data_len);

		if (!data)
			return -ENOMEM;
		q->data = data;
		q->data_size = q->data_len;
	}
	err = host_recv_raw(q, q->data, q->data_len);
	if (!err && tail)
		err = recv_digest(q, q->data, q->data_len, "data");
	return err;
}

int host_recv_pdu(struct host_queue *q)
{
	bool digests, is_data;
	uint32_t hlen, plen;
	uint8_t want;
	int err;

	q->data_len = 0;
	err = host_recv_raw(q, &q->ch, sizeof(q->ch));
	if (err)
		return err;
	hlen = c2h_hlen(q->ch.type);
	plen = le32toh(q->ch.plen);
	if (!hlen)
		return broke(q, "PDU type %u", q->ch.type);
	if (q->ch.hlen != hlen || plen < hlen || plen > MAX_PDU)
		return broke(q, "PDU type %u has hlen %u, plen %u", q->ch.type, q->ch.hlen, plen);
	memcpy(q->head, &q->ch, sizeof(q->ch));
	err = host_recv_raw(q, q->head + sizeof(q->ch), hlen - sizeof(q->ch));
	if (err)
		return err;
	digests = q->ch.type != HOST_ICRESP && q->ch.type != HOST_C2H_TERM;
	is_data = q->ch.type == HOST_C2H_DATA;
	want = (digests && q->hdgst ? HOST_F_HDGST : 0) | (is_data && q->ddgst ? HOST_F_DDGST : 0);
	if ((q->ch.flags & (HOST_F_HDGST | HOST_F_DDGST)) != want)
		return broke(q, "PDU type %u has flags %#x", q->ch.type, q->ch.flags);
	if ((q->ch.flags & ~(want | HOST_F_LAST | HOST_F_SUCCESS)) ||
	    (!is_data && q->ch.flags & ~want))
		return broke(q, "PDU type %u has reserved flags %#x", q->ch.type, q->ch.flags);
	if (q->ch.type == HOST_C2H_TERM)
		return recv_term(q, plen);
	if (want & HOST_F_HDGST) {
		err = recv_digest(q, q->head, hlen, "header");
		if (err)
			return err;
	}
	hlen += want & HOST_F_HDGST ? 4 : 0;
	if (is_data)
		return recv_data(q, plen, hlen);
	if (plen != hlen || q->ch.pdo)
		return broke(q, "PDU type %u has plen %u, PDO %u", q->ch.type, plen, q->ch.pdo);
	return 0;
}

int host_send_pdu(struct host_queue *q, void *head, uint32_t hlen, const void *data, uint32_t len,
		  bool bad_ddgst)
{
	struct host_ch *ch = head;
	uint32_t hd = q->hdgst ? 4 : 0;
	uint32_t dd = q->ddgst && len ? 4 : 0;
	uint32_t align = (q->cpda + 1) * 4;
	uint32_t pdo = len ? (hlen + hd + align - 1) / align * align : hlen + hd;
	uint32_t plen = pdo + len + dd;
	__le32 digest;
	uint8_t *pdu;
	int err;

	pdu = calloc(1, plen);
	if (!pdu)
		return -ENOMEM;
	ch->hlen = hlen;
	ch->pdo = len ? pdo : 0;
	ch->plen = htole32(plen);
	ch->flags |= (hd ? HOST_F_HDGST : 0) | (dd ? HOST_F_DDGST : 0);
	memcpy(pdu, head, hlen);
	if (hd) {
		digest = htole32(host_crc32c(head, hlen) ^ (q->bad_hdgst ? 1 : 0));
		memcpy(pdu + hlen, &digest, 4);
	}
	if (len)
		memcpy(pdu + pdo, data, len);
	if (dd) {
		digest = htole32(host_crc32c(data, len) ^ (bad_ddgst ? 1 : 0));
		memcpy(pdu + pdo + len, &digest, 4);
	}
	q->bad_hdgst = false;
	err = host_send_raw(q, pdu, plen);
	free(pdu);
	return err;
}

static struct host_io *io_of(struct host_queue *q, uint16_t cid)
{
	unsigned int i;

	for (i = 0; i < HOST_DEPTH; i++)
		if (q->busy[i] && q->busy[i]->sqe.cid == cid)
			return q->busy[i];
	return NULL;
}

int host_submit(struct host_queue *q, struct host_io *io)
{
	struct host_cmd_pdu pdu = { .ch = { .type = HOST_CAPSULE_CMD } };
	bool fabrics = io->sqe.opcode == nvme_admin_fabrics;
	bool in_capsule = io->dir == HOST_WRITE && io->len && !io->by_r2t &&
			  io->len <= (fabrics ? 8192 : q->icd);
	unsigned int i;

	for (i = 0; i < HOST_DEPTH && q->busy[i]; i++)
		;
	if (i == HOST_DEPTH)
		return -EBUSY;
	while (io_of(q, q->next_cid))
		q->next_cid++;
	io->sqe.cid = q->next_cid++;
	io->sqe.flags |= NVME_SQE_PSDT_SGL;
	if (!io->raw_dptr) {
		io->sqe.dptr.addr = 0;
		io->sqe.dptr.length = htole32(io->dir == HOST_NONE ? 0 : io->len);
		io->sqe.dptr.type = in_capsule ? NVME_SGL_OFFSET : NVME_SGL_TRANSPORT;
	}
	io->moved = in_capsule ? io->len : 0;
	io->r2ts = io->datas = 0;
	io->no_cqe = false;
	io->busy = true;
	q->busy[i] = io;
	q->nr_busy++;
	pdu.sqe = io->sqe;
	return host_send_pdu(q, &pdu, sizeof(pdu), io->buf, in_capsule ? io->len : 0,
			     io->bad_ddgst);
}

/* Answers an R2T with as many H2CData as it takes. */
static int io_r2t(struct host_queue *q)
{
	struct host_data_pdu r2t, pdu;
	struct host_io *io;
	uint32_t off, len, n, most;
	int err = 0;

	memcpy(&r2t, q->head, sizeof(r2t));
	off = le32toh(r2t.off);
	len = le32toh(r2t.len);
	io = io_of(q, r2t.cid);
	if (!io || io->dir != HOST_WRITE)
		return broke(q, "R2T for command %u, which is no write in flight", r2t.cid);
	if (!len || off != io->moved || len > io->len - off)
		return broke(q, "R2T for %u bytes at %u of %u, %u are sent", len, off, io->len,
			     io->moved);
	io->r2ts++;
	most = io->chunk && io->chunk < q->maxh2cdata ? io->chunk : q->maxh2cdata;
	while (len && !err) {
		n = len < most ? len : most;
		pdu = (struct host_data_pdu){
			.ch = { .type = HOST_H2C_DATA, .flags = n == len ? HOST_F_LAST : 0 },
			.cid = r2t.cid,
			.ttag = r2t.ttag,
			.off = htole32(io->moved),
			.len = htole32(n),
		};
		err = host_send_pdu(q, &pdu, sizeof(pdu), (uint8_t *)io->buf + io->moved, n,
				    io->bad_ddgst && !io->moved);
		io->moved += n;
		len -= n;
	}
	return err;
}

static void io_end(struct host_queue *q, struct host_io *io)
{
	unsigned int i;

	for (i = 0; i < HOST_DEPTH; i++)
		if (q->busy[i] == io)
			q->busy[i] = NULL;
	q->nr_busy--;
	io->status = le16toh(io->cqe.status) >> 1 & 0x7ff;
	io->dnr = le16toh(io->cqe.status) >> 1 & NVME_SC_DNR;
	io->busy = false;
}

static int io_c2h_data(struct host_queue *q, struct host_io **done)
{
	struct host_data_pdu pdu;
	struct host_io *io;
	uint32_t off, len;
	bool last = q->ch.flags & HOST_F_LAST;

	memcpy(&pdu, q->head, sizeof(pdu));
	off = le32toh(pdu.off);
	len = le32toh(pdu.len);
	io = io_of(q, pdu.cid);
	if (!io || io->dir != HOST_READ)
		return broke(q, "C2HData for command %u, which is no read in flight", pdu.cid);
	if (len != q->data_len || off != io->moved || len > io->len - off)
		return broke(q, "C2HData of %u (%u) bytes at %u of %u, expected at %u", len,
			     q->data_len, off, io->len, io->moved);
	memcpy((uint8_t *)io->buf + off, q->data, len);
	io->moved += len;
	io->datas++;
	if (last != (io->moved == io->len))
		return broke(q, "C2HData %s LAST after %u of %u", last ? "with" : "without",
			     io->moved, io->len);
	if (!(q->ch.flags & HOST_F_SUCCESS))
		return 0;
	if (!last || !q->sqflow_off)
		return broke(q, "SUCCESS %s", last ? "with SQ flow control" : "without LAST");
	memset(&io->cqe, 0, sizeof(io->cqe));
	io->cqe.cid = pdu.cid;
	io->no_cqe = true;
	io_end(q, io);
	*done = io;
	return 0;
}

static int io_response(struct host_queue *q, struct host_io **done)
{
	struct host_resp_pdu pdu;
	struct host_io *io;

	memcpy(&pdu, q->head, sizeof(pdu));
	io = io_of(q, pdu.cqe.cid);
	if (!io)
		return broke(q, "response to command %u, which is not in flight", pdu.cqe.cid);
	io->cqe = pdu.cqe;
	q->sqhd = le16toh(pdu.cqe.sqhd);
	io_end(q, io);
	if (le16toh(pdu.cqe.status) & 1)
		return broke(q, "a phase bit in the status");
	if (!io->status && io->dir == HOST_READ && io->moved != io->len)
		return broke(q, "read succeeds after %u of %u bytes", io->moved, io->len);
	*done = io;
	return 0;
}

int host_reap(struct host_queue *q, struct host_io **done)
{
	int err = 0;

	*done = NULL;
	while (!err && !*done) {
		err = host_recv_pdu(q);
		if (err)
			break;
		switch (q->ch.type) {
		case HOST_R2T:
			err = io_r2t(q);
			break;
		case HOST_C2H_DATA:
			err = io_c2h_data(q, done);
			break;
		case HOST_CAPSULE_RESP:
			err = io_response(q, done);
			break;
		case HOST_C2H_TERM:
			err = -ECONNABORTED;
			break;
		default:
			err = broke(q, "PDU type %u after the handshake", q->ch.type);
		}
	}
	return err;
}

int host_cmd(struct host_queue *q, struct host_io *io)
{
	struct host_io *done;
	int err;

	err = host_submit(q, io);
	while (!err && io->busy)
		err = host_reap(q, &done);
	return err ? err : io->status;
}
