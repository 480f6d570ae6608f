/*
 * Catches a recording from which a second scheduler does not plan the same,
 * because a call or an argument is missing, one that tells what prompts say,
 * that holds up who is recorded, or grows past its limit; a replay that does
 * not notice another plan; and a file from outside, cut, damaged or made up,
 * that makes the reader read too far or the scheduler assert.
 */
#include "record.h"
#include "replay.h"
#include "sched_world.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    const char *policy;
    uint32_t budget, tile, target_us, floor, groups, cache;
    uint64_t limit;
    uint32_t pass_us;
    uint32_t shares, kept; /* shares: not those that a pool begins with */
    uint64_t idle_us;
} kind_t;

static char path[64];    /* of the recording */
static uint32_t seed;    /* of the world */
static uint64_t refused; /* in it, as are these */
static uint64_t steps, follows;

/* Under sanitizers, which take long. */
static int
brief(void)
{
    return getenv("LLM_BRIEF") != NULL;
}


static uint32_t
below(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;

    return (uint32_t) ((uint64_t) seed * n >> 32);
}


/* --- a world in which much happens -------------------------------------- */

/* A request of a few tenants whose prompts begin alike, in all variants. */
static void
come(world_t *w, uint32_t i)
{
    req_t *r = make(w, i, 1 + below(60), 1 + below(20));
    uint32_t p;

    r->n = 1 + below(8) / 6;
    r->prompts_n = 1 + below(8) / 6;
    r->choices = r->n * r->prompts_n;
    for (p = 0; p < r->prompts_n; p++) {
        r->prompts[p].len = 1 + below(60);
        r->prompts[p].ids = w->ids + 100 * below(3);
    }
    r->tenant = below(3);
    r->space = below(4) == 0;
    r->weight = below(3);
    r->priority = below(2);
    r->concurrent = below(3) == 0 ? 4 : 0;
    r->queue_max = below(3) == 0 ? 3 : 0;
    r->queue_ms = below(4) == 0 ? 5 + below(40) : 0;
    if (below(10) == 0) {
        r->flags = LLM_F_SCORE | LLM_F_PROMPT_LPS;
        r->max_tokens = 1;
    } else if (below(10) == 0) {
        r->flags = LLM_F_PROMPT_LPS;
    }
    r->arrival_us = w->now;

    if (sched_add(w->s, i, r) != 0) {
        refused++;
        (void) sched_retry_us(w->s, r);
        r->n = 0; /* not there */
    }
}


/* Somebody leaves, stalls or is cut. */
static void
happen(world_t *w)
{
    uint32_t i = below(REQS), known, computed, prompt, c;
    req_t *r = &w->reqs[i];

    if (r->n == 0) {
        if (below(2)) {
            come(w, i);
        }
        return;
    }

    switch (below(12)) {
    case 0:
        sched_end(w->s, i);
        r->n = 0;
        break;
    case 1:
        c = below(r->choices);
        prompt = r->prompts[c / r->n].len;
        (void) sched_seq(w->s, i * LLM_CHOICES_MAX + c, &known, &computed);
        if (known > prompt) {
            (void) sched_cut(w->s, i, c, below(known - prompt));
            if (sched_done(w->s, i)) {
                sched_end(w->s, i);
                r->n = 0;
            }
        }
        break;
    case 2:
    case 3:
        sched_credit(w->s, i, 0);
        break;
    default:
        sched_credit(w->s, i, 1);
    }
}


