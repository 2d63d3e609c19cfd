/* SPDX-License-Identifier: MIT */
/*
 * Read, Write and Zone Append, and how a command of this command set is executed.
 *
 *	zns_parse()		decodes and validates what depends only on the SQE and constants
 *	zns_exec_write()	loop: zone_write_begin() checks the zone and assigns the LBAs; the
 *				store is written at once with NOWAIT; if that would block, by the
 *				loop's ring or by a worker
 *	zns_run_writes()	loop: executes the batch: small writes of one wake-up; those to
 *				adjacent LBAs become one write of the store
 *	zns_writes_end()	loop: zone_writes_end() returns the writes that may now complete
 *	zns_dispatch()		loop: completes, starts or retries the requests, of any loop, that
 *				the zones return
 *	zns_finish()		loop: completes a command, after the next flush if it must be
 *				durable
 *	zns_zero_copy()		loop: a read of data in the page cache is sent from there, without
 *				any of these steps. A large write may be received into reserved
 *				clusters of the store, which are then committed, not written
 *	zns_zero_copy_end()	loop: ends the read, or releases clusters that were not committed
 *
 * Invariants:
 *
 *  1. Between zone_write_begin() and zone_writes_end() the request owns its LBAs. After
 *     zone_writes_end() the zones own the request until zns_dispatch() gets it, possibly in a call
 *     for another request on another loop. So after zone_writes_end() only the list that it
 *     returned may be accessed.
 *  2. A request is completed, started or retried on its own loop; other loops post req->msg to it.
 *  3. A command waits for a worker at most twice: for its data, and for its flush (FUA on a write
 *     that could not be done on the loop).
 *  4. A retried command begins again at tgt_req_execute() and decodes its SQE anew; set_data is
 *     scratch.
 *  5. If the ring moves less than the whole request, a worker repeats the request from its start;
 *     only the worker's path handles errors. A write by the ring is reported to the store (wrote())
 *     before zone_writes_end(), so that no flush misses it.
 *
 * The ring is for images with O_DIRECT, where every read and write waits for the disk; for other
 * images locate() always fails. It takes requests that are aligned and contiguous in the file.
 *
 * Writes go to the page cache and seldom block. A write that takes over a millisecond may have
 * waited for the disk, or was only preempted. So for a second after it, writes are watched: if
 * another slow one gave up the processor to wait (ru_nvcsw), writes go to the workers until
 * slow_until, so that the loop is free for reads.
 */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include "ns.h"

#define WRITE_SLOW_NS  1000000ull    /* an inline write that took longer may have blocked */
#define WRITE_WATCH_NS 1000000000ull /* so long it is then seen whether such writes sleep */
#define WRITE_PACE_NS  200000000ull  /* and the next ones are not tried inline for so long */

#define RUNS	   8 /* of adjacent writes, in one batch */
#define RUN_WRITES 32
#define RUN_PIECE  32768u /* bytes; larger writes gain little from sharing a system call */
static_assert(RUN_WRITES <= AIO_PIECES, "");

#define RW_DTYPE 0x00f00000u /* CDW12: directive type; we have no directives */

static uint32_t req_nlb(const struct tgt_req *req)
{
	return (le32toh(req->cmd.cdw12) & 0xffff) + 1;
}

static uint64_t lba_off(const struct zns *zns, uint64_t lba)
{
	return lba << zns->lba_shift;
}

/* --- the ring --- */

/*
 * Has the ring move LEN bytes between where REQ's LBAs lie and the N pieces of IOV. False: nothing
 * happens, and a worker is to do it.
 */
static bool by_ring(struct tgt_req *req, const struct iovec *iov, int n, uint64_t len,
		    void (*done)(struct aio *))
{
	const struct zns *zns = req_zns(req);
	struct aio *a = &req->aio;

	*a = (struct aio){
		.write = req->dir == TGT_H2C, .iov = iov, .n = n, .len = len, .done = done
	};
	a->fd = zns->store->ops->locate(zns->store, iov, n, lba_off(zns, req_cmd(req)->io.lba), len,
					a->write, &a->off);
	return a->fd >= 0 && aio_submit(req->queue->loop, a);
}

