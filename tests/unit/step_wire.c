/*
 * Would catch: a step that another process computes otherwise than rank 0
 * meant it, and a message, cut, longer or with any number in it changed, that
 * leads operations outside of tokens, blocks or the cache.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "step_wire.h"

#include <stdlib.h>
#include <string.h>

#define LEAD 20 /* bytes before a message's arrays */

static const step_wire_limits_t limits = {.tokens = 64,
    .rows = 8,
    .outs = 16,
    .blocks = 200,
    .context = 256,
    .vocab = 1000,
    .pool = 50,
    .host = 20,
    .block_tokens = 16,
    .groups = 2,
    .window = {0, 32}};

/* A step with rows of all kinds; its arrays. */
typedef struct {
    kn_step_t s;
    uint32_t tokens[64], blocks[200];
    kn_row_t rows[8];
    kn_out_t outs[16];
} made_t;


static void
add_row(made_t *m, uint32_t q_start, uint32_t q_len, uint32_t outs)
{
    kn_row_t *r = &m->rows[m->s.rows_n++];
    uint32_t i, g, end = (q_start + q_len + 15) / 16;

    r->q_start = q_start;
    r->q_len = q_len;
    r->tok = m->s.tokens_n;
    for (g = 0; g < limits.groups; g++) {
        r->blocks[g].at = m->s.blocks_n;
        r->blocks[g].first =
            g == 1 && q_start >= 32 ? (q_start - 32 + 1) / 16 : 0;
        r->blocks[g].n = end - r->blocks[g].first;
        for (i = 0; i < r->blocks[g].n; i++) {
            m->blocks[m->s.blocks_n++] = (uint32_t) rand() % limits.pool;
        }
    }
    for (i = 0; i < q_len; i++) {
        m->tokens[m->s.tokens_n++] = (uint32_t) rand() % limits.vocab;
    }
    for (i = 0; i < outs; i++) {
        m->outs[m->s.outs_n].tok = m->s.tokens_n - outs + i;
        m->outs[m->s.outs_n++].pos = q_start + q_len - outs + i;
    }
}


static void
make(made_t *m)
{
    memset(m, 0, sizeof(*m));
    m->s.tokens = m->tokens;
    m->s.rows = m->rows;
    m->s.blocks = m->blocks;
    m->s.outs = m->outs;
    add_row(m, 0, 20, 3);
    add_row(m, 255, 1, 1);
    add_row(m, 31, 1, 0);
    add_row(m, 32, 17, 1);
    add_row(m, 100, 1, 1);
}


static void
check_same(const kn_step_t *a, const kn_step_t *b)
{
    uint32_t i, g;

    assert_int_equal(a->tokens_n, b->tokens_n);
    assert_int_equal(a->rows_n, b->rows_n);
    assert_int_equal(a->blocks_n, b->blocks_n);
    assert_int_equal(a->outs_n, b->outs_n);
    assert_memory_equal(a->tokens, b->tokens, a->tokens_n * sizeof(uint32_t));
    assert_memory_equal(a->blocks, b->blocks, a->blocks_n * sizeof(uint32_t));

    for (i = 0; i < a->rows_n; i++) {
        assert_int_equal(a->rows[i].q_start, b->rows[i].q_start);
        assert_int_equal(a->rows[i].q_len, b->rows[i].q_len);
        assert_int_equal(a->rows[i].tok, b->rows[i].tok);
        for (g = 0; g < limits.groups; g++) {
            assert_memory_equal(&a->rows[i].blocks[g], &b->rows[i].blocks[g],
                sizeof(kn_blocks_t));
        }
    }
    for (i = 0; i < a->outs_n; i++) {
        assert_int_equal(a->outs[i].tok, b->outs[i].tok);
        assert_int_equal(a->outs[i].pos, b->outs[i].pos);
        assert_null(b->outs[i].params);
        assert_null(b->outs[i].mask);
    }
}


