/* SPDX-License-Identifier: MIT */
/* In place of libc's: an image must come out the same from the same seed. */
#include <string.h>
#include <sys/random.h>

#include "lab.h"

uint8_t chance = 0x5a;

ssize_t getrandom(void *buf, size_t len, unsigned int flags)
{
	(void)flags;
	memset(buf, chance, len);
	return len;
}
