/*
 * Text to ids by merges: BPE as its inventors have it.
 *
 * DESIGN.  The pre-tokenizer cuts the text into words (token_pre.c).  A word
 * becomes a linked list of its first symbols, and again and again the
 * neighbouring pair whose merge has the lowest rank is joined (the leftmost of
 * equals), until no pair has a merge.  A heap of candidates gives O(n log n),
 * as in token_spm.c: joining two symbols adds at most two candidates and
 * leaves stale ones behind, which are recognised when they come up by their
 * length.
 *
 *      | Ġ | h | e | l | l | o |      candidates: (rank, left symbol, bytes)
 *      | Ġ | he    | ll    | o |      a stale one: left + its next != bytes
 *
 * The first symbols are the word's bytes (byte-level) or its characters, where
 * one that is no piece becomes its bytes' pieces or the unknown token.
 *
 * Where the model was trained so (Llama 3), a word that is itself a piece is
 * taken whole, whatever the merges would make of it.
 *
 * Short words are looked up first among those that were encoded before
 * (token_cache.c).  Vocabularies of characters often come without a
 * pre-tokenizer, a whole text being one word, which is cut at its seams
 * (token_seam.c).
 *
 * Memory: a work area from malloc for one call, grown to the longest word: at
 * most about 80 bytes for each byte of it, real words being short.  Runs on
 * text_in's threads.
 */
#include "token_impl.h"
#include "llm_err.h"
#include "utf8.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BPE_NIL UINT32_MAX

typedef struct {
    uint32_t id;
    uint32_t len; /* bytes; 0: joined to its left */
    uint32_t prev, next;
} bpe_sym_t;

typedef struct {
    uint32_t rank;
    uint32_t left;
    uint32_t bytes; /* of both */
    uint32_t joint; /* what they become */
} bpe_pair_t;

typedef struct {
    const token_t *t;
    token_sink_t *s;
    bpe_sym_t *syms; /* [syms_cap] */
    size_t syms_cap;
    bpe_pair_t *heap; /* [heap_cap] */
    size_t heap_n, heap_cap;
    size_t from; /* ids there were before the last word */
    size_t work; /* bytes and joins since cancellation was last asked for */
} bpe_t;


/* --- merges ------------------------------------------------------------- */

token_merge_t *
token_bpe_slot(const token_t *t, uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t) left << 32 | right) * 0x9e3779b97f4a7c15ull;
    token_merge_t *m;
    uint32_t i;

    h = (h ^ h >> 32) * 0xff51afd7ed558ccdull;

    /* half of the slots are empty, so this ends */
    for (i = (uint32_t) (h >> 32);; i++) {
        m = &t->joins[i & t->joins_mask];
        if (m->joint == 0 || (m->left == left && m->right == right)) {
            return m;
        }
    }
}


/* --- the heap ----------------------------------------------------------- */

static int
bpe_above(const bpe_pair_t *a, const bpe_pair_t *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->left < b->left);
}


