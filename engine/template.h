/*
 * Chat templates: a conversation to token ids.  Markup becomes special tokens,
 * what users wrote never does: "<|im_end|>" in a message is plain text.
 */
#ifndef TEMPLATE_H
#define TEMPLATE_H

#include "token.h"

#include <stddef.h>
#include <stdint.h>

/*
 * messages: the JSON array as the client sent it (len bytes, untrusted).
 * Writes at most cap ids to out, the generation prompt at their end.  Returns
 * the count or a negative llm_err.h code as token_encode does, also
 * -LLM_ERR_BAD_MESSAGES; then err holds one sentence for the client and param
 * the field to blame ("messages[2].role"), both 0-terminated.
 */
int64_t template_encode(const token_t *t, const char *messages, size_t len,
    uint32_t *out, size_t cap, int (*cancelled)(void *), void *arg, char *err,
    size_t errlen, char *param, size_t paramlen);

#endif
