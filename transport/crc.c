// SPDX-License-Identifier: MIT
/* Computes CRC-32C by ISA-L, which chooses the fastest way that the processor has. */
#include <isa-l/crc.h>
#include "crc.h"
#include "guard.h"

uint32_t crc_feed(uint32_t crc, const void *data, uint32_t len)
{
	return crc32_iscsi((unsigned char *)(uintptr_t)data, (int)len, crc);
}

struct feed {
	uint32_t crc;
	const void *data;
	uint32_t len;
};

/* For guard_run(). */
static void feed(void *arg)
{
	struct feed *f = arg;

	f->crc = crc_feed(f->crc, f->data, f->len);
}

bool crc_feed_mapping(uint32_t *crc, const void *data, uint32_t len)
{
	struct feed f = { *crc, data, len };

	if (!guard_run(feed, &f))
		return false;
	*crc = f.crc;
	return true;
}