static void
test_round_trip(void **state)
{
    uint8_t *p = malloc(step_wire_bytes(&limits));
    const uint32_t from[3] = {49, 0, 7}, to[3] = {1, 19, 0};
    char err[256];
    step_wire_t w;
    made_t m;
    size_t n;

    (void) state;
    assert_non_null(p);
    assert_int_equal(step_wire_open(&w, &limits), 0);

    make(&m);
    n = step_wire_step(p, &limits, &m.s);
    assert_int_equal(step_wire_get(&w, p, n, err, sizeof(err)), 0);
    assert_int_equal(w.type, STEP_WIRE_STEP);
    check_same(&m.s, &w.step);

    n = step_wire_copy(p, &limits, 0, from, to, 3);
    assert_int_equal(step_wire_get(&w, p, n, err, sizeof(err)), 0);
    assert_int_equal(w.type, STEP_WIRE_COPY);
    assert_int_equal(w.in, 0);
    assert_int_equal(w.n, 3);
    assert_memory_equal(w.from, from, sizeof(from));
    assert_memory_equal(w.to, to, sizeof(to));

    n = step_wire_copy(p, &limits, 1, to, from, 3);
    assert_int_equal(step_wire_get(&w, p, n, err, sizeof(err)), 0);
    assert_int_equal(w.in, 1);

    n = step_wire_end(p);
    assert_int_equal(step_wire_get(&w, p, n, err, sizeof(err)), 0);
    assert_int_equal(w.type, STEP_WIRE_END);

    step_wire_close(&w);
    free(p);
}


/* In memory of exactly its size, so that a sanitizer sees a byte too far. */
static int
get(step_wire_t *w, const uint8_t *p, size_t n)
{
    uint8_t *exact = malloc(n > 0 ? n : 1);
    char err[256] = "";
    int rc;

    assert_non_null(exact);
    memcpy(exact, p, n);
    rc = step_wire_get(w, exact, n, err, sizeof(err));
    assert_true((rc == 0) == (err[0] == '\0'));
    assert_null(strchr(err, '\n'));
    free(exact);

    return rc;
}


/* Is what was taken within limits, as operations rely on it? */
static void
check_sound(const step_wire_t *w)
{
    const kn_step_t *s = &w->step;
    uint32_t i, g, tok = 0, at = 0;
    const kn_row_t *r;

    assert_in_range(s->tokens_n, 1, limits.tokens);
    assert_in_range(s->rows_n, 1, limits.rows);
    assert_true(s->outs_n <= limits.outs && s->blocks_n <= limits.blocks);
    for (i = 0; i < s->tokens_n; i++) {
        assert_true(s->tokens[i] < limits.vocab);
    }
    for (i = 0; i < s->blocks_n; i++) {
        assert_true(s->blocks[i] < limits.pool);
    }
    for (i = 0; i < s->rows_n; i++) {
        r = &s->rows[i];
        assert_true(r->tok == tok && r->q_len >= 1);
        assert_true(r->q_start + r->q_len <= limits.context);
        tok += r->q_len;
        for (g = 0; g < limits.groups; g++) {
            assert_int_equal(r->blocks[g].at, at);
            assert_true((r->blocks[g].first + r->blocks[g].n) * 16
                        >= r->q_start + r->q_len);
            at += r->blocks[g].n;
        }
    }
    assert_true(tok == s->tokens_n && at == s->blocks_n);
    for (i = 0; i < s->outs_n; i++) {
        assert_true(s->outs[i].tok < s->tokens_n);
        assert_true(s->outs[i].pos < limits.context);
    }
}


