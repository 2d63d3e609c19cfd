/* SPDX-License-Identifier: MIT */
/*
 * The walk of qcow2_check() over the header extensions that own clusters: persistent bitmaps and
 * the encryption header.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

struct disk_bitmaps_ext {
	uint32_t nb_bitmaps;
	uint32_t reserved;
	uint64_t directory_size;
	uint64_t directory_offset;
} __attribute__((packed));
static_assert(sizeof(struct disk_bitmaps_ext) == 24, "bitmaps extension");

struct disk_bitmap { /* extra data and the name follow, padded to a multiple of 8 bytes */
	uint64_t table_offset;
	uint32_t table_size; /* entries */
	uint32_t flags;
	uint8_t type;
	uint8_t granularity_bits;
	uint16_t name_size;
	uint32_t extra_data_size;
} __attribute__((packed));
static_assert(sizeof(struct disk_bitmap) == 24, "bitmap directory entry");

struct disk_crypto_ext {
	uint64_t offset;
	uint64_t length;
} __attribute__((packed));
static_assert(sizeof(struct disk_crypto_ext) == 16, "crypto extension");

#define BITMAP_OFFSET_MASK 0x00fffffffffffe00ull
#define MAX_BITMAPS	   65535u
#define MAX_BITMAP_TABLE   (MAX_L1_BYTES / 8)
#define MAX_DIRECTORY	   (64u << 20)

static int check_bitmap_table(struct check *c, uint64_t off, uint32_t entries)
{
	uint64_t *table;
	int err;

	if (entries > MAX_BITMAP_TABLE) {
		c->unfollowed++;
		check_corrupt(c, "ERROR a bitmap table has %" PRIu32 " entries", entries);
		return 0;
	}
	if (!check_ref_fresh_table(c, off, (uint64_t)entries * 8, "bitmap table"))
		return 0;
	table = malloc((size_t)entries * 8 + 1);
	if (!table)
		return -ENOMEM;
	err = file_read(c->q->file, table, (size_t)entries * 8, off, 0);
	if (err) {
		check_unread(c, "bitmap table", off, err);
		entries = 0;
	}
	for (uint32_t i = 0; i < entries; i++) {
		uint64_t entry = be64toh(table[i]);

		if (entry & ~(BITMAP_OFFSET_MASK | 1))
			check_corrupt(
				c, "ERROR bitmap table entry 0x%" PRIx64 " has reserved bits set",
				entry);
		if (entry & BITMAP_OFFSET_MASK)
			check_ref_table(c, entry & BITMAP_OFFSET_MASK, c->cluster_size,
					"bitmap data");
	}
	free(table);
	return 0;
}

static int check_bitmaps(struct check *c, const struct disk_bitmaps_ext *ext)
{
	uint64_t at = be64toh(ext->directory_offset), size = be64toh(ext->directory_size);
	uint32_t nr = be32toh(ext->nb_bitmaps);
	uint64_t end;
	int err = 0;

	if (nr > MAX_BITMAPS || size > MAX_DIRECTORY) {
		c->unfollowed++;
		check_corrupt(c,
			      "ERROR the bitmaps extension claims %" PRIu32 " bitmaps in %" PRIu64
			      " bytes",
			      nr, size);
		return 0;
	}
	if (!check_ref_table(c, at, size, "bitmap directory"))
		return 0;
	end = at + size;
	for (uint32_t i = 0; i < nr && !err; i++) {
		struct disk_bitmap b;

		if (end - at < sizeof(b)) {
			c->unfollowed++;
			check_corrupt(c, "ERROR the bitmap directory ends before bitmap %" PRIu32,
				      i);
			return 0;
		}
		err = file_read(c->q->file, &b, sizeof(b), at, 0);
		if (err) {
			check_unread(c, "bitmap directory", at, err);
			return 0;
		}
		size = align_up(
			sizeof(b) + (uint64_t)be32toh(b.extra_data_size) + be16toh(b.name_size), 8);
		at = size > end - at ? end : at + size;
		err = check_bitmap_table(c, be64toh(b.table_offset), be32toh(b.table_size));
	}
	return err;
}

/* An extension that reaches beyond the cluster of the header ends the walk. */
int check_extensions(struct check *c)
{
	uint64_t at = c->q->hdr.header_length;
	uint8_t *header = malloc(c->cluster_size);
	int err;

	if (!header)
		return -ENOMEM;
	err = file_read(c->q->file, header, c->cluster_size, 0, 0);
	if (err) {
		check_unread(c, "header", 0, err);
		free(header);
		return 0;
	}
	while (c->q->info.version >= 3 && at + sizeof(struct disk_ext) <= c->cluster_size) {
		struct disk_ext ext;
		uint32_t magic, len;

		memcpy(&ext, header + at, sizeof(ext));
		magic = be32toh(ext.magic);
		len = be32toh(ext.len);
		at += sizeof(ext);
		if (magic == EXT_END || len > c->cluster_size - at)
			break;
		if (magic == EXT_BITMAPS && len >= sizeof(struct disk_bitmaps_ext) &&
		    c->q->hdr.autoclear & AUTOCLEAR_BITMAPS) {
			struct disk_bitmaps_ext bitmaps;

			memcpy(&bitmaps, header + at, sizeof(bitmaps));
			err = check_bitmaps(c, &bitmaps);
			if (err)
				break;
		} else if (magic == EXT_CRYPTO && len >= sizeof(struct disk_crypto_ext)) {
			struct disk_crypto_ext crypto;

			memcpy(&crypto, header + at, sizeof(crypto));
			check_ref_table(c, be64toh(crypto.offset), be64toh(crypto.length),
					"encryption header");
		}
		at += align_up(len, 8);
	}
	free(header);
	return err;
}
