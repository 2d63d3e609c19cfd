/* SPDX-License-Identifier: MIT */
/*
 * Commands in flight together: in what order writes come back, what a failure does to its peers,
 * and how resets wait.
 */
#include "zone_kit.h"

enum { ZSZE = 16, ZCAP = 12, NR = 4 };

static int new_zones(void **ctx)
{
	struct zones *zs = calloc(1, sizeof(*zs));

	*ctx = zs;
	return zones_init(zs, ZSZE, ZCAP, NR, 0, 0);
}

static int end_zones(void **ctx)
{
	struct zones *zs = *ctx;

	zones_assert(zs);
	zones_free(zs);
	free(zs);
	return 0;
}

/* Three writes of two LBAs each, in flight in zone 1. */
static void begin_three(struct zones *zs, struct zone_io *io)
{
	int i;

	for (i = 0; i < 3; i++) {
		io[i] = (struct zone_io){ .lba = ZSZE, .nlb = 2 };
		assert_int_equal(zone_write_begin(zs, &io[i], true), 0);
		assert_int_equal(io[i].lba, ZSZE + 2 * i);
	}
}

/* A slot's memory still has what its last command left there. */
static void a_write_does_not_inherit_a_status(void **ctx)
{
	struct zones *zs = *ctx;
	struct zone_io io;
	struct zone_items out;

	memset(&io, 0xa5, sizeof(io));
	io.lba = ZSZE;
	io.nlb = 2;
	assert_int_equal(zone_write_begin(zs, &io, true), 0);
	zone_items_init(&out);
	zone_write_end(zs, &io, 0, &out);
	expect(&out, &io, ZONE_COMPLETE, 0);
	expect_none(&out);
}

