// SPDX-License-Identifier: MIT
/*
 * The errno matrix of the drive: zns over its store over an image whose file fails. For every
 * workload, every way to fail and every n, the n-th call fails, once or from then on, until the
 * workload is over before the n-th call. Checked in each of these runs:
 *
 * 1. Nobody crashes, hangs or leaks; interruptions and short counts are invisible.
 * 2. The host gets the status that fits: no room is Capacity Exceeded, a failed read Unrecovered
 *    Read Error, all else Write Fault. After a failed sync no flush ever succeeds again.
 * 3. What was acknowledged stays readable.
 * 4. With the fault over, the image as the file has it passes the check, and every zone reads what
 *    was written below its write pointer (D2). If a flush then succeeds, all is there (D1).
 * 5. Unless a sync failed, the drive works again and closes well; else closing says so.
 */
#include <signal.h>
#include <unistd.h>
#include "../tally.h"
#include "drive.h"

enum act {
	END,
	APPEND,
	WRITE,
	FUA_WRITE,
	READ,
	RESET,
	RESET_ALL,
	FINISH,
	OPEN,
	CLOSE,
	FLUSH,
	RENEW
};

struct step {
	enum act act;
	uint32_t zone, lbas;
};

struct workload {
	const char *name;
	uint32_t cluster, refcount_bits, zones;
	bool no_punch, touch;	   /* TOUCH: opening must write the header */
	bool grows;		   /* its refcount table */
	const struct step *before; /* done once, without faults */
	struct step steps[24];
};

static char where[160]; /* the run, for messages and for the alarm */
static unsigned long runs, total_calls, total_hits;
static unsigned int stride = 1;

/* --- the file under the store --- */

static struct drive *opening;

int __real_qcow2_open(const char *path, const struct qcow2_open_opts *opts, struct qcow2 **out,
		      char err[QCOW2_ERRLEN]);
int __wrap_qcow2_open(const char *path, const struct qcow2_open_opts *opts, struct qcow2 **out,
		      char err[QCOW2_ERRLEN]);

int __wrap_qcow2_open(const char *path, const struct qcow2_open_opts *opts, struct qcow2 **out,
		      char err[QCOW2_ERRLEN])
{
	struct qcow2_open_opts o = *opts;

	if (opening)
		o.file = fault_open(opening->disk, opening->fault);
	return __real_qcow2_open(path, &o, out, err);
}

/* --- bytes --- */

static void fill(uint8_t *buf, uint64_t lba, uint32_t tag)
{
	uint64_t *w = (uint64_t *)buf;

	for (unsigned int i = 0; i < 64; i++)
		w[i] = tag ? (lba << 32 | tag) * 0x9e3779b97f4a7c15ull + i : 0;
}

static bool holds(const uint8_t *buf, uint64_t lba, const struct epoch *e, uint32_t n)
{
	uint8_t want[512];

	for (uint32_t i = 0; i < n; i++) {
		fill(want, lba + i, e->tag[i]);
		if (memcmp(buf + 512 * i, want, 512))
			return false;
	}
	return true;
}

static struct epoch *now(struct drive *d, uint32_t zone)
{
	return &d->m->zone[zone].epoch[d->m->zone[zone].nr - 1];
}

/* The state of ZONE from here on; what was before stays possible until a flush. */
static struct epoch *new_epoch(struct drive *d, uint32_t zone)
{
	struct zone_model *z = &d->m->zone[zone];

	assert_true(z->nr < MAX_EPOCHS);
	z->epoch[z->nr] = z->epoch[z->nr - 1];
	return &z->epoch[z->nr++];
}

static void all_durable(struct drive *d)
{
	for (uint32_t i = 0; i < d->m->nr_zones; i++) {
		d->m->zone[i].epoch[0] = *now(d, i);
		d->m->zone[i].nr = 1;
		d->m->zone[i].epoch[0].floor = d->m->zone[i].epoch[0].wp;
	}
}

/* --- the drive --- */

