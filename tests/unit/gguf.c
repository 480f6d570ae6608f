/*
 * Would catch: a length or count of a hostile file that is used before it is
 * held against the file's size; a value read from the wrong place; a sentence
 * that does not say what was expected and found.  Files are given in a heap
 * block of their exact size, so that a sanitizer sees any read past the end.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gguf.h"
#include "gguf_make.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static make_t file;

/* One of each kind of pair, two tensors of 32 bytes. */
static void
make_good(make_t *f)
{
    uint64_t big = 1ull << 40;
    int64_t minus = -3;
    double pi = 3.25;

    make_head(f, 3, 2, 11);
    make_pair_u32(f, "a.u32", 7);
    make_pair_f32(f, "a.f32", 1.5f);
    make_pair_str(f, "a.str", "hello");
    make_str(f, "a.u64");
    make_u32(f, GGUF_U64);
    make_bytes(f, &big, 8);
    make_str(f, "a.i64");
    make_u32(f, GGUF_I64);
    make_bytes(f, &minus, 8);
    make_str(f, "a.f64");
    make_u32(f, GGUF_F64);
    make_bytes(f, &pi, 8);
    make_str(f, "a.bool");
    make_u32(f, GGUF_BOOL);
    make_bytes(f, "\1", 1);
    make_str(f, "a.u8");
    make_u32(f, GGUF_U8);
    make_bytes(f, "\xff", 1);
    make_str(f, "a.i16");
    make_u32(f, GGUF_I16);
    make_bytes(f, "\2\1", 2);
    make_str(f, "arr.u16");
    make_u32(f, GGUF_ARR);
    make_u32(f, GGUF_U16);
    make_u64(f, 3);
    make_bytes(f, "\1\0\2\0\3\0", 6);
    make_str(f, "arr.str");
    make_u32(f, GGUF_ARR);
    make_u32(f, GGUF_STR);
    make_u64(f, 3);
    make_str(f, "x");
    make_str(f, "");
    make_str(f, "zz");
    make_tensor(f, "t.one", 8, 0, 0, 0);
    make_tensor(f, "t.two", 8, 2, 1, 32);
    make_data(f, 32, 64);
}

/* Opens a copy of the first n bytes of f; NULL when it is refused. */
static gguf_t *
open_copy(const make_t *f, size_t n, uint8_t **copy, char *err, size_t errlen)
{
    *copy = malloc(n + (n == 0));
    assert_non_null(*copy);
    memcpy(*copy, f->p, n);
    memset(err, 0, errlen);
    return gguf_open_mem(*copy, n, "mem", err, errlen);
}

/* f must be refused with a sentence that has word in it. */
static void
refused(const make_t *f, const char *word)
{
    char err[512];
    uint8_t *copy;
    gguf_t *g = open_copy(f, f->len, &copy, err, sizeof(err));

    assert_null(g);

    if (strncmp(err, "mem: ", 5) != 0 || strstr(err, word) == NULL
        || (strstr(err, "expected") == NULL && strstr(err, "found") == NULL)) {
        fail_msg("\"%s\" lacks \"%s\"", err, word);
    }

    free(copy);
}

