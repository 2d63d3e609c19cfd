/* SPDX-License-Identifier: MIT */
/*
 * A mapping of a file can fault at any time: somebody makes the file shorter, a tmpfs is full, a disk
 * fails. The kernel then sends SIGBUS to the thread that accesses the page. In guard_run() the handler
 * jumps back, out of the function that was called, with the signal mask of before. (sigsetjmp() could
 * save the mask, by a system call each time.) Anywhere else such a signal is a bug: the handler makes
 * way for the one before it, and the signal comes again.
 */
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "guard.h"

/* Where this thread's guard_run() began; NULL: it is not in one. */
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

void guard_install(void)
{
	const struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	struct sigaction now;

	sigaction(SIGBUS, NULL, &now);
	if (now.sa_sigaction == on_sigbus)
		return;
	before = now;
	sigaction(SIGBUS, &action, NULL);
}

bool guard_run(void (*fn)(void *arg), void *arg)
{
	sigjmp_buf here;

	if (sigsetjmp(here, 0)) {
		landing = NULL;
		return false;
	}
	landing = &here;
	fn(arg);
	landing = NULL;
	return true;
}

struct copy {
	void *to;
	const void *from;
	size_t len;
};

static void copy(void *arg)
{
	const struct copy *c = arg;

	memcpy(c->to, c->from, c->len);
}

bool guard_copy(void *to, const void *from, size_t len)
{
	return guard_run(copy, &(struct copy){ to, from, len });
}
