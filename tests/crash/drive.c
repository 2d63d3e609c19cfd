/* SPDX-License-Identifier: MIT */
/*
 * The engine on a simulated disk, and the model beside it: each function here asks both for the
 * same thing, and notes for the model where in the log the request began and was done.
 *
 * The engine is called as zns/ calls it: a write, then the advance of the write pointer; no write
 * into a zone that is reset or finished; reset and finish are durable with the next flush.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lab.h"

uint64_t dice_next(struct dice *d)
{
	uint64_t z = d->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint32_t dice_below(struct dice *d, uint32_t n)
{
	return n ? dice_next(d) % n : 0;
}

/* What is done, for who looks at one state. */
__attribute__((format(printf, 2, 3))) static void say(const struct drive *d, const char *fmt, ...)
{
	va_list ap;

	if (!d->loud)
		return;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
}

bool drive_broken(struct drive *d, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(d->why, sizeof(d->why), fmt, ap);
	va_end(ap);
	return false;
}

static size_t here(const struct drive *d)
{
	return d->log->nr;
}

static bool refused(struct drive *d, const char *what, uint32_t zone, int err)
{
	return drive_broken(d, "%s of zone %u failed: %s", what, zone, strerror(-err));
}

bool drive_create(struct drive *d, unsigned int salt)
{
	const struct geometry *g = d->geo;
	struct qcow2_create_opts o = {
		.size = (uint64_t)g->zone * g->nr_zones - g->short_by,
		.cluster_size = g->cluster,
		.refcount_bits = g->refcount_bits,
		.uuid = "crash laboratory",
		.zoned = true,
		.zone = { .zone_size = g->zone,
			  .zone_capacity = g->capacity,
			  .conventional_zones = g->conventional,
			  .max_open_zones = g->max_active,
			  .max_active_zones = g->max_active },
	};
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];

	o.uuid[0] += salt;
	memcpy(d->uuid, o.uuid, sizeof(d->uuid));
	if (qcow2_create("sim", &o, &d->disk->file, warn, err))
		return drive_broken(d, "create failed: %s", err);
	d->create_done = here(d);
	d->sizes[0].size = o.size;
	d->nr_sizes = 1;
	return true;
}

bool drive_open(struct drive *d)
{
	struct qcow2_open_opts opts = { .file = &d->disk->file, .shadow_dir = d->shadow_dir };
	char err[QCOW2_ERRLEN];

	d->nr_in_flight = 0;
	if (qcow2_open("sim", &opts, &d->q, err)) {
		d->q = NULL;
		return drive_broken(d, "D6: the image does not open: %s", err);
	}
	d->nr_zones = qcow2_info(d->q)->zoned.nr_zones;
	d->size = qcow2_info(d->q)->size;
	if (d->nr_zones > d->m->geo.nr_zones)
		return drive_broken(d, "D6: the image has %u zones", d->nr_zones);
	d->m->geo.lbas = d->size / MODEL_LBA;
	return true;
}

void drive_kill(struct drive *d)
{
	if (!d->q)
		return;
	say(d, "  at %zu: kill\n", here(d));
	d->disk->dead = true;
	(void)qcow2_close(d->q);
	d->disk->dead = false;
	d->q = NULL;
}

static uint64_t zone_off(const struct drive *d, uint32_t zone)
{
	return (uint64_t)zone * d->geo->zone;
}

/* As zns/ writes: in pieces, here the first LBA, at most, and the rest. */
static int put_pieces(struct drive *d, const uint8_t *from, uint64_t off, uint64_t len,
		      unsigned int flags)
{
	uint8_t *p = (uint8_t *)(uintptr_t)from;
	uint64_t first = len < MODEL_LBA ? len : MODEL_LBA;
	struct iovec iov[] = { { p, first }, { p + first, len - first } };

	return qcow2_writev(d->q, iov, len > first ? 2 : 1, off, len, flags);
}