static bool moved_whole(const struct aio *a)
{
	return a->res == (int64_t)a->len;
}

/* --- Write, Zone Append --- */

/* Neighbours on the disk: requests that are written in one go, chained by their links. */
struct write_run {
	struct tgt_reqs reqs;
	int nr;
	uint64_t end; /* LBA behind the last */
};

static void run_add(struct write_run *run, struct tgt_req *req)
{
	const struct zone_io *io = &req_cmd(req)->io;

	STAILQ_INSERT_TAIL(&run->reqs, req, link);
	run->nr++;
	run->end = io->lba + io->nlb;
}

static void run_begin(struct write_run *run, struct tgt_req *req)
{
	STAILQ_INIT(&run->reqs);
	run->nr = 0;
	run_add(run, req);
}

/* Whether REQ continues RUN. A run ends with its zone, as the next LBA belongs to another zone. */
static bool run_continues(const struct write_run *run, const struct tgt_req *req)
{
	uint64_t lba = req_cmd_const(req)->io.lba;

	return lba == run->end && lba & (req_zns(req)->zones.zsze - 1) && run->nr < RUN_WRITES;
}

/* The pieces of FIRST and those chained to it: how many, and in *LEN their bytes. */
static int run_pieces(struct tgt_req *first, struct iovec iov[RUN_WRITES], uint64_t *len)
{
	int n = 0;

	*len = 0;
	for (struct tgt_req *req = first; req; req = STAILQ_NEXT(req, link)) {
		const void *data = req->in_place ? req->in_place : req->buf;

		iov[n++] = (struct iovec){ (void *)(uintptr_t)data, req->len };
		*len += req->len;
	}
	return n;
}

/* Maps the clusters that the data was received into; REQ does not own them any more. */
static int commit(struct tgt_req *req, uint64_t off, unsigned int flags)
{
	struct store *store = req_zns(req)->store;
	int err = store->ops->commit(store, req->buf, off, req->len, flags);

	if (!err)
		req->buf = NULL;
	return err;
}

static int write_store(struct tgt_req *first, unsigned int flags)
{
	const struct zns *zns = req_zns(first);
	uint64_t off = lba_off(zns, req_cmd(first)->io.lba), len;
	struct iovec iov[RUN_WRITES];
	int n = run_pieces(first, iov, &len), err = -EEXIST;

	if (first->zero_copy && n == 1)
		err = commit(first, off, flags);
	if (err == -EEXIST)
		err = zns->store->ops->write(zns->store, iov, n, off, len, flags);
	return err;
}

static void zns_write_work(struct work *w)
{
	struct tgt_req *first = work_req(w);

	/* An errno and no status: zns_write_done() turns it into one. */
	first->status = (uint16_t)-write_store(first, 0);
}

static void zns_write_done(struct work *w);

/* Copies the data of all requests of a run from the receive buffer, which is reused soon. */
static void copy_in_run(struct tgt_req *first)
{
	for (struct tgt_req *req = first; req; req = STAILQ_NEXT(req, link))
		tgt_req_copy_in(req);
}

static void write_by_worker(struct tgt_req *first)
{
	work_submit(first->queue->loop, &first->work, zns_write_work, zns_write_done);
}

/* Ends FIRST and the requests chained to it, which were written or have failed with ERR. */
static void zns_writes_end(struct tgt_req *first, int err)
{
	const uint64_t now = first->queue->taken_ms;
	struct zns *zns = req_zns(first);
	struct zone_io *ios[RUN_WRITES];
	struct zone_items items;
	unsigned int nr = 0;

	for (struct tgt_req *req = first; req; req = STAILQ_NEXT(req, link))
		ios[nr++] = &req_cmd(req)->io;
	zone_items_init(&items);
	zone_writes_end(&zns->zones, ios, nr, store_status(zns, err, true), &items);
	zns_mark_dirty(zns, now);
	zns_dispatch(&items);
}

