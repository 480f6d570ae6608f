/*
 * The forward pass: a batch through the layers of one model on one device.
 *
 *      tokens ─embed─> x
 *      for each layer:
 *          x += h;  n = norm(x)                (no h before the first layer)
 *          q, k, v = n Wq, n Wk, n Wv (a call);  norms of q and k
 *          rotate q and k; k, v ─> cache;  a = attention(q, cache)
 *              (of latents: v = norm(n Wv) is one, k what all heads share;
 *              q = q Wkb and a = a Wvb by head, before and after)
 *          h = a Wo;  norm of h
 *          x += h;  n = norm(x)
 *          h = (act(n Wgate) * n Wup: a call) Wdown, or the sum of some
 *              experts' such;  norm of h
 *      x += h;  n = norm(x);  g = n at the output positions
 *      logits = g Wout;  sample
 *
 * DESIGN.  A step is a fixed list of calls, which a device may record.  The
 * list is made when the pass is opened, by one text for every family and back
 * end: a norm or a bias that the model lacks is a call or an argument less,
 * and all numbers come from model.h.  Args structs never change afterwards:
 * what a step brings is in the step block (kernels.h).  The list's last call,
 * which samples, is submitted by itself: a device that computes by itself has
 * begun with the rest while masks are made.
 *
 * A residual is added by the norm that follows it (rmsnorm's add), so that
 * the stream is read once less.
 *
 * The KV pool is one allocation of blocks (forward_kv.c).
 *
 * One of some ranks has the same list over its part of the model
 * (forward_part.c), and a few calls more, where the ranks meet: x after embed,
 * h after Wo and after Wdown are added up over all, and rank 0 gets the parts
 * of the logits.  It alone samples; what it sampled, the next step's tokens
 * tell the others.
 *
 * A forward_t owns its host arrays; device memory belongs to the device.  One
 * thread, the loop, calls it.  The batch comes from the scheduler: what it
 * says is asserted, not judged.
 */
#include "forward.h"
#include "forward_acts.h"
#include "forward_kv.h"
#include "forward_load.h"
#include "forward_part.h"
#include "mem.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Half of the largest head that model.c lets pass, and more. */
#define FREQS_MAX 512

/* The most ops of a layer, and of what comes before and after the layers. */
#define LAYER_OPS 24
#define END_OPS   8

enum {
#define X(op, doc) OP_##op,
    KERNELS(X)
#undef X
};

/* One call of the step's list. */
typedef struct {
    uint32_t op;
    union {
#define X(op, doc) kn_##op##_t op;
        KERNELS(X)
#undef X
    } a;
} op_t;

struct forward_s {
    const kernels_t *kn; /* borrowed */
    kn_dev_t *dev;       /* borrowed */
    const model_t *m;    /* borrowed */
    forward_cfg_t cfg;
    forward_part_t part;
    uint32_t blocks_max; /* block ids of a step */
    forward_acts_t acts;
    kn_ptr_t kv;   /* [cfg.blocks] blocks */
    kn_ptr_t host; /* [cfg.host_blocks] blocks, of the host; or null */
    uint64_t copies;
    op_t *ops; /* [ops_max], owned: what a step calls, in order */
    uint32_t ops_n, ops_max;
    kn_row_t *rows;   /* [rows_max], owned */
    uint32_t *blocks; /* [blocks_max], owned */
    kn_out_t *outs;   /* [outs_max], owned */
    uint32_t *tokens; /* [tokens_max], owned; of a step that has late ones */
    uint32_t *last;   /* [outs_max], owned; what the step before sampled */
    forward_held_t held;
    uint32_t outs_n;        /* of the step submitted last */
    int host_logits;        /* of the device: kn_info_t */
    const kn_w_t **experts; /* [layers, 3, experts], owned */
    void (*watch)(void *arg);
    void *watch_arg;
    void (*masks)(void *arg, const batch_t *b);
    void *masks_arg;
    forward_tell_t tell; /* all NULL: nobody is told */
};

/* What there is of the model in this rank. */
static const model_info_t *
info_of(const forward_t *f)
{
    return &f->part.info;
}

/* An opening: what is put on the device, and for whom. */
typedef struct {
    forward_t *f;
    forward_load_t l;
} opening_t;

/* The next call of the list. */
static void
push(opening_t *o, uint32_t op, const void *args, size_t size)
{
    op_t *to;
    forward_t *f = o->f;

    if (o->l.failed) {
        return;
    }

    assert(f->ops_n < f->ops_max && size <= sizeof(to->a));
    to = &f->ops[f->ops_n++];
    to->op = op;
    memcpy(&to->a, args, size);
}

