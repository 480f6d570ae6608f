/*
 * Would catch a hello that crashes or hangs the engine, a worker of another
 * version that is let in, a second engine on a live socket, a stale socket
 * that stops a start, a segment that a worker can shrink under us, a state
 * page that it can write, a dead worker's memory freed while a request points
 * to it, a lost doorbell, an end of a request that finds no room, and a worker
 * that never reads and is kept for ever.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "ipc.h"
#include "ipc_client.h"
#include "llm_err.h"
#include "llm_live.h"
#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define SLOTS 4

typedef struct {
    char dir[64];
    char path[96];
    ipc_cfg_t cfg;
    ipc_t *ipc;
    uint64_t now_ms;
} fix_t;


static void
rig_open(fix_t *f)
{
    char err[256] = "";

    f->ipc = ipc_open(&f->cfg, err, sizeof(err));
    assert_string_equal(err, "");
    assert_non_null(f->ipc);
    assert_int_equal(ipc_listen(f->ipc, err, sizeof(err)), 0);
}


static int
setup(void **state)
{
    fix_t *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    log_level_set(LOG_ALERT);
    snprintf(f->dir, sizeof(f->dir), "/tmp/llm-ipc-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/e.sock", f->dir);

    f->cfg.path = f->path;
    f->cfg.group = "";
    f->cfg.slots = SLOTS;
    f->cfg.workers_max = 2;
    f->cfg.submit_size = 4096;
    f->cfg.event_size = 32768;
    f->cfg.credit_max = 1024;
    f->cfg.live_rows = 8;
    f->now_ms = 1000;
    rig_open(f);
    *state = f;

    return 0;
}


static int
teardown(void **state)
{
    fix_t *f = *state;
    char lock[128];

    ipc_close(f->ipc);
    snprintf(lock, sizeof(lock), "%s.lock", f->path);
    (void) unlink(lock);
    assert_int_equal(rmdir(f->dir), 0);
    free(f);

    return 0;
}


/* What the engine does until there is nothing more to do. */
static unsigned
turn(fix_t *f)
{
    unsigned bits = 0;
    int i;

    for (i = 0; i < 4; i++) {
        ipc_wait(f->ipc, 0);
        bits |= ipc_handle(f->ipc, f->now_ms);
    }

    return bits;
}


static void
attach(fix_t *f, client_t *c)
{
    client_connect(c, f->path);
    client_hello(c, LLM_WIRE_VERSION_MIN, LLM_WIRE_VERSION);
    (void) turn(f);
    assert_int_equal(client_answer(c), 1);
}


static int
open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    assert_non_null(d);
    while (readdir(d) != NULL) {
        n++;
    }
    (void) closedir(d);

    return n;
}


static void
test_attach(void **state)
{
    fix_t *f = *state;
    client_t a, b, c;
    struct stat st;
    const llm_seg_head_t *head;

    attach(f, &a);
    attach(f, &b);

    assert_int_equal(a.w.epoch, 1);
    assert_int_equal(b.w.epoch, 2);
    assert_int_equal(a.w.slots, SLOTS);
    assert_int_equal(a.w.version, LLM_WIRE_VERSION);
    assert_int_equal(a.w.seg_size, ipc_segment_bytes(&f->cfg));
    assert_int_equal(fstat(a.seg_fd, &st), 0);
    assert_int_equal(st.st_size, a.w.seg_size);
    assert_int_equal(fstat(a.state_fd, &st), 0);
    assert_int_equal(st.st_size, a.w.state_size);

    head = (const llm_seg_head_t *) (const void *) b.seg;
    assert_int_equal(head->magic, LLM_WIRE_MAGIC);
    assert_int_equal(head->epoch, 2);
    assert_int_equal(ipc_att(f->ipc, 0)->epoch, 1);
    assert_int_equal(ipc_att(f->ipc, 0)->pid, getpid());
    assert_int_equal(ipc_state(f->ipc)->attachments, 2);

    /* two is all there may be */
    client_connect(&c, f->path);
    client_hello(&c, 1, LLM_WIRE_VERSION);
    (void) turn(f);
    assert_int_equal(client_answer(&c), 0);
    assert_int_equal(c.refuse.err, LLM_ERR_BUSY);
    assert_true(c.refuse.text[0] != '\0');
    assert_int_equal(client_rings(&c), -1);
    client_close(&c);

    /* and a place that was left is given again, with a new epoch */
    client_close(&a);
    assert_int_equal(turn(f) & IPC_DIED, IPC_DIED);
    attach(f, &c);
    assert_int_equal(c.w.epoch, 3);
    client_close(&b);
    client_close(&c);
}


