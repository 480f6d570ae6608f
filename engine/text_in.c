/*
 * From SUBMIT records to token ids.
 *
 * DESIGN.  One thread, the dispatcher, reads all SUBMIT rings, judges records
 * and hands the long work (chat template, tokenising) to a small pool; what
 * comes back is counted against the context and goes on to the loop, or to
 * text_out as a refusal.  The dispatcher itself does nothing that takes long,
 * so one worker's megabyte prompt does not delay another's short one.
 *
 *      ring ──take──> TEXT ──pool──┬─────────> count ─> WAITING (loop)
 *                      │           └─compile──^  └─hold─> HELD ──ADMIT──^
 *                      └─ refused, cancelled, killed, LLM_F_PROMPT ──> ENDING
 *                                                                  (text_out)
 *
 * A record is copied out of shared memory once and judged by the copy.
 *
 * GRAMMARS.  What an output is to obey is looked for in the cache as soon as
 * its prompt is tokenised.  What is not there is compiled by threads of a pool
 * of its own, which give way to all others: a grammar that takes as long as it
 * may delays who asks for new ones, and nobody else.
 *
 * WHAT IS NOT TAKEN.  A ring is left alone ("paused") while its next record
 * cannot be taken: its slot's last request has not come back yet (the worker
 * reads DONE before our FREE arrives), no place in the request table is left
 * even for a refusal, or so much of its text waits already (TEXT_IN_QUEUED).
 * Each of these ends with a FREE or a finished job, which opens the rings
 * again.  A worker sees a full ring and refuses clients itself.
 *
 * SHARES.  What waits is counted per worker, so one worker's long prompts
 * close no other's ring.  Of the request table a worker gets at most
 * TEXT_IN_SHARE times what is left free: one alone may fill nearly all of it,
 * but never the last places, and those who come later find the same rule.
 * Each class leaves a sixteenth of the table to the class above it, so that on
 * overload the lowest is refused first, and class 0 last.
 *
 * Who is refused takes one of TEXT_IN_SPARE places beyond the table until the
 * ERROR is out; of these too one worker, if there are others, gets a part, and
 * has its ring left alone when that is used up.
 *
 * MEMORY.  A job owns a copy of its record until it is tokenised, then ids and
 * lists until FREE.  Sizes are bounded: a record by the ring, ids by context
 * and choices, lists by the wire's caps, all records of a worker together by
 * TEXT_IN_QUEUED and one record more.
 *
 * OWNERSHIP.  The dispatcher owns all of text_in_t; a pool thread owns job and
 * request between text_pool_put and text_pool_get.
 */
#include "text_in.h"
#include "clock.h"
#include "encode.h"
#include "log.h"
#include "mem.h"
#include "space.h"
#include "submit.h"
#include "text_pool.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define TEXT_IN_BURST   16          /* records of one worker in one turn */
#define TEXT_IN_QUEUED  (16u << 20) /* bytes of a worker's that wait */
#define TEXT_IN_STEPS   16          /* of the ladder; each class keeps one */
#define TEXT_IN_LOWEST  7           /* class; lower ones are as this one */
#define TEXT_IN_SHARE   8           /* held by one worker, of what is free */
#define TEXT_IN_HELD_US 60000000ull /* for an ADMIT; then the worker is lost */
#define TEXT_IN_IDLE_MS 500         /* a heartbeat is due every second */
#define TEXT_IN_PROBE   16          /* places looked at for a tenant's name */
#define TEXT_IN_NICE    10          /* of threads that compile */
#define TEXT_IN_NONE    UINT32_MAX

/* What belongs to a request but is no one else's business. */
typedef struct {
    text_in_t *ti;
    uint8_t *rec; /* owned, the record; NULL once tokenised */
    uint32_t rec_len;
    submit_t sub; /* points into rec */
    submit_fail_t fail;
    uint8_t *keep;    /* owned: biases and stop strings */
    uint32_t *ids;    /* owned: all prompts, one after the other */
    uint64_t held_us; /* since when it waits for an ADMIT */
    uint32_t refused; /* it got no place */
    uint32_t compile; /* its grammar is not in the cache */
} text_job_state_t;

/* What one worker has here. */
typedef struct {
    uint64_t queued;  /* bytes of records that are being tokenised */
    uint32_t held;    /* requests that got a place */
    uint32_t refused; /* those that got none, until their ERROR is out */
} text_in_att_t;

