/*
 * Tokens that were added to a vocabulary: cut out of a text before anything
 * else is done to it, as Hugging Face does it.
 *
 * DESIGN.  Two passes.  Most added tokens are looked for in the text as it
 * stands; what lies between them is normalized, each stretch as a text of its
 * own, and in that the others are looked for, in the form that the normalizer
 * gave them when the file was opened.
 *
 *      "a<s>b c"  --as it stands-->  "a" <s> "b c"  --normalizer-->  "▁b▁c"
 *
 * At each place the longest token wins.  One may take the white space beside
 * it, or be found only where no word goes on.  Special tokens are not looked
 * for at all unless the caller allows it: what a user writes must not end a
 * turn.
 *
 * Tables are made at start and read-only after; the normalized text is one
 * call's own.  Runs on text_in's threads.
 */
#include "token_impl.h"
#include "llm_err.h"
#include "utf8.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct {
    uint32_t id;
    unsigned flags;
} added_row_t;

struct token_added_s {
    token_trie_t tries[2];     /* as it stands, normalized; row + 1 */
    uint8_t first[2][256];     /* does a token of that trie begin so? */
    uint8_t pairs[2][256][32]; /* and go on with that byte, or end? a bit */
    added_row_t *rows;         /* [n] owned */
    uint32_t n, cap;
};

/* One pass through one text. */
typedef struct {
    const token_t *t;
    token_sink_t *s;
    int control;
    int moved;      /* the text is no part of what the caller gave */
    int normalized; /* the second pass */
    int first;      /* the text is the beginning of the whole one */
    size_t looked;
} added_pass_t;

static int added_plain(
    const added_pass_t *p, const char *s, size_t len, int first);


/* --- the table ---------------------------------------------------------- */

token_added_t *
token_added_open(uint32_t n)
{
    token_added_t *a = calloc(1, sizeof(*a));

    if (a == NULL) {
        return NULL;
    }

    a->rows = calloc((size_t) n + 1, sizeof(*a->rows));
    if (a->rows == NULL) {
        free(a);
        return NULL;
    }
    a->cap = n;

    return a;
}


void
token_added_close(token_added_t *a)
{
    if (a != NULL) {
        token_trie_close(&a->tries[0]);
        token_trie_close(&a->tries[1]);
        free(a->rows);
        free(a);
    }
}


int
token_added_put(
    token_added_t *a, const char *s, size_t len, uint32_t id, unsigned flags)
{
    unsigned which = (flags & TOKEN_ADDED_NORMALIZED) != 0;

    assert(a->n < a->cap && len > 0);

    a->rows[a->n].id = id;
    a->rows[a->n].flags = flags;
    a->n++;
    a->first[which][(uint8_t) s[0]] = 1;
    if (len > 1) {
        a->pairs[which][(uint8_t) s[0]][(uint8_t) s[1] / 8] |=
            (uint8_t) (1u << (uint8_t) s[1] % 8);
    } else {
        memset(a->pairs[which][(uint8_t) s[0]], 0xff, 32);
    }

    return token_trie_put(&a->tries[which], s, len, a->n);
}


/* --- characters around a token ------------------------------------------ */

/* The character that ends at s[at], -1 if none; *n is its length. */
static int32_t
added_before(const char *s, size_t at, size_t *n)
{
    utf8proc_int32_t c;

    assert(n != NULL);

    for (*n = 1; *n < at && *n < 4; (*n)++) {
        if (((uint8_t) s[at - *n] & 0xc0) != 0x80) {
            break;
        }
    }
    if (at < *n
        || utf8proc_iterate((const utf8proc_uint8_t *) s + at - *n,
               (utf8proc_ssize_t) *n, &c)
               < 0) {
        return -1;
    }

    return c;
}


static int32_t
added_behind(const char *s, size_t len, size_t at, size_t *n)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t got;

    got = at < len ? utf8proc_iterate((const utf8proc_uint8_t *) s + at,
              (utf8proc_ssize_t) (len - at), &c)
                   : -1;
    *n = got > 0 ? (size_t) got : 0;

    return got > 0 ? c : -1;
}


static int
added_is_word(int32_t c)
{
    utf8proc_category_t k;

    if (c < 0) {
        return 0;
    }
    k = utf8proc_category(c);

    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_ME)
           || k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL
           || k == UTF8PROC_CATEGORY_PC || c == 0x200c || c == 0x200d;
}


/* --- a pass ------------------------------------------------------------- */

