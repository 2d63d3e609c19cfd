/* SPDX-License-Identifier: MIT */
/*
 * qcow2_check() on a file in memory: what the shell tests cannot see, above all that its time is
 * bounded and that it writes nothing. Each kind of damage is in tests/integration/znsimg_check.sh,
 * compared with stock qemu-img.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <endian.h>

#include "qcow2.h"
#include "recfile.h"

#define MIB	 (1ull << 20)
#define CLUSTER	 4096u
#define REFBLOCK (2 * CLUSTER)
#define POINTERS (3 * CLUSTER)
#define L1	 (4 * CLUSTER)
#define END	 (5 * CLUSTER) /* of a fresh image */
#define COPIED	 (1ull << 63)

/* A zoned image of 64 zones with clusters of 4 KiB, and the lines that its checks reported. */
struct fixture {
	struct rec_disk disk;
	unsigned int lines;
	char last[256];
};

static void put64(struct rec_disk *d, uint64_t off, uint64_t value)
{
	value = htobe64(value);
	if (off + 8 > d->size)
		rec_resize(d, off + 8);
	memcpy(d->bytes + off, &value, 8);
}

static void put_refcount(struct rec_disk *d, uint64_t cluster, uint16_t count)
{
	count = htobe16(count);
	memcpy(d->bytes + REFBLOCK + cluster * 2, &count, 2);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct qcow2_create_opts o = {
		.size = 64 * MIB,
		.cluster_size = CLUSTER,
		.zoned = true,
		.zone = { .zone_size = MIB },
	};
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];

	if (qcow2_create("ram", &o, rec_open(&f->disk), warn, err))
		return -1;
	rec_forget(&f->disk);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	rec_free(&f->disk);
	free(f);
	return 0;
}

static void note_line(void *arg, const char *line)
{
	struct fixture *f = arg;

	f->lines++;
	snprintf(f->last, sizeof(f->last), "%s", line);
}

static struct qcow2_check_result check(struct fixture *f)
{
	struct qcow2_open_opts opts = {
		.flags = QCOW2_RDONLY | QCOW2_NO_LOCK | QCOW2_INSPECT,
	};
	struct qcow2_check_result res;
	char err[QCOW2_ERRLEN];
	struct qcow2 *q;

	opts.file = rec_open(&f->disk);
	f->lines = 0;
	f->disk.frozen = true;
	if (qcow2_open("ram", &opts, &q, err))
		fail_msg("%s", err);
	f->disk.reads = 0;
	assert_int_equal(qcow2_check(q, &res, note_line, f), 0);
	qcow2_close(q);
	assert_int_equal(f->disk.broken_in, 0);
	return res;
}

/* Appends a cluster with refcount COUNT; returns its offset. */
static uint64_t add_cluster(struct rec_disk *d, uint16_t count)
{
	uint64_t off = (d->size + CLUSTER - 1) / CLUSTER * CLUSTER;

	rec_resize(d, off + CLUSTER);
	put_refcount(d, off / CLUSTER, count);
	return off;
}

static void a_fresh_image_is_sound(void **state)
{
	struct fixture *f = *state;
	struct qcow2_check_result res = check(f);

	assert_int_equal(res.corruptions, 0);
	assert_int_equal(res.leaks, 0);
	assert_int_equal(res.check_errors, 0);
	assert_int_equal(res.image_end_offset, END);
	assert_int_equal(res.total_clusters, 64 * MIB / CLUSTER);
	assert_int_equal(res.allocated_clusters, 0);
	assert_int_equal(f->lines, 0);
}

static void the_write_pointer_table_is_no_leak(void **state)
{
	struct fixture *f = *state;

	put_refcount(&f->disk, POINTERS / CLUSTER, 0);
	assert_int_equal(check(f).corruptions, 1);
	assert_string_equal(f->last, "ERROR cluster 3 refcount=0 reference=1");
	put_refcount(&f->disk, POINTERS / CLUSTER, 2);
	assert_int_equal(check(f).leaks, 1);
	assert_string_equal(f->last, "Leaked cluster 3 refcount=2 reference=1");
}

static void a_shared_table_is_said_even_with_a_right_refcount(void **state)
{
	struct fixture *f = *state;
	uint64_t l2 = add_cluster(&f->disk, 1);

	put64(&f->disk, L1, COPIED | l2);
	put64(&f->disk, l2, POINTERS); /* data over the write pointers */
	put_refcount(&f->disk, POINTERS / CLUSTER, 2);
	assert_int_equal(check(f).corruptions, 1);
	assert_string_equal(f->last, "ERROR cluster 3 holds a table and something else");
}

