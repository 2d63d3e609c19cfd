/* SPDX-License-Identifier: MIT */
/*
 * Every cell of state x action x resources, and the limits. What happens to commands in flight is
 * in inflight_test.c.
 */
#include "zone_kit.h"

enum { ZSZE = 8, ZCAP = 6, NR = 8 };

enum action {
	A_WRITE,
	A_APPEND,
	A_READ,
	A_OPEN,
	A_CLOSE,
	A_FINISH,
	A_RESET,
	A_OFFLINE,
	NR_ACTIONS
};

enum resources {
	PLENTY,
	NO_ACTIVE, /* all active resources are held by others, closed */
	NO_OPEN,   /* all open resources are held by others, explicitly */
	CAN_EVICT, /* all open resources are held by others, implicitly */
	NR_RESOURCES
};

static const uint8_t states[] = { ZS_EMPTY, ZS_IMP, ZS_EXP, ZS_CLOSED, ZS_RO, ZS_FULL, ZS_OFF };

/* One cell: status, then the next state, when resources are plenty; then the limits' status. */
struct cell {
	uint16_t status;
	uint8_t next;
	uint16_t no_active, no_open; /* status then; 0: as with plenty */
};

#define SAME 0
#define CELL(s, n, a, o)                                                                           \
	{                                                                                          \
		.status = s, .next = n, .no_active = a, .no_open = o                               \
	}

static const struct cell table[NR_ACTIONS][ZONE_STATES] = {
	[A_WRITE] = {
		[ZS_EMPTY] = CELL(0, ZS_IMP, ACTIVES, OPENS),
		[ZS_IMP] = CELL(0, ZS_IMP, 0, 0),
		[ZS_EXP] = CELL(0, ZS_EXP, 0, 0),
		[ZS_CLOSED] = CELL(0, ZS_IMP, 0, OPENS),
		[ZS_RO] = CELL(IS_RO, SAME, 0, 0),
		[ZS_FULL] = CELL(IS_FULL, SAME, 0, 0),
		[ZS_OFF] = CELL(IS_OFF, SAME, 0, 0),
	},
	[A_APPEND] = {
		[ZS_EMPTY] = CELL(0, ZS_IMP, ACTIVES, OPENS),
		[ZS_IMP] = CELL(0, ZS_IMP, 0, 0),
		[ZS_EXP] = CELL(0, ZS_EXP, 0, 0),
		[ZS_CLOSED] = CELL(0, ZS_IMP, 0, OPENS),
		[ZS_RO] = CELL(IS_RO, SAME, 0, 0),
		[ZS_FULL] = CELL(IS_FULL, SAME, 0, 0),
		[ZS_OFF] = CELL(IS_OFF, SAME, 0, 0),
	},
	[A_READ] = {
		[ZS_EMPTY] = CELL(0, SAME, 0, 0),
		[ZS_IMP] = CELL(0, SAME, 0, 0),
		[ZS_EXP] = CELL(0, SAME, 0, 0),
		[ZS_CLOSED] = CELL(0, SAME, 0, 0),
		[ZS_RO] = CELL(0, SAME, 0, 0),
		[ZS_FULL] = CELL(0, SAME, 0, 0),
		[ZS_OFF] = CELL(IS_OFF, SAME, 0, 0),
	},
	[A_OPEN] = {
		[ZS_EMPTY] = CELL(0, ZS_EXP, ACTIVES, OPENS),
		[ZS_IMP] = CELL(0, ZS_EXP, 0, 0),
		[ZS_EXP] = CELL(0, ZS_EXP, 0, 0),
		[ZS_CLOSED] = CELL(0, ZS_EXP, 0, OPENS),
		[ZS_RO] = CELL(BAD_MOVE, SAME, 0, 0),
		[ZS_FULL] = CELL(BAD_MOVE, SAME, 0, 0),
		[ZS_OFF] = CELL(BAD_MOVE, SAME, 0, 0),
	},
	[A_CLOSE] = {
		[ZS_EMPTY] = CELL(BAD_MOVE, SAME, 0, 0),
		[ZS_IMP] = CELL(0, ZS_CLOSED, 0, 0),
		[ZS_EXP] = CELL(0, ZS_CLOSED, 0, 0),
		[ZS_CLOSED] = CELL(0, ZS_CLOSED, 0, 0),
		[ZS_RO] = CELL(BAD_MOVE, SAME, 0, 0),
		[ZS_FULL] = CELL(BAD_MOVE, SAME, 0, 0),
		[ZS_OFF] = CELL(BAD_MOVE, SAME, 0, 0),
	},
	[A_FINISH] = {
		[ZS_EMPTY] = CELL(0, ZS_FULL, ACTIVES, OPENS),
		[ZS_IMP] = CELL(0, ZS_FULL, 0, 0),
		[ZS_EXP] = CELL(0, ZS_FULL, 0, 0),
		[ZS_CLOSED] = CELL(0, ZS_FULL, 0, 0),
		[ZS_RO] = CELL(BAD_MOVE, SAME, 0, 0),
		[ZS_FULL] = CELL(0, ZS_FULL, 0, 0),
		[ZS_OFF] = CELL(BAD_MOVE, SAME, 0, 0),
	},
	[A_RESET] = {
		[ZS_EMPTY] = CELL(0, ZS_EMPTY, 0, 0),
		[ZS_IMP] = CELL(0, ZS_EMPTY, 0, 0),
		[ZS_EXP] = CELL(0, ZS_EMPTY, 0, 0),
		[ZS_CLOSED] = CELL(0, ZS_EMPTY, 0, 0),
		[ZS_RO] = CELL(BAD_MOVE, SAME, 0, 0),
		[ZS_FULL] = CELL(0, ZS_EMPTY, 0, 0),
		[ZS_OFF] = CELL(BAD_MOVE, SAME, 0, 0),
	},
	[A_OFFLINE] = {
		[ZS_EMPTY] = CELL(BAD_MOVE, SAME, 0, 0),
		[ZS_IMP] = CELL(BAD_MOVE, SAME, 0, 0),
		[ZS_EXP] = CELL(BAD_MOVE, SAME, 0, 0),
		[ZS_CLOSED] = CELL(BAD_MOVE, SAME, 0, 0),
		[ZS_RO] = CELL(0, ZS_OFF, 0, 0),
		[ZS_FULL] = CELL(BAD_MOVE, SAME, 0, 0),
		[ZS_OFF] = CELL(0, ZS_OFF, 0, 0),
	},
};

