/*
 * A byte ring for one producer and one consumer, in memory that the two may
 * share across processes.
 *
 * DESIGN.  Two free-running 64-bit indices count bytes, tail those committed
 * and head those consumed; each lies on its own cache line and has one writer
 * for life.  A record is 8-byte aligned, opens with its length, and never
 * wraps: where it does not fit before the end of the buffer, a skip record
 * fills the rest.  Each side keeps its own index private and only publishes
 * it: what the other process writes over it is never read back.  The peer's
 * index is input.  It is checked with `if` each time it is read, and a record
 * is copied out once and judged by the copy, so the peer cannot change it
 * between check and use.
 *
 *      0        head                tail           size
 *      |--free--|##rec##|####rec####|-----free-----|      tail - head <= size
 *
 * ORDERING.
 * 1. Producer: record bytes, then tail with release.  Consumer: tail with
 *    acquire, then bytes.  So what is seen committed is seen whole.
 * 2. Consumer: bytes, then head with release.  Producer: head with acquire,
 *    then overwrites.  So nothing is overwritten before it was read.
 * 3. Sleeping.  The consumer exchanges 1 into sleeps, then looks at tail once
 *    more; the producer stores tail, then exchanges 0 into sleeps and rings
 *    the doorbell if it got 1.  The word is changed by read-modify-writes
 *    only, so of the two one is first: if the producer's is first, the
 *    consumer's reads what it left and with it sees the tail stored before;
 *    if the consumer's is first, the producer gets the 1 and rings.  No
 *    fence, no lost wake-up.
 *    tests/spin/ holds the model, and what happens without the exchange.
 *
 * Used between nginx worker and engine (SUBMIT, EVENT) and between the
 * engine's own threads.  The functions take no lock, allocate nothing and
 * make no system call.
 */
#ifndef LLM_RING_H
#define LLM_RING_H

#include <stdint.h>
#include <string.h>

#define LLM_RING_LINE  64 /* cache line, bytes */
#define LLM_RING_ALIGN 8  /* records start at multiples of this */
#define LLM_RING_MIN   4096u
#define LLM_RING_MAX   (1u << 30)

/* A record's first 8 bytes. len counts them and the body, not the padding. */
typedef struct {
    uint32_t len;
    uint16_t type; /* 0 is the ring's own: skip to the end of the buffer */
    uint16_t flags;
} llm_ring_hdr_t;

_Static_assert(sizeof(llm_ring_hdr_t) == LLM_RING_ALIGN, "header is one unit");

/* The shared words. All zero is an empty ring whose consumer is awake. */
typedef struct {
    uint64_t tail; /* written by the producer */
    uint8_t pad0[LLM_RING_LINE - 8];
    uint64_t head; /* written by the consumer */
    uint8_t pad1[LLM_RING_LINE - 8];
    uint32_t sleeps; /* exchanged by both */
    uint8_t pad2[LLM_RING_LINE - 4];
} llm_ring_ctl_t;

_Static_assert(sizeof(llm_ring_ctl_t) == 3 * LLM_RING_LINE, "three lines");

/* One side's private view. ctl and data are borrowed from the mapping. */
typedef struct {
    llm_ring_ctl_t *ctl;
    uint8_t *data;
    uint32_t size; /* bytes, a power of two */
    uint32_t next; /* producer: bytes reserved; consumer: bytes peeked */
    uint64_t pos;  /* own index */
    uint64_t peer; /* the other's index as last seen, always plausible */
} llm_ring_t;

enum { LLM_RING_EMPTY = 0, LLM_RING_BROKEN = -1, LLM_RING_SMALL = -2 };


static inline uint32_t
llm_ring_align(uint32_t len)
{
    return (len + LLM_RING_ALIGN - 1) & ~(uint32_t) (LLM_RING_ALIGN - 1);
}


/* Is size one that a ring may have? (It may come from the other process.) */
static inline int
llm_ring_size_ok(uint64_t size)
{
    return size >= LLM_RING_MIN && size <= LLM_RING_MAX
           && (size & (size - 1)) == 0;
}


/*
 * A view of an empty ring at both indices zero.  size must be llm_ring_size_ok
 * and data hold that many bytes, aligned to LLM_RING_ALIGN.
 */
static inline void
llm_ring_init(llm_ring_t *r, llm_ring_ctl_t *ctl, void *data, uint32_t size)
{
    memset(r, 0, sizeof(*r));
    r->ctl = ctl;
    r->data = (uint8_t *) data;
    r->size = size;
}


/* The longest record the ring can ever take. */
static inline uint32_t
llm_ring_record_max(const llm_ring_t *r)
{
    return r->size / 2;
}


/*
 * Producer: room for a record of len bytes (header included), leaving at
 * least keep bytes free behind it for records that must never fail.  NULL if
 * there is no room or len is more than llm_ring_record_max().  The room is
 * unpublished until llm_ring_commit(); reserving again without it starts
 * over.  Fill in type (not 0) and body, and never read them back: the peer
 * can write there.
 */
