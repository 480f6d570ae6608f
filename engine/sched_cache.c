/*
 * The scheduler's use of the prefix cache: who computes, who takes over, who
 * waits for another's blocks.
 *
 * DESIGN.  A sequence that is to get a seat looks first what of it is there
 * (sched_cache_match).  At least its last known token is computed again, for
 * its logits are wanted, and so are all tokens of a prompt whose logprobs are.
 * What is found is neither computed nor charged.
 * After each step what has become a full block enters the cache
 * (sched_cache_keep), of prompts as of generated tokens; so a preempted
 * sequence finds its own again, and whoever comes with the same text finds it
 * while it is still being computed.
 *
 * FOLLOWING.  Of those that come together with the same prefix one computes
 * it; the others wait until the blocks that they share are there:
 *
 *      leader    [ computed ......|...... shared ......|.. its own .. ]
 *      follower  [ found ...............................^ from here on ]
 *
 * A follower looks each plan whether its leader still runs; if that ended,
 * was preempted, or is out of credit, the follower goes on with what is there,
 * as the next leader maybe.  It waits no longer than a few times what the
 * shared part takes, and only for one of its own class or a higher one.
 *
 * FETCHING.  If the second tier has more of it than the pool, and there is
 * room for it, that is brought into the cache, and the sequence waits like a
 * follower: then it finds it there, or what has come of it, and goes on.  A
 * sequence tries that once for each admission, so that blocks which go again
 * before its turn comes are not fetched for ever.
 *
 * What was sampled behind a stop leaves the cache with its sequence; so do the
 * blocks of one whose logits were not finite.
 */
#include "sched_int.h"
#include "kv_tier.h"

#include <assert.h>
#include <string.h>

/* Blocks to come that are worth waiting for: less is computed at once. */
#define SCHED_FOLLOW_MIN 2

/* Plans that a follower waits beyond what its leader should need. */
#define SCHED_FOLLOW_SLACK 16

/* A copy that takes longer is not waited for; the blocks may be computed in
 * less. */
#define SCHED_FETCH_US 1000000

/* What is kept for the highest class counts as used so much later. */
#define SCHED_KEEP_MAX 3


static kv_who_t
seq_who(const sched_t *s, uint32_t id)
{
    const sreq_t *sr = &s->reqs[seq_req(id)];
    kv_who_t who;

    who.space = sr->space;
    who.owner = sr->owner;
    who.weight = sr->weight;
    who.keep = sr->keep;

    return who;
}


void
sched_cache_own(sreq_t *sr, const req_t *r)
{
    sr->space = r->space;
    sr->owner = r->tenant;
    sr->keep = r->priority < SCHED_KEEP_MAX
                   ? (uint8_t) (SCHED_KEEP_MAX - r->priority)
                   : 0;
}


const uint32_t *
sched_cache_tokens(const sched_t *s, uint32_t id)
{
    const req_t *r = s->reqs[seq_req(id)].r;
    const seq_t *q = seq_at(s, id);

    /* before its first seat its prompt has not been copied */
    return q->known_n == q->prompt_n
               ? r->prompts[id % LLM_CHOICES_MAX / r->n].ids
               : seq_known(s, id);
}


/* Are logprobs of its prompt still to come? */
static int
to_score(const sched_t *s, uint32_t id)
{
    const seq_t *q = seq_at(s, id);

    return (s->reqs[seq_req(id)].flags & LLM_F_PROMPT_LPS) != 0
           && q->scored + 1 < q->prompt_n;
}


/* How many of its tokens need not be computed, if they are there. */
static uint32_t
may_find(const sched_t *s, uint32_t id)
{
    const seq_t *q = seq_at(s, id);

    assert(q->known_n > 0);

    return to_score(s, id) ? q->scored : q->known_n - 1;
}


void
sched_cache_match(sched_t *s, uint32_t id)
{
    seq_t *q = seq_at(s, id);
    kv_who_t who = seq_who(s, id);

    assert(q->computed == 0 && kv_held(s->kv, id) == 0);

    q->computed =
        kv_match(s->kv, id, &who, sched_cache_tokens(s, id), may_find(s, id));
    q->found = q->computed;
    sched_reach(s, id);
    assert(q->computed < q->known_n);
}


void
sched_cache_to_look(const sched_t *s, uint32_t id, look_t *l)
{
    l->space = s->reqs[seq_req(id)].space;
    l->tokens = sched_cache_tokens(s, id);
    l->most = may_find(s, id);
}


void
sched_cache_unmatch(sched_t *s, uint32_t id)
{
    (void) kv_release(s->kv, id);
    seq_at(s, id)->computed = 0;
    seq_at(s, id)->room = 0;
}


void
sched_cache_admitted(sched_t *s, uint32_t id)
{
    seq_t *q = seq_at(s, id);
    sreq_t *sr = &s->reqs[seq_req(id)];

    assert(q->found == q->computed);

    if (!kv_caches(s->kv)) {
        return;
    }

    s->cache_asked += q->known_n;
    s->cache_hits += q->found;
    if (q->fetched && q->found > q->had) {
        s->fetches++;
        s->fetched_tokens += q->found - q->had;
    }
    q->fetched = 0;

    if (q->charged < q->found) {
        q->charged = q->found;
    }

    /* a prompt counts once, with its first choice, as in prompt_tokens */
    if (!q->met && id % LLM_CHOICES_MAX % sr->r->n == 0) {
        sr->cached += q->found;
    }
    q->met = 1;
}


