// SPDX-License-Identifier: MIT
/*
 * Validates PDU headers by a table of rules. Pure functions: no I/O, no state, any thread.
 *
 * 1. The table is sorted by the offset of the field that a rule checks, and the first rule that
 *    fails decides. So the Fatal Error Information is the lowest invalid field, as the
 *    specification requires.
 * 2. A rule says how many header bytes it needs. The common header (8 bytes) is validated before
 *    its lengths are used, the rest only after the header digest was verified.
 * 3. A rule may rely on all rules above it: PLEN is compared with PDO after PDO was validated.
 * 4. An invalid H2CTermReq is never answered: its rules end in PDU_HANGUP.
 *
 * The specification lists error codes but not the cases they apply to, and peers disagree. Here:
 * - an unknown PDU format version is an Unsupported Parameter (FES 6, FEI 8): the field is
 *   well-formed and its value is not supported. (SPDK answers FES 1, with the same FEI.)
 * - a second ICReq, like any PDU at the wrong time, is a PDU Sequence Error (FES 2).
 *   (FreeBSD answers FES 1.) The sequence is checked before the type: any first PDU other
 *   than ICReq is FES 2.
 * - a wrong LAST_PDU, and data within the window but not at its next byte, are PDU Sequence Errors:
 *   each field is valid alone, but the order of the PDUs is wrong. (rx.c checks these two, because
 *   they depend on the command.) Data outside the window is Data Transfer Out of Range.
 */
#include <string.h>
#include "pdu.h"

/* The header to validate, decoded once. */
struct look {
	const struct pdu_ctx *ctx;
	const uint8_t *bytes;
	uint8_t type, flags, hlen, pdo;
	uint32_t plen;
	uint32_t base; /* HLEN plus the header digest: the minimum length of the PDU */
};

static uint8_t type_hlen(uint8_t type)
{
	switch (type) {
	case PDU_ICREQ:
		return sizeof(struct pdu_icreq);
	case PDU_H2C_TERM:
		return sizeof(struct pdu_term);
	case PDU_CMD:
		return sizeof(struct pdu_cmd);
	case PDU_H2C_DATA:
		return sizeof(struct pdu_data);
	default:
		return 0; /* of the other direction, or unknown */
	}
}

static bool has_data(const struct look *l)
{
	return l->type == PDU_H2C_DATA || l->plen > l->base;
}

static uint32_t digest_len(const struct look *l)
{
	return l->ctx->ddgst ? PDU_DIGEST_LEN : 0;
}

static bool in_sequence(const struct look *l)
{
	return l->ctx->ready ? l->type != PDU_ICREQ : l->type == PDU_ICREQ;
}

static bool type_known(const struct look *l)
{
	return type_hlen(l->type) != 0;
}

static bool flags_none(const struct look *l)
{
	return l->flags == 0;
}

static bool flags_match(const struct look *l)
{
	uint8_t last = l->type == PDU_H2C_DATA ? l->flags & PDU_F_LAST : 0;
	uint8_t want = 0;

	if (l->ctx->hdgst)
		want |= PDU_F_HDGST;
	if (l->ctx->ddgst && has_data(l))
		want |= PDU_F_DDGST;
	return l->flags == (want | last);
}

static bool hlen_right(const struct look *l)
{
	return l->hlen == type_hlen(l->type);
}

static bool pdo_none(const struct look *l)
{
	return l->pdo == 0;
}

/* PDO is reserved in a capsule without data; otherwise it is behind the header, and aligned. */
static bool pdo_right(const struct look *l)
{
	if (!has_data(l))
		return true;
	return l->pdo >= l->base && l->pdo % ((l->ctx->cpda + 1u) * 4) == 0;
}

static bool plen_icreq(const struct look *l)
{
	return l->plen == sizeof(struct pdu_icreq);
}

static bool plen_term(const struct look *l)
{
	return l->plen >= sizeof(struct pdu_term) && l->plen <= PDU_TERM_MAX;
}

/* PLEN covers the header; if more follows, also the padding, one byte of data and the digest. */
static bool plen_enough(const struct look *l)
{
	if (l->plen < l->base)
		return false;
	return !has_data(l) || l->plen > (uint32_t)l->pdo + digest_len(l);
}

static bool plen_bounded(const struct look *l)
{
	uint32_t max = l->type == PDU_CMD ? l->ctx->max_capsule : l->ctx->max_h2cdata;

	return !has_data(l) || l->plen - l->pdo - digest_len(l) <= max;
}

static bool plen_agrees(const struct look *l)
{
	const struct pdu_data *d = (const void *)l->bytes;

	return le32toh(d->datal) == l->plen - l->pdo - digest_len(l);
}

static bool pfv_known(const struct look *l)
{
	return ((const struct pdu_icreq *)l->bytes)->pfv == 0;
}

static bool hpda_right(const struct look *l)
{
	return ((const struct pdu_icreq *)l->bytes)->hpda <= PDU_PDA_MAX;
}

