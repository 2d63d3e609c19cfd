/* SPDX-License-Identifier: MIT */
/*
 * znsimg check [--output=human|json] [-f qcow2] [-r leaks|all] [--discard-shadow] [-q] [-U] FILE
 *
 * Findings go to stderr at once, the summary to stdout. The exit status tells the result: 0 no
 * errors, 1 the check failed, 2 corruptions, 3 leaks only, 63 not an image that can be checked.
 * After a repair it is the result of a second check.
 *
 * The shadow of an image that znsd did not close holds what a killed znsd had acknowledged and not
 * flushed. A repair changes the image, and recovery then refuses the shadow. So a repair of such an
 * image is refused, unless --discard-shadow says that there is nothing to recover, as after a power
 * cut.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "text.h"
#include "znsimg.h"

enum { CHECK_DISCARD_SHADOW = IMG_OPT_OWN };

#define REPAIR_WORDS "leaks|all"

static const struct cli_option check_options[] = {
	IMG_ROW_OUTPUT,
	IMG_ROW_FORMAT,
	{ 'r', "repair", "leaks|all",
	  "repair: 'leaks' frees leaked clusters, 'all' repairs corruptions, too", REPAIR_WORDS,
	  NULL },
	{ CHECK_DISCARD_SHADOW, "discard-shadow", NULL,
	  "repair even if this discards what a killed znsd did not flush", NULL, NULL },
	{ 'q', "quiet", NULL, "print nothing: the exit status tells the result", NULL, NULL },
	IMG_ROW_SHARE,
	IMG_ROW_HELP,
	{ 0 },
};

struct check_args {
	struct img_args common;
	bool discard_shadow;
	unsigned int fix; /* 0: nothing */
	const char *file;
};

static int check_parse(int argc, char **argv, struct check_args *a)
{
	int c;

	while ((c = img_next_option(&img_check, argc, argv, &a->common)) >= 0) {
		if (c == CHECK_DISCARD_SHADOW) {
			a->discard_shadow = true;
		} else { /* 'r' */
			static const unsigned int fixes[] = { QCOW2_FIX_LEAKS, QCOW2_FIX_ALL };
			int i = word_index(REPAIR_WORDS, optarg);

			if (i < 0) {
				img_error("-r must be 'leaks' or 'all', not '%s'", optarg);
				return IMG_FAILED;
			}
			a->fix = fixes[i];
		}
	}
	if (c < -1)
		return c == -ENOTSUP ? IMG_UNSUPPORTED : IMG_FAILED;
	if (a->common.help)
		return IMG_OK;
	if (argc - optind != 1) {
		img_error("check needs one file name");
		return img_usage_error(&img_check);
	}
	if (a->fix && a->common.no_lock) {
		img_error("-r and -U exclude each other: an image that another program has open "
			  "cannot be "
			  "repaired");
		return IMG_FAILED;
	}
	a->file = argv[optind];
	return IMG_OK;
}

static void say_finding(void *arg, const char *line)
{
	const struct check_args *a = arg;

	if (!a->common.quiet)
		fprintf(stderr, "%s\n", line);
}

/* Adds a key that qemu-img prints only when its value is not 0. */
static void add_count(struct json_object *obj, const char *key, uint64_t n)
{
	if (n)
		json_object_object_add(obj, key, json_object_new_uint64(n));
}

static int print_json(const struct check_args *a, const struct qcow2_check_result *r)
{
	struct json_object *obj = json_object_new_object();

	add_count(obj, "image-end-offset", r->image_end_offset);
	add_count(obj, "total-clusters", r->total_clusters);
	json_object_object_add(obj, "check-errors", json_object_new_uint64(r->check_errors));
	add_count(obj, "corruptions", r->corruptions);
	add_count(obj, "leaks", r->leaks);
	add_count(obj, "corruptions-fixed", r->corruptions_fixed);
	add_count(obj, "leaks-fixed", r->leaks_fixed);
	add_count(obj, "allocated-clusters", r->allocated_clusters);
	add_count(obj, "fragmented-clusters", r->fragmented_clusters);
	add_count(obj, "compressed-clusters", r->compressed_clusters);
	json_object_object_add(obj, "filename", json_object_new_string(a->file));
	json_object_object_add(obj, "format", json_object_new_string("qcow2"));
	return img_print_json(obj);
}

static double percent(uint64_t part, uint64_t whole)
{
	return (double)part * 100 / (double)whole;
}

