/*
 * Tables of a size known at start: see mem.h.
 *
 * DESIGN.  Each table is its own anonymous mapping without reservation: zero
 * until touched, so sizing for the worst case costs address space only, and
 * returned whole.  The total is counted so that --inspect and the log can say
 * what the engine may use at most.  malloc is not touched: libraries use it,
 * on threads that may.  Huge pages are asked for, not needed: a system that has
 * none to lend, or is told never to, gives the usual ones.
 */
#include "mem.h"

#include <assert.h>
#include <stdint.h>
#include <sys/mman.h>

#define MEM_HEAD 64 /* bytes before a table: keeps its size, and a cache line */

static size_t mem_mapped; /* atomic */
static int mem_sealed;    /* atomic */


void *
mem_zero(size_t n, size_t size)
{
    size_t bytes;
    uint8_t *p;

    assert(!__atomic_load_n(&mem_sealed, __ATOMIC_ACQUIRE));
    assert(size > 0);

    if (__builtin_mul_overflow(n, size, &bytes)
        || __builtin_add_overflow(bytes, MEM_HEAD, &bytes)) {
        return NULL;
    }

    p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        return NULL;
    }

    *(size_t *) p = bytes;
    __atomic_fetch_add(&mem_mapped, bytes, __ATOMIC_RELAXED);

    return p + MEM_HEAD;
}


void *
mem_zero_huge(size_t n, size_t size)
{
    uint8_t *p = mem_zero(n, size);

    if (p != NULL) {
        (void) madvise(
            p - MEM_HEAD, *(size_t *) (void *) (p - MEM_HEAD), MADV_HUGEPAGE);
    }

    return p;
}


void
mem_huge(void *p, size_t bytes)
{
    uint8_t *head = (uint8_t *) p - MEM_HEAD;

    assert(bytes <= *(size_t *) (void *) head - MEM_HEAD);

    if (bytes <= MEM_HUGE_MAX) {
        (void) madvise(head, bytes + MEM_HEAD, MADV_HUGEPAGE);
    }
}


void
mem_free(void *p)
{
    uint8_t *head;
    size_t bytes;
    int rc;

    if (p == NULL) {
        return;
    }

    head = (uint8_t *) p - MEM_HEAD;
    bytes = *(size_t *) head;
    __atomic_fetch_sub(&mem_mapped, bytes, __ATOMIC_RELAXED);

    rc = munmap(head, bytes);
    assert(rc == 0);
    (void) rc;
}


size_t
mem_total(void)
{
    return __atomic_load_n(&mem_mapped, __ATOMIC_RELAXED);
}


void
mem_seal(void)
{
    __atomic_store_n(&mem_sealed, 1, __ATOMIC_RELEASE);
}
