// SPDX-License-Identifier: MIT
/* The send machine: what leaves, in which pieces, when a CapsuleResp may be left out. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include "fake.h"
#include "guard.h"

static void issue(struct fake_cmd cmd, uint8_t dgst)
{
	uint8_t buf[128];

	assert_int_equal(rig_feed(buf, make_cmd(buf, cmd, NULL, 0, dgst), SIZE_MAX), 0);
}

/* The header digest behind the HLEN bytes at OUT is right. */
static void check_header_digest(const uint8_t *out)
{
	uint8_t want[4];

	put_digest(want, out, hdr_at(out).hlen);
	assert_memory_equal(out + hdr_at(out).hlen, want, 4);
}

static void icresp_says_what_we_can(void **state)
{
	struct pdu_icresp r;
	uint8_t buf[128];

	(void)state;
	for (uint8_t dgst = 0; dgst < 4; dgst++) {
		rig_open();
		rig_feed(buf, make_icreq(buf, dgst, 5), SIZE_MAX);
		rig_send(SIZE_MAX);
		assert_int_equal(rig->nout, 128); /* no digest, whatever was agreed */
		memcpy(&r, rig->out, sizeof(r));
		assert_int_equal(r.h.type, PDU_ICRESP);
		assert_int_equal(r.h.flags, 0);
		assert_int_equal(r.h.hlen, 128);
		assert_int_equal(r.h.pdo, 0);
		assert_int_equal(le32toh(r.h.plen), 128);
		assert_int_equal(r.pfv, 0);
		assert_int_equal(r.cpda, 0);
		assert_int_equal(r.dgst, dgst);
		assert_true(le32toh(r.maxh2cdata) >= 4096);
		assert_int_equal(le32toh(r.maxh2cdata) % 4, 0);
		rig_close();
	}
}

static void c2h_data_is_aligned_padded_and_digested(void **state)
{
	static const uint32_t lens[] = { 1, 3, 4, 512, 4096, 70001 };

	(void)state;
	for (unsigned int n = 0; n < 4 * 32 * 6; n++) {
		uint8_t dgst = n & 3, hpda = n >> 2 & 31;
		uint32_t len = lens[n >> 7], unit = (hpda + 1u) * 4, off;
		uint8_t hd = dgst & 1 ? 4 : 0, dd = dgst & 2 ? 4 : 0, want[4];
		struct pdu_data d;
		struct pdu_resp r;

		rig_open();
		rig_handshake(dgst, hpda);
		issue((struct fake_cmd){ .cid = 0x77, .op = FAKE_READ, .len = len }, dgst);
		rig_send(SIZE_MAX);
		memcpy(&d, rig->out, sizeof(d));
		assert_int_equal(d.h.type, PDU_C2H_DATA);
		assert_int_equal(d.h.flags, (hd ? 1 : 0) | (dd ? 2 : 0) | PDU_F_LAST);
		assert_int_equal(d.h.hlen, 24);
		assert_int_equal(d.h.pdo % unit, 0);
		assert_in_range(d.h.pdo, 24 + hd, 24 + hd + unit - 1);
		assert_int_equal(le32toh(d.h.plen), d.h.pdo + len + dd);
		assert_int_equal(d.cccid, 0x77);
		assert_int_equal(d.datao, 0);
		assert_int_equal(le32toh(d.datal), len);
		if (hd)
			check_header_digest(rig->out);
		for (off = 24 + hd; off < d.h.pdo; off++)
			assert_int_equal(rig->out[off], 0);
		for (; off < d.h.pdo + len; off++)
			assert_int_equal(rig->out[off], 0x77);
		if (dd) {
			put_digest(want, rig->out + d.h.pdo, len);
			assert_memory_equal(rig->out + off, want, 4);
			off += 4;
		}
		memcpy(&r, rig->out + off, sizeof(r));
		assert_int_equal(r.h.type, PDU_RESP);
		assert_int_equal(r.h.flags, hd ? 1 : 0);
		assert_int_equal(r.h.pdo, 0);
		assert_int_equal(le32toh(r.h.plen), 24 + hd);
		assert_int_equal(r.cqe.cid, 0x77);
		if (hd)
			check_header_digest(rig->out + off);
		assert_int_equal(rig->nout, off + 24 + hd);
		rig_close();
	}
}

