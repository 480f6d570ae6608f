/*
 * Catches: a row that two owners have at once, or that is lost when its owner
 * is killed, whatever it was doing; a request that is written down by nobody,
 * or twice without being marked; one that is settled twice, or otherwise than
 * it was used.
 */
#include "rows.h"

#include <setjmp.h>
#include <signal.h>
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

#define SECOND 1000000000ull
#define NOW    (1795600000ull * SECOND)

static int
never_dead(void *arg, llm_owner_t owner)
{
    (void) arg;
    (void) owner;
    return 0;
}


static int
is_dead(void *arg, llm_owner_t owner)
{
    return *(const llm_owner_t *) arg == owner;
}


static void
a_life(void **state)
{
    enum { N = 5 };

    const size_t size = N * sizeof(llm_row_t) + 100;
    const llm_owner_t me = llm_owner(4000000, 123456789), other = 77;
    llm_rows_t t;
    llm_row_t *row[N + 1];
    uint32_t at, i, account;
    int again;
    void *mem = memory(size);

    (void) state;
    assert_int_equal(llm_owner_pid(me), 4000000);
    assert_int_equal(llm_owner_started(me), 123456789);
    assert_int_equal(llm_rows_open(&t, mem, 10), -1);
    assert_int_equal(llm_rows_open(&t, mem, size), 0);
    assert_int_equal(t.n, N);

    for (i = 0; i < N; i++) {
        row[i] = llm_rows_claim(&t, me);
        assert_non_null(row[i]);
        row[i]->payers[0].used = 1;
        row[i]->payers[0].account = i % 2;
        llm_row_open(row[i]);
    }
    assert_null(llm_rows_claim(&t, me));
    for (i = 0; i < N; i++) {
        assert_int_equal(llm_rows_tenant(&t, i, &account), 1);
        assert_int_equal(account, i % 2);
    }

    llm_row_close(row[2]);
    assert_int_equal(llm_rows_tenant(&t, 2, &account), 0);
    llm_row_free(row[2]);
    row[N] = llm_rows_claim(&t, other);
    assert_ptr_equal(row[N], row[2]);
    assert_int_equal(row[N]->payers[0].used, 0);

    /* nobody is dead: nobody's row is taken */
    at = 0;
    assert_null(llm_rows_recover(&t, &at, other, never_dead, NULL, &again));
    assert_int_equal(at, N);

    /* BUSY is freed, OPEN and CLOSING are handed over, one after another */
    llm_row_free(row[N]);
    row[N] = llm_rows_claim(&t, me);
    llm_row_close(row[4]);
    for (at = 0, i = 0; llm_rows_recover(
             &t, &at, other, is_dead, (void *) (uintptr_t) &me, &again);
         i++) {
        assert_int_equal(again, at == 5);
        assert_int_equal(t.rows[at - 1].owner, other);
        assert_int_equal(t.rows[at - 1].state, LLM_ROW_CLOSING);
        llm_row_free(&t.rows[at - 1]);
    }
    assert_int_equal(i, N - 1);
    for (i = 0; i < N; i++) {
        assert_int_equal(t.rows[i].owner, 0);
        assert_int_equal(t.rows[i].state, LLM_ROW_FREE);
    }
    munmap(mem, size);
}


