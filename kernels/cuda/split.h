// Activations as tensor cores read them: each as the sum of two numbers of 16
// bits.
//
// DESIGN.  Activations are F32, and their products with weights are asked for
// to about six digits.  One BF16 keeps two and a half of them, so an activation
// is high + low, and costs two products where decoding, which is bound by the
// weights' bytes, has tens of them to spare:
//
//      BF16    high = bf16(x), low = bf16(x - high): 16 bits and more of x, in
//              all of F32's range
//      F16     the same in F16, 22 bits, of x * 2^e: e brings the row's largest
//              magnitude to 2^13 .. 2^14, so that neither F16's end nor its
//              gradual beginning is met (2^-24, or 2^-38 of the largest);
//              products are times 2^-e, which is exact
//
// What is done depends on the row alone.  Rows are padded with zeros to whole
// chunks, as weights are.
#ifndef CUDA_SPLIT_H
#define CUDA_SPLIT_H

#include "device.h"

enum { SPLIT_BF16, SPLIT_F16, SPLIT_KINDS };

// Rows of x to be split: row i of n, r = (i + first) being its number, is [k]
// at x + (r / heads) * ld + (r % heads) * between.  Those of a step's count are
// done, times heads.
typedef struct {
    const float *x;
    uint64_t ld, between;
    uint32_t k, heads;
    uint32_t which, first, n;
} split_rows_t;

// Starts it; kinds has bit SPLIT_* set for what is wanted.
void split_rows(kn_dev_t *dev, const split_rows_t *a, uint32_t kinds);

// How many rows of k there is room for.
uint32_t split_room(const kn_dev_t *dev, uint32_t k);

// What tensor cores want for weights of a type; none for F32: 0.
static inline uint32_t
split_kind(uint32_t type)
{
    return type == KN_F16    ? 1u << SPLIT_F16
           : type == KN_BF16 ? 1u << SPLIT_BF16
                             : 0;
}

#endif
