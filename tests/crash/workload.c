/* SPDX-License-Identifier: MIT */
/*
 * Workloads: what is done to a drive before its crash states are looked at.
 *
 * A script is a row of words. Z is a zone, N a number of LBAs of 512 bytes; a * in place of a
 * number is a throw of the dice.
 *
 *	aZ:N     append N LBAs             AZ-Y:N  the same to each zone from Z to Y
 *	oZ:N     two writes of N together, the second half first, then the pointer
 *	pZ:N     a write that does not complete; c completes all such
 *	wZ:L:N   write N LBAs at LBA L of a conventional zone
 *	rZ  FZ   reset, finish
 *	f q      flush; close and open
 *	t        what the drive does in the background after a reset
 *	gZ:N     flush; during each of its syncs another thread appends N LBAs to zone Z
 *	[...]    flush; during each of its syncs another thread does one of the words; then the rest
 *	e        a flush whose sync fails, and all after it; kill and open
 *	h        reopen as an image of another program; explored from here on
 *	s        from here on the system call writes less than it is asked to, every third time
 *	zN       close, resize to N zones, open
 *	k        kill the process, open what is in the page cache
 *	dN       the same in the middle of a flush, after N changes of the file
 *	x        cut the power now, losing a random part, open what is left
 *	~N       N random ones of the above
 *	(...)*N  N times
 *	|        crash states are explored from here on (and not in what stands before)
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "lab.h"

/* Two L2 tables a zone, and refcount blocks of 128 KiB: tables grow at every other zone. */
static const struct geometry tiny = {
	.name = "tiny",
	.cluster = 512,
	.zone = 65536,
	.capacity = 65536,
	.nr_zones = 16,
	.refcount_bits = 16,
	.cap = 2 << 20,
};
/* Capacity below size, not a multiple of the cluster; a short last zone; limits. */
static const struct geometry ragged = {
	.name = "ragged",
	.cluster = 4096,
	.zone = 65536,
	.capacity = 50 << 10,
	.nr_zones = 16,
	.refcount_bits = 16,
	.short_by = 33 << 10,
	.max_active = 4,
	.cap = 2 << 20,
};
static const struct geometry mixed = {
	.name = "mixed",
	.cluster = 1024,
	.zone = 32768,
	.capacity = 32768,
	.nr_zones = 20,
	.conventional = 4,
	.refcount_bits = 16,
	.cap = 2 << 20,
};
/* A refcount table of one cluster speaks for 2 MiB: it is outgrown. */
static const struct geometry wide = {
	.name = "wide",
	.cluster = 512,
	.zone = 65536,
	.capacity = 65536,
	.nr_zones = 48,
	.refcount_bits = 64,
	.cap = 8 << 20,
};
/* One-bit counts. */
static const struct geometry bits = {
	.name = "bits",
	.cluster = 512,
	.zone = 16384,
	.capacity = 16384,
	.nr_zones = 32,
	.refcount_bits = 1,
	.cap = 2 << 20,
};

/* What grows: an L1 entry is for four zones, a cluster of write pointers for 64. */
static const struct geometry growing = {
	.name = "growing",
	.cluster = 512,
	.zone = 8192,
	.capacity = 8192,
	.nr_zones = 20,
	.conventional = 2,
	.most_zones = 100,
	.refcount_bits = 16,
	.cap = 2 << 20,
};
/* The last zone and the last cluster of the disk are short, and become whole. */
static const struct geometry uneven = {
	.name = "uneven",
	.cluster = 4096,
	.zone = 65536,
	.capacity = 50 << 10,
	.nr_zones = 8,
	.most_zones = 20,
	.refcount_bits = 16,
	.short_by = 33 << 10,
	.cap = 2 << 20,
};
/* The names of the features keep the zoned extension out of the first sector. */
static const struct geometry named = {
	.name = "named",
	.cluster = 8192,
	.zone = 16384,
	.capacity = 16384,
	.nr_zones = 6,
	.most_zones = 40,
	.refcount_bits = 16,
	.cap = 2 << 20,
};
/* With all zones begun the file ends a cluster below what its refcount table speaks for. */
static const struct geometry brink = {
	.name = "brink",
	.cluster = 512,
	.zone = 65536,
	.capacity = 60 << 10,
	.nr_zones = 33,
	.most_zones = 100,
	.refcount_bits = 64,
	.cap = 8 << 20,
};

