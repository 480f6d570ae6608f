/*
 * The same requests under another policy or budget.
 *
 * DESIGN.  Calls that were recorded do not fit other plans.  What stays is
 * what clients did: who came when with what, how long each answer was, who
 * left when.  So that is taken from the recording, and a scheduler with the
 * changes runs it in virtual time.
 *
 *      pass 1   all calls: how long answers were, who left; the recorded waits
 *               and gaps; how long steps took, fitted (sched_pace.c)
 *      pass 2   requests as they came, steps as long as the fit says
 *
 * A fit is not the machine, so pass 2 is made twice, without and with the
 * changes: what the first column and the second differ by is the model's.
 * Credit is left out, for it depends on how fast clients read what comes when.
 * Who was refused is left out; who was never begun, and is now, gets an answer
 * of mean length.
 *
 * Not for the engine's threads: it allocates.
 */
#include "replay_impl.h"
#include "mem.h"
#include "sched_pace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OTHER_NONE UINT32_MAX

/* Numbers to take percentiles of; v is owned. */
typedef struct {
    double *v;
    size_t n, max;
} series_t;

typedef struct {
    const char *name;
    uint64_t finished, refused, expired, steps, tokens, preemptions;
    uint64_t asked, hits; /* of the prefix cache */
    double s;
    series_t wait, first, gap; /* ms */
} column_t;

/* What is known of a choice's answer. */
typedef struct {
    uint32_t *tokens; /* [n] owned */
    size_t n, max;
    uint32_t cut;  /* tokens after which a stop string cut it; 0: none did */
    uint32_t ends; /* does its last token end it? */
    uint32_t over; /* whatever it asked for? */
} answer_t;

/* A request, in the order in which they came. */
typedef struct {
    uint64_t left_us; /* it ended then whatever it had; 0: by itself */
    size_t answer;    /* of its first choice */
    uint32_t choices;
    uint32_t refused, begun;
} came_t;

typedef struct {
    came_t *came; /* [came_n] owned, as are all below */
    size_t came_n, came_max;
    answer_t *answers; /* [answers_n] */
    size_t answers_n, answers_max;
    uint32_t *who;  /* [reqs] place in came of who has that number */
    uint32_t *seqs; /* [outs] of the last plan's outputs */
    uint64_t *begun_us, *last_us; /* [reqs] of who has that number; 0: never */
    sched_pace_t pace;
    uint64_t mean; /* tokens of an answer */
    char *err;     /* borrowed */
    size_t errlen;
} story_t;


static int
note(series_t *s, double v)
{
    if (replay_room((void **) &s->v, s->n, &s->max, sizeof(*s->v)) != 0) {
        return -1;
    }
    s->v[s->n++] = v;

    return 0;
}


static void
column_free(column_t *c)
{
    free(c->wait.v);
    free(c->first.v);
    free(c->gap.v);
}


/* A token of request i came at us; the first one ends a wait that began at
 * arrival_us. */
static int
note_token(column_t *c, uint64_t *last_us, uint64_t arrival_us, uint64_t us)
{
    uint64_t from = *last_us != 0 ? *last_us : arrival_us;
    series_t *s = *last_us != 0 ? &c->gap : &c->first;

    assert(c->name != NULL);

    *last_us = us > 0 ? us : 1;

    return note(s, us > from ? (double) (us - from) / 1e3 : 0);
}


static int
no_memory(story_t *st)
{
    snprintf(st->err, st->errlen, "out of memory");

    return -1;
}


/* --- pass 1 ------------------------------------------------------------- */

