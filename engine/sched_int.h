/*
 * The scheduler's inside, shared by sched.c (requests: add, commit, end),
 * sched_plan.c, sched_seat.c, sched_turn.c and sched_row.c (the plan),
 * sched_ahead.c (steps in flight), sched_order.c, sched_floor.c,
 * sched_cache.c, sched_share.c, sched_tenant.c and the policies.  Nobody else
 * includes it.
 */
#ifndef SCHED_INT_H
#define SCHED_INT_H

#include "list.h"
#include "sched.h"
#include "sched_guess.h"
#include "sched_pace.h"

#include <assert.h>
#include <stddef.h>

#define NONE LIST_NONE

__extension__ typedef unsigned __int128 sched_wide_t;

/*
 * The key by which requests and sequences are ordered, most important first:
 * class, arrival number, choice, in 8, 52 and 4 bits.
 */
#define SCHED_CLASS_MAX 255 /* classes from here on are one */
#define SCHED_CLASSES   (SCHED_CLASS_MAX + 1)

/* What a step looks at of a sequence that decodes lies in its first line. */
typedef struct {
    uint32_t prompt_n;
    uint32_t known_n;
    uint32_t computed;
    uint32_t limit;   /* known_n at which it ends */
    uint32_t last;    /* the last of its known tokens, if it has had a seat */
    uint32_t room;    /* tokens that it has blocks for; where there are windows,
                       * at least */
    uint32_t charged; /* positions that the tenant has paid for */
    uint32_t scored;  /* positions whose next token's logprob is handed out */
    uint32_t row[2];  /* depth 1: its row in each of the steps; NONE: it has
                       * none.  See sched_ahead.c */
    uint8_t state;    /* sched_state_t */
    uint8_t late;     /* depth 1: its last known token is still to be sampled */
    uint8_t floor;    /* has had the floor's turn: keeps its seat */
    uint8_t met;      /* has had a seat */
    uint8_t alone;    /* has waited enough for a leader */
    uint8_t fetched;  /* was tried, for this admission */
    uint32_t todo;    /* next in the tenant's todo list */

    /* the prefix cache: see sched_cache.c */
    uint32_t found;      /* tokens that were there at the last admission */
    uint32_t stays;      /* tokens whose blocks stay there when it ends */
    uint32_t share;      /* tokens that its leader will have computed */
    uint32_t leader;     /* the sequence it waits for; NONE: it does not */
    uint64_t leader_key; /* tells that one from the next of its name */
    uint64_t until;      /* the plan after which it waits no longer */
    uint64_t fetch;      /* what is copied for it; 0: nothing */
    uint64_t fetch_us;   /* when it goes on without */
    uint32_t had;        /* tokens that were there before that */
    uint32_t follow_at;  /* place in s->follow */
} seq_t;

_Static_assert(offsetof(seq_t, leader) == 64, "all but who waits: a line");

/* Requests by class, in each by arrival. */
typedef struct {
    uint64_t some[SCHED_CLASSES / 64]; /* bit c: class c has any */
    list_t of[SCHED_CLASSES];
} lanes_t;

/* A step from its plan to its commit, at depth 1; [rows] all. */
typedef struct {
    uint32_t rows_n;
    uint32_t counted; /* have its rows been counted as computed? */
    uint32_t *seqs;   /* owned, as are all below; NONE: discarded */
    uint32_t *ends;   /* tokens that the sequence has computed then */
    uint32_t *outs;   /* the output that is sampled; NONE: none is */
    uint32_t *stays;  /* of one discarded that left its blocks, how many tokens'
                       * stay in the cache */
} sched_step_t;

