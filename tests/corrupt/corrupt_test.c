/* SPDX-License-Identifier: MIT */
/*
 * Damaged images by the hundred thousand: every golden image (golden.c), every damage of a kind
 * (damage.c), judged by the rules of judge.c.
 *
 *	corrupt_test KIND [--golden NAME] [--sample N] [--from N --to N] [--least N] [-v]
 *	corrupt_test --case GOLDEN:KIND:NUMBER
 *	corrupt_test --write DIR
 *
 * KIND is bit, field, cut, splice or random. --sample tries about N cases, evenly spread, of the
 * kinds that have an end; --from and --to bound the case numbers, of random the seeds. --least
 * fails when fewer images than that were opened: a net with holes is noticed. A finding is printed
 * as a case, to be tried alone. --write puts the golden images into files, for the fuzzer and for
 * other programs to look at.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../tally.h"
#include "damage.h"
#include "judge.h"

#define STUCK_SECONDS 60 /* of real time: the machine may be busy */
#define MAX_FINDINGS  20

struct options {
	enum damage kind;
	const char *golden;
	uint64_t sample, from, to, least;
	bool verbose;
};

struct tally {
	uint64_t images, opens, succeeded, sound, findings;
	double worst_seconds;
	size_t worst_bytes;
};

static char current[96]; /* the name of the present case, for the signal handler */

static void on_signal(int sig)
{
	static const char text[] = "\nended in the case ";
	ssize_t n = write(STDERR_FILENO, text, sizeof(text) - 1);

	n += write(STDERR_FILENO, current, strlen(current));
	n += write(STDERR_FILENO, "\n", 1);
	(void)n;
	signal(sig, SIG_DFL);
	raise(sig);
}

static void catch_signals(void)
{
	static const int fatal[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM };

	for (size_t i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
		signal(fatal[i], on_signal);
}

static void try_case(struct test_image *p, enum damage kind, uint64_t i, struct tally *t,
		     bool verbose)
{
	struct verdict v;

	snprintf(current, sizeof(current), "%s:%s:%llu", p->g->name, damage_names[kind],
		 (unsigned long long)i);
	if (damage_do(p, kind, i)) {
		judge(p->d, JUDGE_READ | JUDGE_WRITE, &v);
		t->images++;
		t->opens += v.opens;
		t->succeeded += v.succeeded;
		t->sound += v.sound;
		if (v.seconds > t->worst_seconds)
			t->worst_seconds = v.seconds;
		if (v.bytes > t->worst_bytes)
			t->worst_bytes = v.bytes;
		if (v.broken && t->findings++ < MAX_FINDINGS)
			printf("FAIL %s: %s\n", current, v.why);
		if (verbose)
			printf("%s: %u of %u opens, %s, %.6f s, %zu bytes\n", current, v.succeeded,
			       v.opens, v.sound ? "sound" : "not sound", v.seconds, v.bytes);
	}
	test_image_restore(p);
}

static void run_golden(const struct golden *g, const struct options *o, uint64_t step,
		       struct tally *t)
{
	uint64_t end = damage_count(g, o->kind);
	struct test_image p;

	if (end > o->to)
		end = o->to;
	test_image_init(&p, g);
	for (uint64_t i = o->from, n = 0; i < end; i += step, n++) {
		if (n % 1024 == 0)
			alarm(STUCK_SECONDS);
		try_case(&p, o->kind, i, t, o->verbose);
	}
	alarm(0);
	test_image_free(&p);
}

static int run(const struct options *o)
{
	const struct golden *all;
	size_t nr = goldens(&all);
	uint64_t total = 0, step = 1;
	struct tally t = { 0 };
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (size_t i = 0; i < nr; i++)
		total += damage_count(&all[i], o->kind);
	if (o->sample && o->kind != DAMAGE_RANDOM && o->sample < total)
		step = (total / o->sample) | 1; /* odd, so that each bit of a byte gets tested */
	for (size_t i = 0; i < nr; i++)
		if (!o->golden || !strcmp(o->golden, all[i].name))
			run_golden(&all[i], o, step, &t);
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%s: %llu damaged images, %llu opens of them (%llu succeeded), %llu sound by check, "
	       "%llu findings; at most %.3f s and %zu KiB; %.1f s in all\n",
	       damage_names[o->kind], (unsigned long long)t.images, (unsigned long long)t.opens,
	       (unsigned long long)t.succeeded, (unsigned long long)t.sound,
	       (unsigned long long)t.findings, t.worst_seconds, t.worst_bytes >> 10,
	       b.tv_sec - a.tv_sec + (b.tv_nsec - a.tv_nsec) * 1e-9);
	tally("corrupt kind=%s images=%llu opens=%llu sound=%llu findings=%llu worst_ms=%.0f "
	      "worst_kib=%zu",
	      damage_names[o->kind], (unsigned long long)t.images, (unsigned long long)t.opens,
	      (unsigned long long)t.sound, (unsigned long long)t.findings, t.worst_seconds * 1e3,
	      t.worst_bytes >> 10);
	if (t.images < o->least)
		printf("FAIL: at least %llu images were expected\n", (unsigned long long)o->least);
	return t.findings || t.images < o->least;
}

