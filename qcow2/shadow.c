/* SPDX-License-Identifier: MIT */
/*
 * The shadow: a journal in shared memory that survives a kill -9 of the process.
 *
 * Between two flushes the mapping, the resets and the write pointers are only in the memory of
 * the process, while the data is in the page cache already. The page cache survives a killed
 * process, so its metadata must, too: it is recorded in a small file on a tmpfs that is mapped
 * shared. A power cut takes the shadow together with the page cache, so the shadow never
 * describes data that is lost. docs/image.md, "The shadow", has the whole story; recover.c reads
 * a shadow at the next open.
 *
 *	head | one write pointer per zone | log: MAP, RESET, FINISH, SPARE since the last flush
 *
 * 1. Recording is a store to memory, not a system call. A write into a mapped zone stores only its
 *    write pointer, which it does anyway: q->wp *is* the shadow's array.
 * 2. The log is a ring. The bytes of an entry are stored before the word that makes it count.
 *    Entries are appended, and dropped, under q->lock. When a whole flush has succeeded those are
 *    dropped that were there when it began: what was recorded while it ran is for the next one.
 * 3. A MAP is recorded before data is written to the cluster, and the pointer moves after the data
 *    was written. A reset sets the pointer back and then records RESET; a finish records FINISH
 *    and then sets the pointer. So replay.c can tell what happened if the kill comes between any
 *    two stores.
 * 4. The file's blocks are allocated before it is mapped, so that no store can hit a full tmpfs
 *    (SIGBUS).
 * 5. A shadow belongs to one opening of one file: to its UUID, device and inode, and to a
 *    generation that every opening with a shadow raises in the image before anything else. An
 *    autoclear bit says that nobody has written the image without a shadow since: QEMU and our
 *    other programs clear it.
 *
 * The image lock keeps two processes from using one shadow: it is taken first, and the kernel drops
 * it with the process.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "plant.h"
#include "shadow.h"

#define ROOM 8u /* entries: more than any step records between two calls of shadow_nearly_full() */

struct shadow {
	int dir;
	char name[SHADOW_NAME];
	size_t bytes;
	struct shadow_head *head;
	struct shadow_entry *log;
};

void shadow_tell(char notice[QCOW2_ERRLEN], const char *fmt, ...)
{
	size_t n = strlen(notice);
	va_list ap;

	if (n && n + 2 < QCOW2_ERRLEN)
		n += snprintf(notice + n, QCOW2_ERRLEN - n, "; ");
	va_start(ap, fmt);
	vsnprintf(notice + n, QCOW2_ERRLEN - n, fmt, ap);
	va_end(ap);
}

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ull;
	return h ^ h >> 29;
}

uint64_t shadow_entry_sum(const struct shadow_entry *e, uint32_t serial)
{
	uint64_t h = mix(serial, (uint64_t)e->kind << 32 | e->zone);

	return mix(mix(mix(h, e->off), e->host), e->len);
}

uint64_t shadow_head_sum(const struct shadow_head *h)
{
	const uint8_t *p = (const uint8_t *)&h->version, *end = (const uint8_t *)&h->sum;
	uint64_t sum = 0, word;

	for (; p < end; p += sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		sum = mix(sum, word);
	}
	return sum;
}

void shadow_head_fill(const struct qcow2 *q, struct shadow_head *h)
{
	struct stat st = { .st_ino = 1 };

	if (q->file->fd >= 0)
		fstat(q->file->fd, &st);
	h->version = SHADOW_VERSION;
	h->cluster_bits = q->cluster_bits;
	memcpy(h->uuid, q->info.uuid, QCOW2_UUID);
	h->generation = q->hdr.generation;
	h->dev = st.st_dev;
	h->ino = st.st_ino;
	h->size = q->info.size;
	h->zone_size = q->info.zoned.zone_size;
	h->nr_zones = q->info.zoned.nr_zones;
	h->max_log = SHADOW_ENTRIES;
	h->sum = shadow_head_sum(h);
}

/* --- the file --- */

void shadow_file_name(const struct qcow2 *q, char out[SHADOW_NAME])
{
	struct shadow_head h = { .magic = 0 };
	int n = 0;

	shadow_head_fill(q, &h);
	for (int i = 0; i < QCOW2_UUID; i++)
		n += sprintf(out + n, "%02x", h.uuid[i]);
	sprintf(out + n, "-%llx-%llx.shadow", (unsigned long long)h.dev, (unsigned long long)h.ino);
}

