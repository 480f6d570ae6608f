/*
 * llm-engine: options, open, build, start threads, wait, drain, close.
 *
 * DESIGN.  Everything that a request will need is opened here, in order, and
 * what cannot be opened ends the start with one sentence and exit 1.  Then
 * memory is sealed and three threads run: text_in, loop, text_out (inner.h
 * says how they are tied together).  This thread only waits for a signal.
 *
 *      options ─> kernels ─> socket's lock ─> model ─> tokenizer ─> template
 *              ─> forward ─> tables and rings ─> pinned prefixes ─> listen
 *              ─> threads ─> signal ─> drain
 *
 * Where each rank of some is a process (group.c), all of them start so, but
 * those that are not rank 0 have no socket and no requests: they load their
 * part, and follow rank 0 until it ends (follow.c).
 *
 * The lock comes before the model: who starts a second engine by mistake is
 * told at once and not after a minute of loading.  The socket comes last:
 * a worker that can connect will be served.
 *
 * Signals are blocked in all threads and taken here by waiting for them.  The
 * first SIGTERM, SIGINT or SIGQUIT drains: no new requests, running ones go
 * on for drain_timeout, what is left gets ERROR.  A second one cuts that
 * short.
 */
#include "backend.h"
#include "clock.h"
#include "cpus.h"
#include "follow.h"
#include "forward.h"
#include "grammar_cache.h"
#include "group.h"
#include "inspect.h"
#include "inner.h"
#include "ipc.h"
#include "load.h"
#include "log.h"
#include "loop.h"
#include "mem.h"
#include "opts.h"
#include "prefix.h"
#include "progress.h"
#include "ranks.h"
#include "record.h"
#include "replay.h"
#include "shape.h"
#include "text_in.h"
#include "text_out.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ENGINE_VERSION "0.1.0"
#define NULL_CONTEXT   4096 /* of the back end that has no model */
#define DRAIN_LOOK_MS  20   /* between two looks at what still runs */
#define DRAIN_KILL_MS  3000 /* for the ERRORs to get out */
#define THREAD_END_MS  5000 /* for a thread to end when told to */

#define GRAMMAR_REFUSED_US 10000000 /* how long a refusal is remembered */
#define ENGINE_THREADS     3

/* All owned; built in this order and taken down in the reverse. */
typedef struct {
    opts_t o;
    sigset_t signals;        /* that end the engine */
    char name[LLM_NAME_MAX]; /* the model's, as clients say it */
    ipc_t *ipc;
    load_t load;
    prefix_set_t prefixes; /* that are pinned */
    const kernels_t *kn;
    cpus_t cpus; /* that the device's threads stay on */
    forward_cfg_t shape;
    const sched_policy_t *policy;
    group_opts_t group;
    uint32_t rank, processes; /* this one's, of those that have one each */
    comm_t *comm;             /* NULL: this is the only process */
    ranks_t *ranks;
    follow_t *follow;              /* NULL likewise */
    progress_t progress;           /* of loading, */
    pthread_mutex_t progress_lock; /* by as many threads as ranks */
    grammar_cache_t *grammars;
    inner_t *in;
    loop_t *loop;
    recorder_t *rec; /* NULL: nothing is recorded */
    text_out_t *text_out;
    text_in_t *text_in;
    pthread_t threads[ENGINE_THREADS];
    uint32_t threads_n;
    char err[512]; /* why a step failed, one sentence */
} engine_t;


/* --- start -------------------------------------------------------------- */

/* Prompts and keys must not reach a core file or another process. */
static void
keep_private(void)
{
    const struct rlimit none = {0, 0};

    (void) setrlimit(RLIMIT_CORE, &none);
    (void) prctl(PR_SET_DUMPABLE, 0);
}


/* 0, or -1 with e->err. */
static int
open_options(engine_t *e, int argc, char **argv)
{
    int level;

    opts_init(&e->o);
    if (opts_args(&e->o, argc, argv, e->err, sizeof(e->err)) != 0) {
        return -1;
    }

    level = log_level(e->o.log_level);
    if (level < 0) {
        snprintf(e->err, sizeof(e->err),
            "log_level must be error, warn, info or debug, found \"%s\"",
            e->o.log_level);
        return -1;
    }
    log_level_set(level);

    return 0;
}