static bool is_open(uint8_t state)
{
	return state == ZS_IMP || state == ZS_EXP;
}

static bool is_active(uint8_t state)
{
	return is_open(state) || state == ZS_CLOSED;
}

static uint16_t read_at(struct zones *zs, uint64_t lba, uint32_t nlb)
{
	struct zone_io io = { .lba = lba, .nlb = nlb };
	struct zone_items out;
	uint16_t status = zone_read_begin(zs, &io, &out);

	if (status)
		return status;
	zone_items_init(&out);
	zone_read_end(zs, &io, &out);
	assert_null(zone_items_take(&out));
	return 0;
}

static uint16_t perform(struct zones *zs, uint32_t zone, enum action action)
{
	static const uint8_t zsa[] = { [A_OPEN] = OPEN,
				       [A_CLOSE] = CLOSE,
				       [A_FINISH] = FINISH,
				       [A_RESET] = RESET,
				       [A_OFFLINE] = OFFLINE };
	uint64_t wp = zone_get(zs, zone).wp;

	switch (action) {
	case A_WRITE:
		return write_at(zs, wp == UINT64_MAX ? zone_start(zs, zone) : wp, 2);
	case A_APPEND:
		return append_to(zs, zone, 2);
	case A_READ:
		return read_at(zs, zone_start(zs, zone), 1);
	default:
		return act(zs, zone, zsa[action]);
	}
}

