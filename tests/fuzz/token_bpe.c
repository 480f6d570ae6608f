/*
 * Catches: a byte-level vocabulary that crashes the opening, or a text that
 * makes the encoder crash, loop, write past its room, produce an id out of
 * range or lose a byte.
 *
 * The input is one byte that picks the pre-tokenizer and what to leave out or
 * lie about; pieces (type, length + 1, bytes); merges, a 0 before and behind
 * them; then the text.  So that the fuzzer need not invent an alphabet, the
 * 256 byte pieces are written first, and a merge is two ids, whose joint piece
 * is added; id 255 twice begins a merge that is a string as it stands.
 */
#include "token_impl.h"
#include "../unit/vocab_file.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PIECES_MAX 600
#define MERGES_MAX 200
#define LEN_MAX    1200 /* above TOKEN_PIECE_MAX */
#define IDS_MAX    4096

enum {
    HOW_PRE = 7,
    HOW_NO_TYPES = 8,
    HOW_NO_BYTES = 16,
    HOW_NO_MERGES = 32,
    HOW_SHORT = 64, /* one type too few */
    HOW_BOS = 128
};

typedef struct {
    char *s;
    size_t len;
    uint8_t type;
} fuzz_str_t;

typedef struct {
    fuzz_str_t pieces[PIECES_MAX], merges[MERGES_MAX];
    uint32_t pieces_n, merges_n;
    const uint8_t *p;
    size_t len;
} fuzz_t;

static const char *const pres[] = {"gpt-2", "qwen2", "llama-bpe", "smollm",
    "deepseek-coder", "falcon", "deepseek-llm", "?"};

static void
keep(fuzz_str_t *d, const void *s, size_t len, uint8_t type)
{
    d->s = malloc(len + 1);
    if (d->s == NULL) {
        abort();
    }
    memcpy(d->s, s, len);
    d->len = len;
    d->type = type;
}

static void
letters(fuzz_t *f)
{
    char piece[2], byte;
    uint32_t i;

    for (i = 0; i < 256; i++) {
        byte = (char) i;
        keep(&f->pieces[f->pieces_n++], piece,
            token_alphabet_write(&byte, 1, piece), TOKEN_NORMAL);
    }
}

/* length + 1 and as many bytes, NULL at the end. */
static const uint8_t *
take(fuzz_t *f, size_t *len)
{
    const uint8_t *s;

    if (f->len == 0 || f->p[0] == 0 || f->p[0] > f->len) {
        return NULL;
    }
    *len = f->p[0] - 1u;
    s = f->p + 1;
    f->p += 1 + *len;
    f->len -= 1 + *len;

    return s;
}

static void
pieces(fuzz_t *f)
{
    const uint8_t *s;
    size_t len;
    uint8_t type;

    while (f->len > 0 && f->p[0] != 0 && f->pieces_n < 300) {
        type = *f->p++ % (TOKEN_TYPES + 1);
        f->len--;
        s = take(f, &len);
        if (s == NULL) {
            return;
        }
        keep(&f->pieces[f->pieces_n++], s, len, type);
    }
    if (f->len > 0) {
        f->p++;
        f->len--;
    }
}

static void
merges(fuzz_t *f)
{
    const fuzz_str_t *a, *b;
    fuzz_str_t *m;
    const uint8_t *s;
    size_t len;

    while (f->len >= 3 && f->p[0] != 0 && f->merges_n < MERGES_MAX
           && f->pieces_n > 0) {
        m = &f->merges[f->merges_n];
        if (f->p[0] == 255 && f->p[1] == 255) {
            f->p += 2;
            f->len -= 2;
            s = take(f, &len);
            if (s == NULL) {
                return;
            }
            keep(m, s, len, 0);
            f->merges_n++;
            continue;
        }
        /* counted from the newest one, so that merges build upon merges */
        a = &f->pieces[f->pieces_n - 1 - (f->p[0] - 1u) % f->pieces_n];
        b = &f->pieces[f->pieces_n - 1 - f->p[1] % f->pieces_n];
        f->p += 2;
        f->len -= 2;
        if (a->len + b->len > LEN_MAX) {
            continue;
        }
        keep(m, a->s, a->len, 0);
        m->s = realloc(m->s, a->len + b->len + 1);
        if (m->s == NULL) {
            abort();
        }
        memcpy(m->s + a->len, b->s, b->len);
        keep(&f->pieces[f->pieces_n++], m->s, a->len + b->len, TOKEN_NORMAL);
        memmove(m->s + a->len + 1, m->s + a->len, b->len);
        m->s[a->len] = ' ';
        m->len = a->len + b->len + 1;
        f->merges_n++;
    }
    if (f->len > 0) {
        f->p++;
        f->len--;
    }
}

