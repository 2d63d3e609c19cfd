/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <getopt.h>
#include <string.h>

#include "cli.h"
#include "text.h"

/* What getopt_long() returns for the long option of row 0; more for those behind it. */
#define LONG_BASE 65536

/* The tables getopt_long() wants. */
struct getopt_tables {
	struct option longs[CLI_MAX + 1];
	char shorts[2 * CLI_MAX + 2];
};

static void make_tables(const struct cli_option *table, struct getopt_tables *t)
{
	char *p = t->shorts;
	int nr_longs = 0;

	*p++ = ':'; /* tell a missing argument from an unknown option */
	for (int i = 0; i < CLI_MAX && table[i].id; i++) {
		const struct cli_option *o = &table[i];

		if (o->name)
			t->longs[nr_longs++] =
				(struct option){ o->name, o->arg ? required_argument : no_argument,
						 NULL, LONG_BASE + i };
		if (o->id < CLI_LONG) {
			*p++ = (char)o->id;
			if (o->arg)
				*p++ = ':';
		}
	}
	t->longs[nr_longs] = (struct option){ NULL, 0, NULL, 0 };
	*p = '\0';
}

static void say_unknown(const struct cli_option *table, const char *text, char *err, size_t errlen)
{
	const char *names[CLI_MAX + 1], *best;
	char word[32];
	size_t n = 0;

	if (optopt) { /* a short one, perhaps in the middle of several */
		snprintf(err, errlen, "there is no option \"-%c\"; try --help", optopt);
		return;
	}
	snprintf(word, sizeof(word), "%.*s", (int)strcspn(text + 2, "="), text + 2);
	for (; table->id && n < CLI_MAX; table++)
		if (table->name && table->help)
			names[n++] = table->name;
	names[n] = NULL;
	best = nearest_word(word, names);
	if (best)
		snprintf(err, errlen, "there is no option \"--%s\"; did you mean \"--%s\"?", word,
			 best);
	else
		snprintf(err, errlen, "there is no option \"--%s\"; try --help", word);
}

int cli_next(const struct cli_option *table, int argc, char **argv, char *err, size_t errlen)
{
	struct getopt_tables t;
	int c;

	make_tables(table, &t);
	opterr = 0;
	c = getopt_long(argc, argv, t.shorts, t.longs, NULL);
	if (c >= LONG_BASE)
		return table[c - LONG_BASE].id;
	if (c != ':' && c != '?')
		return c;
	if (c == ':')
		snprintf(err, errlen, "option %s needs a value", argv[optind - 1]);
	else if (optopt >= LONG_BASE)
		snprintf(err, errlen, "option --%s takes no value", table[optopt - LONG_BASE].name);
	else
		say_unknown(table, argv[optind - 1], err, errlen);
	return -EINVAL;
}

void cli_help(const struct cli_option *table, FILE *out)
{
	for (; table->id; table++) {
		char left[64];
		size_t n;

		if (!table->help)
			continue;
		n = table->id < CLI_LONG ? (size_t)snprintf(left, sizeof(left), "-%c", table->id)
					 : (size_t)snprintf(left, sizeof(left), "  ");
		if (table->name)
			n += (size_t)snprintf(left + n, sizeof(left) - n, "%s--%s",
					      table->id < CLI_LONG ? ", " : "  ", table->name);
		if (table->arg)
			snprintf(left + n, sizeof(left) - n, " %s", table->arg);
		fprintf(out, "  %-26s %s\n", left, table->help);
	}
}
