/* SPDX-License-Identifier: MIT */
/*
 * Memory that runs out: the n-th allocation of the program under test fails, once or from then on.
 * The linker's --wrap sends the calls of our objects here; what libc takes for itself (getaddrinfo,
 * threads) is not counted. libevent's calls are, once oom_libevent() was called.
 *
 * A thread that sets oom_exempt is the tester's, and never fails.
 */
#ifndef TESTS_OOM_H
#define TESTS_OOM_H

#include <stdbool.h>

extern _Thread_local bool oom_exempt;

/* The N-th allocation from here on fails, and all after it if ALWAYS. 0: none, but all count. */
void oom_arm(long n, bool always);
long oom_seen(void);
long oom_hits(void);
void oom_libevent(void);

#endif
