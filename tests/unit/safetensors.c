/*
 * Would catch: a length or offset of a hostile header that is used before it
 * is held against the file's size; tensors that overlap or leave a gap; a
 * header that costs memory out of proportion; an index that disagrees with its
 * files and is believed; a sentence that does not name file and tensor.  Files
 * are given in a heap block of their exact size, so that a sanitizer sees any
 * read past the end.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "json_cut.h"
#include "safetensors.h"
#include "safetensors_make.h"

#include <jansson.h>

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}"
#define B "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]}"

static make_st_t file;

/* Opens a copy of the first n bytes of file; NULL when it is refused. */
static safetensors_t *
open_copy(size_t n, uint8_t **copy, char *err, size_t errlen)
{
    *copy = malloc(n + (n == 0));
    assert_non_null(*copy);
    memcpy(*copy, file.p, n);
    memset(err, 0, errlen);
    return safetensors_open_mem(*copy, n, "mem", err, errlen);
}

static void
check_sentence(const char *err, const char *start, const char *word)
{
    if (strncmp(err, start, strlen(start)) != 0 || strstr(err, word) == NULL
        || strstr(err, "expected") == NULL || strstr(err, "found") == NULL) {
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", err, start, word);
    }
}

/* A file of header and n bytes must be refused, with word in the sentence. */
static void
refused(const char *header, size_t n, const char *word)
{
    char err[512];
    uint8_t *copy;

    make_st(&file, header, n);
    assert_null(open_copy(file.len, &copy, err, sizeof(err)));
    check_sentence(err, "mem: ", word);
    free(copy);
}

/* Touches every tensor's first and last byte. */
static uint64_t
walk(const safetensors_t *s)
{
    uint32_t i, n;
    uint64_t sum = 0;
    const tensor_t *t = safetensors_tensors(s, &n);

    for (i = 0; i < n; i++) {
        assert_non_null(tensor_type_name(t[i].type));

        if (t[i].size > 0) {
            sum += t[i].data[0] + t[i].data[t[i].size - 1];
        }
    }

    return sum;
}

static void
good(void **state)
{
    char err[512];
    uint8_t *copy;
    uint32_t n;
    safetensors_t *s;
    const tensor_t *t;

    (void) state;
    make_st(&file,
        " {" B "," A ",\"__metadata__\":{\"format\":\"pt\", \"x\":\"{]\\\"\"},"
        "\"c\":{\"data_offsets\":[32,32],\"shape\":[0,7],\"dtype\":\"I64\"},"
        "\"d\":{\"dtype\":\"F8_E4M3\",\"shape\":[],\"data_offsets\":[32,33]}} "
        " ",
        33);
    s = open_copy(file.len, &copy, err, sizeof(err));

    if (s == NULL) {
        fail_msg("%s", err);
    }

    t = safetensors_tensors(s, &n);
    assert_int_equal(n, 4);
    assert_int_equal(safetensors_files_n(s), 1);
    assert_string_equal(safetensors_name(s), "mem");
    assert_memory_equal(t[0].name.s, "a", t[0].name.len);
    assert_int_equal(t[0].type, TENSOR_F32);
    assert_int_equal(t[0].dims_n, 2);
    assert_int_equal(t[0].dims[0], 3); /* the row's length */
    assert_int_equal(t[0].dims[1], 2);
    assert_int_equal(t[0].dims[2], 1);
    assert_int_equal(t[0].size, 24);
    assert_ptr_equal(t[0].data, copy + file.len - 33);
    assert_int_equal(t[1].type, TENSOR_BF16);
    assert_ptr_equal(t[1].data, t[0].data + 24);
    assert_int_equal(t[2].size, 0);
    assert_int_equal(t[3].dims_n, 0);
    assert_int_equal(t[3].size, 1);
    assert_ptr_equal(tensor_find(t, n, "b"), &t[1]);
    assert_null(tensor_find(t, n, "bb"));
    assert_true(walk(s) > 0);
    safetensors_close(s);
    free(copy);
}

