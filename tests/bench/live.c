/*
 * What it costs the loop to show requests to others: nanoseconds for all that
 * is written of one request in a step, at batches of several sizes, and of its
 * arrival and end.
 */
#include "live.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REQS = 4000, STEPS = 20000 };


static double
now_ns(void)
{
    struct timespec ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double) ts.tv_sec * 1e9 + (double) ts.tv_nsec;
}


/* One request in each of steps steps of rows; ns a row. */
static double
steps(live_t *l, uint32_t rows)
{
    uint32_t n = STEPS / rows + 1, k, i;
    const llm_live_step_t s = {12000, 0, rows};
    live_work_t w = {LLM_LIVE_DECODE, 100, 10, 0, 8};
    double start = now_ns();

    for (k = 0; k < n; k++) {
        live_step(l, &s);
        for (i = 0; i < rows; i++) {
            w.computed++;
            w.sampled++;
            w.blocks = 8 + (k >> 4);
            live_served(l, i, 1);
            live_token(l, i, 1000000 + 12000 * (uint64_t) k);
            live_show(l, i, &w);
        }
    }

    return (now_ns() - start) / n / rows;
}


int
main(void)
{
    static const uint32_t sizes[] = {1, 16, 64, 256, 1024, 4000};
    live_cfg_t c = {.reqs = REQS, .batch_tokens = 512, .batch_rows = 64};
    double start;
    live_t *l;
    uint32_t i;
    req_t r;

    l = live_open(&c);
    if (l == NULL) {
        return 1;
    }

    memset(&r, 0, sizeof(r));
    r.weight = r.choices = 1;
    start = now_ns();
    for (i = 0; i < REQS; i++) {
        r.gen = i + 1;
        r.tenant = i % 100; /* more than there are rows */
        snprintf(r.id, sizeof(r.id), "request-%u", i);
        snprintf(r.tenant_name, sizeof(r.tenant_name), "tenant-%u", r.tenant);
        live_add(l, i, &r);
        live_begin(l, i, 1);
    }
    printf("arrival, 100 tenants     %6.0f ns\n", (now_ns() - start) / REQS);

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        printf(
            "a row of a step of %4u  %6.1f ns\n", sizes[i], steps(l, sizes[i]));
    }

    start = now_ns();
    for (i = 0; i < REQS; i++) {
        live_end(l, i);
    }
    printf("end                      %6.0f ns\n", (now_ns() - start) / REQS);
    live_close(l);

    return 0;
}
