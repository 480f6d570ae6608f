/*
 * What all transports of a group have in common: one rank alone, asserts, and
 * how many processors there are.
 */
#include "comm.h"

#include <assert.h>
#include <sched.h>

static int
alone(const comm_t *c)
{
    assert(c == NULL || (c->rank < c->ranks && c->ranks <= COMM_RANKS_MAX));
    return c == NULL || c->ranks == 1;
}

int
comm_sum(comm_t *c, float *x, uint64_t n)
{
    assert(x != NULL || n == 0);
    return alone(c) || n == 0 ? 0 : c->ops->sum(c, x, n);
}

int
comm_gather(comm_t *c, uint32_t root, float *x, uint64_t rows, uint32_t width)
{
    if (alone(c) || rows == 0 || width == 0) {
        return 0;
    }

    assert(x != NULL && (root < c->ranks || root == COMM_ALL));
    return c->ops->gather(c, root, x, rows, width);
}

int
comm_cast(comm_t *c, uint32_t root, void *p, uint64_t bytes)
{
    if (alone(c) || bytes == 0) {
        return 0;
    }

    assert(p != NULL && root < c->ranks);
    return c->ops->cast(c, root, p, bytes);
}

int
comm_barrier(comm_t *c)
{
    return alone(c) ? 0 : c->ops->barrier(c);
}

void
comm_abort(comm_t *c, const char *why)
{
    assert(why != NULL && why[0] != '\0');

    if (c != NULL) {
        c->ops->abort(c, why);
    }
}

const char *
comm_error(comm_t *c)
{
    return c == NULL ? NULL : c->ops->error(c);
}

void
comm_close(comm_t *c)
{
    if (c != NULL) {
        c->ops->close(c);
    }
}

uint32_t
comm_processors(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) != 0) {
        return 1;
    }

    return (uint32_t) CPU_COUNT(&set);
}
