/*
 * A load: see load.h.  Out of memory ends the simulator.
 */
#include "load.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

load_req_t *
load_add(load_t *l, uint32_t prompt, uint32_t output)
{
    load_req_t *q;

    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 1024;
        l->v = realloc(l->v, l->cap * sizeof(*l->v));
        assert(l->v != NULL);
    }

    q = &l->v[l->n++];
    memset(q, 0, sizeof(*q));
    q->prompt = prompt > 0 ? prompt : 1;
    q->output = output > 0 ? output : 1;
    q->weight = q->choices = 1;
    q->hash = (uint32_t) l->hashes_n;

    return q;
}


void
load_hash(load_t *l, uint32_t hash)
{
    if (l->hashes_n == l->hashes_cap) {
        l->hashes_cap = l->hashes_cap ? 2 * l->hashes_cap : 1024;
        l->hashes = realloc(l->hashes, l->hashes_cap * sizeof(*l->hashes));
        assert(l->hashes != NULL);
    }

    assert(l->n > 0);
    l->hashes[l->hashes_n++] = hash;
    l->v[l->n - 1].hashes_n++;
}


void
load_free(load_t *l)
{
    free(l->v);
    free(l->hashes);
    memset(l, 0, sizeof(*l));
}


void
load_draw(load_t *l, const load_t *from, size_t n, uint32_t total_max, rnd_t *r)
{
    size_t *order = malloc((from->n + 1) * sizeof(*order)), fit = 0, left = 0;
    size_t i, k;

    assert(order != NULL);

    for (i = 0; i < from->n; i++) {
        if (from->v[i].prompt + from->v[i].output <= total_max) {
            order[fit++] = i;
        }
    }
    assert(fit > 0);

    while (n-- > 0) {
        left = left > 0 ? left : fit;
        k = rnd_below(r, (uint32_t) left);
        i = order[k];
        order[k] = order[--left];
        order[left] = i;
        (void) load_add(l, from->v[i].prompt, from->v[i].output);
    }

    free(order);
}


void
load_follow(
    load_t *l, const load_t *from, size_t n, uint32_t total_max, rnd_t *r)
{
    size_t i, first = l->n;
    uint64_t begin_us;
    load_req_t *q;
    uint32_t k;

    i = from->n > n ? rnd_below(r, (uint32_t) (from->n - n)) : 0;
    begin_us = i < from->n ? from->v[i].at_us : 0;

    for (; i < from->n && l->n - first < n; i++) {
        if (from->v[i].prompt + from->v[i].output > total_max) {
            continue;
        }
        q = load_add(l, from->v[i].prompt, from->v[i].output);
        q->at_us = from->v[i].at_us - begin_us;
        for (k = 0; k < from->v[i].hashes_n; k++) {
            load_hash(l, from->hashes[from->v[i].hash + k]);
        }
    }
}


void
load_stretch(load_t *l, double rate)
{
    double by;
    size_t i;

    assert(l->n > 1 && l->v[l->n - 1].at_us > 0 && rate > 0);

    by = (double) l->n / rate * 1e6 / (double) l->v[l->n - 1].at_us;
    for (i = 0; i < l->n; i++) {
        l->v[i].at_us = (uint64_t) ((double) l->v[i].at_us * by);
    }
}


void
load_arrive(load_t *l, size_t first, double rate, double cv, rnd_t *r)
{
    double at = 0;
    size_t i;

    assert(rate > 0);

    for (i = first; i < l->n; i++) {
        at += rnd_gamma(r, 1e6 / rate, cv);
        l->v[i].at_us = (uint64_t) at;
    }
}


static int
by_time(const void *a, const void *b)
{
    const load_req_t *x = a, *y = b;

    if (x->at_us != y->at_us) {
        return x->at_us < y->at_us ? -1 : 1;
    }

    return (x->tenant > y->tenant) - (x->tenant < y->tenant);
}


void
load_sort(load_t *l)
{
    qsort(l->v, l->n, sizeof(*l->v), by_time);
}