/* Ends the requests of a run. If several failed, each is repeated to get its own status. */
static void end_run(struct tgt_req *first, int err)
{
	struct tgt_req *req, *next;

	if (!err || !STAILQ_NEXT(first, link)) {
		zns_writes_end(first, err);
		return;
	}
	for (req = first; req; req = next) {
		next = STAILQ_NEXT(req, link);
		STAILQ_NEXT(req, link) = NULL;
		tgt_req_copy_in(req);
		write_by_worker(req);
	}
}

static void zns_write_done(struct work *w)
{
	struct tgt_req *first = work_req(w);

	end_run(first, -(int)first->status);
}

static void zns_write_moved(struct aio *a)
{
	struct tgt_req *first = aio_req(a);
	struct store *store = req_zns(first)->store;

	if (!moved_whole(a)) {
		write_by_worker(first);
		return;
	}
	store->ops->wrote(store);
	end_run(first, 0);
}

static void write_by_ring(struct tgt_req *first)
{
	struct iovec iov[RUN_WRITES];
	uint64_t len;
	int n = run_pieces(first, iov, &len);

	if (!by_ring(first, iov, n, len, zns_write_moved))
		write_by_worker(first);
}

/* How often this thread has given up the processor to wait for something. */
static long sleeps(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) ? 0 : usage.ru_nvcsw;
}

/* Writes on the loop. 0 or -errno; -EAGAIN: it would block, or writes have blocked recently. */
static int write_inline(struct tgt_req *first)
{
	struct zns *zns = req_zns(first);
	uint64_t began = clock_ns(), ended;
	long slept;
	bool watched;
	int err;

	if (began < atomic_load_explicit(&zns->slow_until, memory_order_relaxed))
		return -EAGAIN;
	watched = began < atomic_load_explicit(&zns->watch_until, memory_order_relaxed);
	slept = watched ? sleeps() : 0;
	err = write_store(first, STORE_NOWAIT);
	ended = clock_ns();
	if (ended - began > WRITE_SLOW_NS) {
		if (watched && sleeps() != slept)
			atomic_store_explicit(&zns->slow_until, ended + WRITE_PACE_NS,
					      memory_order_relaxed);
		atomic_store_explicit(&zns->watch_until, ended + WRITE_WATCH_NS,
				      memory_order_relaxed);
	}
	return err;
}

static void write_run(struct write_run *run)
{
	struct tgt_req *first = STAILQ_FIRST(&run->reqs);
	int err = write_inline(first);

	if (err != -EAGAIN) {
		end_run(first, err);
		return;
	}
	copy_in_run(first);
	write_by_ring(first);
}

static void zns_exec_write(struct tgt_req *req)
{
	struct zns *zns = req_zns(req);
	struct zone_io *io = &req_cmd(req)->io;
	struct write_run run;
	uint16_t status;

	io->lba = req_slba(req);
	io->nlb = req_nlb(req);
	status = zone_write_begin(&zns->zones, io, req->cmd.opcode == nvme_zns_cmd_append);
	if (status == ZONE_WAIT) {
		tgt_req_copy_in(req); /* it comes back by a message to this loop */
		return;
	}
	if (status) {
		tgt_req_complete(req, status);
		return;
	}
	if (req->queue->batching && req->len <= RUN_PIECE) {
		STAILQ_INSERT_TAIL(&req->queue->batch, req, link);
		return;
	}
	run_begin(&run, req);
	write_run(&run);
}

/* Builds several runs at a time, for a host that writes to several zones alternately. */
void zns_run_writes(struct tgt_reqs *reqs)
{
	struct write_run runs[RUNS];
	unsigned int nr = 0, next = 0;
	struct tgt_req *req;

	while ((req = STAILQ_FIRST(reqs))) {
		unsigned int i = 0;

		STAILQ_REMOVE_HEAD(reqs, link);
		while (i < nr && !run_continues(&runs[i], req))
			i++;
		if (i < nr) {
			run_add(&runs[i], req);
			continue;
		}
		if (nr < RUNS) {
			i = nr++;
		} else { /* the oldest gives way */
			i = next++ % RUNS;
			write_run(&runs[i]);
		}
		run_begin(&runs[i], req);
	}
	for (unsigned int i = 0; i < nr; i++)
		write_run(&runs[i]);
}

