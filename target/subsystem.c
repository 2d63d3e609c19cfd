/* SPDX-License-Identifier: MIT */
/*
 * Subsystems: an NQN, the hosts that may connect, and the namespaces.
 *
 * Invariants:
 *  1. A subsystem exists as long as the target.
 *  2. ns[nsid] changes from NULL to a namespace once, and back to NULL when the target ends. So
 *     readers on the hot path take no lock.
 *  3. No two namespaces of the target have the same NGUID or UUID: a Linux host ignores the second
 *     one (nvme-rules.md B.7.17).
 *
 * Threads: any. tgt->lock protects the list of subsystems and serializes tgt_ns_add(); subsys->lock
 * protects the hosts.
 */
#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include "core.h"

/* FNV-1a, 64 bits, for a serial number that depends on nothing but the NQN. */
static uint64_t nqn_hash(const char *nqn)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (const unsigned char *p = (const unsigned char *)nqn; *p; p++)
		hash = (hash ^ *p) * 0x100000001b3;
	return hash;
}

struct tgt_subsys *tgt_subsys_new(struct tgt *tgt, const char *nqn, bool discovery)
{
	struct tgt_subsys *subsys = calloc(1, sizeof(*subsys));

	if (!subsys)
		return NULL;
	subsys->tgt = tgt;
	subsys->discovery = discovery;
	snprintf(subsys->nqn, sizeof(subsys->nqn), "%s", nqn);
	snprintf(subsys->serial, sizeof(subsys->serial), "%016llx",
		 (unsigned long long)nqn_hash(nqn));
	pthread_mutex_init(&subsys->lock, NULL);
	SLIST_INIT(&subsys->hosts);
	LIST_INIT(&subsys->ctrls);
	LIST_INIT(&subsys->dying);
	TAILQ_INIT(&subsys->waiting);
	return subsys;
}

void tgt_subsys_free(struct tgt_subsys *subsys)
{
	struct tgt_host *host;

	while ((host = SLIST_FIRST(&subsys->hosts))) {
		SLIST_REMOVE_HEAD(&subsys->hosts, link);
		free(host);
	}
	pthread_mutex_destroy(&subsys->lock);
	free(subsys);
}

static struct tgt_subsys *subsys_find_locked(struct tgt *tgt, const char *nqn)
{
	struct tgt_subsys *subsys;

	LIST_FOREACH (subsys, &tgt->subsystems, link)
		if (!strcmp(subsys->nqn, nqn))
			return subsys;
	return NULL;
}

struct tgt_subsys *tgt_subsys_find(struct tgt *tgt, const char *nqn)
{
	struct tgt_subsys *subsys;

	if (!strcmp(nqn, NVME_DISC_SUBSYS_NAME))
		return tgt->discovery;
	pthread_mutex_lock(&tgt->lock);
	subsys = subsys_find_locked(tgt, nqn);
	pthread_mutex_unlock(&tgt->lock);
	return subsys;
}

/* Checks the prefix "nqn." and the length, at most 223 bytes (NVMe Base 2.0, 4.5), but no more. */
static bool nqn_is_valid(const char *nqn)
{
	size_t len = strnlen(nqn, TGT_NQN_LEN + 1);

	return len > 4 && len <= TGT_NQN_LEN && !strncmp(nqn, "nqn.", 4);
}

struct tgt_subsys *tgt_subsys_get(struct tgt *tgt, const char *nqn, char *err, size_t errlen)
{
	struct tgt_subsys *subsys;

	if (!nqn_is_valid(nqn)) {
		snprintf(err, errlen,
			 "\"%s\" is no NQN: one begins with \"nqn.\" and has at most %d bytes", nqn,
			 TGT_NQN_LEN);
		return NULL;
	}
	if (!strcmp(nqn, NVME_DISC_SUBSYS_NAME)) {
		snprintf(err, errlen, "%s is the name of the discovery subsystem", nqn);
		return NULL;
	}
	pthread_mutex_lock(&tgt->lock);
	subsys = subsys_find_locked(tgt, nqn);
	if (!subsys) {
		subsys = tgt_subsys_new(tgt, nqn, false);
		if (subsys) {
			LIST_INSERT_HEAD(&tgt->subsystems, subsys, link);
			tgt_discovery_changed_locked(tgt);
		} else {
			snprintf(err, errlen, "out of memory");
		}
	}
	pthread_mutex_unlock(&tgt->lock);
	return subsys;
}

bool tgt_host_allowed_locked(struct tgt_subsys *subsys, const char *hostnqn)
{
	struct tgt_host *host;

	if (SLIST_EMPTY(&subsys->hosts))
		return true;
	SLIST_FOREACH (host, &subsys->hosts, link)
		if (!strcmp(host->nqn, hostnqn))
			return true;
	return false;
}

