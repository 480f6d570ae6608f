/*
 * Joining a group, as the engine's start needs it.
 *
 * DESIGN.  All ranks are the same program with the same options, but for the
 * rank itself, which mpirun or srun put into the environment.  Where the
 * options say something, that counts; where they and the environment differ in
 * how many ranks there are, nothing can be right.
 *
 * That all have the same model is known by a hash of every matrix's name, type
 * and size, and of some bytes of it: another file of the same shape differs
 * there, and reading all of it would take as long as loading.
 *
 * The main thread, at start.
 */
#include "group.h"
#include "join.h"
#include "space.h"
#include "step_wire.h"
#include "../kernels/comm_socket.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PEEK 64 /* bytes of a matrix that are looked at */

static const uint64_t no_key[2] = {0, 0};


int
group_place(const group_opts_t *o, uint32_t *rank, uint32_t *ranks, char *err,
    size_t errlen)
{
    join_place_t p = {0, 0, NULL};
    int rc;

    *rank = 0;
    *ranks = 1;
    if (o->address[0] == '\0') {
        return 0;
    }

    rc = o->rank >= 0 && o->ranks > 0 ? 0 : join_place(&p, err, errlen);
    if (rc < 0) {
        return -1;
    }
    if (rc > 0 && o->ranks > 0 && p.ranks != (uint64_t) o->ranks) {
        snprintf(err, errlen,
            "tensor_parallel is %lld, and %s has started %u processes",
            (long long) o->ranks, p.from, p.ranks);
        return -1;
    }

    *rank = o->rank >= 0 ? (uint32_t) o->rank : p.rank;
    *ranks = o->ranks > 0 ? (uint32_t) o->ranks : p.ranks;
    if ((rc == 0 && o->rank < 0) || *ranks < 2 || *ranks > COMM_RANKS_MAX
        || *rank >= *ranks) {
        snprintf(err, errlen,
            "tensor_parallel_address needs a rank below tensor_parallel, 2 to "
            "%d, from options, mpirun or srun; found rank %lld of %u",
            COMM_RANKS_MAX, rc == 0 && o->rank < 0 ? -1 : (long long) *rank,
            *ranks);
        return -1;
    }

    return 0;
}


/* --- what must be alike ------------------------------------------------- */

static void
look_at(uint64_t *hash, const tensor_t *t)
{
    const uint64_t shape[4] = {t == NULL ? 0 : t->type + 1,
        t == NULL ? 0 : t->dims[0], t == NULL ? 0 : t->dims[1], *hash};
    const int bytes = t != NULL && t->data != NULL && tensor_extent(t) >= PEEK;
    const space_part_t parts[3] = {{(const uint8_t *) shape, sizeof(shape)},
        {t == NULL ? NULL : (const uint8_t *) t->name.s,
            t == NULL ? 0 : t->name.len},
        {bytes ? t->data : NULL, bytes ? PEEK : 0}};

    *hash = space_of(no_key, parts, 3);
}


static uint64_t
fingerprint(const model_t *m)
{
    const model_info_t *info = model_info(m);
    const model_top_t *top = model_top(m);
    const model_layer_t *l;
    uint64_t hash = info->weight_bytes;
    uint32_t i, e;

    assert(info->layers > 0 || info->weight_bytes == 0);
    look_at(&hash, top->embed);
    look_at(&hash, top->norm);
    look_at(&hash, top->output);

    for (i = 0; i < info->layers; i++) {
        l = model_layer(m, i);
        look_at(&hash, l->attn_norm);
        look_at(&hash, l->q);
        look_at(&hash, l->k);
        look_at(&hash, l->v);
        look_at(&hash, l->o);
        look_at(&hash, l->ffn_norm);
        look_at(&hash, l->gate);
        look_at(&hash, l->up);
        look_at(&hash, l->down);
        look_at(&hash, l->router);
        for (e = 0; l->router != NULL && e < info->experts; e++) {
            look_at(&hash, l->experts_gate[e]);
            look_at(&hash, l->experts_down[e]);
        }
    }

    return hash;
}


static void
fill_facts(join_facts_t *f, const model_t *m, const forward_cfg_t *s)
{
    f->model = fingerprint(m);
    f->vocab = model_info(m)->vocab;
    f->context = s->context;
    f->block_tokens = s->block_tokens;
    f->blocks = s->blocks;
    f->host_blocks = s->host_blocks;
    f->kv_type = s->kv_type;
    f->batch_tokens = s->tokens_max;
    f->batch_rows = s->rows_max;
    f->batch_outs = s->outs_max;
    f->step_version = STEP_WIRE_VERSION;
}


comm_t *
group_join(const group_opts_t *o, uint32_t rank, uint32_t ranks,
    const model_t *m, const forward_cfg_t *shape, int (*give_up)(void *arg),
    void *arg, char *err, size_t errlen)
{
    int fds[COMM_RANKS_MAX];
    comm_socket_t cs = {rank, ranks, fds, (uint32_t) o->wait_ms};
    comm_t *c = NULL;
    uint32_t i, n;
    join_cfg_t jc;

    assert(ranks >= 2 && ranks <= COMM_RANKS_MAX && rank < ranks);
    assert(o->wait_ms > 0 && o->wait_ms <= INT32_MAX);

    memset(&jc, 0, sizeof(jc));
    jc.address = o->address;
    jc.rank = rank;
    jc.ranks = ranks;
    jc.wait_ms = o->wait_ms;
    jc.give_up = give_up;
    jc.arg = arg;
    fill_facts(&jc.facts, m, shape);
    if (join_key(jc.key, o->secret, err, errlen) != 0
        || join_all(&jc, fds, err, errlen) != 0) {
        return NULL;
    }

    if (comm_socket_open(&cs, &c, err, errlen) != 0) {
        n = rank == 0 ? ranks : 1;
        for (i = rank == 0 ? 1 : 0; i < n; i++) {
            (void) close(fds[i]);
        }
        return NULL;
    }

    return c;
}


int
group_ready(comm_t *c, const group_opts_t *o, char *err, size_t errlen)
{
    assert(o->silent_ms > 0 && o->silent_ms <= INT32_MAX);

    if (comm_barrier(c) != 0) {
        snprintf(err, errlen, "while weights were loaded: %s", comm_error(c));
        return -1;
    }
    comm_socket_wait(c, (uint32_t) o->silent_ms);

    return 0;
}