#define PUSH(o, name, args) push(o, OP_##name, args, sizeof(kn_##name##_t))

/* Products of x, none yet; product() adds them and PUSH calls them. */
static kn_matmul_t
products(kn_ptr_t x)
{
    kn_matmul_t a;

    memset(&a, 0, sizeof(a));
    a.x = x;
    a.rows = KN_TOKENS;

    return a;
}

/* All rows of w. */
static forward_cut_t
whole(const tensor_t *w)
{
    return (forward_cut_t){0, (uint32_t) w->dims[1]};
}

/* Those of the rank's heads, of so many each. */
static forward_cut_t
heads_rows(const opening_t *o, uint32_t rows)
{
    const forward_part_t *p = &o->f->part;

    return (forward_cut_t){p->head * rows, p->info.heads * rows};
}

static forward_cut_t
kv_rows(const opening_t *o, uint32_t rows)
{
    const forward_part_t *p = &o->f->part;

    return (forward_cut_t){p->kv_head * rows, p->info.kv_heads * rows};
}

/* y = x w^T + bias for some rows of w; bias is a tensor or NULL. */
static void
product(opening_t *o, kn_matmul_t *a, const tensor_t *w, const tensor_t *bias,
    forward_cut_t rows, kn_ptr_t y)
{
    kn_product_t *p = &a->of[a->n++];

    assert(a->n <= KN_PRODUCTS_MAX);
    p->w = forward_load_rows(&o->l, w, rows);
    p->bias = forward_some_cut(&o->l, bias, rows);
    p->y = y;
    p->scale = 1;
}

/* The activations in x of all ranks, added up. */
static void
meet(opening_t *o, kn_ptr_t x)
{
    kn_comm_sum_t a;

    a.x = x;
    a.dim = info_of(o->f)->hidden;
    a.rows = KN_TOKENS;

    if (o->f->part.ranks > 1) {
        PUSH(o, comm_sum, &a);
    }
}

/*
 * The way back to the stream: y = scale * (x w^T + bias), x being some columns
 * of w; the ranks have yet to meet.
 */
static void
back(opening_t *o, const tensor_t *w, const tensor_t *bias, forward_cut_t cols,
    kn_ptr_t x, kn_ptr_t y, float scale)
{
    kn_matmul_t a = products(x);
    kn_product_t *p = &a.of[a.n++];

    p->w = forward_load_cols(&o->l, w, cols);
    p->bias = forward_some_vector(&o->l, o->f->part.rank == 0 ? bias : NULL);
    p->y = y;
    p->scale = scale;
    PUSH(o, matmul, &a);
}

/*
 * The stream's residual, where there is one, and its norm in acts.n; without
 * a norm's weight the residual only.  Where the result is.
 */
static kn_ptr_t
norm_stream(opening_t *o, const tensor_t *w, int residual)
{
    kn_rmsnorm_t a;
    kn_add_t add;
    const forward_acts_t *acts = &o->f->acts;
    const model_info_t *info = info_of(o->f);

    if (w == NULL) {
        add.x = acts->x;
        add.add = acts->h;
        add.gate.a = 0;
        add.dim = info->hidden;
        add.rows = KN_TOKENS;

        if (residual) {
            PUSH(o, add, &add);
        }

        return acts->x;
    }

    memset(&a, 0, sizeof(a));
    a.x = acts->x;
    a.add.a = residual ? acts->h.a : 0;
    a.w = forward_vector(&o->l, w, info_of(o->f)->norm_offset);
    a.y = acts->n;
    a.parts = 1;
    a.dim = info->hidden;
    a.rows = KN_TOKENS;
    a.eps = info->eps;
    PUSH(o, rmsnorm, &a);

    return acts->n;
}

/* The norm of x [tokens, width], if it has one: of each part as long as w. */
static void
norm_by(opening_t *o, const tensor_t *w, kn_ptr_t x, uint32_t width, float eps)
{
    kn_rmsnorm_t a;

    if (w == NULL) {
        return;
    }

    assert(w->dims[0] > 0 && width % w->dims[0] == 0);
    memset(&a, 0, sizeof(a));
    a.x = x;
    a.w = forward_vector(&o->l, w, info_of(o->f)->norm_offset);
    a.y = x;
    a.dim = (uint32_t) w->dims[0];
    a.parts = width / a.dim;
    a.rows = KN_TOKENS;
    a.eps = eps;
    PUSH(o, rmsnorm, &a);
}

