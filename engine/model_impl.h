/*
 * What the model's own files share: the table of families (model_family.c),
 * what a container has to offer (model_gguf.c and model_hf.c are the two) and
 * the reading of a family's sizes and tensors from either (model.c).  For those
 * only.
 */
#ifndef MODEL_IMPL_H
#define MODEL_IMPL_H

#include "model.h"

/* Tables have a name for each: what a container lacks is NULL there. */
enum { MODEL_GGUF, MODEL_HF, MODEL_CONTAINERS };

/*
 * Hyper-parameters.  X(id, key in GGUF, key in config.json)
 *
 * In GGUF the architecture and a dot go before it.  In config.json dots lead
 * into objects, and of several names the first that is there counts.
 */
#define MODEL_KEYS(X)                                                          \
    X(LAYERS, "block_count", "num_hidden_layers")                              \
    X(HIDDEN, "embedding_length", "hidden_size")                               \
    X(FFN, "feed_forward_length", "intermediate_size")                         \
    X(CONTEXT, "context_length", "max_position_embeddings")                    \
    X(HEADS, "attention.head_count", "num_attention_heads")                    \
    X(KV_HEADS, "attention.head_count_kv", "num_key_value_heads")              \
    X(HEAD_DIM, "attention.key_length", "head_dim")                            \
    X(VALUE_DIM, "attention.value_length", NULL)                               \
    X(VOCAB, "vocab_size", "vocab_size")                                       \
    X(TIED, NULL, "tie_word_embeddings")                                       \
    X(EPS, "attention.layer_norm_rms_epsilon", "rms_norm_eps")                 \
    X(ROPE_DIMS, "rope.dimension_count", NULL)                                 \
    X(ROPE_PART, NULL,                                                         \
        "partial_rotary_factor rope_parameters.partial_rotary_factor")         \
    X(ROPE_BASE, "rope.freq_base",                                             \
        "rope_theta rope_parameters.rope_theta "                               \
        "rope_parameters.full_attention.rope_theta")                           \
    X(ROPE_LOCAL, "rope.freq_base_swa",                                        \
        "rope_local_base_freq rope_parameters.sliding_attention.rope_theta")   \
    X(ROPE_KIND, "rope.scaling.type",                                          \
        "rope_scaling.rope_type rope_scaling.type rope_parameters.rope_type "  \
        "rope_parameters.full_attention.rope_type")                            \
    X(ROPE_FACTOR, "rope.scaling.factor",                                      \
        "rope_scaling.factor rope_parameters.factor "                          \
        "rope_parameters.full_attention.factor")                               \
    X(ROPE_LOW, "rope.scaling.low_freq_factor",                                \
        "rope_scaling.low_freq_factor rope_parameters.low_freq_factor")        \
    X(ROPE_HIGH, "rope.scaling.high_freq_factor",                              \
        "rope_scaling.high_freq_factor rope_parameters.high_freq_factor")      \
    X(ROPE_ORIGINAL, "rope.scaling.original_context_length",                   \
        "rope_scaling.original_max_position_embeddings "                       \
        "rope_parameters.original_max_position_embeddings "                    \
        "original_max_position_embeddings")                                    \
    X(ROPE_FAST, "rope.scaling.yarn_beta_fast",                                \
        "rope_scaling.beta_fast rope_parameters.beta_fast")                    \
    X(ROPE_SLOW, "rope.scaling.yarn_beta_slow",                                \
        "rope_scaling.beta_slow rope_parameters.beta_slow")                    \
    X(ROPE_SCALE, "rope.scaling.attn_factor",                                  \
        "rope_scaling.attention_factor rope_parameters.attention_factor")      \
    X(ROPE_MSCALE, NULL, "rope_scaling.mscale rope_parameters.mscale")         \
    X(ROPE_MSCALE_ALL, NULL,                                                   \
        "rope_scaling.mscale_all_dim rope_parameters.mscale_all_dim")          \
    X(ROPE_TRUNCATE, NULL, "rope_scaling.truncate rope_parameters.truncate")   \
    X(ROPE_SHORT, NULL,                                                        \
        "rope_scaling.short_factor rope_parameters.short_factor")              \
    X(ROPE_LONG, NULL, "rope_scaling.long_factor rope_parameters.long_factor") \
    X(ATTN_BIAS, NULL, "attention_bias")                                       \
    X(FFN_BIAS, NULL, "mlp_bias")                                              \
    X(WINDOW, "attention.sliding_window", "sliding_window")                    \
    X(WINDOW_USED, NULL, "use_sliding_window")                                 \
    X(WINDOW_FROM, NULL, "max_window_layers")                                  \
    X(PATTERN, "attention.sliding_window_pattern", "sliding_window_pattern")   \
    X(LAYER_TYPES, NULL, "layer_types")                                        \
    X(ROPE_LAYERS, NULL, "no_rope_layers")                                     \
    X(ROPE_INTERVAL, NULL, "no_rope_layer_interval")                           \
    X(EXPERTS, "expert_count", "num_local_experts num_experts")                \
    X(EXPERTS_USED, "expert_used_count",                                       \
        "num_experts_per_tok experts_per_token")                               \
    X(EXPERT_FFN, "expert_feed_forward_length", "moe_intermediate_size")       \
    X(SHARED_FFN, "expert_shared_feed_forward_length",                         \
        "shared_expert_intermediate_size")                                     \
    X(EXPERTS_NORMED, "expert_weights_norm", "norm_topk_prob")                 \
    X(EXPERT_STEP, NULL, "decoder_sparse_step")                                \
    X(DENSE_LAYERS, NULL, "mlp_only_layers")                                   \
    X(ACT_LIMIT, NULL, "swiglu_limit")                                         \
    X(ACT_SLOPE, NULL, "swiglu_alpha")                                         \
    X(EMBED_SCALE, "embedding_scale", "embedding_multiplier")                  \
    X(RESIDUAL_SCALE, "residual_scale", "residual_multiplier")                 \
    X(LOGIT_DIVISOR, "logit_scale", "logits_scaling")                          \
    X(ATTN_SCALE, "attention.scale", "attention_multiplier")                   \
    X(QUERY_SCALAR, NULL, "query_pre_attn_scalar")                             \
    X(ATTN_CAP, "attn_logit_softcapping", "attn_logit_softcapping")            \
    X(LOGIT_CAP, "final_logit_softcapping", "final_logit_softcapping")

