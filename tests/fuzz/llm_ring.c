/*
 * Would catch: either end of a ring (engine/llm_ring.h) that a peer, which
 * writes anything anywhere at any time between two calls, makes read or write
 * outside the buffer, run for ever, or give out what it has not checked.
 *
 * The input is a program for the peer: an opcode byte and its operands, each
 * call of ours being one of the opcodes.  Operands that are missing are zero.
 */
#include "llm_ring.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SIZE LLM_RING_MIN

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    const uint8_t *p;
    size_t left;
} input_t;

typedef struct {
    llm_ring_ctl_t *ctl;
    uint8_t *data; /* SIZE bytes, no more */
    llm_ring_t in;
    llm_ring_t out;
} pair_t;


static void
must(int holds)
{
    if (!holds) {
        abort();
    }
}


static uint64_t
take(input_t *in, size_t n)
{
    uint64_t v = 0;

    n = n < in->left ? n : in->left;
    memcpy(&v, in->p, n);
    in->p += n;
    in->left -= n;

    return v;
}


static void
peek(pair_t *r, uint32_t cap)
{
    const llm_ring_t was = r->out;
    llm_ring_hdr_t h;
    uint8_t *buf = malloc(cap ? cap : 1);
    int64_t n;

    if (buf == NULL) {
        return;
    }

    n = llm_ring_peek(&r->out, buf, cap);
    must(r->out.pos == was.pos && r->out.pos % LLM_RING_ALIGN == 0);
    must(r->out.peer - r->out.pos <= SIZE);
    must(r->out.next <= r->out.peer - r->out.pos);

    if (n > 0) {
        must(n <= cap && n <= llm_ring_record_max(&r->out));
        memcpy(&h, buf, sizeof(h));
        must(h.len == n && h.type != 0 && r->out.next >= n);
    } else {
        must(
            n == LLM_RING_EMPTY || n == LLM_RING_BROKEN || n == LLM_RING_SMALL);
        must((r->out.next > 0) == (n == LLM_RING_SMALL));
    }

    free(buf);
}


static void
reserve(pair_t *r, uint32_t len, uint32_t keep)
{
    const llm_ring_t was = r->in;
    uint8_t *p = llm_ring_reserve(&r->in, len, keep);

    must(r->in.pos == was.pos && r->in.peer - was.peer <= SIZE);
    must(r->in.pos - r->in.peer <= SIZE);

    if (p) {
        must(p >= r->data && (size_t) (p - r->data) + len <= SIZE);
        must(r->in.pos + r->in.next + keep - r->in.peer <= SIZE);
        memset(p + sizeof(llm_ring_hdr_t), 0x5a, len - sizeof(llm_ring_hdr_t));
    } else {
        must(r->in.next == 0);
    }
}


/* The peer's stores: into the shared words, or a record's header. */
static void
peer(pair_t *r, unsigned op, input_t *in)
{
    uint32_t at;
    uint64_t v;

    switch (op) {
    case 0:
        r->ctl->tail = take(in, 8);
        break;
    case 1:
        r->ctl->head = take(in, 8);
        break;
    case 2:
        r->ctl->tail = r->out.pos + take(in, 2);
        break;
    case 3:
        r->ctl->head = r->in.peer + take(in, 2);
        break;
    case 4:
        r->ctl->sleeps = (uint32_t) take(in, 4);
        break;
    case 5:
        v = take(in, 8);
        memcpy(r->data + (r->out.pos & (SIZE - 1)), &v, 8);
        break;
    case 6:
        v = take(in, 8);
        memcpy(r->data, &v, 8);
        break;
    default:
        at = (uint32_t) take(in, 2) % (SIZE - 7);
        v = take(in, 8);
        memcpy(r->data + at, &v, 8);
    }
}


/* Our own calls. */
static void
call(pair_t *r, unsigned op, input_t *in)
{
    uint32_t len;

    switch (op) {
    case 0:
    case 1:
        peek(r, SIZE);
        break;
    case 2:
        peek(r, (uint32_t) take(in, 2) % (SIZE + 1));
        break;
    case 3:
        llm_ring_advance(&r->out);
        must(r->out.peer - r->out.pos <= SIZE);
        break;
    case 4:
        (void) llm_ring_may_sleep(&r->out);
        break;
    case 5:
        len = (uint32_t) take(in, 4);
        reserve(r, len, (uint32_t) take(in, 4));
        break;
    case 6:
        reserve(r, (uint32_t) take(in, 2), 0);
        break;
    default:
        llm_ring_commit(&r->in);
        (void) llm_ring_must_wake(&r->in);
        must(r->in.pos - r->in.peer <= SIZE);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input_t in = {data, size};
    pair_t r;
    unsigned op;

    r.ctl = calloc(1, sizeof(*r.ctl));
    r.data = calloc(1, SIZE);
    if (r.ctl == NULL || r.data == NULL) {
        goto done;
    }

    llm_ring_init(&r.in, r.ctl, r.data, SIZE);
    llm_ring_init(&r.out, r.ctl, r.data, SIZE);

    /* where both start: indices are free running */
    r.in.pos = r.in.peer = r.out.pos = r.out.peer = take(&in, 8) & ~7ull;
    r.ctl->head = r.ctl->tail = r.in.pos;

    while (in.left > 0) {
        op = (unsigned) take(&in, 1);
        if (op & 8) {
            call(&r, op & 7, &in);
        } else {
            peer(&r, op & 7, &in);
        }
    }

done:
    free(r.ctl);
    free(r.data);

    return 0;
}
