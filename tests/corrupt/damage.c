/* SPDX-License-Identifier: MIT */
/*
 * Numbers and does the damages.
 *
 * The number of a damage encodes region, position, width and value in a mixed radix. Restoring
 * costs only what was touched: the ramdisk has a record of what the engine wrote, and p->changes
 * one of what the damage changed.
 */
#undef NDEBUG
#include <assert.h>
#include <string.h>

#include "damage.h"
#include "format.h"

const char *const damage_names[NR_DAMAGES] = { "bit", "field", "cut", "splice", "random" };

#define IMAGE_CAP (12u << 20)
#define AT(field) offsetof(struct disk_header, field)

void test_image_init(struct test_image *p, const struct golden *g)
{
	memset(p, 0, sizeof(*p));
	p->g = g;
	p->d = ram_new(IMAGE_CAP);
	memcpy(p->d->bytes, g->bytes, g->size);
	p->d->size = g->size;
}

void test_image_free(struct test_image *p)
{
	ram_free(p->d);
}

/* Restores the bytes from OFF to END from the golden image. */
static void put_back(struct test_image *p, uint64_t off, uint64_t end)
{
	uint64_t size = p->g->size;

	if (end > IMAGE_CAP)
		end = IMAGE_CAP;
	if (off < end && off < size)
		memcpy(p->d->bytes + off, p->g->bytes + off, (end < size ? end : size) - off);
	if (off < size)
		off = size;
	if (off < end)
		memset(p->d->bytes + off, 0, end - off);
}

void test_image_restore(struct test_image *p)
{
	struct ramdisk *d = p->d;

	for (size_t i = 0; i < d->nr_ops; i++) {
		const struct ram_op *op = &d->ops[i];

		if (op->call == RAM_WRITE || op->call == RAM_FALLOCATE)
			put_back(p, op->off, op->off + op->len);
		else if (op->call == RAM_TRUNCATE && op->len < p->g->size)
			put_back(p, op->len, p->g->size);
	}
	for (unsigned int i = 0; i < p->nr_changes; i++)
		put_back(p, p->changes[i].off, p->changes[i].off + p->changes[i].len);
	p->nr_changes = 0;
	p->changed = false;
	d->size = p->g->size;
	ram_forget(d);
}

/* Changes bytes; those beyond the end of the golden image are left out. */
static void poke(struct test_image *p, uint64_t off, const void *bytes, uint64_t len)
{
	uint8_t *at = p->d->bytes + off;

	assert(p->nr_changes < sizeof(p->changes) / sizeof(p->changes[0]));
	if (off >= p->g->size)
		return;
	if (len > p->g->size - off)
		len = p->g->size - off;
	if (!memcmp(at, bytes, len))
		return;
	p->changes[p->nr_changes].off = off;
	p->changes[p->nr_changes++].len = len;
	memcpy(at, bytes, len);
	p->changed = true;
}

static void flip(struct test_image *p, uint64_t off, unsigned int bit)
{
	uint8_t byte = p->d->bytes[off] ^ (1u << bit);

	poke(p, off, &byte, 1);
}

static void set_size(struct test_image *p, uint64_t size)
{
	uint64_t end = p->d->size;

	if (size == end || size > IMAGE_CAP)
		return;
	assert(p->nr_changes < sizeof(p->changes) / sizeof(p->changes[0]));
	if (size < end) {
		p->changes[p->nr_changes].off = size;
		p->changes[p->nr_changes++].len = end - size;
		memset(p->d->bytes + size, 0, end - size);
	}
	p->d->size = size;
	p->changed = true;
}

/* Bits */

static uint64_t nr_bits(const struct golden *g)
{
	uint64_t n = 0;

	for (unsigned int r = 0; r < g->nr_regions; r++)
		n += 8ull * g->region[r].len;
	return n;
}

static void do_bit(struct test_image *p, uint64_t i)
{
	const struct region *r = p->g->region;

	for (; i >= 8ull * r->len; r++)
		i -= 8ull * r->len;
	flip(p, r->off + i / 8, i % 8);
}

