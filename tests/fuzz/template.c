/*
 * Catches: messages that crash the template, make it write past its room, or
 * smuggle a marker in: there are as many as the form has, whatever was said.
 *
 * The input is the messages; its first byte says which vocabulary, how much
 * room there is, whether ChatML comes from a template, and whether the last
 * message is to be continued.
 */
#include "llm_err.h"
#include "template.h"
#include "../unit/vocab_file.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IDS_MAX 8192

/* Bytes, begin, end and ChatML's markers. */
static token_t *
chatml_open(file_t *f, gguf_t **g)
{
    static char names[256][8];
    piece_t v[260];
    char err[256];
    uint32_t i;

    for (i = 0; i < 256; i++) {
        (void) snprintf(names[i], sizeof(names[i]), "<0x%02X>", i);
        v[i] = (piece_t){names[i], 0, 6};
    }
    v[256] = (piece_t){"<s>", 0, 3};
    v[257] = (piece_t){"</s>", 0, 3};
    v[258] = (piece_t){"<|im_start|>", 0, 3};
    v[259] = (piece_t){"<|im_end|>", 0, 3};
    file_vocab(f, v, 260);
    file_done(f);
    *g = gguf_open_mem(f->p, f->n, "fuzz", err, sizeof(err));

    return token_open_gguf(*g, err, sizeof(err));
}

/* The two forms over one vocabulary. */
static void
forms_open(const token_t *t, template_t *form[2])
{
    static const char own[] =
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{%- if m.content is string %}{{ m.content | trim }}{% else %}"
        "{% for c in m.content %}{{ c.text ~ c.type }}{% endfor %}{% endif %}"
        "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}"
        "{{ c.function.arguments }}{% endfor %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    const template_text_t none = {NULL, 0};
    char warn[256];

    form[0] = template_open(t, none, none, warn, sizeof(warn));
    form[1] = template_open(
        t, (template_text_t){own, sizeof(own) - 1}, none, warn, sizeof(warn));
    if (form[0] == NULL || form[1] == NULL || warn[0] != '\0') {
        abort();
    }
}


int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    static uint32_t ids[IDS_MAX];
    static token_t *chatml, *null;
    static template_t *forms[2][2];
    static file_t f;
    static gguf_t *g;
    char err[256], param[64];
    template_input_t in = {.no_prompt = 0};
    const token_t *t;
    int64_t n, i;
    size_t cap;
    int starts = 0, ends = 0;

    if (chatml == NULL) {
        chatml = chatml_open(&f, &g);
        null = token_open_null();
        forms_open(null, forms[0]);
        forms_open(chatml, forms[1]);
    }
    if (len == 0) {
        return 0;
    }

    t = *p & 1 ? chatml : null;
    cap = *p & 2 ? 16 : IDS_MAX;
    in.go_on = *p >> 3 & 1;
    in.messages.s = (const char *) p + 1;
    in.messages.len = len - 1;
    n = template_encode(forms[*p & 1][*p >> 2 & 1], &in, ids, cap, NULL, NULL,
        err, sizeof(err), param, sizeof(param));

    if (n > (int64_t) cap || n == 0 || n <= -LLM_ERR_END) {
        abort();
    }
    if ((n == -LLM_ERR_BAD_FIELD || n == -LLM_ERR_BAD_MESSAGES)
        && (err[0] == '\0' || param[0] == '\0')) {
        abort();
    }

    for (i = 0; i < n; i++) {
        starts += ids[i] == 258 && t == chatml;
        ends += ids[i] == 259 && t == chatml;
        if (ids[i] >= token_vocab(t) || (ids[i] == 257 && t == chatml)) {
            abort();
        }
    }
    if (n > 0 && t == chatml && starts != ends + 1) {
        abort();
    }

    return 0;
}
