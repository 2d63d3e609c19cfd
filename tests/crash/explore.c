/* SPDX-License-Identifier: MIT */
/*
 * Every crash state of a recorded workload.
 *
 * The log is walked epoch by epoch; BASE is the file as of the last sync. For each epoch of N
 * pending operations a state is a choice of fates for them and of a size of the file:
 *
 *	every prefix, with the next operation lost or torn in each place it can tear
 *	every prefix with each size the file had in the epoch
 *	each operation alone; all but one; all but two
 *	all subsets up to ten operations; else as many random ones as lab.depth says
 *	random fates, torn ones among them, and a random size
 *
 * A state is counted when its bytes were not seen before, and judged unless these bytes were
 * already judged against the same window: equal bytes are judged once, by the strictest bounds
 * under which they may be found (see model.c): all flushes done by the end of the epoch, nothing
 * that began after the last operation that is there.
 *
 * Some states then go on: the drive is used, its power is cut once more, and it is judged again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "format.h"
#include "lab.h"

#define MAX_LENGTHS	  8u
#define ALL_SUBSETS	  10u
#define REFTABLE_PLACE	  offsetof(struct disk_header, refcount_table_offset)
#define FOREIGN_AUTOCLEAR (offsetof(struct disk_header, autoclear_features) + 1) /* not ours */
#define MAX_PAIRS	  600u
#define RANDOM_OF_SUBSETS 64u /* states with random fates where all subsets were seen */

struct explorer {
	struct lab *lab;
	struct drive *d; /* what was recorded */
	struct simdisk *base, *work;
	struct oplog work_log;
	struct drive again; /* the drive on WORK */
	struct dice dice;   /* chooses states */
	struct dice
		more_dice; /* chooses what happens after one; apart, so that states do not change */

	size_t start, end; /* the epoch */
	size_t nr;
	const struct op *op;
	struct fate *fate;
	uint64_t size[MAX_LENGTHS]; /* the file may be found to have */
	size_t size_op[MAX_LENGTHS];
	uint64_t reftable[2], reftable_len[2];
	uint32_t nr_sizes;
};

bool lab_should_stop(const struct lab *lab)
{
	struct timespec now;

	if (lab->violations && lab->stop_at_first)
		return true;
	if (lab->violations >= 10)
		return true;
	if (!lab->deadline)
		return false;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9 > lab->deadline;
}

bool hashset_add(struct hashset *s, uint64_t h)
{
	h += !h;
	if (2 * s->nr >= s->cap) {
		struct hashset bigger = { NULL, 0, s->cap ? 2 * s->cap : 1 << 16 };

		bigger.slot = calloc(bigger.cap, sizeof(*bigger.slot));
		if (!bigger.slot)
			abort();
		for (size_t i = 0; i < s->cap; i++)
			if (s->slot[i])
				hashset_add(&bigger, s->slot[i]);
		free(s->slot);
		*s = bigger;
	}
	for (size_t i = h & (s->cap - 1);; i = (i + 1) & (s->cap - 1)) {
		if (s->slot[i] == h)
			return false;
		if (!s->slot[i]) {
			s->slot[i] = h;
			s->nr++;
			return true;
		}
	}
}

/* How many operations must have been issued for the state of FATE and SIZE to exist. */
static size_t issued(const struct explorer *x, uint32_t size)
{
	size_t n = x->nr;

	while (n && x->fate[n - 1].kind == FATE_LOST)
		n--;
	if (size && n < x->size_op[size] + 1)
		n = x->size_op[size] + 1;
	return x->start + n;
}

/* The sizes the file had in the epoch: [0] stands for whatever the operations imply. */
static void find_sizes(struct explorer *x)
{
	uint64_t size = x->base->size, next;

	x->size[0] = SIM_NATURAL;
	x->size[1] = size;
	x->size_op[1] = 0;
	x->nr_sizes = 2;
	for (size_t i = 0; i < x->nr && x->nr_sizes < MAX_LENGTHS; i++) {
		next = op_size_after(&x->op[i], size);
		if (next == size)
			continue;
		size = next;
		x->size[x->nr_sizes] = size;
		x->size_op[x->nr_sizes++] = i;
	}
	if (x->nr_sizes == 2)
		x->nr_sizes = 1;
}