static void
test_seals(void **state)
{
    fix_t *f = *state;
    client_t c;
    const llm_state_t *s;
    char name[64];
    void *p;
    int fd;

    attach(f, &c);

    assert_int_equal(ftruncate(c.seg_fd, 4096), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(c.seg_fd, 1 << 20), -1);
    assert_int_equal(fcntl(c.seg_fd, F_ADD_SEALS, F_SEAL_WRITE), -1);

    assert_int_equal(ftruncate(c.state_fd, 0), -1);
    assert_int_equal(ftruncate(c.state_fd, 1 << 20), -1);
    assert_int_equal(pwrite(c.state_fd, "x", 1, 0), -1);
    assert_int_equal(pwrite(c.state_fd, "x", 1, LLM_LIVE_AT), -1);
    assert_int_equal(c.w.state_size, llm_live_size(8));

    /* not through a door of its own either */
    snprintf(name, sizeof(name), "/proc/self/fd/%d", c.state_fd);
    fd = open(name, O_RDWR | O_CLOEXEC);
    if (fd != -1) {
        assert_int_equal(pwrite(fd, "x", 1, LLM_LIVE_AT), -1);
        p = mmap(NULL, c.w.state_size, PROT_WRITE, MAP_SHARED, fd, 0);
        assert_true(p == MAP_FAILED);
        (void) close(fd);
    }

    p = mmap(NULL, c.w.state_size, PROT_READ | PROT_WRITE, MAP_SHARED,
        c.state_fd, 0);
    assert_true(p == MAP_FAILED);

    p = mmap(NULL, c.w.state_size, PROT_READ, MAP_SHARED, c.state_fd, 0);
    assert_true(p != MAP_FAILED);
    assert_int_equal(mprotect(p, c.w.state_size, PROT_READ | PROT_WRITE), -1);
    s = p;
    assert_int_equal(s->magic, LLM_WIRE_MAGIC);
    assert_int_equal(s->size, sizeof(llm_state_t));
    assert_int_equal(s->attachments, 1);
    (void) __atomic_add_fetch(
        &ipc_state(f->ipc)->heartbeat[0], 7, __ATOMIC_RELAXED);
    assert_int_equal(s->heartbeat[0], 7);
    (void) munmap(p, c.w.state_size);

    client_close(&c);
}


static void
test_hostile_hello(void **state)
{
    fix_t *f = *state;
    static const uint8_t junk[5000] = {1, 2, 3};
    llm_msg_hello_t m = {LLM_WIRE_MAGIC, LLM_MSG_WELCOME, 1, 1, 1};
    size_t i, len;
    int fds;
    client_t c;

    fds = open_fds();

    for (i = 0; i < 5; i++) {
        client_connect(&c, f->path);
        len = (const size_t[]){1, 23, 24, sizeof(junk), sizeof(m)}[i];
        assert_int_equal(
            send(c.fd, i == 4 ? (const void *) &m : junk, len, 0), len);
        (void) turn(f);
        assert_int_equal(client_answer(&c), 0);
        assert_int_equal(c.refuse.err, LLM_ERR_PROTOCOL);
        assert_int_equal(client_rings(&c), -1);
        client_close(&c);
    }

    /* nothing at all, and gone */
    client_connect(&c, f->path);
    client_close(&c);
    (void) turn(f);

    assert_int_equal(open_fds(), fds);
    assert_int_equal(ipc_state(f->ipc)->attachments, 0);
}


