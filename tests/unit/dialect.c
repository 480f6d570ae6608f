/*
 * Catches: a buffer that grows past its limit or writes behind its end; text
 * that comes out of a JSON string other than it went in; ill-formed UTF-8 on
 * its way to a client; a float that does not read back; a body that makes
 * jansson recurse or allocate without bound.
 */
#include "brief.h"
#include "openai_test.h"

#include <float.h>
#include <math.h>

static void
test_buf_limit(void **state)
{
    pool_t *pool = pool_new();
    llm_buf_t b;
    int i;

    (void) state;

    llm_buf_init(&b, 1000, pool_alloc, pool);
    for (i = 0; i < 100; i++) {
        llm_buf_add(&b, "0123456789", 10);
        assert_false(b.failed);
    }
    assert_int_equal(b.len, 1000);
    llm_buf_add(&b, "", 0);
    assert_false(b.failed);
    llm_buf_add(&b, "x", 1);
    assert_true(b.failed);
    assert_int_equal(b.len, 1000);
    for (i = 0; i < 1000; i++) {
        assert_int_equal(b.data[i], '0' + i % 10);
    }

    /* a limit of nothing, and a piece larger than any doubling */

    llm_buf_init(&b, 0, pool_alloc, pool);
    llm_buf_add(&b, "x", 1);
    assert_true(b.failed);
    llm_buf_init(&b, 100000, pool_alloc, pool);
    assert_true(llm_buf_grow(&b, 100000));
    assert_false(llm_buf_grow(&b, 100001));
    assert_false(llm_buf_grow(&b, SIZE_MAX));

    pool_free(pool);
}

static void
test_buf_memory(void **state)
{
    pool_t *pool = pool_new();
    llm_buf_t b;

    (void) state;

    pool->fail_at = 2;
    llm_buf_init(&b, SIZE_MAX, pool_alloc, pool);
    llm_buf_lit(&b, "kept");
    assert_false(llm_buf_grow(&b, 5000));
    assert_true(b.failed);
    llm_buf_str(&b, "this does not fit any more after all that, as it failed");
    assert_int_equal(b.len, b.failed ? b.len : 0);
    assert_memory_equal(b.data, "kept", 4);

    pool_free(pool);
}

static void
test_u64(void **state)
{
    pool_t *pool = pool_new();
    llm_buf_t b;

    (void) state;

    llm_buf_init(&b, 1000, pool_alloc, pool);
    llm_buf_u64(&b, 0);
    llm_buf_lit(&b, " ");
    llm_buf_u64(&b, UINT64_MAX);
    llm_buf_lit(&b, " ");
    llm_buf_u64(&b, 1727346172);
    llm_buf_add(&b, "", 1);
    assert_string_equal(b.data, "0 18446744073709551615 1727346172");

    pool_free(pool);
}

/* v written, and read back by strtof */
static float
float_round(llm_buf_t *b, float v)
{
    char *end;
    float back;

    b->len = 0;
    llm_buf_float(b, v);
    llm_buf_add(b, "", 1);
    back = strtof(b->data, &end);
    assert_int_equal(*end, '\0');

    return back;
}

static void
test_float_text(void **state)
{
    static const struct {
        float v;
        const char *s;
    } rows[] = {
        {0, "0.0"},
        {-0.0f, "0.0"},
        {1, "1.0"},
        {-9999, "-9999.0"},
        {0.1f, "0.1"},
        {-0.5f, "-0.5"},
        {123456792, "123456790.0"},
        {1e9f, "1e9"},
        {-0.0012038043f, "-0.0012038043"},
        {-3.4121115e-6f, "-3.4121115e-6"},
        {-0.000033809047f, "-0.000033809047"},
        {100, "100.0"},
        {1.5e20f, "1.5e20"},
        {NAN, "3.4028235e38"},
        {-INFINITY, "-3.4028235e38"},
        {FLT_MIN, "1.1754944e-38"},
        {1e-40f, "0.0"},
        {0.01f, "0.01"},
        {16777216, "16777216.0"},
    };
    pool_t *pool = pool_new();
    llm_buf_t b;
    size_t i;

    (void) state;

    llm_buf_init(&b, 1000, pool_alloc, pool);
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        (void) float_round(&b, rows[i].v);
        assert_string_equal(b.data, rows[i].s);
    }

    pool_free(pool);
}

