/* SPDX-License-Identifier: MIT */
/*
 * The crash laboratory: what may a power cut, or kill -9, leave of a drive?
 *
 *	workload.c   what is done: a table of scripts
 *	drive.c      does it, to the engine and to the model alike
 *	simdisk.c    the file under the engine, which remembers every change in order
 *	explore.c    builds every state a crash may leave, and judges it
 *	model.c      the judge: the durability contract D1 to D5 (docs/reliability.md)
 *	sites.c      which places of the engine wrote, and were cut before and after
 *	qemu.c       a second opinion on a sample
 *	lab.c        the command line, totals, and what is said of a violation
 *
 * Everything follows from workload, seed and the number of the state, so a violation is printed
 * with the command that shows it again.
 *
 *	crash_lab [--workload NAME]... [--part I/N] [--from SEED] [--to SEED] [--seed SEED]
 *	          [--state N] [--depth N] [--every N] [--seconds S] [--keep FILE] [--hashes FILE] [--sites]
 *	          [--at-least STATES]
 *	crash_lab --tally AT-LEAST FILE...     distinct states of several runs together
 *	crash_lab --list
 *	crash_lab_planted --plant NAME ...     succeeds when a violation is found
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../tally.h"
#include "lab.h"
#ifdef QCOW2_PLANT
#include "plant.h"
#endif

struct options {
	const char *workload[64];
	unsigned int nr_workloads;
	unsigned int part, parts;
	uint64_t from, to;
	uint64_t at_least;
	const char *hashes;
	bool sites, verbose;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Remembers which clauses of the contract WHY names: "D1:". */
static void note_clauses(struct lab *lab, const char *why)
{
	for (; *why; why++)
		if (why[0] == 'D' && why[1] >= '1' && why[1] <= '8' && why[2] == ':')
			lab->clauses |= 1u << (why[1] - '0');
}

void lab_violation(struct lab *lab, const struct simdisk *state, const char *how, const char *why)
{
	lab->violations++;
	note_clauses(lab, why);
	printf("VIOLATION in workload %s, seed %llu, state %llu\n  %s\n  %s\n", lab->w->name,
	       (unsigned long long)lab->seed, (unsigned long long)lab->ordinal, why, how);
	printf("  again: crash_lab%s%s%s --workload %s --seed %llu --state %llu --keep FILE\n",
	       lab->plant ? "_planted --plant " : "", lab->plant ? lab->plant : "",
	       lab->depth != 200 ? " (and the same --depth)" : "", lab->w->name,
	       (unsigned long long)lab->seed, (unsigned long long)lab->ordinal);
	fflush(stdout);
	if (lab->keep && state) {
		FILE *f = fopen(lab->keep, "w");

		if (!f || fwrite(state->data, 1, state->size, f) != state->size)
			printf("  %s could not be written\n", lab->keep);
		if (f)
			fclose(f);
	}
}

/* The image that stands where the workload will create its own. */
static bool create_another(struct drive *d, size_t *explored_from)
{
	if (!drive_create(d, 1) || !drive_open(d) || !drive_run(d, "a0:9 a1:3 f") ||
	    !drive_close(d))
		return false;
	model_free(d->m);
	d->m = model_new(&d->geo_model);
	*explored_from = d->log->nr;
	return true;
}

/* Runs a workload once, recording, then explores what it recorded. */
static void run_workload(struct lab *lab)
{
	struct oplog log = { 0 };
	struct drive d = { .geo = lab->w->geo, .log = &log };
	bool again = !strcmp(lab->w->name, "create-again");
	bool create = again || !strcmp(lab->w->name, "create");
	struct model_geo geo = {
		.nr_zones = d.geo->most_zones ? d.geo->most_zones : d.geo->nr_zones,
		.conventional = d.geo->conventional,
		.zone_lbas = d.geo->zone / MODEL_LBA,
		.cap_lbas = d.geo->capacity / MODEL_LBA,
		.lbas = ((uint64_t)d.geo->zone * d.geo->nr_zones - d.geo->short_by) / MODEL_LBA,
		.max_active = d.geo->max_active,
	};

	d.disk = simdisk_new(d.geo->cap);
	d.disk->file.in_memory = d.geo->in_memory;
	d.disk->file.direct = d.geo->direct;
	d.disk->log = &log;
	d.disk->trace = true;
	d.geo_model = geo;
	d.m = model_new(&geo);
	d.dice.state = lab->seed;
	d.adopted = SIZE_MAX;
	d.loud = lab->only_state;
	d.buf = malloc(d.geo->zone);
	if (!d.buf)
		abort();
	lab->ordinal = 0;
	if ((again && !create_another(&d, &d.record_from)) || !drive_create(&d, 0) ||
	    !drive_open(&d)) {
		lab_violation(lab, NULL, "while the workload ran", d.why);
		goto out;
	}
	if (!create)
		d.record_from = log.nr;
	if (!drive_run(&d, lab->w->script) || !drive_close(&d))
		lab_violation(lab, NULL, "while the workload ran", d.why);
	else
		explore(lab, &d);
	sites_merge(lab, &log);
out:
	drive_kill(&d);
	free(d.buf);
	model_free(d.m);
	oplog_free(&log);
	simdisk_free(d.disk);
}

