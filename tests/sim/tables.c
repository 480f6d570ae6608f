/*
 * What must hold, part by part: counted as it is looked at, and told at the
 * part's end with its verdict.
 */
#include "tables.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { VERDICTS = 64 };

static struct {
    const char *what; /* borrowed: a literal */
    unsigned n, bad;
} verdicts[VERDICTS];

static unsigned verdicts_n;


int
table_expect(int ok, const char *what)
{
    unsigned i = 0;

    while (i < verdicts_n && strcmp(verdicts[i].what, what) != 0) {
        i++;
    }
    if (i == verdicts_n) {
        assert(verdicts_n < VERDICTS);
        verdicts[i].what = what;
        verdicts[i].n = verdicts[i].bad = 0;
        verdicts_n++;
    }
    verdicts[i].n++;
    verdicts[i].bad += !ok;
    if (!ok) {
        printf("  NOT SO: %s\n", what);
    }

    return !ok;
}


void
table_verdicts(void)
{
    unsigned i;

    for (i = 0; i < verdicts_n; i++) {
        printf(
            "  %-6s %s", verdicts[i].bad ? "FAILED" : "ok", verdicts[i].what);
        if (verdicts[i].n > 1) {
            printf(
                " (%u of %u)", verdicts[i].n - verdicts[i].bad, verdicts[i].n);
        }
        printf("\n");
    }
    verdicts_n = 0;
}