/* Fields */

#define NR_VALUES 24u

/* What a field of WIDTH bytes with the value OLD becomes. */
static uint64_t boundary(const struct golden *g, uint64_t old, unsigned int width, unsigned int i)
{
	const uint64_t max = UINT64_MAX >> (64 - 8 * width), cs = g->cluster_size;
	const uint64_t value[NR_VALUES] = {
		0,
		1,
		2,
		0x7f,
		0x200,
		0x1ff,
		max,
		max - 1,
		max >> 1,
		(max >> 1) + 1,
		max ^ 0x1ff,
		old + 1,
		old - 1,
		old * 2,
		old ^ ((max >> 1) + 1),	       /* for an entry: COPIED */
		old ^ (max >> 2) ^ (max >> 1), /* for an entry: compressed */
		cs,
		cs - 1,
		old + cs, /* the neighbour */
		get_be(g->bytes + AT(l1_table_offset), 8) | (width == 8 ? ENTRY_COPIED : 0),
		get_be(g->bytes + AT(refcount_table_offset), 8) | (width == 8 ? ENTRY_COPIED : 0),
		g->size & ~(cs - 1),
		g->size,
		1ull << (8 * width - 8),
	};

	return value[i] & max;
}

static uint64_t positions(const struct region *r, unsigned int width)
{
	return r->widths & width && r->len >= width ? (r->len - width) / r->step + 1 : 0;
}

static uint64_t nr_fields(const struct golden *g)
{
	uint64_t n = 0;

	for (unsigned int r = 0; r < g->nr_regions; r++)
		for (unsigned int w = 2; w <= 8; w *= 2)
			n += positions(&g->region[r], w) * NR_VALUES;
	return n;
}

static void do_field(struct test_image *p, uint64_t i)
{
	const struct golden *g = p->g;

	for (unsigned int r = 0; r < g->nr_regions; r++)
		for (unsigned int w = 2; w <= 8; w *= 2) {
			uint64_t n = positions(&g->region[r], w) * NR_VALUES;
			uint64_t off = g->region[r].off + i / NR_VALUES * g->region[r].step, old;
			uint8_t field[8];

			if (i >= n) {
				i -= n;
				continue;
			}
			old = get_be(g->bytes + off, w);
			put_be(field, w, boundary(g, old, w, i % NR_VALUES));
			poke(p, off, field, w);
			return;
		}
}

/* Cuts: three lengths around each 64th byte, and a longer file. */

#define CUT_STEP 64u

static uint64_t nr_cuts(const struct golden *g)
{
	uint64_t n = g->size / CUT_STEP + 1;

	return 3 * (n < 2048 ? n : 2048) + 8;
}

static void do_cut(struct test_image *p, uint64_t i)
{
	uint64_t n = nr_cuts(p->g) - 8, step = p->g->size / (n / 3), size;

	if (i >= n)
		size = p->g->size + (1ull << (3 * (i - n)));
	else
		size = i / 3 * step + i % 3;
	set_size(p, size ? size - (i < n) : 0);
}

/* Splices */

struct splice {
	uint32_t magic;
	uint32_t len; /* claimed */
	uint32_t put; /* bytes that are there */
	uint8_t bytes[64];
};

