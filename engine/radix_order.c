/*
 * Which block of the prefix cache goes next.
 *
 * DESIGN.  Two heaps, one inside the other.  The owner goes first that has
 * most blocks for its weight, among those with anything to evict; of that
 * owner's parts the one that was used least lately, a little later for each
 * step of keep.
 *
 *      order[g]     owners, by blocks / weight        array heap
 *        └ heap[g]  its loose parts, by (key, node)   leftist heap
 *
 * What an owner's place is by lies in the order itself, as a number with a
 * fixed point: to move one touches the others' places but not what they have.
 *
 * So no owner who has less than its weighted share, of all that is cached,
 * loses a block while one who has more could lose one: a flood of unique
 * prompts evicts itself.  Who has nothing to lose because all of it is in use
 * is another matter: see radix_share.c.  An owner who was not seen for c.stale
 * goes before all others: a share is for those who use it.  How long that is
 * is told by a clock of the caller's that nobody can make go faster.
 *
 * A leftist heap has no place for the nth of its members, so the heaps of all
 * owners fit in the parts themselves, whoever owns how many.  A merge walks
 * down two right spines, which are no longer than log2(n + 1).  Taking a part
 * out merges its two children into its place and then mends ranks upwards;
 * each rank that changes is one higher than the one below, so there are no
 * more than log2(n + 1) of these either.  No operation here takes longer than
 * O(log), whatever came before.
 *
 * INVARIANTS.  A part is in its owner's heap exactly while it is loose; an
 * owner is in order[g] exactly while its heap of g is not empty; it is live
 * while it has blocks; it is in the list of those not stale while it is live
 * and not stale, by the time of its last use.
 *
 * Owned and called by the thread that has the tree.
 */
#include "radix_impl.h"

#include <string.h>


/* --- leftist heap ------------------------------------------------------- */

/* The links of one group, which lie in the nodes or in further parts. */
typedef struct {
    uint8_t *base;
    size_t stride;
} heap_t;


static heap_t
heap_of(const radix_t *r, uint32_t g)
{
    heap_t h;

    h.base = g == 0 ? r->nodes + offsetof(radix_node_t, link)
                    : (uint8_t *) r->further[g];
    h.stride = g == 0 ? r->stride : sizeof(radix_part_t);

    return h;
}


static inline radix_link_t *
at(heap_t h, uint32_t i)
{
    return (radix_link_t *) (void *) (h.base + i * h.stride);
}


static int
sooner(heap_t h, uint32_t a, uint32_t b)
{
    return at(h, a)->key < at(h, b)->key
           || (at(h, a)->key == at(h, b)->key && a < b);
}


static uint32_t
rank(heap_t h, uint32_t i)
{
    return i == NONE ? 0 : at(h, i)->rank;
}


/* Puts the higher rank to the left; sets i's rank from its right. */
static void
lean(heap_t h, uint32_t i)
{
    uint32_t left = at(h, i)->left;

    if (rank(h, left) < rank(h, at(h, i)->right)) {
        at(h, i)->left = at(h, i)->right;
        at(h, i)->right = left;
    }
    at(h, i)->rank = rank(h, at(h, i)->right) + 1;
}


/* One heap of two; its root's up is left to the caller. */
static uint32_t
merge(heap_t h, uint32_t a, uint32_t b)
{
    uint32_t low, high, right;

    if (a == NONE || b == NONE) {
        return a == NONE ? b : a;
    }

    low = sooner(h, a, b) ? a : b;
    high = low == a ? b : a;

    right = merge(h, at(h, low)->right, high);
    at(h, low)->right = right;
    at(h, right)->up = low;
    lean(h, low);

    return low;
}


/* Takes i out of the heap with that root; returns the new root. */
static uint32_t
cut(heap_t h, uint32_t root, uint32_t i)
{
    uint32_t up = at(h, i)->up, sub, old;

    sub = merge(h, at(h, i)->left, at(h, i)->right);
    at(h, i)->rank = 0;

    if (sub != NONE) {
        at(h, sub)->up = up;
    }
    if (up == NONE) {
        assert(root == i);
        return sub;
    }

    if (at(h, up)->left == i) {
        at(h, up)->left = sub;
    } else {
        assert(at(h, up)->right == i);
        at(h, up)->right = sub;
    }

    while (up != NONE) {
        old = at(h, up)->rank;
        lean(h, up);
        if (at(h, up)->rank == old) {
            break;
        }
        up = at(h, up)->up;
    }

    return root;
}


