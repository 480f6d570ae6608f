/*
 * The router for the differential runner: each id in its turn is the largest
 * that there is left, and its weight what the scores say.
 */
#ifndef ROUTER_H
#define ROUTER_H

#include "rig.h"

/* Scores nearer to each other than this may stand in either order. */
#define NEAR 1e-6

/* What a token's experts are judged by. */
typedef struct {
    const kn_router_t *a;
    double score[512], choice[512];
    int out[512]; /* of the choice: another group's, or taken */
} judge_t;

/* The sum of the group_best largest of group g's. */
static inline double
group_of(const judge_t *j, uint32_t g)
{
    uint32_t e, size = j->a->experts / j->a->groups;
    double v, best = -INFINITY, second = -INFINITY;

    for (e = g * size; e < (g + 1) * size; e++) {
        v = j->choice[e];

        if (v > best) {
            second = best;
            best = v;
        } else if (v > second) {
            second = v;
        }
    }

    return j->a->group_best == 2 ? best + second : best;
}

static inline void
judge_groups(judge_t *j)
{
    uint32_t e, g, better, of;

    for (e = 0; e < j->a->experts; e++) {
        of = e / (j->a->experts / j->a->groups);

        for (better = 0, g = 0; g < j->a->groups; g++) {
            better += group_of(j, g) > group_of(j, of);
        }

        j->out[e] = better >= j->a->groups_used;
    }
}

static inline void
judge_open(
    judge_t *j, const kn_router_t *a, const float *logits, const float *bias)
{
    uint32_t e;
    double sum = 0;

    assert_true(a->experts <= 512);
    memset(j, 0, sizeof(*j));
    j->a = a;

    for (e = 0; e < a->experts; e++) {
        sum += exp(logits[e]);
    }

    for (e = 0; e < a->experts; e++) {
        j->score[e] = a->score == KN_SIGMOID ? 1 / (1 + exp(-logits[e]))
                                             : exp(logits[e]) / sum;
        j->choice[e] = j->score[e] + (bias != NULL ? bias[e] : 0);
    }

    if (a->groups > 0) {
        judge_groups(j);
    }
}

/* One token's ids and weights. */
static inline void
judge(judge_t *j, const float *logits, const uint32_t *ids, const float *w)
{
    uint32_t i, e;
    double sum = 0;

    for (i = 0; i < j->a->used; i++) {
        assert_true(ids[i] < j->a->experts && !j->out[ids[i]]);

        for (e = 0; e < j->a->experts; e++) {
            assert_true(j->out[e] || j->choice[e] < j->choice[ids[i]] + NEAR);

            /* the first of equals */
            assert_true(j->out[e] || e >= ids[i] || logits[e] != logits[ids[i]]
                        || j->choice[e] != j->choice[ids[i]]);
        }

        j->out[ids[i]] = 1;
        sum += j->score[ids[i]];
    }

    for (i = 0; i < j->a->used; i++) {
        assert_true(
            fabs(w[i]
                 - j->score[ids[i]] * j->a->scale / (j->a->normed ? sum : 1))
            < 1e-6);
    }
}

static inline result_t
run_router(sub_t *s, const case_t *c)
{
    static judge_t j;
    kn_router_t a;
    float *logits, *bias, *w;
    const float *l;
    uint32_t i, rows, *ids;
    result_t r;

    memset(&a, 0, sizeof(a));
    rows = c->only == ALL ? op_rows(c) : 1;
    logits = vectors(c->seed + 1, op_rows(c), c->k);
    bias = vectors(c->seed + 2, 1, c->k);
    a.logits = put_rows(s, c, logits, c->k);
    a.experts = c->k;
    a.used = 1 + (c->k - 1) / 3;
    a.groups = c->groups;
    a.groups_used = c->groups / 2;
    a.group_best = c->groups > 0 && c->k / c->groups > 1 ? c->group_best : 1;
    a.score = c->score;
    a.normed = c->add;
    a.scale = c->scale;
    a.rows = c->which;

    if (c->same) {
        a.bias = put(s, bias, c->k * sizeof(float));
    }

    a.ids = put(s, NULL, (size_t) rows * a.used * 4);
    a.weights = put(s, NULL, (size_t) rows * a.used * 4);
    call(s, OP_router, &a);
    ids = get(s, a.ids, (size_t) rows * a.used * 4);
    w = get(s, a.weights, (size_t) rows * a.used * 4);
    r = (result_t){need((size_t) rows * a.used * 8), rows, 2 * a.used};

    for (i = 0; i < rows; i++) {
        l = logits + (size_t) (c->only == ALL ? i : c->only) * c->k;
        judge_open(&j, &a, l, c->same ? bias : NULL);
        judge(&j, l, ids + i * a.used, w + i * a.used);
    }

    for (i = 0; i < rows * a.used; i++) {
        r.v[i * 2] = (float) ids[i];
        r.v[i * 2 + 1] = w[i];
    }

    free(logits);
    free(bias);
    free(ids);
    free(w);

    return r;
}

#endif
