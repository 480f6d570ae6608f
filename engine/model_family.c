/*
 * The families of models, as data.
 *
 * DESIGN.  A family is a row: what each container calls it, and two lists of
 * tensors, one for the top of the model and one for each layer.  A tensor's
 * row says under which name each container has it, where its pointer goes,
 * and which two of the model's sizes its dimensions must be.  What a family
 * has and the forward pass has not built is a key that must have the harmless
 * value, so that it is refused and not ignored.
 *
 * Two of Hugging Face's families may be one in GGUF: its name is then NULL in
 * all rows but one, or but two, of which one has experts.
 *
 * All tables are const: any thread.
 */
#include "model_impl.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define TOP(field)   offsetof(model_top_t, field)
#define LAYER(field) offsetof(model_layer_t, field)
#define NONE         MODEL_DIM_NONE
#define HIDDEN       MODEL_DIM_HIDDEN
#define Q            MODEL_DIM_Q
#define KV           MODEL_DIM_KV
#define FFN          MODEL_DIM_FFN
#define VOCAB        MODEL_DIM_VOCAB
#define HEAD         MODEL_DIM_HEAD
#define EXPERT_FFN   MODEL_DIM_EXPERT

/* clang-format off */
#define END {{NULL, NULL}, 0, NONE, NONE, 0, NULL}
#define TOP_ROW(gguf, hf, field, out, in, flags)                               \
    {{gguf, hf}, TOP(field), out, in, flags, NULL}
#define ROW(gguf, hf, field, out, in, flags)                                   \
    {{gguf, hf}, LAYER(field), out, in, flags, NULL}
#define BIAS(gguf, hf, field, out, flags)                                      \
    {{gguf, hf}, LAYER(field), NONE, out, flags, NULL}

static const model_row_t plain_top[] = {
    TOP_ROW("token_embd.weight", "model.embed_tokens.weight",
        embed, VOCAB, HIDDEN, MODEL_OPTIONAL),
    TOP_ROW("output_norm.weight", "model.norm.weight",
        norm, NONE, HIDDEN, 0),
    TOP_ROW("output.weight", "lm_head.weight",
        output, VOCAB, HIDDEN, MODEL_OPTIONAL),
    TOP_ROW("rope_freqs.weight", NULL,
        rope_factors, NONE, MODEL_DIM_ROPE, MODEL_OPTIONAL),
    TOP_ROW("rope_factors_short.weight", NULL,
        rope_short, NONE, MODEL_DIM_ROPE, MODEL_OPTIONAL),
    TOP_ROW("rope_factors_long.weight", NULL,
        rope_long, NONE, MODEL_DIM_ROPE, MODEL_OPTIONAL),
    END,
};

/* Norms before attention and gate, the output's product; down's. */
#define PRE_NORMS                                                              \
    ROW("attn_norm.weight", "input_layernorm.weight",                          \
        attn_norm, NONE, HIDDEN, 0),                                           \
    ROW("ffn_norm.weight", "post_attention_layernorm.weight",                  \
        ffn_norm, NONE, HIDDEN, 0)

#define QKV                                                                    \
    ROW("attn_q.weight", "self_attn.q_proj.weight", q, Q, HIDDEN, 0),          \
    ROW("attn_k.weight", "self_attn.k_proj.weight", k, KV, HIDDEN, 0),         \
    ROW("attn_v.weight", "self_attn.v_proj.weight", v, KV, HIDDEN, 0)

#define QKV_BIASES(flags)                                                      \
    BIAS("attn_q.bias", "self_attn.q_proj.bias", q_bias, Q, flags),            \
    BIAS("attn_k.bias", "self_attn.k_proj.bias", k_bias, KV, flags),           \
    BIAS("attn_v.bias", "self_attn.v_proj.bias", v_bias, KV, flags)

#define QK_NORMS(q_dim, k_dim)                                                 \
    ROW("attn_q_norm.weight", "self_attn.q_norm.weight",                       \
        q_norm, NONE, q_dim, 0),                                               \
    ROW("attn_k_norm.weight", "self_attn.k_norm.weight",                       \
        k_norm, NONE, k_dim, 0)