/* Keeps, reserves and commits the clusters of zones that were reset. Some writes are of whole clusters. */
static const struct geometry kept = {
	.name = "kept",
	.cluster = 1024,
	.zone = 32768,
	.capacity = 30 << 10,
	.nr_zones = 20,
	.refcount_bits = 16,
	.max_active = 6,
	.in_memory = true,
	.cap = 2 << 20,
};

/* Keeps the clusters of zones that were reset, and zeroes them when they are used again. */
static const struct geometry direct = {
	.name = "direct",
	.cluster = 1024,
	.zone = 32768,
	.capacity = 30 << 10,
	.nr_zones = 20,
	.refcount_bits = 16,
	.max_active = 6,
	.direct = true,
	.cap = 2 << 20,
};

const struct workload workloads[] = {
	{ "append", &tiny, "| a0:1 a0:3 f a0:2 a1:4 f a0:9 f", 1, 100 },
	{ "append-large", &ragged, "| a0:30 f a0:70 a1:100 f a15:62 f", 1, 100 },
	{ "reset-rewrite", &tiny, "a0:20 a1:5 f | r0 a0:12 f a0:4 r1 f a1:3 a0:1 f", 1, 100 },
	{ "reset-flush-rewrite", &tiny, "a0:20 f | r0 f a0:7 f r0 f a0:9 f", 1, 100 },
	{ "reset-twice", &tiny, "a0:20 a1:8 f | r0 a0:5 r0 a0:3 f r0 r0 f a0:2 r0 a0:1 f", 1, 100 },
	{ "recycle", &tiny, "a0:128 a1:128 f | r0 f a2:40 f r1 f a3:30 a0:4 f r2 r3 f a4:9 f", 1,
	  100 },
	{ "recycle-ragged", &ragged, "A0-2:100 f | r0 f a3:20 f r1 f a4:30 r2 a5:9 f a0:4 f", 1,
	  100 },
	{ "finish", &tiny, "a0:3 a1:5 f | F0 f a1:4 F1 a2:1 f F2 F3 f r0 r3 a0:6 f", 1, 100 },
	{ "finish-unaligned", &ragged, "a0:3 a1:13 f | F0 f a1:4 F1 a2:1 F2 f r0 a0:1 F0 f", 1,
	  100 },
	{ "finish-lost", &tiny, "a0:128 a1:128 f r0 r1 f | a0:3 f a0:30 F0 f a1:2 F1 f", 1, 100 },
	{ "finish-tail", &ragged, "a0:97 f | a0:2 k F0 f a1:3 f a1:9 k F1 f", 1, 100 },
	{ "flush-storm", &tiny, "| (a0:1 f a1:1 f f)*12", 1, 50 },
	{ "in-flight", &tiny, "| p0:4 f p0:2 p1:3 f c f o0:8 p0:2 f o1:6 c f", 1, 100 },
	{ "meanwhile", &tiny,
	  "a0:4 a1:4 f | a0:1 g0:2 a1:3 g0:1 a0:1 g1:3 r1 a1:4 g0:2 a2:1 g1:1 f", 1, 100 },
	{ "meanwhile-reset", &tiny,
	  "a0:40 a1:9 f | a0:3 [r0 a0:4 a2:3] f a1:2 [a0:1 r1 a1:7 F2] a3:4 [r3 r0 a3:2] f [r0] r1 "
	  "f",
	  1, 100 },
	{ "housekeep", &tiny,
	  "a0:40 f | r0 t a1:9 t r1 t a2:20 f a3:7 r3 r2 t a3:9 a4:50 f a3:2 [r4 t a4:3 r3] t "
	  "a5:40 f",
	  1, 100 },
	{ "housekeep-kill", &tiny,
	  "a0:40 f | a1:9 r1 t a2:9 k a3:9 [r3 a4:9 t r2] r4 t a1:4 d4 a1:5 x a2:4 f", 8, 50 },
	{ "meanwhile-begin", &bits,
	  "a0:4 f | a2:4 [a4:4 a6:4 r2] a8:3 [a10:4 a2:3] r4 [a4:1 a12:2] f", 1, 100 },
	{ "meanwhile-grow", &wide,
	  "A0-26:9 f | a27:1 [a28:1 a29:1 r27] a30:1 [a31:1 r30 a32:2] f f", 1, 30 },
	{ "meanwhile-kill", &tiny,
	  "a0:40 a1:9 f | a0:3 [r0 a0:4] k a2:3 [a2:1 r1] d3 a1:4 [r1 a1:2] x f", 8, 50 },
	{ "short-writes", &tiny, "a0:20 a1:5 f | s a0:7 f r1 a1:20 f a2:9 r0 f a0:3 F2 f", 1, 100 },
	{ "failed-sync", &tiny, "a0:9 f | a0:4 e a0:3 f a1:5 a0:1 e a0:2 f", 1, 100 },
	{ "interleaved", &tiny, "| (a0:1 a1:2 o0:2 a1:1)*6 f (a0:1 a1:2)*4 f", 1, 50 },
	{ "fill", &tiny, "| a0:60 a0:60 f a0:8 f a1:128 f r0 a2:128 f", 1, 100 },
	{ "limits", &ragged, "| A0-3:9 f F0 f a4:9 f r1 f a5:8 f a2:200 f a6:1 f", 1, 100 },
	/* Zones fill, are finished or reset, and others take their places before the flush. */
	{ "limits-fill", &ragged, "A0-3:90 f | a0:10 a4:5 f a1:10 a2:10 a5:3 a6:2 f a5:97 a7:1 f",
	  1, 100 },
	{ "limits-finish", &ragged, "A0-3:9 f | F0 a4:9 F1 a5:3 f F4 F15 a6:2 a6:98 a7:1 f", 1,
	  100 },
	{ "limits-reset", &ragged, "A0-3:9 f | r0 a4:9 r1 a1:100 a5:3 f r4 a0:2 r5 a4:1 F0 a5:1 f",
	  1, 100 },
	{ "limits-meanwhile", &ragged,
	  "A0-3:96 f | a0:1 g0:3 a4:5 a1:1 g1:3 F2 a5:3 a6:2 f r4 a7:1 g3:4 a8:1 f", 1, 100 },
	{ "limits-cut", &ragged, "A0-3:90 f | a0:10 a4:5 x F1 f r2 x ~4 f x ~4 k ~4 f", 8, 50 },
	{ "reopen", &tiny, "a0:9 f | a0:3 q a0:5 r1 a1:2 q r0 q a0:4 q", 1, 100 },
	{ "new-l2", &bits, "| a0:4 f a2:4 f a4:4 a6:4 f a30:4 f", 1, 100 },
	{ "recycled-table", &bits, "a0:32 a2:32 f | r0 r2 f x a4:9 f a6:3 f x r4 f a30:3 f", 8,
	  100 },
	{ "refcount-block", &tiny, "A0-2:100 f | a3:9 f a4:9 f a5:9 f a6:9 f", 1, 100 },
	{ "refcount-table", &wide,
	  "A0-24:9 f | (a25:3 f a26:3 f)*1 a27:1 a28:1 f a29:1 f a30:1 f"
	  " a31:1 f a32:2 f",
	  1, 30 },
	{ "conventional", &mixed, "| w0:0:4 a4:3 f w0:2:4 w1:60:4 f w0:0:1 a4:2 w3:9:9 f r4 f", 1,
	  100 },
	{ "create", &tiny, "a0:1 f", 1, 100 },
	{ "create-again", &tiny, "a0:1 f", 1, 100 },
	{ "foreign", &tiny, "a0:9 f h a0:3 r1 f a1:2 q a0:1 f", 1, 100 },
	{ "compressed", &mixed, "w0:0:1 w0:8:4 a4:3 f h w0:1:1 a4:2 f w0:0:1 f", 1, 100 },
	{ "kill-append", &tiny, "a0:9 f | a0:3 a1:2 k a0:4 f a1:3 k a1:2 f", 1, 100 },
	{ "kill-reset", &tiny, "a0:40 a1:9 f | r0 k a0:5 f r1 f k a1:4 a0:3 k a0:2 a2:9 f", 1,
	  100 },
	{ "die-reset", &tiny, "a0:40 a1:9 f | r0 d1 a0:5 f r1 a0:3 d2 a1:4 a0:3 d3 a0:2 a2:9 f", 1,
	  100 },
	{ "die-anywhere", &tiny,
	  "A0-2:40 f | r0 a1:5 d* a0:5 a1:3 f r1 a3:4 d* a1:6 a0:2 r2 d* a2:9 f", 12, 50 },
	{ "cut-append", &tiny, "a0:9 f | a0:3 a1:9 f a0:5 x a0:4 a1:2 f x a0:3 f", 8, 50 },
	{ "cut-reset", &tiny, "A0-2:50 f | r0 a0:3 f r1 x a0:5 a1:4 f r2 f x a2:3 a3:7 f", 8, 50 },
	{ "cut-finish", &ragged, "A0-2:33 f | F0 a1:9 f F1 x F2 f r0 x a0:3 a4:3 f", 8, 50 },
	{ "kill-cut", &tiny, "A0-2:50 f | r0 f a0:9 k a0:4 r1 x a1:5 k r2 f a2:6 x a0:1 f", 8, 50 },
	{ "resize", &growing, "w0:0:4 a3:9 a5:16 F6 f | z30 a29:3 a3:2 f z70 a69:9 r5 f z100 f", 1,
	  100 },
	{ "resize-down", &growing,
	  "a3:9 a19:5 f z90 a80:3 f r80 r19 f | z70 a60:2 f r60 z20 z4 z20", 1, 100 },
	{ "resize-uneven", &uneven, "a0:9 a7:5 f | z9 a7:30 a8:3 f r8 r7 z7 z20 a19:2 f", 1, 100 },
	{ "resize-full", &uneven, "a0:9 a7:62 f | z8 a1:3 f z12 r7 f a7:2 a11:1 f", 1, 100 },
	{ "resize-named", &named, "a0:9 F1 f | z9 a8:3 f r8 z7 a6:1 f", 1, 100 },
	{ "resize-named-down", &named, "a0:9 F1 f | z2 z40 a39:3 f", 1, 100 },
	{ "resize-foreign", &growing, "w0:0:1 a3:9 f h a3:1 z30 a29:3 f r29 z29", 1, 100 },
	{ "resize-refcounts", &brink, "A0-32:9 f | z100 a99:2 f", 1, 30 },
	{ "resize-cut", &growing, "a3:9 f | z30 a29:3 a3:2 x a3:1 z60 k a3:4 r29 f z25 x a3:1 f", 8,
	  50 },
	{ "commit", &kept, "A0-3:60 f r0 r1 f | a4:4 a4:8 f a5:2 a4:3 a4:4 f r2 a5:10 r3 f a6:30 f",
	  1, 100 },
	{ "commit-reset", &kept,
	  "A0-3:60 f r0 r1 r2 r3 f | a4:20 f r4 a4:4 f a4:2 r4 f a4:6 a5:8 f", 1, 100 },
	{ "commit-finish", &kept, "A0-2:60 f r0 r1 r2 f | a4:4 F4 f a5:6 a5:1 F5 f r4 a5:1 F6 f", 1,
	  100 },
	{ "commit-in-flight", &kept,
	  "A0-2:60 f r0 r1 r2 f | p4:4 f p4:2 p5:8 f c f o4:8 p4:2 f o5:6 c f", 1, 100 },
	{ "commit-meanwhile", &kept,
	  "A0-2:60 f r0 r1 r2 f | a4:4 a5:4 f a4:2 g4:2 a5:4 g4:1 a4:1 g5:4 r5 a5:4 g4:2 f", 1,
	  100 },
	{ "commit-kill", &kept, "A0-2:60 f r0 r1 r2 f | a4:4 a5:2 k a4:4 f a5:4 k r4 a4:2 k a5:2 f",
	  1, 100 },
	{ "commit-cut", &kept,
	  "A0-3:60 f r0 r1 f | a4:4 f a5:2 x r2 a4:4 a5:2 f x a6:4 r4 f a6:8 x", 8, 50 },
	{ "random-kept", &kept, "A0-5:60 f r0 r1 r2 f ~4 f | ~30", 400, 30 },
	{ "direct", &direct,
	  "A0-3:60 f r0 r1 f | a4:4 a4:8 f a5:2 f r2 a5:10 r3 f a6:30 r4 f a7:9 f", 1, 100 },
	{ "direct-cut", &direct,
	  "A0-3:60 f r0 r1 f | a4:4 f a5:2 x r2 a4:4 a5:2 f x a6:4 r4 f a6:8 x", 8, 50 },
	{ "random-direct", &direct, "A0-5:60 f r0 r1 r2 f ~4 f | ~30", 100, 30 },
	{ "random-tiny", &tiny, "~4 f | s ~30", 400, 30 },
	{ "random-ragged", &ragged, "~4 f | ~30", 400, 30 },
	{ "random-mixed", &mixed, "~4 f | ~30", 400, 30 },
	{ "random-bits", &bits, "~4 f | ~30", 400, 30 },
	{ "random-wide", &wide, "A0-23:9 f | ~20", 40, 20 },
	{ "random-resize", &growing, "~4 f | (~6 z*)*4 ~4", 30, 20 },
	{ "random-uneven", &uneven, "~4 f | (~6 z*)*3 ~4", 30, 20 },
};
const unsigned int nr_workloads = sizeof(workloads) / sizeof(workloads[0]);

