/*
 * Would catch: bytes lost, doubled or swapped between queues of one pool, a
 * chunk that is never given back, a full pool that takes half of the bytes.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "fifo.h"

#include <stdlib.h>
#include <string.h>

#define QUEUES 5
#define MODEL  65536

static fifo_pool_t pool;
static fifo_t q[QUEUES];
static uint8_t model[QUEUES][MODEL];
static size_t model_n[QUEUES];

static void
step(unsigned i)
{
    uint8_t buf[4096];
    size_t n, at, k;

    switch (rand() % 8) {
    case 0:
    case 1:
    case 2:
    case 3:
        n = (size_t) rand() % sizeof(buf);
        for (k = 0; k < n; k++) {
            buf[k] = (uint8_t) rand();
        }
        if (model_n[i] + n > MODEL || fifo_put(&pool, &q[i], buf, n) != 0) {
            break;
        }
        memcpy(model[i] + model_n[i], buf, n);
        model_n[i] += n;
        break;
    case 4:
        fifo_clear(&pool, &q[i]);
        model_n[i] = 0;
        break;
    default:
        n = model_n[i] > 0 ? (size_t) rand() % (model_n[i] + 1) : 0;
        n = rand() % 4 == 0 ? n : n % 1500;
        fifo_drop(&pool, &q[i], n);
        memmove(model[i], model[i] + n, model_n[i] - n);
        model_n[i] -= n;
        break;
    }

    assert_int_equal(q[i].len, model_n[i]);
    at = model_n[i] > 0 ? (size_t) rand() % model_n[i] : 0;
    n = model_n[i] - at < sizeof(buf) ? model_n[i] - at : sizeof(buf);
    fifo_copy(&pool, &q[i], at, buf, n);
    assert_memory_equal(buf, model[i] + at, n);
}

static void
test_property(void **state)
{
    unsigned i;

    (void) state;
    srand(5);
    assert_int_equal(fifo_pool_open(&pool, 100000), 0);
    for (i = 0; i < 200000; i++) {
        step(i % QUEUES);
    }
    for (i = 0; i < QUEUES; i++) {
        fifo_clear(&pool, &q[i]);
    }
    assert_int_equal(pool.used, 0);
    fifo_pool_close(&pool);
}

static void
test_full(void **state)
{
    static uint8_t big[100000];
    fifo_t a, b;

    (void) state;
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    assert_int_equal(fifo_pool_open(&pool, 10000), 0);
    assert_int_equal(fifo_put(&pool, &a, "x", 1), 0);
    assert_int_equal(fifo_put(&pool, &b, big, sizeof(big)), -1);
    assert_int_equal(b.len, 0);
    assert_int_equal(pool.used, 1);
    assert_int_equal(fifo_put(&pool, &b, big, 9000), 0);
    assert_int_equal(fifo_put(&pool, &a, big, 4000), -1);
    assert_int_equal(a.len, 1);
    fifo_drop(&pool, &b, 9000);
    assert_int_equal(pool.used, 1);
    assert_int_equal(fifo_put(&pool, &a, big, 4000), 0);

    /* what was freed last is used again first: no new memory is touched */
    fifo_clear(&pool, &a);
    assert_true(pool.fresh <= 10);
    fifo_pool_close(&pool);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_property),
        cmocka_unit_test(test_full),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
