/*
 * A group whose ranks are processes.
 *
 * DESIGN.  A star: each rank has a connection to rank 0, and no other.  Two
 * ranks exchange their parts and both add them up, in one hop; of more, rank 0
 * collects the parts, adds them up in the order of ranks and sends the sum to
 * all: two hops, and what rank 0 sends grows with their number.  That is for
 * few ranks, where nothing better is there; the bits are those of any other
 * transport.
 *
 *      frame    kind (4), number (4), bytes (8), and so many bytes
 *
 * Both sides of a connection know which frame comes next, from the calls that
 * all ranks make alike: a frame of another kind, number or size ends the
 * group, so that ranks which have lost each other's step stop at once.  The
 * one exception is an ABORT, which says why, and may come in the place of any.
 *
 * A call sets up a lane for each connection, what is to go out and what is to
 * come in, and then moves all of them as far as they go, in turns; only when
 * none moves does it sleep.  So both sides may send much at once, and neither
 * waits for the other to read first.  Large sums go in pieces that both sides
 * have room for since open; nothing is allocated afterwards.
 *
 * Who is gone is known by the connection: at once when a process ended, after
 * some seconds when a machine or the way to it did, since the system asks for
 * signs of life.  Who is there but does nothing is known by wait_ms, which is
 * counted while no byte moves.
 *
 * Abort from another thread: the flag, then `busy` is looked at; a call raises
 * busy, then looks at the flag; all sequentially consistent.  So either the
 * call sees the flag, or the other thread leaves the connections to it and
 * only shuts them down, which wakes it.
 *
 * Little-endian machines only, as the wire.
 */
#include "comm_socket.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define PIECE   (1u << 18) /* floats that are on their way at once */
#define WHY_MAX 256
#define LEAD    sizeof(head_t)

/* Signs of life: after IDLE seconds without, each second, GONE of them. */
#define ALIVE_IDLE_S  2
#define ALIVE_GONE    3
#define ALIVE_SENT_MS 5000 /* that what was sent may stay unconfirmed */

/* Numbers that no other protocol begins with. */
enum {
    KIND_SUM = 0x6c726b01,
    KIND_GATHER,
    KIND_CAST,
    KIND_BARRIER,
    KIND_ABORT
};

typedef struct {
    uint32_t kind;
    uint32_t nth; /* frame of this direction, counted from 0 */
    uint64_t bytes;
} head_t;

_Static_assert(sizeof(head_t) == 16, "no gaps");

/* One direction of a connection, in one call. */
typedef struct {
    head_t head;
    char *p;        /* [head.bytes], borrowed from the call */
    uint64_t at;    /* moved, head and all */
    uint32_t moves; /* is there anything left to move? */
    uint32_t nth;   /* frames so far */
} way_t;

typedef struct {
    int fd; /* owned */
    uint32_t rank;
    way_t out, in;
    float *room; /* [PIECE], owned */
    char why[WHY_MAX];
} peer_t;

typedef struct {
    comm_t c; /* first */
    uint32_t wait_ms;
    uint32_t aborted; /* atomic: 0; 1, being told why; 2 */
    uint32_t busy;    /* atomic: the rank's thread is in a call */
    uint32_t peers_n;
    char why[WHY_MAX];
    struct pollfd *polls; /* [peers_n], owned */
    peer_t peers[];       /* [peers_n], in the order of ranks */
} socket_t;

/* --- the end ------------------------------------------------------------ */

