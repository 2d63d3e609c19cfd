// SPDX-License-Identifier: MIT
/*
 * What a connection tells the loop that it lives on: that it sent lent data, and that it is gone.
 *
 * What the target lends (tgt_req_lend) is read by sendmsg() alone, from a mapping of the image. If
 * that had to wait for the disk, as the thread's major faults tell, nothing is borrowed for a while:
 * reads then go through buffers, and the workers wait. A byte that cannot be had is an EFAULT, which
 * ends the connection; when the host asks again, it is an error of its command.
 *
 * Threads: the loop's own.
 */
#include <sys/resource.h>
#include "peer.h"

#define LOAN_PAUSE_MS 200 /* after lent data had to be fetched from the disk */

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
