/*
 * Catches a row that shows one request's name with another's numbers, a tenant
 * whose sums do not add up or that loses its counters, a list that a confused
 * engine leads outside of its memory, and a name cut inside a character.
 */
#include "brief.h"
#include "live.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REQS = 200, ROWS = 100 };

typedef struct {
    uint8_t *page; /* of exactly size bytes */
    uint64_t size;
    live_t *live;
    llm_live_t view;
} fix_t;


static int
setup(void **state)
{
    fix_t *f = calloc(1, sizeof(*f));
    live_cfg_t c = {.reqs = REQS, .batch_tokens = 512, .batch_rows = 64};

    assert_non_null(f);
    f->size = llm_live_size(ROWS);
    f->page = calloc(1, f->size);
    assert_int_equal(llm_live_open(&f->view, f->page, f->size), 0);
    c.page = f->page;
    c.size = f->size;
    c.now_us = 77;
    f->live = live_open(&c);
    assert_non_null(f->live);
    assert_int_equal(llm_live_open(&f->view, f->page, f->size), 1);
    *state = f;

    return 0;
}


static int
teardown(void **state)
{
    fix_t *f = *state;

    live_close(f->live);
    free(f->page);
    free(f);

    return 0;
}


static req_t *
request(uint32_t gen, uint32_t tenant, const char *name)
{
    static req_t r;

    memset(&r, 0, sizeof(r));
    r.gen = gen;
    r.tenant = tenant;
    r.arrival_us = 1000 * (uint64_t) gen;
    r.weight = 3;
    r.priority = 2;
    r.choices = 2;
    r.prompt_tokens = gen;
    r.max_tokens = 50;
    snprintf(r.id, sizeof(r.id), "id-%u", gen);
    snprintf(r.tenant_name, sizeof(r.tenant_name), "%s", name);

    return &r;
}


/* The tenant's row of that name, 1 if there is one. */
static int
tenant(const fix_t *f, const char *name, llm_live_tenant_t *t)
{
    char text[LLM_LIVE_TEXT + 1];
    uint32_t i;

    for (i = 0; i < f->view.head.tenants_n; i++) {
        if (llm_live_tenant(&f->view, i, t)) {
            (void) llm_live_text(t->name, text);
            if (strcmp(text, name) == 0) {
                return 1;
            }
        }
    }

    return 0;
}


static void
test_row(void **state)
{
    const live_work_t w = {LLM_LIVE_DECODE, 40, 7, 16, 5};
    fix_t *f = *state;
    char text[LLM_LIVE_TEXT + 1];
    llm_live_tenant_t t;
    llm_live_row_t r;

    assert_int_equal(llm_live_rows(&f->view), 0);
    live_add(f->live, 9, request(4, 1, "acme"));
    assert_int_equal(llm_live_rows(&f->view), 10);
    assert_int_equal(llm_live_row(&f->view, 8, &r), 0);
    assert_int_equal(llm_live_row(&f->view, 9, &r), 1);
    assert_string_equal(llm_live_state_name(r.who), "waiting");
    assert_int_equal(r.who >> 32, 4);
    assert_int_equal(r.arrival_us, 4000);
    assert_int_equal(r.begun_us, 0);
    assert_int_equal(r.priority, 2);
    assert_int_equal(r.limit, 100);
    assert_int_equal(llm_live_text(r.id, text), 4);
    assert_string_equal(text, "id-4");
    (void) llm_live_text(r.tenant, text);
    assert_string_equal(text, "acme");
    assert_int_equal(tenant(f, "acme", &t), 1);
    assert_int_equal(t.waiting, 1);
    assert_int_equal(t.weight, 3);

    live_begin(f->live, 9, 5000);
    live_served(f->live, 9, 33);
    live_token(f->live, 9, 6000);
    live_token(f->live, 9, 6000); /* its other choice */
    live_token(f->live, 9, 8000);
    live_show(f->live, 9, &w);
    assert_int_equal(llm_live_row(&f->view, 9, &r), 1);
    assert_string_equal(llm_live_state_name(r.who), "decode");
    assert_int_equal(r.begun_us, 5000);
    assert_int_equal(r.first_us, 6000);
    assert_int_equal(r.computed, 40);
    assert_int_equal(r.sampled, 7);
    assert_int_equal(r.cached, 16);
    assert_int_equal(r.blocks, 5);
    assert_int_equal(tenant(f, "acme", &t), 1);
    assert_int_equal(t.waiting, 0);
    assert_int_equal(t.running, 1);
    assert_int_equal(t.blocks, 5);
    assert_int_equal(t.computed, 33);
    assert_int_equal(t.sampled, 3);

    live_end(f->live, 9);
    assert_int_equal(llm_live_row(&f->view, 9, &r), 0);
    assert_int_equal(tenant(f, "acme", &t), 1);
    assert_int_equal(t.running + t.waiting + t.blocks, 0);
    assert_int_equal(t.computed, 33); /* what it was served stays */

    /* one that never began */
    live_add(f->live, 9, request(5, 1, "acme"));
    live_end(f->live, 9);
    assert_int_equal(tenant(f, "acme", &t), 1);
    assert_int_equal(t.running + t.waiting, 0);
}


