/*
 * A tokenizer.json's normalizer, pre-tokenizer and decoder as steps of ours.
 *
 * DESIGN.  Each section is an object with a type, or a sequence of such, and
 * each type is a row of a table: a name and what makes steps of it.  A type or
 * a setting that is not in the tables is refused by its name, since a tokenizer
 * that is nearly right gives nearly right answers.
 *
 * Decoders work on a list of pieces, while here each piece must have its bytes
 * once and for all, so that text can be streamed.  Those that real decoder
 * models use allow it: what "Fuse" would put together is put together by who
 * reads the stream, and what is done to a whole text behind it is the loss of
 * one space at its beginning.
 *
 * Nothing of the JSON is kept.  Runs at start.
 */
#include "token_json.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sequences within sequences; real files have two levels. */
#define PIPE_DEPTH_MAX 8

typedef struct {
    token_t *t;
    token_decode_t *d;
    const token_json_why_t *w;
    int fused; /* decoders: behind "Fuse" */
    int depth;
} pipe_t;

typedef struct {
    const char *type;
    int (*make)(pipe_t *p, const json_t *o);
} pipe_row_t;

static int pipe_section(
    pipe_t *p, const char *what, const pipe_row_t *rows, const json_t *o);


/* --- reading ------------------------------------------------------------ */

int
token_json_fail(const token_json_why_t *w, const char *fmt, ...)
{
    va_list args;
    int n;

    n = snprintf(w->err, w->errlen, "%s: ", w->name);
    if (n >= 0 && (size_t) n < w->errlen) {
        va_start(args, fmt);
        (void) vsnprintf(w->err + n, w->errlen - (size_t) n, fmt, args);
        va_end(args);
    }

    return -1;
}


static int
pipe_memory(const pipe_t *p)
{
    return token_json_fail(p->w, "there is no memory for it");
}


/* A boolean member, or what it is where absent. */
static int
pipe_bool(const json_t *o, const char *name, int absent)
{
    const json_t *v = json_object_get(o, name);

    return json_is_boolean(v) ? json_is_true(v) : absent;
}


/* A string member of less than size bytes without zeros; 0, or -1 told. */
static int
pipe_str(
    const pipe_t *p, const json_t *o, const char *name, char *dst, size_t size)
{
    const json_t *v = json_object_get(o, name);
    size_t len = json_string_length(v);

    assert(size > 0);

    if (!json_is_string(v) || len >= size
        || memchr(json_string_value(v), '\0', len) != NULL) {
        return token_json_fail(
            p->w, "\"%s\" is no string of at most %zu bytes", name, size - 1);
    }
    memcpy(dst, json_string_value(v), len + 1);

    return 0;
}


/*
 * {"String": s} or {"Regex": s}, or a string, as a pattern; NULL told.
 */
static token_regex_t *
pipe_pattern(const pipe_t *p, const json_t *o)
{
    const json_t *v = json_is_string(o) ? o : json_object_get(o, "String");
    int kind = TOKEN_REGEX_LITERAL;
    token_regex_t *r;
    char why[160];

    if (!json_is_string(v)) {
        v = json_object_get(o, "Regex");
        kind = TOKEN_REGEX_ONIG;
    }
    if (!json_is_string(v)) {
        (void) token_json_fail(
            p->w, "a pattern is neither a \"String\" nor a \"Regex\"");
        return NULL;
    }

    r = token_regex_open(
        json_string_value(v), json_string_length(v), kind, why, sizeof(why));
    if (r == NULL) {
        (void) token_json_fail(p->w, "the pattern \"%.60s\" is refused: %s",
            json_string_value(v), why);
    }

    return r;
}


/* The members of a sequence, one after the other. */
static int
pipe_sequence(
    pipe_t *p, const char *what, const pipe_row_t *rows, const json_t *list)
{
    size_t i;
    int rc = 0;

    assert(p->depth >= 0 && p->depth <= PIPE_DEPTH_MAX);

    if (!json_is_array(list) || p->depth == PIPE_DEPTH_MAX) {
        return token_json_fail(
            p->w, "a sequence of its %s is no list, or too deep", what);
    }

    p->depth++;
    for (i = 0; i < json_array_size(list) && rc == 0; i++) {
        rc = pipe_section(p, what, rows, json_array_get(list, i));
    }
    p->depth--;

    return rc;
}


