/* SPDX-License-Identifier: MIT */
/*
 * Nobody waits for a sync but those who ask for a flush: while the disk is still busy with one,
 * zones are written, begun, read, reset and finished.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>

#include "common.h"

#define ZONE (64 * KIB)
#define CAP  (48 * KIB)

static struct {
	sem_t begun, go_on;    /* a sync has; it may */
	atomic_uint by_others; /* syncs */
	atomic_bool hold;      /* the first sync */
} disk;
static _Thread_local bool is_other; /* the thread that is to wait for nothing */

static int slow_sync(struct file *f)
{
	if (is_other)
		atomic_fetch_add(&disk.by_others, 1);
	if (atomic_exchange(&disk.hold, false)) {
		sem_post(&disk.begun);
		sem_wait(&disk.go_on);
	}
	return ram_fdatasync(f);
}

static struct qcow2 *open_slow(struct ramdisk *d, struct file_ops *ops)
{
	struct qcow2 *q = open_image(d, 0);

	*ops = *q->file->ops;
	ops->fdatasync = slow_sync;
	q->file->ops = ops;
	sem_init(&disk.begun, 0, 0);
	sem_init(&disk.go_on, 0, 0);
	atomic_store(&disk.by_others, 0);
	return q;
}

static void *flush(void *q)
{
	assert_int_equal(qcow2_flush(q), 0);
	return NULL;
}

struct deed {
	struct qcow2 *q;
	void (*what)(struct qcow2 *q);
	sem_t done;
};

static void *act(void *arg)
{
	struct deed *deed = arg;

	is_other = true;
	deed->what(deed->q);
	sem_post(&deed->done);
	return NULL;
}

/* Does WHAT in another thread while a flush of Q waits for the disk; fails if WHAT waits, too. */
static void beside_a_flush(struct qcow2 *q, void (*what)(struct qcow2 *q))
{
	struct deed deed = { .q = q, .what = what };
	struct timespec until;
	pthread_t flusher, other;
	int late;

	atomic_store(&disk.hold, true);
	assert_int_equal(pthread_create(&flusher, NULL, flush, q), 0);
	sem_wait(&disk.begun);
	sem_init(&deed.done, 0, 0);
	assert_int_equal(pthread_create(&other, NULL, act, &deed), 0);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 20;
	late = sem_timedwait(&deed.done, &until);
	sem_post(&disk.go_on);
	pthread_join(other, NULL);
	pthread_join(flusher, NULL);
	if (late)
		fail_msg("it waited for the sync of another's flush");
	assert_int_equal(atomic_load(&disk.by_others), 0);
}

static void append(struct qcow2 *q, uint32_t zone, size_t len, unsigned int version)
{
	uint64_t wp = qcow2_wp(q, zone);

	put(q, wp, len, version);
	qcow2_wp_advance(q, zone, wp + len);
}

static void all_sorts(struct qcow2 *q)
{
	append(q, 0, 4096, 1); /* mapped */
	append(q, 3, 8192, 1); /* begun now */
	assert_int_equal(qcow2_zone_reset(q, 1), 0);
	append(q, 1, 4096, 2);
	assert_int_equal(qcow2_zone_finish(q, 2, qcow2_wp(q, 2)), 0);
	expect(q, 0, 8192, 1);
	expect(q, ZONE, 4096, 2);
	expect(q, 2 * ZONE, 4096, 1);
	expect_zeroes(q, 2 * ZONE + 4096, CAP - 4096);
	expect(q, 3 * ZONE, 8192, 1);
}

