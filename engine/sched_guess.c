/*
 * The estimate behind admission: what will those who run still need?
 *
 * DESIGN.  max_tokens is a bound that few requests come near to, and so is a
 * bad measure of what to keep free.  Outputs that ended are remembered in a
 * histogram of lengths that forgets, and an output that has t tokens is taken
 * to get as long as, on average, those did that got beyond t.  An estimate may
 * be too small; then blocks run out and somebody is preempted, which is safe
 * and what the estimate keeps rare.
 *
 * Sequences do not grow at once and for ever: when one ends its blocks come
 * back before others need theirs.  The peak is looked for at the moments when
 * somebody ends:
 *
 *      blocks      .-'|
 *                .'   '-.   .-|      only the tops count
 *              .'        '-'  '--
 *
 * A decayed histogram rather than a window: O(1) memory, and O(lengths) once
 * an output ends, nothing per token.
 */
#include "sched_guess.h"

#include <assert.h>
#include <string.h>

#define DECAY 0.995f /* an output: the last two hundred count */
#define FEW   4.0f   /* outputs before their mean is believed */


void
sched_guess_ended(sched_guess_t *g, uint32_t tokens)
{
    uint32_t i, at = sched_guess_class(tokens);
    float n = 0, sum = 0;

    assert(at < SCHED_LENGTHS);

    for (i = SCHED_LENGTHS; i-- > 0;) {
        g->n[i] *= DECAY;
        g->sum[i] *= DECAY;
        if (i == at) {
            g->n[i] += 1;
            g->sum[i] += (float) tokens;
        }
        n += g->n[i];
        sum += g->sum[i];
        g->mean[i] = n >= FEW ? sum / n : 0;
    }
}


/* The class of a number of tokens to come. */
static uint32_t
future_of(uint32_t more)
{
    uint32_t top, at;

    if (more < 8) {
        return more;
    }
    top = 31 - (uint32_t) __builtin_clz(more);
    at = 4 * (top - 1) + (more >> (top - 2) & 3);

    return at < SCHED_FUTURES ? at : SCHED_FUTURES - 1;
}


void
sched_futures_add(sched_futures_t *f, uint64_t blocks, uint32_t more)
{
    uint32_t at = future_of(more);

    f->n[at]++;
    f->blocks[at] += blocks;
    f->more[at] = more > f->more[at] ? more : f->more[at];
}


void
sched_futures_remove(sched_futures_t *f, uint64_t blocks, uint32_t more)
{
    uint32_t at = future_of(more);

    assert(f->n[at] > 0 && f->blocks[at] >= blocks);
    f->n[at]--;
    f->blocks[at] -= blocks;
}


uint64_t
sched_futures_peak(const sched_futures_t *f, uint32_t block_tokens)
{
    uint64_t held = 0, alive = 0, now, peak = 0;
    uint32_t i;

    assert(block_tokens > 0);

    /* from the last to end backwards: those from class i on still hold */
    for (i = SCHED_FUTURES; i-- > 0;) {
        if (f->n[i] == 0) {
            continue;
        }
        held += f->blocks[i];
        alive += f->n[i];
        now = held + alive * (f->more[i] / block_tokens + 1);
        peak = now > peak ? now : peak;
    }

    return peak;
}
