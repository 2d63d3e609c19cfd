// SPDX-License-Identifier: MIT
/*
 * Every rule about PDUs broken once against the live daemon (NVMe/TCP 1.0, 3.6 and 7.4; the
 * readings where peers disagree are those at the top of transport/pdu.c). What comes back is a
 * C2HTermReq with the right FES and FEI that quotes the header, then the end of the connection;
 * and an association that was there before goes on.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon.h"

#define LOCAL "127.0.0.1"

enum { FIELD = 1, SEQUENCE, DIGEST, RANGE, LIMIT, UNSUPPORTED };
#define ANY_FEI UINT32_MAX

static struct rig rig;
static struct host_ctrl witness; /* was there before, and must stay */
static struct rig_ns ns;

static int serve(void **state)
{
	(void)state;
	rig_init(&rig);
	assert_int_equal(rig_create(&rig, rig.img, RIG_SEED), 0);
	assert_int_equal(rig_serve(&rig, rig.img), 0);
	rig_attach(&rig, &witness, 1);
	rig_identify(&witness, 1, &ns);
	return 0;
}

static int unserve(void **state)
{
	int status;

	(void)state;
	host_detach(&witness);
	status = rig_stop(&rig, SIGTERM, 10000 * rig_slowness(), NULL);
	rig_end(&rig);
	return status ? -1 : 0;
}

/* Before every test: the witness lives, its zones are empty. */
static int fresh(void **state)
{
	(void)state;
	return host_zone(&witness.io[0], 1, 0, NVME_ZNS_ZSA_RESET, true);
}

/* --- the rules --- */

enum stage {
	NEW,	   /* a TCP connection */
	READY,	   /* after ICReq and ICResp */
	CONNECTED, /* an I/O queue */
	ASKED,	   /* a write of 64 KiB in flight, its R2T received */
};

/* What a rule-breaker works with. */
struct site {
	struct host_ctrl c;
	struct host_queue plain;
	struct host_queue *q;
	struct host_data_pdu r2t;
	struct host_io io;
	uint8_t sent[128] __attribute__((aligned(8))); /* the header that breaks the rule, */
	uint32_t sent_len;
};

static uint8_t data[(1 << 20) + 8192];

static void ic_init(struct host_ic_pdu *pdu)
{
	*pdu = (struct host_ic_pdu){
		.ch = { .type = HOST_ICREQ, .hlen = 128, .plen = htole32(128) },
	};
}

static void cmd_init(struct host_cmd_pdu *pdu)
{
	*pdu = (struct host_cmd_pdu){
		.ch = { .type = HOST_CAPSULE_CMD, .hlen = 72, .plen = htole32(72) },
		.sqe = { .opcode = nvme_cmd_flush,
			 .flags = NVME_SQE_PSDT_SGL,
			 .nsid = htole32(1),
			 .dptr.type = NVME_SGL_TRANSPORT },
	};
}

/* All 64 KiB that the R2T of the site asks for. */
static void h2c_init(struct host_data_pdu *pdu, const struct site *s)
{
	*pdu = (struct host_data_pdu){
		.ch = { .type = HOST_H2C_DATA,
			.flags = HOST_F_LAST,
			.hlen = 24,
			.pdo = 24,
			.plen = htole32(24 + 65536) },
		.cid = s->r2t.cid,
		.ttag = s->r2t.ttag,
		.len = htole32(65536),
	};
}

/* A change to a good header: VALUE goes to (with add: is added to) the field at offset AT. */
struct edit {
	uint8_t at, width;
	uint32_t value;
	bool add;
};
#define TYPE(v)                                                                                    \
	{                                                                                          \
		0, 1, v, false                                                                     \
	}
#define FLAGS(v)                                                                                   \
	{                                                                                          \
		1, 1, v, false                                                                     \
	}
#define HLEN(v)                                                                                    \
	{                                                                                          \
		2, 1, v, false                                                                     \
	}
#define PDO(v)                                                                                     \
	{                                                                                          \
		3, 1, v, false                                                                     \
	}
#define PLEN(v)                                                                                    \
	{                                                                                          \
		4, 4, v, false                                                                     \
	}
#define PFV(v)                                                                                     \
	{                                                                                          \
		8, 2, v, false                                                                     \
	}
