/*
 * Thought and answer: see reason.h.
 *
 * DESIGN.  A family's marks are a row of a table: what begins a thought, what
 * ends it, and what the answer behind it may be wrapped in.  A mark is text,
 * looked for byte by byte wherever tokens and events cut it; or, if the
 * vocabulary has it as a control token, which has no text, it is that token.
 *
 *      MAYBE ──open──> INSIDE ──close──> WRAP ──wrap──> WRAPPED ──unwrap──┐
 *        │               thought          │               answer          │
 *        └─────── anything else ──────────┴──────────> ANSWER <───────────┘
 *
 * A thought can only stand at the beginning, behind white space: later marks
 * are what the answer says.  Newlines behind a mark, and up to two before the
 * one that ends, are the mark's own and go with it.  Where a prompt leaves
 * off is read off its end, as some templates open the thought themselves.
 *
 * The harmony form (GPT-OSS) is messages with a header, of which the channel
 * "analysis" is thought:
 *
 *      <|channel|>analysis<|message|>thought<|end|>
 *      <|start|>assistant<|channel|>final<|message|>answer
 *
 * A header that names a recipient is a call; it stays in the answer, in the
 * model's own words, as all calls do.
 *
 * Bytes held back are a mark's beginning, so nobody stores them (stop.c).  No
 * state but what the caller has.
 */
#include "reason.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER, MAYBE, INSIDE, WRAP, WRAPPED, HEAD };

enum { OPEN, CLOSE, WRAP_OPEN, WRAP_CLOSE, MARKS };

#define SPELLINGS  2  /* of one mark */
#define BREAKS_MAX 2  /* newlines that go with the mark behind them */
#define TAIL_IDS   64 /* of a prompt, that may hold its last mark */

