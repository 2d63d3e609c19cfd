// SPDX-License-Identifier: MIT
/*
 * The receive state machine: turns received bytes, in pieces of any size, into commands. No I/O.
 *
 *	HEADER --no data--> HEADER
 *	HEADER --data--> DATA --> [DIGEST] --> HEADER
 *	any --protocol error, or TermReq--> STOPPED
 *
 * 1. Headers are received into a staging buffer, so that one recv can bring many PDUs. Data is
 *    received into the buffer of its command; data that was staged is copied there. When the small
 *    staging buffer was full, a larger one replaces it: for many small writes per recv the copy is
 *    worth it. For large data it is not, so after a large PDU only the next header is staged. A
 *    small write that is executed before the next recv is written from the staging buffer; the
 *    caller therefore calls tgt_queue_batch_end() before rx_want().
 * 2. No field is used before pdu_check() accepted it, and only the common header is used before the
 *    header digest was verified.
 * 3. A PDU is handled only when there is memory for it. Without a free slot its header stays in the
 *    staging buffer (RX_NO_SLOT); without a buffer for in-capsule data that data stays there
 *    (RX_NO_BUFFER). rx_want() then returns 0, and TCP's flow control stops the host
 *    (backpressure).
 * 4. The data of every command is consumed. That of a refused command is discarded (rx.to is NULL).
 *    A command with a bad data digest completes with Transient Transport Error when all of its data
 *    has arrived, and the connection continues. Zero-copy memory may fault: only the kernel and what
 *    runs under the guard (guard.h) access it.
 * 5. H2CData is accepted only by a slot in state DATA, whose R2T was sent completely, and only for
 *    its next byte.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include "conn.h"
#include "guard.h"

#define RX_MORE                                                                                    \
	1 /* returned by the steps: more bytes, a slot or a buffer are needed; 0: continue */

static uint32_t staged(const struct rx *rx)
{
	return rx->tail - rx->head;
}

void rx_init(struct rx *rx)
{
	rx->stage = rx->small;
	rx->cap = sizeof(rx->small);
}

void rx_fini(struct rx *rx)
{
	if (rx->stage != rx->small)
		free(rx->stage);
	rx_init(rx);
}

static void move_staged(struct rx *rx, uint8_t *to, uint32_t cap)
{
	uint8_t *from = rx->stage;

	memcpy(to, from + rx->head, staged(rx));
	rx->tail -= rx->head;
	rx->head = 0;
	rx->stage = to;
	rx->cap = cap;
	if (from != rx->small)
		free(from);
}

void rx_trim(struct rx *rx)
{
	if (rx->stage != rx->small && staged(rx) <= sizeof(rx->small))
		move_staged(rx, rx->small, sizeof(rx->small));
}

static void grow(struct rx *rx)
{
	uint8_t *large = malloc(RX_STAGE_MAX);

	if (large)
		move_staged(rx, large, RX_STAGE_MAX);
}

/*
 * How many bytes may be received into the staging buffer. After a large piece of data only the
 * header of the next PDU, so that its data is not copied; after another header some more, as
 * capsules often follow.
 */
static uint32_t room(const struct conn *c)
{
	const struct rx *rx = &c->rx;
	uint32_t left = rx->cap - rx->tail, few = RX_BULK_HEADERS;

	if (!rx->bulk)
		return left;
	if (rx->state == RX_DATA)
		few = sizeof(struct pdu_data) + (c->ctx.hdgst ? PDU_DIGEST_LEN : 0) +
		      (c->ctx.ddgst ? PDU_DIGEST_LEN : 0);
	return few < left ? few : left;
}

void rx_stop(struct conn *c)
{
	c->rx.state = RX_STOPPED;
	c->rx.block = RX_RUNS;
	c->rx.head = c->rx.tail = 0;
}

int rx_want(struct conn *c, struct iovec iov[2])
{
	struct rx *rx = &c->rx;
	int n = 0;

	if (rx->state == RX_STOPPED || rx->block != RX_RUNS)
		return 0;
	if (rx->head) {
		memmove(rx->stage, rx->stage + rx->head, staged(rx));
		rx->tail -= rx->head;
		rx->head = 0;
	}
	if (rx->state == RX_DATA && rx->to)
		iov[n++] = (struct iovec){ rx->to, rx->left };
	if (room(c))
		iov[n++] = (struct iovec){ rx->stage + rx->tail, room(c) };
	return n;
}

