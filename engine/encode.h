/*
 * The inputs of a SUBMIT to token ids: text, conversations and ids as they
 * come.  No state; runs on text_in's threads.
 */
#ifndef ENCODE_H
#define ENCODE_H

#include "reason.h"
#include "req.h"
#include "submit.h"
#include "template.h"
#include "token.h"
#include "tools.h"

#include <stdint.h>

typedef struct {
    const token_t *tok;
    const template_t *tpl;
    const reason_t *reason;      /* NULL: the model has no marks of thought */
    const tools_family_t *tools; /* NULL: calls are not told from the text */
    uint32_t limit;    /* longest sequence, prompt and answer, tokens */
    uint32_t work_max; /* ids that fit into work */
} encode_rules_t;

/*
 * Encodes the inputs of s, which submit_check passed, and sets r's prompts,
 * prompt_tokens, apart with reason, and tools, which the caller closes;
 * r->prompts_n is set already.  work is
 * scratch memory of work_max ids.  Returns the one block that all prompts lie
 * in, which the caller frees, or NULL with why filled in.  cancelled is asked
 * now and then.
 */
uint32_t *encode_prompts(const encode_rules_t *e, const submit_t *s,
    uint32_t *work, int (*cancelled)(void *), void *arg, req_t *r,
    submit_fail_t *why);

#endif
