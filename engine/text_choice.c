/*
 * The way of one choice's tokens to its client: see text_choice.h.
 *
 * DESIGN.  Stages, each of which may keep the end of the stream back:
 *
 *      token ─> stop strings ─> thought ─> calls ─> characters ─> text ─┐
 *        │      keep what may   keeps the  keep     keep half           ├─> out
 *        │      begin one       same of    what may of one              │
 *        │                      a mark     be one                       │
 *        └─> held entries ─────────────────────────────> groups ────────┘
 *
 * The first two store no text: what they hold is the beginning of a string
 * that is known; calls are in memory of the request's own (tools.c), and the
 * last holds three bytes at most.  The second (reason.c) is there if thought
 * is to be told from the answer, the third if calls are; then the text is
 * stretches of one kind and another, and a record has text of one.
 *
 * A mark that is a control token ends what a stop string could match: what is
 * held for one goes on, and the stop strings begin anew behind it.
 *
 * A logprob entry is made when all its token's text is out, so that both
 * travel together; until then only numbers are kept.  It does not wait for what
 * a call holds back: a call's text is not its tokens' any more.  A group is an
 * entry with its tops and says how much text goes with it:
 *
 *      text    | Once | upon | a t |ime..     front: taken of the first one
 *      groups  (5, e) (5, e) (2, e)           behind: 3 ("ime")
 *
 * Positions count the bytes of all tokens from the beginning of the choice, so
 * it does not matter that a replaced byte became three.
 *
 * Invariants: text is whole, valid UTF-8 at every moment, and so is each
 * group's share of it.  All memory is chunks of one pool; text_out's thread
 * alone runs this.
 */
#include "text_choice.h"

#include <assert.h>
#include <string.h>

#define BLOCK 256 /* bytes that go through the character stage at once */

/* Payload that fits into one record whatever the padding between. */
#define ROOM (LLM_TOKENS_MAX - (uint32_t) sizeof(llm_wire_tokens_t) - 3)

/*
 * Entries that may be held: one for each byte of a stop string, of a mark and
 * of an unfinished character, and as many for tokens without text between them.
 * Beyond that somebody makes the model say nothing on purpose: what is held
 * is not counted as sent, so credit would not stop it.
 */
#define HELD_MAX (2 * (LLM_STOP_LEN_MAX + REASON_HELD_MAX + 4))

/* A held entry; its tops follow as text_top_t. */
typedef struct {
    uint64_t start, end; /* place of its bytes in the choice */
    uint32_t token;
    float logprob;
    uint32_t tops;
    uint32_t strip; /* its leading space was not the text's own */
} text_lp_t;

typedef struct {
    uint32_t token;
    float logprob;
} text_top_t;

/* A stretch of text of one kind. */
typedef struct {
    size_t bytes;
    uint32_t kind;
} text_kind_t;

/* An entry ready to go; its lp bytes follow. */
typedef struct {
    uint32_t text; /* bytes of text that go with it */
    uint32_t lp;
} text_group_t;

#define LP_MAX                                                                 \
    ((SAMPLE_TOPS_MAX + 1)                                                     \
        * ((uint32_t) sizeof(llm_wire_lp_t) + TEXT_LP_BYTES_MAX))

_Static_assert(TEXT_LP_BYTES_MAX % 4 == 0, "padded entries stay below LP_MAX");
_Static_assert(LP_MAX <= ROOM, "an entry fits into a record");
_Static_assert(SAMPLE_TOPS_MAX <= LLM_TOP_LOGPROBS_MAX, "tops fit");


/* --- logprob entries ---------------------------------------------------- */