static bool visible(const struct fault *f)
{
	return f->kind <= FAULT_EDQUOT || f->kind == FAULT_NOTHING;
}

static bool poisoned(const struct drive *d)
{
	return visible(d->fault) && d->fault->calls & 1u << RAM_SYNC;
}

static uint64_t zone_lba(uint32_t zone)
{
	return (uint64_t)zone * ZONE_LBAS;
}

/* What the drive reports of zones. WP is within the zone; ZONE_LBAS: it reports none. */
struct live {
	int state;
	uint32_t wp;
};

static void live_zones(struct drive *d, uint32_t first, uint32_t nr, struct live *out)
{
	uint8_t buf[64 + 64 * MAX_ZONES];
	struct cmd c;

	cmd_init(&c, nvme_zns_cmd_mgmt_recv, zone_lba(first), (64 + 64 * nr) / 4 - 1, 0x10000);
	assert_int_equal(host_run(&d->h, &c, buf, 64 + 64 * nr), 0);
	for (uint32_t i = 0; i < nr; i++) {
		struct nvme_zns_desc desc;

		memcpy(&desc, buf + 64 + 64 * i, sizeof(desc));
		out[i].state = desc.zs >> 4;
		out[i].wp = ZONE_LBAS;
		if (le64toh(desc.wp) != UINT64_MAX)
			out[i].wp = (uint32_t)(le64toh(desc.wp) - zone_lba(first + i));
	}
}

static struct live live_zone(struct drive *d, uint32_t zone)
{
	struct live l;

	live_zones(d, zone, 1, &l);
	return l;
}

/* What a failed close has lost is lost: of the states a zone may be in, its pointer tells which. */
static void take_stock(struct drive *d)
{
	struct live live[MAX_ZONES];

	live_zones(d, 0, d->m->nr_zones, live);
	for (uint32_t i = 0; i < d->m->nr_zones; i++) {
		struct zone_model *z = &d->m->zone[i];
		uint32_t wp = live[i].wp == ZONE_LBAS ? CAP_LBAS : live[i].wp, k = z->nr - 1;

		while (k && (wp < z->epoch[k].floor || wp > z->epoch[k].wp))
			k--;
		if (wp < z->epoch[k].floor || wp > z->epoch[k].wp)
			fail_msg("%s: opened, zone %u is at %u", where, i, wp);
		z->epoch[0] = z->epoch[k];
		z->epoch[0].wp = z->epoch[0].floor = wp;
		z->nr = 1;
	}
}

static int drive_open(struct drive *d)
{
	const struct zns_opts opts = { .lba_size = 512 };
	struct store *store;
	char err[QCOW2_ERRLEN] = "";
	long before = d->fault->hits;
	int ret;

	memset(&d->h, 0, sizeof(d->h));
	opening = d;
	ret = store_qcow2_open("ram", &(struct store_qcow2_opts){ .cache = STORE_WRITEBACK },
			       &store, err, sizeof(err));
	opening = NULL;
	if (ret) {
		if (d->fault->hits == before || !visible(d->fault) || !err[0])
			fail_msg("%s: open: %s (%d)", where, err, ret);
		return ret;
	}
	host_start(&d->h, workers_new(1));
	if (zns_ns_new(store, &opts, d->h.loop, &d->h.ns, err, sizeof(err)))
		fail_msg("%s: %s", where, err);
	host_go(&d->h);
	d->up = true;
	take_stock(d);
	return 0;
}

static int drive_close(struct drive *d)
{
	int err;

	host_stop(&d->h);
	workers_free(d->h.pool);
	err = d->h.ns->set->close(d->h.ns);
	loop_free(d->h.loop);
	d->up = false;
	return err;
}

/* --- what may be answered --- */

#define NO_ROOM	  (NVME_SC_CAP_EXCEEDED | NVME_SC_DNR)
#define PROTECTED (NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR)
#define FAULTED	  (NVME_SCT_MEDIA << NVME_SCT_SHIFT | NVME_SC_WRITE_FAULT)
#define UNREAD	  (NVME_SCT_MEDIA << NVME_SCT_SHIFT | NVME_SC_READ_ERROR)

