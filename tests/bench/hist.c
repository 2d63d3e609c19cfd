// SPDX-License-Identifier: MIT
/*
 * The histogram, see hist.h. Bucket s * 64 + m, with m from 64 to 127, holds the values whose first
 * seven bits are m: those from m << s on, 1 << s of them; values below 64 have buckets of their own.
 * A quantile is told as the greatest value of its bucket, so it is never less than the truth.
 */
#include "hist.h"

uint64_t hist_top(unsigned int bucket)
{
	unsigned int shift;

	if (bucket < 2u << HIST_BITS)
		return bucket;
	shift = (bucket >> HIST_BITS) - 1;
	return ((uint64_t)(bucket - (shift << HIST_BITS) + 1) << shift) - 1;
}

uint64_t hist_quantile(const struct hist *h, double p)
{
	uint64_t want = (uint64_t)(p * (double)h->n + 0.5), seen = 0;
	unsigned int i;

	if (!h->n)
		return 0;
	if (want < 1)
		want = 1;
	for (i = 0; i < HIST_BUCKETS; i++) {
		seen += h->count[i];
		if (seen >= want)
			break;
	}
	if (i >= HIST_BUCKETS - 1 || hist_top(i) > h->max)
		return h->max;
	return hist_top(i);
}
