/*
 * Makes what BPE by merges needs beside the common tables: a GGUF file's
 * pre-tokenizer, the bytes of pieces, the merges.
 *
 * DESIGN.  A merge is kept by ids: two neighbouring ids give its rank and the
 * joint id in one probe, and no text is looked at while joining.
 *
 * Oddities of a file that have a harmless meaning are taken in it.  A piece
 * with a character outside the byte alphabet stands for its own text and never
 * arises from a text.  A merge that names no piece, a special one, or one of
 * more than TOKEN_PIECE_MAX bytes never happens; of equal merges the first
 * counts.  Only where not one merge is left is the file refused: its pieces
 * are then in some other alphabet.
 */
#include "token_impl.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY(name) "tokenizer.ggml." name


int
token_load_pre(token_t *t, const gguf_t *g, char *err, size_t errlen)
{
    token_rules_t rules;
    gguf_str_t name;

    /* files older than the key mean GPT-2's */
    if (!gguf_str(g, KEY("pre"), &name)) {
        name.s = "default";
        name.len = 7;
    }

    t->pre = token_pre_open(gguf_name(g), &name, &rules, err, errlen);
    if (t->pre == NULL) {
        return -1;
    }
    t->whole = rules.whole;
    t->add_bos = rules.add_bos;

    if (rules.nfc
        && token_norm_add(&t->norm, TOKEN_NORM_NFC, NULL, NULL, 0, NULL) != 0) {
        (void) snprintf(err, errlen, "out of memory for the vocabulary");
        return -1;
    }

    return 0;
}


void
token_load_bpe_piece(token_t *t, uint32_t id)
{
    char bytes[TOKEN_PIECE_MAX];
    size_t n;

    assert(t->bpe && t->piece[id].len <= sizeof(bytes));

    if (!token_alphabet_read(&t->piece[id], bytes, &n)) {
        return;
    }

    token_map_put(t, &t->merge, id);
    if (n > t->merge_max) {
        t->merge_max = (uint32_t) n;
    }

    if (n == 1 && t->byte_id[(uint8_t) bytes[0]] == TOKEN_NONE) {
        t->byte_id[(uint8_t) bytes[0]] = id;
        t->bytes_n++;
    }
}


size_t
token_load_bpe_text(const token_t *t, uint32_t id, char *dst)
{
    const gguf_str_t *p = &t->piece[id];
    size_t n;

    /* what was added to a vocabulary later is text as it stands */
    if (t->type[id] != TOKEN_USER && token_alphabet_read(p, NULL, &n)) {
        if (dst != NULL) {
            (void) token_alphabet_read(p, dst, &n);
        }
        return n;
    }

    if (dst != NULL && p->len > 0) {
        memcpy(dst, p->s, p->len);
    }

    return p->len;
}


/* --- merges ------------------------------------------------------------- */

/* Half of the slots stay empty. */
int
token_load_merges_open(token_t *t, uint32_t n)
{
    uint32_t size = 16;

    assert(n <= TOKEN_VOCAB_MAX);

    while (size < n * 2) {
        size *= 2;
    }

    t->joins_mask = size - 1;
    t->joins = calloc(size, sizeof(*t->joins));

    return t->joins == NULL ? -1 : 0;
}


void
token_load_merge(token_t *t, const gguf_str_t *left, const gguf_str_t *right,
    uint32_t rank, uint32_t *used)
{
    char both[TOKEN_PIECE_MAX];
    uint32_t a, b, joint;
    token_merge_t *m;
    size_t n = left->len + right->len;

    assert(t->joins != NULL && used != NULL);

    if (left->len == 0 || right->len == 0 || left->len > sizeof(both)
        || right->len > sizeof(both) || n > sizeof(both)) {
        return;
    }
    memcpy(both, left->s, left->len);
    memcpy(both + left->len, right->s, right->len);

    a = token_map_get(t, &t->merge, left->s, left->len);
    b = token_map_get(t, &t->merge, right->s, right->len);
    joint = token_map_get(t, &t->merge, both, n);
    if (a == TOKEN_NONE || b == TOKEN_NONE || joint == TOKEN_NONE) {
        return;
    }

    m = token_bpe_slot(t, a, b);
    if (m->joint == 0) {
        m->left = a;
        m->right = b;
        m->rank = rank;
        m->joint = joint + 1;
        if (t->seams) {
            token_seam_piece(t, both, n);
        }
        (*used)++;
    }
}


/* Takes "left right" in.  0, or -1 if it is no such pair. */
static int
merges_put(token_t *t, const gguf_str_t *s, uint32_t rank, uint32_t *used)
{
    const char *gap;
    gguf_str_t left, right;

    gap = s->len < 3 ? NULL : memchr(s->s + 1, ' ', s->len - 2);
    if (gap == NULL) {
        return -1;
    }

    left.s = s->s;
    left.len = (size_t) (gap - s->s);
    right.s = gap + 1;
    right.len = s->len - left.len - 1;
    token_load_merge(t, &left, &right, rank, used);

    return 0;
}


int
token_load_merges(token_t *t, const gguf_t *g, char *err, size_t errlen)
{
    gguf_arr_t a;
    gguf_str_t s;
    uint64_t at = 0;
    uint32_t i, used = 0;

    if (!gguf_arr(g, KEY("merges"), &a) || a.type != GGUF_STR) {
        (void) snprintf(err, errlen,
            "%s: it has no " KEY("merges") " array of strings", gguf_name(g));
        return -1;
    }

    if (a.n > TOKEN_VOCAB_MAX) {
        (void) snprintf(err, errlen,
            "%s: " KEY("merges") " has %llu elements, expected at most %u",
            gguf_name(g), (unsigned long long) a.n, TOKEN_VOCAB_MAX);
        return -1;
    }

    if (token_load_merges_open(t, (uint32_t) a.n) != 0) {
        (void) snprintf(err, errlen, "out of memory for the vocabulary");
        return -1;
    }

    for (i = 0; i < a.n; i++) {
        if (!gguf_arr_str(&a, &at, &s) || merges_put(t, &s, i, &used) != 0) {
            (void) snprintf(err, errlen,
                "%s: " KEY("merges") " element %u of %llu is not two pieces "
                                     "with a space between them",
                gguf_name(g), i, (unsigned long long) a.n);
            return -1;
        }
    }

    if (used == 0 && a.n > 0) {
        (void) snprintf(err, errlen,
            "%s: none of the %llu " KEY("merges") " joins two pieces to a "
                                                  "third",
            gguf_name(g), (unsigned long long) a.n);
        return -1;
    }

    return 0;
}
