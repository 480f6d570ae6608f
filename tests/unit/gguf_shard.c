/*
 * Would catch: a shard that is taken for the whole model, a tensor that comes
 * from the wrong shard or twice, keys from another shard than the first, and a
 * shard that is missing, renamed or of another model without a sentence that
 * names it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gguf.h"
#include "gguf_make.h"
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PARTS 3
#define DEMO  "conf/demo/ngx-llm-demo.gguf"

static make_t file;

/* The shards' folder, and what a test changes in one of them. */
typedef struct {
    char dir[32];
    uint32_t which; /* the shard that is changed; PARTS for none */
    uint32_t no, count, total;
    const char *tensor; /* instead of its own */
} set_t;

static const char *
path_of(const set_t *s, uint32_t i, uint32_t n)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/m-%05u-of-%05u.gguf", s->dir, i + 1, n);
    return path;
}

static void
save(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* Shard i of PARTS: tensors "ti.0" and "ti.1", of bytes i. */
static void
write_shard(const set_t *s, uint32_t i)
{
    char name[2][8];
    uint32_t k, own = i != s->which;

    make_head(&file, 3, 2, i == 0 ? 5 : 4);
    make_pair_u32(&file, "split.no", own ? i : s->no);
    make_pair_u32(&file, "split.count", own ? PARTS : s->count);
    make_pair_u32(&file, "split.tensors.count", own ? 2 * PARTS : s->total);
    make_pair_u32(&file, "part", i);

    if (i == 0) {
        make_pair_str(&file, "general.architecture", "llama");
    }

    for (k = 0; k < 2; k++) {
        snprintf(name[k], sizeof(name[k]), "t%u.%u", i, k);
    }

    if (!own && s->tensor != NULL) {
        snprintf(name[0], sizeof(name[0]), "%s", s->tensor);
    }

    make_tensor(&file, name[0], 8, 0, 0, 0);
    make_tensor(&file, name[1], 8, 0, 0, 32);
    make_data(&file, 32, 64);
    memset(file.p + file.len - 64, (int) i + 1, 64);
}

static void
write_all(set_t *s)
{
    uint32_t i;

    for (i = 0; i < PARTS; i++) {
        write_shard(s, i);
        save(path_of(s, i, PARTS), file.p, file.len);
    }
}

static set_t
set_open(void)
{
    set_t s = {.dir = "/tmp/gguf-shard-XXXXXX",
        .which = PARTS,
        .count = PARTS,
        .total = 2 * PARTS};

    assert_non_null(mkdtemp(s.dir));
    return s;
}

static void
set_close(const set_t *s)
{
    uint32_t i;

    for (i = 0; i < PARTS; i++) {
        unlink(path_of(s, i, PARTS));
    }

    assert_int_equal(rmdir(s->dir), 0);
}

static void
by_any(void **state)
{
    set_t s = set_open();
    uint32_t i, k, part;
    char err[512], name[16];
    gguf_t *g;
    gguf_str_t arch;

    (void) state;
    write_all(&s);

    for (i = 0; i < PARTS; i++) {
        g = gguf_open(path_of(&s, i, PARTS), err, sizeof(err));

        if (g == NULL) {
            fail_msg("%s", err);
        }

        assert_string_equal(gguf_name(g), path_of(&s, 0, PARTS));
        assert_true(gguf_u32(g, "part", &part) && part == 0);
        assert_true(gguf_str(g, "general.architecture", &arch));
        assert_int_equal(gguf_tensors_n(g), 2 * PARTS);

        for (k = 0; k < 2 * PARTS; k++) {
            snprintf(name, sizeof(name), "t%u.%u", k / 2, k % 2);
            assert_non_null(gguf_tensor(g, name));
            assert_ptr_equal(gguf_tensor(g, name), gguf_tensor_at(g, k));
            assert_int_equal(gguf_tensor(g, name)->data[31], k / 2 + 1);
        }

        gguf_close(g);
    }

    set_close(&s);
}

/* What s has been written as is refused by shard i, with path and word. */
static void
refused(const set_t *s, uint32_t i, uint32_t at_fault, const char *word)
{
    char err[512];
    size_t n = strlen(path_of(s, at_fault, PARTS));

    if (gguf_open(path_of(s, i, PARTS), err, sizeof(err)) != NULL
        || strncmp(err, path_of(s, at_fault, PARTS), n) != 0
        || strstr(err, word) == NULL || strstr(err, "expected") == NULL
        || strstr(err, "found") == NULL) {
        fail_msg("\"%s\" lacks \"%s\"", err, word);
    }
}

static void
missing(void **state)
{
    set_t s = set_open();

    (void) state;
    write_all(&s);
    unlink(path_of(&s, 1, PARTS));
    refused(&s, 0, 1, "No such file");
    refused(&s, 2, 1, "No such file");
    save(path_of(&s, 1, PARTS), "GGUF", 4);
    refused(&s, 0, 1, "at least 24 bytes, found 4");
    set_close(&s);
}

static void
renamed(void **state)
{
    set_t s = set_open();
    char path[64], err[512], *first;

    (void) state;
    write_all(&s);
    snprintf(path, sizeof(path), "%s/m.gguf", s.dir);
    first = strdupa(path_of(&s, 0, PARTS));
    assert_int_equal(rename(path_of(&s, 0, PARTS), path), 0);
    assert_null(gguf_open(path, err, sizeof(err)));
    assert_non_null(strstr(err, "ends in \"-00001-of-00003.gguf\""));
    assert_int_equal(rename(path, path_of(&s, 0, PARTS)), 0);

    /* each in the other's place */
    assert_int_equal(rename(path_of(&s, 0, PARTS), path), 0);
    assert_int_equal(rename(path_of(&s, 1, PARTS), first), 0);
    assert_int_equal(rename(path, path_of(&s, 1, PARTS)), 0);
    refused(&s, 0, 0, "ends in \"-00002-of-00003.gguf\"");
    refused(&s, 2, 0, "expected shard 1 of 3, found 2 of 3");
    set_close(&s);
}

static void
inconsistent(void **state)
{
    set_t s = set_open();

    (void) state;
    s.which = 1;
    s.no = 1;
    s.count = 4;
    write_all(&s);
    refused(&s, 0, 1, "expected shard 2 of 3, found 2 of 4");
    refused(&s, 1, 1, "ends in \"-00002-of-00004.gguf\"");

    s.count = UINT32_MAX;
    write_all(&s);
    refused(&s, 1, 1, "split.count: expected less than");
    refused(&s, 0, 1, "split.count: expected less than");

    s.count = 0;
    write_all(&s);
    refused(&s, 0, 1, "found 2 of 0");

    s.count = PARTS;
    s.no = 2;
    write_all(&s);
    refused(&s, 0, 1, "expected shard 2 of 3, found 3 of 3");
    s.no = 7;
    write_all(&s);
    refused(&s, 1, 1, "split.no: expected less than 3, found 7");

    s.no = 1;
    s.tensor = "t0.1";
    write_all(&s);
    refused(&s, 2, 0, "tensor \"t0.1\": expected once, found twice");

    s.which = 0;
    s.no = 0;
    s.tensor = NULL;
    s.total = 2 * PARTS + 1;
    write_all(&s);
    refused(&s, 0, 0, "split.tensors.count: expected the shards' 6, found 7");
    set_close(&s);
}

/* A shard without its others is no model, whatever the key's type. */
static void
alone(void **state)
{
    char err[512];
    set_t s = {.which = PARTS};
    gguf_t *g;

    (void) state;
    write_shard(&s, 0);
    assert_null(gguf_open_mem(file.p, file.len, "mem", err, sizeof(err)));
    assert_non_null(strstr(err, "a whole model, found one of 3"));

    s.which = 0;
    s.count = 1;
    write_shard(&s, 0);
    g = gguf_open_mem(file.p, file.len, "mem", err, sizeof(err));
    assert_non_null(g);
    gguf_close(g);

    s = set_open();
    make_head(&file, 3, 0, 1);
    make_pair_str(&file, "split.count", "three");
    save(path_of(&s, 0, PARTS), file.p, file.len);
    refused(&s, 0, 0, "split.count: expected a number, found something else");
    set_close(&s);
}

static uint8_t *
read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "r");
    uint8_t *p;

    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *n = (size_t) ftell(f);
    rewind(f);
    p = malloc(*n);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

