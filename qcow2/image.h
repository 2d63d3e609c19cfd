/* SPDX-License-Identifier: MIT */
/*
 * The open image and its parts, for the files of this folder only.
 *
 * Locks. q->lock protects everything that follows it in struct qcow2, unless a comment says
 * otherwise. It is held while tables are read, never across a sync: a flush copies under it what it
 * is to write, and writes and syncs without. Reads and writes of mapped parts of a zone never take
 * it; they share only wp, the atomics of struct zone_rec, data_unsynced and poisoned with the rest.
 * Functions declared here require q->lock, unless their comment says otherwise.
 *
 * Dirty metadata is in memory until qcow2_flush() (flush.c) writes it, in the order of the law. So
 * after a crash the file contains complete steps of flushes, and a prefix of one more.
 */
#ifndef QCOW2_IMAGE_H
#define QCOW2_IMAGE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "file.h"
#include "format.h"
#include "freeset.h"
#include "qcow2.h"

/* A cached metadata table: one cluster, its bytes as on disk. */
enum table_kind { TABLE_L2, TABLE_REFBLOCK };

struct table {
	uint64_t off; /* host */
	enum table_kind kind;
	unsigned int pins; /* cache_get() minus cache_put(): not evicted while above 0 */
	bool dirty;
	struct table *hash_next;
	TAILQ_ENTRY(table) link; /* in cache.lru when clean, in cache.dirty[kind] when dirty */
	uint64_t data[];
};
TAILQ_HEAD(table_list, table);

struct cache {
	struct table **hash;
	uint32_t hash_mask;
	uint32_t nr, nr_dirty, max; /* tables */
	struct table_list lru;	    /* clean; the most recently used last */
	struct table_list dirty[2]; /* by kind */
};

/* Bytes that a flush writes: a copy, because the table may change while it is written. */
struct image_write {
	STAILQ_ENTRY(image_write) link;
	struct table *table; /* which it is, pinned; NULL: a part of a top table */
	uint64_t off;	     /* host */
	size_t len;
	uint64_t bytes[];
};
STAILQ_HEAD(image_writes, image_write);

/*
 * A table of 8-byte entries kept whole in memory, in host order: L1 and the refcount table.
 * Changes are tracked by sectors of 64 entries.
 */
struct toptable {
	uint64_t *entry;
	uint32_t nr;   /* entries in memory and, once flushed, on disk */
	uint32_t used; /* all entries from here on are 0, and always were */
	uint64_t off;  /* host */
	uint8_t *dirty;
	uint32_t dirty_lo, dirty_hi; /* sectors [lo, hi) hold all dirty ones */
};

struct extent {
	uint64_t off; /* of the virtual disk */
	uint64_t host;
	_Atomic uint64_t len; /* only grows while it is published */
};

/*
 * The mapped parts of a zone that can be read and written in place, sorted by OFF. Lookups take
 * no lock: entries are appended and lengths grown in place, with release; anything else replaces
 * the whole map and keeps the old one on RETIRED until the zone is quiet (reset, finish, close).
 */
struct zone_map {
	struct zone_map *retired;
	uint32_t cap;
	_Atomic uint32_t nr;
	struct extent ext[];
};

struct zone_rec {
	uint64_t recorded;	     /* on disk; UINT64_MAX: its write failed. The flush's */
	_Atomic uint64_t activation; /* its number (wp.c, 3); 0: none since reset or open */
	struct zone_map *_Atomic map;
	_Atomic uint32_t next; /* in q->dirty_zones: index + 1 of the next one, 0 at the end */
	_Atomic uint8_t queued;
	bool reset; /* since the last flush began */
	/*
	 * Some of what its map says may not be in memory: it was not all received or copied into
	 * reserved clusters (reserve.c). No lock.
	 */
	atomic_bool cold;
};

/* Clusters known to be in memory: one bit each for the first NR; resident.c. Under q->lock. */
struct resident {
	uint64_t *bits;
	uint64_t nr;
};

