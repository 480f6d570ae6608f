/*
 * Output that obeys: a grammar compiled from a regular expression, a JSON
 * schema, an EBNF or a list of choices, the place in it where a text is, and
 * the tokens that may come next.
 *
 *      text --> reader --> rules (grammar_ir) --> automata (grammar_link)
 *                                                      |
 *      bytes of the output --> grammar_feed <----------+
 *      vocabulary (grammar_vocab) --> grammar_mask <---+
 *
 * A grammar is read-only after opening but for its cache of masks, which has a
 * lock: any thread may use it.  A state belongs to one text.
 */
#ifndef GRAMMAR_H
#define GRAMMAR_H

#include "token.h"

#include <stddef.h>
#include <stdint.h>

typedef struct grammar_s grammar_t;
typedef struct grammar_vocab_s grammar_vocab_t;

/* How a grammar is read. All zero is the default. */
typedef struct {
    uint32_t compact;  /* JSON: no white space between tokens; else any */
    uint32_t ordered;  /* JSON: properties in the order of the schema */
    uint32_t lenient;  /* JSON Schema: what cannot be enforced is a warning */
    uint32_t ascii;    /* regex: \d \w are ASCII, as in ECMAScript */
    uint32_t search;   /* regex: a match within the text is enough */
    uint64_t until_us; /* on the monotonic clock; 0: a second from now */
    char *warn;        /* [warn_len], first warning if lenient; may be NULL */
    size_t warn_len;
    size_t masks_max; /* bytes of masks that it keeps; 0: 48 MiB */
} grammar_opts_t;

/*
 * Each returns a grammar, or NULL with one sentence in err: what is wrong, or
 * cannot be enforced, and where.  The text is not needed afterwards.
 */
grammar_t *grammar_open_regex(const char *s, size_t len,
    const grammar_opts_t *o, char *err, size_t errlen);
grammar_t *grammar_open_ebnf(const char *s, size_t len, const grammar_opts_t *o,
    char *err, size_t errlen);
grammar_t *grammar_open_schema(const char *s, size_t len,
    const grammar_opts_t *o, char *err, size_t errlen);
/* Any JSON object. */
grammar_t *grammar_open_json(const grammar_opts_t *o, char *err, size_t errlen);
/*
 * Text with structures in it, as SGLang's and vLLM's structural tags have them,
 * a JSON object:
 *
 *      {"structures": [{"begin": "<f>", "schema": {..}, "end": "</f>"}, ..],
 *       "triggers": ["<f"]}
 *
 * A trigger may only stand where one of the structures begins whose beginning
 * begins with it; behind that is JSON of the schema (without one: any JSON),
 * then the end, then free text again.
 */
grammar_t *grammar_open_tags(const char *s, size_t len, const grammar_opts_t *o,
    char *err, size_t errlen);
/* One of n texts. */
grammar_t *grammar_open_choice(const char *const *s, const size_t *len,
    size_t n, const grammar_opts_t *o, char *err, size_t errlen);

/* Another owner; the last one's close frees it. */
grammar_t *grammar_ref(grammar_t *g);
void grammar_close(grammar_t *g);

/* Bytes of its tables and of its masks so far. */
size_t grammar_memory(const grammar_t *g);

/* --- where in a grammar a text is --------------------------------------- */

/*
 * Plain data behind one pointer: copied for a roll-back.  All zero is none;
 * grammar_begin sets it, grammar_state_free frees it.
 */
typedef struct {
    uint32_t *words; /* owned: stacks, [used] of [cap] */
    uint32_t used, cap;
    uint32_t threads; /* how many stacks; the pairs at the end of words */
} grammar_state_t;

/* 0, or -1: no memory. */
int grammar_begin(const grammar_t *g, grammar_state_t *st);
int grammar_state_copy(grammar_state_t *to, const grammar_state_t *from);
void grammar_state_free(grammar_state_t *st);

/*
 * The next n bytes.  Returns how many were taken: less than n if the byte
 * behind them is not allowed (or no memory); st is moved by those taken.
 */
size_t grammar_feed(
    const grammar_t *g, grammar_state_t *st, const char *s, size_t n);

/* May the text end here? */
int grammar_can_end(const grammar_t *g, const grammar_state_t *st);

/* The bytes that may come next: a bit each in set. */
void grammar_next(
    const grammar_t *g, const grammar_state_t *st, uint64_t set[4]);

/*
 * The bytes that must come next, at most cap of them, into out; st is not
 * moved.  Returns how many: 0 if there is a choice, the text may end, or it is
 * a token that must come (GRAMMAR_TOKEN).
 */
size_t grammar_forced(
    const grammar_t *g, const grammar_state_t *st, char *out, size_t cap);

/* --- tokens ------------------------------------------------------------- */

/*
 * A token that stands for other bytes than its text: a control token, which has
 * none, that a grammar speaks of (tools_marks).
 */
typedef struct {
    uint32_t id;
    const char *s;
    size_t len;
} grammar_mark_t;

/* What such bytes begin with where the token itself is wanted, and not a text
 * that looks like it: no text has it, and tokens of it alone are no tokens. */
#define GRAMMAR_TOKEN "\xff"

/*
 * What all grammars share of a vocabulary: its trie, and the slices computed
 * beforehand.  tok and the texts of n marks are borrowed.  NULL: no memory.
 */
grammar_vocab_t *grammar_vocab_open(
    const token_t *tok, const grammar_mark_t *marks, uint32_t n);
void grammar_vocab_close(grammar_vocab_t *v);

/*
 * The bytes that a grammar is fed when token id was sampled: those of its mark,
 * else its text.  Borrowed from v.  A token that ends a text has none.
 */
const char *grammar_vocab_bytes(
    const grammar_vocab_t *v, uint32_t id, size_t *len);

/* Is there a token that begins with the n bytes at s, and goes on with a byte
 * of next? */
int grammar_vocab_goes_on(
    const grammar_vocab_t *v, const char *s, size_t n, const uint64_t next[4]);

/* Takes the tokens that begin with white space out of a mask. */
void grammar_vocab_no_white(const grammar_vocab_t *v, uint32_t *mask);

/* Words of a mask. */
uint32_t grammar_mask_words(const grammar_vocab_t *v);

/*
 * The tokens allowed next: bit i of the result is token i.  Tokens that end a
 * text are allowed if it may end here.  Borrowed from g until it is closed, or
 * room, which is the caller's and has grammar_mask_words words, when g's cache
 * is full.  NULL: no memory.  v must live as long as g.
 */
const uint32_t *grammar_mask(grammar_t *g, const grammar_vocab_t *v,
    const grammar_state_t *st, uint32_t *room);

#endif
