// SPDX-License-Identifier: MIT
/*
 * The ZNS namespace as a host meets it, over the wire. Every group serves an image of its own:
 *
 *	small	16 zones of 4 MiB, of which 3 MiB may be written; 3 open, 5 active; LBA 4096 and 512
 *	seed	12 zones of 64 MiB; 6 open, 8 active
 *	huge	2^20 zones in 4 TiB, LBA 512, so that LBAs need more than 32 bits
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "daemon.h"

static struct rig rig;
static struct host_ctrl ctrl;
static struct host_queue *q;
static struct rig_ns ns;
static uint8_t block[4096];
static uint8_t big[(1 << 20) + 4096];

static void serve(const char *options, const char *ns_options)
{
	char image[128];

	rig_init(&rig);
	assert_int_equal(rig_create(&rig, rig.img, options), 0);
	snprintf(image, sizeof(image), "%s,%s", rig.img, ns_options);
	assert_int_equal(rig_serve(&rig, image), 0);
	rig_attach(&rig, &ctrl, 1);
	q = &ctrl.io[0];
	rig_identify(&ctrl, 1, &ns);
}

#define SMALL                                                                                      \
	"size=64M,zone.size=4M,zone.capacity=3M,zone.max_open_zones=3,zone.max_active_zones=5,"    \
	"zone.mode=host-managed"

static int serve_small_4096(void **state)
{
	(void)state;
	serve(SMALL, "lba=4096");
	return 0;
}

static int serve_small_512(void **state)
{
	(void)state;
	serve(SMALL, "lba=512");
	return 0;
}

static int serve_seed(void **state)
{
	(void)state;
	serve(RIG_SEED, "lba=4096");
	return 0;
}

static int serve_huge(void **state)
{
	(void)state;
	serve("size=4T,zone.size=4M,zone.mode=host-managed", "lba=512");
	return 0;
}

static int unserve(void **state)
{
	int status;

	(void)state;
	host_detach(&ctrl);
	status = rig_stop(&rig, SIGTERM, 10000 * rig_slowness(), NULL);
	if (!status)
		status = rig_check(&rig, rig.img);
	rig_end(&rig);
	return status ? -1 : 0;
}

/* Before every test: all zones empty. */
static int fresh(void **state)
{
	(void)state;
	return host_zone(q, 1, 0, NVME_ZNS_ZSA_RESET, true);
}

static uint64_t zcap(void)
{
	return le64toh(rig_zone(q, &ns, 0).zcap);
}

static int act(uint64_t zone, enum nvme_zns_send_action zsa)
{
	return host_zone(q, 1, zone * ns.zsze, zsa, false);
}

static int write_block(uint64_t lba)
{
	return host_write(q, 1, lba, 1, block, ns.lba);
}

/* --- what the drive says it is --- */

static void identify_tells_the_geometry_of_the_image(void **state)
{
	struct nvme_id_ns id;
	struct nvme_zns_id_ns zid;

	(void)state;
	assert_int_equal(ns.zones, 16);
	assert_int_equal(ns.zsze * ns.lba, 4 << 20);
	assert_int_equal(zcap() * ns.lba, 3 << 20);
	assert_int_equal(ns.open, 3);
	assert_int_equal(ns.active, 5);
	assert_true(ns.zasl <= ns.mdts);
	assert_int_equal(host_identify(&ctrl.admin, NVME_IDENTIFY_CNS_NS, 1, 0, &id), 0);
	assert_true(id.ncap && le64toh(id.ncap) <= ns.nsze);
	assert_int_equal(
		host_identify(&ctrl.admin, NVME_IDENTIFY_CNS_CSI_NS, 1, NVME_CSI_ZNS, &zid), 0);
	assert_int_equal(zid.zoc, 0);
}

