
/*
 * How this worker and an engine come together: connect, hello, welcome, the
 * mappings, and trying again.
 *
 * DESIGN.  An attempt is a channel from its first moment, with a pool of its
 * own that lives until close; it is peer->pending until the welcome has been
 * found good.  Nothing waits: unix sockets connect at once or fail, and the
 * welcome is an event with a timeout.  The one exception is a worker's start,
 * see NGX_HTTP_LLM_FIRST_WAIT.
 *
 *     connect --HELLO--> pending --WELCOME--> peer->channel
 *        ^                  |                     |
 *        |                  | refused, timeout,   | lost or draining
 *        |                  v nonsense            v (ngx_http_llm_channel.c)
 *     peer->reconnect <-----+---------------------+
 *        (backoff)
 *
 * The welcome is input: sizes are compared with fstat() and checked for
 * leading outside, and the seals of both files are looked at, so that the
 * mappings can not be cut short under us (SIGBUS).  An engine that is not
 * there is no error, and logged once, not with every attempt.
 *
 * Memory: peers come from the cycle's pool.
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

#define NGX_HTTP_LLM_SEGMENT_MAX  (3ull << 30)  /* two rings and more */
#define NGX_HTTP_LLM_STATE_MAX    (1ull << 20)

/* a seal is for ever, so it does not matter whether more can be added */

#define NGX_HTTP_LLM_SEALS        (F_SEAL_SHRINK|F_SEAL_GROW)


static void ngx_http_llm_channel_first(ngx_http_llm_peer_t *peer);
static void ngx_http_llm_channel_connect(ngx_http_llm_peer_t *peer);
static ngx_int_t ngx_http_llm_channel_hello(ngx_http_llm_channel_t *ch);
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
static void ngx_http_llm_channel_reconnect(ngx_event_t *ev);
static void ngx_http_llm_channel_write_handler(ngx_event_t *wev);


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

        ngx_http_llm_line_open(peer);

        engines[i]->peer = peer;

        ngx_http_llm_channel_connect(peer);
    }

    for (i = 0; i < lmcf->engines.nelts; i++) {
        ngx_http_llm_channel_first(engines[i]->peer);
    }

    return NGX_OK;
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

        if (peer->turn.timer_set) {
            ngx_del_timer(&peer->turn);
        }
    }
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


void
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

    /* a newer engine's is longer */

    if (n >= (ngx_int_t) sizeof(llm_msg_welcome_t)
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

    /* the one that this one succeeds */

    if (peer->channel) {
        ngx_http_llm_channel_retire(peer->channel);
    }

    peer->pending = NULL;
    peer->channel = ch;
    peer->failures = 0;
    peer->attachments++;

    ch->tick.handler = ngx_http_llm_channel_tick;
    ch->tick.data = ch;
    ch->tick.log = peer->log;
    ch->tick.cancelable = 1;
    ch->tick_due = ngx_current_msec + peer->engine->heartbeat;
    ch->alive = ngx_current_msec;
    ch->woke = ngx_current_msec;
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
        model->context = ch->state->models[i].context;

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

    /*
     * An engine that stays away is one line per worker and reason, not one
     * per try, at a level that is logged by default.
     */

    level = peer->failures++ && err == peer->failed_err ? NGX_LOG_INFO
                                                        : NGX_LOG_ERR;
    peer->failed_err = err;

    ngx_log_error(level, peer->log, err,
                  "llm engine \"%V\" at unix:%V not attached: %s",
                  &peer->engine->name, &peer->engine->path, what);

    ngx_http_llm_channel_close(ch);
    ngx_http_llm_channel_again(peer);
}


void
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


void
ngx_http_llm_channel_again(ngx_http_llm_peer_t *peer)
{
    ngx_msec_t  delay;

    if (ngx_exiting || ngx_terminate || peer->pending
        || (peer->channel && !peer->channel->succeeded)
        || peer->reconnect.timer_set)
    {
        return;
    }

    /* workers must not knock all at once: up to half is left to chance */

    delay = peer->delay;
    delay = delay - (ngx_msec_t) ngx_random() % (delay / 2 + 1);

    ngx_add_timer(&peer->reconnect, delay);

    delay = ngx_max(peer->delay * 2, peer->engine->reconnect_min);
    peer->delay = ngx_min(delay, peer->engine->reconnect_max);
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


static void
ngx_http_llm_channel_write_handler(ngx_event_t *wev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, wev->log, 0, "llm channel write");
}
