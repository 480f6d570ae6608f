/*
 * The shapes of the SGLang paper's programs, as asks.  Few-shot: examples, then
 * a question, and maybe a request for each ending of it; tree of thought: each
 * thought goes on from one before, with the whole path as its prompt.
 */
#ifndef SHAPES_H
#define SHAPES_H

#include "rnd.h"
#include "tree.h"

#define SHAPE_POOL 16384 /* tokens: beside a 7B model in 24 GB */

typedef struct {
    const char *name;
    uint32_t subjects, shots[2]; /* tokens of a subject's examples */
    uint32_t questions, question[2];
    uint32_t endings, ending[2]; /* a request for each */
} few_t;

#define SHAPES_FEW 2
extern const few_t shapes_few[SHAPES_FEW];

/* Tokens [0, n) of a text that no other has. */
void shape_text(asks_t *a, uint32_t name, uint32_t n);

/* Subject by subject, or mixed. */
void shape_few(asks_t *a, const few_t *f, int mixed, rnd_t *r);

/* Depth first one after the other, or that many at once, level by level; each
 * is asked after the thought before it. */
void shape_tree(asks_t *a, uint32_t at_once, rnd_t *r);

#endif
