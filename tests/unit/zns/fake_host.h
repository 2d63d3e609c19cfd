/* SPDX-License-Identifier: MIT */
/*
 * A host without a transport: a loop in a thread, a pool of workers, and commands that are parsed
 * and executed on the loop and awaited by the test's thread.
 */
#ifndef TESTS_ZNS_FAKE_HOST_H
#define TESTS_ZNS_FAKE_HOST_H

#include <semaphore.h>
#include "cmocka_all.h"
#include "store_ram.h"
#include "target.h"
#include "zns.h"

struct host {
	struct workers *pool;
	struct loop *loop;
	pthread_t thread;
	struct tgt_queue queue;
	struct tgt_ns *ns;
	bool zero_copy; /* uses zero-copy where it can */
	uint8_t *stage; /* of a burst, for data in place; NULL: there is none */
};

struct cmd {
	struct tgt_req req;
	struct loop_msg go;
	struct host *host;
	sem_t done;
	bool keeps;    /* its zero-copy data, until cmd_zero_copy_end() */
	void *data;    /* the host's, of req.len bytes when executed; NULL: none */
	size_t length; /* of data; must agree with what the command moves */
};

static void give_back(struct tgt_req *req)
{
	req->ns->set->zero_copy_end(req);
	req->zero_copy = TGT_BUFFERED;
	req->buf = NULL;
}

static void host_respond(struct tgt_req *req)
{
	struct cmd *c = (struct cmd *)req;

	if (c->data && req->dir == TGT_C2H)
		memcpy(c->data, req->buf, req->len);
	if (req->zero_copy && !c->keeps)
		give_back(req);
	if (!req->zero_copy)
		free(req->buf);
	sem_post(&c->done);
}

static void host_disconnect(struct tgt_queue *queue)
{
	(void)queue;
}

static void host_copy_out(struct tgt_queue *queue)
{
	(void)queue;
}

static const struct tgt_transport_ops host_ops = {
	.name = "fake",
	.respond = host_respond,
	.disconnect = host_disconnect,
	.copy_out = host_copy_out,
};

static void *host_thread(void *arg)
{
	loop_run(((struct host *)arg)->loop);
	return NULL;
}

static inline void host_start(struct host *h, struct workers *pool)
{
	h->pool = pool;
	h->zero_copy = false;
	h->stage = NULL;
	h->loop = loop_new(pool);
	assert_non_null(h->loop);
	h->queue = (struct tgt_queue){ .ops = &host_ops, .loop = h->loop };
	STAILQ_INIT(&h->queue.batch);
}

static inline void host_go(struct host *h)
{
	assert_int_equal(pthread_create(&h->thread, NULL, host_thread, h), 0);
}

static inline void host_stop(struct host *h)
{
	loop_stop(h->loop);
	pthread_join(h->thread, NULL);
}

/* On the loop, as a transport would do it. */
static void cmd_go(struct loop_msg *msg)
{
	struct cmd *c = (struct cmd *)((char *)msg - offsetof(struct cmd, go));
	struct tgt_req *req = &c->req;
	uint16_t status;

	req->queue = &c->host->queue;
	req->queue->taken_ms = clock_boot_ms();
	req->ns = c->host->ns;
	status = req->ns->set->parse(req);
	if (status) {
		req->len = 0;
		req->dir = TGT_NONE;
		tgt_req_complete(req, status);
		return;
	}
	if (req->dir == TGT_C2H && c->host->zero_copy && req->ns->set->zero_copy(req)) {
		req->zero_copy = TGT_ZERO_COPY;
		tgt_req_complete(req, 0);
		return;
	}
	if (req->dir == TGT_H2C && c->host->zero_copy && req->ns->set->zero_copy(req))
		req->zero_copy = TGT_ZERO_COPY;
	if (req->len) {
		if (!req->zero_copy) {
			req->buf = malloc(req->len); /* not zeroed: what is not filled shows */
			memset(req->buf, 0xdd, req->len);
		}
		if (c->length != req->len)
			abort();
		if (req->dir == TGT_H2C && req->may_batch && c->host->stage) {
			req->in_place = memcpy(c->host->stage, c->data, req->len);
			c->host->stage += req->len;
		} else if (req->dir == TGT_H2C) {
			memcpy(req->buf, c->data, req->len);
		}
	}
	tgt_req_execute(req);
}

static inline void cmd_init(struct cmd *c, uint8_t opcode, uint64_t slba, uint32_t cdw12,
			    uint32_t cdw13)
{
	memset(c, 0, sizeof(*c));
	c->req.cmd.opcode = opcode;
	c->req.cmd.cdw10 = htole32((uint32_t)slba);
	c->req.cmd.cdw11 = htole32((uint32_t)(slba >> 32));
	c->req.cmd.cdw12 = htole32(cdw12);
	c->req.cmd.cdw13 = htole32(cdw13);
	sem_init(&c->done, 0, 0);
}

static inline void cmd_send(struct host *h, struct cmd *c)
{
	c->host = h;
	c->go.fn = cmd_go;
	loop_post(h->loop, &c->go);
}

static void cmd_returns(struct loop_msg *msg)
{
	struct cmd *c = (struct cmd *)((char *)msg - offsetof(struct cmd, go));

	give_back(&c->req);
	sem_post(&c->done);
}