/* Touches all that can be asked for. */
static size_t
walk(const gguf_t *g)
{
    uint32_t i, u;
    uint64_t at, k;
    size_t sum = 0;
    float x;
    int b;
    gguf_str_t s;
    gguf_arr_t a;
    static const char *const keys[] = {"a.u32", "a.f32", "a.str", "a.u64",
        "a.i64", "a.f64", "a.bool", "a.u8", "a.i16", "arr.u16", "arr.str"};

    for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        sum += gguf_has(g, keys[i]) + gguf_u32(g, keys[i], &u)
               + gguf_f32(g, keys[i], &x) + gguf_bool(g, keys[i], &b);

        if (gguf_str(g, keys[i], &s)) {
            for (k = 0; k < s.len; k++) {
                sum += (uint8_t) s.s[k];
            }
        }

        if (gguf_arr(g, keys[i], &a)) {
            for (k = 0; k <= a.n && k < 1000; k++) {
                sum += gguf_arr_u32(&a, k, &u) + gguf_arr_f32(&a, k, &x);
            }

            for (at = 0; gguf_arr_str(&a, &at, &s);) {
                sum += s.len + (s.len > 0 ? (uint8_t) s.s[s.len - 1] : 0);
            }
        }
    }

    for (i = 0; i < gguf_tensors_n(g); i++) {
        const tensor_t *t = gguf_tensor_at(g, i);

        for (k = 0; k < t->size; k++) {
            sum += t->data[k];
        }

        sum += tensor_type_name(t->type) != NULL;
    }

    return sum;
}

static void
values(void **state)
{
    int b;
    uint32_t u;
    uint64_t at = 0;
    float x;
    char err[512];
    uint8_t *copy;
    gguf_t *g;
    gguf_str_t s;
    gguf_arr_t a;
    const tensor_t *t;

    (void) state;
    make_good(&file);
    g = open_copy(&file, file.len, &copy, err, sizeof(err));

    if (g == NULL) {
        fail_msg("%s", err);
    }

    assert_string_equal(gguf_name(g), "mem");
    assert_true(gguf_u32(g, "a.u32", &u) && u == 7);
    assert_true(gguf_u32(g, "a.u8", &u) && u == 255);
    assert_true(gguf_u32(g, "a.i16", &u) && u == 0x102);
    assert_false(gguf_u32(g, "a.u64", &u)); /* does not fit */
    assert_false(gguf_u32(g, "a.i64", &u)); /* negative */
    assert_false(gguf_u32(g, "a.f32", &u));
    assert_false(gguf_u32(g, "a.str", &u));
    assert_false(gguf_u32(g, "none", &u));
    assert_true(gguf_f32(g, "a.f32", &x) && x == 1.5f);
    assert_true(gguf_f32(g, "a.f64", &x) && x == 3.25f);
    assert_false(gguf_f32(g, "a.u32", &x));
    assert_true(gguf_bool(g, "a.bool", &b) && b == 1);
    assert_true(gguf_str(g, "a.str", &s));
    assert_int_equal(s.len, 5);
    assert_memory_equal(s.s, "hello", 5);
    assert_true(gguf_has(g, "arr.str") && !gguf_has(g, "arr"));

    assert_true(gguf_arr(g, "arr.u16", &a) && a.n == 3);
    assert_true(gguf_arr_u32(&a, 2, &u) && u == 3);
    assert_false(gguf_arr_u32(&a, 3, &u));
    assert_false(gguf_arr_str(&a, &at, &s));

    assert_true(gguf_arr(g, "arr.str", &a) && a.n == 3);
    assert_true(gguf_arr_str(&a, &at, &s) && s.len == 1 && s.s[0] == 'x');
    assert_true(gguf_arr_str(&a, &at, &s) && s.len == 0);
    assert_true(gguf_arr_str(&a, &at, &s) && s.len == 2);
    assert_false(gguf_arr_str(&a, &at, &s));
    assert_false(gguf_arr_u32(&a, 0, &u));

    assert_int_equal(gguf_tensors_n(g), 2);
    t = gguf_tensor(g, "t.two");
    assert_non_null(t);
    assert_int_equal(t->dims[0], 8);
    assert_int_equal(t->dims[1], 2);
    assert_int_equal(t->dims[3], 1);
    assert_int_equal(t->size, 32);
    assert_ptr_equal(t->data, copy + file.len - 32);
    assert_null(gguf_tensor(g, "t.three"));
    assert_string_equal(tensor_type_name(8), "Q8_0");
    assert_null(tensor_type_name(4));
    assert_null(tensor_type_name(UINT32_MAX));

    gguf_close(g);
    free(copy);
}

