/*
 * What a model's path gives, opened: see load.h.
 *
 * DESIGN.  The parts are opened in this order, because each is judged by the
 * one before: the model says which container it is from, the tokenizer must
 * fit the embeddings, the template is compiled to the tokenizer's ids.  It
 * stands apart from main.c so that whoever tests what files may do to the
 * engine runs what the engine runs.
 *
 * The load_t owns what it holds.  The main thread, before others run.
 */
#include "load.h"

#include "log.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>


/* The tokenizer that the model came with, and what else ends a text. */
static int
load_token(load_t *l, const char *path, char *err, size_t errlen)
{
    uint32_t i;
    const model_info_t *m = model_info(l->model);

    assert(l->tok == NULL);
    if (model_gguf(l->model) == NULL) {
        l->tok = token_open_dir(model_dir(l->model), err, errlen);
    } else {
        l->tok = token_open_gguf(model_gguf(l->model), err, errlen);
    }
    if (l->tok == NULL) {
        return -1;
    }

    if (token_vocab(l->tok) > m->vocab) {
        snprintf(err, errlen,
            "%s: expected a tokenizer of at most %u tokens, as the embeddings "
            "have, found %u",
            path, m->vocab, token_vocab(l->tok));
        return -1;
    }

    for (i = 0; i < m->ends_n; i++) {
        token_add_end(l->tok, m->ends[i]);
    }

    return 0;
}


int
load_model(load_t *l, const char *path, char *err, size_t errlen)
{
    assert(l->model == NULL && l->tok == NULL);
    assert(path[0] != '\0' && errlen > 0);

    l->model = model_open(path, err, errlen);
    if (l->model == NULL) {
        return -1;
    }

    return load_token(l, path, err, errlen);
}


int
load_template(load_t *l, const char *file, const char *reasoning,
    const char *tool_calls, char *err, size_t errlen)
{
    template_files_t f;
    const template_text_t *tools;
    char warn[256];
    int rc;

    assert(l->model != NULL && l->tok != NULL && l->tpl == NULL);

    if (template_load(
            &f, file, model_gguf(l->model), model_dir(l->model), err, errlen)
        != 0) {
        return -1;
    }

    l->tpl = template_open(l->tok, f.own, f.tools, warn, sizeof(warn));
    rc = l->tpl == NULL ? snprintf(err, errlen, "out of memory")
                        : reason_open(&l->reason, reasoning, f.own.s, f.own.len,
                            l->tok, err, errlen);
    /* a template for tools says best how calls are written */
    tools = f.tools.s != NULL ? &f.tools : &f.own;
    if (rc == 0) {
        rc = tools_family_open(
            &l->tools, tool_calls, tools->s, tools->len, l->tok, err, errlen);
    }
    template_unload(&f);
    if (rc != 0) {
        return -1;
    }

    if (warn[0] != '\0' && file[0] != '\0') {
        snprintf(err, errlen, "%.200s: %s", file, warn);
        return -1;
    }
    if (warn[0] != '\0') {
        log_line(LOG_WARN,
            "the model's chat template is not used, conversations are "
            "written as %s: %s",
            template_form(l->tpl), warn);
    }

    return 0;
}


void
load_close(load_t *l)
{
    template_close(l->tpl);
    reason_close(l->reason);
    tools_family_close(l->tools);
    token_close(l->tok);
    model_close(l->model);
    memset(l, 0, sizeof(*l));
}
