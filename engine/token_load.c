/*
 * Makes a tokenizer's tables: from a GGUF file, or the null back end's own.
 *
 * DESIGN.  Everything is decided here: which pieces plain text may become (a
 * hash of its own), which end a text, and the bytes that each id stands for.
 * What only BPE by merges needs is token_load_bpe.c's.  Other containers
 * (token_json.c, token_model.c) fill in pieces and types and use the same.
 *
 * The vocabulary comes from a file, so nothing in it is believed: numbers out
 * of range and arrays that do not match are one sentence, while oddities that
 * have a harmless meaning (equal pieces, empty pieces, scores that are no
 * numbers, no types at all) are taken in that meaning.
 *
 * Memory: the pieces are borrowed from the file's mapping, the rest is one
 * malloc per table, freed by token_close.
 */
#include "token_impl.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY(name) "tokenizer.ggml." name

/* In parentheses, or it looks like a comma that was forgotten. */
#define DEEPSEEK_END                                                           \
    ("<\xef\xbd\x9c"                                                           \
     "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>")


/* --- building ----------------------------------------------------------- */

int
token_load_byte(const gguf_str_t *p)
{
    char hex[3];

    if (p->len != 6 || memcmp(p->s, "<0x", 3) != 0 || p->s[5] != '>'
        || !isxdigit((unsigned char) p->s[3])
        || !isxdigit((unsigned char) p->s[4])) {
        return -1;
    }

    hex[0] = p->s[3];
    hex[1] = p->s[4];
    hex[2] = '\0';

    return (int) strtol(hex, NULL, 16);
}


/* In byte-level BPE such a piece is plain text. */
static int
byte_of(const token_t *t, const gguf_str_t *p)
{
    return t->bpe ? -1 : token_load_byte(p);
}


/* Writes what id stands for in running text; dst may be NULL to count. */
static size_t
text_of(const token_t *t, uint32_t id, char *dst, void *arg)
{
    const gguf_str_t *p = &t->piece[id];
    const char *from = p->s;
    size_t i, n = 0, len = p->len;
    int byte;
    char c;

    (void) arg;

    switch (t->type[id]) {
    case TOKEN_CONTROL:
        return 0;
    case TOKEN_UNKNOWN:
        from = " \xe2\x81\x87 ";
        len = 5;
        break;
    case TOKEN_BYTE:
        byte = byte_of(t, p);
        if (byte >= 0 && dst != NULL) {
            *dst = (char) byte;
        }
        return byte >= 0 ? 1 : 0;
    default:
        if (t->bpe) {
            return token_load_bpe_text(t, id, dst);
        }
        break;
    }

    for (i = 0; i < len; n++) {
        c = from[i];
        if (len - i >= 3 && memcmp(from + i, "\xe2\x96\x81", 3) == 0) {
            c = ' ';
            i += 3;
        } else {
            i++;
        }
        if (dst != NULL) {
            dst[n] = c;
        }
    }

    return n;
}


static int
texts_build(token_t *t,
    size_t (*text)(const token_t *, uint32_t, char *, void *), void *arg)
{
    uint32_t id;
    size_t n = 0;

    assert(t->text == NULL && t->text_at == NULL);

    t->text_at = calloc((size_t) t->n + 1, sizeof(*t->text_at));
    if (t->text_at == NULL) {
        return -1;
    }

    for (id = 0; id < t->n; id++) {
        t->text_at[id] = n;
        n += text(t, id, NULL, arg);
    }
    t->text_at[t->n] = n;

    t->text = malloc(n + 1);
    if (t->text == NULL) {
        return -1;
    }

    for (id = 0; id < t->n; id++) {
        n = text(t, id, t->text + t->text_at[id], arg);
        assert(n == t->text_at[id + 1] - t->text_at[id]);
    }

    return 0;
}


/* Enters a piece wherever it is looked up, by its type. */
static void
piece_index(token_t *t, uint32_t id)
{
    const gguf_str_t *p = &t->piece[id];
    int byte;

    assert(id < t->n && t->type[id] < TOKEN_TYPES);

    token_map_put(t, &t->all, id);

    switch (t->type[id]) {

    case TOKEN_CONTROL:
    case TOKEN_USER:
        if (p->len > 0 && p->len <= TOKEN_SPECIAL_MAX) {
            t->special_first[(uint8_t) p->s[0]] = 1;
            t->special_len[p->len] = 1;
            t->has_user |= t->type[id] == TOKEN_USER;
        }
        break;

    case TOKEN_BYTE:
        byte = byte_of(t, p);
        if (byte >= 0 && t->byte_id[byte] == TOKEN_NONE) {
            t->byte_id[byte] = id;
            t->bytes_n++;
        }
        break;

    case TOKEN_UNUSED:
    case TOKEN_NORMAL:
        if (p->len == 0 || p->len > TOKEN_PIECE_MAX) {
            break;
        }
        if (t->bpe) {
            token_load_bpe_piece(t, id);
            break;
        }
        token_map_put(t, &t->merge, id);
        t->has_unused |= t->type[id] == TOKEN_UNUSED;
        if (p->len > t->merge_max) {
            t->merge_max = (uint32_t) p->len;
        }
        break;

    default:
        break;
    }
}


