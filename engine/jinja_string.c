/*
 * Strings that know who wrote each of their bytes.
 *
 * DESIGN.  A string is bytes and one origin; only one that was put together
 * from both kinds has a list of runs.  Most strings are of one origin, so
 * what is asked of a string in between costs nothing extra.
 *
 * a + b is a rope: a node over both halves, made flat when its bytes are
 * wanted.  So a template that adds to one string in a loop takes linear time
 * and memory.  Short results are copied at once: a node would be larger.
 *
 *      "<|im_start|>" + role + "\n"        rope
 *                                         /    \
 *                                      rope    "\n" (template)
 *                                     /    \
 *          "<|im_start|>" (template)         role (data)
 *
 * Strings are immutable but for flattening and counting characters, which
 * change nothing that can be seen.  Constants of a template, which threads
 * share, are flat and counted from the beginning.
 *
 * Characters are cut at bytes that do not continue one; so bytes that are no
 * UTF-8, which only a template can bring in, do no harm.
 *
 * Lengths are 32 bits: the arena's limit is below that.
 */
#include "jinja_impl.h"

#define COPY_MAX 64 /* bytes up to which a sum is copied */


/* --- characters --------------------------------------------------------- */

/* Does the byte continue a character? */
static int
is_cont(char ch)
{
    return ((uint8_t) ch & 0xc0) == 0x80;
}


/*
 * Bytes that are no character give U+FFFD, and are as long as what
 * continues them.
 */
size_t
jinja_char(const char *p, size_t n, uint32_t *cp)
{
    uint8_t first = (uint8_t) *p;
    size_t len = 1, want;

    assert(n >= 1);

    while (len < n && len < 4 && is_cont(p[len])) {
        len++;
    }

    /* the first byte says how long it is; if it is not, it is none.  Forms
     * that are longer than need be begin with 0xc0 or 0xc1 */
    want = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (want != len || (first >= 0x80 && first < 0xc2)) {
        *cp = want == 1 ? first : 0xfffd;
        return first < 0x80 ? 1 : len;
    }

    *cp = first & (want == 1 ? 0x7fu : 0x7fu >> want);
    for (n = 1; n < want; n++) {
        *cp = *cp << 6 | ((uint8_t) p[n] & 0x3f);
    }

    return want;
}


/* Halves of surrogate pairs are no characters. */
size_t
jinja_char_put(char *p, uint32_t cp)
{
    assert(p != NULL);
    if (cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000)) {
        cp = 0xfffd;
    }

    if (cp < 0x80) {
        p[0] = (char) cp;
        return 1;
    }
    if (cp < 0x800) {
        p[0] = (char) (0xc0 | cp >> 6);
        p[1] = (char) (0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        p[0] = (char) (0xe0 | cp >> 12);
        p[1] = (char) (0x80 | (cp >> 6 & 0x3f));
        p[2] = (char) (0x80 | (cp & 0x3f));
        return 3;
    }
    p[0] = (char) (0xf0 | cp >> 18);
    p[1] = (char) (0x80 | (cp >> 12 & 0x3f));
    p[2] = (char) (0x80 | (cp >> 6 & 0x3f));
    p[3] = (char) (0x80 | (cp & 0x3f));

    return 4;
}


/*
 * Python's str.isspace(), which has four control characters more than
 * Unicode's White_Space.
 */
int
jinja_is_space(uint32_t cp)
{
    if (cp < 0x80) {
        return (cp >= 9 && cp <= 13) || (cp >= 28 && cp <= 32);
    }

    return cp == 0x85 || cp == 0xa0 || cp == 0x1680
           || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029
           || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}


/* Backwards, character by character; what is none is no space. */
size_t
jinja_trimmed(const char *s, size_t len)
{
    size_t at;
    uint32_t cp;

    while (len > 0) {
        for (at = len - 1; at > 0 && len - at < 4 && is_cont(s[at]); at--) {
        }
        if (jinja_char(s + at, len - at, &cp) != len - at
            || !jinja_is_space(cp)) {
            break;
        }
        len = at;
    }

    return len;
}


/* --- making ------------------------------------------------------------- */

/*
 * The bytes are borrowed: from jansson, the template or the arena, all of
 * which outlive it.
 */
