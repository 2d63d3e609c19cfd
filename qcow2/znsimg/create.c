/* SPDX-License-Identifier: MIT */
/*
 * znsimg create [-q] [-f qcow2] [-o OPTIONS]... FILE [SIZE]
 *
 * The size is the second argument or -o size=, not both. All options are validated before the file
 * is opened.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "text.h"
#include "znsimg.h"

static const struct cli_option create_options[] = {
	IMG_ROW_FORMAT,
	{ 'o', "options", "OPTIONS", "name=value,...; may be repeated; '-o help' lists them", NULL,
	  opts_key },
	IMG_ROW_QUIET,
	IMG_ROW_HELP,
	{ 'b', NULL, "FILE", NULL, NULL,
	  NULL }, /* options of qemu-img that are refused with a reason */
	{ 'F', NULL, "FORMAT", NULL, NULL, NULL },
	{ 0 },
};

struct create_args {
	struct img_args common;
	struct opts opts;
	const char *file;
	const char *size;
};

/* Returns IMG_OK when the arguments are valid, or a help was asked for. */
static int create_parse(int argc, char **argv, struct create_args *a)
{
	int c;

	while ((c = img_next_option(&img_create, argc, argv, &a->common)) >= 0) {
		if (c != 'o') {
			img_error("-%c: images with a backing file are not supported", c);
			return IMG_FAILED;
		}
		if (opts_add(&a->opts, optarg))
			return IMG_FAILED;
	}
	if (c < -1)
		return IMG_FAILED;
	if (a->common.help || a->opts.help)
		return IMG_OK;
	if (optind == argc || argc - optind > 2) {
		img_error(optind == argc ? "create needs a file name" : "too many arguments");
		return img_usage_error(&img_create);
	}
	a->file = argv[optind];
	a->size = argv[optind + 1]; /* NULL after the last */
	return IMG_OK;
}

static int create_size(struct create_args *a)
{
	struct opts *o = &a->opts;

	if (a->size && o->given[OPT_SIZE]) {
		img_error("%s: the image size must be specified only once", a->file);
		return IMG_FAILED;
	}
	if (!a->size && !o->given[OPT_SIZE]) {
		img_error("%s: image creation needs a size", a->file);
		return IMG_FAILED;
	}
	if (a->size && size_parse(a->size, &o->number[OPT_SIZE])) {
		img_error("invalid image size '%s'; suffixes are k, M, G, T, P and E", a->size);
		return IMG_FAILED;
	}
	return IMG_OK;
}

/* Prints the line that qemu-img prints: the values that the image has, given or by default. */
static void print_formatting(const char *file, const struct qcow2_create_opts *c)
{
	const struct qcow2_zoned *z = &c->zone;

	printf("Formatting '%s', fmt=qcow2 cluster_size=%" PRIu32 " extended_l2=off "
	       "compression_type=%s size=%" PRIu64 " lazy_refcounts=%s refcount_bits=%" PRIu32,
	       file, c->cluster_size, c->compression == QCOW2_ZSTD ? "zstd" : "zlib", c->size,
	       c->lazy_refcounts ? "on" : "off", c->refcount_bits);
	if (c->zoned) {
		printf(" zone.mode=host-managed zone.size=%" PRIu64 " zone.capacity=%" PRIu64
		       " zone.conventional_zones=%" PRIu32,
		       z->zone_size, z->zone_capacity, z->conventional_zones);
		if (z->max_append_bytes)
			printf(" zone.max_append_bytes=%" PRIu32, z->max_append_bytes);
		printf(" zone.max_active_zones=%" PRIu32 " zone.max_open_zones=%" PRIu32
		       " zone.layout=%s",
		       z->max_active_zones, z->max_open_zones, qcow2_layout_name(z->layout));
	}
	putchar('\n');
}

static int create_run(int argc, char **argv)
{
	struct create_args args = { 0 };
	struct qcow2_create_opts create;
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];

	if (create_parse(argc, argv, &args))
		return IMG_FAILED;
	if (args.common.help)
		return img_help(&img_create);
	if (args.opts.help) {
		opts_help();
		return img_finish_output();
	}
	if (create_size(&args) || opts_fill(&args.opts, &create))
		return IMG_FAILED;
	if (qcow2_create(args.file, &create, NULL, warn, err)) {
		img_error("%s", err);
		return IMG_FAILED;
	}
	img_warnings(warn);
	if (!args.common.quiet)
		print_formatting(args.file, &create);
	return img_finish_output();
}

const struct img_verb img_create = {
	.name = "create",
	.run = create_run,
	.summary = "make a new image",
	.operands = "FILE [SIZE]",
	.options = create_options,
	.notes = "SIZE is in bytes, or with a suffix k, M, G, T, P or E (powers of 1024).\n"
		 "Any zone.* option makes the image zoned (zone.mode=host-managed).\n",
};
