/*
 * Would catch: a share, rate or unit that is wrong; a line that is written
 * where no terminal is, too often, or left behind.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "progress.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void
text(void **state)
{
    char buf[128];
    progress_t p;

    (void) state;
    progress_open(&p, 13800000000ull, 5000000, -1);
    progress_text(&p, 5000000, buf, sizeof(buf));
    assert_string_equal(buf, "loading 0 % 0.0/13.8 GB 0.0 GB/s");
    progress_add(&p, 5106000000ull, 7000000);
    progress_text(&p, 7431428, buf, sizeof(buf));
    assert_string_equal(buf, "loading 37 % 5.1/13.8 GB 2.1 GB/s");
    progress_add(&p, 13800000000ull - 5106000000ull, 8000000);
    progress_text(&p, 11000000, buf, sizeof(buf));
    assert_string_equal(buf, "loading 100 % 13.8/13.8 GB 2.3 GB/s");
    progress_close(&p);

    progress_open(&p, 2600000, 0, -1);
    progress_add(&p, 1300000, 0);
    progress_text(&p, 500000, buf, sizeof(buf));
    assert_string_equal(buf, "loading 50 % 1.3/2.6 MB 2.6 MB/s");
    progress_open(&p, 0, 0, -1);
    progress_text(&p, 0, buf, sizeof(buf));
    assert_string_equal(buf, "loading 100 % 0.0/0.0 MB 0.0 MB/s");
}

static void
silent(void **state)
{
    int fds[2];
    char c;
    progress_t p;

    (void) state;
    assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
    progress_open(&p, 100, 0, fds[1]);
    progress_add(&p, 50, 1000000);
    progress_close(&p);
    assert_int_equal(read(fds[0], &c, 1), -1);
    close(fds[0]);
    close(fds[1]);
}

/* Ten seconds in steps of 10 ms: a line each 100 ms, and none is left. */
static void
on_a_terminal(void **state)
{
    int master, slave;
    uint64_t t;
    uint32_t lines = 0;
    char got[65536], *at;
    ssize_t n, all = 0;
    progress_t p;

    (void) state;
    master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);

    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) {
        print_message("no pseudo terminals here\n");
        skip();
    }

    slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(slave >= 0);
    progress_open(&p, 1000, 0, slave);

    for (t = 10000; t <= 10000000; t += 10000) {
        progress_add(&p, 1, t);
        n = read(master, got + all, sizeof(got) - 1 - (size_t) all);
        all += n > 0 ? n : 0;
    }

    progress_close(&p);
    n = read(master, got + all, sizeof(got) - 1 - (size_t) all);
    assert_true(n > 0);
    all += n;
    got[all] = '\0';

    for (at = got; (at = strstr(at, "loading ")) != NULL; at++) {
        lines++;
    }

    assert_int_equal(lines, 100);
    assert_non_null(strstr(got, "\rloading 1 % "));
    assert_non_null(strstr(got, "loading 100 % "));
    assert_string_equal(got + all - 4, "\r\033[K");
    progress_close(&p); /* again: nothing to wipe */
    assert_int_equal(read(master, got, sizeof(got)), -1);
    close(slave);
    close(master);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text),
        cmocka_unit_test(silent),
        cmocka_unit_test(on_a_terminal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
