/*
 * The rows where ranks meet: see comm.h.
 *
 * DESIGN.  Activations lie in the host's memory, so a row is a call of the
 * group's.  A call that fails is remembered for wait(); the step goes on, with
 * numbers that nobody will see, as what follows is no other rank's business.
 */
#include "cpu.h"
#include "job.h"

#include <string.h>

void
cpu_comm_sum(kn_dev_t *dev, const kn_comm_sum_t *a)
{
    uint64_t m = rows_of(dev, a->rows);

    if (comm_sum(dev->comm, (float *) a->x.a, m * a->dim) != 0) {
        dev->aborted = 1;
    }
}

void
cpu_comm_gather(kn_dev_t *dev, const kn_comm_gather_t *a)
{
    uint32_t i, n, at = 0, m = rows_of(dev, a->rows);
    const float *x = (const float *) a->x.a;
    float *y = (float *) a->y.a;

    n = dev->comm == NULL
            ? a->width
            : comm_part(a->width, dev->comm->rank, dev->comm->ranks, &at);

    for (i = 0; i < m; i++) {
        memcpy(
            y + (size_t) i * a->width + at, x + (size_t) i * n, n * sizeof(*y));
    }

    if (comm_gather(dev->comm, 0, y, m, a->width) != 0) {
        dev->aborted = 1;
    }
}
