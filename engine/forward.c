/*
 * The forward pass: a batch through the layers of one model on one device.
 *
 *      tokens ─embed─> x
 *      for each layer:
 *          x += h;  n = norm(x)                (no h before the first layer)
 *          q, k, v = n Wq, n Wk, n Wv
 *          rotate q and k; k, v ─> cache;  a = attention(q, cache)
 *          h = a Wo
 *          x += h;  n = norm(x)
 *          h = (silu(n Wgate) * n Wup) Wdown
 *      x += h;  n = norm(x);  g = n at the output positions
 *      logits = g Wout;  sample
 *
 * DESIGN.  The layer loop is written once, over the op table, for every family
 * and back end.  All args structs are filled in when the pass is opened and
 * never change: what a step brings is in the step block (kernels.h).  So a
 * step is a fixed list of calls, which a device may record.
 *
 * A residual is added by the norm that follows it (rmsnorm's add), so that
 * the stream is read once less.
 *
 * The KV pool is one allocation of blocks; a block holds block_tokens
 * positions of every layer, so that a block is copied or evicted as a whole:
 *
 *      block:  | layer 0: k | v | layer 1: k | v | ...
 *      k, v:   [kv_heads, block_tokens, head_dim], to a multiple of 64 bytes
 *
 * A forward_t owns its host arrays; device memory belongs to the device.  One
 * thread, the loop, calls it.  The batch comes from the scheduler: what it
 * says is asserted, not judged.
 */
#include "forward.h"
#include "mem.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Half of the largest head that model.c lets pass, and more. */
#define FREQS_MAX 512

typedef struct {
    kn_rmsnorm_t attn_norm;
    kn_matmul_t q, k, v;
    kn_rope_store_t store;
    kn_attn_t attn;
    kn_matmul_t o;
    kn_rmsnorm_t ffn_norm;
    kn_matmul_t gate, up;
    kn_silu_mul_t silu;
    kn_matmul_t down;
} layer_t;

/* Activations; [tokens, ...] but for those of the outputs. */
typedef struct {
    kn_ptr_t x, n, h;  /* [tokens, hidden] */
    kn_ptr_t q, a;     /* [tokens, heads * head_dim] */
    kn_ptr_t k, v;     /* [tokens, kv_heads * head_dim] */
    kn_ptr_t gate, up; /* [tokens, ffn] */
    kn_ptr_t cs;       /* [tokens, rope_dims / 2, 2] */
    kn_ptr_t g;        /* [outs, hidden] */
    kn_ptr_t logits;   /* [outs, vocab] */
    kn_ptr_t out;      /* [outs] sample_out_t */
} acts_t;

struct forward_s {
    const kernels_t *kn; /* borrowed */
    kn_dev_t *dev;       /* borrowed */
    const model_t *m;    /* borrowed */
    forward_cfg_t cfg;
    uint32_t blocks_max; /* block ids of a step */
    acts_t acts;
    kn_ptr_t kv; /* [cfg.blocks] blocks */
    kn_embed_t embed;
    kn_rope_angles_t angles;
    layer_t *layers; /* [layers], owned */
    kn_rmsnorm_t norm;
    kn_gather_t gather;
    kn_matmul_t output;
    kn_sample_t sample;
    kn_row_t *rows;   /* [rows_max], owned */
    uint32_t *blocks; /* [blocks_max], owned */
    kn_out_t *outs;   /* [outs_max], owned */
    uint32_t outs_n;  /* of the step submitted last */
    int host_logits;
};

/* Bytes of one layer's keys (or values) in a block. */
static uint64_t
kv_part_bytes(const model_info_t *info, const forward_cfg_t *c)
{
    uint64_t bytes;

    bytes = (uint64_t) info->kv_heads * c->block_tokens * info->head_dim
            * (c->kv_type == KN_F32 ? 4 : 2);

    return (bytes + 63) & ~(uint64_t) 63;
}

uint64_t
forward_block_bytes(const model_t *m, const forward_cfg_t *c)
{
    const model_info_t *info = model_info(m);

    assert(c->kv_type < KN_KV_TYPES && c->block_tokens > 0);
    return 2 * info->layers * kv_part_bytes(info, c);
}

