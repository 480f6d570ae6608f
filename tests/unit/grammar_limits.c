/*
 * Would catch: a grammar that takes more memory than it may, however it is
 * made to, or goes on long after its time is up: a loop over input that does
 * not ask for the time, memory that is not counted.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "clock.h"
#include "grammar_test.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TEXT_MAX 1000000
#define TIME_US  30000  /* that each has */
#define OVER_US  250000 /* behind it, ten times what a quiet machine takes */
#define OVER_MIB 112    /* what a grammar may hold, and what malloc adds */

static char err[600];
static char s[TEXT_MAX + 1000];

typedef grammar_t *(*open_t)(const char *s, size_t len, const grammar_opts_t *o,
    char *err, size_t errlen);

/*
 * Texts: a head, a part as often as there is room, at most most times, with its
 * number wherever it has %u, what is between two, and an end.
 */
static const struct {
    const char *name;
    open_t open;
    const char *head, *part, *between, *end;
    unsigned most;
} texts[] = {
    {"enum", grammar_open_schema, "{\"enum\":[", "\"v%u\"", ",", "]}", 200000},
    {"two enums", grammar_open_schema, "{\"allOf\":[{\"enum\":[0]},{\"enum\":[",
        "%u", ",", "]}],\"not\":{\"enum\":[1,2,3,4,5,6,7,8,9]}}", 200000},
    {"anyOf, multiplied", grammar_open_schema, "{\"allOf\":[",
        "{\"anyOf\":[{\"minimum\":%u},{\"maxLength\":%u}]}", ",", "]}", 40},
    {"anyOf, nested", grammar_open_schema, "", "{\"anyOf\":[{\"minimum\":%u},",
        "", "true", 120},
    {"repetitions", grammar_open_regex, "(a{1,1000}){1,1000}", "", "", "", 0},
    {"many states", grammar_open_regex, "", "(a|b)*a(a|b){%u}", "|", "", 40},
    {"patternProperties", grammar_open_schema, "{\"patternProperties\":{",
        "\"a%u.*b%u\":{\"minimum\":%u}", ",", "}}", 40},
    {"references", grammar_open_schema, "{\"$ref\":\"#/$defs/0\",\"$defs\":{",
        "\"%u\":{\"allOf\":[{\"anyOf\":[{\"$ref\":\"#/$defs/%u1\"},"
        "{\"$ref\":\"#/$defs/%u2\"}]},{\"anyOf\":[{\"$ref\":\"#/$defs/%u3\"},"
        "{\"$ref\":\"#/$defs/%u4\"}]}],\"minimum\":%u}",
        ",", "}}", 6000},
    {"to itself", grammar_open_schema,
        "{\"properties\":{\"a\":{\"$ref\":\"#/$defs/0\"}},\"$defs\":{\"0\":{"
        "\"anyOf\":[",
        "{\"properties\":{\"a%u\":{\"$ref\":\"#/$defs/0\"}},\"not\":"
        "{\"required\":[\"b%u\",\"c%u\"]}}",
        ",", "]}}}", 4000},
    {"oneOf", grammar_open_schema, "{\"oneOf\":[",
        "{\"properties\":{\"a%u\":{\"maximum\":%u}}}", ",", "]}", 3000},
    {"names", grammar_open_schema, "{\"properties\":{", "\"k%u\":{}", ",", "}}",
        200000},
    {"names that require", grammar_open_schema, "{\"dependentRequired\":{",
        "\"k%u\":[\"a%u\",\"b%u\"]", ",", "}}", 9000},
    {"keywords", grammar_open_schema, "{", "\"x-%u\":1", ",", "}", 200000},
    {"documents", grammar_open_schema, "{\"default\":[", "{}", ",", "]}",
        400000},
    {"letters of a category", grammar_open_regex, "", "\\pL", "", "", 400000},
    {"a class", grammar_open_regex, "[", "\\x{%u}", "", "]", 9999},
    {"both cases", grammar_open_regex, "(?i)", "k", "", "", 400000},
    {"rules", grammar_open_ebnf, "root ::= r0\n", "r%u ::= \"a\" | \"b\" r1%u",
        "\n", "\n", 9000},
    {"alternatives", grammar_open_ebnf, "root ::= ", "\"a%u\"", " | ", "\n",
        100000}};

