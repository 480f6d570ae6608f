/*
 * Would catch: a stranger, or a rank with another model, secret, size or
 * place, that is let in; one that keeps the others from joining; a rank that
 * is told to wait for ever, or gives up before rank 0 is there; a place in the
 * environment that is misread.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "join.h"
#include "log.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RANKS_MAX 4

typedef struct {
    join_cfg_t c;
    int fds[RANKS_MAX];
    int rc;
    char err[512];
    pthread_t thread;
} rank_t;

static char address[64];
static struct sockaddr_in at;


/* A port of this machine that nobody has. */
static void
choose_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t n = sizeof(at);

    memset(&at, 0, sizeof(at));
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *) &at, sizeof(at)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *) &at, &n), 0);
    (void) close(fd);
    snprintf(address, sizeof(address), "127.0.0.1:%u", ntohs(at.sin_port));
}


static void *
run(void *arg)
{
    rank_t *k = arg;

    k->rc = join_all(&k->c, k->fds, k->err, sizeof(k->err));

    return NULL;
}


static void
start(rank_t *k, uint32_t rank, uint32_t ranks)
{
    memset(k, 0, sizeof(*k));
    k->c.address = address;
    k->c.rank = rank;
    k->c.ranks = ranks;
    k->c.key[0] = 1;
    k->c.key[1] = 2;
    k->c.wait_ms = 10000;
    k->c.facts.model = 77;
    k->c.facts.context = 4096;
}


static void
go(rank_t *k)
{
    assert_int_equal(pthread_create(&k->thread, NULL, run, k), 0);
}


static void
end(rank_t *k)
{
    assert_int_equal(pthread_join(k->thread, NULL), 0);
}


/* What one side sends the other gets, and nothing else is in the way. */
static void
check_pair(int a, int b)
{
    char x = 'x', y = 0;

    assert_int_equal(send(a, &x, 1, 0), 1);
    while (recv(b, &y, 1, 0) != 1) { /* b does not wait */
    }
    assert_int_equal(y, 'x');
    assert_int_equal(recv(a, &y, 1, MSG_DONTWAIT), -1);
}


static void
test_all_join(void **state)
{
    rank_t k[3];
    uint32_t r;

    (void) state;
    choose_port();
    for (r = 0; r < 3; r++) {
        start(&k[r], r, 3);
    }

    /* rank 0 comes last: the others try again */
    go(&k[2]);
    go(&k[1]);
    usleep(50000);
    go(&k[0]);
    for (r = 0; r < 3; r++) {
        end(&k[r]);
        assert_int_equal(k[r].rc, 0);
    }
    for (r = 1; r < 3; r++) {
        check_pair(k[0].fds[r], k[r].fds[0]);
        (void) close(k[0].fds[r]);
        (void) close(k[r].fds[0]);
    }
}


/* One that has something else than rank 0, and then the one that is meant. */
static void
refuse(const rank_t *odd, const char *sentence)
{
    rank_t root, other = *odd, good;

    start(&root, 0, 2);
    go(&root);
    go(&other);
    end(&other);
    assert_int_equal(other.rc, -1);
    assert_string_equal(other.err, sentence);

    start(&good, 1, 2);
    go(&good);
    end(&good);
    end(&root);
    assert_int_equal(root.rc, 0);
    assert_int_equal(good.rc, 0);
    (void) close(root.fds[1]);
    (void) close(good.fds[0]);
}


static void
test_who_differs_is_refused(void **state)
{
    char sentence[256];
    rank_t k;

    (void) state;
    choose_port();

    start(&k, 1, 2);
    k.c.facts.model++;
    refuse(&k, "rank 1 has another model than rank 0");

    start(&k, 1, 2);
    k.c.facts.context = 2048;
    refuse(&k,
        "rank 1 has another context than rank 0: expected 4096, found 2048");

    start(&k, 1, 2);
    k.c.facts.step_version = 9;
    refuse(&k,
        "rank 1 has another form of steps than rank 0: expected 0, found 9");

    start(&k, 1, 3);
    refuse(&k, "rank 1 of 3 is none of rank 0's 2");

    /* rank 0 shows first that it knows the secret */
    start(&k, 1, 2);
    k.c.key[1]++;
    snprintf(
        sentence, sizeof(sentence), "rank 0 at %s has another secret", address);
    refuse(&k, sentence);
}