/* One step by its type's row, or each of a Sequence; null is none. */
static int
pipe_section(
    pipe_t *p, const char *what, const pipe_row_t *rows, const json_t *o)
{
    const char *type = json_string_value(json_object_get(o, "type"));
    size_t i;

    assert(rows != NULL && p->w != NULL);

    if (o == NULL || json_is_null(o)) {
        return 0;
    }
    if (type == NULL) {
        return token_json_fail(p->w, "a %s has no type", what);
    }

    if (strcmp(type, "Sequence") == 0) {
        return pipe_sequence(p, what, rows,
            json_object_get(o, what[0] == 'n'   ? "normalizers"
                               : what[0] == 'p' ? "pretokenizers"
                                                : "decoders"));
    }

    for (i = 0; rows[i].type != NULL; i++) {
        if (strcmp(rows[i].type, type) == 0) {
            return rows[i].make(p, o);
        }
    }

    return token_json_fail(
        p->w, "its %s \"%.40s\" is not supported", what, type);
}


/* --- normalizers -------------------------------------------------------- */

static int
norm_plain(pipe_t *p, int kind)
{
    assert(kind < TOKEN_NORM_PREPEND);

    return token_norm_add(&p->t->norm, kind, NULL, "", 0, NULL) == 0
               ? 0
               : token_json_fail(p->w, "it has too many normalizers");
}


static int
norm_named(pipe_t *p, const json_t *o)
{
    static const struct {
        const char *type;
        int kind;
    } rows[] = {{"NFC", TOKEN_NORM_NFC}, {"NFD", TOKEN_NORM_NFD},
        {"NFKC", TOKEN_NORM_NFKC}, {"NFKD", TOKEN_NORM_NFKD},
        {"Lowercase", TOKEN_NORM_LOWER}, {"StripAccents", TOKEN_NORM_ACCENTS}};
    const char *type = json_string_value(json_object_get(o, "type"));
    size_t i;

    for (i = 0; strcmp(rows[i].type, type) != 0; i++) {
        assert(i + 1 < sizeof(rows) / sizeof(rows[0]));
    }

    return norm_plain(p, rows[i].kind);
}


static int
norm_strip(pipe_t *p, const json_t *o)
{
    int rc = 0;

    if (pipe_bool(o, "strip_left", 1)) {
        rc = norm_plain(p, TOKEN_NORM_STRIP_LEFT);
    }
    if (rc == 0 && pipe_bool(o, "strip_right", 1)) {
        rc = norm_plain(p, TOKEN_NORM_STRIP_RIGHT);
    }

    return rc;
}


static int
norm_prepend(pipe_t *p, const json_t *o)
{
    const json_t *v = json_object_get(o, "prepend");

    if (!json_is_string(v)) {
        return token_json_fail(p->w, "its normalizer \"Prepend\" has no text");
    }

    return token_norm_add(&p->t->norm, TOKEN_NORM_PREPEND, NULL,
               json_string_value(v), json_string_length(v), NULL)
                   == 0
               ? 0
               : token_json_fail(p->w, "it has too many normalizers");
}


static int
norm_replace(pipe_t *p, const json_t *o)
{
    const json_t *v = json_object_get(o, "content");
    token_regex_t *r;

    if (!json_is_string(v)) {
        return token_json_fail(
            p->w, "its normalizer \"Replace\" has no content");
    }

    r = pipe_pattern(p, json_object_get(o, "pattern"));
    if (r == NULL) {
        return -1;
    }

    return token_norm_add(&p->t->norm, TOKEN_NORM_REPLACE, r,
               json_string_value(v), json_string_length(v), NULL)
                   == 0
               ? 0
               : token_json_fail(p->w, "it has too many normalizers");
}


/* The value of a letter of base 64, -1 if it is none. */
static int
base64_of(char c)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != '\0' ? strchr(letters, c) : NULL;

    return at != NULL ? (int) (at - letters) : -1;
}


