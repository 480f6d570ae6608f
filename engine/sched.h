/*
 * The scheduling policy: which tokens of which sequences the next step
 * computes.  Pure: no clock, no allocation, no input or output, never blocks,
 * so that tests/sim runs the very same code in virtual time.  See sched.c.
 *
 * A request is named by its index in the request table; its choice c is the
 * sequence index * LLM_CHOICES_MAX + c, which is also its row's seq.
 */
#ifndef SCHED_H
#define SCHED_H

#include "batch.h"
#include "kv.h"
#include "req.h"

#include <stdint.h>

typedef struct sched_s sched_t;

/* X(state, meaning): of a sequence; legal transitions are in sched.c */
#define SCHED_STATES(X)                                                        \
    X(FREE, "no request's")                                                    \
    X(QUEUED, "its request has not started")                                   \
    X(WAITING, "no blocks: new or preempted")                                  \
    X(HELD, "blocks, but no seat: out of credit, or outranked")                \
    X(RUNNING, "blocks and a seat")                                            \
    X(ENDED, "has its last token, blocks freed")

/* clang-format off */
typedef enum {
#define X(name, doc) SCHED_##name,
    SCHED_STATES(X)
#undef X
    SCHED_STATES_N
} sched_state_t;
/* clang-format on */

/* Who goes first and what a step is made of: one file each. */
typedef struct sched_policy_s sched_policy_t;

extern const sched_policy_t sched_fair;   /* by tenants' service, and matches */
extern const sched_policy_t sched_fcfs;   /* by arrival */
extern const sched_policy_t sched_prefix; /* by what the prefix cache has */

/* To compare with: see sched_compare.c. */
extern const sched_policy_t sched_prefill_first, sched_orca;
extern const sched_policy_t sched_hybrid_only, sched_chunk_only;

/* The policy of that name; NULL: there is none. */
const sched_policy_t *sched_policy(const char *name);

/* Does it never cut a prompt?  Then sched_cfg_t.tokens must hold context and
 * rows. */
int sched_policy_whole(const sched_policy_t *p);

/* And the other way; NULL is the default one. */
const char *sched_policy_name(const sched_policy_t *policy);

typedef struct {
    uint32_t reqs; /* size of the request table */
    uint32_t rows; /* a batch's limits */
    uint32_t tokens;
    uint32_t context; /* longest sequence, tokens */

    /* what 0 stands for is in brackets */
    const sched_policy_t *policy; /* [sched_fair] */
    uint32_t budget;    /* tokens of a step with prompts in it [tokens] */
    uint32_t tile;      /* budgets are multiples of it [1] */
    uint32_t target_us; /* a step with decoding rows takes at most [any] */
    uint32_t floor;   /* lower classes' share while a higher waits, % [none] */
    uint32_t pass_us; /* who came so much later may go first [none may] */
    uint32_t depth;   /* steps planned while one is in flight, at most 1 [0] */
} sched_cfg_t;

/*
 * Names of sequences that the pool must have: those of requests, and at depth 1
 * one for each row of two steps, for the blocks of those that ended meanwhile.
 */
static inline uint32_t
sched_seqs(const sched_cfg_t *c)
{
    return c->reqs * LLM_CHOICES_MAX + 2 * c->rows * (c->depth > 0);
}

/* Nor may one who came later than that many others after it. */
#define SCHED_PASS_REQS 4096

/* A tenant is charged for its tokens: each prompt token once, when it is
 * computed, and each token sampled. */
#define SCHED_COST_IN  1
#define SCHED_COST_OUT 2

/* Tokens that may follow one that is sampled. */
#define SCHED_MORE_MAX 16

/* One sampled token: what sched_commit is told, and what it answers. */
typedef struct {
    uint32_t token;
    uint32_t ends;   /* is it a token that ends a text? */
    uint32_t over;   /* is the text whole with it, and nothing may follow? */
    uint32_t more_n; /* tokens that follow it and nobody has to sample;
                      * sched_more_room says how many may, and all of a step
                      * are at most b->outs_max; if the next step is planned
                      * already it has not been started, and is trimmed */
    const uint32_t *more; /* [more_n], borrowed during the call */
    uint32_t err;         /* nonzero: no token; the caller ends the request */
    uint32_t req;         /* answers from here on */
    uint32_t choice;
    uint32_t index;  /* of the token in its choice, from 0 */
    uint32_t finish; /* LLM_FINISH_* */
    uint32_t shown;  /* 0: stands for no text */
    uint32_t prompt; /* it is the prompt's token index, not a sampled one */
    uint32_t gone;   /* it is nobody's, who wanted it has ended: no other
                      * answer means anything */
} sched_take_t;

typedef struct {
    uint32_t waiting;        /* requests that have not started */
    uint32_t running;        /* requests that have */
    uint32_t stalled;        /* of these, out of credit */
    uint32_t seats_used;     /* sequences that take part in every step */
    uint64_t credit_stalls;  /* times that a request ran out of credit */
    uint64_t preemptions;    /* sequences that lost their blocks */
    uint64_t cache_asked;    /* tokens looked for in the prefix cache */
    uint64_t cache_hits;     /* of them, found */
    uint64_t follows;        /* sequences that waited for another's blocks */
    uint64_t fetches;        /* admissions with blocks of the second tier */
    uint64_t fetched_tokens; /* that these brought */
    uint64_t discarded;      /* rows of who ended while they were in flight */
    uint64_t wasted;         /* tokens sampled in such a row */
} sched_stats_t;

