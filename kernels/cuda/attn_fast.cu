// Attention on tensor cores, from the op to its launches.
//
// DESIGN.  Layers of one shape have one plan, which is made with each step: a
// model has as many shapes as it has kinds of layers, one or two.  A shape is
// known from its first call on; then its plan is made on the spot, from the
// rows that plan() left here, and goes to memory of its own.  Later ones travel
// in the step block, where kernels find, at one address, where they are.
//
// Both kinds are launched, one after the other, where a step has both; they
// share slots, of which the plan gives each its own.
//
// Thread: the device's.
#include "attn_fast.cuh"

#include "attn.cuh"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

// Slots of a unit that the device runs at once: a plan makes units longer where
// these do not do, and no bit depends on it.
#define SLOTS_EACH 16

typedef struct {
    attn_shape_t plan;
    uint32_t dim, kv_heads;
    uint32_t max[2], n[2]; // units
    attn_unit_t *units[2]; // host, owned
    attn_list_t *first;    // host: what was copied when it was new
    unsigned char *lists;  // device: the units of that
    uint32_t *came;        // device
} shape_t;

struct attn_fast_s {
    kn_limits_t limits;
    uint32_t processors;
    uint32_t recorded; // rows; 0: launches are not recorded
    int full;          // there was no memory for a shape: there are no more
    int opened[2];     // is a kind's shared memory allowed?
    kn_row_t *rows;
    uint32_t rows_n;
    shape_t shapes[ATTN_SHAPES];
    uint32_t shapes_n;
    float *slots;
    uint64_t slots_size; // floats
    uint64_t bytes;
};

static const attn_kernel_t *const kinds[2] = {&attn_decode, &attn_prefill};

// Units that the device runs at once: blocks, by their shared memory.
static uint32_t
at_once(const attn_fast_t *f, uint32_t kind, uint32_t dim)
{
    uint32_t n = rt_shared_all() / (kinds[kind]->shared(dim) + 1024);

    return f->processors * (n > 2 ? n : kind == ATTN_NARROW ? 2 : 1);
}

attn_fast_t *
attn_fast_open(const kn_limits_t *limits)
{
    attn_fast_t *f = static_cast<attn_fast_t *>(calloc(1, sizeof(*f)));

    if (f == NULL) {
        return NULL;
    }

    f->limits = *limits;
    f->processors = rt_multiprocessors();
    f->slots_size = static_cast<uint64_t>(f->processors) * 2 * SLOTS_EACH
                    * ATTN_ROWS * (limits->head_dim + 2);
    f->bytes = f->slots_size * sizeof(float);
    f->slots = static_cast<float *>(rt_alloc(f->bytes));
    f->rows = static_cast<kn_row_t *>(calloc(limits->rows, sizeof(kn_row_t)));

    if (f->slots == NULL || f->rows == NULL) {
        attn_fast_close(f);
        return NULL;
    }

    return f;
}

static void
shape_end(shape_t *s)
{
    if (s->lists != NULL) {
        rt_free(s->lists);
    }
    if (s->came != NULL) {
        rt_free(s->came);
    }
    if (s->first != NULL) {
        rt_host_free(s->first);
    }
    free(s->units[0]);
    free(s->units[1]);
}

void
attn_fast_close(attn_fast_t *f)
{
    uint32_t i;

    if (f == NULL) {
        return;
    }

    for (i = 0; i < f->shapes_n; i++) {
        shape_end(&f->shapes[i]);
    }
    if (f->slots != NULL) {
        rt_free(f->slots);
    }
    free(f->rows);
    free(f);
}

uint64_t
attn_fast_bytes(const attn_fast_t *f)
{
    return f != NULL ? f->bytes : 0;
}

void
attn_fast_recorded(attn_fast_t *f, uint32_t rows)
{
    f->recorded = rows;
}

int
attn_fast_fits(const attn_fast_t *f, uint32_t rows)
{
    const shape_t *s;
    uint32_t i;

    for (s = f->shapes; s < f->shapes + f->shapes_n; s++) {
        for (i = 0; i < 2; i++) {
            if (s->n[i] > attn_plan_ones(&s->plan, rows, i)) {
                return 0;
            }
        }
    }

    return 1;
}

