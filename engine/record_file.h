/*
 * The form of a recording: what is in its head, how its records are written,
 * and who takes it apart again.  See record_file.c.
 */
#ifndef RECORD_FILE_H
#define RECORD_FILE_H

#include "batch.h"
#include "kv.h"
#include "sched.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define RECORD_MAGIC   "llmrec\r\n" /* 8 bytes, and what a text copy breaks */
#define RECORD_VERSION 1

#define RECORD_FRAME_MAX (1u << 23) /* bytes of a frame's payload */
#define RECORD_POLICY    16         /* bytes of a policy's name, with its 0 */
#define RECORD_US_MAX    (1ull << 50)
#define RECORD_PART      16384 /* tokens of a prompt in one record */

/*
 * X(type, what it holds), in this order; numbers are varints.  A prompt comes
 * in PROMPTs behind its ADD, a plan in ROWs behind its PLAN, and nothing
 * between but an END_OF_FILE.
 */
#define RECORD_TYPES(X)                                                        \
    X(HEAD, "number of fields, these, the policy's length and name")           \
    X(ADD, "request, answer, its fields, length of each prompt")               \
    X(PROMPT, "tokens")                                                        \
    X(RETRY, "tenant, priority, queue_max, queue_ms")                          \
    X(CREDIT, "request, has it")                                               \
    X(PLAN, "now, rows, tokens, outputs")                                      \
    X(ROW, "sequence, start, length, outputs, last token; blocks of groups")   \
    X(COMMIT, "outputs; of each its flags, error, token")                      \
    X(TOOK, "us")                                                              \
    X(CUT, "request, choice, index")                                           \
    X(END, "request")                                                          \
    X(END_OF_FILE, "reason")

/* clang-format off */
typedef enum {
#define X(name, doc) RECORD_##name,
    RECORD_TYPES(X)
#undef X
    RECORD_TYPES_N
} record_type_t;
/* clang-format on */

/* Flags of a sampled token in COMMIT; with an error there is no token. */
enum {
    RECORD_ENDS_TEXT = 1,
    RECORD_OF_PROMPT = 2,
    RECORD_ERR = 4,
    RECORD_ENDS_ALL = 8,
    RECORD_MORE = 16 /* and then how many follow it, and which */
};

/* X(reason, sentence): why a recording ends where it does */
#define RECORD_ENDS(X)                                                         \
    X(CLOSED, "the engine ended")                                              \
    X(LIMIT, "the limit of its size was reached")                              \
    X(BEHIND, "the disk could not keep up")                                    \
    X(FAILED, "it could not be written")

typedef enum {
#define X(name, doc) RECORD_BY_##name,
    RECORD_ENDS(X)
#undef X
        RECORD_ENDS_N
} record_end_t;

/* X(field, least, most): new ones are added at the end */
#define RECORD_HEAD_LIST(X)                                                    \
    X(unix_s, 0, UINT64_MAX)                                                   \
    X(reqs, 1, 1 << 17)                                                        \
    X(rows, 1, 1 << 16)                                                        \
    X(tokens, 1, 1 << 20)                                                      \
    X(context, 2, 1 << 21)                                                     \
    X(budget, 0, 1 << 20)                                                      \
    X(tile, 0, 1 << 16)                                                        \
    X(target_us, 0, 1 << 30)                                                   \
    X(floor, 0, 100)                                                           \
    X(batch_rows, 1, 1 << 16)                                                  \
    X(batch_tokens, 1, 1 << 20)                                                \
    X(batch_outs, 1, 1 << 17)                                                  \
    X(blocks, 1, 1 << 24)                                                      \
    X(block_tokens, 1, 1 << 16)                                                \
    X(step, 1, 1 << 20)                                                        \
    X(groups, 1, KV_GROUPS)                                                    \
    X(cache, 0, 1)                                                             \
    X(owners, 1, (1 << 20) - 1)                                                \
    X(window0, 0, 1 << 30)                                                     \
    X(window1, 0, 1 << 30)                                                     \
    X(window2, 0, 1 << 30)                                                     \
    X(window3, 0, 1 << 30)                                                     \
    X(window4, 0, 1 << 30)                                                     \
    X(window5, 0, 1 << 30)                                                     \
    X(window6, 0, 1 << 30)                                                     \
    X(window7, 0, 1 << 30)                                                     \
    X(pass_us, 0, 1 << 30)                                                     \
    X(kept, 0, 100)                                                            \
    X(idle_us, 0, UINT64_MAX)

/* What scheduler, pool and batches were opened with. */
typedef struct {
#define X(name, least, most) uint64_t name;
    RECORD_HEAD_LIST(X)
#undef X
    char policy[RECORD_POLICY];
} record_head_t;

/* Fills h; owners 0: without a cache; its shares (kept, idle_us) as a pool
 * begins with. */
void record_head(record_head_t *h, const sched_cfg_t *s, const kv_cfg_t *kv,
    uint32_t owners, const batch_t *b);

/* The other way; window gets the groups' and is borrowed by kv.  s gets no
 * policy. */
void record_configs(const record_head_t *h, sched_cfg_t *s, kv_cfg_t *kv,
    uint32_t window[KV_GROUPS]);

/* NULL, or the name of a field that is out of its limits. */
const char *record_head_bad(const record_head_t *h);

/* --- writing ------------------------------------------------------------ */

/* Appends v to p, at most RECORD_NUM bytes; where it ends. */
#define RECORD_NUM 10
uint8_t *record_put(uint8_t *p, uint64_t v);

/* The bytes that lead a record of len bytes. */
#define RECORD_LEAD 4
void record_lead(uint8_t *p, record_type_t type, size_t len);

/* Fills the 8 bytes before a frame's payload of len bytes at p. */
#define RECORD_FRAME 8
void record_frame(uint8_t lead[RECORD_FRAME], const uint8_t *p, size_t len);

/* Writes the start of a file into p, which has RECORD_HEAD_BYTES; how many. */
#define RECORD_HEAD_BYTES 512
size_t record_head_put(uint8_t *p, const record_head_t *h);

/* --- reading ------------------------------------------------------------ */

/* A record, taken apart number by number; what is missing sets bad. */
typedef struct {
    record_type_t type;
    const uint8_t *p, *end;
    int bad;
} record_t;

typedef struct record_file_s record_file_t;

/*
 * Reads the head from f, which is borrowed until record_close.  NULL with one
 * sentence in err if it is none of a recording.
 */
record_file_t *record_file_open(
    FILE *f, record_head_t *h, char *err, size_t errlen);
void record_file_close(record_file_t *rf);

/*
 * The next record, valid until the next call: 1.  0: the file ends here, be it
 * that it was cut off (*cut).  -1 with a sentence in err: it is damaged.
 */
int record_file_next(
    record_file_t *rf, record_t *r, int *cut, char *err, size_t errlen);

/* The next number of r, at most most. */
uint64_t record_get(record_t *r, uint64_t most);

/* How many tokens it holds, and they; each below RECORD_TOKENS. */
#define RECORD_TOKENS (1u << 31)
size_t record_tokens_n(const record_t *r);
void record_tokens(record_t *r, uint32_t *ids, size_t n);

/* Was all of r read, and nothing missing? */
int record_whole(const record_t *r);

#endif