/* Writes one entry without its tops to dst and returns its length. */
static uint32_t
lp_write(const token_t *tok, uint8_t *dst, uint32_t token, float logprob,
    uint32_t tops, uint32_t strip)
{
    llm_wire_lp_t e;
    const char *p;
    size_t len;
    uint32_t n;

    p = token_bytes(tok, token, &len);
    if (strip && len > 0 && p[0] == ' ') {
        p++;
        len--;
    }
    n = len < TEXT_LP_BYTES_MAX ? (uint32_t) len : TEXT_LP_BYTES_MAX;

    e.token = token;
    e.logprob = logprob;
    e.len = (uint16_t) n;
    e.top = (uint16_t) tops;
    memcpy(dst, &e, sizeof(e));
    memset(dst + sizeof(e), 0, (n + 3) & ~3u);
    memcpy(dst + sizeof(e), p, n);

    return (uint32_t) sizeof(e) + ((n + 3) & ~3u);
}


static int
lp_hold(text_shared_t *sh, text_choice_t *c, const sample_out_t *s, size_t len,
    uint32_t strip)
{
    struct {
        text_lp_t lp;
        text_top_t tops[SAMPLE_TOPS_MAX];
    } e;
    uint32_t i;

    if (c->held.len >= HELD_MAX * sizeof(e)) {
        return -1;
    }

    memset(&e.lp, 0, sizeof(e.lp));
    e.lp.start = c->fed;
    e.lp.end = c->fed + len;
    e.lp.token = s->token;
    e.lp.logprob = s->logprob;
    e.lp.tops = s->tops_n < SAMPLE_TOPS_MAX ? s->tops_n : SAMPLE_TOPS_MAX;
    e.lp.strip = strip;

    for (i = 0; i < e.lp.tops; i++) {
        e.tops[i].token = s->top_ids[i];
        e.tops[i].logprob = s->top_logprobs[i];
    }

    return fifo_put(
        &sh->pool, &c->held, &e, sizeof(e.lp) + e.lp.tops * sizeof(e.tops[0]));
}


/*
 * Makes groups of the held entries whose bytes end at or before end, or, with
 * cut, begin before it.
 */
static int
lp_release(
    text_shared_t *sh, text_choice_t *c, uint64_t end, int cut, uint64_t *sent)
{
    uint8_t buf[sizeof(text_group_t) + LP_MAX];
    text_group_t g;
    text_lp_t lp;
    text_top_t top;
    uint32_t i, n;

    while (c->held.len > 0) {
        fifo_copy(&sh->pool, &c->held, 0, &lp, sizeof(lp));
        if (cut ? lp.start >= end : lp.end > end) {
            break;
        }
        assert(lp.tops <= SAMPLE_TOPS_MAX);
        fifo_drop(&sh->pool, &c->held, sizeof(lp));

        n = sizeof(g);
        n +=
            lp_write(sh->tok, buf + n, lp.token, lp.logprob, lp.tops, lp.strip);
        for (i = 0; i < lp.tops; i++) {
            fifo_copy(&sh->pool, &c->held, 0, &top, sizeof(top));
            fifo_drop(&sh->pool, &c->held, sizeof(top));
            n +=
                lp_write(sh->tok, buf + n, top.token, top.logprob, 0, lp.strip);
        }

        assert(n <= sizeof(buf) && c->behind <= UINT32_MAX);
        g.text = (uint32_t) c->behind;
        g.lp = n - (uint32_t) sizeof(g);
        memcpy(buf, &g, sizeof(g));
        if (fifo_put(&sh->pool, &c->groups, buf, n) != 0) {
            return -1;
        }
        c->behind = 0;
        *sent += g.lp;
    }

    return 0;
}


/* --- text --------------------------------------------------------------- */

/* Whole characters, ready to be posted. */
static int
text_put(text_shared_t *sh, text_choice_t *c, const char *p, size_t n,
    uint64_t *sent)
{
    if (n > 0 && fifo_put(&sh->pool, &c->text, p, n) != 0) {
        return -1;
    }
    c->last += n;
    c->behind += n;
    *sent += n;

    return 0;
}


