/*
 * Who is in the engine at this moment: what lies behind the state page's
 * counters, in the same read-only memory, for llm_status and llm-top.
 *
 *     0              llm_state_t       LLM_STATE_SIZE bytes (llm_wire.h)
 *     LLM_LIVE_AT    llm_live_head_t   where the rest is; limits; histograms
 *     steps_at       steps_n words     the last steps, one word each
 *     tenants_at     tenants_n rows    tenants with requests, and lately had
 *     rows_at        rows_n rows       one per place in the request table
 *
 * DESIGN.  The loop writes it and nobody else can: the file is sealed.  All of
 * it is 64-bit words, each a single atomic, so a reader neither waits for the
 * engine nor makes it wait.  No two words are consistent with each other, but
 * for one thing: a row is of one request.  `who` is 0 while a row changes
 * hands and has the generation in its upper half, and it is read before and
 * behind the others; a row whose `who` moved on is left out, never tried
 * again.  Stores release and loads acquire, so that order is kept.
 *
 * VERSIONS.  As in llm_wire.h: fields are appended, and each part's length is
 * in the head.  An engine that does not know this header has a state page of
 * LLM_STATE_SIZE bytes, and a reader of it finds no list.
 *
 * All of it is input to who reads it: llm_live_open judges the head, and what
 * it says yes to cannot lead outside (tests/fuzz/llm_live.c).  Text is bytes
 * as they came; who prints it escapes it.
 */
#ifndef LLM_LIVE_H
#define LLM_LIVE_H

#include "llm_wire.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LLM_LIVE_MAGIC    0x6576696c6d6c6c00ull /* "\0llmlive" */
#define LLM_LIVE_AT       LLM_STATE_SIZE
#define LLM_LIVE_HEAD     4096 /* bytes kept for the head */
#define LLM_LIVE_TEXT     64   /* bytes of a name or an id that are shown */
#define LLM_LIVE_TENANTS  64
#define LLM_LIVE_STEPS    512  /* a power of two */
#define LLM_LIVE_BUCKETS  96   /* of a histogram */
#define LLM_LIVE_ROWS_MAX 4000 /* more would make the file exceed 1 MiB */

/* X(state, name, meaning): of a request, as it is shown */
#define LLM_LIVE_STATES(X)                                                     \
    X(FREE, "", "no request")                                                  \
    X(WAITING, "waiting", "has not started")                                   \
    X(PREFILL, "prefill", "its prompt is being computed")                      \
    X(DECODE, "decode", "a token in every step")                               \
    X(STALLED, "stalled", "keeps its blocks, left out: no credit, outranked")  \
    X(PREEMPTED, "preempted", "lost its blocks, will start again")

/* clang-format off */
enum {
#define X(state, name, meaning) LLM_LIVE_##state,
    LLM_LIVE_STATES(X)
#undef X
    LLM_LIVE_STATES_N
};
/* clang-format on */

/* The histograms, in microseconds. */
enum {
    LLM_LIVE_QUEUE, /* arrival to first computed token */
    LLM_LIVE_FIRST, /* arrival to first sampled token */
    LLM_LIVE_GAP,   /* between two tokens of a request */
    LLM_LIVE_HISTS
};

/*
 * Constant once the page is handed out, but for steps, rows_used,
 * step_target_us and the histograms.
 */
typedef struct {
    uint64_t magic;
    uint64_t head_len; /* bytes that the engine knows of this */
    uint64_t rows_at;  /* offsets from the state page's beginning */
    uint64_t rows_n;
    uint64_t row_len;
    uint64_t tenants_at;
    uint64_t tenants_n;
    uint64_t tenant_len;
    uint64_t steps_at;
    uint64_t steps_n; /* a power of two */
    uint64_t started_us;
    uint64_t batch_tokens; /* a step's limits */
    uint64_t batch_rows;
    uint64_t step_target_us; /* 0: there is none */
    uint64_t steps;          /* run so far */
    uint64_t rows_used;      /* rows behind these have never been used */
    uint64_t hists[LLM_LIVE_HISTS][LLM_LIVE_BUCKETS];
} llm_live_head_t;

/* A request.  Times are of CLOCK_MONOTONIC. */
typedef struct {
    uint64_t who; /* generation << 32 | LLM_LIVE_*; 0: nobody */
    uint64_t arrival_us;
    uint64_t begun_us; /* first token computed; 0: not yet */
    uint64_t first_us; /* first token sampled; 0: not yet */
    uint64_t priority; /* class, 0 is highest */
    uint64_t weight;   /* of its tenant */
    uint64_t choices;
    uint64_t prompt;   /* tokens, over all prompts */
    uint64_t cached;   /* of them, from the prefix cache */
    uint64_t computed; /* tokens in its blocks, over all choices */
    uint64_t sampled;  /* tokens, over all choices */
    uint64_t limit;    /* of sampled */
    uint64_t blocks;   /* that it uses, those of a shared prefix too */
    uint64_t id[LLM_LIVE_TEXT / 8];
    uint64_t tenant[LLM_LIVE_TEXT / 8];
    uint64_t pad[3];
} llm_live_row_t;

