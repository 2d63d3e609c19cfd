/* SPDX-License-Identifier: MIT */
/*
 * Against the stock qemu-img and qemu-io: what they write, we read; what we write, they find sound
 * and read back; and who has an image locked, keeps the other out. Skipped when they are missing.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "common.h"

static char dir[64];

/* The whole disk at PATH as qemu-img reads it. */
static uint8_t *qemu_reads(const char *path, size_t size)
{
	uint8_t *raw = malloc(size);
	char name[128];
	FILE *f;

	assert_int_equal(
		run("qemu-img convert -t unsafe -T unsafe -f qcow2 -O raw %s %s/raw", path, dir),
		0);
	snprintf(name, sizeof(name), "%s/raw", dir);
	f = fopen(name, "rb");
	assert_non_null(f);
	assert_int_equal(fread(raw, 1, size, f), size);
	fclose(f);
	return raw;
}

static struct qcow2 *open_path(const char *path, unsigned int flags)
{
	struct qcow2_open_opts o = { .flags = flags };
	char err[QCOW2_ERRLEN];
	struct qcow2 *q = NULL;

	if (qcow2_open(path, &o, &q, err))
		fail_msg("%s", err);
	return q;
}

/* Reads the disk in pieces of odd sizes, so that every cluster is cut somewhere. */
static void expect_same(struct qcow2 *q, const uint8_t *want, size_t size)
{
	static const size_t steps[] = { 512, 7 * 512, 65536, 1536, 300 * 1024 };
	uint8_t *got = malloc(size);
	size_t off = 0;

	for (unsigned int i = 0; off < size; i++) {
		size_t n = steps[i % 5] < size - off ? steps[i % 5] : size - off;

		assert_int_equal(qcow2_read(q, got + off, off, n, 0), 0);
		off += n;
	}
	for (off = 0; off < size; off++)
		if (got[off] != want[off])
			fail_msg("byte %zu is 0x%02x, 0x%02x was expected", off, got[off],
				 want[off]);
	free(got);
}

/* An image of 4 MiB with clusters of every kind. */
static void make_mixed(const char *path, uint64_t cluster, unsigned int refbits, const char *comp)
{
	uint64_t c = cluster < 65536 ? 65536 : cluster;

	assert_int_equal(run("qemu-img create -q -f qcow2 -o "
			     "cluster_size=%llu,refcount_bits=%u,compression_type=%s %s 16M",
			     (unsigned long long)cluster, refbits, comp, path),
			 0);
	/* Compressed writes first: only to clusters not written before. */
	assert_int_equal(
		run("qemu-io -t unsafe -c 'write -c -P 65 0 %llu' -c 'write -c -P 66 %llu %llu' "
		    "-c 'write -c -P 67 %llu %llu' %s",
		    (unsigned long long)cluster, (unsigned long long)(c * 2),
		    (unsigned long long)cluster, (unsigned long long)(c * 3),
		    (unsigned long long)cluster, path),
		0);
	assert_int_equal(run("qemu-io -t unsafe -c 'write -P 7 9M 300k' -c 'write -P 9 8M 100k' "
			     "-c 'write -P 5 15871k 512' -c 'write -z 9M 64k' "
			     "-c 'write -z -u 9344k 64k' -c 'write -z 12M 1M' "
			     "-c 'discard 8M 64k' -c 'write -P 3 13M 1537' %s",
			     path),
			 0);
}

static const struct {
	uint64_t cluster;
	unsigned int refbits;
	const char *comp;
} geometries[] = {
	{ 512, 16, "zlib" },	 { 512, 1, "zstd" },   { 4096, 2, "zlib" },
	{ 65536, 16, "zstd" },	 { 16384, 8, "zlib" }, { 1048576, 64, "zstd" },
	{ 2097152, 32, "zlib" },
};

#define NR_GEOMETRIES (sizeof(geometries) / sizeof(geometries[0]))

