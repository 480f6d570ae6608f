/*
 * Would catch: a byte-level BPE token sequence that differs from the reference
 * by one id, a special piece made from a user's text, bytes that do not come
 * back, a hostile vocabulary that crashes the opening, an encoder that is
 * quadratic, forgets its limits or keeps state between threads.
 *
 * Vectors: LLM_DATA/tokenizers/{qwen3,phi-2}/vectors.jsonl, made by Hugging
 * Face's tokenizers from the tokenizer.json beside it; the published strings
 * and ids of ggml-vocab-{gpt-2,deepseek-coder,qwen2}.gguf.  The demo model's,
 * made likewise, are in the tree.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "llm_err.h"
#include "token_impl.h"
#include "token_test.h"

#include <pthread.h>
#include <time.h>

#define CHATML_START 300 /* of the small vocabulary below */
#define CHATML_END   301
#define THINK        302


/* --- vocabularies in memory --------------------------------------------- */

/* The character of a byte, as UTF-8: visible ones are their own. */
static const char *
letter(unsigned byte, char *dst)
{
    unsigned b, c, moved = 0;

    for (b = 0;; b++) {
        c = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae
                ? b
                : 0x100 + moved++;
        if (b == byte) {
            break;
        }
    }

    if (c < 0x80) {
        (void) snprintf(dst, 3, "%c", (int) c);
    } else {
        (void) snprintf(
            dst, 3, "%c%c", (int) (0xc0 | c >> 6), (int) (0x80 | (c & 0x3f)));
    }

    return dst;
}

/*
 * Begins a file: bytes 0 to 255 are pieces of the same id, then come more, up
 * to 300; then three special ones.  Leave out byte without, if it is one.
 */
static void
small_pieces(
    file_t *f, const char *pre, const char *const *more, unsigned without)
{
    unsigned i, end = 0;
    char c[3];

    file_init(f);
    key_str(f, "tokenizer.ggml.model", "gpt2");
    if (pre != NULL) {
        key_str(f, "tokenizer.ggml.pre", pre);
    }
    key_arr(f, "tokenizer.ggml.tokens", GGUF_STR, 303);
    for (i = 0; i < 256; i++) {
        put_str(f, letter(i, c), i == without ? 0 : strlen(letter(i, c)));
    }
    for (; i < 300; i++) {
        end = end || more == NULL || more[i - 256] == NULL;
        put_str(f, end ? "" : more[i - 256], end ? 0 : strlen(more[i - 256]));
    }
    put_str(f, "<|im_start|>", 12);
    put_str(f, "<|im_end|>", 10);
    put_str(f, "<think>", 7);
    key_arr(f, "tokenizer.ggml.token_type", GGUF_I32, 303);
    for (i = 0; i < 303; i++) {
        put_u32(f, i < 300 ? 1 : i < 302 ? 3 : 4);
    }
}

static void
small_merges(file_t *f, const char *const *merges)
{
    uint64_t i, n = 0;

    while (merges[n] != NULL) {
        n++;
    }
    key_arr(f, "tokenizer.ggml.merges", GGUF_STR, n);
    for (i = 0; i < n; i++) {
        put_str(f, merges[i], strlen(merges[i]));
    }
}

static const char *const some_pieces[] = {
    "he", "ll", "llo", "hello", "\xc4\xa0h", "aa", "aaaa", NULL};
static const char *const some_merges[] = {
    "l l", "h e", "ll o", "he llo", "\xc4\xa0 h", "a a", "aa aa", NULL};

enum { HE = 256, LL, LLO, HELLO, SPACE_H, AA, AAAA };

/* Reads a finished file; the caller ends with small_close. */
static token_t *
small_open(file_t *f, gguf_t **g)
{
    token_t *t;

    *g = file_open(f);
    t = token_open_gguf(*g, err, sizeof(err));
    if (t == NULL) {
        fail_msg("%s", err);
    }

    return t;
}

static token_t *
small(const char *pre, file_t *f, gguf_t **g)
{
    small_pieces(f, pre, some_pieces, 256);
    small_merges(f, some_merges);

    return small_open(f, g);
}

static void
small_close(token_t *t, file_t *f, gguf_t *g)
{
    token_close(t);
    gguf_close(g);
    free(f->p);
}