static int find_kind(const char *name, size_t len)
{
	for (int k = 0; k < NR_DAMAGES; k++)
		if (strlen(damage_names[k]) == len && !strncmp(damage_names[k], name, len))
			return k;
	fprintf(stderr, "corrupt_test: there is no kind '%.*s'\n", (int)len, name);
	exit(2);
}

static int run_one(const char *name)
{
	const char *kind = strchr(name, ':'), *number = kind ? strchr(kind + 1, ':') : NULL;
	struct tally t = { 0 };
	struct test_image p;
	char golden[32];

	if (!number) {
		fprintf(stderr, "corrupt_test: a case is GOLDEN:KIND:NUMBER\n");
		return 2;
	}
	snprintf(golden, sizeof(golden), "%.*s", (int)(kind - name), name);
	if (!golden_find(golden)) {
		fprintf(stderr, "corrupt_test: there is no golden image '%s'\n", golden);
		return 2;
	}
	test_image_init(&p, golden_find(golden));
	alarm(STUCK_SECONDS);
	try_case(&p, find_kind(kind + 1, number - kind - 1), strtoull(number + 1, NULL, 0), &t,
		 true);
	test_image_free(&p);
	return t.findings != 0;
}

static int write_all(const char *dir)
{
	const struct golden *all;
	size_t nr = goldens(&all);

	for (size_t i = 0; i < nr; i++) {
		char path[4096];
		FILE *f;

		snprintf(path, sizeof(path), "%s/%s.qcow2", dir, all[i].name);
		f = fopen(path, "w");
		if (!f || fwrite(all[i].bytes, 1, all[i].size, f) != all[i].size || fclose(f)) {
			fprintf(stderr, "corrupt_test: %s: %s\n", path, strerror(errno));
			return 2;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "golden", required_argument, NULL, 'g' },
		{ "sample", required_argument, NULL, 's' },
		{ "from", required_argument, NULL, 'f' },
		{ "to", required_argument, NULL, 't' },
		{ "least", required_argument, NULL, 'l' },
		{ "case", required_argument, NULL, 'c' },
		{ "write", required_argument, NULL, 'w' },
		{ NULL, 0, NULL, 0 },
	};
	struct options o = { .to = UINT64_MAX };
	int c;

	setvbuf(stdout, NULL, _IOLBF, 0);
	catch_signals();
	while ((c = getopt_long(argc, argv, "v", longs, NULL)) != -1) {
		switch (c) {
		case 'g':
			o.golden = optarg;
			break;
		case 's':
			o.sample = strtoull(optarg, NULL, 0);
			break;
		case 'f':
			o.from = strtoull(optarg, NULL, 0);
			break;
		case 't':
			o.to = strtoull(optarg, NULL, 0);
			break;
		case 'l':
			o.least = strtoull(optarg, NULL, 0);
			break;
		case 'c':
			return run_one(optarg);
		case 'w':
			return write_all(optarg);
		case 'v':
			o.verbose = true;
			break;
		default:
			return 2;
		}
	}
	if (optind + 1 != argc) {
		fprintf(stderr, "corrupt_test: say which kind of damage\n");
		return 2;
	}
	o.kind = find_kind(argv[optind], strlen(argv[optind]));
	if (o.kind == DAMAGE_RANDOM && o.to == UINT64_MAX)
		o.to = o.from + 2000;
	return run(&o);
}
