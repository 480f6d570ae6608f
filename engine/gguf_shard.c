/*
 * A GGUF model in several files, opened by any one of them.
 *
 *      NAME-00001-of-00003.gguf    all keys, and the first tensors
 *      NAME-00002-of-00003.gguf    the keys split.*, and the next tensors
 *      NAME-00003-of-00003.gguf
 *
 * Each says which one it is (split.no, from 0), how many there are
 * (split.count) and how many tensors they have together
 * (split.tensors.count).
 *
 * DESIGN.  Each file is opened and checked alone, as gguf.c does it; then the
 * tensors of all go into the first one's table, and it owns the others.  So
 * the accessors know nothing of shards.  The names of the others follow from
 * the name of the one that was given, which must be as the format has it: no
 * folder is searched, and a file that was renamed is refused, not guessed at.
 *
 * Nothing here is kept but what the first file's gguf_t owns.
 */
#include "gguf.h"
#include "gguf_file.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Far above any real model; each costs a mapping. */
#define SHARDS_MAX 4096

/* "-00001-of-00003.gguf" */
#define TAIL_LEN 20

/* What joining needs; err is set when a function of it fails. */
typedef struct {
    const char *path;
    gguf_t **parts; /* [n], NULL where not open yet */
    uint32_t n;
    char *err;
    size_t errlen;
} joining_t;

/* "PATH: sentence"; returns 0, which means failure everywhere here. */
__attribute__((format(printf, 3, 4))) static int
fail(joining_t *j, const char *path, const char *fmt, ...)
{
    int n;
    va_list ap;

    n = snprintf(j->err, j->errlen, "%s: ", path);

    if (n >= 0 && (size_t) n < j->errlen) {
        va_start(ap, fmt);
        vsnprintf(j->err + n, j->errlen - (size_t) n, fmt, ap);
        va_end(ap);
    }

    return 0;
}

/* The end of shard number no's name; n has five digits at most. */
static void
tail_of(uint32_t no, uint32_t n, char tail[TAIL_LEN + 1])
{
    assert(no < n && n <= SHARDS_MAX);
    snprintf(tail, TAIL_LEN + 1, "-%05u-of-%05u.gguf", (no + 1) % 100000,
        n % 100000);
}

/* A key of every shard: a number below max. */
static int
need(joining_t *j, const gguf_t *g, const char *key, uint32_t max, uint32_t *v)
{
    if (!gguf_u32(g, key, v)) {
        return fail(j, gguf_name(g), "key %s: expected a number, found %s", key,
            gguf_has(g, key) ? "something else" : "no such key");
    }

    if (*v >= max) {
        return fail(j, gguf_name(g), "key %s: expected less than %u, found %u",
            key, max, *v);
    }

    return 1;
}

/* Where g, opened by j->path, stands among how many; its name must agree. */
static int
find_place(joining_t *j, const gguf_t *g, uint32_t *no)
{
    size_t len = strlen(j->path);
    char tail[TAIL_LEN + 1];

    if (!need(j, g, "split.count", SHARDS_MAX + 1, &j->n)
        || !need(j, g, "split.no", j->n, no)) {
        return 0;
    }

    tail_of(*no, j->n, tail);

    if (len <= TAIL_LEN || strcmp(j->path + len - TAIL_LEN, tail) != 0) {
        return fail(j, j->path,
            "shard %u of %u: expected a name that ends in \"%s\", "
            "found another",
            *no + 1, j->n, tail);
    }

    return 1;
}

/* Opens shard number no, beside the one given. */
static int
open_part(joining_t *j, uint32_t no)
{
    int ok = 0;
    uint32_t count, said;
    size_t len = strlen(j->path);
    char *path = strdup(j->path);
    gguf_t *g;

    assert(no < j->n && j->parts[no] == NULL && len > TAIL_LEN);

    if (path == NULL) {
        return fail(j, j->path, "shards: not enough memory");
    }

    tail_of(no, j->n, path + len - TAIL_LEN);
    g = gguf_file_open(path, j->err, j->errlen);
    j->parts[no] = g;

    if (g == NULL || !need(j, g, "split.count", SHARDS_MAX + 1, &count)
        || !need(j, g, "split.no", SHARDS_MAX, &said)) {
        goto done;
    }

    if (count != j->n || said != no) {
        fail(j, path, "keys split.*: expected shard %u of %u, found %u of %u",
            no + 1, j->n, said + 1, count);
        goto done;
    }

    ok = 1;

done:

    free(path);
    return ok;
}

/* All tensors into the first shard's table. */
static int
join(joining_t *j)
{
    uint32_t i, said;
    uint64_t total = 0;
    tensor_t *all;
    gguf_t *first = j->parts[0];

    assert(j->n > 1 && first != NULL);

    for (i = 0; i < j->n; i++) {
        assert(j->parts[i] != NULL && j->parts[i]->shards == NULL);
        total += j->parts[i]->tensors_n;
    }

    if (total > GGUF_TENSORS_MAX) {
        return fail(j, first->name,
            "count of tensors: expected at most %d, found %llu",
            GGUF_TENSORS_MAX, (unsigned long long) total);
    }

    if (gguf_u32(first, "split.tensors.count", &said) && said != total) {
        return fail(j, first->name,
            "key split.tensors.count: expected the shards' %llu, found %u",
            (unsigned long long) total, said);
    }

    all = calloc(total + 1, sizeof(*all));

    if (all == NULL) {
        return fail(j, first->name, "tensor table: not enough memory");
    }

    for (total = 0, i = 0; i < j->n; i++) {
        memcpy(all + total, j->parts[i]->tensors,
            j->parts[i]->tensors_n * sizeof(*all));
        total += j->parts[i]->tensors_n;
        free(j->parts[i]->tensors);
        j->parts[i]->tensors = NULL;
        j->parts[i]->tensors_n = 0;
    }

    first->tensors = all;
    first->tensors_n = (uint32_t) total;
    return gguf_file_sort(first, j->err, j->errlen);
}

/* g, which path names, and all that belong to it; g is closed on failure. */
static gguf_t *
open_all(const char *path, gguf_t *g, char *err, size_t errlen)
{
    uint32_t i, no;
    gguf_t *first;
    joining_t j = {.path = path, .err = err, .errlen = errlen};

    if (!find_place(&j, g, &no)) {
        gguf_close(g);
        return NULL;
    }

    j.parts = calloc(j.n, sizeof(*j.parts));

    if (j.parts == NULL) {
        fail(&j, path, "shards: not enough memory");
        gguf_close(g);
        return NULL;
    }

    j.parts[no] = g;

    for (i = 0; i < j.n; i++) {
        if (i != no && !open_part(&j, i)) {
            goto failed;
        }
    }

    if (!join(&j)) {
        goto failed;
    }

    first = j.parts[0];
    assert(first->shards == NULL && first->tensors != NULL);
    first->shards = j.parts;
    first->shards_n = j.n;
    return first;

failed:

    for (i = 0; i < j.n; i++) {
        gguf_close(j.parts[i]);
    }

    free(j.parts);
    return NULL;
}

gguf_t *
gguf_open(const char *path, char *err, size_t errlen)
{
    uint32_t n;
    gguf_t *g;

    assert(path != NULL && err != NULL && errlen > 0);

    g = gguf_file_open(path, err, errlen);

    if (g == NULL || !gguf_has(g, "split.count")
        || (gguf_u32(g, "split.count", &n) && n <= 1)) {
        return g;
    }

    return open_all(path, g, err, errlen);
}
