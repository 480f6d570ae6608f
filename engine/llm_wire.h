/*
 * What nginx workers and the engine say to each other: the attach handshake
 * on the socket, the layout of the shared segment and of the state page, and
 * the records in the two rings.
 *
 * RULES.  Integers are native-endian (one machine).  A field, once shipped,
 * never moves; new fields go to the end of a fixed part, whose size travels
 * with it (head_len), so version N reads N-1 by taking the missing tail as
 * zero, and N-1 reads N by ignoring what is behind its own end.  Behind the
 * fixed part a SUBMIT has sections (type, length, bytes, padded to 8); an
 * unknown section type is skipped.  Nothing here is a pointer.
 *
 * Everything is input to the side that reads it: the functions llm_wire_*_ok
 * at the bottom judge a private copy, and are fuzzed (tests/fuzz/llm_wire.c).
 *
 *   worker                                   engine
 *     |------------- connect ------------------>|  checks SO_PEERCRED
 *     |------------- HELLO -------------------->|  version, within 2 s
 *     |<------------ WELCOME + 2 memfds --------|  epoch, sizes, or REFUSE
 *     |== SUBMIT ADMIT ==> ring ===============>|
 *     |<============== ring == COUNTED TOKENS DONE ERROR
 *     |-- slot line: taken, cancel ------------>|  no record, just two words
 *     |<-------- one byte: doorbell ----------->|
 *     |------------- EOF ---------------------->|  either way: death
 *
 *   observer (llm-top)                       engine
 *     |------------- OBSERVE ------------------>|  a hello of another type
 *     |<------------ STATE + 1 memfd -----------|  the state page, or REFUSE;
 *     |<------------ EOF -----------------------|  it holds nothing here
 *
 *   segment (one memfd per attachment, sealed)
 *     0            header                LLM_SEG_HEAD bytes
 *     submit_ctl   llm_ring_ctl_t        SUBMIT, worker > engine
 *     event_ctl    llm_ring_ctl_t        EVENT, engine > worker
 *     lines        slots x llm_slot_line_t, written by the worker
 *     submit_data, event_data            page aligned
 */
#ifndef LLM_WIRE_H
#define LLM_WIRE_H

#include "llm_ring.h"

#include <stddef.h>
#include <stdint.h>

#define LLM_WIRE_MAGIC       0x316d6c6c78676e00ull /* "\0ngxllm1" */
#define LLM_WIRE_VERSION     1
#define LLM_WIRE_VERSION_MIN 1 /* the oldest that is still understood */

#define LLM_SLOTS_MAX    4096
#define LLM_SEG_HEAD     4096
#define LLM_TERMINAL_MAX 256  /* DONE and ERROR, bytes: room is kept */
#define LLM_TOKENS_MAX   8192 /* a TOKENS record, bytes */
#define LLM_MODELS_MAX   16
#define LLM_NAME_MAX     128 /* model and tenant names, with the final 0 */
#define LLM_STATE_SIZE                                                         \
    4096 /* the state page, zero behind what is filled;
                                 its file may go on with llm_live.h */

/* Caps of one request; both sides check them. */
#define LLM_CHOICES_MAX      16 /* prompts x n */
#define LLM_STOPS_MAX        16
#define LLM_STOP_LEN_MAX     256 /* bytes of one stop string */
#define LLM_BIAS_MAX         1024
#define LLM_SALT_MAX         256 /* bytes */
#define LLM_TOP_LOGPROBS_MAX 20


/* --- handshake: one SOCK_SEQPACKET message each ------------------------- */

enum {
    LLM_MSG_HELLO = 1,
    LLM_MSG_WELCOME = 2,
    LLM_MSG_REFUSE = 3,
    LLM_MSG_OBSERVE = 4, /* an llm_msg_hello_t */
    LLM_MSG_STATE = 5
};

