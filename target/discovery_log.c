/* SPDX-License-Identifier: MIT */
/*
 * Builds the discovery log (NVMe Base 2.0, 5.16.1.23).
 *
 * The log has one entry for each subsystem that the host may use and each port. It is rebuilt for
 * every Get Log Page, under the locks, and the requested part is copied out of it. A host that
 * reads it in pieces has to compare the generation counter, as the specification requires.
 *
 * A port that listens on all addresses appears with the address at which this host reached us.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core.h"

static bool is_wildcard(const char *traddr)
{
	return !strcmp(traddr, "0.0.0.0") || !strcmp(traddr, "::");
}

/* Copies TEXT into a field of SIZE bytes and pads it with spaces. */
static void put_padded(char *field, size_t size, const char *text)
{
	size_t len = strnlen(text, size);

	memcpy(field, text, len);
	memset(field + len, ' ', size - len);
}

static void put_entry(struct nvmf_disc_log_entry *e, const struct tgt_subsys *subsys,
		      const struct tgt_port *port, const struct tgt_queue *queue)
{
	const char *traddr = port->traddr;

	if (is_wildcard(traddr) && queue->port && queue->port->id == port->id)
		traddr = queue->port->traddr;
	e->trtype = NVMF_TRTYPE_TCP;
	e->adrfam = strchr(traddr, ':') ? NVMF_ADDR_FAMILY_IP6 : NVMF_ADDR_FAMILY_IP4;
	e->subtype = 2; /* an NVM subsystem */
	e->treq = NVMF_TREQ_NOT_REQUIRED | NVMF_TREQ_DISABLE_SQFLOW;
	e->portid = htole16(port->id);
	e->cntlid = htole16(0xffff);
	e->asqsz = htole16(TGT_ADMIN_DEPTH);
	put_padded(e->trsvcid, sizeof(e->trsvcid), port->trsvcid);
	put_padded(e->traddr, sizeof(e->traddr), traddr);
	snprintf(e->subnqn, sizeof(e->subnqn), "%s", subsys->nqn);
	e->tsas.tcp.sectype = NVMF_TCP_SECTYPE_NONE;
}

void *discovery_log(struct tgt_ctrl *ctrl, struct tgt_queue *queue, uint64_t *size)
{
	struct tgt *tgt = ctrl->tgt;
	struct nvmf_discovery_log *log;
	struct tgt_subsys *subsys;
	uint64_t most = 0, n = 0;

	pthread_mutex_lock(&tgt->lock);
	LIST_FOREACH (subsys, &tgt->subsystems, link)
		for (const struct tgt_port *p = tgt->ports; p; p = p->next)
			most++;
	log = calloc(1, sizeof(*log) + most * sizeof(log->entries[0]));
	if (log) {
		LIST_FOREACH (subsys, &tgt->subsystems, link) {
			if (!tgt_host_allowed(subsys, ctrl->hostnqn))
				continue;
			for (const struct tgt_port *p = tgt->ports; p; p = p->next)
				put_entry(&log->entries[n++], subsys, p, queue);
		}
		log->genctr = htole64(tgt->genctr);
		log->numrec = htole64(n);
	}
	pthread_mutex_unlock(&tgt->lock);
	*size = sizeof(*log) + n * sizeof(log->entries[0]);
	return log;
}