static void the_descriptor_list_has_uuid_nguid_and_csi(void **state)
{
	uint8_t list[4096];
	unsigned int at, seen = 0;

	(void)state;
	assert_int_equal(host_identify(&ctrl.admin, NVME_IDENTIFY_CNS_NS_DESC_LIST, 1, 0, list), 0);
	for (at = 0; at + 4 < sizeof(list) && list[at + 1]; at += 4 + list[at + 1]) {
		seen |= 1u << list[at];
		if (list[at] == NVME_NIDT_CSI)
			assert_int_equal(list[at + 4], NVME_CSI_ZNS);
	}
	assert_int_equal(seen, 1 << NVME_NIDT_NGUID | 1 << NVME_NIDT_UUID | 1 << NVME_NIDT_CSI);
}

static void the_effects_log_supports_the_zoned_commands(void **state)
{
	struct nvme_cmd_effects_log log;

	(void)state;
	assert_int_equal(host_get_log(&ctrl.admin, NVME_LOG_LID_CMD_EFFECTS, 0, NVME_CSI_ZNS, 0,
				      &log, sizeof(log)),
			 0);
	assert_true(le32toh(log.iocs[nvme_zns_cmd_append]) & NVME_CMD_EFFECTS_CSUPP);
	assert_true(le32toh(log.iocs[nvme_zns_cmd_mgmt_send]) & NVME_CMD_EFFECTS_CSUPP);
	assert_true(le32toh(log.iocs[nvme_zns_cmd_mgmt_recv]) & NVME_CMD_EFFECTS_CSUPP);
}

/* --- Report Zones --- */

static void a_report_fits_every_length(void **state)
{
	struct nvme_zone_report *rep = (void *)big;
	uint32_t len;

	(void)state;
	for (len = 64; len <= 64 + 3 * 64; len += 4) {
		uint64_t fit = (len - 64) / 64;

		assert_int_equal(host_report(q, 1, 0, 0, 0, true, rep, len), 0);
		assert_int_equal(le64toh(rep->nr_zones), fit);
		assert_int_equal(host_report(q, 1, 0, 0, 0, false, rep, len), 0);
		assert_int_equal(le64toh(rep->nr_zones), ns.zones);
		if (fit)
			assert_int_equal(le64toh(rep->entries[fit - 1].zslba), (fit - 1) * ns.zsze);
	}
}

static void a_report_shorter_than_its_header_does_no_harm(void **state)
{
	uint32_t len;

	(void)state;
	for (len = 4; len < 64; len += 4)
		assert_true(host_report(q, 1, 0, 0, 0, true, big, len) >= 0);
}

static void a_report_starts_in_the_zone_of_its_slba(void **state)
{
	struct nvme_zone_report *rep = (void *)big;
	uint64_t slba[] = { ns.zsze, ns.zsze + 1, 2 * ns.zsze - 1 };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(slba) / sizeof(slba[0]); i++) {
		assert_int_equal(host_report(q, 1, slba[i], 0, 0, false, rep, 4096), 0);
		assert_int_equal(le64toh(rep->nr_zones), ns.zones - 1);
		assert_int_equal(le64toh(rep->entries[0].zslba), ns.zsze);
	}
	assert_int_equal(host_report(q, 1, ns.nsze - 1, 0, 0, false, rep, 4096), 0);
	assert_int_equal(le64toh(rep->nr_zones), 1);
	assert_int_equal(host_report(q, 1, ns.nsze, 0, 0, false, rep, 4096), NVME_SC_LBA_RANGE);
}

static void a_report_filters_by_state(void **state)
{
	static const uint64_t want[] = { 16, 12, 1, 1, 1, 1, 0, 0 };
	struct nvme_zone_report *rep = (void *)big;
	uint8_t filter;

	(void)state;
	assert_int_equal(write_block(1 * ns.zsze), 0);
	assert_int_equal(act(2, NVME_ZNS_ZSA_OPEN), 0);
	assert_int_equal(write_block(3 * ns.zsze), 0);
	assert_int_equal(act(3, NVME_ZNS_ZSA_CLOSE), 0);
	assert_int_equal(act(4, NVME_ZNS_ZSA_FINISH), 0);
	for (filter = 0; filter < 8; filter++) {
		assert_int_equal(host_report(q, 1, 0, 0, filter, false, rep, 4096), 0);
		assert_int_equal(le64toh(rep->nr_zones), want[filter]);
		if (filter >= 2 && want[filter])
			assert_int_equal(le64toh(rep->entries[0].zslba), (filter - 1) * ns.zsze);
	}
	assert_int_equal(host_report(q, 1, 0, 0, 8, false, rep, 4096), NVME_SC_INVALID_FIELD);
}