/* Every exponent, many fractions: the same float comes back. */
static void
test_float_back(void **state)
{
    pool_t *pool = pool_new();
    llm_buf_t b;
    uint32_t bits, i;
    float v;

    (void) state;

    llm_buf_init(&b, 1000, pool_alloc, pool);
    for (i = 0, bits = 1; i < 300000; i++) {
        bits = bits * 1664525 + 1013904223;
        memcpy(&v, &bits, 4);
        if (!isnormal(v)) {
            continue;
        }
        if (float_round(&b, v) != v) {
            print_message("%08x %.9g %s\n", bits, v, b.data);
            fail();
        }
    }

    /* the largest below, at and above each power of ten */

    for (v = 1e-37f; v < 1e38f; v *= 10) {
        assert_true(float_round(&b, v) == v);
        assert_true(float_round(&b, nextafterf(v, 0)) == nextafterf(v, 0));
        assert_true(float_round(&b, nextafterf(v, INFINITY))
                    == nextafterf(v, INFINITY));
    }

    pool_free(pool);
}

/* text through llm_buf_json and back by jansson */
static char *
json_round(pool_t *pool, const char *text, size_t n, size_t *len)
{
    llm_buf_t b;
    json_t *v;
    char *back, *copy = malloc(n ? n : 1);

    memcpy(copy, text, n);
    llm_buf_init(&b, 1 << 20, pool_alloc, pool);
    llm_buf_lit(&b, "[\"");
    llm_buf_json(&b, copy, n);
    llm_buf_lit(&b, "\"]");
    assert_false(b.failed);
    free(copy);

    v = json_of(b.data, b.len);
    *len = json_string_length(json_array_get(v, 0));
    back = malloc(*len + 1);
    memcpy(back, json_string_value(json_array_get(v, 0)), *len + 1);
    json_decref(v);

    return back;
}

static void
test_json_bytes(void **state)
{
    pool_t *pool = pool_new();
    char text[3], *back;
    size_t len;
    int i;

    (void) state;

    for (i = 0; i < 256; i++) {
        text[0] = 'a';
        text[1] = (char) i;
        text[2] = 'z';
        back = json_round(pool, text, 3, &len);
        if (i < 0x80) {
            assert_int_equal(len, 3);
            assert_memory_equal(back, text, 3);
        } else {
            assert_int_equal(len, 5);
            assert_memory_equal(back, "a\xef\xbf\xbdz", 5);
        }
        free(back);
    }

    pool_free(pool);
}

/* Each code point is itself, and nothing that is not one gets through. */
static void
test_json_points(void **state)
{
    pool_t *pool;
    char u[4], *back;
    size_t len, n;
    uint32_t c, most = brief() ? 0x900 : 0x3000;

    (void) state;

    for (c = 0x80; c < 0x110000; c += c < most ? 1 : brief() ? 331 : 61) {
        pool = pool_new();
        if (c < 0x800) {
            u[0] = (char) (0xc0 | c >> 6);
            u[1] = (char) (0x80 | (c & 63));
            n = 2;
        } else if (c < 0x10000) {
            u[0] = (char) (0xe0 | c >> 12);
            u[1] = (char) (0x80 | (c >> 6 & 63));
            u[2] = (char) (0x80 | (c & 63));
            n = 3;
        } else {
            u[0] = (char) (0xf0 | c >> 18);
            u[1] = (char) (0x80 | (c >> 12 & 63));
            u[2] = (char) (0x80 | (c >> 6 & 63));
            u[3] = (char) (0x80 | (c & 63));
            n = 4;
        }
        back = json_round(pool, u, n, &len);
        if (c >= 0xd800 && c < 0xe000) {
            assert_int_equal(len, 9); /* three bytes that begin nothing */
        } else {
            assert_int_equal(len, n);
            assert_memory_equal(back, u, n);
        }
        free(back);
        pool_free(pool);
    }
}

static void
test_json_parts(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"\xe2\x82", "\xef\xbf\xbd"},
        {"\xf0\x9f\x98", "\xef\xbf\xbd"},
        {"\xf0\x9f\x98x", "\xef\xbf\xbdx"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe0\x80\xaf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf4\x90\x80\x80",
            "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xff\xfe", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe2\x82\xe2\x82\xac", "\xef\xbf\xbd\xe2\x82\xac"},
        {"\xc3", "\xef\xbf\xbd"},
    };
    pool_t *pool = pool_new();
    size_t i, len;
    char *back;

    (void) state;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        back = json_round(pool, rows[i].in, strlen(rows[i].in), &len);
        assert_string_equal(back, rows[i].out);
        free(back);
    }

    pool_free(pool);
}

/* Separators that line readers other than SSE's own know are escaped. */
static void
test_json_lines(void **state)
{
    static const char in[] = "\n\r\x0b\x0c\x1c\xc2\x85\xe2\x80\xa8\xe2\x80\xa9";
    pool_t *pool = pool_new();
    llm_buf_t b;

    (void) state;

    llm_buf_init(&b, 1000, pool_alloc, pool);
    llm_buf_json(&b, in, sizeof(in) - 1);
    llm_buf_add(&b, "", 1);
    assert_string_equal(b.data, "\\n\\r\\u000b\\f\\u001c\\u0085\\u2028\\u2029");

    pool_free(pool);
}