static int
hear_add(story_t *st, const replay_call_t *c, column_t *col)
{
    came_t *w;
    uint32_t i;

    if (replay_room(
            (void **) &st->came, st->came_n, &st->came_max, sizeof(*st->came))
        != 0) {
        return no_memory(st);
    }

    w = &st->came[st->came_n];
    memset(w, 0, sizeof(*w));
    w->choices = c->r->choices;
    w->refused = c->value != 0;
    w->answer = st->answers_n;
    col->refused += w->refused;
    for (i = 0; i < w->choices && !w->refused; i++) {
        if (replay_room((void **) &st->answers, st->answers_n, &st->answers_max,
                sizeof(*st->answers))
            != 0) {
            return no_memory(st);
        }
        memset(&st->answers[st->answers_n++], 0, sizeof(*st->answers));
    }
    if (!w->refused) {
        st->who[c->req] = (uint32_t) st->came_n;
        st->begun_us[c->req] = st->last_us[c->req] = 0;
    }
    st->came_n++;

    return 0;
}


/* The answer of a sequence that is there; NULL: it is not. */
static answer_t *
answer_of(const story_t *st, uint32_t seq)
{
    uint32_t w = st->who[seq / LLM_CHOICES_MAX];

    assert(w == OTHER_NONE || w < st->came_n);

    return w == OTHER_NONE || seq % LLM_CHOICES_MAX >= st->came[w].choices
               ? NULL
               : &st->answers[st->came[w].answer + seq % LLM_CHOICES_MAX];
}


/* Who is in a step, and whose its outputs are. */
static int
hear_plan(story_t *st, const replay_call_t *c, column_t *col,
    const uint64_t *arrival_us, uint32_t outs_max)
{
    uint32_t k, i, o = 0, req;

    assert(c->type == RECORD_PLAN && c->outs_n <= outs_max);

    for (k = 0; k < c->rows_n; k++) {
        req = c->rows[k].seq / LLM_CHOICES_MAX;
        if (st->who[req] == OTHER_NONE) {
            continue;
        }
        if (st->begun_us[req] == 0) {
            st->begun_us[req] = c->us > 0 ? c->us : 1;
            st->came[st->who[req]].begun = 1;
            if (note(&col->wait, c->us > arrival_us[req]
                                     ? (double) (c->us - arrival_us[req]) / 1e3
                                     : 0)
                != 0) {
                return no_memory(st);
            }
        }
        for (i = 0; i < c->rows[k].outs && o < outs_max; i++) {
            st->seqs[o++] = c->rows[k].seq;
        }
    }
    while (o < outs_max && o < c->outs_n) {
        st->seqs[o++] = OTHER_NONE;
    }
    col->steps += c->rows_n > 0;
    col->tokens += c->tokens_n;

    return 0;
}


/* Tokens that nobody had to sample are the answer's all the same; what it takes
 * to sample them is what another policy is charged. */
static int
hear_more(answer_t *a, const sched_take_t *t)
{
    uint32_t i;

    for (i = 0; i < t->more_n; i++) {
        if (replay_room((void **) &a->tokens, a->n, &a->max, sizeof(*a->tokens))
            != 0) {
            return -1;
        }
        a->tokens[a->n++] = t->more[i];
    }

    return 0;
}


static int
hear_commit(story_t *st, const replay_call_t *c)
{
    answer_t *a;
    uint32_t i;

    assert(c->type == RECORD_COMMIT && c->takes != NULL);

    for (i = 0; i < c->outs_n; i++) {
        a = st->seqs[i] == OTHER_NONE ? NULL : answer_of(st, st->seqs[i]);
        if (a == NULL || c->takes[i].prompt || c->takes[i].err != 0) {
            st->seqs[i] = OTHER_NONE; /* nothing that counts came of it */
            continue;
        }
        if (replay_room((void **) &a->tokens, a->n, &a->max, sizeof(*a->tokens))
            != 0) {
            return no_memory(st);
        }
        a->tokens[a->n++] = c->takes[i].token;
        if (hear_more(a, &c->takes[i]) != 0) {
            return no_memory(st);
        }
        a->ends = c->takes[i].ends;
        a->over = c->takes[i].over;
    }

    return 0;
}


