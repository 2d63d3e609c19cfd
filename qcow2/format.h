/* SPDX-License-Identifier: MIT */
/*
 * The format of a qcow2 image: structs as in the file (all big-endian), magic numbers, feature
 * bits, and our limits for the sizes in an image. It follows the qcow2 specification and
 * spec/qcow2-zoned.md 1; docs/image.md explains it.
 *
 * Fields are raw: they are converted by be32toh() and be64toh() once, when they are decoded.
 */
#ifndef QCOW2_FORMAT_H
#define QCOW2_FORMAT_H

#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <stdint.h>

#define QCOW2_MAGIC 0x514649fbu /* "QFI\xfb" */

#define HEADER_V2_LENGTH 72u
#define HEADER_V3_LENGTH 104u /* without the compression type */
#define HEADER_LENGTH	 112u /* what we write */

struct disk_header {
	uint32_t magic;
	uint32_t version;
	uint64_t backing_file_offset;
	uint32_t backing_file_size;
	uint32_t cluster_bits;
	uint64_t size;
	uint32_t crypt_method;
	uint32_t l1_size; /* entries */
	uint64_t l1_table_offset;
	uint64_t refcount_table_offset;
	uint32_t refcount_table_clusters;
	uint32_t nb_snapshots;
	uint64_t snapshots_offset;
	/* version 3 */
	uint64_t incompatible_features;
	uint64_t compatible_features;
	uint64_t autoclear_features;
	uint32_t refcount_order;
	uint32_t header_length;
	uint8_t compression_type;
	uint8_t padding[7];
} __attribute__((packed));
static_assert(sizeof(struct disk_header) == HEADER_LENGTH, "qcow2 header");
static_assert(offsetof(struct disk_header, incompatible_features) == HEADER_V2_LENGTH, "v2");
static_assert(offsetof(struct disk_header, compression_type) == HEADER_V3_LENGTH, "v3");

/* incompatible_features */
#define INCOMPAT_DIRTY	     (1ull << 0)
#define INCOMPAT_CORRUPT     (1ull << 1)
#define INCOMPAT_DATA_FILE   (1ull << 2)
#define INCOMPAT_COMPRESSION (1ull << 3)
#define INCOMPAT_EXTL2	     (1ull << 4)
#define INCOMPAT_ZONED	     (1ull << 5)
#define INCOMPAT_KNOWN	     0x3full
/* compatible_features */
#define COMPAT_LAZY_REFCOUNTS (1ull << 0)
/* autoclear_features */
#define AUTOCLEAR_BITMAPS  (1ull << 0)
#define AUTOCLEAR_RAW_DATA (1ull << 1)
/* Ours: since it was set, every writable open has raised the generation in our extension. */
#define AUTOCLEAR_SHADOW (1ull << 63)

/* Header extensions: this, then LEN bytes, then zeroes up to the next multiple of 8. */
struct disk_ext {
	uint32_t magic;
	uint32_t len;
} __attribute__((packed));
static_assert(sizeof(struct disk_ext) == 8, "header extension");

#define EXT_END		   0x00000000u
#define EXT_BACKING_FORMAT 0xe2792acau
#define EXT_FEATURE_NAMES  0x6803f857u
#define EXT_BITMAPS	   0x23852875u
#define EXT_CRYPTO	   0x0537be77u
#define EXT_DATA_FILE	   0x44415441u
#define EXT_ZONED	   0x007a6264u /* "\0zbd" */
#define EXT_ZNSD	   0x7a6e7364u /* "znsd", ours */

/* The data of EXT_ZNSD. Of 16 bytes it is the UUID alone; what follows the struct is kept. */
struct disk_znsd {
	uint8_t uuid[16];
	uint64_t generation;
} __attribute__((packed));
static_assert(sizeof(struct disk_znsd) == 24, "znsd extension");

struct disk_feature_name {
	uint8_t type; /* 0 incompatible, 1 compatible, 2 autoclear */
	uint8_t bit;
	char name[46]; /* padded with zeroes, not terminated */
} __attribute__((packed));
static_assert(sizeof(struct disk_feature_name) == 48, "feature name");

/* The zoned extension in its historic layouts: spec/qcow2-zoned.md 1.2. */
#define ZONED_HOST_MANAGED 1

struct disk_zoned_l56 {
	uint8_t zoned;
	uint8_t reserved[3];
	uint64_t zone_size;
	uint64_t zone_capacity;
	uint32_t conventional_zones;
	uint32_t nr_zones;
	uint32_t max_active_zones;
	uint32_t max_open_zones;
	uint32_t max_append_bytes;
	uint64_t zonedmeta_size; /* 8 * nr_zones */
	uint64_t zonedmeta_offset;
} __attribute__((packed));
static_assert(sizeof(struct disk_zoned_l56) == 56, "L56");

struct disk_zoned_l48a { /* v11: what we write */
	uint8_t zoned;
	uint8_t reserved[3];
	uint32_t nr_zones;
	uint64_t zone_size;
	uint64_t zone_capacity;
	uint32_t conventional_zones;
	uint32_t max_active_zones;
	uint32_t max_open_zones;
	uint32_t max_append_bytes;
	uint64_t zonedmeta_offset;
} __attribute__((packed));
static_assert(sizeof(struct disk_zoned_l48a) == 48, "L48A");