/* Before any thread starts, so that all inherit the mask. */
static void
block_signals(engine_t *e)
{
    (void) sigemptyset(&e->signals);
    (void) sigaddset(&e->signals, SIGTERM);
    (void) sigaddset(&e->signals, SIGINT);
    (void) sigaddset(&e->signals, SIGQUIT);
    (void) pthread_sigmask(SIG_BLOCK, &e->signals, NULL);
    (void) signal(SIGPIPE, SIG_IGN);

    /* nginx's habits: nothing to reload or reopen here, no reason to die */
    (void) signal(SIGHUP, SIG_IGN);
    (void) signal(SIGUSR1, SIG_IGN);
    (void) signal(SIGUSR2, SIG_IGN);
}


static int
open_ipc(engine_t *e)
{
    const opts_t *o = &e->o;
    ipc_cfg_t c;

    memset(&c, 0, sizeof(c));
    c.path = o->listen;
    c.group = o->socket_group;
    c.takeover = o->takeover != 0;
    c.slots = (uint32_t) o->slots;
    c.workers_max = (uint32_t) o->workers_max;
    c.submit_size = (uint32_t) o->submit_ring;
    c.event_size = (uint32_t) o->event_ring;
    c.credit_max = (uint32_t) o->credit_max;
    c.live_rows = o->requests + TEXT_IN_SPARE < LLM_LIVE_ROWS_MAX
                      ? (uint32_t) o->requests + TEXT_IN_SPARE
                      : LLM_LIVE_ROWS_MAX;

    e->ipc = ipc_open(&c, e->err, sizeof(e->err));

    return e->ipc == NULL ? -1 : 0;
}


/* The table of operations; 0, or -1 with e->err. */
static int
open_kernels(engine_t *e)
{
    e->kn = backend_kernels(&e->o, &e->cpus, e->err, sizeof(e->err));

    return e->kn == NULL ? -1 : 0;
}


/* Which rank of how many processes this is. */
static int
open_place(engine_t *e)
{
    const opts_t *o = &e->o;
    group_opts_t *g = &e->group;

    g->address = o->tensor_parallel_address;
    g->secret = o->tensor_parallel_secret;
    g->rank = o->rank;
    g->ranks = opts_given(o, "tensor_parallel") ? o->tensor_parallel : 0;
    g->wait_ms = (uint64_t) o->tensor_parallel_wait;
    g->silent_ms = (uint64_t) o->tensor_parallel_silence;

    return group_place(g, &e->rank, &e->processes, e->err, sizeof(e->err));
}


/* Has the engine been told to end? */
static int
told_to_end(void *arg)
{
    const struct timespec now = {0, 0};

    return sigtimedwait(&((engine_t *) arg)->signals, NULL, &now) > 0;
}


/* The other processes, which must be about to open the same. */
static int
open_group(engine_t *e)
{
    if (e->processes <= 1) {
        return 0;
    }
    e->comm = group_join(&e->group, e->rank, e->processes, e->load.model,
        &e->shape, told_to_end, e, e->err, sizeof(e->err));
    e->shape.comm = e->comm;

    return e->comm == NULL ? -1 : 0;
}


/* What ties this process's steps to the others'. */
static int
open_follow(engine_t *e)
{
    follow_cfg_t c;

    if (e->comm == NULL) {
        return 0;
    }
    c = (follow_cfg_t){e->comm, ranks_forward(e->ranks), e->shape,
        model_info(e->load.model)->vocab};
    e->follow = follow_open(&c);
    if (e->follow == NULL) {
        snprintf(e->err, sizeof(e->err), "ranks: not enough memory");
        return -1;
    }

    return group_ready(e->comm, &e->group, e->err, sizeof(e->err));
}


/* The null back end's stand-ins. */
static int
open_canned(engine_t *e)
{
    const long long context = e->o.context;

    e->load.tok = token_open_null();
    if (e->load.tok != NULL) {
        e->load.model = model_open_null(token_vocab(e->load.tok),
            context > 0 ? (uint32_t) context : NULL_CONTEXT);
    }

    snprintf(e->err, sizeof(e->err), "out of memory");
    return e->load.model == NULL ? -1 : 0;
}


