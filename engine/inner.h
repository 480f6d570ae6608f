/*
 * The engine's insides as the three threads see them: the request table, the
 * rings between the threads and their bells.  Built by main.c, owned by it.
 * Each ring has a fixed producing and a fixed consuming thread; the views are
 * private to those two.
 */
#ifndef INNER_H
#define INNER_H

#include "bell.h"
#include "llm_ring.h"
#include "llm_wire.h"
#include "req.h"

#include <stdint.h>

/* Both ends of one inner ring. */
typedef struct {
    llm_ring_t in;  /* the producer's view */
    llm_ring_t out; /* the consumer's view */
} inner_ring_t;

typedef struct {
    req_t *reqs; /* [reqs_n] */
    uint32_t reqs_n;
    inner_ring_t in_loop;                /* READY */
    inner_ring_t in_out;                 /* COUNTED, FAIL */
    inner_ring_t loop_out;               /* TOKEN, END */
    inner_ring_t out_loop;               /* VERDICT */
    inner_ring_t out_in;                 /* FREE */
    bell_t in_bell, loop_bell, out_bell; /* wake text_in, loop, text_out */
    llm_state_t *state;                  /* the state page, mapped writable */
    uint32_t stop;     /* atomic: threads end when it is set and all is done */
    uint32_t draining; /* atomic: no new requests */
} inner_t;

/*
 * Allocates table, rings and bells for reqs_n requests.  Rings are sized so
 * that in_loop, in_out, out_in and out_loop can never be full (each request
 * has at most a known number of messages in each); loop_out can, and the loop
 * looks before it runs a step.  NULL when out of memory.
 */
inner_t *inner_open(uint32_t reqs_n, llm_state_t *state);
void inner_close(inner_t *in);

#endif
