/*
 * What the chat templates' own files share: one call's state, the checks
 * (template_check.c), the fixed forms (template_fixed.c), a last message left
 * open (template_go_on.c).  For those only.
 */
#ifndef TEMPLATE_IMPL_H
#define TEMPLATE_IMPL_H

#include "template.h"
#include "jinja.h"

#include <jansson.h>

/* What a template can be given, found out when it is opened. */
typedef struct {
    int parts;     /* contents as arrays of parts */
    int null;      /* the content of an assistant that only called tools */
    int developer; /* the role of that name */
    int tools, documents;
    const char *thought; /* the name of a message's thought; NULL: as it came */
} template_takes_t;

/* One call. */
typedef struct {
    const token_t *tok;
    uint32_t *out; /* [cap] */
    size_t n, cap;
    int (*cancelled)(void *);
    void *arg;
    char *err;
    size_t errlen;
    char *param;
    size_t paramlen;
} template_call_t;

/* Notes the refusal of a field (path in printf's form) and gives its code. */
int template_refuse(template_call_t *p, int code, const char *why,
    const char *path, ...) __attribute__((format(printf, 4, 5)));

/*
 * Judges the messages and changes them to what is taken: every role is a
 * string, every content a string, or what else takes allows; arguments of
 * tool calls are objects where they can be.  0 or a negative code.
 */
int template_check(
    template_call_t *p, json_t *messages, const template_takes_t *takes);

/*
 * Checked messages as ids, without any template.  prompt: the assistant's turn
 * begins behind them; go_on: the last one's turn does not end.  0 or a
 * negative code.
 */
int template_chatml(
    template_call_t *p, const json_t *messages, int prompt, int go_on);
int template_plain(template_call_t *p, const json_t *messages);

/*
 * A last message that is to be continued (template_go_on.c), of messages that
 * are checked: is there one?  Then a mark behind its text, and, once they are
 * rendered, the rendering cut there.  0 or a negative code.
 */
int template_go_on_check(template_call_t *p, json_t *messages);
int template_go_on_mark(json_t *messages);
int template_go_on_cut(template_call_t *p, jinja_out_t *o);

/* Has the vocabulary what ChatML is made of? */
int template_is_chatml(const token_t *tok);

#endif
