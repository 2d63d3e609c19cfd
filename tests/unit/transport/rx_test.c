// SPDX-License-Identifier: MIT
/* The receive machine: whole, in pieces, truncated, many at once, and everything a host may send
 * wrong. */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include "fake.h"
#include "guard.h"

static uint8_t pattern[1 << 20];

static int fill_pattern(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i * 131 + i / 509);
	return 0;
}

/* The PDU at *AT of the output, and *AT is moved past it; NULL: there is none, or not all of it. */
static const uint8_t *next_pdu(size_t *at)
{
	const uint8_t *p = rig->out + *at;

	if (*at + sizeof(struct pdu_hdr) > rig->nout || *at + le32toh(hdr_at(p).plen) > rig->nout)
		return NULL;
	*at += le32toh(hdr_at(p).plen);
	return p;
}

/* The output is one CapsuleResp for CID with STATUS. */
static void expect_response(uint16_t cid, uint16_t status)
{
	struct pdu_resp r;

	rig_send(SIZE_MAX);
	assert_in_range(rig->nout, sizeof(r), sizeof(r) + PDU_DIGEST_LEN);
	memcpy(&r, rig->out, sizeof(r));
	assert_int_equal(r.h.type, PDU_RESP);
	assert_int_equal(r.cqe.cid, cid);
	assert_int_equal(le16toh(r.cqe.status) >> 1, status);
	rig->nout = 0;
}

/* The output ends with a C2HTermReq of that content, quoting the PDU at fault. */
static void expect_term(uint16_t fes, uint32_t fei)
{
	struct pdu_term t = { 0 };
	const uint8_t *h, *last = NULL;
	size_t at = 0;

	rig_send(SIZE_MAX);
	while ((h = next_pdu(&at)))
		last = h;
	assert_int_equal(at, rig->nout);
	assert_non_null(last);
	memcpy(&t, last, sizeof(t));
	assert_int_equal(t.h.type, PDU_C2H_TERM);
	assert_int_equal(t.h.flags, 0);
	assert_int_equal(t.h.hlen, sizeof(t));
	assert_in_range(le32toh(t.h.plen), sizeof(t) + 8, PDU_TERM_MAX);
	assert_int_equal(le16toh(t.fes), fes);
	assert_int_equal(le16toh(t.fei_lo) | (uint32_t)le16toh(t.fei_hi) << 16, fei);
	rig->nout = 0;
}

/* A write of LEN bytes is under way: its R2T is sent. Returns its TTAG. */
static uint16_t start_write(uint16_t cid, uint32_t len, uint8_t dgst)
{
	struct fake_cmd cmd = { .cid = cid, .op = FAKE_WRITE, .len = len };
	struct pdu_r2t r;
	uint8_t buf[128];

	assert_int_equal(rig_feed(buf, make_cmd(buf, cmd, NULL, 0, dgst), SIZE_MAX), 0);
	rig->nout = 0;
	rig_send(SIZE_MAX);
	memcpy(&r, rig->out, sizeof(r));
	assert_int_equal(r.h.type, PDU_R2T);
	assert_int_equal(r.cccid, cid);
	assert_int_equal(le32toh(r.r2to), 0);
	assert_int_equal(le32toh(r.r2tl), len);
	rig->nout = 0;
	return le16toh(r.ttag);
}

/* A whole session, arriving STEP bytes at a time. */
static void session(uint8_t dgst, size_t step)
{
	struct fake_cmd in = { .cid = 10, .op = FAKE_WRITE, .len = 8192 };
	struct fake_cmd rd = { .cid = 12, .op = FAKE_READ, .len = 5000 };
	uint8_t *buf = malloc(1 << 18);
	uint16_t ttag;

	rig_open();
	assert_int_equal(rig_feed(buf, make_icreq(buf, dgst, 0), step), 0);
	rig_send(SIZE_MAX);
	rig->nout = 0;
	rig_connect(dgst, false);
	assert_int_equal(rig->connects, 1);
	assert_int_equal(rig_feed(buf, make_cmd(buf, in, pattern, 8192, dgst), step), 0);
	expect_response(10, 0);
	assert_int_equal(fake.wrote_len, 8192);
	assert_memory_equal(fake.wrote, pattern, 8192);

	ttag = start_write(11, 100000, dgst);
	assert_int_equal(
		rig_feed(buf, make_h2c_data(buf, 11, ttag, 0, false, pattern, 33333, dgst), step),
		0);
	assert_int_equal(rig_send(SIZE_MAX), 0);
	assert_int_equal(
		rig_feed(buf,
			 make_h2c_data(buf, 11, ttag, 33333, true, pattern + 33333, 66667, dgst),
			 step),
		0);
	expect_response(11, 0);
	assert_int_equal(fake.wrote_len, 100000);
	assert_memory_equal(fake.wrote, pattern, 100000);

	assert_int_equal(rig_feed(buf, make_cmd(buf, rd, NULL, 0, dgst), step), 0);
	rig_send(SIZE_MAX);
	assert_true(rig->nout > 5000);
	rig_close();
	free(buf);
}

static void bytes_may_come_in_any_pieces(void **state)
{
	static const size_t steps[] = { 1,  2,	 3,   7,   8,	 9,    71,   72,      73,
					76, 127, 128, 129, 4095, 4096, 4097, SIZE_MAX };

	(void)state;
	for (uint8_t dgst = 0; dgst < 4; dgst++)
		for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
			session(dgst, steps[i]);
}

/* ICReq, Connect, writes in their capsules, plain commands, reads; returns the length. */
static size_t make_stream(uint8_t *out, uint8_t dgst)
{
	size_t n = make_icreq(out, dgst, 0);

	n += make_cmd(out + n, (struct fake_cmd){ .cid = 99, .op = FAKE_CONNECT }, NULL, 0, dgst);
	for (uint16_t i = 0; i < 40; i++) {
		struct fake_cmd cmd = { .cid = i };
		uint32_t len = i * 37u % 300;

		cmd.op = len && i % 3 ? FAKE_WRITE : FAKE_NONE;
		cmd.len = cmd.op == FAKE_WRITE ? len : 0;
		n += make_cmd(out + n, cmd, pattern, cmd.len, dgst);
	}
	return n;
}

/* Feeds as the socket would: what is blocked goes on after the output was sent. */
static int feed_all(const uint8_t *data, size_t n, size_t (*step)(void))
{
	size_t done = 0, taken;
	int err = 0;

	while (done < n && !err) {
		size_t want = step();

		if (want > n - done)
			want = n - done;
		err = rig_feed_some(data + done, want, SIZE_MAX, &taken);
		done += taken;
		if (!taken || taken < want) {
			rig_send(SIZE_MAX);
			err = err ? err : rx_resume(&rig->conn);
		}
	}
	return err;
}

