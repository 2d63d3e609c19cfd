/* SPDX-License-Identifier: MIT */
/*
 * The specification's structures as C types: those of libnvme, and our own for the queue entries
 * that libnvme lacks. This is the only file that includes libnvme's headers, because later versions
 * rename things. All fields are little-endian.
 */
#ifndef TARGET_NVME_H
#define TARGET_NVME_H

#include <assert.h>
#include <endian.h>
#include <stdint.h>
#include <nvme/types.h>

/* NVMe Base 2.0, figure 86: SGL Data Block descriptors, the only ones that NVMe/TCP allows. */
struct nvme_sgl_desc {
	__le64 addr;
	__le32 length;
	uint8_t rsvd[3];
	uint8_t type; /* type << 4 | subtype */
};
static_assert(sizeof(struct nvme_sgl_desc) == 16, "");

#define NVME_SGL_OFFSET	   0x01 /* data block, offset: in-capsule */
#define NVME_SGL_TRANSPORT 0x5a /* transport data block: R2T, C2HData */

/* Common Command Format, NVMe Base 2.0, figure 87. */
struct nvme_sqe {
	uint8_t opcode;
	uint8_t flags; /* FUSE in 1:0, PSDT in 7:6 */
	uint16_t cid;  /* opaque: returned as it came */
	__le32 nsid;
	__le32 cdw2;
	__le32 cdw3;
	__le64 mptr;
	struct nvme_sgl_desc dptr;
	__le32 cdw10;
	__le32 cdw11;
	__le32 cdw12;
	__le32 cdw13;
	__le32 cdw14;
	__le32 cdw15;
};
static_assert(sizeof(struct nvme_sqe) == 64, "");

#define NVME_SQE_FUSE	  0x03
#define NVME_SQE_PSDT	  0xc0
#define NVME_SQE_PSDT_SGL 0x40 /* SGL, contiguous metadata: what NVMe/TCP uses */

/* Completion Queue Entry, NVMe Base 2.0, figure 89, with the Fabrics meaning of DW2. */
struct nvme_cqe {
	__le64 result; /* DW0 and DW1 */
	__le16 sqhd;
	__le16 sqid;
	uint16_t cid;
	__le16 status; /* status << 1; no phase tag on fabrics */
};
static_assert(sizeof(struct nvme_cqe) == 16, "");

/* Fabrics Connect, NVMe Base 2.0, figure 357; overlays struct nvme_sqe. */
struct nvmf_connect_sqe {
	uint8_t opcode;
	uint8_t flags;
	uint16_t cid;
	uint8_t fctype;
	uint8_t rsvd5[19];
	struct nvme_sgl_desc dptr;
	__le16 recfmt;
	__le16 qid;
	__le16 sqsize;
	uint8_t cattr;
	uint8_t rsvd47;
	__le32 kato;
	uint8_t rsvd52[12];
};
static_assert(sizeof(struct nvmf_connect_sqe) == 64, "");

/* Fabrics Property Get and Set, NVMe Base 2.0, figures 362 to 365. */
struct nvmf_property_sqe {
	uint8_t opcode;
	uint8_t flags;
	uint16_t cid;
	uint8_t fctype;
	uint8_t rsvd5[35];
	uint8_t attrib; /* 2:0: 0 for 4 bytes, 1 for 8 */
	uint8_t rsvd41[3];
	__le32 offset;
	__le64 value;
	uint8_t rsvd56[8];
};
static_assert(sizeof(struct nvmf_property_sqe) == 64, "");

static_assert(sizeof(struct nvme_id_ctrl) == 4096, "");
static_assert(sizeof(struct nvme_id_ns) == 4096, "");
static_assert(sizeof(struct nvme_zns_id_ns) == 4096, "");
static_assert(sizeof(struct nvmf_connect_data) == 1024, "");
static_assert(sizeof(struct nvme_zns_desc) == 64, "");

/* Status code types, shifted: libnvme 1.3 has the status codes of ZNS without theirs. */
#define NVME_SCT_SPECIFIC   0x100
#define NVME_ZNS_STATUS(sc) (NVME_SCT_SPECIFIC | (sc))

#endif
