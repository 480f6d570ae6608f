/*
 * Which layers keep their keys and values together.
 *
 * DESIGN.  Layers that look back equally far need the same positions, so they
 * could share their blocks' table.  But blocks of all groups come from one
 * pool and have one size, that of slots layers: a kind of layers (those with
 * one window) is cut into groups of that many, and the last one may have room
 * to spare.
 *
 *      kinds     full 0 0 0 0 0         window 1 1 1 1 1 1 1 1 1 1 ...
 *      slots 5   | group 0 |            | group 1 | group 2 | ...
 *
 * slots is the number that wastes least, and waste of layers without a window
 * counts more: they hold the whole sequence, however long.  Of equals the
 * larger number is taken, for fewer tables.
 *
 * A window that no sequence outgrows is none.  Models of more kinds than there
 * may be groups have one group of all layers, which is what a count of 0
 * means, too: their windows are a matter of the attention then.
 */
#include "model_impl.h"

#include <assert.h>
#include <string.h>

/* How much more room to spare costs in layers without a window. */
#define FULL_COST 8

typedef struct {
    uint32_t window, layers;
} kind_t;


/* The window of layer i for sequences of context tokens. */
static uint32_t
window_of(const model_t *m, uint32_t i, uint32_t context)
{
    uint32_t window = model_layer(m, i)->window;

    return window < context ? window : 0;
}


/* The kinds in the order of their first layers; 0 if they are too many. */
static uint32_t
find_kinds(const model_t *m, uint32_t context, kind_t *kinds)
{
    uint32_t i, k, n = 0, window;

    for (i = 0; i < model_info(m)->layers; i++) {
        window = window_of(m, i, context);

        for (k = 0; k < n && kinds[k].window != window; k++) { /* none */
        }

        if (k == MODEL_GROUPS_MAX) {
            return 0;
        }

        if (k == n) {
            kinds[n].window = window;
            kinds[n++].layers = 0;
        }

        kinds[k].layers++;
    }

    assert(n >= 1);
    return n;
}


static uint32_t
groups_of(uint32_t layers, uint32_t slots)
{
    assert(slots > 0);
    return (layers + slots - 1) / slots;
}


/* The best number of layers in a block; 0 if none gives few enough groups. */
static uint32_t
best_slots(const kind_t *kinds, uint32_t kinds_n, uint32_t layers)
{
    uint32_t slots, k, n, best = 0;
    uint64_t cost, least = UINT64_MAX;

    for (slots = layers; slots > 0; slots--) {
        for (k = 0, n = 0, cost = 0; k < kinds_n; k++) {
            n += groups_of(kinds[k].layers, slots);
            cost += (uint64_t) groups_of(kinds[k].layers, slots) * slots
                    * (kinds[k].window > 0 ? 1 : FULL_COST);
        }

        if (n <= MODEL_GROUPS_MAX && cost < least) {
            least = cost;
            best = slots;
        }
    }

    return best;
}


void
model_groups(const model_t *m, uint32_t context, model_groups_t *g)
{
    uint32_t k, j, n, layers = model_info(m)->layers;
    kind_t kinds[MODEL_GROUPS_MAX];

    assert(context > 0 && layers > 0);
    memset(g, 0, sizeof(*g));

    n = find_kinds(m, context, kinds);
    g->slots = n > 0 ? best_slots(kinds, n, layers) : 0;

    if (g->slots == 0) {
        g->n = 1;
        g->slots = layers;
        return;
    }

    for (k = 0; k < n; k++) {
        for (j = 0; j < groups_of(kinds[k].layers, g->slots); j++) {
            assert(g->n < MODEL_GROUPS_MAX);
            g->window[g->n++] = kinds[k].window;
        }
    }

    g->context = context;
}


void
model_place(const model_t *m, const model_groups_t *g, uint32_t layer,
    uint32_t *group, uint32_t *slot)
{
    uint32_t i, first, before = 0, window;

    assert(layer < model_info(m)->layers);

    if (g->context == 0) {
        *group = 0;
        *slot = layer;
        return;
    }

    window = window_of(m, layer, g->context);

    for (i = 0; i < layer; i++) {
        before += window_of(m, i, g->context) == window;
    }

    for (first = 0; g->window[first] != window; first++) {
        assert(first + 1 < g->n);
    }

    *group = first + before / g->slots;
    *slot = before % g->slots;
    assert(*group < g->n && g->window[*group] == window);
}