/* Reads base 64 into dst, which has room for 3/4 of it; bytes, -1 if none. */
static int64_t
base64_read(const char *s, size_t len, uint8_t *dst)
{
    uint32_t bits = 0, have = 0;
    int64_t n = 0;
    size_t i;
    int v;

    while (len > 0 && s[len - 1] == '=') {
        len--;
    }

    for (i = 0; i < len; i++) {
        v = base64_of(s[i]);
        if (v < 0) {
            return -1;
        }
        bits = (bits << 6 | (uint32_t) v) & 0xffffff;
        have += 6;
        if (have >= 8) {
            have -= 8;
            dst[n++] = (uint8_t) (bits >> have);
        }
    }

    return n;
}


/* SentencePiece's table of replacements, in base 64. */
static int
norm_charsmap(pipe_t *p, const json_t *o)
{
    const json_t *v = json_object_get(o, "precompiled_charsmap");
    token_charsmap_t *m = NULL;
    const char *why = "it is no text in base 64";
    uint8_t *bytes;
    int64_t n;

    if (!json_is_string(v)) {
        return token_json_fail(
            p->w, "its normalizer \"Precompiled\" has no charsmap");
    }

    bytes = malloc(json_string_length(v) + 1);
    if (bytes == NULL) {
        return pipe_memory(p);
    }
    n = base64_read(json_string_value(v), json_string_length(v), bytes);
    if (n >= 0) {
        m = token_charsmap_open(bytes, (size_t) n, &why);
    }
    free(bytes);

    if (m == NULL) {
        return token_json_fail(
            p->w, "its precompiled_charsmap cannot be used: %s", why);
    }

    return token_norm_add(&p->t->norm, TOKEN_NORM_CHARSMAP, NULL, "", 0, m) == 0
               ? 0
               : token_json_fail(p->w, "it has too many normalizers");
}


int
token_json_normalizer(token_t *t, const json_t *o, const token_json_why_t *w)
{
    static const pipe_row_t rows[] = {{"NFC", norm_named}, {"NFD", norm_named},
        {"NFKC", norm_named}, {"NFKD", norm_named}, {"Lowercase", norm_named},
        {"StripAccents", norm_named}, {"Strip", norm_strip},
        {"Prepend", norm_prepend}, {"Replace", norm_replace},
        {"Precompiled", norm_charsmap}, {NULL, NULL}};
    pipe_t p = {.t = t, .w = w};

    return pipe_section(&p, "normalizer", rows, o);
}


/* --- pre-tokenizers ----------------------------------------------------- */

static int
pre_add(pipe_t *p, const token_step_t *step)
{
    return token_pre_add(p->t->pre, step) == 0
               ? 0
               : token_json_fail(p->w, "it has too many pre-tokenizers");
}


/* A cut by a pattern of ours. */
static int
pre_cut(pipe_t *p, const char *pattern, int behavior, int invert)
{
    token_step_t step = {
        .kind = TOKEN_PRE_CUT, .behavior = behavior, .invert = invert};
    char why[160];

    assert(p->t->pre != NULL);

    step.regex = token_regex_open(
        pattern, strlen(pattern), TOKEN_REGEX_PCRE, why, sizeof(why));
    if (step.regex == NULL) {
        return token_json_fail(p->w,
            "the installed PCRE2 does not take a pre-tokenizer's pattern: %s",
            why);
    }

    return pre_add(p, &step);
}


static int
pre_behavior(const pipe_t *p, const json_t *o, int *behavior)
{
    static const char *const names[] = {[TOKEN_CUT_ISOLATED] = "Isolated",
        [TOKEN_CUT_REMOVED] = "Removed",
        [TOKEN_CUT_PREVIOUS] = "MergedWithPrevious",
        [TOKEN_CUT_NEXT] = "MergedWithNext",
        [TOKEN_CUT_CONTIGUOUS] = "Contiguous"};
    const char *s = json_string_value(json_object_get(o, "behavior"));
    size_t i;

    assert(behavior != NULL);

    for (i = 0; s != NULL && i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], s) == 0) {
            *behavior = (int) i;
            return 0;
        }
    }

    return token_json_fail(
        p->w, "the behavior \"%.40s\" is not supported", s != NULL ? s : "");
}


static int
pre_split(pipe_t *p, const json_t *o)
{
    token_step_t step = {
        .kind = TOKEN_PRE_CUT, .invert = pipe_bool(o, "invert", 0)};

    if (pre_behavior(p, o, &step.behavior) != 0) {
        return -1;
    }
    step.regex = pipe_pattern(p, json_object_get(o, "pattern"));

    return step.regex != NULL ? pre_add(p, &step) : -1;
}


