// SPDX-License-Identifier: MIT
/*
 * Sockets: the life of a connection, from accept to the last of its memory.
 *
 *	OPEN --shutdown--> DRAIN --quiet--> LINGER --> CLOSED --no command in flight--> freed
 *	OPEN --protocol error, ops->disconnect--> LINGER
 *	any --end of file, socket error, timeout--> CLOSED
 *
 * OPEN receives and sends. DRAIN receives no more, and waits for what executes. LINGER is dead to
 * the target; it sends what remains (a TermReq), shuts the write side down, and reads into the void
 * until the host closes, as a close with unread data would reset the connection and could take the
 * TermReq with it. CLOSED has no socket any more.
 *
 * 1. A connection belongs to one loop. It is freed in one place, peer_reap(), a message of its own
 *    loop posted once, when it is CLOSED and no command of it is in flight. Whatever else was
 *    posted to it was posted before, and messages keep their order.
 * 2. Nothing is sent where it arises. conn->wake() puts the connection on its loop's dirty list,
 *    and one event, queued behind those that are active now, flushes the list: so all responses of
 *    one wake-up leave in one sendmsg, whether their commands came in one recv or their work came
 *    home in one batch.
 * 3. EV_READ is armed while rx wants bytes, EV_WRITE after the socket was full; see arm().
 * 4. What a peer may cost before Connect is bounded: connections in all, connections by address,
 *    time, and four slots.
 * 5. What the target lends (tgt_req_lend) is read by sendmsg() alone, from a mapping of the image.
 *    If that had to wait for the disk, as the thread's major faults tell, nothing is borrowed for a
 *    while: reads then go through buffers, and the workers wait. A byte that cannot be had is an
 *    EFAULT, which ends the connection; when the host asks again, it is an error of its command.
 * 6. A host that takes nothing of what is sent to it for stall_ms is gone.
 *
 * Threads: tcp_shutdown() and tcp_disconnect() from any; accept on the first loop; the rest on the
 * connection's loop. tcp->lock (a leaf) protects the table of sources.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <event2/event.h>
#include "conn.h"
#include "tcp.h"

#define ACCEPT_BUDGET 16 /* connections a wake-up */
/* Bytes a wake-up and connection: few, so that the host goes on with what is done while the rest is. */
#define READ_BUDGET   (64u << 10)
#define SEND_BUDGET   (1u << 20)
#define SEND_PIECES   128
#define LISTEN_RETRY  200 /* ms, when there are no file descriptors left */
#define BYE_MS	      500 /* for the host to close after a disconnect */
#define LOAN_PAUSE_MS 200 /* after lent data had to be fetched from the disk */

const struct tcp_config tcp_defaults = {
	.memory = 256u << 20,
	.max_conns = 1024,
	.max_pending = 32,
	.handshake_ms = 10000,
	.linger_ms = 30000,
	.drain_ms = 1000,
	.idle_ms = 2000,
	.stall_ms = 30000,
};

enum peer_state { PEER_OPEN, PEER_DRAIN, PEER_LINGER, PEER_CLOSED };

/* An address with connections that did not Connect yet. */
struct source {
	LIST_ENTRY(source) link;
	struct in6_addr addr; /* IPv4 as mapped */
	uint32_t pending;
};

struct peer {
	struct conn conn;
	struct tcp_loop *home;
	enum peer_state state;
	int fd;
	bool reading, writing;	  /* armed */
	bool full;		  /* the socket took no more */
	bool stalling;		  /* timer is for the host to take something */
	uint64_t sent, sent_then; /* bytes: in all, and when timer was armed for that */
	bool shut;		  /* the write side is shut down */
	bool dirty;
	bool reaping;
	atomic_bool ending; /* end_msg was posted */
	struct event *rd, *wr;
	struct loop_timer timer; /* handshake, stall, drain or linger */
	struct loop_msg start_msg, end_msg, reap_msg;
	struct source *source; /* while it counts as pending */
	struct tgt_port local; /* the listener's; of a wildcard, with the address really used */
	LIST_ENTRY(peer) link;
	TAILQ_ENTRY(peer) dirty_link;
};