/* Free clusters of an image on a tmpfs, for data to be received into; reserve.c. */
#define MAX_RESERVED 256u
struct stock {
	uint64_t first, nr; /* clusters */
	uint32_t zone;	    /* for writes to it; for those to others when these have none */
};
struct reserve {
	pthread_mutex_t lock; /* a leaf, below q->lock; protects the rest */
	struct stock stock[MAX_RESERVED];
	uint32_t nr_stock, nr_reserved; /* runs */
};

struct wp_todo {
	uint32_t zone;
	bool reset;  /* and this is not recorded yet */
	uint64_t wp; /* copied before the data was synced */
};

struct runs {
	struct run *run;
	size_t nr, cap;
};

/*
 * The flush that runs; flush.c. What it collected under q->lock is its own until it ends: it writes
 * and syncs without the lock. The flags describe the file; a flush that fails leaves them to the
 * next.
 */
struct flush {
	bool running; /* under q->lock */
	bool locked;  /* it keeps q->lock, because there was no memory for all copies */
	pthread_cond_t ended;
	bool refs_grew;	     /* refcounts were raised since they were last written */
	bool reftable_moved; /* the header on disk still names the old table */
	bool barrier_due;    /* written metadata that the next step must not overtake */
	bool meta_unsynced;  /* metadata was written since the last sync */
	bool leaks_unsynced; /* lowered refcounts were: a clean close syncs them, nobody else */
	struct image_writes refblocks, reftable, l2, l1;
	uint64_t reftable_offset; /* for the header */
	uint32_t reftable_clusters;
	struct wp_todo *todo;
	size_t nr_todo, cap_todo;
	struct runs dead;  /* taken from q->dead */
	struct runs freed; /* taken from q->quarantine: free when it has ended */
	uint32_t log_next; /* what the shadow noted before this entry is in the image then */
};

/* The header in host order, as far as it is not in info. */
struct header {
	uint64_t incompatible, compatible, autoclear;
	uint64_t l1_offset, reftable_offset, snapshots_offset, backing_offset;
	uint32_t l1_size, reftable_clusters, crypt_method, header_length;
	uint32_t ext_end; /* offset of the end marker of the extensions; 0: there is none */
	uint32_t ext_zoned, ext_zoned_len;
	uint32_t ext_znsd, ext_znsd_len; /* 0: there is none */
	uint64_t generation;		 /* of the identity; 0: none recorded */
};

struct qcow2 {
	struct file *file;
	char *path;
	unsigned int flags;					      /* QCOW2_RDONLY ... */
	void (*waited)(const char *path, uint32_t zone, uint64_t ms); /* see qcow2_open_opts */
	struct qcow2_info info;
	struct header hdr;

	/* Constant while open. */
	bool no_data; /* opened to be inspected: the data cannot be read */
	uint32_t cluster_bits, l2_bits, refblock_bits, refcount_order;
	uint64_t cluster_size;
	uint32_t zone_bits;

	_Atomic bool data_unsynced; /* data was written since the last sync; no lock */
	_Atomic int poisoned;	    /* 0 or the errno of the first failed sync; no lock */
	_Atomic bool meta_dirty;    /* a hint for qcow2_dirty() */

	pthread_mutex_t lock;
	struct cache cache;
	struct toptable l1, reftable;

	uint64_t end_cluster; /* no cluster from it on is in use; may be beyond the file's end */
	_Atomic uint64_t file_len; /* as last set by us; written under the lock */
	uint64_t scan_pos;	   /* clusters below it were searched for free ones */
	uint64_t scan_end;
	struct freeset free; /* clusters known to be free */
	/* Allocated since the last flush began, so no flush has recorded what they are used for. */
	struct freeset unrecorded;
	/* Unmapped: one reference each to drop. */
	struct runs quarantine; /* when the next flush has made that durable */
	struct runs dead;	/* at any time: they were unrecorded */
	uint64_t quarantined;	/* clusters in both, and in the flush */

	struct flush flush;
	/* Since the last flush began; as those in it. */
	bool refs_grew, reftable_moved, barrier_due, meta_unsynced;

