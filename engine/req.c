/*
 * Request states and the transitions between them.
 *
 *      FREE ──> TEXT ──> HELD ──> WAITING ──> RUNNING ──> ENDING ──> FREE
 *                │ └──────│──────────^           │          ^
 *                │        │          ^──preempt──┘          │
 *                └────────┴──────────── failed, cancelled ──┘
 *
 * A transition that is not drawn is a bug of ours, so it asserts.
 */
#include "req.h"

#include <assert.h>


const char *
req_state_name(req_state_t state)
{
    static const char *const names[] = {
#define X(name, owner) #name,
        REQ_STATES(X)
#undef X
    };

    assert((unsigned) state < REQ_STATES_N);

    return names[state];
}


void
req_set_state(req_t *r, req_state_t state)
{
#define TO(s) (1u << REQ_##s)
    static const unsigned legal[REQ_STATES_N] = {
        [REQ_FREE] = TO(TEXT),
        [REQ_TEXT] = TO(HELD) | TO(WAITING) | TO(ENDING),
        [REQ_HELD] = TO(WAITING) | TO(ENDING),
        [REQ_WAITING] = TO(RUNNING) | TO(ENDING),
        [REQ_RUNNING] = TO(WAITING) | TO(ENDING),
        [REQ_ENDING] = TO(FREE),
    };
#undef TO

    assert((unsigned) r->state < REQ_STATES_N);
    assert((unsigned) state < REQ_STATES_N);
    assert(legal[r->state] & (1u << state));

    r->state = state;
}
