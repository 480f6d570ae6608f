/*
 * Readers of the published traces.
 *
 * DESIGN.  One reader per format, each a function from a line to a request;
 * files are unpacked by gzip at the end of a pipe.  ServeGen gives, for each
 * window of ten minutes, the rate and burstiness of arrivals, and for each
 * window of six hours the distributions of lengths: a load is sampled from
 * the busiest six hours of them.
 */
#include "trace.h"

#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRACE_LINE   65536
#define WINDOW_S     600
#define LENGTHS_S    21600 /* a window of the distributions */
#define LENGTHS_MAX  65536
#define SERVEGEN_MAX 20000 /* requests taken from one client */

static const char *const files[] = {
#define X(id, file, doc) file,
    TRACES(X)
#undef X
};

static const char *const names[] = {
#define X(id, file, doc) doc,
    TRACES(X)
#undef X
};


const char *
trace_name(trace_t t)
{
    assert((unsigned) t < TRACE_N);

    return names[t];
}


static const char *
data_dir(void)
{
    const char *dir = getenv("LLM_DATA");

    return dir != NULL ? dir : "../shared/data";
}


/* --- Azure, Mooncake, ShareGPT: a line is a request --------------------- */

static void
azure_line(const char *s, load_t *l, double *first_s)
{
    unsigned y, mo, d, h, mi, prompt, output;
    double sec, at;

    if (sscanf(s, "%u-%u-%u %u:%u:%lf,%u,%u", &y, &mo, &d, &h, &mi, &sec,
            &prompt, &output)
        != 8) {
        return;
    }

    at = h * 3600.0 + mi * 60.0 + sec;
    if (*first_s < 0) {
        *first_s = at;
    }
    if (at >= *first_s) {
        load_add(l, prompt, output)->at_us = (uint64_t) ((at - *first_s) * 1e6);
    }
}


static void
mooncake_line(const char *s, load_t *l, double *first_s)
{
    unsigned long ms, prompt, output;
    const char *ids = strstr(s, "\"hash_ids\": [");
    char *end;

    (void) first_s;

    if (ids == NULL
        || sscanf(s,
               "{\"timestamp\": %lu, \"input_length\": %lu, "
               "\"output_length\": %lu",
               &ms, &prompt, &output)
               != 3) {
        return;
    }

    load_add(l, (uint32_t) prompt, (uint32_t) output)->at_us = ms * 1000;

    for (ids = strchr(ids, '[') + 1;; ids = end + 1) {
        uint32_t id = (uint32_t) strtoul(ids, &end, 10);

        if (end == ids) {
            return;
        }
        load_hash(l, id);
        if (*end != ',') {
            return;
        }
    }
}


static void
sharegpt_line(const char *s, load_t *l, double *first_s)
{
    unsigned prompt, output;

    (void) first_s;

    if (sscanf(s, "%u,%u,", &prompt, &output) == 2) {
        (void) load_add(l, prompt, output);
    }
}


static int
read_lines(
    const char *file, load_t *l, void (*line)(const char *, load_t *, double *))
{
    char cmd[1024], *s = malloc(TRACE_LINE);
    double first_s = -1;
    size_t n = l->n;
    FILE *f;

    assert(s != NULL);
    snprintf(cmd, sizeof(cmd), "gzip -dc '%s/traces/%s' 2>/dev/null",
        data_dir(), file);
    f = popen(cmd, "r");
    while (f != NULL && fgets(s, TRACE_LINE, f) != NULL) {
        line(s, l, &first_s);
    }
    if (f != NULL) {
        (void) pclose(f);
    }
    free(s);

    return l->n > n;
}


/* The stamps are of whole 3 s: what came with one is spread until the next. */
static void
spread(load_t *l, size_t first)
{
    uint64_t from, until;
    size_t i, k, n;

    for (i = first; i < l->n; i += n) {
        from = l->v[i].at_us;
        for (n = 1; i + n < l->n && l->v[i + n].at_us == from; n++) {
        }
        until = i + n < l->n ? l->v[i + n].at_us : from;
        for (k = 0; until > from && k < n; k++) {
            l->v[i + k].at_us = from + (until - from) * k / n;
        }
    }
}


/* --- ServeGen ----------------------------------------------------------- */

/* A distribution of lengths: cumulated shares. */
typedef struct {
    uint32_t n;
    uint32_t len[LENGTHS_MAX];
    double upto[LENGTHS_MAX];
} lengths_t;


