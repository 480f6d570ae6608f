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
    tier_cfg_t tier;  /* of the cache */
    uint32_t depth;   /* steps planned ahead */
    uint32_t pass_us; /* who came so much later may go first */
    uint32_t floor;   /* of lower classes, percent; 0: 5 */
    int apart;        /* tenants share nothing of the cache */
    int shares;       /* what is kept of a tenant's part, percent, and for how
                       * long; 0: as a pool begins with */
    uint32_t kept;
    uint64_t idle_us;
} variant_t;

/* Those with a name, ended by one without; trouble.c, which draws others. */
extern const variant_t variants[];

/* Settings of c that the variant is about. */
void variant_apply(const variant_t *v, run_cfg_t *c);

/*
 * A client that leaves at each stage, by construction, under each variant.
 * Prints; how many things were not as they must be.
 */
int abort_each(void);

#endif
