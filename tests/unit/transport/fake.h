/* SPDX-License-Identifier: MIT */
/*
 * A target of a few lines for the tests of the transport, in place of target/'s: the command says
 * itself what is to be done with it. And a connection without a socket, with a host's tools to
 * make PDUs. Included by one .c file a program.
 *
 * A fake command: cdw10 its length in bytes, cdw11 what to do, cdw12 the status it ends with,
 * cdw13 its result. Data to the host is the byte pattern of its CID.
 */
#ifndef TEST_FAKE_H
#define TEST_FAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <sys/uio.h>
#include <cmocka.h>
#include "bitwise.h"
#include "conn.h"

enum {
	FAKE_NONE,	      /* no data; completes at once */
	FAKE_READ,	      /* cdw10 bytes to the host */
	FAKE_WRITE,	      /* cdw10 bytes from the host */
	FAKE_ZERO_COPY,	      /* as FAKE_READ, but zero-copy, from fake.mapping */
	FAKE_ZERO_COPY_WRITE, /* as FAKE_WRITE, but received into fake.mapping */
	FAKE_BATCH,	      /* as FAKE_WRITE, and may join a batch */
	FAKE_REFUSE,	      /* tgt_req_init() answers cdw12 */
	FAKE_HOLD,	      /* completes when the test says so */
	FAKE_CONNECT, /* from now on the queue has a controller, and 128 entries; cdw12: no SQHD */
};

/* What happened, for the test to look at; the data under the lock, if there are threads. */
static pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
#define COUNT(field) __atomic_fetch_add(&fake.field, 1, __ATOMIC_RELAXED)

static struct {
	unsigned int inits, executed, completed, put, closed, disconnected;
	struct tgt_req *held[256];
	unsigned int nheld;
	struct tgt_queue *queue; /* the last that connected */
	uint32_t wrote_len;
	uint16_t wrote_cid, last_status;
	const void *mapping, *executed_on;
	bool copies;	      /* zero-copy data can be copied out */
	bool mapping_batches; /* zero-copy writes may join a batch, too */
	unsigned int zero_copies, released, unreadable, in_place;
	uint8_t wrote[1 << 20]; /* data of the last write executed; not cleared */
} fake;

void tgt_queue_init(struct tgt_queue *queue, struct tgt *tgt, const struct tgt_transport_ops *ops,
		    struct loop *loop, struct tgt_port *port)
{
	memset(queue, 0, sizeof(*queue));
	queue->tgt = tgt;
	queue->ops = ops;
	queue->loop = loop;
	queue->port = port;
}

void tgt_queue_close(struct tgt_queue *queue)
{
	assert_false(queue->closing);
	pthread_mutex_lock(&fake_lock); /* no disconnect() after this returns */
	queue->closing = true;
	pthread_mutex_unlock(&fake_lock);
	COUNT(closed);
}

static uint32_t fake_op(const struct tgt_req *req)
{
	return le32toh(req->cmd.cdw11);
}

static void fake_execute(struct tgt_req *req)
{
	COUNT(executed);
	fake.executed_on = req->buf;
	if (req->dir == TGT_C2H && req->len)
		memset(req->buf, req->cmd.cid & 0xff, req->len);
	if (req->dir == TGT_H2C && req->len && req->len <= sizeof(fake.wrote)) {
		pthread_mutex_lock(&fake_lock);
		memcpy(fake.wrote, req->in_place ? req->in_place : req->buf, req->len);
		fake.in_place += req->in_place != NULL;
		fake.wrote_len = req->len;
		fake.wrote_cid = req->cmd.cid;
		pthread_mutex_unlock(&fake_lock);
	}
	if (fake_op(req) == FAKE_CONNECT) {
		static int controller;

		req->queue->ctrl = (void *)&controller;
		req->queue->qid = 1;
		req->queue->sqsize = TGT_QUEUE_DEPTH;
		req->queue->sqhd_disabled = req->cmd.cdw12;
		__atomic_store_n(&fake.queue, req->queue, __ATOMIC_RELEASE);
		tgt_req_complete(req, 0);
	} else if (fake_op(req) == FAKE_HOLD) {
		fake.held[fake.nheld++] = req;
	} else {
		tgt_req_complete(req, (uint16_t)le32toh(req->cmd.cdw12));
	}
}

