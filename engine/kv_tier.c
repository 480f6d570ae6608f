/*
 * The second tier of the prefix cache: an arena of slots for blocks that the
 * pool may give up.
 *
 * DESIGN.  The slots have a radix tree of their own, with the same keys: so a
 * namespace that holds in the pool holds here, eviction is the tree's, fair
 * among owners and O(log), and tokens are compared one by one.  A tree needs
 * the whole of a prefix: what is copied out is a block and all before it that
 * is not there yet, from the first on.  So the tier has what the pool has of a
 * prefix too (twin, back: a block's slot and the other way round); it is meant
 * to be the larger of the two.
 *
 *      pool's tree    a ── b ── c ── d          d is evicted: its twin stays
 *                     │    │    │
 *      tier's tree    a'── b'── c'── d'
 *
 * OUT.  A block is copied early, when it has become idle, not when it must go:
 * eviction happens in the middle of a plan and waits for nothing.  Tips of
 * prefixes that became idle stand in a queue; if one is evicted before its
 * turn, what is before it stands there in its stead.  One run of blocks is on
 * its way at a time.  It keeps a reference to its tip, so that eviction skips
 * it: a block in state CACHED that is read.  A sequence may use it meanwhile,
 * since full blocks never change.
 *
 * IN.  A sequence that finds less in the pool than is here has the rest
 * fetched, into blocks in state TRANSIT, which the fetch owns.  It has nothing
 * to do with the sequence from then on: when the copy has ended well the blocks
 * are cached, and the sequence, which waited (sched_cache.c), finds them as it
 * finds others.  So whatever becomes of that one, cancelled, preempted, gone,
 * tired of waiting, nothing has to be undone; and where a copy fails, the
 * blocks are freed and all is as if nothing had been here.
 *
 * NOT WORTH IT.  Prefixes and remainders of less than KV_TIER_LEAST blocks; if
 * the user says so, whatever was wanted only once.  Models with windows have no
 * second tier: of a window's blocks a match needs the last ones only, and these
 * leave the pool apart from their nodes, each at its time.
 *
 * ORDER.  A copy out reads blocks that committed steps wrote and that no step
 * writes, a copy in writes what is in no table; so copies need no order with
 * steps but that each begins after the commit behind which it was handed out,
 * and is done before the plan that uses it.  They may run at the same time.
 *
 *      commit ─> next, begin ... (steps) ... ended ─> done ─> plan
 *
 * INVARIANTS.  Slots are free, in the tree, or the run's, which add up; blocks
 * in state TRANSIT are those of fetches.  twin and back name each other.  In
 * the queue are live nodes without a twin.
 *
 * Owned and called by the loop thread only.
 */
#include "kv_tier.h"
#include "kv_impl.h"
#include "mem.h"

#include <string.h>

#define NONE RADIX_NONE

#define KV_TIER_FETCHES 8 /* at once; who comes next computes */

/* Of so many blocks that can be had one stays so while a run is on its way:
 * those who run need some. */
#define KV_TIER_SPARE 8

/* A run of blocks on its way out: slots[i] below parent. */
typedef struct {
    uint32_t n;               /* 0: there is none */
    uint32_t tip;             /* the last block, referenced */
    uint32_t parent;          /* the slot above, referenced; NONE: the first */
    uint32_t from;            /* whose turn in the queue it is */
    uint32_t depth;           /* of the tip: how many blocks it keeps */
    uint32_t *blocks, *slots; /* [row] owned */
} run_t;

/* A run on its way in. */
typedef struct {
    uint64_t ticket; /* 0: there is none */
    kv_who_t who;
    uint32_t parent; /* the block above, referenced; NONE: the first */
    uint32_t depth;  /* of that */
    uint32_t n, begun, ended;
    uint32_t good;            /* of them, before the first that failed */
    uint32_t *blocks, *slots; /* [row] owned; the last slot is referenced */
} fetch_t;