static uint32_t seed = 1;

static size_t random_step(void)
{
	seed = seed * 1664525 + 1013904223;
	return 1 + (seed >> 16) % ((seed >> 8 & 3) ? 90 : 5000);
}

static size_t everything(void)
{
	return SIZE_MAX;
}

static void many_pdus_in_one_buffer_and_random_splits_agree(void **state)
{
	uint8_t *stream = malloc(65536), *whole = malloc(65536);

	(void)state;
	for (uint8_t dgst = 0; dgst < 4; dgst++) {
		size_t n = make_stream(stream, dgst), nwhole;

		rig_open();
		assert_int_equal(feed_all(stream, n, everything), 0);
		rig_send(SIZE_MAX);
		assert_int_equal(fake.completed, 41);
		nwhole = rig->nout;
		memcpy(whole, rig->out, nwhole);
		rig_close();
		for (int i = 0; i < 15; i++) {
			rig_open();
			assert_int_equal(feed_all(stream, n, random_step), 0);
			rig_send(SIZE_MAX);
			assert_int_equal(rig->nout, nwhole);
			assert_memory_equal(rig->out, whole, nwhole);
			rig_close();
		}
	}
	free(stream);
	free(whole);
}

static void a_stream_may_end_at_every_byte(void **state)
{
	uint8_t *stream = malloc(65536);

	(void)state;
	for (uint8_t dgst = 0; dgst < 4; dgst += 3) {
		size_t n = make_stream(stream, dgst);

		if (n > 3000)
			n = 3000;
		for (size_t cut = 0; cut <= n; cut++) {
			rig_open();
			assert_int_equal(feed_all(stream, cut, everything), 0);
			rig_close(); /* which finds what leaked */
		}
	}
	free(stream);
}

static void a_write_may_end_at_every_byte_of_its_data(void **state)
{
	uint8_t buf[512];

	(void)state;
	for (size_t cut = 0;; cut++) {
		uint16_t ttag;
		size_t n;

		rig_open();
		rig_handshake(3, 0);
		ttag = start_write(5, 200, 3);
		n = make_h2c_data(buf, 5, ttag, 0, true, pattern, 200, 3);
		assert_int_equal(rig_feed(buf, cut, SIZE_MAX), 0);
		assert_int_equal(fake.executed, cut == n);
		rig_close();
		if (cut == n)
			break;
	}
}

static void a_wrong_header_digest_is_fatal_and_told(void **state)
{
	static const size_t at[] = { 8, 30, 71, 72, 75 }; /* past the common header */
	uint8_t buf[128];

	(void)state;
	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		size_t n;
		__le32 wire;

		rig_open();
		rig_handshake(1, 0);
		n = make_cmd(buf, (struct fake_cmd){ .cid = 1 }, NULL, 0, 1);
		buf[at[i]] ^= 0x10;
		memcpy(&wire, buf + 72, sizeof(wire));
		assert_int_equal(rig_feed(buf, n, SIZE_MAX), -EPROTO);
		expect_term(FES_HEADER_DIGEST, le32toh(wire));
		assert_int_equal(fake.inits, 0);
		rig_close();
	}
}

static void a_wrong_data_digest_costs_the_command_alone(void **state)
{
	struct fake_cmd cmd = { .cid = 3, .op = FAKE_WRITE, .len = 1000 };
	uint8_t buf[4096];
	uint16_t ttag;
	size_t n;

	(void)state;
	rig_open();
	rig_handshake(2, 0);
	n = make_cmd(buf, cmd, pattern, 1000, 2);
	buf[n - 1] ^= 1; /* the digest */
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), 0);
	expect_response(3, NVME_SC_TRAN_TPORT_ERROR);
	n = make_cmd(buf, cmd, pattern, 1000, 2);
	buf[500] ^= 1; /* the data */
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), 0);
	expect_response(3, NVME_SC_TRAN_TPORT_ERROR);

	/* By R2T: the bad PDU is the first of two; the rest is swallowed, the answer comes last. */
	ttag = start_write(4, 2000, 2);
	n = make_h2c_data(buf, 4, ttag, 0, false, pattern, 1000, 2);
	buf[n - 2] ^= 0x80;
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), 0);
	assert_int_equal(rig_send(SIZE_MAX), 0);
	n = make_h2c_data(buf, 4, ttag, 1000, true, pattern, 1000, 2);
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), 0);
	expect_response(4, NVME_SC_TRAN_TPORT_ERROR);
	assert_int_equal(fake.executed, 0);

	/* The connection lives. */
	assert_int_equal(rig_feed(buf, make_cmd(buf, cmd, pattern, 1000, 2), SIZE_MAX), 0);
	expect_response(3, 0);
	assert_int_equal(fake.executed, 1);
	rig_close();
}

enum h2c_field { F_TTAG, F_CCCID, F_OFF, F_EARLY, F_LEN, F_PLEN, F_PDO, F_LAST };

/* H2CData for the second half of a write of 8192 bytes, with one field changed. */
static int feed_broken_data(enum h2c_field field, uint32_t value)
{
	uint8_t *buf = malloc(16384);
	uint16_t ttag = start_write(7, 8192, 0);
	uint32_t off = field == F_OFF || field == F_EARLY ? value : 4096;
	struct pdu_data *p = (void *)buf; /* malloc aligns */
	size_t n;
	int err;

	assert_int_equal(
		rig_feed(buf, make_h2c_data(buf, 7, ttag, 0, false, pattern, 4096, 0), SIZE_MAX),
		0);
	n = make_h2c_data(buf, 7, ttag, off, field != F_EARLY, pattern, 4096, 0);
	if (field == F_TTAG)
		p->ttag = htole16((uint16_t)(ttag + value));
	if (field == F_CCCID)
		p->cccid = htole16((uint16_t)(7 + value));
	if (field == F_LEN) { /* with PLEN to match: only the range is wrong */
		p->datal = htole32(value);
		p->h.plen = htole32(value + 24);
	}
	if (field == F_PLEN)
		p->h.plen = htole32(value);
	if (field == F_PDO)
		p->h.pdo = (uint8_t)value;
	if (field == F_LAST)
		p->h.flags = (uint8_t)value;
	err = rig_feed(buf, field == F_LEN ? 24 : n, SIZE_MAX);
	free(buf);
	return err;
}

