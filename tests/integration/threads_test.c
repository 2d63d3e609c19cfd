// SPDX-License-Identifier: MIT
/*
 * znsd --threads 2, and four connections that append to the same two zones at depth 16: all
 * addresses are disjoint, and each holds what its append carried. With `--cache` in each of its
 * modes, as they take different ways to the disk, by loops that sleep at once or look for more.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "daemon.h"

#define HOSTS	4
#define DEPTH	16
#define APPENDS 1000
#define ZONES	2

static struct rig rig;

struct landed {
	uint64_t lba;
	uint32_t blocks;
	uint32_t id; /* seed of its data */
};

struct appender {
	pthread_t thread;
	struct host_ctrl c;
	struct rig_ns ns;
	unsigned int me, count;
	struct landed landed[APPENDS];
	int err;
};

/* The data of an append does not know its address: the pattern of address 0 under its seed. */
static int submit(struct appender *a, struct host_io *io, uint8_t *data, unsigned int nr)
{
	uint32_t blocks = 1 + (nr * 7 + a->me) % 8;
	uint32_t id = a->me * APPENDS + nr;

	host_pattern(data, blocks * a->ns.lba, 0, id);
	host_set_rw(io, nvme_zns_cmd_append, 1, nr % ZONES * a->ns.zsze, blocks, data,
		    blocks * a->ns.lba);
	io->by_r2t = nr % 3 == 0;
	io->tag = nr;
	return host_submit(&a->c.io[0], io);
}

static void *append_run(void *arg)
{
	struct appender *a = arg;
	uint8_t(*data)[4096] = malloc(DEPTH * 4096);
	struct host_io io[DEPTH], *done;
	unsigned int next = 0, slot;

	while (next < DEPTH && !a->err) {
		a->err = submit(a, &io[next], data[next], next);
		next++;
	}
	while (!a->err && a->count < APPENDS) {
		a->err = host_reap(&a->c.io[0], &done);
		if (!a->err)
			a->err = done->status;
		if (a->err)
			break;
		a->landed[a->count++] = (struct landed){
			.lba = le64toh(done->cqe.result),
			.blocks = done->len / a->ns.lba,
			.id = a->me * APPENDS + done->tag,
		};
		slot = done - io;
		if (next < APPENDS)
			a->err = submit(a, &io[slot], data[slot], next++);
	}
	free(data);
	return NULL;
}

static int by_lba(const void *a, const void *b)
{
	const struct landed *x = a, *y = b;

	return x->lba < y->lba ? -1 : x->lba > y->lba;
}

static void append_and_verify(const char *cache, const char *busy_poll)
{
	const char *args[] = { "--threads", "2",   "--busy-poll", busy_poll,
			       "--cache",   cache, rig.img,	  NULL };
	static struct appender app[HOSTS];
	static struct landed all[HOSTS * APPENDS];
	uint8_t buf[4096], want[4096];
	unsigned int i, n = 0;
	uint64_t total = 0;
	struct rig_ns *ns = &app[0].ns;

	memset(app, 0, sizeof(app));
	assert_int_equal(rig_start(&rig, args, NULL), 0);
	for (i = 0; i < HOSTS; i++) {
		app[i].me = i;
		rig_attach(&rig, &app[i].c, 1);
		rig_identify(&app[i].c, 1, &app[i].ns);
	}
	for (i = 0; i < HOSTS; i++)
		assert_int_equal(pthread_create(&app[i].thread, NULL, append_run, &app[i]), 0);
	for (i = 0; i < HOSTS; i++) {
		pthread_join(app[i].thread, NULL);
		assert_int_equal(app[i].err, 0);
		assert_int_equal(app[i].count, APPENDS);
		memcpy(&all[n], app[i].landed, sizeof(app[i].landed));
		n += APPENDS;
	}
	qsort(all, n, sizeof(all[0]), by_lba);
	for (i = 0; i < n; i++) {
		uint32_t len = all[i].blocks * ns->lba;

		if (i && all[i].lba < all[i - 1].lba + all[i - 1].blocks)
			fail_msg("two appends share LBA %llu", (unsigned long long)all[i].lba);
		host_pattern(want, len, 0, all[i].id);
		assert_int_equal(
			host_read(&app[i % HOSTS].c.io[0], 1, all[i].lba, all[i].blocks, buf, len),
			0);
		if (memcmp(buf, want, len))
			fail_msg("wrong data at LBA %llu", (unsigned long long)all[i].lba);
		total += all[i].blocks;
	}
	/* No gaps either: the write pointers stand at the sum. */
	for (i = 0; i < ZONES; i++)
		total -= le64toh(rig_zone(&app[0].c.io[0], ns, i * ns->zsze).wp) - i * ns->zsze;
	assert_int_equal(total, 0);
	for (i = 0; i < HOSTS; i++)
		host_detach(&app[i].c);
	assert_int_equal(rig_stop(&rig, SIGTERM, 10000 * rig_slowness(), NULL), 0);
	assert_int_equal(rig_check(&rig, rig.img), 0);
}

static void appends_from_everywhere_stay_disjoint(void **state)
{
	(void)state;
	append_and_verify("writeback", "0");
}

static void appends_stay_disjoint_if_large_ones_bypass_the_cache(void **state)
{
	(void)state;
	append_and_verify("auto", "0");
}

static void appends_stay_disjoint_without_cache(void **state)
{
	(void)state;
	append_and_verify("none", "1000");
}

static void appends_stay_disjoint_unsafe(void **state)
{
	(void)state;
	append_and_verify("unsafe", "50");
}

static int setup(void **state)
{
	(void)state;
	rig_init(&rig);
	return rig_create(&rig, rig.img, RIG_SEED);
}

static int teardown(void **state)
{
	(void)state;
	rig_end(&rig);
	return 0;
}

#define t(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		t(appends_from_everywhere_stay_disjoint),
		t(appends_stay_disjoint_without_cache),
		t(appends_stay_disjoint_if_large_ones_bypass_the_cache),
		t(appends_stay_disjoint_unsafe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
