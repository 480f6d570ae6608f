// cuBLASLt; lt.h has the contract.
//
// DESIGN.  The library is hundreds of megabytes and not everywhere, so it is
// opened when it is asked for and not before, and this file is built where its
// header is.  To it matrices are column by column: y^T [n, m] = w x^T, of which
// w is given as [k, n] to be transposed and x as [k, m], so that all lie as
// they do here.
//
// It has many algorithms for one product, of which it guesses the best; the
// guesses are run, and the fastest stays for what is alike.  A guess takes the
// host tens of microseconds, a measurement some milliseconds, once.
#include "lt.h"

#include <stdio.h>

#if defined(__has_include) && __has_include(<cublasLt.h>)

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "rt_judge.h"

#define WORKSPACE ((size_t) 32 << 20) // what the makers say for this GPU
#define LIKES     256                 // that are told apart
#define GUESSES   8
#define RUNS      3

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)
#define LIBRARY  "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR)

// X(function)
#define LT_LIST(X)                                                             \
    X(cublasLtCreate)                                                          \
    X(cublasLtDestroy)                                                         \
    X(cublasLtMatmul)                                                          \
    X(cublasLtMatmulAlgoGetHeuristic)                                          \
    X(cublasLtMatmulDescCreate)                                                \
    X(cublasLtMatmulDescDestroy)                                               \
    X(cublasLtMatmulDescSetAttribute)                                          \
    X(cublasLtMatmulPreferenceCreate)                                          \
    X(cublasLtMatmulPreferenceDestroy)                                         \
    X(cublasLtMatmulPreferenceSetAttribute)                                    \
    X(cublasLtMatrixLayoutCreate)                                              \
    X(cublasLtMatrixLayoutDestroy)

typedef struct {
    uint32_t f16, bucket, n, k;
    int none; // there is no algorithm
    cublasLtMatmulAlgo_t algo;
} like_t;

struct lt_s {
    void *library; // stays open
#define X(name) decltype(&::name) name;
    LT_LIST(X)
#undef X
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatmulPreference_t preference;
    void *workspace;
    like_t likes[LIKES];
    uint32_t likes_n;
};

// The matrices of a product, as the library has them.
typedef struct {
    cublasLtMatrixLayout_t w, x, y;
} layouts_t;