static void
truncated(void **state)
{
    size_t n;
    char err[512];
    uint8_t *copy;

    (void) state;
    make_good(&file);

    for (n = 0; n < file.len; n++) {
        assert_null(open_copy(&file, n, &copy, err, sizeof(err)));
        assert_non_null(strstr(err, "expected"));
        free(copy);
    }
}

/* Every bit, and every byte set to each of some nasty values. */
static void
flipped(void **state)
{
    static const uint8_t nasty[] = {0, 1, 0x7f, 0x80, 0xff};
    size_t i, k, opened = 0;
    char err[512];
    uint8_t *copy, was;
    gguf_t *g;

    (void) state;
    make_good(&file);

    for (i = 0; i < file.len; i++) {
        was = file.p[i];

        for (k = 0; k < 8 + sizeof(nasty); k++) {
            file.p[i] = k < 8 ? was ^ (uint8_t) (1 << k) : nasty[k - 8];
            g = open_copy(&file, file.len, &copy, err, sizeof(err));

            if (g != NULL) {
                opened += walk(g) > 0;
                gguf_close(g);
            } else {
                assert_true(strlen(err) > 5);
            }

            free(copy);
        }

        file.p[i] = was;
    }

    assert_true(opened > 0);
}

/* Eight bytes at every place become an absurd length. */
static void
long_lengths(void **state)
{
    static const uint64_t lengths[] = {UINT64_MAX, UINT64_MAX - 7,
        UINT64_MAX / 2, UINT64_MAX / 8 + 1, 1ull << 32, 1ull << 31};
    size_t i, k;
    char err[512];
    uint8_t *copy, was[8];
    gguf_t *g;

    (void) state;
    make_good(&file);

    for (i = 0; i + 8 <= file.len; i++) {
        memcpy(was, file.p + i, 8);

        for (k = 0; k < sizeof(lengths) / sizeof(lengths[0]); k++) {
            memcpy(file.p + i, &lengths[k], 8);
            g = open_copy(&file, file.len, &copy, err, sizeof(err));

            if (g != NULL) {
                walk(g);
                gguf_close(g);
            }

            free(copy);
        }

        memcpy(file.p + i, was, 8);
    }
}

static void
headers(void **state)
{
    (void) state;
    make_good(&file);
    file.p[0] = 'X';
    refused(&file, "magic");

    make_head(&file, 1, 0, 0);
    refused(&file, "version: expected 2 or 3, found 1");
    make_head(&file, 0x03000000, 0, 0);
    refused(&file, "big-endian");
    make_head(&file, 3, UINT64_MAX, 0);
    refused(&file, "count of tensors");
    make_head(&file, 3, 0, UINT64_MAX);
    refused(&file, "count of keys");
    make_head(&file, 3, 60000, 0); /* no bytes for them */
    refused(&file, "count of tensors");
    make_head(&file, 3, 0, 60000);
    refused(&file, "count of keys");
}

static void
pairs(void **state)
{
    (void) state;

    make_head(&file, 3, 0, 2);
    make_pair_u32(&file, "same", 1);
    make_pair_str(&file, "same", "x");
    refused(&file, "key \"same\": expected once, found twice");

    make_head(&file, 3, 0, 1);
    make_str(&file, "k");
    make_u32(&file, GGUF_TYPES);
    make_u64(&file, 0);
    refused(&file, "expected a type below 13, found 13");

    make_head(&file, 3, 0, 1);
    make_str(&file, "nested");
    make_u32(&file, GGUF_ARR);
    make_u32(&file, GGUF_ARR);
    make_u64(&file, 1);
    make_u32(&file, GGUF_U8);
    make_u64(&file, 0);
    refused(&file, "array \"nested\"");

    make_head(&file, 3, 0, 1);
    make_str(&file, "long");
    make_u32(&file, GGUF_ARR);
    make_u32(&file, GGUF_F64);
    make_u64(&file, UINT64_MAX / 8 + 2);
    refused(&file, "array \"long\"");

    make_head(&file, 3, 0, 1);
    make_str(&file, "");
    make_u32(&file, GGUF_U32);
    make_u64(&file, 1);
    refused(&file, "expected 1 to 65535 bytes, found 0");

    make_head(&file, 3, 0, 1);
    make_pair_u32(&file, "general.alignment", 48);
    refused(&file, "general.alignment: expected a power of two");
    make_head(&file, 3, 0, 1);
    make_pair_u32(&file, "general.alignment", 0);
    refused(&file, "general.alignment");

    /* a key that would write control bytes to a terminal */
    make_head(&file, 3, 0, 2);
    make_pair_u32(&file, "\033[2J", 1);
    make_pair_u32(&file, "\033[2J", 1);
    refused(&file, "key \"?[2J\"");
}