/* SentencePiece's BPE: where may a text be cut? */
static void
seams_find(token_t *t)
{
    uint32_t id;

    if (t->bpe || t->chars || t->unigram || t->bytes != NULL || t->has_unused
        || token_map_get(t, &t->merge, "\xe2\x96\x81", 3) == TOKEN_NONE) {
        return;
    }

    token_seam_open(t);
    for (id = 0; id < t->n; id++) {
        if (t->type[id] == TOKEN_NORMAL || t->type[id] == TOKEN_USER) {
            token_seam_piece(t, t->piece[id].s, t->piece[id].len);
        }
    }
}


int
token_load_tables(token_t *t,
    size_t (*text)(const token_t *, uint32_t, char *, void *), void *arg)
{
    uint32_t id;

    assert(t->n > 0 && t->piece != NULL && t->type != NULL);

    memset(t->byte_id, 0xff, sizeof(t->byte_id));
    t->end = calloc(t->n, 1);

    if (t->end == NULL || token_map_open(&t->all, t->n) != 0
        || token_map_open(&t->merge, t->n) != 0) {
        return -1;
    }

    t->cache = token_cache_open();
    if (t->cache == NULL) {
        return -1;
    }

    for (id = 0; id < t->n; id++) {
        piece_index(t, id);
    }
    seams_find(t);

    return texts_build(t, text != NULL ? text : text_of, arg);
}


char *
token_load_file(
    const char *path, size_t max, size_t *len, char *err, size_t errlen)
{
    FILE *f = fopen(path, "rb");
    char *p = NULL;
    long n = -1;

    assert(path != NULL && len != NULL);

    if (f == NULL) {
        (void) snprintf(err, errlen, "%s: %s", path, strerror(errno));
        return NULL;
    }

    /* a directory opens too, and has no end */
    if (fseek(f, 0, SEEK_END) == 0) {
        n = ftell(f);
    }
    if (n < 0 || (unsigned long) n > max) {
        (void) snprintf(
            err, errlen, "%s: it is no file of at most %zu bytes", path, max);
        (void) fclose(f);
        return NULL;
    }

    rewind(f);
    p = malloc((size_t) n + 1);
    if (p == NULL) {
        (void) snprintf(err, errlen, "out of memory for %s", path);
    } else if (fread(p, 1, (size_t) n, f) != (size_t) n) {
        (void) snprintf(err, errlen, "%s: it cannot be read", path);
        free(p);
        p = NULL;
    } else {
        p[n] = '\0';
        *len = (size_t) n;
    }
    (void) fclose(f);

    return p;
}


int
token_load_around(token_around_t *a, uint32_t id)
{
    assert(id != TOKEN_NONE);

    if (a->n == TOKEN_AROUND_MAX) {
        return -1;
    }
    a->ids[a->n++] = id;

    return 0;
}


/* What SentencePiece gives a piece that its user asked for, by length. */
static double
user_weight(const token_t *t, double best, size_t len)
{
    return t->narrow ? (float) len * (float) best - 0.1
                     : (double) len * best - 0.1;
}


int
token_load_unigram(token_t *t)
{
    double best = -INFINITY, worst = INFINITY;
    uint32_t id;

    assert(t->unigram && t->weight != NULL);

    for (id = 0; id < t->n; id++) {
        if (t->type[id] == TOKEN_NORMAL) {
            best = t->weight[id] > best ? t->weight[id] : best;
            worst = t->weight[id] < worst ? t->weight[id] : worst;
        }
    }
    best = isfinite(best) ? best : 0;
    worst = isfinite(worst) ? worst : 0;

    /* as far below the worst as both references have it */
    t->unk_weight = t->narrow ? (float) worst - 10.0f : worst - 10.0;

    for (id = 0; id < t->n; id++) {
        if (t->type[id] == TOKEN_USER && t->added == NULL) {
            t->weight[id] = user_weight(t, best, t->piece[id].len);
        } else if (t->type[id] != TOKEN_NORMAL) {
            continue;
        }
        if (t->piece[id].len > 0 && t->piece[id].len <= TOKEN_PIECE_MAX
            && token_trie_put(
                   &t->tree, t->piece[id].s, t->piece[id].len, id + 1)
                   != 0) {
            return -1;
        }
    }

    return 0;
}