/* Asks for the state page alone; its descriptor, or -1: was refused. */
static int
observe(fix_t *f, uint32_t version_min, uint32_t version, llm_msg_state_t *m)
{
    const llm_msg_hello_t hello = {LLM_WIRE_MAGIC, LLM_MSG_OBSERVE, version,
        version_min, (uint32_t) getpid()};
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(2 * sizeof(int))];
    } ctl;
    struct iovec iov = {m, sizeof(*m)};
    struct msghdr msg;
    client_t c;
    int fd = -1;

    memset(m, 0, sizeof(*m));
    memset(&msg, 0, sizeof(msg));
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = ctl.buf;
    msg.msg_controllen = sizeof(ctl.buf);

    client_connect(&c, f->path);
    assert_int_equal(send(c.fd, &hello, sizeof(hello), 0), sizeof(hello));
    (void) turn(f);
    assert_int_equal(
        recvmsg(c.fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC), sizeof(*m));
    if (m->type == LLM_MSG_STATE) {
        assert_non_null(CMSG_FIRSTHDR(&msg));
        assert_int_equal(CMSG_FIRSTHDR(&msg)->cmsg_len, CMSG_LEN(sizeof(int)));
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
    }
    assert_int_equal(client_rings(&c), -1); /* it is let go at once */
    client_close(&c);

    return fd;
}


/* An observer reads what workers read, and takes no place of theirs. */
static void
test_observe(void **state)
{
    fix_t *f = *state;
    int fds = open_fds(), fd, i;
    llm_msg_state_t m;
    client_t a, b;
    void *p;

    attach(f, &a);
    attach(f, &b); /* now there is room for no worker */
    for (i = 0; i < 100; i++) {
        fd = observe(f, 1, LLM_WIRE_VERSION + 1, &m);
        assert_true(fd >= 0);
        assert_int_equal(m.magic, LLM_WIRE_MAGIC);
        assert_int_equal(m.version, LLM_WIRE_VERSION);
        assert_int_equal(m.state_size, llm_live_size(8));
        p = mmap(NULL, m.state_size, PROT_READ, MAP_SHARED, fd, 0);
        assert_true(p != MAP_FAILED);
        assert_int_equal(((const llm_state_t *) p)->attachments, 2);
        (void) munmap(p, m.state_size);
        p = mmap(NULL, m.state_size, PROT_WRITE, MAP_SHARED, fd, 0);
        assert_true(p == MAP_FAILED);
        assert_int_equal(pwrite(fd, "x", 1, LLM_LIVE_AT), -1);
        assert_int_equal(ftruncate(fd, 0), -1);
        (void) close(fd);
    }
    assert_int_equal(
        observe(f, LLM_WIRE_VERSION + 1, LLM_WIRE_VERSION + 1, &m), -1);
    assert_int_equal(m.type, LLM_MSG_REFUSE);

    client_close(&a);
    client_close(&b);
    (void) turn(f);
    assert_int_equal(open_fds(), fds);
}


/* Descriptors that come with a hello must not stay open here. */
static void
test_hello_with_fds(void **state)
{
    fix_t *f = *state;
    llm_msg_hello_t m = {LLM_WIRE_MAGIC, LLM_MSG_HELLO, 1, 1, 1};
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(int))];
    } ctl;
    struct iovec iov = {&m, sizeof(m)};
    struct msghdr msg;
    struct cmsghdr *h;
    client_t c;
    int zero = 0, fds = open_fds();

    client_connect(&c, f->path);
    memset(&msg, 0, sizeof(msg));
    memset(&ctl, 0, sizeof(ctl));
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = ctl.buf;
    msg.msg_controllen = sizeof(ctl.buf);
    h = CMSG_FIRSTHDR(&msg);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(h), &zero, sizeof(int));
    assert_int_equal(sendmsg(c.fd, &msg, 0), sizeof(m));

    (void) turn(f);
    assert_int_equal(client_answer(&c), 1);
    client_close(&c);
    (void) turn(f);
    assert_int_equal(open_fds(), fds);
}


