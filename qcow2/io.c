/* SPDX-License-Identifier: MIT */
/*
 * Reads and writes the virtual disk.
 *
 * The hot path of a zoned image is qcow2_read() or qcow2_write() -> zmap_find() -> one system call,
 * without a lock or an allocation. A range that is not in the zone's map is looked up in the L2
 * table under q->lock, and then added to the map. Data is transferred without the lock: the caller
 * resets no zone that is being read or written, so a cluster stays where it was found. Only
 * clusters that a write would replace (compressed, shared) are read under the lock.
 *
 * The data of a large write to an image on a tmpfs may already be in reserved clusters
 * (reserve.c): qcow2_commit() maps them, under q->lock, and transfers nothing. write_anew() fills
 * such clusters itself.
 *
 * Any thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "plant.h"

#define LEARN_CLUSTERS 65536u /* added to a map at the first access to its zone */

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static bool in_disk(const struct qcow2 *q, uint64_t off, uint64_t len)
{
	return off <= q->info.size && len <= q->info.size - off;
}

/* Returns the zone that contains OFF; NULL: the image has no zones. */
static struct zone_rec *zone_at(const struct qcow2 *q, uint64_t off)
{
	return q->zones ? &q->zones[off >> q->zone_bits] : NULL;
}

/* Returns the number of bytes from OFF to the end of its zone, at most LEN. */
static uint64_t within_zone(const struct qcow2 *q, uint64_t off, uint64_t len)
{
	uint64_t size = q->info.zoned.zone_size;

	return q->zones ? min_u64(len, size - (off & (size - 1))) : len;
}

/* Whether LEN bytes of M may be added to a map, so that they can be written in place. */
static bool may_learn(const struct qcow2 *q, const struct mapping *m, uint64_t len)
{
	if (m->kind != CLUSTER_DATA)
		return false;
	return q->flags & QCOW2_RDONLY || (m->copied && !alloc_overlaps_meta(q, m->host, len));
}

/* At the first access to a zone: adds the mappings around OFF to its map. */
static void learn_around(struct qcow2 *q, uint32_t zone, uint64_t off)
{
	uint64_t start = zone_start(q, zone), window = (uint64_t)LEARN_CLUSTERS << q->cluster_bits;
	uint64_t pos = start + (off - start) / window * window;
	uint64_t end =
		min_u64(min_u64(pos + window, start + q->info.zoned.zone_size), q->info.size);

	while (pos < end) {
		struct mapping m;
		uint64_t run;

		if (map_lookup(q, pos, end - pos, &m, &run))
			return;
		if (may_learn(q, &m, run) && !zmap_add(q, zone, pos, run, m.host, false))
			return;
		pos += run;
	}
}

/* Adds the result of a lookup to the map. A zone smaller than a cluster has no map. */
static void learn(struct qcow2 *q, uint64_t off, uint64_t len, const struct mapping *m)
{
	uint32_t zone = off >> q->zone_bits;

	if (!q->zones || q->info.zoned.zone_size < q->cluster_size || m->kind != CLUSTER_DATA)
		return;
	if (!atomic_load_explicit(&q->zones[zone].map, memory_order_relaxed))
		learn_around(q, zone, off);
	else if (may_learn(q, m, len))
		zmap_add(q, zone, off, len, m->host, false);
}

static int read_compressed(struct qcow2 *q, const struct mapping *m, void *buf, uint64_t off,
			   uint64_t len)
{
	char *cluster = malloc(q->cluster_size);
	int err;

	if (!cluster)
		return -ENOMEM;
	err = compressed_read(q, m, cluster);
	if (!err)
		memcpy(buf, cluster + in_cluster(q, off), len);
	free(cluster);
	return err;
}

/*
 * Reads guest data from the file. Where the file was this long when it was opened or extended, its end
 * means that somebody has cut it off: the data is lost, and is no zeroes.
 */
static int read_data(struct qcow2 *q, void *buf, uint64_t len, uint64_t host, unsigned int how)
{
	uint64_t end = atomic_load_explicit(&q->file_len, memory_order_relaxed);

	return file_read(q->file, buf, len, host, how | (host + len <= end ? FILE_WHOLE : 0));
}

