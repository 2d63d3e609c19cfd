/* SPDX-License-Identifier: MIT */
/* CRC-32C, the digest of NVMe/TCP headers and data (NVMe TCP Transport Specification 1.0, 3.3.1.1). */
#ifndef TRANSPORT_CRC_H
#define TRANSPORT_CRC_H

#include <stdint.h>
#include "nvme.h"

/* Start with CRC_START and add data in pieces of any length; crc_end() returns the value on the wire. */
#define CRC_START 0xffffffffu
uint32_t crc_feed(uint32_t crc, const void *data, uint32_t len);
static inline __le32 crc_end(uint32_t crc)
{
	return htole32(~crc);
}

#endif
