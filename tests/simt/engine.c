/*
 * The whole engine on a device that the CPU emulates, beside the same engine
 * on the CPU's own kernels: 32 requests of all kinds through loop, scheduler,
 * block pool, prefix cache, grammars and forward pass, tokens equal.
 *
 *     engine LIBRARY [MODEL ...]   llm_cuda_simt.so, or llm_cuda.so on a GPU;
 *                                  MODEL is one of shapes[], all by default
 *
 * Would catch: a step whose chunks and single tokens are mixed up on the way
 * to the device, a block table, mask, penalty or late token that is another
 * row's, a copy that comes too late, a recorded step that is replayed where it
 * does not belong, memory that a step leaves behind for the next.
 *
 * Where the cache is F32 each token, sampled or not, and each way to end must
 * be equal, and logprobs within 1e-4: the sums differ by F32's rounding only.
 * Where it is F16 attention is on tensor cores, which round queries and
 * weights to F16 as well: there all choices are the largest logit's, and the
 * first token of a text that differs may do so only where the CPU's two best
 * were nearer than what that rounding does, NEAR; what follows it is another
 * text.  At most every eighth text has one.
 *
 * All is in one thread: bells are this file's, which lets requests come and
 * one client leave when the loop rings for text_out, at the end of each turn.
 *
 * LLM_SIMT_SEED and LLM_SIMT_THREADS are the emulator's (rt_twin.cc).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "../unit/safetensors_make.h"
#include "grammar_cache.h"
#include "live.h"
#include "loop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    REQS = 32,
    AT_ONCE = 20, /* that are there at the start; the others come by twos */
    CHOICES = 2,
    ROWS = 12,
    TOKENS = 24, /* of a step: longer prompts come in chunks */
    OUTS = ROWS + 16,
    CONTEXT = 64,
    BT = 4,
    BLOCKS = 32, /* less than the running ones want */
    HOST_BLOCKS = 30,
    LEAVES = 9, /* the client that does, after its second token */
    HIDDEN = 32,
    LAYERS = 2,
    HEADS = 4,
    KV_HEADS = 2,
    FFN = 48,
    EXPERTS = 4,
    EXPERT_FFN = 32
};

#define NEAR 1e-2f /* see the top */

/* A model, and how it is run. */
typedef struct {
    const char *name, *config;
    const char *isa; /* of the CPU: with BF16 weights some round what they
                      * multiply, and ref does not */
    uint32_t head_dim, kv_type, depth;
    int f32;           /* is the type of the weights that, or BF16? */
    uint32_t experts;  /* layers from this one on have them */
    int norms, biases; /* of queries and keys */
    int host;          /* is there a second tier? */
} shape_t;

#define COMMON                                                                 \
    "\"num_hidden_layers\":2,\"hidden_size\":32,\"intermediate_size\":48,"     \
    "\"max_position_embeddings\":512,\"num_attention_heads\":4,"               \
    "\"num_key_value_heads\":2,\"vocab_size\":278,\"eos_token_id\":277,"       \
    "\"tie_word_embeddings\":false,\"rope_theta\":10000,"

#define SPARSE                                                                 \
    "\"num_experts\":4,\"num_experts_per_tok\":2,\"norm_topk_prob\":true,"     \
    "\"decoder_sparse_step\":1,\"moe_intermediate_size\":32"

/* The first has something of all, and is what runs in short. */
static const shape_t shapes[] = {
    {"all",
        "{\"model_type\":\"qwen3_moe\"," COMMON SPARSE
        ",\"head_dim\":16,\"mlp_only_layers\":[0]}",
        "auto", 16, KN_F32, 1, 1, 1, 1, 0, 1},
    {"jumps",
        "{\"model_type\":\"qwen3_moe\"," COMMON SPARSE ",\"head_dim\":32}",
        "ref", 32, KN_F32, 0, 0, 0, 1, 0, 0},
    {"tensor cores", "{\"model_type\":\"qwen3\"," COMMON "\"head_dim\":64}",
        "ref", 64, KN_F16, 1, 0, LAYERS, 1, 0, 1},
    {"biases", "{\"model_type\":\"qwen2\"," COMMON "\"head_dim\":8}", "ref", 8,
        KN_F32, 0, 0, LAYERS, 0, 1, 1},
};