	struct zone_rec *zones; /* NULL when not zoned */
	_Atomic uint64_t *wp;	/* one a zone, as last set: absolute, marker bits masked; no lock */
	_Atomic uint32_t dirty_zones; /* stack of zones to be recorded; index + 1; no lock */
	_Atomic uint64_t activations; /* numbers given so far; no lock */
	uint32_t active;       /* zones that the table on disk has partly written. The flush's */
	size_t map_bytes;      /* memory in zone maps, the retired ones too */
	struct shadow *shadow; /* NULL: none is kept */
	struct reserve reserve;
	struct resident resident;
	const char *view; /* mapping of the file, for qcow2_peek(), or NULL; constant while open */
	uint64_t view_len;
};

static inline bool writable(const struct qcow2 *q)
{
	return !(q->flags & QCOW2_RDONLY);
}

static inline uint64_t cluster_of(const struct qcow2 *q, uint64_t host)
{
	return host >> q->cluster_bits;
}

static inline uint64_t in_cluster(const struct qcow2 *q, uint64_t off)
{
	return off & (q->cluster_size - 1);
}

static inline uint64_t align_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) / unit * unit;
}

static inline bool zone_is_sequential(const struct qcow2 *q, uint32_t zone)
{
	return zone >= q->info.zoned.conventional_zones;
}

static inline uint64_t zone_start(const struct qcow2 *q, uint32_t zone)
{
	return (uint64_t)zone << q->zone_bits;
}

/* The end of what can be written in ZONE: its capacity, cut at the end of the disk. */
static inline uint64_t zone_writable_end(const struct qcow2 *q, uint32_t zone)
{
	uint64_t end = zone_start(q, zone) + q->info.zoned.zone_capacity;

	return end < q->info.size ? end : q->info.size;
}

/* The L1 entries that a disk of SIZE bytes needs. */
static inline uint64_t l1_needed(const struct qcow2 *q, uint64_t size)
{
	unsigned int bits = q->cluster_bits + q->l2_bits;

	return (size >> bits) + !!(size & ((1ull << bits) - 1));
}

/* open.c */

/* Clears all autoclear bits, durably, if any but those in KEEP is set. 0 or -errno. */
int clear_promises(struct qcow2 *q, uint64_t keep, char err[QCOW2_ERRLEN]);

/* meta.c: metadata writes and syncs, the steps of a flush; by the flush that runs. 0 or -errno. */

/* Writes LEN bytes of metadata to host offset OFF. */
int meta_write(struct qcow2 *q, const void *buf, size_t len, uint64_t off);
/* The same for what was collected, which stays collected. */
int meta_write_all(struct qcow2 *q, const struct image_writes *writes);
/* Syncs data and metadata. An error poisons the image. */
int meta_sync(struct qcow2 *q);

/* cache.c: L2 tables and refcount blocks. A pinned table is not evicted. */

/* Creates a cache of BYTES; 0: a default. */
int cache_init(struct qcow2 *q, size_t bytes);
void cache_free(struct qcow2 *q);
/* Gets the table at host offset OFF, pinned, and reads it if necessary. -EIO: OFF is invalid. */
int cache_get(struct qcow2 *q, uint64_t off, enum table_kind kind, struct table **out);
/* The same for a new table: all zeroes, dirty, pinned. */
int cache_new(struct qcow2 *q, uint64_t off, enum table_kind kind, struct table **out);
void cache_put(struct qcow2 *q, struct table *t);  /* unpins T */
void cache_mark(struct qcow2 *q, struct table *t); /* marks T dirty */
/* Whether the table at OFF is in the cache and dirty. */
bool cache_is_dirty(struct qcow2 *q, uint64_t off);
/* Removes the table at OFF from the cache, dirty or not: its cluster is no table any more. */
void cache_forget(struct qcow2 *q, uint64_t off);
/* Copies all dirty tables of KIND to OUT; they are clean then, and pinned. -ENOMEM: not all. */
int cache_collect(struct qcow2 *q, enum table_kind kind, struct image_writes *out);
/* Frees the copies. Unless they were WRITTEN, their tables are dirty again. */
void cache_collected(struct qcow2 *q, struct image_writes *writes, bool written);
/* Writes all dirty tables of KIND. Stops at the first error; the rest stays dirty. */
int cache_write(struct qcow2 *q, enum table_kind kind);
/* Whether so many tables are dirty that a flush should run before more are. */
bool cache_nearly_full(const struct qcow2 *q);

