/*
 * Joining processes to a group.
 *
 * DESIGN.  Rank 0 listens at an address that all know from their options, and
 * the others connect to it; then two messages go each way:
 *
 *      rank r ──HELLO: version, r, ranks, its number──> rank 0
 *             <──CHALLENGE: version, its number, proof──
 *             ──ANSWER: proof, facts──>
 *             <──VERDICT: yes, or one sentence──
 *
 * A proof is a keyed hash (space.c) of both sides' random numbers, of who says
 * it and of the place: it shows that one knows the secret, is good for this
 * one connection, and tells nobody the secret.  Rank 0 proves itself first, so
 * that no rank tells a stranger anything.  What is said afterwards is neither
 * hidden nor signed: the network between ranks must be one's own.
 *
 * Facts are numbers that must be alike: what the model is, and every limit that
 * both sides size their memory by.  Rank 0 compares them, and a rank that
 * differs is refused with a sentence that both print.
 *
 * Who connects and is no rank is dropped after HELLO_MS, and rank 0 goes on
 * waiting: such a one may cost it time, but neither a place nor its life.
 * When all have come nobody listens any more.
 *
 * The main thread, at start, with signals blocked: give_up says if one came.
 */
#include "join.h"
#include "clock.h"
#include "log.h"
#include "space.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAGIC   "llmranks"
#define VERSION 1

#define HELLO_MS  2000  /* of a message of one who has connected */
#define ANSWER_MS 20000 /* rank 0 may be busy with others */
#define AGAIN_MS  200   /* between tries to connect, and looks at give_up */
#define NONCE     16

#define HOST_MAX  256
#define RANKS_MAX 64

enum {
#define X(name, what) FACT_##name,
    JOIN_FACTS(X)
#undef X
        FACTS_N
};

_Static_assert(sizeof(join_facts_t) == FACTS_N * sizeof(uint64_t), "no gaps");

typedef struct {
    char magic[8];
    uint32_t version, rank, ranks, zero;
    uint8_t nonce[NONCE];
} hello_t;

typedef struct {
    char magic[8];
    uint32_t version, zero;
    uint8_t nonce[NONCE];
    uint64_t proof;
} challenge_t;

typedef struct {
    uint64_t proof;
    join_facts_t facts;
} answer_t;

typedef struct {
    uint32_t yes;
    char text[252];
} verdict_t;

_Static_assert(sizeof(hello_t) == 40 && sizeof(challenge_t) == 40
                   && sizeof(verdict_t) == 256,
    "what goes over the wire has no gaps");

/* What came of one try. */
enum { JOINED, REFUSED, AGAIN };


/* --- bytes -------------------------------------------------------------- */

/* All of n bytes until deadline, out or in.  0, or -1. */
static int
move(int fd, void *p, size_t n, int out, uint64_t deadline_ms)
{
    struct pollfd pf = {fd, out ? POLLOUT : POLLIN, 0};
    uint64_t now;
    ssize_t got;

    assert(fd >= 0);
    assert(p != NULL);

    while (n > 0) {
        got = out ? send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL)
                  : recv(fd, p, n, MSG_DONTWAIT);
        if (got > 0) {
            p = (char *) p + got;
            n -= (size_t) got;
            continue;
        }
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
            return -1;
        }
        now = clock_ms();
        if (now >= deadline_ms) {
            return -1;
        }
        (void) poll(&pf, 1, (int) (deadline_ms - now));
    }

    return 0;
}


static int
put(int fd, const void *p, size_t n)
{
    return move(fd, (void *) (uintptr_t) p, n, 1, clock_ms() + HELLO_MS);
}


static int
get(int fd, void *p, size_t n, uint64_t ms)
{
    return move(fd, p, n, 0, clock_ms() + ms);
}


static int
draw(uint8_t nonce[NONCE])
{
    return getrandom(nonce, NONCE, 0) == NONCE ? 0 : -1;
}


