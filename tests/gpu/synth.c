/*
 * Random models: see synth.h.
 *
 * DESIGN.  A model is a GGUF file in memory that has no pages: keys, and
 * tensors whose bytes nobody has written, but for norms, which are ones.  The
 * device's weight_load is wrapped and given numbers of a pool instead, each
 * weight from another place of it.  So 60 GB of weights cost the host one
 * gigabyte, and they go to the device on the way that a file's go.
 *
 * The numbers are made of a counter, from 2^-9 to 2^-5 in size, which keeps
 * activations near one whatever the width; zeros would be faster than weights
 * are (less power, nothing to switch), so keys and values of the pool are
 * random as well.
 */
#include "synth.h"

#include "../unit/gguf_make.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SLACK ((size_t) 8 << 20) /* elements by which weights' places differ */
#define CHUNK ((uint64_t) 64 << 20)

static const synth_t shapes[] = {
    {"8B", "llama", 32, 4096, 32, 8, 128, 14336, 128256, 40960, 0, 0},
    {"30B-A3B", "qwen3moe", 48, 2048, 32, 4, 128, 768, 151936, 40960, 128, 8},
    {"dense", "llama", 4, 2048, 16, 4, 128, 5632, 32000, 4096, 0, 0},
    {"experts", "qwen3moe", 4, 1024, 16, 4, 64, 512, 32000, 4096, 32, 4},
    {"tiny", "llama", 2, 96, 4, 2, 64, 160, 300, 4096, 0, 0},
    {"tiny-experts", "qwen3moe", 2, 64, 2, 1, 64, 64, 300, 4096, 5, 2},
};

/* What the wrappers below see: one pass is opened at a time. */
static const kernels_t *own;
static uint16_t *pool; /* [pool_n] */
static size_t pool_n, loaded;
static uint64_t kv_bytes;

const synth_t *
synth_named(const char *name)
{
    size_t i;

    for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        if (strcmp(shapes[i].name, name) == 0) {
            return &shapes[i];
        }
    }

    return NULL;
}

double
synth_layer_weights(const synth_t *s)
{
    double attn =
        (double) s->hidden * s->head_dim * (2.0 * s->heads + 2.0 * s->kv_heads);
    double ffn = 3.0 * s->hidden * s->ffn * (s->experts > 0 ? s->used : 1);

    return attn + ffn + (double) s->hidden * s->experts;
}

double
synth_last_weights(const synth_t *s)
{
    return (double) s->hidden * s->vocab;
}

double
synth_bytes(const synth_t *s, uint32_t tokens)
{
    double all = 3.0 * s->hidden * s->ffn, some = all;
    double layer = synth_layer_weights(s);

    if (s->experts > 0) {
        layer -= all * s->used;
        some = all * s->experts
               * (1 - pow(1 - (double) s->used / s->experts, tokens));
        layer += some;
    }

    return 2 * (layer * s->layers + synth_last_weights(s));
}

double
synth_kv_bytes(const synth_t *s)
{
    return 4.0 * s->layers * s->kv_heads * s->head_dim;
}

static uint64_t
hash(uint64_t i)
{
    i += 0x9e3779b97f4a7c15u;
    i = (i ^ i >> 30) * 0xbf58476d1ce4e5b9u;
    i = (i ^ i >> 27) * 0x94d049bb133111ebu;

    return i ^ i >> 31;
}

/* A pool from which n elements can be taken anywhere up to SLACK. */
static int
grow(size_t n)
{
    const uint64_t keep = 0x81ff81ff81ff81ffu, exps = 0x3b003b003b003b00u;
    uint64_t v;
    size_t i;
    uint16_t *p;

    n = (n + SLACK + 3) / 4 * 4;
    if (n <= pool_n) {
        return 0;
    }

    p = realloc(pool, n * sizeof(*pool));
    if (p == NULL) {
        return -1;
    }
    pool = p;
    for (i = pool_n; i < n; i += 4) {
        v = (hash(i / 4) & keep) + exps; /* two bits of the exponent */
        memcpy(pool + i, &v, sizeof(v));
    }
    pool_n = n;

    return 0;
}

