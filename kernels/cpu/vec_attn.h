/*
 * Attention's small functions over vectors, a part of vec.h.
 *
 * DESIGN.  Queries times keys and weights times values are one product: rows
 * of floats, each number of which is spread over a vector, times a matrix that
 * lies in strips of two vectors, row after row.  So a strip is read in a
 * straight line, an output is one lane of one register from the first term to
 * the last, and there is nothing to be added up in the end:
 *
 *      strip 0                       strip 1
 *      w[0, 0 .. STRIP)              w[0, STRIP .. 2 STRIP)     ...
 *      w[1, 0 .. STRIP)              w[1, STRIP .. 2 STRIP)
 *      ...
 *
 * Values are rows of such a matrix as they are; keys are its columns, which is
 * why they are turned around on the way.  Whatever the cache's type is, what
 * comes out are floats, once for all the queries of a tile.
 *
 * A tile of the product has six rows by one strip, twelve sums in sixteen
 * registers; fewer rows take more strips, so that there are always enough sums
 * on the way to hide how long one addition takes.
 */
#ifndef VEC_ATTN_H
#define VEC_ATTN_H

#define STRIP (2 * LANES)

_Static_assert(CPU_STRIP % STRIP == 0 && CPU_SEEN % STRIP == 0,
    "a strip is a part of what callers leave room for");
_Static_assert(CPU_STEP % STRIP == 0, "a strip is of one block");

/* In place of a type of the cache: w, which is laid out. */
#define STRIPS KN_TYPES

/* Bytes of an element of a type without blocks. */
ALWAYS size_t
kv_bytes(uint32_t type)
{
    return type == KN_F32 ? 4 : 2;
}

/* Bytes of a block of Q8_0, of CPU_STEP elements. */
#define BLOCK (2 + CPU_STEP)

/* Its factor, and LANES elements from number u on. */

ALWAYS vf_t
block_factor(const char *p)
{
    uint16_t h;

    memcpy(&h, p, 2);

    return V(set1)(_cvtsh_ss(h));
}

ALWAYS vf_t
block_part(const char *p, uint32_t u, vf_t d)
{
    return V(mul)(to_floats(load_bytes(p + 2 + u)), d);
}

/* Row e of strips [q, q + P), which begin a block if they are more than one. */
ALWAYS void
strips_load(const cpu_strips_t *a, uint32_t type, const float *w, uint32_t e,
    uint32_t q, uint32_t P, vf_t t[8])
{
    size_t step = (size_t) a->rows * STRIP, at = (size_t) q * STRIP;
    const char *p = type == STRIPS ? NULL : a->cache[e];
    vf_t d = V(setzero)();
    uint32_t u;

    for (u = 0; u < 2 * P; u++) {
        if (type == STRIPS) {
            t[u] = V(load)(w + u / 2 * step + u % 2 * LANES);
        } else if (type == KN_Q8_0) {
            if (u * LANES % CPU_STEP == 0) {
                p = a->cache[e] + (at + u * LANES) / CPU_STEP * BLOCK;
                d = block_factor(p);
            }

            t[u] = block_part(p, (at + u * LANES) % CPU_STEP, d);
        } else {
            t[u] = load(type, p + (at + u * LANES) * kv_bytes(type));
        }
    }
}

/*
 * Rows [i, i + C) by strips [q, q + P), of w or of the cache's rows.  All but
 * a is constant wherever this is inlined, or is a loop's.
 */