typedef struct {
    const req_t *r;      /* borrowed; NULL: not live */
    uint64_t expires_us; /* UINT64_MAX: never */
    uint64_t price;      /* what the tenant is charged for a sampled token */
    uint32_t tenant;     /* index in tenants */
    uint32_t flags;      /* r's, for they are asked for in each step */
    uint32_t weight;     /* r's, at least 1 */
    uint32_t open_n;     /* choices that have not ended */
    uint32_t sampled;
    uint32_t cached; /* prompt tokens that were not computed */
    uint8_t started;
    uint8_t expired;
    uint8_t credit;
    uint8_t keep; /* as below */
    uint32_t owner;
    uint64_t space; /* whose its blocks are: kv_who_t */
} sreq_t;

_Static_assert(sizeof(sreq_t) == 64, "a line");

/* A waiting request, and what is known of what the cache has of it: all that
 * sched_order.c needs of it. */
typedef struct {
    uint64_t key;
    uint64_t arrival_us;
    uint64_t plan;          /* of the last look; 0: none yet */
    const uint32_t *tokens; /* borrowed */
    uint64_t space;
    uint32_t most;  /* of the tokens that may be found */
    uint32_t match; /* tokens */
    radix_spot_t spot;
    uint8_t waits; /* is it in the queue? */
    uint8_t may;   /* could it start, but for its tenant's limit? */
    uint8_t list;  /* of look_lists; LOOK_NONE */
} look_t;

/* Those that are to be looked at for the first time, or again. */
enum { LOOK_FRESH, LOOK_AGED, LOOK_NONE };

_Static_assert(sizeof(look_t) == 64, "a line");

/* Rows that what a row needs is fetched ahead of. */
#define SCHED_FETCH_ROWS 8

/* Steps of kv_look() in a plan: blocks compared, and requests looked at. */
#define SCHED_LOOK_STEPS 256

/* A tenant's waiting requests that would go first. */
#define SCHED_BEST 16

typedef struct {
    uint64_t first_key; /* of the first */
    uint64_t first_us;
    uint64_t start_key; /* of that with which the walk began */
    uint32_t valid;     /* 0: the queue is to be walked */
    uint32_t from;      /* the class from which on was looked */
    uint32_t first;     /* the oldest that could start; NONE */
    uint32_t edge; /* from here on the queue was not looked over; NONE: all */
    uint32_t over; /* how many were and still wait */
    uint32_t n;
    uint32_t more;   /* are there more that could start before the edge? */
    uint32_t missed; /* some before it may not pass the first */
    uint32_t v[SCHED_BEST];
} best_t;

/* What a piece of work is; what has begun goes before what has not. */
enum { PICK_TODO, PICK_READY, PICK_WAIT, PICK_NONE };

/* What each plan looks at lies in the first line. */
typedef struct {
    _Alignas(64) uint64_t service; /* tokens * SCHED_SCALE / weight */
    uint64_t next_key;
    uint32_t next; /* the pick of those without a seat; NONE: there is none */
    uint32_t next_match; /* tokens that the cache has of it, if it waits */
    uint8_t next_kind;
    uint8_t next_ok; /* is it known? */
    uint8_t pick_kind;
    uint32_t pick; /* best piece of work: a sequence */
    uint32_t todo; /* seated unfinished prompts, of this plan */
    list_t ready;  /* sequences of started ones that have no blocks */
    uint32_t waiting;
    uint32_t sits; /* seats that its sequences have */
    uint32_t started;
    uint32_t live; /* requests */
    uint32_t dry;  /* of them, out of credit */

    list_t wait; /* requests that have not started */
    uint32_t todo_tail;
    uint32_t name;      /* req_t.tenant */
    uint32_t next_name; /* in its bucket */
    uint32_t at;        /* place in active while live > 0, else in idle */
    uint64_t queue_us;  /* the last start, or when it came with none running */
    uint64_t gap_us;    /* between two starts while others waited, averaged */
    uint64_t told_us;   /* when who was refused last is to come back */
    uint32_t gaps;      /* that it is the average of, at most GAPS */
    uint32_t seats;     /* as the plan's claim has counted */
    uint64_t first_key; /* of its oldest that could start, at its pick */
    uint64_t first_us;
    best_t best[2]; /* of all classes, and of those from another on */
} tenant_t;