/* Shard i of PARTS of the model g at p: every PARTS-th tensor. */
static void
split_real(const set_t *s, const gguf_t *g, const uint8_t *p, uint32_t i)
{
    uint32_t k, pairs = 0;
    uint64_t offset = 0, tensors = 0;
    size_t table = SIZE_MAX;
    const tensor_t *t;
    FILE *f;

    /* the table of tensors begins where the pairs end */
    for (k = 0; k < gguf_tensors_n(g); k++) {
        t = gguf_tensor_at(g, k);
        tensors += k % PARTS == i;

        if ((size_t) ((const uint8_t *) t->name.s - p) - 8 < table) {
            table = (size_t) ((const uint8_t *) t->name.s - p) - 8;
        }
    }

    memcpy(&pairs, p + 16, sizeof(pairs));
    make_head(&file, 3, tensors, i == 0 ? pairs + 3 : 3);
    make_pair_u32(&file, "split.no", i);
    make_pair_u32(&file, "split.count", PARTS);
    make_pair_u32(&file, "split.tensors.count", gguf_tensors_n(g));

    if (i == 0) {
        make_bytes(&file, p + 24, table - 24);
    }

    for (k = i; k < gguf_tensors_n(g); k += PARTS) {
        char name[64];

        t = gguf_tensor_at(g, k);
        snprintf(name, sizeof(name), "%.*s", (int) t->name.len, t->name.s);
        make_tensor(&file, name, t->dims[0], t->dims_n == 1 ? 0 : t->dims[1],
            t->type, offset);
        offset += (t->size + 31) / 32 * 32;
    }

    make_data(&file, 32, 0);
    save(path_of(s, i, PARTS), file.p, file.len);
    f = fopen(path_of(s, i, PARTS), "a");
    assert_non_null(f);

    for (k = i; k < gguf_tensors_n(g); k += PARTS) {
        static const char zero[32];

        t = gguf_tensor_at(g, k);
        assert_int_equal(fwrite(t->data, 1, t->size, f), t->size);
        fwrite(zero, 1, (32 - t->size % 32) % 32, f);
    }

    assert_int_equal(fclose(f), 0);
}

