/*
 * Where a text is in a grammar, moved a byte at a time.
 *
 * DESIGN.  A thread is a place and the stack of frames above which it runs;
 * mostly there is one, and as many as there are ways to read the text so far
 * where a grammar is ambiguous.  Frames are linked upwards, shared and never
 * changed, so a thread is copied by copying two numbers:
 *
 *      threads          frames
 *      (place, 9) --+-> 9: behind the item, up 5, 2 items so far
 *      (place, 9) --+        5: member, up 2, keys seen {a, c}
 *                                 2: done, up 0
 *
 * A byte is tried where the thread stands, in rules called from there whose
 * first byte it may be, and, where the rule may end, behind the call.  Frames
 * of objects know which keys were seen, those of arrays and counted
 * repetitions how many items there were; what a bound does not ask for is not
 * counted, so that equal places look equal.
 *
 * Whether an object may be closed, go on or have a key is decided so that it
 * can always be brought to an end: a key that may still become only ones that
 * were seen is refused at its first byte that says so.  A key that has no name
 * may be repeated; where there must be several, those count that begin with
 * bytes of their own, so that none is counted twice.
 *
 * More than GRAMMAR_THREADS_MAX threads, or frames than there is room, drop
 * what is newest: a text may then be refused, never wrongly taken.
 *
 * A state owns one block of memory: frames, then threads.
 *
 * Invariants: a frame's up is below it; threads differ in place or stack; none
 * stands in POS_DEAD; the bottom, offset 0, is no frame.  A call takes a byte:
 * a rule that may be nothing is gone around by an edge beside the call, so a
 * place that was just called is not left before it took one.
 *
 * What one byte costs is bounded: threads times the rules that begin with each
 * other (no rule begins with itself) times frames that end at once.
 */
#include "grammar_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define FRAMES_FROM 2                         /* offset 0 is the bottom */
#define STATE_WORDS 256                       /* of a new state */
#define STATE_MAX   (1u << 22)                /* words */
#define STEP_ROOM   8192                      /* words that a byte may want */
#define TOPS_ROOM   (2 * GRAMMAR_THREADS_MAX) /* words of all threads */

enum { F_POS, F_UP, F_COUNT, F_SET };

/* Behind an object's set, where keys without a name must be told from each
 * other: the first byte of the one that is read, and 1; how many different ones
 * there were, with names; the first bytes that they had. */
enum { D_BYTE, D_COUNT, D_BYTES, D_WORDS = D_BYTES + 8 };


/* --- frames ------------------------------------------------------------- */

uint32_t
grammar_frame_words(const grammar_t *g, uint32_t pos)
{
    const grammar_pos_t *p = &g->pos[pos];

    switch (p->kind) {
    case POS_MEMBER:
        return F_SET + g->objects[p->spec].o.words
               + (g->objects[p->spec].distinct ? D_WORDS : 0);
    case POS_ITEMS:
    case POS_COUNT:
        return F_SET;
    default:
        return F_COUNT;
    }
}


/* 0: no room. */
static uint32_t
frame_new(grammar_work_t *w, uint32_t pos, uint32_t up)
{
    uint32_t n = grammar_frame_words(w->g, pos), at = w->used;

    assert(up < w->used);
    if (n > w->cap - w->used) {
        return 0;
    }
    memset(w->words + at, 0, n * sizeof(*w->words));
    w->words[at + F_POS] = pos;
    w->words[at + F_UP] = up;
    w->used += n;

    return at;
}


/* One like frame, with one more counted; 0: no room. */
static uint32_t
frame_count(grammar_work_t *w, uint32_t frame, uint32_t most)
{
    uint32_t pos, at;

    assert(frame != 0 && frame < w->used);
    pos = w->words[frame + F_POS];
    at = frame_new(w, pos, w->words[frame + F_UP]);
    if (at != 0) {
        memcpy(w->words + at + F_COUNT, w->words + frame + F_COUNT,
            (grammar_frame_words(w->g, pos) - F_COUNT) * sizeof(uint32_t));
        w->words[at + F_COUNT] += w->words[at + F_COUNT] < most;
    }

    return at;
}


