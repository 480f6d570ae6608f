/*
 * What replay.c (the same calls) and replay_other.c (the same requests) share.
 * Nobody else includes it.
 */
#ifndef REPLAY_IMPL_H
#define REPLAY_IMPL_H

#include "replay.h"
#include "replay_read.h"

#include <assert.h>

/* A scheduler as the head says, with the changes; all owned. */
typedef struct {
    record_head_t head;
    uint32_t window[KV_GROUPS];
    kv_t *kv;
    sched_t *s;
    batch_t b;
    req_t *reqs;   /* [head.reqs] */
    uint8_t *live; /* [head.reqs] */
} replay_sched_t;

/* 0, or -1 with err; what was opened is closed in any case. */
int replay_sched_open(replay_sched_t *rs, const record_head_t *h,
    const replay_change_t *change, char *err, size_t errlen);
void replay_sched_close(replay_sched_t *rs);

/* The least of sorted numbers that is not below p percent of them; 0 of none.
 * It sorts them. */
double replay_percentile(double *v, size_t n, double p);

/* Makes room for one more in a table of n; 0, or -1: out of memory. */
int replay_room(void **table, size_t n, size_t *max, size_t size);

/* What the recorded requests would have come to: prints it on out. 0, or -1
 * with err. */
int replay_other(const char *path, const replay_change_t *change, FILE *out,
    char *err, size_t errlen);

#endif