static int read_mapped(struct qcow2 *q, const struct mapping *m, void *buf, uint64_t off,
		       uint64_t len)
{
	if (m->kind == CLUSTER_DATA)
		return read_data(q, buf, len, m->host, FILE_DATA);
	if (m->kind == CLUSTER_COMPRESSED)
		return read_compressed(q, m, buf, off, len);
	memset(buf, 0, len);
	return 0;
}

/* Whether a write next to the range of M may replace its cluster. */
static bool may_move(const struct qcow2 *q, const struct mapping *m)
{
	return !(q->flags & QCOW2_RDONLY) &&
	       (m->kind == CLUSTER_COMPRESSED || (m->kind == CLUSTER_DATA && !m->copied));
}

/* Reads what is mapped uniformly from OFF on, at most *LEN bytes; sets *LEN to their number. */
static int read_slow(struct qcow2 *q, void *buf, uint64_t off, uint64_t *len)
{
	struct mapping m;
	bool locked;
	int err;

	pthread_mutex_lock(&q->lock);
	err = map_lookup(q, off, *len, &m, len);
	if (!err)
		learn(q, off, *len, &m);
	locked = !err && may_move(q, &m);
	if (locked)
		err = read_mapped(q, &m, buf, off, *len);
	pthread_mutex_unlock(&q->lock);
	return err || locked ? err : read_mapped(q, &m, buf, off, *len);
}

static unsigned int data_flags(unsigned int flags)
{
	return FILE_DATA | (flags & QCOW2_NOWAIT ? FILE_NOWAIT : 0);
}

int qcow2_read(struct qcow2 *q, void *buf, uint64_t off, uint64_t len, unsigned int flags)
{
	const unsigned int how = data_flags(flags);
	char *to = buf;

	if (!in_disk(q, off, len))
		return -EINVAL;
	if (q->no_data)
		return -ENOTSUP;
	while (len) {
		const struct zone_rec *z = zone_at(q, off);
		uint64_t n = within_zone(q, off, len), host, run;
		int err;

		if (z && zmap_find(z, off, &host, &run)) {
			n = min_u64(n, run);
			err = read_data(q, to, n, host, how);
		} else {
			err = flags & QCOW2_NOWAIT ? -EAGAIN : read_slow(q, to, off, &n);
		}
		if (err)
			return err;
		to += n;
		off += n;
		len -= n;
	}
	return 0;
}

const void *qcow2_peek(const struct qcow2 *q, uint64_t off, uint64_t len)
{
	const struct zone_rec *z;
	uint64_t host, run, end;

	if (!q->view || !in_disk(q, off, len))
		return NULL;
	z = zone_at(q, off);
	if (!zmap_find(z, off, &host, &run) || run < len)
		return NULL;
	end = atomic_load_explicit(&q->file_len, memory_order_relaxed);
	if (end > q->view_len)
		end = q->view_len;
	if (host + len > end || !file_cached(q->file, host, len))
		return NULL;
	return q->view + host;
}

/* Notes a write for later flushes. Call it before the write is reported as complete. */
static void note_written(struct qcow2 *q)
{
	if (!atomic_load(&q->data_unsynced) && !plant(data_not_synced))
		atomic_store(&q->data_unsynced, true);
}

/* Z, the zone if there are zones, tells whether what is mapped is in memory. */
static int write_once(struct qcow2 *q, const struct zone_rec *z, const struct iovec *iov, int n,
		      uint64_t len, uint64_t host, unsigned int how)
{
	bool cold = !z || atomic_load_explicit(&z->cold, memory_order_relaxed);
	int err = 0;

	if (cold || !file_fill(q->file, iov, n, 0, host))
		err = file_writev(q->file, iov, n, len, host, how);

	if (err != -EAGAIN) /* else the caller writes all of it again, by another way */
		note_written(q);
	return err;
}

/*
 * When the disk is full: flushes, to free the clusters in quarantine, and returns free clusters
 * that were kept. Returns whether there is space now.
 */
static bool make_space(struct qcow2 *q)
{
	bool freed = q->quarantined && !flush_locked(q);

	return alloc_trim(q) > 0 || freed;
}

