/* SPDX-License-Identifier: MIT */
/*
 * The options behind -o.
 *
 * 1. -o may be given many times and holds "name=value" pairs with commas between them; a doubled
 *    comma is a comma in the value, as in QEMU. The last value given counts.
 * 2. Whether one value is well formed is judged here, whether values fit together in
 *    qcow2_create(): a rule stands in one place.
 * 3. An option left out is a default and an option given as 0 is a value; struct opts keeps the
 *    difference, because qcow2_create() takes 0 for "default".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"
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
		err = number_parse(value, UINT32_MAX, &o->number[id]);
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
