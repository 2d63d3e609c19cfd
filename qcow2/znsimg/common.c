/* SPDX-License-Identifier: MIT */
/*
 * What the verbs of znsimg share: help, options, messages, output, and opening an image.
 */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text.h"
#include "znsimg.h"

int img_help(const struct img_verb *verb)
{
	printf("usage: znsimg %s [options] %s\n\n", verb->name, verb->operands);
	cli_help(verb->options, stdout);
	if (verb->notes)
		printf("\n%s", verb->notes);
	return img_finish_output();
}

void img_error(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("znsimg: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

void img_warnings(const char *lines)
{
	while (*lines) {
		size_t len = strcspn(lines, "\n");

		img_error("warning: %.*s", (int)len, lines);
		lines += len + (lines[len] == '\n');
	}
}

/* Puts the option C into A. 1: it is one of the verb's own. */
static int take_option(int c, struct img_args *a)
{
	int i;

	switch (c) {
	case 'f':
		if (!strcmp(optarg, "qcow2"))
			return 0;
		img_error("unknown format '%s', only qcow2 is supported", optarg);
		return -ENOTSUP;
	case IMG_OPT_OUTPUT:
		i = word_index(IMG_OUTPUT_WORDS, optarg);
		if (i >= 0) {
			a->output = (enum img_output)i;
			return 0;
		}
		img_error("--output must be 'human' or 'json', not '%s'", optarg);
		return -EINVAL;
	case 'q':
		a->quiet = true;
		return 0;
	case 'U':
		a->no_lock = true;
		return 0;
	case 'h':
		a->help = true;
		return -1;
	default:
		return 1;
	}
}

int img_next_option(const struct img_verb *verb, int argc, char **argv, struct img_args *a)
{
	char err[256];
	int c, taken;

	do {
		c = cli_next(verb->options, argc, argv, err, sizeof(err));
		if (c < -1) {
			img_error("%s", err);
			img_usage_error(verb);
		}
		if (c < 0)
			return c;
		taken = take_option(c, a);
	} while (!taken);
	return taken < 0 ? taken : c;
}

struct qcow2 *img_open(const char *path, unsigned int flags, int *err)
{
	struct qcow2_open_opts opts = { .flags = flags };
	char text[QCOW2_ERRLEN] = "";
	struct qcow2 *q;
	int rc;

	rc = qcow2_open(path, &opts, &q, text);
	if (!rc)
		return q;
	img_error("%s", text[0] ? text : strerror(-rc));
	if (err)
		*err = rc;
	return NULL;
}

int img_print_json(struct json_object *obj)
{
	const int flags =
		JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE;
	const char *text = json_object_to_json_string_ext(obj, flags);

	if (!text) {
		img_error("out of memory");
		json_object_put(obj);
		return IMG_FAILED;
	}
	while (*text) {
		size_t indent = strspn(text, " "), len;

		text += indent;
		len = strcspn(text, "\n");
		printf("%*s%.*s\n", (int)indent * 2, "", (int)len, text);
		text += len + (text[len] == '\n');
	}
	json_object_put(obj);
	return img_finish_output();
}

int img_finish_output(void)
{
	if (!fflush(stdout) && !ferror(stdout))
		return IMG_OK;
	img_error("could not write the output: %s", strerror(errno));
	return IMG_FAILED;
}

int img_usage_error(const struct img_verb *verb)
{
	img_error("try 'znsimg %s --help'", verb->name);
	return IMG_FAILED;
}

const char *img_printable(const char *text, char *buf, size_t len)
{
	size_t i;

	for (i = 0; text[i] && i + 1 < len; i++)
		buf[i] = text[i] >= ' ' && text[i] != 0x7f ? text[i] : '?';
	buf[i] = '\0';
	return buf;
}
