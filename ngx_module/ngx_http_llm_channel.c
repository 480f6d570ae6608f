
/*
 * This worker's channels to the engines: attach, rings, doorbell, and what
 * happens when an engine goes.
 *
 * DESIGN.  One channel is one attachment: a SOCK_SEQPACKET connection, the
 * segment with the two rings, and a table of slots.  The socket is an nginx
 * connection like any other; it carries the handshake, then doorbell bytes,
 * then EOF, which is how either side learns of the other's death.
 *
 *     connect --HELLO--> pending --WELCOME--> peer->channel
 *        ^                  | refused, timeout    |
 *        |                  v                     | EOF, no heartbeat, nonsense
 *     peer->reconnect <-----+---------------------+--> lost: requests fail
 *        (backoff)                                |
 *                                                 +--> state page: draining
 *                                                      peer->draining, until
 *                                                      its last slot is free
 *
 * Draining of the EVENT ring is bounded: after NGX_HTTP_LLM_BATCH records the
 * rest waits for the next turn of the event loop, else a fast engine and slow
 * clients would keep timers and new requests from ever running.  What the
 * records of one batch mean for one request goes out in one write: a record
 * only marks its request as ready, and the ready ones are flushed at the end.
 *
 * A slot belongs to the channel, not to the request: when a client leaves,
 * the request is gone at once, and the slot stays until its terminal event,
 * its events being swallowed (and called taken, so that no lack of credit can
 * keep the engine from coming to the end).
 *
 * The engine's memory is input.  Records are judged in a private copy;
 * nonsense costs the attachment: it is dropped, logged at ALERT, and the
 * requests fail.  The seals are checked, so that the mappings can not be cut
 * short under us (SIGBUS).
 *
 * Shutdown.  A worker that shuts down gracefully keeps its channels until it
 * exits: a client whose request is just being read (TLS handshake, body) is
 * as entitled to an answer as one whose stream runs, and the timers of
 * requests, not connections, are what nginx waits for.  When
 * worker_shutdown_timeout is over the requests fail.
 *
 * Memory: peers come from the cycle's pool, a channel from its own, which
 * lives from connect to close.
 */


#include "ngx_http_llm_module.h"

#include <poll.h>
#include <sys/mman.h>


/*
 * A new worker's first request may already be waiting at the listening
 * socket, and would find no engine.  So the first handshake is waited for,
 * which takes about a millisecond; one that takes this long goes on beside
 * the requests, as any later one does.
 */

#define NGX_HTTP_LLM_FIRST_WAIT   500   /* ms */

#define NGX_HTTP_LLM_BATCH        256   /* records per turn */
#define NGX_HTTP_LLM_BELLS        64    /* doorbell messages per turn */

#define NGX_HTTP_LLM_SEGMENT_MAX  (3ull << 30)  /* two rings and more */
#define NGX_HTTP_LLM_STATE_MAX    (1ull << 20)

/* a seal is for ever, so it does not matter whether more can be added */

#define NGX_HTTP_LLM_SEALS        (F_SEAL_SHRINK|F_SEAL_GROW)


static void ngx_http_llm_channel_first(ngx_http_llm_peer_t *peer);
static void ngx_http_llm_channel_connect(ngx_http_llm_peer_t *peer);
static ngx_int_t ngx_http_llm_channel_hello(ngx_http_llm_channel_t *ch);
static void ngx_http_llm_channel_read_handler(ngx_event_t *rev);
static void ngx_http_llm_channel_write_handler(ngx_event_t *wev);
static void ngx_http_llm_channel_handshake(ngx_http_llm_channel_t *ch);
static ngx_int_t ngx_http_llm_channel_receive(ngx_http_llm_channel_t *ch,
    void *buf, size_t size, int *fds);
static ngx_int_t ngx_http_llm_channel_attach(ngx_http_llm_channel_t *ch,
    llm_msg_welcome_t *m, int *fds);
static ngx_int_t ngx_http_llm_channel_map(ngx_http_llm_channel_t *ch,
    llm_msg_welcome_t *m, int *fds);
static ngx_int_t ngx_http_llm_channel_models(ngx_http_llm_channel_t *ch);
static void ngx_http_llm_channel_refused(ngx_http_llm_channel_t *ch,
    llm_msg_refuse_t *m);
static void ngx_http_llm_channel_failed(ngx_http_llm_channel_t *ch,
    ngx_err_t err, const char *what);
static ngx_int_t ngx_http_llm_channel_bells(ngx_http_llm_channel_t *ch);
static void ngx_http_llm_channel_process(ngx_http_llm_channel_t *ch);
static ngx_int_t ngx_http_llm_channel_drain(ngx_http_llm_channel_t *ch);
static ngx_int_t ngx_http_llm_channel_record(ngx_http_llm_channel_t *ch,
    u_char *rec, uint32_t len);
static void ngx_http_llm_channel_flush(ngx_queue_t *ready);
static void ngx_http_llm_channel_line(ngx_http_llm_channel_t *ch);
static void ngx_http_llm_channel_ring(ngx_http_llm_channel_t *ch);
static void ngx_http_llm_channel_retire(ngx_http_llm_channel_t *ch);
static void ngx_http_llm_channel_tick(ngx_event_t *ev);
static void ngx_http_llm_channel_lost(ngx_http_llm_channel_t *ch,
    ngx_uint_t level, const char *why);
