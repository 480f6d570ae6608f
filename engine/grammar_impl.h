/*
 * What the files of the grammar share: how rules are built (grammar_ir.c),
 * turned into automata (grammar_nfa.c, grammar_dfa.c, grammar_link.c), and
 * walked (grammar_match.c).  For those only.
 */
#ifndef GRAMMAR_IMPL_H
#define GRAMMAR_IMPL_H

#include "grammar.h"

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* Limits: what a real grammar stays far below, and a hostile one runs into. */
#define GRAMMAR_NODES_MAX  (1u << 20)
#define GRAMMAR_NFA_MAX    (1u << 19) /* states of one rule */
#define GRAMMAR_DFA_MAX    (1u << 16) /* states of one rule */
#define GRAMMAR_RULES_MAX  (1u << 14)
#define GRAMMAR_MEMORY_MAX ((size_t) 96 << 20)
#define GRAMMAR_MASKS_MAX  ((size_t) 48 << 20)
#define GRAMMAR_DEPTH_MAX  200 /* of nesting in what is read */
#define GRAMMAR_TEXT_MAX   (1u << 20)
#define GRAMMAR_COPIES_MAX 1024       /* of a repetition; more are counted */
#define GRAMMAR_MANY       UINT32_MAX /* of a repetition: no bound */

/* --- memory and failure (grammar_ir.c) ---------------------------------- */

typedef struct grammar_chunk_s grammar_chunk_t;

/* Memory that is freed at once.  What it holds is bounded, GRAMMAR_MEMORY_MAX:
 * its chunks, and in a build all that is allocated beside them. */
typedef struct {
    grammar_chunk_t *chunks;
    size_t used, held;
} grammar_arena_t;

void *grammar_arena_get(grammar_arena_t *a, size_t n); /* zeroed; NULL: none */
void grammar_arena_free(grammar_arena_t *a);

/* A set of code points: ranges in order that do not touch. */
typedef struct {
    uint32_t lo, hi;
} grammar_range_t;

typedef struct {
    grammar_range_t *r; /* owned, malloc */
    uint32_t n, cap;
} grammar_set_t;

/* A rule that is called from a state, and the state behind it. */
typedef struct {
    uint32_t sym, to;
} grammar_call_t;

/*
 * An automaton; state 0 is dead, 1 is where it begins.  One without ways on has
 * only the former.  Its memory is the build's.
 */
typedef struct {
    uint32_t states, classes;
    uint8_t map[256];  /* byte to class */
    uint32_t *next;    /* [states * classes] */
    uint32_t *accept;  /* [states]: 0, or 1 + what is accepted */
    uint32_t *call_at; /* [states + 1]: into calls; NULL: none */
    grammar_call_t *calls;
} grammar_dfa_t;

/* --- rules -------------------------------------------------------------- */

enum {
    NODE_NEVER, /* no text */
    NODE_EMPTY,
    NODE_BYTES, /* a: offset in text, b: length */
    NODE_SET,   /* a: which set; json: as within a JSON string */
    NODE_BYTE,  /* any byte of a to b */
    NODE_SEQ,   /* kids [a, a + b) */
    NODE_ALT,
    NODE_REP,   /* a: what; min, max */
    NODE_REF,   /* a: rule */
    NODE_DFA,   /* a: which automaton, which may call rules */
    NODE_BEGIN, /* only where the text begins */
    NODE_END
};

typedef struct {
    uint8_t kind, json;
    uint32_t a, b, min, max;
} grammar_node_t;

typedef struct {
    const char *s;
    uint32_t len;
} grammar_str_t;

/*
 * A JSON object whose keys come in any order: the set of those seen is the
 * matcher's, so there is no state for each order or set of keys.  Names come
 * first among the classes, in the order of their bytes; behind them one class
 * for each way in which other keys are told apart.
 *
 * Or an array whose items are each there once: they are the keys then, and no
 * value is behind one.
 */
typedef struct {
    uint32_t array;     /* it is one */
    uint32_t props;     /* keys known by name: classes [0, props), sorted */
    uint32_t classes;   /* of keys */
    uint32_t *rule;     /* [classes] of their values */
    uint32_t *order;    /* [props] place in the schema */
    uint32_t words;     /* of a set of props */
    uint32_t *required; /* [words] */
    uint32_t min, max;
    uint32_t deps_n;
    uint32_t *deps;     /* [deps_n][1 + words]: who, and whom it requires */
    grammar_dfa_t *key; /* with its quotes; accepts 1 + class */
} grammar_object_t;

