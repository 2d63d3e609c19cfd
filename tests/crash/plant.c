/* SPDX-License-Identifier: MIT */
/* Which planted bug is switched on; empty in builds without them. */
#include "plant.h"

#ifdef QCOW2_PLANT
#include <stdlib.h>
#include <string.h>

const char *plant_chosen;
void (*plant_passed)(const char *name);

/* The laboratory is told on its command line; other tests with planted bugs by the environment. */
__attribute__((constructor)) static void choose_plant(void)
{
	plant_chosen = getenv("PLANT");
}

bool plant_is(const char *name)
{
	if (plant_passed)
		plant_passed(name);
	return plant_chosen && !strcmp(plant_chosen, name);
}
#endif
