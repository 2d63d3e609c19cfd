// SPDX-License-Identifier: MIT
/*
 * A connection on its loop: receives, sends, and ends.
 *
 *	OPEN --shutdown--> DRAIN --quiet--> LINGER --> CLOSED --no command in flight--> freed
 *	OPEN --protocol error, ops->disconnect--> LINGER
 *	any --end of file, socket error, timeout--> CLOSED
 *
 * OPEN receives and sends. DRAIN receives nothing more and waits for commands in flight. In LINGER
 * the target has closed the queue; the connection sends what remains (a TermReq), shuts down the
 * write side, and discards what it receives until the host closes: closing with unread data would
 * reset the connection, and the host could lose the TermReq. CLOSED has no socket any more.
 *
 * 1. A connection belongs to one loop. It is freed only by peer_reap(), a message to its own loop
 *    that is posted once, when it is CLOSED and has no command in flight. All other messages to it
 *    were posted before that, and messages are handled in order.
 * 2. PDUs are not sent where they are queued: conn->wake() only notes that there are some. What a
 *    connection received leads to is sent in one sendmsg when it has received all, before the loop
 *    turns to the next connection. Responses that come by messages wait on the loop's dirty list
 *    for one event, which runs after those that are active now.
 * 3. EV_READ is armed while rx_want() is not 0, EV_WRITE while the socket is full; see arm().
 * 4. A connection whose host is late with its part in a command, sending data or taking the
 *    response, is closed (conn_tick()).
 *
 * Threads: tcp_disconnect() from any; the rest on the connection's loop.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include "peer.h"

/* Bytes per wake-up and connection: few, so that the first responses leave early. */
#define READ_BUDGET (64u << 10)
#define SEND_BUDGET (1u << 20)
#define SEND_PIECES 128
#define BYE_MS	    500 /* for the host to close after a disconnect */

static struct peer *conn_peer(struct conn *c)
{
	return (struct peer *)c; /* its first member */
}

static void peer_release_pending(struct peer *p)
{
	quota_give(p->loop->tcp, p->pending);
	p->pending = NULL;
}

/* ---- the end of a connection ---- */

static void peer_free(struct peer *p)
{
	struct tcp_server *tcp = p->loop->tcp;

	peer_release_pending(p);
	quota_give(tcp, p->of_host);
	if (p->fd >= 0)
		close(p->fd);
	if (p->rd)
		event_free(p->rd);
	if (p->wr)
		event_free(p->wr);
	loop_timer_free(&p->timer);
	atomic_fetch_sub(&tcp->conns, 1);
	free(p);
}

static void peer_reap(struct loop_msg *msg)
{
	struct peer *p = msg_owner(msg, struct peer, reap_msg);
	struct tcp_loop *tl = p->loop;

	if (p->dirty)
		TAILQ_REMOVE(&tl->dirty, p, dirty_link);
	LIST_REMOVE(p, link);
	conn_fini(&p->conn);
	peer_free(p);
	tcp_loop_left(tl);
}

static void try_reap(struct peer *p)
{
	if (p->state != PEER_CLOSED || p->conn.queue.inflight || p->reaping)
		return;
	p->reaping = true;
	p->reap_msg.fn = peer_reap;
	loop_post(p->loop->loop, &p->reap_msg);
}

/* Receives and discards, up to a budget. 0: no more for now; else -errno. */
static int discard(struct peer *p)
{
	uint8_t trash[4096];
	ssize_t n;

	for (unsigned int i = 0; i < READ_BUDGET / sizeof(trash); i++) {
		n = recv(p->fd, trash, sizeof(trash), MSG_DONTWAIT);
		if (!n)
			return -ECONNRESET;
		if (n < 0 && errno != EINTR)
			return errno == EAGAIN ? 0 : -errno;
	}
	return 0;
}