/* What became of a text. */
typedef struct {
    uint32_t ids[CONTEXT], n, finish;
    float logprob[CONTEXT], margin[CONTEXT]; /* of the best two logprobs */
} text_t;

/* And of all of them. */
typedef struct {
    text_t texts[REQS][CHOICES];
    float prompt[CONTEXT]; /* logprobs of a prompt that asked for them */
    uint32_t prompt_n;
    uint32_t err[REQS], ends[REQS];
    uint32_t steps, mixed, chunks; /* with both kinds of row; with cut ones */
    uint64_t preemptions, hits, fetched;
    uint64_t recorded, replayed; /* steps, where the device does that */
} tale_t;

/* The engine that runs now. */
typedef struct {
    const shape_t *shape;
    tale_t *tale;
    const kernels_t *kn; /* the real table */
    kernels_t table;     /* with plan() as it is here */
    inner_t *in;
    loop_t *loop;
    token_t *tok;
    grammar_cache_t *grammars;
    llm_state_t state;
    llm_seg_head_t seg;
    llm_slot_line_t lines[REQS];
    uint32_t dead;
    sample_bias_t bias[2];
    uint32_t come; /* requests that have */
} rig_t;

static rig_t *g; /* bells and plan() have no argument to carry it */
static const char *library;
static char *models[8];
static int models_n;


/* --- a model ------------------------------------------------------------ */

static uint32_t random_now;

/* From -1 to 1. */
static float
draw(void)
{
    random_now = random_now * 1664525 + 1013904223;

    return (float) (random_now >> 8) / 8388608.0f - 1;
}

typedef struct {
    char header[1 << 14];
    uint8_t data[1 << 20];
    size_t at;
    uint32_t size; /* of an element */
} file_t;

/* A tensor with numbers about base, spread so far. */
static void
tensor(file_t *f, uint32_t rows, uint32_t row, float base, float spread,
    const char *form, uint32_t i, uint32_t k)
{
    size_t n = (size_t) row * (rows > 0 ? rows : 1), j, at = strlen(f->header);
    char name[128], shape[32];
    uint32_t bits;
    float v;

    assert_true(f->at + f->size * n <= sizeof(f->data));
    assert_true(at + 400 < sizeof(f->header));
    snprintf(name, sizeof(name), form, i, k);
    snprintf(shape, sizeof(shape), rows == 0 ? "%u" : "%u,%u",
        rows == 0 ? row : rows, row);
    snprintf(f->header + at, sizeof(f->header) - at,
        "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],"
        "\"data_offsets\":[%zu,%zu]}",
        f->at > 0 ? "," : "", name, f->size == 4 ? "F32" : "BF16", shape, f->at,
        f->at + f->size * n);

    for (j = 0; j < n; j++) {
        v = base + spread * draw();
        memcpy(&bits, &v, sizeof(bits));
        bits >>= 32 - 8 * f->size;
        memcpy(f->data + f->at, &bits, f->size);
        f->at += f->size;
    }
}

#define LAYER "model.layers.%u."

