/* SPDX-License-Identifier: MIT */
/*
 * znsimg creates, shows, checks and resizes zoned qcow2 images. Its verbs, options, output and exit
 * statuses are those of qemu-img, for users and scripts that know that program.
 *
 * main() finds the verb in verbs.c. Each verb has a file, VERB.c; they share common.c, and
 * options.c parses the argument of create -o.
 *
 * 1. Data goes to stdout, messages to stderr. Each message begins with "znsimg: ".
 * 2. The exit status is 0 or 1, also after wrong usage, as with qemu-img. Only check has others.
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
	fputs("\n'znsimg VERB --help' shows the options of a verb; the manual is znsimg(1).\n", to);
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
