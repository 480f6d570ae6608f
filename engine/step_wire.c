/*
 * Steps as bytes, for ranks in other processes.
 *
 * DESIGN.  A rank in another process computes its part of each step, and needs
 * of it what its operations read: tokens, rows, blocks, and which positions
 * have logits.  It samples nothing: rank 0 does, and late tokens are in the
 * step as rank 0 knows them when it begins.  So a message is the step block
 * (kernels.h), not the batch, and none of what a request wants is in it.
 *
 *      STEP   type, tokens_n, rows_n, outs_n, blocks_n
 *             tokens [tokens_n]; q_start, q_len [rows_n]; blocks [blocks_n];
 *             tok [outs_n]
 *      COPY   type, in, n, 0, 0;  from [n];  to [n]
 *      END    type, 0, 0, 0, 0
 *
 * All are words of 32 bits, little endian whatever the machine; the type has
 * the version above its lowest byte.  What follows from other numbers is not
 * there and so cannot be wrong: where a row's tokens and blocks begin, how
 * many blocks it has of each group, where in its sequence an output is.
 *
 * Whoever sends has shown that he knows the secret (join.c), but he is another
 * process: each number is checked with `if` before it is used, and what he
 * says must be all of the message's bytes.  Nothing is allocated after open.
 *
 * Pure; any thread, one at a time for each step_wire_t.
 */
#include "step_wire.h"
#include "mem.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define HEAD 5 /* words that each message begins with */

/* Words that are left of a message. */
typedef struct {
    const uint8_t *p;
    size_t n;
} words_t;


static uint8_t *
put(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t) v;
    p[1] = (uint8_t) (v >> 8);
    p[2] = (uint8_t) (v >> 16);
    p[3] = (uint8_t) (v >> 24);

    return p + 4;
}


static uint32_t
get(words_t *w)
{
    const uint8_t *p = w->p;

    assert(w->n > 0); /* counted before */
    w->p += 4;
    w->n--;

    return (uint32_t) p[0] | (uint32_t) p[1] << 8 | (uint32_t) p[2] << 16
           | (uint32_t) p[3] << 24;
}


static uint8_t *
put_head(uint8_t *p, step_wire_type_t type, const uint32_t v[HEAD - 1])
{
    uint32_t i;

    p = put(p, (uint32_t) type | STEP_WIRE_VERSION << 8);
    for (i = 0; i < HEAD - 1; i++) {
        p = put(p, v[i]);
    }

    return p;
}


size_t
step_wire_bytes(const step_wire_limits_t *l)
{
    size_t step =
               (size_t) l->tokens + 2 * (size_t) l->rows + l->blocks + l->outs,
           copy = 2 * STEP_WIRE_COPIES;

    return 4 * (HEAD + (step > copy ? step : copy));
}


uint32_t
step_wire_first(const step_wire_limits_t *l, uint32_t group, uint32_t q_start)
{
    uint32_t window = l->window[group];

    assert(group < l->groups && l->block_tokens > 0);

    return window > 0 && q_start >= window
               ? (q_start - window + 1) / l->block_tokens
               : 0;
}


/* Its number of blocks up to position kv_len. */
static uint32_t
blocks_to(const step_wire_limits_t *l, uint32_t kv_len)
{
    return (kv_len + l->block_tokens - 1) / l->block_tokens;
}


/* --- writing ------------------------------------------------------------ */

/* Asserts that row i is as the other side will make it out. */
static void
check_row(const step_wire_limits_t *l, const kn_step_t *s, uint32_t i,
    uint32_t tok, uint32_t *at)
{
    const kn_row_t *r = &s->rows[i];
    uint32_t g;

    assert(r->tok == tok && r->q_len >= 1 && r->q_len <= s->tokens_n - tok);
    assert(r->q_start <= l->context && r->q_len <= l->context - r->q_start);

    for (g = 0; g < l->groups; g++) {
        assert(r->blocks[g].at == *at);
        assert(r->blocks[g].first == step_wire_first(l, g, r->q_start));
        assert(r->blocks[g].first + r->blocks[g].n
               == blocks_to(l, r->q_start + r->q_len));
        *at += r->blocks[g].n;
    }
}


