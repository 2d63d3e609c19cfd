// SPDX-License-Identifier: MIT
/*
 * What connections report to their loop: that lent memory was sent, that a command waits for its host,
 * and that a connection has ended.
 *
 * Lent memory (tgt_req_lend()) is a mapping of the image that only sendmsg() reads. If that had to wait
 * for the disk, which the thread's count of major page faults shows, nothing is lent for a while: reads
 * then use buffers, and the workers wait for the disk. Memory that cannot be read is an EFAULT, which
 * ends the connection; when the host repeats the command, the command fails.
 *
 * Threads: the loop's own.
 */
#include <sys/resource.h>
#include "peer.h"

#define LOAN_PAUSE_MS 200 /* after a major page fault */

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
		home->no_loans = !loop_timer_arm(&home->loans_again, LOAN_PAUSE_MS);
	home->faults = usage.ru_majflt;
}