static void describe(const struct explorer *x, uint32_t size, char *buf, size_t len)
{
	size_t n = snprintf(buf, len, "operations %zu..%zu of the log, ", x->start, x->end);

	for (size_t i = 0; i < x->nr && n + 24 < len; i++) {
		const struct fate *f = &x->fate[i];

		if (f->kind == FATE_HEAD || f->kind == FATE_TAIL)
			n += snprintf(buf + n, len - n, "%c%u", f->kind == FATE_HEAD ? 'h' : 't',
				      f->cut);
		else
			n += snprintf(buf + n, len - n, "%c", f->kind == FATE_DONE ? '1' : '0');
	}
	if (size && n < len)
		snprintf(buf + n, len - n, ", file size %llu", (unsigned long long)x->size[size]);
}

/* The model of AGAIN begins with what the state shows. */
static bool adopt_state(struct drive *again, const uint32_t *gen, const uint32_t *wp)
{
	for (uint32_t zone = 0; zone < again->nr_zones; zone++) {
		if (qcow2_read(again->q, again->buf, (uint64_t)zone * again->geo->zone,
			       drive_zone_len(again, zone), 0))
			return drive_broken(again, "zone %u became unreadable", zone);
		model_continue_zone(again->m, zone, gen[zone], wp[zone], again->buf);
	}
	return true;
}

/* A second crash: the first state again, then what was done since, its last epoch at random. */
static void cut_again(struct explorer *x, uint32_t size)
{
	struct oplog *log = &x->work_log;
	size_t end = log->nr, start = oplog_epoch(log, end);
	struct fate fate[64];
	uint32_t kept = 50 * dice_below(&x->more_dice, 3);

	if (x->again.loud)
		printf("  at %zu: power cut, %u%% of %zu..%zu kept\n", end, kept, start, end);
	drive_kill(&x->again);
	x->work->log = NULL;
	simdisk_restore(x->work, x->base);
	simdisk_apply(x->work, x->op, x->nr, x->fate, x->size[size]);
	simdisk_replay(x->work, log, start);
	for (size_t i = start; i < end; i += 64) {
		size_t n = end - i < 64 ? end - i : 64;

		for (size_t j = 0; j < n; j++)
			fate[j].kind =
				dice_below(&x->more_dice, 100) < kept ? FATE_DONE : FATE_LOST;
		simdisk_apply(x->work, log->op + i, n, fate, SIM_NATURAL);
	}
}

/* Uses the recovered drive, cuts its power, and judges it by a model of its own. */
static bool go_on(struct explorer *x, uint32_t size, const uint32_t *gen, const uint32_t *wp,
		  uint64_t leaks)
{
	struct drive *again = &x->again;
	struct model *before = again->m, *now = model_continue(before);
	bool ok;

	again->m = now;
	again->dice = x->more_dice;
	again->crash[0].pos = 0;
	again->crash[0].leaks = leaks;
	again->nr_crashes = 1;
	again->sizes[0].size = again->size;
	again->nr_sizes = 1;
	oplog_clear(&x->work_log);
	ok = adopt_state(again, gen, wp);
	x->work->log = &x->work_log;
	model_flush_begin(now); /* what a cut left is on the disk */
	model_flush_done(now, 0);
	if (ok)
		ok = drive_run(again, dice_below(&x->more_dice, 2) ? "~5 f ~2" : "~3 f ~3 f");
	if (ok) {
		size_t end = x->work_log.nr;

		cut_again(x, size);
		ok = drive_open(again) && drive_judge_size(again, again, end, end) &&
		     drive_check(again, drive_leak_bound(again, end), &leaks) &&
		     drive_judge(again, model_window(now, end, end), NULL, NULL);
	}
	drive_kill(again);
	x->work->log = NULL;
	x->lab->continued++;
	again->m = before;
	model_free(now);
	return ok;
}

static bool is_created(const struct explorer *x)
{
	return x->d->create_done <= x->end;
}

