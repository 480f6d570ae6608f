/*
 * Calls that are JSON: an object with a name and arguments, alone or in a
 * list, or a name between marks and then the arguments' object.
 *
 * DESIGN.  A byte at a time, so cuts cannot matter.  Until the name and the
 * beginning of the arguments are there, all is held, as it may still prove to
 * be text; from then on the arguments' bytes go out as the model wrote them:
 *
 *      {"name": "f", "arguments": {"a": [1, 2]}, "id": 7}
 *      └──────── held ───────────┘└── as it is ─┘└ dropped ┘
 *
 * Arguments that come before the name are held with it.  Arguments that are a
 * string hold JSON: its escapes are undone.  No arguments are {}.  Brackets
 * and quotes are all that is looked at: whether what is between them is JSON
 * can only be known when it has gone out, and is the client's to see.
 */
#include "tools_impl.h"

#include <assert.h>
#include <string.h>

/*
 * Where in an object.  Its bytes between names and values go through between():
 *
 *      { KEY " IN_KEY " COLON : VALUE ──> IN_NAME, IN_ARGS or SKIP ──> NEXT
 *         ^                                                            , │ }
 *         └──────────────────────────────────────────────────────────────┘
 */
enum { KEY, IN_KEY, COLON, VALUE, IN_NAME, IN_ARGS, IN_STRING, SKIP, NEXT };

/* What a key says. */
enum { K_OTHER, K_NAME, K_ARGS };

/* How arguments are written. */
enum { ARGS_NONE, ARGS_OBJECT, ARGS_STRING };

/* Scalars that are passed over end with whatever ends a value. */
#define SCALAR UINT32_MAX


/* A call's object begins: nothing of it is known.  What is held stays, as text
 * that it may still prove to be. */
static void
object_begin(tools_state_t *s)
{
    s->state = TOOLS_IN_JSON;
    s->sub = KEY;
    s->nest = s->named = 0;
    s->name_n = s->args_n = 0;
    s->args = ARGS_NONE;
    s->function = TOOLS_NONE;
}


/* In a list nothing is known until an object begins in it. */
void
tools_json_begin(tools_run_t *x, char c)
{
    assert(c == '{' || c == '[');

    x->s->list = c == '[';
    x->s->calls_list = 0;
    if (x->s->list) {
        x->s->state = TOOLS_LIST;
    } else {
        object_begin(x->s);
    }
}


/* Between a list's calls.  Before the first is whole it may all be text; behind
 * it only what breaks the list is, from there on. */
void
tools_list_byte(tools_run_t *x, char c)
{
    tools_state_t *s = x->s;

    assert(s->list);

    if (!s->calls_list && !tools_hold(x, c)) {
        tools_fail(x, c);
    } else if (tools_is_white(c) || (c == ',' && s->calls_list)) {
        return;
    } else if (c == '{') {
        if (s->calls_list) {
            s->n = 0;
            (void) tools_hold(x, c);
        }
        object_begin(s);
    } else if (c == ']' && s->calls_list) {
        s->list = 0;
        s->state = TOOLS_TEXT;
        s->n = 0;
    } else {
        if (s->calls_list) {
            s->n = 0;
            (void) tools_hold(x, c);
        }
        tools_fail(x, c);
    }
}


/* One byte of a value whose quotes and brackets are counted: 1 at its end.  It
 * begins with one of them, so depth is 0 only within a string or at the end. */
static int
scan(tools_state_t *s, char c)
{
    if (s->quoted) {
        if (s->escaped) {
            s->escaped = 0;
        } else if (c == '\\') {
            s->escaped = 1;
        } else if (c == '"') {
            s->quoted = 0;
            return s->depth == 0;
        }
        return 0;
    }

    if (c == '"') {
        s->quoted = 1;
    } else if (c == '{' || c == '[') {
        s->depth++;
    } else if (c == '}' || c == ']') {
        assert(s->depth > 0);
        s->depth--;
        return s->depth == 0;
    }

    return 0;
}