/* A walk looked at where a frame leads, or at what it counts: that is what its
 * result depends on (grammar_mask.c). */
static inline void
look(grammar_work_t *w, uint32_t frame)
{
    assert(frame != 0 && frame < w->used);

    if (frame < w->base && w->depth[frame] > w->deep) {
        w->deep = w->depth[frame];
    }
}


static inline void
look_aux(grammar_work_t *w, uint32_t frame)
{
    assert(frame != 0 && frame < w->used);

    if (frame < w->base && w->depth[frame] > w->deep_aux) {
        w->deep_aux = w->depth[frame];
    }
}


void
grammar_looked(grammar_work_t *w, uint32_t frame, uint32_t behind)
{
    assert(frame != 0 && frame < w->used);

    look(w, frame);
    look_aux(w, frame);
    look(w, behind);
}


/* Are two stacks alike? */
static int
same(const grammar_work_t *w, uint32_t x, uint32_t y)
{
    uint32_t n;

    while (x != y) {
        if (x == 0 || y == 0 || w->words[x] != w->words[y]) {
            return 0;
        }
        n = grammar_frame_words(w->g, w->words[x]);
        if (memcmp(w->words + x + F_COUNT, w->words + y + F_COUNT,
                (n - F_COUNT) * sizeof(uint32_t))
            != 0) {
            return 0;
        }
        x = w->words[x + F_UP];
        y = w->words[y + F_UP];
    }

    return 1;
}


/* A thread of this step, unless there is one like it.  Beyond the limit it is
 * dropped. */
static void
emit(grammar_work_t *w, uint32_t pos, uint32_t up)
{
    uint32_t i;

    assert(pos != POS_DEAD && pos < w->g->pos_n && up < w->used);
    for (i = 0; i < w->out_n; i++) {
        if (w->out[i].pos == pos && same(w, w->out[i].up, up)) {
            return;
        }
    }
    if (w->out_n < GRAMMAR_THREADS_MAX) {
        w->out[w->out_n].pos = pos;
        w->out[w->out_n++].up = up;
    }
}


/* --- objects ------------------------------------------------------------ */

/* Is i in a set of keys? */
static int
has(const uint32_t *set, uint32_t i)
{
    return set[i / 32] >> i % 32 & 1;
}


/* Is key i required, by the schema, one that was seen, or by which comes? */
static int
is_required(
    const grammar_obj_t *x, const uint32_t *seen, uint32_t i, uint32_t which)
{
    const uint32_t *dep = x->o.deps;
    uint32_t k;

    assert(i < x->o.props);
    if (has(x->o.required, i)) {
        return 1;
    }
    for (k = 0; k < x->o.deps_n; k++, dep += 1 + x->o.words) {
        if ((dep[0] == which || has(seen, dep[0])) && has(dep + 1, i)) {
            return 1;
        }
    }

    return 0;
}


/* How many keys are required and not seen. */
static uint32_t
missing(const grammar_obj_t *x, const uint32_t *seen)
{
    const uint32_t *dep = x->o.deps;
    uint32_t i, k, want, n = 0;

    for (i = 0; i < x->o.words; i++) {
        want = x->o.required[i];
        for (k = 0; k < x->o.deps_n; k++) {
            dep = x->o.deps + (size_t) k * (1 + x->o.words);
            want |= has(seen, dep[0]) ? dep[1 + i] : 0;
        }
        n += (uint32_t) __builtin_popcount(want & ~seen[i]);
    }
    assert(n <= x->o.props);

    return n;
}


/* How many more keys there may be. */
static uint32_t
room(const grammar_obj_t *x, uint32_t count)
{
    assert(count <= x->o.max);

    return x->o.max == GRAMMAR_MANY ? GRAMMAR_MANY : x->o.max - count;
}


/* With properties in order: may i be next?  Not if a key was seen that comes
 * behind it, or one before it was not that is required, if only by i itself. */
