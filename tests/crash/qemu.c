/* SPDX-License-Identifier: MIT */
/*
 * A second opinion: stock qemu-img does not know zones and refuses the image for bit 5 of its
 * incompatible features; in a copy without that bit it must find nothing worse than leaks (the
 * write-pointer table is one to it).
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "format.h"
#include "lab.h"

extern char **environ;

bool qemu_is_there(void)
{
	return !access("/usr/bin/qemu-img", X_OK);
}

static bool write_all(int fd, const uint8_t *data, uint64_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n <= 0)
			return false;
		data += n;
		len -= n;
	}
	return true;
}

/* A copy of the state without the bit, in a file in memory. */
static int make_copy(const struct simdisk *state)
{
	int fd = memfd_create("crash", 0);
	uint64_t features;

	if (fd < 0)
		return -1;
	memcpy(&features, state->data + offsetof(struct disk_header, incompatible_features), 8);
	features &= ~htobe64(INCOMPAT_ZONED);
	if (!write_all(fd, state->data, state->size) ||
	    pwrite(fd, &features, 8, offsetof(struct disk_header, incompatible_features)) != 8) {
		close(fd);
		return -1;
	}
	return fd;
}

bool qemu_check(const struct simdisk *state, char why[MODEL_WHYLEN])
{
	char path[64];
	char *argv[] = { (char *)"qemu-img", (char *)"check", (char *)"-q", (char *)"-f",
			 (char *)"qcow2",    (char *)"-U",    path,	    NULL };
	posix_spawn_file_actions_t actions;
	int fd, status, err;
	pid_t pid;

	if (!qemu_is_there())
		return true;
	fd = make_copy(state);
	if (fd < 0)
		return true;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), fd);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	err = posix_spawn(&pid, "/usr/bin/qemu-img", &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (err || waitpid(pid, &status, 0) != pid) {
		close(fd);
		return true;
	}
	close(fd);
	/* 0: nothing, 3: leaks alone */
	if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3))
		return true;
	snprintf(why, MODEL_WHYLEN, "D6: qemu-img check ended with %d (2: corruptions)",
		 WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	return false;
}