static void
norm_parts(opening_t *o, const tensor_t *w, kn_ptr_t x, uint32_t width)
{
    norm_by(o, w, x, width, info_of(o->f)->eps);
}

/* y = each head of x by its own of w, what x has beyond going before. */
static void
headmul(opening_t *o, const kn_w_t *w, kn_ptr_t x, kn_ptr_t y, uint32_t rest)
{
    kn_headmul_t a;

    a.w = w;
    a.x = x;
    a.y = y;
    a.heads = info_of(o->f)->heads;
    a.rest = rest;
    a.rows = KN_TOKENS;
    PUSH(o, headmul, &a);
}

/* Layer i's place in the cache. */
static kn_kv_t
layer_kv(const forward_t *f, uint32_t i)
{
    kn_kv_t kv;
    uint32_t slot;
    const model_info_t *info = info_of(f), *all = model_info(f->m);

    model_place(f->m, &f->cfg.groups, i, &kv.group, &slot);
    kv.kv = f->kv;
    kv.stride = forward_block_bytes(f->m, &f->cfg);
    kv.k_off = slot * forward_kv_layer(all, &f->cfg);
    kv.v_off = kv.k_off + forward_kv_part(all, &f->cfg);
    kv.type = f->cfg.kv_type;
    kv.block_tokens = f->cfg.block_tokens;
    kv.kv_heads = info->kv_heads;
    kv.head_dim = info->head_dim;
    kv.v_dim = info->latent > 0 ? info->latent : info->head_dim;
    kv.inside = info->latent > 0;

    return kv;
}

/* From q, k and v, queries in at, to the attention's result in acts.a. */
static void
open_attention(opening_t *o, uint32_t i, kn_ptr_t q)
{
    const forward_t *f = o->f;
    const forward_acts_t *a = &f->acts;
    const model_info_t *info = info_of(f);
    const model_layer_t *w = model_layer(f->m, i);
    kn_rope_store_t store;
    kn_attn_t attn;

    assert(w->rope >= MODEL_ROPES_MAX || w->rope < info->ropes);
    memset(&store, 0, sizeof(store));
    store.q = q;
    store.k = a->k;
    store.v = a->v;
    store.heads = info->heads;
    store.halves = (uint32_t) info->rope_halves;
    store.kv = layer_kv(f, i);

    if (w->rope < MODEL_ROPES_MAX) {
        store.cs = a->cs[w->rope];
        store.half = info->rope_dims / 2;
    }

    PUSH(o, rope_store, &store);

    memset(&attn, 0, sizeof(attn));
    attn.q = q;
    attn.y = a->a;
    attn.sinks = forward_some_cut(&o->l, w->sinks, heads_rows(o, 1));
    attn.heads = info->heads;
    attn.window = w->window;
    attn.scale = info->attn_scale;
    attn.cap = info->attn_cap;
    attn.kv = store.kv;
    PUSH(o, attn, &attn);
}

/* The kernels' number of the gate's activation. */
static uint32_t
act_of(const model_info_t *info)
{
    return info->act_limit > 0 ? KN_CLAMP : info->gelu ? KN_GELU : KN_SILU;
}

/* From x to the attention's result; where it is. */
static kn_ptr_t
open_heads(opening_t *o, uint32_t i, kn_ptr_t x)
{
    const forward_acts_t *a = &o->f->acts;
    const model_info_t *info = info_of(o->f);
    const model_layer_t *w = model_layer(o->f->m, i);
    kn_matmul_t qkv = products(x);

    product(o, &qkv, w->q, w->q_bias, heads_rows(o, info->head_dim), a->q);
    product(o, &qkv, w->k, w->k_bias, kv_rows(o, info->head_dim), a->k);
    product(o, &qkv, w->v, w->v_bias, kv_rows(o, info->head_dim), a->v);
    PUSH(o, matmul, &qkv);
    norm_parts(o, w->q_norm, a->q, info->heads * info->head_dim);
    norm_parts(o, w->k_norm, a->k, info->kv_heads * info->head_dim);
    open_attention(o, i, a->q);
    return a->a;
}

