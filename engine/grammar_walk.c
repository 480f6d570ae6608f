/*
 * The tokens that may come next, by a walk of the vocabulary's trie.
 *
 * DESIGN.  A walk steps the threads by each byte and sets the bits of tokens
 * whose bytes all pass.  Sets of threads that it meets are configurations with
 * a number, and where a byte leads from one is noted in its row: white space
 * leads back to itself, every quote that ends a string to one and the same
 * place, so that most steps are one look into a row, and a grammar that may be
 * read in many ways costs as much as one that cannot.
 *
 *      config 2: (place 17, frame 40)   row: ' ' -> 2, '"' -> 3, 'x' -> dead
 *      config 3: (place 31, frame 40)   row: '"' -> 4, others -> 5
 *
 * In a string most tokens are text that passes: the vocabulary has them as a
 * mask.  Of the rest it matters how they end.  Mostly there is a place to which
 * all text leads and stays, "home": what the tails may be is walked once from
 * there, which says it for every token with a text before; and then only what
 * stands elsewhere, beside names, is walked and put right.
 *
 *      in {"na|  tails from home:      "  ":  ",  \n
 *                beside it, put right: me"  me":   (home's answer is another)
 *
 * A string whose characters are counted is home by itself for tokens that are
 * shorter than what is left.
 *
 * Within a pattern a place decides for most tokens alone, and for the others
 * where they leave it.  That is a slice, which is kept if it was dear, and
 * makes the mask of the place whatever the stack is: only its exits are walked.
 *
 * Where there are more configurations or frames than there is room for, a step
 * is made anew each time, in room that is given back on the way up.
 *
 * Invariants: frames of configurations stay until the walk ends; a
 * configuration is met once, by its threads and the contents of the frames that
 * they have made.  One walk at a time.
 */
#include "grammar_vocab.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define WALK_WORDS (1u << 16)    /* for frames, beyond the state's own */
#define CONFIGS    2048          /* with a number that stays */
#define ROWS       512           /* of those that are stepped from */
#define TABLE      (CONFIGS * 4) /* by hash */
#define POOL       8192          /* threads of those that stay */
#define DEPTH      (TOKEN_LEN_MAX + 2)
#define HASHED     5     /* words of a frame: all but large sets of keys */
#define MANY       64    /* nodes below: it pays to look at all bytes at once */
#define EXITS      16384 /* of a slice */
#define LARGE      2048  /* nodes of a slice that is worth its memory */
#define NONE       UINT32_MAX
#define ROOTS      (UINT32_MAX - 1)
#define LOOPS      64
#define SOME       4 /* nodes that are worth the question */
#define WAITING    4 /* memories of walks that are kept for the next */

enum { UNKNOWN, DEAD, FIRST }; /* in a row */

typedef struct {
    uint32_t at, used; /* threads, in pool; words, of one that does not stay */
    uint16_t n, row;   /* 0: none */
} config_t;

/* Where a walk leaves what a place decides alone: nodes of a trie, which are
 * walked from a place. */
typedef struct {
    uint32_t from, end, pos;
} exit_t;

/* What a place decides alone, whatever the stack is. */
struct grammar_slice_s {
    const grammar_vocab_t *v;
    uint32_t pos;
    uint32_t exits_n;
    exit_t *exits; /* owned, [exits_n] */
    uint32_t *mask;
    struct grammar_slice_s *next;
};

