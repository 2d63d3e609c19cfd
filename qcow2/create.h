/* SPDX-License-Identifier: MIT */
/* Between geometry.c, which holds the rules for a new image, and create.c, which writes it. */
#ifndef QCOW2_CREATE_H
#define QCOW2_CREATE_H

#include "qcow2.h"

#define CREATE_MAX_L1 (32u << 20) /* bytes of L1 table: QEMU opens no larger one */

/*
 * Puts the defaults into OPTS, rounds and clamps. WARN gets a line for each clamp, "" when there
 * was none. 0, or -EINVAL and a sentence in ERR.
 */
int create_validate(struct qcow2_create_opts *opts, char warn[QCOW2_ERRLEN],
		    char err[QCOW2_ERRLEN]);

#endif