/* The same of latents. */
static kn_ptr_t
open_latents(opening_t *o, uint32_t i, kn_ptr_t x)
{
    const forward_acts_t *a = &o->f->acts;
    const model_info_t *info = info_of(o->f);
    const model_layer_t *w = model_layer(o->f->m, i);
    const kn_w_t *k = NULL, *v = NULL;
    kn_matmul_t qkv = products(x), q = products(a->qa);
    forward_cut_t heads = heads_rows(o, info->key_dim + info->rope_dims);

    if (w->q_a != NULL) {
        product(o, &qkv, w->q_a, NULL, whole(w->q_a), a->qa);
    } else {
        product(o, &qkv, w->q, NULL, heads, a->q);
    }

    product(o, &qkv, w->k, NULL, whole(w->k), a->k);
    product(o, &qkv, w->v, NULL, whole(w->v), a->v);
    PUSH(o, matmul, &qkv);

    if (w->q_a != NULL) {
        norm_by(o, w->q_a_norm, a->qa, info->q_latent, info->latent_eps);
        product(o, &q, w->q, NULL, heads, a->q);
        PUSH(o, matmul, &q);
    }

    forward_load_latent(&o->l, w, &k, &v);
    norm_by(o, w->v_norm, a->v, info->latent, info->latent_eps);
    headmul(o, k, a->q, a->ql, info->rope_dims);
    open_attention(o, i, a->ql);
    headmul(o, v, a->a, a->q, 0);
    return a->q;
}

/*
 * y = act(x gate^T + gate_bias, x up^T + up_bias) for some rows of them;
 * biases may be NULL
 */
static void
gated(opening_t *o, const tensor_t *gate, const tensor_t *gate_bias,
    const tensor_t *up, const tensor_t *up_bias, forward_cut_t rows, kn_ptr_t x,
    kn_ptr_t y)
{
    kn_gated_t a;

    memset(&a, 0, sizeof(a));
    a.gate = forward_load_rows(&o->l, gate, rows);
    a.gate_bias = forward_some_cut(&o->l, gate_bias, rows);
    a.up = forward_load_rows(&o->l, up, rows);
    a.up_bias = forward_some_cut(&o->l, up_bias, rows);
    a.x = x;
    a.y = y;
    a.rows = KN_TOKENS;
    a.act = act_of(info_of(o->f));
    a.limit = info_of(o->f)->act_limit;
    PUSH(o, gated, &a);
}

/* From the norm's result to acts.h, by one gate for all tokens. */
static void
open_gate(opening_t *o, const model_layer_t *w, kn_ptr_t x)
{
    const forward_acts_t *a = &o->f->acts;
    const model_info_t *info = info_of(o->f);

    const forward_cut_t ffn = forward_part_ffn(&o->f->part, w->down);

    gated(o, w->gate, w->gate_bias, w->up, w->up_bias, ffn, x, a->gate);
    back(o, w->down, w->down_bias, ffn, a->gate, a->h, info->residual_scale);
}

/*
 * The experts' matrices, as the op takes them: one expert after another, since
 * two of its matrices may share the file's pages.
 */
static void
load_experts(
    opening_t *o, const model_layer_t *w, const kn_w_t **at, kn_moe_ffn_t *moe)
{
    uint32_t i, n = info_of(o->f)->experts;
    const forward_cut_t ffn = forward_part_ffn(&o->f->part, w->experts_down[0]);

    assert(w->experts_gate != NULL && w->experts_up != NULL);
    moe->gate = at;
    moe->up = at + n;
    moe->down = at + 2 * (size_t) n;

    for (i = 0; i < n; i++) {
        at[i] = forward_load_rows(&o->l, w->experts_gate[i], ffn);
        at[n + i] = forward_load_rows(&o->l, w->experts_up[i], ffn);
        at[2 * (size_t) n + i] =
            forward_load_cols(&o->l, w->experts_down[i], ffn);
    }

    moe->ffn = ffn.n;
    moe->gate_bias = forward_some_cut(&o->l, w->experts_gate_bias, ffn);
    moe->up_bias = forward_some_cut(&o->l, w->experts_up_bias, ffn);

    if (o->f->part.rank == 0) {
        moe->down_bias = forward_some_vector(&o->l, w->experts_down_bias);
    }
}

