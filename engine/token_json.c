/*
 * Opens a Hugging Face tokenizer.json: the vocabulary, the merges or weights,
 * the added tokens, and what goes around a text.
 *
 * DESIGN.  The file is parsed into a tree, the tables that every tokenizer has
 * (token_impl.h) are made of it, and the tree is freed: nothing of it is kept
 * but the pieces' bytes, copied into one block.  What is done to a text before
 * and behind the vocabulary is token_json_pipe.c's.
 *
 * What of a piece may arise from a text follows from its type, as in the other
 * containers: a special token is none of the pieces that merges or Unigram may
 * make, whatever the file's vocabulary says, so a user's text can never become
 * one.  (The reference lets Unigram find "</s>" in a text.)
 *
 * An id's bytes are what the decoder makes of its piece.  For a token that is
 * looked for behind the normalizer that is its normalized form, as the
 * reference has it.
 *
 * Limits: the file's size, ids in proportion to the number of pieces, pieces
 * and merges as in token_impl.h; nesting is the parser's.  Memory while opening
 * is the tree's: some 30 bytes for each byte of the file in the worst case.
 */
#include "token_json.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The largest that are known have 40 MB. */
#define JSON_SIZE_MAX (128u << 20)

/* Ids that are no piece's: files leave some out, but not most. */
#define JSON_HOLES 1024u

typedef struct {
    token_t *t;
    const json_t *model, *added;
    const token_json_why_t *w;
    token_decode_t decode;
    uint8_t *normalized; /* [n] an added token, looked for when normalized */
    int failed;          /* memory was used up on the way */
    int fallback;        /* "byte_fallback" */
    size_t own_n;        /* bytes of t->own that are used */
} json_open_t;


static int
json_memory(const json_open_t *j)
{
    return token_json_fail(j->w, "out of memory for the vocabulary");
}


static int
json_flag(const json_t *o, const char *name)
{
    return json_is_true(json_object_get(o, name));
}


/*
 * A piece's id: 1, or 0 if v is no number that can be one.  All numbers are
 * read as floating point: some that nobody needs fit no integer.
 */
static int
json_id(const json_t *v, uint32_t *id)
{
    double n = json_number_value(v);

    if (!json_is_number(v) || n < 0 || n >= TOKEN_VOCAB_MAX) {
        return 0;
    }
    *id = (uint32_t) n;

    return *id == n;
}


/* --- what kind ---------------------------------------------------------- */

/* Settings that no decoder model uses, and that would change every id. */
static int
json_refuse(const json_open_t *j)
{
    static const char *const texts[] = {
        "continuing_subword_prefix", "end_of_word_suffix"};
    const json_t *v;
    size_t i;

    assert(json_is_object(j->model));

    for (i = 0; i < 2; i++) {
        if (json_string_length(json_object_get(j->model, texts[i])) > 0) {
            return token_json_fail(
                j->w, "its model's %s is not supported", texts[i]);
        }
    }

    v = json_object_get(j->model, "dropout");
    if (json_number_value(v) != 0) {
        return token_json_fail(j->w, "its model's dropout is not supported");
    }

    return 0;
}


/* BPE or Unigram; files older than the type's name show it otherwise. */
static int
json_kind(json_open_t *j)
{
    const char *type = json_string_value(json_object_get(j->model, "type"));
    token_t *t = j->t;

    assert(j->t->n == 0 && j->t->pre != NULL);

    if (type == NULL) {
        type = json_is_array(json_object_get(j->model, "vocab"))    ? "Unigram"
               : json_is_array(json_object_get(j->model, "merges")) ? "BPE"
                                                                    : "";
    }

    t->unigram = strcmp(type, "Unigram") == 0;
    if (!t->unigram && strcmp(type, "BPE") != 0) {
        return token_json_fail(j->w,
            "its model is \"%.40s\", and only \"BPE\" and \"Unigram\" are "
            "supported",
            type);
    }

    if (t->unigram && t->bpe) {
        return token_json_fail(
            j->w, "\"Unigram\" behind \"ByteLevel\" is not supported");
    }
    t->chars = !t->unigram && !t->bpe;
    t->whole = json_flag(j->model, "ignore_merges");
    t->fuse = json_flag(j->model, "fuse_unk");
    j->fallback = json_flag(j->model, "byte_fallback");

    return json_refuse(j);
}


/* --- pieces ------------------------------------------------------------- */

/* Counts a piece: its id and its bytes. */
static void
json_count(uint32_t id, size_t len, uint32_t *top, size_t *bytes, size_t *n)
{
    assert(top != NULL && bytes != NULL && id < TOKEN_VOCAB_MAX);

    *top = id >= *top ? id + 1 : *top;
    *bytes += len;
    (*n)++;
}


