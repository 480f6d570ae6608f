/*
 * Calls whose parameters are elements, as Qwen3-Coder and GLM write them.
 *
 *      <function=f>                          f
 *      <parameter=city>                      <arg_key>city</arg_key>
 *      Paris                                 <arg_value>Paris</arg_value>
 *      </parameter>
 *      </function>                           </tool_call>
 *
 * DESIGN.  The arguments become an object as they come.  A value is bare text;
 * what the function's declaration says decides what it is in JSON:
 *
 *      a string, or nothing known    quoted, byte by byte, so that it streams
 *      an object or array            as it is, from its first bracket on
 *      number, boolean, null         as it is, if it is one, else a string
 *
 * so a number that is declared a string stays one.  The newline behind a mark
 * and the one before the mark that ends a value are the marks' own.  What may
 * be that mark is held; a scalar is held whole, up to VALUE_MAX bytes.
 */
#include "tools_impl.h"

#include <assert.h>
#include <string.h>

#define VALUE_MAX 256 /* bytes of a number or a literal */

enum { OPEN, NAME, BETWEEN, IN_KEY, TO_VALUE, IN_VALUE };

/* How a value goes out. */
enum { UNDECIDED, QUOTED, RAW };


/* A byte of a string, with the escape that it needs. */
static void
emit_json(tools_run_t *x, char c)
{
    static const char hex[] = "0123456789abcdef";
    char u[6] = {'\\', 'u', '0', '0', '0', '0'};
    unsigned char b = (unsigned char) c;

    if (c == '"' || c == '\\') {
        u[1] = c;
        tools_emit(x, LLM_TEXT_ARGUMENTS, u, 2);
    } else if (c == '\n') {
        tools_emit(x, LLM_TEXT_ARGUMENTS, "\\n", 2);
    } else if (b < 0x20) {
        u[4] = hex[b >> 4];
        u[5] = hex[b & 15];
        tools_emit(x, LLM_TEXT_ARGUMENTS, u, 6);
    } else {
        tools_emit(x, LLM_TEXT_ARGUMENTS, &c, 1);
    }
}


void
tools_xml_begin(tools_run_t *x, char c)
{
    tools_state_t *s = x->s;

    assert(x->row->xml != NULL);

    s->state = TOOLS_IN_XML;
    s->named = 0;
    s->fields = 0;
    s->string_at = s->n;
    if (c == '=' && s->open == strlen(x->row->xml->open)) {
        s->sub = NAME;
        return;
    }
    s->sub = x->row->xml->open[0] != '\0' ? OPEN : NAME;
    tools_xml_byte(x, c);
}


/* The name is held from string_at on, and behind it c. */
static void
name_done(tools_run_t *x, char c)
{
    tools_state_t *s = x->s;
    uint32_t n = s->n - 1 - s->string_at;

    assert(s->n > s->string_at);
    if (n == 0 || n > TOOLS_NAME_MAX) {
        tools_fail(x, c);
        return;
    }

    tools_name(x, s->held + s->string_at, n);
    tools_emit(x, LLM_TEXT_ARGUMENTS, "{", 1);
    s->n = 0;
    s->sub = BETWEEN;
}


/* Bytes of the name, or of the mark before it: all is held. */
static void
head_byte(tools_run_t *x, char c)
{
    const tools_xml_t *m = x->row->xml;
    tools_state_t *s = x->s;
    uint32_t len = (uint32_t) strlen(m->open);

    if (!tools_hold(x, c)) {
        tools_fail(x, c);
    } else if (s->sub == OPEN) {
        if (memcmp(s->held + s->string_at, m->open, s->n - s->string_at) != 0) {
            tools_fail(x, c);
        } else if (s->n - s->string_at == len) {
            s->string_at = s->n;
            s->sub = NAME;
        }
    } else if (c == m->name_end) {
        name_done(x, c);
    } else if (c == '<' && m->open[0] == '\0') {
        name_done(x, c);
        if (s->named) {
            (void) tools_hold(x, c);
        }
    } else if (!tools_is_name(c)) {
        tools_fail(x, c);
    }
}


/* Does the mark begin as n bytes at p do?  2: it is all of it. */
static int
begins(const char *mark, const char *p, uint32_t n)
{
    size_t len = strlen(mark);

    return n > len || memcmp(mark, p, n) != 0 ? 0 : n == len ? 2 : 1;
}