static void ngx_http_llm_channel_close(ngx_http_llm_channel_t *ch);
static void ngx_http_llm_channel_again(ngx_http_llm_peer_t *peer);
static void ngx_http_llm_channel_reconnect(ngx_event_t *ev);


ngx_int_t
ngx_http_llm_channels_open(ngx_cycle_t *cycle)
{
    ngx_uint_t                 i;
    ngx_http_llm_peer_t       *peer;
    ngx_http_llm_engine_t    **engines;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    engines = lmcf->engines.elts;

    for (i = 0; i < lmcf->engines.nelts; i++) {

        peer = ngx_pcalloc(cycle->pool, sizeof(ngx_http_llm_peer_t));
        if (peer == NULL) {
            return NGX_ERROR;
        }

        peer->engine = engines[i];
        peer->log = cycle->log;
        peer->delay = engines[i]->reconnect_min;
        ngx_queue_init(&peer->draining);

        peer->reconnect.handler = ngx_http_llm_channel_reconnect;
        peer->reconnect.data = peer;
        peer->reconnect.log = cycle->log;
        peer->reconnect.cancelable = 1;

        engines[i]->peer = peer;

        ngx_http_llm_channel_connect(peer);
    }

    for (i = 0; i < lmcf->engines.nelts; i++) {
        ngx_http_llm_channel_first(engines[i]->peer);
    }

    return NGX_OK;
}


static void
ngx_http_llm_channel_first(ngx_http_llm_peer_t *peer)
{
    struct pollfd  pfd;

    if (peer->pending == NULL) {
        return;
    }

    pfd.fd = peer->pending->connection->fd;
    pfd.events = POLLIN;
    pfd.revents = 0;

    if (poll(&pfd, 1, ngx_min(peer->engine->connect_timeout,
                              NGX_HTTP_LLM_FIRST_WAIT))
        == 1)
    {
        ngx_http_llm_channel_handshake(peer->pending);
    }
}


void
ngx_http_llm_channels_close(ngx_cycle_t *cycle)
{
    ngx_uint_t                 i;
    ngx_queue_t               *q;
    ngx_http_llm_peer_t       *peer;
    ngx_http_llm_engine_t    **engines;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    if (lmcf == NULL) {
        return;
    }

    engines = lmcf->engines.elts;

    for (i = 0; i < lmcf->engines.nelts; i++) {

        peer = engines[i]->peer;

        if (peer == NULL) {
            continue;
        }

        if (peer->pending) {
            ngx_http_llm_channel_close(peer->pending);
        }

        if (peer->channel) {
            ngx_http_llm_channel_close(peer->channel);
        }

        while (!ngx_queue_empty(&peer->draining)) {
            q = ngx_queue_head(&peer->draining);
            ngx_http_llm_channel_close(
                            ngx_queue_data(q, ngx_http_llm_channel_t, queue));
        }

        if (peer->reconnect.timer_set) {
            ngx_del_timer(&peer->reconnect);
        }
    }
}


ngx_http_llm_channel_t *
ngx_http_llm_channel_get(ngx_http_llm_engine_t *engine, ngx_uint_t *err)
{
    ngx_http_llm_channel_t  *ch;

    *err = LLM_ERR_NO_ENGINE;

    if (engine->peer == NULL || engine->peer->channel == NULL) {
        return NULL;
    }

    ch = engine->peer->channel;

    if (ch->eof) {
        return NULL;
    }

    if (__atomic_load_n(&ch->state->draining, __ATOMIC_RELAXED)) {
        ngx_http_llm_channel_retire(ch);
        *err = LLM_ERR_DRAINING;
        return NULL;
    }

    if (!__atomic_load_n(&ch->state->ready, __ATOMIC_RELAXED)) {
        return NULL;
    }

    return ch;
}


static void
ngx_http_llm_channel_connect(ngx_http_llm_peer_t *peer)
{
    int                      fd;
    ngx_pool_t              *pool;
    ngx_event_t             *rev;
    ngx_connection_t        *c;
    ngx_http_llm_channel_t  *ch;

    pool = ngx_create_pool(4096, peer->log);
    if (pool == NULL) {
        ngx_http_llm_channel_again(peer);
        return;
    }

    ch = ngx_pcalloc(pool, sizeof(ngx_http_llm_channel_t));
    if (ch == NULL) {
        ngx_destroy_pool(pool);
        ngx_http_llm_channel_again(peer);
        return;
    }

    ch->peer = peer;
    ch->pool = pool;
    ngx_queue_init(&ch->ready);

    peer->pending = ch;

    fd = socket(AF_UNIX, SOCK_SEQPACKET|SOCK_NONBLOCK|SOCK_CLOEXEC, 0);
    if (fd == -1) {
        ngx_http_llm_channel_failed(ch, ngx_socket_errno, "socket() failed");
        return;
    }

    c = ngx_get_connection(fd, peer->log);
    if (c == NULL) {
        (void) close(fd);
        ngx_http_llm_channel_failed(ch, 0, "no free connections");
        return;
    }

    c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);
    c->data = ch;
    ch->connection = c;

    rev = c->read;
    rev->handler = ngx_http_llm_channel_read_handler;
    rev->log = c->log;
    rev->cancelable = 1;

    c->write->handler = ngx_http_llm_channel_write_handler;
    c->write->log = c->log;

    /* a full backlog is EAGAIN on these sockets, never EINPROGRESS */

    if (connect(fd, (struct sockaddr *) &peer->engine->sockaddr,
                sizeof(struct sockaddr_un))
        == -1)
    {
        ngx_http_llm_channel_failed(ch, ngx_socket_errno, "connect() failed");
        return;
    }

    if (ngx_http_llm_channel_hello(ch) != NGX_OK) {
        ngx_http_llm_channel_failed(ch, ngx_socket_errno, "hello failed");
        return;
    }

    if (ngx_handle_read_event(rev, 0) != NGX_OK) {
        ngx_http_llm_channel_failed(ch, 0, "adding an event failed");
        return;
    }

    ngx_add_timer(rev, peer->engine->connect_timeout);
}


