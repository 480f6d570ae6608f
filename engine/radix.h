/*
 * The prefix cache: which blocks hold the keys and values of which tokens.
 * Pure: no clock, no randomness, no memory taken after radix_open; the blocks
 * themselves are the pool's (kv.c).  See radix.c.
 *
 * A model's layers come in groups with blocks of their own for the same
 * tokens.  Group 0 is always there: its layers need the whole context, and a
 * node is named by its block of group 0.  Layers of a further group look back
 * over a window only, so that its blocks may be missing from a node.
 */
#ifndef RADIX_H
#define RADIX_H

#include <stdint.h>

#define RADIX_NONE       UINT32_MAX
#define RADIX_GROUPS_MAX 8

/* The namespace that all others begin with; see radix.c. */
#define RADIX_SHARED UINT64_MAX

/* An owner whose blocks count against nobody's share. */
#define RADIX_OPERATOR (UINT32_MAX - 1)

typedef struct radix_s radix_t;

typedef struct {
    uint32_t nodes;                    /* names that group 0's blocks have */
    uint32_t block_tokens;             /* >= 1 */
    uint32_t groups;                   /* 1 .. RADIX_GROUPS_MAX */
    uint32_t window[RADIX_GROUPS_MAX]; /* blocks before a match's end that a
                                        * group must have, UINT32_MAX: all;
                                        * not of group 0 */
    uint32_t owners;     /* told apart; further ones are taken as one */
    uint64_t seed;       /* nobody outside may know it */
    uint64_t keep_bonus; /* by which each step of keep delays eviction */
    uint64_t stale; /* not seen for so long, an owner has no share; 0: never */
    uint32_t floor; /* percent of a share that nobody else may take */
} radix_cfg_t;

/* A run of blocks that is to enter the tree. */
typedef struct {
    uint32_t parent; /* referenced by the caller; RADIX_NONE: the first */
    uint32_t owner;  /* a name: whose share it counts against */
    uint32_t weight; /* of the owner, >= 1 */
    uint32_t keep;   /* 0 goes first, 255 last; see keep_bonus */
    uint64_t space;  /* namespace: equal tokens of two never meet, but for
                      * what is in RADIX_SHARED */
    uint64_t now;
    uint32_t n;                               /* blocks, >= 1 */
    const uint32_t *tokens;                   /* [n, block_tokens] */
    const uint32_t *blocks[RADIX_GROUPS_MAX]; /* [n] each; of a further group
                                               * RADIX_NONE: not there */
} radix_new_t;

typedef struct {
    uint64_t blocks[RADIX_GROUPS_MAX]; /* in the tree */
    uint64_t idle[RADIX_GROUPS_MAX];   /* of them, nobody's: may be evicted */
    uint64_t evicted;                  /* blocks of group 0, ever */
    uint32_t owners;                   /* with blocks in the tree */
    uint64_t weights;                  /* of those with a share */
} radix_stats_t;

/* All memory that it will ever need.  NULL when there is not that much. */
radix_t *radix_open(const radix_cfg_t *c);
void radix_close(radix_t *r);

/*
 * The longest prefix of tokens, in whole blocks and at most `most` of them,
 * that can be computed on from: path gets its nodes, and the caller a
 * reference to each, and to the window's blocks of each further group.
 * Returns how many there are.
 */
uint32_t radix_match(radix_t *r, uint64_t space, uint32_t owner,
    const uint32_t *tokens, uint32_t most, uint32_t *path);

/* How many blocks radix_match would find; changes nothing. */
uint32_t radix_peek(
    const radix_t *r, uint64_t space, const uint32_t *tokens, uint32_t most);

/* Where a look ended; all 0: before the first. */
typedef struct {
    uint32_t found; /* blocks */
    uint32_t node;  /* the last of them, if there is one */
    uint32_t name;  /* nearly always tells it from the next of its number */
} radix_spot_t;

/*
 * How many of the first `most` blocks group 0 has: goes on from where the last
 * look at the same tokens ended, or from the top if that is gone.  It takes
 * one of *steps and one more for each block that it looks for, and ends early
 * when there are none left.  Changes nothing but spot and steps.
 */
uint32_t radix_look(const radix_t *r, uint64_t space, const uint32_t *tokens,
    uint32_t most, radix_spot_t *spot, uint32_t *steps);