static bool zone_refusal(uint16_t status)
{
	uint16_t sc = status & 0x7ff;

	return sc >= 0x1b8 && sc <= 0x1bf;
}

/* What the fault makes of a command in which it hit. */
static uint16_t fitting(const struct drive *d, enum act act)
{
	if (act == READ)
		return UNREAD;
	if (d->fault->kind == FAULT_ENOSPC || d->fault->kind == FAULT_EDQUOT)
		return NO_ROOM;
	return FAULTED;
}

static void judge(struct drive *d, const struct step *s, uint16_t status, long hits_before)
{
	bool hit = d->fault->hits != hits_before;
	bool flushes = s->act == FLUSH || s->act == FUA_WRITE;

	if (flushes && poisoned(d) && !status)
		fail_msg("%s: %s: a flush succeeded after a failed sync", where, d->step);
	if (!status)
		return;
	if (visible(d->fault) && hit && status == fitting(d, s->act))
		return;
	if (d->fault->kind == FAULT_NOTHING && hit && status == NO_ROOM && s->act != READ)
		return; /* a write that takes nothing and gives no reason is a full disk */
	if (visible(d->fault) && d->fault->hits && zone_refusal(status))
		return; /* a zone that is not what the script had made of it */
	if (poisoned(d) && s->act != READ && (status == PROTECTED || status == fitting(d, s->act)))
		return;
	fail_msg("%s: %s: status %04x, %ld hits in it", where, d->step, status,
		 d->fault->hits - hits_before);
}

/* --- steps --- */

static uint16_t step_write(struct drive *d, const struct step *s)
{
	struct epoch *e = now(d, s->zone);
	uint8_t *buf = malloc(512 * s->lbas);
	uint32_t tag = ++d->m->last_tag, at = e->wp;
	uint64_t start = zone_lba(s->zone), lba = start + at;
	uint16_t status;
	struct live live;

	for (uint32_t i = 0; i < s->lbas; i++)
		fill(buf + 512 * i, start + at + i, tag);
	if (s->act == APPEND)
		status = host_append(&d->h, start, s->lbas, buf, 0, &lba);
	else
		status = host_write(&d->h, lba, s->lbas, buf, s->act == FUA_WRITE ? FUA : 0);
	free(buf);
	if (!status)
		assert_int_equal(lba, start + at);
	if (status) {
		/* A full zone never took it; a write with FUA may be there all the same. */
		live = live_zone(d, s->zone);
		if (zone_refusal(status) || live.wp < at + s->lbas || live.state == RO_ZONE)
			return status;
	}
	for (uint32_t i = 0; i < s->lbas; i++)
		e->tag[at + i] = tag;
	e->wp = at + s->lbas;
	if (!status && s->act == FUA_WRITE)
		all_durable(d);
	return status;
}

static uint16_t step_read(struct drive *d, uint32_t zone)
{
	struct epoch *e = now(d, zone);
	uint8_t *buf = calloc(ZONE_LBAS, 512);
	uint16_t status = host_read(&d->h, zone_lba(zone), CAP_LBAS, buf);
	bool right = status || holds(buf, zone_lba(zone), e, e->wp);

	for (size_t i = 512ul * e->wp; !status && i < CAP_BYTES; i++)
		right = right && !buf[i];
	free(buf);
	if (!right)
		fail_msg("%s: %s: zone %u reads wrong", where, d->step, zone);
	return status;
}

static void was_reset(struct drive *d, uint32_t zone)
{
	struct epoch *e = now(d, zone);

	if (!e->wp || live_zone(d, zone).state != NVME_ZNS_ZS_EMPTY)
		return;
	e = new_epoch(d, zone);
	memset(e, 0, sizeof(*e));
}