/* --- the order of owners ------------------------------------------------ */

/* Bits of blocks per weight behind the point. */
#define WORTH_BITS 31

/* How much of its share an owner has: the more, the sooner it loses a block. */
static uint64_t
worth(const radix_t *r, uint32_t o)
{
    const radix_owner_t *p = &r->owners[o];
    uint64_t w = (uint64_t) p->total << WORTH_BITS;

    w = p->weight == 1 ? w : w / p->weight;

    return w | (uint64_t) p->stale << 63;
}


/* Does a lose a block before b? */
static inline int
richer(radix_turn_t a, radix_turn_t b)
{
    return a.worth > b.worth || (a.worth == b.worth && a.owner < b.owner);
}


static void
order_set(radix_t *r, uint32_t g, uint32_t at, radix_turn_t t)
{
    r->order[g][at] = t;
    r->owners[t.owner].at[g] = at;
}


/* Puts t, for which there is room at that place, where it belongs. */
static void
order_sift(radix_t *r, uint32_t g, uint32_t at, radix_turn_t t)
{
    radix_turn_t *v = r->order[g];
    uint32_t n = r->order_n[g], kid;

    while (at > 0 && richer(t, v[(at - 1) / 2])) {
        order_set(r, g, at, v[(at - 1) / 2]);
        at = (at - 1) / 2;
    }

    while ((kid = 2 * at + 1) < n) {
        if (kid + 1 < n && richer(v[kid + 1], v[kid])) {
            kid++;
        }
        if (!richer(v[kid], t)) {
            break;
        }
        order_set(r, g, at, v[kid]);
        at = kid;
    }

    order_set(r, g, at, t);
}


/* Owner o is worth something else: in all groups that have it in order. */
static void
order_again(radix_t *r, uint32_t o)
{
    radix_turn_t t = {worth(r, o), o};
    uint32_t g;

    for (g = 0; g < r->c.groups; g++) {
        if (r->owners[o].at[g] != NONE) {
            order_sift(r, g, r->owners[o].at[g], t);
        }
    }
}


static void
order_add(radix_t *r, uint32_t g, uint32_t o)
{
    radix_turn_t t = {worth(r, o), o};

    assert(r->owners[o].at[g] == NONE && r->order_n[g] <= r->c.owners);

    r->order_n[g]++;
    order_sift(r, g, r->order_n[g] - 1, t);
}


static void
order_remove(radix_t *r, uint32_t g, uint32_t o)
{
    uint32_t at = r->owners[o].at[g];
    radix_turn_t last = r->order[g][--r->order_n[g]];

    assert(r->order[g][at].owner == o);

    r->owners[o].at[g] = NONE;
    if (last.owner != o) {
        order_sift(r, g, at, last);
    }
}


/* --- owners ------------------------------------------------------------- */

static uint32_t *
owner_bucket(const radix_t *r, uint32_t name)
{
    return &r->owner_buckets[name * 2654435761u & r->owner_mask];
}


static void
list_out(radix_t *r, radix_owner_t *o)
{
    if (o->older == NONE) {
        r->oldest = o->newer;
    } else {
        r->owners[o->older].newer = o->newer;
    }
    if (o->newer == NONE) {
        r->newest = o->older;
    } else {
        r->owners[o->newer].older = o->older;
    }
}


static void
list_in(radix_t *r, radix_owner_t *o)
{
    uint32_t i = (uint32_t) (o - r->owners);

    o->older = r->newest;
    o->newer = NONE;
    if (r->newest == NONE) {
        r->oldest = i;
    } else {
        r->owners[r->newest].newer = i;
    }
    r->newest = i;
}


/* The owner has a share, unless it is stale; or has none any more. */
static void
enter(radix_t *r, radix_owner_t *o)
{
    if (!o->stale) {
        list_in(r, o);
        r->weights += o->weight;
    }
}


static void
leave(radix_t *r, radix_owner_t *o)
{
    if (!o->stale) {
        assert(r->weights >= o->weight);
        list_out(r, o);
        r->weights -= o->weight;
    }
}