/* A tenant; row 0 is all those that found no row, with no name. */
typedef struct {
    uint64_t who;    /* changes when the row gets another tenant; 0: none */
    uint64_t weight; /* of its last request */
    uint64_t waiting;
    uint64_t running; /* requests that have started */
    uint64_t blocks;
    uint64_t computed; /* token rows that went through the model for it */
    uint64_t sampled;
    uint64_t pad;
    uint64_t name[LLM_LIVE_TEXT / 8];
} llm_live_tenant_t;

_Static_assert(sizeof(llm_live_head_t) <= LLM_LIVE_HEAD, "wire");
_Static_assert(sizeof(llm_live_row_t) == 256, "wire");
_Static_assert(sizeof(llm_live_tenant_t) == 128, "wire");

/* workers of before take no larger file */
_Static_assert(LLM_LIVE_AT + LLM_LIVE_HEAD + LLM_LIVE_STEPS * 8
                       + LLM_LIVE_TENANTS * sizeof(llm_live_tenant_t)
                       + LLM_LIVE_ROWS_MAX * sizeof(llm_live_row_t)
                   <= 1 << 20,
    "wire");

/* Bytes of the state page's file with a list of rows rows; 0: no list. */
static inline uint64_t
llm_live_size(uint32_t rows)
{
    return rows == 0 ? LLM_STATE_SIZE
                     : LLM_LIVE_AT + LLM_LIVE_HEAD + LLM_LIVE_STEPS * 8
                           + LLM_LIVE_TENANTS * sizeof(llm_live_tenant_t)
                           + (uint64_t) rows * sizeof(llm_live_row_t);
}


static inline uint64_t
llm_live_get(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}


static inline void
llm_live_put(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}


/* --- steps: microseconds, prompt tokens and decoding rows in one word ---- */

typedef struct {
    uint32_t us;      /* at most 16.7 s */
    uint32_t prefill; /* tokens that are not decoding rows */
    uint32_t decode;  /* rows */
} llm_live_step_t;

static inline uint64_t
llm_live_step_word(const llm_live_step_t *s)
{
    uint64_t us = s->us < 0xffffff ? s->us : 0xffffff;
    uint64_t prefill = s->prefill < 0xfffff ? s->prefill : 0xfffff;
    uint64_t decode = s->decode < 0xfffff ? s->decode : 0xfffff;

    return us << 40 | prefill << 20 | decode;
}


static inline void
llm_live_step_read(uint64_t word, llm_live_step_t *s)
{
    s->us = (uint32_t) (word >> 40);
    s->prefill = (uint32_t) (word >> 20) & 0xfffff;
    s->decode = (uint32_t) word & 0xfffff;
}


/* --- histograms: four buckets to an octave, from 64 us to 18 minutes ----- */

static inline uint32_t
llm_live_bucket(uint64_t us)
{
    uint32_t e, i;

    if (us < 64) {
        return 0;
    }

    e = 63 - (uint32_t) __builtin_clzll(us);
    i = (e - 6) * 4 + (uint32_t) (us >> (e - 2) & 3);

    return i < LLM_LIVE_BUCKETS ? i : LLM_LIVE_BUCKETS - 1;
}


/* The smallest value of bucket i; i may be LLM_LIVE_BUCKETS. */
static inline uint64_t
llm_live_bound(uint32_t i)
{
    return i == 0 ? 0 : (4ull + i % 4) << (i / 4 + 4);
}


/* --- reading -------------------------------------------------------------- */

/* A list that was found good; borrowed from page. */
typedef struct {
    const uint8_t *page;
    llm_live_head_t head; /* copied when it was judged; histograms not kept */
} llm_live_t;

/* Does n times len at at lie behind the head and within size? */
static inline int
llm_live_within(uint64_t at, uint64_t n, uint64_t len, uint64_t size)
{
    return at % 8 == 0 && len % 8 == 0 && len >= 8 && at >= LLM_LIVE_AT
           && at <= size && n <= (size - at) / len;
}


/*
 * Is there a list in the size bytes at page, a mapped state page?  1 with
 * *live set, or 0: the engine knows of none, or it makes no sense.
 */