struct text_in_s {
    text_in_cfg_t cfg;
    submit_rules_t rules;
    encode_rules_t encode;
    text_pool_t *pool;
    text_pool_t *compilers; /* NULL: there is no cache of grammars */
    uint64_t now_us;
    uint32_t ring_loop, ring_out; /* bells owed at the end of the turn */
    uint32_t drained;             /* draining has been acted on */
    uint32_t kill;                /* atomic */
    uint32_t first; /* attachment that the next turn begins with */
    uint32_t free_n, held_n;
    uint32_t refused_n;  /* of those that are not free */
    text_in_att_t *atts; /* [atts] */
    uint32_t *free;      /* [reqs_n] indices, the last is taken first */
    uint32_t *held;      /* [reqs_n] indices of requests that wait for ADMIT */
    uint32_t *slot_req;  /* [atts, slots] index + 1 of who uses it, 0: none */
    text_job_state_t *jobs;        /* [reqs_n] */
    char (*tenants)[LLM_NAME_MAX]; /* [TEXT_IN_TENANTS] names, "": free */
    uint8_t *scratch; /* [submit_size / 2] the record being judged */
    uint32_t **ids;   /* [threads][work_max] where a pool thread encodes to */
};


/* --- small parts -------------------------------------------------------- */

/* Puts a message into a ring that by its size is never full (inner.h). */
static void
text_in_post(inner_ring_t *ring, const void *msg, uint32_t len)
{
    void *p = llm_ring_reserve(&ring->in, len, 0);

    assert(p != NULL);
    memcpy(p, msg, len);
    llm_ring_commit(&ring->in);
}


static void
text_in_post_req(inner_ring_t *ring, uint16_t type, uint32_t i, uint32_t gen)
{
    req_msg_t m;

    memset(&m, 0, sizeof(m));
    m.hdr.len = sizeof(m);
    m.hdr.type = type;
    m.req = i;
    m.gen = gen;
    text_in_post(ring, &m, sizeof(m));
}


/* The request's last word from here: text_out posts the ERROR. */
static void
text_in_fail(text_in_t *ti, uint32_t i, const submit_fail_t *why)
{
    req_t *r = &ti->cfg.in->reqs[i];
    req_msg_fail_t m;

    assert(why->err != LLM_ERR_NONE);
    req_set_state(r, REQ_ENDING);

    log_line(LOG_DEBUG, "%s refused: %s %s", r->id, llm_err(why->err)->code,
        why->param);

    memset(&m, 0, sizeof(m));
    m.hdr.len = sizeof(m);
    m.hdr.type = REQ_MSG_FAIL;
    m.req = i;
    m.gen = r->gen;
    m.err = why->err;
    memcpy(m.param, why->param, sizeof(m.param));
    memcpy(m.text, why->text, sizeof(m.text));

    text_in_post(&ti->cfg.in->in_out, &m, sizeof(m));
    ti->ring_out = 1;
}


static void
text_in_fail_err(text_in_t *ti, uint32_t i, uint32_t err)
{
    submit_fail_t why;

    submit_refuse(&why, err, "", "%s", "");
    text_in_fail(ti, i, &why);
}


static void
text_in_ready(text_in_t *ti, uint32_t i)
{
    req_t *r = &ti->cfg.in->reqs[i];

    assert(r->prompts_n >= 1 && r->max_tokens >= 1);

    req_set_state(r, REQ_WAITING);
    text_in_post_req(&ti->cfg.in->in_loop, REQ_MSG_READY, i, r->gen);
    ti->ring_loop = 1;
}


/*
 * A small number for a tenant's name, the same for the same name.  When all
 * places near its own are taken by others, it shares its own.  The request
 * keeps the name, as far as it is shown.
 */
static uint32_t
text_in_tenant(text_in_t *ti, const submit_input_t *in, req_t *r)
{
    char name[LLM_NAME_MAX] = "default";
    uint32_t hash = 2166136261u, i, at;

    if (in->p != NULL && in->len > 0) {
        memset(name, 0, sizeof(name));
        memcpy(
            name, in->p, in->len < sizeof(name) ? in->len : sizeof(name) - 1);
        name[0] = name[0] == '\0' ? ' ' : name[0];
    }
    memcpy(r->tenant_name, name, sizeof(r->tenant_name) - 1);

    for (i = 0; name[i] != '\0'; i++) {
        hash = (hash ^ (uint8_t) name[i]) * 16777619u;
    }

    for (i = 0; i < TEXT_IN_PROBE; i++) {
        at = (hash + i) % TEXT_IN_TENANTS;
        if (ti->tenants[at][0] == '\0') {
            memcpy(ti->tenants[at], name, sizeof(name));
            return at;
        }
        if (strcmp(ti->tenants[at], name) == 0) {
            return at;
        }
    }

    return hash % TEXT_IN_TENANTS;
}


/* The prefix cache's namespace: the tenant's, narrowed by a salt. */
static uint64_t
text_in_space(const text_in_t *ti, const submit_t *sub)
{
    const submit_input_t *tenant = &sub->tenant, *salt = &sub->salt;
    const space_part_t parts[] = {
        {tenant->p, ti->cfg.share ? 0 : tenant->len}, {salt->p, salt->len}};

    return space_of(ti->cfg.space_key, parts, sizeof(parts) / sizeof(parts[0]));
}