/* Model, tokenizer and template, from their files or canned. */
static int
open_model(engine_t *e)
{
    const opts_t *o = &e->o;
    int rc;

    if (strcmp(o->device, "null") == 0) {
        rc = open_canned(e);
    } else {
        rc = load_model(&e->load, o->model, e->err, sizeof(e->err));
    }

    return rc != 0 ? rc
                   : load_template(&e->load, o->chat_template, o->reasoning,
                       o->tool_calls, e->err, sizeof(e->err));
}


/* What prompts begin with, as long as the longest sequence lets it be. */
static int
open_prefixes(engine_t *e)
{
    const opts_t *o = &e->o;
    const uint32_t context = o->context > 0
                                 ? (uint32_t) o->context
                                 : model_info(e->load.model)->context;
    prefix_rules_t r;
    uint32_t i;

    if (o->prefix_pin[0] == '\0') {
        return 0;
    }

    r.tok = e->load.tok;
    r.tpl = e->load.tpl;
    r.most = context > 1 ? context - 1 : 1;
    r.now = time(NULL);
    if (prefix_load(&e->prefixes, o->prefix_pin, &r, e->err, sizeof(e->err))
        != 0) {
        return -1;
    }

    for (i = 0; i < e->prefixes.n; i++) {
        if (e->prefixes.v[i].n < e->prefixes.v[i].dated) {
            log_line(LOG_WARN,
                "prefix_pin %s: the chat template writes the date, so only "
                "the %u tokens before it are shared, of %u",
                e->prefixes.v[i].path, e->prefixes.v[i].n,
                e->prefixes.v[i].dated);
        }
    }

    return 0;
}


/* The name that clients give; 0, or -1 with e->err. */
static int
name_model(engine_t *e)
{
    const char *name = e->o.model_name[0] != '\0'
                           ? e->o.model_name
                           : model_info(e->load.model)->name;

    if (strlen(name) >= sizeof(e->name)) {
        snprintf(e->err, sizeof(e->err),
            "model_name must be shorter than %zu bytes, found %zu",
            sizeof(e->name), strlen(name));
        return -1;
    }

    memcpy(e->name, name, strlen(name) + 1);

    return 0;
}


/* A recording has only calls: not what is there before the first one, what
 * comes when a copy is done, or which of two steps a call came in between. */
static int
check_record(engine_t *e)
{
    const opts_t *o = &e->o;
    const char *with = o->prefix_pin[0] != '\0' ? "prefix_pin"
                       : o->kv_host_memory > 0  ? "kv_host_memory"
                       : o->planning_depth > 0  ? "planning_depth 1"
                                                : NULL;

    if (o->record[0] == '\0' || with == NULL) {
        return 0;
    }

    snprintf(e->err, sizeof(e->err),
        "record does not go with %s: what comes of that is not in a recording",
        with);

    return -1;
}


static int
parse_policy(engine_t *e)
{
    e->policy = sched_policy(e->o.policy);
    if (e->policy != NULL) {
        return 0;
    }

    snprintf(e->err, sizeof(e->err),
        "policy must be fair, prefix or fcfs, found \"%s\"", e->o.policy);

    return -1;
}


/* How large everything is to be. */
static int
plan_shape(engine_t *e)
{
    shape_from_t from = {&e->o, e->load.model, &e->prefixes, NULL};

    if (parse_policy(e) != 0) {
        return -1;
    }
    from.policy = e->policy;

    return shape_plan(&e->shape, &from, e->err, sizeof(e->err));
}


/* model_watch's: a weight has been loaded. */
static void
taken(void *arg, uint64_t bytes)
{
    engine_t *e = arg;

    (void) pthread_mutex_lock(&e->progress_lock);
    progress_add(&e->progress, bytes, clock_us());
    (void) pthread_mutex_unlock(&e->progress_lock);
}