/* All that decides how a state is judged. */
static uint64_t bounds_hash(const struct explorer *x, struct mwindow w)
{
	uint32_t last, first = drive_sizes(x->d, w.high, x->end, &last);

	return model_window_hash(x->d->m, w) + is_created(x) + 2 * (first + MAX_SIZES * last);
}

/* Opens, checks and judges the state on WORK; goes on with it now and then. */
static bool judge(struct explorer *x, uint32_t size, struct mwindow w, uint64_t hash)
{
	struct drive *again = &x->again;
	uint32_t gen[MAX_LAB_ZONES], wp[MAX_LAB_ZONES];
	uint64_t leaks = 0, bound = drive_leak_bound(x->d, x->end);
	bool ok, goes_on = x->lab->continue_every && hash % x->lab->continue_every == 0;

	again->loud = x->lab->only_state;
	again->m = x->d->m;
	if (x->d->adopted <= x->end &&
	    memcmp(x->work->data + FOREIGN_AUTOCLEAR, "\0\0\0\0\0\0\0", 7))
		return drive_broken(again, "D6: autoclear bits are back that an open had cleared");
	ok = drive_open(again);
	if (!is_created(x) && (!ok || memcmp(qcow2_info(again->q)->uuid, x->d->uuid, QCOW2_UUID))) {
		/* An image half made is none; or it is still the one that was there before. */
		ok = !ok || drive_check(again, UINT64_MAX, &leaks);
		drive_kill(again);
		return ok;
	}
	if (ok && x->d->adopted <= x->end &&
	    memcmp(qcow2_info(again->q)->uuid, x->d->uuid, QCOW2_UUID))
		return drive_broken(again, "D6: the image has changed its identity");
	ok = ok && drive_judge_size(x->d, again, w.high, x->end) &&
	     drive_check(again, bound, &leaks) && drive_judge(again, w, gen, wp);
	if (ok && goes_on) {
		x->more_dice.state = hash;
		return go_on(x, size, gen, wp, bound);
	}
	drive_kill(again);
	return ok;
}

/* The operations of the epoch, for who looks at one state. */
static void list_operations(const struct explorer *x)
{
	static const char *const names[] = { "write", "sync", "punch", "truncate", "cut" };

	for (size_t i = 0; i < x->nr; i++)
		printf("  operation %zu: %s%s %llu bytes at 0x%llx, fate %u cut %u\n", x->start + i,
		       x->op[i].data ? "data " : "", names[x->op[i].kind],
		       (unsigned long long)x->op[i].len, (unsigned long long)x->op[i].off,
		       x->fate[i].kind, x->fate[i].cut);
}

static void count_sites(struct explorer *x, size_t n)
{
	uint32_t nr = x->d->log->nr_sites;

	if (n < x->nr && x->op[n].kind != OP_CUT && x->op[n].site < nr)
		x->d->log->site[x->op[n].site].cut_before++;
	if (n && x->op[n - 1].site < nr)
		x->d->log->site[x->op[n - 1].site].cut_after++;
}

static void visit(struct explorer *x, uint32_t size)
{
	struct lab *lab = x->lab;
	size_t n = issued(x, size);
	struct mwindow w = model_window(x->d->m, n, x->end);
	uint64_t hash;
	char how[600], why[MODEL_WHYLEN] = "";
	bool fresh, ok = true;

	lab->states++;
	lab->ordinal++;
	if (lab->ordinal % lab->every && !lab->only_state)
		return;
	simdisk_apply(x->work, x->op, x->nr, x->fate, x->size[size]);
	hash = simdisk_hash(x->work, x->base);
	fresh = hashset_add(&lab->images, hash);
	if (lab->only_state ? lab->only_state == lab->ordinal
			    : hashset_add(&lab->judged, hash ^ bounds_hash(x, w))) {
		if (fresh && lab->qemu_every && lab->images.nr % lab->qemu_every == 0 &&
		    is_created(x)) {
			lab->qemu++;
			ok = qemu_check(x->work, why);
		}
		if (!ok || !judge(x, size, w, hash)) {
			drive_kill(&x->again);
			simdisk_restore(x->work, x->base);
			simdisk_apply(x->work, x->op, x->nr, x->fate, x->size[size]);
			describe(x, size, how, sizeof(how));
			if (lab->only_state)
				list_operations(x);
			lab_violation(lab, x->work, how, ok ? x->again.why : why);
		}
	}
	simdisk_restore(x->work, x->base);
}

