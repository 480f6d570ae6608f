/*
 * What goes wrong goes wrong under each of these.
 */
#ifndef TROUBLE_H
#define TROUBLE_H

#include "run.h"

/* What the scheduler is to do with what goes wrong. */
typedef struct {
    const char *name;
    const sched_policy_t *policy;
    uint32_t target_us;
    int cache;
    int whole;       /* prompts are not cut into chunks */
    uint32_t groups; /* of layers; 0: one */
    uint32_t windows[KV_GROUPS];
    tier_cfg_t tier; /* of the cache */
    uint32_t depth;  /* steps planned ahead */
} variant_t;

/* The variants, ended by one without a name: trouble.c. */
extern const variant_t variants[];

/* Settings of c that the variant is about. */
void variant_apply(const variant_t *v, run_cfg_t *c);

/*
 * A client that leaves at each stage, by construction, under each variant.
 * Prints; how many things were not as they must be.
 */
int abort_each(void);

#endif
