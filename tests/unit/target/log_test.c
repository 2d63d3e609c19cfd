/* SPDX-License-Identifier: MIT */
/* Get Log Page: every page, every offset, every length; what the pages say. */
#include "target/fake.h"

static uint16_t get_log(struct fake_queue *fq, uint32_t lid, uint64_t numd, uint64_t offset,
			void *out)
{
	const struct nvme_sqe sqe = { .opcode = nvme_admin_get_log_page,
				      .cdw10 = htole32(lid | (uint32_t)(numd & 0xffff) << 16),
				      .cdw11 = htole32((uint32_t)(numd >> 16)),
				      .cdw12 = htole32((uint32_t)offset),
				      .cdw13 = htole32((uint32_t)(offset >> 32)) };
	uint64_t len = (numd + 1) * 4;

	return fake_do(fq, &sqe, out, len > UINT32_MAX ? 0 : (uint32_t)len, NULL);
}

static const struct {
	uint8_t lid;
	uint32_t size;
} pages[] = { { 0x00, 1024 }, { 0x01, 64 },   { 0x02, 512 },  { 0x03, 512 },
	      { 0x04, 4096 }, { 0x05, 4096 }, { 0x12, 1024 }, { 0x13, 4096 } };

static void any_piece_of_a_page_is_that_of_the_whole(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	uint8_t whole[8192], piece[8192];

	(void)state;
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		uint32_t size = pages[i].size;

		memset(whole, 0, sizeof(whole));
		assert_int_equal(get_log(fq, pages[i].lid, size / 4 - 1, 0, whole), 0);
		for (uint32_t off = 0; off <= size; off += 4 * (off < 64 ? 1 : 61)) {
			for (uint32_t len = 4; len <= 4096; len *= 4) {
				assert_int_equal(get_log(fq, pages[i].lid, len / 4 - 1, off, piece),
						 0);
				assert_memory_equal(piece, whole + off,
						    len < sizeof(whole) - off ? len : 0);
			}
		}
	}
	fake_close(fq);
}

static void offsets_out_of_place_are_refused(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);

	(void)state;
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		const uint64_t bad[] = { 1,
					 2,
					 3,
					 5,
					 pages[i].size + 4ull,
					 0xfffffffc,
					 0x100000000,
					 0xfffffffffffffffc };

		for (size_t j = 0; j < sizeof(bad) / sizeof(bad[0]); j++)
			assert_int_equal(get_log(fq, pages[i].lid, 0, bad[j], NULL), INVALID);
	}
	fake_close(fq);
}

static void lengths_beyond_mdts_are_refused_and_do_not_wrap(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	const uint64_t most = TGT_MAX_TRANSFER / 4 - 1;

	(void)state;
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		assert_int_equal(get_log(fq, pages[i].lid, most, 0, NULL), 0);
		assert_int_equal(get_log(fq, pages[i].lid, most + 1, 0, NULL), INVALID);
		assert_int_equal(get_log(fq, pages[i].lid, 0x3fffffff, 0, NULL), INVALID);
		assert_int_equal(get_log(fq, pages[i].lid, 0xffffffff, 0, NULL), INVALID);
	}
	fake_close(fq);
}

static void a_page_there_is_not_is_an_invalid_log_page(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	uint8_t supported[1024];

	(void)state;
	assert_int_equal(get_log(fq, 0, 255, 0, supported), 0);
	for (uint32_t lid = 0; lid < 256; lid++) {
		uint16_t status = get_log(fq, lid, 0, 0, NULL);

		assert_int_equal(
			status, supported[4 * lid] ? 0 : SPECIFIC | NVME_SC_INVALID_LOG_PAGE | DNR);
	}
	fake_close(fq);
}

static void effects_are_those_of_the_command_set_named(void **state)
{
	struct nvme_sqe sqe = { .opcode = nvme_admin_get_log_page,
				.cdw10 = htole32(5 | 1023u << 16),
				.cdw14 = htole32(NVME_CSI_ZNS << 24) };
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	struct nvme_cmd_effects_log log;

	(void)state;
	assert_int_equal(fake_do(fq, &sqe, &log, 4096, NULL), 0);
	assert_int_equal(le32toh(log.acs[nvme_admin_identify]), 1);
	assert_int_equal(log.acs[nvme_admin_format_nvm], 0);
	assert_int_equal(le32toh(log.iocs[NVME_CMD_FLUSH]), 1);
	sqe.cdw14 = htole32(1u << 24);
	assert_int_equal(fake_do(fq, &sqe, &log, 4096, NULL), INVALID);
	fake_close(fq);
}

