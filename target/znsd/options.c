/* SPDX-License-Identifier: MIT */
/*
 * The command line. One table of options feeds getopt_long(), the help and the guess at what a
 * mistyped option was meant to be; the manual page is compared with the help by a test.
 *
 * A refusal is one sentence. Nothing is acted upon here: parsing opens no file and no socket.
 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "options.h"
#include "text.h"

struct option_row {
	const char *name;
	const char *arg; /* NULL: none */
	const char *help;
	int letter; /* 0: none */
	int (*set)(struct options *opts, const char *value, char *err, size_t errlen);
};

static const char *const cache_names[] = { "writeback", "writethrough", "none", "unsafe" };
static const char *const level_names[] = { "error", "warning", "info", "debug" };

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int refuse(char *err, size_t errlen, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* A sentence to ERR; the value is what the caller returns. */
static int refuse(char *err, size_t errlen, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, errlen, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int parse_word(const char *const *words, size_t n, const char *text)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(words[i], text))
			return (int)i;
	return -1;
}

static int parse_cache(enum cache_mode *cache, const char *text, char *err, size_t errlen)
{
	int i = parse_word(cache_names, COUNT(cache_names), text);

	if (i < 0)
		return refuse(err, errlen,
			      "cache \"%s\" is none of writeback, writethrough, none, unsafe",
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

static int image_set(struct image_opt *image, char *key, char *err, size_t errlen)
{
	static const char *const keys[] = { "nsid", "lba", "ro", "nqn", "cache", NULL };
	char *value = strchr(key, '=');
	uint64_t n;

	if (value)
		*value++ = '\0';
	if (!strcmp(key, "ro") && !value) {
		image->read_only = true;
		return 0;
	}
	if (parse_word(keys, COUNT(keys) - 1, key) < 0) {
		const char *best = nearest_word(key, keys);

		snprintf(err, errlen, "%s: there is no image option \"%s\"%s%s%s", image->path, key,
			 best ? "; did you mean \"" : "", best ? best : "", best ? "\"?" : "");
		return -EINVAL;
	}
	if (!value || !*value || !strcmp(key, "ro")) {
		snprintf(err, errlen, "%s: image option \"%s\" %s", image->path, key,
			 strcmp(key, "ro") ? "needs a value" : "takes no value");
		return -EINVAL;
	}
	if (!strcmp(key, "cache")) {
		image->cache_given = true;
		return parse_cache(&image->cache, value, err, errlen);
	}
	if (!strcmp(key, "nqn")) {
		free(image->nqn);
		image->nqn = strdup(value);
		return image->nqn ? 0 : refuse(err, errlen, "out of memory");
	}
	if (!strcmp(key, "nsid")) {
		if (number_parse(value, TGT_NSID_MAX, &n) || !n)
			return refuse(err, errlen, "nsid \"%s\" is not from 1 to 1024", value);
		image->nsid = (uint32_t)n;
		return 0;
	}
	if (number_parse(value, 4096, &n) || (n != 512 && n != 4096))
		return refuse(err, errlen, "lba \"%s\" is neither 512 nor 4096", value);
	image->lba = (uint32_t)n;
	return 0;
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

static int set_listen(struct options *opts, const char *value, char *err, size_t errlen)
{
	if (opts->nr_listen == OPTIONS_MAX_LISTEN)
		return refuse(err, errlen, "--listen %s is one too many", value);
	return options_parse_listen(&opts->listen[opts->nr_listen++], value, err, errlen);
}

static int set_port_file(struct options *opts, const char *value, char *err, size_t errlen)
{
	(void)err;
	(void)errlen;
	opts->port_file = value;
	return 0;
}

static int set_nqn(struct options *opts, const char *value, char *err, size_t errlen)
{
	(void)err;
	(void)errlen;
	opts->nqn = value;
	return 0;
}

static int set_threads(struct options *opts, const char *value, char *err, size_t errlen)
{
	uint64_t n;

	if (number_parse(value, 64, &n) || !n)
		return refuse(err, errlen, "--threads %s is not from 1 to 64", value);
	opts->threads = (unsigned int)n;
	return 0;
}

static int set_busy_poll(struct options *opts, const char *value, char *err, size_t errlen)
{
	uint64_t n;

	if (number_parse(value, 1000, &n))
		return refuse(err, errlen, "--busy-poll %s is not from 0 to 1000", value);
	opts->busy_poll = (unsigned int)n;
	return 0;
}

static int set_cache(struct options *opts, const char *value, char *err, size_t errlen)
{
	return parse_cache(&opts->cache, value, err, errlen);
}

static int set_allow_host(struct options *opts, const char *value, char *err, size_t errlen)
{
	if (opts->nr_hosts == OPTIONS_MAX_HOSTS)
		return refuse(err, errlen, "--allow-host %s is one too many", value);
	if (strncmp(value, "nqn.", 4) || strlen(value) > TGT_NQN_LEN)
		return refuse(err, errlen,
			      "--allow-host \"%s\" is no NQN: one begins with \"nqn.\"", value);
	opts->hosts[opts->nr_hosts++] = value;
	return 0;
}

static int set_any_host(struct options *opts, const char *value, char *err, size_t errlen)
{
	(void)value;
	(void)err;
	(void)errlen;
	opts->any_host = true;
	return 0;
}

static int set_ready_fd(struct options *opts, const char *value, char *err, size_t errlen)
{
	uint64_t n;

	if (number_parse(value, 65535, &n))
		return refuse(err, errlen, "--ready-fd %s is no file descriptor", value);
	opts->ready_fd = (int)n;
	return 0;
}

static int set_run(struct options *opts, const char *value, char *err, size_t errlen)
{
	(void)err;
	(void)errlen;
	opts->run = value;
	return 0;
}

static int set_shadow(struct options *opts, const char *value, char *err, size_t errlen)
{
	if (!*value)
		return refuse(err, errlen, "--shadow needs a directory, or \"none\"");
	opts->shadow = value;
	return 0;
}

static int set_log_level(struct options *opts, const char *value, char *err, size_t errlen)
{
	int i = parse_word(level_names, COUNT(level_names), value);

	if (i < 0)
		return refuse(err, errlen, "--log-level %s is none of error, warning, info, debug",
			      value);
	opts->log_level = (enum log_level)i;
	return 0;
}

static int set_help(struct options *opts, const char *value, char *err, size_t errlen)
{
	(void)value;
	(void)err;
	(void)errlen;
	opts->help = true;
	return 0;
}

static int set_version(struct options *opts, const char *value, char *err, size_t errlen)
{
	(void)value;
	(void)err;
	(void)errlen;
	opts->version = true;
	return 0;
}

static const struct option_row rows[] = {
	{ "listen", "ADDR:PORT",
	  "listen there, [ADDR]:PORT for IPv6; may be repeated (127.0.0.1:4420)", 'l', set_listen },
	{ "port-file", "FILE", "write the ports listened on to FILE, one a line", 0,
	  set_port_file },
	{ "nqn", "NQN", "name of the subsystem (from the UUID of the first image)", 'n', set_nqn },
	{ "threads", "N", "event loops (1)", 0, set_threads },
	{ "busy-poll", "US", "look for more so many microseconds before sleeping (0)", 0,
	  set_busy_poll },
	{ "cache", "MODE", "writeback, writethrough, none or unsafe (writeback)", 0, set_cache },
	{ "allow-host", "NQN", "admit this host alone; may be repeated", 0, set_allow_host },
	{ "insecure-any-host", NULL, "admit any host from beyond this machine", 0, set_any_host },
	{ "ready-fd", "N", "write a newline to file descriptor N when serving", 0, set_ready_fd },
	{ "run", "CMD", "serve while the shell command CMD runs, exit with its status", 0,
	  set_run },
	{ "shadow", "DIR",
	  "for what kill -9 must not lose, on a tmpfs; or none ($XDG_RUNTIME_DIR/znsd)", 0,
	  set_shadow },
	{ "log-level", "LEVEL", "error, warning, info or debug (info)", 0, set_log_level },
	{ "help", NULL, "say this and exit", 'h', set_help },
	{ "version", NULL, "say the version and exit", 'V', set_version },
};

#define ROWS	  COUNT(rows)
#define LONG_BASE 256 /* getopt's value of the row with index 0 */

void options_help(FILE *out)
{
	fprintf(out, "usage: znsd [options] IMAGE[,opt=val]...\n"
		     "Serves zoned qcow2 images as ZNS namespaces over NVMe/TCP.\n\nOptions:\n");
	for (size_t i = 0; i < ROWS; i++) {
		char text[64];

		snprintf(text, sizeof(text), "--%s%s%s", rows[i].name, rows[i].arg ? " " : "",
			 rows[i].arg ? rows[i].arg : "");
		if (rows[i].letter)
			fprintf(out, "  -%c, %-22s %s\n", rows[i].letter, text, rows[i].help);
		else
			fprintf(out, "      %-22s %s\n", text, rows[i].help);
	}
	fprintf(out, "\nImage options: nsid=N, lba=512|4096, ro, nqn=NQN, cache=MODE;\n"
		     "a comma in the name of an image is written twice.\n");
}

static int refuse_option(const char *text, char *err, size_t errlen)
{
	const char *names[ROWS + 1] = { NULL };
	const char *best;
	char word[32];
	size_t len;

	if (strncmp(text, "--", 2)) {
		snprintf(err, errlen, "there is no option \"%s\"; try --help", text);
		return -EINVAL;
	}
	len = strcspn(text + 2, "=");
	snprintf(word, sizeof(word), "%.*s", (int)(len > 31 ? 31 : len), text + 2);
	for (size_t i = 0; i < ROWS; i++)
		names[i] = rows[i].name;
	best = nearest_word(word, names);
	if (best)
		snprintf(err, errlen, "there is no option \"--%s\"; did you mean \"--%s\"?", word,
			 best);
	else
		snprintf(err, errlen, "there is no option \"--%s\"; try --help", word);
	return -EINVAL;
}

static bool is_loopback(const char *addr)
{
	return !strncmp(addr, "127.", 4) || !strcmp(addr, "::1") || !strcasecmp(addr, "localhost");
}

/* What no single option can tell. */
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

static int parse_options(struct options *opts, int argc, char **argv, char *err, size_t errlen)
{
	struct option longs[ROWS + 1] = { 0 };
	int c, ret = 0;

	for (size_t i = 0; i < ROWS; i++)
		longs[i] = (struct option){ rows[i].name,
					    rows[i].arg ? required_argument : no_argument, NULL,
					    LONG_BASE + (int)i };
	opterr = 0;
	optind = 0;
	while (!ret && (c = getopt_long(argc, argv, ":l:n:hV", longs, NULL)) != -1) {
		const struct option_row *row = c >= LONG_BASE ? &rows[c - LONG_BASE] : NULL;

		if (c == ':')
			return refuse(err, errlen, "option %s needs a value", argv[optind - 1]);
		if (c == '?' && optopt >= LONG_BASE)
			return refuse(err, errlen, "option --%s takes no value",
				      rows[optopt - LONG_BASE].name);
		if (c == '?')
			return refuse_option(argv[optind - 1], err, errlen);
		for (size_t i = 0; i < ROWS && !row; i++)
			if (rows[i].letter == c)
				row = &rows[i];
		ret = row->set(opts, optarg, err, errlen);
	}
	return ret;
}

int options_parse(struct options *opts, int argc, char **argv, char *err, size_t errlen)
{
	int ret;

	*opts = (struct options){ .threads = 1, .ready_fd = -1, .log_level = LOG_INFO_ };
	ret = parse_options(opts, argc, argv, err, errlen);
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