/* --- the request table -------------------------------------------------- */

static uint32_t *
text_in_slot(text_in_t *ti, uint32_t att, uint32_t slot)
{
    assert(slot < ti->cfg.slots);
    return &ti->slot_req[(size_t) att * ti->cfg.slots + slot];
}


/*
 * Takes a free request for wire's slot of attachment att; there is one.
 * refused: it is only to carry an ERROR.
 */
static uint32_t
text_in_take(text_in_t *ti, uint32_t att, ipc_att_t *a,
    const llm_wire_id_t *wire, int refused)
{
    req_t *r;
    uint32_t i, gen;

    assert(ti->free_n > 0);
    i = ti->free[--ti->free_n];
    r = &ti->cfg.in->reqs[i];
    assert(r->state == REQ_FREE && r->arena == NULL);

    /* 0 is nobody's: text_out would take its messages for stale ones */
    gen = r->gen == UINT32_MAX ? 1 : r->gen + 1;
    memset(r, 0, sizeof(*r));
    r->gen = gen;
    r->wire = *wire;
    r->att = att;
    r->line = &a->lines[wire->slot];
    r->seg = a->seg;
    r->dead = &a->dead;
    r->arrival_us = ti->now_us;
    r->arena = &ti->jobs[i];
    memcpy(r->id, "-", 2);

    memset(&ti->jobs[i], 0, sizeof(ti->jobs[i]));
    ti->jobs[i].ti = ti;
    ti->jobs[i].refused = refused != 0;
    *text_in_slot(ti, att, wire->slot) = i + 1;
    ti->atts[att].held += !refused;
    ti->atts[att].refused += refused != 0;
    ti->refused_n += refused != 0;
    ipc_ref(ti->cfg.ipc, att);

    req_set_state(r, REQ_TEXT);

    return i;
}


/* Frees the job's copy of the record. */
static void
text_in_drop_rec(text_in_t *ti, text_job_state_t *j)
{
    text_in_att_t *a = &ti->atts[ti->cfg.in->reqs[j - ti->jobs].att];

    if (j->rec != NULL) {
        assert(a->queued >= j->rec_len);
        a->queued -= j->rec_len;
        free(j->rec);
        j->rec = NULL;
    }
}


/* FREE came back from text_out: request i is nobody's now. */
static void
text_in_give(text_in_t *ti, uint32_t i)
{
    req_t *r = &ti->cfg.in->reqs[i];
    text_job_state_t *j = &ti->jobs[i];
    uint32_t *slot = text_in_slot(ti, r->att, r->wire.slot);

    assert(r->arena == j && *slot == i + 1);
    assert(ti->free_n < ti->cfg.in->reqs_n);
    assert(ti->atts[r->att].held + j->refused > 0);

    text_in_drop_rec(ti, j);
    ti->atts[r->att].held -= !j->refused;
    ti->atts[r->att].refused -= j->refused;
    ti->refused_n -= j->refused;
    free(j->keep);
    free(j->ids);
    tools_close(r->tools);
    grammar_close(r->grammar);
    r->tools = NULL;
    r->grammar = NULL;
    j->keep = NULL;
    j->ids = NULL;
    r->arena = NULL;
    *slot = 0;

    req_set_state(r, REQ_FREE);
    ti->free[ti->free_n++] = i;
    ipc_unref(ti->cfg.ipc, r->att);
}


static int
text_in_frees(text_in_t *ti)
{
    inner_t *in = ti->cfg.in;
    req_msg_t m;
    int n = 0;

    while (llm_ring_peek(&in->out_in.out, &m, sizeof(m)) > 0) {
        assert(m.hdr.len == sizeof(m) && m.hdr.type == REQ_MSG_FREE);
        assert(m.req < in->reqs_n && in->reqs[m.req].gen == m.gen);
        llm_ring_advance(&in->out_in.out);
        text_in_give(ti, m.req);
        n++;
    }

    return n;
}


/* --- jobs, on a pool thread --------------------------------------------- */

/* Asked by template and tokenizer every few thousand bytes. */
static int
text_in_cancelled(void *arg)
{
    const text_job_state_t *j = arg;
    const text_in_t *ti = j->ti;
    const req_t *r = &ti->cfg.in->reqs[j - ti->jobs];

    return req_cancelled(r) || __atomic_load_n(&ti->kill, __ATOMIC_ACQUIRE)
           || __atomic_load_n(&ti->cfg.in->stop, __ATOMIC_ACQUIRE);
}


