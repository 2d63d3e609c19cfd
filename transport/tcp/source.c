// SPDX-License-Identifier: MIT
/*
 * How many connections that have not sent Connect yet come from each address: what a peer may cost
 * before it says who it is.
 *
 * Threads: any. tcp->lock protects the list.
 */
#include <stdlib.h>
#include <string.h>
#include "peer.h"

/* An address with connections that did not Connect yet. */
struct source {
	LIST_ENTRY(source) link;
	struct in6_addr addr; /* IPv4 as mapped */
	uint32_t pending;
};

struct source *source_get(struct tcp_server *tcp, const struct in6_addr *addr)
{
	struct source *s;

	pthread_mutex_lock(&tcp->lock);
	LIST_FOREACH (s, &tcp->sources, link)
		if (!memcmp(&s->addr, addr, sizeof(*addr)))
			break;
	if (!s && (s = calloc(1, sizeof(*s)))) {
		s->addr = *addr;
		LIST_INSERT_HEAD(&tcp->sources, s, link);
	}
	if (s && s->pending >= tcp->config.max_pending)
		s = NULL;
	if (s)
		s->pending++;
	pthread_mutex_unlock(&tcp->lock);
	return s;
}

void source_put(struct tcp_server *tcp, struct source *s)
{
	pthread_mutex_lock(&tcp->lock);
	if (!--s->pending) {
		LIST_REMOVE(s, link);
		free(s);
	}
	pthread_mutex_unlock(&tcp->lock);
}