/* Tells the others why, as far as their connections are between frames. */
static void
tell_why(socket_t *s)
{
    uint32_t i, n = (uint32_t) strlen(s->why);
    char frame[LEAD + WHY_MAX];
    head_t h = {KIND_ABORT, 0, n};
    peer_t *p;

    for (i = 0; i < s->peers_n; i++) {
        p = &s->peers[i];
        if (p->out.moves && p->out.at > 0) {
            continue;
        }
        h.nth = p->out.nth - p->out.moves;
        memcpy(frame, &h, LEAD);
        memcpy(frame + LEAD, s->why, n);
        (void) send(p->fd, frame, LEAD + n, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

/* For good: with the first why there is.  own: by the rank's own thread. */
static void
end(socket_t *s, int own, const char *why)
{
    uint32_t none = 0, i;

    if (!__atomic_compare_exchange_n(
            &s->aborted, &none, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        return;
    }

    snprintf(s->why, sizeof(s->why), "%.*s", WHY_MAX - 1, why);
    __atomic_store_n(&s->aborted, 2, __ATOMIC_SEQ_CST);

    if (own || !__atomic_load_n(&s->busy, __ATOMIC_SEQ_CST)) {
        tell_why(s);
    }
    for (i = 0; i < s->peers_n; i++) {
        (void) shutdown(s->peers[i].fd, SHUT_RDWR);
    }
}

/* The same in a call, about a peer; -1. */
static int __attribute__((format(printf, 3, 4)))
lost(socket_t *s, const peer_t *p, const char *fmt, ...)
{
    char text[WHY_MAX - 32], why[WHY_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    snprintf(why, sizeof(why), "rank %u %s", p->rank, text);
    end(s, 1, why);

    return -1;
}

static void
socket_abort(comm_t *c, const char *why)
{
    end((socket_t *) c, 0, why);
}

static const char *
socket_error(comm_t *c)
{
    socket_t *s = (socket_t *) c;
    uint32_t state = __atomic_load_n(&s->aborted, __ATOMIC_ACQUIRE);

    while (state == 1) {
        (void) sched_yield();
        state = __atomic_load_n(&s->aborted, __ATOMIC_ACQUIRE);
    }

    return state == 0 ? NULL : s->why;
}

/* Is the rank's thread to go on?  It is in a call until leave(). */
static int
enter(socket_t *s)
{
    __atomic_store_n(&s->busy, 1, __ATOMIC_SEQ_CST);
    return __atomic_load_n(&s->aborted, __ATOMIC_SEQ_CST) == 0;
}

static int
leave(socket_t *s, int rc)
{
    __atomic_store_n(&s->busy, 0, __ATOMIC_SEQ_CST);
    return __atomic_load_n(&s->aborted, __ATOMIC_SEQ_CST) != 0 ? -1 : rc;
}

/* --- moving bytes ------------------------------------------------------- */

/* The next frame of a way: bytes at p, to be read or to be written. */
static void
set_way(way_t *w, uint32_t kind, const void *p, uint64_t bytes)
{
    assert(!w->moves);
    w->head.kind = kind;
    w->head.nth = w->nth++;
    w->head.bytes = bytes;
    w->p = (char *) (uintptr_t) p; /* out only reads */
    w->at = 0;
    w->moves = 1;
}

/* What a socket call has come to: bytes, or 0: later.  -1: it is gone. */
static int64_t
moved(socket_t *s, const peer_t *p, int64_t n)
{
    if (n > 0) {
        return n;
    }
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        return 0;
    }
    if (n == 0 || errno == ECONNRESET || errno == EPIPE) {
        return lost(s, p, "has gone");
    }

    return lost(s, p, "has gone: %s", strerror(errno));
}

/* The head of a frame has come: is it the one that was to come? */
static int
judge(socket_t *s, peer_t *p, const head_t *h)
{
    way_t *w = &p->in;

    if (h->kind == KIND_ABORT && h->bytes < WHY_MAX) {
        w->head = *h;
        w->p = p->why;
        return 0;
    }
    if (h->kind == w->head.kind && h->nth == w->head.nth
        && h->bytes == w->head.bytes) {
        return 0;
    }

    if (w->head.kind == KIND_ABORT) {
        return lost(s, p, "has gone");
    }

    return lost(s, p,
        "is at another step: expected frame %u of kind %u with %llu bytes, "
        "found %u, %u, %llu",
        w->head.nth, w->head.kind & 255, (unsigned long long) w->head.bytes,
        h->nth, h->kind & 255, (unsigned long long) h->bytes);
}

/* What another rank says before it ends the group: the same in all. */
static int
told(socket_t *s, peer_t *p)
{
    uint64_t i, n = p->in.head.bytes;

    assert(n < WHY_MAX);
    for (i = 0; i < n; i++) {
        if ((unsigned char) p->why[i] < ' ') {
            p->why[i] = '?'; /* it goes to a log */
        }
    }
    p->why[n] = '\0';

    end(s, 1, p->why);

    return -1;
}

/* As much of what comes in as is there. */
static int64_t
move_in(socket_t *s, peer_t *p)
{
    way_t *w = &p->in;
    char *head = (char *) p->why; /* not in use before a whole head is there */
    uint64_t at = w->at > LEAD ? w->at - LEAD : 0;
    head_t h;
    int64_t n;

    if (w->at < LEAD) {
        n = moved(s, p, recv(p->fd, head + w->at, LEAD - w->at, MSG_DONTWAIT));
    } else {
        n = moved(
            s, p, recv(p->fd, w->p + at, w->head.bytes - at, MSG_DONTWAIT));
    }
    if (n <= 0) {
        return n;
    }

    w->at += (uint64_t) n;
    if (w->at == LEAD) {
        memcpy(&h, head, LEAD);
        if (judge(s, p, &h) != 0) {
            return -1;
        }
    }
    if (w->at >= LEAD && w->at == LEAD + w->head.bytes) {
        w->moves = 0;
        return w->head.kind == KIND_ABORT ? told(s, p) : n;
    }

    return n;
}

/* It takes nothing any more: what it said before that, if it did, is why. */
static int
last_words(socket_t *s, peer_t *p)
{
    int64_t n;

    do {
        if (!p->in.moves) {
            set_way(&p->in, KIND_ABORT, NULL, WHY_MAX);
        }
        n = move_in(s, p);
    } while (n > 0);

    return n < 0 ? -1 : lost(s, p, "has gone");
}

/* As much of what goes out as the system takes. */
static int64_t
move_out(socket_t *s, peer_t *p)
{
    way_t *w = &p->out;
    uint64_t at = w->at > LEAD ? w->at - LEAD : 0;
    struct iovec parts[2];
    struct msghdr m;
    int64_t n;

    memset(&m, 0, sizeof(m));
    m.msg_iov = parts;
    if (w->at < LEAD) {
        parts[0].iov_base = (char *) &w->head + w->at;
        parts[0].iov_len = LEAD - w->at;
        m.msg_iovlen = 1;
    }
    if (w->head.bytes > at) {
        parts[m.msg_iovlen].iov_base = w->p + at;
        parts[m.msg_iovlen++].iov_len = w->head.bytes - at;
    }

    n = sendmsg(p->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) {
        return last_words(s, p);
    }
    n = moved(s, p, n);
    if (n > 0) {
        w->at += (uint64_t) n;
        w->moves = w->at < LEAD + w->head.bytes;
    }

    return n;
}

/* Sleeps until something can be moved; patient: for as long as it takes. */
static int
await(socket_t *s, int patient)
{
    peer_t *p, *slow = NULL;
    uint32_t i;
    int rc;

    for (i = 0; i < s->peers_n; i++) {
        p = &s->peers[i];
        s->polls[i].fd = p->out.moves || p->in.moves ? p->fd : -1;
        s->polls[i].events =
            (short) ((p->out.moves ? POLLOUT : 0) | (p->in.moves ? POLLIN : 0));
        patient = patient && !p->out.moves;
        slow = slow == NULL && s->polls[i].fd >= 0 ? p : slow;
    }

    assert(slow != NULL);
    rc = poll(s->polls, s->peers_n, patient ? -1 : (int) s->wait_ms);
    if (rc == 0) {
        return lost(s, slow, "has not answered for %u ms", s->wait_ms);
    }

    return 0;
}

/* Moves all that has been set up.  0, or -1: the group has ended. */
static int
move(socket_t *s, int patient)
{
    int64_t n;
    uint32_t i, left, went;
    peer_t *p;

    do {
        left = went = 0;
        for (i = 0; i < s->peers_n; i++) {
            p = &s->peers[i];
            n = p->out.moves ? move_out(s, p) : 0;
            went += n > 0;
            if (n >= 0 && p->in.moves) {
                n = move_in(s, p);
                went += n > 0;
            }
            if (n < 0) {
                return -1;
            }
            left += p->out.moves + p->in.moves;
        }
        if (left > 0 && went == 0 && await(s, patient) != 0) {
            return -1;
        }
    } while (left > 0);

    return 0;
}

/* The same to all peers, or from all. */
static int
move_all(socket_t *s, uint32_t kind, int in, void *p, uint64_t bytes)
{
    uint32_t i;

    for (i = 0; i < s->peers_n; i++) {
        set_way(in ? &s->peers[i].in : &s->peers[i].out, kind, p, bytes);
    }

    return move(s, 0);
}

/* --- calls -------------------------------------------------------------- */

/* x[i] = x[i] + y[i], or of a first rank, whose are the ys: y[i] + x[i] */
static void
add(float *x, const float *y, uint32_t n, int first)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        x[i] = first ? y[i] + x[i] : x[i] + y[i];
    }
}

static int
sum_piece(socket_t *s, float *x, uint32_t n)
{
    uint32_t i, bytes = n * (uint32_t) sizeof(float);
    peer_t *first = &s->peers[0];

    if (s->c.ranks == 2) {
        set_way(&first->out, KIND_SUM, x, bytes);
        set_way(&first->in, KIND_SUM, first->room, bytes);
        if (move(s, 0) != 0) {
            return -1;
        }
        add(x, first->room, n, first->rank == 0);
        return 0;
    }

    if (s->c.rank > 0) {
        /* the sum comes when all of x has gone */
        set_way(&first->out, KIND_SUM, x, bytes);
        set_way(&first->in, KIND_SUM, x, bytes);
        return move(s, 0);
    }

    for (i = 0; i < s->peers_n; i++) {
        set_way(&s->peers[i].in, KIND_SUM, s->peers[i].room, bytes);
    }
    if (move(s, 0) != 0) {
        return -1;
    }
    for (i = 0; i < s->peers_n; i++) {
        add(x, s->peers[i].room, n, 0);
    }

    return move_all(s, KIND_SUM, 0, x, bytes);
}

static int
socket_sum(comm_t *c, float *x, uint64_t n)
{
    socket_t *s = (socket_t *) c;
    int rc = enter(s) ? 0 : -1;
    uint32_t piece;

    for (; rc == 0 && n > 0; x += piece, n -= piece) {
        piece = n < PIECE ? (uint32_t) n : PIECE;
        rc = sum_piece(s, x, piece);
    }

    return leave(s, rc);
}

/* A rectangle of x, whose rows have width columns. */
typedef struct {
    float *x;
    uint64_t width, at, rows;
    uint32_t columns; /* from at on */
} rect_t;

/* To or from a buffer where its rows are side by side. */
static void
pack(const rect_t *r, float *room, int unpack)
{
    uint64_t i, n = r->columns * sizeof(float);
    float *x = r->x + r->at;

    for (i = 0; i < r->rows && n > 0; i++, x += r->width, room += r->columns) {
        memcpy(unpack ? x : room, unpack ? room : x, n);
    }
}

/* The part of rank in columns col on of each part; NULL-sized where none. */
static rect_t
part(float *x, uint64_t rows, uint32_t width, uint32_t rank, uint32_t ranks,
    uint32_t col)
{
    uint32_t at, n = comm_part(width, rank, ranks, &at);
    rect_t r = {x, width, (uint64_t) at + col, rows, 0};

    n = n > col ? n - col : 0;
    r.columns = n < PIECE ? n : PIECE;

    return r;
}

/* Some rows and columns of all parts to rank 0. */
static int
collect(socket_t *s, float *x, uint64_t rows, uint32_t width, uint32_t col)
{
    uint32_t i;
    rect_t r;
    peer_t *p;

    for (i = 0; i < s->peers_n; i++) {
        p = &s->peers[i];
        r = part(x, rows, width, s->c.rank > 0 ? s->c.rank : p->rank,
            s->c.ranks, col);
        if (r.columns > 0 && s->c.rank > 0) {
            pack(&r, p->room, 0);
        }
        if (r.columns > 0) {
            set_way(s->c.rank > 0 ? &p->out : &p->in, KIND_GATHER, p->room,
                rows * r.columns * sizeof(float));
        }
    }
    if (move(s, 0) != 0) {
        return -1;
    }
    for (i = 0; i < s->peers_n && s->c.rank == 0; i++) {
        p = &s->peers[i];
        r = part(x, rows, width, p->rank, s->c.ranks, col);
        pack(&r, p->room, 1);
    }

    return 0;
}

/* What rank 0 has collected goes to root, or to all. */
static int
hand_on(socket_t *s, uint32_t root, float *x, uint64_t floats)
{
    uint64_t bytes = floats * sizeof(float);

    if (root == 0 || (s->c.rank > 0 && root != COMM_ALL && root != s->c.rank)) {
        return 0;
    }
    if (s->c.rank == 0 && root == COMM_ALL) {
        return move_all(s, KIND_GATHER, 0, x, bytes);
    }
    if (s->c.rank == 0) {
        set_way(&s->peers[root - 1].out, KIND_GATHER, x, bytes);
    } else {
        set_way(&s->peers[0].in, KIND_GATHER, x, bytes);
    }

    return move(s, 0);
}

static int
socket_gather(comm_t *c, uint32_t root, float *x, uint64_t rows, uint32_t width)
{
    socket_t *s = (socket_t *) c;
    uint32_t most = (width + c->ranks - 1) / c->ranks, col;
    uint64_t step = most < PIECE ? PIECE / most : 1, at, n;
    int rc = enter(s) ? 0 : -1;

    for (at = 0; rc == 0 && at < rows; at += n) {
        n = rows - at < step ? rows - at : step;
        for (col = 0; rc == 0 && col < most; col += PIECE) {
            rc = collect(s, x + at * width, n, width, col);
        }
    }
    if (rc == 0) {
        rc = hand_on(s, root, x, rows * width);
    }

    return leave(s, rc);
}

static int
socket_cast(comm_t *c, uint32_t root, void *p, uint64_t bytes)
{
    socket_t *s = (socket_t *) c;
    int rc = enter(s) ? 0 : -1;
    uint32_t i;

    if (rc == 0 && c->rank > 0) {
        set_way(c->rank == root ? &s->peers[0].out : &s->peers[0].in, KIND_CAST,
            p, bytes);
        rc = move(s, 1);
    } else if (rc == 0) {
        if (root > 0) {
            set_way(&s->peers[root - 1].in, KIND_CAST, p, bytes);
            rc = move(s, 0);
        }
        for (i = 0; rc == 0 && i < s->peers_n; i++) {
            if (s->peers[i].rank != root) {
                set_way(&s->peers[i].out, KIND_CAST, p, bytes);
            }
        }
        rc = rc == 0 ? move(s, 0) : rc;
    }

    return leave(s, rc);
}

static int
socket_barrier(comm_t *c)
{
    socket_t *s = (socket_t *) c;
    int rc = enter(s) ? 0 : -1;

    if (rc == 0 && c->rank > 0) {
        set_way(&s->peers[0].out, KIND_BARRIER, NULL, 0);
        set_way(&s->peers[0].in, KIND_BARRIER, NULL, 0);
        rc = move(s, 0);
    } else if (rc == 0) {
        rc = move_all(s, KIND_BARRIER, 1, NULL, 0);
        rc = rc == 0 ? move_all(s, KIND_BARRIER, 0, NULL, 0) : rc;
    }

    return leave(s, rc);
}

/* --- open and close ----------------------------------------------------- */

static void
socket_close(comm_t *c)
{
    socket_t *s = (socket_t *) c;
    uint32_t i;

    for (i = 0; i < s->peers_n; i++) {
        if (s->peers[i].fd >= 0) {
            (void) close(s->peers[i].fd);
        }
        free(s->peers[i].room);
    }
    free(s->polls);
    free(s);
}

static const comm_ops_t ops = {socket_sum, socket_gather, socket_cast,
    socket_barrier, socket_abort, socket_error, socket_close};

/* Small frames at once, and signs of life; what is no TCP has them anyway. */
static void
set_options(int fd)
{
    static const struct {
        int level, name, value;
    } rows[] = {{IPPROTO_TCP, TCP_NODELAY, 1}, {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, ALIVE_IDLE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, 1}, {IPPROTO_TCP, TCP_KEEPCNT, ALIVE_GONE},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, ALIVE_SENT_MS}};
    size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        (void) setsockopt(fd, rows[i].level, rows[i].name, &rows[i].value,
            sizeof(rows[i].value));
    }
}