const uint16_t *
synth_numbers(size_t n)
{
    return grow(n) == 0 ? pool : NULL;
}

static kn_w_t *
random_load(kn_dev_t *dev, const kn_source_t *s, char *err, size_t errlen)
{
    kn_source_t as = *s;

    assert(s->type == KN_BF16);
    if (grow((size_t) s->n * s->k) != 0) {
        snprintf(err, errlen, "not enough memory for random weights");
        return NULL;
    }

    as.data = pool + loaded++ * 40961 % SLACK;
    return own->weight_load(dev, &as, err, errlen);
}

/* The cache, which is as large as nothing else, is filled. */
static kn_ptr_t
random_alloc(kn_dev_t *dev, uint64_t bytes)
{
    uint64_t at, n;
    kn_ptr_t p = own->alloc(dev, bytes);

    if (p.a == 0 || bytes != kv_bytes || grow(CHUNK) != 0) {
        return p;
    }

    for (at = 0; at < bytes; at += n) {
        n = bytes - at < CHUNK ? bytes - at : CHUNK;
        own->copy_in(dev, kn_at(p, at), pool + at / CHUNK * 40961 % SLACK, n);
    }

    return p;
}

/* --- the file ---------------------------------------------------------- */

/* Where the data of the next tensor goes, and of what kind it is. */
typedef struct {
    make_t head;
    uint64_t at;
    struct {
        uint64_t at, n;
    } ones[1024]; /* vectors, as offsets of floats */
    uint32_t ones_n, tensors_n;
} file_t;

static void
add(file_t *f, const char *name, uint64_t d0, uint64_t d1, uint64_t d2)
{
    uint64_t n = d0 * (d1 > 0 ? d1 : 1) * (d2 > 0 ? d2 : 1);

    make_str(&f->head, name);
    make_u32(&f->head, d2 > 0 ? 3 : d1 > 0 ? 2 : 1);
    make_u64(&f->head, d0);
    if (d1 > 0) {
        make_u64(&f->head, d1);
    }
    if (d2 > 0) {
        make_u64(&f->head, d2);
    }
    make_u32(&f->head, d1 > 0 ? TENSOR_BF16 : TENSOR_F32);
    make_u64(&f->head, f->at);

    if (d1 == 0) {
        assert(f->ones_n < sizeof(f->ones) / sizeof(f->ones[0]));
        f->ones[f->ones_n].at = f->at;
        f->ones[f->ones_n++].n = n;
    }
    f->at += (n * (d1 > 0 ? 2 : 4) + 31) / 32 * 32;
    f->tensors_n++;
}

static void
add_layer(file_t *f, const synth_t *s, uint32_t i)
{
    char name[64];
    uint32_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;

#define ADD(what, d0, d1, d2)                                                  \
    do {                                                                       \
        snprintf(name, sizeof(name), "blk.%u." what ".weight", i);             \
        add(f, name, d0, d1, d2);                                              \
    } while (0)
    ADD("attn_norm", s->hidden, 0, 0);
    ADD("ffn_norm", s->hidden, 0, 0);
    ADD("attn_q", s->hidden, q, 0);
    ADD("attn_k", s->hidden, kv, 0);
    ADD("attn_v", s->hidden, kv, 0);
    ADD("attn_output", q, s->hidden, 0);

    if (s->experts > 0) {
        ADD("attn_q_norm", s->head_dim, 0, 0);
        ADD("attn_k_norm", s->head_dim, 0, 0);
        ADD("ffn_gate_inp", s->hidden, s->experts, 0);
        ADD("ffn_gate_exps", s->hidden, s->ffn, s->experts);
        ADD("ffn_up_exps", s->hidden, s->ffn, s->experts);
        ADD("ffn_down_exps", s->ffn, s->hidden, s->experts);
        return;
    }

    ADD("ffn_gate", s->hidden, s->ffn, 0);
    ADD("ffn_up", s->hidden, s->ffn, 0);
    ADD("ffn_down", s->ffn, s->hidden, 0);
#undef ADD
}

static void
add_pair(file_t *f, const synth_t *s, const char *tail, uint32_t v)
{
    char key[96];

    snprintf(key, sizeof(key), "%s.%s", s->arch, tail);
    make_pair_u32(&f->head, key, v);
}