/* The same by those of each token's experts. */
static void
open_experts(opening_t *o, uint32_t i, kn_ptr_t x)
{
    const forward_acts_t *a = &o->f->acts;
    const model_info_t *info = info_of(o->f);
    const model_layer_t *w = model_layer(o->f->m, i);
    const kn_w_t **at = o->f->experts + (size_t) i * 3 * info->experts;
    kn_matmul_t routers = products(x);
    kn_router_t router;
    kn_moe_ffn_t moe;

    memset(&moe, 0, sizeof(moe));
    assert(info->residual_scale == 1 && info->experts_used > 0);
    product(
        o, &routers, w->router, w->router_bias, whole(w->router), a->router);

    if (w->shared_router != NULL) {
        product(o, &routers, w->shared_router, NULL, whole(w->shared_router),
            a->shared_by);
    }

    PUSH(o, matmul, &routers);
    memset(&router, 0, sizeof(router));
    router.logits = a->router;
    router.ids = a->ids;
    router.weights = a->weights;
    router.experts = info->experts;
    router.used = info->experts_used;
    router.groups = info->groups;
    router.groups_used = info->groups_used;
    router.group_best = info->group_best;
    router.score = info->experts_sigmoid ? KN_SIGMOID : KN_SOFTMAX;
    router.normed = (uint32_t) info->experts_normed;
    router.scale = info->experts_scale;

    if (w->choice_bias != NULL) {
        router.bias = forward_vector(&o->l, w->choice_bias, 0);
    }

    router.rows = KN_TOKENS;
    PUSH(o, router, &router);

    load_experts(o, w, at, &moe);
    moe.x = x;
    moe.ids = a->ids;
    moe.weights = a->weights;
    moe.mid = a->gate;
    moe.y = a->h;
    moe.dim = info->hidden;
    moe.experts = info->experts;
    moe.used = info->experts_used;
    moe.rows = KN_TOKENS;
    moe.act = act_of(info);
    moe.limit = info->act_limit;
    PUSH(o, moe_ffn, &moe);
}

/* What the expert of all tokens adds to acts.h. */
static void
open_shared(opening_t *o, const model_layer_t *w, kn_ptr_t x)
{
    const forward_acts_t *a = &o->f->acts;
    const model_info_t *info = info_of(o->f);
    const forward_cut_t ffn = forward_part_ffn(&o->f->part, w->shared_down);
    kn_add_t add;

    gated(o, w->shared_gate, NULL, w->shared_up, NULL, ffn, x, a->shared);
    back(o, w->shared_down, NULL, ffn, a->shared, a->h2, 1);
    add.x = a->h;
    add.add = a->h2;
    add.gate.a = w->shared_router != NULL ? a->shared_by.a : 0;
    add.dim = info->hidden;
    add.rows = KN_TOKENS;
    PUSH(o, add, &add);
}

/* The args of a layer's ops; what its family has not is null and not called. */
static void
open_layer(opening_t *o, uint32_t i)
{
    const forward_t *f = o->f;
    const forward_acts_t *a = &f->acts;
    const model_info_t *info = info_of(f);
    const model_layer_t *w = model_layer(f->m, i);
    kn_ptr_t x;

    x = norm_stream(o, w->attn_norm, i > 0);
    x = info->latent > 0 ? open_latents(o, i, x) : open_heads(o, i, x);
    back(o, w->o, w->o_bias,
        heads_rows(o, info->latent > 0 ? info->value_dim : info->head_dim), x,
        a->h, info->residual_scale);
    meet(o, a->h);
    norm_parts(o, w->attn_post_norm, a->h, info->hidden);

    x = norm_stream(o, w->ffn_norm, 1);

    if (w->router != NULL) {
        open_experts(o, i, x);

        if (w->shared_gate != NULL) {
            open_shared(o, w, x);
        }

    } else {
        open_gate(o, w, x);
    }

    meet(o, a->h);
    norm_parts(o, w->ffn_post_norm, a->h, info->hidden);
}

/* Token ids to vectors and angles; *embed is the weight, for a tied output. */
static void
open_begin(opening_t *o, const kn_w_t **embed)
{
    forward_t *f = o->f;
    uint32_t i;
    kn_embed_t a;
    kn_rope_angles_t angles;
    const model_info_t *info = info_of(f);
    double freqs[FREQS_MAX];

    a.w = forward_load_rows(&o->l, model_top(f->m)->embed, f->part.vocab);
    a.y = f->acts.x;
    a.scale = info->embed_scale;
    a.first = f->part.vocab.at;
    *embed = a.w;
    PUSH(o, embed, &a);
    meet(o, f->acts.x);

    assert(info->rope_dims / 2 <= FREQS_MAX);

    for (i = 0; i < info->ropes && !o->l.failed; i++) {
        angles.half = info->rope_dims / 2;
        angles.cs = f->acts.cs[i];
        angles.freq =
            forward_alloc(&o->l, angles.half, sizeof(double), "angles");
        angles.scale = model_rope_freqs(f->m, i, f->cfg.context, freqs);

        if (!o->l.failed) {
            f->kn->copy_in(
                f->dev, angles.freq, freqs, angles.half * sizeof(double));
            PUSH(o, rope_angles, &angles);
        }
    }
}