#define HPDA(v)                                                                                    \
	{                                                                                          \
		10, 1, v, false                                                                    \
	}
#define DGST(v)                                                                                    \
	{                                                                                          \
		11, 1, v, false                                                                    \
	}
#define CID_ADD(v)                                                                                 \
	{                                                                                          \
		8, 2, v, true                                                                      \
	}
#define TTAG_ADD(v)                                                                                \
	{                                                                                          \
		10, 2, v, true                                                                     \
	}
#define TTAG(v)                                                                                    \
	{                                                                                          \
		10, 2, v, false                                                                    \
	}
#define DATAO(v)                                                                                   \
	{                                                                                          \
		12, 4, v, false                                                                    \
	}
#define DATAL(v)                                                                                   \
	{                                                                                          \
		16, 4, v, false                                                                    \
	}

enum base { IC, CMD, H2C };

static const struct rule {
	const char *name;
	enum stage stage;
	enum base base;
	struct edit edit[3];
	uint16_t fes;
	uint32_t fei;
} rules[] = {
	{ "ICReq with PFV 1", NEW, IC, { PFV(1) }, UNSUPPORTED, 8 },
	{ "ICReq with HPDA 32", NEW, IC, { HPDA(32) }, FIELD, 10 },
	{ "ICReq with unknown digests", NEW, IC, { DGST(4) }, FIELD, 11 },
	{ "ICReq with flags", NEW, IC, { FLAGS(1) }, FIELD, 1 },
	{ "ICReq with hlen 127", NEW, IC, { HLEN(127) }, FIELD, 2 },
	{ "ICReq with PDO", NEW, IC, { PDO(4) }, FIELD, 3 },
	{ "ICReq with plen 127", NEW, IC, { PLEN(127) }, FIELD, 4 },
	{ "ICReq of 4 GiB", NEW, IC, { PLEN(0xffffffff) }, FIELD, 4 },
	{ "two bad fields: the lowest counts", NEW, IC, { DGST(4), HPDA(32) }, FIELD, 10 },
	{ "a capsule before ICReq", NEW, CMD, { PLEN(72) }, SEQUENCE, ANY_FEI },
	{ "H2CData before ICReq", NEW, H2C, { PLEN(24 + 65536) }, SEQUENCE, ANY_FEI },
	{ "a second ICReq", READY, IC, { PLEN(128) }, SEQUENCE, ANY_FEI },
	{ "a second ICReq after Connect", CONNECTED, IC, { PLEN(128) }, SEQUENCE, ANY_FEI },
	{ "ICResp from the host", READY, H2C, { TYPE(1), PLEN(24) }, FIELD, 0 },
	{ "C2HTermReq from the host", READY, H2C, { TYPE(3), PLEN(24) }, FIELD, 0 },
	{ "CapsuleResp from the host", CONNECTED, H2C, { TYPE(5), PLEN(24) }, FIELD, 0 },
	{ "C2HData from the host", CONNECTED, H2C, { TYPE(7), PLEN(24) }, FIELD, 0 },
	{ "PDU type 8", CONNECTED, H2C, { TYPE(8), PLEN(24) }, FIELD, 0 },
	{ "R2T from the host", CONNECTED, H2C, { TYPE(9), PLEN(24) }, FIELD, 0 },
	{ "PDU type 255", CONNECTED, CMD, { TYPE(255) }, FIELD, 0 },
	{ "a capsule with unknown flags", CONNECTED, CMD, { FLAGS(0x80) }, FIELD, 1 },
	{ "a digest not agreed on", CONNECTED, CMD, { FLAGS(1), PLEN(76) }, FIELD, 1 },
	{ "a capsule with hlen 71", CONNECTED, CMD, { HLEN(71) }, FIELD, 2 },
	{ "a capsule with plen 71", CONNECTED, CMD, { PLEN(71) }, FIELD, 4 },
	{ "a capsule with plen 0", CONNECTED, CMD, { PLEN(0) }, FIELD, 4 },
	{ "data within the header", CONNECTED, CMD, { PLEN(584), PDO(68) }, FIELD, 3 },
	{ "data not aligned", CONNECTED, CMD, { PLEN(584), PDO(73) }, FIELD, 3 },
	{ "data past the end", CONNECTED, CMD, { PLEN(80), PDO(84) }, FIELD, ANY_FEI },
	{ "too much in a capsule", CONNECTED, CMD, { PLEN(72 + 8196), PDO(72) }, LIMIT, ANY_FEI },
	{ "a capsule of 4 GiB", CONNECTED, CMD, { PLEN(0xffffffff), PDO(72) }, LIMIT, ANY_FEI },
	{ "H2CData nobody asked for", CONNECTED, H2C, { FLAGS(4) }, FIELD, 10 },
	{ "H2CData, another TTAG", ASKED, H2C, { TTAG_ADD(0x0101) }, FIELD, 10 },
	{ "H2CData, a TTAG of old", ASKED, H2C, { TTAG_ADD(0x0100) }, FIELD, 10 },
	{ "H2CData, TTAG ffff", ASKED, H2C, { TTAG(0xffff) }, FIELD, 10 },
	{ "H2CData, another CCCID", ASKED, H2C, { CID_ADD(1) }, FIELD, 8 },
	{ "H2CData past the end", ASKED, H2C, { DATAO(4) }, RANGE, ANY_FEI },
	{ "H2CData whose end overflows", ASKED, H2C, { DATAO(0xfffff000) }, RANGE, ANY_FEI },
	{ "H2CData out of order",
	  ASKED,
	  H2C,
	  { DATAO(61440), DATAL(4096), PLEN(24 + 4096) },
	  SEQUENCE,
	  ANY_FEI },
	{ "LAST too early", ASKED, H2C, { DATAL(4096), PLEN(24 + 4096) }, SEQUENCE, ANY_FEI },
	{ "LAST missing", ASKED, H2C, { FLAGS(0) }, SEQUENCE, ANY_FEI },
	{ "DATAL against plen", ASKED, H2C, { DATAL(65532) }, FIELD, ANY_FEI },
	{ "H2CData without data", ASKED, H2C, { DATAL(0), PLEN(24) }, FIELD, ANY_FEI },
	{ "H2CData with SUCCESS", ASKED, H2C, { FLAGS(0xc) }, FIELD, 1 },
	{ "H2CData with hlen 32", ASKED, H2C, { HLEN(32), PDO(32) }, FIELD, 2 },
	{ "H2CData above MAXH2CDATA", ASKED, H2C, { PLEN(0x00200000) }, LIMIT, ANY_FEI },
	{ "H2CData of 4 GiB", ASKED, H2C, { PLEN(0xffffffff), DATAL(~24u) }, LIMIT, ANY_FEI },
};

