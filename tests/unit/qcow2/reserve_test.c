/* SPDX-License-Identifier: MIT */
/*
 * Reservations: data that is received into reserved clusters and committed is read back, nobody else gets
 * these clusters before, and the free clusters that an image on a tmpfs keeps are discarded when they
 * should be. (The crash laboratory shows what a crash leaves: its workloads "commit".)
 */
#include <unistd.h>

#include "alloc.h"
#include "common.h"

#define ZONE  (64 * KIB)
#define CAP   (48 * KIB)
#define ZONES 16u

static struct ramdisk *disk;
static struct qcow2 *q;
static const uint8_t *was[ZONES]; /* where the zones' first clusters were */

static void write_zone(uint32_t zone, uint64_t len, unsigned int version)
{
	put(q, zone * ZONE, len, version);
	qcow2_wp_advance(q, zone, zone * ZONE + len);
}

static void reset_zones(uint32_t first, uint32_t end)
{
	for (uint32_t zone = first; zone < end; zone++)
		assert_int_equal(qcow2_zone_reset(q, zone), 0);
	assert_int_equal(qcow2_flush(q), 0);
}

/* An image in which the first NR zones were written, and their clusters are kept. */
static void begin(uint32_t nr, bool in_memory)
{
	struct qcow2_create_opts o = small_zoned();

	disk = make_image(&o);
	disk->in_memory = in_memory;
	q = open_image(disk, 0);
	for (uint32_t zone = 0; zone < nr; zone++) {
		write_zone(zone, CAP, 100 + zone);
		was[zone] = qcow2_peek(q, zone * ZONE, 4 * KIB);
	}
	assert_int_equal(qcow2_flush(q), 0);
	reset_zones(0, nr);
}

static void reopen(void)
{
	assert_int_equal(qcow2_close(q), 0);
	q = open_image(disk, 0);
}

static void end(void)
{
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(disk, 0);
	ram_free(disk);
}

/* As a system call would. */
static void receive(void *mem, uint64_t off, uint64_t len, unsigned int version)
{
	uint8_t *p = pattern(off, len, version);

	memcpy(mem, p, len);
	free(p);
}

static void *reserve(uint32_t zone, uint64_t len)
{
	void *mem = qcow2_reserve(q, zone, len);

	assert_non_null(mem);
	return mem;
}

/* Writes through a reservation at the pointer AT of ZONE; returns where it was. */
static void *commit(uint32_t zone, uint64_t at, uint64_t len, unsigned int version)
{
	uint64_t off = zone * ZONE + at;
	void *mem = reserve(zone, len);

	receive(mem, off, len, version);
	assert_int_equal(qcow2_commit(q, mem, off, len, 0), 0);
	qcow2_wp_advance(q, zone, off + len);
	return mem;
}

static void what_is_committed_is_read(void **state)
{
	const void *mem;

	(void)state;
	begin(4, true);
	ram_forget(disk);
	mem = commit(5, 0, 8 * KIB, 1);
	assert_int_equal(ram_count(disk, RAM_WRITE), 0); /* nothing was copied */
	assert_ptr_equal(qcow2_peek(q, 5 * ZONE, 8 * KIB), mem);
	commit(5, 8 * KIB, 16 * KIB, 1);
	assert_non_null(qcow2_peek(q, 5 * ZONE, 24 * KIB)); /* one zone's lie together */
	put(q, 5 * ZONE + 24 * KIB, 5120, 1);		    /* and then as ever */
	qcow2_wp_advance(q, 5, 5 * ZONE + 24 * KIB + 5120);
	expect(q, 5 * ZONE, 24 * KIB + 5120, 1);
	expect_zeroes(q, 5 * ZONE + 24 * KIB + 5120, CAP - 24 * KIB - 5120);
	reopen();
	expect(q, 5 * ZONE, 24 * KIB + 5120, 1);
	end();
}