/* Plans and runs a step; NaN, ends of texts and tokens that follow come too. */
static void
world_turn(world_t *w)
{
    static const uint32_t follow[SCHED_MORE_MAX] = {1001, 1003, 1002};
    uint32_t i, more = 0;

    w->now += 1 + below(3000);
    sched_plan(w->s, w->now, &w->b);
    while (sched_expired(w->s, &i)) {
        refused++;
        (void) sched_retry_us(w->s, &w->reqs[i]);
        sched_end(w->s, i);
        w->reqs[i].n = 0;
    }
    if (w->b.rows_n == 0) {
        return;
    }
    steps++;

    memset(w->takes, 0, sizeof(w->takes));
    for (i = 0; i < w->b.outs_n; i++) {
        w->takes[i].token = 1000 + w->b.outs[i].pos % 7;
        w->takes[i].ends = below(30) == 0;
        w->takes[i].err = below(200) == 0 ? LLM_ERR_NAN_LOGITS : 0;
        w->takes[i].over = below(60) == 0;
        if (below(8) == 0 && w->takes[i].err == 0 && w->b.outs[i].wanted == 0) {
            w->takes[i].more = follow;
            w->takes[i].more_n =
                sched_more_room(w->s, w->b.rows[w->b.outs[i].row].seq);
            if (w->takes[i].more_n > w->b.outs_max - more) {
                w->takes[i].more_n = w->b.outs_max - more;
            }
            more += w->takes[i].more_n;
        }
    }
    follows += more;
    sched_commit(w->s, &w->b, w->takes);
    sched_took(w->s, &w->b, 500 + 10 * w->b.tokens_n + below(100));

    for (i = 0; i < w->b.outs_n; i++) {
        if (w->reqs[w->takes[i].req].n > 0
            && (w->takes[i].err != 0 || sched_done(w->s, w->takes[i].req))) {
            sched_end(w->s, w->takes[i].req);
            w->reqs[w->takes[i].req].n = 0;
        }
    }
}


/* The world, with outputs for the logprobs of prompts, and its recorder. */
static world_t *
world_record(const kind_t *k, recorder_t **rec)
{
    static const uint32_t windows[] = {0, 12};
    sched_cfg_t c = {.policy = sched_policy(k->policy),
        .budget = k->budget,
        .tile = k->tile,
        .target_us = k->target_us,
        .floor = k->floor,
        .pass_us = k->pass_us};
    kv_cfg_t kc = {60, BT, REQS * LLM_CHOICES_MAX, 96, 48, k->groups, windows};
    world_t *w = world_open_as(12, 48, 96, 60, k->groups, windows, c);
    record_head_t h;
    char err[256];

    free(w->b.outs);
    w->b.outs_max = 20;
    w->b.outs = calloc(w->b.outs_max, sizeof(batch_out_t));
    if (k->cache) {
        assert_int_equal(kv_cache(w->kv, 6, 99), 0);
    }

    c.reqs = REQS;
    c.rows = 12;
    c.tokens = 48;
    c.context = 96;
    record_head(&h, &c, &kc, k->cache ? 6 : 0, &w->b);
    if (k->shares) {
        kv_shares(w->kv, k->kept, k->idle_us);
        h.kept = k->kept;
        h.idle_us = k->idle_us;
    }
    *rec = record_open(path, k->limit, &h, err, sizeof(err));
    assert_non_null(*rec);
    sched_tap(w->s, record_tell, *rec);

    return w;
}


/* Records so many turns. */
static void
record_turns(const kind_t *k, uint32_t turns, uint32_t with_seed)
{
    recorder_t *rec;
    world_t *w;
    uint32_t t;

    seed = with_seed;
    refused = steps = follows = 0;
    w = world_record(k, &rec);
    for (t = 0; t < turns; t++) {
        happen(w);
        happen(w);
        happen(w);
        world_turn(w);
        kv_check_deep(w->kv);
    }
    assert_true(record_close(rec) <= k->limit);
    world_close(w);
}


#define MUCH (1u << 30)

static const kind_t kinds[] = {
    {.policy = "fair", .groups = 1, .limit = MUCH},
    {.policy = "fair",
        .budget = 32,
        .tile = 8,
        .floor = 5,
        .groups = 1,
        .cache = 1,
        .limit = MUCH},
    {.policy = "fair",
        .tile = 4,
        .target_us = 900,
        .floor = 5,
        .groups = 2,
        .cache = 1,
        .limit = MUCH},
    {.policy = "fcfs", .budget = 24, .groups = 2, .limit = MUCH},
    {.policy = "fcfs", .floor = 10, .groups = 1, .cache = 1, .limit = MUCH},
    {.policy = "prefix",
        .tile = 4,
        .groups = 1,
        .cache = 1,
        .pass_us = 20000,
        .limit = MUCH},
    {.policy = "prefix",
        .target_us = 900,
        .floor = 40,
        .groups = 2,
        .cache = 1,
        .pass_us = MUCH,
        .limit = MUCH},
    {.policy = "prefix", .budget = 24, .groups = 1, .limit = MUCH},
    {.policy = "fair",
        .floor = 40,
        .groups = 1,
        .cache = 1,
        .pass_us = 20000,
        .shares = 1,
        .kept = 100,
        .idle_us = 20000,
        .limit = MUCH},
    {.policy = "fair",
        .groups = 1,
        .cache = 1,
        .pass_us = MUCH,
        .shares = 1,
        .limit = MUCH},
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))


