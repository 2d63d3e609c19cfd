// SPDX-License-Identifier: MIT
/*
 * The cases of QEMU's iotest zoned-qcow2 (spec/qcow2-zoned.md, section 6) through NVMe. What is a
 * new process there is a restart of znsd here. Appends larger than the drive takes go in pieces.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "daemon.h"

#define K      512 /* of this many bytes is an LBA */
#define EMPTY  NVME_ZNS_ZS_EMPTY
#define IOPEN  NVME_ZNS_ZS_IMPL_OPEN
#define EOPEN  NVME_ZNS_ZS_EXPL_OPEN
#define CLOSED NVME_ZNS_ZS_CLOSED
#define FULL   NVME_ZNS_ZS_FULL
#define KiB(n) ((n)*1024ull / K)
#define MiB(n) ((n)*1048576ull / K)

static struct rig rig;
static struct host_ctrl ctrl;
static struct host_queue *q;
static struct rig_ns ns;
static uint8_t buf[1 << 20];

static void attach(void)
{
	rig_attach(&rig, &ctrl, 1);
	q = &ctrl.io[0];
	rig_identify(&ctrl, 1, &ns);
}

static void new_process(void)
{
	host_detach(&ctrl);
	rig_restart(&rig, rig.img);
	attach();
}

static int setup_with(const char *options)
{
	rig_init(&rig);
	assert_int_equal(rig_create(&rig, rig.img, options), 0);
	assert_int_equal(rig_serve(&rig, rig.img), 0);
	attach();
	assert_int_equal(ns.lba, K);
	assert_int_equal(ns.zones, 12);
	assert_int_equal(ns.zsze, MiB(64));
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return setup_with(RIG_SEED ",zone.max_append_bytes=32M");
}

static int setup_verbatim(void **state)
{
	(void)state;
	return setup_with(RIG_SEED ",zone.max_append_bytes=4096");
}

static int teardown(void **state)
{
	int status = 0;

	(void)state;
	host_detach(&ctrl);
	if (rig.pid)
		status = rig_stop(&rig, SIGTERM, 10000 * rig_slowness(), NULL);
	if (!status)
		status = rig_check(&rig, rig.img);
	rig_end(&rig);
	return status ? -1 : 0;
}

static int act(uint64_t zone, enum nvme_zns_send_action zsa)
{
	return host_zone(q, 1, zone * ns.zsze, zsa, false);
}

static void reset_all(void)
{
	assert_int_equal(host_zone(q, 1, 0, NVME_ZNS_ZSA_RESET, true), 0);
}

static void assert_all_empty(void)
{
	struct nvme_zone_report *rep = rig_zones(q, &ns);
	uint64_t i;

	for (i = 0; i < ns.zones; i++) {
		assert_int_equal(rep->entries[i].zs >> 4, EMPTY);
		assert_int_equal(rep->entries[i].zt & 0xf, 2);
		assert_int_equal(le64toh(rep->entries[i].zslba), i * ns.zsze);
		assert_int_equal(le64toh(rep->entries[i].wp), i * ns.zsze);
		assert_int_equal(le64toh(rep->entries[i].zcap), ns.zsze);
	}
	free(rep);
}

/* Appends BLOCKS to ZONE, in as few commands as the drive allows; the LBA of the first. */
static uint64_t append(uint64_t zone, uint64_t blocks)
{
	uint32_t most = (ns.zasl < sizeof(buf) ? ns.zasl : sizeof(buf)) / K;
	uint64_t first = UINT64_MAX, at, alba;

	for (at = 0; at < blocks;) {
		uint32_t n = blocks - at < most ? blocks - at : most;

		host_pattern(buf, n * K, zone + at, 7);
		assert_int_equal(host_append(q, 1, zone * ns.zsze, n, buf, n * K, &alba), 0);
		if (!at)
			first = alba;
		assert_int_equal(alba, first + at);
		at += n;
	}
	return first;
}

static void case_1_report(void **state)
{
	struct nvme_zone_report *rep = (void *)buf;

	(void)state;
	assert_int_equal(host_report(q, 1, 0, 0, 0, true, rep, 64 + 64), 0);
	assert_int_equal(le64toh(rep->nr_zones), 1);
	assert_int_equal(host_report(q, 1, 0, 0, 0, true, rep, 64 + 10 * 64), 0);
	assert_int_equal(le64toh(rep->nr_zones), 10);
	assert_int_equal(host_report(q, 1, 11 * ns.zsze, 0, 0, true, rep, 64 + 2 * 64), 0);
	assert_int_equal(le64toh(rep->nr_zones), 1);
	assert_all_empty();
}