static inline void *
llm_ring_reserve(llm_ring_t *r, uint32_t len, uint32_t keep)
{
    uint32_t off, skip, need;
    uint64_t head, want;
    llm_ring_hdr_t *h;

    r->next = 0;

    if (len < sizeof(llm_ring_hdr_t) || len > llm_ring_record_max(r)) {
        return NULL;
    }

    need = llm_ring_align(len);
    off = (uint32_t) (r->pos & (r->size - 1));
    skip = r->size - off < need ? r->size - off : 0;
    want = (uint64_t) skip + need + keep;

    if (r->pos - r->peer + want > r->size) {
        /*
         * Read once, so that no peer can keep us here; its index may only
         * grow, and never past ours.
         */
        head = __atomic_load_n(&r->ctl->head, __ATOMIC_ACQUIRE);
        if (head - r->peer > r->pos - r->peer) {
            return NULL;
        }
        r->peer = head;

        if (r->pos - head + want > r->size) {
            return NULL;
        }
    }

    if (skip) {
        h = (llm_ring_hdr_t *) (void *) (r->data + off);
        h->len = skip;
        h->type = 0;
        h->flags = 0;
        off = 0;
    }

    r->next = skip + need;
    h = (llm_ring_hdr_t *) (void *) (r->data + off);
    h->len = len;
    h->type = 0;
    h->flags = 0;

    return h;
}


/* Producer: publishes what was reserved. Does not wake: llm_ring_must_wake. */
static inline void
llm_ring_commit(llm_ring_t *r)
{
    r->pos += r->next;
    r->next = 0;
    __atomic_store_n(&r->ctl->tail, r->pos, __ATOMIC_RELEASE);
}


/*
 * Producer, once per turn after its commits: must the doorbell be rung?  The
 * exchange is the producer's half of ordering rule 3.
 */
static inline int
llm_ring_must_wake(llm_ring_t *r)
{
    return __atomic_exchange_n(&r->ctl->sleeps, 0, __ATOMIC_SEQ_CST) != 0;
}


/*
 * Consumer: one read of the header at p.  The signal fence keeps the compiler
 * from reading the shared bytes a second time behind the check; it is no
 * instruction.
 */
static inline llm_ring_hdr_t
llm_ring_hdr(const uint8_t *p)
{
    llm_ring_hdr_t h;

    memcpy(&h, p, sizeof(h));
    __atomic_signal_fence(__ATOMIC_SEQ_CST);

    return h;
}


/*
 * Consumer: copies the next record into buf of cap bytes, header first.
 * Returns its length, LLM_RING_EMPTY, LLM_RING_BROKEN when the peer wrote
 * nonsense (detach: the ring is lost), or LLM_RING_SMALL when the record is
 * sound but longer than cap.  llm_ring_advance() then consumes it; until then
 * the same record is peeked again.  len in the copy is the length returned.
 * There is no loop in here, whatever the peer writes.
 */
static inline int64_t
llm_ring_peek(llm_ring_t *r, void *buf, uint32_t cap)
{
    uint32_t off, left, room, skip;
    uint64_t tail;
    llm_ring_hdr_t h;

    r->next = 0;

    if (r->peer == r->pos) {
        tail = __atomic_load_n(&r->ctl->tail, __ATOMIC_ACQUIRE);
        if (tail == r->pos) {
            return LLM_RING_EMPTY;
        }
        /* one that went back is as far off as one that is too far */
        if (tail - r->pos > r->size || tail % LLM_RING_ALIGN != 0) {
            return LLM_RING_BROKEN;
        }
        r->peer = tail;
    }

    left = (uint32_t) (r->peer - r->pos);
    off = (uint32_t) (r->pos & (r->size - 1));
    skip = 0;
    h = llm_ring_hdr(r->data + off);

    if (h.type == 0) {
        /*
         * A skip fills the buffer to its end exactly and is committed in one
         * with the record behind it, so never alone, and never two in a row.
         */
        skip = r->size - off;
        if (h.len != skip || skip >= left) {
            return LLM_RING_BROKEN;
        }
        off = 0;
        left -= skip;
        h = llm_ring_hdr(r->data);
    }

    room = r->size - off < left ? r->size - off : left;

    if (h.type == 0 || h.len < sizeof(h) || h.len > room
        || h.len > llm_ring_record_max(r)) {
        return LLM_RING_BROKEN;
    }

    r->next = skip + llm_ring_align(h.len);

    if (h.len > cap) {
        return LLM_RING_SMALL;
    }

    memcpy(buf, r->data + off, h.len);
    memcpy(buf, &h, sizeof(h)); /* the header that was judged */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);

    return h.len;
}


/* Consumer: consumes the record peeked last; no effect without one. */
static inline void
llm_ring_advance(llm_ring_t *r)
{
    r->pos += r->next;
    r->next = 0;
    __atomic_store_n(&r->ctl->head, r->pos, __ATOMIC_RELEASE);
}


/*
 * Consumer: says that it is about to sleep.  Returns 1 if it may, 0 if a
 * record came in the meantime.  The exchange is rule 3's other half.  A peer
 * that writes nonsense can have it return 0 each time: bound the tries.
 *
 * Where the doorbell is a byte in a socket, take the bytes out before this
 * call, never between it and the sleep: they may be the last ones.
 */
static inline int
llm_ring_may_sleep(llm_ring_t *r)
{
    uint64_t tail;

    (void) __atomic_exchange_n(&r->ctl->sleeps, 1, __ATOMIC_SEQ_CST);
    tail = __atomic_load_n(&r->ctl->tail, __ATOMIC_ACQUIRE);

    if (tail == r->pos) {
        return 1;
    }

    /*
     * Taken back by an exchange too: a plain store would come between the
     * producer's exchange and our next one, which then would not read what
     * the producer left, and rule 3 would not follow from the C11 model.
     */
    (void) __atomic_exchange_n(&r->ctl->sleeps, 0, __ATOMIC_SEQ_CST);

    return 0;
}

#endif