/* How many ids there are and how long all pieces are; 0, or -1 told. */
static int
json_measure(const json_open_t *j, uint32_t *top, size_t *bytes)
{
    json_t *vocab = json_object_get(j->model, "vocab"), *v;
    size_t n = 0, i;
    const char *key;
    uint32_t id;

    *top = 0;
    *bytes = 0;

    json_object_foreach(vocab, key, v)
    {
        if (!json_id(v, &id)) {
            return token_json_fail(
                j->w, "the id of the piece \"%.40s\" is no id", key);
        }
        json_count(id, strlen(key), top, bytes, &n);
    }
    json_array_foreach(vocab, i, v)
    {
        if (i >= TOKEN_VOCAB_MAX || !json_is_string(json_array_get(v, 0))
            || !json_is_number(json_array_get(v, 1))) {
            return token_json_fail(
                j->w, "element %zu of the vocabulary is no piece and score", i);
        }
        json_count((uint32_t) i, json_string_length(json_array_get(v, 0)), top,
            bytes, &n);
    }
    json_array_foreach(j->added, i, v)
    {
        if (!json_id(json_object_get(v, "id"), &id)
            || json_string_length(json_object_get(v, "content")) == 0) {
            return token_json_fail(
                j->w, "added token %zu has no id or no content", i);
        }
        json_count(id, json_string_length(json_object_get(v, "content")), top,
            bytes, &n);
    }

    if (n == 0 || *top / 8 > n + JSON_HOLES / 8) {
        return token_json_fail(j->w,
            "it has %zu pieces and ids up to %u, expected some, and no more "
            "than %u ids without a piece",
            n, *top, JSON_HOLES);
    }

    return 0;
}


/* Sets the piece of an id, which others' bytes are not touched by. */
static void
json_piece(json_open_t *j, uint32_t id, const char *s, size_t len, uint8_t type)
{
    char *own = (char *) j->t->own + j->own_n;

    assert(id < j->t->n);

    memcpy(own, s, len);
    j->own_n += len;
    j->t->piece[id].s = own;
    j->t->piece[id].len = len;
    j->t->type[id] = type;
}


static uint8_t
json_piece_type(const json_open_t *j, const char *s, size_t len)
{
    gguf_str_t p = {s, len};

    return j->fallback && token_load_byte(&p) >= 0 ? TOKEN_BYTE : TOKEN_NORMAL;
}


/* The model's own pieces. */
static int
json_vocab(json_open_t *j)
{
    json_t *vocab = json_object_get(j->model, "vocab"), *v;
    token_t *t = j->t;
    const char *key;
    uint32_t id = 0;
    size_t i;

    assert(t->n > 0 && t->own != NULL);

    json_object_foreach(vocab, key, v)
    {
        (void) json_id(v, &id);
        if (t->piece[id].s != NULL) {
            return token_json_fail(j->w, "two pieces have the id %u", id);
        }
        json_piece(
            j, id, key, strlen(key), json_piece_type(j, key, strlen(key)));
    }

    if (t->unigram) {
        t->weight = calloc(t->n, sizeof(*t->weight));
        if (t->weight == NULL) {
            return json_memory(j);
        }
    }
    json_array_foreach(vocab, i, v)
    {
        key = json_string_value(json_array_get(v, 0));
        json_piece(j, (uint32_t) i, key, strlen(key),
            json_piece_type(j, key, strlen(key)));
        if (t->unigram) {
            t->weight[i] = json_number_value(json_array_get(v, 1));
        }
    }

    return 0;
}


/* The piece for what the vocabulary lacks: an id, a text, or none. */
static int
json_unknown(json_open_t *j)
{
    const json_t *v =
        json_object_get(j->model, j->t->unigram ? "unk_id" : "unk_token");
    const char *s = json_string_value(v);
    token_t *t = j->t;
    uint32_t id;

    assert(t->piece != NULL);

    t->unk = TOKEN_NONE;
    if (v == NULL || json_is_null(v)) {
        return 0;
    }

    if (t->unigram) {
        id = json_id(v, &id) && id < t->n ? id : TOKEN_NONE;
        if (id == TOKEN_NONE) {
            return token_json_fail(j->w, "its unk_id is no piece's");
        }
    } else {
        for (id = 0; id < t->n; id++) {
            if (s != NULL && t->piece[id].len == strlen(s)
                && memcmp(t->piece[id].s, s, strlen(s)) == 0) {
                break;
            }
        }
        if (id == t->n) {
            return token_json_fail(j->w, "its unk_token is no piece");
        }
    }

    t->unk = id;
    /* bytes leave nothing unknown: there it is some other special token */
    if (!t->bpe) {
        t->type[id] = TOKEN_UNKNOWN;
    }

    return 0;
}


