/*
 * Which tokens may come next: the vocabulary walked against a state
 * (grammar_walk.c), once for all states that look alike.
 *
 * DESIGN.  What a walk sees of the stacks is noted: how many frames it looked
 * at, and at how many of their counts and sets.  The mask depends on nothing
 * else, so its key is that much of the state and no more.  Within a string it
 * is the place and the two or three frames around it; which keys were seen, or
 * how many items, matters only where the walk asked.
 *
 *      places of the threads --> shapes: (frames, counts) that walks from there
 *      looked at --> the state cut to each shape --> mask
 *
 * A hit is two probes and no copy.  Masks are kept until the grammar is closed,
 * up to a number of bytes, tables and keys included; beyond, they are computed
 * into the caller's room.
 *
 * The lock covers all: one grammar's masks are computed one at a time.  v must
 * live as long as the grammars whose masks were computed with it.
 *
 * Counts are cut to how far they are from their bounds, as far as one token can
 * reach: the 400th and the 4,000th item of a list without end share a mask.
 */
#include "grammar_vocab.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SHAPES  6    /* of one set of places */
#define KEY_MAX 4096 /* words */
#define PIECE   32   /* bytes that one of malloc costs beside its own */

/* By the threads' places. */
typedef struct {
    uint32_t hash, n; /* n 0: empty */
    grammar_shape_t shapes[SHAPES];
} top_t;

typedef struct {
    uint64_t hash;
    uint32_t *key; /* owned; [n], then the mask */
    uint32_t n;
} mask_t;

struct grammar_masks_s {
    top_t *tops;
    uint32_t tops_n, tops_mask;
    mask_t *masks;
    uint32_t masks_n, masks_mask;
    size_t bytes, bytes_max; /* of masks, keys and both tables */
    grammar_slices_t slices; /* a fourth of the bytes at most */
    uint32_t key[KEY_MAX];
};


static const grammar_thread_t *
threads_of(const grammar_state_t *st)
{
    return (const grammar_thread_t *) (const void *) (st->words + st->used);
}


/* --- keys --------------------------------------------------------------- */

static uint64_t
hash_of(const uint32_t *v, uint32_t n)
{
    uint64_t h = n;
    uint32_t i;

    for (i = 0; i < n; i++) {
        h = (h ^ v[i]) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 32;
    }

    return h;
}


/* Of the places in which the threads stand, in their order. */
static uint32_t
hash_tops(const grammar_state_t *st)
{
    const grammar_thread_t *t = threads_of(st);
    uint64_t h = st->threads;
    uint32_t i;

    for (i = 0; i < st->threads; i++) {
        h = (h ^ t[i].pos) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 32;
    }

    return (uint32_t) h;
}


/* How far a count is from a bound, as far as one token can tell. */
static uint32_t
distance(uint32_t count, uint32_t bound)
{
    return bound <= count                  ? 0
           : bound - count > TOKEN_LEN_MAX ? TOKEN_LEN_MAX + 1
                                           : bound - count;
}


/* What a frame counts and has seen, into key: counts that no token tells apart
 * are alike.  How many words. */
static uint32_t
aux_of(const grammar_t *g, const uint32_t *frame, uint32_t size, uint32_t *key)
{
    const grammar_pos_t *p = &g->pos[frame[0]];
    const grammar_arr_t *a = &g->arrays[p->spec];
    uint32_t n = frame[2];

    if (p->kind == POS_COUNT) {
        key[0] = distance(n, g->counts[p->spec].min);
        key[1] = distance(n, g->counts[p->spec].max);
        return 2;
    }
    if (p->kind == POS_ITEMS && n >= a->prefix_n) {
        key[0] = distance(n, a->min);
        key[1] = TOKEN_LEN_MAX + 2 + distance(n, a->max);
        return 2;
    }
    memcpy(key, frame + 2, size * sizeof(*key));

    return size;
}


