/* SPDX-License-Identifier: MIT */
/*
 * Counts the references to each cluster for qcow2_check(). The walks call these functions for each
 * range that an entry points to; a range beyond the end of the file is a finding and is not
 * counted.
 */
#include <inttypes.h>

#include "check.h"

bool check_ref(struct check *c, uint64_t off, uint64_t len, uint32_t use, uint32_t times,
	       const char *what)
{
	uint64_t end, first, last;

	if (__builtin_add_overflow(off, len, &end) || end > c->nr_clusters * c->cluster_size) {
		c->unfollowed++;
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

bool check_ref_table(struct check *c, uint64_t off, uint64_t len, const char *what)
{
	if (off % c->cluster_size || (!off && len)) {
		c->unfollowed++;
		check_corrupt(c, "ERROR %s at 0x%" PRIx64 " does not begin at a cluster boundary",
			      what, off);
		return false;
	}
	return check_ref(c, off, len, REF_EXCLUSIVE, 1, what);
}

bool check_ref_fresh_table(struct check *c, uint64_t off, uint64_t len, const char *what)
{
	uint64_t cs = c->cluster_size, end = off + len;

	if (off % cs || !len || __builtin_add_overflow(off, len, &end) || end > c->nr_clusters * cs)
		return check_ref_table(c, off, len, what);
	for (uint64_t at = off; at < end; at += cs) {
		bool used = c->ref[at / cs] & REF_COUNT;

		if (!check_ref_table(c, at, end - at < cs ? end - at : cs, what))
			return false;
		if (used) {
			c->unfollowed++;
			return false;
		}
	}
	return true;
}

bool check_ref_top_table(struct check *c, uint64_t off, uint64_t len, uint64_t max,
			 const char *what)
{
	if (len <= max)
		return check_ref_table(c, off, len, what);
	c->unfollowed++;
	check_corrupt(c,
		      "ERROR the header claims %" PRIu64 " bytes of %s, at most %" PRIu64
		      " are possible",
		      len, what, max);
	return false;
}
