/*
 * Every field that nginx workers and the engine can write for each other to
 * read, and other values for it: what tests/fake_engine.c and
 * tests/hostile_worker.c change, one at a time, in what is else sound.
 *
 * A row is one field, found by its offset in its structure; a case is a row
 * and a value.  Rows are gone through in turn, so that none is left out by
 * chance; values come from a seed.
 */
#ifndef MUTATE_H
#define MUTATE_H

#include "llm_wire.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    MUTATE_MESSAGE, /* a first message's length and descriptors; at: which */
    MUTATE_HELLO,
    MUTATE_WELCOME,
    MUTATE_SEG,
    MUTATE_STATE,
    MUTATE_SUBMIT_CTL,
    MUTATE_EVENT_CTL,
    MUTATE_LINE,
    MUTATE_SUBMIT,
    MUTATE_SEC, /* at: in the head of the section that is picked */
    MUTATE_ADMIT,
    MUTATE_COUNTED,
    MUTATE_TOKENS,
    MUTATE_LP, /* at: in the entry that is picked */
    MUTATE_DONE,
    MUTATE_ERROR,
    MUTATE_KINDS
};

/* What a first message can be but for its fields. */
enum {
    MUTATE_EMPTY,
    MUTATE_SHORT,
    MUTATE_LONG,
    MUTATE_NO_FDS,
    MUTATE_ONE_FD,
    MUTATE_SWAPPED,
    MUTATE_UNSEALED,
    MUTATE_NO_MEMFD,
    MUTATE_TOO_SMALL,
    MUTATE_MESSAGES
};

typedef struct {
    uint32_t kind;
    uint32_t at;
    uint32_t size; /* bytes: 1, 2, 4 or 8 */
    const char *name;
} mutate_row_t;