struct kv_tier_s {
    kv_tier_cfg_t c;
    radix_t *tree; /* owned, as are all below; a node is a slot */
    uint32_t free_n;
    uint32_t *stack;       /* [slots] the first free_n are free */
    uint32_t *twin;        /* [blocks] the slot with the same; NONE */
    uint32_t *back;        /* [slots] the block with the same; NONE */
    uint32_t *next, *prev; /* [blocks] the queue */
    uint32_t *up;          /* [blocks] of one in it, its parent */
    uint8_t *queued;       /* [blocks] */
    uint32_t head, tail;
    uint32_t *path; /* [row] for one call */
    run_t run;
    fetch_t fetches[KV_TIER_FETCHES];
    uint64_t tickets;
    kv_tier_stats_t st;
};


/* --- opening ------------------------------------------------------------ */

static int
open_arrays(kv_tier_t *t, uint32_t blocks, uint32_t row)
{
    uint32_t slots = t->c.slots, i;
    int bad;

    t->stack = mem_zero(slots, sizeof(uint32_t));
    t->back = mem_zero(slots, sizeof(uint32_t));
    t->twin = mem_zero(blocks, sizeof(uint32_t));
    t->next = mem_zero(blocks, sizeof(uint32_t));
    t->prev = mem_zero(blocks, sizeof(uint32_t));
    t->up = mem_zero(blocks, sizeof(uint32_t));
    t->queued = mem_zero(blocks, sizeof(uint8_t));
    t->path = mem_zero(row, sizeof(uint32_t));
    t->run.blocks = mem_zero(row, sizeof(uint32_t));
    t->run.slots = mem_zero(row, sizeof(uint32_t));
    bad = t->stack == NULL || t->back == NULL || t->twin == NULL
          || t->next == NULL || t->prev == NULL || t->up == NULL
          || t->queued == NULL || t->path == NULL || t->run.blocks == NULL
          || t->run.slots == NULL;

    for (i = 0; i < KV_TIER_FETCHES; i++) {
        t->fetches[i].blocks = mem_zero(row, sizeof(uint32_t));
        t->fetches[i].slots = mem_zero(row, sizeof(uint32_t));
        bad |= t->fetches[i].blocks == NULL || t->fetches[i].slots == NULL;
    }

    return bad ? -1 : 0;
}


int
kv_tier(kv_t *kv, const kv_tier_cfg_t *c)
{
    kv_tier_t *t;
    radix_cfg_t rc;
    uint32_t i;

    assert(kv->tier == NULL && c->slots > 0 && c->slots <= 1u << 30);
    assert(kv->counts[KV_FREE] == kv->c.blocks);

    if (kv->tree == NULL || kv->c.groups > 1) {
        return 0;
    }

    t = mem_zero(1, sizeof(*t));
    if (t == NULL) {
        return -1;
    }
    kv->tier = t;
    t->c = *c;

    memset(&rc, 0, sizeof(rc));
    rc.nodes = c->slots;
    rc.block_tokens = kv->c.block_tokens;
    rc.groups = 1;
    rc.owners = c->owners;
    rc.seed = c->seed;
    rc.keep_bonus = c->slots / KV_CACHE_KEEP;
    rc.stale = KV_IDLE_US;
    t->tree = radix_open(&rc);

    if (t->tree == NULL || open_arrays(t, kv->c.blocks, kv->row) != 0) {
        return -1;
    }

    memset(t->twin, 255, kv->c.blocks * sizeof(uint32_t));
    memset(t->back, 255, c->slots * sizeof(uint32_t));
    for (i = 0; i < c->slots; i++) {
        t->stack[i] = c->slots - 1 - i;
    }
    t->free_n = c->slots;
    t->head = t->tail = NONE;

    return 0;
}


