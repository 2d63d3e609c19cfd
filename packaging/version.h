/* SPDX-License-Identifier: MIT */
#ifndef VERSION_H
#define VERSION_H

/* What --version tells: "0.1.0 (v0.1.0-3-g480798a-dirty)" in a git checkout, "0.1.0" elsewhere. */
extern const char znsd_version[];

#endif
