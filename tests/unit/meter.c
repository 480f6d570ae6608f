/*
 * Catches: a bucket that lets more through in some window than its rate and
 * burst allow, or less than it should; a refusal whose wait is too short or
 * too long; takers on several cores that together get more than there is;
 * what is given back being more or less than what was taken; a clock set back
 * that empties a bucket for longer than its burst; a budget that does not
 * begin anew, or counts in the wrong period; months of the wrong length.
 */
#include "meter.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define SECOND 1000000000ull
#define NOW    (1795600000ull * SECOND)

static uint64_t seed;

static uint64_t
draw(uint64_t n)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (seed >> 33) % n;
}


static void
bucket_by_hand(void **state)
{
    const llm_rate_t rate = {60, 10}; /* one a second */
    uint64_t word = 0, wait = 0, left, full, i;

    (void) state;
    llm_bucket_look(&word, &rate, NOW, &left, &full);
    assert_int_equal(left, 10);
    assert_int_equal(full, 0);

    for (i = 0; i < 10; i++) {
        assert_int_equal(
            llm_bucket_take(&word, &rate, 1, NOW, &wait), LLM_METER_TAKEN);
        llm_bucket_look(&word, &rate, NOW, &left, &full);
        assert_int_equal(left, 9 - i);
        assert_int_equal(full, (i + 1) * SECOND);
    }
    assert_int_equal(
        llm_bucket_take(&word, &rate, 1, NOW, &wait), LLM_METER_LATER);
    assert_int_equal(wait, SECOND);
    assert_int_equal(
        llm_bucket_take(&word, &rate, 3, NOW, &wait), LLM_METER_LATER);
    assert_int_equal(wait, 3 * SECOND);
    assert_int_equal(
        llm_bucket_take(&word, &rate, 11, NOW, &wait), LLM_METER_NEVER);

    /* exactly then, and no sooner */
    assert_int_equal(
        llm_bucket_take(&word, &rate, 3, NOW + 3 * SECOND - 1, &wait),
        LLM_METER_LATER);
    assert_int_equal(wait, 1);
    assert_int_equal(llm_bucket_take(&word, &rate, 3, NOW + 3 * SECOND, &wait),
        LLM_METER_TAKEN);

    /* it never holds more than its burst */
    llm_bucket_look(&word, &rate, NOW + 1000 * SECOND, &left, &full);
    assert_int_equal(left, 10);
}


static void
no_bucket(void **state)
{
    const llm_rate_t none = {0, 0};
    uint64_t word = 0, wait;
    int i;

    (void) state;
    for (i = 0; i < 100; i++) {
        assert_int_equal(
            llm_bucket_take(&word, &none, LLM_METER_MAX, NOW, &wait),
            LLM_METER_TAKEN);
    }
    llm_bucket_give(&word, &none, 5, 0);
    assert_int_equal(word, 0);
}


/*
 * Random takers and clocks: over any window that begins at a take, at most
 * burst + rate * time; and what is refused would have passed that.
 */
static void
bucket_window(void **state)
{
    enum { N = 400 };

    static uint64_t at[N], got[N];
    uint64_t word, wait, now, n, sum, allowed;
    llm_rate_t rate;
    int round, i, j, k;

    (void) state;
    for (round = 0; round < 200; round++) {
        seed = (uint64_t) round;
        rate.limit = 1 + draw(round % 2 ? 100 : 3000000);
        rate.burst = 1 + draw(2 * rate.limit);
        word = 0;
        now = NOW;
        for (i = 0, k = 0; i < N; i++) {
            now += draw(4) ? draw(60 * SECOND / rate.limit * 3 + 2) : 0;
            n = 1 + draw(rate.burst);
            n = draw(3) ? 1 + n / 10 : n;
            n = n > rate.burst ? rate.burst : n;
            switch (llm_bucket_take(&word, &rate, n, now, &wait)) {
            case LLM_METER_TAKEN:
                at[k] = now;
                got[k++] = n;
                break;
            case LLM_METER_LATER:
                /* just long enough: it is there then, not two before */
                assert_true(wait > 0);
                {
                    uint64_t copy = word, w;
                    assert_int_equal(
                        llm_bucket_take(&copy, &rate, n, now + wait, &w),
                        LLM_METER_TAKEN);
                    copy = word;
                    assert_int_equal(
                        llm_bucket_take(&copy, &rate, n, now + wait - 1, &w),
                        LLM_METER_LATER);
                }
                break;
            default:
                fail();
            }
        }
        assert_true(k > 0);
        for (i = 0; i < k; i++) {
            for (sum = 0, j = i; j < k; j++) {
                sum += got[j];
                allowed = rate.burst
                          + (uint64_t) ((unsigned __int128) (at[j] - at[i])
                                        * rate.limit / (60 * SECOND));
                assert_true(sum <= allowed + 1);
            }
        }
    }
}