/* The whole of it; tensors is the count that is written at its beginning. */
static void
write_head(file_t *f, const synth_t *s, uint32_t tensors)
{
    char key[96];
    uint32_t i;

    memset(f, 0, sizeof(*f));
    make_head(&f->head, 3, tensors, s->experts > 0 ? 15 : 12);
    make_pair_str(&f->head, "general.architecture", s->arch);
    make_pair_u32(&f->head, "general.alignment", 32);
    add_pair(f, s, "block_count", s->layers);
    add_pair(f, s, "embedding_length", s->hidden);
    add_pair(f, s, "feed_forward_length", s->ffn);
    add_pair(f, s, "context_length", s->context);
    add_pair(f, s, "attention.head_count", s->heads);
    add_pair(f, s, "attention.head_count_kv", s->kv_heads);
    add_pair(f, s, "attention.key_length", s->head_dim);
    add_pair(f, s, "vocab_size", s->vocab);
    snprintf(key, sizeof(key), "%s.rope.freq_base", s->arch);
    make_pair_f32(&f->head, key, 500000);
    snprintf(key, sizeof(key), "%s.attention.layer_norm_rms_epsilon", s->arch);
    make_pair_f32(&f->head, key, 1e-5f);
    if (s->experts > 0) {
        add_pair(f, s, "expert_count", s->experts);
        add_pair(f, s, "expert_used_count", s->used);
        add_pair(f, s, "expert_feed_forward_length", s->ffn);
    }

    add(f, "token_embd.weight", s->hidden, s->vocab, 0);
    add(f, "output.weight", s->hidden, s->vocab, 0);
    add(f, "output_norm.weight", s->hidden, 0, 0);
    for (i = 0; i < s->layers; i++) {
        add_layer(f, s, i);
    }
}

/* Head and ones in memory that has no other pages. */
static int
make_file(synth_pass_t *p, char *err, size_t errlen)
{
    static file_t f;
    uint64_t data, i, j;
    float one = 1;
    uint8_t *map;

    write_head(&f, p->shape, 0);
    write_head(&f, p->shape, f.tensors_n);
    data = (f.head.len + 31) / 32 * 32;
    p->map_n = data + f.at;
    map = mmap(NULL, p->map_n, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        snprintf(
            err, errlen, "shape %s: no room for its addresses", p->shape->name);
        return -1;
    }

    memcpy(map, f.head.p, f.head.len);
    for (i = 0; i < f.ones_n; i++) {
        for (j = 0; j < f.ones[i].n; j++) {
            memcpy(map + data + f.ones[i].at + j * 4, &one, 4);
        }
    }

    p->map = map;
    p->file = gguf_open_mem(map, p->map_n, p->shape->name, err, errlen);
    return p->file != NULL ? 0 : -1;
}

int
synth_open(synth_pass_t *p, const synth_t *s, const kernels_t *kn,
    const kn_open_t *o, const forward_cfg_t *c, char *err, size_t errlen)
{
    memset(p, 0, sizeof(*p));
    p->shape = s;
    p->c = *c;
    p->kn = *kn;
    p->kn.weight_load = random_load;
    p->kn.alloc = random_alloc;
    own = kn;
    loaded = 0;

    if (make_file(p, err, errlen) == 0) {
        p->model = model_open_gguf(p->file, err, errlen);
    }
    if (p->model != NULL) {
        p->dev = kn->open(o, err, errlen);
    }
    if (p->dev != NULL) {
        model_groups(p->model, p->c.context, &p->c.groups);
        kv_bytes = forward_block_bytes(p->model, &p->c) * p->c.blocks;
        p->f = forward_open(&p->kn, p->dev, p->model, &p->c, err, errlen);
    }
    if (p->f == NULL) {
        synth_close(p);
        return -1;
    }

    return 0;
}

void
synth_close(synth_pass_t *p)
{
    forward_close(p->f);
    if (p->dev != NULL) {
        p->kn.close(p->dev);
    }
    model_close(p->model);
    gguf_close(p->file);
    if (p->map != NULL) {
        (void) munmap(p->map, p->map_n);
    }
    memset(p, 0, sizeof(*p));
}
