/* SPDX-License-Identifier: MIT */
/*
 * A small blocking NVMe/TCP initiator for the tests. It shares no code with the product, so that
 * a mistake made in one is not made in the other too: PDU structs and CRC-32C are its own. Only
 * the names of target/nvme.h are common.
 *
 * Every function that talks returns an int: 0 for success; above 0 the status the target answered
 * (SCT and SC, 11 bits, as in NVME_SCT_SPECIFIC | code); below 0 what happened to the connection:
 *
 *	-ETIMEDOUT	the target said nothing for HOST_TIMEOUT_MS
 *	-ENOTCONN	it closed the connection
 *	-ECONNABORTED	it sent a C2HTermReq: queue->term says which
 *	-EPROTO		it broke the protocol: queue->err says how
 *
 * Threads: a queue belongs to one thread at a time.
 */
#ifndef HOST_H
#define HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "nvme.h"

/* PDU types, NVMe/TCP 1.0, 3.6 */
enum host_pdu {
	HOST_ICREQ,
	HOST_ICRESP,
	HOST_H2C_TERM,
	HOST_C2H_TERM,
	HOST_CAPSULE_CMD,
	HOST_CAPSULE_RESP,
	HOST_H2C_DATA,
	HOST_C2H_DATA,
	HOST_R2T = 9,
};

#define HOST_F_HDGST   0x01
#define HOST_F_DDGST   0x02
#define HOST_F_LAST    0x04
#define HOST_F_SUCCESS 0x08

struct host_ch {
	uint8_t type;
	uint8_t flags;
	uint8_t hlen;
	uint8_t pdo;
	__le32 plen;
};

struct host_ic_pdu { /* ICReq and ICResp */
	struct host_ch ch;
	__le16 pfv;
	uint8_t pda;
	uint8_t dgst;
	__le32 max; /* MAXR2T, MAXH2CDATA */
	uint8_t rsvd[112];
};
static_assert(sizeof(struct host_ic_pdu) == 128, "");

struct host_cmd_pdu {
	struct host_ch ch;
	struct nvme_sqe sqe;
};
static_assert(sizeof(struct host_cmd_pdu) == 72, "");

struct host_resp_pdu {
	struct host_ch ch;
	struct nvme_cqe cqe;
};
static_assert(sizeof(struct host_resp_pdu) == 24, "");

struct host_data_pdu { /* H2CData, C2HData and R2T */
	struct host_ch ch;
	uint16_t cid;
	uint16_t ttag;
	__le32 off;
	__le32 len;
	uint8_t rsvd[4];
};
static_assert(sizeof(struct host_data_pdu) == 24, "");

struct host_term_pdu {
	struct host_ch ch;
	__le16 fes;
	uint8_t fei[4]; /* little endian, unaligned */
	uint8_t rsvd[10];
};
static_assert(sizeof(struct host_term_pdu) == 24, "");

/* What to ask for in ICReq. All zero is what Linux asks for. */
struct host_ic {
	bool hdgst, ddgst;
	uint8_t hpda;
	uint32_t maxr2t; /* 0-based */
};

/* What a C2HTermReq said. */
struct host_term {
	uint16_t fes;
	uint32_t fei;
	uint32_t plen;
	uint8_t header[128]; /* the PDU header it complains about */
};

enum host_dir { HOST_NONE, HOST_WRITE, HOST_READ };

/* One command and how it ended. The caller keeps it, and buf, until it is reaped. */
struct host_io {
	struct nvme_sqe sqe; /* cid and dptr are filled in by host_submit() */
	enum host_dir dir;
	void *buf;
	uint32_t len;
	bool by_r2t;	/* although it would fit into the capsule */
	bool raw_dptr;	/* leave sqe.dptr as it is */
	bool bad_ddgst; /* send a wrong data digest with the first data */
	uint32_t chunk; /* largest H2CData to send; 0: what the target takes */
	struct nvme_cqe cqe;
	int status; /* SCT and SC, after the command ended */
	bool dnr;
	bool no_cqe;	/* ended by C2HData with SUCCESS */
	uint32_t moved; /* bytes of data so far */
	uint32_t r2ts;	/* R2Ts received */
	uint32_t datas; /* C2HData PDUs received */
	bool busy;
	uint64_t tag; /* the caller's */
};

#define HOST_DEPTH 128

struct host_queue {
	int fd;
	uint16_t qid;
	uint16_t next_cid;
	uint16_t sqhd; /* as the last response had it */
	bool hdgst, ddgst;
	bool sqflow_off;
	bool bad_hdgst;	    /* send the next command with a wrong header digest */
	uint8_t hpda, cpda; /* alignment of PDO is (n + 1) * 4 */
	uint32_t maxr2t;    /* 1-based */
	uint32_t maxh2cdata;
	uint32_t icd; /* bytes of in-capsule data the queue takes */
	uint32_t nr_busy;
	struct host_io *busy[HOST_DEPTH];
	struct host_term term;
	char err[160];
	/* The last PDU: header, and data without padding and digests. */
	struct host_ch ch;
	uint8_t head[128];
	uint8_t *data;
	uint32_t data_len, data_size;
};

