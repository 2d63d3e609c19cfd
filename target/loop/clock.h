/* SPDX-License-Identifier: MIT */
/* The clocks of the program: monotonic, since some moment in the past. Any thread. */
#ifndef LOOP_CLOCK_H
#define LOOP_CLOCK_H

#include <stdint.h>

uint64_t clock_ms(void); /* milliseconds */
uint64_t clock_ns(void); /* nanoseconds */
/*
 * Milliseconds, and those are counted, too, for which the machine was suspended: for what is
 * promised to another machine, whose time went on. Not to be compared with the two others.
 */
uint64_t clock_boot_ms(void);

#endif