void
kv_tier_close(kv_t *kv)
{
    kv_tier_t *t = kv->tier;
    uint32_t i;

    if (t == NULL) {
        return;
    }

    radix_close(t->tree);
    mem_free(t->stack);
    mem_free(t->back);
    mem_free(t->twin);
    mem_free(t->next);
    mem_free(t->prev);
    mem_free(t->up);
    mem_free(t->queued);
    mem_free(t->path);
    mem_free(t->run.blocks);
    mem_free(t->run.slots);
    for (i = 0; i < KV_TIER_FETCHES; i++) {
        mem_free(t->fetches[i].blocks);
        mem_free(t->fetches[i].slots);
    }
    mem_free(t);
}


int
kv_tiers(const kv_t *kv)
{
    return kv->tier != NULL;
}


/* --- the queue and twins ------------------------------------------------ */

static void
leave(kv_tier_t *t, uint32_t i)
{
    assert(t->queued[i]);

    t->queued[i] = 0;
    if (t->prev[i] == NONE) {
        t->head = t->next[i];
    } else {
        t->next[t->prev[i]] = t->next[i];
    }
    if (t->next[i] == NONE) {
        t->tail = t->prev[i];
    } else {
        t->prev[t->next[i]] = t->prev[i];
    }
}


/* Puts block i, a node, at the queue's end, or where i stands at its head. */
static void
enter(kv_t *kv, uint32_t i, int first)
{
    kv_tier_t *t = kv->tier;
    uint32_t up = i, k;

    if (t->queued[i] || t->twin[i] != NONE) {
        return;
    }
    for (k = 1; k < KV_TIER_LEAST; k++) {
        up = radix_parent(kv->tree, up);
        if (up == NONE) {
            return;
        }
    }

    t->queued[i] = 1;
    t->up[i] = radix_parent(kv->tree, i);
    t->prev[i] = first ? NONE : t->tail;
    t->next[i] = first ? t->head : NONE;
    *(t->prev[i] == NONE ? &t->head : &t->next[t->prev[i]]) = i;
    *(t->next[i] == NONE ? &t->tail : &t->prev[t->next[i]]) = i;

    /* a tip stands for all before it */
    if (t->up[i] != NONE && t->queued[t->up[i]]) {
        leave(t, t->up[i]);
    }
}


static void
pair(kv_tier_t *t, uint32_t block, uint32_t slot)
{
    /* of each prefix there is one node, on either side */
    assert(t->twin[block] == slot || t->twin[block] == NONE);
    assert(t->back[slot] == block || t->back[slot] == NONE);

    t->twin[block] = slot;
    t->back[slot] = block;
    if (t->queued[block]) {
        leave(t, block);
    }
}


void
kv_tier_gone(kv_t *kv, uint32_t block)
{
    kv_tier_t *t = kv->tier;
    uint32_t slot = t->twin[block];

    if (slot != NONE) {
        assert(t->back[slot] == block && !t->queued[block]);
        t->back[slot] = NONE;
        t->twin[block] = NONE;
        return;
    }

    if (t->queued[block]) {
        t->st.lost++;
        leave(t, block);
        if (t->up[block] != NONE) {
            enter(kv, t->up[block], 1);
        }
    }
}


void
kv_tier_idle(kv_t *kv, uint32_t tip, int again)
{
    if (again || !kv->tier->c.again) {
        enter(kv, tip, 0);
    }
}


void
kv_tier_save(kv_t *kv, uint32_t seq)
{
    if (kv->tier != NULL && *kv_depth(kv, seq) > 0) {
        enter(kv, kv_nodes(kv, seq)[*kv_depth(kv, seq) - 1], 0);
    }
}


/* --- out ---------------------------------------------------------------- */

/* A free slot, if need be that of the block used least lately; NONE: all are
 * used. */
static uint32_t
slot_take(kv_t *kv)
{
    kv_tier_t *t = kv->tier;
    uint32_t out[RADIX_GROUPS_MAX];

    if (t->free_n > 0) {
        return t->stack[--t->free_n];
    }
    if (!radix_evict(t->tree, 0, RADIX_NONE, 1, out)) {
        return NONE;
    }
    if (t->back[out[0]] != NONE) {
        t->twin[t->back[out[0]]] = NONE;
        t->back[out[0]] = NONE;
    }

    return out[0];
}


