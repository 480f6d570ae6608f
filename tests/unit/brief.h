/*
 * With LLM_BRIEF, as under a sanitizer, which looks at memory and not at bits,
 * what must hold for each instruction set is not tried with the slow oracle;
 * and whole models not by a set that this machine has a wider one of, as
 * the ops themselves are tried by each.
 */
#ifndef BRIEF_H
#define BRIEF_H

#include "kernels.h"

#include <stdlib.h>
#include <string.h>

static inline int
brief(void)
{
    return getenv("LLM_BRIEF") != NULL;
}

/* Is a whole model tried by that set? */
static inline int
brief_isa(const char *isa)
{
    char err[256];

    return !brief() || strcmp(isa, "avx2") != 0
           || kernels_cpu("avx512", err, sizeof(err)) == NULL;
}

#endif