static uint16_t step_reset(struct drive *d, uint32_t zone, bool all)
{
	uint16_t status =
		host_manage(&d->h, all ? 0 : zone_lba(zone), NVME_ZNS_ZSA_RESET | (all ? ALL : 0));

	for (uint32_t i = all ? 0 : zone; i < (all ? d->m->nr_zones : zone + 1); i++)
		was_reset(d, i);
	return status;
}

static uint16_t step_finish(struct drive *d, uint32_t zone)
{
	uint16_t status = host_manage(&d->h, zone_lba(zone), NVME_ZNS_ZSA_FINISH);
	struct epoch *e;

	if (status || now(d, zone)->wp == CAP_LBAS)
		return status;
	e = new_epoch(d, zone);
	memset(e->tag + e->wp, 0, (CAP_LBAS - e->wp) * sizeof(e->tag[0]));
	e->floor = e->wp = CAP_LBAS;
	return status;
}

/* Closing may fail where the fault hit, or once a sync has failed; then the image opens again. */
static void step_renew(struct drive *d)
{
	long before = d->fault->hits;
	int err = drive_close(d);

	if (err && (!visible(d->fault) || (d->fault->hits == before && !poisoned(d))))
		fail_msg("%s: close: %d", where, err);
	if (!err && poisoned(d))
		fail_msg("%s: closing said nothing of the failed sync", where);
	if (!err)
		all_durable(d);
}

static uint16_t step_do(struct drive *d, const struct step *s)
{
	uint16_t status;

	switch (s->act) {
	case APPEND:
	case WRITE:
	case FUA_WRITE:
		return step_write(d, s);
	case READ:
		return step_read(d, s->zone);
	case RESET:
		return step_reset(d, s->zone, false);
	case RESET_ALL:
		return step_reset(d, 0, true);
	case FINISH:
		return step_finish(d, s->zone);
	case OPEN:
		return host_manage(&d->h, zone_lba(s->zone), NVME_ZNS_ZSA_OPEN);
	case CLOSE:
		return host_manage(&d->h, zone_lba(s->zone), NVME_ZNS_ZSA_CLOSE);
	default:
		status = host_flush(&d->h);
		if (!status)
			all_durable(d);
		return status;
	}
}

static const char *act_name(enum act act)
{
	static const char *const names[] = { "end",  "append", "write",	    "write with FUA",
					     "read", "reset",  "reset all", "finish",
					     "open", "close",  "flush",	    "renew" };
	return names[act];
}

/* --- after the fault --- */

/* In QUIET's stead: findings of a run that is going to fail. */
static void say(void *arg, const char *line)
{
	(void)arg;
	if (strncmp(line, "Leaked", 6))
		print_message("%s: check: %s\n", where, line);
}

static bool epoch_fits(struct qcow2 *q, uint32_t zone, const struct epoch *e, bool exact)
{
	uint64_t start = (uint64_t)zone * ZONE_BYTES;
	uint64_t wp = (qcow2_wp(q, zone) - start) / 512;
	uint8_t *buf;
	bool fits;

	if (wp > e->wp || wp < (exact ? e->wp : e->floor))
		return false;
	buf = malloc(CAP_BYTES);
	assert_int_equal(qcow2_read(q, buf, start, 512 * wp, 0), 0);
	fits = holds(buf, zone_lba(zone), e, (uint32_t)wp);
	free(buf);
	return fits;
}

/* The image as the file has it now; EXACT: everything was flushed. */
static void verify_image(struct drive *d, const char *when, bool exact)
{
	struct qcow2_open_opts o = { .file = ram_open(d->disk), .flags = QCOW2_RDONLY };
	struct qcow2_check_result res = { 0 };
	char err[QCOW2_ERRLEN];
	struct qcow2 *q;

	if (qcow2_open("ram", &o, &q, err))
		fail_msg("%s: %s: does not open: %s", where, when, err);
	if (qcow2_check(q, &res, say, NULL) || res.corruptions || res.check_errors)
		fail_msg("%s: %s: %llu corruptions", where, when,
			 (unsigned long long)res.corruptions);
	for (uint32_t i = 0; i < d->m->nr_zones; i++) {
		const struct zone_model *z = &d->m->zone[i];
		bool fits = false;

		for (uint32_t k = 0; k < z->nr && !fits; k++)
			fits = (!exact || k == z->nr - 1) && epoch_fits(q, i, &z->epoch[k], exact);
		if (!fits)
			fail_msg("%s: %s: zone %u with wp %llu holds what was never there (%u..%u "
				 "of %u)",
				 where, when, i,
				 (unsigned long long)(qcow2_wp(q, i) - (uint64_t)i * ZONE_BYTES) /
					 512,
				 z->epoch[z->nr - 1].floor, z->epoch[z->nr - 1].wp, z->nr);
	}
	qcow2_close(q);
}

