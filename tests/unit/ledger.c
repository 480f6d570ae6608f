/*
 * Catches: two accounts of one name, however many processes ask for it at
 * once and are killed in the middle; a refusal by one payer that costs another
 * something; a settlement that does not come out even; a file of another
 * version or size that is taken for ours; a table that is written beside.
 */
#include "ledger.h"

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

static void
opening(void **state)
{
    const size_t size = 1 << 20;
    char *mem = memory(size);
    llm_ledger_t a, b;

    (void) state;
    assert_int_equal(llm_ledger_open(&a, mem, 1000), -1);
    assert_int_equal(llm_ledger_open(&a, mem, size), 0);
    assert_int_equal(a.mask + 1, 4096);
    assert_true((char *) &a.accounts[a.mask + 1] <= mem + size);
    assert_int_equal(llm_ledger_open(&b, mem, size), 0);
    assert_int_equal(llm_ledger_open(&b, mem, size / 2), -1);
    a.head->version++;
    assert_int_equal(llm_ledger_open(&b, mem, size), -1);
    a.head->version--;
    mem[0] ^= 1;
    assert_int_equal(llm_ledger_open(&b, mem, size), -1);
    munmap(mem, size);
}


static void
accounts(void **state)
{
    const size_t size = 1 << 18;
    llm_account_t *acc, *again;
    llm_ledger_t l;
    char name[80];
    void *mem = memory(size);
    int i, full = 0;

    (void) state;
    assert_int_equal(llm_ledger_open(&l, mem, size), 0);
    acc = llm_ledger_account(&l, LLM_ACCOUNT_TENANT, "acme", 4);
    assert_non_null(acc);
    assert_string_equal(acc->name, "acme");
    assert_int_equal(acc->kind, LLM_ACCOUNT_TENANT);
    again = llm_ledger_account(&l, LLM_ACCOUNT_TENANT, "acme!", 4);
    assert_ptr_equal(acc, again);
    again = llm_ledger_account(&l, LLM_ACCOUNT_KEY, "acme", 4);
    assert_ptr_not_equal(acc, again);
    again = llm_ledger_account(&l, LLM_ACCOUNT_TENANT, "acm", 3);
    assert_ptr_not_equal(acc, again);

    /* the longest name, and a table that overflows */
    memset(name, 'x', sizeof(name));
    acc = llm_ledger_account(&l, LLM_ACCOUNT_TENANT, name, LLM_KEY_NAME_MAX);
    assert_int_equal(strlen(acc->name), LLM_KEY_NAME_MAX);
    for (i = 0; i < 3000; i++) {
        snprintf(name, sizeof(name), "t%d", i);
        acc = llm_ledger_account(&l, LLM_ACCOUNT_TENANT, name, strlen(name));
        full += acc == NULL;
        if (acc != NULL) {
            assert_string_equal(acc->name, name);
            again =
                llm_ledger_account(&l, LLM_ACCOUNT_TENANT, name, strlen(name));
            assert_ptr_equal(acc, again);
        }
    }
    assert_true(full >= 3000 - 1024 && full < 3000 - 900);
    acc = llm_ledger_account(&l, LLM_ACCOUNT_TENANT, "acme", 4);
    assert_string_equal(acc->name, "acme");
    munmap(mem, size);
}


/* Tenant and key, with limits of their own. */
typedef struct {
    llm_ledger_t l;
    llm_limits_t limits[2];
    llm_payer_t payer[2];
} pair_t;

static void
pair(pair_t *p, void *mem, size_t size)
{
    memset(p, 0, sizeof(*p));
    assert_int_equal(llm_ledger_open(&p->l, mem, size), 0);
    p->payer[0].account =
        llm_ledger_account(&p->l, LLM_ACCOUNT_TENANT, "acme", 4);
    p->payer[1].account = llm_ledger_account(&p->l, LLM_ACCOUNT_KEY, "ci", 2);
    p->payer[0].limits = &p->limits[0];
    p->payer[1].limits = &p->limits[1];
}


