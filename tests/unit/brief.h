/*
 * With LLM_BRIEF, as under a sanitizer, which looks at memory and not at bits,
 * what must hold for each instruction set is not tried with the slow oracle.
 */
#ifndef BRIEF_H
#define BRIEF_H

#include <stdlib.h>


static inline int
brief(void)
{
    return getenv("LLM_BRIEF") != NULL;
}

#endif