typedef struct {
    uint64_t magic;
    uint32_t type;    /* LLM_MSG_HELLO or LLM_MSG_OBSERVE */
    uint32_t version; /* the sender's newest */
    uint32_t version_min;
    uint32_t pid; /* must be SO_PEERCRED's, unless that is another namespace */
} llm_msg_hello_t;

typedef struct {
    uint64_t magic;
    uint32_t type;       /* LLM_MSG_WELCOME; two fds: segment, state page */
    uint32_t version;    /* what both will speak */
    uint32_t epoch;      /* of this attachment, never 0 and never used again */
    uint32_t slots;      /* usable slots, <= LLM_SLOTS_MAX */
    uint64_t seg_size;   /* bytes of the segment memfd */
    uint64_t state_size; /* bytes of the state page memfd */
    uint64_t submit_ctl; /* offsets in the segment */
    uint64_t event_ctl;
    uint64_t lines;
    uint64_t submit_data;
    uint64_t event_data;
    uint32_t submit_size; /* ring data bytes, powers of two */
    uint32_t event_size;
    uint32_t credit_max; /* a SUBMIT's credit is clamped to this, bytes */
    uint32_t pad;
} llm_msg_welcome_t;

typedef struct {
    uint64_t magic;
    uint32_t type;    /* LLM_MSG_REFUSE; the engine closes after it */
    uint32_t err;     /* llm_err.h */
    uint32_t version; /* the engine's newest and oldest */
    uint32_t version_min;
    char text[232]; /* one sentence, 0-terminated */
} llm_msg_refuse_t;

typedef struct {
    uint64_t magic;
    uint32_t type;       /* LLM_MSG_STATE; one fd: the state page */
    uint32_t version;    /* of the page: what both understand */
    uint64_t state_size; /* bytes of the memfd */
} llm_msg_state_t;

_Static_assert(sizeof(llm_msg_hello_t) == 24, "wire");
_Static_assert(sizeof(llm_msg_welcome_t) == 96, "wire");
_Static_assert(sizeof(llm_msg_refuse_t) == 256, "wire");
_Static_assert(sizeof(llm_msg_state_t) == 24, "wire");


/* --- segment ------------------------------------------------------------ */

/* At offset 0 of the segment; the rest of LLM_SEG_HEAD is zero. */
typedef struct {
    uint64_t magic;
    uint32_t version;
    uint32_t epoch;
    uint32_t line_sleeps; /* loop sleeps: exchanged by both, as ring.sleeps */
    uint32_t pad;
} llm_seg_head_t;

/*
 * A request's back channel, one cache line, written by the worker only.
 * taken: payload bytes (TOKENS text and logprobs) handed to the client's
 * socket since the slot's SUBMIT, free running.  cancel: the generation that
 * is to be cancelled; 0 is none, so generations start at 1.
 * A change is followed by an exchange of 0 into line_sleeps, and the doorbell
 * if it was 1.  text_in takes the doorbell and rings the loop's bell; so the
 * loop, before it sleeps, arms its bell first, then exchanges 1 into each
 * line_sleeps, then looks at the lines again.  The other order loses wake-ups
 * (tests/spin/credit.pml).
 */
typedef struct {
    uint64_t taken;
    uint32_t cancel;
    uint8_t pad[LLM_RING_LINE - 12];
} llm_slot_line_t;

_Static_assert(sizeof(llm_slot_line_t) == LLM_RING_LINE, "one line each");


/* --- state page: written by the engine, read-only to workers ------------ */

enum { LLM_THREAD_IN, LLM_THREAD_LOOP, LLM_THREAD_OUT, LLM_THREADS };

/*
 * What draining says.  Once a successor listens on the path there is no hurry:
 * the engine takes requests until each worker has attached there and left.
 */
enum { LLM_DRAIN_NONE, LLM_DRAIN_ENDS, LLM_DRAIN_SUCCEEDED };