static void the_firmware_is_in_slot_1(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	struct nvme_firmware_slot log;

	(void)state;
	assert_int_equal(get_log(fq, 3, sizeof(log) / 4 - 1, 0, &log), 0);
	assert_int_equal(log.afi, 1);
	assert_memory_equal(log.frs[0], ZNSD_VERSION "        ", 8);
	fake_close(fq);
}

static void a_log_says_which_features_can_be_set(void **state)
{
	static const uint8_t changeable[] = {
		0x01, 0x02, 0x04, 0x05, 0x07, 0x0a, 0x0b, 0x0f, 0x19
	};
	static const uint8_t fixed[] = { 0x06, 0x81 };
	struct fake_queue *fq = fake_admin(FAKE_NQN);
	struct nvme_fid_supported_effects_log log;
	uint32_t known = 0;

	(void)state;
	assert_int_equal(get_log(fq, 0x12, 255, 0, &log), 0);
	for (size_t i = 0; i < sizeof(changeable); i++)
		assert_int_equal(le32toh(log.fid_support[changeable[i]]) & 0xffff,
				 NVME_FID_SUPPORTED_EFFECTS_FSUPP | NVME_FID_SUPPORTED_EFFECTS_CCC);
	for (size_t i = 0; i < sizeof(fixed); i++)
		assert_int_equal(le32toh(log.fid_support[fixed[i]]) & 0xffff,
				 NVME_FID_SUPPORTED_EFFECTS_FSUPP);
	for (size_t fid = 0; fid < 256; fid++)
		known += log.fid_support[fid] != 0;
	assert_int_equal(known, sizeof(changeable) + sizeof(fixed));
	fake_close(fq);
}

static uint16_t write_like(struct fake_queue *io, uint8_t opcode, uint32_t len)
{
	const struct nvme_sqe sqe = { .opcode = opcode, .nsid = 1, .cdw12 = htole32(len) };

	return fake_do(io, &sqe, NULL, len, NULL);
}

static void smart_counts_writes_and_appends_alone(void **state)
{
	struct fake_queue *fq = fake_admin(FAKE_NQN), *io = fake_io(fq, 1);
	struct nvme_smart_log log;

	(void)state;
	assert_int_equal(write_like(io, NVME_CMD_WRITE, 512 * 1000), 0);
	assert_int_equal(write_like(io, NVME_CMD_APPEND, 512 * 1001), 0);
	assert_int_equal(write_like(io, NVME_CMD_FLUSH, 0), 0);
	assert_int_equal(get_log(fq, 2, 127, 0, &log), 0);
	assert_int_equal(log.host_writes[0], 2);
	assert_int_equal(log.data_units_written[0], 3);
	assert_int_equal(get_log(fq, 2, 127, 0, &log), 0); /* its opcode is that of a Read */
	assert_int_equal(log.host_reads[0], 0);
	fake_close(io);
	fake_close(fq);
}

static void smart_counts_what_was_moved(void **state)
{
	struct nvme_sqe read = { .opcode = NVME_CMD_READ, .nsid = 1, .cdw12 = htole32(512 * 1001) };
	struct fake_queue *fq = fake_admin(FAKE_NQN), *io = fake_io(fq, 1);
	struct nvme_smart_log log;

	(void)state;
	assert_int_equal(fake_do(io, &read, NULL, 512 * 1001, NULL), 0);
	assert_int_equal(get_log(fq, 2, 127, 0, &log), 0);
	assert_int_equal(log.host_reads[0], 1);
	assert_int_equal(log.data_units_read[0], 2);
	assert_int_equal(log.host_writes[0], 0);
	assert_int_equal(log.avail_spare, 100);
	fake_close(io);
	fake_close(fq);
	fq = fake_admin(FAKE_NQN);
	assert_int_equal(get_log(fq, 2, 127, 0, &log), 0);
	assert_int_equal(log.host_reads[0], 1); /* the subsystem's, not the controller's */
	fake_close(fq);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fake_test(any_piece_of_a_page_is_that_of_the_whole),
		fake_test(offsets_out_of_place_are_refused),
		fake_test(lengths_beyond_mdts_are_refused_and_do_not_wrap),
		fake_test(a_page_there_is_not_is_an_invalid_log_page),
		fake_test(effects_are_those_of_the_command_set_named),
		fake_test(the_firmware_is_in_slot_1),
		fake_test(a_log_says_which_features_can_be_set),
		fake_test(smart_counts_writes_and_appends_alone),
		fake_test(smart_counts_what_was_moved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
