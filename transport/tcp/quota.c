// SPDX-License-Identifier: MIT
/*
 * Limits the number of connections: of an address, before Connect, when the host is not known yet;
 * of a host NQN, after Connect, over all its controllers.
 *
 * A list has one entry for each owner that has connections. Threads: any. tcp->lock
 * protects the lists.
 */
#include <stdlib.h>
#include <string.h>
#include "peer.h"

struct quota {
	LIST_ENTRY(quota) link;
	uint32_t conns;
	uint32_t len;
	uint8_t owner[]; /* LEN bytes: an address (tcp->pending) or a host NQN (tcp->hosts) */
};

static struct quota *find(const struct quotas *list, const void *owner, uint32_t len)
{
	struct quota *q;

	LIST_FOREACH (q, list, link)
		if (q->len == len && !memcmp(q->owner, owner, len))
			return q;
	return NULL;
}

struct quota *quota_take(struct tcp_server *tcp, struct quotas *list, const void *owner,
			 uint32_t len, uint32_t most)
{
	struct quota *q;

	pthread_mutex_lock(&tcp->lock);
	q = find(list, owner, len);
	if (!q && (q = calloc(1, sizeof(*q) + len))) {
		q->len = len;
		memcpy(q->owner, owner, len);
		LIST_INSERT_HEAD(list, q, link);
	}
	if (q && q->conns >= most)
		q = NULL;
	if (q)
		q->conns++;
	pthread_mutex_unlock(&tcp->lock);
	return q;
}

void quota_give(struct tcp_server *tcp, struct quota *q)
{
	if (!q)
		return;
	pthread_mutex_lock(&tcp->lock);
	if (!--q->conns) {
		LIST_REMOVE(q, link);
		free(q);
	}
	pthread_mutex_unlock(&tcp->lock);
}