static bool is_wanted(const struct options *o, unsigned int i)
{
	if (!o->nr_workloads)
		return true;
	for (unsigned int k = 0; k < o->nr_workloads; k++)
		if (!strcmp(o->workload[k], workloads[i].name))
			return true;
	return false;
}

/* Workload by workload and seed by seed; the pairs are dealt to the parts in turn. */
static void run_all(struct lab *lab, const struct options *o)
{
	uint64_t turn = 0;
	double start = now();

	for (unsigned int i = 0; i < nr_workloads && !lab_should_stop(lab); i++) {
		uint64_t last = workloads[i].seeds < o->to ? workloads[i].seeds : o->to;
		uint64_t states = lab->states, distinct = lab->images.nr;

		if (!is_wanted(o, i))
			continue;
		if (o->from == o->to) /* --seed: whatever the table says */
			last = o->to;
		for (lab->seed = o->from; lab->seed <= last && !lab_should_stop(lab); lab->seed++) {
			if (turn++ % o->parts != o->part)
				continue;
			lab->w = &workloads[i];
			run_workload(lab);
		}
		printf("%7.1f s  %-20s seeds %llu..%llu: %llu states, %llu new\n", now() - start,
		       workloads[i].name, (unsigned long long)o->from, (unsigned long long)last,
		       (unsigned long long)(lab->states - states),
		       (unsigned long long)(lab->images.nr - distinct));
		fflush(stdout);
	}
}

static int write_hashes(const struct hashset *s, const char *path)
{
	FILE *f = fopen(path, "w");
	bool ok = f;

	for (size_t i = 0; i < s->cap && ok; i++)
		if (s->slot[i])
			ok = fwrite(&s->slot[i], 8, 1, f) == 1;
	if (f && fclose(f))
		ok = false;
	if (!ok)
		fprintf(stderr, "crash_lab: %s could not be written\n", path);
	return ok ? 0 : 1;
}

static int unite(int argc, char **argv)
{
	struct hashset all = { 0 };
	uint64_t at_least = strtoull(argv[0], NULL, 10), h;

	for (int i = 1; i < argc; i++) {
		FILE *f = fopen(argv[i], "r");

		if (!f) {
			fprintf(stderr, "crash_lab: %s is missing: did that run fail?\n", argv[i]);
			return 1;
		}
		while (fread(&h, 8, 1, f) == 1)
			hashset_add(&all, h);
		fclose(f);
	}
	printf("%zu distinct crash states, at least %llu expected\n", all.nr,
	       (unsigned long long)at_least);
	tally("crash_distinct distinct_states=%zu", all.nr);
	free(all.slot);
	return all.nr >= at_least ? 0 : 1;
}

static int list(void)
{
	for (unsigned int i = 0; i < nr_workloads; i++)
		printf("%-20s %-8s %4u  %s\n", workloads[i].name, workloads[i].geo->name,
		       workloads[i].seeds, workloads[i].script);
	return 0;
}

static int choose_plant(struct lab *lab, const char *name)
{
#ifdef QCOW2_PLANT
	plant_chosen = name;
	lab->plant = name;
	lab->stop_at_first = true;
	return 0;
#else
	(void)lab;
	fprintf(stderr, "crash_lab: built without planted bugs; %s needs crash_lab_planted\n",
		name);
#endif
	return -1;
}

