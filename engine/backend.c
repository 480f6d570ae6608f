/*
 * The device that the options name.
 *
 * DESIGN.  Which back end there is to be, and what of it can be switched, is
 * words of the options; here they are judged and become a table of operations
 * and what its device is opened with.  Nothing is kept: the table lives as long
 * as the program, the device is the caller's.
 */
#include "backend.h"

#include <assert.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

/* 1 or 0 of a word that is on or off; -1 with err. */
static int
is_on(const char *name, const char *word, char *err, size_t errlen)
{
    if (strcmp(word, "on") == 0 || strcmp(word, "off") == 0) {
        return word[1] == 'n';
    }

    snprintf(err, errlen, "%s must be on or off, found \"%.100s\"", name, word);

    return -1;
}

const kernels_t *
backend_kernels(const opts_t *o, cpus_t *cpus, char *err, size_t errlen)
{
    cpu_set_t allowed;
    const kernels_t *kn;
    int null = strcmp(o->device, "null") == 0;
    int cuda = strcmp(o->device, "cuda") == 0;

    if (!null && !cuda && strcmp(o->device, "cpu") != 0) {
        snprintf(err, errlen, "device must be cpu, cuda or null, found \"%s\"",
            o->device);
        return NULL;
    }

    if (!null && o->model[0] == '\0') {
        snprintf(err, errlen,
            "no model: give --model PATH, or --device null for none");
        return NULL;
    }

    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
        CPU_ZERO(&allowed);
    }
    if (cpus_parse(cpus, o->cpus, &allowed, err, errlen) != 0
        || is_on("cuda_graphs", o->cuda_graphs, err, errlen) < 0
        || is_on("cuda_overlap", o->cuda_overlap, err, errlen) < 0) {
        return NULL;
    }

    if (strcmp(o->cuda_gemm, "own") != 0
        && strcmp(o->cuda_gemm, "library") != 0) {
        snprintf(err, errlen,
            "cuda_gemm must be own or library, found \"%.100s\"", o->cuda_gemm);
        return NULL;
    }

    kn = kernels_cpu(o->cpu_isa, err, errlen);
    if (kn != NULL && null) {
        kn = kernels_null();
    }
    if (kn != NULL && cuda) {
        kn = kernels_cuda(o->cuda_library, err, errlen);
    }

    return kn;
}

kn_open_t
backend_with(const opts_t *o, const cpus_t *cpus)
{
    kn_open_t ko;
    char err[256];

    assert(o->threads >= 0);
    memset(&ko, 0, sizeof(ko));
    ko.threads = (uint32_t) o->threads;
    ko.cpus = cpus->v;
    ko.cpus_n = cpus->n;
    ko.overlap = is_on("cuda_overlap", o->cuda_overlap, err, sizeof(err)) == 1;
    ko.library = strcmp(o->cuda_gemm, "library") == 0;
    ko.eager = is_on("cuda_graphs", o->cuda_graphs, err, sizeof(err)) == 0;

    return ko;
}

/* Bytes on a GPU of weights that take so many in the file (cuda/weight.cu). */
static uint64_t
gpu_bytes(uint32_t type, uint64_t bytes)
{
    static const uint32_t blocks[KN_TYPES][2] = {
#define X(name, elems, size) {elems, size},
        KN_TYPE_LIST(X)
#undef X
    };

    assert(type < KN_TYPES);

    return type == KN_F32 ? bytes
                          : bytes / blocks[type][1] * blocks[type][0] * 2;
}

/* What the pass would hold, by a device that has room for all; 0, or -1. */
static int
would_hold(const model_t *m, const forward_cfg_t *c, forward_held_t *held)
{
    const kn_open_t ko = {.threads = 1};
    const kernels_t *kn = kernels_null();
    char err[256];
    kn_dev_t *dev = kn->open(&ko, err, sizeof(err));
    forward_t *f = NULL;

    if (dev != NULL) {
        f = forward_open(kn, dev, m, c, err, sizeof(err));
    }
    if (f != NULL) {
        *held = *forward_held(f);
        forward_close(f);
    }
    kn->close(dev);

    return f != NULL ? 0 : -1;
}

void
backend_short(const kernels_t *kn, const kn_dev_t *dev, uint64_t left,
    const model_t *m, const forward_cfg_t *c, char *err, size_t errlen)
{
    kn_info_t info;
    forward_held_t held;
    uint64_t weights = 0, work, block = forward_block_bytes(m, c), fit;
    size_t at = strlen(err);
    uint32_t i;

    assert(at < errlen && block > 0);
    kn->info(dev, &info);
    if (info.refused == 0 || would_hold(m, c, &held) != 0) {
        return;
    }

    for (i = 0; i < KN_TYPES; i++) {
        weights += gpu_bytes(i, held.weights[i].bytes);
    }
    work = held.acts + info.own;
    fit = left > weights + work ? (left - weights - work) / block : 0;

    at += (size_t) snprintf(err + at, errlen - at,
        "; of %.1f MB, weights take %.1f, steps %.1f and %u KV blocks %.1f",
        (double) left / 1e6, (double) weights / 1e6, (double) work / 1e6,
        c->blocks, (double) held.kv / 1e6);

    if (at < errlen && fit == 0) {
        snprintf(err + at, errlen - at, ", so that no KV block fits");
    } else if (at < errlen) {
        snprintf(err + at, errlen - at,
            ", so that about %llu KV blocks fit, a kv_memory of %lluk",
            (unsigned long long) fit, (unsigned long long) (fit * block >> 10));
    }
}