#define TEXTS (sizeof(texts) / sizeof(texts[0]))

static size_t
part_put(size_t at, const char *part, unsigned number)
{
    for (; *part != '\0'; part++) {
        if (part[0] == '%' && part[1] == 'u') {
            at += (size_t) sprintf(s + at, "%u", number);
            part++;
        } else {
            s[at++] = *part;
        }
    }

    return at;
}

/* Text i, in s; its length. */
static size_t
make(size_t i)
{
    size_t at = part_put(0, texts[i].head, 0);
    unsigned k;

    for (k = 0; k < texts[i].most && at + 600 < TEXT_MAX; k++) {
        at = k > 0 ? part_put(at, texts[i].between, k) : at;
        at = part_put(at, texts[i].part, k);
    }
    at = part_put(at, texts[i].end, 0);
    if (strcmp(texts[i].name, "anyOf, nested") == 0) {
        for (k = 0; k < texts[i].most; k++) {
            at = part_put(at, "]}", 0);
        }
    }

    return at;
}

/* Opened and closed; what it cost this thread. */
static uint64_t
cost_us(size_t i, size_t n, uint64_t until_us)
{
    grammar_opts_t o = {.until_us = until_us};
    struct timespec from, to;
    grammar_t *g;

    err[0] = '\0';
    (void) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    g = texts[i].open(s, n, &o, err, sizeof(err));
    (void) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    if (g == NULL && err[0] == '\0') {
        fail_msg("%s: no word", texts[i].name);
    }
    grammar_close(g);

    return (uint64_t) ((to.tv_sec - from.tv_sec) * 1000000
                       + (to.tv_nsec - from.tv_nsec) / 1000);
}

/* Time is up soon: whatever was under way has ended then. */
static void
test_time(void **state)
{
    uint64_t us, most = TIME_US + (brief() ? 20 : 1) * OVER_US;
    size_t i, n;

    (void) state;
    for (i = 0; i < TEXTS; i++) {
        n = make(i);
        us = cost_us(i, n, clock_us() + TIME_US);
        if (getenv("GRAMMAR_VERBOSE") != NULL) {
            printf("%-24s %8zu bytes %8.1f ms  %s\n", texts[i].name, n,
                (double) us / 1e3, err);
        }
        if (us > most) {
            fail_msg("%s: %llu us", texts[i].name, (unsigned long long) us);
        }
    }
}

/* Is it a text that ends by its memory, given the time? */
static int
is_large(size_t i)
{
    return strcmp(texts[i].name, "letters of a category") == 0
           || strcmp(texts[i].name, "documents") == 0;
}

/* A process of its own for each, so that what it held at most is known.  Under
 * a sanitizer that would be the sanitizer's: then what is said counts alone. */
static void
test_memory(void **state)
{
    struct rusage was, now;
    size_t i, n;
    int status;
    long more;

    (void) state;
    for (i = 0; i < TEXTS; i++) {
        if (brief() && strcmp(texts[i].name, "documents") != 0) {
            continue;
        }
        n = make(i);
        if (fork() == 0) {
            (void) getrusage(RUSAGE_SELF, &was);
            (void) cost_us(
                i, n, clock_us() + (is_large(i) ? 30000000 : TIME_US));
            (void) getrusage(RUSAGE_SELF, &now);
            more = now.ru_maxrss - was.ru_maxrss;
            if (getenv("GRAMMAR_VERBOSE") != NULL) {
                printf("%-24s %8ld KiB  %s\n", texts[i].name, more, err);
                (void) fflush(stdout);
            }
            _exit(is_large(i) && strstr(err, "too much memory") == NULL ? 2
                  : !brief() && more > OVER_MIB * 1024L                 ? 1
                                                                        : 0);
        }
        assert_true(wait(&status) > 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            fail_msg("%s: status %d", texts[i].name, status);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