static void
slot_free(kv_tier_t *t, uint32_t slot)
{
    assert(t->free_n < t->c.slots && t->back[slot] == NONE);

    t->stack[t->free_n++] = slot;
}


/*
 * What is before block i, and i, and has no twin: path gets it, the last first.
 * How much that is.  Blocks that are here already, computed anew since they
 * were evicted, are paired on the way.
 */
static uint32_t
lacking(kv_t *kv, uint32_t i)
{
    kv_tier_t *t = kv->tier;
    uint32_t n = 0, up, slot;
    radix_new_t w;

    for (; i != NONE && t->twin[i] == NONE; i = radix_parent(kv->tree, i)) {
        t->path[n++] = i;
    }

    for (up = i == NONE ? NONE : t->twin[i]; n > 0; n--, up = slot) {
        radix_of(kv->tree, t->path[n - 1], &w);
        slot = radix_child(t->tree, up, w.space, w.tokens);
        if (slot == NONE) {
            break;
        }
        pair(t, t->path[n - 1], slot);
    }

    return n;
}


/*
 * How many of n blocks, path's last ones, may be kept from those who need room.
 * With a block all before it are kept, though they could not go before it.
 */
static uint32_t
may_keep(const kv_t *kv, uint32_t n, uint32_t most)
{
    const uint32_t *path = kv->tier->path;
    uint32_t k = n < most ? n : most, idle = 0, over = 0, i;
    uint32_t can = kv_avail(kv) - kv_avail(kv) / KV_TIER_SPARE;

    for (i = path[n - k]; i != NONE && radix_refs(kv->tree, i, 0) == 0;
         i = radix_parent(kv->tree, i)) {
        idle++;
    }
    over = idle > can ? idle - can : 0;

    return k > over ? k - over : 0;
}


static uint32_t
depth_of(const kv_t *kv, uint32_t i)
{
    uint32_t n = 0;

    for (; i != NONE; i = radix_parent(kv->tree, i)) {
        n++;
    }

    return n;
}


/* Starts the run of path's last ones, n of which lack; how long it is. */
static uint32_t
run_begin(kv_t *kv, uint32_t n, uint32_t most)
{
    kv_tier_t *t = kv->tier;
    run_t *r = &t->run;
    uint32_t k = may_keep(kv, n, most), up = t->path[n - 1], slot;

    up = radix_parent(kv->tree, up);
    r->parent = up == NONE ? NONE : t->twin[up];
    assert(up == NONE || r->parent != NONE);
    radix_hold(t->tree, r->parent);

    for (r->n = 0; r->n < k; r->n++) {
        slot = slot_take(kv);
        if (slot == NONE) {
            break;
        }
        r->blocks[r->n] = t->path[n - 1 - r->n];
        r->slots[r->n] = slot;
    }

    if (r->n == 0) {
        radix_unhold(t->tree, r->parent);
        return 0;
    }
    r->from = t->head;
    r->tip = r->blocks[r->n - 1];
    r->depth = depth_of(kv, r->tip);
    radix_hold(kv->tree, r->tip);

    return r->n;
}


static int
next_out(kv_t *kv, uint32_t most, kv_tier_copy_t *c)
{
    kv_tier_t *t = kv->tier;
    uint32_t n = 0, i;

    assert(t->run.n == 0);

    while ((i = t->head) != NONE && (n = lacking(kv, i)) == 0) {
        if (t->queued[i]) { /* else it has left when it was paired */
            leave(t, i);
        }
    }
    if (i == NONE || run_begin(kv, n, most) == 0) {
        return 0;
    }

    memset(c, 0, sizeof(*c));
    c->job = KV_TIER_FETCHES;
    c->n = t->run.n;
    c->blocks = t->run.blocks;
    c->slots = t->run.slots;

    return 1;
}


