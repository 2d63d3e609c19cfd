// SPDX-License-Identifier: MIT
/*
 * znsprobe: does the drive answer? `quickstart --check` and the shell tests ask with it.
 *
 *	znsprobe ADDR PORT [NQN]		append to an empty zone, read back, reset it
 *	znsprobe ADDR PORT NQN VERB [ARG]...	verbs, one after the other, on namespace 1
 *
 * Without an NQN, or with "-", the first subsystem of the discovery log is taken. Verbs (LBAs and
 * blocks in decimal or 0x hex; PATTERN is =BYTE for one byte everywhere, else a seed):
 *
 *	report				all zones as JSON, keys as nvme-cli's
 *	append ZSLBA BLOCKS PATTERN	prints the LBA
 *	write SLBA BLOCKS PATTERN
 *	verify SLBA BLOCKS PATTERN
 *	flush | nsid N | sleep SECONDS
 *	open | close | finish | reset SLBA	("all" for SLBA: Select All)
 *
 * Ends 0; 1 when something failed, with a sentence on stderr; 2 for a wrong command line.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "host.h"

struct probe {
	struct host_ctrl c;
	struct host_queue *q;
	uint32_t nsid;
	uint32_t lba_size;
	uint64_t zone_size; /* blocks */
	uint64_t blocks;
	uint32_t most; /* bytes a command may move */
};

/* Says what went wrong; 1, the exit status. */
static int failed(struct probe *p, const char *what, int err)
{
	if (err > 0)
		fprintf(stderr, "znsprobe: %s: the drive answers status 0x%x\n", what, err);
	else if (err == -ECONNABORTED)
		fprintf(stderr, "znsprobe: %s: the drive ends the connection, FES %u, FEI %u\n",
			what, p->q ? p->q->term.fes : 0, p->q ? p->q->term.fei : 0);
	else if (err == -ENOTCONN)
		fprintf(stderr, "znsprobe: %s: the connection was closed\n", what);
	else
		fprintf(stderr, "znsprobe: %s: %s\n", what, strerror(-err));
	return 1;
}

static void fill(struct probe *p, void *buf, uint32_t len, uint64_t lba, const char *pattern)
{
	if (*pattern == '=')
		memset(buf, strtoul(pattern + 1, NULL, 0), len);
	else
		host_pattern(buf, len, lba * p->lba_size, strtoull(pattern, NULL, 0));
}

static int select_ns(struct probe *p, uint32_t nsid)
{
	struct nvme_zns_id_ns zns;
	struct nvme_id_ns id;
	struct nvme_id_ctrl ctrl;
	uint8_t fmt;
	int err;

	err = host_identify(&p->c.admin, NVME_IDENTIFY_CNS_CTRL, 0, 0, &ctrl);
	if (!err)
		err = host_identify(&p->c.admin, NVME_IDENTIFY_CNS_NS, nsid, 0, &id);
	if (!err)
		err = host_identify(&p->c.admin, NVME_IDENTIFY_CNS_CSI_NS, nsid, NVME_CSI_ZNS,
				    &zns);
	if (err)
		return err;
	fmt = id.flbas & 0xf;
	if (id.lbaf[fmt].ds < 9 || id.lbaf[fmt].ds > 16 || !zns.lbafe[fmt].zsze)
		return -EPROTO;
	p->nsid = nsid;
	p->lba_size = 1u << id.lbaf[fmt].ds;
	p->blocks = le64toh(id.nsze);
	p->zone_size = le64toh(zns.lbafe[fmt].zsze);
	p->most = ctrl.mdts && ctrl.mdts < 8 ? 4096u << ctrl.mdts : 1u << 20;
	return 0;
}

