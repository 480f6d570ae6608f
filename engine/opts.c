/*
 * Options from the table in opts.h: defaults, engine.conf, command line, help.
 *
 * DESIGN.  One row, four uses.  A file is read before the rest of the command
 * line is looked at, in the order given, so what comes later wins.  A value
 * that is refused names the option, what was expected and what was found.
 */
#include "opts.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPT_str, OPT_int, OPT_size, OPT_ms };

typedef struct {
    const char *name;
    int type;
    size_t offset;
    const char *def;
    int64_t min, max;
    const char *help;
} opt_row_t;

static const opt_row_t opts_rows[] = {
#define X(name, type, def, min, max, help)                                     \
    {#name, OPT_##type, offsetof(opts_t, name), def, min, max, help},
    OPTS_LIST(X)
#undef X
};

#define OPTS_N (sizeof(opts_rows) / sizeof(opts_rows[0]))

_Static_assert(OPTS_N <= 64, "a bit in opts_t.given is each row's");

static const char *const opt_forms[] = {"text", "a number",
    "a size such as 512k, 4m or 2g", "a time such as 100ms, 5s or 2m"};


/* Multiplies by the unit behind a number; -1 if the unit is unknown. */
static int
opt_unit(int type, const char *unit, int64_t *v)
{
    static const struct {
        int type;
        const char *unit;
        int64_t factor;
    } units[] = {
        {OPT_int, "", 1},
        {OPT_size, "", 1},
        {OPT_size, "k", 1ll << 10},
        {OPT_size, "m", 1ll << 20},
        {OPT_size, "g", 1ll << 30},
        {OPT_ms, "", 1000}, /* plain numbers are seconds, as in nginx */
        {OPT_ms, "ms", 1},
        {OPT_ms, "s", 1000},
        {OPT_ms, "m", 60000},
        {OPT_ms, "h", 3600000},
    };
    size_t i;

    for (i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (units[i].type == type && strcasecmp(units[i].unit, unit) == 0) {
            return __builtin_mul_overflow(*v, units[i].factor, v) ? -1 : 0;
        }
    }

    return -1;
}


static int
opt_number(const opt_row_t *row, const char *s, int64_t *v)
{
    char *end;

    errno = 0;
    *v = strtoll(s, &end, 10);

    if (end == s || errno != 0 || isspace((unsigned char) s[0])) {
        return -1;
    }

    return opt_unit(row->type, end, v);
}


static const opt_row_t *
opt_row(const char *name)
{
    size_t i;

    for (i = 0; i < OPTS_N; i++) {
        if (strcmp(opts_rows[i].name, name) == 0) {
            return &opts_rows[i];
        }
    }

    return NULL;
}


int
opts_set(
    opts_t *o, const char *name, const char *value, char *err, size_t errlen)
{
    int64_t v;
    char *copy, *field;
    const opt_row_t *row = opt_row(name);

    if (row == NULL) {
        snprintf(err, errlen, "there is no option \"%s\"; see --help", name);
        return -1;
    }

    field = (char *) o + row->offset;
    o->given |= 1ull << (row - opts_rows);

    if (row->type == OPT_str) {
        copy = strdup(value);
        if (copy == NULL) {
            snprintf(err, errlen, "out of memory");
            return -1;
        }
        free(*(char **) (void *) field);
        *(char **) (void *) field = copy;
        return 0;
    }

    if (opt_number(row, value, &v) != 0) {
        snprintf(err, errlen, "option %s: expected %s, found \"%s\"", name,
            opt_forms[row->type], value);
        return -1;
    }

    if (v < row->min || v > row->max) {
        snprintf(err, errlen,
            "option %s: expected a value from %lld to %lld%s, found \"%s\"",
            name, (long long) row->min, (long long) row->max,
            row->type == OPT_ms ? " ms" : "", value);
        return -1;
    }

    *(int64_t *) (void *) field = v;

    return 0;
}


void
opts_init(opts_t *o)
{
    size_t i;
    int rc;
    char err[256];

    memset(o, 0, sizeof(*o));

    for (i = 0; i < OPTS_N; i++) {
        rc = opts_set(o, opts_rows[i].name, opts_rows[i].def, err, sizeof(err));
        assert(rc == 0);
    }
    (void) rc;
    o->given = 0;
}


int64_t
opts_step_target(const opts_t *o)
{
    int computes = strcmp(o->device, "null") != 0;

    assert(o->step_target >= 0);
    return computes || opts_given(o, "step_target") ? o->step_target : 0;
}


int
opts_given(const opts_t *o, const char *name)
{
    const opt_row_t *row = opt_row(name);

    assert(row != NULL);

    return (o->given >> (row - opts_rows) & 1) != 0;
}


void
opts_free(opts_t *o)
{
    size_t i;

    for (i = 0; i < OPTS_N; i++) {
        if (opts_rows[i].type == OPT_str) {
            free(*(char **) (void *) ((char *) o + opts_rows[i].offset));
        }
    }

    memset(o, 0, sizeof(*o));
}


/* Cuts a line into name and value in place; 0 for a line without either. */
static int
opts_split(char *line, char **name, char **value)
{
    char *p, *end;

    line[strcspn(line, "#\r\n")] = '\0';

    for (p = line; isspace((unsigned char) *p); p++) {
    }
    if (*p == '\0') {
        return 0;
    }
    *name = p;

    for (; *p && !isspace((unsigned char) *p); p++) {
    }
    if (*p) {
        *p++ = '\0';
    }
    for (; isspace((unsigned char) *p); p++) {
    }
    *value = p;

    for (end = p + strlen(p); end > p && isspace((unsigned char) end[-1]);
         end--) {
    }
    *end = '\0';

    return 1;
}


int
opts_file(opts_t *o, const char *path, char *err, size_t errlen)
{
    char line[4096], why[512], *name, *value;
    int n = 0, rc = -1;
    FILE *f;

    f = fopen(path, "re");
    if (f == NULL) {
        snprintf(err, errlen, "%s: %s", path, strerror(errno));
        return -1;
    }

    while (fgets(line, sizeof(line), f) != NULL) {
        n++;

        if (strchr(line, '\n') == NULL && !feof(f)) {
            snprintf(err, errlen, "%s:%d: the line is too long", path, n);
            goto done;
        }
        if (!opts_split(line, &name, &value)) {
            continue;
        }
        if (opts_set(o, name, value, why, sizeof(why)) != 0) {
            snprintf(err, errlen, "%s:%d: %s", path, n, why);
            goto done;
        }
    }

    if (ferror(f)) {
        snprintf(err, errlen, "%s: %s", path, strerror(errno));
        goto done;
    }
    rc = 0;

done:

    (void) fclose(f);

    return rc;
}


/* An option that takes no value; 0 if arg is not one. */
static int
opts_switch(opts_t *o, const char *arg)
{
    const struct {
        const char *name;
        int *field;
    } switches[] = {{"--inspect", &o->inspect}, {"--check", &o->inspect},
        {"--help", &o->help}, {"-h", &o->help}, {"--version", &o->version},
        {"-v", &o->version}};
    size_t i;

    for (i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
        if (strcmp(arg, switches[i].name) == 0) {
            *switches[i].field = 1;
            return 1;
        }
    }

    return 0;
}


int
opts_args(opts_t *o, int argc, char **argv, char *err, size_t errlen)
{
    int i, rc;
    char name[64];
    const char *arg, *value;
    size_t len;

    for (i = 1; i < argc; i++) {
        arg = argv[i];

        if (opts_switch(o, arg)) {
            /* --inspect may have a path of its own: that of the model */
            if (strcmp(arg, "--inspect") == 0 && argv[i + 1] != NULL
                && argv[i + 1][0] != '-'
                && opts_set(o, "model", argv[++i], err, errlen) != 0) {
                return -1;
            }
            continue;
        }

        len = strcspn(arg, "=");
        value = arg[len] == '=' ? arg + len + 1 : argv[i + 1];

        if (strcmp(arg, "-c") != 0
            && (strncmp(arg, "--", 2) != 0 || len - 2 >= sizeof(name))) {
            snprintf(
                err, errlen, "unexpected argument \"%s\"; see --help", arg);
            return -1;
        }
        if (strcmp(arg, "-c") != 0) {
            memcpy(name, arg + 2, len - 2);
            name[len - 2] = '\0';
            if (opt_row(name) == NULL) {
                snprintf(
                    err, errlen, "there is no option \"%s\"; see --help", name);
                return -1;
            }
        }
        if (value == NULL) {
            snprintf(err, errlen, "option %s needs a value", arg);
            return -1;
        }
        if (arg[len] != '=') {
            i++;
        }

        if (arg[1] == 'c') {
            rc = opts_file(o, value, err, errlen);
        } else {
            rc = opts_set(o, name, value, err, errlen);
        }
        if (rc != 0) {
            return -1;
        }
    }

    return 0;
}


void
opts_help(void)
{
    size_t i;

    printf("usage: llm-engine [-c FILE] [--OPTION VALUE ...]\n\n"
           "  -c FILE            read \"OPTION VALUE\" lines from FILE\n"
           "  --inspect [MODEL]  print the model's shape, types, tokenizer and "
           "the memory\n"
           "                     that serving it takes, load nothing, exit\n"
           "  --check            the same of the option model\n"
           "  --version, --help\n\n");

    for (i = 0; i < OPTS_N; i++) {
        printf("  --%-16s %s [%s]\n", opts_rows[i].name, opts_rows[i].help,
            opts_rows[i].def);
    }
}
