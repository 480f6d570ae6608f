/*
 * Any bytes as a GGUF file: opened, walked by every accessor, small tensors
 * dequantised, then opened as a model.  Would catch a read outside of the file
 * or a tensor, an endless loop and an allocation that the file's size does not
 * justify.
 */
#include "gguf.h"
#include "kernels.h"
#include "model.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const keys[] = {"general.architecture", "general.alignment",
    "tokenizer.ggml.tokens", "tokenizer.ggml.scores", "llama.block_count",
    "llama.rope.freq_base", "tokenizer.ggml.add_bos_token"};

/* Sums all that key gives, so that every byte of it is read. */
static uint64_t
walk_key(const gguf_t *g, const char *key)
{
    int b;
    float x;
    uint32_t u;
    uint64_t i, at, sum = 0;
    gguf_str_t s;
    gguf_arr_t a;

    sum += gguf_u32(g, key, &u) + gguf_f32(g, key, &x) + gguf_bool(g, key, &b);

    if (gguf_str(g, key, &s)) {
        for (i = 0; i < s.len; i++) {
            sum += (uint8_t) s.s[i];
        }
    }

    if (gguf_arr(g, key, &a)) {
        for (i = 0; i < a.n && a.type != GGUF_STR; i++) {
            sum += gguf_arr_u32(&a, i, &u) + gguf_arr_f32(&a, i, &x);
        }

        for (i = 0, at = 0; gguf_arr_str(&a, &at, &s); i++) {
            sum += s.len > 0 ? (uint8_t) s.s[s.len - 1] : 0;
        }

        assert(a.type != GGUF_STR || i == a.n);
    }

    return sum;
}

/* All elements of t as floats, where there are kernels and not too many. */
static uint64_t
dequantise(const tensor_t *t)
{
    uint32_t i, type = kernels_type(tensor_type_name(t->type));
    uint64_t n = 1, sum = 0;
    float v[4096];

    for (i = 0; i < TENSOR_DIMS_MAX; i++) {
        n *= t->dims[i];
    }

    if (type == KN_TYPES || n > sizeof(v) / sizeof(*v)) {
        return 0;
    }

    kernels_dequant(type, v, t->data, n);

    for (i = 0; i < n; i++) {
        sum += v[i] > 0;
    }

    return sum;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t i;
    uint64_t sum = 0;
    char err[256];
    gguf_t *g;
    model_t *m;
    const model_layer_t *last;
    const tensor_t *t;

    g = gguf_open_mem(data, size, "fuzz", err, sizeof(err));

    if (g == NULL) {
        assert(strncmp(err, "fuzz: ", 6) == 0);
        return 0;
    }

    for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        sum += walk_key(g, keys[i]);
    }

    for (i = 0; i < gguf_tensors_n(g); i++) {
        t = gguf_tensor_at(g, (uint32_t) i);
        assert(t->data >= data && t->size <= size);
        sum += t->data[0] + t->data[t->size - 1] + dequantise(t);
    }

    m = model_open_gguf(g, err, sizeof(err));

    if (m != NULL) {
        last = model_layer(m, model_info(m)->layers - 1);
        sum +=
            (last->down != NULL ? last->down : last->experts_down[0])->data[0];
    }

    assert(sum < UINT64_MAX);
    model_close(m);
    gguf_close(g);
    return 0;
}
