/*
 * A load: requests with their lengths, tenants and times of arrival.
 *
 * Lengths come from a trace (trace.h); times from the trace too, or from one
 * of the processes here.
 */
#ifndef LOAD_H
#define LOAD_H

#include "rnd.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t at_us;
    uint32_t prompt, output; /* tokens, >= 1 */
    uint32_t tenant, priority, weight;
    uint32_t choices;        /* of output tokens each */
    uint32_t hash, hashes_n; /* its prefix blocks, hashes[hash ...) */
} load_req_t;

typedef struct {
    load_req_t *v; /* owned */
    size_t n, cap;
    uint32_t *hashes; /* owned; of LOAD_HASH_TOKENS prompt tokens each */
    size_t hashes_n, hashes_cap;
} load_t;

#define LOAD_HASH_TOKENS 512 /* of a prefix block in the Mooncake trace */

/* Appends a request with weight and choices 1, the rest 0; valid until the
 * next one. */
load_req_t *load_add(load_t *l, uint32_t prompt, uint32_t output);

/* Appends a prefix block to the request added last. */
void load_hash(load_t *l, uint32_t hash);

void load_free(load_t *l);

/*
 * Appends n requests whose lengths are drawn from those in from, each at most
 * total_max tokens together.  Drawn without putting back while there are any.
 */
void load_draw(
    load_t *l, const load_t *from, size_t n, uint32_t total_max, rnd_t *r);

/*
 * Appends n requests as they follow each other in from, with their prefix
 * blocks and times; those longer than that are left out.  Which ones, the seed
 * says: it is where to begin.  Fewer if there are no more.
 */
void load_follow(
    load_t *l, const load_t *from, size_t n, uint32_t total_max, rnd_t *r);

/* Stretches the recorded times so that their mean rate is that. */
void load_stretch(load_t *l, double rate);

/*
 * Sets the times of arrival of requests [first, n): rate a second, gaps with
 * that coefficient of variation; 1 is a Poisson process, more is bursty.
 */
void load_arrive(load_t *l, size_t first, double rate, double cv, rnd_t *r);

/* By time of arrival, equal ones as they stand. */
void load_sort(load_t *l);

#endif
