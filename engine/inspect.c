/*
 * A model's description: see inspect.h.
 *
 * DESIGN.  The memory plan is not computed here a second time: the forward
 * pass was opened on the null device, which takes the same calls, holds
 * nothing and loads nothing, and counted what they asked for.  So the plan is
 * what the engine will do, by construction.
 *
 * Nothing is owned.  The main thread, before others run.
 */
#include "inspect.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#define BYTES(n) (unsigned long long) (n)

static const char *const types[KN_TYPES] = {
#define X(name, elems, bytes) #name,
    KN_TYPE_LIST(X)
#undef X
};


__attribute__((format(printf, 2, 3))) static void
row(const char *name, const char *fmt, ...)
{
    va_list args;

    printf("%-17s", name);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    printf("\n");
}


static uint64_t
weights_bytes(const forward_held_t *h)
{
    uint32_t i;
    uint64_t sum = 0;

    for (i = 0; i < KN_TYPES; i++) {
        sum += h->weights[i].bytes;
    }

    assert(sum >= h->converted);

    return sum;
}


/* Experts, and layers whose attention does not look at all positions. */
static void
print_parts(const model_t *model)
{
    uint32_t i, n = 0, window = 0;
    const model_info_t *m = model_info(model);

    if (m->experts > 0) {
        row("experts", "%u, %u for each token, ffn %u", m->experts,
            m->experts_used, m->expert_ffn);
    }

    for (i = 0; i < m->layers; i++) {
        if (model_layer(model, i)->window > 0) {
            window = model_layer(model, i)->window;
            n++;
        }
    }

    if (n > 0) {
        row("window", "%u tokens in %u of %u layers", window, n, m->layers);
    }
}


static void
print_shape(const inspect_t *in)
{
    char from[64];
    const model_info_t *m = model_info(in->model);

    model_container(in->model, from, sizeof(from));
    row("model", "%s", in->name);
    row("from", "%s, %s", from, in->path);
    row("architecture", "%s", m->arch);
    row("layers", "%u", m->layers);
    row("hidden", "%u", m->hidden);

    if (m->latent > 0) {
        row("heads", "%u, keys of %u and values of %u out of latents of %u",
            m->heads, m->key_dim + m->rope_dims, m->value_dim, m->latent);
    } else {
        row("heads", "%u, %u for keys, of %u", m->heads, m->kv_heads,
            m->head_dim);
    }

    row("ffn", "%u", m->ffn);
    print_parts(in->model);
    row("vocabulary", "%u", m->vocab);
    row("embeddings", "%s",
        model_top(in->model)->output == model_top(in->model)->embed
            ? "tied"
            : "two matrices");
    row("rotary", "%u of %u elements, pairs %s", m->rope_dims,
        m->latent > 0 ? m->key_dim + m->rope_dims : m->head_dim,
        m->rope_halves ? "half of them apart" : "of neighbours");
    row("context", "%u tokens, trained on %u", in->shape->context, m->context);
}


/* How good what was converted is. */
static const char *
inspect_error(const forward_held_t *h)
{
    assert(h->rounded <= h->converted);

    return h->rounded > 0 ? "rounded by at most 0.4 %" : "without error";
}


static void
print_weights(const inspect_t *in)
{
    uint32_t i;
    const forward_held_t *h = in->held;

    row("weights", "%llu bytes in the file",
        BYTES(model_info(in->model)->weight_bytes));

    for (i = 0; i < KN_TYPES; i++) {
        if (h->weights[i].n > 0) {
            printf("  %-15s%llu tensors, %llu bytes\n", types[i],
                BYTES(h->weights[i].n), BYTES(h->weights[i].bytes));
        }
    }

    if (h->converted > 0) {
        row("  converted", "%llu bytes of BF16, %s", BYTES(h->converted),
            inspect_error(h));
    }

    if (model_info(in->model)->left_n > 0) {
        row("left out", "%llu tensors, %llu bytes: %s",
            BYTES(model_info(in->model)->left_n),
            BYTES(model_info(in->model)->left_bytes), INSPECT_LEFT);
    }
}