struct grammar_walk_s {
    grammar_work_t w;
    uint32_t *words, cap;
    uint32_t *depth, depth_cap;
    config_t configs[CONFIGS + DEPTH]; /* those that stay, one for each depth */
    uint32_t configs_n, pool_n, rows_n;
    uint32_t full, floor; /* no more will stay; their frames are below */
    uint32_t home;        /* one of one thread that is often met; 0: none */
    uint32_t open; /* a frame whose key may have no name; 0: none known */
    grammar_thread_t pool[POOL + DEPTH * GRAMMAR_THREADS_MAX];
    uint16_t table[TABLE];
    uint16_t rows[ROWS][256];
    exit_t exits[EXITS]; /* of the slice under way */
    uint32_t exits_n;
    uint32_t loops_of[LOOPS]; /* places of it, */
    uint8_t loops[LOOPS]; /* and the kinds of text that lead to themselves */
    struct grammar_walk_s *next; /* that waits too */
    uint32_t up[DEPTH]; /* whose children are there, until it is seen if they
                         * are listed: then NONE */
    const grammar_kid_t *kid[DEPTH], *kids[DEPTH]; /* the next of them, and the
                         * end; NULL: they are not */
    uint32_t at[DEPTH];   /* the configuration at each depth */
    uint16_t *row[DEPTH]; /* and its row; NULL: none yet */
    uint8_t many[DEPTH];  /* are many nodes there? */
};


/* Memories that no walk uses: a walk takes one as it is, since to have fresh
 * pages for each grammar costs more than most walks. */
struct grammar_walks_s {
    pthread_mutex_t lock;
    grammar_walk_t *first;
    uint32_t n;
};


static void
walk_free(grammar_walk_t *k)
{
    free(k->words);
    free(k->depth);
    free(k);
}


grammar_walks_t *
grammar_walks_open(void)
{
    grammar_walks_t *x = calloc(1, sizeof(*x));
    int rc;

    if (x != NULL) {
        rc = pthread_mutex_init(&x->lock, NULL);
        assert(rc == 0);
        (void) rc;
    }

    return x;
}


void
grammar_walks_close(grammar_walks_t *x)
{
    grammar_walk_t *k, *next;

    if (x == NULL) {
        return;
    }
    for (k = x->first; k != NULL; k = next) {
        next = k->next;
        walk_free(k);
    }
    (void) pthread_mutex_destroy(&x->lock);
    free(x);
}


/* One that waits, or a new one; NULL: no memory. */
static grammar_walk_t *
walk_get(grammar_walks_t *x)
{
    grammar_walk_t *k;
    int rc = pthread_mutex_lock(&x->lock);

    assert(rc == 0);
    k = x->first;
    if (k != NULL) {
        x->first = k->next;
        x->n--;
    }
    rc = pthread_mutex_unlock(&x->lock);
    assert(rc == 0);
    (void) rc;

    return k != NULL ? k : calloc(1, sizeof(*k));
}


/* A few are kept, but none with room for a state that is unusually large. */
static void
walk_put(grammar_walks_t *x, grammar_walk_t *k)
{
    int rc = pthread_mutex_lock(&x->lock), kept;

    assert(rc == 0);
    kept = x->n < WAITING && k->cap <= 2 * WALK_WORDS;
    if (kept) {
        k->next = x->first;
        x->first = k;
        x->n++;
    }
    rc = pthread_mutex_unlock(&x->lock);
    assert(rc == 0);
    (void) rc;
    if (!kept) {
        walk_free(k);
    }
}


static const grammar_thread_t *
threads_of(const grammar_state_t *st)
{
    return (const grammar_thread_t *) (const void *) (st->words + st->used);
}


/* --- counted strings ---------------------------------------------------- */

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
 * counts them; 0: it is elsewhere.  enough: there are as many as there must be.
 */
static uint32_t
chars_left(grammar_work_t *w, const grammar_thread_t *t, int *enough)
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
    *enough = n >= x->min;

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


/* --- configurations ----------------------------------------------------- */

/* Are two frames alike, and below the same? */
static int
same_frame(const grammar_work_t *w, uint32_t x, uint32_t y)
{
    return x == y
           || (x != 0 && y != 0 && w->words[x] == w->words[y]
               && memcmp(w->words + x, w->words + y,
                      grammar_frame_words(w->g, w->words[x]) * sizeof(uint32_t))
                      == 0);
}