/*
 * Adds a run below parent, whose whole path the caller must have referenced.
 * path gets its nodes, and the caller a reference to each.  Bit g of taken[i]
 * says that block i of group g is the tree's now, and used by the caller;
 * where it is 0 the tree has another, and the caller keeps its own.  Returns
 * the last node.
 */
uint32_t radix_insert(
    radix_t *r, const radix_new_t *w, uint32_t *path, uint8_t *taken);

/* The caller's window of group g > 0 has left the node's block behind. */
void radix_leave(radix_t *r, uint32_t node, uint32_t g, uint64_t now);

/*
 * Gives up the references to tip and all above it.  Blocks of further groups
 * must have been left.  A prefix is pinned by not giving it up.
 */
void radix_release(radix_t *r, uint32_t tip, uint64_t now);

/*
 * A reference to tip and all above it, beside those of whoever uses them; and
 * given up again, which does not count as use.
 */
void radix_hold(radix_t *r, uint32_t tip);
void radix_unhold(radix_t *r, uint32_t tip);

/*
 * Takes back the caller's last insertion: gives up its reference to tip, but
 * not those to what is above.  1 if nobody else has one: then the node is
 * gone, and blocks gets its blocks, RADIX_NONE where there is none.
 */
int radix_retreat(
    radix_t *r, uint32_t tip, uint64_t now, uint32_t blocks[RADIX_GROUPS_MAX]);

/*
 * Makes one block of group g free, RADIX_NONE: of any, for an owner of that
 * weight (RADIX_NONE: for nobody).  It is taken from who has most for its
 * weight; from one who would then have less than its floor only if the owner
 * has none to give itself.  1 and its id in blocks[g], for group 0 beside those
 * of its node's other groups (else RADIX_NONE); 0: all are used.
 */
int radix_evict(radix_t *r, uint32_t g, uint32_t owner, uint32_t weight,
    uint32_t blocks[RADIX_GROUPS_MAX]);

/*
 * Of want blocks, how many can be evicted for an owner of that weight that are
 * above their owners' floors, or its own.
 */
uint64_t radix_spare(
    const radix_t *r, uint32_t owner, uint32_t weight, uint64_t want);

/* How many blocks can be an owner's at most, if all others run nothing and
 * keep what is above their floors only while it is not needed. */
uint64_t radix_most(const radix_t *r, uint32_t owner, uint32_t weight);

/* How many of an owner's blocks nobody else may take: its share, by weight, of
 * the floor's part of all. */
uint64_t radix_floor(const radix_t *r, uint32_t owner);

/* The time, as stale is measured; one that goes back stands. */
void radix_time(radix_t *r, uint64_t time);

/* Other values of stale and floor. */
void radix_rules(radix_t *r, uint64_t stale, uint32_t floor);

/* Reads nothing: what a change of the node reads is to be on its way from
 * memory. */
void radix_fetch(const radix_t *r, uint32_t node);

/* Is that the name of a node? */
int radix_live(const radix_t *r, uint32_t node);

/* The node above; RADIX_NONE at the top. */
uint32_t radix_parent(const radix_t *r, uint32_t node);

/* The node below parent (RADIX_NONE: at the top of space) with these tokens;
 * RADIX_NONE: there is none. */
uint32_t radix_child(
    const radix_t *r, uint32_t parent, uint64_t space, const uint32_t *tokens);

/* As whose and what the node was inserted: all of w but parent, now and what
 * belongs to group 0 and others; tokens are the node's, borrowed. */
void radix_of(const radix_t *r, uint32_t node, radix_new_t *w);

/* The block of group g at the node; RADIX_NONE: it was evicted. */
uint32_t radix_block(const radix_t *r, uint32_t node, uint32_t g);

/* References to the node's part in group g. */
uint32_t radix_refs(const radix_t *r, uint32_t node, uint32_t g);

/* Blocks of group g that count against an owner's share. */
uint64_t radix_owned(const radix_t *r, uint32_t owner, uint32_t g);

void radix_stats(const radix_t *r, radix_stats_t *st);

/* Blocks of all groups that nobody uses. */
uint64_t radix_idle(const radix_t *r);

/* Bytes that radix_open takes. */
uint64_t radix_bytes(const radix_cfg_t *c);

/* O(1). */
void radix_check(const radix_t *r);

/* O(nodes log nodes), for tests: asserts all that the files promise. */
void radix_check_deep(const radix_t *r);

#endif
