/*
 * What the tokenizer's own files share: the vocabulary's tables (token_load*.c
 * make them, token.c looks things up) and the two encoders over them
 * (token_spm.c; token_bpe.c with token_pre.c and token_alphabet.c).  For those
 * only.
 */
#ifndef TOKEN_IMPL_H
#define TOKEN_IMPL_H

#include "token.h"

/* The file format's numbers. */
enum {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER = 4,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,
    TOKEN_TYPES
};

/*
 * Pieces longer than this take no part in merging and are not looked for as
 * special ones: it bounds the work per byte of text and the depth to which an
 * unused piece can fall apart.  Real ones stay below 200 bytes.
 */
#define TOKEN_PIECE_MAX   1024
#define TOKEN_SPECIAL_MAX 255

/* Pieces, and merges; it keeps every size below within 32 bits. */
#define TOKEN_VOCAB_MAX (1u << 24)

/* Text is looked at for cancellation after about so many bytes or merges. */
#define TOKEN_CANCEL_EVERY 4096u

/* A text grows to no more than this on its way: sizes fit 32 bits. */
#define TOKEN_TEXT_MAX (1u << 26)

/* GPT-2's pattern, which tokenizer.json's "ByteLevel" means too. */
#define TOKEN_WS      "\\p{WSpace}"
#define TOKEN_SPACES  TOKEN_WS "+(?!\\P{WSpace})|" TOKEN_WS "+"
#define TOKEN_ENDINGS "'s|'t|'re|'ve|'m|'ll|'d"
#define TOKEN_PATTERN_GPT2                                                     \
    TOKEN_ENDINGS "| ?\\p{L}+| ?\\p{N}+| ?[^" TOKEN_WS                         \
                  "\\p{L}\\p{N}]+|" TOKEN_SPACES

/* Piece to id; slots hold id + 1, 0 is empty; linear probing. */
typedef struct {
    uint32_t *slots; /* [mask + 1], owned */
    uint32_t mask;
} token_map_t;

/* Byte-level BPE: two neighbours that may be joined. */
typedef struct {
    uint32_t left, right; /* ids */
    uint32_t rank;        /* the lowest joins first */
    uint32_t joint;       /* id + 1; 0: the slot is empty */
} token_merge_t;

typedef struct token_pre_s token_pre_t;
typedef struct token_norm_s token_norm_t;
typedef struct token_added_s token_added_t;
typedef struct token_charsmap_s token_charsmap_t;
typedef struct token_cache_s token_cache_t;
typedef struct token_regex_s token_regex_t;

/* Strings to numbers, walked byte by byte: token_trie.c. */
typedef struct {
    uint32_t key; /* node << 8 | byte */
    uint32_t to;  /* the next node; 0: the slot is empty */
} token_edge_t;

typedef struct {
    token_edge_t *edges; /* [mask + 1], owned; NULL: nothing is in it */
    uint32_t mask, edges_n;
    uint32_t *value; /* [nodes_cap] owned */
    uint32_t nodes_n, nodes_cap;
} token_trie_t;

/* A text that grows; all zero is empty. */
typedef struct {
    char *p; /* owned */
    size_t n, cap;
} token_buf_t;

/* What goes before and behind a text that stands alone. */
#define TOKEN_AROUND_MAX 8

typedef struct {
    uint32_t ids[TOKEN_AROUND_MAX];
    uint32_t n;
} token_around_t;

struct token_s {
    int bpe;     /* byte-level BPE */
    int chars;   /* BPE by merges whose first symbols are characters */
    int unigram; /* the likeliest pieces; neither: SentencePiece's BPE */
    void *own;   /* what pieces point into, where that is no file; owned */
    char *bytes; /* [256] the null back end's pieces, owned; else NULL */
    uint32_t n;
    gguf_str_t *piece; /* [n] as the file has it, borrowed */
    uint8_t *type;     /* [n] TOKEN_NORMAL... */
    float *score;      /* [n] never NaN */
    uint8_t *end;      /* [n] does it end a text? */
    char *text;        /* all that token_bytes gives, in a row */
    size_t *text_at;   /* [n + 1] where in it */
    token_map_t all;   /* every piece; of equal ones the first */
    token_map_t merge; /* those that plain text may become */
    uint32_t bos, eos, unk;
    uint32_t byte_id[256];      /* TOKEN_NONE: no such piece */
    uint32_t bytes_n;           /* how many of byte_id there are */
    uint32_t merge_max;         /* longest in merge, bytes of text */
    uint8_t special_first[256]; /* does a special piece start so? */
    uint8_t special_len[TOKEN_SPECIAL_MAX + 1];
    token_around_t before, after;
    int add_bos, add_space;
    int first_only; /* the space goes before a whole text only */
    int collapse;   /* runs of spaces are one, none at either end */
    int has_unused;
    int has_user; /* are there pieces that were added as text? */

