/* SPDX-License-Identifier: MIT */
/*
 * The command line. One table of options is used by the parser, the help, the suggestion for a
 * mistyped option, and the shell completion; a test compares the manual page with the help.
 *
 * A refusal is one sentence. Parsing opens no file and no socket.
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include "options.h"
#include "text.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define CACHE_WORDS "writeback|writethrough|none|unsafe|auto" /* in the order of enum cache_mode */
#define LEVEL_WORDS "error|warning|info|debug"		      /* in the order of enum log_level */

enum {
	OPT_PORT_FILE = CLI_LONG,
	OPT_THREADS,
	OPT_BUSY_POLL,
	OPT_CACHE,
	OPT_ALLOW_HOST,
	OPT_ANY_HOST,
	OPT_READY_FD,
	OPT_RUN,
	OPT_SHADOW,
	OPT_LOG_LEVEL,
};

enum { IMAGE_NSID = CLI_LONG, IMAGE_LBA, IMAGE_RO, IMAGE_NQN, IMAGE_CACHE };

static const struct cli_option image_keys[] = {
	{ IMAGE_NSID, "nsid", "N", "namespace identifier", NULL, NULL },
	{ IMAGE_LBA, "lba", "BYTES", "size of a logical block", "512|4096", NULL },
	{ IMAGE_RO, "ro", NULL, "read only", NULL, NULL },
	{ IMAGE_NQN, "nqn", "NQN", "subsystem it belongs to", NULL, NULL },
	{ IMAGE_CACHE, "cache", "MODE", "how writes are kept", CACHE_WORDS, NULL },
};

static const struct cli_option *image_key(unsigned int n)
{
	return n < COUNT(image_keys) ? &image_keys[n] : NULL;
}

const struct cli_option options_image = { CLI_LONG, NULL, "IMAGE", "image", CLI_FILE, image_key };

const struct cli_option options_table[] = {
	{ 'l', "listen", "ADDR:PORT",
	  "listen there, [ADDR]:PORT for IPv6; may be repeated (127.0.0.1:4420)", NULL, NULL },
	{ OPT_PORT_FILE, "port-file", "FILE", "write the ports listened on to FILE, one a line",
	  CLI_FILE, NULL },
	{ 'n', "nqn", "NQN", "name of the subsystem (from the UUID of the first image)", NULL,
	  NULL },
	{ OPT_THREADS, "threads", "N", "event loops; auto: one a processor (1)", "auto", NULL },
	{ OPT_BUSY_POLL, "busy-poll", "US",
	  "look for more so many microseconds before sleeping (0)", NULL, NULL },
	{ OPT_CACHE, "cache", "MODE", "writeback, writethrough, none, unsafe or auto (writeback)",
	  CACHE_WORDS, NULL },
	{ OPT_ALLOW_HOST, "allow-host", "NQN", "admit this host alone; may be repeated", NULL,
	  NULL },
	{ OPT_ANY_HOST, "insecure-any-host", NULL, "admit any host from beyond this machine", NULL,
	  NULL },
	{ OPT_READY_FD, "ready-fd", "N", "write a newline to file descriptor N when serving", NULL,
	  NULL },
	{ OPT_RUN, "run", "CMD", "serve while the shell command CMD runs, exit with its status",
	  NULL, NULL },
	{ OPT_SHADOW, "shadow", "DIR",
	  "for what kill -9 must not lose, on a tmpfs; or none ($XDG_RUNTIME_DIR/znsd)", CLI_DIR,
	  NULL },
	{ OPT_LOG_LEVEL, "log-level", "LEVEL", "error, warning, info or debug (info)", LEVEL_WORDS,
	  NULL },
	{ 'h', "help", NULL, "print this help and exit", NULL, NULL },
	{ 'V', "version", NULL, "say the version and exit", NULL, NULL },
	{ 0 },
};