/* Never used, whatever was taken: the word is as if it had been so. */
static void
bucket_give(void **state)
{
    llm_rate_t rate;
    uint64_t a, b, wait, n, used, now = NOW;
    int i;

    (void) state;
    seed = 7;
    for (i = 0; i < 2000; i++) {
        rate.limit = 1 + draw(1000000);
        rate.burst = 1 + draw(1000000);
        a = b = draw(2) ? 0 : now + draw(SECOND);
        n = 1 + draw(rate.burst);
        used = draw(n + 1);
        if (llm_bucket_take(&a, &rate, n, now, &wait) != LLM_METER_TAKEN) {
            assert_int_equal(a, b);
            continue;
        }
        llm_bucket_give(&a, &rate, n, used);
        if (used > 0) {
            assert_int_equal(
                llm_bucket_take(&b, &rate, used, now, &wait), LLM_METER_TAKEN);
        } else if (b < now) {
            b = now;
        }
        assert_int_equal(a, b);
        llm_bucket_give(&a, &rate, n, n + 5);
        assert_int_equal(a, b);
    }
}


static void
clock_back(void **state)
{
    const llm_rate_t rate = {60, 10};
    uint64_t word = 0, wait, left, full;

    (void) state;
    assert_int_equal(
        llm_bucket_take(&word, &rate, 10, NOW, &wait), LLM_METER_TAKEN);
    llm_bucket_look(&word, &rate, NOW - 3600 * SECOND, &left, &full);
    assert_int_equal(left, 0);
    assert_int_equal(full, 10 * SECOND);
    assert_int_equal(
        llm_bucket_take(&word, &rate, 1, NOW - 3600 * SECOND, &wait),
        LLM_METER_LATER);
    assert_int_equal(wait, SECOND);
    /* from then on it fills */
    assert_int_equal(
        llm_bucket_take(&word, &rate, 5, NOW - 3595 * SECOND, &wait),
        LLM_METER_TAKEN);
    assert_int_equal(
        llm_bucket_take(&word, &rate, 1, NOW - 3595 * SECOND, &wait),
        LLM_METER_LATER);

    /* two workers whose clocks differ a little: no more than before */
    assert_int_equal(
        llm_bucket_take(&word, &rate, 1, NOW - 3595 * SECOND - 1000, &wait),
        LLM_METER_LATER);
    assert_int_equal(wait, SECOND + 1000);
}


static void
budget(void **state)
{
    uint64_t word = 0;

    (void) state;
    assert_int_equal(llm_budget_used(&word, 5), 0);
    assert_int_equal(llm_budget_take(&word, 100, 101, 5), LLM_METER_NEVER);
    assert_int_equal(llm_budget_take(&word, 100, 60, 5), LLM_METER_TAKEN);
    assert_int_equal(llm_budget_take(&word, 100, 41, 5), LLM_METER_LATER);
    assert_int_equal(llm_budget_take(&word, 100, 40, 5), LLM_METER_TAKEN);
    assert_int_equal(llm_budget_used(&word, 5), 100);
    llm_budget_give(&word, 40, 15, 5);
    assert_int_equal(llm_budget_used(&word, 5), 75);

    /* a new period, and a settlement of the old one */
    assert_int_equal(llm_budget_take(&word, 100, 30, 6), LLM_METER_TAKEN);
    llm_budget_give(&word, 60, 0, 5);
    assert_int_equal(llm_budget_used(&word, 6), 30);
    assert_int_equal(llm_budget_used(&word, 7), 0);

    /* a clock that was set back uses the later period's */
    assert_int_equal(llm_budget_take(&word, 100, 71, 5), LLM_METER_LATER);
    assert_int_equal(llm_budget_take(&word, 100, 70, 5), LLM_METER_TAKEN);
    assert_int_equal(llm_budget_used(&word, 6), 100);

    /* without a limit it only counts, and never over its end */
    word = 0;
    assert_int_equal(
        llm_budget_take(&word, 0, LLM_BUDGET_MAX, 9), LLM_METER_TAKEN);
    assert_int_equal(
        llm_budget_take(&word, 0, LLM_BUDGET_MAX, 9), LLM_METER_TAKEN);
    assert_int_equal(
        llm_budget_take(&word, 0, LLM_BUDGET_MAX, 9), LLM_METER_TAKEN);
    assert_int_equal(llm_budget_used(&word, 9), (1ull << 48) - 1);
}