static void writes_come_back_in_lba_order(void **ctx)
{
	static const int orders[][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 },
					 { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
	struct zones *zs = *ctx;
	struct zone_items out;
	struct zone_io io[3];
	int o, i, back, ended;

	for (o = 0; o < 6; o++) {
		begin_three(zs, io);
		zone_items_init(&out);
		for (ended = 0, back = 0, i = 0; i < 3; i++) {
			zone_write_end(zs, &io[orders[o][i]], 0, &out);
			ended |= 1 << orders[o][i];
			for (; back < 3 && ended & 1 << back; back++)
				expect(&out, &io[back], ZONE_COMPLETE, 0);
			expect_none(&out);
			zones_assert(zs);
		}
		assert_int_equal(zone_get(zs, 1).wp, ZSZE + 6);
		assert_int_equal(act(zs, 1, RESET), 0);
	}
}

static void what_may_be_read_follows_the_completed_writes(void **ctx)
{
	struct zones *zs = *ctx;
	struct zone_items out;
	struct zone_io io[3];
	uint32_t valid;

	begin_three(zs, io);
	zone_items_init(&out);
	zone_write_end(zs, &io[1], 0, &out);
	assert_int_equal(zone_read_span(zs, ZSZE, 8, &valid), 8);
	assert_int_equal(valid, 0);
	zone_write_end(zs, &io[0], 0, &out);
	zone_read_span(zs, ZSZE, 8, &valid);
	assert_int_equal(valid, 4);
	zone_read_span(zs, ZSZE + 3, 8, &valid);
	assert_int_equal(valid, 1);
	assert_int_equal(zone_read_span(zs, ZSZE + 10, 100, &valid), 6);
	assert_int_equal(valid, 0);
	zone_write_end(zs, &io[2], 0, &out);
}

/* Write F of three fails; they end in every order. */
static void a_failure_fails_all_behind_it_and_rewinds(void **ctx)
{
	static const int orders[][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 },
					 { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
	struct zones *zs = *ctx;
	struct zone_items out;
	struct zone_io io[3];
	int o, f, i;

	for (o = 0; o < 6; o++) {
		for (f = 0; f < 3; f++) {
			begin_three(zs, io);
			zone_items_init(&out);
			for (i = 0; i < 3; i++) {
				int n = orders[o][i];

				zone_write_end(zs, &io[n], n == f ? FAULT : 0, &out);
				zones_assert(zs);
			}
			for (i = 0; i < 3; i++)
				expect(&out, &io[i], ZONE_COMPLETE, i < f ? 0 : FAULT);
			expect_none(&out);
			assert_int_equal(zone_get(zs, 1).wp, ZSZE + 2 * f);
			assert_int_equal(write_at(zs, ZSZE + 2 * f, 1), 0); /* usable at once */
			assert_int_equal(act(zs, 1, RESET), 0);
		}
	}
}

static void behind_a_hole_nothing_is_taken_until_it_is_closed(void **ctx)
{
	struct zones *zs = *ctx;
	struct zone_items out;
	struct zone_io io[3], late = { .lba = ZSZE, .nlb = 1 };

	begin_three(zs, io);
	zone_items_init(&out);
	zone_write_end(zs, &io[1], FAULT, &out);
	expect_none(&out);
	assert_int_equal(zone_write_begin(zs, &late, true), FAULT);
	zone_write_end(zs, &io[0], 0, &out);
	expect(&out, &io[0], ZONE_COMPLETE, 0); /* below the hole: need not wait */
	expect_none(&out);
	zone_write_end(zs, &io[2], 0, &out);
	expect(&out, &io[1], ZONE_COMPLETE, FAULT);
	expect(&out, &io[2], ZONE_COMPLETE, FAULT);
	assert_int_equal(append_to(zs, 1, 1), 0);
	assert_int_equal(zone_get(zs, 1).wp, ZSZE + 3);
}

static void a_zone_is_full_when_its_last_write_has_ended(void **ctx)
{
	struct zones *zs = *ctx;
	struct zone_items out;
	struct zone_io io = { .lba = 0, .nlb = ZCAP };

	assert_int_equal(zone_write_begin(zs, &io, false), 0);
	assert_int_equal(state_of(zs, 0), ZS_IMP);
	assert_int_equal(write_at(zs, 0, 1), IS_FULL);
	zone_items_init(&out);
	zone_write_end(zs, &io, FAULT, &out);
	assert_int_equal(state_of(zs, 0), ZS_IMP);
	assert_int_equal(write_at(zs, 0, ZCAP), 0);
	assert_int_equal(state_of(zs, 0), ZS_FULL);
}

static void a_zone_closed_meanwhile_is_full_or_empty_in_the_end(void **ctx)
{
	struct zones *zs = *ctx;
	struct zone_items out;
	struct zone_io io = { .lba = 0, .nlb = ZCAP };

	zone_items_init(&out);
	assert_int_equal(zone_write_begin(zs, &io, false), 0);
	assert_int_equal(act(zs, 0, CLOSE), 0);
	assert_int_equal(state_of(zs, 0), ZS_CLOSED);
	zone_write_end(zs, &io, FAULT, &out);
	assert_int_equal(state_of(zs, 0), ZS_EMPTY);
	assert_int_equal(zones_nr_active(zs), 0);
	io = (struct zone_io){ .lba = 0, .nlb = ZCAP };
	assert_int_equal(zone_write_begin(zs, &io, false), 0);
	assert_int_equal(act(zs, 0, CLOSE), 0);
	zone_write_end(zs, &io, 0, &out);
	assert_int_equal(state_of(zs, 0), ZS_FULL);
	assert_int_equal(zones_nr_active(zs), 0);
}

static void reset_waits_for_writers_and_readers(void **ctx)
{
	struct zones *zs = *ctx;
	struct zone_items out;
	struct zone_io io[3], rd = { .lba = ZSZE - 1, .nlb = 4 };
	struct zone_claim claim;

	begin_three(zs, io);
	assert_int_equal(zone_read_begin(zs, &rd, &out), 0);
	assert_int_equal(zone_manage(zs, &claim, 1, RESET), ZONE_WAIT);
	zone_items_init(&out);
	zone_write_end(zs, &io[0], 0, &out);
	expect(&out, &io[0], ZONE_COMPLETE, 0);
	zone_write_end(zs, &io[2], 0, &out);
	expect_none(&out);
	zone_write_end(zs, &io[1], 0, &out);
	expect(&out, &io[1], ZONE_COMPLETE, 0);
	expect(&out, &io[2], ZONE_COMPLETE, 0);
	expect_none(&out);
	zone_read_end(zs, &rd, &out);
	expect(&out, &claim, ZONE_START, 0);
	expect_none(&out);
	run_claim(zs, &claim, ZONE_OK, &out);
	expect_none(&out);
	assert_int_equal(state_of(zs, 1), ZS_EMPTY);
	assert_int_equal(zone_get(zs, 1).wp, ZSZE);
}

static void reset_waits_for_a_hole_to_close(void **ctx)
{
	struct zones *zs = *ctx;
	struct zone_items out;
	struct zone_io io[3];
	struct zone_claim claim;

	begin_three(zs, io);
	assert_int_equal(zone_manage(zs, &claim, 1, RESET), ZONE_WAIT);
	zone_items_init(&out);
	zone_write_end(zs, &io[0], FAULT, &out);
	zone_write_end(zs, &io[1], 0, &out);
	expect_none(&out);
	zone_write_end(zs, &io[2], 0, &out);
	expect(&out, &io[0], ZONE_COMPLETE, FAULT);
	expect(&out, &io[1], ZONE_COMPLETE, FAULT);
	expect(&out, &io[2], ZONE_COMPLETE, FAULT);
	expect(&out, &claim, ZONE_START, 0);
	run_claim(zs, &claim, ZONE_OK, &out);
}

static void what_comes_during_a_reset_waits_in_order(void **ctx)
{
	struct zones *zs = *ctx;
	struct zone_items out;
	struct zone_io wr = { .lba = ZSZE, .nlb = 1 }, rd = { .lba = ZSZE - 1, .nlb = 2 };
	struct zone_io other = { .lba = 0, .nlb = 1 };
	struct zone_claim claim, second, open, all;

	assert_int_equal(append_to(zs, 1, 3), 0);
	assert_int_equal(zone_manage(zs, &claim, 1, RESET), 0);
	assert_int_equal(claim.nr, 1);
	assert_int_equal(zone_write_begin(zs, &wr, false), ZONE_WAIT);
	assert_int_equal(zone_read_begin(zs, &rd, &out), ZONE_WAIT);
	assert_int_equal(zone_manage(zs, &second, 1, FINISH), ZONE_WAIT);
	assert_int_equal(zone_manage(zs, &open, 1, OPEN), ZONE_WAIT);
	assert_int_equal(zone_manage(zs, &all, ZONE_ALL, RESET), ZONE_WAIT);
	assert_int_equal(zone_write_begin(zs, &other, false), 0); /* another zone goes on */
	zone_items_init(&out);
	zone_write_end(zs, &other, 0, &out);
	expect(&out, &other, ZONE_COMPLETE, 0);
	run_claim(zs, &claim, ZONE_OK, &out);
	expect(&out, &wr, ZONE_RETRY, 0);
	expect(&out, &rd, ZONE_RETRY, 0);
	expect(&out, &second, ZONE_RETRY, 0);
	expect(&out, &open, ZONE_RETRY, 0);
	expect(&out, &all, ZONE_RETRY, 0);
	expect_none(&out);
	assert_int_equal(write_at(zs, ZSZE, 1), 0);
}

static void a_finish_that_a_write_has_overtaken_has_nothing_to_do(void **ctx)
{
	struct zones *zs = *ctx;
	struct zone_items out;
	struct zone_io io = { .lba = 0, .nlb = ZCAP };
	struct zone_claim claim;
	uint64_t wp;

	assert_int_equal(zone_write_begin(zs, &io, false), 0);
	assert_int_equal(zone_manage(zs, &claim, 0, FINISH), ZONE_WAIT);
	zone_items_init(&out);
	zone_write_end(zs, &io, 0, &out);
	expect(&out, &io, ZONE_COMPLETE, 0);
	expect(&out, &claim, ZONE_START, 0);
	assert_int_equal(zone_claim_next(zs, &claim, 0, &wp), ZONE_NONE);
	zone_claim_end(zs, &claim, &out);
	assert_int_equal(state_of(zs, 0), ZS_FULL);
}

static void finish_tells_where_the_data_ends(void **ctx)
{
	struct zones *zs = *ctx;
	struct zone_claim claim;
	struct zone_items out;
	uint64_t wp;

	assert_int_equal(append_to(zs, 2, 5), 0);
	assert_int_equal(zone_manage(zs, &claim, 2, FINISH), 0);
	assert_int_equal(zone_claim_next(zs, &claim, 0, &wp), 2);
	assert_int_equal(wp, 2 * ZSZE + 5);
	zone_claim_done(zs, &claim, 2, ZONE_OK);
	assert_int_equal(zone_claim_next(zs, &claim, 3, &wp), ZONE_NONE);
	zone_items_init(&out);
	zone_claim_end(zs, &claim, &out);
	assert_int_equal(state_of(zs, 2), ZS_FULL);
}

static void select_all_waits_for_every_zone(void **ctx)
{
	struct zones *zs = *ctx;
	struct zone_items out;
	struct zone_io a = { .lba = 0, .nlb = 1 }, b = { .lba = 2 * ZSZE, .nlb = 1 };
	struct zone_io in_one = { .lba = ZSZE, .nlb = 1 };
	struct zone_claim all, one;

	assert_int_equal(zone_write_begin(zs, &a, false), 0);
	assert_int_equal(zone_write_begin(zs, &b, false), 0);
	assert_int_equal(zone_manage(zs, &all, ZONE_ALL, RESET), ZONE_WAIT);
	assert_int_equal(all.nr, 2);
	/* Zone 1 was Empty and is not claimed; but no second claim runs beside. */
	assert_int_equal(append_to(zs, 1, 1), 0);
	assert_int_equal(zone_manage(zs, &one, 1, RESET), ZONE_WAIT);
	assert_int_equal(zone_write_begin(zs, &in_one, true), 0);
	zone_items_init(&out);
	zone_write_end(zs, &in_one, 0, &out);
	expect(&out, &in_one, ZONE_COMPLETE, 0);
	zone_write_end(zs, &a, 0, &out);
	expect(&out, &a, ZONE_COMPLETE, 0);
	expect_none(&out);
	zone_write_end(zs, &b, FAULT, &out);
	expect(&out, &b, ZONE_COMPLETE, FAULT);
	expect(&out, &all, ZONE_START, 0);
	run_claim(zs, &all, ZONE_OK, &out);
	expect(&out, &one, ZONE_RETRY, 0);
	assert_int_equal(state_of(zs, 0), ZS_EMPTY);
	assert_int_equal(state_of(zs, 1), ZS_IMP);
	assert_int_equal(state_of(zs, 2), ZS_EMPTY);
}

static void a_claim_that_fails_leaves_or_retires_its_zone(void **ctx)
{
	struct zones *zs = *ctx;
	struct zone_claim claim;
	struct zone_items out;

	zone_items_init(&out);
	assert_int_equal(append_to(zs, 0, 2), 0);
	assert_int_equal(zone_manage(zs, &claim, 0, RESET), 0);
	run_claim(zs, &claim, ZONE_UNCHANGED, &out);
	assert_int_equal(state_of(zs, 0), ZS_IMP);
	assert_int_equal(zone_get(zs, 0).wp, 2);
	assert_int_equal(zone_manage(zs, &claim, 0, RESET), 0);
	run_claim(zs, &claim, ZONE_BROKEN, &out);
	assert_int_equal(state_of(zs, 0), ZS_RO);
	assert_int_equal(append_to(zs, 0, 1), IS_RO);
	assert_int_equal(act(zs, 0, OFFLINE), 0);
}

static bool tries(struct zones *zs, struct zone_io *io, uint64_t lba, uint32_t nlb)
{
	struct zone_items out;
	bool begun;

	zone_items_init(&out);
	*io = (struct zone_io){ .lba = lba, .nlb = nlb };
	begun = zone_read_try(zs, io, &out);
	expect_none(&out);
	return begun;
}

static void a_read_is_tried_only_where_it_need_not_wait(void **ctx)
{
	struct zones *zs = *ctx;
	struct zone_claim claim;
	struct zone_items out;
	struct zone_io io, other;

	zone_items_init(&out);
	assert_int_equal(append_to(zs, 1, ZCAP), 0);
	assert_int_equal(append_to(zs, 2, 4), 0);
	assert_true(tries(zs, &io, 2 * ZSZE, 4));
	assert_false(tries(zs, &other, 2 * ZSZE, 5)); /* beyond what was written */
	assert_false(tries(zs, &other, 2 * ZSZE + 4, 1));
	assert_false(tries(zs, &other, 2 * ZSZE - 1, 2)); /* of two zones */
	assert_false(tries(zs, &other, 3 * ZSZE, 1));
	assert_int_equal(zone_manage(zs, &claim, 2, RESET), ZONE_WAIT);
	assert_false(tries(zs, &other, 2 * ZSZE, 1)); /* claimed */
	zone_read_end(zs, &io, &out);
	expect(&out, &claim, ZONE_START, 0);
	run_claim(zs, &claim, ZONE_OK, &out);
	assert_false(tries(zs, &other, 2 * ZSZE, 1));
	assert_true(tries(zs, &io, ZSZE + ZCAP - 1, 1));
	zone_read_end(zs, &io, &out);
	zone_retire(zs, 1, true);
	assert_false(tries(zs, &other, ZSZE, 1)); /* offline */
	expect_none(&out);
}

static void the_lru_may_close_a_zone_with_writes_in_flight(void **ctx)
{
	struct zones *zs = *ctx;
	struct zone_items out;
	struct zone_io io[3];

	zs->max_open = 1;
	begin_three(zs, io);
	assert_int_equal(append_to(zs, 2, 1), 0);
	assert_int_equal(state_of(zs, 1), ZS_CLOSED);
	zone_items_init(&out);
	zone_write_end(zs, &io[0], 0, &out);
	zone_write_end(zs, &io[1], 0, &out);
	zone_write_end(zs, &io[2], 0, &out);
	assert_int_equal(state_of(zs, 1), ZS_CLOSED);
	assert_int_equal(zone_get(zs, 1).wp, ZSZE + 6);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, new_zones, end_zones)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_write_does_not_inherit_a_status),
		TEST(writes_come_back_in_lba_order),
		TEST(what_may_be_read_follows_the_completed_writes),
		TEST(a_failure_fails_all_behind_it_and_rewinds),
		TEST(behind_a_hole_nothing_is_taken_until_it_is_closed),
		TEST(a_zone_is_full_when_its_last_write_has_ended),
		TEST(a_zone_closed_meanwhile_is_full_or_empty_in_the_end),
		TEST(reset_waits_for_writers_and_readers),
		TEST(reset_waits_for_a_hole_to_close),
		TEST(what_comes_during_a_reset_waits_in_order),
		TEST(a_finish_that_a_write_has_overtaken_has_nothing_to_do),
		TEST(finish_tells_where_the_data_ends),
		TEST(select_all_waits_for_every_zone),
		TEST(a_claim_that_fails_leaves_or_retires_its_zone),
		TEST(a_read_is_tried_only_where_it_need_not_wait),
		TEST(the_lru_may_close_a_zone_with_writes_in_flight),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
