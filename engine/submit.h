/*
 * Judging a SUBMIT record: a private copy of what a worker wrote, taken apart
 * and checked field by field.  No state, no I/O; see submit.c.
 */
#ifndef SUBMIT_H
#define SUBMIT_H

#include "req.h"

#include <stdint.h>

/* Why a request is refused, in the terms of an ERROR event. */
typedef struct {
    uint32_t err; /* llm_err.h, 0: it is not */
    char param[32];
    char text[160]; /* empty: the list's own sentence */
} submit_fail_t;

/* One thing to turn into a prompt. */
typedef struct {
    uint32_t type; /* LLM_SEC_MESSAGES, _PROMPT or _PROMPT_IDS */
    uint32_t len;
    const uint8_t *p; /* [len] in the record, 8-byte aligned as that is */
} submit_input_t;

/* A record's parts, borrowed from it. A part that is absent has a NULL p. */
typedef struct {
    llm_wire_submit_t head; /* what the sender did not know of is 0 */
    submit_input_t inputs[LLM_CHOICES_MAX];
    uint32_t inputs_n; /* may be more than there is room for */
    submit_input_t model, tenant, id, salt;  /* of repeated ones the last */
    submit_input_t tools, documents, kwargs; /* likewise; JSON, untrusted */
    submit_input_t grammar;                  /* likewise; untrusted */
    uint32_t stops_n, stops_len, stops_bad;  /* bad: some has a wrong length */
    uint32_t bias_n, bias_bad; /* bad: cut short, or a wrong value */
    uint32_t bias_token_max;
} submit_t;

/* What values are judged by. */
typedef struct {
    const char *model; /* the engine's name of it */
    uint32_t vocab;
    uint32_t credit_max;
} submit_rules_t;

/*
 * Takes a record (len bytes at rec, 8-byte aligned) apart.  0, or -1 if it
 * lies about its lengths: its writer is not to be trusted any further.
 */
int submit_parse(const void *rec, uint32_t len, submit_t *s);

/* Judges the values. 0, or -1 with why filled in. */
int submit_check(
    const submit_t *s, const submit_rules_t *rules, submit_fail_t *why);

/* Bytes that submit_fill needs at keep. */
uint32_t submit_keep_size(const submit_t *s);

/*
 * Sets r's fields from a record that submit_check passed: flags, counts,
 * sampling, stop strings and id.  What r points to then is copied to keep,
 * submit_keep_size() bytes aligned to 8, borrowed until FREE.  Prompts, and
 * what is counted in tokens, are not set.
 */
void submit_fill(const submit_t *s, const submit_rules_t *rules,
    const void *rec, uint32_t len, uint8_t *keep, req_t *r);

/* Fills in why; fmt makes its sentence, "" leaves the list's own. */
void submit_refuse(submit_fail_t *why, uint32_t err, const char *param,
    const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