#define GATE_UP                                                                \
    ROW("ffn_gate.weight", "mlp.gate_proj.weight", gate, FFN, HIDDEN, 0),      \
    ROW("ffn_up.weight", "mlp.up_proj.weight", up, FFN, HIDDEN, 0)

#define FFN_BIASES(flags)                                                      \
    BIAS("ffn_gate.bias", "mlp.gate_proj.bias", gate_bias, FFN, flags),        \
    BIAS("ffn_up.bias", "mlp.up_proj.bias", up_bias, FFN, flags),              \
    BIAS("ffn_down.bias", "mlp.down_proj.bias", down_bias, HIDDEN, flags)

#define O_BIAS(flags)                                                          \
    BIAS("attn_output.bias", "self_attn.o_proj.bias", o_bias, HIDDEN, flags)

/* o, and old checkpoints' frequencies, which config.json gives too */
#define O                                                                      \
    ROW("attn_output.weight", "self_attn.o_proj.weight", o, HIDDEN, Q, 0),     \
    {{NULL, "self_attn.rotary_emb.inv_freq"},                                  \
        0, NONE, MODEL_DIM_ROPE, MODEL_UNUSED, NULL}

#define OUTS                                                                   \
    O, ROW("ffn_down.weight", "mlp.down_proj.weight", down, HIDDEN, FFN, 0)

static const model_row_t llama_layer[] = {
    PRE_NORMS, QKV, GATE_UP, OUTS,
    QKV_BIASES(MODEL_OPTIONAL), O_BIAS(MODEL_OPTIONAL),
    FFN_BIASES(MODEL_OPTIONAL), END,
};

static const model_row_t qwen2_layer[] = {
    PRE_NORMS, QKV, QKV_BIASES(0), GATE_UP, OUTS, END,
};

static const model_row_t qwen3_layer[] = {
    PRE_NORMS, QKV, QKV_BIASES(MODEL_OPTIONAL), O_BIAS(MODEL_OPTIONAL),
    QK_NORMS(HEAD, HEAD), GATE_UP, OUTS, END,
};

/* Norms before and after, and around the gate likewise. */
#define FOUR_NORMS                                                             \
    ROW("attn_norm.weight", "input_layernorm.weight",                          \
        attn_norm, NONE, HIDDEN, 0),                                           \
    ROW("post_attention_norm.weight", "post_attention_layernorm.weight",       \
        attn_post_norm, NONE, HIDDEN, 0),                                      \
    ROW("ffn_norm.weight", "pre_feedforward_layernorm.weight",                 \
        ffn_norm, NONE, HIDDEN, 0),                                            \
    ROW("post_ffw_norm.weight", "post_feedforward_layernorm.weight",           \
        ffn_post_norm, NONE, HIDDEN, 0)

static const model_row_t gemma2_layer[] = {
    FOUR_NORMS, QKV, GATE_UP, OUTS, END,
};

static const model_row_t gemma3_layer[] = {
    FOUR_NORMS, QKV, QK_NORMS(HEAD, HEAD), GATE_UP, OUTS, END,
};

static const model_piece_t qkv_pieces[] = {
    {LAYER(q), Q}, {LAYER(k), KV}, {LAYER(v), KV}, {0, NONE},
};

static const model_piece_t gate_up_pieces[] = {
    {LAYER(gate), FFN}, {LAYER(up), FFN}, {0, NONE},
};

static const model_row_t phi3_layer[] = {
    PRE_NORMS,
    {{"attn_qkv.weight", "self_attn.qkv_proj.weight"},
        LAYER(q), MODEL_DIM_QKV, HIDDEN, 0, qkv_pieces},
    {{"ffn_up.weight", "mlp.gate_up_proj.weight"},
        LAYER(gate), MODEL_DIM_GATE_UP, HIDDEN, 0, gate_up_pieces},
    OUTS, END,
};

static const model_row_t olmo2_layer[] = {
    ROW("post_attention_norm.weight", "post_attention_layernorm.weight",
        attn_post_norm, NONE, HIDDEN, 0),
    ROW("post_ffw_norm.weight", "post_feedforward_layernorm.weight",
        ffn_post_norm, NONE, HIDDEN, 0),
    QKV, QK_NORMS(Q, KV), GATE_UP, OUTS, END,
};