typedef struct {
    char name[LLM_NAME_MAX];
    uint64_t created; /* unix seconds: the model file's */
    uint32_t context; /* tokens */
    uint32_t vocab;
} llm_state_model_t;

/*
 * The metric list: X(name, kind, help).  A row is a field of the state page,
 * a member of llm_status's JSON and a sample in its Prometheus form.  Each
 * has one writing thread in the engine.
 */
#define LLM_METRICS(X)                                                         \
    X(blocks_total, gauge, "KV blocks in the pool")                            \
    X(blocks_free, gauge, "KV blocks that nobody holds")                       \
    X(blocks_private, gauge, "KV blocks of running requests")                  \
    X(blocks_cached, gauge, "KV blocks in the prefix cache")                   \
    X(blocks_transit, gauge, "KV blocks being copied")                         \
    X(block_tokens, gauge, "tokens in one KV block")                           \
    X(requests_max, gauge, "requests that the engine can hold")                \
    X(requests_held, gauge, "requests in the engine, in any state")            \
    X(requests_waiting, gauge, "requests tokenised but not yet admitted")      \
    X(requests_running, gauge, "requests in the batch")                        \
    X(requests_stalled, gauge, "running requests without credit")              \
    X(requests_total, counter, "requests submitted")                           \
    X(requests_done, counter, "requests that ended with DONE")                 \
    X(requests_failed, counter, "requests that ended with ERROR")              \
    X(requests_cancelled, counter, "requests that were cancelled")             \
    X(prompt_tokens, counter, "prompt tokens of ended requests")               \
    X(computed_tokens, counter, "token rows that went through the model")      \
    X(completion_tokens, counter, "tokens sampled")                            \
    X(wasted_tokens, counter, "tokens sampled behind a stop")                  \
    X(credit_stalls, counter, "times that a request ran out of credit")        \
    X(preemptions, counter, "requests that lost their blocks")                 \
    X(turns, counter, "batches run")                                           \
    X(attachments, gauge, "workers attached")                                  \
    X(cache_asked, counter, "tokens looked for in the prefix cache")           \
    X(cache_hits, counter, "of them, tokens that it had")                      \
    X(cache_evictions, counter, "KV blocks that the prefix cache gave up")     \
    X(cache_waits, counter, "sequences that waited for another's prefix")      \
    X(blocks_pinned, gauge, "KV blocks kept for what all prompts begin with")  \
    X(host_blocks_total, gauge, "KV blocks that kv_host_memory has room for")  \
    X(host_blocks_used, gauge, "of them, with a copy")                         \
    X(host_blocks_out, counter, "KV blocks copied to host memory")             \
    X(host_blocks_in, counter, "KV blocks copied back")                        \
    X(host_bytes_out, counter, "bytes copied to host memory")                  \
    X(host_bytes_in, counter, "bytes copied back")                             \
    X(host_copy_us, counter, "microseconds that copies took")                  \
    X(host_copies_failed, counter, "copies that failed")                       \
    X(host_blocks_lost, counter, "KV blocks evicted before they were copied")  \
    X(host_hits, counter, "sequences that found more in host memory")          \
    X(host_tokens, counter, "tokens that these need not compute")              \
    X(discarded_rows, counter, "rows planned ahead for who had ended then")    \
    X(grammars_compiled, counter, "grammars compiled")                         \
    X(grammars_reused, counter, "grammars that were compiled already")         \
    X(grammars_refused, counter, "grammars that could not be compiled")        \
    X(grammar_us, counter, "microseconds that compiling took")                 \
    X(masks, counter, "masks of tokens that a grammar allowed")                \
    X(mask_us, counter, "microseconds that masks took")                        \
    X(jump_tokens, counter, "tokens that a grammar left no choice of")         \
    X(ranks, gauge, "ranks that compute the model together")

/*
 * Each field is one atomic (__atomic_load_n, relaxed); no two are consistent
 * with each other.  models[] is written before the page is handed out.  The
 * page has at least one size for all versions, so a row that an older engine
 * does not know reads as zero.
 */
