/* SPDX-License-Identifier: MIT */
/*
 * Measures memory. With AddressSanitizer it uses its hooks; otherwise this file defines malloc()
 * and its family for the whole program and calls glibc's, as the dynamic linker permits. It counts
 * what malloc_usable_size() returns, so it needs no header of its own on each allocation.
 *
 * One thread: the programs of this folder have one.
 */
#include <malloc.h>
#include <stdlib.h>

#include "memory.h"

static size_t now, peak;

static void grew(size_t n)
{
	now += n;
	if (now > peak)
		peak = now;
}

static void shrank(size_t n)
{
	now -= n < now ? n : now;
}

size_t memory_now(void)
{
	return now;
}

size_t memory_peak(void)
{
	return peak;
}

void memory_mark(void)
{
	peak = now;
}

#if defined(__has_feature)
#define HAS(feature) __has_feature(feature)
#else
#define HAS(feature) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || HAS(address_sanitizer) ||     \
	HAS(thread_sanitizer)

int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
					      void (*on_free)(const volatile void *));
size_t __sanitizer_get_allocated_size(const volatile void *p);

static void on_malloc(const volatile void *p, size_t n)
{
	(void)p;
	grew(n);
}

static void on_free(const volatile void *p)
{
	if (p)
		shrank(__sanitizer_get_allocated_size(p));
}

__attribute__((constructor)) static void install(void)
{
	__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
}

#else

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void __libc_free(void *p);

#define OURS __attribute__((visibility("default")))

OURS void *malloc(size_t n)
{
	void *p = __libc_malloc(n);

	if (p)
		grew(malloc_usable_size(p));
	return p;
}

OURS void *calloc(size_t n, size_t size)
{
	void *p = __libc_calloc(n, size);

	if (p)
		grew(malloc_usable_size(p));
	return p;
}

OURS void *realloc(void *old, size_t n)
{
	size_t before = old ? malloc_usable_size(old) : 0;
	void *p = __libc_realloc(old, n);

	if (p || !n)
		shrank(before);
	if (p)
		grew(malloc_usable_size(p));
	return p;
}

OURS void free(void *p)
{
	if (p)
		shrank(malloc_usable_size(p));
	__libc_free(p);
}

#endif