/* Zone 3 in STATE; then others take what it leaves of the resources. */
static void prepare(struct zones *zs, uint8_t state, enum resources res)
{
	uint32_t i, others;

	zones_init(zs, ZSZE, ZCAP, NR, 0, 0);
	bring(zs, 3, state);
	if (res == NO_ACTIVE) {
		others = 3 - is_active(state);
		for (i = 0; i < others; i++)
			bring(zs, i, ZS_CLOSED);
		zs->max_open = zs->max_active = 3;
	} else if (res != PLENTY) {
		others = 2 - is_open(state);
		for (i = 0; i < others; i++)
			bring(zs, i, res == NO_OPEN ? ZS_EXP : ZS_IMP);
		zs->max_open = 2;
	}
}

static uint64_t expected_wp(uint64_t wp, enum action action, uint8_t next)
{
	if (next == ZS_FULL || next == ZS_RO || next == ZS_OFF)
		return UINT64_MAX;
	if (action == A_RESET)
		return 3 * ZSZE;
	return action == A_WRITE || action == A_APPEND ? wp + 2 : wp;
}

static void check_cell(enum action action, uint8_t state, enum resources res)
{
	const struct cell *c = &table[action][state];
	uint16_t want = res == NO_ACTIVE && c->no_active ? c->no_active
			: res == NO_OPEN && c->no_open	 ? c->no_open
							 : c->status;
	uint8_t next = want || !c->next ? state : c->next;
	struct zones zs;
	struct zone_info before, after;
	uint32_t open, active;
	uint16_t status;
	bool evicts;

	prepare(&zs, state, res);
	before = zone_get(&zs, 3);
	open = zones_nr_open(&zs);
	active = zones_nr_active(&zs);
	status = perform(&zs, 3, action);
	after = zone_get(&zs, 3);
	if (status != want || after.state != next)
		fail_msg("action %d in state %x with resources %d: status %x for %x, next %x",
			 action, state, res, status, want, after.state);
	evicts = res == CAN_EVICT && !is_open(state) && is_open(next);
	assert_int_equal(after.wp, want ? before.wp : expected_wp(before.wp, action, next));
	assert_int_equal(zones_nr_open(&zs), open - is_open(state) + is_open(next) - evicts);
	assert_int_equal(zones_nr_active(&zs), active - is_active(state) + is_active(next));
	if (res == CAN_EVICT)
		assert_int_equal(state_of(&zs, 0), evicts ? ZS_CLOSED : ZS_IMP);
	zones_assert(&zs);
	zones_free(&zs);
}

static void every_cell(void **ctx)
{
	int action, res;
	size_t i;

	(void)ctx;
	for (action = 0; action < NR_ACTIONS; action++)
		for (i = 0; i < sizeof(states); i++)
			for (res = 0; res < NR_RESOURCES; res++)
				check_cell(action, states[i], res);
}

/* Select All: what each state becomes. */
static void select_all_touches_the_eligible_only(void **ctx)
{
	static const struct {
		uint8_t action, next[7];
	} rows[] = {
		{ OPEN, { ZS_EMPTY, ZS_IMP, ZS_EXP, ZS_EXP, ZS_RO, ZS_FULL, ZS_OFF } },
		{ CLOSE, { ZS_EMPTY, ZS_CLOSED, ZS_CLOSED, ZS_CLOSED, ZS_RO, ZS_FULL, ZS_OFF } },
		{ FINISH, { ZS_EMPTY, ZS_FULL, ZS_FULL, ZS_FULL, ZS_RO, ZS_FULL, ZS_OFF } },
		{ RESET, { ZS_EMPTY, ZS_EMPTY, ZS_EMPTY, ZS_EMPTY, ZS_RO, ZS_EMPTY, ZS_OFF } },
		{ OFFLINE, { ZS_EMPTY, ZS_IMP, ZS_EXP, ZS_CLOSED, ZS_OFF, ZS_FULL, ZS_OFF } },
	};
	struct zones zs;
	size_t r, i;

	(void)ctx;
	for (r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		zones_init(&zs, ZSZE, ZCAP, NR, 0, 0);
		for (i = 0; i < 7; i++)
			bring(&zs, i, states[i]);
		assert_int_equal(act(&zs, ZONE_ALL, rows[r].action), 0);
		for (i = 0; i < 7; i++)
			assert_int_equal(state_of(&zs, i), rows[r].next[i]);
		zones_assert(&zs);
		assert_int_equal(act(&zs, ZONE_ALL, rows[r].action), 0); /* nothing left: well */
		zones_free(&zs);
	}
}