/* --- added tokens ------------------------------------------------------- */

unsigned
token_json_flags(const json_t *o)
{
    return (json_flag(o, "lstrip") ? TOKEN_ADDED_LSTRIP : 0)
           | (json_flag(o, "rstrip") ? TOKEN_ADDED_RSTRIP : 0)
           | (json_flag(o, "single_word") ? TOKEN_ADDED_WORD : 0)
           | (json_flag(o, "normalized") ? TOKEN_ADDED_NORMALIZED : 0)
           | (json_flag(o, "special") ? TOKEN_ADDED_SPECIAL : 0);
}


/* One added token: its piece, and how it is looked for. */
static int
json_added_one(json_open_t *j, const json_t *o)
{
    const json_t *content = json_object_get(o, "content");
    const char *s = json_string_value(content);
    size_t len = json_string_length(content);
    unsigned flags = token_json_flags(o);
    token_buf_t form = {NULL, 0, 0};
    token_t *t = j->t;
    uint32_t id = 0;
    int rc;

    assert(len > 0 && j->normalized != NULL);

    (void) json_id(json_object_get(o, "id"), &id);
    if (len > TOKEN_PIECE_MAX) {
        return token_json_fail(j->w,
            "an added token has %zu bytes, at most %d are supported", len,
            TOKEN_PIECE_MAX);
    }

    if (t->piece[id].s == NULL) {
        json_piece(j, id, s, len, TOKEN_USER);
    }
    if ((flags & TOKEN_ADDED_SPECIAL) && id != t->unk) {
        t->type[id] = TOKEN_CONTROL;
    }

    if (!(flags & TOKEN_ADDED_NORMALIZED)) {
        rc = token_added_put(t->added, s, len, id, flags);
        return rc == 0 ? 0 : json_memory(j);
    }

    j->normalized[id] = 1;
    rc = token_norm_run(t->norm, s, len, &form);
    if (rc == 0 && form.n > 0) {
        rc = token_added_put(t->added, form.p, form.n, id, flags);
    }
    free(form.p);

    return rc == 0 ? 0 : json_memory(j);
}


static int
json_added(json_open_t *j)
{
    size_t i;
    int rc = 0;

    j->t->added = token_added_open((uint32_t) json_array_size(j->added));
    if (j->t->added == NULL) {
        return json_memory(j);
    }

    for (i = 0; i < json_array_size(j->added) && rc == 0; i++) {
        rc = json_added_one(j, json_array_get(j->added, i));
    }

    return rc;
}


/* What an id stands for in running text; for token_load_tables. */
static size_t
json_text(const token_t *t, uint32_t id, char *dst, void *arg)
{
    json_open_t *j = arg;
    token_buf_t form = {NULL, 0, 0};
    const char *s = t->piece[id].s;
    size_t len = t->piece[id].len, n = 0;
    int rc = 0;

    assert(id < t->n);

    if (t->type[id] == TOKEN_CONTROL || len == 0) {
        return 0;
    }

    if (j->normalized[id]) {
        rc = token_norm_run(t->norm, s, len, &form);
        s = form.p != NULL ? form.p : "";
        len = form.n;
    }
    if (rc != 0 || token_json_decode(&j->decode, s, len, &n) != 0) {
        j->failed = 1;
        n = 0;
    }
    if (dst != NULL && n > 0) {
        memcpy(dst, j->decode.a.p, n);
    }
    free(form.p);

    return n;
}


/* --- merges ------------------------------------------------------------- */

/* "left right" or ["left", "right"]. */
static int
json_merge(const json_t *v, gguf_str_t *left, gguf_str_t *right)
{
    const json_t *a = json_array_get(v, 0), *b = json_array_get(v, 1);
    const char *s = json_string_value(v), *gap;

    if (json_is_string(a) && json_is_string(b)) {
        left->s = json_string_value(a);
        left->len = json_string_length(a);
        right->s = json_string_value(b);
        right->len = json_string_length(b);
        return 0;
    }

    gap = s != NULL ? strchr(s, ' ') : NULL;
    if (gap == NULL) {
        return -1;
    }
    left->s = s;
    left->len = (size_t) (gap - s);
    right->s = gap + 1;
    right->len = json_string_length(v) - left->len - 1;

    return 0;
}