static void a_report_of_another_kind_is_refused(void **state)
{
	(void)state;
	assert_int_equal(host_report(q, 1, 0, 1, 0, false, big, 4096), NVME_SC_INVALID_FIELD);
	assert_int_equal(host_report(q, 1, 0, 2, 0, false, big, 4096), NVME_SC_INVALID_FIELD);
}

/* --- states --- */

/* Brings zone 5 into a state. */
static void prepare(uint8_t state)
{
	assert_int_equal(act(5, NVME_ZNS_ZSA_RESET), 0);
	if (state == NVME_ZNS_ZS_EXPL_OPEN)
		assert_int_equal(act(5, NVME_ZNS_ZSA_OPEN), 0);
	if (state != NVME_ZNS_ZS_EMPTY)
		assert_int_equal(write_block(5 * ns.zsze), 0);
	if (state == NVME_ZNS_ZS_CLOSED)
		assert_int_equal(act(5, NVME_ZNS_ZSA_CLOSE), 0);
	if (state == NVME_ZNS_ZS_FULL)
		assert_int_equal(act(5, NVME_ZNS_ZSA_FINISH), 0);
	assert_zone(q, &ns, 5, state, state != NVME_ZNS_ZS_EMPTY);
}

static void actions_lead_where_the_state_machine_says(void **state)
{
	enum { E = NVME_ZNS_ZS_EMPTY, I, X, C, F = NVME_ZNS_ZS_FULL, NO = 0 };
	static const uint8_t from[] = { E, I, X, C, F };
	static const struct {
		enum nvme_zns_send_action zsa;
		uint8_t to[5];
	} table[] = {
		{ NVME_ZNS_ZSA_OPEN, { X, X, X, X, NO } },
		{ NVME_ZNS_ZSA_CLOSE, { NO, C, C, C, NO } },
		{ NVME_ZNS_ZSA_FINISH, { F, F, F, F, F } },
		{ NVME_ZNS_ZSA_RESET, { E, E, E, E, E } },
		{ NVME_ZNS_ZSA_OFFLINE, { NO, NO, NO, NO, NO } },
	};
	size_t a, s;

	(void)state;
	for (a = 0; a < sizeof(table) / sizeof(table[0]); a++) {
		for (s = 0; s < sizeof(from); s++) {
			uint8_t to = table[a].to[s];

			prepare(from[s]);
			assert_int_equal(act(5, table[a].zsa),
					 to == NO ? ZSTATUS(INVAL_TRANSITION) : 0);
			if (to == NO)
				to = from[s];
			assert_zone(q, &ns, 5, to, to != E && (from[s] != E));
		}
	}
}

static void closing_an_open_zone_without_data_makes_it_empty(void **state)
{
	(void)state;
	assert_int_equal(act(5, NVME_ZNS_ZSA_OPEN), 0);
	assert_int_equal(act(5, NVME_ZNS_ZSA_CLOSE), 0);
	assert_zone(q, &ns, 5, NVME_ZNS_ZS_EMPTY, 0);
}

static void a_zone_is_full_at_its_capacity(void **state)
{
	(void)state;
	rig_write(q, &ns, 0, zcap() - 1, 1);
	assert_zone(q, &ns, 0, NVME_ZNS_ZS_IMPL_OPEN, zcap() - 1);
	assert_int_equal(host_write(q, 1, zcap() - 1, 2, big, 2 * ns.lba), ZSTATUS(BOUNDARY_ERROR));
	assert_int_equal(host_append(q, 1, 0, 2, big, 2 * ns.lba, NULL), ZSTATUS(BOUNDARY_ERROR));
	assert_int_equal(write_block(zcap() - 1), 0);
	assert_zone(q, &ns, 0, NVME_ZNS_ZS_FULL, 0);
	assert_int_equal(write_block(zcap()), ZSTATUS(FULL));
	assert_int_equal(host_append(q, 1, 0, 1, block, ns.lba, NULL), ZSTATUS(FULL));
	rig_verify(q, &ns, 0, zcap() - 1, 1);
}

