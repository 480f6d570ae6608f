/*
 * Back ends that are libraries of their own, since what they need (CUDA's
 * runtime, hundreds of megabytes with its friends) is not on every machine.
 *
 * DESIGN.  A plug-in is a shared object with one function, llm_cuda_kernels(),
 * that gives its table.  It is opened when it is asked for and stays open: it
 * has threads and handlers of its driver's.  It must be of the same build as
 * the program, as the table has no version.
 */
#include "kernels.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_NAME "llm_cuda.so"

/* The default library, beside the program: 0, or -1. */
static int
beside(char *path, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", path, size - 1);
    char *slash;

    if (n < 0) {
        return -1;
    }

    path[n] = '\0';
    slash = strrchr(path, '/');

    if (slash == NULL
        || (size_t) (slash + 1 - path) + sizeof(DEFAULT_NAME) > size) {
        return -1;
    }

    memcpy(slash + 1, DEFAULT_NAME, sizeof(DEFAULT_NAME));
    return 0;
}

const kernels_t *
kernels_cuda(const char *library, char *err, size_t errlen)
{
    char path[4096];
    void *lib;
    union {
        void *p; /* what dlsym() gives is a function's address */
        const kernels_t *(*f)(void);
    } table;

    if (library == NULL || library[0] == '\0') {
        if (beside(path, sizeof(path)) != 0) {
            snprintf(err, errlen, "device cuda: cannot tell where %s is",
                DEFAULT_NAME);
            return NULL;
        }

        library = path;
    }

    if (access(library, R_OK) != 0) {
        snprintf(err, errlen,
            "device cuda: there is no %s, which \"make cuda\" builds where "
            "the CUDA toolkit is",
            library);
        return NULL;
    }

    lib = dlopen(library, RTLD_NOW | RTLD_LOCAL);

    if (lib == NULL) {
        snprintf(err, errlen, "device cuda: %s", dlerror());
        return NULL;
    }

    table.p = dlsym(lib, "llm_cuda_kernels");

    if (table.p == NULL) {
        snprintf(err, errlen, "device cuda: %s is no library of ours", library);
        dlclose(lib);
        return NULL;
    }

    return table.f();
}