static int write_data(struct qcow2 *q, const struct zone_rec *z, const struct iovec *iov, int n,
		      uint64_t len, uint64_t host, unsigned int how)
{
	int err = write_once(q, z, iov, n, len, host, how);

	if (err != -ENOSPC)
		return err;
	if (how & FILE_NOWAIT)
		return -EAGAIN;
	pthread_mutex_lock(&q->lock);
	if (make_space(q))
		err = 0;
	pthread_mutex_unlock(&q->lock);
	return err ? err : write_once(q, z, iov, n, len, host, how);
}

/* Whether so much waits for a flush, to be written or freed, that an allocation flushes first. */
static bool crowded(const struct qcow2 *q)
{
	return cache_nearly_full(q) || shadow_nearly_full(q) || quarantine_crowded(q);
}

/* Finds or allocates clusters for OFF; on a full disk it makes space and tries again. */
static int place(struct qcow2 *q, uint64_t off, uint64_t len, uint64_t limit, uint64_t *host,
		 uint64_t *run)
{
	int err = crowded(q) ? flush_waited(q, (uint32_t)(off >> q->zone_bits)) : 0;

	if (!err)
		err = map_for_write(q, off, len, limit, host, run);
	if (err != -ENOSPC || !make_space(q))
		return err;
	return map_for_write(q, off, len, limit, host, run);
}

static int write_slow(struct qcow2 *q, const void *buf, uint64_t off, uint64_t *len)
{
	uint32_t zone = off >> q->zone_bits;
	uint64_t limit = q->zones ? zone_writable_end(q, zone) : off + *len, host, run;
	int err;

	pthread_mutex_lock(&q->lock);
	err = atomic_load(&q->poisoned) ? -EROFS : place(q, off, *len, limit, &host, &run);
	if (!err && q->zones)
		zmap_add(q, zone, off - in_cluster(q, off), run + in_cluster(q, off),
			 host - in_cluster(q, off), false);
	pthread_mutex_unlock(&q->lock);
	if (err)
		return err;
	*len = min_u64(*len, run);
	return write_data(q, NULL, &(struct iovec){ (void *)(uintptr_t)buf, *len }, 1, *len, host,
			  FILE_DATA);
}

static int may_write(const struct qcow2 *q, uint64_t off, uint64_t len)
{
	if (!in_disk(q, off, len))
		return -EINVAL;
	if (q->flags & QCOW2_RDONLY || atomic_load(&q->poisoned))
		return -EROFS;
	if (q->zones && len && off + len > zone_writable_end(q, off >> q->zone_bits))
		return -EINVAL;
	return 0;
}

int qcow2_write(struct qcow2 *q, const void *buf, uint64_t off, uint64_t len, unsigned int flags)
{
	const struct zone_rec *z = zone_at(q, off);
	const char *from = buf;
	int err = may_write(q, off, len);

	while (len && !err) {
		struct iovec iov = { (void *)(uintptr_t)from, len };
		uint64_t n = len, host, run;

		if (z && zmap_find(z, off, &host, &run)) {
			iov.iov_len = n = min_u64(n, run);
			err = write_data(q, z, &iov, 1, n, host, data_flags(flags));
		} else {
			err = flags & QCOW2_NOWAIT ? -EAGAIN : write_slow(q, from, off, &n);
		}
		from += n;
		off += n;
		len -= n;
	}
	return err;
}

int qcow2_commit(struct qcow2 *q, const void *mem, uint64_t off, uint64_t len, unsigned int flags)
{
	uint64_t host = (uint64_t)((const char *)mem - q->view);
	uint32_t zone = off >> q->zone_bits;
	int err = may_write(q, off, len);

	if (err)
		return err;
	if (in_cluster(q, off | len) || zmap_scattered(&q->zones[zone]))
		return -EEXIST;
	if (!(flags & QCOW2_NOWAIT))
		pthread_mutex_lock(&q->lock);
	else if (pthread_mutex_trylock(&q->lock))
		return -EAGAIN;
	if (atomic_load(&q->poisoned))
		err = -EROFS;
	else if (crowded(q))
		err = flags & QCOW2_NOWAIT ? -EAGAIN : flush_locked(q);
	if (!err)
		err = map_commit(q, cluster_of(q, off), cluster_of(q, len), host);
	if (!err)
		zmap_add(q, zone, off, len, host, true);
	pthread_mutex_unlock(&q->lock);
	if (err)
		return err == -ENOSPC ? -EEXIST : err;
	reserve_committed(q);
	return 0; /* no note_written(): changed refcounts make the next flush sync the data, too */
}