static void
test_lies(void **state)
{
    static const uint32_t values[] = {0, 1, 2, 15, 17, 63, 64, 65, 255, 256,
        257, 1000, 0x7fffffff, 0x80000000, 0xfffffff0, UINT32_MAX};
    uint8_t *p = calloc(1, step_wire_bytes(&limits) + 4), was[4];
    size_t n, i, v;
    step_wire_t w;
    made_t m;

    (void) state;
    assert_non_null(p);
    assert_int_equal(step_wire_open(&w, &limits), 0);
    make(&m);
    n = step_wire_step(p, &limits, &m.s);

    /* cut at each byte, and a word longer */
    for (i = 0; i < n; i++) {
        assert_int_equal(get(&w, p, i), -1);
    }
    assert_int_equal(get(&w, p, n + 4), -1);
    assert_int_equal(get(&w, p, n), 0);

    /* each word another one: refused, or within limits all the same */
    for (i = 0; i < n; i += 4) {
        for (v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
            memcpy(was, p + i, 4);
            memcpy(p + i, &values[v], 4);
            if (memcmp(was, p + i, 4) != 0 && get(&w, p, n) == 0) {
                assert_true(w.type == STEP_WIRE_STEP && i >= LEAD);
                check_sound(&w);
            }
            memcpy(p + i, was, 4);
        }
    }

    /* the numbers that are nobody's */
    for (i = 0; i < m.s.tokens_n; i++) {
        memcpy(was, p + LEAD + 4 * i, 4);
        memcpy(p + LEAD + 4 * i, &limits.vocab, 4);
        assert_int_equal(get(&w, p, n), -1);
        memcpy(p + LEAD + 4 * i, was, 4);
    }
    for (i = 0; i < m.s.blocks_n; i++) {
        v = LEAD + 4 * (m.s.tokens_n + 2 * m.s.rows_n + i);
        memcpy(was, p + v, 4);
        memcpy(p + v, &limits.pool, 4);
        assert_int_equal(get(&w, p, n), -1);
        memcpy(p + v, was, 4);
    }
    assert_int_equal(get(&w, p, n), 0);

    step_wire_close(&w);
    free(p);
}


static void
test_lies_of_copies(void **state)
{
    uint8_t *p = calloc(1, step_wire_bytes(&limits));
    const uint32_t from[2] = {49, 3}, to[2] = {19, 4};
    uint32_t many = STEP_WIRE_COPIES + 1, two = 2, one = 1;
    step_wire_t w;
    size_t n;

    (void) state;
    assert_non_null(p);
    assert_int_equal(step_wire_open(&w, &limits), 0);
    n = step_wire_copy(p, &limits, 0, from, to, 2);
    assert_int_equal(get(&w, p, n), 0);
    assert_int_equal(get(&w, p, n - 4), -1);

    /* from the other arena: 49 is none of its blocks */
    memcpy(p + 4, &one, 4);
    assert_int_equal(get(&w, p, n), -1);
    memcpy(p + 4, &two, 4);
    assert_int_equal(get(&w, p, n), -1);
    n = step_wire_copy(p, &limits, 0, from, to, 2);
    memcpy(p + 8, &many, 4);
    assert_int_equal(get(&w, p, n), -1);
    n = step_wire_copy(p, &limits, 0, from, to, 2);
    many = limits.host + 1;
    memcpy(p + 8, &many, 4);
    assert_int_equal(get(&w, p, n), -1);
    n = step_wire_copy(p, &limits, 0, from, to, 2);
    memcpy(p + 12, &one, 4);
    assert_int_equal(get(&w, p, n), -1);

    /* a number more than the end has; another version; another type */
    n = step_wire_end(p);
    assert_int_equal(get(&w, p, n + 4), -1);
    p[16] = 1;
    assert_int_equal(get(&w, p, n), -1);
    n = step_wire_end(p);
    p[1]++;
    assert_int_equal(get(&w, p, n), -1);
    n = step_wire_end(p);
    p[0] = 0;
    assert_int_equal(get(&w, p, n), -1);
    p[0] = STEP_WIRE_END + 1;
    assert_int_equal(get(&w, p, n), -1);

    step_wire_close(&w);
    free(p);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_lies_of_copies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
