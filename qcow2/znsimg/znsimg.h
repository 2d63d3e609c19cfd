/* SPDX-License-Identifier: MIT */
/*
 * What the files of znsimg share. The tool is a client of qcow2.h like any other; nothing here
 * is part of the library.
 */
#ifndef QCOW2_ZNSIMG_H
#define QCOW2_ZNSIMG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli.h"
#include "qcow2.h"

struct json_object;

/* Exit statuses, qemu-img's. 2, 3 and 63 are check's alone. */
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
	const char *operands; /* as the help shows them: "FILE [SIZE]" */
	const struct cli_option *options;
	const char *notes; /* the help's last lines; NULL: none */
	const char *words; /* what an operand behind FILE may be, "a|b|c"; NULL: any */
};

extern const struct img_verb img_create, img_info, img_check, img_resize, img_zones;
/* verbs.c: all of them; NULL ends the list. */
extern const struct img_verb *const img_verbs[];

/* common.c: what the verbs say and parse alike. */

/* The help of VERB to stdout: the exit status. */
int img_help(const struct img_verb *verb);
/*
 * The next option of VERB's command line: its id, its argument in optarg; -1 after the last;
 * -EINVAL after an error message.
 */
int img_next_option(const struct img_verb *verb, int argc, char **argv);
/* One line on stderr, "znsimg: " before it. */
void img_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Several lines, as warnings are collected; each gets its prefix. */
void img_warnings(const char *lines);
/* Only qcow2 is known; else an error is printed and IMG_FAILED returned. */
int img_format_check(const char *format);
#define IMG_OUTPUT_WORDS "human|json"
enum img_output { IMG_HUMAN, IMG_JSON }; /* in the order of the words */
int img_output_parse(const char *text, enum img_output *out);
/*
 * Opens with FLAGS of qcow2.h. NULL after an error message, *ERR is then the -errno if ERR is
 * given.
 */
struct qcow2 *img_open(const char *path, unsigned int flags, int *err);
/* Pretty-printed as qemu-img does: four spaces. Takes OBJ over; IMG_OK or IMG_FAILED. */
int img_print_json(struct json_object *obj);
/* Flushes stdout: a full disk or a closed pipe must not look like success. */
int img_finish_output(void);
/* After what was wrong with the arguments of VERB: points to the help. IMG_FAILED. */
int img_usage_error(const struct img_verb *verb);
/* TEXT with what a terminal must not see replaced; BUF is as long as TEXT. */
const char *img_printable(const char *text, char *buf, size_t len);

/* Ids of long options that several verbs have. */
enum { IMG_OPT_OUTPUT = CLI_LONG, IMG_OPT_OWN };

/* options.c: -o. */

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

/* The -o options given so far. Zeroed: none. */
struct opts {
	bool given[OPT_COUNT];
	uint64_t number[OPT_COUNT];
	uint8_t uuid[QCOW2_UUID];
	bool help; /* "help" was among them */
};

/* Adds the "name=value,..." of one -o; after an error message IMG_FAILED. */
int opts_add(struct opts *o, const char *text);
void opts_help(void);
/* The option with index N as a row of a table; NULL behind the last. */
const struct cli_option *opts_key(unsigned int n);
/* What was given, as qcow2_create() wants it. IMG_FAILED after an error message. */
int opts_fill(const struct opts *o, struct qcow2_create_opts *create);

#endif
