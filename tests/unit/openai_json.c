/*
 * Catches: a body that is JSON and is called none, or the other way round;
 * text that changes on its way from a body to the engine or from the engine
 * to a client.  The cases are published suites (JSONTestSuite, naughty
 * strings, ill-formed UTF-8), read from LLM_DATA; without it they are skipped.
 */
#include "openai_test.h"

#include <dirent.h>

static DIR *
data_open(char *path, size_t size, const char *name)
{
    DIR *d;

    (void) snprintf(path, size, "%s/http-json/%s", data_dir(), name);
    d = opendir(path);
    if (d == NULL) {
        print_message("no %s\n", path);
        skip();
    }

    return d;
}

static char *
data_file(const char *name, size_t *len)
{
    char path[512], *s;

    (void) snprintf(path, sizeof(path), "%s/http-json/%s", data_dir(), name);
    s = file_read(path, len);
    if (s == NULL) {
        print_message("no %s\n", path);
        skip();
    }

    return s;
}

/* The rc of a body of len bytes, in memory that ends where it does. */
static int
body_rc(const char *s, size_t len)
{
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t call;
    llm_str_t body;
    char *copy = malloc(len ? len : 1);
    int rc;

    memcpy(copy, s, len);
    body.data = copy;
    body.len = len;
    rc = llm_dialect_openai.parse(
        body, LLM_ROUTE_CHAT, &no_caps, pool_alloc, pool, &call, &why);
    free(copy);
    pool_free(pool);

    return rc;
}

