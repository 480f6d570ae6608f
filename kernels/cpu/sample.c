/*
 * Logits to one token.
 *
 *      raw logits -> logprobs
 *          -> mask -> bias -> repetition, frequency, presence penalty
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
 * Few of a vocabulary have a chance, and most of the work is to pass by the
 * others.  The first walk (scan.h) notes the largest of each block of tokens;
 * then a bound is found below which no truncation keeps anything, and only
 * blocks that reach it are looked into:
 *
 *      top_k   the k-th largest of the blocks' largest: k tokens reach it
 *      top_p   all weights below (1 - top_p) * sum / vocab together are less
 *              than what the nucleus may leave out
 *      min_p   itself
 *
 * Weights come from an exponential of our own, the same bits on every machine,
 * as a seed's tokens must not depend on it.  Sums are doubles in a fixed order.
 *
 * Nothing is allocated, and time is O(vocab + known + bias).
 */
#include "sample.h"
#include "cpu.h"
#include "llm_err.h"
#include "scan.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

/* In count[]: the token is in the prompt or the output. */
#define SEEN 0x80000000u

/*
 * What the OpenAI API gives in place of the logarithm of nothing: -Inf is not
 * JSON.
 */
#define LOGPROB_MIN (-9999.0f)

#define BUCKETS 2048

/* Candidates whose weights are added up before the draw looks among them. */
#define STRIDE 1024

/* exp(-SLACK) is how far a bound stays from what it bounds: no rounding. */
#define SLACK 0.25