static ngx_int_t
ngx_http_llm_channel_hello(ngx_http_llm_channel_t *ch)
{
    socklen_t        len;
    struct ucred     cred;
    llm_msg_hello_t  hello;

    len = sizeof(struct ucred);

    if (getsockopt(ch->connection->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len)
        == -1)
    {
        return NGX_ERROR;
    }

    ch->pid = cred.pid;

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, ch->peer->log, 0,
                   "llm engine \"%V\" connected: pid %P, uid %d",
                   &ch->peer->engine->name, cred.pid, (int) cred.uid);

    ngx_memzero(&hello, sizeof(llm_msg_hello_t));

    hello.magic = LLM_WIRE_MAGIC;
    hello.type = LLM_MSG_HELLO;
    hello.version = LLM_WIRE_VERSION;
    hello.version_min = LLM_WIRE_VERSION_MIN;
    hello.pid = ngx_pid;

    if (send(ch->connection->fd, &hello, sizeof(llm_msg_hello_t),
             MSG_DONTWAIT|MSG_NOSIGNAL)
        != sizeof(llm_msg_hello_t))
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_http_llm_channel_read_handler(ngx_event_t *rev)
{
    ngx_connection_t        *c;
    ngx_http_llm_channel_t  *ch;

    c = rev->data;
    ch = c->data;

    if (c->close) {

        /*
         * With c->error worker_shutdown_timeout is over.  Without it the
         * worker begins to shut down gracefully: see on top.
         */

        if (c->error) {
            if (ch->segment == NULL) {
                ngx_http_llm_channel_close(ch);

            } else {
                ngx_http_llm_channel_lost(ch, NGX_LOG_NOTICE,
                                          "worker shutdown timeout");
            }

            return;
        }

        c->close = 0;
    }

    if (ch->segment == NULL) {
        ngx_http_llm_channel_handshake(ch);
        return;
    }

    if (ngx_http_llm_channel_bells(ch) == NGX_ERROR && !ch->eof) {
        ch->eof = 1;
        ch->eof_pos = ch->event.pos;
    }

    ngx_http_llm_channel_process(ch);
}


static void
ngx_http_llm_channel_write_handler(ngx_event_t *wev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, wev->log, 0, "llm channel write");
}


static void
ngx_http_llm_channel_handshake(ngx_http_llm_channel_t *ch)
{
    int           i, fds[2];
    ngx_int_t     n, rc;
    ngx_event_t  *rev;

    union {
        llm_msg_welcome_t  welcome;
        llm_msg_refuse_t   refuse;          /* the longest */
    } m;

    rev = ch->connection->read;

    if (rev->timedout) {
        ngx_http_llm_channel_failed(ch, 0, "no welcome in time");
        return;
    }

    fds[0] = -1;
    fds[1] = -1;
    ngx_memzero(&m, sizeof(m));

    n = ngx_http_llm_channel_receive(ch, &m, sizeof(m), fds);

    if (n == NGX_AGAIN) {
        if (ngx_handle_read_event(rev, 0) != NGX_OK) {
            ngx_http_llm_channel_failed(ch, 0, "adding an event failed");
        }

        return;
    }

    rc = NGX_ERROR;

    if (n == sizeof(llm_msg_welcome_t)
        && m.welcome.type == LLM_MSG_WELCOME)
    {
        rc = ngx_http_llm_channel_attach(ch, &m.welcome, fds);

    } else if (n == sizeof(llm_msg_refuse_t) && m.refuse.type == LLM_MSG_REFUSE
               && m.refuse.magic == LLM_WIRE_MAGIC)
    {
        ngx_http_llm_channel_refused(ch, &m.refuse);

    } else if (n <= 0) {
        ngx_http_llm_channel_failed(ch, n ? ngx_socket_errno : 0,
                                    "closed the connection");

    } else {
        ngx_http_llm_channel_failed(ch, 0, "neither welcome nor refusal");
    }

    for (i = 0; i < 2; i++) {
        if (fds[i] != -1) {
            (void) close(fds[i]);
        }
    }

    if (rc == NGX_OK) {
        ngx_http_llm_channel_process(ch);
    }
}


/*
 * One message with at most two fds, which the caller closes.  Returns its
 * length, 0 for EOF, NGX_AGAIN, or NGX_ERROR.  What does not fit is cut off
 * by the kernel, surplus fds too.
 */