static void select_all_acts_on_what_is_eligible(void **state)
{
	(void)state;
	assert_int_equal(write_block(0), 0);
	assert_int_equal(act(1, NVME_ZNS_ZSA_OPEN), 0);
	assert_int_equal(act(2, NVME_ZNS_ZSA_FINISH), 0);
	assert_int_equal(host_zone(q, 1, 0, NVME_ZNS_ZSA_CLOSE, true), 0);
	assert_zone(q, &ns, 0, NVME_ZNS_ZS_CLOSED, 1);
	assert_zone(q, &ns, 1, NVME_ZNS_ZS_EMPTY, 0);
	assert_zone(q, &ns, 2, NVME_ZNS_ZS_FULL, 0);
	assert_int_equal(host_zone(q, 1, 0, NVME_ZNS_ZSA_OPEN, true), 0);
	assert_zone(q, &ns, 0, NVME_ZNS_ZS_EXPL_OPEN, 1);
	assert_int_equal(host_zone(q, 1, 0, NVME_ZNS_ZSA_FINISH, true), 0);
	assert_zone(q, &ns, 0, NVME_ZNS_ZS_FULL, 0);
	assert_zone(q, &ns, 3, NVME_ZNS_ZS_EMPTY, 0);
	assert_int_equal(host_zone(q, 1, 0, NVME_ZNS_ZSA_RESET, true), 0);
	assert_zone(q, &ns, 0, NVME_ZNS_ZS_EMPTY, 0);
	assert_zone(q, &ns, 2, NVME_ZNS_ZS_EMPTY, 0);
}

static void an_action_needs_the_start_of_a_zone(void **state)
{
	(void)state;
	assert_int_equal(host_zone(q, 1, 1, NVME_ZNS_ZSA_OPEN, false), NVME_SC_INVALID_FIELD);
	assert_int_equal(host_zone(q, 1, ns.nsze, NVME_ZNS_ZSA_OPEN, false), NVME_SC_LBA_RANGE);
	assert_int_equal(host_zone(q, 1, 0, 0, false), NVME_SC_INVALID_FIELD);
	assert_int_equal(host_zone(q, 1, 0, 0x7f, false), NVME_SC_INVALID_FIELD);
}

/* --- writing --- */

static void writes_are_refused_with_the_right_status(void **state)
{
	(void)state;
	assert_int_equal(write_block(1), ZSTATUS(INVALID_WRITE));
	assert_int_equal(write_block(0), 0);
	assert_int_equal(write_block(0), ZSTATUS(INVALID_WRITE));
	assert_int_equal(write_block(2), ZSTATUS(INVALID_WRITE));
	assert_int_equal(write_block(ns.nsze), NVME_SC_LBA_RANGE);
	assert_int_equal(write_block(UINT64_MAX), NVME_SC_LBA_RANGE);
	assert_int_equal(host_write(q, 1, 1, 2, block, ns.lba), NVME_SC_SGL_INVALID_DATA);
	assert_int_equal(host_write(q, 0, 1, 1, block, ns.lba), NVME_SC_INVALID_NS);
	assert_int_equal(host_write(q, 2, 1, 1, block, ns.lba), NVME_SC_INVALID_NS);
	assert_int_equal(host_write(q, UINT32_MAX, 1, 1, block, ns.lba), NVME_SC_INVALID_NS);
	assert_zone(q, &ns, 0, NVME_ZNS_ZS_IMPL_OPEN, 1);
}

static void appends_are_refused_with_the_right_status(void **state)
{
	uint32_t most = ns.zasl / ns.lba;

	(void)state;
	assert_int_equal(host_append(q, 1, 1, 1, block, ns.lba, NULL), NVME_SC_INVALID_FIELD);
	assert_int_equal(host_append(q, 1, ns.nsze, 1, block, ns.lba, NULL), NVME_SC_LBA_RANGE);
	if (ns.zasl < sizeof(big))
		assert_int_equal(host_append(q, 1, 0, most + 1, big, (most + 1) * ns.lba, NULL),
				 NVME_SC_INVALID_FIELD);
	assert_int_equal(host_append(q, 1, 0, most, big, most * ns.lba, NULL), 0);
	assert_zone(q, &ns, 0, NVME_ZNS_ZS_IMPL_OPEN, most);
}

