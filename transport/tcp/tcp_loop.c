// SPDX-License-Identifier: MIT
/*
 * What connections report to their loop: that they sent zero-copy data, that they have used
 * buffers, that a command waits for its host, and that they have ended.
 *
 * Zero-copy data (tgt_req_zero_copy()) is a mapping of the image, which sendmsg() reads. If
 * sendmsg() had to wait for the disk, the thread's count of major page faults has risen. The loop
 * then turns zero-copy off for ZERO_COPY_PAUSE_MS: reads use buffers, and worker threads wait for
 * the disk. If a page cannot be read at all, sendmsg() returns EFAULT and the connection ends; the
 * command fails when the host repeats it.
 *
 * Threads: the loop's own.
 */
#include <sys/resource.h>
#include "peer.h"

#define ZERO_COPY_PAUSE_MS 200 /* after a major page fault */

static void loop_drained(struct loop_msg *msg)
{
	struct tcp_server *tcp = msg_owner(msg, struct tcp_loop, drained_msg)->tcp;

	if (++tcp->drained == tcp->nloops)
		tcp->done(tcp->done_arg);
}

void tcp_loop_left(struct tcp_loop *tl)
{
	if (tl->draining && LIST_EMPTY(&tl->peers)) {
		tl->drained_msg.fn = loop_drained;
		loop_post(tl->tcp->loops[0].loop, &tl->drained_msg);
	}
}

void tcp_loop_trim_later(struct tcp_loop *tl)
{
	if (tl->trimming || !tl->pool.cached)
		return;
	tl->trim_gets = tl->pool.gets;
	tl->trimming = !loop_timer_arm(&tl->trim, tl->tcp->config.idle_ms);
}

void tcp_loop_watch(struct tcp_loop *tl)
{
	if (!tl->watching)
		tl->watching = !loop_timer_arm(&tl->tick, tl->tcp->config.host_ms / CONN_TICKS);
}

void tcp_loop_look_for_faults(struct tcp_loop *tl)
{
	struct rusage usage;

	if (getrusage(RUSAGE_THREAD, &usage))
		return;
	if (usage.ru_majflt != tl->faults)
		tl->no_zero_copy = !loop_timer_arm(&tl->zero_copy_timer, ZERO_COPY_PAUSE_MS);
	tl->faults = usage.ru_majflt;
}
