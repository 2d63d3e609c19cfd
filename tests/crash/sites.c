/* SPDX-License-Identifier: MIT */
/*
 * Which places of the engine write metadata, and was the power cut right before and right after
 * each?
 *
 * The log knows the chain of return addresses of each operation. The call site is the innermost
 * one that is neither the seam (file.c) nor one of the engine's two wrappers around it, as
 * addr2line tells; without addr2line the raw chain is the site. Places in the engine's sources that
 * call the seam and were never seen are listed, and are a failure when all workloads were run.
 */
#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../tally.h"
#include "lab.h"

#define NEAR 3 /* lines: a call may begin above the line its return address belongs to */

struct place {
	char name[160]; /* "function file.c:line" */
	char file[64];
	unsigned int line;
	bool data;
	uint64_t before, after;
};

struct report {
	struct place *place;
	unsigned int nr, unseen, uncut;
	bool named; /* addr2line is there */
};

static void *need(void *p)
{
	if (!p)
		abort();
	return p;
}

void sites_merge(struct lab *lab, const struct oplog *log)
{
	for (uint32_t i = 0; i < log->nr_sites; i++) {
		const struct site *s = &log->site[i];
		uint32_t k = 0;

		while (k < lab->nr_sites && lab->site[k].hash != s->hash)
			k++;
		if (k == lab->nr_sites) {
			if (k == lab->cap_sites) {
				lab->cap_sites = k ? 2 * k : 64;
				lab->site = need(
					realloc(lab->site, lab->cap_sites * sizeof(*lab->site)));
			}
			lab->site[lab->nr_sites++] = *s;
			continue;
		}
		lab->site[k].cut_before += s->cut_before;
		lab->site[k].cut_after += s->cut_after;
	}
}

static bool is_wrapper(const char *function, const char *file)
{
	return !strcmp(file, "simdisk.c") || !strcmp(file, "file.c") ||
	       !strcmp(function, "meta_write") || !strcmp(function, "meta_sync");
}

/* Fills P from what addr2line says of the chain of S; false when it says nothing useful. */
static bool resolve(const struct site *s, struct place *p)
{
	char exe[256], command[2048], function[128], where[512];
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	FILE *pipe;
	Dl_info info;
	size_t n;
	bool found = false;

	if (len <= 0)
		return false;
	exe[len] = 0;
	n = snprintf(command, sizeof(command), "addr2line -f -i -e '%s'", exe);
	for (uint32_t i = 0; i < s->nr_frames && n + 24 < sizeof(command); i++) {
		uintptr_t at = (uintptr_t)s->frame[i] - 1;

		if (!dladdr(s->frame[i], &info))
			continue;
		n += snprintf(command + n, sizeof(command) - n, " %lx",
			      (unsigned long)(at - (uintptr_t)info.dli_fbase));
	}
	snprintf(command + n, sizeof(command) - n, " 2>/dev/null");
	pipe = popen(command, "r");
	if (!pipe)
		return false;
	while (fgets(function, sizeof(function), pipe) && fgets(where, sizeof(where), pipe)) {
		char *file = strrchr(where, '/'), *colon;

		if (found || !file)
			continue; /* read it to the end */
		function[strcspn(function, "\n")] = 0;
		colon = strchr(++file, ':');
		if (!colon)
			continue;
		*colon = 0;
		if (is_wrapper(function, file))
			continue;
		p->line = strtoul(colon + 1, NULL, 10);
		snprintf(p->file, sizeof(p->file), "%.60s", file);
		snprintf(p->name, sizeof(p->name), "%.60s %.60s:%u", function, file, p->line);
		found = true;
	}
	pclose(pipe);
	return found;
}

static void add_place(struct report *r, const struct site *s)
{
	struct place p = { .data = s->data, .before = s->cut_before, .after = s->cut_after };

	if (resolve(s, &p))
		r->named = true;
	else
		snprintf(p.name, sizeof(p.name), "chain %08x", s->hash);
	for (unsigned int i = 0; i < r->nr; i++)
		if (!strcmp(r->place[i].name, p.name) && r->place[i].data == p.data) {
			r->place[i].before += p.before;
			r->place[i].after += p.after;
			return;
		}
	r->place = need(realloc(r->place, (r->nr + 1) * sizeof(*r->place)));
	r->place[r->nr++] = p;
}

static bool calls_the_seam(const char *line)
{
	static const char *const names[] = { "meta_write(", "file_write(", "file_discard(",
					     "file_truncate(" };

	/* A definition or a comment begins in the first columns. */
	if (line[0] != '\t' || strstr(line, "/*"))
		return false;
	for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strstr(line, names[i]))
			return true;
	return false;
}

static bool was_seen(const struct report *r, const char *file, unsigned int line)
{
	for (unsigned int i = 0; i < r->nr; i++)
		if (!strcmp(r->place[i].file, file) && r->place[i].line + NEAR >= line &&
		    r->place[i].line <= line + NEAR)
			return true;
	return false;
}

static void list_unseen(struct report *r, const char *path)
{
	const char *file = strrchr(path, '/') + 1;
	FILE *f = fopen(path, "r");
	char line[300], function[128] = "";

	if (!f || !strcmp(file, "file.c") || !strncmp(file, "znsimg", 6)) {
		if (f)
			fclose(f);
		return;
	}
	for (unsigned int n = 1; fgets(line, sizeof(line), f); n++) {
		if (line[0] != '\t' && line[0] != '{' && strchr(line, '('))
			snprintf(function, sizeof(function), "%.*s", (int)strcspn(line, "\n"),
				 line);
		if (!calls_the_seam(line) || strstr(function, "int meta_write(") ||
		    was_seen(r, file, n))
			continue;
		printf("  not reached: %s:%u in %s\n", file, n, function);
		r->unseen++;
	}
	fclose(f);
}

bool sites_report(const struct lab *lab, bool verbose)
{
	struct report r = { 0 };
	unsigned int metadata = 0;
	glob_t files;

	for (uint32_t i = 0; i < lab->nr_sites; i++)
		if (!lab->site[i].sync)
			add_place(&r, &lab->site[i]);
	for (unsigned int i = 0; i < r.nr; i++) {
		const struct place *p = &r.place[i];

		metadata += !p->data;
		if (verbose)
			printf("  %-8s %-50s cut before %llu, after %llu times\n",
			       p->data ? "data" : "metadata", p->name,
			       (unsigned long long)p->before, (unsigned long long)p->after);
		r.uncut += !p->data && (!p->before || !p->after);
	}
	if (verbose && r.named && !glob(CRASH_SOURCES "/*.c", 0, NULL, &files)) {
		for (size_t i = 0; i < files.gl_pathc; i++)
			list_unseen(&r, files.gl_pathv[i]); /* qcow2/check: qcow2_repair_crash */
		globfree(&files);
	}
	printf("metadata-write call sites: %u, cut before and after: %u\n", metadata,
	       metadata - r.uncut);
	if (verbose)
		tally("crash_sites call_sites=%u cut_before_and_after=%u not_reached=%u", metadata,
		      metadata - r.uncut, r.unseen);
	free(r.place);
	return !r.uncut && !r.unseen;
}