/* The last residual to the sampled tokens. */
static void
open_end(opening_t *o, const kn_w_t *embed)
{
    const forward_t *f = o->f;
    const model_top_t *top = model_top(f->m);
    const model_info_t *info = info_of(f);
    kn_gather_t gather;
    kn_matmul_t output = products(f->acts.g);
    kn_product_t *logits = &output.of[output.n++];
    kn_comm_gather_t all = {f->acts.own, f->acts.logits, info->vocab, KN_OUTS};
    kn_sample_t sample;

    gather.x = norm_stream(o, top->norm, 1);
    gather.y = f->acts.g;
    gather.dim = info->hidden;
    PUSH(o, gather, &gather);

    output.rows = KN_OUTS;
    logits->w = top->output == top->embed
                    ? embed
                    : forward_load_rows(&o->l, top->output, f->part.vocab);
    logits->y = f->part.ranks > 1 ? f->acts.own : f->acts.logits;
    logits->scale = info->logit_scale;
    logits->cap = info->logit_cap;
    PUSH(o, matmul, &output);

    if (f->part.ranks > 1) {
        PUSH(o, comm_gather, &all);
    }

    sample.logits = f->acts.logits;
    sample.out = f->acts.out;
    sample.vocab = info->vocab;
    PUSH(o, sample, &sample);
}