    /* byte-level BPE only */
    token_merge_t *joins; /* [joins_mask + 1] by left and right, owned */
    uint32_t joins_mask;
    token_pre_t *pre;     /* owned */
    int whole;            /* a word that is a piece is not put together */
    token_cache_t *cache; /* owned; words and their ids */
    token_norm_t *norm;   /* owned; NULL: none */

    /* tokenizer.json only */
    token_added_t *added; /* owned; NULL: pieces' types say what is special */
    int fuse;             /* a run of unknown characters is one token */
    int cuts; /* no merge reaches over the beginning of a "â" */

    /* vocabularies of characters that are joined: token_seam.c */
    int seams;
    uint8_t joined[256][32];

    /* SentencePiece and Unigram */
    token_charsmap_t *charsmap; /* owned; NULL: none */
    token_trie_t tree;          /* what Unigram looks for; id + 1 */
    token_trie_t user;          /* pieces that are cut out first; id + 1 */
    double *weight;             /* [n] Unigram's scores, owned */
    double unk_weight;
    int narrow; /* Unigram's sums are 32 bits wide, as SentencePiece's */
};

/* Where ids go, and who is asked for cancellation. */
typedef struct {
    uint32_t *out;
    size_t n, cap;
    int fused; /* the last id stands for a run of unknown text */
    int (*cancelled)(void *);
    void *arg;

    /* where in text control pieces may be named; NULL: as the flag says */
    const token_span_t *spans; /* [spans_n] */
    size_t spans_n;
    const char *text;
} token_sink_t;

/* --- tables (token.c, token_load.c) ------------------------------------- */

/* Room for n pieces. 0, or -1 when out of memory. */
int token_map_open(token_map_t *m, uint32_t n);

/* Adds t's piece id, unless there is one like it. */
void token_map_put(const token_t *t, token_map_t *m, uint32_t id);

/* The id of exactly these bytes, TOKEN_NONE if none. */
uint32_t token_map_get(
    const token_t *t, const token_map_t *m, const char *s, size_t len);

/* 0, or -LLM_ERR_CONTEXT_FULL. */
int token_sink_put(token_sink_t *s, uint32_t id);

/* May the n bytes at p, a part of what is encoded, name a control piece? */
int token_sink_control(const token_sink_t *s, const char *p, size_t n);

static inline int
token_sink_cancelled(const token_sink_t *s)
{
    return s->cancelled != NULL && s->cancelled(s->arg);
}

/*
 * Appends the ids of plain text; prefix says that a space of the tokenizer's
 * own goes before it.  0 or what token_encode returns.
 */
int token_spm_encode(const token_t *t, const char *text, size_t len, int prefix,
    token_sink_t *s);

/* The same by merges; first as token_pre_split has it. */
int token_bpe_encode(
    const token_t *t, const char *text, size_t len, int first, token_sink_t *s);

/* The slot of the merge of two pieces, or the empty one where it belongs. */
token_merge_t *token_bpe_slot(const token_t *t, uint32_t left, uint32_t right);

/*
 * A file's pre-tokenizer, rules that go with it, merges; t has its pieces'
 * tables by the time of the latter.  0, or -1 with err.
 */
int token_load_pre(token_t *t, const gguf_t *g, char *err, size_t errlen);
int token_load_merges(token_t *t, const gguf_t *g, char *err, size_t errlen);

/* Notes that text may become piece id, if it is in the byte alphabet. */
void token_load_bpe_piece(token_t *t, uint32_t id);

