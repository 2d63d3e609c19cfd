/* SPDX-License-Identifier: MIT */
/*
 * The words of znsimg's command line: sizes, and the options behind -o.
 *
 * 1. -o may be given many times and holds "name=value" pairs with commas between them; a doubled
 *    comma is a comma in the value, as in QEMU. The last value given counts.
 * 2. Whether one value is well formed is judged here, whether values fit together in
 *    qcow2_create(): a rule stands in one place.
 * 3. An option left out is a default and an option given as 0 is a value; struct opts keeps the
 *    difference, because qcow2_create() takes 0 for "default".
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "znsimg.h"

enum opt_kind { KIND_SIZE, KIND_NUMBER, KIND_BOOL, KIND_WORD, KIND_UUID };

struct opt_word {
	const char *word;
	uint64_t number;
};

static const struct opt_word compat_words[] = { { "1.1", 3 }, { "v3", 3 }, { NULL, 0 } };
static const struct opt_word compression_words[] = {
	{ "zlib", QCOW2_ZLIB },
	{ "zstd", QCOW2_ZSTD },
	{ NULL, 0 },
};
static const struct opt_word mode_words[] = { { "host-managed", 1 }, { "none", 0 }, { NULL, 0 } };
static const struct opt_word layout_words[] = {
	{ "v11", QCOW2_LAYOUT_V11 },
	{ "latest", QCOW2_LAYOUT_LATEST },
	{ NULL, 0 },
};

static const struct opt {
	const char *name;
	enum opt_kind kind;
	const char *help;
	const struct opt_word *words;
	bool zero; /* 0 is a sensible value */
} opts_table[OPT_COUNT] = {
	[OPT_SIZE] = { "size", KIND_SIZE, "Virtual disk size", NULL, true },
	[OPT_COMPAT] = { "compat", KIND_WORD, "Compatibility level (v3 [1.1] only)", compat_words,
			 true },
	[OPT_CLUSTER_SIZE] = { "cluster_size", KIND_SIZE, "qcow2 cluster size (512 to 2M)", NULL,
			       false },
	[OPT_COMPRESSION] = { "compression_type", KIND_WORD,
			      "Compression method of compressed clusters (zlib, zstd)",
			      compression_words, true },
	[OPT_LAZY_REFCOUNTS] = { "lazy_refcounts", KIND_BOOL, "Postpone refcount updates", NULL,
				 true },
	[OPT_REFCOUNT_BITS] = { "refcount_bits", KIND_NUMBER,
				"Width of a reference count entry in bits (1 to 64)", NULL, false },
	[OPT_UUID] = { "uuid", KIND_UUID, "Identity of the disk (random when absent)", NULL, true },
	[OPT_ZONE_MODE] = { "zone.mode", KIND_WORD, "Zone model (host-managed, none)", mode_words,
			    true },
	[OPT_ZONE_SIZE] = { "zone.size", KIND_SIZE, "Zone size, a power of two (256M)", NULL,
			    false },
	[OPT_ZONE_CAPACITY] = { "zone.capacity", KIND_SIZE,
				"Writable bytes of each zone (the zone size)", NULL, false },
	[OPT_ZONE_CONVENTIONAL] = { "zone.conventional_zones", KIND_NUMBER,
				    "Number of conventional zones, the first ones (0)", NULL,
				    true },
	[OPT_ZONE_MAX_APPEND] = { "zone.max_append_bytes", KIND_SIZE,
				  "Largest zone append (64K); not in layout latest", NULL, false },
	[OPT_ZONE_MAX_OPEN] = { "zone.max_open_zones", KIND_NUMBER,
				"Open zones at a time, 0 for no limit (as active)", NULL, true },
	[OPT_ZONE_MAX_ACTIVE] = { "zone.max_active_zones", KIND_NUMBER,
				  "Active zones at a time, 0 for no limit (0)", NULL, true },
	[OPT_ZONE_LAYOUT] = { "zone.layout", KIND_WORD,
			      "Layout of the zoned extension (v11, latest)", layout_words, true },
};

/* qemu-img's options that we know of and do not have: better said than called unknown. */
static const char *const foreign_options[] = {
	"backing_file", "backing_fmt", "data_file",	"data_file_raw",
	"encryption",	"extended_l2", "preallocation", NULL,
};