/* Bytes become the alphabet's characters, behind GPT-2's pattern if it is
 * asked for. */
static int
pre_bytes(pipe_t *p, const json_t *o)
{
    token_step_t step = {.kind = TOKEN_PRE_SPACE};
    int rc = 0;

    if (p->t->bpe) {
        return token_json_fail(p->w, "it has two ByteLevel pre-tokenizers");
    }
    p->t->bpe = 1;

    if (pipe_bool(o, "add_prefix_space", 1)) {
        rc = pre_add(p, &step);
    }
    if (rc == 0 && pipe_bool(o, "use_regex", 1)) {
        rc = pre_cut(p, TOKEN_PATTERN_GPT2, TOKEN_CUT_ISOLATED, 0);
    }
    /* what follows looks at letters, and they become bytes again at the end */
    step.kind = TOKEN_PRE_LETTERS;

    return rc == 0 ? pre_add(p, &step) : rc;
}


/* Spaces become the mark, which is also put before the text; where "split"
 * is not false each mark begins a piece. */
static int
pre_meta(pipe_t *p, const json_t *o)
{
    const char *s = json_string_value(json_object_get(o, "prepend_scheme"));
    token_step_t step = {.kind = TOKEN_PRE_META, .scheme = TOKEN_META_ALWAYS};
    token_step_t cut = {.kind = TOKEN_PRE_CUT, .behavior = TOKEN_CUT_NEXT};
    char why[160];

    if (pipe_str(p, o, "replacement", step.with, sizeof(step.with)) != 0) {
        return -1;
    }
    if (step.with[0] == '\0') {
        return token_json_fail(
            p->w, "its pre-tokenizer's replacement is empty");
    }

    if (!pipe_bool(o, "add_prefix_space", 1)
        || (s != NULL && strcmp(s, "never") == 0)) {
        step.scheme = TOKEN_META_NEVER;
    } else if (s != NULL && strcmp(s, "first") == 0) {
        step.scheme = TOKEN_META_FIRST;
    } else if (s != NULL && strcmp(s, "always") != 0) {
        return token_json_fail(
            p->w, "the prepend_scheme \"%.40s\" is not supported", s);
    }

    if (pre_add(p, &step) != 0) {
        return -1;
    }
    if (!pipe_bool(o, "split", 1)) {
        return 0;
    }

    cut.regex = token_regex_open(
        step.with, strlen(step.with), TOKEN_REGEX_LITERAL, why, sizeof(why));
    if (cut.regex == NULL) {
        return token_json_fail(p->w, "its replacement is refused: %s", why);
    }

    return pre_add(p, &cut);
}


static int
pre_digits(pipe_t *p, const json_t *o)
{
    return pre_cut(p, "\\p{N}",
        pipe_bool(o, "individual_digits", 0) ? TOKEN_CUT_ISOLATED
                                             : TOKEN_CUT_CONTIGUOUS,
        0);
}


#define PIPE_WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}"

static int
pre_whitespace(pipe_t *p, const json_t *o)
{
    (void) o;
    return pre_cut(
        p, "[" PIPE_WORD "]+|[^" PIPE_WORD TOKEN_WS "]+", TOKEN_CUT_REMOVED, 1);
}


static int
pre_spaces(pipe_t *p, const json_t *o)
{
    (void) o;
    return pre_cut(p, TOKEN_WS, TOKEN_CUT_REMOVED, 0);
}


#define PIPE_PUNCTUATION "[\\p{P}!-/:-@\\[-`{-~]"

static int
pre_punctuation(pipe_t *p, const json_t *o)
{
    int behavior = TOKEN_CUT_ISOLATED;

    if (json_object_get(o, "behavior") != NULL
        && pre_behavior(p, o, &behavior) != 0) {
        return -1;
    }

    return pre_cut(p, PIPE_PUNCTUATION, behavior, 0);
}


static int
pre_bert(pipe_t *p, const json_t *o)
{
    return pre_spaces(p, o) == 0
               ? pre_cut(p, PIPE_PUNCTUATION, TOKEN_CUT_ISOLATED, 0)
               : -1;
}