/* Pairs as "a b" or ["a", "b"], in the order of their ranks. */
static int
json_merges(json_open_t *j)
{
    const json_t *list = json_object_get(j->model, "merges");
    gguf_str_t left, right;
    size_t i, n = json_array_size(list);
    uint32_t used = 0;
    token_t *t = j->t;

    assert(!t->unigram && t->merge.slots != NULL);

    if (!json_is_array(list) || n > TOKEN_VOCAB_MAX) {
        return token_json_fail(
            j->w, "its model has no merges, or more than %u", TOKEN_VOCAB_MAX);
    }
    if (token_load_merges_open(t, (uint32_t) n) != 0) {
        return json_memory(j);
    }

    /* a word that is a piece may have what no merge makes */
    if (t->chars && !t->whole
        && token_map_get(t, &t->merge, "\xe2\x96\x81", 3) != TOKEN_NONE) {
        token_seam_open(t);
    }

    for (i = 0; i < n; i++) {
        if (json_merge(json_array_get(list, i), &left, &right) != 0) {
            return token_json_fail(
                j->w, "merge %zu of %zu is not two pieces", i, n);
        }
        token_load_merge(t, &left, &right, (uint32_t) i, &used);
    }

    if (used == 0 && n > 0) {
        return token_json_fail(
            j->w, "none of its %zu merges joins two pieces to a third", n);
    }

    return 0;
}


/* HF's Unigram takes the worst of all pieces, special ones too. */
static int
json_weights(json_open_t *j)
{
    token_t *t = j->t;
    double worst = 0;
    size_t i, n = json_array_size(json_object_get(j->model, "vocab"));

    assert(t->unigram && t->weight != NULL && n <= t->n);

    if (token_load_unigram(t) != 0) {
        return json_memory(j);
    }
    for (i = 0; i < n; i++) {
        worst = i == 0 || t->weight[i] < worst ? t->weight[i] : worst;
    }
    t->unk_weight = worst - 10.0;

    return 0;
}


/* --- around a text ------------------------------------------------------ */

/* A special token of a template. */
static int
json_special(json_open_t *j, const json_t *ids, int behind)
{
    token_around_t *a = behind ? &j->t->after : &j->t->before;
    uint32_t id;
    size_t i;

    for (i = 0; i < json_array_size(ids); i++) {
        if (!json_id(json_array_get(ids, i), &id) || id >= j->t->n
            || token_load_around(a, id) != 0) {
            return token_json_fail(j->w,
                "its template has an id that is none, or more than %d",
                TOKEN_AROUND_MAX);
        }
    }

    return json_is_array(ids)
               ? 0
               : token_json_fail(j->w, "its template names no special token");
}


/* What TemplateProcessing puts around one text, special tokens only. */
static int
json_template(json_open_t *j, const json_t *o)
{
    const json_t *single = json_object_get(o, "single"), *v, *name;
    const json_t *all = json_object_get(o, "special_tokens");
    int behind = 0, rc = 0;
    size_t i;

    for (i = 0; i < json_array_size(single) && rc == 0; i++) {
        v = json_object_get(json_array_get(single, i), "SpecialToken");
        name = json_object_get(v, "id");
        if (v == NULL) {
            behind = 1;
            continue;
        }
        v = json_is_string(name) ? json_object_get(all, json_string_value(name))
                                 : NULL;
        rc = json_special(j, json_object_get(v, "ids"), behind);
    }

    if (rc == 0 && !behind) {
        return token_json_fail(
            j->w, "its post-processor's \"single\" has no place for the text");
    }

    return rc;
}


/* "cls" and "sep", which are pieces and their ids. */
static int
json_bert(json_open_t *j, const json_t *o)
{
    static const char *const names[] = {"cls", "sep"};
    uint32_t id;
    int i;

    for (i = 0; i < 2; i++) {
        if (!json_id(json_array_get(json_object_get(o, names[i]), 1), &id)
            || id >= j->t->n
            || token_load_around(i ? &j->t->after : &j->t->before, id) != 0) {
            return token_json_fail(
                j->w, "its post-processor's \"%s\" is no piece", names[i]);
        }
    }

    return 0;
}


/* Post-processors: all but the template change offsets, which nobody asks
 * for. */