static void apply(uint8_t *head, const struct edit *e)
{
	__le32 v = 0;
	uint32_t value;

	memcpy(&v, head + e->at, e->width);
	value = e->value + (e->add ? le32toh(v) : 0);
	v = htole32(value);
	memcpy(head + e->at, &v, e->width);
}

/* Sends the header of the rule, and keeps it, for the TermReq is to quote it. */
static void break_rule(struct site *s, const struct rule *rule)
{
	size_t i;

	if (rule->base == IC) {
		ic_init((struct host_ic_pdu *)s->sent);
		s->sent_len = sizeof(struct host_ic_pdu);
	} else if (rule->base == CMD) {
		cmd_init((struct host_cmd_pdu *)s->sent);
		s->sent_len = sizeof(struct host_cmd_pdu);
	} else {
		h2c_init((struct host_data_pdu *)s->sent, s);
		s->sent_len = sizeof(struct host_data_pdu);
	}
	for (i = 0; i < 3 && rule->edit[i].width; i++)
		apply(s->sent, &rule->edit[i]);
	assert_int_equal(host_send_raw(s->q, s->sent, s->sent_len), 0);
}

static void site_open(struct site *s, enum stage stage, const struct host_ic *ic)
{
	memset(s, 0, sizeof(*s));
	s->plain.fd = s->c.admin.fd = -1;
	s->q = &s->plain;
	if (stage == NEW) {
		assert_int_equal(host_dial(&s->plain, LOCAL, rig.port), 0);
	} else if (stage == READY) {
		assert_int_equal(host_open(&s->plain, LOCAL, rig.port, ic), 0);
	} else {
		assert_int_equal(host_attach(&s->c, LOCAL, rig.port, RIG_NQN, NULL, ic, 1, 0), 0);
		s->q = &s->c.io[0];
	}
	if (stage != ASKED)
		return;
	host_set_rw(&s->io, nvme_cmd_write, 1, 0, 65536 / ns.lba, data, 65536);
	s->io.by_r2t = true;
	assert_int_equal(host_submit(s->q, &s->io), 0);
	assert_int_equal(host_recv_pdu(s->q), 0);
	assert_int_equal(s->q->ch.type, HOST_R2T);
	memcpy(&s->r2t, s->q->head, sizeof(s->r2t));
}

