// SPDX-License-Identifier: MIT
/* See oom.h. Any thread. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <event2/event.h>
#include "oom.h"

_Thread_local bool oom_exempt;

static struct {
	pthread_mutex_t lock;
	long n, seen, hits;
	bool always;
} oom = { .lock = PTHREAD_MUTEX_INITIALIZER };

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
int __real_posix_memalign(void **out, size_t align, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
char *__wrap_strdup(const char *s);
int __wrap_posix_memalign(void **out, size_t align, size_t size);

void oom_arm(long n, bool always)
{
	pthread_mutex_lock(&oom.lock);
	oom.n = n;
	oom.always = always;
	oom.seen = oom.hits = 0;
	pthread_mutex_unlock(&oom.lock);
}

long oom_seen(void)
{
	long n;

	pthread_mutex_lock(&oom.lock);
	n = oom.seen;
	pthread_mutex_unlock(&oom.lock);
	return n;
}

long oom_hits(void)
{
	long n;

	pthread_mutex_lock(&oom.lock);
	n = oom.hits;
	pthread_mutex_unlock(&oom.lock);
	return n;
}

static bool fails(void)
{
	bool hit;

	if (oom_exempt)
		return false;
	pthread_mutex_lock(&oom.lock);
	oom.seen++;
	hit = oom.n && (oom.always ? oom.seen >= oom.n : oom.seen == oom.n);
	oom.hits += hit;
	pthread_mutex_unlock(&oom.lock);
	if (hit)
		errno = ENOMEM;
	return hit;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
	return fails() ? NULL : __real_realloc(p, size);
}

char *__wrap_strdup(const char *s)
{
	size_t len = strlen(s) + 1;
	char *copy = fails() ? NULL : __real_malloc(len);

	return copy ? memcpy(copy, s, len) : NULL;
}

int __wrap_posix_memalign(void **out, size_t align, size_t size)
{
	return fails() ? ENOMEM : __real_posix_memalign(out, align, size);
}

static void quiet(int severity, const char *msg)
{
	(void)severity;
	(void)msg;
}

void oom_libevent(void)
{
	event_set_log_callback(quiet);
	event_set_mem_functions(__wrap_malloc, __wrap_realloc, free);
}
