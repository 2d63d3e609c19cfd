/* SPDX-License-Identifier: MIT */
/* Where znsd keeps the shadows of its images (docs/image.md, "The shadow"). */
#ifndef TARGET_SHADOW_DIR_H
#define TARGET_SHADOW_DIR_H

#define SHADOW_DIR_LEN 256

/*
 * CHOICE is the command line's: a directory, "none", or NULL for the first of these that can be
 * used, made if it is missing: $XDG_RUNTIME_DIR/znsd, /dev/shm/znsd-UID. The result is CHOICE, in
 * BUF, or NULL: no shadows (which was logged unless it was asked for).
 */
const char *shadow_dir(const char *choice, char buf[SHADOW_DIR_LEN]);

#endif