static void h2c_data_is_bounded_in_every_field(void **state)
{
	static const struct {
		enum h2c_field field;
		uint32_t value;
		uint16_t fes;
		uint32_t fei;
	} t[] = {
		{ F_TTAG, 1, 1, 10 },
		{ F_TTAG, 0xffff, 1, 10 },
		{ F_TTAG, 0x100, 1, 10 },  /* the next generation */
		{ F_TTAG, 0xff00, 1, 10 }, /* the one before */
		{ F_TTAG, 0x80, 1, 10 },
		{ F_TTAG, 0x7fff, 1, 10 },
		{ F_CCCID, 1, 1, 8 },
		{ F_CCCID, 0xffff, 1, 8 },
		{ F_CCCID, 0x8000, 1, 8 },
		{ F_OFF, 0, 2, 0 }, /* again: in the window, out of order */
		{ F_OFF, 1, 2, 0 },
		{ F_OFF, 4095, 2, 0 },
		{ F_EARLY, 0, 2, 0 }, /* no LAST: nothing is wrong but the order */
		{ F_EARLY, 4095, 2, 0 },
		{ F_EARLY, 4092, 2, 0 },
		{ F_OFF, 4097, 4, 0 },
		{ F_OFF, 8192, 4, 0 },
		{ F_OFF, 1u << 31, 4, 0 },
		{ F_OFF, 0xfffff000u, 4, 0 }, /* off + len is 0 in 32 bits */
		{ F_OFF, ~0u, 4, 0 },
		{ F_LEN, 0, 1, 4 },
		{ F_LEN, 4095, 2, 0 }, /* LAST before the end */
		{ F_LEN, 4097, 4, 0 },
		{ F_LEN, 1u << 20, 4, 0 },
		{ F_LEN, (1u << 20) + 1, 5, 0 },
		{ F_LEN, 1u << 31, 5, 0 },
		{ F_LEN, ~0u - 24, 5, 0 },
		{ F_LEN, ~0u, 1, 4 }, /* PLEN 23 */
		{ F_PLEN, 0, 1, 4 },
		{ F_PLEN, 23, 1, 4 },
		{ F_PLEN, 24, 1, 4 },
		{ F_PLEN, 25, 1, 4 },
		{ F_PLEN, 24 + 4095, 1, 4 },
		{ F_PLEN, 24 + 4097, 1, 4 },
		{ F_PLEN, 1u << 31, 5, 0 },
		{ F_PLEN, ~0u, 5, 0 },
		{ F_PDO, 0, 1, 3 },
		{ F_PDO, 20, 1, 3 },
		{ F_PDO, 23, 1, 3 },
		{ F_PDO, 25, 1, 3 },
		{ F_PDO, 28, 1, 4 }, /* then PLEN does not agree with DATAL */
		{ F_PDO, 252, 1, 4 },
		{ F_PDO, 255, 1, 3 },
		{ F_LAST, 0, 2, 0 }, /* no LAST at the end */
		{ F_LAST, 0x08, 1, 1 },
		{ F_LAST, 0xff, 1, 1 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		int err;

		rig_open();
		rig_handshake(0, 0);
		rig_connect(0, false);
		err = feed_broken_data(t[i].field, t[i].value);
		if (err != -EPROTO)
			fail_msg("field %d, %#x: %d", t[i].field, t[i].value, err);
		expect_term(t[i].fes, t[i].fei);
		assert_int_equal(fake.executed, 1); /* Connect alone */
		rig_close();
	}
}

static void data_nobody_asked_for_is_refused(void **state)
{
	struct fake_cmd hold = { .cid = 1, .op = FAKE_HOLD };
	struct fake_cmd wr = { .cid = 1, .op = FAKE_WRITE, .len = 64 };
	uint8_t buf[256];

	(void)state;
	for (int what = 0; what < 6; what++) {
		uint16_t ttag = 0;

		rig_open();
		rig_handshake(0, 0);
		if (what == 1) { /* for a command without data */
			rig_feed(buf, make_cmd(buf, hold, NULL, 0, 0), SIZE_MAX);
			ttag = CONN_BOOT_SLOTS - 1; /* the slot it has */
		}
		if (what == 2) { /* before the R2T was sent, its TTAG guessed */
			rig_feed(buf, make_cmd(buf, wr, NULL, 0, 0), SIZE_MAX);
			ttag = 1 << 8 | (CONN_BOOT_SLOTS - 1);
		}
		if (what == 3) /* one slot past the last */
			ttag = CONN_BOOT_SLOTS;
		if (what >= 4) { /* a second time, answer queued or sent */
			ttag = start_write(1, 64, 0);
			rig_feed(buf, make_h2c_data(buf, 1, ttag, 0, true, pattern, 64, 0),
				 SIZE_MAX);
			if (what == 5)
				rig_send(SIZE_MAX);
		}
		assert_int_equal(rig_feed(buf, make_h2c_data(buf, 1, ttag, 0, true, pattern, 64, 0),
					  SIZE_MAX),
				 -EPROTO);
		expect_term(FES_HEADER_FIELD, 10);
		rig_close();
	}
}

/* A well-formed PDU of each type. */
static size_t make_any(uint8_t *out, uint8_t type, uint16_t ttag)
{
	struct pdu_term term = { .h = { type, 0, 24, 0, htole32(24) }, .fes = htole16(2) };

	switch (type) {
	case PDU_ICREQ:
		return make_icreq(out, 0, 0);
	case PDU_CMD:
		return make_cmd(out, (struct fake_cmd){ .cid = 77 }, NULL, 0, 0);
	case PDU_H2C_DATA:
		return make_h2c_data(out, 7, ttag, 0, true, pattern, 64, 0);
	default:
		memcpy(out, &term, sizeof(term));
		return sizeof(term);
	}
}

static void each_type_in_each_state(void **state)
{
	enum { FRESH, READY, CONNECTED, DATA_DUE, IN_DATA, STATES };
	/* rows: types 0 to 10; 0: taken, -1: hang up, else the FES */
	static const int8_t expect[11][STATES] = {
		[PDU_ICREQ] = { 0, 2, 2, 2, 0 },
		[PDU_ICRESP] = { 2, 1, 1, 1, 0 },
		[PDU_H2C_TERM] = { -1, -1, -1, -1, 0 },
		[PDU_C2H_TERM] = { 2, 1, 1, 1, 0 },
		[PDU_CMD] = { 2, 0, 0, 0, 0 },
		[PDU_RESP] = { 2, 1, 1, 1, 0 },
		[PDU_H2C_DATA] = { 2, 1, 1, 0, 0 },
		[PDU_C2H_DATA] = { 2, 1, 1, 1, 0 },
		[8] = { 2, 1, 1, 1, 0 },
		[PDU_R2T] = { 2, 1, 1, 1, 0 },
		[10] = { 2, 1, 1, 1, 0 },
	};
	uint8_t buf[512];

	(void)state;
	for (uint8_t type = 0; type < 11; type++) {
		for (int s = 0; s < STATES; s++) {
			uint16_t ttag = 0;
			size_t n;
			int err;

			rig_open();
			if (s >= READY)
				rig_handshake(0, 0);
			if (s >= CONNECTED)
				rig_connect(0, false);
			if (s == DATA_DUE)
				ttag = start_write(7, 64, 0);
			if (s == IN_DATA) { /* whatever it looks like, it is data */
				ttag = start_write(7, 4000, 0);
				n = make_h2c_data(buf, 7, ttag, 0, false, pattern, 200, 0);
				rig_feed(buf, 24, SIZE_MAX);
			}
			n = make_any(buf, type, ttag);
			err = rig_feed(buf, n, SIZE_MAX);
			assert_int_equal(err, expect[type][s] > 0   ? -EPROTO
					      : expect[type][s] < 0 ? -ECONNRESET
								    : 0);
			if (err == -EPROTO)
				expect_term((uint16_t)expect[type][s],
					    expect[type][s] == 1 && type == PDU_H2C_DATA ? 10 : 0);
			if (err == -ECONNRESET) {
				rig_send(SIZE_MAX);
				assert_int_equal(rig->nout, 0); /* a TermReq has no answer */
			}
			if (err) { /* and nothing is heard any more */
				struct iovec iov[2];

				assert_int_equal(rx_want(&rig->conn, iov), 0);
			}
			rig_close();
		}
	}
}

static void a_termreq_quotes_the_header_at_fault(void **state)
{
	uint8_t buf[256], quoted[72];
	size_t n;

	(void)state;
	rig_open();
	rig_handshake(0, 0);
	n = make_cmd(buf, (struct fake_cmd){ .cid = 0x1234 }, NULL, 0, 0);
	buf[1] = 0x40;
	memcpy(quoted, buf, sizeof(quoted));
	n += make_cmd(buf + n, (struct fake_cmd){ .cid = 0x1235 }, NULL, 0, 0); /* not quoted */
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), -EPROTO);
	rig_send(SIZE_MAX);
	assert_int_equal(rig->nout, sizeof(struct pdu_term) + sizeof(quoted));
	assert_memory_equal(rig->out + sizeof(struct pdu_term), quoted, sizeof(quoted));
	expect_term(FES_HEADER_FIELD, 1);
	rig_close();
}

