/*
 * Cuts a JSON object into its members: see json_cut.h.
 *
 * DESIGN.  A tree of a large header costs twenty times the header's size and
 * more, and who writes the header decides how much.  So only the glue between
 * members is looked at here, and jansson reads each small piece.  To find the
 * end of a member it is enough to know where strings end and to count
 * brackets, of either kind alike: a piece with wrong ones is refused by who
 * reads it.
 *
 * No state, no memory: any thread.
 */
#include "json_cut.h"

#include <assert.h>
#include <string.h>

static void
skip_space(json_cut_t *c)
{
    while (
        c->p < c->end
        && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r')) {
        c->p++;
    }
}

/* Moves over the character ch, behind white space; is it there? */
static int
skip_char(json_cut_t *c, char ch)
{
    skip_space(c);

    if (c->p == c->end || *c->p != ch) {
        return 0;
    }

    c->p++;
    return 1;
}

/* Moves behind the quote that ends the string whose first quote is passed. */
static int
skip_string(json_cut_t *c)
{
    for (; c->p < c->end; c->p++) {
        if (*c->p == '"') {
            c->p++;
            return 1;
        }

        if (*c->p == '\\' && ++c->p == c->end) {
            return 0;
        }
    }

    return 0;
}

/* Moves behind a value: up to the comma or bracket that is not its own. */
static int
skip_value(json_cut_t *c)
{
    size_t depth = 0;
    char ch;

    while (c->p < c->end) {
        ch = *c->p;

        if (depth == 0 && (ch == ',' || ch == '}' || ch == ']')) {
            return 1;
        }

        c->p++;

        if (ch == '"') {
            if (!skip_string(c)) {
                return 0;
            }
        } else if (ch == '{' || ch == '[') {
            depth++;
        } else if (ch == '}' || ch == ']') {
            assert(depth > 0);
            depth--;
        }
    }

    return 0;
}

int
json_cut_open(json_cut_t *c, const char *text, size_t len)
{
    assert(text != NULL);
    c->p = text;
    c->end = text + len;
    c->first = 1;
    return skip_char(c, '{');
}

int
json_cut_next(json_cut_t *c, json_cut_piece_t *key, json_cut_piece_t *value)
{
    assert(c->p <= c->end);

    if (skip_char(c, '}')) {
        return 0;
    }

    if ((!c->first && !skip_char(c, ',')) || !skip_char(c, '"')) {
        return -1;
    }

    c->first = 0;
    key->s = c->p;

    if (!skip_string(c)) {
        return -1;
    }

    key->len = (size_t) (c->p - key->s) - 1;

    if (!skip_char(c, ':')) {
        return -1;
    }

    skip_space(c);
    value->s = c->p;

    if (!skip_value(c)) {
        return -1;
    }

    assert(c->p < c->end && c->p >= value->s);
    value->len = (size_t) (c->p - value->s);
    return value->len > 0 ? 1 : -1;
}

int
json_cut_done(json_cut_t *c)
{
    assert(c->p <= c->end);
    skip_space(c);
    return c->p == c->end;
}
