/* SPDX-License-Identifier: MIT */
/*
 * Planted bugs: real mistakes that tests switch on one at a time, to prove that the crash
 * laboratory (tests/crash) notices each. In every other build plant() is false and costs nothing.
 * tests/crash/planted.txt lists and explains them.
 */
#ifndef QCOW2_PLANT_H
#define QCOW2_PLANT_H

#include <stdbool.h>

#ifdef QCOW2_PLANT
extern const char *plant_chosen; /* NULL: none */
/* Called at every plant() that is passed, by its name, if set: what another thread does there. */
extern void (*plant_passed)(const char *name);
bool plant_is(const char *name);
#define plant(name) ((plant_chosen || plant_passed) && plant_is(#name))
#else
#define plant(name) false
#endif

#endif