/* A key is there, without the newlines that some put around it. */
static void
key_done(tools_run_t *x, uint32_t n)
{
    tools_state_t *s = x->s;
    uint32_t i;

    assert(s->sub == IN_KEY && n <= s->n);
    s->key_types = tools_schema_types(x->schema, s->function, s->held, n);
    if (s->fields++ > 0) {
        tools_emit(x, LLM_TEXT_ARGUMENTS, ", ", 2);
    }
    tools_emit(x, LLM_TEXT_ARGUMENTS, "\"", 1);
    for (i = 0; i < n; i++) {
        emit_json(x, s->held[i]);
    }
    tools_emit(x, LLM_TEXT_ARGUMENTS, "\": ", 3);
    s->n = 0;
    s->lead = 1;
    s->mode = UNDECIDED;
    s->sub = x->row->xml->value_open[0] != '\0' ? TO_VALUE : IN_VALUE;
}


/* --- values ------------------------------------------------------------- */

/* The digits from p on, at least one; NULL: there are none. */
static const char *
digits(const char *p, const char *end)
{
    const char *from = p;

    while (p != NULL && p < end && *p >= '0' && *p <= '9') {
        p++;
    }

    return p == from ? NULL : p;
}


/* A number as JSON has it? */
static int
is_number(const char *p, uint32_t n)
{
    const char *end = p + n;
    int zero;

    p += p < end && *p == '-';
    zero = p < end && *p == '0';
    p = zero ? p + 1 : digits(p, end);
    if (p != NULL && p < end && *p == '.') {
        p = digits(p + 1, end);
    }
    if (p != NULL && p < end && (*p | 0x20) == 'e') {
        p++;
        p += p < end && (*p == '-' || *p == '+');
        p = digits(p, end);
    }

    return p == end;
}


/* Is it word, in whichever case? */
static int
is_word(const char *p, uint32_t n, const char *word)
{
    uint32_t i;

    for (i = 0; i < n && word[i] != '\0' && (p[i] | 0x20) == word[i]; i++) {
    }

    return i == n && word[i] == '\0';
}


/* A value that was held whole. */
static void
scalar(tools_run_t *x, const char *p, uint32_t n)
{
    static const struct {
        const char *word;
        uint32_t type;
    } words[] = {{"true", TOOLS_BOOLEAN}, {"false", TOOLS_BOOLEAN},
        {"null", TOOLS_NULL | TOOLS_NUMBER | TOOLS_BOOLEAN | TOOLS_OBJECT
                     | TOOLS_ARRAY},
        {"none", TOOLS_NULL}};
    uint32_t types = x->s->key_types, i;
    const char *at = p, *word;
    uint32_t len = n;

    for (; len > 0 && tools_is_white(*at); at++, len--) {
    }
    for (; len > 0 && tools_is_white(at[len - 1]); len--) {
    }

    if ((types & TOOLS_NUMBER) && is_number(at, len)) {
        tools_emit(x, LLM_TEXT_ARGUMENTS, at, len);
        return;
    }
    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if ((types & words[i].type) && is_word(at, len, words[i].word)) {
            word = i < 2 ? words[i].word : "null";
            tools_emit(x, LLM_TEXT_ARGUMENTS, word, strlen(word));
            return;
        }
    }

    tools_emit(x, LLM_TEXT_ARGUMENTS, "\"", 1);
    for (i = 0; i < n; i++) {
        emit_json(x, p[i]);
    }
    tools_emit(x, LLM_TEXT_ARGUMENTS, "\"", 1);
}


/* A byte that is the value's for certain, in a value that streams. */
static void
value_out(tools_run_t *x, char c)
{
    if (x->s->mode == QUOTED) {
        emit_json(x, c);
    } else {
        tools_emit(x, LLM_TEXT_ARGUMENTS, &c, 1);
    }
}


/* From here on it streams: what is held goes out, but for the last bytes. */
static void
value_stream(tools_run_t *x, uint8_t mode, uint32_t but)
{
    tools_state_t *s = x->s;
    uint32_t i, n = s->n - but;

    assert(but <= s->n && s->mode == UNDECIDED);

    s->mode = mode;
    if (mode == QUOTED) {
        tools_emit(x, LLM_TEXT_ARGUMENTS, "\"", 1);
    }
    for (i = 0; i < n; i++) {
        value_out(x, s->held[i]);
    }
    memmove(s->held, s->held + n, but);
    s->n = but;
}


/* The first byte that is no white space, of n held ones, decides how a value
 * goes out. */