static void site_close(struct site *s)
{
	host_close(&s->plain);
	host_detach(&s->c);
}

static void expect_term(struct site *s, const char *name, uint16_t fes, uint32_t fei)
{
	const struct host_term *term = &s->q->term;
	int err = host_recv_pdu(s->q);

	if (err || s->q->ch.type != HOST_C2H_TERM)
		fail_msg("%s: no C2HTermReq, but error %d, PDU type %u", name, err, s->q->ch.type);
	if (term->fes != fes || (fei != ANY_FEI && term->fei != fei))
		fail_msg("%s: FES %u FEI %u, not FES %u FEI %u", name, term->fes, term->fei, fes,
			 fei);
	if (term->plen <= 24 || term->plen - 24 > s->sent_len ||
	    memcmp(term->header, s->sent, term->plen - 24))
		fail_msg("%s: does not quote the header", name);
	err = host_wait_close(s->q);
	if (err)
		fail_msg("%s: the connection stays, error %d", name, err);
}

static void a_broken_rule_ends_in_a_termreq(void **state)
{
	struct site s;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		site_open(&s, rules[i].stage, NULL);
		break_rule(&s, &rules[i]);
		expect_term(&s, rules[i].name, rules[i].fes, rules[i].fei);
		site_close(&s);
		if (host_flush(&witness.io[0], 1))
			fail_msg("after %s the others are not served", rules[i].name);
	}
	/* None of the half-sent writes moved the write pointer. */
	assert_zone(&witness.io[0], &ns, 0, NVME_ZNS_ZS_EMPTY, 0);
}

static void a_termreq_is_never_answered(void **state)
{
	static const uint32_t plens[] = { 24, 152, 23, 153, 0xffffffff };
	struct site s;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(plens) / sizeof(plens[0]); i++) {
		struct host_term_pdu pdu = {
			.ch = { .type = HOST_H2C_TERM, .hlen = 24, .plen = htole32(plens[i]) },
			.fes = htole16(0xfff),
		};

		site_open(&s, CONNECTED, NULL);
		assert_int_equal(host_send_raw(s.q, &pdu, sizeof(pdu)), 0);
		if (plens[i] == 152)
			assert_int_equal(host_send_raw(s.q, data, 128), 0);
		assert_int_equal(host_recv_pdu(s.q), -ENOTCONN);
		site_close(&s);
	}
	assert_int_equal(host_flush(&witness.io[0], 1), 0);
}

/* --- digests --- */

static void data_passes_under_all_digests_and_alignments(void **state)
{
	static const uint8_t hpdas[] = { 0, 1, 7, 31 };
	uint8_t back[20000];
	struct host_ctrl c;
	struct host_io io;
	size_t i;

	(void)state;
	host_pattern(data, sizeof(back), 0, 3);
	for (i = 0; i < 4 * sizeof(hpdas); i++) {
		struct host_ic ic = { .hdgst = i & 1, .ddgst = i & 2, .hpda = hpdas[i / 4] };
		struct host_queue *q;

		assert_int_equal(fresh(NULL), 0);
		assert_int_equal(host_attach(&c, LOCAL, rig.port, RIG_NQN, NULL, &ic, 1, 0), 0);
		q = &c.io[0];
		assert_int_equal(host_write(q, 1, 0, 8, data, 4096), 0);
		host_set_rw(&io, nvme_cmd_write, 1, 8, 31, data + 4096, 31 * 512);
		io.chunk = 1000;
		assert_int_equal(host_cmd(q, &io), 0);
		assert_true(io.r2ts >= 1);
		assert_int_equal(host_read(q, 1, 0, 39, back, 39 * 512), 0);
		assert_memory_equal(back, data, 39 * 512);
		host_detach(&c);
	}
}

