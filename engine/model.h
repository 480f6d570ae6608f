/*
 * A model: shape, hyper-parameters and weights as its files have them.  It
 * comes from a GGUF file or from a directory as Hugging Face has it, and who
 * looks at it cannot tell which.  Families are rows of a table in
 * model_family.c; forward.c runs any of them.
 */
#ifndef MODEL_H
#define MODEL_H

#include "gguf.h"
#include "tensor.h"

#include <stddef.h>
#include <stdint.h>

typedef struct model_s model_t;

#define MODEL_ENDS_MAX 32

/* Groups of layers that keep their keys and values apart. */
#define MODEL_GROUPS_MAX 8

/* Sets of rotary angles that a model may have. */
#define MODEL_ROPES_MAX 2

typedef struct {
    char name[128]; /* for /v1/models: the file's or directory's by default */
    char arch[64];
    uint64_t created; /* unix seconds, the file's mtime */
    uint32_t layers, hidden, heads, kv_heads, head_dim, ffn, vocab;
    uint32_t context; /* trained */
    uint64_t weight_bytes;
    uint32_t rope_dims; /* rotated elements of a head, even */
    uint32_t ropes;     /* sets of angles */
    uint32_t experts;   /* of a layer; 0: it has a plain gate */
    uint32_t experts_used;
    uint32_t expert_ffn;  /* as ffn is, of an expert */
    int experts_normed;   /* their weights add up to one */
    uint32_t shared_ffn;  /* of the expert of all tokens; 0: there is none */
    int rope_halves;      /* pairs are i, i + rope_dims / 2; else 2i, 2i + 1 */
    int gelu;             /* the gate's activation; else SiLU, */
    float act_limit;      /* or, if above 0, the clamped one */
    float eps;            /* of the norms */
    float norm_offset;    /* what their weights lack */
    float embed_scale;    /* of the vectors of tokens */
    float attn_scale;     /* of the products of queries and keys */
    float attn_cap;       /* kernels.h has the formula; 0 is none */
    float residual_scale; /* of what is added to the stream */
    float logit_scale;
    float logit_cap;               /* 0 is none */
    uint32_t ends[MODEL_ENDS_MAX]; /* ids that end a text, beside those that */
    uint32_t ends_n;               /* the tokenizer knows; below vocab */
} model_info_t;

/*
 * Weights as the file has them, dims[0] being the input's length.  Norms are
 * F32, F16 or BF16, matrices one of model_is_matrix.  data is NULL in the null
 * back end's model.
 */
typedef struct {
    const tensor_t *attn_norm; /* [hidden] or NULL */
    const tensor_t *q;         /* [heads * head_dim, hidden] */
    const tensor_t *k, *v;     /* [kv_heads * head_dim, hidden] */
    const tensor_t *o;         /* [hidden, heads * head_dim] */
    const tensor_t *ffn_norm;  /* [hidden] or NULL */
    const tensor_t *gate, *up; /* [ffn, hidden] */
    const tensor_t *down;      /* [hidden, ffn] */

    /* What families may have beside; NULL where this one has not. */
    const tensor_t *q_bias;              /* [heads * head_dim] */
    const tensor_t *k_bias, *v_bias;     /* [kv_heads * head_dim] */
    const tensor_t *o_bias;              /* [hidden] */
    const tensor_t *gate_bias, *up_bias; /* [ffn] */
    const tensor_t *down_bias;           /* [hidden] */
    const tensor_t *q_norm, *k_norm;     /* [head_dim], or of all heads */
    const tensor_t *attn_post_norm;      /* [hidden] */
    const tensor_t *ffn_post_norm;       /* [hidden] */
    const tensor_t *sinks;               /* [heads] */

    /* In the place of gate, up and down, where there are experts. */
    const tensor_t *router;        /* [experts, hidden] */
    const tensor_t **experts_gate; /* [experts], each as gate, of expert_ffn */
    const tensor_t **experts_up;   /* rows */
    const tensor_t **experts_down; /* [experts], each [hidden, expert_ffn] */
    const tensor_t *router_bias;   /* [experts] or NULL; [experts, expert_ffn],
                                      the same, [experts, hidden] or NULL: */
    const tensor_t *experts_gate_bias, *experts_up_bias, *experts_down_bias;

    /* The expert of all tokens, and how much of it. */
    const tensor_t *shared_gate, *shared_up; /* [shared_ffn, hidden] */
    const tensor_t *shared_down;             /* [hidden, shared_ffn] */
    const tensor_t *shared_router;           /* [hidden] */

    uint32_t window; /* positions that attention looks at; 0 is all */
    uint32_t rope;   /* its set of angles; from MODEL_ROPES_MAX on: none */
} model_layer_t;

typedef struct {
    const tensor_t *embed;        /* [vocab, hidden] */
    const tensor_t *norm;         /* [hidden] */
    const tensor_t *output;       /* [vocab, hidden], embed when tied */
    const tensor_t *rope_factors; /* [rope_dims / 2] or NULL */
    const tensor_t *rope_short, *rope_long; /* likewise */
} model_top_t;

/*
 * How a cache is laid out for sequences of up to context tokens: a block has
 * room for slots layers, those of one group.  All zero: one group of all.
 */
typedef struct {
    uint32_t n, slots;
    uint32_t context;                  /* 0: windows are not looked at */
    uint32_t window[MODEL_GROUPS_MAX]; /* positions; 0 is all */
} model_groups_t;

/*
 * Opens what lies at path: a GGUF file, a directory with config.json, or a
 * file of such a directory.  NULL with one sentence in err.
 */
model_t *model_open(const char *path, char *err, size_t errlen);

/* The same of an open file, which is borrowed until model_close. */
model_t *model_open_gguf(const gguf_t *g, char *err, size_t errlen);

/* The null back end's: a shape, no weights. */
model_t *model_open_null(uint32_t vocab, uint32_t context);

void model_close(model_t *m);

/* The file it is from, until model_close; NULL if it is from none. */
const gguf_t *model_gguf(const model_t *m);

/* The directory it is from, until model_close; NULL if it is from none. */
const char *model_dir(const model_t *m);

/* Gives the model another public name, cut to what info holds. */
void model_rename(model_t *m, const char *name);

const model_info_t *model_info(const model_t *m);
const model_top_t *model_top(const model_t *m);
const model_layer_t *model_layer(const model_t *m, uint32_t i);

/* The best layout for the model (model_groups.c). */
void model_groups(const model_t *m, uint32_t context, model_groups_t *g);

/* Where layer's keys and values are: its group, and the place in a block. */
void model_place(const model_t *m, const model_groups_t *g, uint32_t layer,
    uint32_t *group, uint32_t *slot);

/* May a weight matrix be of this tensor type? */
int model_is_matrix(uint32_t type);

/*
 * Weights are copied to the device one by one.  taken says that t's bytes are:
 * the memory that they were read into may go, and who watches is told how many
 * they were.  They can still be read.
 */
void model_watch(
    model_t *m, void (*taken)(void *arg, uint64_t bytes), void *arg);
void model_taken(const model_t *m, const tensor_t *t);

/* What it is from, for people: "GGUF", "safetensors, 4 files". */
void model_container(const model_t *m, char *buf, size_t size);

/*
 * Set i of the angles per position of the rotated pairs, for sequences of up
 * to context tokens: freq [rope_dims / 2].  Returns what cosines and sines are
 * to be multiplied by.
 */
double model_rope_freqs(
    const model_t *m, uint32_t i, uint32_t context, double *freq);

#endif