/* Has the answer of r's choice an end of its own? */
static int
whole(const answer_t *a, const req_t *r, uint32_t choice, uint32_t fits)
{
    uint64_t most = (uint64_t) r->prompts[choice / r->n].len
                    + (r->max_tokens > 0 ? r->max_tokens : 1);

    assert(r->n > 0 && choice < r->choices);
    most = most < fits ? most : fits;

    return a->cut > 0 || (a->n > 0 && (r->flags & LLM_F_SCORE) != 0)
           || (a->n > 0 && a->ends && (r->flags & LLM_F_IGNORE_EOS) == 0)
           || (a->n > 0 && a->over)
           || r->prompts[choice / r->n].len + a->n >= most;
}


/* Request req ends at us; r is what it came with. */
static void
hear_end(story_t *st, uint32_t req, const req_t *r, uint64_t us, uint32_t fits,
    column_t *col)
{
    came_t *w;
    uint32_t i, done = 0;

    if (st->who[req] == OTHER_NONE) {
        return;
    }
    w = &st->came[st->who[req]];
    st->who[req] = OTHER_NONE;

    for (i = 0; i < w->choices; i++) {
        done += whole(&st->answers[w->answer + i], r, i, fits) != 0;
    }
    if (done == w->choices) {
        col->finished++;
    } else if (!w->begun && r->queue_ms > 0
               && us >= r->arrival_us + (uint64_t) r->queue_ms * 1000) {
        col->expired++;
    } else {
        w->left_us = us > 0 ? us : 1;
    }
}


/* What a step that took us is told the fit and the column. */
static int
hear_took(story_t *st, const sched_load_t *load, uint64_t us, uint64_t at,
    const uint64_t *arrival_us, uint32_t outs_n, column_t *col)
{
    uint32_t i, req;

    assert(load->tokens >= 0);

    if (load->tokens > 0) {
        sched_pace_took(&st->pace, load, (double) us);
    }
    for (i = 0; i < outs_n; i++) {
        if (st->seqs[i] == OTHER_NONE) {
            continue;
        }
        req = st->seqs[i] / LLM_CHOICES_MAX;
        if (note_token(col, &st->last_us[req], arrival_us[req], at + us) != 0) {
            return no_memory(st);
        }
    }

    return 0;
}


/* What pass 1 keeps beside the story. */
typedef struct {
    req_t *reqs;          /* [reqs] owned; without prompts */
    uint64_t *arrival_us; /* [reqs] owned */
    sched_load_t load;    /* of the step that was planned last */
    uint64_t from_us, us; /* of the first plan, and the last */
    uint32_t outs_n, outs_max, fits;
    int plans;
} hearing_t;


static int
hear(story_t *st, hearing_t *h, const replay_call_t *c, column_t *col)
{
    answer_t *a;
    uint32_t k;

    switch (c->type) {
    case RECORD_ADD:
        replay_free(c->r);
        if (c->value == 0) {
            h->reqs[c->req] = *c->r;
            h->arrival_us[c->req] = c->r->arrival_us;
        }
        return hear_add(st, c, col);
    case RECORD_PLAN:
        h->us = c->us;
        h->from_us = h->plans++ == 0 ? c->us : h->from_us;
        h->outs_n = 0;
        memset(&h->load, 0, sizeof(h->load));
        for (k = 0; k < c->rows_n; k++) {
            if (c->rows[k].len > 0) {
                sched_load_row(&h->load, c->rows[k].start, c->rows[k].len,
                    c->rows[k].outs);
            }
        }
        return hear_plan(st, c, col, h->arrival_us, h->outs_max);
    case RECORD_COMMIT:
        h->outs_n = c->outs_n;
        return hear_commit(st, c);
    case RECORD_TOOK:
        k = h->outs_n;
        h->outs_n = 0;
        return hear_took(st, &h->load, c->us, h->us, h->arrival_us, k, col);
    case RECORD_CUT:
        a = answer_of(st, c->req * LLM_CHOICES_MAX + c->choice);
        if (a != NULL) {
            a->cut = c->index + 1;
        }
        return 0;
    case RECORD_END:
        hear_end(st, c->req, &h->reqs[c->req], h->us, h->fits, col);
        return 0;
    default:
        return 0;
    }
}