jstr_t *
jinja_str_of(jctx_t *c, const char *s, size_t len, unsigned origin)
{
    jstr_t *p = jinja_mem_get(c, sizeof(*p));

    assert(origin <= JINJA_TEMPLATE && s != NULL);
    if (len >= UINT32_MAX / 2) {
        jinja_fail(c, "A string is longer than 2 GB.");
    }

    memset(p, 0, sizeof(*p));
    p->len = (uint32_t) len;
    p->chars = len == 0 ? 0 : JINJA_CHARS_UNKNOWN;
    p->origin = (uint8_t) origin;
    p->s = s;

    return p;
}


/* Of a C string that is never freed. */
jstr_t *
jinja_str_lit(jctx_t *c, const char *s)
{
    assert(s != NULL);
    return jinja_str_of(c, s, strlen(s), JINJA_DATA);
}


/* Both are flat and of one origin. */
static jstr_t *
str_copied(jctx_t *c, const jstr_t *a, const jstr_t *b)
{
    char *p = jinja_mem_get(c, (size_t) a->len + b->len);
    jstr_t *s;

    memcpy(p, a->s, a->len);
    memcpy(p + a->len, b->s, b->len);
    s = jinja_str_of(c, p, (size_t) a->len + b->len, a->origin);
    s->markup = a->markup | b->markup;

    return s;
}


/* An empty half costs nothing. */
jstr_t *
jinja_str_cat(jctx_t *c, jstr_t *a, jstr_t *b)
{
    uint32_t deep;
    jstr_t *p;

    assert(a != NULL && b != NULL);

    if (a->len == 0 || b->len == 0) {
        return a->len == 0 ? b : a;
    }
    if ((size_t) a->len + b->len >= UINT32_MAX / 2) {
        jinja_fail(c, "A string is longer than 2 GB.");
    }

    if (a->s != NULL && b->s != NULL && a->origin == b->origin
        && a->origin != JINJA_MIXED && a->len + b->len <= COPY_MAX) {
        return str_copied(c, a, b);
    }

    p = jinja_mem_get(c, sizeof(*p));
    memset(p, 0, sizeof(*p));
    p->len = a->len + b->len;
    p->chars = JINJA_CHARS_UNKNOWN;
    p->origin = a->origin == b->origin ? a->origin : JINJA_MIXED;
    p->markup = a->markup | b->markup;
    deep = a->s == NULL ? a->n : 0;
    if (b->s == NULL && b->n > deep) {
        deep = b->n;
    }
    p->n = deep + 1;
    p->half[0] = a;
    p->half[1] = b;

    return p;
}


/* A flat string's stretches. */
static void
str_each_flat(const jstr_t *s,
    void (*put)(void *, const char *, size_t, unsigned), void *arg)
{
    uint32_t i, at = 0;

    if (s->origin != JINJA_MIXED) {
        put(arg, s->s, s->len, s->origin);
        return;
    }

    for (i = 0; i < s->n; i++) {
        assert(s->runs[i].end > at && s->runs[i].end <= s->len);
        put(arg, s->s + at, s->runs[i].end - at, s->runs[i].origin);
        at = s->runs[i].end;
    }
    assert(at == s->len);
}


/*
 * A rope is gone through without recursion: it may be as deep as a loop
 * is long.
 */
void
jinja_str_each(jctx_t *c, jstr_t *s,
    void (*put)(void *, const char *, size_t, unsigned), void *arg)
{
    jstr_t **todo;
    uint32_t n = 0, max = s->n + 1;

    assert(s != NULL);

    jinja_step(c, s->len / 16 + 1);

    if (s->s != NULL) {
        str_each_flat(s, put, arg);
        return;
    }

    /* on the way down a right half waits for each left one */
    todo = jinja_mem_get(c, max * sizeof(*todo));
    todo[n++] = s;
    while (n > 0) {
        s = todo[--n];
        if (s->s != NULL) {
            str_each_flat(s, put, arg);
            continue;
        }
        jinja_step(c, 1);
        assert(n + 2 <= max);
        todo[n++] = s->half[1];
        todo[n++] = s->half[0];
    }
}


/*
 * The node itself becomes the flat string, so whoever holds it need not
 * do it again.
 */
