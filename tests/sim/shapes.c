/*
 * The shapes of the SGLang paper's programs: see shapes.h.
 */
#include "shapes.h"

#include <assert.h>
#include <stdlib.h>

void
shape_text(asks_t *a, uint32_t name, uint32_t n)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        ask_token(a, name * 2654435761u + i);
    }
}


static uint32_t
between(rnd_t *r, uint32_t low, uint32_t high)
{
    return low + rnd_below(r, high - low + 1);
}


/* Puts things in an order that nobody has chosen. */
static void
shuffle(uint32_t *v, uint32_t n, rnd_t *r)
{
    uint32_t i, k, x;

    for (i = n; i > 1; i--) {
        k = rnd_below(r, i);
        x = v[i - 1];
        v[i - 1] = v[k];
        v[k] = x;
    }
}


const few_t shapes_few[SHAPES_FEW] = {
    {"few-shot, 57 subjects", 57, {300, 1000}, 100, {50, 180}, 1, {1, 1}},
    {"20-shot, 4 endings", 1, {2000, 2000}, 1000, {30, 70}, 4, {15, 35}},
};


void
shape_few(asks_t *a, const few_t *f, int mixed, rnd_t *r)
{
    uint32_t n = f->subjects * f->questions, i, e, name = f->subjects, subject;
    uint32_t *order = malloc(n * sizeof(*order));
    uint32_t *shots = malloc(f->subjects * sizeof(*shots)), question;

    assert(order != NULL && shots != NULL);
    for (i = 0; i < f->subjects; i++) {
        shots[i] = between(r, f->shots[0], f->shots[1]);
    }
    for (i = 0; i < n; i++) {
        order[i] = i / f->questions;
    }
    if (mixed) {
        shuffle(order, n, r);
    }

    for (i = 0; i < n; i++, name++) {
        subject = order[i];
        question = between(r, f->question[0], f->question[1]);
        for (e = 0; e < f->endings; e++) {
            ask_begin(a);
            shape_text(a, subject, shots[subject]);
            shape_text(a, name, question);
            if (f->endings > 1) {
                shape_text(a, n + f->subjects + i * f->endings + e,
                    between(r, f->ending[0], f->ending[1]));
            }
            ask_prompt(a, a->v[a->n - 1].n - 1);
            ask_token(a, e); /* the answer */
        }
    }
    free(order);
    free(shots);
}


/* A tree of thought: node k's children are k * BRANCHES + 1 and on. */
enum {
    PROGRAMS = 100,
    BRANCHES = 2,
    LEVELS = 4,
    THOUGHTS = 30, /* 2 + 4 + 8 + 16 */
    QUESTION = 120,
    ADVICE = 40 /* tokens that ask for the next thought */
};

typedef struct {
    uint32_t name;                  /* of the program */
    uint32_t length[THOUGHTS + 1];  /* tokens of each thought; 0: the root */
    uint32_t order[THOUGHTS], done; /* of its thoughts */
    uint32_t asks[THOUGHTS + 1];    /* each thought's; of the root: none */
} thinker_t;


/* The thoughts below k, children behind their parent. */
static void
depth_first(thinker_t *p, uint32_t k, uint32_t *n)
{
    uint32_t i, child;

    for (i = 1; i <= BRANCHES; i++) {
        child = k * BRANCHES + i;
        if (child <= THOUGHTS) {
            p->order[(*n)++] = child;
            depth_first(p, child, n);
        }
    }
}


/* What leads to thought k, and what asks for the next. */
static void
think(asks_t *a, const thinker_t *p, uint32_t k)
{
    uint32_t up = (k - 1) / BRANCHES;

    if (up == 0) {
        shape_text(a, p->name * (THOUGHTS + 1), QUESTION);
    } else {
        think(a, p, up);
        shape_text(a, p->name * (THOUGHTS + 1) + up, p->length[up]);
    }
    shape_text(a, UINT32_MAX, ADVICE);
}


/* Depth first one after the other, or that many at once, level by level. */
void
shape_tree(asks_t *a, uint32_t at_once, rnd_t *r)
{
    thinker_t *p = calloc(at_once, sizeof(*p)), *q;
    uint32_t begun = 0, n = 0, i, k;

    assert(p != NULL);
    while (begun < PROGRAMS || n > 0) {
        for (; n < at_once && begun < PROGRAMS; n++) {
            p[n].name = begun++;
            p[n].done = 0;
            p[n].asks[0] = TREE_NEVER;
            for (i = 0; i < THOUGHTS; i++) {
                p[n].length[i + 1] = between(r, 100, 300);
                p[n].order[i] = i + 1;
            }
            k = 0;
            if (at_once == 1) {
                depth_first(&p[n], 0, &k);
            }
        }

        i = rnd_below(r, n);
        q = &p[i];
        k = q->order[q->done++];
        ask_begin(a);
        think(a, q, k);
        ask_prompt(a, a->v[a->n - 1].n - 1);
        q->asks[k] = (uint32_t) a->n - 1;
        a->v[a->n - 1].after = q->asks[(k - 1) / BRANCHES];
        a->v[a->n - 1].group = q->name;
        shape_text(a, q->name * (THOUGHTS + 1) + k, q->length[k]);
        if (q->done == THOUGHTS) {
            p[i] = p[--n];
        }
    }
    free(p);
}
