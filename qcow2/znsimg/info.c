/* SPDX-License-Identifier: MIT */
/*
 * znsimg info [--output=human|json] [-f qcow2] [-U] FILE
 *
 * The layout and the keys are those of qemu-img. The format-specific data also has the keys of the
 * zoned patch series ("zone") and some of znsimg: uuid, zone.layout, snapshots. A backing file or
 * data file is printed, but never opened.
 */
#include <getopt.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "text.h"
#include "znsimg.h"

static const struct cli_option info_options[] = {
	IMG_ROW_OUTPUT, IMG_ROW_FORMAT, IMG_ROW_SHARE, IMG_ROW_HELP, { 0 },
};

static void add_number(struct json_object *obj, const char *key, uint64_t n)
{
	json_object_object_add(obj, key, json_object_new_uint64(n));
}

static void add_bool(struct json_object *obj, const char *key, bool b)
{
	json_object_object_add(obj, key, json_object_new_boolean(b));
}

static void add_text(struct json_object *obj, const char *key, const char *text)
{
	json_object_object_add(obj, key, json_object_new_string(text));
}

static struct json_object *zone_object(const struct qcow2_zoned *z)
{
	struct json_object *obj = json_object_new_object();

	add_text(obj, "mode", "host-managed");
	add_number(obj, "nr-zones", z->nr_zones);
	add_number(obj, "size", z->zone_size);
	add_number(obj, "capacity", z->zone_capacity);
	add_number(obj, "conventional-zones", z->conventional_zones);
	add_number(obj, "max-open-zones", z->max_open_zones);
	add_number(obj, "max-active-zones", z->max_active_zones);
	if (z->max_append_bytes)
		add_number(obj, "max-append-bytes", z->max_append_bytes);
	add_text(obj, "layout", qcow2_layout_name(z->layout));
	return obj;
}

/* Makes the member "data" of "format-specific". */
static struct json_object *specific_object(const struct qcow2_info *i)
{
	struct json_object *obj = json_object_new_object();
	char uuid[37];

	add_text(obj, "compat", i->version >= 3 ? "1.1" : "0.10");
	if (i->data_file[0])
		add_text(obj, "data-file", i->data_file);
	add_text(obj, "compression-type", i->compression == QCOW2_ZSTD ? "zstd" : "zlib");
	if (i->version >= 3)
		add_bool(obj, "lazy-refcounts", i->lazy_refcounts);
	add_number(obj, "refcount-bits", i->refcount_bits);
	if (i->version >= 3) {
		add_bool(obj, "corrupt", i->corrupt);
		add_bool(obj, "extended-l2", i->extended_l2);
	}
	if (i->zoned.layout != QCOW2_LAYOUT_NONE)
		json_object_object_add(obj, "zone", zone_object(&i->zoned));
	if (i->nb_snapshots)
		add_number(obj, "snapshots", i->nb_snapshots);
	if (i->has_uuid) {
		uuid_text(i->uuid, uuid);
		add_text(obj, "uuid", uuid);
	}
	return obj;
}

static int print_json(const char *file, const struct qcow2_info *i, uint64_t allocated)
{
	struct json_object *obj = json_object_new_object();
	struct json_object *specific = json_object_new_object();

	add_number(obj, "virtual-size", i->size);
	add_text(obj, "filename", file);
	add_number(obj, "cluster-size", 1ull << i->cluster_bits);
	add_text(obj, "format", "qcow2");
	add_number(obj, "actual-size", allocated);
	add_text(specific, "type", "qcow2");
	json_object_object_add(specific, "data", specific_object(i));
	json_object_object_add(obj, "format-specific", specific);
	if (i->backing_file[0])
		add_text(obj, "backing-filename", i->backing_file);
	if (i->backing_format[0])
		add_text(obj, "backing-filename-format", i->backing_format);
	add_bool(obj, "dirty-flag", i->dirty);
	return img_print_json(obj);
}

/* Prints the members of OBJ, a line each, with spaces for dashes, as qemu-img does. */
static void print_members(struct json_object *obj, int indent)
{
	json_object_object_foreach(obj, key, value)
	{
		char name[64], text[1024];

		snprintf(name, sizeof(name), "%s", key);
		for (char *p = name; *p; p++) {
			if (*p == '-')
				*p = ' ';
		}
		if (json_object_is_type(value, json_type_object)) {
			printf("%*s%s:\n", indent, "", name);
			print_members(value, indent + 4);
		} else {
			img_printable(json_object_get_string(value), text, sizeof(text));
			printf("%*s%s: %s\n", indent, "", name, text);
		}
	}
}

static int print_human(const char *file, const struct qcow2_info *i, uint64_t allocated)
{
	struct json_object *specific = specific_object(i);
	char text[1024], size[SIZE_TEXT_LEN];

	printf("image: %s\nfile format: qcow2\n", img_printable(file, text, sizeof(text)));
	printf("virtual size: %s (%" PRIu64 " bytes)\n", size_text(i->size, size), i->size);
	printf("disk size: %s\n", size_text(allocated, size));
	if (i->dirty)
		puts("cleanly shut down: no");
	printf("cluster_size: %llu\n", 1ull << i->cluster_bits);
	if (i->backing_file[0])
		printf("backing file: %s\n", img_printable(i->backing_file, text, sizeof(text)));
	if (i->backing_format[0])
		printf("backing file format: %s\n",
		       img_printable(i->backing_format, text, sizeof(text)));
	puts("Format specific information:");
	print_members(specific, 4);
	json_object_put(specific);
	return img_finish_output();
}

static int info_run(int argc, char **argv)
{
	struct img_args args = { 0 };
	uint64_t allocated = 0, length;
	const char *file;
	struct qcow2 *q;
	int status;

	if (img_next_option(&img_info, argc, argv, &args) < -1)
		return IMG_FAILED;
	if (args.help)
		return img_help(&img_info);
	if (argc - optind != 1) {
		img_error("info needs one file name");
		return img_usage_error(&img_info);
	}
	file = argv[optind];
	q = img_open(file, QCOW2_RDONLY | QCOW2_INSPECT | (args.no_lock ? QCOW2_NO_LOCK : 0), NULL);
	if (!q)
		return IMG_FAILED;
	status = qcow2_file_sizes(q, &allocated, &length);
	if (status) {
		img_error("%s: %s", file, strerror(-status));
		status = IMG_FAILED;
	} else if (args.output == IMG_JSON) {
		status = print_json(file, qcow2_info(q), allocated);
	} else {
		status = print_human(file, qcow2_info(q), allocated);
	}
	qcow2_close(q);
	return status;
}

const struct img_verb img_info = {
	.name = "info",
	.run = info_run,
	.summary = "show what an image is",
	.operands = "FILE",
	.options = info_options,
};