static void success_replaces_the_response_only_where_it_may(void **state)
{
	static const struct {
		bool no_sqhd;
		uint16_t status;
		uint32_t result, len;
		bool data, success, response;
	} t[] = {
		{ true, 0, 0, 4096, true, true, false },
		{ false, 0, 0, 4096, true, false, true }, /* the host needs SQHD */
		{ true, 0, 1, 4096, true, false, true },  /* the result matters */
		{ true, NVME_SC_READ_ERROR, 0, 4096, false, false, true },
		{ false, NVME_SC_READ_ERROR, 0, 4096, false, false, true },
		{ true, 0, 0, 0, false, false, true }, /* no PDU to put it in */
	};

	(void)state;
	for (uint8_t dgst = 0; dgst < 4; dgst++) {
		for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
			struct fake_cmd cmd = { .cid = 1,
						.op = FAKE_READ,
						.len = t[i].len,
						.status = t[i].status,
						.result = t[i].result };
			struct pdu_hdr h;
			size_t at = 0;

			rig_open();
			rig_handshake(dgst, 0);
			rig_connect(dgst, t[i].no_sqhd);
			issue(cmd, dgst);
			rig_send(SIZE_MAX);
			if (t[i].data) {
				h = hdr_at(rig->out);
				assert_int_equal(h.type, PDU_C2H_DATA);
				assert_int_equal(!!(h.flags & PDU_F_SUCCESS), t[i].success);
				assert_true(h.flags & PDU_F_LAST);
				at = le32toh(h.plen);
			}
			if (t[i].response) {
				struct pdu_resp r;

				memcpy(&r, rig->out + at, sizeof(r));
				assert_int_equal(r.h.type, PDU_RESP);
				assert_int_equal(le16toh(r.cqe.status) >> 1, t[i].status);
				assert_int_equal(le64toh(r.cqe.result), t[i].result);
				at += le32toh(r.h.plen);
			}
			assert_int_equal(rig->nout, at);
			rig_close();
		}
	}
}

static void zero_copy_needs_no_buffer(void **state)
{
	static const uint8_t data[4096] = { 1, 2, 3 };
	const struct fake_cmd cmd = { .cid = 9, .op = FAKE_ZERO_COPY, .len = sizeof(data) };
	uint64_t gets;

	(void)state;
	for (uint8_t dgst = 0; dgst < 4; dgst++) {
		size_t hd = dgst & 1 ? 4 : 0, dd = dgst & 2 ? 4 : 0;
		const uint8_t *out;
		uint8_t want[4];

		rig_open();
		fake.mapping = data;
		rig_handshake(dgst, 0);
		rig_connect(dgst, true);
		gets = rig->pool.gets;
		issue(cmd, dgst);
		assert_int_equal(rig->pool.used, CONN_ZERO_COPY_QUANTUM); /* charged, */
		assert_int_equal(rig->pool.gets, gets); /* but there is no buffer */
		assert_int_equal(fake.released, 0);
		assert_true(rig->conn.tx.zero_copy);
		rig_send(SIZE_MAX);
		assert_int_equal(rig->nout, sizeof(struct pdu_data) + hd + sizeof(data) + dd);
		out = rig->out + sizeof(struct pdu_data) + hd;
		assert_memory_equal(out, data, sizeof(data));
		put_digest(want, data, sizeof(data));
		assert_memory_equal(out + sizeof(data), want, dd);
		assert_int_equal(fake.released, 1);
		rig_close();
	}
}

