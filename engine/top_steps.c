/*
 * llm-top --steps: the log of an engine's steps, a line for each as they run.
 *
 *      SECONDS US DECODING PREFILL
 *
 * when the step was seen (CLOCK_MONOTONIC, at most TOP_LOOK_MS behind its
 * end), how long it took, its decoding rows, its tokens of prompts.
 *
 * DESIGN.  The engine writes each step into a ring of words in its state page
 * (llm_live.h) whether anybody looks or not.  So a log costs it nothing, it
 * needs no file of the engine's, and it is only as long as somebody reads.  A
 * reader that is a whole ring behind says how many steps it missed.
 *
 * It ends by a signal, with its reader, or when the engine has gone.
 */
#include "clock.h"
#include "top.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define TOP_LOOK_MS 10
#define TOP_GONE_US 3000000 /* heartbeats come at least once a second */


/* The sum of all threads' heartbeats: one alone stands in a long step. */
static uint64_t
top_beats(const llm_state_t *st)
{
    uint64_t sum = 0;
    uint32_t i;

    for (i = 0; i < LLM_THREADS; i++) {
        sum += __atomic_load_n(&st->heartbeat[i], __ATOMIC_RELAXED);
    }

    return sum;
}


uint64_t
top_steps_print(const top_source_t *s, uint64_t from, uint64_t now_us, FILE *f)
{
    llm_live_step_t step;
    llm_live_t live;
    uint64_t n;

    assert(s->page != NULL);

    if (!llm_live_open(&live, s->page, s->size)) {
        return from;
    }
    n = live.head.steps;
    if (from > n) {
        return n;
    }

    /* the word that is overwritten next may be in hand */
    if (n - from >= live.head.steps_n) {
        fprintf(f, "# %" PRIu64 " steps missed\n",
            n - from - (live.head.steps_n - 1));
        from = n - (live.head.steps_n - 1);
    }
    for (; from < n; from++) {
        llm_live_step_read(llm_live_step_at(&live, from), &step);
        fprintf(f, "%.3f %u %u %u\n", (double) now_us / 1e6, step.us,
            step.decode, step.prefill);
    }

    return n;
}


int
top_steps(const char *path, char *err, size_t errlen)
{
    const struct timespec look = {0, TOP_LOOK_MS * 1000000l};
    uint64_t seen, beats = 0, now, lived;
    top_source_t s;
    llm_live_t live;

    if (top_open(&s, path, err, errlen) != 0) {
        return -1;
    }
    if (!llm_live_open(&live, s.page, s.size)) {
        snprintf(err, errlen, "this engine keeps no log of its steps");
        top_close(&s);
        return -1;
    }

    seen = live.head.steps;
    lived = now = clock_us();
    while (now < lived + TOP_GONE_US && !ferror(stdout)) {
        seen = top_steps_print(&s, seen, now, stdout);
        (void) fflush(stdout);
        if (top_beats(s.page) != beats) {
            beats = top_beats(s.page);
            lived = now;
        }
        (void) nanosleep(&look, NULL);
        now = clock_us();
    }
    top_close(&s);
    snprintf(err, errlen, "%s",
        now < lived + TOP_GONE_US ? "the output does not take the log"
                                  : "the engine has gone");

    return -1;
}