static void
value_decide(tools_run_t *x, uint32_t n)
{
    tools_state_t *s = x->s;
    uint32_t types = s->key_types, i;
    char c;

    assert(n > 0 && n <= s->n && s->mode == UNDECIDED);
    for (i = 0; i + 1 < n && tools_is_white(s->held[i]); i++) {
    }
    c = s->held[i];

    if (types == 0 || types == TOOLS_STRING) {
        value_stream(x, QUOTED, s->n);
    } else if ((c == '{' && (types & TOOLS_OBJECT))
               || (c == '[' && (types & TOOLS_ARRAY))) {
        value_stream(x, RAW, s->n);
    }
}


/* Bytes at the end of what is held that may begin the mark behind a value, and
 * its newline.  whole: all of the mark is there. */
static uint32_t
value_tail(const tools_run_t *x, int *whole)
{
    const char *close = x->row->xml->value_close;
    const tools_state_t *s = x->s;
    uint32_t len = (uint32_t) strlen(close), n, from;

    *whole = s->n >= len && memcmp(s->held + s->n - len, close, len) == 0;
    n = len;
    if (!*whole) {
        for (n = s->n < len ? s->n : len;
             n > 0 && memcmp(s->held + s->n - n, close, n) != 0; n--) {
        }
    }
    assert(n <= s->n);
    from = s->n - n;

    return n + (from > 0 && s->held[from - 1] == '\n');
}


/* Undecided values wait for their first byte or, if scalar, for their end; what
 * streams goes out but for what may be the mark behind it. */
static void
value_byte(tools_run_t *x, char c)
{
    tools_state_t *s = x->s;
    uint32_t tail, i;
    int whole;

    if (s->lead) {
        s->lead = 0;
        if (c == '\n') {
            return;
        }
    }

    (void) tools_hold(x, c); /* there is room: all but a mark goes on */
    tail = value_tail(x, &whole);
    if (s->mode == UNDECIDED && s->n - tail > 0) {
        value_decide(x, s->n - tail);
    }

    if (s->mode == UNDECIDED) {
        if (whole) {
            scalar(x, s->held, s->n - tail);
            s->n = 0;
            s->sub = BETWEEN;
        } else if (s->n > VALUE_MAX) {
            value_stream(x, QUOTED, tail);
        }
        return;
    }

    for (i = 0; i < s->n - tail; i++) {
        value_out(x, s->held[i]);
    }
    memmove(s->held, s->held + s->n - tail, tail);
    s->n = tail;
    if (whole) {
        if (s->mode == QUOTED) {
            tools_emit(x, LLM_TEXT_ARGUMENTS, "\"", 1);
        }
        s->n = 0;
        s->sub = BETWEEN;
    }
}


/* --- around them -------------------------------------------------------- */

/* Bytes between parameters: the next one's mark, or the call's end. */
static void
between_byte(tools_run_t *x, char c)
{
    const tools_xml_t *m = x->row->xml;
    tools_state_t *s = x->s;
    int key, end;

    if (s->n == 0 && tools_is_white(c)) {
        return;
    }
    (void) tools_hold(x, c);
    key =
        begins(s->sub == TO_VALUE ? m->value_open : m->key_open, s->held, s->n);
    end = s->sub == TO_VALUE ? 0 : begins(m->close, s->held, s->n);

    if (key == 2) {
        s->sub = s->sub == TO_VALUE ? IN_VALUE : IN_KEY;
        s->n = 0;
    } else if (end == 2) {
        tools_emit(x, LLM_TEXT_ARGUMENTS, "}", 1);
        tools_whole(x);
    } else if (key == 0 && end == 0) {
        tools_fail(x, c);
    }
}


void
tools_xml_byte(tools_run_t *x, char c)
{
    const char *close = x->row->xml->key_close;
    tools_state_t *s = x->s;
    uint32_t len = (uint32_t) strlen(close);

    switch (s->sub) {
    case OPEN:
    case NAME:
        head_byte(x, c);
        break;
    case BETWEEN:
    case TO_VALUE:
        between_byte(x, c);
        break;
    case IN_KEY:
        if (!tools_hold(x, c)) {
            tools_fail(x, c);
        } else if (s->n >= len
                   && memcmp(s->held + s->n - len, close, len) == 0) {
            key_done(x, s->n - len);
        }
        break;
    default:
        assert(s->sub == IN_VALUE);
        value_byte(x, c);
    }
}
