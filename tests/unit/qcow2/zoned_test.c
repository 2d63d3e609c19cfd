/* SPDX-License-Identifier: MIT */
/* Zones through the library: write, flush, reopen, reset, finish, quarantine. */
#include "common.h"

static void write_flush_reopen_read(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);

	(void)state;
	put(q, 0, 12 * KIB, 1);
	put(q, 64 * KIB, 48 * KIB, 2);
	qcow2_wp_advance(q, 0, 12 * KIB);
	qcow2_wp_advance(q, 1, 112 * KIB);
	assert_true(qcow2_dirty(q));
	assert_int_equal(qcow2_flush(q), 0);
	assert_false(qcow2_dirty(q));
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);

	q = open_image(d, QCOW2_RDONLY);
	assert_int_equal(qcow2_wp(q, 0), 12 * KIB);
	assert_int_equal(qcow2_wp(q, 1), 112 * KIB);
	assert_int_equal(qcow2_wp(q, 2), 128 * KIB);
	expect(q, 0, 12 * KIB, 1);
	expect(q, 64 * KIB, 48 * KIB, 2);
	expect_zeroes(q, 12 * KIB, 52 * KIB);
	expect_zeroes(q, 112 * KIB, 912 * KIB);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

static void first_write_maps_the_zone_so_that_the_next_needs_no_lock(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);
	uint8_t *p = pattern(0, 4096, 1);

	(void)state;
	assert_int_equal(qcow2_write(q, p, 0, 4096, QCOW2_NOWAIT), -EAGAIN);
	assert_int_equal(qcow2_write(q, p, 0, 4096, 0), 0);
	pthread_mutex_lock(&q->lock); /* whoever needs the lock now would hang */
	for (uint64_t off = 4096; off < 48 * KIB; off += 4096)
		assert_int_equal(qcow2_write(q, p, off, 4096, QCOW2_NOWAIT), 0);
	assert_int_equal(qcow2_read(q, p, 0, 4096, QCOW2_NOWAIT), 0);
	pthread_mutex_unlock(&q->lock);
	assert_int_equal(qcow2_write(q, p, 48 * KIB, 4096, 0), -EINVAL);
	assert_int_equal(qcow2_write(q, p, 44 * KIB, 8192, 0), -EINVAL);
	free(p);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

static void nothing_but_data_is_written_before_a_flush(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);

	(void)state;
	ram_forget(d);
	put(q, 0, 48 * KIB, 1);
	qcow2_wp_advance(q, 0, 48 * KIB);
	assert_int_equal(qcow2_zone_reset(q, 0), 0);
	put(q, 0, 8 * KIB, 2);
	qcow2_wp_advance(q, 0, 8 * KIB);
	for (size_t i = 0; i < d->nr_ops; i++)
		if (d->ops[i].call == RAM_WRITE)
			assert_true(d->ops[i].flags & FILE_DATA);
	assert_int_equal(ram_count(d, RAM_SYNC), 0);
	expect(q, 0, 8 * KIB, 2);
	expect_zeroes(q, 8 * KIB, 56 * KIB);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

static void syncs_cost_what_changed(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);

	(void)state;
	ram_forget(d);
	assert_int_equal(qcow2_flush(q), 0);
	assert_int_equal(d->nr_ops, 0);

	put(q, 0, 4096, 1);
	assert_int_equal(qcow2_flush(q), 0);
	ram_forget(d);
	put(q, 4096, 4096, 1); /* mapped: data alone */
	assert_int_equal(qcow2_flush(q), 0);
	assert_int_equal(ram_count(d, RAM_SYNC), 1);
	assert_int_equal(ram_count(d, RAM_WRITE), 1);

	ram_forget(d);
	put(q, 8192, 4096, 1);
	qcow2_wp_advance(q, 0, 12 * KIB);
	assert_int_equal(qcow2_flush(q), 0);
	assert_int_equal(ram_count(d, RAM_SYNC), 2); /* data, write pointer */
	assert_int_equal(ram_count(d, RAM_WRITE), 2);

	ram_forget(d);
	assert_int_equal(qcow2_flush(q), 0);
	assert_int_equal(d->nr_ops, 0);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

/* What a write in the record is about. */
enum what { W_DATA, W_WP, W_REFS, W_REFTABLE, W_L1, W_L2, W_HEADER };