/* What a GGUF of a tokenizer.json holds. */
static void
hf_file(file_t *f, json_t *o, const char *pre)
{
    json_t *model = json_object_get(o, "model"), *v, *id;
    const char *key_of, *s;
    json_t *added = json_object_get(o, "added_tokens");
    json_t *merges = json_object_get(model, "merges");
    const char **piece;
    uint32_t *type, i, k, n, added_n = (uint32_t) json_array_size(added);

    n = (uint32_t) json_object_size(json_object_get(model, "vocab"));
    piece = calloc(n + added_n, sizeof(*piece));
    type = calloc(n + added_n, sizeof(*type));
    assert_true(piece != NULL && type != NULL);

    json_object_foreach(json_object_get(model, "vocab"), key_of, id)
    {
        i = (uint32_t) json_integer_value(id);
        assert_true(i < n);
        piece[i] = key_of;
        type[i] = 1;
    }
    /* an added piece may be one of the vocabulary's too */
    for (k = 0; k < added_n; k++) {
        v = json_array_get(added, k);
        i = (uint32_t) json_integer_value(json_object_get(v, "id"));
        assert_true(i <= n);
        n += i == n;
        piece[i] = json_string_value(json_object_get(v, "content"));
        type[i] = json_is_true(json_object_get(v, "special")) ? 3 : 4;
    }

    file_init(f);
    key_str(f, "tokenizer.ggml.model", "gpt2");
    key_str(f, "tokenizer.ggml.pre", pre);
    key_arr(f, "tokenizer.ggml.tokens", GGUF_STR, n);
    for (i = 0; i < n; i++) {
        assert_non_null(piece[i]);
        put_str(f, piece[i], strlen(piece[i]));
    }
    key_arr(f, "tokenizer.ggml.token_type", GGUF_I32, n);
    for (i = 0; i < n; i++) {
        put_u32(f, type[i]);
    }
    key_arr(f, "tokenizer.ggml.merges", GGUF_STR, json_array_size(merges));
    for (i = 0; i < json_array_size(merges); i++) {
        s = json_string_value(json_array_get(merges, i));
        put_str(f, s, strlen(s));
    }
    free(piece);
    free(type);
}

/* LLM_DATA/tokenizers/NAME/tokenizer.json; NULL if it is not there. */
static token_t *
hf_open(const char *name, const char *pre, file_t *f, gguf_t **g)
{
    char path[128], *raw;
    size_t len;
    json_t *o;

    (void) snprintf(path, sizeof(path), "tokenizers/%s/tokenizer.json", name);
    raw = slurp(path, &len);
    if (raw == NULL) {
        return NULL;
    }
    o = json_loadb(raw, len, JSON_ALLOW_NUL, NULL);
    assert_non_null(o);
    hf_file(f, o, pre);
    json_decref(o);
    free(raw);

    return small_open(f, g);
}


/* --- vectors ------------------------------------------------------------ */

/* Random bytes come back, composed if the models want them so. */
static void
comes_back(const token_t *t, unsigned seed, size_t rounds)
{
    token_buf_t form = {NULL, 0, 0};
    char text[512], name[32];
    size_t i, n;
    int64_t got;

    for (rounds /= brief() ? 4 : 1; rounds > 0; rounds--) {
        seed = seed * 1103515245u + 12345u;
        n = seed >> 16 & 511;
        for (i = 0; i < n; i++) {
            seed = seed * 1103515245u + 12345u;
            /* half of it ASCII, or hardly anything would be joined */
            text[i] = (char) (seed >> 20 & (seed >> 30 & 1 ? 0xff : 0x7f));
        }
        (void) snprintf(name, sizeof(name), "round %zu", rounds);
        got = token_encode(t, text, n, 0, ids, IDS_MAX, NULL, NULL);
        form.n = 0;
        assert_int_equal(token_norm_run(t->norm, text, n, &form), 0);
        assert_true(got >= 0 && got <= (int64_t) form.n);
        decodes(t, name, got, form.p != NULL ? form.p : "", form.n);
    }
    free(form.p);
}

static void
test_demo(void **state)
{
    gguf_t *g;
    token_t *t;
    char *raw, *lines;
    size_t len;

    (void) state;
    t = data_open("./conf/demo/ngx-llm-demo.gguf", &g, &raw);
    lines = slurp("./tests/data/demo/vectors.jsonl", &len);
    assert_non_null(t);
    assert_non_null(lines);

    assert_int_equal(vectors(t, 0, lines), 149);
    assert_true(token_is_end(t, token_eos(t)));
    comes_back(t, 4, 2000);

    token_close(t);
    gguf_close(g);
    free(raw);
    free(lines);
}