/* What a record that has passed submit_check wants its output to obey. */
static void
text_in_spec(const submit_t *sub, grammar_spec_t *s, llm_wire_grammar_t *head)
{
    assert(sub->grammar.len >= sizeof(*head));
    memcpy(head, sub->grammar.p, sizeof(*head));

    memset(s, 0, sizeof(*s));
    s->type = head->type;
    s->flags = head->flags;
    s->text = (const char *) sub->grammar.p + sizeof(*head);
    s->len = sub->grammar.len - sizeof(*head);
    if (head->type == LLM_GRAMMAR_TOOLS) {
        s->one = (sub->head.wants & LLM_W_ONE_CALL) != 0;
        s->tools = (const char *) sub->tools.p;
        s->tools_len = sub->tools.len;
    }
}


/* Looks for the grammar, or has it compiled; 0: it is still to be. */
static int
text_in_grammar(text_in_t *ti, text_job_state_t *j, req_t *r, int compile)
{
    grammar_cache_t *c = ti->cfg.grammars;
    char err[GRAMMAR_CACHE_ERR];
    llm_wire_grammar_t head;
    grammar_spec_t s;

    assert(r->grammar == NULL);
    text_in_spec(&j->sub, &s, &head);

    if (compile) {
        grammar_cache_get(c, &s, &r->grammar, err, sizeof(err));
    } else if (!grammar_cache_find(
                   c, &s, clock_us(), &r->grammar, err, sizeof(err))) {
        return 0;
    }
    if (r->grammar == NULL) {
        submit_refuse(&j->fail, LLM_ERR_BAD_FIELD, head.param, "%s", err);
    }

    return 1;
}


/* Has an output that is to obey anything?  Then it may be that none can. */
static int
text_in_obeys(const text_in_t *ti, text_job_state_t *j, const req_t *r)
{
    if ((r->flags & LLM_F_GRAMMAR) == 0 || j->ids == NULL
        || (r->flags & (LLM_F_PROMPT | LLM_F_SCORE)) != 0) {
        return 0;
    }
    if (ti->cfg.grammars == NULL) {
        submit_refuse(&j->fail, LLM_ERR_UNSUPPORTED, "",
            "This engine's device cannot make its output obey a grammar.");
        return 0;
    }

    return 1;
}


/* All inputs of a job to prompts of its request. */
static void
text_in_job(void *arg, uint32_t thread, uint32_t job)
{
    text_in_t *ti = arg;
    text_job_state_t *j = &ti->jobs[job];
    req_t *r = &ti->cfg.in->reqs[job];

    assert(r->state == REQ_TEXT && j->rec != NULL && j->ids == NULL);

    j->ids = encode_prompts(&ti->encode, &j->sub, ti->ids[thread],
        text_in_cancelled, j, r, &j->fail);

    assert((j->ids == NULL) == (j->fail.err != LLM_ERR_NONE));

    if (text_in_obeys(ti, j, r)) {
        j->compile = !text_in_grammar(ti, j, r, 0);
    }
}


/* The grammar of a job, on a thread that compiles. */
static void
text_in_compile(void *arg, uint32_t thread, uint32_t job)
{
    text_in_t *ti = arg;
    text_job_state_t *j = &ti->jobs[job];

    (void) thread;
    assert(j->compile && j->rec != NULL);

    if (text_in_cancelled(j)) {
        submit_refuse(&j->fail, LLM_ERR_CANCELLED, "", "%s", "");
    } else {
        (void) text_in_grammar(ti, j, &ti->cfg.in->reqs[job], 1);
    }
}


/* --- from the pool on --------------------------------------------------- */

/* Lowers max_tokens to what the longest prompt leaves. */
static void
text_in_clamp(const text_in_t *ti, req_t *r)
{
    uint32_t i, room, longest = 0;

    for (i = 0; i < r->prompts_n; i++) {
        if (r->prompts[i].len > longest) {
            longest = r->prompts[i].len;
        }
    }

    assert(longest >= 1 && longest < ti->encode.limit);
    room = r->flags & LLM_F_SCORE ? 1 : ti->encode.limit - longest;

    if (r->max_tokens == 0 || r->max_tokens > room) {
        r->max_tokens = room;
    }
}


