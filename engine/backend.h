/*
 * The device that the options name, and what they ask of it.
 */
#ifndef BACKEND_H
#define BACKEND_H

#include "cpus.h"
#include "forward.h"
#include "kernels.h"
#include "opts.h"

#include <stddef.h>

/*
 * The table of operations; cpu_isa is judged on any device.  Into *cpus go
 * those that the device's threads stay on.  NULL with one sentence in err.
 */
const kernels_t *backend_kernels(
    const opts_t *o, cpus_t *cpus, char *err, size_t errlen);

/*
 * What a device of theirs is opened with, of options that backend_kernels()
 * took; borrows from cpus.
 */
kn_open_t backend_with(const opts_t *o, const cpus_t *cpus);

/*
 * The device, that had `left` bytes, found no memory for what forward_open()
 * asked for, which err says: adds what all of it would take, and how many KV
 * blocks would fit.  Nothing if memory was not what was missing.
 */
void backend_short(const kernels_t *kn, const kn_dev_t *dev, uint64_t left,
    const model_t *m, const forward_cfg_t *c, char *err, size_t errlen);

#endif