/* The demo model in three parts is the demo model. */
static void
real_model(void **state)
{
    set_t s = set_open();
    char err[512];
    uint32_t i;
    size_t n;
    uint8_t *p = read_file(DEMO, &n);
    gguf_t *whole = gguf_open_mem(p, n, "whole", err, sizeof(err)), *g;
    const tensor_t *t;
    model_t *m;

    (void) state;
    assert_non_null(whole);

    for (i = 0; i < PARTS; i++) {
        split_real(&s, whole, p, i);
    }

    g = gguf_open(path_of(&s, 1, PARTS), err, sizeof(err));

    if (g == NULL) {
        fail_msg("%s", err);
    }

    assert_int_equal(gguf_tensors_n(g), gguf_tensors_n(whole));

    for (i = 0; i < gguf_tensors_n(g); i++) {
        t = gguf_tensor_at(whole, i);
        assert_int_equal(gguf_tensor_at(g, i)->size, t->size);
        assert_memory_equal(gguf_tensor_at(g, i)->data, t->data, t->size);
    }

    m = model_open_gguf(g, err, sizeof(err));

    if (m == NULL) {
        fail_msg("%s", err);
    }

    assert_string_equal(model_info(m)->name, "m");
    model_close(m);
    gguf_close(g);
    gguf_close(whole);
    free(p);
    set_close(&s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_any),
        cmocka_unit_test(missing),
        cmocka_unit_test(renamed),
        cmocka_unit_test(inconsistent),
        cmocka_unit_test(alone),
        cmocka_unit_test(real_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
