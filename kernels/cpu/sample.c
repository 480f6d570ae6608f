/*
 * Logits to one token.
 *
 *      raw logits -> logprobs
 *          -> bias -> repetition, frequency, presence penalty
 *          -> temperature -> top_k -> top_p -> min_p -> draw
 *
 * Where a token is given (a prompt's logprobs) only the first line is walked.
 *
 * DESIGN.  The order up to the temperature is that of the servers clients come
 * from: a bias is part of the logits that penalties see, and every truncation
 * sees the distribution that is drawn from, so temperature comes before them.
 * The last three go as in Hugging Face's generate(): top_k first, the nucleus
 * is measured in the renormalised rest (vLLM does these two alike), min_p
 * last.  min_p asks for a ratio to the best token, which no truncation
 * changes, so last it means the same whatever else is set, and it can only
 * take away from the nucleus; where it runs first, as in vLLM, it would shrink
 * the mass that top_p is a part of.  One of top_p and min_p alone is the same
 * in either.
 *
 * Candidates have one total order, value descending then id ascending, and all
 * three truncations keep a prefix of it.  So none needs a sort: select_prefix()
 * finds the last member of the prefix from histograms over the value's bits,
 * in three passes whatever the values are.  Candidates themselves stay in id
 * order, and the draw walks them so.
 *
 * Weights come from an exponential of our own: the C library's may be another
 * function on another machine, and a seed's tokens must not depend on that.
 * Sums are doubles in a fixed order.
 *
 * Nothing is allocated, and time is O(vocab + known + bias).
 */
#include "sample.h"
#include "cpu.h"
#include "llm_err.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#define LANES 8

/* In count[]: the token is in the prompt or the output. */
#define SEEN 0x80000000u

/*
 * What the OpenAI API gives in place of the logarithm of nothing: -Inf is not
 * JSON.
 */
#define LOGPROB_MIN (-9999.0f)

/* Below this the weight is less than 1e-37 of the best one's: it is 0. */
#define EXP_MIN (-87.0f)

#define BUCKETS 2048

/* One call's work memory. */
typedef struct {
    double *hist;    /* [BUCKETS] */
    float *x;        /* [vocab] candidates' adjusted logits, then scaled */
    float *w;        /* [vocab] candidates' weights */
    uint32_t *id;    /* [vocab] candidates' ids, ascending */
    uint32_t *count; /* [vocab] defined for known tokens only */
} scratch_t;

/* The last member of a prefix of the order. */
typedef struct {
    uint32_t key;
    uint32_t id;
} bound_t;


size_t
cpu_sample_work(uint32_t vocab)
{
    return BUCKETS * sizeof(double) + 4 * (size_t) vocab * sizeof(float);
}

static void
scratch_init(scratch_t *s, void *work, uint32_t vocab)
{
    assert((uintptr_t) work % 64 == 0);

    s->hist = work;
    s->x = (float *) (s->hist + BUCKETS);
    s->w = s->x + vocab;
    s->id = (uint32_t *) (s->w + vocab);
    s->count = s->id + vocab;
}

/*
 * J. Salmon, M. Moraes, R. Dror, D. Shaw: Parallel Random Numbers: As Easy as
 * 1, 2, 3 (SC 2011), section 3.3.
 */