uint32_t host_crc32c(const void *buf, size_t len);
/* Fills BUF, which stands at byte OFF of the disk, with what SEED gives there; OFF % 8 == 0. */
void host_pattern(void *buf, size_t len, uint64_t off, uint64_t seed);

/* Connection: TCP, then ICReq and ICResp (both: host_open). On failure the queue is closed. */
#define HOST_TIMEOUT_MS 20000
int host_dial(struct host_queue *q, const char *addr, const char *port);
int host_icreq(struct host_queue *q, const struct host_ic *ic);
int host_open(struct host_queue *q, const char *addr, const char *port, const struct host_ic *ic);
void host_close(struct host_queue *q);
/* How long a send or a receive may take, instead of HOST_TIMEOUT_MS. */
int host_set_timeout(struct host_queue *q, int ms);

/* Raw bytes and PDUs, to break rules with. */
int host_send_raw(struct host_queue *q, const void *buf, size_t len);
int host_recv_raw(struct host_queue *q, void *buf, size_t len);
int host_recv_pdu(struct host_queue *q); /* into ch, head, data; term for a C2HTermReq */
/* Builds and sends a PDU, with the digests agreed on and data aligned as the target asked. */
int host_send_pdu(struct host_queue *q, void *head, uint32_t hlen, const void *data, uint32_t len,
		  bool bad_ddgst);
/* Reads until the target has closed the connection: 0, or -ETIMEDOUT. */
int host_wait_close(struct host_queue *q);

/* Commands. host_reap() waits for any command to end; host_cmd() is the two in one. */
int host_submit(struct host_queue *q, struct host_io *io);
int host_reap(struct host_queue *q, struct host_io **done);
int host_cmd(struct host_queue *q, struct host_io *io);

struct host_connect {
	uint16_t qid;
	uint16_t sqsize; /* 0-based, as on the wire */
	uint32_t kato;	 /* ms */
	uint16_t recfmt;
	uint8_t cattr;
	struct nvmf_connect_data data;
};
void host_connect_init(struct host_connect *c, uint16_t qid, uint16_t sqsize, const char *nqn,
		       const char *hostnqn, uint16_t cntlid);
/* RESULT (may be NULL) is the 32-bit result: the controller's ID, or IPO and IATTR. */
int host_connect(struct host_queue *q, const struct host_connect *c, uint32_t *result);

int host_prop_get(struct host_queue *q, uint32_t off, bool eight, uint64_t *value);
int host_prop_set(struct host_queue *q, uint32_t off, bool eight, uint64_t value);
int host_enable(struct host_queue *q); /* CC.EN = 1 with all command sets; waits for ready */
int host_identify(struct host_queue *q, uint8_t cns, uint32_t nsid, uint8_t csi, void *buf);
int host_get_log(struct host_queue *q, uint8_t lid, uint32_t nsid, uint8_t csi, uint64_t off,
		 void *buf, uint32_t len);
int host_get_feature(struct host_queue *q, uint8_t fid, uint32_t nsid, uint32_t *result);
int host_set_feature(struct host_queue *q, uint8_t fid, uint32_t nsid, uint32_t value,
		     uint32_t *result);
int host_keep_alive(struct host_queue *q);

/* I/O. The setters fill an io (zeroed first) for host_submit(); the others are synchronous. */
void host_set_rw(struct host_io *io, uint8_t opcode, uint32_t nsid, uint64_t slba, uint32_t blocks,
		 void *buf, uint32_t len);
int host_read(struct host_queue *q, uint32_t nsid, uint64_t slba, uint32_t blocks, void *buf,
	      uint32_t len);
int host_write(struct host_queue *q, uint32_t nsid, uint64_t slba, uint32_t blocks, const void *buf,
	       uint32_t len);
int host_append(struct host_queue *q, uint32_t nsid, uint64_t zslba, uint32_t blocks,
		const void *buf, uint32_t len, uint64_t *alba);
int host_flush(struct host_queue *q, uint32_t nsid);
int host_zone(struct host_queue *q, uint32_t nsid, uint64_t slba, enum nvme_zns_send_action zsa,
	      bool all);
int host_report(struct host_queue *q, uint32_t nsid, uint64_t slba, uint8_t zra, uint8_t zrasf,
		bool partial, void *buf, uint32_t len);

/* An association: an admin queue and its I/O queues, as a host would set it up. */
struct host_ctrl {
	char addr[64], port[16], nqn[224], hostnqn[224];
	struct host_ic ic;
	uint16_t cntlid;
	uint32_t kato;
	uint32_t io_icd; /* bytes an I/O capsule carries, from IOCCSZ */
	struct host_queue admin;
	struct host_queue *io; /* nr_io queues; qid 1 is io[0] */
	uint16_t nr_io;
};
#define HOST_NQN "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000001"
/* HOSTNQN may be NULL (HOST_NQN), IC too. On failure everything is closed. */
int host_attach(struct host_ctrl *c, const char *addr, const char *port, const char *nqn,
		const char *hostnqn, const struct host_ic *ic, uint16_t nr_io, uint32_t kato);
int host_attach_io(struct host_ctrl *c, struct host_queue *q, uint16_t qid);
void host_detach(struct host_ctrl *c);

/* The first NVM subsystem of the discovery log at ADDR, into NQN of 224 bytes. */
int host_discover(const char *addr, const char *port, char *nqn);

#endif