static void
test_nobody_joins_twice(void **state)
{
    rank_t root, one, again, two;

    (void) state;
    choose_port();
    start(&root, 0, 3);
    start(&one, 1, 3);
    start(&again, 1, 3);
    start(&two, 2, 3);
    go(&root);
    go(&one);
    end(&one);
    assert_int_equal(one.rc, 0);
    go(&again);
    end(&again);
    assert_int_equal(again.rc, -1);
    assert_string_equal(again.err, "rank 1 has joined already");
    go(&two);
    end(&two);
    end(&root);
    assert_int_equal(root.rc, 0);
    (void) close(root.fds[1]);
    (void) close(root.fds[2]);
    (void) close(one.fds[0]);
    (void) close(two.fds[0]);
}


static int
stranger(const void *p, size_t n)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), i;

    for (i = 0; i < 500; i++) {
        if (connect(fd, (struct sockaddr *) &at, sizeof(at)) == 0) {
            break;
        }
        usleep(10000);
    }
    assert_true(i < 500);
    assert_int_equal(send(fd, p, n, MSG_NOSIGNAL), n);

    return fd;
}


/* Who connects to rank 0 and says anything, or half of something. */
static void
test_strangers(void **state)
{
    static const char http[] =
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/html\r\n\r\n";
    char hello[40] = "llmranks\1\0\0\0\1\0\0\0\2", answer[256];
    rank_t root, good;
    int fds[4];
    ssize_t n;
    size_t got = 0;

    (void) state;
    choose_port();
    start(&root, 0, 2);
    start(&good, 1, 2);
    go(&root);
    fds[0] = stranger(http, sizeof(http));
    fds[1] = stranger("l", 1);
    (void) shutdown(fds[1], SHUT_RDWR);

    /* one that has heard of the form, and knows no secret */
    fds[2] = stranger(hello, sizeof(hello));
    memset(answer, 0, sizeof(answer));
    assert_int_equal(recv(fds[2], answer, 40, MSG_WAITALL), 40);
    assert_int_equal(send(fds[2], answer, 8 + sizeof(join_facts_t), 0),
        8 + sizeof(join_facts_t));
    memset(answer, 0, sizeof(answer));
    while (got < sizeof(answer)
           && (n = recv(fds[2], answer + got, sizeof(answer) - got, 0)) > 0) {
        got += (size_t) n;
    }
    assert_int_equal(got, sizeof(answer));
    assert_int_equal(answer[0], 0);
    assert_string_equal(answer + 4, "a rank has another secret than rank 0");

    /* one that says nothing costs two seconds, and no more */
    fds[3] = stranger("llm", 3);
    go(&good);
    end(&good);
    end(&root);
    assert_int_equal(root.rc, 0);
    assert_int_equal(good.rc, 0);
    for (n = 0; n < 4; n++) {
        (void) close(fds[n]);
    }
    (void) close(root.fds[1]);
    (void) close(good.fds[0]);
}


static int
at_once(void *arg)
{
    return ++*(int *) arg > 2;
}


