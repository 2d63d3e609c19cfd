/* SPDX-License-Identifier: MIT */
/* Access to a mapping of a file that survives a page that cannot be had. guard.c explains. */
#ifndef GUARD_H
#define GUARD_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Has guard_run() handle SIGBUS, for the process; one at another place acts as before. To be called
 * before the first guard_run(), and again when somebody else has set a handler since. While no other
 * thread is in guard_run().
 */
void guard_install(void);

/*
 * Calls FN(ARG), which may access mappings of files. True: it returned. False: the kernel could not
 * provide a page, because the file is shorter now, its file system is full, or its disk failed; FN was
 * left in the middle, so it must not hold anything that has to be released. Not to be nested. Any
 * thread that does not block SIGBUS.
 */
bool guard_run(void (*fn)(void *arg), void *arg);

/* Copies LEN bytes between memory and a mapping of a file, either way. As guard_run(). */
bool guard_copy(void *to, const void *from, size_t len);

#endif