static uint32_t
hash_of(const grammar_work_t *w, const grammar_thread_t *t, uint32_t n)
{
    uint64_t h = n;
    uint32_t i, f, j, size;

    for (i = 0; i < n; i++) {
        f = t[i].up;
        h = (h ^ t[i].pos) * 0x9e3779b97f4a7c15ull;
        size = f == 0 ? 0 : grammar_frame_words(w->g, w->words[f]);
        for (j = 0; j < size && j < HASHED; j++) {
            h = (h ^ w->words[f + j]) * 0x9e3779b97f4a7c15ull;
        }
        h ^= h >> 32;
    }

    return (uint32_t) h;
}


/* The number of n threads, whose frames were made from word was on: one that
 * there is, a new one, or, if no more can stay, that of the depth. */
static uint32_t
config_of(grammar_walk_t *k, const grammar_thread_t *t, uint32_t n,
    uint32_t depth, uint32_t was)
{
    uint32_t h = hash_of(&k->w, t, n), i, c;
    config_t *x;

    assert(n > 0 && n <= GRAMMAR_THREADS_MAX && depth < DEPTH);
    for (;; h++) {
        c = k->table[h % TABLE];
        if (c == 0) {
            break;
        }
        x = &k->configs[c];
        for (i = 0; x->n == n && i < n && k->pool[x->at + i].pos == t[i].pos
                    && same_frame(&k->w, k->pool[x->at + i].up, t[i].up);
             i++) {
        }
        if (i == n) {
            k->w.used = was;
            return c;
        }
    }

    if (!k->full
        && (k->configs_n == CONFIGS || n > POOL - k->pool_n
            || k->w.used - k->w.base > WALK_WORDS / 2)) {
        k->full = 1;
        k->floor = was;
    }
    if (k->full) {
        c = CONFIGS + depth;
        x = &k->configs[c];
        x->at = POOL + depth * GRAMMAR_THREADS_MAX;
    } else {
        c = k->configs_n++;
        x = &k->configs[c];
        x->at = k->pool_n;
        k->pool_n += n;
        k->table[h % TABLE] = (uint16_t) c;
    }
    x->n = (uint16_t) n;
    x->row = 0;
    x->used = k->w.used;
    memcpy(k->pool + x->at, t, n * sizeof(*t));

    return c;
}


/* Does a byte lead to a place or nowhere, whatever the stack is?  up: above a
 * frame, of which more may be known; 0: above any. */
static int
steps_alone(
    const grammar_walk_t *k, const grammar_pos_t *p, uint8_t byte, uint32_t up)
{
    const grammar_pos_t *to;
    const grammar_obj_t *x;

    if (p->map == NULL) {
        return 0;
    }
    if (p->kind == POS_PLAIN) {
        return p->calls_n == 0 && !p->accept;
    }
    to = &k->w.g->pos[p->next[p->map[byte]]];
    x = &k->w.g->objects[p->spec];

    return p->next[p->map[byte]] == POS_DEAD
           || (to->key_class == 0 && to->nameless && !x->distinct
               && ((x->o.max == GRAMMAR_MANY && !x->ordered)
                   || (up != 0 && up == k->open)));
}


/* Where byte leads from the configuration at a depth, without looking. */
static uint32_t
config_step(grammar_walk_t *k, uint32_t depth, uint8_t byte)
{
    const config_t *x = &k->configs[k->at[depth]];
    const grammar_thread_t *in = k->pool + x->at;
    const grammar_pos_t *p = &k->w.g->pos[in->pos];
    grammar_thread_t out[GRAMMAR_THREADS_MAX];
    uint32_t n = x->n, was;

    assert(n > 0 && depth < TOKEN_LEN_MAX);
    if (k->full) {
        k->w.used = k->at[depth] < CONFIGS ? k->floor : x->used;
    }
    was = k->w.used;
    if (n == 1 && steps_alone(k, p, byte, in->up)) {
        out->pos = p->next[p->map[byte]];
        out->up = in->up;
        n = out->pos != POS_DEAD;
        if (k->home != 0 && out->pos == k->pool[k->configs[k->home].at].pos
            && out->up == k->pool[k->configs[k->home].at].up) {
            return k->home;
        }
    } else if (n == 1 && in->pos == POS_DONE && byte >= 0x20 && byte < 0x80
               && byte != '"' && byte != '\\' && counts_chars(&k->w, in->up)) {
        out->pos = POS_DONE;
        out->up = count_one(&k->w, in->up);
        n = out->up != 0;
    } else {
        k->w.out = out;
        n = grammar_step(&k->w, in, n, byte);
    }
    if (n == 0) {
        k->w.used = was;
        return DEAD;
    }

    return config_of(k, out, n, depth + 1, was);
}


