/*
 * Tiles of products: what the op rows of matrices are made of.
 */
#ifndef CPU_PRODUCT_H
#define CPU_PRODUCT_H

#include "job.h"

/* Multiply-adds that take as long as making an activation a number. */
#define ACTS_COST 16

/* Rows of activations: floats, and numbers of each kind that a weight wants. */
typedef struct {
    const float *x; /* row i at x + i * ldx; NULL if nobody wants floats */
    size_t ldx;
    uint32_t k;
    char *q[CPU_KINDS];       /* [rows, k] of a kind; NULL: there are none */
    cpu_step_t *s[CPU_KINDS]; /* [rows, k / CPU_STEP]; NULL: no steps */
} cpu_acts_t;

/* Rows [i, i + m) of x by outputs [n0, n0 + n): to y, whose row 0 is row i. */
typedef struct {
    uint32_t i, m;  /* at most CPU_TILE_M */
    uint32_t n0, n; /* at most CPU_TILE_N */
    float *y;
    size_t ldy;
} cpu_out_t;

/*
 * What a weight wants its activations to be, as a set for several weights: bit
 * b for kind b.
 */
uint32_t cpu_acts_kinds(const kn_dev_t *dev, const kn_w_t *w);

/* Room for rows of such kinds, at most cpu_numbers() bytes from scratch on. */
void cpu_acts_room(cpu_acts_t *x, uint32_t kinds, uint32_t rows, char *scratch);

/* Elements [at, at + n) of row i, which are those at from, as numbers. */
void cpu_acts_put(const kn_dev_t *dev, const cpu_acts_t *x, uint32_t i,
    uint32_t at, uint32_t n, const float *from);

/* A tile of a product, bias and all. */
void cpu_product(const kn_dev_t *dev, const kn_product_t *p,
    const cpu_acts_t *x, const cpu_out_t *o);

/* A tile of a's y; what a says of x and y is not looked at. */
void cpu_gated_product(const kn_dev_t *dev, const kn_gated_t *a,
    const cpu_acts_t *x, const cpu_out_t *o);

#endif