_Static_assert(offsetof(tenant_t, wait) == 64, "a line");

/* What the floor owes a class, and what it was served since the last plan. */
typedef struct {
    int64_t owed;    /* hundredths of a weighted token; < 0: had too much */
    uint64_t served; /* weighted tokens of sequences the floor did not let in */
    uint64_t floored; /* and of those that it did */
} sched_class_t;

/*
 * A policy.  Classes are strict and not its business: it decides among equals,
 * and what a step is made of.  It may only look.
 */
struct sched_policy_s {
    const char *name;

    /* What the turn of t, which has a pick, is by: the least goes first, and of
     * equals whose pick is first by its key.  What it depends on changes for
     * none but whose turn it is. */
    uint64_t (*rank)(const sched_t *s, const tenant_t *t);

    /* Does sequence a lose its blocks rather than b? */
    int (*rather)(const sched_t *s, uint32_t a, uint32_t b);

    /* May a, whose turn it is, take blocks that b holds?  NULL: never.  If so,
     * then also from one that was served more, and one that was less may. */
    int (*claims)(const sched_t *s, const tenant_t *a, const tenant_t *b);

    /* Writes the step, by the passes below. */
    void (*compose)(sched_t *s, batch_t *b);

    /* The place in s->order of the tenant whose turn it is by what the cache
     * has of who waits; the order has one.  NULL: the first, and matches do
     * not matter. */
    uint32_t (*prefer)(sched_t *s);
};

/* A tenant that has a pick, with what its turn is by. */
typedef struct {
    uint64_t rank; /* the policy's */
    uint64_t key;  /* the pick's, with its class */
    uint32_t tenant;
    uint32_t match; /* tokens that the cache has of the pick, if it waits */
} turn_t;

struct sched_s {
    sched_cfg_t c;
    sched_tap_t tap; /* NULL: nobody is told of calls */
    void *tap_arg;   /* borrowed */
    const sched_policy_t *policy;
    sched_pace_t pace;   /* if there is a target */
    sched_guess_t guess; /* of all tenants' output lengths */
    sched_load_t load;   /* of the step being planned */
    uint32_t top;        /* sequence that keeps its blocks; NONE */
    uint32_t turns;      /* for policies that alternate */
    uint32_t upper;      /* the highest class that waits, if the floor has it
                            to look after others; NONE */
    uint32_t floor_seq;  /* whose prompt the floor is for in this plan; NONE */
    int shut;            /* nobody is admitted past who waits by the floor */
    uint64_t served;     /* weighted tokens since the last plan, all classes */
    sched_class_t classes[SCHED_CLASSES];
    uint32_t decoding; /* rows of the step before its prompts */
    int foreseen;      /* do these tell of those seated? */
    uint64_t lacking;  /* blocks that they lack for what they know */
    uint64_t holding;  /* and have */
    sched_futures_t futures;
    kv_t *kv;                      /* borrowed */
    uint32_t block_tokens, groups; /* of it */
    uint64_t block_part; /* 2^64 / block_tokens, rounded up; 0 for one */
    int slides;
    uint32_t seats;
    uint64_t arrivals;
    uint64_t now_us;   /* of the last plan */
    uint64_t then_us;  /* of the one before */
    uint64_t quantum;  /* service that a light tenant may be ahead */
    uint64_t lead;     /* service that one with a longer match may be ahead */
    uint32_t confirms; /* left of this plan's: sched_order_holds */
    uint32_t turn;     /* place in order of the tenant whose turn it is */
    uint32_t todo_n;   /* tenants with unfinished prompts in this plan */
    uint32_t prompts;  /* seated unfinished ones, at most; NONE: not known */
    int credits;       /* have any changed since the last plan? */
    uint32_t oldest; /* whose waiting request is the oldest; NONE: not known */
    int plain;       /* who waits is taken in order of arrival */
    uint64_t vtime;  /* the least service of those active, the most it was */
    uint64_t left_service; /* the most that a tenant who left had had */
    uint64_t expires_us;
    uint32_t live_n, started_n, stalled_n;
    uint32_t tenants_n, active_n, idle_n, order_n, run_n;
    uint32_t tenant_mask; /* buckets - 1 */
    uint32_t pressed;     /* blocks were taken away in this plan */
    uint32_t blocked;     /* it needs blocks of the step in flight: no plan */
    uint32_t step_at;     /* of steps, the one to be committed first */
    uint32_t steps_n;     /* planned and not committed; 0 at depth 0 */
    sched_step_t steps[2];
    uint64_t discarded, wasted;
    uint64_t credit_stalls, preemptions;
    uint64_t plans, follows, cache_asked, cache_hits;
    uint64_t fetches, fetched_tokens;
    lanes_t queue;        /* requests that wait to start */
    lanes_t begun;        /* requests that have */
    list_t held;          /* sequences in state HELD */
    list_t expired;       /* requests taken out of their queue */
    sreq_t *reqs;         /* [reqs] owned, as are all below */
    link_t *lane_links;   /* [reqs] for queue and begun */
    link_t *wait_links;   /* [reqs] for a tenant's wait, and expired */
    look_t *looks;        /* [reqs] */
    list_t look_lists[2]; /* requests that are looked at: LOOK_FRESH */
    link_t *look_links;   /* [reqs] */
    uint32_t follow_n;
    uint32_t *follow;         /* [seqs] that follow: see seq_follows */
    seq_t *seqs;              /* [seqs] */
    link_t *links;            /* [seqs] for a tenant's ready, and held */
    uint32_t row;             /* tokens from a sequence's to the next one's */
    uint32_t *known;          /* [seqs, row] token ids, touched when used */
    uint32_t *run;            /* [seats] sequences in state RUNNING, by key */
    sched_guess_t *guesses;   /* [2 * reqs] of output lengths, by tenant */
    tenant_t *tenants;        /* [2 * reqs], idle ones too */
    uint32_t *active;         /* [reqs] tenants with live requests */
    uint32_t *idle;           /* [2 * reqs] those without: a heap */
    uint32_t *tenant_buckets; /* [tenant_mask + 1] by name */
    uint32_t *todo;           /* [seats] tenants with unfinished prompts */
    turn_t *order;            /* [reqs] of the active, who has a pick: a heap */
};