void
sched_cache_keep(sched_t *s, uint32_t id)
{
    const seq_t *q = seq_at(s, id);
    kv_who_t who;

    assert(q->computed >= s->block_tokens);

    if (kv_caches(s->kv)) {
        who = seq_who(s, id);
        kv_insert(s->kv, id, &who, seq_known(s, id), q->computed);
    }
}


/* --- following ---------------------------------------------------------- */

/* How many tokens of whole blocks two sequences begin with alike. */
static uint32_t
common(const sched_t *s, uint32_t leader, uint32_t id)
{
    const uint32_t *a = seq_known(s, leader), *b = sched_cache_tokens(s, id);
    uint32_t bt = kv_block_tokens(s->kv), n = seq_at(s, leader)->known_n, i = 0;

    /* the follower's last token is its own to compute */
    if (seq_at(s, id)->known_n - 1 < n) {
        n = seq_at(s, id)->known_n - 1;
    }

    while (n - i >= bt && memcmp(a + i, b + i, bt * sizeof(*a)) == 0) {
        i += bt;
    }

    return i;
}


/* May id wait for leader, as far as can be told without its tokens? */
static int
may_lead(const sched_t *s, uint32_t leader, uint32_t id)
{
    const seq_t *q = seq_at(s, leader);

    return leader != id && q->known_n - q->computed > 1
           && s->reqs[seq_req(leader)].space == s->reqs[seq_req(id)].space
           && key_class(s->links[leader].key) <= key_class(s->links[id].key);
}


/* It waits for others from now on. */
static void
follow(sched_t *s, uint32_t id)
{
    assert(seq_follows(seq_at(s, id)));

    seq_at(s, id)->follow_at = s->follow_n;
    s->follow[s->follow_n++] = id;
    if (seq_at(s, id)->state == SCHED_QUEUED) {
        sched_order_may(s, seq_req(id));
    } else {
        seq_tenant(s, id)->next_ok = 0;
    }
}


void
sched_cache_alone(sched_t *s, uint32_t id)
{
    seq_t *q = seq_at(s, id);
    uint32_t last;

    if (!seq_follows(q)) {
        return;
    }
    assert(s->follow[q->follow_at] == id);

    last = s->follow[--s->follow_n];
    s->follow[q->follow_at] = last;
    seq_at(s, last)->follow_at = q->follow_at;
    q->leader = NONE;
    q->fetch = 0;
    if (q->state == SCHED_QUEUED) {
        sched_order_may(s, seq_req(id));
    } else {
        seq_tenant(s, id)->next_ok = 0;
    }
}


int
sched_cache_follow(sched_t *s, uint32_t id)
{
    uint32_t i, n, best = NONE, share = 0, bt = kv_block_tokens(s->kv);
    seq_t *q = seq_at(s, id);

    if (q->alone || !kv_caches(s->kv) || to_score(s, id)
        || q->known_n - 1 < q->found + SCHED_FOLLOW_MIN * bt) {
        return 0;
    }

    for (i = 0; s->prompts > 0 && i < s->run_n; i++) {
        if (may_lead(s, s->run[i], id)) {
            n = common(s, s->run[i], id);
            if (n > share && n > seq_at(s, s->run[i])->computed) {
                share = n;
                best = s->run[i];
            }
        }
    }

    if (best == NONE || share < q->found + SCHED_FOLLOW_MIN * bt) {
        return 0;
    }

    q->leader = best;
    q->leader_key = s->links[best].key;
    q->share = share;
    q->until = s->plans + SCHED_FOLLOW_SLACK
               + 4ull * (share - seq_at(s, best)->computed) / s->c.tokens;
    s->follows++;
    follow(s, id);

    return 1;
}


int
sched_cache_fetch(sched_t *s, uint32_t id)
{
    seq_t *q = seq_at(s, id);
    kv_who_t who;

    if (q->fetched || !kv_tiers(s->kv)) {
        return 0;
    }

    /* those who run are to find a block each */
    who = seq_who(s, id);
    q->fetch = kv_tier_fetch(
        s->kv, id, &who, sched_cache_tokens(s, id), may_find(s, id), s->run_n);
    if (q->fetch == 0) {
        return 0;
    }

    q->fetched = 1;
    q->fetch_us = s->now_us + SCHED_FETCH_US;
    q->had = q->found;
    follow(s, id);

    return 1;
}


/* Is what was fetched for it still to be waited for? */
static int
fetching(const sched_t *s, const seq_t *q)
{
    return q->fetch != 0 && kv_tier_coming(s->kv, q->fetch)
           && s->now_us < q->fetch_us;
}


/* Has its leader still to compute what both begin with? */
static int
leads(const sched_t *s, const seq_t *q)
{
    const seq_t *l;

    if (q->leader == NONE || q->alone) {
        return 0;
    }
    l = seq_at(s, q->leader);

    return s->links[q->leader].key == q->leader_key && l->state == SCHED_RUNNING
           && l->computed < q->share;
}


int
sched_cache_waits(sched_t *s, uint32_t id)
{
    seq_t *q = seq_at(s, id);

    if (!seq_follows(q)) {
        return 0;
    }
    if (fetching(s, q)) {
        return 1;
    }
    q->alone |= q->leader != NONE && s->plans > q->until;
    if (leads(s, q)) {
        return 1;
    }
    sched_cache_alone(s, id);

    return 0;
}


void
sched_cache_wait_all(sched_t *s)
{
    uint32_t i = 0;

    while (i < s->follow_n) {
        i += (uint32_t) sched_cache_waits(s, s->follow[i]);
    }
}
