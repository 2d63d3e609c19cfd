// SPDX-License-Identifier: MIT
/*
 * Listens, accepts connections, and passes each to its loop.
 *
 * tcp_config.max_conns limits the connections in total. Before Connect an address may have
 * max_pending of them, each for at most handshake_ms (peer.c) and with CONN_BOOT_SLOTS command
 * slots (conn.h). A connection over a limit is closed at once. Without file descriptors or memory
 * the listener accepts nothing for LISTEN_RETRY.
 *
 * Threads: the first loop.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "peer.h"

#define ACCEPT_BUDGET 16  /* connections accepted per wake-up */
#define LISTEN_RETRY  200 /* ms until the next accept, after one lacked fds or memory */

struct tcp_listener {
	struct tcp_server *tcp;
	int fd;
	bool wildcard;
	struct event *ev;
	struct loop_timer retry;
	struct tgt_port port;
	LIST_ENTRY(tcp_listener) link;
};

/* ---- accept ---- */

/* Sets *KEY to the IPv6 address of SA; an IPv4 address is mapped to ::ffff:0:0/96. */
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

/* Sets conn.name, the peer's address for the log, and the local address of P. */
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

/* Creates a connection for FD and chooses its loop. NULL: over a limit, or no memory. */
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
	p->pending = quota_take(tcp, &tcp->pending, &key, sizeof(key), tcp->config.max_pending);
	if (!p->pending) {
		free(p);
		return NULL;
	}
	p->fd = fd;
	p->loop = &tcp->loops[tcp->next++ % tcp->nloops];
	atomic_fetch_add(&tcp->conns, 1);
	return p;
}

/* Accepts a connection and starts it on its loop, or closes it. 0, or -errno of accept4(). */
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
	if (p->loop == &tcp->loops[0])
		peer_start(&p->start_msg);
	else
		loop_post(p->loop->loop, &p->start_msg);
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
	/* Other errors concern one connection only, or mean that none is waiting. */
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

/* Opens a listening socket at address AI. Its file descriptor, or -errno. */
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

/* Registers a listener for FD, which it owns, also on failure. NULL: no memory. */
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

void listeners_stop(struct tcp_server *tcp)
{
	struct tcp_listener *l;

	LIST_FOREACH (l, &tcp->listeners, link) {
		event_del(l->ev);
		loop_timer_disarm(&l->retry);
		close(l->fd);
		l->fd = -1;
	}
}

void listeners_free(struct tcp_server *tcp)
{
	struct tcp_listener *l;

	while ((l = LIST_FIRST(&tcp->listeners))) {
		LIST_REMOVE(l, link);
		listener_free(l);
	}
}
