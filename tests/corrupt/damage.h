/* SPDX-License-Identifier: MIT */
/*
 * The damages have numbers: for each golden image and each kind, 0 to damage_count() - 1. A number
 * means the same damage in each run, so a name such as "v11:bit:1234" reproduces a finding.
 */
#ifndef TESTS_CORRUPT_DAMAGE_H
#define TESTS_CORRUPT_DAMAGE_H

#include "../unit/ramfile.h"
#include "golden.h"

enum damage {
	DAMAGE_BIT,    /* each bit of each byte of metadata */
	DAMAGE_FIELD,  /* boundary values in each field of 2, 4, 8 bytes */
	DAMAGE_CUT,    /* the file ends early, or is longer than it was */
	DAMAGE_SPLICE, /* extensions are inserted, clusters of metadata exchanged */
	DAMAGE_RANDOM, /* any number of the above, at random: the number is the seed */
	NR_DAMAGES
};
extern const char *const damage_names[NR_DAMAGES];

/* The image under test: a damaged copy of a golden image, which can be restored. */
struct test_image {
	const struct golden *g;
	struct ramdisk *d;
	struct {
		uint64_t off, len;
	} changes[64];
	unsigned int nr_changes;
	bool changed; /* it differs from the golden image */
};

void test_image_init(struct test_image *p, const struct golden *g);
void test_image_free(struct test_image *p);
/* Restores the bytes of the golden image, after damage and after writes of the engine. */
void test_image_restore(struct test_image *p);

#define RANDOM_CASES (1ull << 48)

/* How many damages of KIND there are for the golden image G. */
uint64_t damage_count(const struct golden *g, enum damage kind);
/* Does damage I of KIND. False: it changes nothing, because the bytes have the values already. */
bool damage_do(struct test_image *p, enum damage kind, uint64_t i);

#endif
