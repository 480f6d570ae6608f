/*
 * The way of one choice's tokens to its client: see text_choice.h.
 *
 * DESIGN.  Three stages, each of which may keep the end of the stream back:
 *
 *      token ─> stop strings ─> whole characters ─> text ─┐
 *        │      keeps what may    keeps an unfinished     ├─> TOKENS
 *        │      begin one         character               │
 *        └─> held entries ───────────────────> groups ────┘
 *
 * Only the last stage stores text: what the first holds is the beginning of a
 * stop string, so it is known, and the second holds three bytes at most.
 *
 * A logprob entry is made when all its token's text is out, so that both
 * travel together; until then only numbers are kept.  A group is an entry with
 * its tops and says how much text goes with it:
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
 * Entries that may be held: one for each byte of a stop string and of an
 * unfinished character, and as many for tokens without text between them.
 * Beyond that somebody makes the model say nothing on purpose: what is held
 * is not counted as sent, so credit would not stop it.
 */
#define HELD_MAX (2 * (LLM_STOP_LEN_MAX + 4))

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
    c->behind += n;
    *sent += n;

    return 0;
}


/* Bytes that no stop string can claim any more. */
static int
text_release(text_shared_t *sh, text_choice_t *c, const char *p, size_t n,
    uint64_t *sent)
{
    char buf[UTF8_OUT_MAX(BLOCK)];
    size_t part;

    for (; n > 0; p += part, n -= part) {
        part = n < BLOCK ? n : BLOCK;
        if (text_put(sh, c, buf, utf8_feed(&c->utf8, p, part, buf), sent)
            != 0) {
            return -1;
        }
    }

    return 0;
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

    assert(c->finish == LLM_FINISH_NONE && finish < LLM_FINISHES);

    if (text_put(sh, c, buf, utf8_end(&c->utf8, buf), sent) != 0
        || lp_release(sh, c, cut, 1, sent) != 0) {
        return -1;
    }

    fifo_clear(&sh->pool, &c->held);
    c->finish = finish;

    return 0;
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

    if (stopped) {
        return text_end(sh, c, c->fed + used - match, LLM_FINISH_STOP, sent)
                       == 0
                   ? 1
                   : -1;
    }

    c->fed += len;

    return lp_release(sh, c, c->fed - kept - c->utf8.n, 0, sent);
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
        rc = text_feed(sh, c, stops, p, len, sent);
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


int
text_choice_plan(
    const text_shared_t *sh, const text_choice_t *c, text_cut_t *cut)
{
    text_group_t g;
    uint32_t front = c->front, need = 0;
    size_t at = 0, rest;

    memset(cut, 0, sizeof(*cut));
    if (c->closed) {
        return 0;
    }

    while (at < c->groups.len) {
        fifo_copy(&sh->pool, &c->groups, at, &g, sizeof(g));
        assert(g.text >= front);
        need = g.text - front;
        if ((uint64_t) cut->text + cut->lp + need + g.lp > ROOM) {
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
        cut->text += text_whole(sh, c, cut->text, rest);
    } else if (cut->groups == 0) {
        /* the text alone is too long for its entry to come along */
        cut->text = text_whole(sh, c, 0, need < ROOM ? need : ROOM);
    }

    if (at == c->groups.len && cut->text == c->text.len) {
        cut->finish = c->finish;
    }

    return cut->text > 0 || cut->lp > 0 || cut->finish != LLM_FINISH_NONE;
}


uint32_t
text_choice_len(const text_cut_t *cut)
{
    return (uint32_t) sizeof(llm_wire_tokens_t) + ((cut->text + 3) & ~3u)
           + cut->lp;
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

    /* text beyond the groups is the next group's, or nobody's */
    assert(grouped <= cut->text);
    if (c->groups.len > 0) {
        c->front += cut->text - grouped;
    } else {
        assert(cut->text - grouped <= c->behind);
        c->behind -= cut->text - grouped;
    }

    c->tokens = 0;
    c->closed = cut->finish != LLM_FINISH_NONE;
}


void
text_choice_clear(text_shared_t *sh, text_choice_t *c)
{
    fifo_clear(&sh->pool, &c->held);
    fifo_clear(&sh->pool, &c->text);
    fifo_clear(&sh->pool, &c->groups);
    memset(c, 0, sizeof(*c));
}