typedef struct {
    uint64_t magic;
    uint32_t version;
    uint32_t size;     /* bytes that the engine fills */
    uint32_t ready;    /* model loaded */
    uint32_t draining; /* LLM_DRAIN_* */
    uint32_t models_n;
    uint32_t pid;
    uint64_t heartbeat[LLM_THREADS]; /* grows at least once a second */
    llm_state_model_t models[LLM_MODELS_MAX];
#define X(name, kind, help) uint64_t name;
    LLM_METRICS(X) /* last: new rows are appended */
#undef X
} llm_state_t;

_Static_assert(sizeof(llm_state_t) <= LLM_STATE_SIZE, "rows fit the page");


/* --- records ------------------------------------------------------------ */

enum {
    LLM_REC_SUBMIT = 1, /* worker > engine */
    LLM_REC_ADMIT = 2,
    LLM_REC_COUNTED = 16, /* engine > worker */
    LLM_REC_TOKENS = 17,
    LLM_REC_DONE = 18, /* terminal */
    LLM_REC_ERROR = 19 /* terminal */
};

/* One request, on both sides; gen tells a slot's users apart, never 0. */
typedef struct {
    uint32_t epoch;
    uint32_t slot;
    uint32_t gen;
} llm_wire_id_t;

enum { LLM_KIND_CHAT, LLM_KIND_TEXT, LLM_KINDS };

enum {
    LLM_F_HOLD = 1 << 0,     /* answer COUNTED, run only after ADMIT */
    LLM_F_LOGPROBS = 1 << 1, /* send logprobs, top_logprobs of them */
    LLM_F_IGNORE_EOS = 1 << 2,
    LLM_F_SEED = 1 << 3,     /* seed is given; else the engine draws one */
    LLM_F_ECHO = 1 << 4,     /* completions: the prompt's text comes first */
    LLM_F_PROMPT = 1 << 5,   /* only the prompt: what ECHO sends, then DONE */
    LLM_F_IDS = 1 << 6,      /* ECHO sends its ids, in decimal with commas */
    LLM_F_NO_BOS = 1 << 7,   /* a text gets no begin token */
    LLM_F_NO_TURN = 1 << 8,  /* CHAT: no assistant's turn is begun */
    LLM_F_TEMPLATE = 1 << 9, /* CHAT: what else the template gets is here */
    LLM_F_GO_ON = 1 << 10,   /* CHAT: the last message's turn stays open */
    LLM_F_PROMPT_LPS = 1 << 11, /* logprobs of the prompt's tokens too */
    LLM_F_SCORE = 1 << 12,      /* of the prompt only: nothing is sampled */
    LLM_F_GRAMMAR = 1 << 13,    /* the output obeys LLM_SEC_GRAMMAR */
    LLM_F_ALL = (1 << 14) - 1
};

typedef struct {
    llm_ring_hdr_t hdr; /* LLM_REC_SUBMIT */
    llm_wire_id_t id;
    uint32_t head_len; /* sizeof(llm_wire_submit_t) as the sender knows it */
    uint32_t kind;
    uint32_t flags;
    uint32_t n;          /* choices per prompt, >= 1 */
    uint32_t max_tokens; /* per choice; 0 is as many as the context takes */
    uint32_t credit;     /* payload bytes that may be untaken */
    uint32_t top_logprobs;
    uint32_t top_k;           /* 0 is off */
    float temperature;        /* 0 is greedy */
    float top_p;              /* 1 is off */
    float min_p;              /* 0 is off */
    float repetition_penalty; /* 1 is off */
    float presence_penalty;   /* 0 is off */
    float frequency_penalty;  /* 0 is off */
    uint64_t seed;
    uint32_t weight;     /* of the tenant, >= 1 */
    uint32_t priority;   /* class, 0 is highest */
    uint32_t concurrent; /* of the tenant, 0 is no limit */
    uint32_t queue_max;  /* of the tenant, 0 is no limit */
    uint32_t queue_ms;   /* longest wait, 0 is no limit */
    uint32_t wants;      /* LLM_W_*: what an engine may leave undone */

    /* not in the oldest version */
    uint32_t prompt_tops; /* as top_logprobs, with LLM_F_PROMPT_LPS */
    uint32_t first_ms;    /* who waits for longer has gone; 0 is no limit */
} llm_wire_submit_t;

