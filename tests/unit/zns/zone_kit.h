/* SPDX-License-Identifier: MIT */
/* Short words for what the tests of the zone state machine do again and again. */
#ifndef TESTS_ZNS_ZONE_KIT_H
#define TESTS_ZNS_ZONE_KIT_H

#include "cmocka_all.h"
#include "zone.h"

#define DNR(sc)	  (NVME_ZNS_STATUS(sc) | NVME_SC_DNR)
#define BOUNDARY  DNR(NVME_SC_ZNS_BOUNDARY_ERROR)
#define IS_FULL	  DNR(NVME_SC_ZNS_FULL)
#define IS_RO	  DNR(NVME_SC_ZNS_READ_ONLY)
#define IS_OFF	  DNR(NVME_SC_ZNS_OFFLINE)
#define BAD_WRITE DNR(NVME_SC_ZNS_INVALID_WRITE)
#define ACTIVES	  DNR(NVME_SC_ZNS_TOO_MANY_ACTIVE)
#define OPENS	  DNR(NVME_SC_ZNS_TOO_MANY_OPENS)
#define BAD_MOVE  DNR(NVME_SC_ZNS_INVAL_TRANSITION)
#define FAULT	  ZONE_MEDIA_STATUS(NVME_SC_WRITE_FAULT)

#define OPEN	NVME_ZNS_ZSA_OPEN
#define CLOSE	NVME_ZNS_ZSA_CLOSE
#define FINISH	NVME_ZNS_ZSA_FINISH
#define RESET	NVME_ZNS_ZSA_RESET
#define OFFLINE NVME_ZNS_ZSA_OFFLINE

#define ZS_EMPTY  NVME_ZNS_ZS_EMPTY
#define ZS_IMP	  NVME_ZNS_ZS_IMPL_OPEN
#define ZS_EXP	  NVME_ZNS_ZS_EXPL_OPEN
#define ZS_CLOSED NVME_ZNS_ZS_CLOSED
#define ZS_RO	  NVME_ZNS_ZS_READ_ONLY
#define ZS_FULL	  NVME_ZNS_ZS_FULL
#define ZS_OFF	  NVME_ZNS_ZS_OFFLINE

static inline struct zone_info zone_get(struct zones *zs, uint32_t zone)
{
	struct zone_info info;

	zones_snapshot(zs, zone, 1, &info);
	return info;
}

static inline uint8_t state_of(struct zones *zs, uint32_t zone)
{
	return zone_get(zs, zone).state;
}

/* A write or append from begin to end; LBA gets where it landed. */
static inline uint16_t do_write(struct zones *zs, uint64_t *lba, uint32_t nlb, bool append)
{
	struct zone_io io = { .lba = *lba, .nlb = nlb };
	struct zone_items out;
	uint16_t status = zone_write_begin(zs, &io, append);

	if (status)
		return status;
	zone_items_init(&out);
	zone_write_end(zs, &io, 0, &out);
	assert_ptr_equal(zone_items_take(&out), &io.item);
	assert_null(zone_items_take(&out));
	*lba = io.lba;
	return io.item.status;
}

static inline uint16_t write_at(struct zones *zs, uint64_t lba, uint32_t nlb)
{
	return do_write(zs, &lba, nlb, false);
}

static inline uint16_t append_to(struct zones *zs, uint32_t zone, uint32_t nlb)
{
	uint64_t lba = zone_start(zs, zone);

	return do_write(zs, &lba, nlb, true);
}

static inline void expect(struct zone_items *out, void *item, enum zone_event event, uint16_t status)
{
	struct zone_item *got = zone_items_take(out);

	assert_ptr_equal(got, item);
	assert_int_equal(got->event, event);
	if (event == ZONE_COMPLETE)
		assert_int_equal(got->status, status);
}

static inline void expect_none(struct zone_items *out)
{
	assert_null(zone_items_take(out));
}

/* Does the work of a claim that has started: every zone ends with OUTCOME. */
static inline void run_claim(struct zones *zs, struct zone_claim *claim, enum zone_outcome outcome,
			     struct zone_items *out)
{
	uint32_t i = 0;
	uint64_t wp;

	while ((i = zone_claim_next(zs, claim, i, &wp)) != ZONE_NONE) {
		zone_claim_done(zs, claim, i, outcome);
		i++;
	}
	zone_claim_end(zs, claim, out);
}

/* An action on a quiet zone, or all. */
static inline uint16_t act(struct zones *zs, uint32_t zone, uint8_t action)
{
	struct zone_claim claim;
	struct zone_items out;
	uint16_t status = zone_manage(zs, &claim, zone, action);

	if (!status && claim.nr) {
		zone_items_init(&out);
		run_claim(zs, &claim, ZONE_OK, &out);
		assert_null(zone_items_take(&out));
	}
	return status;
}

/* Brings an Empty ZONE into STATE; where that leaves data, it is one LBA (Full: all). */
static inline void bring(struct zones *zs, uint32_t zone, uint8_t state)
{
	switch (state) {
	case ZS_EMPTY:
		break;
	case ZS_IMP:
		assert_int_equal(append_to(zs, zone, 1), 0);
		break;
	case ZS_EXP:
		assert_int_equal(append_to(zs, zone, 1), 0);
		assert_int_equal(act(zs, zone, OPEN), 0);
		break;
	case ZS_CLOSED:
		assert_int_equal(append_to(zs, zone, 1), 0);
		assert_int_equal(act(zs, zone, CLOSE), 0);
		break;
	case ZS_FULL:
		assert_int_equal(append_to(zs, zone, (uint32_t)zs->zcap), 0);
		break;
	default:
		assert_int_equal(append_to(zs, zone, 1), 0);
		zone_retire(zs, zone, state == ZS_OFF);
	}
	assert_int_equal(state_of(zs, zone), state);
}

#endif