#define EXPERT(gguf, hf, field, out, in)                                       \
    ROW(gguf, hf, field, out, in, MODEL_EACH)

static const model_row_t mixtral_layer[] = {
    PRE_NORMS, QKV, O,
    ROW("ffn_gate_inp.weight", "block_sparse_moe.gate.weight",
        router, MODEL_DIM_EXPERTS, HIDDEN, 0),
    EXPERT("ffn_gate_exps.weight", "block_sparse_moe.experts.N.w1.weight",
        experts_gate, EXPERT_FFN, HIDDEN),
    EXPERT("ffn_up_exps.weight", "block_sparse_moe.experts.N.w3.weight",
        experts_up, EXPERT_FFN, HIDDEN),
    EXPERT("ffn_down_exps.weight", "block_sparse_moe.experts.N.w2.weight",
        experts_down, HIDDEN, EXPERT_FFN),
    END,
};

#define QWEN_EXPERTS                                                           \
    ROW("ffn_gate_inp.weight", "mlp.gate.weight",                              \
        router, MODEL_DIM_EXPERTS, HIDDEN, 0),                                 \
    EXPERT("ffn_gate_exps.weight", "mlp.experts.N.gate_proj.weight",           \
        experts_gate, EXPERT_FFN, HIDDEN),                                     \
    EXPERT("ffn_up_exps.weight", "mlp.experts.N.up_proj.weight",               \
        experts_up, EXPERT_FFN, HIDDEN),                                       \
    EXPERT("ffn_down_exps.weight", "mlp.experts.N.down_proj.weight",           \
        experts_down, HIDDEN, EXPERT_FFN)

static const model_row_t qwen2_moe_layer[] = {
    PRE_NORMS, QKV, QKV_BIASES(0), O, QWEN_EXPERTS,
    ROW("ffn_gate_shexp.weight", "mlp.shared_expert.gate_proj.weight",
        shared_gate, MODEL_DIM_SHARED, HIDDEN, 0),
    ROW("ffn_up_shexp.weight", "mlp.shared_expert.up_proj.weight",
        shared_up, MODEL_DIM_SHARED, HIDDEN, 0),
    ROW("ffn_down_shexp.weight", "mlp.shared_expert.down_proj.weight",
        shared_down, HIDDEN, MODEL_DIM_SHARED, 0),
    ROW("ffn_gate_inp_shexp.weight", "mlp.shared_expert_gate.weight",
        shared_router, NONE, HIDDEN, 0),
    END,
};

static const model_row_t qwen3_moe_layer[] = {
    PRE_NORMS, QKV, QKV_BIASES(MODEL_OPTIONAL), O, O_BIAS(MODEL_OPTIONAL),
    QK_NORMS(HEAD, HEAD), QWEN_EXPERTS, END,
};

static const model_piece_t experts_gate_up[] = {
    {LAYER(experts_gate), EXPERT_FFN}, {LAYER(experts_up), EXPERT_FFN},
    {0, NONE},
};

static const model_piece_t experts_gate_up_bias[] = {
    {LAYER(experts_gate_bias), EXPERT_FFN},
    {LAYER(experts_up_bias), EXPERT_FFN}, {0, NONE},
};

#define EXPERT_BIAS(gguf, hf, field, in)                                       \
    ROW(gguf, hf, field, MODEL_DIM_EXPERTS, in, MODEL_VECTORS)