/* Two pieces of A and B bytes at the pointer AT of zone 5. */
static int append_pieces(uint64_t at, uint64_t a, uint64_t b, unsigned int flags)
{
	uint64_t off = 5 * ZONE + at;
	uint8_t *p = pattern(off, a + b, 1);
	struct iovec iov[] = { { p, a }, { p + a, b } };
	int err = qcow2_writev(q, iov, 2, off, a + b, flags);

	free(p);
	if (!err)
		qcow2_wp_advance(q, 5, off + a + b);
	return err;
}

/* No worker, and nothing zeroed but the rest of the last cluster. */
static void what_is_kept_is_written_at_once(void **state)
{
	(void)state;
	begin(4, true);
	assert_int_equal(append_pieces(0, 2 * KIB, 3 * KIB, QCOW2_NOWAIT), 0);
	expect_zeroes(q, 5 * ZONE + 5 * KIB, CAP - 5 * KIB);
	assert_null(qcow2_peek(q, 5 * ZONE + 8 * KIB, 512)); /* nor is more mapped */
	assert_int_equal(append_pieces(5 * KIB, 3 * KIB, 6 * KIB, QCOW2_NOWAIT), 0);
	expect_zeroes(q, 5 * ZONE + 14 * KIB, CAP - 14 * KIB);
	/* A piece that begins where there is room, and goes on where there is none. */
	assert_int_equal(append_pieces(14 * KIB, 1 * KIB, 3 * KIB, QCOW2_NOWAIT), -EAGAIN);
	assert_int_equal(append_pieces(14 * KIB, 1 * KIB, 3 * KIB, 0), 0);
	expect(q, 5 * ZONE, 18 * KIB, 1);
	reopen();
	expect(q, 5 * ZONE, 18 * KIB, 1);
	expect_zeroes(q, 5 * ZONE + 18 * KIB, CAP - 18 * KIB);
	end();
}

static int fills_to_fail;

static int fail_a_write(void *arg, const struct ram_op *op)
{
	(void)arg;
	return op->call == RAM_WRITE && fills_to_fail && fills_to_fail-- ? -EIO : 0;
}

/* A page of the mapping cannot be had, for the first piece or for the zeroes: the data is written. */
static void what_cannot_be_copied_is_written(void **state)
{
	(void)state;
	for (int fails = 0; fails < 4; fails++) {
		begin(4, true);
		disk->hook = fail_a_write;
		fills_to_fail = fails & 1;
		assert_int_equal(append_pieces(0, 2 * KIB, 3 * KIB, QCOW2_NOWAIT), 0);
		expect_zeroes(q, 5 * ZONE + 5 * KIB, CAP - 5 * KIB);
		fills_to_fail = fails >> 1;
		assert_int_equal(append_pieces(5 * KIB, 1 * KIB, 2 * KIB, QCOW2_NOWAIT), 0);
		assert_int_equal(fills_to_fail, 0);
		expect(q, 5 * ZONE, 8 * KIB, 1);
		disk->hook = NULL;
		end();
	}
}

static void nothing_is_reserved_that_is_not_there(void **state)
{
	(void)state;
	begin(0, true);
	write_zone(0, CAP, 1);
	assert_null(qcow2_reserve(q, 1, 8 * KIB)); /* no zone gave anything up */
	end();
	begin(4, false);
	assert_null(qcow2_reserve(q, 1, 8 * KIB)); /* on a disk */
	end();
	begin(4, true);
	assert_null(qcow2_reserve(q, 1, 0));
	assert_null(qcow2_reserve(q, 1, 6 * KIB)); /* no whole clusters */
	assert_null(qcow2_reserve(q, 1, 3 * MIB));
	assert_int_equal(qcow2_close(q), 0);
	q = open_image(disk, QCOW2_RDONLY);
	assert_null(qcow2_reserve(q, 1, 8 * KIB));
	end();
}