/* Tells of a call, if somebody listens: type and what else the list says. */
#define SCHED_TELL(s, ...)                                                     \
    do {                                                                       \
        if ((s)->tap != NULL) {                                                \
            (s)->tap((s)->tap_arg, &(const sched_call_t){__VA_ARGS__});        \
        }                                                                      \
    } while (0)


/* The sequence was served so many weighted tokens while a class waited for
 * which the floor looks after others. */
void sched_floor_count(sched_t *s, uint32_t id, uint32_t cost);


static inline uint32_t
seq_req(uint32_t id)
{
    return id / LLM_CHOICES_MAX;
}


/*
 * Where a sequence's numbers and tokens lie.  Most requests have one choice:
 * first ones lie together, or each would take a page of its own in each table.
 */
static inline size_t
seq_place(const sched_t *s, uint32_t id)
{
    assert(seq_req(id) < s->c.reqs);

    return (size_t) (id % LLM_CHOICES_MAX) * s->c.reqs + seq_req(id);
}


static inline seq_t *
seq_at(const sched_t *s, uint32_t id)
{
    return &s->seqs[seq_place(s, id)];
}


static inline uint32_t *
seq_known(const sched_t *s, uint32_t id)
{
    return s->known + seq_place(s, id) * s->row;
}


/* What a step looks at of a sequence is to be on its way from memory. */
static inline void
seq_fetch(const sched_t *s, uint32_t id)
{
    __builtin_prefetch(seq_at(s, id), 1);
    __builtin_prefetch(&s->reqs[seq_req(id)], 1);
}


/* It knows a token more. */
static inline void
seq_append(const sched_t *s, uint32_t id, uint32_t token)
{
    seq_t *q = seq_at(s, id);

    assert(q->known_n < q->limit);
    seq_known(s, id)[q->known_n++] = token;
    q->last = token;
}