/* In the order in which they are looked for: the particular ones first. */
static const struct {
    const char *name;
    const char *sign; /* a template that has this is of the family */
    const char *marks[MARKS][SPELLINGS];
} rows[] = {
    {"granite", "<response>",
        {{"<think>"}, {"</think>"}, {"<response>"}, {"</response>"}}},
    {"granite-3.2", "Here is my thought process:",
        {{"Here is my thought process:", "Here's my thought process:"},
            {"Here is my response:", "Here's my response:"}}},
    {"command", "<|START_THINKING|>",
        {{"<|START_THINKING|>"}, {"<|END_THINKING|>"}}},
    {"magistral", "[THINK]", {{"[THINK]"}, {"[/THINK]"}}},
    {"seed", "<seed:think>", {{"<seed:think>"}, {"</seed:think>"}}},
    {"kimi", "\xe2\x97\x81think\xe2\x96\xb7",
        {{"\xe2\x97\x81think\xe2\x96\xb7"},
            {"\xe2\x97\x81/think\xe2\x96\xb7"}}},
    {"apriel", "[BEGIN FINAL RESPONSE]",
        {{"Here are my reasoning steps:"}, {"[BEGIN FINAL RESPONSE]"}}},
    {"think", "<think>", {{"<think>"}, {"</think>"}}},
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

static const char harmony[] = "harmony";

struct reason_s {
    const char *name;
    const token_t *tok;  /* borrowed */
    stop_t marks[MARKS]; /* by their spelling */
    uint32_t ids[MARKS]; /* by a control token, else TOKEN_NONE */
    int harmony;
    uint32_t start, channel, message, end;
};


/* --- opening ------------------------------------------------------------ */

/* The token that is exactly s and has no text of its own. */
static uint32_t
control_id(const token_t *tok, const char *s)
{
    uint32_t id = token_find(tok, s, strlen(s));
    size_t len;

    if (id != TOKEN_NONE) {
        (void) token_bytes(tok, id, &len);
        if (len > 0) {
            id = TOKEN_NONE;
        }
    }

    return id;
}


static int
has_text(const char *source, size_t len, const char *s)
{
    return source != NULL && memmem(source, len, s, strlen(s)) != NULL;
}


/* Fills in a row's marks; an id or spellings for each. */
static void
open_row(reason_t *r, size_t row)
{
    uint32_t k, i;
    const char *s;
    int rc;

    r->name = rows[row].name;

    for (k = 0; k < MARKS; k++) {
        for (i = 0; i < SPELLINGS && rows[row].marks[k][i] != NULL; i++) {
            s = rows[row].marks[k][i];
            assert(strlen(s) + REASON_WHITE_MAX <= REASON_HELD_MAX);
            r->ids[k] = control_id(r->tok, s);
            if (r->ids[k] == TOKEN_NONE) {
                rc = stop_add(&r->marks[k], s, strlen(s));
                assert(rc == 0);
                (void) rc;
            }
        }
    }
}


/* 0, or -1 if the vocabulary lacks one. */
static int
open_harmony(reason_t *r)
{
    r->name = harmony;
    r->harmony = 1;
    r->start = control_id(r->tok, "<|start|>");
    r->channel = control_id(r->tok, "<|channel|>");
    r->message = control_id(r->tok, "<|message|>");
    r->end = control_id(r->tok, "<|end|>");

    return r->start == TOKEN_NONE || r->channel == TOKEN_NONE
                   || r->message == TOKEN_NONE || r->end == TOKEN_NONE
               ? -1
               : 0;
}


/* The row that a template, else a vocabulary speaks of; ROWS: none. */
static size_t
find_row(const reason_t *r, const char *source, size_t len)
{
    size_t i;

    for (i = 0; i < ROWS; i++) {
        if (has_text(source, len, rows[i].sign)
            && has_text(source, len, rows[i].marks[CLOSE][0])) {
            return i;
        }
    }

    for (i = ROWS - 1; token_find(r->tok, rows[i].marks[OPEN][0],
                           strlen(rows[i].marks[OPEN][0]))
                           == TOKEN_NONE
                       || token_find(r->tok, rows[i].marks[CLOSE][0],
                              strlen(rows[i].marks[CLOSE][0]))
                              == TOKEN_NONE;
         i--) {
        if (i == 0) {
            return ROWS;
        }
    }

    return i;
}


/* By name; 1: filled in, 0: there are none, -1 with err. */
static int
open_named(reason_t *r, const char *name, const char *source, size_t len,
    char *err, size_t errlen)
{
    size_t i;

    if (strcmp(name, "off") == 0) {
        return 0;
    }

    if (strcmp(name, harmony) == 0
        || (strcmp(name, "auto") == 0
            && has_text(source, len, "<|channel|>"))) {
        if (open_harmony(r) == 0) {
            return 1;
        }
        if (name[0] == 'h') {
            snprintf(err, errlen,
                "reasoning harmony: the vocabulary lacks its control tokens");
            return -1;
        }
        r->harmony = 0;
    }

    for (i = 0; i < ROWS && strcmp(name, rows[i].name) != 0; i++) {
    }
    if (strcmp(name, "auto") == 0) {
        i = find_row(r, source, len);
        if (i == ROWS) {
            return 0;
        }
    }
    if (i == ROWS) {
        snprintf(err, errlen,
            "reasoning: expected auto, off, harmony, think, granite, "
            "granite-3.2, command, magistral, seed, kimi or apriel, found "
            "\"%.64s\"",
            name);
        return -1;
    }
    open_row(r, i);

    return 1;
}


int
reason_open(reason_t **out, const char *name, const char *source, size_t len,
    const token_t *tok, char *err, size_t errlen)
{
    reason_t *r = calloc(1, sizeof(*r));
    uint32_t k;
    int rc;

    assert(name != NULL && tok != NULL && errlen > 0);

    *out = NULL;
    if (r == NULL) {
        snprintf(err, errlen, "out of memory");
        return -1;
    }

    r->tok = tok;
    for (k = 0; k < MARKS; k++) {
        r->ids[k] = TOKEN_NONE;
    }

    rc = open_named(r, name, source, len, err, errlen);
    if (rc <= 0) {
        free(r);
        return rc;
    }
    *out = r;

    return 0;
}


void
reason_close(reason_t *r)
{
    free(r);
}


const char *
reason_name(const reason_t *r)
{
    assert(r->name != NULL);
    return r->name;
}


/* --- the text ----------------------------------------------------------- */

/* The marks that a state looks for; NULL: none. */
static const stop_t *
looks_for(const reason_t *r, const reason_state_t *st)
{
    switch (st->state) {
    case MAYBE:
        return &r->marks[OPEN];
    case INSIDE:
        return &r->marks[CLOSE];
    case WRAP:
        return &r->marks[WRAP_OPEN];
    case WRAPPED:
        return &r->marks[WRAP_CLOSE];
    default:
        return NULL;
    }
}


static uint32_t
kind_of(const reason_state_t *st)
{
    return st->state == INSIDE ? LLM_TEXT_REASONING : LLM_TEXT_ANSWER;
}


size_t
reason_held(const reason_t *r, const reason_state_t *st)
{
    const stop_t *marks = looks_for(r, st);
    const char *s;

    return (size_t) st->white_n + st->breaks
           + (marks != NULL ? stop_held(marks, &st->at, &s) : 0);
}


/* The mark that the state waits for is there. */
static int
step_over(const reason_t *r, reason_state_t *st, reason_put_t put, void *arg)
{
    static const uint8_t next[] = {[MAYBE] = INSIDE,
        [INSIDE] = WRAP,
        [WRAP] = WRAPPED,
        [WRAPPED] = ANSWER};

    assert(st->state >= MAYBE && st->state <= WRAPPED);

    st->state = next[st->state];
    if (st->state == WRAP && r->marks[WRAP_OPEN].n == 0) {
        st->state = ANSWER;
    }
    st->lead = 1;
    st->white_n = st->breaks = 0;
    memset(&st->at, 0, sizeof(st->at));

    if (st->state != INSIDE) {
        return 0;
    }

    /* a second thought (harmony) is a paragraph of its own */
    st->entered = 1;
    if (st->again) {
        return put(arg, LLM_TEXT_REASONING, "\n", 1);
    }
    st->again = 1;

    return 0;
}


/* Text inside marks: its last newlines wait for what comes. */
static int
put_body(
    reason_state_t *st, const char *p, size_t n, reason_put_t put, void *arg)
{
    const uint32_t kind = kind_of(st);
    size_t tail = 0, over;
    int rc;

    while (tail < n && p[n - 1 - tail] == '\n') {
        tail++;
    }

    if (n > tail) {
        rc = st->breaks > 0 ? put(arg, kind, "\n\n", st->breaks) : 0;
        st->breaks = 0;
        rc = rc == 0 ? put(arg, kind, p, n - tail) : rc;
        if (rc != 0) {
            return rc;
        }
    }

    for (over = st->breaks + tail; over > BREAKS_MAX; over--) {
        if ((rc = put(arg, kind, "\n", 1)) != 0) {
            return rc;
        }
    }
    st->breaks = (uint8_t) over;

    return 0;
}


/* Up to the mark that ends it, anywhere in n bytes.  *used is how many. */
static int
feed_within(const reason_t *r, reason_state_t *st, const char *p, size_t n,
    size_t *used, reason_put_t put, void *arg)
{
    const stop_t *marks = looks_for(r, st);
    const char *before, *after;
    size_t held = stop_held(marks, &st->at, &before), out, part;
    uint32_t match = 0, kept;
    int rc, found;

    *used = n;
    found = stop_feed(marks, &st->at, p, n, used, &match);
    kept = found ? match : stop_held(marks, &st->at, &after);

    assert(kept <= held + *used);
    out = held + *used - kept;
    part = out < held ? out : held;

    rc = put_body(st, before, part, put, arg);
    if (rc == 0) {
        rc = put_body(st, p, out - part, put, arg);
    }

    return rc == 0 && found ? step_over(r, st, put, arg) : rc;
}


/* What was held back is no mark, so this is the answer. */
static int
give_up(const reason_t *r, reason_state_t *st, reason_put_t put, void *arg)
{
    const char *before;
    size_t held = stop_held(looks_for(r, st), &st->at, &before);
    uint8_t n = st->white_n;
    int rc;

    st->state = ANSWER;
    st->white_n = 0;
    memset(&st->at, 0, sizeof(st->at));

    rc = n > 0 ? put(arg, LLM_TEXT_ANSWER, st->white, n) : 0;

    return rc == 0 && held > 0 ? put(arg, LLM_TEXT_ANSWER, before, held) : rc;
}


/* One byte of what is a mark from its first byte on, or none. */
static int
feed_first(const reason_t *r, reason_state_t *st, char c, size_t *used,
    reason_put_t put, void *arg)
{
    const stop_t *marks = looks_for(r, st);
    const stop_state_t was = st->at;
    const char *s;
    size_t held = stop_held(marks, &st->at, &s), n;
    uint32_t len;

    *used = 1;
    if (held == 0 && (c == ' ' || c == '\n' || c == '\r' || c == '\t')
        && st->white_n < REASON_WHITE_MAX) {
        st->white[st->white_n++] = c;
        return 0;
    }

    if (stop_feed(marks, &st->at, &c, 1, &n, &len)) {
        return step_over(r, st, put, arg);
    }

    if (stop_held(marks, &st->at, &s) == held + 1) {
        return 0;
    }

    st->at = was;
    *used = 0;

    return give_up(r, st, put, arg);
}


/* A header's bytes; one that is too long is none, and all is the answer. */
static int
feed_head(reason_state_t *st, const char *p, size_t n, size_t *used,
    reason_put_t put, void *arg)
{
    *used = n;
    if (n <= (size_t) REASON_HEAD_MAX - st->head_n) {
        memcpy(st->head + st->head_n, p, n);
        st->head_n += (uint8_t) n;
        return 0;
    }

    *used = 0;
    st->state = ANSWER;
    n = st->head_n;
    st->head_n = 0;

    return n > 0 && st->fresh ? put(arg, LLM_TEXT_ANSWER, st->head, n) : 0;
}


int
reason_feed(const reason_t *r, reason_state_t *st, const char *p, size_t n,
    reason_put_t put, void *arg)
{
    size_t used;
    int rc = 0;

    for (; n > 0 && rc == 0; p += used, n -= used) {
        if (st->lead && *p == '\n') {
            used = 1;
            continue;
        }
        st->lead = 0;

        switch (st->state) {
        case MAYBE:
        case WRAP:
            rc = feed_first(r, st, *p, &used, put, arg);
            break;
        case INSIDE:
        case WRAPPED:
            rc = feed_within(r, st, p, n, &used, put, arg);
            break;
        case HEAD:
            rc = feed_head(st, p, n, &used, put, arg);
            break;
        default:
            used = n;
            rc = put(arg, LLM_TEXT_ANSWER, p, n);
        }
    }

    return rc;
}


int
reason_end(const reason_t *r, reason_state_t *st, reason_put_t put, void *arg)
{
    const char *s;
    size_t held;
    int rc = 0;

    switch (st->state) {
    case MAYBE:
    case WRAP:
        return give_up(r, st, put, arg);
    case INSIDE:
    case WRAPPED:
        held = stop_held(looks_for(r, st), &st->at, &s);
        if (st->breaks > 0) {
            rc = put(arg, kind_of(st), "\n\n", st->breaks);
        }
        if (rc == 0 && held > 0) {
            rc = put(arg, kind_of(st), s, held);
        }
        st->breaks = 0;
        memset(&st->at, 0, sizeof(st->at));
        return rc;
    case HEAD:
        return st->fresh && st->head_n > 0
                   ? put(arg, LLM_TEXT_ANSWER, st->head, st->head_n)
                   : 0;
    default:
        return 0;
    }
}


int
reason_in_head(const reason_state_t *st)
{
    return st->state == HEAD;
}


int
reason_thinks(const reason_state_t *st)
{
    return st->state == INSIDE;
}


int
reason_may_think(const reason_state_t *st)
{
    return st->state == MAYBE;
}


uint32_t
reason_opener(const reason_t *r)
{
    const char *s;

    if (r->ids[OPEN] != TOKEN_NONE || r->marks[OPEN].n != 1) {
        return r->ids[OPEN];
    }
    s = r->marks[OPEN].s[0];

    return token_find(r->tok, s, strlen(s));
}


/* --- marks that are tokens ---------------------------------------------- */

/* Which of a family's marks id is, as st stands; MARKS: none. */
static uint32_t
mark_of(const reason_t *r, const reason_state_t *st, uint32_t id)
{
    uint32_t k = st->state == MAYBE     ? OPEN
                 : st->state == INSIDE  ? CLOSE
                 : st->state == WRAP    ? WRAP_OPEN
                 : st->state == WRAPPED ? WRAP_CLOSE
                                        : MARKS;
    const char *s;

    if (k == MARKS || r->ids[k] != id || id == TOKEN_NONE) {
        return MARKS;
    }

    /* behind other text, or half a mark, it stands for itself */
    return (k == OPEN || k == WRAP_OPEN)
                   && stop_held(looks_for(r, st), &st->at, &s) > 0
               ? MARKS
               : k;
}


int
reason_is_mark(const reason_t *r, const reason_state_t *st, uint32_t id)
{
    if (r->harmony) {
        return id == r->start || id == r->channel || id == r->message
               || id == r->end;
    }

    return mark_of(r, st, id) != MARKS;
}


/* Does a header name a recipient? */
static int
head_calls(const reason_state_t *st)
{
    return memmem(st->head, st->head_n, " to=", 4) != NULL;
}


/* A message's text begins. */
static int
head_done(const reason_t *r, reason_state_t *st, reason_put_t put, void *arg)
{
    static const char thought[] = "analysis";
    size_t at = st->channel, n = sizeof(thought) - 1;
    int rc;

    if (at > 0 && st->head_n - (at - 1) >= n
        && memcmp(st->head + at - 1, thought, n) == 0 && !head_calls(st)) {
        st->state = MAYBE;
        rc = step_over(r, st, put, arg);
        st->lead = 0;
        return rc;
    }

    st->state = ANSWER;

    return head_calls(st) ? put(arg, LLM_TEXT_ANSWER, st->head, st->head_n) : 0;
}


static int
mark_harmony(const reason_t *r, reason_state_t *st, uint32_t id,
    reason_put_t put, void *arg)
{
    st->fresh = 0;

    if (st->state == INSIDE) {
        st->breaks = 0;
    }

    if (id == r->message) {
        return st->state == HEAD ? head_done(r, st, put, arg) : 0;
    }

    if (id == r->channel && st->state == HEAD) {
        st->channel = (uint8_t) (st->head_n + 1);
        return 0;
    }

    st->state = HEAD;
    st->head_n = 0;
    st->channel = id == r->channel;

    return 0;
}


int
reason_mark(const reason_t *r, reason_state_t *st, uint32_t id,
    reason_put_t put, void *arg)
{
    const char *s;
    size_t held;
    int rc;

    assert(reason_is_mark(r, st, id));

    if (r->harmony) {
        return mark_harmony(r, st, id, put, arg);
    }

    held = stop_held(looks_for(r, st), &st->at, &s);
    if (held > 0) {
        assert(st->state == INSIDE || st->state == WRAPPED);
        rc = put_body(st, s, held, put, arg);
        if (rc != 0) {
            return rc;
        }
    }

    return step_over(r, st, put, arg);
}


/* --- where a prompt leaves off ------------------------------------------ */

/* The last message of a prompt in the harmony form. */
static void
begin_harmony(
    const reason_t *r, const uint32_t *ids, size_t n, reason_state_t *st)
{
    size_t from = n, i, len, used;
    const char *p;
    int rc;

    while (from > 0 && n - from < TAIL_IDS * 64 && ids[from - 1] != r->start) {
        from--;
    }

    st->state = HEAD;
    st->fresh = 1;

    for (i = from; i < n; i++) {
        if (reason_is_mark(r, st, ids[i])) {
            if (ids[i] == r->message && st->channel > 0
                && memmem(st->head, st->head_n, "analysis", 8) != NULL) {
                st->state = INSIDE;
                st->again = 1;
            } else if (ids[i] == r->message) {
                st->state = ANSWER;
            } else if (ids[i] == r->channel) {
                st->channel = (uint8_t) (st->head_n + 1);
            } else {
                st->state = HEAD;
                st->head_n = st->channel = 0;
            }
        } else if (st->state == HEAD) {
            p = token_bytes(r->tok, ids[i], &len);
            if (len <= (size_t) REASON_HEAD_MAX - st->head_n) {
                rc = feed_head(st, p, len, &used, NULL, NULL);
                assert(rc == 0);
                (void) rc;
            }
        }
    }
}


/* What the last ids of a prompt say: the last mark, and if only white space
 * is behind it. */
typedef struct {
    uint32_t last; /* OPEN, CLOSE; MARKS: none */
    int clean;
} reason_tail_t;

static void
tail_bytes(const reason_t *r, stop_state_t at[2], const char *p, size_t len,
    reason_tail_t *t)
{
    size_t i, used;
    uint32_t k, match;

    for (i = 0; i < len; i++) {
        t->clean =
            t->clean
            && (p[i] == ' ' || p[i] == '\n' || p[i] == '\t' || p[i] == '\r');
        for (k = OPEN; k <= CLOSE; k++) {
            if (stop_feed(&r->marks[k], &at[k], p + i, 1, &used, &match)) {
                memset(&at[k], 0, sizeof(at[k]));
                t->last = k;
                t->clean = 1;
            }
        }
    }
}


void
reason_begin(const reason_t *r, const uint32_t *ids, size_t n, int go_on,
    reason_state_t *st)
{
    reason_tail_t t = {MARKS, 0};
    stop_state_t at[2];
    size_t from = n, i, len;
    const char *p;

    memset(st, 0, sizeof(*st));
    if (r->harmony) {
        begin_harmony(r, ids, n, st);
        return;
    }

    /* a turn is behind a control token, which has no bytes */
    while (from > 0 && (go_on || n - from < TAIL_IDS)) {
        (void) token_bytes(r->tok, ids[from - 1], &len);
        if (len == 0 && ids[from - 1] != r->ids[OPEN]
            && ids[from - 1] != r->ids[CLOSE]) {
            break;
        }
        from--;
    }

    memset(at, 0, sizeof(at));
    for (i = from; i < n; i++) {
        if (ids[i] == r->ids[OPEN] || ids[i] == r->ids[CLOSE]) {
            t.last = ids[i] == r->ids[OPEN] ? OPEN : CLOSE;
            t.clean = 1;
            memset(at, 0, sizeof(at));
            continue;
        }
        p = token_bytes(r->tok, ids[i], &len);
        tail_bytes(r, at, p, len, &t);
    }

    if (t.last == OPEN && (go_on || t.clean)) {
        st->state = INSIDE;
        st->lead = t.clean != 0;
        st->again = 1;
    } else if (!go_on && !(t.last == CLOSE && t.clean)) {
        st->state = MAYBE;
    }
}


/* --- counting ----------------------------------------------------------- */

uint32_t
reason_counts(const reason_state_t *st)
{
    return st->state;
}


uint32_t
reason_count(reason_state_t *st, uint32_t was)
{
    uint32_t n;

    if (was == INSIDE) {
        st->entered = st->maybe = 0;
        return 1;
    }

    st->maybe++;
    n = st->entered ? st->maybe : 0;
    if (st->entered || (st->state != MAYBE && st->state != HEAD)) {
        st->maybe = 0;
    }
    st->entered = 0;

    return n;
}