typedef struct {
    uint32_t prefix_n;
    uint32_t *prefix; /* [prefix_n] rules */
    uint32_t rest;    /* rule of what is behind; GRAMMAR_MANY: none may be */
    uint32_t min, max;
} grammar_array_t;

typedef struct {
    uint32_t rule, min, max;
} grammar_count_t;

enum { RULE_PLAIN, RULE_OBJECT, RULE_ARRAY, RULE_COUNT };

typedef struct {
    uint8_t kind;
    uint8_t nullable, productive;
    uint32_t node; /* PLAIN */
    union {
        grammar_object_t *object;
        grammar_array_t *array;
        grammar_count_t count;
    } u;
    const char *name;   /* for messages; may be NULL */
    grammar_dfa_t *dfa; /* PLAIN: compiled */
    uint32_t pos;       /* where it begins */
    uint64_t first[4];  /* bytes that it may begin with */
} grammar_rule_t;

/* A compilation.  Failure sticks: later calls do nothing. */
typedef struct {
    grammar_opts_t o;
    grammar_arena_t mem;
    int failed;
    uint32_t spent; /* steps since the clock was read */
    char *err;
    size_t errlen;
    grammar_node_t *nodes; /* malloc */
    uint32_t nodes_n, nodes_cap;
    uint32_t *kids;
    uint32_t kids_n, kids_cap;
    grammar_rule_t *rules;
    uint32_t rules_n, rules_cap;
    grammar_set_t *sets;
    uint32_t sets_n, sets_cap;
    grammar_dfa_t **dfas;
    uint32_t dfas_n, dfas_cap;
    char *text;
    uint32_t text_n, text_cap;
    struct grammar_unicode_s *unicode; /* owned; NULL: not asked for yet */
    /* rules that readers of JSON make once */
    uint32_t json_any, json_string, json_number, json_integer;
    uint32_t json_array, json_object;
    const grammar_dfa_t *only; /* what strings of JSON and keys are texts of,
                                * where not all may be: all without "<" must;
                                * NULL: all */
} grammar_build_t;

void grammar_build_open(
    grammar_build_t *b, const grammar_opts_t *o, char *err, size_t errlen);
void grammar_build_close(grammar_build_t *b);