/* Tensors that no one looks at are no secret. */
static void
log_left(const model_info_t *info)
{
    if (info->left_n > 0) {
        log_line(LOG_NOTICE, "left out %llu tensors, %.1f MB: " INSPECT_LEFT,
            (unsigned long long) info->left_n, (double) info->left_bytes / 1e6);
    }
}


/* Weights and KV blocks on the device, or on one for each rank. */
static int
open_forward(engine_t *e)
{
    ranks_cfg_t c;
    char held[1024];

    e->shape.rank = e->rank;
    e->shape.ranks =
        e->processes > 1 ? e->processes : (uint32_t) e->o.tensor_parallel;
    if (plan_shape(e) != 0 || open_group(e) != 0) {
        return -1;
    }

    c = (ranks_cfg_t){e->kn, e->load.model, e->shape,
        e->comm != NULL ? 1 : e->shape.ranks, backend_with(&e->o, &e->cpus),
        e->comm};
    progress_open(&e->progress, model_info(e->load.model)->weight_bytes,
        clock_us(), STDERR_FILENO);
    (void) pthread_mutex_init(&e->progress_lock, NULL);
    model_watch(e->load.model, taken, e);
    e->ranks = ranks_open(&c, e->err, sizeof(e->err));
    model_watch(e->load.model, NULL, NULL);
    (void) pthread_mutex_destroy(&e->progress_lock);
    progress_close(&e->progress);
    if (e->ranks == NULL) {
        return -1;
    }

    if (!e->o.inspect) {
        inspect_held(ranks_held(e->ranks), held, sizeof(held));
        log_line(LOG_NOTICE, "holds %s", held);
        log_left(model_info(e->load.model));
    }

    return 0;
}


/* What workers may know of the model. */
static void
fill_state(const engine_t *e, llm_state_t *s)
{
    const model_info_t *m = model_info(e->load.model);
    llm_state_model_t *d = &s->models[0];

    memcpy(d->name, e->name, sizeof(d->name));
    d->created = m->created != 0 ? m->created : (uint64_t) time(NULL);
    d->context = e->shape.context;
    d->vocab = m->vocab;
    s->models_n = 1;
    __atomic_store_n(&s->ranks, forward_ranks(&e->shape), __ATOMIC_RELAXED);
    __atomic_store_n(&s->ready, 1, __ATOMIC_RELEASE);
}


/* Computes what is to be pinned, which takes as long as such prompts do. */
static int
pin_prefixes(engine_t *e)
{
    const llm_state_t *st = ipc_state(e->ipc);
    const prefix_t *p;
    uint64_t start;
    uint32_t i;

    for (i = 0; i < e->prefixes.n; i++) {
        p = &e->prefixes.v[i];
        start = clock_us();
        if (p->n >= e->shape.context) {
            snprintf(e->err, sizeof(e->err),
                "prefix_pin %.200s: expected fewer tokens than the context's "
                "%u, found %u",
                p->path, e->shape.context, p->n);
            return -1;
        }
        if (loop_pin(e->loop, p->ids, p->n) != 0) {
            snprintf(e->err, sizeof(e->err),
                "prefix_pin %.200s: the model's logits are not finite",
                p->path);
            return -1;
        }
        log_line(LOG_NOTICE,
            "prefix_pin %s: %u tokens, in blocks of %u, for all; %llu blocks "
            "pinned; %.2f s",
            p->path, p->n, e->shape.block_tokens,
            (unsigned long long) st->blocks_pinned,
            (double) (clock_us() - start) / 1e6);
    }
    prefix_free(&e->prefixes);

    return 0;
}


/* Has what the loop's scheduler is told recorded; 0, or -1 with e->err. */
static int
open_record(engine_t *e)
{
    record_head_t h;

    if (e->o.record[0] == '\0') {
        return 0;
    }

    loop_record_head(e->loop, &h);
    e->rec = record_open(
        e->o.record, (uint64_t) e->o.record_limit, &h, e->err, sizeof(e->err));
    if (e->rec == NULL) {
        return -1;
    }
    loop_record(e->loop, e->rec);
    log_line(LOG_NOTICE,
        "recording what is scheduled to %s, at most %lld bytes", e->o.record,
        (long long) e->o.record_limit);

    return 0;
}