static void
test_gpt2(void **state)
{
    const char *name = "tokenizers/gguf-vocab/ggml-vocab-gpt-2.gguf";
    gguf_t *g;
    token_t *t;
    char *raw;

    (void) state;
    t = data_open(name, &g, &raw);
    if (t == NULL) {
        skip();
    }

    assert_int_equal(published(t, 0, name), 46);
    assert_int_equal(token_vocab(t), 50257);
    assert_int_equal(token_eos(t), 50256);
    assert_true(token_is_end(t, 50256));
    assert_false(token_strips_space(t));
    /* no begin token unless the file says so */
    assert_int_equal(
        token_encode(t, "", 0, TOKEN_F_BOS, ids, 1, NULL, NULL), 0);
    comes_back(t, 1, 2000);

    token_close(t);
    gguf_close(g);
    free(raw);
}

static void
test_deepseek_coder(void **state)
{
    const char *name = "tokenizers/gguf-vocab/ggml-vocab-deepseek-coder.gguf";
    gguf_t *g;
    token_t *t;
    size_t len;
    char *raw;

    (void) state;
    t = data_open(name, &g, &raw);
    if (t == NULL) {
        skip();
    }

    /* "ü" and its like are pieces that were added */
    assert_int_equal(published(t, 0, name), 46);
    assert_int_equal(token_bos(t), 32013);
    assert_int_equal(token_eos(t), 32014);
    assert_int_equal(
        token_encode(t, "", 0, TOKEN_F_BOS, ids, 1, NULL, NULL), 1);
    assert_int_equal(ids[0], 32013);

    /* it lacks the bytes that UTF-8 never has; "õ", which would be byte F5's
     * letter, is a piece that was added, and so no byte */
    assert_int_equal(
        token_encode(t, "a\xf5", 2, 0, ids, 4, NULL, NULL), -LLM_ERR_BAD_TEXT);
    assert_memory_equal(token_bytes(t, 32000, &len), "\xc3\xb5", 2);
    assert_int_equal(len, 2);

    token_close(t);
    gguf_close(g);
    free(raw);
}

/*
 * As the reference does, with the added pieces found in the text.  Qwen's
 * tokenizer.json also normalises by NFC, which a GGUF cannot say; all 396
 * texts are in that form, so none has to be left out.
 */
static void
test_qwen3(void **state)
{
    file_t f;
    gguf_t *g;
    static const uint32_t composed[] = {963};
    token_t *t = hf_open("qwen3", "qwen2", &f, &g);
    char *lines, *again;
    size_t len;

    (void) state;
    lines = slurp("tokenizers/qwen3/vectors.jsonl", &len);
    again = slurp("tokenizers/qwen3/vectors.jsonl", &len);
    if (t == NULL || lines == NULL) {
        skip();
    }

    assert_int_equal(token_vocab(t), 151669);
    assert_int_equal(vectors(t, TOKEN_F_SPECIAL, lines), 396);
    assert_int_equal(vectors(t, 0, again), 396);
    assert_int_equal(
        published(t, 0, "tokenizers/qwen3/ggml-vocab-qwen2.gguf"), 46);
    assert_true(token_is_end(t, 151643));
    assert_true(token_is_end(t, 151645));
    comes_back(t, 2, 2000);

    /* a letter and its accent are one character, as Qwen's own tokenizer has
     * it and a GGUF file does not say */
    encodes(t, "e\xcc\x81", 0, composed, 1);
    encodes(t, "e\xcc\x81", TOKEN_F_SPECIAL, composed, 1);
    encodes(t, "\xc3\xa9", 0, composed, 1);

    small_close(t, &f, g);
    free(lines);
    free(again);
}

static void
test_phi2(void **state)
{
    file_t f;
    gguf_t *g;
    token_t *t = hf_open("phi-2", "phi-2", &f, &g);
    char *lines;
    size_t len;

    (void) state;
    lines = slurp("tokenizers/phi-2/vectors.jsonl", &len);
    if (t == NULL || lines == NULL) {
        skip();
    }

    /* runs of spaces are added pieces here */
    assert_int_equal(vectors(t, 0, lines), 396);
    comes_back(t, 3, 2000);

    small_close(t, &f, g);
    free(lines);
}


