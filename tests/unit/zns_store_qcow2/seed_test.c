/* SPDX-License-Identifier: MIT */
/*
 * The five cases of QEMU's iotest zoned-qcow2 (spec/qcow2-zoned.md, section 6), through the zoned
 * namespace and a real image of the seed's geometry. A session is an open image with a host; a new
 * session is what a restart of the drive is. Appends larger than MDTS go in pieces of 1 MiB.
 */
#include <endian.h>
#include <fcntl.h>
#include <unistd.h>
#include "zns/fake_host.h"
#include "qcow2.h"

#define K     1024ull
#define M     (1024 * K)
#define PIECE M

enum { NR = 12, EMPTY = 1, IOPEN = 2, EOPEN = 3, CLOSED = 4, FULL = 14 };

#define ZSIZE	(64 * M)
#define ZONE(n) ((n) * (ZSIZE / 512))

static char dir[] = "/tmp/znsd-seed-XXXXXX";
static char path[64];
static uint8_t buf[PIECE];

static int make_image(void **ctx)
{
	struct qcow2_create_opts opts = {
		.size = 768 * M,
		.zoned = true,
		.zone = { .zone_size = ZSIZE,
			  .zone_capacity = ZSIZE,
			  .max_open_zones = 6,
			  .max_active_zones = 8,
			  .max_append_bytes = 32 * M },
	};
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];

	(void)ctx;
	if (qcow2_create(path, &opts, NULL, warn, err))
		fail_msg("%s", err);
	return 0;
}

static int drop_image(void **ctx)
{
	(void)ctx;
	return unlink(path);
}

static void session(struct host *h)
{
	const struct zns_opts opts = { .lba_size = 512 };
	struct store *store;
	char err[QCOW2_ERRLEN];

	memset(h, 0, sizeof(*h));
	if (store_qcow2_open(path, &(struct store_qcow2_opts){ .cache = STORE_WRITEBACK }, &store,
			     err, sizeof(err)))
		fail_msg("%s", err);
	host_start(h, workers_new(2));
	if (zns_ns_new(store, &opts, h->loop, &h->ns, err, sizeof(err)))
		fail_msg("%s", err);
	host_go(h);
}

static void end_session(struct host *h)
{
	host_stop(h);
	workers_free(h->pool);
	assert_int_equal(h->ns->set->close(h->ns), 0);
	loop_free(h->loop);
}

/* Appends BYTES; returns the byte offset in the drive of the first. */
static uint64_t append(struct host *h, int zone, uint64_t bytes, int pattern)
{
	uint64_t done, n, lba, first = 0;

	memset(buf, pattern, sizeof(buf));
	for (done = 0; done < bytes; done += n) {
		n = bytes - done < PIECE ? bytes - done : PIECE;
		assert_int_equal(host_append(h, ZONE(zone), (uint32_t)(n / 512), buf, 0, &lba), 0);
		if (!done)
			first = lba * 512;
	}
	return first;
}

static void expect(struct host *h, int zone, int state, uint64_t wp)
{
	struct nvme_zns_desc d = host_zone(h, ZONE(zone));

	assert_int_equal(d.zs >> 4, state);
	assert_int_equal(le64toh(d.wp), state == FULL ? UINT64_MAX : wp / 512);
}

static void expect_all_empty(struct host *h)
{
	int i;

	for (i = 0; i < NR; i++)
		expect(h, i, EMPTY, i * ZSIZE);
}

static void manage(struct host *h, int zone, uint32_t action)
{
	assert_int_equal(host_manage(h, ZONE(zone), action), 0);
}

static void reset_all(struct host *h)
{
	assert_int_equal(host_manage(h, 0, NVME_ZNS_ZSA_RESET | ALL), 0);
}

static uint64_t report_count(struct host *h, int zone, uint32_t room)
{
	char rep[64 + 64 * NR];
	uint64_t nr;
	struct cmd c;

	cmd_init(&c, nvme_zns_cmd_mgmt_recv, ZONE(zone), (64 + 64 * room) / 4 - 1, 0x10000);
	assert_int_equal(host_run(h, &c, rep, 64 + 64 * room), 0);
	memcpy(&nr, rep, sizeof(nr));
	return le64toh(nr);
}

