/* SPDX-License-Identifier: MIT */
/* Commands from SQE to CQE, over a store in memory. */
#include <fcntl.h>
#include "fake_host.h"
#include "zone.h"

enum { ZSZE = 64, ZCAP = 48, NR = 8, SEND = nvme_zns_cmd_mgmt_send };

#define FIELD	 (NVME_SC_INVALID_FIELD | NVME_SC_DNR)
#define RANGE	 (NVME_SC_LBA_RANGE | NVME_SC_DNR)
#define OPCODE	 (NVME_SC_INVALID_OPCODE | NVME_SC_DNR)
#define RDONLY	 (NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR)
#define NO_ROOM	 (NVME_SC_CAP_EXCEEDED | NVME_SC_DNR)
#define WFAULT	 0x280
#define RFAULT	 0x281
#define ZONE(n)	 ((n) * (uint64_t)ZSZE)
#define ZSTAT(s) (NVME_ZNS_STATUS(s) | NVME_SC_DNR)

static const struct store_geometry geometry = {
	.zone_size = ZSZE * 512,
	.zone_capacity = ZCAP * 512,
	.nr_zones = NR,
	.max_append = 4096,
	.uuid = "0123456789abcde",
};

static uint8_t data[512 * 256], back[512 * 256];

static void start_with(struct bench *b, bool read_only, bool writethrough)
{
	const struct zns_opts opts = { .lba_size = 512,
				       .read_only = read_only,
				       .writethrough = writethrough };
	size_t i;

	for (i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i / 512 + i % 251);
	bench_start_on(b, ram_new(&geometry, true), &opts);
}

static int start(void **ctx)
{
	*ctx = calloc(1, sizeof(struct bench));
	start_with(*ctx, false, false);
	return 0;
}

static int start_writethrough(void **ctx)
{
	*ctx = calloc(1, sizeof(struct bench));
	start_with(*ctx, false, true);
	return 0;
}

static int end(void **ctx)
{
	bench_end(*ctx);
	free(*ctx);
	return 0;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	while (n && !*p)
		p++, n--;
	return !n;
}

static void what_is_written_is_read(void **ctx)
{
	struct host *h = &((struct bench *)*ctx)->h;

	assert_int_equal(host_write(h, ZONE(1), 8, data, 0), 0);
	assert_int_equal(host_write(h, ZONE(1) + 8, 4, data + 8 * 512, 0), 0);
	assert_int_equal(host_read(h, ZONE(1), 12, back), 0);
	assert_memory_equal(back, data, 12 * 512);
	assert_int_equal(host_read(h, ZONE(1) + 3, 2, back), 0);
	assert_memory_equal(back, data + 3 * 512, 2 * 512);
	assert_int_equal(zone_state(h, ZONE(1)), 2);
}

static void what_is_not_written_reads_as_zeroes(void **ctx)
{
	struct host *h = &((struct bench *)*ctx)->h;

	assert_int_equal(host_read(h, ZONE(3), 64, back), 0);
	assert_true(all_zero(back, 64 * 512));
	assert_int_equal(host_write(h, ZONE(3), 2, data, 0), 0);
	assert_int_equal(host_read(h, ZONE(3), 64, back), 0);
	assert_memory_equal(back, data, 2 * 512);
	assert_true(all_zero(back + 2 * 512, 62 * 512));
	/* From capacity to size, of a Full zone. */
	assert_int_equal(host_write(h, ZONE(3) + 2, ZCAP - 2, data, 0), 0);
	assert_int_equal(zone_state(h, ZONE(3)), 14);
	assert_int_equal(host_read(h, ZONE(3) + ZCAP, ZSZE - ZCAP, back), 0);
	assert_true(all_zero(back, (ZSZE - ZCAP) * 512));
}

static void reads_may_cross_zones(void **ctx)
{
	struct host *h = &((struct bench *)*ctx)->h;

	assert_int_equal(host_write(h, ZONE(0), ZCAP, data, 0), 0);
	assert_int_equal(host_write(h, ZONE(1), 3, data, 0), 0);
	assert_int_equal(host_write(h, ZONE(2), 1, data, 0), 0);
	assert_int_equal(host_read(h, 1, 2 * ZSZE, back), 0);
	assert_memory_equal(back, data + 512, (ZCAP - 1) * 512);
	assert_true(all_zero(back + (ZCAP - 1) * 512, (ZSZE - ZCAP) * 512));
	assert_memory_equal(back + (ZSZE - 1) * 512, data, 3 * 512);
	assert_true(all_zero(back + (ZSZE + 2) * 512, (ZSZE - 3) * 512));
	assert_memory_equal(back + (2 * ZSZE - 1) * 512, data, 512);
}

static void an_append_says_where_it_landed(void **ctx)
{
	struct host *h = &((struct bench *)*ctx)->h;
	uint64_t lba;

	assert_int_equal(host_append(h, ZONE(5), 4, data, 0, &lba), 0);
	assert_int_equal(lba, ZONE(5));
	assert_int_equal(host_append(h, ZONE(5), 3, data, 0, &lba), 0);
	assert_int_equal(lba, ZONE(5) + 4);
	assert_int_equal(host_read(h, ZONE(5) + 4, 3, back), 0);
	assert_memory_equal(back, data, 3 * 512);
	assert_int_equal(host_append(h, ZONE(5), ZCAP, data, 0, &lba),
			 ZSTAT(NVME_SC_ZNS_BOUNDARY_ERROR));
	assert_int_equal(lba, 0);
}

static void an_append_has_an_address_of_64_bits(void **ctx)
{
	const struct store_geometry geo = { .zone_size = 1ull << 40,
					    .zone_capacity = 1ull << 40,
					    .nr_zones = 8 };
	const struct zns_opts opts = { .lba_size = 512 };
	struct bench b;
	uint64_t lba;

	(void)ctx;
	bench_start_on(&b, ram_new(&geo, false), &opts);
	assert_int_equal(host_append(&b.h, 5ull << 31, 1, data, 0, &lba), 0);
	assert_int_equal(host_append(&b.h, 5ull << 31, 1, data, 0, &lba), 0);
	assert_int_equal(lba, (5ull << 31) + 1);
	assert_true(lba >> 32);
	bench_end(&b);
}

static void an_append_may_be_larger_than_the_images_own_limit(void **ctx)
{
	struct host *h = &((struct bench *)*ctx)->h;
	uint64_t lba;

	assert_int_equal(host_append(h, 0, 16, data, 0, &lba), 0); /* max_append is 4096 */
}

