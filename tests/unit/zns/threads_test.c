/* SPDX-License-Identifier: MIT */
/*
 * Several loops at once on one namespace: appends never overlap, and nothing is lost when resets,
 * flushes and reads come in between. Meant for TSan too.
 */
#include "fake_host.h"

enum { LOOPS = 4, DEPTH = 8, ROUNDS = 60, ZSZE = 4096, NR = 16 };

/* One writer: a host of its own, on the shared namespace. */
struct writer {
	struct host h;
	pthread_t thread;
	int id;
	uint64_t lba[ROUNDS * DEPTH]; /* where its blocks landed */
};

static void fill(uint8_t *block, int writer, int n)
{
	memset(block, writer + 1, 512);
	memcpy(block, &n, sizeof(n));
}

static void send_append(struct writer *w, struct cmd *c, uint8_t *block, int n)
{
	/* Every fifth is FUA, so that completions wait for flushes of other loops. */
	cmd_init(c, nvme_zns_cmd_append, 3 * ZSZE, n % 5 ? 0 : FUA, 0);
	fill(block, w->id, n);
	c->data = block;
	c->length = 512;
	cmd_send(&w->h, c);
}

static void *append_many(void *arg)
{
	struct writer *w = arg;
	uint8_t block[DEPTH][512];
	struct cmd c[DEPTH];
	int round, i;

	for (round = 0; round < ROUNDS; round++) {
		for (i = 0; i < DEPTH; i++)
			send_append(w, &c[i], block[i], round * DEPTH + i);
		for (i = 0; i < DEPTH; i++) {
			if (cmd_wait(&c[i]))
				abort();
			w->lba[round * DEPTH + i] = le64toh(c[i].req.cqe.result);
		}
	}
	return NULL;
}

/* Writes, resets and reads zone 5, where each loop disturbs the others. */
static void *disturb(void *arg)
{
	struct writer *w = arg;
	uint8_t block[512];
	uint64_t lba;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		fill(block, w->id, i);
		if (host_append(&w->h, 5 * ZSZE, 1, block, 0, &lba))
			abort();
		if (host_read(&w->h, 5 * ZSZE, 1, block))
			abort();
		if (i % 4 == w->id && host_manage(&w->h, 5 * ZSZE, NVME_ZNS_ZSA_RESET))
			abort();
		if (i % 16 == w->id && host_manage(&w->h, 0, NVME_ZNS_ZSA_RESET | ALL))
			abort();
	}
	return NULL;
}

static void start(struct writer *w, struct workers *pool, struct store_ram *ram)
{
	const struct zns_opts opts = { .lba_size = 512 };
	char err[200] = "";
	int i;

	for (i = 0; i < LOOPS; i++) {
		w[i].id = i;
		host_start(&w[i].h, pool);
	}
	if (zns_ns_new(&ram->store, &opts, w[0].h.loop, &w[0].h.ns, err, sizeof(err)))
		fail_msg("%s", err);
	for (i = 0; i < LOOPS; i++) {
		w[i].h.ns = w[0].h.ns;
		host_go(&w[i].h);
	}
}

static void stop(struct writer *w, struct workers *pool)
{
	struct tgt_ns *ns = w[0].h.ns;
	int i;

	for (i = 0; i < LOOPS; i++)
		host_stop(&w[i].h);
	workers_free(pool);
	assert_int_equal(ns->set->close(ns), 0);
	for (i = 0; i < LOOPS; i++)
		loop_free(w[i].h.loop);
}

static void run(struct writer *w, void *(*fn)(void *))
{
	int i;

	for (i = 0; i < LOOPS; i++)
		assert_int_equal(pthread_create(&w[i].thread, NULL, fn, &w[i]), 0);
	for (i = 0; i < LOOPS; i++)
		pthread_join(w[i].thread, NULL);
}

static const struct store_geometry geometry = { .zone_size = ZSZE * 512,
						.zone_capacity = ZSZE * 512,
						.nr_zones = NR };

static void appends_of_several_loops_are_disjoint(void **ctx)
{
	struct writer *w = calloc(LOOPS, sizeof(*w));
	struct workers *pool = workers_new(3);
	struct store_ram *ram = ram_new(&geometry, true);
	const int total = LOOPS * ROUNDS * DEPTH;
	uint8_t *seen = calloc(1, (size_t)total), block[512];
	int i, n;

	(void)ctx;
	ram->nowait_again = true; /* the workers write, and end in any order */
	start(w, pool, ram);
	run(w, append_many);
	for (i = 0; i < LOOPS; i++) {
		for (n = 0; n < ROUNDS * DEPTH; n++) {
			uint64_t at = w[i].lba[n] - 3 * ZSZE;

			assert_in_range(at, 0, total - 1);
			assert_false(seen[at]);
			seen[at] = 1;
			fill(block, i, n);
			assert_memory_equal(ram->data + w[i].lba[n] * 512, block, 512);
		}
	}
	assert_int_equal(le64toh(host_zone(&w[0].h, 3 * ZSZE).wp), 3 * ZSZE + total);
	stop(w, pool);
	assert_int_equal(ram->durable_wp[3], (3 * ZSZE + total) * 512);
	ram_free(ram);
	free(seen);
	free(w);
}

static void resets_between_writes_lose_nothing_else(void **ctx)
{
	struct writer *w = calloc(LOOPS, sizeof(*w));
	struct workers *pool = workers_new(3);
	struct store_ram *ram = ram_new(&geometry, true);
	int again;

	(void)ctx;
	start(w, pool, ram);
	for (again = 0; again < 2; again++) {
		run(w, disturb);
		ram->nowait_again = true;
	}
	assert_int_equal(host_manage(&w[0].h, 0, NVME_ZNS_ZSA_RESET | ALL), 0);
	assert_int_equal(zone_state(&w[0].h, 5 * ZSZE), 1);
	stop(w, pool);
	ram_free(ram);
	free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(appends_of_several_loops_are_disjoint),
		cmocka_unit_test(resets_between_writes_lose_nothing_else),
	};

	log_level(LOG_ERR_);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
