/* SPDX-License-Identifier: MIT */
/* Making a namespace: what is refused, what is reported, how long it takes. */
#include <time.h>
#include "fake_host.h"

#define M (1ull << 20)

/* Promised are 500 ms, counted by the processor: others use it too. A sanitizer needs some more. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OPEN_MS 10000
#else
#define OPEN_MS 500
#endif

static uint64_t cpu_ms(void)
{
	return (uint64_t)clock() * 1000 / CLOCKS_PER_SEC;
}

static int try_new(const struct store_geometry *geo, uint32_t lba_size, uint64_t wp0, char *err)
{
	const struct zns_opts opts = { .lba_size = lba_size };
	struct store_ram *ram = ram_new(geo, false);
	struct loop *loop = loop_new(NULL);
	struct tgt_ns *ns = NULL;
	int ret;

	ram->wp[0] = wp0;
	err[0] = '\0';
	ret = zns_ns_new(&ram->store, &opts, loop, &ns, err, 200);
	if (!ret)
		ns->set->close(ns);
	loop_free(loop);
	ram_free(ram);
	return ret;
}

static void what_linux_would_not_take_is_refused_in_a_sentence(void **ctx)
{
	static const struct {
		uint64_t size, cap;
		uint32_t nr, lba;
		uint64_t wp;
		const char *says; /* NULL: taken */
	} rows[] = {
		{ M, M, 4, 512, 0, NULL },
		{ M, M, 4, 4096, 0, NULL },
		{ M, M - 4096, 4, 4096, 0, NULL },
		{ 512, 512, 1, 512, 0, NULL },
		{ M, M, 4, 4096, 4096, NULL },
		{ M, M - 4096, 4, 4096, M, NULL }, /* Full, as older images say it */
		{ M, M, 4, 1024, 0, "512 or 4096" },
		{ M, M, 4, 0, 0, NULL },
		{ M, M - 512, 4, 0, 512, NULL }, /* 512 by itself: 4096 does not divide the capacity */
		{ M, M, 4, 0, 512, "lba=512" },
		{ 3 * M, 3 * M, 4, 512, 0, "power of two" },
		{ 0, 0, 4, 512, 0, "power of two" },
		{ 512, 512, 4, 4096, 0, "less than one logical block" },
		{ M, 0, 4, 512, 0, "within the zone size" },
		{ M, M + 512, 4, 512, 0, "within the zone size" },
		{ M, M - 512, 4, 4096, 0, "whole number of logical" },
		{ M, M - 100, 4, 512, 0, "whole number of logical" },
		{ M, M, (1 << 20) + 1, 512, 0, "1 to 1048576" },
		{ 1ull << 60, 512, 8, 512, 0, "more than a drive" },
		{ M, M, 4, 4096, 512, "used with smaller ones" },
		{ M, M, 4, 512, M + 512, "outside the zone" },
		{ M, M, 4, 512, UINT64_MAX, "outside the zone" },
	};
	char err[200];
	size_t i;

	(void)ctx;
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct store_geometry geo = { .zone_size = rows[i].size,
						    .zone_capacity = rows[i].cap,
						    .nr_zones = rows[i].nr };
		int ret = try_new(&geo, rows[i].lba, rows[i].wp, err);

		if (!rows[i].says && ret)
			fail_msg("row %zu: %s", i, err);
		if (rows[i].says && (!ret || !strstr(err, rows[i].says)))
			fail_msg("row %zu: %d, %s", i, ret, err);
	}
}

static void identify_says_what_the_image_is(void **ctx)
{
	const struct store_geometry geo = {
		.zone_size = M,
		.zone_capacity = M / 2,
		.nr_zones = 12,
		.max_open = 6,
		.max_active = 8,
		.uuid = "0123456789abcde",
	};
	const struct zns_opts opts = { .lba_size = 4096, .nsid = 7 };
	struct nvme_zns_id_ns *zid = calloc(1, 4096);
	struct nvme_id_ns *id = calloc(1, 4096);
	struct zns_summary sum;
	struct bench b;

	(void)ctx;
	bench_start_on(&b, ram_new(&geo, false), &opts);
	zns_command_set.identify_ns(b.h.ns, id);
	assert_int_equal(le64toh(id->nsze), 12 * M / 4096);
	assert_int_equal(id->ncap, id->nsze);
	assert_int_equal(id->nlbaf, 0);
	assert_int_equal(id->flbas, 0);
	assert_int_equal(id->lbaf[0].ds, 12);
	assert_int_equal(id->lbaf[0].ms, 0);
	assert_int_equal(id->nmic, 1);
	assert_int_equal(id->dlfeat, 1);
	assert_int_equal(id->nsattr, 0);
	assert_memory_equal(id->nguid, geo.uuid, 16);
	zns_command_set.identify_ns_csi(b.h.ns, zid);
	assert_int_equal(zid->zoc, 0);
	assert_int_equal(le16toh(zid->ozcs), 1);
	assert_int_equal(le32toh(zid->mar), 7);
	assert_int_equal(le32toh(zid->mor), 5);
	assert_int_equal(le64toh(zid->lbafe[0].zsze), M / 4096);
	assert_int_equal(zid->lbafe[0].zdes, 0);
	assert_int_equal(b.h.ns->nsid, 7);
	assert_true(b.h.ns->write_cache);
	assert_memory_equal(b.h.ns->uuid, geo.uuid, 16);
	zns_ns_summary(b.h.ns, &sum);
	assert_int_equal(sum.nr_zones, 12);
	assert_int_equal(sum.max_open, 6);
	assert_int_equal(sum.max_active, 8);
	bench_end(&b);
	free(id);
	free(zid);
}