enum {
    LLM_W_REASONING = 1 << 0, /* CHAT: thought apart from the answer */
    LLM_W_CALLS = 1 << 1,     /* CHAT with tools: calls apart from it too */
    LLM_W_ONE_CALL = 1 << 2   /* with CALLS: a choice ends with its first */
};

enum {
    LLM_SEC_MODEL = 1,      /* engine's model name */
    LLM_SEC_TENANT = 2,     /* name; absent is "default" */
    LLM_SEC_REQUEST_ID = 3, /* for logs, [A-Za-z0-9_.:-] only */
    LLM_SEC_MESSAGES = 4,   /* CHAT: the JSON array, as the client sent it */
    LLM_SEC_PROMPT = 5,     /* TEXT: UTF-8; may be repeated */
    LLM_SEC_PROMPT_IDS = 6, /* TEXT: u32 each; may be repeated */
    LLM_SEC_STOP = 7,       /* one string, not empty; may be repeated */
    LLM_SEC_BIAS = 8,       /* llm_wire_bias_t each */

    /* with LLM_F_TEMPLATE, which an engine knows that knows these */
    LLM_SEC_TOOLS = 9,      /* CHAT: JSON array of functions */
    LLM_SEC_DOCUMENTS = 10, /* CHAT: JSON array */
    LLM_SEC_KWARGS = 11,    /* CHAT: JSON object, the template's variables */

    LLM_SEC_SALT = 12,   /* narrows whom cached prefixes are shared with */
    LLM_SEC_GRAMMAR = 13 /* llm_wire_grammar_t, with LLM_F_GRAMMAR */
};

/* Sections follow the head at head_len (a multiple of 8), each padded to 8. */
typedef struct {
    uint32_t type;
    uint32_t len; /* bytes behind this head, without padding */
} llm_wire_sec_t;

typedef struct {
    uint32_t token;
    float bias; /* -100 .. 100 */
} llm_wire_bias_t;

/* What is behind an llm_wire_grammar_t, to the end of the section. */
enum {
    LLM_GRAMMAR_JSON,   /* nothing: any JSON object */
    LLM_GRAMMAR_SCHEMA, /* a JSON Schema */
    LLM_GRAMMAR_REGEX,
    LLM_GRAMMAR_EBNF,   /* GBNF */
    LLM_GRAMMAR_CHOICE, /* texts, each a u32 length and then so many bytes */
    LLM_GRAMMAR_TAGS,   /* JSON: {"structures": .., "triggers": ..} */
    LLM_GRAMMAR_TOOLS,  /* the name of a function, or nothing: any of
                         * LLM_SEC_TOOLS; CHAT with LLM_W_CALLS */
    LLM_GRAMMARS
};

enum {
    LLM_GRAMMAR_COMPACT = 1 << 0, /* JSON: no white space between tokens */
    LLM_GRAMMAR_ORDERED = 1 << 1, /* JSON: properties as they are declared */
    LLM_GRAMMAR_LENIENT = 1 << 2, /* SCHEMA: what cannot be enforced is not */
    LLM_GRAMMAR_AUTO = 1 << 3,    /* TOOLS: only once a call begins */
    LLM_GRAMMAR_FLAGS = (1 << 4) - 1
};