static void open_all_opens_all_or_none(void **ctx)
{
	struct zones zs;
	uint32_t i;

	(void)ctx;
	zones_init(&zs, ZSZE, ZCAP, NR, 3, 0);
	for (i = 0; i < 4; i++)
		bring(&zs, i, ZS_CLOSED);
	assert_int_equal(act(&zs, ZONE_ALL, OPEN), OPENS);
	assert_int_equal(zones_count(&zs, ZS_CLOSED), 4);
	assert_int_equal(act(&zs, 0, RESET), 0);
	assert_int_equal(act(&zs, ZONE_ALL, OPEN), 0);
	assert_int_equal(zones_count(&zs, ZS_EXP), 3);
	zones_free(&zs);
}

static void write_checks_come_in_order(void **ctx)
{
	struct zones zs;

	(void)ctx;
	zones_init(&zs, ZSZE, ZCAP, NR, 1, 1);
	bring(&zs, 0, ZS_EXP);
	/* Zone 1 has no resources: position and boundary are judged before that. */
	assert_int_equal(write_at(&zs, ZSZE + 1, 1), BAD_WRITE);
	assert_int_equal(write_at(&zs, ZSZE + 1, ZCAP + 1), BAD_WRITE);
	assert_int_equal(write_at(&zs, ZSZE, ZCAP + 1), BOUNDARY);
	assert_int_equal(append_to(&zs, 1, ZCAP + 1), BOUNDARY);
	assert_int_equal(append_to(&zs, 1, ZCAP), ACTIVES);
	zs.max_active = 0;
	assert_int_equal(append_to(&zs, 1, ZCAP), OPENS);
	assert_int_equal(state_of(&zs, 1), ZS_EMPTY);
	/* State comes before position. */
	assert_int_equal(append_to(&zs, 0, ZCAP - 1), 0);
	assert_int_equal(state_of(&zs, 0), ZS_FULL);
	assert_int_equal(write_at(&zs, 1, 1), IS_FULL);
	zones_free(&zs);
}

static void a_refused_append_does_not_move(void **ctx)
{
	struct zones zs;
	uint64_t lba = 0;

	(void)ctx;
	zones_init(&zs, ZSZE, ZCAP, NR, 0, 0);
	assert_int_equal(append_to(&zs, 0, 4), 0);
	assert_int_equal(append_to(&zs, 0, 3), BOUNDARY);
	assert_int_equal(do_write(&zs, &lba, 2, true), 0);
	assert_int_equal(lba, 4);
	assert_int_equal(state_of(&zs, 0), ZS_FULL);
	zones_free(&zs);
}

static void the_least_recently_used_is_closed(void **ctx)
{
	static const uint32_t order[] = { 2, 0, 1 };
	struct zones zs;
	uint32_t i;

	(void)ctx;
	zones_init(&zs, ZSZE, ZCAP, NR, 4, 0);
	bring(&zs, 7, ZS_EXP); /* never closed for another */
	for (i = 0; i < 3; i++)
		bring(&zs, i, ZS_IMP);
	assert_int_equal(append_to(&zs, 0, 1), 0); /* used again: 1, 2, 0 */
	assert_int_equal(append_to(&zs, 1, 1), 0); /* 2, 0, 1 */
	for (i = 0; i < 3; i++) {
		assert_int_equal(append_to(&zs, 3 + i, 1), 0);
		assert_int_equal(state_of(&zs, order[i]), ZS_CLOSED);
		assert_int_equal(zones_nr_open(&zs), 4);
		zones_assert(&zs);
	}
	assert_int_equal(state_of(&zs, 7), ZS_EXP);
	zones_free(&zs);
}

