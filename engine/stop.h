/*
 * Finds stop strings in a stream of bytes and says how much of it must be held
 * back, because it may be the beginning of one.
 */
#ifndef STOP_H
#define STOP_H

#include "llm_wire.h"

#include <stddef.h>
#include <stdint.h>

/* The strings of one request. All zero has none. */
typedef struct {
    uint32_t n;
    const char *s[LLM_STOPS_MAX]; /* borrowed */
    uint16_t len[LLM_STOPS_MAX];
    /* fail[i][k]: the longest proper prefix of s[i] that ends its first k + 1
     * bytes */
    uint16_t fail[LLM_STOPS_MAX][LLM_STOP_LEN_MAX];
} stop_t;

/* How much of each string one stream ends with. All zero is the start. */
typedef struct {
    uint16_t at[LLM_STOPS_MAX];
} stop_state_t;

/*
 * Adds the string s, borrowed for as long as p is used.  0, or -1 if there is
 * no place for it, it is empty, or it is longer than LLM_STOP_LEN_MAX.
 */
int stop_add(stop_t *p, const char *s, size_t len);

/*
 * What of the stream so far is held back: its last bytes, given in *bytes
 * (borrowed from a string).  Returns how many, 0 for none.
 */
uint32_t stop_held(const stop_t *p, const stop_state_t *st, const char **bytes);

/*
 * Reads the next n bytes.  Returns 0 when no string came to its end in them.
 * Otherwise reads no further than that and returns 1; *used is then the number
 * of bytes read, and *len the length of the string, which they end with (the
 * longest of several).  The state makes no sense after that.
 */
int stop_feed(const stop_t *p, stop_state_t *st, const char *s, size_t n,
    size_t *used, uint32_t *len);

#endif