/* --- rules -------------------------------------------------------------- */

static void
test_merge_order(void **state)
{
    static const uint32_t hello[] = {HELLO}, space[] = {SPACE_H, 'e', LLO};
    static const uint32_t three[] = {AA, 'a'}, seven[] = {AAAA, AA, 'a'};
    static const uint32_t words[] = {' ', HELLO, 'l'};
    file_t f;
    gguf_t *g;
    token_t *t = small("gpt-2", &f, &g);

    (void) state;
    encodes(t, "hello", 0, hello, 1);
    encodes(t, "aaa", 0, three, 2); /* leftmost of equals */
    encodes(t, "aaaaaaa", 0, seven, 3);
    /* "h e" comes before "Ġ h", so the space stays alone */
    encodes(t, " hellol", 0, words, 3);
    small_close(t, &f, g);

    /* the other way round */
    {
        static const char *const merges[] = {
            "\xc4\xa0 h", "l l", "h e", "ll o", "he llo", NULL};

        small_pieces(&f, "gpt-2", some_pieces, 256);
        small_merges(&f, merges);
        t = small_open(&f, &g);
        encodes(t, " hello", 0, space, 3);
        small_close(t, &f, g);
    }
}

/* Llama 3's: a word that is a piece is one, though no merge leads to it. */
static void
test_whole(void **state)
{
    static const char *const pieces[] = {"\xc4\xa0xyz", "ab", NULL};
    static const char *const merges[] = {"a b", NULL};
    static const uint32_t whole[] = {256}, begin[] = {CHATML_START, 257};
    static const uint32_t apart[] = {' ', 'x', 'y', 'z'};
    file_t f;
    gguf_t *g;
    token_t *t;

    (void) state;
    small_pieces(&f, "llama-bpe", pieces, 256);
    small_merges(&f, merges);
    key_u32(&f, "tokenizer.ggml.bos_token_id", CHATML_START);
    t = small_open(&f, &g);
    encodes(t, " xyz", 0, whole, 1);
    encodes(t, "ab", TOKEN_F_BOS, begin, 2); /* it wants a begin token */
    small_close(t, &f, g);

    small_pieces(&f, "gpt-2", pieces, 256);
    small_merges(&f, merges);
    t = small_open(&f, &g);
    encodes(t, " xyz", 0, apart, 4);
    small_close(t, &f, g);
}

static void
test_special(void **state)
{
    static const uint32_t plain[] = {
        '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|', '>'};
    static const uint32_t think[] = {'a', THINK, ' '};
    static const uint32_t named[] = {
        CHATML_START, 'x', '\n', CHATML_END, THINK, ' '};
    file_t f;
    gguf_t *g;
    token_t *t = small("qwen2", &f, &g);
    size_t len;

    (void) state;
    encodes(t, "<|im_end|>", 0, plain, 10);
    encodes(t, "a<think> ", 0, think, 3);
    encodes(t, "<|im_start|>x\n<|im_end|><think> ", TOKEN_F_SPECIAL, named, 6);

    (void) token_bytes(t, CHATML_END, &len);
    assert_int_equal(len, 0);
    assert_memory_equal(token_bytes(t, THINK, &len), "<think>", 7);
    assert_int_equal(len, 7);
    assert_memory_equal(token_bytes(t, SPACE_H, &len), " h", 2);
    assert_int_equal(len, 2);
    assert_true(token_is_end(t, CHATML_END));
    assert_false(token_is_end(t, THINK));
    small_close(t, &f, g);
}

/* Bytes that are no text, with every pre-tokenizer. */
static void
test_bytes(void **state)
{
    static const char *const pres[] = {NULL, "gpt-2", "phi-2", "qwen2",
        "llama-bpe", "smollm", "deepseek-coder"};
    static const uint32_t bad[] = {'a', 0xff, 0xc3, AA, 0xe2, 0x82};
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(pres) / sizeof(pres[0]); i++) {
        file_t f;
        gguf_t *g;
        token_t *t = small(pres[i], &f, &g);

        encodes(t,
            "a\xff\xc3"
            "aa\xe2\x82",
            0, bad, 6);
        comes_back(t, (unsigned) i, 3000);
        small_close(t, &f, g);
    }
}

static int
never(void *arg)
{
    (*(int *) arg)++;
    return 0;
}