static enum what classify(const struct qcow2 *q, const struct ram_op *op)
{
	if (op->flags & FILE_DATA)
		return W_DATA;
	if (op->off < q->cluster_size)
		return W_HEADER;
	if (op->off >= q->info.zoned.zonedmeta_offset &&
	    op->off < q->info.zoned.zonedmeta_offset + 8 * q->info.zoned.nr_zones)
		return W_WP;
	if (op->off >= q->hdr.l1_offset && op->off < q->hdr.l1_offset + 8 * q->hdr.l1_size)
		return W_L1;
	if (op->off >= q->reftable.off && op->off < q->reftable.off + q->cluster_size)
		return W_REFTABLE;
	for (uint32_t i = 0; i < q->reftable.nr; i++)
		if (q->reftable.entry[i] == op->off)
			return W_REFS;
	return W_L2;
}

/* The record as a string: a letter a write, '|' a sync. Runs of the same letter are one. */
static void story(const struct qcow2 *q, const struct ramdisk *d, char *out, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < d->nr_ops && n < size - 1; i++) {
		char c = '?';

		if (d->ops[i].call == RAM_SYNC)
			c = '|';
		else if (d->ops[i].call == RAM_WRITE)
			c = "dwrt1mh"[classify(q, &d->ops[i])];
		else if (d->ops[i].call == RAM_FALLOCATE)
			c = 'p';
		else
			c = 'g';
		if (!n || out[n - 1] != c || c == '|')
			out[n++] = c;
	}
	out[n] = 0;
}

static void the_law_step_by_step(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);
	char s[128];

	(void)state;
	ram_forget(d);
	put(q, 0, 48 * KIB, 1);
	qcow2_wp_advance(q, 0, 48 * KIB);
	assert_int_equal(qcow2_flush(q), 0);
	story(q, d, s, sizeof(s));
	/* grow the file, data; refcounts; L2; L1; write pointer */
	assert_string_equal(s, "gdr|m|1|w|");

	ram_forget(d);
	assert_int_equal(qcow2_zone_reset(q, 0), 0);
	put(q, 0, 8 * KIB, 2);
	qcow2_wp_advance(q, 0, 8 * KIB);
	assert_int_equal(qcow2_flush(q), 0);
	story(q, d, s, sizeof(s));
	/* new clusters; start and refcounts; map and data; new pointer; then the old clusters */
	assert_string_equal(s, "gdwr|m|w|pr");

	ram_forget(d);
	put(q, 8 * KIB, 4 * KIB, 2);
	assert_int_equal(qcow2_zone_finish(q, 0, 12 * KIB), 0);
	assert_int_equal(qcow2_flush(q), 0);
	story(q, d, s, sizeof(s));
	assert_string_equal(s, "dm|w|pr");
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

static void reset_clusters_are_not_reused_before_the_flush(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);
	struct qcow2_extent before, after, again;

	(void)state;
	put(q, 0, 48 * KIB, 1);
	qcow2_wp_advance(q, 0, 48 * KIB);
	assert_int_equal(qcow2_flush(q), 0);
	assert_int_equal(qcow2_map(q, 0, 48 * KIB, &before), 0);
	assert_int_equal(before.len, 48 * KIB);
	assert_int_equal(qcow2_zone_reset(q, 0), 0);
	assert_int_equal(qcow2_wp(q, 0), 0);
	put(q, 0, 48 * KIB, 2);
	assert_int_equal(qcow2_map(q, 0, 48 * KIB, &after), 0);
	assert_true(after.host_off >= before.host_off + 48 * KIB ||
		    after.host_off + 48 * KIB <= before.host_off);
	/* The old data is untouched: a crash now shows it whole. */
	{
		struct ramdisk *crash = ram_copy(d);
		struct qcow2 *c = open_image(crash, QCOW2_RDONLY);

		assert_int_equal(qcow2_wp(c, 0), 48 * KIB);
		expect(c, 0, 48 * KIB, 1);
		assert_int_equal(qcow2_close(c), 0);
		ram_free(crash);
	}
	assert_int_equal(qcow2_flush(q), 0);
	/* Now the first place is free, read as zeroes, and is the best fit. */
	put(q, 64 * KIB, 4 * KIB, 3);
	assert_int_equal(qcow2_map(q, 64 * KIB, 4 * KIB, &again), 0);
	assert_int_equal(again.host_off, before.host_off);
	expect_zeroes(q, 68 * KIB, 44 * KIB);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

