
/*
 * What the dialects share: the output buffer, writing of JSON by hand, and
 * reading of a request body with limits.
 *
 * DESIGN.  Answers are written by hand, as a streamed token is one short
 * object among thousands and building a tree for it would cost more than the
 * token's whole way through the gateway.  Requests are read by jansson, which
 * is exact and well tried; a scan before it bounds what it can be made to
 * allocate: an empty array is three bytes of a body but over a hundred of
 * memory, and its nesting is recursion.
 *
 * Nothing here aborts: bodies and events are input, and the worker has other
 * clients.  All memory is the caller's, but for jansson's tree, which
 * llm_json_read() gives to its caller.  Any thread, no state.
 */


#include "dialect.h"

#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>


#define LLM_BUF_MIN        512          /* a streamed chunk is about 300 */

#define LLM_JSON_DEPTH     128
#define LLM_JSON_NESTS     65536        /* arrays and objects of a body */
#define LLM_JSON_VALUES    (2 << 20)    /* a million token ids, and more */


/*
 * How a byte of text is written into a JSON string: as it is, as the
 * character behind a backslash, as \u00XX (LLM_CH_HEX), or after a look at
 * the whole UTF-8 sequence (LLM_CH_UTF8).
 */

#define LLM_CH_HEX   1
#define LLM_CH_UTF8  2

static const uint8_t  llm_json_class[256] = {
    1, 1, 1, 1, 1, 1, 1, 1, 'b', 't', 'n', 1, 'f', 'r', 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    ['"'] = '"', ['\\'] = '\\',
    [0x80] =
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2
};


void
llm_buf_init(llm_buf_t *b, size_t max, void *(*alloc)(void *arg, size_t size),
    void *arg)
{
    memset(b, 0, sizeof(*b));

    b->max = max;
    b->alloc = alloc;
    b->arg = arg;
}


int
llm_buf_grow(llm_buf_t *b, size_t n)
{
    char    *data;
    size_t   cap;

    if (b->failed || b->len > b->max || n > b->max - b->len) {
        b->failed = 1;
        return 0;
    }

    if (n <= b->cap - b->len) {
        return 1;
    }

    /* doubling: the pool takes nothing back, so it loses at most as much */

    cap = b->cap < LLM_BUF_MIN ? LLM_BUF_MIN : b->cap;

    while (cap < b->len + n) {
        cap = cap > b->max / 2 ? b->max : cap * 2;
    }

    if (cap > b->max) {
        cap = b->max;
    }

    data = b->alloc(b->arg, cap);
    if (data == NULL) {
        b->failed = 1;
        return 0;
    }

    if (b->len != 0) {
        memcpy(data, b->data, b->len);
    }

    b->data = data;
    b->cap = cap;

    return 1;
}


void
llm_buf_str(llm_buf_t *b, const char *s)
{
    llm_buf_add(b, s, strlen(s));
}


void
llm_buf_u64(llm_buf_t *b, uint64_t v)
{
    char    digits[20];
    size_t  i;

    i = sizeof(digits);

    do {
        digits[--i] = (char) ('0' + v % 10);
        v /= 10;
    } while (v != 0);

    llm_buf_add(b, digits + i, sizeof(digits) - i);
}


/* v x 10^p, rounded once for the p that matter: those up to 22 are exact */

static double
llm_scale10(double v, int p)
{
    static const double  tens[] = {
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12,
        1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 1e24,
        1e25, 1e26, 1e27, 1e28, 1e29, 1e30, 1e31, 1e32, 1e33, 1e34, 1e35, 1e36,
        1e37, 1e38, 1e39, 1e40, 1e41, 1e42, 1e43, 1e44, 1e45, 1e46, 1e47
    };

    return p >= 0 ? v * tens[p] : v / tens[-p];
}


/*
 * v >= FLT_MIN as an integer x 10^(*exp), of the fewest digits that read back
 * as v (six to nine are tried; trailing zeros go).  They do when they are
 * nearer to v than half-way to the next float; the hair that is taken off is
 * far more than the error of this arithmetic, and nine digits always are.
 */

static uint32_t
llm_float_digits(float v, int *exp)
{
    int       n, p, e;
    double    near, x;
    uint32_t  m;

    x = v;
    near = (x - (double) nextafterf(v, 0)) * 0.499;

    /* from the binary exponent, at most one too small; 0.30103 is lg 2 */

    (void) frexp(x, &e);
    e = (int) floor((e - 1) * 0.30103);
    e += (llm_scale10(x, -e) >= 10);

    p = 0;
    m = 0;

    for (n = 6; n <= 9; n++) {

        p = n - 1 - e;
        m = (uint32_t) (llm_scale10(x, p) + 0.5);

        if (fabs(llm_scale10(m, -p) - x) < near) {
            break;
        }
    }

    while (m >= 10 && m % 10 == 0) {
        m /= 10;
        p--;
    }

    *exp = -p;

    return m;
}