#define HOT_ZONES 6u /* the random ones stay among as many zones, so that they meet again */

/* As the zone state machine counts: a zone is Full when its last write has completed. */
static uint32_t active_zones(const struct drive *d)
{
	uint32_t n = 0;

	for (uint32_t z = d->geo->conventional; z < d->nr_zones; z++)
		n += d->m->zone[z].accepted && d->m->zone[z].wp < model_zone_end(d->m, z);
	return n;
}

static bool may_begin(const struct drive *d, uint32_t zone)
{
	return !d->geo->max_active || d->m->zone[zone].accepted ||
	       active_zones(d) < d->geo->max_active;
}

static bool reopen(struct drive *d)
{
	size_t pos;
	uint64_t leaks;

	if (!drive_close(d) || !drive_open(d))
		return false;
	pos = d->log->nr;
	/* A clean close leaks nothing but what crashes before it have. */
	return drive_check(d, drive_old_leaks(d, pos), &leaks) &&
	       drive_judge(d, model_window(d->m, pos, pos), NULL, NULL);
}

static bool kill_and_open(struct drive *d)
{
	uint64_t bound = drive_leak_bound(d, d->log->nr);

	drive_kill(d);
	return drive_recover(d, false, bound);
}

/* To as many zones as the dice say, without one that is not empty going. */
static bool random_resize(struct drive *d)
{
	uint32_t least = d->geo->conventional + 1, most = d->geo->most_zones;

	for (uint32_t zone = least; zone < d->nr_zones; zone++)
		if (d->m->zone[zone].accepted)
			least = zone + 1;
	return drive_resize(d, least + dice_below(&d->dice, most - least + 1));
}

