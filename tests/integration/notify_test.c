// SPDX-License-Identifier: MIT
/*
 * znsd as a service of systemd (Type=notify): READY=1 comes when a host can connect and not when
 * the start fails, STOPPING=1 when the end begins.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon.h"

static struct rig rig;
static int manager; /* the other end of $NOTIFY_SOCKET; never blocks */

/* Whether a datagram is there; its text to GOT. */
static bool heard(char *got, size_t size)
{
	ssize_t n = recv(manager, got, size - 1, 0);

	got[n < 0 ? 0 : n] = '\0';
	return n >= 0;
}

static int setup(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	(void)state;
	rig_init(&rig);
	assert_int_equal(rig_create(&rig, rig.img, RIG_SEED), 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/notify", rig.dir);
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(manager, (struct sockaddr *)&addr, sizeof(addr)), 0);
	setenv("NOTIFY_SOCKET", addr.sun_path, 1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(manager);
	rig_end(&rig);
	return 0;
}

static void ready_means_that_a_host_can_connect(void **state)
{
	struct host_ctrl ctrl;
	char got[512];

	(void)state;
	assert_int_equal(rig_serve(&rig, rig.img), 0);
	assert_true(heard(got, sizeof(got)));
	assert_ptr_equal(strstr(got, "READY=1\n"), got);
	assert_non_null(strstr(got, "STATUS=")); /* what systemctl status shows */
	assert_non_null(strstr(got, RIG_NQN));
	rig_attach(&rig, &ctrl, 1);
	host_detach(&ctrl);
	assert_false(heard(got, sizeof(got))); /* once */
	assert_int_equal(rig_stop(&rig, SIGTERM, 10000 * rig_slowness(), NULL), 0);
	assert_true(heard(got, sizeof(got)));
	assert_string_equal(got, "STOPPING=1");
	assert_false(heard(got, sizeof(got)));
}

static void a_start_that_fails_is_never_ready(void **state)
{
	const char *const nowhere[] = { "nowhere.qcow2", NULL };
	const char *const second[] = { rig.img, "nowhere.qcow2", NULL };
	char got[512];
	int status;

	(void)state;
	assert_int_equal(rig_start(&rig, nowhere, &status), -ECHILD);
	assert_int_equal(status, 1);
	assert_int_equal(rig_start(&rig, second, &status), -ECHILD);
	assert_int_equal(status, 1);
	while (heard(got, sizeof(got)))
		assert_null(strstr(got, "READY=1"));
}

static void a_manager_that_is_gone_is_no_reason_to_fail(void **state)
{
	struct host_ctrl ctrl;

	(void)state;
	close(manager);
	manager = -1;
	assert_int_equal(rig_serve(&rig, rig.img), 0);
	rig_attach(&rig, &ctrl, 1);
	host_detach(&ctrl);
	assert_int_equal(rig_stop(&rig, SIGTERM, 10000 * rig_slowness(), NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(ready_means_that_a_host_can_connect, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_start_that_fails_is_never_ready, setup, teardown),
		cmocka_unit_test_setup_teardown(a_manager_that_is_gone_is_no_reason_to_fail, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
