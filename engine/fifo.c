/*
 * Byte queues over a pool of chunks: see fifo.h.
 *
 * DESIGN.  A buffer per request, sized for the worst that one request may
 * hold, would be touched in as many places as there are requests and never
 * shrink again.  Chunks are shared, and the one freed last is used first, so
 * the memory that is touched is the most that was ever held at a time.
 *
 *      q: head ─> [ ..from######] ─> [##########] ─> [####to....] <─ tail
 *
 * A queue without bytes has no chunk.  One thread uses a pool.
 */
#include "fifo.h"
#include "mem.h"

#include <assert.h>
#include <string.h>

#define DATA ((uint32_t) sizeof(((fifo_chunk_t *) 0)->data))

_Static_assert(sizeof(fifo_chunk_t) == FIFO_CHUNK, "no padding");


int
fifo_pool_open(fifo_pool_t *p, uint64_t bytes)
{
    uint64_t n = bytes / DATA + 1;

    memset(p, 0, sizeof(*p));
    if (n >= UINT32_MAX) {
        return -1;
    }

    p->n = (uint32_t) n;
    p->chunks = mem_zero(p->n, sizeof(*p->chunks));

    return p->chunks == NULL ? -1 : 0;
}


void
fifo_pool_close(fifo_pool_t *p)
{
    mem_free(p->chunks);
    p->chunks = NULL;
}


static fifo_chunk_t *
chunk(const fifo_pool_t *p, uint32_t c)
{
    assert(c > 0 && c <= p->n);

    return &p->chunks[c - 1];
}


/* A chunk; the caller has seen that there is one. */
static uint32_t
chunk_get(fifo_pool_t *p)
{
    uint32_t c = p->free;

    assert(p->used < p->n);

    if (c != 0) {
        p->free = chunk(p, c)->next;
    } else {
        c = ++p->fresh;
    }

    chunk(p, c)->next = 0;
    p->used++;

    return c;
}


static void
chunk_put(fifo_pool_t *p, uint32_t c)
{
    assert(p->used > 0);

    chunk(p, c)->next = p->free;
    p->free = c;
    p->used--;
}


int
fifo_put(fifo_pool_t *p, fifo_t *q, const void *src, size_t n)
{
    const uint8_t *s = src;
    size_t room = q->tail == 0 ? 0 : DATA - q->to;
    uint32_t c, part;

    if (n > room && (n - room + DATA - 1) / DATA > p->n - p->used) {
        return -1;
    }

    q->len += n;

    while (n > 0) {
        if (q->tail == 0 || q->to == DATA) {
            c = chunk_get(p);
            if (q->tail == 0) {
                q->head = c;
                q->from = 0;
            } else {
                chunk(p, q->tail)->next = c;
            }
            q->tail = c;
            q->to = 0;
        }

        part = n < DATA - q->to ? (uint32_t) n : DATA - q->to;
        memcpy(chunk(p, q->tail)->data + q->to, s, part);
        q->to += part;
        s += part;
        n -= part;
    }

    return 0;
}


void
fifo_copy(const fifo_pool_t *p, const fifo_t *q, size_t at, void *dst, size_t n)
{
    uint8_t *d = dst;
    const fifo_chunk_t *c;
    uint32_t i = q->head;
    size_t off = q->from + at, part;

    assert(at <= q->len && n <= q->len - at);

    while (n > 0) {
        c = chunk(p, i);
        if (off < DATA) {
            part = n < DATA - off ? n : DATA - off;
            memcpy(d, c->data + off, part);
            d += part;
            n -= part;
            off += part;
        }
        off -= DATA;
        i = c->next;
    }
}


void
fifo_drop(fifo_pool_t *p, fifo_t *q, size_t n)
{
    uint32_t c, part;

    assert(n <= q->len);

    if (n == q->len) {
        fifo_clear(p, q);
        return;
    }

    q->len -= n;

    while (n > 0) {
        part = n < DATA - q->from ? (uint32_t) n : DATA - q->from;
        q->from += part;
        n -= part;
        if (q->from == DATA) {
            c = q->head;
            q->head = chunk(p, c)->next;
            q->from = 0;
            chunk_put(p, c);
        }
    }

    assert(q->head != 0);
}


void
fifo_clear(fifo_pool_t *p, fifo_t *q)
{
    uint32_t c, next;

    for (c = q->head; c != 0; c = next) {
        next = chunk(p, c)->next;
        chunk_put(p, c);
    }

    memset(q, 0, sizeof(*q));
}