/* From here on the text is of another kind. */
static int
text_turn(text_shared_t *sh, text_choice_t *c, uint32_t kind, uint64_t *sent)
{
    char buf[UTF8_TAIL_MAX];
    text_kind_t k;

    /* half a character stays what it was */
    if (text_put(sh, c, buf, utf8_end(&c->utf8, buf), sent) != 0) {
        return -1;
    }

    if (c->last > 0) {
        memset(&k, 0, sizeof(k));
        k.bytes = c->last;
        k.kind = c->kind;
        if (fifo_put(&sh->pool, &c->kinds, &k, sizeof(k)) != 0) {
            return -1;
        }
    }
    c->kind = kind;
    c->last = 0;

    return 0;
}


/* What reason_put_t is given to pass on. */
typedef struct {
    text_shared_t *sh;
    text_choice_t *c;
    uint64_t *sent;
} text_to_t;

/* Bytes that are known to be of a kind. */
static int
text_of(void *arg, uint32_t kind, const char *p, size_t n)
{
    const text_to_t *to = arg;
    char buf[UTF8_OUT_MAX(BLOCK)];
    size_t part;

    if (kind != to->c->kind && text_turn(to->sh, to->c, kind, to->sent) != 0) {
        return -1;
    }

    for (; n > 0; p += part, n -= part) {
        part = n < BLOCK ? n : BLOCK;
        if (text_put(to->sh, to->c, buf, utf8_feed(&to->c->utf8, p, part, buf),
                to->sent)
            != 0) {
            return -1;
        }
    }

    return 0;
}


/* The same, as it comes from where thought is told apart. */
static int
text_said(void *arg, uint32_t kind, const char *p, size_t n)
{
    const text_to_t *to = arg;

    if (to->c->tools != NULL && kind == LLM_TEXT_ANSWER) {
        return tools_feed(to->c->tools, to->c->number, p, n, 0, text_of, arg);
    }

    return text_of(arg, kind, p, n);
}


/* Bytes that no stop string can claim any more. */
static int
text_release(text_shared_t *sh, text_choice_t *c, const char *p, size_t n,
    uint64_t *sent)
{
    text_to_t to = {sh, c, sent};

    if (c->apart) {
        return reason_feed(sh->reason, &c->reason, p, n, text_said, &to);
    }

    return text_said(&to, LLM_TEXT_ANSWER, p, n);
}


/*
 * The choice is over: text up to position cut is all there is.  What the
 * stages still hold of it comes out, what lies behind is forgotten.
 */
static int
text_end(text_shared_t *sh, text_choice_t *c, uint64_t cut, uint32_t finish,
    uint64_t *sent)
{
    char buf[UTF8_TAIL_MAX];
    text_to_t to = {sh, c, sent};

    assert(c->finish == LLM_FINISH_NONE && finish < LLM_FINISHES);

    if (c->apart && reason_end(sh->reason, &c->reason, text_said, &to) != 0) {
        return -1;
    }
    if (c->tools != NULL) {
        if (tools_end(c->tools, c->number, text_of, &to) != 0) {
            return -1;
        }
        if (finish == LLM_FINISH_STOP && tools_called(c->tools, c->number)) {
            finish = LLM_FINISH_CALLS;
        }
    }

    if (text_put(sh, c, buf, utf8_end(&c->utf8, buf), sent) != 0
        || lp_release(sh, c, cut, 1, sent) != 0) {
        return -1;
    }

    fifo_clear(&sh->pool, &c->held);
    c->finish = finish;

    return 0;
}


/* Entries of what is out go out.  stop: bytes held for a stop string. */
static int
text_settle(text_shared_t *sh, text_choice_t *c, size_t stop, uint64_t *sent)
{
    size_t held = stop + c->utf8.n;

    if (c->apart) {
        held += reason_held(sh->reason, &c->reason);
    }

    return lp_release(sh, c, held < c->fed ? c->fed - held : 0, 0, sent);
}


/*
 * Feeds a token's bytes.  Returns as text_choice_token; after 1 the choice has
 * ended.
 */
