/* SPDX-License-Identifier: MIT */
/* The service manager's socket: by path, by abstract name, not there, full. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include "notify.h"

/* A datagram socket bound to NAME, as $NOTIFY_SOCKET has it. */
static int manager(const char *name)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	size_t len = strlen(name) + (*name == '/');
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	memcpy(addr.sun_path, name, strlen(name));
	if (*name == '@')
		addr.sun_path[0] = '\0';
	assert_int_equal(bind(fd, (struct sockaddr *)&addr,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
			 0);
	setenv("NOTIFY_SOCKET", name, 1);
	return fd;
}

static void expect_heard(int fd, const char *want)
{
	char got[256];
	ssize_t n = recv(fd, got, sizeof(got) - 1, 0);

	if (!want) {
		assert_true(n < 0 && errno == EAGAIN);
		return;
	}
	assert_true(n >= 0);
	got[n] = '\0';
	assert_string_equal(got, want);
}

static void a_path_hears(void **state)
{
	char dir[] = "/tmp/znsd-notify.XXXXXX", path[64];
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	fd = manager(path);
	assert_int_equal(notify("READY=1\nSTATUS=well"), 0);
	expect_heard(fd, "READY=1\nSTATUS=well");
	assert_int_equal(notify("STOPPING=1"), 0);
	expect_heard(fd, "STOPPING=1");
	expect_heard(fd, NULL);
	close(fd);
	assert_int_equal(notify("STOPPING=1"), -ECONNREFUSED);
	unlink(path);
	assert_int_equal(notify("STOPPING=1"), -ENOENT);
	rmdir(dir);
}

static void an_abstract_name_hears(void **state)
{
	char name[64];
	int fd;

	(void)state;
	snprintf(name, sizeof(name), "@znsd-notify-%d", getpid());
	fd = manager(name);
	assert_int_equal(notify("READY=1"), 0);
	expect_heard(fd, "READY=1");
	close(fd);
}

static void nobody_asked(void **state)
{
	(void)state;
	unsetenv("NOTIFY_SOCKET");
	assert_int_equal(notify("READY=1"), 0);
	setenv("NOTIFY_SOCKET", "", 1);
	assert_int_equal(notify("READY=1"), 0);
}

static void a_name_that_is_none_is_refused(void **state)
{
	char longer[200];

	(void)state;
	setenv("NOTIFY_SOCKET", "vsock:2:1234", 1);
	assert_int_equal(notify("READY=1"), -EAFNOSUPPORT);
	memset(longer, 'x', sizeof(longer));
	longer[0] = '/';
	longer[sizeof(longer) - 1] = '\0';
	setenv("NOTIFY_SOCKET", longer, 1);
	assert_int_equal(notify("READY=1"), -ENAMETOOLONG);
	longer[0] = '@';
	setenv("NOTIFY_SOCKET", longer, 1);
	assert_int_equal(notify("READY=1"), -ENAMETOOLONG);
}

static void a_manager_that_does_not_listen_holds_nothing_up(void **state)
{
	char name[64];
	int fd, err = 0, n;

	(void)state;
	snprintf(name, sizeof(name), "@znsd-notify-%d", getpid());
	fd = manager(name);
	for (n = 0; n < 1000000 && !err; n++)
		err = notify("STATUS=again");
	assert_int_equal(err, -EAGAIN);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_path_hears),
		cmocka_unit_test(an_abstract_name_hears),
		cmocka_unit_test(nobody_asked),
		cmocka_unit_test(a_name_that_is_none_is_refused),
		cmocka_unit_test(a_manager_that_does_not_listen_holds_nothing_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