static void space_does_not_grow_with_resets(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);
	uint64_t size = 0;

	(void)state;
	for (unsigned int i = 0; i < 50; i++) {
		put(q, 0, 48 * KIB, i);
		qcow2_wp_advance(q, 0, 48 * KIB);
		assert_int_equal(qcow2_flush(q), 0);
		assert_int_equal(qcow2_zone_reset(q, 0), 0);
		assert_int_equal(qcow2_flush(q), 0);
		if (i == 1)
			size = d->size;
	}
	assert_int_equal(d->size, size);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

static void finish_zeroes_what_lies_above_the_pointer(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0);
	struct qcow2_extent e;

	(void)state;
	put(q, 0, 48 * KIB, 1); /* of which only 5 KiB count: the rest is junk of a crash */
	assert_int_equal(qcow2_zone_finish(q, 0, 5 * KIB), 0);
	assert_int_equal(qcow2_wp(q, 0), 48 * KIB);
	expect(q, 0, 5 * KIB, 1);
	expect_zeroes(q, 5 * KIB, 59 * KIB);
	assert_int_equal(qcow2_map(q, 8 * KIB, 40 * KIB, &e), 0);
	assert_false(e.allocated);
	assert_int_equal(qcow2_zone_finish(q, 1, 64 * KIB), 0); /* an empty one */
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	q = open_image(d, QCOW2_RDONLY);
	assert_int_equal(qcow2_wp(q, 0), 48 * KIB);
	assert_int_equal(qcow2_wp(q, 1), 112 * KIB);
	expect(q, 0, 5 * KIB, 1);
	expect_zeroes(q, 5 * KIB, 59 * KIB);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