static int print_human(const struct qcow2_check_result *r)
{
	if (!r->corruptions && !r->leaks && !r->check_errors)
		puts("No errors were found on the image.");
	if (r->corruptions)
		printf("\n%" PRIu64 " errors were found on the image.\n"
		       "Data may be corrupted, or further writes to the image may corrupt it.\n",
		       r->corruptions);
	if (r->leaks)
		printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
		       "This means waste of disk space, but no harm to data.\n",
		       r->leaks);
	if (r->check_errors)
		printf("\n%" PRIu64 " internal errors have occurred during the check.\n",
		       r->check_errors);
	if (r->total_clusters && r->allocated_clusters)
		printf("%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% fragmented, "
		       "%0.2f%% compressed clusters\n",
		       r->allocated_clusters, r->total_clusters,
		       percent(r->allocated_clusters, r->total_clusters),
		       percent(r->fragmented_clusters, r->allocated_clusters),
		       percent(r->compressed_clusters, r->allocated_clusters));
	if (r->image_end_offset)
		printf("Image end offset: %" PRIu64 "\n", r->image_end_offset);
	return img_finish_output();
}

static int verdict(const struct qcow2_check_result *r)
{
	if (r->check_errors)
		return IMG_FAILED;
	if (r->corruptions)
		return IMG_CORRUPT;
	return r->leaks ? IMG_LEAKS : IMG_OK;
}

static int print_fixed(const struct qcow2_check_result *r)
{
	printf("The following inconsistencies were found and repaired:\n\n"
	       "    %" PRIu64 " leaked clusters\n"
	       "    %" PRIu64 " corruptions\n\n"
	       "Double checking the fixed image now...\n",
	       r->leaks_fixed, r->corruptions_fixed);
	return img_finish_output();
}

/* Repairs the image, and checks the file again if anything was repaired. */
static int repair(const struct check_args *a, struct qcow2 *q, struct qcow2_check_result *r)
{
	uint64_t corruptions, leaks;
	int err = qcow2_repair(q, a->fix, r, say_finding, (void *)a);

	corruptions = r->corruptions_fixed;
	leaks = r->leaks_fixed;
	if (err || !(corruptions || leaks))
		return err;
	if (a->common.output == IMG_HUMAN && !a->common.quiet && print_fixed(r))
		return -EIO;
	err = qcow2_check(q, r, say_finding, (void *)a);
	r->corruptions_fixed = corruptions;
	r->leaks_fixed = leaks;
	return err;
}

static int check_run(int argc, char **argv)
{
	struct check_args args = { 0 };
	struct qcow2_check_result result = { 0 };
	unsigned int flags = QCOW2_RDONLY | QCOW2_INSPECT;
	struct qcow2 *q;
	int err = 0, status;

	status = check_parse(argc, argv, &args);
	if (status)
		return status;
	if (args.common.help)
		return img_help(&img_check);
	flags |= args.common.no_lock ? QCOW2_NO_LOCK : 0;
	flags |= args.fix ? QCOW2_REPAIR : 0;
	q = img_open(args.file, flags, &err);
	if (!q)
		return err == -ENOTSUP ? IMG_UNSUPPORTED : IMG_FAILED;
	if (args.fix && qcow2_info(q)->unclosed && !args.discard_shadow) {
		img_error(
			"%s: znsd did not close this image, and its shadow may hold acknowledged "
			"writes that are not in the image yet: start znsd with it once to recover "
			"them, or give --discard-shadow if there is nothing to recover, as after "
			"a power cut",
			args.file);
		qcow2_close(q);
		return IMG_FAILED;
	}
	if (args.fix)
		err = repair(&args, q, &result);
	else
		err = qcow2_check(q, &result, say_finding, &args);
	qcow2_close(q);
	if (err) {
		img_error("%s: the %s failed: %s", args.file, args.fix ? "repair" : "check",
			  strerror(-err));
		return IMG_FAILED;
	}
	if (args.common.output == IMG_JSON)
		status = print_json(&args, &result);
	else if (!args.common.quiet)
		status = print_human(&result);
	return status ? status : verdict(&result);
}

const struct img_verb img_check = {
	.name = "check",
	.run = check_run,
	.summary = "look for corruption and leaks",
	.operands = "FILE",
	.options = check_options,
	.notes = "Exit status: 0 no errors, 1 the check failed, 2 corruptions, 3 leaks only, "
		 "63 not supported.\n",
};