static bool random_write(struct drive *d, uint32_t zone)
{
	uint32_t nr = 1 + dice_below(&d->dice, dice_below(&d->dice, 8) ? 12 : 128);
	uint32_t how = dice_below(&d->dice, 8);

	if (d->geo->conventional && !dice_below(&d->dice, 3)) {
		uint32_t lbas = d->geo->capacity / MODEL_LBA;

		zone = dice_below(&d->dice, d->geo->conventional);
		return drive_write(d, zone, dice_below(&d->dice, lbas), 1 + nr % 9, false);
	}
	if (!may_begin(d, zone))
		return drive_flush(d);
	if (how == 0)
		return drive_begin(d, zone, nr);
	if (d->nr_in_flight && how < 4)
		drive_complete(d);
	return drive_write(d, zone, 0, nr, how == 1);
}

static bool step(struct drive *d, const char **p);

/* What others do while a flush waits for the disk. */
struct others {
	struct drive *d;
	uint32_t zone, nr;
	const char *words;
	bool ok;
};

static void append_beside(void *arg)
{
	struct others *o = arg;
	const struct mzone *z = &o->d->m->zone[o->zone];

	if (o->ok && z->accepted == z->wp &&
	    z->accepted + o->nr <= model_zone_end(o->d->m, o->zone) && may_begin(o->d, o->zone))
		o->ok = drive_write(o->d, o->zone, 0, o->nr, false);
}