static void nothing_waits_for_a_sync(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct file_ops ops;
	struct qcow2 *q = open_slow(d, &ops);

	(void)state;
	for (uint32_t zone = 0; zone < 3; zone++)
		append(q, zone, 4096, 1);
	beside_a_flush(q, all_sorts);
	expect(q, 3 * ZONE, 8192, 1);
	assert_true(qcow2_dirty(q)); /* what came after the flush had begun */
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	q = open_image(d, 0);
	assert_int_equal(qcow2_wp(q, 0), 8192);
	assert_int_equal(qcow2_wp(q, 1), ZONE + 4096);
	assert_int_equal(qcow2_wp(q, 2), 2 * ZONE + CAP);
	assert_int_equal(qcow2_wp(q, 3), 3 * ZONE + 8192);
	expect(q, ZONE, 4096, 2);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

static void flush_again(struct qcow2 *q)
{
	append(q, 5, 4096, 1);
	assert_int_equal(qcow2_flush(q), 0);
}

/* The one that comes second begins when the first has ended, and covers what came meanwhile. */
static void a_second_flush_waits_for_the_first(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o), *cut;
	struct file_ops ops;
	struct qcow2 *q = open_slow(d, &ops);
	struct deed deed = { .q = q, .what = flush_again };
	pthread_t first, second;

	(void)state;
	append(q, 4, 4096, 1);
	sem_init(&deed.done, 0, 0);
	atomic_store(&disk.hold, true);
	assert_int_equal(pthread_create(&first, NULL, flush, q), 0);
	sem_wait(&disk.begun);
	assert_int_equal(pthread_create(&second, NULL, act, &deed), 0);
	usleep(20000);
	assert_int_equal(sem_trywait(&deed.done), -1);
	sem_post(&disk.go_on);
	pthread_join(first, NULL);
	pthread_join(second, NULL);
	cut = ram_copy(d);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
	q = open_image(cut, QCOW2_RDONLY);
	assert_int_equal(qcow2_wp(q, 4), 4 * ZONE + 4096);
	assert_int_equal(qcow2_wp(q, 5), 5 * ZONE + 4096);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(cut);
}

/* Nothing reads what is discarded here, and zeroing it would fill the memory of the machine. */
static int quick_discard(struct file *f, int mode, uint64_t off, uint64_t len)
{
	(void)f, (void)mode, (void)off, (void)len;
	return 0;
}

static uint32_t waited[8];
static unsigned int nr_waited;

static void note_waited(const char *path, uint32_t zone, uint64_t ms)
{
	(void)path, (void)ms;
	assert_true(nr_waited < 8);
	waited[nr_waited++] = zone;
}

/* GIB are given up, and a flush has recorded them: more than may wait for the next one. */
static void the_file_grows_by_no_more_than_4_gib(void **state)
{
	struct qcow2_create_opts o = {
		.size = 2048 * MIB,
		.zoned = true,
		.zone = { .zone_size = 512 * MIB, .zone_capacity = 512 * MIB },
	};
	struct ramdisk *d = ram_new(16384 * MIB);
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];
	struct file_ops ops;
	struct qcow2 *q;

	(void)state;
	assert_int_equal(qcow2_create("ram", &o, ram_open(d), warn, err), 0);
	q = open_slow(d, &ops);
	ops.fallocate = quick_discard;
	q->waited = note_waited;
	is_other = true;
	for (uint32_t i = 0; i < 20; i++) { /* 16 of these give up 512 MiB */
		if (i >= 4)
			assert_int_equal(qcow2_zone_reset(q, i % 4), 0);
		append(q, i % 4, 4096, i);
		q->unrecorded.nr = 0;
		assert_int_equal(atomic_load(&disk.by_others) != 0, i >= 12);
		assert_int_equal(nr_waited, i >= 12);
	}
	is_other = false;
	assert_int_equal(waited[0], 12 % 4);
	assert_true(d->size < 2048 * MIB + 4096 * MIB + 600 * MIB);
	assert_int_equal(qcow2_close(q), 0); /* not checked: a copy of 6 GiB takes long */
	ram_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_file_grows_by_no_more_than_4_gib),
		cmocka_unit_test(nothing_waits_for_a_sync),
		cmocka_unit_test(a_second_flush_waits_for_the_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
