/* SPDX-License-Identifier: MIT */
/*
 * The log: one line per event, on stderr, in one write(2), so that the lines of several threads
 * never mix.
 *
 *	znsd: [warning: |debug: ]sentence key=value...
 *
 * A line may quote a peer's bytes (NQNs, addresses, paths), so every byte outside printable ASCII
 * is written as \xNN. Nobody can forge a line or send escape sequences to a terminal from the
 * network.
 *
 * A peer must not fill the disk with log lines either. Each call site, identified by its format
 * string, may log LOG_BURST lines a second. Further lines are counted, and the count is appended to
 * the next line of that call site that is logged. Call sites share a small table by hash; two in
 * one entry share its budget.
 *
 * Threads: any. log_lock protects the table and is a leaf.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "clock.h"
#include "log.h"

#define LOG_BURST 10
#define LOG_SITES 64
#define LOG_LINE  1024

struct log_site {
	uint64_t since_ms; /* start of the running second */
	uint32_t said;	   /* lines in it */
	uint32_t held;	   /* lines held back since the last that passed */
};

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static struct log_site sites[LOG_SITES];
static atomic_int max_level = LOG_INFO_;

static const char *const level_word[] = {
	[LOG_ERR_] = "",
	[LOG_WARN_] = "warning: ",
	[LOG_INFO_] = "",
	[LOG_DEBUG_] = "debug: ",
};

void log_level(enum log_level level)
{
	atomic_store(&max_level, (int)level);
}

/* May the call site of FMT speak? HELD gets the number of lines it kept back before. */
static bool site_may_speak(const char *fmt, uint32_t *held)
{
	struct log_site *site = &sites[((uintptr_t)fmt * 0x9e3779b97f4a7c15u) >> 58];
	uint64_t now = clock_ms();
	bool may;

	pthread_mutex_lock(&log_lock);
	if (now - site->since_ms >= 1000) {
		site->since_ms = now;
		site->said = 0;
	}
	may = site->said < LOG_BURST;
	if (may) {
		site->said++;
		*held = site->held;
		site->held = 0;
	} else {
		site->held++;
	}
	pthread_mutex_unlock(&log_lock);
	return may;
}

/* Copies TEXT to OUT, escaping; returns the bytes written, never more than SIZE. */
static size_t escape(char *out, size_t size, const char *text)
{
	size_t n = 0;

	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		bool plain = *p >= 0x20 && *p < 0x7f;

		if (size - n < 5)
			break;
		if (plain)
			out[n++] = (char)*p;
		else
			n += (size_t)snprintf(out + n, 5, "\\x%02x", *p);
	}
	return n;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char text[LOG_LINE], line[LOG_LINE + 128];
	uint32_t held = 0;
	ssize_t written;
	va_list ap;
	size_t n;

	if ((int)level > atomic_load(&max_level) || !site_may_speak(fmt, &held))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	n = (size_t)snprintf(line, sizeof(line), "znsd: %s", level_word[level]);
	n += escape(line + n, LOG_LINE, text);
	if (held)
		n += (size_t)snprintf(line + n, sizeof(line) - n, " (held back: %u like this)",
				      held);
	line[n++] = '\n';
	written = write(STDERR_FILENO, line, n);
	(void)written; /* nobody is left to be told */
}