/* what an administrator does: look at rows, and mark one */
static void
looking(void **state)
{
    enum { N = 4 };

    const size_t size = N * sizeof(llm_row_t);
    llm_row_t *row[N], copy;
    llm_rows_t t;
    uint32_t i;
    char id[LLM_ROW_ID_MAX + 8];
    void *mem = memory(size);

    (void) state;
    assert_int_equal(llm_rows_open(&t, mem, size), 0);
    for (i = 0; i < N; i++) {
        row[i] = llm_rows_claim(&t, 7);
        assert_int_equal(llm_rows_copy(&t, i, &copy), 0);
        snprintf(row[i]->id, sizeof(row[i]->id), "%s", i < 2 ? "same" : "id");
        row[i]->prompt = i;
        llm_row_open(row[i]);
        assert_int_equal(llm_rows_copy(&t, i, &copy), 1);
        assert_int_equal(copy.prompt, i);
    }
    assert_int_equal(llm_rows_cancel(&t, "sam", 3), 0);
    assert_int_equal(llm_rows_cancel(&t, "same!", 5), 0);
    assert_int_equal(llm_rows_cancel(&t, "", 0), 0);
    assert_int_equal(llm_rows_cancel(&t, "same", 4), 2);
    assert_int_equal(row[1]->cancel, 1);
    assert_int_equal(row[2]->cancel, 0);
    llm_row_close(row[2]);
    assert_int_equal(llm_rows_cancel(&t, "id", 2), 1);
    llm_row_free(row[2]);
    assert_int_equal(llm_rows_copy(&t, 2, &copy), 0);

    /* the longest one there is, and one that no row can have */
    memset(id, 'x', sizeof(id));
    memcpy(row[3]->id, id, LLM_ROW_ID_MAX);
    row[3]->id[LLM_ROW_ID_MAX] = '\0';
    assert_int_equal(llm_rows_cancel(&t, id, LLM_ROW_ID_MAX), 1);
    assert_int_equal(llm_rows_cancel(&t, id, sizeof(id)), 0);
    assert_int_equal(llm_rows_cancel(&t, id, sizeof(id) - 1), 0);
    munmap(mem, size);
}


static void
settling(void **state)
{
    const size_t size = 1 << 16;
    const llm_owner_t me = 5;
    llm_ledger_t l;
    llm_rows_t t;
    llm_row_t *row;
    llm_account_t *acc;
    llm_payer_t payer;
    llm_limits_t limits;
    llm_refusal_of_t why;
    llm_periods_t p;
    void *mem = memory(size), *rows = memory(size);

    (void) state;
    memset(&limits, 0, sizeof(limits));
    limits.day = 1000 * LLM_LEDGER_UNIT;
    llm_periods((int64_t) (NOW / SECOND), &p);
    assert_int_equal(llm_ledger_open(&l, mem, size), 0);
    assert_int_equal(llm_rows_open(&t, rows, size), 0);
    acc = llm_ledger_account(&l, LLM_ACCOUNT_TENANT, "a", 1);
    payer.account = acc;
    payer.limits = &limits;

    row = llm_rows_claim(&t, me);
    row->payers[0].used = 1;
    row->payers[0].account = (uint32_t) (acc - l.accounts);
    row->payers[0].limits = limits;
    row->payers[1].used = 1;
    row->payers[1].account = 0xffffffff; /* nonsense is not followed */
    row->weights[0] = 1000;
    row->weights[1] = 250;
    row->weights[2] = 2000;
    row->reserved = 300 * LLM_LEDGER_UNIT;
    row->reserved_at = NOW;
    assert_int_equal(llm_ledger_reserve(&payer, 1, row->reserved, NOW, &why),
        LLM_METER_TAKEN);
    assert_int_equal(llm_budget_used(&acc->day, p.day), 300000);
    llm_row_open(row);
    row->prompt = 100;
    row->cached = 40;
    row->completion = 50;
    assert_int_equal(llm_row_cost(row), 60 * 1000 + 40 * 250 + 50 * 2000);
    llm_row_close(row);
    llm_row_settle(row, &l);
    assert_int_equal(llm_budget_used(&acc->day, p.day), 170000);
    llm_row_settle(row, &l);
    assert_int_equal(llm_budget_used(&acc->day, p.day), 170000);

    /* counts that cannot be cost what was reserved, no more */
    row->cached = 1000;
    row->completion = 0xffffffff;
    assert_int_equal(llm_row_cost(row), row->reserved);
    munmap(mem, size);
    munmap(rows, size);
}


/*
 * Workers take, fill, open, close and free rows and note in a log of their own
 * what they wrote down; they are killed at random, and whoever comes next
 * recovers.  Each request that was opened is in the log once, or twice if it
 * was marked.
 */
enum { LOG = 1 << 16, ROUNDS = 300 };

static struct {
    uint32_t opened[LOG];  /* by request number */
    uint32_t written[LOG]; /* times */
    uint32_t again[LOG];   /* of them, marked */
    uint32_t number;
} * book;