static void
story_free(story_t *st)
{
    size_t i;

    for (i = 0; i < st->answers_n; i++) {
        free(st->answers[i].tokens);
    }
    free(st->answers);
    free(st->came);
    mem_free(st->who);
    mem_free(st->seqs);
    mem_free(st->begun_us);
    mem_free(st->last_us);
}


/* Tables of pass 1. */
static int
story_open(story_t *st, hearing_t *h, const record_head_t *head)
{
    sched_cfg_t sc;
    kv_cfg_t kc;
    uint32_t window[KV_GROUPS];

    record_configs(head, &sc, &kc, window);
    h->fits = kv_longest(&kc);
    h->outs_max = (uint32_t) head->batch_outs;
    sched_pace_init(&st->pace, 1000000, 1);

    st->who = mem_zero(head->reqs, sizeof(*st->who));
    st->seqs = mem_zero(head->batch_outs, sizeof(*st->seqs));
    st->begun_us = mem_zero(head->reqs, sizeof(*st->begun_us));
    st->last_us = mem_zero(head->reqs, sizeof(*st->last_us));
    h->reqs = mem_zero(head->reqs, sizeof(*h->reqs));
    h->arrival_us = mem_zero(head->reqs, sizeof(*h->arrival_us));
    if (st->who == NULL || st->seqs == NULL || st->begun_us == NULL
        || st->last_us == NULL || h->reqs == NULL || h->arrival_us == NULL) {
        return no_memory(st);
    }
    memset(st->who, 255, head->reqs * sizeof(*st->who));

    return 0;
}


/* Pass 1 over the whole of f. */
static int
listen_to(story_t *st, FILE *f, column_t *col, uint64_t *from_us)
{
    hearing_t h = {.plans = 0};
    record_head_t head;
    replay_file_t *rf = replay_file_open(f, &head, st->err, st->errlen);
    replay_call_t c;
    uint64_t sum = 0, n = 0;
    size_t i;
    int rc = -1;

    if (rf != NULL && story_open(st, &h, &head) == 0) {
        while ((rc = replay_read(rf, &c)) == 1) {
            rc = hear(st, &h, &c, col);
            if (rc != 0) {
                break;
            }
        }
    }
    for (i = 0; i < st->answers_n; i++) {
        sum += st->answers[i].n;
        n += st->answers[i].n > 0;
    }
    st->mean = n > 0 ? (sum + n / 2) / n : 1;
    col->s = (double) (h.us - h.from_us) / 1e6;
    *from_us = h.from_us;
    mem_free(h.reqs);
    mem_free(h.arrival_us);
    replay_file_close(rf);

    return rc;
}


/* --- pass 2 ------------------------------------------------------------- */

typedef struct {
    replay_sched_t rs;
    replay_file_t *rf;
    const story_t *st;
    column_t *col;
    sched_take_t *takes;          /* [outs] owned, as are all below */
    uint32_t *who;                /* [reqs] place in came */
    uint32_t *sampled;            /* [reqs, LLM_CHOICES_MAX] */
    uint64_t *begun_us, *last_us; /* [reqs] */
    uint32_t *unused;             /* [unused_n] */
    uint32_t unused_n;
    replay_call_t next; /* who comes next, if there is one */
    int more;
    size_t came; /* how many have */
    uint64_t now_us;
} stage_t;


/* Finds who comes next.  -1: the file is bad. */
static int
look_ahead(stage_t *g)
{
    int rc;

    g->more = 0;
    while ((rc = replay_read(g->rf, &g->next)) == 1) {
        if (g->next.type != RECORD_ADD) {
            continue;
        }
        if (g->came == g->st->came_n) { /* it has grown since pass 1 */
            replay_free(g->next.r);
            return 0;
        }
        if (g->next.value == 0) {
            g->more = 1;
            return 0;
        }
        g->came++;
    }

    return rc;
}


static void
drop(stage_t *g, uint32_t i)
{
    assert(g->rs.live[i]);

    replay_free(&g->rs.reqs[i]);
    g->rs.live[i] = 0;
    g->unused[g->unused_n++] = i;
}


