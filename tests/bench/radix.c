/*
 * What the prefix cache costs: bytes per block, and the time to match and
 * insert a prompt of 8,192 tokens in blocks of 16, in trees of 10,000, 100,000
 * and 1,000,000 blocks, which shows how it grows.
 *
 *   hit      a prompt is matched that is all there, and released
 *   new      a prompt of which nothing is there is matched and inserted
 *   half     one of which half is there: both
 *   evict    room is made for it, block by block, by a full tree
 *
 * "hot" prompts are used again and again; "cold" ones come from anywhere in
 * the tree, so that what is read of it is in no cache.  Blocks are handed out
 * in no order, as in a pool that has been in use for a while.  Others on the
 * machine disturb: "alone" leaves out what was measured while the thread was
 * switched out.  The target is 20 us for match and insertion of a hot prompt:
 * "half" in the tables.
 */
#include "radix.h"
#include "mem.h"
#include "times.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BT = 16, BLOCKS = 512, TENANTS = 50, ROUNDS = 2000 };

typedef struct {
    radix_t *r;
    uint32_t nodes;
    uint32_t *free; /* [nodes] a stack */
    uint32_t free_n;
    uint64_t now;
    uint64_t random;
    uint32_t prompts; /* in the tree */
    uint32_t tokens[BLOCKS * BT];
    uint32_t path[BLOCKS];
    uint8_t taken[BLOCKS];
} bench_t;

static uint64_t
rnd(bench_t *b)
{
    uint64_t z = b->random += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;

    return z ^ z >> 31;
}


/* Makes prompt number `which`; whose it is. */
static uint32_t
prompt(bench_t *b, uint32_t which)
{
    uint64_t z = which;
    uint32_t i;

    for (i = 0; i < BLOCKS * BT; i++) {
        z = z * 6364136223846793005ull + 1442695040888963407ull;
        b->tokens[i] = (uint32_t) (z >> 45);
    }

    return which % TENANTS;
}


/* Inserts blocks [from, BLOCKS) of the prompt. */
static void
insert(bench_t *b, uint32_t tenant, uint32_t from)
{
    radix_new_t w;
    uint32_t i;

    memset(&w, 0, sizeof(w));
    w.parent = from == 0 ? RADIX_NONE : b->path[from - 1];
    w.space = w.owner = tenant;
    w.weight = 1;
    w.now = b->now;
    w.n = BLOCKS - from;
    w.tokens = b->tokens + from * BT;
    b->free_n -= w.n;
    w.blocks[0] = b->free + b->free_n;
    (void) radix_insert(b->r, &w, b->path + from, b->taken);
    for (i = 0; i < w.n; i++) {
        if (!b->taken[i]) {
            abort();
        }
    }
}


static void
evict(bench_t *b, uint32_t n)
{
    uint32_t blocks[RADIX_GROUPS_MAX];

    while (n-- > 0) {
        if (!radix_evict(b->r, 0, RADIX_NONE, 1, blocks)) {
            abort();
        }
        b->free[b->free_n++] = blocks[0];
    }
}


/* And forgets them. */
static void
print(const char *name, times_t *t)
{
    double p50 = times_quantile(t->all, t->n, 500);

    printf("  %-12s %8.1f %8.1f %8.1f %8.1f %8u\n", name, p50,
        times_quantile(t->all, t->n, 990),
        times_quantile(t->alone, t->alone_n, 990), p50 * 1000 / BLOCKS,
        t->n - t->alone_n);
    t->n = t->alone_n = 0;
}


static void
open_full(bench_t *b, uint32_t nodes)
{
    radix_cfg_t c = {.nodes = nodes, .block_tokens = BT, .groups = 1};
    uint32_t i, k, t, tenant;

    memset(b, 0, sizeof(*b));
    c.owners = 1024;
    c.seed = 12345;
    b->nodes = nodes;
    b->r = radix_open(&c);
    b->free = malloc(nodes * sizeof(uint32_t));
    if (b->r == NULL || b->free == NULL) {
        abort();
    }
    for (i = 0; i < nodes; i++) {
        b->free[i] = i;
    }
    for (i = nodes; i-- > 1;) {
        k = (uint32_t) (rnd(b) % (i + 1));
        t = b->free[i];
        b->free[i] = b->free[k];
        b->free[k] = t;
    }
    b->free_n = nodes;

    while (b->free_n >= BLOCKS) {
        b->now++;
        tenant = prompt(b, b->prompts++);
        insert(b, tenant, 0);
        radix_release(b->r, b->path[BLOCKS - 1], b->now);
    }

    printf("%u blocks of %d tokens: %.1f bytes a block, with tokens\n", nodes,
        BT, (double) radix_bytes(&c) / nodes);
    printf("  %-12s %8s %8s %8s %8s %8s\n", "us", "p50", "p99", "alone",
        "ns/block", "switched");
}


/* Matches a prompt that is there; from anywhere, or one of a few. */
static void
run_hit(bench_t *b, const char *name, uint32_t among, times_t *t)
{
    uint32_t i, n, tenant;
    span_t span;

    for (i = 0; i < ROUNDS; i++) {
        b->now++;
        tenant = prompt(b, b->prompts - 1 - (uint32_t) (rnd(b) % among));
        span = span_begin();
        n = radix_match(b->r, tenant, tenant, b->tokens, BLOCKS, b->path);
        if (n != BLOCKS) {
            abort();
        }
        radix_release(b->r, b->path[n - 1], b->now);
        times_span(t, &span);
    }
    print(name, t);
}


/* Keeps the first `keep` blocks of a prompt and makes a new one of it. */
static void
run_new(
    bench_t *b, const char *name, uint32_t keep, times_t *t, times_t *evictions)
{
    uint32_t i, k, n, tenant;
    span_t span;

    for (i = 0; i < ROUNDS; i++) {
        b->now++;
        span = span_begin();
        evict(b, BLOCKS - keep);
        times_span(evictions, &span);

        tenant = prompt(b, b->prompts - 1);
        for (k = keep * BT; k < BLOCKS * BT; k++) {
            b->tokens[k] = (uint32_t) (rnd(b) >> 44);
        }
        span = span_begin();
        n = radix_match(b->r, tenant, tenant, b->tokens, BLOCKS - 1, b->path);
        if (n != keep) {
            abort();
        }
        insert(b, tenant, n);
        times_span(t, &span);
        radix_release(b->r, b->path[BLOCKS - 1], b->now);
    }
    print(name, t);
}


int
main(void)
{
    static const uint32_t sizes[] = {10000, 100000, 1000000};
    times_t t, evictions;
    bench_t *b = malloc(sizeof(*b));
    size_t i;

    if (b == NULL) {
        return 1;
    }
    times_pin();
    times_open(&t, ROUNDS);
    times_open(&evictions, ROUNDS);

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        open_full(b, sizes[i]);
        run_hit(b, "hit, cold", b->prompts, &t);
        run_hit(b, "hit, hot", 4, &t);
        run_new(b, "half, hot", BLOCKS / 2, &t, &evictions);
        evictions.n = evictions.alone_n = 0;
        run_new(b, "new", 0, &t, &evictions);
        print("evict", &evictions);
        radix_close(b->r);
        free(b->free);
    }
    times_close(&t);
    times_close(&evictions);
    free(b);

    return 0;
}
