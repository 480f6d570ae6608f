/*
 * Catches: a tenant that has two series, or another's; one that is lost when
 * many workers ask at once; more labels than there is room for; a time in the
 * wrong bucket.
 */
#include "series.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared.h"

static size_t
room_for(size_t n)
{
    return (n * 4 + 63) / 64 * 64 + n * sizeof(llm_series_t);
}


static void
sizes(void **state)
{
    llm_series_table_t t;
    size_t n, size;
    void *mem = memory(room_for(300));

    (void) state;
    for (n = 2; n < 300; n++) {
        assert_int_equal(llm_series_open(&t, mem, room_for(n)), 0);
        assert_int_equal(t.n, n > LLM_SERIES_MAX ? LLM_SERIES_MAX : n);
        assert_int_equal((size_t) t.series % 64, 0);
        size = (size_t) ((char *) (t.series + t.n) - (char *) mem);
        assert_true(size <= room_for(n));
    }
    assert_int_equal(llm_series_open(&t, mem, room_for(2) - 1), -1);
    assert_int_equal(llm_series_open(&t, mem, 0), -1);
    munmap(mem, room_for(300));
}


static void
each_has_one(void **state)
{
    llm_series_table_t t;
    llm_series_t *s[8];
    void *mem = memory(room_for(8));
    uint32_t i, j;

    (void) state;
    assert_int_equal(llm_series_open(&t, mem, room_for(8)), 0);
    for (i = 0; i < 8; i++) {
        s[i] = llm_series_get(&t, i * 1000);
        assert_int_equal(s[i] == &t.series[LLM_SERIES_REST], i >= 6);
        for (j = 0; j < i && i < 6; j++) {
            assert_ptr_not_equal(s[i], s[j]);
        }
    }
    for (i = 0; i < 8; i++) {
        assert_ptr_equal(llm_series_get(&t, i * 1000), s[i]);
    }
    assert_int_equal(llm_series_owner(&t, LLM_SERIES_REST), -1);
    assert_int_equal(llm_series_owner(&t, LLM_SERIES_NONE), -1);
    for (i = 2; i < 8; i++) {
        assert_int_equal(llm_series_owner(&t, i), (i - 2) * 1000);
    }
    assert_int_equal(llm_series_owner(&t, 8), -1);
    munmap(mem, room_for(8));
}


static void
times(void **state)
{
    static const struct {
        uint64_t ms;
        uint32_t bucket;
    } at[] = {{0, 0}, {1, 0}, {2, 1}, {3, 2}, {5, 2}, {6, 3}, {1000, 9},
        {1001, 10}, {300000, LLM_SERIES_BUCKETS - 2},
        {300001, LLM_SERIES_BUCKETS - 1}, {1ull << 40, LLM_SERIES_BUCKETS - 1}};
    llm_series_t s;
    uint32_t i;

    (void) state;
    for (i = 0; i < sizeof at / sizeof at[0]; i++) {
        memset(&s, 0, sizeof s);
        llm_series_time(&s, LLM_SERIES_queue_seconds, at[i].ms, 3);
        assert_int_equal(
            s.times[LLM_SERIES_queue_seconds].counts[at[i].bucket], 3);
        assert_int_equal(s.times[LLM_SERIES_queue_seconds].sum, 3 * at[i].ms);
        assert_int_equal(s.times[LLM_SERIES_first_token_seconds].sum, 0);
    }
    llm_series_end(&s, LLM_SERIES_END_abort);
    assert_int_equal(s.ends[LLM_SERIES_END_abort], 1);
    assert_int_equal(s.ends[LLM_SERIES_END_ok], 0);
}


/* many workers see many tenants for the first time, in orders of their own */
static void
all_at_once(void **state)
{
    enum { WORKERS = 8, TENANTS = 100, ROUNDS = 50 };

    const size_t size = room_for(TENANTS + 2);
    llm_series_table_t t;
    void *mem = memory(size);
    uint32_t i, w, seen[TENANTS] = {0};
    int64_t owner;
    int status;

    (void) state;
    assert_int_equal(llm_series_open(&t, mem, size), 0);
    for (w = 0; w < WORKERS; w++) {
        if (fork() == 0) {
            for (i = 0; i < TENANTS * ROUNDS; i++) {
                llm_series_end(
                    llm_series_get(&t, (i * 7 + w * 13) % TENANTS), 0);
            }
            _exit(0);
        }
    }
    for (w = 0; w < WORKERS; w++) {
        assert_true(wait(&status) > 0 && status == 0);
    }
    for (i = 2; i < t.n; i++) {
        owner = llm_series_owner(&t, i);
        assert_in_range(owner, 0, TENANTS - 1);
        assert_int_equal(seen[owner]++, 0);
        assert_int_equal(t.series[i].ends[0], WORKERS * ROUNDS);
    }
    assert_int_equal(t.series[LLM_SERIES_REST].ends[0], 0);
    munmap(mem, size);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(each_has_one),
        cmocka_unit_test(times),
        cmocka_unit_test(all_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