ALWAYS void
strips_tile(const cpu_strips_t *a, uint32_t type, uint32_t i, uint32_t q,
    uint32_t C, uint32_t P)
{
    size_t step = (size_t) a->rows * STRIP;
    const float *x[6], *w = a->w;
    float *y[6];
    vf_t sum[6][8], t[8], v;
    uint32_t e, c, u;

    /* in the cache there is no w */
    if (type == STRIPS) {
        w += q * step + (size_t) a->from * STRIP;
    }

    for (c = 0; c < C; c++) {
        x[c] = a->x[i + c];
        y[c] = a->y[i + c] + (size_t) q * STRIP;

        for (u = 0; u < 2 * P; u++) {
            sum[c][u] = a->fresh ? V(setzero)() : V(loadu)(y[c] + u * LANES);
        }
    }

#pragma GCC unroll 4
    for (e = a->from; e < a->to; e++) {
        strips_load(a, type, w, e, q, P, t);

        if (type == STRIPS) {
            w += STRIP;
        }

        for (c = 0; c < C; c++) {
            v = V(set1)(x[c][e]);
            for (u = 0; u < 2 * P; u++) {
                sum[c][u] = V(fmadd)(v, t[u], sum[c][u]);
            }
        }
    }

    for (c = 0; c < C; c++) {
        for (u = 0; u < 2 * P; u++) {
            V(storeu)(y[c] + u * LANES, sum[c][u]);
        }
    }
}

/*
 * Asks for some of what is wanted next, so that the memory works while the
 * multipliers do; number counts the tiles.
 */
ALWAYS void
fetch(const cpu_strips_t *a, uint32_t number)
{
    uint32_t row, some;
    size_t at;

    /* the tiles are about so many, and their last ones may do less */
    some = (a->m + 5) / 6 * ((a->n + STRIP - 1) / STRIP);
    some = (CPU_SEEN + some - 1) / some;

    for (row = number * some; row < (number + 1) * some; row++) {
        for (at = 0; row < CPU_SEEN && at < a->ahead_size; at += 64) {
            _mm_prefetch(a->ahead[row] + at, _MM_HINT_T0);
        }
    }
}

ALWAYS void
strips_rows(const cpu_strips_t *a, uint32_t type, uint32_t i, uint32_t C,
    uint32_t P, uint32_t *number)
{
    uint32_t q, n = (a->n + STRIP - 1) / STRIP;

    for (q = 0; q + P <= n; q += P) {
        if (a->ahead != NULL) {
            fetch(a, (*number)++);
        }

        strips_tile(a, type, i, q, C, P);
    }

    for (; P > 1 && q < n; q++) {
        strips_tile(a, type, i, q, C, 1);
    }
}

/* How many rows of so many go together: as few as can be go by twos. */
ALWAYS uint32_t
strips_height(uint32_t left)
{
    return left == 7 || left == 9 ? 5 : left == 8 ? 4 : left;
}

ALWAYS void
strips_of(const cpu_strips_t *a, uint32_t type)
{
    uint32_t i, number = 0;

    assert(a->m > 0 && a->n > 0 && a->from < a->to && a->to <= a->rows);

    for (i = 0; i < a->m;) {
        switch (strips_height(a->m - i)) {

        case 1:
            strips_rows(a, type, i, 1, 4, &number);
            return;

        case 2:
            strips_rows(a, type, i, 2, 2, &number);
            return;

        case 3:
            strips_rows(a, type, i, 3, 1, &number);
            return;

        case 4:
            strips_rows(a, type, i, 4, 1, &number);
            i += 4;
            break;

        case 5:
            strips_rows(a, type, i, 5, 1, &number);
            i += 5;
            break;

        default:
            strips_rows(a, type, i, 6, 1, &number);
            i += 6;
        }
    }
}

static void
strips(const cpu_strips_t *a)
{
    strips_of(a, STRIPS);
}