static ngx_int_t
ngx_http_llm_channel_receive(ngx_http_llm_channel_t *ch, void *buf,
    size_t size, int *fds)
{
    size_t           len;
    ssize_t          n;
    struct iovec     iov;
    struct msghdr    msg;
    struct cmsghdr  *cmsg;

    union {
        struct cmsghdr  align;
        char            space[CMSG_SPACE(2 * sizeof(int))];
    } control;

    iov.iov_base = buf;
    iov.iov_len = size;

    ngx_memzero(&msg, sizeof(msg));
    ngx_memzero(&control, sizeof(control));
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = &control;
    msg.msg_controllen = sizeof(control.space);

    n = recvmsg(ch->connection->fd, &msg, MSG_DONTWAIT|MSG_CMSG_CLOEXEC);

    if (n == -1) {
        return ngx_socket_errno == NGX_EAGAIN ? NGX_AGAIN : NGX_ERROR;
    }

    for (cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {

        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) {
            continue;
        }

        len = cmsg->cmsg_len - CMSG_LEN(0);

        if (len > 2 * sizeof(int)) {
            len = 2 * sizeof(int);
        }

        ngx_memcpy(fds, CMSG_DATA(cmsg), len);
        break;
    }

    return n;
}


static ngx_int_t
ngx_http_llm_channel_attach(ngx_http_llm_channel_t *ch, llm_msg_welcome_t *m,
    int *fds)
{
    uint32_t              i;
    ngx_http_llm_peer_t  *peer;

    peer = ch->peer;

    if (ngx_http_llm_channel_map(ch, m, fds) != NGX_OK) {
        return NGX_ERROR;
    }

    ch->epoch = m->epoch;
    ch->slots_n = m->slots;
    ch->credit_max = m->credit_max;
    ch->lines = (llm_slot_line_t *) (void *) (ch->segment + m->lines);

    llm_ring_init(&ch->submit,
                  (llm_ring_ctl_t *) (void *) (ch->segment + m->submit_ctl),
                  ch->segment + m->submit_data, m->submit_size);
    llm_ring_init(&ch->event,
                  (llm_ring_ctl_t *) (void *) (ch->segment + m->event_ctl),
                  ch->segment + m->event_data, m->event_size);

    ch->slots = ngx_pcalloc(ch->pool,
                            m->slots * sizeof(ngx_http_llm_slot_t));
    if (ch->slots == NULL) {
        ngx_http_llm_channel_failed(ch, 0, "no memory for the slots");
        return NGX_ERROR;
    }

    for (i = 0; i < ch->slots_n; i++) {
        ch->slots[i].next = i + 1;
    }

    if (ngx_http_llm_channel_models(ch) != NGX_OK) {
        ngx_http_llm_channel_failed(ch, 0, "no memory for the models");
        return NGX_ERROR;
    }

    /*
     * It may be the old engine that still answers here.  Trying again as
     * after a failure leaves time for its successor to come.
     */

    if (__atomic_load_n(&ch->state->draining, __ATOMIC_RELAXED)) {
        ngx_http_llm_channel_failed(ch, 0, "it is draining");
        return NGX_ERROR;
    }

    if (ch->connection->read->timer_set) {
        ngx_del_timer(ch->connection->read);
    }

    /* asks to be told of a graceful shutdown */

    ch->connection->idle = 1;

    peer->pending = NULL;
    peer->channel = ch;
    peer->failures = 0;
    peer->attachments++;

    ch->tick.handler = ngx_http_llm_channel_tick;
    ch->tick.data = ch;
    ch->tick.log = peer->log;
    ch->tick.cancelable = 1;
    ch->tick_due = ngx_current_msec + peer->engine->heartbeat;
    ngx_add_timer(&ch->tick, peer->engine->heartbeat);

    ngx_log_error(NGX_LOG_NOTICE, peer->log, 0,
                  "llm engine \"%V\" attached: pid %P, epoch %uD, %uD slots, "
                  "%ui models", &peer->engine->name, ch->pid, ch->epoch,
                  ch->slots_n, ch->models_n);

    return NGX_OK;
}


/* NGX_OK with segment and state mapped; else the channel has failed */

