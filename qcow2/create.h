/* SPDX-License-Identifier: MIT */
/* The interface of geometry.c, which validates the options of a new image, for create.c. */
#ifndef QCOW2_CREATE_H
#define QCOW2_CREATE_H

#include "qcow2.h"

#define CREATE_MAX_L1 (32u << 20) /* bytes of L1 table: QEMU opens no larger one */

/*
 * Validates OPTS, fills in defaults, rounds and clamps. WARN gets a line for each clamped value, or
 * "". 0; or -EINVAL, and ERR has a sentence.
 */
int create_validate(struct qcow2_create_opts *opts, char warn[QCOW2_ERRLEN],
		    char err[QCOW2_ERRLEN]);

#endif
