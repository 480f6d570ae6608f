/*
 * Cost models: how long a step takes.  Their figures are of the model; what
 * was measured and what was computed is said with each.
 */
#ifndef COST_H
#define COST_H

#include "batch.h"

typedef struct {
    double us, tokens;
} cost_point_t;

enum { COST_POINTS = 12 };

/*
 * A step of n tokens takes
 *
 *      base + linear(n) + out_us * outputs
 *           + sum over rows of one token of   read_us * kv_len
 *           + sum over longer rows of         attn_us * q_len * mean kv_len
 *
 * linear goes through points and on in the direction of the last two; below
 * the first it is flat, for the weights are read anyway.
 */
typedef struct {
    const char *name;
    double base_us;
    double read_us; /* per token of context of a row of one token */
    double attn_us; /* per pair of positions of a longer row */
    double out_us;  /* per output: what its logits cost; 0: as linear has it */
    int points_n;
    cost_point_t points[COST_POINTS];
} cost_t;

double cost_us(const cost_t *c, const batch_t *b);

/* The parts of it: all tokens of a step, and one row's attention. */
double cost_linear_us(const cost_t *c, double tokens);
double cost_row_us(const cost_t *c, const batch_row_t *row);

/* Two pieces: free up to knee tokens, token_us for each one more. */
cost_t cost_two(double base_us, double knee, double token_us, double kv_us);

/*
 * Llama-3-8B (as good as Mistral-7B) on one A100: the linear part measured
 * (public profile of one layer, 32 layers), attention computed from flops and
 * bytes a second, base the host's share of each step.
 */
cost_t cost_a100(double base_us, double tflops, double tbytes);

/* The same model on an H200: roofline only, nothing measured. */
cost_t cost_h200(double base_us);

/* Llama-2-7B on an A10G: roofline only, nothing measured. */
cost_t cost_a10g(double base_us);

/*
 * A model of Qwen2.5-0.5B's shape on two cores, as tests/bench/real.sh cost
 * measured it: COST_CPU, whose head tells machine and error.  Exits with a
 * sentence when the file is not there: run from the tree's root.
 */
#define COST_CPU "tests/sim/cpu.cost"
cost_t cost_cpu(void);

/*
 * A model whose figures are in a file, "name value" a line: base_us, read_us,
 * attn_us, out_us, and `point TOKENS US` in rising order.  0, or -1 with a
 * sentence on stderr.  For what was measured of a back end of our own.
 */
int cost_file(cost_t *c, const char *path);

/*
 * What the tables loop over: a machine with its memory for keys and values,
 * and the length of a decode iteration of 32 sequences at 4,096 tokens, of
 * which Sarathi's objectives are multiples.
 */
typedef struct {
    const char *name;
    cost_t cost;
    uint32_t blocks; /* of 16 tokens */
    double iter_us;
} cost_setting_t;

#define COST_SETTINGS_MAX 8

/* Fills in the settings, the reference first; how many there are. */
uint32_t cost_settings(cost_setting_t v[COST_SETTINGS_MAX]);

/* An objective of Sarathi's: 5 iterations (strict) or 25 (relaxed). */
uint32_t cost_slo_us(const cost_setting_t *c, int relaxed);

#endif