static int parse(int argc, char **argv, struct lab *lab, struct options *o)
{
	static const struct option table[] = {
		{ "workload", 1, NULL, 'w' }, { "part", 1, NULL, 'p' },
		{ "from", 1, NULL, 'f' },     { "to", 1, NULL, 't' },
		{ "seed", 1, NULL, 's' },     { "state", 1, NULL, 'n' },
		{ "depth", 1, NULL, 'd' },    { "seconds", 1, NULL, 'S' },
		{ "keep", 1, NULL, 'k' },     { "hashes", 1, NULL, 'h' },
		{ "sites", 0, NULL, 'v' },    { "at-least", 1, NULL, 'a' },
		{ "plant", 1, NULL, 'P' },    { "every", 1, NULL, 'e' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
		switch (c) {
		case 'w':
			if (o->nr_workloads < 64)
				o->workload[o->nr_workloads++] = optarg;
			break;
		case 'p':
			if (sscanf(optarg, "%u/%u", &o->part, &o->parts) != 2 || !o->parts)
				return -1;
			break;
		case 'f':
			o->from = strtoull(optarg, NULL, 10);
			break;
		case 't':
			o->to = strtoull(optarg, NULL, 10);
			break;
		case 's':
			o->from = o->to = strtoull(optarg, NULL, 10);
			break;
		case 'n':
			lab->only_state = strtoull(optarg, NULL, 10);
			break;
		case 'd':
			lab->depth = strtoull(optarg, NULL, 10);
			break;
		case 'S':
			lab->deadline = now() + strtod(optarg, NULL);
			break;
		case 'k':
			lab->keep = optarg;
			break;
		case 'h':
			o->hashes = optarg;
			break;
		case 'v':
			o->sites = true;
			break;
		case 'a':
			o->at_least = strtoull(optarg, NULL, 10);
			break;
		case 'e':
			lab->every = strtoull(optarg, NULL, 10);
			if (!lab->every)
				return -1;
			break;
		case 'P':
			if (choose_plant(lab, optarg))
				return -1;
			break;
		default:
			return -1;
		}
	}
	return optind == argc ? 0 : -1;
}

/* "D1+D2", or "-" when no clause was named. */
static const char *clauses(const struct lab *lab)
{
	static char text[32];
	char *at = text;

	for (unsigned int d = 1; d <= 8; d++)
		if (lab->clauses & 1u << d)
			at += sprintf(at, "%sD%u", at == text ? "" : "+", d);
	return at == text ? "-" : text;
}

int main(int argc, char **argv)
{
	struct lab lab = { .depth = 200, .every = 1, .continue_every = 4, .qemu_every = 500 };
	struct options o = { .parts = 1, .from = 1, .to = 2 };
	double start = now();
	bool ok;

	if (argc > 3 && !strcmp(argv[1], "--tally"))
		return unite(argc - 2, argv + 2);
	if (argc == 2 && !strcmp(argv[1], "--list"))
		return list();
	if (parse(argc, argv, &lab, &o)) {
		fprintf(stderr, "crash_lab: wrong usage; the head of lab.c explains\n");
		return 2;
	}
	run_all(&lab, &o);
	printf("crash states: %llu built, %zu distinct, %llu went on and were cut again, "
	       "%llu given to qemu-img%s; %.0f s\nviolations: %llu\n",
	       (unsigned long long)lab.states, lab.images.nr, (unsigned long long)lab.continued,
	       (unsigned long long)lab.qemu, qemu_is_there() ? "" : " (which is not there)",
	       now() - start, (unsigned long long)lab.violations);
	if (lab.plant) {
		printf("%s was %s\n", lab.plant, lab.violations ? "caught" : "NOT caught");
		tally("planted bug=%s caught=%d clauses=%s states=%llu", lab.plant,
		      lab.violations > 0, clauses(&lab), (unsigned long long)lab.states);
		return lab.violations ? 0 : 1;
	}
	tally("crash states_built=%llu cut_again=%llu given_to_qemu_img=%llu violations=%llu",
	      (unsigned long long)lab.states, (unsigned long long)lab.continued,
	      (unsigned long long)lab.qemu, (unsigned long long)lab.violations);
	ok = sites_report(&lab, o.sites) || !o.sites;
	if (lab.images.nr < o.at_least) {
		printf("at least %llu distinct states were expected\n",
		       (unsigned long long)o.at_least);
		ok = false;
	}
	if (o.hashes && write_hashes(&lab.images, o.hashes))
		ok = false;
	free(lab.images.slot);
	free(lab.judged.slot);
	free(lab.site);
	return ok && !lab.violations ? 0 : 1;
}
