/*
 * A vocabulary as grammars walk it: a trie in one row, and the slices that are
 * the same for all of them.
 *
 * DESIGN.  Tokens sorted by their bytes give the trie in the order in which it
 * is walked; each node knows where its subtree ends, so a byte that is refused
 * is one jump, and memory is read forwards.
 *
 *      " a" " an" " b"     node: byte, depth, tokens, end of subtree
 *      [' ' 0 -> 4] ['a' 1 -> 3] ['n' 2 -> 3] ['b' 1 -> 4]
 *
 * That jump goes far, and where many are refused each is a wait for memory: the
 * children of a node that has many are listed too, side by side.
 *
 * Most tokens are text that may stand in any JSON string.  They are one mask,
 * "plain", and where a grammar is in such a string only the rest is walked: a
 * second trie, of what has a quote or a backslash before any control character
 * (those with such a character first cannot stand in a string).  Of many of
 * these it does not matter what text is before the quote: a third trie has
 * their tails, each once, with all the tokens that end so.  Where a string's
 * characters are counted, the mask of those that fit is made from masks by
 * length.
 *
 * A token's bytes are its text, or what it is said to stand for: a control
 * token that is a mark has a place in the trie too.  One whose text has the
 * byte that marks begin with, which is in no UTF-8, is never allowed: it could
 * pass for the beginning of a mark.  Nor is one of more than TOKEN_LEN_MAX
 * bytes.  Read-only after opening, but for the memory of walks.
 *
 * Memory: about 12 bytes for each node, of which there are three or four to a
 * token, and masks of a bit for each token: plain, ends, SHORT_MAX by length.
 */
#include "grammar_vocab.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define WIDE 8 /* children that are worth a list */

typedef struct {
    const char *s;
    uint32_t len, id;
    uint32_t chars; /* of a string, at most */
} entry_t;


/* By bytes, then number: what is alike has neighbouring places. */
static int
by_bytes(const void *a, const void *b)
{
    const entry_t *x = a, *y = b;
    size_t n = x->len < y->len ? x->len : y->len;
    int c = memcmp(x->s, y->s, n);

    return c != 0             ? c
           : x->len != y->len ? (x->len > y->len ? 1 : -1)
                              : (x->id > y->id) - (x->id < y->id);
}


/* Closes the subtrees of nodes that are as deep as depth, or deeper. */
static void
close_nodes(grammar_trie_t *t, uint32_t *open, uint32_t *open_n, uint32_t depth)
{
    while (*open_n > depth) {
        t->nodes[open[--*open_n]].end = t->nodes_n;
    }
}


/* The children from node `from` to end, as a list; those that have many have
 * theirs too.  How many there are. */
static uint32_t
list_kids(grammar_trie_t *t, uint32_t from, uint32_t end, int put)
{
    uint32_t i, n = 0;

    for (i = from; i < end; i = t->nodes[i].end, n++) {
        if (put) {
            t->kids[t->wide[t->wide_n].kids + n].node = i;
            t->kids[t->wide[t->wide_n].kids + n].byte = t->nodes[i].byte;
        }
    }

    return n;
}


/* Lists the children of nodes that have many. 0, or -1: no memory. */
static int
lists_make(grammar_trie_t *t)
{
    uint32_t i, n, all = list_kids(t, 0, t->nodes_n, 0), lists = 1;

    for (i = 0; i < t->nodes_n; i++) {
        n = t->nodes[i].end - i > WIDE ? list_kids(t, i + 1, t->nodes[i].end, 0)
                                       : 0;
        t->nodes[i].wide = n >= WIDE;
        all += n >= WIDE ? n : 0;
        lists += n >= WIDE;
    }

    t->kids = calloc((size_t) all + 1, sizeof(*t->kids));
    t->wide = calloc((size_t) lists + 1, sizeof(*t->wide));
    if (t->kids == NULL || t->wide == NULL) {
        return -1;
    }

    n = list_kids(t, 0, t->nodes_n, 1);
    t->wide[++t->wide_n].kids = n;
    for (i = 0; i < t->nodes_n; i++) {
        if (t->nodes[i].wide) {
            t->wide[t->wide_n].node = i;
            n += list_kids(t, i + 1, t->nodes[i].end, 1);
            t->wide[++t->wide_n].kids = n;
        }
    }
    assert(t->wide_n == lists && n == all);

    return 0;
}