static ngx_int_t
ngx_http_llm_channel_map(ngx_http_llm_channel_t *ch, llm_msg_welcome_t *m,
    int *fds)
{
    int             seals;
    void           *segment, *state;
    ngx_uint_t      i;
    const char     *what;
    struct stat     sb[2];
    llm_seg_head_t  head;

    for (i = 0; i < 2; i++) {

        what = "no file descriptors in the welcome";

        if (fds[i] == -1 || fstat(fds[i], &sb[i]) == -1) {
            goto failed;
        }

        seals = fcntl(fds[i], F_GET_SEALS);

        what = "the shared memory is not sealed";

        if (seals == -1
            || (seals & NGX_HTTP_LLM_SEALS) != NGX_HTTP_LLM_SEALS)
        {
            goto failed;
        }
    }

    what = "the welcome makes no sense";

    if (!llm_welcome_ok(m)
        || (uint64_t) sb[0].st_size != m->seg_size
        || (uint64_t) sb[1].st_size != m->state_size
        || m->seg_size > NGX_HTTP_LLM_SEGMENT_MAX
        || m->state_size > NGX_HTTP_LLM_STATE_MAX)
    {
        goto failed;
    }

    what = "mmap() failed";

    segment = mmap(NULL, m->seg_size, PROT_READ|PROT_WRITE, MAP_SHARED,
                   fds[0], 0);
    if (segment == MAP_FAILED) {
        goto failed;
    }

    state = mmap(NULL, m->state_size, PROT_READ, MAP_SHARED, fds[1], 0);
    if (state == MAP_FAILED) {
        (void) munmap(segment, m->seg_size);
        goto failed;
    }

    /* prompts and answers are not for core dumps */

    (void) madvise(segment, m->seg_size, MADV_DONTDUMP);

    ch->segment = segment;
    ch->segment_size = m->seg_size;
    ch->state = state;
    ch->state_size = m->state_size;

    ngx_memcpy(&head, segment, sizeof(llm_seg_head_t));

    what = "segment and welcome differ";

    if (head.magic != LLM_WIRE_MAGIC || head.version != m->version
        || head.epoch != m->epoch || ch->state->magic != LLM_WIRE_MAGIC)
    {
        goto failed;
    }

    return NGX_OK;

failed:

    ngx_http_llm_channel_failed(ch, 0, what);

    return NGX_ERROR;
}


/* copies the names, which may come to a client or a log, if they can */

static ngx_int_t
ngx_http_llm_channel_models(ngx_http_llm_channel_t *ch)
{
    u_char                    *p, *last;
    uint32_t                   i, n;
    ngx_http_llm_announced_t  *model;

    ch->models = ngx_pcalloc(ch->pool, LLM_MODELS_MAX
                                       * sizeof(ngx_http_llm_announced_t));
    if (ch->models == NULL) {
        return NGX_ERROR;
    }

    n = __atomic_load_n(&ch->state->models_n, __ATOMIC_ACQUIRE);

    for (i = 0; i < ngx_min(n, LLM_MODELS_MAX); i++) {

        model = &ch->models[ch->models_n];

        ngx_memcpy(model->data, ch->state->models[i].name, LLM_NAME_MAX);
        model->data[LLM_NAME_MAX - 1] = '\0';
        model->name.data = model->data;
        model->name.len = ngx_strlen(model->data);
        model->created = ch->state->models[i].created;

        if (model->name.len == 0) {
            continue;
        }

        last = model->data + model->name.len;

        for (p = model->data; p < last; p++) {
            if (*p < 0x20 || *p == 0x7f) {
                break;
            }
        }

        if (p != last
            || ngx_utf8_length(model->data, model->name.len)
               == model->name.len + 1)
        {
            continue;
        }

        ch->models_n++;
    }

    return NGX_OK;
}


static void
ngx_http_llm_channel_refused(ngx_http_llm_channel_t *ch, llm_msg_refuse_t *m)
{
    char        text[sizeof(m->text) + 64];
    u_char     *p;
    ngx_uint_t  i;

    m->text[sizeof(m->text) - 1] = '\0';

    for (i = 0; m->text[i]; i++) {
        if (m->text[i] < 0x20 || m->text[i] == 0x7f) {
            m->text[i] = '?';
        }
    }

    p = ngx_snprintf((u_char *) text, sizeof(text) - 1,
                     "refused (its versions %uD to %uD, ours %d to %d): %s",
                     m->version_min, m->version, LLM_WIRE_VERSION_MIN,
                     LLM_WIRE_VERSION, m->text);
    *p = '\0';

    ngx_http_llm_channel_failed(ch, 0, text);
}


/* a channel that did not come to be; ch is gone afterwards */

static void
ngx_http_llm_channel_failed(ngx_http_llm_channel_t *ch, ngx_err_t err,
    const char *what)
{
    ngx_uint_t            level;
    ngx_http_llm_peer_t  *peer;

    peer = ch->peer;

    /* an engine that stays away is one line per worker, not one per try */

    level = peer->failures++ ? NGX_LOG_INFO : NGX_LOG_WARN;

    ngx_log_error(level, peer->log, err,
                  "llm engine \"%V\" at unix:%V not attached: %s",
                  &peer->engine->name, &peer->engine->path, what);

    ngx_http_llm_channel_close(ch);
    ngx_http_llm_channel_again(peer);
}


/* takes the doorbell's bytes; NGX_ERROR when the engine has gone */

static ngx_int_t
ngx_http_llm_channel_bells(ngx_http_llm_channel_t *ch)
{
    char          buf[64];
    ssize_t       n;
    ngx_uint_t    i;
    ngx_event_t  *rev;

    rev = ch->connection->read;

    for (i = 0; i < NGX_HTTP_LLM_BELLS; i++) {

        n = recv(ch->connection->fd, buf, sizeof(buf), MSG_DONTWAIT);

        if (n > 0) {
            continue;
        }

        if (n == -1 && ngx_socket_errno == NGX_EINTR) {
            continue;
        }

        if (n == -1 && ngx_socket_errno == NGX_EAGAIN) {
            rev->ready = 0;
            return NGX_OK;
        }

        return NGX_ERROR;
    }

    /* the rest is taken next time: ready stays set */

    return NGX_OK;
}