/* What is refused before anything moves. */
static void bad_commands_are_refused(void **ctx)
{
	static const struct {
		uint8_t opcode;
		uint64_t slba;
		uint32_t cdw12, cdw13;
		uint16_t status;
	} rows[] = {
		{ nvme_cmd_write, ZONE(NR), 0, 0, RANGE },
		{ nvme_cmd_write, UINT64_MAX, 0, 0, RANGE },
		{ nvme_cmd_write, ZONE(NR) - 1, 1, 0, RANGE },
		{ nvme_cmd_write, 0, 2048, 0, FIELD },	   /* MDTS is 1 MiB */
		{ nvme_cmd_write, 0, 0x100000, 0, FIELD }, /* directive */
		{ nvme_cmd_write, 5, 0, 0, ZSTAT(NVME_SC_ZNS_INVALID_WRITE) },
		{ nvme_cmd_read, ZONE(NR), 0, 0, RANGE },
		{ nvme_cmd_read, ZONE(NR) - 1, 1, 0, RANGE },
		{ nvme_cmd_read, UINT64_MAX, 0xffff, 0, FIELD },
		{ nvme_cmd_read, 0, 2048, 0, FIELD },
		{ nvme_zns_cmd_append, 1, 0, 0, FIELD },
		{ nvme_zns_cmd_append, ZONE(NR), 0, 0, RANGE },
		{ nvme_zns_cmd_append, 0, 2048, 0, FIELD },
		{ nvme_zns_cmd_append, 0, (uint32_t)NVME_IO_ZNS_APPEND_PIREMAP << 16, 0, FIELD },
		{ SEND, 0, 0, 0, FIELD },
		{ SEND, 0, 0, 6, FIELD },
		{ SEND, 0, 0, 0xff, FIELD },
		{ SEND, 0, 0, NVME_ZNS_ZSA_SET_DESC_EXT, FIELD },
		{ SEND, 0, 0, NVME_ZNS_ZSA_SET_DESC_EXT | ALL, FIELD },
		{ SEND, 0, 0, NVME_ZNS_ZSA_ZRWA_FLUSH, FIELD },
		{ SEND, 0, 0, NVME_ZNS_ZSA_OPEN | 0x200, ZSTAT(NVME_SC_ZNS_INVALID_OP_REQUEST) },
		{ SEND, 1, 0, NVME_ZNS_ZSA_OPEN, FIELD },
		{ SEND, ZONE(NR), 0, NVME_ZNS_ZSA_OPEN, RANGE },
		{ SEND, 0, 0, NVME_ZNS_ZSA_CLOSE, ZSTAT(NVME_SC_ZNS_INVAL_TRANSITION) },
		{ SEND, 0, 0, NVME_ZNS_ZSA_OFFLINE, ZSTAT(NVME_SC_ZNS_INVAL_TRANSITION) },
		{ nvme_cmd_write_uncor, 0, 0, 0, OPCODE },
		{ nvme_cmd_compare, 0, 0, 0, OPCODE },
		{ nvme_cmd_write_zeroes, 0, 0, 0, OPCODE },
		{ nvme_cmd_dsm, 0, 0, 0, OPCODE },
		{ nvme_cmd_verify, 0, 0, 0, OPCODE },
		{ nvme_cmd_resv_register, 0, 0, 0, OPCODE },
		{ nvme_cmd_copy, 0, 0, 0, OPCODE },
		{ 0xff, 0, 0, 0, OPCODE },
	};
	struct bench *b = *ctx;
	size_t i;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct cmd c;
		uint16_t got;

		cmd_init(&c, rows[i].opcode, rows[i].slba, rows[i].cdw12, rows[i].cdw13);
		got = host_run(&b->h, &c, data, 512);
		if (got != rows[i].status)
			fail_msg("row %zu: %x instead of %x", i, got, rows[i].status);
		assert_int_equal(c.req.cqe.result, 0);
	}
	assert_int_equal(b->ram->writes + b->ram->reads + b->ram->resets + b->ram->finishes, 0);
}

static void select_all_ignores_the_lba(void **ctx)
{
	struct bench *b = *ctx;

	assert_int_equal(host_write(&b->h, ZONE(1), 2, data, 0), 0);
	assert_int_equal(host_write(&b->h, ZONE(6), 2, data, 0), 0);
	assert_int_equal(host_manage(&b->h, UINT64_MAX, NVME_ZNS_ZSA_RESET | ALL), 0);
	assert_int_equal(b->ram->resets, 2);
	assert_int_equal(zone_state(&b->h, ZONE(1)), 1);
	assert_int_equal(zone_state(&b->h, ZONE(6)), 1);
	assert_int_equal(host_manage(&b->h, 3, NVME_ZNS_ZSA_OFFLINE | ALL), 0);
}

static void management_acts_and_shows(void **ctx)
{
	struct bench *b = *ctx;
	struct host *h = &b->h;

	assert_int_equal(host_manage(h, ZONE(2), NVME_ZNS_ZSA_OPEN), 0);
	assert_int_equal(zone_state(h, ZONE(2)), 3);
	assert_int_equal(host_manage(h, ZONE(2), NVME_ZNS_ZSA_CLOSE), 0);
	assert_int_equal(zone_state(h, ZONE(2)), 1);
	assert_int_equal(host_write(h, ZONE(2), 5, data, 0), 0);
	assert_int_equal(host_manage(h, ZONE(2), NVME_ZNS_ZSA_CLOSE), 0);
	assert_int_equal(zone_state(h, ZONE(2)), 4);
	assert_int_equal(host_manage(h, ZONE(2), NVME_ZNS_ZSA_FINISH), 0);
	assert_int_equal(zone_state(h, ZONE(2)), 14);
	assert_int_equal(host_zone(h, ZONE(2)).wp, UINT64_MAX);
	assert_int_equal(host_read(h, ZONE(2), ZSZE, back), 0);
	assert_memory_equal(back, data, 5 * 512);
	assert_true(all_zero(back + 5 * 512, (ZSZE - 5) * 512));
	assert_int_equal(host_manage(h, ZONE(2), NVME_ZNS_ZSA_RESET), 0);
	assert_int_equal(zone_state(h, ZONE(2)), 1);
	assert_int_equal(host_read(h, ZONE(2), ZSZE, back), 0);
	assert_true(all_zero(back, ZSZE * 512));
	assert_int_equal(b->ram->resets, 1);
	assert_int_equal(b->ram->finishes, 1);
}

static void a_flush_makes_durable_what_was_completed(void **ctx)
{
	struct bench *b = *ctx;

	assert_int_equal(host_write(&b->h, ZONE(1), 8, data, 0), 0);
	assert_int_equal(b->ram->durable_wp[1], ZONE(1) * 512);
	assert_int_equal(host_flush(&b->h), 0);
	assert_int_equal(b->ram->durable_wp[1], (ZONE(1) + 8) * 512);
	assert_int_equal(host_manage(&b->h, ZONE(1), NVME_ZNS_ZSA_RESET), 0);
	assert_int_equal(b->ram->durable_wp[1], (ZONE(1) + 8) * 512);
	assert_int_equal(host_flush(&b->h), 0);
	assert_int_equal(b->ram->durable_wp[1], ZONE(1) * 512);
}