static int
json_post(json_open_t *j, const json_t *o, int depth)
{
    const char *type = json_string_value(json_object_get(o, "type"));
    const json_t *list = json_object_get(o, "processors");
    size_t i;
    int rc = 0;

    assert(depth <= 1);

    if (o == NULL || json_is_null(o)) {
        return 0;
    }
    if (type == NULL) {
        return token_json_fail(j->w, "its post-processor has no type");
    }

    if (strcmp(type, "Sequence") == 0 && depth == 0) {
        for (i = 0; i < json_array_size(list) && rc == 0; i++) {
            rc = json_post(j, json_array_get(list, i), 1);
        }
        return rc;
    }
    if (strcmp(type, "ByteLevel") == 0) {
        return 0; /* it moves offsets, which are not kept */
    }
    if (strcmp(type, "TemplateProcessing") == 0) {
        return json_template(j, o);
    }
    if (strcmp(type, "RobertaProcessing") == 0
        || strcmp(type, "BertProcessing") == 0) {
        return json_bert(j, o);
    }

    return token_json_fail(
        j->w, "its post-processor \"%.40s\" is not supported", type);
}


/* --- all of it ---------------------------------------------------------- */

/* Pieces and their types. */
static int
json_pieces(json_open_t *j)
{
    uint32_t top, id;
    size_t bytes;
    token_t *t = j->t;

    if (json_measure(j, &top, &bytes) != 0) {
        return -1;
    }

    t->own = malloc(bytes + 1);
    j->normalized = calloc(top, 1);
    if (t->own == NULL || j->normalized == NULL
        || token_load_alloc(t, top) != 0) {
        return json_memory(j);
    }

    if (json_vocab(j) != 0 || json_unknown(j) != 0 || json_added(j) != 0) {
        return -1;
    }
    assert(j->own_n <= bytes);

    for (id = 0; id < t->n; id++) {
        if (t->piece[id].s == NULL) {
            t->piece[id].s = "";
            t->type[id] = TOKEN_UNUSED;
        }
    }

    return 0;
}


static int
json_tables(json_open_t *j)
{
    if (token_load_tables(j->t, json_text, j) != 0 || j->failed) {
        return json_memory(j);
    }

    return j->t->unigram ? json_weights(j) : json_merges(j);
}


/* Begin and end as far as the file itself tells. */
static void
json_ends(token_t *t)
{
    static const char *const eos[] = {
        "</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>"};
    uint32_t id;
    size_t i;

    assert(t->n > 0 && t->end != NULL);

    token_load_ends(t);
    t->bos = t->before.n > 0 ? t->before.ids[0] : TOKEN_NONE;
    for (i = 0; i < 4 && t->eos == TOKEN_NONE; i++) {
        id = token_find(t, eos[i], strlen(eos[i]));
        if (id != TOKEN_NONE && t->type[id] == TOKEN_CONTROL) {
            t->eos = id;
        }
    }
}


static int
json_root(json_open_t *j, const json_t *root)
{
    int rc = -1;

    j->model = json_object_get(root, "model");
    j->added = json_object_get(root, "added_tokens");
    if (!json_is_object(j->model)) {
        return token_json_fail(j->w, "it has no model");
    }

    if (token_json_normalizer(j->t, json_object_get(root, "normalizer"), j->w)
            == 0
        && token_json_pre(j->t, json_object_get(root, "pre_tokenizer"), j->w)
               == 0
        && json_kind(j) == 0
        && token_json_decoder(
               &j->decode, json_object_get(root, "decoder"), j->w)
               == 0
        && json_pieces(j) == 0 && json_tables(j) == 0
        && json_post(j, json_object_get(root, "post_processor"), 0) == 0) {
        j->t->add_space = j->decode.strips;
        json_ends(j->t);
        rc = 0;
    }

    free(j->normalized);
    free(j->decode.a.p);
    free(j->decode.b.p);

    return rc;
}


token_t *
token_open_json_mem(
    const char *p, size_t len, const char *name, char *err, size_t errlen)
{
    const token_json_why_t w = {name, err, errlen};
    json_open_t j = {.w = &w};
    json_error_t why;
    json_t *root;
    int rc;

    assert(p != NULL && err != NULL && errlen > 0);

    root = json_loadb(p, len, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &why);
    if (root == NULL) {
        (void) token_json_fail(&w, "it is no JSON: line %d, column %d: %s",
            why.line, why.column, why.text);
        return NULL;
    }

    j.t = calloc(1, sizeof(*j.t));
    rc = j.t != NULL ? json_root(&j, root) : json_memory(&j);
    json_decref(root);

    if (rc != 0) {
        token_close(j.t);
        return NULL;
    }

    return j.t;
}


token_t *
token_open_json(const char *path, char *err, size_t errlen)
{
    token_t *t;
    size_t len;
    char *p = token_load_file(path, JSON_SIZE_MAX, &len, err, errlen);

    assert(path != NULL && err != NULL && errlen > 0);

    if (p == NULL) {
        return NULL;
    }
    t = token_open_json_mem(p, len, path, err, errlen);
    free(p);

    return t;
}