/* The next LEN bytes are data for SLOT, to be stored at TO; NULL: to be discarded. */
static void expect_data(struct rx *rx, struct slot *slot, void *to, uint32_t len)
{
	rx->state = RX_DATA;
	rx->slot = slot;
	rx->to = to;
	rx->left = len;
	rx->crc = CRC_START;
}

static int fatal(struct conn *c, enum pdu_fes fes, uint32_t fei)
{
	struct rx *rx = &c->rx;
	uint32_t n = rx->hdr.h.hlen;

	if (n < sizeof(struct pdu_hdr))
		n = sizeof(struct pdu_hdr);
	if (n > PDU_HDR_MAX)
		n = PDU_HDR_MAX;
	if (n > staged(rx))
		n = staged(rx);
	log_warn("%s: %s (FES %u, FEI %u): terminating", c->name, pdu_fes_name(fes), fes, fei);
	tx_term(c, fes, fei, rx->stage + rx->head, n);
	rx_stop(c);
	return -EPROTO;
}

static int take_icreq(struct conn *c)
{
	const struct pdu_icreq *ic = &c->rx.hdr.icreq;

	c->hpda = ic->hpda;
	c->ctx.hdgst = ic->dgst & PDU_DGST_HEADER;
	c->ctx.ddgst = ic->dgst & PDU_DGST_DATA;
	c->ctx.ready = true;
	/* MAXR2T needs no memory: we never have more than one R2T outstanding for a command. */
	tx_icresp(c, ic->dgst, c->ctx.cpda);
	return 0;
}

static int take_term(struct conn *c)
{
	const struct pdu_term *term = &c->rx.hdr.term;
	uint16_t fes = le16toh(term->fes);

	log_warn("%s: the host terminates: %s (FES %u, FEI %u)", c->name, pdu_fes_name(fes), fes,
		 le16toh(term->fei_lo) | (uint32_t)le16toh(term->fei_hi) << 16);
	rx_stop(c);
	return -ECONNRESET;
}

/* LEN bytes of in-capsule data follow; LEN must be the length of the command's data. */
static void capsule_data(struct conn *c, struct slot *slot, uint32_t len)
{
	int err;

	slot->in_capsule = true;
	c->rx.bulk = false;
	if (!slot->status && (slot->req.dir != TGT_H2C || slot->req.len != len))
		slot->status = NVME_SC_SGL_INVALID_DATA | NVME_SC_DNR;
	expect_data(&c->rx, slot, NULL, len);
	if (slot->status)
		return;
	err = slot_buffer(slot);
	if (err == -EAGAIN)
		c->rx.block = RX_NO_BUFFER;
	else if (err)
		slot->status = NVME_SC_INTERNAL;
	else
		c->rx.to = slot->req.buf;
}

static int take_capsule(struct conn *c, uint32_t len)
{
	struct slot *slot = slot_take(c);

	if (!slot) {
		c->rx.block = RX_NO_SLOT;
		return RX_MORE;
	}
	slot->req.cmd = c->rx.hdr.cmd.sqe;
	slot->status = tgt_req_init(&slot->req, &c->queue, len);
	if (!slot_claim_cid(slot))
		slot->status = NVME_SC_CMDID_CONFLICT | NVME_SC_DNR;
	if (len)
		capsule_data(c, slot, len);
	else
		command_start(slot);
	return 0;
}

