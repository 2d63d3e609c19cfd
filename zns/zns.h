/* SPDX-License-Identifier: MIT */
/*
 * Creates ZNS namespaces: the interface for main.c.
 */
#ifndef ZNS_ZNS_H
#define ZNS_ZNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct store;
struct tgt_ns;
struct tgt_command_set;

/* Zoned Namespace (CSI 2) and NVM (CSI 0); the latter has no namespaces yet, but is identified. */
extern const struct tgt_command_set zns_command_set;
extern const struct tgt_command_set nvm_command_set;

struct zns_opts {
	uint32_t nsid;	   /* 0: the lowest free one */
	uint32_t lba_size; /* 512 or 4096; 0: 4096 if the geometry allows, else 512 */
	bool read_only;
	bool writethrough; /* every completion is durable; no volatile write cache is reported */
};

/*
 * Creates a namespace over STORE and takes ownership of STORE on success. Its write-back timer runs
 * on LOOP. 0 or -errno; ERR then gets a sentence. Main thread.
 */
int zns_ns_new(struct store *store, const struct zns_opts *opts, struct loop *loop,
	       struct tgt_ns **out, char *err, size_t errlen);

/* Counts for the start-up line and for tests. */
struct zns_summary {
	uint64_t zone_size, zone_capacity; /* bytes */
	uint32_t nr_zones, max_open, max_active;
	uint32_t empty, closed, full;
	uint32_t lba_size;
	uint32_t max_append; /* bytes, as the image asks; it has no effect */
};
void zns_ns_summary(struct tgt_ns *ns, struct zns_summary *sum);

#endif