/* All that was acknowledged, while the process lives. */
static void verify_live(struct drive *d, bool read)
{
	struct live live[MAX_ZONES];

	live_zones(d, 0, d->m->nr_zones, live);
	for (uint32_t i = 0; i < d->m->nr_zones; i++) {
		uint32_t wp = now(d, i)->wp;

		if (live[i].wp != (live[i].state == NVME_ZNS_ZS_FULL || live[i].state == RO_ZONE
					   ? ZONE_LBAS
					   : wp))
			fail_msg("%s: zone %u is at %u, not %u", where, i, live[i].wp, wp);
		if (live[i].state == NVME_ZNS_ZS_FULL && wp != CAP_LBAS)
			fail_msg("%s: zone %u is full at %u", where, i, wp);
		if (read && (wp || live[i].state != NVME_ZNS_ZS_EMPTY) && step_read(d, i))
			fail_msg("%s: zone %u does not read", where, i);
	}
}

/* The disk is well again: so must the drive be, unless a sync has failed. */
static void verify_recovery(struct drive *d)
{
	struct step append = { APPEND, 0, 8 };
	struct live live[MAX_ZONES];
	uint16_t status;

	status = host_flush(&d->h);
	if (!status != !poisoned(d))
		fail_msg("%s: flush afterwards: %04x", where, status);
	if (poisoned(d))
		return;
	all_durable(d);
	verify_image(d, "flushed", true);
	live_zones(d, 0, d->m->nr_zones, live);
	while (append.zone < d->m->nr_zones && live[append.zone].wp > CAP_LBAS - 8)
		append.zone++;
	if (append.zone == d->m->nr_zones)
		return;
	status = step_write(d, &append);
	if (status)
		fail_msg("%s: append afterwards: %04x", where, status);
}

/* --- runs --- */

/* Opens until it works; false: it never will. */
static bool open_somehow(struct drive *d)
{
	for (int i = 0; i < 2 * FAULT_BURST; i++) {
		if (!drive_open(d))
			return true;
		verify_image(d, "not opened", false);
		if (d->fault->always && i > 2)
			return false;
		d->fault->calls = 0; /* the next image has seen no failed sync */
	}
	return false;
}

static void run_steps(struct drive *d, const struct step *s)
{
	d->step = "open";
	if (!d->up && !open_somehow(d))
		return;
	for (; s->act != END; s++) {
		long before = d->fault->hits;

		d->step = act_name(s->act);
		if (s->act == RENEW) {
			step_renew(d);
			d->fault->calls = 0;
			if (!open_somehow(d))
				return;
			continue;
		}
		judge(d, s, step_do(d, s), before);
	}
}

struct base {
	struct ramdisk *disk;
	struct model model;
};