/*
 * Takes a batch of events, sends what they mean, and settles how to go on.
 * ch may be gone afterwards.
 */

static void
ngx_http_llm_channel_process(ngx_http_llm_channel_t *ch)
{
    ngx_int_t     rc;
    ngx_event_t  *rev;

    rev = ch->connection->read;

    ch->processing = 1;
    ch->bell = 0;

    rc = ngx_http_llm_channel_drain(ch);

    ngx_http_llm_channel_flush(&ch->ready);

    ch->processing = 0;

    if (ch->bell) {
        ngx_http_llm_channel_line(ch);
    }

    if (rc == NGX_ERROR) {
        ngx_http_llm_channel_lost(ch, NGX_LOG_ALERT,
                                  "wrote nonsense into its ring");
        return;
    }

    if (ch->eof && (rc == NGX_OK
                    || ch->event.pos - ch->eof_pos > ch->event.size))
    {
        ngx_http_llm_channel_lost(ch, NGX_LOG_ERR, "closed the connection");
        return;
    }

    if (rc == NGX_AGAIN || rev->ready) {
        ngx_post_event(rev, &ngx_posted_next_events);
        return;
    }

    if (ch->retired && ch->used == 0) {
        ngx_http_llm_channel_close(ch);
        return;
    }

    if (ngx_handle_read_event(rev, 0) != NGX_OK) {
        ngx_http_llm_channel_lost(ch, NGX_LOG_ALERT, "adding an event failed");
    }
}


/*
 * NGX_OK: empty, and the engine knows that we sleep.  NGX_AGAIN: there is
 * more.  NGX_ERROR: nonsense.
 */

