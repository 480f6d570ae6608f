/*
 * All that a model's path gives: the model, its tokenizer, and how its
 * conversations are written.
 */
#ifndef LOAD_H
#define LOAD_H

#include "model.h"
#include "reason.h"
#include "template.h"
#include "token.h"
#include "tools.h"

#include <stddef.h>

/* All owned; each is NULL until it is opened. */
typedef struct {
    model_t *model;
    token_t *tok;
    template_t *tpl;
    reason_t *reason;      /* NULL, too, where thought is not marked */
    tools_family_t *tools; /* NULL, too, where calls are not told apart */
} load_t;

/*
 * Opens model and tokenizer of what lies at path, as model_open does.  0, or
 * -1 with one sentence in err; load_close is due either way.
 */
int load_model(load_t *l, const char *path, char *err, size_t errlen);

/*
 * Opens the chat template: the file's, if it is not empty, else the model's
 * own, which must both be open.  A model's own that does not compile is told
 * of in the log and not used; the file was asked for.  reasoning says how its
 * model marks thought, as reason_open takes it, tool_calls how it writes calls,
 * as tools_family_open does.  0, or -1 with one sentence in err.
 */
int load_template(load_t *l, const char *file, const char *reasoning,
    const char *tool_calls, char *err, size_t errlen);

/* Closes what is open. */
void load_close(load_t *l);

#endif
