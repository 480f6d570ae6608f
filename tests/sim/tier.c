/*
 * The second tier in a run: see tier.h.
 *
 * Memory is a word for each block: a hash of all tokens up to its end.  What a
 * copy writes is nonsense from its begin until it has ended well, and what it
 * reads must be the same at both.
 */
#include "tier.h"

#include <assert.h>
#include <stdlib.h>

#define WAYS     16
#define NONSENSE 0x6e6f6e73656e7365ull

typedef struct {
    kv_tier_copy_t c;
    uint64_t *reads; /* [turn] owned */
    uint32_t late;
} way_t;

struct tier_s {
    tier_cfg_t c;
    kv_t *kv;
    uint64_t *pool, *host; /* owned */
    way_t ways[WAYS];
    uint32_t n;
    rnd_t rnd;
};


tier_t *
tier_open(const tier_cfg_t *c, kv_t *kv, uint32_t owners, uint64_t seed)
{
    kv_tier_cfg_t kc = {c->slots, owners, seed, c->again};
    tier_t *t = calloc(1, sizeof(*t));
    uint32_t i;
    int rc;

    assert(t != NULL && c->slots > 0 && c->turn > 0);
    rc = kv_tier(kv, &kc);
    assert(rc == 0 && kv_tiers(kv));
    (void) rc;
    t->c = *c;
    t->kv = kv;
    t->pool = calloc(kv_total(kv), sizeof(uint64_t));
    t->host = calloc(c->slots, sizeof(uint64_t));
    assert(t->pool != NULL && t->host != NULL);
    for (i = 0; i < WAYS; i++) {
        t->ways[i].reads = calloc(c->turn, sizeof(uint64_t));
        assert(t->ways[i].reads != NULL);
    }
    rnd_seed(&t->rnd, seed);

    return t;
}


static uint64_t *
source(tier_t *t, const kv_tier_copy_t *c, uint32_t i)
{
    return c->in ? &t->host[c->slots[i]] : &t->pool[c->blocks[i]];
}


static uint64_t *
target(tier_t *t, const kv_tier_copy_t *c, uint32_t i)
{
    return c->in ? &t->pool[c->blocks[i]] : &t->host[c->slots[i]];
}


/* Copy i has ended, well or not. */
static void
end(tier_t *t, uint32_t i, int ok)
{
    way_t y = t->ways[i];
    uint32_t k;

    for (k = 0; k < y.c.n; k++) {
        assert(*source(t, &y.c, k) == y.reads[k]);
        assert(*target(t, &y.c, k) == NONSENSE);
        if (ok) {
            *target(t, &y.c, k) = y.reads[k];
        }
    }
    t->n--;
    t->ways[i] = t->ways[t->n];
    t->ways[t->n] = y; /* whose reads stay in use */
    kv_tier_done(t->kv, &y.c, ok);
}


void
tier_close(tier_t *t)
{
    uint32_t i;

    if (t == NULL) {
        return;
    }

    for (i = 0; i < WAYS; i++) {
        free(t->ways[i].reads);
    }
    free(t->pool);
    free(t->host);
    free(t);
}


void
tier_turn(tier_t *t)
{
    uint32_t i = 0, k, left;
    way_t *y;

    while (i < t->n) {
        if (t->ways[i].late-- > 0) {
            i++;
        } else {
            end(t, i, t->c.bad == 0 || rnd_below(&t->rnd, t->c.bad) != 0);
        }
    }

    for (left = t->c.turn; left > 0 && t->n < WAYS; left -= y->c.n) {
        y = &t->ways[t->n];
        if (!kv_tier_next(t->kv, left, &y->c)) {
            break;
        }
        assert(y->c.n > 0 && y->c.n <= left);
        for (k = 0; k < y->c.n; k++) {
            y->reads[k] = *source(t, &y->c, k);
            assert(y->reads[k] != NONSENSE);
            *target(t, &y->c, k) = NONSENSE;
        }
        y->late = t->c.late > 0 ? rnd_below(&t->rnd, t->c.late + 1) : 0;
        t->n++;
    }
}


int
tier_busy(const tier_t *t)
{
    return t != NULL && t->n > 0;
}


void
tier_row(tier_t *t, const batch_row_t *row, const uint32_t *tokens, uint32_t n)
{
    const batch_blocks_t *b = &row->blocks[0];
    uint32_t bt = kv_block_tokens(t->kv), i, k;
    uint64_t h = 5;

    assert(b->first == 0 && (uint64_t) b->n * bt >= row->kv_len);

    for (i = 0; i < row->kv_len / bt; i++) {
        for (k = i * bt; k < (i + 1) * bt; k++) {
            h = (h ^ (k < n ? tokens[k] : 0)) * 0x9e3779b97f4a7c15ull;
            h ^= h >> 29;
        }
        assert((i + 1) * bt > row->q_start || t->pool[b->ids[i]] == h);
        t->pool[b->ids[i]] = h;
    }
    if (row->kv_len % bt != 0) {
        t->pool[b->ids[i]] = 1; /* not full */
    }
}