/* Neither the answer of a command that ends after it. */
static void nothing_follows_a_termreq(void **state)
{
	uint8_t buf[128];
	size_t n;

	(void)state;
	rig_open();
	rig_handshake(0, 0);
	n = make_cmd(buf, (struct fake_cmd){ .cid = 1, .op = FAKE_HOLD }, NULL, 0, 0);
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), 0);
	n = make_cmd(buf, (struct fake_cmd){ .cid = 2 }, NULL, 0, 0);
	buf[1] = 0x40;
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), -EPROTO);
	tgt_req_complete(fake.held[--fake.nheld], 0);
	expect_term(FES_HEADER_FIELD, 1);
	rig_close();
}

static void a_cid_in_flight_is_not_taken_twice(void **state)
{
	struct fake_cmd hold = { .cid = 300, .op = FAKE_HOLD };
	struct fake_cmd wr = { .cid = 300, .op = FAKE_WRITE, .len = 8 };
	uint8_t buf[256];

	(void)state;
	rig_open();
	rig_handshake(0, 0);
	rig_feed(buf, make_cmd(buf, hold, NULL, 0, 0), SIZE_MAX);
	rig_feed(buf, make_cmd(buf, hold, NULL, 0, 0), SIZE_MAX);
	expect_response(300, NVME_SC_CMDID_CONFLICT | NVME_SC_DNR);
	rig_feed(buf, make_cmd(buf, wr, pattern, 8, 0), SIZE_MAX); /* its data is swallowed */
	expect_response(300, NVME_SC_CMDID_CONFLICT | NVME_SC_DNR);
	rig_feed(buf, make_cmd(buf, wr, NULL, 0, 0), SIZE_MAX); /* no R2T for it */
	expect_response(300, NVME_SC_CMDID_CONFLICT | NVME_SC_DNR);
	hold.cid = 44; /* its bucket's neighbour: 300 and 44 are both 0x2c in the low byte */
	rig_feed(buf, make_cmd(buf, hold, NULL, 0, 0), SIZE_MAX);
	assert_int_equal(fake.nheld, 2);
	tgt_req_complete(fake.held[0], 0);
	expect_response(300, 0);
	rig_feed(buf, make_cmd(buf, (struct fake_cmd){ .cid = 300 }, NULL, 0, 0), SIZE_MAX);
	expect_response(300, 0);
	fake.held[0] = fake.held[1];
	fake.nheld = 1;
	rig_close();
}

static void a_refused_command_has_its_data_swallowed(void **state)
{
	struct fake_cmd refuse = { .cid = 1, .op = FAKE_REFUSE, .status = NVME_SC_INVALID_NS };
	struct fake_cmd read = { .cid = 2, .op = FAKE_READ, .len = 100 };
	struct fake_cmd less = { .cid = 3, .op = FAKE_WRITE, .len = 100 };
	uint8_t *buf = malloc(16384);

	(void)state;
	rig_open();
	rig_handshake(3, 0);
	for (size_t step = 1; step < 10000; step *= 3) {
		rig_feed(buf, make_cmd(buf, refuse, pattern, 8192, 3), step);
		expect_response(1, NVME_SC_INVALID_NS);
		rig_feed(buf, make_cmd(buf, read, pattern, 100, 3), step); /* data for a read */
		expect_response(2, NVME_SC_SGL_INVALID_DATA | NVME_SC_DNR);
		rig_feed(buf, make_cmd(buf, less, pattern, 99, 3), step);
		expect_response(3, NVME_SC_SGL_INVALID_DATA | NVME_SC_DNR);
		rig_feed(buf, make_cmd(buf, refuse, NULL, 0, 3), step);
		expect_response(1, NVME_SC_INVALID_NS);
	}
	assert_int_equal(fake.executed, 0);
	free(buf);
	rig_close();
}

