// SPDX-License-Identifier: MIT
/*
 * The send state machine: a queue of PDUs, presented as the iovecs of one sendmsg(). No I/O.
 *
 * 1. A PDU is built when it is queued, except for its data digest, and does not change until it was
 *    sent. Its pieces are [head][padding][data][tail]; the tail is the data digest and the
 *    CapsuleResp. The digest is made when tx_iov() presents the PDU for the first time, for DIGESTS
 *    PDUs at a time: so the host already works on these while the next are digested. If zero-copy
 *    data cannot be read for its digest, the PDU becomes a CapsuleResp with an error.
 * 2. The only state of sending is how many bytes of the first item were sent. A partial send may
 *    end at any byte; tx_iov() continues from there.
 * 3. A slot leaves the queue in tx_sent() with its last byte, or in tx_drop(). Then the slot of an
 *    R2T may receive H2CData, and the slot of a response is finished. This happens nowhere else.
 * 4. After a C2HTermReq nothing is queued.
 */
#include <assert.h>
#include <string.h>
#include <sys/uio.h>
#include "conn.h"

#define DIGESTS	   16 /* made before a sendmsg */
#define READ_ERROR (NVME_SCT_MEDIA << NVME_SCT_SHIFT | NVME_SC_READ_ERROR)

static const uint8_t zeroes[(PDU_PDA_MAX + 1) * 4];

static struct slot *item_slot(const struct tx_item *item)
{
	return (struct slot *)((uintptr_t)item - offsetof(struct slot, item));
}

static const struct tx_control *item_control(const struct tx_item *item)
{
	return (const struct tx_control *)((uintptr_t)item - offsetof(struct tx_control, item));
}

static void push(struct conn *c, struct tx_item *item, enum tx_kind kind)
{
	item->kind = kind;
	STAILQ_INSERT_TAIL(&c->tx.queue, item, link);
	c->wake(c);
}

/* Appends the header digest to the LEN bytes at PDU, if one was negotiated. The new length. */
static uint8_t seal(const struct conn *c, uint8_t *pdu, uint8_t len)
{
	__le32 digest;

	if (!c->ctx.hdgst)
		return len;
	digest = crc_end(crc_feed(CRC_START, pdu, len));
	memcpy(pdu + len, &digest, sizeof(digest));
	return len + sizeof(digest);
}

void tx_icresp(struct conn *c, uint8_t dgst, uint8_t cpda)
{
	struct pdu_icresp r = {
		.h = { .type = PDU_ICRESP, .hlen = sizeof(r), .plen = htole32(sizeof(r)) },
		.cpda = cpda,
		.dgst = dgst,
		.maxh2cdata = htole32(PDU_MAX_H2CDATA),
	};

	memcpy(c->tx.icresp.bytes, &r, sizeof(r));
	c->tx.icresp.len = sizeof(r);
	push(c, &c->tx.icresp.item, TX_CONTROL);
}

void tx_term(struct conn *c, enum pdu_fes fes, uint32_t fei, const void *hdr, uint32_t n)
{
	struct pdu_term t = {
		.h = { .type = PDU_C2H_TERM, .hlen = sizeof(t), .plen = htole32(sizeof(t) + n) },
		.fes = htole16(fes),
		.fei_lo = htole16(fei & 0xffff),
		.fei_hi = htole16(fei >> 16),
	};

	assert(n <= PDU_HDR_MAX);
	if (c->tx.terminated)
		return;
	memcpy(c->tx.term.bytes, &t, sizeof(t));
	memcpy(c->tx.term.bytes + sizeof(t), hdr, n);
	c->tx.term.len = sizeof(t) + n;
	push(c, &c->tx.term.item, TX_CONTROL);
	c->tx.terminated = true;
}

/* One R2T requests all the data: one outstanding R2T per command, whatever MAXR2T allows. */
void tx_r2t(struct slot *slot)
{
	struct conn *c = slot->conn;
	struct pdu_r2t r = {
		.h = { .type = PDU_R2T,
		       .flags = c->ctx.hdgst ? PDU_F_HDGST : 0,
		       .hlen = sizeof(r),
		       .plen = htole32(sizeof(r) + (c->ctx.hdgst ? PDU_DIGEST_LEN : 0)) },
		.cccid = slot->req.cmd.cid,
		.ttag = htole16((uint16_t)(++slot->gen << 8 | slot->index)),
		.r2tl = htole32(slot->req.len),
	};

	slot->state = SLOT_R2T;
	slot->tick = c->tick;
	memcpy(slot->head, &r, sizeof(r));
	slot->head_len = seal(c, slot->head, sizeof(r));
	slot->pad_len = slot->tail_len = 0;
	slot->data_len = 0;
	push(c, &slot->item, TX_R2T);
}

