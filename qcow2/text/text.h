/* SPDX-License-Identifier: MIT */
/*
 * Numbers, sizes, UUIDs and mistyped words, as people write them on a command line. Both programs,
 * znsd and znsimg, parse and print with these functions. They keep no state: any thread.
 */
#ifndef TEXT_TEXT_H
#define TEXT_TEXT_H

#include <stdint.h>

/*
 * Parses all of TEXT as an unsigned number, in decimal, octal (leading 0) or hexadecimal (0x).
 * -EINVAL: it is no number. -ERANGE: it is above MAX. *OUT is written on success alone.
 */
int number_parse(const char *text, uint64_t max, uint64_t *out);

/*
 * Parses all of TEXT as a size in bytes: "64M", "1.5G", "0x200"; the suffixes k, M, G, T, P and E
 * are powers of 1024. -EINVAL, or -ERANGE above 2^64 - 1; *OUT is written on success alone.
 */
int size_parse(const char *text, uint64_t *out);

#define SIZE_TEXT_LEN 32
/* Prints BYTES with three digits and a unit, "768 MiB", as qemu-img does. Returns BUF. */
const char *size_text(uint64_t bytes, char buf[SIZE_TEXT_LEN]);

#define UUID_LEN      16
#define UUID_TEXT_LEN 37
/* Parses TEXT, such as 6ba7b810-9dad-41d1-80b4-00c04fd430c8. -EINVAL: malformed, or all zeroes. */
int uuid_parse(const char *text, uint8_t uuid[UUID_LEN]);
/* Prints UUID in lower case. */
void uuid_text(const uint8_t uuid[UUID_LEN], char buf[UUID_TEXT_LEN]);

/*
 * Finds the one of WORDS (NULL ends the list) that WORD was probably meant to be; NULL when none is
 * near. The first of several that are equally near is returned.
 */
const char *nearest_word(const char *word, const char *const *words);

/* The position of WORD in WORDS, which are written "a|b|c"; -1 when it is none of them. */
int word_index(const char *words, const char *word);

#endif
