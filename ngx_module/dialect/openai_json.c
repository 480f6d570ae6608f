
/*
 * A value of a body as JSON again, for a template or a grammar to read.
 *
 * DESIGN.  Compact, and otherwise as it came: keys in their order, numbers
 * that read as they were written.  jansson's own writer gives a number such as
 * 0.1 all of its 17 digits; a model would be shown, or made to write, just
 * those.  So each gets 15 digits, or more if that is not the same number.
 *
 * Recursion follows nesting, which llm_json_read() has bounded.
 */


#include "openai.h"

#include <stdio.h>


int
llm_openai_dump(const char *p, size_t len, void *data)
{
    llm_buf_t  *b = data;

    llm_buf_add(b, p, len);

    return b->failed ? -1 : 0;
}


static void
llm_openai_json_text(llm_buf_t *b, const char *text, size_t len)
{
    llm_buf_lit(b, "\"");
    llm_buf_json(b, text, len);
    llm_buf_lit(b, "\"");
}


/* jansson's way there and back knows of locales */

static void
llm_openai_json_real(llm_buf_t *b, const json_t *v)
{
    int       same;
    char      text[64];
    size_t    n;
    json_t   *back;
    unsigned  digits;

    n = 0;

    for (digits = 15; digits <= 17; digits++) {

        n = json_dumpb(v, text, sizeof(text),
                       JSON_ENCODE_ANY|JSON_REAL_PRECISION(digits));

        if (n == 0 || n > sizeof(text)) {
            b->failed = 1;
            return;
        }

        back = json_loadb(text, n, JSON_DECODE_ANY, NULL);
        same = json_equal(back, v);
        json_decref(back);

        if (same) {
            break;
        }
    }

    llm_buf_add(b, text, n);
}


static void
llm_openai_json_object(llm_buf_t *b, const json_t *v)
{
    void        *it;
    json_t      *object;
    const char  *key;

    object = (json_t *) v;              /* jansson has no other iterator */

    llm_buf_lit(b, "{");

    for (it = json_object_iter(object); it != NULL; /* void */) {

        key = json_object_iter_key(it);

        llm_openai_json_text(b, key, strlen(key));
        llm_buf_lit(b, ":");
        llm_openai_json(b, json_object_iter_value(it));

        it = json_object_iter_next(object, it);

        if (it != NULL) {
            llm_buf_lit(b, ",");
        }
    }

    llm_buf_lit(b, "}");
}


void
llm_openai_json(llm_buf_t *b, const json_t *v)
{
    char    text[32];
    size_t  i;

    switch (json_typeof(v)) {

    case JSON_OBJECT:
        llm_openai_json_object(b, v);
        break;

    case JSON_ARRAY:
        llm_buf_lit(b, "[");

        for (i = 0; i < json_array_size(v); i++) {
            if (i != 0) {
                llm_buf_lit(b, ",");
            }

            llm_openai_json(b, json_array_get(v, i));
        }

        llm_buf_lit(b, "]");
        break;

    case JSON_STRING:
        llm_openai_json_text(b, json_string_value(v), json_string_length(v));
        break;

    case JSON_INTEGER:
        (void) snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT,
                        json_integer_value(v));
        llm_buf_str(b, text);
        break;

    case JSON_REAL:
        llm_openai_json_real(b, v);
        break;

    case JSON_TRUE:
        llm_buf_lit(b, "true");
        break;

    case JSON_FALSE:
        llm_buf_lit(b, "false");
        break;

    default: /* JSON_NULL */
        llm_buf_lit(b, "null");
    }
}