/* What the cache is made of, and how much goes in. */
static void
print_cache(const inspect_t *in)
{
    uint32_t i;
    const forward_cfg_t *s = in->shape;
    const model_groups_t *g = &s->groups;
    const forward_held_t *h = in->held;
    uint64_t fit = s->blocks / in->sequence_blocks;

    assert(s->blocks > 0 && s->context > 0 && in->sequence_blocks > 0);
    assert(g->n > 0 && g->slots > 0);
    row("kv block", "%u tokens, %u layers, %llu bytes, %s", s->block_tokens,
        g->slots, BYTES(h->kv / s->blocks), in->kv_type);
    row("kv token", "%llu bytes a layer: %s",
        BYTES(h->kv / s->blocks / s->block_tokens / g->slots),
        model_info(in->model)->latent > 0 ? "a latent and what is rotated"
                                          : "keys and values");

    for (i = 0; i < g->n; i++) {
        if (g->window[i] > 0) {
            row("  group", "the last %u positions", g->window[i]);
        } else {
            row("  group", "all positions");
        }
    }

    row("kv blocks", "%u, %llu bytes", s->blocks, BYTES(h->kv));

    if (h->host > 0) {
        row("  in the host", "%u, %llu bytes", s->host_blocks, BYTES(h->host));
    }

    row("sequences", "%llu of %u tokens fit at once", BYTES(fit), s->context);
}


static void
print_memory(const inspect_t *in)
{
    const forward_cfg_t *s = in->shape;
    const forward_held_t *h = in->held;

    row("device", "%s", in->device);

    if (forward_ranks(s) > 1) {
        row("ranks", "%u that share it; of all together:", forward_ranks(s));
    }

    print_cache(in);
    row("step", "%u sequences, %u tokens: %llu bytes of activations",
        s->rows_max, s->tokens_max, BYTES(h->acts));
    row("device memory", "%llu bytes",
        BYTES(weights_bytes(h) + h->kv + h->acts));
    row("rings", "%llu bytes for each of at most %u workers",
        BYTES(in->ring_bytes), in->workers_max);
}


void
inspect_print(const inspect_t *in)
{
    assert(in->model != NULL && in->held != NULL);
    print_shape(in);
    row("tokenizer", "%s, %u tokens", token_kind(in->tok),
        token_vocab(in->tok));
    row("chat template", "%s", in->chat);
    row("reasoning", "%s", in->reasoning);
    row("tool calls", "%s", in->tool_calls);
    print_weights(in);
    print_memory(in);
}


void
inspect_held(const forward_held_t *h, char *buf, size_t size)
{
    uint32_t i;
    size_t at = 0;
    const char *comma = " ";

    assert(size >= 512);
    at += (size_t) snprintf(buf, size, "weights");

    for (i = 0; i < KN_TYPES && at < size / 2; i++) {
        if (h->weights[i].n > 0) {
            at += (size_t) snprintf(buf + at, size - at, "%s%s %.1f MB in %llu",
                comma, types[i], (double) h->weights[i].bytes / 1e6,
                BYTES(h->weights[i].n));
            comma = ", ";
        }
    }

    if (h->converted > 0) {
        /* F8_E4M3, all of whose values BF16 has, but not times a factor */
        at += (size_t) snprintf(buf + at, size - at,
            " (%.1f MB of BF16 converted, %s)", (double) h->converted / 1e6,
            inspect_error(h));
    }

    at += (size_t) snprintf(
        buf + at, size - at, "; KV pool %.1f MB", (double) h->kv / 1e6);

    if (h->host > 0) {
        at += (size_t) snprintf(buf + at, size - at, ", %.1f MB of the host",
            (double) h->host / 1e6);
    }

    snprintf(buf + at, size - at, "; activations of the largest step %.1f MB",
        (double) h->acts / 1e6);
}