static void conventional_zones_take_writes_anywhere(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d;
	struct qcow2 *q;

	(void)state;
	o.zone.conventional_zones = 2;
	d = make_image(&o);
	q = open_image(d, 0);
	put(q, 30 * KIB, 4 * KIB, 1);
	put(q, 4 * KIB, 3 * KIB, 2);
	put(q, 36 * KIB, 12 * KIB, 3);
	assert_int_equal(qcow2_zone_reset(q, 0), -EINVAL);
	assert_int_equal(qcow2_zone_finish(q, 1, 64 * KIB), -EINVAL);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	q = open_image(d, 0);
	expect_zeroes(q, 0, 4 * KIB);
	expect(q, 4 * KIB, 3 * KIB, 2);
	expect_zeroes(q, 7 * KIB, 23 * KIB);
	expect(q, 30 * KIB, 4 * KIB, 1);
	expect(q, 36 * KIB, 12 * KIB, 3);
	assert_int_equal(qcow2_wp(q, 1), 64 * KIB);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

/* Fails the N-th call of a kind. */
struct nth {
	enum ram_call call;
	int n, err;
};

static int fail_nth(void *arg, const struct ram_op *op)
{
	struct nth *f = arg;

	return op->call == f->call && f->n-- == 0 ? f->err : 0;
}

static int advance_during_sync(void *arg, const struct ram_op *op)
{
	struct qcow2 *q = arg;

	/* What is written while the data is being synced is not covered by that sync. */
	if (op->call == RAM_SYNC)
		qcow2_wp_advance(q, 0, qcow2_wp(q, 0) + 512);
	return 0;
}

static void a_pointer_never_leads_the_data_that_was_synced(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, 0), *r;

	(void)state;
	put(q, 0, 48 * KIB, 1);
	qcow2_wp_advance(q, 0, 4 * KIB);
	d->hook = advance_during_sync;
	d->hook_arg = q;
	assert_int_equal(qcow2_flush(q), 0);
	d->hook = NULL;
	assert_true(qcow2_wp(q, 0) > 4 * KIB);
	assert_true(qcow2_dirty(q));
	r = open_image(d, QCOW2_RDONLY);
	assert_int_equal(qcow2_wp(r, 0), 4 * KIB);
	assert_int_equal(qcow2_close(r), 0);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

static void a_failed_sync_poisons_the_image(void **state)
{
	(void)state;
	for (int n = 0; n < 4; n++) {
		struct qcow2_create_opts o = small_zoned();
		struct ramdisk *d = make_image(&o);
		struct qcow2 *q = open_image(d, 0);
		struct nth f = { RAM_SYNC, n, -EIO };
		uint8_t byte[512] = { 1 };

		put(q, 0, 4 * KIB, 1);
		qcow2_wp_advance(q, 0, 4 * KIB);
		d->hook = fail_nth;
		d->hook_arg = &f;
		assert_int_equal(qcow2_flush(q), -EIO);
		d->hook = NULL;
		ram_forget(d);
		assert_int_equal(qcow2_flush(q), -EROFS);
		assert_int_equal(qcow2_write(q, byte, 4 * KIB, 512, 0), -EROFS);
		assert_int_equal(qcow2_zone_reset(q, 0), -EROFS);
		assert_int_equal(qcow2_zone_finish(q, 0, 0), -EROFS);
		expect(q, 0, 4 * KIB, 1);
		assert_int_equal(qcow2_close(q), -EIO);
		assert_int_equal(d->nr_ops, 0);
		ram_free(d);
	}
}

static void a_failed_write_is_made_good_by_the_next_flush(void **state)
{
	int failed = 0, n;

	(void)state;
	for (n = 0; n < 30; n++) {
		struct qcow2_create_opts o = small_zoned();
		struct ramdisk *d = make_image(&o);
		struct qcow2 *q = open_image(d, 0);
		struct nth f = { RAM_WRITE, n, -ENOSPC };

		put(q, 0, 48 * KIB, 1);
		qcow2_wp_advance(q, 0, 48 * KIB);
		assert_int_equal(qcow2_flush(q), 0);
		assert_int_equal(qcow2_zone_reset(q, 0), 0);
		put(q, 0, 8 * KIB, 2);
		qcow2_wp_advance(q, 0, 8 * KIB);
		put(q, 64 * KIB, 8 * KIB, 3);
		qcow2_wp_advance(q, 1, 72 * KIB);
		d->hook = fail_nth;
		d->hook_arg = &f;
		failed += qcow2_flush(q) == -ENOSPC;
		d->hook = NULL;
		assert_int_equal(qcow2_close(q), 0);
		expect_sound(d, 0);
		q = open_image(d, QCOW2_RDONLY);
		assert_int_equal(qcow2_wp(q, 0), 8 * KIB);
		assert_int_equal(qcow2_wp(q, 1), 72 * KIB);
		expect(q, 0, 8 * KIB, 2);
		expect(q, 64 * KIB, 8 * KIB, 3);
		assert_int_equal(qcow2_close(q), 0);
		ram_free(d);
		if (f.n > 0)
			break;
	}
	assert_true(failed >= 4);
	assert_true(n < 30);
}

/* Does what OP did to a file, on another disk. */
static void redo(struct ramdisk *d, const struct ram_op *op)
{
	struct file *f = ram_open(d);

	if (op->call == RAM_WRITE)
		assert_int_equal(file_write(f, op->data, op->len, op->off, 0), 0);
	else if (op->call == RAM_TRUNCATE)
		assert_int_equal(file_truncate(f, op->len), 0);
	else if (op->call == RAM_FALLOCATE)
		assert_int_equal(file_discard(f, op->off, op->len), 0);
	file_close(f);
	ram_forget(d);
}

/* Whatever a crash left: no corruption, and below zone 0's pointer what one round wrote, whole. */
static void expect_survived(struct ramdisk *d, unsigned int rounds, const char *what, size_t at)
{
	struct qcow2 *q = open_image(d, QCOW2_RDONLY | QCOW2_INSPECT);
	struct qcow2_check_result res = { 0 };
	uint64_t wp = qcow2_wp(q, 0);
	uint8_t *got = malloc(48 * KIB);
	bool match = false;

	assert_int_equal(qcow2_check(q, &res, say, &res), 0);
	if (res.corruptions)
		fail_msg("%s %zu: %llu corruptions", what, at, (unsigned long long)res.corruptions);
	assert_int_equal(qcow2_read(q, got, 0, 48 * KIB, 0), 0);
	for (unsigned int v = 0; v < rounds && !match; v++) {
		uint8_t *want = pattern(0, 48 * KIB, v);

		match = !memcmp(got, want, wp);
		free(want);
	}
	if (!match)
		fail_msg("%s %zu: the data below the pointer is not what was written", what, at);
	free(got);
	assert_int_equal(qcow2_close(q), 0);
}

/*
 * Replays what was recorded on D over BASE and stops after every call: as a kill (all calls before
 * it happened), and as power cuts (of what was not synced: that call alone; all but that call).
 */
static void crash_everywhere(struct ramdisk *base, const struct ramdisk *d, unsigned int rounds)
{
	for (size_t i = 0, synced = 0; i < d->nr_ops; i++) {
		struct ramdisk *alone, *without;

		if (d->ops[i].call == RAM_SYNC) {
			for (; synced < i; synced++)
				redo(base, &d->ops[synced]);
			expect_survived(base, rounds, "synced up to", i);
			continue;
		}
		alone = ram_copy(base);
		redo(alone, &d->ops[i]);
		expect_survived(alone, rounds, "only", i);
		ram_free(alone);
		without = ram_copy(base);
		for (size_t k = synced; k < d->nr_ops && d->ops[k].call != RAM_SYNC; k++) {
			if (k == i)
				expect_survived(without, rounds, "up to", i);
			else
				redo(without, &d->ops[k]);
		}
		expect_survived(without, rounds, "all but", i);
		ram_free(without);
	}
}

static void a_crash_after_any_call_finds_a_sound_image(void **state)
{
	static const struct {
		uint32_t cluster, refbits;
	} table[] = { { 4096, 16 }, { 512, 64 } };

	(void)state;
	for (int t = 0; t < 2; t++) {
		struct qcow2_create_opts o = small_zoned();
		struct ramdisk *d, *base;
		struct qcow2 *q;
		unsigned int v = 0;

		o.cluster_size = table[t].cluster;
		o.refcount_bits = table[t].refbits;
		d = make_image(&o);
		base = ram_copy(d);
		d->keep_data = true;
		q = open_image(d, 0);
		for (unsigned int i = 0; i < 2; i++) {
			put(q, 0, 48 * KIB, v++);
			qcow2_wp_advance(q, 0, 48 * KIB);
			assert_int_equal(qcow2_flush(q), 0);
			assert_int_equal(qcow2_zone_reset(q, 0), 0);
			put(q, 0, 8 * KIB, v++);
			qcow2_wp_advance(q, 0, 8 * KIB);
			assert_int_equal(qcow2_flush(q), 0);
			assert_int_equal(qcow2_zone_reset(q, 0), 0);
			assert_int_equal(qcow2_flush(q), 0);
		}
		assert_int_equal(qcow2_close(q), 0);
		crash_everywhere(base, d, v);
		ram_free(base);
		ram_free(d);
	}
}

static void a_crash_while_the_refcount_table_moves_finds_a_sound_image(void **state)
{
	struct qcow2_create_opts o = {
		.size = 8 * MIB,
		.cluster_size = 512,
		.refcount_bits = 64,
		.zoned = true,
		.zone = { .zone_size = 64 * KIB },
	};
	struct ramdisk *d = make_image(&o), *base;
	struct qcow2 *q;
	uint32_t before;

	(void)state;
	q = open_image(d, 0);
	before = q->hdr.reftable_clusters;
	for (uint32_t z = 1; q->end_cluster >> q->refblock_bits < q->reftable.nr - 3; z++)
		put(q, z * 64 * KIB, 512, 0); /* nearly fills the table */
	assert_int_equal(qcow2_close(q), 0);
	base = ram_copy(d);
	ram_forget(d);
	d->keep_data = true;
	q = open_image(d, 0);
	assert_int_equal(q->hdr.reftable_clusters, before);
	put(q, 0, 48 * KIB, 0);
	qcow2_wp_advance(q, 0, 48 * KIB);
	assert_int_equal(qcow2_flush(q), 0);
	assert_true(q->hdr.reftable_clusters > before);
	assert_int_equal(qcow2_close(q), 0);
	assert_true(d->nr_ops < 4000);
	crash_everywhere(base, d, 1);
	ram_free(base);
	ram_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(write_flush_reopen_read),
		cmocka_unit_test(first_write_maps_the_zone_so_that_the_next_needs_no_lock),
		cmocka_unit_test(nothing_but_data_is_written_before_a_flush),
		cmocka_unit_test(syncs_cost_what_changed),
		cmocka_unit_test(the_law_step_by_step),
		cmocka_unit_test(reset_clusters_are_not_reused_before_the_flush),
		cmocka_unit_test(space_does_not_grow_with_resets),
		cmocka_unit_test(finish_zeroes_what_lies_above_the_pointer),
		cmocka_unit_test(conventional_zones_take_writes_anywhere),
		cmocka_unit_test(a_pointer_never_leads_the_data_that_was_synced),
		cmocka_unit_test(a_failed_sync_poisons_the_image),
		cmocka_unit_test(a_failed_write_is_made_good_by_the_next_flush),
		cmocka_unit_test(a_crash_after_any_call_finds_a_sound_image),
		cmocka_unit_test(a_crash_while_the_refcount_table_moves_finds_a_sound_image),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