/* Reads "{1109: 0.0004, 1203: 0.0001}". */
static int
lengths_read(lengths_t *d, const char *s)
{
    double sum = 0, share;
    char *end;

    d->n = 0;
    while (s != NULL && (*s == '{' || *s == ',') && d->n < LENGTHS_MAX) {
        d->len[d->n] = (uint32_t) strtoul(s + 1, &end, 10);
        if (end == s + 1 || *end != ':') {
            break;
        }
        share = strtod(end + 1, &end);
        sum += share > 0 ? share : 0;
        d->upto[d->n++] = sum;
        s = end;
    }

    return d->n > 0 && sum > 0;
}


static uint32_t
lengths_draw(const lengths_t *d, rnd_t *r)
{
    double u = rnd_uniform(r) * d->upto[d->n - 1];
    uint32_t lo = 0, hi = d->n - 1, mid;

    while (lo < hi) {
        mid = (lo + hi) / 2;
        if (d->upto[mid] < u) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }

    return d->len[lo];
}


/* The distributions of the window that begins at `at` seconds. */
static int
lengths_at(const json_t *all, unsigned at, lengths_t *in, lengths_t *out)
{
    char key[16];
    const json_t *w;

    snprintf(key, sizeof(key), "%u", at);
    w = json_object_get(all, key);

    return lengths_read(
               in, json_string_value(json_object_get(w, "input_tokens")))
           && lengths_read(
               out, json_string_value(json_object_get(w, "output_tokens")));
}


/* Samples the windows of six hours from `from` on; how many requests. */
static size_t
servegen_sample(FILE *f, unsigned from, const lengths_t *in,
    const lengths_t *out, load_t *l, rnd_t *r)
{
    double rate, cv, at;
    size_t first = l->n;
    unsigned start;
    char s[256];

    rewind(f);
    while (fgets(s, sizeof(s), f) != NULL) {
        if (sscanf(s, "%u,%lf,%lf,", &start, &rate, &cv) != 3 || rate <= 0
            || start < from || start - from >= LENGTHS_S) {
            continue;
        }
        cv = cv > 0.1 ? cv : 0.1;
        for (at = rnd_gamma(r, 1 / rate, cv);
             at < WINDOW_S && l->n - first < SERVEGEN_MAX;
             at += rnd_gamma(r, 1 / rate, cv)) {
            load_add(l, lengths_draw(in, r), lengths_draw(out, r))->at_us =
                (uint64_t) ((start - from + at) * 1e6);
        }
    }

    return l->n - first;
}


/* The sum of rates over six hours. */
static double
servegen_busy(FILE *f, unsigned from)
{
    double rate, sum = 0;
    unsigned start;
    char s[256];

    rewind(f);
    while (fgets(s, sizeof(s), f) != NULL) {
        if (sscanf(s, "%u,%lf,", &start, &rate) == 2 && start >= from
            && start - from < LENGTHS_S) {
            sum += rate;
        }
    }

    return sum;
}


static int
read_servegen(const char *stem, load_t *l, uint64_t seed)
{
    static lengths_t in, out;
    unsigned at, best = 0;
    double busy, most = 0;
    char path[1024];
    json_t *all;
    size_t n = 0;
    rnd_t r;
    FILE *f;

    snprintf(path, sizeof(path), "%s/traces/%s-dataset.json", data_dir(), stem);
    all = json_load_file(path, 0, NULL);
    snprintf(path, sizeof(path), "%s/traces/%s-trace.csv", data_dir(), stem);
    f = fopen(path, "r");

    if (all != NULL && f != NULL) {
        for (at = 0; at < 100 * LENGTHS_S; at += LENGTHS_S) {
            busy = servegen_busy(f, at);
            if (busy > most && lengths_at(all, at, &in, &out)) {
                most = busy;
                best = at;
            }
        }
        if (most > 0 && lengths_at(all, best, &in, &out)) {
            rnd_seed(&r, seed);
            n = servegen_sample(f, best, &in, &out, l, &r);
        }
    }

    json_decref(all);
    if (f != NULL) {
        (void) fclose(f);
    }

    return n > 0;
}


int
trace_load(trace_t t, load_t *l, uint64_t seed)
{
    size_t first = l->n;
    int real = 0;

    switch (t) {
    case TRACE_CONV:
    case TRACE_CODE:
        real = read_lines(files[t], l, azure_line);
        break;
    case TRACE_MOONCAKE:
        real = read_lines(files[t], l, mooncake_line);
        spread(l, first);
        break;
    case TRACE_SHAREGPT:
        real = read_lines(files[t], l, sharegpt_line);
        break;
    case TRACE_SERVEGEN:
    case TRACE_REASON:
        real = read_servegen(files[t], l, seed);
        break;
    case TRACE_N:
        assert(0);
    }

    if (!real) {
        trace_generate(t, l, seed);
    }

    return real;
}
