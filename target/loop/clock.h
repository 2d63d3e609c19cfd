/* SPDX-License-Identifier: MIT */
/* The one clock of the program: monotonic, since some moment in the past. Any thread. */
#ifndef LOOP_CLOCK_H
#define LOOP_CLOCK_H

#include <stdint.h>

uint64_t clock_ms(void); /* milliseconds */
uint64_t clock_ns(void); /* nanoseconds */

#endif