static void
tensors(void **state)
{
    (void) state;

    make_head(&file, 3, 2, 0);
    make_tensor(&file, "t", 8, 0, 0, 0);
    make_tensor(&file, "t", 8, 0, 0, 32);
    make_data(&file, 32, 64);
    refused(&file, "tensor \"t\": expected once, found twice");

    make_head(&file, 3, 2, 0);
    make_tensor(&file, "a", 16, 0, 0, 0);
    make_tensor(&file, "b", 8, 0, 0, 32);
    make_data(&file, 32, 64);
    refused(&file, "shared with \"a\"");

    make_head(&file, 3, 1, 0);
    make_tensor(&file, "t", 8, 0, 4, 0);
    make_data(&file, 32, 64);
    refused(&file, "expected a known type, found type 4");

    make_head(&file, 3, 1, 0);
    make_tensor(&file, "t", 8, 0, 0, 64);
    make_data(&file, 32, 64);
    refused(&file, "expected 32 bytes at offset 64, found 64");

    make_head(&file, 3, 1, 0);
    make_tensor(&file, "t", 8, 0, 0, UINT64_MAX - 31);
    make_data(&file, 32, 64);
    refused(&file, "tensor \"t\"");

    make_head(&file, 3, 1, 0);
    make_tensor(&file, "t", 8, 0, 0, 8);
    make_data(&file, 32, 64);
    refused(&file, "multiple of 32, found 8");

    make_head(&file, 3, 1, 0);
    make_tensor(&file, "t", 1ull << 40, 1ull << 40, 0, 0);
    make_data(&file, 32, 64);
    refused(&file, "expected a size that can be");

    make_head(&file, 3, 1, 0);
    make_tensor(&file, "t", 1ull << 61, 4, 0, 0);
    make_data(&file, 32, 64);
    refused(&file, "expected a size that can be");

    make_head(&file, 3, 1, 0);
    make_tensor(&file, "t", 0, 0, 0, 0);
    make_data(&file, 32, 64);
    refused(&file, "dimension 0 to be 0");

    make_head(&file, 3, 1, 0);
    make_tensor(&file, "t", 33, 0, 8, 0);
    make_data(&file, 32, 64);
    refused(&file, "multiple of 32 elements for Q8_0, found 33");

    make_head(&file, 3, 1, 0);
    make_str(&file, "t");
    make_u32(&file, 5);
    make_data(&file, 32, 96);
    refused(&file, "expected 1 to 4 dimensions, found 5");
}

static void
alignment_of_64(void **state)
{
    char err[512];
    uint8_t *copy;
    gguf_t *g;

    (void) state;
    make_head(&file, 2, 1, 1);
    make_pair_u32(&file, "general.alignment", 64);
    make_tensor(&file, "t", 8, 0, 0, 0);
    make_data(&file, 64, 32);
    g = open_copy(&file, file.len, &copy, err, sizeof(err));
    assert_non_null(g);
    assert_ptr_equal(gguf_tensor(g, "t")->data, copy + file.len - 32);
    gguf_close(g);
    free(copy);
}

