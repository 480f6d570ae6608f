// A library of products that is the host: each of them a sum of doubles, which
// is rounded once, so that its bits are not those of our kernels.
//
// Unlike a launch it is done at once, or kept with those that are recorded.
#include "../../kernels/cuda/lt.h"

#include "simt.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <stdio.h>
#include <stdlib.h>

struct lt_s {
    int opened;
};

lt_t *
lt_open(char *err, size_t errlen)
{
    lt_t *l;

    if (getenv("LLM_SIMT_NO_LIBRARY") != NULL) {
        snprintf(err, errlen, "cuda_gemm library: there is none");
        return NULL;
    }
    l = new lt_s();
    l->opened = 1;

    return l;
}

void
lt_close(lt_t *l)
{
    delete l;
}

static double
value(uint16_t v, int f16)
{
    return static_cast<double>(f16 ? __half2float(__ushort_as_half(v))
                                   : __bfloat162float(__ushort_as_bfloat16(v)));
}

static void
multiply(const lt_product_t &p)
{
    uint32_t i, j, e;
    double sum;
    float *y;

    for (i = 0; i < p.m; i++) {
        for (j = 0; j < p.n; j++) {
            y = p.y + static_cast<size_t>(i) * p.n + j;
            sum = p.add ? static_cast<double>(*y) : 0;
            for (e = 0; e < p.k; e++) {
                sum += value(p.x[static_cast<size_t>(i) * p.k + e], p.f16)
                       * value(p.w[static_cast<size_t>(j) * p.k + e], p.f16);
            }
            *y = static_cast<float>(sum);
        }
    }
}

int
lt_product(lt_t *l, const lt_product_t *p, rt_stream_t s)
{
    const lt_product_t copy = *p;
    const auto launch = [copy] { multiply(copy); };

    (void) l;
    if (simt_keep == NULL || !simt_keep(s, launch)) {
        simt_stream(s);
        launch();
    }

    return 0;
}