static void every_cluster_kind_of_qemu_reads_right(void **state)
{
	char path[128];

	(void)state;
	snprintf(path, sizeof(path), "%s/mixed.qcow2", dir);
	for (size_t i = 0; i < NR_GEOMETRIES; i++) {
		uint8_t *want;
		struct qcow2 *q;

		make_mixed(path, geometries[i].cluster, geometries[i].refbits, geometries[i].comp);
		want = qemu_reads(path, 16 * MIB);
		q = open_path(path, QCOW2_RDONLY);
		assert_int_equal(qcow2_info(q)->cluster_bits,
				 __builtin_ctzll(geometries[i].cluster));
		assert_int_equal(qcow2_info(q)->refcount_bits, geometries[i].refbits);
		expect_same(q, want, 16 * MIB);
		assert_int_equal(qcow2_close(q), 0);
		free(want);
	}
}

static void plain_images_of_qemu_take_writes(void **state)
{
	char path[128];

	(void)state;
	snprintf(path, sizeof(path), "%s/mixed.qcow2", dir);
	for (size_t i = 0; i < NR_GEOMETRIES; i++) {
		uint8_t *want, *got;
		struct qcow2 *q;

		make_mixed(path, geometries[i].cluster, geometries[i].refbits, geometries[i].comp);
		want = qemu_reads(path, 16 * MIB);
		q = open_path(path, QCOW2_UNSAFE);
		for (uint64_t off = 1024; off + 5000 < 16 * MIB; off += 1333 * 512) {
			uint8_t *p = pattern(off, 5000, i);

			assert_int_equal(qcow2_write(q, p, off, 5000, 0), 0);
			memcpy(want + off, p, 5000);
			free(p);
		}
		assert_int_equal(qcow2_flush(q), 0);
		expect_same(q, want, 16 * MIB);
		assert_int_equal(qcow2_close(q), 0);
		assert_int_equal(run("qemu-img check %s", path), 0);
		got = qemu_reads(path, 16 * MIB);
		assert_memory_equal(got, want, 16 * MIB);
		free(got);
		free(want);
	}
}

static void version_2_and_snapshots_read_and_refuse_writes(void **state)
{
	struct qcow2_open_opts o = { 0 };
	char path[128], err[QCOW2_ERRLEN];
	struct qcow2 *q;
	uint8_t *want;

	(void)state;
	snprintf(path, sizeof(path), "%s/old.qcow2", dir);
	assert_int_equal(run("qemu-img create -q -f qcow2 -o compat=0.10 %s 4M && "
			     "qemu-io -t unsafe -c 'write -P 7 1M 100k' %s && qemu-img snapshot -c "
			     "one %s && "
			     "qemu-io -t unsafe -c 'write -P 8 1050k 100k' %s",
			     path, path, path, path),
			 0);
	want = qemu_reads(path, 4 * MIB);
	q = open_path(path, QCOW2_RDONLY);
	assert_int_equal(qcow2_info(q)->version, 2);
	assert_int_equal(qcow2_info(q)->nb_snapshots, 1);
	expect_same(q, want, 4 * MIB);
	assert_int_equal(qcow2_close(q), 0);
	free(want);
	assert_int_equal(qcow2_open(path, &o, &q, err), -ENOTSUP);
	assert_non_null(strstr(err, "snapshots"));
}

