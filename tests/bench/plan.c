// SPDX-License-Identifier: MIT
/*
 * The plan of a load: which LBA each slot (a place for a command in flight) is to read or write.
 *
 *	randread	any block of the first ZONES zones, which are full
 *	read		all of these, from the first on, again and again; one cursor for all slots
 *	write		a slot has a zone of its own, as a zone takes one write at a time
 *	append		ZONES zones at once, the slots in turn
 *	mixed		seven of ten are randread, three append, to zones behind those that are read
 *	fs		what a file system does: half of the slots write, half are randread
 *
 * 1. Zones that are written are written from their start to their capacity and no further, so every
 *    command succeeds: room is taken when a command is handed out. Then the stream goes on in the
 *    next zone that no stream has: zone, zone + streams, zone + 2 * streams...
 * 2. When flush_bytes have been written, the next slot that would write sends a Flush. The others go
 *    on beside it.
 * 3. When one stream has no zone left, plan_next() says so. The load then stops, its clock too, the
 *    zones are reset, and it goes on.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "nvme.h"
#include "plan.h"

#define READ_ZONES  8  /* unless told */
#define MIXED_READS 70 /* of a hundred */

static bool writes(const struct plan *p)
{
	return p->rw != PLAN_READ && p->rw != PLAN_RANDREAD;
}

static bool reads(const struct plan *p)
{
	return p->rw != PLAN_WRITE && p->rw != PLAN_APPEND;
}

static int refuse(const char *why)
{
	fprintf(stderr, "znsbench: %s\n", why);
	return -EINVAL;
}

int plan_init(struct plan *p, enum plan_rw rw, const struct plan_drive *d, uint32_t bs,
	      uint32_t zones, uint32_t slots)
{
	*p = (struct plan){ .rw = rw, .drive = *d, .bs = bs, .random = 0x9e3779b97f4a7c15u };
	p->blocks = bs / d->lba_size;
	if (!p->blocks || bs % d->lba_size || d->zcap % p->blocks)
		return refuse("--bs must be whole blocks, and a zone's capacity a multiple of it");
	p->per_zone = (uint32_t)(d->zcap / p->blocks);
	if (reads(p))
		p->readers = zones ? zones : d->zones < READ_ZONES ? d->zones : READ_ZONES;
	if (rw == PLAN_WRITE)
		p->writers = slots;
	else if (rw == PLAN_FS)
		p->writers = (slots + 1) / 2;
	else if (writes(p))
		p->writers = rw == PLAN_APPEND && zones ? zones : 1;
	if (rw == PLAN_WRITE && zones && zones != slots)
		return refuse("a write needs a zone for each command in flight: --zones is theirs");
	if (p->readers > d->zones || p->writers > d->zones - p->readers)
		return refuse("the drive has too few zones for that");
	if (!p->writers)
		return 0;
	p->streams = calloc(p->writers, sizeof(*p->streams));
	if (!p->streams)
		return -ENOMEM;
	plan_rewind(p);
	return 0;
}

void plan_fini(struct plan *p)
{
	free(p->streams);
	p->streams = NULL;
}

void plan_rewind(struct plan *p)
{
	for (uint32_t i = 0; i < p->writers; i++)
		p->streams[i] = (struct plan_stream){ .zone = p->readers + i };
}

static uint64_t random_next(struct plan *p) /* xorshift64* */
{
	p->random ^= p->random >> 12;
	p->random ^= p->random << 25;
	p->random ^= p->random >> 27;
	return p->random * 0x2545f4914f6cdd1du >> 32;
}

/* The LBA of command N of those that read the zones from their first to their last. */
static uint64_t read_lba(const struct plan *p, uint64_t n)
{
	return n / p->per_zone * p->drive.zsze + n % p->per_zone * p->blocks;
}

static bool write_next(struct plan *p, uint32_t slot, struct plan_op *op)
{
	struct plan_stream *s = &p->streams[slot % p->writers];

	if (p->flush_bytes && p->unflushed >= p->flush_bytes) {
		p->unflushed = 0;
		*op = (struct plan_op){ .opcode = nvme_cmd_flush };
		return true;
	}
	if (s->next == p->per_zone) {
		if (s->zone + p->writers >= p->drive.zones)
			return false;
		s->zone += p->writers;
		s->next = 0;
	}
	op->opcode =
		p->rw == PLAN_APPEND || p->rw == PLAN_MIXED ? nvme_zns_cmd_append : nvme_cmd_write;
	op->slba = s->zone * p->drive.zsze;
	if (op->opcode == nvme_cmd_write)
		op->slba += (uint64_t)s->next * p->blocks;
	s->next++;
	p->unflushed += p->bs;
	return true;
}

bool plan_next(struct plan *p, uint32_t slot, struct plan_op *op)
{
	uint64_t all = (uint64_t)p->readers * p->per_zone;

	if (p->rw == PLAN_WRITE || p->rw == PLAN_APPEND ||
	    (p->rw == PLAN_FS && slot < p->writers) ||
	    (p->rw == PLAN_MIXED && random_next(p) % 100 >= MIXED_READS))
		return write_next(p, slot, op);
	op->opcode = nvme_cmd_read;
	if (p->rw == PLAN_READ) {
		op->slba = read_lba(p, p->cursor);
		if (++p->cursor == all)
			p->cursor = 0;
	} else {
		op->slba = read_lba(p, random_next(p) * all >> 32);
	}
	return true;
}
