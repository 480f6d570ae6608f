/*
 * Catches: a file of a shared prefix that crashes, that is taken though it is
 * no JSON, or whose tokens are more than there is room for, or none.
 *
 * The first byte says which kind of file it is and whether ChatML comes from
 * a template; the rest is the file.
 */
#include "llm_err.h"
#include "prefix.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MOST 2048

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    static const char own[] =
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{{ tools | tojson if tools else '' }}{{ strftime_now('%d') }}"
        "<|im_end|>{% endfor %}";
    static const template_text_t none = {NULL, 0};
    static token_t *tok;
    static template_t *forms[2];
    prefix_set_t set = {.n = 0};
    prefix_rules_t r;
    char err[300] = "", warn[256];
    const char *text = (const char *) p + 1;
    uint32_t i;
    int rc;

    if (tok == NULL) {
        tok = token_open_null();
        forms[0] = template_open(tok, none, none, warn, sizeof(warn));
        forms[1] = template_open(tok, (template_text_t){own, sizeof(own) - 1},
            none, warn, sizeof(warn));
        if (forms[0] == NULL || forms[1] == NULL || warn[0] != '\0') {
            abort();
        }
    }
    if (len == 0) {
        return 0;
    }

    r = (prefix_rules_t){tok, forms[*p >> 1 & 1], MOST, 1700000000};
    rc = prefix_add(
        &set, *p & 1 ? "f.json" : "f.txt", &r, text, len - 1, err, sizeof(err));
    if (rc != 0 && (err[0] == '\0' || set.n != 0)) {
        abort();
    }
    if (rc == 0) {
        if (set.n != 1 || set.v[0].n == 0 || set.v[0].n > set.v[0].dated
            || set.v[0].dated > MOST) {
            abort();
        }
        for (i = 0; i < set.v[0].n; i++) {
            if (set.v[0].ids[i] >= token_vocab(tok)) {
                abort();
            }
        }
    }
    prefix_free(&set);

    return 0;
}