static inline uint32_t
key_class(uint64_t key)
{
    return (uint32_t) (key >> 56);
}


static inline void
lanes_init(lanes_t *l)
{
    uint32_t i;

    for (i = 0; i < SCHED_CLASSES; i++) {
        list_init(&l->of[i]);
    }
}


static inline void
lanes_insert(lanes_t *l, link_t *links, uint32_t id)
{
    uint32_t class = key_class(links[id].key);

    list_insert(&l->of[class], links, id);
    l->some[class / 64] |= 1ull << class % 64;
}


/* The same if `near` is likely to be not far before it; NONE: nobody is. */
static inline void
lanes_insert_near(lanes_t *l, link_t *links, uint32_t id, uint32_t near)
{
    uint32_t class = key_class(links[id].key);

    if (near == NONE || key_class(links[near].key) != class) {
        lanes_insert(l, links, id);
    } else {
        list_insert_after(&l->of[class], links, id, near);
    }
}


static inline void
lanes_remove(lanes_t *l, link_t *links, uint32_t id)
{
    uint32_t class = key_class(links[id].key);

    list_remove(&l->of[class], links, id);
    if (l->of[class].head == NONE) {
        l->some[class / 64] &= ~(1ull << class % 64);
    }
}


/* The first class from `class` on that has any; SCHED_CLASSES: none has. */
static inline uint32_t
lanes_next(const lanes_t *l, uint32_t class)
{
    uint64_t some;

    for (; class < SCHED_CLASSES; class = (class / 64 + 1) * 64) {
        some = l->some[class / 64] >> class % 64;
        if (some != 0) {
            return class + (uint32_t) __builtin_ctzll(some);
        }
    }

    return SCHED_CLASSES;
}


static inline tenant_t *
seq_tenant(sched_t *s, uint32_t id)
{
    return &s->tenants[s->reqs[seq_req(id)].tenant];
}


/*
 * Tokens that one who decodes is to get at once: the one that was sampled last,
 * and what followed it (sched_take_t.more).  0: it has a prompt to compute, or
 * its last token.
 */
static inline uint32_t
seq_decodes(const seq_t *q)
{
    uint32_t n = q->known_n - q->computed;

    return q->known_n < q->limit
                   && (n == 1
                       || (n <= 1 + SCHED_MORE_MAX
                           && q->computed >= q->prompt_n))
               ? n
               : 0;
}


/* Has it a prompt to compute, whose pieces are given out by the budget? */
static inline int
seq_prompts(const seq_t *q)
{
    return q->known_n - q->computed > 1 && seq_decodes(q) == 0;
}


/* Has it the blocks for so many tokens?  If not known to, ask the pool. */
static inline int
seq_reaches(const seq_t *q, uint32_t tokens)
{
    return tokens <= q->room;
}


/* Does it wait for others, as far as was seen in this plan? */
static inline int
seq_follows(const seq_t *q)
{
    return q->leader != NONE || q->fetch != 0;
}


/* How many of so many tokens lie in no whole block: the remainder, by two
 * products, exact for all numbers of 32 bits.  Each row asks. */
static inline uint32_t
seq_past_block(const sched_t *s, uint32_t tokens)
{
    uint64_t part = s->block_part * tokens;

    return (uint32_t) ((sched_wide_t) part * s->block_tokens >> 64);
}


/* How many blocks it has; without windows that is as far as they reach. */
static inline uint32_t
seq_held(const sched_t *s, uint32_t id)
{
    return s->slides ? kv_held(s->kv, id)
                     : seq_at(s, id)->room / s->block_tokens * s->groups;
}


/* What it knows, and one more if there will be one. */
static inline uint32_t
seq_next_n(const seq_t *q)
{
    return q->known_n + (q->known_n < q->limit);
}


