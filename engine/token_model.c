/*
 * Opens a SentencePiece model file: BPE or Unigram.
 *
 * DESIGN.  The file is a protobuf message, read by hand: each field is a
 * number, a type and a value, and what is not known is skipped.
 *
 *      1  a piece      1 text, 2 score (float), 3 type
 *      2  training     3 kind, 24 spaces behind words, 40 to 42 special ids
 *      3  normalizer   2 character map, 3 to 5 what is done to spaces
 *
 * Every length is checked against what is left of the message around it, so
 * nothing outside the file is read; messages nest two deep.  Types have the
 * same numbers as in GGUF, which has them from here.
 *
 * The pieces point into a copy of the file that the tokenizer owns; behind it
 * lie those of tokens that files beside it add (token_dir.c).  These may be new
 * ids or have the place of a piece.  What the file itself says is special stays
 * so, whatever is said beside it: no user's text names it.
 */
#include "token_impl.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The largest that are known have 5 MB. */
#define MODEL_SIZE_MAX (64u << 20)

/* Ids that are no piece's: files leave some out, but not most. */
#define MODEL_HOLES 1024u

enum { MODEL_UNIGRAM = 1, MODEL_BPE = 2 };

/* A message, or what is left of it. */
typedef struct {
    const uint8_t *p, *end;
} model_msg_t;

/* A field: number, and a value by its wire type. */
typedef struct {
    uint32_t number;
    uint64_t value;    /* a varint, or 4 or 8 bytes */
    model_msg_t bytes; /* a string or message; else empty */
} model_field_t;

typedef struct {
    token_t *t;
    const char *name;
    char *err;
    size_t errlen;
    const token_extra_t *extra; /* [extra_n] borrowed */
    uint32_t extra_n;
    int beside; /* are there files beside it? */
    uint32_t n; /* pieces in the file */
    uint64_t kind, suffix, escape;
    uint64_t bos, eos, unk;
    model_msg_t charsmap;
} model_open_t;


static int
model_fail(const model_open_t *m, const char *what)
{
    (void) snprintf(m->err, m->errlen, "%s: %s", m->name, what);

    return -1;
}


/* --- protobuf ----------------------------------------------------------- */

/* Protobuf's base 128, at most ten bytes; what is beyond 64 bits is lost. */
static int
msg_varint(model_msg_t *m, uint64_t *v)
{
    unsigned shift = 0;
    uint8_t b;

    assert(m->p <= m->end);

    *v = 0;
    do {
        if (m->p == m->end || shift > 63) {
            return -1;
        }
        b = *m->p++;
        *v |= (uint64_t) (b & 0x7f) << shift;
        shift += 7;
    } while (b & 0x80);

    return 0;
}


/* n bytes, little-endian. */
static int
msg_fixed(model_msg_t *m, unsigned n, uint64_t *v)
{
    unsigned i;

    assert(n == 4 || n == 8);

    if ((size_t) (m->end - m->p) < n) {
        return -1;
    }
    for (*v = 0, i = 0; i < n; i++) {
        *v |= (uint64_t) *m->p++ << (8 * i);
    }

    return 0;
}


/* The next field: 1, 0 at the end, -1 if it is damaged. */
static int
msg_next(model_msg_t *m, model_field_t *f)
{
    uint64_t key, len;

    memset(f, 0, sizeof(*f));
    if (m->p == m->end) {
        return 0;
    }
    if (msg_varint(m, &key) != 0 || key >> 3 == 0 || key >> 3 > UINT32_MAX) {
        return -1;
    }
    f->number = (uint32_t) (key >> 3);

    switch (key & 7) {
    case 0:
        return msg_varint(m, &f->value) == 0 ? 1 : -1;
    case 1:
        return msg_fixed(m, 8, &f->value) == 0 ? 1 : -1;
    case 5:
        return msg_fixed(m, 4, &f->value) == 0 ? 1 : -1;
    case 2:
        if (msg_varint(m, &len) != 0 || len > (size_t) (m->end - m->p)) {
            return -1;
        }
        f->bytes.p = m->p;
        m->p += len;
        f->bytes.end = m->p;
        return 1;
    default:
        return -1;
    }
}