/* Writes LEN bytes of the buffer; through reserved clusters, as data from a socket, if there are any. */
static int put_bytes(struct drive *d, uint32_t zone, uint64_t off, uint64_t len)
{
	uint8_t *mem = qcow2_reserve(d->q, zone, len);
	int err;

	if (!mem)
		return put_pieces(d, d->buf, off, len, 0);
	err = file_write(&d->disk->file, d->buf, len, (uint64_t)(mem - d->disk->data), FILE_DATA);
	if (!err)
		err = qcow2_commit(d->q, mem, off, len, 0);
	if (!err)
		return 0;
	if (err == -EEXIST)
		err = put_pieces(d, mem, off, len, 0);
	qcow2_release(d->q, zone, mem, len);
	return err;
}

static int put_lbas(struct drive *d, uint32_t zone, uint32_t lba, uint32_t nr, uint32_t version)
{
	for (uint32_t i = 0; i < nr; i++)
		model_fill(d->buf + (size_t)i * MODEL_LBA, zone, lba + i, version);
	return put_bytes(d, zone, zone_off(d, zone) + (uint64_t)lba * MODEL_LBA,
			 (uint64_t)nr * MODEL_LBA);
}

static void advance(struct drive *d, uint32_t zone)
{
	model_advance(d->m, zone);
	qcow2_wp_advance(d->q, zone, zone_off(d, zone) + (uint64_t)d->m->zone[zone].wp * MODEL_LBA);
}

/* Whether all of NR LBAs has clusters. */
static bool is_mapped(struct drive *d, uint32_t zone, uint32_t lba, uint32_t nr)
{
	uint64_t off = zone_off(d, zone) + (uint64_t)lba * MODEL_LBA;
	uint64_t end = off + (uint64_t)nr * MODEL_LBA;
	struct qcow2_extent e;

	for (; off < end; off += e.len)
		if (qcow2_map(d->q, off, end - off, &e) || !e.allocated)
			return false;
	return true;
}

/*
 * Whether a write may take clusters: the first one takes those of the whole zone, unless only small pieces
 * are free. The tables that a resize gives back are such pieces, and what a reset frees. What is committed
 * is taken by each write.
 */
static bool may_take(struct drive *d, uint32_t zone, uint32_t lba, uint32_t nr)
{
	return !lba || d->geo->most_zones || d->geo->in_memory || !is_mapped(d, zone, lba, nr);
}

bool drive_write(struct drive *d, uint32_t zone, uint32_t lba, uint32_t nr, bool reversed)
{
	struct mzone *z = &d->m->zone[zone];
	bool conventional = zone < d->m->geo.conventional;
	uint32_t half = reversed ? nr / 2 : 0, w, version;
	int err;

	if (!conventional)
		lba = z->accepted;
	if (lba + nr > model_zone_end(d->m, zone))
		nr = model_zone_end(d->m, zone) - lba;
	if (!nr)
		return true;
	if (half > nr)
		half = 0;
	if (conventional || may_take(d, zone, lba, nr))
		model_note_activity(d->m, here(d));
	say(d, "  at %zu: write zone %u LBA %u+%u%s\n", here(d), zone, lba, nr,
	    half ? " reversed" : "");
	w = model_write_begin(d->m, zone, lba, nr, here(d));
	version = z->gen[z->nr_gens - 1].write[w].version;
	err = put_lbas(d, zone, lba + half, nr - half, version);
	if (!err && half)
		err = put_lbas(d, zone, lba, half, version);
	if (err)
		return refused(d, "write", zone, err);
	model_write_done(d->m, zone, w, here(d));
	if (!conventional)
		advance(d, zone);
	return true;
}

/* A write that has reached the file but has not completed: its pointer does not move yet. */
bool drive_begin(struct drive *d, uint32_t zone, uint32_t nr)
{
	struct mzone *z = &d->m->zone[zone];
	uint32_t w, lba = z->accepted;
	int err;

	if (zone < d->m->geo.conventional || d->nr_in_flight == 8)
		return true;
	if (lba + nr > model_zone_end(d->m, zone))
		nr = model_zone_end(d->m, zone) - lba;
	if (!nr)
		return true;
	if (may_take(d, zone, lba, nr))
		model_note_activity(d->m, here(d));
	say(d, "  at %zu: begin zone %u LBA %u+%u\n", here(d), zone, lba, nr);
	w = model_write_begin(d->m, zone, lba, nr, here(d));
	err = put_lbas(d, zone, lba, nr, z->gen[z->nr_gens - 1].write[w].version);
	if (err)
		return refused(d, "write", zone, err);
	d->in_flight[d->nr_in_flight++] = zone;
	return true;
}

