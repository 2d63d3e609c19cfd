/* SPDX-License-Identifier: MIT */
/*
 * Recovery at open: finds the shadow that a killed process left for this image, decides whether it
 * can be believed, and has replay.c bring the image to the state that it describes.
 *
 * 1. The file is untrusted. It must be a regular file of our user, of the right length, that nobody
 *    else can write. It is copied to private memory before any byte of it is checked.
 * 2. It is used only if it belongs to the last opening of this image: identity, device, inode,
 *    generation and the autoclear bit must agree (shadow.c, 5).
 * 3. A shadow that is rejected is removed, NOTICE says why, and the image opens with the state of
 *    its last flush. A shadow that could not be replayed because memory or the disk failed is kept.
 *
 * At open, before another thread has the image.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plant.h"
#include "shadow.h"

/* Why the file of FD cannot be a shadow of ours; NULL: it can. */
static const char *foreign_file(int fd, size_t bytes)
{
	struct stat st;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_nlink != 1)
		return "it is no plain file";
	if (st.st_uid != geteuid() || st.st_mode & 077)
		return "others could have written it";
	if ((uint64_t)st.st_size != bytes)
		return "its length is wrong";
	return NULL;
}

static bool read_all(int fd, char *buf, size_t len)
{
	while (len) {
		ssize_t n = read(fd, buf, len);

		if (n <= 0 && !(n < 0 && errno == EINTR))
			return false;
		if (n > 0) {
			buf += n;
			len -= n;
		}
	}
	return true;
}

/* Why the head of a shadow does not belong to this image; NULL: it does. */
static const char *mismatch(const struct qcow2 *q, struct shadow_head *h)
{
	struct shadow_head want = { .magic = 0 };
	const size_t at = offsetof(struct shadow_head, version);

	shadow_head_fill(q, &want);
	if (atomic_load(&h->magic) != SHADOW_MAGIC)
		return "it was not finished";
	if (h->sum != shadow_head_sum(h))
		return "its head is damaged";
	if (plant(generation_not_compared)) {
		want.generation = h->generation;
		want.sum = h->sum;
	}
	if (h->generation != want.generation ||
	    (!(q->hdr.autoclear & AUTOCLEAR_SHADOW) && !plant(autoclear_not_looked_at)))
		return "the image was opened for writing since";
	if (memcmp((char *)h + at, (char *)&want + at, sizeof(want) - at - sizeof(want.log)))
		return "it describes another image";
	return NULL;
}

/* Checks and replays SHADOW, which is in private memory. */
static int check_and_replay(struct qcow2 *q, void *shadow, char notice[QCOW2_ERRLEN],
			    char why[QCOW2_ERRLEN])
{
	const char *no = mismatch(q, shadow);
	uint32_t zones = 0;
	int err;

	if (no) {
		snprintf(why, QCOW2_ERRLEN, "%s", no);
		return -EINVAL;
	}
	err = replay(q, shadow, &zones, why);
	if (!err && zones)
		shadow_tell(notice,
			    "%u zones are taken over as a process that was killed has left them in "
			    "memory",
			    zones);
	return err;
}

int shadow_recover(struct qcow2 *q, const char *dir, char notice[QCOW2_ERRLEN])
{
	size_t bytes = shadow_bytes(q->info.zoned.nr_zones);
	char name[SHADOW_NAME], why[QCOW2_ERRLEN] = "";
	const char *no;
	void *copy;
	int dirfd, fd, err = -EINVAL;

	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0)
		return 0; /* shadow_prepare() will say so */
	shadow_file_name(q, name);
	fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) {
		close(dirfd);
		return 0;
	}
	copy = malloc(bytes);
	no = foreign_file(fd, bytes);
	if (!no && copy && !read_all(fd, copy, bytes))
		no = "it cannot be read";
	if (no)
		snprintf(why, sizeof(why), "%s", no);
	else
		err = copy ? check_and_replay(q, copy, notice, why) : -ENOMEM;
	if (err == -EINVAL) {
		shadow_tell(notice,
			    "%.120s/%s, left by a process that was killed, is not used: %.120s; "
			    "what was "
			    "not flushed is lost",
			    dir, name, why);
		unlinkat(dirfd, name, 0);
		err = 0;
	}
	free(copy);
	close(fd);
	close(dirfd);
	return err;
}