/* toptable.c */

/* Reads NR entries at host offset OFF. */
int toptable_read(struct qcow2 *q, struct toptable *t, uint64_t off, uint32_t nr);
/* Enlarges T in memory to NR entries, now at host offset OFF, with all of them dirty. */
int toptable_grow(struct toptable *t, uint64_t off, uint32_t nr);
void toptable_free(struct toptable *t);
void toptable_set(struct toptable *t, uint32_t i, uint64_t value);
bool toptable_dirty(const struct toptable *t);
/* Writes the dirty sectors of T. After an error those not written stay dirty. */
int toptable_write(struct qcow2 *q, struct toptable *t);
/* Copies what is dirty to OUT; it is clean then. -ENOMEM: not all of it. */
int toptable_collect(struct toptable *t, struct image_writes *out);
/* Frees the copies. Unless they were WRITTEN, what they hold is dirty again. */
void toptable_collected(struct toptable *t, struct image_writes *writes, bool written);

/* alloc.c */

void alloc_init(struct qcow2 *q);
/* Gets the refcount of a host cluster; 0 if no block describes it. */
int ref_get(struct qcow2 *q, uint64_t cluster, uint64_t *count);
/*
 * Allocates MIN to MAX contiguous free clusters, with a refcount of 1. They read as zeroes and are
 * below the end of the file. -ENOSPC: there are none.
 */
int alloc_data(struct qcow2 *q, uint64_t min, uint64_t max, uint64_t *host, uint64_t *nr);
/*
 * Takes a run of 1 to MAX free clusters that may hold old data; nr 0: there is none. The clusters
 * have no reference, but nobody else is given them until alloc_recycled_back(). 0 or -errno.
 */
int alloc_recycled(struct qcow2 *q, uint64_t max, struct run *out);
void alloc_recycled_back(struct qcow2 *q, const struct run *r);
/*
 * Whether freed clusters keep their space for reuse, as recycled ones. On a tmpfs, because a new
 * page costs more than filling a kept one. With O_DIRECT, because a hole has to be allocated again,
 * for which a direct write waits; and no kept cluster is in the page cache.
 */
bool alloc_keeps(const struct qcow2 *q);
/*
 * Returns space of recycled clusters to the file system: of how many clusters; 0: there are none.
 */
uint64_t alloc_trim(struct qcow2 *q);
/* Allocates a cluster for a table; its contents are undefined. */
int alloc_table(struct qcow2 *q, uint64_t *host);
/* Defers the drop of one reference to each of NR clusters until after the next flush. */
int quarantine_add(struct qcow2 *q, uint64_t first, uint64_t nr);
/* Allocates N more entries, so that the next N quarantine_add() cannot fail. */
int quarantine_reserve(struct qcow2 *q, size_t n);
/*
 * Drops one reference to each cluster of LIST: discards what is free then, and lowers refcounts in
 * memory. Releases q->lock meanwhile; nobody else may change LIST. After an error the rest of it
 * stays.
 */
int runs_drop(struct qcow2 *q, struct runs *list);
/* Moves the runs of FROM to TO; without memory for that they stay where they are. */
void runs_move(struct runs *to, struct runs *from);
/* Whether so much is in quarantine that a flush should run before the next allocation. */
bool quarantine_crowded(const struct qcow2 *q);
/* Whether so much is in quarantine that a flush should run soon, but nobody has to wait for it. */
bool quarantine_due(const struct qcow2 *q);
/* Whether [HOST, HOST + LEN) overlaps the header, L1, L2, refcount or write-pointer tables. */
bool alloc_overlaps_meta(const struct qcow2 *q, uint64_t host, uint64_t len);

/* map.c */

enum cluster_kind { CLUSTER_UNALLOCATED, CLUSTER_DATA, CLUSTER_ZERO, CLUSTER_COMPRESSED };

/* A decoded L2 entry. */
struct mapping {
	enum cluster_kind kind;
	bool copied;	 /* refcount one: may be written in place */
	uint64_t host;	 /* 0: none (a zero cluster may have one) */
	uint64_t length; /* compressed: bytes up to the end of its last sector */
};
struct mapping map_decode(const struct qcow2 *q, uint64_t l2e);

