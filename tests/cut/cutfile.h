/* SPDX-License-Identifier: MIT */
/*
 * A file over a file that behaves as a disk with a volatile cache: what was written since the last
 * fdatasync is lost, kept, or kept in part when the power is cut. The essay is in cutfile.c.
 */
#ifndef CUT_CUTFILE_H
#define CUT_CUTFILE_H

#include <stddef.h>
#include <stdint.h>

#include "file.h"

#define CUT_SECTOR 512u /* what a disk writes as one */

enum cut_mode {
	CUT_NONE,   /* nothing that was not synced */
	CUT_ALL,    /* everything */
	CUT_RANDOM, /* some of the writes, some of them torn, as SEED says */
};

/* What a power cut found pending, and what of it reached the disk. */
struct cut_result {
	size_t pending; /* changes */
	size_t kept, torn;
	uint64_t sectors, sectors_kept;
};

/*
 * Puts the cache over UNDER, which is taken over. 0 or -errno. Closing the file writes all to UNDER and
 * closes that. FLAGS: with FILE_UNSAFE a sync does nothing; with FILE_DIRECT or FILE_DIRECT_WRITES
 * aligned data is left to the ring (ring.c).
 */
int cut_file(struct file *under, unsigned int flags, struct file **out);
/* The file whose file_direct() returns FD; NULL: none. */
struct file *cut_file_of(int fd);

/*
 * Called, if set, at the beginning of every change (and SYNC) of a file, without locks: a place to
 * cut the power from. One hook for all files; set it before there are threads.
 */
void cut_set_hook(void (*hook)(bool sync));
/* How long a sync of any file takes, in microseconds; others go on writing meanwhile. */
void cut_set_sync_time(unsigned int us);

/*
 * Cuts the power: what MODE and SEED leave of the pending changes is written to the file under F.
 * From then on nothing reaches that file, and whoever calls F waits for ever (STOP) or gets
 * -EIO. 0, or -errno if the file under F could not be written.
 */
int cut_power(struct file *f, enum cut_mode mode, uint64_t seed, bool stop, struct cut_result *res);

#endif