static void set_all(struct explorer *x, size_t from, size_t to, enum fate_kind kind)
{
	for (size_t i = from; i < to; i++)
		x->fate[i] = (struct fate){ kind, 0 };
}

/* The places of the refcount table: where the header names it now, and where it will next. */
static void find_reftables(struct explorer *x)
{
	const struct oplog *log = x->d->log;
	const uint8_t *place = x->base->data + REFTABLE_PLACE;

	for (unsigned int k = 0; k < 2; k++) {
		uint64_t off;
		uint32_t clusters;

		memcpy(&off, place, sizeof(off));
		memcpy(&clusters, place + sizeof(off), sizeof(clusters));
		x->reftable[k] = be64toh(off);
		x->reftable_len[k] = (uint64_t)be32toh(clusters) * x->d->geo->cluster;
		for (size_t i = x->start; i < log->nr; i++)
			if (log->op[i].kind == OP_WRITE && log->op[i].off == REFTABLE_PLACE) {
				place = log->op[i].bytes;
				break;
			}
	}
}

static bool in_reftable(const struct explorer *x, const struct op *op)
{
	return op->off - x->reftable[0] < x->reftable_len[0] ||
	       op->off - x->reftable[1] < x->reftable_len[1];
}

/*
 * Where operation I may tear at random: guest data anywhere, tables between entries, but header and
 * refcount table only between sectors: a sector is written as one, and these two rely on it.
 */
static uint32_t random_tear(struct explorer *x, size_t i)
{
	const struct op *op = &x->op[i];
	uint32_t cut = dice_below(&x->dice, op->len);

	if (op->data)
		return cut;
	if (op->off + cut < SIM_PAGE || in_reftable(x, op))
		return cut & ~(SIM_PAGE - 1);
	return cut & ~7u;
}

static bool can_tear(const struct op *op)
{
	return (op->kind == OP_WRITE || op->kind == OP_PUNCH) && op->len > 8;
}

/* The operations before N are done, N is torn, the later ones lost. */
static void visit_torn(struct explorer *x, size_t n)
{
	uint64_t step = SIM_PAGE;

	if (!can_tear(&x->op[n]))
		return;
	while (x->op[n].len / step > 8)
		step *= 2;
	for (uint64_t cut = step; cut < x->op[n].len; cut += step) {
		x->fate[n] = (struct fate){ FATE_HEAD, cut };
		visit(x, 0);
		x->fate[n] = (struct fate){ FATE_TAIL, cut };
		visit(x, 0);
	}
	for (int i = 0; i < 2; i++) {
		x->fate[n] = (struct fate){ i ? FATE_TAIL : FATE_HEAD, random_tear(x, n) };
		visit(x, 0);
	}
}

static void visit_prefixes(struct explorer *x)
{
	set_all(x, 0, x->nr, FATE_LOST);
	for (size_t n = 0; n <= x->nr && !lab_should_stop(x->lab); n++) {
		for (uint32_t s = 0; s < x->nr_sizes; s++)
			visit(x, s);
		count_sites(x, n);
		if (n == x->nr)
			break;
		visit_torn(x, n);
		x->fate[n] = (struct fate){ FATE_DONE, 0 };
	}
}