struct tcp_loop {
	struct tcp_server *tcp;
	struct loop *loop;
	struct pool pool;
	struct event *flush;
	struct loop_timer trim;
	bool trimming; /* armed */
	bool draining;
	bool no_loans;
	long faults; /* of this thread that went to the disk, when last looked at */
	struct loop_timer loans_again;
	uint64_t trim_gets; /* pool.gets when it was armed */
	LIST_HEAD(, peer) peers;
	TAILQ_HEAD(, peer) dirty;
	struct loop_msg drain_msg, drained_msg;
};

struct tcp_listener {
	struct tcp_server *tcp;
	int fd;
	bool wildcard;
	struct event *ev;
	struct loop_timer retry;
	struct tgt_port port;
	LIST_ENTRY(tcp_listener) link;
};

struct tcp_server {
	struct tgt *tgt;
	struct tcp_config config;
	LIST_HEAD(, tcp_listener) listeners;
	uint16_t nports;
	unsigned int next; /* loop, for the next connection */
	bool refusing;	   /* for the log: once for a row of refusals */
	atomic_uint conns;
	pthread_mutex_t lock; /* protects: */
	LIST_HEAD(, source) sources;
	struct loop_msg shutdown_msg;
	void (*done)(void *);
	void *done_arg;
	unsigned int drained; /* loops */
	unsigned int nloops;
	struct tcp_loop loops[];
};

static struct peer *conn_peer(struct conn *c)
{
	return (struct peer *)c; /* its first member */
}

#define msg_owner(msg, type, member) ((type *)((char *)(msg)-offsetof(type, member)))

/* ---- sources: who has how many connections that did not Connect ---- */

/* NULL: no memory, or the address has its fill of them. */
static struct source *source_get(struct tcp_server *tcp, const struct in6_addr *addr)
{
	struct source *s;

	pthread_mutex_lock(&tcp->lock);
	LIST_FOREACH (s, &tcp->sources, link)
		if (!memcmp(&s->addr, addr, sizeof(*addr)))
			break;
	if (!s && (s = calloc(1, sizeof(*s)))) {
		s->addr = *addr;
		LIST_INSERT_HEAD(&tcp->sources, s, link);
	}
	if (s && s->pending >= tcp->config.max_pending)
		s = NULL;
	if (s)
		s->pending++;
	pthread_mutex_unlock(&tcp->lock);
	return s;
}

static void source_put(struct tcp_server *tcp, struct source *s)
{
	pthread_mutex_lock(&tcp->lock);
	if (!--s->pending) {
		LIST_REMOVE(s, link);
		free(s);
	}
	pthread_mutex_unlock(&tcp->lock);
}

static void peer_settled(struct peer *p)
{
	if (p->source)
		source_put(p->home->tcp, p->source);
	p->source = NULL;
}

/* ---- the end of a connection ---- */

static void loop_drained(struct loop_msg *msg)
{
	struct tcp_server *tcp = msg_owner(msg, struct tcp_loop, drained_msg)->tcp;

	if (++tcp->drained == tcp->nloops)
		tcp->done(tcp->done_arg);
}

static void check_drained(struct tcp_loop *home)
{
	if (home->draining && LIST_EMPTY(&home->peers)) {
		home->drained_msg.fn = loop_drained;
		loop_post(home->tcp->loops[0].loop, &home->drained_msg);
	}
}

static void peer_free(struct peer *p)
{
	struct tcp_server *tcp = p->home->tcp;

	peer_settled(p);
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
	struct tcp_loop *home = p->home;

	if (p->dirty)
		TAILQ_REMOVE(&home->dirty, p, dirty_link);
	LIST_REMOVE(p, link);
	conn_fini(&p->conn);
	peer_free(p);
	check_drained(home);
}

