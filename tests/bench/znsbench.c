// SPDX-License-Identifier: MIT
/*
 * znsbench: how fast does the drive answer?
 *
 *	znsbench [OPTION]... ADDR PORT [NQN]	a drive
 *	znsbench --floor [OPTION]... ADDR PORT	znsfloor, with the same bytes on the wire
 *
 *	--rw randread|read|write|append|mixed|fs	see plan.c
 *	--bs N[k]	bytes a command moves (4k)
 *	--depth N	commands in flight on each connection (1)
 *	--conns N	connections (1)
 *	--zones N	zones in use at once
 *	--seconds S	of each round (1), after a quarter of that, at most 0.25 s, to get warm
 *	--rounds N	(1)
 *	--bytes N[k|m|g] of each round, instead of --seconds; the first command counts: what is measured
 *			is a drive that is not warm
 *	--flush N[k|m|g] a Flush whenever so much was written. How long it takes is told apart
 *	--dirty N[k|m|g] before each round write so much and reset the zones: how long does a command wait
 *			for the sync of what is worth nothing?
 *	--digests	header and data digests
 *	--poll		never sleep, but look for what came again and again
 *	--prefill	fill the zones that will be read, where they are not full
 *	--cpu N		stay on that processor
 *	--target-pid N	tell the processor time of that process too
 *	--json		print all that was counted
 *	--idle S	a quarter of a second of load, then the line "idle", then silence for S seconds
 *
 * Zones that are to be written are reset before the first round, and whenever no room is left:
 * nothing is in flight then, and neither that time nor that processor time counts, but how often it
 * was so is told ("resets"), and the longest reset of all ("reset_max_us").
 *
 * The I/O queues are asked for as Linux does, without SQ flow control, so that reads end with their
 * data. Ends 0, 1 when something failed, 2 for a wrong command line.
 */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "load.h"

#define CONNS_MAX  128
#define ROUNDS_MAX 100
#define PIECE	   (128u << 10) /* of a prefill */
#define WARM_NS	   250000000u
#define BYTES_MAX  (1ull << 50)

/* What a round tells, in the order of the JSON. */
enum {
	SECONDS,
	OPS,
	IOPS,
	MB_S,
	MEAN,
	P50,
	P99,
	P999,
	MAX,
	TARGET_MOP, /* CPU seconds per million operations */
	OWN_MOP,
	TARGET_CPU, /* processors, all the time: 0 to 1 for one thread */
	OWN_CPU,
	OPS_A_WAKE,
	RESETS,
	RESET_MAX,
	FLUSHES,
	FLUSH_P50,
	FLUSH_P99,
	FLUSH_MAX,
	NR_VALUES
};
static const char *const value_names[NR_VALUES] = {
	"seconds",	   "ops",	 "iops",	  "mb_s",	  "mean_us",
	"p50_us",	   "p99_us",	 "p999_us",	  "max_us",	  "target_s_mop",
	"initiator_s_mop", "target_cpu", "initiator_cpu", "ops_per_wake", "resets",
	"reset_max_us",	   "flushes",	 "flush_p50_us",  "flush_p99_us", "flush_max_us",
};

struct round {
	double v[NR_VALUES];
};

struct bench {
	const char *addr, *port, *rw_name;
	char nqn[224];
	enum plan_rw rw;
	uint32_t bs, depth, conns, zones, rounds;
	uint64_t bytes, flush, dirty;
	double seconds, idle;
	bool floor, digests, poll, prefill, json;
	int cpu;
	pid_t pid;
	struct host_ctrl ctrl;
	struct host_queue queues[CONNS_MAX];
	uint32_t nr_queues, icd, most;
	struct plan_drive drive;
	struct plan plan;
	struct load load;
	/* Of the present round, while load_run() ran: ns. */
	uint64_t target_ns, own_ns, resets, reset_max;
};