static int
in_order(const grammar_obj_t *x, const uint32_t *seen, uint32_t i)
{
    uint32_t k;

    assert(i < x->o.props);
    for (k = 0; k < x->o.props; k++) {
        if (x->o.order[k] > x->o.order[i]
                ? has(seen, k)
                : k != i && !has(seen, k) && is_required(x, seen, k, i)) {
            return 0;
        }
    }

    return 1;
}


/* May key i be the next one, missing_n being missing?  Where there is a bound,
 * there must be room for all that is missing then; a key that requires others
 * is taken for one that requires all, which refuses too much near the bound. */
static int
may_name(const grammar_obj_t *x, const uint32_t *frame, uint32_t missing_n,
    uint32_t i)
{
    const uint32_t *seen = frame + F_SET;
    uint32_t left = room(x, frame[F_COUNT]), more, k;
    const uint32_t *dep = x->o.deps;

    assert(i < x->o.props);
    if (left == 0 || has(seen, i) || x->value[i] == POS_DEAD) {
        return 0;
    }
    if (left != GRAMMAR_MANY) {
        more = missing_n - (uint32_t) is_required(x, seen, i, GRAMMAR_MANY);
        for (k = 0; k < x->o.deps_n; k++, dep += 1 + x->o.words) {
            more += dep[0] == i ? x->o.props : 0;
        }
        if (more > left - 1) {
            return 0;
        }
    }

    return !x->ordered || in_order(x, seen, i);
}


/* May a key that has no name be next? */
static int
may_free(const grammar_obj_t *x, const uint32_t *frame, uint32_t missing_n)
{
    uint32_t left = room(x, frame[F_COUNT]);

    return left > 0 && (left == GRAMMAR_MANY || missing_n <= left - 1)
           && (!x->ordered || missing_n == 0);
}


int
grammar_key_free(grammar_work_t *w, uint32_t pos, uint32_t f)
{
    const grammar_pos_t *p = &w->g->pos[pos];
    const grammar_obj_t *x = &w->g->objects[p->spec];

    assert(p->kind == POS_KEY && f != 0 && f < w->used);
    if (!p->nameless || (x->o.max == GRAMMAR_MANY && !x->ordered)) {
        return p->nameless;
    }
    look_aux(w, f);

    return may_free(x, w->words + f, missing(x, w->words + f + F_SET));
}


/* May what is so far of a key, in pos, become one that may be next? */
static int
key_alive(grammar_work_t *w, const grammar_obj_t *x, uint32_t pos, uint32_t f)
{
    const grammar_pos_t *p = &w->g->pos[pos];
    const uint32_t *frame = w->words + f;
    uint32_t i, n;

    assert(f != 0 && f < w->used && p->hi <= x->o.props);
    if (grammar_key_free(w, pos, f)) {
        return 1;
    }
    look_aux(w, f);
    n = missing(x, frame + F_SET);
    for (i = p->lo; i < p->hi; i++) {
        if (may_name(x, frame, n, i)) {
            return 1;
        }
    }

    return 0;
}


/* What a frame knows of different keys. */
static uint32_t *
distinct_of(const grammar_work_t *w, const grammar_obj_t *x, uint32_t f)
{
    assert(x->distinct && f != 0 && f < w->used);

    return w->words + f + F_SET + x->o.words;
}


/* The first byte of a key: a frame that has it, or f; 0: no room. */
static uint32_t
key_first(grammar_work_t *w, const grammar_obj_t *x, uint32_t pos, uint32_t f,
    uint8_t byte)
{
    const grammar_pos_t *p = &w->g->pos[x->key];

    if (pos != p->next[p->map['"']]) {
        return f;
    }
    look_aux(w, f);
    if (distinct_of(w, x, f)[D_BYTE] == 0) {
        f = frame_count(w, f, 0);
        if (f != 0) {
            distinct_of(w, x, f)[D_BYTE] = 1u + byte;
        }
    }

    return f;
}


