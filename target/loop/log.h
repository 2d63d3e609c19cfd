/* SPDX-License-Identifier: MIT */
/*
 * The log: one line per event on stderr, never one per I/O. Bytes outside printable ASCII are
 * escaped, since a line may quote a peer. Any thread.
 */
#ifndef LOOP_LOG_H
#define LOOP_LOG_H

enum log_level { LOG_ERR_, LOG_WARN_, LOG_INFO_, LOG_DEBUG_ };
void log_level(enum log_level level);
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define log_err(...)   log_line(LOG_ERR_, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN_, __VA_ARGS__)
#define log_info(...)  log_line(LOG_INFO_, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG_, __VA_ARGS__)

#endif