static void fua_is_durable_when_it_completes(void **ctx)
{
	struct bench *b = *ctx;
	uint64_t lba;

	assert_int_equal(host_write(&b->h, ZONE(1), 8, data, FUA), 0);
	assert_int_equal(b->ram->durable_wp[1], (ZONE(1) + 8) * 512);
	assert_int_equal(host_append(&b->h, ZONE(1), 8, data, FUA, &lba), 0);
	assert_int_equal(lba, ZONE(1) + 8);
	assert_int_equal(b->ram->durable_wp[1], (ZONE(1) + 16) * 512);
	b->ram->nowait_again = true;
	assert_int_equal(host_append(&b->h, ZONE(1), 8, data, FUA, &lba), 0);
	assert_int_equal(b->ram->durable_wp[1], (ZONE(1) + 24) * 512);
	assert_int_equal(b->ram->flushes, 3);
	b->ram->flush_err = -EIO;
	assert_int_equal(host_append(&b->h, ZONE(1), 8, data, FUA, &lba), WFAULT);
	assert_int_equal(lba, 0);
	b->ram->flush_err = 0;
}

static void writethrough_completes_durable(void **ctx)
{
	struct bench *b = *ctx;
	uint64_t lba;

	assert_false(b->h.ns->write_cache);
	assert_int_equal(host_write(&b->h, ZONE(1), 8, data, 0), 0);
	assert_int_equal(b->ram->durable_wp[1], (ZONE(1) + 8) * 512);
	assert_int_equal(host_append(&b->h, ZONE(2), 8, data, 0, &lba), 0);
	assert_int_equal(b->ram->durable_wp[2], (ZONE(2) + 8) * 512);
	assert_int_equal(host_manage(&b->h, ZONE(1), NVME_ZNS_ZSA_RESET), 0);
	assert_int_equal(b->ram->durable_wp[1], ZONE(1) * 512);
	assert_int_equal(host_manage(&b->h, ZONE(2), NVME_ZNS_ZSA_FINISH), 0);
	assert_int_equal(b->ram->durable_wp[2], (ZONE(2) + ZCAP) * 512);
	assert_int_equal(b->ram->flushes, 4);
}

static void flushes_that_wait_share_one(void **ctx)
{
	struct bench *b = *ctx;
	struct cmd c[11];
	int i;

	pthread_mutex_lock(&b->ram->gate);
	for (i = 0; i < 11; i++) {
		cmd_init(&c[i], nvme_cmd_flush, 0, 0, 0);
		cmd_send(&b->h, &c[i]);
		if (!i)
			ram_sleep(50); /* it is in the store now; the others come behind it */
	}
	assert_false(cmd_is_done(&c[0]));
	pthread_mutex_unlock(&b->ram->gate);
	for (i = 0; i < 11; i++)
		assert_int_equal(cmd_wait(&c[i]), 0);
	assert_int_equal(b->ram->flushes, 2);
}

static void what_would_block_goes_to_a_worker(void **ctx)
{
	struct bench *b = *ctx;
	uint64_t lba;

	b->ram->nowait_again = true;
	assert_int_equal(host_write(&b->h, 0, 8, data, 0), 0);
	assert_int_equal(host_append(&b->h, 0, 8, data, 0, &lba), 0);
	assert_int_equal(host_read(&b->h, 0, 20, back), 0);
	assert_memory_equal(back, data, 8 * 512);
	assert_memory_equal(back + 8 * 512, data, 8 * 512);
	assert_true(all_zero(back + 16 * 512, 4 * 512));
	assert_int_equal(b->ram->inline_writes, 0);
	assert_int_equal(b->ram->writes, 2);
}

static void after_slow_writes_the_next_go_to_workers(void **ctx)
{
	struct bench *b = *ctx;

	b->ram->write_ms = 3;
	assert_int_equal(host_write(&b->h, 0, 1, data, 0), 0); /* from here on they are watched */
	assert_int_equal(host_write(&b->h, 1, 1, data, 0), 0); /* and this one sleeps */
	b->ram->write_ms = 0;
	assert_int_equal(host_write(&b->h, 2, 1, data, 0), 0);
	assert_int_equal(host_write(&b->h, 3, 1, data, 0), 0);
	assert_int_equal(b->ram->inline_writes, 2);
	ram_sleep(250);
	assert_int_equal(host_write(&b->h, 4, 1, data, 0), 0);
	assert_int_equal(b->ram->inline_writes, 3);
}

static void what_is_only_busy_stays_on_the_loop(void **ctx)
{
	struct bench *b = *ctx;

	b->ram->busy_ms = 3;
	for (int i = 0; i < 4; i++)
		assert_int_equal(host_write(&b->h, i, 1, data, 0), 0);
	assert_int_equal(b->ram->inline_writes, 4);
}

/* I's block of a burst, alternately of two zones. */
static void fill_burst(struct cmd *cmds, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		memset(data + 512 * i, (int)i + 1, 512);
		cmd_init(&cmds[i], nvme_zns_cmd_append, ZONE(i % 2), 0, 0);
		cmds[i].data = data + 512 * i;
		cmds[i].length = 512;
	}
}

static void neighbours_of_one_wake_up_are_one_write(void **ctx)
{
	enum { N = 16 };
	struct bench *b = *ctx;
	struct cmd cmds[N];
	struct burst burst;

	for (int worker = 0; worker < 2; worker++) {
		b->ram->nowait_again = worker;
		b->ram->writes = 0;
		fill_burst(cmds, N);
		burst_send(&b->h, &burst, cmds, N);
		for (unsigned int i = 0; i < N; i++) {
			assert_int_equal(cmd_wait(&cmds[i]), 0);
			assert_int_equal(le64toh(cmds[i].req.cqe.result), ZONE(i % 2) + i / 2);
		}
		assert_int_equal(b->ram->writes, 2);
		for (unsigned int i = 0; i < N; i++) {
			assert_int_equal(host_read(&b->h, ZONE(i % 2) + i / 2, 1, back), 0);
			assert_memory_equal(back, data + 512 * i, 512);
		}
		assert_int_equal(host_manage(&b->h, 0, NVME_ZNS_ZSA_RESET), 0);
		assert_int_equal(host_manage(&b->h, ZONE(1), NVME_ZNS_ZSA_RESET), 0);
	}
}

/* Whether the ring did it; no test of what it does can run where there is none. */
static bool by_ring(struct bench *b)
{
	int workers = b->ram->writes;

	b->ram->nowait_again = true;
	b->ram->locates = b->ram->fd;
	assert_int_equal(host_write(&b->h, ZONE(NR - 1), 1, data, 0), 0);
	assert_int_equal(b->ram->located, 1);
	return b->ram->writes == workers;
}

