/*
 * Models in several files, made of whole ones, and a model that is hardly any
 * but has embeddings for a tokenizer of any size.
 */
#ifndef SHARDS_MAKE_H
#define SHARDS_MAKE_H

#include "gguf.h"
#include "safetensors.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


/* --- safetensors -------------------------------------------------------- */

/* The first n tensors at t, one behind the other. */
static inline void
shards_st(const char *path, const tensor_t *t, uint32_t n)
{
    FILE *f = fopen(path, "wb");
    char *header = NULL;
    size_t size = 0;
    uint64_t at = 0, len;
    uint32_t i;
    FILE *h = open_memstream(&header, &size);

    assert(f != NULL && h != NULL);

    for (i = 0; i < n; i++) {
        fprintf(h, "%s\"%.*s\":{\"dtype\":\"%s\",\"shape\":[",
            i == 0 ? "{" : ",", (int) t[i].name.len, t[i].name.s,
            tensor_type_name(t[i].type));

        if (t[i].dims_n > 1) {
            fprintf(h, "%llu,", (unsigned long long) t[i].dims[1]);
        }

        fprintf(h, "%llu],\"data_offsets\":[%llu,%llu]}",
            (unsigned long long) t[i].dims[0], (unsigned long long) at,
            (unsigned long long) (at + t[i].size));
        at += t[i].size;
    }

    fprintf(h, "}");
    fclose(h);
    len = size;
    fwrite(&len, 1, sizeof(len), f);
    fwrite(header, 1, size, f);

    for (i = 0; i < n; i++) {
        fwrite(t[i].data, 1, t[i].size, f);
    }

    free(header);
    fclose(f);
}