/* A character by its number, as UTF-8; a surrogate is none. */
static void
put_code(tools_run_t *x, uint32_t code)
{
    char u[4];
    uint32_t n = 0;

    assert(code <= 0x10ffff && (code < 0xd800 || code >= 0xe000));
    if (code < 0x80) {
        u[n++] = (char) code;
    } else if (code < 0x800) {
        u[n++] = (char) (0xc0 | code >> 6);
        u[n++] = (char) (0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        u[n++] = (char) (0xe0 | code >> 12);
        u[n++] = (char) (0x80 | (code >> 6 & 0x3f));
        u[n++] = (char) (0x80 | (code & 0x3f));
    } else {
        u[n++] = (char) (0xf0 | code >> 18);
        u[n++] = (char) (0x80 | (code >> 12 & 0x3f));
        u[n++] = (char) (0x80 | (code >> 6 & 0x3f));
        u[n++] = (char) (0x80 | (code & 0x3f));
    }
    tools_emit(x, LLM_TEXT_ARGUMENTS, u, n);
}


/* Four digits are there; half of a pair waits for the other half.  A half that
 * is alone becomes U+FFFD, as JSON may have it but UTF-8 may not. */
static void
put_hex(tools_run_t *x)
{
    tools_state_t *s = x->s;
    uint32_t code = s->hex;

    assert(s->hex_n == 0);
    assert(s->high == 0 || (s->high >= 0xd800 && s->high < 0xdc00));
    if (s->high != 0 && code >= 0xdc00 && code < 0xe000) {
        put_code(x, 0x10000 + ((s->high - 0xd800u) << 10) + (code - 0xdc00));
        s->high = 0;
        return;
    }
    if (s->high != 0) {
        put_code(x, 0xfffd);
        s->high = 0;
    }
    if (code >= 0xd800 && code < 0xdc00) {
        s->high = (uint16_t) code;
    } else {
        put_code(x, code >= 0xdc00 && code < 0xe000 ? 0xfffd : code);
    }
}


/* One byte of arguments in a string, without its quotes.  State is kept from
 * byte to byte: hex_n counts from 1, and an escape that is not known is the
 * character behind the backslash. */
static void
unquote(tools_run_t *x, char c)
{
    static const char from[] = "nrtbf", to[] = "\n\r\t\b\f";
    tools_state_t *s = x->s;
    const char *at;

    _Static_assert(sizeof(from) == sizeof(to), "each has what it stands for");
    assert(s->args == ARGS_STRING && s->hex_n < 5);
    if (s->hex_n > 0) {
        s->hex = (uint16_t) (s->hex << 4
                             | (c >= '0' && c <= '9'    ? c - '0'
                                 : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                 : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                        : 0));
        if (++s->hex_n == 5) {
            s->hex_n = 0;
            put_hex(x);
        }
        return;
    }

    if (s->escaped && c == 'u') {
        s->escaped = 0;
        s->hex_n = 1;
        s->hex = 0;
        return;
    }
    if (!s->escaped && c == '\\') {
        s->escaped = 1;
        return;
    }

    if (s->high != 0) {
        put_code(x, 0xfffd);
        s->high = 0;
    }
    at = s->escaped && c != '\0' ? strchr(from, c) : NULL;
    s->escaped = 0;
    if (at != NULL) {
        c = to[at - from];
    }
    tools_emit(x, LLM_TEXT_ARGUMENTS, &c, 1);
}


/* Name and arguments, or their beginning, are held: out with them.  Called once
 * for a call, when both are known, in whichever order they came. */
static void
commit(tools_run_t *x)
{
    tools_state_t *s = x->s;
    uint32_t at = s->args_at, end = s->args_at + s->args_n;

    assert(s->name_n > 0 && !s->named);
    assert(s->args != ARGS_NONE && end <= s->n && s->n <= TOOLS_HELD_MAX);

    tools_name(x, s->held + s->name_at, s->name_n);
    if (s->args == ARGS_STRING) {
        s->escaped = s->hex_n = 0;
        s->high = 0;
        if (at == end) {
            tools_emit(x, LLM_TEXT_ARGUMENTS, "{}", s->sub == IN_ARGS ? 0 : 2);
        }
        for (; at < end; at++) {
            unquote(x, s->held[at]);
        }
    } else {
        tools_emit(x, LLM_TEXT_ARGUMENTS, s->held + at, s->args_n);
    }
}


/* A "}": of the object that the function is in, or the call's.  A call without
 * arguments has {}; but without a name it is text, and without both arguments
 * and a mark too. */
static void
object_end(tools_run_t *x, char c)
{
    tools_state_t *s = x->s;

    if (s->nest > 0) {
        s->nest--;
        s->sub = NEXT;
        return;
    }

    if (!s->named) {
        if (s->name_n == 0 || s->bare) {
            tools_fail(x, c);
            return;
        }
        tools_name(x, s->held + s->name_at, s->name_n);
        tools_emit(x, LLM_TEXT_ARGUMENTS, "{}", 2);
    }

    tools_whole(x);
    s->calls_list = 1;
    if (s->list && s->state == TOOLS_TEXT) {
        s->state = TOOLS_LIST;
    }
}


/* Which key it is; 0 if an object without a mark has none of that name. */
static int
key_done(tools_run_t *x)
{
    static const struct {
        const char *name;
        uint8_t key;
    } keys[] = {{"name", K_NAME}, {"function", K_NAME}, {"arguments", K_ARGS},
        {"parameters", K_ARGS}, {"type", K_OTHER}, {"id", K_OTHER}};
    tools_state_t *s = x->s;
    uint32_t i, n = s->n - 1 - s->string_at;

    assert(s->n > s->string_at);

    for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (strlen(keys[i].name) == n
            && memcmp(keys[i].name, s->held + s->string_at, n) == 0) {
            s->key = keys[i].key;
            /* of a name or arguments that are there already the first count */
            if ((s->key == K_NAME && s->name_n > 0)
                || (s->key == K_ARGS && (s->args != ARGS_NONE || s->named))) {
                s->key = K_OTHER;
            }
            return 1;
        }
    }
    s->key = K_OTHER;

    return !s->bare || s->named;
}


