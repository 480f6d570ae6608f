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
    ko.eager = is_on("cuda_graphs", o->cuda_graphs, err, sizeof(err)) == 0;

    return ko;
}