static const char *const kind_text[] = {
	[KIND_SIZE] = "<size>", [KIND_NUMBER] = "<num>", [KIND_BOOL] = "<bool (on/off)>",
	[KIND_WORD] = "<str>",	[KIND_UUID] = "<uuid>",
};

/* Bits a size's suffix shifts by; -1 for none of them. */
static int suffix_shift(char c)
{
	static const char suffixes[] = "bkmgtpe";
	const char *p;

	if (c >= 'A' && c <= 'Z')
		c += 'a' - 'A';
	p = c ? strchr(suffixes, c) : NULL;
	return p ? (int)(p - suffixes) * 10 : -1;
}

static int hex_parse(const char *text, uint64_t *out)
{
	unsigned long long number;
	char *end;

	errno = 0;
	number = strtoull(text, &end, 16);
	if (end == text + 2 || *end)
		return -EINVAL;
	if (errno)
		return -ERANGE;
	*out = number;
	return 0;
}

int size_parse(const char *text, uint64_t *out)
{
	uint64_t whole = 0, fraction = 0, scale = 1, bytes;
	int shift = 0;
	const char *p = text;

	if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X') && p[2] != '-' && p[2] != '+')
		return hex_parse(text, out);
	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole))
			return -ERANGE;
	}
	if (*p == '.') {
		p++;
		if (*p < '0' || *p > '9')
			return -EINVAL;
		for (; *p >= '0' && *p <= '9'; p++) {
			if (scale >= 1000000000) /* finer than any suffix's byte matters */
				continue;
			fraction = fraction * 10 + (uint64_t)(*p - '0');
			scale *= 10;
		}
	}
	if (*p) {
		shift = suffix_shift(*p++);
		if (shift < 0 || *p)
			return -EINVAL;
	}
	if (fraction && !shift)
		return -EINVAL;
	if (shift && whole >> (64 - shift))
		return -ERANGE;
	bytes = (uint64_t)(((unsigned __int128)fraction << shift) / scale);
	if (__builtin_add_overflow(whole << shift, bytes, &bytes))
		return -ERANGE;
	*out = bytes;
	return 0;
}

const char *size_text(uint64_t bytes, char buf[SIZE_TEXT_LEN])
{
	static const char *const units[] = { "", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei" };
	double value = (double)bytes;
	unsigned int i = 0;

	/* Below 1000 of a unit three digits say it without an exponent. */
	while (i < 6 && value >= 1000) {
		value /= 1024;
		i++;
	}
	snprintf(buf, SIZE_TEXT_LEN, "%.3g %sB", value, units[i]);
	return buf;
}

void uuid_text(const uint8_t u[QCOW2_UUID], char buf[37])
{
	snprintf(buf, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		 u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12],
		 u[13], u[14], u[15]);
}

static int hex_digit(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *p;

	if (c >= 'A' && c <= 'F')
		c += 'a' - 'A';
	p = c ? strchr(digits, c) : NULL;
	return p ? (int)(p - digits) : -1;
}

static int uuid_parse(const char *text, uint8_t uuid[QCOW2_UUID])
{
	uint8_t parsed[QCOW2_UUID], any = 0;
	const char *p = text;

	for (unsigned int i = 0; i < QCOW2_UUID; i++) {
		int high, low;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && *p++ != '-')
			return -EINVAL;
		high = hex_digit(*p);
		low = high < 0 ? -1 : hex_digit(p[1]);
		if (low < 0)
			return -EINVAL;
		parsed[i] = (uint8_t)(high << 4 | low);
		any |= parsed[i];
		p += 2;
	}
	if (*p || !any)
		return -EINVAL;
	memcpy(uuid, parsed, sizeof(parsed));
	return 0;
}

/* Insertions, deletions and substitutions from A to B; words longer than 63 are never near. */
static unsigned int word_distance(const char *a, const char *b)
{
	unsigned int row[64], diagonal, up;
	size_t la = strlen(a), lb = strlen(b);

	if (la > 63 || lb > 63)
		return UINT_MAX;
	for (size_t j = 0; j <= lb; j++)
		row[j] = (unsigned int)j;
	for (size_t i = 1; i <= la; i++) {
		diagonal = row[0];
		row[0] = (unsigned int)i;
		for (size_t j = 1; j <= lb; j++) {
			up = row[j];
			diagonal += a[i - 1] != b[j - 1];
			if (up + 1 < diagonal)
				diagonal = up + 1;
			if (row[j - 1] + 1 < diagonal)
				diagonal = row[j - 1] + 1;
			row[j] = diagonal;
			diagonal = up;
		}
	}
	return row[lb];
}

