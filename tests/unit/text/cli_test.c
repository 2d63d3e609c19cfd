/* SPDX-License-Identifier: MIT */
/* A table of options: what it parses, the sentence for what it does not, and its help. */
#include <errno.h>
#include <getopt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "cli.h"

#define MAX_ARGS 4

static const struct cli_option table[] = {
	{ 'a', "all", NULL, "everything", NULL, NULL },
	{ 'f', NULL, "FILE", "short only", NULL, NULL },
	{ CLI_LONG, "long-only", "N", "long only", NULL, NULL },
	{ 'z', "zebra", NULL, NULL, NULL, NULL }, /* hidden */
	{ 0 },
};

static int first(const char *const *args, char *err, size_t errlen)
{
	char *argv[MAX_ARGS + 2] = { (char *)"program" };
	int argc = 1;

	for (; argc <= MAX_ARGS && args[argc - 1]; argc++)
		argv[argc] = (char *)args[argc - 1];
	optind = 0;
	return cli_next(table, argc, argv, err, errlen);
}

static void options_are_found(void **state)
{
	static const struct {
		const char *args[MAX_ARGS];
		int id;
		const char *value;
	} rows[] = {
		{ { "-a" }, 'a', NULL },
		{ { "--all" }, 'a', NULL },
		{ { "-f", "x" }, 'f', "x" },
		{ { "-fx" }, 'f', "x" },
		{ { "--long-only", "x" }, CLI_LONG, "x" },
		{ { "--long=x" }, CLI_LONG, "x" },
		{ { "operand", "--long-only=" }, CLI_LONG, "" },
		{ { "--zebra" }, 'z', NULL },
		{ { "operand" }, -1, NULL },
		{ { "--", "-a" }, -1, NULL },
	};
	char err[256] = "";

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int id = first(rows[i].args, err, sizeof(err));

		if (id != rows[i].id)
			fail_msg("row %zu: %d, %s", i, id, err);
		if (rows[i].value)
			assert_string_equal(optarg, rows[i].value);
	}
}

static void refusals_are_sentences(void **state)
{
	static const struct {
		const char *args[MAX_ARGS];
		const char *sentence;
	} rows[] = {
		{ { "-x" }, "there is no option \"-x\"; try --help" },
		{ { "--oll" }, "there is no option \"--oll\"; did you mean \"--all\"?" },
		{ { "--zebre" }, "there is no option \"--zebre\"; try --help" },
		{ { "--quite-another=x" }, "there is no option \"--quite-another\"; try --help" },
		{ { "--all=1" }, "option --all takes no value" },
		{ { "-f" }, "option -f needs a value" },
		{ { "--long-only" }, "option --long-only needs a value" },
	};
	char err[256];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(first(rows[i].args, err, sizeof(err)), -EINVAL);
		assert_string_equal(err, rows[i].sentence);
	}
}

static void an_unknown_letter_among_known_ones_is_named(void **state)
{
	char *argv[] = { (char *)"program", (char *)"--all", (char *)"-axf", NULL };
	char err[256];

	(void)state;
	optind = 0;
	assert_int_equal(cli_next(table, 3, argv, err, sizeof(err)), 'a');
	assert_int_equal(cli_next(table, 3, argv, err, sizeof(err)), 'a');
	assert_int_equal(cli_next(table, 3, argv, err, sizeof(err)), -EINVAL);
	assert_string_equal(err, "there is no option \"-x\"; try --help");
}

static void help_has_a_line_for_each_option_but_hidden_ones(void **state)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	(void)state;
	assert_non_null(out);
	cli_help(table, out);
	fclose(out);
	assert_string_equal(text, "  -a, --all                  everything\n"
				  "  -f FILE                    short only\n"
				  "      --long-only N          long only\n");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_are_found),
		cmocka_unit_test(refusals_are_sentences),
		cmocka_unit_test(an_unknown_letter_among_known_ones_is_named),
		cmocka_unit_test(help_has_a_line_for_each_option_but_hidden_ones),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
