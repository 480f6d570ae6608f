/*
 * Cost models of a step: see cost.h.
 */
#include "cost.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

double
cost_linear_us(const cost_t *c, double tokens)
{
    const cost_point_t *p = c->points;
    int i = 0;

    assert(c->points_n >= 2);

    if (tokens <= p[0].tokens) {
        return p[0].us;
    }
    while (i < c->points_n - 2 && tokens > p[i + 1].tokens) {
        i++;
    }

    return p[i].us
           + (tokens - p[i].tokens) * (p[i + 1].us - p[i].us)
                 / (p[i + 1].tokens - p[i].tokens);
}


double
cost_row_us(const cost_t *c, const batch_row_t *row)
{
    if (row->q_len == 1) {
        return c->read_us * row->kv_len;
    }

    return c->attn_us * row->q_len * (row->q_start + row->q_len / 2.0);
}


double
cost_us(const cost_t *c, const batch_t *b)
{
    double us =
        c->base_us + cost_linear_us(c, b->tokens_n) + c->out_us * b->outs_n;
    uint32_t k;

    for (k = 0; k < b->rows_n; k++) {
        us += cost_row_us(c, &b->rows[k]);
    }

    return us;
}


cost_t
cost_two(double base_us, double knee, double token_us, double kv_us)
{
    cost_t c = {"two pieces", base_us, kv_us, kv_us / 8, 0, 2,
        {{0, knee}, {token_us * 1000, knee + 1000}}};

    return c;
}


/* Keys and values of one token of the 8B models, bytes; layers, width. */
#define KV_8B    131072.0
#define LAYERS   32
#define ATTN_DIM 4096


cost_t
cost_a100(double base_us, double tflops, double tbytes)
{
    /* 264 and 520 tokens are one tile more than 256 and 512 */
    cost_t c = {"A100, Llama-3-8B, measured linear part", base_us,
        KV_8B / (tbytes * 1e6), 4.0 * ATTN_DIM * LAYERS / (tflops * 1e6), 0, 8,
        {{10900, 32}, {13200, 128}, {19500, 256}, {26500, 264}, {34600, 512},
            {38750, 520}, {75000, 1024}, {146000, 2048}}};

    return c;
}


/*
 * Weights of `params` values in two bytes are read once, or two operations
 * are done with each for every token, whichever takes longer.
 */
static cost_t
roofline(const char *name, double base_us, double params, double tflops,
    double tbytes, double kv_bytes)
{
    double read = params * 2 / (tbytes * 1e6);
    double token = params * 2 / (tflops * 1e6);
    cost_t c = {name, base_us, kv_bytes / (tbytes * 1e6),
        4.0 * ATTN_DIM * LAYERS / (tflops * 1e6), 0, 2,
        {{read, read / token}, {read + 1000 * token, read / token + 1000}}};

    return c;
}


cost_t
cost_h200(double base_us)
{
    /* of 989 TFLOP/s and 4.8 TB/s */
    return roofline("H200, 8B, analytic roofline at 70 % and 85 %", base_us,
        8.03e9, 989 * 0.70, 4.8 * 0.85, KV_8B);
}


cost_t
cost_a10g(double base_us)
{
    /* of 125 TFLOP/s and 0.6 TB/s; no grouped queries: four times the KV */
    return roofline("A10G, Llama-2-7B, analytic roofline at 60 % and 85 %",
        base_us, 6.74e9, 125 * 0.60, 0.6 * 0.85, 4 * KV_8B);
}


int
cost_file(cost_t *c, const char *path)
{
    char line[256], name[32];
    double v, w;
    FILE *f = fopen(path, "r");
    int n, ok = f != NULL;

    memset(c, 0, sizeof(*c));
    c->name = "from a file";

    while (ok && fgets(line, sizeof(line), f) != NULL) {
        n = sscanf(line, "%31s %lf %lf", name, &v, &w);
        if (n < 1 || name[0] == '#') {
            continue;
        }
        if (n == 3 && strcmp(name, "point") == 0 && c->points_n < COST_POINTS
            && v >= 0 && w >= 0
            && (c->points_n == 0 || v > c->points[c->points_n - 1].tokens)) {
            c->points[c->points_n].tokens = v;
            c->points[c->points_n++].us = w;
        } else if (n == 2 && v >= 0 && strcmp(name, "base_us") == 0) {
            c->base_us = v;
        } else if (n == 2 && v >= 0 && strcmp(name, "read_us") == 0) {
            c->read_us = v;
        } else if (n == 2 && v >= 0 && strcmp(name, "attn_us") == 0) {
            c->attn_us = v;
        } else if (n == 2 && v >= 0 && strcmp(name, "out_us") == 0) {
            c->out_us = v;
        } else {
            ok = 0;
        }
    }
    if (f != NULL) {
        (void) fclose(f);
    }
    if (!ok || c->points_n < 2) {
        fprintf(stderr,
            "%s: no cost model: base_us, read_us, attn_us, "
            "two or more points\n",
            path);
        return -1;
    }

    return 0;
}


/* --- settings ----------------------------------------------------------- */

/* 3 ms on the host for each step. */
static cost_t
usual_a100(void)
{
    return cost_a100(3000, 130, 1.5);
}


static cost_t
usual_h200(void)
{
    return cost_h200(2000);
}


/* A machine that is measured or computed gets a line. */
static const struct {
    const char *name;
    cost_t (*make)(void);
    uint32_t blocks;
    uint32_t iter_us; /* 0: what the model says */
    const char *file; /* without it there is none; NULL: needs no file */
} machines[] = {
    {"A100", usual_a100, 25000, 20000, NULL}, /* as the paper has it */
    {"H200", usual_h200, 50000, 0, NULL},
    {"CPU", cost_cpu, 25000, 0, COST_CPU}, /* 5 GB of 12 KiB a token */
};

#define MACHINES (sizeof(machines) / sizeof(machines[0]))

_Static_assert(MACHINES <= COST_SETTINGS_MAX, "room for all machines");


static double
iteration_us(const cost_t *c)
{
    return c->base_us + cost_linear_us(c, 32) + 32 * c->out_us
           + 32 * 4096 * c->read_us;
}


uint32_t
cost_settings(cost_setting_t v[COST_SETTINGS_MAX])
{
    uint32_t i, n = 0;

    for (i = 0; i < MACHINES; i++) {
        if (machines[i].file != NULL && access(machines[i].file, R_OK) != 0) {
            continue;
        }
        v[n].name = machines[i].name;
        v[n].cost = machines[i].make();
        v[n].blocks = machines[i].blocks;
        v[n].iter_us = machines[i].iter_us > 0 ? machines[i].iter_us
                                               : iteration_us(&v[n].cost);
        n++;
    }

    return n;
}


uint32_t
cost_slo_us(const cost_setting_t *c, int relaxed)
{
    assert(c->iter_us > 0);

    return (uint32_t) (c->iter_us * (relaxed ? 25 : 5));
}