static void what_is_located_needs_no_worker(void **ctx)
{
	struct bench *b = *ctx;
	uint64_t lba;

	if (!by_ring(b))
		skip();
	assert_int_equal(host_write(&b->h, 0, 8, data, 0), 0);
	assert_int_equal(host_append(&b->h, 0, 8, data + 8 * 512, FUA, &lba), 0);
	assert_int_equal(lba, 8);
	assert_int_equal(b->ram->wrote, 3);
	assert_int_equal(b->ram->durable_wp[0], 16 * 512);
	assert_int_equal(host_read(&b->h, 0, 16, back), 0);
	assert_memory_equal(back, data, 16 * 512);
	assert_int_equal(b->ram->writes + b->ram->reads, 0);
	/* Not all of it is the store's. */
	assert_int_equal(host_read(&b->h, 0, 20, back), 0);
	assert_int_equal(b->ram->reads, 1);
	assert_true(all_zero(back + 16 * 512, 4 * 512));
	/* And what is not located goes where it always went. */
	b->ram->locates = -1;
	assert_int_equal(host_write(&b->h, 16, 8, data, 0), 0);
	assert_int_equal(host_read(&b->h, 16, 8, back), 0);
	assert_int_equal(b->ram->writes, 1);
	assert_int_equal(b->ram->reads, 2);
}

static void descriptor_0_is_a_descriptor(void **ctx)
{
	struct bench *b = *ctx;
	int saved = dup(0);

	if (!by_ring(b))
		skip();
	assert_int_equal(dup2(b->ram->fd, 0), 0);
	b->ram->locates = 0;
	assert_int_equal(host_write(&b->h, 0, 8, data, 0), 0);
	assert_int_equal(b->ram->writes, 0);
	if (saved >= 0)
		dup2(saved, 0);
	close(saved < 0 ? 0 : saved);
}

static void neighbours_are_one_write_by_the_ring_too(void **ctx)
{
	enum { N = 64 };
	struct bench *b = *ctx;
	struct cmd cmds[N];
	struct burst burst;

	if (!by_ring(b))
		skip();
	fill_burst(cmds, N);
	burst_send(&b->h, &burst, cmds, N);
	for (unsigned int i = 0; i < N; i++)
		assert_int_equal(cmd_wait(&cmds[i]), 0);
	assert_int_equal(b->ram->located, 3);
	assert_int_equal(b->ram->wrote, 3);
	assert_int_equal(b->ram->writes, 0);
	for (unsigned int i = 0; i < N; i++) {
		assert_int_equal(host_read(&b->h, ZONE(i % 2) + i / 2, 1, back), 0);
		assert_memory_equal(back, data + 512 * i, 512);
	}
}

enum { NO_FD = 1 << 20 };

static void what_the_ring_reads_short_a_worker_reads(void **ctx)
{
	const int fds[] = { memfd_create("short", MFD_CLOEXEC), NO_FD };
	struct bench *b = *ctx;

	if (!by_ring(b))
		skip();
	assert_int_equal(ftruncate(fds[0], 3 * 512 + 100), 0);
	assert_int_equal(host_write(&b->h, 0, 8, data, 0), 0);
	for (int i = 0; i < 2; i++) {
		b->ram->locates = fds[i];
		memset(back, 0xff, 8 * 512);
		assert_int_equal(host_read(&b->h, 0, 8, back), 0);
		assert_memory_equal(back, data, 8 * 512);
		assert_int_equal(b->ram->reads, i + 1);
	}
	b->ram->read_err = -EIO;
	assert_int_equal(host_read(&b->h, 0, 8, back), RFAULT);
	close(fds[0]);
}

static void what_the_ring_cannot_write_a_worker_writes(void **ctx)
{
	const int fds[] = { open("/dev/full", O_WRONLY | O_CLOEXEC), NO_FD };
	struct bench *b = *ctx;

	if (!by_ring(b))
		skip();
	b->ram->wrote = 0;
	for (int i = 0; i < 2; i++) {
		b->ram->locates = fds[i];
		assert_int_equal(host_write(&b->h, ZONE(i), 8, data, 0), 0);
		assert_int_equal(b->ram->writes, i + 1);
		assert_int_equal(host_read(&b->h, ZONE(i), 8, back), 0);
		assert_memory_equal(back, data, 8 * 512);
	}
	b->ram->write_err = -ENOSPC;
	assert_int_equal(host_write(&b->h, ZONE(2), 8, data, 0), NO_ROOM);
	assert_int_equal(b->ram->wrote, 0);
	close(fds[0]);
}

static void neighbours_that_the_ring_cannot_write_fail_each_for_itself(void **ctx)
{
	enum { N = 16 };
	struct bench *b = *ctx;
	struct cmd cmds[N];
	struct burst burst;

	if (!by_ring(b))
		skip();
	b->ram->locates = NO_FD;
	b->ram->write_err = -EIO;
	b->ram->write_err_at = (ZONE(1) + 3) * 512;
	fill_burst(cmds, N);
	burst_send(&b->h, &burst, cmds, N);
	for (unsigned int i = 0; i < N; i++)
		assert_int_equal(cmd_wait(&cmds[i]), i % 2 && i / 2 >= 3 ? WFAULT : 0);
}

/* The fourth block of zone 1 cannot be written: those before it are, and those of zone 0. */
static void neighbours_fail_each_for_itself(void **ctx)
{
	enum { N = 16 };
	struct bench *b = *ctx;
	struct cmd cmds[N];
	struct burst burst;

	b->ram->write_err = -EIO;
	b->ram->write_err_at = (ZONE(1) + 3) * 512;
	fill_burst(cmds, N);
	burst_send(&b->h, &burst, cmds, N);
	for (unsigned int i = 0; i < N; i++)
		assert_int_equal(cmd_wait(&cmds[i]), i % 2 && i / 2 >= 3 ? WFAULT : 0);
	assert_int_equal(le64toh(host_zone(&b->h, 0).wp), N / 2);
	assert_int_equal(le64toh(host_zone(&b->h, ZONE(1)).wp), ZONE(1) + 3);
}

/* A run is begun anew when an older one has given way to it: it is as long as any. */
static void runs_that_follow_one_another_are_whole(void **ctx)
{
	enum { ZONES_USED = 5, N = ZONES_USED * ZCAP };
	struct bench *b = *ctx;
	struct cmd cmds[N];
	struct burst burst;

	for (unsigned int i = 0; i < N; i++) {
		cmd_init(&cmds[i], nvme_zns_cmd_append, ZONE(i / ZCAP), 0, 0);
		cmds[i].data = data + 512 * i;
		cmds[i].length = 512;
	}
	burst_send(&b->h, &burst, cmds, N);
	for (unsigned int i = 0; i < N; i++)
		assert_int_equal(cmd_wait(&cmds[i]), 0);
	assert_int_equal(b->ram->writes, 2 * ZONES_USED); /* of 32 and 16 */
}