static uint64_t
hist(const fix_t *f, uint32_t which, uint64_t us)
{
    return llm_live_head(&f->view)->hists[which][llm_live_bucket(us)];
}


static void
test_times(void **state)
{
    fix_t *f = *state;
    uint32_t i;

    live_add(f->live, 0, request(1, 1, "a"));
    live_begin(f->live, 0, 1000 + 500);
    live_token(f->live, 0, 1000 + 2000);
    live_token(f->live, 0, 1000 + 2000);
    for (i = 1; i <= 5; i++) {
        live_token(f->live, 0, 1000 + 2000 + 90 * i);
    }
    live_end(f->live, 0);
    assert_int_equal(hist(f, LLM_LIVE_QUEUE, 500), 1);
    assert_int_equal(hist(f, LLM_LIVE_FIRST, 2000), 1);
    assert_int_equal(hist(f, LLM_LIVE_GAP, 90), 5);

    /* bounds and buckets are one thing */
    for (i = 1; i < LLM_LIVE_BUCKETS; i++) {
        assert_int_equal(llm_live_bucket(llm_live_bound(i)), i);
        assert_int_equal(llm_live_bucket(llm_live_bound(i) - 1), i - 1);
    }
    assert_int_equal(llm_live_bucket(0), 0);
    assert_int_equal(llm_live_bucket(UINT64_MAX), LLM_LIVE_BUCKETS - 1);
    assert_int_equal(llm_live_bound(0), 0);
    assert_true(llm_live_bound(LLM_LIVE_BUCKETS) > 1000000000);
}


static void
test_tenants(void **state)
{
    const live_work_t w = {LLM_LIVE_PREFILL, 1, 0, 0, 2};
    fix_t *f = *state;
    llm_live_tenant_t t, again;
    char name[32];
    uint32_t i;

    /* one more than there are rows: row 0 is never a tenant's own */
    for (i = 0; i < LLM_LIVE_TENANTS; i++) {
        snprintf(name, sizeof(name), "t%u", i);
        live_add(f->live, i, request(i + 1, 1000 + i, name));
        live_show(f->live, i, &w);
    }
    assert_int_equal(tenant(f, "t0", &t), 1);
    assert_int_equal(tenant(f, "t63", &t), 0);
    assert_int_equal(tenant(f, "", &t), 1);
    assert_int_equal(t.waiting, 1);
    assert_int_equal(t.blocks, 2);

    /* a second request of a tenant finds the same row */
    live_add(f->live, 90, request(500, 1000 + 7, "t7"));
    assert_int_equal(tenant(f, "t7", &t), 1);
    assert_int_equal(t.waiting, 2);

    /* t5 and t3 leave in this order, but t3 was the first to come */
    assert_int_equal(tenant(f, "t3", &t), 1);
    live_served(f->live, 3, 99);
    live_end(f->live, 5);
    live_end(f->live, 3);
    live_add(f->live, 3, request(501, 2000, "new"));
    assert_int_equal(tenant(f, "t3", &again), 0);
    assert_int_equal(tenant(f, "t5", &again), 1);
    assert_int_equal(tenant(f, "new", &again), 1);
    assert_int_not_equal(again.who, t.who);
    assert_int_equal(again.computed, 0);
    assert_int_equal(again.waiting, 1);

    /* t5 comes back to its own */
    live_add(f->live, 5, request(502, 1005, "t5"));
    assert_int_equal(tenant(f, "t5", &t), 1);
    assert_int_equal(t.waiting, 1);

    for (i = 0; i < LLM_LIVE_TENANTS; i++) {
        live_end(f->live, i);
    }
    live_end(f->live, 90);
    for (i = 0; i < LLM_LIVE_TENANTS; i++) {
        if (llm_live_tenant(&f->view, i, &t)) {
            assert_int_equal(t.waiting + t.running + t.blocks, 0);
        }
    }
}