static void nothing_of_zero_length_gets_an_r2t_or_data(void **state)
{
	struct fake_cmd wr = { .cid = 1, .op = FAKE_WRITE }, rd = { .cid = 2, .op = FAKE_READ };
	uint8_t buf[128];

	(void)state;
	rig_open();
	rig_handshake(0, 0);
	rig_feed(buf, make_cmd(buf, wr, NULL, 0, 0), SIZE_MAX);
	expect_response(1, 0);
	rig_feed(buf, make_cmd(buf, rd, NULL, 0, 0), SIZE_MAX);
	expect_response(2, 0);
	rig_close();
}

static void with_no_free_slot_nothing_is_read(void **state)
{
	struct fake_cmd hold = { .op = FAKE_HOLD };
	uint8_t buf[72 * 8];
	struct iovec iov[2];
	size_t n = 0, taken;

	(void)state;
	rig_open();
	rig_handshake(0, 0);
	for (hold.cid = 0; hold.cid < 8; hold.cid++)
		n += make_cmd(buf + n, hold, NULL, 0, 0);
	assert_int_equal(rig_feed_some(buf, n, SIZE_MAX, &taken), 0);
	assert_int_equal(fake.nheld, CONN_BOOT_SLOTS);
	assert_int_equal(rx_want(&rig->conn, iov), 0);
	tgt_req_complete(fake.held[0], 0);
	assert_int_equal(rx_want(&rig->conn, iov),
			 0); /* a response in flight still holds its slot */
	rig->wakes = 0;
	rig_send(SIZE_MAX);
	assert_true(rig->wakes > 0);
	assert_int_equal(rx_resume(&rig->conn), 0);
	assert_int_equal(fake.nheld, CONN_BOOT_SLOTS + 1);
	assert_int_equal(rx_want(&rig->conn, iov), 0);
	fake.held[0] = fake.held[--fake.nheld];
	rig_close();
}

static void a_connected_queue_takes_its_whole_depth(void **state)
{
	struct fake_cmd hold = { .op = FAKE_HOLD };
	uint8_t buf[128];
	struct iovec iov[2];

	(void)state;
	rig_open();
	rig_handshake(0, 0);
	rig_connect(0, false);
	for (hold.cid = 0; hold.cid < TGT_QUEUE_DEPTH; hold.cid++)
		assert_int_equal(rig_feed(buf, make_cmd(buf, hold, NULL, 0, 0), SIZE_MAX), 0);
	assert_int_equal(fake.nheld, TGT_QUEUE_DEPTH);
	assert_true(rx_want(&rig->conn, iov) > 0);
	rig_close();
}

/*
 * All memory waits for H2CData. Reads and writes then wait for a buffer; data in a capsule must
 * not, as the H2CData comes behind it.
 */
static void capsules_pass_when_memory_waits_for_data(void **state)
{
	struct fake_cmd wr = { .op = FAKE_WRITE, .len = 1 << 20 };
	struct fake_cmd in = { .cid = 500, .op = FAKE_WRITE, .len = 8192 };
	uint8_t *buf = malloc((1 << 20) + 256);
	unsigned int r2ts = 0;
	struct pdu_r2t first = { 0 };
	const uint8_t *h;
	size_t at = 0, n;

	(void)state;
	rig_open_sized(8 << 20); /* a host alone holds about half */
	rig_handshake(0, 0);
	rig_connect(0, false);
	for (wr.cid = 0; wr.cid < 20; wr.cid++)
		assert_int_equal(rig_feed(buf, make_cmd(buf, wr, NULL, 0, 0), SIZE_MAX), 0);
	rig_send(SIZE_MAX);
	while ((h = next_pdu(&at))) {
		assert_int_equal(hdr_at(h).type, PDU_R2T);
		if (!r2ts++)
			memcpy(&first, h, sizeof(first));
	}
	assert_int_equal(r2ts, 4);
	rig->nout = 0;
	assert_int_equal(rig_feed(buf, make_cmd(buf, in, pattern, 8192, 0), SIZE_MAX), 0);
	expect_response(500, 0);
	/* One write done is the next one's turn. */
	n = make_h2c_data(buf, first.cccid, le16toh(first.ttag), 0, true, pattern, 1 << 20, 0);
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), 0);
	rig_send(SIZE_MAX);
	assert_int_equal(rig->nout, sizeof(struct pdu_resp) + sizeof(struct pdu_r2t));
	free(buf);
	rig_close();
}

/* A host that takes no responses holds no buffer by its writes: neither in-capsule nor after an R2T. */
static void a_write_returns_its_buffer_before_its_response_is_sent(void **state)
{
	struct fake_cmd wr = { .cid = 1, .op = FAKE_WRITE, .len = 8192 };
	uint8_t *buf = malloc(16384);
	const struct pdu_r2t *r2t;
	uint16_t ttag;

	(void)state;
	rig_open();
	rig_handshake(0, 0);
	assert_int_equal(rig_feed(buf, make_cmd(buf, wr, pattern, 8192, 0), SIZE_MAX), 0);
	assert_int_equal(rig->pool.used, 0);
	expect_response(1, 0);
	assert_int_equal(rig_feed(buf, make_cmd(buf, wr, NULL, 0, 0), SIZE_MAX), 0);
	rig->nout = 0;
	rig_send(SIZE_MAX);
	r2t = (const void *)rig->out;
	assert_int_equal(r2t->h.type, PDU_R2T);
	ttag = le16toh(r2t->ttag);
	assert_int_equal(rig->pool.used, 8192);
	rig->nout = 0;
	assert_int_equal(
		rig_feed(buf, make_h2c_data(buf, 1, ttag, 0, true, pattern, 8192, 0), SIZE_MAX), 0);
	assert_int_equal(rig->pool.used, 0);
	assert_true(tx_pending(&rig->conn));
	expect_response(1, 0);
	free(buf);
	rig_close();
}

