/*
 * The list of requests that others may look at.
 *
 * DESIGN.  A request's row is the one with its index in the request table, so
 * there is nothing to search and nothing moves.  What is written in a step is
 * bounded by the batch (a row, its tenant's row) and costs stores to memory
 * that the loop owns: no lock, no system call, no allocation.  Whoever reads
 * may be as slow as it likes (llm_live.h has the ordering).
 *
 * TENANTS.  Rows for LLM_LIVE_TENANTS, found by a scan when a request comes,
 * not when it runs.  A row without requests stays, so that what a tenant was
 * served does not vanish between two of its requests, until another tenant
 * needs one: then the row that was used longest ago goes.  When all are in
 * use, and only then, newcomers are counted in row 0.
 *
 * INVARIANT.  A tenant's waiting, running and blocks are the sums over its
 * requests' rows; a counter in the page never falls while `who` is the same.
 *
 * The page is written here and not read back: what must be known again is in
 * private memory, so that nothing depends on what somebody else can see.
 */
#include "live.h"
#include "mem.h"

#include <assert.h>
#include <string.h>

/* What is known of a request beside its row. */
typedef struct {
    uint64_t arrival_us;
    uint64_t last_us; /* last token sampled; 0: none */
    uint64_t blocks;  /* as shown */
    uint32_t gen;     /* 0: no request */
    uint32_t tenant;
    uint32_t begun;
} live_req_t;

typedef struct {
    uint32_t name; /* req_t.tenant */
    uint32_t reqs; /* that use the row */
    uint64_t used; /* when it was taken last, by count of requests */
    llm_live_tenant_t shown;
} live_tenant_t;

struct live_s {
    llm_live_head_t *head; /* borrowed, or in own, as are the next three */
    uint64_t *steps;       /* [LLM_LIVE_STEPS] */
    llm_live_tenant_t *tenant_rows; /* [LLM_LIVE_TENANTS] */
    llm_live_row_t *rows;           /* [rows_n] */
    void *own;                      /* owned; NULL: the page is another's */
    uint32_t rows_n;
    uint32_t reqs_n;
    uint32_t rows_used;
    uint32_t tenants_gen;
    uint64_t added;
    uint64_t steps_n;
    live_req_t *reqs; /* [reqs_n] owned */
    uint64_t hists[LLM_LIVE_HISTS][LLM_LIVE_BUCKETS];
    live_tenant_t tenants[LLM_LIVE_TENANTS];
};


/* Where everything is in page, and the head that says so. */
static void
live_layout(live_t *l, const live_cfg_t *c, uint8_t *page)
{
    const uint64_t steps_at = LLM_LIVE_AT + LLM_LIVE_HEAD;
    const uint64_t tenants_at = steps_at + LLM_LIVE_STEPS * 8;
    const uint64_t rows_at =
        tenants_at + LLM_LIVE_TENANTS * sizeof(llm_live_tenant_t);
    llm_live_head_t *h = (llm_live_head_t *) (void *) (page + LLM_LIVE_AT);

    l->head = h;
    l->steps = (uint64_t *) (void *) (page + steps_at);
    l->tenant_rows = (llm_live_tenant_t *) (void *) (page + tenants_at);
    l->rows = (llm_live_row_t *) (void *) (page + rows_at);

    h->head_len = sizeof(*h);
    h->rows_at = rows_at;
    h->rows_n = l->rows_n;
    h->row_len = sizeof(llm_live_row_t);
    h->tenants_at = tenants_at;
    h->tenants_n = LLM_LIVE_TENANTS;
    h->tenant_len = sizeof(llm_live_tenant_t);
    h->steps_at = steps_at;
    h->steps_n = LLM_LIVE_STEPS;
    h->started_us = c->now_us;
    h->batch_tokens = c->batch_tokens;
    h->batch_rows = c->batch_rows;
    llm_live_put(&h->magic, LLM_LIVE_MAGIC);
}


live_t *
live_open(const live_cfg_t *c)
{
    uint64_t size = c->size, least = llm_live_size(1);
    uint8_t *page = c->page;
    live_t *l;

    assert(c->reqs > 0 && (page == NULL || size >= least));

    l = mem_zero(1, sizeof(*l));
    if (l == NULL) {
        return NULL;
    }

    if (page == NULL) {
        size = llm_live_size(
            c->reqs < LLM_LIVE_ROWS_MAX ? c->reqs : LLM_LIVE_ROWS_MAX);
        page = l->own = mem_zero(1, size);
    }
    l->reqs_n = c->reqs;
    l->reqs = mem_zero(c->reqs, sizeof(live_req_t));
    if (page == NULL || l->reqs == NULL) {
        live_close(l);
        return NULL;
    }

    l->rows_n = (uint32_t) ((size - least) / sizeof(llm_live_row_t)) + 1;
    if (l->rows_n > c->reqs) {
        l->rows_n = c->reqs;
    }
    l->tenants[0].reqs = 1; /* never another's */
    live_layout(l, c, page);
    llm_live_put(&l->tenant_rows[0].who, 1ull << 32 | 1);
    l->tenants_gen = 1;

    return l;
}