/* One run: the number of calls there were. */
static long run(const struct workload *w, const struct base *base, enum fault_kind kind,
		bool always, long n)
{
	struct drive d = { 0 };
	struct fault fault;
	long seen;
	int err;

	snprintf(where, sizeof(where), "%s: %s at call %ld%s", w->name, fault_name(kind), n,
		 always ? " and all after it" : "");
	alarm(60);
	fault_init(&fault, kind, always, n);
	d.fault = &fault;
	d.disk = ram_copy(base->disk);
	d.disk->no_punch = w->no_punch;
	d.m = malloc(sizeof(*d.m));
	*d.m = base->model;
	run_steps(&d, w->steps);
	seen = fault.seen;
	fault.n = 0;
	if (!d.up) {
		fault.calls = 0;
		assert_int_equal(drive_open(&d), 0);
	}
	d.step = "afterwards";
	verify_image(&d, "before a flush", false);
	verify_live(&d, true);
	verify_recovery(&d);
	verify_live(&d, false);
	err = drive_close(&d);
	if (!err != !poisoned(&d))
		fail_msg("%s: close: %d", where, err);
	verify_image(&d, "closed", !err);
	if (w->grows && !fault.hits && !memcmp(d.disk->bytes + 48, base->disk->bytes + 48, 8))
		fail_msg("%s: the refcount table is where it was", where);
	ram_free(d.disk);
	free(d.m);
	runs++;
	total_hits += fault.hits;
	return seen;
}

/* --- the workloads --- */

/* Removes our extension from the header and sets an autoclear bit: opening writes both. */
static void make_strange(struct ramdisk *d)
{
	static const uint8_t ours[] = { 0x7a, 0x6e, 0x73, 0x64 };
	uint8_t *ext = memmem(d->bytes, 4096, ours, sizeof(ours));

	if (ext)
		memset(ext, 0, 24);
	d->bytes[88] = 0x80;
}

static void base_make(const struct workload *w, struct base *b)
{
	struct qcow2_create_opts o = {
		.size = (uint64_t)w->zones * ZONE_BYTES,
		.cluster_size = w->cluster,
		.refcount_bits = w->refcount_bits,
		.zoned = true,
		.zone = { .zone_size = ZONE_BYTES, .zone_capacity = CAP_BYTES },
	};
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];
	struct drive d = { .m = &b->model };
	struct fault none;

	snprintf(where, sizeof(where), "%s: before", w->name);
	fault_init(&none, FAULT_EIO, false, 0);
	memset(b, 0, sizeof(*b));
	d.fault = &none;
	d.disk = b->disk = ram_new(64u << 20);
	if (qcow2_create("ram", &o, ram_open(b->disk), warn, err))
		fail_msg("%s: %s", where, err);
	b->model.nr_zones = w->zones;
	for (uint32_t i = 0; i < w->zones; i++)
		b->model.zone[i].nr = 1;
	if (w->before) {
		run_steps(&d, w->before);
		assert_int_equal(drive_close(&d), 0);
		all_durable(&d);
	}
	if (w->touch)
		make_strange(b->disk);
	ram_forget(b->disk);
}

static void matrix(const struct workload *w)
{
	struct base base;
	unsigned long before = runs, hits = total_hits;
	long calls = 0;

	base_make(w, &base);
	for (enum fault_kind kind = 0; kind < FAULT_KINDS; kind++) {
		for (int always = 0; always < 2; always++) {
			long n = 1, seen;

			/* They differ from others by their number alone, or end by being FAULT_ONE. */
			if (always && (kind == FAULT_EDQUOT || kind == FAULT_BUT_ONE))
				continue;

			do {
				seen = run(w, &base, kind, always, n);
				if (kind == FAULT_EIO && !always && n > seen)
					calls = seen;
				n += stride;
			} while (n <= seen + (long)stride && n - (long)stride <= seen);
		}
	}
	print_message("%s: %ld calls, %lu runs, %lu failed calls\n", w->name, calls, runs - before,
		      total_hits - hits);
	total_calls += calls;
	ram_free(base.disk);
}