static void
no_tensors(void **state)
{
    char err[512];
    uint8_t *copy;
    uint32_t n;
    safetensors_t *s;

    (void) state;
    make_st(&file, "{}", 0);
    s = open_copy(file.len, &copy, err, sizeof(err));
    assert_non_null(s);
    (void) safetensors_tensors(s, &n);
    assert_int_equal(n, 0);
    safetensors_close(s);
    free(copy);
}

#define ONE(dtype, shape, offsets)                                             \
    "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape                             \
    ",\"data_offsets\":" offsets "}}"

static void
wrong_tensors(void **state)
{
    static const struct {
        const char *header, *word;
        size_t n;
    } list[] = {
        {ONE("\"Q4_0\"", "[32]", "[0,18]"), "dtype", 18},
        {ONE("\"F31\"", "[2]", "[0,8]"), "found F31", 8},
        {ONE("7", "[2]", "[0,8]"), "dtype", 8},
        {ONE("\"F32\"", "2", "[0,8]"), "shape", 8},
        {ONE("\"F32\"", "[1,1,1,1,2]", "[0,8]"), "at most 4 numbers", 8},
        {ONE("\"F32\"", "[-2]", "[0,8]"), "whole numbers", 8},
        {ONE("\"F32\"", "[2.0]", "[0,8]"), "whole numbers", 8},
        {ONE("\"F32\"", "[\"2\"]", "[0,8]"), "whole numbers", 8},
        {ONE("\"F32\"", "[9223372036854775807,9]", "[0,8]"), "size that can be",
            8},
        {ONE("\"F32\"", "[4611686018427387904]", "[0,8]"), "size that can be",
            8},
        {ONE("\"F32\"", "[99999999999999999999]", "[0,8]"), "an object", 8},
        {ONE("\"F4\"", "[3]", "[0,2]"), "size that can be", 2},
        {ONE("\"F32\"", "[2]", "[0,8,9]"), "two whole numbers", 8},
        {ONE("\"F32\"", "[2]", "[-8,0]"), "two whole numbers", 8},
        {ONE("\"F32\"", "[2]", "[0,8.0]"), "two whole numbers", 8},
        {ONE("\"F32\"", "[2]", "8"), "two whole numbers", 8},
        {ONE("\"F32\"", "[2]", "[8,0]"), "8 bytes for its shape", 8},
        {ONE("\"F32\"", "[2]", "[0,7]"), "8 bytes for its shape", 8},
        {ONE("\"F32\"", "[2]", "[0,8]"), "7 bytes of data", 7},
        {ONE("\"F32\"", "[2]", "[0,8]"), "as the tensors are, found 9", 9},
        {ONE("\"F32\"", "[2]", "[1,9]"), "expected offset 0", 9},
        {"{\"a\":[]}", "an object", 0},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[0],"
         "\"data_offsets\":[0,0]}}",
            "an object", 0},
        {"{\"a\":{}}", "dtype", 0},
        {"{\"\\u0061\":{}}", "plain name", 0},
        {"{\"\":{}}", "1 to 1024 bytes", 0},
        {"{" A "," A "}", "\"a\": expected", 24},
        {"{" A ",\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":"
         "[24,25]}}",
            "expected once, found twice", 25},
        {"{" A ",\"c\":{\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":"
         "[23,32]}}",
            "expected offset 24, where the one before it ends, found 23", 32},
        {"{" A ",\"c\":{\"dtype\":\"U8\",\"shape\":[7],\"data_offsets\":"
         "[25,32]}}",
            "found 25", 32},
        {"{" A ",\"__metadata__\":7}", "__metadata__", 24},
        {"{" A ",\"__metadata__\":{\"a\":7}}", "__metadata__", 24},
        {"{" A ",\"__metadata__\":{\"a\":{}}}", "__metadata__", 24},
        {"{" A ",\"__metadata__\":{\"a\":\"b\"]}", "__metadata__", 24},
        {"{" A ",}", "broken text", 24},
        {"{" A "", "broken text", 24},
        {"{" A "} x", "broken text", 24},
        {"{" A "}}", "broken text", 24},
        {"[" A "]", "a JSON object", 24},
        {"{\"a\" {}}", "broken text", 0},
        {"{\"a", "broken text", 0},
        {"{\"a\":", "broken text", 0},
        {"{\"a\":\"b", "broken text", 0},
        {"{\"a\":\"b\\", "broken text", 0},
        {"{\"a\":}", "broken text", 0},
        {"{,}", "broken text", 0},
        {"  ", "a JSON object", 0},
    };
    size_t i;

    (void) state;

    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        refused(list[i].header, list[i].n, list[i].word);
    }
}