static ngx_int_t
ngx_http_llm_channel_drain(ngx_http_llm_channel_t *ch)
{
    int64_t     n;
    ngx_uint_t  i;

    union {
        uint64_t  align;
        u_char    data[LLM_TOKENS_MAX];
    } rec;

    for (i = 0; i < NGX_HTTP_LLM_BATCH; i++) {

        n = llm_ring_peek(&ch->event, rec.data, LLM_TOKENS_MAX);

        if (n == LLM_RING_EMPTY) {

            if (ch->eof || llm_ring_may_sleep(&ch->event)) {
                return NGX_OK;
            }

            continue;
        }

        if (n < 0) {
            return NGX_ERROR;
        }

        llm_ring_advance(&ch->event);

        if (ngx_http_llm_channel_record(ch, rec.data, (uint32_t) n)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_AGAIN;
}


/*
 * One event, in private memory.  Every one but COUNTED, which is not asked
 * for, begins with header and id.
 */

static ngx_int_t
ngx_http_llm_channel_record(ngx_http_llm_channel_t *ch, u_char *rec,
    uint32_t len)
{
    size_t                n;
    const uint8_t        *text, *lp;
    llm_wire_id_t         id;
    llm_ring_hdr_t        hdr;
    llm_wire_done_t       done;
    llm_wire_error_t      error;
    llm_wire_tokens_t     tokens;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_llm_slot_t  *slot;

    if (len < sizeof(hdr) + sizeof(id)) {
        return NGX_ERROR;
    }

    ngx_memcpy(&hdr, rec, sizeof(hdr));
    ngx_memcpy(&id, rec + sizeof(hdr), sizeof(id));

    if (id.epoch != ch->epoch || id.slot >= ch->slots_n) {
        return NGX_ERROR;
    }

    slot = &ch->slots[id.slot];

    if (!slot->used || slot->gen != id.gen) {
        return NGX_ERROR;
    }

    ctx = slot->ctx;

    if (hdr.type == LLM_REC_TOKENS) {

        if (!llm_tokens_ok(rec, len, &tokens, &text, &lp)) {
            return NGX_ERROR;
        }

        n = (size_t) tokens.text_len + tokens.lp_len;
        slot->received += n;

        if (ctx == NULL) {
            slot->taken = slot->received;
            __atomic_store_n(&ch->lines[id.slot].taken, slot->taken,
                             __ATOMIC_RELAXED);
            ch->bell = 1;
            return NGX_OK;
        }

        ngx_http_llm_stream_tokens(ctx, &tokens, text, lp);

    } else {

        if (hdr.type == LLM_REC_DONE && len >= sizeof(done)) {
            ngx_memcpy(&done, rec, sizeof(done));

        } else if (hdr.type == LLM_REC_ERROR && len >= sizeof(error)) {
            ngx_memcpy(&error, rec, sizeof(error));
            error.param[sizeof(error.param) - 1] = '\0';
            error.text[sizeof(error.text) - 1] = '\0';

        } else {
            return NGX_ERROR;
        }

        /* terminal: the slot is free */

        slot->used = 0;
        slot->ctx = NULL;
        slot->next = ch->free;
        ch->free = id.slot;
        ch->used--;

        ch->peer->delay = ch->peer->engine->reconnect_min;

        if (ctx == NULL) {
            return NGX_OK;
        }

        ctx->channel = NULL;

        if (hdr.type == LLM_REC_DONE) {
            ngx_http_llm_stream_done(ctx, &done);

        } else {
            ctx->prompt_tokens = error.prompt_tokens;
            ctx->completion_tokens = error.completion_tokens;
            ctx->counted = 1;
            ngx_http_llm_stream_error(ctx, error.err, error.param,
                                      error.text);
        }
    }

    if (!ctx->queued) {
        ctx->queued = 1;
        ngx_queue_insert_tail(&ch->ready, &ctx->queue);
    }

    return NGX_OK;
}


/* a request may end in here, and take others of its connection with it */

static void
ngx_http_llm_channel_flush(ngx_queue_t *ready)
{
    ngx_queue_t         *q;
    ngx_connection_t    *c;
    ngx_http_llm_ctx_t  *ctx;

    while (!ngx_queue_empty(ready)) {

        q = ngx_queue_head(ready);
        ctx = ngx_queue_data(q, ngx_http_llm_ctx_t, queue);

        ngx_queue_remove(q);
        ctx->queued = 0;

        c = ctx->request->connection;
        ngx_http_set_log_request(c->log, ctx->request);

        ngx_http_llm_stream_flush(ctx);

        ngx_http_run_posted_requests(c);
    }
}


u_char *
ngx_http_llm_channel_reserve(ngx_http_llm_channel_t *ch, uint32_t len,
    llm_wire_submit_t *head)
{
    void                 *p;
    ngx_http_llm_slot_t  *slot;

    if (ch->free == ch->slots_n) {
        return NULL;
    }

    p = llm_ring_reserve(&ch->submit, len, 0);
    if (p == NULL) {
        return NULL;
    }

    slot = &ch->slots[ch->free];

    slot->gen++;

    if (slot->gen == 0) {
        slot->gen = 1;
    }

    head->hdr.len = len;
    head->hdr.type = LLM_REC_SUBMIT;
    head->hdr.flags = 0;
    head->id.epoch = ch->epoch;
    head->id.slot = ch->free;
    head->id.gen = slot->gen;

    return p;
}


void
ngx_http_llm_channel_commit(ngx_http_llm_channel_t *ch,
    ngx_http_llm_ctx_t *ctx)
{
    uint32_t              n;
    ngx_http_llm_slot_t  *slot;

    n = ch->free;
    slot = &ch->slots[n];

    ch->free = slot->next;
    ch->used++;

    slot->used = 1;
    slot->ctx = ctx;
    slot->received = 0;
    slot->taken = 0;

    ctx->channel = ch;
    ctx->slot = n;

    /* seen by the engine before the record is: commit releases */

    __atomic_store_n(&ch->lines[n].taken, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&ch->lines[n].cancel, 0, __ATOMIC_RELAXED);

    llm_ring_commit(&ch->submit);

    if (llm_ring_must_wake(&ch->submit)) {
        ngx_http_llm_channel_ring(ch);
    }
}


void
ngx_http_llm_channel_taken(ngx_http_llm_ctx_t *ctx, size_t n)
{
    ngx_http_llm_slot_t     *slot;
    ngx_http_llm_channel_t  *ch;

    ch = ctx->channel;

    if (ch == NULL || n == 0) {
        return;
    }

    slot = &ch->slots[ctx->slot];
    slot->taken += n;

    __atomic_store_n(&ch->lines[ctx->slot].taken, slot->taken,
                     __ATOMIC_RELAXED);

    ngx_http_llm_channel_line(ch);
}


void
ngx_http_llm_channel_cancel(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_slot_t     *slot;
    ngx_http_llm_channel_t  *ch;

    ch = ctx->channel;

    if (ch == NULL) {
        return;
    }

    slot = &ch->slots[ctx->slot];

    slot->ctx = NULL;
    slot->taken = slot->received;
    ctx->channel = NULL;

    __atomic_store_n(&ch->lines[ctx->slot].taken, slot->taken,
                     __ATOMIC_RELAXED);
    __atomic_store_n(&ch->lines[ctx->slot].cancel, slot->gen,
                     __ATOMIC_RELAXED);

    ngx_http_llm_channel_line(ch);
}


/*
 * A slot's line has changed: wakes the engine's loop if it sleeps, once for
 * all lines that change in a batch.
 */

static void
ngx_http_llm_channel_line(ngx_http_llm_channel_t *ch)
{
    llm_seg_head_t  *head;

    if (ch->processing) {
        ch->bell = 1;
        return;
    }

    head = (llm_seg_head_t *) (void *) ch->segment;

    if (__atomic_exchange_n(&head->line_sleeps, 0, __ATOMIC_SEQ_CST)) {
        ngx_http_llm_channel_ring(ch);
    }
}


static void
ngx_http_llm_channel_ring(ngx_http_llm_channel_t *ch)
{
    /*
     * EAGAIN says that it has been rung often enough; any other error will
     * come as EOF too.
     */

    if (send(ch->connection->fd, "", 1, MSG_DONTWAIT|MSG_NOSIGNAL) == -1) {
        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, ch->peer->log, ngx_socket_errno,
                       "llm doorbell");
    }
}


/*
 * The engine takes no more requests: the channel keeps those it has, and a
 * successor is looked for.  Called from requests too, so it does not close.
 */

static void
ngx_http_llm_channel_retire(ngx_http_llm_channel_t *ch)
{
    ngx_http_llm_peer_t  *peer;

    peer = ch->peer;

    ngx_log_error(NGX_LOG_NOTICE, peer->log, 0,
                  "llm engine \"%V\" is draining: pid %P, epoch %uD, "
                  "%uD requests left", &peer->engine->name, ch->pid,
                  ch->epoch, ch->used);

    ch->retired = 1;
    ngx_queue_insert_tail(&peer->draining, &ch->queue);

    peer->channel = NULL;
    peer->delay = peer->engine->reconnect_min;

    ngx_http_llm_channel_again(peer);
}


/* the engine's words must move, and its state page is looked at */

static void
ngx_http_llm_channel_tick(ngx_event_t *ev)
{
    uint64_t                 beat;
    ngx_uint_t               i, stuck;
    ngx_msec_t               period;
    ngx_msec_int_t           late;
    ngx_http_llm_channel_t  *ch;

    ch = ev->data;
    period = ch->peer->engine->heartbeat;
    late = (ngx_msec_int_t) (ngx_current_msec - ch->tick_due);
    stuck = 0;

    for (i = 0; i < LLM_THREADS; i++) {

        beat = __atomic_load_n(&ch->state->heartbeat[i], __ATOMIC_RELAXED);

        if (beat == ch->heartbeat[i]) {
            stuck = 1;
        }

        ch->heartbeat[i] = beat;
    }

    if (!stuck) {
        ch->misses = 0;
        ch->peer->delay = ch->peer->engine->reconnect_min;

    } else if (late <= (ngx_msec_int_t) (period / 2)) {

        /* a worker that was late itself has no say in others' lateness */

        ch->misses++;
    }

    if (ch->misses >= ch->peer->engine->fails) {
        ngx_http_llm_channel_lost(ch, NGX_LOG_ERR, "shows no heartbeat");
        return;
    }

    if (!ch->retired
        && __atomic_load_n(&ch->state->draining, __ATOMIC_RELAXED))
    {
        ngx_http_llm_channel_retire(ch);
    }

    if (ch->retired && ch->used == 0) {
        ngx_http_llm_channel_close(ch);
        return;
    }

    ch->tick_due = ngx_current_msec + period;
    ngx_add_timer(ev, period);
}


/*
 * The attachment is over: its requests fail, and a new one is tried for.
 * ch is gone afterwards.
 */

static void
ngx_http_llm_channel_lost(ngx_http_llm_channel_t *ch, ngx_uint_t level,
    const char *why)
{
    uint32_t              i;
    ngx_queue_t           lost;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_llm_peer_t  *peer;

    peer = ch->peer;

    ngx_log_error(level, peer->log, 0,
                  "llm engine \"%V\" %s: pid %P, epoch %uD, %uD requests in "
                  "progress", &peer->engine->name, why, ch->pid, ch->epoch,
                  ch->used);

    ngx_queue_init(&lost);

    for (i = 0; i < ch->slots_n; i++) {

        ctx = ch->slots[i].ctx;

        if (ctx == NULL) {
            continue;
        }

        ch->slots[i].ctx = NULL;
        ctx->channel = NULL;

        if (ctx->queued) {
            ngx_queue_remove(&ctx->queue);
        }

        ctx->queued = 1;
        ngx_queue_insert_tail(&lost, &ctx->queue);

        ngx_http_llm_stream_error(ctx, LLM_ERR_ENGINE_LOST, "", "");
    }

    if (!ch->retired) {
        peer->channel = NULL;
        ngx_http_llm_channel_again(peer);
    }

    ngx_http_llm_channel_close(ch);

    ngx_http_llm_channel_flush(&lost);
}


static void
ngx_http_llm_channel_close(ngx_http_llm_channel_t *ch)
{
    ngx_http_llm_peer_t  *peer;

    peer = ch->peer;

    if (peer->pending == ch) {
        peer->pending = NULL;
    }

    if (peer->channel == ch) {
        peer->channel = NULL;
    }

    if (ch->retired) {
        ngx_queue_remove(&ch->queue);
    }

    if (ch->tick.timer_set) {
        ngx_del_timer(&ch->tick);
    }

    if (ch->connection) {
        ngx_close_connection(ch->connection);
    }

    if (ch->segment) {
        (void) munmap(ch->segment, ch->segment_size);
        (void) munmap(ch->state, ch->state_size);
    }

    ngx_destroy_pool(ch->pool);
}


/* arms the next attempt: twice as late as the last one, within limits */

static void
ngx_http_llm_channel_again(ngx_http_llm_peer_t *peer)
{
    ngx_msec_t  delay;

    if (ngx_exiting || ngx_terminate || peer->pending || peer->channel
        || peer->reconnect.timer_set)
    {
        return;
    }

    /* workers must not knock all at once: up to half is left to chance */

    delay = peer->delay;
    delay = delay - (ngx_msec_t) ngx_random() % (delay / 2 + 1);

    ngx_add_timer(&peer->reconnect, delay);

    peer->delay = ngx_min(peer->delay * 2, peer->engine->reconnect_max);
}


static void
ngx_http_llm_channel_reconnect(ngx_event_t *ev)
{
    ngx_http_llm_peer_t  *peer;

    peer = ev->data;

    if (!ngx_exiting) {
        ngx_http_llm_channel_connect(peer);
    }
}
