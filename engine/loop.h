/*
 * The device thread: one turn after another of drain, plan, forward, commit,
 * push.  It owns the requests between READY and END, the KV blocks and the
 * device.  See loop.c.
 *
 * What the other threads owe it: text_in rings inner->loop_bell after a READY
 * and when a worker's doorbell came; text_out rings it after a VERDICT and
 * when it has emptied loop_out, for the loop waits for room there.
 */
#ifndef LOOP_H
#define LOOP_H

#include "forward.h"
#include "grammar_cache.h"
#include "inner.h"
#include "reason.h"
#include "record.h"
#include "sched.h"
#include "token.h"

#include <stdint.h>

typedef struct loop_s loop_t;

/* All borrowed until loop_close. */
typedef struct {
    inner_t *inner;
    forward_t *forward;
    void (*idle)(void *arg); /* called each second without a step, or NULL */
    void *idle_arg;
    const token_t *token;            /* says which tokens end a text */
    const reason_t *reason;          /* NULL: no marks of thought */
    const grammar_cache_t *grammars; /* NULL: no request has a grammar */
    uint32_t vocab;                  /* of the model */
    uint32_t jump; /* tokens of which there is no choice are not sampled */
    forward_cfg_t shape;  /* what the forward was opened with */
    uint64_t step_min_ms; /* shortest time of a step; 0: as fast as it goes */
    uint32_t cache;       /* is there a prefix cache? */
    uint64_t cache_seed;  /* nobody outside may know it */
    uint32_t host_again;  /* see kv_tier_cfg_t.again */
    uint64_t block_bytes; /* of a KV block, if there is a second tier */
    uint32_t cache_floor; /* see kv_shares */
    uint64_t cache_idle_us;
    const sched_policy_t *policy; /* NULL: the default */
    uint32_t tile;                /* of the device's products; 0: none */
    uint32_t step_target_ms;      /* see sched_cfg_t.target_us */
    uint32_t prefix_pass_ms;      /* see sched_cfg_t.pass_us */
    uint32_t class_floor;         /* see sched_cfg_t.floor */
    void *page;         /* the state page, with room for the list of requests */
    uint64_t page_size; /* 0: there is no such room, and no list */
} loop_cfg_t;

/*
 * Everything that the thread will need, and the first values of its rows in
 * the state page.  Call it before mem_seal.  shape.blocks must hold
 * shape.context tokens.  NULL when out of memory.
 */
loop_t *loop_open(const loop_cfg_t *c);

/*
 * Computes n tokens, at least a block, and keeps the full blocks of them for
 * all who begin with them; at most KV_PINS_MAX times, before the thread runs.
 * 0, or a negative llm_err.h code.
 */
int loop_pin(loop_t *l, const uint32_t *ids, uint32_t n);

/*
 * Records from now on, before the thread starts: the head that the recorder
 * must have been opened with, and then the recorder, which is borrowed until
 * the thread has been joined.
 */
void loop_record_head(const loop_t *l, record_head_t *h);
void loop_record(loop_t *l, recorder_t *rec);

/* After the thread has been joined. */
void loop_close(loop_t *l);

/*
 * The thread, for pthread_create with a loop_t.  Returns NULL when
 * inner->stop is set (ring loop_bell after setting it): what it still owns
 * then ends with DRAINING first, as after loop_kill.
 */
void *loop_run(void *loop);

/*
 * Any thread: the drain deadline has passed.  All requests that the loop owns,
 * and all that it is still handed, end with ERROR DRAINING within one turn.
 */
void loop_kill(loop_t *l);

#endif