/* clang-format off */
#define F(kind, T, field)                                                      \
    {MUTATE_##kind, (uint32_t) offsetof(T, field),                             \
        (uint32_t) sizeof(((T *) 0)->field), #kind "." #field}
#define HEAD(kind, T)                                                          \
    F(kind, T, hdr.len), F(kind, T, hdr.type), F(kind, T, hdr.flags),          \
    F(kind, T, id.epoch), F(kind, T, id.slot), F(kind, T, id.gen)
#define MESSAGE(which) {MUTATE_MESSAGE, MUTATE_##which, 0, "MESSAGE." #which}
#define X(name, kind, help) F(STATE, llm_state_t, name),

static const mutate_row_t mutate_rows[] = {
    MESSAGE(EMPTY), MESSAGE(SHORT), MESSAGE(LONG), MESSAGE(NO_FDS),
    MESSAGE(ONE_FD), MESSAGE(SWAPPED), MESSAGE(UNSEALED), MESSAGE(NO_MEMFD),
    MESSAGE(TOO_SMALL),

    F(HELLO, llm_msg_hello_t, magic), F(HELLO, llm_msg_hello_t, type),
    F(HELLO, llm_msg_hello_t, version), F(HELLO, llm_msg_hello_t, version_min),
    F(HELLO, llm_msg_hello_t, pid),

    F(WELCOME, llm_msg_welcome_t, magic), F(WELCOME, llm_msg_welcome_t, type),
    F(WELCOME, llm_msg_welcome_t, version),
    F(WELCOME, llm_msg_welcome_t, epoch), F(WELCOME, llm_msg_welcome_t, slots),
    F(WELCOME, llm_msg_welcome_t, seg_size),
    F(WELCOME, llm_msg_welcome_t, state_size),
    F(WELCOME, llm_msg_welcome_t, submit_ctl),
    F(WELCOME, llm_msg_welcome_t, event_ctl),
    F(WELCOME, llm_msg_welcome_t, lines),
    F(WELCOME, llm_msg_welcome_t, submit_data),
    F(WELCOME, llm_msg_welcome_t, event_data),
    F(WELCOME, llm_msg_welcome_t, submit_size),
    F(WELCOME, llm_msg_welcome_t, event_size),
    F(WELCOME, llm_msg_welcome_t, credit_max),
    F(WELCOME, llm_msg_welcome_t, pad),

    F(SEG, llm_seg_head_t, magic), F(SEG, llm_seg_head_t, version),
    F(SEG, llm_seg_head_t, epoch), F(SEG, llm_seg_head_t, line_sleeps),

    F(STATE, llm_state_t, magic), F(STATE, llm_state_t, version),
    F(STATE, llm_state_t, size), F(STATE, llm_state_t, ready),
    F(STATE, llm_state_t, draining), F(STATE, llm_state_t, models_n),
    F(STATE, llm_state_t, pid), F(STATE, llm_state_t, heartbeat[0]),
    F(STATE, llm_state_t, heartbeat[1]), F(STATE, llm_state_t, heartbeat[2]),
    F(STATE, llm_state_t, models[0].name[0]),
    F(STATE, llm_state_t, models[0].name[3]),
    F(STATE, llm_state_t, models[0].name[4]),
    F(STATE, llm_state_t, models[0].name[LLM_NAME_MAX - 1]),
    F(STATE, llm_state_t, models[0].created),
    F(STATE, llm_state_t, models[0].context),
    F(STATE, llm_state_t, models[0].vocab),
    F(STATE, llm_state_t, models[LLM_MODELS_MAX - 1].name[0]),
    LLM_METRICS(X)

    F(SUBMIT_CTL, llm_ring_ctl_t, tail), F(SUBMIT_CTL, llm_ring_ctl_t, head),
    F(SUBMIT_CTL, llm_ring_ctl_t, sleeps),
    F(EVENT_CTL, llm_ring_ctl_t, tail), F(EVENT_CTL, llm_ring_ctl_t, head),
    F(EVENT_CTL, llm_ring_ctl_t, sleeps),
    F(LINE, llm_slot_line_t, taken), F(LINE, llm_slot_line_t, cancel),

    HEAD(SUBMIT, llm_wire_submit_t), F(SUBMIT, llm_wire_submit_t, head_len),
    F(SUBMIT, llm_wire_submit_t, kind), F(SUBMIT, llm_wire_submit_t, flags),
    F(SUBMIT, llm_wire_submit_t, n), F(SUBMIT, llm_wire_submit_t, max_tokens),
    F(SUBMIT, llm_wire_submit_t, credit),
    F(SUBMIT, llm_wire_submit_t, top_logprobs),
    F(SUBMIT, llm_wire_submit_t, top_k),
    F(SUBMIT, llm_wire_submit_t, temperature),
    F(SUBMIT, llm_wire_submit_t, top_p), F(SUBMIT, llm_wire_submit_t, min_p),
    F(SUBMIT, llm_wire_submit_t, repetition_penalty),
    F(SUBMIT, llm_wire_submit_t, presence_penalty),
    F(SUBMIT, llm_wire_submit_t, frequency_penalty),
    F(SUBMIT, llm_wire_submit_t, seed), F(SUBMIT, llm_wire_submit_t, weight),
    F(SUBMIT, llm_wire_submit_t, priority),
    F(SUBMIT, llm_wire_submit_t, concurrent),
    F(SUBMIT, llm_wire_submit_t, queue_max),
    F(SUBMIT, llm_wire_submit_t, queue_ms), F(SUBMIT, llm_wire_submit_t, wants),
    F(SUBMIT, llm_wire_submit_t, prompt_tops),
    F(SEC, llm_wire_sec_t, type), F(SEC, llm_wire_sec_t, len),

    HEAD(ADMIT, llm_wire_admit_t), F(ADMIT, llm_wire_admit_t, max_tokens),

    HEAD(COUNTED, llm_wire_counted_t),
    F(COUNTED, llm_wire_counted_t, prompt_tokens),
    F(COUNTED, llm_wire_counted_t, max_tokens),
    F(COUNTED, llm_wire_counted_t, choices),

    HEAD(TOKENS, llm_wire_tokens_t), F(TOKENS, llm_wire_tokens_t, choice),
    F(TOKENS, llm_wire_tokens_t, finish), F(TOKENS, llm_wire_tokens_t, tokens),
    F(TOKENS, llm_wire_tokens_t, text_len),
    F(TOKENS, llm_wire_tokens_t, lp_len),
    F(LP, llm_wire_lp_t, token), F(LP, llm_wire_lp_t, logprob),
    F(LP, llm_wire_lp_t, len), F(LP, llm_wire_lp_t, top),

    HEAD(DONE, llm_wire_done_t), F(DONE, llm_wire_done_t, prompt_tokens),
    F(DONE, llm_wire_done_t, cached_tokens),
    F(DONE, llm_wire_done_t, completion_tokens),
    F(DONE, llm_wire_done_t, queue_us), F(DONE, llm_wire_done_t, prefill_us),
    F(DONE, llm_wire_done_t, decode_us),

    HEAD(ERROR, llm_wire_error_t), F(ERROR, llm_wire_error_t, err),
    F(ERROR, llm_wire_error_t, prompt_tokens),
    F(ERROR, llm_wire_error_t, completion_tokens),
    F(ERROR, llm_wire_error_t, param[0]), F(ERROR, llm_wire_error_t, param[31]),
    F(ERROR, llm_wire_error_t, text[0]), F(ERROR, llm_wire_error_t, text[159]),
    F(ERROR, llm_wire_error_t, retry_ms),
};
#undef F
#undef HEAD
#undef MESSAGE
#undef X
/* clang-format on */

#define MUTATE_ROWS (sizeof(mutate_rows) / sizeof(mutate_rows[0]))

typedef struct {
    uint64_t seed;
    uint64_t cases;
    uint32_t count[MUTATE_ROWS]; /* cases of each */
} mutate_t;


static inline uint64_t
mutate_random(mutate_t *m)
{
    m->seed ^= m->seed << 13;
    m->seed ^= m->seed >> 7;
    m->seed ^= m->seed << 17;
    return m->seed;
}


static inline void
mutate_open(mutate_t *m, uint64_t seed)
{
    memset(m, 0, sizeof(*m));
    m->seed = seed * 2654435761u + 88172645463325252ull;
}


/* The row behind *row, whose kind is among kinds (bits); sets *row to it. */
static inline uint32_t
mutate_next(uint32_t *row, uint32_t kinds)
{
    do {
        *row = (*row + 1) % MUTATE_ROWS;
    } while ((kinds >> mutate_rows[*row].kind & 1) == 0);

    return *row;
}


/* Another value of size bytes; never the one that was. */
static inline uint64_t
mutate_value(mutate_t *m, uint64_t was, uint32_t size)
{
    uint32_t bits = size * 8;
    uint64_t mask = size == 8 ? ~0ull : (1ull << bits) - 1, v;

    switch (mutate_random(m) % 10) {
    case 0:
        v = 0;
        break;
    case 1:
        v = ~0ull;
        break;
    case 2:
        v = was + 1;
        break;
    case 3:
        v = was - 1;
        break;
    case 4:
        v = was ^ 1ull << mutate_random(m) % bits;
        break;
    case 5:
        v = 1ull << (bits - 1);
        break;
    case 6:
        v = mutate_random(m) % 40;
        break;
    case 7:
        v = was + 8 * (mutate_random(m) % 64);
        break;
    case 8:
        v = was - 8 * (mutate_random(m) % 64);
        break;
    default:
        v = mutate_random(m) >> mutate_random(m) % 64;
        break;
    }

    return (v & mask) != (was & mask) ? v & mask : (was ^ 1) & mask;
}


/* Changes the field of a row in the structure at p, which both may see. */
static inline void
mutate_field(mutate_t *m, uint32_t row, void *p)
{
    const mutate_row_t *f = &mutate_rows[row];
    uint8_t *at = (uint8_t *) p + f->at;
    uint64_t v = 0;

    memcpy(&v, at, f->size);
    v = mutate_value(m, v, f->size);
    memcpy(at, &v, f->size);

    m->count[row]++;
    m->cases++;
}


/* The least number of cases that a row of these kinds has had, and whose. */
static inline uint32_t
mutate_least(const mutate_t *m, uint32_t kinds, const char **name)
{
    uint32_t i, least = UINT32_MAX;

    for (i = 0; i < MUTATE_ROWS; i++) {
        if (kinds >> mutate_rows[i].kind & 1 && m->count[i] < least) {
            least = m->count[i];
            *name = mutate_rows[i].name;
        }
    }

    return least;
}

#endif