/* Elements e to e + 7 of a strip's keys at p, turned around. */
ALWAYS void
turn_halves(uint32_t type, float *to, const char *const *p, uint32_t e)
{
    vi_t a[8], b[8];
    vh_t lo, hi;
    uint32_t i;

    for (i = 0; i < 8; i++) {
        a[i] = gather(p + i, 8, (size_t) e * 2);
    }

    for (i = 0; i < 8; i += 2) {
        b[i] = INT(unpacklo_epi16)(a[i], a[i + 1]);
        b[i + 1] = INT(unpackhi_epi16)(a[i], a[i + 1]);
    }

    for (i = 0; i < 8; i += 4) {
        a[i] = INT(unpacklo_epi32)(b[i], b[i + 2]);
        a[i + 1] = INT(unpackhi_epi32)(b[i], b[i + 2]);
        a[i + 2] = INT(unpacklo_epi32)(b[i + 1], b[i + 3]);
        a[i + 3] = INT(unpackhi_epi32)(b[i + 1], b[i + 3]);
    }

    for (i = 0; i < 4; i++) {
        b[2 * i] = INT(unpacklo_epi64)(a[i], a[i + 4]);
        b[2 * i + 1] = INT(unpackhi_epi64)(a[i], a[i + 4]);
    }

    for (i = 0; i < 8; i++) {
        lo = halves_low(b[i]);
        hi = halves_high(b[i]);
        V(store)(to + i * STRIP, type == KN_F16 ? from_f16(lo) : from_bf16(lo));
        V(store)
        (to + i * STRIP + LANES, type == KN_F16 ? from_f16(hi) : from_bf16(hi));
    }
}

/* Elements e to e + 3 of LANES keys at p, turned around. */
ALWAYS void
turn_floats(float *to, const char *const *p, uint32_t e)
{
    vi_t a[4], b[4];
    uint32_t i;

    for (i = 0; i < 4; i++) {
        a[i] = gather(p + i, 4, (size_t) e * 4);
    }

    for (i = 0; i < 4; i += 2) {
        b[i] = INT(unpacklo_epi32)(a[i], a[i + 1]);
        b[i + 1] = INT(unpackhi_epi32)(a[i], a[i + 1]);
    }

    for (i = 0; i < 2; i++) {
        V(store)
        (to + 2 * i * STRIP, as_floats(INT(unpacklo_epi64)(b[i], b[i + 2])));
        V(store)
        (to + (2 * i + 1) * STRIP,
            as_floats(INT(unpackhi_epi64)(b[i], b[i + 2])));
    }
}

/*
 * Elements e to e + 15 of a strip's keys at p, turned around; d has the keys'
 * factors.
 */
ALWAYS void
turn_bytes(float *to, const char *const *p, size_t e, const vf_t d[2])
{
    vi_t a[8], b[4], c[4];
    vh_t lo, hi;
    uint32_t i, h;

    for (i = 0; i < 8; i++) {
        a[i] = gather(p + i, 8, e);
    }

    /* eight elements: of two keys each, of four, of eight */
    for (h = 0; h < 2; h++) {
        for (i = 0; i < 4; i++) {
            b[i] = h == 0 ? INT(unpacklo_epi8)(a[2 * i], a[2 * i + 1])
                          : INT(unpackhi_epi8)(a[2 * i], a[2 * i + 1]);
        }

        for (i = 0; i < 4; i += 2) {
            c[i] = INT(unpacklo_epi16)(b[i], b[i + 1]);
            c[i + 1] = INT(unpackhi_epi16)(b[i], b[i + 1]);
        }

        for (i = 0; i < 2; i++) {
            b[2 * i] = INT(unpacklo_epi32)(c[i], c[i + 2]);
            b[2 * i + 1] = INT(unpackhi_epi32)(c[i], c[i + 2]);
        }

        for (i = 0; i < 4; i++, to += 2 * STRIP) {
            lo = halves_low(b[i]);
            hi = halves_high(b[i]);
            V(store)(to, V(mul)(to_floats(bytes_low(lo)), d[0]));
            V(store)(to + LANES, V(mul)(to_floats(bytes_low(hi)), d[1]));
            V(store)(to + STRIP, V(mul)(to_floats(bytes_high(lo)), d[0]));
            V(store)
            (to + STRIP + LANES, V(mul)(to_floats(bytes_high(hi)), d[1]));
        }
    }
}

