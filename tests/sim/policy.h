/*
 * A policy to compare with that is not in the engine (sched_compare.c has
 * those that are).
 */
#ifndef POLICY_H
#define POLICY_H

#include "sched.h"

/* Ours, but ordered as VTC says: a prompt is charged whole when it is let
 * in. */
extern const sched_policy_t policy_vtc;

#endif