void
radix_order_init(radix_t *r)
{
    uint32_t i;

    memset(r->owner_buckets, 255, (r->owner_mask + 1ull) * sizeof(uint32_t));
    r->oldest = r->newest = NONE;
    r->owner_free = NONE;

    /* the last one stands for those who find no place, and is not freed */
    for (i = r->c.owners; i-- > 0;) {
        r->owners[i].next = r->owner_free;
        r->owner_free = i;
    }
    for (i = 0; i <= r->c.owners; i++) {
        memset(r->owners[i].heap, 255, sizeof(r->owners[i].heap));
        memset(r->owners[i].at, 255, sizeof(r->owners[i].at));
        r->owners[i].weight = 1;
    }
}


uint32_t
radix_order_find(const radix_t *r, uint32_t name)
{
    uint32_t i = *owner_bucket(r, name);

    while (i != NONE && r->owners[i].name != name) {
        i = r->owners[i].next;
    }

    return i;
}


uint32_t
radix_order_owner(radix_t *r, uint32_t name, uint32_t weight)
{
    uint32_t i = radix_order_find(r, name), *bucket;
    radix_owner_t *o;

    assert(weight > 0);

    if (i == NONE && r->owner_free == NONE) {
        i = r->c.owners; /* weight 1, whoever they are */
        weight = 1;
    } else if (i == NONE) {
        i = r->owner_free;
        o = &r->owners[i];
        assert(!o->live);
        r->owner_free = o->next;
        bucket = owner_bucket(r, name);
        o->next = *bucket;
        *bucket = i;
        o->name = name;
        o->weight = weight;
    }

    o = &r->owners[i];
    if (!o->live) {
        o->live = 1;
        o->stale = name == RADIX_OPERATOR;
        o->used = r->time;
        r->owners_n++;
        enter(r, o);
    }
    if (o->weight != weight) {
        leave(r, o);
        o->weight = weight;
        enter(r, o);
        order_again(r, i);
    }

    return i;
}


void
radix_order_touch(radix_t *r, uint32_t i)
{
    radix_owner_t *o = &r->owners[i];
    int back = o->stale;

    assert(o->live);

    if (o->name == RADIX_OPERATOR && i < r->c.owners) {
        return;
    }

    leave(r, o);
    o->stale = 0;
    o->used = r->time;
    enter(r, o);
    if (back) {
        order_again(r, i);
    }
}


/* It has no block left: somebody else may have its place. */
static void
owner_free(radix_t *r, uint32_t i)
{
    radix_owner_t *o = &r->owners[i];
    uint32_t *link;

    assert(o->live && r->owners_n > 0);

    leave(r, o);
    o->live = 0;
    r->owners_n--;

    if (i < r->c.owners) {
        link = owner_bucket(r, o->name);
        while (*link != i) {
            assert(*link != NONE);
            link = &r->owners[*link].next;
        }
        *link = o->next;
        o->next = r->owner_free;
        r->owner_free = i;
    }
}


void
radix_order_more(radix_t *r, uint32_t i, uint32_t g, uint32_t n)
{
    radix_owner_t *o = &r->owners[i];

    assert(o->live);

    o->blocks[g] += n;
    o->total += n;
    order_again(r, i);
}


void
radix_order_less(radix_t *r, uint32_t i, uint32_t g)
{
    radix_owner_t *o = &r->owners[i];

    assert(o->live && o->blocks[g] > 0 && o->total > 0);

    o->blocks[g]--;
    o->total--;
    order_again(r, i);

    /* every node has a block of group 0, which is the last to go */
    if (g == 0 && o->blocks[0] == 0) {
        owner_free(r, i);
    }
}


/* --- parts -------------------------------------------------------------- */

void
radix_order_push(radix_t *r, uint32_t node, uint32_t g, uint64_t used)
{
    heap_t h = heap_of(r, g);
    radix_link_t *p = at(h, node);
    uint32_t i = radix_node(r, node)->owner;
    radix_owner_t *o = &r->owners[i];

    assert(p->rank == 0 && radix_loose(r, node, g));

    p->key = used + radix_node(r, node)->keep * r->c.keep_bonus;
    p->left = p->right = NONE;
    p->rank = 1;

    o->heap[g] = merge(h, o->heap[g], node);
    at(h, o->heap[g])->up = NONE;
    if (o->at[g] == NONE) {
        order_add(r, g, i);
    }
}