/* Notes all bytes that lead nowhere from one that many ways lead on from. */
static void
row_fill(grammar_walk_t *k, const config_t *x, uint16_t *row)
{
    uint64_t set[4] = {0};
    uint32_t i;

    for (i = 0; i < x->n; i++) {
        grammar_first(
            &k->w, k->pool[x->at + i].pos, k->pool[x->at + i].up, set);
    }
    for (i = 0; i < 256; i++) {
        if (row[i] == UNKNOWN && !(set[i / 64] >> i % 64 & 1)) {
            row[i] = DEAD;
        }
    }
}


/* Where byte leads, noted in the row, which one that stays gets when it is
 * first stepped from. */
static uint32_t
config_next(grammar_walk_t *k, uint32_t depth, uint8_t byte)
{
    uint32_t c = k->at[depth], to;
    config_t *x = &k->configs[c];

    if (c < CONFIGS && x->row == 0 && k->rows_n < ROWS) {
        x->row = (uint16_t) k->rows_n++;
        k->row[depth] = k->rows[x->row];
        memset(k->row[depth], 0, sizeof(k->rows[0]));
        if (k->many[depth]) {
            row_fill(k, x, k->row[depth]);
            if (k->row[depth][byte] == DEAD) {
                return DEAD;
            }
        }
    }
    to = config_step(k, depth, byte);
    if (k->row[depth] != NULL && to < CONFIGS) {
        k->row[depth][byte] = (uint16_t) to;
    }
    assert(to != UNKNOWN);

    return to;
}


/* The same by what was noted, if it was. */
static inline uint32_t
next_of(grammar_walk_t *k, uint32_t depth, uint8_t byte)
{
    uint32_t c = k->row[depth] == NULL ? UNKNOWN : k->row[depth][byte];

    return c != UNKNOWN ? c : config_next(k, depth, byte);
}


/* --- walks -------------------------------------------------------------- */

static void
stand(grammar_walk_t *k, uint32_t depth, uint32_t c, uint32_t nodes)
{
    assert(depth < DEPTH && c >= FIRST);

    k->at[depth] = c;
    k->many[depth] = nodes > MANY;
    k->row[depth] = k->configs[c].row == 0 ? NULL : k->rows[k->configs[c].row];
}


static inline void
bits(const grammar_trie_t *t, uint32_t from, uint32_t to, uint32_t *mask,
    int set)
{
    uint32_t i, id;

    assert(from <= to);
    for (i = from; i < to; i++) {
        id = t->ids[i];
        if (set) {
            mask[id / 32] |= 1u << id % 32;
        } else {
            mask[id / 32] &= ~(1u << id % 32);
        }
    }
}


/* At depth are the children of node i, or of none that is known: NONE.  ROOTS:
 * the roots.  Their list is looked for when one of them leads nowhere. */
static inline void
below(grammar_walk_t *k, uint32_t depth, uint32_t i)
{
    assert(depth < DEPTH);

    k->kid[depth] = NULL;
    k->up[depth] = i;
}


/* The list of the children at depth, if there is one. */
static void
find_list(grammar_walk_t *k, const grammar_trie_t *t, uint32_t depth)
{
    uint32_t lo = 0, hi = t->wide_n, mid, i = k->up[depth];

    k->up[depth] = NONE;
    if (i == NONE || (i != ROOTS && !t->nodes[i].wide)) {
        return;
    }
    while (i != ROOTS && hi - lo > 1) {
        mid = (lo + hi) / 2;
        *(t->wide[mid].node > i ? &hi : &lo) = mid;
    }
    k->kid[depth] = t->kids + t->wide[lo].kids;
    k->kids[depth] = t->kids + t->wide[lo + 1].kids;
}