static void
test_giving_up(void **state)
{
    char sentence[256];
    rank_t k;
    int asked = 0;

    (void) state;
    choose_port();

    start(&k, 0, 2);
    k.c.wait_ms = 100;
    go(&k);
    end(&k);
    assert_int_equal(k.rc, -1);
    snprintf(
        sentence, sizeof(sentence), "rank 1 has not joined at %s", address);
    assert_string_equal(k.err, sentence);

    start(&k, 1, 2);
    k.c.give_up = at_once;
    k.c.arg = &asked;
    go(&k);
    end(&k);
    assert_int_equal(k.rc, -1);
    assert_non_null(strstr(k.err, "rank 0 is not at 127.0.0.1:"));

    start(&k, 1, 2);
    k.c.address = "nowhere";
    go(&k);
    end(&k);
    assert_string_equal(k.err,
        "tensor_parallel_address: expected HOST:PORT, found \"nowhere\"");
}


static void
test_place(void **state)
{
    join_place_t p;
    char err[256];

    (void) state;
    (void) unsetenv("OMPI_COMM_WORLD_RANK");
    (void) unsetenv("PMI_RANK");
    (void) unsetenv("SLURM_PROCID");
    assert_int_equal(join_place(&p, err, sizeof(err)), 0);

    (void) setenv("SLURM_PROCID", "3", 1);
    assert_int_equal(join_place(&p, err, sizeof(err)), 0);
    (void) setenv("SLURM_NTASKS", "4", 1);
    assert_int_equal(join_place(&p, err, sizeof(err)), 1);
    assert_int_equal(p.rank, 3);
    assert_int_equal(p.ranks, 4);

    /* mpirun's helpers are Slurm's tasks */
    (void) setenv("OMPI_COMM_WORLD_RANK", "1", 1);
    (void) setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    assert_int_equal(join_place(&p, err, sizeof(err)), 1);
    assert_int_equal(p.rank, 1);
    assert_int_equal(p.ranks, 2);

    (void) setenv("OMPI_COMM_WORLD_RANK", "2", 1);
    assert_int_equal(join_place(&p, err, sizeof(err)), -1);
    assert_string_equal(err, "OMPI_COMM_WORLD_RANK 2 of OMPI_COMM_WORLD_SIZE 2"
                             " is no place");
    (void) setenv("OMPI_COMM_WORLD_RANK", "1x", 1);
    assert_int_equal(join_place(&p, err, sizeof(err)), -1);
    (void) unsetenv("OMPI_COMM_WORLD_RANK");
}


static void
test_key(void **state)
{
    char path[] = "/tmp/llm_join.XXXXXX", err[512];
    int fd = mkstemp(path);
    uint64_t key[2];

    (void) state;
    (void) unsetenv(JOIN_SECRET_ENV);
    assert_true(fd >= 0);
    assert_int_equal(join_key(key, path, err, sizeof(err)), -1);
    assert_int_equal(write(fd, "0123456789abcdefFEDCBA9876543210\n", 33), 33);
    assert_int_equal(join_key(key, path, err, sizeof(err)), 0);
    assert_true(key[0] == 0x0123456789abcdefull);
    assert_true(key[1] == 0xfedcba9876543210ull);
    assert_int_equal(write(fd, "1", 1), 1);
    assert_int_equal(join_key(key, path, err, sizeof(err)), -1);
    (void) close(fd);
    (void) unlink(path);
    assert_int_equal(join_key(key, path, err, sizeof(err)), -1);

    assert_int_equal(join_key(key, "", err, sizeof(err)), -1);
    (void) setenv(JOIN_SECRET_ENV, "0123456789abcdef0123456789abcde", 1);
    assert_int_equal(join_key(key, "", err, sizeof(err)), -1);
    (void) setenv(JOIN_SECRET_ENV, "0123456789abcdef0123456789abcdef", 1);
    assert_int_equal(join_key(key, "", err, sizeof(err)), 0);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_join),
        cmocka_unit_test(test_who_differs_is_refused),
        cmocka_unit_test(test_nobody_joins_twice),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_giving_up),
        cmocka_unit_test(test_place),
        cmocka_unit_test(test_key),
    };

    log_level_set(LOG_ERROR);

    return cmocka_run_group_tests(tests, NULL, NULL);
}