/* n digits, the point before digit number point; returns the length */

static size_t
llm_float_fixed(char *out, const char *digits, int n, int point)
{
    size_t  len;

    len = 0;

    if (point <= 0) {
        out[len++] = '0';
        out[len++] = '.';
        memset(out + len, '0', (size_t) -point);
        len += (size_t) -point;
        memcpy(out + len, digits, (size_t) n);
        return len + (size_t) n;
    }

    if (point < n) {
        memcpy(out, digits, (size_t) point);
        out[point] = '.';
        memcpy(out + point + 1, digits + point, (size_t) (n - point));
        return (size_t) n + 1;
    }

    memcpy(out, digits, (size_t) n);
    memset(out + n, '0', (size_t) (point - n));
    memcpy(out + point, ".0", 2);

    return (size_t) point + 2;
}


void
llm_buf_float(llm_buf_t *b, float v)
{
    int       exp, n, point;
    char      digits[10], out[32];
    uint32_t  m, left;

    if (isnan(v) || isinf(v)) {
        v = signbit(v) ? -FLT_MAX : FLT_MAX;
    }

    /* below FLT_MIN there are no nine digits left to read back */

    if (fabsf(v) < FLT_MIN) {
        llm_buf_lit(b, "0.0");
        return;
    }

    if (v < 0) {
        llm_buf_lit(b, "-");
        v = -v;
    }

    m = llm_float_digits(v, &exp);

    for (n = 0, left = m; left != 0; left /= 10) {
        n++;
    }

    for (left = (uint32_t) n; left > 0; left--) {
        digits[left - 1] = (char) ('0' + m % 10);
        m /= 10;
    }

    point = n + exp;

    if (point > -5 && point < 10) {
        llm_buf_add(b, out, llm_float_fixed(out, digits, n, point));
        return;
    }

    /* one digit before the point; the exponent's own sign is kept */

    llm_buf_add(b, digits, 1);

    if (n > 1) {
        llm_buf_lit(b, ".");
        llm_buf_add(b, digits + 1, (size_t) n - 1);
    }

    if (point - 1 < 0) {
        llm_buf_lit(b, "e-");
        llm_buf_u64(b, (uint64_t) (1 - point));

    } else {
        llm_buf_lit(b, "e");
        llm_buf_u64(b, (uint64_t) (point - 1));
    }
}


unsigned
llm_utf8_len(const uint8_t *p, size_t left)
{
    if (left == 0) {
        return 0;
    }

    if (p[0] < 0x80) {
        return 1;
    }

    if (left < 2 || p[0] < 0xc2 || p[0] > 0xf4 || (p[1] & 0xc0) != 0x80) {
        return 0;
    }

    if (p[0] < 0xe0) {
        return 2;
    }

    /* the first continuation byte rules out overlong forms and surrogates */

    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)
        || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
    {
        return 0;
    }

    if (left < 3 || (p[2] & 0xc0) != 0x80) {
        return 0;
    }

    if (p[0] < 0xf0) {
        return 3;
    }

    return left >= 4 && (p[3] & 0xc0) == 0x80 ? 4 : 0;
}


/*
 * The length of the ill-formed sequence at p that one U+FFFD stands for: the
 * longest beginning of a character, as Unicode recommends, else one byte.
 */

static size_t
llm_utf8_bad(const uint8_t *p, size_t left)
{
    size_t         i;
    unsigned       need;
    const uint8_t  tails[2] = { 0x80, 0x80 };
    uint8_t        whole[4];

    need = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

    /* could p[0 .. i] be continued to a whole character? */

    for (i = need - 1; i > 1; i--) {

        if (i > left) {
            continue;
        }

        memcpy(whole, p, i);
        memcpy(whole + i, tails, need - i);

        if (llm_utf8_len(whole, need) == need) {
            return i;
        }
    }

    return 1;
}


/* writes what stands for the byte or character at p; returns its length */

