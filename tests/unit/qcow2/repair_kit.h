/* SPDX-License-Identifier: MIT */
/*
 * Damaged images for the tests of the repair: small images of many kinds, with data, and each kind
 * of damage at each of its places.
 */
#ifndef TESTS_REPAIR_KIT_H
#define TESTS_REPAIR_KIT_H

#include "../../tally.h"
#include "common.h"
#include "check.h"
#include "overlay.h"

#define COPIED (1ull << 63)
#define BEYOND (1ull << 40)

/* How an image is made. */
struct kind {
	const char *name;
	uint32_t cluster, bits, conventional;
	enum qcow2_zone_layout layout;
	bool lazy;
};

static const struct kind kinds[] = {
	{ "plain, 512, 16 bits", 512, 16, 0, QCOW2_LAYOUT_NONE, false },
	{ "plain, 4k, 1 bit", 4096, 1, 0, QCOW2_LAYOUT_NONE, false },
	{ "plain, 64k, 64 bits", 65536, 64, 0, QCOW2_LAYOUT_NONE, false },
	{ "v11, 512, 1 bit", 512, 1, 2, QCOW2_LAYOUT_V11, false },
	{ "v11, 512, 64 bits", 512, 64, 2, QCOW2_LAYOUT_V11, false },
	{ "v11, 4k, 16 bits", 4096, 16, 0, QCOW2_LAYOUT_V11, false },
	{ "v11, 4k, 2 bits, lazy", 4096, 2, 1, QCOW2_LAYOUT_V11, true },
	{ "v11, 64k, 16 bits", 65536, 16, 1, QCOW2_LAYOUT_V11, false },
	{ "latest, 1k, 4 bits", 1024, 4, 3, QCOW2_LAYOUT_LATEST, false },
	{ "latest, 64k, 8 bits", 65536, 8, 0, QCOW2_LAYOUT_LATEST, false },
	{ "v11b, 4k, 32 bits", 4096, 32, 2, QCOW2_LAYOUT_L48B, false },
	{ "v8, 2k, 16 bits", 2048, 16, 2, QCOW2_LAYOUT_L56, false },
};
#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

#define DISK (1 * MIB)
#define ZONE (64 * KIB)

struct image {
	const struct kind *kind;
	struct ramdisk *d;
	uint8_t *golden; /* what the disk reads */
	uint64_t cs, l1, l1_entries, reftable, reftable_clusters, wp, end;
	uint64_t l2[2],
		l2_index[2]; /* the first and the last L2 table (the same if there is one) */
	uint64_t slot[2];    /* host offsets of the first and last L2 entries with data */
	uint64_t data[2];    /* what they map */
	uint64_t guest[2];   /* offsets of that data on the disk */
	uint64_t ext;	     /* host offset of the data of the zoned extension */
	unsigned int
		flags_too_many; /* wrong flags that a repaired refcount of a shared table uncovers */
	bool mark_suffices;	/* a half-done repair only has to leave the corrupt bit set */
	uint64_t hurt[4];	/* two ranges of the disk that may be lost, each from and to */
};

static inline uint64_t get64(const struct ramdisk *d, uint64_t off)
{
	uint64_t v;

	memcpy(&v, d->bytes + off, 8);
	return be64toh(v);
}

static inline void put64(struct ramdisk *d, uint64_t off, uint64_t v)
{
	v = htobe64(v);
	memcpy(d->bytes + off, &v, 8);
	if (off + 8 > d->size)
		d->size = off + 8;
}

static inline void put32(struct ramdisk *d, uint64_t off, uint32_t v)
{
	v = htobe32(v);
	memcpy(d->bytes + off, &v, 4);
}

/* Gives a v11 image the header extension of another layout. */
static inline void relayout(struct ramdisk *d, enum qcow2_zone_layout layout)
{
	struct qcow2 *q = open_image(d, QCOW2_RDONLY);
	struct qcow2_zoned z = q->info.zoned;
	uint32_t at = q->hdr.ext_zoned;
	uint8_t buf[ZONED_EXT_MAX];
	size_t len;

	qcow2_close(q);
	z.layout = layout;
	len = layout_encode(&z, buf);
	memset(d->bytes + at, 0, 160);
	put32(d, at, EXT_ZONED);
	put32(d, at + 4, (uint32_t)len);
	memcpy(d->bytes + at + 8, buf, len);
}