static void
attention(file_t *f, const shape_t *s, uint32_t i)
{
    uint32_t q = HEADS * s->head_dim, kv = KV_HEADS * s->head_dim;

    tensor(f, 0, HIDDEN, 1, 0.3f, LAYER "input_layernorm.weight", i, 0);
    tensor(f, q, HIDDEN, 0, 0.4f, LAYER "self_attn.q_proj.weight", i, 0);
    tensor(f, kv, HIDDEN, 0, 0.4f, LAYER "self_attn.k_proj.weight", i, 0);
    tensor(f, kv, HIDDEN, 0, 0.4f, LAYER "self_attn.v_proj.weight", i, 0);
    tensor(f, HIDDEN, q, 0, 0.3f, LAYER "self_attn.o_proj.weight", i, 0);

    if (s->biases) {
        tensor(f, 0, q, 0, 0.5f, LAYER "self_attn.q_proj.bias", i, 0);
        tensor(f, 0, kv, 0, 0.5f, LAYER "self_attn.k_proj.bias", i, 0);
        tensor(f, 0, kv, 0, 0.5f, LAYER "self_attn.v_proj.bias", i, 0);
    }
    if (s->norms) {
        tensor(
            f, 0, s->head_dim, 1, 0.3f, LAYER "self_attn.q_norm.weight", i, 0);
        tensor(
            f, 0, s->head_dim, 1, 0.3f, LAYER "self_attn.k_norm.weight", i, 0);
    }
}

static void
gate(file_t *f, const shape_t *s, uint32_t i)
{
    static const char gates[] = LAYER "mlp.experts.%u.gate_proj.weight";
    static const char ups[] = LAYER "mlp.experts.%u.up_proj.weight";
    static const char downs[] = LAYER "mlp.experts.%u.down_proj.weight";
    uint32_t k;

    tensor(
        f, 0, HIDDEN, 1, 0.3f, LAYER "post_attention_layernorm.weight", i, 0);

    if (i < s->experts) {
        tensor(f, FFN, HIDDEN, 0, 0.4f, LAYER "mlp.gate_proj.weight", i, 0);
        tensor(f, FFN, HIDDEN, 0, 0.4f, LAYER "mlp.up_proj.weight", i, 0);
        tensor(f, HIDDEN, FFN, 0, 0.4f, LAYER "mlp.down_proj.weight", i, 0);
        return;
    }

    tensor(f, EXPERTS, HIDDEN, 0, 0.5f, LAYER "mlp.gate.weight", i, 0);
    for (k = 0; k < EXPERTS; k++) {
        tensor(f, EXPERT_FFN, HIDDEN, 0, 0.4f, gates, i, k);
        tensor(f, EXPERT_FFN, HIDDEN, 0, 0.4f, ups, i, k);
        tensor(f, HIDDEN, EXPERT_FFN, 0, 0.4f, downs, i, k);
    }
}

/* A directory with the model of s; its weights are any numbers. */
static void
make_model(const char *dir, const shape_t *s, uint32_t vocab)
{
    static make_st_t out;
    static file_t f;
    uint32_t i;

    random_now = 20260;
    f.at = 0;
    f.size = s->f32 ? 4 : 2;
    strcpy(f.header, "{");
    tensor(&f, vocab, HIDDEN, 0, 1, "model.embed_tokens.weight", 0, 0);
    tensor(&f, vocab, HIDDEN, 0, 0.5f, "lm_head.weight", 0, 0);
    tensor(&f, 0, HIDDEN, 1, 0.3f, "model.norm.weight", 0, 0);
    for (i = 0; i < LAYERS; i++) {
        attention(&f, s, i);
        gate(&f, s, i);
    }
    strcat(f.header, "}");
    make_st(&out, f.header, f.at);
    memcpy(out.p + out.len - f.at, f.data, f.at);
    make_file(dir, "model.safetensors", out.p, out.len);
    make_text(dir, "config.json", s->config);
}


/* --- the other threads -------------------------------------------------- */

static void
post(inner_ring_t *ring, const void *msg, uint32_t len, uint16_t type)
{
    llm_ring_hdr_t *h = llm_ring_reserve(&ring->in, len, 0);

    assert_non_null(h);
    memcpy(h + 1, (const llm_ring_hdr_t *) msg + 1, len - sizeof(*h));
    h->type = type;
    llm_ring_commit(&ring->in);
}