static inline int
llm_live_open(llm_live_t *live, const void *page, uint64_t size)
{
    const uint64_t *from;
    llm_live_head_t *h = &live->head;
    uint64_t words, known, i;

    if (size < LLM_LIVE_AT + offsetof(llm_live_head_t, hists)) {
        return 0;
    }

    from = (const uint64_t *) (const void *) ((const uint8_t *) page
                                              + LLM_LIVE_AT);
    known = llm_live_get(&from[1]);
    memset(h, 0, sizeof(*h));
    if (llm_live_get(&from[0]) != LLM_LIVE_MAGIC || known % 8 != 0
        || known < offsetof(llm_live_head_t, hists)
        || known > size - LLM_LIVE_AT) {
        return 0;
    }

    words = (known < sizeof(*h) ? known : sizeof(*h)) / 8;
    for (i = 0; i < words; i++) {
        ((uint64_t *) (void *) h)[i] = llm_live_get(&from[i]);
    }

    live->page = (const uint8_t *) page;

    return h->head_len == known
           && llm_live_within(h->rows_at, h->rows_n, h->row_len, size)
           && llm_live_within(h->tenants_at, h->tenants_n, h->tenant_len, size)
           && llm_live_within(h->steps_at, h->steps_n, 8, size)
           && h->steps_n > 0 && (h->steps_n & (h->steps_n - 1)) == 0
           && h->rows_n <= UINT32_MAX && h->tenants_n <= UINT32_MAX;
}


/*
 * Copies a row of len bytes into one of size, whose first word says whose it
 * is.  0: it is nobody's, or changed hands.  What the engine does not know of
 * it is 0.
 */
static inline int
llm_live_copy(
    const llm_live_t *live, uint64_t at, uint64_t len, void *row, uint32_t size)
{
    const uint64_t *from = (const uint64_t *) (const void *) (live->page + at);
    uint64_t *to = (uint64_t *) row, i;

    memset(row, 0, size);
    to[0] = llm_live_get(&from[0]);
    if (to[0] == 0) {
        return 0;
    }
    for (i = 1; i < len / 8 && i < size / 8; i++) {
        to[i] = llm_live_get(&from[i]);
    }

    /* the state in the lower half may have changed, the request not */
    return llm_live_get(&from[0]) >> 32 == to[0] >> 32;
}


/* The head itself, for what changes. */
static inline const llm_live_head_t *
llm_live_head(const llm_live_t *live)
{
    return (const llm_live_head_t *) (const void *) (live->page + LLM_LIVE_AT);
}


/* The word of step n, or of a later one that has its place by now. */
static inline uint64_t
llm_live_step_at(const llm_live_t *live, uint64_t n)
{
    const uint64_t *steps =
        (const uint64_t *) (const void *) (live->page + live->head.steps_at);

    return llm_live_get(&steps[n & (live->head.steps_n - 1)]);
}


/* Rows that are worth a look now: i < this. */
static inline uint32_t
llm_live_rows(const llm_live_t *live)
{
    uint64_t used = llm_live_get(&llm_live_head(live)->rows_used);

    return (uint32_t) (used < live->head.rows_n ? used : live->head.rows_n);
}


/* Request i < llm_live_rows(): 1 with a copy of its row, 0: there is none. */
static inline int
llm_live_row(const llm_live_t *live, uint32_t i, llm_live_row_t *row)
{
    const llm_live_head_t *h = &live->head;

    return llm_live_copy(
        live, h->rows_at + i * h->row_len, h->row_len, row, sizeof(*row));
}


/* Tenant i < live->head.tenants_n, likewise. */
static inline int
llm_live_tenant(const llm_live_t *live, uint32_t i, llm_live_tenant_t *row)
{
    const llm_live_head_t *h = &live->head;

    return llm_live_copy(live, h->tenants_at + i * h->tenant_len, h->tenant_len,
        row, sizeof(*row));
}


/* What a row's `who` says of its state; LLM_LIVE_STATES_N: a newer one. */
static inline uint32_t
llm_live_state(uint64_t who)
{
    uint32_t state = (uint32_t) who;

    return state < LLM_LIVE_STATES_N ? state : LLM_LIVE_STATES_N;
}


static inline const char *
llm_live_state_name(uint64_t who)
{
#define X(state, name, meaning) name,
    static const char *const names[] = {LLM_LIVE_STATES(X) "unknown"};
#undef X

    return names[llm_live_state(who)];
}


/* A row's text with a final 0, as it came: not judged, not escaped. */
static inline uint32_t
llm_live_text(const uint64_t *words, char text[LLM_LIVE_TEXT + 1])
{
    memcpy(text, words, LLM_LIVE_TEXT);
    text[LLM_LIVE_TEXT] = '\0';

    return (uint32_t) strlen(text);
}

#endif