/* A state cut to a shape, into key; its length, 0: too long. */
static uint32_t
cut(const grammar_t *g, const grammar_vocab_t *v, const grammar_state_t *st,
    grammar_shape_t shape, uint32_t *key)
{
    const grammar_thread_t *t = threads_of(st);
    uint32_t i, f, k, n = 0, size;

    assert(st->threads <= GRAMMAR_THREADS_MAX);
    memcpy(key, &v, sizeof(v));
    n = sizeof(v) / sizeof(*key);
    key[n++] = shape.deep;
    key[n++] = shape.aux;
    for (i = 0; i < st->threads; i++) {
        f = t[i].up;
        key[n++] = t[i].pos;
        for (k = 1; k <= shape.deep || k <= shape.aux; k++) {
            if (n + 2 >= KEY_MAX) {
                return 0;
            }
            key[n++] = f == 0 ? 0 : st->words[f];
            if (f == 0) {
                break;
            }
            size = grammar_frame_words(g, st->words[f]) - 2;
            if (n + size + 3 >= KEY_MAX) {
                return 0;
            }
            if (k <= shape.aux) {
                n += aux_of(g, st->words + f, size, key + n);
            }
            f = st->words[f + 1];
        }
        if (n + 3 >= KEY_MAX) {
            return 0;
        }
    }
    assert(n < KEY_MAX);

    return n;
}


/* --- the cache ---------------------------------------------------------- */

/* The shapes of places of that hash, or where they go; NULL: there are none at
 * all.  Two sets of places with
 * one hash share their shapes: a key has the places themselves. */
static top_t *
top_of(struct grammar_masks_s *m, uint32_t hash)
{
    uint32_t i = hash;

    if (m->tops == NULL) {
        return NULL;
    }
    assert(m->tops_n <= m->tops_mask); /* an empty place ends the search */
    while (m->tops[i & m->tops_mask].n > 0
           && m->tops[i & m->tops_mask].hash != hash) {
        i++;
    }

    return &m->tops[i & m->tops_mask];
}


/* The mask of a key, or the empty place where it goes. */
static mask_t *
mask_of(
    struct grammar_masks_s *m, uint64_t hash, const uint32_t *key, uint32_t n)
{
    uint32_t i = (uint32_t) hash;
    mask_t *x;

    assert(m->masks_n <= m->masks_mask);
    for (;; i++) {
        x = &m->masks[i & m->masks_mask];
        if (x->key == NULL
            || (x->hash == hash && x->n == n
                && memcmp(x->key, key, n * sizeof(*key)) == 0)) {
            return x;
        }
    }
}


/* Both tables stay at most half full. 0, or -1: no memory. */
static int
masks_grow(struct grammar_masks_s *m)
{
    mask_t *was = m->masks;
    uint32_t mask = m->masks_mask, size = was == NULL ? 64 : mask * 2 + 2, i;

    assert((size & (size - 1)) == 0);
    if (was != NULL && m->masks_n * 2 <= mask) {
        return 0;
    }
    m->masks = size * sizeof(*was) > m->bytes_max - m->bytes
                   ? NULL
                   : calloc(size, sizeof(*was));
    if (m->masks == NULL) {
        m->masks = was;
        return -1;
    }
    m->bytes += size * sizeof(*was);
    m->bytes -= was == NULL ? 0 : (mask + 1) * sizeof(*was);
    m->masks_mask = size - 1;
    for (i = 0; was != NULL && i <= mask; i++) {
        if (was[i].key != NULL) {
            *mask_of(m, was[i].hash, was[i].key, was[i].n) = was[i];
        }
    }
    free(was);

    return 0;
}


static int
tops_grow(struct grammar_masks_s *m)
{
    top_t *was = m->tops;
    uint32_t mask = m->tops_mask, size = was == NULL ? 64 : mask * 2 + 2, i;

    assert((size & (size - 1)) == 0);
    if (was != NULL && m->tops_n * 2 <= mask) {
        return 0;
    }
    m->tops = size * sizeof(*was) > m->bytes_max - m->bytes
                  ? NULL
                  : calloc(size, sizeof(*was));
    if (m->tops == NULL) {
        m->tops = was;
        return -1;
    }
    m->bytes += size * sizeof(*was);
    m->bytes -= was == NULL ? 0 : (mask + 1) * sizeof(*was);
    m->tops_mask = size - 1;
    for (i = 0; was != NULL && i <= mask; i++) {
        if (was[i].n > 0) {
            *top_of(m, was[i].hash) = was[i];
        }
    }
    free(was);

    return 0;
}