/*
 * Whether the SUCCESS flag of C2HData may replace the CapsuleResp (NVMe/TCP 3.3.2): if status and
 * result are 0 and the host does not need SQHD. (A Zone Append, which has a result, transfers no
 * data to the host.)
 */
static bool may_success(const struct tgt_req *req)
{
	return req->queue->sqhd_disabled && !req->cqe.status && !req->cqe.result;
}

/* Builds the header of the C2HData PDU; one PDU transfers all data. */
static void make_c2h_data(struct slot *slot, bool success)
{
	struct conn *c = slot->conn;
	uint8_t hdgst = c->ctx.hdgst ? PDU_DIGEST_LEN : 0,
		ddgst = c->ctx.ddgst ? PDU_DIGEST_LEN : 0;
	uint8_t pdo = pdu_align(sizeof(struct pdu_data) + hdgst, c->hpda);
	uint32_t len = slot->req.len;
	struct pdu_data d = {
		.h = { .type = PDU_C2H_DATA,
		       .flags = PDU_F_LAST | (hdgst ? PDU_F_HDGST : 0) | (ddgst ? PDU_F_DDGST : 0) |
				(success ? PDU_F_SUCCESS : 0),
		       .hlen = sizeof(d),
		       .pdo = pdo,
		       .plen = htole32(pdo + len + ddgst) },
		.cccid = slot->req.cqe.cid,
		.datal = htole32(len),
	};

	memcpy(slot->head, &d, sizeof(d));
	slot->head_len = seal(c, slot->head, sizeof(d));
	slot->pad_len = pdo - slot->head_len;
	slot->data_len = len;
	if (ddgst) {
		slot->digest_due = true;
		slot->tail_at = 0;
		slot->tail_len = PDU_DIGEST_LEN;
	}
}

/* Builds the CapsuleResp PDU. */
static void make_resp(struct slot *slot)
{
	struct conn *c = slot->conn;
	struct pdu_resp r = {
		.h = { .type = PDU_RESP,
		       .flags = c->ctx.hdgst ? PDU_F_HDGST : 0,
		       .hlen = sizeof(r),
		       .plen = htole32(sizeof(r) + (c->ctx.hdgst ? PDU_DIGEST_LEN : 0)) },
		.cqe = slot->req.cqe,
	};

	memcpy(slot->tail + PDU_DIGEST_LEN, &r, sizeof(r));
	slot->tail_len += seal(c, slot->tail + PDU_DIGEST_LEN, sizeof(r));
}

static void make_nothing(struct slot *slot)
{
	slot->head_len = slot->pad_len = slot->tail_len = 0;
	slot->tail_at = PDU_DIGEST_LEN;
	slot->data_len = 0;
	slot->digest_due = false;
}

void tx_response(struct slot *slot)
{
	struct conn *c = slot->conn;
	const struct tgt_req *req = &slot->req;
	bool data = req->dir == TGT_C2H && req->len && !req->cqe.status;
	bool success = data && may_success(req);

	slot->state = SLOT_RESP;
	slot->tick = c->tick;
	if (c->tx.terminated) { /* nothing follows a TermReq */
		slot_finish(slot);
		return;
	}
	make_nothing(slot);
	c->tx.zero_copy |= req->zero_copy;
	if (data)
		make_c2h_data(slot, success);
	if (!success)
		make_resp(slot);
	push(c, &slot->item, TX_RESP);
	if (!data) /* a host that does not take responses must not hold buffers by its writes */
		slot_drop_buffer(slot);
}

/* The pieces of ITEM, at most 4. */
static int pieces(const struct tx_item *item, struct iovec iov[4])
{
	struct slot *slot;
	int n = 0;

	if (item->kind == TX_CONTROL) {
		const struct tx_control *ctl = item_control(item);

		iov[0] = (struct iovec){ (void *)(uintptr_t)ctl->bytes, ctl->len };
		return 1;
	}
	slot = item_slot(item);
	if (slot->head_len)
		iov[n++] = (struct iovec){ slot->head, slot->head_len };
	if (slot->pad_len)
		iov[n++] = (struct iovec){ (void *)(uintptr_t)zeroes, slot->pad_len };
	if (slot->data_len)
		iov[n++] = (struct iovec){ slot->req.buf, slot->data_len };
	if (slot->tail_len)
		iov[n++] = (struct iovec){ slot->tail + slot->tail_at, slot->tail_len };
	return n;
}