static void
test_versions(void **state)
{
    fix_t *f = *state;
    client_t c;

    /* a newer worker that still speaks ours; its hello is longer */
    client_connect(&c, f->path);
    client_hello(&c, 1, LLM_WIRE_VERSION + 1);
    (void) turn(f);
    assert_int_equal(client_answer(&c), 1);
    assert_int_equal(c.w.version, LLM_WIRE_VERSION);
    client_close(&c);

    client_connect(&c, f->path);
    client_hello(&c, LLM_WIRE_VERSION + 1, LLM_WIRE_VERSION + 2);
    (void) turn(f);
    assert_int_equal(client_answer(&c), 0);
    assert_int_equal(c.refuse.err, LLM_ERR_PROTOCOL);
    assert_int_equal(c.refuse.version, LLM_WIRE_VERSION);
    assert_non_null(strstr(c.refuse.text, "wire versions 2 to 3"));
    client_close(&c);

    client_connect(&c, f->path);
    client_hello(&c, 0, 0);
    (void) turn(f);
    assert_int_equal(client_answer(&c), 0);
    client_close(&c);

    client_connect(&c, f->path);
    client_hello(&c, 7, 1);
    (void) turn(f);
    assert_int_equal(client_answer(&c), 0);
    client_close(&c);
}


static void
test_silent(void **state)
{
    fix_t *f = *state;
    enum { CROWD = 100 };
    client_t c, many[CROWD];
    int i;

    client_connect(&c, f->path);
    (void) turn(f);
    assert_int_equal(ipc_timeout(f->ipc, f->now_ms, 5000), IPC_HELLO_MS);
    f->now_ms += IPC_HELLO_MS - 1;
    (void) turn(f);
    assert_int_equal(client_rings(&c), 0);
    f->now_ms += 1;
    (void) turn(f);
    assert_int_equal(client_rings(&c), -1);
    client_close(&c);
    assert_int_equal(ipc_timeout(f->ipc, f->now_ms, 5000), 5000);

    /* a crowd of silent ones keeps nobody out, wherever he stands in it */
    for (i = 0; i < CROWD; i++) {
        client_connect(&many[i], f->path);
        if (i == CROWD - 20) { /* more wait than there are places */
            client_connect(&c, f->path);
            client_hello(&c, LLM_WIRE_VERSION_MIN, LLM_WIRE_VERSION);
        }
    }
    (void) turn(f);
    assert_int_equal(client_answer(&c), 1);
    client_close(&c);
    (void) turn(f);
    attach(f, &c);
    client_close(&c);

    /* and who was slow with his hello is still there */
    client_connect(&c, f->path);
    (void) turn(f);
    for (i = 0; i < 60; i++) {
        client_close(&many[i]);
        client_connect(&many[i], f->path);
    }
    (void) turn(f);
    client_hello(&c, LLM_WIRE_VERSION_MIN, LLM_WIRE_VERSION);
    (void) turn(f);
    assert_int_equal(client_answer(&c), 1);
    client_close(&c);
    for (i = 0; i < CROWD; i++) {
        client_close(&many[i]);
    }
}


/* Without descriptors it waits, serves whom it has, and goes on later. */
static void
test_few_fds(void **state)
{
    fix_t *f = *state;
    struct rlimit was, few;
    client_t c, d[8];
    uint32_t i;
    int fd;

    attach(f, &c);
    for (i = 0; i < 8; i++) {
        client_connect(&d[i], f->path);
    }

    fd = dup(0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    few = was;
    few.rlim_cur = (rlim_t) fd + 2; /* two, one of them fd itself */
    (void) close(fd);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);

    (void) turn(f);
    assert_true(ipc_timeout(f->ipc, f->now_ms, 1000) <= 100);
    assert_int_equal(send(c.fd, "", 1, MSG_DONTWAIT), 1);
    assert_int_equal(turn(f), IPC_RANG);

    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    client_close(&d[7]);
    client_connect(&d[7], f->path);
    client_hello(&d[7], LLM_WIRE_VERSION_MIN, LLM_WIRE_VERSION);
    (void) turn(f);
    assert_int_equal(client_answer(&d[7]), -1);
    f->now_ms += 100;
    (void) turn(f);
    assert_int_equal(client_answer(&d[7]), 1);

    for (i = 0; i < 8; i++) {
        client_close(&d[i]);
    }
    client_close(&c);
}