/* A reset has zero-copy reads copied out while a response is sent in part and another waits. */
static void zero_copy_data_is_copied_out(void **state)
{
	static uint8_t data[4096];
	struct fake_cmd cmd = { .op = FAKE_ZERO_COPY, .len = sizeof(data) };
	uint8_t want[sizeof(data) + 4];
	size_t at;

	(void)state;
	for (int i = 0; i < 6; i++) {
		const int dies = i / 2;
		const uint8_t dgst = i & 1 ? 2 : 0;
		const size_t len = sizeof(data) + (dgst ? 4 : 0);

		memset(data, 0xd1, sizeof(data));
		memcpy(want, data, sizeof(data));
		put_digest(want + sizeof(data), data, sizeof(data));
		rig_open();
		fake.mapping = data;
		fake.copies = dies < 2;
		rig_handshake(dgst, 0);
		rig_connect(dgst, true);
		for (cmd.cid = 1; cmd.cid <= 2; cmd.cid++)
			issue(cmd, dgst);
		rig_send(1000);
		assert_int_equal(fake.released, 0);
		if (dies) /* what was sent in part is copied, or dropped */
			conn_kill(&rig->conn);
		else
			assert_true(conn_copy_out(&rig->conn));
		assert_int_equal(fake.released, 2);
		memset(data, 0xee, sizeof(data)); /* as the zone's next owner */
		rig_send(SIZE_MAX);
		for (at = sizeof(struct pdu_data); at < rig->nout; at += len + 24) {
			size_t n = rig->nout - at < len ? rig->nout - at : len;

			assert_memory_equal(rig->out + at, want, n);
		}
		assert_int_equal(at >= 2 * sizeof(data), dies == 0);
		rig_close();
	}
	fake.copies = false;
}

/* A copy needs a buffer of its size class: what is charged to the host's share covers that, too. */
static void what_is_charged_covers_the_copies(void **state)
{
	static uint8_t data[5000];
	struct fake_cmd cmd = { .op = FAKE_ZERO_COPY, .len = sizeof(data) };
	uint64_t charged;

	(void)state;
	rig_open();
	fake.mapping = data;
	fake.copies = true;
	rig_handshake(0, 0);
	rig_connect(0, true);
	for (cmd.cid = 1; cmd.cid <= 100; cmd.cid++)
		issue(cmd, 0);
	charged = rig->pool.used;
	assert_true(conn_copy_out(&rig->conn));
	assert_true(rig->pool.used <= charged);
	rig_close();
	fake.copies = false;
}

/* Not when it had to wait for the disk. */
static void zero_copy_is_refused_where_it_may_not_be(void **state)
{
	const struct fake_cmd cmd = { .cid = 9, .op = FAKE_ZERO_COPY, .len = 4096 };

	(void)state;
	for (uint8_t dgst = 0; dgst < 4; dgst++) {
		rig_open();
		rig->no_zero_copy = true;
		rig_handshake(dgst, 0);
		rig_connect(dgst, true);
		issue(cmd, dgst);
		assert_int_equal(fake.zero_copies, 0);
		assert_int_equal(fake.executed, 2); /* with Connect */
		rig_send(SIZE_MAX);
		rig_close();
	}
}

/* A mapping of LEN bytes whose file has become shorter than that, by HOLE bytes. */
static uint8_t *cut_short(size_t len, size_t hole)
{
	int fd = memfd_create("cut", MFD_CLOEXEC);
	uint8_t *p;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	memset(p, 0x5a, len);
	assert_int_equal(ftruncate(fd, (off_t)(len - hole)), 0);
	close(fd);
	return p;
}

/*
 * Data that cannot be read for its digest: that command fails, in its place among the others, and
 * nothing else does.
 */