static int
read_rc(const char *s, size_t len, llm_refusal_t *why)
{
    llm_str_t body = {len, s};
    json_t *root = NULL;
    int rc = llm_json_read(body, &root, why);

    if (rc == 0) {
        assert_non_null(root);
        json_decref(root);
    } else {
        assert_int_equal(why->err, -rc);
    }

    return rc;
}

static void
test_read_depth(void **state)
{
    llm_refusal_t why;
    char s[600];
    int i;

    (void) state;

    for (i = 1; i <= 200; i++) {
        memset(s, '[', (size_t) i);
        memset(s + i, ']', (size_t) i);
        assert_int_equal(
            read_rc(s, (size_t) i * 2, &why), i <= 128 ? 0 : -LLM_ERR_BAD_JSON);
    }

    /* brackets in strings are no depth, also behind escapes */

    memset(s, '[', sizeof(s));
    memcpy(s, "[\"\\\"\\\\\\\"", 8);
    memcpy(s + sizeof(s) - 2, "\"]", 2);
    assert_int_equal(read_rc(s, sizeof(s), &why), 0);
}

static void
test_read_size(void **state)
{
    llm_refusal_t why;
    size_t n = 70000, i;
    char *s = malloc(5000000);

    (void) state;

    /* arrays: three bytes each, and a limit of 65536 */

    s[0] = '[';
    for (i = 0; i < n; i++) {
        memcpy(s + 1 + i * 3, "[],", 3);
    }
    s[n * 3] = ']';
    assert_int_equal(read_rc(s, n * 3 + 1, &why), -LLM_ERR_BODY_LARGE);
    s[60000 * 3] = ']';
    assert_int_equal(read_rc(s, 60000 * 3 + 1, &why), 0);

    /* numbers: two bytes each */

    for (i = 0; i < 2200000; i++) {
        memcpy(s + 1 + i * 2, "1,", 2);
    }
    s[2200000 * 2] = ']';
    assert_int_equal(read_rc(s, 2200000 * 2 + 1, &why), -LLM_ERR_BODY_LARGE);
    free(s);
}

static void
test_read_errors(void **state)
{
    llm_refusal_t why;

    (void) state;

    assert_int_equal(read_rc("", 0, &why), -LLM_ERR_BAD_JSON);
    assert_int_equal(read_rc("{\"secret", 8, &why), -LLM_ERR_BAD_JSON);
    assert_null(strstr(why.text, "secret"));
    assert_int_equal(read_rc("[1e999]", 7, &why), -LLM_ERR_BAD_FIELD);
    assert_int_equal(
        read_rc("[99999999999999999999]", 22, &why), -LLM_ERR_BAD_FIELD);
    assert_int_equal(read_rc("{\"\\u0000\":1}", 12, &why), -LLM_ERR_BAD_FIELD);
    assert_int_equal(read_rc("[\"\\u0000\"]", 10, &why), 0);
    assert_int_equal(read_rc("[\"\\", 3, &why), -LLM_ERR_BAD_JSON);
    assert_int_equal(read_rc("{}", 3, &why), -LLM_ERR_BAD_JSON);
    assert_int_equal(read_rc("{}\0x", 4, &why), -LLM_ERR_BAD_JSON);
}

static void
test_refuse(void **state)
{
    llm_refusal_t why;
    char name[300];

    (void) state;

    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(
        llm_refuse(&why, LLM_ERR_BUSY, name, "%s", name), -LLM_ERR_BUSY);
    assert_int_equal(strlen(why.param), sizeof(why.param) - 1);
    assert_int_equal(strlen(why.text), sizeof(why.text) - 1);
    assert_int_equal(llm_refuse(&why, LLM_ERR_BUSY, NULL, NULL), -LLM_ERR_BUSY);
    assert_string_equal(why.param, "");
    assert_string_equal(why.text, "");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf_limit),
        cmocka_unit_test(test_buf_memory),
        cmocka_unit_test(test_u64),
        cmocka_unit_test(test_float_text),
        cmocka_unit_test(test_float_back),
        cmocka_unit_test(test_json_bytes),
        cmocka_unit_test(test_json_points),
        cmocka_unit_test(test_json_parts),
        cmocka_unit_test(test_json_lines),
        cmocka_unit_test(test_read_depth),
        cmocka_unit_test(test_read_size),
        cmocka_unit_test(test_read_errors),
        cmocka_unit_test(test_refuse),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