/* A pair that may be joined, by rank, then by place. */
static int
bpe_push(bpe_t *w, const bpe_pair_t *p)
{
    bpe_pair_t *h;
    size_t i, cap;

    if (w->heap_n == w->heap_cap) {
        cap = w->heap_cap == 0 ? 256 : w->heap_cap * 2;
        h = realloc(w->heap, cap * sizeof(*h));
        if (h == NULL) {
            return -LLM_ERR_NO_MEMORY;
        }
        w->heap = h;
        w->heap_cap = cap;
    }

    h = w->heap;
    for (i = w->heap_n++; i > 0 && bpe_above(p, &h[(i - 1) / 2]);) {
        h[i] = h[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h[i] = *p;

    return 0;
}


static bpe_pair_t
bpe_pop(bpe_t *w)
{
    bpe_pair_t *h = w->heap;
    bpe_pair_t top, last;
    size_t i = 0, c;

    assert(w->heap_n > 0);

    top = h[0];
    last = h[--w->heap_n];

    while ((c = 2 * i + 1) < w->heap_n) {
        if (c + 1 < w->heap_n && bpe_above(&h[c + 1], &h[c])) {
            c++;
        }
        if (!bpe_above(&h[c], &last)) {
            break;
        }
        h[i] = h[c];
        i = c;
    }
    h[i] = last;

    return top;
}


/* --- a word ------------------------------------------------------------- */

/* Asks for cancellation if enough has been done since the last time. */
static int
bpe_did(bpe_t *w, size_t work)
{
    w->work += work;
    if (w->work < TOKEN_CANCEL_EVERY) {
        return 0;
    }
    w->work = 0;

    return token_sink_cancelled(w->s) ? -LLM_ERR_CANCELLED : 0;
}


/* Adds symbol left and its next to the candidates if they have a merge. */
static int
bpe_offer(bpe_t *w, uint32_t left)
{
    const bpe_sym_t *a = &w->syms[left];
    const token_merge_t *m;
    bpe_pair_t p;

    if (a->next == BPE_NIL) {
        return 0;
    }

    m = token_bpe_slot(w->t, a->id, w->syms[a->next].id);
    if (m->joint == 0) {
        return 0;
    }

    p.rank = m->rank;
    p.left = left;
    p.bytes = a->len + w->syms[a->next].len;
    p.joint = m->joint - 1;

    return bpe_push(w, &p);
}


/* Room for as many symbols as a word has bytes. */
static int
bpe_room(bpe_t *w, size_t n)
{
    bpe_sym_t *syms;

    if (n > w->syms_cap) {
        syms = realloc(w->syms, n * sizeof(*syms));
        if (syms == NULL) {
            return -LLM_ERR_NO_MEMORY;
        }
        w->syms = syms;
        w->syms_cap = n;
    }

    return 0;
}


static void
bpe_symbol(bpe_t *w, uint32_t at, uint32_t id, uint32_t len)
{
    assert(at < w->syms_cap);

    w->syms[at].id = id;
    w->syms[at].len = len;
    w->syms[at].prev = at == 0 ? BPE_NIL : at - 1;
    w->syms[at].next = at + 1;
}


/* A word's bytes as symbols; how many. */
static int64_t
bpe_bytes(bpe_t *w, const char *s, uint32_t n)
{
    uint32_t i, id;

    for (i = 0; i < n; i++) {
        id = w->t->byte_id[(uint8_t) s[i]];
        if (id == TOKEN_NONE) {
            return -LLM_ERR_BAD_TEXT;
        }
        bpe_symbol(w, i, id, 1);
    }

    return n;
}


/* Are there pieces for each byte of a character? */
static int
bpe_falls_back(const token_t *t, const char *s, uint32_t n)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        if (t->byte_id[(uint8_t) s[i]] == TOKEN_NONE) {
            return 0;
        }
    }

    return 1;
}


/* A word's characters as symbols; how many. */
static int64_t
bpe_chars(bpe_t *w, const char *s, uint32_t len)
{
    const token_t *t = w->t;
    uint32_t at, part, id, i, n = 0;
    int unknown = 0, got;

    for (at = 0; at < len; at += part) {
        got = utf8_char((const uint8_t *) s + at, len - at);
        part = got > 0 ? (uint32_t) got : 1;
        id = token_map_get(t, &t->merge, s + at, part);

        if (id != TOKEN_NONE) {
            bpe_symbol(w, n++, id, part);
        } else if (bpe_falls_back(t, s + at, part)) {
            for (i = 0; i < part; i++) {
                bpe_symbol(w, n++, t->byte_id[(uint8_t) s[at + i]], 1);
            }
        } else if (t->unk == TOKEN_NONE) {
            return -LLM_ERR_BAD_TEXT;
        } else if (unknown && t->fuse) {
            w->syms[n - 1].len += part;
            continue;
        } else {
            bpe_symbol(w, n++, t->unk, part);
            unknown = 1;
            continue;
        }
        unknown = 0;
    }

    assert(n <= len);

    return n;
}


/* A word as symbols, and all pairs of them offered. */
static int
bpe_symbols(bpe_t *w, const char *s, uint32_t len)
{
    int64_t n;
    uint32_t i;
    int rc = bpe_room(w, len);

    if (rc != 0) {
        return rc;
    }

    n = w->t->chars ? bpe_chars(w, s, len) : bpe_bytes(w, s, len);
    if (n < 0) {
        return (int) n;
    }
    assert(n > 0 && w->heap_n == 0);
    w->syms[n - 1].next = BPE_NIL;

    for (i = 0; i < n && rc == 0; i++) {
        rc = bpe_offer(w, i);
        rc = rc == 0 ? bpe_did(w, 1) : rc;
    }

    return rc;
}


