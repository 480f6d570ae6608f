/*
 * The choice of each token's experts on the CPU.
 *
 * DESIGN.  Experts are a few hundred at most, and used ones a few: the largest
 * is looked for again and again, which keeps the order of equals plain.
 *
 * Runs on the pool's threads; owns no memory; scratch is on the stack.
 */
#include "job.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* s[e] of logit e; what the choice adds to it is not in it. */
static void
router_scores(const kn_router_t *a, const float *logits, float *s)
{
    uint32_t e;
    float max, sum;

    if (a->score == KN_SIGMOID) {
        for (e = 0; e < a->experts; e++) {
            s[e] = 1.0f / (1.0f + expf(-logits[e]));
        }

        return;
    }

    for (max = logits[0], e = 1; e < a->experts; e++) {
        max = logits[e] > max ? logits[e] : max;
    }

    for (sum = 0, e = 0; e < a->experts; e++) {
        s[e] = expf(logits[e] - max);
        sum += s[e];
    }

    for (e = 0; e < a->experts; e++) {
        s[e] /= sum;
    }
}

/* The largest of v[0 .. n) that is not taken, the first of equals. */
static uint32_t
router_best(const float *v, uint32_t n, const uint8_t *taken)
{
    uint32_t i, best;

    for (best = UINT32_MAX, i = 0; i < n; i++) {
        if (!taken[i] && (best == UINT32_MAX || v[i] > v[best])) {
            best = i;
        }
    }

    assert(best != UINT32_MAX);
    return best;
}

/* How good a group of size experts is. */
static float
router_group(const kn_router_t *a, const float *v, uint32_t size)
{
    uint32_t i, best;
    float sum;
    uint8_t taken[KN_EXPERTS_MAX] = {0};

    for (sum = 0, i = 0; i < a->group_best; i++) {
        best = router_best(v, size, taken);
        taken[best] = 1;
        sum += v[best];
    }

    return sum;
}

/* taken[e] of all experts that are in no group that is used. */
static void
router_groups(const kn_router_t *a, const float *v, uint8_t *taken)
{
    uint32_t g, i, size = a->experts / a->groups;
    float good[KN_EXPERTS_MAX];
    uint8_t used[KN_EXPERTS_MAX] = {0};

    for (g = 0; g < a->groups; g++) {
        good[g] = router_group(a, v + (size_t) g * size, size);
    }

    for (i = 0; i < a->groups_used; i++) {
        used[router_best(good, a->groups, used)] = 1;
    }

    for (g = 0; g < a->groups; g++) {
        memset(taken + (size_t) g * size, !used[g], size);
    }
}

/* The experts of one token. */
static void
router_token(const kn_router_t *a, const float *logits, uint32_t *ids, float *w)
{
    uint32_t i, e;
    float sum, score[KN_EXPERTS_MAX], choice[KN_EXPERTS_MAX];
    const float *bias = HOST(const float, a->bias);
    uint8_t taken[KN_EXPERTS_MAX] = {0};

    router_scores(a, logits, score);

    for (e = 0; e < a->experts; e++) {
        choice[e] = score[e] + (bias != NULL ? bias[e] : 0);
    }

    if (a->groups > 0) {
        router_groups(a, choice, taken);
    }

    for (sum = 0, i = 0; i < a->used; i++) {
        ids[i] = router_best(choice, a->experts, taken);
        taken[ids[i]] = 1;
        w[i] = score[ids[i]];
        sum += w[i];
    }

    for (i = 0; i < a->used; i++) {
        w[i] = (a->normed ? w[i] / (sum + 1e-20f) : w[i]) * a->scale;
    }
}

static void
router_part(void *arg, uint32_t part, uint32_t worker)
{
    const job_t *j = arg;
    const kn_router_t *a = j->a;
    uint32_t t, end;

    (void) worker;
    end = min_u32(j->m, (part + 1) * ROWS_PART);

    for (t = part * ROWS_PART; t < end; t++) {
        router_token(a, HOST(const float, a->logits) + (size_t) t * a->experts,
            HOST(uint32_t, a->ids) + (size_t) t * a->used,
            HOST(float, a->weights) + (size_t) t * a->used);
    }
}

void
cpu_router(kn_dev_t *dev, const kn_router_t *a)
{
    assert(a->used > 0 && a->used <= a->experts);
    assert(a->experts <= KN_EXPERTS_MAX && a->score < KN_SCORES);
    assert(a->groups == 0
           || (a->experts % a->groups == 0 && a->groups_used <= a->groups
               && a->group_best <= a->experts / a->groups
               && a->used <= a->experts / a->groups * a->groups_used));
    run_rows(dev, a, rows_of(dev, a->rows),
        (uint64_t) a->experts * (a->used + 20), router_part);
}