/* One sentence for each way in which a start can fail. */
static void
test_start(void **state)
{
    fix_t *f = *state;
    char err[256], path[256];
    struct stat st;
    ipc_cfg_t cfg = f->cfg;
    ipc_t *ipc;
    int fd;

    /* mode, and no way for others */
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);

    /* a live one */
    assert_null(ipc_open(&cfg, err, sizeof(err)));
    assert_non_null(strstr(err, "another engine is listening"));

    memset(path, 'a', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    cfg.path = path;
    assert_null(ipc_open(&cfg, err, sizeof(err)));
    assert_non_null(strstr(err, "found 255: aaa"));

    cfg.path = "/nonexistent-dir/e.sock";
    assert_null(ipc_open(&cfg, err, sizeof(err)));
    assert_non_null(strstr(err, "/nonexistent-dir/e.sock.lock"));

    cfg.path = f->path;
    cfg.submit_size = 5000;
    assert_null(ipc_open(&cfg, err, sizeof(err)));
    assert_non_null(strstr(err, "powers of two"));
    cfg.submit_size = 4096;
    cfg.event_size = 16384;
    assert_null(ipc_open(&cfg, err, sizeof(err)));
    assert_non_null(strstr(err, "event_ring must be at least"));
    cfg.event_size = f->cfg.event_size;

    /* no such group, and a path that is something else */
    snprintf(path, sizeof(path), "%s/other", f->dir);
    cfg.path = path;
    cfg.group = "no-such-group-here";
    ipc = ipc_open(&cfg, err, sizeof(err));
    assert_non_null(ipc);
    assert_int_equal(ipc_listen(ipc, err, sizeof(err)), -1);
    assert_non_null(strstr(err, "no-such-group-here"));
    ipc_close(ipc);
    assert_int_equal(stat(path, &st), -1); /* nothing is left behind */

    cfg.group = "";
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    (void) close(fd);
    ipc = ipc_open(&cfg, err, sizeof(err));
    assert_non_null(ipc);
    assert_int_equal(ipc_listen(ipc, err, sizeof(err)), -1);
    assert_non_null(strstr(err, "is not a socket"));
    ipc_close(ipc);
    assert_int_equal(unlink(path), 0); /* it is still there */
    snprintf(path, sizeof(path), "%s/other.lock", f->dir);
    assert_int_equal(unlink(path), 0);
}


static void
test_stale(void **state)
{
    fix_t *f = *state;
    struct sockaddr_un sa;
    client_t c;
    int fd;

    ipc_close(f->ipc);
    assert_int_equal(access(f->path, F_OK), -1);

    memset(&sa, 0, sizeof(sa));
    sa.sun_family = AF_UNIX;
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", f->path);
    fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *) &sa, sizeof(sa)), 0);
    (void) close(fd);
    assert_int_equal(access(f->path, F_OK), 0);

    rig_open(f);
    attach(f, &c);
    client_close(&c);
}


static void
test_death(void **state)
{
    fix_t *f = *state;
    client_t c, d;
    ipc_att_t *a;

    attach(f, &c);
    a = ipc_att(f->ipc, 0);
    assert_non_null(a);
    ipc_ref(f->ipc, 0);
    ipc_ref(f->ipc, 0);
    __atomic_store_n(&c.lines[2].cancel, 9, __ATOMIC_RELEASE);
    client_close(&c);

    assert_int_equal(turn(f), IPC_DIED);
    assert_null(ipc_att(f->ipc, 0));
    assert_int_equal(a->dead, 1);
    assert_int_equal(turn(f), 0);

    /* who holds a reference may still look, and text_out may still try */
    assert_int_equal(a->lines[2].cancel, 9);
    assert_null(ipc_event_reserve(f->ipc, 0, 64, 1, f->now_ms));
    assert_int_equal(ipc_state(f->ipc)->attachments, 1);

    attach(f, &d); /* elsewhere: the place is not free yet */
    assert_non_null(ipc_att(f->ipc, 1));
    ipc_unref(f->ipc, 0);
    assert_int_equal(a->lines[2].cancel, 9);
    ipc_unref(f->ipc, 0);
    assert_int_equal(ipc_state(f->ipc)->attachments, 1);
    client_close(&d);
    (void) turn(f);
    assert_int_equal(ipc_state(f->ipc)->attachments, 0);

    attach(f, &c);
    assert_int_equal(ipc_att(f->ipc, 0)->epoch, 3);
    assert_int_equal(ipc_att(f->ipc, 0)->dead, 0);

    /* the engine's own decision: the worker sees the end of file */
    ipc_detach(f->ipc, 0, "the test wants it");
    assert_int_equal(client_rings(&c), -1);
    client_close(&c);
}