/* A job is through with its pools: what becomes of the request. */
static void
text_in_done(text_in_t *ti, uint32_t i)
{
    text_job_state_t *j = &ti->jobs[i];
    req_t *r = &ti->cfg.in->reqs[i];

    assert(r->state == REQ_TEXT);
    text_in_drop_rec(ti, j);

    if (req_cancelled(r)) {
        text_in_fail_err(ti, i, LLM_ERR_CANCELLED);

    } else if (__atomic_load_n(&ti->kill, __ATOMIC_ACQUIRE)) {
        text_in_fail_err(ti, i, LLM_ERR_DRAINING);

    } else if (j->fail.err != LLM_ERR_NONE) {
        text_in_fail(ti, i, &j->fail);

    } else if (r->flags & LLM_F_PROMPT) {
        req_set_state(r, REQ_ENDING);
        text_in_post_req(&ti->cfg.in->in_out, REQ_MSG_PROMPT, i, r->gen);
        ti->ring_out = 1;

    } else {
        text_in_clamp(ti, r);
        if ((r->flags & LLM_F_HOLD) == 0) {
            text_in_ready(ti, i);
            return;
        }
        req_set_state(r, REQ_HELD);
        j->held_us = ti->now_us;
        ti->held[ti->held_n++] = i;
        text_in_post_req(&ti->cfg.in->in_out, REQ_MSG_COUNTED, i, r->gen);
        ti->ring_out = 1;
    }
}


static int
text_in_dones(text_in_t *ti)
{
    uint32_t i;
    int n = 0;

    for (; text_pool_get(ti->pool, &i); n++) {
        if (ti->jobs[i].compile) {
            text_pool_put(ti->compilers, i, ti->cfg.in->reqs[i].tenant);
        } else {
            text_in_done(ti, i);
        }
    }
    for (; ti->compilers != NULL && text_pool_get(ti->compilers, &i); n++) {
        text_in_done(ti, i);
    }

    return n;
}


/* Ends held requests that nobody will release any more. */
static int
text_in_holds(text_in_t *ti)
{
    uint32_t k = 0, i, err;
    int n = 0;

    while (k < ti->held_n) {
        i = ti->held[k];
        err = LLM_ERR_NONE;

        if (req_cancelled(&ti->cfg.in->reqs[i])) {
            err = LLM_ERR_CANCELLED;
        } else if (__atomic_load_n(&ti->kill, __ATOMIC_ACQUIRE)) {
            err = LLM_ERR_DRAINING;
        } else if (ti->now_us - ti->jobs[i].held_us >= TEXT_IN_HELD_US) {
            err = LLM_ERR_TIMEOUT;
        }

        if (err == LLM_ERR_NONE) {
            k++;
            continue;
        }

        ti->held[k] = ti->held[--ti->held_n];
        text_in_fail_err(ti, i, err);
        n++;
    }

    return n;
}


/* --- records ------------------------------------------------------------ */

/* A record that is sound in form: judges its values, and queues the work. */
static void
text_in_start(text_in_t *ti, uint32_t i, const submit_t *sub, uint32_t len)
{
    req_t *r = &ti->cfg.in->reqs[i];
    text_job_state_t *j = &ti->jobs[i];
    submit_fail_t why;
    uint32_t keep;

    if (submit_check(sub, &ti->rules, &why) != 0) {
        text_in_fail(ti, i, &why);
        return;
    }

    keep = submit_keep_size(sub);
    j->keep = malloc(keep > 0 ? keep : 1);
    j->rec = malloc(len);
    if (j->keep == NULL || j->rec == NULL) {
        free(j->rec);
        j->rec = NULL;
        text_in_fail_err(ti, i, LLM_ERR_NO_MEMORY);
        return;
    }

    memcpy(j->rec, ti->scratch, len);
    j->rec_len = len;
    ti->atts[r->att].queued += len;
    if (submit_parse(j->rec, len, &j->sub) != 0) {
        assert(!"the copy of a sound record is sound");
    }

    submit_fill(&j->sub, &ti->rules, j->rec, len, j->keep, r);
    r->tenant = text_in_tenant(ti, &j->sub.tenant, r);
    r->space = text_in_space(ti, &j->sub);

    if ((r->flags & LLM_F_SEED) == 0
        && getrandom(&r->params.seed, sizeof(r->params.seed), 0)
               != sizeof(r->params.seed)) {
        r->params.seed = ti->now_us; /* before the kernel has any entropy */
    }

    text_pool_put(ti->pool, i, r->tenant);
}


/* Is it an id that this worker may use? */
static int
text_in_id_ok(const text_in_t *ti, const ipc_att_t *a, const llm_wire_id_t *id)
{
    return id->epoch == a->epoch && id->slot < ti->cfg.slots && id->gen != 0;
}


/* Are there other workers?  Who is alone has all there is. */
static int
text_in_others(const text_in_t *ti)
{
    return __atomic_load_n(&ti->cfg.in->state->attachments, __ATOMIC_RELAXED)
           > 1;
}


/*
 * Is there no place for one more request of this worker and class but to
 * refuse it?
 */
