/* SPDX-License-Identifier: MIT */
/*
 * A laboratory says at its end what it did, in one line: "tally: NAME key=value ... cpu=SECONDS".
 * tests/reliability gathers these lines into docs/reliability.md.
 */
#ifndef TESTS_TALLY_H
#define TESTS_TALLY_H

#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>

static inline double tally_seconds(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec +
	       (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* WHAT: "NAME key=value ...", values without blanks. The processor time is this process's and its
 * children's that have ended, since its last tally.
 */
__attribute__((format(printf, 1, 2))) static inline void tally(const char *what, ...)
{
	static double told;
	double cpu = tally_seconds(RUSAGE_SELF) + tally_seconds(RUSAGE_CHILDREN);
	va_list ap;

	printf("tally: ");
	va_start(ap, what);
	vprintf(what, ap);
	va_end(ap);
	printf(" cpu=%.1f\n", cpu - told);
	told = cpu;
	fflush(stdout);
}

#endif