/* The kernels' name for a tensor type; KN_TYPES if they have none. */
static uint32_t
kernel_type(uint32_t type)
{
    switch (type) {

    case TENSOR_F32:
        return KN_F32;

    case TENSOR_F16:
        return KN_F16;

    case TENSOR_BF16:
        return KN_BF16;

    case TENSOR_Q8_0:
        return KN_Q8_0;

    case TENSOR_Q4_0:
        return KN_Q4_0;

    default:
        return KN_TYPES;
    }
}

/* Opening's errors: the first one counts, and later calls do nothing. */
typedef struct {
    forward_t *f;
    char *err;
    size_t errlen;
    int failed;
} opening_t;

/* A copy of t as BF16, for what no kernel takes; NULL when out of memory. */
static uint16_t *
converted(opening_t *o, const tensor_t *t)
{
    uint16_t *made;

    assert(tensor_is_plain(t->type)); /* model_is_matrix has no other such */
    made = malloc(t->size / tensor_block_bytes(t->type) * sizeof(*made));

    if (made == NULL) {
        snprintf(o->err, o->errlen, "weight \"%s\": not enough memory",
            tensor_shown(t->name).s);
        o->failed = 1;
        return NULL;
    }

    tensor_bf16(t, made);
    return made;
}

static const kn_w_t *
load(opening_t *o, const tensor_t *t)
{
    kn_w_t *w;
    tensor_shown_t name;
    kn_source_t s;
    uint16_t *made = NULL;

    if (o->failed) {
        return NULL;
    }

    name = tensor_shown(t->name);
    s.name = name.s;
    s.type = kernel_type(t->type);
    s.n = (uint32_t) t->dims[1];
    s.k = (uint32_t) t->dims[0];
    s.data = t->data;

    if (s.type == KN_TYPES) {
        made = converted(o, t);
        s.type = KN_BF16;
        s.data = made;
    }

    if (o->failed) {
        return NULL;
    }

    w = o->f->kn->weight_load(o->f->dev, &s, o->err, o->errlen);
    o->failed = w == NULL;
    free(made);
    return w;
}

static kn_ptr_t
alloc(opening_t *o, uint64_t n, uint64_t size, const char *what)
{
    kn_ptr_t p = {0};

    if (o->failed) {
        return p;
    }

    if (size == 0 || n <= UINT64_MAX / size) {
        p = o->f->kn->alloc(o->f->dev, n * size);
    }

    if (p.a == 0) {
        snprintf(o->err, o->errlen,
            "%s: expected %llu x %llu bytes, found no memory for them", what,
            (unsigned long long) n, (unsigned long long) size);
        o->failed = 1;
    }

    return p;
}

/* A norm's weights, as F32: model.c lets no type pass that is not exact so. */
static kn_ptr_t
vector(opening_t *o, const tensor_t *t)
{
    kn_ptr_t p;
    float *v;

    p = alloc(o, t->dims[0], sizeof(float), "norm");

    if (o->failed || t->data == NULL) {
        return p;
    }

    v = malloc(t->dims[0] * sizeof(*v));

    if (v == NULL) {
        snprintf(o->err, o->errlen, "norm: not enough memory");
        o->failed = 1;
        return p;
    }

    tensor_plain(t->type, t->data, t->dims[0], v);
    o->f->kn->copy_in(o->f->dev, p, v, t->dims[0] * sizeof(*v));
    free(v);
    return p;
}