/* More runs than are kept at a time, longer ones than one call takes, and the end of a zone. */
static void a_burst_may_be_any(void **ctx)
{
	enum { N = 120 };
	struct bench *b = *ctx;
	struct cmd cmds[N];
	struct burst burst;

	for (unsigned int i = 0; i < N; i++) {
		memset(data + 512 * i, (int)i + 1, 512);
		cmd_init(&cmds[i], nvme_cmd_write, i < NR * 4 ? ZONE(i / 4 % NR) + i % 4 : 0, 0, 0);
		if (i >= NR * 4)
			cmd_init(&cmds[i], nvme_zns_cmd_append, ZONE(i % 3), 0, 0);
		cmds[i].data = data + 512 * i;
		cmds[i].length = 512;
	}
	burst_send(&b->h, &burst, cmds, N);
	for (unsigned int i = 0; i < N; i++) {
		uint16_t status = cmd_wait(&cmds[i]);
		uint64_t lba = i < NR * 4 ? le32toh(cmds[i].req.cmd.cdw10)
					  : le64toh(cmds[i].req.cqe.result);

		if (status) {
			assert_true(i >= NR * 4); /* the zone was full */
			continue;
		}
		assert_int_equal(host_read(&b->h, lba, 1, back), 0);
		assert_memory_equal(back, data + 512 * i, 512);
	}
}

static void a_failed_write_tells_why_and_can_be_repeated(void **ctx)
{
	struct bench *b = *ctx;

	assert_int_equal(host_write(&b->h, 0, 4, data, 0), 0);
	b->ram->write_err = -EIO;
	assert_int_equal(host_write(&b->h, 4, 4, data, 0), WFAULT);
	b->ram->write_err = -ENOSPC;
	assert_int_equal(host_write(&b->h, 4, 4, data, 0), NO_ROOM);
	b->ram->write_err = -EROFS;
	assert_int_equal(host_write(&b->h, 4, 4, data, 0), RDONLY);
	assert_int_equal(le64toh(host_zone(&b->h, 0).wp), 4);
	b->ram->write_err = 0;
	assert_int_equal(host_write(&b->h, 4, 4, data, 0), 0);
}

static void peers_behind_a_failed_write_fail_too(void **ctx)
{
	struct bench *b = *ctx;
	struct cmd c[5];
	int i;

	b->ram->nowait_again = true;
	b->ram->write_err_at = 2 * 512;
	b->ram->write_err = -EIO;
	pthread_mutex_lock(&b->ram->gate);
	for (i = 0; i < 5; i++) {
		cmd_init(&c[i], nvme_zns_cmd_append, 0, 0, 0);
		c[i].data = data + i * 512;
		c[i].length = 512;
		cmd_send(&b->h, &c[i]);
	}
	pthread_mutex_unlock(&b->ram->gate);
	for (i = 0; i < 5; i++) {
		assert_int_equal(cmd_wait(&c[i]), i < 2 ? 0 : WFAULT);
		assert_int_equal(c[i].req.cqe.result, i < 2 ? htole64(i) : 0);
	}
	assert_int_equal(le64toh(host_zone(&b->h, 0).wp), 2);
	assert_int_equal(host_read(&b->h, 0, 4, back), 0);
	assert_memory_equal(back, data, 2 * 512);
	assert_true(all_zero(back + 2 * 512, 2 * 512));
}

static void a_failed_read_is_a_read_error(void **ctx)
{
	struct bench *b = *ctx;

	assert_int_equal(host_write(&b->h, 0, 4, data, 0), 0);
	b->ram->read_err = -ENOMEM;
	assert_int_equal(host_read(&b->h, 0, 1, back),
			 NVME_SC_INTERNAL); /* the host may try again */
	b->ram->read_err = -EIO;
	assert_int_equal(host_read(&b->h, 0, 1, back), RFAULT);
	assert_int_equal(host_read(&b->h, 4, 1, back), 0); /* nothing there to be read */
	b->ram->read_err = 0;
}

static void a_reset_waits_and_others_wait_for_it(void **ctx)
{
	struct bench *b = *ctx;
	struct cmd wr, reset, append, rd;

	b->ram->nowait_again = true;
	pthread_mutex_lock(&b->ram->gate);
	cmd_init(&wr, nvme_cmd_write, 0, 3, 0);
	wr.data = data;
	wr.length = 4 * 512;
	cmd_send(&b->h, &wr);
	cmd_init(&reset, SEND, 0, 0, NVME_ZNS_ZSA_RESET);
	cmd_send(&b->h, &reset);
	cmd_init(&append, nvme_zns_cmd_append, 0, 0, 0);
	append.data = data;
	append.length = 512;
	cmd_send(&b->h, &append);
	cmd_init(&rd, nvme_cmd_read, 0, 7, 0);
	rd.data = back;
	rd.length = 8 * 512;
	cmd_send(&b->h, &rd);
	assert_int_equal(host_write(&b->h, ZONE(1) + 1, 1, data, 0),
			 ZSTAT(NVME_SC_ZNS_INVALID_WRITE)); /* the loop is not held up */
	ram_sleep(30);
	assert_false(cmd_is_done(&wr) || cmd_is_done(&reset) || cmd_is_done(&append) ||
		     cmd_is_done(&rd));
	assert_int_equal(b->ram->resets, 0);
	pthread_mutex_unlock(&b->ram->gate);
	assert_int_equal(cmd_wait(&wr), 0);
	assert_int_equal(cmd_wait(&reset), 0);
	assert_int_equal(cmd_wait(&append), 0);
	assert_int_equal(append.req.cqe.result, 0); /* the zone's start again */
	assert_int_equal(cmd_wait(&rd), 0);
	assert_int_equal(b->ram->resets, 1);
	assert_true(all_zero(back + 512, 7 * 512));
}