/* --- sections ----------------------------------------------------------- */

static float
model_float(uint64_t bits)
{
    uint32_t b = (uint32_t) bits;
    float v;

    memcpy(&v, &b, sizeof(v));

    return v;
}


/* A message of piece, score and type; unknown fields are passed over. */
static int
model_piece(model_open_t *m, uint32_t id, model_msg_t msg)
{
    token_t *t = m->t;
    model_field_t f;
    float score = 0;
    int rc;

    assert(id < t->n);

    t->type[id] = TOKEN_NORMAL;
    t->piece[id].s = "";
    while ((rc = msg_next(&msg, &f)) > 0) {
        if (f.number == 1 && f.bytes.p != NULL) {
            t->piece[id].s = (const char *) f.bytes.p;
            t->piece[id].len = (size_t) (f.bytes.end - f.bytes.p);
        } else if (f.number == 2) {
            score = model_float(f.value);
        } else if (f.number == 3) {
            if (f.value == 0 || f.value >= TOKEN_TYPES) {
                return -1;
            }
            t->type[id] = (uint8_t) f.value;
        }
    }

    /* an order is needed; what has no number comes last */
    t->score[id] = isnan(score) ? -INFINITY : score;

    return rc;
}


static int
model_trainer(model_open_t *m, model_msg_t msg)
{
    model_field_t f;
    int rc;

    while ((rc = msg_next(&msg, &f)) > 0) {
        switch (f.number) {
        case 3:
            m->kind = f.value;
            break;
        case 24:
            m->suffix = f.value;
            break;
        case 40:
            m->unk = f.value;
            break;
        case 41:
            m->bos = f.value;
            break;
        case 42:
            m->eos = f.value;
            break;
        default:
            break;
        }
    }

    return rc;
}


/* What is done to a text before its pieces are looked for. */
static int
model_normalizer(model_open_t *m, model_msg_t msg)
{
    token_t *t = m->t;
    model_field_t f;
    int rc;

    while ((rc = msg_next(&msg, &f)) > 0) {
        switch (f.number) {
        case 2:
            m->charsmap = f.bytes;
            break;
        case 3:
            t->add_space = f.value != 0;
            break;
        case 4:
            t->collapse = f.value != 0;
            break;
        case 5:
            m->escape = f.value;
            break;
        default:
            break;
        }
    }

    return rc;
}


/* Goes through the file's fields: counts pieces, or reads everything. */
static int
model_fields(model_open_t *m, model_msg_t msg, int count)
{
    model_field_t f;
    uint32_t id = 0;
    int rc, sound = 0;

    while (sound == 0 && (rc = msg_next(&msg, &f)) > 0) {
        if (f.number == 1) {
            if (f.bytes.p == NULL || id == TOKEN_VOCAB_MAX) {
                return -1;
            }
            sound = count ? 0 : model_piece(m, id, f.bytes);
            id++;
        } else if (f.number == 2 && !count && f.bytes.p != NULL) {
            sound = model_trainer(m, f.bytes);
        } else if (f.number == 3 && !count && f.bytes.p != NULL) {
            sound = model_normalizer(m, f.bytes);
        }
    }
    m->n = id;

    return sound != 0 || rc < 0 ? -1 : 0;
}


/* --- tables ------------------------------------------------------------- */

/* A special id: a piece's, none where it is negative (it is signed). */
static int
model_id(const model_open_t *m, uint64_t v, uint32_t *id)
{
    *id = TOKEN_NONE;
    if ((int64_t) v < 0 || v == UINT32_MAX) {
        return 0;
    }
    if (v >= m->t->n) {
        return model_fail(m, "a special id of it is no piece's");
    }
    *id = (uint32_t) v;

    return 0;
}


