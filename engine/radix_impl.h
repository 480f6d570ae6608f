/*
 * The prefix cache's inside, shared by radix.c (the tree), radix_order.c (who
 * is evicted next) and radix_share.c (for whom).  Nobody else includes it.
 */
#ifndef RADIX_IMPL_H
#define RADIX_IMPL_H

#include "radix.h"

#include <assert.h>
#include <stddef.h>

#define NONE RADIX_NONE

/*
 * Where a part that may be evicted stands in the heap of its owner: linked,
 * because the heaps of all owners share the parts.
 */
typedef struct {
    uint64_t key; /* when it goes: the lowest first, then by node */
    uint32_t left, right, up;
    uint32_t rank; /* 0: not in a heap */
} radix_link_t;

/* A node's part in a group other than 0. */
typedef struct {
    radix_link_t link;
    uint32_t block; /* NONE: none */
    uint32_t users; /* references */
} radix_part_t;

#define RADIX_OWNER_BITS 20

/* What a match or an eviction reads lies in one line, its part in group 0
 * included, and the tokens in those behind it. */
typedef struct {
    uint64_t space;
    uint64_t used; /* when the last reference was given up */
    uint32_t hash; /* of parent or space, and tokens */
    uint32_t parent;
    uint32_t child; /* one that was used lately: the first guess; of the
                     * same namespace */
    uint32_t kids;
    uint32_t users;
    uint32_t owner : RADIX_OWNER_BITS; /* index */
    uint32_t keep : 8;
    uint32_t live : 1;
    radix_link_t link;
    uint32_t tokens[];
} radix_node_t;

_Static_assert(sizeof(radix_node_t) == 64, "a line");

/* A place of the table, found by linear probing. */
typedef struct {
    uint32_t hash;
    uint32_t node; /* NONE: empty */
} radix_place_t;

typedef struct {
    uint64_t used;
    uint32_t name;
    uint32_t weight;
    uint32_t next; /* in the same bucket, or free */
    uint32_t older, newer;
    uint8_t live;
    uint8_t stale;  /* not seen for long, or RADIX_OPERATOR: has no share */
    uint32_t total; /* blocks of all groups */
    uint32_t idle;  /* of them, without users */
    uint32_t blocks[RADIX_GROUPS_MAX];
    uint32_t heap[RADIX_GROUPS_MAX]; /* root: the part that goes next */
    uint32_t at[RADIX_GROUPS_MAX];   /* place in order; NONE: nothing idle */
} radix_owner_t;

/* An owner in the order of who loses a block first: the highest worth. */
typedef struct {
    uint64_t worth; /* as radix_order.c has it */
    uint32_t owner; /* index */
} radix_turn_t;

struct radix_s {
    radix_cfg_t c;
    size_t stride;                     /* bytes from node to node */
    uint32_t mask;                     /* places - 1 */
    uint32_t owner_mask;               /* owner buckets - 1 */
    uint64_t blocks[RADIX_GROUPS_MAX]; /* in the tree */
    uint64_t idle[RADIX_GROUPS_MAX];   /* of them, without users */
    uint64_t evicted;
    uint64_t shared;  /* nodes of the namespace RADIX_SHARED */
    uint64_t time;    /* as stale is measured */
    uint64_t weights; /* of the owners that have a share */
    uint32_t owners_n;
    uint32_t owner_free;     /* list */
    uint32_t oldest, newest; /* of the owners not stale */
    uint32_t order_n[RADIX_GROUPS_MAX];
    uint8_t *nodes; /* [nodes, stride] owned, as are all below */
    radix_part_t *further[RADIX_GROUPS_MAX]; /* [nodes] by group, not 0 */
    radix_place_t *places;                   /* [mask + 1] */
    radix_owner_t *owners;                   /* [c.owners + 1] the last: rest */
    uint32_t *owner_buckets;                 /* [owner_mask + 1] */
    radix_turn_t *order[RADIX_GROUPS_MAX];   /* [c.owners + 1] a heap: who has
                                            * most of what is its share */
};


static inline radix_node_t *
radix_node(const radix_t *r, uint32_t i)
{
    return (radix_node_t *) (void *) (r->nodes + i * r->stride);
}


static inline radix_link_t *
radix_link(const radix_t *r, uint32_t i, uint32_t g)
{
    return g == 0 ? &radix_node(r, i)->link : &r->further[g][i].link;
}


static inline uint32_t *
radix_users(const radix_t *r, uint32_t i, uint32_t g)
{
    return g == 0 ? &radix_node(r, i)->users : &r->further[g][i].users;
}


static inline uint32_t
radix_part_block(const radix_t *r, uint32_t i, uint32_t g)
{
    if (g > 0) {
        return r->further[g][i].block;
    }

    return radix_node(r, i)->live ? i : NONE;
}


/* May this part be evicted?  A node only when nothing hangs from it. */
static inline int
radix_loose(const radix_t *r, uint32_t i, uint32_t g)
{
    return radix_part_block(r, i, g) != NONE && *radix_users(r, i, g) == 0
           && (g > 0 || radix_node(r, i)->kids == 0);
}


/* Marks owner index o as used; a stale one has a share again. */
void radix_order_touch(radix_t *r, uint32_t o);

/* The index of an owner that has blocks; NONE: there is none of that name. */
uint32_t radix_order_find(const radix_t *r, uint32_t name);

/* The index of an owner, made if need be. */
uint32_t radix_order_owner(radix_t *r, uint32_t name, uint32_t weight);

/* n blocks of group g more, or one less, count against owner index o. */
void radix_order_more(radix_t *r, uint32_t o, uint32_t g, uint32_t n);
void radix_order_less(radix_t *r, uint32_t o, uint32_t g);

/* The part has become loose; it has ceased to be. */
void radix_order_push(radix_t *r, uint32_t node, uint32_t g, uint64_t used);
void radix_order_pull(radix_t *r, uint32_t node, uint32_t g);

/* The node whose part of group g goes next, by its owner's blocks for weight;
 * NONE: nothing is loose. */
uint32_t radix_order_next(const radix_t *r, uint32_t g);

/* The same for an owner who wants it, of *g or, if that is NONE, of any group,
 * which is told. */
uint32_t radix_share_next(
    const radix_t *r, uint32_t owner, uint32_t weight, uint32_t *g);

/* Forgets all, at start. */
void radix_order_init(radix_t *r);

/* For tests: heaps, shares and lists are what they should be. */
void radix_order_check_deep(const radix_t *r);

#endif