static void zero_copy_data_that_cannot_be_digested_is_an_error(void **state)
{
	enum { LEN = 16384 };
	struct fake_cmd cmd = { .op = FAKE_ZERO_COPY, .len = LEN };
	uint8_t *good = cut_short(LEN, 0), *bad = cut_short(LEN, 4096);

	(void)state;
	guard_install();
	for (int i = 0; i < 4; i++) {
		const uint8_t dgst = i & 1 ? 3 : 2, hd = i & 1 ? 4 : 0;
		const bool no_sqhd = i & 2;
		const size_t resp = sizeof(struct pdu_resp) + hd;
		const size_t read = sizeof(struct pdu_data) + hd + LEN + 4 + (no_sqhd ? 0 : resp);
		struct pdu_resp r;

		rig_open();
		rig_handshake(dgst, 0);
		rig_connect(dgst, no_sqhd);
		for (cmd.cid = 1; cmd.cid <= 3; cmd.cid++) {
			fake.mapping = cmd.cid == 2 ? bad : good;
			issue(cmd, dgst);
		}
		rig_send(100);
		assert_int_equal(fake.unreadable, 0);
		rig_send(SIZE_MAX);
		assert_int_equal(rig->nout, 2 * read + resp);
		for (uint16_t cid = 1; cid <= 3; cid++) {
			size_t at = cid == 1 ? 0 : cid == 2 ? read : read + resp;
			struct pdu_data d;

			if (hd)
				check_header_digest(rig->out + at);
			memcpy(&d, rig->out + at, sizeof(d));
			memcpy(&r, rig->out + at, sizeof(r));
			assert_int_equal(d.h.type, cid == 2 ? PDU_RESP : PDU_C2H_DATA);
			assert_int_equal(cid == 2 ? r.cqe.cid : d.cccid, cid);
			if (cid == 2)
				assert_int_equal(le16toh(r.cqe.status), 0x281 << 1);
		}
		assert_int_equal(fake.released, 3);
		assert_int_equal(fake.unreadable, 1);
		rig_close();
	}
	munmap(good, LEN);
	munmap(bad, LEN);
}

/* Digests are made for 16 PDUs at a time; what has none goes with them. */
static void digests_are_made_when_they_are_sent(void **state)
{
	static uint8_t data[4096];
	struct iovec iov[128];

	(void)state;
	rig_open();
	fake.mapping = data;
	rig_handshake(2, 0);
	rig_connect(2, true);
	for (uint16_t i = 0; i < 40; i++)
		issue((struct fake_cmd){ .cid = i,
					 .op = i & 1 ? FAKE_NONE : FAKE_ZERO_COPY,
					 .len = sizeof(data) },
		      2);
	memset(data, 0xa5, sizeof(data)); /* no digest was made yet */
	assert_int_equal(tx_iov(&rig->conn, iov, 128), 16 * 4);
	assert_int_equal(tx_iov(&rig->conn, iov, 128), 20 * 4); /* the first 16 have theirs */
	rig_send(SIZE_MAX);
	assert_int_equal(rig->nout, 20 * (24 + sizeof(data) + 4) + 20 * 24);
	for (size_t i = 0; i < 20; i++) {
		const uint8_t *out = rig->out + i * (24 + sizeof(data) + 4 + 24);
		uint8_t want[4];

		put_digest(want, data, sizeof(data));
		assert_memory_equal(out + 24 + sizeof(data), want, 4);
	}
	rig_close();
}

/* A bit of everything is queued. */
static void queue_all(uint8_t dgst)
{
	rig_open();
	rig_handshake(dgst, 31);
	rig_connect(dgst, true);
	issue((struct fake_cmd){ .cid = 1, .op = FAKE_READ, .len = 300 }, dgst);
	issue((struct fake_cmd){ .cid = 2, .op = FAKE_WRITE, .len = 300 }, dgst);
	issue((struct fake_cmd){ .cid = 3, .op = FAKE_READ, .len = 5, .result = 1 }, dgst);
	issue((struct fake_cmd){ .cid = 4 }, dgst);
	issue((struct fake_cmd){ .cid = 5, .op = FAKE_READ, .len = 100 }, dgst);
}

static void a_send_may_stop_at_every_byte(void **state)
{
	uint8_t *whole = malloc(4096);

	(void)state;
	for (uint8_t dgst = 0; dgst < 4; dgst++) {
		size_t n;

		queue_all(dgst);
		rig_send(SIZE_MAX);
		n = rig->nout;
		memcpy(whole, rig->out, n);
		rig_close();
		for (size_t cut = 0; cut <= n; cut++) {
			queue_all(dgst);
			assert_int_equal(rig_send(cut), cut);
			rig_send(SIZE_MAX);
			assert_int_equal(rig->nout, n);
			assert_memory_equal(rig->out, whole, n);
			assert_false(tx_pending(&rig->conn));
			rig_close();
		}
		queue_all(dgst);
		while (rig_send(1))
			;
		assert_int_equal(rig->nout, n);
		assert_memory_equal(rig->out, whole, n);
		rig_close();
	}
	free(whole);
}