static void what_does_not_fit_is_written(void **state)
{
	void *mem;

	(void)state;
	begin(4, true);
	write_zone(5, 6 * KIB, 1);
	mem = reserve(5, 8 * KIB);
	receive(mem, 5 * ZONE + 6 * KIB, 8 * KIB, 1);
	assert_int_equal(qcow2_commit(q, mem, 5 * ZONE + 6 * KIB, 8 * KIB, 0), -EEXIST);
	assert_int_equal(qcow2_commit(q, mem, 5 * ZONE + 4 * KIB, 8 * KIB, 0), -EEXIST);
	assert_int_equal(qcow2_commit(q, mem, 5 * ZONE + CAP, 8 * KIB, 0), -EINVAL);
	assert_int_equal(qcow2_commit(q, mem, ZONES * ZONE, 8 * KIB, 0), -EINVAL);
	assert_int_equal(qcow2_write(q, mem, 5 * ZONE + 6 * KIB, 8 * KIB, 0), 0);
	qcow2_wp_advance(q, 5, 5 * ZONE + 14 * KIB);
	qcow2_release(q, 5, mem, 8 * KIB);
	expect(q, 5 * ZONE, 14 * KIB, 1);
	assert_ptr_equal(reserve(5, 8 * KIB), mem); /* it may be had again */
	pthread_mutex_lock(&q->lock);		    /* as a flush does, for long */
	assert_int_equal(qcow2_commit(q, mem, 6 * ZONE, 8 * KIB, QCOW2_NOWAIT), -EAGAIN);
	qcow2_release(q, 5, mem, 8 * KIB);
	pthread_mutex_unlock(&q->lock);
	end();
}

#define LEN  (8 * KIB)
#define MOST (ZONES * CAP / LEN)

/* Reserves all there is, and lets others write all they can: they do not meet. */
static void nobody_else_has_it(void)
{
	void *mem[MOST + 1];
	unsigned int n = 0;

	/* The first one may find the scan not done, and does some of it. */
	while (n < MOST && ((mem[n] = qcow2_reserve(q, 15, LEN)) ||
			    (!n && (mem[n] = qcow2_reserve(q, 15, LEN))))) {
		receive(mem[n], n * LEN, LEN, 7);
		n++;
	}
	assert_in_range(n, 5, MOST - 1); /* some are in use */
	for (uint32_t zone = 8; zone < 14; zone++)
		write_zone(zone, CAP, zone);
	reset_zones(8, 9); /* what that gives up is no more of it */
	write_zone(14, CAP, 14);
	for (unsigned int i = 0; i < n; i++) {
		uint8_t *want = pattern(i * LEN, LEN, 7);

		assert_memory_equal(mem[i], want, LEN);
		free(want);
		if (i % 3)
			qcow2_release(q, 15, mem[i], LEN);
		else if (i < 3 * CAP / LEN)
			assert_int_equal(qcow2_commit(q, mem[i], 15 * ZONE + i / 3 * LEN, LEN, 0),
					 0);
		else
			qcow2_release(q, 15, mem[i], LEN);
	}
	for (uint32_t zone = 9; zone < 15; zone++)
		expect(q, zone * ZONE, CAP, zone);
}

static void reserved_clusters_are_nobody_elses(void **state)
{
	(void)state;
	begin(8, true);
	nobody_else_has_it();
	end();
}

/* An image whose pool knows some clusters from a reset, and some of these from the scan, too. */
static void begin_twice_known(void)
{
	begin(0, true);
	for (uint32_t zone = 0; zone < 8; zone++)
		write_zone(zone, CAP, zone);
	reset_zones(0, 4);
	reopen();
	reset_zones(4, 8);
}

static void nor_is_it_found_by_the_scan(void **state)
{
	(void)state;
	begin_twice_known();
	nobody_else_has_it();
	end();
}

/* The pool is an aid to memory, and may name what is in use. */
static void what_is_in_use_is_not_trimmed(void **state)
{
	struct run lie = { .nr = 4 };
	const uint8_t *at;

	(void)state;
	begin(4, true);
	commit(9, 0, LEN, 9);
	write_zone(5, CAP, 5);
	at = qcow2_peek(q, 5 * ZONE, CAP);
	assert_non_null(at);
	lie.first = (uint64_t)(at - disk->bytes) / (4 * KIB) - 1;
	pthread_mutex_lock(&q->lock);
	alloc_recycled_back(q, &lie);
	pthread_mutex_unlock(&q->lock);
	qcow2_trim(q);
	expect(q, 5 * ZONE, CAP, 5);
	expect(q, 9 * ZONE, LEN, 9);
	end();
}