/* The run has arrived in its slots: they enter the tree. */
static void
run_arrive(kv_t *kv)
{
    kv_tier_t *t = kv->tier;
    run_t *r = &t->run;
    uint32_t up = r->parent, i, node;
    radix_new_t w;
    uint8_t taken;

    for (i = 0; i < r->n; i++, up = node) {
        radix_of(kv->tree, r->blocks[i], &w);
        w.parent = up;
        w.now = kv->clock;
        w.blocks[0] = &r->slots[i];
        (void) radix_insert(t->tree, &w, &node, &taken);
        assert(taken && node == r->slots[i]); /* nobody else brings any */
        pair(t, r->blocks[i], node);
    }
    radix_release(t->tree, up, kv->clock);
    t->st.out += r->n;
}


static void
run_end(kv_t *kv, int ok)
{
    kv_tier_t *t = kv->tier;
    run_t *r = &t->run;
    uint32_t i;

    assert(r->n > 0);

    if (ok) {
        run_arrive(kv);
    } else {
        for (i = r->n; i-- > 0;) {
            slot_free(t, r->slots[i]);
        }
        radix_unhold(t->tree, r->parent);
        t->st.failed++;

        /* whoever wants it again may try again */
        if (t->queued[r->from]) {
            leave(t, r->from);
        }
    }

    radix_unhold(kv->tree, r->tip);
    r->n = 0;
}


/* --- in ----------------------------------------------------------------- */

static fetch_t *
fetch_unused(kv_tier_t *t)
{
    uint32_t i;

    for (i = 0; i < KV_TIER_FETCHES; i++) {
        if (t->fetches[i].ticket == 0) {
            return &t->fetches[i];
        }
    }

    return NULL;
}


/* The fetch that begins with this slot; 0: there is none. */
static uint64_t
fetch_of(const kv_tier_t *t, uint32_t slot)
{
    uint32_t i;

    for (i = 0; i < KV_TIER_FETCHES; i++) {
        if (t->fetches[i].ticket != 0 && t->fetches[i].slots[0] == slot) {
            return t->fetches[i].ticket;
        }
    }

    return 0;
}


void
kv_tier_time(kv_t *kv, uint64_t now_us)
{
    if (kv->tier != NULL) {
        radix_time(kv->tier->tree, now_us);
    }
}


void
kv_tier_stale(kv_t *kv, uint64_t idle_us)
{
    if (kv->tier != NULL) {
        radix_rules(kv->tier->tree, idle_us, 0);
    }
}


uint64_t
kv_tier_fetch(kv_t *kv, uint32_t seq, const kv_who_t *who,
    const uint32_t *tokens, uint32_t n, uint32_t spare)
{
    kv_tier_t *t = kv->tier;
    uint32_t have, got, room, i;
    uint64_t ticket;
    fetch_t *f;

    if (t == NULL) {
        return 0;
    }

    have = *kv_depth(kv, seq);
    n /= kv->c.block_tokens;
    room = kv_avail(kv) > spare ? kv_avail(kv) - spare : 0;
    if (n > have) {
        room = n - have < room ? n - have : room;
        n = have + kv_room(kv, seq, room);
    }
    if (n < have + KV_TIER_LEAST
        || radix_peek(t->tree, who->space, tokens, n) < have + KV_TIER_LEAST) {
        return 0;
    }

    got = radix_match(t->tree, who->space, who->owner, tokens, n, t->path);
    ticket = fetch_of(t, t->path[have]);
    f = fetch_unused(t);
    if (ticket != 0 || f == NULL) {
        radix_unhold(t->tree, t->path[got - 1]);
        return ticket;
    }

    f->ticket = ++t->tickets;
    f->who = *who;
    f->parent = have == 0 ? NONE : kv_nodes(kv, seq)[have - 1];
    f->depth = have;
    f->n = f->good = got - have;
    f->begun = f->ended = 0;
    radix_hold(kv->tree, f->parent);
    memcpy(f->slots, t->path + have, f->n * sizeof(uint32_t));

    kv_cache_room(kv, seq, f->n);
    for (i = 0; i < f->n; i++) {
        f->blocks[i] = kv->stack[kv->counts[KV_FREE] - 1];
        kv_move(kv, f->blocks[i], KV_FREE, KV_TRANSIT, KV_NONE);
    }

    return f->ticket;
}