static bool append_and_flush(struct drive *d, uint32_t zone, uint32_t nr)
{
	struct others o = { .d = d, .zone = zone, .nr = nr, .ok = true };

	if (zone < d->geo->conventional || !d->m->zone[zone].accepted)
		return drive_flush(d);
	return drive_flush_beside(d, append_beside, &o) && o.ok;
}

static void word_beside(void *arg)
{
	struct others *o = arg;

	while (isspace((unsigned char)*o->words))
		o->words++;
	if (o->ok && *o->words != ']')
		o->ok = step(o->d, &o->words);
}

/* Does the words up to the bracket, where *P then stands, beside a flush. */
static bool words_and_flush(struct drive *d, const char **p)
{
	struct others o = { .d = d, .words = *p, .ok = true };
	bool ok = drive_flush_beside(d, word_beside, &o);

	while (ok && o.ok && *o.words != ']')
		word_beside(&o);
	*p = o.words + 1;
	return ok && o.ok;
}

static void random_beside(void *arg)
{
	struct others *o = arg;
	struct drive *d = o->d;

	for (uint32_t n = dice_below(&d->dice, 3); n && o->ok; n--) {
		uint32_t zone =
			d->geo->conventional +
			dice_below(&d->dice, d->nr_zones - d->geo->conventional) % HOT_ZONES;
		uint32_t what = dice_below(&d->dice, 8);

		if (what < 5 && may_begin(d, zone))
			o->ok = drive_write(d, zone, 0, 1 + dice_below(&d->dice, 12), false);
		else if (what == 5 || what == 6)
			o->ok = drive_reset(d, zone);
		else if (what == 7)
			o->ok = drive_finish(d, zone);
	}
}

