// SPDX-License-Identifier: MIT
/*
 * What connections report to their loop: that they sent zero-copy data, that a command waits for its host,
 * and that they have ended.
 *
 * Zero-copy data (tgt_req_zero_copy()) is a mapping of the image, which sendmsg() reads. If sendmsg() had
 * to wait for the disk, the thread's count of major page faults has risen. The loop then turns zero-copy
 * off for ZERO_COPY_PAUSE_MS: reads use buffers, and worker threads wait for the disk. If a page cannot be
 * read at all, sendmsg() returns EFAULT and the connection ends; the command fails when the host repeats it.
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

void tcp_loop_left(struct tcp_loop *home)
{
	if (home->draining && LIST_EMPTY(&home->peers)) {
		home->drained_msg.fn = loop_drained;
		loop_post(home->tcp->loops[0].loop, &home->drained_msg);
	}
}

void tcp_loop_watch(struct tcp_loop *home)
{
	if (!home->watching)
		home->watching =
			!loop_timer_arm(&home->tick, home->tcp->config.host_ms / CONN_TICKS);
}

void tcp_loop_look_for_faults(struct tcp_loop *home)
{
	struct rusage usage;

	if (getrusage(RUSAGE_THREAD, &usage))
		return;
	if (usage.ru_majflt != home->faults)
		home->no_zero_copy = !loop_timer_arm(&home->zero_copy_timer, ZERO_COPY_PAUSE_MS);
	home->faults = usage.ru_majflt;
}