static void a_wrong_header_digest_ends_the_connection(void **state)
{
	const struct host_ic ic = { .hdgst = true };
	struct site s;

	(void)state;
	site_open(&s, CONNECTED, &ic);
	s.q->bad_hdgst = true;
	assert_int_equal(host_flush(s.q, 1), -ECONNABORTED);
	assert_int_equal(s.q->term.fes, DIGEST);
	assert_int_equal(host_wait_close(s.q), 0);
	site_close(&s);
}

static void a_wrong_data_digest_fails_the_command_alone(void **state)
{
	static uint8_t back[256 * 512];
	const struct host_ic ic = { .hdgst = true, .ddgst = true };
	struct host_io io;
	struct site s;

	(void)state;
	site_open(&s, CONNECTED, &ic);
	/* In the capsule, by R2T, and, of an image in memory, into clusters that are then not used. */
	for (int way = 0; way < 3; way++) {
		uint32_t nlb = way == 2 ? 256 : 8;

		host_set_rw(&io, nvme_cmd_write, 1, 0, nlb, data, nlb * 512);
		io.by_r2t = way;
		io.chunk = nlb * 512 / 4;
		io.bad_ddgst = true;
		assert_int_equal(host_cmd(s.q, &io), NVME_SC_TRAN_TPORT_ERROR);
		assert_false(io.dnr);
		assert_zone(s.q, &ns, 0, NVME_ZNS_ZS_EMPTY, 0);
	}
	assert_int_equal(host_write(s.q, 1, 0, 256, data, 256 * 512), 0);
	assert_int_equal(host_read(s.q, 1, 0, 256, back, 256 * 512), 0);
	assert_memory_equal(back, data, sizeof(back));
	site_close(&s);
}

/* --- streams of bytes --- */

/* ICReq, admin Connect, Property Get: a whole conversation in 128 + 1096 + 72 bytes. */
static size_t conversation(uint8_t *buf)
{
	struct host_ic_pdu ic;
	struct host_cmd_pdu cmd;
	struct host_connect c;
	struct nvmf_connect_sqe con = {
		.opcode = nvme_admin_fabrics,
		.flags = NVME_SQE_PSDT_SGL,
		.cid = 1,
		.fctype = nvme_fabrics_type_connect,
		.dptr = { .length = htole32(1024), .type = NVME_SGL_OFFSET },
		.sqsize = htole16(31),
	};
	struct nvmf_property_sqe get = {
		.opcode = nvme_admin_fabrics,
		.flags = NVME_SQE_PSDT_SGL,
		.cid = 2,
		.fctype = nvme_fabrics_type_property_get,
		.attrib = 1,
	};
	size_t len = 0;

	ic_init(&ic);
	memcpy(buf, &ic, sizeof(ic));
	len += sizeof(ic);
	cmd_init(&cmd);
	cmd.ch.plen = htole32(72 + 1024);
	cmd.ch.pdo = 72;
	memcpy(&cmd.sqe, &con, sizeof(con));
	memcpy(buf + len, &cmd, sizeof(cmd));
	len += sizeof(cmd);
	host_connect_init(&c, 0, 31, RIG_NQN, HOST_NQN, 0xffff);
	memcpy(buf + len, &c.data, sizeof(c.data));
	len += sizeof(c.data);
	cmd_init(&cmd);
	memcpy(&cmd.sqe, &get, sizeof(get));
	memcpy(buf + len, &cmd, sizeof(cmd));
	return len + sizeof(cmd);
}

static void expect_conversation(struct host_queue *q)
{
	struct host_resp_pdu resp;

	assert_int_equal(host_recv_pdu(q), 0);
	assert_int_equal(q->ch.type, HOST_ICRESP);
	assert_int_equal(host_recv_pdu(q), 0);
	memcpy(&resp, q->head, sizeof(resp));
	assert_int_equal(q->ch.type, HOST_CAPSULE_RESP);
	assert_int_equal(resp.cqe.cid, 1);
	assert_int_equal(resp.cqe.status, 0);
	assert_int_equal(host_recv_pdu(q), 0);
	memcpy(&resp, q->head, sizeof(resp));
	assert_int_equal(resp.cqe.cid, 2);
	assert_int_equal(resp.cqe.status, 0);
	assert_int_equal(le64toh(resp.cqe.result) & 0xffff, 127);
}

