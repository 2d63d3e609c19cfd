/* SPDX-License-Identifier: MIT */
/* How much memory the program holds: every malloc, the libraries' too. */
#ifndef TESTS_CORRUPT_MEMORY_H
#define TESTS_CORRUPT_MEMORY_H

#include <stddef.h>

size_t memory_now(void);
/* The most there was since the last memory_mark(). */
size_t memory_peak(void);
void memory_mark(void);

#endif