static const struct splice splices[] = {
	{ EXT_END, 0, 0, { 0 } },
	{ EXT_END, 0xffffffff, 8, { 0 } },
	{ 0xdeadbeef, 0, 0, { 0 } },
	{ 0xdeadbeef, 1, 8, { 1 } },
	{ 0xdeadbeef, 0xffffffff, 8, { 0 } },
	{ 0xdeadbeef, 0xfffffff8, 8, { 0 } },
	{ 0xdeadbeef, 0x7fffffff, 8, { 0 } },
	{ 0xdeadbeef, 0x80000000, 8, { 0 } },
	{ EXT_ZONED, 0, 0, { 0 } },
	{ EXT_ZONED, 44, 48, { 1, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0x10 } },
	{ EXT_ZONED, 48, 48, { 1 } },
	{ EXT_ZONED, 56, 56, { 1 } },
	{ EXT_ZONED, 40, 40, { 1 } },
	{ EXT_ZONED, 0xffffffff, 8, { 1 } },
	{ EXT_ZNSD, 16, 16, { 1, 2, 3 } },
	{ EXT_ZNSD, 15, 16, { 1, 2, 3 } },
	{ EXT_ZNSD, 0, 0, { 0 } },
	{ EXT_ZNSD, 64, 64, { 1, 2, 3 } },
	{ EXT_BACKING_FORMAT, 0, 0, { 0 } },
	{ EXT_BACKING_FORMAT, 64, 64,
	  "0123456789012345678901234567890123456789012345678901234567890" },
	{ EXT_BACKING_FORMAT, 5, 8, "a\n\033[m" },
	{ EXT_DATA_FILE, 9, 16, "nbd://x/y" },
	{ EXT_DATA_FILE, 64, 64, "json:{}" },
	{ EXT_FEATURE_NAMES, 0, 0, { 0 } },
	{ EXT_FEATURE_NAMES, 48, 48, { 0, 5, '%', 's', '%', 'n' } },
	{ EXT_FEATURE_NAMES, 47, 48, { 0, 63, 0xff, 0xff } },
	{ EXT_BITMAPS, 0, 0, { 0 } },
	{ EXT_BITMAPS, 24, 24, { 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32 } },
	{ EXT_BITMAPS, 24, 24, { 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff } },
	{ EXT_BITMAPS, 24, 24, { 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0,
				 4, 0, 0,    0,	   0, 0, 0, 0, 0, 0, 2 } },
	{ EXT_CRYPTO, 16, 16, { 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2 } },
	{ EXT_CRYPTO, 16, 16, { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0, 0xff } },
	{ EXT_CRYPTO, 0, 0, { 0 } },
};
#define NR_SPLICES   (sizeof(splices) / sizeof(splices[0]))
#define SPLICE_TIMES 3 /* once, twice, until the cluster is full */
#define SPLICE_BITS  4 /* bitmaps and crypto are only read with their feature bits */

static const struct {
	size_t field;
	uint64_t bit;
} splice_bit[SPLICE_BITS] = {
	{ AT(incompatible_features), 0 },
	{ AT(incompatible_features), INCOMPAT_ZONED },
	{ AT(incompatible_features), 1ull << 63 },
	{ AT(autoclear_features), AUTOCLEAR_BITMAPS },
};

static uint64_t nr_swaps(const struct golden *g)
{
	return 2 * g->nr_regions * g->nr_regions;
}

static uint64_t nr_splices(const struct golden *g)
{
	return NR_SPLICES * SPLICE_TIMES * SPLICE_BITS + nr_swaps(g);
}

/* Inserts an extension before the others, TIMES times. */
static void splice_in(struct test_image *p, const struct splice *s, unsigned int times)
{
	static uint8_t cluster[65536];
	uint64_t cs = p->g->cluster_size < 4096 ? p->g->cluster_size : 4096;
	uint64_t at = get_be(p->g->bytes + AT(version), 4) == 2 ? HEADER_V2_LENGTH : HEADER_LENGTH;
	uint64_t len = 8 + s->put, end = at;

	for (unsigned int n = 0; n < times && end + len <= cs; n++) {
		put_be(cluster + end, 4, s->magic);
		put_be(cluster + end + 4, 4, s->len);
		memcpy(cluster + end + 8, s->bytes, s->put);
		end += len;
	}
	memcpy(cluster + end, p->d->bytes + at, cs - end);
	poke(p, at, cluster + at, cs - at);
}