struct disk_zoned_l48b {
	uint8_t zoned;
	uint8_t reserved[3];
	uint64_t zone_size;
	uint64_t zone_capacity;
	uint32_t conventional_zones;
	uint32_t nr_zones;
	uint32_t max_active_zones;
	uint32_t max_open_zones;
	uint32_t max_append_bytes;
	uint64_t zonedmeta_offset;
} __attribute__((packed));
static_assert(sizeof(struct disk_zoned_l48b) == 48, "L48B");

struct disk_zoned_l44 {
	uint8_t zoned;
	uint8_t reserved[3];
	uint32_t nr_zones;
	uint64_t zone_size;
	uint64_t zone_capacity;
	uint64_t zonedmeta_offset;
	uint32_t conventional_zones;
	uint32_t max_active_zones;
	uint32_t max_open_zones;
} __attribute__((packed));
static_assert(sizeof(struct disk_zoned_l44) == 44, "L44");

#define ZONED_EXT_MAX 56 /* the longest of them */

/* The write-pointer table: nr_zones of these, big-endian. */
#define WP_MARKER_V11	 59 /* set in entries of conventional zones */
#define WP_MARKER_LATEST 63
#define WP_MASK		 ((1ull << 59) - 1)

/* L1 and refcount table entries */
#define ENTRY_COPIED	     (1ull << 63) /* refcount is exactly one */
#define L1E_OFFSET_MASK	     0x00fffffffffffe00ull
#define REFTABLE_OFFSET_MASK 0xfffffffffffffe00ull

/* L2 entries */
#define L2E_COMPRESSED	(1ull << 62)
#define L2E_ZERO	(1ull << 0) /* version 3 */
#define L2E_OFFSET_MASK 0x00fffffffffffe00ull
#define L2E_RESERVED	0x3f000000000001feull /* of an entry that is not compressed */

/*
 * What a claim in an image may cost us. Beyond these an image is refused, however large the file
 * (QEMU's caps, and ours for zones).
 */
#define MIN_CLUSTER_BITS   9u
#define MAX_CLUSTER_BITS   21u
#define MAX_REFCOUNT_ORDER 6u
#define MAX_L1_BYTES	   (32u << 20)
#define MAX_REFTABLE_BYTES (8u << 20)
#define MAX_SNAPSHOTS	   65536u
#define MAX_BACKING_NAME   1023u
#define MAX_ZONES	   (1u << 20)
#define MAX_HOST_OFFSET	   (1ull << 56) /* offsets in L1 and L2 entries have 56 bits */

/*
 * A refcount block is one cluster of refcounts, each 1 << ORDER bits wide. Those of a byte and more
 * are big-endian; of narrower ones the first is in the least significant bits of the first byte.
 * The engine, the check and the repair all read and write them with these functions; format_test.c
 * compares the functions with bytes written down from the specification.
 */

/* The largest refcount of ORDER. */
static inline uint64_t refcount_max(uint32_t order)
{
	return UINT64_MAX >> (64 - (1u << order));
}

/* Returns refcount I of BLOCK. BLOCK is aligned to 8 bytes. */
static inline uint64_t refcount_get(const void *block, uint64_t i, uint32_t order)
{
	const uint8_t *byte = block;
	unsigned int bits = 1u << order;

	switch (order) {
	case 3:
		return byte[i];
	case 4:
		return be16toh(((const uint16_t *)block)[i]);
	case 5:
		return be32toh(((const uint32_t *)block)[i]);
	case 6:
		return be64toh(((const uint64_t *)block)[i]);
	default:
		return byte[i * bits / 8] >> (i * bits % 8) & ((1u << bits) - 1);
	}
}

/* Sets refcount I of BLOCK to COUNT, which is at most refcount_max(). */
static inline void refcount_set(void *block, uint64_t i, uint32_t order, uint64_t count)
{
	uint8_t *byte = block;
	unsigned int bits = 1u << order, shift;

	switch (order) {
	case 3:
		byte[i] = (uint8_t)count;
		break;
	case 4:
		((uint16_t *)block)[i] = htobe16((uint16_t)count);
		break;
	case 5:
		((uint32_t *)block)[i] = htobe32((uint32_t)count);
		break;
	case 6:
		((uint64_t *)block)[i] = htobe64(count);
		break;
	default:
		shift = i * bits % 8;
		byte += i * bits / 8;
		*byte = (uint8_t)((*byte & ~(((1u << bits) - 1) << shift)) | count << shift);
	}
}

/* A snapshot's entry in the snapshot table; ID, name and extra data follow, padded to 8. */
struct disk_snapshot {
	uint64_t l1_table_offset;
	uint32_t l1_size;
	uint16_t id_str_size;
	uint16_t name_size;
	uint32_t date_sec;
	uint32_t date_nsec;
	uint64_t vm_clock_nsec;
	uint32_t vm_state_size;
	uint32_t extra_data_size;
} __attribute__((packed));
static_assert(sizeof(struct disk_snapshot) == 40, "snapshot");

#endif