/* The kinds of bytes below each node. 0, or -1: no memory. */
static int
below_make(grammar_trie_t *t)
{
    uint32_t utf8[TOKEN_LEN_MAX + 1] = {0}, path[TOKEN_LEN_MAX], i, k;
    uint8_t kind;

    t->below = calloc((size_t) t->nodes_n + 1, sizeof(*t->below));
    if (t->below == NULL) {
        return -1;
    }
    for (i = 0; i < t->nodes_n; i++) {
        k = t->nodes[i].depth;
        utf8[k + 1] = utf8[k];
        kind = grammar_text_kind(t->nodes[i].byte, &utf8[k + 1]);
        path[k] = i;
        while (k-- > 0) {
            t->below[path[k]] |= kind;
        }
    }

    return 0;
}


/* The trie of n tokens in the order of their bytes: each shares the open nodes
 * that it begins with, which are those of the one before it.  Nodes are at most
 * as many as all bytes; what is left of that is given back. 0, or -1: no
 * memory. */
static int
trie_make(grammar_trie_t *t, const entry_t *e, uint32_t n)
{
    uint32_t open[TOKEN_LEN_MAX], open_n = 0, i, k;
    size_t sum = 1;
    grammar_node_of_trie_t *node;

    for (i = 0; i < n; i++) {
        sum += e[i].len;
    }
    t->nodes = calloc(sum, sizeof(*t->nodes));
    t->ids = calloc(n + 1, sizeof(*t->ids));
    if (t->nodes == NULL || t->ids == NULL) {
        return -1;
    }

    for (i = 0; i < n; i++) {
        assert(e[i].len > 0 && e[i].len <= TOKEN_LEN_MAX);
        for (k = 0; k < open_n && k < e[i].len
                    && t->nodes[open[k]].byte == (uint8_t) e[i].s[k];
             k++) {
        }
        close_nodes(t, open, &open_n, k);
        for (; k < e[i].len; k++) {
            open[open_n++] = t->nodes_n;
            node = &t->nodes[t->nodes_n++];
            node->byte = (uint8_t) e[i].s[k];
            node->depth = (uint8_t) k;
            node->ids = i;
        }
        assert(open_n == e[i].len);
        for (k = 0; k < open_n; k++) {
            node = &t->nodes[open[k]];
            node->chars =
                (uint8_t) (e[i].chars > node->chars ? e[i].chars : node->chars);
        }
        t->ids[i] = e[i].id;
    }
    close_nodes(t, open, &open_n, 0);
    t->nodes[t->nodes_n].ids = n;
    node = realloc(t->nodes, (t->nodes_n + 1) * sizeof(*t->nodes));
    t->nodes = node != NULL ? node : t->nodes;

    return lists_make(t);
}


static void
trie_free(grammar_trie_t *t)
{
    free(t->nodes);
    free(t->ids);
    free(t->below);
    free(t->kids);
    free(t->wide);
}


enum { PLAIN, REST, NEVER_IN_STRING };

/* Which slice a token is of, by what a JSON string says to its bytes, how many
 * of them are plain before one is not, and how many characters it has at most.
 * Half a character goes to the rest, as what is before it may make it whole. */
static int
slice_of(entry_t *e, uint32_t *plain)
{
    uint32_t i, code, n, chars = 0;
    uint8_t c;

    for (i = 0; i < e->len; i += n) {
        *plain = i;
        e->chars = chars++ + e->len - i;
        c = (uint8_t) e->s[i];
        if (c < 0x20) {
            return NEVER_IN_STRING;
        }
        n = grammar_utf8(e->s + i, e->len - i, &code);
        if (c == '"' || c == '\\' || n == 0) {
            return REST;
        }
    }

    return PLAIN;
}