/* Returns how many of N pieces fit into RUN bytes; sets *LEN, the length of all, to theirs. */
static int pieces_within(const struct iovec *iov, int n, uint64_t run, uint64_t *len)
{
	while (n && *len > run)
		*len -= iov[--n].iov_len;
	return n;
}

/*
 * Writes to unmapped clusters of an image on a tmpfs, from the start of one: fills reserved
 * clusters (reserve.c), zeroes the rest of the last one, and maps them. So no cluster is zeroed
 * before it is written. -EEXIST: this was not possible; write_slow() writes the data, or reports
 * the error.
 */
static int write_anew(struct qcow2 *q, const struct iovec *iov, int n, uint64_t off, uint64_t len,
		      unsigned int flags)
{
	uint64_t whole = align_up(len, q->cluster_size), host, rest;
	uint32_t zone = off >> q->zone_bits;
	void *mem = NULL;
	int err = 0;

	if (q->zones && !in_cluster(q, off) && off + whole <= zone_writable_end(q, zone) &&
	    !zmap_scattered(&q->zones[zone]))
		mem = qcow2_reserve(q, zone, whole);
	if (!mem)
		return -EEXIST;
	host = (uint64_t)((const char *)mem - q->view);
	rest = plant(rest_not_zeroed) ? 0 : whole - len;
	if (!file_fill(q->file, iov, n, rest, host)) {
		err = file_writev(q->file, iov, n, len, host, data_flags(flags));
		if (!err && rest)
			err = file_zero(q->file, host + len, rest);
	}
	if (!err)
		err = qcow2_commit(q, mem, off, whole, flags);
	if (err)
		qcow2_release(q, zone, mem, whole);
	return err ? -EEXIST : 0;
}

int qcow2_writev(struct qcow2 *q, const struct iovec *iov, int n, uint64_t off, uint64_t len,
		 unsigned int flags)
{
	const struct zone_rec *z = zone_at(q, off);
	int err = may_write(q, off, len);

	while (len && !err) {
		uint64_t host, run, bytes = len;
		int k = n;

		if (z && zmap_find(z, off, &host, &run)) {
			k = pieces_within(iov, n, run, &bytes);
			err = k ? write_data(q, z, iov, k, bytes, host, data_flags(flags))
				: -EEXIST;
		} else {
			err = write_anew(q, iov, n, off, len, flags);
		}
		if (err == -EEXIST) { /* write the first piece alone */
			k = 1;
			bytes = iov->iov_len;
			err = qcow2_write(q, iov->iov_base, off, bytes, flags);
		}
		iov += k;
		n -= k;
		off += bytes;
		len -= bytes;
	}
	return err;
}

void qcow2_trim(struct qcow2 *q)
{
	uint64_t left = UINT64_MAX, done;

	if (!alloc_keeps(q))
		return;
	/* Ends after as many clusters as there were at the start, even if a flush adds more. */
	do {
		pthread_mutex_lock(&q->lock);
		reserve_drain(q);
		if (left == UINT64_MAX)
			left = freeset_recycled(&q->free);
		done = alloc_trim(q);
		pthread_mutex_unlock(&q->lock);
		left -= done < left ? done : left;
	} while (done && left);
}

int qcow2_locate(struct qcow2 *q, const struct iovec *iov, int n, uint64_t off, uint64_t len,
		 bool write, uint64_t *host)
{
	const struct zone_rec *z;
	uint64_t at, run;
	int fd;

	if (write ? may_write(q, off, len) : !in_disk(q, off, len) || q->no_data)
		return -1;
	z = zone_at(q, off);
	if (!z || !zmap_find(z, off, &at, &run) || run < len)
		return -1;
	fd = file_direct(q->file, iov, n, at, write);
	if (fd >= 0)
		*host = at;
	return fd;
}

void qcow2_wrote(struct qcow2 *q)
{
	note_written(q);
}