/* The next request comes. */
static int
arrive(stage_t *g)
{
    uint32_t i = g->unused[g->unused_n - 1], p;
    req_t *r = &g->rs.reqs[i];

    assert(g->unused_n > 0 && g->more && g->came < g->st->came_n);

    *r = *g->next.r;
    g->unused_n--;
    g->rs.live[i] = 1;
    g->who[i] = (uint32_t) g->came++;
    g->begun_us[i] = g->last_us[i] = 0;
    memset(g->sampled + (size_t) i * LLM_CHOICES_MAX, 0,
        LLM_CHOICES_MAX * sizeof(*g->sampled));
    for (p = 0; p < r->prompts_n; p++) {
        if (r->prompts[p].len >= kv_fits(g->rs.kv)) {
            drop(g, i);
            return look_ahead(g);
        }
    }
    if (sched_add(g->rs.s, i, r) != 0) {
        g->col->refused++;
        drop(g, i);
    }

    return look_ahead(g);
}


/* Those leave who did; when the next one will. */
static uint64_t
leave(stage_t *g)
{
    uint64_t at = UINT64_MAX, left;
    uint64_t i;

    for (i = 0; i < g->rs.head.reqs; i++) {
        if (!g->rs.live[i]) {
            continue;
        }
        left = g->st->came[g->who[i]].left_us;
        if (left != 0 && left <= g->now_us) {
            sched_end(g->rs.s, (uint32_t) i);
            drop(g, (uint32_t) i);
        } else if (left != 0 && left < at) {
            at = left;
        }
    }

    return at;
}


/* What is sampled next for a sequence. */
static void
sample(const stage_t *g, uint32_t seq, sched_take_t *t)
{
    const came_t *w = &g->st->came[g->who[seq / LLM_CHOICES_MAX]];
    const answer_t *a = &g->st->answers[w->answer + seq % LLM_CHOICES_MAX];
    uint32_t i = g->sampled[seq];

    assert(seq % LLM_CHOICES_MAX < w->choices);

    t->token = i < a->n ? a->tokens[i] : (seq * 40503u + i) % RECORD_TOKENS;
    t->ends = w->begun ? i + 1 == a->n && a->ends : i + 1 >= g->st->mean;
    t->over = w->begun && i + 1 == a->n && a->over;
}


/* A request's choice got a token: its stop string, and its end. */
static int
got(stage_t *g, const sched_take_t *t)
{
    const came_t *w = &g->st->came[g->who[t->req]];
    const answer_t *a = &g->st->answers[w->answer + t->choice];

    assert(g->rs.live[t->req] && t->choice < w->choices);

    g->sampled[t->req * LLM_CHOICES_MAX + t->choice]++;
    if (a->cut == t->index + 1 && t->finish == LLM_FINISH_NONE) {
        (void) sched_cut(g->rs.s, t->req, t->choice, t->index);
    }

    return note_token(
        g->col, &g->last_us[t->req], g->rs.reqs[t->req].arrival_us, g->now_us);
}


/* Those end who have all that they get. */
static void
reap(stage_t *g, uint32_t n)
{
    uint32_t i, req;

    for (i = 0; i < n; i++) {
        req = g->takes[i].req;
        if (g->rs.live[req] && sched_done(g->rs.s, req)) {
            g->col->finished++;
            sched_end(g->rs.s, req);
            drop(g, req);
        }
    }
}


