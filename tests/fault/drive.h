/* SPDX-License-Identifier: MIT */
/*
 * A zoned drive on a file that fails, beside a model of what it must hold.
 *
 * The model has for every zone its *epochs*: the states that the image may be found in. A flush
 * leaves one; a reset or finish that is not flushed yet adds one. Of an epoch are known the write
 * pointer's bounds, and for each block below the upper one the tag of the write that put it there.
 * Each write has a tag of its own, so no two writes leave the same bytes.
 */
#ifndef TESTS_FAULT_DRIVE_H
#define TESTS_FAULT_DRIVE_H

#include "fault.h"
/* Its store in memory has names that ramfile.h has, too; nobody needs it here. */
#define ram_new	  store_ram_new
#define ram_free  store_ram_free
#define ram_read  store_ram_read
#define ram_close store_ram_close
#include "zns/fake_host.h"
#undef ram_new
#undef ram_free
#undef ram_read
#undef ram_close
#include "qcow2.h"

#define MAX_ZONES  64
#define ZONE_BYTES 65536u
#define ZONE_LBAS  (ZONE_BYTES / 512)
#define CAP_BYTES  49152u
#define CAP_LBAS   (CAP_BYTES / 512)
#define MAX_EPOCHS 6
#define RO_ZONE	   0xd

struct epoch {
	uint32_t tag[CAP_LBAS]; /* 0: zeroes */
	uint32_t floor, wp;	/* blocks that are there for certain, and at most */
};

struct model {
	uint32_t nr_zones;
	uint32_t last_tag;
	struct zone_model {
		uint32_t nr; /* epochs; the last one is now */
		struct epoch epoch[MAX_EPOCHS];
	} zone[MAX_ZONES];
};

struct drive {
	struct ramdisk *disk;
	struct fault *fault;
	struct model *m;
	struct host h;
	bool up;
	const char *step; /* for messages */
};

#endif
