/* SPDX-License-Identifier: MIT */
/* The command line of znsd: parsed and validated, without any other effect. */
#ifndef TARGET_OPTIONS_H
#define TARGET_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "cli.h"
#include "target.h"

#define OPTIONS_MAX_LISTEN 16
#define OPTIONS_MAX_HOSTS  64
#define OPTIONS_MAX_IMAGES 256
#define OPTIONS_PORT	   4420 /* IANA's for NVMe */
#define OPTIONS_THREADS	   64

/* How writes are kept; in the order of enum store_cache. */
enum cache_mode { CACHE_WRITEBACK, CACHE_WRITETHROUGH, CACHE_NONE, CACHE_UNSAFE, CACHE_AUTO };

struct listen_opt {
	char addr[256]; /* without brackets */
	uint16_t port;	/* 0: any */
};

struct image_opt {
	char *path;
	char *nqn; /* NULL: that of the options, or of the first image */
	uint32_t nsid;
	uint32_t lba; /* bytes; 0: zns chooses */
	bool read_only;
	bool cache_given;
	enum cache_mode cache;
};

struct options {
	struct listen_opt listen[OPTIONS_MAX_LISTEN];
	unsigned int nr_listen;
	const char *hosts[OPTIONS_MAX_HOSTS];
	unsigned int nr_hosts;
	struct image_opt images[OPTIONS_MAX_IMAGES];
	unsigned int nr_images;
	const char *nqn; /* NULL: from the first image */
	const char *port_file;
	const char *run;
	const char *shadow; /* NULL: the default; may be "none" */
	unsigned int threads;
	unsigned int busy_poll; /* microseconds */
	enum cache_mode cache;
	enum log_level log_level;
	int ready_fd; /* -1: none */
	bool any_host;
	bool help, version;
};

/* 0, or -EINVAL with a sentence in ERR. What it allocates, options_free() frees, in both cases. */
int options_parse(struct options *opts, int argc, char **argv, char *err, size_t errlen);
void options_free(struct options *opts);
void options_help(FILE *out);

/* The options, and what an operand may be: for the completion scripts. */
extern const struct cli_option options_table[], options_image;

/* "ADDR:PORT", "[V6]:PORT" or "ADDR". */
int options_parse_listen(struct listen_opt *l, const char *text, char *err, size_t errlen);
/* "PATH,opt=val..."; a comma in the path is written twice. */
int options_parse_image(struct image_opt *image, const char *text, char *err, size_t errlen);

#endif