static void a_conversation_in_one_piece_is_understood(void **state)
{
	uint8_t buf[2048];
	size_t len = conversation(buf);
	struct host_queue q;

	(void)state;
	assert_int_equal(host_dial(&q, LOCAL, rig.port), 0);
	assert_int_equal(host_send_raw(&q, buf, len), 0);
	expect_conversation(&q);
	host_close(&q);
}

static void a_conversation_byte_by_byte_is_understood(void **state)
{
	uint8_t buf[2048];
	size_t i, len = conversation(buf);
	struct host_queue q;

	(void)state;
	assert_int_equal(host_dial(&q, LOCAL, rig.port), 0);
	for (i = 0; i < len; i++) {
		assert_int_equal(host_send_raw(&q, buf + i, 1), 0);
		if (i % 16 == 0)
			usleep(200);
	}
	expect_conversation(&q);
	host_close(&q);
}

static void a_conversation_cut_at_any_byte_does_no_harm(void **state)
{
	uint8_t buf[2048];
	size_t i, len = conversation(buf);
	struct host_queue q;

	(void)state;
	for (i = 0; i < len; i += i < 256 ? 1 : 3) {
		assert_int_equal(host_dial(&q, LOCAL, rig.port), 0);
		assert_int_equal(host_send_raw(&q, buf, i), 0);
		host_close(&q);
		if (i % 100 == 0)
			assert_int_equal(host_flush(&witness.io[0], 1), 0);
	}
	assert_int_equal(host_flush(&witness.io[0], 1), 0);
}

static void data_cut_at_any_place_writes_nothing(void **state)
{
	struct site s;
	size_t i;

	(void)state;
	for (i = 0; i < 65536; i += 4099) {
		struct host_data_pdu pdu;

		site_open(&s, ASKED, NULL);
		h2c_init(&pdu, &s);
		assert_int_equal(host_send_raw(s.q, &pdu, sizeof(pdu)), 0);
		assert_int_equal(host_send_raw(s.q, data, i), 0);
		site_close(&s);
	}
	assert_zone(&witness.io[0], &ns, 0, NVME_ZNS_ZS_EMPTY, 0);
}

static void connections_that_say_nothing_do_not_harm_the_others(void **state)
{
	enum { N = 200 };
	struct host_queue q[N];
	struct host_ctrl c;
	int i;

	(void)state;
	for (i = 0; i < N; i++) /* some may be refused: they are bounded */
		assert_int_equal(host_dial(&q[i], LOCAL, rig.port), 0);
	for (i = 0; i < 10; i++)
		assert_int_equal(host_flush(&witness.io[0], 1), 0);
	for (i = 0; i < N; i++)
		host_close(&q[i]);
	for (i = 0; i < 100; i++) { /* the daemon has yet to see the closes */
		if (!host_attach(&c, LOCAL, rig.port, RIG_NQN, NULL, NULL, 1, 0))
			break;
		usleep(20000);
	}
	assert_in_range(i, 0, 99);
	assert_int_equal(host_flush(&c.io[0], 1), 0);
	host_detach(&c);
}

static void garbage_does_no_harm(void **state)
{
	uint8_t buf[4096];
	struct site s;
	unsigned int i;

	(void)state;
	for (i = 0; i < 60; i++) {
		enum stage stage = i % 3;

		site_open(&s, stage, NULL);
		host_pattern(buf, sizeof(buf), 0, 1000 + i);
		buf[0] = i % 12; /* a likely type */
		/* The target may be done with us before we are. */
		host_send_raw(s.q, buf, i % 2 ? 256 : sizeof(buf));
		host_close(s.q);
		if (s.q == &s.c.io[0])
			host_close(&s.c.admin);
		site_close(&s);
		assert_int_equal(host_flush(&witness.io[0], 1), 0);
	}
}

/* --- R2T --- */