static void what_the_drive_cannot_do_is_an_invalid_opcode(void **state)
{
	static const uint8_t opcodes[] = {
		nvme_cmd_write_uncor, nvme_cmd_compare, nvme_cmd_copy, 0x7b, 0x80, 0xff
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(opcodes); i++) {
		struct host_io io = { .sqe = { .opcode = opcodes[i], .nsid = htole32(1) } };

		assert_int_equal(host_cmd(q, &io), NVME_SC_INVALID_OPCODE);
	}
}

static void more_than_mdts_is_refused(void **state)
{
	uint32_t blocks = ns.mdts / ns.lba;

	(void)state;
	assert_true(ns.mdts + 4096 <= sizeof(big));
	assert_int_equal(host_write(q, 1, 0, blocks + 1, big, ns.mdts + ns.lba),
			 NVME_SC_INVALID_FIELD);
	assert_int_equal(host_read(q, 1, 0, blocks + 1, big, ns.mdts + ns.lba),
			 NVME_SC_INVALID_FIELD);
	assert_int_equal(host_write(q, 1, 0, blocks, big, ns.mdts), 0);
	assert_int_equal(host_read(q, 1, 0, blocks, big, ns.mdts), 0);
}

static void data_of_all_sizes_comes_back(void **state)
{
	static const uint32_t sizes[] = { 1, 2, 3, 7, 8, 16, 31, 64, 100 };
	uint64_t lba = 0;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t len = sizes[i] * ns.lba;

		host_pattern(big, len, lba * ns.lba, 42);
		assert_int_equal(host_write(q, 1, lba, sizes[i], big, len), 0);
		lba += sizes[i];
	}
	rig_verify(q, &ns, 0, lba, 42);
	for (i = 0; i < lba; i += 13)
		rig_verify(q, &ns, i, lba - i < 5 ? lba - i : 5, 42);
}

static void a_sync_write_and_a_flush_are_answered(void **state)
{
	struct host_io io;

	(void)state;
	host_set_rw(&io, nvme_cmd_write, 1, 0, 1, block, ns.lba);
	io.sqe.cdw12 |= htole32(1u << 30);
	assert_int_equal(host_cmd(q, &io), 0);
	host_set_rw(&io, nvme_zns_cmd_append, 1, 0, 1, block, ns.lba);
	io.sqe.cdw12 |= htole32(1u << 30);
	assert_int_equal(host_cmd(q, &io), 0);
	assert_int_equal(le64toh(io.cqe.result), 1);
	assert_int_equal(host_flush(q, 1), 0);
	assert_int_equal(host_flush(q, UINT32_MAX), 0);
	assert_int_equal(host_flush(q, 7), NVME_SC_INVALID_NS);
}

/* --- reading --- */

static void unwritten_blocks_read_as_zeroes(void **state)
{
	(void)state;
	rig_write(q, &ns, 0, 10, 3);
	rig_verify_zeroes(q, &ns, 10, 20);
	assert_int_equal(act(0, NVME_ZNS_ZSA_FINISH), 0);
	rig_verify_zeroes(q, &ns, 10, 20);
	rig_verify(q, &ns, 0, 10, 3);
	assert_int_equal(act(0, NVME_ZNS_ZSA_RESET), 0);
	rig_verify_zeroes(q, &ns, 0, 10);
	assert_int_equal(host_read(q, 1, ns.nsze - 1, 1, block, ns.lba), 0);
	assert_int_equal(host_read(q, 1, ns.nsze - 1, 2, big, 2 * ns.lba), NVME_SC_LBA_RANGE);
}