static int refuse(char *err, size_t errlen, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Writes a sentence to ERR. Returns -EINVAL. */
static int refuse(char *err, size_t errlen, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, errlen, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int parse_cache(enum cache_mode *cache, const char *text, char *err, size_t errlen)
{
	int i = word_index(CACHE_WORDS, text);

	if (i < 0)
		return refuse(err, errlen,
			      "cache \"%s\" is none of writeback, writethrough, none, unsafe, auto",
			      text);
	*cache = (enum cache_mode)i;
	return 0;
}

int options_parse_listen(struct listen_opt *l, const char *text, char *err, size_t errlen)
{
	const char *addr = text, *end, *port = NULL;
	uint64_t number = OPTIONS_PORT;

	if (*text == '[') {
		addr = text + 1;
		end = strchr(addr, ']');
		if (!end || (end[1] && end[1] != ':'))
			return refuse(err, errlen, "\"%s\" is not [ADDR]:PORT", text);
		port = end[1] ? end + 2 : NULL;
	} else {
		end = strchr(text, ':');
		if (end && strchr(end + 1, ':'))
			return refuse(err, errlen,
				      "\"%s\" needs brackets around the IPv6 address: [ADDR]:PORT",
				      text);
		port = end ? end + 1 : NULL;
		if (!end)
			end = text + strlen(text);
	}
	if (end == addr || (size_t)(end - addr) >= sizeof(l->addr))
		return refuse(err, errlen, "\"%s\" names no address to listen on", text);
	if (port && number_parse(port, 65535, &number))
		return refuse(err, errlen, "\"%s\" has no port from 0 to 65535", text);
	memcpy(l->addr, addr, (size_t)(end - addr));
	l->addr[end - addr] = '\0';
	l->port = (uint16_t)number;
	return 0;
}

/* Returns the row NAME of image_keys; NULL: there is none, and ERR has a sentence. */
static const struct cli_option *find_image_key(const struct image_opt *image, const char *name,
					       char *err, size_t errlen)
{
	const char *names[COUNT(image_keys) + 1] = { NULL };
	const char *best;

	for (size_t i = 0; i < COUNT(image_keys); i++) {
		names[i] = image_keys[i].name;
		if (!strcmp(name, names[i]))
			return &image_keys[i];
	}
	best = nearest_word(name, names);
	refuse(err, errlen, "%s: there is no image option \"%s\"%s%s%s", image->path, name,
	       best ? "; did you mean \"" : "", best ? best : "", best ? "\"?" : "");
	return NULL;
}

/* Parses one option of an image, "name" or "name=value". */
static int image_set(struct image_opt *image, char *name, char *err, size_t errlen)
{
	char *value = strchr(name, '=');
	const struct cli_option *key;
	uint64_t n;

	if (value)
		*value++ = '\0';
	key = find_image_key(image, name, err, errlen);
	if (!key)
		return -EINVAL;
	if (key->arg ? !value || !*value : !!value)
		return refuse(err, errlen, "%s: image option \"%s\" %s", image->path, name,
			      key->arg ? "needs a value" : "takes no value");
	switch (key->id) {
	case IMAGE_RO:
		image->read_only = true;
		return 0;
	case IMAGE_CACHE:
		image->cache_given = true;
		return parse_cache(&image->cache, value, err, errlen);
	case IMAGE_NQN:
		free(image->nqn);
		image->nqn = strdup(value);
		return image->nqn ? 0 : refuse(err, errlen, "out of memory");
	case IMAGE_NSID:
		if (number_parse(value, TGT_NSID_MAX, &n) || !n)
			return refuse(err, errlen, "nsid \"%s\" is not from 1 to 1024", value);
		image->nsid = (uint32_t)n;
		return 0;
	default: /* IMAGE_LBA */
		if (number_parse(value, 4096, &n) || (n != 512 && n != 4096))
			return refuse(err, errlen, "lba \"%s\" is neither 512 nor 4096", value);
		image->lba = (uint32_t)n;
		return 0;
	}
}

int options_parse_image(struct image_opt *image, const char *text, char *err, size_t errlen)
{
	char *copy = strdup(text), *rest = NULL, *out, *in;
	int ret = 0;

	*image = (struct image_opt){ .nsid = 0 };
	image->path = malloc(strlen(text) + 1);
	if (!copy || !image->path) {
		free(copy);
		return refuse(err, errlen, "out of memory");
	}
	out = image->path;
	for (in = copy; *in; in++) {
		if (*in == ',' && *++in != ',') {
			rest = in;
			break;
		}
		*out++ = *in;
	}
	*out = '\0';
	if (!*image->path)
		ret = refuse(err, errlen, "\"%s\" names no image", text);
	for (char *save, *key = rest ? strtok_r(rest, ",", &save) : NULL; key && !ret;
	     key = strtok_r(NULL, ",", &save))
		ret = image_set(image, key, err, errlen);
	free(copy);
	return ret;
}

static int add_listen(struct options *opts, const char *value, char *err, size_t errlen)
{
	if (opts->nr_listen == OPTIONS_MAX_LISTEN)
		return refuse(err, errlen, "--listen %s is one too many", value);
	return options_parse_listen(&opts->listen[opts->nr_listen++], value, err, errlen);
}

static int add_host(struct options *opts, const char *value, char *err, size_t errlen)
{
	if (opts->nr_hosts == OPTIONS_MAX_HOSTS)
		return refuse(err, errlen, "--allow-host %s is one too many", value);
	if (strncmp(value, "nqn.", 4) || strlen(value) > TGT_NQN_LEN)
		return refuse(err, errlen,
			      "--allow-host \"%s\" is no NQN: one begins with \"nqn.\"", value);
	opts->hosts[opts->nr_hosts++] = value;
	return 0;
}

static int set_log_level(struct options *opts, const char *value, char *err, size_t errlen)
{
	int i = word_index(LEVEL_WORDS, value);

	if (i < 0)
		return refuse(err, errlen, "--log-level %s is none of error, warning, info, debug",
			      value);
	opts->log_level = (enum log_level)i;
	return 0;
}

/* Parses one option of options_table, by its id. */
/* The processors that this process may use, at most OPTIONS_THREADS. */
static unsigned int processors(void)
{
	cpu_set_t set;
	long n = sched_getaffinity(0, sizeof(set), &set) ? sysconf(_SC_NPROCESSORS_ONLN)
							 : CPU_COUNT(&set);

	return n < 1 ? 1 : n < OPTIONS_THREADS ? (unsigned int)n : OPTIONS_THREADS;
}

static int parse_threads(unsigned int *threads, const char *value, char *err, size_t errlen)
{
	uint64_t n = processors();

	if (strcmp(value, "auto") && (number_parse(value, OPTIONS_THREADS, &n) || !n))
		return refuse(err, errlen, "--threads %s is not from 1 to %d, nor auto", value,
			      OPTIONS_THREADS);
	*threads = (unsigned int)n;
	return 0;
}

static int option_set(struct options *opts, int id, const char *value, char *err, size_t errlen)
{
	uint64_t n;

	switch (id) {
	case 'l':
		return add_listen(opts, value, err, errlen);
	case OPT_PORT_FILE:
		opts->port_file = value;
		return 0;
	case 'n':
		opts->nqn = value;
		return 0;
	case OPT_THREADS:
		return parse_threads(&opts->threads, value, err, errlen);
	case OPT_BUSY_POLL:
		if (number_parse(value, 1000, &n))
			return refuse(err, errlen, "--busy-poll %s is not from 0 to 1000", value);
		opts->busy_poll = (unsigned int)n;
		return 0;
	case OPT_CACHE:
		return parse_cache(&opts->cache, value, err, errlen);
	case OPT_ALLOW_HOST:
		return add_host(opts, value, err, errlen);
	case OPT_ANY_HOST:
		opts->any_host = true;
		return 0;
	case OPT_READY_FD:
		if (number_parse(value, 65535, &n))
			return refuse(err, errlen, "--ready-fd %s is no file descriptor", value);
		opts->ready_fd = (int)n;
		return 0;
	case OPT_RUN:
		opts->run = value;
		return 0;
	case OPT_SHADOW:
		if (!*value)
			return refuse(err, errlen, "--shadow needs a directory, or \"none\"");
		opts->shadow = value;
		return 0;
	case OPT_LOG_LEVEL:
		return set_log_level(opts, value, err, errlen);
	case 'h':
		opts->help = true;
		return 0;
	default: /* 'V' */
		opts->version = true;
		return 0;
	}
}

void options_help(FILE *out)
{
	fprintf(out, "usage: znsd [options] IMAGE[,opt=val]...\n"
		     "Serves zoned qcow2 images as ZNS namespaces over NVMe/TCP.\n\nOptions:\n");
	cli_help(options_table, out);
	fprintf(out, "\nImage options: nsid=N, lba=512|4096, ro, nqn=NQN, cache=MODE;\n"
		     "a comma in the name of an image is written twice.\n");
}

static bool is_loopback(const char *addr)
{
	return !strncmp(addr, "127.", 4) || !strcmp(addr, "::1") || !strcasecmp(addr, "localhost");
}

/* Validates what depends on several options. */
static int check_together(struct options *opts, char *err, size_t errlen)
{
	if (!opts->nr_images)
		return refuse(err, errlen, "no image is named; try --help");
	if (!opts->nr_listen)
		opts->listen[opts->nr_listen++] = (struct listen_opt){ "127.0.0.1", OPTIONS_PORT };
	for (unsigned int i = 0; i < opts->nr_listen && !opts->nr_hosts && !opts->any_host; i++)
		if (!is_loopback(opts->listen[i].addr))
			return refuse(err, errlen,
				      "listening on %s would let anyone in: name the hosts with "
				      "--allow-host, or say --insecure-any-host",
				      opts->listen[i].addr);
	for (unsigned int i = 0; i < opts->nr_images; i++)
		if (!opts->images[i].cache_given)
			opts->images[i].cache = opts->cache;
	return 0;
}

int options_parse(struct options *opts, int argc, char **argv, char *err, size_t errlen)
{
	int c, ret = 0;

	*opts = (struct options){ .threads = 1, .ready_fd = -1, .log_level = LOG_INFO_ };
	optind = 0;
	while (!ret && (c = cli_next(options_table, argc, argv, err, errlen)) != -1)
		ret = c < 0 ? c : option_set(opts, c, optarg, err, errlen);
	if (ret || opts->help || opts->version)
		return ret;
	for (int i = optind; i < argc && !ret; i++) {
		if (opts->nr_images == OPTIONS_MAX_IMAGES)
			return refuse(err, errlen, "image \"%s\" is one too many", argv[i]);
		ret = options_parse_image(&opts->images[opts->nr_images++], argv[i], err, errlen);
	}
	return ret ? ret : check_together(opts, err, errlen);
}

void options_free(struct options *opts)
{
	for (unsigned int i = 0; i < opts->nr_images; i++) {
		free(opts->images[i].path);
		free(opts->images[i].nqn);
	}
}