typedef enum {
#define X(id, gguf, hf) MODEL_KEY_##id,
    MODEL_KEYS(X)
#undef X
        MODEL_KEYS_N
} model_key_t;

/* Several times the largest models there are. */
#define MODEL_LAYERS_MAX  1024
#define MODEL_CONTEXT_MAX (1u << 24)
#define MODEL_FFN_MAX     (1u << 20)

/* The sizes that tensors' dimensions are checked against. */
typedef enum {
    MODEL_DIM_NONE, /* the tensor is a vector */
    MODEL_DIM_HIDDEN,
    MODEL_DIM_Q,  /* heads * head_dim */
    MODEL_DIM_KV, /* kv_heads * head_dim */
    MODEL_DIM_QKV,
    MODEL_DIM_HEAD, /* head_dim */
    MODEL_DIM_HEADS,
    MODEL_DIM_FFN,
    MODEL_DIM_GATE_UP, /* 2 * ffn */
    MODEL_DIM_EXPERTS,
    MODEL_DIM_EXPERT,         /* expert_ffn */
    MODEL_DIM_EXPERT_GATE_UP, /* 2 * expert_ffn */
    MODEL_DIM_SHARED,         /* shared_ffn */
    MODEL_DIM_VOCAB,
    MODEL_DIM_ROPE, /* rope_dims / 2 */
    MODEL_DIMS
} model_dim_t;