static int
text_feed(text_shared_t *sh, text_choice_t *c, const stop_t *stops,
    const char *p, size_t len, uint64_t *sent)
{
    const char *before, *after;
    size_t held, used = len, out, part;
    uint32_t match = 0, kept;
    int stopped;

    held = stop_held(stops, &c->stop, &before);
    stopped = stop_feed(stops, &c->stop, p, len, &used, &match);
    kept = stopped ? match : stop_held(stops, &c->stop, &after);

    /* of what was held and what was read, all but the end goes on */
    assert(kept <= held + used);
    out = held + used - kept;
    part = out < held ? out : held;

    if (text_release(sh, c, before, part, sent) != 0
        || text_release(sh, c, p, out - part, sent) != 0) {
        return -1;
    }

    /* a call ends the text with the token that it ends in */
    if (!stopped && c->tools != NULL && tools_over(c->tools, c->number)) {
        stopped = 1;
        match = 0;
    }
    if (stopped) {
        return text_end(sh, c, c->fed + used - match, LLM_FINISH_STOP, sent)
                       == 0
                   ? 1
                   : -1;
    }

    c->fed += len;

    return text_settle(sh, c, kept, sent);
}


/* A token that is a mark: what is held before it is not its beginning. */
static int
text_mark(text_shared_t *sh, text_choice_t *c, const stop_t *stops, uint32_t id,
    uint64_t *sent)
{
    text_to_t to = {sh, c, sent};
    const char *p;
    size_t held = stop_held(stops, &c->stop, &p);

    if (text_release(sh, c, p, held, sent) != 0) {
        return -1;
    }
    memset(&c->stop, 0, sizeof(c->stop));

    return reason_mark(sh->reason, &c->reason, id, text_said, &to);
}


/* A token without text that is a part of a call: what it is called is fed,
 * past stop strings, which are the client's and know nothing of marks. */
static int
text_call_mark(text_shared_t *sh, text_choice_t *c, const stop_t *stops,
    uint32_t id, uint64_t *sent)
{
    text_to_t to = {sh, c, sent};
    const char *p, *mark;
    size_t held, len;

    if (!tools_mark(tools_family(c->tools), id, &mark, &len)
        || (c->apart && reason_thinks(&c->reason))) {
        return 0;
    }

    held = stop_held(stops, &c->stop, &p);
    if (text_release(sh, c, p, held, sent) != 0) {
        return -1;
    }
    memset(&c->stop, 0, sizeof(c->stop));

    /* what may have begun a thought did not */
    if (c->apart && reason_end(sh->reason, &c->reason, text_said, &to) != 0) {
        return -1;
    }

    return tools_feed(c->tools, c->number, mark, len, 1, text_of, &to);
}


/* The text of a token, by way of the stages.  As text_choice_token. */
static int
text_token(text_shared_t *sh, text_choice_t *c, const stop_t *stops,
    uint32_t id, const char *p, size_t len, uint64_t *sent)
{
    uint32_t was;
    int rc;

    if (c->tools != NULL && text_call_mark(sh, c, stops, id, sent) != 0) {
        return -1;
    }
    if (!c->apart) {
        return text_feed(sh, c, stops, p, len, sent);
    }

    was = reason_counts(&c->reason);
    if (reason_is_mark(sh->reason, &c->reason, id)
        && text_mark(sh, c, stops, id, sent) != 0) {
        return -1;
    }

    /* a header is no text, in which a stop string could be */
    if (reason_in_head(&c->reason)) {
        c->fed += len;
        rc = text_release(sh, c, p, len, sent);
        rc = rc == 0 ? text_settle(sh, c, 0, sent) : rc;
    } else {
        rc = text_feed(sh, c, stops, p, len, sent);
    }
    c->thought += reason_count(&c->reason, was);

    return rc;
}