// The step's plan for a shape; bytes of its units.
static uint64_t
plan_shape(const attn_fast_t *f, shape_t *s)
{
    attn_plan_t p;
    p.units[0] = s->units[0];
    p.units[1] = s->units[1];
    attn_plan(&s->plan, f->rows, f->rows_n, &p);
    assert(p.n[0] <= s->max[0] && p.n[1] <= s->max[1]);
    memcpy(s->n, p.n, sizeof(s->n));

    return (static_cast<uint64_t>(p.n[0]) + p.n[1]) * sizeof(attn_unit_t);
}

// A shape's units, one kind after the other, and where they are; bytes of them.
static uint64_t
put_shape(const shape_t *s, unsigned char *to, const unsigned char *device,
    attn_list_t *lists)
{
    uint64_t at = 0, n;
    uint32_t i;

    for (i = 0; i < 2; i++) {
        n = s->n[i] * sizeof(attn_unit_t);
        memcpy(to + at, s->units[i], n);
        lists[i].units = reinterpret_cast<const attn_unit_t *>(device + at);
        lists[i].n = s->n[i];
        at += n;
    }

    return at;
}

// The same of a shape that is new, behind the step block; 0, or -1 if there is
// no memory.
static int
send_shape(attn_fast_t *f, shape_t *s, attn_list_t *lists, rt_stream_t stream)
{
    uint64_t n = plan_shape(f, s);

    s->first =
        static_cast<attn_list_t *>(rt_host_alloc(2 * sizeof(attn_list_t) + n));
    s->lists = static_cast<unsigned char *>(rt_alloc(n));
    if (s->first == NULL || s->lists == NULL) {
        return -1;
    }

    put_shape(
        s, reinterpret_cast<unsigned char *>(s->first + 2), s->lists, s->first);
    rt_copy_start(s->lists, s->first + 2, n, stream);
    rt_copy_start(lists, s->first, 2 * sizeof(attn_list_t), stream);
    f->bytes += n;

    return 0;
}
uint64_t
attn_fast_plan(attn_fast_t *f, const kn_step_t *step)
{
    uint64_t n = 0;
    uint32_t i;

    assert(step->rows_n <= f->limits.rows);
    memcpy(f->rows, step->rows, step->rows_n * sizeof(*f->rows));
    f->rows_n = step->rows_n;

    for (i = 0; i < f->shapes_n; i++) {
        n += plan_shape(f, &f->shapes[i]);
    }

    return n;
}

void
attn_fast_put(const attn_fast_t *f, unsigned char *to,
    const unsigned char *device, attn_list_t lists[ATTN_SHAPES][2])
{
    uint64_t at = 0;
    uint32_t i;

    for (i = 0; i < f->shapes_n; i++) {
        at += put_shape(&f->shapes[i], to + at, device + at, lists[i]);
    }
}

// Is there a kernel for it?  Copies are of 16 bytes, from multiples of those.
static int
takes(const kn_attn_t *a)
{
    const kn_kv_t *kv = &a->kv;

    return (kv->type == KN_F16 || kv->type == KN_BF16) && !kv->inside
           && kv->head_dim == kv->v_dim && a->scale > 0
           && a->heads % kv->kv_heads == 0
           && (kv->kv.a | kv->stride | kv->k_off | kv->v_off) % 16 == 0
           && (a->q.a | a->y.a) % 16 == 0;
}

// Shared memory that a device lacks is a shape that it has no kernel for.
static int
allows(attn_fast_t *f, uint32_t dim)
{
    uint32_t i;

    for (i = 0; i < 2; i++) {
        if (kinds[i]->queries(dim) == 0
            || kinds[i]->shared(dim) > rt_shared_max()) {
            return 0;
        }
        if (!f->opened[i]) {
            kinds[i]->open(rt_shared_max());
            f->opened[i] = 1;
        }
    }

    return 1;
}