void
live_close(live_t *l)
{
    if (l != NULL) {
        mem_free(l->own);
        mem_free(l->reqs);
        mem_free(l);
    }
}


void
live_target(live_t *l, uint64_t us)
{
    llm_live_put(&l->head->step_target_us, us);
}


/* --- text ----------------------------------------------------------------- */

/* Puts as much of text as there is room for, whole UTF-8 characters of it. */
static void
live_text(uint64_t words[LLM_LIVE_TEXT / 8], const char *text)
{
    uint64_t w[LLM_LIVE_TEXT / 8] = {0};
    size_t n = strnlen(text, LLM_LIVE_TEXT + 1), i;

    /* text[n] is the first byte left out: it must begin a character */
    if (n > LLM_LIVE_TEXT) {
        for (n--; n > 0 && ((uint8_t) text[n] & 0xc0) == 0x80; n--) {
        }
    }
    memcpy(w, text, n);

    for (i = 0; i < LLM_LIVE_TEXT / 8; i++) {
        llm_live_put(&words[i], w[i]);
    }
}


/* --- tenants -------------------------------------------------------------- */

/* Gives row i to the tenant of r. */
static void
live_tenant_take(live_t *l, uint32_t i, const req_t *r)
{
    llm_live_tenant_t *row = &l->tenant_rows[i];
    live_tenant_t *t = &l->tenants[i];

    assert(i > 0 && t->reqs == 0);

    memset(t, 0, sizeof(*t));
    t->name = r->tenant;

    llm_live_put(&row->who, 0);
    llm_live_put(&row->waiting, 0);
    llm_live_put(&row->running, 0);
    llm_live_put(&row->blocks, 0);
    llm_live_put(&row->computed, 0);
    llm_live_put(&row->sampled, 0);
    live_text(row->name, r->tenant_name);

    /* never 0, and not the one before even after 2^32 of them */
    l->tenants_gen = l->tenants_gen == UINT32_MAX ? 2 : l->tenants_gen + 1;
    t->shown.who = (uint64_t) l->tenants_gen << 32 | 1;
    llm_live_put(&row->who, t->shown.who);
}


/* The row of r's tenant. */
static uint32_t
live_tenant_find(live_t *l, const req_t *r)
{
    uint32_t i, idle = 0;

    for (i = 1; i < LLM_LIVE_TENANTS; i++) {
        if (l->tenants[i].shown.who != 0 && l->tenants[i].name == r->tenant) {
            return i;
        }
        /* one that was never used has used 0 */
        if (l->tenants[i].reqs == 0
            && (idle == 0 || l->tenants[i].used < l->tenants[idle].used)) {
            idle = i;
        }
    }

    if (idle != 0) {
        live_tenant_take(l, idle, r);
    }

    return idle;
}


/* Adds to what is shown of a tenant. */
static void
live_tenant_add(live_t *l, uint32_t i, int waiting, int running)
{
    llm_live_tenant_t *s = &l->tenants[i].shown, *row = &l->tenant_rows[i];

    s->waiting += (uint64_t) (int64_t) waiting;
    s->running += (uint64_t) (int64_t) running;
    assert((int64_t) s->waiting >= 0 && (int64_t) s->running >= 0);
    llm_live_put(&row->waiting, s->waiting);
    llm_live_put(&row->running, s->running);
}


/* --- requests ------------------------------------------------------------- */

/* The row of req, or NULL if it has none. */
static llm_live_row_t *
live_row(live_t *l, uint32_t req)
{
    assert(req < l->reqs_n && l->reqs[req].gen != 0);
    return req < l->rows_n ? &l->rows[req] : NULL;
}


static void
live_who(llm_live_row_t *row, uint32_t gen, uint32_t state)
{
    assert(state > LLM_LIVE_FREE && state < LLM_LIVE_STATES_N);
    llm_live_put(&row->who, (uint64_t) gen << 32 | state);
}


/* Fills in what does not change. */
static void
live_row_fill(llm_live_row_t *row, const req_t *r)
{
    llm_live_put(&row->arrival_us, r->arrival_us);
    llm_live_put(&row->begun_us, 0);
    llm_live_put(&row->first_us, 0);
    llm_live_put(&row->priority, r->priority);
    llm_live_put(&row->weight, r->weight);
    llm_live_put(&row->choices, r->choices);
    llm_live_put(&row->prompt, r->prompt_tokens);
    llm_live_put(&row->cached, 0);
    llm_live_put(&row->computed, 0);
    llm_live_put(&row->sampled, 0);
    llm_live_put(&row->limit, (uint64_t) r->max_tokens * r->choices);
    llm_live_put(&row->blocks, 0);
    live_text(row->id, r->id);
    live_text(row->tenant, r->tenant_name);
}


