/* SPDX-License-Identifier: MIT */
/*
 * QEMU's image locks, byte for byte, so that znsd, a second znsd and any QEMU program exclude each
 * other. A program takes shared OFD locks: on byte 100 + P for each permission P it uses, on
 * 200 + P for each it will not share. Then it probes: 200 + P of what it uses, 100 + P of what it
 * does not share; a foreign lock there is a conflict. (Seen with strace on qemu-io 7.2.)
 *
 * The locks live as long as the descriptor. No state of ours; any thread.
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

/* Whether the open file FD of process PID holds a lock; fdinfo shows those of its owner. */
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

/* A process that holds locks on the file of FD, among those we may look at; 0: none seen. */
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

	/* Our own locks would be seen as a holder's; the descriptor is about to be closed. */
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
			/* A file system without such locks: QEMU goes on there, too. */
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