static bool is_kept(uint32_t zone)
{
	for (uint32_t i = 0; i < 4 * KIB; i++)
		if (was[zone][i])
			return true;
	return false;
}

static void what_is_kept_is_given_back(void **state)
{
	(void)state;
	begin(8, true);
	for (uint32_t zone = 0; zone < 8; zone++)
		assert_true(is_kept(zone));
	qcow2_release(q, 3, reserve(3, LEN), LEN);
	qcow2_trim(q);
	for (uint32_t zone = 0; zone < 8; zone++)
		assert_false(is_kept(zone));
	assert_null(qcow2_reserve(q, 1, LEN));
	end();
	begin(8, true);
	reopen(); /* at the end, too */
	for (uint32_t zone = 0; zone < 8; zone++)
		assert_false(is_kept(zone));
	end();
}

/* However long it goes on, the file grows no further. */
static void written_again_and_again_it_does_not_grow(void **state)
{
	uint64_t size = 0;

	(void)state;
	begin(8, true);
	for (int turn = 0; turn < 200; turn++) {
		uint32_t zone = turn % 7u;

		for (uint64_t at = 0; at < CAP; at += 16 * KIB)
			commit(zone, at, 16 * KIB, turn);
		expect(q, zone * ZONE, CAP, turn);
		if (turn == 20)
			size = disk->size;
		reset_zones(zone, zone + 1);
	}
	assert_int_equal(disk->size, size);
	end();
}

/* Once a trim never ended: two overlapping runs of over 64 MiB undid each other's work. */
static void runs_that_overlap_are_trimmed_once(void **state)
{
	const uint64_t zone = 32 * MIB;
	struct qcow2_create_opts o = {
		.size = 8 * zone,
		.zoned = true,
		.zone = { .zone_size = zone, .zone_capacity = zone },
	};
	struct run a = { .nr = 3200 }, b = { .nr = 3200 };

	(void)state;
	disk = make_image(&o);
	disk->in_memory = true;
	q = open_image(disk, 0);
	for (uint32_t i = 0; i < 8; i++) {
		put(q, i * zone, 64 * KIB, i);
		qcow2_wp_advance(q, i, i * zone + 64 * KIB);
	}
	assert_int_equal(qcow2_flush(q), 0);
	reset_zones(0, 8);
	a.first = disk->size >> q->cluster_bits;
	assert_int_equal(file_truncate(q->file, disk->size + 256 * MIB), 0);
	b.first = a.first + 14;
	pthread_mutex_lock(&q->lock);
	alloc_recycled_back(q, &a);
	alloc_recycled_back(q, &b);
	pthread_mutex_unlock(&q->lock);
	alarm(20); /* it did not end */
	qcow2_trim(q);
	alarm(0);
	assert_int_equal(freeset_recycled(&q->free), 0);
	end();
}

/* No free cluster is in the set twice, in use, or reserved, whatever order things happen in. */
static void expect_free_and_not_reserved(void)
{
	pthread_mutex_lock(&q->lock);
	assert_true(freeset_is_sound(&q->free));
	for (uint32_t i = 0; i < q->free.nr; i++) {
		const struct run *r = &q->free.run[i];
		bool is_free;
		uint64_t len;

		assert_int_equal(ref_run(q, r->first, r->nr, &is_free, &len), 0);
		assert_true(is_free && len == r->nr);
		for (uint32_t k = 0; k < q->reserve.nr_stock; k++) {
			const struct stock *s = &q->reserve.stock[k];

			assert_true(s->first + s->nr <= r->first || r->first + r->nr <= s->first);
		}
	}
	pthread_mutex_unlock(&q->lock);
}