static void no_limits_are_all_ones(void **ctx)
{
	const struct store_geometry geo = {
		.zone_size = M, .zone_capacity = M, .nr_zones = 2, .read_only = true
	};
	const struct zns_opts opts = { .lba_size = 512 };
	struct nvme_zns_id_ns *zid = calloc(1, 4096);
	struct nvme_id_ns *id = calloc(1, 4096);
	struct bench b;

	(void)ctx;
	bench_start_on(&b, ram_new(&geo, false), &opts);
	zns_command_set.identify_ns_csi(b.h.ns, zid);
	assert_int_equal(zid->mar, 0xffffffff);
	assert_int_equal(zid->mor, 0xffffffff);
	zns_command_set.identify_ns(b.h.ns, id);
	assert_int_equal(id->nsattr, 1); /* the image is read-only, though nobody asked for it */
	assert_true(b.h.ns->read_only);
	bench_end(&b);
	free(id);
	free(zid);
}

static void effects_name_what_parse_takes(void **ctx)
{
	struct nvme_cmd_effects_log *log = calloc(1, sizeof(*log));
	const struct store_geometry geo = { .zone_size = M, .zone_capacity = M, .nr_zones = 2 };
	const struct zns_opts opts = { .lba_size = 512 };
	struct bench b;
	int op;

	(void)ctx;
	bench_start_on(&b, ram_new(&geo, false), &opts);
	zns_command_set.effects(log);
	for (op = 0; op < 256; op++) {
		struct tgt_req req = { .ns = b.h.ns, .cmd = { .opcode = (uint8_t)op } };
		uint16_t status = zns_command_set.parse(&req);
		bool taken = status != (NVME_SC_INVALID_OPCODE | NVME_SC_DNR);
		bool writes = op == nvme_cmd_write || op == nvme_zns_cmd_append ||
			      op == nvme_zns_cmd_mgmt_send;

		assert_int_equal(le32toh(log->iocs[op]), taken ? 1 + 2 * writes : 0);
	}
	memset(log, 0, sizeof(*log));
	nvm_command_set.effects(log);
	assert_int_equal(le32toh(log->iocs[nvme_cmd_write]), 3);
	assert_int_equal(le32toh(log->iocs[nvme_cmd_read]), 1);
	assert_int_equal(le32toh(log->iocs[nvme_cmd_flush]), 1);
	assert_int_equal(log->iocs[nvme_zns_cmd_append], 0);
	bench_end(&b);
	free(log);
}

static void controller_data_has_no_limits_of_its_own(void **ctx)
{
	uint8_t *id = calloc(1, 4096);
	int i;

	(void)ctx;
	zns_command_set.identify_ctrl_csi(id);
	nvm_command_set.identify_ctrl_csi(id);
	for (i = 0; i < 4096; i++)
		assert_int_equal(id[i], 0);
	free(id);
}

static void a_million_zones_open_quickly(void **ctx)
{
	const struct store_geometry geo = { .zone_size = M,
					    .zone_capacity = M,
					    .nr_zones = 1 << 20 };
	const struct zns_opts opts = { .lba_size = 512 };
	struct store_ram *ram = ram_new(&geo, false);
	struct bench b;
	uint64_t began;
	uint32_t i;

	(void)ctx;
	for (i = 0; i < geo.nr_zones; i += 3)
		ram->wp[i] += 4096;
	began = cpu_ms();
	bench_start_on(&b, ram, &opts);
	assert_in_range(cpu_ms() - began, 0, OPEN_MS);
	print_message("2^20 zones: %u ms\n", (unsigned int)(cpu_ms() - began));
	assert_int_equal(zone_state(&b.h, geo.nr_zones * 2048ull - 1), 4);
	bench_end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_linux_would_not_take_is_refused_in_a_sentence),
		cmocka_unit_test(identify_says_what_the_image_is),
		cmocka_unit_test(no_limits_are_all_ones),
		cmocka_unit_test(effects_name_what_parse_takes),
		cmocka_unit_test(controller_data_has_no_limits_of_its_own),
		cmocka_unit_test(a_million_zones_open_quickly),
	};

	log_level(LOG_ERR_);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