void
cpu_philox4x32(
    const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint64_t p0, p1;
    uint32_t c0, c1, c2, c3, k0, k1;
    int i;

    c0 = counter[0];
    c1 = counter[1];
    c2 = counter[2];
    c3 = counter[3];
    k0 = key[0];
    k1 = key[1];

    for (i = 0; i < 10; i++) {
        p0 = (uint64_t) 0xD2511F53u * c0;
        p1 = (uint64_t) 0xCD9E8D57u * c2;
        c0 = (uint32_t) (p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t) (p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t) p1;
        c3 = (uint32_t) p0;
        k0 += 0x9E3779B9u; /* the golden ratio */
        k1 += 0xBB67AE85u; /* sqrt(3) - 1 */
    }

    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Uniform in [0, 1), 53 bits. */
static double
uniform(uint64_t seed, uint32_t pos, uint32_t choice)
{
    uint32_t counter[4] = {pos, choice, 0, 0};
    uint32_t key[2] = {(uint32_t) seed, (uint32_t) (seed >> 32)};
    uint32_t r[4];

    cpu_philox4x32(counter, key, r);

    return (double) (((uint64_t) r[0] << 32 | r[1]) >> 11) * 0x1p-53;
}

/*
 * exp(x) for x <= 0, within a few ulp: x = n ln 2 + r with |r| <= ln 2 / 2,
 * ln 2 in two parts so that n times the first is exact, and the series of
 * exp(r), whose first left-out term is below 1e-8.
 */
static inline float
exp_neg(float x)
{
    float c, n, r, y;
    int32_t e;

    c = x < EXP_MIN ? EXP_MIN : x;
    e = (int32_t) (c * 1.44269504f - 0.5f);
    n = (float) e;
    r = c - n * 0.693359375f + n * 2.12194440e-4f;

    y = 1.0f / 5040;
    y = y * r + 1.0f / 720;
    y = y * r + 1.0f / 120;
    y = y * r + 1.0f / 24;
    y = y * r + 1.0f / 6;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;

    e = (e + 127) * (1 << 23);
    memcpy(&n, &e, sizeof(n));

    return x < EXP_MIN ? 0.0f : y * n;
}

/* w[i] = exp(x[i] - max); x and w may be the same. */
static void
weights(const float *x, float max, float *w, uint32_t n)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        w[i] = exp_neg(x[i] - max);
    }
}

/* Independent lanes, so that additions do not wait for one another. */
static double
sum(const float *w, uint32_t n)
{
    double lane[LANES] = {0};
    uint32_t i, j;

    for (i = 0; i + LANES <= n; i += LANES) {
        for (j = 0; j < LANES; j++) {
            lane[j] += w[i + j];
        }
    }

    for (j = 0; i < n; i++, j++) {
        lane[j] += w[i];
    }

    return ((lane[0] + lane[1]) + (lane[2] + lane[3]))
           + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

/*
 * The largest of n numbers, INFINITY when one of them is NaN or +Inf: every
 * number that may be there is below +Inf, and NaN is below nothing.
 */
static float
largest(const float *x, uint32_t n)
{
    float lane[LANES], max;
    uint32_t bad[LANES] = {0};
    uint32_t i, j, any;

    for (j = 0; j < LANES; j++) {
        lane[j] = -INFINITY;
    }

    for (i = 0; i + LANES <= n; i += LANES) {
        for (j = 0; j < LANES; j++) {
            lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
            bad[j] |= x[i + j] < INFINITY ? 0 : 1;
        }
    }

    for (j = 0; i < n; i++, j++) {
        lane[j] = x[i] > lane[j] ? x[i] : lane[j];
        bad[j] |= x[i] < INFINITY ? 0 : 1;
    }

    max = -INFINITY;

    for (any = 0, j = 0; j < LANES; j++) {
        max = lane[j] > max ? lane[j] : max;
        any |= bad[j];
    }

    return any ? INFINITY : max;
}

/* What arithmetic on a finite logit must not become. */
static float
tame(float x)
{
    if (isnan(x)) {
        return -INFINITY;
    }

    return x > FLT_MAX ? FLT_MAX : x;
}

static int
penalized(const sample_params_t *p)
{
    return p->repetition_penalty != 1.0f || p->presence_penalty != 0.0f
           || p->frequency_penalty != 0.0f;
}

/*
 * Three walks over known: count is made 0 where it will be looked at, then
 * counts, then each token is charged once, its count being 0 again after.
 */
static void
penalize(float *x, uint32_t vocab, const kn_out_t *o, uint32_t *count)
{
    const sample_params_t *p = o->params;
    uint32_t i, c, t;
    float v;

    for (i = 0; i < o->known_n; i++) {
        if (o->known[i] < vocab) {
            count[o->known[i]] = 0;
        }
    }

    for (i = 0; i < o->known_n; i++) {
        t = o->known[i];
        if (t < vocab) {
            count[t] = (count[t] + (i >= o->prompt_n)) | SEEN;
        }
    }

    for (i = 0; i < o->known_n; i++) {
        t = o->known[i];
        if (t >= vocab || count[t] == 0) {
            continue;
        }

        c = count[t] & ~SEEN;
        count[t] = 0;

        v = x[t];
        v = v > 0 ? v / p->repetition_penalty : v * p->repetition_penalty;
        v -= p->frequency_penalty * (float) c;
        v -= c > 0 ? p->presence_penalty : 0.0f;
        x[t] = tame(v);
    }
}

/* The raw logits with bias and penalties, into s->x. */
static void
adjust(
    const scratch_t *s, const float *logits, uint32_t vocab, const kn_out_t *o)
{
    const sample_params_t *p = o->params;
    uint32_t i, t;

    memcpy(s->x, logits, (size_t) vocab * sizeof(float));

    for (i = 0; i < p->bias_n; i++) {
        t = p->bias[i].token;
        if (t < vocab) {
            s->x[t] = tame(s->x[t] + p->bias[i].bias);
        }
    }

    if (penalized(p)) {
        penalize(s->x, vocab, o, s->count);
    }
}

/*
 * The best n logits, best first.  A later id has to be better than the worst
 * one held, so of equals the lowest stay, in order.
 */
static uint32_t
best(const float *logits, uint32_t vocab, uint32_t n, uint32_t *ids)
{
    uint32_t i, j, held;

    held = 0;

    for (i = 0; i < vocab; i++) {
        if (held == n && !(logits[i] > logits[ids[n - 1]])) {
            continue;
        }

        j = held < n ? held++ : n - 1;

        while (j > 0 && logits[i] > logits[ids[j - 1]]) {
            ids[j] = ids[j - 1];
            j--;
        }

        ids[j] = i;
    }

    return held;
}

static float
logprob(float logit, float max, double log_sum)
{
    double v;

    v = (double) logit - max - log_sum;

    return v > LOGPROB_MIN ? (float) v : LOGPROB_MIN;
}

static void
logprobs(const float *logits, uint32_t vocab, float max,
    const sample_params_t *p, float *w, sample_out_t *out)
{
    double log_sum;
    uint32_t i, n;

    weights(logits, max, w, vocab);
    log_sum = log(sum(w, vocab)); /* the best one is 1: never log(0) */

    out->logprob = logprob(logits[out->token], max, log_sum);

    n = p->tops < SAMPLE_TOPS_MAX ? p->tops : SAMPLE_TOPS_MAX;
    if (n == 0) {
        return;
    }

    out->tops_n = best(logits, vocab, n, out->top_ids);

    for (i = 0; i < out->tops_n; i++) {
        out->top_logprobs[i] = logprob(logits[out->top_ids[i]], max, log_sum);
    }
}

/*
 * Ascending keys are descending values, for values that are 0 or less: what
 * is left without the sign is the magnitude, and floats order as their bits.
 */
static inline uint32_t
key_of(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof(u));

    return u & 0x7fffffffu;
}