int
token_load_alloc(token_t *t, uint32_t n)
{
    assert(n > 0 && n <= TOKEN_VOCAB_MAX);

    t->n = n;
    t->piece = calloc(n, sizeof(*t->piece));
    t->type = calloc(n, 1);
    t->score = calloc(n, sizeof(*t->score));

    t->bos = t->eos = t->unk = TOKEN_NONE;

    return t->piece == NULL || t->type == NULL || t->score == NULL ? -1 : 0;
}


/* --- from a file -------------------------------------------------------- */

const char *
token_load_printable(char *dst, size_t size, const gguf_str_t *s)
{
    size_t i;

    for (i = 0; i < s->len && i + 1 < size; i++) {
        dst[i] = isprint((unsigned char) s->s[i]) ? s->s[i] : '?';
    }
    dst[i] = '\0';

    return dst;
}


static int
load_kind(token_t *t, const gguf_t *g, char *err, size_t errlen)
{
    gguf_str_t s;
    char name[48];

    if (!gguf_str(g, KEY("model"), &s)) {
        (void) snprintf(err, errlen,
            "%s: it has no " KEY("model") ", so it is not known how text "
                                          "becomes tokens",
            gguf_name(g));
        return -1;
    }

    t->bpe = s.len == 4 && memcmp(s.s, "gpt2", 4) == 0;
    t->unigram = t->narrow = s.len == 2 && memcmp(s.s, "t5", 2) == 0;

    if (!t->bpe && !t->unigram
        && (s.len != 5 || memcmp(s.s, "llama", 5) != 0)) {
        (void) snprintf(err, errlen,
            "%s: " KEY("model") " is \"%s\", and only \"llama\" "
                                "(SentencePiece BPE), \"gpt2\" (byte-level "
                                "BPE) and \"t5\" (Unigram) are known",
            gguf_name(g), token_load_printable(name, sizeof(name), &s));
        return -1;
    }

    return 0;
}


static int
load_charsmap(token_t *t, const gguf_t *g, char *err, size_t errlen)
{
    gguf_arr_t a;
    const char *why;

    if (!gguf_arr(g, KEY("precompiled_charsmap"), &a) || a.n == 0) {
        return 0;
    }

    why = "it is not an array of bytes";
    if (a.type == GGUF_U8 || a.type == GGUF_I8) {
        t->charsmap = token_charsmap_open(a.data, a.n, &why);
    }
    if (t->charsmap == NULL) {
        (void) snprintf(err, errlen,
            "%s: " KEY("precompiled_charsmap") " cannot be used: %s",
            gguf_name(g), why);
        return -1;
    }

    return 0;
}


/* What is done to a text before and besides looking for pieces. */
static int
load_rules(token_t *t, const gguf_t *g, char *err, size_t errlen)
{
    t->add_bos = !t->unigram;

    if (t->bpe) {
        if (token_load_pre(t, g, err, errlen) != 0) {
            return -1;
        }
    } else {
        t->add_space = 1;
        (void) gguf_bool(g, KEY("add_space_prefix"), &t->add_space);
        (void) gguf_bool(g, KEY("remove_extra_whitespaces"), &t->collapse);
        if (load_charsmap(t, g, err, errlen) != 0) {
            return -1;
        }
    }

    (void) gguf_bool(g, KEY("add_bos_token"), &t->add_bos);

    return 0;
}


static int
load_pieces(token_t *t, const gguf_t *g, char *err, size_t errlen)
{
    gguf_arr_t a;
    uint64_t at = 0;
    uint32_t id;

    if (!gguf_arr(g, KEY("tokens"), &a) || a.type != GGUF_STR) {
        (void) snprintf(err, errlen,
            "%s: it has no " KEY("tokens") " array of strings", gguf_name(g));
        return -1;
    }

    if (a.n == 0 || a.n > TOKEN_VOCAB_MAX) {
        (void) snprintf(err, errlen,
            "%s: " KEY("tokens") " has %llu pieces, expected 1 to %u",
            gguf_name(g), (unsigned long long) a.n, TOKEN_VOCAB_MAX);
        return -1;
    }

    if (token_load_alloc(t, (uint32_t) a.n) != 0) {
        (void) snprintf(err, errlen, "out of memory for the vocabulary");
        return -1;
    }

    for (id = 0; id < t->n; id++) {
        if (!gguf_arr_str(&a, &at, &t->piece[id])) {
            (void) snprintf(err, errlen,
                "%s: " KEY("tokens") " ends at piece %u of %u", gguf_name(g),
                id, t->n);
            return -1;
        }
    }

    return 0;
}