static void a_refused_write_closes_nobody(void **ctx)
{
	struct zones zs;

	(void)ctx;
	zones_init(&zs, ZSZE, ZCAP, NR, 1, 1);
	bring(&zs, 0, ZS_IMP);
	assert_int_equal(append_to(&zs, 1, 1), ACTIVES);
	zs.max_active = 0;
	assert_int_equal(write_at(&zs, ZSZE + 2, 1), BAD_WRITE);
	assert_int_equal(state_of(&zs, 0), ZS_IMP);
	zones_free(&zs);
}

static void a_closed_zone_may_open_at_the_active_limit(void **ctx)
{
	struct zones zs;

	(void)ctx;
	zones_init(&zs, ZSZE, ZCAP, NR, 1, 2);
	bring(&zs, 0, ZS_CLOSED);
	bring(&zs, 1, ZS_IMP);
	assert_int_equal(append_to(&zs, 0, 1), 0);
	assert_int_equal(state_of(&zs, 0), ZS_IMP);
	assert_int_equal(state_of(&zs, 1), ZS_CLOSED);
	zones_free(&zs);
}

static void a_zone_opened_and_not_written_closes_to_empty(void **ctx)
{
	struct zones zs;

	(void)ctx;
	zones_init(&zs, ZSZE, ZCAP, NR, 0, 0);
	assert_int_equal(act(&zs, 0, OPEN), 0);
	assert_int_equal(state_of(&zs, 0), ZS_EXP);
	assert_int_equal(act(&zs, 0, CLOSE), 0);
	assert_int_equal(state_of(&zs, 0), ZS_EMPTY);
	assert_int_equal(zones_nr_active(&zs), 0);
	zones_free(&zs);
}

static void filling_a_zone_frees_its_resources(void **ctx)
{
	static const uint8_t from[] = { ZS_EMPTY, ZS_IMP, ZS_EXP, ZS_CLOSED };
	struct zones zs;
	size_t i;

	(void)ctx;
	for (i = 0; i < sizeof(from); i++) {
		zones_init(&zs, ZSZE, ZCAP, NR, 1, 1);
		bring(&zs, 0, from[i]);
		assert_int_equal(append_to(&zs, 0, from[i] == ZS_EMPTY ? ZCAP : ZCAP - 1), 0);
		assert_int_equal(state_of(&zs, 0), ZS_FULL);
		assert_int_equal(zones_nr_open(&zs), 0);
		assert_int_equal(zones_nr_active(&zs), 0);
		zones_assert(&zs);
		zones_free(&zs);
	}
}

static void zones_come_back_as_their_write_pointers_say(void **ctx)
{
	static const struct {
		uint64_t wp;
		uint8_t state;
	} rows[] = { { 0, ZS_EMPTY },	{ 1, ZS_CLOSED }, { ZCAP - 1, ZS_CLOSED },
		     { ZCAP, ZS_FULL }, { 7, ZS_FULL },	  { ZSZE, ZS_FULL } };
	struct zones zs;
	uint32_t i;

	(void)ctx;
	zones_init(&zs, ZSZE, ZCAP, NR, 0, 0);
	for (i = 0; i < 6; i++) {
		zones_load(&zs, i, i * ZSZE + rows[i].wp);
		assert_int_equal(state_of(&zs, i), rows[i].state);
	}
	zones_assert(&zs);
	zones_free(&zs);
}

static void limits_hold_at_once_after_reopening(void **ctx)
{
	struct zones zs;
	uint32_t i;

	(void)ctx;
	zones_init(&zs, ZSZE, ZCAP, NR, 2, 2);
	for (i = 0; i < 4; i++) /* more than the limit: another program made them */
		zones_load(&zs, i, i * ZSZE + 1);
	assert_int_equal(zones_nr_active(&zs), 4);
	assert_int_equal(append_to(&zs, 5, 1), ACTIVES);
	assert_int_equal(act(&zs, 5, OPEN), ACTIVES);
	assert_int_equal(append_to(&zs, 0, 1), 0); /* active already */
	for (i = 0; i < 3; i++)
		assert_int_equal(act(&zs, i, FINISH), 0);
	assert_int_equal(append_to(&zs, 5, 1), 0);
	zones_assert(&zs);
	zones_free(&zs);
}