static void there_is_one_r2t_at_a_time(void **state)
{
	struct pollfd pfd;
	struct site s;

	(void)state;
	site_open(&s, CONNECTED, NULL);
	host_set_rw(&s.io, nvme_cmd_write, 1, 0, (1 << 20) / ns.lba, data, 1 << 20);
	assert_int_equal(host_submit(s.q, &s.io), 0);
	assert_int_equal(host_recv_pdu(s.q), 0);
	assert_int_equal(s.q->ch.type, HOST_R2T);
	pfd = (struct pollfd){ .fd = s.q->fd, .events = POLLIN };
	assert_int_equal(poll(&pfd, 1, 200), 0);
	/* A read meanwhile is answered all the same. */
	rig_verify_zeroes(s.q, &ns, 11 * ns.zsze, 8);
	site_close(&s);
}

static void a_refused_write_never_gets_an_r2t(void **state)
{
	struct host_io io;
	struct site s;

	(void)state;
	site_open(&s, CONNECTED, NULL);
	host_set_rw(&io, nvme_cmd_write, 99, 0, 16, data, 8192);
	io.by_r2t = true;
	assert_int_equal(host_cmd(s.q, &io), NVME_SC_INVALID_NS);
	assert_int_equal(io.r2ts, 0);
	site_close(&s);
}

static void the_sgl_must_be_of_a_kind_the_transport_knows(void **state)
{
	static const struct {
		uint8_t type;
		uint32_t len;
		int status;
	} rows[] = {
		{ 0x00, 4096, NVME_SC_SGL_INVALID_TYPE }, /* address */
		{ 0x20, 4096, NVME_SC_SGL_INVALID_TYPE }, /* segment */
		{ 0x40, 4096, NVME_SC_SGL_INVALID_TYPE }, /* keyed */
		{ NVME_SGL_TRANSPORT, 0xffffffff, NVME_SC_SGL_INVALID_DATA },
		{ NVME_SGL_TRANSPORT, 4095, NVME_SC_SGL_INVALID_DATA },
		{ NVME_SGL_TRANSPORT, 0, NVME_SC_SGL_INVALID_DATA },
	};
	struct host_io io;
	struct site s;
	size_t i;

	(void)state;
	site_open(&s, CONNECTED, NULL);
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		host_set_rw(&io, nvme_cmd_read, 1, 0, 8, data, 4096);
		io.raw_dptr = true;
		io.sqe.dptr.type = rows[i].type;
		io.sqe.dptr.length = htole32(rows[i].len);
		if (host_cmd(s.q, &io) != rows[i].status)
			fail_msg("SGL type %#x, length %u: status %#x, not %#x", rows[i].type,
				 rows[i].len, io.status, rows[i].status);
	}
	site_close(&s);
}

static void a_fused_command_is_refused(void **state)
{
	struct host_io io = { .sqe = { .opcode = nvme_cmd_flush, .flags = 1, .nsid = htole32(1) } };
	struct site s;

	(void)state;
	site_open(&s, CONNECTED, NULL);
	assert_int_equal(host_cmd(s.q, &io), NVME_SC_INVALID_FIELD);
	site_close(&s);
}

#define t(name) cmocka_unit_test_setup(name, fresh)

int main(void)
{
	const struct CMUnitTest tests[] = {
		t(a_broken_rule_ends_in_a_termreq),
		t(a_termreq_is_never_answered),
		t(data_passes_under_all_digests_and_alignments),
		t(a_wrong_header_digest_ends_the_connection),
		t(a_wrong_data_digest_fails_the_command_alone),
		t(a_conversation_in_one_piece_is_understood),
		t(a_conversation_byte_by_byte_is_understood),
		t(a_conversation_cut_at_any_byte_does_no_harm),
		t(data_cut_at_any_place_writes_nothing),
		t(garbage_does_no_harm),
		t(connections_that_say_nothing_do_not_harm_the_others),
		t(there_is_one_r2t_at_a_time),
		t(a_refused_write_never_gets_an_r2t),
		t(the_sgl_must_be_of_a_kind_the_transport_knows),
		t(a_fused_command_is_refused),
	};

	return cmocka_run_group_tests(tests, serve, unserve);
}