static void a_read_across_zones_does_what_ozcs_says(void **state)
{
	uint32_t len = 8 * ns.lba;

	(void)state;
	rig_write(q, &ns, ns.zsze, 4, 5);
	memset(big, 0xff, len);
	if (!ns.razb) {
		assert_int_equal(host_read(q, 1, ns.zsze - 4, 8, big, len),
				 ZSTATUS(BOUNDARY_ERROR));
		return;
	}
	assert_int_equal(host_read(q, 1, ns.zsze - 4, 8, big, len), 0);
	assert_true(!big[0] && !memcmp(big, big + 1, len / 2 - 1));
	host_pattern(big, len / 2, ns.zsze * ns.lba, 5);
	assert_memory_equal(big, big + len / 2, 0);
	rig_verify(q, &ns, ns.zsze, 4, 5);
}

/* --- limits --- */

static void an_implicitly_open_zone_makes_room_for_another(void **state)
{
	uint64_t z;

	(void)state;
	for (z = 0; z < ns.open; z++)
		assert_int_equal(write_block(z * ns.zsze), 0);
	assert_int_equal(write_block(1), 0); /* zone 0 was used last; zone 1 is the oldest */
	assert_int_equal(write_block(z * ns.zsze), 0);
	assert_zone(q, &ns, 0, NVME_ZNS_ZS_IMPL_OPEN, 2);
	assert_zone(q, &ns, 1, NVME_ZNS_ZS_CLOSED, 1);
	assert_zone(q, &ns, 2, NVME_ZNS_ZS_IMPL_OPEN, 1);
	assert_zone(q, &ns, z, NVME_ZNS_ZS_IMPL_OPEN, 1);
}

static void more_than_the_active_limit_is_refused(void **state)
{
	uint64_t z;
	struct host_io io;

	(void)state;
	for (z = 0; z < ns.active; z++)
		assert_int_equal(write_block(z * ns.zsze), 0);
	host_set_rw(&io, nvme_cmd_write, 1, z * ns.zsze, 1, block, ns.lba);
	assert_int_equal(host_cmd(q, &io), ZSTATUS(TOO_MANY_ACTIVE));
	assert_true(io.dnr);
	assert_int_equal(host_append(q, 1, z * ns.zsze, 1, block, ns.lba, NULL),
			 ZSTATUS(TOO_MANY_ACTIVE));
	assert_int_equal(act(z, NVME_ZNS_ZSA_OPEN), ZSTATUS(TOO_MANY_ACTIVE));
	assert_zone(q, &ns, z, NVME_ZNS_ZS_EMPTY, 0);
	assert_int_equal(act(0, NVME_ZNS_ZSA_FINISH), 0);
	assert_int_equal(write_block(z * ns.zsze), 0);
}

static void explicitly_open_zones_are_not_closed_for_others(void **state)
{
	uint64_t z;

	(void)state;
	for (z = 0; z < ns.open; z++)
		assert_int_equal(act(z, NVME_ZNS_ZSA_OPEN), 0);
	assert_int_equal(write_block(z * ns.zsze), ZSTATUS(TOO_MANY_OPENS));
	assert_int_equal(act(z, NVME_ZNS_ZSA_OPEN), ZSTATUS(TOO_MANY_OPENS));
	assert_int_equal(act(0, NVME_ZNS_ZSA_CLOSE), 0);
	assert_int_equal(write_block(z * ns.zsze), 0);
}

/* --- 2^20 zones, 4 TiB --- */

static void all_zones_of_a_huge_drive_are_reported(void **state)
{
	struct nvme_zone_report *rep = (void *)big;
	uint32_t len = 1 << 20;
	uint64_t at = 0;

	(void)state;
	assert_int_equal(ns.zones, 1 << 20);
	while (at < ns.zones) {
		uint64_t i, n;

		assert_int_equal(host_report(q, 1, at * ns.zsze, 0, 0, true, rep, len), 0);
		n = le64toh(rep->nr_zones);
		assert_true(n && n <= len / 64 - 1);
		for (i = 0; i < n; i++)
			if (le64toh(rep->entries[i].zslba) != (at + i) * ns.zsze ||
			    rep->entries[i].zs >> 4 != NVME_ZNS_ZS_EMPTY)
				fail_msg("zone %llu is reported wrongly",
					 (unsigned long long)(at + i));
		at += n;
	}
	assert_int_equal(at, ns.zones);
}