const char *nearest_word(const char *word, const char *const *words)
{
	unsigned int best = 2 + (unsigned int)(strlen(word) / 4); /* a typo or two */
	const char *found = NULL;

	for (; *words; words++) {
		unsigned int distance = word_distance(word, *words);

		/* "capacity" for "zone.capacity": the room was left out */
		if (!strncmp(*words, "zone.", 5) && !strcmp(*words + 5, word))
			distance = 1;
		if (distance < best || (distance == best && !found)) {
			best = distance;
			found = *words;
		}
	}
	return found;
}

static int unknown_option(const char *name)
{
	const char *names[OPT_COUNT + 1];
	const char *near;

	for (unsigned int i = 0; foreign_options[i]; i++) {
		if (!strcmp(name, foreign_options[i])) {
			img_error("qemu-img's option '%s' is not supported by znsimg", name);
			return IMG_FAILED;
		}
	}
	for (unsigned int i = 0; i < OPT_COUNT; i++)
		names[i] = opts_table[i].name;
	names[OPT_COUNT] = NULL;
	near = nearest_word(name, names);
	if (near)
		img_error("unknown option '%s', did you mean '%s'?", name, near);
	else
		img_error("unknown option '%s'; '-o help' lists them", name);
	return IMG_FAILED;
}

static int bool_parse(const char *text, uint64_t *out)
{
	static const char *const words[] = { "off", "on", "no", "yes", "false", "true", "n", "y" };

	for (unsigned int i = 0; i < 8; i++) {
		if (!strcmp(text, words[i])) {
			*out = i & 1;
			return 0;
		}
	}
	return -EINVAL;
}

static int number_parse(const char *text, uint64_t *out)
{
	unsigned long long number;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	number = strtoull(text, &end, 0);
	if (*end)
		return -EINVAL;
	if (errno || number > UINT32_MAX)
		return -ERANGE;
	*out = number;
	return 0;
}

static int word_parse(const struct opt *opt, const char *text, uint64_t *out)
{
	char list[128] = "";
	size_t len = 0;

	for (const struct opt_word *w = opt->words; w->word; w++) {
		if (!strcmp(text, w->word)) {
			*out = w->number;
			return IMG_OK;
		}
		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s'%s'", len ? " or " : "",
					w->word);
	}
	img_error("option '%s' is '%s', it must be %s", opt->name, text, list);
	return IMG_FAILED;
}

/* Parses VALUE as the option wants it. */
static int value_parse(struct opts *o, enum opt_id id, const char *value)
{
	static const char *const wanted[] = {
		[KIND_SIZE] = "a size such as 64M (k, M, G, T, P, E are powers of 1024)",
		[KIND_NUMBER] = "a number below 2^32",
		[KIND_BOOL] = "'on' or 'off'",
		[KIND_UUID] = "a UUID such as 6ba7b810-9dad-41d1-80b4-00c04fd430c8",
	};
	const struct opt *opt = &opts_table[id];
	int err = 0;

	switch (opt->kind) {
	case KIND_SIZE:
		err = size_parse(value, &o->number[id]);
		break;
	case KIND_NUMBER:
		err = number_parse(value, &o->number[id]);
		break;
	case KIND_BOOL:
		err = bool_parse(value, &o->number[id]);
		break;
	case KIND_UUID:
		err = uuid_parse(value, o->uuid);
		break;
	case KIND_WORD:
		return word_parse(opt, value, &o->number[id]);
	}
	if (err) {
		img_error("option '%s' is '%s', it must be %s", opt->name, value,
			  wanted[opt->kind]);
		return IMG_FAILED;
	}
	if (!opt->zero && !o->number[id]) {
		img_error("option '%s' must not be 0", opt->name);
		return IMG_FAILED;
	}
	return IMG_OK;
}