static loop_t *
open_loop(const engine_t *e, uint64_t cache_seed)
{
    const opts_t *o = &e->o;
    loop_cfg_t lc;

    memset(&lc, 0, sizeof(lc));
    lc.inner = e->in;
    lc.forward = ranks_forward(e->ranks);
    lc.idle = e->follow != NULL ? follow_look : NULL;
    lc.idle_arg = e->follow;
    lc.token = e->load.tok;
    lc.reason = e->load.reason;
    lc.grammars = e->grammars;
    lc.vocab = model_info(e->load.model)->vocab;
    lc.jump = strcmp(o->grammar_jump, "on") == 0;
    lc.shape = e->shape;
    lc.step_min_ms = (uint64_t) o->step_min;
    lc.cache = strcmp(o->prefix_cache, "on") == 0;
    lc.cache_seed = cache_seed;
    lc.host_again = strcmp(o->kv_host_copy, "again") == 0;
    lc.block_bytes = ranks_block_bytes(e->load.model, &e->shape);
    lc.cache_floor = (uint32_t) o->prefix_floor;
    lc.cache_idle_us = (uint64_t) o->prefix_idle * 1000;
    lc.policy = e->policy;
    lc.tile = (uint32_t) o->batch_tile;
    lc.step_target_ms = (uint32_t) opts_step_target(o);
    lc.prefix_pass_ms = (uint32_t) o->prefix_pass;
    lc.class_floor = (uint32_t) o->class_floor;
    lc.page = ipc_state(e->ipc);
    lc.page_size = ipc_state_size(e->ipc);

    return loop_open(&lc);
}


static grammar_cache_t *
open_grammars(const engine_t *e)
{
    const opts_t *o = &e->o;
    const grammar_cache_cfg_t gc = {e->load.tok, e->load.tools,
        (uint64_t) o->grammar_cache, (uint64_t) o->grammar_timeout * 1000,
        GRAMMAR_REFUSED_US, ipc_state(e->ipc)};

    return grammar_cache_open(&gc);
}


/* The tables of the three threads; nothing runs yet but the tokenisers. */
static int
open_threads(engine_t *e)
{
    const opts_t *o = &e->o;
    text_out_args_t oc;
    text_in_cfg_t ic;
    uint64_t secrets[3];

    if (getrandom(secrets, sizeof(secrets), 0) != sizeof(secrets)) {
        snprintf(
            e->err, sizeof(e->err), "no random numbers: %s", strerror(errno));
        return -1;
    }

    e->in =
        inner_open((uint32_t) o->requests + TEXT_IN_SPARE, ipc_state(e->ipc));
    if (e->in == NULL) {
        goto failed;
    }

    e->grammars = open_grammars(e);
    if (e->grammars == NULL) {
        goto failed;
    }

    e->loop = open_loop(e, secrets[0]);
    if (e->loop == NULL) {
        goto failed;
    }
    if (open_record(e) != 0) {
        return -1;
    }

    memset(&oc, 0, sizeof(oc));
    oc.in = e->in;
    oc.ipc = e->ipc;
    oc.tok = e->load.tok;
    oc.reason = e->load.reason;
    oc.credit_max = (uint32_t) o->credit_max;
    e->text_out = text_out_open(&oc);
    if (e->text_out == NULL) {
        goto failed;
    }

    memset(&ic, 0, sizeof(ic));
    ic.in = e->in;
    ic.ipc = e->ipc;
    ic.tok = e->load.tok;
    ic.tpl = e->load.tpl;
    ic.reason = e->load.reason;
    ic.tools = e->load.tools;
    ic.grammars = e->grammars;
    ic.compilers = (uint32_t) o->grammar_threads;
    ic.model = e->name;
    ic.context = e->shape.context;
    ic.slots = (uint32_t) o->slots;
    ic.submit_size = (uint32_t) o->submit_ring;
    ic.credit_max = (uint32_t) o->credit_max;
    ic.threads = (uint32_t) o->text_threads;
    ic.share = strcmp(o->prefix_share, "all") == 0;
    memcpy(ic.space_key, secrets + 1, sizeof(ic.space_key));
    e->text_in = text_in_open(&ic);
    if (e->text_in != NULL) {
        return 0;
    }

failed:

    /* memory, descriptors or threads: the system knows which */
    snprintf(e->err, sizeof(e->err),
        "cannot hold %lld requests and %lld workers: %s",
        (long long) o->requests, (long long) o->workers_max, strerror(errno));

    return -1;
}