/* Replays what is at path; its result, and what it said in err. */
static int
replay(const replay_change_t *change, replay_stats_t *st, char err[256])
{
    FILE *f = fopen(path, "re");
    int rc;

    assert_non_null(f);
    rc = replay_calls(f, change, NULL, st, err, 256);
    (void) fclose(f);

    return rc;
}


/* --- tests -------------------------------------------------------------- */

static void
test_equal(void **state)
{
    replay_stats_t st;
    char err[256];
    uint32_t i;

    (void) state;
    for (i = 0; i < KINDS; i++) {
        record_turns(&kinds[i], brief() ? 500 : 1500, 3 + i);
        assert_int_equal(replay(&REPLAY_NO_CHANGE, &st, err), 0);
        assert_int_equal(st.differs, 0);
        assert_int_equal(st.steps, steps);
        assert_true(follows > 0);
        assert_string_equal(st.ends, "the engine ended");

        /* much did happen */
        assert_true(st.requests > 100 && st.refused > 5 && refused > 10);
        assert_true(st.preemptions > 5 && st.sampled > 500);
    }
}


/* With anything else the plans are others, and that is noticed. */
static void
test_changed(void **state)
{
    replay_change_t c[6] = {REPLAY_NO_CHANGE, REPLAY_NO_CHANGE,
        REPLAY_NO_CHANGE, REPLAY_NO_CHANGE, REPLAY_NO_CHANGE, REPLAY_NO_CHANGE};
    replay_stats_t st;
    char err[256];
    uint32_t i;

    (void) state;
    record_turns(&kinds[1], 500, 5);
    c[0].policy = "fcfs";
    c[1].tokens = 40;
    c[2].tile = 24;
    c[3].target_us = 700;
    c[4].cache = 0;
    c[5].floor = 50;
    for (i = 0; i < 6; i++) {
        assert_int_equal(replay(&c[i], &st, err), 0);
        assert_true(st.differs > 0 && st.differs < 500);
        assert_string_equal(st.ends, "a plan differs");
    }

    c[0].policy = "nonsense";
    assert_int_equal(replay(&c[0], &st, err), -1);
    assert_string_equal(err, "there is no policy \"nonsense\"");
}


static uint8_t *
slurp(const char *name, size_t *n)
{
    FILE *f = fopen(name, "re");
    uint8_t *p = malloc(1 << 22);

    assert_non_null(f);
    *n = fread(p, 1, 1 << 22, f);
    (void) fclose(f);

    return p;
}


/* Replays so many bytes. */
static int
replay_bytes(const uint8_t *p, size_t n, replay_stats_t *st, char err[256])
{
    FILE *f = n > 0 ? fmemopen((void *) (uintptr_t) p, n, "r")
                    : fopen("/dev/null", "re");
    int rc;

    assert_non_null(f);
    err[0] = '\0';
    rc = replay_calls(f, &REPLAY_NO_CHANGE, NULL, st, err, 256);
    (void) fclose(f);

    return rc;
}


/* Replays what is at path with other figures in its head. */
static void
replay_head(const record_head_t *h, replay_stats_t *st)
{
    uint8_t *was, *now, head[RECORD_HEAD_BYTES];
    record_file_t *rf;
    record_head_t read;
    size_t n, skip, len;
    char err[256];
    FILE *f;

    was = slurp(path, &n);
    f = fmemopen(was, n, "r");
    rf = record_file_open(f, &read, err, sizeof(err));
    assert_non_null(rf);
    record_file_close(rf);
    (void) fclose(f);
    skip = record_head_put(head, &read);
    assert_true(skip < n && memcmp(head, was, skip) == 0);

    now = malloc(n + RECORD_HEAD_BYTES);
    assert_non_null(now);
    len = record_head_put(now, h);
    memcpy(now + len, was + skip, n - skip);
    assert_int_equal(replay_bytes(now, len + n - skip, st, err), 0);
    free(was);
    free(now);
}