/* Behind a node that leads nowhere: the next one at its depth whose byte is not
 * noted to lead nowhere either, or where the last one of them ends. */
static inline uint32_t
behind(grammar_walk_t *k, const grammar_trie_t *t,
    const grammar_node_of_trie_t *node)
{
    const uint16_t *row = k->row[node->depth];
    const grammar_kid_t *kid, *to;

    if (k->up[node->depth] != NONE) {
        find_list(k, t, node->depth);
    }
    kid = k->kid[node->depth];
    if (kid == NULL || row == NULL) {
        return node->end;
    }
    to = k->kids[node->depth];
    while (kid < to && (kid->node < node->end || row[kid->byte] == DEAD)) {
        kid++;
    }
    k->kid[node->depth] = kid;

    return kid < to ? kid->node : t->nodes[to[-1].node].end;
}


/* Sets the bits of all tokens of nodes from to end whose bytes pass, the first
 * ones from configuration c on. */
static void
walk_nodes(grammar_walk_t *k, const grammar_trie_t *t, uint32_t from,
    uint32_t end, uint32_t c, uint32_t *mask)
{
    const grammar_node_of_trie_t *node;
    uint32_t i;

    stand(k, t->nodes[from].depth, c, end - from);
    below(k, t->nodes[from].depth, from == 0 ? ROOTS : NONE);
    for (i = from; i < end;) {
        node = &t->nodes[i];
        assert(node->end > i && node->end <= t->nodes_n);
        c = next_of(k, node->depth, node->byte);
        if (c == DEAD) {
            i = behind(k, t, node);
            continue;
        }
        stand(k, node->depth + 1u, c, node->end - i);
        below(k, node->depth + 1u, i);
        bits(t, node->ids, node[1].ids, mask, 1);
        i++;
    }
}


static void
walk(grammar_walk_t *k, const grammar_trie_t *t, uint32_t c, uint32_t *mask)
{
    if (t->nodes_n > 0) {
        walk_nodes(k, t, 0, t->nodes_n, c, mask);
    }
}


/*
 * The mask has what tails may be from home on.  Puts right what is not so for
 * tokens of the rest: those which have more than so many characters, or whose
 * text does not lead home.
 */
static void
walk_rest(grammar_walk_t *k, const grammar_trie_t *t, uint32_t c, uint32_t home,
    uint32_t chars, uint32_t *mask)
{
    const grammar_node_of_trie_t *node;
    uint16_t none[256] = {0}, *heads = none;
    uint32_t i;

    /* where the first byte leads as it does from home, all is right */
    if (home != 0 && k->configs[home].row != 0) {
        heads = k->rows[k->configs[home].row];
    }
    stand(k, 0, c, t->nodes_n);
    for (i = 0; i < t->nodes_n;) {
        node = &t->nodes[i];
        if (node->chars <= chars) {
            i = node->end;
            continue;
        }
        c = next_of(k, node->depth, node->byte);
        if (c == DEAD) {
            bits(t, node->ids, t->nodes[node->end].ids, mask, 0);
            i = node->end;
        } else if (c == home || (node->depth == 0 && c == heads[node->byte])) {
            i = node->end;
        } else {
            stand(k, node->depth + 1u, c, node->end - i);
            bits(t, node->ids, node[1].ids, mask, 1);
            i++;
        }
    }
}


/* May text of any kind come where a thread stands? */
static int
is_plain(grammar_walk_t *k, const grammar_thread_t *t)
{
    const grammar_pos_t *p = &k->w.g->pos[t->pos];

    if (p->plain && p->kind == POS_KEY) {
        if (!grammar_key_free(&k->w, t->pos, t->up)) {
            return 0;
        }
        k->open = t->up;
    }

    return p->plain;
}


/* Where text leads from n threads, at least one of which is plain and all of
 * which are within a string; 0: no one place. */