static int
soon(void *arg)
{
    return ++(*(int *) arg) > 3;
}

static void
test_limits(void **state)
{
    size_t n = brief() ? 1 << 18 : 1 << 20;
    char *big = malloc(n);
    uint32_t *out = malloc(n * sizeof(*out));
    file_t f;
    gguf_t *g;
    token_t *t = small("qwen2", &f, &g);
    clock_t start;
    int asked = 0;

    (void) state;
    assert_true(big != NULL && out != NULL);
    memset(big, 'a', n);

    assert_int_equal(token_encode(t, "abc", 3, 0, out, 2, NULL, NULL),
        -LLM_ERR_CONTEXT_FULL);
    assert_int_equal(token_encode(t, "abc", 3, 0, out, 3, NULL, NULL), 3);
    assert_int_equal(token_encode(t, "", 0, 0, out, 0, NULL, NULL), 0);
    /* known from the length alone */
    assert_int_equal(token_encode(t, big, n, 0, out, 100, never, &asked),
        -LLM_ERR_CONTEXT_FULL);
    assert_int_equal(asked, 0);

    /* one word; quadratic work would take minutes */
    start = clock();
    assert_int_equal(token_encode(t, big, n, 0, out, n, never, &asked), n / 4);
    assert_true((double) (clock() - start) / CLOCKS_PER_SEC < 20.0);
    assert_true(asked > 100);

    asked = 0;
    assert_int_equal(
        token_encode(t, big, n, 0, out, n, soon, &asked), -LLM_ERR_CANCELLED);
    assert_int_equal(asked, 4);

    /* many words */
    memset(big, '1', n);
    asked = 0;
    assert_int_equal(token_encode(t, big, n, 0, out, n, never, &asked), n);
    assert_true(asked > 100);
    asked = 0;
    assert_int_equal(
        token_encode(t, big, n, 0, out, n, soon, &asked), -LLM_ERR_CANCELLED);

    small_close(t, &f, g);
    free(big);
    free(out);
}

static void
test_missing_byte(void **state)
{
    static const uint32_t ok[] = {'y'};
    file_t f;
    gguf_t *g;
    token_t *t;

    (void) state;
    small_pieces(&f, "qwen2", some_pieces, 'x');
    small_merges(&f, some_merges);
    t = small_open(&f, &g);
    encodes(t, "y", 0, ok, 1);
    assert_int_equal(token_encode(t, "yx", 2, 0, ids, IDS_MAX, NULL, NULL),
        -LLM_ERR_BAD_TEXT);
    small_close(t, &f, g);
}

typedef struct {
    const token_t *t;
    const uint32_t *want;
    int64_t n;
    int bad;
} thread_t;

static const char thread_text[] = "hello  hello 123\r\n\xff he aaaaaaa <think>";

static void *
thread_main(void *arg)
{
    thread_t *th = arg;
    uint32_t out[64];
    int i;

    for (i = 0; i < 2000; i++) {
        th->bad |= token_encode(th->t, thread_text, sizeof(thread_text), 0, out,
                       64, NULL, NULL)
                       != th->n
                   || memcmp(out, th->want, (size_t) th->n * 4) != 0;
    }

    return NULL;
}

static void
test_threads(void **state)
{
    pthread_t id[4];
    thread_t th[4];
    file_t f;
    gguf_t *g;
    token_t *t = small("qwen2", &f, &g);
    int64_t n;
    int i;

    (void) state;
    n = token_encode(
        t, thread_text, sizeof(thread_text), 0, ids, 64, NULL, NULL);
    assert_true(n > 0);
    for (i = 0; i < 4; i++) {
        th[i] = (thread_t){t, ids, n, 0};
        assert_int_equal(pthread_create(&id[i], NULL, thread_main, &th[i]), 0);
    }
    for (i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(id[i], NULL), 0);
        assert_false(th[i].bad);
    }
    small_close(t, &f, g);
}


/* --- hostile vocabularies ----------------------------------------------- */

