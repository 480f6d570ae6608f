/*
 * Would catch an option that is accepted and lost, a unit read wrongly, a
 * limit that does not hold, and a bad line that does not name its place.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "opts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ERR char err[512] = ""


static void
test_defaults(void **state)
{
    opts_t o;

    (void) state;
    opts_init(&o);
    assert_string_equal(o.device, "cpu");
    assert_int_equal(o.block_tokens, 16);
    assert_int_equal(o.submit_ring, 4 << 20);
    assert_int_equal(o.drain_timeout, 30000);
    opts_free(&o);
}


/* A prompt must not stall streams by default; null's steps take no time. */
static void
test_step_target(void **state)
{
    opts_t o;
    ERR;

    (void) state;
    opts_init(&o);
    assert_int_equal(opts_step_target(&o), 250);
    assert_int_equal(opts_set(&o, "device", "null", err, sizeof(err)), 0);
    assert_int_equal(opts_step_target(&o), 0);
    assert_int_equal(opts_set(&o, "step_target", "80ms", err, sizeof(err)), 0);
    assert_int_equal(opts_step_target(&o), 80);
    assert_int_equal(opts_set(&o, "device", "cpu", err, sizeof(err)), 0);
    assert_int_equal(opts_step_target(&o), 80);
    assert_int_equal(opts_set(&o, "step_target", "0", err, sizeof(err)), 0);
    assert_int_equal(opts_step_target(&o), 0);
    opts_free(&o);
}


static void
test_units(void **state)
{
    opts_t o;
    ERR;

    (void) state;
    opts_init(&o);
    assert_false(opts_given(&o, "policy") || opts_given(&o, "kv_memory"));
    assert_int_equal(opts_set(&o, "kv_memory", "3g", err, sizeof(err)), 0);
    assert_int_equal(o.kv_memory, 3ll << 30);
    assert_int_equal(opts_set(&o, "step_min", "250ms", err, sizeof(err)), 0);
    assert_int_equal(o.step_min, 250);
    assert_int_equal(opts_set(&o, "step_min", "2", err, sizeof(err)), 0);
    assert_int_equal(o.step_min, 2000);
    assert_true(!opts_given(&o, "policy") && opts_given(&o, "kv_memory"));
    opts_free(&o);
}


static void
test_refused(void **state)
{
    static const char *const bad[][2] = {{"nonsense", "1"},
        {"block_tokens", ""}, {"block_tokens", "x"}, {"block_tokens", "3"},
        {"block_tokens", "257"}, {"block_tokens", "16k"},
        {"block_tokens", " 16"}, {"kv_memory", "99999999999999999999"},
        {"kv_memory", "9999999999999g"}, {"kv_memory", "-1"},
        {"step_min", "1y"}};
    size_t i;
    opts_t o;

    (void) state;
    opts_init(&o);
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ERR;
        assert_int_equal(
            opts_set(&o, bad[i][0], bad[i][1], err, sizeof(err)), -1);
        assert_non_null(strstr(err, bad[i][0]));
    }
    assert_int_equal(o.block_tokens, 16);
    opts_free(&o);
}


static int
file_with(opts_t *o, const char *text, char *err, size_t errlen)
{
    char path[] = "/tmp/optsXXXXXX";
    int fd = mkstemp(path), rc;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t) strlen(text));
    close(fd);
    rc = opts_file(o, path, err, errlen);
    unlink(path);

    return rc;
}


static void
test_file(void **state)
{
    opts_t o;
    ERR;

    (void) state;
    opts_init(&o);
    assert_int_equal(file_with(&o,
                         "# comment\n\n  model   /a b/c.gguf   # why\n"
                         "slots 12\n",
                         err, sizeof(err)),
        0);
    assert_string_equal(o.model, "/a b/c.gguf");
    assert_int_equal(o.slots, 12);

    assert_int_equal(
        file_with(&o, "slots 1\nslots many\n", err, sizeof(err)), -1);
    assert_non_null(strstr(err, ":2:"));
    assert_int_equal(opts_file(&o, "/nonexistent/x", err, sizeof(err)), -1);
    assert_int_equal(opts_file(&o, "/tmp", err, sizeof(err)), -1);
    opts_free(&o);
}


static int
args_with(opts_t *o, char *err, size_t errlen, const char *a, const char *b)
{
    char *argv[] = {"llm-engine", (char *) a, (char *) b, NULL};

    return opts_args(o, b ? 3 : 2, argv, err, errlen);
}


static void
test_args(void **state)
{
    opts_t o;
    ERR;

    (void) state;
    opts_init(&o);
    assert_int_equal(args_with(&o, err, sizeof(err), "--slots", "7"), 0);
    assert_int_equal(o.slots, 7);
    assert_int_equal(args_with(&o, err, sizeof(err), "--slots=8", NULL), 0);
    assert_int_equal(o.slots, 8);
    assert_int_equal(args_with(&o, err, sizeof(err), "--inspect", "--help"), 0);
    assert_true(o.inspect && o.help);
    assert_string_equal(o.model, "");
    assert_int_equal(args_with(&o, err, sizeof(err), "--inspect", "x/y"), 0);
    assert_string_equal(o.model, "x/y");
    assert_int_equal(args_with(&o, err, sizeof(err), "--inspect", NULL), 0);
    assert_int_equal(args_with(&o, err, sizeof(err), "--slots", NULL), -1);
    assert_non_null(strstr(err, "needs a value"));
    assert_int_equal(args_with(&o, err, sizeof(err), "--bogus", NULL), -1);
    assert_non_null(strstr(err, "no option"));
    assert_int_equal(args_with(&o, err, sizeof(err), "slots", "7"), -1);
    assert_int_equal(args_with(&o, err, sizeof(err), "-", NULL), -1);
    assert_int_equal(args_with(&o, err, sizeof(err), "", NULL), -1);
    opts_free(&o);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_step_target),
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_args),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