static int
text_in_full(const text_in_t *ti, uint32_t att, uint32_t class)
{
    uint32_t left = ti->free_n + ti->refused_n;
    uint32_t step = (ti->cfg.in->reqs_n - TEXT_IN_SPARE) / TEXT_IN_STEPS;

    assert(left >= TEXT_IN_SPARE && left <= ti->cfg.in->reqs_n);
    assert(step * TEXT_IN_LOWEST < ti->cfg.in->reqs_n);
    left -= TEXT_IN_SPARE;
    class = class < TEXT_IN_LOWEST ? class : TEXT_IN_LOWEST;

    return left <= class * step
           || (text_in_others(ti)
               && ti->atts[att].held / TEXT_IN_SHARE >= left);
}


/* May one more request of this worker be refused now? */
static int
text_in_may_refuse(const text_in_t *ti, uint32_t att)
{
    uint32_t part = text_in_others(ti) ? TEXT_IN_SPARE / 4 : TEXT_IN_SPARE;

    return ti->refused_n < TEXT_IN_SPARE && ti->atts[att].refused < part;
}


/* 1: taken, 0: must wait, -1: the worker is to be detached. */
static int
text_in_submit(text_in_t *ti, uint32_t att, ipc_att_t *a, uint32_t len)
{
    submit_t sub;
    int ends = ti->drained && !ipc_succeeded(ti->cfg.ipc), refuse;
    uint32_t i;

    if (submit_parse(ti->scratch, len, &sub) != 0
        || !text_in_id_ok(ti, a, &sub.head.id)) {
        return -1;
    }

    if (*text_in_slot(ti, att, sub.head.id.slot) != 0
        || ti->atts[att].queued > TEXT_IN_QUEUED) {
        return 0;
    }

    refuse = ends || text_in_full(ti, att, sub.head.priority);
    if (refuse && !text_in_may_refuse(ti, att)) {
        return 0;
    }

    i = text_in_take(ti, att, a, &sub.head.id, refuse);
    (void) __atomic_add_fetch(
        &ti->cfg.in->state->requests_total, 1, __ATOMIC_RELAXED);

    if (ends) {
        text_in_fail_err(ti, i, LLM_ERR_DRAINING);
    } else if (refuse) {
        text_in_fail_err(ti, i, LLM_ERR_BUSY);
    } else {
        text_in_start(ti, i, &sub, len);
    }

    return 1;
}


/* 1: done with, -1: the worker is to be detached. */
static int
text_in_admit(text_in_t *ti, uint32_t att, ipc_att_t *a, uint32_t len)
{
    llm_wire_admit_t m;
    uint32_t i, k;
    req_t *r;

    if (!llm_wire_read(&m, sizeof(m), LLM_ADMIT_MIN, ti->scratch, len)
        || !text_in_id_ok(ti, a, &m.id)) {
        return -1;
    }

    /* a request may have ended while its ADMIT was on the way */
    i = *text_in_slot(ti, att, m.id.slot);
    if (i == 0) {
        return 1;
    }
    i--;
    r = &ti->cfg.in->reqs[i];

    for (k = 0; k < ti->held_n && ti->held[k] != i; k++) {
    }
    if (k == ti->held_n || r->wire.gen != m.id.gen) {
        return 1;
    }

    ti->held[k] = ti->held[--ti->held_n];
    if (m.max_tokens > 0 && m.max_tokens < r->max_tokens) {
        r->max_tokens = m.max_tokens;
    }
    text_in_ready(ti, i);

    return 1;
}


/* One record of an attachment: 1 taken, 0 none or not now, -1 detached. */
static int
text_in_record(text_in_t *ti, uint32_t att, ipc_att_t *a)
{
    ipc_t *ipc = ti->cfg.ipc;
    llm_ring_hdr_t h;
    int64_t len;
    int rc;

    len = ipc_submit_peek(ipc, att, ti->scratch, ti->cfg.submit_size / 2);
    if (len == LLM_RING_EMPTY) {
        return 0;
    }
    if (len < 0) {
        ipc_detach(ipc, att, "its SUBMIT ring makes no sense");
        return -1;
    }

    memcpy(&h, ti->scratch, sizeof(h));
    switch (h.type) {
    case LLM_REC_SUBMIT:
        rc = text_in_submit(ti, att, a, (uint32_t) len);
        break;
    case LLM_REC_ADMIT:
        rc = text_in_admit(ti, att, a, (uint32_t) len);
        break;
    default:
        rc = 1; /* a newer worker's: skipped */
        break;
    }

    if (rc == 1) {
        ipc_submit_advance(ipc, att);
    } else if (rc == 0) {
        ipc_submit_pause(ipc, att, 1);
    } else {
        ipc_detach(ipc, att, "a record of it makes no sense");
    }

    return rc;
}


