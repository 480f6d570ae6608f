/*
 * Compiled grammars: see grammar_cache.h.
 *
 * DESIGN.  A table of a few hundred places under one lock, looked through for
 * a hash and then for the text itself.  A place is free, being compiled, or
 * has an answer: a grammar, or the sentence that refused it, which is
 * forgotten after a while.  What is compiled is compiled without the lock;
 * who asks for the same meanwhile sleeps until it is there, so a crowd with
 * one schema costs one compilation.
 *
 *      FREE ──get──> BUILDING ──┬─> READY ────least used, no room──> FREE
 *                               └─> REFUSED ──after refused_us─────> FREE
 *
 * A grammar has an owner for the table and one for each request: what is
 * dropped here lives on for those who have it.
 *
 * ROOM.  Grammars grow by their masks while they are used, so they are counted
 * anew whenever one comes; then those used longest ago go until the sum fits.
 *
 * The vocabulary's tries are made when the first grammar is asked for: who
 * never does has neither their memory nor the time.
 *
 * OWNERSHIP.  The lock owns all places; a place that is BUILDING is its
 * builder's.
 */
#include "grammar_cache.h"
#include "clock.h"
#include "space.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLACES 512

enum { FREE, BUILDING, READY, REFUSED };

typedef struct {
    uint32_t state;
    uint64_t hash;
    uint64_t used;               /* READY: grows with each look */
    uint64_t until_us;           /* REFUSED */
    grammar_spec_t spec;         /* its texts are in block */
    char *block;                 /* owned */
    grammar_t *g;                /* READY: one owner is the table */
    char err[GRAMMAR_CACHE_ERR]; /* REFUSED */
} place_t;

struct grammar_cache_s {
    grammar_cache_cfg_t cfg;
    pthread_mutex_t lock;
    pthread_cond_t built;
    uint64_t looks;
    grammar_vocab_t *vocab; /* atomic; NULL: not made yet */
    place_t places[PLACES];
};


/* A number that equal specifications share. */
static uint64_t
hash_of(const grammar_spec_t *s)
{
    static const uint64_t key[2] = {0, 0}; /* what is found is compared */
    const uint32_t words[] = {s->type, s->flags, s->one};
    const space_part_t parts[] = {{(const uint8_t *) words, sizeof(words)},
        {(const uint8_t *) s->text, s->len},
        {(const uint8_t *) s->tools, s->tools_len}};

    return space_of(key, parts, sizeof(parts) / sizeof(parts[0]));
}


static int
same_text(const char *a, size_t a_len, const char *b, size_t b_len)
{
    return a_len == b_len && (a_len == 0 || memcmp(a, b, a_len) == 0);
}


static int
same(const grammar_spec_t *a, const grammar_spec_t *b)
{
    return a->type == b->type && a->flags == b->flags && a->one == b->one
           && same_text(a->text, a->len, b->text, b->len)
           && same_text(a->tools, a->tools_len, b->tools, b->tools_len);
}


static void
release(place_t *p)
{
    grammar_close(p->g);
    free(p->block);
    memset(p, 0, sizeof(*p));
}


/* The place of s; NULL: it has none.  What has come of age goes. */
static place_t *
place_of(
    grammar_cache_t *c, const grammar_spec_t *s, uint64_t hash, uint64_t now_us)
{
    place_t *p, *found = NULL;

    for (p = c->places; p < c->places + PLACES; p++) {
        if (p->state == REFUSED && now_us >= p->until_us) {
            release(p);
        }
        if (p->state != FREE && p->hash == hash && same(&p->spec, s)) {
            found = p;
        }
    }

    return found;
}


/* What a place holds, but for the table itself. */
static uint64_t
bytes_of(const place_t *p)
{
    uint64_t n = p->spec.len + p->spec.tools_len;

    return p->state == READY ? n + grammar_memory(p->g) : n;
}


/* The place that has waited longest for a look, but keep; NULL: none may go. */
static place_t *
oldest(grammar_cache_t *c, const place_t *keep)
{
    place_t *p, *old = NULL;

    for (p = c->places; p < c->places + PLACES; p++) {
        if ((p->state == READY || p->state == REFUSED) && p != keep
            && (old == NULL || p->used < old->used)) {
            old = p;
        }
    }

    return old;
}


/* Drops what was used longest ago until the rest has room; not keep. */
static void
make_room(grammar_cache_t *c, const place_t *keep)
{
    uint64_t sum = 0, n;
    place_t *p;

    for (p = c->places; p < c->places + PLACES; p++) {
        sum += bytes_of(p);
    }

    while (sum > c->cfg.bytes && (p = oldest(c, keep)) != NULL) {
        n = bytes_of(p);
        assert(n <= sum);
        sum -= n;
        release(p);
    }
}