/* A key is whole; f is its own frame.  One without a name is another one for
 * certain if none began with its first byte. */
static void
key_counts(grammar_work_t *w, const grammar_obj_t *x, uint32_t f, int named)
{
    uint32_t *d = distinct_of(w, x, f), byte = d[D_BYTE] & 255;

    if (named || !has(d + D_BYTES, byte)) {
        d[D_COUNT] += d[D_COUNT] < x->o.min;
    }
    if (!named) {
        d[D_BYTES + byte / 32] |= 1u << byte % 32;
    }
    d[D_BYTE] = 0;
}


/* A byte of a key.  Behind its closing quote the frame is one that has seen
 * it, and the place what is behind a key of its class. */
static void
step_key(grammar_work_t *w, uint32_t pos, uint32_t f, uint8_t byte)
{
    const grammar_pos_t *p = &w->g->pos[pos];
    const grammar_obj_t *x = &w->g->objects[p->spec];
    uint32_t to, key_class, n;

    assert(p->kind == POS_KEY && f != 0 && f < w->used);
    to = p->next[p->map[byte]];
    if (to == POS_DEAD) {
        return;
    }
    key_class = w->g->pos[to].key_class;
    if (key_class == 0) {
        if (key_alive(w, x, to, f)) {
            f = x->distinct ? key_first(w, x, pos, f, byte) : f;
            if (f != 0) {
                emit(w, to, f);
            }
        }
        return;
    }

    key_class--;
    look_aux(w, f);
    n = missing(x, w->words + f + F_SET);
    if (key_class < x->o.props ? may_name(x, w->words + f, n, key_class)
                               : may_free(x, w->words + f, n)) {
        f = frame_count(w, f, x->counts);
        if (f != 0) {
            if (key_class < x->o.props) {
                w->words[f + F_SET + key_class / 32] |= 1u << key_class % 32;
            }
            if (x->distinct) {
                key_counts(w, x, f, key_class < x->o.props);
            }
            emit(w, x->value[key_class], f);
        }
    }
}