/* Not even the reserve has a byte left: the capsule stops in mid-stream. */
static void a_starved_capsule_goes_on_or_dies(void **state)
{
	struct fake_cmd in = { .cid = 1, .op = FAKE_WRITE, .len = 8192 };
	uint8_t *buf = malloc(16384);
	size_t n = make_cmd(buf, in, pattern, 8192, 0), taken;
	struct pool_user nobody;
	struct iovec iov[2];

	(void)state;
	pool_user_init(&nobody);
	for (int dies = 0; dies < 2; dies++) {
		rig_open();
		rig_handshake(0, 0);
		rig->pool.used += rig->pool.limit;
		assert_int_equal(rig_feed_some(buf, n, SIZE_MAX, &taken), 0);
		assert_in_range(taken, 72, RX_STAGE);
		assert_int_equal(rx_want(&rig->conn, iov), 0);
		if (dies)
			conn_kill(&rig->conn);
		rig->pool.used -= rig->pool.limit;
		rig->wakes = 0;
		pool_leave(&rig->pool, &nobody, NULL); /* serves who waits */
		assert_int_equal(rig->wakes, !dies);
		if (!dies) {
			assert_int_equal(rx_resume(&rig->conn), 0);
			assert_int_equal(rig_feed(buf + taken, n - taken, SIZE_MAX), 0);
			expect_response(1, 0);
			assert_memory_equal(fake.wrote, pattern, 8192);
		}
		rig_close();
	}
	free(buf);
}

/* While a capsule waits for its buffer, the host may still take its responses: it has to. */
static void a_starved_capsule_does_not_stop_the_time_of_responses(void **state)
{
	struct fake_cmd rd = { .cid = 1, .op = FAKE_READ, .len = 4096 };
	struct fake_cmd in = { .cid = 2, .op = FAKE_WRITE, .len = 8192 };
	uint8_t *buf = malloc(16384);
	struct pool_user nobody;
	size_t taken;

	(void)state;
	pool_user_init(&nobody);
	for (int reads = 0; reads < 2; reads++) {
		rig_open();
		rig_handshake(0, 0);
		if (reads)
			assert_int_equal(rig_feed(buf, make_cmd(buf, rd, NULL, 0, 0), SIZE_MAX), 0);
		rig->pool.used += rig->pool.limit;
		assert_int_equal(
			rig_feed_some(buf, make_cmd(buf, in, pattern, 8192, 0), SIZE_MAX, &taken),
			0);
		for (int i = 0; i < CONN_TICKS; i++)
			assert_int_equal(conn_tick(&rig->conn), CONN_WAITS);
		for (int i = 0; i < 10; i++) /* ours is the delay of the capsule, not the host's */
			assert_int_equal(conn_tick(&rig->conn), reads ? CONN_LATE : CONN_WAITS);
		conn_kill(&rig->conn);
		rig->pool.used -= rig->pool.limit;
		pool_leave(&rig->pool, &nobody, NULL);
		rig_close();
	}
	free(buf);
}

/* Before any capsule was judged there is none that these could be like. */
static void a_header_of_zeroes_is_judged(void **state)
{
	const uint8_t zeroes[4096] = { 0 };

	(void)state;
	for (int ready = 0; ready < 2; ready++) {
		struct pdu_hdr h;

		rig_open();
		if (ready)
			rig_handshake(0, 0);
		rig->nout = 0;
		assert_int_equal(rig_feed(zeroes, sizeof(struct pdu_hdr), SIZE_MAX), -EPROTO);
		rig_send(SIZE_MAX);
		memcpy(&h, rig->out, sizeof(h));
		assert_int_equal(h.type, PDU_C2H_TERM);
		rig_close();
	}
}

static size_t most_staged(void)
{
	struct iovec iov[2];

	return rx_want(&rig->conn, iov) ? iov[0].iov_len : 0;
}

/* Small writes come many to a recv, once a host sends many; behind large ones little is staged. */
static void the_stage_is_as_large_as_the_host_makes_it(void **state)
{
	enum { N = 40, LEN = 4096 };
	uint8_t *buf = malloc(1 << 20);
	struct pdu_r2t r2t;
	size_t n = 0;

	(void)state;
	rig_open();
	rig_handshake(0, 0);
	rig_connect(0, false);
	assert_int_equal(most_staged(), RX_STAGE);
	for (int i = 0; i < N; i++)
		n += make_cmd(buf + n,
			      (struct fake_cmd){ .cid = 100 + i, .op = FAKE_WRITE, .len = LEN },
			      pattern, LEN, 0);
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), 0);
	assert_int_equal(most_staged(), RX_STAGE_MAX);
	assert_int_equal(fake.executed, N + 1);
	assert_memory_equal(fake.wrote, pattern, LEN);
	rig->nout = 0;
	n = make_cmd(buf, (struct fake_cmd){ .cid = 1, .op = FAKE_WRITE, .len = 1 << 17 }, NULL, 0,
		     0);
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), 0);
	rig_send(SIZE_MAX);
	memcpy(&r2t, rig->out + rig->nout - sizeof(r2t), sizeof(r2t));
	assert_int_equal(r2t.h.type, PDU_R2T);
	n = make_h2c_data(buf, 1, le16toh(r2t.ttag), 0, true, pattern, 1 << 17, 0);
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), 0);
	assert_memory_equal(fake.wrote, pattern, 1 << 17);
	assert_int_equal(most_staged(), RX_BULK_HEADERS);
	/* An idle connection keeps what it has begun to receive, and little memory. */
	n = make_cmd(buf, (struct fake_cmd){ .cid = 2, .op = FAKE_WRITE, .len = LEN }, pattern, LEN,
		     0);
	assert_int_equal(rig_feed(buf, 50, SIZE_MAX), 0);
	rx_trim(&rig->conn.rx);
	assert_int_equal(most_staged(), RX_BULK_HEADERS);
	assert_int_equal(rig_feed(buf + 50, n - 50, SIZE_MAX), 0);
	assert_int_equal(fake.wrote_cid, 2);
	free(buf);
	rig_close();
}

/* Writes that may share a system call of the store share one recv, too; behind larger ones little is staged. */
static void data_below_32_kib_is_staged(void **state)
{
	static const struct {
		uint32_t len;
		size_t staged;
	} cases[] = { { 16384, RX_STAGE }, { 28672, RX_STAGE }, { 32768, RX_BULK_HEADERS } };
	uint8_t *buf = malloc(1 << 16);

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fake_cmd cmd = { .cid = 1, .op = FAKE_WRITE, .len = cases[i].len };
		struct pdu_r2t r2t;
		size_t n;

		rig_open();
		rig_handshake(0, 0);
		rig_connect(0, false);
		assert_int_equal(rig_feed(buf, make_cmd(buf, cmd, NULL, 0, 0), SIZE_MAX), 0);
		rig_send(SIZE_MAX);
		memcpy(&r2t, rig->out + rig->nout - sizeof(r2t), sizeof(r2t));
		n = make_h2c_data(buf, 1, le16toh(r2t.ttag), 0, true, pattern, cmd.len, 0);
		assert_int_equal(rig_feed(buf, n, sizeof(struct pdu_data)), 0);
		assert_memory_equal(fake.wrote, pattern, cmd.len);
		assert_int_equal(most_staged(), cases[i].staged);
		rig_close();
	}
	free(buf);
}

