/* SPDX-License-Identifier: MIT */
/*
 * znsimg resize [-q] [-f qcow2] [--shrink] FILE [+|-]SIZE
 *
 * A size with a sign is relative to the present one. Shrinking loses data, so it requires --shrink,
 * as with qemu-img and with its messages. qcow2_resize() decides which sizes are possible.
 */
#include <getopt.h>
#include <stdio.h>

#include "text.h"
#include "znsimg.h"

enum { RESIZE_SHRINK = IMG_OPT_OWN };

static const struct cli_option resize_options[] = {
	IMG_ROW_FORMAT,
	{ RESIZE_SHRINK, "shrink", NULL,
	  "allow a smaller size; a zoned image can only lose empty zones", NULL, NULL },
	IMG_ROW_QUIET,
	IMG_ROW_HELP,
	{ 0 },
};

struct resize_args {
	struct img_args common;
	bool shrink;
	const char *file;
	const char *size;
};

/*
 * Removes a size such as -1G from ARGV, where it would be taken for an option, and sets *SIZE to
 * it. Returns the new ARGC.
 */
static int take_negative(int argc, char **argv, const char **size)
{
	int n = 0;

	for (int i = 0; i < argc; i++) {
		if (argv[i][0] == '-' && argv[i][1] >= '0' && argv[i][1] <= '9' && !*size)
			*size = argv[i];
		else
			argv[n++] = argv[i];
	}
	argv[n] = NULL;
	return n;
}

static int resize_parse(int argc, char **argv, struct resize_args *a)
{
	int c;

	argc = take_negative(argc, argv, &a->size);
	while ((c = img_next_option(&img_resize, argc, argv, &a->common)) >= 0)
		a->shrink = true; /* its only own option */
	if (c < -1)
		return IMG_FAILED;
	if (a->common.help)
		return IMG_OK;
	if (argc - optind != (a->size ? 1 : 2)) {
		img_error("resize needs a file name and a size");
		return img_usage_error(&img_resize);
	}
	a->file = argv[optind];
	if (!a->size)
		a->size = argv[optind + 1];
	return IMG_OK;
}

/* Sets *SIZE to the bytes that TEXT asks for, for a disk that has OLD bytes. */
static int resize_size(const char *text, uint64_t old, uint64_t *size)
{
	char sign = text[0] == '+' || text[0] == '-' ? text[0] : 0;
	uint64_t n;

	if (size_parse(text + !!sign, &n)) {
		img_error("invalid image size '%s'; suffixes are k, M, G, T, P and E", text);
		return IMG_FAILED;
	}
	if (sign == '+' && __builtin_add_overflow(old, n, &n)) {
		img_error("invalid image size '%s': the image would be too large", text);
		return IMG_FAILED;
	}
	if (sign == '-')
		n = n < old ? old - n : 0;
	if (!n) {
		img_error("New image size must be positive");
		return IMG_FAILED;
	}
	*size = n;
	return IMG_OK;
}

static int resize(const struct resize_args *a, struct qcow2 *q)
{
	uint64_t old = qcow2_info(q)->size, size;
	char err[QCOW2_ERRLEN];

	if (resize_size(a->size, old, &size))
		return IMG_FAILED;
	if (size < old && !a->shrink) {
		img_error("Use the --shrink option to perform a shrink operation.");
		img_error("warning: Shrinking an image will delete all data beyond the shrunken "
			  "image's end. Before performing such an operation, make sure there is no "
			  "important data there.");
		return IMG_FAILED;
	}
	if (qcow2_resize(q, size, a->shrink, err)) {
		img_error("%s", err);
		return IMG_FAILED;
	}
	return IMG_OK;
}

static int resize_run(int argc, char **argv)
{
	struct resize_args args = { 0 };
	struct qcow2 *q;
	int status;

	if (resize_parse(argc, argv, &args))
		return IMG_FAILED;
	if (args.common.help)
		return img_help(&img_resize);
	q = img_open(args.file, QCOW2_RESIZE, NULL);
	if (!q)
		return IMG_FAILED;
	status = resize(&args, q);
	if (qcow2_close(q) && !status) {
		img_error("%s: the image has its new size, but clusters may have leaked; see "
			  "'znsimg check'",
			  args.file);
		status = IMG_FAILED;
	}
	if (!status && !args.common.quiet)
		puts("Image resized.");
	return status ? status : img_finish_output();
}

const struct img_verb img_resize = {
	.name = "resize",
	.run = resize_run,
	.summary = "make the disk larger or smaller",
	.operands = "FILE [+|-]SIZE",
	.options = resize_options,
	.notes =
		"SIZE is in bytes, or with a suffix k, M, G, T, P or E (powers of 1024); +SIZE and "
		"-SIZE\nare relative to the size it has. The size of a zoned image is whole "
		"zones.\n",
};