/* All descriptors, in a report of the caller's to free; *NR of them. */
static int all_zones(struct probe *p, struct nvme_zone_report **out, uint64_t *nr)
{
	uint64_t zones = p->blocks / p->zone_size;
	uint32_t each = (p->most - 64) / sizeof(struct nvme_zns_desc);
	struct nvme_zone_report *all, *part;
	uint64_t at = 0, got;
	int err = 0;

	all = calloc(1, sizeof(*all) + zones * sizeof(all->entries[0]));
	part = calloc(1, p->most);
	if (!all || !part)
		err = -ENOMEM;
	while (!err && at < zones) {
		uint32_t n = zones - at < each ? zones - at : each;

		err = host_report(p->q, p->nsid, at * p->zone_size, 0, 0, true, part,
				  sizeof(*part) + n * sizeof(part->entries[0]));
		got = le64toh(part->nr_zones);
		if (!err && (!got || got > n))
			err = -EPROTO;
		if (!err)
			memcpy(all->entries + at, part->entries, got * sizeof(part->entries[0]));
		at += got;
	}
	free(part);
	if (err) {
		free(all);
		return err;
	}
	*out = all;
	*nr = zones;
	return 0;
}

static int verb_report(struct probe *p)
{
	struct nvme_zone_report *rep;
	uint64_t nr, i;
	int err = all_zones(p, &rep, &nr);

	if (err)
		return err;
	printf("{\"nr_zones\":%" PRIu64 ",\"zone_list\":[", nr);
	for (i = 0; i < nr; i++) {
		const struct nvme_zns_desc *d = &rep->entries[i];

		printf("%s\n{\"slba\":%" PRIu64 ",\"wp\":%" PRIu64 ",\"cap\":%" PRIu64
		       ",\"state\":%u,\"type\":%u,\"attrs\":%u}",
		       i ? "," : "", (uint64_t)le64toh(d->zslba), (uint64_t)le64toh(d->wp),
		       (uint64_t)le64toh(d->zcap), d->zs >> 4, d->zt & 0xf, d->za);
	}
	printf("]}\n");
	free(rep);
	return 0;
}

/* write, append, verify: as many commands as the size needs. */
static int verb_data(struct probe *p, const char *verb, uint64_t lba, uint64_t blocks,
		     const char *pattern)
{
	uint32_t most = p->most / p->lba_size;
	uint8_t *want = malloc(p->most), *buf = malloc(p->most);
	uint64_t alba = lba;
	int err = want && buf ? 0 : -ENOMEM;

	while (blocks && !err) {
		uint32_t n = blocks < most ? blocks : most;
		uint32_t len = n * p->lba_size;

		fill(p, want, len, lba, pattern);
		if (!strcmp(verb, "write")) {
			err = host_write(p->q, p->nsid, lba, n, want, len);
		} else if (!strcmp(verb, "verify")) {
			err = host_read(p->q, p->nsid, lba, n, buf, len);
			if (!err && memcmp(buf, want, len))
				err = -EILSEQ;
		} else {
			err = host_append(p->q, p->nsid, lba, n, want, len, &alba);
			if (!err)
				printf("%" PRIu64 "\n", alba);
			n = blocks; /* appends are not split: they go where they go */
		}
		lba += n;
		blocks -= n;
	}
	free(want);
	free(buf);
	return err;
}

static int verb_zone(struct probe *p, const char *verb, const char *arg)
{
	static const struct {
		const char *name;
		enum nvme_zns_send_action zsa;
	} acts[] = {
		{ "open", NVME_ZNS_ZSA_OPEN },
		{ "close", NVME_ZNS_ZSA_CLOSE },
		{ "finish", NVME_ZNS_ZSA_FINISH },
		{ "reset", NVME_ZNS_ZSA_RESET },
	};
	bool all = !strcmp(arg, "all");
	size_t i;

	for (i = 0; i < sizeof(acts) / sizeof(acts[0]); i++)
		if (!strcmp(verb, acts[i].name))
			return host_zone(p->q, p->nsid, all ? 0 : strtoull(arg, NULL, 0),
					 acts[i].zsa, all);
	return -EINVAL;
}

