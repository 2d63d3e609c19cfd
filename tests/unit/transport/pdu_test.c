// SPDX-License-Identifier: MIT
/* Every rule about a PDU header, broken once; every length of header; every boundary. */
#include "fake.h"

#define CMD  PDU_CMD
#define DATA PDU_H2C_DATA

static const struct pdu_ctx fresh = { .max_capsule = TGT_INCAPSULE, .max_h2cdata = 1 << 20 };

static struct pdu_ctx ready_ctx(bool hdgst, bool ddgst, uint8_t cpda)
{
	struct pdu_ctx ctx = fresh;

	ctx.ready = true;
	ctx.hdgst = hdgst;
	ctx.ddgst = ddgst;
	ctx.cpda = cpda;
	return ctx;
}

/* A header as the table below says it. */
struct head {
	uint8_t type, flags, hlen, pdo;
	uint32_t plen;
};

static void put_head(uint8_t out[128], struct head h)
{
	struct pdu_hdr p = { h.type, h.flags, h.hlen, h.pdo, htole32(h.plen) };

	memset(out, 0, 128);
	memcpy(out, &p, sizeof(p));
}

static struct pdu_verdict judge(struct pdu_ctx ctx, struct head h)
{
	uint8_t b[128] __attribute__((aligned(8)));

	put_head(b, h);
	return pdu_check(&ctx, b, sizeof(struct pdu_hdr));
}

