/* SPDX-License-Identifier: MIT */
/* Which planted bug is switched on; empty in builds without them. */
#include "plant.h"

#ifdef QCOW2_PLANT
#include <string.h>

const char *plant_chosen;

bool plant_is(const char *name)
{
	return !strcmp(plant_chosen, name);
}
#endif