/* More is staged than the small stage holds, since no slot is free: all of it is kept. */
static void a_stage_that_is_needed_is_not_trimmed(void **state)
{
	enum { N = 8, LEN = 4096 };
	struct fake_cmd hold = { .op = FAKE_HOLD };
	uint8_t *buf = malloc(1 << 18);
	struct rx *rx;
	size_t n = 0, taken;

	(void)state;
	rig_open();
	rig_handshake(0, 0);
	rig_connect(0, false);
	rx = &rig->conn.rx;
	for (int i = 0; i < N; i++)
		n += make_cmd(buf + n,
			      (struct fake_cmd){ .cid = 1000 + i, .op = FAKE_WRITE, .len = LEN },
			      pattern, LEN, 0);
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), 0);
	rig_send(SIZE_MAX);
	assert_int_equal(most_staged(), RX_STAGE_MAX);
	n = 0;
	for (hold.cid = 0; hold.cid < 2 * CONN_MAX_SLOTS; hold.cid++)
		n += make_cmd(buf + n, hold, NULL, 0, 0);
	assert_int_equal(rig_feed_some(buf, n, SIZE_MAX, &taken), 0);
	assert_int_equal(fake.nheld, CONN_MAX_SLOTS);
	assert_true(rx->tail - rx->head > RX_STAGE);
	taken = rx->tail - rx->head;
	rx_trim(rx);
	assert_int_equal(rx->cap, RX_STAGE_MAX);
	assert_int_equal(rx->tail - rx->head, taken);
	assert_memory_equal(rx->stage + rx->head, buf + n - taken, taken);
	free(buf);
	rig_close();
}

/* What is staged when a connection stops will never be used: it does not keep the large stage. */
static void a_stopped_connection_keeps_no_large_stage(void **state)
{
	enum { N = 8, LEN = 4096 };
	size_t n = 0, size = sizeof(struct pdu_cmd) + LEN;
	uint8_t *buf = malloc(N * size);

	(void)state;
	rig_open();
	rig_handshake(0, 0);
	rig_connect(0, false);
	for (int i = 0; i < N; i++)
		n += make_cmd(buf + n,
			      (struct fake_cmd){ .cid = 100 + i, .op = FAKE_WRITE, .len = LEN },
			      pattern, LEN, 0);
	assert_int_equal(n, N * size);
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), 0);
	assert_int_equal(most_staged(), RX_STAGE_MAX);
	buf[1] = 0x40; /* the first PDU is wrong, and the others are staged behind it */
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), -EPROTO);
	rx_trim(&rig->conn.rx);
	assert_int_equal(rig->conn.rx.cap, RX_STAGE);
	free(buf);
	rig_close();
}

/* What is whole in the stage, and will be done before the next recv, is not copied out of it. */
static void a_small_write_may_stay_staged(void **state)
{
	const struct fake_cmd cmd = { .cid = 7, .op = FAKE_BATCH, .len = 2048 };
	uint8_t buf[16384];

	(void)state;
	for (uint8_t dgst = 0; dgst < 4; dgst++) {
		size_t n = make_cmd(buf, cmd, pattern, 2048, dgst);

		rig_open();
		rig_handshake(dgst, 0);
		rig_connect(dgst, false);
		for (int i = 0; i < 4; i++) {
			bool batching = i & 1, whole = i & 2;

			memset(fake.wrote, 0, 2048);
			fake.in_place = 0;
			if (batching)
				tgt_queue_batch_begin(&rig->conn.queue);
			assert_int_equal(rig_feed(buf, n, whole ? SIZE_MAX : 100), 0);
			assert_memory_equal(fake.wrote, pattern, 2048);
			assert_int_equal(fake.last_status, 0);
			assert_int_equal(fake.in_place, batching && whole);
			tgt_queue_batch_end(&rig->conn.queue);
			rig_send(SIZE_MAX);
		}
		if (dgst & 2) { /* a digest is checked wherever the data lies */
			buf[200] ^= 1;
			tgt_queue_batch_begin(&rig->conn.queue);
			assert_int_equal(rig_feed(buf, n, SIZE_MAX), 0);
			assert_int_equal(fake.last_status, NVME_SC_TRAN_TPORT_ERROR);
		}
		rig_close();
	}
}

/* Nor is a zero-copy write executed in place: its memory would be committed without the data. */
static void a_small_zero_copy_write_is_not_staged(void **state)
{
	uint8_t buf[16384], place[4096] = { 0 };
	struct pdu_r2t r2t;
	size_t n;

	(void)state;
	rig_open();
	rig_handshake(0, 0);
	rig_connect(0, false);
	fake.mapping = place;
	fake.mapping_batches = true;
	n = make_cmd(
		buf,
		(struct fake_cmd){ .cid = 1, .op = FAKE_ZERO_COPY_WRITE, .len = sizeof(place) },
		NULL, 0, 0);
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), 0);
	rig_send(SIZE_MAX);
	memcpy(&r2t, rig->out + rig->nout - sizeof(r2t), sizeof(r2t));
	n = make_h2c_data(buf, 1, le16toh(r2t.ttag), 0, true, pattern, sizeof(place), 0);
	tgt_queue_batch_begin(&rig->conn.queue);
	assert_int_equal(rig_feed(buf, n, SIZE_MAX), 0);
	assert_int_equal(fake.in_place, 0);
	assert_memory_equal(place, pattern, sizeof(place));
	rig_send(SIZE_MAX);
	fake.mapping_batches = false;
	rig_close();
}

/* Begins a zero-copy write of LEN bytes into PLACE, which takes no buffer; its TTAG. */
static uint16_t zero_copy_write(void *place, uint32_t len, uint8_t dgst)
{
	struct fake_cmd cmd = { .cid = 1, .op = FAKE_ZERO_COPY_WRITE, .len = len };
	uint8_t buf[128];
	struct pdu_r2t r2t;
	uint64_t gets;

	rig_open();
	rig_handshake(dgst, 0);
	rig_connect(dgst, false);
	fake.mapping = place;
	gets = rig->pool.gets;
	assert_int_equal(rig_feed(buf, make_cmd(buf, cmd, NULL, 0, dgst), SIZE_MAX), 0);
	rig_send(SIZE_MAX);
	memcpy(&r2t, rig->out, sizeof(r2t));
	rig->nout = 0;
	assert_int_equal(r2t.h.type, PDU_R2T);
	assert_int_equal(rig->pool.used, 0);
	assert_int_equal(rig->pool.gets, gets);
	return le16toh(r2t.ttag);
}