static int
start_threads(engine_t *e)
{
    const struct {
        const char *name;
        void *(*run)(void *);
        void *arg;
    } rows[ENGINE_THREADS] = {{"text_out", text_out_run, e->text_out},
        {"loop", loop_run, e->loop}, {"text_in", text_in_run, e->text_in}};
    const uint32_t n = ENGINE_THREADS;
    cpu_set_t first;
    int rc;

    if (e->rec != NULL && record_start(e->rec, e->err, sizeof(e->err)) != 0) {
        return -1;
    }
    while (e->threads_n < n) {
        rc = pthread_create(&e->threads[e->threads_n], NULL,
            rows[e->threads_n].run, rows[e->threads_n].arg);
        if (rc != 0) {
            snprintf(e->err, sizeof(e->err), "cannot start a thread: %s",
                strerror(rc));
            return -1;
        }
        (void) pthread_setname_np(
            e->threads[e->threads_n], rows[e->threads_n].name);
        if (rows[e->threads_n].run == loop_run && e->cpus.n > 0) {
            CPU_ZERO(&first);
            CPU_SET(e->cpus.v[0], &first);
            (void) pthread_setaffinity_np(
                e->threads[e->threads_n], sizeof(first), &first);
        }
        e->threads_n++;
    }

    return 0;
}


/* Tells a supervisor, as systemd's sd_notify does. */
static void
notify(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un sa;
    size_t len = path == NULL ? 0 : strlen(path);
    int fd;

    if (len == 0 || len >= sizeof(sa.sun_path)) {
        return;
    }

    memset(&sa, 0, sizeof(sa));
    sa.sun_family = AF_UNIX;
    memcpy(sa.sun_path, path, len);
    if (sa.sun_path[0] == '@') {
        sa.sun_path[0] = '\0'; /* an abstract name */
    }

    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return;
    }
    (void) sendto(fd, text, strlen(text), MSG_NOSIGNAL,
        (const struct sockaddr *) &sa,
        (socklen_t) (offsetof(struct sockaddr_un, sun_path) + len));
    (void) close(fd);
}


/* --- end ---------------------------------------------------------------- */

/*
 * Waits until no request is held, at most ms and until the next signal.  Two
 * looks in a row: between them what lay in the SUBMIT rings was refused.  One
 * that has a successor refuses nothing, and waits until the workers have gone.
 */
static int
wait_empty(engine_t *e, uint64_t ms)
{
    const struct timespec look = {0, DRAIN_LOOK_MS * 1000000l};
    llm_state_t *s = ipc_state(e->ipc);
    uint64_t end = clock_ms() + ms;
    uint32_t draining;
    int empty = 0;

    while (clock_ms() < end) {
        if (sigtimedwait(&e->signals, NULL, &look) > 0) {
            return 0;
        }
        draining = __atomic_load_n(&s->draining, __ATOMIC_ACQUIRE);
        if (draining != LLM_DRAIN_NONE
            && __atomic_load_n(&s->requests_held, __ATOMIC_ACQUIRE) == 0
            && (draining != LLM_DRAIN_SUCCEEDED
                || __atomic_load_n(&s->attachments, __ATOMIC_ACQUIRE) == 0)) {
            if (empty++ > 0) {
                return 1;
            }
        } else {
            empty = 0;
        }
    }

    return 0;
}


/* From the first signal to the end of the last request. */
static void
drain(engine_t *e)
{
    __atomic_store_n(&e->in->draining, 1, __ATOMIC_RELEASE);
    bell_ring(&e->in->in_bell);

    if (!wait_empty(e, (uint64_t) e->o.drain_timeout)) {
        log_line(LOG_WARN, "requests are still running and will be ended");
        ipc_refuse_all(e->ipc);
        text_in_kill(e->text_in);
        loop_kill(e->loop);
        if (!wait_empty(e, DRAIN_KILL_MS)) {
            log_line(LOG_WARN, "requests are left behind");
        }
    }
}