void drive_complete(struct drive *d)
{
	for (uint32_t i = 0; i < d->nr_in_flight; i++)
		advance(d, d->in_flight[i]);
	d->nr_in_flight = 0;
}

bool drive_reset(struct drive *d, uint32_t zone)
{
	int err;

	if (zone < d->m->geo.conventional)
		return true;
	drive_complete(d);
	model_note_activity(d->m, here(d));
	say(d, "  at %zu: reset zone %u\n", here(d), zone);
	model_reset(d->m, zone, here(d));
	err = qcow2_zone_reset(d->q, zone);
	return err ? refused(d, "reset", zone, err) : true;
}

bool drive_finish(struct drive *d, uint32_t zone)
{
	uint64_t wp;
	int err;

	if (zone < d->m->geo.conventional)
		return true;
	drive_complete(d);
	wp = zone_off(d, zone) + (uint64_t)d->m->zone[zone].wp * MODEL_LBA;
	model_note_activity(d->m, here(d));
	say(d, "  at %zu: finish zone %u\n", here(d), zone);
	model_finish(d->m, zone, here(d));
	err = qcow2_zone_finish(d->q, zone, wp);
	return err ? refused(d, "finish", zone, err) : true;
}

bool drive_flush(struct drive *d)
{
	int err;

	model_flush_begin(d->m);
	say(d, "  at %zu: flush\n", here(d));
	err = qcow2_flush(d->q);
	if (err)
		return drive_broken(d, "flush failed: %s", strerror(-err));
	model_flush_done(d->m, here(d));
	return true;
}

bool drive_housekeep(struct drive *d)
{
	say(d, "  at %zu: housekeep\n", here(d));
	(void)qcow2_housekeep(d->q);
	return true;
}

bool drive_flush_beside(struct drive *d, void (*others)(void *), void *arg)
{
	bool ok;

	d->disk->on_sync = others;
	d->disk->on_sync_arg = arg;
	ok = drive_flush(d);
	d->disk->on_sync = NULL;
	return ok;
}

bool drive_flush_failing(struct drive *d)
{
	say(d, "  at %zu: flush, its first sync fails\n", here(d));
	d->disk->fail_sync = true;
	if (!qcow2_flush(d->q) || d->disk->fail_sync)
		return drive_broken(d, "D8: a flush succeeded though its sync failed");
	if (!qcow2_flush(d->q))
		return drive_broken(d, "D8: a flush succeeded after a failed sync");
	return true;
}

bool drive_flush_and_die(struct drive *d, uint32_t n)
{
	say(d, "  at %zu: flush, dies after %u\n", here(d), n);
	model_flush_begin(d->m);
	d->disk->die_after = n + 1;
	if (!qcow2_flush(d->q))
		model_flush_done(d->m, here(d));
	d->disk->die_after = 0;
	return true;
}

bool drive_close(struct drive *d)
{
	int err;

	drive_complete(d);
	model_flush_begin(d->m);
	say(d, "  at %zu: close\n", here(d));
	err = qcow2_close(d->q);
	d->q = NULL;
	if (err)
		return drive_broken(d, "close failed: %s", strerror(-err));
	model_flush_done(d->m, here(d));
	model_closed(d->m);
	return true;
}

struct said {
	char line[300];
	bool loud;
};

static void keep_worst(void *arg, const char *line)
{
	struct said *s = arg;

	if (s->loud)
		printf("  check: %s\n", line);
	if (!s->line[0] || (strstr(s->line, "eaked") && !strstr(line, "eaked")))
		snprintf(s->line, sizeof(s->line), "%s", line);
}

