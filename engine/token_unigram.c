/*
 * Text to ids as Unigram does it: of all ways to cut a word into pieces, the
 * likeliest.
 *
 * DESIGN.  Viterbi's: for each place in the word, the best way to get there.
 * From a place all pieces that begin there are followed in one walk through a
 * trie, so the work is the word's length times the longest piece's.
 *
 *      place   0 ──"▁a"──> 4 ──"b"──> 5      best[5] = best[4] + w("b")
 *              └─────"▁ab"──────────> 5      or best[0] + w("▁ab")
 *
 * Where no piece covers just the next character, it is unknown, at a price
 * below that of any piece; neighbouring unknown characters are one token, or
 * their bytes' pieces.
 *
 * Sums are 64 bits wide, as Hugging Face's are, or rounded to 32 at each step,
 * as SentencePiece's are: ties are then broken alike.
 *
 * Memory: 16 bytes for each byte of a word, from malloc, grown to the longest
 * word of a call.  Runs on text_in's threads.
 */
#include "token_impl.h"
#include "llm_err.h"
#include "utf8.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    double score;
    uint32_t len; /* of the piece that ends here; 0: not reached */
    uint32_t id;  /* TOKEN_NONE: unknown */
} unigram_node_t;

typedef struct {
    const token_t *t;
    token_sink_t *s;
    unigram_node_t *nodes; /* [nodes_cap] */
    size_t nodes_cap;
    size_t work;
} unigram_t;


/* The best way to the place at that ends in a piece, if it is better. */
static void
unigram_reach(unigram_t *w, size_t at, uint32_t len, uint32_t id, double score)
{
    unigram_node_t *n = &w->nodes[at];

    assert(len > 0 && len <= at);

    score += w->nodes[at - len].score;
    if (w->t->narrow) {
        score = (float) score;
    }
    if (n->len == 0 || score > n->score) {
        n->score = score;
        n->len = len;
        n->id = id;
    }
}


/* Follows the pieces that begin at one place, whose character has n bytes. */
static void
unigram_place(unigram_t *w, const char *s, size_t len, size_t at, uint32_t n)
{
    const token_trie_t *tree = &w->t->tree;
    uint32_t node = 0, id;
    size_t i;
    int single = 0;

    for (i = at; i < len; i++) {
        node = token_trie_step(tree, node, (uint8_t) s[i]);
        if (node == 0) {
            break;
        }
        if (tree->value[node] == 0) {
            continue;
        }
        id = tree->value[node] - 1;
        unigram_reach(w, i + 1, (uint32_t) (i + 1 - at), id, w->t->weight[id]);
        single |= i + 1 - at == n;
    }

    if (!single) {
        unigram_reach(w, at + n, n, TOKEN_NONE, w->t->unk_weight);
    }
}


/* Unknown characters: their bytes' pieces, or the unknown token. */
static int
unigram_unknown(const unigram_t *w, const char *s, size_t len)
{
    const token_t *t = w->t;
    size_t i;
    int rc = 0;

    for (i = 0; i < len && t->byte_id[(uint8_t) s[i]] != TOKEN_NONE; i++) {
    }

    if (i < len) {
        return t->unk == TOKEN_NONE ? -LLM_ERR_BAD_TEXT
                                    : token_sink_put(w->s, t->unk);
    }

    for (i = 0; i < len && rc == 0; i++) {
        rc = token_sink_put(w->s, t->byte_id[(uint8_t) s[i]]);
    }

    return rc;
}


/* The best way, turned around so that it can be walked from the beginning. */
static int
unigram_put(const unigram_t *w, const char *s, size_t len)
{
    unigram_node_t *nodes = w->nodes;
    size_t at, next, unknown;
    uint32_t n, step;
    int rc = 0;

    for (at = len, step = 0; at > 0; at -= n) {
        n = nodes[at].len;
        assert(n > 0 && n <= at);
        nodes[at].len = step;
        step = n;
    }
    nodes[0].len = step;

    for (at = unknown = 0; at < len && rc == 0; at = next) {
        next = at + nodes[at].len;
        assert(next > at && next <= len);
        if (nodes[next].id == TOKEN_NONE) {
            if (next < len && nodes[next + nodes[next].len].id == TOKEN_NONE) {
                continue;
            }
            rc = unigram_unknown(w, s + unknown, next - unknown);
        } else {
            rc = token_sink_put(w->s, nodes[next].id);
        }
        unknown = next;
    }

    return rc;
}


static int
unigram_make(unigram_t *w, const char *s, size_t len)
{
    unigram_node_t *nodes;
    size_t at;
    uint32_t n;
    int got;

    if (len + 1 > w->nodes_cap) {
        nodes = realloc(w->nodes, (len + 1) * sizeof(*nodes));
        if (nodes == NULL) {
            return -LLM_ERR_NO_MEMORY;
        }
        w->nodes = nodes;
        w->nodes_cap = len + 1;
    }
    memset(w->nodes, 0, (len + 1) * sizeof(*w->nodes));

    for (at = 0; at < len; at += n) {
        if (w->work++ % TOKEN_CANCEL_EVERY == 0 && token_sink_cancelled(w->s)) {
            return -LLM_ERR_CANCELLED;
        }
        got = utf8_char((const uint8_t *) s + at, len - at);
        n = got > 0 ? (uint32_t) got : 1;
        unigram_place(w, s, len, at, n);
    }

    return unigram_put(w, s, len);
}


/* Called by the pre-tokenizer, word by word. */
static int
unigram_word(void *arg, const char *s, size_t len)
{
    unigram_t *w = arg;
    size_t from = w->s->n;
    int rc = token_cache_known(w->t, 0, s, len, w->s);

    if (rc != 0) {
        return rc < 0 ? rc : 0;
    }

    rc = unigram_make(w, s, len);
    if (rc == 0) {
        token_cache_note(w->t, 0, s, len, w->s, from);
    }

    return rc;
}


int
token_unigram_encode(
    const token_t *t, const char *text, size_t len, int first, token_sink_t *s)
{
    unigram_t w = {.t = t, .s = s};
    const token_words_t words = {unigram_word, NULL, NULL, &w};
    int rc;

    assert(t->unigram && t->weight != NULL && t->cache != NULL);

    if (len > TOKEN_TEXT_MAX) {
        return -LLM_ERR_CONTEXT_FULL;
    }

    rc = t->pre != NULL ? token_pre_split(t->pre, text, len, first, &words)
                        : (len > 0 ? unigram_word(&w, text, len) : 0);
    free(w.nodes);

    return rc;
}