/* Gets the mapping at OFF, and in *RUN for how many bytes, at most LEN, it is uniform. */
int map_lookup(struct qcow2 *q, uint64_t off, uint64_t len, struct mapping *m, uint64_t *run);
/*
 * Makes [OFF, OFF + some of LEN) writable in place, allocating up to LIMIT (an offset: the zone's
 * writable end). *HOST is where OFF lies, *RUN how many bytes from there on are contiguous.
 */
int map_for_write(struct qcow2 *q, uint64_t off, uint64_t len, uint64_t limit, uint64_t *host,
		  uint64_t *run);
/*
 * Maps the NR clusters from FIRST on, none of which is mapped, to those at HOST, which are filled
 * and free, and raises their refcounts. -EEXIST: some are mapped.
 */
int map_commit(struct qcow2 *q, uint64_t first, uint64_t nr, uint64_t host);
/* Unmaps all clusters that begin in [OFF, END); their host clusters go to quarantine. */
int map_unmap(struct qcow2 *q, uint64_t off, uint64_t end);

/* Gets the entry of CLUSTER (of the virtual disk). -EINVAL: it points to an invalid place. */
int map_entry(struct qcow2 *q, uint64_t cluster, struct mapping *m);
/*
 * Maps CLUSTER to HOST, to which the caller has taken a reference; 0: unmaps it. *OLD is what it
 * held before (nr 0: nothing, or no change); the caller puts that into quarantine, where room is
 * reserved.
 */
int map_set(struct qcow2 *q, uint64_t cluster, uint64_t host, bool *changed, struct run *old);

/* resident.c: which clusters of an image on a tmpfs are in memory */

/* Brings the clusters of R into memory if they are not known to be. False: no memory or tmpfs. */
bool resident_bring_in(struct qcow2 *q, const struct run *r);
/* Notes that the space of these clusters was returned to the file system. */
void resident_forget(struct qcow2 *q, uint64_t first, uint64_t nr);
void resident_free(struct qcow2 *q);

/* reserve.c */

void reserve_init(struct qcow2 *q);
/* Puts the clusters that are in stock back into q->free. Under q->lock. */
void reserve_drain(struct qcow2 *q);
void reserve_free(struct qcow2 *q);
/* Counts a reservation as ended: its clusters are mapped. */
void reserve_committed(struct qcow2 *q);

/* compress.c */

/* Decompresses cluster M into BUF, one cluster long. No lock. -EIO: the data is invalid. */
int compressed_read(struct qcow2 *q, const struct mapping *m, void *buf);

/* wp.c: the write-pointer table */

/* Reads the table, detects its byte order and marker bit, and checks every entry. */
int wp_load(struct qcow2 *q, char err[QCOW2_ERRLEN]);
void wp_free(struct qcow2 *q);
/* Takes the dirty zones off the stack into the flush, with their pointers as of one moment. */
int wp_collect(struct qcow2 *q);
/* Step 1 of the law: records the start of zones that were reset. */
int wp_write_resets(struct qcow2 *q);
/* Before step 4, if the limit of active zones requires it: records which zones are full. */
int wp_write_full(struct qcow2 *q);
/* Step 4: records the collected pointers. */
int wp_write_advances(struct qcow2 *q);
/* Puts what was collected back on the stack, after an error. */
void wp_requeue(struct qcow2 *q);

/* Sets ZONE's pointer to WP; the next flush records it. */
void wp_set(struct qcow2 *q, uint32_t zone, uint64_t wp);
/* A reset, in two parts: the first sets the pointer to the start, the second marks it dirty. */
void wp_rewind(struct qcow2 *q, uint32_t zone);
void wp_note_reset(struct qcow2 *q, uint32_t zone);
/* Sets a pointer to that of a shadow; RESET: the zone was reset before it got there. */
void wp_adopt(struct qcow2 *q, uint32_t zone, uint64_t wp, bool reset);

/* zmap.c: the mapped parts of a zone, for lookups without a lock */