/* May byte stand between tokens of JSON? */
static int
is_white(const grammar_t *g, uint8_t byte)
{
    return g->white
           && (byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t');
}


/* OPEN, NEXT and MEMBER; up is the object's frame. */
static void
step_object(grammar_work_t *w, uint32_t pos, uint32_t f, uint8_t byte)
{
    const grammar_pos_t *p = &w->g->pos[pos];
    const grammar_obj_t *x = &w->g->objects[p->spec];
    uint32_t n;

    assert(p->kind >= POS_OPEN && p->kind <= POS_MEMBER);
    assert(f != 0 && f < w->used);
    if (is_white(w->g, byte)) {
        emit(w, pos, f);
    } else if (byte == ',' && p->kind == POS_MEMBER) {
        if (x->key != POS_DEAD && key_alive(w, x, x->key, f)) {
            emit(w, x->next, f);
        }
    } else if (byte == (x->o.array ? ']' : '}') && p->kind != POS_NEXT) {
        look_aux(w, f);
        n = x->distinct ? distinct_of(w, x, f)[D_COUNT] : w->words[f + F_COUNT];
        if (n >= x->o.min && missing(x, w->words + f + F_SET) == 0) {
            look(w, f);
            emit(w, POS_DONE, w->words[f + F_UP]);
        }
    } else if (p->kind != POS_MEMBER && x->key != POS_DEAD) {
        step_key(w, x->key, f, byte);
    }
}


/* --- steps -------------------------------------------------------------- */

static void step(
    grammar_work_t *w, uint32_t pos, uint32_t up, uint8_t byte, int fresh);


/* Calls a rule that may begin with byte; up: what is behind it. */
static void
call(grammar_work_t *w, uint32_t rule, uint32_t up, uint8_t byte)
{
    const grammar_t *g = w->g;
    const grammar_rule_t *r = &g->rules[rule];
    uint32_t f;

    assert(rule < g->rules_n && up < w->used);
    if (!(r->first[byte / 64] >> byte % 64 & 1)) {
        return;
    }
    if (r->kind == RULE_PLAIN) {
        step(w, r->pos, up, byte, 1);
        return;
    }

    f = frame_new(w,
        r->kind == RULE_OBJECT  ? r->pos + 2
        : r->kind == RULE_ARRAY ? r->pos + 2
                                : r->pos,
        up);
    if (f == 0) {
        return;
    }
    if (r->kind == RULE_COUNT) {
        step(w, r->pos, f, byte, 1);
    } else {
        emit(w, r->pos, f);
    }
}


/* An item begins: the frame that it ends in has it counted. */
static void
step_item(
    grammar_work_t *w, uint32_t rule, uint32_t f, uint32_t most, uint8_t byte)
{
    uint32_t n = w->used, outs = w->out_n, was = w->words[f + F_COUNT];

    assert(rule < w->g->rules_n);
    if (!(w->g->rules[rule].first[byte / 64] >> byte % 64 & 1)) {
        return;
    }
    /* the same frame will do if nothing is counted */
    if (was < most) {
        f = frame_count(w, f, most);
        if (f == 0) {
            return;
        }
    }
    call(w, rule, f, byte);
    if (w->out_n == outs) {
        w->used = n;
    }
}


/* FIRST, ITEM and ITEMS; f is the array's frame. */
static void
step_array(grammar_work_t *w, uint32_t pos, uint32_t f, uint8_t byte)
{
    const grammar_pos_t *p = &w->g->pos[pos];
    const grammar_arr_t *x = &w->g->arrays[p->spec];
    uint32_t n;

    assert(p->kind >= POS_FIRST && p->kind <= POS_ITEMS);
    assert(f != 0 && f < w->used);
    n = w->words[f + F_COUNT];
    if (x->counts > 0) {
        look_aux(w, f);
    }
    if (is_white(w->g, byte)) {
        emit(w, pos, f);
    } else if (byte == ']' && p->kind != POS_ITEM) {
        if (n >= x->min) {
            look(w, f);
            emit(w, POS_DONE, w->words[f + F_UP]);
        }
    } else if (p->kind == POS_ITEMS) {
        if (byte == ',' && n < x->max) {
            emit(w, x->item, f);
        }
    } else if (n < x->max) {
        step_item(
            w, n < x->prefix_n ? x->prefix[n] : x->rest, f, x->counts, byte);
    }
}


/* Goes on behind a frame that ended: the place, and what it runs above. */
static void
leave(grammar_work_t *w, uint32_t f, uint32_t *pos, uint32_t *up)
{
    look(w, f);
    *pos = w->words[f + F_POS];
    *up = w->g->pos[*pos].kind == POS_PLAIN ? w->words[f + F_UP] : f;
}


/* The place and its calls; behind it, while it may end.  fresh: a call, which
 * takes a byte: what calls goes around one that may be nothing itself. */
static void
step(grammar_work_t *w, uint32_t pos, uint32_t up, uint8_t byte, int fresh)
{
    const grammar_t *g = w->g;
    const grammar_pos_t *p;
    const grammar_link_t *c;
    const grammar_cnt_t *x;
    uint32_t i, to, n, outs;

    for (;;) {
        p = &g->pos[pos];
        if (p->kind == POS_KEY) {
            step_key(w, pos, up, byte);
            return;
        }
        if (p->kind >= POS_OPEN && p->kind <= POS_MEMBER) {
            step_object(w, pos, up, byte);
            return;
        }
        if (p->kind >= POS_FIRST && p->kind <= POS_ITEMS) {
            step_array(w, pos, up, byte);
            return;
        }

        if (p->kind == POS_COUNT) {
            x = &g->counts[p->spec];
            look_aux(w, up);
            n = w->words[up + F_COUNT];
            if (n < x->max) {
                step_item(w, x->rule, up, x->counts, byte);
            }
            if (n < x->min || fresh) {
                return;
            }
            look(w, up);
            up = w->words[up + F_UP];
        } else {
            to = p->map == NULL ? POS_DEAD : p->next[p->map[byte]];
            if (to != POS_DEAD) {
                emit(w, to, up);
            }
            for (i = 0; i < p->calls_n; i++) {
                c = &g->calls[p->calls + i];
                if (!(g->rules[c->rule].first[byte / 64] >> byte % 64 & 1)) {
                    continue;
                }
                /* what has nothing to do behind the call is not gone back to */
                n = w->used;
                outs = w->out_n;
                to = c->to == POS_DONE ? up : frame_new(w, c->to, up);
                if (to != 0 || c->to == POS_DONE) {
                    call(w, c->rule, to, byte);
                }
                if (w->out_n == outs) {
                    w->used = n;
                }
            }
            if (!p->accept || fresh) {
                return;
            }
        }
        if (up == 0) {
            w->deep = UINT32_MAX;
            return;
        }
        leave(w, up, &pos, &up);
    }
}


uint32_t
grammar_step(
    grammar_work_t *w, const grammar_thread_t *in, uint32_t n, uint8_t byte)
{
    uint32_t i;

    assert(n <= GRAMMAR_THREADS_MAX && w->used >= FRAMES_FROM);
    w->out_n = 0;
    for (i = 0; i < n; i++) {
        step(w, in[i].pos, in[i].up, byte, 0);
    }

    return w->out_n;
}


/* --- what a byte may be ------------------------------------------------- */

static void
first_byte(uint64_t set[4], uint8_t byte)
{
    set[byte / 64] |= UINT64_C(1) << byte % 64;
}


static void
first_rule(const grammar_t *g, uint32_t rule, uint64_t set[4])
{
    uint32_t i;

    assert(rule < g->rules_n);
    for (i = 0; i < 4; i++) {
        set[i] |= g->rules[rule].first[i];
    }
}


static void
first_row(const grammar_pos_t *p, uint64_t set[4])
{
    uint32_t i;

    for (i = 0; i < 256 && p->map != NULL; i++) {
        set[i / 64] |= (uint64_t) (p->next[p->map[i]] != POS_DEAD) << i % 64;
    }
}


/* Of an object or array: white space, what separates, ends or begins. */
static void
first_frame(grammar_work_t *w, uint32_t pos, uint32_t f, uint64_t set[4])
{
    const grammar_t *g = w->g;
    const grammar_pos_t *p = &g->pos[pos];
    const grammar_arr_t *x;
    uint32_t n;

    if (g->white) {
        first_byte(set, ' ');
        first_byte(set, '\t');
        first_byte(set, '\n');
        first_byte(set, '\r');
    }
    first_byte(set, ',');
    first_byte(set, ']');
    first_byte(set, '}');
    if (p->kind == POS_FIRST || p->kind == POS_ITEM) {
        look_aux(w, f);
        x = &g->arrays[p->spec];
        n = w->words[f + F_COUNT];
        if (n < x->max) {
            first_rule(g, n < x->prefix_n ? x->prefix[n] : x->rest, set);
        }
    } else if (p->kind == POS_OPEN || p->kind == POS_NEXT) {
        first_row(&g->pos[g->objects[p->spec].key], set);
    }
}


/* As step goes, but for what an object or array says beyond its kind.  What is
 * looked at is looked at by each step too. */
void
grammar_first(grammar_work_t *w, uint32_t pos, uint32_t up, uint64_t set[4])
{
    const grammar_t *g = w->g;
    const grammar_pos_t *p;
    const grammar_cnt_t *x;
    uint32_t i, n;

    for (;;) {
        p = &g->pos[pos];
        if (p->kind == POS_KEY) {
            first_row(p, set);
            return;
        }
        if (p->kind != POS_PLAIN && p->kind != POS_COUNT) {
            first_frame(w, pos, up, set);
            return;
        }
        if (p->kind == POS_COUNT) {
            x = &g->counts[p->spec];
            look_aux(w, up);
            n = w->words[up + F_COUNT];
            if (n < x->max) {
                first_rule(g, x->rule, set);
            }
            if (n < x->min) {
                return;
            }
            look(w, up);
            up = w->words[up + F_UP];
        } else {
            first_row(p, set);
            for (i = 0; i < p->calls_n; i++) {
                first_rule(g, g->calls[p->calls + i].rule, set);
            }
            if (!p->accept) {
                return;
            }
        }
        if (up == 0) {
            w->deep = UINT32_MAX;
            return;
        }
        leave(w, up, &pos, &up);
    }
}


int
grammar_ends(grammar_work_t *w, const grammar_thread_t *in, uint32_t n)
{
    const grammar_pos_t *p;
    uint32_t i, pos, up;

    for (i = 0; i < n; i++) {
        pos = in[i].pos;
        up = in[i].up;
        for (;;) {
            p = &w->g->pos[pos];
            if (p->kind == POS_COUNT) {
                look_aux(w, up);
                if (w->words[up + F_COUNT] < w->g->counts[p->spec].min) {
                    break;
                }
                look(w, up);
                up = w->words[up + F_UP];
            } else if (p->kind != POS_PLAIN || !p->accept) {
                break;
            }
            if (up == 0) {
                w->deep = UINT32_MAX;
                return 1;
            }
            leave(w, up, &pos, &up);
        }
    }

    return 0;
}


/* --- states ------------------------------------------------------------- */

/* Threads lie behind the frames. */
static grammar_thread_t *
threads_of(const grammar_state_t *st)
{
    assert(st->used <= st->cap);

    return (grammar_thread_t *) (void *) (st->words + st->used);
}


/* Room for so many words. 0, or -1: no memory, or too many. */
static int
state_room(grammar_state_t *st, uint32_t need)
{
    uint32_t cap = st->cap < STATE_WORDS ? STATE_WORDS : st->cap, *p;

    assert(st->used <= st->cap);
    if (need <= st->cap) {
        return 0;
    }
    while (cap < need) {
        cap *= 2;
    }
    p = cap > STATE_MAX ? NULL : realloc(st->words, cap * sizeof(*p));
    if (p == NULL) {
        return -1;
    }
    st->words = p;
    st->cap = cap;

    return 0;
}


int
grammar_begin(const grammar_t *g, grammar_state_t *st)
{
    if (state_room(st, STATE_WORDS) != 0) {
        return -1;
    }
    st->words[0] = st->words[1] = 0;
    st->used = FRAMES_FROM;
    st->threads = 1;
    threads_of(st)->pos = g->root;
    threads_of(st)->up = 0;
    assert(g->root != POS_DEAD);

    return 0;
}


int
grammar_state_copy(grammar_state_t *to, const grammar_state_t *from)
{
    uint32_t n = from->used + 2 * from->threads;

    if (state_room(to, n) != 0) {
        return -1;
    }
    assert(n <= from->cap);
    memcpy(to->words, from->words, n * sizeof(*to->words));
    to->used = from->used;
    to->threads = from->threads;

    return 0;
}


void
grammar_state_free(grammar_state_t *st)
{
    assert(st->used <= st->cap);

    free(st->words);
    memset(st, 0, sizeof(*st));
}


/* Drops frames that no thread runs above; those left keep their order.  moved
 * has room for a number for each word. */
static void
compact(grammar_work_t *w, grammar_thread_t *t, uint32_t n, uint32_t *moved)
{
    uint32_t i, f, size, to = FRAMES_FROM;

    memset(moved, 0, w->used * sizeof(*moved));
    for (i = 0; i < n; i++) {
        for (f = t[i].up; f != 0 && moved[f] == 0; f = w->words[f + F_UP]) {
            moved[f] = 1;
        }
    }
    for (f = FRAMES_FROM; f < w->used; f += size) {
        size = grammar_frame_words(w->g, w->words[f]);
        if (moved[f]) {
            moved[f] = to;
            memmove(w->words + to, w->words + f, size * sizeof(*w->words));
            w->words[to + F_UP] = moved[w->words[to + F_UP]];
            to += size;
        }
    }
    for (i = 0; i < n; i++) {
        t[i].up = moved[t[i].up];
        assert(t[i].up < to);
    }
    w->used = to;
}


size_t
grammar_feed(const grammar_t *g, grammar_state_t *st, const char *s, size_t n)
{
    grammar_thread_t t[2][GRAMMAR_THREADS_MAX];
    grammar_work_t w = {.g = g};
    uint32_t k = st->threads, now = 0, *moved, from = st->used;
    size_t i;

    assert(st->used <= st->cap);
    memcpy(t[0], threads_of(st), k * sizeof(t[0][0]));
    w.used = st->used;
    for (i = 0; i < n; i++) {
        if (state_room(st, w.used + STEP_ROOM + TOPS_ROOM) != 0) {
            break;
        }
        w.words = st->words;
        w.cap = st->cap - TOPS_ROOM;
        w.out = t[1 - now];
        if (grammar_step(&w, t[now], k, (uint8_t) s[i]) == 0) {
            break;
        }
        k = w.out_n;
        now = 1 - now;

        if (w.used - from > STEP_ROOM || (i + 1 == n && w.used > from)) {
            moved = malloc(w.used * sizeof(*moved));
            if (moved != NULL) {
                compact(&w, t[now], k, moved);
                free(moved);
                from = w.used;
            }
        }
    }

    /* frames leave room for them, so that this cannot fail */
    st->used = w.used;
    st->threads = k;
    assert(st->used + 2 * k <= st->cap);
    memcpy(threads_of(st), t[now], k * sizeof(t[0][0]));

    return i;
}


int
grammar_can_end(const grammar_t *g, const grammar_state_t *st)
{
    grammar_work_t w = {.g = g, .words = st->words, .used = st->used};

    assert(st->used <= st->cap);
    return grammar_ends(&w, threads_of(st), st->threads);
}


void
grammar_next(const grammar_t *g, const grammar_state_t *st, uint64_t set[4])
{
    grammar_thread_t t[GRAMMAR_THREADS_MAX];
    grammar_state_t own = {NULL, 0, 0, 0};
    grammar_work_t w = {.g = g, .out = t};
    uint32_t byte;

    assert(st->used <= st->cap);
    memset(set, 0, 4 * sizeof(set[0]));
    if (state_room(&own, st->used + STEP_ROOM) != 0) {
        return;
    }
    memcpy(own.words, st->words, st->used * sizeof(*own.words));
    w.words = own.words;
    w.cap = own.cap;
    for (byte = 0; byte < 256; byte++) {
        w.used = st->used;
        if (grammar_step(&w, threads_of(st), st->threads, (uint8_t) byte) > 0) {
            set[byte / 64] |= UINT64_C(1) << byte % 64;
        }
    }
    grammar_state_free(&own);
}


size_t
grammar_forced(
    const grammar_t *g, const grammar_state_t *st, char *out, size_t cap)
{
    grammar_state_t at = {NULL, 0, 0, 0};
    uint64_t set[4];
    uint32_t i, many;
    size_t n = 0;

    assert(st->used <= st->cap);
    if (grammar_state_copy(&at, st) != 0) {
        return 0;
    }
    while (n < cap && !grammar_can_end(g, &at)) {
        grammar_next(g, &at, set);
        for (i = many = 0; i < 4; i++) {
            many += (uint32_t) __builtin_popcountll(set[i]);
        }
        if (many != 1) {
            break;
        }
        for (i = 0; set[i] == 0; i++) {
        }
        out[n] = (char) (i * 64 + (uint32_t) __builtin_ctzll(set[i]));
        /* a token has no text that could stand for it */
        if (out[n] == GRAMMAR_TOKEN[0]
            || grammar_feed(g, &at, out + n, 1) != 1) {
            break;
        }
        n++;
    }
    grammar_state_free(&at);

    return n;
}