static uint32_t
home_of(grammar_walk_t *k, const grammar_thread_t *t, uint32_t n)
{
    grammar_thread_t out[GRAMMAR_THREADS_MAX];
    uint32_t i, j, m = 0;

    for (i = 0; i < n; i++) {
        if (!is_plain(k, &t[i])) {
            continue;
        }
        out[m].pos = k->w.g->pos[t[i].pos].home;
        out[m].up = t[i].up;
        if (out[m].pos == POS_DEAD) {
            return 0;
        }
        for (j = 0;
             j < m && (out[j].pos != out[m].pos || out[j].up != out[m].up);
             j++) {
        }
        m += j == m;
    }
    assert(m > 0);

    return config_of(k, out, m, 0, k->w.used);
}


/* Are all within a string, and one at least where any text may come? */
static int
in_text(grammar_walk_t *k, const grammar_thread_t *t, uint32_t n)
{
    uint32_t i, plain = 0;

    for (i = 0; i < n; i++) {
        if (is_plain(k, &t[i])) {
            plain++;
        } else if (!k->w.g->pos[t[i].pos].inside) {
            return 0;
        }
    }

    return plain > 0;
}


/* --- slices ------------------------------------------------------------- */

/* May a place decide alone, whatever the stack is? */
static int
is_alone(const grammar_pos_t *p)
{
    return p->map != NULL
           && (p->kind == POS_KEY || (p->calls_n == 0 && !p->accept));
}


static int
exit_put(grammar_walk_t *k, uint32_t from, uint32_t end, uint32_t pos)
{
    if (k->exits_n == EXITS) {
        return -1;
    }
    k->exits[k->exits_n].from = from;
    k->exits[k->exits_n].end = end;
    k->exits[k->exits_n++].pos = pos;

    return 0;
}


/* As behind(), where p decides. */
static inline uint32_t
behind_alone(grammar_walk_t *k, const grammar_trie_t *t,
    const grammar_node_of_trie_t *node, const grammar_pos_t *p)
{
    const grammar_kid_t *kid, *to;

    if (k->up[node->depth] != NONE) {
        find_list(k, t, node->depth);
    }
    kid = k->kid[node->depth];
    if (kid == NULL) {
        return node->end;
    }
    to = k->kids[node->depth];
    while (
        kid < to
        && (kid->node < node->end || p->next[p->map[kid->byte]] == POS_DEAD)) {
        kid++;
    }
    k->kid[node->depth] = kid;

    return kid < to ? kid->node : t->nodes[to[-1].node].end;
}


/* Does all that is below node i lead from pos to itself? */
static inline int
all_loops(grammar_walk_t *k, const grammar_trie_t *t, uint32_t i, uint32_t pos)
{
    uint32_t at = pos % LOOPS;

    if (t->below == NULL || t->below[i] >= KIND_NEVER) {
        return 0;
    }
    if (k->loops_of[at] != pos) {
        k->loops_of[at] = pos;
        k->loops[at] = grammar_text_loops(k->w.g, pos);
    }

    return (t->below[i] & ~k->loops[at]) == 0;
}


/* The bits of what pos decides alone, and where it does not.  How many nodes
 * were looked at; 0: there are too many exits. */
static uint32_t
slice_walk(
    grammar_walk_t *k, const grammar_trie_t *t, uint32_t pos, uint32_t *mask)
{
    const grammar_pos_t *all = k->w.g->pos, *stack[DEPTH], *p;
    const grammar_node_of_trie_t *node;
    uint32_t i, to, nodes = 0;
    int rc = 0;

    k->exits_n = 0;
    memset(k->loops_of, 0, sizeof(k->loops_of)); /* POS_DEAD's */
    stack[0] = &all[pos];
    below(k, 0, ROOTS);
    for (i = 0; i < t->nodes_n && rc == 0; nodes++) {
        node = &t->nodes[i];
        p = stack[node->depth];
        to = p->next[p->map[node->byte]];
        if (p->kind == POS_KEY && !steps_alone(k, p, node->byte, 0)) {
            rc = exit_put(k, i, node->end, (uint32_t) (p - all));
            i = node->end;
            continue;
        }
        if (to == POS_DEAD) {
            i = behind_alone(k, t, node, p);
            continue;
        }
        if (node->end > i + SOME && all_loops(k, t, i, to)) {
            bits(t, node->ids, t->nodes[node->end].ids, mask, 1);
            i = node->end;
            continue;
        }
        bits(t, node->ids, node[1].ids, mask, 1);
        if (is_alone(&all[to])) {
            stack[node->depth + 1] = &all[to];
            below(k, node->depth + 1u, i);
            i++;
        } else {
            rc = node->end > i + 1 ? exit_put(k, i + 1, node->end, to) : 0;
            i = node->end;
        }
    }

    return rc == 0 ? nodes : 0;
}


