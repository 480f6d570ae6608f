/*
 * A follower's life: it follows until rank 0 ends it, and serves nobody.
 *
 * DESIGN.  A signal to end reaches all ranks at once when Slurm, mpirun or a
 * shutdown sends it, and rank 0 then lets its streams end first.  So a
 * follower goes on after the first one, for as long as rank 0 may drain, and
 * ends at the second.
 *
 * The main thread waits for signals; the thread that follows is its own.
 */
#include "follow.h"
#include "clock.h"
#include "log.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LOOK_NS 50000000 /* between two looks at whether it has ended */

typedef struct {
    follow_t *w;
    int rc;
    char err[256];
} run_t;


static void *
run(void *arg)
{
    run_t *r = arg;

    r->rc = follow_run(r->w, r->err, sizeof(r->err));

    return NULL;
}


/* Waits for its end, or for the end of what a signal leaves it. */
static void
attend(pthread_t thread, comm_t *c, const follow_life_t *life)
{
    const struct timespec look = {0, LOOK_NS};
    uint64_t end = UINT64_MAX;

    while (pthread_tryjoin_np(thread, NULL) != 0) {
        if (sigtimedwait(life->signals, NULL, &look) > 0) {
            end = end == UINT64_MAX ? clock_ms() + life->drain_ms : 0;
            log_line(LOG_NOTICE, "rank %u ends with rank 0, or in %llu ms",
                c->rank, end == 0 ? 0ull : (unsigned long long) life->drain_ms);
        }
        if (clock_ms() >= end) {
            comm_abort(c, "a follower was told to end");
            end = UINT64_MAX - 1;
        }
    }
}


int
follow_main(follow_t *w, const follow_life_t *life, char *err, size_t errlen)
{
    run_t r = {w, 0, ""};
    pthread_t thread;
    int rc;

    assert(w != NULL && life->signals != NULL);

    rc = pthread_create(&thread, NULL, run, &r);
    if (rc != 0) {
        snprintf(err, errlen, "cannot start a thread: %s", strerror(rc));
        return 1;
    }
    (void) pthread_setname_np(thread, "follow");

    attend(thread, follow_comm(w), life);
    if (r.rc != 0) {
        snprintf(err, errlen, "%s", r.err);
    }

    return r.rc != 0;
}