/* How request i wants its tokens: by threes greedy, cut, and with penalties.
 * Where equality is not to the bit all are greedy. */
static void
fill_params(uint32_t i, sample_params_t *p)
{
    memset(p, 0, sizeof(*p));
    p->top_p = p->repetition_penalty = 1;
    p->seed = i * 77 + 1;
    p->logprobs = 1;
    p->tops = 2 + i % 4;

    if (i % 3 == 0 || g->shape->kv_type != KN_F32) {
        return;
    }
    p->temperature = i % 3 == 1 ? 0.8f : 1.3f;
    if (i % 3 == 1) {
        p->top_k = i % 2 ? 20 : 0;
        p->top_p = 0.9f;
    } else {
        p->min_p = 0.02f;
        p->repetition_penalty = 1.2f;
        p->presence_penalty = 0.3f;
        p->frequency_penalty = 0.2f;
        p->bias = g->bias;
        p->bias_n = 2;
    }
}

static grammar_t *
grammar_of(uint32_t i)
{
    static const char *const list[] = {
        "[a-f]{2,4}( [0-9]+)?", "id: [0-9]{3}, name: [a-z]+"};
    const char *regex = list[i / 6 % 2];
    grammar_spec_t s = {LLM_GRAMMAR_REGEX, 0, 0, regex, strlen(regex), NULL, 0};
    char err[GRAMMAR_CACHE_ERR] = "";
    grammar_t *gr;

    grammar_cache_get(g->grammars, &s, &gr, err, sizeof(err));
    if (gr == NULL) {
        fail_msg("%s", err);
    }

    return gr;
}

/* Request i comes: prompts of 3 to 47 tokens, every fourth begins alike. */
static void
come(uint32_t i)
{
    req_t *r = &g->in->reqs[i];
    req_msg_t m = {.req = i, .gen = 1};
    uint32_t k, len = 3 + i * 7 % 45;

    assert_int_equal(r->state, REQ_FREE);
    memset(r, 0, sizeof(*r));
    r->gen = r->wire.gen = 1;
    r->line = &g->lines[i];
    r->seg = &g->seg;
    r->dead = &g->dead;
    r->choices = r->n = i % 8 == 5 ? CHOICES : 1;
    r->prompts_n = 1;
    r->prompt_tokens = r->prompts[0].len = len;
    r->max_tokens = 8 + i % 8;
    r->credit = r->weight = 1;
    r->credit <<= 30;
    r->tenant = i % 3;
    r->flags = i % 2 ? LLM_F_IGNORE_EOS : 0;
    fill_params(i, &r->params);
    if (i == 7) {
        r->flags |= LLM_F_PROMPT_LPS;
        fill_params(0, &r->prompt_params);
    }
    if (i % 6 == 1 && g->shape->kv_type == KN_F32) {
        r->grammar = grammar_of(i);
    }

    r->prompts[0].ids = malloc(len * sizeof(uint32_t));
    assert_non_null(r->prompts[0].ids);
    for (k = 0; k < len; k++) {
        r->prompts[0].ids[k] =
            (i % 4 == 0 ? k * 13 : i * 31 + k * k * 7 + k) % 276;
    }

    req_set_state(r, REQ_TEXT);
    req_set_state(r, REQ_WAITING);
    post(&g->in->in_loop, &m, sizeof(m), REQ_MSG_READY);
    g->come++;
}

static void
on_token(const req_msg_token_t *m)
{
    text_t *t = &g->tale->texts[m->req][m->choice];

    assert_int_equal(g->tale->ends[m->req], 0);
    assert_int_equal(m->out.err, 0);

    if (m->prompt) {
        assert_int_equal(m->req, 7);
        assert_int_equal(m->index, 1 + g->tale->prompt_n);
        g->tale->prompt[g->tale->prompt_n++] = m->out.logprob;
        return;
    }

    assert_true(m->req < REQS && m->choice < CHOICES && t->n < CONTEXT);
    assert_int_equal(m->index, t->n);
    t->logprob[t->n] = m->out.logprob;
    t->margin[t->n] = m->out.tops_n < 2
                          ? INFINITY
                          : m->out.top_logprobs[0] - m->out.top_logprobs[1];
    t->ids[t->n++] = m->out.token;
    t->finish = m->finish;

    if (m->req == LEAVES && t->n == 2) {
        __atomic_store_n(&g->lines[LEAVES].cancel, 1, __ATOMIC_RELEASE);
    }
}