typedef struct {
    uint32_t type;  /* LLM_GRAMMAR_JSON .. */
    uint32_t flags; /* LLM_GRAMMAR_COMPACT .. */
    char param[32]; /* the request's field that it is from, for errors */
} llm_wire_grammar_t;

typedef struct {
    llm_ring_hdr_t hdr; /* LLM_REC_ADMIT */
    llm_wire_id_t id;
    uint32_t max_tokens; /* per choice, not above what COUNTED said */
} llm_wire_admit_t;

typedef struct {
    llm_ring_hdr_t hdr; /* LLM_REC_COUNTED */
    llm_wire_id_t id;
    uint32_t prompt_tokens; /* over all prompts */
    uint32_t max_tokens;    /* per choice, clamped to the context */
    uint32_t choices;       /* prompts x n */
} llm_wire_counted_t;

/* CALLS, only with LLM_W_CALLS: it stopped, and the last call is whole. */
enum {
    LLM_FINISH_NONE,
    LLM_FINISH_STOP,
    LLM_FINISH_LENGTH,
    LLM_FINISH_CALLS,
    LLM_FINISHES
};

/*
 * What a text is.  A call, which only LLM_W_CALLS asks for, is the name of a
 * function and then its arguments, as JSON, both of which records may cut;
 * each call has some bytes of both.
 */
enum {
    LLM_TEXT_ANSWER,
    LLM_TEXT_REASONING,
    LLM_TEXT_CALL,
    LLM_TEXT_ARGUMENTS,
    LLM_TEXTS
};

/*
 * New text of one choice: text_len bytes, padded to 4, then lp_len bytes of
 * logprob entries.  Text is whole UTF-8 characters.  finish says that this
 * was the choice's last.  Payload, in the sense of credit and taken, is
 * text_len + lp_len.
 *
 * The payload is behind the first LLM_TOKENS_HEAD bytes.  The fields from
 * kind on are behind the payload, at the record's end, and all zero if they
 * are not there.
 */
typedef struct {
    llm_ring_hdr_t hdr; /* LLM_REC_TOKENS */
    llm_wire_id_t id;
    uint32_t choice; /* prompt index x n + i */
    uint32_t finish;
    uint32_t tokens; /* sampled tokens that this text stands for */
    uint32_t text_len;
    uint32_t lp_len;

    uint32_t kind;      /* LLM_TEXT_* of all this text */
    uint32_t reasoning; /* tokens that were thought, as is now known */
    uint32_t prompt;    /* the first so many entries are of the prompt */
} llm_wire_tokens_t;

#define LLM_TOKENS_HEAD 40
#define LLM_TOKENS_TAIL ((uint32_t) sizeof(llm_wire_tokens_t) - LLM_TOKENS_HEAD)

/*
 * A logprob entry: this head, len bytes of the token, padded to 4, then top
 * entries of the same form with top = 0, best first.  The first token of a
 * prompt has none: its logprob is NaN.
 */
typedef struct {
    uint32_t token;
    float logprob;
    uint16_t len;
    uint16_t top;
} llm_wire_lp_t;

typedef struct {
    llm_ring_hdr_t hdr; /* LLM_REC_DONE */
    llm_wire_id_t id;
    uint32_t prompt_tokens;
    uint32_t cached_tokens;     /* of them, from the prefix cache */
    uint32_t completion_tokens; /* over all choices */
    uint64_t queue_us;          /* arrival to first computed token */
    uint64_t prefill_us;        /* from there to the first sampled token */
    uint64_t decode_us;         /* from there to the end */
} llm_wire_done_t;

typedef struct {
    llm_ring_hdr_t hdr; /* LLM_REC_ERROR */
    llm_wire_id_t id;
    uint32_t err;           /* llm_err.h */
    uint32_t prompt_tokens; /* what had been used, as in DONE */
    uint32_t completion_tokens;
    char param[32];    /* the field to blame, 0-terminated, may be empty */
    char text[160];    /* one sentence, 0-terminated; empty: the list's own */
    uint32_t retry_ms; /* in how long to try again; 0: not known */
    uint32_t pad;
} llm_wire_error_t;