static void free_clusters_are_a_set_in_any_order(void **state)
{
	struct {
		void *mem;
		uint32_t zone;
	} out[8];
	unsigned int nr_out = 0, committed = 0, version = 0;

	(void)state;
	srand(1);
	begin(8, true);
	for (int step = 0; step < 3000; step++) {
		uint32_t zone = rand() % ZONES;
		uint64_t wp = qcow2_wp(q, zone);

		switch (rand() % 8) {
		case 0:
			assert_int_equal(qcow2_zone_reset(q, zone), 0);
			break;
		case 1:
			assert_int_equal(qcow2_flush(q), 0);
			break;
		case 2: /* a write that the zone has room for */
			if (wp == zone * ZONE)
				write_zone(zone, 4 * KIB * (1 + rand() % 12), ++version);
			break;
		case 3:
		case 4:
			if (nr_out < 8 && (out[nr_out].mem = qcow2_reserve(q, zone, LEN)))
				out[nr_out++].zone = zone;
			break;
		case 5: /* commit one, if its zone is empty, or release it */
			if (!nr_out)
				break;
			zone = out[--nr_out].zone;
			wp = qcow2_wp(q, zone);
			if (wp == zone * ZONE && !qcow2_commit(q, out[nr_out].mem, wp, LEN, 0)) {
				qcow2_wp_advance(q, zone, wp + LEN);
				committed++;
			} else {
				qcow2_release(q, zone, out[nr_out].mem, LEN);
			}
			break;
		case 6:
			if (rand() % 4 == 0)
				qcow2_trim(q);
			break;
		default:
			if (nr_out || rand() % 8)
				break;
			reopen(); /* and the scan begins again */
		}
		expect_free_and_not_reserved();
	}
	assert_true(committed > 20);
	while (nr_out--)
		qcow2_release(q, out[nr_out].zone, out[nr_out].mem, LEN);
	end();
}

/* So many may be out at a time; and they come back in any order. */
static void reservations_are_bounded(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	void *mem[MAX_RESERVED];
	unsigned int n;

	(void)state;
	o.size = 8 * MIB;
	o.zone.zone_size = o.zone.zone_capacity = 1 * MIB;
	disk = make_image(&o);
	disk->in_memory = true;
	q = open_image(disk, 0);
	for (uint32_t zone = 0; zone < 8; zone++) {
		put(q, zone * MIB, 1 * MIB, zone);
		qcow2_wp_advance(q, zone, (zone + 1) * MIB);
	}
	assert_int_equal(qcow2_flush(q), 0);
	reset_zones(0, 8);
	for (int turn = 0; turn < 3; turn++) {
		for (n = 0; n < MAX_RESERVED; n++) {
			mem[n] = qcow2_reserve(q, n % 8, 4 * KIB);
			if (!mem[n])
				break;
		}
		assert_in_range(n, MAX_RESERVED / 2, MAX_RESERVED - 1);
		assert_null(qcow2_reserve(q, 0, 4 * KIB));
		for (unsigned int i = 0; i < n; i++)
			qcow2_release(q, i % 8, mem[(7 * i) % n], 4 * KIB);
	}
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_committed_is_read),
		cmocka_unit_test(what_is_kept_is_written_at_once),
		cmocka_unit_test(what_cannot_be_copied_is_written),
		cmocka_unit_test(nothing_is_reserved_that_is_not_there),
		cmocka_unit_test(what_does_not_fit_is_written),
		cmocka_unit_test(reserved_clusters_are_nobody_elses),
		cmocka_unit_test(nor_is_it_found_by_the_scan),
		cmocka_unit_test(what_is_in_use_is_not_trimmed),
		cmocka_unit_test(what_is_kept_is_given_back),
		cmocka_unit_test(written_again_and_again_it_does_not_grow),
		cmocka_unit_test(runs_that_overlap_are_trimmed_once),
		cmocka_unit_test(free_clusters_are_a_set_in_any_order),
		cmocka_unit_test(reservations_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