static int
run_step(stage_t *g)
{
    const batch_t *b = &g->rs.b;
    sched_load_t load = {.tokens = 0};
    uint64_t us;
    uint32_t k, req;

    for (k = 0; k < b->rows_n; k++) {
        req = b->rows[k].seq / LLM_CHOICES_MAX;
        sched_load_row(&load, b->rows[k].q_start, b->rows[k].q_len, 0);
        if (g->begun_us[req] == 0) {
            g->begun_us[req] = g->now_us + 1;
            if (note(&g->col->wait,
                    (double) (g->now_us - g->rs.reqs[req].arrival_us) / 1e3)
                != 0) {
                return -1;
            }
        }
    }
    load.outs = b->outs_n;
    assert(b->rows_n > 0 && load.tokens > 0);
    us = (uint64_t) sched_pace_guess(&g->st->pace, &load) + 1;
    g->now_us += us;
    g->col->steps++;
    g->col->tokens += b->tokens_n;

    memset(g->takes, 0, b->outs_n * sizeof(*g->takes));
    for (k = 0; k < b->outs_n; k++) {
        if (b->outs[k].wanted == 0) {
            sample(g, b->rows[b->outs[k].row].seq, &g->takes[k]);
        }
    }
    sched_commit(g->rs.s, b, g->takes);
    sched_took(g->rs.s, b, us);

    for (k = 0; k < b->outs_n; k++) {
        if (!g->takes[k].prompt && got(g, &g->takes[k]) != 0) {
            return -1;
        }
    }
    reap(g, b->outs_n);

    return 0;
}


/* To the next thing that happens; 0: nothing will. */
static int
skip(stage_t *g, uint64_t leaves_us)
{
    uint64_t at = sched_expires_us(g->rs.s);

    assert(leaves_us > g->now_us);
    at = leaves_us < at ? leaves_us : at;
    if (g->more && g->unused_n > 0 && g->next.r->arrival_us < at) {
        at = g->next.r->arrival_us;
    }
    if (at == UINT64_MAX) {
        return 0;
    }
    g->now_us = at > g->now_us ? at : g->now_us + 1;

    return 1;
}


static int
act(stage_t *g)
{
    uint64_t leaves_us;
    uint32_t i;
    int rc = look_ahead(g);

    while (rc == 0) {
        while (rc == 0 && g->more && g->unused_n > 0
               && g->next.r->arrival_us <= g->now_us) {
            rc = arrive(g);
        }
        leaves_us = leave(g);
        sched_plan(g->rs.s, g->now_us, &g->rs.b);
        while (sched_expired(g->rs.s, &i)) {
            g->col->expired++;
            sched_end(g->rs.s, i);
            drop(g, i);
        }
        if (g->rs.b.rows_n > 0) {
            rc = rc == 0 ? run_step(g) : rc;
        } else if (!skip(g, leaves_us)) {
            break;
        }
    }

    return rc;
}


static int
stage_open(stage_t *g, FILE *f, const replay_change_t *change, story_t *st)
{
    record_head_t h;
    uint32_t i;

    g->rf = replay_file_open(f, &h, st->err, st->errlen);
    if (g->rf == NULL
        || replay_sched_open(&g->rs, &h, change, st->err, st->errlen) != 0) {
        return -1;
    }

    g->takes = mem_zero(h.batch_outs, sizeof(*g->takes));
    g->who = mem_zero(h.reqs, sizeof(*g->who));
    g->sampled = mem_zero(h.reqs * LLM_CHOICES_MAX, sizeof(*g->sampled));
    g->begun_us = mem_zero(h.reqs, sizeof(*g->begun_us));
    g->last_us = mem_zero(h.reqs, sizeof(*g->last_us));
    g->unused = mem_zero(h.reqs, sizeof(*g->unused));
    if (g->takes == NULL || g->who == NULL || g->sampled == NULL
        || g->begun_us == NULL || g->last_us == NULL || g->unused == NULL) {
        return no_memory(st);
    }
    for (i = 0; i < h.reqs; i++) {
        g->unused[g->unused_n++] = (uint32_t) h.reqs - 1 - i;
    }

    return 0;
}


