/*
 * Cuts a JSON object into its members without reading them: what a large
 * object is read with one member at a time, in memory that does not grow.
 */
#ifndef JSON_CUT_H
#define JSON_CUT_H

#include <stddef.h>

typedef struct {
    const char *s; /* borrowed from the text */
    size_t len;
} json_cut_piece_t;

typedef struct {
    const char *p, *end; /* what is left */
    int first;
} json_cut_t;

/* Begins with the object that text is; 0 if it does not begin as one. */
int json_cut_open(json_cut_t *c, const char *text, size_t len);

/*
 * The next member: 1 with key (what is between the quotes, escapes as they
 * are) and value (any run that may be a JSON value: who reads it judges it);
 * 0 behind the last one; -1 when the text is no object.  Linear, no recursion.
 */
int json_cut_next(
    json_cut_t *c, json_cut_piece_t *key, json_cut_piece_t *value);

/* After the 0: is only white space left? */
int json_cut_done(json_cut_t *c);

#endif