static void
open_acts(opening_t *o)
{
    acts_t *a = &o->f->acts;
    const model_info_t *info = model_info(o->f->m);
    uint64_t t = o->f->cfg.tokens_max, outs = o->f->cfg.outs_max;
    uint64_t f = sizeof(float);

    a->x = alloc(o, t, info->hidden * f, "activations");
    a->n = alloc(o, t, info->hidden * f, "activations");
    a->h = alloc(o, t, info->hidden * f, "activations");
    a->q = alloc(o, t, info->heads * info->head_dim * f, "activations");
    a->a = alloc(o, t, info->heads * info->head_dim * f, "activations");
    a->k = alloc(o, t, info->kv_heads * info->head_dim * f, "activations");
    a->v = alloc(o, t, info->kv_heads * info->head_dim * f, "activations");
    a->gate = alloc(o, t, info->ffn * f, "activations");
    a->up = alloc(o, t, info->ffn * f, "activations");
    a->cs = alloc(o, t, info->rope_dims * f, "activations");
    a->g = alloc(o, outs, info->hidden * f, "outputs");
    a->logits = alloc(o, outs, info->vocab * f, "logits");
    a->out = alloc(o, outs, sizeof(sample_out_t), "outputs");
}

static kn_matmul_t
matmul(opening_t *o, const tensor_t *t, kn_ptr_t x, kn_ptr_t y)
{
    kn_matmul_t a;

    a.w = load(o, t);
    a.x = x;
    a.y = y;
    a.rows = KN_TOKENS;
    return a;
}

static kn_rmsnorm_t
norm(opening_t *o, const tensor_t *t, int add)
{
    kn_rmsnorm_t a;
    const acts_t *acts = &o->f->acts;

    memset(&a, 0, sizeof(a));
    a.x = acts->x;

    if (add) {
        a.add = acts->h;
    }

    a.w = vector(o, t);
    a.y = acts->n;
    a.dim = model_info(o->f->m)->hidden;
    a.rows = KN_TOKENS;
    a.eps = model_info(o->f->m)->eps;
    return a;
}

static void
open_layer(opening_t *o, uint32_t i)
{
    forward_t *f = o->f;
    const acts_t *a = &f->acts;
    const model_info_t *info = model_info(f->m);
    const model_layer_t *w = model_layer(f->m, i);
    layer_t *l = &f->layers[i];
    kn_kv_t kv;

    kv.kv = f->kv;
    kv.stride = forward_block_bytes(f->m, &f->cfg);
    kv.k_off = 2 * i * kv_part_bytes(info, &f->cfg);
    kv.v_off = kv.k_off + kv_part_bytes(info, &f->cfg);
    kv.type = f->cfg.kv_type;
    kv.block_tokens = f->cfg.block_tokens;
    kv.kv_heads = info->kv_heads;
    kv.head_dim = info->head_dim;

    l->attn_norm = norm(o, w->attn_norm, i > 0);
    l->q = matmul(o, w->q, a->n, a->q);
    l->k = matmul(o, w->k, a->n, a->k);
    l->v = matmul(o, w->v, a->n, a->v);

    l->store.q = a->q;
    l->store.k = a->k;
    l->store.v = a->v;
    l->store.cs = a->cs;
    l->store.heads = info->heads;
    l->store.half = info->rope_dims / 2;
    l->store.halves = (uint32_t) info->rope_halves;
    l->store.kv = kv;

    l->attn.q = a->q;
    l->attn.y = a->a;
    l->attn.heads = info->heads;
    l->attn.scale = 1.0f / sqrtf((float) info->head_dim);
    l->attn.kv = kv;

    l->o = matmul(o, w->o, a->a, a->h);
    l->ffn_norm = norm(o, w->ffn_norm, 1);
    l->gate = matmul(o, w->gate, a->n, a->gate);
    l->up = matmul(o, w->up, a->n, a->up);
    l->silu.gate = a->gate;
    l->silu.up = a->up;
    l->silu.dim = info->ffn;
    l->silu.rows = KN_TOKENS;
    l->down = matmul(o, w->down, a->gate, a->h);
}