static void case_1_open_close_finish_reset(void **state)
{
	static const uint64_t zones[] = { 0, 1, 11 };
	size_t i;

	(void)state;
	for (i = 0; i < 3; i++) {
		assert_int_equal(act(zones[i], NVME_ZNS_ZSA_OPEN), 0);
		assert_zone(q, &ns, zones[i], EOPEN, 0);
	}
	for (i = 0; i < 3; i++) {
		assert_int_equal(act(zones[i], NVME_ZNS_ZSA_CLOSE), 0);
		assert_zone(q, &ns, zones[i], EMPTY, 0);
	}
	for (i = 0; i < 3; i++) {
		assert_int_equal(act(zones[i], NVME_ZNS_ZSA_FINISH), 0);
		assert_zone(q, &ns, zones[i], FULL, 0);
	}
	assert_zone(q, &ns, 2, EMPTY, 0);
	for (i = 0; i < 3; i++)
		assert_int_equal(act(zones[i], NVME_ZNS_ZSA_RESET), 0);
	assert_all_empty();
}

static void case_1_append_persists(void **state)
{
	(void)state;
	new_process();
	assert_all_empty();
	assert_int_equal(append(0, KiB(12)), 0);
	assert_int_equal(append(0, KiB(12)), KiB(12));
	assert_int_equal(append(1, KiB(12)), MiB(64));
	assert_int_equal(append(1, KiB(12)), MiB(64) + KiB(12));
	assert_zone(q, &ns, 0, IOPEN, KiB(24));
	assert_zone(q, &ns, 1, IOPEN, KiB(24));
	new_process();
	assert_zone(q, &ns, 0, CLOSED, KiB(24));
	assert_zone(q, &ns, 1, CLOSED, KiB(24));
	reset_all();
	assert_all_empty();
}

static void case_2_appends_fill_a_zone(void **state)
{
	(void)state;
	assert_int_equal(append(0, KiB(8)), 0);
	assert_int_equal(append(0, MiB(32) - KiB(8)), KiB(8));
	assert_int_equal(append(0, MiB(32)), MiB(32));
	assert_zone(q, &ns, 0, FULL, 0);
	new_process();
	assert_zone(q, &ns, 0, FULL, 0);
	assert_int_equal(act(0, NVME_ZNS_ZSA_RESET), 0);
	assert_zone(q, &ns, 0, EMPTY, 0);
}

static void case_2_reset_all_after_appends(void **state)
{
	static const uint64_t zones[] = { 0, 3, 8 };
	size_t i;

	(void)state;
	for (i = 0; i < 3; i++)
		assert_int_equal(append(zones[i], KiB(8)), zones[i] * ns.zsze);
	for (i = 0; i < 3; i++)
		assert_zone(q, &ns, zones[i], IOPEN, KiB(8));
	assert_zone(q, &ns, 1, EMPTY, 0);
	reset_all();
	assert_all_empty();
}

static void case_3_closed_zones_reset_in_a_new_process(void **state)
{
	uint64_t z;

	(void)state;
	for (z = 0; z < 3; z++)
		append(z, KiB(8));
	for (z = 0; z < 3; z++) {
		assert_zone(q, &ns, z, IOPEN, KiB(8));
		assert_int_equal(act(z, NVME_ZNS_ZSA_CLOSE), 0);
		assert_zone(q, &ns, z, CLOSED, KiB(8));
	}
	new_process();
	reset_all();
	assert_all_empty();
}

/* N writes of 4 KiB at once: the i-th to lba[i], filled with the byte 0xa1 + i. */
static void write_at_once(const uint64_t *lba, unsigned int n)
{
	static uint8_t data[4][4096];
	struct host_io io[4], *done;
	unsigned int i;

	for (i = 0; i < n; i++) {
		memset(data[i], 0xa1 + i, 4096);
		host_set_rw(&io[i], nvme_cmd_write, 1, lba[i], KiB(4), data[i], 4096);
		assert_int_equal(host_submit(q, &io[i]), 0);
	}
	for (i = 0; i < n; i++) {
		assert_int_equal(host_reap(q, &done), 0);
		assert_int_equal(done->status, 0);
	}
	for (i = 0; i < n; i++) {
		assert_int_equal(host_read(q, 1, lba[i], KiB(4), buf, 4096), 0);
		assert_memory_equal(buf, data[i], 4096);
	}
}