bool tgt_host_allowed(struct tgt_subsys *subsys, const char *hostnqn)
{
	bool allowed;

	pthread_mutex_lock(&subsys->lock);
	allowed = tgt_host_allowed_locked(subsys, hostnqn);
	pthread_mutex_unlock(&subsys->lock);
	return allowed;
}

int tgt_subsys_allow_host(struct tgt_subsys *subsys, const char *hostnqn)
{
	struct tgt_host *host;

	if (!nqn_is_valid(hostnqn))
		return -EINVAL;
	host = calloc(1, sizeof(*host));
	if (!host)
		return -ENOMEM;
	snprintf(host->nqn, sizeof(host->nqn), "%s", hostnqn);
	pthread_mutex_lock(&subsys->tgt->lock);
	pthread_mutex_lock(&subsys->lock);
	SLIST_INSERT_HEAD(&subsys->hosts, host, link);
	pthread_mutex_unlock(&subsys->lock);
	tgt_discovery_changed_locked(subsys->tgt);
	pthread_mutex_unlock(&subsys->tgt->lock);
	return 0;
}

struct tgt_ns *tgt_ns_next(struct tgt_subsys *subsys, uint32_t nsid)
{
	while (nsid < TGT_NSID_MAX) {
		struct tgt_ns *ns = tgt_ns_get(subsys, ++nsid);

		if (ns)
			return ns;
	}
	return NULL;
}

static bool id_is_zero(const uint8_t id[16])
{
	static const uint8_t zero[16];

	return !memcmp(id, zero, sizeof(zero));
}

/* Returns the namespace of SUBSYS that has the NGUID or the UUID of NS; NULL: there is none. */
static struct tgt_ns *ns_twin(struct tgt_subsys *subsys, const struct tgt_ns *ns)
{
	struct tgt_ns *other = NULL;

	for (uint32_t nsid = 0; (other = tgt_ns_next(subsys, nsid)); nsid = other->nsid) {
		if (!id_is_zero(ns->nguid) && !memcmp(other->nguid, ns->nguid, 16))
			return other;
		if (!id_is_zero(ns->uuid) && !memcmp(other->uuid, ns->uuid, 16))
			return other;
	}
	return NULL;
}

/*
 * Checks whether NS may be added to SUBSYS, and chooses its NSID: ns->nsid, or the lowest free one
 * if that is 0. 0; or -errno, and ERR has a sentence. tgt->lock held.
 */
static int ns_place_locked(struct tgt_subsys *subsys, const struct tgt_ns *ns, uint32_t *nsid,
			   char *err, size_t errlen)
{
	struct tgt_subsys *other;
	uint32_t want = ns->nsid;

	if (want > TGT_NSID_MAX) {
		snprintf(err, errlen, "namespace %u: the highest is %d", want, TGT_NSID_MAX);
		return -EINVAL;
	}
	LIST_FOREACH (other, &subsys->tgt->subsystems, link) {
		struct tgt_ns *twin = ns_twin(other, ns);

		if (twin) {
			snprintf(err, errlen,
				 "its identifier is that of namespace %u of %s: a host would "
				 "ignore one of "
				 "the two (is it the same image, or a copy?)",
				 twin->nsid, other->nqn);
			return -EEXIST;
		}
	}
	if (want && tgt_ns_get(subsys, want)) {
		snprintf(err, errlen, "namespace %u of %s is taken", want, subsys->nqn);
		return -EEXIST;
	}
	if (!want)
		for (want = 1; want <= TGT_NSID_MAX && tgt_ns_get(subsys, want); want++)
			;
	if (want > TGT_NSID_MAX) {
		snprintf(err, errlen, "%s has its %d namespaces", subsys->nqn, TGT_NSID_MAX);
		return -ENOSPC;
	}
	*nsid = want;
	return 0;
}

int tgt_ns_add(struct tgt_subsys *subsys, struct tgt_ns *ns, char *err, size_t errlen)
{
	struct tgt *tgt = subsys->tgt;
	struct tgt_ctrl *ctrl;
	uint32_t nsid;
	int ret;

	pthread_mutex_lock(&tgt->lock);
	ret = ns_place_locked(subsys, ns, &nsid, err, errlen);
	if (ret)
		goto unlock;
	ns->nsid = nsid;
	ns->subsys = subsys;
	if (ns->write_cache)
		atomic_store(&subsys->write_cache, true);
	atomic_store_explicit(&subsys->ns[nsid], ns, memory_order_release);
	pthread_mutex_lock(&subsys->lock);
	LIST_FOREACH (ctrl, &subsys->ctrls, link) {
		pthread_mutex_lock(&ctrl->lock);
		ctrl->changed_ns[nsid / 8] |= (uint8_t)(1u << nsid % 8);
		pthread_mutex_unlock(&ctrl->lock);
		ctrl_event_raise(ctrl, CTRL_EVENT_NS);
	}
	pthread_mutex_unlock(&subsys->lock);
unlock:
	pthread_mutex_unlock(&tgt->lock);
	return ret;
}
