/* SPDX-License-Identifier: MIT */
/*
 * The golden images: small, sound, and between them every layout and feature of the format. They
 * are made in memory at run time, by the library itself and, where it does not make such images,
 * by editing bytes. Nothing random is in them: the same build makes the same bytes.
 */
#ifndef TESTS_CORRUPT_GOLDEN_H
#define TESTS_CORRUPT_GOLDEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_GOLDENS 32
#define MAX_REGIONS 96

/* Bytes of metadata that are damaged: fields of the WIDTHS (1 << n bytes each) at every STEP. */
struct region {
	uint64_t off;
	uint32_t len;
	uint32_t step;
	uint32_t widths; /* OR of 2, 4, 8 */
};

struct golden {
	const char *name;
	uint8_t *bytes;
	uint64_t size, cap;
	uint64_t cluster_size;
	bool writable; /* a writable open succeeds */
	bool servable; /* a read-only open without INSPECT does */
	struct region region[MAX_REGIONS];
	unsigned int nr_regions;
};

/* All of them, once a process; returns how many. */
size_t goldens(const struct golden **out);
const struct golden *golden_find(const char *name);

/* Big-endian fields of an image's bytes. */
uint64_t get_be(const uint8_t *at, unsigned int width);
void put_be(uint8_t *at, unsigned int width, uint64_t value);

#endif