static void
on_end(const req_msg_end_t *m)
{
    req_t *r = &g->in->reqs[m->req];

    assert_int_equal(g->tale->ends[m->req]++, 0);
    g->tale->err[m->req] = m->err;
    free(r->prompts[0].ids);
    if (r->grammar != NULL) {
        grammar_close(r->grammar);
    }
    req_set_state(r, REQ_FREE);
}

/* text_out's turn, and then who comes. */
static void
world(void)
{
    union {
        req_msg_token_t token;
        req_msg_end_t end;
    } m;
    uint32_t i, n = g->come == 0 ? AT_ONCE : 2, ended = 0;

    while (llm_ring_peek(&g->in->loop_out.out, &m, sizeof(m)) > 0) {
        llm_ring_advance(&g->in->loop_out.out);
        if (m.token.hdr.type == REQ_MSG_TOKEN) {
            on_token(&m.token);
        } else {
            assert_int_equal(m.token.hdr.type, REQ_MSG_END);
            on_end(&m.end);
        }
    }

    for (; n > 0 && g->come < REQS; n--) {
        come(g->come);
    }
    for (i = 0; i < REQS; i++) {
        ended += g->tale->ends[i];
    }
    if (ended == REQS) {
        __atomic_store_n(&g->in->stop, 1, __ATOMIC_RELEASE);
    }
}

int
bell_open(bell_t *b)
{
    b->fd = 0;
    return 0;
}

void
bell_close(bell_t *b)
{
    (void) b;
}

void
bell_ring(bell_t *b)
{
    if (b == &g->in->out_bell) {
        world();
    }
}

void
bell_arm(bell_t *b)
{
    (void) b;
}

void
bell_stay(bell_t *b)
{
    (void) b;
}

void
bell_wait(bell_t *b, int timeout_ms)
{
    (void) b;
    (void) timeout_ms;
    world();
}


/* --- a run -------------------------------------------------------------- */

/* Counts what a step is made of. */
static void
plan(kn_dev_t *dev, const kn_step_t *step)
{
    uint32_t i, one = 0, more = 0;

    for (i = 0; i < step->rows_n; i++) {
        one += step->rows[i].q_len == 1;
        more += step->rows[i].q_len > 1;
        g->tale->chunks += step->rows[i].q_start > 0 && step->rows[i].q_len > 1;
    }
    g->tale->steps++;
    g->tale->mixed += one > 0 && more > 0;
    g->kn->plan(dev, step);
}

static void
fill_shape(const shape_t *s, const model_t *m, forward_cfg_t *c)
{
    memset(c, 0, sizeof(*c));
    c->rows_max = ROWS;
    c->tokens_max = TOKENS;
    c->outs_max = OUTS;
    c->context = CONTEXT;
    c->blocks = BLOCKS;
    c->block_tokens = BT;
    c->kv_type = s->kv_type;
    c->depth = s->depth;
    c->host_blocks = s->host ? HOST_BLOCKS : 0;
    model_groups(m, CONTEXT, &c->groups);
}

