/*
 * Tensors: their types, names, sizes, and the values of those whose elements
 * stand alone.
 *
 * DESIGN.  The readers of the two formats know nothing of each other, and what
 * reads a model knows neither: they meet in tensor_t.  Types have one
 * numbering; it is GGML's, since GGUF files have it in them, and what only
 * safetensors has is put behind.
 *
 * No state, no memory of its own: any thread.
 */
#include "tensor.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint32_t type;
    const char *name;
    uint32_t elems, bytes; /* of a block */
} type_row_t;

static const type_row_t type_rows[] = {
#define X(number, name, elems, bytes) {number, #name, elems, bytes},
    TENSOR_TYPES(X)
#undef X
};

#define TYPES_N (sizeof(type_rows) / sizeof(type_rows[0]))

static const type_row_t *
type_row(uint32_t type)
{
    size_t i;

    for (i = 0; i < TYPES_N; i++) {
        if (type_rows[i].type == type) {
            return &type_rows[i];
        }
    }

    return NULL;
}

const char *
tensor_type_name(uint32_t type)
{
    const type_row_t *row = type_row(type);

    return row != NULL ? row->name : NULL;
}

int
tensor_type_find(const char *name, size_t len)
{
    size_t i;

    for (i = 0; i < TYPES_N; i++) {
        if (strlen(type_rows[i].name) == len
            && memcmp(type_rows[i].name, name, len) == 0) {
            return (int) type_rows[i].type;
        }
    }

    return -1;
}

uint32_t
tensor_block_elems(uint32_t type)
{
    const type_row_t *row = type_row(type);

    assert(row != NULL);
    return row->elems;
}

uint32_t
tensor_block_bytes(uint32_t type)
{
    const type_row_t *row = type_row(type);

    assert(row != NULL);
    return row->bytes;
}

int
tensor_set_size(tensor_t *t)
{
    uint32_t i;
    uint64_t blocks;
    const type_row_t *row = type_row(t->type);

    assert(row != NULL && t->dims_n <= TENSOR_DIMS_MAX);

    if (t->dims[0] % row->elems != 0) {
        return 0;
    }

    blocks = t->dims[0] / row->elems;

    for (i = 1; i < TENSOR_DIMS_MAX; i++) {
        if (__builtin_mul_overflow(blocks, t->dims[i], &blocks)) {
            return 0;
        }
    }

    return !__builtin_mul_overflow(blocks, row->bytes, &t->size)
           && t->size <= INT64_MAX;
}

int
tensor_by_name(const void *a, const void *b)
{
    int r;
    const tensor_name_t *x = &((const tensor_t *) a)->name;
    const tensor_name_t *y = &((const tensor_t *) b)->name;

    r = memcmp(x->s, y->s, x->len < y->len ? x->len : y->len);
    return r != 0 ? r : (x->len > y->len) - (x->len < y->len);
}

const tensor_t *
tensor_find(const tensor_t *list, uint32_t n, const char *name)
{
    tensor_t want = {.name = {name, strlen(name)}};

    assert(n == 0 || list != NULL);

    return n == 0 ? NULL
                  : bsearch(&want, list, n, sizeof(want), tensor_by_name);
}

tensor_shown_t
tensor_shown(tensor_name_t name)
{
    tensor_shown_t out;
    size_t i, n;

    n = name.len < sizeof(out.s) - 4 ? name.len : sizeof(out.s) - 4;

    for (i = 0; i < n; i++) {
        out.s[i] = name.s[i] >= ' ' && name.s[i] < 127 ? name.s[i] : '?';
    }

    memcpy(out.s + n, name.len > n ? "..." : "", name.len > n ? 4 : 1);
    return out;
}

/*
 * The bits of a number of 1 sign bit, exp exponent and frac fraction bits as a
 * float, inf and NaN left to the caller.  Every such number with a smaller
 * exponent than a float's is one, subnormal ones included.
 */