static void do_splice(struct test_image *p, uint64_t i)
{
	static const unsigned int times[SPLICE_TIMES] = { 1, 2, 1000 };
	const struct golden *g = p->g;
	uint8_t field[8];

	if (i < NR_SPLICES * SPLICE_TIMES * SPLICE_BITS) {
		unsigned int b = i / (NR_SPLICES * SPLICE_TIMES);

		splice_in(p, &splices[i % NR_SPLICES], times[i / NR_SPLICES % SPLICE_TIMES]);
		put_be(field, 8, get_be(p->d->bytes + splice_bit[b].field, 8) ^ splice_bit[b].bit);
		if (get_be(g->bytes + AT(version), 4) == 3)
			poke(p, splice_bit[b].field, field, 8);
		return;
	}
	i -= NR_SPLICES * SPLICE_TIMES * SPLICE_BITS;
	/* Copies one piece of metadata over another, or exchanges both. */
	{
		const struct region *a = &g->region[i / 2 % g->nr_regions];
		const struct region *b = &g->region[i / 2 / g->nr_regions];
		uint64_t len = a->len < b->len ? a->len : b->len;

		poke(p, b->off, g->bytes + a->off, len);
		if (i % 2)
			poke(p, a->off, g->bytes + b->off, len);
	}
}

/* Random */

static uint64_t next(uint64_t *state) /* splitmix64 */
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static void random_bytes(struct test_image *p, uint64_t *rnd)
{
	const struct region *r = &p->g->region[next(rnd) % p->g->nr_regions];
	uint64_t off = next(rnd) % r->len, len = 1 + next(rnd) % 16;
	uint8_t bytes[16];
	unsigned int how = next(rnd) % 3;

	if (len > r->len - off)
		len = r->len - off;
	for (uint64_t i = 0; i < len; i++)
		bytes[i] = how == 0 ? 0 : how == 1 ? 0xff : next(rnd);
	poke(p, r->off + off, bytes, len);
}

/* Copies an entry of a table over another one, of the same or another table. */
static void random_entry(struct test_image *p, uint64_t *rnd)
{
	const struct region *a = &p->g->region[next(rnd) % p->g->nr_regions];
	const struct region *b = &p->g->region[next(rnd) % p->g->nr_regions];

	if (a->len >= 8 && b->len >= 8)
		poke(p, b->off + next(rnd) % (b->len / 8) * 8,
		     p->d->bytes + a->off + next(rnd) % (a->len / 8) * 8, 8);
}

static void do_random(struct test_image *p, uint64_t seed)
{
	uint64_t rnd = seed;
	unsigned int n = 1 + next(&rnd) % 8;

	while (n--) {
		switch (next(&rnd) % 16) {
		case 0 ... 4:
			do_bit(p, next(&rnd) % nr_bits(p->g));
			break;
		case 5 ... 9:
			do_field(p, next(&rnd) % nr_fields(p->g));
			break;
		case 10 ... 11:
			random_bytes(p, &rnd);
			break;
		case 12 ... 13:
			random_entry(p, &rnd);
			break;
		case 14:
			do_splice(p, next(&rnd) % nr_splices(p->g));
			break;
		case 15:
			if (next(&rnd) % 4 == 0)
				do_cut(p, next(&rnd) % nr_cuts(p->g));
			break;
		}
	}
}

uint64_t damage_count(const struct golden *g, enum damage kind)
{
	switch (kind) {
	case DAMAGE_BIT:
		return nr_bits(g);
	case DAMAGE_FIELD:
		return nr_fields(g);
	case DAMAGE_CUT:
		return nr_cuts(g);
	case DAMAGE_SPLICE:
		return nr_splices(g);
	case DAMAGE_RANDOM:
		return RANDOM_CASES;
	default:
		return 0;
	}
}

bool damage_do(struct test_image *p, enum damage kind, uint64_t i)
{
	static void (*const doing[NR_DAMAGES])(struct test_image *, uint64_t) = {
		[DAMAGE_BIT] = do_bit,	     [DAMAGE_FIELD] = do_field,	  [DAMAGE_CUT] = do_cut,
		[DAMAGE_SPLICE] = do_splice, [DAMAGE_RANDOM] = do_random,
	};

	doing[kind](p, i);
	return p->changed;
}