static int
model_rules(model_open_t *m)
{
    token_t *t = m->t;
    const char *why;
    char text[160];
    size_t len = (size_t) (m->charsmap.end - m->charsmap.p);

    assert(t->n > 0 && t->n >= m->n);

    if (m->kind != MODEL_UNIGRAM && m->kind != MODEL_BPE) {
        return model_fail(m,
            "its model is neither BPE nor Unigram, and no other is "
            "supported");
    }
    if (m->suffix) {
        return model_fail(m, "treat_whitespace_as_suffix is not supported");
    }
    if (!m->escape) {
        return model_fail(m, "escape_whitespaces off is not supported");
    }

    t->unigram = t->narrow = m->kind == MODEL_UNIGRAM;
    if (len > 0) {
        t->charsmap = token_charsmap_open(m->charsmap.p, len, &why);
        if (t->charsmap == NULL) {
            (void) snprintf(text, sizeof(text),
                "its precompiled_charsmap cannot be used: %s", why);
            return model_fail(m, text);
        }
    }

    return model_id(m, m->unk, &t->unk) != 0
                   || model_id(m, m->bos, &t->bos) != 0
                   || model_id(m, m->eos, &t->eos) != 0
               ? -1
               : 0;
}


/* Pieces that are cut out of a text first; Unigram's are in its tree. */
static int
model_user(token_t *t)
{
    uint32_t id;

    assert(t->user.edges == NULL);

    for (id = 0; id < t->n && !t->unigram; id++) {
        if (t->type[id] == TOKEN_USER && t->piece[id].len > 0
            && token_trie_put(
                   &t->user, t->piece[id].s, t->piece[id].len, id + 1)
                   != 0) {
            return -1;
        }
    }

    return 0;
}


static int
model_weights(token_t *t)
{
    uint32_t id;

    if (!t->unigram) {
        return 0;
    }

    t->weight = calloc(t->n, sizeof(*t->weight));
    if (t->weight == NULL) {
        return -1;
    }
    for (id = 0; id < t->n; id++) {
        t->weight[id] = t->score[id];
    }

    return token_load_unigram(t);
}


/* --- tokens beside it ---------------------------------------------------- */

/* How many ids there are, and how long the texts beside are; 0: too many. */
static uint32_t
model_measure(const model_open_t *m, size_t *bytes)
{
    uint32_t top = m->n, i;

    *bytes = 0;
    for (i = 0; i < m->extra_n; i++) {
        assert(m->extra[i].len > 0 && m->extra[i].id < TOKEN_VOCAB_MAX);
        top = m->extra[i].id >= top ? m->extra[i].id + 1 : top;
        *bytes += m->extra[i].len;
    }

    return top - m->n > m->extra_n + MODEL_HOLES ? 0 : top;
}


/* Sets the pieces of tokens beside; own has room for their texts. */
static void
model_extra(model_open_t *m, char *own)
{
    token_t *t = m->t;
    const token_extra_t *e;
    uint32_t id;

    for (e = m->extra; e < m->extra + m->extra_n; e++) {
        assert(e->id < t->n);
        memcpy(own, e->s, e->len);
        t->piece[e->id].s = own;
        t->piece[e->id].len = e->len;
        own += e->len;
        if (t->type[e->id] != TOKEN_UNKNOWN) {
            t->type[e->id] = t->type[e->id] == TOKEN_CONTROL
                                     || (e->flags & TOKEN_ADDED_SPECIAL)
                                 ? TOKEN_CONTROL
                                 : TOKEN_USER;
        }
    }

    for (id = m->n; id < t->n; id++) {
        if (t->piece[id].s == NULL) {
            t->piece[id].s = "";
            t->type[id] = TOKEN_UNUSED;
        }
    }
}


/* What is cut out of a text: tokens beside, then the file's special ones. */
static int
model_added(model_open_t *m)
{
    token_t *t = m->t;
    const token_extra_t *e;
    uint32_t id, special;
    int rc = 0;

    t->added = token_added_open(m->extra_n + t->n);
    if (t->added == NULL) {
        return -1;
    }

    for (e = m->extra; e < m->extra + m->extra_n && rc == 0; e++) {
        special = t->type[e->id] != TOKEN_USER ? TOKEN_ADDED_SPECIAL : 0;
        rc = token_added_put(t->added, e->s, e->len, e->id,
            (e->flags & ~TOKEN_ADDED_NORMALIZED) | special);
    }
    for (id = 0; id < t->n && rc == 0; id++) {
        if (t->type[id] == TOKEN_CONTROL && t->piece[id].len > 0
            && t->piece[id].len <= TOKEN_PIECE_MAX) {
            rc = token_added_put(t->added, t->piece[id].s, t->piece[id].len, id,
                TOKEN_ADDED_SPECIAL);
        }
    }

    return rc;
}