static int
gone(void *arg, llm_owner_t owner)
{
    (void) arg;
    return kill((pid_t) llm_owner_pid(owner), 0) != 0;
}


static void
write_down(llm_row_t *row, int again)
{
    uint32_t n = (uint32_t) strtoul(row->id, NULL, 10);

    if (again) {
        __atomic_add_fetch(&book->again[n % LOG], 1, __ATOMIC_RELAXED);
    }
    __atomic_add_fetch(&book->written[n % LOG], 1, __ATOMIC_RELAXED);
}


static void
recover(llm_rows_t *t, llm_owner_t self)
{
    llm_row_t *row;
    uint32_t at = 0;
    int again;

    while ((row = llm_rows_recover(t, &at, self, gone, NULL, &again))) {
        write_down(row, again);
        llm_row_free(row);
    }
}


static void
worker(void *mem, size_t size, uint32_t seed)
{
    const llm_owner_t self = llm_owner(getpid(), 0);
    llm_row_t *open[8] = {0};
    llm_rows_t t;
    uint32_t n, i;

    if (llm_rows_open(&t, mem, size) != 0) {
        _exit(1);
    }
    for (;;) {
        recover(&t, self);
        for (i = 0; i < 20; i++) {
            seed = seed * 1664525 + 1013904223;
            n = (seed >> 16) % 8;
            if (open[n] != NULL) {
                llm_row_close(open[n]);
                write_down(open[n], 0);
                llm_row_free(open[n]);
                open[n] = NULL;
                continue;
            }
            open[n] = llm_rows_claim(&t, self);
            if (open[n] == NULL) {
                continue;
            }
            snprintf(open[n]->id, sizeof(open[n]->id), "%u",
                __atomic_add_fetch(&book->number, 1, __ATOMIC_RELAXED) % LOG);
            llm_row_open(open[n]);
            __atomic_store_n(&book->opened[strtoul(open[n]->id, NULL, 10)], 1,
                __ATOMIC_RELAXED);
            usleep(20);
        }
    }
}


static void
kills(void **state)
{
    enum { PROCS = 3 };

    const size_t size = 40 * sizeof(llm_row_t);
    void *mem = memory(size);
    pid_t pid[PROCS];
    llm_rows_t t;
    uint32_t i, lost = 0, extra = 0, opened = 0;
    int st;

    (void) state;
    book = memory(sizeof(*book));
    memset(pid, 0, sizeof(pid));
    for (i = 0; i < ROUNDS; i++) {
        if (pid[i % PROCS] > 0) {
            kill(pid[i % PROCS], SIGKILL);
            assert_int_equal(waitpid(pid[i % PROCS], &st, 0), pid[i % PROCS]);
            assert_true(WIFSIGNALED(st));
        }
        pid[i % PROCS] = fork();
        assert_true(pid[i % PROCS] >= 0);
        if (pid[i % PROCS] == 0) {
            worker(mem, size, i);
        }
        usleep(1000 + (i * 7919) % 2000);
    }
    for (i = 0; i < PROCS; i++) {
        kill(pid[i], SIGKILL);
        waitpid(pid[i], &st, 0);
    }
    assert_int_equal(llm_rows_open(&t, mem, size), 0);
    recover(&t, llm_owner(getpid(), 0));

    for (i = 0; i < t.n; i++) {
        assert_int_equal(t.rows[i].owner, 0);
        assert_int_equal(t.rows[i].state, LLM_ROW_FREE);
    }
    assert_true(book->number > 1000 && book->number < LOG);
    for (i = 0; i < LOG; i++) {
        opened += book->opened[i];
        lost += book->opened[i] && book->written[i] == 0;
        extra += book->written[i] > 1 + book->again[i];
    }
    assert_true(opened > 1000);
    assert_int_equal(lost, 0);
    assert_int_equal(extra, 0);
    munmap(mem, size);
    munmap(book, sizeof(*book));
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_life),
        cmocka_unit_test(looking),
        cmocka_unit_test(settling),
        cmocka_unit_test(kills),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