static void
open_loop(const model_t *m, forward_t *f, void *page)
{
    const grammar_cache_cfg_t gc = {
        g->tok, NULL, 1 << 24, 1000000, 1000000, NULL};
    loop_cfg_t c;

    g->grammars = grammar_cache_open(&gc);
    assert_non_null(g->grammars);
    memset(&c, 0, sizeof(c));
    c.inner = g->in;
    c.forward = f;
    c.token = g->tok;
    c.grammars = g->grammars;
    c.vocab = model_info(m)->vocab;
    c.jump = 1;
    fill_shape(g->shape, m, &c.shape);
    c.cache = 1;
    c.block_bytes = forward_block_bytes(m, &c.shape);
    c.page = page;
    c.page_size = llm_live_size(REQS);
    g->loop = loop_open(&c);
    assert_non_null(g->loop);
}

/* All requests by the table kn, into tale. */
static void
run(const shape_t *s, const char *dir, const kernels_t *kn, tale_t *tale)
{
    char err[256];
    kn_open_t o = {.threads = 2};
    kn_info_t info;
    forward_cfg_t c;
    forward_t *f;
    kn_dev_t *dev;
    model_t *m;
    void *page = calloc(1, llm_live_size(REQS));

    g = calloc(1, sizeof(*g));
    assert_true(g != NULL && page != NULL);
    memset(tale, 0, sizeof(*tale));
    g->shape = s;
    g->tale = tale;
    g->kn = kn;
    g->table = *kn;
    g->table.plan = plan;
    g->bias[0] = (sample_bias_t){40, 2.5f};
    g->bias[1] = (sample_bias_t){200, -4};
    g->tok = token_open_null();
    g->in = inner_open(REQS, &g->state);
    assert_true(g->tok != NULL && g->in != NULL);

    m = model_open(dir, err, sizeof(err));
    if (m == NULL) {
        fail_msg("%s", err);
    }
    dev = kn->open(&o, err, sizeof(err));
    assert_non_null(dev);
    fill_shape(s, m, &c);
    f = forward_open(&g->table, dev, m, &c, err, sizeof(err));
    if (f == NULL) {
        fail_msg("%s", err);
    }

    open_loop(m, f, page);
    (void) loop_run(g->loop);

    assert_int_equal(g->state.blocks_private, 0);
    assert_int_equal(
        g->state.blocks_free + g->state.blocks_cached + g->state.blocks_transit,
        BLOCKS);
    tale->preemptions = g->state.preemptions;
    tale->hits = g->state.cache_hits;
    tale->fetched = g->state.host_hits;
    kn->info(dev, &info);
    tale->recorded = info.recorded;
    tale->replayed = info.replayed;

    loop_close(g->loop);
    grammar_cache_close(g->grammars);
    forward_close(f);
    kn->close(dev);
    model_close(m);
    inner_close(g->in);
    token_close(g->tok);
    free(page);
    free(g);
    g = NULL;
}


/* --- what must be equal ------------------------------------------------- */

/* The weather that each run must have had. */
static void
check_weather(const shape_t *s, const tale_t *t)
{
    uint32_t i;

    for (i = 0; i < REQS; i++) {
        assert_int_equal(t->ends[i], 1);
        assert_int_equal(t->err[i], i == LEAVES ? LLM_ERR_CANCELLED : 0);
    }
    assert_true(t->mixed >= 5 && t->chunks >= 5);
    assert_true(t->preemptions > 0 && t->hits > 0);
    assert_int_equal(t->fetched > 0, s->host);
}

/* Text by text: how many differ, where they may; *far is the logprobs'. */
static uint32_t
compare(const shape_t *s, const tale_t *want, const tale_t *got, float *far)
{
    const text_t *a, *b;
    uint32_t i, c, k, differ = 0;
    float d;

    *far = 0;
    for (i = 0; i < REQS * CHOICES; i++) {
        c = i % CHOICES;
        a = &want->texts[i / CHOICES][c];
        b = &got->texts[i / CHOICES][c];
        for (k = 0; k < a->n && k < b->n; k++) {
            if (a->ids[k] != b->ids[k]) {
                break;
            }
            d = fabsf(a->logprob[k] - b->logprob[k]);
            *far = d <= *far ? *far : d; /* NaN is worst */
        }
        if (k < a->n && k < b->n) {
            print_message("text %u of request %u: token %u is %u, was %u; the "
                          "best two were %g apart\n",
                c, i / CHOICES, k, b->ids[k], a->ids[k], (double) a->margin[k]);

            assert_true(s->kv_type != KN_F32 && a->margin[k] < NEAR);
            differ++;
        } else {
            assert_int_equal(a->n, b->n);
            assert_int_equal(a->finish, b->finish);
        }
    }

    return differ;
}

