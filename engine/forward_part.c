/*
 * How a model is divided among ranks.
 *
 * DESIGN.  A layer meets twice: after attention and after its gate.  Before
 * the meeting each rank has whole outputs of the first matrices and the inputs
 * of the last that belong to them, so that nothing else has to be told:
 *
 *      q, k, v, their biases, sinks   by heads; where there are more ranks
 *                                     than key heads, some have the same one
 *      q and kv_b of latents          by heads; what is common is everyone's
 *      o                              its columns, those of the heads
 *      gate, up                       by rows, their biases too
 *      down                           the columns of these
 *      experts                        each of them as a gate
 *      both ends                      by the vocabulary
 *      norms, routers                 everyone's
 *
 * What is added to a sum, a bias of o or down, is rank 0's.  Experts are cut
 * and not dealt out: whichever experts a token has, all ranks have the same to
 * do, and a token of eight experts reads one rank's part of eight and not all
 * of one.  What it costs are shorter rows.
 *
 * The side of a gate is cut in blocks of down's type, so evenly that ranks
 * differ by one block.  Heads are not cut unevenly: the cache has as many in
 * each rank.
 *
 * No state.  The thread that opens the pass.
 */
#include "forward_part.h"
#include "../kernels/comm.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

/* So much in a piece of the shared side of down. */
static uint32_t
unit_of(const tensor_t *down)
{
    return tensor_block_elems(down->type);
}

static forward_cut_t
cut(uint32_t n, uint32_t unit, uint32_t rank, uint32_t ranks)
{
    forward_cut_t c;

    assert(n % unit == 0 && rank < ranks);
    c.n = comm_part(n / unit, rank, ranks, &c.at) * unit;
    c.at *= unit;
    return c;
}

forward_cut_t
forward_part_ffn(const forward_part_t *p, const tensor_t *down)
{
    assert(p->ranks > 0 && down->dims[0] <= UINT32_MAX);
    return cut((uint32_t) down->dims[0], unit_of(down), p->rank, p->ranks);
}

uint32_t
forward_part_kv_heads(const model_info_t *info, uint32_t ranks)
{
    assert(info->kv_heads > 0 && ranks > 0);
    return info->kv_heads > ranks ? info->kv_heads / ranks : 1;
}

/* -1, with a sentence of what cannot be divided. */
__attribute__((format(printf, 4, 5))) static int
refuse(uint32_t ranks, char *err, size_t errlen, const char *fmt, ...)
{
    int n = snprintf(err, errlen, "tensor_parallel %u: ", ranks);
    va_list args;

    assert(n > 0 && (size_t) n < errlen);
    va_start(args, fmt);
    vsnprintf(err + n, errlen - (size_t) n, fmt, args);
    va_end(args);
    return -1;
}

/* The heads of p; 0 or -1. */
static int
part_heads(forward_part_t *p, const model_info_t *all, char *err, size_t errlen)
{
    uint32_t n = p->ranks, kv = all->kv_heads;

    if (all->heads % n != 0) {
        return refuse(n, err, errlen,
            "expected a number of heads that it divides, found %u", all->heads);
    }

    if (kv % n != 0 && n % kv != 0) {
        return refuse(n, err, errlen,
            "expected a number of key heads that it divides or that divides "
            "it, found %u",
            kv);
    }

    p->info.heads = all->heads / n;
    p->info.kv_heads = forward_part_kv_heads(all, n);
    p->head = p->rank * p->info.heads;
    p->kv_head = (uint32_t) ((uint64_t) kv * p->rank / n);
    assert(p->kv_head + p->info.kv_heads <= kv);
    return 0;
}

/* Layer's matrix o and the norms of its heads; 0 or -1. */
static int
check_heads(
    const forward_part_t *p, const model_layer_t *l, char *err, size_t errlen)
{
    const model_info_t *info = &p->info;
    uint32_t width, unit = tensor_block_elems(l->o->type);

    assert(p->ranks > 1 && info->heads > 0);
    width = info->latent > 0 ? info->value_dim : info->head_dim;

    if (info->heads * width % unit != 0) {
        return refuse(p->ranks, err, errlen,
            "weight \"%s\": expected rows of whole blocks of %u elements for "
            "each rank, found %u of %u heads",
            tensor_shown(l->o->name).s, unit, info->heads * width, info->heads);
    }

    if (info->latent == 0
        && ((l->q_norm != NULL && l->q_norm->dims[0] > info->head_dim)
            || (l->k_norm != NULL && l->k_norm->dims[0] > info->head_dim))) {
        return refuse(p->ranks, err, errlen,
            "expected heads with norms of their own of %u elements, found one "
            "norm of all of them",
            info->head_dim);
    }

    return 0;
}

/* Rank's share of down's blocks, *most growing to it; 0 or -1. */
static int
part_down(const forward_part_t *p, const tensor_t *down, uint32_t *most,
    char *err, size_t errlen)
{
    uint32_t n, blocks = (uint32_t) (down->dims[0] / unit_of(down));

    if (blocks < p->ranks) {
        return refuse(p->ranks, err, errlen,
            "weight \"%s\": expected rows of a block of %u elements for each "
            "rank, found %llu elements",
            tensor_shown(down->name).s, unit_of(down),
            (unsigned long long) down->dims[0]);
    }

    n = forward_part_ffn(p, down).n;
    *most = n > *most ? n : *most;
    return 0;
}

static int
part_layer(forward_part_t *p, const model_layer_t *l, char *err, size_t errlen)
{
    int rc = check_heads(p, l, err, errlen);

    assert(l->router != NULL || l->down != NULL);

    if (rc == 0 && l->router == NULL) {
        rc = part_down(p, l->down, &p->info.ffn, err, errlen);
    }

    if (rc == 0 && l->router != NULL) {
        rc = part_down(p, l->experts_down[0], &p->info.expert_ffn, err, errlen);
    }

    if (rc == 0 && l->shared_down != NULL) {
        rc = part_down(p, l->shared_down, &p->info.shared_ffn, err, errlen);
    }

    return rc;
}

int
forward_part(forward_part_t *p, const model_t *m, uint32_t rank, uint32_t ranks,
    char *err, size_t errlen)
{
    uint32_t i;
    const model_info_t *all = model_info(m);

    assert(ranks >= 1 && rank < ranks);
    p->rank = rank;
    p->ranks = ranks;
    p->info = *all;
    p->head = p->kv_head = 0;
    p->vocab = cut(all->vocab, 1, rank, ranks);

    if (ranks == 1) {
        return 0;
    }

    if (all->vocab < ranks) {
        return refuse(ranks, err, errlen,
            "expected a vocabulary of at least as many, found %u", all->vocab);
    }

    if (part_heads(p, all, err, errlen) != 0) {
        return -1;
    }

    p->info.ffn = p->info.expert_ffn = p->info.shared_ffn = 0;

    for (i = 0; i < all->layers; i++) {
        if (part_layer(p, model_layer(m, i), err, errlen) != 0) {
            return -1;
        }
    }

    return 0;
}