void
radix_order_pull(radix_t *r, uint32_t node, uint32_t g)
{
    uint32_t i = radix_node(r, node)->owner;
    radix_owner_t *o = &r->owners[i];

    assert(radix_link(r, node, g)->rank > 0);

    o->heap[g] = cut(heap_of(r, g), o->heap[g], node);
    if (o->heap[g] == NONE) {
        order_remove(r, g, i);
    }
}


uint32_t
radix_order_next(const radix_t *r, uint32_t g)
{
    return r->order_n[g] == 0 ? NONE : r->owners[r->order[g][0].owner].heap[g];
}


void
radix_time(radix_t *r, uint64_t time)
{
    radix_owner_t *o;
    uint32_t i;

    r->time = time > r->time ? time : r->time;

    /* each owner becomes stale once between two uses */
    while ((i = r->oldest) != NONE && r->c.stale > 0
           && r->time - r->owners[i].used > r->c.stale) {
        o = &r->owners[i];
        leave(r, o);
        o->stale = 1;
        order_again(r, i);
    }
}


/* --- for tests ---------------------------------------------------------- */

/* Members of the heap below i; asserts its order and its leaning. */
static uint32_t
check_heap(const radix_t *r, uint32_t g, uint32_t owner, uint32_t i)
{
    heap_t h = heap_of(r, g);
    uint32_t kids[2], k, n = 1;

    if (i == NONE) {
        return 0;
    }

    assert(at(h, i)->rank > 0 && radix_loose(r, i, g));
    assert(radix_node(r, i)->owner == owner && radix_node(r, i)->live);
    assert(rank(h, at(h, i)->left) >= rank(h, at(h, i)->right));
    assert(at(h, i)->rank == rank(h, at(h, i)->right) + 1);

    kids[0] = at(h, i)->left;
    kids[1] = at(h, i)->right;
    for (k = 0; k < 2; k++) {
        if (kids[k] != NONE) {
            assert(at(h, kids[k])->up == i);
            assert(sooner(h, i, kids[k]));
            n += check_heap(r, g, owner, kids[k]);
        }
    }

    return n;
}


/* The order of group g; how many parts its owners have in heaps. */
static uint32_t
check_order(const radix_t *r, uint32_t g)
{
    const radix_turn_t *v = r->order[g];
    const radix_owner_t *o;
    uint32_t i, n = 0;

    for (i = 0; i < r->order_n[g]; i++) {
        o = &r->owners[v[i].owner];
        assert(o->at[g] == i && o->live && o->heap[g] != NONE);
        assert(v[i].worth == worth(r, v[i].owner));
        assert(radix_link(r, o->heap[g], g)->up == NONE);
        assert(i == 0 || !richer(v[i], v[(i - 1) / 2]));
        n += check_heap(r, g, v[i].owner, o->heap[g]);
    }

    return n;
}


void
radix_order_check_deep(const radix_t *r)
{
    uint32_t g, i, loose, live = 0, listed = 0, stale = 0, n;
    uint64_t weights = 0;

    for (g = 0; g < r->c.groups; g++) {
        for (i = 0, loose = 0; i < r->c.nodes; i++) {
            assert(radix_loose(r, i, g) == (radix_link(r, i, g)->rank > 0));
            loose += (uint32_t) radix_loose(r, i, g);
        }
        assert(check_order(r, g) == loose);
    }

    for (i = 0; i <= r->c.owners; i++) {
        live += r->owners[i].live;
        stale += r->owners[i].live && r->owners[i].stale;
        for (g = 0, n = 0; g < r->c.groups; g++) {
            n += r->owners[i].blocks[g];
            assert(
                (r->owners[i].at[g] != NONE) == (r->owners[i].heap[g] != NONE));
        }
        assert(n == r->owners[i].total && r->owners[i].idle <= n);
    }
    assert(live == r->owners_n);

    for (i = r->oldest; i != NONE; i = r->owners[i].newer) {
        assert(r->owners[i].live && !r->owners[i].stale);
        assert(r->owners[i].newer == NONE
               || r->owners[r->owners[i].newer].used >= r->owners[i].used);
        weights += r->owners[i].weight;
        listed++;
    }
    assert(listed + stale == live && weights == r->weights);
}