bool drive_check(struct drive *d, uint64_t max_leaks, uint64_t *leaks)
{
	struct qcow2_check_result res = { 0 };
	struct said said = { "", d->loud };
	int err = qcow2_check(d->q, &res, keep_worst, &said);

	*leaks = res.leaks;
	if (err)
		return drive_broken(d, "D6: check failed: %s", strerror(-err));
	if (res.corruptions || res.check_errors)
		return drive_broken(d, "D6: check: %llu corruptions, %llu errors: %s",
				    (unsigned long long)res.corruptions,
				    (unsigned long long)res.check_errors, said.line);
	if (res.leaks > max_leaks)
		return drive_broken(d, "D6: check: %llu leaked clusters, at most %llu expected: %s",
				    (unsigned long long)res.leaks, (unsigned long long)max_leaks,
				    said.line);
	return true;
}

/* What crashes before POS may have left. */
uint64_t drive_old_leaks(const struct drive *d, size_t pos)
{
	for (uint32_t i = d->nr_crashes; i-- > 0;)
		if (d->crash[i].pos <= pos)
			return d->crash[i].leaks;
	return 0;
}

/*
 * A crash may leak what changed hands: the clusters of the zones that were begun, reset or
 * finished, their L2 tables and refcount blocks, and the few clusters of tables that grew. A flush
 * settles what came before it, but what it gives back is on the disk only after another sync.
 */
uint64_t drive_leak_bound(const struct drive *d, size_t pos)
{
	size_t settled = oplog_epoch(d->log, pos);
	uint64_t clusters = d->geo->zone / d->geo->cluster;
	uint64_t tables = clusters / (d->geo->cluster / 8) + 1;
	uint64_t blocks = clusters * d->geo->refcount_bits / 8 / d->geo->cluster + 2;
	uint32_t activity = model_activity(d->m, settled ? settled - 1 : 0, pos);
	uint64_t bound = activity ? activity * (clusters + tables + blocks) + 24 : 0;

	return bound + drive_old_leaks(d, pos);
}

uint64_t drive_zone_len(const struct drive *d, uint32_t zone)
{
	uint64_t left = d->size - zone_off(d, zone);

	return left < d->geo->zone ? left : d->geo->zone;
}

uint32_t drive_sizes(const struct drive *d, size_t issued, size_t cut, uint32_t *last)
{
	uint32_t first = 0;

	*last = 0;
	for (uint32_t i = 0; i < d->nr_sizes; i++) {
		if (d->sizes[i].done <= cut)
			first = i;
		if (d->sizes[i].begin < issued)
			*last = i;
	}
	if (*last < first)
		*last = first;
	return first;
}

bool drive_judge_size(const struct drive *d, struct drive *now, size_t issued, size_t cut)
{
	uint32_t last;

	for (uint32_t i = drive_sizes(d, issued, cut, &last); i <= last; i++)
		if (d->sizes[i].size == now->size)
			return true;
	return drive_broken(now,
			    "D6: the disk has %llu bytes, a size it cannot have yet, or no more",
			    (unsigned long long)now->size);
}

bool drive_judge(struct drive *d, struct mwindow w, uint32_t *zone_gen, uint32_t *zone_wp)
{
	const struct model *m = d->m;
	uint32_t active = 0;

	for (uint32_t zone = 0; zone < d->nr_zones; zone++) {
		uint64_t start = zone_off(d, zone), wp = qcow2_wp(d->q, zone) - start;
		uint32_t gen;
		int err;

		err = qcow2_read(d->q, d->buf, start, drive_zone_len(d, zone), 0);
		if (err)
			return refused(d, "read", zone, err);
		if (wp % MODEL_LBA)
			return drive_broken(d, "D2: zone %u: odd write pointer", zone);
		if (!model_judge(m, w, zone, wp / MODEL_LBA, d->buf, &gen, d->why))
			return false;
		active += wp && wp < (uint64_t)model_zone_end(m, zone) * MODEL_LBA;
		if (zone_gen)
			zone_gen[zone] = gen;
		if (zone_wp)
			zone_wp[zone] = wp / MODEL_LBA;
	}
	if (d->geo->max_active && active > d->geo->max_active)
		return drive_broken(d, "D5: %u zones are partly written, and %u may be active",
				    active, d->geo->max_active);
	return true;
}

