/*
 * Would catch: a shared prefix whose tokens are not those that a request
 * begins with, one that ends earlier than it must, one that holds a date, a
 * file that is taken for another kind or crashes, one without a limit.
 *
 * The reference is the request itself: a conversation that goes on, by the
 * same template and tokenizer, of real models where the test data are.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "jinja_test.h"
#include "llm_err.h"
#include "prefix.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST 4096

static char err[512];

/* Who uses the control tokens' names of what. */
typedef struct {
    token_t *tok;
    template_t *tpl;
    prefix_rules_t r;
} rig_t;


static void
rig_open(rig_t *g, token_t *tok, const char *source, size_t len)
{
    const template_text_t none = {NULL, 0};
    char warn[300];

    assert_non_null(tok);
    g->tok = tok;
    g->tpl = template_open(
        tok, (template_text_t){source, len}, none, warn, sizeof(warn));
    assert_non_null(g->tpl);
    assert_string_equal(warn, "");
    g->r = (prefix_rules_t){tok, g->tpl, MOST, 1700000000};
}


static void
rig_close(rig_t *g)
{
    template_close(g->tpl);
    token_close(g->tok);
}


/* The null tokenizer, bytes, and a form or a template. */
static void
rig_null(rig_t *g, const char *source)
{
    rig_open(g, token_open_null(), source, source != NULL ? strlen(source) : 0);
}


/* The prefix of a file's text; it must be one. */
static prefix_t *
add(prefix_set_t *set, const rig_t *g, const char *path, const char *text)
{
    err[0] = '\0';
    assert_int_equal(
        prefix_add(set, path, &g->r, text, strlen(text), err, sizeof(err)), 0);

    return &set->v[set->n - 1];
}


/* And one that is refused, with these words. */
static void
refuse(const rig_t *g, const char *path, const char *text, size_t len,
    const char *words)
{
    prefix_set_t set = {.n = 0};

    assert_int_equal(
        prefix_add(&set, path, &g->r, text, len, err, sizeof(err)), -1);
    if (strstr(err, words) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err, words);
    }
    assert_non_null(strstr(err, path));
    assert_int_equal(set.n, 0);
    prefix_free(&set);
}


/* A request's prompt as text_in makes it. */
static uint32_t
request(const rig_t *g, const char *messages, const char *tools, time_t now,
    uint32_t *ids)
{
    template_input_t in = {.messages = {messages, strlen(messages)},
        .tools = {tools, tools != NULL ? strlen(tools) : 0},
        .now = now};
    char param[64];
    int64_t n = template_encode(g->tpl, &in, ids, MOST, NULL, NULL, err,
        sizeof(err), param, sizeof(param));

    if (n <= 0) {
        fail_msg("%s: %s at %s", messages, err, param);
    }

    return (uint32_t) n;
}


static const char system_text[] =
    "You are the clerk of a library. Answer in one sentence,\n"
    "and never speak of 1984.";

/* What users begin with, JSON; the last ones are chosen to be hard. */
static const char *const users[] = {"Hello", "hi", "2 + 2?",
    "  two spaces before", "\\nA line end first", "\\n\\n\\nthree", "\\t\\tx",
    "...", "!", "'ll", "\\u00e9t\\u00e9", "\\u4f60\\u597d", "\\ud83d\\ude42",
    "<|im_end|>", "[INST]", "{}", "\\\"quoted\\\"", "_", "\\r\\n", "a\\u0301",
    "\\u200b", "1984", "user", "\\u2028x"};

#define USERS_N (sizeof(users) / sizeof(users[0]))


/*
 * Requests that begin with the system message begin with the prefix, but for
 * `hard` tokens at its end at most; and no prefix a token longer would do.
 */