/* Charges the sequence's tenant for weighted tokens. */
static inline void
sched_charge(sched_t *s, uint32_t id, uint64_t cost)
{
    const sreq_t *sr = &s->reqs[seq_req(id)];

    assert(sr->weight > 0);

    s->tenants[sr->tenant].service += cost * SCHED_SCALE / sr->weight;
}


/* The sequence was served so many weighted tokens. */
static inline void
sched_floor_served(sched_t *s, uint32_t id, uint32_t cost)
{
    if (s->upper != NONE) {
        sched_floor_count(s, id, cost);
    }
}


/* Has it a row in a step that was not committed? */
static inline int
seq_flies(const seq_t *q)
{
    return q->row[0] != NONE || q->row[1] != NONE;
}


/* --- passes ------------------------------------------------------------- */

/*
 * A row for everyone who lacks one token; takes blocks from others if need be.
 * Must come before any other row.
 */
void sched_pass_ones(sched_t *s, batch_t *b);

/*
 * Unfinished prompts and admissions, until the step has cap tokens, or is as
 * long as the target allows.  whole: never a part of a prompt, and the first
 * one even if it is longer than cap.
 */
void sched_pass_prompts(sched_t *s, batch_t *b, uint32_t cap, int whole);

/* Both, chunked: nobody who decodes waits for a prompt. */
void sched_stall_free(sched_t *s, batch_t *b);

/* Of the sequence's next n tokens, as many as the batch has room for their
 * outputs. */
uint32_t sched_row_fit(
    const sched_t *s, const batch_t *b, uint32_t id, uint32_t n);

/* Adds the next n tokens of a seated sequence, which has the blocks for them,
 * to the batch. */
void sched_row(sched_t *s, batch_t *b, uint32_t id, uint32_t n);

/* Memory for steps in flight; 0, or -1 when out of memory. */
int sched_ahead_open(sched_t *s);
void sched_ahead_close(sched_t *s);

/* A plan begins: the rows of the step in flight count as computed. */
void sched_ahead_begin(sched_t *s);

/* Row i of the plan, and its sampled output or NONE; the output of the step in
 * flight that is its last token, if that is late. */
void sched_ahead_row(
    sched_t *s, batch_t *b, uint32_t i, uint32_t id, uint32_t out);

/* The plan has so many rows. */
void sched_ahead_planned(sched_t *s, uint32_t rows_n);

/*
 * Sequence id ends: its rows are discarded, and its blocks go to the last step
 * that uses them, which frees all but those of its first `stays` tokens in the
 * cache.  0: it is in no step, and its blocks are the caller's to drop.
 */
int sched_ahead_discard(sched_t *s, uint32_t id);

/*
 * Sequence id got tokens that the step planned behind the one being committed
 * does not know of: it has no part in that, and sched_trim takes its row out.
 */
void sched_ahead_skip(sched_t *s, uint32_t id);

/*
 * The step to be committed first has ended: its sequences' numbers are as they
 * would be if nothing had been planned since it was, but for computed.  NULL at
 * depth 0.  Valid until the next plan.
 */
const sched_step_t *sched_ahead_ended(sched_t *s, const batch_t *b);

/* The tokens that a step with prompts may have. */
uint32_t sched_budget(const sched_t *s);

/* Nobody queues for a turn; tenant t, which has a pick, does; all do that
 * will. */
void sched_turn_none(sched_t *s);
void sched_turn_add(sched_t *s, const tenant_t *t);
void sched_turn_all(sched_t *s);

/* Is it the turn of a, rather than that of b? */
static inline int
sched_turn_sooner(const turn_t *a, const turn_t *b)
{
    if (key_class(a->key) != key_class(b->key)) {
        return key_class(a->key) < key_class(b->key);
    }

    return a->rank != b->rank ? a->rank < b->rank : a->key < b->key;
}


/* The tenant whose turn it is; NULL: none has a pick. */
tenant_t *sched_turn(sched_t *s);

/* The one whose turn it was has been served, or has another pick, or none. */
void sched_turn_again(sched_t *s);