/* Who may pass whom, and what is kept of whose cache, is in the head, and in
 * what is planned from it. */
static void
test_matches(void **state)
{
    static const kind_t k = {.policy = "fair",
        .floor = 20,
        .groups = 1,
        .cache = 1,
        .pass_us = 20000,
        .shares = 1,
        .kept = 80,
        .idle_us = 15000,
        .limit = MUCH};
    record_head_t h, was;
    replay_stats_t st;
    char err[256];
    record_file_t *rf;
    uint32_t i;
    FILE *f;

    (void) state;
    record_turns(&k, 1000, 4);
    f = fopen(path, "re");
    assert_non_null(f);
    rf = record_file_open(f, &was, err, sizeof(err));
    assert_non_null(rf);
    record_file_close(rf);
    (void) fclose(f);
    assert_int_equal(was.pass_us, 20000);
    assert_int_equal(was.kept, 80);
    assert_int_equal(was.idle_us, 15000);
    assert_int_equal(was.floor, 20);

    replay_head(&was, &st);
    assert_int_equal(st.differs, 0);
    for (i = 0; i < 5; i++) {
        h = was;
        switch (i) {
        case 0:
            h.pass_us = 0;
            break;
        case 1:
            h.kept = 0;
            break;
        case 2:
            h.idle_us = 0;
            break;
        case 3:
            h.floor = 0;
            break;
        default:
            snprintf(h.policy, sizeof(h.policy), "prefix");
        }
        replay_head(&h, &st);
        assert_true(st.differs > 0 && st.differs < 1000);
    }
}


/* The file is its owner's, and the one before it is kept. */
static void
test_file(void **state)
{
    uint8_t *first, *old;
    char name[80], err[256];
    struct stat st;
    size_t n, m;
    recorder_t *rec;
    record_head_t h;
    world_t *w;

    (void) state;
    record_turns(&kinds[0], 50, 1);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    first = slurp(path, &n);
    record_turns(&kinds[0], 50, 2);
    snprintf(name, sizeof(name), "%s.old", path);
    old = slurp(name, &m);
    assert_int_equal(n, m);
    assert_memory_equal(first, old, n);
    free(first);
    free(old);
    (void) unlink(name);

    /* what cannot be opened or held says so */
    w = world_record(&kinds[0], &rec);
    (void) record_close(rec);
    world_close(w);
    (void) unlink(name);
    memset(&h, 0, sizeof(h));
    assert_null(record_open(path, 1 << 20, &h, err, sizeof(err)));
    assert_non_null(strstr(err, "reqs"));
}


/* No tokens of prompts or answers, not even how often one comes. */
static void
test_hidden(void **state)
{
    const kind_t k = {.policy = "fcfs", .groups = 1, .cache = 1, .limit = MUCH};
    uint32_t ids[4][32], i, j, n = 0, was[128];
    record_head_t h;
    record_file_t *rf;
    recorder_t *rec;
    char err[256];
    record_t r;
    world_t *w;
    FILE *f;
    int cut;

    (void) state;
    seed = 1;
    w = world_record(&k, &rec);
    for (i = 0; i < 4; i++) { /* all the same, but the last of the second */
        for (j = 0; j < 32; j++) {
            ids[i][j] = 7;
        }
        make(w, i, 32, 2)->prompts[0].ids = ids[i];
    }
    ids[1][31] = 8;
    w->reqs[2].space = 5;
    for (i = 0; i < 4; i++) {
        assert_int_equal(sched_add(w->s, i, &w->reqs[i]), 0);
    }
    (void) record_close(rec);
    world_close(w);

    f = fopen(path, "re");
    assert_non_null(f);
    rf = record_file_open(f, &h, err, sizeof(err));
    assert_non_null(rf);
    while (record_file_next(rf, &r, &cut, err, sizeof(err)) == 1) {
        if (r.type == RECORD_PROMPT) {
            assert_int_equal(record_tokens_n(&r), 32);
            record_tokens(&r, was + n, 32);
            assert_true(record_whole(&r));
            n += 32;
        }
    }
    assert_int_equal(n, 128);
    record_file_close(rf);
    (void) fclose(f);

    assert_memory_equal(was, was + 32, 31 * 4); /* begin alike */
    assert_int_not_equal(was[31], was[63]);
    assert_memory_equal(was, was + 96, 32 * 4); /* are alike */
    for (i = 0; i < 32; i++) {
        assert_int_not_equal(was[i], was[64 + i]); /* another namespace */
        assert_int_not_equal(was[i], 7);
        for (j = 0; j < i; j++) {
            assert_int_not_equal(was[i], was[j]);
        }
    }
}