/* --- Read --- */

/* Fills the zones' part of a read that is about to begin. */
static struct zone_io *read_io(struct tgt_req *req)
{
	struct zone_io *io = &req_cmd(req)->io;

	io->lba = req_slba(req);
	io->nlb = req_nlb(req);
	io->loop = loop_index(req->queue->loop);
	return io;
}

/* REQ is in its zones no more; that may let others begin. */
static void end_read(struct tgt_req *req)
{
	struct zone_items items;

	zone_items_init(&items);
	zone_read_end(&req_zns(req)->zones, &req_cmd(req)->io, &items);
	zns_dispatch(&items);
}

static void zns_read_end(struct tgt_req *req, int err)
{
	end_read(req);
	tgt_req_complete(req, store_status(req_zns(req), err, false));
}

/*
 * Zone by zone: what has been written comes from the store, the rest is zeroes (OZCS: reads may
 * cross zones). A read of LBAs being written meanwhile may see either.
 */
static int read_store(struct tgt_req *req, unsigned int flags)
{
	struct zns *zns = req_zns(req);
	uint64_t lba = req_cmd(req)->io.lba;
	uint32_t left = req_cmd(req)->io.nlb;
	char *buf = req->buf;
	int err;

	while (left) {
		uint32_t valid, span = zone_read_span(&zns->zones, lba, left, &valid);
		uint64_t bytes = lba_off(zns, valid);

		if (valid) {
			err = zns->store->ops->read(zns->store, buf, lba_off(zns, lba), bytes,
						    flags);
			if (err)
				return err;
		}
		memset(buf + bytes, 0, lba_off(zns, span) - bytes);
		buf += lba_off(zns, span);
		lba += span;
		left -= span;
	}
	return 0;
}

static void zns_read_work(struct work *w)
{
	struct tgt_req *req = work_req(w);

	req->status = (uint16_t)-read_store(req, 0);
}

static void zns_read_done(struct work *w)
{
	struct tgt_req *req = work_req(w);

	zns_read_end(req, -(int)req->status);
}

static void read_by_worker(struct tgt_req *req)
{
	work_submit(req->queue->loop, &req->work, zns_read_work, zns_read_done);
}

static void zns_read_moved(struct aio *a)
{
	struct tgt_req *req = aio_req(a);

	if (moved_whole(a))
		zns_read_end(req, 0);
	else
		read_by_worker(req);
}

/* Unless a part of it lies in another zone, or is not written. */
static void read_by_ring(struct tgt_req *req)
{
	const struct zone_io *io = &req_cmd(req)->io;
	struct iovec iov = { req->buf, req->len };
	uint32_t valid;

	zone_read_span(&req_zns(req)->zones, io->lba, io->nlb, &valid);
	if (valid < io->nlb || !by_ring(req, &iov, 1, req->len, zns_read_moved))
		read_by_worker(req);
}

static void zns_exec_read(struct tgt_req *req)
{
	struct zone_items items;
	uint16_t status;
	int err;

	zone_items_init(&items);
	status = zone_read_begin(&req_zns(req)->zones, read_io(req), &items);
	zns_dispatch(&items);
	if (status == ZONE_WAIT)
		return;
	if (status) {
		tgt_req_complete(req, status);
		return;
	}
	err = read_store(req, STORE_NOWAIT);
	if (err == -EAGAIN)
		read_by_ring(req);
	else
		zns_read_end(req, err);
}

static uint32_t req_zone(const struct tgt_req *req)
{
	return (uint32_t)(req_slba(req) / req_zns(req)->zones.zsze);
}