/*
 * Ends the threads that run.  A thread that hangs ends the process; how long
 * that is waited for must not depend on the wall clock.
 */
static void
stop_threads(engine_t *e)
{
    const struct timespec step = {0, 1000000};
    uint32_t waited_ms = 0;

    if (e->in == NULL) {
        return;
    }

    __atomic_store_n(&e->in->stop, 1, __ATOMIC_RELEASE);
    bell_ring(&e->in->in_bell);
    bell_ring(&e->in->loop_bell);
    bell_ring(&e->in->out_bell);

    while (e->threads_n > 0) {
        if (pthread_tryjoin_np(e->threads[e->threads_n - 1], NULL) == 0) {
            e->threads_n--;
            continue;
        }
        if (waited_ms++ >= THREAD_END_MS) {
            log_line(LOG_ALERT, "a thread does not end");
            _exit(1);
        }
        (void) nanosleep(&step, NULL);
    }
}


static void
close_all(engine_t *e)
{
    stop_threads(e);
    if (e->follow != NULL && e->rank == 0 && comm_error(e->comm) == NULL) {
        follow_end(e->follow);
    }
    text_in_close(e->text_in);
    text_out_close(e->text_out);
    (void) record_close(e->rec);
    loop_close(e->loop);
    inner_close(e->in);
    follow_close(e->follow);
    ranks_close(e->ranks);
    comm_close(e->comm);
    prefix_free(&e->prefixes);
    grammar_cache_close(e->grammars);
    load_close(&e->load);
    ipc_close(e->ipc);
    opts_free(&e->o);
}


/* --- main --------------------------------------------------------------- */

/*
 * --inspect; the exit status.  The device is asked its name, and then the null
 * device stands in for it, which loads nothing.
 */
static int
inspect(engine_t *e)
{
    kn_open_t ko;
    kn_dev_t *dev;
    kn_info_t k;
    ipc_cfg_t c;
    inspect_t in;
    kv_cfg_t kc;

    if (check_record(e) != 0 || open_kernels(e) != 0 || open_model(e) != 0
        || name_model(e) != 0 || open_prefixes(e) != 0) {
        return 1;
    }

    ko = backend_with(&e->o, &e->cpus);
    dev = e->kn->open(&ko, e->err, sizeof(e->err));
    if (dev == NULL) {
        return 1;
    }
    e->kn->info(dev, &k);
    e->kn->close(dev);
    e->kn = kernels_null();
    if (open_forward(e) != 0) {
        return 1;
    }

    memset(&c, 0, sizeof(c));
    c.slots = (uint32_t) e->o.slots;
    c.submit_size = (uint32_t) e->o.submit_ring;
    c.event_size = (uint32_t) e->o.event_ring;

    memset(&in, 0, sizeof(in));
    in.name = e->name;
    in.path = e->o.model[0] != '\0' ? e->o.model : "no file";
    in.model = e->load.model;
    in.tok = e->load.tok;
    in.chat = template_form(e->load.tpl);
    in.reasoning =
        e->load.reason != NULL ? reason_name(e->load.reason) : "not marked";
    in.tool_calls = e->load.tools != NULL ? tools_family_name(e->load.tools)
                                          : "not told apart";
    in.held = ranks_held(e->ranks);
    in.shape = &e->shape;
    forward_kv(&e->shape, 1, &kc);
    in.sequence_blocks = kv_blocks_for(&kc, e->shape.context);
    in.kv_type = e->o.kv_type;
    in.device = k.name;
    in.ring_bytes = ipc_segment_bytes(&c);
    in.workers_max = (uint32_t) e->o.workers_max;
    inspect_print(&in);

    return 0;
}


