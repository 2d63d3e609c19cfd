/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

int number_parse(const char *text, uint64_t max, uint64_t *out)
{
	unsigned long long number;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	number = strtoull(text, &end, 0);
	if (*end)
		return -EINVAL;
	if (errno || number > max)
		return -ERANGE;
	*out = number;
	return 0;
}

/* Bits a size's suffix shifts by; -1 for none of them. */
static int suffix_shift(char c)
{
	static const char suffixes[] = "bkmgtpe";
	const char *p;

	if (c >= 'A' && c <= 'Z')
		c += 'a' - 'A';
	p = c ? strchr(suffixes, c) : NULL;
	return p ? (int)(p - suffixes) * 10 : -1;
}

static int hex_parse(const char *text, uint64_t *out)
{
	unsigned long long number;
	char *end;

	errno = 0;
	number = strtoull(text, &end, 16);
	if (end == text + 2 || *end)
		return -EINVAL;
	if (errno)
		return -ERANGE;
	*out = number;
	return 0;
}

int size_parse(const char *text, uint64_t *out)
{
	uint64_t whole = 0, fraction = 0, scale = 1, bytes;
	int shift = 0;
	const char *p = text;

	if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X') && p[2] != '-' && p[2] != '+')
		return hex_parse(text, out);
	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole))
			return -ERANGE;
	}
	if (*p == '.') {
		p++;
		if (*p < '0' || *p > '9')
			return -EINVAL;
		for (; *p >= '0' && *p <= '9'; p++) {
			if (scale >= 1000000000) /* finer than any suffix's byte matters */
				continue;
			fraction = fraction * 10 + (uint64_t)(*p - '0');
			scale *= 10;
		}
	}
	if (*p) {
		shift = suffix_shift(*p++);
		if (shift < 0 || *p)
			return -EINVAL;
	}
	if (fraction && !shift)
		return -EINVAL;
	if (shift && whole >> (64 - shift))
		return -ERANGE;
	bytes = (uint64_t)(((unsigned __int128)fraction << shift) / scale);
	if (__builtin_add_overflow(whole << shift, bytes, &bytes))
		return -ERANGE;
	*out = bytes;
	return 0;
}

const char *size_text(uint64_t bytes, char buf[SIZE_TEXT_LEN])
{
	static const char *const units[] = { "", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei" };
	double value = (double)bytes;
	unsigned int i = 0;

	/* Below 1000 of a unit three digits say it without an exponent. */
	while (i < 6 && value >= 1000) {
		value /= 1024;
		i++;
	}
	snprintf(buf, SIZE_TEXT_LEN, "%.3g %sB", value, units[i]);
	return buf;
}

void uuid_text(const uint8_t u[UUID_LEN], char buf[UUID_TEXT_LEN])
{
	snprintf(buf, UUID_TEXT_LEN,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
		 u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
		 u[15]);
}

static int hex_digit(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *p;

	if (c >= 'A' && c <= 'F')
		c += 'a' - 'A';
	p = c ? strchr(digits, c) : NULL;
	return p ? (int)(p - digits) : -1;
}

int uuid_parse(const char *text, uint8_t uuid[UUID_LEN])
{
	uint8_t parsed[UUID_LEN], any = 0;
	const char *p = text;

	for (unsigned int i = 0; i < UUID_LEN; i++) {
		int high, low;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && *p++ != '-')
			return -EINVAL;
		high = hex_digit(*p);
		low = high < 0 ? -1 : hex_digit(p[1]);
		if (low < 0)
			return -EINVAL;
		parsed[i] = (uint8_t)(high << 4 | low);
		any |= parsed[i];
		p += 2;
	}
	if (*p || !any)
		return -EINVAL;
	memcpy(uuid, parsed, sizeof(parsed));
	return 0;
}

/* Insertions, deletions and substitutions from A to B; words longer than 63 are never near. */
static unsigned int word_distance(const char *a, const char *b)
{
	unsigned int row[64], diagonal, up;
	size_t la = strlen(a), lb = strlen(b);

	if (la > 63 || lb > 63)
		return UINT_MAX;
	for (size_t j = 0; j <= lb; j++)
		row[j] = (unsigned int)j;
	for (size_t i = 1; i <= la; i++) {
		diagonal = row[0];
		row[0] = (unsigned int)i;
		for (size_t j = 1; j <= lb; j++) {
			up = row[j];
			diagonal += a[i - 1] != b[j - 1];
			if (up + 1 < diagonal)
				diagonal = up + 1;
			if (row[j - 1] + 1 < diagonal)
				diagonal = row[j - 1] + 1;
			row[j] = diagonal;
			diagonal = up;
		}
	}
	return row[lb];
}

const char *nearest_word(const char *word, const char *const *words)
{
	unsigned int best = 2 + (unsigned int)(strlen(word) / 4); /* a typo or two */
	const char *found = NULL;

	if (best >= strlen(word)) /* "xy" has nothing in common with "ro" */
		best = (unsigned int)strlen(word) - !!*word;

	for (; *words; words++) {
		unsigned int distance = word_distance(word, *words);
		const char *dot = strchr(*words, '.');

		if (dot && !strcmp(dot + 1, word)) /* "capacity" for "zone.capacity" */
			distance = 1;
		if (distance < best || (distance == best && !found)) {
			best = distance;
			found = *words;
		}
	}
	return found;
}

int word_index(const char *words, const char *word)
{
	size_t len = strlen(word);

	for (int i = 0;; i++) {
		size_t n = strcspn(words, "|");

		if (n == len && !memcmp(words, word, n))
			return i;
		if (!words[n])
			return -1;
		words += n + 1;
	}
}
