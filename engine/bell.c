/*
 * A bell over an eventfd: see bell.h.
 *
 * DESIGN.  The eventfd is this process's own, so no peer can change its mode
 * (between processes the attach socket is used instead).  A ring that comes
 * while the sleeper is awake costs one exchange; one that comes after it has
 * armed leaves a count in the eventfd, so the wait returns at once.
 */
#include "bell.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>


int
bell_open(bell_t *b)
{
    b->sleeps = 0;
    b->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    return b->fd == -1 ? -1 : 0;
}


void
bell_close(bell_t *b)
{
    if (b->fd != -1) {
        (void) close(b->fd);
        b->fd = -1;
    }
}


void
bell_ring(bell_t *b)
{
    uint64_t one = 1;
    ssize_t n;

    if (__atomic_exchange_n(&b->sleeps, 0, __ATOMIC_SEQ_CST) == 0) {
        return;
    }

    do {
        n = write(b->fd, &one, sizeof(one));
    } while (n == -1 && errno == EINTR);

    /* EAGAIN would be 2^64 rings that nobody heard */
    assert(n == sizeof(one));
}


void
bell_arm(bell_t *b)
{
    assert(b->fd != -1);
    (void) __atomic_exchange_n(&b->sleeps, 1, __ATOMIC_SEQ_CST);
}


void
bell_stay(bell_t *b)
{
    /* by exchange: sleeps is only ever changed so, as rule 3 wants */
    (void) __atomic_exchange_n(&b->sleeps, 0, __ATOMIC_SEQ_CST);
}


void
bell_wait(bell_t *b, int timeout_ms)
{
    uint64_t count;
    ssize_t n;
    struct pollfd p;

    assert(timeout_ms >= 0);

    p.fd = b->fd;
    p.events = POLLIN;
    p.revents = 0;

    (void) poll(&p, 1, timeout_ms);
    bell_stay(b);

    /* a ring between poll and here is cleared too: the caller looks next */
    n = read(b->fd, &count, sizeof(count));
    assert(n == sizeof(count) || errno == EAGAIN || errno == EINTR);
}
