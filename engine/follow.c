/*
 * Followers: processes that compute their ranks' part of what rank 0 plans.
 *
 * DESIGN.  Rank 0 serves: it alone has requests, a scheduler, a cache of
 * prefixes, and what sampling needs.  All that a follower must know is in the
 * step blocks and copies that rank 0's forward begins (forward_tell); they are
 * cast to all ranks in that order, and each runs one to its end before it
 * takes the next:
 *
 *      rank 0      submit ─> STEP ─────> ops ... sums ... ops ─> sample
 *      follower        wait for ─> STEP ─> ops ... sums ... ops
 *
 * A late token is in the step as its number, since rank 0 knows it when it
 * submits.  Copies, which at rank 0 go on beside steps, a follower waits for:
 * rank 0 uses what it has copied in a later step only, and that comes later.
 *
 * A message is cast as its length, and then its bytes.  So small steps are
 * small, and a follower that waits for the next one waits in a cast, which is
 * what has no time limit (comm_socket.h).
 *
 * A group that has ended does not come back: rank 0 logs one line and ends the
 * process, from wherever it is; its supervisor starts it anew, the workers
 * answer 503 meanwhile, and followers end by the connection and are started
 * anew too.
 *
 * follow_run: one thread.  What rank 0 tells: the thread that calls forward,
 * which is the loop's, or main's before it has begun and after its end.
 */
#include "follow.h"
#include "log.h"
#include "mem.h"
#include "step_wire.h"
#include "../kernels/comm_socket.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define COPY_LOOK_NS 50000 /* between two looks at a copy */

struct follow_s {
    follow_cfg_t c;
    step_wire_limits_t limits;
    step_wire_t wire; /* owned; not in rank 0 */
    size_t bytes;     /* of the longest message */
    uint8_t *message; /* [bytes], owned */
};


static void
set_limits(follow_t *w)
{
    const forward_cfg_t *s = &w->c.shape;
    step_wire_limits_t *l = &w->limits;
    kv_cfg_t kc;
    uint32_t g;

    forward_kv(s, s->rows_max, &kc);
    assert(kc.groups >= 1 && kc.groups <= KN_GROUPS);
    l->tokens = s->tokens_max;
    l->rows = s->rows_max;
    l->outs = s->outs_max;
    l->blocks = kv_blocks_for(&kc, s->context) * s->rows_max;
    l->context = s->context;
    l->vocab = w->c.vocab;
    l->pool = s->blocks;
    l->host = s->host_blocks;
    l->block_tokens = s->block_tokens;
    l->groups = kc.groups;
    for (g = 0; g < kc.groups; g++) {
        l->window[g] = s->groups.window[g];
    }
}


/* --- rank 0 ------------------------------------------------------------- */

/* What cannot go on ends here. */
static void
stop(const follow_t *w)
{
    log_line(LOG_ALERT, "ranks are lost: %s; the engine ends too",
        comm_error(w->c.comm));
    _exit(1);
}


static void
tell(follow_t *w, size_t n)
{
    uint64_t bytes = n;

    assert(n > 0 && n <= w->bytes);

    if (comm_cast(w->c.comm, 0, &bytes, sizeof(bytes)) != 0
        || comm_cast(w->c.comm, 0, w->message, n) != 0) {
        stop(w);
    }
}


static void
tell_step(void *arg, const kn_step_t *s)
{
    follow_t *w = arg;

    tell(w, step_wire_step(w->message, &w->limits, s));
}


static void
tell_copy(
    void *arg, int in, const uint32_t *from, const uint32_t *to, uint32_t n)
{
    follow_t *w = arg;
    uint32_t some;

    assert(w->c.comm->rank == 0);

    for (; n > 0; n -= some, from += some, to += some) {
        some = n < STEP_WIRE_COPIES ? n : STEP_WIRE_COPIES;
        tell(w, step_wire_copy(w->message, &w->limits, in, from, to, some));
    }
}


void
follow_look(void *arg)
{
    follow_t *w = arg;

    assert(w->c.comm->rank == 0);

    if (comm_socket_look(w->c.comm) != 0) {
        stop(w);
    }
}


void
follow_end(follow_t *w)
{
    assert(w->c.comm->rank == 0);

    tell(w, step_wire_end(w->message));
}


/* --- the others --------------------------------------------------------- */

static void
copy(const follow_t *w)
{
    const struct timespec look = {0, COPY_LOOK_NS};
    uint64_t nth = forward_copy(
        w->c.forward, (int) w->wire.in, w->wire.from, w->wire.to, w->wire.n);

    while (forward_copied(w->c.forward, nth) == KN_COPY_RUNS) {
        (void) nanosleep(&look, NULL);
    }
}


int
follow_run(follow_t *w, char *err, size_t errlen)
{
    uint64_t bytes;

    assert(w->c.comm->rank > 0);

    while (comm_error(w->c.comm) == NULL) {
        if (comm_cast(w->c.comm, 0, &bytes, sizeof(bytes)) != 0) {
            break;
        }
        if (bytes > w->bytes) {
            snprintf(err, errlen, "a step of %llu bytes is too long",
                (unsigned long long) bytes);
            comm_abort(w->c.comm, err);
            return -1;
        }
        if (comm_cast(w->c.comm, 0, w->message, bytes) != 0) {
            break;
        }
        if (step_wire_get(&w->wire, w->message, bytes, err, errlen) != 0) {
            comm_abort(w->c.comm, err);
            return -1;
        }

        switch (w->wire.type) {
        case STEP_WIRE_STEP:
            /* if it cannot end, the group has: no next one comes */
            forward_follow(w->c.forward, &w->wire.step);
            break;
        case STEP_WIRE_COPY:
            copy(w);
            break;
        case STEP_WIRE_END:
            return 0;
        }
    }

    snprintf(err, errlen, "%s", comm_error(w->c.comm));

    return -1;
}


/* --- open and close ----------------------------------------------------- */

follow_t *
follow_open(const follow_cfg_t *c)
{
    follow_t *w = mem_zero(1, sizeof(*w));
    const forward_tell_t t = {tell_step, tell_copy, w};

    if (w == NULL) {
        return NULL;
    }
    assert(c->comm != NULL && c->comm->ranks > 1);

    w->c = *c;
    set_limits(w);
    w->bytes = step_wire_bytes(&w->limits);
    w->message = mem_zero(w->bytes, 1);
    if (w->message == NULL
        || (c->comm->rank > 0 && step_wire_open(&w->wire, &w->limits) != 0)) {
        follow_close(w);
        return NULL;
    }

    if (c->comm->rank == 0) {
        forward_tell(c->forward, &t);
    }

    return w;
}


comm_t *
follow_comm(const follow_t *w)
{
    return w->c.comm;
}


void
follow_close(follow_t *w)
{
    static const forward_tell_t none = {NULL, NULL, NULL};

    if (w == NULL) {
        return;
    }

    if (w->c.comm->rank == 0) {
        forward_tell(w->c.forward, &none);
    }
    step_wire_close(&w->wire);
    mem_free(w->message);
    mem_free(w);
}