/* One call's work memory. */
typedef struct {
    double *hist;    /* [BUCKETS] */
    float *top;      /* [blocks] the largest of each block of tokens */
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


/* How many blocks of tokens have a maximum of their own. */
static uint32_t
blocks_of(uint32_t vocab)
{
    return (vocab + SCAN_BLOCK - 1) / SCAN_BLOCK;
}

size_t
cpu_sample_work(uint32_t vocab)
{
    return BUCKETS * sizeof(double)
           + (blocks_of(vocab) + 4 * (size_t) vocab) * sizeof(float);
}

static const cpu_scan_t *
scan(void)
{
    return __builtin_cpu_supports("avx2") ? &cpu_scan_avx2 : &cpu_scan_ref;
}

static void
scratch_init(scratch_t *s, void *work, uint32_t vocab)
{
    assert((uintptr_t) work % 64 == 0);

    s->hist = work;
    s->top = (float *) (s->hist + BUCKETS);
    s->x = s->top + blocks_of(vocab);
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

/*
 * The raw logits with bias and penalties, into s->x; what may not come is -Inf
 * and stays so.
 */
static void
adjust(
    const scratch_t *s, const float *logits, uint32_t vocab, const kn_out_t *o)
{
    const sample_params_t *p = o->params;
    uint32_t i, t;

    if (o->mask != NULL) {
        scan()->allow(s->x, logits, vocab, o->mask);
    } else {
        memcpy(s->x, logits, (size_t) vocab * sizeof(float));
    }

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
 * The best n logits, best first; top has the blocks' largest.  A later id has
 * to be better than the worst one held, so of equals the lowest stay, in order.
 */
static uint32_t
best(const float *logits, const float *top, uint32_t vocab, uint32_t n,
    uint32_t *ids)
{
    uint32_t i, j, held;

    held = 0;

    for (i = 0; i < vocab; i++) {
        if (i % SCAN_BLOCK == 0 && held == n
            && !(top[i / SCAN_BLOCK] > logits[ids[n - 1]])) {
            i += SCAN_BLOCK - 1;
            continue;
        }

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
logprobs(const float *logits, const float *top, uint32_t vocab, float max,
    const sample_params_t *p, sample_out_t *out)
{
    double log_sum;
    uint32_t i, n;

    /* the best one is 1: never log(0) */
    log_sum = log(scan()->weights(logits, vocab, max, 1, NULL));

    out->logprob = logprob(logits[out->token], max, log_sum);

    n = p->tops < SAMPLE_TOPS_MAX ? p->tops : SAMPLE_TOPS_MAX;
    if (n == 0) {
        return;
    }

    out->tops_n = best(logits, top, vocab, n, out->top_ids);

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
 * Of the adjusted logits x the scaled ones that reach least are candidates, in
 * s->x and s->id; returns how many.  x may be s->x.
 */
static uint32_t
gather(scratch_t *s, const float *x, uint32_t vocab, float max, float t,
    float least)
{
    uint32_t i, end, n = 0;
    float v;

    for (i = 0; i < vocab; i = end) {
        end = vocab - i < SCAN_BLOCK ? vocab : i + SCAN_BLOCK;

        if ((s->top[i / SCAN_BLOCK] - max) / t < least) {
            continue;
        }

        for (; i < end; i++) {
            v = (x[i] - max) / t;
            s->x[n] = v;
            s->id[n] = i;
            n += !(v < least);
        }
    }

    assert(n > 0);

    return n;
}

/* What the k-th best scaled logit reaches at least. */
static float
reached_by(const scratch_t *s, uint32_t blocks, uint32_t k, float max, float t)
{
    scratch_t tops = *s;
    uint32_t i;
    float v;

    if (k > blocks) {
        return -INFINITY;
    }

    tops.x = s->w;

    for (i = 0; i < blocks; i++) {
        tops.x[i] = s->top[i] - max;
        tops.id[i] = i;
    }

    i = select_prefix(&tops, NULL, blocks, k).key;
    memcpy(&v, &i, sizeof(v));

    return -v / t;
}

/*
 * Turns the adjusted logits x into weighted candidates after temperature and
 * the truncations; returns how many.  All are without ids.
 */
static uint32_t
candidates(scratch_t *s, const float *x, uint32_t vocab, float max,
    const sample_params_t *p)
{
    double total = 0;
    uint32_t i, n;
    float t, least;

    /* -Inf over infinity would be NaN. */
    t = p->temperature < FLT_MAX ? p->temperature : FLT_MAX;
    least = -INFINITY;

    if (p->top_k > 0 && p->top_k < vocab) {
        least = reached_by(s, blocks_of(vocab), p->top_k, max, t);
        n = gather(s, x, vocab, max, t, least);
        n = keep(s, n, select_prefix(s, NULL, n, p->top_k));
        total = scan()->weights(s->x, n, 0, 1, s->w);

    } else if (p->top_p >= 1.0f && p->min_p <= 0.0f) {
        n = vocab;
        (void) scan()->weights(x, vocab, max, t, s->w);

    } else {
        if (p->top_p < 1.0f) {
            total = scan()->weights(x, vocab, max, t, NULL);
            least = (float) log((1 - p->top_p) * total / vocab);
        } else if (p->min_p > 0.0f) {
            least = p->min_p < 1.0f ? logf(p->min_p) : 0.0f;
        }

        /* the best one is 0, whatever the bound comes out as */
        least -= SLACK;
        n = gather(s, x, vocab, max, t, least < 0 ? least : 0);
        (void) scan()->weights(s->x, n, 0, 1, s->w);
    }

    if (p->top_p < 1.0f) {
        n = keep(s, n, select_prefix(s, s->w, n, p->top_p * total));
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

/*
 * Which candidate is at the share u of the whole weight, which is added up in
 * strides and these in order.
 */
static uint32_t
draw(const scratch_t *s, uint32_t n, double u)
{
    double acc, target, some;
    uint32_t i, last;

    for (target = 0, i = 0; i < n; i += STRIDE) {
        target += scan()->sum(s->w + i, n - i < STRIDE ? n - i : STRIDE);
    }

    target *= u;
    acc = 0;

    for (i = 0; n - i > STRIDE; i += STRIDE) {
        some = scan()->sum(s->w + i, STRIDE);
        if (acc + some > target) {
            break;
        }
        acc += some;
    }

    for (; i < n; i++) {
        acc += s->w[i];
        if (s->w[i] > 0 && acc > target) {
            return i;
        }
    }

    /*
     * The running sum may round to less than the target at its very end; then
     * it is the last one that has weight.
     */
    for (last = n - 1; last > 0 && !(s->w[last] > 0); last--) {
    }

    return last;
}

/* The first of the largest, which is there. */
static uint32_t
argmax(const float *x, const float *top, float max)
{
    uint32_t i;

    for (i = 0; top[i] != max; i++) {
    }

    for (i *= SCAN_BLOCK; x[i] != max; i++) {
    }

    return i;
}

/* Does anything change the logits before the temperature does? */
static int
adjusts(const kn_out_t *o)
{
    return o->mask != NULL || o->params->bias_n > 0 || penalized(o->params);
}

/* The token, of logits that are finite or -Inf; s->top has their blocks'. */
static void
choose(scratch_t *s, const float *logits, uint32_t vocab, const kn_out_t *o,
    float max, sample_out_t *out)
{
    const sample_params_t *p = o->params;
    const float *x = logits;
    uint32_t n;

    if (adjusts(o)) {
        adjust(s, logits, vocab, o);
        x = s->x;
        max = scan()->tops(x, vocab, s->top);

        /* a mask can take what little is finite, a bias push it away */
        if (isinf(max)) {
            out->err = LLM_ERR_NAN_LOGITS;
            return;
        }
    }

    if (p->temperature > 0.0f) {
        n = candidates(s, x, vocab, max, p);
        out->token = draw(s, n, uniform(p->seed, o->pos + 1, o->choice));
        out->token = n < vocab ? s->id[out->token] : out->token;

    } else {
        out->token = argmax(x, s->top, max);
    }

    assert(out->token < vocab);
}

void
cpu_sample_one(const float *logits, uint32_t vocab, const kn_out_t *o,
    void *work, sample_out_t *out)
{
    const sample_params_t *p = o->params;
    scratch_t s;
    float max;

    assert(vocab > 0);
    assert(o->prompt_n <= o->known_n);

    memset(out, 0, sizeof(*out));
    scratch_init(&s, work, vocab);
    max = scan()->tops(logits, vocab, s.top);

    if (isinf(max)) {
        out->err = LLM_ERR_NAN_LOGITS;
        return;
    }

    if (o->wanted > 0) {
        assert(o->wanted <= vocab);
        out->token = o->wanted - 1;
    } else {
        choose(&s, logits, vocab, o, max, out);
    }

    if (out->err == 0 && (o->wanted > 0 || p->logprobs || p->tops > 0)) {
        if (o->wanted == 0 && p->tops > 0 && adjusts(o)) {
            (void) scan()->tops(logits, vocab, s.top);
        }

        logprobs(logits, s.top, vocab, max, p, out);
    }
}