static inline int
within(float x, uint32_t id, bound_t b)
{
    uint32_t k;

    k = key_of(x);

    return k < b.key || (k == b.key && id <= b.id);
}

/*
 * One pass of select_prefix(): among candidates whose key >> above is prefix,
 * finds the next bits of the bound's key.  Takes the weight of the buckets
 * before it off *need.
 */
static uint32_t
narrow(const scratch_t *s, const float *w, uint32_t n, uint32_t prefix,
    uint32_t above, uint32_t shift, double *need)
{
    uint32_t i, k, b, last, buckets;

    buckets = 1u << (above - shift);
    assert(buckets <= BUCKETS);
    memset(s->hist, 0, buckets * sizeof(double));

    last = 0;

    for (i = 0; i < n; i++) {
        k = key_of(s->x[i]);
        if ((k >> above) == prefix) {
            b = (k >> shift) & (buckets - 1);
            s->hist[b] += w != NULL ? w[i] : 1.0;
            last = b > last ? b : last;
        }
    }

    for (b = 0; b < last && s->hist[b] < *need; b++) {
        *need -= s->hist[b];
    }

    return prefix << (above - shift) | b;
}

/*
 * The shortest non-empty prefix of the n candidates whose weight (w; NULL
 * counts heads) reaches need; all of them when none does.
 */
