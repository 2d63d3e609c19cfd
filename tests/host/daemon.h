/* SPDX-License-Identifier: MIT */
/*
 * What an integration test stands on: a temporary directory, an image in it, and a znsd that
 * serves it on a port the kernel chose. The programs are found in $ZNSD and $ZNSIMG (ctest sets
 * them); without them the test is skipped (exit 77).
 *
 * A daemon never outlives its test: it is ended by pid, and by the kernel should the test die.
 */
#ifndef DAEMON_H
#define DAEMON_H

#include <stdbool.h>
#include <sys/types.h>
#include "host.h"

#define RIG_NQN	 "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-0000000000aa"
#define RIG_ARGS 40

struct rig {
	char dir[64];
	char img[96];	 /* DIR/disk.qcow2 */
	char shadow[40]; /* a directory on a tmpfs */
	pid_t pid;	 /* 0: no daemon is running */
	char port[16];
	char ports[512]; /* the port file */
	char log[96];	 /* the daemon's stderr; grows from start to start */
};

/* Seconds that a thing may take are multiplied by this: 1, or more under a sanitizer. */
int rig_slowness(void);

/* Makes DIR; exits 77 when a program is missing. */
void rig_init(struct rig *r);
/* What a power cut does to a tmpfs. */
void rig_lose_shadows(struct rig *r);
/* Kills the daemon if it runs, removes DIR. */
void rig_end(struct rig *r);

/* Runs PROGRAM ("ZNSIMG": the value of that variable) and waits: its exit status, -1 by signal. */
int rig_run(struct rig *r, const char *const argv[]);
/* znsimg create -f qcow2 IMG -o OPTIONS. */
int rig_create(struct rig *r, const char *img, const char *options);
/* The seed's image: 768 MiB, 12 zones of 64 MiB, 6 open, 8 active, append 4 KiB (or as given). */
#define RIG_SEED                                                                                   \
	"size=768M,zone.size=64M,zone.capacity=64M,zone.conventional_zones=0,"                     \
	"zone.max_open_zones=6,zone.max_active_zones=8,zone.mode=host-managed"

/*
 * Starts znsd with ARGS (NULL-terminated) besides --port-file, --ready-fd, and, unless they are
 * among ARGS, --listen 127.0.0.1:0, --nqn RIG_NQN and --shadow of its own. Waits until it is ready.
 * An image without lba= among its options gets lba=512.
 * 0, or -ECHILD when it ended instead; *STATUS (may be NULL) is then its exit status.
 */
int rig_start(struct rig *r, const char *const args[], int *status);
/* rig_start() with IMG (may carry ,options) alone. */
int rig_serve(struct rig *r, const char *img);
/*
 * Sends SIG (0: none) and waits MS milliseconds for the end: the exit status, -1 when a signal
 * ended it, -ETIMEDOUT when it would not end (it is killed then). *TOOK (may be NULL) is in ms.
 */
int rig_stop(struct rig *r, int sig, int ms, int *took);
/* TERM and a clean exit, or an assertion fails. */
void rig_restart(struct rig *r, const char *img);

/* Attaches to the rig's first port and NQN, or an assertion fails. */
void rig_attach(struct rig *r, struct host_ctrl *c, uint16_t nr_io);
/* znsimg check IMG: its exit status. */
int rig_check(struct rig *r, const char *img);

/* A namespace as Identify describes it. */
struct rig_ns {
	uint32_t nsid;
	uint32_t lba;  /* bytes */
	uint64_t nsze; /* blocks */
	uint64_t zsze; /* blocks */
	uint64_t zones;
	uint32_t mdts;	       /* bytes */
	uint32_t zasl;	       /* bytes a Zone Append may carry */
	uint32_t open, active; /* limits; UINT32_MAX: none */
	bool razb;	       /* reads may cross zones */
};
void rig_identify(struct host_ctrl *c, uint32_t nsid, struct rig_ns *ns);
/* The descriptor of the zone that SLBA lies in, or an assertion fails. */
struct nvme_zns_desc rig_zone(struct host_queue *q, const struct rig_ns *ns, uint64_t slba);
/* All zones (at most 4096) in a report to be freed, or an assertion fails. */
struct nvme_zone_report *rig_zones(struct host_queue *q, const struct rig_ns *ns);
/* Writes, appends, or reads and compares BLOCKS blocks of host_pattern(SEED), in pieces. */
void rig_write(struct host_queue *q, const struct rig_ns *ns, uint64_t lba, uint64_t blocks,
	       uint64_t seed);
void rig_verify(struct host_queue *q, const struct rig_ns *ns, uint64_t lba, uint64_t blocks,
		uint64_t seed);
/* Asserts that BLOCKS blocks read as zeroes. */
void rig_verify_zeroes(struct host_queue *q, const struct rig_ns *ns, uint64_t lba,
		       uint64_t blocks);
/* CRC of the whole file, or an assertion fails. */
uint32_t rig_crc_file(const char *path);

#define assert_zone(q, ns, zone, want_state, want_wp)                                              \
	do {                                                                                       \
		struct nvme_zns_desc d_ = rig_zone(q, ns, (zone) * (ns)->zsze);                    \
		assert_int_equal(d_.zs >> 4, want_state);                                          \
		if ((want_state) != NVME_ZNS_ZS_FULL)                                              \
			assert_int_equal(le64toh(d_.wp) - (zone) * (ns)->zsze, want_wp);           \
	} while (0)
#define ZSTATUS(name) NVME_ZNS_STATUS(NVME_SC_ZNS_##name)

uint64_t now_ms(void);

#endif