/* At its limit it ends, and says so; the scheduler goes on. */
static void
test_limit(void **state)
{
    kind_t k = kinds[1];
    replay_stats_t st;
    struct stat fs;
    char err[256];

    (void) state;
    for (k.limit = 1 << 10; k.limit <= (brief() ? 1 << 13 : 1 << 19);
         k.limit *= 8) {
        record_turns(&k, k.limit > 1 << 16 ? 3000 : 400, 3);
        assert_int_equal(stat(path, &fs), 0);
        assert_true((uint64_t) fs.st_size <= k.limit);
        assert_int_equal(replay(&REPLAY_NO_CHANGE, &st, err), 0);
        assert_int_equal(st.differs, 0);
        assert_string_equal(st.ends, "the limit of its size was reached");
    }
}


/* Replays what comes from a descriptor, to its end. */
static void *
drain(void *arg)
{
    FILE *f = fdopen(*(int *) arg, "r");
    replay_stats_t st;
    char err[256];
    int rc;

    rc = replay_calls(f, &REPLAY_NO_CHANGE, NULL, &st, err, sizeof(err));
    while (fgetc(f) != EOF) {
    }
    (void) fclose(f);

    return rc == 0 && st.differs == 0 && st.requests > 100
                   && strcmp(st.ends, "the disk could not keep up") == 0
               ? NULL
               : arg;
}


/* A disk that takes nothing, and one that takes nothing for a while. */
static void
test_disk(void **state)
{
    enum { LEN = 16000 };
    kv_cfg_t kc = {8000, BT, REQS * LLM_CHOICES_MAX, LEN + 10, 64, 1,
        (const uint32_t[1]){0}};
    sched_cfg_t c = {
        .reqs = REQS, .rows = 4, .tokens = 64, .context = LEN + 10};
    char fifo[80], err[256];
    pthread_t thread;
    void *differs;
    world_t *w;
    record_head_t h;
    recorder_t *rec;
    uint32_t i;
    int fd, k;

    (void) state;
    snprintf(fifo, sizeof(fifo), "%s.fifo", path);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    for (k = 0; k < (brief() ? 1 : 2); k++) {
        w = world_open(4, 64, LEN + 10, 8000);
        for (i = 0; i < 4096; i++) {
            w->ids[i] = i;
        }
        record_head(&h, &c, &kc, 0, &w->b);
        fd = open(fifo, O_RDONLY | O_NONBLOCK);
        assert_true(fd >= 0);
        rec = record_open(
            k == 0 ? "/dev/full" : fifo, 1u << 30, &h, err, sizeof(err));
        if (k == 0) { /* already its head */
            assert_null(rec);
            assert_non_null(strstr(err, "/dev/full"));
            world_close(w);
            (void) close(fd);
            continue;
        }
        assert_non_null(rec);
        assert_int_equal(record_start(rec, err, sizeof(err)), 0);
        sched_tap(w->s, record_tell, rec);
        for (i = 0; i < 400 && record_on(rec); i++) {
            uint32_t *ids = calloc(LEN, sizeof(*ids));

            make(w, 0, LEN, 1)->prompts[0].ids = ids;
            assert_int_equal(sched_add(w->s, 0, &w->reqs[0]), 0);
            sched_end(w->s, 0);
            free(ids);
        }
        assert_true(i > 100 && i < 400); /* as much as the ring holds */
        assert_false(record_on(rec));

        /* now it goes on */
        assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
        assert_int_equal(pthread_create(&thread, NULL, drain, &fd), 0);
        (void) record_close(rec);
        assert_int_equal(pthread_join(thread, &differs), 0);
        assert_null(differs);
        world_close(w);
    }
    (void) unlink(fifo);
}