static int failed(const char *what, int err)
{
	if (err > 0)
		fprintf(stderr, "znsbench: %s: the target answers status 0x%x\n", what, err);
	else
		fprintf(stderr, "znsbench: %s: %s\n", what, strerror(-err));
	return 1;
}

/* ---- processor time ---- */

/* Of all threads of the target, or 0. */
static uint64_t target_ns(pid_t pid)
{
	char path[64 + NAME_MAX];
	uint64_t sum = 0, ns;
	struct dirent *d;
	DIR *dir;
	FILE *f;

	if (!pid)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (d = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", pid, d->d_name);
		f = *d->d_name == '.' ? NULL : fopen(path, "r");
		if (f && fscanf(f, "%" SCNu64, &ns) == 1)
			sum += ns;
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
	return sum;
}

static uint64_t own_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- the drive ---- */

static int identify(struct bench *b)
{
	struct host_queue *q = &b->ctrl.admin;
	struct nvme_zns_id_ctrl zctrl;
	struct nvme_zns_id_ns zns;
	struct nvme_id_ctrl ctrl;
	struct nvme_id_ns id;
	uint32_t got, want = b->conns - 1;
	uint8_t fmt;
	int err;

	err = host_identify(q, NVME_IDENTIFY_CNS_CTRL, 0, 0, &ctrl);
	if (!err)
		err = host_identify(q, NVME_IDENTIFY_CNS_CSI_CTRL, 0, NVME_CSI_ZNS, &zctrl);
	if (!err)
		err = host_identify(q, NVME_IDENTIFY_CNS_NS, 1, 0, &id);
	if (!err)
		err = host_identify(q, NVME_IDENTIFY_CNS_CSI_NS, 1, NVME_CSI_ZNS, &zns);
	if (!err)
		err = host_set_feature(q, NVME_FEAT_FID_NUM_QUEUES, 0, want << 16 | want, &got);
	if (err)
		return failed("identify", err);
	fmt = id.flbas & 0xf;
	if (id.lbaf[fmt].ds < 9 || id.lbaf[fmt].ds > 16 || !zns.lbafe[fmt].zsze ||
	    le32toh(ctrl.ioccsz) < 4 || (got & 0xffff) < want || got >> 16 < want)
		return failed("identify", -EPROTO);
	b->icd = le32toh(ctrl.ioccsz) * 16 - 64;
	b->most = ctrl.mdts && ctrl.mdts < 12 ? 4096u << ctrl.mdts : 4u << 20;
	if (b->rw >= PLAN_APPEND && zctrl.zasl && 4096u << zctrl.zasl < b->most)
		b->most = 4096u << zctrl.zasl;
	b->drive = (struct plan_drive){
		.nsid = 1,
		.lba_size = 1u << id.lbaf[fmt].ds,
		.zsze = le64toh(zns.lbafe[fmt].zsze),
	};
	b->drive.zones = (uint32_t)(le64toh(id.nsze) / b->drive.zsze);
	return 0;
}

static int attach_queue(struct bench *b, uint16_t qid)
{
	struct host_queue *q = &b->queues[b->nr_queues];
	struct host_connect con;
	int err;

	err = host_open(q, b->addr, b->port, &b->ctrl.ic);
	if (err)
		return failed("connect", err);
	b->nr_queues++;
	q->icd = b->icd;
	host_connect_init(&con, qid, LOAD_DEPTH - 1, b->nqn, HOST_NQN, b->ctrl.cntlid);
	con.cattr = 1 << 2; /* no SQ flow control */
	err = host_connect(q, &con, NULL);
	return err ? failed("connect", err) : 0;
}

/* The report's entry for zone Z. */
static int report_one(struct bench *b, uint32_t z, struct nvme_zns_desc *d)
{
	uint64_t buf[(sizeof(struct nvme_zone_report) + sizeof(*d)) / 8];
	const struct nvme_zone_report *rep = (void *)buf;
	int err;

	err = host_report(&b->queues[0], 1, z * b->drive.zsze, 0, 0, true, buf, sizeof(buf));
	if (!err)
		*d = rep->entries[0];
	return err;
}

static int connect_drive(struct bench *b)
{
	struct host_ic ic = { .hdgst = b->digests, .ddgst = b->digests };
	struct nvme_zns_desc d;
	int err;

	if (!*b->nqn) {
		err = host_discover(b->addr, b->port, b->nqn);
		if (err)
			return failed("discover", err);
	}
	err = host_attach(&b->ctrl, b->addr, b->port, b->nqn, NULL, &ic, 0, 0);
	if (err)
		return failed("connect", err);
	err = identify(b);
	for (uint32_t i = 0; i < b->conns && !err; i++)
		err = attach_queue(b, (uint16_t)(i + 1));
	if (err)
		return err;
	err = report_one(b, 0, &d);
	if (err)
		return failed("report zones", err);
	b->drive.zcap = le64toh(d.zcap);
	if (b->bs <= b->most)
		return 0;
	fprintf(stderr, "znsbench: a command of this drive moves at most %u bytes\n", b->most);
	return 1;
}

/* Connections, and a drive as any other that is not there. */
static int connect_floor(struct bench *b)
{
	b->drive = (struct plan_drive){ 1, 512, 1 << 20, (64 << 20) / 512, (64 << 20) / 512 };
	while (b->nr_queues < b->conns) {
		struct host_queue *q = &b->queues[b->nr_queues];
		int err = host_dial(q, b->addr, b->port);

		if (err)
			return failed("connect", err);
		b->nr_queues++;
		q->maxh2cdata = 1u << 20;
		q->hdgst = q->ddgst = b->digests;
	}
	return 0;
}

static int fill_zone(struct bench *b, uint32_t z)
{
	uint32_t most = b->most < PIECE ? b->most : PIECE;
	uint64_t lba = z * b->drive.zsze, end = lba + b->drive.zcap;
	uint8_t *buf = malloc(most);
	int err;

	if (!buf)
		return -ENOMEM;
	err = host_zone(&b->queues[0], 1, lba, NVME_ZNS_ZSA_RESET, false);
	while (!err && lba < end) {
		uint32_t n = most / b->drive.lba_size;

		if (n > end - lba)
			n = (uint32_t)(end - lba);
		host_pattern(buf, n * b->drive.lba_size, lba * b->drive.lba_size, 1);
		err = host_write(&b->queues[0], 1, lba, n, buf, n * b->drive.lba_size);
		lba += n;
	}
	free(buf);
	return err;
}

/* The zones to be read must be full, the zones to be written empty. */
static int ready_to_read(struct bench *b)
{
	for (uint32_t z = 0; z < b->plan.readers; z++) {
		struct nvme_zns_desc d;
		int err = report_one(b, z, &d);

		if (err)
			return failed("report zones", err);
		if (d.zs >> 4 == NVME_ZNS_ZS_FULL)
			continue;
		if (!b->prefill) {
			fprintf(stderr, "znsbench: zone %u is not full; see --prefill\n", z);
			return 1;
		}
		err = fill_zone(b, z);
		if (err)
			return failed("prefill", err);
	}
	return 0;
}

static int reset_zones(struct bench *b)
{
	uint32_t z = b->floor || !b->plan.writers ? b->drive.zones : b->plan.readers;
	bool all = z == 0; /* none is read */
	int err = 0;

	for (; z < b->drive.zones && !err; z += all ? b->drive.zones : 1) {
		uint64_t start = load_clock();

		err = host_zone(&b->queues[0], 1, z * b->drive.zsze, NVME_ZNS_ZSA_RESET, all);
		if (load_clock() - start > b->reset_max)
			b->reset_max = load_clock() - start;
	}
	plan_rewind(&b->plan);
	return err ? failed("reset", err) : 0;
}

/* ---- rounds ---- */

/* Loads the drive for NS nanoseconds, or, if BYTES is not 0, until so many were moved. */
static int run(struct bench *b, uint64_t ns, uint64_t bytes)
{
	uint64_t start = b->load.ns;
	int err;

	if (bytes)
		ns = 3600 * 1000000000ull;
	b->load.budget = bytes ? (bytes + b->bs - 1) / b->bs : UINT64_MAX;
	do {
		uint64_t target = target_ns(b->pid), own = own_ns();

		err = load_run(&b->load, ns - (b->load.ns - start));
		b->own_ns += own_ns() - own;
		b->target_ns += target_ns(b->pid) - target;
		if (err < 0) {
			fprintf(stderr, "znsbench: %s\n", b->load.why);
			return 1;
		}
		if (err != LOAD_FULL)
			return 0;
		b->resets++;
		if (reset_zones(b))
			return 1;
	} while (b->load.ns - start < ns);
	return 0;
}

static int round_run(struct bench *b, struct round *r)
{
	const struct hist *h = &b->load.hist, *flushes = &b->load.flushes;
	uint64_t ns = (uint64_t)(b->seconds * 1e9);
	double s, ops;

	b->reset_max = 0;
	if (b->dirty && (run(b, 0, b->dirty) || reset_zones(b)))
		return 1;
	if (!b->dirty && !b->bytes && run(b, ns / 4 < WARM_NS ? ns / 4 : WARM_NS, 0))
		return 1;
	load_clear(&b->load);
	b->target_ns = b->own_ns = b->resets = 0;
	if (run(b, ns, b->bytes))
		return 1;
	s = (double)b->load.ns / 1e9;
	ops = (double)h->n;
	r->v[SECONDS] = s;
	r->v[OPS] = ops;
	r->v[IOPS] = ops / s;
	r->v[MB_S] = ops * b->bs / s / 1e6;
	r->v[MEAN] = (double)h->sum / ops / 1e3;
	r->v[P50] = (double)hist_quantile(h, 0.5) / 1e3;
	r->v[P99] = (double)hist_quantile(h, 0.99) / 1e3;
	r->v[P999] = (double)hist_quantile(h, 0.999) / 1e3;
	r->v[MAX] = (double)h->max / 1e3;
	r->v[TARGET_MOP] = b->pid ? (double)b->target_ns / 1e3 / ops : NAN;
	r->v[OWN_MOP] = (double)b->own_ns / 1e3 / ops;
	r->v[TARGET_CPU] = b->pid ? (double)b->target_ns / 1e9 / s : NAN;
	r->v[OWN_CPU] = (double)b->own_ns / 1e9 / s;
	r->v[OPS_A_WAKE] = ops / (double)b->load.wakes;
	r->v[RESETS] = (double)b->resets;
	r->v[RESET_MAX] = (double)b->reset_max / 1e3;
	r->v[FLUSHES] = (double)flushes->n;
	r->v[FLUSH_P50] = flushes->n ? (double)hist_quantile(flushes, 0.5) / 1e3 : NAN;
	r->v[FLUSH_P99] = flushes->n ? (double)hist_quantile(flushes, 0.99) / 1e3 : NAN;
	r->v[FLUSH_MAX] = flushes->n ? (double)flushes->max / 1e3 : NAN;
	return 0;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(const struct round *rounds, uint32_t n, int value)
{
	double v[ROUNDS_MAX];

	for (uint32_t i = 0; i < n; i++)
		v[i] = rounds[i].v[value];
	qsort(v, n, sizeof(*v), by_value);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void print_round(const struct round *r)
{
	for (int i = 0; i < NR_VALUES; i++) {
		printf("%s\"%s\":", i ? "," : "{", value_names[i]);
		if (isnan(r->v[i]))
			printf("null");
		else
			printf("%.*f", i == OPS || i == IOPS || i == RESETS || i == FLUSHES ? 0 : 3,
			       r->v[i]);
	}
	printf("}");
}

static void print_json(const struct bench *b, const struct round *rounds, const struct round *mid)
{
	printf("{\"rw\":\"%s\",\"bs\":%u,\"depth\":%u,\"conns\":%u,\"zones\":%u,\"floor\":%s,"
	       "\"digests\":%s,\"poll\":%s,\n\"rounds\":[",
	       b->rw_name, b->bs, b->depth, b->conns, b->plan.readers + b->plan.writers,
	       b->floor ? "true" : "false", b->digests ? "true" : "false",
	       b->poll ? "true" : "false");
	for (uint32_t i = 0; i < b->rounds; i++) {
		printf(i ? ",\n" : "\n");
		print_round(&rounds[i]);
	}
	printf("],\n\"median\":");
	print_round(mid);
	printf("}\n");
}

static void print_text(const struct bench *b, const struct round *mid)
{
	const double *v = mid->v;

	printf("%s%s %u x%u depth %u: %.0f IOPS, %.1f MB/s; mean %.1f, p50 %.1f, p99 %.1f, "
	       "p99.9 %.1f us; CPU s/Mop: target %.2f, initiator %.2f; %.1f a wake-up\n",
	       b->floor ? "floor " : "", b->rw_name, b->bs, b->conns, b->depth, v[IOPS], v[MB_S],
	       v[MEAN], v[P50], v[P99], v[P999], v[TARGET_MOP], v[OWN_MOP], v[OPS_A_WAKE]);
}

static int bench(struct bench *b)
{
	struct round *rounds, mid;
	int err = 0;

	rounds = calloc(b->rounds, sizeof(*rounds));
	if (!rounds)
		return failed("rounds", -ENOMEM);
	for (uint32_t i = 0; i < b->rounds && !err; i++)
		err = round_run(b, &rounds[i]);
	for (int i = 0; i < NR_VALUES && !err; i++)
		mid.v[i] = median(rounds, b->rounds, i);
	if (!err && b->json)
		print_json(b, rounds, &mid);
	else if (!err)
		print_text(b, &mid);
	free(rounds);
	return err;
}

static int idle(struct bench *b)
{
	if (run(b, WARM_NS, 0))
		return 1;
	printf("idle\n");
	fflush(stdout);
	usleep((useconds_t)(b->idle * 1e6));
	return 0;
}

static int prepare(struct bench *b)
{
	int err;

	if (b->floor ? connect_floor(b) : connect_drive(b))
		return 1;
	err = plan_init(&b->plan, b->rw, &b->drive, b->bs, b->zones, b->conns * b->depth);
	b->plan.flush_bytes = b->flush;
	if (!err)
		err = load_init(&b->load, &b->plan, b->conns, b->depth);
	b->load.poll = b->poll;
	for (uint32_t i = 0; i < b->conns && !err; i++)
		err = load_add(&b->load, &b->queues[i]);
	if (err)
		return err == -EINVAL ? 1 : failed("set-up", err);
	if (!b->floor && ready_to_read(b))
		return 1;
	return reset_zones(b);
}

static void cleanup(struct bench *b)
{
	if (b->load.conns)
		load_fini(&b->load);
	plan_fini(&b->plan);
	while (b->nr_queues)
		host_close(&b->queues[--b->nr_queues]);
	if (*b->ctrl.nqn)
		host_detach(&b->ctrl);
}

/* ---- the command line ---- */

static int rw_of(const char *name)
{
	static const char *const names[] = {
		"randread", "read", "write", "append", "mixed", "fs",
	};

	for (int i = 0; i < (int)(sizeof(names) / sizeof(*names)); i++)
		if (!strcmp(name, names[i]))
			return i;
	return -1;
}

/* N, Nk, Nm or Ng, from 1 to MOST; else 0. */
static uint64_t number64(const char *s, uint64_t most)
{
	static const char units[] = "kmg";
	char *end;
	uint64_t n = strtoull(s, &end, 10);
	const char *unit = *end ? strchr(units, *end) : NULL;
	int shift = unit ? 10 * (int)(unit - units + 1) : 0;

	if (unit)
		end++;
	return *end || end == s || n > most >> shift ? 0 : n << shift;
}

static uint32_t number(const char *s, uint32_t most)
{
	return (uint32_t)number64(s, most);
}

static int options(struct bench *b, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "rw", required_argument, NULL, 'r' },
		{ "bs", required_argument, NULL, 'b' },
		{ "depth", required_argument, NULL, 'd' },
		{ "conns", required_argument, NULL, 'c' },
		{ "zones", required_argument, NULL, 'z' },
		{ "seconds", required_argument, NULL, 's' },
		{ "rounds", required_argument, NULL, 'n' },
		{ "bytes", required_argument, NULL, 'B' },
		{ "flush", required_argument, NULL, 'F' },
		{ "dirty", required_argument, NULL, 'D' },
		{ "digests", no_argument, NULL, 'g' },
		{ "poll", no_argument, NULL, 'l' },
		{ "prefill", no_argument, NULL, 'p' },
		{ "cpu", required_argument, NULL, 'C' },
		{ "target-pid", required_argument, NULL, 'P' },
		{ "json", no_argument, NULL, 'j' },
		{ "idle", required_argument, NULL, 'i' },
		{ "floor", no_argument, NULL, 'f' },
		{ 0 },
	};
	int opt, rw = PLAN_RANDREAD;
	uint64_t *amount;

	b->rw_name = "randread";
	b->bs = 4096;
	b->depth = b->conns = b->rounds = 1;
	b->seconds = 1;
	b->cpu = -1;
	while ((opt = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
		switch (opt) {
		case 'r':
			rw = rw_of(optarg);
			b->rw_name = optarg;
			break;
		case 'b':
			b->bs = number(optarg, 1u << 20);
			break;
		case 'd':
			b->depth = number(optarg, LOAD_DEPTH);
			break;
		case 'c':
			b->conns = number(optarg, CONNS_MAX);
			break;
		case 'z':
			b->zones = number(optarg, 1u << 20);
			break;
		case 's':
			b->seconds = strtod(optarg, NULL);
			break;
		case 'n':
			b->rounds = number(optarg, ROUNDS_MAX);
			break;
		case 'B':
		case 'F':
		case 'D':
			amount = opt == 'B' ? &b->bytes : opt == 'F' ? &b->flush : &b->dirty;
			*amount = number64(optarg, BYTES_MAX);
			if (!*amount)
				return -EINVAL;
			break;
		case 'g':
			b->digests = true;
			break;
		case 'l':
			b->poll = true;
			break;
		case 'p':
			b->prefill = true;
			break;
		case 'C':
			b->cpu = (int)strtol(optarg, NULL, 10);
			break;
		case 'P':
			b->pid = (pid_t)strtol(optarg, NULL, 10);
			break;
		case 'j':
			b->json = true;
			break;
		case 'i':
			b->idle = strtod(optarg, NULL);
			break;
		case 'f':
			b->floor = true;
			break;
		default:
			return -EINVAL;
		}
	}
	if (rw < 0 || !b->bs || !b->depth || !b->conns || !b->rounds || b->seconds < 0.01 ||
	    b->seconds > 3600 || argc - optind < 2 || argc - optind > 3)
		return -EINVAL;
	b->rw = (enum plan_rw)rw;
	b->addr = argv[optind];
	b->port = argv[optind + 1];
	if (argc - optind > 2)
		snprintf(b->nqn, sizeof(b->nqn), "%s", argv[optind + 2]);
	return 0;
}

static int pin(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return 0;
	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) ? -errno : 0;
}

int main(int argc, char **argv)
{
	static struct bench b;
	int err;

	if (options(&b, argc, argv)) {
		fprintf(stderr, "usage: znsbench [OPTION]... ADDR PORT [NQN]\n"
				"Its options stand at the head of tests/bench/znsbench.c.\n");
		return 2;
	}
	err = pin(b.cpu);
	if (err)
		return failed("--cpu", err);
	err = prepare(&b);
	if (!err)
		err = b.idle > 0 ? idle(&b) : bench(&b);
	cleanup(&b);
	return err;
}