static void peer_close(struct peer *p)
{
	if (p->state == PEER_CLOSED)
		return;
	p->state = PEER_CLOSED;
	conn_kill(&p->conn);
	tx_drop(&p->conn, true);
	loop_timer_disarm(&p->timer);
	event_del(p->rd);
	event_del(p->wr);
	p->reading = p->writing = false;
	discard(p);
	close(p->fd);
	p->fd = -1;
	peer_release_pending(p);
	log_debug("%s: closed", p->conn.name);
	try_reap(p);
}

static void peer_linger(struct peer *p, uint32_t ms)
{
	if (p->state >= PEER_LINGER)
		return;
	p->state = PEER_LINGER;
	conn_kill(&p->conn);
	peer_release_pending(p);
	if (loop_timer_arm(&p->timer, ms))
		peer_close(p); /* no timer would end the linger */
	else
		p->conn.wake(&p->conn);
}

/* Ends P after an error of rx_got() or rx_resume(), or -ESHUTDOWN: the controller has ended. */
static void peer_fail(struct peer *p, int err)
{
	if (err == -EPROTO)
		peer_linger(p, p->loop->tcp->config.linger_ms);
	else if (err == -ESHUTDOWN)
		peer_linger(p, BYE_MS);
	else
		peer_close(p);
}

static void peer_timeout(struct loop_timer *t)
{
	struct peer *p = msg_owner(t, struct peer, timer);

	if (p->state == PEER_OPEN)
		log_info("%s: no Connect in time: closing", p->conn.name);
	peer_close(p);
}

/* ---- receive and send ---- */

static void arm(struct peer *p)
{
	const struct rx *rx = &p->conn.rx;
	bool read, write;

	if (p->state == PEER_CLOSED)
		return;
	if (p->state == PEER_OPEN && (p->conn.waits || rx->slot))
		tcp_loop_watch(p->loop);
	read = p->state == PEER_LINGER ||
	       (p->state == PEER_OPEN && rx->state != RX_STOPPED && rx->block == RX_RUNS);
	write = p->full && tx_pending(&p->conn);
	if (read != p->reading)
		(read ? event_add(p->rd, NULL) : event_del(p->rd));
	if (write != p->writing)
		(write ? event_add(p->wr, NULL) : event_del(p->wr));
	p->reading = read;
	p->writing = write;
}

/*
 * Receives until the socket is empty, rx wants no more, or the budget is spent. 0, an error of
 * rx_got(), or -ESHUTDOWN. tgt_queue_batch_begin() reads the clock after each readv(), and most
 * wake-ups have one: data that waited in the socket while this thread did not run counts as
 * received when it runs again.
 */
static int receive_some(struct peer *p)
{
	size_t total = 0, wanted;
	ssize_t n;
	int err;

	do {
		struct iovec iov[2];
		int pieces;

		if (total) /* before the staging buffer is reused */
			tgt_queue_batch_end(&p->conn.queue);
		pieces = rx_want(&p->conn, iov);
		if (!pieces)
			return 0;
		wanted = iov[0].iov_len + (pieces > 1 ? iov[1].iov_len : 0);
		n = readv(p->fd, iov, pieces);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return 0;
		if (n < 0) {
			if (errno == EFAULT)
				rx_unwritable(&p->conn);
			log_info("%s: %s", p->conn.name, strerror(errno));
		}
		if (n <= 0)
			return -ECONNRESET;
		if (!tgt_queue_batch_begin(&p->conn.queue))
			return -ESHUTDOWN;
		err = rx_got(&p->conn, (size_t)n);
		total += (size_t)n;
	} while (!err && (size_t)n == wanted && total < READ_BUDGET && p->state == PEER_OPEN);
	return err;
}

/* Calls ANY, which receives commands, and then executes the batch of their writes. */
static void peer_take(struct peer *p, int (*any)(struct peer *p))
{
	int err = any(p);

	tgt_queue_batch_end(&p->conn.queue);
	if (err)
		peer_fail(p, err);
}

