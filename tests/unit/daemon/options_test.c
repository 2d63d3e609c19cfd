/* SPDX-License-Identifier: MIT */
/* The command line: what is understood, and the sentence for what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sched.h>
#include "options.h"

#define MAX_ARGS 8

static int parse(struct options *opts, const char *const *args, char *err)
{
	char *argv[MAX_ARGS + 2] = { (char *)"znsd" };
	int argc = 1;

	while (argc <= MAX_ARGS && args[argc - 1]) {
		argv[argc] = (char *)args[argc - 1];
		argc++;
	}
	return options_parse(opts, argc, argv, err, 256);
}

static void refusals_are_sentences(void **state)
{
	static const struct {
		const char *args[MAX_ARGS];
		const char *sentence;
	} rows[] = {
		{ { NULL }, "no image is named" },
		{ { "--lisen", "x" }, "did you mean \"--listen\"?" },
		{ { "--thread=2", "d" }, NULL }, /* an abbreviation getopt knows */
		{ { "--zzzzzzzzzz", "d" }, "try --help" },
		{ { "-x", "d" }, "no option \"-x\"" },
		{ { "--nqn" }, "needs a value" },
		{ { "--help=1" }, "takes no value" },
		{ { "--threads", "0", "d" }, "not from 1 to 64" },
		{ { "--threads", "65", "d" }, "not from 1 to 64" },
		{ { "--threads", "automatic", "d" }, "nor auto" },
		{ { "--threads", "1x", "d" }, "not from 1 to 64" },
		{ { "--busy-poll", "1001", "d" }, "not from 0 to 1000" },
		{ { "--busy-poll", "-1", "d" }, "not from 0 to 1000" },
		{ { "--cache", "fast", "d" }, "none of writeback" },
		{ { "--log-level", "loud", "d" }, "none of error" },
		{ { "--log-level", "error", "d" }, NULL },
		{ { "--log-level", "debug", "d" }, NULL },
		{ { "--allow-host", "me", "d" }, "no NQN" },
		{ { "--listen", "127.0.0.1:65536", "d" }, "no port" },
		{ { "--listen", "127.0.0.1:", "d" }, "no port" },
		{ { "--listen", "::1", "d" }, "brackets" },
		{ { "--listen", "[::1", "d" }, "[ADDR]:PORT" },
		{ { "--listen", ":4420", "d" }, "no address" },
		{ { "--listen", "0.0.0.0:4420", "d" }, "--insecure-any-host" },
		{ { "--listen", "192.0.2.1:4420", "d" }, "--allow-host" },
		{ { "d,lbs=512" }, "did you mean \"lba\"?" },
		{ { "d,lba=1024" }, "neither 512 nor 4096" },
		{ { "d,lba" }, "needs a value" },
		{ { "d,ro=1" }, "takes no value" },
		{ { "d,nsid=0" }, "not from 1 to 1024" },
		{ { "d,nsid=1025" }, "not from 1 to 1024" },
		{ { "d,cache=x" }, "none of writeback" },
		{ { "" }, "names no image" },
		{ { ",ro" }, "names no image" },
	};
	struct options opts;
	char err[256];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int ret;

		err[0] = '\0';
		ret = parse(&opts, rows[i].args, err);
		if (!rows[i].sentence)
			assert_int_equal(ret, 0);
		else if (!ret || !strstr(err, rows[i].sentence))
			fail_msg("row %zu: %d \"%s\"", i, ret, err);
		assert_null(strchr(err, '\n'));
		options_free(&opts);
	}
}

static void everything_has_a_default(void **state)
{
	const char *const args[] = { "disk.qcow2", NULL };
	struct options opts;
	char err[256];

	(void)state;
	assert_int_equal(parse(&opts, args, err), 0);
	assert_int_equal(opts.nr_listen, 1);
	assert_string_equal(opts.listen[0].addr, "127.0.0.1");
	assert_int_equal(opts.listen[0].port, 4420);
	assert_int_equal(opts.threads, 1);
	assert_int_equal(opts.busy_poll, 0);
	assert_int_equal(opts.ready_fd, -1);
	assert_string_equal(opts.images[0].path, "disk.qcow2");
	assert_int_equal(opts.images[0].lba, 0);
	assert_int_equal(opts.images[0].nsid, 0);
	assert_int_equal(opts.images[0].cache, CACHE_WRITEBACK);
	options_free(&opts);
}

static void images_have_options_of_their_own(void **state)
{
	const char *const args[] = { "a,,b.qcow2,nsid=7,lba=4096,ro,nqn=nqn.x,cache=none",
				     "--cache", "unsafe", "c.qcow2", NULL };
	struct options opts;
	char err[256];

	(void)state;
	assert_int_equal(parse(&opts, args, err), 0);
	assert_int_equal(opts.nr_images, 2);
	assert_string_equal(opts.images[0].path, "a,b.qcow2");
	assert_int_equal(opts.images[0].nsid, 7);
	assert_int_equal(opts.images[0].lba, 4096);
	assert_true(opts.images[0].read_only);
	assert_string_equal(opts.images[0].nqn, "nqn.x");
	assert_int_equal(opts.images[0].cache, CACHE_NONE);
	assert_int_equal(opts.images[1].cache, CACHE_UNSAFE);
	options_free(&opts);
}

static void addresses_beyond_loopback_need_a_word(void **state)
{
	const char *const named[] = { "-l", "192.0.2.1:1", "--allow-host", "nqn.h", "d", NULL };
	const char *const any[] = { "-l", "[::]:0", "--insecure-any-host", "d", NULL };
	const char *const loop[] = { "-l", "[::1]:0",	  "-l", "localhost",
				     "-l", "127.9.9.9:5", "d",	NULL };
	struct options opts;
	char err[256];

	(void)state;
	assert_int_equal(parse(&opts, named, err), 0);
	options_free(&opts);
	assert_int_equal(parse(&opts, any, err), 0);
	assert_string_equal(opts.listen[0].addr, "::");
	options_free(&opts);
	assert_int_equal(parse(&opts, loop, err), 0);
	assert_int_equal(opts.nr_listen, 3);
	assert_int_equal(opts.listen[1].port, 4420);
	options_free(&opts);
}

/* As many as the process may use: one, when it is bound to one. */
static void auto_is_a_loop_for_each_processor(void **state)
{
	const char *const args[] = { "--threads", "auto", "disk.qcow2", NULL };
	struct options opts;
	cpu_set_t all, one;
	char err[256];

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	assert_int_equal(parse(&opts, args, err), 0);
	assert_int_equal(opts.threads, CPU_COUNT(&all) < 64 ? CPU_COUNT(&all) : 64);
	options_free(&opts);
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
		if (CPU_ISSET(i, &all))
			CPU_SET(i, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	assert_int_equal(parse(&opts, args, err), 0);
	assert_int_equal(opts.threads, 1);
	options_free(&opts);
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refusals_are_sentences),
		cmocka_unit_test(everything_has_a_default),
		cmocka_unit_test(auto_is_a_loop_for_each_processor),
		cmocka_unit_test(images_have_options_of_their_own),
		cmocka_unit_test(addresses_beyond_loopback_need_a_word),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