/* dir/model.safetensors as two files and an index, in to. */
static inline void
shards_of_st(const char *dir, const char *to)
{
    char err[256], path[1024];
    uint32_t i, n;
    safetensors_t *s = safetensors_open(dir, err, sizeof(err));
    const tensor_t *t;
    FILE *f;

    assert(s != NULL);
    t = safetensors_tensors(s, &n);
    snprintf(path, sizeof(path), "%s/model.safetensors.index.json", to);
    f = fopen(path, "wb");
    assert(f != NULL && n > 1);
    fprintf(f, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");

    for (i = 0; i < n; i++) {
        fprintf(f, "%s\"%.*s\":\"%c.safetensors\"", i == 0 ? "" : ",",
            (int) t[i].name.len, t[i].name.s, i < n / 2 ? 'a' : 'b');
    }

    fprintf(f, "}}\n");
    fclose(f);
    snprintf(path, sizeof(path), "%s/a.safetensors", to);
    shards_st(path, t, n / 2);
    snprintf(path, sizeof(path), "%s/b.safetensors", to);
    shards_st(path, t + n / 2, n - n / 2);
    safetensors_close(s);
}

/*
 * In dir a model of one layer, 8 wide, with embeddings for vocab tokens; and
 * its config.json.  Its bytes are all the same.
 */
static inline void
shards_carrier(const char *dir, uint32_t vocab)
{
    static const struct {
        const char *name;
        uint32_t rows; /* 0: a norm; 1: the vocabulary */
    } list[] = {{"model.embed_tokens.weight", 1}, {"model.norm.weight", 0},
        {"model.layers.0.input_layernorm.weight", 0},
        {"model.layers.0.post_attention_layernorm.weight", 0},
        {"model.layers.0.self_attn.q_proj.weight", 8},
        {"model.layers.0.self_attn.k_proj.weight", 8},
        {"model.layers.0.self_attn.v_proj.weight", 8},
        {"model.layers.0.self_attn.o_proj.weight", 8},
        {"model.layers.0.mlp.gate_proj.weight", 8},
        {"model.layers.0.mlp.up_proj.weight", 8},
        {"model.layers.0.mlp.down_proj.weight", 8}};
    const uint32_t n = sizeof(list) / sizeof(list[0]);
    tensor_t t[sizeof(list) / sizeof(list[0])];
    char path[1024];
    uint8_t *data = malloc((size_t) vocab * 16);
    uint32_t i;
    FILE *f;

    assert(data != NULL && vocab >= 8);
    memset(data, 0x3c, (size_t) vocab * 16);
    memset(t, 0, sizeof(t));

    for (i = 0; i < n; i++) {
        t[i].name.s = list[i].name;
        t[i].name.len = strlen(list[i].name);
        t[i].type = TENSOR_BF16;
        t[i].dims_n = list[i].rows == 0 ? 1 : 2;
        t[i].dims[0] = 8;
        t[i].dims[1] = list[i].rows == 1 ? vocab : list[i].rows;
        t[i].size = 16 * (list[i].rows == 0 ? 1 : t[i].dims[1]);
        t[i].data = data;
    }

    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    shards_st(path, t, n);
    free(data);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    f = fopen(path, "wb");
    assert(f != NULL);
    fprintf(f,
        "{\"model_type\":\"llama\",\"num_hidden_layers\":1,\"hidden_size\":8,"
        "\"intermediate_size\":8,\"max_position_embeddings\":512,"
        "\"num_attention_heads\":2,\"num_key_value_heads\":2,"
        "\"tie_word_embeddings\":true,\"vocab_size\":%u}\n",
        vocab);
    fclose(f);
}


/* --- GGUF --------------------------------------------------------------- */

/* Bytes of a value of type at p, whose file is right. */
static inline size_t
shards_value(const uint8_t *p, uint32_t type)
{
    static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    uint32_t elem;
    uint64_t n, i;
    size_t at = 12;

    assert(type < sizeof(sizes));

    if (type == GGUF_STR) {
        memcpy(&n, p, 8);
        return 8 + (size_t) n;
    }

    if (type != GGUF_ARR) {
        return sizes[type];
    }

    memcpy(&elem, p, 4);
    memcpy(&n, p + 4, 8);

    for (i = 0; i < n; i++) {
        at += shards_value(p + at, elem);
    }

    return at;
}

/* The keys split.* of shard no of two. */
static inline void
shards_keys(FILE *f, uint16_t no, int32_t tensors)
{
    static const char *const keys[] = {
        "split.no", "split.count", "split.tensors.count"};
    const uint16_t words[] = {no, 2};
    uint32_t i, type;
    uint64_t len;

    for (i = 0; i < 3; i++) {
        len = strlen(keys[i]);
        type = i < 2 ? GGUF_U16 : GGUF_I32;
        fwrite(&len, 8, 1, f);
        fwrite(keys[i], 1, (size_t) len, f);
        fwrite(&type, 4, 1, f);
        fwrite(
            i < 2 ? (const void *) &words[i] : &tensors, i < 2 ? 2 : 4, 1, f);
    }
}

/* Tensors [from, to) of g, described and then their data. */
static inline void
shards_tensors(FILE *f, const gguf_t *g, uint32_t from, uint32_t to)
{
    uint32_t i;
    uint64_t at = 0, len;
    const tensor_t *t;

    for (i = from; i < to; i++) {
        t = gguf_tensor_at(g, i);
        len = t->name.len;
        fwrite(&len, 8, 1, f);
        fwrite(t->name.s, 1, t->name.len, f);
        fwrite(&t->dims_n, 4, 1, f);
        fwrite(t->dims, 8, t->dims_n, f);
        fwrite(&t->type, 4, 1, f);
        fwrite(&at, 8, 1, f);
        at += (t->size + 31) / 32 * 32;
    }

    while (ftell(f) % 32 != 0) {
        fputc(0, f);
    }

    for (i = from; i < to; i++) {
        t = gguf_tensor_at(g, i);
        fwrite(t->data, 1, t->size, f);

        while (ftell(f) % 32 != 0) {
            fputc(0, f);
        }
    }
}

/* The GGUF of len bytes at p as shards TO-0000N-of-00002.gguf. */
static inline void
shards_of_gguf(const uint8_t *p, size_t len, const char *to)
{
    char err[256], path[1024];
    gguf_t *g = gguf_open_mem(p, len, "whole", err, sizeof(err));
    uint32_t no, type, tensors, half;
    uint64_t pairs, i, n;
    size_t at = 24;
    FILE *f;

    assert(g != NULL);
    tensors = gguf_tensors_n(g);
    half = tensors / 2;
    memcpy(&pairs, p + 16, 8);

    for (i = 0; i < pairs; i++) {
        memcpy(&n, p + at, 8);
        at += 8 + (size_t) n;
        memcpy(&type, p + at, 4);
        at += 4 + shards_value(p + at + 4, type);
    }

    for (no = 0; no < 2; no++) {
        snprintf(path, sizeof(path), "%s-%05u-of-00002.gguf", to, no + 1);
        f = fopen(path, "wb");
        assert(f != NULL);
        fwrite(p, 1, 8, f);
        n = no == 0 ? half : tensors - half;
        fwrite(&n, 8, 1, f);
        n = 3 + (no == 0 ? pairs : 0);
        fwrite(&n, 8, 1, f);

        if (no == 0) {
            fwrite(p + 24, 1, at - 24, f);
        }

        shards_keys(f, (uint16_t) no, (int32_t) tensors);
        shards_tensors(f, g, no == 0 ? 0 : half, no == 0 ? half : tensors);
        fclose(f);
    }

    gguf_close(g);
}

#endif