/* NVMe/TCP 3.3.2: H2CData PDUs transfer the data of an R2T in order and completely. */
static int take_h2c_data(struct conn *c, uint32_t len)
{
	const struct pdu_data *d = &c->rx.hdr.data;
	uint16_t ttag = le16toh(d->ttag);
	uint32_t off = le32toh(d->datao), end;
	struct slot *slot = slot_at(c, ttag & 0xff);

	if (!slot || slot->state != SLOT_DATA || slot->gen != ttag >> 8)
		return fatal(c, FES_HEADER_FIELD, offsetof(struct pdu_data, ttag));
	if (d->cccid != slot->req.cmd.cid)
		return fatal(c, FES_HEADER_FIELD, offsetof(struct pdu_data, cccid));
	if (__builtin_add_overflow(off, len, &end) || end > slot->req.len)
		return fatal(c, FES_OUT_OF_RANGE, 0);
	if (off != slot->got || !(d->h.flags & PDU_F_LAST) != (end != slot->req.len))
		return fatal(c, FES_SEQUENCE, 0);
	expect_data(&c->rx, slot, (uint8_t *)slot->req.buf + off, len);
	c->rx.bulk = len >= RX_BULK;
	return 0;
}

static bool header_digest_right(const struct rx *rx, uint32_t *received)
{
	uint32_t hlen = rx->hdr.h.hlen;
	__le32 wire;

	memcpy(&wire, rx->stage + rx->head + hlen, sizeof(wire));
	*received = le32toh(wire);
	return wire == crc_end(crc_feed(CRC_START, &rx->hdr, hlen));
}

/*
 * Validates the header. Most capsules have the same common header as the last valid one; all else
 * in them is the command, so such a capsule is valid without a check.
 */
static struct pdu_verdict check(struct conn *c, size_t have)
{
	struct rx *rx = &c->rx;
	struct pdu_verdict v = { .what = PDU_OK };

	if (rx->hdr.h.type == PDU_CMD && !memcmp(&rx->hdr.h, &rx->good, sizeof(rx->good)))
		return v;
	v = pdu_check(&c->ctx, &rx->hdr, have);
	if (v.what == PDU_OK && rx->hdr.h.type == PDU_CMD)
		rx->good = rx->hdr.h;
	return v;
}

static int step_header(struct conn *c)
{
	struct rx *rx = &c->rx;
	const uint8_t *at = rx->stage + rx->head;
	struct pdu_verdict v;
	uint32_t off = 0, len = 0, digest;
	int err;

	if (staged(rx) < sizeof(struct pdu_hdr))
		return RX_MORE;
	memcpy(&rx->hdr, at, sizeof(struct pdu_hdr));
	v = check(c, sizeof(struct pdu_hdr));
	if (v.what == PDU_OK) {
		off = pdu_data_off(&c->ctx, &rx->hdr.h);
		len = pdu_data_len(&c->ctx, &rx->hdr.h);
		if (staged(rx) < off)
			return RX_MORE;
		memcpy(&rx->hdr, at, rx->hdr.h.hlen);
		if (c->ctx.hdgst && rx->hdr.h.type != PDU_H2C_TERM &&
		    !header_digest_right(rx, &digest))
			return fatal(c, FES_HEADER_DIGEST, digest);
		v = check(c, rx->hdr.h.hlen);
	}
	if (v.what == PDU_FATAL)
		return fatal(c, v.fes, v.fei);
	if (v.what == PDU_HANGUP) {
		log_info("%s: broken or early H2CTermReq: closing", c->name);
		rx_stop(c);
		return -ECONNRESET;
	}
	switch (rx->hdr.h.type) {
	case PDU_ICREQ:
		err = take_icreq(c);
		break;
	case PDU_CMD:
		err = take_capsule(c, len);
		break;
	case PDU_H2C_DATA:
		err = take_h2c_data(c, len);
		break;
	default:
		err = take_term(c);
	}
	if (!err)
		rx->head += off;
	return err;
}

/* Copies to zero-copy memory, which may fault. */
static int copy_to_mapping(struct conn *c, const uint8_t *from, uint32_t n)
{
	if (guard_copy(c->rx.to, from, n))
		return 0;
	rx_unwritable(c);
	return -EFAULT;
}

/* Adds N bytes of data at FROM to the digest. */
static int digest_data(struct conn *c, const uint8_t *from, uint32_t n)
{
	struct rx *rx = &c->rx;

	if (from != rx->to || !rx->slot->req.zero_copy) {
		rx->crc = crc_feed(rx->crc, from, n);
	} else if (!crc_feed_mapping(&rx->crc, from, n)) {
		rx_unwritable(c);
		return -EFAULT;
	}
	return 0;
}

