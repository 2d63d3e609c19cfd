/* SPDX-License-Identifier: MIT */
/* CRC-32C, the digest of headers and data (NVMe TCP Transport Specification 1.0, 3.3.1.1). */
#ifndef TRANSPORT_CRC_H
#define TRANSPORT_CRC_H

#include <stdbool.h>
#include <stdint.h>
#include "nvme.h"

/* Start with CRC_START and add data in pieces; crc_end() returns the value on the wire. */
#define CRC_START 0xffffffffu
uint32_t crc_feed(uint32_t crc, const void *data, uint32_t len);
static inline __le32 crc_end(uint32_t crc)
{
	return htole32(~crc);
}

/*
 * Adds data in a mapping of a file to *CRC. False: the file has become shorter, or its disk does
 * not give the data; *CRC is as before. Any thread that may call guard_run() (guard.h).
 */
bool crc_feed_mapping(uint32_t *crc, const void *data, uint32_t len);

#endif