static void visit_drops(struct explorer *x)
{
	size_t pairs = x->nr * (x->nr - 1) / 2, most = MAX_PAIRS * x->lab->w->share / 100;

	for (size_t i = 0; i < x->nr && !lab_should_stop(x->lab); i++) {
		set_all(x, 0, x->nr, FATE_LOST);
		x->fate[i].kind = FATE_DONE;
		visit(x, 0);
		set_all(x, 0, x->nr, FATE_DONE);
		x->fate[i].kind = FATE_LOST;
		for (uint32_t s = 0; s < x->nr_sizes; s++)
			visit(x, s);
		visit_torn(x, i);
		for (size_t j = i + 1; j < x->nr; j++) {
			if (pairs > most && dice_below(&x->dice, pairs) >= most)
				continue;
			set_all(x, 0, x->nr, FATE_DONE);
			x->fate[i].kind = FATE_LOST;
			x->fate[j].kind = FATE_LOST;
			visit(x, 0);
		}
	}
}

static void visit_subsets(struct explorer *x)
{
	for (uint32_t mask = 0; mask < 1u << x->nr && !lab_should_stop(x->lab); mask++) {
		for (size_t i = 0; i < x->nr; i++)
			x->fate[i] = (struct fate){ mask >> i & 1 ? FATE_DONE : FATE_LOST, 0 };
		visit(x, 0);
	}
}

static void visit_random(struct explorer *x, uint64_t times)
{
	while (times-- && !lab_should_stop(x->lab)) {
		uint32_t kept = dice_below(&x->dice, 100), torn = dice_below(&x->dice, 40);

		for (size_t i = 0; i < x->nr; i++) {
			struct fate f = { FATE_LOST, 0 };

			if (dice_below(&x->dice, 100) < kept)
				f.kind = FATE_DONE;
			if (can_tear(&x->op[i]) && dice_below(&x->dice, 100) < torn) {
				f.kind = dice_below(&x->dice, 2) ? FATE_HEAD : FATE_TAIL;
				f.cut = random_tear(x, i);
				if (dice_below(&x->dice, 2))
					f.cut &= ~(SIM_PAGE - 1);
			}
			x->fate[i] = f;
		}
		visit(x, dice_below(&x->dice, 2) ? 0 : dice_below(&x->dice, x->nr_sizes));
	}
}

static void visit_epoch(struct explorer *x)
{
	uint64_t depth = x->lab->depth * x->lab->w->share / 100;

	x->op = x->d->log->op + x->start;
	x->nr = x->end - x->start;
	x->fate = calloc(x->nr + 1, sizeof(*x->fate));
	if (!x->fate)
		abort();
	x->dice.state = x->lab->seed * 0x10001 + x->start;
	simdisk_rehash(x->base);
	simdisk_copy(x->work, x->base);
	find_sizes(x);
	find_reftables(x);
	visit_prefixes(x);
	visit_drops(x);
	if (x->nr <= ALL_SUBSETS)
		visit_subsets(x);
	if (x->nr)
		visit_random(x, x->nr <= ALL_SUBSETS ? RANDOM_OF_SUBSETS : depth);
	free(x->fate);
}

void explore(struct lab *lab, struct drive *d)
{
	struct explorer x = { .lab = lab, .d = d };
	const struct oplog *log = d->log;

	x.base = simdisk_new(d->geo->cap);
	x.work = simdisk_new(d->geo->cap);
	x.base->file.in_memory = x.work->file.in_memory = d->geo->in_memory;
	x.base->file.direct = x.work->file.direct = d->geo->direct;
	x.again.geo = d->geo;
	x.again.disk = x.work;
	x.again.log = &x.work_log;
	x.again.calm = true;
	x.again.buf = malloc(d->geo->zone);
	if (!x.again.buf)
		abort();
	chance = 0xa5;
	for (x.end = 0; x.end <= log->nr && !lab_should_stop(lab); x.end++) {
		const struct op *op = x.end < log->nr ? &log->op[x.end] : NULL;
		bool cut = op && op->kind == OP_CUT;

		if (op && op->kind != OP_SYNC && !cut)
			continue;
		if (x.end >= d->record_from)
			visit_epoch(&x);
		simdisk_apply(x.base, log->op + x.start, x.end - x.start, cut ? op->fate : NULL,
			      cut ? op->size : SIM_NATURAL);
		x.start = x.end + 1;
	}
	chance = 0x5a;
	free(x.again.buf);
	oplog_free(&x.work_log);
	simdisk_free(x.base);
	simdisk_free(x.work);
}
