/* SPDX-License-Identifier: MIT */
/*
 * What the files of znsimg share. The program uses the image library through qcow2.h alone, as znsd
 * does. It has one thread.
 */
#ifndef QCOW2_ZNSIMG_H
#define QCOW2_ZNSIMG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli.h"
#include "qcow2.h"

struct json_object;

/* Exit statuses, as those of qemu-img. Only check returns 2, 3 and 63. */
#define IMG_OK		0
#define IMG_FAILED	1
#define IMG_CORRUPT	2
#define IMG_LEAKS	3
#define IMG_UNSUPPORTED 63

/* A verb: its file, VERB.c, has its function, its options and its help. */
struct img_verb {
	const char *name;
	int (*run)(int argc, char **argv); /* ARGV[0] is the verb; returns the exit status */
	const char *summary;
	const char *operands; /* as the usage line shows them: "FILE [SIZE]" */
	const struct cli_option *options;
	const char *notes; /* the last lines of the help; NULL: none */
	const char *words; /* what an operand behind FILE may be, "a|b|c"; NULL: any */
};

extern const struct img_verb img_create, img_info, img_check, img_resize, img_zones;
/* verbs.c: all verbs; NULL ends the list. */
extern const struct img_verb *const img_verbs[];

/* Rows that the option tables of several verbs have. */
enum { IMG_OPT_OUTPUT = CLI_LONG, IMG_OPT_OWN }; /* ids; a verb numbers its own from IMG_OPT_OWN */
/* clang-format off */
#define IMG_ROW_FORMAT { 'f', "format", "FORMAT", "image format: qcow2", "qcow2", NULL }
#define IMG_ROW_OUTPUT { IMG_OPT_OUTPUT, "output", "human|json", "output format", IMG_OUTPUT_WORDS, NULL }
#define IMG_ROW_QUIET  { 'q', "quiet", NULL, "print only warnings and errors", NULL, NULL }
#define IMG_ROW_SHARE  { 'U', "force-share", NULL, "open the image even if another program has it open", NULL, NULL }
#define IMG_ROW_HELP   { 'h', "help", NULL, "print this help and exit", NULL, NULL }
/* clang-format on */

#define IMG_OUTPUT_WORDS "human|json"
enum img_output { IMG_HUMAN, IMG_JSON }; /* in the order of the words */

/* The values of these options. */
struct img_args {
	enum img_output output;
	bool quiet, no_lock, help;
};

/* common.c: what all verbs use. */

/* Prints the help of VERB to stdout. Returns the exit status. */
int img_help(const struct img_verb *verb);
/*
 * Goes on through the options of VERB's command line: those of IMG_ROW_... are put into A. Returns
 * the id of the next option of the verb's own, with its argument in optarg; -1 after the last
 * option or -h; -ENOTSUP, for a format that is not qcow2, or -EINVAL after it has printed an error
 * message.
 */
int img_next_option(const struct img_verb *verb, int argc, char **argv, struct img_args *a);
/* Prints a line to stderr, with "znsimg: " before it. */
void img_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Prints each line of LINES as a warning to stderr. */
void img_warnings(const char *lines);
/*
 * Opens the image with FLAGS, as qcow2_open() has them; qcow2_close() closes it. NULL after an
 * error message; *ERR, unless ERR is NULL, is then the -errno.
 */
struct qcow2 *img_open(const char *path, unsigned int flags, int *err);
/* Prints OBJ to stdout with qemu-img's indentation, and frees it. IMG_OK or IMG_FAILED. */
int img_print_json(struct json_object *obj);
/* Flushes stdout. IMG_FAILED, after an error message, when the output could not be written. */
int img_finish_output(void);
/* Prints how to get the help of VERB. Returns IMG_FAILED. */
int img_usage_error(const struct img_verb *verb);
/* Copies TEXT to BUF, of LEN bytes, with control characters replaced by '?'. Returns BUF. */
const char *img_printable(const char *text, char *buf, size_t len);

/* options.c: the argument of -o. */

enum opt_id {
	OPT_SIZE,
	OPT_COMPAT,
	OPT_CLUSTER_SIZE,
	OPT_COMPRESSION,
	OPT_LAZY_REFCOUNTS,
	OPT_REFCOUNT_BITS,
	OPT_UUID,
	OPT_ZONE_MODE,
	OPT_ZONE_SIZE,
	OPT_ZONE_CAPACITY,
	OPT_ZONE_CONVENTIONAL,
	OPT_ZONE_MAX_APPEND,
	OPT_ZONE_MAX_OPEN,
	OPT_ZONE_MAX_ACTIVE,
	OPT_ZONE_LAYOUT,
	OPT_COUNT,
};

/* The options that were given with -o so far. All zeroes: none. */
struct opts {
	bool given[OPT_COUNT];
	uint64_t number[OPT_COUNT];
	uint8_t uuid[QCOW2_UUID];
	bool help; /* "help" was among them */
};

/* Adds TEXT, the "name=value,..." of one -o, to O. IMG_FAILED after an error message. */
int opts_add(struct opts *o, const char *text);
/* Prints all options with their help to stdout. */
void opts_help(void);
/*
 * Returns option N as a row of an option table, for the completion scripts; NULL behind the last.
 */
const struct cli_option *opts_key(unsigned int n);
/* Sets CREATE for qcow2_create() from what was given. IMG_FAILED after an error message. */
int opts_fill(const struct opts *o, struct qcow2_create_opts *create);

#endif