enum {
    MODEL_OPTIONAL = 1, /* of a tensor: it may be missing */
    MODEL_UNUSED = 2,   /* it may be there, and is not looked at */
    MODEL_EACH = 4,     /* one for each expert: N of its name, or dims[2] */
    MODEL_ACROSS = 8,   /* in their one tensor in is rows, but in MXFP4 */
    MODEL_TURNS = 16,   /* rows of its pieces, or elements of vectors, take */
    MODEL_VECTORS = 32  /* turns; its rows are vectors */
};

/* Rows of a tensor that is several; where a view of them goes. */
typedef struct {
    size_t at;
    model_dim_t out; /* MODEL_DIM_NONE ends the list */
} model_piece_t;

/* A tensor: its name in each container, in a layer behind the prefix. */
typedef struct {
    const char *name[MODEL_CONTAINERS];
    size_t at;           /* of the pointer in model_top_t or model_layer_t */
    model_dim_t out, in; /* rows, row length */
    unsigned flags;
    const model_piece_t *pieces; /* NULL: it is one */
} model_row_t;

/* What a key of config.json must be, where it is there. */
typedef struct {
    const char *key, *value; /* booleans are "true" and "false" */
} model_must_t;

enum {
    MODEL_GGUF_HALVES = 1,   /* of a family: rotary pairs in GGUF, in */
    MODEL_HF_HALVES = 2,     /* safetensors are half a head apart */
    MODEL_TIED = 4,          /* embeddings are tied where nothing is said */
    MODEL_BIAS_KEYS = 8,     /* config.json says whether there are biases */
    MODEL_WINDOW_ASKED = 16, /* a window counts if use_sliding_window is true */
    MODEL_GEMMA = 32, /* GELU, scaled vectors, norms + 1 in safetensors */
    MODEL_CAPS = 64,  /* a GGUF that says nothing has Gemma 2's soft caps */
    MODEL_TWO_ROPES = 128, /* layers with a window have angles of their own */
    MODEL_SOME_ROPE = 256, /* every so many layers have none */
    MODEL_EXPERTS = 512,   /* in every layer */
    MODEL_NORMED = 1024, /* their weights add up to one unless a key says no */
    MODEL_GGUF_NORMED = 2048, /* the same in GGUF only */
    MODEL_SHARED = 4096,      /* there is one of all tokens, too */
    MODEL_CLAMP = 8192,       /* gates are clamped, of experts */
    MODEL_GGUF_PAIRS = 16384  /* YaRN's bounds are no whole pairs in GGUF */
};

typedef struct {
    const char *arch[MODEL_CONTAINERS]; /* general.architecture, model_type */
    const char *class; /* the first of config's architectures */
    const char *prefix[MODEL_CONTAINERS]; /* of a layer's tensors, N its
                                             number */
    const model_row_t *top;               /* ends without names */
    const model_row_t *layer;
    const model_must_t *musts; /* ends with a NULL key */
    unsigned flags;            /* MODEL_GGUF_HALVES... */
    uint32_t pattern; /* of windows: every pattern-th layer has none; 1: all */
                      /* layers have one; 0: none has */
} model_family_t;

/* The family with experts that GGUF calls as f; f itself if there is none. */
const model_family_t *model_family_with_experts(const model_family_t *f);

/* text with i in the place of its N, in buf. */
void model_family_expand(const char *text, uint32_t i, char *buf, size_t size);

/* The family that a container calls so; NULL if there is none. */
const model_family_t *model_family_find(
    int container, const char *arch, size_t len);

/* "blk.7.": what a container puts before the names of layer i's tensors. */
void model_family_prefix(
    const model_family_t *f, int container, uint32_t i, char *buf, size_t size);

/* The names that a container has for families, "a, b or c", in buf. */
const char *model_family_names(int container, char *buf, size_t size);

