/*
 * Asks: what is asked of a prefix cache, one request after the other; and two
 * caches on the same tree to hold the shipped one against.
 */
#ifndef TREE_H
#define TREE_H

#include <stddef.h>
#include <stdint.h>

#define TREE_NEVER UINT32_MAX

/* A request: its tokens, of which the first `most` may be found. */
typedef struct {
    size_t from; /* in tokens */
    uint32_t n, prompt, most;
    uint32_t after; /* the ask whose answer it needs; TREE_NEVER: none */
    uint32_t group; /* of asks that need each other */
} ask_t;

typedef struct {
    ask_t *v; /* owned, as are the tokens */
    size_t n, cap;
    uint32_t *tokens;
    size_t tokens_n, tokens_cap;
    uint32_t longest; /* tokens of an ask */
} asks_t;

/* Begins an ask; its tokens follow, those behind prompt are generated. */
void ask_begin(asks_t *a);
void ask_token(asks_t *a, uint32_t token);
void ask_prompt(asks_t *a, uint32_t most); /* the prompt ends here */
void asks_free(asks_t *a);

/* The tree of all blocks that are ever asked for: paths[at[i] .. at[i + 1])
 * are the nodes of ask i. */
typedef struct {
    const asks_t *asks; /* borrowed */
    uint32_t block_tokens;
    uint32_t nodes;
    uint32_t *parent; /* [nodes] owned, as are all below */
    uint32_t *paths;
    uint32_t *next; /* like paths: the next ask with that node */
    size_t *at;     /* [asks + 1] */
} tree_t;

void tree_open(tree_t *t, const asks_t *a, uint32_t block_tokens);
void tree_close(tree_t *t);

typedef enum {
    TREE_LRU, /* the leaf goes whose last use is longest ago */
    TREE_BEST /* whose next use is farthest: nobody can do better */
} tree_rule_t;

/* Blocks found, of a cache of that many blocks. */
uint64_t tree_hits(const tree_t *t, tree_rule_t rule, uint32_t blocks);

/* By trying every choice: for trees of up to 32 nodes and short loads. */
uint64_t tree_hits_tried(const tree_t *t, uint32_t blocks);

/* Blocks of all asks that might be found. */
uint64_t tree_asked(const tree_t *t);

#endif
