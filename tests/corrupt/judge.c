/* SPDX-License-Identifier: MIT */
/*
 * The rules that the engine must keep on an image of any bytes. judge() opens it for inspection,
 * read-only, and for writing, and does each time what a user could do: check, map, read; write,
 * reset, finish, flush, close.
 *
 * 1. No crash and no sanitizer report: the program would end.
 * 2. No step takes more than a second of processor time or 64 MiB of memory. All memory is freed
 *    and the file closed.
 * 3. A refusal is a negative errno other than -ENOMEM, with a sentence. It changes nothing.
 * 4. An image that is open for reading is never written, extended, discarded or synced.
 * 5. Guest data is written, and space discarded, only outside the header and all tables. Metadata
 *    is written only where metadata of the same kind is.
 * 6. An image in which the check found no corruption has none after the writes, and what was
 *    written reads back. One with corruptions does not get more of them, except those that
 *    excused() allows.
 * 7. If a check was possible before the writes, it is possible after them.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "image.h"
#include "judge.h"
#include "memory.h"

#if defined(__has_feature)
#define HAS(feature) __has_feature(feature)
#else
#define HAS(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || HAS(address_sanitizer)
#define MAX_SECONDS 10.0
#else
#define MAX_SECONDS 1.0
#endif
#define MAX_BYTES  (64u << 20)
#define READ_WHOLE (64u << 10) /* a larger disk is read in samples */
#define SAMPLES	   64
#define CACHE	   (16u << 10) /* small: tables are evicted and read again */
#define MAX_STEPS  96

struct judging {
	struct ramdisk *d;
	struct verdict *v;
	struct qcow2 *q; /* open for writing */
	bool opening, reading, resizing;
	bool lenient;
};

static uint8_t buffer[1 << 16];