/* Ends a command that keeps its zero-copy data, with HOW the transfer went. */
static inline void cmd_zero_copy_end(struct cmd *c, enum tgt_data_path how)
{
	c->req.zero_copy = how;
	c->go.fn = cmd_returns;
	sem_init(&c->done, 0, 0);
	loop_post(c->host->loop, &c->go);
	while (sem_wait(&c->done))
		;
	sem_destroy(&c->done);
}

#define BURST_DATA 8192u /* bytes a command, at most */

/* N commands that came in one wake-up. */
struct burst {
	struct loop_msg go;
	struct host *host;
	struct cmd *cmds;
	unsigned int n;
};

static void burst_go(struct loop_msg *msg)
{
	struct burst *b = (struct burst *)((char *)msg - offsetof(struct burst, go));
	struct host *h = b->host;
	struct tgt_queue *queue = &h->queue;
	size_t room = b->n * (size_t)BURST_DATA;
	uint8_t *stage = malloc(room);

	assert_non_null(stage);
	h->stage = stage;
	queue->batching = true;
	for (unsigned int i = 0; i < b->n; i++)
		cmd_go(&b->cmds[i].go);
	queue->batching = false;
	h->stage = NULL;
	h->ns->set->run_batch(&queue->batch);
	assert_true(STAILQ_EMPTY(&queue->batch));
	memset(stage, 0xee, room); /* the next recv */
	free(stage);
}

static inline void burst_send(struct host *h, struct burst *b, struct cmd *cmds, unsigned int n)
{
	*b = (struct burst){ .go = { .fn = burst_go }, .host = h, .cmds = cmds, .n = n };
	for (unsigned int i = 0; i < n; i++)
		cmds[i].host = h;
	loop_post(h->loop, &b->go);
}

static inline uint16_t cmd_wait(struct cmd *c)
{
	while (sem_wait(&c->done))
		;
	sem_destroy(&c->done);
	return (uint16_t)(le16toh(c->req.cqe.status) >> 1);
}

static inline bool cmd_is_done(struct cmd *c)
{
	int n;

	sem_getvalue(&c->done, &n);
	return n;
}

static inline uint16_t host_run(struct host *h, struct cmd *c, void *data, size_t length)
{
	c->data = data;
	c->length = length;
	cmd_send(h, c);
	return cmd_wait(c);
}

/* A command without data, or that is refused before it moves any. */
static inline uint16_t host_do(struct host *h, uint8_t opcode, uint64_t slba, uint32_t cdw12,
			       uint32_t cdw13)
{
	struct cmd c;

	cmd_init(&c, opcode, slba, cdw12, cdw13);
	return host_run(h, &c, NULL, 0);
}

#define FUA ((uint32_t)NVME_IO_FUA << 16)

static inline uint16_t host_read(struct host *h, uint64_t slba, uint32_t nlb, void *buf)
{
	struct cmd c;

	cmd_init(&c, nvme_cmd_read, slba, nlb - 1, 0);
	return host_run(h, &c, buf, nlb * 512ul);
}

static inline uint16_t host_write(struct host *h, uint64_t slba, uint32_t nlb, void *buf,
				  uint32_t flags)
{
	struct cmd c;

	cmd_init(&c, nvme_cmd_write, slba, (nlb - 1) | flags, 0);
	return host_run(h, &c, buf, nlb * 512ul);
}

static inline uint16_t host_append(struct host *h, uint64_t zslba, uint32_t nlb, void *buf,
				   uint32_t flags, uint64_t *lba)
{
	struct cmd c;
	uint16_t status;

	cmd_init(&c, nvme_zns_cmd_append, zslba, (nlb - 1) | flags, 0);
	status = host_run(h, &c, buf, nlb * 512ul);
	*lba = le64toh(c.req.cqe.result);
	return status;
}

#define ALL 0x100u

static inline uint16_t host_manage(struct host *h, uint64_t slba, uint32_t action)
{
	return host_do(h, nvme_zns_cmd_mgmt_send, slba, 0, action);
}

static inline uint16_t host_flush(struct host *h)
{
	return host_do(h, nvme_cmd_flush, 0, 0, 0);
}

/* One zone's descriptor, by Report Zones. */
static inline struct nvme_zns_desc host_zone(struct host *h, uint64_t slba)
{
	char buf[128];
	struct nvme_zns_desc desc;
	struct cmd c;

	cmd_init(&c, nvme_zns_cmd_mgmt_recv, slba, sizeof(buf) / 4 - 1, 0x10000);
	assert_int_equal(host_run(h, &c, buf, sizeof(buf)), 0);
	memcpy(&desc, buf + 64, sizeof(desc));
	return desc;
}

static inline int zone_state(struct host *h, uint64_t slba)
{
	return host_zone(h, slba).zs >> 4;
}

/* A namespace over a new store in memory, and one host. */
struct bench {
	struct host h;
	struct store_ram *ram;
};

static inline void bench_start_on(struct bench *b, struct store_ram *ram,
				  const struct zns_opts *opts)
{
	char err[200] = "";

	b->ram = ram;
	host_start(&b->h, workers_new(2));
	if (zns_ns_new(&ram->store, opts, b->h.loop, &b->h.ns, err, sizeof(err)))
		fail_msg("%s", err);
	host_go(&b->h);
}

/* Ends the host and the namespace; the store's memory stays. */
static inline void bench_stop(struct bench *b)
{
	host_stop(&b->h);
	workers_free(b->h.pool);
	assert_int_equal(b->h.ns->set->close(b->h.ns), 0);
	loop_free(b->h.loop);
}

static inline void bench_end(struct bench *b)
{
	bench_stop(b);
	ram_free(b->ram);
}

#endif
