/*
 * How long a conversation of 100 messages takes to render, by real templates
 * of LLM_DATA/chat-templates; and to compile them.
 *
 * The messages alternate between user and assistant, some 300 bytes each,
 * behind a system message and two tools.  The time is the median of ROUNDS
 * renderings, values from JSON included, parsing of JSON not.
 */
#include "../unit/jinja_test.h"

#include <time.h>

#define MESSAGES 100
#define ROUNDS   201

static const char *const names[] = {"Qwen-Qwen3-0.6B", "Qwen3-Coder",
    "meta-llama-Llama-3.1-8B-Instruct", "deepseek-ai-DeepSeek-V3.1",
    "google-gemma-2-2b-it", "mistralai-Mistral-Nemo-Instruct-2407",
    "openai-gpt-oss-120b", "GLM-4.6"};


static double
now_us(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);

    return 1e6 * (double) t.tv_sec + 1e-3 * (double) t.tv_nsec;
}


static int
cmp(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}


static json_t *
conversation(const char *bos)
{
    const char *text =
        "The quick brown fox jumps over the lazy dog, and what "
        "it thinks of it is \"not\" known. <|im_end|> is text "
        "here; so are {{ braces }} and caf\xc3\xa9s.\n\nA second "
        "paragraph follows, with a list: one, two, three, four, "
        "five, six, seven, eight, nine, ten, eleven, twelve, "
        "and a last line.";
    json_t *msgs = json_array(), *tools = json_array();
    int i;

    for (i = 0; i < MESSAGES; i++) {
        (void) json_array_append_new(
            msgs, json_pack("{s:s,s:s}", "role",
                      i % 2 == 0 ? "user" : "assistant", "content", text));
    }
    for (i = 0; i < 2; i++) {
        (void) json_array_append_new(tools,
            json_pack("{s:s,s:{s:s,s:s,s:{s:s,s:{s:{s:s,s:s}},s:[s]}}}", "type",
                "function", "function", "name", i == 0 ? "look" : "find",
                "description", "Looks at a thing.", "parameters", "type",
                "object", "properties", "what", "type", "string", "description",
                "The thing.", "required", "what"));
    }

    return json_pack("{s:o,s:o,s:b,s:s,s:s}", "messages", msgs, "tools", tools,
        "add_generation_prompt", 1, "bos_token", bos, "eos_token", "</s>");
}


static void
bench(const char *name, const json_t *vars)
{
    static const struct tm now = {.tm_year = 125, .tm_mday = 1};
    double us[ROUNDS], compile;
    char path[256], err[256];
    size_t len, i, bytes = 0, runs = 0;
    jinja_out_t o;
    jinja_t *t;
    char *src;

    (void) snprintf(path, sizeof(path), "chat-templates/%s.jinja", name);
    src = jinja_test_file(path, &len);
    if (src == NULL) {
        printf("%-38s not there\n", name);
        return;
    }

    compile = now_us();
    t = jinja_compile(src, len, err, sizeof(err));
    compile = now_us() - compile;
    free(src);
    if (t == NULL) {
        printf("%-38s %s\n", name, err);
        return;
    }

    for (i = 0; i < ROUNDS; i++) {
        us[i] = now_us();
        if (jinja_test_render(t, vars, &now, &jinja_test_limits, &o) != 0) {
            printf("%-38s %s\n", name, o.err);
            jinja_free(t);
            return;
        }
        us[i] = now_us() - us[i];
        bytes = o.len;
        runs = o.runs_n;
        jinja_out_free(&o);
    }
    jinja_free(t);

    qsort(us, ROUNDS, sizeof(*us), cmp);
    printf("%-38s %7.0f %7.0f %8.0f %7zu %6zu\n", name, us[ROUNDS / 2],
        us[ROUNDS * 9 / 10], compile, bytes, runs);
}


int
main(void)
{
    json_t *vars = conversation("<s>");
    size_t i;

    if (vars == NULL) {
        return 1;
    }
    printf("%d messages                           median     p90  compile"
           "   bytes   runs\n",
        MESSAGES);
    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        bench(names[i], vars);
    }
    json_decref(vars);

    return 0;
}
