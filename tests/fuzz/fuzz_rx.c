// SPDX-License-Identifier: MIT
/*
 * Raw bytes into the connection machine, over the fake target of the unit tests. The first bytes of
 * the input say how the rest arrives: digests agreed, whether the handshake and Connect were made,
 * how many bytes a recv brings; and whether it is made into PDUs that are right but for one byte.
 * rig_close() finds requests and buffers that did not come home.
 */
#include "../unit/transport/fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A slot that waits for H2CData, or NULL. */
static const struct slot *due(void)
{
	for (unsigned int i = 0; i < rig->conn.nslots; i++)
		if (slot_at(&rig->conn, i)->state == SLOT_DATA)
			return slot_at(&rig->conn, i);
	return NULL;
}

/* A PDU that would be right, made by the 8 bytes of OP, but for the byte that they change. */
static size_t make_nearly_right(uint8_t *out, const uint8_t op[8])
{
	static const uint8_t zero[65536];
	const struct pdu_ctx *ctx = &rig->conn.ctx;
	uint8_t dgst = (ctx->hdgst ? PDU_DGST_HEADER : 0) | (ctx->ddgst ? PDU_DGST_DATA : 0);
	struct fake_cmd cmd = { .cid = op[1], .op = op[0] & 7, .len = op[2] | op[3] << 8 };
	const struct slot *slot = due();
	uint32_t len = cmd.len, left;
	size_t n;

	if (op[0] & 8 && slot) {
		left = slot->req.len - slot->got;
		if (len > left || !len)
			len = left;
		n = make_h2c_data(out, slot->req.cmd.cid, (uint16_t)(slot->gen << 8 | slot->index),
				  slot->got, len == left, zero, len, dgst);
	} else {
		len = op[0] & 16 ? len % (TGT_INCAPSULE + 1) : 0;
		if (len)
			cmd.len = len;
		n = make_cmd(out, cmd, zero, len, dgst);
	}
	out[op[6] % n] ^= op[7];
	return n;
}

/* Moves what can be moved: sends, brings one held command home, lifts blocks. */
static int settle(size_t n)
{
	rig_send(n);
	if (rig->nout > sizeof(rig->out) / 2)
		rig->nout = 0;
	if (fake.nheld)
		tgt_req_complete(fake.held[--fake.nheld], 0);
	rig_send(n);
	return rx_resume(&rig->conn);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t mapping[TGT_MAX_TRANSFER];
	size_t step, done = 3, taken;
	int err = 0;

	if (size < 3)
		return 0;
	log_level(LOG_ERR_);
	step = data[1] ? data[1] * 8u : SIZE_MAX;
	rig_open();
	fake.mapping = mapping;
	if (data[0] & 4) {
		rig_handshake(data[0] & 3, data[2] & 31);
		if (data[0] & 8)
			rig_connect(data[0] & 3, data[0] & 16);
	}
	while (data[0] & 32 && done + 8 <= size && !err) {
		static uint8_t made[1 << 17];
		size_t n = make_nearly_right(made, data + done);

		err = rig_feed_some(made, n, step, &taken);
		if (!err)
			err = settle(data[2] ? data[2] * 4u : SIZE_MAX);
		done += 8;
	}
	while (done < size && !err) {
		size_t n = size - done < step ? size - done : step;

		err = rig_feed_some(data + done, n, step, &taken);
		done += taken;
		if (!err)
			err = settle(data[2] ? data[2] * 4u : SIZE_MAX);
		if (!taken && !err && !fake.nheld && !tx_pending(&rig->conn))
			break;
	}
	rig_close();
	return 0;
}