/* The same as a message's unknown field: it must arrive as it is. */
static void
embedded(const char *s, size_t len)
{
    static const char before[] =
        "{\"model\":\"m\",\"metadata\":null,\"messages\":[{\"role\":\"user\","
        "\"content\":\"\",\"x\":";
    pool_t *pool = pool_new();
    llm_refusal_t why;
    llm_call_t call;
    llm_str_t body;
    char *copy = malloc(len + sizeof(before) + 2);
    json_t *have, *want;
    int rc;

    memcpy(copy, before, sizeof(before) - 1);
    memcpy(copy + sizeof(before) - 1, s, len);
    memcpy(copy + sizeof(before) - 1 + len, "}]}", 3);
    body.data = copy;
    body.len = len + sizeof(before) + 2;
    rc = llm_dialect_openai.parse(
        body, LLM_ROUTE_CHAT, &no_caps, pool_alloc, pool, &call, &why);
    assert_int_equal(rc, 0);

    have = json_loadb(call.messages.data, call.messages.len,
        JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);
    want = json_loadb(s, len, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
    assert_non_null(have);
    assert_non_null(want);
    assert_true(
        json_equal(json_object_get(json_array_get(have, 0), "x"), want));
    json_decref(have);
    json_decref(want);
    free(copy);
    pool_free(pool);
}

static void
suite(const char *dir)
{
    char path[512], file[1024], *s;
    size_t len, counts[3] = {0, 0, 0};
    struct dirent *e;
    DIR *d = data_open(path, sizeof(path), dir);
    int rc;

    while ((e = readdir(d)) != NULL) {
        if (strstr(e->d_name, ".json") == NULL) {
            continue;
        }
        (void) snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
        s = file_read(file, &len);
        assert_non_null(s);
        rc = body_rc(s, len);

        if (e->d_name[0] == 'n' && e->d_name[1] == '_') {
            if (rc != -LLM_ERR_BAD_JSON) {
                print_message("%d for %s\n", rc, e->d_name);
            }

            /* {9999E9999:1}: the number is found fault with first */

            assert_int_equal(rc, strstr(e->d_name, "huge_number") != NULL
                                     ? -LLM_ERR_BAD_FIELD
                                     : -LLM_ERR_BAD_JSON);
            counts[0]++;
        } else if (e->d_name[0] == 'y') {
            if (rc == -LLM_ERR_BAD_JSON) {
                print_message("refused: %s\n", e->d_name);
            }
            assert_int_equal(rc, -LLM_ERR_BAD_FIELD);

            /* the one thing in valid JSON that cannot be held */

            if (strstr(e->d_name, "escaped_null_in_key") == NULL) {
                embedded(s, len);
            }
            counts[1]++;
        } else {
            assert_true(rc < 0);
            counts[2]++;
        }
        free(s);
    }
    closedir(d);
    print_message("%s: %zu refused, %zu accepted, %zu either\n", dir, counts[0],
        counts[1], counts[2]);
    assert_true(counts[0] + counts[1] + counts[2] > 20);
}

static void
test_suite(void **state)
{
    (void) state;

    suite("JSONTestSuite");
}

static void
test_transform(void **state)
{
    (void) state;

    suite("JSONTestSuite-transform");
}

/* text as it comes back from a streamed and a whole answer */
static void
answered(const char *s, size_t len, const char *want, size_t want_len)
{
    pool_t *pool;
    llm_wire_tokens_t t;
    llm_answer_t a;
    llm_call_t call;
    const json_t *c;
    json_t *v;
    char *out, *at, *event;
    int stream;

    for (stream = 0; stream < 2; stream++) {
        pool = pool_new();
        memset(&call, 0, sizeof(call));
        call.head.n = 1;
        call.stream = stream;
        answer_init(&a, pool, &call);
        memset(&t, 0, sizeof(t));
        t.text_len = (uint32_t) len;
        t.finish = LLM_FINISH_STOP;
        assert_int_equal(
            llm_dialect_openai.tokens(&a, &t, (const uint8_t *) s, NULL), 0);
        assert_int_equal(send_done(&a), 0);
        at = out = take(&a);
        if (stream) {
            (void) next_event(&at); /* the role */
            event = next_event(&at);
        } else {
            event = out;
        }
        v = json_of(event, strlen(event));
        c = json_array_get(json_object_get(v, "choices"), 0);
        c = json_object_get(c, stream ? "delta" : "message");
        c = json_object_get(c, "content");
        assert_int_equal(json_string_length(c), want_len);
        assert_memory_equal(json_string_value(c), want, want_len);
        json_decref(v);
        free(out);
        pool_free(pool);
    }
}

static void
test_naughty(void **state)
{
    size_t len, i;
    char *s = data_file("naughty-strings.json", &len), *dump;
    json_t *list = json_of(s, len), *one;

    (void) state;

    json_array_foreach(list, i, one)
    {
        if (json_string_length(one) == 0) {
            continue;
        }
        answered(json_string_value(one), json_string_length(one),
            json_string_value(one), json_string_length(one));
        dump = json_dumps(one, JSON_ENCODE_ANY);
        embedded(dump, strlen(dump));
        free(dump);
    }
    print_message("%zu strings\n", json_array_size(list));
    assert_true(json_array_size(list) > 400);
    json_decref(list);
    free(s);
}

/* "c2 A9" to bytes; returns how many */
static size_t
hex_bytes(const char *hex, const char *end, uint8_t *out)
{
    size_t n = 0;
    unsigned v;

    while (hex + 1 < end) {
        if (*hex == ' ') {
            hex++;
            continue;
        }
        assert_int_equal(sscanf(hex, "%2x", &v), 1);
        out[n++] = (uint8_t) v;
        hex += 2;
    }

    return n;
}

/*
 * One line "name:valid hex:BYTES" or "name:invalid hex:BYTES:SKIPPED:REPLACED"
 * of the suite; returns 1 if it was ill-formed, -1 if it is another line.
 */
static int
utf8_line(const char *line, const char *end)
{
    uint8_t in[512], want[512];
    size_t in_len = 0, want_len, k;
    const char *hex[4];
    char body[600];
    int invalid;

    hex[0] = memchr(line, ':', (size_t) (end - line));
    if (*line == '#' || hex[0] == NULL) {
        return -1;
    }
    if (strncmp(hex[0], ":invalid hex:", 13) == 0) {
        invalid = 1;
    } else if (strncmp(hex[0], ":valid hex:", 11) == 0) {
        invalid = 0;
    } else {
        return -1;
    }
    for (k = 1; k < (invalid ? 4 : 2); k++) {
        hex[k] = memchr(hex[k - 1] + 1, ':', (size_t) (end - hex[k - 1] - 1));
        assert_non_null(hex[k]);
        if (k == 1) {
            in_len = hex_bytes(
                hex[1] + 1, invalid ? strchr(hex[1] + 1, ':') : end, in);
        }
    }
    want_len = hex_bytes(hex[k - 1] + 1, end, want);
    answered((char *) in, in_len, (char *) want, want_len);

    memcpy(body, "[\"", 2);
    memcpy(body + 2, in, in_len);
    memcpy(body + 2 + in_len, "\"]", 2);
    if (invalid) {
        assert_int_equal(body_rc(body, in_len + 4), -LLM_ERR_BAD_JSON);
    }

    return invalid;
}

/* Ill-formed UTF-8 comes out as the suite says, and no body may hold it. */
static void
test_utf8(void **state)
{
    size_t len, counts[2] = {0, 0};
    char *s = data_file("utf8tests.txt", &len), *line, *end;
    int rc;

    (void) state;

    for (line = s; line < s + len; line = end + 1) {
        end = memchr(line, '\n', (size_t) (s + len - line));
        assert_non_null(end);
        rc = utf8_line(line, end);
        if (rc >= 0) {
            counts[rc]++;
        }
    }
    print_message("%zu well-formed, %zu ill-formed\n", counts[0], counts[1]);
    assert_true(counts[0] > 30 && counts[1] > 50);
    free(s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suite),
        cmocka_unit_test(test_transform),
        cmocka_unit_test(test_naughty),
        cmocka_unit_test(test_utf8),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