/* The host's arrays and the device's own memory for steps. */
static void
open_step(opening_t *o)
{
    forward_t *f = o->f;
    uint64_t blocks;
    kv_cfg_t kc;
    const forward_cfg_t *c = &f->cfg;
    const model_info_t *info = info_of(f);
    kn_limits_t l;
    kn_info_t dev;

    forward_kv(c, c->rows_max, &kc);
    blocks = kv_blocks_for(&kc, c->context) * c->rows_max;

    if (blocks > UINT32_MAX) {
        snprintf(o->l.err, o->l.errlen,
            "step: expected fewer blocks than 2^32, found %u rows of %u "
            "tokens",
            c->rows_max, c->context);
        o->l.failed = 1;
        return;
    }

    f->blocks_max = (uint32_t) blocks;
    f->rows = mem_zero(c->rows_max, sizeof(*f->rows));
    f->outs = mem_zero(c->outs_max, sizeof(*f->outs));
    f->blocks = mem_zero(f->blocks_max, sizeof(*f->blocks));
    f->tokens = mem_zero(c->tokens_max, sizeof(*f->tokens));
    f->last = mem_zero(c->outs_max, sizeof(*f->last));
    f->ops_max = info->layers * LAYER_OPS + END_OPS;
    f->ops = mem_zero(f->ops_max, sizeof(*f->ops));
    f->experts = mem_zero(
        (size_t) info->layers * 3 * info->experts + 1, sizeof(*f->experts));

    if (f->rows == NULL || f->outs == NULL || f->blocks == NULL
        || f->tokens == NULL || f->last == NULL || f->ops == NULL
        || f->experts == NULL) {
        snprintf(o->l.err, o->l.errlen, "step: not enough memory");
        o->l.failed = 1;
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

    if (info->experts > 0) {
        l.used = info->experts_used;
        l.expert_k =
            info->hidden > info->expert_ffn ? info->hidden : info->expert_ffn;
    }

    o->l.failed = f->kn->reserve(f->dev, &l, o->l.err, o->l.errlen) != 0;

    f->kn->info(f->dev, &dev);
    f->host_logits = dev.host;
    o->l.blind = dev.blind;
}

/* The second arena. */
static void
open_host(opening_t *o)
{
    forward_t *f = o->f;
    uint64_t bytes = f->cfg.host_blocks * forward_block_bytes(f->m, &f->cfg);

    if (bytes == 0 || o->l.failed) {
        return;
    }

    f->host = f->kn->alloc_host(f->dev, bytes);
    f->held.host = bytes;

    if (f->host.a == 0) {
        snprintf(o->l.err, o->l.errlen,
            "KV blocks in host memory: expected %llu bytes, found no memory "
            "for them",
            (unsigned long long) bytes);
        o->l.failed = 1;
    }
}

forward_t *
forward_open(const kernels_t *kn, kn_dev_t *dev, const model_t *m,
    const forward_cfg_t *c, char *err, size_t errlen)
{
    uint32_t i;
    forward_t *f;
    const kn_w_t *embed = NULL;
    opening_t o = {
        .l = {.kn = kn, .dev = dev, .m = m, .err = err, .errlen = errlen}};

    assert(c->rows_max > 0 && c->tokens_max > 0 && c->outs_max > 0);
    assert(c->block_tokens > 0 && c->blocks > 0 && c->context > 0);
    assert(c->kv_type < KN_KV_TYPES);
    assert(c->groups.n <= KN_GROUPS && c->groups.n <= BATCH_GROUPS);

    assert(c->rank < forward_ranks(c));

    if (forward_kv_fits(m, c->kv_type, err, errlen) != 0) {
        return NULL;
    }

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
    o.l.part = &f->part;
    o.l.held = &f->held;

    if (forward_part(&f->part, m, c->rank, forward_ranks(c), err, errlen)
        != 0) {
        forward_close(f);
        return NULL;
    }

    open_step(&o);
    o.l.count = &f->held.acts;
    forward_acts(&o.l, c, &f->acts);
    o.l.count = &f->held.kv;
    f->kv =
        forward_alloc(&o.l, c->blocks, forward_block_bytes(m, c), "KV blocks");
    open_host(&o);
    o.l.count = &f->held.weights[KN_F32].bytes;

    open_begin(&o, &embed);

    for (i = 0; i < model_info(m)->layers && !o.l.failed; i++) {
        open_layer(&o, i);
    }

    open_end(&o, embed);

    if (o.l.failed) {
        forward_close(f);
        return NULL;
    }

    return f;
}

const forward_held_t *
forward_held(const forward_t *f)
{
    return &f->held;
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
    mem_free(f->tokens);
    mem_free(f->last);
    mem_free(f->ops);
    mem_free(f->experts);
    mem_free(f);
}

static void
run_op(const forward_t *f, const op_t *o)
{
    if (f->watch != NULL) {
        f->watch(f->watch_arg);
    }

    switch (o->op) {
#define X(name, doc)                                                           \
    case OP_##name:                                                            \
        f->kn->name(f->dev, &o->a.name);                                       \
        break;
        KERNELS(X)
#undef X
    }
}

/* The ops of a step, for the device to run or record: all but the last. */
static void
run(void *arg)
{
    const forward_t *f = arg;
    uint32_t i;

    for (i = 0; i + 1 < f->ops_n; i++) {
        run_op(f, &f->ops[i]);
    }
}

/* And that one. */
static void
run_sample(void *arg)
{
    const forward_t *f = arg;

    assert(f->ops_n > 0 && f->ops[f->ops_n - 1].op == OP_sample);
    run_op(f, &f->ops[f->ops_n - 1]);
}

/* The group's blocks that row's tokens read and write. */
static void
fill_blocks(forward_t *f, const batch_row_t *r, uint32_t group, kn_row_t *row,
    kn_step_t *s)
{
    const batch_blocks_t *from = &r->blocks[group];
    kn_blocks_t *to = &row->blocks[group];
    uint32_t i, first = 0, end, window = f->cfg.groups.window[group];

    if (window > 0 && r->q_start >= window) {
        first = (r->q_start - window + 1) / f->cfg.block_tokens;
    }

    end = (r->kv_len + f->cfg.block_tokens - 1) / f->cfg.block_tokens;
    assert(first >= from->first && end - from->first <= from->n);
    assert(end - first <= f->blocks_max - s->blocks_n);

    to->at = s->blocks_n;
    to->first = first;
    to->n = end - first;

    for (i = first; i < end; i++) {
        assert(from->ids[i - from->first] < f->cfg.blocks);
        f->blocks[s->blocks_n++] = from->ids[i - from->first];
    }
}

/* Rows and block tables of b. */
static void
fill_rows(forward_t *f, const batch_t *b, kn_step_t *s)
{
    uint32_t i, g;
    const batch_row_t *r;
    kn_row_t *row;

    for (i = 0; i < b->rows_n; i++) {
        r = &b->rows[i];
        row = &f->rows[i];
        assert(r->q_len >= 1 && r->kv_len == r->q_start + r->q_len);
        assert(r->kv_len <= f->cfg.context && r->adapter == 0);

        row->q_start = r->q_start;
        row->q_len = r->q_len;
        row->tok = r->tok;
        fill_blocks(f, r, 0, row, s);

        for (g = 1; g < f->cfg.groups.n; g++) {
            fill_blocks(f, r, g, row, s);
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
        to->wanted = from->wanted;
        to->mask = NULL;
    }
}

/* The masks, made now, to the device. */
static void
put_masks(forward_t *f, const batch_t *b)
{
    uint32_t i, any = 0;

    if (f->masks != NULL) {
        f->masks(f->masks_arg, b);
    }

    for (i = 0; i < b->outs_n; i++) {
        f->outs[i].mask = b->outs[i].mask;
        any |= b->outs[i].mask != NULL;
    }
    if (any) {
        f->kn->masks(f->dev, f->outs);
    }
}

/*
 * The step's tokens, with those that its plan did not know.  A device that has
 * more than one step in its queue would take them from what it sampled itself.
 */
static const uint32_t *
fill_tokens(forward_t *f, const batch_t *b)
{
    uint32_t i;

    if (b->late_n == 0) {
        return b->tokens;
    }

    memcpy(f->tokens, b->tokens, b->tokens_n * sizeof(uint32_t));
    for (i = 0; i < b->late_n; i++) {
        assert(b->late[i].tok < b->tokens_n && b->late[i].out < f->outs_n);
        f->tokens[b->late[i].tok] = f->last[b->late[i].out];
    }

    return f->tokens;
}

void
forward_watch(forward_t *f, void (*fn)(void *arg), void *arg)
{
    f->watch = fn;
    f->watch_arg = arg;
}

void
forward_masks(forward_t *f, void (*fn)(void *arg, const batch_t *b), void *arg)
{
    f->masks = fn;
    f->masks_arg = arg;
}

void
forward_tell(forward_t *f, const forward_tell_t *t)
{
    f->tell = *t;
}

void
forward_follow(forward_t *f, const kn_step_t *s)
{
    assert(s->tokens_n <= f->cfg.tokens_max && s->rows_n <= f->cfg.rows_max);
    assert(s->blocks_n <= f->blocks_max && s->outs_n <= f->cfg.outs_max);

    f->outs_n = s->outs_n;
    f->kn->plan(f->dev, s);
    f->kn->submit(f->dev, run, f);
    (void) f->kn->wait(f->dev); /* who told the step hears of it too */
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
    s.list = f;
    s.tokens = fill_tokens(f, b);
    s.rows = f->rows;
    s.blocks = f->blocks;
    s.outs = f->outs;
    f->outs_n = b->outs_n;

    if (f->tell.step != NULL) {
        f->tell.step(f->tell.arg, &s);
    }
    f->kn->plan(f->dev, &s);
    f->kn->begin(f->dev, run, f);
    put_masks(f, b);
    f->kn->submit(f->dev, run_sample, f);
}

int
forward_wait(forward_t *f, sample_out_t *out)
{
    const sample_out_t *sampled = (const sample_out_t *) f->acts.out.a;
    uint32_t i;
    int rc = f->kn->wait(f->dev);

    if (rc != 0) {
        return rc;
    }
    if (f->outs_n > 0) {
        memcpy(out, sampled, f->outs_n * sizeof(*out));
    }
    for (i = 0; i < f->outs_n; i++) {
        f->last[i] = out[i].err == 0 ? out[i].token : 0;
    }

    return 0;
}

const char *
forward_error(const forward_t *f)
{
    return comm_error(f->cfg.comm);
}

uint64_t
forward_copy(
    forward_t *f, int in, const uint32_t *from, const uint32_t *to, uint32_t n)
{
    uint32_t i, blocks = f->cfg.blocks, host = f->cfg.host_blocks;
    kn_copy_t a;

    assert(n > 0 && f->host.a != 0);

    for (i = 0; i < n; i++) {
        assert(from[i] < (in ? host : blocks) && to[i] < (in ? blocks : host));
    }

    a.src = in ? f->host : f->kv;
    a.dst = in ? f->kv : f->host;
    a.stride = forward_block_bytes(f->m, &f->cfg);
    a.from = from;
    a.to = to;
    a.n = n;

    if (f->tell.copy != NULL) {
        f->tell.copy(f->tell.arg, in, from, to, n);
    }
    f->kn->copy(f->dev, &a);

    return f->copies++;
}

int
forward_copied(const forward_t *f, uint64_t nth)
{
    assert(nth < f->copies);

    return f->kn->copied(f->dev, nth);
}

const float *
forward_logits(const forward_t *f, uint32_t i)
{
    assert(i < f->outs_n);

    if (!f->host_logits) {
        return NULL;
    }

    return (const float *) f->acts.logits.a + (size_t) i * info_of(f)->vocab;
}

const float *
forward_vectors(const forward_t *f)
{
    return f->host_logits ? (const float *) f->acts.g.a : NULL;
}
