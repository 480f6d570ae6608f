/*
 * Text to ids as SentencePiece's BPE does it.
 *
 * DESIGN.  Spaces become U+2581, the text becomes a linked list of characters,
 * and again and again the neighbouring pair whose joint piece has the highest
 * score is joined (the leftmost of equals), until no pair is a piece.  A heap
 * of candidates gives O(n log n): joining two symbols adds at most two
 * candidates and leaves stale ones behind, which are recognised when they come
 * up by their length.
 *
 *      | ▁ | h | e | l | l | o |      candidates: (score, left symbol, bytes)
 *      | ▁ | he    | ll    | o |      a stale one: left + its next != bytes
 *
 * Before that the text may go through a character map, and pieces that the
 * model's maker set apart (user-defined) become symbols that nothing joins.
 *
 * The text is cut at its seams first (token_seam.c), and a short part is looked
 * up among those that were encoded before (token_cache.c).
 *
 * What is no piece at the end becomes byte pieces, or, where the vocabulary
 * has none, one unknown token for a whole run.  An unused piece may be joined
 * but not produced: it falls apart again into what it was joined from last.
 *
 * Memory: a work area from malloc for one call, at most about 60 bytes for
 * each byte of text; runs on text_in's threads.
 */
#include "token_impl.h"
#include "llm_err.h"
#include "utf8.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SPM_NIL       UINT32_MAX
#define SPM_TEXT_MAX  (1u << 29) /* bytes: three times that still fits */
#define SPM_SPACE     "\xe2\x96\x81"
#define SPM_SPACE_LEN 3

typedef struct {
    uint32_t at, len; /* in the work text; len 0: joined to its left */
    uint32_t prev, next;
    uint32_t whole; /* the user-defined piece it is, TOKEN_NONE: none */
} spm_sym_t;

typedef struct {
    float score;
    uint32_t left;
    uint32_t bytes; /* of both */
} spm_pair_t;

typedef struct {
    const token_t *t;
    char *text; /* normalised */
    uint32_t len;
    spm_sym_t *syms; /* [syms_cap] */
    uint32_t syms_n, syms_cap;
    uint32_t parts;   /* since cancellation was last asked for */
    spm_pair_t *heap; /* [heap_cap] */
    size_t heap_n, heap_cap;
    uint32_t *rev; /* [vocab] bytes of an unused piece's left part, or NULL */
} spm_t;


/* The length of the character at s (n bytes left), 1 if it is none. */
static uint32_t
spm_char_len(const char *s, size_t n)
{
    int len = utf8_char((const uint8_t *) s, n);

    return len > 0 ? (uint32_t) len : 1;
}


static void
spm_put_space(spm_t *w)
{
    memcpy(w->text + w->len, SPM_SPACE, SPM_SPACE_LEN);
    w->len += SPM_SPACE_LEN;
}


/* Fills w->text; it has room for every byte being a space, and the prefix. */
static void
spm_normalise(spm_t *w, const char *text, size_t len, int prefix)
{
    int collapse = w->t->collapse;
    size_t i = 0;

    if (collapse) {
        while (i < len && text[i] == ' ') {
            i++;
        }
    }

    if (i == len) {
        return;
    }

    if (prefix) {
        spm_put_space(w);
    }

    for (; i < len; i++) {
        if (text[i] != ' ') {
            w->text[w->len++] = text[i];
        } else if (!collapse || text[i - 1] != ' ') {
            spm_put_space(w);
        }
    }

    while (collapse && w->len >= SPM_SPACE_LEN
           && memcmp(w->text + w->len - SPM_SPACE_LEN, SPM_SPACE, SPM_SPACE_LEN)
                  == 0) {
        w->len -= SPM_SPACE_LEN;
    }
}