static int
load(lt_t *l, char *err, size_t errlen)
{
    l->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (l->library == NULL) {
        snprintf(err, errlen, "cuda_gemm library: %s", dlerror());
        return -1;
    }

#define X(name)                                                                \
    l->name = reinterpret_cast<decltype(&::name)>(dlsym(l->library, #name));   \
    if (l->name == NULL) {                                                     \
        snprintf(                                                              \
            err, errlen, "cuda_gemm library: %s has no %s", LIBRARY, #name);   \
        return -1;                                                             \
    }
    LT_LIST(X)
#undef X

    return 0;
}

lt_t *
lt_open(char *err, size_t errlen)
{
    const cublasOperation_t turned = CUBLAS_OP_T;
    const size_t most = WORKSPACE;
    lt_t *l = static_cast<lt_t *>(calloc(1, sizeof(*l)));

    if (l == NULL) {
        snprintf(err, errlen, "cuda_gemm library: not enough memory");
        return NULL;
    }
    if (load(l, err, errlen) != 0) {
        free(l);
        return NULL;
    }

    l->workspace = rt_alloc(WORKSPACE);
    if (l->workspace == NULL
        || l->cublasLtCreate(&l->handle) != CUBLAS_STATUS_SUCCESS
        || l->cublasLtMatmulDescCreate(&l->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F)
               != CUBLAS_STATUS_SUCCESS
        || l->cublasLtMatmulDescSetAttribute(
               l->desc, CUBLASLT_MATMUL_DESC_TRANSA, &turned, sizeof(turned))
               != CUBLAS_STATUS_SUCCESS
        || l->cublasLtMatmulPreferenceCreate(&l->preference)
               != CUBLAS_STATUS_SUCCESS
        || l->cublasLtMatmulPreferenceSetAttribute(l->preference,
               CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof(most))
               != CUBLAS_STATUS_SUCCESS) {
        snprintf(err, errlen,
            "cuda_gemm library: cuBLASLt cannot be set up on this GPU");
        lt_close(l);
        return NULL;
    }

    return l;
}

void
lt_close(lt_t *l)
{
    if (l == NULL) {
        return;
    }
    if (l->preference != NULL) {
        l->cublasLtMatmulPreferenceDestroy(l->preference);
    }
    if (l->desc != NULL) {
        l->cublasLtMatmulDescDestroy(l->desc);
    }
    if (l->handle != NULL) {
        l->cublasLtDestroy(l->handle);
    }
    if (l->workspace != NULL) {
        rt_free(l->workspace);
    }
    free(l);
}

static void
lay(const lt_t *l, const lt_product_t *p, layouts_t *o)
{
    const cudaDataType_t type = p->f16 ? CUDA_R_16F : CUDA_R_16BF;

    if (l->cublasLtMatrixLayoutCreate(&o->w, type, p->k, p->n, p->k)
            != CUBLAS_STATUS_SUCCESS
        || l->cublasLtMatrixLayoutCreate(&o->x, type, p->k, p->m, p->k)
               != CUBLAS_STATUS_SUCCESS
        || l->cublasLtMatrixLayoutCreate(&o->y, CUDA_R_32F, p->n, p->m, p->n)
               != CUBLAS_STATUS_SUCCESS) {
        rt_die("multiplying", "cuBLASLt has no memory for a layout");
    }
}

static void
unlay(const lt_t *l, const layouts_t *o)
{
    l->cublasLtMatrixLayoutDestroy(o->w);
    l->cublasLtMatrixLayoutDestroy(o->x);
    l->cublasLtMatrixLayoutDestroy(o->y);
}

static int
launch(const lt_t *l, const lt_product_t *p, const layouts_t *o,
    const cublasLtMatmulAlgo_t *algo, rt_stream_t s)
{
    const float one = 1, before = p->add ? 1 : 0;

    return l->cublasLtMatmul(l->handle, l->desc, &one, p->w, o->w, p->x, o->x,
               &before, p->y, o->y, p->y, o->y, algo, l->workspace, WORKSPACE,
               s) == CUBLAS_STATUS_SUCCESS
               ? 0
               : -1;
}

// Milliseconds of some runs, after one; negative if it cannot be run.
static float
measure(const lt_t *l, const lt_product_t *p, const layouts_t *o,
    const cublasLtMatmulAlgo_t *algo, cudaEvent_t at[2], rt_stream_t s)
{
    float ms = -1;
    int i, r = launch(l, p, o, algo, s);

    cudaEventRecord(at[0], s);
    for (i = 0; r == 0 && i < RUNS; i++) {
        r = launch(l, p, o, algo, s);
    }
    cudaEventRecord(at[1], s);

    return r == 0 && cudaEventSynchronize(at[1]) == cudaSuccess
                   && cudaEventElapsedTime(&ms, at[0], at[1]) == cudaSuccess
               ? ms
               : -1;
}

static void
choose(const lt_t *l, const lt_product_t *p, const layouts_t *o, like_t *like,
    rt_stream_t s)
{
    cublasLtMatmulHeuristicResult_t guesses[GUESSES];
    cudaEvent_t at[2];
    float ms, best = -1;
    int i, n = 0;

    like->none = 1;
    if (l->cublasLtMatmulAlgoGetHeuristic(l->handle, l->desc, o->w, o->x, o->y,
            o->y, l->preference, GUESSES, guesses, &n)
        != CUBLAS_STATUS_SUCCESS) {
        return;
    }
    if (cudaEventCreate(&at[0]) != cudaSuccess
        || cudaEventCreate(&at[1]) != cudaSuccess) {
        rt_die("multiplying", "no event for a measurement");
    }

    for (i = 0; i < n; i++) {
        ms = measure(l, p, o, &guesses[i].algo, at, s);
        if (ms >= 0 && (best < 0 || ms < best)) {
            best = ms;
            like->algo = guesses[i].algo;
            like->none = 0;
        }
    }
    cudaEventDestroy(at[0]);
    cudaEventDestroy(at[1]);
}

static uint32_t
bucket_of(uint32_t m)
{
    uint32_t b = 1;

    while (b < m) {
        b *= 2;
    }

    return b;
}

// NULL if it is new and cannot be measured now.
static const like_t *
like_of(lt_t *l, const lt_product_t *p, const layouts_t *o, rt_stream_t s)
{
    cudaStreamCaptureStatus status;
    like_t *like;
    uint32_t bucket = bucket_of(p->m);

    for (like = l->likes; like < l->likes + l->likes_n; like++) {
        if (like->f16 == static_cast<uint32_t>(p->f16) && like->bucket == bucket
            && like->n == p->n && like->k == p->k) {
            return like;
        }
    }

    if (p->add || l->likes_n == LIKES
        || cudaStreamIsCapturing(s, &status) != cudaSuccess
        || status != cudaStreamCaptureStatusNone) {
        return NULL;
    }

    like->f16 = static_cast<uint32_t>(p->f16);
    like->bucket = bucket;
    like->n = p->n;
    like->k = p->k;
    choose(l, p, o, like, s);
    l->likes_n++;

    return like;
}

int
lt_product(lt_t *l, const lt_product_t *p, rt_stream_t s)
{
    layouts_t o;
    const like_t *like;
    int r = -1;

    lay(l, p, &o);
    like = like_of(l, p, &o, s);
    if (like != NULL && !like->none) {
        r = launch(l, p, &o, &like->algo, s);
    }
    unlay(l, &o);

    return r;
}

#else

lt_t *
lt_open(char *err, size_t errlen)
{
    snprintf(err, errlen,
        "cuda_gemm library: this back end was built where there was no "
        "cuBLASLt");

    return NULL;
}

void
lt_close(lt_t *l)
{
    (void) l;
}

int
lt_product(lt_t *l, const lt_product_t *p, rt_stream_t s)
{
    (void) l;
    (void) p;
    (void) s;

    return -1;
}

#endif
