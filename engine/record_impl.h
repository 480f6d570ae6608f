/*
 * The recorder's inside, shared by record.c (the one who tells) and
 * record_write.c (the one who writes).  Nobody else includes it.
 *
 * Between the two lies a ring of calls as plain structs, tokens as they are:
 * memory of this process, so what is read from it is believed.
 */
#ifndef RECORD_IMPL_H
#define RECORD_IMPL_H

#include "llm_ring.h"
#include "record.h"

#include <assert.h>
#include <pthread.h>

#define RECORD_RING (1u << 24) /* bytes that the disk may be behind */
#define RECORD_CALL                                                            \
    (1u << 22)                  /* longest call in the ring; a fifth more, as
                                * varints, fits in a frame */
#define RECORD_SEND  (1u << 17) /* a frame is written when it has that much, */
#define RECORD_SENDS 16         /* or this part of what may be written */

_Static_assert(RECORD_CALL / 4 * 5 + RECORD_SEND + 64 <= RECORD_FRAME_MAX,
    "one more always fits in");

/* Hash of a text so far, and how many tokens that is. */
typedef struct {
    uint64_t h;
    uint32_t n;
} record_chain_t;

/* In the ring a call has its record_type_t plus 1 as type. */
typedef struct {
    llm_ring_hdr_t hdr;
    uint32_t req, answer;
    uint64_t arrival_us, space;
    uint32_t flags, n, prompts_n, max_tokens;
    uint32_t tenant, weight, priority, concurrent, queue_max, queue_ms;
    uint32_t lens[LLM_CHOICES_MAX];
} record_add_t;

typedef struct {
    llm_ring_hdr_t hdr;
    uint32_t seq;     /* of the first that begins with it, */
    uint32_t copies;  /* and how many do */
    uint32_t n, last; /* last: of this prompt */
    uint32_t ids[];
} record_prompt_t;

/* RETRY, CREDIT, PLAN, TOOK, CUT, END, as their records say */
typedef struct {
    llm_ring_hdr_t hdr;
    uint64_t v[4];
} record_plain_t;

typedef struct {
    uint32_t first, n, sum;
    uint32_t listed; /* the last of the n, in ids */
} record_blocks_t;

typedef struct {
    llm_ring_hdr_t hdr;
    uint32_t seq, start, len, outs;
    record_blocks_t blocks[KV_GROUPS]; /* as many as there are groups */
    uint32_t ids[]; /* those listed, group by group; then len tokens */
} record_row_t;

typedef struct {
    uint32_t seq, token, err, flags, more; /* more: of those behind takes */
} record_take_t;

typedef struct {
    llm_ring_hdr_t hdr;
    uint32_t n, more;
    record_take_t takes[]; /* [n], and then [more] tokens, take by take */
} record_commit_t;

/* Calls are missing from here on; or the file has its end. */
enum { RECORD_LOST = 1, RECORD_OVER };

struct recorder_s {
    record_head_t head;
    uint32_t seqs, groups, block_tokens, marks_n;
    llm_ring_ctl_t *ctl; /* owned, with the ring's bytes */

    /* of the one who tells */
    llm_ring_t in;
    uint32_t *next; /* [seqs] owned; where its next row begins */
    uint32_t *ends; /* [seqs, groups] owned; blocks of it that were listed */

    /* of the one who writes */
    llm_ring_t out;
    uint8_t *call;         /* [RECORD_CALL] owned */
    uint8_t *buf;          /* [RECORD_FRAME + RECORD_FRAME_MAX] owned */
    size_t buf_n;          /* of the frame's payload */
    uint64_t key[2];       /* of this recording; nobody is told */
    record_chain_t *known; /* [seqs] owned; all that is known of it */
    record_chain_t *rows;  /* [seqs] owned; as far as its last row */
    uint64_t *marks;       /* [seqs, marks_n] owned; at each block's end */
    uint64_t limit, written;
    int fd;
    pthread_t thread;
    int threaded;

    uint32_t off;  /* atomic: RECORD_LOST, RECORD_OVER */
    uint32_t stop; /* atomic: nobody tells any more */
};

/* Writes what is in the ring.  all: to the disk, too. */
void record_write(recorder_t *rec, int all);

/* Ends the file, if it has not ended yet. */
void record_finish(recorder_t *rec, record_end_t why);

#endif
