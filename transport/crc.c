// SPDX-License-Identifier: MIT
/* Computes CRC-32C by ISA-L, which chooses the fastest way that the processor has. Any thread. */
#include <isa-l/crc.h>
#include "crc.h"

uint32_t crc_feed(uint32_t crc, const void *data, uint32_t len)
{
	return crc32_iscsi((unsigned char *)(uintptr_t)data, (int)len, crc);
}