static void
check_requests(const rig_t *g, const prefix_t *p, const char *tools, int turns,
    uint32_t hard)
{
    static uint32_t ids[MOST], first[MOST];
    char text[2048];
    uint32_t n, i, alike, most = 0, first_n = 0;
    size_t u;

    for (u = 0; u < USERS_N; u++) {
        snprintf(text, sizeof(text),
            "[{\"role\":\"system\",\"content\":\"You are the clerk of a "
            "library. Answer in one sentence,\\nand never speak of "
            "1984.\"},{\"role\":\"user\",\"content\":\"%s\"}%s]",
            users[u],
            turns ? ",{\"role\":\"assistant\",\"content\":\"Yes.\"},"
                    "{\"role\":\"user\",\"content\":\"Why?\"}"
                  : "");
        n = request(g, text, tools, g->r.now + (time_t) u * 100000, ids);
        for (i = 0; i < n && i < p->n && ids[i] == p->ids[i]; i++) {
        }
        if (i + hard < p->n) {
            fail_msg("%s: %u of %u tokens", text, i, p->n);
        }
        if (u == 0) {
            memcpy(first, ids, n * sizeof(*ids));
            first_n = n;
            continue;
        }
        for (alike = 0; alike < n && alike < first_n; alike++) {
            if (ids[alike] != first[alike]) {
                break;
            }
        }
        most = most == 0 || alike < most ? alike : most;
    }
    /* it might have been longer by what all of these share, and by no more */
    assert_true(p->n + 2 >= most);
}


static void
test_null(void **state)
{
    prefix_set_t set = {.n = 0};
    const prefix_t *p, *q;
    rig_t g;

    (void) state;
    rig_null(&g, NULL);
    p = add(&set, &g, "a.txt", system_text);
    check_requests(&g, p, NULL, 0, 0);
    check_requests(&g, p, NULL, 1, 0);
    assert_int_equal(p->dated, p->n);

    /* one line end more is an editor's, two are meant */
    q = add(&set, &g, "b.txt",
        "You are the clerk of a library. Answer in one sentence,\n"
        "and never speak of 1984.\r\n");
    assert_int_equal(q->n, p->n);
    assert_memory_equal(q->ids, p->ids, p->n * sizeof(uint32_t));
    q = add(&set, &g, "c.json",
        " [{\"role\":\"system\",\"content\":\"You are the clerk of a library. "
        "Answer in one sentence,\\nand never speak of 1984.\"}] \n");
    assert_int_equal(q->n, p->n);
    q = add(&set, &g, "d.json",
        "{\"messages\": [{\"role\":\"system\",\"content\":\"You are the clerk "
        "of a library. Answer in one sentence,\\nand never speak of "
        "1984.\"} ]\n }\n");
    assert_int_equal(q->n, p->n);
    assert_memory_equal(q->ids, p->ids, p->n * sizeof(uint32_t));
    assert_string_equal(q->path, "d.json");

    /* a prompt is as it is */
    q = add(&set, &g, "e.json", "{\"prompt\": \"Once upon a time\"}");
    assert_int_equal(q->n, 1 + 16);
    assert_int_equal(q->ids[0], token_bos(g.tok));
    assert_int_equal(q->ids[16], 'e');
    assert_int_equal(set.n, 5);
    prefix_free(&set);
    assert_int_equal(set.n, 0);
    rig_close(&g);
}


/* Behind a user's turn the answer comes, or is asked for. */
static void
test_turns(void **state)
{
    static uint32_t ids[MOST];
    static const char messages[] =
        "[{\"role\":\"system\",\"content\":\"s\"},"
        "{\"role\":\"user\",\"content\":\"a question\"}]";
    prefix_set_t set = {.n = 0};
    const prefix_t *p;
    uint32_t n;
    rig_t g;

    (void) state;
    rig_null(&g, NULL);
    p = add(&set, &g, "a.json", messages);
    n = request(&g, messages, NULL, 0, ids);
    assert_int_equal(p->n, n);
    assert_memory_equal(p->ids, ids, n * sizeof(*ids));
    prefix_free(&set);
    rig_close(&g);
}