/* A strip of keys in blocks, k elements each. */
ALWAYS void
turn_blocks(float *to, const char *const *p, uint32_t k)
{
    uint16_t h[STRIP];
    uint32_t e, j;
    size_t at;
    vf_t d[2];

    for (e = 0, at = 0; e < k; e += CPU_STEP, at += BLOCK) {
        for (j = 0; j < STRIP; j++) {
            memcpy(&h[j], p[j] + at, 2);
        }

        d[0] = from_f16(load_halves((const char *) h));
        d[1] = from_f16(load_halves((const char *) (h + LANES)));
        turn_bytes(to + (size_t) e * STRIP, p, at + 2, d);
        turn_bytes(to + (size_t) (e + 16) * STRIP, p, at + 18, d);
    }
}

/* A strip of keys, k elements each, at p. */
ALWAYS void
turn_strip(uint32_t type, float *to, const char *const *p, uint32_t k)
{
    float v[LANES];
    uint32_t e, u, i, j;

    if (type == KN_Q8_0) {
        turn_blocks(to, p, k);
        return;
    }

    if (type == KN_F32) {
        for (e = 0; e + 4 <= k; e += 4) {
            turn_floats(to + (size_t) e * STRIP, p, e);
            turn_floats(to + (size_t) e * STRIP + LANES, p + LANES, e);
        }
    } else {
        for (e = 0; e + 8 <= k; e += 8) {
            turn_halves(type, to + (size_t) e * STRIP, p, e);
        }
    }

    for (j = 0; e < k && j < STRIP; j++) {
        u = k - e; /* less than LANES */
        V(storeu)(v, load_part(type, p[j], e, u));

        for (i = 0; i < u; i++) {
            to[(size_t) (e + i) * STRIP + j] = v[i];
        }
    }
}

/* The last strip's missing keys are copies of the last one. */
ALWAYS void
keys(const cpu_rows_t *a, uint32_t type)
{
    const char *p[STRIP];
    uint32_t i, j;

    assert(a->n > 0 && a->n <= CPU_SEEN && a->k > 0);
    assert(a->k % kn_kv_block(type) == 0);

    for (j = 0; j < a->n; j += STRIP) {
        for (i = 0; i < STRIP; i++) {
            p[i] = a->from[j + i < a->n ? j + i : a->n - 1];
        }

        turn_strip(type, a->to + (size_t) j * a->k, p, a->k);
    }
}

/* Elements e and on of a value, of which LANES or fewer are left; 0 behind. */
ALWAYS vf_t
value_part(uint32_t type, const char *from, uint32_t e, uint32_t k)
{
    return e < k ? load_part(type, from, e, k - e < LANES ? k - e : LANES)
                 : V(setzero)();
}

/* A value in blocks. */
ALWAYS void
value_blocks(float *to, const char *from, uint32_t k)
{
    const size_t step = (size_t) STRIP * (CPU_SEEN + 1);
    uint32_t e, u;
    vf_t d;

    for (e = 0; e < k; e += CPU_STEP, from += BLOCK) {
        d = block_factor(from);

        for (u = 0; u < CPU_STEP; u += STRIP, to += step) {
            V(store)(to, block_part(from, u, d));
            V(store)(to + LANES, block_part(from, u + LANES, d));
        }
    }
}

/* What the last strip lacks is zeros. */
ALWAYS void
values(const cpu_rows_t *a, uint32_t type)
{
    const size_t step = (size_t) STRIP * (CPU_SEEN + 1);
    const char *from;
    float *to;
    uint32_t j, e;

    assert(a->n > 0 && a->n <= CPU_SEEN && a->k > 0);
    assert(a->k % kn_kv_block(type) == 0);

    for (j = 0; j < a->n; j++) {
        from = a->from[j];
        to = a->to + (size_t) j * STRIP;

        if (type == KN_Q8_0) {
            value_blocks(to, from, a->k);
            continue;
        }

        for (e = 0; e + STRIP <= a->k; e += STRIP, to += step) {
            V(store)(to, load(type, from));
            V(store)(to + LANES, load(type, from + LANES * kv_bytes(type)));
            from += STRIP * kv_bytes(type);
        }

        if (e < a->k) {
            V(store)(to, value_part(type, a->from[j], e, a->k));
            V(store)(to + LANES, value_part(type, a->from[j], e + LANES, a->k));
        }
    }
}

