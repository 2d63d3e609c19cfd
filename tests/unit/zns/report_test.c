/* SPDX-License-Identifier: MIT */
/* Zone Management Receive: how many, how long, from where, which. */
#include "fake_host.h"

enum { ZSZE = 8, ZCAP = 6, PARTIAL = 0x10000 };

static void start(struct bench *b, uint32_t nr_zones)
{
	const struct store_geometry geo = { .zone_size = ZSZE * 512,
					    .zone_capacity = ZCAP * 512,
					    .nr_zones = nr_zones };
	const struct zns_opts opts = { .lba_size = 512 };

	bench_start_on(b, ram_new(&geo, false), &opts);
}

static uint16_t report(struct host *h, uint64_t slba, uint8_t filter, uint32_t partial, void *buf,
		       uint32_t len)
{
	struct cmd c;

	cmd_init(&c, nvme_zns_cmd_mgmt_recv, slba, len / 4 - 1, partial | (uint32_t)filter << 8);
	return host_run(h, &c, buf, len);
}

static uint64_t nr_zones(const void *buf)
{
	uint64_t nr;

	memcpy(&nr, buf, sizeof(nr));
	return le64toh(nr);
}

static void check_desc(const char *buf, uint64_t zone, int state, uint64_t wp)
{
	struct nvme_zns_desc d;
	size_t i;

	memcpy(&d, buf, sizeof(d));
	assert_int_equal(d.zt, 2);
	assert_int_equal(d.zs, state << 4);
	assert_int_equal(d.za, 0);
	assert_int_equal(d.zai, 0);
	assert_int_equal(le64toh(d.zcap), ZCAP);
	assert_int_equal(le64toh(d.zslba), zone * ZSZE);
	assert_int_equal(le64toh(d.wp), wp);
	for (i = 0; i < sizeof(d.rsvd32); i++)
		assert_int_equal(d.rsvd32[i], 0);
}

static void every_number_of_zones(void **ctx)
{
	static const uint32_t counts[] = { 1, 1023, 1024, 1025, 10000 };
	char *buf = malloc(1 << 20);
	uint64_t z, n, got;
	size_t i;

	(void)ctx;
	for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		struct bench b;

		start(&b, counts[i]);
		/* As nvme-cli does: the header first, then pages of 1024. */
		assert_int_equal(report(&b.h, 0, 0, 0, buf, 64), 0);
		assert_int_equal(nr_zones(buf), counts[i]);
		for (z = 0; z < counts[i]; z += got) {
			n = counts[i] - z < 1024 ? counts[i] - z : 1024;
			assert_int_equal(report(&b.h, z * ZSZE, 0, PARTIAL, buf, 64 + 1024 * 64),
					 0);
			got = nr_zones(buf);
			assert_int_equal(got, n);
			check_desc(buf + 64, z, 1, z * ZSZE);
			check_desc(buf + 64 * got, z + got - 1, 1, (z + got - 1) * ZSZE);
		}
		bench_end(&b);
	}
	free(buf);
}

static void every_buffer_length(void **ctx)
{
	char buf[64 * 4], data[512] = { 0 };
	struct bench b;
	uint32_t len, i, fit, p;
	uint64_t lba;

	(void)ctx;
	start(&b, 10);
	assert_int_equal(host_append(&b.h, 7 * ZSZE, 1, data, 0, &lba), 0);
	for (p = 0; p < 2; p++) {
		for (len = 4; len <= 64 + 3 * 64; len += 4) {
			memset(buf, 0x55, sizeof(buf));
			assert_int_equal(report(&b.h, 6 * ZSZE, 0, p * PARTIAL, buf, len), 0);
			fit = len < 64 ? 0 : len / 64 - 1;
			if (len >= 8)
				assert_int_equal(nr_zones(buf), p ? fit : 4);
			for (i = 8; i < len && i < 64; i++)
				assert_int_equal(buf[i], 0);
			for (i = 0; i < fit; i++)
				check_desc(buf + 64 + 64 * i, 6 + i, i == 1 ? 2 : 1,
					   (6 + i) * ZSZE + (i == 1));
			for (i = 64 + 64 * fit; i < len; i++)
				assert_int_equal(buf[i], 0);
			for (i = len; i < sizeof(buf); i++)
				assert_int_equal(buf[i], 0x55);
		}
	}
	bench_end(&b);
}