/* In GGUF the norm before the gate has its place's name, not its use's. */
static const model_row_t gpt_oss_layer[] = {
    ROW("attn_norm.weight", "input_layernorm.weight",
        attn_norm, NONE, HIDDEN, 0),
    ROW("post_attention_norm.weight", "post_attention_layernorm.weight",
        ffn_norm, NONE, HIDDEN, 0),
    QKV, QKV_BIASES(0), O, O_BIAS(0),
    ROW("attn_sinks.weight", "self_attn.sinks",
        sinks, NONE, MODEL_DIM_HEADS, 0),
    ROW("ffn_gate_inp.weight", "mlp.router.weight",
        router, MODEL_DIM_EXPERTS, HIDDEN, 0),
    BIAS("ffn_gate_inp.bias", "mlp.router.bias",
        router_bias, MODEL_DIM_EXPERTS, 0),
    EXPERT("ffn_gate_exps.weight", NULL, experts_gate, EXPERT_FFN, HIDDEN),
    EXPERT("ffn_up_exps.weight", NULL, experts_up, EXPERT_FFN, HIDDEN),
    {{NULL, "mlp.experts.gate_up_proj"}, LAYER(experts_gate),
        MODEL_DIM_EXPERT_GATE_UP, HIDDEN,
        MODEL_EACH | MODEL_ACROSS | MODEL_TURNS, experts_gate_up},
    ROW("ffn_down_exps.weight", NULL,
        experts_down, HIDDEN, EXPERT_FFN, MODEL_EACH),
    ROW(NULL, "mlp.experts.down_proj",
        experts_down, HIDDEN, EXPERT_FFN, MODEL_EACH | MODEL_ACROSS),
    EXPERT_BIAS("ffn_gate_exps.bias", NULL, experts_gate_bias, EXPERT_FFN),
    EXPERT_BIAS("ffn_up_exps.bias", NULL, experts_up_bias, EXPERT_FFN),
    {{NULL, "mlp.experts.gate_up_proj_bias"}, LAYER(experts_gate_bias),
        MODEL_DIM_EXPERTS, MODEL_DIM_EXPERT_GATE_UP,
        MODEL_TURNS | MODEL_VECTORS, experts_gate_up_bias},
    EXPERT_BIAS("ffn_down_exps.bias", "mlp.experts.down_proj_bias",
        experts_down_bias, HIDDEN),
    END,
};

static const model_must_t silu[] = {
    {"hidden_act", "silu"},
    {NULL, NULL},
};

static const model_must_t gelu[] = {
    {"hidden_activation", "gelu_pytorch_tanh"},
    {"use_bidirectional_attention", "false"},
    {"attention_bias", "false"},
    {NULL, NULL},
};

static const model_must_t silu_no_bias[] = {
    {"hidden_act", "silu"},
    {"attention_bias", "false"},
    {NULL, NULL},
};

static const model_must_t silu_and_bias[] = {
    {"hidden_act", "silu"},
    {"attention_bias", "true"},
    {NULL, NULL},
};

#define BLK {"blk.N.", "model.layers.N."}
#define HALVES   (MODEL_GGUF_HALVES | MODEL_HF_HALVES)

static const model_family_t families[] = {
    {{"llama", "llama"}, "LlamaForCausalLM", BLK, plain_top, llama_layer,
        silu, MODEL_HF_HALVES | MODEL_BIAS_KEYS, 0},
    {{NULL, "mistral"}, "MistralForCausalLM", BLK, plain_top, llama_layer,
        silu, MODEL_HF_HALVES | MODEL_BIAS_KEYS, 1},
    {{"qwen2", "qwen2"}, "Qwen2ForCausalLM", BLK, plain_top, qwen2_layer,
        silu, HALVES | MODEL_WINDOW_ASKED, 0},
    {{"qwen3", "qwen3"}, "Qwen3ForCausalLM", BLK, plain_top, qwen3_layer,
        silu, HALVES | MODEL_WINDOW_ASKED | MODEL_BIAS_KEYS, 0},
    {{"gemma2", "gemma2"}, "Gemma2ForCausalLM", BLK, plain_top, gemma2_layer,
        gelu, HALVES | MODEL_TIED | MODEL_GEMMA | MODEL_CAPS, 2},
    {{"gemma3", "gemma3_text"}, "Gemma3ForCausalLM", BLK, plain_top,
        gemma3_layer, gelu,
        HALVES | MODEL_TIED | MODEL_GEMMA | MODEL_TWO_ROPES, 6},
    {{"phi3", "phi3"}, "Phi3ForCausalLM", BLK, plain_top, phi3_layer,
        silu_no_bias, HALVES, 1},
    {{"smollm3", "smollm3"}, "SmolLM3ForCausalLM", BLK, plain_top, llama_layer,
        silu, MODEL_HF_HALVES | MODEL_TIED | MODEL_BIAS_KEYS
            | MODEL_WINDOW_ASKED | MODEL_SOME_ROPE, 0},
    {{"granite", "granite"}, "GraniteForCausalLM", BLK, plain_top, llama_layer,
        silu, MODEL_HF_HALVES | MODEL_BIAS_KEYS, 0},
    {{"llama", "mixtral"}, "MixtralForCausalLM", BLK, plain_top, mixtral_layer,
        silu, MODEL_HF_HALVES | MODEL_EXPERTS | MODEL_NORMED, 1},
    {{"qwen2moe", "qwen2_moe"}, "Qwen2MoeForCausalLM", BLK, plain_top,
        qwen2_moe_layer, silu,
        HALVES | MODEL_WINDOW_ASKED | MODEL_EXPERTS | MODEL_SHARED, 0},
    {{"qwen3moe", "qwen3_moe"}, "Qwen3MoeForCausalLM", BLK, plain_top,
        qwen3_moe_layer, silu,
        HALVES | MODEL_WINDOW_ASKED | MODEL_BIAS_KEYS | MODEL_EXPERTS
            | MODEL_GGUF_NORMED, 0},
    {{"gpt-oss", "gpt_oss"}, "GptOssForCausalLM", BLK, plain_top,
        gpt_oss_layer, silu_and_bias,
        HALVES | MODEL_EXPERTS | MODEL_NORMED | MODEL_CLAMP
            | MODEL_GGUF_PAIRS, 2},
    {{"olmo2", "olmo2"}, "Olmo2ForCausalLM", BLK, plain_top, olmo2_layer,
        silu_no_bias, HALVES, 0},
};
/* clang-format on */