/* Writes what id, no special one, stands for; dst may be NULL to count. */
size_t token_load_bpe_text(const token_t *t, uint32_t id, char *dst);

/* Copies a file's string for a message: short, printable.  Returns dst. */
const char *token_load_printable(char *dst, size_t size, const gguf_str_t *s);

/*
 * GPT-2's byte alphabet.  Reading turns a piece into the bytes it stands for:
 * 1 with their number, 0 if a character of it is no byte's.  dst may be NULL
 * to count, else has room for p->len.
 */
int token_alphabet_read(const gguf_str_t *p, char *dst, size_t *n);

/* The piece that len bytes would be; dst has room for 2 * len. */
size_t token_alphabet_write(const char *s, size_t len, char *dst);

/*
 * A vocabulary of n pieces, all empty; and, when pieces and types are there,
 * all that follows from them.  text writes what an id stands for in running
 * text, dst may be NULL to count; without it, it follows from the type.  0,
 * or -1 when out of memory.
 */
int token_load_alloc(token_t *t, uint32_t n);
int token_load_tables(token_t *t,
    size_t (*text)(const token_t *, uint32_t, char *, void *), void *arg);

/* Marks id, TOKEN_NONE is allowed, as one that ends a text. */
void token_load_end(token_t *t, uint32_t id);

/* Marks those control pieces that are known by name to end a text. */
void token_load_ends(token_t *t);

/* Unigram's tree and weights from pieces, types and t->weight. 0, or -1. */
int token_load_unigram(token_t *t);

/* Pieces and merges of BPE: room for n; one pair, *used counts. 0, or -1. */
int token_load_merges_open(token_t *t, uint32_t n);
void token_load_merge(token_t *t, const gguf_str_t *left,
    const gguf_str_t *right, uint32_t rank, uint32_t *used);

/* "<0x0A>" is 10; -1 if p is no such piece. */
int token_load_byte(const gguf_str_t *p);

/*
 * A file of at most max bytes, a zero behind them; the caller frees it.  NULL
 * with one sentence in err.
 */
char *token_load_file(
    const char *path, size_t max, size_t *len, char *err, size_t errlen);

/* Puts id before (behind) a text that stands alone. 0, or -1: no room. */
int token_load_around(token_around_t *a, uint32_t id);


/* --- texts that grow ---------------------------------------------------- */

/* 0, or -LLM_ERR_NO_MEMORY, -LLM_ERR_CONTEXT_FULL (beyond all reason). */
int token_buf_put(token_buf_t *b, const char *s, size_t len);


/* --- tries (token_trie.c) ----------------------------------------------- */

/* Adds s, no empty one, with a value above 0; the first of equals stays. */
int token_trie_put(token_trie_t *t, const char *s, size_t len, uint32_t value);

/* The node behind node (0: the root) by byte, 0 if there is none. */
uint32_t token_trie_step(const token_trie_t *t, uint32_t node, uint8_t byte);

/* The value of the longest string that s begins with; 0 if none. */
uint32_t token_trie_longest(
    const token_trie_t *t, const char *s, size_t len, size_t *n);

void token_trie_close(token_trie_t *t);


/* --- patterns (token_regex.c) ------------------------------------------- */

enum {
    TOKEN_REGEX_PCRE,   /* as PCRE2 has it, ours */
    TOKEN_REGEX_ONIG,   /* as tokenizer.json has it: Oniguruma's way */
    TOKEN_REGEX_LITERAL /* the string itself */
};

/* NULL with half a sentence in why: what is wrong with the pattern. */
token_regex_t *token_regex_open(
    const char *pattern, size_t len, int kind, char *why, size_t whylen);

void token_regex_close(token_regex_t *r);

/* What matching needs of one call's own. */
typedef struct token_match_s token_match_t;

/* For texts of up to len bytes; NULL when out of memory. */
token_match_t *token_match_open(size_t len);
void token_match_close(token_match_t *m);

/*
 * The first match in s at or behind at, s being valid UTF-8.  1, 0 if there
 * is none, or -LLM_ERR_NO_MEMORY, -LLM_ERR_BAD_TEXT (more steps than any real
 * text takes).
 */
int token_match(token_match_t *m, const token_regex_t *r, const char *s,
    size_t len, size_t at, size_t *from, size_t *to);


