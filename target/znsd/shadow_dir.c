/* SPDX-License-Identifier: MIT */
/*
 * Finds the directory for shadows. It must be on a tmpfs, so that a power cut removes a shadow
 * together with the page cache, and only we may write it. Both places that are tried usually
 * satisfy that; in /dev/shm others could have created the name first, so the owner is checked.
 *
 * One thread, before serving.
 */
#include <errno.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "shadow_dir.h"
#include "target.h"

static bool is_volatile(const char *dir)
{
	struct statfs fs;

	return !statfs(dir, &fs) && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

static bool is_ours(const char *dir)
{
	struct stat st;

	return !lstat(dir, &st) && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
	       !(st.st_mode & 077);
}

static bool usable(const char *dir)
{
	return (!mkdir(dir, 0700) || errno == EEXIST) && is_ours(dir) && is_volatile(dir) &&
	       !access(dir, R_OK | W_OK | X_OK);
}

const char *shadow_dir(const char *choice, char buf[SHADOW_DIR_LEN])
{
	const char *run = getenv("XDG_RUNTIME_DIR");

	if (choice)
		return strcmp(choice, "none") ? choice : NULL;
	if (run && *run == '/' && is_volatile(run) &&
	    snprintf(buf, SHADOW_DIR_LEN, "%s/znsd", run) < SHADOW_DIR_LEN && usable(buf))
		return buf;
	snprintf(buf, SHADOW_DIR_LEN, "/dev/shm/znsd-%u", geteuid());
	if (usable(buf))
		return buf;
	log_warn("no directory on a tmpfs for shadows: neither $XDG_RUNTIME_DIR/znsd nor %s can be "
		 "used, and a kill -9 can lose data that was not flushed; see --shadow",
		 buf);
	return NULL;
}