/* --- files from outside ------------------------------------------------- */

/* Cut anywhere it is equal as far as it goes; with any byte changed it is not
 * taken for whole. */
static void
test_damaged(void **state)
{
    replay_stats_t st, all;
    size_t n, i, step;
    uint8_t *p;
    char err[256];

    (void) state;
    record_turns(&kinds[1], 60, 9);
    p = slurp(path, &n);
    assert_int_equal(replay_bytes(p, n, &all, err), 0);
    step = n / 400 + 1;
    for (i = 0; i < n; i += i < 200 ? 1 : step) {
        if (replay_bytes(p, i, &st, err) == 0) {
            assert_int_equal(st.differs, 0);
            assert_true(st.steps <= all.steps);
            assert_true(strncmp(st.ends, "the file ", 9) == 0);
        } else {
            assert_true(err[0] != '\0' && strchr(err, '\n') == NULL);
            assert_true(i < RECORD_HEAD_BYTES);
        }
    }
    for (i = 0; i < n; i += i < 200 ? 1 : step) {
        p[i] ^= 1 << i % 8;
        if (replay_bytes(p, n, &st, err) == 0) { /* a frame that is too long */
            assert_string_equal(st.ends, "the file is cut off");
        } else {
            assert_true(err[0] != '\0' && strchr(err, '\n') == NULL);
        }
        p[i] ^= 1 << i % 8;
    }
    free(p);
}


/* A recording that is made up: its head, and these records. */
typedef struct {
    uint8_t bytes[8192];
    size_t n, frame;
} made_t;


static void
made_open(made_t *m, const record_head_t *h)
{
    m->n = record_head_put(m->bytes, h);
    m->frame = m->n;
    m->n += RECORD_FRAME;
}


static void
made_add(made_t *m, record_type_t type, int n, const uint64_t *v)
{
    uint8_t *lead = m->bytes + m->n, *p = lead + RECORD_LEAD;
    int i;

    for (i = 0; i < n; i++) {
        p = record_put(p, v[i]);
    }
    record_lead(lead, type, (size_t) (p - lead) - RECORD_LEAD);
    m->n += (size_t) (p - lead);
}


static int
made_replay(made_t *m, replay_stats_t *st, char err[256])
{
    record_frame(m->bytes + m->frame, m->bytes + m->frame + RECORD_FRAME,
        m->n - m->frame - RECORD_FRAME);

    return replay_bytes(m->bytes, m->n, st, err);
}

#define MADE(m, type, ...)                                                     \
    made_add(m, RECORD_##type,                                                 \
        sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t),            \
        (const uint64_t[]){__VA_ARGS__})


/* A request of four tokens, in one record each. */
static void
made_request(made_t *m, uint32_t req)
{
    uint8_t *p;

    MADE(m, ADD, req, 0, 0, 1, 0, 1, 1, 3, 0, 1, 0, 0, 0, 0, 4);
    record_lead(m->bytes + m->n, RECORD_PROMPT, 16);
    p = m->bytes + m->n + RECORD_LEAD;
    memset(p, 1, 16);
    m->n += RECORD_LEAD + 16;
}


static const record_head_t made_head = {.reqs = 4,
    .rows = 2,
    .tokens = 16,
    .context = 32,
    .batch_rows = 2,
    .batch_tokens = 16,
    .batch_outs = 2,
    .blocks = 20,
    .block_tokens = 4,
    .step = 16,
    .groups = 1,
    .cache = 1,
    .owners = 8,
    .policy = "fair"};