/* That whoever says it, "0" or "r", knows the secret. */
static uint64_t
prove(const join_cfg_t *c, const char *who, const hello_t *h,
    const challenge_t *ch)
{
    const uint32_t place[2] = {h->rank, h->ranks};
    const space_part_t parts[4] = {{(const uint8_t *) who, strlen(who)},
        {h->nonce, NONCE}, {ch->nonce, NONCE},
        {(const uint8_t *) place, sizeof(place)}};

    return space_of(c->key, parts, 4);
}


/* --- address ------------------------------------------------------------ */

/* HOST into name, and where PORT is; NULL with err. */
static const char *
split(const char *address, char name[HOST_MAX], char *err, size_t errlen)
{
    const char *colon = strrchr(address, ':'), *host = address;
    size_t len = colon == NULL ? 0 : (size_t) (colon - host);

    if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
        host++;
        len -= 2;
    }
    if (len == 0 || len >= HOST_MAX || colon[1] == '\0') {
        snprintf(err, errlen,
            "tensor_parallel_address: expected HOST:PORT, found \"%.200s\"",
            address);
        return NULL;
    }
    memcpy(name, host, len);
    name[len] = '\0';

    return colon + 1;
}


/* The addresses that HOST:PORT has; NULL with err. */
static struct addrinfo *
resolve(const join_cfg_t *c, char *err, size_t errlen)
{
    struct addrinfo hints, *list = NULL;
    char name[HOST_MAX];
    const char *port = split(c->address, name, err, errlen);
    int rc;

    if (port == NULL) {
        return NULL;
    }

    memset(&hints, 0, sizeof(hints));
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = c->rank == 0 ? AI_PASSIVE : 0;
    rc = getaddrinfo(name, port, &hints, &list);
    if (rc != 0) {
        snprintf(err, errlen, "tensor_parallel_address %.200s: %s", c->address,
            rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
        return NULL;
    }

    return list;
}


static int
set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}


/* A socket that listens; -1 with err. */
static int
listen_at(const join_cfg_t *c, char *err, size_t errlen)
{
    struct addrinfo *list = resolve(c, err, errlen), *a;
    int fd = -1, one = 1, why = 0;

    assert(c->rank == 0);
    if (list == NULL) {
        return -1;
    }

    for (a = list; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            why = errno;
            continue;
        }
        (void) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (bind(fd, a->ai_addr, a->ai_addrlen) != 0
            || listen(fd, RANKS_MAX) != 0 || set_nonblocking(fd) != 0) {
            why = errno;
            (void) close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0) {
        snprintf(err, errlen, "tensor_parallel_address %.200s: %s", c->address,
            strerror(why));
    }

    return fd;
}


/* A connection, within HELLO_MS; -1: none yet, with err. */
static int
connect_to(const join_cfg_t *c, char *err, size_t errlen)
{
    struct addrinfo *list = resolve(c, err, errlen), *a;
    socklen_t size = sizeof(int);
    int fd = -1, why = 0;
    struct pollfd pf;

    assert(c->rank > 0);
    for (a = list; a != NULL && fd < 0; a = a->ai_next) {
        fd =
            socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) {
            why = errno;
            continue;
        }
        why = connect(fd, a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
        if (why == EINPROGRESS) {
            pf = (struct pollfd){fd, POLLOUT, 0};
            why = ETIMEDOUT;
            if (poll(&pf, 1, HELLO_MS) == 1) {
                (void) getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &size);
            }
        }
        if (why != 0) {
            (void) close(fd);
            fd = -1;
        }
    }
    if (list != NULL) {
        freeaddrinfo(list);
        if (fd < 0) {
            snprintf(err, errlen, "rank 0 is not at %.200s: %s", c->address,
                strerror(why));
        }
    }

    return fd;
}


/* --- rank 0 ------------------------------------------------------------- */