static void what_cannot_be_served_can_be_inspected(void **state)
{
	static const struct {
		const char *opts, *says;
	} table[] = {
		{ "extended_l2=on", "extended L2" },
		{ "data_file=%s/data.raw", "external file" },
		{ "backing_file=%s/base.qcow2,backing_fmt=qcow2", "backing file" },
	};
	struct qcow2_open_opts o = { .flags = QCOW2_RDONLY };
	char path[128], opts[256], err[QCOW2_ERRLEN];
	uint8_t byte[512];
	struct qcow2 *q;

	(void)state;
	assert_int_equal(run("qemu-img create -q -f qcow2 %s/base.qcow2 4M", dir), 0);
	snprintf(path, sizeof(path), "%s/odd.qcow2", dir);
	for (size_t i = 0; i < 3; i++) {
		const char *at = strstr(table[i].opts, "%s");

		if (at)
			snprintf(opts, sizeof(opts), "%.*s%s%s", (int)(at - table[i].opts),
				 table[i].opts, dir, at + 2);
		else
			snprintf(opts, sizeof(opts), "%s", table[i].opts);
		assert_int_equal(run("qemu-img create -q -f qcow2 -o %s %s 4M", opts, path), 0);
		assert_int_equal(qcow2_open(path, &o, &q, err), -ENOTSUP);
		if (!strstr(err, table[i].says))
			fail_msg("'%s' was expected in: %s", table[i].says, err);
		q = open_path(path, QCOW2_RDONLY | QCOW2_INSPECT);
		assert_int_equal(qcow2_read(q, byte, 0, 512, 0), -ENOTSUP);
		if (i == 1)
			assert_non_null(strstr(qcow2_info(q)->data_file, "data.raw"));
		if (i == 2) {
			assert_non_null(strstr(qcow2_info(q)->backing_file, "base.qcow2"));
			assert_string_equal(qcow2_info(q)->backing_format, "qcow2");
		}
		assert_int_equal(qcow2_close(q), 0);
	}
}

/* A number in the JSON of qemu-img check; 0 when it is not there. */
static unsigned long long check_says(const char *path, const char *key)
{
	char cmd[512], line[256], want[64];
	unsigned long long value = 0;
	FILE *p;

	snprintf(cmd, sizeof(cmd), "qemu-img check --output=json %s 2>/dev/null", path);
	snprintf(want, sizeof(want), "\"%s\": ", key);
	p = popen(cmd, "r");
	while (p && fgets(line, sizeof(line), p)) {
		const char *at = strstr(line, want);

		if (at)
			value = strtoull(at + strlen(want), NULL, 10);
	}
	if (p)
		pclose(p);
	return value;
}

/* A copy of PATH that QEMU takes: incompatible feature bit 5 cleared. */
static void without_bit5(const char *path, char copy[128])
{
	uint8_t byte;
	int fd;

	snprintf(copy, 128, "%s/copy.qcow2", dir);
	assert_int_equal(run("cp --sparse=always %s %s", path, copy), 0);
	fd = open(copy, O_RDWR);
	assert_int_equal(pread(fd, &byte, 1, 79), 1);
	byte &= ~0x20;
	assert_int_equal(pwrite(fd, &byte, 1, 79), 1);
	close(fd);
}

/* Stock check must find the write-pointer table leaked and nothing else; and read WANT. */
static void expect_qemu_agrees(const char *path, const uint8_t *want, size_t size,
			       uint64_t table_clusters)
{
	char copy[128];
	uint8_t *got;

	without_bit5(path, copy);
	assert_int_equal(run("qemu-img check %s", copy), 3);
	assert_int_equal(check_says(copy, "leaks"), table_clusters);
	assert_int_equal(check_says(copy, "corruptions"), 0);
	got = qemu_reads(copy, size);
	assert_memory_equal(got, want, size);
	free(got);
}