static void an_append_far_up_returns_all_64_bits_of_its_lba(void **state)
{
	const uint64_t zones[] = { ns.zones - 1, (1ull << 32) / ns.zsze,
				   (1ull << 32) / ns.zsze - 1 };
	uint64_t alba;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(zones) / sizeof(zones[0]); i++) {
		uint64_t start = zones[i] * ns.zsze;

		host_pattern(big, 3 * ns.lba, start * ns.lba, 9);
		assert_int_equal(host_append(q, 1, start, 3, big, 3 * ns.lba, &alba), 0);
		assert_true(alba == start);
		host_pattern(big, ns.lba, (start + 3) * ns.lba, 9);
		assert_int_equal(host_append(q, 1, start, 1, big, ns.lba, &alba), 0);
		assert_true(alba == start + 3);
		rig_verify(q, &ns, start, 4, 9);
		assert_zone(q, &ns, zones[i], NVME_ZNS_ZS_IMPL_OPEN, 4);
	}
}

static void a_huge_drive_counts_by_state(void **state)
{
	struct nvme_zone_report *rep = (void *)big;

	(void)state;
	assert_int_equal(write_block(700000 * ns.zsze), 0);
	assert_int_equal(host_report(q, 1, 0, 0, 1, false, rep, 64), 0);
	assert_int_equal(le64toh(rep->nr_zones), ns.zones - 1);
	assert_int_equal(host_report(q, 1, 0, 0, 2, true, rep, 4096), 0);
	assert_int_equal(le64toh(rep->nr_zones), 1);
	assert_int_equal(le64toh(rep->entries[0].zslba), 700000 * ns.zsze);
}

#define t(name) cmocka_unit_test_setup(name, fresh)

int main(void)
{
	const struct CMUnitTest small[] = {
		t(identify_tells_the_geometry_of_the_image),
		t(the_descriptor_list_has_uuid_nguid_and_csi),
		t(the_effects_log_supports_the_zoned_commands),
		t(a_report_fits_every_length),
		t(a_report_shorter_than_its_header_does_no_harm),
		t(a_report_starts_in_the_zone_of_its_slba),
		t(a_report_filters_by_state),
		t(a_report_of_another_kind_is_refused),
		t(actions_lead_where_the_state_machine_says),
		t(closing_an_open_zone_without_data_makes_it_empty),
		t(a_zone_is_full_at_its_capacity),
		t(select_all_acts_on_what_is_eligible),
		t(an_action_needs_the_start_of_a_zone),
		t(writes_are_refused_with_the_right_status),
		t(appends_are_refused_with_the_right_status),
		t(what_the_drive_cannot_do_is_an_invalid_opcode),
		t(more_than_mdts_is_refused),
		t(data_of_all_sizes_comes_back),
		t(a_sync_write_and_a_flush_are_answered),
		t(unwritten_blocks_read_as_zeroes),
		t(a_read_across_zones_does_what_ozcs_says),
		t(an_implicitly_open_zone_makes_room_for_another),
		t(more_than_the_active_limit_is_refused),
		t(explicitly_open_zones_are_not_closed_for_others),
	};
	const struct CMUnitTest seed[] = {
		t(an_implicitly_open_zone_makes_room_for_another),
		t(more_than_the_active_limit_is_refused),
		t(explicitly_open_zones_are_not_closed_for_others),
	};
	const struct CMUnitTest huge[] = {
		t(all_zones_of_a_huge_drive_are_reported),
		t(an_append_far_up_returns_all_64_bits_of_its_lba),
		t(a_huge_drive_counts_by_state),
	};
	int failed = 0;

	failed += cmocka_run_group_tests_name("4096", small, serve_small_4096, unserve);
	failed += cmocka_run_group_tests_name("512", small, serve_small_512, unserve);
	failed += cmocka_run_group_tests_name("seed", seed, serve_seed, unserve);
	failed += cmocka_run_group_tests_name("huge", huge, serve_huge, unserve);
	return failed;
}