/* Calls that nobody may make are said to be, and not made. */
static void
test_hostile(void **state)
{
    static const struct {
        record_type_t type;
        int n;
        uint64_t v[18];
    } bad[] = {
        {RECORD_END, 1, {2}},                           /* not there */
        {RECORD_END, 1, {4}},                           /* there are four */
        {RECORD_END, 2, {1, 1}},                        /* too many numbers */
        {RECORD_CREDIT, 2, {0, 1}},                     /* not there */
        {RECORD_CREDIT, 2, {1, 2}},                     /* neither yes nor no */
        {RECORD_CUT, 3, {1, 0, 0}},                     /* nothing sampled */
        {RECORD_CUT, 3, {1, 1, 0}},                     /* no such choice */
        {RECORD_CUT, 3, {0, 0, 0}},                     /* not there */
        {RECORD_COMMIT, 2, {1, 0}},                     /* of what? */
        {RECORD_COMMIT, 1, {3}},                        /* too many */
        {RECORD_TOOK, 1, {5}},                          /* what? */
        {RECORD_ROW, 9, {16, 0, 4, 1, 0, 0, 2, 37, 0}}, /* of what? */
        {RECORD_PROMPT, 4, {1, 1, 1, 1}},               /* whose? */
        {RECORD_PLAN, 4, {5, 2, 8, 2}},                 /* where are they? */
        {RECORD_PLAN, 4, {5, 3, 8, 2}},                 /* two at most */
        {RECORD_PLAN, 4, {5, 2, 17, 2}},                /* sixteen at most */
        {RECORD_PLAN, 4, {UINT64_MAX, 1, 4, 1}},        /* never */
        {RECORD_RETRY, 3, {1, 2, 3}},                   /* one is missing */
        {RECORD_HEAD, 1, {1}},                          /* again */
        {RECORD_END_OF_FILE, 1, {99}},                  /* why? */
        {RECORD_ADD, 15, {1, 0, 0, 1, 0, 1, 1, 3, [14] = 4}},  /* twice */
        {RECORD_ADD, 15, {2, 0, 0, 1, 0, 17, 1, 3, [14] = 4}}, /* choices */
        {RECORD_ADD, 16, {2, 0, 0, 1, 0, 4, 5, 3, [14] = 4, 4}},
        {RECORD_ADD, 15, {2, 0, 0, 1, 0, 0, 1, 3, [14] = 4}},
        {RECORD_ADD, 15, {2, 0, 0, 1, 0, 1, 1, 3, [14] = 32}}, /* too long */
        {RECORD_ADD, 15, {2, 0, 0, 1, 0, 1, 1, 3, [14] = 0}},
        {RECORD_ADD, 15, {2, 999, 0, 1, 0, 1, 1, 3, [14] = 4}}, /* no answer */
        {RECORD_ADD, 15, {1, LLM_ERR_BUSY, 0, 1, 0, 1, 1, 3, [14] = 4}},
    };
    replay_stats_t st;
    char err[256];
    made_t m;
    size_t k;

    (void) state;
    for (k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
        made_open(&m, &made_head);
        made_request(&m, 1);
        made_add(&m, bad[k].type, bad[k].n, bad[k].v);
        MADE(&m, END, 1); /* where a prompt, or rows, should be */
        assert_int_equal(made_replay(&m, &st, err), -1);
        assert_true(strncmp(err, "call ", 5) == 0 && !strchr(err, '\n'));
    }
}