/* Takes records, a bounded number of each worker, all workers in turn. */
static int
text_in_records(text_in_t *ti)
{
    uint32_t atts = ipc_atts(ti->cfg.ipc), k, att, n;
    ipc_att_t *a;
    int all = 0;

    for (k = 0; k < atts; k++) {
        att = (ti->first + k) % atts;
        a = ipc_att(ti->cfg.ipc, att);
        if (a == NULL) {
            continue;
        }

        for (n = 0; n < TEXT_IN_BURST; n++) {
            if (text_in_record(ti, att, a) != 1) {
                break;
            }
            all++;
        }
    }

    ti->first = (ti->first + 1) % atts;

    return all;
}


/* --- the thread --------------------------------------------------------- */

/* Opens paused rings: what they waited for may have come. */
static void
text_in_resume(text_in_t *ti)
{
    uint32_t att;

    for (att = 0; att < ipc_atts(ti->cfg.ipc); att++) {
        ipc_submit_pause(ti->cfg.ipc, att, 0);
    }
}


static void
text_in_report(text_in_t *ti)
{
    llm_state_t *s = ti->cfg.in->state;

    __atomic_store_n(
        &s->requests_held, ti->cfg.in->reqs_n - ti->free_n, __ATOMIC_RELEASE);
    (void) __atomic_add_fetch(
        &s->heartbeat[LLM_THREAD_IN], 1, __ATOMIC_RELAXED);
}


int
text_in_turn(text_in_t *ti, uint64_t now_us)
{
    inner_t *in = ti->cfg.in;
    unsigned bits;
    int n;

    ti->now_us = now_us;

    bits = ipc_handle(ti->cfg.ipc, now_us / 1000);
    if (bits & IPC_EXTRA) {
        bell_wait(&in->in_bell, 0); /* clears it */
    }

    /* slot lines may have changed, ring room may have come, all may be dead */
    if (bits & (IPC_RANG | IPC_DIED)) {
        ti->ring_loop = 1;
        ti->ring_out = 1;
    }

    if (!ti->drained && __atomic_load_n(&in->draining, __ATOMIC_ACQUIRE)) {
        ti->drained = 1;
        ipc_drain(ti->cfg.ipc);
    }

    n = text_in_frees(ti);
    n += text_in_dones(ti);
    if (n > 0) {
        text_in_resume(ti);
    }
    n += text_in_records(ti);
    n += text_in_holds(ti);

    /* before the bells: whoever sees the end of a request sees the number */
    text_in_report(ti);

    if (ti->ring_loop) {
        bell_ring(&in->loop_bell);
    }
    if (ti->ring_out) {
        bell_ring(&in->out_bell);
    }
    ti->ring_loop = ti->ring_out = 0;

    return n > 0;
}


/* After arming: did anything come that a turn would act on? */
static int
text_in_woken(text_in_t *ti)
{
    inner_t *in = ti->cfg.in;
    req_msg_t m;
    uint32_t k;

    if (llm_ring_peek(&in->out_in.out, &m, sizeof(m)) != LLM_RING_EMPTY
        || text_pool_ready(ti->pool)
        || (ti->compilers != NULL && text_pool_ready(ti->compilers))
        || __atomic_load_n(&in->stop, __ATOMIC_ACQUIRE)
        || (!ti->drained && __atomic_load_n(&in->draining, __ATOMIC_ACQUIRE))
        || (ti->held_n > 0 && __atomic_load_n(&ti->kill, __ATOMIC_ACQUIRE))) {
        return 1;
    }

    for (k = 0; k < ti->held_n; k++) {
        if (req_cancelled(&in->reqs[ti->held[k]])) {
            return 1;
        }
    }

    return 0;
}


static void
text_in_sleep(text_in_t *ti)
{
    inner_t *in = ti->cfg.in;
    uint64_t now_ms = clock_ms();
    uint32_t k;
    int ms = 0;

    bell_arm(&in->in_bell);

    /* a cancel of a held request is a change of its line, and no record */
    for (k = 0; k < ti->held_n; k++) {
        ipc_lines_arm(ti->cfg.ipc, in->reqs[ti->held[k]].att);
    }

    if (ipc_may_sleep(ti->cfg.ipc) && !text_in_woken(ti)) {
        ms = ipc_timeout(ti->cfg.ipc, now_ms, TEXT_IN_IDLE_MS);
    }

    ipc_wait(ti->cfg.ipc, ms);
    bell_stay(&in->in_bell);
}


void *
text_in_run(void *arg)
{
    text_in_t *ti = arg;

    while (!__atomic_load_n(&ti->cfg.in->stop, __ATOMIC_ACQUIRE)) {
        if (text_in_turn(ti, clock_us())) {
            ipc_wait(ti->cfg.ipc, 0);
        } else {
            text_in_sleep(ti);
        }
    }

    return NULL;
}


void
text_in_kill(text_in_t *ti)
{
    __atomic_store_n(&ti->kill, 1, __ATOMIC_RELEASE);
    bell_ring(&ti->cfg.in->in_bell);
}


/* --- opening ------------------------------------------------------------ */

