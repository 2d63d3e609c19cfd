// SPDX-License-Identifier: MIT
/*
 * Any bytes as an image: opened in all ways, checked, read, written. The rules are those of
 * tests/corrupt/judge.c, where the seeds come from too (corrupt_test --write DIR).
 */
#include <stdio.h>

#include "../corrupt/judge.h"

#define DISK_CAP (16u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct ramdisk *d;
	struct verdict v;

	if (!d)
		d = ram_new(DISK_CAP);
	if (size > DISK_CAP / 2)
		return 0;
	madvise(d->bytes, d->cap, MADV_DONTNEED);
	ram_forget(d);
	memcpy(d->bytes, data, size);
	d->size = size;
	judge(d, JUDGE_READ | JUDGE_WRITE | JUDGE_LENIENT, &v);
	if (v.broken) {
		fprintf(stderr, "fuzz_image: %s\n", v.why);
		abort();
	}
	return 0;
}
