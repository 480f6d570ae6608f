/*
 * Fails when the sampler draws from another distribution than the request's
 * parameters describe, breaks ties otherwise than lowest id first, leaves its
 * work memory dirty so that one request changes another, lets a NaN through,
 * or when a seed stops naming the same tokens.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cpu/cpu.h"
#include "cpu/sample.h"
#include "cpu/scan.h"
#include "llm_err.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define VOCAB_MAX 5000

static uint64_t
rnd(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;

    return *s * 0x2545F4914F6CDD1Dull;
}

static double
rnd01(uint64_t *s)
{
    return (double) (rnd(s) >> 11) * 0x1p-53;
}

/* Roughly normal. */
static float
rnd_logit(uint64_t *s, double scale)
{
    double v;
    int i;

    for (v = -6, i = 0; i < 12; i++) {
        v += rnd01(s);
    }

    return (float) (v * scale);
}

/* As dirty as the contract allows. */
static void *
work_open(uint32_t vocab)
{
    size_t n;
    void *p;

    n = (cpu_sample_work(vocab) + 63) / 64 * 64;
    p = aligned_alloc(64, n);
    assert_non_null(p);
    memset(p, 0xff, n);

    return p;
}

static sample_params_t
plain(void)
{
    sample_params_t p;

    memset(&p, 0, sizeof(p));
    p.temperature = 1;
    p.top_p = 1;
    p.repetition_penalty = 1;

    return p;
}

static sample_out_t
place(const float *logits, uint32_t vocab, const sample_params_t *p,
    const uint32_t *known, uint32_t known_n, uint32_t prompt_n, uint32_t pos,
    uint32_t choice, void *work)
{
    sample_out_t out;
    kn_out_t o;

    memset(&o, 0, sizeof(o));
    o.params = p;
    o.known = known;
    o.known_n = known_n;
    o.prompt_n = prompt_n;
    o.pos = pos;
    o.choice = choice;

    memset(&out, 0xa5, sizeof(out));
    cpu_sample_one(logits, vocab, &o, work, &out);

    return out;
}

static sample_out_t
one(const float *logits, uint32_t vocab, const sample_params_t *p, uint32_t pos,
    void *work)
{
    return place(logits, vocab, p, NULL, 0, 0, pos, 0, work);
}

/*
 * The obvious way: everything sorted, in double precision.
 */
typedef struct {
    double v;
    uint32_t id;
} item_t;

typedef struct {
    item_t item[VOCAB_MAX]; /* best first */
    double mass[VOCAB_MAX];
    uint32_t n;
} ref_t;

static int
item_cmp(const void *a, const void *b)
{
    const item_t *x = a, *y = b;

    if (x->v != y->v) {
        return x->v < y->v ? 1 : -1;
    }

    return x->id < y->id ? -1 : 1;
}

