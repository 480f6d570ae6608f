/*
 * A tokenizer: lookups in its tables, and text to ids.
 *
 * DESIGN.  The tables are made once (token_load.c) and read-only after, so
 * that any thread may use them without a lock; every lookup is O(1).
 *
 * Control pieces are never found in plain text; only TOKEN_F_SPECIAL looks for
 * them.  User-defined ones are text that was added to a vocabulary (Phi 2's
 * runs of spaces, Qwen's <think>): byte-level vocabularies were trained with
 * them found everywhere, so there they always are, unless they end a text.
 * Both are looked for longest first, and each stretch between two of them is a
 * text of its own.
 *
 * Which encoder plain text goes to is the vocabulary's kind, and nothing else
 * depends on it.
 */
#include "token_impl.h"
#include "llm_err.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>


/* Three bytes that are composed leave one at least. */
#define NFC_SHRINKS 3u


/* --- lookup ------------------------------------------------------------- */

static uint32_t
map_hash(const char *s, size_t len)
{
    uint64_t h = 0x9e3779b97f4a7c15ull ^ len, w;

    for (; len >= 8; s += 8, len -= 8) {
        memcpy(&w, s, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdull;
        h ^= h >> 32;
    }

    w = 0;
    memcpy(&w, s, len);
    h = (h ^ w) * 0xff51afd7ed558ccdull;
    h ^= h >> 29;
    h *= 0xc4ceb9fe1a85ec53ull;

    return (uint32_t) (h >> 32);
}


int
token_map_open(token_map_t *m, uint32_t n)
{
    uint32_t size = 16;

    while (size < n * 2) {
        size *= 2;
    }

    m->mask = size - 1;
    m->slots = calloc(size, sizeof(*m->slots));

    return m->slots == NULL ? -1 : 0;
}


/* The slot that holds s, or the empty one where it belongs. */
static uint32_t
map_slot(const token_t *t, const token_map_t *m, const char *s, size_t len)
{
    uint32_t i = map_hash(s, len) & m->mask;
    const gguf_str_t *p;

    /* half of the slots are empty, so this ends */
    for (; m->slots[i] != 0; i = (i + 1) & m->mask) {
        assert(m->slots[i] <= t->n);
        p = &t->piece[m->slots[i] - 1];
        if (p->len == len && memcmp(p->s, s, len) == 0) {
            break;
        }
    }

    return i;
}


void
token_map_put(const token_t *t, token_map_t *m, uint32_t id)
{
    uint32_t i = map_slot(t, m, t->piece[id].s, t->piece[id].len);

    if (m->slots[i] == 0) {
        m->slots[i] = id + 1;
    }
}


uint32_t
token_map_get(const token_t *t, const token_map_t *m, const char *s, size_t len)
{
    uint32_t v = m->slots[map_slot(t, m, s, len)];

    return v == 0 ? TOKEN_NONE : v - 1;
}


void
token_close(token_t *t)
{
    if (t == NULL) {
        return;
    }

    free(t->piece);
    free(t->type);
    free(t->score);
    free(t->end);
    free(t->text);
    free(t->text_at);
    free(t->all.slots);
    free(t->merge.slots);
    free(t->joins);
    free(t->weight);
    free(t->own);
    token_pre_close(t->pre);
    token_norm_close(t->norm);
    token_added_close(t->added);
    token_cache_close(t->cache);
    token_charsmap_close(t->charsmap);
    token_trie_close(&t->tree);
    token_trie_close(&t->user);
    free(t->bytes);
    free(t);
}


/* --- what is known ------------------------------------------------------ */

uint32_t
token_vocab(const token_t *t)
{
    return t->n;
}


uint32_t
token_bos(const token_t *t)
{
    return t->bos;
}


uint32_t
token_eos(const token_t *t)
{
    return t->eos;
}


int
token_is_end(const token_t *t, uint32_t id)
{
    return id < t->n && t->end[id];
}


void
token_add_end(token_t *t, uint32_t id)
{
    assert(t != NULL);

    if (id >= t->n) {
        return;
    }

    t->end[id] = 1;

    if (t->eos == TOKEN_NONE) {
        t->eos = id;
    }
}


const char *
token_kind(const token_t *t)
{
    if (t->bytes != NULL) {
        return "bytes";
    }

    return t->bpe       ? "byte-level BPE"
           : t->chars   ? "BPE"
           : t->unigram ? "Unigram"
                        : "SentencePiece";
}


uint32_t
token_find(const token_t *t, const char *s, size_t len)
{
    return token_map_get(t, &t->all, s, len);
}


const char *
token_bytes(const token_t *t, uint32_t id, size_t *len)
{
    if (id >= t->n) {
        *len = 0;
        return "";
    }

    assert(t->text_at[id] <= t->text_at[id + 1]);
    *len = t->text_at[id + 1] - t->text_at[id];

    return t->text + t->text_at[id];
}


const char *
token_piece(const token_t *t, uint32_t id, size_t *len)
{
    if (id >= t->n || t->piece == NULL) {
        *len = 0;
        return "";
    }

    *len = t->piece[id].len;

    return t->piece[id].s;
}


int
token_strips_space(const token_t *t)
{
    return t->add_space;
}


/* --- text to ids -------------------------------------------------------- */

int
token_sink_put(token_sink_t *s, uint32_t id)
{
    if (s->n == s->cap) {
        return -LLM_ERR_CONTEXT_FULL;
    }

    s->out[s->n++] = id;
    s->fused = 0;

    return 0;
}


static int
encode_bytes(const char *text, size_t len, token_sink_t *s)
{
    size_t i;
    int rc = 0;

    if (len > s->cap - s->n) {
        return -LLM_ERR_CONTEXT_FULL;
    }

    for (i = 0; i < len && rc == 0; i++) {
        if (i % TOKEN_CANCEL_EVERY == 0 && token_sink_cancelled(s)) {
            return -LLM_ERR_CANCELLED;
        }
        rc = token_sink_put(s, (uint8_t) text[i]);
    }

    return rc;
}


int
token_encode_plain(
    const token_t *t, const char *text, size_t len, int first, token_sink_t *s)
{
    if (t->bpe || t->chars) {
        return token_bpe_encode(t, text, len, first, s);
    }
    /* what SentencePiece's own files have no steps for is done there */
    if (t->unigram && t->pre != NULL) {
        return token_unigram_encode(t, text, len, first, s);
    }

    return token_spm_encode(
        t, text, len, t->add_space && (first || !t->first_only), s);
}


/* A stretch between special pieces, in the form that the models know. */
static int
encode_plain(const token_t *t, const char *text, size_t len, token_sink_t *s)
{
    token_buf_t b = {NULL, 0, 0};
    int rc = 0;

    assert(t->added == NULL);

    if (t->norm != NULL && len > 0) {
        if (t->merge_max > 0
            && len / NFC_SHRINKS / t->merge_max > s->cap - s->n) {
            return -LLM_ERR_CONTEXT_FULL;
        }
        rc = token_norm_run(t->norm, text, len, &b);
        text = b.p != NULL ? b.p : "";
        len = b.n;
    }
    if (rc == 0) {
        rc = token_encode_plain(t, text, len, 0, s);
    }
    free(b.p);

    return rc;
}


/* May a text that names piece id become it? */
static int
special_allowed(const token_t *t, uint32_t id, int control)
{
    return t->type[id] == TOKEN_USER ? control || !t->end[id]
                                     : control && t->type[id] == TOKEN_CONTROL;
}


int
token_sink_control(const token_sink_t *s, const char *p, size_t n)
{
    size_t from = (size_t) (p - s->text), low = 0, high = s->spans_n, mid;

    if (s->spans == NULL) {
        return 1;
    }

    while (low < high) {
        mid = (low + high) / 2;
        if (s->spans[mid].end <= from) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    assert(low < s->spans_n && s->spans[low].end > from);

    return s->spans[low].control && n <= s->spans[low].end - from;
}


/* The longest special piece at the start of text, TOKEN_NONE if none. */
static uint32_t
special_at(const token_t *t, const char *text, size_t left, int control,
    const token_sink_t *s, size_t *len)
{
    uint32_t id;
    size_t n;

    assert(left > 0);

    if (!t->special_first[(uint8_t) text[0]]) {
        return TOKEN_NONE;
    }

    n = left < TOKEN_SPECIAL_MAX ? left : TOKEN_SPECIAL_MAX;
    for (; n > 0; n--) {
        if (!t->special_len[n]) {
            continue;
        }
        id = token_find(t, text, n);
        if (id != TOKEN_NONE
            && special_allowed(
                t, id, control && token_sink_control(s, text, n))) {
            *len = n;
            return id;
        }
    }

    return TOKEN_NONE;
}


/* Text that may name special pieces: stretches between them are encoded. */
static int
encode_special(const token_t *t, const char *text, size_t len, int control,
    token_sink_t *s)
{
    size_t from = 0, i = 0, n = 0, looked = 0;
    size_t longest = TOKEN_SPECIAL_MAX;
    uint32_t id;
    int rc;

    /* too long a text is known as such before any work is spent on it */
    longest = t->merge_max > longest ? t->merge_max : longest;
    longest *= t->norm != NULL ? NFC_SHRINKS : 1;
    if (t->bpe && len / longest > s->cap - s->n) {
        return -LLM_ERR_CONTEXT_FULL;
    }

    while (i < len) {
        if (looked++ % TOKEN_CANCEL_EVERY == 0 && token_sink_cancelled(s)) {
            return -LLM_ERR_CANCELLED;
        }

        id = special_at(t, text + i, len - i, control, s, &n);
        if (id == TOKEN_NONE) {
            i++;
            continue;
        }

        rc = encode_plain(t, text + from, i - from, s);
        if (rc == 0) {
            rc = token_sink_put(s, id);
        }
        if (rc != 0) {
            return rc;
        }
        i += n;
        from = i;
    }

    return encode_plain(t, text + from, len - from, s);
}


static int
encode_around(const token_around_t *a, token_sink_t *s)
{
    uint32_t i;
    int rc = 0;

    assert(a->n <= TOKEN_AROUND_MAX);

    for (i = 0; i < a->n && rc == 0; i++) {
        rc = token_sink_put(s, a->ids[i]);
    }

    return rc;
}


/* All of a text. */
static int64_t
encode_text(const token_t *t, const char *text, size_t len, unsigned flags,
    token_sink_t *s)
{
    int control = (flags & TOKEN_F_SPECIAL) != 0, rc = 0;

    assert(t != NULL && (text != NULL || len == 0));
    assert(s->out != NULL || s->cap == 0);

    if (flags & TOKEN_F_BOS) {
        rc = encode_around(&t->before, s);
    }

    if (rc != 0) {
        return rc;
    }

    if (t->bytes != NULL) {
        rc = encode_bytes(text, len, s);
    } else if (t->added != NULL) {
        rc = token_added_encode(t, text, len, control, s);
    } else if (control || (t->bpe && t->has_user)) {
        rc = encode_special(t, text, len, control, s);
    } else {
        rc = encode_plain(t, text, len, s);
    }

    if (rc == 0 && (flags & TOKEN_F_BOS)) {
        rc = encode_around(&t->after, s);
    }

    assert(s->n <= s->cap);

    return rc != 0 ? rc : (int64_t) s->n;
}


int64_t
token_encode(const token_t *t, const char *text, size_t len, unsigned flags,
    uint32_t *out, size_t cap, int (*cancelled)(void *), void *arg)
{
    token_sink_t s = {
        .out = out, .cap = cap, .cancelled = cancelled, .arg = arg};

    return encode_text(t, text, len, flags, &s);
}


int64_t
token_encode_spans(const token_t *t, const char *text, size_t len,
    const token_span_t *spans, size_t spans_n, unsigned flags, uint32_t *out,
    size_t cap, int (*cancelled)(void *), void *arg)
{
    token_sink_t s = {.out = out,
        .cap = cap,
        .cancelled = cancelled,
        .arg = arg,
        .spans = spans,
        .spans_n = spans_n,
        .text = text};

    assert(!(flags & TOKEN_F_SPECIAL));
    assert(len == 0 || (spans_n > 0 && spans[spans_n - 1].end == len));

    return encode_text(
        t, text, len, len > 0 ? flags | TOKEN_F_SPECIAL : flags, &s);
}