/* --- seats and blocks: sched_seat.c -------------------------------------- */

/* A sequence that is held or has been let in gets a seat, or loses it but not
 * its blocks. */
void sched_seat(sched_t *s, uint32_t id);
void sched_hold(sched_t *s, uint32_t id);

/* The last of the seated sequences whose key is no higher; NONE. */
uint32_t sched_seated_before(const sched_t *s, uint64_t key);

/* May it lose its blocks?  Not if the step in flight uses them: then there is
 * no plan until that has ended. */
int sched_may_preempt(sched_t *s, uint32_t id);

/* Takes its blocks away; what it knows stays, and is computed again. */
void sched_preempt(sched_t *s, uint32_t id);

/* Is sequence a of a lower class than b, or of the same and came later? */
int sched_later(const sched_t *s, uint32_t a, uint32_t b);

/* Of a and b, either of which may be NONE, the one to lose its blocks. */
uint32_t sched_worse(const sched_t *s, uint32_t a, uint32_t b);

/* The seated sequence of class `from` or lower that is to go first. */
uint32_t sched_worst_seated(const sched_t *s, uint32_t from);

/*
 * Whose blocks are taken next: anyone's without credit, else of those of class
 * `from` or lower the one that the policy says.  Never the top's; NONE: there
 * is nobody.
 */
uint32_t sched_victim(const sched_t *s, uint32_t from);

/* Blocks held by sequences without credit: anyone may have them. */
uint64_t sched_dry_blocks(const sched_t *s);

/* Makes need blocks free at the cost of class `from` and below; 0: no way. */
int sched_take_blocks(sched_t *s, uint64_t need, uint32_t from);

/* May the request start, as far as its tenant's own limit goes? */
int sched_may_start(const sched_t *s, const sreq_t *sr);

/*
 * A request has come into its tenant's queue, is about to leave it, or may have
 * become able to start or ceased to be; and its tenant has another pick.
 */
void sched_order_came(sched_t *s, uint32_t req);
void sched_order_goes(sched_t *s, uint32_t req);
void sched_order_may(sched_t *s, uint32_t req);

/* Once a plan: looks what the cache has of some who wait. */
void sched_order_looks(sched_t *s);

/* Is the tenant's pick as good as it seemed?  If not, there may be another. */
int sched_order_holds(sched_t *s, const tenant_t *t);

/* O(requests), for tests: asserts that what is known of the queues is so. */
void sched_order_check(const sched_t *s);

/* Which of the tenant's waiting requests of class `from` or below is to start
 * next, whether the tenant may start one or not; NONE: none can. */
uint32_t sched_order_pick(sched_t *s, tenant_t *t, uint32_t from);

/* Tokens that the cache has of the tenant's pick, if that is a waiting request,
 * as far as is known; else 0. */
static inline uint32_t
sched_order_match(const tenant_t *t)
{
    assert(t->pick != NONE);

    return t->pick_kind == PICK_WAIT ? t->next_match : 0;
}

/* May the tenant's pick, a waiting request, go before the oldest of tenant
 * o's? */
int sched_order_passes(const sched_t *s, const tenant_t *t, const tenant_t *o);

/*
 * Settles what classes are owed, once a plan: the lower one whose turn it is;
 * NONE: none is owed anything.
 */
uint32_t sched_floor_turn(sched_t *s);


/* --- tenants: sched_tenant.c --------------------------------------------- */

/* Their memory; 0, or -1 when out of it. */
int sched_tenants_open(sched_t *s);
void sched_tenants_close(sched_t *s);

/* The entry of that name; NULL: it is not known. */
const tenant_t *sched_tenant_find(const sched_t *s, uint32_t name);

/* The index of its entry, made if need be at the cost of who has no requests.
 * It stays while it has some. */
uint32_t sched_tenant_get(sched_t *s, uint32_t name);

/* A request of tenant i comes, or has gone. */
void sched_tenant_enter(sched_t *s, uint32_t i);
void sched_tenant_leave(sched_t *s, uint32_t i);