static int
id_cmp(const void *a, const void *b)
{
    const item_t *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

static void
ref_adjust(const float *logits, uint32_t vocab, const sample_params_t *p,
    const uint32_t *known, uint32_t known_n, uint32_t prompt_n, ref_t *r)
{
    uint32_t t, i, all, output;
    float v;

    for (t = 0; t < vocab; t++) {
        v = logits[t];

        for (i = 0; i < p->bias_n; i++) {
            if (p->bias[i].token == t) {
                v += p->bias[i].bias;
            }
        }

        for (all = 0, output = 0, i = 0; i < known_n; i++) {
            all += known[i] == t;
            output += known[i] == t && i >= prompt_n;
        }

        if (all) {
            v = v > 0 ? v / p->repetition_penalty : v * p->repetition_penalty;
        }

        v -= p->frequency_penalty * (float) output;
        v -= output ? p->presence_penalty : 0;

        r->item[t].v = v;
        r->item[t].id = t;
    }

    r->n = vocab;
    qsort(r->item, vocab, sizeof(item_t), item_cmp);
}

/* The token at share u of the truncated distribution, in order of ids. */
static uint32_t
ref_pick(const ref_t *r, const sample_params_t *p, double top_p, double min_p,
    double u)
{
    static item_t kept[VOCAB_MAX];
    double all, before, total, w;
    uint32_t i, n, k;

    k = p->top_k > 0 && p->top_k < r->n ? p->top_k : r->n;

    for (all = 0, i = 0; i < k; i++) {
        all += exp((r->item[i].v - r->item[0].v) / p->temperature);
    }

    for (before = 0, total = 0, n = 0, i = 0; i < k; i++) {
        w = exp((r->item[i].v - r->item[0].v) / p->temperature);

        if (i > 0 && ((top_p < 1 && before >= top_p * all) || w < min_p)) {
            break;
        }

        kept[n].v = w;
        kept[n++].id = r->item[i].id;
        before += w;
        total += w;
    }

    qsort(kept, n, sizeof(item_t), id_cmp);

    for (before = 0, k = 0, i = 0; i < n; i++) {
        if (kept[i].v > 0) {
            k = i;
            before += kept[i].v;
            if (before > u * total) {
                break;
            }
        }
    }

    return kept[k].id;
}

static double
ref_u(uint64_t seed, uint32_t pos, uint32_t choice)
{
    uint32_t c[4] = {pos + 1, choice, 0, 0}, r[4];
    uint32_t key[2] = {(uint32_t) seed, (uint32_t) (seed >> 32)};

    cpu_philox4x32(c, key, r);

    return (r[0] * 0x1p32 + r[1]) * 0x1p-64;
}

/* Does got follow from p, give or take what single precision can do? */
static int
ref_agrees(const ref_t *r, const sample_params_t *p, double u, uint32_t got)
{
    static const double e[] = {0, -1e-5, 1e-5};
    int i, j, k;

    for (i = 0; i < 3; i++) {
        for (j = 0; j < 3; j++) {
            for (k = 0; k < 3; k++) {
                if (ref_pick(r, p, p->top_p + (p->top_p < 1 ? e[i] : 0),
                        p->min_p * (1 + e[j]), u + e[k])
                    == got) {
                    return 1;
                }
            }
        }
    }

    return 0;
}

static void
ref_logprobs(const float *logits, uint32_t vocab, const sample_params_t *p,
    const sample_out_t *out)
{
    static item_t it[VOCAB_MAX];
    double total, v;
    uint32_t i, n;

    for (i = 0; i < vocab; i++) {
        it[i].v = logits[i];
        it[i].id = i;
    }

    qsort(it, vocab, sizeof(item_t), item_cmp);

    for (total = 0, i = 0; i < vocab; i++) {
        total += exp(it[i].v - it[0].v);
    }

    assert_true(fabs(out->logprob - (logits[out->token] - it[0].v - log(total)))
                < 1e-5);

    n = p->tops < vocab ? p->tops : vocab;
    assert_int_equal(out->tops_n, n);

    for (i = 0; i < n; i++) {
        assert_int_equal(out->top_ids[i], it[i].id);
        v = fmax(it[i].v - it[0].v - log(total), -9999);
        assert_true(fabs(out->top_logprobs[i] - v) < 1e-5);
    }
}

typedef struct {
    float logits[VOCAB_MAX];
    sample_bias_t bias[8];
    uint32_t known[64];
    uint32_t known_n, prompt_n, vocab;
    sample_params_t p;
} case_t;

#define PICK(s, list) ((list)[rnd(s) % (sizeof(list) / sizeof((list)[0]))])

static void
random_case(case_t *c, uint64_t *s, int i)
{
    static const uint32_t vocab[] = {1, 2, 7, 8, 9, 31, 512, 3000};
    static const float temperature[] = {0, 1e-3f, 0.5f, 1, 1.3f, 2, 50};
    static const uint32_t top_k[] = {0, 0, 1, 2, 5, 40, 511, 5000};
    static const float top_p[] = {1, 1, 0, 1e-6f, 0.3f, 0.9f, 0.999f};
    static const float min_p[] = {0, 0, 1e-4f, 0.05f, 0.5f, 1};
    static const float rep[] = {1, 1, 1.2f, 0.7f, 2};
    static const float pen[] = {0, 0, 0.5f, -2, 2};
    static const float bias[] = {-100, 100, 1, -0.25f};
    uint32_t j, kind;

    c->vocab = PICK(s, vocab);
    kind = (uint32_t) rnd(s) % 4;

    for (j = 0; j < c->vocab; j++) {
        c->logits[j] = rnd_logit(s, 3);

        /* Many ties; all equal; some impossible. */
        if (kind == 1) {
            c->logits[j] = roundf(c->logits[j]);
        } else if (kind == 2 && i % 8 == 0) {
            c->logits[j] = -1.5f;
        } else if (kind == 3 && j > 0 && rnd(s) % 3 == 0) {
            c->logits[j] = -INFINITY;
        }
    }

    c->known_n = (uint32_t) rnd(s) % 64;
    c->prompt_n = c->known_n ? (uint32_t) rnd(s) % (c->known_n + 1) : 0;

    for (j = 0; j < c->known_n; j++) {
        c->known[j] = (uint32_t) rnd(s) % (c->vocab + 1);
    }

    c->p = plain();
    c->p.temperature = PICK(s, temperature);
    c->p.top_k = PICK(s, top_k);
    c->p.top_p = PICK(s, top_p);
    c->p.min_p = PICK(s, min_p);
    c->p.repetition_penalty = PICK(s, rep);
    c->p.presence_penalty = PICK(s, pen);
    c->p.frequency_penalty = PICK(s, pen);
    c->p.seed = rnd(s);
    c->p.tops = (uint32_t) rnd(s) % (SAMPLE_TOPS_MAX + 1);
    c->p.logprobs = 1;
    c->p.bias = c->bias;
    c->p.bias_n = (uint32_t) rnd(s) % 8;

    /* Of those many extremes few leave a choice: every other case does. */
    if (i % 2) {
        c->p.temperature = 1 + (float) (rnd(s) % 2);
        c->p.top_k = (uint32_t) (rnd(s) % 3) * 20;
        c->p.top_p = rnd(s) % 2 ? 1 : 0.9f;
        c->p.min_p = rnd(s) % 2 ? 0 : 0.02f;
        c->p.bias_n = 0;
    }

    for (j = 0; j < c->p.bias_n; j++) {
        c->bias[j].token = (uint32_t) rnd(s) % (c->vocab + 1);
        c->bias[j].bias = PICK(s, bias);
    }
}

static void
test_reference(void **state)
{
    static case_t c;
    static float before[VOCAB_MAX];
    static ref_t r;
    void *s;
    sample_out_t out;
    uint64_t seed = 20110101;
    uint32_t exact, token;
    double u;
    int i;

    (void) state;
    s = work_open(VOCAB_MAX);
    exact = 0;

    for (i = 0; i < 3000; i++) {
        random_case(&c, &seed, i);
        memcpy(before, c.logits, sizeof(before));
        out = place(c.logits, c.vocab, &c.p, c.known, c.known_n, c.prompt_n,
            (uint32_t) i, (uint32_t) i % 3, s);

        assert_int_equal(out.err, 0);
        assert_true(out.token < c.vocab);
        assert_memory_equal(before, c.logits, sizeof(before));

        ref_logprobs(c.logits, c.vocab, &c.p, &out);
        ref_adjust(c.logits, c.vocab, &c.p, c.known, c.known_n, c.prompt_n, &r);

        if (c.p.temperature == 0) {
            assert_int_equal(out.token, r.item[0].id);
            exact++;
            continue;
        }

        u = ref_u(c.p.seed, (uint32_t) i, (uint32_t) i % 3);
        token = ref_pick(&r, &c.p, c.p.top_p, c.p.min_p, u);
        exact += token == out.token;

        if (token != out.token && !ref_agrees(&r, &c.p, u, out.token)) {
            fail_msg("case %d: %u, expected %u", i, out.token, token);
        }
    }

    /* The allowance for rounding is for the odd one. */
    assert_true(exact >= 2990);
    free(s);
}

/* The vectors published with the paper's own library. */
static void
test_philox(void **state)
{
    static const uint32_t v[][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff,
            0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0,
            0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
    };
    uint32_t out[4];
    int i;

    (void) state;

    for (i = 0; i < 3; i++) {
        cpu_philox4x32(v[i], v[i] + 4, out);
        assert_memory_equal(out, v[i] + 6, sizeof(out));
    }
}

static void
test_not_finite(void **state)
{
    void *s;
    sample_params_t p = plain();
    sample_bias_t bias = {0, -FLT_MAX};
    float x[100];
    int i, k;

    (void) state;
    s = work_open(100);

    for (k = 0; k < 2; k++) {
        p.temperature = (float) k;

        for (i = 0; i < 100; i++) {
            memset(x, 0, sizeof(x));
            x[i] = NAN;
            assert_int_equal(one(x, 100, &p, 0, s).err, LLM_ERR_NAN_LOGITS);
            x[i] = -NAN;
            assert_int_equal(one(x, 100, &p, 0, s).err, LLM_ERR_NAN_LOGITS);
            x[i] = INFINITY;
            assert_int_equal(one(x, 100, &p, 0, s).err, LLM_ERR_NAN_LOGITS);
            x[i] = -INFINITY;
            assert_int_equal(one(x, 100, &p, 0, s).err, 0);
        }

        for (i = 0; i < 100; i++) {
            x[i] = -INFINITY;
        }

        assert_int_equal(one(x, 100, &p, 0, s).err, LLM_ERR_NAN_LOGITS);
        x[71] = -3;
        assert_int_equal(one(x, 100, &p, 0, s).err, 0);
        assert_int_equal(one(x, 100, &p, 0, s).token, 71);

        /* Finite logits that a bias takes away. */
        x[0] = -FLT_MAX;
        p.bias = &bias;
        p.bias_n = 1;
        assert_int_equal(one(x, 1, &p, 0, s).err, LLM_ERR_NAN_LOGITS);
        p.bias_n = 0;
    }

    free(s);
}

static void
test_extremes(void **state)
{
    void *s;
    sample_params_t p = plain();
    sample_bias_t bias[3] = {{3, FLT_MAX}, {9, 1e30f}, {4294967295u, 5}};
    float x[9] = {1, 5, 5, FLT_MAX, -FLT_MAX, 0, -0.0f, 2, 5};
    sample_out_t out;

    (void) state;
    s = work_open(9);

    /* Overflow is the best there is, not an infinity. */
    p.bias = bias;
    p.bias_n = 3;
    p.logprobs = 1;
    p.tops = 20;
    out = one(x, 9, &p, 0, s);
    assert_int_equal(out.err, 0);
    assert_int_equal(out.token, 3);
    assert_true(out.logprob == 0);
    assert_int_equal(out.tops_n, 9);
    assert_int_equal(out.top_ids[1], 1);
    assert_int_equal(out.top_ids[2], 2);
    assert_int_equal(out.top_ids[3], 8);
    assert_true(out.top_logprobs[8] == -9999.0f);

    /* Equals: lowest id first, also when truncation cuts through them. */
    p = plain();
    p.temperature = 0;
    assert_int_equal(one(x, 3, &p, 0, s).token, 1);
    p.temperature = 1;
    p.top_k = 1;
    assert_int_equal(one(x, 3, &p, 7, s).token, 1);
    p.top_k = 0;
    p.top_p = 0;
    assert_int_equal(one(x, 3, &p, 7, s).token, 1);
    p.temperature = INFINITY;
    p.top_p = 1;
    assert_int_equal(one(x, 9, &p, 0, s).err, 0);
    p.temperature = 1e-45f;
    assert_int_equal(one(x, 9, &p, 0, s).token, 3);

    assert_int_equal(one(x, 1, &p, 0, s).token, 0);
    free(s);
}

/* Which tokens can be drawn at all? */
static uint32_t
support(const float *x, uint32_t vocab, const sample_params_t *p, void *s)
{
    uint32_t i, set;

    for (set = 0, i = 0; i < 3000; i++) {
        set |= 1u << one(x, vocab, p, i, s).token;
    }

    return set;
}

/* Shares 0.4, 0.3, 0.2, 0.1 at ids 2, 0, 3, 1: all cuts known by hand. */
static void
test_truncation(void **state)
{
    void *s;
    sample_params_t p = plain();
    float x[4] = {logf(.3f), logf(.1f), logf(.4f), logf(.2f)};

    (void) state;
    s = work_open(4);

    assert_int_equal(support(x, 4, &p, s), 0xf);
    p.top_k = 4;
    assert_int_equal(support(x, 4, &p, s), 0xf);
    p.top_k = 3;
    assert_int_equal(support(x, 4, &p, s), 0xd);
    p.top_k = 1;
    assert_int_equal(support(x, 4, &p, s), 0x4);
    p.top_k = 0;
    p.top_p = 0.69f;
    assert_int_equal(support(x, 4, &p, s), 0x5);
    p.top_p = 0.71f;
    assert_int_equal(support(x, 4, &p, s), 0xd);
    p.top_p = 0.39f;
    assert_int_equal(support(x, 4, &p, s), 0x4);

    /* The nucleus is measured in what top_k left: .4 / .7 is above .55. */
    p.top_p = 0.55f;
    assert_int_equal(support(x, 4, &p, s), 0x5);
    p.top_k = 2;
    assert_int_equal(support(x, 4, &p, s), 0x4);
    p.top_k = 0;

    /* min_p does not shrink the mass that top_p is a part of. */
    p.top_p = 0.75f;
    p.min_p = 0.4f;
    assert_int_equal(support(x, 4, &p, s), 0xd);
    p.top_p = 1;
    p.min_p = 0.51f;
    assert_int_equal(support(x, 4, &p, s), 0x5);
    p.min_p = 1;
    assert_int_equal(support(x, 4, &p, s), 0x4);
    x[0] = x[2];
    assert_int_equal(support(x, 4, &p, s), 0x5);

    free(s);
}

static void
test_penalties(void **state)
{
    void *s;
    sample_params_t p = plain();
    const uint32_t known[] = {0, 1, 1, 4294967295u, 2, 2, 2, 1};
    float x[4] = {2, 3, -1, 0};
    sample_out_t out;

    (void) state;
    s = work_open(4);
    p.temperature = 0;

    /* Output is 2 2 2 1: 3 - 0.5 - 1 < 2 = prompt only, untouched. */
    p.frequency_penalty = 0.5f;
    p.presence_penalty = 1;
    out = place(x, 4, &p, known, 8, 4, 0, 0, s);
    assert_int_equal(out.token, 0);
    p.presence_penalty = 0.4f;
    out = place(x, 4, &p, known, 8, 4, 0, 0, s);
    assert_int_equal(out.token, 1);

    /* Once for the prompt too; three times in the output is three times. */
    p = plain();
    p.temperature = 0;
    p.frequency_penalty = -1;
    x[2] = 0.5f;
    out = place(x, 4, &p, known, 8, 4, 0, 0, s);
    assert_int_equal(out.token, 1); /* 4 against 3.5 */
    x[2] = 1.5f;
    out = place(x, 4, &p, known, 8, 4, 0, 0, s);
    assert_int_equal(out.token, 2);

    /* Repetition is once per token however often it came. */
    p = plain();
    p.temperature = 0;
    p.repetition_penalty = 2;
    x[0] = -4;
    x[1] = 1.5f;
    x[2] = -2;
    x[3] = 0.7f;
    out = place(x, 4, &p, known, 8, 4, 0, 0, s);
    assert_int_equal(out.token, 1);
    x[3] = 0.8f;
    out = place(x, 4, &p, known, 8, 4, 0, 0, s);
    assert_int_equal(out.token, 3);
    x[1] = x[3] = -9; /* -18, -9, and -2 becomes -4 above -4 becomes -8 */
    out = place(x, 4, &p, known, 8, 4, 0, 0, s);
    assert_int_equal(out.token, 2);

    free(s);
}

/*
 * Draws against the distribution, by position, by choice and by seed.  The
 * bound is passed once in about 10^5 honest runs with 15 degrees of freedom,
 * and the seeds are fixed.
 */
static void
test_chi_square(void **state)
{
    enum { TOKENS = 16, DRAWS = 100000 };
    void *s;
    sample_params_t p = plain();
    sample_out_t out;
    float x[TOKENS];
    double w[TOKENS], total, chi, e;
    uint32_t n[TOKENS], i, kind;
    uint64_t seed = 99;

    (void) state;
    s = work_open(TOKENS);

    for (kind = 0; kind < 4; kind++) {
        p.temperature = kind == 3 ? 0.6f : 1.5f;

        for (total = 0, i = 0; i < TOKENS; i++) {
            n[i] = 0;
            x[i] = rnd_logit(&seed, 1);
            w[i] = exp(x[i] / (double) p.temperature);
            total += w[i];
        }

        for (i = 0; i < DRAWS; i++) {
            p.seed = kind == 2 ? i : 42;
            out = place(x, TOKENS, &p, NULL, 0, 0, kind == 1 ? 5 : i,
                kind == 1 ? i : 0, s);
            n[out.token]++;
        }

        for (chi = 0, i = 0; i < TOKENS; i++) {
            e = w[i] / total * DRAWS;
            chi += (n[i] - e) * (n[i] - e) / e;
        }

        assert_true(chi < 50);
    }

    free(s);
}

/* One request's tokens, whatever else the same scratch served in between. */
static void
test_independence(void **state)
{
    static case_t c, other;
    void *s, *fresh;
    sample_out_t a, b;
    uint64_t seed = 7;
    uint32_t i, changed;

    (void) state;
    s = work_open(VOCAB_MAX);
    changed = 0;

    for (i = 0; i < 300; i++) {
        random_case(&c, &seed, 1);
        random_case(&other, &seed, 1);

        fresh = work_open(c.vocab);
        a = place(c.logits, c.vocab, &c.p, c.known, c.known_n, c.prompt_n, i, 1,
            fresh);
        free(fresh);

        (void) place(other.logits, other.vocab, &other.p, other.known,
            other.known_n, other.prompt_n, i, 0, s);
        b = place(
            c.logits, c.vocab, &c.p, c.known, c.known_n, c.prompt_n, i, 1, s);
        assert_memory_equal(&a, &b, sizeof(a));

        /* Another place is another draw. */
        b = place(
            c.logits, c.vocab, &c.p, c.known, c.known_n, c.prompt_n, i, 2, s);
        changed += a.token != b.token;
    }

    assert_true(changed > 100);
    free(s);
}

/* What a seed means is a promise: these are the tokens it has always given. */
static void
test_seed(void **state)
{
    static const uint32_t expected[8] = {
        694, 983, 688, 628, 358, 389, 567, 881};
    void *s;
    sample_params_t p = plain();
    static float x[1000];
    uint32_t i;

    (void) state;
    s = work_open(1000);
    p.seed = 0x123456789abcdefull;

    for (i = 0; i < 1000; i++) {
        x[i] = (float) (i % 37) * 0.125f;
    }

    for (i = 0; i < 8; i++) {
        assert_int_equal(one(x, 1000, &p, i, s).token, expected[i]);
    }

    free(s);
}

/* A token that is given is not drawn, and nothing but raw logits count. */
static void
test_wanted(void **state)
{
    const float logits[] = {1, 3, 2, 3};
    const sample_bias_t bias = {0, 100};
    sample_params_t p = {.temperature = 1,
        .logprobs = 1,
        .tops = 2,
        .repetition_penalty = 5,
        .top_k = 1,
        .bias = &bias,
        .bias_n = 1};
    const uint32_t known[] = {1, 1};
    sample_out_t out;
    kn_out_t o = {.known = known, .known_n = 2, .prompt_n = 2, .params = &p};
    void *work = aligned_alloc(64, (cpu_sample_work(4) + 63) & ~(size_t) 63);
    double sum = exp(-2) + 1 + exp(-1) + 1;
    uint32_t i;

    (void) state;
    assert_non_null(work);
    for (i = 0; i < 4; i++) {
        o.wanted = i + 1;
        cpu_sample_one(logits, 4, &o, work, &out);
        assert_int_equal(out.err, 0);
        assert_int_equal(out.token, i);
        assert_true(fabs(out.logprob - (logits[i] - 3 - log(sum))) < 1e-6);
        assert_int_equal(out.tops_n, 2);
        assert_int_equal(out.top_ids[0], 1);
        assert_int_equal(out.top_ids[1], 3);
    }
    free(work);
}

/*
 * What a mask forbids is never chosen, however likely, and the rest is drawn as
 * from a vocabulary of the rest: its truncations, its penalties, its greedy
 * choice.  Logprobs are of the raw logits all the same.
 */
static void
test_mask(void **state)
{
    enum { VOCAB = 997 };
    static const sample_params_t ps[] = {
        {.temperature = 0, .top_p = 1, .repetition_penalty = 1},
        {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
        {.temperature = 2, .top_p = 0.8f, .repetition_penalty = 1},
        {.temperature = 1, .top_p = 1, .top_k = 5, .repetition_penalty = 1},
        {.temperature = 1, .top_p = 1, .min_p = 0.1f, .repetition_penalty = 3}};
    static float x[VOCAB], rest[VOCAB];
    static uint32_t mask[(VOCAB + 31) / 32], ids[VOCAB], known[2], some[2];
    void *work = work_open(VOCAB);
    sample_params_t p;
    sample_out_t a, b;
    uint64_t seed = 3;
    uint32_t i, n, trial;
    double sum, top;
    kn_out_t o;

    (void) state;

    for (trial = 0; trial < 400; trial++) {
        memset(mask, 0, sizeof(mask));
        n = 0;
        sum = 0;

        for (i = 0; i < VOCAB; i++) {
            x[i] = rnd_logit(&seed, 3);
            sum += exp(x[i]);
            if (i == trial || rnd(&seed) % (1 + trial) == 0) {
                mask[i / 32] |= 1u << i % 32;
                rest[n] = x[i];
                ids[n++] = i;
            } else if (i % 3 == 0) {
                x[i] += 20;
                sum += exp(x[i]) - exp(x[i] - 20);
            }
        }

        p = ps[trial % 5];
        p.seed = trial;
        p.logprobs = 1;
        some[0] = some[1] = 0;
        known[0] = known[1] = ids[0];

        memset(&o, 0, sizeof(o));
        o.params = &p;
        o.known = known;
        o.known_n = 2;
        o.prompt_n = 1;
        o.pos = trial;
        o.mask = mask;
        memset(&a, 0xa5, sizeof(a));
        cpu_sample_one(x, VOCAB, &o, work, &a);
        b = place(rest, n, &p, some, 2, 1, trial, 0, work);

        assert_int_equal(a.err, 0);
        assert_true(mask[a.token / 32] >> a.token % 32 & 1);
        if (p.temperature == 0 || p.top_k > 0 || p.min_p > 0) {
            assert_int_equal(a.token, ids[b.token]);
        }
        top = x[a.token] - log(sum);
        assert_true(fabs(a.logprob - top) < 1e-4);
    }

    /* of what may come nothing can */
    x[ids[0]] = -INFINITY;
    memset(mask, 0, sizeof(mask));
    mask[ids[0] / 32] |= 1u << ids[0] % 32;
    cpu_sample_one(x, VOCAB, &o, work, &a);
    assert_int_equal(a.err, LLM_ERR_NAN_LOGITS);
    memset(mask, 0, sizeof(mask));
    cpu_sample_one(x, VOCAB, &o, work, &a);
    assert_int_equal(a.err, LLM_ERR_NAN_LOGITS);

    free(work);
}

/* Both texts of the walks: the same bits, nothing written beyond. */
static void
test_scan(void **state)
{
    enum { MOST = 700 };
    static const float ts[] = {1, 0.7f, 1e-3f, 50, FLT_MAX};
    float *x, w[2][MOST + 1], top[2][MOST / SCAN_BLOCK + 2], max[2];
    uint32_t mask[MOST / 32 + 1];
    double sums[2];
    uint64_t seed = 7;
    uint32_t n, i, j, size;
    const cpu_scan_t *of[2] = {&cpu_scan_ref, &cpu_scan_avx2};

    (void) state;

    if (!__builtin_cpu_supports("avx2")) {
        print_message("this machine lacks AVX2\n");
        skip();
    }

    for (n = 1; n <= MOST; n++) {
        x = malloc(n * sizeof(float)); /* of its own size, for sanitizers */
        assert_non_null(x);
        size = (n + SCAN_BLOCK - 1) / SCAN_BLOCK;

        for (i = 0; i < n; i++) {
            x[i] = rnd_logit(&seed, i % 3 ? 5 : 60);
            x[i] = rnd(&seed) % 11 ? x[i] : roundf(x[i]);
            x[i] = rnd(&seed) % 50 ? x[i] : -INFINITY;
        }

        x[n / 2] = 1;
        for (i = 0; i <= MOST / 32; i++) {
            mask[i] = (uint32_t) rnd(&seed);
        }

        for (i = 0; i < 2; i++) {
            memset(w[i], 0xff, sizeof(w[i]));
            memset(top[i], 0xff, sizeof(top[i]));
            max[i] = of[i]->tops(x, n, top[i]);
            sums[i] = of[i]->weights(x, n, max[i], ts[n % 5], w[i]);
            assert_true(sums[i] == of[i]->sum(w[i], n));
            assert_true(
                sums[i] == of[i]->weights(x, n, max[i], ts[n % 5], NULL));
            assert_true(isnan(w[i][n]) && isnan(top[i][size]));

            for (j = 0; j < n; j++) {
                assert_true(x[j] <= top[i][j / SCAN_BLOCK]);
                assert_true(top[i][j / SCAN_BLOCK] <= max[i]);
                assert_true(
                    fabs(w[i][j] - exp((x[j] - max[i]) / ts[n % 5])) < 1e-6);
            }
        }

        assert_memory_equal(&sums[0], &sums[1], sizeof(sums[0]));
        assert_memory_equal(w[0], w[1], n * sizeof(float));
        assert_memory_equal(top[0], top[1], size * sizeof(float));
        assert_true(max[0] == max[1]);

        for (i = 0; i < 2; i++) {
            memset(w[i], 0xff, sizeof(w[i]));
            of[i]->allow(w[i], x, n, mask);
            assert_true(isnan(w[i][n]));
            for (j = 0; j < n; j++) {
                assert_true(
                    w[i][j] == (mask[j / 32] >> j % 32 & 1 ? x[j] : -INFINITY));
            }
        }

        for (i = 0; i < 2; i++) {
            x[(n - 1) * (n % 3) / 2] = n % 2 ? NAN : INFINITY;
            assert_true(isinf(of[i]->tops(x, n, top[0])));
        }

        free(x);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox),
        cmocka_unit_test(test_scan),
        cmocka_unit_test(test_wanted),
        cmocka_unit_test(test_mask),
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_penalties),
        cmocka_unit_test(test_chi_square),
        cmocka_unit_test(test_independence),
        cmocka_unit_test(test_seed),
    };

    return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
