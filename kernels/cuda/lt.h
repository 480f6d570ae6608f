// A library's products of large matrices, cuBLASLt's, behind names of its own,
// so that the same host code runs where there is none (tests/simt/lt_twin.cc).
#ifndef LT_H
#define LT_H

#include "rt.h"

typedef struct lt_s lt_t;

// Opens it, and takes memory for it to work in.  NULL with one sentence in err
// where there is no such library, or no memory.
lt_t *lt_open(char *err, size_t errlen);
void lt_close(lt_t *l);

// y = x w^T, or y += x w^T: F32 sums of BF16, or of F16.
typedef struct {
    const uint16_t *x; // [m, k], rows follow one another
    const uint16_t *w; // [n, k], the same
    float *y;          // [m, n], the same
    uint32_t m, n, k;  // k a multiple of 32
    int f16, add;
} lt_product_t;

// In the stream's order.  0, or -1 and nothing is done: the library does not
// take it, or has not seen its like and launches are recorded.  Which of the
// library's algorithms does it is measured for the first of its like, without
// add: of that type, n, k and m up to the next power of two.
int lt_product(lt_t *l, const lt_product_t *p, rt_stream_t s);

#endif