/* NULL-ended into text: the first fact that differs; 0: none does. */
static int
differs(const join_cfg_t *c, uint32_t rank, const join_facts_t *theirs,
    char *text, size_t size)
{
    static const char *const what[FACTS_N] = {
#define X(name, called) [FACT_##name] = called,
        JOIN_FACTS(X)
#undef X
    };
    const uint64_t *a = (const uint64_t *) &c->facts;
    const uint64_t *b = (const uint64_t *) theirs;
    uint32_t i;

    for (i = 0; i < FACTS_N && a[i] == b[i]; i++) { /* alike */
    }
    if (i == FACTS_N) {
        return 0;
    }

    if (i == FACT_model) {
        snprintf(text, size, "rank %u has another model than rank 0", rank);
    } else {
        snprintf(text, size,
            "rank %u has another %s than rank 0: expected %llu, found %llu",
            rank, what[i], (unsigned long long) a[i],
            (unsigned long long) b[i]);
    }

    return 1;
}


/* The sentence for one who is not let in; empty: he is. */
static void
judge(const join_cfg_t *c, const int *fds, const hello_t *h,
    const challenge_t *ch, const answer_t *a, verdict_t *v)
{
    assert(c->rank == 0);
    memset(v, 0, sizeof(*v));

    if (a->proof != prove(c, "r", h, ch)) {
        snprintf(
            v->text, sizeof(v->text), "a rank has another secret than rank 0");
    } else if (h->ranks != c->ranks || h->rank == 0 || h->rank >= c->ranks) {
        snprintf(v->text, sizeof(v->text),
            "rank %u of %u is none of rank 0's %u", h->rank, h->ranks,
            c->ranks);
    } else if (fds[h->rank] >= 0) {
        snprintf(
            v->text, sizeof(v->text), "rank %u has joined already", h->rank);
    } else {
        (void) differs(c, h->rank, &a->facts, v->text, sizeof(v->text));
    }
    v->yes = v->text[0] == '\0';
}


/* Speaks to one who has connected: his rank, or 0: he is none. */
static uint32_t
receive(const join_cfg_t *c, const int *fds, int fd)
{
    challenge_t ch;
    verdict_t v;
    hello_t h;
    answer_t a;

    if (get(fd, &h, sizeof(h), HELLO_MS) != 0
        || memcmp(h.magic, MAGIC, sizeof(h.magic)) != 0) {
        log_line(LOG_WARN, "somebody connected who is no rank");
        return 0;
    }

    memset(&ch, 0, sizeof(ch));
    memcpy(ch.magic, MAGIC, sizeof(ch.magic));
    ch.version = VERSION;
    if (draw(ch.nonce) != 0) {
        return 0;
    }
    ch.proof = prove(c, "0", &h, &ch);
    if (put(fd, &ch, sizeof(ch)) != 0 || h.version != VERSION
        || get(fd, &a, sizeof(a), HELLO_MS) != 0) {
        log_line(LOG_WARN, "a rank did not join: %s",
            h.version != VERSION ? "it has another version" : "it went away");
        return 0;
    }

    judge(c, fds, &h, &ch, &a, &v);
    if (put(fd, &v, sizeof(v)) != 0 || !v.yes) {
        log_line(LOG_WARN, "%s", v.yes ? "a rank went away" : v.text);
        return 0;
    }

    return h.rank;
}


/* Lets in who comes until all are there. */
static int
accept_all(
    const join_cfg_t *c, int listener, int *fds, char *err, size_t errlen)
{
    uint64_t end = clock_ms() + c->wait_ms;
    struct pollfd pf = {listener, POLLIN, 0};
    uint32_t r, missing = c->ranks - 1;
    int fd;

    while (missing > 0) {
        if (clock_ms() >= end || (c->give_up != NULL && c->give_up(c->arg))) {
            for (r = 1; fds[r] >= 0; r++) { /* the first that is missing */
            }
            snprintf(
                err, errlen, "rank %u has not joined at %.200s", r, c->address);
            return -1;
        }
        (void) poll(&pf, 1, AGAIN_MS);
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            continue;
        }
        r = receive(c, fds, fd);
        if (r == 0) {
            (void) close(fd);
            continue;
        }
        assert(r < c->ranks && fds[r] < 0);
        fds[r] = fd;
        missing--;
        log_line(LOG_NOTICE, "rank %u of %u has joined", r, c->ranks);
    }

    return 0;
}