/* More requests than rows are counted, not shown. */
static void
test_many(void **state)
{
    fix_t *f = *state;
    llm_live_tenant_t t;
    llm_live_row_t r;
    uint32_t i, n = 0;

    for (i = 0; i < REQS; i++) {
        live_add(f->live, i, request(i + 1, 1, "a"));
    }
    assert_int_equal(llm_live_rows(&f->view), ROWS);
    for (i = 0; i < ROWS; i++) {
        n += (uint32_t) llm_live_row(&f->view, i, &r);
    }
    assert_int_equal(n, ROWS);
    assert_int_equal(tenant(f, "a", &t), 1);
    assert_int_equal(t.waiting, REQS);
    for (i = 0; i < REQS; i++) {
        live_begin(f->live, i, 1000000);
        live_token(f->live, i, 1000000);
        live_end(f->live, i);
    }
    assert_int_equal(tenant(f, "a", &t), 1);
    assert_int_equal(t.waiting + t.running, 0);
}


static void
shows(fix_t *f, const char *name, const char *want)
{
    char text[LLM_LIVE_TEXT + 1];
    llm_live_row_t r;

    live_add(f->live, 1, request(1, 1, name));
    assert_int_equal(llm_live_row(&f->view, 1, &r), 1);
    assert_int_equal(llm_live_text(r.tenant, text), strlen(want));
    assert_string_equal(text, want);
    live_end(f->live, 1);
}


static void
test_text(void **state)
{
    fix_t *f = *state;
    char a[LLM_LIVE_TEXT + 2], want[LLM_LIVE_TEXT + 2];

    shows(f, "", "");
    shows(f, "\x1b[2J\"\n\xff", "\x1b[2J\"\n\xff");

    memset(a, 'x', sizeof(a));
    a[LLM_LIVE_TEXT] = '\0';
    shows(f, a, a);
    a[LLM_LIVE_TEXT] = 'x';
    a[LLM_LIVE_TEXT + 1] = '\0';
    memset(want, 'x', sizeof(want));
    want[LLM_LIVE_TEXT] = '\0';
    shows(f, a, want);

    /* a character of three bytes, of which two fit */
    memcpy(a + LLM_LIVE_TEXT - 2, "\xe2\x82\xac", 3);
    want[LLM_LIVE_TEXT - 2] = '\0';
    shows(f, a, want);

    /* and one that just fits */
    memset(a, 'x', sizeof(a));
    memcpy(a + LLM_LIVE_TEXT - 3, "\xe2\x82\xac", 3);
    a[LLM_LIVE_TEXT + 1] = '\0';
    memcpy(want, a, LLM_LIVE_TEXT);
    want[LLM_LIVE_TEXT] = '\0';
    shows(f, a, want);

    /* nonsense: nothing but tails */
    memset(a, 0x80, LLM_LIVE_TEXT + 1);
    a[LLM_LIVE_TEXT + 1] = '\0';
    shows(f, a, "");
}


static void
test_steps(void **state)
{
    const llm_live_step_t odd[] = {{0, 0, 0}, {12345, 512, 64},
        {0xffffff, 0xfffff, 0xfffff}, {0, 0xfffff, 0}};
    fix_t *f = *state;
    llm_live_step_t s = {UINT32_MAX, UINT32_MAX, UINT32_MAX}, got;
    uint32_t i;

    for (i = 0; i < 4; i++) {
        llm_live_step_read(llm_live_step_word(&odd[i]), &got);
        assert_memory_equal(&got, &odd[i], sizeof(got));
    }
    llm_live_step_read(llm_live_step_word(&s), &got);
    assert_memory_equal(&got, &odd[2], sizeof(got));

    for (i = 0; i < 3 * LLM_LIVE_STEPS; i++) {
        s.us = i;
        live_step(f->live, &s);
    }
    assert_int_equal(llm_live_head(&f->view)->steps, 3 * LLM_LIVE_STEPS);
    for (i = 2 * LLM_LIVE_STEPS; i < 3 * LLM_LIVE_STEPS; i++) {
        llm_live_step_read(llm_live_step_at(&f->view, i), &got);
        assert_int_equal(got.us, i);
    }
    live_target(f->live, 50000);
    assert_int_equal(llm_live_head(&f->view)->step_target_us, 50000);
}