static bool dgst_right(const struct look *l)
{
	return !(((const struct pdu_icreq *)l->bytes)->dgst & ~(PDU_DGST_HEADER | PDU_DGST_DATA));
}

#define ANY -1
#define CH  sizeof(struct pdu_hdr)

static const struct rule {
	int type;     /* of the PDUs that the rule applies to */
	uint8_t need; /* header bytes that it needs */
	uint8_t fes;  /* 0: hang up */
	uint8_t fei;
	bool (*holds)(const struct look *);
} rules[] = {
	{ PDU_H2C_TERM, CH, 0, 2, hlen_right },
	{ PDU_H2C_TERM, CH, 0, 4, plen_term },
	{ ANY, CH, FES_SEQUENCE, 0, in_sequence },
	{ ANY, CH, FES_HEADER_FIELD, 0, type_known },
	{ PDU_ICREQ, CH, FES_HEADER_FIELD, 1, flags_none },
	{ PDU_CMD, CH, FES_HEADER_FIELD, 1, flags_match },
	{ PDU_H2C_DATA, CH, FES_HEADER_FIELD, 1, flags_match },
	{ ANY, CH, FES_HEADER_FIELD, 2, hlen_right },
	{ PDU_ICREQ, CH, FES_HEADER_FIELD, 3, pdo_none },
	{ PDU_CMD, CH, FES_HEADER_FIELD, 3, pdo_right },
	{ PDU_H2C_DATA, CH, FES_HEADER_FIELD, 3, pdo_right },
	{ PDU_ICREQ, CH, FES_HEADER_FIELD, 4, plen_icreq },
	{ PDU_CMD, CH, FES_HEADER_FIELD, 4, plen_enough },
	{ PDU_H2C_DATA, CH, FES_HEADER_FIELD, 4, plen_enough },
	{ PDU_CMD, CH, FES_LIMIT, 0, plen_bounded },
	{ PDU_H2C_DATA, CH, FES_LIMIT, 0, plen_bounded },
	{ PDU_H2C_DATA, sizeof(struct pdu_data), FES_HEADER_FIELD, 4, plen_agrees },
	{ PDU_ICREQ, sizeof(struct pdu_icreq), FES_UNSUPPORTED, 8, pfv_known },
	{ PDU_ICREQ, sizeof(struct pdu_icreq), FES_HEADER_FIELD, 10, hpda_right },
	{ PDU_ICREQ, sizeof(struct pdu_icreq), FES_HEADER_FIELD, 11, dgst_right },
};

struct pdu_verdict pdu_check(const struct pdu_ctx *ctx, const void *hdr, size_t have)
{
	const struct pdu_hdr *h = hdr;
	struct look l = {
		.ctx = ctx,
		.bytes = hdr,
		.type = h->type,
		.flags = h->flags,
		.hlen = h->hlen,
		.pdo = h->pdo,
		.plen = le32toh(h->plen),
		/* By its type: what a capsule without data measures does not hang on a wrong HLEN.
		 */
		.base = type_hlen(h->type) + (ctx->hdgst ? PDU_DIGEST_LEN : 0u),
	};

	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		const struct rule *r = &rules[i];

		if ((r->type != ANY && r->type != l.type) || r->need > have || r->holds(&l))
			continue;
		if (!r->fes || l.type == PDU_H2C_TERM)
			return (struct pdu_verdict){ .what = PDU_HANGUP };
		return (struct pdu_verdict){ PDU_FATAL, r->fes, r->fei };
	}
	return (struct pdu_verdict){ .what = PDU_OK };
}

uint32_t pdu_data_len(const struct pdu_ctx *ctx, const struct pdu_hdr *h)
{
	uint32_t base = h->hlen + (ctx->hdgst ? PDU_DIGEST_LEN : 0u);
	uint32_t plen = le32toh(h->plen);

	if ((h->type != PDU_CMD && h->type != PDU_H2C_DATA) || plen == base)
		return 0;
	return plen - h->pdo - (ctx->ddgst ? PDU_DIGEST_LEN : 0);
}

uint32_t pdu_data_off(const struct pdu_ctx *ctx, const struct pdu_hdr *h)
{
	if (pdu_data_len(ctx, h))
		return h->pdo;
	if (h->type == PDU_CMD || h->type == PDU_H2C_DATA)
		return h->hlen + (ctx->hdgst ? PDU_DIGEST_LEN : 0u);
	return h->hlen; /* ICReq and the TermReqs carry no digest */
}

const char *pdu_fes_name(uint16_t fes)
{
	static const char *const names[] = {
		[0] = "unknown",
		[FES_HEADER_FIELD] = "invalid PDU header field",
		[FES_SEQUENCE] = "PDU sequence error",
		[FES_HEADER_DIGEST] = "header digest error",
		[FES_OUT_OF_RANGE] = "data transfer out of range",
		[FES_LIMIT] = "data transfer limit exceeded",
		[FES_UNSUPPORTED] = "unsupported parameter",
	};

	return names[fes < sizeof(names) / sizeof(names[0]) ? fes : 0];
}
