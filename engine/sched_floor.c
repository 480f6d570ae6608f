/*
 * The floor: what lower classes get while a higher one has work waiting.
 *
 * DESIGN.  Classes are strict, so a high one that is always busy would starve
 * all below it.  So `floor` per cent of the weighted tokens served meanwhile
 * are owed to the classes below the highest that waits, to each that waits an
 * equal part: an account per class.  Of those to whom something is owed, the
 * one to whom most is has a turn: before the higher classes' prompts and
 * admissions one of its sequences is let in, or computes a piece of its prompt
 * (plan_floor and floor_piece in sched_plan.c).  That, and what the sequence
 * samples then, is taken from the account, which may go below zero: a turn is
 * not cut to what is owed, but the next one comes when that is paid off.
 *
 * KEPT.  A sequence that had a turn keeps its seat and its blocks until it
 * ends, but for what the highest class needs to go on (its oldest request, and
 * decodes that find the pool empty): a seat taken back at once would be worth
 * nothing.  It takes nothing from who is seated, whoever that is.  With few
 * seats a higher class may so wait for the end of a lower one's output.
 *
 * What a class gets without the floor counts as well, but makes no debt: else
 * it would have to wait later because the engine was idle earlier.  Not more
 * than some steps' tokens are saved up, and nothing by who does not wait.
 * Tokens that are computed again after preemption count, or one that loses its
 * blocks again and again would take the whole engine.
 *
 * With one class alone, or with nobody waiting above, nothing happens here.
 */
#include "sched_int.h"

#include <assert.h>
#include <string.h>

/* Accounts are in hundredths of a token: a floor is per cent. */
#define UNIT 100

/* Steps' tokens that are saved up: seats come free by the handful, and a class
 * that found none for some steps is to have them then. */
#define SAVED_STEPS 4


/* Would sequence id do more, if it had a seat, blocks or prompt tokens? */
static int
seq_waits(const seq_t *q)
{
    return q->state == SCHED_WAITING || q->state == SCHED_HELD
           || (q->state == SCHED_RUNNING && seq_prompts(q));
}


static int
req_waits(const sched_t *s, uint32_t req)
{
    const sreq_t *sr = &s->reqs[req];
    uint32_t c;

    assert(!sr->expired);
    if (!sr->credit || sr->open_n == 0) {
        return 0;
    }
    if (!sr->started) {
        return sched_may_start(s, sr);
    }
    for (c = 0; c < sr->r->choices; c++) {
        if (seq_waits(seq_at(s, req * LLM_CHOICES_MAX + c))) {
            return 1;
        }
    }

    return 0;
}


/* Does any of these wait? */
static int
any_waits(const sched_t *s, const list_t *list)
{
    uint32_t req = list->head;

    while (req != NONE && !req_waits(s, req)) {
        req = s->lane_links[req].next;
    }

    return req != NONE;
}


/* The first class from `class` on that has live requests. */
static uint32_t
next_live(const sched_t *s, uint32_t class)
{
    uint32_t a = lanes_next(&s->queue, class), b = lanes_next(&s->begun, class);

    return a < b ? a : b;
}


/* Notes which classes wait; the highest of them, or NONE. */
static uint32_t
classes_waiting(const sched_t *s, uint8_t *waits)
{
    uint32_t class = next_live(s, 0), upper = NONE;

    for (; class < SCHED_CLASSES; class = next_live(s, class + 1)) {
        waits[class] = (uint8_t) (any_waits(s, &s->queue.of[class])
                                  || any_waits(s, &s->begun.of[class]));
        upper = upper == NONE && waits[class] ? class : upper;
    }

    return upper;
}


/* Enters what was served since the last plan into the account of a class, of
 * which `gain` is its part of the floor. */
static void
settle(sched_class_t *c, int64_t gain, int64_t most)
{
    int64_t least;

    assert(gain >= 0 && most >= 0);

    c->owed += gain;
    least = c->owed < 0 ? c->owed : 0;
    c->owed -= (int64_t) c->served * UNIT;
    c->owed = c->owed < least ? least : c->owed;
    c->owed -= (int64_t) c->floored * UNIT;
    c->owed = c->owed > most ? most : c->owed;
    c->served = c->floored = 0;
}


/* Shares out what the floor is of all that was served below s->upper. */
static void
settle_all(sched_t *s, const uint8_t *waits)
{
    int64_t gain, most = (int64_t) s->c.budget * SAVED_STEPS * UNIT;
    uint32_t i, n = 0;
    int part;

    for (i = s->upper + 1; i < SCHED_CLASSES; i++) {
        n += waits[i] || s->classes[i].owed < 0;
    }
    gain = n > 0 ? (int64_t) (s->served * s->c.floor) / n : 0;

    for (i = s->upper + 1; i < SCHED_CLASSES; i++) {
        part = waits[i] || s->classes[i].owed < 0;
        settle(&s->classes[i], part ? gain : 0, waits[i] ? most : 0);
    }
    s->served = 0;
}


uint32_t
sched_floor_turn(sched_t *s)
{
    uint8_t waits[SCHED_CLASSES];
    uint32_t i = next_live(s, 0), best = NONE;

    if (s->c.floor == 0 || i == SCHED_CLASSES
        || (s->upper == NONE && next_live(s, i + 1) == SCHED_CLASSES)) {
        return NONE;
    }

    memset(waits, 0, sizeof(waits));
    i = classes_waiting(s, waits);
    if (s->upper != NONE) {
        settle_all(s, waits);
    }
    s->upper = i;
    if (s->upper == NONE) {
        return NONE;
    }

    for (i = s->upper + 1; i < SCHED_CLASSES; i++) {
        if (waits[i] && s->classes[i].owed > 0
            && (best == NONE || s->classes[i].owed > s->classes[best].owed)) {
            best = i;
        }
    }

    return best;
}


void
sched_floor_count(sched_t *s, uint32_t id, uint32_t cost)
{
    uint32_t class = key_class(s->links[id].key);

    assert(s->c.floor > 0 && s->upper != NONE && class < SCHED_CLASSES);

    s->served += cost;
    if (class > s->upper) {
        if (seq_at(s, id)->floor) {
            s->classes[class].floored += cost;
        } else {
            s->classes[class].served += cost;
        }
    }
}
