/*
 * What rank 0 tells ranks in other processes: a step block, a copy of KV
 * blocks, or that the end has come, as bytes.  See step_wire.c.
 */
#ifndef STEP_WIRE_H
#define STEP_WIRE_H

#include "../kernels/kernels.h"

#include <stddef.h>
#include <stdint.h>

/* Of the form below; both sides must have the same. */
#define STEP_WIRE_VERSION 1

/* Blocks of a copy in one message. */
#define STEP_WIRE_COPIES 4096

typedef enum {
    STEP_WIRE_STEP = 1,
    STEP_WIRE_COPY,
    STEP_WIRE_END
} step_wire_type_t;

/* What both sides opened their pass with: the same, or nothing goes right. */
typedef struct {
    uint32_t tokens, rows, outs; /* most of a step */
    uint32_t blocks;             /* block ids of all its rows together */
    uint32_t context;            /* longest kv_len */
    uint32_t vocab;
    uint32_t pool, host; /* blocks of the two arenas */
    uint32_t block_tokens;
    uint32_t groups; /* of layers, 1 to KN_GROUPS */
    uint32_t window[KN_GROUPS];
} step_wire_limits_t;

/* A message taken apart.  All arrays are its own, but what it is read from. */
typedef struct {
    step_wire_limits_t limits;
    step_wire_type_t type;
    kn_step_t step; /* of STEP; its outs have a place, and no policy */
    uint32_t in;    /* of COPY: from the second arena? */
    uint32_t n;
    uint32_t *tokens; /* [limits.tokens], owned, as all below */
    kn_row_t *rows;   /* [limits.rows] */
    uint32_t *blocks; /* [limits.blocks] */
    kn_out_t *outs;   /* [limits.outs] */
    uint32_t *from;   /* [STEP_WIRE_COPIES] */
    uint32_t *to;     /* [STEP_WIRE_COPIES] */
} step_wire_t;

/* The most bytes of a message. */
size_t step_wire_bytes(const step_wire_limits_t *l);

/*
 * The first block number of a row that begins at q_start, in a group: those
 * before it no token looks at any more.
 */
uint32_t step_wire_first(
    const step_wire_limits_t *l, uint32_t group, uint32_t q_start);

/*
 * Write a message at p, which has room for step_wire_bytes(); its length.  A
 * step is within l, which is asserted; of a copy n is at most
 * STEP_WIRE_COPIES.
 */
size_t step_wire_step(
    uint8_t *p, const step_wire_limits_t *l, const kn_step_t *s);
size_t step_wire_copy(uint8_t *p, const step_wire_limits_t *l, int in,
    const uint32_t *from, const uint32_t *to, uint32_t n);
size_t step_wire_end(uint8_t *p);

/* Takes the memory that any message within l needs.  0, or -1. */
int step_wire_open(step_wire_t *w, const step_wire_limits_t *l);
void step_wire_close(step_wire_t *w);

/*
 * Takes a message of n bytes apart; what w had before is gone.  0, or -1 with
 * one sentence in err: it is none, or it is not within the limits.
 */
int step_wire_get(
    step_wire_t *w, const uint8_t *p, size_t n, char *err, size_t errlen);

#endif
