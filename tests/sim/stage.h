/*
 * Where a request stands when something befalls it: a client may leave in any
 * of these, and each is another way for blocks to get lost.
 *
 * No request waits for a grammar, for there is none yet: a stage for that
 * belongs here once there is.
 */
#ifndef STAGE_H
#define STAGE_H

#include "run.h"

/* X(id, what it means) */
#define STAGES(X)                                                              \
    X(QUEUED, "queued")                                                        \
    X(FOLLOWS, "waits for another's prefix")                                   \
    X(CHUNKS, "between chunks")                                                \
    X(LEADS, "between chunks, another waits for it")                           \
    X(DECODES, "decoding")                                                     \
    X(DRY, "out of credit")                                                    \
    X(OUTRANKED, "its seat is another's")                                      \
    X(PREEMPTED, "preempted")                                                  \
    X(RESUMES, "computed again after that")                                    \
    X(FETCHES, "its blocks are in transit")

/* clang-format off */
typedef enum {
#define X(id, doc) STAGE_##id,
    STAGES(X)
#undef X
    STAGE_N,
    STAGE_OTHER = STAGE_N /* none of them */
} stage_t;
/* clang-format on */

const char *stage_name(stage_t g);

/* Between two steps, of the request in that place, which is live. */
stage_t stage_of(const run_t *r, uint32_t place);

#endif