static void
wrong_lengths(void **state)
{
    static const uint64_t lengths[] = {0, 1, 1u << 20, (100u << 20) + 1,
        UINT64_MAX, UINT64_MAX - 7, 1ull << 63};
    size_t i;
    char err[512];
    uint8_t *copy;

    (void) state;

    for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        make_st(&file, "{" A "}", 24);
        memcpy(file.p, &lengths[i], sizeof(lengths[i]));
        assert_null(open_copy(file.len, &copy, err, sizeof(err)));
        check_sentence(err, "mem: ", "header: expected a length");
        free(copy);
    }
}

/* Every length that is too short is refused: none is read past its end. */
static void
truncated(void **state)
{
    size_t n;
    char err[512];
    uint8_t *copy;

    (void) state;
    make_st(&file, "{" A "," B "}", 32);

    for (n = 0; n < file.len; n++) {
        assert_null(open_copy(n, &copy, err, sizeof(err)));
        check_sentence(err, "mem: ", "expected");
        free(copy);
    }
}

static uint64_t
next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* Bits of the header are flipped: refused with a sentence, or sound. */
static void
flipped(void **state)
{
    uint64_t x = 88172645463325252ull;
    uint32_t i, j, refusals = 0;
    size_t at, head;
    char err[512];
    uint8_t *copy;
    safetensors_t *s;

    (void) state;

    for (i = 0; i < 20000; i++) {
        make_st(&file, "{" A "," B "}", 32);
        head = file.len - 32;

        for (j = 0; j <= next_random(&x) % 3; j++) {
            at = next_random(&x) % head;
            file.p[at] ^= (uint8_t) (1u << next_random(&x) % 8);
        }

        s = open_copy(file.len, &copy, err, sizeof(err));

        if (s == NULL) {
            check_sentence(err, "mem: ", "expected");
            refusals++;
        } else {
            (void) walk(s);
        }

        safetensors_close(s);
        free(copy);
    }

    assert_true(refusals > 15000 && refusals < 20000);
}

/* --- memory ------------------------------------------------------------- */

static size_t json_now, json_peak;

static void *
json_counted(size_t n)
{
    size_t *p = malloc(n + 16);

    if (p == NULL) {
        return NULL;
    }

    *p = n;
    json_now += n;
    json_peak = json_now > json_peak ? json_now : json_peak;
    return p + 2;
}

static void
json_gone(void *p)
{
    if (p != NULL) {
        json_now -= ((size_t *) p)[-2];
        free((size_t *) p - 2);
    }
}