/* --replay FILE; the exit status. */
static int
replay(engine_t *e)
{
    const opts_t *o = &e->o;
    replay_change_t c = REPLAY_NO_CHANGE;

    if (opts_given(o, "policy")) {
        c.policy = o->policy;
    }
    if (opts_given(o, "batch_tokens")) {
        c.tokens = o->batch_tokens;
    }
    if (opts_given(o, "batch_tile")) {
        c.tile = o->batch_tile;
    }
    if (opts_given(o, "step_target")) {
        c.target_us = o->step_target * 1000;
    }
    if (opts_given(o, "class_floor")) {
        c.floor = o->class_floor;
    }
    if (opts_given(o, "prefix_cache")) {
        if (shape_cache(o, e->err, sizeof(e->err)) != 0) {
            return 1;
        }
        c.cache = strcmp(o->prefix_cache, "on") == 0;
    }

    return replay_main(o->replay, &c, stdout, e->err, sizeof(e->err));
}


/* A rank that is not 0: computes what rank 0 plans; the exit status. */
static int
follow(engine_t *e)
{
    const follow_life_t life = {&e->signals, (uint64_t) e->o.drain_timeout};
    kn_info_t info;
    int rc;

    ranks_info(e->ranks, &info);
    mem_seal();
    notify("READY=1");
    log_line(LOG_NOTICE, "ready: rank %u of %u; llm-engine %s, %s", e->rank,
        e->processes, ENGINE_VERSION, info.name);

    rc = follow_main(e->follow, &life, e->err, sizeof(e->err));
    if (rc == 0) {
        log_line(LOG_NOTICE, "exit with rank 0");
    }

    return rc;
}


/* Serves until a signal comes; the exit status. */
static int
serve(engine_t *e)
{
    kn_info_t info;

    if (check_record(e) != 0 || open_kernels(e) != 0 || open_place(e) != 0
        || (e->rank == 0 && open_ipc(e) != 0) || open_model(e) != 0
        || name_model(e) != 0 || open_prefixes(e) != 0 || open_forward(e) != 0
        || open_follow(e) != 0) {
        return 1;
    }
    if (e->rank > 0) {
        return follow(e);
    }
    if (open_threads(e) != 0 || pin_prefixes(e) != 0) {
        return 1;
    }

    fill_state(e, ipc_state(e->ipc));
    mem_seal();

    if (ipc_listen(e->ipc, e->err, sizeof(e->err)) != 0
        || start_threads(e) != 0) {
        return 1;
    }

    notify("READY=1");
    ranks_info(e->ranks, &info);
    log_line(LOG_NOTICE,
        "ready: %s on %s; llm-engine %s, %s, %u blocks of %u tokens, context"
        " %u",
        e->name, e->o.listen, ENGINE_VERSION, info.name, e->shape.blocks,
        e->shape.block_tokens, e->shape.context);

    while (sigwaitinfo(&e->signals, NULL) < 0) {
        assert(errno == EINTR);
    }

    notify("STOPPING=1");
    log_line(LOG_NOTICE, "draining: %llu requests, at most %lld ms",
        (unsigned long long) __atomic_load_n(
            &ipc_state(e->ipc)->requests_held, __ATOMIC_RELAXED),
        (long long) e->o.drain_timeout);
    drain(e);
    ranks_info(e->ranks, &info);
    if (info.recorded > 0) {
        log_line(LOG_NOTICE,
            "recorded %llu lists of launches in %.1f ms, replayed %llu steps",
            (unsigned long long) info.recorded, (double) info.recorded_us / 1e3,
            (unsigned long long) info.replayed);
    }
    log_line(LOG_NOTICE, "exit");

    return 0;
}


int
main(int argc, char **argv)
{
    engine_t e;
    int rc = 0;

    memset(&e, 0, sizeof(e));
    keep_private();
    block_signals(&e);

    if (open_options(&e, argc, argv) != 0) {
        rc = 1;
    } else if (e.o.help) {
        opts_help();
    } else if (e.o.version) {
        printf("llm-engine %s, wire version %d\n", ENGINE_VERSION,
            LLM_WIRE_VERSION);
    } else if (e.o.replay[0] != '\0') {
        rc = replay(&e);
    } else {
        rc = e.o.inspect ? inspect(&e) : serve(&e);
    }

    if (rc != 0) {
        fprintf(stderr, "llm-engine: %s\n", e.err);
    }
    close_all(&e);

    return rc;
}