static int pair_add(struct opts *o, char *pair)
{
	char *value = strchr(pair, '=');

	if (!*pair)
		return IMG_OK;
	if (!strcmp(pair, "help") || !strcmp(pair, "?")) {
		o->help = true;
		return IMG_OK;
	}
	if (value)
		*value++ = '\0';
	for (unsigned int id = 0; id < OPT_COUNT; id++) {
		if (strcmp(pair, opts_table[id].name))
			continue;
		if (!value && opts_table[id].kind != KIND_BOOL) {
			img_error("option '%s' needs a value: %s=%s", pair, pair,
				  kind_text[opts_table[id].kind]);
			return IMG_FAILED;
		}
		o->given[id] = true;
		return value_parse(o, id, value ? value : "on");
	}
	return unknown_option(pair);
}

int opts_add(struct opts *o, const char *text)
{
	char *pair = malloc(strlen(text) + 1);
	size_t len = 0;
	int status = IMG_OK;

	if (!pair) {
		img_error("out of memory");
		return IMG_FAILED;
	}
	for (const char *p = text; status == IMG_OK; p++) {
		if (*p == ',' && p[1] == ',') {
			pair[len++] = *p++;
		} else if (*p && *p != ',') {
			pair[len++] = *p;
		} else {
			pair[len] = '\0';
			len = 0;
			status = pair_add(o, pair);
			if (!*p)
				break;
		}
	}
	free(pair);
	return status;
}

void opts_help(void)
{
	puts("Supported qcow2 options:");
	for (unsigned int id = 0; id < OPT_COUNT; id++) {
		char left[64];

		snprintf(left, sizeof(left), "%s=%s", opts_table[id].name,
			 kind_text[opts_table[id].kind]);
		printf("  %-32s - %s\n", left, opts_table[id].help);
	}
}

int opts_fill(const struct opts *o, struct qcow2_create_opts *create)
{
	struct qcow2_zoned *zone = &create->zone;
	const char *zone_option = NULL;

	for (unsigned int id = OPT_ZONE_SIZE; id < OPT_COUNT; id++) {
		if (o->given[id])
			zone_option = opts_table[id].name;
	}
	if (o->given[OPT_ZONE_MODE] && !o->number[OPT_ZONE_MODE] && zone_option) {
		img_error("option '%s' makes no sense with 'zone.mode=none'", zone_option);
		return IMG_FAILED;
	}
	memset(create, 0, sizeof(*create));
	create->size = o->number[OPT_SIZE];
	if (o->number[OPT_CLUSTER_SIZE] > UINT32_MAX) {
		img_error("option 'cluster_size' must be a power of two from 512 to 2M");
		return IMG_FAILED;
	}
	create->cluster_size = (uint32_t)o->number[OPT_CLUSTER_SIZE];
	create->refcount_bits = (uint32_t)o->number[OPT_REFCOUNT_BITS];
	create->compression = (enum qcow2_compression)o->number[OPT_COMPRESSION];
	create->lazy_refcounts = o->number[OPT_LAZY_REFCOUNTS];
	memcpy(create->uuid, o->uuid, QCOW2_UUID);
	/* Any zone option asks for zones: the mode has one useful value. */
	create->zoned = o->number[OPT_ZONE_MODE] || zone_option;
	zone->layout = (enum qcow2_zone_layout)o->number[OPT_ZONE_LAYOUT];
	zone->zone_size = o->number[OPT_ZONE_SIZE];
	zone->zone_capacity = o->number[OPT_ZONE_CAPACITY];
	zone->conventional_zones = (uint32_t)o->number[OPT_ZONE_CONVENTIONAL];
	zone->max_active_zones = (uint32_t)o->number[OPT_ZONE_MAX_ACTIVE];
	zone->max_open_zones = (uint32_t)o->number[OPT_ZONE_MAX_OPEN];
	if (!o->given[OPT_ZONE_MAX_OPEN]) /* as many as may be active */
		zone->max_open_zones = zone->max_active_zones;
	if (o->number[OPT_ZONE_MAX_APPEND] > UINT32_MAX) {
		img_error("option 'zone.max_append_bytes' must be below 4G");
		return IMG_FAILED;
	}
	zone->max_append_bytes = (uint32_t)o->number[OPT_ZONE_MAX_APPEND];
	return IMG_OK;
}
