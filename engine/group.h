/*
 * The group of processes that compute one model: who this one is in it, and
 * its place there.  See group.c.
 */
#ifndef GROUP_H
#define GROUP_H

#include "forward.h"
#include "model.h"
#include "../kernels/comm.h"

#include <stddef.h>
#include <stdint.h>

/* What of it is in the options; see opts.h. */
typedef struct {
    const char *address, *secret;
    int64_t rank;  /* -1: what mpirun or srun say */
    int64_t ranks; /* 0: likewise */
    uint64_t wait_ms, silent_ms;
} group_opts_t;

/*
 * Which rank of how many this process is; without an address 0 of one.  0, or
 * -1 with one sentence in err.
 */
int group_place(const group_opts_t *o, uint32_t *rank, uint32_t *ranks,
    char *err, size_t errlen);

/*
 * Joins the others, with what will be opened: the model, and for which steps.
 * give_up(arg) is asked now and then while some are missing.  The rank's, or
 * NULL with one sentence in err.
 */
comm_t *group_join(const group_opts_t *o, uint32_t rank, uint32_t ranks,
    const model_t *m, const forward_cfg_t *shape, int (*give_up)(void *arg),
    void *arg, char *err, size_t errlen);

/*
 * Waits until all have loaded their weights, which may take as long as joining
 * may; from then on who is waited for answers within silent_ms.  0, or -1 with
 * one sentence in err.
 */
int group_ready(comm_t *c, const group_opts_t *o, char *err, size_t errlen);

#endif