/* Keeps a slice that was dear; its bytes, 0: it is not kept. */
static size_t
slice_keep(grammar_walk_t *k, const grammar_vocab_t *v, uint32_t pos,
    const uint32_t *mask, grammar_slices_t *slices)
{
    size_t bits_size = v->words * sizeof(*mask),
           exits_size = k->exits_n * sizeof(exit_t);
    struct grammar_slice_s *s;

    if (sizeof(*s) + bits_size + exits_size > slices->room) {
        return 0;
    }
    s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return 0;
    }
    s->mask = malloc(bits_size + 1);
    s->exits = malloc(exits_size + 1);
    if (s->mask == NULL || s->exits == NULL) {
        free(s->mask);
        free(s->exits);
        free(s);
        return 0;
    }
    memcpy(s->mask, mask, bits_size);
    memcpy(s->exits, k->exits, exits_size);
    s->exits_n = k->exits_n;
    s->v = v;
    s->pos = pos;
    s->next = slices->first;
    slices->first = s;

    return sizeof(*s) + bits_size + exits_size;
}


/* The mask of one thread in a place that decides much alone; 0: it cannot be
 * made so. */
static int
walk_slice(grammar_walk_t *k, const grammar_vocab_t *v,
    const grammar_thread_t *t, uint32_t *mask, grammar_slices_t *slices)
{
    const struct grammar_slice_s *s = slices->first;
    grammar_thread_t at = *t;
    const exit_t *exits;
    uint32_t i, n, c = 0;

    while (s != NULL && (s->pos != t->pos || s->v != v)) {
        s = s->next;
    }
    if (s != NULL) {
        memcpy(mask, s->mask, v->words * sizeof(*mask));
        exits = s->exits;
        n = s->exits_n;
    } else {
        i = slice_walk(k, &v->all, t->pos, mask);
        if (i == 0) {
            memset(mask, 0, v->words * sizeof(*mask));
            return 0;
        }
        slices->room -= i < LARGE ? 0 : slice_keep(k, v, t->pos, mask, slices);
        exits = k->exits;
        n = k->exits_n;
    }
    for (i = 0; i < n; i++) {
        if (c == 0 || at.pos != exits[i].pos) {
            at.pos = exits[i].pos;
            c = config_of(
                k, &at, 1, v->all.nodes[exits[i].from].depth, k->w.used);
        }
        if (c < CONFIGS || k->configs[c].at != 0) {
            walk_nodes(k, &v->all, exits[i].from, exits[i].end, c, mask);
        }
    }

    return 1;
}


void
grammar_slices_free(grammar_slices_t *slices)
{
    struct grammar_slice_s *s = slices->first, *next;

    for (; s != NULL; s = next) {
        next = s->next;
        free(s->mask);
        free(s->exits);
        free(s);
    }
    slices->first = NULL;
}


/* --- one mask ----------------------------------------------------------- */