static inline uint8_t *read_disk(struct ramdisk *d)
{
	struct qcow2 *q = open_image(d, QCOW2_RDONLY | QCOW2_INSPECT | QCOW2_REPAIR);
	uint8_t *buf = malloc(DISK);

	for (uint64_t off = 0; off < DISK; off += 512) /* 0xee stands for what cannot be read */
		if (qcow2_read(q, buf + off, off, 512, 0))
			memset(buf + off, 0xee, 512);
	qcow2_close(q);
	return buf;
}

static inline void find_slots(struct image *i)
{
	struct ramdisk *d = i->d;
	bool found = false;

	for (uint64_t e = 0; e < i->l1_entries; e++) {
		uint64_t l2 = get64(d, i->l1 + 8 * e) & L1E_OFFSET_MASK;

		for (uint64_t k = 0; l2 && k < i->cs / 8; k++) {
			uint64_t host = get64(d, l2 + 8 * k) & L2E_OFFSET_MASK;
			int last = found;

			if (!host)
				continue;
			for (int w = last; w < 2; w++) {
				i->l2[w] = l2;
				i->l2_index[w] = e;
				i->slot[w] = l2 + 8 * k;
				i->data[w] = host;
				i->guest[w] = (e * (i->cs / 8) + k) * i->cs;
			}
			found = true;
		}
	}
	assert_true(found);
}

/* Writes to zones 0 to 5 and 12, some of them up to full; to plain images in the same places. */
static inline struct image make_damageable(const struct kind *k)
{
	struct qcow2_create_opts o = {
		.size = DISK,
		.cluster_size = k->cluster,
		.refcount_bits = k->bits,
		.lazy_refcounts = k->lazy,
		.zoned = k->layout != QCOW2_LAYOUT_NONE,
		.zone = { .zone_size = ZONE,
			  .zone_capacity = 48 * KIB,
			  .conventional_zones = k->conventional,
			  .layout =
				  k->layout == QCOW2_LAYOUT_LATEST ? k->layout : QCOW2_LAYOUT_V11 },
	};
	struct image i = { .kind = k, .cs = k->cluster };
	struct qcow2 *q;

	i.d = make_image(&o);
	if (k->layout == QCOW2_LAYOUT_L48B || k->layout == QCOW2_LAYOUT_L56)
		relayout(i.d, k->layout);
	q = open_image(i.d, 0);
	for (uint32_t z = 0; z < 16; z++) {
		uint32_t len = z == 12 ? 8192 : z > 5 ? 0 : z % 2 ? 48 * 1024 : 12 * 1024;

		if (!len)
			continue;
		put(q, z * ZONE, len, z);
		if (o.zoned && z >= k->conventional)
			qcow2_wp_advance(q, z, z * ZONE + len);
	}
	i.l1 = q->hdr.l1_offset;
	i.l1_entries = q->hdr.l1_size;
	i.wp = q->info.zoned.zonedmeta_offset;
	i.ext = q->hdr.ext_zoned + 8;
	assert_int_equal(qcow2_close(q), 0);
	i.reftable = get64(i.d, 48);
	i.reftable_clusters = be32toh(*(uint32_t *)(i.d->bytes + 56));
	i.d->size = align_up(i.d->size, i.cs);
	i.end = i.d->size;
	find_slots(&i);
	i.golden = read_disk(i.d);
	ram_forget(i.d);
	return i;
}

/* Returns a copy of the image, to be damaged. */
static inline struct image image_copy(const struct image *from)
{
	struct image i = *from;

	i.d = ram_copy(from->d);
	i.golden = malloc(DISK);
	memcpy(i.golden, from->golden, DISK);
	return i;
}

static inline void image_end(struct image *i)
{
	ram_free(i->d);
	free(i->golden);
}

/* Sets the recorded refcount of the cluster at HOST. */
static inline void put_count(struct image *i, uint64_t host, uint64_t count)
{
	uint32_t order = (uint32_t)__builtin_ctz(i->kind->bits);
	uint64_t per_block = i->cs * 8 / i->kind->bits, cluster = host / i->cs;
	uint64_t block = get64(i->d, i->reftable + 8 * (cluster / per_block));

	assert_int_not_equal(block, 0);
	refcount_set(i->d->bytes + block, cluster % per_block, order, count);
}

static inline uint64_t first_block(const struct image *i)
{
	return get64(i->d, i->reftable);
}

/* The damages. PLACE chooses where; false: this image has no such place. */

static inline uint64_t place_of(const struct image *i, unsigned int place)
{
	switch (place) {
	case 0:
		return 0;
	case 1:
		return i->l1;
	case 2:
		return i->l2[0];
	case 3:
		return i->data[0];
	case 4:
		return i->data[1];
	case 5:
		return i->reftable;
	case 6:
		return first_block(i);
	case 7:
		return i->l2[1];
	default:
		return i->wp;
	}
}
#define NR_PLACES 9

