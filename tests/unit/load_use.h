/*
 * Uses what has been loaded from files that may be damaged: a step, and a
 * conversation.  Any end will do but a crash.
 */
#ifndef LOAD_USE_H
#define LOAD_USE_H

#include "forward.h"
#include "kv.h"
#include "load.h"
#include "loop.h"

#include <stdio.h>
#include <string.h>

#define LOAD_USE_TOKENS  8
#define LOAD_USE_CONTEXT 64
#define LOAD_USE_BLOCK   16

/* The first tokens of a sequence in one step; logits may be NaN. */
static inline void
load_use_step(forward_t *f, kv_t *kv, uint32_t vocab)
{
    static const sample_params_t greedy = {.top_p = 1, .repetition_penalty = 1};
    const uint32_t n = LOAD_USE_TOKENS;
    uint32_t i, tokens[LOAD_USE_TOKENS];
    batch_row_t row = {0, 0, n, n, 0, 0, {{NULL, 0, 0}}};
    batch_out_t out = {.tok = n - 1,
        .pos = n - 1,
        .params = &greedy,
        .known = tokens,
        .known_n = n,
        .prompt_n = n};
    batch_t b = {.rows_n = 1,
        .tokens_n = n,
        .outs_n = 1,
        .rows = &row,
        .tokens = tokens,
        .outs = &out};
    sample_out_t got;

    for (i = 0; i < n; i++) {
        tokens[i] = i * 37 % vocab;
    }

    for (i = 0; i < kv_groups(kv); i++) {
        row.blocks[i].ids =
            kv_table(kv, 0, i, &row.blocks[i].first, &row.blocks[i].n);
    }

    forward_submit(f, &b);
    forward_wait(f, &got);
}

/* 1: it computed; 0: it was refused, or why says what is wrong. */
static inline int
load_use_model(const model_t *m, char *why, size_t size)
{
    char err[1024] = "";
    const kernels_t *kn = kernels_cpu("auto", err, sizeof(err));
    kn_open_t o = {.threads = 1};
    forward_cfg_t c = {1, LOAD_USE_TOKENS, 1, LOAD_USE_CONTEXT, 0,
        LOAD_USE_BLOCK, KN_F16, .groups = {.n = 0}};
    kn_dev_t *dev = kn->open(&o, err, sizeof(err));
    kv_cfg_t kc;
    kv_t *kv;
    forward_t *f;

    model_groups(m, LOAD_USE_CONTEXT, &c.groups);
    forward_kv(&c, 1, &kc);
    kc.blocks = c.blocks = (uint32_t) kv_blocks_for(&kc, LOAD_USE_CONTEXT);
    kv = kv_open(&kc);
    f = forward_open(kn, dev, m, &c, err, sizeof(err));

    if (f == NULL && (strlen(err) < 10 || strchr(err, '\n') != NULL)) {
        snprintf(why, size, "\"%.900s\" is no sentence", err);
    } else if (kv == NULL || kv_grow(kv, 0, LOAD_USE_TOKENS) != 0) {
        snprintf(why, size, "there are no blocks");
    } else if (f != NULL) {
        load_use_step(f, kv, model_info(m)->vocab);
    }

    why = f == NULL ? NULL : why;
    forward_close(f);
    kv_close(kv);
    kn->close(dev);
    return why != NULL;
}

/* What there is of l, which may be no more than a model. */
static inline int
load_use(const load_t *l, char *why, size_t size)
{
    static const char text[] =
        "[{\"role\":\"system\",\"content\":\"a\"},{\"role\":\"user\","
        "\"content\":\"Hello <s> \\u00fc\"}]";
    template_input_t in = {.messages = {text, sizeof(text) - 1}};
    uint32_t ids[512];
    char err[256], param[64];

    if (l->tpl != NULL) {
        (void) template_encode(l->tpl, &in, ids, 512, NULL, NULL, err,
            sizeof(err), param, sizeof(param));
    }

    return l->model != NULL && load_use_model(l->model, why, size);
}

#endif