jstr_t *
jinja_str_flat(jctx_t *c, jstr_t *s)
{
    jsb_t b;
    jstr_t *flat;

    assert(s != NULL);

    if (s->s != NULL) {
        return s;
    }

    jinja_sb_open(&b, c);
    b.p = jinja_mem_get(c, s->len);
    b.cap = s->len;
    jinja_str_each(c, s, jinja_sb_put, &b);
    flat = jinja_sb_end(&b);
    assert(flat->len == s->len);

    /* as large as before, whoever holds it */
    s->s = flat->s;
    s->n = flat->n;
    s->origin = flat->origin;
    s->runs = flat->runs;

    return s;
}


/* --- parts -------------------------------------------------------------- */

/* By halves: runs are in order. */
unsigned
jinja_str_origin(const jstr_t *s, size_t i)
{
    uint32_t low = 0, high = s->n, mid;

    assert(s->s != NULL && i < s->len);

    if (s->origin != JINJA_MIXED) {
        return s->origin;
    }

    while (low < high) {
        mid = (low + high) / 2;
        if (s->runs[mid].end <= i) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }

    return s->runs[low].origin;
}


/* Shares the bytes unless there are runs to be cut. */
jstr_t *
jinja_str_sub(jctx_t *c, jstr_t *s, size_t from, size_t to)
{
    jstr_t *p;
    jsb_t b;

    assert(s->s != NULL && from <= to && to <= s->len);

    if (s->origin == JINJA_MIXED && from < to) {
        jinja_sb_open(&b, c);
        jinja_sb_sub(&b, s, from, to);
        return jinja_sb_end(&b);
    }

    p = jinja_str_of(c, s->s + from, to - from,
        s->origin == JINJA_MIXED ? JINJA_DATA : s->origin);
    if (s->chars == s->len) {
        p->chars = p->len;
    }

    return p;
}


/* Counted once; if it is as many as bytes, all are ASCII. */
uint32_t
jinja_str_chars(jctx_t *c, jstr_t *s)
{
    uint32_t i, n = 0;

    assert(s != NULL);

    if (s->chars == JINJA_CHARS_UNKNOWN) {
        jinja_str_flat(c, s);
        jinja_step(c, s->len / 16);
        for (i = 0; i < s->len; i++) {
            n += !is_cont(s->s[i]) || i == 0;
        }
        s->chars = n;
    }

    return s->chars;
}


/* O(1) for ASCII, else from the beginning. */
size_t
jinja_str_at(jctx_t *c, jstr_t *s, uint32_t i)
{
    size_t at = 0;

    assert(s != NULL);

    if (i >= jinja_str_chars(c, s)) {
        return s->len;
    }
    if (s->chars == s->len) {
        return i;
    }

    jinja_step(c, i / 16);
    for (; i > 0; i--) {
        do {
            at++;
        } while (at < s->len && is_cont(s->s[at]));
    }

    return at;
}


/* An empty b is found at once. */
size_t
jinja_str_find(jctx_t *c, jstr_t *a, jstr_t *b, size_t from)
{
    const char *p;

    assert(a != NULL && b != NULL);

    jinja_str_flat(c, a);
    jinja_str_flat(c, b);
    if (from > a->len || b->len > a->len - from) {
        return SIZE_MAX;
    }

    /* glibc's memmem is linear in the worst case */
    p = memmem(a->s + from, a->len - from, b->s, b->len);
    jinja_step(
        c, (p == NULL ? a->len - from : (size_t) (p - a->s) - from) / 16 + 1);

    return p == NULL ? SIZE_MAX : (size_t) (p - a->s);
}


/* Origins do not matter. */
int
jinja_str_eq(jctx_t *c, jstr_t *a, jstr_t *b)
{
    assert(a != NULL && b != NULL);
    return a->len == b->len && jinja_str_cmp(c, a, b) == 0;
}


/* By bytes, which in UTF-8 is by characters. */
int
jinja_str_cmp(jctx_t *c, jstr_t *a, jstr_t *b)
{
    uint32_t n = a->len < b->len ? a->len : b->len;
    int d;

    assert(a != NULL && b != NULL);

    jinja_str_flat(c, a);
    jinja_str_flat(c, b);
    jinja_step(c, n / 16);
    d = memcmp(a->s, b->s, n);

    return d != 0 ? (d < 0 ? -1 : 1) : (a->len > b->len) - (a->len < b->len);
}