static size_t
llm_json_escape(llm_buf_t *b, const uint8_t *p, size_t left)
{
    char                esc[6];
    uint8_t             class;
    unsigned            n;
    static const char   hex[] = "0123456789abcdef";

    class = llm_json_class[*p];

    if (class == LLM_CH_HEX) {
        memcpy(esc, "\\u00", 4);
        esc[4] = hex[*p >> 4];
        esc[5] = hex[*p & 15];
        llm_buf_add(b, esc, 6);
        return 1;
    }

    if (class != LLM_CH_UTF8) {
        esc[0] = '\\';
        esc[1] = (char) class;
        llm_buf_add(b, esc, 2);
        return 1;
    }

    n = llm_utf8_len(p, left);

    if (n == 0) {
        llm_buf_lit(b, "\xef\xbf\xbd");
        return llm_utf8_bad(p, left);
    }

    if (n == 2 && p[0] == 0xc2 && p[1] == 0x85) {
        llm_buf_lit(b, "\\u0085");

    } else if (n == 3 && p[0] == 0xe2 && p[1] == 0x80
               && (p[2] & 0xfe) == 0xa8)
    {
        llm_buf_add(b, p[2] == 0xa8 ? "\\u2028" : "\\u2029", 6);

    } else {
        llm_buf_add(b, p, n);
    }

    return n;
}


void
llm_buf_json(llm_buf_t *b, const char *text, size_t n)
{
    size_t          run;
    const uint8_t  *p, *last;

    /* an empty string may be a null pointer, to which nothing is added */

    if (n == 0) {
        return;
    }

    p = (const uint8_t *) text;
    last = p + n;

    while (p < last) {

        for (run = 0; run < (size_t) (last - p); run++) {
            if (llm_json_class[p[run]] != 0) {
                break;
            }
        }

        llm_buf_add(b, p, run);
        p += run;

        if (p < last) {
            p += llm_json_escape(b, p, (size_t) (last - p));
        }
    }
}


int
llm_refuse(llm_refusal_t *why, uint32_t err, const char *param,
    const char *fmt, ...)
{
    va_list  args;

    why->err = err;
    why->text[0] = '\0';

    (void) snprintf(why->param, sizeof(why->param), "%s",
                    param == NULL ? "" : param);

    if (fmt != NULL) {
        va_start(args, fmt);
        (void) vsnprintf(why->text, sizeof(why->text), fmt, args);
        va_end(args);
    }

    return -(int) err;
}


/*
 * Counts what jansson would build, without building it.  It follows strings
 * only as far as to know where they end; what is wrong otherwise, jansson
 * will say.
 */

static int
llm_json_scan(llm_str_t body, llm_refusal_t *why)
{
    int          quoted;
    size_t       i, depth, nests, values;
    const char  *p;

    p = body.data;
    quoted = 0;
    depth = 0;
    nests = 0;
    values = 0;

    /* jansson takes one outside a string for the end, whatever follows */

    if (body.len != 0 && memchr(p, '\0', body.len) != NULL) {
        return llm_refuse(why, LLM_ERR_BAD_JSON, NULL,
                          "The body holds a NUL byte.");
    }

    for (i = 0; i < body.len; i++) {

        if (quoted) {
            if (p[i] == '\\') {
                i++;

            } else if (p[i] == '"') {
                quoted = 0;
            }

            continue;
        }

        switch (p[i]) {

        case '"':
            quoted = 1;
            break;

        case '[':
        case '{':
            nests++;

            if (++depth > LLM_JSON_DEPTH) {
                return llm_refuse(why, LLM_ERR_BAD_JSON, NULL,
                              "The body is nested deeper than %d levels.",
                              LLM_JSON_DEPTH);
            }

            break;

        case ']':
        case '}':
            depth -= (depth != 0);
            break;

        case ',':
            values++;
            break;
        }
    }

    if (nests > LLM_JSON_NESTS || values > LLM_JSON_VALUES) {
        return llm_refuse(why, LLM_ERR_BODY_LARGE, NULL,
                          "The body has too many values.");
    }

    return 0;
}


int
llm_json_read(llm_str_t body, struct json_t **root, llm_refusal_t *why)
{
    int           rc;
    json_error_t  error;

    rc = llm_json_scan(body, why);
    if (rc != 0) {
        return rc;
    }

    *root = json_loadb(body.len != 0 ? body.data : "", body.len,
                       JSON_ALLOW_NUL|JSON_DECODE_ANY, &error);
    if (*root != NULL) {
        return 0;
    }

    switch (json_error_code(&error)) {

    case json_error_out_of_memory:
        return llm_refuse(why, LLM_ERR_NO_MEMORY, NULL, NULL);

    case json_error_numeric_overflow:
        return llm_refuse(why, LLM_ERR_BAD_FIELD, NULL,
                          "The number in line %d, column %d is too large.",
                          error.line, error.column);

    case json_error_null_byte_in_key:
        return llm_refuse(why, LLM_ERR_BAD_FIELD, NULL,
                          "A field's name holds a NUL character.");

    default:

        /* jansson's own words quote the body, which is not ours to repeat */

        return llm_refuse(why, LLM_ERR_BAD_JSON, NULL,
                          "The body is not valid JSON (line %d, column %d).",
                          error.line, error.column);
    }
}