static void try_reap(struct peer *p)
{
	if (p->state != PEER_CLOSED || p->conn.queue.inflight || p->reaping)
		return;
	p->reaping = true;
	p->reap_msg.fn = peer_reap;
	loop_post(p->home->loop, &p->reap_msg);
}

/* Reads into the void, up to a budget. Returns 0 when there is nothing more now, or -errno. */
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
	peer_settled(p);
	log_debug("%s: closed", p->conn.name);
	try_reap(p);
}

static void peer_linger(struct peer *p, uint32_t ms)
{
	if (p->state >= PEER_LINGER)
		return;
	p->state = PEER_LINGER;
	conn_kill(&p->conn);
	peer_settled(p);
	if (loop_timer_arm(&p->timer, ms))
		peer_close(p); /* nothing would end it */
	else
		p->conn.wake(&p->conn);
}

/* What rx_got() and rx_resume() returned. */
static void peer_fail(struct peer *p, int err)
{
	if (err == -EPROTO)
		peer_linger(p, p->home->tcp->config.linger_ms);
	else
		peer_close(p);
}

/* True while the host takes what is sent to it, however slowly. */
static bool peer_moves(struct peer *p)
{
	if (p->full && p->sent == p->sent_then)
		return false;
	p->sent_then = p->sent;
	p->stalling = p->full;
	return !p->stalling || !loop_timer_arm(&p->timer, p->home->tcp->config.stall_ms);
}

static void peer_timeout(struct loop_timer *t)
{
	struct peer *p = msg_owner(t, struct peer, timer);

	if (p->state == PEER_OPEN && p->stalling) {
		if (peer_moves(p))
			return;
		log_info("%s: takes nothing of what is sent to it: closing", p->conn.name);
	} else if (p->state == PEER_OPEN) {
		log_info("%s: no Connect in time: closing", p->conn.name);
	}
	peer_close(p);
}

/* ---- receive and send ---- */

static void arm(struct peer *p)
{
	const struct rx *rx = &p->conn.rx;
	bool read, write;

	if (p->state == PEER_CLOSED)
		return;
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

/* Until the socket is empty, rx wants no more, or the budget is spent. 0, or as rx_got(). */
static int receive_some(struct peer *p)
{
	size_t total = 0, wanted;
	ssize_t n;
	int err;

	do {
		struct iovec iov[2];
		int pieces;

		if (total) { /* before the stage is used again */
			tgt_queue_run(&p->conn.queue);
			tgt_queue_gather(&p->conn.queue);
		}
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
		err = rx_got(&p->conn, (size_t)n);
		total += (size_t)n;
	} while (!err && (size_t)n == wanted && total < READ_BUDGET && p->state == PEER_OPEN);
	return err;
}

/* Has ANY bring in commands, and those that it executed done. */
static void peer_take(struct peer *p, int (*any)(struct peer *p))
{
	int err;

	tgt_queue_gather(&p->conn.queue);
	err = any(p);
	tgt_queue_run(&p->conn.queue);
	if (err)
		peer_fail(p, err);
}

static void peer_readable(evutil_socket_t fd, short what, void *arg)
{
	struct peer *p = arg;

	(void)fd;
	(void)what;
	if (p->state == PEER_LINGER) {
		if (discard(p))
			peer_close(p);
	} else if (p->state == PEER_OPEN) {
		peer_take(p, receive_some);
	}
	arm(p);
}

/* The socket is full. What waits holds buffers, and what was lent holds up resets: not for ever. */
static void peer_full(struct peer *p)
{
	p->full = true;
	if (p->state != PEER_OPEN || !p->conn.connected || p->stalling)
		return;
	p->sent_then = p->sent;
	p->stalling = !loop_timer_arm(&p->timer, p->home->tcp->config.stall_ms);
}

static void look_for_faults(struct tcp_loop *home)
{
	struct rusage usage;

	if (getrusage(RUSAGE_THREAD, &usage))
		return;
	if (usage.ru_majflt != home->faults)
		home->no_loans = !loop_timer_arm(&home->loans_again, LOAN_PAUSE_MS);
	home->faults = usage.ru_majflt;
}

static void borrow_again(struct loop_timer *t)
{
	msg_owner(t, struct tcp_loop, loans_again)->no_loans = false;
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
			n = -1, errno = EAGAIN; /* the others' turn */
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
		p->sent += (size_t)n;
		tx_sent(&p->conn, (size_t)n);
	}
	if (p->state == PEER_LINGER && !p->shut) {
		shutdown(p->fd, SHUT_WR);
		p->shut = true;
	}
}