/* The longest token at s that may be there, NULL if none. */
static const added_row_t *
added_at(const added_pass_t *p, const char *s, size_t len, size_t *n)
{
    const token_added_t *a = p->t->added;
    const token_trie_t *trie = &a->tries[p->normalized];
    const added_row_t *found = NULL, *row;
    uint32_t node = 0;
    size_t i;

    assert(len > 0);

    for (i = 0; i < len; i++) {
        node = token_trie_step(trie, node, (uint8_t) s[i]);
        if (node == 0) {
            break;
        }
        if (trie->value[node] == 0) {
            continue;
        }
        row = &a->rows[trie->value[node] - 1];
        if (!(row->flags & TOKEN_ADDED_SPECIAL)
            || (p->control
                && (p->moved || token_sink_control(p->s, s, i + 1)))) {
            found = row;
            *n = i + 1;
        }
    }

    return found;
}


/*
 * Widens a token from *from to *to by what it takes along; 0 if it may not be
 * there after all.  done is where the token before it ended.
 */
static int
added_edges(const added_row_t *row, const char *s, size_t len, size_t done,
    size_t *from, size_t *to)
{
    size_t n;

    if ((row->flags & TOKEN_ADDED_WORD)
        && (added_is_word(added_before(s, *from, &n))
            || added_is_word(added_behind(s, len, *to, &n)))) {
        return 0;
    }

    while ((row->flags & TOKEN_ADDED_LSTRIP) && *from > done
           && token_is_space(added_before(s, *from, &n))) {
        *from = *from - n > done ? *from - n : done;
    }
    while ((row->flags & TOKEN_ADDED_RSTRIP)
           && token_is_space(added_behind(s, len, *to, &n))) {
        *to += n;
    }

    assert(done <= *from && *from < *to && *to <= len);

    return 1;
}


/* Counts bytes that were looked at, and asks now and then. */
static int
added_cancelled(added_pass_t *p, size_t n)
{
    p->looked += n;
    if (p->looked < TOKEN_CANCEL_EVERY) {
        return 0;
    }
    p->looked = 0;

    return token_sink_cancelled(p->s);
}


/* How many bytes at s no token can begin with; some thousands at most. */
static size_t
added_none(const added_pass_t *p, const char *s, size_t len)
{
    const token_added_t *a = p->t->added;
    const uint8_t *first = a->first[p->normalized], *u = (const uint8_t *) s;
    size_t i, end = len < TOKEN_CANCEL_EVERY ? len : TOKEN_CANCEL_EVERY;

    for (i = 0; i < end; i++) {
        if (first[u[i]]
            && (i + 1 == len
                || (a->pairs[p->normalized][u[i]][u[i + 1] / 8] >> u[i + 1] % 8
                    & 1))) {
            break;
        }
    }

    return i;
}


static int
added_pass(added_pass_t *p, const char *s, size_t len)
{
    const added_row_t *row;
    size_t done = 0, i = 0, n = 0, from, to;
    int rc = 0;

    while (i < len && rc == 0) {
        n = added_none(p, s + i, len - i);
        i += n;
        if (added_cancelled(p, n + 1)) {
            return -LLM_ERR_CANCELLED;
        }
        if (i == len) {
            break;
        }
        row = added_at(p, s + i, len - i, &n);
        if (row == NULL) {
            i++;
            continue;
        }

        from = i;
        to = i + n;
        if (!added_edges(row, s, len, done, &from, &to)) {
            i += n;
            continue;
        }
        rc = added_plain(p, s + done, from - done, p->first && done == 0);
        rc = rc == 0 ? token_sink_put(p->s, row->id) : rc;
        done = i = to;
    }

    if (rc == 0) {
        rc = added_plain(p, s + done, len - done, p->first && done == 0);
    }

    return rc;
}


/* What lies between the tokens of a pass. */
static int
added_plain(const added_pass_t *p, const char *s, size_t len, int first)
{
    added_pass_t second = *p;
    token_buf_t b = {NULL, 0, 0};
    int rc = 0;

    if (len == 0) {
        return 0;
    }
    if (p->normalized) {
        return token_encode_plain(p->t, s, len, first, p->s);
    }

    second.normalized = 1;
    second.first = first;

    /* where it came from can no longer be told: all of it or nothing */
    if (p->t->norm != NULL) {
        second.control = p->control && token_sink_control(p->s, s, len);
        second.moved = 1;
        rc = token_norm_run(p->t->norm, s, len, &b);
        s = b.p != NULL ? b.p : "";
        len = b.n;
    }
    if (rc == 0) {
        rc = p->t->added->tries[1].edges != NULL
                 ? added_pass(&second, s, len)
                 : added_plain(&second, s, len, first);
    }
    free(b.p);

    return rc;
}


int
token_added_encode(const token_t *t, const char *text, size_t len, int control,
    token_sink_t *s)
{
    added_pass_t p = {.t = t, .s = s, .control = control, .first = 1};

    assert(t->added != NULL);

    if (len > TOKEN_TEXT_MAX) {
        return -LLM_ERR_CONTEXT_FULL;
    }

    return added_pass(&p, text, len);
}