/* The connection dies with that much sent: every request comes home (rig_close() looks). */
static void a_connection_may_die_at_every_byte(void **state)
{
	(void)state;
	for (size_t cut = 0;; cut++) {
		queue_all(3);
		if (rig_send(cut) < cut) {
			rig_close();
			return;
		}
		rig_close();
	}
}

static void a_started_pdu_is_finished_before_the_termreq(void **state)
{
	static const uint8_t junk[128] = { 0xff };

	(void)state;
	for (size_t cut = 0; cut < 400; cut++) {
		bool second = false;
		size_t at = 0;

		queue_all(0);
		rig_send(cut);
		assert_true(rig_feed(junk, sizeof(junk), SIZE_MAX) < 0);
		conn_kill(&rig->conn);
		rig_send(SIZE_MAX);
		assert_false(tx_pending(&rig->conn));
		while (at < rig->nout) { /* still PDUs, the TermReq the last of them */
			struct pdu_hdr h = hdr_at(rig->out + at);

			assert_false(second);
			second = h.type == PDU_C2H_TERM;
			at += le32toh(h.plen);
		}
		assert_int_equal(at, rig->nout);
		assert_true(second);
		rig_close();
	}
}

static void an_r2t_is_sealed(void **state)
{
	struct pdu_r2t r;

	(void)state;
	rig_open();
	rig_handshake(1, 0);
	issue((struct fake_cmd){ .cid = 9, .op = FAKE_WRITE, .len = 1 << 20 }, 1);
	rig_send(SIZE_MAX);
	assert_int_equal(rig->nout, sizeof(r) + 4);
	memcpy(&r, rig->out, sizeof(r));
	assert_int_equal(r.h.type, PDU_R2T);
	assert_int_equal(r.h.flags, PDU_F_HDGST);
	assert_int_equal(r.h.hlen, 24);
	assert_int_equal(r.h.pdo, 0);
	assert_int_equal(le32toh(r.h.plen), 28);
	check_header_digest(rig->out);
	rig_close();
}

static void all_responses_fit_one_gather(void **state)
{
	struct iovec iov[128];

	(void)state;
	rig_open();
	rig_handshake(0, 0);
	rig_connect(0, false);
	for (uint16_t i = 0; i < 100; i++)
		issue((struct fake_cmd){ .cid = i }, 0);
	assert_int_equal(tx_iov(&rig->conn, iov, 128), 100);
	assert_int_equal(tx_iov(&rig->conn, iov, 4), 1); /* a PDU may need 4 pieces */
	rig_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(icresp_says_what_we_can),
		cmocka_unit_test(c2h_data_is_aligned_padded_and_digested),
		cmocka_unit_test(success_replaces_the_response_only_where_it_may),
		cmocka_unit_test(zero_copy_needs_no_buffer),
		cmocka_unit_test(zero_copy_data_is_copied_out),
		cmocka_unit_test(what_is_charged_covers_the_copies),
		cmocka_unit_test(zero_copy_is_refused_where_it_may_not_be),
		cmocka_unit_test(zero_copy_data_that_cannot_be_digested_is_an_error),
		cmocka_unit_test(digests_are_made_when_they_are_sent),
		cmocka_unit_test(a_send_may_stop_at_every_byte),
		cmocka_unit_test(a_connection_may_die_at_every_byte),
		cmocka_unit_test(a_started_pdu_is_finished_before_the_termreq),
		cmocka_unit_test(an_r2t_is_sealed),
		cmocka_unit_test(all_responses_fit_one_gather),
	};

	log_level(LOG_ERR_);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