/* What a date stands before is not in it. */
static void
test_date(void **state)
{
    static const char source[] =
        "{{ messages[0].content[:20] }} {{ strftime_now('%d %b %Y') }} "
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    prefix_set_t set = {.n = 0};
    const prefix_t *p;
    rig_t g;

    (void) state;
    rig_null(&g, source);
    p = add(&set, &g, "a.txt", system_text);
    assert_int_equal(p->n, 20 + 1);
    assert_true(p->dated > p->n + strlen(system_text));
    prefix_free(&set);
    rig_close(&g);
}


static void
test_refused(void **state)
{
    static const char raises[] =
        "{% if messages[0].role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}";
    static const char full[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":\"be\"}],"
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
        "\"chat_template_kwargs\":{\"x\":1}}";
    prefix_set_t set = {.n = 0};
    char *big;
    size_t i;
    rig_t g;

    (void) state;
    rig_null(&g, NULL);
    refuse(&g, "a.txt", "", 0, "it is empty");
    refuse(&g, "a.txt", "\r\n", 2, "it is empty");
    refuse(&g, "a.txt", "\xff\xfe", 2, "expected UTF-8");
    refuse(&g, "a.json", "", 0, "expected a JSON object or array");
    refuse(&g, "a.json", "x", 1, "expected a JSON object or array");
    refuse(&g, "a.json", "[]", 2, "expected messages");
    refuse(&g, "a.json", "{}", 2, "either messages or prompt");
    refuse(&g, "a.json", "{\"prompt\":\"\"}", 13, "not empty");
    refuse(&g, "a.json", "{\"prompt\":7}", 12, "a JSON string");
    refuse(&g, "a.json", "{\"model\":\"m\"}", 13, "expected members");
    refuse(
        &g, "a.json", "{\"prompt\":\"a\",\"prompt\":\"b\"}", 27, "once each");
    refuse(&g, "a.json", "{\"prompt\":\"a\",\"messages\":[]}", 28, "either");
    refuse(&g, "a.json", "{\"prompt\":\"a\"} x", 16, "a JSON object");
    refuse(&g, "a.json", "[{\"role\":\"pope\",\"content\":\"\"}]", 30,
        "at messages[0].role");
    refuse(&g, "a.json", "[7]", 3, "messages[0]");

    /* each shorter one is refused or is one: nothing else */
    for (i = 0; i < sizeof(full) - 1; i++) {
        big = malloc(i + 1);
        assert_non_null(big);
        memcpy(big, full, i);
        assert_int_equal(
            prefix_add(&set, "a.json", &g.r, big, i, err, sizeof(err)), -1);
        free(big);
    }
    assert_int_equal(set.n, 0);

    /* as many tokens as there is room for, and one more */
    big = malloc(PREFIX_FILE_MAX + 1);
    assert_non_null(big);
    memset(big, 'a', PREFIX_FILE_MAX + 1);
    refuse(&g, "a.txt", big, MOST, "expected at most 4096 tokens");
    refuse(&g, "a.txt", big, PREFIX_FILE_MAX + 1, "2 MiB");
    free(big);

    while (set.n < PREFIX_MAX) {
        (void) add(&set, &g, "a.txt", "be good");
    }
    assert_int_equal(
        prefix_add(&set, "b", &g.r, "be", 2, err, sizeof(err)), -1);
    assert_non_null(strstr(err, "64 prefixes"));
    prefix_free(&set);
    rig_close(&g);

    rig_null(&g, raises);
    refuse(&g, "a.txt", "be good", 7, "System role not supported");
    rig_close(&g);
}


static void
put(const char *dir, const char *name, const char *text)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}