/* Commits one record of len bytes to a ring. */
static void
push(llm_ring_t *r, uint16_t type, uint32_t len)
{
    llm_ring_hdr_t *h = llm_ring_reserve(r, len, 0);

    assert_non_null(h);
    h->type = type;
    llm_ring_commit(r);
}


static void
test_doorbell_in(void **state)
{
    fix_t *f = *state;
    client_t c;
    uint8_t buf[64];

    attach(f, &c);
    assert_int_equal(ipc_may_sleep(f->ipc), 1);
    push(&c.submit, 7, 40);
    assert_int_equal(llm_ring_must_wake(&c.submit), 1);
    assert_int_equal(send(c.fd, "", 1, MSG_DONTWAIT), 1);
    assert_int_equal(turn(f), IPC_RANG);
    assert_int_equal(turn(f), 0);

    /* awake: no second ring, and no sleep while something lies there */
    push(&c.submit, 8, 40);
    assert_int_equal(llm_ring_must_wake(&c.submit), 0);
    assert_int_equal(ipc_may_sleep(f->ipc), 0);
    ipc_submit_pause(f->ipc, 0, 1);
    assert_int_equal(ipc_may_sleep(f->ipc), 1);
    ipc_submit_pause(f->ipc, 0, 0);

    assert_int_equal(ipc_submit_peek(f->ipc, 0, buf, sizeof(buf)), 40);
    ipc_submit_advance(f->ipc, 0);
    assert_int_equal(ipc_submit_peek(f->ipc, 0, buf, sizeof(buf)), 40);
    ipc_submit_advance(f->ipc, 0);
    assert_int_equal(ipc_submit_peek(f->ipc, 0, buf, sizeof(buf)), 0);
    assert_int_equal(ipc_may_sleep(f->ipc), 1);

    /* a slot line asks for the bell too */
    ipc_lines_arm(f->ipc, 0);
    assert_int_equal(((llm_seg_head_t *) (void *) c.seg)->line_sleeps, 1);

    /* an index beyond all reason */
    __atomic_store_n(&c.submit.ctl->tail, 1ull << 40, __ATOMIC_RELEASE);
    assert_int_equal(
        ipc_submit_peek(f->ipc, 0, buf, sizeof(buf)), LLM_RING_BROKEN);
    client_close(&c);
}


static int
post(fix_t *f, uint32_t att, uint32_t len, int terminal)
{
    llm_ring_hdr_t h = {len, LLM_REC_TOKENS, 0};
    void *p = ipc_event_reserve(f->ipc, att, len, terminal, f->now_ms);

    if (p == NULL) {
        return 0;
    }
    memcpy(p, &h, sizeof(h));
    ipc_event_commit(f->ipc, att);

    return 1;
}


static void
test_doorbell_out(void **state)
{
    fix_t *f = *state;
    uint8_t buf[256];
    client_t c;

    attach(f, &c);

    /* awake: no byte; asleep: one, however much came */
    assert_true(post(f, 0, 100, 0));
    ipc_event_flush(f->ipc);
    assert_int_equal(client_rings(&c), 0);
    assert_int_equal(llm_ring_may_sleep(&c.event), 0);
    assert_int_equal(llm_ring_peek(&c.event, buf, sizeof(buf)), 100);
    llm_ring_advance(&c.event);

    assert_int_equal(llm_ring_may_sleep(&c.event), 1);
    assert_true(post(f, 0, 100, 0));
    assert_true(post(f, 0, 200, 1));
    ipc_event_flush(f->ipc);
    assert_int_equal(client_rings(&c), 1);
    ipc_event_flush(f->ipc);
    assert_int_equal(client_rings(&c), 0);

    /* gone before the flush: no signal, no crash */
    assert_int_equal(llm_ring_peek(&c.event, buf, sizeof(buf)), 100);
    ipc_ref(f->ipc, 0);
    assert_true(post(f, 0, 100, 0));
    __atomic_store_n(&c.event.ctl->sleeps, 1, __ATOMIC_SEQ_CST);
    client_close(&c);
    (void) turn(f);
    ipc_event_flush(f->ipc);
    ipc_unref(f->ipc, 0);
}


