/*
 * Many byte queues that share one pool of chunks, allocated at start: none of
 * them has a size of its own, all of them together have one.
 */
#ifndef FIFO_H
#define FIFO_H

#include <stddef.h>
#include <stdint.h>

#define FIFO_CHUNK 1024 /* bytes, the link included */

typedef struct {
    uint32_t next; /* index + 1, 0 is none */
    uint8_t data[FIFO_CHUNK - 4];
} fifo_chunk_t;

typedef struct {
    fifo_chunk_t *chunks; /* [n], owned */
    uint32_t n;
    uint32_t fresh; /* chunks from here on were never used */
    uint32_t free;  /* list of used ones, index + 1 */
    uint32_t used;  /* chunks in queues */
} fifo_pool_t;

/* A queue. All zero is empty. */
typedef struct {
    uint32_t head, tail; /* chunks, index + 1; 0: empty */
    uint32_t from;       /* first byte in head */
    uint32_t to;         /* first free byte in tail */
    size_t len;
} fifo_t;

/* Memory for at least bytes bytes. 0, or -1 when there is none. */
int fifo_pool_open(fifo_pool_t *p, uint64_t bytes);
void fifo_pool_close(fifo_pool_t *p);

/* Appends n bytes, or none of them: 0, or -1 when the pool is used up. */
int fifo_put(fifo_pool_t *p, fifo_t *q, const void *src, size_t n);

/* Copies n bytes from offset at, which must be there, without taking them. */
void fifo_copy(
    const fifo_pool_t *p, const fifo_t *q, size_t at, void *dst, size_t n);

/* Takes away the first n bytes, which must be there. */
void fifo_drop(fifo_pool_t *p, fifo_t *q, size_t n);

/* Takes away all. */
void fifo_clear(fifo_pool_t *p, fifo_t *q);

#endif