/* What comes before and after the layers. */
static void
open_ends(opening_t *o)
{
    forward_t *f = o->f;
    const acts_t *a = &f->acts;
    const model_top_t *top = model_top(f->m);
    const model_info_t *info = model_info(f->m);
    double freqs[FREQS_MAX];

    f->embed.w = load(o, top->embed);
    f->embed.y = a->x;

    assert(info->rope_dims / 2 <= FREQS_MAX);
    f->angles.half = info->rope_dims / 2;
    f->angles.cs = a->cs;
    f->angles.freq = alloc(o, f->angles.half, sizeof(double), "angles");

    if (!o->failed) {
        model_rope_freqs(f->m, freqs);
        f->kn->copy_in(
            f->dev, f->angles.freq, freqs, f->angles.half * sizeof(double));
    }

    f->norm = norm(o, top->norm, 1);
    f->gather.x = a->n;
    f->gather.y = a->g;
    f->gather.dim = info->hidden;

    f->output.x = a->g;
    f->output.y = a->logits;
    f->output.rows = KN_OUTS;
    f->output.w = top->output == top->embed ? f->embed.w : load(o, top->output);

    f->sample.logits = a->logits;
    f->sample.out = a->out;
    f->sample.vocab = info->vocab;
}

/* The host's arrays and the device's own memory for steps. */
static void
open_step(opening_t *o)
{
    forward_t *f = o->f;
    uint64_t blocks;
    const forward_cfg_t *c = &f->cfg;
    const model_info_t *info = model_info(f->m);
    kn_limits_t l;
    kn_info_t dev;

    blocks = (c->context + c->block_tokens - 1) / c->block_tokens;
    blocks *= c->rows_max;

    if (blocks > UINT32_MAX) {
        snprintf(o->err, o->errlen,
            "step: expected fewer blocks than 2^32, found %u rows of %u "
            "tokens",
            c->rows_max, c->context);
        o->failed = 1;
        return;
    }

    f->blocks_max = (uint32_t) blocks;
    f->rows = mem_zero(c->rows_max, sizeof(*f->rows));
    f->outs = mem_zero(c->outs_max, sizeof(*f->outs));
    f->blocks = mem_zero(f->blocks_max, sizeof(*f->blocks));
    f->layers = mem_zero(info->layers, sizeof(*f->layers));

    if (f->rows == NULL || f->outs == NULL || f->blocks == NULL
        || f->layers == NULL) {
        snprintf(o->err, o->errlen, "step: not enough memory");
        o->failed = 1;
        return;
    }

    memset(&l, 0, sizeof(l));
    l.tokens = c->tokens_max;
    l.rows = c->rows_max;
    l.outs = c->outs_max;
    l.blocks = f->blocks_max;
    l.context = c->context;
    l.heads = info->heads;
    l.head_dim = info->head_dim;
    l.vocab = info->vocab;
    o->failed = f->kn->reserve(f->dev, &l, o->err, o->errlen) != 0;

    f->kn->info(f->dev, &dev);
    f->host_logits = dev.host;
}

forward_t *
forward_open(const kernels_t *kn, kn_dev_t *dev, const model_t *m,
    const forward_cfg_t *c, char *err, size_t errlen)
{
    uint32_t i;
    forward_t *f;
    opening_t o = {.err = err, .errlen = errlen};

    assert(c->rows_max > 0 && c->tokens_max > 0 && c->outs_max > 0);
    assert(c->block_tokens > 0 && c->blocks > 0 && c->context > 0);
    assert(c->kv_type < KN_KV_TYPES);

    f = mem_zero(1, sizeof(*f));

    if (f == NULL) {
        snprintf(err, errlen, "forward pass: not enough memory");
        return NULL;
    }

    f->kn = kn;
    f->dev = dev;
    f->m = m;
    f->cfg = *c;
    o.f = f;

    open_step(&o);
    open_acts(&o);
    f->kv = alloc(&o, c->blocks, forward_block_bytes(m, c), "KV blocks");

    if (!o.failed) {
        open_ends(&o);
    }

    for (i = 0; i < model_info(m)->layers && !o.failed; i++) {
        open_layer(&o, i);
    }

    if (o.failed) {
        forward_close(f);
        return NULL;
    }

    return f;
}

void
forward_close(forward_t *f)
{
    if (f == NULL) {
        return;
    }

    mem_free(f->rows);
    mem_free(f->outs);
    mem_free(f->blocks);
    mem_free(f->layers);
    mem_free(f);
}