/* A plan, and what comes after it in the wrong order; a plan that differs. */
static void
test_made(void **state)
{
    replay_stats_t st;
    char err[256];
    made_t m;
    int k;

    (void) state;
    for (k = 0; k < 9; k++) {
        made_open(&m, &made_head);
        made_request(&m, 1);
        MADE(&m, PLAN, 5, 1, 4, 1);
        /* another token, another block */
        MADE(&m, ROW, 16, 0, 4, 1, k == 7 ? 8 : 0, 0, 1, k == 8 ? 1 : 0, 1,
            k == 8);
        switch (k) {
        case 0:
            MADE(&m, END, 1); /* it runs */
            break;
        case 1:
            MADE(&m, PLAN, 6, 0, 0, 0); /* the step runs */
            break;
        case 2:
            MADE(&m, COMMIT, 0); /* one is wanted */
            break;
        case 3:
            MADE(&m, COMMIT, 1, RECORD_OF_PROMPT);
            break;
        case 4:
            MADE(&m, COMMIT, 1, RECORD_ERR, LLM_ERR_NAN_LOGITS);
            MADE(&m, PLAN, 6, 0, 0, 0); /* it should have ended */
            break;
        case 5:
            MADE(&m, COMMIT, 1, RECORD_ERR, LLM_ERR_NAN_LOGITS);
            MADE(&m, END, 1);
            MADE(&m, PLAN, 4, 0, 0, 0); /* earlier */
            break;
        default:
            MADE(&m, COMMIT, 1, RECORD_ERR, LLM_ERR_NAN_LOGITS);
            MADE(&m, TOOK, 7);
            MADE(&m, END, 1);
            MADE(&m, PLAN, 6, 0, 0, 0);
            MADE(&m, END_OF_FILE, RECORD_BY_CLOSED);
        }
        err[0] = '\0';
        assert_int_equal(made_replay(&m, &st, err), k < 6 ? -1 : 0);
        assert_int_equal(strncmp(err, "call ", 5) == 0, k < 6);
        assert_int_equal(st.differs, k == 7 || k == 8);
    }
    assert_string_equal(st.ends, "a plan differs");
}


/* A row has no more outputs than tokens, nor than a batch: read as it is, a
 * plan with one more cannot be. */
static void
test_outputs(void **state)
{
    static const struct {
        uint32_t len, outs;
        int ok;
    } rows[] = {{4, 1, 1}, {1, 2, 0}, {4, 2, 1}, {4, 3, 0}, {16, 17, 0}};
    replay_stats_t st;
    char err[256];
    made_t m;
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        made_open(&m, &made_head);
        made_request(&m, 1);
        MADE(&m, PLAN, 5, 1, rows[i].len, rows[i].outs > 2 ? 2 : rows[i].outs);
        MADE(&m, ROW, 16, 0, rows[i].len, rows[i].outs, 0, 0, 1, 0, 0);
        assert_int_equal(made_replay(&m, &st, err), rows[i].ok ? 0 : -1);
        if (!rows[i].ok) {
            assert_non_null(strstr(err, "a row that cannot be"));
        } else {
            assert_int_equal(st.plans, 1);
        }
    }
}


/* Heads that name what cannot be, one field at a time. */
static void
test_heads(void **state)
{
    record_head_t h;
    replay_stats_t st;
    char err[256];
    made_t m;
    uint32_t i;

    (void) state;
    for (i = 0; i < 14; i++) {
        h = made_head;
        switch (i) {
#define BAD(n, field, value)                                                   \
    case n:                                                                    \
        h.field = value;                                                       \
        break
            BAD(0, reqs, 0);
            BAD(1, reqs, 1 << 18);
            BAD(2, rows, 3);
            BAD(3, tokens, 17);
            BAD(4, context, 1);
            BAD(5, floor, 101);
            BAD(6, blocks, 0);
            BAD(7, blocks, 1ull << 40);
            BAD(8, block_tokens, 0);
            BAD(9, step, 0);
            BAD(10, groups, 9);
            BAD(11, owners, 1 << 20);
            BAD(12, policy[0], 'x');
            BAD(13, window3, UINT64_MAX);
#undef BAD
        }
        made_open(&m, &h);
        made_request(&m, 1);
        assert_int_equal(made_replay(&m, &st, err), -1);
        assert_true(err[0] != '\0' && strchr(err, '\n') == NULL);
    }
    h = made_head;
    h.block_tokens = 1;
    h.blocks = 1;
    made_open(&m, &h);
    made_request(&m, 1);
    assert_int_equal(made_replay(&m, &st, err), -1);
    assert_string_equal(err, "its blocks hold no sequence");
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_changed),
        cmocka_unit_test(test_matches),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_hidden),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_disk),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_made),
        cmocka_unit_test(test_outputs),
        cmocka_unit_test(test_heads),
    };
    char old[80];
    int rc;

    snprintf(path, sizeof(path), "/tmp/record.%d", (int) getpid());
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    snprintf(old, sizeof(old), "%s.old", path);
    (void) unlink(path);
    (void) unlink(old);

    return rc;
}
