/*
 * What has to hold, whatever the input is: a target that finds it otherwise
 * ends, also where assertions are off.
 */
#ifndef MUST_H
#define MUST_H

#include <stdlib.h>


static inline void
must(int truth)
{
    if (!truth) {
        abort();
    }
}

#endif