static int
bpe_join(bpe_t *w)
{
    bpe_sym_t *a, *b;
    bpe_pair_t p;
    int rc = 0;

    while (w->heap_n > 0 && rc == 0) {
        rc = bpe_did(w, 1);

        p = bpe_pop(w);
        a = &w->syms[p.left];
        if (a->len == 0 || a->next == BPE_NIL
            || a->len + w->syms[a->next].len != p.bytes) {
            continue;
        }

        b = &w->syms[a->next];
        a->id = p.joint;
        a->len = p.bytes;
        a->next = b->next;
        b->len = 0;
        if (a->next != BPE_NIL) {
            w->syms[a->next].prev = p.left;
        }

        if (rc == 0 && a->prev != BPE_NIL) {
            rc = bpe_offer(w, a->prev);
        }
        if (rc == 0) {
            rc = bpe_offer(w, p.left);
        }
    }

    return rc;
}


/* The piece that is the whole word, TOKEN_NONE if none. */
static uint32_t
bpe_whole(const token_t *t, const char *s, size_t len)
{
    char piece[2 * TOKEN_PIECE_MAX];

    if (len > t->merge_max) {
        return TOKEN_NONE;
    }
    if (t->chars) {
        return token_map_get(t, &t->merge, s, len);
    }
    assert(2 * len <= sizeof(piece));

    return token_map_get(
        t, &t->merge, piece, token_alphabet_write(s, len, piece));
}


/* A word that was not seen lately. */
static int
bpe_make(bpe_t *w, const char *s, size_t len)
{
    uint32_t i, id;
    int rc;

    if (w->t->whole) {
        id = bpe_whole(w->t, s, len);
        if (id != TOKEN_NONE) {
            rc = bpe_did(w, len);
            return rc != 0 ? rc : token_sink_put(w->s, id);
        }
    }

    rc = bpe_symbols(w, s, (uint32_t) len);
    if (rc == 0) {
        rc = bpe_join(w);
    }

    for (i = 0; i != BPE_NIL && rc == 0; i = w->syms[i].next) {
        rc = token_sink_put(w->s, w->syms[i].id);
    }

    return rc;
}


/* A word that may have been seen. */
static int
bpe_part(bpe_t *w, const char *s, size_t len)
{
    size_t from = w->s->n;
    int rc;

    assert(len > 0 && len <= TOKEN_TEXT_MAX);

    rc = token_cache_known(w->t, 0, s, len, w->s);
    if (rc != 0) {
        return rc < 0 ? rc : bpe_did(w, len);
    }

    rc = bpe_make(w, s, len);
    if (rc == 0) {
        token_cache_note(w->t, 0, s, len, w->s, from);
    }

    return rc;
}


/* Called by the pre-tokenizer, word by word. */
static int
bpe_word(void *arg, const char *s, size_t len)
{
    bpe_t *w = arg;
    size_t at, end;
    int rc = 0;

    w->from = w->s->n;
    for (at = 0; at < len && rc == 0; at = end) {
        end = w->t->seams ? token_seam_next(w->t, s, len, at) : len;
        rc = bpe_part(w, s + at, end - at);
    }

    return rc;
}


static int
bpe_known(void *arg, unsigned level, const char *s, size_t len)
{
    bpe_t *w = arg;
    int rc = bpe_did(w, len);

    return rc != 0 ? rc : token_cache_known(w->t, level, s, len, w->s);
}


static void
bpe_note(void *arg, unsigned level, const char *s, size_t len)
{
    const bpe_t *w = arg;

    token_cache_note(w->t, level, s, len, w->s, w->from);
}


int
token_bpe_encode(
    const token_t *t, const char *text, size_t len, int first, token_sink_t *s)
{
    bpe_t w = {.t = t, .s = s};
    const token_words_t words = {bpe_word, bpe_known, bpe_note, &w};
    int rc;

    assert(t->joins != NULL && t->pre != NULL && t->cache != NULL);
    assert(t->bpe != t->chars);

    if (len == 0) {
        return 0;
    }

    /* where every byte is in some id, too long a text is known as such before
     * any work is spent on it */
    if (len > TOKEN_TEXT_MAX
        || (t->added == NULL && t->merge_max > 0
            && len / t->merge_max > s->cap - s->n)) {
        return -LLM_ERR_CONTEXT_FULL;
    }

    rc = token_pre_split(t->pre, text, len, first, &words);

    free(w.heap);
    free(w.syms);

    return rc;
}