/*
 * A container, opened.  Keys are asked for by the name that find writes; the
 * others return 1 when there is such a value and it fits the kind.
 */
typedef struct model_source_s model_source_t;

struct model_source_s {
    int container;              /* MODEL_GGUF, MODEL_HF */
    const void *at;             /* the container's own */
    const char *keys, *weights; /* files, for sentences */
    const tensor_t *tensors;    /* [tensors_n] by name */
    uint32_t tensors_n;
    uint64_t tokens_n; /* of the vocabulary in it, 0 if it has none */

    /* Writes key's name here; is it there? */
    int (*find)(const model_source_t *s, const model_family_t *f,
        model_key_t key, char *name, size_t size);
    int (*has)(const void *at, const char *name);
    int (*u32)(const void *at, const char *name, uint32_t *v);
    int (*f32)(const void *at, const char *name, float *v);
    int (*word)(const void *at, const char *name, char *v, size_t size);

    /* A list's length and elements; 0 when there is no such list. */
    int (*list)(const void *at, const char *name, uint32_t *n);
    int (*item_f32)(const void *at, const char *name, uint32_t i, float *v);
    int (*item_word)(
        const void *at, const char *name, uint32_t i, char *v, size_t size);
};

/* The key in a container; NULL if it has none. */
const char *model_key_name(model_key_t key, int container);

/* Kinds of rotary scaling. X(id, name) */
#define MODEL_ROPE_KINDS(X)                                                    \
    X(NONE, "none")                                                            \
    X(DEFAULT, "default")                                                      \
    X(LINEAR, "linear")                                                        \
    X(LLAMA3, "llama3")                                                        \
    X(YARN, "yarn")                                                            \
    X(LONGROPE, "longrope")                                                    \
    X(SU, "su") /* longrope's first name */

typedef enum {
#define X(id, name) MODEL_ROPE_##id,
    MODEL_ROPE_KINDS(X)
#undef X
        MODEL_ROPE_KINDS_N
} model_rope_kind_t;

/* A set of angles. */
typedef struct {
    model_rope_kind_t kind;
    float base;
    float factor;      /* positions are divided by it */
    float low, high;   /* llama3: turns in the original context that are */
    uint32_t original; /* divided in full and not at all; that context */
    float fast, slow;  /* yarn: the same, from not at all on */
    int truncate;      /* yarn: to whole pairs */
    float scale;       /* of cosines and sines */
    float *factors[2]; /* longrope: [rope_dims / 2] for short and long, owned */
} model_rope_t;

typedef struct model_hf_s model_hf_t;

struct model_s {
    model_info_t info;
    const model_family_t *family;
    model_rope_t ropes[MODEL_ROPES_MAX];
    int tied;
    uint64_t dims[MODEL_DIMS];
    model_top_t top;
    model_layer_t *layers; /* [info.layers], owned */
    tensor_t *made;        /* tensors of the null model, pieces; owned */
    tensor_lay_t *lays;    /* of pieces that take turns; owned */
    const gguf_t *gguf;    /* where it is from, one of the two or neither: */
    model_hf_t *hf;        /* owned */
    int owns_gguf;
    void (*taken)(void *arg, uint64_t bytes); /* NULL: nobody watches */
    void *taken_arg;
};

/* What reading needs beside the model; err is set when a function fails. */
typedef struct {
    const model_source_t *s;
    const model_family_t *f;
    model_t *m;
    char *err;
    size_t errlen;
    uint8_t *used;     /* [s->tensors_n] */
    tensor_t *piece;   /* the next of m->made */
    tensor_lay_t *lay; /* and of m->lays */
} model_opening_t;

/*
 * Keys, with limits (model_key.c).  Those that want leave *v as it is when the
 * key is absent.  1, or 0 with a sentence in o->err.
 */

/* The name of a key, long enough for any alternative's. */
typedef struct {
    char s[128];
} model_key_name_t;

