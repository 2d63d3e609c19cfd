// SPDX-License-Identifier: MIT
/*
 * Computes CRC-32C by ISA-L, which chooses the fastest way that the processor has.
 *
 * Memory that maps a file can fault at any time: the kernel then sends SIGBUS to the thread that
 * reads it. In crc_feed_mapping() the handler jumps back, out of ISA-L, which holds nothing, with
 * the signal mask of before. (sigsetjmp() could save the mask, by a system call each time.)
 * Elsewhere the handler gives way to the one before it, and the signal comes again.
 */
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <ucontext.h>
#include <isa-l/crc.h>
#include "crc.h"

/* Where this thread's crc_feed_mapping() began; NULL: it is not there. */
static _Thread_local sigjmp_buf *volatile landing;
static struct sigaction before;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	const ucontext_t *interrupted = context;

	if (landing && info->si_code > 0) { /* not sent by a process */
		pthread_sigmask(SIG_SETMASK, &interrupted->uc_sigmask, NULL);
		siglongjmp(*landing, 1);
	}
	sigaction(sig, &before, NULL);
	raise(sig);
}

void crc_catch_faults(void)
{
	const struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	struct sigaction now;

	sigaction(SIGBUS, NULL, &now);
	if (now.sa_sigaction == on_sigbus)
		return;
	before = now;
	sigaction(SIGBUS, &action, NULL);
}

uint32_t crc_feed(uint32_t crc, const void *data, uint32_t len)
{
	return crc32_iscsi((unsigned char *)(uintptr_t)data, (int)len, crc);
}

bool crc_feed_mapping(uint32_t *crc, const void *data, uint32_t len)
{
	sigjmp_buf here;

	if (sigsetjmp(here, 0)) {
		landing = NULL;
		return false;
	}
	landing = &here;
	*crc = crc_feed(*crc, data, len);
	landing = NULL;
	return true;
}