/* A header of nothing but brackets is refused before it is a tree. */
static void
hostile_headers(void **state)
{
    static const char *const units[] = {"[", "[],", "{},", "\"\",", "1,",
        "\"a\":{},", "\"__metadata__\":{},", "\\", "\"", "\"a\":"};
    static const char *const heads[] = {
        "{", "{\"a\":[", "{\"a\":{\"b\":[", "{\"__metadata__\":{\"a\":["};
    size_t i, j, n, head;
    static char header[1 << 19];
    char err[512];
    uint8_t *copy;

    (void) state;
    json_set_alloc_funcs(json_counted, json_gone);

    for (i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        for (j = 0; j < sizeof(heads) / sizeof(heads[0]); j++) {
            head = strlen(heads[j]);
            memcpy(header, heads[j], head);

            for (n = head; n + 20 < sizeof(header); n += strlen(units[i])) {
                memcpy(header + n, units[i], strlen(units[i]));
            }

            header[n] = '\0';
            json_peak = 0;
            make_st(&file, header, 0);
            assert_null(open_copy(file.len, &copy, err, sizeof(err)));
            check_sentence(err, "mem: ", "expected");
            assert_in_range(json_peak, 0, sizeof(header));
            free(copy);
        }
    }

    json_set_alloc_funcs(malloc, free);
}

/* --- shards ------------------------------------------------------------- */

#define F1 "model-00001-of-00002.safetensors"
#define F2 "model-00002-of-00002.safetensors"
#define B0 "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[0,8]}"

static void
make_shards(const char *dir, const char *index)
{
    make_st(&file, "{" A "}", 24);
    make_file(dir, F1, file.p, file.len);
    make_st(&file, "{" B0 "}", 8);
    make_file(dir, F2, file.p, file.len);
    make_text(dir, "model.safetensors.index.json", index);
}

static void
clean(char *dir)
{
    make_gone(dir, F1);
    make_gone(dir, F2);
    make_gone(dir, "model.safetensors");
    make_gone(dir, "model.safetensors.index.json");
    assert_int_equal(rmdir(dir), 0);
    free(dir);
}

static void
shards(void **state)
{
    char err[512], *dir = make_dir();
    uint32_t n;
    safetensors_t *s;
    const tensor_t *t;

    (void) state;
    make_shards(dir, "{\"metadata\":{\"total_size\":32},\"weight_map\":{"
                     "\"b\" : \"" F2 "\" ,\n\"a\":\"" F1 "\"}}\n");
    s = safetensors_open(dir, err, sizeof(err));

    if (s == NULL) {
        fail_msg("%s", err);
    }

    t = safetensors_tensors(s, &n);
    assert_int_equal(n, 2);
    assert_int_equal(safetensors_files_n(s), 2);
    assert_memory_equal(t[0].name.s, "a", 1);
    assert_memory_equal(t[1].name.s, "b", 1);
    assert_int_equal(t[1].data[7], 0x11);
    safetensors_close(s);
    clean(dir);
}

#define MAP(a, b) "{\"weight_map\":{\"a\":" a ",\"b\":" b "}}"

static void
wrong_shards(void **state)
{
    static const struct {
        const char *index, *word;
    } list[] = {
        {MAP("\"" F1 "\"", "\"" F1 "\""), "\"b\": expected in " F1},
        {MAP("\"" F2 "\"", "\"" F2 "\""), "\"a\": expected in " F2},
        {MAP("\"" F1 "\"", "\"missing.safetensors\""), "missing.safetensors: "},
        {MAP("\"../x.safetensors\"", "\"" F2 "\""), "names of .safetensors"},
        {MAP("\"/x.safetensors\"", "\"" F2 "\""), "names of .safetensors"},
        {MAP("\"x.bin\"", "\"" F2 "\""), "names of .safetensors"},
        {MAP("\".safetensors\"", "\"" F2 "\""), "names of .safetensors"},
        {MAP("7", "\"" F2 "\""), "names of .safetensors"},
        {MAP("{}", "\"" F2 "\""), "names of .safetensors"},
        {"{\"weight_map\":{\"a\":\"" F1 "\"}}", NULL},
        {"{\"weight_map\":{\"a\":\"" F1 "\",\"b\":\"" F2 "\",\"b\":\"" F2
         "\"}}",
            "as many tensors"},
        {"{\"weight_map\":{\"a\":\"" F1 "\",\"c\":\"" F2 "\"}}",
            "\"c\": expected in " F2 ", found in no file"},
        {"{\"weight_map\":[]}", "an object"},
        {"{\"weight_map\":{\"a\":\"" F1 "\",}}", "broken text"},
        {"{\"weight_map\":{}}x", "a weight_map"},
        {"{}", "a weight_map"},
        {"[]", "a JSON object"},
        {"", "a JSON object"},
        {"{\"weight_map\":{},\"weight_map\":{}}", "found twice"},
    };
    size_t i;
    char err[512], *dir = make_dir();
    safetensors_t *s;

    (void) state;

    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        make_shards(dir, list[i].index);
        err[0] = '\0';
        s = safetensors_open(dir, err, sizeof(err));

        if (list[i].word == NULL) {
            assert_non_null(s); /* files that are not named are not opened */
            safetensors_close(s);
            continue;
        }

        assert_null(s);
        check_sentence(err, dir, list[i].word);
    }

    clean(dir);
}