size_t
step_wire_step(uint8_t *start, const step_wire_limits_t *l, const kn_step_t *s)
{
    const uint32_t n[HEAD - 1] = {
        s->tokens_n, s->rows_n, s->outs_n, s->blocks_n};
    uint8_t *p = put_head(start, STEP_WIRE_STEP, n);
    uint32_t i, tok = 0, at = 0;

    assert(s->tokens_n >= 1 && s->tokens_n <= l->tokens);
    assert(s->rows_n >= 1 && s->rows_n <= l->rows && s->outs_n <= l->outs);
    assert(s->blocks_n <= l->blocks);

    for (i = 0; i < s->tokens_n; i++) {
        p = put(p, s->tokens[i]);
    }
    for (i = 0; i < s->rows_n; i++) {
        check_row(l, s, i, tok, &at);
        p = put(put(p, s->rows[i].q_start), s->rows[i].q_len);
        tok += s->rows[i].q_len;
    }
    assert(tok == s->tokens_n && at == s->blocks_n);

    for (i = 0; i < s->blocks_n; i++) {
        p = put(p, s->blocks[i]);
    }
    for (i = 0; i < s->outs_n; i++) {
        p = put(p, s->outs[i].tok);
    }
    assert((size_t) (p - start) <= step_wire_bytes(l));

    return (size_t) (p - start);
}


size_t
step_wire_copy(uint8_t *start, const step_wire_limits_t *l, int in,
    const uint32_t *from, const uint32_t *to, uint32_t n)
{
    const uint32_t head[HEAD - 1] = {in != 0, n, 0, 0};
    uint8_t *p = put_head(start, STEP_WIRE_COPY, head);
    uint32_t i;

    assert(n >= 1 && n <= STEP_WIRE_COPIES);
    assert(n <= (in ? l->pool : l->host)); /* none is in to twice */

    for (i = 0; i < n; i++) {
        p = put(p, from[i]);
    }
    for (i = 0; i < n; i++) {
        p = put(p, to[i]);
    }

    return (size_t) (p - start);
}


size_t
step_wire_end(uint8_t *start)
{
    const uint32_t head[HEAD - 1] = {0, 0, 0, 0};

    return (size_t) (put_head(start, STEP_WIRE_END, head) - start);
}


/* --- reading ------------------------------------------------------------ */

int
step_wire_open(step_wire_t *w, const step_wire_limits_t *l)
{
    assert(l->groups >= 1 && l->groups <= KN_GROUPS && l->block_tokens > 0);
    assert(l->tokens > 0 && l->rows > 0 && l->context <= UINT32_MAX / 2);

    memset(w, 0, sizeof(*w));
    w->limits = *l;
    w->tokens = mem_zero(l->tokens, sizeof(*w->tokens));
    w->rows = mem_zero(l->rows, sizeof(*w->rows));
    w->blocks = mem_zero((size_t) l->blocks + 1, sizeof(*w->blocks));
    w->outs = mem_zero((size_t) l->outs + 1, sizeof(*w->outs));
    w->from = mem_zero(STEP_WIRE_COPIES, sizeof(*w->from));
    w->to = mem_zero(STEP_WIRE_COPIES, sizeof(*w->to));

    if (w->tokens == NULL || w->rows == NULL || w->blocks == NULL
        || w->outs == NULL || w->from == NULL || w->to == NULL) {
        step_wire_close(w);
        return -1;
    }

    w->step.tokens = w->tokens;
    w->step.rows = w->rows;
    w->step.blocks = w->blocks;
    w->step.outs = w->outs;

    return 0;
}


void
step_wire_close(step_wire_t *w)
{
    mem_free(w->tokens);
    mem_free(w->rows);
    mem_free(w->blocks);
    mem_free(w->outs);
    mem_free(w->from);
    mem_free(w->to);
    memset(w, 0, sizeof(*w));
}


/* n words below limit; -1 if one is not. */
static int
get_ids(words_t *m, uint32_t *ids, uint32_t n, uint32_t limit)
{
    uint32_t i, most = 0;

    for (i = 0; i < n; i++) {
        ids[i] = get(m);
        most = ids[i] > most ? ids[i] : most;
    }

    return n > 0 && most >= limit ? -1 : 0;
}


/* Rows, and where their tokens and blocks are: all of them, none twice. */
static int
get_rows(step_wire_t *w, words_t *m)
{
    const step_wire_limits_t *l = &w->limits;
    uint32_t i, g, end, tok = 0, at = 0;
    kn_row_t *r;

    for (i = 0; i < w->step.rows_n; i++) {
        r = &w->rows[i];
        r->q_start = get(m);
        r->q_len = get(m);
        r->tok = tok;
        if (r->q_len < 1 || r->q_len > w->step.tokens_n - tok
            || r->q_start > l->context || r->q_len > l->context - r->q_start) {
            return -1;
        }
        tok += r->q_len;

        end = blocks_to(l, r->q_start + r->q_len);
        for (g = 0; g < l->groups; g++) {
            r->blocks[g].at = at;
            r->blocks[g].first = step_wire_first(l, g, r->q_start);
            r->blocks[g].n = end - r->blocks[g].first;
            if (r->blocks[g].n > w->step.blocks_n - at) {
                return -1;
            }
            at += r->blocks[g].n;
        }
    }

    return tok == w->step.tokens_n && at == w->step.blocks_n ? 0 : -1;
}