/* The slices of n tokens in the order of their bytes; e is used up. 0, or -1:
 * no memory. */
static int
slices_make(grammar_vocab_t *v, entry_t *e, uint32_t n)
{
    entry_t *tails = calloc((size_t) n + 1, sizeof(*tails));
    uint32_t i, k, rest = 0;
    int rc = tails == NULL ? -1 : 0;

    for (i = 0; i < n && rc == 0; i++) {
        switch (slice_of(&e[i], &k)) {
        case PLAIN:
            v->plain[e[i].id / 32] |= 1u << e[i].id % 32;
            break;
        case REST:
            tails[rest] = e[i];
            tails[rest].s += k;
            tails[rest].len -= k;
            e[rest++] = e[i];
            break;
        default:
            break;
        }
    }
    if (rc == 0) {
        rc = trie_make(&v->rest, e, rest);
    }
    if (rc == 0) {
        qsort(tails, rest, sizeof(*tails), by_bytes);
        rc = trie_make(&v->tails, tails, rest);
    }
    free(tails);

    return rc;
}


/* Plain tokens by their characters: what fits where a string's are counted. */
static int
lengths_make(grammar_vocab_t *v)
{
    uint32_t i, k, n;
    const char *s;
    size_t len, at;

    for (k = 0; k < SHORT_MAX; k++) {
        v->upto[k] = calloc(v->words + 1, sizeof(uint32_t));
        if (v->upto[k] == NULL) {
            return -1;
        }
    }
    v->longer = calloc(v->vocab + 1, sizeof(*v->longer));
    v->chars = calloc(v->vocab + 1, sizeof(*v->chars));
    if (v->longer == NULL || v->chars == NULL) {
        return -1;
    }

    for (i = 0; i < v->vocab; i++) {
        if (!(v->plain[i / 32] >> i % 32 & 1)) {
            continue;
        }
        s = grammar_vocab_bytes(v, i, &len);
        for (at = n = 0; at < len; at++) {
            n += ((uint8_t) s[at] & 0xc0) != 0x80;
        }
        assert(n > 0 && n <= TOKEN_LEN_MAX);
        for (k = n; k < SHORT_MAX; k++) {
            v->upto[k][i / 32] |= 1u << i % 32;
        }
        if (n >= SHORT_MAX) {
            v->longer[v->longer_n] = i;
            v->chars[v->longer_n++] = (uint8_t) n;
        }
    }

    return 0;
}


static int
by_id(const void *a, const void *b)
{
    const grammar_mark_t *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}


static const grammar_mark_t *
mark_of(const grammar_vocab_t *v, uint32_t id)
{
    grammar_mark_t key = {id, NULL, 0};

    return v->marks_n == 0 ? NULL
                           : bsearch(&key, v->marks, v->marks_n,
                               sizeof(v->marks[0]), by_id);
}


const char *
grammar_vocab_bytes(const grammar_vocab_t *v, uint32_t id, size_t *len)
{
    const grammar_mark_t *m = mark_of(v, id);
    const char *s;

    if (token_is_end(v->tok, id)) {
        *len = 0;
        return "";
    }
    if (m != NULL) {
        *len = m->len;
        return m->s;
    }

    s = token_bytes(v->tok, id, len);
    assert(s != NULL || *len == 0);

    return s;
}


/* What a vocabulary knows before its tries are made. 0, or -1: no memory. */
static int
vocab_begin(grammar_vocab_t *v, const token_t *tok, const grammar_mark_t *marks,
    uint32_t n)
{
    assert(marks != NULL || n == 0);

    v->tok = tok;
    v->vocab = token_vocab(tok);
    v->words = (v->vocab + 31) / 32;
    v->plain = calloc(v->words + 1, sizeof(*v->plain));
    v->ends = calloc(v->words + 1, sizeof(*v->ends));
    v->marks = calloc((size_t) n + 1, sizeof(*v->marks));
    v->walks = grammar_walks_open();
    if (v->plain == NULL || v->ends == NULL || v->marks == NULL
        || v->walks == NULL) {
        return -1;
    }
    if (n > 0) {
        memcpy(v->marks, marks, n * sizeof(*marks));
        qsort(v->marks, n, sizeof(*marks), by_id);
    }
    v->marks_n = n;

    return 0;
}


