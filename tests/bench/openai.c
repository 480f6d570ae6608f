/*
 * What the dialect costs: ns for a streamed chunk (plain, of text that needs
 * escapes, with logprobs), for a whole answer of 256 tokens, and for parsing
 * a short and a long body.  The best of five runs each.
 */
#include "dialect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUNS 5

typedef struct {
    char *p;
    size_t used, size;
} arena_t;

static void *
arena_alloc(void *arg, size_t size)
{
    arena_t *a = arg;
    void *p;

    size = (size + 15) & ~(size_t) 15;
    if (size > a->size - a->used) {
        return NULL;
    }
    p = a->p + a->used;
    a->used += size;

    return p;
}

static double
now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);

    return (double) t.tv_sec * 1e9 + (double) t.tv_nsec;
}

static void
answer_init(llm_answer_t *a, const llm_call_t *c, arena_t *arena)
{
    arena->used = 0;
    memset(a, 0, sizeof(*a));
    a->call = c;
    a->id.data = "0123456789abcdef0123456789abcdef";
    a->id.len = 32;
    a->model.data = "stories260K";
    a->model.len = 11;
    a->fingerprint.data = "fp_0123456789";
    a->fingerprint.len = 13;
    a->created = 1727346172;
    llm_buf_init(&a->out, 1 << 20, arena_alloc, arena);
}

/* Streams n chunks of text and says what one took. */
static void
bench_chunks(const char *what, const char *text, int tops, arena_t *arena)
{
    const int n = 200000;
    uint8_t lp[1024];
    llm_wire_lp_t e = {5, -1.2345678f, 4, 0};
    llm_wire_tokens_t t;
    llm_answer_t a;
    llm_call_t c;
    double t0, best = 1e18;
    size_t bytes = 0;
    int i, run;

    memset(&c, 0, sizeof(c));
    memset(&t, 0, sizeof(t));
    c.stream = 1;
    c.head.n = 1;
    t.text_len = (uint32_t) strlen(text);
    t.tokens = 1;
    if (tops > 0) {
        c.head.flags = LLM_F_LOGPROBS;
        for (i = 0; i <= tops; i++) {
            e.top = i == 0 ? (uint16_t) tops : 0;
            memcpy(lp + 16 * i, &e, 12);
            memcpy(lp + 16 * i + 12, "abcd", 4);
        }
        t.lp_len = 16 * (uint32_t) (tops + 1);
    }

    for (run = 0; run < RUNS; run++) {
        answer_init(&a, &c, arena);
        bytes = 0;
        t0 = now_ns();
        for (i = 0; i < n; i++) {
            if (llm_dialect_openai.tokens(&a, &t, (const uint8_t *) text, lp)
                != 0) {
                abort();
            }
            bytes += a.out.len;
            a.out.len = 0; /* sent */
        }
        t0 = (now_ns() - t0) / n;
        best = t0 < best ? t0 : best;
    }
    printf("%-34s %8.0f ns  %6zu bytes\n", what, best, bytes / (size_t) n);
}

static void
bench_whole(arena_t *arena)
{
    const int n = 2000;
    llm_wire_tokens_t t;
    llm_wire_done_t d;
    llm_answer_t a;
    llm_call_t c;
    double t0, best = 1e18;
    int i, k, run;

    memset(&c, 0, sizeof(c));
    memset(&d, 0, sizeof(d));
    c.head.n = 1;

    for (run = 0; run < RUNS; run++) {
        t0 = now_ns();
        for (i = 0; i < n; i++) {
            answer_init(&a, &c, arena);
            memset(&t, 0, sizeof(t));
            t.text_len = 6;
            for (k = 0; k < 256; k++) {
                t.finish = k == 255 ? LLM_FINISH_STOP : LLM_FINISH_NONE;
                if (llm_dialect_openai.tokens(
                        &a, &t, (const uint8_t *) " hello", NULL)
                    != 0) {
                    abort();
                }
            }
            if (llm_dialect_openai.done(&a, &d) != 0) {
                abort();
            }
        }
        t0 = (now_ns() - t0) / n;
        best = t0 < best ? t0 : best;
    }
    printf("%-34s %8.0f ns\n", "whole answer, 256 tokens", best);
}

static void
bench_parse(size_t text_len, arena_t *arena)
{
    const int n = text_len < 10000 ? 20000 : 200;
    static const llm_caps_t caps;
    llm_refusal_t why;
    llm_call_t c;
    llm_str_t body;
    double t0, best = 1e18;
    char *s = malloc(text_len + 300);
    char what[64];
    int i, run;

    body.len = (size_t) sprintf(s,
        "{\"model\":\"stories260K\",\"stream\":true,\"temperature\":0.7,"
        "\"max_tokens\":100,\"messages\":[{\"role\":\"user\",\"content\":\"");
    memset(s + body.len, 'x', text_len);
    memcpy(s + body.len + text_len, "\"}]}", 4);
    body.len += text_len + 4;
    body.data = s;

    for (run = 0; run < RUNS; run++) {
        t0 = now_ns();
        for (i = 0; i < n; i++) {
            arena->used = 0;
            if (llm_dialect_openai.parse(
                    body, LLM_ROUTE_CHAT, &caps, arena_alloc, arena, &c, &why)
                != 0) {
                abort();
            }
        }
        t0 = (now_ns() - t0) / n;
        best = t0 < best ? t0 : best;
    }
    snprintf(what, sizeof(what), "parse, %zu bytes", body.len);
    printf("%-34s %8.0f ns\n", what, best);
    free(s);
}

int
main(void)
{
    arena_t arena = {NULL, 0, 64 << 20};

    arena.p = malloc(arena.size);
    if (arena.p == NULL) {
        return 1;
    }

    bench_chunks("chunk, 6 bytes", " hello", 0, &arena);
    bench_chunks("chunk, 12 bytes of CJK and quotes",
        "\"\xe4\xb8\x96\xe7\x95\x8c\"\n\xe2\x82\xac", 0, &arena);
    bench_chunks("chunk, logprobs with 5 tops", " hello", 5, &arena);
    bench_chunks("chunk, logprobs with 20 tops", " hello", 20, &arena);
    bench_whole(&arena);
    bench_parse(40, &arena);
    bench_parse(100000, &arena);
    free(arena.p);

    return 0;
}
