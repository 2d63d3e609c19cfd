/* SPDX-License-Identifier: MIT */
/* Whether the engine behaves on an image, whatever the image is. judge.c has the rules. */
#ifndef TESTS_CORRUPT_JUDGE_H
#define TESTS_CORRUPT_JUDGE_H

#include "../unit/ramfile.h"

struct verdict {
	unsigned int opens;	/* attempted */
	unsigned int succeeded; /* of them */
	bool sound;		/* the check found nothing */
	unsigned int broken;	/* rules broken */
	char why[400];		/* the first of them */
	double seconds;		/* of processor time, all together */
	size_t bytes;		/* the most that was allocated at a time */
};

#define JUDGE_READ  1 /* inspect and read-only opens */
#define JUDGE_WRITE 2 /* a writable open and I/O; changes the disk */
/* Not whether a corrupt image gets more so: excused() knows the damages of damage.c, not all. */
#define JUDGE_LENIENT 4

/* Nothing may be recorded on D yet. */
void judge(struct ramdisk *d, unsigned int what, struct verdict *v);

#endif
