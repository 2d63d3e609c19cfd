/* SPDX-License-Identifier: MIT */
#ifndef ZNSD_NOTIFY_H
#define ZNSD_NOTIFY_H

/*
 * Sends STATE, lines such as "READY=1" (sd_notify(3)), to the service manager: one datagram to the
 * Unix socket that $NOTIFY_SOCKET names, a path or "@" and an abstract name. Waits at most a second
 * for space in a full socket. 0, also without $NOTIFY_SOCKET; or -errno.
 */
int notify(const char *state);

#endif