/* A write into a full pipe is in flight until somebody reads from that. */
static void a_reset_waits_for_the_ring(void **ctx)
{
	static char buf[65536];
	struct bench *b = *ctx;
	struct cmd wr, reset;
	int fds[2];
	ssize_t n;

	if (!by_ring(b))
		skip();
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(fcntl(fds[1], F_SETPIPE_SZ, 65536), 65536);
	assert_int_equal(write(fds[1], buf, 65536), 65536);
	b->ram->locates = fds[1];
	cmd_init(&wr, nvme_cmd_write, 0, 7, 0);
	wr.data = data;
	wr.length = 8 * 512;
	cmd_send(&b->h, &wr);
	cmd_init(&reset, SEND, 0, 0, NVME_ZNS_ZSA_RESET);
	cmd_send(&b->h, &reset);
	assert_int_equal(host_write(&b->h, ZONE(1) + 1, 1, data, 0),
			 ZSTAT(NVME_SC_ZNS_INVALID_WRITE)); /* the loop is not held up */
	ram_sleep(30);
	assert_false(cmd_is_done(&wr) || cmd_is_done(&reset));
	assert_int_equal(b->ram->resets, 0);
	for (size_t got = 0; got < 65536 + 8 * 512; got += (size_t)n) {
		n = read(fds[0], buf, sizeof(buf));
		assert_true(n > 0);
	}
	assert_int_equal(cmd_wait(&wr), 0);
	assert_int_equal(cmd_wait(&reset), 0);
	assert_int_equal(b->ram->resets, 1);
	assert_int_equal(b->ram->writes, 0);
	close(fds[0]);
	close(fds[1]);
}

static struct bench *closing;

static void close_queue(struct loop_msg *msg)
{
	(void)msg;
	closing->h.queue.closing = true;
}

static void a_waiting_command_of_a_dead_connection_is_dropped(void **ctx)
{
	struct bench *b = *ctx;
	struct loop_msg close_it = { .fn = close_queue };
	struct cmd reset, append;

	closing = b;
	assert_int_equal(host_write(&b->h, 0, 1, data, 0), 0);
	pthread_mutex_lock(&b->ram->gate);
	cmd_init(&reset, SEND, 0, 0, NVME_ZNS_ZSA_RESET);
	cmd_send(&b->h, &reset);
	cmd_init(&append, nvme_zns_cmd_append, 0, 0, 0);
	append.data = data;
	append.length = 512;
	cmd_send(&b->h, &append);
	ram_sleep(30);
	loop_post(b->h.loop, &close_it);
	ram_sleep(30);
	pthread_mutex_unlock(&b->ram->gate);
	assert_int_equal(cmd_wait(&reset), 0);
	assert_int_equal(cmd_wait(&append), NVME_SC_ABORT_QUEUE);
	assert_int_equal(b->ram->writes, 1);
}

static void open_queue(struct loop_msg *msg)
{
	(void)msg;
	closing->h.queue.closing = false;
}

/* A reset or finish whose zones become quiet only when its host has gone; ALL: of several zones. */
static void drop_a_waiting_claim(struct bench *b, uint8_t action, bool all)
{
	struct loop_msg close_it = { .fn = close_queue }, open_it = { .fn = open_queue };
	struct cmd wr, claim;

	closing = b;
	assert_int_equal(host_write(&b->h, ZONE(1), 2, data, 0), 0);
	b->ram->nowait_again = true;
	pthread_mutex_lock(&b->ram->gate);
	cmd_init(&wr, nvme_cmd_write, 0, 3, 0);
	wr.data = data;
	wr.length = 4 * 512;
	cmd_send(&b->h, &wr);
	cmd_init(&claim, SEND, 0, 0, action | (all ? 0x100u : 0));
	cmd_send(&b->h, &claim);
	ram_sleep(30);
	loop_post(b->h.loop, &close_it);
	ram_sleep(30);
	pthread_mutex_unlock(&b->ram->gate);
	assert_int_equal(cmd_wait(&wr), 0); /* it had begun */
	assert_int_equal(cmd_wait(&claim), NVME_SC_ABORT_QUEUE);
	assert_int_equal(b->ram->resets, 0);
	loop_post(b->h.loop, &open_it);
	assert_int_equal(host_zone(&b->h, 0).wp, 4);
	assert_int_equal(host_zone(&b->h, ZONE(1)).wp, ZONE(1) + 2);
	/* And the zones are free again. */
	assert_int_equal(host_do(&b->h, SEND, 0, 0, NVME_ZNS_ZSA_RESET | 0x100u), 0);
	assert_int_equal(host_zone(&b->h, 0).wp, 0);
	assert_int_equal(host_zone(&b->h, ZONE(1)).wp, ZONE(1));
	b->ram->resets = 0;
}

static void a_waiting_reset_of_a_dead_connection_is_dropped(void **ctx)
{
	drop_a_waiting_claim(*ctx, NVME_ZNS_ZSA_RESET, false);
	drop_a_waiting_claim(*ctx, NVME_ZNS_ZSA_RESET, true);
	drop_a_waiting_claim(*ctx, NVME_ZNS_ZSA_FINISH, true);
}

static void a_reset_that_fails_half_way_makes_its_zone_read_only(void **ctx)
{
	struct bench *b = *ctx;

	assert_int_equal(host_write(&b->h, ZONE(0), 2, data, 0), 0);
	assert_int_equal(host_write(&b->h, ZONE(1), 2, data, 0), 0);
	b->ram->reset_err = -ENOSPC;
	assert_int_equal(host_manage(&b->h, ZONE(0), NVME_ZNS_ZSA_RESET), NO_ROOM);
	assert_int_equal(zone_state(&b->h, ZONE(0)), 2);
	b->ram->reset_err = -EIO;
	assert_int_equal(host_manage(&b->h, ZONE(0), NVME_ZNS_ZSA_RESET), WFAULT);
	assert_int_equal(zone_state(&b->h, ZONE(0)), 13);
	b->ram->reset_err = 0;
	assert_int_equal(host_manage(&b->h, ZONE(0), NVME_ZNS_ZSA_RESET),
			 ZSTAT(NVME_SC_ZNS_INVAL_TRANSITION));
	assert_int_equal(host_write(&b->h, ZONE(0) + 2, 1, data, 0), ZSTAT(NVME_SC_ZNS_READ_ONLY));
	assert_int_equal(host_read(&b->h, ZONE(0), 1, back), 0);
	assert_int_equal(host_manage(&b->h, ZONE(0), NVME_ZNS_ZSA_OFFLINE), 0);
	assert_int_equal(host_read(&b->h, ZONE(0), 1, back), ZSTAT(NVME_SC_ZNS_OFFLINE));
	b->ram->finish_err = -EIO;
	assert_int_equal(host_manage(&b->h, ZONE(1), NVME_ZNS_ZSA_FINISH), WFAULT);
	assert_int_equal(zone_state(&b->h, ZONE(1)), 13);
	b->ram->finish_err = 0;
}

static void a_read_only_namespace_is_protected(void **ctx)
{
	struct bench b;

	(void)ctx;
	start_with(&b, true, false);
	assert_true(b.h.ns->read_only);
	assert_false(b.h.ns->write_cache);
	assert_int_equal(host_write(&b.h, 0, 1, data, 0), RDONLY);
	assert_int_equal(host_do(&b.h, nvme_zns_cmd_append, 0, 0, 0), RDONLY);
	assert_int_equal(host_manage(&b.h, 0, NVME_ZNS_ZSA_OPEN), RDONLY);
	assert_int_equal(host_manage(&b.h, 0, NVME_ZNS_ZSA_RESET | ALL), RDONLY);
	assert_int_equal(host_read(&b.h, 0, 1, back), 0);
	assert_int_equal(host_flush(&b.h), 0);
	bench_stop(&b);
	assert_int_equal(b.ram->flushes, 0);
	ram_free(b.ram);
}

