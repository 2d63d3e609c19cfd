/* SPDX-License-Identifier: MIT */
/* Where the shadows are kept: only on a tmpfs, only in a directory that nobody else can enter. */
#include <linux/magic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <cmocka.h>
#include "shadow_dir.h"
#include "target.h"

static char buf[SHADOW_DIR_LEN];

static void the_command_line_has_its_way(void **state)
{
	(void)state;
	assert_string_equal(shadow_dir("/some/where", buf), "/some/where");
	assert_null(shadow_dir("none", buf));
}

/* What is chosen when XDG_RUNTIME_DIR is RUN and RUN/znsd has MODE (0: there is none). */
static bool takes(const char *run, mode_t mode)
{
	char dir[SHADOW_DIR_LEN];
	const char *got;

	snprintf(dir, sizeof(dir), "%s/znsd", run);
	if (mode) {
		assert_int_equal(mkdir(dir, 0700), 0);
		assert_int_equal(chmod(dir, mode), 0);
	}
	setenv("XDG_RUNTIME_DIR", run, 1);
	got = shadow_dir(NULL, buf);
	rmdir(dir);
	return got && !strcmp(got, dir);
}

static void a_directory_on_a_tmpfs_that_is_ours_alone(void **state)
{
	char run[] = "/dev/shm/znsd-test-XXXXXX";
	struct statfs fs;

	(void)state;
	if (statfs("/dev/shm", &fs) || fs.f_type != TMPFS_MAGIC || !mkdtemp(run))
		skip();
	assert_true(takes(run, 0));
	assert_true(takes(run, 0700));
	assert_false(takes(run, 0750));
	assert_false(takes(run, 0701));
	assert_false(takes(run + 1, 0)); /* not an absolute path */
	rmdir(run);
}

static void not_on_a_disk(void **state)
{
	char run[] = "/var/tmp/znsd-test-XXXXXX";
	struct statfs fs;

	(void)state;
	if (statfs("/var/tmp", &fs) || fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC ||
	    !mkdtemp(run))
		skip();
	assert_false(takes(run, 0));
	rmdir(run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_command_line_has_its_way),
		cmocka_unit_test(a_directory_on_a_tmpfs_that_is_ours_alone),
		cmocka_unit_test(not_on_a_disk),
	};

	log_level(LOG_ERR_);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
