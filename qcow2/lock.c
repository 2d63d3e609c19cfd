/* SPDX-License-Identifier: MIT */
/*
 * QEMU's image locks, byte for byte, so that znsd, a second znsd and any QEMU program exclude each
 * other. A program takes shared OFD locks: on byte 100 + P for each permission P that it uses, and
 * on 200 + P for each that it does not share. Then it tests 200 + P for each permission that it
 * uses and 100 + P for each that it does not share; a lock of another program there is a conflict.
 * (Observed with strace on qemu-io 7.2.)
 *
 * The locks last as long as the file descriptor. This file keeps no state. Any thread.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image.h"

#define USED_BASE     100
#define UNSHARED_BASE 200

enum { CONSISTENT_READ = 0, WRITE = 1, RESIZE = 3, PERMISSIONS = 4 };
#define BIT(n) (1u << (n))

static const char *const permission_name[PERMISSIONS] = {
	[CONSISTENT_READ] = "consistent read",
	[WRITE] = "write",
	[RESIZE] = "resize",
};

/* Whether file descriptor FD of process PID holds a lock, as /proc/PID/fdinfo shows it. */
static bool fd_holds_lock(const char *pid, const char *fd)
{
	char name[64], line[256];
	bool found = false;
	FILE *f;

	snprintf(name, sizeof(name), "/proc/%.16s/fdinfo/%.16s", pid, fd);
	f = fopen(name, "re");
	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f))
		found = !strncmp(line, "lock:", 5);
	fclose(f);
	return found;
}

static bool process_holds(const char *pid, const struct stat *image)
{
	char name[64];
	struct dirent *d;
	struct stat st;
	bool found = false;
	DIR *dir;

	snprintf(name, sizeof(name), "/proc/%.16s/fd", pid);
	dir = opendir(name);
	if (!dir)
		return false;
	while (!found && (d = readdir(dir)))
		found = !fstatat(dirfd(dir), d->d_name, &st, 0) && st.st_dev == image->st_dev &&
			st.st_ino == image->st_ino && fd_holds_lock(pid, d->d_name);
	closedir(dir);
	return found;
}

/* The PID of a process that holds locks on the file of FD; 0: none that we may inspect. */
static int holder(int fd)
{
	DIR *proc = opendir("/proc");
	struct dirent *d;
	struct stat st;
	int pid = 0;

	if (!proc)
		return 0;
	while (!pid && (d = readdir(proc)) && !fstat(fd, &st)) {
		int n = atoi(d->d_name);

		if (n > 0 && n != getpid() && process_holds(d->d_name, &st))
			pid = n;
	}
	closedir(proc);
	return pid;
}

static int conflict(int fd, const char *path, const char *shared, int permission,
		    char err[QCOW2_ERRLEN])
{
	int pid, n;

	/* Drop our own locks, which fdinfo would show as well; the caller closes the descriptor. */
	fcntl(fd, F_OFD_SETLK, &(struct flock){ .l_type = F_UNLCK, .l_whence = SEEK_SET });
	pid = holder(fd);
	n = snprintf(err, QCOW2_ERRLEN,
		     "Failed to get %s\"%s\" lock\nIs another process using the image [%s]?",
		     shared, permission_name[permission], path);
	if (pid && n < QCOW2_ERRLEN)
		snprintf(err + n, QCOW2_ERRLEN - n, " (process %d has it locked)", pid);
	return -EAGAIN;
}

static int take(int fd, int byte)
{
	struct flock l = {
		.l_type = F_RDLCK,
		.l_whence = SEEK_SET,
		.l_start = byte,
		.l_len = 1,
	};

	return fcntl(fd, F_OFD_SETLK, &l) ? -errno : 0;
}

static bool foreign(int fd, int byte)
{
	struct flock l = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = byte,
		.l_len = 1,
	};

	return !fcntl(fd, F_OFD_GETLK, &l) && l.l_type != F_UNLCK;
}

int image_lock(int fd, const char *path, bool writer, char err[QCOW2_ERRLEN])
{
	unsigned int used = BIT(CONSISTENT_READ) | (writer ? BIT(WRITE) | BIT(RESIZE) : 0);
	unsigned int unshared = BIT(WRITE) | BIT(RESIZE);
	int ret;

	for (int base = USED_BASE; base <= UNSHARED_BASE; base += UNSHARED_BASE - USED_BASE)
		for (int p = 0; p < PERMISSIONS; p++) {
			if (!((base == USED_BASE ? used : unshared) & BIT(p)))
				continue;
			ret = take(fd, base + p);
			if (ret == -EAGAIN || ret == -EACCES)
				return conflict(fd, path, base == USED_BASE ? "" : "shared ", p,
						err);
			/* The file system has no such locks: go on without, as QEMU does. */
			if (ret)
				return 0;
		}
	for (int p = 0; p < PERMISSIONS; p++)
		if (used & BIT(p) && foreign(fd, UNSHARED_BASE + p))
			return conflict(fd, path, "", p, err);
	for (int p = 0; p < PERMISSIONS; p++)
		if (unshared & BIT(p) && foreign(fd, USED_BASE + p))
			return conflict(fd, path, "shared ", p, err);
	return 0;
}