static void an_idle_drive_writes_back_once(void **ctx)
{
	struct bench *b = *ctx;

	assert_int_equal(host_write(&b->h, 0, 3, data, 0), 0);
	assert_int_equal(b->ram->flushes, 0);
	ram_sleep(1300);
	assert_int_equal(b->ram->flushes, 1);
	assert_int_equal(zone_state(&b->h, 0), 2); /* and the loop has seen its end */
	assert_int_equal(b->ram->durable_wp[0], 3 * 512);
	ram_sleep(1200);
	assert_int_equal(b->ram->flushes, 1);
	assert_int_equal(host_manage(&b->h, 0, NVME_ZNS_ZSA_RESET), 0);
	assert_int_equal(host_flush(&b->h), 0); /* the host does it itself: nothing is left */
	ram_sleep(1300);
	assert_int_equal(b->ram->flushes, 2);
}

static void an_idle_drive_writes_back_resets_and_finishes(void **ctx)
{
	struct bench *b = *ctx;

	assert_int_equal(host_write(&b->h, ZONE(0), 3, data, 0), 0);
	assert_int_equal(host_write(&b->h, ZONE(1), 3, data, 0), 0);
	assert_int_equal(host_flush(&b->h), 0);
	assert_int_equal(host_manage(&b->h, ZONE(0), NVME_ZNS_ZSA_RESET), 0);
	ram_sleep(1300);
	assert_int_equal(b->ram->flushes, 2);
	assert_int_equal(host_manage(&b->h, ZONE(1), NVME_ZNS_ZSA_FINISH), 0);
	ram_sleep(1300);
	assert_int_equal(b->ram->flushes, 3);
	assert_int_equal(zone_state(&b->h, 0), 1); /* and the loop has seen its end */
	assert_int_equal(b->ram->durable_wp[0], ZONE(0) * 512);
	assert_int_equal(b->ram->durable_wp[1], (ZONE(1) + ZCAP) * 512);
}

static void a_failed_flush_is_tried_again(void **ctx)
{
	struct bench *b = *ctx;

	b->ram->flush_err = -EIO;
	assert_int_equal(host_write(&b->h, 0, 3, data, 0), 0);
	assert_int_equal(host_flush(&b->h), WFAULT);
	assert_int_equal(b->ram->flushes, 1);
	ram_sleep(1300);
	assert_int_equal(b->ram->flushes, 2); /* after a second */
	ram_sleep(1300);
	assert_int_equal(b->ram->flushes, 2); /* and after two */
	b->ram->flush_err = 0;
	ram_sleep(1000);
	assert_int_equal(b->ram->flushes, 3);
	assert_int_equal(zone_state(&b->h, 0), 2); /* and the loop has seen its end */
	assert_int_equal(b->ram->durable_wp[0], 3 * 512);
	ram_sleep(1300);
	assert_int_equal(b->ram->flushes, 3);
}

static void a_poisoned_store_is_left_alone(void **ctx)
{
	struct bench *b = *ctx;

	b->ram->flush_err = -EROFS;
	assert_int_equal(host_write(&b->h, 0, 3, data, 0), 0);
	assert_int_equal(host_flush(&b->h), RDONLY);
	ram_sleep(1300);
	assert_int_equal(b->ram->flushes, 1);
	b->ram->flush_err = 0;
}

/* Ten writes a second, so that it is never idle: after five seconds it writes back all the same. */
static void a_busy_drive_writes_back_after_five_seconds(void **ctx)
{
	struct bench *b = *ctx;
	uint64_t began = clock_ms();
	uint64_t i, lba;

	for (i = 0; !b->ram->flushes && clock_ms() - began < 9000; i++) {
		assert_int_equal(host_append(&b->h, ZONE(i / ZCAP), 1, data, 0, &lba), 0);
		ram_sleep(100);
	}
	assert_in_range(clock_ms() - began, 4900, 7000);
}

static void zones_come_back_closed(void **ctx)
{
	const struct zns_opts opts = { .lba_size = 512 };
	struct zns_summary sum;
	struct bench b;

	(void)ctx;
	start_with(&b, false, false);
	assert_int_equal(host_write(&b.h, ZONE(0), 3, data, 0), 0);
	assert_int_equal(host_write(&b.h, ZONE(1), ZCAP, data, 0), 0);
	assert_int_equal(host_manage(&b.h, ZONE(2), NVME_ZNS_ZSA_OPEN), 0);
	bench_stop(&b);
	assert_int_equal(b.ram->durable_wp[0], 3 * 512);
	bench_start_on(&b, b.ram, &opts);
	zns_ns_summary(b.h.ns, &sum);
	assert_int_equal(sum.empty, NR - 2);
	assert_int_equal(sum.closed, 1);
	assert_int_equal(sum.full, 1);
	assert_int_equal(sum.zone_size, ZSZE * 512);
	assert_int_equal(sum.zone_capacity, ZCAP * 512);
	assert_int_equal(le64toh(host_zone(&b.h, ZONE(0)).wp), 3);
	assert_int_equal(host_read(&b.h, 0, 4, back), 0);
	assert_memory_equal(back, data, 3 * 512);
	bench_end(&b);
}

static void a_read_is_lent_what_lies_ready(void **ctx)
{
	struct bench *b = *ctx;

	b->h.zero_copy = true;
	b->ram->peeks = true;
	memset(data, 0x5a, 4 * 512);
	assert_int_equal(host_write(&b->h, ZONE(1), 3, data, 0), 0);
	assert_int_equal(host_read(&b->h, ZONE(1), 3, back), 0);
	assert_memory_equal(back, data, 3 * 512);
	assert_int_equal(b->ram->reads, 0);
	assert_int_equal(host_read(&b->h, ZONE(1), 4, back), 0); /* its end is not written */
	assert_memory_equal(back, data, 3 * 512);
	assert_int_equal(back[3 * 512], 0);
	assert_int_equal(b->ram->reads, 1);
	b->ram->peeks = false; /* the store has not got it at hand */
	assert_int_equal(host_read(&b->h, ZONE(1), 3, back), 0);
	assert_memory_equal(back, data, 3 * 512);
	assert_int_equal(b->ram->reads, 2);
}