int
text_choice_token(text_shared_t *sh, text_choice_t *c, const stop_t *stops,
    const sample_out_t *token, uint32_t finish, uint64_t *sent)
{
    const char *p;
    size_t len;
    uint32_t strip, held;
    int rc;

    assert(c->finish == LLM_FINISH_NONE && !c->closed);

    if (token != NULL) {
        p = token_bytes(sh->tok, token->token, &len);
        strip = c->strip && len > 0 && p[0] == ' ';
        c->strip = c->strip && len == 0;
        p += strip;
        len -= strip;

        c->tokens++;
        if (c->logprobs && lp_hold(sh, c, token, len, strip) != 0) {
            return -1;
        }
        rc = text_token(sh, c, stops, token->token, p, len, sent);
        if (rc != 0) {
            return rc;
        }
    }

    if (finish == LLM_FINISH_NONE) {
        return 0;
    }

    /* what may have begun a stop string did not */
    held = stop_held(stops, &c->stop, &p);
    if (text_release(sh, c, p, held, sent) != 0) {
        return -1;
    }

    return text_end(sh, c, UINT64_MAX, finish, sent);
}


int
text_choice_prompt(text_shared_t *sh, text_choice_t *c,
    const sample_out_t *token, int echo, int last, uint64_t *sent)
{
    text_to_t to = {sh, c, sent};
    char buf[UTF8_TAIL_MAX];
    size_t len = 0;
    uint32_t strip;
    const char *p;

    assert(c->finish == LLM_FINISH_NONE && c->tokens == 0);

    p = token_bytes(sh->tok, token->token, &len);
    strip = c->strip && len > 0 && p[0] == ' ';
    c->strip = c->strip && len == 0;
    p += strip;
    len = echo ? len - strip : 0;

    c->prompt++;
    if (lp_hold(sh, c, token, len, strip) != 0
        || text_of(&to, LLM_TEXT_ANSWER, p, len) != 0) {
        return -1;
    }
    c->fed += len;

    if (last && text_put(sh, c, buf, utf8_end(&c->utf8, buf), sent) != 0) {
        return -1;
    }

    return lp_release(sh, c, c->fed - c->utf8.n, 0, sent);
}


/* --- records ------------------------------------------------------------ */

/* At most n bytes of text from offset at that end with a character. */
static uint32_t
text_whole(const text_shared_t *sh, const text_choice_t *c, size_t at, size_t n)
{
    uint8_t b;

    assert(at + n <= c->text.len);

    if (at + n == c->text.len) {
        return (uint32_t) n;
    }

    for (; n > 0; n--) {
        fifo_copy(&sh->pool, &c->text, at + n, &b, 1);
        if ((b & 0xc0) != 0x80) {
            break;
        }
    }

    return (uint32_t) n;
}


/* The first stretch of the text; returns its bytes. */
static size_t
text_first(const text_shared_t *sh, const text_choice_t *c, uint32_t *kind)
{
    text_kind_t k = {c->last, c->kind};

    if (c->kinds.len > 0) {
        fifo_copy(&sh->pool, &c->kinds, 0, &k, sizeof(k));
    }
    assert(k.bytes >= c->gone);
    *kind = k.kind;

    return k.bytes - c->gone;
}


int
text_choice_plan(
    const text_shared_t *sh, const text_choice_t *c, text_cut_t *cut)
{
    text_group_t g;
    uint32_t front = c->front, need = 0;
    size_t at = 0, rest, most;

    memset(cut, 0, sizeof(*cut));
    if (c->closed) {
        return 0;
    }

    most = text_first(sh, c, &cut->kind);

    while (at < c->groups.len) {
        fifo_copy(&sh->pool, &c->groups, at, &g, sizeof(g));
        assert(g.text >= front);
        need = g.text - front;
        if ((uint64_t) cut->text + cut->lp + need + g.lp > ROOM
            || (uint64_t) cut->text + need > most) {
            break;
        }
        cut->text += need;
        cut->lp += g.lp;
        cut->groups++;
        at += sizeof(g) + g.lp;
        front = 0;
    }

    if (at == c->groups.len) {
        rest = ROOM - cut->text - cut->lp;
        rest = rest < c->behind ? rest : c->behind;
        rest = rest < most - cut->text ? rest : most - cut->text;
        cut->text += text_whole(sh, c, cut->text, rest);
    } else if (cut->groups == 0) {
        /* the text alone is too long for its entry to come along */
        rest = need < ROOM ? need : ROOM;
        cut->text = text_whole(sh, c, 0, rest < most ? rest : most);
    }

    if (at == c->groups.len && cut->text == c->text.len) {
        cut->finish = c->finish;
    }

    cut->kind = cut->text > 0 ? cut->kind : LLM_TEXT_ANSWER;
    if (cut->kind != LLM_TEXT_ANSWER || c->thought > 0 || c->prompt > 0) {
        cut->tail = LLM_TOKENS_TAIL;
    }

    return cut->text > 0 || cut->lp > 0 || cut->finish != LLM_FINISH_NONE;
}