static const struct step two_zones[] = {
	{ APPEND, 0, 24 }, { WRITE, 1, 96 }, { APPEND, 2, 8 }, { FLUSH, 0, 0 }, { END, 0, 0 },
};
/* 2 MiB of file in clusters of 512: the next ones need a longer refcount table. */
static const struct step nearly_2m[] = {
	{ WRITE, 0, 96 },  { WRITE, 1, 96 },  { WRITE, 2, 96 },	 { WRITE, 3, 96 },
	{ WRITE, 4, 96 },  { WRITE, 5, 96 },  { WRITE, 6, 96 },	 { WRITE, 7, 96 },
	{ WRITE, 8, 96 },  { WRITE, 9, 96 },  { WRITE, 10, 96 }, { WRITE, 11, 96 },
	{ WRITE, 12, 96 }, { WRITE, 13, 96 }, { WRITE, 14, 96 }, { WRITE, 15, 96 },
	{ WRITE, 16, 96 }, { WRITE, 17, 96 }, { WRITE, 18, 96 }, { WRITE, 19, 96 },
	{ WRITE, 20, 96 }, { WRITE, 21, 96 }, { WRITE, 22, 96 }, { WRITE, 23, 96 },
	{ WRITE, 24, 96 }, { WRITE, 25, 96 }, { WRITE, 26, 96 }, { WRITE, 27, 96 },
	{ WRITE, 28, 96 }, { WRITE, 29, 96 }, { WRITE, 30, 96 }, { WRITE, 31, 96 },
	{ WRITE, 32, 96 }, { WRITE, 33, 96 }, { WRITE, 34, 96 }, { WRITE, 35, 96 },
	{ WRITE, 36, 96 }, { WRITE, 37, 96 }, { FLUSH, 0, 0 },	 { END, 0, 0 },
};

static const struct workload workloads[] = {
	{ .name = "append",
	  .steps = { { APPEND, 0, 8 },
		     { APPEND, 0, 3 },
		     { APPEND, 5, 1 },
		     { FLUSH, 0, 0 },
		     { APPEND, 0, 16 },
		     { READ, 0, 0 },
		     { FLUSH, 0, 0 },
		     { APPEND, 5, 2 } } },
	{ .name = "write, with and without FUA",
	  .steps = { { WRITE, 3, 7 },
		     { FUA_WRITE, 3, 9 },
		     { WRITE, 4, 96 },
		     { FUA_WRITE, 15, 96 },
		     { READ, 4, 0 },
		     { WRITE, 3, 1 },
		     { FLUSH, 0, 0 } } },
	{ .name = "reset and rewrite",
	  .before = two_zones,
	  .steps = { { READ, 0, 0 },
		     { RESET, 1, 0 },
		     { WRITE, 1, 32 },
		     { FLUSH, 0, 0 },
		     { RESET, 0, 0 },
		     { APPEND, 0, 5 },
		     { FLUSH, 0, 0 },
		     { RESET_ALL, 0, 0 },
		     { WRITE, 2, 96 },
		     { APPEND, 1, 1 },
		     { FLUSH, 0, 0 },
		     { READ, 2, 0 } } },
	{ .name = "reset and rewrite, where holes cannot be punched",
	  .before = two_zones,
	  .no_punch = true,
	  .steps = { { RESET, 1, 0 },
		     { RESET, 0, 0 },
		     { FLUSH, 0, 0 },
		     { WRITE, 1, 96 },
		     { APPEND, 0, 5 },
		     { FLUSH, 0, 0 } } },
	{ .name = "finish",
	  .before = two_zones,
	  .steps = { { FINISH, 0, 0 },
		     { FINISH, 2, 0 },
		     { FLUSH, 0, 0 },
		     { FINISH, 7, 0 },
		     { APPEND, 8, 3 },
		     { FINISH, 8, 0 },
		     { READ, 8, 0 },
		     { FLUSH, 0, 0 },
		     { RESET, 8, 0 },
		     { FLUSH, 0, 0 } } },
	{ .name = "a failed reset or finish, then a flush",
	  .before = two_zones,
	  .steps = { { APPEND, 0, 8 },
		     { RESET, 0, 0 },
		     { APPEND, 2, 5 },
		     { FINISH, 2, 0 },
		     { FLUSH, 0, 0 } } },
	{ .name = "explicit open and close",
	  .steps = { { OPEN, 1, 0 },
		     { WRITE, 1, 4 },
		     { CLOSE, 1, 0 },
		     { OPEN, 2, 0 },
		     { CLOSE, 2, 0 },
		     { FLUSH, 0, 0 },
		     { WRITE, 1, 4 } } },
	{ .name = "flush storm",
	  .steps = { { WRITE, 0, 1 },
		     { FLUSH, 0, 0 },
		     { WRITE, 0, 1 },
		     { FLUSH, 0, 0 },
		     { FLUSH, 0, 0 },
		     { WRITE, 9, 1 },
		     { WRITE, 0, 1 },
		     { FLUSH, 0, 0 } } },
	{ .name = "a header that opening must write",
	  .before = two_zones,
	  .touch = true,
	  .steps = { { READ, 1, 0 }, { APPEND, 0, 8 }, { FLUSH, 0, 0 } } },
	{ .name = "close and open again",
	  .before = two_zones,
	  .steps = { { APPEND, 0, 8 },
		     { RESET, 1, 0 },
		     { RENEW, 0, 0 },
		     { READ, 0, 0 },
		     { APPEND, 1, 8 },
		     { RENEW, 0, 0 },
		     { READ, 1, 0 } } },
	{ .name = "small clusters: many tables",
	  .cluster = 512,
	  .refcount_bits = 64,
	  .zones = 8,
	  .steps = { { APPEND, 0, 4 },
		     { APPEND, 1, 96 },
		     { FLUSH, 0, 0 },
		     { RESET, 1, 0 },
		     { FLUSH, 0, 0 },
		     { APPEND, 2, 96 },
		     { FLUSH, 0, 0 } } },
	{ .name = "the refcount table grows",
	  .cluster = 512,
	  .refcount_bits = 64,
	  .zones = 48,
	  .grows = true,
	  .before = nearly_2m,
	  .steps = { { APPEND, 40, 2 },
		     { APPEND, 41, 2 },
		     { APPEND, 42, 2 },
		     { APPEND, 43, 2 },
		     { APPEND, 44, 2 },
		     { FLUSH, 0, 0 },
		     { RESET, 40, 0 },
		     { FLUSH, 0, 0 },
		     { APPEND, 40, 1 },
		     { FLUSH, 0, 0 } } },
};