/* Data of a zero-copy write goes to its mapping, however it comes, with any digests. */
static void zero_copy_data_is_received_in_place(void **state)
{
	static const size_t steps[] = { 7, 4099, 4099 * 4099ul };
	enum { LEN = 1 << 17, HALF = LEN / 2 };
	uint8_t *buf = malloc(1 << 20), *place = malloc(LEN);

	(void)state;
	for (unsigned int i = 0; i < 3 * 4 * 2; i++) {
		const size_t step = steps[i % 3];
		const uint8_t dgst = i / 3 % 4;
		const bool wrong = i / 12;
		uint16_t ttag = zero_copy_write(place, LEN, dgst);
		size_t n;

		memset(place, 0, LEN);
		n = make_h2c_data(buf, 1, ttag, 0, false, pattern, HALF, dgst);
		buf[n - 1] ^= wrong && dgst & 2; /* of the digest */
		n += make_h2c_data(buf + n, 1, ttag, HALF, true, pattern + HALF, HALF, dgst);
		assert_int_equal(rig_feed(buf, n, step), 0);
		assert_int_equal(fake.last_status,
				 wrong && dgst & 2 ? NVME_SC_TRAN_TPORT_ERROR : 0);
		if (!fake.last_status)
			assert_ptr_equal(fake.executed_on, place);
		else
			assert_null(fake.executed_on);
		assert_memory_equal(place, pattern, LEN);
		assert_int_equal(fake.released, 0);
		rig_send(SIZE_MAX);
		assert_int_equal(fake.released, 1);
		assert_int_equal(fake.unreadable, 0);
		rig_close();
	}
	free(buf);
	free(place);
}

/*
 * The image's memory is gone when its digest is made, though it was there when it was received: the
 * connection ends, as if it could not be received, and nothing was executed.
 */
static void zero_copy_data_that_cannot_be_digested_ends_the_connection(void **state)
{
	enum { LEN = 1 << 16 };
	uint8_t *buf = malloc(LEN + 128);

	(void)state;
	guard_install();
	for (int all = 0; all < 2; all++) {
		int fd = memfd_create("cut", MFD_CLOEXEC);
		struct iovec iov[2];
		uint16_t ttag;
		uint8_t *place;

		assert_int_equal(ftruncate(fd, LEN), 0);
		place = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		assert_ptr_not_equal(place, MAP_FAILED);
		ttag = zero_copy_write(place, LEN, 2);
		make_h2c_data(buf, 1, ttag, 0, true, pattern, LEN, 2);
		assert_int_equal(rig_feed(buf, sizeof(struct pdu_data), SIZE_MAX), 0);
		assert_true(rx_want(&rig->conn, iov) > 0);
		assert_ptr_equal(iov[0].iov_base, place);
		assert_int_equal(ftruncate(fd, all ? 0 : LEN / 2), 0);
		assert_int_equal(rx_got(&rig->conn, LEN), -EFAULT);
		conn_kill(&rig->conn);
		assert_null(fake.executed_on);
		assert_int_equal(fake.unreadable, 1);
		rig_close();
		munmap(place, LEN);
		close(fd);
	}
	free(buf);
}

/* Garbage, and almost-right PDUs with a byte changed: no crash, no leak, no endless loop. */
static void changed_bytes_never_break_it(void **state)
{
	uint8_t *stream = malloc(65536);

	(void)state;
	for (int i = 0; i < 1000; i++) {
		uint8_t dgst = i & 3;
		size_t n = make_stream(stream, dgst);

		for (unsigned int k = 0; k < 1 + i % 3u; k++) {
			random_step();
			stream[seed % n] ^= (uint8_t)(1 << (seed >> 13 & 7));
		}
		rig_open();
		feed_all(stream, n, i % 2 ? everything : random_step);
		rig_close();
	}
	free(stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_may_come_in_any_pieces),
		cmocka_unit_test(many_pdus_in_one_buffer_and_random_splits_agree),
		cmocka_unit_test(a_stream_may_end_at_every_byte),
		cmocka_unit_test(a_write_may_end_at_every_byte_of_its_data),
		cmocka_unit_test(a_wrong_header_digest_is_fatal_and_told),
		cmocka_unit_test(a_wrong_data_digest_costs_the_command_alone),
		cmocka_unit_test(h2c_data_is_bounded_in_every_field),
		cmocka_unit_test(data_nobody_asked_for_is_refused),
		cmocka_unit_test(each_type_in_each_state),
		cmocka_unit_test(a_termreq_quotes_the_header_at_fault),
		cmocka_unit_test(nothing_follows_a_termreq),
		cmocka_unit_test(a_cid_in_flight_is_not_taken_twice),
		cmocka_unit_test(a_refused_command_has_its_data_swallowed),
		cmocka_unit_test(nothing_of_zero_length_gets_an_r2t_or_data),
		cmocka_unit_test(with_no_free_slot_nothing_is_read),
		cmocka_unit_test(a_connected_queue_takes_its_whole_depth),
		cmocka_unit_test(capsules_pass_when_memory_waits_for_data),
		cmocka_unit_test(a_write_returns_its_buffer_before_its_response_is_sent),
		cmocka_unit_test(a_starved_capsule_goes_on_or_dies),
		cmocka_unit_test(a_starved_capsule_does_not_stop_the_time_of_responses),
		cmocka_unit_test(a_header_of_zeroes_is_judged),
		cmocka_unit_test(a_small_write_may_stay_staged),
		cmocka_unit_test(a_small_zero_copy_write_is_not_staged),
		cmocka_unit_test(zero_copy_data_is_received_in_place),
		cmocka_unit_test(zero_copy_data_that_cannot_be_digested_ends_the_connection),
		cmocka_unit_test(the_stage_is_as_large_as_the_host_makes_it),
		cmocka_unit_test(data_below_32_kib_is_staged),
		cmocka_unit_test(a_stage_that_is_needed_is_not_trimmed),
		cmocka_unit_test(a_stopped_connection_keeps_no_large_stage),
		cmocka_unit_test(changed_bytes_never_break_it),
	};

	log_level(LOG_ERR_);
	return cmocka_run_group_tests(tests, fill_pattern, NULL);
}
