/* SPDX-License-Identifier: MIT */
/*
 * Reports what qcow2_check() finds and what qcow2_repair() does: each finding is counted, and
 * passed to the caller as a line of text unless there were too many lines.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

#define MAX_LINES 1000

static void __attribute__((format(printf, 2, 0)))
say_line(struct check *c, const char *fmt, va_list ap)
{
	char line[256];

	if (c->lines > MAX_LINES)
		return;
	if (c->lines++ == MAX_LINES) {
		c->say(c->arg, "more findings follow, which are counted but not shown");
		return;
	}
	vsnprintf(line, sizeof(line), fmt, ap);
	c->say(c->arg, line);
}

void check_corrupt(struct check *c, const char *fmt, ...)
{
	va_list ap;

	c->res->corruptions++;
	va_start(ap, fmt);
	say_line(c, fmt, ap);
	va_end(ap);
}

void check_leak(struct check *c, const char *fmt, ...)
{
	va_list ap;

	c->res->leaks++;
	va_start(ap, fmt);
	say_line(c, fmt, ap);
	va_end(ap);
}

void check_say(struct check *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say_line(c, fmt, ap);
	va_end(ap);
}

void check_unread(struct check *c, const char *what, uint64_t off, int err)
{
	c->res->check_errors++;
	c->unfollowed++;
	check_say(c, "ERROR %s at 0x%" PRIx64 " could not be read: %s", what, off, strerror(-err));
}
