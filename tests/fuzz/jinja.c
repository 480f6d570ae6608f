/*
 * Catches: a template that crashes the compiler or the interpreter, gets past
 * a limit, or passes a client's byte off as its own; runs that do not cover
 * the text.
 *
 * The input is a template, and behind a NUL variables as JSON; without them a
 * conversation is there.  A variable of its own, `canary`, holds characters
 * that no template can make but by writing them: wherever they come out, they
 * are data.
 */
#include "jinja.h"
#include "llm_err.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VARS_MAX 32

/* U+E000, of which nothing is the other case. */
#define CANARY "\xee\x80\x80"

static const char conversation[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"" CANARY "S\"},"
    "{\"role\":\"user\",\"content\":\" a" CANARY " \"},{\"role\":\"assistant\","
    "\"content\":\"b\",\"tool_calls\":[{\"id\":\"123456789\",\"function\":"
    "{\"name\":\"f\",\"arguments\":{\"x\":[1,\"" CANARY "\"]}}}]},"
    "{\"role\":\"tool\",\"content\":\"c\",\"tool_call_id\":\"123456789\"}],"
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","
    "\"description\":\"d\",\"parameters\":{\"type\":\"object\",\"properties\":"
    "{\"x\":{\"type\":\"array\"}},\"required\":[\"x\"]}}}],"
    "\"add_generation_prompt\":true,\"bos_token\":\"<s>\"}";

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);


static void
must(int holds)
{
    if (!holds) {
        abort();
    }
}


static void
check(const jinja_out_t *o, int canary)
{
    size_t i, k, at = 0;

    must(o->len <= 1 << 20);
    for (i = 0; i < o->runs_n; i++) {
        must(o->runs[i].end > at && o->runs[i].end <= o->len);
        must(i == 0 || o->runs[i].origin != o->runs[i - 1].origin);
        for (k = at; k < o->runs[i].end; k++) {
            must(!canary || o->runs[i].origin == JINJA_DATA
                 || (uint8_t) o->text[k] != 0xee);
        }
        at = o->runs[i].end;
    }
    must(at == o->len);
}


static void
render(const jinja_t *t, json_t *vars, int canary)
{
    const jinja_limits_t limits = {
        200000, 200, (size_t) 8 << 20, (size_t) 1 << 20};
    const struct tm now = {.tm_year = 125, .tm_mday = 1};
    json_t *bird = json_string(CANARY CANARY);
    jinja_var_t v[VARS_MAX];
    jinja_args_t args = {.vars = v, .limits = &limits, .now = &now};
    jinja_out_t o;
    void *it;
    int rc;

    v[args.vars_n++] = (jinja_var_t){"canary", bird, JINJA_DATA};
    for (it = json_object_iter(vars); it != NULL && args.vars_n < VARS_MAX;
         it = json_object_iter_next(vars, it)) {
        v[args.vars_n++] = (jinja_var_t){
            json_object_iter_key(it), json_object_iter_value(it), JINJA_DATA};
    }

    rc = jinja_render(t, &args, &o);
    if (rc == 0) {
        check(&o, canary);
        jinja_out_free(&o);
    } else {
        must(rc == -LLM_ERR_BAD_MESSAGES && o.err[0] != '\0');
        must(memchr(o.err, '\0', sizeof(o.err)) != NULL);
    }
    json_decref(bird);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    const uint8_t *nul = len > 0 ? memchr(p, '\0', len) : NULL;
    size_t n = nul != NULL ? (size_t) (nul - p) : len;
    json_t *vars = NULL;
    char err[128], *copy;
    jinja_t *t;
    int canary;

    /* in memory of its own size, so that the sanitizer sees */
    copy = malloc(n > 0 ? n : 1);
    must(copy != NULL);
    if (n > 0) {
        memcpy(copy, p, n);
    }
    canary = memchr(copy, 0xee, n) == NULL && memchr(copy, '\\', n) == NULL;
    t = jinja_compile(copy, n, err, sizeof(err));
    free(copy);
    if (t == NULL) {
        must(err[0] != '\0' && memchr(err, '\0', sizeof(err)) != NULL);
        return 0;
    }

    if (nul != NULL) {
        vars = json_loadb(
            (const char *) nul + 1, len - n - 1, JSON_ALLOW_NUL, NULL);
    }
    if (!json_is_object(vars)) {
        json_decref(vars);
        vars = json_loads(conversation, 0, NULL);
        must(vars != NULL);
    }

    render(t, vars, canary);
    json_decref(vars);
    jinja_free(t);

    return 0;
}
