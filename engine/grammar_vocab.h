/*
 * The tries of a vocabulary: grammar_vocab.c makes them, grammar_mask.c walks
 * them.  For those two only.
 */
#ifndef GRAMMAR_VOCAB_H
#define GRAMMAR_VOCAB_H

#include "grammar_impl.h"

#include <stdint.h>

#define TOKEN_LEN_MAX 255
#define SHORT_MAX     16 /* characters of tokens that have masks by length */

typedef struct {
    uint32_t end; /* where the subtree ends */
    uint32_t ids; /* in ids, those of the node itself */
    uint16_t ids_n;
    uint8_t byte, depth;
} grammar_node_of_trie_t;

typedef struct {
    grammar_node_of_trie_t *nodes; /* owned */
    uint32_t nodes_n;
    uint32_t *ids; /* owned; token ids in the order of their bytes */
} grammar_trie_t;

struct grammar_vocab_s {
    const token_t *tok;    /* borrowed */
    grammar_mark_t *marks; /* owned, [marks_n]; by id */
    uint32_t marks_n;
    uint32_t vocab, words;
    grammar_trie_t all, rest;
    uint32_t *plain;           /* owned, [words]: text of any JSON string */
    uint32_t *upto[SHORT_MAX]; /* owned, [words]: plain, at most so long */
    uint32_t *longer;          /* owned, [longer_n]: plain and longer */
    uint8_t *chars;            /* owned, [longer_n]: how long */
    uint32_t longer_n;
    uint32_t *ends; /* owned, [words]: tokens that end a text */
};

#endif