/* A name in two shards, whichever the index says. */
static void
twice_in_shards(void **state)
{
    char err[512], *dir = make_dir();

    (void) state;
    make_shards(dir, "{\"weight_map\":{\"a\":\"" F1 "\",\"b\":\"" F2
                     "\",\"a\":\"" F2 "\"}}");
    make_st(&file, "{" A "," B "}", 32);
    make_file(dir, F2, file.p, file.len);
    assert_null(safetensors_open(dir, err, sizeof(err)));
    check_sentence(err, dir, "\"a\": expected in one file, found in two");
    clean(dir);
}

static void
one_or_none(void **state)
{
    char err[512], *dir = make_dir();
    safetensors_t *s;

    (void) state;
    assert_null(safetensors_open(dir, err, sizeof(err)));
    check_sentence(err, dir, "found neither");
    make_file(dir, "model.safetensors", "", 0);
    assert_null(safetensors_open(dir, err, sizeof(err)));
    check_sentence(err, dir, "header: ");
    make_st(&file, "{" A "}", 24);
    make_file(dir, "model.safetensors", file.p, file.len);
    s = safetensors_open(dir, err, sizeof(err));
    assert_non_null(s);
    safetensors_close(s);
    clean(dir);
}

/* --- types -------------------------------------------------------------- */

static void
plain_values(void **state)
{
    static const struct {
        uint8_t bits;
        float value;
    } e4m3[] = {{0x00, 0}, {0x01, 0x1p-9f}, {0x07, 7 * 0x1p-9f},
        {0x08, 0x1p-6f}, {0x38, 1}, {0x39, 1.125f}, {0x7e, 448}, {0xfe, -448},
        {0x87, -7 * 0x1p-9f}, {0xb8, -1}};
    static const struct {
        uint16_t bits;
        float value;
    } f16[] = {{0x0001, 0x1p-24f}, {0x03ff, 1023 * 0x1p-24f},
        {0x0400, 0x1p-14f}, {0x3c00, 1}, {0x7bff, 65504}, {0xc000, -2}};
    size_t i;
    float v[256];
    uint16_t b[256];
    uint8_t all[256];
    uint32_t u;
    tensor_t t = {.type = TENSOR_F8_E4M3, .size = 256, .data = all};

    (void) state;

    for (i = 0; i < sizeof(e4m3) / sizeof(e4m3[0]); i++) {
        tensor_plain(TENSOR_F8_E4M3, &e4m3[i].bits, 1, v);
        assert_true(v[0] == e4m3[i].value);
    }

    for (i = 0; i < sizeof(f16) / sizeof(f16[0]); i++) {
        tensor_plain(TENSOR_F16, &f16[i].bits, 1, v);
        assert_true(v[0] == f16[i].value);
    }

    /* all of F8 fits BF16 exactly */
    for (i = 0; i < 256; i++) {
        all[i] = (uint8_t) i;
    }

    tensor_plain(TENSOR_F8_E4M3, all, 256, v);
    tensor_bf16(&t, b);

    for (i = 0; i < 256; i++) {
        u = (uint32_t) b[i] << 16;

        if ((i & 0x7f) == 0x7f) {
            assert_true(v[i] != v[i] && (b[i] & 0x7fff) > 0x7f80);
        } else {
            assert_memory_equal(&u, &v[i], sizeof(u));
        }
    }
}