static int verbs(struct probe *p, char **arg)
{
	int err;

	for (; *arg; arg++) {
		const char *verb = *arg;
		int args = 0;

		while (args < 3 && arg[args + 1])
			args++;
		if (!strcmp(verb, "report")) {
			err = verb_report(p);
		} else if (!strcmp(verb, "flush")) {
			err = host_flush(p->q, p->nsid);
		} else if (args >= 1 && !strcmp(verb, "nsid")) {
			err = select_ns(p, strtoul(*++arg, NULL, 0));
		} else if (args >= 1 && !strcmp(verb, "sleep")) {
			fflush(stdout);
			err = sleep(strtoul(*++arg, NULL, 0)) ? -EINTR : 0;
		} else if (args >= 3 && (!strcmp(verb, "write") || !strcmp(verb, "append") ||
					 !strcmp(verb, "verify"))) {
			err = verb_data(p, verb, strtoull(arg[1], NULL, 0),
					strtoull(arg[2], NULL, 0), arg[3]);
			arg += 3;
		} else if (args >= 1) {
			err = verb_zone(p, verb, *++arg);
		} else {
			err = -EINVAL;
		}
		if (err)
			return failed(p, verb, err);
	}
	return 0;
}

/* The first zone that is empty, else an error. */
static int find_empty(struct probe *p, uint64_t *zslba)
{
	struct nvme_zone_report *rep;
	uint64_t nr, i, empty = 0, first = 0;
	int err = all_zones(p, &rep, &nr);

	if (err)
		return err;
	for (i = nr; i-- > 0;) {
		if (rep->entries[i].zs >> 4 == NVME_ZNS_ZS_EMPTY) {
			first = le64toh(rep->entries[i].zslba);
			empty++;
		}
	}
	free(rep);
	printf("report: %" PRIu64 " zones of %" PRIu64 " bytes, %" PRIu64 " empty\n", nr,
	       p->zone_size * p->lba_size, empty);
	*zslba = first;
	return empty ? 0 : -ENOSPC;
}

static int check(struct probe *p)
{
	uint8_t out[65536], in[65536];
	uint64_t zslba, alba;
	int err;

	err = find_empty(p, &zslba);
	if (err == -ENOSPC) {
		fprintf(stderr, "znsprobe: no zone is empty, so nothing can be tried\n");
		return 1;
	}
	if (err)
		return failed(p, "report zones", err);
	host_pattern(out, p->lba_size, 0, getpid());
	err = host_append(p->q, p->nsid, zslba, 1, out, p->lba_size, &alba);
	if (err)
		return failed(p, "zone append", err);
	printf("append: a block of %u bytes went to LBA %" PRIu64 "\n", p->lba_size, alba);
	err = host_read(p->q, p->nsid, alba, 1, in, p->lba_size);
	if (!err && memcmp(in, out, p->lba_size))
		err = -EILSEQ;
	if (!err)
		printf("read: the same block came back\n");
	else
		failed(p, "read back", err);
	if (alba == zslba) {
		int reset = host_zone(p->q, p->nsid, zslba, NVME_ZNS_ZSA_RESET, false);

		if (reset)
			return failed(p, "zone reset", reset);
		printf("reset: the zone is empty again\n");
	}
	return err ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct probe p = { 0 };
	char nqn[224];
	int err;

	if (argc < 3) {
		fprintf(stderr, "usage: znsprobe ADDR PORT [NQN [VERB [ARG]...]]\n");
		return 2;
	}
	if (argc < 4 || !strcmp(argv[3], "-")) {
		err = host_discover(argv[1], argv[2], nqn);
		if (err)
			return failed(&p, "discovery", err);
	} else {
		snprintf(nqn, sizeof(nqn), "%s", argv[3]);
	}
	err = host_attach(&p.c, argv[1], argv[2], nqn, NULL, NULL, 1, 0);
	if (err)
		return failed(&p, "connect", err);
	p.q = &p.c.io[0];
	err = select_ns(&p, 1);
	if (err)
		err = failed(&p, "identify", err);
	else if (argc > 4)
		err = verbs(&p, argv + 4);
	else {
		printf("connected: %s at %s port %s\n", nqn, argv[1], argv[2]);
		err = check(&p);
	}
	host_detach(&p.c);
	return err;
}