static void peer_readable(evutil_socket_t fd, short what, void *arg)
{
	struct peer *p = arg;

	(void)fd;
	(void)what;
	loop_note_activity(p->loop->loop);
	if (p->state == PEER_LINGER) {
		if (discard(p))
			peer_close(p);
	} else if (p->state == PEER_OPEN) {
		p->receiving = true;
		peer_take(p, receive_some);
		p->receiving = false;
	}
	if (!p->woken) {
		arm(p);
		return;
	}
	p->woken = false;
	peer_flush(p);
}

bool peer_tick(struct peer *p)
{
	enum conn_wait wait = p->state == PEER_OPEN ? conn_tick(&p->conn) : CONN_IDLE;

	if (wait == CONN_LATE) {
		log_info("%s: the host neither sends the data of a command nor takes its response "
			 "for %u s: closing",
			 p->conn.name, p->loop->tcp->config.host_ms / 1000);
		peer_close(p);
	}
	p->conn.waits = wait == CONN_WAITS;
	return p->conn.waits;
}

/* Notes that the socket is full. Queued responses hold buffers, so their time is watched. */
static void peer_full(struct peer *p)
{
	p->full = true;
	p->conn.waits = true;
}

static void peer_send(struct peer *p)
{
	struct iovec iov[SEND_PIECES];
	struct msghdr msg = { .msg_iov = iov };
	size_t total = 0;
	ssize_t n;

	p->full = false;
	while ((n = tx_iov(&p->conn, iov, SEND_PIECES))) {
		msg.msg_iovlen = (size_t)n;
		if (total < SEND_BUDGET)
			n = sendmsg(p->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		else
			n = -1, errno = EAGAIN; /* budget spent: let other connections send */
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			peer_full(p);
			return;
		}
		if (n < 0) {
			if (errno == EFAULT)
				tx_unreadable(&p->conn);
			log_info("%s: %s", p->conn.name, strerror(errno));
			peer_close(p);
			return;
		}
		total += (size_t)n;
		tx_sent(&p->conn, (size_t)n);
	}
	if (p->state == PEER_LINGER && !p->shut) {
		shutdown(p->fd, SHUT_WR);
		p->shut = true;
	}
}

static int resume(struct peer *p)
{
	if (!tgt_queue_batch_begin(&p->conn.queue))
		return -ESHUTDOWN;
	return rx_resume(&p->conn);
}

void peer_flush(struct peer *p)
{
	if (p->state == PEER_OPEN && rx_has_staged(&p->conn))
		peer_take(p, resume);
	if (p->state != PEER_CLOSED)
		peer_send(p);
	if (p->conn.tx.zero_copy)
		tcp_loop_look_for_faults(p->loop);
	p->conn.tx.zero_copy = false;
	tcp_loop_trim_later(p->loop);
	if (p->state == PEER_DRAIN && conn_quiet(&p->conn))
		peer_linger(p, BYE_MS);
	arm(p);
}

static void peer_writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	peer_flush(arg);
}

/* conn->wake */
static void peer_wake(struct conn *c)
{
	struct peer *p = conn_peer(c);
	struct tcp_loop *tl = p->loop;

	if (p->receiving)
		p->woken = true;
	if (p->receiving || p->dirty)
		return;
	p->dirty = true;
	if (TAILQ_EMPTY(&tl->dirty))
		event_active(tl->flush, EV_TIMEOUT, 0);
	TAILQ_INSERT_TAIL(&tl->dirty, p, dirty_link);
}

void peer_drain(struct peer *p)
{
	if (p->state == PEER_CLOSED)
		return;
	if (p->state == PEER_OPEN)
		p->state = PEER_DRAIN;
	if (loop_timer_arm(&p->timer, p->loop->tcp->config.drain_ms))
		peer_close(p);
	else
		peer_wake(&p->conn);
}

/* ---- what the target calls ---- */