static void case_4_writes_at_once(void **state)
{
	uint64_t in_one[3], in_three[3];
	unsigned int i;

	(void)state;
	for (i = 0; i < 3; i++)
		in_one[i] = 5 * ns.zsze + i * KiB(4);
	write_at_once(in_one, 3);
	assert_zone(q, &ns, 5, IOPEN, KiB(12));
	in_three[0] = 6 * ns.zsze;
	in_three[1] = 7 * ns.zsze;
	in_three[2] = 9 * ns.zsze;
	write_at_once(in_three, 3);
	for (i = 0; i < 3; i++)
		assert_zone(q, &ns, in_three[i] / ns.zsze, IOPEN, KiB(4));
	new_process();
	assert_int_equal(act(5, NVME_ZNS_ZSA_RESET), 0);
	assert_int_equal(act(6, NVME_ZNS_ZSA_RESET), 0);
	assert_zone(q, &ns, 5, EMPTY, 0);
	assert_zone(q, &ns, 6, EMPTY, 0);
	rig_verify_zeroes(q, &ns, 5 * ns.zsze, KiB(4));
	rig_verify_zeroes(q, &ns, 6 * ns.zsze, KiB(4));
	reset_all();
	for (i = 0; i < 3; i++)
		in_three[i] = (5 + i) * ns.zsze;
	write_at_once(in_three, 3);
	reset_all();
	assert_all_empty();
}

/* --- case 5 --- */

static uint64_t get_be(FILE *f, long at, unsigned int bytes)
{
	uint64_t v = 0;

	assert_int_equal(fseek(f, at, SEEK_SET), 0);
	while (bytes--)
		v = v << 8 | (uint8_t)fgetc(f);
	return v;
}

static void put_be64(const char *path, uint64_t at, uint64_t v)
{
	FILE *f = fopen(path, "r+b");
	int shift;

	assert_non_null(f);
	assert_int_equal(fseek(f, at, SEEK_SET), 0);
	for (shift = 56; shift >= 0; shift -= 8)
		fputc(v >> shift & 0xff, f);
	assert_int_equal(fclose(f), 0);
}

/* Where the write pointers are: walks the header extensions to the zoned one (v11, 48 bytes). */
static uint64_t table_of(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint64_t at, magic, len, table = 0;

	assert_non_null(f);
	at = get_be(f, 100, 4);
	while ((magic = get_be(f, at, 4)) != 0) {
		len = get_be(f, at + 4, 4);
		if (magic == 0x007a6264) {
			assert_int_equal(len, 48);
			table = get_be(f, at + 8 + 40, 8);
		}
		at += 8 + (len + 7) / 8 * 8;
	}
	fclose(f);
	assert_int_not_equal(table, 0);
	return table;
}

static bool log_says(const char *word, const char *word2)
{
	char line[1024];
	FILE *f = fopen(rig.log, "r");
	bool found = false;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		found = found || (strcasestr(line, word) && strcasestr(line, word2));
	fclose(f);
	return found;
}

static void case_5_a_corrupt_table_is_refused(void **state)
{
	static const struct {
		unsigned int zone;
		uint64_t value;
		const char *says, *says2;
	} rows[] = {
		{ 3, 0, "zone 3", "0x0" },
		{ 1, 0x4000201, "zone 1", "0x4000201" },
		{ 2, 1ull << 63 | 0x8000000, "zone 2", "conventional" },
	};
	const char *args[] = { rig.img, NULL };
	uint64_t table;
	size_t i;

	(void)state;
	host_detach(&ctrl);
	assert_int_equal(rig_stop(&rig, SIGTERM, 10000 * rig_slowness(), NULL), 0);
	table = table_of(rig.img);
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint32_t crc;
		int status = -1;

		put_be64(rig.img, table + rows[i].zone * 8, rows[i].value);
		crc = rig_crc_file(rig.img);
		remove(rig.log);
		assert_int_equal(rig_start(&rig, args, &status), -ECHILD);
		assert_int_equal(status, 1);
		assert_true(log_says(rows[i].says, rows[i].says2));
		assert_int_equal(rig_crc_file(rig.img), crc);
		put_be64(rig.img, table + rows[i].zone * 8, rows[i].zone * (64ull << 20));
	}
	assert_int_equal(rig_serve(&rig, rig.img), 0);
	attach();
	assert_all_empty();
}

static void the_seeds_own_image_takes_appends_of_4_kib(void **state)
{
	(void)state;
	memset(buf, 0xb7, 4096);
	assert_int_equal(append(0, KiB(4)), 0);
	assert_int_equal(append(0, KiB(4)), KiB(4));
	assert_int_equal(append(11, KiB(4)), 11 * ns.zsze);
	new_process();
	assert_zone(q, &ns, 0, CLOSED, KiB(8));
	assert_zone(q, &ns, 11, CLOSED, KiB(4));
}

#define t(name, with) cmocka_unit_test_setup_teardown(name, with, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		t(case_1_report, setup),
		t(case_1_open_close_finish_reset, setup),
		t(case_1_append_persists, setup),
		t(case_2_appends_fill_a_zone, setup),
		t(case_2_reset_all_after_appends, setup),
		t(case_3_closed_zones_reset_in_a_new_process, setup),
		t(case_4_writes_at_once, setup),
		t(case_5_a_corrupt_table_is_refused, setup),
		t(the_seeds_own_image_takes_appends_of_4_kib, setup_verbatim),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