static void run_workload(void **state)
{
	struct workload w = *(const struct workload *)*state;

	w.cluster = w.cluster ? w.cluster : 4096;
	w.refcount_bits = w.refcount_bits ? w.refcount_bits : 16;
	w.zones = w.zones ? w.zones : 16;
	matrix(&w);
}

static void hung(int sig)
{
	ssize_t n = write(2, where, strlen(where));

	n = write(2, ": hangs\n", 8);
	(void)n;
	signal(sig, SIG_DFL);
	raise(sig);
}

int main(int argc, char **argv)
{
	struct CMUnitTest tests[sizeof(workloads) / sizeof(workloads[0])];
	size_t n = 0;
	int failed;

	if (getenv("FAULT_STRIDE"))
		stride = (unsigned int)atoi(getenv("FAULT_STRIDE"));
	if (!stride)
		stride = 1;
	log_level(getenv("FAULT_LOG") ? LOG_DEBUG_ : LOG_ERR_ - 1);
	signal(SIGALRM, hung);
	for (size_t i = 0; i < sizeof(workloads) / sizeof(workloads[0]); i++)
		if (argc < 2 || strstr(workloads[i].name, argv[1]))
			tests[n++] = (struct CMUnitTest){ workloads[i].name, run_workload, NULL,
							  NULL, (void *)&workloads[i] };
	failed = _cmocka_run_group_tests("errno_zns", tests, n, NULL, NULL);
	print_message("errno matrix of the drive: %zu workloads, %d errors, once and always: %lu "
		      "runs, %lu failed calls\n",
		      n, FAULT_KINDS, runs, total_hits);
	tally("fault_errno workloads=%zu calls=%lu ways_to_fail=%d runs=%lu failed_calls=%lu "
	      "violations=%d",
	      n, total_calls, FAULT_KINDS, runs, total_hits, failed);
	return failed;
}