uint32_t
text_choice_len(const text_cut_t *cut)
{
    return LLM_TOKENS_HEAD + ((cut->text + 3) & ~3u) + cut->lp + cut->tail;
}


/* Text of the first stretch has gone. */
static void
text_gone(text_shared_t *sh, text_choice_t *c, size_t n)
{
    text_kind_t k;

    c->gone += n;

    if (c->kinds.len == 0) {
        assert(c->gone <= c->last);
        c->last -= c->gone;
        c->gone = 0;
        return;
    }

    fifo_copy(&sh->pool, &c->kinds, 0, &k, sizeof(k));
    assert(c->gone <= k.bytes);
    if (c->gone == k.bytes) {
        fifo_drop(&sh->pool, &c->kinds, sizeof(k));
        c->gone = 0;
    }
}


void
text_choice_take(text_shared_t *sh, text_choice_t *c, const text_cut_t *cut,
    llm_wire_tokens_t *head, uint8_t *body)
{
    uint32_t i, pad = (4 - (cut->text & 3)) & 3, grouped = 0;
    text_group_t g;

    assert(text_choice_len(cut) <= LLM_TOKENS_MAX);

    memset(head, 0, sizeof(*head));
    head->hdr.len = text_choice_len(cut);
    head->hdr.type = LLM_REC_TOKENS;
    head->finish = cut->finish;
    head->tokens = c->tokens;
    head->text_len = cut->text;
    head->lp_len = cut->lp;
    head->kind = cut->kind;
    head->reasoning = c->thought;
    head->prompt = cut->groups < c->prompt ? cut->groups : c->prompt;
    c->prompt -= head->prompt;

    text_gone(sh, c, cut->text);
    fifo_copy(&sh->pool, &c->text, 0, body, cut->text);
    fifo_drop(&sh->pool, &c->text, cut->text);
    memset(body + cut->text, 0, pad);
    body += cut->text + pad;

    for (i = 0; i < cut->groups; i++) {
        fifo_copy(&sh->pool, &c->groups, 0, &g, sizeof(g));
        fifo_copy(&sh->pool, &c->groups, sizeof(g), body, g.lp);
        fifo_drop(&sh->pool, &c->groups, sizeof(g) + g.lp);
        body += g.lp;
        grouped += g.text - c->front;
        c->front = 0;
    }
    memcpy(body, &head->kind, cut->tail);

    /* text beyond the groups is the next group's, or nobody's */
    assert(grouped <= cut->text);
    if (c->groups.len > 0) {
        c->front += cut->text - grouped;
    } else {
        assert(cut->text - grouped <= c->behind);
        c->behind -= cut->text - grouped;
    }

    c->tokens = c->thought = 0;
    c->closed = cut->finish != LLM_FINISH_NONE;
}


void
text_choice_clear(text_shared_t *sh, text_choice_t *c)
{
    fifo_clear(&sh->pool, &c->held);
    fifo_clear(&sh->pool, &c->text);
    fifo_clear(&sh->pool, &c->groups);
    fifo_clear(&sh->pool, &c->kinds);
    memset(c, 0, sizeof(*c));
}