static void case_1_one_by_one(void **ctx)
{
	static const int zones[] = { 0, 1, 11 };
	struct host h;
	int i;

	(void)ctx;
	session(&h);
	assert_int_equal(report_count(&h, 0, 1), 1);
	assert_int_equal(report_count(&h, 0, 10), 10);
	assert_int_equal(report_count(&h, 11, 2), 1);
	expect_all_empty(&h);
	for (i = 0; i < 3; i++) {
		manage(&h, zones[i], NVME_ZNS_ZSA_OPEN);
		expect(&h, zones[i], EOPEN, zones[i] * ZSIZE);
	}
	for (i = 0; i < 3; i++) {
		manage(&h, zones[i], NVME_ZNS_ZSA_CLOSE);
		expect(&h, zones[i], EMPTY, zones[i] * ZSIZE);
	}
	for (i = 0; i < 3; i++) {
		manage(&h, zones[i], NVME_ZNS_ZSA_FINISH);
		expect(&h, zones[i], FULL, 0);
		expect(&h, 2, EMPTY, 2 * ZSIZE);
	}
	for (i = 0; i < 3; i++)
		manage(&h, zones[i], NVME_ZNS_ZSA_RESET);
	end_session(&h);

	session(&h);
	expect_all_empty(&h);
	assert_int_equal(append(&h, 0, 12 * K, 1), 0);
	assert_int_equal(append(&h, 0, 12 * K, 2), 12 * K);
	assert_int_equal(append(&h, 1, 12 * K, 3), 64 * M);
	assert_int_equal(append(&h, 1, 12 * K, 4), 64 * M + 12 * K);
	expect(&h, 0, IOPEN, 24 * K);
	expect(&h, 1, IOPEN, 64 * M + 24 * K);
	end_session(&h);

	session(&h);
	expect(&h, 0, CLOSED, 24 * K);
	expect(&h, 1, CLOSED, 64 * M + 24 * K);
	reset_all(&h);
	expect_all_empty(&h);
	end_session(&h);
}

static void case_2_large_appends(void **ctx)
{
	static const int zones[] = { 0, 3, 8 };
	struct host h;
	int i;

	(void)ctx;
	session(&h);
	assert_int_equal(append(&h, 0, 8 * K, 1), 0);
	assert_int_equal(append(&h, 0, 4 * K + 0x1ffd000, 2), 8 * K);
	assert_int_equal(append(&h, 0, 32 * M, 3), 32 * M);
	expect(&h, 0, FULL, 0);
	end_session(&h);

	session(&h);
	expect(&h, 0, FULL, 0);
	manage(&h, 0, NVME_ZNS_ZSA_RESET);
	expect(&h, 0, EMPTY, 0);
	for (i = 0; i < 3; i++) {
		append(&h, zones[i], 8 * K, i);
		expect(&h, zones[i], IOPEN, zones[i] * ZSIZE + 8 * K);
	}
	expect(&h, 1, EMPTY, ZSIZE);
	reset_all(&h);
	expect_all_empty(&h);
	end_session(&h);
}

static void case_3_closed_zones(void **ctx)
{
	struct host h;
	int i;

	(void)ctx;
	session(&h);
	for (i = 0; i < 3; i++)
		append(&h, i, 8 * K, i);
	for (i = 0; i < 3; i++) {
		expect(&h, i, IOPEN, i * ZSIZE + 8 * K);
		manage(&h, i, NVME_ZNS_ZSA_CLOSE);
		expect(&h, i, CLOSED, i * ZSIZE + 8 * K);
	}
	end_session(&h);

	session(&h);
	for (i = 0; i < 3; i++)
		expect(&h, i, CLOSED, i * ZSIZE + 8 * K);
	reset_all(&h);
	expect_all_empty(&h);
	end_session(&h);
}

/* Writes in flight together: N of 4 KiB, the i-th at its place in zone[i] with its own pattern. */
static void write_at_once(struct host *h, const int *zone, int n)
{
	static uint8_t block[3][4096];
	uint64_t used[NR] = { 0 };
	struct cmd c[3];
	int i;

	for (i = 0; i < n; i++) {
		memset(block[i], 0xa1 + i, sizeof(block[i]));
		cmd_init(&c[i], nvme_cmd_write, ZONE(zone[i]) + used[zone[i]], 7, 0);
		used[zone[i]] += 8;
		c[i].data = block[i];
		c[i].length = sizeof(block[i]);
		cmd_send(h, &c[i]);
	}
	for (i = 0; i < n; i++)
		assert_int_equal(cmd_wait(&c[i]), 0);
}

static void expect_pattern(struct host *h, uint64_t lba, int pattern)
{
	uint8_t want[4096];

	memset(want, pattern, sizeof(want));
	assert_int_equal(host_read(h, lba, 8, buf), 0);
	assert_memory_equal(buf, want, sizeof(want));
}

static void case_4_several_at_once(void **ctx)
{
	static const int same[] = { 5, 5, 5 }, three[] = { 6, 7, 9 }, again[] = { 5, 6, 7 };
	struct host h;
	int i;

	(void)ctx;
	session(&h);
	write_at_once(&h, same, 3);
	expect(&h, 5, IOPEN, 5 * ZSIZE + 12 * K);
	for (i = 0; i < 3; i++)
		expect_pattern(&h, ZONE(5) + 8 * (uint64_t)i, 0xa1 + i);
	write_at_once(&h, three, 3);
	for (i = 0; i < 3; i++) {
		expect(&h, three[i], IOPEN, three[i] * ZSIZE + 4 * K);
		expect_pattern(&h, ZONE(three[i]), 0xa1 + i);
	}
	end_session(&h);

	session(&h);
	expect_pattern(&h, ZONE(9), 0xa3);
	for (i = 5; i < 7; i++) {
		manage(&h, i, NVME_ZNS_ZSA_RESET);
		expect(&h, i, EMPTY, i * ZSIZE);
		expect_pattern(&h, ZONE(i), 0);
	}
	reset_all(&h);
	write_at_once(&h, again, 3);
	reset_all(&h);
	expect_all_empty(&h);
	end_session(&h);
}