static void
build(const fuzz_t *f, unsigned how, file_t *out)
{
    uint32_t i, n = f->pieces_n;

    file_init(out);
    key_str(out, "tokenizer.ggml.model", "gpt2");
    key_str(out, "tokenizer.ggml.pre", pres[how & HOW_PRE]);
    key_arr(out, "tokenizer.ggml.tokens", GGUF_STR, n);
    for (i = 0; i < n; i++) {
        put_str(out, f->pieces[i].s, f->pieces[i].len);
    }
    if (!(how & HOW_NO_TYPES)) {
        n -= how & HOW_SHORT ? n > 0 : 0;
        key_arr(out, "tokenizer.ggml.token_type", GGUF_I32, n);
        for (i = 0; i < n; i++) {
            put_u32(out, f->pieces[i].type);
        }
    }
    if (!(how & HOW_NO_MERGES)) {
        key_arr(out, "tokenizer.ggml.merges", GGUF_STR, f->merges_n);
        for (i = 0; i < f->merges_n; i++) {
            put_str(out, f->merges[i].s, f->merges[i].len);
        }
    }
    if (how & HOW_BOS) {
        key_u32(out, "tokenizer.ggml.bos_token_id", 7);
        key(out, "tokenizer.ggml.add_bos_token", GGUF_BOOL);
        put(out, "\1", 1);
    }
    file_done(out);
}

/* whole: no byte of text may be lost */
static void
use(const token_t *t, const char *text, size_t len, unsigned flags, int whole)
{
    static uint32_t ids[IDS_MAX];
    token_buf_t form = {NULL, 0, 0};
    const char *s;
    int64_t n, i;
    size_t m, at = 0;

    n = token_encode(t, text, len, flags, ids, IDS_MAX, NULL, NULL);

    /* what lies between pieces that are cut out has a form of its own */
    whole = whole && !(t->norm != NULL && t->has_user);
    if (whole && t->norm != NULL) {
        if (token_norm_run(t->norm, text, len, &form) != 0) {
            abort();
        }
        text = form.p;
        len = form.n;
    }

    if (n > IDS_MAX || (whole && n < 0 && len <= IDS_MAX)) {
        abort();
    }
    for (i = 0; i < n; i++) {
        if (ids[i] >= token_vocab(t)) {
            abort();
        }
        s = token_bytes(t, ids[i], &m);
        if (whole && (m > len - at || memcmp(s, text + at, m) != 0)) {
            abort();
        }
        at += m;
    }
    if (whole && n >= 0 && at != len) {
        abort();
    }
    free(form.p);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    fuzz_t *f;
    char err[256];
    unsigned how;
    token_t *t;
    gguf_t *g;
    file_t out;
    uint32_t i;

    if (len == 0) {
        return 0;
    }

    f = calloc(1, sizeof(*f));
    if (f == NULL) {
        abort();
    }
    how = p[0];
    f->p = p + 1;
    f->len = len - 1;
    if (!(how & HOW_NO_BYTES)) {
        letters(f);
    }
    pieces(f);
    merges(f);

    build(f, how, &out);
    g = gguf_open_mem(out.p, out.n, "fuzz", err, sizeof(err));
    t = g != NULL ? token_open_gguf(g, err, sizeof(err)) : NULL;
    if (t != NULL) {
        /* a file without types calls what it names as begin token special */
        use(t, (const char *) f->p, f->len, 0,
            !(how & HOW_NO_BYTES)
                && (how & (HOW_NO_TYPES | HOW_BOS))
                       != (HOW_NO_TYPES | HOW_BOS));
        use(t, (const char *) f->p, f->len, TOKEN_F_BOS | TOKEN_F_SPECIAL, 0);
    }
    token_close(t);
    gguf_close(g);
    free(out.p);
    for (i = 0; i < f->pieces_n; i++) {
        free(f->pieces[i].s);
    }
    for (i = 0; i < f->merges_n; i++) {
        free(f->merges[i].s);
    }
    free(f);

    return 0;
}