/* --- normal forms (token_norm.c, token_charsmap.c) ----------------------- */

enum {
    TOKEN_NORM_NFC,
    TOKEN_NORM_NFD,
    TOKEN_NORM_NFKC,
    TOKEN_NORM_NFKD,
    TOKEN_NORM_LOWER,
    TOKEN_NORM_ACCENTS, /* drops marks that take no space */
    TOKEN_NORM_STRIP_LEFT,
    TOKEN_NORM_STRIP_RIGHT,
    TOKEN_NORM_PREPEND, /* with */
    TOKEN_NORM_REPLACE, /* what regex matches by with */
    TOKEN_NORM_CHARSMAP
};

/* Adds a step to *n, which may be NULL; takes regex and map. 0, or -1. */
int token_norm_add(token_norm_t **n, int kind, token_regex_t *regex,
    const char *with, size_t with_len, token_charsmap_t *map);

void token_norm_close(token_norm_t *n);

/* Appends what text becomes.  0, or a negative LLM_ERR. n may be NULL. */
int token_norm_run(
    const token_norm_t *n, const char *text, size_t len, token_buf_t *out);

/* The length of the run at s that is all whole characters, or all none. */
size_t token_run(const char *s, size_t len, int *valid);

/* White space as Unicode has it; -1 is none. */
int token_is_space(int32_t c);

/*
 * A SentencePiece character map; p is copied.  NULL with half a sentence in
 * why.
 */
token_charsmap_t *token_charsmap_open(
    const uint8_t *p, size_t len, const char **why);

void token_charsmap_close(token_charsmap_t *m);

/*
 * Appends what text becomes: as SentencePiece does it (the longest match
 * anywhere), or as Hugging Face does it (what a user sees as one character is
 * looked up first).
 */
int token_charsmap_run(const token_charsmap_t *m, int graphemes,
    const char *text, size_t len, token_buf_t *out);


/* --- added tokens (token_added.c) --------------------------------------- */

enum {
    TOKEN_ADDED_LSTRIP = 1,
    TOKEN_ADDED_RSTRIP = 2,
    TOKEN_ADDED_WORD = 4,       /* only where no word goes on */
    TOKEN_ADDED_NORMALIZED = 8, /* looked for behind the normalizer */
    TOKEN_ADDED_SPECIAL = 16
};

/* For at most n tokens; NULL when out of memory. */
token_added_t *token_added_open(uint32_t n);
void token_added_close(token_added_t *a);

/* Text, in the form it is looked for, as token id. 0, or -1: no memory. */
int token_added_put(
    token_added_t *a, const char *s, size_t len, uint32_t id, unsigned flags);

/*
 * Appends the ids of a text: tokens that were added are cut out, special ones
 * only with control; the rest is normalized and encoded.
 */
int token_added_encode(const token_t *t, const char *text, size_t len,
    int control, token_sink_t *s);


/* --- seams (token_seam.c) ------------------------------------------------ */

/* Texts may be cut from now on; t knows its bytes' pieces already. */
void token_seam_open(token_t *t);

/* Except where a piece that may arise from a text says otherwise. */
void token_seam_piece(token_t *t, const char *s, size_t len);

/* Where the part of s that begins at from ends, not behind len. */
size_t token_seam_next(
    const token_t *t, const char *s, size_t len, size_t from);


/* --- what stands beside a vocabulary (token_model.c, token_dir.c) --------- */

/* A token that another file adds to a vocabulary. */
typedef struct {
    uint32_t id;
    unsigned flags; /* TOKEN_ADDED_... */
    const char *s;  /* borrowed */
    size_t len;
} token_extra_t;

/*
 * token_open_model with such tokens, which are cut out of a text before all
 * else, as are the file's own special ones.  first_only is token_s's.
 */
token_t *token_open_model_added(const char *path, const token_extra_t *extra,
    uint32_t extra_n, int first_only, char *err, size_t errlen);


/* --- words and their ids (token_cache.c) -------------------------------- */

#define TOKEN_CACHE_KEY    24 /* longest word that is kept, bytes */
#define TOKEN_CACHE_IDS    8
#define TOKEN_CACHE_LEVELS 32

