/* SPDX-License-Identifier: MIT */
/*
 * The list of znsimg's verbs. It is apart from main() so that packaging/completion.c can link it.
 */
#include "znsimg.h"

const struct img_verb *const img_verbs[] = {
	&img_create, &img_info, &img_check, &img_resize, &img_zones, NULL,
};