static void zones_we_write_are_sound_for_qemu(void **state)
{
	char path[128], warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];

	(void)state;
	snprintf(path, sizeof(path), "%s/zoned.qcow2", dir);
	for (size_t i = 0; i < NR_GEOMETRIES; i++) {
		struct qcow2_create_opts o = {
			.size = 15 * MIB, /* the last zone is short */
			.cluster_size = geometries[i].cluster,
			.refcount_bits = geometries[i].refbits,
			.zoned = true,
			.zone = { .zone_size = 2 * MIB, .zone_capacity = 1900 * KIB },
		};
		uint8_t *want = calloc(1, 15 * MIB);
		struct qcow2 *q;

		assert_int_equal(qcow2_create(path, &o, NULL, warn, err), 0);
		q = open_path(path, QCOW2_UNSAFE);
		for (unsigned int z = 0; z < 8; z++) {
			uint64_t start = z * 2 * MIB, cap = z < 7 ? 1900 * KIB : 1 * MIB;

			for (uint64_t off = 0; off < cap; off += cap / 4) {
				put(q, start + off, cap / 4, z);
				qcow2_wp_advance(q, z, start + off + cap / 4);
				if (z == 3)
					assert_int_equal(qcow2_flush(q), 0);
			}
			if (z == 2 || z == 5 || z == 7)
				assert_int_equal(qcow2_zone_reset(q, z), 0);
			if (z == 5) {
				put(q, start, 70 * KIB, 99);
				qcow2_wp_advance(q, z, start + 70 * KIB);
				assert_int_equal(qcow2_zone_finish(q, z, start + 70 * KIB), 0);
			}
			if (z != 2 && z != 5 && z != 7) {
				uint8_t *p = pattern(start, cap, z);

				memcpy(want + start, p, cap);
				free(p);
			} else if (z == 5) {
				uint8_t *p = pattern(start, 70 * KIB, 99);

				memcpy(want + start, p, 70 * KIB);
				free(p);
			}
		}
		expect_same(q, want, 15 * MIB);
		assert_int_equal(qcow2_close(q), 0);
		expect_qemu_agrees(path, want, 15 * MIB, 1);
		q = open_path(path, QCOW2_RDONLY);
		expect_same(q, want, 15 * MIB);
		assert_int_equal(qcow2_wp(q, 5), 5 * 2 * MIB + 1900 * KIB);
		assert_int_equal(qcow2_wp(q, 7), 14 * MIB);
		assert_int_equal(qcow2_close(q), 0);
		free(want);
	}
}

/* Makes a zoned image out of a plain one: a counted table, the extension, the bit. */
static void make_zoned(const char *path, struct qcow2_zoned *z)
{
	struct qcow2 *q = open_path(path, QCOW2_UNSAFE);
	uint8_t ext[8 + 64] = { 0 }, bits;
	uint64_t host, end, wp;
	int fd;

	pthread_mutex_lock(&q->lock);
	assert_int_equal(alloc_table(q, &host), 0);
	end = q->hdr.ext_end;
	pthread_mutex_unlock(&q->lock);
	assert_int_equal(qcow2_close(q), 0);
	z->zonedmeta_offset = host;
	ext[1] = 0x7a;
	ext[2] = 0x62;
	ext[3] = 0x64;
	ext[7] = layout_encode(z, ext + 8);
	fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, ext, sizeof(ext), end), sizeof(ext));
	for (uint32_t i = 0; i < z->nr_zones; i++) {
		wp = htobe64(i * z->zone_size);
		assert_int_equal(pwrite(fd, &wp, 8, host + 8 * i), 8);
	}
	assert_int_equal(pread(fd, &bits, 1, 79), 1);
	bits |= 0x20;
	assert_int_equal(pwrite(fd, &bits, 1, 79), 1);
	close(fd);
}