static int resume(struct peer *p)
{
	return rx_resume(&p->conn);
}

static void peer_flush(struct peer *p)
{
	if (p->state == PEER_OPEN)
		peer_take(p, resume);
	if (p->state != PEER_CLOSED)
		peer_send(p);
	if (p->conn.tx.lent)
		look_for_faults(p->home);
	p->conn.tx.lent = false;
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
	struct tcp_loop *home = p->home;

	if (p->dirty)
		return;
	p->dirty = true;
	if (TAILQ_EMPTY(&home->dirty))
		event_active(home->flush, EV_TIMEOUT, 0);
	TAILQ_INSERT_TAIL(&home->dirty, p, dirty_link);
}

static void flush_dirty(evutil_socket_t fd, short what, void *arg)
{
	struct tcp_loop *home = arg;
	struct peer *p;

	(void)fd;
	(void)what;
	while ((p = TAILQ_FIRST(&home->dirty))) {
		TAILQ_REMOVE(&home->dirty, p, dirty_link);
		p->dirty = false;
		peer_flush(p);
	}
	if (!home->trimming && home->pool.cached) {
		home->trim_gets = home->pool.gets;
		home->trimming = !loop_timer_arm(&home->trim, home->tcp->config.idle_ms);
	}
}

static void trim_idle(struct loop_timer *t)
{
	struct tcp_loop *home = msg_owner(t, struct tcp_loop, trim);
	struct peer *p;

	if (home->pool.gets == home->trim_gets) {
		home->trimming = false;
		LIST_FOREACH (p, &home->peers, link)
			rx_trim(&p->conn.rx);
		pool_trim(&home->pool);
		return;
	}
	home->trim_gets = home->pool.gets;
	home->trimming = !loop_timer_arm(t, home->tcp->config.idle_ms);
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

/* Not after tgt_queue_close() of the queue returned: then it may be gone. */
static void tcp_disconnect(struct tgt_queue *queue)
{
	struct peer *p = msg_owner(queue, struct peer, conn.queue);

	if (!atomic_exchange(&p->ending, true))
		loop_post(p->home->loop, &p->end_msg);
}

static const struct tgt_transport_ops tcp_ops = {
	.name = "tcp",
	.respond = tcp_respond,
	.disconnect = tcp_disconnect,
};

/* conn->on_connect */
static void peer_connected(struct conn *c)
{
	struct peer *p = conn_peer(c);

	peer_settled(p);
	if (p->state == PEER_OPEN)
		loop_timer_disarm(&p->timer);
}

/* ---- the beginning of a connection ---- */

static void peer_start(struct loop_msg *msg)
{
	struct peer *p = msg_owner(msg, struct peer, start_msg);
	struct tcp_loop *home = p->home;
	struct event_base *base = loop_base(home->loop);
	char name[sizeof(p->conn.name)];

	memcpy(name, p->conn.name, sizeof(name));
	p->rd = event_new(base, p->fd, EV_READ | EV_PERSIST, peer_readable, p);
	p->wr = event_new(base, p->fd, EV_WRITE | EV_PERSIST, peer_writable, p);
	/* Both directions share what libevent allocates for a descriptor: arm() cannot fail later. */
	if (!p->rd || !p->wr || loop_timer_init(&p->timer, home->loop, peer_timeout) ||
	    loop_timer_arm(&p->timer, home->tcp->config.handshake_ms) || event_add(p->rd, NULL)) {
		log_err("%s: no memory for a connection", name);
		peer_free(p);
		check_drained(home);
		return;
	}
	conn_init(&p->conn, home->tcp->tgt, &tcp_ops, home->loop, &p->local, &home->pool,
		  &home->no_loans);
	memcpy(p->conn.name, name, sizeof(name));
	p->conn.wake = peer_wake;
	p->conn.on_connect = peer_connected;
	p->end_msg.fn = peer_end;
	p->reading = true;
	LIST_INSERT_HEAD(&home->peers, p, link);
	arm(p);
}

static void addr_key(const struct sockaddr_storage *sa, struct in6_addr *key)
{
	memset(key, 0, sizeof(*key));
	if (sa->ss_family == AF_INET6) {
		*key = ((const struct sockaddr_in6 *)sa)->sin6_addr;
		return;
	}
	key->s6_addr[10] = key->s6_addr[11] = 0xff;
	memcpy(&key->s6_addr[12], &((const struct sockaddr_in *)sa)->sin_addr, 4);
}

static void addr_text(const struct sockaddr_storage *sa, char *host, size_t hostlen, char *port,
		      size_t portlen)
{
	if (getnameinfo((const struct sockaddr *)sa, sizeof(*sa), host, hostlen, port, portlen,
			NI_NUMERICHOST | NI_NUMERICSERV)) {
		snprintf(host, hostlen, "?");
		snprintf(port, portlen, "?");
	}
}

static void describe(struct peer *p, const struct tcp_listener *l,
		     const struct sockaddr_storage *sa)
{
	char host[INET6_ADDRSTRLEN + 16], port[8];
	struct sockaddr_storage here;
	socklen_t len = sizeof(here);

	addr_text(sa, host, sizeof(host), port, sizeof(port));
	snprintf(p->conn.name, sizeof(p->conn.name),
		 sa->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
	p->local = l->port;
	if (l->wildcard && !getsockname(p->fd, (struct sockaddr *)&here, &len))
		addr_text(&here, p->local.traddr, sizeof(p->local.traddr), p->local.trsvcid,
			  sizeof(p->local.trsvcid));
}

/* A connection for FD, or NULL: over a limit, or no memory. FD is then still the caller's. */
static struct peer *peer_new(struct tcp_server *tcp, int fd, const struct sockaddr_storage *sa)
{
	struct in6_addr key;
	struct peer *p;

	if (atomic_load(&tcp->conns) >= tcp->config.max_conns)
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	addr_key(sa, &key);
	p->source = source_get(tcp, &key);
	if (!p->source) {
		free(p);
		return NULL;
	}
	p->fd = fd;
	p->home = &tcp->loops[tcp->next++ % tcp->nloops];
	atomic_fetch_add(&tcp->conns, 1);
	return p;
}

/* 0, or -errno: nothing more to accept now. */
static int accept_one(struct tcp_listener *l)
{
	struct tcp_server *tcp = l->tcp;
	struct sockaddr_storage sa = { 0 };
	socklen_t len = sizeof(sa);
	const int one = 1;
	struct peer *p;
	int fd;

	fd = accept4(l->fd, (struct sockaddr *)&sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return -errno;
	p = peer_new(tcp, fd, &sa);
	if (!p) {
		if (!tcp->refusing)
			log_warn("too many connections: refusing");
		tcp->refusing = true;
		close(fd);
		return 0;
	}
	tcp->refusing = false;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	describe(p, l, &sa);
	p->start_msg.fn = peer_start;
	if (p->home == &tcp->loops[0])
		peer_start(&p->start_msg);
	else
		loop_post(p->home->loop, &p->start_msg);
	return 0;
}

static void acceptable(evutil_socket_t fd, short what, void *arg)
{
	struct tcp_listener *l = arg;
	int err = 0;

	(void)fd;
	(void)what;
	for (int i = 0; i < ACCEPT_BUDGET && !err; i++)
		err = accept_one(l);
	/* Other errors are of that one connection, or mean there is none. */
	if (err == -EMFILE || err == -ENFILE || err == -ENOBUFS || err == -ENOMEM) {
		log_warn("accept: %s", strerror(-err));
		if (!loop_timer_arm(&l->retry, LISTEN_RETRY))
			event_del(l->ev);
	}
}

static void accept_again(struct loop_timer *t)
{
	if (event_add(msg_owner(t, struct tcp_listener, retry)->ev, NULL))
		loop_timer_arm(t, LISTEN_RETRY);
}

/* ---- listeners ---- */

static bool is_wildcard(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET6)
		return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)sa)->sin6_addr);
	return ((const struct sockaddr_in *)sa)->sin_addr.s_addr == htonl(INADDR_ANY);
}