/* Gets the host offset of OFF and its contiguous bytes. False: not in the map. No lock. */
bool zmap_find(const struct zone_rec *z, uint64_t off, uint64_t *host, uint64_t *run);
/*
 * Adds a mapping to the zone's map. WARM: all of it is in memory (a tmpfs); else the zone is cold
 * from now on. False: no memory for it, so lookups use the L2 table.
 */
bool zmap_add(struct qcow2 *q, uint32_t zone, uint64_t off, uint64_t len, uint64_t host, bool warm);
/* Whether the map has so many extents that it should get no more. */
bool zmap_scattered(const struct zone_rec *z);
/* Frees the map of a zone, which no read or write uses. */
void zmap_drop(struct qcow2 *q, uint32_t zone);

/* layout.c: the zoned header extension. No lock. */

/* Encodes Z in its layout. Returns the number of bytes, at most ZONED_EXT_MAX. */
size_t layout_encode(const struct qcow2_zoned *z, void *buf);
/*
 * Decodes an extension of LEN bytes in the first layout that agrees with the image's SIZE,
 * CLUSTER_SIZE and FILE_LEN. -EINVAL: none does, and ERR says what is wrong with the most
 * likely one.
 */
int layout_decode(const void *buf, size_t len, uint64_t size, uint64_t cluster_size,
		  uint64_t file_len, struct qcow2_zoned *z, char err[QCOW2_ERRLEN]);

/* places.c */

/* Checks that no two tables overlap, as a writable image requires. -EINVAL: ERR has a sentence. */
int places_check(const struct qcow2 *q, char err[QCOW2_ERRLEN]);

/* flush.c */

void flush_init(struct qcow2 *q);
/*
 * qcow2_flush() with q->lock held, which is released meanwhile: what the caller knows of the image
 * may have changed. 0 or -errno; -EROFS: the image is poisoned.
 */
int flush_locked(struct qcow2 *q);
/* The same for a write or reset of ZONE, which has to wait for it: q->waited() is told. */
int flush_waited(struct qcow2 *q, uint32_t zone);

/* shadow.c: the crash journal that a killed process leaves behind */

/*
 * For a writable open: shadow_recover() (recover.c) replays a shadow that a killed process left in
 * DIR. shadow_prepare() creates a new shadow; shadow_begin() declares it in the image, durably, and
 * uses it from then on. NOTICE gets sentences. -errno: the image cannot be opened. It is no error
 * if there is no shadow.
 */
int shadow_recover(struct qcow2 *q, const char *dir, char notice[QCOW2_ERRLEN]);
void shadow_prepare(struct qcow2 *q, const char *dir, char notice[QCOW2_ERRLEN]);
int shadow_begin(struct qcow2 *q);
/* Ends the shadow. CLEAN: everything is in the image, so the shadow is removed. No lock. */
void shadow_end(struct qcow2 *q, bool clean);

/* Log a change that is in memory and not in the image yet. They only store to memory. */
void shadow_map(struct qcow2 *q, uint64_t off, uint64_t host, uint64_t len);
void shadow_reset(struct qcow2 *q, uint32_t zone);
void shadow_finish(struct qcow2 *q, uint32_t zone, uint64_t wp);
/*
 * Logs clusters that would have a refcount and no use after a kill during a flush: new tables, and
 * unmapped clusters. Only while the log has room, since they would merely leak.
 */
void shadow_spare(struct qcow2 *q, uint64_t host, uint64_t len);
/* Whether the log is nearly full: a flush should run first. */
bool shadow_nearly_full(const struct qcow2 *q);
/* Whether it is half full: a flush should run soon. */
bool shadow_half_full(const struct qcow2 *q);
/* The serial number of the entry that will be noted next. */
uint32_t shadow_next(const struct qcow2 *q);
/* All that was noted before entry NEXT is in the image. */
void shadow_flushed(struct qcow2 *q, uint32_t next);

/* lock.c */

/*
 * Locks FD with QEMU's lock bytes, as a writer or a reader. -EAGAIN: another program has the image
 * open, and ERR has QEMU's message. Closing FD unlocks it. Without q->lock.
 */
int image_lock(int fd, const char *path, bool writer, char err[QCOW2_ERRLEN]);

#endif
