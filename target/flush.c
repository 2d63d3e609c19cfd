/* SPDX-License-Identifier: MIT */
/*
 * Flushes all namespaces of a subsystem, for Flush with the broadcast NSID (VWC 11b) and for
 * shutdown. It sends a Flush command to each namespace, on an internal queue that has no
 * connection, so that command sets need no second interface.
 *
 * One allocation holds the queue and one request per namespace; it is freed when the last request
 * has completed. Threads: only the loop that was passed to flush_all().
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "core.h"

struct flush {
	struct tgt_queue queue;
	void (*done)(void *arg, uint16_t status);
	void *arg;
	unsigned int left; /* requests not completed yet, plus one while they are being started */
	uint16_t status;
	struct tgt_req reqs[];
};

static void flush_answered(struct flush *f, uint16_t status)
{
	if (status && !f->status)
		f->status = status;
	if (--f->left)
		return;
	f->done(f->arg, f->status);
	free(f);
}

static void flush_respond(struct tgt_req *req)
{
	struct flush *f = (struct flush *)((char *)req->queue - offsetof(struct flush, queue));

	flush_answered(f, le16toh(req->cqe.status) >> 1);
}

static void flush_disconnect(struct tgt_queue *queue)
{
	(void)queue; /* the queue belongs to no controller, so nobody can disconnect it */
}

static void flush_copy_out(struct tgt_queue *queue)
{
	(void)queue; /* no data is zero-copy to a Flush */
}

static const struct tgt_transport_ops flush_ops = {
	.name = "flush",
	.respond = flush_respond,
	.disconnect = flush_disconnect,
	.copy_out = flush_copy_out,
};

int flush_all(struct tgt_subsys *subsys, struct loop *loop,
	      void (*done)(void *arg, uint16_t status), void *arg)
{
	unsigned int nr = 0, i = 0;
	struct tgt_ns *ns = NULL;
	struct flush *f;

	for (uint32_t nsid = 0; (ns = tgt_ns_next(subsys, nsid)); nsid = ns->nsid)
		nr++;
	f = calloc(1, sizeof(*f) + nr * sizeof(f->reqs[0]));
	if (!f)
		return -ENOMEM;
	tgt_queue_init(&f->queue, subsys->tgt, &flush_ops, loop, NULL);
	f->done = done;
	f->arg = arg;
	f->left = 1;
	for (uint32_t nsid = 0; i < nr && (ns = tgt_ns_next(subsys, nsid)); nsid = ns->nsid) {
		struct tgt_req *req = &f->reqs[i++];
		uint16_t status;

		req->queue = &f->queue;
		req->ns = ns;
		req->cmd.opcode = NVME_CMD_FLUSH;
		f->left++;
		status = ns->set->parse(req);
		if (status)
			flush_answered(f, status);
		else
			req->execute(req);
	}
	flush_answered(f, 0);
	return 0;
}