static void a_shared_data_cluster_needs_a_snapshot(void **state)
{
	struct fixture *f = *state;
	uint64_t l2 = add_cluster(&f->disk, 1), data = add_cluster(&f->disk, 2);

	put64(&f->disk, L1, COPIED | l2);
	put64(&f->disk, l2, data);
	put64(&f->disk, l2 + 8, data);
	assert_int_equal(check(f).corruptions, 1);
	assert_non_null(strstr(f->last, "is used 2 times, but there are no snapshots"));
}

static void compressed_clusters_may_share_and_span(void **state)
{
	struct fixture *f = *state;
	uint64_t l2 = add_cluster(&f->disk, 1), data = add_cluster(&f->disk, 2);
	uint64_t next = add_cluster(&f->disk, 1);
	struct qcow2_check_result res;

	put64(&f->disk, L1, COPIED | l2);
	/* shift 62 - (12 - 8) = 58: sectors less one above the offset */
	put64(&f->disk, l2, 1ull << 62 | 1ull << 58 | (data + 100));
	put64(&f->disk, l2 + 8, 1ull << 62 | 1ull << 58 | (next - 512));
	res = check(f);
	assert_int_equal(res.corruptions + res.leaks, 0);
	assert_int_equal(res.compressed_clusters, 2);
	assert_int_equal(res.allocated_clusters, 2);
}

static void missing_data_below_a_write_pointer_is_sound(void **state)
{
	struct fixture *f = *state;

	put64(&f->disk, POINTERS + 5 * 8, 5 * MIB + 512 * 1024);
	assert_int_equal(check(f).corruptions, 0);
}

static void an_unreadable_table_is_an_error_and_the_rest_is_checked(void **state)
{
	struct fixture *f = *state;
	uint64_t l2 = add_cluster(&f->disk, 1);
	struct qcow2_check_result res;

	put64(&f->disk, L1, COPIED | l2);
	put64(&f->disk, POINTERS + 5 * 8, 7 * MIB);
	f->disk.fail_read = l2 + 100;
	res = check(f);
	assert_int_equal(res.check_errors, 1);
	assert_int_equal(res.corruptions, 1);
}

static void findings_beyond_a_thousand_are_counted_only(void **state)
{
	struct fixture *f = *state;
	uint64_t first = add_cluster(&f->disk, 1);

	for (unsigned int i = 1; i < 1500; i++)
		add_cluster(&f->disk, 1);
	assert_int_equal(check(f).leaks, 1500);
	assert_int_equal(f->lines, 1001);
	assert_non_null(strstr(f->last, "not shown"));
	assert_int_equal(first, END);
}

/* 200 snapshots share the active L2 tables: each is walked once. */
static void snapshots_cost_no_second_walk(void **state)
{
	struct fixture *f = *state;
	struct rec_disk *d = &f->disk;
	const unsigned int snapshots = 200, tables = 32;
	uint64_t l2[32], table, l1;
	struct qcow2_check_result res;

	for (unsigned int i = 0; i < tables; i++) {
		l2[i] = add_cluster(d, snapshots + 1);
		put64(d, L1 + i * 8, l2[i]);
	}
	table = add_cluster(d, 1);
	add_cluster(d, 1); /* 200 entries of 40 bytes */
	for (unsigned int s = 0; s < snapshots; s++) {
		l1 = add_cluster(d, 1);
		put64(d, table + s * 40, l1);
		put64(d, table + s * 40 + 8, (uint64_t)tables << 32);
		for (unsigned int i = 0; i < tables; i++)
			put64(d, l1 + i * 8, l2[i]);
	}
	put64(d, 60, (uint64_t)snapshots << 32); /* nb_snapshots, and the offset's upper half */
	put64(d, 64, table);
	res = check(f);
	assert_int_equal(res.corruptions + res.leaks + res.check_errors, 0);
	/* Each L2 table is read twice (mapping, flags), each L1 table once; not 200 times. */
	assert_true(d->reads < 3 * d->size);
}

static void what_overlaps_is_not_followed(void **state)
{
	struct fixture *f = *state;
	struct rec_disk *d = &f->disk;
	uint64_t table = add_cluster(d, 1);

	for (unsigned int s = 0; s < 100; s++) { /* all with one L1 table: the active one */
		put64(d, table + s * 40, L1);
		put64(d, table + s * 40 + 8, 32ull << 32);
	}
	put64(d, 60, 100ull << 32);
	put64(d, 64, table);
	assert_true(check(f).corruptions > 0);
	assert_true(d->reads < 4 * d->size);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(a_fresh_image_is_sound),
		T(the_write_pointer_table_is_no_leak),
		T(a_shared_table_is_said_even_with_a_right_refcount),
		T(a_shared_data_cluster_needs_a_snapshot),
		T(compressed_clusters_may_share_and_span),
		T(missing_data_below_a_write_pointer_is_sound),
		T(an_unreadable_table_is_an_error_and_the_rest_is_checked),
		T(findings_beyond_a_thousand_are_counted_only),
		T(snapshots_cost_no_second_walk),
		T(what_overlaps_is_not_followed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