/* All that is allowed of n threads, but for ends. */
static void
compute(grammar_walk_t *k, const grammar_vocab_t *v, const grammar_thread_t *t,
    uint32_t n, uint32_t *mask, grammar_slices_t *slices)
{
    uint32_t c = config_of(k, t, n, 0, k->w.used), home = 0, chars = 0;
    int enough = 0, text = in_text(k, t, n);

    if (text) {
        home = home_of(k, t, n);
        memcpy(mask, v->plain, v->words * sizeof(*mask));
    } else {
        chars = n == 1 ? chars_left(&k->w, t, &enough) : 0;
        chars =
            n == 1 && chars == 0 ? grammar_text_left(k->w.g, t->pos) : chars;
        home = chars > 0 && enough ? c : 0;
        if (chars > 0) {
            slice(v, chars, mask);
        } else {
            memset(mask, 0, v->words * sizeof(*mask));
        }
    }

    if (!text && chars == 0 && n == 1 && is_alone(&k->w.g->pos[t->pos])
        && walk_slice(k, v, t, mask, slices)) {
        return;
    }
    if (home == 0) {
        walk(k, text || chars > 0 ? &v->rest : &v->all, c, mask);
        return;
    }
    assert(home < CONFIGS);
    k->home = k->configs[home].n == 1 ? home : 0;
    walk(k, &v->tails, home, mask);
    if (chars > 0) {
        walk_rest(k, &v->rest, c, 0, chars, mask);
    } else if (c != home) {
        walk_rest(k, &v->rest, c, home, 0, mask);
    }
}


/* --- the whole ---------------------------------------------------------- */

/* Room for the state and what a walk adds to it. 0, or -1: no memory. */
static int
walk_room(grammar_walk_t *k, const grammar_state_t *st)
{
    uint32_t *p;

    if (k->depth_cap < st->used) {
        p = realloc(k->depth, st->used * sizeof(*p));
        if (p == NULL) {
            return -1;
        }
        k->depth = p;
        k->depth_cap = st->used;
    }
    if (k->cap < st->used + WALK_WORDS) {
        p = realloc(k->words, (st->used + WALK_WORDS) * sizeof(*p));
        if (p == NULL) {
            return -1;
        }
        k->words = p;
        k->cap = st->used + WALK_WORDS;
    }

    return 0;
}


/* The frames' distances from the nearest end, at most. */
static void
depths(grammar_walk_t *k, const grammar_state_t *st)
{
    const grammar_thread_t *t = threads_of(st);
    uint32_t i, f, n;

    assert(k->depth_cap >= st->used);
    memset(k->depth, 0, st->used * sizeof(*k->depth));
    for (i = 0; i < st->threads; i++) {
        for (f = t[i].up, n = 1; f != 0; f = st->words[f + 1], n++) {
            k->depth[f] = n > k->depth[f] ? n : k->depth[f];
        }
    }
}


int
grammar_walk(const grammar_t *g, const grammar_vocab_t *v,
    const grammar_state_t *st, uint32_t *mask, grammar_shape_t *shape,
    grammar_slices_t *slices)
{
    const grammar_thread_t *t = threads_of(st);
    grammar_walk_t *k = walk_get(v->walks);
    uint32_t i;

    assert(st->threads <= GRAMMAR_THREADS_MAX);
    if (k == NULL || walk_room(k, st) != 0) {
        if (k != NULL) {
            walk_free(k);
        }
        return -1;
    }
    memcpy(k->words, st->words, st->used * sizeof(*k->words));
    depths(k, st);
    memset(&k->w, 0, sizeof(k->w));
    k->w.g = g;
    k->w.words = k->words;
    k->w.cap = k->cap;
    k->w.base = k->w.used = st->used;
    k->w.depth = k->depth;
    k->configs_n = FIRST;
    k->rows_n = 1;
    k->pool_n = k->full = k->floor = k->home = k->open = 0;
    memset(k->table, 0, sizeof(k->table));

    if (st->threads > 0) {
        compute(k, v, t, st->threads, mask, slices);
    } else {
        memset(mask, 0, v->words * sizeof(*mask));
    }
    if (grammar_ends(&k->w, t, st->threads)) {
        for (i = 0; i < v->words; i++) {
            mask[i] |= v->ends[i];
        }
    }
    shape->deep = k->w.deep;
    shape->aux = k->w.deep_aux;
    walk_put(v->walks, k);

    return 0;
}