/* The slot whose response ITEM is, if that lacks its data digest; else NULL. */
static struct slot *digest_due(const struct tx_item *item)
{
	return item->kind == TX_RESP && item_slot(item)->digest_due ? item_slot(item) : NULL;
}

/* Makes the data digest of a response, or makes that an error if the data cannot be read. */
static void make_data_digest(struct slot *slot)
{
	uint32_t crc = CRC_START;
	__le32 digest;

	slot->digest_due = false;
	if (!slot->req.zero_copy) {
		crc = crc_feed(crc, slot->req.buf, slot->data_len);
	} else if (!crc_feed_mapping(&crc, slot->req.buf, slot->data_len)) {
		slot->req.zero_copy = TGT_FAULTED;
		slot->req.cqe.status = htole16(READ_ERROR << 1);
		make_nothing(slot);
		make_resp(slot);
		return;
	}
	digest = crc_end(crc);
	memcpy(slot->tail, &digest, sizeof(digest));
}

int tx_iov(struct conn *c, struct iovec *iov, int max)
{
	unsigned int digests = 0;
	size_t skip = c->tx.sent;
	struct tx_item *item;
	int n = 0;

	STAILQ_FOREACH (item, &c->tx.queue, link) {
		struct slot *due = digest_due(item);
		int k = 0, have;

		if (n + 4 > max || (due && digests++ == DIGESTS))
			break;
		if (due)
			make_data_digest(due);
		have = pieces(item, iov + n);
		while (skip && skip >= iov[n + k].iov_len)
			skip -= iov[n + k++].iov_len;
		if (skip) {
			iov[n + k].iov_base = (uint8_t *)iov[n + k].iov_base + skip;
			iov[n + k].iov_len -= skip;
			skip = 0;
		}
		memmove(iov + n, iov + n + k, (have - k) * sizeof(*iov));
		n += have - k;
	}
	return n;
}

/* ITEM, which was removed from the queue, was sent completely or is dropped. */
static void item_done(struct conn *c, struct tx_item *item)
{
	struct slot *slot;

	if (item->kind == TX_CONTROL)
		return;
	slot = item_slot(item);
	if (item->kind == TX_R2T && !c->dead) {
		slot->state = SLOT_DATA;
		slot->tick = c->tick;
		c->waits = true;
	} else {
		slot_finish(slot);
	}
}

void tx_sent(struct conn *c, size_t n)
{
	struct tx_item *item;

	n += c->tx.sent;
	while ((item = STAILQ_FIRST(&c->tx.queue))) {
		struct iovec iov[4];
		size_t len = 0;

		for (int i = pieces(item, iov); i-- > 0;)
			len += iov[i].iov_len;
		if (n < len)
			break;
		n -= len;
		STAILQ_REMOVE_HEAD(&c->tx.queue, link);
		c->tx.sent = 0;
		item_done(c, item);
	}
	assert(item || !n);
	c->tx.sent = n;
}

void tx_unreadable(struct conn *c)
{
	struct tx_item *item;

	STAILQ_FOREACH (item, &c->tx.queue, link)
		if (item->kind == TX_RESP && item_slot(item)->req.dir == TGT_C2H &&
		    item_slot(item)->req.zero_copy)
			item_slot(item)->req.zero_copy = TGT_FAULTED;
}

void tx_drop(struct conn *c, bool all)
{
	STAILQ_HEAD(, tx_item) keep = STAILQ_HEAD_INITIALIZER(keep), drop;
	struct tx_item *item;
	bool first = c->tx.sent != 0;

	STAILQ_INIT(&drop);
	while ((item = STAILQ_FIRST(&c->tx.queue))) {
		STAILQ_REMOVE_HEAD(&c->tx.queue, link);
		if (!all && (first || item->kind == TX_CONTROL))
			STAILQ_INSERT_TAIL(&keep, item, link);
		else
			STAILQ_INSERT_TAIL(&drop, item, link);
		first = false;
	}
	STAILQ_CONCAT(&c->tx.queue, &keep);
	if (all)
		c->tx.sent = 0;
	while ((item = STAILQ_FIRST(&drop))) {
		STAILQ_REMOVE_HEAD(&drop, link);
		item_done(c, item);
	}
}

bool tx_pending(const struct conn *c)
{
	return !STAILQ_EMPTY(&c->tx.queue);
}
