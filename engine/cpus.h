/*
 * The option cpus: which processors the device's threads stay on.
 */
#ifndef CPUS_H
#define CPUS_H

#include <sched.h>
#include <stddef.h>
#include <stdint.h>

#define CPUS_MAX 256

typedef struct {
    uint32_t v[CPUS_MAX]; /* in the list's order */
    uint32_t n;
} cpus_t;

/*
 * "0-3,8" to c; nothing to none.  Each is in allowed, and there once.  0, or
 * -1 with one sentence in err.
 */
int cpus_parse(cpus_t *c, const char *list, const cpu_set_t *allowed, char *err,
    size_t errlen);

#endif