enum { THREADS = 4, TURNS = 50000 };

static struct {
    uint64_t bucket, budget;
    uint64_t taken, spent;
} shared;

static const llm_rate_t CROWD = {600, 70000};

static void *
crowd(void *arg)
{
    uint64_t x = (uint64_t) (uintptr_t) arg, n, used, wait;
    int i;

    for (i = 0; i < TURNS; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        n = 1 + (x >> 40) % 5;
        used = (x >> 50) % (n + 1);
        if (llm_bucket_take(&shared.bucket, &CROWD, n, NOW, &wait)
            == LLM_METER_TAKEN) {
            llm_bucket_give(&shared.bucket, &CROWD, n, used);
            __atomic_add_fetch(&shared.taken, used, __ATOMIC_RELAXED);
        }
        if (llm_budget_take(&shared.budget, 80000, n, 3) == LLM_METER_TAKEN) {
            llm_budget_give(&shared.budget, n, used, 3);
            __atomic_add_fetch(&shared.spent, used, __ATOMIC_RELAXED);
        }
    }
    return NULL;
}


static void
many_takers(void **state)
{
    pthread_t t[THREADS];
    uint64_t left, full;
    uintptr_t i;

    (void) state;
    for (i = 0; i < THREADS; i++) {
        assert_int_equal(
            pthread_create(&t[i], NULL, crowd, (void *) (i + 1)), 0);
    }
    for (i = 0; i < THREADS; i++) {
        pthread_join(t[i], NULL);
    }
    /* exact, whatever came between */
    llm_bucket_look(&shared.bucket, &CROWD, NOW, &left, &full);
    assert_int_equal(left, CROWD.burst - shared.taken);
    assert_int_equal(llm_budget_used(&shared.budget, 3), shared.spent);
    assert_true(shared.taken > CROWD.burst - 5);
    assert_true(shared.spent > 80000 - 5 && shared.spent <= 80000);
}


static void
periods(void **state)
{
    llm_periods_t p;
    struct tm tm;
    time_t t, first;

    (void) state;
    for (t = 0; t < (time_t) 5000000000; t += 86400 * 3 + 12345) {
        llm_periods(t, &p);
        gmtime_r(&t, &tm);
        assert_int_equal(p.day, t / 86400 + 1);
        assert_int_equal(p.month, (tm.tm_year - 70) * 12 + tm.tm_mon + 1);
        assert_int_equal(p.next_day, (t / 86400 + 1) * 86400);
        tm.tm_mon++;
        tm.tm_mday = 1;
        tm.tm_hour = tm.tm_min = tm.tm_sec = 0;
        first = timegm(&tm);
        assert_int_equal(p.next_month, first);
        llm_periods(first, &p);
        gmtime_r(&first, &tm);
        assert_int_equal(p.month, (tm.tm_year - 70) * 12 + tm.tm_mon + 1);
        llm_periods(first - 1, &p);
        assert_int_equal(p.next_month, first);
    }
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bucket_by_hand),
        cmocka_unit_test(no_bucket),
        cmocka_unit_test(bucket_window),
        cmocka_unit_test(bucket_give),
        cmocka_unit_test(clock_back),
        cmocka_unit_test(budget),
        cmocka_unit_test(many_takers),
        cmocka_unit_test(periods),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
