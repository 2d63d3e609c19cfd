/* SPDX-License-Identifier: MIT */
/*
 * The PDUs of NVMe/TCP as on the wire, little-endian, and the validation of their headers. Names
 * and figures: NVMe TCP Transport Specification 1.0, section 3.6.
 */
#ifndef TRANSPORT_PDU_H
#define TRANSPORT_PDU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "nvme.h"

enum pdu_type {
	PDU_ICREQ = 0x00,
	PDU_ICRESP = 0x01,
	PDU_H2C_TERM = 0x02,
	PDU_C2H_TERM = 0x03,
	PDU_CMD = 0x04,
	PDU_RESP = 0x05,
	PDU_H2C_DATA = 0x06,
	PDU_C2H_DATA = 0x07,
	PDU_R2T = 0x09,
};

/* FLAGS of the common header. */
#define PDU_F_HDGST   0x01
#define PDU_F_DDGST   0x02
#define PDU_F_LAST    0x04 /* H2CData, C2HData */
#define PDU_F_SUCCESS 0x08 /* C2HData: no CapsuleResp follows */

/* DGST of ICReq and ICResp. */
#define PDU_DGST_HEADER 0x01
#define PDU_DGST_DATA	0x02

/* Fatal Error Status of the TermReqs. */
enum pdu_fes {
	FES_HEADER_FIELD = 1, /* FEI: byte offset of the lowest bad field */
	FES_SEQUENCE = 2,
	FES_HEADER_DIGEST = 3, /* FEI: the digest as received */
	FES_OUT_OF_RANGE = 4,
	FES_LIMIT = 5,	     /* too much data */
	FES_UNSUPPORTED = 6, /* FEI: byte offset of the parameter */
};

#define PDU_DIGEST_LEN	4
#define PDU_HDR_MAX	128 /* longest header (ICReq), and most that a TermReq quotes */
#define PDU_PDA_MAX	31  /* HPDA, CPDA: data alignment in dwords, 0's based */
#define PDU_TERM_MAX	(24 + PDU_HDR_MAX)
#define PDU_MAX_H2CDATA (1u << 20) /* MAXH2CDATA in our ICResp: the most data in one H2CData */

struct pdu_hdr {
	uint8_t type;
	uint8_t flags;
	uint8_t hlen;
	uint8_t pdo;
	__le32 plen;
};
static_assert(sizeof(struct pdu_hdr) == 8, "");

struct pdu_icreq {
	struct pdu_hdr h;
	__le16 pfv;
	uint8_t hpda;
	uint8_t dgst;
	__le32 maxr2t; /* 0's based */
	uint8_t rsvd[112];
};
static_assert(sizeof(struct pdu_icreq) == 128, "");

struct pdu_icresp {
	struct pdu_hdr h;
	__le16 pfv;
	uint8_t cpda;
	uint8_t dgst;
	__le32 maxh2cdata;
	uint8_t rsvd[112];
};
static_assert(sizeof(struct pdu_icresp) == 128, "");

/* H2CTermReq and C2HTermReq; the faulty header follows. */
struct pdu_term {
	struct pdu_hdr h;
	__le16 fes;
	__le16 fei_lo; /* FEI stands at offset 10, unaligned */
	__le16 fei_hi;
	uint8_t rsvd[10];
};
static_assert(sizeof(struct pdu_term) == 24, "");

struct pdu_cmd {
	struct pdu_hdr h;
	struct nvme_sqe sqe;
};
static_assert(sizeof(struct pdu_cmd) == 72, "");

struct pdu_resp {
	struct pdu_hdr h;
	struct nvme_cqe cqe;
};
static_assert(sizeof(struct pdu_resp) == 24, "");

struct pdu_r2t {
	struct pdu_hdr h;
	uint16_t cccid;
	uint16_t ttag;
	__le32 r2to;
	__le32 r2tl;
	uint8_t rsvd[4];
};
static_assert(sizeof(struct pdu_r2t) == 24, "");

/* H2CData, and C2HData (there TTAG is reserved). */
struct pdu_data {
	struct pdu_hdr h;
	uint16_t cccid;
	uint16_t ttag;
	__le32 datao;
	__le32 datal;
	uint8_t rsvd[4];
};
static_assert(sizeof(struct pdu_data) == 24, "");

/* The state of a connection that header validation depends on. */
struct pdu_ctx {
	bool ready; /* ICReq was received */
	bool hdgst; /* negotiated */
	bool ddgst;
	uint8_t cpda; /* from our ICResp: the host's data is aligned to (cpda + 1) * 4 bytes */
	uint32_t max_capsule; /* bytes of data a command capsule may hold */
	uint32_t max_h2cdata; /* bytes of data an H2CData may hold */
};

struct pdu_verdict {
	enum { PDU_OK, PDU_FATAL, PDU_HANGUP } what;
	uint16_t fes; /* PDU_FATAL: for the C2HTermReq */
	uint32_t fei;
};

/*
 * Validates the first HAVE bytes of a header: first the 8 bytes of the common header, then all HLEN
 * bytes. PDU_HANGUP: close the connection without a TermReq, because the PDU is an invalid TermReq.
 */
struct pdu_verdict pdu_check(const struct pdu_ctx *ctx, const void *hdr, size_t have);

/* For a valid header: */
uint32_t pdu_data_off(const struct pdu_ctx *ctx,
		      const struct pdu_hdr *h); /* bytes before the data */
uint32_t pdu_data_len(const struct pdu_ctx *ctx, const struct pdu_hdr *h);

/* The offset of a PDU's data, for a header of LEN bytes including its digest and alignment PDA. */
static inline uint32_t pdu_align(uint32_t len, uint8_t pda)
{
	uint32_t unit = (pda + 1u) * 4;

	return (len + unit - 1) / unit * unit;
}

/* The name of any FES that a peer may send. */
const char *pdu_fes_name(uint16_t fes);

#endif
