/* SPDX-License-Identifier: MIT */
/*
 * What the files of this folder share: tcp.c is the server and what it has on each loop, listen.c
 * accepts, peer.c is the life of a connection, quota.c counts those of an address, and
 * of a host, home.c is what a connection tells its loop. For them alone; tcp.h is for others.
 *
 * Threads: accept, and the server's end, on the first loop; a connection and what its loop has, on
 * that loop. tcp->lock (a leaf) protects the quotas.
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
	struct tcp_loop *home;
	enum peer_state state;
	int fd;
	bool reading, writing;	  /* armed */
	bool full;		  /* the socket took no more */
	bool shut;		  /* the write side is shut down */
	bool dirty;
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

/* What the server has on one loop. */
struct tcp_loop {
	struct tcp_server *tcp;
	struct loop *loop;
	struct pool pool;
	struct event *flush;
	struct loop_timer trim;
	bool trimming; /* armed */
	struct loop_timer tick; /* for conn_tick(), while a command waits for its host */
	bool watching;		/* armed */
	bool draining;
	bool no_loans;
	long faults; /* of this thread that went to the disk, when last looked at */
	struct loop_timer loans_again;
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
	bool refusing;	   /* for the log: once for a row of refusals */
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

/* start_msg of a peer with fd, home, local, source and the conn's name: it lives from now on. */
void peer_start(struct loop_msg *msg);
/* Goes on with what waited, and sends: all of a wake-up at once. */
void peer_flush(struct peer *p);
/* At shutdown: receives no more, ends when it is quiet, or in drain_ms. */
void peer_drain(struct peer *p);

/* Closes P if its host is late with its part in a command. Whether a command still waits for it. */
bool peer_tick(struct peer *p);

/* ---- listen.c ---- */

/* Accept no more; the listeners' ports stay. */
void listeners_stop(struct tcp_server *tcp);
void listeners_free(struct tcp_server *tcp);

/* ---- quota.c: any thread ---- */

/*
 * Counts one more connection of OWNER (LEN bytes) on LIST. NULL: it has MOST already, or there is no
 * memory. To be given back.
 */
struct quota *quota_take(struct tcp_server *tcp, struct quotas *list, const void *owner,
			 uint32_t len, uint32_t most);
void quota_give(struct tcp_server *tcp, struct quota *q); /* Q may be NULL */

/* ---- home.c ---- */

/* A connection of HOME is no more: it may have been the last that a shutdown waited for. */
void tcp_loop_left(struct tcp_loop *home);
/* A command on a connection of HOME waits for its host: the time is watched from now on. */
void tcp_loop_watch(struct tcp_loop *home);
/* Lent memory was sent: if that went to the disk, nothing is borrowed for a while. */
void tcp_loop_look_for_faults(struct tcp_loop *home);

#endif