static void
untouched(const llm_account_t *a, const llm_account_t *was)
{
    uint64_t left, full, left_was, full_was;
    const llm_rate_t rate = {600, 600};

    llm_bucket_look(&a->requests, &rate, NOW, &left, &full);
    llm_bucket_look(&was->requests, &rate, NOW, &left_was, &full_was);
    assert_int_equal(full, full_was);
    llm_bucket_look(&a->tokens, &rate, NOW, &left, &full);
    llm_bucket_look(&was->tokens, &rate, NOW, &left_was, &full_was);
    assert_int_equal(full, full_was);
    assert_int_equal(a->day & 0xffffffffffffull, was->day & 0xffffffffffffull);
    assert_int_equal(
        a->month & 0xffffffffffffull, was->month & 0xffffffffffffull);
}


/* Each limit of each payer refuses once; nobody has lost anything then. */
static void
all_or_nothing(void **state)
{
    const size_t size = 1 << 16;
    llm_account_t was[2];
    llm_refusal_of_t why;
    uint32_t who, what;
    void *mem;
    pair_t p;

    (void) state;
    for (who = 0; who < 2; who++) {
        for (what = LLM_LIMIT_TOKENS; what <= LLM_LIMIT_MONTH; what++) {
            mem = memory(size);
            pair(&p, mem, size);
            p.limits[0].tokens = p.limits[1].tokens = (llm_rate_t){600, 600};
            p.limits[0].day = p.limits[1].day = 1000;
            p.limits[0].month = p.limits[1].month = 2000;
            if (what == LLM_LIMIT_TOKENS) {
                p.limits[who].tokens.burst = 150;
            } else if (what == LLM_LIMIT_DAY) {
                p.limits[who].day = 150;
            } else {
                p.limits[who].month = 150;
            }
            assert_int_equal(llm_ledger_reserve(p.payer, 2, 100, NOW, &why),
                LLM_METER_TAKEN);
            was[0] = *p.payer[0].account;
            was[1] = *p.payer[1].account;
            memset(&why, 0, sizeof(why));
            assert_int_equal(llm_ledger_reserve(p.payer, 2, 100, NOW, &why),
                LLM_METER_LATER);
            assert_int_equal(why.payer, who);
            assert_int_equal(why.limit, what);
            assert_true(why.wait > 0 && why.wait <= 31 * 86400 * SECOND);
            untouched(p.payer[0].account, &was[0]);
            untouched(p.payer[1].account, &was[1]);

            /* never, and that costs nothing either */
            assert_int_equal(llm_ledger_reserve(p.payer, 2, 151, NOW, &why),
                LLM_METER_NEVER);
            untouched(p.payer[0].account, &was[0]);
            untouched(p.payer[1].account, &was[1]);

            /* what was not used comes back */
            llm_ledger_settle(p.payer, 2, 100, 30, NOW);
            assert_int_equal(llm_ledger_reserve(p.payer, 2, 100, NOW, &why),
                LLM_METER_TAKEN);
            munmap(mem, size);
        }
    }
}


/* what is granted counts on top of the limit, until its period ends */
static void
granted(void **state)
{
    const size_t size = 1 << 16;
    llm_refusal_of_t why;
    llm_periods_t now;
    pair_t p;
    void *mem = memory(size);

    (void) state;
    pair(&p, mem, size);
    p.limits[0].day = 100;
    llm_periods(NOW / SECOND, &now);
    assert_int_equal(llm_ledger_reserve(p.payer, 2, 80, NOW, &why), 1);
    assert_int_equal(llm_ledger_reserve(p.payer, 2, 30, NOW, &why), 0);
    assert_int_equal(llm_ledger_reserve(p.payer, 2, 130, NOW, &why), -1);
    llm_budget_take(&p.payer[0].account->day_granted, 0, 100, now.day);
    assert_int_equal(llm_ledger_reserve(p.payer, 2, 130, NOW, &why), 0);
    assert_int_equal(llm_ledger_reserve(p.payer, 2, 120, NOW, &why), 1);
    assert_int_equal(llm_ledger_reserve(p.payer, 2, 1, NOW, &why), 0);
    assert_int_equal(why.limit, LLM_LIMIT_DAY);
    assert_int_equal(
        llm_ledger_reserve(p.payer, 2, 101, NOW + 86400 * SECOND, &why), -1);
    assert_int_equal(
        llm_ledger_reserve(p.payer, 2, 100, NOW + 86400 * SECOND, &why), 1);

    /* nothing is granted where there is no limit: there is no limit */
    p.limits[0].day = 0;
    assert_int_equal(llm_ledger_reserve(p.payer, 2, 1000, NOW, &why), 1);
    munmap(mem, size);
}