static inline void hurt(struct image *i, int n, uint64_t from, uint64_t len)
{
	i->hurt[2 * n] = from;
	i->hurt[2 * n + 1] = from + len;
}

static inline void hurt_l1(struct image *i, uint64_t index)
{
	hurt(i, 0, index * i->cs / 8 * i->cs, i->cs / 8 * i->cs);
}

static inline bool count_zero(struct image *i, unsigned int place)
{
	if (place == 8 && !i->wp)
		return false;
	put_count(i, place_of(i, place), 0);
	return true;
}

static inline bool count_high(struct image *i, unsigned int place)
{
	if (i->kind->bits == 1 || (place == 8 && !i->wp))
		return false;
	put_count(i, place_of(i, place), place % 2 ? 2 : (1ull << (i->kind->bits - 1)) + 1);
	return true;
}

static inline bool leak(struct image *i, unsigned int place)
{
	uint64_t per_block = i->cs * 8 / i->kind->bits, first = i->end / i->cs;

	if (first % per_block == 0 || first % per_block + place >= per_block)
		return false;
	if (place < 2)
		i->d->size = i->end + (place + 1) * i->cs;
	put_count(i, i->end + place * i->cs, 1);
	return true;
}

static inline bool l2_names(struct image *i, unsigned int place)
{
	if (place == 3 || (place == 8 && !i->wp))
		return false; /* itself */
	put64(i->d, i->slot[0], COPIED | place_of(i, place));
	hurt(i, 0, i->guest[0], i->cs);
	return true;
}

static inline bool l2_value(struct image *i, unsigned int place)
{
	static const struct {
		uint64_t value;
		bool add;
	} table[] = {
		{ BEYOND, true },
		{ 512, true },
		{ 0x3f00000000000000, true },
		{ 2, true },
		{ 0x100, true },
		{ ~0ull, false },
		{ COPIED | BEYOND, false },
		{ L2E_COMPRESSED | BEYOND, false },
		{ L2E_COMPRESSED | 0x3fffffffffffffff, false },
		{ L2E_ZERO | BEYOND, false },
		{ 0xfffffffffff00, false },
	};
	int which = place / 16;

	place %= 16;
	if (which > 1 || place >= sizeof(table) / sizeof(table[0]) ||
	    (i->cs == 512 && place == 1)) /* a neighbour then, not misaligned */
		return false;
	put64(i->d, i->slot[which],
	      table[place].value | (table[place].add ? COPIED | i->data[which] : 0));
	hurt(i, 0, i->guest[which], i->cs);
	return true;
}

static inline bool l2_flag(struct image *i, unsigned int place)
{
	if (place > 1)
		return false;
	put64(i->d, i->slot[place], i->data[place]);
	return true;
}

static inline bool l1_names(struct image *i, unsigned int place)
{
	unsigned int which = place / 16;

	place %= 16;
	if (which > 1 || place >= NR_PLACES || (place == 8 && !i->wp) || place == (which ? 7 : 2))
		return false;
	if (place_of(i, place) == i->l2[which])
		return false;
	put64(i->d, i->l1 + 8 * i->l2_index[which], COPIED | place_of(i, place));
	hurt_l1(i, i->l2_index[which]);
	i->flags_too_many = place == 2 || place == 7;
	return true;
}

static inline bool l1_value(struct image *i, unsigned int place)
{
	static const struct {
		uint64_t value;
		bool add, harmless;
	} table[] = {
		{ BEYOND, true, false },
		{ 512, true, false },
		{ 0x7f00000000000000, true, true },
		{ 2, true, true },
		{ 0x100, true, true },
		{ ~0ull, false, false },
		{ COPIED | BEYOND, false, false },
		{ 0, true, true /* but for COPIED */ },
	};
	uint64_t l2 = i->l2[0];

	if (place >= sizeof(table) / sizeof(table[0]) || (i->cs == 512 && place == 1))
		return false;
	put64(i->d, i->l1 + 8 * i->l2_index[0],
	      table[place].value | (table[place].add ? l2 | (place == 7 ? 0 : COPIED) : 0));
	if (!table[place].harmless)
		hurt_l1(i, i->l2_index[0]);
	return true;
}

static inline bool reftable_names(struct image *i, unsigned int place)
{
	if (place == 6 || (place == 8 && !i->wp))
		return false;
	put64(i->d, i->reftable, place_of(i, place));
	return true;
}