static void every_filter(void **ctx)
{
	/* Zone i gets state want[i]; ZRASF n lists those of state of[n]. */
	static const uint8_t of[] = { 0, 1, 2, 3, 4, 14, 13, 15 };
	char buf[64 + 64 * 8], data[512 * ZCAP] = { 0 };
	struct bench b;
	uint64_t lba;
	int f;

	(void)ctx;
	start(&b, 6);
	b.ram->reset_err = -EIO; /* makes zones 4 and 5 Read Only */
	host_append(&b.h, 1 * ZSZE, 1, data, 0, &lba);
	host_manage(&b.h, 2 * ZSZE, NVME_ZNS_ZSA_OPEN);
	host_append(&b.h, 3 * ZSZE, ZCAP, data, 0, &lba);
	for (f = 4; f < 6; f++) {
		host_append(&b.h, (uint64_t)f * ZSZE, 1, data, 0, &lba);
		assert_int_equal(host_manage(&b.h, (uint64_t)f * ZSZE, NVME_ZNS_ZSA_RESET), 0x280);
	}
	assert_int_equal(host_manage(&b.h, 5 * ZSZE, NVME_ZNS_ZSA_OFFLINE), 0);
	for (f = 1; f < 8; f++) {
		int n = of[f] == 4 ? 0 : 1;

		assert_int_equal(report(&b.h, 0, (uint8_t)f, 0, buf, sizeof(buf)), 0);
		assert_int_equal(nr_zones(buf), n);
		if (n)
			assert_int_equal(buf[65] >> 4 & 15, of[f]);
		assert_int_equal(report(&b.h, 0, (uint8_t)f, PARTIAL, buf, 64), 0);
		assert_int_equal(nr_zones(buf), 0);
	}
	assert_int_equal(report(&b.h, 0, 0, 0, buf, sizeof(buf)), 0);
	assert_int_equal(nr_zones(buf), 6);
	check_desc(buf + 64 * 4, 3, 14, UINT64_MAX);
	check_desc(buf + 64 * 5, 4, 13, UINT64_MAX);
	check_desc(buf + 64 * 6, 5, 15, UINT64_MAX);
	assert_int_equal(host_manage(&b.h, 2 * ZSZE, NVME_ZNS_ZSA_CLOSE), 0);
	assert_int_equal(host_manage(&b.h, 1 * ZSZE, NVME_ZNS_ZSA_CLOSE), 0);
	assert_int_equal(report(&b.h, 0, 4, 0, buf, sizeof(buf)), 0);
	assert_int_equal(nr_zones(buf), 1);
	check_desc(buf + 64, 1, 4, ZSZE + 1);
	bench_end(&b);
}

static void a_filtered_report_counts_what_does_not_fit(void **ctx)
{
	char buf[64 + 64 * 2], data[512] = { 0 };
	struct bench b;
	uint64_t lba, z;

	(void)ctx;
	start(&b, 500);
	for (z = 1; z < 500; z += 50)
		host_append(&b.h, z * ZSZE, 1, data, 0, &lba);
	assert_int_equal(report(&b.h, 2 * ZSZE, 2, 0, buf, sizeof(buf)), 0);
	assert_int_equal(nr_zones(buf), 9);
	check_desc(buf + 64, 51, 2, 51 * ZSZE + 1);
	check_desc(buf + 128, 101, 2, 101 * ZSZE + 1);
	assert_int_equal(report(&b.h, 2 * ZSZE, 2, PARTIAL, buf, sizeof(buf)), 0);
	assert_int_equal(nr_zones(buf), 2);
	bench_end(&b);
}

static void any_lba_means_its_zone(void **ctx)
{
	char buf[128];
	struct bench b;

	(void)ctx;
	start(&b, 3);
	assert_int_equal(report(&b.h, ZSZE + 5, 0, 0, buf, sizeof(buf)), 0);
	assert_int_equal(nr_zones(buf), 2);
	check_desc(buf + 64, 1, 1, ZSZE);
	assert_int_equal(report(&b.h, 3 * ZSZE - 1, 0, 0, buf, sizeof(buf)), 0);
	assert_int_equal(nr_zones(buf), 1);
	assert_int_equal(report(&b.h, 3 * ZSZE, 0, 0, buf, sizeof(buf)), 0x4080);
	assert_int_equal(report(&b.h, UINT64_MAX, 0, 0, buf, sizeof(buf)), 0x4080);
	bench_end(&b);
}

static void bad_fields_are_refused(void **ctx)
{
	static const struct {
		uint32_t numd, cdw13;
	} rows[] = {
		{ 15, 0x1 },	   /* extended: there are no extensions */
		{ 15, 0x2 },	   /* ZRA */
		{ 15, 0xff },	   /* ZRA */
		{ 15, 0x800 },	   /* ZRASF 8 */
		{ 15, 0xff00 },	   /* ZRASF */
		{ 262144, 0 },	   /* 4 bytes over MDTS */
		{ 0xffffffff, 0 }, /* 16 GiB, not 0 */
	};
	struct bench b;
	size_t i;

	(void)ctx;
	start(&b, 3);
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(
			host_do(&b.h, nvme_zns_cmd_mgmt_recv, 0, rows[i].numd, rows[i].cdw13),
			0x4002);
	bench_end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_number_of_zones),
		cmocka_unit_test(every_buffer_length),
		cmocka_unit_test(every_filter),
		cmocka_unit_test(a_filtered_report_counts_what_does_not_fit),
		cmocka_unit_test(any_lba_means_its_zone),
		cmocka_unit_test(bad_fields_are_refused),
	};

	log_level(LOG_ERR_);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
