// SPDX-License-Identifier: MIT
/*
 * NVMe/TCP over sockets: the server, and its state on each loop.
 *
 * Threads: tcp_shutdown() from any; the rest as in peer.h.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "guard.h"
#include "peer.h"

const struct tcp_config tcp_defaults = {
	.memory = 256u << 20,
	.max_conns = 1024,
	.max_host_conns = 512,
	.max_pending = 32,
	.handshake_ms = 10000,
	.linger_ms = 30000,
	.drain_ms = 1000,
	.idle_ms = 2000,
	.host_ms = 30000,
};

static void resume_zero_copy(struct loop_timer *t)
{
	msg_owner(t, struct tcp_loop, zero_copy_timer)->no_zero_copy = false;
}

static void flush_dirty(evutil_socket_t fd, short what, void *arg)
{
	struct tcp_loop *tl = arg;
	struct peer *p;

	(void)fd;
	(void)what;
	while ((p = TAILQ_FIRST(&tl->dirty))) {
		TAILQ_REMOVE(&tl->dirty, p, dirty_link);
		p->dirty = false;
		peer_flush(p);
	}
}

static void trim_idle(struct loop_timer *t)
{
	struct tcp_loop *tl = msg_owner(t, struct tcp_loop, trim);
	struct peer *p;

	if (tl->pool.gets == tl->trim_gets) {
		tl->trimming = false;
		LIST_FOREACH (p, &tl->peers, link)
			conn_trim(&p->conn);
		pool_trim(&tl->pool);
		return;
	}
	tl->trim_gets = tl->pool.gets;
	tl->trimming = !loop_timer_arm(t, tl->tcp->config.idle_ms);
}

/* Closes connections whose hosts are late; is armed again while commands wait for hosts. */
static void tcp_loop_tick(struct loop_timer *t)
{
	struct tcp_loop *tl = msg_owner(t, struct tcp_loop, tick);
	struct peer *p;
	bool wait = false;

	LIST_FOREACH (p, &tl->peers, link)
		wait |= peer_tick(p);
	tl->watching = false;
	if (wait)
		tcp_loop_watch(tl);
}

static int tcp_loop_init(struct tcp_server *tcp, struct tcp_loop *tl, struct loop *loop,
			 uint64_t memory)
{
	tl->tcp = tcp;
	tl->loop = loop;
	LIST_INIT(&tl->peers);
	TAILQ_INIT(&tl->dirty);
	pool_init(&tl->pool, memory, command_granted);
	tl->flush = event_new(loop_base(loop), -1, 0, flush_dirty, tl);
	if (!tl->flush)
		return -ENOMEM;
	if (loop_timer_init(&tl->zero_copy_timer, loop, resume_zero_copy) ||
	    loop_timer_init(&tl->tick, loop, tcp_loop_tick))
		return -ENOMEM;
	return loop_timer_init(&tl->trim, loop, trim_idle);
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
	LIST_INIT(&tcp->pending);
	LIST_INIT(&tcp->hosts);
	pthread_mutex_init(&tcp->lock, NULL);
	guard_install();
	for (unsigned int i = 0; i < nloops; i++) {
		if (tcp_loop_init(tcp, &tcp->loops[i], loops[i], tcp->config.memory / nloops)) {
			tcp->nloops = i + 1;
			tcp_free(tcp);
			return NULL;
		}
	}
	return tcp;
}

static void home_drain(struct loop_msg *msg)
{
	struct tcp_loop *tl = msg_owner(msg, struct tcp_loop, drain_msg);
	struct peer *p;

	tl->draining = true;
	LIST_FOREACH (p, &tl->peers, link)
		peer_drain(p);
	tcp_loop_left(tl);
}

static void shutdown_start(struct loop_msg *msg)
{
	struct tcp_server *tcp = msg_owner(msg, struct tcp_server, shutdown_msg);

	listeners_stop(tcp);
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
	listeners_free(tcp);
	for (unsigned int i = 0; i < tcp->nloops; i++) {
		struct tcp_loop *tl = &tcp->loops[i];

		assert(LIST_EMPTY(&tl->peers));
		if (tl->flush)
			event_free(tl->flush);
		loop_timer_free(&tl->zero_copy_timer);
		loop_timer_free(&tl->tick);
		loop_timer_free(&tl->trim);
		pool_fini(&tl->pool);
	}
	pthread_mutex_destroy(&tcp->lock);
	free(tcp);
}