int
token_json_pre(token_t *t, const json_t *o, const token_json_why_t *w)
{
    static const pipe_row_t rows[] = {{"Split", pre_split},
        {"ByteLevel", pre_bytes}, {"Metaspace", pre_meta},
        {"Digits", pre_digits}, {"Whitespace", pre_whitespace},
        {"WhitespaceSplit", pre_spaces}, {"Punctuation", pre_punctuation},
        {"BertPreTokenizer", pre_bert}, {NULL, NULL}};
    pipe_t p = {.t = t, .w = w};

    assert(t->pre == NULL);

    t->pre = token_pre_new();
    if (t->pre == NULL) {
        return pipe_memory(&p);
    }
    if (pipe_section(&p, "pre-tokenizer", rows, o) != 0) {
        return -1;
    }
    token_pre_trim(t->pre);
    token_pre_ready(t->pre);

    return 0;
}


/* --- decoders ----------------------------------------------------------- */

static int
decode_add(pipe_t *p, const token_decode_step_t *s)
{
    assert(p->d->n <= TOKEN_DECODE_MAX);

    if (p->d->n == TOKEN_DECODE_MAX) {
        return token_json_fail(p->w, "it has too many decoders");
    }
    p->d->steps[p->d->n++] = *s;

    return 0;
}


static int
decode_bytes(pipe_t *p, const json_t *o)
{
    token_decode_step_t s = {.kind = TOKEN_DECODE_BYTES};

    (void) o;
    return decode_add(p, &s);
}


static int
decode_fallback(pipe_t *p, const json_t *o)
{
    token_decode_step_t s = {.kind = TOKEN_DECODE_FALLBACK};

    (void) o;
    return decode_add(p, &s);
}


static int
decode_fuse(pipe_t *p, const json_t *o)
{
    (void) o;
    p->fused = 1;

    return 0;
}


static int
decode_meta(pipe_t *p, const json_t *o)
{
    const char *scheme =
        json_string_value(json_object_get(o, "prepend_scheme"));
    token_decode_step_t s = {.kind = TOKEN_DECODE_REPLACE, .to = " "};

    if (pipe_str(p, o, "replacement", s.from, sizeof(s.from)) != 0) {
        return -1;
    }
    if (s.from[0] == '\0') {
        return token_json_fail(p->w, "its decoder's replacement is empty");
    }
    p->d->strips = pipe_bool(o, "add_prefix_space", 1)
                   && (scheme == NULL || strcmp(scheme, "never") != 0);

    return decode_add(p, &s);
}


/* The length of the first character of s. */
static size_t
decode_char(const char *s)
{
    size_t n = 1;

    while (((uint8_t) s[n] & 0xc0) == 0x80) {
        n++;
    }

    return n;
}


/* A mark back to what it stands for. */
static int
decode_replace(pipe_t *p, const json_t *o)
{
    const json_t *pattern = json_object_get(o, "pattern");
    token_decode_step_t s = {.kind = TOKEN_DECODE_REPLACE};

    if (json_object_get(pattern, "String") == NULL) {
        return token_json_fail(
            p->w, "a decoder \"Replace\" by a regex is not supported");
    }
    if (pipe_str(p, pattern, "String", s.from, sizeof(s.from)) != 0
        || pipe_str(p, o, "content", s.to, sizeof(s.to)) != 0) {
        return -1;
    }
    if (s.from[0] == '\0'
        || (p->fused && decode_char(s.from) != strlen(s.from))) {
        return token_json_fail(p->w,
            "a decoder \"Replace\" of \"%s\" in a whole text is not supported",
            s.from);
    }

    return decode_add(p, &s);
}


/* Of what was fused only one space at its beginning can be taken: more is
 * not known before the end. */
static int
decode_strip(pipe_t *p, const json_t *o)
{
    double start = json_number_value(json_object_get(o, "start"));
    double stop = json_number_value(json_object_get(o, "stop"));
    token_decode_step_t s = {.kind = TOKEN_DECODE_STRIP};

    if (pipe_str(p, o, "content", s.from, sizeof(s.from)) != 0) {
        return -1;
    }

    if (s.from[0] == '\0' || start < 0 || start > 1000 || stop < 0
        || stop > 1000
        || (p->fused && (stop != 0 || start > 1 || strcmp(s.from, " ") != 0))) {
        return token_json_fail(p->w,
            "a decoder \"Strip\" of \"%s\" by %g and %g is not supported",
            s.from, start, stop);
    }

    if (p->fused) {
        p->d->strips = p->d->strips || start == 1;
        return 0;
    }
    s.start = (uint32_t) start;
    s.stop = (uint32_t) stop;

    return decode_add(p, &s);
}