/* Pass 2 over the whole of f. */
static int
stage(FILE *f, const replay_change_t *change, story_t *st, uint64_t from_us,
    column_t *col)
{
    stage_t g = {.st = st, .col = col, .now_us = from_us};
    sched_stats_t ss;
    int rc = stage_open(&g, f, change, st);

    if (rc == 0) {
        snprintf(st->err, st->errlen, "out of memory");
        rc = act(&g);
        sched_stats(g.rs.s, &ss);
        col->preemptions = ss.preemptions;
        col->asked = ss.cache_asked;
        col->hits = ss.cache_hits;
        col->s = (double) (g.now_us - from_us) / 1e6;
    }
    if (g.more) {
        replay_free(g.next.r);
    }
    replay_sched_close(&g.rs);
    replay_file_close(g.rf);
    mem_free(g.takes);
    mem_free(g.who);
    mem_free(g.sampled);
    mem_free(g.begun_us);
    mem_free(g.last_us);
    mem_free(g.unused);

    return rc;
}


/* --- what came of it ---------------------------------------------------- */

static void
print_columns(FILE *out, column_t *c, uint32_t n)
{
    uint32_t i;

    fprintf(out, "%-24s", "");
    for (i = 0; i < n; i++) {
        fprintf(out, " %14s", c[i].name);
    }

#define LINE(title, format, value)                                             \
    fprintf(out, "\n%-24s", title);                                            \
    for (i = 0; i < n; i++) {                                                  \
        fprintf(out, " %14" format, value);                                    \
    }
#define COUNT(title, field) LINE(title, "llu", (unsigned long long) c[i].field)
#define TIME(title, field, p)                                                  \
    LINE(title, ".1f", replay_percentile(c[i].field.v, c[i].field.n, p))
    COUNT("finished", finished)
    COUNT("refused", refused)
    COUNT("expired", expired)
    COUNT("steps", steps)
    COUNT("tokens computed", tokens)
    COUNT("preemptions", preemptions)
    LINE("found in the cache, %", ".1f",
        c[i].asked > 0 ? 100 * (double) c[i].hits / (double) c[i].asked : 0)
    LINE("time, s", ".3f", c[i].s)
    TIME("wait, ms, p50", wait, 50)
    TIME("wait, ms, p99", wait, 99)
    TIME("first token, ms, p50", first, 50)
    TIME("first token, ms, p99", first, 99)
    TIME("between tokens, ms, p50", gap, 50)
    TIME("between tokens, ms, p99", gap, 99)
#undef TIME
#undef COUNT
#undef LINE
    fprintf(out, "\n");
}


/* What only the scheduler that was recorded knows. */
static int
ask_recorded(FILE *f, const replay_change_t *change, column_t *c, char *err,
    size_t errlen)
{
    replay_change_t same = REPLAY_NO_CHANGE;
    replay_stats_t st;

    same.find = change->find;
    if (replay_calls(f, &same, NULL, &st, err, errlen) != 0) {
        return -1;
    }
    c->preemptions = st.preemptions;
    c->asked = st.cache_asked;
    c->hits = st.cache_hits;

    return 0;
}


int
replay_other(const char *path, const replay_change_t *change, FILE *out,
    char *err, size_t errlen)
{
    column_t c[3] = {
        {.name = "recorded"}, {.name = "same, modelled"}, {.name = "changed"}};
    replay_change_t same = REPLAY_NO_CHANGE;
    story_t st = {.err = err, .errlen = errlen};
    FILE *f = fopen(path, "re");
    uint64_t from_us = 0;
    uint32_t i;
    int rc = -1;

    if (f == NULL) {
        snprintf(err, errlen, "%s: %s", path, strerror(errno));
        return -1;
    }

    same.find = change->find;
    if (ask_recorded(f, change, &c[0], err, errlen) == 0) {
        rewind(f);
        rc = listen_to(&st, f, &c[0], &from_us);
    }
    for (i = 1; i < 3 && rc == 0; i++) {
        rewind(f);
        c[i].refused = c[0].refused;
        rc = stage(f, i == 1 ? &same : change, &st, from_us, &c[i]);
    }
    if (rc == 0) {
        print_columns(out, c, 3);
        fprintf(out, "a step's time is fitted, with a mean error of %.1f %%\n",
            100 * st.pace.fits[st.pace.best].miss);
    }

    for (i = 0; i < 3; i++) {
        column_free(&c[i]);
    }
    story_free(&st);
    (void) fclose(f);

    return rc;
}