__attribute__((format(printf, 2, 3))) static void broken(struct judging *c, const char *fmt, ...)
{
	va_list ap;

	if (c->v->broken++)
		return;
	va_start(ap, fmt);
	vsnprintf(c->v->why, sizeof(c->v->why), fmt, ap);
	va_end(ap);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static bool meets(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

static bool names(const struct toptable *t, uint64_t mask, uint64_t off, uint64_t len, uint64_t cs)
{
	for (uint32_t i = 0; i < t->nr; i++)
		if (t->entry[i] & mask && meets(t->entry[i] & mask, cs, off, len))
			return true;
	return false;
}

enum {
	PLACE_HEADER = 1,
	PLACE_L1 = 2,
	PLACE_REFTABLE = 4,
	PLACE_WP = 8,
	PLACE_REFBLOCK = 16,
	PLACE_L2 = 32
};

/* Returns which metadata, of that which the engine knows, the range touches. */
static unsigned int places(const struct qcow2 *q, uint64_t off, uint64_t len)
{
	const struct qcow2_zoned *z = &q->info.zoned;
	uint64_t cs = q->cluster_size;
	unsigned int p = 0;

	if (off < cs)
		p |= PLACE_HEADER;
	if (meets(off, len, q->hdr.l1_offset, 8ull * q->hdr.l1_size))
		p |= PLACE_L1;
	if (meets(off, len, q->hdr.reftable_offset, q->hdr.reftable_clusters * cs))
		p |= PLACE_REFTABLE;
	if (z->layout && meets(off, len, z->zonedmeta_offset, 8ull * z->nr_zones))
		p |= PLACE_WP;
	if (names(&q->reftable, REFTABLE_OFFSET_MASK, off, len, cs))
		p |= PLACE_REFBLOCK;
	if (names(&q->l1, L1E_OFFSET_MASK, off, len, cs))
		p |= PLACE_L2;
	return p;
}

/* Judges each operation on the file before it is executed. */
static int watch(void *arg, const struct ram_op *op)
{
	struct judging *c = arg;
	unsigned int p;

	if (op->call == RAM_READ || c->resizing)
		return 0;
	if (c->reading) {
		broken(c, "a read-only open did %d at 0x%llx", op->call, (long long)op->off);
		return 0;
	}
	if (op->call == RAM_SYNC || op->call == RAM_TRUNCATE)
		return 0;
	if (c->opening) {
		if (op->off + op->len > 1ull << be32toh(*(uint32_t *)(c->d->bytes + 20)))
			broken(c, "opening wrote at 0x%llx", (long long)op->off);
		return 0;
	}
	p = places(c->q, op->off, op->len);
	if (op->call == RAM_FALLOCATE || op->flags & FILE_DATA) {
		if (p)
			broken(c, "%s at 0x%llx, %llu bytes, touches metadata (%x)",
			       op->call == RAM_WRITE ? "data" : "a discard", (long long)op->off,
			       (unsigned long long)op->len, p);
	} else if (p & (p - 1)) {
		broken(c, "metadata written at 0x%llx, %llu bytes, is of two kinds (%x)",
		       (long long)op->off, (unsigned long long)op->len, p);
	} else if (!p) {
		broken(c, "metadata written at 0x%llx, %llu bytes, where there is none",
		       (long long)op->off, (unsigned long long)op->len);
	}
	return 0;
}

static struct qcow2 *try_open(struct judging *c, unsigned int flags)
{
	struct qcow2_open_opts o = { .flags = flags, .cache_bytes = CACHE, .file = ram_open(c->d) };
	char err[QCOW2_ERRLEN];
	struct qcow2 *q = NULL;
	size_t ops = c->d->nr_ops;
	int ret;

	err[0] = 'x';
	err[1] = 0;
	ret = qcow2_open("image", &o, &q, err);
	c->v->opens++;
	if (!ret) {
		c->v->succeeded++;
		return q;
	}
	if (ret > 0 || ret == -ENOMEM)
		broken(c, "open answers %d", ret);
	if (strlen(err) < 20 || !strchr(err, ' ') || memchr(err, 0, sizeof(err)) == NULL)
		broken(c, "the refusal is \"%s\"", err);
	if (c->d->nr_ops != ops)
		broken(c, "a refused open wrote (%s)", err);
	if (c->d->open_files)
		broken(c, "a refused open left the file open");
	return NULL;
}

/* Judges what I/O on a damaged image returned: 0 or a valid -errno. */
static bool fine(struct judging *c, int ret, const char *what)
{
	if (ret > 0 || ret == -ENOMEM || ret < -4095)
		broken(c, "%s answers %d", what, ret);
	return !ret;
}

static void look(struct judging *c, struct qcow2 *q)
{
	const struct qcow2_info *info = qcow2_info(q);
	uint64_t size = info->size, off = 0;
	uint64_t allocated, length;

	fine(c, qcow2_file_sizes(q, &allocated, &length), "file_sizes");
	for (int i = 0; i < MAX_STEPS && off < size; i++) {
		struct qcow2_extent e;

		if (!fine(c, qcow2_map(q, off, size - off, &e), "map"))
			break;
		if (!e.len || e.len > size - off) {
			broken(c, "map answers %llu bytes", (unsigned long long)e.len);
			break;
		}
		off += e.len;
	}
	if (size <= READ_WHOLE)
		fine(c, qcow2_read(q, buffer, 0, size, 0), "read");
	for (uint64_t i = 0; i < SAMPLES && size > READ_WHOLE; i++)
		fine(c, qcow2_read(q, buffer, (size - 2048) / (SAMPLES - 1) * i, 2048, 0), "read");
	fine(c, qcow2_read(q, buffer, size, 512, 0), "read beyond the end");
	for (uint32_t i = 0; i < info->zoned.nr_zones && i < MAX_STEPS; i++)
		(void)qcow2_wp(q, i);
	(void)qcow2_dirty(q);
}

/* What a check found. */
struct found {
	struct qcow2_check_result res;
	uint64_t loose; /* references to clusters with refcount 0, or to no possible place */
};

static void note(void *arg, const char *line)
{
	struct found *f = arg;

	if (!strncmp(line, "ERROR", 5) &&
	    (strstr(line, " refcount=") || strstr(line, "beyond the end of the file") ||
	     strstr(line, "does not begin at a cluster")))
		f->loose++;
}

/* Runs qcow2_check(). False: it failed. */
static bool check(struct judging *c, struct qcow2 *q, struct found *f)
{
	memset(f, 0, sizeof(*f));
	return fine(c, qcow2_check(q, &f->res, note, f), "check");
}

/* Writes, and reads back if the image is sound. Returns whether the write succeeded. */
static bool write_at(struct judging *c, uint64_t off, uint64_t len)
{
	static uint8_t data[8192];
	static unsigned int version;

	version++;
	for (uint64_t i = 0; i < len; i++)
		data[i] = version + i / 512;
	if (!fine(c, qcow2_write(c->q, data, off, len, 0), "write"))
		return false;
	if (c->v->sound && (!fine(c, qcow2_read(c->q, buffer, off, len, 0), "read back") ||
			    memcmp(buffer, data, len)))
		broken(c, "what was written at 0x%llx reads back otherwise", (long long)off);
	return true;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Writes at the write pointers, where the image permits. */
static void advance(struct judging *c, uint32_t zone, uint64_t len)
{
	const struct qcow2_zoned *z = &c->q->info.zoned;
	uint64_t start = zone_start(c->q, zone), end = zone_writable_end(c->q, zone);
	bool conventional = zone < z->conventional_zones;
	uint64_t wp = conventional ? start : qcow2_wp(c->q, zone);

	if (wp < start || wp >= end)
		return;
	len = least(len, end - wp);
	if (write_at(c, wp, len) && !conventional)
		qcow2_wp_advance(c->q, zone, wp + len);
}

static void use_zones(struct judging *c)
{
	const struct qcow2_zoned *z = &c->q->info.zoned;
	uint32_t last = z->nr_zones - 1;

	for (uint32_t i = 0; i < 7 && i <= last; i++)
		advance(c, i, 1536);
	fine(c, qcow2_zone_reset(c->q, 1), "reset");
	advance(c, 1, 1024);
	fine(c, qcow2_zone_reset(c->q, last), "reset");
	if (z->nr_zones > 2 && z->conventional_zones <= 2)
		fine(c, qcow2_zone_finish(c->q, 2, qcow2_wp(c->q, 2)), "finish");
	fine(c, qcow2_flush(c->q), "flush");
	advance(c, 1, 2048);
	advance(c, last, 1024);
	fine(c, qcow2_zone_reset(c->q, 2), "reset");
	fine(c, qcow2_flush(c->q), "flush");
	advance(c, 2, 512);
}

static void use_disk(struct judging *c)
{
	uint64_t size = c->q->info.size, cs = c->q->cluster_size;

	for (uint64_t i = 0; i < 8; i++)
		if (i * cs + 512 <= size)
			write_at(c, i * cs, 512);
	fine(c, qcow2_flush(c->q), "flush");
	if (size >= 8192) {
		write_at(c, size / 2 & ~511ull, 4096);
		write_at(c, size - 1024, 1024);
	}
}

/*
 * Returns by how many findings the writes may make the image worse. An entry may point to a cluster
 * with refcount 0, or beyond the end of the file; the engine allocates that cluster sooner or
 * later, and then it has two owners. Only a full check at each open could prevent this, and no
 * qcow2 program does one. Each such reference may cause two more findings. Rule 5 still protects
 * metadata.
 */
static uint64_t excused(const struct found *before)
{
	return 2 * before->loose;
}

/* Grows the image by a zone, after the writes. If that is refused or fails, it is no worse. */
static void judge_resize(struct judging *c, const struct found *before, bool checked)
{
	char err[QCOW2_ERRLEN];
	struct found after;
	struct qcow2 *q;
	uint64_t size;

	c->resizing = true;
	q = try_open(c, QCOW2_RESIZE);
	if (q) {
		size = q->info.size + (q->zones ? q->info.zoned.zone_size : 4096);
		if (q->zones)
			size -= size % q->info.zoned.zone_size;
		fine(c, qcow2_resize(q, size, false, err), "resize");
		fine(c, qcow2_close(q), "close");
	}
	c->resizing = false;
	c->reading = true;
	q = try_open(c, QCOW2_RDONLY | QCOW2_INSPECT);
	c->reading = false;
	if (!q) {
		broken(c, "after a resize the image does not open");
		return;
	}
	if (checked && !check(c, q, &after))
		broken(c, "after a resize the image cannot be checked");
	else if (checked && !(c->lenient && before->res.corruptions) &&
		 after.res.corruptions > before->res.corruptions + excused(before))
		broken(c, "a resize made %llu corruptions of %llu",
		       (long long)after.res.corruptions, (long long)before->res.corruptions);
	qcow2_close(q);
}

static void judge_write(struct judging *c, const struct found *before, bool checked)
{
	struct found after;
	struct qcow2 *q;

	c->opening = true;
	c->q = try_open(c, 0);
	c->opening = false;
	if (!c->q)
		return;
	look(c, c->q);
	if (c->q->info.zoned.layout)
		use_zones(c);
	else
		use_disk(c);
	fine(c, qcow2_close(c->q), "close");
	if (c->d->open_files)
		broken(c, "close left the file open");
	c->reading = true;
	q = try_open(c, QCOW2_RDONLY | QCOW2_INSPECT);
	c->reading = false;
	if (!q) {
		broken(c, "after the writes the image does not open");
		return;
	}
	if (checked && !check(c, q, &after))
		broken(c, "after the writes the image cannot be checked");
	else if (checked && !(c->lenient && before->res.corruptions) &&
		 after.res.corruptions > before->res.corruptions + excused(before))
		broken(c, "%llu corruptions became %llu", (long long)before->res.corruptions,
		       (long long)after.res.corruptions);
	qcow2_close(q);
	if (checked)
		judge_resize(c, &after, checked);
}

void judge(struct ramdisk *d, unsigned int what, struct verdict *v)
{
	struct found before = { .loose = 0 };
	struct judging c = { .d = d, .v = v, .reading = true, .lenient = what & JUDGE_LENIENT };
	size_t held;
	double start = now();
	bool checked = false;
	struct qcow2 *q;

	memset(v, 0, sizeof(*v));
	d->hook = watch;
	d->hook_arg = &c;
	memory_mark();
	held = memory_now();
	q = try_open(&c, QCOW2_RDONLY | QCOW2_INSPECT);
	if (q) {
		checked = check(&c, q, &before);
		look(&c, q);
		fine(&c, qcow2_close(q), "close");
	}
	v->sound = checked && !before.res.corruptions && !before.res.check_errors;
	if (what & JUDGE_READ) {
		q = try_open(&c, QCOW2_RDONLY);
		if (q) {
			look(&c, q);
			fine(&c, qcow2_close(q), "close");
		}
	}
	if (d->open_files)
		broken(&c, "the file was left open");
	c.reading = false;
	if (what & JUDGE_WRITE)
		judge_write(&c, &before, checked);
	v->seconds = now() - start;
	v->bytes = memory_peak() - held;
	if (v->seconds > MAX_SECONDS)
		broken(&c, "it took %.2f s", v->seconds);
	if (v->bytes > MAX_BYTES)
		broken(&c, "it took %zu MiB", v->bytes >> 20);
	d->hook = NULL;
}