/*
 * The array called key must have one element per piece or not be there.
 * Returns 1, 0 when absent, -1 with err.
 */
static int
load_array(const token_t *t, const gguf_t *g, const char *key, gguf_arr_t *a,
    char *err, size_t errlen)
{
    if (!gguf_arr(g, key, a)) {
        return 0;
    }

    if (a->n != t->n) {
        (void) snprintf(err, errlen,
            "%s: %s has %llu elements, expected %u as " KEY("tokens"),
            gguf_name(g), key, (unsigned long long) a->n, t->n);
        return -1;
    }

    return 1;
}


/* Normal, control, byte, unused ...: as the file says, normal if it does
 * not. */
static int
load_types(token_t *t, const gguf_t *g, char *err, size_t errlen)
{
    gguf_arr_t a;
    uint32_t id, v;
    int has;

    has = load_array(t, g, KEY("token_type"), &a, err, errlen);

    for (id = 0; id < t->n && has >= 0; id++) {
        v = TOKEN_NORMAL;
        if (has == 0) {
            v = byte_of(t, &t->piece[id]) >= 0 ? TOKEN_BYTE : TOKEN_NORMAL;
        } else if (!gguf_arr_u32(&a, id, &v) || v >= TOKEN_TYPES) {
            (void) snprintf(err, errlen,
                "%s: " KEY("token_type") " of piece %u is not 1 to %u",
                gguf_name(g), id, TOKEN_TYPES - 1);
            return -1;
        }
        /* 0 is "undefined": a piece like any other */
        t->type[id] = v == 0 ? TOKEN_NORMAL : (uint8_t) v;
    }

    return has < 0 ? -1 : 0;
}


/* SentencePiece's, by which pieces are joined; absent ones are all the same. */
static int
load_scores(token_t *t, const gguf_t *g, char *err, size_t errlen)
{
    gguf_arr_t a;
    uint32_t id;
    float v;
    int has;

    has = load_array(t, g, KEY("scores"), &a, err, errlen);

    for (id = 0; id < t->n && has > 0; id++) {
        if (!gguf_arr_f32(&a, id, &v)) {
            (void) snprintf(err, errlen,
                "%s: " KEY("scores") " is not an array of F32", gguf_name(g));
            return -1;
        }
        /* the heap needs an order; what has no number comes last */
        t->score[id] = isnan(v) ? -INFINITY : v;
    }

    return has < 0 ? -1 : 0;
}


/*
 * A special id: the key's, or where the key is absent the piece called name.
 * All ones means none.  -1 with err if it is no piece.
 */
static int
load_id(const token_t *t, const gguf_t *g, const char *key, const char *name,
    uint32_t *id, char *err, size_t errlen)
{
    if (!gguf_u32(g, key, id)) {
        *id = token_find(t, name, strlen(name));
        return 0;
    }

    if (*id != TOKEN_NONE && *id >= t->n) {
        (void) snprintf(err, errlen, "%s: %s is %u, expected less than %u",
            gguf_name(g), key, *id, t->n);
        return -1;
    }

    return 0;
}


void
token_load_end(token_t *t, uint32_t id)
{
    assert(id == TOKEN_NONE || id < t->n);

    if (id != TOKEN_NONE) {
        t->end[id] = 1;
    }
}


void
token_load_ends(token_t *t)
{
    static const char *const ends[] = {"</s>", "<|im_end|>", "<|endoftext|>",
        "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<eos>",
        "<end_of_turn>", "<|return|>", "<|call|>", DEEPSEEK_END};
    uint32_t id, i;

    assert(t->all.slots != NULL);

    for (i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        id = token_find(t, ends[i], strlen(ends[i]));
        if (id != TOKEN_NONE && t->type[id] == TOKEN_CONTROL) {
            token_load_end(t, id);
        }
    }
}


