/*
 * The request table and the rings between the engine's threads: see inner.h.
 *
 * DESIGN.  The rings are llm_ring.h over ordinary memory.  Each is sized from
 * the number of requests, by how many messages one request can have in it at
 * a time, so a producer never finds it full:
 *
 *      in_loop   1  READY
 *      in_out    2  COUNTED and FAIL
 *      out_in    1  FREE
 *      out_loop  1  VERDICT per choice
 *
 * loop_out is the exception: it has a fixed size, and the loop looks for
 * room for the whole batch before it runs a step.
 */
#include "inner.h"
#include "mem.h"

#include <assert.h>

#define INNER_LOOP_OUT (8u << 20) /* bytes */


/* The smallest ring that holds n records of size bytes, whatever the wrap. */
static uint32_t
ring_size(uint32_t n, size_t size)
{
    uint64_t need = (uint64_t) (n + 2) * llm_ring_align((uint32_t) size);
    uint32_t s = LLM_RING_MIN;

    while (s < need && s < LLM_RING_MAX) {
        s *= 2;
    }
    assert(s >= need);

    return s;
}


static int
ring_open(inner_ring_t *r, uint32_t size)
{
    uint8_t *p = mem_zero(1, sizeof(llm_ring_ctl_t) + size);

    if (p == NULL) {
        return -1;
    }

    llm_ring_init(
        &r->in, (llm_ring_ctl_t *) p, p + sizeof(llm_ring_ctl_t), size);
    llm_ring_init(
        &r->out, (llm_ring_ctl_t *) p, p + sizeof(llm_ring_ctl_t), size);

    return 0;
}


static void
ring_close(inner_ring_t *r)
{
    mem_free(r->in.ctl);
}


inner_t *
inner_open(uint32_t reqs_n, llm_state_t *state)
{
    inner_t *in;

    assert(reqs_n > 0 && state != NULL);

    in = mem_zero(1, sizeof(*in));
    if (in == NULL) {
        return NULL;
    }

    in->in_bell.fd = in->loop_bell.fd = in->out_bell.fd = -1;
    in->reqs_n = reqs_n;
    in->state = state;
    in->reqs = mem_zero(reqs_n, sizeof(req_t));

    if (in->reqs == NULL
        || ring_open(&in->in_loop, ring_size(reqs_n, sizeof(req_msg_t))) != 0
        || ring_open(&in->in_out,
               ring_size(reqs_n, sizeof(req_msg_fail_t) + sizeof(req_msg_t)))
               != 0
        || ring_open(&in->out_in, ring_size(reqs_n, sizeof(req_msg_t))) != 0
        || ring_open(&in->out_loop,
               ring_size(reqs_n * LLM_CHOICES_MAX, sizeof(req_msg_verdict_t)))
               != 0
        || ring_open(&in->loop_out, INNER_LOOP_OUT) != 0
        || bell_open(&in->in_bell) != 0 || bell_open(&in->loop_bell) != 0
        || bell_open(&in->out_bell) != 0) {
        inner_close(in);
        return NULL;
    }

    return in;
}


void
inner_close(inner_t *in)
{
    if (in == NULL) {
        return;
    }

    bell_close(&in->in_bell);
    bell_close(&in->loop_bell);
    bell_close(&in->out_bell);
    ring_close(&in->in_loop);
    ring_close(&in->in_out);
    ring_close(&in->out_in);
    ring_close(&in->out_loop);
    ring_close(&in->loop_out);
    mem_free(in->reqs);
    mem_free(in);
}