void
live_add(live_t *l, uint32_t req, const req_t *r)
{
    live_req_t *q = &l->reqs[req];
    llm_live_row_t *row;
    live_tenant_t *t;

    assert(req < l->reqs_n && q->gen == 0 && r->gen != 0);

    memset(q, 0, sizeof(*q));
    q->gen = r->gen;
    q->arrival_us = r->arrival_us;
    q->tenant = live_tenant_find(l, r);

    t = &l->tenants[q->tenant];
    t->reqs++;
    t->used = ++l->added;
    t->shown.weight = r->weight;
    llm_live_put(&l->tenant_rows[q->tenant].weight, r->weight);
    live_tenant_add(l, q->tenant, 1, 0);

    row = live_row(l, req);
    if (row != NULL) {
        live_row_fill(row, r);
        live_who(row, q->gen, LLM_LIVE_WAITING);
        if (req >= l->rows_used) {
            l->rows_used = req + 1;
            llm_live_put(&l->head->rows_used, l->rows_used);
        }
    }
}


/* Counts a time in a histogram. */
static void
live_time(live_t *l, uint32_t hist, uint64_t from_us, uint64_t to_us)
{
    uint64_t us = to_us > from_us ? to_us - from_us : 0;
    uint32_t i = llm_live_bucket(us);

    llm_live_put(&l->head->hists[hist][i], ++l->hists[hist][i]);
}


void
live_begin(live_t *l, uint32_t req, uint64_t now_us)
{
    llm_live_row_t *row = live_row(l, req);
    live_req_t *q = &l->reqs[req];

    assert(!q->begun);
    q->begun = 1;
    live_tenant_add(l, q->tenant, -1, 1);
    live_time(l, LLM_LIVE_QUEUE, q->arrival_us, now_us);

    if (row != NULL) {
        llm_live_put(&row->begun_us, now_us);
    }
}


void
live_served(live_t *l, uint32_t req, uint32_t n)
{
    uint32_t i = l->reqs[req].tenant;
    llm_live_tenant_t *s = &l->tenants[i].shown;

    assert(l->reqs[req].gen != 0);
    s->computed += n;
    llm_live_put(&l->tenant_rows[i].computed, s->computed);
}


void
live_token(live_t *l, uint32_t req, uint64_t now_us)
{
    llm_live_row_t *row = live_row(l, req);
    live_req_t *q = &l->reqs[req];
    llm_live_tenant_t *s = &l->tenants[q->tenant].shown;

    s->sampled++;
    llm_live_put(&l->tenant_rows[q->tenant].sampled, s->sampled);

    if (q->last_us == now_us) {
        return; /* another choice's, of the same step */
    }
    if (q->last_us == 0) {
        live_time(l, LLM_LIVE_FIRST, q->arrival_us, now_us);
        if (row != NULL) {
            llm_live_put(&row->first_us, now_us);
        }
    } else {
        live_time(l, LLM_LIVE_GAP, q->last_us, now_us);
    }
    q->last_us = now_us;
}


void
live_show(live_t *l, uint32_t req, const live_work_t *w)
{
    llm_live_row_t *row = live_row(l, req);
    live_req_t *q = &l->reqs[req];
    llm_live_tenant_t *s = &l->tenants[q->tenant].shown;

    if (w->blocks != q->blocks) {
        assert(s->blocks >= q->blocks);
        s->blocks += w->blocks - q->blocks;
        q->blocks = w->blocks;
        llm_live_put(&l->tenant_rows[q->tenant].blocks, s->blocks);
    }

    if (row != NULL) {
        llm_live_put(&row->computed, w->computed);
        llm_live_put(&row->sampled, w->sampled);
        llm_live_put(&row->cached, w->cached);
        llm_live_put(&row->blocks, w->blocks);
        live_who(row, q->gen, w->state);
    }
}


void
live_end(live_t *l, uint32_t req)
{
    llm_live_row_t *row = live_row(l, req);
    live_req_t *q = &l->reqs[req];
    live_tenant_t *t = &l->tenants[q->tenant];

    assert(t->reqs > 0 && t->shown.blocks >= q->blocks);

    if (row != NULL) {
        llm_live_put(&row->who, 0);
    }

    t->shown.blocks -= q->blocks;
    llm_live_put(&l->tenant_rows[q->tenant].blocks, t->shown.blocks);
    live_tenant_add(l, q->tenant, q->begun ? 0 : -1, q->begun ? -1 : 0);
    t->reqs--;
    q->gen = 0;
}


void
live_step(live_t *l, const llm_live_step_t *step)
{
    llm_live_put(
        &l->steps[l->steps_n % LLM_LIVE_STEPS], llm_live_step_word(step));
    llm_live_put(&l->head->steps, ++l->steps_n);
}