int
comm_socket_open(const comm_socket_t *cfg, comm_t **c, char *err, size_t errlen)
{
    uint32_t n = cfg->rank == 0 ? cfg->ranks - 1 : 1, i;
    socket_t *s = calloc(1, sizeof(*s) + n * sizeof(peer_t));
    int memory = s != NULL;
    peer_t *p;

    assert(cfg->ranks >= 2 && cfg->ranks <= COMM_RANKS_MAX);
    assert(cfg->rank < cfg->ranks && cfg->wait_ms > 0);

    if (memory) {
        s->polls = calloc(n, sizeof(*s->polls));
        memory = s->polls != NULL;
        s->peers_n = n;
    }
    for (i = 0; s != NULL && i < n; i++) {
        p = &s->peers[i];
        p->fd = -1;
        p->rank = cfg->rank == 0 ? i + 1 : 0;
        p->room = malloc(PIECE * sizeof(float));
        memory = memory && p->room != NULL;
    }
    if (!memory) {
        snprintf(err, errlen, "ranks: not enough memory");
        if (s != NULL) {
            socket_close(&s->c);
        }
        return -1;
    }

    for (i = 0; i < n; i++) {
        s->peers[i].fd = cfg->fds[cfg->rank == 0 ? i + 1 : 0];
        set_options(s->peers[i].fd);
    }
    s->c.ops = &ops;
    s->c.rank = cfg->rank;
    s->c.ranks = cfg->ranks;
    s->wait_ms = cfg->wait_ms;
    *c = &s->c;

    return 0;
}

int
comm_socket_look(comm_t *c)
{
    socket_t *s = (socket_t *) c;
    int rc = enter(s) ? 0 : -1;
    uint32_t i;
    int64_t n;
    char byte;

    assert(c->ops == &ops);

    for (i = 0; rc == 0 && i < s->peers_n; i++) {
        n = recv(s->peers[i].fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        /* nothing is to come now but why it ends */
        rc = n > 0 ? last_words(s, &s->peers[i])
                   : (int) moved(s, &s->peers[i], n);
    }

    return leave(s, rc);
}

void
comm_socket_wait(comm_t *c, uint32_t wait_ms)
{
    assert(c->ops == &ops && wait_ms > 0);
    ((socket_t *) c)->wait_ms = wait_ms;
}
