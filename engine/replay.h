/*
 * Replaying a recording: its calls made to a scheduler of one's own, whose
 * plans must be those recorded.  See replay.c.
 */
#ifndef REPLAY_H
#define REPLAY_H

#include "record.h"
#include "sched.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* What to plan with instead of what was recorded. */
typedef struct {
    const char *policy; /* NULL: as recorded */
    /* < 0: as recorded */
    int64_t tokens, tile, target_us, floor, cache;

    /* Finds a policy by its name; NULL: sched_policy. */
    const sched_policy_t *(*find)(const char *name);
} replay_change_t;

#define REPLAY_NO_CHANGE ((replay_change_t){NULL, -1, -1, -1, -1, -1, NULL})

/* What a recording had in it, as far as it was equal. */
typedef struct {
    uint64_t requests; /* taken in */
    uint64_t refused;
    uint64_t plans;  /* all, */
    uint64_t steps;  /* and those with something to compute */
    uint64_t tokens; /* computed */
    uint64_t sampled;
    uint64_t preemptions;
    uint64_t cache_asked, cache_hits;
    uint64_t from_us, until_us;
    uint64_t differs; /* the plan that does, from 1; 0: none */
    const char *ends; /* why the recording ends there */
    double plan_us_50, plan_us_99, steps_s;
} replay_stats_t;

/*
 * Makes the calls that f holds to a scheduler with these changes, until a plan
 * differs or there are no more.  What differs is said on out, if there is one.
 * 0, or -1 with one sentence in err: f is no recording, or a damaged one, or
 * has calls that nobody may make.
 */
int replay_calls(FILE *f, const replay_change_t *change, FILE *out,
    replay_stats_t *st, char *err, size_t errlen);

/*
 * Replays the file at path and says on out how that went.  With a change, it
 * says where plans begin to differ, and what would have come of the recorded
 * requests (replay_other.c).  The exit status: 0, or 1 if the plans differ
 * with nothing changed, or with a sentence in err.
 */
int replay_main(const char *path, const replay_change_t *change, FILE *out,
    char *err, size_t errlen);

#endif