/* The symbol at s: its length; *whole is the piece it is, if user-defined. */
static uint32_t
spm_symbol(const spm_t *w, uint32_t at, uint32_t *whole)
{
    size_t n = 0;
    uint32_t v = 0;

    assert(at < w->len);

    if (w->t->user.edges != NULL) {
        v = token_trie_longest(&w->t->user, w->text + at, w->len - at, &n);
    }
    *whole = v == 0 ? TOKEN_NONE : v - 1;

    return v == 0 ? spm_char_len(w->text + at, w->len - at) : (uint32_t) n;
}


/* The text from at to end as symbols. */
static int
spm_symbols(spm_t *w, uint32_t at, uint32_t end)
{
    uint32_t i, from = at, whole, n = 0;
    spm_sym_t *syms;

    for (; at < end; n++) {
        at += spm_symbol(w, at, &whole);
    }

    if (n > w->syms_cap) {
        syms = realloc(w->syms, (size_t) n * sizeof(*syms));
        if (syms == NULL) {
            return -LLM_ERR_NO_MEMORY;
        }
        w->syms = syms;
        w->syms_cap = n;
    }

    for (i = 0, at = from; i < n; i++) {
        w->syms[i].at = at;
        w->syms[i].len = spm_symbol(w, at, &w->syms[i].whole);
        w->syms[i].prev = i == 0 ? SPM_NIL : i - 1;
        w->syms[i].next = i + 1 == n ? SPM_NIL : i + 1;
        at += w->syms[i].len;
    }

    assert(at == end);
    w->syms_n = n;

    return 0;
}


/* --- the heap ----------------------------------------------------------- */

static int
spm_above(const spm_pair_t *a, const spm_pair_t *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}


