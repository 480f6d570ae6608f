/*
 * The tries of a vocabulary: grammar_vocab.c makes them, grammar_walk.c walks
 * them, grammar_mask.c keeps what comes of it.  For those three only.
 */
#ifndef GRAMMAR_VOCAB_H
#define GRAMMAR_VOCAB_H

#include "grammar_impl.h"

#include <stdint.h>

#define TOKEN_LEN_MAX 255
#define SHORT_MAX     16 /* characters of tokens that have masks by length */

typedef struct {
    uint32_t end; /* where the subtree ends */
    uint32_t ids; /* in ids: those of the node, up to the next one's; then those
                     of the subtree, up to the end's */
    uint8_t byte, depth;
    uint8_t chars; /* rest: of a string, in a token of the subtree, at most */
    uint8_t wide;  /* its children are listed */
} grammar_node_of_trie_t;

typedef struct {
    uint32_t node;
    uint8_t byte;
} grammar_kid_t;

/* A list of children: those of node, up to where the next list begins. */
typedef struct {
    uint32_t node, kids;
} grammar_wide_t;

typedef struct {
    grammar_node_of_trie_t *nodes; /* owned; one more, which ends ids */
    uint32_t nodes_n;
    uint32_t *ids;  /* owned; token ids in the order of their bytes */
    uint8_t *below; /* owned, [nodes_n]: kinds of all bytes below a node */
    /*
     * Owned.  Children are far from each other: where there are many, those
     * that lead nowhere are told by their list, which is near.  The first list
     * is the roots'; the others' are in the order of their nodes.
     */
    grammar_kid_t *kids;
    grammar_wide_t *wide; /* [wide_n], and an end */
    uint32_t wide_n;
} grammar_trie_t;

typedef struct grammar_walks_s grammar_walks_t;

struct grammar_vocab_s {
    const token_t *tok;    /* borrowed */
    grammar_mark_t *marks; /* owned, [marks_n]; by id */
    uint32_t marks_n;
    uint32_t vocab, words;
    grammar_trie_t all, rest;
    grammar_trie_t tails; /* the rest without the plain text it begins with */
    uint32_t *plain;      /* owned, [words]: text of any JSON string */
    uint32_t *upto[SHORT_MAX]; /* owned, [words]: plain, at most so long */
    uint32_t *longer;          /* owned, [longer_n]: plain and longer */
    uint8_t *chars;            /* owned, [longer_n]: how long */
    uint32_t longer_n;
    uint32_t *ends;         /* owned, [words]: tokens that end a text */
    grammar_walks_t *walks; /* owned; has a lock */
};

/* --- walks (grammar_walk.c) --------------------------------------------- */

typedef struct grammar_walk_s grammar_walk_t;

/* What walks of a grammar have found that does not depend on the stack. */
typedef struct {
    struct grammar_slice_s *first; /* owned */
    size_t room;                   /* bytes that more may take */
} grammar_slices_t;

void grammar_slices_free(grammar_slices_t *slices);

/* The memory of walks with a vocabulary; NULL: none. */
grammar_walks_t *grammar_walks_open(void);
void grammar_walks_close(grammar_walks_t *x);

/* How many frames a walk looked at, and at how many of their counts and sets */
typedef struct {
    uint32_t deep, aux;
} grammar_shape_t;

/*
 * Kinds of characters, a bit each (grammar_text.c).  KIND_NEVER is what no
 * string has as itself, and what is no UTF-8.
 */
#define KIND_OTHER 0x40
#define KIND_NEVER 0x80

/* The kind of the next byte of a token, of which *utf8 is how far a character
 * is under way; 0 at its beginning. */
uint8_t grammar_text_kind(uint8_t byte, uint32_t *utf8);

/* The kinds whose characters all lead from a place to itself, whatever the
 * stack is. */
uint8_t grammar_text_loops(const grammar_t *g, uint32_t pos);

/* (grammar_text.c) How many characters may follow at a place, whichever they
 * are and whatever the stack is; TOKEN_LEN_MAX: as many as a token has; 0:
 * none, or it is not so simple. */
uint32_t grammar_text_left(const grammar_t *g, uint32_t pos);

/*
 * The mask of a state, by a walk, and what of the state it depends on.  0, or
 * -1: no memory.
 */
int grammar_walk(const grammar_t *g, const grammar_vocab_t *v,
    const grammar_state_t *st, uint32_t *mask, grammar_shape_t *shape,
    grammar_slices_t *slices);

#endif