_Static_assert(sizeof(llm_wire_submit_t) % 8 == 0, "sections are aligned");
_Static_assert(sizeof(llm_wire_submit_t) == 120, "wire");
_Static_assert(offsetof(llm_wire_submit_t, prompt_tops) == 112, "wire");
_Static_assert(
    offsetof(llm_wire_tokens_t, kind) == LLM_TOKENS_HEAD, "never moves");
_Static_assert(sizeof(llm_wire_lp_t) == 12, "wire");
_Static_assert(sizeof(llm_wire_done_t) <= LLM_TERMINAL_MAX, "wire");
_Static_assert(sizeof(llm_wire_error_t) <= LLM_TERMINAL_MAX, "wire");


/*
 * What the fixed parts that have no head_len had in the oldest version that is
 * understood: a record may be as short as that.
 */
#define LLM_ADMIT_MIN   24
#define LLM_COUNTED_MIN 32
#define LLM_DONE_MIN    56
#define LLM_ERROR_MIN   224

_Static_assert(sizeof(llm_wire_admit_t) >= LLM_ADMIT_MIN, "only grows");
_Static_assert(sizeof(llm_wire_counted_t) >= LLM_COUNTED_MIN, "only grows");
_Static_assert(sizeof(llm_wire_done_t) >= LLM_DONE_MIN, "only grows");
_Static_assert(sizeof(llm_wire_error_t) >= LLM_ERROR_MIN, "only grows");


/* --- judging ------------------------------------------------------------ */

/*
 * Copies a fixed part of size bytes from a record of len: what an older sender
 * does not know is zero, what a newer one adds is left.  0 if it has not even
 * min bytes.
 */
static inline int
llm_wire_read(
    void *part, uint32_t size, uint32_t min, const void *rec, uint32_t len)
{
    if (len < min) {
        return 0;
    }

    memset(part, 0, size);
    memcpy(part, rec, len < size ? len : size);

    return 1;
}


/*
 * Bytes of an EVENT ring that only terminal records may use: one for every
 * slot, and what a skip at the wrap may waste.
 */
static inline uint32_t
llm_event_keep(uint32_t slots)
{
    return (slots + 1) * LLM_TERMINAL_MAX;
}


/*
 * Worker: is this layout one that cannot lead outside the segment?  m is a
 * private copy; seg_size and state_size must already have been compared with
 * fstat.
 */
static inline int
llm_welcome_ok(const llm_msg_welcome_t *m)
{
    const uint64_t at[5] = {
        m->submit_ctl, m->event_ctl, m->lines, m->submit_data, m->event_data};
    const uint64_t len[5] = {sizeof(llm_ring_ctl_t), sizeof(llm_ring_ctl_t),
        (uint64_t) m->slots * sizeof(llm_slot_line_t), m->submit_size,
        m->event_size};
    int i;

    if (m->magic != LLM_WIRE_MAGIC || m->type != LLM_MSG_WELCOME
        || m->version < LLM_WIRE_VERSION_MIN || m->version > LLM_WIRE_VERSION
        || m->epoch == 0 || m->slots == 0 || m->slots > LLM_SLOTS_MAX
        || !llm_ring_size_ok(m->submit_size) || !llm_ring_size_ok(m->event_size)
        || m->event_size < llm_event_keep(m->slots) + 2 * LLM_TOKENS_MAX
        || m->state_size < LLM_STATE_SIZE || m->credit_max == 0) {
        return 0;
    }

    for (i = 0; i < 5; i++) {
        if (at[i] % LLM_RING_LINE != 0 || at[i] < LLM_SEG_HEAD
            || at[i] > m->seg_size || len[i] > m->seg_size - at[i]) {
            return 0;
        }
        /* in this order, and none over the one before */
        if (i > 0 && (at[i] < at[i - 1] || at[i] - at[i - 1] < len[i - 1])) {
            return 0;
        }
    }

    return 1;
}