int
kv_tier_coming(const kv_t *kv, uint64_t ticket)
{
    uint32_t i;

    for (i = 0; i < KV_TIER_FETCHES && kv->tier != NULL; i++) {
        if (ticket != 0 && kv->tier->fetches[i].ticket == ticket) {
            return 1;
        }
    }

    return 0;
}


/* The oldest first. */
static int
next_in(kv_tier_t *t, uint32_t most, kv_tier_copy_t *c)
{
    fetch_t *f, *first = NULL;
    uint32_t i, job = 0;

    for (i = 0; i < KV_TIER_FETCHES; i++) {
        f = &t->fetches[i];
        if (f->ticket != 0 && f->begun < f->n
            && (first == NULL || f->ticket < first->ticket)) {
            first = f;
            job = i;
        }
    }
    if (first == NULL) {
        return 0;
    }

    c->job = job;
    c->in = 1;
    c->at = first->begun;
    c->n = first->n - first->begun < most ? first->n - first->begun : most;
    c->blocks = first->blocks + first->begun;
    c->slots = first->slots + first->begun;
    first->begun += c->n;

    return 1;
}


/* All has arrived that will: the good part of it is cached, the rest freed. */
static void
fetch_end(kv_t *kv, fetch_t *f)
{
    kv_tier_t *t = kv->tier;
    uint32_t up = f->parent, last = f->slots[f->n - 1], node, i;
    radix_new_t w;
    uint8_t taken;

    for (i = 0; i < f->good; i++, up = node) {
        radix_of(t->tree, f->slots[i], &w);
        w.parent = up;
        w.owner = f->who.owner;
        w.weight = f->who.weight;
        w.keep = f->who.keep;
        w.now = ++kv->clock;
        w.blocks[0] = &f->blocks[i];
        (void) radix_insert(kv->tree, &w, &node, &taken);
        if (taken) {
            kv_move(kv, f->blocks[i], KV_TRANSIT, KV_CACHED, KV_NONE);
        } else { /* somebody has computed it meanwhile */
            kv_put_free(kv, f->blocks[i], KV_TRANSIT);
        }
        pair(t, node, f->slots[i]);
    }
    for (; i < f->n; i++) {
        kv_put_free(kv, f->blocks[i], KV_TRANSIT);
    }

    radix_release(kv->tree, up, kv->clock);
    radix_release(t->tree, last, kv->clock);
    t->st.in += f->good;
    f->ticket = 0;
}


/* --- copies ------------------------------------------------------------- */

int
kv_tier_next(kv_t *kv, uint32_t most, kv_tier_copy_t *c)
{
    if (kv->tier == NULL || most == 0) {
        return 0;
    }

    return next_in(kv->tier, most, c)
           || (kv->tier->run.n == 0 && next_out(kv, most, c));
}


void
kv_tier_done(kv_t *kv, const kv_tier_copy_t *c, int ok)
{
    kv_tier_t *t = kv->tier;
    fetch_t *f;

    assert(t != NULL && c->n > 0 && c->job <= KV_TIER_FETCHES);

    if (!c->in) {
        assert(c->job == KV_TIER_FETCHES && c->n == t->run.n);
        run_end(kv, ok);
        return;
    }

    f = &t->fetches[c->job];
    assert(f->ticket != 0 && f->ended + c->n <= f->begun);
    assert(c->at + c->n <= f->begun);

    f->ended += c->n;
    if (!ok) {
        t->st.failed++;
        f->good = c->at < f->good ? c->at : f->good;
    }

    /* behind one that failed nothing more is begun */
    if (f->good < f->begun && f->begun < f->n) {
        f->ended += f->n - f->begun;
        f->begun = f->n;
    }
    if (f->ended == f->n) {
        fetch_end(kv, f);
    }
}


