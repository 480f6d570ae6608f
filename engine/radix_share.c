/*
 * What an owner keeps of the prefix cache whatever others need.
 *
 * DESIGN.  Evicting who has most for its weight (radix_order.c) keeps shares
 * among what lies idle.  It does not keep them against who runs: one whose
 * blocks are all in use has none to lose, so what it needs more would come
 * from those who sent nothing lately, down to nothing.  So of each owner's
 * share a part is kept, floor percent:
 *
 *      floor(o) = floor % of all blocks * weight(o) / weights of all
 *
 *      owner 1   [ i i i i u u | u u u ]     above its floor: two idle ones,
 *      owner 2   [ i i i ]     |             nothing to spare, as it is below
 *                              floor
 *
 * radix_spare() says how much there is for an owner beyond that, and who asks
 * is to do with it (sched_share.c).  Who takes more all the same, because it
 * must, is given its own first and then anybody's.  Owners that have less than
 * their floor leave the rest to all.
 *
 * What is everyone's counts for nobody, and is no part of the blocks that are
 * shared out.  An owner that is asking has a share, also when it has no block
 * yet, or had none for long.
 *
 * COST.  The owners are looked at one by one, those who have most first, until
 * there is enough: mostly the first will do, and all are looked at when there
 * is not enough.
 *
 * Owned and called by the thread that has the tree.
 */
#include "radix_impl.h"

__extension__ typedef unsigned __int128 wide_t;


/* The weights that the blocks are shared out by, with those of an owner that
 * asks; own is its index or NONE. */
static uint64_t
weights_for(const radix_t *r, uint32_t own, uint32_t weight)
{
    int there = own != NONE && !r->owners[own].stale;

    return r->weights + (there ? 0 : weight);
}


/* What nobody else may take from owner index o. */
static uint64_t
floor_of(const radix_t *r, uint32_t o, uint64_t weights)
{
    const radix_owner_t *p = &r->owners[o];
    uint64_t all = (r->c.nodes - r->shared) * r->c.floor;

    if (p->stale || weights == 0) {
        return 0;
    }

    /* nearly always the product fits, and a wide division costs ten others */
    if (p->weight <= UINT64_MAX / ((1ull << 30) * 100)) {
        return all * p->weight / (weights * 100);
    }

    return (uint64_t) ((wide_t) all * p->weight / weights / 100);
}


/* May owner index o lose a block to others? */
static int
above(const radix_t *r, uint32_t o, uint64_t weights)
{
    return r->owners[o].total > floor_of(r, o, weights);
}


/* Idle blocks of owner index o that are above its floor. */
static uint64_t
spare_of(const radix_t *r, uint32_t o, uint64_t weights)
{
    uint64_t kept = floor_of(r, o, weights), total = r->owners[o].total;
    uint64_t idle = r->owners[o].idle;

    return total <= kept ? 0 : total - kept < idle ? total - kept : idle;
}


/* Has it been met in the order of an earlier group? */
static int
met(const radix_t *r, uint32_t o, uint32_t g)
{
    while (g-- > 0) {
        if (r->owners[o].at[g] != NONE) {
            return 1;
        }
    }

    return 0;
}


uint64_t
radix_spare(const radix_t *r, uint32_t owner, uint32_t weight, uint64_t want)
{
    uint32_t own = radix_order_find(r, owner), g, i, o;
    uint64_t weights = weights_for(r, own, weight);
    uint64_t sum = own == NONE ? 0 : r->owners[own].idle;

    assert(weight > 0);

    for (g = 0; g < r->c.groups; g++) {
        for (i = 0; i < r->order_n[g] && sum < want; i++) {
            o = r->order[g][i].owner;
            if (o != own && !met(r, o, g)) {
                sum += spare_of(r, o, weights);
            }
        }
    }

    return sum < want ? sum : want;
}


uint64_t
radix_most(const radix_t *r, uint32_t owner, uint32_t weight)
{
    uint32_t own = radix_order_find(r, owner), o;
    uint64_t weights = weights_for(r, own, weight), kept = 0, floor, total;

    for (o = r->oldest; o != NONE; o = r->owners[o].newer) {
        floor = floor_of(r, o, weights);
        total = r->owners[o].total;
        kept += o == own ? 0 : total < floor ? total : floor;
    }
    assert(kept <= r->c.nodes);

    return r->c.nodes - kept;
}


uint64_t
radix_floor(const radix_t *r, uint32_t owner)
{
    uint32_t own = radix_order_find(r, owner);

    return own == NONE ? 0 : floor_of(r, own, r->weights);
}


/* The part of owner index o in group g that goes first; NONE: it has none. */
static uint32_t
first_of(const radix_t *r, uint32_t o, uint32_t g)
{
    return o == NONE ? NONE : r->owners[o].heap[g];
}


/*
 * Of the groups' first parts the one that was used least lately; of equals the
 * first, for a node without a window's blocks is of no use.  From whom: rich,
 * of those who are above their floors; own; any.
 */
enum { FROM_RICH, FROM_OWN, FROM_ANY, FROM_N };

static uint32_t
pick(const radix_t *r, int from, uint32_t own, uint64_t weights, uint32_t *g)
{
    uint32_t k, i, found = NONE, only = *g;
    uint64_t least = 0;

    for (k = 0; k < r->c.groups; k++) {
        if (only != NONE && k != only) {
            continue;
        }
        i = from == FROM_OWN ? first_of(r, own, k) : radix_order_next(r, k);
        if (i == NONE
            || (from == FROM_RICH
                && !above(r, radix_node(r, i)->owner, weights))) {
            continue;
        }
        if (found == NONE || radix_link(r, i, k)->key < least) {
            least = radix_link(r, i, k)->key;
            found = i;
            *g = k;
        }
    }

    return found;
}


uint32_t
radix_share_next(const radix_t *r, uint32_t owner, uint32_t weight, uint32_t *g)
{
    uint32_t own = radix_order_find(r, owner), i = NONE;
    uint64_t weights = weights_for(r, own, weight);
    int from;

    for (from = FROM_RICH; from < FROM_N && i == NONE; from++) {
        i = pick(r, from, own, weights, g);
    }

    return i;
}


void
radix_rules(radix_t *r, uint64_t stale, uint32_t floor)
{
    assert(floor <= 100);

    r->c.stale = stale;
    r->c.floor = floor;
}
