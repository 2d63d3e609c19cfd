/* SPDX-License-Identifier: MIT */
/* The log: what is hostile is escaped, what is too much is held back and counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "target.h"

static char text[65536];

/* Runs FN with stderr in a pipe; its lines are in text. */
static void capture(void (*fn)(void))
{
	int fds[2], saved = dup(STDERR_FILENO);
	ssize_t n;

	assert_int_equal(pipe(fds), 0);
	dup2(fds[1], STDERR_FILENO);
	close(fds[1]);
	fn();
	dup2(saved, STDERR_FILENO);
	close(saved);
	n = read(fds[0], text, sizeof(text) - 1);
	close(fds[0]);
	text[n > 0 ? n : 0] = '\0';
}

static void hostile(void)
{
	log_warn("host=%s", "a\nznsd: b\x1b[2J\xc3\xa9\x7f");
}

static void control_bytes_are_escaped(void **state)
{
	(void)state;
	capture(hostile);
	assert_string_equal(text, "znsd: warning: host=a\\x0aznsd: b\\x1b[2J\\xc3\\xa9\\x7f\n");
}

static int flood_size = 1000;

static void flood(void)
{
	for (int i = 0; i < flood_size; i++)
		log_info("flood %d", i);
	log_info("another site");
}

static void a_site_has_a_budget_and_others_their_own(void **state)
{
	int lines = 0;

	(void)state;
	capture(flood);
	for (const char *p = text; (p = strchr(p, '\n')); p++)
		lines++;
	assert_true(lines >= 2 && lines <= 21); /* the second may turn in between */
	assert_non_null(strstr(text, "another site"));
}

static void what_was_held_back_is_told(void **state)
{
	(void)state;
	capture(flood);
	usleep(1100 * 1000);
	flood_size = 1;
	capture(flood);
	assert_non_null(strstr(text, "znsd: flood 0 (held back: "));
}

static void long_one(void)
{
	static char word[5000];

	memset(word, 1, sizeof(word) - 1);
	log_err("%s", word);
}

static void a_long_line_is_cut(void **state)
{
	(void)state;
	capture(long_one);
	assert_true(strlen(text) < 1200);
	assert_int_equal(text[strlen(text) - 1], '\n');
}

static void quiet(void)
{
	log_level(LOG_ERR_);
	log_info("not to be seen");
	log_debug("nor this");
	log_level(LOG_INFO_);
}

static void levels_below_are_not_said(void **state)
{
	(void)state;
	capture(quiet);
	assert_string_equal(text, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(control_bytes_are_escaped),
		cmocka_unit_test(a_site_has_a_budget_and_others_their_own),
		cmocka_unit_test(what_was_held_back_is_told),
		cmocka_unit_test(a_long_line_is_cut),
		cmocka_unit_test(levels_below_are_not_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