uint16_t tgt_req_init(struct tgt_req *req, struct tgt_queue *queue, uint32_t in_capsule)
{
	(void)in_capsule;
	assert_false(queue->closing);
	COUNT(inits);
	queue->inflight++;
	req->queue = queue;
	req->dir = TGT_NONE;
	req->len = 0;
	req->execute = fake_execute;
	req->zero_copy = TGT_BUFFERED;
	req->may_batch = fake_op(req) == FAKE_BATCH || fake.mapping_batches;
	req->in_place = NULL;
	if (fake_op(req) == FAKE_READ || fake_op(req) == FAKE_ZERO_COPY)
		req->dir = TGT_C2H;
	if (fake_op(req) == FAKE_WRITE || fake_op(req) == FAKE_ZERO_COPY_WRITE ||
	    fake_op(req) == FAKE_BATCH)
		req->dir = TGT_H2C;
	if (req->dir != TGT_NONE)
		req->len = le32toh(req->cmd.cdw10);
	if (req->len > TGT_MAX_TRANSFER)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	return fake_op(req) == FAKE_REFUSE ? (uint16_t)le32toh(req->cmd.cdw12) : 0;
}

const char *tgt_queue_hostnqn(const struct tgt_queue *queue)
{
	return queue->ctrl ? "nqn.2014-08.org.example:host" : NULL;
}

bool tgt_queue_batch_begin(struct tgt_queue *queue)
{
	queue->batching = true;
	return true;
}

void tgt_queue_batch_end(struct tgt_queue *queue)
{
	queue->batching = false;
}

bool tgt_req_zero_copy(struct tgt_req *req)
{
	assert_false(req->queue->closing);
	if (fake_op(req) != FAKE_ZERO_COPY && fake_op(req) != FAKE_ZERO_COPY_WRITE)
		return false;
	COUNT(zero_copies);
	req->buf = (void *)(uintptr_t)fake.mapping;
	req->zero_copy = TGT_ZERO_COPY;
	return true;
}

bool tgt_req_copy_out(struct tgt_req *req, void *buf)
{
	if (!fake.copies)
		return false;
	memcpy(buf, req->buf, req->len);
	COUNT(released);
	req->zero_copy = TGT_BUFFERED;
	req->buf = buf;
	return true;
}

void tgt_req_execute(struct tgt_req *req)
{
	assert_false(req->queue->closing);
	req->execute(req);
}

void tgt_req_complete(struct tgt_req *req, uint16_t status)
{
	COUNT(completed);
	__atomic_store_n(&fake.last_status, status, __ATOMIC_RELAXED);
	memset(&req->cqe, 0, sizeof(req->cqe));
	req->cqe.cid = req->cmd.cid;
	req->cqe.status = htole16((uint16_t)(status << 1));
	req->cqe.result = htole64(le32toh(req->cmd.cdw13));
	req->queue->ops->respond(req);
}

void tgt_req_put(struct tgt_req *req)
{
	COUNT(put);
	if (req->zero_copy)
		COUNT(released);
	if (req->zero_copy == TGT_FAULTED)
		COUNT(unreadable);
	assert_true(req->queue->inflight > 0);
	req->queue->inflight--;
}

/* ---- what a host makes: each returns the length of the PDU at OUT ---- */

static inline size_t put_digest(uint8_t *out, const void *data, size_t len)
{
	__le32 d = htole32(bitwise_crc32c(data, len));

	memcpy(out, &d, sizeof(d));
	return sizeof(d);
}

static inline size_t make_icreq(uint8_t *out, uint8_t dgst, uint8_t hpda)
{
	struct pdu_icreq p = {
		.h = { .type = PDU_ICREQ, .hlen = 128, .plen = htole32(128) },
		.hpda = hpda,
		.dgst = dgst,
	};

	memcpy(out, &p, sizeof(p));
	return sizeof(p);
}