static inline bool reftable_value(struct image *i, unsigned int place)
{
	static const uint64_t add[] = { BEYOND, 512, 1, 0x100, ~0ull << 56 };

	if (place > 6)
		return false;
	if (place < 5)
		put64(i->d, i->reftable, first_block(i) | add[place]);
	else
		put64(i->d, i->reftable + (place == 5 ? 0 : 8), place == 5 ? 0 : first_block(i));
	return true;
}

static inline bool header_refs(struct image *i, unsigned int place)
{
	switch (place) {
	case 0:
		put64(i->d, 48, 0);
		return true;
	case 1:
		put64(i->d, 48, i->reftable + 8);
		return true;
	case 2:
		put64(i->d, 48, BEYOND);
		return true;
	case 3:
		put64(i->d, 48, i->l1);
		return true;
	case 4:
		put64(i->d, 48, i->data[0]);
		return true;
	case 5:
		put32(i->d, 56, 0);
		return true;
	case 6:
		put32(i->d, 56, 0xffffffff);
		return true;
	case 7:
		put64(i->d, 48, first_block(i));
		return true;
	default:
		return false;
	}
}

static inline bool block_content(struct image *i, unsigned int place)
{
	uint8_t *b = i->d->bytes + first_block(i);

	if (place > 2)
		return false;
	for (uint64_t k = 0; k < i->cs; k++)
		b[k] = place == 0 ? 0 : place == 1 ? 0xff : (uint8_t)(k * 37 >> 2);
	return true;
}

static inline bool pointer(struct image *i, unsigned int place)
{
	static const struct {
		uint32_t zone;
		uint64_t value;
	} table[] = {
		{ 4, 0 },
		{ 5, 1 },
		{ 4, ~0ull },
		{ 5, 1ull << 58 },
		{ 12, 12 * ZONE + 100 },
		{ 12, 11 * ZONE + 512 },
		{ 15, 14 * ZONE },
		{ 15, 15 * ZONE + 1 },
		{ 4, 4 * ZONE | 1ull << 59 },
		{ 4, 4 * ZONE | 1ull << 63 },
		{ 3, 4 * ZONE + 512 },
		{ 0, 1ull << 50 },
		{ 0, 512 * 1023 },
	};

	if (place >= sizeof(table) / sizeof(table[0]) || !i->wp)
		return false;
	put64(i->d, i->wp + 8 * table[place].zone, table[place].value);
	return true;
}

static inline bool conventional(struct image *i, unsigned int place)
{
	static const uint64_t value[] = { 0, 512, ~0ull, 1ull << 59 | 512, 1ull << 60 };

	if (place >= 5 || !i->wp || !i->kind->conventional)
		return false;
	put64(i->d, i->wp + 8 * (i->kind->conventional - 1), value[place]);
	return true;
}

/* Shared clusters, or refcounts of 2, with COPIED flags that agree with them. */
static inline bool shared_rightly(struct image *i, unsigned int place)
{
	if (i->kind->bits == 1 || place > 3)
		return false;
	switch (place) {
	case 0: /* data, leaked once */
		put_count(i, i->data[0], 2);
		put64(i->d, i->slot[0], i->data[0]);
		return true;
	case 1: /* an L2 table, leaked once */
		put_count(i, i->l2[0], 2);
		put64(i->d, i->l1 + 8 * i->l2_index[0], i->l2[0]);
		return true;
	case 2: /* data of two places */
		put_count(i, i->data[0], 2);
		put64(i->d, i->slot[0], i->data[0]);
		put64(i->d, i->slot[1], i->data[0]);
		hurt(i, 0, i->guest[1], i->cs);
		return true;
	default: /* an L2 table of two places */
		if (i->l2[0] == i->l2[1])
			return false;
		put_count(i, i->l2[0], 2);
		put64(i->d, i->l1 + 8 * i->l2_index[0], i->l2[0]);
		put64(i->d, i->l1 + 8 * i->l2_index[1], i->l2[0]);
		hurt_l1(i, i->l2_index[1]);
		return true;
	}
}

/* Entries that point just beyond the end of the file, where the repair allocates new clusters. */
static inline bool just_beyond(struct image *i, unsigned int place)
{
	uint64_t off = i->end + (1 + place % 4) * i->cs;

	switch (place / 4) {
	case 0:
		put64(i->d, i->slot[0], COPIED | off);
		hurt(i, 0, i->guest[0], i->cs);
		put64(i->d, 48, BEYOND);
		return true;
	case 1:
		put64(i->d, i->l1 + 8 * i->l2_index[0], COPIED | off);
		hurt_l1(i, i->l2_index[0]);
		put64(i->d, 48, BEYOND);
		return true;
	case 2:
		put64(i->d, i->reftable, off);
		i->mark_suffices =
			true; /* a block that was outside reads as zeroes when the file grows */
		return true;
	default:
		return false;
	}
}

