/* SPDX-License-Identifier: MIT */
/*
 * znsimg: makes, shows, checks and resizes zoned qcow2 images. qemu-img's verbs, options, output and exit
 * statuses, so that whoever knows the one knows the other.
 *
 * This file finds the verb in verbs.c; each verb has a file, VERB.c, common.c has what they share,
 * and options.c parses -o.
 *
 * 1. stdout is data, stderr is talk; each line of talk begins with "znsimg: ".
 * 2. Exit status 0 or 1, also for wrong usage, as qemu-img does; only check has more.
 * 3. Only create, check -r and resize write to a file.
 */
#include <stdio.h>
#include <string.h>

#include "text.h"
#include "version.h"
#include "znsimg.h"

static int usage(FILE *to)
{
	fputs("usage: znsimg VERB [options] FILE ...\n\nVerbs:\n", to);
	for (unsigned int i = 0; img_verbs[i]; i++)
		fprintf(to, "  %-8s %s\n", img_verbs[i]->name, img_verbs[i]->summary);
	fputs("\n'znsimg VERB --help' tells more, znsimg(1) all.\n", to);
	return to == stdout ? img_finish_output() : IMG_FAILED;
}

static int unknown_verb(const char *name)
{
	const char *names[16];
	const char *near;
	unsigned int n = 0;

	for (; img_verbs[n]; n++)
		names[n] = img_verbs[n]->name;
	names[n] = NULL;
	near = nearest_word(name, names);
	if (near)
		img_error("unknown verb '%s', did you mean '%s'?", name, near);
	else
		img_error("unknown verb '%s': there are create, info, check, resize and zones",
			  name);
	return IMG_FAILED;
}

int main(int argc, char **argv)
{
	const char *name;

	if (argc < 2)
		return usage(stderr);
	name = argv[1];
	if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help"))
		return usage(stdout);
	if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
		printf("znsimg %s\n", znsd_version);
		return img_finish_output();
	}
	for (unsigned int i = 0; img_verbs[i]; i++)
		if (!strcmp(name, img_verbs[i]->name))
			return img_verbs[i]->run(argc - 1, argv + 1);
	return unknown_verb(name);
}
