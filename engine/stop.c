/*
 * Stop strings in a stream: see stop.h.
 *
 * DESIGN.  One Knuth-Morris-Pratt automaton per string; a stream's state is
 * how many bytes of each string it ends with.  With at most 16 strings this is
 * less memory than one automaton over all of them, whose table would be paid
 * for by every request.
 *
 * What must be held back is the longest of those prefixes: a shorter one is
 * part of it.  And since held bytes are by definition the first bytes of a
 * known string, nobody needs to store them.
 *
 *      strings "\n\nQ:"  "\n#"        stream  ...text\n\n
 *      at         2        1          held "\n\n", taken from the first
 */
#include "stop.h"

#include <assert.h>


int
stop_add(stop_t *p, const char *s, size_t len)
{
    uint16_t *fail;
    size_t i;
    uint16_t k = 0;

    if (p->n == LLM_STOPS_MAX || len == 0 || len > LLM_STOP_LEN_MAX) {
        return -1;
    }

    fail = p->fail[p->n];
    fail[0] = 0;
    for (i = 1; i < len; i++) {
        while (k > 0 && s[i] != s[k]) {
            k = fail[k - 1];
        }
        k += s[i] == s[k];
        fail[i] = k;
        assert(k <= i);
    }

    p->s[p->n] = s;
    p->len[p->n] = (uint16_t) len;
    p->n++;

    return 0;
}


uint32_t
stop_held(const stop_t *p, const stop_state_t *st, const char **bytes)
{
    uint32_t i, n = 0;

    *bytes = "";
    for (i = 0; i < p->n; i++) {
        assert(st->at[i] < p->len[i]);
        if (st->at[i] > n) {
            n = st->at[i];
            *bytes = p->s[i];
        }
    }

    return n;
}


int
stop_feed(const stop_t *p, stop_state_t *st, const char *s, size_t n,
    size_t *used, uint32_t *len)
{
    uint32_t i, best;
    uint16_t k;
    size_t at;

    assert(p->n <= LLM_STOPS_MAX);

    for (at = 0; at < n && p->n > 0; at++) {
        best = 0;
        for (i = 0; i < p->n; i++) {
            k = st->at[i];
            while (k > 0 && s[at] != p->s[i][k]) {
                k = p->fail[i][k - 1];
            }
            k += s[at] == p->s[i][k];
            st->at[i] = k;
            if (k == p->len[i] && k > best) {
                best = k;
            }
        }
        if (best > 0) {
            *used = at + 1;
            *len = best;
            return 1;
        }
    }

    return 0;
}