/* A listening socket, or -errno. */
static int listen_on(const struct addrinfo *ai)
{
	const int one = 1;
	int fd, err;

	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (!bind(fd, ai->ai_addr, ai->ai_addrlen) && !listen(fd, 128))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

static void listener_free(struct tcp_listener *l)
{
	if (l->ev)
		event_free(l->ev);
	loop_timer_free(&l->retry);
	if (l->fd >= 0)
		close(l->fd);
	free(l);
}

/* Takes FD, whatever comes. */
static struct tcp_listener *listener_new(struct tcp_server *tcp, int fd, const struct addrinfo *ai)
{
	struct tcp_listener *l = calloc(1, sizeof(*l));
	struct sockaddr_storage here = { 0 };
	socklen_t len = sizeof(here);

	if (!l) {
		close(fd);
		return NULL;
	}
	l->tcp = tcp;
	l->fd = fd;
	l->wildcard = is_wildcard(ai->ai_addr);
	l->ev = event_new(loop_base(tcp->loops[0].loop), fd, EV_READ | EV_PERSIST, acceptable, l);
	if (!l->ev || loop_timer_init(&l->retry, tcp->loops[0].loop, accept_again) ||
	    event_add(l->ev, NULL)) {
		listener_free(l);
		return NULL;
	}
	getsockname(fd, (struct sockaddr *)&here, &len);
	addr_text(&here, l->port.traddr, sizeof(l->port.traddr), l->port.trsvcid,
		  sizeof(l->port.trsvcid));
	l->port.id = ++tcp->nports;
	l->port.adrfam = ai->ai_family == AF_INET6 ? NVMF_ADDR_FAMILY_IP6 : NVMF_ADDR_FAMILY_IP4;
	LIST_INSERT_HEAD(&tcp->listeners, l, link);
	tgt_port_add(tcp->tgt, &l->port);
	return l;
}

int tcp_listen(struct tcp_server *tcp, const char *addr, uint16_t port, struct tcp_listener **out,
	       char *err, size_t errlen)
{
	struct addrinfo hints = {
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
	};
	struct addrinfo *ai;
	struct tcp_listener *l;
	char service[8];
	int fd, gai;

	snprintf(service, sizeof(service), "%u", port);
	gai = getaddrinfo(addr, service, &hints, &ai);
	if (gai) {
		snprintf(err, errlen, "cannot listen on '%s': %s", addr, gai_strerror(gai));
		return -EINVAL;
	}
	fd = listen_on(ai);
	l = fd < 0 ? NULL : listener_new(tcp, fd, ai);
	freeaddrinfo(ai);
	if (!l) {
		fd = fd < 0 ? fd : -ENOMEM;
		snprintf(err, errlen, "cannot listen on %s port %u: %s", addr, port, strerror(-fd));
		return fd;
	}
	if (out)
		*out = l;
	return 0;
}

const struct tgt_port *tcp_listener_port(const struct tcp_listener *l)
{
	return &l->port;
}

/* ---- the whole ---- */

static int home_init(struct tcp_server *tcp, struct tcp_loop *home, struct loop *loop,
		     uint64_t memory)
{
	home->tcp = tcp;
	home->loop = loop;
	LIST_INIT(&home->peers);
	TAILQ_INIT(&home->dirty);
	pool_init(&home->pool, memory, conn_granted);
	home->flush = event_new(loop_base(loop), -1, 0, flush_dirty, home);
	if (!home->flush)
		return -ENOMEM;
	if (loop_timer_init(&home->loans_again, loop, borrow_again))
		return -ENOMEM;
	return loop_timer_init(&home->trim, loop, trim_idle);
}

struct tcp_server *tcp_new(struct tgt *tgt, struct loop *const *loops, unsigned int nloops,
			   const struct tcp_config *config)
{
	struct tcp_server *tcp = calloc(1, sizeof(*tcp) + nloops * sizeof(tcp->loops[0]));

	if (!tcp)
		return NULL;
	tcp->tgt = tgt;
	tcp->config = config ? *config : tcp_defaults;
	tcp->nloops = nloops;
	LIST_INIT(&tcp->listeners);
	LIST_INIT(&tcp->sources);
	pthread_mutex_init(&tcp->lock, NULL);
	for (unsigned int i = 0; i < nloops; i++) {
		if (home_init(tcp, &tcp->loops[i], loops[i], tcp->config.memory / nloops)) {
			tcp->nloops = i + 1;
			tcp_free(tcp);
			return NULL;
		}
	}
	return tcp;
}

static void home_drain(struct loop_msg *msg)
{
	struct tcp_loop *home = msg_owner(msg, struct tcp_loop, drain_msg);
	struct peer *p;

	home->draining = true;
	LIST_FOREACH (p, &home->peers, link) {
		if (p->state == PEER_CLOSED)
			continue;
		if (p->state == PEER_OPEN)
			p->state = PEER_DRAIN;
		if (loop_timer_arm(&p->timer, home->tcp->config.drain_ms))
			peer_close(p);
		else
			peer_wake(&p->conn);
	}
	check_drained(home);
}

static void shutdown_start(struct loop_msg *msg)
{
	struct tcp_server *tcp = msg_owner(msg, struct tcp_server, shutdown_msg);
	struct tcp_listener *l;

	LIST_FOREACH (l, &tcp->listeners, link) {
		event_del(l->ev);
		loop_timer_disarm(&l->retry);
		close(l->fd);
		l->fd = -1;
	}
	for (unsigned int i = 0; i < tcp->nloops; i++) {
		tcp->loops[i].drain_msg.fn = home_drain;
		loop_post(tcp->loops[i].loop, &tcp->loops[i].drain_msg);
	}
}

void tcp_shutdown(struct tcp_server *tcp, void (*done)(void *arg), void *arg)
{
	tcp->done = done;
	tcp->done_arg = arg;
	tcp->shutdown_msg.fn = shutdown_start;
	loop_post(tcp->loops[0].loop, &tcp->shutdown_msg);
}

void tcp_free(struct tcp_server *tcp)
{
	struct tcp_listener *l;

	while ((l = LIST_FIRST(&tcp->listeners))) {
		LIST_REMOVE(l, link);
		listener_free(l);
	}
	for (unsigned int i = 0; i < tcp->nloops; i++) {
		struct tcp_loop *home = &tcp->loops[i];

		assert(LIST_EMPTY(&home->peers));
		if (home->flush)
			event_free(home->flush);
		loop_timer_free(&home->loans_again);
		loop_timer_free(&home->trim);
		pool_fini(&home->pool);
	}
	pthread_mutex_destroy(&tcp->lock);
	free(tcp);
}