static void zones_over_any_layout_of_qemu_take_writes(void **state)
{
	char path[128];

	(void)state;
	snprintf(path, sizeof(path), "%s/mixed.qcow2", dir);
	for (size_t i = 0; i < NR_GEOMETRIES; i++) {
		struct qcow2_zoned z = {
			.layout = QCOW2_LAYOUT_V11,
			.zone_size = 4 * MIB,
			.zone_capacity = 4 * MIB,
			.nr_zones = 4,
		};
		uint8_t *want;
		struct qcow2 *q;

		make_mixed(path, geometries[i].cluster, geometries[i].refbits, geometries[i].comp);
		want = qemu_reads(path, 16 * MIB);
		make_zoned(path, &z);
		q = open_path(path, QCOW2_UNSAFE);
		expect_same(q, want, 16 * MIB);
		for (uint64_t off = 8 * MIB; off < 11 * MIB; off += 32 * KIB) {
			uint8_t *p = pattern(off, 32 * KIB, i);

			assert_int_equal(qcow2_write(q, p, off, 32 * KIB, 0), 0);
			memcpy(want + off, p, 32 * KIB);
			free(p);
		}
		qcow2_wp_advance(q, 2, 11 * MIB);
		expect_same(q, want, 16 * MIB);
		assert_int_equal(qcow2_flush(q), 0);
		assert_int_equal(qcow2_zone_reset(q, 0), 0);
		memset(want, 0, 4 * MIB);
		assert_int_equal(qcow2_zone_finish(q, 2, 11 * MIB), 0);
		memset(want + 11 * MIB, 0, 1 * MIB);
		assert_int_equal(qcow2_zone_finish(q, 3, 13 * MIB + 1024), 0);
		memset(want + 13 * MIB + 1024, 0, 3 * MIB - 1024);
		expect_same(q, want, 16 * MIB);
		assert_int_equal(qcow2_close(q), 0);
		expect_qemu_agrees(path, want, 16 * MIB, 1);
		free(want);
	}
}

/* Starts qemu-io on PATH and waits until it has the image open. */
static FILE *qemu_holds(const char *path, const char *how)
{
	char cmd[256], line[256] = "";
	FILE *p;

	/* It answers "read" only after the open; the pipe's other end is its standard input. */
	snprintf(cmd, sizeof(cmd), "qemu-io %s %s > %s/qemu.out 2>&1", how, path, dir);
	p = popen(cmd, "w");
	assert_non_null(p);
	fputs("read 0 512\n", p);
	fflush(p);
	for (int i = 0; i < 500 && !strstr(line, "read 512"); i++) {
		char name[128];
		FILE *f;

		usleep(10000);
		snprintf(name, sizeof(name), "%s/qemu.out", dir);
		f = fopen(name, "r");
		line[0] = 0;
		if (f && !fgets(line, sizeof(line), f))
			line[0] = 0;
		if (f)
			fclose(f);
		if (strstr(line, "qemu-io> "))
			memmove(line, line + 9, strlen(line + 9) + 1);
	}
	return p;
}

static void locks_exclude_as_qemus_do(void **state)
{
	static const struct {
		const char *qemu;
		unsigned int flags;
		int ret;
		const char *says;
	} table[] = {
		{ "", 0, -EAGAIN, "Failed to get \"write\" lock" },
		{ "", QCOW2_RDONLY, -EAGAIN, "Failed to get shared \"write\" lock" },
		{ "", QCOW2_RDONLY | QCOW2_NO_LOCK, 0, NULL },
		{ "-r", 0, -EAGAIN, "Failed to get \"write\" lock" },
		{ "-r", QCOW2_RDONLY, 0, NULL },
		{ "-U -r", QCOW2_RDONLY, 0, NULL },
	};
	char path[128], err[QCOW2_ERRLEN], hint[256];

	(void)state;
	snprintf(path, sizeof(path), "%s/lock.qcow2", dir);
	assert_int_equal(run("qemu-img create -q -f qcow2 %s 1M", path), 0);
	snprintf(hint, sizeof(hint), "Is another process using the image [%s]?", path);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct qcow2_open_opts o = { .flags = table[i].flags };
		FILE *p = qemu_holds(path, table[i].qemu);
		struct qcow2 *q = NULL;
		int ret = qcow2_open(path, &o, &q, err);

		if (!ret)
			qcow2_close(q);
		pclose(p);
		assert_int_equal(ret, table[i].ret);
		if (ret && (!strstr(err, table[i].says) || !strstr(err, hint)))
			fail_msg("%s", err);
		if (ret)
			assert_non_null(strstr(err, "process "));
	}
}

