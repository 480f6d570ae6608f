/*
 * A recording as a list of calls: record_file.h's records put together and
 * judged, so that no number in them is beyond what the head allows.  Whether a
 * call may be made when it comes is for who makes it.  See replay_read.c.
 */
#ifndef REPLAY_READ_H
#define REPLAY_READ_H

#include "record.h"
#include "req.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct replay_file_s replay_file_t;

/* A row of a plan as it was recorded. */
typedef struct {
    uint32_t seq, start, len, outs;
    uint32_t last; /* what stands for its last token, plus 1; 0: not known */
    struct {
        uint32_t first, n, sum, listed;
        uint32_t at; /* of those listed, in ids */
    } blocks[KV_GROUPS];
} replay_row_t;

/* All borrowed from the file until the next call is read, but prompts. */
typedef struct {
    record_type_t type; /* ADD, RETRY, CREDIT, PLAN, COMMIT, TOOK, CUT, END */
    uint32_t req, choice, index;
    int value;   /* ADD: what was answered; CREDIT: has it */
    uint64_t us; /* PLAN, TOOK */
    req_t *r;    /* ADD, RETRY; the prompts of ADD are the caller's, who
                    * frees them (replay_free); none if it was refused */
    uint32_t rows_n, tokens_n, outs_n; /* PLAN; outs_n: COMMIT, too */
    const replay_row_t *rows;
    const uint32_t *ids;
    sched_take_t *takes; /* COMMIT: what is told; prompt is an answer, but is
                          * filled in */
} replay_call_t;

/*
 * f is borrowed until replay_file_close.  NULL with one sentence in err, which
 * has errlen bytes, is used by replay_read too, and is borrowed as well.
 */
replay_file_t *replay_file_open(
    FILE *f, record_head_t *h, char *err, size_t errlen);
void replay_file_close(replay_file_t *rf);

/* 1: the next call; 0: there is none; -1: the file is bad, as err says. */
int replay_read(replay_file_t *rf, replay_call_t *c);

/* After 0: why the recording ends there, a few words. */
const char *replay_ends(const replay_file_t *rf);

/* Frees a request's prompts. */
void replay_free(req_t *r);

#endif