/*
 * Engine: walks the sections of a SUBMIT that was copied out whole (len bytes
 * at rec).  *at is the walk's place: 0 to start.  Returns 1 with *sec and
 * *body set (body is borrowed from rec), 0 at the end, -1 if the record lies
 * about its lengths.
 */
static inline int
llm_submit_section(const void *rec, uint32_t len, uint32_t *at,
    llm_wire_sec_t *sec, const uint8_t **body)
{
    const uint8_t *p = (const uint8_t *) rec;
    uint32_t head_len, pad;

    if (*at == 0) {
        if (len < offsetof(llm_wire_submit_t, kind)) {
            return -1;
        }
        memcpy(&head_len, p + offsetof(llm_wire_submit_t, head_len), 4);
        if (head_len % 8 != 0 || head_len > len
            || head_len < offsetof(llm_wire_submit_t, kind)) {
            return -1;
        }
        *at = head_len;
    }

    if (*at >= len) {
        return *at == len ? 0 : -1;
    }

    if (len - *at < sizeof(*sec)) {
        return -1;
    }

    memcpy(sec, p + *at, sizeof(*sec));
    *at += (uint32_t) sizeof(*sec);

    if (sec->len > len - *at) {
        return -1;
    }

    *body = p + *at;
    *at += sec->len;

    pad = (8 - (sec->len & 7)) & 7;
    if (pad > len - *at) {
        return -1;
    }
    *at += pad;

    return 1;
}


/*
 * Worker: is a TOKENS record (len bytes, copied out) what it claims?  On 1,
 * *text and *lp point at text_len and lp_len bytes inside rec.  The entries
 * at *lp are still to be walked with llm_lp_next().
 */
static inline int
llm_tokens_ok(const void *rec, uint32_t len, llm_wire_tokens_t *t,
    const uint8_t **text, const uint8_t **lp)
{
    const uint8_t *p = (const uint8_t *) rec;
    uint64_t text_pad, end;
    uint32_t more;

    if (len < LLM_TOKENS_HEAD) {
        return 0;
    }

    memset(t, 0, sizeof(*t));
    memcpy(t, p, LLM_TOKENS_HEAD);
    text_pad = ((uint64_t) t->text_len + 3) & ~3ull;
    end = LLM_TOKENS_HEAD + text_pad + t->lp_len;

    if (t->choice >= LLM_CHOICES_MAX || t->finish >= LLM_FINISHES
        || end > len) {
        return 0;
    }

    /* an older engine knows fewer of these, each of four bytes */
    more = len - (uint32_t) end < LLM_TOKENS_TAIL ? (len - (uint32_t) end) & ~3u
                                                  : LLM_TOKENS_TAIL;
    memcpy(&t->kind, p + end, more);

    *text = p + LLM_TOKENS_HEAD;
    *lp = *text + text_pad;

    return t->kind < LLM_TEXTS;
}


/*
 * Walks logprob entries: *left bytes at *p.  Returns 1 with *e and *bytes
 * set and moves on by one entry (its top entries come next, as entries of
 * their own), 0 at the end, -1 on nonsense.
 */
static inline int
llm_lp_next(
    const uint8_t **p, uint32_t *left, llm_wire_lp_t *e, const uint8_t **bytes)
{
    uint32_t need;

    if (*left == 0) {
        return 0;
    }
    if (*left < sizeof(*e)) {
        return -1;
    }

    memcpy(e, *p, sizeof(*e));
    need = (uint32_t) sizeof(*e) + (((uint32_t) e->len + 3) & ~3u);

    if (need > *left || e->top > LLM_TOP_LOGPROBS_MAX) {
        return -1;
    }

    *bytes = *p + sizeof(*e);
    *p += need;
    *left -= need;

    return 1;
}

#endif