/* A value's first byte, by which key it is of; 0: no call has such a value. */
static int
value_begin(tools_run_t *x, char c)
{
    tools_state_t *s = x->s;

    assert(s->sub == VALUE);
    s->quoted = s->escaped = 0;
    s->depth = 0;
    s->string_at = s->n;

    if (s->key == K_NAME && c == '"') {
        s->sub = IN_NAME;
        return 1;
    }
    if (s->key == K_NAME) {
        s->sub = KEY; /* {"function": {"name": .. */
        s->nest++;
        return c == '{' && s->nest == 1;
    }
    if (s->key == K_ARGS && (c == '{' || c == '"')) {
        s->args = c == '{' ? ARGS_OBJECT : ARGS_STRING;
        s->args_at = c == '{' ? s->n - 1 : s->n;
        s->args_n = c == '{';
        s->depth = c == '{';
        s->sub = IN_ARGS;
        s->hex_n = 0;
        s->high = 0;
        if (s->name_n > 0) {
            commit(x);
        }
        return 1;
    }

    s->sub = SKIP;
    if (c == '"' || c == '{' || c == '[') {
        (void) scan(s, c);
    } else {
        s->depth = SCALAR;
        if (!tools_is_name(c)) {
            return 0;
        }
    }

    /* null are none */
    return s->key != K_ARGS || c == 'n';
}


/* The name is held; 0 if it is none. */
static int
name_done(tools_run_t *x)
{
    tools_state_t *s = x->s;

    assert(s->n > s->string_at && !s->named);
    s->name_at = s->string_at;
    s->name_n = s->n - 1 - s->string_at;
    if (s->name_n == 0 || s->name_n > TOOLS_NAME_MAX) {
        return 0;
    }

    s->function = tools_schema_find(x->schema, s->held + s->name_at, s->name_n);
    if (s->bare && s->function == TOOLS_NONE) {
        return 0;
    }

    s->sub = NEXT;
    if (s->args != ARGS_NONE) {
        commit(x);
    }

    return 1;
}


/* A byte of the arguments: goes out, or is held if the name is not known yet,
 * and then args_n counts it. */
static void
args_byte(tools_run_t *x, char c)
{
    tools_state_t *s = x->s;

    assert(s->args != ARGS_NONE);
    if (s->args == ARGS_STRING) {
        if (c == '"' && !s->escaped) {
            if (s->named && s->high != 0) {
                put_code(x, 0xfffd);
            }
            if (s->named && s->args_n == 0) {
                tools_emit(x, LLM_TEXT_ARGUMENTS, "{}", 2);
            }
            s->sub = NEXT;
            return;
        }
        s->args_n += s->args_n < UINT32_MAX;
        if (s->named) {
            unquote(x, c);
        } else {
            s->escaped = !s->escaped && c == '\\';
        }
        return;
    }

    s->sub = scan(s, c) ? NEXT : IN_ARGS;
    if (s->named) {
        tools_emit(x, LLM_TEXT_ARGUMENTS, &c, 1);
    } else {
        s->args_n++;
    }
}


/* Bytes between names and values.  0: that cannot be. */
static int
between(tools_run_t *x, char c)
{
    tools_state_t *s = x->s;

    if (tools_is_white(c)) {
        return 1;
    }

    switch (s->sub) {
    case KEY:
        if (c == '"') {
            if (s->named) {
                s->n = 0;
            }
            s->string_at = s->n;
            s->escaped = 0;
            s->sub = IN_KEY;
            return 1;
        }
        if (c == '}') {
            object_end(x, c);
            return 1;
        }
        return 0;
    case COLON:
        s->sub = VALUE;
        return c == ':';
    case VALUE:
        return value_begin(x, c);
    default:
        assert(s->sub == NEXT);
        if (c == '}') {
            object_end(x, c);
            return 1;
        }
        s->sub = KEY;
        return c == ',';
    }
}