/* Takes N bytes of data at FROM, which is their final place or the staging buffer. */
static int data_in(struct conn *c, const uint8_t *from, uint32_t n)
{
	struct rx *rx = &c->rx;

	if (rx->to) {
		int err = c->ctx.ddgst ? digest_data(c, from, n) : 0;

		if (err)
			return err;
		if (from != rx->to && n && rx->slot->req.zero_copy) {
			err = copy_to_mapping(c, from, n);
			if (err)
				return err;
		} else if (from != rx->to) {
			memcpy(rx->to, from, n);
		}
		rx->to += n;
	}
	rx->left -= n;
	return 0;
}

void rx_unwritable(struct conn *c)
{
	if (c->rx.slot && c->rx.slot->req.zero_copy)
		c->rx.slot->req.zero_copy = TGT_FAULTED;
}

/* All data of the PDU has arrived and its digest, if any, was checked. */
static void data_done(struct conn *c)
{
	struct rx *rx = &c->rx;
	struct slot *slot = rx->slot;

	rx->state = RX_HEADER;
	rx->slot = NULL;
	if (slot->state == SLOT_DATA) {
		slot->got += le32toh(rx->hdr.data.datal);
		if (slot->got < slot->req.len)
			return;
	}
	slot_run(slot);
}

/* Whether all data of a small write is staged and may stay there until it is written. */
static bool stays_staged(const struct conn *c)
{
	const struct rx *rx = &c->rx;
	const struct tgt_req *req = &rx->slot->req;

	return rx->to && rx->left == req->len && staged(rx) >= rx->left && req->may_batch &&
	       c->queue.batching && !req->zero_copy;
}

static int step_data(struct conn *c)
{
	struct rx *rx = &c->rx;
	uint32_t n = staged(rx) < rx->left ? staged(rx) : rx->left;
	const uint8_t *from = rx->stage + rx->head;
	int err = 0;

	if (stays_staged(c)) {
		rx->slot->req.in_place = from;
		rx->left = 0;
		if (c->ctx.ddgst)
			rx->crc = crc_feed(rx->crc, from, n);
	} else {
		err = data_in(c, from, n);
	}
	if (err)
		return err;
	rx->head += n;
	if (rx->left)
		return RX_MORE;
	if (c->ctx.ddgst)
		rx->state = RX_DIGEST;
	else
		data_done(c);
	return 0;
}

static int step_digest(struct conn *c)
{
	struct rx *rx = &c->rx;
	__le32 wire;

	if (staged(rx) < sizeof(wire))
		return RX_MORE;
	memcpy(&wire, rx->stage + rx->head, sizeof(wire));
	rx->head += sizeof(wire);
	if (!rx->slot->status && wire != crc_end(rx->crc)) {
		log_warn("%s: data digest error, command %u", c->name, rx->slot->req.cmd.cid);
		rx->slot->status = NVME_SC_TRAN_TPORT_ERROR;
	}
	data_done(c);
	return 0;
}

bool rx_has_staged(const struct conn *c)
{
	return staged(&c->rx);
}

int rx_resume(struct conn *c)
{
	struct rx *rx = &c->rx;
	int err = 0;

	while (!err && rx->block == RX_RUNS) {
		switch (rx->state) {
		case RX_HEADER:
			err = step_header(c);
			break;
		case RX_DATA:
			err = step_data(c);
			break;
		case RX_DIGEST:
			err = step_digest(c);
			break;
		case RX_STOPPED:
			return 0;
		}
	}
	return err < 0 ? err : 0;
}

int rx_got(struct conn *c, size_t n)
{
	struct rx *rx = &c->rx;

	if (rx->state == RX_DATA && rx->to) {
		uint32_t direct = n < rx->left ? n : rx->left;
		int err = data_in(c, rx->to, direct);

		if (err)
			return err;
		n -= direct;
	}
	assert(n <= rx->cap - rx->tail);
	rx->tail += n;
	if (rx->tail == RX_STAGE && rx->cap == RX_STAGE && !rx->bulk)
		grow(rx);
	return rx_resume(c);
}
