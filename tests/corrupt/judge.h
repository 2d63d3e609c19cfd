/* SPDX-License-Identifier: MIT */
/* Tests whether the engine keeps the rules of judge.c on an image of any bytes. */
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
/*
 * Does not judge whether the writes make a corrupt image worse: excused() knows the damages of
 * damage.c only.
 */
#define JUDGE_LENIENT 4

/* Opens D in the ways WHAT, and sets V. D must have no recorded operations. */
void judge(struct ramdisk *d, unsigned int what, struct verdict *v);

#endif
