/* SPDX-License-Identifier: MIT */
/*
 * How often each cluster of the file is used, for qcow2_check(): the walks count here what they
 * find, and what lies outside the file is refused.
 */
#include <inttypes.h>

#include "check.h"

bool check_use(struct check *c, uint64_t off, uint64_t len, uint32_t use, uint32_t times,
	       const char *what)
{
	uint64_t end, first, last;

	if (__builtin_add_overflow(off, len, &end) || end > c->nr_clusters * c->cluster_size) {
		c->lost++;
		check_corrupt(c,
			      "ERROR %s at 0x%" PRIx64 ", %" PRIu64
			      " bytes, lies beyond the end of the file",
			      what, off, len);
		return false;
	}
	if (!len)
		return true;
	first = off / c->cluster_size;
	last = (end - 1) / c->cluster_size;
	for (uint64_t i = first; i <= last; i++) {
		uint64_t count = (uint64_t)(c->ref[i] & REF_COUNT) + times;

		if (count > REF_COUNT)
			count = REF_COUNT;
		c->ref[i] = (c->ref[i] & ~REF_COUNT) | use | (uint32_t)count;
	}
	return true;
}

bool check_use_table(struct check *c, uint64_t off, uint64_t len, const char *what)
{
	if (off % c->cluster_size || (!off && len)) {
		c->lost++;
		check_corrupt(c, "ERROR %s at 0x%" PRIx64 " does not begin at a cluster", what,
			      off);
		return false;
	}
	return check_use(c, off, len, USE_EXCLUSIVE, 1, what);
}

bool check_use_one_table(struct check *c, uint64_t off, uint64_t len, const char *what)
{
	uint64_t cs = c->cluster_size, end = off + len;

	if (off % cs || !len || __builtin_add_overflow(off, len, &end) || end > c->nr_clusters * cs)
		return check_use_table(c, off, len, what);
	for (uint64_t at = off; at < end; at += cs) {
		bool used = c->ref[at / cs] & REF_COUNT;

		if (!check_use_table(c, at, end - at < cs ? end - at : cs, what))
			return false;
		if (used) {
			c->lost++;
			return false;
		}
	}
	return true;
}

bool check_use_top_table(struct check *c, uint64_t off, uint64_t len, uint64_t max,
			 const char *what)
{
	if (len <= max)
		return check_use_table(c, off, len, what);
	c->lost++;
	check_corrupt(c,
		      "ERROR the header claims %" PRIu64 " bytes of %s, at most %" PRIu64
		      " are possible",
		      len, what, max);
	return false;
}