/* Lifts t, which becomes active, to a quantum below the least served of those
 * that were active so far. */
void sched_tenant_lift(sched_t *s, tenant_t *t);


/* --- shares of the cache: sched_share.c ---------------------------------- */

/* Of want blocks, how many the sequence may have without taking what is kept
 * for other tenants; kv_grow, as far as that goes. */
uint32_t sched_share_room(const sched_t *s, uint32_t id, uint32_t want);
int sched_share_grow(sched_t *s, uint32_t id, uint32_t tokens);

/* kv_grow, and the sequence knows how far its blocks reach; that alone. */
int sched_grow(sched_t *s, uint32_t id, uint32_t tokens);
void sched_reach(sched_t *s, uint32_t id);

/*
 * May it be admitted, as far as its tenant's room goes?  It is matched, has
 * that many blocks or will for what it knows, and so many tokens to come.
 */
int sched_share_lets(
    const sched_t *s, uint32_t id, uint64_t blocks, uint32_t more);

/*
 * Who gives way where id did not get the need blocks that there are: one of
 * another tenant that has more than is kept for it, one of its own, or itself
 * unless it is the top.  NONE: there is nobody, or there are no blocks.
 */
uint32_t sched_share_victim(const sched_t *s, uint32_t id, uint32_t need);

/* Blocks that sequence id lacks for what it knows and the next token. */
static inline uint32_t
sched_lacks(const sched_t *s, uint32_t id)
{
    const seq_t *q = seq_at(s, id);
    uint32_t n = seq_next_n(q);

    return seq_reaches(q, n) ? 0 : kv_missing(s->kv, id, n);
}


/* Tokens that it is expected to sample yet. */
static inline uint32_t
sched_to_come(const sched_t *s, uint32_t id)
{
    const sched_guess_t *own = &s->guesses[s->reqs[seq_req(id)].tenant];
    const seq_t *q = seq_at(s, id);

    assert(q->known_n >= q->prompt_n && q->known_n <= q->limit);

    return sched_guess_more(sched_guess_knows(own) ? own : &s->guess,
        q->known_n - q->prompt_n, q->limit - q->known_n);
}


/* A request leaves the queue. */
void sched_unqueue(sched_t *s, uint32_t req);

/* Moves a sequence to state, asserting that the transition is legal. */
void sched_seq_state(seq_t *q, sched_state_t state);

/* Takes it out of the list or array that its state put it in. */
void sched_seq_detach(sched_t *s, uint32_t id);

/* What it knows, whether it was copied yet or not. */
const uint32_t *sched_cache_tokens(const sched_t *s, uint32_t id);

/*
 * Gives a sequence without blocks what the cache has of it, and says so in
 * computed and found.  Either it is admitted then, or that is taken back.
 */
void sched_cache_match(sched_t *s, uint32_t id);
void sched_cache_unmatch(sched_t *s, uint32_t id);

/* Whose the blocks of a request will be. */
void sched_cache_own(sreq_t *sr, const req_t *r);

/* What kv_look() is to look for. */
void sched_cache_to_look(const sched_t *s, uint32_t id, look_t *l);

void sched_cache_admitted(sched_t *s, uint32_t id);

/* What it has computed is kept, in whole blocks. */
void sched_cache_keep(sched_t *s, uint32_t id);

/* Should a matched sequence wait for one that computes the same?  If so, it
 * has a leader from then on. */
int sched_cache_follow(sched_t *s, uint32_t id);

/*
 * Should a matched sequence that may be admitted wait for more, which the
 * second tier has?  If so, that is on its way from then on.
 */
int sched_cache_fetch(sched_t *s, uint32_t id);

/* Does it still wait for its leader, or for what is fetched?  Once a plan for
 * all of them; and it does no longer, whatever comes of that. */
int sched_cache_waits(sched_t *s, uint32_t id);
void sched_cache_wait_all(sched_t *s);
void sched_cache_alone(sched_t *s, uint32_t id);

#endif