/* A place for s, which has none; NULL: no memory, or all are being built. */
static place_t *
take_place(grammar_cache_t *c, const grammar_spec_t *s, uint64_t hash)
{
    place_t *p;
    char *block;

    for (p = c->places; p < c->places + PLACES && p->state != FREE; p++) {
    }
    if (p == c->places + PLACES) {
        p = oldest(c, NULL);
        if (p == NULL) {
            return NULL;
        }
        release(p);
    }

    block = malloc(s->len + s->tools_len + 1);
    if (block == NULL) {
        return NULL;
    }
    if (s->len > 0) {
        memcpy(block, s->text, s->len);
    }
    if (s->tools_len > 0) {
        memcpy(block + s->len, s->tools, s->tools_len);
    }

    p->state = BUILDING;
    p->hash = hash;
    p->spec = *s;
    p->spec.text = block;
    p->spec.tools = s->tools == NULL ? NULL : block + s->len;
    p->block = block;

    return p;
}


/* What a place with an answer says. */
static void
answer(grammar_cache_t *c, place_t *p, grammar_t **g, char *err, size_t errlen)
{
    assert(p->state == READY || p->state == REFUSED);

    p->used = ++c->looks;
    *g = p->state == READY ? grammar_ref(p->g) : NULL;
    if (*g == NULL) {
        (void) snprintf(err, errlen, "%s", p->err);
    }
}


/* --- compiling ---------------------------------------------------------- */

/* Texts, each behind its length, as grammar_open_choice wants them. */
static grammar_t *
open_choice(
    const grammar_spec_t *s, const grammar_opts_t *o, char *err, size_t errlen)
{
    const char **texts = NULL;
    size_t *lens = NULL, at = 0, n = 0;
    grammar_t *g = NULL;
    uint32_t len;

    texts = calloc(s->len / sizeof(len) + 1, sizeof(*texts));
    lens = calloc(s->len / sizeof(len) + 1, sizeof(*lens));
    if (texts == NULL || lens == NULL) {
        (void) snprintf(err, errlen, "out of memory");
        goto done;
    }

    while (s->len - at >= sizeof(len)) {
        memcpy(&len, s->text + at, sizeof(len));
        at += sizeof(len);
        if (len > s->len - at) {
            break;
        }
        texts[n] = s->text + at;
        lens[n++] = len;
        at += len;
    }

    if (at != s->len || n == 0) {
        (void) snprintf(err, errlen, "the list of choices is cut short");
    } else {
        g = grammar_open_choice(texts, lens, n, o, err, errlen);
    }

done:

    free((void *) texts);
    free(lens);

    return g;
}


/* Calls of what is declared, in the form that the model's family has. */
static grammar_t *
open_tools(const grammar_cache_t *c, const grammar_spec_t *s,
    const grammar_opts_t *o, char *err, size_t errlen)
{
    uint32_t flags = s->one ? TOOLS_GRAMMAR_ONE : 0;

    if (c->cfg.tools == NULL) {
        (void) snprintf(err, errlen, "the model has no form for calls");
        return NULL;
    }
    flags |= s->flags & LLM_GRAMMAR_AUTO ? TOOLS_GRAMMAR_AUTO : 0u;

    return tools_grammar(c->cfg.tools, s->tools, s->tools_len, s->text, s->len,
        flags, o, err, errlen);
}


static grammar_t *
compile(grammar_cache_t *c, const grammar_spec_t *s, char *err, size_t errlen)
{
    grammar_opts_t o;

    memset(&o, 0, sizeof(o));
    o.compact = (s->flags & LLM_GRAMMAR_COMPACT) != 0;
    o.ordered = (s->flags & LLM_GRAMMAR_ORDERED) != 0;
    o.lenient = (s->flags & LLM_GRAMMAR_LENIENT) != 0;
    o.until_us = clock_us() + c->cfg.compile_us;

    switch (s->type) {
    case LLM_GRAMMAR_JSON:
        return grammar_open_json(&o, err, errlen);
    case LLM_GRAMMAR_SCHEMA:
        return grammar_open_schema(s->text, s->len, &o, err, errlen);
    case LLM_GRAMMAR_REGEX:
        return grammar_open_regex(s->text, s->len, &o, err, errlen);
    case LLM_GRAMMAR_EBNF:
        return grammar_open_ebnf(s->text, s->len, &o, err, errlen);
    case LLM_GRAMMAR_CHOICE:
        return open_choice(s, &o, err, errlen);
    case LLM_GRAMMAR_TAGS:
        return grammar_open_tags(s->text, s->len, &o, err, errlen);
    case LLM_GRAMMAR_TOOLS:
        return open_tools(c, s, &o, err, errlen);
    default:
        (void) snprintf(err, errlen, "this kind is not known");
        return NULL;
    }
}


