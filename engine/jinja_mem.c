/*
 * Memory, failure and limits of a compilation or a rendering.
 *
 * DESIGN.  An arena of chunks that double in size up to CHUNK_MAX, so that a
 * short rendering costs one malloc and a long one few.  Nothing is freed
 * before the whole is: a rendering lasts microseconds, and what a template
 * could waste is bounded by the arena's limit.
 *
 * A failure is a longjmp: an interpreter that checks a code after each of its
 * steps would be twice as long, and no step owns anything.  Steps are counted
 * and compared with one number, `look`, which is the nearer of the limit and
 * the next time to ask whether the result is still wanted.
 *
 * Thread: whichever compiles or renders; a context belongs to one.
 */
#include "jinja_impl.h"
#include "llm_err.h"
#include "utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define CHUNK_MIN  ((size_t) 16 << 10)
#define CHUNK_MAX  ((size_t) 1 << 20)
#define LOOK_EVERY 4096 /* steps between two questions for cancellation */

struct jchunk_s {
    jchunk_t *next;
    size_t size; /* with this head */
};

_Static_assert(sizeof(jchunk_t) % 8 == 0, "what follows is aligned");


/* A chunk with room for n bytes. */
static void
mem_grow(jctx_t *c, size_t n)
{
    jmem_t *m = &c->mem;
    size_t size = m->chunks == NULL ? CHUNK_MIN : m->chunks->size * 2;
    jchunk_t *k;

    if (size > CHUNK_MAX) {
        size = CHUNK_MAX;
    }
    if (size < n + sizeof(*k)) {
        size = n + sizeof(*k);
    }

    if (size > m->max - m->used) {
        jinja_fail(
            c, "The template takes more than %zu MB of memory.", m->max >> 20);
    }

    k = malloc(size);
    if (k == NULL) {
        jinja_fail_as(c, -LLM_ERR_NO_MEMORY, "Out of memory.", 14);
    }

    k->next = m->chunks;
    k->size = size;
    m->chunks = k;
    m->used += size;
    m->at = (char *) (k + 1);
    m->end = (char *) k + size;
}


/*
 * From the newest chunk, else from a new one; what is left of the old one
 * is lost, which is at most half of all.
 */
void *
jinja_mem_get(jctx_t *c, size_t n)
{
    jmem_t *m = &c->mem;
    char *p;

    /* also keeps the sums below from overflowing */
    if (n > m->max) {
        jinja_fail(
            c, "The template takes more than %zu MB of memory.", m->max >> 20);
    }

    n = (n + 7) & ~(size_t) 7;
    if (n > (size_t) (m->end - m->at)) {
        mem_grow(c, n);
    }

    p = m->at;
    m->at += n;
    assert(m->at <= m->end && (uintptr_t) p % 8 == 0);

    return p;
}


/* A product that overflows is more than any limit. */
void *
jinja_mem_zero(jctx_t *c, size_t n, size_t size)
{
    size_t bytes;
    void *p;

    assert(size > 0);

    if (__builtin_mul_overflow(n, size, &bytes)) {
        bytes = SIZE_MAX;
    }
    p = jinja_mem_get(c, bytes);
    memset(p, 0, bytes);

    return p;
}


/* Also of an arena that never had a chunk. */
void
jinja_mem_free(jmem_t *m)
{
    jchunk_t *k, *next;

    assert(m != NULL);

    for (k = m->chunks; k != NULL; k = next) {
        next = k->next;
        free(k);
    }

    memset(m, 0, sizeof(*m));
}


/* Cuts text at errlen, but not inside a character. */
noreturn void
jinja_fail_as(jctx_t *c, int code, const char *text, size_t len)
{
    size_t n = 0, left;
    int k;

    assert(code < 0 && c->errlen > 0);

    while (n < len) {
        left = len - n;
        k = utf8_char((const uint8_t *) text + n, left);
        k = k > 0 ? k : 1;
        if ((size_t) k > left || n + (size_t) k >= c->errlen) {
            break;
        }
        n += (size_t) k;
    }

    memmove(c->err, text, n);
    c->err[n] = '\0';

    /* what a template, or whoever it quotes, says may have zeros in it */
    while (strlen(c->err) < n) {
        c->err[strlen(c->err)] = '?';
    }
    c->code = code;

    longjmp(c->leave, 1);
}


/* The line is that of the innermost node that was begun. */
noreturn void
jinja_fail(jctx_t *c, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    int n = 0, k;

    assert(fmt != NULL);

    if (c->line > 0) {
        n = snprintf(text, sizeof(text),
            "Line %u of the chat template: ", (unsigned) c->line);
    }

    va_start(ap, fmt);
    k = vsnprintf(text + n, sizeof(text) - (size_t) n, fmt, ap);
    va_end(ap);

    if (k > 0) {
        n = (size_t) (n + k) < sizeof(text) ? n + k : (int) sizeof(text) - 1;
    }

    jinja_fail_as(c, -LLM_ERR_BAD_MESSAGES, text, (size_t) n);
}


/* Rarely called, so the questions may cost something. */
void
jinja_look(jctx_t *c)
{
    if (c->steps > c->steps_max) {
        jinja_fail(c, "The template takes more than %llu steps.",
            (unsigned long long) c->steps_max);
    }

    if (c->cancelled != NULL && c->cancelled(c->arg)) {
        jinja_fail_as(c, -LLM_ERR_CANCELLED, "Cancelled.", 10);
    }

    c->look = c->steps + LOOK_EVERY;
    if (c->look > c->steps_max) {
        c->look = c->steps_max + 1;
    }
    assert(c->look > c->steps);
}
