/*
 * Models of given shapes with random weights, for a GPU machine that has no
 * model: what forward.c runs, whatever it computes.
 */
#ifndef SYNTH_H
#define SYNTH_H

#include "forward.h"

typedef struct {
    const char *name, *arch; /* of the family in GGUF */
    uint32_t layers, hidden, heads, kv_heads, head_dim, ffn, vocab, context;
    uint32_t experts, used; /* ffn is an expert's; 0: there are none */
} synth_t;

/* A pass over a model of a shape on an open device, all its own. */
typedef struct {
    const synth_t *shape;
    kernels_t kn; /* the device's, but for what loads weights */
    kn_dev_t *dev;
    gguf_t *file;
    model_t *model;
    forward_t *f;
    forward_cfg_t c;
    void *map;
    size_t map_n;
} synth_pass_t;

/* The shape of that name; NULL if there is none. */
const synth_t *synth_named(const char *name);

/*
 * Opens the device as o says, the model and the pass; c's groups are filled
 * in.  Weights are BF16, and the same on every device; keys and values of
 * positions that nobody has computed are random too.  0, or -1 with one
 * sentence in err; not to be used by two threads.
 */
int synth_open(synth_pass_t *p, const synth_t *s, const kernels_t *kn,
    const kn_open_t *o, const forward_cfg_t *c, char *err, size_t errlen);
void synth_close(synth_pass_t *p);

/* Elements of a layer's matrices that a token meets, and of the last one. */
double synth_layer_weights(const synth_t *s);
double synth_last_weights(const synth_t *s);

/* Of those, how many bytes a step of so many tokens reads, of all layers:
 * experts are counted as even routing would have it. */
double synth_bytes(const synth_t *s, uint32_t tokens);

/* Bytes of a position's keys and values, of 16 bits, in all layers. */
double synth_kv_bytes(const synth_t *s);

/* The numbers that weights are made of, BF16, at least n of them: the same
 * each time, but not where they are.  NULL when there is no memory. */
const uint16_t *synth_numbers(size_t n);

#endif
