/* SPDX-License-Identifier: MIT */
/*
 * znsimg: makes, shows, checks and resizes zoned qcow2 images. qemu-img's verbs, options, output and exit
 * statuses, so that whoever knows the one knows the other.
 *
 * This file has main() and what all verbs share; each verb has a file, VERB.c, and
 * options.c parses sizes and -o.
 *
 * 1. stdout is data, stderr is talk; each line of talk begins with "znsimg: ".
 * 2. Exit status 0 or 1, also for wrong usage, as qemu-img does; only check has more.
 * 3. Only create, check -r and resize write to a file.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"
#include "znsimg.h"

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} verbs[] = {
	{ "create", img_create, "make a new image" },
	{ "info", img_info, "show what an image is" },
	{ "check", img_check, "look for corruption and leaks" },
	{ "resize", img_resize, "make the disk larger or smaller" },
	{ "zones", img_zones, "show the zones and their write pointers" },
};

#define NR_VERBS (sizeof(verbs) / sizeof(verbs[0]))

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

int img_format_check(const char *format)
{
	if (!strcmp(format, "qcow2"))
		return IMG_OK;
	img_error("unknown format '%s', only qcow2 is supported", format);
	return IMG_FAILED;
}

int img_output_parse(const char *text, enum img_output *out)
{
	if (!strcmp(text, "human")) {
		*out = IMG_HUMAN;
	} else if (!strcmp(text, "json")) {
		*out = IMG_JSON;
	} else {
		img_error("--output must be 'human' or 'json', not '%s'", text);
		return IMG_FAILED;
	}
	return IMG_OK;
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

int img_usage_error(const char *verb)
{
	img_error("try 'znsimg %s --help'", verb);
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

static int usage(FILE *to)
{
	fputs("usage: znsimg VERB [options] FILE ...\n\nVerbs:\n", to);
	for (unsigned int i = 0; i < NR_VERBS; i++)
		fprintf(to, "  %-8s %s\n", verbs[i].name, verbs[i].help);
	fputs("\n'znsimg VERB --help' tells more, znsimg(1) all.\n", to);
	return to == stdout ? img_finish_output() : IMG_FAILED;
}

static int unknown_verb(const char *name)
{
	const char *names[NR_VERBS + 1];
	const char *near;

	for (unsigned int i = 0; i < NR_VERBS; i++)
		names[i] = verbs[i].name;
	names[NR_VERBS] = NULL;
	near = nearest_word(name, names);
	if (near)
		img_error("unknown verb '%s', did you mean '%s'?", name, near);
	else
		img_error("unknown verb '%s': there are create, info, check, resize and zones", name);
	return IMG_FAILED;
}

int main(int argc, char **argv)
{
	static char self[] = "znsimg";
	const char *name;

	if (argc < 2)
		return usage(stderr);
	name = argv[1];
	if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help"))
		return usage(stdout);
	if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
		puts("znsimg " ZNSD_VERSION);
		return img_finish_output();
	}
	for (unsigned int i = 0; i < NR_VERBS; i++) {
		if (strcmp(name, verbs[i].name))
			continue;
		argv[1] = self; /* getopt's own messages begin with it */
		return verbs[i].run(argc - 1, argv + 1);
	}
	return unknown_verb(name);
}