static float
from_bits(uint32_t bits, unsigned exp, unsigned frac)
{
    float f;
    uint32_t u, sign, mag, bias;

    assert(exp < 8 && frac < 23);
    sign = bits >> (exp + frac) << 31;
    mag = bits & ((1u << (exp + frac)) - 1);
    bias = (1u << (exp - 1)) - 1;

    if (mag >> frac == 0) {
        /* subnormal: mag * 2^(1 - bias - frac), a product that is exact */
        u = (127 + 1 - bias - frac) << 23;
        memcpy(&f, &u, sizeof(f));
        f *= (float) mag;
        memcpy(&u, &f, sizeof(u));
        u |= sign;
    } else {
        u = sign | ((mag << (23 - frac)) + ((127 - bias) << 23));
    }

    memcpy(&f, &u, sizeof(f));
    return f;
}

static float
from_f16(uint16_t h)
{
    float f;
    uint32_t u;

    if ((h & 0x7c00) == 0x7c00) { /* infinite, or not a number */
        u = (uint32_t) (h & 0x8000) << 16 | 0x7f800000
            | (uint32_t) (h & 0x3ff) << 13;
        memcpy(&f, &u, sizeof(f));
        return f;
    }

    return from_bits(h, 5, 10);
}

/* E4M3 without infinities ("fn"): all ones is the only NaN. */
static float
from_e4m3(uint8_t b)
{
    float f;
    uint32_t u = 0x7fc00000;

    if ((b & 0x7f) == 0x7f) {
        memcpy(&f, &u, sizeof(f));
        return f;
    }

    return from_bits(b, 4, 3);
}

int
tensor_is_plain(uint32_t type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16
           || type == TENSOR_F8_E4M3;
}

void
tensor_plain(uint32_t type, const void *src, uint64_t n, float *dst)
{
    uint64_t i;
    uint16_t h;
    uint32_t u;
    const uint8_t *p = src;

    assert(tensor_is_plain(type));

    if (type == TENSOR_F32) {
        memcpy(dst, src, n * sizeof(*dst));
        return;
    }

    for (i = 0; i < n; i++) {
        if (type == TENSOR_F8_E4M3) {
            dst[i] = from_e4m3(p[i]);
            continue;
        }

        memcpy(&h, p + 2 * i, sizeof(h));

        if (type == TENSOR_F16) {
            dst[i] = from_f16(h);
        } else {
            u = (uint32_t) h << 16;
            memcpy(&dst[i], &u, sizeof(u));
        }
    }
}

/* To nearest, ties to even; a NaN stays one. */
static uint16_t
to_bf16(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));

    if (isnan(f)) {
        return (uint16_t) (u >> 16 | 0x40);
    }

    return (uint16_t) ((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* The factors of elements from, from + 1... of a matrix, to n values. */
static void
scale_values(const tensor_t *t, uint64_t from, uint64_t n, float *v)
{
    float factor;
    uint64_t i, row, col;
    const tensor_t *s = tensor_scale(t);

    assert(s->type == TENSOR_F32 && t->dims[0] > 0);

    for (i = 0; i < n; i++) {
        row = t->lay->scale_row + (from + i) / t->dims[0];
        col = t->lay->scale_col + (from + i) % t->dims[0];
        row /= TENSOR_SCALE_BLOCK;
        col /= TENSOR_SCALE_BLOCK;
        memcpy(&factor, s->data + (row * s->dims[0] + col) * sizeof(factor),
            sizeof(factor));
        v[i] *= factor;
    }
}

void
tensor_bf16(const tensor_t *t, uint16_t *dst)
{
    float part[256];
    uint64_t i, j, n, all, bytes = tensor_block_bytes(t->type);

    assert(tensor_is_plain(t->type));
    assert(t->data != NULL && dst != NULL);
    all = t->size / bytes;

    for (i = 0; i < all; i += n) {
        n = all - i < 256 ? all - i : 256;
        tensor_plain(t->type, t->data + i * bytes, n, part);

        if (tensor_scale(t) != NULL) {
            scale_values(t, i, n, part);
        }

        for (j = 0; j < n; j++) {
            dst[i + j] = to_bf16(part[j]);
        }
    }
}