static void qemu_is_kept_out_and_so_is_a_second_znsd(void **state)
{
	struct qcow2_open_opts w = { 0 }, r = { .flags = QCOW2_RDONLY };
	char path[128], err[QCOW2_ERRLEN];
	struct qcow2 *q, *second;

	(void)state;
	snprintf(path, sizeof(path), "%s/lock.qcow2", dir);
	assert_int_equal(run("qemu-img create -q -f qcow2 %s 1M", path), 0);
	q = open_path(path, QCOW2_UNSAFE);
	assert_int_not_equal(run("qemu-io -t unsafe -c 'read 0 512' %s", path), 0);
	assert_int_not_equal(run("qemu-io -r -c 'read 0 512' %s", path), 0);
	assert_int_equal(run("qemu-io -U -r -c 'read 0 512' %s", path), 0);
	assert_int_equal(qcow2_open(path, &w, &second, err), -EAGAIN);
	assert_int_equal(qcow2_open(path, &r, &second, err), -EAGAIN);
	assert_int_equal(qcow2_close(q), 0);

	q = open_path(path, QCOW2_RDONLY);
	assert_int_not_equal(run("qemu-io -t unsafe -c 'write 0 512' %s", path), 0);
	assert_int_equal(run("qemu-io -r -c 'read 0 512' %s", path), 0);
	assert_int_equal(qcow2_open(path, &w, &second, err), -EAGAIN);
	assert_int_equal(qcow2_open(path, &r, &second, err), 0);
	assert_int_equal(qcow2_close(second), 0);
	assert_int_equal(qcow2_close(q), 0);
	assert_int_equal(run("qemu-io -t unsafe -c 'write 0 512' %s", path), 0);
}

static void direct_io_and_unsafe_keep_the_data(void **state)
{
	static const unsigned int flags[] = { QCOW2_DIRECT, QCOW2_UNSAFE, QCOW2_LARGE_DIRECT };
	char path[128], warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];

	(void)state;
	snprintf(path, sizeof(path), "%s/direct.qcow2", dir);
	for (int i = 0; i < 3; i++) {
		struct qcow2_create_opts o = {
			.size = 16 * MIB,
			.zoned = true,
			.zone = { .zone_size = 4 * MIB },
		};
		struct qcow2 *q;
		void *buf = NULL;

		assert_int_equal(qcow2_create(path, &o, NULL, warn, err), 0);
		q = open_path(path, flags[i]);
		assert_int_equal(posix_memalign(&buf, 4096, 64 * KIB), 0);
		memset(buf, 0x5a, 64 * KIB);
		assert_int_equal(qcow2_write(q, buf, 0, 64 * KIB, 0), 0);
		put(q, 64 * KIB, 3 * 512, 7); /* unaligned: through the page cache */
		qcow2_wp_advance(q, 0, 64 * KIB + 3 * 512);
		assert_int_equal(qcow2_flush(q), 0);
		memset(buf, 0, 64 * KIB);
		assert_int_equal(qcow2_read(q, buf, 0, 64 * KIB, 0), 0);
		assert_int_equal(((char *)buf)[65535], 0x5a);
		expect(q, 64 * KIB, 3 * 512, 7);
		assert_int_equal(qcow2_close(q), 0);
		free(buf);
	}
}

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/znsd-interop.XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	return run("rm -rf %s", dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_cluster_kind_of_qemu_reads_right),
		cmocka_unit_test(plain_images_of_qemu_take_writes),
		cmocka_unit_test(version_2_and_snapshots_read_and_refuse_writes),
		cmocka_unit_test(what_cannot_be_served_can_be_inspected),
		cmocka_unit_test(zones_we_write_are_sound_for_qemu),
		cmocka_unit_test(zones_over_any_layout_of_qemu_take_writes),
		cmocka_unit_test(locks_exclude_as_qemus_do),
		cmocka_unit_test(qemu_is_kept_out_and_so_is_a_second_znsd),
		cmocka_unit_test(direct_io_and_unsafe_keep_the_data),
	};

	if (!have_qemu()) {
		printf("qemu-img and qemu-io are missing (package qemu-utils)\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
