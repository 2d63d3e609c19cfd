/* SPDX-License-Identifier: MIT */
/*
 * The damages, numbered: of each kind, for each golden image, case 0 to damage_count() - 1. A
 * number means the same damage in every run, so a name like "v11:bit:1234" reproduces a finding.
 */
#ifndef TESTS_CORRUPT_DAMAGE_H
#define TESTS_CORRUPT_DAMAGE_H

#include "../unit/ramfile.h"
#include "golden.h"

enum damage {
	DAMAGE_BIT,    /* each bit of each byte of metadata */
	DAMAGE_FIELD,  /* boundary values in each field of 2, 4, 8 bytes */
	DAMAGE_CUT,    /* the file ends early, or is longer than it was */
	DAMAGE_SPLICE, /* extensions put in, clusters of metadata in each other's place */
	DAMAGE_RANDOM, /* any number of the above, at random: the number is the seed */
	NR_DAMAGES
};
extern const char *const damage_names[NR_DAMAGES];

/* An image under test: a golden's bytes, damaged, on a disk that can be put right again. */
struct patient {
	const struct golden *g;
	struct ramdisk *d;
	struct {
		uint64_t off, len;
	} poked[64];
	unsigned int nr_poked;
	bool changed; /* something differs from the golden */
};

void patient_init(struct patient *p, const struct golden *g);
void patient_free(struct patient *p);
/* Undoes all damage, and all that was written since. */
void patient_restore(struct patient *p);

#define RANDOM_CASES (1ull << 48)

uint64_t damage_count(const struct golden *g, enum damage kind);
/* False: this case changes nothing. */
bool damage_do(struct patient *p, enum damage kind, uint64_t i);

#endif
