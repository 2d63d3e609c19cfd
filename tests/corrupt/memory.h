/* SPDX-License-Identifier: MIT */
/* Measures the memory that the program and its libraries have allocated, in bytes. */
#ifndef TESTS_CORRUPT_MEMORY_H
#define TESTS_CORRUPT_MEMORY_H

#include <stddef.h>

/* The present amount. */
size_t memory_now(void);
/* The largest amount since the last memory_mark(). */
size_t memory_peak(void);
void memory_mark(void);

#endif