/* Reserves clusters of the store for the data of a write. False: the write needs a buffer. */
static bool reserve_for_write(struct tgt_req *req)
{
	struct store *store = req_zns(req)->store;

	req->buf = store->ops->reserve(store, req_zone(req), req->len);
	return req->buf;
}

bool zns_zero_copy(struct tgt_req *req)
{
	struct zns *zns = req_zns(req);
	struct zone_items items;
	const void *data;
	bool begun;

	if (atomic_load_explicit(&zns->no_zero_copy, memory_order_relaxed))
		return false;
	if (req->dir == TGT_H2C)
		return reserve_for_write(req);
	if (req->cmd.opcode != nvme_cmd_read)
		return false;
	zone_items_init(&items);
	begun = zone_read_try(&zns->zones, read_io(req), &items);
	zns_dispatch(&items);
	if (!begun)
		return false;
	data = zns->store->ops->peek(zns->store, lba_off(zns, req_slba(req)), req->len);
	if (!data) {
		end_read(req);
		return false;
	}
	req->buf = (void *)(uintptr_t)data;
	return true;
}

void zns_zero_copy_end(struct tgt_req *req)
{
	struct zns *zns = req_zns(req);

	if (req->zero_copy == TGT_FAULTED &&
	    !atomic_exchange_explicit(&zns->no_zero_copy, true, memory_order_relaxed))
		log_err("namespace %u: data of the image could not be %s", zns->ns.nsid,
			req->dir == TGT_H2C ? "received into its file" : "read while it was sent");
	if (req->dir == TGT_C2H)
		end_read(req);
	else if (req->buf)
		zns->store->ops->release(zns->store, req_zone(req), req->buf, req->len);
}

int zns_copy_out(struct tgt_req *req, void *buf)
{
	const struct zns *zns = req_zns(req);

	/* In the page cache a moment ago: it seldom blocks. */
	return zns->store->ops->read(zns->store, buf, lba_off(zns, req_cmd(req)->io.lba), req->len,
				     0);
}

/* --- parse --- */

/* Read, Write, Append: the length, the range, and fields that need what we do not have. */
static uint16_t parse_rw(struct tgt_req *req, enum tgt_dir dir, void (*execute)(struct tgt_req *))
{
	const struct zns *zns = req_zns(req);
	uint64_t len = (uint64_t)req_nlb(req) << zns->lba_shift;
	uint16_t status;

	if (len > TGT_MAX_TRANSFER || (dir == TGT_H2C && le32toh(req->cmd.cdw12) & RW_DTYPE))
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (dir == TGT_H2C && req->ns->read_only)
		return NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR;
	status = zns_check_range(zns, req_slba(req), req_nlb(req));
	if (status)
		return status;
	req->execute = execute;
	req->dir = dir;
	req->len = (uint32_t)len;
	req->may_batch = dir == TGT_H2C && len <= RUN_PIECE;
	return 0;
}

/* ZASL is 0, so the limit is MDTS; protection information there is none, nor its remapping. */
static uint16_t parse_append(struct tgt_req *req)
{
	const struct zns *zns = req_zns(req);

	if (le32toh(req->cmd.cdw12) >> 16 & NVME_IO_ZNS_APPEND_PIREMAP)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (req_slba(req) & (zns->zones.zsze - 1))
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	return parse_rw(req, TGT_H2C, zns_exec_write);
}

uint16_t zns_parse(struct tgt_req *req)
{
	req->dir = TGT_NONE;
	req->len = 0;
	switch (req->cmd.opcode) {
	case nvme_cmd_flush:
		req->execute = zns_exec_flush;
		return 0;
	case nvme_cmd_read:
		return parse_rw(req, TGT_C2H, zns_exec_read);
	case nvme_cmd_write:
		return parse_rw(req, TGT_H2C, zns_exec_write);
	case nvme_zns_cmd_append:
		return parse_append(req);
	case nvme_zns_cmd_mgmt_send:
		return zns_parse_mgmt_send(req);
	case nvme_zns_cmd_mgmt_recv:
		return zns_parse_mgmt_recv(req);
	default: /* ONCS is 0 */
		return NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
	}
}