static void a_reset_waits_for_zero_copy_reads(void **ctx)
{
	struct bench *b = *ctx;
	struct cmd read, reset;

	b->h.zero_copy = true;
	b->ram->peeks = true;
	memset(data, 0x5a, 4 * 512);
	assert_int_equal(host_write(&b->h, ZONE(1), 1, data, 0), 0);
	cmd_init(&read, nvme_cmd_read, ZONE(1), 0, 0);
	read.keeps = true;
	assert_int_equal(host_run(&b->h, &read, back, 512), 0);
	cmd_init(&reset, nvme_zns_cmd_mgmt_send, ZONE(1), 0, NVME_ZNS_ZSA_RESET);
	cmd_send(&b->h, &reset);
	ram_sleep(20);
	assert_false(cmd_is_done(&reset));
	assert_memory_equal(read.req.buf, data, 512);
	cmd_zero_copy_end(&read, TGT_ZERO_COPY);
	assert_int_equal(cmd_wait(&reset), 0);
}

static void what_could_not_be_read_is_lent_no_more(void **ctx)
{
	struct bench *b = *ctx;
	struct cmd read;

	b->h.zero_copy = true;
	b->ram->peeks = true;
	memset(data, 0x5a, 4 * 512);
	assert_int_equal(host_write(&b->h, ZONE(1), 1, data, 0), 0);
	cmd_init(&read, nvme_cmd_read, ZONE(1), 0, 0);
	read.keeps = true;
	assert_int_equal(host_run(&b->h, &read, back, 512), 0);
	cmd_zero_copy_end(&read, TGT_FAULTED);
	b->ram->read_err = -EIO;
	assert_int_equal(host_read(&b->h, ZONE(1), 1, back), ZONE_MEDIA_STATUS(NVME_SC_READ_ERROR));
	assert_int_equal(b->ram->reads, 1);
}

/* Of a length that the store can reserve, which is all of a zone's capacity here. */
static void a_write_may_be_committed(void **ctx)
{
	struct bench *b = *ctx;

	b->h.zero_copy = true;
	b->ram->peeks = true;
	b->ram->reservable = 3 * 512;
	memset(data, 0x5a, 4 * 512);
	assert_int_equal(host_write(&b->h, ZONE(1), 3, data, 0), 0);
	assert_int_equal(host_write(&b->h, ZONE(2), 2, data, 0), 0); /* too short for it */
	assert_int_equal(b->ram->reserved, 1);
	assert_int_equal(b->ram->committed, 1);
	assert_int_equal(b->ram->released, 0);
	assert_int_equal(host_read(&b->h, ZONE(1), 3, back), 0);
	assert_memory_equal(back, data, 3 * 512);
	assert_int_equal(le64toh(host_zone(&b->h, ZONE(1)).wp), ZONE(1) + 3);
}

/* By a worker, when it would block; written, when it does not fit; not at all, when it is refused. */
static void what_is_not_committed_is_released(void **ctx)
{
	struct bench *b = *ctx;

	b->h.zero_copy = true;
	b->ram->peeks = true;
	b->ram->reservable = 2 * 512;
	memset(data, 0x5a, 4 * 512);
	b->ram->commit_err = -EEXIST;
	assert_int_equal(host_write(&b->h, ZONE(1), 2, data, 0), 0);
	assert_int_equal(b->ram->released, 1);
	assert_int_equal(host_read(&b->h, ZONE(1), 2, back), 0);
	assert_memory_equal(back, data, 2 * 512);
	b->ram->commit_err = 0;
	assert_int_equal(host_write(&b->h, ZONE(2) + 1, 2, data, 0),
			 ZSTAT(NVME_SC_ZNS_INVALID_WRITE));
	assert_int_equal(b->ram->released, 2);
	b->ram->commit_err = -EIO;
	assert_int_equal(host_write(&b->h, ZONE(3), 2, data, 0),
			 ZONE_MEDIA_STATUS(NVME_SC_WRITE_FAULT));
	assert_int_equal(b->ram->released, 3);
	b->ram->commit_err = 0;
	b->ram->nowait_again = true;
	assert_int_equal(host_write(&b->h, ZONE(4), 2, data, 0), 0);
	assert_int_equal(b->ram->committed, 1);
	assert_int_equal(b->ram->released, 3);
	assert_int_equal(b->ram->reserved, 4);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_written_is_read),
		TEST(what_is_not_written_reads_as_zeroes),
		TEST(reads_may_cross_zones),
		TEST(an_append_says_where_it_landed),
		cmocka_unit_test(an_append_has_an_address_of_64_bits),
		TEST(an_append_may_be_larger_than_the_images_own_limit),
		TEST(bad_commands_are_refused),
		TEST(select_all_ignores_the_lba),
		TEST(management_acts_and_shows),
		TEST(a_flush_makes_durable_what_was_completed),
		TEST(fua_is_durable_when_it_completes),
		cmocka_unit_test_setup_teardown(writethrough_completes_durable, start_writethrough,
						end),
		TEST(flushes_that_wait_share_one),
		TEST(what_would_block_goes_to_a_worker),
		TEST(after_slow_writes_the_next_go_to_workers),
		TEST(what_is_only_busy_stays_on_the_loop),
		TEST(neighbours_of_one_wake_up_are_one_write),
		TEST(what_is_located_needs_no_worker),
		TEST(descriptor_0_is_a_descriptor),
		TEST(neighbours_are_one_write_by_the_ring_too),
		TEST(what_the_ring_reads_short_a_worker_reads),
		TEST(what_the_ring_cannot_write_a_worker_writes),
		TEST(neighbours_that_the_ring_cannot_write_fail_each_for_itself),
		TEST(a_reset_waits_for_the_ring),
		TEST(neighbours_fail_each_for_itself),
		TEST(runs_that_follow_one_another_are_whole),
		TEST(a_burst_may_be_any),
		TEST(a_failed_write_tells_why_and_can_be_repeated),
		TEST(peers_behind_a_failed_write_fail_too),
		TEST(a_failed_read_is_a_read_error),
		TEST(a_read_is_lent_what_lies_ready),
		TEST(a_reset_waits_for_zero_copy_reads),
		TEST(what_could_not_be_read_is_lent_no_more),
		TEST(a_write_may_be_committed),
		TEST(what_is_not_committed_is_released),
		TEST(a_reset_waits_and_others_wait_for_it),
		TEST(a_waiting_command_of_a_dead_connection_is_dropped),
		TEST(a_waiting_reset_of_a_dead_connection_is_dropped),
		TEST(a_reset_that_fails_half_way_makes_its_zone_read_only),
		cmocka_unit_test(a_read_only_namespace_is_protected),
		TEST(an_idle_drive_writes_back_once),
		TEST(an_idle_drive_writes_back_resets_and_finishes),
		TEST(a_failed_flush_is_tried_again),
		TEST(a_poisoned_store_is_left_alone),
		TEST(a_busy_drive_writes_back_after_five_seconds),
		cmocka_unit_test(zones_come_back_closed),
	};

	log_level(LOG_ERR_);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
