/*
 * Which tokens may come next: the vocabulary walked against a state, once for
 * all states that look alike.
 *
 * DESIGN.  A walk of the trie steps the threads by each byte, keeps those of
 * each depth, and sets the bits of tokens whose bytes all pass.  In a JSON
 * string the slice that the vocabulary has ready is taken, as far as so many
 * characters may still come, and only the rest is walked.
 *
 * What a walk sees of the stacks is noted: how many frames it looked at, and
 * at how many of their counts and sets.  The mask depends on nothing else, so
 * its key is that much of the state and no more.  Within a string it is the
 * place and the two or three frames around it; which keys were seen, or how
 * many items, matters only where the walk asked.
 *
 *      places of the threads --> shapes: (frames, counts) that walks from there
 *      looked at --> the state cut to each shape --> mask
 *
 * A hit is two probes and no copy.  Masks are kept until the grammar is closed,
 * up to MASKS_MAX bytes; beyond, they are computed into the caller's room.
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

#define MASKS_MAX  ((size_t) 48 << 20)
#define SHAPES     6          /* of one set of places */
#define KEY_MAX    4096       /* words */
#define WALK_WORDS (1u << 16) /* for frames, beyond the state's own */

typedef struct {
    uint32_t deep, aux;
} shape_t;

/* By the threads' places. */
typedef struct {
    uint32_t hash, n; /* n 0: empty */
    shape_t shapes[SHAPES];
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
    size_t bytes;
    /* a walk's own */
    uint32_t *words, cap;
    uint32_t *depth, depth_cap;
    uint32_t key[KEY_MAX];
    grammar_thread_t threads[(TOKEN_LEN_MAX + 2) * GRAMMAR_THREADS_MAX];
    uint32_t at[TOKEN_LEN_MAX + 2], n[TOKEN_LEN_MAX + 2];
    uint32_t used[TOKEN_LEN_MAX + 2];
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
    shape_t shape, uint32_t *key)
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

/* The shapes of places of that hash, or where they go.  Two sets of places with
 * one hash share their shapes: a key has the places themselves. */