/* --- case 5 --- */

static void expect_refused(const char *says)
{
	struct store *store;
	char err[QCOW2_ERRLEN] = "";

	if (!store_qcow2_open(path, &(struct store_qcow2_opts){ .cache = STORE_WRITEBACK }, &store,
			      err, sizeof(err)))
		fail_msg("opened, where \"%s\" was expected", says);
	if (!strstr(err, says))
		fail_msg("\"%s\" does not say \"%s\"", err, says);
}

static void case_5_damaged_write_pointers(void **ctx)
{
	static const struct {
		int zone;
		uint64_t wp;
		const char *says;
	} rows[] = {
		{ 3, 0, "one 3" },
		{ 1, 0x4000201, "one 1" },
		{ 2, 1ull << 59 | 2 * ZSIZE, "one 2" },
		{ 7, 8 * ZSIZE + 512, "one 7" },
	};
	const struct qcow2_open_opts opts = { .flags = QCOW2_RDONLY };
	char err[QCOW2_ERRLEN];
	struct qcow2 *q;
	struct host h;
	uint64_t table;
	size_t i;
	int fd;

	(void)ctx;
	assert_int_equal(qcow2_open(path, &opts, &q, err), 0);
	table = qcow2_info(q)->zoned.zonedmeta_offset;
	qcow2_close(q);
	fd = open(path, O_RDWR | O_CLOEXEC);
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t bad = htobe64(rows[i].wp), good = htobe64(rows[i].zone * ZSIZE);
		off_t at = (off_t)(table + 8 * (uint64_t)rows[i].zone);

		assert_int_equal(pwrite(fd, &bad, 8, at), 8);
		expect_refused(rows[i].says);
		assert_int_equal(pwrite(fd, &good, 8, at), 8);
	}
	close(fd);
	session(&h);
	expect_all_empty(&h);
	end_session(&h);
}

/* --- what else the adapter does --- */

static void the_limits_of_the_image_hold(void **ctx)
{
	struct zns_summary sum;
	struct host h;
	uint64_t lba;
	int i;

	(void)ctx;
	session(&h);
	zns_ns_summary(h.ns, &sum);
	assert_int_equal(sum.nr_zones, NR);
	assert_int_equal(sum.max_open, 6);
	assert_int_equal(sum.max_active, 8);
	for (i = 0; i < 8; i++)
		append(&h, i, 4 * K, 1);
	expect(&h, 0, CLOSED, 4 * K);
	expect(&h, 1, CLOSED, ZSIZE + 4 * K);
	expect(&h, 2, IOPEN, 2 * ZSIZE + 4 * K);
	assert_int_equal(host_append(&h, ZONE(8), 8, buf, 0, &lba), 0x41bd);
	end_session(&h);
	session(&h);
	assert_int_equal(host_append(&h, ZONE(8), 8, buf, 0, &lba), 0x41bd);
	end_session(&h);
}

static void a_plain_image_is_refused(void **ctx)
{
	struct qcow2_create_opts opts = { .size = 64 * M };
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];

	(void)ctx;
	assert_int_equal(qcow2_create(path, &opts, NULL, warn, err), 0);
	expect_refused("is not zoned");
}

static void conventional_zones_are_refused(void **ctx)
{
	struct qcow2_create_opts opts = { .size = 768 * M,
					  .zoned = true,
					  .zone = { .zone_size = ZSIZE, .conventional_zones = 2 } };
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];

	(void)ctx;
	assert_int_equal(qcow2_create(path, &opts, NULL, warn, err), 0);
	expect_refused("conventional zones");
}

static void a_short_last_zone_is_refused(void **ctx)
{
	struct qcow2_create_opts opts = { .size = 100 * M,
					  .zoned = true,
					  .zone = { .zone_size = ZSIZE } };
	char warn[QCOW2_ERRLEN], err[QCOW2_ERRLEN];

	(void)ctx;
	assert_int_equal(qcow2_create(path, &opts, NULL, warn, err), 0);
	expect_refused("last zone is shorter");
}

static void no_file_is_a_sentence(void **ctx)
{
	(void)ctx;
	assert_int_equal(unlink(path), 0);
	expect_refused(path);
	assert_int_equal(make_image(ctx), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_image, drop_image)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(case_1_one_by_one),
		TEST(case_2_large_appends),
		TEST(case_3_closed_zones),
		TEST(case_4_several_at_once),
		TEST(case_5_damaged_write_pointers),
		TEST(the_limits_of_the_image_hold),
		TEST(a_plain_image_is_refused),
		TEST(conventional_zones_are_refused),
		TEST(a_short_last_zone_is_refused),
		TEST(no_file_is_a_sentence),
	};
	int failed;

	log_level(LOG_ERR_);
	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s/disk.qcow2", dir);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return failed;
}
