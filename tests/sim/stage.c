/*
 * Where a request stands: see stage.h.
 */
#include "stage.h"
#include "sched_int.h"

#include <assert.h>

const char *
stage_name(stage_t g)
{
    static const char *const names[] = {
#define X(id, doc) doc,
        STAGES(X)
#undef X
    };

    assert((unsigned) g < STAGE_N);

    return names[g];
}


/* Does a sequence wait for this one to compute what it needs? */
static int
leads(const run_t *r, uint32_t id)
{
    uint32_t i;

    for (i = 0; i < r->c.sched.reqs; i++) {
        if (r->item[i] != RUN_NONE
            && seq_at(r->s, i * LLM_CHOICES_MAX)->leader == id) {
            return 1;
        }
    }

    return 0;
}


static stage_t
stage_running(const run_t *r, uint32_t id)
{
    const seq_t *q = seq_at(r->s, id);

    if (q->known_n - q->computed == 1) {
        return STAGE_DECODES;
    }
    if (q->known_n > q->prompt_n) {
        return STAGE_RESUMES;
    }
    if (q->computed == 0) {
        return STAGE_OTHER;
    }

    return leads(r, id) ? STAGE_LEADS : STAGE_CHUNKS;
}


stage_t
stage_of(const run_t *r, uint32_t place)
{
    const sreq_t *sr = &r->s->reqs[place];
    uint32_t id = place * LLM_CHOICES_MAX;
    const seq_t *q;

    assert(r->item[place] != RUN_NONE && sr->r != NULL);

    /* the first choice that is not over tells where the request stands */
    while (seq_at(r->s, id)->state == SCHED_ENDED) {
        id++;
        assert(id % LLM_CHOICES_MAX < sr->r->choices);
    }
    q = seq_at(r->s, id);

    if (q->fetch != 0 && kv_tier_coming(r->kv, q->fetch)) {
        return STAGE_FETCHES;
    }

    switch (q->state) {
    case SCHED_QUEUED:
        return q->leader != NONE ? STAGE_FOLLOWS : STAGE_QUEUED;
    case SCHED_HELD:
        return sr->credit ? STAGE_OUTRANKED : STAGE_DRY;
    case SCHED_WAITING:
        return r->items[r->item[place]].begun_us > 0 ? STAGE_PREEMPTED
                                                     : STAGE_OTHER;
    case SCHED_RUNNING:
        return stage_running(r, id);
    default:
        return STAGE_OTHER;
    }
}
