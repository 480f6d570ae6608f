/*
 * The sentences of a GPU's errors; rt.h says what becomes of them.
 *
 * DESIGN.  What there is to be told apart is plain data, so that each sentence
 * can be had without the machine that it is for: the runtime fills it in, or a
 * test does.
 *
 * After the start nothing is handled: most errors stay with the process, and a
 * device that has one computes nothing right again.  So the process ends at
 * once, without a core file's abort and with nobody's destructors, which would
 * ask the device again; whoever watches over it starts another one, and
 * nginx's workers answer 503 until they are attached to that.
 */
#include "rt_judge.h"

#include <stdio.h>
#include <unistd.h>

int
rt_judge(const rt_found_t *f, char *err, size_t errlen)
{
    if (f->driver == 0) {
        snprintf(err, errlen,
            "device cuda: this machine has no NVIDIA driver (libcuda.so.1)");
        return -1;
    }

    if (f->driver / 1000 < f->runtime / 1000) {
        snprintf(err, errlen,
            "device cuda: the driver is for CUDA %d.%d, and one for %d.0 or "
            "later is needed",
            f->driver / 1000, f->driver % 1000 / 10, f->runtime / 1000);
        return -1;
    }

    if (f->devices == 0) {
        snprintf(err, errlen, "device cuda: this machine has no GPU%s%s%s",
            f->error != NULL ? " (" : "", f->error != NULL ? f->error : "",
            f->error != NULL ? ")" : "");
        return -1;
    }

    if (f->major > 0 && f->major < RT_MAJOR_MIN) {
        snprintf(err, errlen,
            "device cuda: expected compute capability %d.0 or more, found "
            "%d.%d (%s)",
            RT_MAJOR_MIN, f->major, f->minor, f->name);
        return -1;
    }

    if (f->error != NULL) {
        snprintf(
            err, errlen, "device cuda: the GPU cannot be used: %s", f->error);
        return -1;
    }

    return 0;
}

void
rt_die(const char *what, const char *why)
{
    fprintf(stderr,
        "llm-engine: device cuda: %s: %s; the engine ends, since a GPU "
        "computes nothing right after that\n",
        what, why);
    _exit(1);
}