/* --- all of it ----------------------------------------------------------- */

/* Pieces, of the file and beside it. */
static int
model_pieces(model_open_t *m, const char *p, size_t len)
{
    token_t *t = m->t;
    model_msg_t msg = {(const uint8_t *) p, (const uint8_t *) p + len};
    size_t more;
    uint32_t n;

    if (model_fields(m, msg, 1) != 0 || m->n == 0) {
        return model_fail(m, "it is no SentencePiece model, or damaged");
    }
    n = model_measure(m, &more);
    if (n == 0) {
        return model_fail(
            m, "the tokens beside it have ids far beyond its own");
    }

    t->own = malloc(len + more + 1);
    if (t->own == NULL || token_load_alloc(t, n) != 0) {
        return model_fail(m, "out of memory for the vocabulary");
    }
    memcpy(t->own, p, len);
    msg.p = t->own;
    msg.end = msg.p + len;

    if (model_fields(m, msg, 0) != 0) {
        return model_fail(m, "it is no SentencePiece model, or damaged");
    }
    model_extra(m, (char *) t->own + len);

    return 0;
}


static int
model_read(model_open_t *m, const char *p, size_t len)
{
    token_t *t = m->t;

    if (model_pieces(m, p, len) != 0 || model_rules(m) != 0) {
        return -1;
    }
    if (token_load_tables(t, NULL, NULL) != 0 || model_user(t) != 0
        || model_weights(t) != 0 || (m->beside && model_added(m) != 0)) {
        return model_fail(m, "out of memory for the vocabulary");
    }

    token_load_end(t, t->eos);
    token_load_ends(t);
    if (t->bos != TOKEN_NONE && !t->unigram) {
        (void) token_load_around(&t->before, t->bos);
    }
    if (t->eos != TOKEN_NONE && t->unigram) {
        (void) token_load_around(&t->after, t->eos);
    }

    return 0;
}


/* m has a name, and what stands beside the file. */
static token_t *
model_open(model_open_t *m, const char *p, size_t len)
{
    /* the format's own defaults */
    m->kind = MODEL_UNIGRAM;
    m->escape = 1;
    m->unk = 0;
    m->bos = 1;
    m->eos = 2;

    assert(p != NULL && m->err != NULL && m->errlen > 0);

    m->t = calloc(1, sizeof(*m->t));
    if (m->t == NULL) {
        (void) model_fail(m, "out of memory for the vocabulary");
        return NULL;
    }
    m->t->add_space = m->t->collapse = 1;

    if (model_read(m, p, len) != 0) {
        token_close(m->t);
        return NULL;
    }

    return m->t;
}


token_t *
token_open_model_mem(
    const char *p, size_t len, const char *name, char *err, size_t errlen)
{
    model_open_t m = {.name = name, .err = err, .errlen = errlen};

    return model_open(&m, p, len);
}


/* m has all but its name. */
static token_t *
model_open_file(model_open_t *m, const char *path)
{
    token_t *t;
    size_t len;
    char *p = token_load_file(path, MODEL_SIZE_MAX, &len, m->err, m->errlen);

    assert(path != NULL && m->err != NULL && m->errlen > 0);

    if (p == NULL) {
        return NULL;
    }
    m->name = path;
    t = model_open(m, p, len);
    free(p);

    return t;
}


token_t *
token_open_model(const char *path, char *err, size_t errlen)
{
    model_open_t m = {.err = err, .errlen = errlen};

    return model_open_file(&m, path);
}


token_t *
token_open_model_added(const char *path, const token_extra_t *extra,
    uint32_t extra_n, int first_only, char *err, size_t errlen)
{
    model_open_t m = {.err = err,
        .errlen = errlen,
        .extra = extra,
        .extra_n = extra_n,
        .beside = 1};
    token_t *t = model_open_file(&m, path);

    if (t != NULL) {
        t->first_only = first_only;
    }

    return t;
}
