/*
 * What steps in flight may rely on, for tests of the scheduler and the
 * simulator: until a step has ended, each block that one of its rows reads or
 * writes is its sequence's, or is kept by the scheduler under a name of its
 * own, and what a row in flight writes is in no tree.
 */
#ifndef FLIGHT_H
#define FLIGHT_H

#include "kv_impl.h"
#include "sched_int.h"

#define FLIGHT_USES 4096

/* A block that a row uses. */
typedef struct {
    uint32_t id, row, written;
} flight_use_t;

typedef struct {
    uint32_t n, rows_n;
    uint32_t seqs[64]; /* by row */
    flight_use_t uses[FLIGHT_USES];
} flight_step_t;

/* Steps planned and not committed, the oldest first. */
typedef struct {
    flight_step_t steps[2];
    uint32_t n;
} flight_t;


static inline void
flight_push(flight_t *f, const kv_t *kv, const batch_t *b)
{
    flight_step_t *step = &f->steps[f->n++];
    uint32_t i, g, k, to;
    const batch_row_t *r;

    assert(f->n <= 2 && b->rows_n > 0 && b->rows_n <= 64);
    step->n = 0;
    step->rows_n = b->rows_n;

    for (i = 0; i < b->rows_n; i++) {
        r = &b->rows[i];
        step->seqs[i] = r->seq;
        to = (r->kv_len - 1) / kv->c.block_tokens;
        for (g = 0; g < kv->c.groups; g++) {
            for (k = kv_first(kv, g, r->q_start); k <= to; k++) {
                assert(step->n < FLIGHT_USES);
                assert(k >= r->blocks[g].first);
                assert(k - r->blocks[g].first < r->blocks[g].n);
                step->uses[step->n].id =
                    r->blocks[g].ids[k - r->blocks[g].first];
                step->uses[step->n].row = i;
                step->uses[step->n++].written =
                    k >= r->q_start / kv->c.block_tokens;
            }
        }
    }
}


/* The oldest has ended. */
static inline void
flight_pop(flight_t *f)
{
    assert(f->n > 0);
    f->steps[0] = f->steps[1];
    f->n--;
}


/* The newest will not be run. */
static inline void
flight_drop(flight_t *f)
{
    assert(f->n > 0);
    f->n--;
}


static inline void
flight_check(const flight_t *f, const sched_t *s, const kv_t *kv)
{
    uint32_t n, i, id, keepers = s->c.reqs * LLM_CHOICES_MAX;
    const flight_step_t *step;
    const flight_use_t *u;
    const sched_step_t *of;

    if (s->c.depth == 0) {
        return;
    }
    assert(f->n == s->steps_n);
    for (n = 0; n < f->n; n++) {
        step = &f->steps[n];
        of = &s->steps[(s->step_at + n) % 2];
        assert(step->rows_n == of->rows_n);

        for (i = 0; i < step->n; i++) {
            u = &step->uses[i];
            id = of->seqs[u->row];
            assert(id == NONE || id == step->seqs[u->row]);
            assert(kv->states[u->id] == KV_PRIVATE || !u->written);
            if (kv->states[u->id] == KV_PRIVATE) {
                assert(id == NONE ? kv->owner[u->id] >= keepers
                                  : kv->owner[u->id] == id);
            } else {
                assert(kv->states[u->id] == KV_CACHED);
            }
        }
    }
}

#endif