/* Reads all that a list says yes to; the sanitizer sees each byte too far. */
static void
walk(const void *page, uint64_t size)
{
    llm_live_tenant_t t;
    llm_live_row_t r;
    llm_live_t v;
    uint32_t i;

    if (!llm_live_open(&v, page, size)) {
        return;
    }
    for (i = 0; i < llm_live_rows(&v); i++) {
        (void) llm_live_row(&v, i, &r);
        assert_non_null(llm_live_state_name(r.who));
    }
    for (i = 0; i < v.head.tenants_n; i++) {
        (void) llm_live_tenant(&v, i, &t);
    }
    (void) llm_live_step_at(&v, UINT64_MAX);
    (void) llm_live_step_at(&v, 0);
}


static void
test_hostile(void **state)
{
    fix_t *f = *state;
    const uint32_t words = offsetof(llm_live_head_t, hists) / 8;
    uint64_t *head, was, sizes[] = {0, 1, 4096, 4104, 4216, 4224, 8192, 0};
    const uint64_t odd[] = {0, 1, 7, 8, 4095, 4096, 4097, f->size - 8, f->size,
        f->size + 8, 1u << 31, UINT32_MAX, 1ull << 32, 1ull << 63,
        UINT64_MAX - 7, UINT64_MAX};
    uint32_t i, k;
    void *cut;

    live_add(f->live, 1, request(1, 1, "a"));
    head = (uint64_t *) (void *) (f->page + LLM_LIVE_AT);
    for (i = 0; i < words; i++) {
        was = head[i];
        for (k = 0; k < sizeof(odd) / sizeof(odd[0]); k++) {
            head[i] = odd[k];
            walk(f->page, f->size);
        }
        head[i] = was;
    }

    sizes[7] = f->size - 8;
    for (k = 0; k < 8; k++) {
        cut = malloc(sizes[k] > 0 ? sizes[k] : 1);
        assert_non_null(cut);
        memcpy(cut, f->page, sizes[k]);
        assert_int_equal(llm_live_open(&f->view, cut, sizes[k]), 0);
        free(cut);
    }

    /* a newer one, with more in every part; an older one, with less */
    assert_int_equal(llm_live_open(&f->view, f->page, f->size), 1);
    head[1] = offsetof(llm_live_head_t, hists);
    assert_int_equal(llm_live_open(&f->view, f->page, f->size), 1);
    head[1] = sizeof(llm_live_head_t) + 8;
    head[4] = 8;
    assert_int_equal(llm_live_open(&f->view, f->page, f->size), 1);
    walk(f->page, f->size);
    assert_string_equal(llm_live_state_name(1ull << 32 | 99), "unknown");
}


/* --- a reader beside the writer ----------------------------------------- */

typedef struct {
    fix_t *f;
    int stop;
    uint32_t seen, torn;
} reader_t;


static void *
reader(void *arg)
{
    reader_t *r = arg;
    char id[LLM_LIVE_TEXT + 1], want[32];
    llm_live_row_t row;

    while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
        if (!llm_live_row(&r->f->view, 0, &row)) {
            continue;
        }
        (void) llm_live_text(row.id, id);
        snprintf(want, sizeof(want), "id-%u", (uint32_t) (row.who >> 32));
        r->torn += strcmp(id, want) != 0 || row.prompt != row.who >> 32
                   || row.arrival_us != 1000 * (row.who >> 32);
        __atomic_store_n(&r->seen, r->seen + 1, __ATOMIC_RELAXED);
    }

    return NULL;
}


static void
test_reader(void **state)
{
    reader_t r = {.f = *state};
    uint32_t gen = 1, reads = brief() ? 2000 : 20000;
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, reader, &r), 0);
    while (__atomic_load_n(&r.seen, __ATOMIC_RELAXED) < reads) {
        live_add(r.f->live, 0, request(gen++, 1, "a"));
        live_end(r.f->live, 0);
    }
    __atomic_store_n(&r.stop, 1, __ATOMIC_RELAXED);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(r.torn, 0);
}


/* Without a page it works all the same. */
static void
test_alone(void **state)
{
    live_cfg_t c = {.reqs = 5000};
    live_t *l = live_open(&c);

    (void) state;
    assert_non_null(l);
    live_add(l, 4999, request(1, 1, "a"));
    live_end(l, 4999);
    live_close(l);
    live_close(NULL);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_row, setup, teardown),
        cmocka_unit_test_setup_teardown(test_times, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tenants, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_text, setup, teardown),
        cmocka_unit_test_setup_teardown(test_steps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader, setup, teardown),
        cmocka_unit_test(test_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