/* The first sentence stays. Always 0, the node that is never. */
uint32_t grammar_fail(grammar_build_t *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/*
 * Nonzero if failed, or out of time: called wherever work is done, with how
 * many steps of a few nanoseconds it takes.  grammar_tick is for one of the
 * usual size.
 */
int grammar_spend(grammar_build_t *b, size_t steps);
int grammar_tick(grammar_build_t *b);
/* From b's memory, zeroed; NULL if failed, or there is no more. */
void *grammar_get(grammar_build_t *b, size_t n);
/* Counts n bytes that are allocated elsewhere; 0, or -1: failed, too many. */
int grammar_hold(grammar_build_t *b, size_t n);
void grammar_drop(grammar_build_t *b, size_t n);
/* Work memory, zeroed; NULL: failed.  It is given back with its size. */
void *grammar_scratch(grammar_build_t *b, size_t n);
void grammar_scratch_free(grammar_build_t *b, void *p, size_t n);
/* Room for one more in a vector of malloc; 0, or -1: failed.  One that is freed
 * without grammar_room_free stays counted. */
int grammar_room(
    grammar_build_t *b, void *v, uint32_t n, uint32_t *cap, size_t size);
void grammar_room_free(grammar_build_t *b, void *v, uint32_t *cap, size_t size);

/* Says where what failed is: goes before the sentence. */
void grammar_fail_at(grammar_build_t *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Nodes. A failed one is 0, NEVER. */
uint32_t grammar_empty(grammar_build_t *b);
uint32_t grammar_bytes(grammar_build_t *b, const char *s, size_t len);
uint32_t grammar_byte(grammar_build_t *b, uint8_t lo, uint8_t hi);
uint32_t grammar_set_node(grammar_build_t *b, grammar_set_t *s, int json);
uint32_t grammar_seq(grammar_build_t *b, const uint32_t *kids, uint32_t n);
uint32_t grammar_alt(grammar_build_t *b, const uint32_t *kids, uint32_t n);
uint32_t grammar_seq2(grammar_build_t *b, uint32_t x, uint32_t y);
uint32_t grammar_alt2(grammar_build_t *b, uint32_t x, uint32_t y);
uint32_t grammar_rep(
    grammar_build_t *b, uint32_t node, uint32_t min, uint32_t max);
/* The same in copies, however many: for what may call no rule. */
uint32_t grammar_copies(
    grammar_build_t *b, uint32_t node, uint32_t min, uint32_t max);
uint32_t grammar_ref_node(grammar_build_t *b, uint32_t rule);
uint32_t grammar_dfa_node(grammar_build_t *b, grammar_dfa_t *d);
uint32_t grammar_edge_node(grammar_build_t *b, int end);

/* A rule; its node is set later. GRAMMAR_MANY: failed. */
uint32_t grammar_rule(grammar_build_t *b, const char *name);

/* A growing list of nodes. */
typedef struct {
    uint32_t *v;
    uint32_t n, cap;
} grammar_list_t;

int grammar_list_put(grammar_build_t *b, grammar_list_t *l, uint32_t x);
void grammar_list_free(grammar_list_t *l);

/* The nodes of a list as grammar_seq and grammar_alt have it, which is freed;
 * 0 if the build has failed. */
uint32_t grammar_list_seq(grammar_build_t *b, grammar_list_t *l);
uint32_t grammar_list_alt(grammar_build_t *b, grammar_list_t *l);

/* --- sets of code points (grammar_set.c) -------------------------------- */

#define GRAMMAR_CODE_MAX 0x10ffff

/* 0, or -1: no memory.  Surrogates are never in a set. */
int grammar_set_add(grammar_set_t *s, uint32_t lo, uint32_t hi);
int grammar_set_join(grammar_set_t *s, const grammar_set_t *more);
int grammar_set_not(grammar_set_t *s);
int grammar_set_and(grammar_set_t *s, const grammar_set_t *other);
/* What Unicode says, made when it is first asked for: *u may be NULL. */
typedef struct grammar_unicode_s grammar_unicode_t;
void grammar_unicode_free(grammar_unicode_t *u);
/* Adds what differs from members in case only. */
int grammar_set_fold(grammar_set_t *s, grammar_unicode_t **u);
/* Adds what has the property name ("L", "Lu"): 1 if none has that name. */
int grammar_set_property(
    grammar_set_t *s, grammar_unicode_t **u, const char *name, size_t len);
int grammar_set_has(const grammar_set_t *s, uint32_t c);
void grammar_set_free(grammar_set_t *s);

/* Calls put for each sequence of byte ranges that s is in UTF-8. */
typedef int (*grammar_utf8_put_t)(
    void *arg, const uint8_t *lo, const uint8_t *hi, uint32_t n);
int grammar_set_utf8(const grammar_set_t *s, grammar_utf8_put_t put, void *arg);

/* --- from nodes to states (grammar_nfa.c) ------------------------------- */

enum { EDGE_NONE, EDGE_BYTE, EDGE_CALL, EDGE_BEGIN, EDGE_END };

typedef struct {
    uint32_t to, next; /* next: of the same state; 0: none */
    uint32_t sym;      /* CALL */
    uint8_t kind, lo, hi;
} grammar_edge_t;

/* States 0 to n - 1 are where the n alternatives end; n is the beginning. */
typedef struct {
    uint32_t *first; /* [states]: an edge */
    uint32_t states, states_cap;
    grammar_edge_t *edges;
    uint32_t edges_n, edges_cap;
} grammar_nfa_t;

/* 0, or -1: failed.  To be freed in any case. */
int grammar_nfa(
    grammar_build_t *b, grammar_nfa_t *m, const uint32_t *nodes, uint32_t n);
void grammar_nfa_free(grammar_build_t *b, grammar_nfa_t *m);

/* --- automata (grammar_dfa.c) ------------------------------------------- */

/*
 * The automaton of nodes, a list of alternatives; one that accepts several of
 * them accepts what pick says (NULL: 1 + the first).  Calls are kept.  NULL:
 * failed.  Has no dead ends.
 */
typedef uint32_t (*grammar_pick_t)(
    void *arg, const uint32_t *which, uint32_t n);
grammar_dfa_t *grammar_dfa(grammar_build_t *b, const uint32_t *nodes,
    uint32_t n, grammar_pick_t pick, void *arg);

/* What a accepts and b does (but: does not) too; no calls. */
grammar_dfa_t *grammar_dfa_and(grammar_build_t *b, const grammar_dfa_t *x,
    const grammar_dfa_t *y, int but);
/* d without what b's strings must not be; NULL if d is. */
grammar_dfa_t *grammar_dfa_only(grammar_build_t *b, grammar_dfa_t *d);
int grammar_dfa_empty(const grammar_dfa_t *d);
/* What it accepts, 0 if not. */
uint32_t grammar_dfa_run(const grammar_dfa_t *d, const char *s, size_t len);
/* Drops states that lead nowhere; accept was changed. */
void grammar_dfa_trim(grammar_build_t *b, grammar_dfa_t *d);

/* --- text with structures in it (grammar_tags.c) ------------------------ */

/* What begins with a text of its own; node: what is behind that. */
typedef struct {
    grammar_str_t begin;
    uint32_t node;
} grammar_tag_t;

/*
 * Free text in which a trigger stands only where a tag begins, whose own
 * beginning begins with it.  Without free text: tags, one behind the other.
 */
typedef struct {
    const grammar_tag_t *tags;
    uint32_t tags_n;
    const grammar_str_t *triggers;
    uint32_t triggers_n;
    const grammar_str_t *passes; /* of free text, though behind GRAMMAR_TOKEN */
    uint32_t passes_n;
    const grammar_dfa_t *front; /* texts that the whole does not begin with, and
                                 * no trigger begins in; NULL: none */
    int free;
    int some; /* at least one tag */
    int one;  /* at most one, and nothing behind it */
} grammar_tags_t;

/* The node of such texts; 0: there are none, or failed. */
uint32_t grammar_tags(grammar_build_t *b, const grammar_tags_t *t);

/* All texts in which none of n occurs; NULL: failed. */
grammar_dfa_t *grammar_dfa_without(
    grammar_build_t *b, const grammar_str_t *s, uint32_t n);

/* --- linked (grammar_link.c) -------------------------------------------- */

enum {
    POS_PLAIN,
    POS_KEY,    /* within an object's key */
    POS_OPEN,   /* behind "{" */
    POS_NEXT,   /* behind "," in an object */
    POS_MEMBER, /* behind an object's member; its frame */
    POS_FIRST,  /* behind "[" */
    POS_ITEM,   /* behind "," in an array */
    POS_ITEMS,  /* behind an item; its frame */
    POS_COUNT   /* between two of a counted repetition; its frame */
};

#define POS_DEAD 0
#define POS_DONE 1 /* accepts, and has no way on */

typedef struct {
    uint32_t *next;          /* [classes] */
    const uint8_t *map;      /* NULL: not PLAIN or KEY */
    uint32_t calls, calls_n; /* in g->calls: start pos, and pos behind */
    uint8_t kind;
    uint8_t accept;
    uint8_t plain;    /* stays alive under any text of a JSON string, and its
                      control characters are dead; KEY: if one that has no name
                      may come */
    uint8_t inside;   /* control characters are dead, and what leads on other
                      than by a quote leads to places that are so too */
    uint8_t nameless; /* KEY: may become one that has no name */
    uint8_t quote;    /* PLAIN: goes on with '"', or a call, and no other way */
    uint32_t spec;    /* of an object, array or count */
    uint32_t key_class; /* KEY: 1 + class, if whole */
    uint32_t lo, hi;    /* KEY: names that it may become */
    uint32_t home;      /* plain: where its text goes on and on; 0: none */
    uint32_t rule;
} grammar_pos_t;

typedef struct {
    uint32_t pos, to;
    uint32_t rule;
} grammar_link_t;

typedef struct {
    grammar_object_t o;
    uint32_t *value; /* [classes]: pos behind the key; 0: none */
    uint32_t key, open, next, member;
    uint32_t ordered;
    uint32_t counts;   /* must members be counted? up to */
    uint32_t distinct; /* and keys that have no name told from each other? */
} grammar_obj_t;

typedef struct {
    uint32_t *prefix; /* [prefix_n]: rules */
    uint32_t prefix_n, rest, min, max;
    uint32_t first, item, items;
    uint32_t counts;
} grammar_arr_t;

typedef struct {
    uint32_t rule, min, max, pos, counts;
    uint32_t chars; /* items are characters of a JSON string, all of them */
} grammar_cnt_t;

struct grammar_s {
    grammar_arena_t mem;
    grammar_pos_t *pos;
    uint32_t pos_n;
    grammar_link_t *calls;
    grammar_obj_t *objects;
    grammar_arr_t *arrays;
    grammar_cnt_t *counts;
    grammar_rule_t *rules; /* first, pos */
    uint32_t rules_n;
    uint32_t root;  /* pos */
    uint32_t white; /* may white space stand between tokens of JSON? */
    uint32_t refs;
    size_t masks_max;     /* bytes */
    pthread_mutex_t lock; /* of masks */
    struct grammar_masks_s *masks;
};

/* Takes over what was built; b is closed.  NULL: failed. */
grammar_t *grammar_link(grammar_build_t *b, uint32_t root);

/* Finds where text of strings may be, counts_n being the counted repetitions
 * (grammar_plain.c). */
void grammar_plain(grammar_build_t *b, grammar_t *g, uint32_t counts_n);

/* --- walking (grammar_match.c) ------------------------------------------ */

#define GRAMMAR_THREADS_MAX 64

typedef struct {
    uint32_t pos, up;
} grammar_thread_t;

/*
 * Where threads are stepped.  Words hold frames, which never change: pos, up,
 * count, and an object's set of keys.  Offset 0 is the bottom.
 */
typedef struct {
    const grammar_t *g;
    uint32_t *words;
    uint32_t used, cap;
    grammar_thread_t *out; /* threads of the step under way */
    uint32_t out_n;
    uint32_t base;         /* frames below are not the walk's own; */
    uint32_t deep;         /* how far down it looked at them */
    uint32_t deep_aux;     /* and at their counts and sets */
    const uint32_t *depth; /* [base] */
} grammar_work_t;

/* Steps n threads by a byte into w->out; how many there are. */
uint32_t grammar_step(
    grammar_work_t *w, const grammar_thread_t *in, uint32_t n, uint8_t byte);
int grammar_ends(grammar_work_t *w, const grammar_thread_t *in, uint32_t n);
/* Adds the bytes that a thread may take next to set, and perhaps more. */
void grammar_first(
    grammar_work_t *w, uint32_t pos, uint32_t up, uint64_t set[4]);
/* May a key that is read so far as pos become one that has no name? */
int grammar_key_free(grammar_work_t *w, uint32_t pos, uint32_t frame);
/* Notes that a walk read a frame that counts, and the one behind it. */
void grammar_looked(grammar_work_t *w, uint32_t frame, uint32_t behind);
uint32_t grammar_frame_words(const grammar_t *g, uint32_t pos);
void grammar_masks_free(grammar_t *g);
size_t grammar_masks_memory(const grammar_t *g);

/* --- readers ------------------------------------------------------------ */

enum {
    REGEX_JSON = 1,   /* of the inside of a JSON string */
    REGEX_SEARCH = 2, /* somewhere in the text */
    REGEX_ECMA = 4    /* as ECMAScript has it, not Unicode everywhere */
};

/* What a regular expression matches; NULL: failed, what naming it. */
grammar_dfa_t *grammar_regex(grammar_build_t *b, const char *s, size_t len,
    unsigned flags, const char *what);

/* Reads one code point of valid UTF-8; 0 bytes: it is none. */
uint32_t grammar_utf8(const char *s, size_t len, uint32_t *code);
/* One code point as a node. */
uint32_t grammar_code(grammar_build_t *b, uint32_t code, int json);
/* A text as a node, in JSON without its quotes.  Invalid UTF-8: NEVER. */
uint32_t grammar_text(grammar_build_t *b, const char *s, size_t len, int json);

#endif