#define FAMILIES_N (sizeof(families) / sizeof(families[0]))

const model_family_t *
model_family_find(int container, const char *arch, size_t len)
{
    size_t i;
    const char *name;

    assert(container < MODEL_CONTAINERS && arch != NULL);

    for (i = 0; i < FAMILIES_N; i++) {
        name = families[i].arch[container];

        if (name != NULL && strlen(name) == len
            && memcmp(name, arch, len) == 0) {
            return &families[i];
        }
    }

    return NULL;
}

const model_family_t *
model_family_with_experts(const model_family_t *f)
{
    size_t i;
    const char *arch;

    for (i = 0; i < FAMILIES_N; i++) {
        arch = families[i].arch[MODEL_GGUF];

        if ((families[i].flags & MODEL_EXPERTS) && arch != NULL
            && strcmp(arch, f->arch[MODEL_GGUF]) == 0) {
            return &families[i];
        }
    }

    return f;
}

/* Has an earlier row the container's name of row i? */
static int
is_again(int container, size_t i)
{
    const char *name = families[i].arch[container];

    return model_family_find(container, name, strlen(name)) != &families[i];
}

void
model_family_expand(const char *text, uint32_t i, char *buf, size_t size)
{
    const char *n = strchr(text, 'N');

    assert(n != NULL && n[1] == '.' && size > 0);
    snprintf(buf, size, "%.*s%u%s", (int) (n - text), text, i, n + 1);
}

void
model_family_prefix(
    const model_family_t *f, int container, uint32_t i, char *buf, size_t size)
{
    assert(f->prefix[container] != NULL);
    model_family_expand(f->prefix[container], i, buf, size);
}

const char *
model_family_names(int container, char *buf, size_t size)
{
    int n;
    size_t i, at = 0, left = 0;

    assert(container < MODEL_CONTAINERS && size > 0);
    buf[0] = '\0';

    for (i = 0; i < FAMILIES_N; i++) {
        left += families[i].arch[container] != NULL && !is_again(container, i);
    }

    for (i = 0; i < FAMILIES_N; i++) {
        if (families[i].arch[container] == NULL || is_again(container, i)) {
            continue;
        }

        left--;
        n = snprintf(buf + at, size - at, "%s%s", families[i].arch[container],
            left > 1    ? ", "
            : left == 1 ? " or "
                        : "");

        if (n < 0 || (size_t) n >= size - at) {
            break; /* cut, and terminated */
        }

        at += (size_t) n;
    }

    return buf;
}

static const char *const key_names[MODEL_KEYS_N][MODEL_CONTAINERS] = {
#define X(id, gguf, hf) {gguf, hf},
    MODEL_KEYS(X)
#undef X
};

const char *
model_key_name(model_key_t key, int container)
{
    assert(key < MODEL_KEYS_N && container < MODEL_CONTAINERS);
    return key_names[key][container];
}
