/* SPDX-License-Identifier: MIT */
/*
 * Creates and frees the target, and registers command sets and ports.
 *
 * main creates the target, adds command sets, subsystems, namespaces and ports, and starts to
 * serve. At the end the transport closes all queues; then tgt_free() closes the namespaces, which
 * flushes them.
 *
 * tgt->lock protects the list of subsystems, the list of ports, and the generation of the discovery
 * log.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "core.h"
#include "loop.h"

struct tgt *tgt_new(void)
{
	struct tgt *tgt = calloc(1, sizeof(*tgt));

	if (!tgt)
		return NULL;
	pthread_mutex_init(&tgt->lock, NULL);
	LIST_INIT(&tgt->subsystems);
	tgt->started_ms = clock_ms();
	tgt->genctr = 1;
	tgt->discovery = tgt_subsys_new(tgt, NVME_DISC_SUBSYS_NAME, true);
	if (!tgt->discovery) {
		pthread_mutex_destroy(&tgt->lock);
		free(tgt);
		return NULL;
	}
	return tgt;
}

static int subsys_close_namespaces(struct tgt_subsys *subsys)
{
	struct tgt_ns *ns = NULL;
	uint32_t nsid = 0;
	int first = 0;

	while ((ns = tgt_ns_next(subsys, nsid))) {
		int err;

		nsid = ns->nsid;
		atomic_store(&subsys->ns[nsid], NULL);
		err = ns->set->close(ns);
		if (err) {
			log_err("namespace %u of %s could not be closed: %s", nsid, subsys->nqn,
				strerror(-err));
			if (!first)
				first = err;
		}
	}
	return first;
}

int tgt_free(struct tgt *tgt)
{
	struct tgt_subsys *subsys;
	int first = 0;

	if (!tgt)
		return 0;
	while ((subsys = LIST_FIRST(&tgt->subsystems))) {
		int err = subsys_close_namespaces(subsys);

		if (err && !first)
			first = err;
		LIST_REMOVE(subsys, link);
		tgt_subsys_free(subsys);
	}
	tgt_subsys_free(tgt->discovery);
	pthread_mutex_destroy(&tgt->lock);
	free(tgt);
	return first;
}

void tgt_add_command_set(struct tgt *tgt, const struct tgt_command_set *set)
{
	assert(set->csi < TGT_CSI_MAX);
	tgt->sets[set->csi] = set;
}

void tgt_port_add(struct tgt *tgt, struct tgt_port *port)
{
	struct tgt_port **tail = &tgt->ports;

	pthread_mutex_lock(&tgt->lock);
	while (*tail)
		tail = &(*tail)->next;
	port->next = NULL;
	*tail = port;
	tgt_discovery_changed_locked(tgt);
	pthread_mutex_unlock(&tgt->lock);
}
