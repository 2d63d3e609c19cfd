/* SPDX-License-Identifier: MIT */
/*
 * The options of create -o.
 *
 * 1. -o may be given several times. Its argument has "name=value" pairs, separated by commas; a
 *    doubled comma is a comma in a value, as in QEMU. The last value of an option counts.
 * 2. A single value is validated here, values together in qcow2_create(): each rule has one place.
 * 3. qcow2_create() takes 0 for the default. struct opts.given tells an option that was given as 0
 *    from one that was not given.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"
#include "znsimg.h"

enum opt_kind { KIND_SIZE, KIND_NUMBER, KIND_BOOL, KIND_WORD, KIND_UUID };

#define NUMBERS(...) ((const uint64_t[]){ __VA_ARGS__ })

static const struct opt {
	struct cli_option row; /* its id is not used: OPT_... is the index */
	enum opt_kind kind;
	bool zero;		 /* 0 is a sensible value */
	const uint64_t *numbers; /* KIND_WORD: what the words stand for */
} opts_table[OPT_COUNT] = {
	/* clang-format off */
	[OPT_SIZE] = {
		{ CLI_LONG, "size", "<size>", "Virtual disk size", NULL, NULL },
		KIND_SIZE, true, NULL },
	[OPT_COMPAT] = {
		{ CLI_LONG, "compat", "<str>", "Compatibility level (v3 [1.1] only)", "1.1|v3", NULL },
		KIND_WORD, true, NUMBERS(3, 3) },
	[OPT_CLUSTER_SIZE] = {
		{ CLI_LONG, "cluster_size", "<size>", "qcow2 cluster size (512 to 2M)", NULL, NULL },
		KIND_SIZE, false, NULL },
	[OPT_COMPRESSION] = {
		{ CLI_LONG, "compression_type", "<str>", "Compression method of compressed clusters (zlib, zstd)", "zlib|zstd", NULL },
		KIND_WORD, true, NUMBERS(QCOW2_ZLIB, QCOW2_ZSTD) },
	[OPT_LAZY_REFCOUNTS] = {
		{ CLI_LONG, "lazy_refcounts", "<bool (on/off)>", "Postpone refcount updates", "on|off", NULL },
		KIND_BOOL, true, NULL },
	[OPT_REFCOUNT_BITS] = {
		{ CLI_LONG, "refcount_bits", "<num>", "Width of a reference count entry in bits (1 to 64)", "1|2|4|8|16|32|64", NULL },
		KIND_NUMBER, false, NULL },
	[OPT_UUID] = {
		{ CLI_LONG, "uuid", "<uuid>", "Identity of the disk (random when absent)", NULL, NULL },
		KIND_UUID, true, NULL },
	[OPT_ZONE_MODE] = {
		{ CLI_LONG, "zone.mode", "<str>", "Zone model (host-managed, none)", "host-managed|none", NULL },
		KIND_WORD, true, NUMBERS(1, 0) },
	[OPT_ZONE_SIZE] = {
		{ CLI_LONG, "zone.size", "<size>", "Zone size, a power of two (256M)", NULL, NULL },
		KIND_SIZE, false, NULL },
	[OPT_ZONE_CAPACITY] = {
		{ CLI_LONG, "zone.capacity", "<size>", "Writable bytes of each zone (the zone size)", NULL, NULL },
		KIND_SIZE, false, NULL },
	[OPT_ZONE_CONVENTIONAL] = {
		{ CLI_LONG, "zone.conventional_zones", "<num>", "Number of conventional zones, the first ones (0)", NULL, NULL },
		KIND_NUMBER, true, NULL },
	[OPT_ZONE_MAX_APPEND] = {
		{ CLI_LONG, "zone.max_append_bytes", "<size>", "Largest zone append (64K); not in layout latest", NULL, NULL },
		KIND_SIZE, false, NULL },
	[OPT_ZONE_MAX_OPEN] = {
		{ CLI_LONG, "zone.max_open_zones", "<num>", "Open zones at a time, 0 for no limit (as active)", NULL, NULL },
		KIND_NUMBER, true, NULL },
	[OPT_ZONE_MAX_ACTIVE] = {
		{ CLI_LONG, "zone.max_active_zones", "<num>", "Active zones at a time, 0 for no limit (0)", NULL, NULL },
		KIND_NUMBER, true, NULL },
	[OPT_ZONE_LAYOUT] = {
		{ CLI_LONG, "zone.layout", "<str>", "Layout of the zoned extension (v11, latest)", "v11|latest", NULL },
		KIND_WORD, true, NUMBERS(QCOW2_LAYOUT_V11, QCOW2_LAYOUT_LATEST) },
	/* clang-format on */
};

const struct cli_option *opts_key(unsigned int n)
{
	return n < OPT_COUNT ? &opts_table[n].row : NULL;
}

/* Options of qemu-img that znsimg does not have; the message says so, rather than "unknown". */
static const char *const foreign_options[] = {
	"backing_file", "backing_fmt", "data_file",	"data_file_raw",
	"encryption",	"extended_l2", "preallocation", NULL,
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
		names[i] = opts_table[i].row.name;
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
	int i = word_index(opt->row.words, text);
	char list[128] = "";
	size_t len = 0;

	if (i >= 0) {
		*out = opt->numbers[i];
		return IMG_OK;
	}
	for (const char *w = opt->row.words; *w; w += strspn(w, "|")) {
		size_t n = strcspn(w, "|");

		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s'%.*s'",
					len ? " or " : "", (int)n, w);
		w += n;
	}
	img_error("option '%s' is '%s', it must be %s", opt->row.name, text, list);
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
		img_error("option '%s' is '%s', it must be %s", opt->row.name, value,
			  wanted[opt->kind]);
		return IMG_FAILED;
	}
	if (!opt->zero && !o->number[id]) {
		img_error("option '%s' must not be 0", opt->row.name);
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
		if (strcmp(pair, opts_table[id].row.name))
			continue;
		if (!value && opts_table[id].kind != KIND_BOOL) {
			img_error("option '%s' needs a value: %s=%s", pair, pair,
				  opts_table[id].row.arg);
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

		snprintf(left, sizeof(left), "%s=%s", opts_table[id].row.name,
			 opts_table[id].row.arg);
		printf("  %-32s - %s\n", left, opts_table[id].row.help);
	}
}

int opts_fill(const struct opts *o, struct qcow2_create_opts *create)
{
	struct qcow2_zoned *zone = &create->zone;
	const char *zone_option = NULL;

	for (unsigned int id = OPT_ZONE_SIZE; id < OPT_COUNT; id++) {
		if (o->given[id])
			zone_option = opts_table[id].row.name;
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