static void
test_refused(void **state)
{
    static const char *const foreign[] = {"nosuch piece", NULL};
    static const char *const bad[][2] = {
        {"aa", NULL}, {" a", NULL}, {"a ", NULL}, {"", NULL}, {" ", NULL}};
    file_t f;
    size_t i;

    (void) state;
    small_pieces(&f, "klingon", NULL, 256);
    refused(&f,
        "tokenizer.ggml.pre is \"klingon\", a pre-tokenizer that is not "
        "known");

    small_pieces(&f, "qwen2", NULL, 256);
    refused(&f, "no tokenizer.ggml.merges array of strings");

    small_pieces(&f, "qwen2", NULL, 256);
    key_arr(&f, "tokenizer.ggml.merges", GGUF_U32, 1);
    put_u32(&f, 1);
    refused(&f, "no tokenizer.ggml.merges array of strings");

    small_pieces(&f, "qwen2", NULL, 256);
    small_merges(&f, foreign);
    refused(&f, "none of the 1 tokenizer.ggml.merges joins two pieces");

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        small_pieces(&f, "qwen2", NULL, 256);
        small_merges(&f, bad[i]);
        refused(&f, "element 0 of 1 is not two pieces");
    }

    small_pieces(&f, "qwen2", NULL, 256);
    small_merges(&f, some_merges);
    key_u32(&f, "tokenizer.ggml.eos_token_id", 303);
    refused(&f, "eos_token_id is 303, expected less than 303");
}

/*
 * Merges that name no piece, a special one or each other twice; pieces that
 * are equal, empty, not UTF-8 or outside the byte alphabet.
 */
static void
test_tolerated(void **state)
{
    static const char *const pieces[] = {"ab", "a", "\xff\xfe", " ", "ab",
        "\xe2\x96\x81"
        "a",
        "\xc4", "\xa0", "c\xc4", "abc", "\xc2\x80", NULL};
    static const char *const merges[] = {"a zz", "zz a", "a b", "\xc4 \xa0",
        "c \xc4", "a b", "<|im_start|> <|im_end|>", "< think>", "ab c", "a  b",
        NULL};
    static const uint32_t want[] = {265, ' ', 256, 0xc4, 0xa0, 0x80};
    file_t f;
    gguf_t *g;
    token_t *t;
    size_t len;

    (void) state;
    small_pieces(&f, "gpt-2", pieces, 256);
    small_merges(&f, merges);
    t = small_open(&f, &g);
    encodes(t, "abc ab\xc4\xa0\x80", 0, want, 6);
    assert_memory_equal(token_bytes(t, 258, &len), "\xff\xfe", 2);
    assert_int_equal(len, 2);
    assert_memory_equal(token_bytes(t, 261, &len),
        "\xe2\x96\x81"
        "a",
        4);
    assert_int_equal(len, 4);
    (void) token_bytes(t, 290, &len);
    assert_int_equal(len, 0);
    comes_back(t, 7, 200);
    small_close(t, &f, g);

    /* not one merge is a vocabulary too: of bytes */
    small_pieces(&f, "gpt-2", NULL, 256);
    small_merges(&f, merges + 10);
    t = small_open(&f, &g);
    comes_back(t, 8, 200);
    small_close(t, &f, g);
}

/* Cut off anywhere, or with any byte changed, a file does no harm. */
static void
test_broken(void **state)
{
    uint32_t out[64];
    uint8_t *copy;
    size_t i, len;
    file_t f;
    gguf_t *g;
    token_t *t;

    (void) state;
    small_pieces(&f, "qwen2", some_pieces, 256);
    small_merges(&f, some_merges);
    file_done(&f);

    /* every length, and every ninth byte, which meets each part of it */
    for (i = 0; i < 2 * f.n; i += i < f.n ? 1 : 9) {
        len = i < f.n ? i : f.n;
        copy = malloc(len + 1);
        assert_non_null(copy);
        memcpy(copy, f.p, len);
        if (i >= f.n) {
            copy[i - f.n] ^= (uint8_t) (1u << (i % 8));
        }
        g = gguf_open_mem(copy, len, "broken", err, sizeof(err));
        t = g == NULL ? NULL : token_open_gguf(g, err, sizeof(err));
        if (t != NULL) {
            (void) token_encode(t, thread_text, sizeof(thread_text),
                TOKEN_F_BOS | TOKEN_F_SPECIAL, out, 64, NULL, NULL);
        }
        token_close(t);
        gguf_close(g);
        free(copy);
    }
    free(f.p);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_demo),
        cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_deepseek_coder),
        cmocka_unit_test(test_qwen3),
        cmocka_unit_test(test_phi2),
        cmocka_unit_test(test_merge_order),
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_special),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_missing_byte),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_tolerated),
        cmocka_unit_test(test_broken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