static void the_open_limit_is_never_above_the_active_limit(void **ctx)
{
	struct zones zs;

	(void)ctx;
	zones_init(&zs, ZSZE, ZCAP, NR, 0, 3);
	assert_int_equal(zs.max_open, 3);
	zones_free(&zs);
	zones_init(&zs, ZSZE, ZCAP, NR, 5, 3);
	assert_int_equal(zs.max_open, 3);
	zones_free(&zs);
	zones_init(&zs, ZSZE, ZCAP, NR, 5, 0);
	assert_int_equal(zs.max_open, 5);
	assert_int_equal(zs.max_active, 0);
	zones_free(&zs);
}

struct told {
	unsigned int calls;
	uint32_t zone;
	uint64_t wp;
};

static void note_advance(void *arg, uint32_t zone, uint64_t wp)
{
	struct told *told = arg;

	told->calls++;
	told->zone = zone;
	told->wp = wp;
}

static void the_store_is_told_of_every_advance(void **ctx)
{
	struct told told = { 0 };
	struct zone_items out;
	struct zone_io io[3];
	struct zones zs;

	(void)ctx;
	zones_init(&zs, ZSZE, ZCAP, NR, 0, 0);
	zones_tell(&zs, note_advance, &told);
	append_to(&zs, 2, 1);
	assert_int_equal(told.calls, 1);
	assert_int_equal(told.zone, 2);
	assert_int_equal(told.wp, 2 * ZSZE + 1);
	for (int i = 0; i < 3; i++) {
		io[i] = (struct zone_io){ .lba = 5 * ZSZE, .nlb = 2 };
		assert_int_equal(zone_write_begin(&zs, &io[i], true), 0);
	}
	zone_items_init(&out);
	zone_write_end(&zs, &io[1], 0, &out);
	zone_write_end(&zs, &io[2], NVME_SC_INTERNAL, &out);
	assert_int_equal(told.calls, 1); /* a gap below, a failure: nothing to tell */
	zone_write_end(&zs, &io[0], 0, &out);
	assert_int_equal(told.calls, 2); /* the first two */
	assert_int_equal(told.zone, 5);
	assert_int_equal(told.wp, 5 * ZSZE + 4);
	zones_free(&zs);
}

static void a_million_zones_work(void **ctx)
{
	struct zones zs;
	uint32_t i;

	(void)ctx;
	assert_int_equal(zones_init(&zs, 16, 16, ZONES_MAX, 0, 0), 0);
	for (i = 0; i < ZONES_MAX; i++)
		zones_load(&zs, i, i * 16ull + i % 17);
	assert_int_equal(zones_count(&zs, ZS_EMPTY), (ZONES_MAX + 16) / 17);
	assert_int_equal(act(&zs, ZONE_ALL, RESET), 0);
	assert_int_equal(zones_count(&zs, ZS_EMPTY), ZONES_MAX);
	assert_int_equal(append_to(&zs, ZONES_MAX - 1, 16), 0);
	assert_int_equal(zones_count(&zs, ZS_FULL), 1);
	zones_assert(&zs);
	zones_free(&zs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_cell),
		cmocka_unit_test(select_all_touches_the_eligible_only),
		cmocka_unit_test(open_all_opens_all_or_none),
		cmocka_unit_test(write_checks_come_in_order),
		cmocka_unit_test(a_refused_append_does_not_move),
		cmocka_unit_test(the_least_recently_used_is_closed),
		cmocka_unit_test(a_refused_write_closes_nobody),
		cmocka_unit_test(a_closed_zone_may_open_at_the_active_limit),
		cmocka_unit_test(a_zone_opened_and_not_written_closes_to_empty),
		cmocka_unit_test(filling_a_zone_frees_its_resources),
		cmocka_unit_test(zones_come_back_as_their_write_pointers_say),
		cmocka_unit_test(limits_hold_at_once_after_reopening),
		cmocka_unit_test(the_open_limit_is_never_above_the_active_limit),
		cmocka_unit_test(the_store_is_told_of_every_advance),
		cmocka_unit_test(a_million_zones_work),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