/* The tries, made by the first who asks; 0, or -1: no memory. */
static int
need_vocab(grammar_cache_t *c)
{
    const grammar_mark_t *marks;
    grammar_vocab_t *v;
    uint32_t n;

    if (grammar_cache_vocab(c) != NULL) {
        return 0;
    }

    n = tools_marks(c->cfg.tools, &marks);
    v = grammar_vocab_open(c->cfg.tok, marks, n);
    if (v == NULL) {
        return -1;
    }

    (void) pthread_mutex_lock(&c->lock);
    if (c->vocab == NULL) {
        __atomic_store_n(&c->vocab, v, __ATOMIC_RELEASE);
        v = NULL;
    }
    (void) pthread_mutex_unlock(&c->lock);
    grammar_vocab_close(v); /* another was faster */

    return 0;
}


static void
count(uint64_t *row, uint64_t n)
{
    (void) __atomic_add_fetch(row, n, __ATOMIC_RELAXED);
}


/* Builds what place p is for; the lock is held, and let go meanwhile. */
static void
build(grammar_cache_t *c, place_t *p)
{
    char err[GRAMMAR_CACHE_ERR] = "";
    uint64_t start = clock_us();
    grammar_t *g = NULL;

    assert(p->state == BUILDING);
    (void) pthread_mutex_unlock(&c->lock);

    if (need_vocab(c) != 0) {
        (void) snprintf(err, sizeof(err), "out of memory");
    } else {
        g = compile(c, &p->spec, err, sizeof(err));
    }
    assert(g != NULL || err[0] != '\0');

    (void) pthread_mutex_lock(&c->lock);
    if (c->cfg.state != NULL) {
        count(&c->cfg.state->grammars_compiled, g != NULL);
        count(&c->cfg.state->grammars_refused, g == NULL);
        count(&c->cfg.state->grammar_us, clock_us() - start);
    }
    p->state = g != NULL ? READY : REFUSED;
    p->g = g;
    p->used = ++c->looks;
    p->until_us = clock_us() + c->cfg.refused_us;
    memcpy(p->err, err, sizeof(p->err));
    make_room(c, p);
    (void) pthread_cond_broadcast(&c->built);
}


/* --- looking ------------------------------------------------------------ */

int
grammar_cache_find(grammar_cache_t *c, const grammar_spec_t *s, uint64_t now_us,
    grammar_t **g, char *err, size_t errlen)
{
    uint64_t hash = hash_of(s);
    place_t *p;
    int known;

    assert(errlen > 0);
    *g = NULL;

    (void) pthread_mutex_lock(&c->lock);
    p = place_of(c, s, hash, now_us);
    known = p != NULL && p->state != BUILDING;
    if (known) {
        answer(c, p, g, err, errlen);
        if (c->cfg.state != NULL) {
            count(&c->cfg.state->grammars_reused, *g != NULL);
        }
    }
    (void) pthread_mutex_unlock(&c->lock);

    return known;
}


void
grammar_cache_get(grammar_cache_t *c, const grammar_spec_t *s, grammar_t **g,
    char *err, size_t errlen)
{
    uint64_t hash = hash_of(s);
    place_t *p;

    assert(errlen > 0);
    *g = NULL;

    (void) pthread_mutex_lock(&c->lock);
    while ((p = place_of(c, s, hash, clock_us())) != NULL
           && p->state == BUILDING) {
        (void) pthread_cond_wait(&c->built, &c->lock);
    }
    if (p == NULL && (p = take_place(c, s, hash)) != NULL) {
        build(c, p);
    }
    if (p != NULL) {
        answer(c, p, g, err, errlen);
    } else {
        (void) snprintf(err, errlen, "out of memory");
    }
    (void) pthread_mutex_unlock(&c->lock);
}


const grammar_vocab_t *
grammar_cache_vocab(const grammar_cache_t *c)
{
    return __atomic_load_n(&c->vocab, __ATOMIC_ACQUIRE);
}


/* --- opening ------------------------------------------------------------ */

grammar_cache_t *
grammar_cache_open(const grammar_cache_cfg_t *cfg)
{
    grammar_cache_t *c = calloc(1, sizeof(*c));

    assert(cfg->tok != NULL && cfg->compile_us > 0);

    if (c != NULL) {
        c->cfg = *cfg;
        (void) pthread_mutex_init(&c->lock, NULL);
        (void) pthread_cond_init(&c->built, NULL);
    }

    return c;
}


void
grammar_cache_close(grammar_cache_t *c)
{
    place_t *p;

    if (c == NULL) {
        return;
    }

    for (p = c->places; p < c->places + PLACES; p++) {
        assert(p->state != BUILDING);
        release(p);
    }
    grammar_vocab_close(c->vocab);
    (void) pthread_mutex_destroy(&c->lock);
    (void) pthread_cond_destroy(&c->built);
    free(c);
}