static void
asking(void **state)
{
    const size_t size = 1 << 16;
    void *mem = memory(size);
    llm_refusal_of_t why;
    llm_account_t was;
    pair_t p;
    int i;

    (void) state;
    pair(&p, mem, size);
    p.limits[0].requests = (llm_rate_t){600, 600};
    p.limits[1].requests = (llm_rate_t){60, 3};
    for (i = 0; i < 3; i++) {
        assert_int_equal(
            llm_ledger_ask(p.payer, 2, NOW, &why), LLM_METER_TAKEN);
    }
    was = *p.payer[0].account;
    assert_int_equal(llm_ledger_ask(p.payer, 2, NOW, &why), LLM_METER_LATER);
    assert_int_equal(why.payer, 1);
    assert_int_equal(why.limit, LLM_LIMIT_REQUESTS);
    assert_int_equal(why.wait, SECOND);
    untouched(p.payer[0].account, &was);
    munmap(mem, size);
}


/*
 * Workers are killed at random while they ask for accounts, reserve and
 * settle.  What is left over is at most one reservation for each of them.
 */
static void
kills(void **state)
{
    enum { WORKERS = 200, COST = 50 };

    const size_t size = 1 << 20;
    void *mem = memory(size);
    llm_refusal_of_t why;
    llm_account_t *acc;
    uint64_t *spent = memory(4096), used;
    uint32_t i, j, found;
    llm_periods_t periods;
    char name[16];
    pair_t p;
    pid_t pid;
    int st;

    (void) state;
    for (i = 0; i < WORKERS; i++) {
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            for (j = i;; j++) {
                pair(&p, mem, size);
                snprintf(name, sizeof(name), "t%u", j % 500);
                p.payer[0].account = llm_ledger_account(
                    &p.l, LLM_ACCOUNT_TENANT, name, strlen(name));
                llm_ledger_reserve(p.payer, 2, COST, NOW, &why);
                __atomic_add_fetch(spent, j % COST, __ATOMIC_RELAXED);
                llm_ledger_settle(p.payer, 2, COST, j % COST, NOW);
            }
        }
        usleep(500 + (i * 7919) % 1500);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &st, 0), pid);
    }

    pair(&p, mem, size);
    for (i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "t%u", i);
        for (j = 0, found = 0; j <= p.l.mask; j++) {
            acc = &p.l.accounts[j];
            found +=
                acc->kind == LLM_ACCOUNT_TENANT && strcmp(acc->name, name) == 0;
        }
        assert_true(found <= 1);
        acc = llm_ledger_account(&p.l, LLM_ACCOUNT_TENANT, name, strlen(name));
        assert_string_equal(acc->name, name);
    }
    llm_periods((int64_t) (NOW / SECOND), &periods);
    used = llm_budget_used(&p.payer[1].account->day, periods.day);
    assert_true(*spent > 0);
    assert_true(used + WORKERS * COST >= *spent);
    assert_true(used <= *spent + WORKERS * COST);
    munmap(mem, size);
    munmap(spent, 4096);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening),
        cmocka_unit_test(accounts),
        cmocka_unit_test(all_or_nothing),
        cmocka_unit_test(granted),
        cmocka_unit_test(asking),
        cmocka_unit_test(kills),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