static void tcp_respond(struct tgt_req *req)
{
	struct peer *p = msg_owner(req->queue, struct peer, conn.queue);

	conn_respond(req);
	if (p->conn.dead)
		try_reap(p);
}

static void peer_end(struct loop_msg *msg)
{
	struct peer *p = msg_owner(msg, struct peer, end_msg);

	if (p->state == PEER_CLOSED)
		return;
	peer_send(p); /* the response to a Disconnect, say */
	peer_linger(p, BYE_MS);
	arm(p);
}

/* Not called after tgt_queue_close() returned, since the connection may be freed then. */
static void tcp_disconnect(struct tgt_queue *queue)
{
	struct peer *p = msg_owner(queue, struct peer, conn.queue);

	if (!atomic_exchange(&p->ending, true))
		loop_post(p->loop->loop, &p->end_msg);
}

static void peer_copy_out(struct loop_msg *msg)
{
	struct peer *p = msg_owner(msg, struct peer, copy_msg);

	atomic_store(&p->copying, false);
	if (p->state == PEER_CLOSED || conn_copy_out(&p->conn))
		return;
	log_info("%s: data could not be read while it was sent: closing", p->conn.name);
	peer_close(p);
}

/* As tcp_disconnect(). */
static void tcp_copy_out(struct tgt_queue *queue)
{
	struct peer *p = msg_owner(queue, struct peer, conn.queue);

	if (!atomic_exchange(&p->copying, true))
		loop_post(p->loop->loop, &p->copy_msg);
}

static const struct tgt_transport_ops tcp_ops = {
	.name = "tcp",
	.respond = tcp_respond,
	.disconnect = tcp_disconnect,
	.copy_out = tcp_copy_out,
};

/* ---- the beginning of a connection ---- */

/* conn->on_connect */
static bool peer_connected(struct conn *c)
{
	struct peer *p = conn_peer(c);
	struct tcp_server *tcp = p->loop->tcp;
	const char *hostnqn = tgt_queue_hostnqn(&c->queue);

	p->of_host = quota_take(tcp, &tcp->hosts, hostnqn, (uint32_t)strlen(hostnqn),
				tcp->config.max_host_conns);
	if (!p->of_host) {
		log_warn("%s: no more connections for host=%s, which may have %u: refusing",
			 c->name, hostnqn, tcp->config.max_host_conns);
		return false;
	}
	peer_release_pending(p);
	if (p->state == PEER_OPEN)
		loop_timer_disarm(&p->timer);
	return true;
}

void peer_start(struct loop_msg *msg)
{
	struct peer *p = msg_owner(msg, struct peer, start_msg);
	struct tcp_loop *tl = p->loop;
	struct event_base *base = loop_base(tl->loop);
	char name[sizeof(p->conn.name)];

	memcpy(name, p->conn.name, sizeof(name));
	p->rd = event_new(base, p->fd, EV_READ | EV_PERSIST, peer_readable, p);
	p->wr = event_new(base, p->fd, EV_WRITE | EV_PERSIST, peer_writable, p);
	/* libevent allocates per descriptor, for both directions: so arm() cannot fail later. */
	if (!p->rd || !p->wr || loop_timer_init(&p->timer, tl->loop, peer_timeout) ||
	    loop_timer_arm(&p->timer, tl->tcp->config.handshake_ms) || event_add(p->rd, NULL)) {
		log_err("%s: no memory for a connection", name);
		peer_free(p);
		tcp_loop_left(tl);
		return;
	}
	conn_init(&p->conn, tl->tcp->tgt, &tcp_ops, tl->loop, &p->local, &tl->pool,
		  &tl->no_zero_copy);
	memcpy(p->conn.name, name, sizeof(name));
	p->conn.wake = peer_wake;
	p->conn.on_connect = peer_connected;
	p->end_msg.fn = peer_end;
	p->copy_msg.fn = peer_copy_out;
	p->reading = true;
	LIST_INSERT_HEAD(&tl->peers, p, link);
	arm(p);
}
