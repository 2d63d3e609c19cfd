/* SPDX-License-Identifier: MIT */
/*
 * The golden images: small sound images, which together have each layout and each feature of the
 * format. They are made in memory when the test runs, by the library, and by editing bytes for what
 * the library does not write. Nothing in them is random: the same build makes the same bytes.
 */
#ifndef TESTS_CORRUPT_GOLDEN_H
#define TESTS_CORRUPT_GOLDEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_GOLDENS 32
#define MAX_REGIONS 96

/* A range of metadata to damage: it has fields of the WIDTHS at each multiple of STEP. */
struct region {
	uint64_t off;
	uint32_t len;
	uint32_t step;
	uint32_t widths; /* bytes: OR of 2, 4, 8 */
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

/* Sets *OUT to all golden images, made at the first call; returns how many there are. */
size_t goldens(const struct golden **out);
const struct golden *golden_find(const char *name);

/* Read and write a big-endian field of WIDTH bytes. */
uint64_t get_be(const uint8_t *at, unsigned int width);
void put_be(uint8_t *at, unsigned int width, uint64_t value);

#endif