int
token_json_decoder(
    token_decode_t *d, const json_t *o, const token_json_why_t *w)
{
    static const pipe_row_t rows[] = {{"ByteLevel", decode_bytes},
        {"ByteFallback", decode_fallback}, {"Fuse", decode_fuse},
        {"Metaspace", decode_meta}, {"Replace", decode_replace},
        {"Strip", decode_strip}, {NULL, NULL}};
    pipe_t p = {.d = d, .w = w};

    assert(d->n == 0);

    if (o == NULL || json_is_null(o)) {
        return token_json_fail(
            w, "it has no decoder, so it is not known how pieces become text");
    }

    return pipe_section(&p, "decoder", rows, o);
}


/* --- decoding ----------------------------------------------------------- */

static int
step_replace(token_decode_t *d, const token_decode_step_t *s)
{
    size_t len = strlen(s->from), i = 0;
    int rc = 0;

    assert(len > 0);

    while (i < d->a.n && rc == 0) {
        if (d->a.n - i >= len && memcmp(d->a.p + i, s->from, len) == 0) {
            rc = token_buf_put(&d->b, s->to, strlen(s->to));
            i += len;
        } else {
            rc = token_buf_put(&d->b, d->a.p + i++, 1);
        }
    }

    return rc;
}


static int
step_strip(token_decode_t *d, const token_decode_step_t *s)
{
    size_t len = strlen(s->from), from = 0, to = d->a.n;
    uint32_t i;

    assert(len > 0 && d->a.p != d->b.p);

    for (i = 0; i < s->start && to - from >= len
                && memcmp(d->a.p + from, s->from, len) == 0;
         i++) {
        from += len;
    }
    for (i = 0; i < s->stop && to - from >= len
                && memcmp(d->a.p + to - len, s->from, len) == 0;
         i++) {
        to -= len;
    }

    return token_buf_put(&d->b, d->a.p + from, to - from);
}


static int
step_bytes(token_decode_t *d)
{
    gguf_str_t p = {d->a.p, d->a.n};
    size_t n;

    /* as many bytes as characters, or the piece as it stands */
    if (token_buf_put(&d->b, d->a.p, d->a.n) != 0) {
        return -1;
    }
    if (token_alphabet_read(&p, NULL, &n)) {
        (void) token_alphabet_read(&p, d->b.p, &n);
        d->b.n = n;
    }

    return 0;
}


static int
step_fallback(token_decode_t *d)
{
    gguf_str_t p = {d->a.p, d->a.n};
    int byte = token_load_byte(&p);
    char c = (char) byte;

    return byte >= 0 ? token_buf_put(&d->b, &c, 1)
                     : token_buf_put(&d->b, d->a.p, d->a.n);
}


int
token_json_decode(token_decode_t *d, const char *s, size_t len, size_t *n)
{
    token_buf_t swap;
    uint32_t i;
    int rc;

    assert(d->n <= TOKEN_DECODE_MAX && n != NULL);

    d->a.n = 0;
    rc = token_buf_put(&d->a, s, len);

    for (i = 0; i < d->n && rc == 0 && d->a.n > 0; i++) {
        d->b.n = 0;
        switch (d->steps[i].kind) {
        case TOKEN_DECODE_REPLACE:
            rc = step_replace(d, &d->steps[i]);
            break;
        case TOKEN_DECODE_FALLBACK:
            rc = step_fallback(d);
            break;
        case TOKEN_DECODE_STRIP:
            rc = step_strip(d, &d->steps[i]);
            break;
        default:
            assert(d->steps[i].kind == TOKEN_DECODE_BYTES);
            rc = step_bytes(d);
            break;
        }
        swap = d->a;
        d->a = d->b;
        d->b = swap;
    }
    *n = d->a.n;

    return rc == 0 ? 0 : -1;
}