/* exp(x) as expv() has it, for x <= 0. */
ALWAYS vf_t
exp_below(vf_t x)
{
    vf_t n, r, y;

    x = V(max)(V(set1)(-87.3f), x);
    n = nearest(V(mul)(x, V(set1)(1.44269504f)));
    r = V(fnmadd)(n, V(set1)(0.693145752f), x);
    r = V(fnmadd)(n, V(set1)(1.42860677e-6f), r);

    y = V(set1)(1.0f / 720);
    y = V(fmadd)(y, r, V(set1)(1.0f / 120));
    y = V(fmadd)(y, r, V(set1)(1.0f / 24));
    y = V(fmadd)(y, r, V(set1)(1.0f / 6));
    y = V(fmadd)(y, r, V(set1)(0.5f));
    y = V(fmadd)(y, r, V(set1)(1));
    y = V(fmadd)(y, r, V(set1)(1));

    return scale_by(y, n);
}

static float
softmax(float *w, uint32_t n, float scale, float *max)
{
    vf_t top, sum, v, by = V(set1)(scale);
    float lanes[LANES], m;
    uint32_t e, u;

    assert(scale > 0);
    top = V(set1)(-INFINITY);
    sum = V(setzero)();

    /* max gives its second operand where one is NaN */
    for (e = 0; e + LANES <= n; e += LANES) {
        top = V(max)(V(loadu)(w + e), top);
    }

    if (e < n) {
        top = max_floats(load_floats(w + e, n - e), top, n - e);
    }

    V(storeu)(lanes, top);
    for (m = lanes[0], u = 1; u < LANES; u++) {
        m = lanes[u] > m ? lanes[u] : m;
    }

    *max = m * scale;
    top = V(set1)(*max);

    for (e = 0; e + LANES <= n; e += LANES) {
        v = exp_below(V(sub)(V(mul)(V(loadu)(w + e), by), top));
        V(storeu)(w + e, v);
        sum = V(add)(sum, v);
    }

    if (e < n) {
        u = n - e;
        v = exp_below(V(sub)(V(mul)(load_floats(w + e, u), by), top));
        store_floats(w + e, v, u);
        sum = V(add)(sum, first(v, u));
    }

    return reduce(sum);
}

static void
join(float *y, const float *x, uint32_t n, float by, float with)
{
    vf_t b = V(set1)(by), w = V(set1)(with);
    uint32_t e;

    assert(n % LANES == 0);

    for (e = 0; e < n; e += LANES) {
        V(storeu)
        (y + e, V(fmadd)(V(loadu)(y + e), b, V(mul)(V(loadu)(x + e), w)));
    }
}

#define X(name)                                                                \
    static void keys_##name(const cpu_rows_t *a) { keys(a, KN_##name); }       \
    static void values_##name(const cpu_rows_t *a) { values(a, KN_##name); }   \
    static void mix_##name(const cpu_strips_t *a) { strips_of(a, KN_##name); }
X(F32)
X(F16)
X(BF16)
X(Q8_0)
#undef X

static const cpu_attn_t attn = {
    .keys = {keys_F32, keys_F16, keys_BF16, keys_Q8_0},
    .values = {values_F32, values_F16, values_BF16, values_Q8_0},
    .mix = {mix_F32, mix_F16, mix_BF16, mix_Q8_0},
    .strips = strips,
    .softmax = softmax,
    .join = join,
};

#endif