static bound_t
select_prefix(const scratch_t *s, const float *w, uint32_t n, double need)
{
    bound_t b;
    uint32_t i;

    assert(n > 0);

    b.key = narrow(s, w, n, 0, 31, 20, &need);
    b.key = narrow(s, w, n, b.key, 20, 10, &need);
    b.key = narrow(s, w, n, b.key, 10, 0, &need);
    b.id = 0;

    /* The rest of need is met by equals, lowest id first. */
    for (i = 0; i < n; i++) {
        if (key_of(s->x[i]) == b.key) {
            b.id = s->id[i];
            need -= w != NULL ? w[i] : 1.0;
            if (need <= 0) {
                break;
            }
        }
    }

    return b;
}

/* Drops candidates outside the bound; returns how many are left. */
static uint32_t
keep(scratch_t *s, uint32_t n, bound_t b)
{
    uint32_t i, m;

    m = 0;

    for (i = 0; i < n; i++) {
        if (within(s->x[i], s->id[i], b)) {
            s->x[m] = s->x[i];
            s->w[m] = s->w[i];
            s->id[m] = s->id[i];
            m++;
        }
    }

    assert(m > 0);

    return m;
}

/*
 * Turns the adjusted logits in x into weighted candidates after temperature
 * and the truncations; returns how many.
 */
static uint32_t
candidates(scratch_t *s, uint32_t vocab, float max, const sample_params_t *p)
{
    uint32_t i, n;
    float t;

    /* -Inf over infinity would be NaN. */
    t = p->temperature < FLT_MAX ? p->temperature : FLT_MAX;

    for (i = 0; i < vocab; i++) {
        s->x[i] = (s->x[i] - max) / t;
        s->id[i] = i;
    }

    n = vocab;

    if (p->top_k > 0 && p->top_k < n) {
        n = keep(s, n, select_prefix(s, NULL, n, p->top_k));
    }

    weights(s->x, 0.0f, s->w, n);

    if (p->top_p < 1.0f) {
        n = keep(s, n, select_prefix(s, s->w, n, p->top_p * sum(s->w, n)));
    }

    /* The best candidate's weight is 1. */
    if (p->min_p > 0.0f) {
        t = p->min_p < 1.0f ? p->min_p : 1.0f;

        for (i = 0; i < n; i++) {
            s->w[i] = s->w[i] >= t ? s->w[i] : 0.0f;
        }
    }

    return n;
}

/* The candidate at the share u of the whole weight. */
static uint32_t
draw(const scratch_t *s, uint32_t n, double u)
{
    double acc, target;
    uint32_t i, last;

    target = u * sum(s->w, n);
    acc = 0;
    last = 0;

    /*
     * The running sum may round to less than the target at its very end; then
     * it is the last one that has weight.
     */
    for (i = 0; i < n; i++) {
        if (s->w[i] > 0) {
            last = i;
            acc += s->w[i];
            if (acc > target) {
                break;
            }
        }
    }

    return s->id[last];
}

static uint32_t
argmax(const float *x, float max)
{
    uint32_t i;

    for (i = 0; x[i] != max; i++) { /* it is there */
    }

    return i;
}

void
cpu_sample_one(const float *logits, uint32_t vocab, const kn_out_t *o,
    void *work, sample_out_t *out)
{
    const sample_params_t *p = o->params;
    scratch_t s;
    uint32_t n;
    float raw, max;

    assert(vocab > 0);
    assert(o->prompt_n <= o->known_n);

    memset(out, 0, sizeof(*out));

    raw = largest(logits, vocab);
    if (isinf(raw)) {
        out->err = LLM_ERR_NAN_LOGITS;
        return;
    }

    scratch_init(&s, work, vocab);

    if (o->wanted > 0) {
        assert(o->wanted <= vocab);
        out->token = o->wanted - 1;
        logprobs(logits, vocab, raw, p, s.w, out);
        return;
    }

    adjust(&s, logits, vocab, o);

    /* A bias can push what little is finite over the edge. */
    max = p->bias_n > 0 || penalized(p) ? largest(s.x, vocab) : raw;
    if (isinf(max)) {
        out->err = LLM_ERR_NAN_LOGITS;
        return;
    }

    if (p->temperature > 0.0f) {
        n = candidates(&s, vocab, max, p);
        out->token = draw(&s, n, uniform(p->seed, o->pos + 1, o->choice));

    } else {
        out->token = argmax(s.x, max);
    }

    assert(out->token < vocab);

    if (p->logprobs || p->tops > 0) {
        logprobs(logits, vocab, raw, p, s.w, out);
    }
}