static bool random_step(struct drive *d)
{
	struct others others = { .d = d, .ok = true };
	uint32_t last = d->nr_zones - 1, most = d->nr_zones - d->geo->conventional;
	uint32_t hot =
		d->geo->conventional + dice_below(&d->dice, most < HOT_ZONES ? most : HOT_ZONES);
	uint32_t zone = dice_below(&d->dice, 12) ? hot : last, what = dice_below(&d->dice, 100);

	if (what < 58)
		return random_write(d, zone);
	if (what < 70)
		return drive_reset(d, zone) && (dice_below(&d->dice, 2) || drive_housekeep(d)) &&
		       (dice_below(&d->dice, 3) ? drive_flush(d) : true);
	if (what < 76)
		return drive_finish(d, zone) && (dice_below(&d->dice, 3) ? drive_flush(d) : true);
	if (what < 80 && !d->calm)
		return what < 78 ? drive_flush_beside(d, random_beside, &others) && others.ok
				 : append_and_flush(d, zone, 1 + dice_below(&d->dice, 4));
	if (what < 92 || d->calm)
		return drive_flush(d);
	if (what < 94)
		return reopen(d);
	if (what < 97)
		return (what == 94 || drive_flush_and_die(d, dice_below(&d->dice, 12))) &&
		       kill_and_open(d);
	return drive_power_cut(d);
}

