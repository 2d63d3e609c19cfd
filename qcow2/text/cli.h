/* SPDX-License-Identifier: MIT */
/*
 * Options of a command line, as a table. The table feeds the parser, the help and the completion
 * scripts of the shells (packaging/completion.c), so that the three cannot disagree.
 *
 * The parser is getopt_long()'s, which keeps its state in globals: one command line at a time.
 */
#ifndef TEXT_CLI_H
#define TEXT_CLI_H

#include <stddef.h>
#include <stdio.h>

#define CLI_LONG 256 /* ids from here on have no short option */

/* What stands in "words" of an argument that is a path. */
#define CLI_FILE "<file>"
#define CLI_DIR	 "<directory>"

/* A row. A row whose id is 0 ends the table, which has at most CLI_MAX rows. */
struct cli_option {
	int id;		   /* what cli_next() returns; below CLI_LONG it is the short option */
	const char *name;  /* the long option, without "--"; NULL: none */
	const char *arg;   /* what the help calls its argument; NULL: it takes none */
	const char *help;  /* NULL: accepted, but neither shown nor completed */
	const char *words; /* what the argument may be, "a|b|c", or CLI_FILE, CLI_DIR; NULL: any */
	/* Where the argument is "key=value,...": the key with index N, NULL behind the last. */
	const struct cli_option *(*key)(unsigned int n);
};

#define CLI_MAX 32

/*
 * The next option of ARGV by TABLE: its id, its argument in optarg; -1 after the last, when the
 * operands are ARGV[optind] and those behind it; -EINVAL with a sentence in ERR. Set optind to 0
 * before the first call.
 */
int cli_next(const struct cli_option *table, int argc, char **argv, char *err, size_t errlen);

/* A line for each row that has a help. */
void cli_help(const struct cli_option *table, FILE *out);

#endif
