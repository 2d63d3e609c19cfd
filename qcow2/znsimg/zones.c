/* SPDX-License-Identifier: MIT */
/*
 * znsimg zones [--format=table|json|csv|blkzone] [--lba=512|4096] [-U] FILE [FILTER]...
 *
 * Lists the zones with the state that each has at the next start of znsd, by its recorded write
 * pointer: no zone is open then. table, json and csv count in LBAs, with the words and keys of
 * nvme-cli; blkzone prints the lines of util-linux's blkzone, in sectors of 512 bytes.
 *
 * As in NVMe, a full or conventional zone has no write pointer: json and csv print all ones.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"
#include "znsimg.h"

enum { ZONES_FORMAT = IMG_OPT_OWN, ZONES_LBA };

#define FORMAT_WORDS "table|json|csv|blkzone"

static const struct cli_option zones_options[] = {
	{ ZONES_FORMAT, "format", "FORMAT", "table, json, csv or blkzone (table)", FORMAT_WORDS,
	  NULL },
	{ ZONES_FORMAT, "output", "FORMAT", "the same", FORMAT_WORDS, NULL },
	{ ZONES_LBA, "lba", "BYTES",
	  "LBA size, 512 or 4096 (4096 if the zones are multiples of it)", "512|4096", NULL },
	IMG_ROW_SHARE,
	IMG_ROW_HELP,
	{ 0 },
};

/* The zone states of NVMe, with the numbers that Linux has, too. */
enum zone_state { NOT_WP = 0, EMPTY = 1, CLOSED = 4, FULL = 14 };

/* All zone states. Those of an image are in enum zone_state. blkzone calls offline "of". */
static const struct state {
	unsigned int state;
	const char *filter, *other, *name;
} states[] = {
	{ 0, "nw", "nw", "NOT_WP" },	 { 1, "em", "em", "EMPTY" },
	{ 2, "oi", "oi", "IMP_OPENED" }, { 3, "oe", "oe", "EXP_OPENED" },
	{ 4, "cl", "cl", "CLOSED" },	 { 13, "ro", "ro", "READONLY" },
	{ 14, "fu", "fu", "FULL" },	 { 15, "ol", "of", "OFFLINE" },
};

#define NR_STATES (sizeof(states) / sizeof(states[0]))

struct zone_row {
	uint32_t nr;
	uint64_t start, len, cap, wp; /* bytes */
	const struct state *state;
	bool conventional;
};

/* In the order of FORMAT_WORDS. */
enum zones_format { FORMAT_TABLE, FORMAT_JSON, FORMAT_CSV, FORMAT_BLKZONE };

struct zones_args {
	struct img_args common;
	enum zones_format format;
	uint32_t lba;	     /* 0: not given */
	unsigned int states; /* a bit for each state asked for; 0: all */
	const char *file;
};

static int format_parse(const char *text, enum zones_format *out)
{
	int i = word_index(FORMAT_WORDS, text);

	if (i < 0) {
		img_error("--format must be 'table', 'json', 'csv' or 'blkzone', not '%s'", text);
		return IMG_FAILED;
	}
	*out = (enum zones_format)i;
	return IMG_OK;
}

static int lba_parse(const char *text, uint32_t *out)
{
	if (strcmp(text, "512") && strcmp(text, "4096")) {
		img_error("--lba must be 512 or 4096, not '%s'", text);
		return IMG_FAILED;
	}
	*out = (uint32_t)strtoul(text, NULL, 10);
	return IMG_OK;
}

/* Takes WORD as a filter if it is the name of one, else as the file ("./em" is a file). */
static int argument_parse(const char *word, struct zones_args *a)
{
	for (unsigned int i = 0; i < NR_STATES; i++) {
		if (!strcmp(word, states[i].filter) || !strcmp(word, states[i].other)) {
			a->states |= 1u << states[i].state;
			return IMG_OK;
		}
	}
	if (a->file) {
		img_error("'%s' is no filter; the filters are em, oi, oe, cl, fu, ro, ol and nw",
			  word);
		return IMG_FAILED;
	}
	a->file = word;
	return IMG_OK;
}