/* --- looking in --------------------------------------------------------- */

uint32_t
kv_tier_keeps(const kv_t *kv)
{
    uint32_t i, n = kv->counts[KV_TRANSIT];
    const kv_tier_t *t = kv->tier;

    if (t == NULL) {
        return 0;
    }

    n += t->run.n > 0 ? t->run.depth : 0;
    for (i = 0; i < KV_TIER_FETCHES; i++) {
        n += t->fetches[i].ticket != 0 ? t->fetches[i].depth : 0;
    }

    return n;
}


void
kv_tier_stats(const kv_t *kv, kv_tier_stats_t *st)
{
    const kv_tier_t *t = kv->tier;
    radix_stats_t rs;

    memset(st, 0, sizeof(*st));
    if (t == NULL) {
        return;
    }

    radix_stats(t->tree, &rs);
    *st = t->st;
    st->slots = t->c.slots;
    st->used = (uint32_t) rs.blocks[0];
    st->transit = t->run.n;
}


void
kv_tier_check(const kv_t *kv)
{
    const kv_tier_t *t = kv->tier;
    radix_stats_t rs;
    uint32_t i, n = 0;

    radix_check(t->tree);
    radix_stats(t->tree, &rs);
    assert(t->free_n + rs.blocks[0] + t->run.n == t->c.slots);

    for (i = 0; i < KV_TIER_FETCHES; i++) {
        n += t->fetches[i].ticket != 0 ? t->fetches[i].n : 0;
    }
    assert(n == kv->counts[KV_TRANSIT]);
    assert((t->head == NONE) == (t->tail == NONE));
}


/* Twins and the queue are what they should be. */
static void
check_pairs(const kv_t *kv)
{
    const kv_tier_t *t = kv->tier;
    uint32_t i, queued = 0, n = 0;

    for (i = 0; i < kv->c.blocks; i++) {
        queued += t->queued[i];
        if (t->twin[i] != NONE) {
            assert(t->back[t->twin[i]] == i && !t->queued[i]);
            assert(radix_live(kv->tree, i) && radix_live(t->tree, t->twin[i]));
        }
    }
    for (i = 0; i < t->c.slots; i++) {
        assert(t->back[i] == NONE || t->twin[t->back[i]] == i);
    }
    for (i = t->head; i != NONE; i = t->next[i], n++) {
        assert(t->queued[i] && radix_live(kv->tree, i));
        assert(t->up[i] == radix_parent(kv->tree, i));
        assert(t->next[i] == NONE ? t->tail == i : t->prev[t->next[i]] == i);
    }
    assert(n == queued);
}


uint64_t
kv_tier_check_deep(const kv_t *kv)
{
    const kv_tier_t *t = kv->tier;
    const fetch_t *f;
    uint64_t refs = t->run.n > 0 ? t->run.depth : 0, used = 0;
    uint32_t i, k;

    check_pairs(kv);
    radix_check_deep(t->tree);

    for (i = t->run.n > 0 ? t->run.parent : NONE; i != NONE;
         i = radix_parent(t->tree, i)) {
        used++;
    }
    for (k = 0; k < KV_TIER_FETCHES; k++) {
        f = &t->fetches[k];
        if (f->ticket != 0) {
            refs += f->depth;
            used += f->depth + f->n;
        }
    }
    for (i = 0; i < t->c.slots; i++) {
        used -= radix_live(t->tree, i) ? radix_refs(t->tree, i, 0) : 0;
    }
    assert(used == 0);

    return refs;
}
