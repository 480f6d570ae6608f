/*
 * Tables that are part of weight formats: dequant.c has them.
 */
#ifndef DEQUANT_TABLES_H
#define DEQUANT_TABLES_H

#include <stdint.h>

/* Points of the grids, four values of a byte each. */
extern const uint32_t kernels_iq3_xxs[256];
extern const uint32_t kernels_iq3_s[512];

/* What a nibble is worth: of IQ4_NL and IQ4_XS, and twice MXFP4's. */
extern const int8_t kernels_iq4[16];
extern const int8_t kernels_e2m1[16];

#endif