static uint32_t number(struct drive *d, const char **p, uint32_t dice)
{
	char *end;
	uint32_t n;

	if (**p == ':' || **p == '-')
		++*p;
	if (**p == '*') {
		++*p;
		return dice_below(&d->dice, dice);
	}
	n = strtoul(*p, &end, 10);
	*p = end;
	return n;
}

static bool step_write(struct drive *d, char word, const char **p)
{
	uint32_t zone = number(d, p, d->nr_zones), last = zone, lba = 0, nr;

	if (word == 'A')
		last = number(d, p, d->nr_zones);
	if (word == 'w')
		lba = number(d, p, d->geo->capacity / MODEL_LBA);
	nr = number(d, p, 16);
	for (; zone <= last; zone++)
		if (word == 'p' ? !drive_begin(d, zone, nr)
				: !drive_write(d, zone, lba, nr, word == 'o'))
			return false;
	return true;
}

static bool step(struct drive *d, const char **p)
{
	char word = *(*p)++;
	uint32_t n;

	switch (word) {
	case 'a':
	case 'A':
	case 'o':
	case 'p':
	case 'w':
		return step_write(d, word, p);
	case 'c':
		drive_complete(d);
		return true;
	case 'r':
		return drive_reset(d, number(d, p, d->nr_zones));
	case 'F':
		return drive_finish(d, number(d, p, d->nr_zones));
	case 'f':
		return drive_flush(d);
	case 'q':
		return reopen(d);
	case 't':
		return drive_housekeep(d);
	case 'd':
		return drive_flush_and_die(d, number(d, p, 12)) && kill_and_open(d);
	case 'g':
		n = number(d, p, d->nr_zones);
		return append_and_flush(d, n, number(d, p, 8));
	case '[':
		return words_and_flush(d, p);
	case 'e':
		return drive_flush_failing(d) && kill_and_open(d);
	case 's':
		d->disk->short_every = 3;
		return true;
	case 'h':
		return drive_make_foreign(d);
	case 'z':
		n = **p == '*' ? 0 : number(d, p, 0);
		if (n)
			return drive_resize(d, n);
		++*p;
		return random_resize(d);
	case 'k':
		return kill_and_open(d);
	case 'x':
		return drive_power_cut(d);
	case '|':
		d->record_from = d->log->nr;
		return true;
	case '~':
		for (n = number(d, p, 10); n; n--)
			if (!random_step(d))
				return false;
		return true;
	}
	return drive_broken(d, "the script has no word '%c'", word);
}

/* Runs words up to the end of the script or the closing parenthesis, where *P then stands. */
static bool run(struct drive *d, const char **p)
{
	while (**p && **p != ')') {
		const char *body;
		uint32_t times = 1;

		if (isspace((unsigned char)**p)) {
			++*p;
			continue;
		}
		if (**p != '(') {
			if (!step(d, p))
				return false;
			continue;
		}
		body = *p + 1;
		for (uint32_t i = 0; i < times; i++) {
			*p = body;
			if (!run(d, p))
				return false;
			++*p; /* the parenthesis */
			if (**p == '*' && ++*p)
				times = number(d, p, 8);
		}
	}
	return true;
}

bool drive_run(struct drive *d, const char *script)
{
	return run(d, &script);
}