static void
spm_sift_up(spm_pair_t *h, size_t i)
{
    spm_pair_t p = h[i];

    while (i > 0 && spm_above(&p, &h[(i - 1) / 2])) {
        h[i] = h[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h[i] = p;
}


static spm_pair_t
spm_pop(spm_t *w)
{
    spm_pair_t *h = w->heap;
    spm_pair_t top, last;
    size_t i = 0, c;

    assert(w->heap_n > 0);

    top = h[0];
    last = h[--w->heap_n];

    while ((c = 2 * i + 1) < w->heap_n) {
        if (c + 1 < w->heap_n && spm_above(&h[c + 1], &h[c])) {
            c++;
        }
        if (!spm_above(&h[c], &last)) {
            break;
        }
        h[i] = h[c];
        i = c;
    }
    h[i] = last;

    return top;
}


/* Adds symbol left and its next to the candidates if they make a piece. */
static int
spm_offer(spm_t *w, uint32_t left)
{
    const spm_sym_t *a = &w->syms[left];
    uint32_t bytes, id;
    spm_pair_t *h;
    size_t cap;

    if (a->next == SPM_NIL || a->whole != TOKEN_NONE
        || w->syms[a->next].whole != TOKEN_NONE) {
        return 0;
    }

    bytes = a->len + w->syms[a->next].len;
    if (bytes > w->t->merge_max) {
        return 0;
    }

    id = token_map_get(w->t, &w->t->merge, w->text + a->at, bytes);
    if (id == TOKEN_NONE) {
        return 0;
    }

    if (w->t->type[id] == TOKEN_UNUSED) {
        assert(w->rev != NULL);
        w->rev[id] = a->len;
    }

    if (w->heap_n == w->heap_cap) {
        cap = w->heap_cap == 0 ? 256 : w->heap_cap * 2;
        h = realloc(w->heap, cap * sizeof(*h));
        if (h == NULL) {
            return -LLM_ERR_NO_MEMORY;
        }
        w->heap = h;
        w->heap_cap = cap;
    }

    w->heap[w->heap_n].score = w->t->score[id];
    w->heap[w->heap_n].left = left;
    w->heap[w->heap_n].bytes = bytes;
    spm_sift_up(w->heap, w->heap_n++);

    return 0;
}


/* --- joining ------------------------------------------------------------ */

/* The best pair of neighbours until there is none that is a piece. */
static int
spm_join(spm_t *w, const token_sink_t *s)
{
    uint32_t i, steps = 0;
    spm_sym_t *a, *b;
    spm_pair_t p;
    int rc = 0;

    for (i = 0; i < w->syms_n && rc == 0; i++) {
        if ((i + 1) % TOKEN_CANCEL_EVERY == 0 && token_sink_cancelled(s)) {
            return -LLM_ERR_CANCELLED;
        }
        rc = spm_offer(w, i);
    }

    while (rc == 0 && w->heap_n > 0) {
        if (++steps % TOKEN_CANCEL_EVERY == 0 && token_sink_cancelled(s)) {
            return -LLM_ERR_CANCELLED;
        }

        p = spm_pop(w);
        a = &w->syms[p.left];
        if (a->len == 0 || a->next == SPM_NIL
            || a->len + w->syms[a->next].len != p.bytes) {
            continue;
        }

        b = &w->syms[a->next];
        a->len += b->len;
        b->len = 0;
        a->next = b->next;
        if (a->next != SPM_NIL) {
            w->syms[a->next].prev = p.left;
        }

        if (a->prev != SPM_NIL) {
            rc = spm_offer(w, a->prev);
        }
        if (rc == 0) {
            rc = spm_offer(w, p.left);
        }
    }

    return rc;
}


/* --- output ------------------------------------------------------------- */

/* Text that is no piece: its bytes, or the unknown token once per run. */
static int
spm_put_raw(const token_t *t, const char *p, uint32_t len, token_sink_t *s)
{
    uint32_t i;
    int rc;

    for (i = 0; i < len; i++) {
        if (t->byte_id[(uint8_t) p[i]] == TOKEN_NONE) {
            break;
        }
    }

    if (i < len) {
        if (t->unk == TOKEN_NONE) {
            return -LLM_ERR_BAD_TEXT;
        }
        if (s->fused) {
            return 0;
        }
        rc = token_sink_put(s, t->unk);
        s->fused = 1;
        return rc;
    }

    for (i = 0; i < len; i++) {
        rc = token_sink_put(s, t->byte_id[(uint8_t) p[i]]);
        if (rc != 0) {
            return rc;
        }
    }

    return 0;
}


/*
 * One symbol.  The stack holds the right parts of unused pieces still to be
 * put; each level is at least a byte shorter, so a piece's length bounds it.
 */
static int
spm_put(const spm_t *w, uint32_t at, uint32_t len, token_sink_t *s)
{
    uint32_t stack_at[TOKEN_PIECE_MAX + 1], stack_len[TOKEN_PIECE_MAX + 1];
    uint32_t id, left, depth = 0;
    int rc;

    for (;;) {
        id = token_map_get(w->t, &w->t->merge, w->text + at, len);
        left = 0;
        if (id != TOKEN_NONE && w->rev != NULL
            && w->t->type[id] == TOKEN_UNUSED) {
            left = w->rev[id];
        }

        if (left > 0) {
            assert(left < len && depth <= TOKEN_PIECE_MAX);
            stack_at[depth] = at + left;
            stack_len[depth] = len - left;
            depth++;
            len = left;
            continue;
        }

        rc = id != TOKEN_NONE ? token_sink_put(s, id)
                              : spm_put_raw(w->t, w->text + at, len, s);
        if (rc != 0 || depth == 0) {
            return rc;
        }

        depth--;
        at = stack_at[depth];
        len = stack_len[depth];
    }
}


static int
spm_put_all(const spm_t *w, token_sink_t *s)
{
    uint32_t i, n = 0;
    int rc = 0;

    for (i = 0; i != SPM_NIL && rc == 0; i = w->syms[i].next) {
        if (++n % TOKEN_CANCEL_EVERY == 0 && token_sink_cancelled(s)) {
            return -LLM_ERR_CANCELLED;
        }
        rc = w->syms[i].whole != TOKEN_NONE
                 ? token_sink_put(s, w->syms[i].whole)
                 : spm_put(w, w->syms[i].at, w->syms[i].len, s);
    }

    return rc;
}


/* The text from at to end, whatever came before. */
static int
spm_make(spm_t *w, uint32_t at, uint32_t end, token_sink_t *s)
{
    int rc = spm_symbols(w, at, end);

    if (rc == 0) {
        rc = spm_join(w, s);
    }

    return rc == 0 ? spm_put_all(w, s) : rc;
}


/* The same for a part that may have been seen before. */
static int
spm_part(spm_t *w, uint32_t at, uint32_t end, token_sink_t *s)
{
    const char *part = w->text + at;
    size_t from = s->n;
    int rc;

    assert(at < end && w->heap_n == 0);

    if (++w->parts % TOKEN_CANCEL_EVERY == 0 && token_sink_cancelled(s)) {
        return -LLM_ERR_CANCELLED;
    }

    rc = token_cache_known(w->t, 0, part, end - at, s);
    if (rc != 0) {
        return rc < 0 ? rc : 0;
    }

    /* unknown text at its beginning may be in the token before */
    rc = spm_make(w, at, end, s);
    if (rc == 0
        && (w->t->bytes_n == 256
            || memcmp(part, SPM_SPACE, SPM_SPACE_LEN) == 0)) {
        token_cache_note(w->t, 0, part, end - at, s, from);
    }

    return rc;
}


/* Cuts the text at its seams. */
static int
spm_parts(spm_t *w, token_sink_t *s)
{
    uint32_t at, end;
    int rc = 0;

    assert(w->t->seams && w->len > 0);

    for (at = 0; at < w->len && rc == 0; at = end) {
        end = (uint32_t) token_seam_next(w->t, w->text, w->len, at);
        rc = spm_part(w, at, end, s);
    }

    return rc;
}


/* Joins what is normalised. */
static int
spm_run(spm_t *w, token_sink_t *s)
{
    assert(!w->t->bpe && !w->t->chars);

    if (w->len == 0) {
        return 0;
    }

    if (w->t->unigram) {
        return token_unigram_encode(w->t, w->text, w->len, 0, s);
    }
    if (w->t->seams) {
        return spm_parts(w, s);
    }

    if (w->t->has_unused) {
        w->rev = calloc(w->t->n, sizeof(*w->rev));
        if (w->rev == NULL) {
            return -LLM_ERR_NO_MEMORY;
        }
    }

    return spm_make(w, 0, w->len, s);
}


int
token_spm_encode(
    const token_t *t, const char *text, size_t len, int prefix, token_sink_t *s)
{
    token_buf_t mapped = {NULL, 0, 0};
    spm_t w = {.t = t};
    uint32_t most;
    int rc;

    if (len > SPM_TEXT_MAX) {
        return -LLM_ERR_CONTEXT_FULL;
    }

    /* where every character costs at least one id, too long a text is known
     * as such before any memory is spent on it; a collapsed one may shrink */
    most = t->merge_max < 4 ? 4 : t->merge_max;
    if (t->bytes_n == 256 && !t->collapse && t->charsmap == NULL
        && t->user.edges == NULL && len / most > s->cap - s->n) {
        return -LLM_ERR_CONTEXT_FULL;
    }

    if (t->charsmap != NULL) {
        rc = token_charsmap_run(t->charsmap, 0, text, len, &mapped);
        if (rc != 0) {
            goto done;
        }
        text = mapped.p != NULL ? mapped.p : "";
        len = mapped.n;
    }

    w.text = malloc((len + 1) * SPM_SPACE_LEN);
    if (w.text == NULL) {
        rc = -LLM_ERR_NO_MEMORY;
        goto done;
    }

    spm_normalise(&w, text, len, prefix);
    rc = spm_run(&w, s);

done:
    free(mapped.p);
    free(w.rev);
    free(w.heap);
    free(w.syms);
    free(w.text);

    return rc;
}