/* Special ids, and which pieces end a text. */
static int
load_special(token_t *t, const gguf_t *g, char *err, size_t errlen)
{
    const char *bos = t->bpe ? "<|endoftext|>" : "<s>";
    const char *eos = t->bpe ? "<|endoftext|>" : "</s>";
    int add_eos = t->unigram;
    uint32_t eot;

    if (load_id(t, g, KEY("bos_token_id"), bos, &t->bos, err, errlen) != 0
        || load_id(t, g, KEY("eos_token_id"), eos, &t->eos, err, errlen) != 0
        || load_id(t, g, KEY("unknown_token_id"), "<unk>", &t->unk, err, errlen)
               != 0
        || load_id(t, g, KEY("eot_token_id"), "<|eot_id|>", &eot, err, errlen)
               != 0) {
        return -1;
    }

    token_load_end(t, t->eos);
    token_load_end(t, eot);
    token_load_ends(t);

    (void) gguf_bool(g, KEY("add_eos_token"), &add_eos);
    if (t->add_bos && t->bos != TOKEN_NONE) {
        t->before.ids[t->before.n++] = t->bos;
    }
    if (add_eos && t->eos != TOKEN_NONE) {
        t->after.ids[t->after.n++] = t->eos;
    }

    return 0;
}


/*
 * A file without types says only by its special ids which pieces are not
 * text; the tables must know it before they are built.
 */
static void
infer_control(token_t *t, const gguf_t *g)
{
    static const char *const keys[] = {KEY("bos_token_id"), KEY("eos_token_id"),
        KEY("eot_token_id"), KEY("unknown_token_id"), KEY("padding_token_id")};
    gguf_arr_t a;
    uint32_t i, id;

    if (gguf_arr(g, KEY("token_type"), &a)) {
        return;
    }

    for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (gguf_u32(g, keys[i], &id) && id < t->n) {
            t->type[id] = TOKEN_CONTROL;
        }
    }
}


static int
load_weights(token_t *t)
{
    uint32_t id;

    assert(t->unigram && t->weight == NULL);

    t->weight = calloc(t->n, sizeof(*t->weight));
    if (t->weight == NULL) {
        return -1;
    }
    for (id = 0; id < t->n; id++) {
        t->weight[id] = t->score[id];
    }

    return token_load_unigram(t);
}


token_t *
token_open_gguf(const gguf_t *g, char *err, size_t errlen)
{
    token_t *t;

    assert(g != NULL && err != NULL && errlen > 0);

    t = calloc(1, sizeof(*t));
    if (t == NULL) {
        (void) snprintf(err, errlen, "out of memory for the vocabulary");
        return NULL;
    }

    if (load_kind(t, g, err, errlen) != 0 || load_rules(t, g, err, errlen) != 0
        || load_pieces(t, g, err, errlen) != 0
        || load_types(t, g, err, errlen) != 0
        || (!t->bpe && load_scores(t, g, err, errlen) != 0)) {
        token_close(t);
        return NULL;
    }

    infer_control(t, g);

    if (token_load_tables(t, NULL, NULL) != 0
        || (t->unigram && load_weights(t) != 0)) {
        (void) snprintf(err, errlen, "out of memory for the vocabulary");
        token_close(t);
        return NULL;
    }

    if (load_special(t, g, err, errlen) != 0
        || (t->bpe && token_load_merges(t, g, err, errlen) != 0)) {
        token_close(t);
        return NULL;
    }

    return t;
}


/* --- the null back end's ------------------------------------------------ */

token_t *
token_open_null(void)
{
    static const char *const words[] = {" lorem", " ipsum", " dolor", " sit",
        " amet", " consectetur", " adipiscing", " elit", " sed", " do",
        " eiusmod", " tempor", " incididunt", " ut", " labore", " et",
        " dolore", " magna", " aliqua", ".", "<s>", "</s>"};
    const uint32_t words_n = sizeof(words) / sizeof(words[0]);
    token_t *t;
    uint32_t i;

    t = calloc(1, sizeof(*t));
    if (t == NULL) {
        return NULL;
    }

    t->bytes = malloc(256);
    if (t->bytes == NULL || token_load_alloc(t, 256 + words_n) != 0) {
        token_close(t);
        return NULL;
    }

    for (i = 0; i < t->n; i++) {
        if (i < 256) {
            t->bytes[i] = (char) i;
            t->piece[i].s = t->bytes + i;
            t->piece[i].len = 1;
        } else {
            t->piece[i].s = words[i - 256];
            t->piece[i].len = strlen(words[i - 256]);
        }
        t->type[i] = i < t->n - 2 ? TOKEN_NORMAL : TOKEN_CONTROL;
    }

    if (token_load_tables(t, NULL, NULL) != 0) {
        token_close(t);
        return NULL;
    }

    t->bos = t->n - 2;
    t->eos = t->n - 1;
    t->before.ids[t->before.n++] = t->bos;
    token_load_end(t, t->eos);

    return t;
}