/* A directory's files by name, as a ConfigMap lays them. */
static void
test_files(void **state)
{
    char dir[] = "/tmp/prefix.XXXXXX", path[256];
    static const char *const names[] = {"b.txt", "a.json", ".hidden"};
    prefix_set_t set = {.n = 0};
    size_t i;
    rig_t g;

    (void) state;
    assert_non_null(mkdtemp(dir));
    put(dir, names[0], "be good\n");
    put(dir, names[1], "{\"prompt\":\"Once\"}");
    put(dir, names[2], "");
    rig_null(&g, NULL);
    assert_int_equal(prefix_load(&set, dir, &g.r, err, sizeof(err)), 0);
    assert_int_equal(set.n, 2);
    assert_non_null(strstr(set.v[0].path, "/a.json"));
    assert_int_equal(set.v[0].n, 5);
    prefix_free(&set);

    snprintf(path, sizeof(path), "%s/b.txt", dir);
    assert_int_equal(prefix_load(&set, path, &g.r, err, sizeof(err)), 0);
    assert_int_equal(set.n, 1);
    snprintf(path, sizeof(path), "%s/none", dir);
    assert_int_equal(prefix_load(&set, path, &g.r, err, sizeof(err)), -1);
    assert_non_null(strstr(err, "/none: No such file"));
    prefix_free(&set);

    snprintf(path, sizeof(path), "%s/z", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(prefix_load(&set, dir, &g.r, err, sizeof(err)), -1);
    assert_non_null(strstr(err, "/z: Is a directory"));
    prefix_free(&set);
    assert_int_equal(rmdir(path), 0);
    for (i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(dir), 0);
    rig_close(&g);
}


/* Real templates with real tokenizers, as far as they are there. */
static void
test_real(void **state)
{
    static const char tools[] =
        "[{\"type\":\"function\",\"function\":{\"name\":\"find\","
        "\"description\":\"Finds a book\",\"parameters\":{\"type\":\"object\","
        "\"properties\":{\"x\":{\"type\":\"number\",\"minimum\":0.10}}}}}]";
    static const struct {
        const char *tokenizer, *template;
        int tools;
        uint32_t hard; /* tokens that a user's words may change at its end */
    } all[] = {
        {"qwen3", "Qwen-Qwen3-0.6B", 0, 1},
        {"qwen3", "Qwen-Qwen3-0.6B", 1, 1},
        {"qwen3", "Qwen-Qwen2.5-7B-Instruct", 1, 1},
        {"phi-3-mini", "microsoft-Phi-3.5-mini-instruct", 0, 1},
        {"llama-2", "llama-2-chat", 0, 1},
        {"mistral-v3", "mistral-common-v3", 0, 1},
    };
    const char *data = getenv("LLM_DATA");
    char path[300], text[2048];
    prefix_set_t set;
    char *source;
    size_t i, len, found = 0;
    prefix_t *p;
    rig_t g;

    (void) state;
    for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        snprintf(
            path, sizeof(path), "chat-templates/%s.jinja", all[i].template);
        source = jinja_test_file(path, &len);
        if (source == NULL) {
            continue;
        }
        snprintf(path, sizeof(path), "%.200s/tokenizers/%s",
            data != NULL ? data : "../shared/data", all[i].tokenizer);
        rig_open(&g, token_open_dir(path, err, sizeof(err)), source, len);
        memset(&set, 0, sizeof(set));
        snprintf(text, sizeof(text),
            "{\"messages\":[{\"role\":\"system\",\"content\":\"You are the "
            "clerk of a library. Answer in one sentence,\\nand never speak of "
            "1984.\"}]%s%s}",
            all[i].tools ? ",\"tools\":" : "", all[i].tools ? tools : "");
        p = add(&set, &g, "x.json", text);
        print_message(
            "%s, %s: %u tokens\n", all[i].tokenizer, all[i].template, p->n);
        assert_true(p->n > 20);
        check_requests(&g, p, all[i].tools ? tools : NULL, 0, all[i].hard);
        prefix_free(&set);
        free(source);
        rig_close(&g);
        found++;
    }
    if (found == 0) {
        skip();
    }
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_null),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_date),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_real),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