struct fake_cmd {
	uint16_t cid;
	uint32_t op, len, status, result;
};

static inline struct pdu_hdr hdr_at(const uint8_t *p)
{
	struct pdu_hdr h;

	memcpy(&h, p, sizeof(h));
	return h;
}

/* Finishes a PDU whose header stands at OUT: digests, LEN bytes of DATA, PDO, PLEN, flags. */
static inline size_t seal_pdu(uint8_t *out, const void *data, uint32_t len, uint8_t dgst)
{
	struct pdu_hdr h = hdr_at(out);
	size_t n = h.hlen;

	if (dgst & PDU_DGST_HEADER) {
		h.flags |= PDU_F_HDGST;
		n += PDU_DIGEST_LEN;
	}
	if (len && dgst & PDU_DGST_DATA)
		h.flags |= PDU_F_DDGST;
	if (len)
		h.pdo = (uint8_t)n;
	h.plen = htole32(n + len + (len && dgst & PDU_DGST_DATA ? PDU_DIGEST_LEN : 0));
	memcpy(out, &h, sizeof(h));
	if (dgst & PDU_DGST_HEADER)
		put_digest(out + h.hlen, out, h.hlen);
	if (len) {
		memcpy(out + n, data, len);
		n += len;
		if (dgst & PDU_DGST_DATA)
			n += put_digest(out + n, data, len);
	}
	return n;
}

static inline size_t make_cmd(uint8_t *out, struct fake_cmd cmd, const void *data, uint32_t len,
			      uint8_t dgst)
{
	struct pdu_cmd p = {
		.h = { .type = PDU_CMD, .hlen = sizeof(p) },
		.sqe = { .flags = NVME_SQE_PSDT_SGL,
			 .opcode = 1,
			 .cid = cmd.cid,
			 .cdw10 = htole32(cmd.len),
			 .cdw11 = htole32(cmd.op),
			 .cdw12 = htole32(cmd.status),
			 .cdw13 = htole32(cmd.result) },
	};

	memcpy(out, &p, sizeof(p));
	return seal_pdu(out, data, len, dgst);
}

static inline size_t make_h2c_data(uint8_t *out, uint16_t cid, uint16_t ttag, uint32_t off,
				   bool last, const void *data, uint32_t len, uint8_t dgst)
{
	struct pdu_data p = {
		.h = { .type = PDU_H2C_DATA, .hlen = sizeof(p), .flags = last ? PDU_F_LAST : 0 },
		.cccid = cid,
		.ttag = ttag,
		.datao = htole32(off),
		.datal = htole32(len),
	};

	memcpy(out, &p, sizeof(p));
	return seal_pdu(out, data, len, dgst);
}

/* ---- a connection without a socket ---- */

struct rig {
	struct pool pool;
	struct conn conn;
	bool no_zero_copy;
	unsigned int wakes, connects;
	size_t nout; /* bytes sent */
	uint8_t out[4 << 20];
};

static struct rig *rig; /* the one at work */

static inline void rig_wake(struct conn *c)
{
	(void)c;
	rig->wakes++;
}

static inline bool rig_on_connect(struct conn *c)
{
	(void)c;
	rig->connects++;
	return true;
}

static inline void rig_disconnect(struct tgt_queue *queue)
{
	(void)queue;
	COUNT(disconnected);
}

static inline void rig_copy_out(struct tgt_queue *queue)
{
	(void)queue; /* tests call conn_copy_out() */
}

static const struct tgt_transport_ops rig_ops = { "rig", conn_respond, rig_disconnect,
						  rig_copy_out };

