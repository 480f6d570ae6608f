/*
 * Us that the sampler takes for one output, by what is asked of it, beside one
 * plain read of the logits: the best and the median of some hundred, logits
 * roughly normal, as models have them.
 */
#include "cpu/cpu.h"
#include "cpu/sample.h"
#include "peak.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TIMES 300

static int
by_value(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}

static void
fill(float *x, uint32_t n)
{
    uint64_t s = 88172645463325252ull;
    uint32_t i, j;
    double v;

    for (i = 0; i < n; i++) {
        for (v = -6, j = 0; j < 12; j++) {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            v += (double) (s >> 11) * 0x1p-53;
        }

        x[i] = (float) (v * 3);
    }
}

static void
bench(const char *name, const float *logits, uint32_t vocab, void *work,
    const sample_params_t *p)
{
    double us[TIMES];
    sample_out_t out;
    kn_out_t o;
    uint32_t i;

    memset(&o, 0, sizeof(o));
    o.params = p;

    for (i = 0; i < TIMES; i++) {
        o.pos = i;
        us[i] = peak_now(2);

        if (p != NULL) {
            cpu_sample_one(logits, vocab, &o, work, &out);
        } else {
            peak_part_t part = {
                "avx2", (const uint64_t *) (const void *) logits, vocab / 2, 0};

            (void) peak_run(&part);
        }

        us[i] = (peak_now(2) - us[i]) * 1e6;
    }

    qsort(us, TIMES, sizeof(*us), by_value);
    printf("%6u  %-24s %7.1f us  (median %7.1f)\n", vocab, name, us[0],
        us[TIMES / 2]);
}

int
main(void)
{
    static const uint32_t vocabs[] = {128256, 151936};
    sample_params_t p, plain;
    float *logits;
    uint32_t i, n;
    void *work;

    memset(&plain, 0, sizeof(plain));
    plain.top_p = 1;
    plain.repetition_penalty = 1;

    for (i = 0; i < 2; i++) {
        n = vocabs[i];
        logits = aligned_alloc(64, n * sizeof(float));
        work = aligned_alloc(64, (cpu_sample_work(n) + 63) / 64 * 64);
        if (logits == NULL || work == NULL) {
            return 1;
        }

        fill(logits, n);
        bench("one read", logits, n, work, NULL);
        p = plain;
        bench("greedy", logits, n, work, &p);
        p.logprobs = 1;
        bench("greedy, logprob", logits, n, work, &p);
        p.tops = 20;
        bench("greedy, 20 logprobs", logits, n, work, &p);
        p = plain;
        p.temperature = 0.8f;
        bench("temperature", logits, n, work, &p);
        p.top_k = 40;
        bench("top_k 40", logits, n, work, &p);
        p.top_k = 0;
        p.top_p = 0.9f;
        bench("top_p 0.9", logits, n, work, &p);
        p.top_k = 40;
        bench("top_k 40, top_p 0.9", logits, n, work, &p);
        p.top_k = 0;
        p.top_p = 1;
        p.min_p = 0.05f;
        bench("min_p 0.05", logits, n, work, &p);
        free(logits);
        free(work);
    }

    return 0;
}