static void each_broken_rule_has_its_status_and_field(void **state)
{
	static const struct {
		const char *what;
		bool ready, hdgst, ddgst;
		uint8_t cpda;
		struct head h;
		int verdict, fes, fei;
	} t[] = {
		{ "icreq", 0, 0, 0, 0, { 0, 0, 128, 0, 128 }, PDU_OK, 0, 0 },
		{ "icreq flags", 0, 0, 0, 0, { 0, 1, 128, 0, 128 }, PDU_FATAL, 1, 1 },
		{ "icreq hlen", 0, 0, 0, 0, { 0, 0, 127, 0, 128 }, PDU_FATAL, 1, 2 },
		{ "icreq pdo", 0, 0, 0, 0, { 0, 0, 128, 4, 128 }, PDU_FATAL, 1, 3 },
		{ "icreq plen short", 0, 0, 0, 0, { 0, 0, 128, 0, 127 }, PDU_FATAL, 1, 4 },
		{ "icreq plen long", 0, 0, 0, 0, { 0, 0, 128, 0, 129 }, PDU_FATAL, 1, 4 },
		{ "lowest field wins", 0, 0, 0, 0, { 0, 0x80, 1, 1, 1 }, PDU_FATAL, 1, 1 },
		{ "command first", 0, 0, 0, 0, { CMD, 0, 72, 0, 72 }, PDU_FATAL, 2, 0 },
		{ "data first", 0, 0, 0, 0, { DATA, 4, 24, 24, 28 }, PDU_FATAL, 2, 0 },
		{ "unknown first", 0, 0, 0, 0, { 0x42, 0, 0, 0, 0 }, PDU_FATAL, 2, 0 },
		{ "termreq first", 0, 0, 0, 0, { 2, 0, 24, 0, 24 }, PDU_HANGUP, 0, 0 },
		{ "second icreq", 1, 0, 0, 0, { 0, 0, 128, 0, 128 }, PDU_FATAL, 2, 0 },
		{ "icresp from a host", 1, 0, 0, 0, { 1, 0, 128, 0, 128 }, PDU_FATAL, 1, 0 },
		{ "c2htermreq from a host", 1, 0, 0, 0, { 3, 0, 24, 0, 24 }, PDU_FATAL, 1, 0 },
		{ "response from a host", 1, 0, 0, 0, { 5, 0, 24, 0, 24 }, PDU_FATAL, 1, 0 },
		{ "c2hdata from a host", 1, 0, 0, 0, { 7, 0, 24, 24, 28 }, PDU_FATAL, 1, 0 },
		{ "type 8", 1, 0, 0, 0, { 8, 0, 24, 0, 24 }, PDU_FATAL, 1, 0 },
		{ "r2t from a host", 1, 0, 0, 0, { 9, 0, 24, 0, 24 }, PDU_FATAL, 1, 0 },
		{ "type 10", 1, 0, 0, 0, { 10, 0, 24, 0, 24 }, PDU_FATAL, 1, 0 },
		{ "type ff", 1, 0, 0, 0, { 0xff, 0, 24, 0, 24 }, PDU_FATAL, 1, 0 },
		{ "termreq least", 1, 1, 1, 0, { 2, 0, 24, 0, 24 }, PDU_OK, 0, 0 },
		{ "termreq most", 1, 0, 0, 0, { 2, 0, 24, 0, 152 }, PDU_OK, 0, 0 },
		{ "termreq short", 1, 0, 0, 0, { 2, 0, 24, 0, 23 }, PDU_HANGUP, 0, 0 },
		{ "termreq long", 1, 0, 0, 0, { 2, 0, 24, 0, 153 }, PDU_HANGUP, 0, 0 },
		{ "termreq hlen", 1, 0, 0, 0, { 2, 0, 25, 0, 24 }, PDU_HANGUP, 0, 0 },
		{ "cmd", 1, 0, 0, 0, { CMD, 0, 72, 0, 72 }, PDU_OK, 0, 0 },
		{ "cmd, pdo reserved", 1, 0, 0, 0, { CMD, 0, 72, 72, 72 }, PDU_OK, 0, 0 },
		{ "cmd hlen", 1, 0, 0, 0, { CMD, 0, 73, 0, 73 }, PDU_FATAL, 1, 2 },
		{ "cmd plen 0", 1, 0, 0, 0, { CMD, 0, 72, 0, 0 }, PDU_FATAL, 1, 4 },
		{ "cmd plen - 1", 1, 0, 0, 0, { CMD, 0, 72, 0, 71 }, PDU_FATAL, 1, 4 },
		{ "cmd last", 1, 0, 0, 0, { CMD, 4, 72, 0, 72 }, PDU_FATAL, 1, 1 },
		{ "cmd reserved flag", 1, 0, 0, 0, { CMD, 0x10, 72, 0, 72 }, PDU_FATAL, 1, 1 },
		{ "cmd hdgst unasked", 1, 0, 0, 0, { CMD, 1, 72, 0, 76 }, PDU_FATAL, 1, 1 },
		{ "cmd hdgst", 1, 1, 0, 0, { CMD, 1, 72, 0, 76 }, PDU_OK, 0, 0 },
		{ "cmd hdgst missing", 1, 1, 0, 0, { CMD, 0, 72, 0, 76 }, PDU_FATAL, 1, 1 },
		{ "cmd no room for hdgst", 1, 1, 0, 0, { CMD, 1, 72, 0, 72 }, PDU_FATAL, 1, 4 },
		{ "cmd ddgst, no data", 1, 0, 1, 0, { CMD, 2, 72, 0, 72 }, PDU_FATAL, 1, 1 },
		{ "cmd no data, no ddgst", 1, 0, 1, 0, { CMD, 0, 72, 0, 72 }, PDU_OK, 0, 0 },
		{ "cmd data 1", 1, 0, 0, 0, { CMD, 0, 72, 72, 73 }, PDU_OK, 0, 0 },
		{ "cmd data 8192", 1, 0, 0, 0, { CMD, 0, 72, 72, 72 + 8192 }, PDU_OK, 0, 0 },
		{ "cmd data 8193", 1, 0, 0, 0, { CMD, 0, 72, 72, 72 + 8193 }, PDU_FATAL, 5, 0 },
		{ "cmd plen 2^31", 1, 0, 0, 0, { CMD, 0, 72, 72, 1u << 31 }, PDU_FATAL, 5, 0 },
		{ "cmd plen 2^32-1", 1, 0, 0, 0, { CMD, 0, 72, 72, ~0u }, PDU_FATAL, 5, 0 },
		{ "cmd data, pdo 0", 1, 0, 0, 0, { CMD, 0, 72, 0, 76 }, PDU_FATAL, 1, 3 },
		{ "cmd pdo in header", 1, 0, 0, 0, { CMD, 0, 72, 68, 80 }, PDU_FATAL, 1, 3 },
		{ "cmd pdo odd", 1, 0, 0, 0, { CMD, 0, 72, 74, 80 }, PDU_FATAL, 1, 3 },
		{ "cmd pdo in digest", 1, 1, 0, 0, { CMD, 1, 72, 72, 80 }, PDU_FATAL, 1, 3 },
		{ "cmd pdo padded", 1, 0, 0, 0, { CMD, 0, 72, 76, 80 }, PDU_OK, 0, 0 },
		{ "cmd pdo at the end", 1, 0, 0, 0, { CMD, 0, 72, 80, 80 }, PDU_FATAL, 1, 4 },
		{ "cmd pdo past the end", 1, 0, 0, 0, { CMD, 0, 72, 252, 80 }, PDU_FATAL, 1, 4 },
		{ "cmd pdo unaligned", 1, 0, 0, 31, { CMD, 0, 72, 72, 200 }, PDU_FATAL, 1, 3 },
		{ "cmd pdo aligned", 1, 0, 0, 31, { CMD, 0, 72, 128, 200 }, PDU_OK, 0, 0 },
		{ "cmd ddgst", 1, 0, 1, 0, { CMD, 2, 72, 72, 77 }, PDU_OK, 0, 0 },
		{ "cmd ddgst missing", 1, 0, 1, 0, { CMD, 0, 72, 72, 77 }, PDU_FATAL, 1, 1 },
		{ "cmd ddgst, its data 0", 1, 0, 1, 0, { CMD, 2, 72, 72, 76 }, PDU_FATAL, 1, 4 },
		{ "cmd ddgst, all data", 1, 0, 1, 0, { CMD, 2, 72, 72, 8268 }, PDU_OK, 0, 0 },
		{ "cmd ddgst, over", 1, 0, 1, 0, { CMD, 2, 72, 72, 8269 }, PDU_FATAL, 5, 0 },
		{ "data 1", 1, 0, 0, 0, { DATA, 4, 24, 24, 25 }, PDU_OK, 0, 0 },
		{ "data 0", 1, 0, 0, 0, { DATA, 4, 24, 24, 24 }, PDU_FATAL, 1, 4 },
		{ "data hlen", 1, 0, 0, 0, { DATA, 4, 20, 24, 25 }, PDU_FATAL, 1, 2 },
		{ "data plen < hlen", 1, 0, 0, 0, { DATA, 4, 24, 24, 23 }, PDU_FATAL, 1, 4 },
		{ "data success flag", 1, 0, 0, 0, { DATA, 8, 24, 24, 25 }, PDU_FATAL, 1, 1 },
		{ "data 1 MiB", 1, 0, 0, 0, { DATA, 0, 24, 24, 24 + (1 << 20) }, PDU_OK, 0, 0 },
		{ "data 1 MiB + 1",
		  1,
		  0,
		  0,
		  0,
		  { DATA, 0, 24, 24, 25 + (1 << 20) },
		  PDU_FATAL,
		  5,
		  0 },
		{ "data 2^32-1", 1, 0, 0, 0, { DATA, 0, 24, 24, ~0u }, PDU_FATAL, 5, 0 },
		{ "data pdo", 1, 0, 0, 0, { DATA, 0, 24, 20, 32 }, PDU_FATAL, 1, 3 },
		{ "data both digests", 1, 1, 1, 0, { DATA, 7, 24, 28, 36 }, PDU_OK, 0, 0 },
		{ "data pdo under hdgst", 1, 1, 1, 0, { DATA, 7, 24, 24, 36 }, PDU_FATAL, 1, 3 },
		{ "data only digest", 1, 1, 1, 0, { DATA, 7, 24, 28, 32 }, PDU_FATAL, 1, 4 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		struct pdu_ctx ctx = ready_ctx(t[i].hdgst, t[i].ddgst, t[i].cpda);
		struct pdu_verdict v;

		ctx.ready = t[i].ready;
		v = judge(ctx, t[i].h);
		if ((int)v.what != t[i].verdict || v.fes != t[i].fes || (int)v.fei != t[i].fei)
			fail_msg("%s: verdict %d, FES %u, FEI %u", t[i].what, v.what, v.fes, v.fei);
	}
}

static void icreq_fields_are_judged_when_they_are_there(void **state)
{
	static const struct {
		uint16_t pfv;
		uint8_t hpda, dgst;
		int verdict, fes, fei;
	} t[] = {
		{ 0, 0, 0, PDU_OK, 0, 0 },	{ 0, 31, 3, PDU_OK, 0, 0 },
		{ 1, 0, 0, PDU_FATAL, 6, 8 },	{ 0xffff, 99, 99, PDU_FATAL, 6, 8 },
		{ 0, 32, 0, PDU_FATAL, 1, 10 }, { 0, 255, 4, PDU_FATAL, 1, 10 },
		{ 0, 0, 4, PDU_FATAL, 1, 11 },	{ 0, 0, 0x80, PDU_FATAL, 1, 11 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		uint8_t b[128] __attribute__((aligned(8)));
		struct pdu_icreq *p = (void *)b;
		struct pdu_verdict v;

		make_icreq(b, t[i].dgst, t[i].hpda);
		p->pfv = htole16(t[i].pfv);
		assert_int_equal(pdu_check(&fresh, b, 8).what, PDU_OK);
		v = pdu_check(&fresh, b, 128);
		assert_int_equal(v.what, t[i].verdict);
		assert_int_equal(v.fes, t[i].fes);
		assert_int_equal(v.fei, t[i].fei);
	}
}

static void datal_has_to_agree_with_plen(void **state)
{
	static const uint32_t wrong[] = { 0, 1, 99, 101, 1u << 31, ~0u };

	(void)state;
	for (unsigned int dgst = 0; dgst < 4; dgst++) {
		struct pdu_ctx ctx = ready_ctx(dgst & 1, dgst & 2, 0);
		uint8_t b[256] __attribute__((aligned(8))), data[100] = { 0 };
		struct pdu_data *p = (void *)b;

		make_h2c_data(b, 1, 2, 0, true, data, sizeof(data), (uint8_t)dgst);
		assert_int_equal(pdu_check(&ctx, b, sizeof(*p)).what, PDU_OK);
		for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
			struct pdu_verdict v;

			p->datal = htole32(wrong[i]);
			v = pdu_check(&ctx, b, sizeof(*p));
			assert_int_equal(v.what, PDU_FATAL);
			assert_int_equal(v.fes, FES_HEADER_FIELD);
			assert_int_equal(v.fei, 4);
		}
	}
}

/* All types, all header lengths, both states, all digests: the one right length and no other. */
static void only_the_right_hlen_passes(void **state)
{
	(void)state;
	for (unsigned int n = 0; n < 256 * 256 * 8; n++) {
		uint8_t type = n & 0xff, hlen = n >> 8 & 0xff, hd = n >> 16 & 1, dd = n >> 17 & 1;
		bool ready = n >> 18 & 1;
		struct pdu_ctx ctx = ready_ctx(hd, dd, 0);
		struct head h = { type, 0, hlen, 0, 0 };
		unsigned int right = 0;
		struct pdu_verdict v;

		ctx.ready = ready;
		if (type == PDU_ICREQ) {
			right = ready ? 0 : 128;
			h.plen = 128;
		} else if (type == PDU_H2C_TERM) {
			right = ready ? 24 : 0;
			h.plen = 24;
		} else if (type == CMD) {
			right = ready ? 72 : 0;
			h.flags = hd;
			h.plen = 72 + 4 * hd;
		} else if (type == DATA) {
			right = ready ? 24 : 0;
			h.flags = hd | dd << 1;
			h.pdo = 24 + 4 * hd;
			h.plen = h.pdo + 4 + 4 * dd;
		}
		v = judge(ctx, h);
		if ((v.what == PDU_OK) != (right && hlen == right))
			fail_msg("type %u hlen %u: %d", type, hlen, v.what);
		if (type == PDU_H2C_TERM)
			assert_int_not_equal(v.what, PDU_FATAL);
		else if (right && v.what == PDU_FATAL)
			assert_int_equal(v.fei, 2);
	}
}

/* Whatever stands in the eight bytes, one that passes has sane lengths. */
static void what_passes_is_bounded(void **state)
{
	uint64_t x = 88172645463325252ull;
	unsigned int passed = 0;

	(void)state;
	for (unsigned int i = 0; i < 400000; i++) {
		struct pdu_ctx ctx;
		struct pdu_hdr h;
		uint32_t off, len;

		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		ctx = ready_ctx(x & 1, x & 2, x >> 2 & 31);
		memcpy(&h, &x, sizeof(h));
		h.type = x >> 8 & 1 ? CMD : DATA;
		h.hlen = h.type == CMD ? 72 : 24;
		h.flags &= 7;
		h.plen = htole32(x >> 40 & 0x3fff);
		if (pdu_check(&ctx, &h, sizeof(h)).what != PDU_OK)
			continue;
		passed++;
		off = pdu_data_off(&ctx, &h);
		len = pdu_data_len(&ctx, &h);
		assert_in_range(off, h.hlen, 255);
		assert_in_range(len, 0, h.type == CMD ? TGT_INCAPSULE : 1 << 20);
		assert_int_equal(off + len + (len && ctx.ddgst ? 4 : 0), le32toh(h.plen));
	}
	assert_in_range(passed, 1000, 400000);
}

static void alignment_is_a_multiple_not_an_offset(void **state)
{
	(void)state;
	assert_int_equal(pdu_align(24, 0), 24);
	assert_int_equal(pdu_align(28, 0), 28);
	assert_int_equal(pdu_align(24, 1), 24);
	assert_int_equal(pdu_align(28, 1), 32);
	assert_int_equal(pdu_align(24, 2), 24);
	assert_int_equal(pdu_align(28, 2), 36);
	assert_int_equal(pdu_align(24, 31), 128);
	assert_int_equal(pdu_align(28, 31), 128);
}

static void any_fes_has_a_name(void **state)
{
	(void)state;
	for (unsigned int fes = 0; fes < 65536; fes++)
		assert_non_null(pdu_fes_name((uint16_t)fes));
	assert_string_equal(pdu_fes_name(7), pdu_fes_name(0xffff));
	assert_string_equal(pdu_fes_name(2), "PDU sequence error");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_broken_rule_has_its_status_and_field),
		cmocka_unit_test(icreq_fields_are_judged_when_they_are_there),
		cmocka_unit_test(datal_has_to_agree_with_plen),
		cmocka_unit_test(only_the_right_hlen_passes),
		cmocka_unit_test(what_passes_is_bounded),
		cmocka_unit_test(alignment_is_a_multiple_not_an_offset),
		cmocka_unit_test(any_fes_has_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
