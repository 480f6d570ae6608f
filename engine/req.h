/*
 * The request table: the one thing that the engine's three threads share.
 *
 * DESIGN.  A request has one owner at any time, and only the owner touches
 * its fields, but for those marked atomic.  Ownership moves in one direction,
 * with a message through an inner ring (llm_ring.h over private memory):
 *
 *      text_in ──READY──> loop ──TOKEN, END──> text_out ──FREE──> text_in
 *         └────────COUNTED, FAIL, PROMPT──────────^
 *      text_out ──VERDICT──> loop       (a stop string ended choice c at k)
 *
 * text_in takes an index from the free list, fills in what SUBMIT said, and
 * hands it to the loop (READY), or, if it failed or the model is not to run
 * (LLM_F_PROMPT), to text_out (FAIL, PROMPT).  The
 * loop's last word on a request is END; after it, it forgets the index.
 * text_out posts the terminal event when it has handled END or FAIL and all
 * text is out, then gives the index back (FREE).  So exactly one terminal
 * event leaves for each SUBMIT, whatever happened on the way.
 *
 * Messages carry (index, gen): a VERDICT may meet a request that has ended.
 *
 * Cancel and death are not messages: line->cancel == wire.gen, or *dead, is
 * looked at by whoever owns the request (req_cancelled).  seg and line lie in
 * the attachment's mapping, which outlives every request that points to it.
 */
#ifndef REQ_H
#define REQ_H

#include "llm_err.h"
#include "llm_live.h"
#include "llm_wire.h"
#include "reason.h"
#include "sample.h"
#include "tools.h"

#include <stdint.h>

/* X(state, owner): legal transitions are in req.c */
#define REQ_STATES(X)                                                          \
    X(FREE, "text_in: on the free list")                                       \
    X(TEXT, "text_in: template, tokeniser")                                    \
    X(HELD, "text_in: counted, waits for ADMIT")                               \
    X(WAITING, "loop: waits to be admitted")                                   \
    X(RUNNING, "loop: has rows in the batch")                                  \
    X(ENDING, "text_out: text and terminal event still to be posted")

typedef enum {
#define X(name, owner) REQ_##name,
    REQ_STATES(X)
#undef X
        REQ_STATES_N
} req_state_t;

/* One prompt: token ids, owned by text_in, freed by it after FREE. */
typedef struct {
    uint32_t *ids; /* [len] */
    uint32_t len;  /* >= 1 */
} req_prompt_t;

/* A stop string; bytes lie in the request's text_in arena. */
typedef struct {
    const char *s;
    uint32_t len; /* >= 1 */
} req_stop_t;

typedef struct {
    /* set by text_in before READY or FAIL, constant until FREE */
    llm_wire_id_t wire;
    uint32_t gen; /* of this index, grows with each use */
    uint32_t att; /* attachment index, text_in and text_out only */
    const llm_slot_line_t *line; /* in the mapping, written by the worker */
    llm_seg_head_t *seg;         /* in the mapping: line_sleeps */
    const uint32_t *dead; /* atomic: the attachment's, nonzero after EOF */
    uint64_t arrival_us;
    uint32_t flags; /* LLM_F_* */
    uint32_t n;     /* choices per prompt */
    uint32_t prompts_n;
    uint32_t choices;       /* prompts_n * n, <= LLM_CHOICES_MAX */
    uint32_t max_tokens;    /* per choice, clamped so that the context holds */
    uint32_t prompt_tokens; /* over all prompts */
    uint32_t credit;        /* bytes */
    uint32_t weight, priority, concurrent, queue_max, queue_ms;
    uint32_t tenant; /* small number, equal for equal names */
    uint64_t space;  /* who has another one shares no cached prefix */
    char tenant_name[LLM_LIVE_TEXT + 2]; /* a byte more than is shown of it */
    req_prompt_t prompts[LLM_CHOICES_MAX];
    uint32_t stops_n;
    req_stop_t stops[LLM_STOPS_MAX];
    sample_params_t params;
    sample_params_t prompt_params; /* with LLM_F_PROMPT_LPS: of the prompt */
    uint32_t apart;                /* is thought to be told from the answer? */
    reason_state_t reason;         /* where the prompt leaves off, if that or
                                    * a grammar asks for it */
    tools_t *tools; /* tells calls from the text; NULL: they are text.  Fed by
                     * text_out, closed by text_in after FREE */
    struct grammar_s *grammar; /* what the output obeys; NULL: nothing.  Walked
                                * by the loop, closed by text_in after FREE */
    char id[64];               /* for logs, 0-terminated */
    void *arena;               /* text_in's: holds all that is pointed to */

    /* atomic: payload bytes that text_out has posted or holds ready to post,
     * written by text_out; the loop samples while sent - taken < credit */
    uint64_t sent;
    uint64_t posted; /* atomic: of them, those committed to the EVENT ring */

    /* the owner's */
    req_state_t state;
} req_t;