/* Names and keys are held whole; of what comes behind a name that is out only
 * keys are, so that they can be told apart. */
void
tools_json_byte(tools_run_t *x, char c)
{
    tools_state_t *s = x->s;
    int ok = 1;

    if ((!s->named || s->sub == IN_KEY) && !tools_hold(x, c)) {
        tools_fail(x, c);
        return;
    }

    switch (s->sub) {
    case IN_KEY:
        if (c == '"' && !s->escaped) {
            s->sub = COLON;
            ok = key_done(x);
        }
        s->escaped = !s->escaped && c == '\\';
        break;
    case IN_NAME:
        ok = c == '"' ? name_done(x) : tools_is_name(c);
        break;
    case IN_ARGS:
        args_byte(x, c);
        break;
    case SKIP:
        if (s->depth == SCALAR) {
            if (c == ',' || c == '}' || tools_is_white(c)) {
                s->sub = NEXT;
                ok = between(x, c);
            }
        } else if (scan(s, c)) {
            s->sub = NEXT;
        }
        break;
    default:
        ok = between(x, c);
    }

    if (!ok) {
        tools_fail(x, c);
    }
}


/* The answer may end here although "}" has not come: the arguments were whole,
 * and what models leave out behind them says nothing. */
int
tools_json_over(const tools_state_t *s)
{
    return s->state == TOOLS_IN_JSON && s->named && s->sub != IN_ARGS
           && s->args != ARGS_NONE;
}


/* --- a name between marks ----------------------------------------------- */

/* A header's other words may follow a name without anything between. */
static uint32_t
named_channel(const tools_run_t *x, const char *p, uint32_t n)
{
    static const char *const words[] = {"commentary", "json", "commentaryjson"};
    uint32_t i, len = tools_schema_prefix(x->schema, p, n);

    for (i = 0; len > 0 && i < sizeof(words) / sizeof(words[0]); i++) {
        if (n - len == strlen(words[i])
            && memcmp(p + len, words[i], n - len) == 0) {
            return len;
        }
    }

    return n;
}


/*
 * The name in what stands before the arguments; 0 bytes: there is none.
 *
 *      function<|sep|>NAME\n```json\n     NAME<|sep|>     functions.NAME:0<..>
 *      NAME[ARGS]     NAME[CALL_ID]id[ARGS]     NAME<|constrain|>json
 */
static uint32_t
named_find(const tools_run_t *x, const char **name)
{
    static const char function[] = "function";
    const tools_state_t *s = x->s;
    const char *p = s->held + s->mark, *end = s->held + s->n - 1, *in, *at;
    uint32_t i, n, len;

    assert(end >= p);

    for (i = 0; x->row->inner[i] != NULL; i++) {
        len = (uint32_t) strlen(x->row->inner[i]);
        in = x->row->inner[i];
        at = memmem(p, (size_t) (end - p), in, len);
        if (i == 0 && at == p) {
            p += len; /* the mark of a call behind that of all calls */
        } else if (at != NULL && (size_t) (at - p) == sizeof(function) - 1
                   && memcmp(p, function, sizeof(function) - 1) == 0) {
            p = at + len;
        }
    }
    while (p < end && tools_is_white(*p)) {
        p++;
    }
    if (end - p > 10 && memcmp(p, "functions.", 10) == 0) {
        p += 10;
    }

    for (n = 0; p + n < end && tools_is_name(p[n]); n++) {
    }
    *name = p;
    if (x->row->inner[0] == NULL) {
        n = named_channel(x, p, n);
    }

    return n <= TOOLS_NAME_MAX ? n : 0;
}


/* The head is held up to the first "{", TOOLS_HEAD bytes at most; from then on
 * the object goes out as it comes, and its last bracket ends the call. */
void
tools_named_byte(tools_run_t *x, char c)
{
    tools_state_t *s = x->s;
    const char *name;
    uint32_t n;

    if (s->named) {
        tools_emit(x, LLM_TEXT_ARGUMENTS, &c, 1);
        if (scan(s, c)) {
            tools_whole(x);
        }
        return;
    }

    if (!tools_hold(x, c) || s->n - s->mark > TOOLS_HEAD) {
        tools_fail(x, c);
        return;
    }
    if (c != '{') {
        return;
    }

    n = named_find(x, &name);
    if (n == 0) {
        tools_fail(x, c);
        return;
    }
    tools_name(x, name, n);
    s->quoted = s->escaped = 0;
    s->depth = 1;
    tools_emit(x, LLM_TEXT_ARGUMENTS, "{", 1);
}
