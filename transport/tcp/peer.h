/* SPDX-License-Identifier: MIT */
/*
 * Shared by the files of this folder: tcp.c is the server and its state on each loop, listen.c
 * accepts connections, peer.c runs a connection, quota.c limits connections per address and per
 * host, tcp_loop.c is what connections report to their loop. Other rooms include tcp.h.
 *
 * Threads: accept and the shutdown of the server run on the first loop; a connection and its loop's
 * state on that loop. tcp->lock (a leaf) protects the quotas.
 */
#ifndef TRANSPORT_PEER_H
#define TRANSPORT_PEER_H

#include <pthread.h>
#include <stdatomic.h>
#include <netinet/in.h>
#include <event2/event.h>
#include "conn.h"
#include "tcp.h"

enum peer_state { PEER_OPEN, PEER_DRAIN, PEER_LINGER, PEER_CLOSED };

struct peer {
	struct conn conn;
	struct tcp_loop *loop;
	enum peer_state state;
	int fd;
	bool reading, writing; /* armed */
	bool full;	       /* the socket took no more */
	bool shut;	       /* the write side is shut down */
	bool dirty;	       /* on the loop's list, to be flushed */
	bool receiving;	       /* in peer_readable(), which flushes it at its end if it was woken */
	bool woken;
	bool reaping;
	atomic_bool ending; /* end_msg was posted */
	struct event *rd, *wr;
	struct loop_timer timer; /* handshake, drain or linger */
	atomic_bool copying;	 /* copy_msg was posted */
	struct loop_msg start_msg, end_msg, copy_msg, reap_msg;
	struct quota *pending; /* of its address, until Connect succeeded or it ended */
	struct quota *of_host; /* from then on, until it is freed */
	struct tgt_port local; /* the listener's; of a wildcard, with the address really used */
	LIST_ENTRY(peer) link;
	TAILQ_ENTRY(peer) dirty_link;
};

/* The server's state on one loop. */
struct tcp_loop {
	struct tcp_server *tcp;
	struct loop *loop;
	struct pool pool;
	struct event *flush;
	struct loop_timer trim;
	bool trimming;		/* armed */
	struct loop_timer tick; /* for conn_tick(), while a command waits for its host */
	bool watching;		/* armed */
	bool draining;
	bool no_zero_copy;
	long faults; /* major page faults of this thread, when last checked */
	struct loop_timer zero_copy_timer;
	uint64_t trim_gets; /* pool.gets when it was armed */
	LIST_HEAD(, peer) peers;
	TAILQ_HEAD(, peer) dirty;
	struct loop_msg drain_msg, drained_msg;
};

LIST_HEAD(quotas, quota);

struct tcp_server {
	struct tgt *tgt;
	struct tcp_config config;
	LIST_HEAD(, tcp_listener) listeners;
	uint16_t nports;
	unsigned int next; /* loop, for the next connection */
	bool refusing;	   /* a refusal was logged; cleared by the next success */
	atomic_uint conns;
	pthread_mutex_t lock;  /* protects: */
	struct quotas pending; /* connections before Connect, by address */
	struct quotas hosts;   /* connections after Connect, by host NQN */
	struct loop_msg shutdown_msg;
	void (*done)(void *);
	void *done_arg;
	unsigned int drained; /* loops */
	unsigned int nloops;
	struct tcp_loop loops[];
};

#define msg_owner(msg, type, member) ((type *)((char *)(msg)-offsetof(type, member)))

/* ---- peer.c ---- */

/*
 * A message to its loop: starts a connection whose fd, loop, local, pending and conn.name are set.
 */
void peer_start(struct loop_msg *msg);
/* Resumes receiving, and sends all that was queued in this wake-up. */
void peer_flush(struct peer *p);
/* At shutdown: receives nothing more, and ends when no command is in flight, or after drain_ms. */
void peer_drain(struct peer *p);

/*
 * Closes P if its host is late with the data of a command or with taking a response (conn_tick()).
 * Returns whether a command still waits for the host.
 */
bool peer_tick(struct peer *p);

/* ---- listen.c ---- */

/* Stops accepting; the listeners' ports remain registered. */
void listeners_stop(struct tcp_server *tcp);
void listeners_free(struct tcp_server *tcp);

/* ---- quota.c: any thread ---- */

/*
 * Counts one more connection of OWNER (LEN bytes) on LIST. NULL: it has MOST already, or there is
 * no memory. The connection ends by quota_give().
 */
struct quota *quota_take(struct tcp_server *tcp, struct quotas *list, const void *owner,
			 uint32_t len, uint32_t most);
/* Counts one connection of Q less, and frees Q after the last. Q may be NULL. */
void quota_give(struct tcp_server *tcp, struct quota *q);

/* ---- tcp_loop.c ---- */

/* A connection of TL was freed; it may be the last one that a shutdown waits for. */
void tcp_loop_left(struct tcp_loop *tl);
/* Starts the periodic peer_tick(), because a command on a connection of TL waits for its host. */
void tcp_loop_watch(struct tcp_loop *tl);
/* The pool of TL may have free buffers: once it is idle, they go back to the system. */
void tcp_loop_trim_later(struct tcp_loop *tl);
/* Zero-copy data was sent. If that caused a major page fault, turns zero-copy off for a while. */
void tcp_loop_look_for_faults(struct tcp_loop *tl);

#endif