static inline void rig_open_sized(uint64_t memory)
{
	static struct rig only; /* large: made once */

	rig = &only;
	memset(&fake, 0, offsetof(typeof(fake), wrote));
	memset(rig, 0, offsetof(struct rig, out));
	pool_init(&rig->pool, memory, command_granted);
	conn_init(&rig->conn, NULL, &rig_ops, NULL, NULL, &rig->pool, &rig->no_zero_copy);
	rig->conn.wake = rig_wake;
	rig->conn.on_connect = rig_on_connect;
	strcpy(rig->conn.name, "rig");
}

static inline void rig_open(void)
{
	rig_open_sized(0);
}

/* Every request comes home, every buffer: or the test fails. */
static inline void rig_close(void)
{
	conn_kill(&rig->conn);
	tx_drop(&rig->conn, true);
	while (fake.nheld)
		tgt_req_complete(fake.held[--fake.nheld], 0);
	assert_int_equal(fake.inits, fake.put);
	assert_int_equal(rig->conn.queue.inflight, 0);
	assert_int_equal(rig->conn.zero_copy, 0);
	assert_int_equal(rig->pool.used, rig->conn.zero_copy_charged);
	assert_int_equal(fake.closed, 1);
	conn_fini(&rig->conn);
	assert_int_equal(rig->pool.used, 0);
	pool_fini(&rig->pool);
	rig = NULL;
}

/* Lets at most N bytes go out. */
static inline size_t rig_send(size_t n)
{
	size_t total = 0;

	while (total < n) {
		struct iovec iov[16];
		int k = tx_iov(&rig->conn, iov, 16);
		size_t sent = 0;

		if (!k)
			break;
		for (int i = 0; i < k && total + sent < n; i++) {
			size_t len = iov[i].iov_len;

			assert_true(len > 0);
			if (len > n - total - sent)
				len = n - total - sent;
			assert_true(rig->nout + len <= sizeof(rig->out));
			memcpy(rig->out + rig->nout, iov[i].iov_base, len);
			rig->nout += len;
			sent += len;
		}
		tx_sent(&rig->conn, sent);
		total += sent;
	}
	return total;
}

/*
 * The N bytes at DATA arrive, at most STEP at once; between them the output is sent and a block
 * may be lifted. Returns the first error; *TAKEN is how many bytes were wanted.
 */
static inline int rig_feed_some(const void *data, size_t n, size_t step, size_t *taken)
{
	const uint8_t *p = data;
	size_t done = 0;
	int err = 0;

	while (done < n && !err) {
		struct iovec iov[2];
		int k = rx_want(&rig->conn, iov);
		size_t got = 0;

		if (!k)
			break;
		for (int i = 0; i < k; i++) {
			size_t len = iov[i].iov_len;

			if (len > n - done - got)
				len = n - done - got;
			if (len > step - got)
				len = step - got;
			memcpy(iov[i].iov_base, p + done + got, len);
			got += len;
		}
		err = rx_got(&rig->conn, got);
		done += got;
	}
	*taken = done;
	return err;
}

static inline int rig_feed(const void *data, size_t n, size_t step)
{
	size_t taken;
	int err = rig_feed_some(data, n, step, &taken);

	if (!err)
		assert_int_equal(taken, n);
	return err;
}

/* ICReq with these digests, and the ICResp is gone. */
static inline void rig_handshake(uint8_t dgst, uint8_t hpda)
{
	uint8_t buf[256];

	assert_int_equal(rig_feed(buf, make_icreq(buf, dgst, hpda), SIZE_MAX), 0);
	rig_send(SIZE_MAX);
	assert_int_equal(rig->nout, sizeof(struct pdu_icresp));
	rig->nout = 0;
}

/* Connect; more slots, and no SQHD if asked. */
static inline void rig_connect(uint8_t dgst, bool no_sqhd)
{
	struct fake_cmd cmd = { .cid = 0xc0ff, .op = FAKE_CONNECT, .status = no_sqhd };
	uint8_t buf[256];

	assert_int_equal(rig_feed(buf, make_cmd(buf, cmd, NULL, 0, dgst), SIZE_MAX), 0);
	rig_send(SIZE_MAX);
	rig->nout = 0;
}

#endif