/* All tokens that may stand somewhere, by their bytes; how many.  Those that
 * end a text are noted. */
static uint32_t
vocab_entries(grammar_vocab_t *v, entry_t *e)
{
    const uint8_t token = (uint8_t) GRAMMAR_TOKEN[0];
    uint32_t i, n = 0;
    size_t len;

    for (i = 0; i < v->vocab; i++) {
        e[n].s = grammar_vocab_bytes(v, i, &len);
        e[n].len = (uint32_t) len;
        e[n].id = i;
        if (token_is_end(v->tok, i)) {
            v->ends[i / 32] |= 1u << i % 32;
        } else if (len > 0 && len <= TOKEN_LEN_MAX
                   && (mark_of(v, i) != NULL
                       || memchr(e[n].s, token, len) == NULL)) {
            n++;
        }
    }
    qsort(e, n, sizeof(*e), by_bytes);

    return n;
}


grammar_vocab_t *
grammar_vocab_open(
    const token_t *tok, const grammar_mark_t *marks, uint32_t marks_n)
{
    grammar_vocab_t *v = calloc(1, sizeof(*v));
    entry_t *e = calloc((size_t) token_vocab(tok) + 1, sizeof(*e));
    uint32_t n;
    int rc = -1;

    if (v == NULL || e == NULL || vocab_begin(v, tok, marks, marks_n) != 0) {
        goto done;
    }
    n = vocab_entries(v, e);
    rc = trie_make(&v->all, e, n);

    if (rc == 0) {
        rc = below_make(&v->all);
    }
    if (rc == 0) {
        rc = slices_make(v, e, n);
    }
    if (rc == 0) {
        rc = lengths_make(v);
    }

done:
    free(e);
    if (rc != 0) {
        grammar_vocab_close(v);
        v = NULL;
    }

    return v;
}


void
grammar_vocab_close(grammar_vocab_t *v)
{
    uint32_t k;

    if (v == NULL) {
        return;
    }
    for (k = 0; k < SHORT_MAX; k++) {
        free(v->upto[k]);
    }
    free(v->longer);
    free(v->chars);
    trie_free(&v->all);
    trie_free(&v->rest);
    trie_free(&v->tails);
    free(v->plain);
    free(v->ends);
    free(v->marks);
    grammar_walks_close(v->walks);
    free(v);
}


int
grammar_vocab_goes_on(
    const grammar_vocab_t *v, const char *s, size_t n, const uint64_t next[4])
{
    const grammar_node_of_trie_t *nodes = v->all.nodes;
    uint32_t at = 0, end = v->all.nodes_n; /* where the next byte may be */
    size_t i;

    for (i = 0; i < n; i++) {
        while (at < end && nodes[at].byte != (uint8_t) s[i]) {
            at = nodes[at].end;
        }
        if (at >= end) {
            return 0;
        }
        end = nodes[at++].end;
    }
    for (; at < end; at = nodes[at].end) {
        if (next[nodes[at].byte / 64] >> nodes[at].byte % 64 & 1) {
            return 1;
        }
    }

    return 0;
}


void
grammar_vocab_no_white(const grammar_vocab_t *v, uint32_t *mask)
{
    const grammar_node_of_trie_t *nodes = v->all.nodes, *n;
    uint32_t at, k;

    for (at = 0; at < v->all.nodes_n; at = n->end) {
        n = &nodes[at];
        if (n->byte != ' ' && n->byte != '\n' && n->byte != '\r'
            && n->byte != '\t') {
            continue;
        }
        for (k = n->ids; k < nodes[n->end].ids; k++) {
            mask[v->all.ids[k] / 32] &= ~(1u << v->all.ids[k] % 32);
        }
    }
}


uint32_t
grammar_mask_words(const grammar_vocab_t *v)
{
    return v->words;
}
