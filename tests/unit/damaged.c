/*
 * Would catch: a real model file, cut short or with bits and lengths changed,
 * that crashes a reader, keeps it busy, makes it take memory that the file's
 * size does not justify, or is refused without a sentence.
 *
 * A thousand damages in all, from a seed (LLM_SEED, or a fixed one).  Three of
 * four hit what stands before the weights: there each bit means something.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gguf.h"
#include "model.h"
#include "token.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define CASES   1000
#define SECONDS 60 /* of processor time: a hang, not a slow machine */

/* What is needed whatever the file: the tokenizer's cache of words, tables of
 * characters and such. */
#define CONSTANT ((2u << 20) + (256u << 10))

typedef struct {
    uint8_t *p;
    size_t len, head; /* head: bytes before the first tensor's data */
} real_t;

static uint64_t
rnd(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static int
read_real(real_t *r, const char *path)
{
    FILE *f = fopen(path, "r");
    struct stat st;
    char err[512];
    uint32_t i;
    gguf_t *g;

    if (f == NULL) {
        print_message("%s is not there\n", path);
        return 0;
    }

    assert_int_equal(fstat(fileno(f), &st), 0);
    r->len = (size_t) st.st_size;
    r->p = malloc(r->len);
    assert_non_null(r->p);
    assert_int_equal(fread(r->p, 1, r->len, f), r->len);
    fclose(f);

    g = gguf_open_mem(r->p, r->len, "real", err, sizeof(err));
    assert_non_null(g);
    r->head = r->len;

    for (i = 0; i < gguf_tensors_n(g); i++) {
        if ((size_t) (gguf_tensor_at(g, i)->data - r->p) < r->head) {
            r->head = (size_t) (gguf_tensor_at(g, i)->data - r->p);
        }
    }

    gguf_close(g);
    return 1;
}

/* Bytes that are allocated. */
static size_t
held(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

/* Opens all that an engine opens; 1 when all of it is taken. */
static int
open_all(const uint8_t *p, size_t len)
{
    char err[512] = "";
    size_t before = held(), used;
    gguf_t *g = gguf_open_mem(p, len, "file", err, sizeof(err));
    model_t *m = NULL;
    token_t *t = NULL;

    if (g != NULL) {
        m = model_open_gguf(g, err, sizeof(err));
    }

    if (m != NULL) {
        t = token_open_gguf(g, err, sizeof(err));
    }

    used = held() - before;

    if (used > 2 * len + CONSTANT) {
        fail_msg("%zu bytes of memory for a file of %zu", used, len);
    }

    if (t == NULL && (strlen(err) < 10 || strchr(err, '\n') != NULL)) {
        fail_msg("\"%s\" is no sentence", err);
    }

    token_close(t);
    model_close(m);
    gguf_close(g);
    return t != NULL;
}

/* A copy with one to four changes, perhaps cut short, is opened. */
static int
damage(const real_t *r, uint64_t *seed)
{
    static const uint64_t absurd[] = {0, 1, UINT64_MAX, UINT64_MAX / 2,
        UINT64_MAX / 8 + 1, 1ull << 32, 1ull << 31, 65536};
    size_t at, room, len = r->len;
    uint64_t i, n = 1 + rnd(seed) % 4;
    uint8_t *copy;
    int taken;

    if (rnd(seed) % 4 == 0) {
        len = rnd(seed) % (rnd(seed) % 4 == 0 ? r->len : r->head + 1);
    }

    copy = malloc(len + (len == 0));
    assert_non_null(copy);
    memcpy(copy, r->p, len);

    for (i = 0; i < n; i++) {
        room = rnd(seed) % 4 == 0 ? r->len : r->head;
        at = rnd(seed) % (room < len || len == 0 ? room : len);

        switch (rnd(seed) % 4) {

        case 0:
        case 1:
            if (at < len) {
                copy[at] ^= (uint8_t) (1u << rnd(seed) % 8);
            }
            break;

        case 2:
            if (at < len) {
                copy[at] = (uint8_t) rnd(seed);
            }
            break;

        default:
            if (len >= 8 && at <= len - 8) {
                memcpy(copy + at, &absurd[rnd(seed) % 8], 8);
            }
        }
    }

    taken = open_all(copy, len);
    free(copy);
    return taken;
}

static void
thousand(void **state)
{
    static const char *const names[] = {
        "stories260K/stories260K", "TinyStories-656K/TinyStories-656K-Q4_K_M"};
    real_t real[3];
    size_t n = 0, i;
    const char *dir = getenv("LLM_DATA"), *given = getenv("LLM_SEED");
    char path[512];
    uint64_t seed;
    uint32_t k, taken = 0;

    (void) state;
    seed = given != NULL ? strtoull(given, NULL, 10) : 20250101;
    seed = seed * 2654435761u + 88172645463325252ull;
    assert_true(read_real(&real[n++], "conf/demo/ngx-llm-demo.gguf"));

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/models/%s.gguf",
            dir != NULL ? dir : "../shared/data", names[i]);
        n += (size_t) read_real(&real[n], path);
    }

    for (k = 0; k < CASES; k++) {
        i = k % n;
        taken += (uint32_t) damage(&real[i], &seed);
        assert_true(clock() < (clock_t) SECONDS * CLOCKS_PER_SEC);
    }

    print_message("%u of %u damaged files are models still\n", taken, CASES);
    assert_in_range(taken, 1, CASES - 1);

    for (i = 0; i < n; i++) {
        free(real[i].p);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thousand),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