static const struct damage {
	const char *name;
	bool (*make)(struct image *i, unsigned int place);
} damages[] = {
	{ "count of 0", count_zero },
	{ "count too high", count_high },
	{ "leak", leak },
	{ "L2 entry points to", l2_names },
	{ "L2 entry is", l2_value },
	{ "L2 entry without COPIED", l2_flag },
	{ "L1 entry points to", l1_names },
	{ "L1 entry is", l1_value },
	{ "refcount table points to", reftable_names },
	{ "refcount table entry is", reftable_value },
	{ "header points to refcount table", header_refs },
	{ "refcount block holds", block_content },
	{ "write pointer", pointer },
	{ "conventional zone", conventional },
	{ "shared, with a right refcount", shared_rightly },
	{ "just beyond the end", just_beyond },
};
#define NR_DAMAGES (sizeof(damages) / sizeof(damages[0]))
#define MAX_PLACE  32

/* What a check or a repair found. */
struct verdict {
	struct qcow2_check_result res;
	uint64_t harm;	   /* errors other than a COPIED flag that is clear and could be set */
	uint64_t dangling; /* clusters in use whose refcount is 0 */
	unsigned int lines;
	char last[256];
};

static inline void note(void *arg, const char *line)
{
	struct verdict *v = arg;

	v->lines++;
	if (!strncmp(line, "ERROR", 5) && !strstr(line, "the flag is clear"))
		v->harm++;
	if (strstr(line, "refcount=0 reference="))
		v->dangling++;
	snprintf(v->last, sizeof(v->last), "%s", line);
}

#define LOOK (QCOW2_RDONLY | QCOW2_INSPECT | QCOW2_REPAIR)

/* Opens D, even if it is damaged, and repairs it; FIX 0: checks only. */
static inline int try_repair(struct ramdisk *d, unsigned int fix, struct verdict *v)
{
	struct qcow2_open_opts o = { .flags = LOOK, .file = ram_open(d) };
	char err[QCOW2_ERRLEN] = "";
	struct qcow2 *q;
	int ret = qcow2_open("ram", &o, &q, err);

	memset(v, 0, sizeof(*v));
	if (ret)
		return ret;
	ret = fix ? qcow2_repair(q, fix, &v->res, note, v) : qcow2_check(q, &v->res, note, v);
	qcow2_close(q);
	return ret;
}

/* Returns whether the disk reads as before the damage, outside the ranges that may be lost. */
static inline bool intact(const struct image *i, struct ramdisk *d, uint64_t *where)
{
	uint8_t *now = read_disk(d);
	bool same = true;

	for (*where = 0; *where < DISK && same; *where += 512) {
		if ((*where >= i->hurt[0] && *where < i->hurt[1]) ||
		    (*where >= i->hurt[2] && *where < i->hurt[3]))
			continue;
		same = !memcmp(now + *where, i->golden + *where, 512);
	}
	free(now);
	return same;
}

static unsigned int damaged_images, badly_repaired; /* counted by for_each_damage() */

/*
 * Calls FN, which returns what is wrong or NULL, for each STRIDEth damaged image. DAMAGE in the
 * environment chooses a kind of damage. Fails if any is wrong or there were fewer than AT_LEAST.
 */
static inline void for_each_damage(const char *(*fn)(struct image *i), unsigned int stride,
				   unsigned int at_least)
{
	unsigned int cases = 0, bad = 0, made = 0;

	for (size_t k = 0; k < NR_KINDS; k++) {
		struct image base = make_damageable(&kinds[k]);

		for (size_t n = 0; n < NR_DAMAGES * MAX_PLACE; n++) {
			struct image i = image_copy(&base);
			const struct damage *d = &damages[n / MAX_PLACE];
			const char *wrong = NULL;

			if (d->make(&i, n % MAX_PLACE) &&
			    (!getenv("DAMAGE") || !strcmp(getenv("DAMAGE"), d->name)) &&
			    made++ % stride == 0) {
				wrong = fn(&i);
				cases++;
			}
			if (wrong) {
				print_message("%s: %s %zu: %s\n", kinds[k].name, d->name,
					      n % MAX_PLACE, wrong);
				bad++;
			}
			image_end(&i);
		}
		image_end(&base);
	}
	print_message("%u damaged images\n", cases);
	damaged_images += cases;
	badly_repaired += bad;
	assert_int_equal(bad, 0);
	assert_true(cases >= at_least);
}

#endif
