// Weights on the device.
//
// DESIGN.  A matrix is row after row, as the file has it, each padded with
// zeros to whole chunks of GPU_CHUNK elements.  So every row begins at a
// multiple of 64 bytes, a lane's 16 bytes are always there, a library finds a
// plain row-major matrix, and products need no end of their own.
//
// F32, F16 and BF16 stay what they are.  Other types become F16, or BF16 where
// the largest magnitude is beyond F16's range or so small that F16 would keep
// less: F16 has 11 bits from 2^-14 to 65504, BF16 has 8.  A type that gets a
// product of its own gets a layout of its own beside this one, by kn_w_s's
// type.
//
// Bytes go over a buffer of the host's, some rows at a time.
#include "device.h"
#include "element.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER ((size_t) 4 << 20)

// X(elements in a block, bytes, name)
static const struct {
    uint32_t elems, bytes;
    const char *name;
} types[KN_TYPES] = {
#define X(name, elems, bytes) {elems, bytes, #name},
    KN_TYPE_LIST(X)
#undef X
};

static size_t
row_bytes(const kn_source_t *s)
{
    return static_cast<size_t>(s->k) / types[s->type].elems
           * types[s->type].bytes;
}

static const unsigned char *
row_at(const kn_source_t *s, uint32_t i)
{
    return static_cast<const unsigned char *>(s->data) + i * row_bytes(s);
}

static int
stays(uint32_t type)
{
    return type == KN_F32 || type == KN_F16 || type == KN_BF16;
}

// What a matrix becomes; row is [k].
static uint32_t
type_for(const kn_source_t *s, float *row)
{
    uint32_t i, j;
    float max = 0;

    if (stays(s->type)) {
        return s->type;
    }

    for (i = 0; i < s->n; i++) {
        kernels_dequant(s->type, row, row_at(s, i), s->k);

        for (j = 0; j < s->k; j++) {
            max = fabsf(row[j]) > max ? fabsf(row[j]) : max;
        }
    }

    return max <= 65504 && max >= 0x1p-14f ? KN_F16 : KN_BF16;
}

// Row i, as the device has it.
static void
convert(const kn_source_t *s, const kn_w_t *w, uint32_t i, float *row, void *to)
{
    uint32_t j;

    if (stays(s->type)) {
        memcpy(to, row_at(s, i), row_bytes(s));
        return;
    }

    kernels_dequant(s->type, row, row_at(s, i), s->k);
    for (j = 0; j < s->k; j++) {
        element_put(w->type, to, j, row[j]);
    }
}

static int
upload(const kn_source_t *s, const kn_w_t *w, float *row)
{
    size_t one = w->stride * element_size(w->type);
    uint32_t i, j, n, most = static_cast<uint32_t>(BUFFER / one);
    unsigned char *buffer;

    most = most < 1 ? 1 : most > s->n ? s->n : most;
    buffer = static_cast<unsigned char *>(calloc(most, one));
    if (buffer == NULL) {
        return -1;
    }

    for (i = 0; i < s->n; i += n) {
        n = s->n - i < most ? s->n - i : most;
        for (j = 0; j < n; j++) {
            convert(s, w, i + j, row, buffer + j * one);
        }
        rt_copy_in(
            static_cast<unsigned char *>(w->data) + i * one, buffer, n * one);
    }
    free(buffer);

    return 0;
}

// The head of a weight is the host's, and lives as long as the device.
static kn_w_t *
make(kn_dev_t *dev, const kn_source_t *s, float *row)
{
    kn_w_t *w = static_cast<kn_w_t *>(gpu_mem(dev, sizeof(*w), GPU_PLAIN));

    if (w == NULL) {
        return NULL;
    }

    w->type = type_for(s, row);
    w->n = s->n;
    w->k = s->k;
    w->stride = gpu_whole(s->k);
    w->data = gpu_mem(dev,
        static_cast<uint64_t>(s->n) * w->stride * element_size(w->type),
        GPU_DEVICE);

    if (w->data == NULL || upload(s, w, row) != 0) {
        return NULL;
    }

    if (w->stride > dev->k_max) {
        dev->k_max = w->stride;
        return gpu_scratch(dev) == 0 ? w : NULL;
    }

    return w;
}

kn_w_t *
cuda_weight_load(kn_dev_t *dev, const kn_source_t *s, char *err, size_t errlen)
{
    kn_w_t *w;
    float *row;

    assert(s->type < KN_TYPES && s->n > 0 && s->k > 0 && s->data != NULL);

    if (s->k % types[s->type].elems != 0) {
        snprintf(err, errlen,
            "weight \"%s\": expected rows of a multiple of %u for %s, found %u",
            s->name, types[s->type].elems, types[s->type].name, s->k);
        return NULL;
    }

    row = static_cast<float *>(malloc(s->k * sizeof(float)));
    w = row != NULL ? make(dev, s, row) : NULL;
    free(row);

    if (w == NULL) {
        snprintf(err, errlen,
            "weight \"%s\": not enough memory on the device: %llu MB are left",
            s->name, static_cast<unsigned long long>(rt_left() >> 20));
    }

    return w;
}