/* Opens DIR. -1, and a sentence in NOTICE, if no shadow can be in it. */
static int open_dir(const char *dir, char notice[QCOW2_ERRLEN])
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct statfs fs;

	if (fd < 0) {
		shadow_tell(notice, "no shadow is kept, and kill -9 can lose data: %.200s: %s", dir,
			    strerror(errno));
		return -1;
	}
	if (!fstatfs(fd, &fs) && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC))
		return fd;
	shadow_tell(
		notice,
		"no shadow is kept, and kill -9 can lose data: %.200s is not on a tmpfs, where a "
		"shadow must be to vanish with the power",
		dir);
	close(fd);
	return -1;
}

/* Creates the file in its full size, in place of an old one, and maps it. 0 or an errno. */
static int map_new(struct shadow *s)
{
	int fd, err;
	void *p;

	if (unlinkat(s->dir, s->name, 0) && errno != ENOENT)
		return errno;
	fd = openat(s->dir, s->name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno;
	err = posix_fallocate(fd, 0, s->bytes);
	if (!err) {
		p = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		err = p == MAP_FAILED ? errno : 0;
	}
	close(fd);
	if (err) {
		unlinkat(s->dir, s->name, 0);
		return err;
	}
	s->head = p;
	return 0;
}

/* Whether our header extension has a generation, or can be extended to have one. */
static bool has_room(const struct qcow2 *q)
{
	const struct header *h = &q->hdr;

	if (h->ext_znsd_len >= sizeof(struct disk_znsd))
		return true;
	return h->ext_znsd_len == QCOW2_UUID && !h->backing_offset &&
	       h->ext_end == h->ext_znsd + sizeof(struct disk_ext) + QCOW2_UUID &&
	       h->ext_end + sizeof(uint64_t) + sizeof(struct disk_ext) <= q->cluster_size;
}

void shadow_prepare(struct qcow2 *q, const char *dir, char notice[QCOW2_ERRLEN])
{
	struct shadow *s;
	int err, fd;

	if (!has_room(q)) {
		shadow_tell(notice,
			    "no shadow is kept, and kill -9 can lose data: the image's header has "
			    "no room for a generation");
		return;
	}
	fd = open_dir(dir, notice);
	if (fd < 0)
		return;
	s = calloc(1, sizeof(*s));
	err = ENOMEM;
	if (!s)
		goto failed;
	s->dir = fd;
	s->bytes = shadow_bytes(q->info.zoned.nr_zones);
	shadow_file_name(q, s->name);
	err = map_new(s);
	if (err)
		goto failed;
	s->log = shadow_log(s->head, q->info.zoned.nr_zones);
	q->shadow = s;
	return;

failed:
	shadow_tell(notice, "no shadow is kept, and kill -9 can lose data: %.200s: %s", dir,
		    strerror(err));
	close(fd);
	free(s);
}

/*
 * Extends our header extension of 16 bytes, which is the last one. A power cut between the two
 * writes changes nothing: a small generation reads as the end marker of the extensions.
 */
static int grow_extension(struct qcow2 *q)
{
	struct {
		uint64_t generation;
		struct disk_ext end;
	} tail = { htobe64(1), { 0, 0 } };
	uint32_t len = htobe32(sizeof(struct disk_znsd));
	int err = file_write(q->file, &tail, sizeof(tail), q->hdr.ext_end, 0);

	if (!err)
		err = file_sync(q->file);
	if (!err)
		err = file_write(q->file, &len, sizeof(len),
				 q->hdr.ext_znsd + offsetof(struct disk_ext, len), 0);
	if (err)
		return err;
	q->hdr.ext_znsd_len = sizeof(struct disk_znsd);
	q->hdr.ext_end += sizeof(tail.generation);
	return 0;
}

/* Raises the generation, then sets the bit. After the first write no older shadow matches. */
static int declare(struct qcow2 *q)
{
	const uint64_t bit = htobe64(AUTOCLEAR_SHADOW);
	uint64_t next = htobe64(q->hdr.generation + 1);
	int err = 0;

	if (q->hdr.ext_znsd_len < sizeof(struct disk_znsd))
		err = grow_extension(q);
	if (!err)
		err = file_write(q->file, &next, sizeof(next),
				 q->hdr.ext_znsd + sizeof(struct disk_ext) +
					 offsetof(struct disk_znsd, generation),
				 0);
	if (!err)
		err = file_write(q->file, &bit, sizeof(bit),
				 offsetof(struct disk_header, autoclear_features), 0);
	if (!err)
		err = file_sync(q->file);
	if (err)
		return err;
	q->hdr.generation++;
	q->hdr.autoclear = AUTOCLEAR_SHADOW;
	return 0;
}

int shadow_begin(struct qcow2 *q)
{
	struct shadow *s = q->shadow;
	_Atomic uint64_t *wp;
	int err;

	if (!s)
		return 0;
	err = declare(q);
	if (err)
		return err;
	shadow_head_fill(q, s->head);
	wp = shadow_wps(s->head);
	for (uint32_t i = 0; i < q->info.zoned.nr_zones; i++)
		atomic_init(&wp[i], atomic_load(&q->wp[i]));
	free(q->wp);
	q->wp = wp;
	atomic_store_explicit(&s->head->magic, SHADOW_MAGIC, memory_order_release);
	return 0;
}

void shadow_end(struct qcow2 *q, bool clean)
{
	struct shadow *s = q->shadow;
	const uint64_t none = 0;
	bool begun;

	if (!s)
		return;
	begun = atomic_load(&s->head->magic);
	if (q->wp == shadow_wps(s->head))
		q->wp = NULL;
	munmap(s->head, s->bytes);
	clean |= plant(shadow_removed_after_an_error);
	/* Clear the bit, so that a copy of the file does not claim it; without sync or error. */
	if (begun && clean &&
	    file_write(q->file, &none, sizeof(none),
		       offsetof(struct disk_header, autoclear_features), 0))
		clean = false;
	if (clean || !begun)
		unlinkat(s->dir, s->name, 0);
	close(s->dir);
	free(s);
	q->shadow = NULL;
}

/* --- the log --- */

static uint64_t log_word(const struct shadow *s)
{
	return atomic_load_explicit(&s->head->log, memory_order_relaxed);
}

static void log_store(struct shadow *s, uint32_t first, uint32_t end)
{
	atomic_store_explicit(&s->head->log, (uint64_t)first << 32 | end, memory_order_release);
}

static void append(struct qcow2 *q, struct shadow_entry e)
{
	struct shadow *s = q->shadow;
	uint32_t first, end;

	if (!s)
		return;
	first = shadow_first(log_word(s));
	end = (uint32_t)log_word(s);
	assert(end - first < SHADOW_ENTRIES);
	e.sum = shadow_entry_sum(&e, end);
	if (plant(entry_counted_early))
		log_store(s, first, end + 1);
	*shadow_entry(s->log, end) = e;
	log_store(s, first, end + 1);
}

void shadow_map(struct qcow2 *q, uint64_t off, uint64_t host, uint64_t len)
{
	if (plant(mapping_noted_askew))
		host += q->cluster_size;
	if (q->shadow && !plant(mapping_not_noted))
		append(q, (struct shadow_entry){ .kind = SHADOW_MAP,
						 .zone = (uint32_t)(off >> q->zone_bits),
						 .off = off,
						 .host = host,
						 .len = len });
}

void shadow_reset(struct qcow2 *q, uint32_t zone)
{
	append(q, (struct shadow_entry){ .kind = SHADOW_RESET, .zone = zone });
}

void shadow_finish(struct qcow2 *q, uint32_t zone, uint64_t wp)
{
	append(q, (struct shadow_entry){ .kind = SHADOW_FINISH, .zone = zone, .off = wp });
}

void shadow_spare(struct qcow2 *q, uint64_t host, uint64_t len)
{
	if (q->shadow && !shadow_nearly_full(q) && !plant(spare_not_noted))
		append(q, (struct shadow_entry){ .kind = SHADOW_SPARE, .host = host, .len = len });
}

bool shadow_nearly_full(const struct qcow2 *q)
{
	return q->shadow && shadow_count(log_word(q->shadow)) > SHADOW_ENTRIES - ROOM;
}

bool shadow_half_full(const struct qcow2 *q)
{
	return q->shadow && shadow_count(log_word(q->shadow)) > SHADOW_ENTRIES / 2;
}

uint32_t shadow_next(const struct qcow2 *q)
{
	return q->shadow ? (uint32_t)log_word(q->shadow) : 0;
}

void shadow_flushed(struct qcow2 *q, uint32_t next)
{
	if (q->shadow)
		log_store(q->shadow, next, (uint32_t)log_word(q->shadow));
}