/* A short last zone will be whole; if it is full it will be full then. */
static void resize_model(struct drive *d, uint64_t size)
{
	uint32_t last = d->nr_zones - 1;
	bool full = d->m->zone[last].wp == model_zone_end(d->m, last);

	d->m->geo.lbas = size / MODEL_LBA;
	if (size > d->size && full && d->m->zone[last].wp < model_zone_end(d->m, last))
		model_finish(d->m, last, here(d));
}

bool drive_resize(struct drive *d, uint32_t zones)
{
	struct qcow2_open_opts opts = { .flags = QCOW2_RESIZE, .file = &d->disk->file };
	uint64_t size = (uint64_t)zones * d->geo->zone, leaks;
	char err[QCOW2_ERRLEN];
	size_t pos;

	if (!drive_close(d))
		return false;
	if (d->nr_sizes == MAX_SIZES)
		return drive_broken(d, "more sizes than the laboratory can count");
	say(d, "  at %zu: resize to %u zones\n", here(d), zones);
	model_note_activity(d->m, here(d));
	d->sizes[d->nr_sizes].begin = here(d);
	d->sizes[d->nr_sizes].done = SIZE_MAX;
	d->sizes[d->nr_sizes++].size = size;
	resize_model(d, size);
	if (qcow2_open("sim", &opts, &d->q, err)) {
		d->q = NULL;
		return drive_broken(d, "D6: the image does not open: %s", err);
	}
	if (qcow2_resize(d->q, size, true, err))
		return drive_broken(d, "resize failed: %s", err);
	if (!drive_close(d))
		return false;
	pos = here(d);
	d->sizes[d->nr_sizes - 1].done = pos;
	return drive_open(d) && drive_judge_size(d, d, pos, pos) &&
	       drive_check(d, drive_old_leaks(d, pos), &leaks) &&
	       drive_judge(d, model_window(d->m, pos, pos), NULL, NULL);
}

bool drive_recover(struct drive *d, bool durable, uint64_t max_leaks)
{
	uint32_t gen[MAX_LAB_ZONES], wp[MAX_LAB_ZONES];
	size_t pos = here(d);
	uint64_t leaks;

	/* A flush that was done promises to survive; all that began may be there. */
	if (!drive_open(d) || !drive_judge_size(d, d, pos, pos) ||
	    !drive_check(d, max_leaks, &leaks) ||
	    !drive_judge(d, model_window(d->m, pos, pos), gen, wp))
		return false;
	if (d->nr_crashes == MAX_CRASHES)
		return drive_broken(d, "more crashes than the laboratory can count");
	d->crash[d->nr_crashes].pos = pos;
	d->crash[d->nr_crashes++].leaks = max_leaks;
	for (uint32_t zone = 0; zone < d->nr_zones; zone++) {
		if (qcow2_read(d->q, d->buf, zone_off(d, zone), drive_zone_len(d, zone), 0))
			return drive_broken(d, "zone %u became unreadable", zone);
		model_adopt(d->m, zone, gen[zone], wp[zone], d->buf, pos);
	}
	if (durable)
		model_adopt_durable(d->m, pos);
	return true;
}

/* A cut at a random place of the epoch, with random fates; then recovery, all of it recorded. */
bool drive_power_cut(struct drive *d)
{
	size_t end = here(d), start = oplog_epoch(d->log, end), nr = end - start;
	struct fate *fate = calloc(nr + 1, sizeof(*fate));
	struct oplog *log = d->log;
	uint64_t bound = drive_leak_bound(d, end);
	uint32_t kept = dice_below(&d->dice, 101);

	if (!fate)
		abort();
	drive_kill(d);
	for (size_t i = 0; i < nr; i++)
		fate[i].kind = dice_below(&d->dice, 100) < kept ? FATE_DONE : FATE_LOST;
	say(d, "  at %zu: power cut\n", here(d));
	oplog_add_cut(log, fate, nr, SIM_NATURAL);
	free(fate);
	d->disk->log = NULL;
	simdisk_empty(d->disk);
	simdisk_replay(d->disk, log, log->nr);
	d->disk->log = log;
	return drive_recover(d, true, bound);
}