/* NULL when out of memory. */
token_cache_t *token_cache_open(void);
void token_cache_close(token_cache_t *c);

/*
 * The ids of a word (level 0) or of a piece that a step of the pre-tokenizer
 * left; len <= TOKEN_CACHE_KEY.  How many, 0 if not there.
 */
uint32_t token_cache_get(
    token_cache_t *c, unsigned level, const char *s, size_t len, uint32_t *ids);

/* May keep n <= TOKEN_CACHE_IDS ids for it. */
void token_cache_put(token_cache_t *c, unsigned level, const char *s,
    size_t len, const uint32_t *ids, size_t n);

/* The same from and to where ids go: 1 if they were there, or 0, or what
 * token_encode returns. */
int token_cache_known(const token_t *t, unsigned level, const char *s,
    size_t len, token_sink_t *sink);

/* Keeps what has been put since the sink had from ids, if it is not much. */
void token_cache_note(const token_t *t, unsigned level, const char *s,
    size_t len, const token_sink_t *sink, size_t from);


/* --- encoders ------------------------------------------------------------ */

/* Appends the ids of text in which nothing is special. */
int token_encode_plain(
    const token_t *t, const char *text, size_t len, int first, token_sink_t *s);


/* Appends the ids of a text as Unigram does it; first as token_pre_split. */
int token_unigram_encode(
    const token_t *t, const char *text, size_t len, int first, token_sink_t *s);


/* --- pre-tokenizers (token_pre.c, token_names.c) -------------------------- */

enum {
    TOKEN_CUT_ISOLATED,
    TOKEN_CUT_REMOVED,
    TOKEN_CUT_PREVIOUS,
    TOKEN_CUT_NEXT,
    TOKEN_CUT_CONTIGUOUS
};

enum {
    TOKEN_PRE_CUT,    /* by regex: what it matches, what lies between */
    TOKEN_PRE_SPACE,  /* a space goes before, unless there is one */
    TOKEN_PRE_META,   /* spaces become with; one goes before */
    TOKEN_PRE_LETTERS /* bytes become letters of the byte alphabet */
};

/* TOKEN_PRE_META: does with go before a text? */
enum { TOKEN_META_NEVER, TOKEN_META_FIRST, TOKEN_META_ALWAYS };

typedef struct {
    int kind;
    int behavior, invert; /* TOKEN_PRE_CUT */
    int scheme;           /* TOKEN_PRE_META */
    token_regex_t *regex; /* owned */
    char with[8];
} token_step_t;

/* One that cuts nothing; NULL when out of memory. */
token_pre_t *token_pre_new(void);

/* Adds a step; takes its regex. 0, or -1: there are too many. */
int token_pre_add(token_pre_t *p, const token_step_t *step);

/* Drops a last step that would only turn words into letters. */
void token_pre_trim(token_pre_t *p);

/* Says that all steps are there. */
void token_pre_ready(token_pre_t *p);

/* Other habits of a named pre-tokenizer's models. */
typedef struct {
    int whole;   /* token_s's */
    int add_bos; /* where the file does not say */
    int nfc;     /* the text is composed before it is cut */
} token_rules_t;

/* The pre-tokenizer that file calls name; NULL with one sentence in err. */
token_pre_t *token_pre_open(const char *file, const gguf_str_t *name,
    token_rules_t *rules, char *err, size_t errlen);

void token_pre_close(token_pre_t *p);


/* What is done with words. */
typedef struct {
    /* a word; nonzero ends the cutting */
    int (*word)(void *arg, const char *s, size_t len);

    /* 1 if what a piece becomes at that level was noted and has been put again,
     * else as word; and: the piece has come out as it is, and is the last
     * word.  Both may be NULL. */
    int (*known)(void *arg, unsigned level, const char *s, size_t len);
    void (*note)(void *arg, unsigned level, const char *s, size_t len);
    void *arg;
} token_words_t;

/*
 * Cuts text into words, in order; what ends the cutting is returned.  first:
 * the text is the beginning of the whole one.  Else 0, -LLM_ERR_NO_MEMORY or
 * -LLM_ERR_BAD_TEXT (a word took more steps than any real one).
 */
int token_pre_split(const token_pre_t *p, const char *text, size_t len,
    int first, const token_words_t *words);

#endif