/* Outputs, in the order of their tokens, and so of rows. */
static int
get_outs(step_wire_t *w, words_t *m)
{
    uint32_t i, row = 0, tok = 0;
    const kn_row_t *r;
    kn_out_t *out;

    for (i = 0; i < w->step.outs_n; i++) {
        out = &w->outs[i];
        memset(out, 0, sizeof(*out));
        out->tok = get(m);
        if (out->tok < tok || out->tok >= w->step.tokens_n) {
            return -1;
        }
        tok = out->tok;

        /* rows cover the tokens: it is found before they end */
        while (tok - w->rows[row].tok >= w->rows[row].q_len) {
            row++;
        }
        assert(row < w->step.rows_n);
        r = &w->rows[row];
        out->pos = r->q_start + (tok - r->tok);
    }

    return 0;
}


/* NULL, or what of a step is wrong. */
static const char *
get_step(step_wire_t *w, words_t *m, const uint32_t n[HEAD - 1])
{
    const step_wire_limits_t *l = &w->limits;
    kn_step_t *s = &w->step;

    if (n[0] < 1 || n[0] > l->tokens || n[1] < 1 || n[1] > l->rows
        || n[2] > l->outs || n[3] > l->blocks) {
        return "counts";
    }
    /* each is small now: the sum does not wrap */
    if (m->n != (uint64_t) n[0] + 2 * (uint64_t) n[1] + n[2] + n[3]) {
        return "length";
    }

    s->tokens_n = n[0];
    s->rows_n = n[1];
    s->outs_n = n[2];
    s->blocks_n = n[3];

    return get_ids(m, w->tokens, s->tokens_n, l->vocab) != 0  ? "tokens"
           : get_rows(w, m) != 0                              ? "rows"
           : get_ids(m, w->blocks, s->blocks_n, l->pool) != 0 ? "blocks"
           : get_outs(w, m) != 0                              ? "outputs"
                                                              : NULL;
}


/* NULL, or what of a copy is wrong. */
static const char *
get_copy(step_wire_t *w, words_t *m, const uint32_t n[HEAD - 1])
{
    const step_wire_limits_t *l = &w->limits;

    if (n[0] > 1 || n[1] < 1 || n[1] > STEP_WIRE_COPIES
        || n[1] > (n[0] ? l->pool : l->host)) {
        return "counts";
    }
    if (m->n != 2 * (uint64_t) n[1] || n[2] != 0 || n[3] != 0) {
        return "length";
    }

    assert(n[0] <= 1 && n[1] <= STEP_WIRE_COPIES);
    w->in = n[0];
    w->n = n[1];

    return get_ids(m, w->from, w->n, w->in ? l->host : l->pool) != 0
                   || get_ids(m, w->to, w->n, w->in ? l->pool : l->host) != 0
               ? "blocks"
               : NULL;
}


/* NULL, or what of an end is wrong. */
static const char *
get_end(const words_t *m, const uint32_t n[HEAD - 1])
{
    return m->n > 0                           ? "length"
           : (n[0] | n[1] | n[2] | n[3]) != 0 ? "counts"
                                              : NULL;
}


int
step_wire_get(
    step_wire_t *w, const uint8_t *p, size_t size, char *err, size_t errlen)
{
    words_t m = {p, size / 4};
    uint32_t head[HEAD] = {0}, i, type;
    const char *wrong = "length";

    if (size % 4 == 0 && m.n >= HEAD) {
        for (i = 0; i < HEAD; i++) {
            head[i] = get(&m);
        }
        type = head[0] & 255;
        wrong = head[0] >> 8 != STEP_WIRE_VERSION ? "version"
                : type == STEP_WIRE_STEP          ? get_step(w, &m, head + 1)
                : type == STEP_WIRE_COPY          ? get_copy(w, &m, head + 1)
                : type == STEP_WIRE_END           ? get_end(&m, head + 1)
                                                  : "type";
        w->type = (step_wire_type_t) type;
    }
    if (wrong == NULL) {
        return 0;
    }

    snprintf(err, errlen, "the step is damaged: its %s cannot be", wrong);

    return -1;
}
