/* SPDX-License-Identifier: MIT */
/* NVMe/TCP over sockets: what main needs of the transport. */
#ifndef TRANSPORT_TCP_H
#define TRANSPORT_TCP_H

#include <stddef.h>
#include <stdint.h>

struct loop;
struct tgt;
struct tgt_port;
struct tcp_server;
struct tcp_listener;

struct tcp_config {
	uint64_t memory;	 /* bytes of data buffers, all loops together */
	uint32_t max_conns;	 /* connections, all together */
	uint32_t max_host_conns; /* of these, connections of one host after Connect */
	uint32_t max_pending;	 /* connections of one address before Connect */
	uint32_t handshake_ms;	 /* from accept until Connect succeeded */
	uint32_t linger_ms;	 /* after our TermReq, for the host to close */
	uint32_t drain_ms;	 /* at shutdown, for commands in flight to end */
	uint32_t idle_ms;	 /* without a new buffer, after which cached ones are freed */
	/*
	 * The least time for the host to send the data of a command, or to take its response; the
	 * connection is closed after at most half as long again.
	 */
	uint32_t host_ms;
};
extern const struct tcp_config tcp_defaults;

/*
 * Creates the transport of TGT, which spreads its connections over LOOPS (the array is copied; the
 * first one accepts), and handles SIGBUS from now on (guard.h). CONFIG may be NULL: tcp_defaults.
 * NULL: out of memory. Before the loops run.
 */
struct tcp_server *tcp_new(struct tgt *tgt, struct loop *const *loops, unsigned int nloops,
			   const struct tcp_config *config);

/*
 * Listens on ADDR (an IPv4 or IPv6 address, or a name of one) and PORT (0: any free one), and adds
 * a port to the target. 0 or -errno, with a sentence in ERR. Before the loops run, or on the first.
 */
int tcp_listen(struct tcp_server *tcp, const char *addr, uint16_t port, struct tcp_listener **out,
	       char *err, size_t errlen);
/* Returns where L listens: traddr and trsvcid as text, with the port number that was bound. */
const struct tgt_port *tcp_listener_port(const struct tcp_listener *l);

/*
 * Accepts no more, lets commands in flight end and their responses be sent (up to drain_ms), closes
 * everything, then calls DONE on the first loop. Any thread; once.
 */
void tcp_shutdown(struct tcp_server *tcp, void (*done)(void *arg), void *arg);

/* After DONE, the loops no longer running but not freed. The target's ports end here, too. */
void tcp_free(struct tcp_server *tcp);

#endif