static int zones_parse(int argc, char **argv, struct zones_args *a)
{
	int c;

	while ((c = img_next_option(&img_zones, argc, argv, &a->common)) >= 0) {
		if (c == ZONES_FORMAT ? format_parse(optarg, &a->format)
				      : lba_parse(optarg, &a->lba))
			return IMG_FAILED;
	}
	if (c < -1)
		return IMG_FAILED;
	if (a->common.help)
		return IMG_OK;
	for (int i = optind; i < argc; i++) {
		if (argument_parse(argv[i], a))
			return img_usage_error(&img_zones);
	}
	if (!a->file) {
		img_error("zones needs a file name");
		return img_usage_error(&img_zones);
	}
	return IMG_OK;
}

static const struct state *find_state(enum zone_state state)
{
	unsigned int i = 0;

	while (states[i].state != state)
		i++;
	return &states[i];
}

static struct zone_row zone_row(const struct qcow2 *q, uint32_t nr)
{
	const struct qcow2_info *info = qcow2_info(q);
	const struct qcow2_zoned *z = &info->zoned;
	struct zone_row row = { .nr = nr, .start = nr * z->zone_size, .len = z->zone_size };

	if (row.len > info->size - row.start)
		row.len = info->size - row.start;
	row.cap = z->zone_capacity < row.len ? z->zone_capacity : row.len;
	row.conventional = nr < z->conventional_zones;
	row.wp = qcow2_wp(q, nr);
	if (row.conventional)
		row.state = find_state(NOT_WP);
	else if (row.wp == row.start)
		row.state = find_state(EMPTY);
	else if (row.wp >= row.start + row.cap)
		row.state = find_state(FULL);
	else
		row.state = find_state(CLOSED);
	return row;
}

static bool has_wp(const struct zone_row *r)
{
	return r->state->state == EMPTY || r->state->state == CLOSED;
}

static const char *type_name(const struct zone_row *r)
{
	return r->conventional ? "CONVENTIONAL" : "SEQWRITE_REQ";
}

static void print_row_table(const struct zone_row *r, uint32_t lba)
{
	char wp[32] = "-";

	if (has_wp(r))
		snprintf(wp, sizeof(wp), "0x%" PRIx64, r->wp / lba);
	printf("%7" PRIu32 "  %-8s  %-12s  %#14" PRIx64 "  %14s  %#12" PRIx64 "  %3u%%\n", r->nr,
	       r->state->name, type_name(r), r->start / lba, wp, r->cap / lba,
	       r->state->state == FULL ? 100u
	       : r->state->state == NOT_WP
		       ? 0u
		       : (unsigned int)((double)(r->wp - r->start) * 100 / (double)r->cap));
}

static void print_row_json(const struct zone_row *r, uint32_t lba, bool first)
{
	printf("%s        {\n"
	       "            \"slba\": %" PRIu64 ",\n"
	       "            \"wp\": %" PRIu64 ",\n"
	       "            \"cap\": %" PRIu64 ",\n"
	       "            \"state\": \"%s\",\n"
	       "            \"type\": \"%s\",\n"
	       "            \"attrs\": 0,\n"
	       "            \"attrs_info\": 0\n"
	       "        }",
	       first ? "" : ",\n", r->start / lba, has_wp(r) ? r->wp / lba : UINT64_MAX,
	       r->cap / lba, r->state->name, type_name(r));
}

static void print_row_blkzone(const struct zone_row *r)
{
	/* Linux reports the write pointer of a full zone at the end of the zone. */
	uint64_t wp = has_wp(r) ? r->wp - r->start : r->conventional ? 0 : r->len;

	printf("  start: 0x%09" PRIx64 ", len 0x%06" PRIx64 ", cap 0x%06" PRIx64
	       ", wptr 0x%06" PRIx64 " reset:%u non-seq:%u, zcond:%2u(%s) [type: %u(%s)]\n",
	       r->start / 512, r->len / 512, r->cap / 512, wp / 512, 0u, 0u, r->state->state,
	       r->state->other, r->conventional ? 1u : 2u,
	       r->conventional ? "CONVENTIONAL" : "SEQ_WRITE_REQUIRED");
}

