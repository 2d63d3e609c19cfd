/* SPDX-License-Identifier: MIT */
/* CRC-32C as its definition has it, bit by bit: independent of the drive's. */
#ifndef TEST_BITWISE_H
#define TEST_BITWISE_H

#include <stddef.h>
#include <stdint.h>

/* As crc_feed(). */
static inline uint32_t bitwise_feed(uint32_t crc, const void *data, size_t len)
{
	for (const uint8_t *p = data; len--; p++) {
		crc ^= *p;
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
	}
	return crc;
}

static inline uint32_t bitwise_crc32c(const void *data, size_t len)
{
	return ~bitwise_feed(~0u, data, len);
}

#endif