/* "FILE: sentence"; returns 0, which means failure everywhere. */
__attribute__((format(printf, 3, 4))) int model_fail(
    model_opening_t *o, const char *file, const char *fmt, ...);

/* Is key there?  Its name is written either way. */
int model_find_key(model_opening_t *o, model_key_t key, model_key_name_t *name);

/* The same, and its name. */
const char *model_key_shown(
    model_opening_t *o, model_key_t key, model_key_name_t *name);

/* A size from 1 to max; a number that is positive and finite; true or false. */
int model_need_u32(
    model_opening_t *o, model_key_t key, uint32_t max, uint32_t *v);
int model_want_u32(
    model_opening_t *o, model_key_t key, uint32_t max, uint32_t *v);
int model_need_f32(model_opening_t *o, model_key_t key, float *v);
int model_want_f32(model_opening_t *o, model_key_t key, float *v);
int model_want_flag(model_opening_t *o, model_key_t key, int *v);

/* Keys that would change what is computed have the value that does not. */
int model_check_musts(model_opening_t *o);

/*
 * Rotary angles (model_rope.c): without any scaling; read, once rope_dims and
 * the context are known.
 */
void model_plain_ropes(model_t *m);
int model_read_ropes(model_opening_t *o);

/* The same for what only tensors say. */
int model_take_rope_factors(model_opening_t *o);

/* What is done with the sizes (model_rules.c): nothing more; read. */
void model_plain_rules(model_t *m);
int model_read_rules(model_opening_t *o);

/* Windows and angles of the layers, once their tensors are known. */
int model_read_layers(model_opening_t *o);

/* An empty one; NULL with err. */
model_t *model_new(const char *file, char *err, size_t errlen);

/*
 * Reads family f's sizes and tensors from s into m.  1, or 0 with one sentence
 * in err; m is the caller's to close either way.
 */
int model_read(model_t *m, const model_family_t *f, const model_source_t *s,
    char *err, size_t errlen);

/* Fills in dims from info. */
void model_set_dims(model_t *m);

/* info.name: a path's last part without suffix and a shard's number. */
void model_name(model_t *m, const char *path, const char *suffix);

/* Opens a directory (or file in one), as model_open. */
model_t *model_hf_open(const char *path, char *err, size_t errlen);
void model_hf_close(model_hf_t *hf);

/* The same from memory that outlives it (fuzz). */
model_t *model_hf_open_mem(const char *config, size_t config_len,
    const uint8_t *weights, size_t weights_len, char *err, size_t errlen);

/*
 * A table of the n tensors of list where each one of F8_E4M3 has its factors,
 * which are in it no longer; the caller's to free.  NULL with one sentence.
 */
tensor_t *model_fp8_join(const tensor_t *list, uint32_t n, uint32_t *joined_n,
    const char *file, char *err, size_t errlen);

/* Room for such a table and, behind it, for what n / 2 of its tensors lay. */
tensor_t *model_join_room(uint32_t n, tensor_lay_t **lays);

/* The same of MXFP4 in two tensors of bytes, which become one. */
tensor_t *model_mxfp4_join(const tensor_t *list, uint32_t n, uint32_t *joined_n,
    const char *file, char *err, size_t errlen);

/*
 * A file's text, with room for a 0 behind it, and a file that is one JSON
 * object, read with jansson's flags: the caller's to free.  NULL with one
 * sentence in err.
 */
char *model_hf_text(
    const char *path, size_t max, size_t *len, char *err, size_t errlen);
struct json_t *model_hf_object(
    const char *path, size_t max, size_t flags, char *err, size_t errlen);

/* How many files the weights are in. */
uint32_t model_hf_files(const model_hf_t *hf);

/* NULL: from memory. */
const char *model_hf_dir(const model_hf_t *hf);

/* Is path a directory, or named like a file that model directories have? */
int model_hf_is(const char *path);

#endif