static void print_head(const struct qcow2_info *info, const struct zones_args *a, uint32_t lba,
		       uint32_t matching)
{
	const struct qcow2_zoned *z = &info->zoned;
	char size[SIZE_TEXT_LEN], cap[SIZE_TEXT_LEN];

	if (a->format == FORMAT_JSON) {
		printf("{\n    \"nr_zones\": %" PRIu32 ",\n    \"zone_list\": [\n", matching);
	} else if (a->format == FORMAT_CSV) {
		puts("zone,slba,wp,cap,state,type,attrs");
	} else if (a->format == FORMAT_TABLE) {
		printf("%" PRIu32 " zones of %s, capacity %s, %" PRIu32 " conventional; "
		       "limits: %" PRIu32 " open, %" PRIu32 " active (0: none); LBAs of %" PRIu32
		       " bytes\n",
		       z->nr_zones, size_text(z->zone_size, size), size_text(z->zone_capacity, cap),
		       z->conventional_zones, z->max_open_zones, z->max_active_zones, lba);
		printf("%7s  %-8s  %-12s  %14s  %14s  %12s  %4s\n", "zone", "state", "type", "slba",
		       "wp", "cap", "used");
	}
}

static void print_row(const struct zone_row *r, enum zones_format format, uint32_t lba, bool first)
{
	switch (format) {
	case FORMAT_TABLE:
		print_row_table(r, lba);
		break;
	case FORMAT_JSON:
		print_row_json(r, lba, first);
		break;
	case FORMAT_CSV:
		printf("%" PRIu32 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%s,%s,0\n", r->nr,
		       r->start / lba, has_wp(r) ? r->wp / lba : UINT64_MAX, r->cap / lba,
		       r->state->name, type_name(r));
		break;
	case FORMAT_BLKZONE:
		print_row_blkzone(r);
		break;
	}
}

static bool row_matches(const struct zone_row *r, const struct zones_args *a)
{
	return !a->states || a->states & 1u << r->state->state;
}

/* Prints the zones one at a time: an image may have a million. */
static int print_zones(const struct qcow2 *q, const struct zones_args *a, uint32_t lba)
{
	uint32_t nr_zones = qcow2_info(q)->zoned.nr_zones, matching = 0;
	bool first = true;

	for (uint32_t i = 0; i < nr_zones; i++) {
		struct zone_row row = zone_row(q, i);

		matching += row_matches(&row, a);
	}
	print_head(qcow2_info(q), a, lba, matching);
	for (uint32_t i = 0; i < nr_zones; i++) {
		struct zone_row row = zone_row(q, i);

		if (!row_matches(&row, a))
			continue;
		print_row(&row, a->format, lba, first);
		first = false;
	}
	if (a->format == FORMAT_JSON)
		printf("%s    ]\n}\n", first ? "" : "\n");
	return img_finish_output();
}

/*
 * Returns the LBA size to print in, which divides the sizes of zones and disk. 0 after an error
 * message.
 */
static uint32_t choose_lba(const struct qcow2_info *info, const struct zones_args *a)
{
	uint32_t lba = a->lba ? a->lba : 4096;

	if (!(info->zoned.zone_capacity % lba) && !(info->zoned.zone_size % lba) &&
	    !(info->size % lba))
		return lba;
	if (!a->lba)
		return 512;
	img_error("%s: the zones are not multiples of %" PRIu32 " bytes, use --lba=512", a->file,
		  lba);
	return 0;
}

static int zones_run(int argc, char **argv)
{
	struct zones_args args = { 0 };
	struct qcow2 *q;
	uint32_t lba;
	int status;

	status = zones_parse(argc, argv, &args);
	if (status)
		return status;
	if (args.common.help)
		return img_help(&img_zones);
	q = img_open(args.file, QCOW2_RDONLY | (args.common.no_lock ? QCOW2_NO_LOCK : 0), NULL);
	if (!q)
		return IMG_FAILED;
	if (qcow2_info(q)->zoned.layout == QCOW2_LAYOUT_NONE) {
		img_error("%s: not a zoned image", args.file);
		status = IMG_FAILED;
	} else {
		lba = choose_lba(qcow2_info(q), &args);
		status = lba ? print_zones(q, &args, lba) : IMG_FAILED;
	}
	qcow2_close(q);
	return status;
}

const struct img_verb img_zones = {
	.name = "zones",
	.run = zones_run,
	.summary = "show the zones and their write pointers",
	.operands = "FILE [FILTER]...",
	.options = zones_options,
	.notes = "FILTER: em empty, oi and oe open, cl closed, fu full, ro read only, ol offline,\n"
		 "        nw not write pointer (conventional); several are or-ed.\n",
	.words = "em|oi|oe|cl|fu|ro|ol|nw",
};