/* Inner messages; the type is in the ring header. */
enum {
    REQ_MSG_READY = 1, /* text_in > loop */
    REQ_MSG_COUNTED,   /* text_in > text_out */
    REQ_MSG_FAIL,      /* text_in > text_out */
    REQ_MSG_PROMPT,    /* text_in > text_out: nothing is to be sampled */
    REQ_MSG_TOKEN,     /* loop > text_out */
    REQ_MSG_END,       /* loop > text_out */
    REQ_MSG_VERDICT,   /* text_out > loop */
    REQ_MSG_FREE       /* text_out > text_in */
};

/* READY, COUNTED, PROMPT, FREE */
typedef struct {
    llm_ring_hdr_t hdr;
    uint32_t req;
    uint32_t gen;
} req_msg_t;

typedef struct {
    llm_ring_hdr_t hdr;
    uint32_t req;
    uint32_t gen;
    uint32_t err; /* llm_err.h */
    char param[32];
    char text[160]; /* empty: the list's own sentence */
} req_msg_fail_t;

/*
 * One sampled token of one choice, or the choice's end, or both.  index
 * counts the choice's tokens from 0.  An end-of-text token that stops a
 * choice is not shown to the client: shown is 0 then.  With prompt it is a
 * token of the prompt, all but the first, and index counts from its beginning.
 */
typedef struct {
    llm_ring_hdr_t hdr;
    uint32_t req;
    uint32_t gen;
    uint32_t choice;
    uint32_t index;
    uint32_t finish; /* LLM_FINISH_*, as the loop sees it */
    uint32_t shown;
    uint32_t prompt;
    sample_out_t out; /* only its first tops_n tops travel */
} req_msg_token_t;

/* The loop's last word: err 0 is DONE. */
typedef struct {
    llm_ring_hdr_t hdr;
    uint32_t req;
    uint32_t gen;
    uint32_t err;
    uint32_t cached_tokens;
    uint32_t completion_tokens; /* charged: wasted ones are not in it */
    uint32_t retry_ms;          /* refused: when to come back; 0: not known */
    uint64_t queue_us, prefill_us, decode_us;
} req_msg_end_t;

/* Choice ended by a stop string inside its token number index. */
typedef struct {
    llm_ring_hdr_t hdr;
    uint32_t req;
    uint32_t gen;
    uint32_t choice;
    uint32_t index;
} req_msg_verdict_t;

/* Moves r to state, asserting that the transition is legal. */
void req_set_state(req_t *r, req_state_t state);

/* The state's name, for logs and asserts. */
const char *req_state_name(req_state_t state);

/* Has the client left, or its worker died? */
static inline int
req_cancelled(const req_t *r)
{
    return __atomic_load_n(&r->line->cancel, __ATOMIC_ACQUIRE) == r->wire.gen
           || __atomic_load_n(r->dead, __ATOMIC_ACQUIRE) != 0;
}

/*
 * May another token of r be sampled?  taken is input: what was not posted
 * cannot have been taken, so a worker that lies about it, and reads nothing,
 * gets no more memory than its credit.
 */
static inline int
req_has_credit(const req_t *r)
{
    uint64_t sent, posted, taken;

    /* in this order, the reverse of that in which they grow: so an honest
     * worker's taken is never found above posted, nor posted above sent */
    taken = __atomic_load_n(&r->line->taken, __ATOMIC_ACQUIRE);
    posted = __atomic_load_n(&r->posted, __ATOMIC_ACQUIRE);
    sent = __atomic_load_n(&r->sent, __ATOMIC_ACQUIRE);
    if (taken > posted) {
        taken = posted;
    }

    return sent - taken < r->credit;
}

#endif