/* However full, the ring takes one end for each slot. */
static void
test_terminal_room(void **state)
{
    fix_t *f = *state;
    uint8_t buf[LLM_TOKENS_MAX];
    client_t c;
    uint32_t len, i;
    int lap, ends;

    attach(f, &c);

    for (lap = 0; lap < 200; lap++) {
        len = 8 + ((uint32_t) lap * 977) % (LLM_TOKENS_MAX - 8);
        while (post(f, 0, len, 0)) {
        }
        for (i = 0; i < SLOTS; i++) {
            assert_true(post(f, 0, LLM_TERMINAL_MAX, 1));
        }

        /* read part of it: the place of the wrap moves through the ring */
        for (ends = 0; ends < SLOTS;) {
            assert_true(llm_ring_peek(&c.event, buf, sizeof(buf)) > 0);
            ends += ((llm_ring_hdr_t *) (void *) buf)->len == LLM_TERMINAL_MAX
                    && len != LLM_TERMINAL_MAX;
            if (len == LLM_TERMINAL_MAX) {
                break;
            }
            llm_ring_advance(&c.event);
        }
        while (llm_ring_peek(&c.event, buf, sizeof(buf)) > 0) {
            llm_ring_advance(&c.event);
        }
    }
    assert_int_equal(turn(f), 0);

    /* more ends than slots: that worker lies about its slots */
    while (post(f, 0, LLM_TERMINAL_MAX, 1)) {
    }
    assert_int_equal(turn(f), IPC_DIED);
    assert_null(ipc_att(f->ipc, 0));
    client_close(&c);
}


static void
test_unread(void **state)
{
    fix_t *f = *state;
    uint8_t buf[4096];
    client_t c;

    attach(f, &c);
    while (post(f, 0, 4096, 0)) {
    }

    f->now_ms += IPC_STUCK_MS - 1;
    assert_false(post(f, 0, 4096, 0));
    assert_int_equal(turn(f), 0);

    /* it reads, so little that it does not help, but it lives */
    assert_int_equal(llm_ring_peek(&c.event, buf, sizeof(buf)), 4096);
    llm_ring_advance(&c.event);
    f->now_ms += 10;
    assert_true(post(f, 0, 4096, 0));
    assert_false(post(f, 0, 4096, 0));
    assert_int_equal(turn(f), 0);

    f->now_ms += IPC_STUCK_MS - 1;
    assert_false(post(f, 0, 4096, 0));
    assert_int_equal(turn(f), 0);
    f->now_ms += 1;
    assert_false(post(f, 0, 4096, 0));
    assert_int_equal(turn(f), IPC_DIED);
    assert_int_equal(client_rings(&c), -1);
    client_close(&c);
}


static void
test_drain(void **state)
{
    fix_t *f = *state;
    char err[256] = "";
    client_t c, d;
    ipc_t *next;

    attach(f, &c);
    ipc_drain(f->ipc);
    assert_int_equal(access(f->path, F_OK), -1);
    assert_int_equal(ipc_state(f->ipc)->draining, 1);
    assert_int_equal(client_rings(&c), 1);
    assert_non_null(ipc_att(f->ipc, 0));

    /* a successor has the path now, and the old one leaves it alone */
    next = ipc_open(&f->cfg, err, sizeof(err));
    assert_non_null(next);
    assert_int_equal(ipc_listen(next, err, sizeof(err)), 0);
    assert_true(post(f, 0, 64, 0));
    client_close(&c);
    assert_int_equal(turn(f), IPC_DIED);
    ipc_close(f->ipc);
    assert_int_equal(access(f->path, F_OK), 0);

    f->ipc = next;
    attach(f, &d);
    client_close(&d);
}


int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_attach),
        T(test_seals),
        T(test_hostile_hello),
        T(test_hello_with_fds),
        T(test_observe),
        T(test_versions),
        T(test_silent),
        T(test_few_fds),
        T(test_start),
        T(test_stale),
        T(test_death),
        T(test_doorbell_in),
        T(test_doorbell_out),
        T(test_terminal_room),
        T(test_unread),
        T(test_drain),
    };

    return cmocka_run_group_tests_name("ipc", tests, NULL, NULL);
}
