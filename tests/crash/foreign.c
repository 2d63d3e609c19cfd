/* SPDX-License-Identifier: MIT */
/*
 * Images as other programs leave them: what our own create does not make and our engine must bring
 * through a crash all the same. The bytes of a closed image are changed by hand, durably, and in
 * the log like everything else.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <string.h>
#include <zlib.h>

#include "format.h"
#include "lab.h"

static bool put(struct drive *d, uint64_t off, const void *bytes, size_t len)
{
	bool trace = d->disk->trace;
	bool ok;

	d->disk->trace = false; /* it is no place of the engine */
	ok = !file_write(&d->disk->file, bytes, len, off, 0) && !file_sync(&d->disk->file);
	d->disk->trace = trace;
	return ok || drive_broken(d, "the image could not be changed");
}

static uint64_t get64(const struct drive *d, uint64_t off)
{
	uint64_t be;

	memcpy(&be, d->disk->data + off, sizeof(be));
	return be64toh(be);
}

/* A feature that a reader may drop; and, for a change, less or none of our extension. */
static bool forget_identity(struct drive *d)
{
	const uint64_t autoclear = htobe64(1ull << 9);
	const uint32_t uuid_len = htobe32(QCOW2_UUID);
	const uint8_t none[sizeof(struct disk_ext)] = { 0 };
	uint64_t off = HEADER_LENGTH;
	struct disk_ext ext;

	for (;;) {
		memcpy(&ext, d->disk->data + off, sizeof(ext));
		if (ext.magic == htobe32(EXT_ZNSD) || ext.magic == htobe32(EXT_END))
			break;
		off += sizeof(ext) + (be32toh(ext.len) + 7) / 8 * 8;
	}
	if (!put(d, offsetof(struct disk_header, autoclear_features), &autoclear, 8))
		return false;
	if (d->geo->conventional) /* as older versions wrote it: the UUID alone */
		return put(d, off + offsetof(struct disk_ext, len), &uuid_len, sizeof(uuid_len));
	return put(d, off, none, sizeof(none));
}

/* Makes the first cluster of the disk a compressed one, in the place it has. It is in use. */
static bool compress_cluster(struct drive *d)
{
	unsigned int cluster_bits = __builtin_ctz(d->geo->cluster), bits = 62 - (cluster_bits - 8);
	uint64_t l1 = get64(d, offsetof(struct disk_header, l1_table_offset));
	uint64_t l2 = get64(d, l1) & L1E_OFFSET_MASK, host = get64(d, l2) & L2E_OFFSET_MASK, entry;
	uint8_t packed[8192];
	z_stream z = { .next_in = d->disk->data + host,
		       .avail_in = d->geo->cluster,
		       .next_out = packed,
		       .avail_out = d->geo->cluster };
	int ret;

	if (!host || deflateInit2(&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK)
		return drive_broken(d, "the first cluster of the disk is not in use");
	ret = deflate(&z, Z_FINISH);
	deflateEnd(&z);
	if (ret != Z_STREAM_END)
		return drive_broken(d, "the first cluster of the disk does not pack");
	entry = L2E_COMPRESSED | host | ((z.total_out - 1) / 512) << bits;
	entry = htobe64(entry);
	/* One after the other: what it was in between is nobody's business, as it is not explored. */
	return put(d, host, packed, z.total_out) && put(d, l2, &entry, sizeof(entry));
}

/*
 * Opens it with a shadow, for what that changes in the header. No state has the shadow itself: it
 * lies on a tmpfs, and all our kills are followed by power cuts; tests/unit has the others.
 */
static bool open_with_shadow(struct drive *d)
{
	char dir[] = "/dev/shm/znsd-crash.XXXXXX", path[512];
	bool well = mkdtemp(dir) != NULL;
	struct dirent *e;
	DIR *list;

	d->shadow_dir = well ? dir : NULL;
	well = drive_open(d);
	d->shadow_dir = NULL;
	list = opendir(dir);
	while (list && (e = readdir(list))) {
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		unlink(path);
	}
	if (list)
		closedir(list);
	rmdir(dir);
	return well;
}

bool drive_make_foreign(struct drive *d)
{
	if (!drive_close(d) || !forget_identity(d))
		return false;
	if (d->geo->conventional && !compress_cluster(d))
		return false;
	d->record_from = d->log->nr;
	if (!drive_open(d))
		return false;
	memcpy(d->uuid, qcow2_info(d->q)->uuid, sizeof(d->uuid));
	d->adopted = d->log->nr;
	/* And once more, with all that a shadow changes. */
	return !d->geo->conventional || (drive_close(d) && open_with_shadow(d));
}