/* Against a constant of ours. */
int
jinja_str_is(jctx_t *c, jstr_t *s, const char *lit)
{
    size_t n = strlen(lit);

    assert(lit != NULL);

    return s->len == n && memcmp(jinja_str_flat(c, s)->s, lit, n) == 0;
}


/* --- putting together --------------------------------------------------- */

/* Takes no memory yet. */
void
jinja_sb_open(jsb_t *b, jctx_t *c)
{
    assert(c != NULL);
    memset(b, 0, sizeof(*b));
    b->c = c;
}


/* Room for more of what there is n of; old stays as it was. */
static void *
sb_more(jctx_t *c, const void *old, size_t n, size_t size, size_t cap)
{
    void *p = jinja_mem_get(c, cap * size);

    if (n > 0) {
        memcpy(p, old, n * size);
    }

    return p;
}


/* In the form that jinja_str_each calls. */
void
jinja_sb_put(void *sb, const char *s, size_t len, unsigned origin)
{
    jsb_t *b = sb;

    assert(origin <= JINJA_TEMPLATE);

    if (len == 0) {
        return;
    }
    if (len > b->c->mem.max - b->n) {
        jinja_fail(b->c, "The template takes more than %zu MB of memory.",
            b->c->mem.max >> 20);
    }

    if (b->cap - b->n < len) {
        b->cap = (b->n + len) * 2 + 16;
        b->p = sb_more(b->c, b->p, b->n, 1, b->cap);
    }
    jinja_step(b->c, len / 16);
    memcpy(b->p + b->n, s, len);
    b->n += len;

    if (b->runs_n == 0 || b->runs[b->runs_n - 1].origin != origin) {
        if (b->runs_n == b->runs_cap) {
            b->runs_cap = b->runs_cap * 2 + 2;
            b->runs = sb_more(
                b->c, b->runs, b->runs_n, sizeof(*b->runs), b->runs_cap);
        }
        b->runs[b->runs_n++].origin = origin;
    }
    b->runs[b->runs_n - 1].end = (uint32_t) b->n;
}


/* What we write ourselves between values is data. */
void
jinja_sb_lit(jsb_t *b, const char *s)
{
    assert(s != NULL);
    jinja_sb_put(b, s, strlen(s), JINJA_DATA);
}


/* A character of whoever the one was that it came from. */
void
jinja_sb_char(jsb_t *b, uint32_t cp, unsigned origin)
{
    char buf[4];

    assert(b != NULL);

    jinja_sb_put(b, buf, jinja_char_put(buf, cp), origin);
}


/* With its origins. */
void
jinja_sb_str(jsb_t *b, jstr_t *s)
{
    assert(s != NULL);
    jinja_str_each(b->c, s, jinja_sb_put, b);
}


/* Finds the first run by halves and goes on from there. */
void
jinja_sb_sub(jsb_t *b, jstr_t *s, size_t from, size_t to)
{
    uint32_t low = 0, high = s->n, mid;
    size_t end;

    assert(s->s != NULL && from <= to && to <= s->len);

    if (s->origin != JINJA_MIXED) {
        jinja_sb_put(b, s->s + from, to - from, s->origin);
        return;
    }

    while (low < high) {
        mid = (low + high) / 2;
        if (s->runs[mid].end <= from) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }

    for (; from < to; from = end, low++) {
        assert(low < s->n);
        end = s->runs[low].end < to ? s->runs[low].end : to;
        jinja_sb_put(b, s->s + from, end - from, s->runs[low].origin);
    }
}


/* b is done with. */
jstr_t *
jinja_sb_end(jsb_t *b)
{
    jstr_t *s = jinja_str_of(b->c, b->n > 0 ? b->p : "", b->n,
        b->runs_n > 0 ? b->runs[0].origin : JINJA_DATA);

    assert(b->n <= b->cap);

    if (b->runs_n > 1) {
        s->origin = JINJA_MIXED;
        s->runs = b->runs;
        s->n = b->runs_n;
    }

    return s;
}
