/*
 * Carries blocks between the pool and the second arena.
 *
 * DESIGN.  The tier (kv_tier.c) says what is to be copied, the device copies;
 * this file is between them, so that neither knows of the other.  Copies end in
 * the order in which they were begun, and those under way are a ring:
 *
 *      ways   [ . . c3 c4 c5 . . ]      begun: nth 3 to 5
 *                   first ^ the next one
 *
 * A device that copies beside its steps has them under way for some turns; the
 * CPU has done it when it says so, and then the time is the turn's.  Therefore
 * a turn begins no more than what a small part of the steps' target lets it,
 * judged by how long blocks took lately; and in any case no more than so many
 * bytes, as copies share the memory's bus with the steps beside which they run.
 * What is left is for the next turn.
 *
 * Without a second tier there is no ferry, and its calls with NULL do nothing.
 *
 * The loop thread only.
 */
#include "ferry.h"
#include "clock.h"
#include "kv_tier.h"
#include "mem.h"

#include <assert.h>
#include <stddef.h>
#include <time.h>

#define FERRY_WAYS  16          /* copies under way */
#define FERRY_BYTES (64u << 20) /* that a turn begins, at most */

/* The part of a step's target that copies may take; and without one, us. */
#define FERRY_PART 16
#define FERRY_US   5000

/* Bytes per us, until it is known; part by which a new figure changes it. */
#define FERRY_SPEED 2000
#define FERRY_LEARN 8

#define FERRY_LOOK_US 100 /* between two looks at copies, if there is no step */

struct ferry_s {
    ferry_cfg_t c;
    kv_tier_copy_t ways[FERRY_WAYS];
    uint64_t nths[FERRY_WAYS]; /* the device's numbers of them */
    uint64_t begun[FERRY_WAYS];
    uint32_t first, n;
    double block_us; /* that a block holds up a turn */
    ferry_stats_t st;
};


ferry_t *
ferry_open(const ferry_cfg_t *c)
{
    ferry_t *f = mem_zero(1, sizeof(*f));

    assert(c->kv != NULL && c->forward != NULL && c->block_bytes > 0);

    if (f != NULL) {
        f->c = *c;
        f->block_us = (double) c->block_bytes / FERRY_SPEED;
    }

    return f;
}


void
ferry_close(ferry_t *f)
{
    mem_free(f);
}


/* Tells the tier of those that have ended; how many. */
static uint32_t
look(ferry_t *f)
{
    const kv_tier_copy_t *c;
    uint32_t ended = 0;
    uint64_t now = 0;
    int state;

    while (f->n > 0) {
        state = forward_copied(f->c.forward, f->nths[f->first]);
        if (state == KN_COPY_RUNS) {
            break;
        }
        now = now == 0 ? clock_us() : now;
        c = &f->ways[f->first];
        *(c->in ? &f->st.bytes_in : &f->st.bytes_out) +=
            c->n * f->c.block_bytes;
        f->st.us += now - f->begun[f->first];
        kv_tier_done(f->c.kv, c, state == KN_COPY_DONE);
        f->first = (f->first + 1) % FERRY_WAYS;
        f->n--;
        ended++;
    }

    return ended;
}


/* How many blocks a turn may begin to copy. */
static uint32_t
most(const ferry_t *f)
{
    double us = f->c.target_us > 0 ? f->c.target_us / FERRY_PART : FERRY_US;
    double n = us / f->block_us;
    double cap = (double) FERRY_BYTES / (double) f->c.block_bytes;

    n = n < cap ? n : cap;

    return n < 1 ? 1 : (uint32_t) n;
}


/* Begins the next copy of at most n blocks; how many it has. */
static uint32_t
begin(ferry_t *f, uint32_t n)
{
    uint32_t at = (f->first + f->n) % FERRY_WAYS;
    kv_tier_copy_t *c = &f->ways[at];

    if (f->n == FERRY_WAYS || !kv_tier_next(f->c.kv, n, c)) {
        return 0;
    }

    assert(c->n > 0 && c->n <= n);
    f->begun[at] = clock_us();
    f->nths[at] =
        c->in ? forward_copy(f->c.forward, 1, c->slots, c->blocks, c->n)
              : forward_copy(f->c.forward, 0, c->blocks, c->slots, c->n);
    f->n++;

    return c->n;
}


/* A turn, which takes *us; how many copies ended or were begun. */
static uint32_t
turn(ferry_t *f, uint64_t *us)
{
    uint32_t left, n, all = 0, moves = look(f);
    uint64_t start;

    left = most(f);
    *us = 0;
    if ((n = begin(f, left)) == 0) {
        return moves;
    }

    start = f->begun[(f->first + f->n - 1) % FERRY_WAYS];
    do {
        all += n;
        left -= n;
        moves += 1 + look(f);
    } while (left > 0 && (n = begin(f, left)) > 0);

    *us = clock_us() - start;
    f->block_us += ((double) *us / all - f->block_us) / FERRY_LEARN;
    assert(f->block_us >= 0);

    return moves;
}


uint64_t
ferry_turn(ferry_t *f)
{
    uint64_t us = 0;

    if (f != NULL) {
        (void) turn(f, &us);
    }

    return us;
}


int
ferry_idle(ferry_t *f)
{
    const struct timespec moment = {0, FERRY_LOOK_US * 1000};
    uint64_t us;

    if (f == NULL) {
        return 0;
    }
    if (turn(f, &us) > 0) {
        return 1;
    }
    if (f->n == 0) {
        return 0;
    }
    (void) nanosleep(&moment, NULL);

    return 1;
}


void
ferry_stats(const ferry_t *f, ferry_stats_t *st)
{
    static const ferry_stats_t none;

    *st = f != NULL ? f->st : none;
}