/* Elements of a matrix meet the factor of their own block. */
static void
scaled(void **state)
{
    enum { ROWS = 130, COLS = 300 };
    static const float factors[6] = {1, 2, 4, 0.5f, 0.25f, 3};
    static uint8_t data[ROWS * COLS];
    static uint16_t got[ROWS * COLS];
    uint32_t i, u;
    float v, want;
    tensor_t scale = {.type = TENSOR_F32,
        .dims = {3, 2, 1, 1},
        .size = sizeof(factors),
        .data = (const uint8_t *) factors};
    tensor_lay_t lay = {.scale = &scale};
    tensor_t t = {.type = TENSOR_F8_E4M3,
        .dims = {COLS, ROWS, 1, 1},
        .size = sizeof(data),
        .data = data,
        .lay = &lay};

    (void) state;

    for (i = 0; i < ROWS * COLS; i++) {
        data[i] = (uint8_t) (i % 7 + 0x38);
    }

    tensor_bf16(&t, got);

    for (i = 0; i < ROWS * COLS; i++) {
        tensor_plain(TENSOR_F8_E4M3, &data[i], 1, &want);
        want *= factors[i / COLS / 128 * 3 + i % COLS / 128];
        u = (uint32_t) got[i] << 16;
        memcpy(&v, &u, sizeof(v));
        assert_true(v == want); /* few enough bits for BF16 */
    }
}

/* F32 to BF16: to nearest, ties to even, over the 256 at a time. */
static void
rounded(void **state)
{
    static const struct {
        float value;
        uint16_t bits;
    } list[] = {{1, 0x3f80}, {1 + 0x1p-8f, 0x3f80}, {1 + 0x1.8p-7f, 0x3f82},
        {1 + 0x1.1p-8f, 0x3f81}, {-3.5f, 0xc060}};
    float v[600];
    uint16_t b[600];
    size_t i;
    tensor_t t = {
        .type = TENSOR_F32, .size = sizeof(v), .data = (const uint8_t *) v};

    (void) state;

    for (i = 0; i < 600; i++) {
        v[i] = list[i % 5].value;
    }

    tensor_bf16(&t, b);

    for (i = 0; i < 600; i++) {
        assert_int_equal(b[i], list[i % 5].bits);
    }
}

static void
real_file(void **state)
{
    char path[512], err[512];
    const char *data = getenv("LLM_DATA");
    uint32_t n;
    safetensors_t *s;
    const tensor_t *t;

    (void) state;
    snprintf(path, sizeof(path), "%s/models/TinyStories-656K",
        data != NULL ? data : "../shared/data");

    if (access(path, R_OK) != 0) {
        print_message("%s is not there\n", path);
        skip();
    }

    s = safetensors_open(path, err, sizeof(err));
    assert_non_null(s);
    t = safetensors_tensors(s, &n);
    assert_int_equal(n, 20);
    t = tensor_find(t, n, "model.layers.1.mlp.down_proj.weight");
    assert_non_null(t);
    assert_int_equal(t->dims[0], 384);
    assert_int_equal(t->dims[1], 128);
    assert_true(walk(s) > 0);
    safetensors_close(s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good),
        cmocka_unit_test(no_tensors),
        cmocka_unit_test(wrong_tensors),
        cmocka_unit_test(wrong_lengths),
        cmocka_unit_test(truncated),
        cmocka_unit_test(flipped),
        cmocka_unit_test(hostile_headers),
        cmocka_unit_test(shards),
        cmocka_unit_test(wrong_shards),
        cmocka_unit_test(twice_in_shards),
        cmocka_unit_test(one_or_none),
        cmocka_unit_test(plain_values),
        cmocka_unit_test(scaled),
        cmocka_unit_test(rounded),
        cmocka_unit_test(real_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