static void
check_shape(const shape_t *s, const char *dir)
{
    static tale_t want, got;
    char err[5000];
    const kernels_t *cpu = kernels_cpu(s->isa, err, sizeof(err));
    const kernels_t *cuda = kernels_cuda(library, err, sizeof(err));
    uint32_t i, texts = 0, tokens = 0, differ;
    float far, limit = s->kv_type == KN_F32 ? 1e-4f : NEAR;

    assert_non_null(cpu);
    if (cuda == NULL) {
        fail_msg("%s", err);
    }

    run(s, dir, cpu, &want);
    check_weather(s, &want);
    run(s, dir, cuda, &got);
    check_weather(s, &got);
    /* a step's parts before and after the masks; a bucket's first step is as it
     * is, and the second is recorded */
    assert_true(want.replayed == 0 && got.recorded > 0);
    assert_true(got.replayed > got.recorded);
    assert_true(got.replayed <= 2 * (got.steps - got.mixed));

    differ = compare(s, &want, &got, &far);
    for (i = 0; i < REQS * CHOICES; i++) {
        texts += want.texts[i / CHOICES][i % CHOICES].n > 0;
        tokens += want.texts[i / CHOICES][i % CHOICES].n;
    }
    assert_true(texts >= REQS && tokens > 4 * texts);
    assert_true(8 * differ <= texts);
    assert_true(far < limit);

    assert_true(want.prompt_n > 0);
    assert_int_equal(want.prompt_n, got.prompt_n);
    for (i = 0; i < want.prompt_n; i++) {
        assert_true(fabsf(want.prompt[i] - got.prompt[i]) < limit);
    }

    print_message("%s: %u texts, %u tokens, %u differ where they may, logprobs "
                  "%.1e apart; %u steps, %u mixed, %llu replayed, %u chunks, "
                  "%llu preemptions\n",
        s->name, texts, tokens, differ, (double) far, got.steps, got.mixed,
        (unsigned long long) got.replayed, got.chunks,
        (unsigned long long) got.preemptions);
}

static int
named(const char *name)
{
    int i;

    for (i = 0; i < models_n; i++) {
        if (strcmp(models[i], name) == 0) {
            return 1;
        }
    }

    return models_n == 0;
}

static void
test_shape(void **state)
{
    const shape_t *s = *state;
    char *dir = make_dir();

    make_model(dir, s, 278);
    check_shape(s, dir);
    make_gone(dir, "model.safetensors");
    make_gone(dir, "config.json");
    assert_int_equal(rmdir(dir), 0);
    free(dir);
}

int
main(int argc, char **argv)
{
    enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };
    struct CMUnitTest tests[SHAPES];
    shape_t copies[SHAPES];
    size_t i, n = 0;

    if (argc < 2) {
        fprintf(stderr, "usage: engine LIBRARY [MODEL ...]\n");
        return 2;
    }
    library = argv[1];
    for (i = 2; (int) i < argc && models_n < 8; i++) {
        models[models_n++] = argv[i];
    }

    for (i = 0; i < SHAPES; i++) {
        if (named(shapes[i].name)) {
            copies[n] = shapes[i];
            tests[n] = (struct CMUnitTest){
                shapes[i].name, test_shape, NULL, NULL, &copies[n]};
            n++;
        }
    }

    return _cmocka_run_group_tests("engine", tests, n, NULL, NULL);
}