// A shape that has not been seen; NULL if there is no memory or no place, now
// and for good: what a layer computes must not depend on when.
static shape_t *
shape_new(
    attn_fast_t *f, const kn_attn_t *a, attn_list_t *lists, rt_stream_t stream)
{
    shape_t *s = &f->shapes[f->shapes_n];
    uint32_t i, dim = a->kv.head_dim, tiles = 0;

    if (f->full || f->shapes_n == ATTN_SHAPES || !allows(f, dim)) {
        return NULL;
    }
    memset(s, 0, sizeof(*s));
    s->dim = dim;
    s->kv_heads = a->kv.kv_heads;
    s->plan.group = a->kv.group;
    s->plan.share = a->heads / a->kv.kv_heads;
    s->plan.window = a->window;
    s->plan.narrow = attn_decode.queries(dim);
    s->plan.wide = attn_prefill.queries(dim);
    s->plan.slots = static_cast<uint32_t>(
        f->slots_size / (ATTN_ROWS * (dim + 2)) / s->kv_heads);

    for (i = 0; i < 2; i++) {
        s->plan.units[i] = at_once(f, i, dim) / s->kv_heads;
        s->plan.units[i] += s->plan.units[i] == 0;
        s->max[i] = attn_plan_max(&s->plan, &f->limits, i);
        tiles += s->max[i];
        s->units[i] =
            static_cast<attn_unit_t *>(calloc(s->max[i], sizeof(attn_unit_t)));
    }
    s->came = static_cast<uint32_t *>(
        rt_alloc(static_cast<uint64_t>(tiles) * s->kv_heads * 4));
    if (s->units[0] == NULL || s->units[1] == NULL || s->came == NULL
        || send_shape(f, s, lists + 2 * f->shapes_n, stream) != 0) {
        shape_end(s);
        f->full = 1;
        return NULL;
    }

    f->bytes += static_cast<uint64_t>(tiles) * s->kv_heads * 4;
    f->shapes_n++;
    return s;
}

static shape_t *
shape_of(attn_fast_t *f, const kn_attn_t *a)
{
    uint32_t i;
    shape_t *s;

    for (i = 0; i < f->shapes_n; i++) {
        s = &f->shapes[i];
        if (s->plan.group == a->kv.group && s->dim == a->kv.head_dim
            && s->kv_heads == a->kv.kv_heads && s->plan.window == a->window
            && s->plan.share == a->heads / a->kv.kv_heads) {
            return s;
        }
    }

    return NULL;
}

static attn_args_t
args_of(const attn_fast_t *f, const shape_t *s, const kn_attn_t *a)
{
    attn_args_t r;

    memset(&r, 0, sizeof(r));
    r.q = reinterpret_cast<const float *>(a->q.a);
    r.y = reinterpret_cast<float *>(a->y.a);
    r.sinks = reinterpret_cast<const float *>(a->sinks.a);
    r.kv = reinterpret_cast<const unsigned char *>(a->kv.kv.a);
    r.stride = a->kv.stride;
    r.k_off = a->kv.k_off;
    r.v_off = a->kv.v_off;
    r.block_tokens = a->kv.block_tokens;
    r.kv_heads = s->kv_heads;
    r.share = s->plan.share;
    r.window = a->window;
    r.slots = f->slots;
    r.came = s->came;
    attn_factors(&r, a->scale, a->cap);

    return r;
}

int
attn_fast(attn_fast_t *f, const kn_attn_t *a, const attn_step_t *at,
    rt_stream_t stream)
{
    attn_args_t args;
    shape_t *s;
    uint32_t i, n;

    if (!takes(a)) {
        return 0;
    }

    s = shape_of(f, a);
    if (s == NULL && f->recorded == 0) {
        s = shape_new(f, a, at->lists, stream);
    }
    if (s == NULL) {
        return 0;
    }

    args = args_of(f, s, a);
    args.blocks = at->blocks;
    for (i = 0; i < 2; i++) {
        n = f->recorded > 0 ? attn_plan_ones(&s->plan, f->recorded, i)
                            : s->n[i];
        args.list = at->lists + (s - f->shapes) * 2 + i;
        if (n > 0) {
            kinds[i]->launch(&args, s->dim, a->kv.type, n, stream);
        }
    }

    return 1;
}