static void
run_layer(const kernels_t *kn, kn_dev_t *dev, const layer_t *l)
{
    kn->rmsnorm(dev, &l->attn_norm);
    kn->matmul(dev, &l->q);
    kn->matmul(dev, &l->k);
    kn->matmul(dev, &l->v);
    kn->rope_store(dev, &l->store);
    kn->attn(dev, &l->attn);
    kn->matmul(dev, &l->o);
    kn->rmsnorm(dev, &l->ffn_norm);
    kn->matmul(dev, &l->gate);
    kn->matmul(dev, &l->up);
    kn->silu_mul(dev, &l->silu);
    kn->matmul(dev, &l->down);
}

/* The ops of a step, for the device to run or record. */
static void
run(void *arg)
{
    uint32_t i;
    const forward_t *f = arg;

    f->kn->embed(f->dev, &f->embed);
    f->kn->rope_angles(f->dev, &f->angles);

    for (i = 0; i < model_info(f->m)->layers; i++) {
        run_layer(f->kn, f->dev, &f->layers[i]);
    }

    f->kn->rmsnorm(f->dev, &f->norm);
    f->kn->gather(f->dev, &f->gather);
    f->kn->matmul(f->dev, &f->output);
    f->kn->sample(f->dev, &f->sample);
}

/* Rows and block tables of b. */
static void
fill_rows(forward_t *f, const batch_t *b, kn_step_t *s)
{
    uint32_t i, j, n;
    const batch_row_t *r;
    kn_row_t *row;

    for (i = 0; i < b->rows_n; i++) {
        r = &b->rows[i];
        row = &f->rows[i];
        assert(r->q_len >= 1 && r->kv_len == r->q_start + r->q_len);
        assert(r->kv_len <= f->cfg.context && r->adapter == 0);

        n = (r->kv_len + f->cfg.block_tokens - 1) / f->cfg.block_tokens;
        assert(n <= r->blocks_n && n <= f->blocks_max - s->blocks_n);

        row->q_start = r->q_start;
        row->q_len = r->q_len;
        row->tok = r->tok;
        row->block = s->blocks_n;
        row->blocks_n = n;

        for (j = 0; j < n; j++) {
            assert(r->blocks[j] < f->cfg.blocks);
            f->blocks[s->blocks_n++] = r->blocks[j];
        }
    }
}

static void
fill_outs(forward_t *f, const batch_t *b)
{
    uint32_t i;
    const batch_out_t *from;
    kn_out_t *to;

    for (i = 0; i < b->outs_n; i++) {
        from = &b->outs[i];
        to = &f->outs[i];
        assert(from->tok < b->tokens_n && from->params != NULL);

        to->tok = from->tok;
        to->pos = from->pos;
        to->choice = from->choice;
        to->known_n = from->known_n;
        to->prompt_n = from->prompt_n;
        to->known = from->known;
        to->params = from->params;
    }
}

void
forward_submit(forward_t *f, const batch_t *b)
{
    kn_step_t s;

    assert(b->rows_n <= f->cfg.rows_max && b->tokens_n <= f->cfg.tokens_max);
    assert(b->outs_n <= f->cfg.outs_max);

    memset(&s, 0, sizeof(s));
    fill_rows(f, b, &s);
    fill_outs(f, b);
    s.tokens_n = b->tokens_n;
    s.rows_n = b->rows_n;
    s.outs_n = b->outs_n;
    s.tokens = b->tokens;
    s.rows = f->rows;
    s.blocks = f->blocks;
    s.outs = f->outs;
    f->outs_n = b->outs_n;

    f->kn->plan(f->dev, &s);
    f->kn->submit(f->dev, run, f);
}

void
forward_wait(forward_t *f, sample_out_t *out)
{
    f->kn->wait(f->dev);

    if (f->outs_n > 0) {
        f->kn->copy_out(f->dev, out, f->acts.out, f->outs_n * sizeof(*out));
    }
}

const float *
forward_logits(const forward_t *f, uint32_t i)
{
    assert(i < f->outs_n);

    if (!f->host_logits) {
        return NULL;
    }

    return (const float *) f->acts.logits.a
           + (size_t) i * model_info(f->m)->vocab;
}