/* --- the others --------------------------------------------------------- */

/* Presents itself to rank 0: JOINED, REFUSED or AGAIN, with err. */
static int
present(const join_cfg_t *c, int fd, char *err, size_t errlen)
{
    challenge_t ch;
    verdict_t v;
    hello_t h;
    answer_t a;

    assert(c->rank > 0 && fd >= 0);
    memset(&h, 0, sizeof(h));
    memcpy(h.magic, MAGIC, sizeof(h.magic));
    h.version = VERSION;
    h.rank = c->rank;
    h.ranks = c->ranks;

    snprintf(err, errlen, "rank 0 at %.200s went away", c->address);
    if (draw(h.nonce) != 0 || put(fd, &h, sizeof(h)) != 0
        || get(fd, &ch, sizeof(ch), ANSWER_MS) != 0) {
        return AGAIN;
    }
    if (memcmp(ch.magic, MAGIC, sizeof(ch.magic)) != 0) {
        snprintf(err, errlen, "who listens at %.200s is no rank 0", c->address);
        return REFUSED;
    }
    if (ch.version != VERSION) {
        snprintf(err, errlen,
            "rank 0 has another version: expected %u, found %u", VERSION,
            ch.version);
        return REFUSED;
    }
    if (ch.proof != prove(c, "0", &h, &ch)) {
        snprintf(
            err, errlen, "rank 0 at %.200s has another secret", c->address);
        return REFUSED;
    }

    a.proof = prove(c, "r", &h, &ch);
    a.facts = c->facts;
    if (put(fd, &a, sizeof(a)) != 0 || get(fd, &v, sizeof(v), ANSWER_MS) != 0) {
        return AGAIN;
    }
    v.text[sizeof(v.text) - 1] = '\0';
    if (!v.yes) {
        snprintf(err, errlen, "%s", v.text);
        return REFUSED;
    }

    return JOINED;
}


static int
join_root(const join_cfg_t *c, int *fds, char *err, size_t errlen)
{
    int listener = listen_at(c, err, errlen), rc = -1;
    uint32_t r;

    for (r = 0; r < c->ranks; r++) {
        fds[r] = -1;
    }
    if (listener >= 0) {
        log_line(LOG_NOTICE, "rank 0 of %u waits for the others at %s",
            c->ranks, c->address);
        rc = accept_all(c, listener, fds, err, errlen);
        (void) close(listener);
    }
    for (r = 1; rc != 0 && r < c->ranks; r++) {
        if (fds[r] >= 0) {
            (void) close(fds[r]);
        }
    }

    return rc;
}


int
join_all(const join_cfg_t *c, int *fds, char *err, size_t errlen)
{
    uint64_t end = clock_ms() + c->wait_ms;
    char host[HOST_MAX];
    int rc = AGAIN;

    assert(c->ranks >= 2 && c->ranks <= RANKS_MAX && c->rank < c->ranks);

    if (split(c->address, host, err, errlen) == NULL) {
        return -1;
    }
    if (c->rank == 0) {
        return join_root(c, fds, err, errlen);
    }

    while (rc == AGAIN) {
        fds[0] = connect_to(c, err, errlen);
        if (fds[0] >= 0) {
            rc = present(c, fds[0], err, errlen);
            if (rc == JOINED) {
                return 0;
            }
            (void) close(fds[0]);
        }
        if (clock_ms() >= end || (c->give_up != NULL && c->give_up(c->arg))) {
            break;
        }
        if (rc == AGAIN) {
            (void) poll(NULL, 0, AGAIN_MS);
        }
    }

    return -1;
}