/* The tables; 0, or -1 when out of memory. */
static int
text_in_tables(text_in_t *ti)
{
    const text_in_cfg_t *c = &ti->cfg;
    uint32_t n = c->in->reqs_n, i;

    ti->free = mem_zero(n, sizeof(*ti->free));
    ti->held = mem_zero(n, sizeof(*ti->held));
    ti->slot_req =
        mem_zero((size_t) ipc_atts(c->ipc) * c->slots, sizeof(*ti->slot_req));
    ti->atts = mem_zero(ipc_atts(c->ipc), sizeof(*ti->atts));
    ti->jobs = mem_zero(n, sizeof(*ti->jobs));
    ti->tenants = mem_zero(TEXT_IN_TENANTS, sizeof(*ti->tenants));
    ti->scratch = mem_zero(1, c->submit_size / 2);
    ti->ids = mem_zero(c->threads, sizeof(*ti->ids));

    if (ti->free == NULL || ti->held == NULL || ti->slot_req == NULL
        || ti->atts == NULL || ti->jobs == NULL || ti->tenants == NULL
        || ti->scratch == NULL || ti->ids == NULL) {
        return -1;
    }

    for (i = 0; i < c->threads; i++) {
        ti->ids[i] = mem_zero(ti->encode.work_max, sizeof(**ti->ids));
        if (ti->ids[i] == NULL) {
            return -1;
        }
    }

    /* the lowest index is taken first */
    for (i = 0; i < n; i++) {
        ti->free[i] = n - 1 - i;
    }
    ti->free_n = n;

    return 0;
}


text_in_t *
text_in_open(const text_in_cfg_t *cfg)
{
    text_in_t *ti;
    text_pool_cfg_t pool;

    assert(cfg->in->reqs_n > TEXT_IN_SPARE && cfg->tpl != NULL);
    assert(cfg->context >= 2 && cfg->threads >= 1);

    ti = mem_zero(1, sizeof(*ti));
    if (ti == NULL) {
        return NULL;
    }

    ti->cfg = *cfg;
    ti->rules.model = cfg->model;
    ti->rules.vocab = token_vocab(cfg->tok);
    ti->rules.credit_max = cfg->credit_max;
    ti->encode.tok = cfg->tok;
    ti->encode.tpl = cfg->tpl;
    ti->encode.reason = cfg->reason;
    ti->encode.tools = cfg->tools;
    ti->encode.limit = cfg->context;

    /* more than fits, so that a prompt that is too long can mostly be told
     * how long it is; memory that is not used costs nothing */
    ti->encode.work_max = ti->encode.limit * 4 + 65536;

    if (text_in_tables(ti) != 0 || ipc_watch(cfg->ipc, cfg->in->in_bell.fd)) {
        goto failed;
    }

    memset(&pool, 0, sizeof(pool));
    pool.jobs_max = cfg->in->reqs_n;
    pool.threads = cfg->threads;
    pool.run = text_in_job;
    pool.arg = ti;
    pool.bell = &cfg->in->in_bell;
    ti->pool = text_pool_open(&pool);
    if (ti->pool == NULL) {
        goto failed;
    }

    if (cfg->grammars != NULL) {
        pool.threads = cfg->compilers;
        pool.nice = TEXT_IN_NICE;
        pool.run = text_in_compile;
        ti->compilers = text_pool_open(&pool);
        if (ti->compilers == NULL) {
            goto failed;
        }
    }

    __atomic_store_n(&cfg->in->state->requests_max,
        cfg->in->reqs_n - TEXT_IN_SPARE, __ATOMIC_RELAXED);

    return ti;

failed:

    text_in_close(ti);
    return NULL;
}


void
text_in_close(text_in_t *ti)
{
    uint32_t i;

    if (ti == NULL) {
        return;
    }

    /* running jobs look at it, and end soon */
    __atomic_store_n(&ti->kill, 1, __ATOMIC_RELEASE);
    text_pool_close(ti->pool);
    text_pool_close(ti->compilers);

    for (i = 0; ti->jobs != NULL && i < ti->cfg.in->reqs_n; i++) {
        free(ti->jobs[i].rec);
        free(ti->jobs[i].keep);
        free(ti->jobs[i].ids);
        tools_close(ti->cfg.in->reqs[i].tools);
        grammar_close(ti->cfg.in->reqs[i].grammar);
    }
    for (i = 0; ti->ids != NULL && i < ti->cfg.threads; i++) {
        mem_free(ti->ids[i]);
    }

    mem_free(ti->free);
    mem_free(ti->held);
    mem_free(ti->slot_req);
    mem_free(ti->atts);
    mem_free(ti->jobs);
    mem_free(ti->tenants);
    mem_free(ti->scratch);
    mem_free(ti->ids);
    mem_free(ti);
}