static void
path_refused(const char *path, const char *word)
{
    char err[512];

    assert_null(gguf_open(path, err, sizeof(err)));

    if (strstr(err, path) != err || strstr(err, word) == NULL) {
        fail_msg("\"%s\" lacks \"%s\"", err, word);
    }
}

static void
paths(void **state)
{
    char dir[] = "/tmp/gguf-test-XXXXXX", path[64], err[512];
    FILE *f;
    gguf_t *g;

    (void) state;
    assert_non_null(mkdtemp(dir));
    path_refused(dir, "found a directory");
    path_refused("/nonexistent/m.gguf", "No such file");

    snprintf(path, sizeof(path), "%s/m.gguf", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    path_refused(path, "expected a regular file");
    unlink(path);

    f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
    path_refused(path, "expected at least 24 bytes, found 0");

    if (geteuid() != 0) {
        chmod(path, 0);
        path_refused(path, "Permission denied");
        chmod(path, 0600);
    }

    make_good(&file);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(file.p, 1, file.len, f), file.len);
    fclose(f);
    g = gguf_open(path, err, sizeof(err));
    assert_non_null(g);
    assert_true(gguf_mtime(g) > 1000000000);
    assert_true(walk(g) > 0);
    gguf_close(g);

    /* an error sentence never overruns a short buffer */
    unlink(path);
    err[8] = 'x';
    assert_null(gguf_open(path, err, 8));
    assert_int_equal(err[7], '\0');
    assert_int_equal(err[8], 'x');
    rmdir(dir);
}

/* Bytes that are allocated. */
static size_t
held(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

/* What is little else than table costs no more than twice its size. */
static void
small_tables(void **state)
{
    char err[512], name[8];
    uint32_t i, n = 20000;
    size_t before = held();
    gguf_t *g;

    (void) state;
    make_head(&file, 3, 0, n);

    for (i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "%x", i);
        make_str(&file, name);
        make_u32(&file, GGUF_U8);
        make_bytes(&file, "", 1);
    }

    g = gguf_open_mem(file.p, file.len, "mem", err, sizeof(err));
    assert_non_null(g);
    assert_true(gguf_u32(g, "4e1f", &i) && i == 0);
    assert_in_range(held() - before, 0, 2 * file.len);
    gguf_close(g);

    make_head(&file, 3, n, 1);
    make_pair_u32(&file, "general.alignment", 8);

    for (i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "%x", i);
        make_tensor(&file, name, 1, 0, 0, i * 8);
    }

    make_data(&file, 8, n * 8);
    g = gguf_open_mem(file.p, file.len, "mem", err, sizeof(err));
    assert_non_null(g);
    assert_int_equal(gguf_tensors_n(g), n);
    assert_in_range(held() - before, 0, 2 * file.len);
    gguf_close(g);
}

/* All the types' block sizes, against a file that has tensors of each. */
static void
all_types(void **state)
{
    char path[512], err[512];
    const char *dir = getenv("LLM_DATA");
    gguf_t *g;

    (void) state;
    snprintf(path, sizeof(path), "%s/models/quant-vectors/quant-vectors.gguf",
        dir != NULL ? dir : "../shared/data");

    if (access(path, R_OK) != 0) {
        print_message("%s is not there\n", path);
        skip();
    }

    g = gguf_open(path, err, sizeof(err));

    if (g == NULL) {
        fail_msg("%s", err);
    }

    assert_true(gguf_tensors_n(g) > 50);
    assert_true(walk(g) > 0);
    gguf_close(g);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(truncated),
        cmocka_unit_test(flipped),
        cmocka_unit_test(long_lengths),
        cmocka_unit_test(headers),
        cmocka_unit_test(pairs),
        cmocka_unit_test(tensors),
        cmocka_unit_test(alignment_of_64),
        cmocka_unit_test(paths),
        cmocka_unit_test(small_tables),
        cmocka_unit_test(all_types),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