static top_t *
top_of(struct grammar_masks_s *m, uint32_t hash)
{
    uint32_t i = hash;

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
    m->masks = calloc(size, sizeof(*was));
    if (m->masks == NULL) {
        m->masks = was;
        return -1;
    }
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
    m->tops = calloc(size, sizeof(*was));
    if (m->tops == NULL) {
        m->tops = was;
        return -1;
    }
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


/* Where a mask that a walk of such a shape made is kept; NULL: nowhere. */
static uint32_t *
keep(grammar_t *g, const grammar_vocab_t *v, const grammar_state_t *st,
    shape_t shape, const uint32_t *mask)
{
    struct grammar_masks_s *m = g->masks;
    uint32_t n = cut(g, v, st, shape, m->key), i;
    size_t bytes = (n + v->words) * sizeof(uint32_t);
    top_t *top = top_of(m, hash_tops(st));
    mask_t *x;

    for (i = 0; i < top->n
                && (top->shapes[i].deep != shape.deep
                    || top->shapes[i].aux != shape.aux);
         i++) {
    }
    if (n == 0 || i == SHAPES || bytes > MASKS_MAX - m->bytes) {
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


/* --- walks -------------------------------------------------------------- */

/* Is frame one that counts characters of a string, with the quote behind? */
static int
counts_chars(const grammar_work_t *w, uint32_t frame)
{
    const grammar_pos_t *pos = w->g->pos, *p;
    uint32_t up;

    if (frame == 0 || pos[w->words[frame]].kind != POS_COUNT) {
        return 0;
    }
    up = w->words[frame + 1];
    p = up == 0 ? NULL : &pos[w->words[up]];

    return w->g->counts[pos[w->words[frame]].spec].chars && p != NULL
           && p->quote && p->calls_n == 0;
}


/* The frame with a character more; 0: that is too many. */
static uint32_t
count_one(grammar_work_t *w, uint32_t frame)
{
    const grammar_cnt_t *x = &w->g->counts[w->g->pos[w->words[frame]].spec];
    uint32_t n = w->words[frame + 2], at = w->used;

    assert(w->g->pos[w->words[frame]].kind == POS_COUNT);
    grammar_looked(w, frame, w->words[frame + 1]);
    if (n >= x->max || w->cap - w->used < 3) {
        return 0;
    }
    w->words[at] = w->words[frame];
    w->words[at + 1] = w->words[frame + 1];
    w->words[at + 2] = n + (n < x->counts);
    w->used += 3;

    return at;
}


/* How many more characters may stand where one thread is within a string that
 * counts them; 0: it is elsewhere. */
static uint32_t
chars_left(grammar_work_t *w, const grammar_thread_t *t)
{
    const grammar_t *g = w->g;
    const grammar_pos_t *p = &g->pos[t->pos];
    const grammar_link_t *c = &g->calls[p->calls];
    const grammar_rule_t *r;
    const grammar_cnt_t *x;
    uint32_t n = 0;

    if (t->pos == POS_DONE && counts_chars(w, t->up)) {
        x = &g->counts[g->pos[w->words[t->up]].spec];
        n = w->words[t->up + 2];
        grammar_looked(w, t->up, w->words[t->up + 1]);
    } else if (p->quote && p->calls_n == 1 && c->to > POS_DONE
               && g->pos[c->to].quote && g->pos[c->to].calls_n == 0) {
        r = &g->rules[c->rule];
        x = r->kind == RULE_COUNT ? &g->counts[g->pos[r->pos].spec] : NULL;
        if (x == NULL || !x->chars) {
            return 0;
        }
    } else {
        return 0;
    }

    return x->max == GRAMMAR_MANY ? TOKEN_LEN_MAX : x->max > n ? x->max - n : 0;
}


/* Text of a string, at most so many characters of it. */
static void
slice(const grammar_vocab_t *v, uint32_t chars, uint32_t *mask)
{
    const uint32_t *from = chars < SHORT_MAX ? v->upto[chars] : v->plain;
    uint32_t i;

    assert(chars > 0);
    memcpy(mask, from, v->words * sizeof(*mask));
    for (i = 0; i < v->longer_n && chars >= SHORT_MAX && chars < TOKEN_LEN_MAX;
         i++) {
        if (v->chars[i] > chars) {
            mask[v->longer[i] / 32] &= ~(1u << v->longer[i] % 32);
        }
    }
}


/* Steps the threads at depth by a byte to depth + 1; how many are left. */
static inline uint32_t
step(struct grammar_masks_s *m, grammar_work_t *w, uint32_t depth, uint8_t byte)
{
    const grammar_thread_t *in = m->threads + m->at[depth];
    grammar_thread_t *out = m->threads + m->at[depth] + m->n[depth];
    const grammar_pos_t *p = &w->g->pos[in->pos];
    uint32_t n = m->n[depth], to;

    assert(depth < TOKEN_LEN_MAX && n <= GRAMMAR_THREADS_MAX);
    m->at[depth + 1] = m->at[depth] + n;
    m->used[depth + 1] = m->used[depth];
    if (n == 1 && p->kind == POS_PLAIN && p->calls_n == 0 && !p->accept
        && p->map != NULL) {
        /* by far most steps */
        to = p->next[p->map[byte]];
        out->pos = to;
        out->up = in->up;
        n = to != POS_DEAD;
    } else if (n == 1 && in->pos == POS_DONE && byte >= 0x20 && byte < 0x80
               && byte != '"' && byte != '\\' && counts_chars(w, in->up)) {
        /* and most that count */
        w->used = m->used[depth];
        out->pos = POS_DONE;
        out->up = count_one(w, in->up);
        n = out->up != 0;
        m->used[depth + 1] = w->used;
    } else {
        w->used = m->used[depth];
        w->out = out;
        n = grammar_step(w, in, n, byte);
        m->used[depth + 1] = w->used;
    }

    return m->n[depth + 1] = n;
}


/* Sets the bits of all tokens whose bytes pass. */
static void
walk(struct grammar_masks_s *m, grammar_work_t *w, const grammar_trie_t *t,
    uint32_t *mask)
{
    const grammar_node_of_trie_t *node;
    uint32_t i, k, id;

    for (i = 0; i < t->nodes_n;) {
        node = &t->nodes[i];
        assert(node->end > i && node->end <= t->nodes_n);
        if (step(m, w, node->depth, node->byte) == 0) {
            i = node->end;
            continue;
        }
        for (k = 0; k < node->ids_n; k++) {
            id = t->ids[node->ids + k];
            mask[id / 32] |= 1u << id % 32;
        }
        i++;
    }
}


/* Room for the state and what a walk adds to it. 0, or -1: no memory. */
static int
walk_room(struct grammar_masks_s *m, const grammar_state_t *st)
{
    uint32_t *p;

    if (m->depth_cap < st->used) {
        p = realloc(m->depth, st->used * sizeof(*p));
        if (p == NULL) {
            return -1;
        }
        m->depth = p;
        m->depth_cap = st->used;
    }
    if (m->cap < st->used + WALK_WORDS) {
        p = realloc(m->words, (st->used + WALK_WORDS) * sizeof(*p));
        if (p == NULL) {
            return -1;
        }
        m->words = p;
        m->cap = st->used + WALK_WORDS;
    }

    return 0;
}


/* The frames' distances from the nearest end, at most. */
static void
depths(struct grammar_masks_s *m, const grammar_state_t *st)
{
    const grammar_thread_t *t = threads_of(st);
    uint32_t i, f, k;

    assert(m->depth_cap >= st->used);
    memset(m->depth, 0, st->used * sizeof(*m->depth));
    for (i = 0; i < st->threads; i++) {
        for (f = t[i].up, k = 1; f != 0; f = st->words[f + 1], k++) {
            m->depth[f] = k > m->depth[f] ? k : m->depth[f];
        }
    }
}


/* The mask by a walk, and the shape of what it looked at. */
static shape_t
compute(grammar_t *g, const grammar_vocab_t *v, const grammar_state_t *st,
    uint32_t *mask)
{
    struct grammar_masks_s *m = g->masks;
    const grammar_thread_t *t = threads_of(st);
    grammar_work_t w = {.g = g, .words = m->words, .cap = m->cap};
    uint32_t i, chars, plain = st->threads > 0;
    shape_t shape;

    assert(st->threads <= GRAMMAR_THREADS_MAX && m->cap > st->used);
    memcpy(m->words, st->words, st->used * sizeof(*m->words));
    depths(m, st);
    w.base = w.used = st->used;
    w.depth = m->depth;
    m->at[0] = 0;
    m->n[0] = st->threads;
    m->used[0] = st->used;
    memcpy(m->threads, t, st->threads * sizeof(*t));

    for (i = 0; i < st->threads; i++) {
        plain = plain && g->pos[t[i].pos].plain;
    }
    chars = plain ? TOKEN_LEN_MAX : st->threads == 1 ? chars_left(&w, t) : 0;
    plain = chars > 0;
    if (plain) {
        slice(v, chars, mask);
    } else {
        memset(mask, 0, v->words * sizeof(*mask));
    }
    if (st->threads > 0) {
        walk(m, &w, plain ? &v->rest : &v->all, mask);
    }
    w.used = st->used;
    if (grammar_ends(&w, t, st->threads)) {
        for (i = 0; i < v->words; i++) {
            mask[i] |= v->ends[i];
        }
    }
    shape.deep = w.deep;
    shape.aux = w.deep_aux;

    return shape;
}


const uint32_t *
grammar_mask(grammar_t *g, const grammar_vocab_t *v, const grammar_state_t *st,
    uint32_t *room)
{
    const uint32_t *mask = NULL;
    uint32_t *kept;
    shape_t shape;
    int rc;

    rc = pthread_mutex_lock(&g->lock);
    assert(rc == 0);
    if (g->masks == NULL) {
        g->masks = calloc(1, sizeof(*g->masks));
    }
    if (g->masks != NULL && masks_grow(g->masks) == 0
        && tops_grow(g->masks) == 0 && walk_room(g->masks, st) == 0) {
        mask = find(g, v, st);
        if (mask == NULL) {
            shape = compute(g, v, st, room);
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

    return m == NULL ? 0 : sizeof(*m) + m->bytes + m->cap * sizeof(uint32_t);
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
    free(m->words);
    free(m->depth);
    free(m);
    g->masks = NULL;
}