/* X(call, what is told of it): the calls that change a scheduler */
#define SCHED_CALLS(X)                                                         \
    X(ADD, "r; value: what was answered")                                      \
    X(RETRY, "r, and no req")                                                  \
    X(CREDIT, "value: has it; only when that is new")                          \
    X(PLAN, "us: now; b as it was written")                                    \
    X(TRIM, "b as it is then")                                                 \
    X(COMMIT, "b; takes with their answers")                                   \
    X(TOOK, "us")                                                              \
    X(CUT, "choice, index")                                                    \
    X(END, "")

/* clang-format off */
typedef enum {
#define X(name, doc) SCHED_CALL_##name,
    SCHED_CALLS(X)
#undef X
    SCHED_CALLS_N
} sched_call_type_t;
/* clang-format on */

/* One call that was made, all borrowed while it is told. */
typedef struct {
    sched_call_type_t type;
    uint32_t req; /* of ADD, CREDIT, CUT, END */
    const req_t *r;
    int value;
    uint32_t choice, index;
    uint64_t us;
    const batch_t *b;
    const sched_take_t *takes;
} sched_call_t;

typedef void (*sched_tap_t)(void *arg, const sched_call_t *c);

/*
 * Borrows kv, which must have been opened for sched_seqs() sequences, and at
 * depth 1 for steps of twice as many tokens, until sched_close.  NULL when out
 * of memory.
 */
sched_t *sched_open(const sched_cfg_t *c, kv_t *kv);
void sched_close(sched_t *s);

/*
 * From now on tap is told of each call that changes s, when it is done.  As
 * the scheduler is pure, a second one to which the same calls are made plans
 * the same.  The tap may not block either.
 */
void sched_tap(sched_t *s, sched_tap_t tap, void *arg);

/*
 * Takes request req in.  r, its prompts and parameters are borrowed until
 * sched_end; atomic fields are not looked at.  0, or -LLM_ERR_BUSY when its
 * tenant's queue is full, or so long that it would expire in it, as far as
 * can be told: then it was not taken in.  Each prompt must leave
 * room for one token in context and pool.
 */
int sched_add(sched_t *s, uint32_t req, const req_t *r);

/* How long a request like r would wait if it came now; 0: not known. */
uint64_t sched_wait_us(const sched_t *s, const req_t *r);

/*
 * After a refusal of r: in how long to try again.  Each one who is told is
 * counted as work that will come, so they are not all told the same time.
 */
uint64_t sched_retry_us(sched_t *s, const req_t *r);

/* Says whether req may be sampled; true when it is added. */
void sched_credit(sched_t *s, uint32_t req, int has);

/*
 * Writes the next step into b, at most one row per sequence; rows_n may be 0.
 * now_us is on the clock of req_t.arrival_us.  At depth 0 the step before must
 * have been committed, or is forgotten.  At depth 1 one may not have been yet,
 * and then this one is planned ahead: tokens that are still to be sampled are
 * in b->late, and rows_n is 0, too, if blocks were needed that the step in
 * flight uses.  What b borrows may be read until the plan after it, but for the
 * tokens and parameters that its outs point to, which are the request's.
 */
void sched_plan(sched_t *s, uint64_t now_us, batch_t *b);

/*
 * Pops a request that waited longer than its queue_ms, as the plan found; the
 * caller must sched_end() it.  0: no more.
 */
int sched_expired(sched_t *s, uint32_t *req);

/* When the next waiting request would expire, or earlier, but later than the
 * last plan; UINT64_MAX: never. */
uint64_t sched_expires_us(const sched_t *s);

/*
 * The step of batch b has run, of two the one planned first: takes[i] belongs
 * to b->outs[i].  At depth 0 no request of the batch may have been ended since
 * the plan.  At depth 1 any may: its rows are discarded.
 */
void sched_commit(sched_t *s, const batch_t *b, sched_take_t *takes);

/*
 * How many tokens may follow the one that a step gives sequence seq, which is
 * in it: fewer than it may get, as its last one is sampled.
 */
uint32_t sched_more_room(const sched_t *s, uint32_t seq);

/*
 * Takes the rows out of b that are discarded, or have more to compute; of
 * the step planned last, which is not to be started before; depth 1 only.  If
 * none is left there is no step to commit.
 */
void sched_trim(sched_t *s, batch_t *b);

/*
 * The step of batch b took us microseconds.  Without a target
 * it changes nothing.
 */
void sched_took(sched_t *s, const batch_t *b, uint64_t us);

/* How long the plan expects a step of batch b to take; 0: not known. */
uint64_t sched_expects(const sched_t *s, const batch_t *b);

/*
 * A stop string ended the choice inside its token index: what was sampled
 * behind it is cut off.  Returns how many tokens that were.
 */
uint32_t sched_cut(sched_t *s, uint32_t req, uint32_t choice, uint32_t index);

/* Have all choices of req ended? */
int sched_done(const sched_t *s, uint32_t req);

/* Tokens sampled for req that count, over all choices. */
uint32_t sched_completion(const sched_t *s, uint32_t req);

/* Prompt tokens of req that the prefix cache had. */
uint32_t sched_cached(const sched_t *s, uint32_t req);

/* Frees all that req holds and forgets it, wherever it stands. */
void sched_end(sched_t *s, uint32_t req);

void sched_stats(const sched_t *s, sched_stats_t *st);

/* State, known and computed tokens of a sequence, for tests. */
sched_state_t sched_seq(
    const sched_t *s, uint32_t seq, uint32_t *known_n, uint32_t *computed);

/*
 * What a tenant has been served: weighted tokens divided by weight, scaled by
 * SCHED_SCALE; 0 for one that is not known.
 */
#define SCHED_SCALE 65536
uint64_t sched_service(const sched_t *s, uint32_t tenant);

#endif