/* The mask of a state that looks like one that was walked; NULL: none. */
static const uint32_t *
find(grammar_t *g, const grammar_vocab_t *v, const grammar_state_t *st)
{
    struct grammar_masks_s *m = g->masks;
    const top_t *top = top_of(m, hash_tops(st));
    const mask_t *x;
    uint32_t i, n;

    if (top == NULL || m->masks == NULL) {
        return NULL;
    }
    assert(top->n <= SHAPES);
    for (i = 0; i < top->n; i++) {
        n = cut(g, v, st, top->shapes[i], m->key);
        if (n > 0) {
            x = mask_of(m, hash_of(m->key, n), m->key, n);
            if (x->key != NULL) {
                return x->key + n;
            }
        }
    }

    return NULL;
}


/* A cache with nothing in it; NULL: no memory. */
static struct grammar_masks_s *
masks_open(const grammar_t *g)
{
    struct grammar_masks_s *m = calloc(1, sizeof(*m));

    if (m == NULL) {
        return NULL;
    }
    m->slices.room = g->masks_max / 4;
    m->bytes_max = g->masks_max - m->slices.room;

    return m;
}


/* Where a mask that a walk of such a shape made is kept; NULL: nowhere. */
static uint32_t *
keep(grammar_t *g, const grammar_vocab_t *v, const grammar_state_t *st,
    grammar_shape_t shape, const uint32_t *mask)
{
    struct grammar_masks_s *m = g->masks;
    uint32_t n = cut(g, v, st, shape, m->key), i;
    size_t bytes = (n + v->words) * sizeof(uint32_t) + PIECE;
    top_t *top;
    mask_t *x;

    if (n == 0 || masks_grow(m) != 0 || tops_grow(m) != 0
        || bytes > m->bytes_max - m->bytes) {
        return NULL;
    }
    top = top_of(m, hash_tops(st));
    for (i = 0; i < top->n
                && (top->shapes[i].deep != shape.deep
                    || top->shapes[i].aux != shape.aux);
         i++) {
    }
    if (i == SHAPES) {
        return NULL;
    }

    x = mask_of(m, hash_of(m->key, n), m->key, n);
    assert(x->key == NULL);
    x->key = malloc(bytes);
    if (x->key == NULL) {
        return NULL;
    }
    x->hash = hash_of(m->key, n);
    x->n = n;
    memcpy(x->key, m->key, n * sizeof(uint32_t));
    memcpy(x->key + n, mask, v->words * sizeof(uint32_t));
    m->masks_n++;
    m->bytes += bytes;
    if (i == top->n) {
        m->tops_n += top->n == 0;
        top->hash = hash_tops(st);
        top->shapes[top->n++] = shape;
    }

    return x->key + n;
}


/* --- masks -------------------------------------------------------------- */

const uint32_t *
grammar_mask(grammar_t *g, const grammar_vocab_t *v, const grammar_state_t *st,
    uint32_t *room)
{
    const uint32_t *mask = NULL;
    uint32_t *kept;
    grammar_shape_t shape;
    int rc;

    rc = pthread_mutex_lock(&g->lock);
    assert(rc == 0);
    if (g->masks == NULL) {
        g->masks = masks_open(g);
    }
    if (g->masks != NULL) {
        mask = find(g, v, st);
        if (mask == NULL
            && grammar_walk(g, v, st, room, &shape, &g->masks->slices) == 0) {
            kept = keep(g, v, st, shape, room);
            mask = kept != NULL ? kept : room;
        }
    }
    rc = pthread_mutex_unlock(&g->lock);
    assert(rc == 0);
    (void) rc;

    return mask;
}


size_t
grammar_masks_memory(const grammar_t *g)
{
    const struct grammar_masks_s *m = g->masks;

    return m == NULL ? 0
                     : sizeof(*m) + m->bytes + g->masks_max - m->bytes_max
                           - m->slices.room;
}


void
grammar_masks_free(grammar_t *g)
{
    struct grammar_masks_s *m = g->masks;
    uint32_t i;

    if (m == NULL) {
        return;
    }
    for (i = 0; m->masks != NULL && i <= m->masks_mask; i++) {
        free(m->masks[i].key);
    }
    free(m->masks);
    free(m->tops);
    grammar_slices_free(&m->slices);
    free(m);
    g->masks = NULL;
}
